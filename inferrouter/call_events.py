"""Makes the events of one call, and tells them to the router's meters.

Strategy: a `CallTrace` goes with a call that somebody listens to; where nobody does there is none, and nothing of this runs. It
sums up the attempts, and ends once, whichever way the call does. Must never decide anything, nor keep a message's text.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .assessment import Candidate
from .costs import total_usage
from .errors import InferRouterError, NoCandidatesError, Rejection, StreamInterruptedError
from .events import NOTHING_USED, CallEvent, HoldEvent, LimitEvent, RefusalEvent, ResultEvent, RouteEvent, WaitEvent
from .frozen import EMPTY, FrozenDict, quick
from .meter import Clock, Listeners
from .quota_learned import Observation
from .records import ChatRequest, EmbedRequest, Usage
from .redaction import redacted_word

if TYPE_CHECKING:
    from .responses import ChatResponse, EmbedResponse

_new_route, _new_result, _new_call = quick(RouteEvent), quick(ResultEvent), quick(CallEvent)


class CallTrace:
    """One call on its way. `alias`: the name that was asked for; `waited_s`: how long it has waited so far."""

    def __init__(
        self, listeners: Listeners, clock: Clock, request: ChatRequest | EmbedRequest, alias: str, stream: bool = False
    ) -> None:
        self._listeners = listeners
        self._clock = clock
        self._request = request
        self._began = clock.monotonic()
        self._ended = False
        self._attempts = 0
        self._usage = NOTHING_USED
        self._cost = 0.0
        self._last: Candidate | None = None
        self.call_id = os.urandom(8).hex()
        self.alias = alias
        self.operation = "embeddings" if isinstance(request, EmbedRequest) else "chat"
        self.stream = stream
        self.waited_s = 0.0
        listeners.end_holds(clock.time())

    def attempt_begins(self, found: Candidate, number: int, estimated_tokens: int, reserved: Iterable[tuple[str, float]]) -> None:
        """`number`: which of its walk it is, from 1."""
        self._attempts += 1
        self._last = found
        if self._listeners.hears("on_route"):
            event = _new_route(
                found.provider,
                found.account_id,
                found.model,
                found.free,
                number,
                estimated_tokens,
                self.call_id,
                self.alias,
                self.operation,
                self.stream,
                tuple(reserved),
                _parameters(self._request),
                found.deployment.bound.endpoint.base_url,
                self._clock.time(),
            )
            self._listeners.tell("on_route", event)

    def attempt_ends(
        self,
        found: Candidate,
        number: int,
        duration: float,
        usage: Usage,
        cost: float,
        error: InferRouterError | None,
        answer: ChatResponse | EmbedResponse | None,
        first_chunk_s: float | None,
        reserved: Sequence[tuple[str, float]],
        amounts: Sequence[float] | None,
    ) -> None:
        """`amounts`: what stays charged of each of `reserved`, None: all of it. An answer ends a chat; texts may have more."""
        self._usage = usage if self._attempts == 1 else total_usage((self._usage, usage))
        self._cost += cost
        if self._listeners.hears("on_result"):
            kept = [amount for _, amount in reserved] if amounts is None else amounts
            event = _new_result(
                found.provider,
                found.account_id,
                found.model,
                found.free,
                error is None,
                duration,
                usage,
                cost,
                error,
                self.call_id,
                number,
                self.alias,
                self.operation,
                self.stream,
                *_answered(answer, found),
                first_chunk_s,
                tuple(reserved),
                tuple([(key, amount) for (key, _), amount in zip(reserved, kept, strict=True)]),
                self.waited_s,
                self._clock.time(),
            )
            self._listeners.tell("on_result", event)
        if error is None and self.operation == "chat":
            self.ends()

    def waits(self, seconds: float, until: float, soonest: Rejection) -> None:
        """Before the call sleeps; `soonest`: whom it waits for, and why. `waited_s` is for the caller to add up after it."""
        event = WaitEvent(
            self.call_id,
            self.alias,
            soonest.provider,
            soonest.account_id,
            soonest.model,
            seconds,
            until,
            soonest.reason,
            self._clock.time(),
        )
        self._listeners.tell("on_wait", event)

    def hold_begins(self, key: str, found: Candidate, until: float, reason: str) -> None:
        """Because of how an attempt at `found` ended."""
        model = found.model if key.endswith(f"|{found.model}") else ""
        event = HoldEvent(key, found.provider, found.account_id, model, until, reason, at=self._clock.time())
        self._listeners.hold_begins(event)

    def learned(self, found: Candidate, seen: Iterable[Observation]) -> None:
        """What an answer of `found` taught about its limits."""
        configured = {bucket.key: bucket.limit.amount for bucket in found.deployment.limits.values()}
        for each in seen:
            stated = each.limit if each.ceiling is None else each.ceiling
            place = (each.key, found.provider, found.account_id, found.model)
            event = LimitEvent(*place, configured.get(each.key), stated, each.remaining, each.source, self._clock.time())
            self._listeners.tell("on_limit", event)

    def ends(self, error: BaseException | None = None) -> None:
        """The call's end, told once. `error`: what its caller gets instead of an answer."""
        if self._ended:
            return
        self._ended = True
        now, last = self._clock.time(), self._last
        if isinstance(error, NoCandidatesError):
            facts = (self.call_id, self.alias, self.operation, error.rejections, error.retry_at)
            self._listeners.tell("on_refusal", RefusalEvent(*facts, now))
        if self._listeners.hears("on_call"):
            event = _new_call(
                self.call_id,
                self.alias,
                self.operation,
                self.stream,
                _outcome(error),
                self._attempts,
                self.waited_s,
                self._clock.monotonic() - self._began,
                self._usage,
                self._cost,
                last is None or last.free,
                last.provider if last else "",
                last.account_id if last else "",
                last.model if last else "",
                error,
                now,
            )
            self._listeners.tell("on_call", event)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    if isinstance(error, NoCandidatesError):
        return "refused"
    if isinstance(error, StreamInterruptedError):
        return "cut"
    return "failed" if isinstance(error, Exception) else "abandoned"


def _answered(answer: ChatResponse | EmbedResponse | None, found: Candidate) -> tuple[str, str, tuple[str, ...]]:
    """Model, id and finish reasons of an answer, which a caller's own provider may have made without any of them."""

    def word(holder: object, name: str) -> str:
        return redacted_word(getattr(holder, name, None), found)

    choices = getattr(answer, "choices", ())
    reasons = [word(each, "finish_reason") for each in choices] if isinstance(choices, tuple) else []
    return word(answer, "model"), word(answer, "id"), tuple(filter(None, reasons))


def _parameters(request: ChatRequest | EmbedRequest) -> Mapping[str, Any]:
    """Those of the request's settings that describe it without quoting it."""
    if isinstance(request, EmbedRequest):
        return EMPTY
    stated = {name: getattr(request, name) for name in ("max_tokens", "temperature", "top_p", "stop", "seed", "session")}
    form = request.response_format
    stated["output"] = form.get("type") if isinstance(form, Mapping) else None
    stated["n"] = request.extra.get("n") if request.extra else None
    return FrozenDict({name: value for name, value in stated.items() if value is not None})
