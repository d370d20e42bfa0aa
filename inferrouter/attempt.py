"""Runs one attempt: one reservation and one permit, one exchange with one provider, ended exactly once.

Strategy: `begin` takes the permit and the reservation or says why not; `exchange` sends and hands a 2xx answer to the
operation; then `succeed`, `fail` or `abandon` settles the ledger, tells the breaker and the meter, and whatever comes later
does nothing. The first end decides how it ended; it counts as done once it is done, so that the next one carries out what an
interrupt cut off. Must never decide which candidate comes next, nor know a wire format.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .assessment import BREAKER_OPEN, CallNeeds, Candidate, Instant, amounts_needed
from .costs import cost_of, with_media
from .errors import InferRouterError, InvalidRequestError, Rejection
from .failure_table import FailureRule
from .frozen import field, frozen_value, new_tuple, quick
from .guarded_store import GuardedStore
from .health import Health, Permit, Verdict
from .learning import Learner
from .limits import MAX_AMOUNT
from .meter import Clock, Listeners
from .notices import Notices
from .own_process import PROCESS
from .policy import Policy
from .quota import QuotaStore, Refusal, Reservation
from .records import ChatRequest, EmbedRequest, Routing, Usage
from .redaction import attributed, strip_tracebacks
from .transport import Transport, WireReply
from .waiting import WaitingRoom
from .waiting_line import Lines
from .wire import WireFault, WireRequest

if TYPE_CHECKING:
    from .call_events import CallTrace
    from .responses import ChatResponse, EmbedResponse
    from .waiting import Cancel

T = TypeVar("T")

_routing = quick(Routing)
_SUCCESS = Verdict.SUCCESS  # an enum is slow to give it
ERROR_BODY_BYTES = 64 * 1024


@frozen_value
class Runtime:
    """What every walk of a router works with. `attempt_timeout` in seconds; `auth_next`: a refused key moves on, None: to
    another account of its provider alone. `notices`: what is said once.

    `unsettled_streams`: the settlements of streams that were collected as garbage. A finalizer may run anywhere, also inside a
    lock of the store, so it leaves its settlement here for the next call to make.
    """

    clock: Clock
    ledger: GuardedStore
    health: Health
    policy: Policy
    meter: Listeners | None
    attempt_timeout: float
    auth_next: bool | None
    unsettled_streams: deque[Callable[[], None]] = field(default_factory=deque, repr=False)
    notices: Notices = field(default_factory=Notices, repr=False)
    waiting: WaitingRoom = field(default_factory=WaitingRoom, repr=False)
    lines: Lines = field(default_factory=Lines, repr=False)
    learner: Learner = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "learner", Learner(self.ledger, self.health))

    def now(self) -> Instant:
        """This moment on both clocks."""
        clock = self.clock
        return new_tuple(Instant, (clock.time(), clock.monotonic()))  # in two thirds of the time

    def say(self, key: str, text: str, place: tuple[str, str, str] = ("", "", "")) -> None:
        """Say `text` the first time, to meters and in `Router.warnings`. `place`: provider, account and model it is about."""
        if self.notices.say(key, text) and self.meter is not None:
            from .events import NoticeEvent

            self.meter.tell("on_notice", NoticeEvent(text, *place, self.clock.time()))

    def settle_dropped_streams(self) -> None:
        """Settle what finalizers left behind."""
        while self.unsettled_streams:
            try:
                settle = self.unsettled_streams[0]
            except IndexError:  # another thread was faster
                return
            try:
                settle()
            except Exception:
                self._forget(settle)
                raise
            self._forget(settle)  # not before: an interrupt may come in between

    def _forget(self, settle: Callable[[], None]) -> None:
        with suppress(ValueError):  # another thread was faster
            self.unsettled_streams.remove(settle)


class Operation(Generic[T]):
    """One call: what is asked, and what is done with an open 2xx answer. Never changed once it is made.

    `read` ends its attempt with `succeed`, or raises a `ProviderError` or `WireFault`. `deadline`: monotonic seconds for the
    whole walk, None: no bound; `max_wait`: seconds the walk may sleep in all, unless `cancel` is thrown. `trace`: None where no
    meter listens. `waits`: where the seconds that it slept are noted, for a call of several walks.
    """

    __slots__ = ("cancel", "deadline", "max_wait", "needs", "read", "request", "stream", "trace", "waits")

    def __init__(
        self,
        request: ChatRequest | EmbedRequest,
        needs: CallNeeds,
        read: Callable[[LiveAttempt, WireReply], T],
        deadline: float | None,
        max_wait: float,
        stream: bool = False,
        trace: CallTrace | None = None,
        cancel: Cancel | None = None,
        waits: list[float] | None = None,
    ) -> None:
        self.request = request
        self.needs = needs
        self.read = read
        self.deadline = deadline
        self.max_wait = max_wait
        self.stream = stream
        self.trace = trace
        self.cancel = cancel
        self.waits = waits

    def time_left(self, clock: Clock) -> float:
        """Seconds until the deadline, below 0 after it; infinite if there is none."""
        return math.inf if self.deadline is None else self.deadline - clock.monotonic()

    def store_wait(self, clock: Clock) -> float | None:
        """Seconds that the ledger may be waited for, None: as its store likes."""
        return None if self.deadline is None else max(self.deadline - clock.monotonic(), 0.0)

    @property
    def embeds(self) -> bool:
        """Whether it asks for vectors."""
        return isinstance(self.request, EmbedRequest)

    def encode(self, candidate: Candidate) -> tuple[WireRequest, tuple[str, ...]]:
        """The request in the format of `candidate`, and which parameters it leaves out. Raises `InvalidRequestError`."""
        bound, request = candidate.deployment.bound, self.request
        try:
            if isinstance(request, EmbedRequest):
                return bound.provider.encode_embed(request, candidate.model, bound.endpoint), ()
            encoded = bound.provider.encode(request, candidate.model, bound.endpoint, self.stream)
            dropped: tuple[str, ...] | None = getattr(encoded, "dropped", None)  # an object of the provider's own may lack it
            return encoded, bound.provider.unsupported(request, candidate.model) if dropped is None else dropped
        except InvalidRequestError as exc:
            attributed(exc, candidate)
            raise
        except InferRouterError:
            raise
        except Exception as exc:
            message = f"the request cannot be encoded ({type(exc).__name__})"
            place = (candidate.provider, candidate.account_id, candidate.model)
            raise InvalidRequestError(*place, message=message) from strip_tracebacks(exc)


class LiveAttempt:
    """One attempt, under way between `begin` and its end. `number`: which of its call it is, from 1; `budget`: seconds it may
    take; `dropped`: what its request leaves out; `said`: headers and body of a refusal. The first of `succeed`, `fail` and
    `abandon` ends it; a second end does nothing.

    Making one does nothing either: whoever holds it can end what an interrupt cut off at any point. A forked child ends nothing
    of its parent's.
    """

    __slots__ = (
        "_ended",
        "_ending",
        "_expected",
        "_first_chunk_s",
        "_permit",
        "_pid",
        "_reservation",
        "_started",
        "budget",
        "candidate",
        "deployment",
        "dropped",
        "number",
        "operation",
        "runtime",
        "said",
        "wants",
    )

    def __init__(
        self, runtime: Runtime, operation: Operation[Any], candidate: Candidate, number: int, dropped: tuple[str, ...]
    ) -> None:
        self.runtime = runtime
        self.operation = operation
        self.candidate = candidate
        self.deployment = candidate.deployment
        self.number = number
        self.budget = 0.0
        self.dropped = dropped
        self._permit = Permit(candidate.account_id)
        self._pid = PROCESS.pid
        self._expected = operation.needs.estimate
        self.wants: Sequence[tuple[str, float]] = ()
        self._reservation: tuple[QuotaStore, Reservation] | None = None
        self._started = 0.0
        self._ending: dict[str, Any] = {}
        self._ended = False
        self._first_chunk_s: float | None = None
        self.said: tuple[Mapping[str, str], bytes] = ({}, b"")

    def begin(self) -> Refusal | Rejection | None:
        """Take the permit and the reservation; else return what the store or the breaker said. Raises `QuotaStoreError`."""
        runtime, operation, candidate = self.runtime, self.operation, self.candidate
        clock, deployment = runtime.clock, self.deployment
        wall, mono = clock.time(), clock.monotonic()
        if runtime.health.acquire(candidate.account_id, mono, self._permit) is None:
            wait = max(runtime.health.peek(candidate.account_id, mono)[1], 1.0)
            place = (candidate.provider, candidate.account_id, candidate.model)
            return Rejection(*place, BREAKER_OPEN, wall + wait, "breaker")
        self._expected = deployment.expected(self._expected)
        self.wants = amounts_needed(candidate, self._expected)
        if self.wants:
            max_wait = None if operation.deadline is None else operation.store_wait(clock)
            taken = runtime.ledger.reserve(self.wants, wall, max_wait)
            if isinstance(taken, Refusal):
                self.abandon()
                return taken
            self._reservation = taken
        self.budget = deployment.bound.account.attempt_timeout or runtime.attempt_timeout
        if operation.deadline is not None:
            self.budget = min(self.budget, operation.time_left(clock))
        self._started = clock.monotonic()
        return None

    def exchange(self, request: WireRequest, new_connection: bool = False) -> Any:
        """Send, and return what the operation read. Raises `WireFault`, the error the answer means, or what `read` raises."""
        runtime, trace = self.runtime, self.operation.trace
        if trace is not None:
            trace.attempt_begins(self.candidate, self.number, self._expected.total, self.wants)
        bound, cancel = self.deployment.bound, self.operation.cancel
        budget, allow_http, wire = self.budget, bound.account.allow_http, bound.wire
        if cancel is None or not isinstance(wire, Transport):  # a provider's own wire knows of no stop
            reply = wire.send(request, timeout_s=budget, allow_http=allow_http, new_connection=new_connection)
        else:
            reply = wire.send(request, timeout_s=budget, allow_http=allow_http, new_connection=new_connection, stop=cancel)
        if 200 <= reply.status < 300:
            headers = getattr(reply, "headers", None)  # a wire of the caller's own may have none
            if runtime.learner.hears(headers):
                seen = runtime.learner.answered(self.candidate, self.wants, headers, self._started, runtime.now())
                if seen and trace is not None:
                    trace.learned(self.candidate, seen)
            return self.operation.read(self, reply)
        with reply:
            body = _beginning(reply)
        self.said = reply.headers, body
        raise bound.provider.error(reply.status, reply.headers, body, runtime.clock.time())

    @property
    def routing(self) -> Routing:
        """Where the call went, before its cost is known."""
        return self.routing_for(Usage())

    def routing_for(self, usage: Usage) -> Routing:
        """Where the call went, with what `usage` cost in dollars."""
        found = self.candidate
        cost = 0.0 if found.free else self.cost(usage)
        return _routing(found.provider, found.account_id, found.model, self.number, found.free, cost, self.dropped)

    def cost(self, usage: Usage) -> float:
        """Dollars; 0 for a free call."""
        if self.candidate.free:
            return 0.0
        prices = self.deployment.prices
        return cost_of(prices, with_media(usage, self._expected, prices) if self._expected.media else usage)

    def first_chunk(self) -> None:
        """A stream's first content has come."""
        self._first_chunk_s = self.runtime.clock.monotonic() - self._started

    def succeed(self, usage: Usage, answer: ChatResponse | EmbedResponse | None = None) -> None:
        """End with an answer: charge `usage`. `answer` is what meters are told of."""
        if self._expected.open_answers:
            answers = self._expected.open_answers
            self.deployment.answers.learn(-(-usage.completion_tokens // answers))
        self._end(_SUCCESS, self._amounts(usage), usage, None, answer)

    def fail(self, error: InferRouterError, rule: FailureRule, seen: Usage | None = None) -> None:
        """End with an error: charge what `rule` says, or what was `seen` of the answer where that is more than reserved."""
        if seen is not None:
            amounts: list[float] | None = [
                max(reserved, amount) for (_, reserved), amount in zip(self.wants, self._amounts(seen), strict=True)
            ]
        elif rule.charge == "reservation":
            amounts = None
        else:
            refused = rule.charge == "request"
            kept = [refused and unit.kept for _, unit in self.candidate.charges]
            amounts = [amount if keeps else 0.0 for (_, amount), keeps in zip(self.wants, kept, strict=True)]
        self._end(rule.verdict, amounts, seen or Usage(), error)

    def abandon(self, charged: bool = True) -> None:
        """End without knowing how it went (an interrupt from outside): the reservation stays charged, unless nothing was sent."""
        self._end(Verdict.IGNORED, None if charged else [0.0] * len(self.wants), None, None)

    def _end(
        self,
        verdict: Verdict,
        amounts: list[float] | None,
        usage: Usage | None,
        error: InferRouterError | None,
        answer: ChatResponse | EmbedResponse | None = None,
    ) -> None:
        if self._ended or self._pid != PROCESS.pid:
            return
        runtime, trace, clock = self.runtime, self.operation.trace, self.runtime.clock
        if self.deployment.holds_places:
            amounts = self._places_freed(amounts)
        decided = (clock.time(), clock.monotonic(), verdict, amounts, usage, error, answer)
        wall, mono, verdict, amounts, usage, error, answer = self._ending.setdefault("how", decided)
        runtime.health.release(self._permit, verdict, mono)
        if self._reservation is not None:
            runtime.ledger.settle(self._reservation, amounts, wall)
            if amounts is not None and runtime.lines.joined and _gives_back(self.wants, amounts):
                runtime.lines.freed()
        if usage is not None and trace is not None and self._ending.setdefault("told", told := object()) is told:
            took, cost, first = mono - self._started, self.cost(usage), self._first_chunk_s
            facts = (self.candidate, self.number, took, usage, cost, error, answer, first)
            trace.attempt_ends(*facts, self.wants, amounts)
        self._ended = True

    def _amounts(self, usage: Usage) -> list[float]:
        """What `usage` is in the units of what was reserved."""
        deployment = self.deployment
        prices = deployment.prices
        if self._expected.media:
            usage = with_media(usage, self._expected, prices)
        amounts: list[float] = []
        for _, unit in deployment.free_charges if self.candidate.free else deployment.paid_charges:
            amount = unit.used(usage, prices) if unit.used is not None else self.wants[len(amounts)][1]
            # A provider of the user's own may say anything: what is not a count stays as reserved.
            if not 0 <= amount <= MAX_AMOUNT:
                amount = MAX_AMOUNT if amount > 0 else self.wants[len(amounts)][1]
            amounts.append(amount)
        return amounts

    def _places_freed(self, amounts: list[float] | None) -> list[float]:
        """`amounts` without what was used only while the call was under way."""
        if not self.wants:  # cut off before it wanted anything
            return []
        kept = [amount for _, amount in self.wants] if amounts is None else amounts
        return [0.0 if unit.held else amount for (_, unit), amount in zip(self.candidate.charges, kept, strict=True)]


def _gives_back(wants: Sequence[tuple[str, float]], amounts: Sequence[float]) -> bool:
    """Whether a settlement leaves more than there was while the call was under way."""
    return any(amount < taken for (_, taken), amount in zip(wants, amounts, strict=True))


def _beginning(reply: WireReply) -> bytes:
    """As much of a refusal's body as comes, and as is looked at."""
    if hasattr(reply, "read_beginning"):
        return reply.read_beginning(ERROR_BODY_BYTES)
    try:  # a wire of a provider's own
        return reply.read(ERROR_BODY_BYTES)
    except WireFault:
        return b""
