"""The one walk: candidates in the policy's order, each admitted, reserved, called and settled, until one answers.

Strategy: chat, stream and embed differ only in what they do with an open connection, so they hand that in as `Verb.run`. What an
error costs and whether the walk goes on stands in the table of `outcome`. Must never know a wire format, nor sleep unless the
caller allowed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from .admission import Admission, Kit, Verb, tell
from .candidates import Candidate, survey, wants_of
from .errors import (
    AllCandidatesFailedError,
    Attempt,
    AttemptTimeoutError,
    ConfigError,
    ContextWindowError,
    InferRouterError,
    InvalidRequestError,
    MultimodalUnavailableError,
    NoCandidatesError,
    ProviderError,
    QuotaExceededError,
    RateLimitedError,
    Rejection,
)
from .health import Verdict
from .meter import RouteEvent
from .outcome import BROKEN, Cost, bare, cost_of_error, foreign, reason_of, rest_key, signed, translated
from .policy import Policy
from .quota import Refusal
from .roster import Plan
from .wire import WireFault, WireRequest

__all__ = ["left_out", "ordered", "walk"]

T = TypeVar("T")

ERROR_BODY_BYTES = 64 * 1024


def walk(plan: Plan, verb: Verb[T], kit: Kit) -> T:
    """Try candidates until one answers, and return what `verb.run` made of it.

    Raises `NoCandidatesError`, `MultimodalUnavailableError`, `AllCandidatesFailedError`, `InvalidRequestError`,
    `ContextWindowError`, `AuthenticationError`, `QuotaStoreError`, or what `run` raises to the caller.
    """
    kit.nest.depth += 1
    try:
        return _walk(plan, verb, kit)
    finally:
        kit.nest.depth -= 1
        if kit.orphans:
            kit.settle_orphans()


def _walk(plan: Plan, verb: Verb[T], kit: Kit) -> T:
    attempts: list[Attempt] = []
    waited = 0.0
    while True:
        round_ = _Round(plan, verb, kit, attempts)
        answer = round_.go()
        if answer is not None:
            found: T = answer[0]
            return found
        pause = round_.pause(verb.max_wait - waited)
        if pause is None:
            raise round_.defeat()
        kit.clock.sleep(pause)
        waited += pause


class _Round:
    """One pass over the candidates. Failures of earlier rounds are in `attempts` already."""

    def __init__(self, plan: Plan, verb: Verb[T], kit: Kit, attempts: list[Attempt]) -> None:
        self.plan = plan
        self.verb = verb
        self.kit = kit
        self.attempts = attempts
        self.rejections: list[Rejection] = []
        self.only_limits = True
        self.retry_at: list[float] = []
        self._resting: set[str] = set()

    def go(self) -> tuple[Any] | None:
        """What `run` returned, in a tuple, or None when no candidate is left."""
        found = survey(self.plan, self.verb.situation, self.kit.ledger, self.kit.health, self.kit.now())
        for rejection in found.rejections:
            self._reject(rejection)
        queue = ordered(self.kit.policy, found.candidates)
        for rejection in left_out(found.candidates, queue):
            self._reject(rejection)
        turned: set[tuple[str, str]] = set()
        while queue and self._time_left() > 0:
            candidate = queue.pop(0)
            if self._rests(candidate):
                continue
            answer, again = self._try(candidate)
            if answer is not None:
                return answer
            place = (candidate.account_id, candidate.model)
            if again and place not in turned:
                turned.add(place)
                queue = ordered(self.kit.policy, (*queue, *self._as_paid(candidate)))
        return None

    def pause(self, patience: float) -> float | None:
        """Seconds to sleep until the soonest slot, or None if waiting is not allowed or would not help."""
        if not self.only_limits or not self.retry_at:
            return None
        pause = max(min(self.retry_at) - self.kit.clock.time(), 0.001)
        return pause if pause <= min(patience, self._time_left()) else None

    def defeat(self) -> InferRouterError:
        """The error that tells how this ended."""
        soonest = min(self.retry_at, default=None)
        if not self.attempts:
            if self._time_left() <= 0:
                return AttemptTimeoutError(message="the call's timeout was over before anything could be tried")
            media = bool(self.rejections) and all(rejection.code == "media" for rejection in self.rejections)
            return (MultimodalUnavailableError if media else NoCandidatesError)(self.rejections, soonest)
        last = self.attempts[-1].error
        if all(isinstance(attempt.error, ContextWindowError) for attempt in self.attempts):
            return last
        return AllCandidatesFailedError(self.attempts, soonest, self.rejections)

    def _try(self, candidate: Candidate, fresh: bool = False) -> tuple[tuple[Any] | None, bool]:
        """The answer of one candidate, or None; and whether it may come again as paid."""
        kit, verb = self.kit, self.verb
        account = candidate.slot.seat.account
        request, dropped = self._encode(candidate)
        passed = kit.health.enter(account.id, kit.clock.monotonic())
        if passed is None:
            state_wait = kit.health.look(account.id, kit.clock.monotonic())[1]
            self._refuse(candidate, "breaker", "resting after repeated failures", kit.clock.time() + max(state_wait, 1.0))
            return None, False
        try:
            wants = wants_of(candidate, verb.situation.need)
            held = kit.ledger.reserve(wants, kit.clock.time()) if wants else None
        except BaseException:
            kit.health.leave(passed, Verdict.NEUTRAL, kit.clock.monotonic())
            raise
        if isinstance(held, Refusal):
            kit.health.leave(passed, Verdict.NEUTRAL, kit.clock.monotonic())
            self._refuse(candidate, "limit", str(held), held.retry_at)
            allowance = candidate.slot.allowance
            return None, candidate.free and allowance is not None and held.key == allowance[0]
        number = len(self.attempts) + 1
        budget = min(account.attempt_timeout or kit.attempt_timeout, self._time_left())
        admission = Admission(kit, verb, candidate, held, wants, passed, number, budget, dropped)
        return self._call(admission, request, fresh)

    def _call(self, admission: Admission, request: WireRequest, fresh: bool) -> tuple[tuple[Any] | None, bool]:
        try:
            return (exchange(admission, request, fresh),), False
        except WireFault as fault:
            error, cost = translated(fault, admission.candidate)
            reused = fault.reused and not fresh
        except InferRouterError as exc:
            if not isinstance(exc, ProviderError):
                admission.abandon()
                raise
            error, cost, reused = signed(exc, admission.candidate), cost_of_error(exc, self.kit.auth_next), False
        except Exception as exc:
            error, cost, reused = foreign(exc, admission.candidate), BROKEN, False
        except BaseException:
            admission.abandon()
            raise
        self._record(admission, error, cost._replace(verdict=Verdict.NEUTRAL) if reused else cost)
        if reused and self._time_left() > 0:
            return self._try(admission.candidate, fresh=True)
        return None, False

    def _record(self, admission: Admission, error: ProviderError, cost: Cost) -> None:
        candidate, kit = admission.candidate, self.kit
        admission.fail(error, cost.charge, cost.verdict)
        if cost.rest is not None:
            until = cost.rest(error, candidate, kit.clock.time())
            key = rest_key(error, candidate)
            kit.ledger.hold(key, until, reason_of(error), kit.clock.time())
            self._resting.add(key)
            if error.retryable:
                self.retry_at.append(until)
        if cost.fatal:
            raise error
        if not isinstance(error, (RateLimitedError, QuotaExceededError)):
            self.only_limits = False
        self.attempts.append(Attempt(candidate.provider, candidate.account_id, candidate.model, error))

    def _encode(self, candidate: Candidate) -> tuple[WireRequest, tuple[str, ...]]:
        """The request, and which of its parameters are left out there."""
        try:
            return self.verb.encode(candidate), self.verb.dropped(candidate)
        except InvalidRequestError as exc:
            signed(exc, candidate)
            raise
        except InferRouterError:
            raise
        except Exception as exc:
            raise InvalidRequestError(
                candidate.provider,
                candidate.account_id,
                candidate.model,
                message=f"the request cannot be encoded ({type(exc).__name__})",
            ) from bare(exc)

    def _as_paid(self, candidate: Candidate) -> list[Candidate]:
        """The same slot looked at again, now that its allowance is gone."""
        slot = candidate.slot
        plan = Plan(self.plan.name, (slot,), slot.room_keys)
        found = survey(plan, self.verb.situation, self.kit.ledger, self.kit.health, self.kit.now())
        return [again._replace(order=candidate.order) for again in found.candidates if not again.free]

    def _rests(self, candidate: Candidate) -> bool:
        return bool(self._resting) and not self._resting.isdisjoint(candidate.slot.hold_keys)

    def _refuse(self, candidate: Candidate, code: str, reason: str, retry_at: float | None) -> None:
        self._reject(Rejection(candidate.provider, candidate.account_id, candidate.model, reason, retry_at, code))

    def _reject(self, rejection: Rejection) -> None:
        self.rejections.append(rejection)
        if rejection.retry_at is not None:
            self.retry_at.append(rejection.retry_at)

    def _time_left(self) -> float:
        deadline = self.verb.deadline
        return float("inf") if deadline is None else deadline - self.kit.clock.monotonic()


def ordered(policy: Policy, candidates: Sequence[Candidate]) -> list[Candidate]:
    """What `policy` makes of `candidates`, each once; what it invents is left out. Raises `ConfigError` if it fails."""
    if not candidates:
        return []
    try:
        answer = list(policy.select(list(candidates)))
        if len(answer) == 1 and answer[0] is candidates[0]:
            return answer
        chosen = dict.fromkeys(map(id, answer))
    except Exception as exc:
        name = type(policy).__name__
        raise ConfigError(f"policy: {name}.select raised {type(exc).__name__}; mend it or use another") from exc
    known = {id(candidate): candidate for candidate in candidates}
    return [known[place] for place in chosen if place in known]


def left_out(candidates: Sequence[Candidate], queue: Sequence[Candidate]) -> list[Rejection]:
    """A rejection for each of `candidates` that the policy did not put into `queue`."""
    if len(queue) == len(candidates):
        return []
    return [
        Rejection(each.provider, each.account_id, each.model, "left out by the policy", None, "policy")
        for each in candidates
        if each not in queue
    ]


def exchange(admission: Admission, request: WireRequest, fresh: bool) -> Any:
    """Send, and hand a 2xx answer to the verb. Raises `WireFault` or the error the answer means."""
    kit, found = admission.kit, admission.candidate
    if kit.meter is not None:
        facts = (found.provider, found.account_id, found.model, found.free)
        tell(kit.meter, "on_route", RouteEvent(*facts, admission.attempts, admission.verb.situation.need.total))
    seat = found.slot.seat
    reply = seat.wire.send(request, timeout_s=admission.budget, allow_http=seat.account.allow_http, fresh=fresh)
    if 200 <= reply.status < 300:
        return admission.verb.run(admission, reply)
    with reply:
        try:
            body = reply.read(ERROR_BODY_BYTES)
        except WireFault:
            body = b""
    raise seat.provider.error(reply.status, reply.headers, body, kit.clock.time())
