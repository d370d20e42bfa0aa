"""The one walk: candidates in the policy's order, each admitted, reserved, called and settled, until one answers.

Strategy: chat, stream and embed differ only in what they do with an open connection, so they hand that in as `Verb.run`. One
table says what an error costs and whether the walk goes on. An `Admission` holds everything that was taken for an attempt and
is ended exactly once, whichever way it goes. Must never know a wire format, nor sleep unless the caller allowed it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from .candidates import Candidate, Now, Situation, survey, wants_of
from .clock import Clock
from .errors import (
    AllCandidatesFailedError,
    Attempt,
    AttemptTimeoutError,
    AuthenticationError,
    ConfigError,
    ContextWindowError,
    InferRouterError,
    InvalidRequestError,
    ModelNotFoundError,
    MultimodalUnavailableError,
    NoCandidatesError,
    ProviderError,
    ProviderUnavailableError,
    QuotaExceededError,
    RateLimitedError,
    Rejection,
)
from .health import Health, Pass, Verdict
from .ledger import Ledger
from .limits import next_reset
from .meter import Meter, ResultEvent, RouteEvent
from .policy import Policy
from .quota import QuotaStore, Refusal, Reservation
from .records import Routing, Usage
from .roster import Plan, cost_of
from .secret import redact
from .transport import WireFault, WireReply, WireRequest

__all__ = ["Admission", "Kit", "Verb", "signed", "translated", "walk"]

T = TypeVar("T")

AUTH_REST = 600.0
MODEL_REST = 3600.0
QUOTA_REST = 3600.0
RATE_REST = (1.0, 10.0, 86_400.0)
"""Seconds a rate-limited account rests: at least, when the provider did not say, at most."""

ERROR_BODY_BYTES = 64 * 1024


class Nest(threading.local):
    """How deep this thread is inside the router: a finalizer that runs there must not ask for a lock."""

    depth = 0


@dataclass(frozen=True, slots=True)
class Kit:
    """What every walk of a router works with. `attempt_timeout` in seconds; `auth_next`: a refused key moves on."""

    clock: Clock
    ledger: Ledger
    health: Health
    policy: Policy
    meter: Meter
    attempt_timeout: float
    auth_next: bool
    nest: Nest = field(default_factory=Nest, repr=False)
    orphans: deque[Callable[[], None]] = field(default_factory=deque, repr=False)

    def now(self) -> Now:
        """This moment on both clocks."""
        return Now(self.clock.time(), self.clock.monotonic())

    def settle_orphans(self) -> None:
        """Settle what was collected as garbage at a moment when locks may have been held."""
        while self.orphans:
            self.orphans.popleft()()


@dataclass(frozen=True, slots=True)
class Verb(Generic[T]):
    """One call: how it is encoded for a candidate, and what is done with its open 2xx answer.

    `run` settles its admission with success, or raises a `ProviderError` or `WireFault`. `deadline`: monotonic seconds for the
    whole walk, None: no bound; `max_wait`: seconds the walk may sleep in all.
    """

    situation: Situation
    encode: Callable[[Candidate], WireRequest]
    run: Callable[[Admission, WireReply], T]
    deadline: float | None
    max_wait: float
    dropped: Callable[[Candidate], tuple[str, ...]] = field(default=lambda candidate: ())


class Cost(NamedTuple):
    """What an error means for the rest of the walk. `charge`: nothing | request | reservation; `rest`: hold or None."""

    charge: str
    verdict: Verdict
    fatal: bool
    rest: Callable[[ProviderError, Candidate, float], float] | None = None


class Admission:
    """One attempt's reservation, place in flight and breaker pass. `succeed` or `fail` ends it; a second end does nothing."""

    __slots__ = (
        "_ended",
        "_held",
        "_pass",
        "_started",
        "_wants",
        "attempts",
        "budget",
        "candidate",
        "deadline",
        "dropped",
        "kit",
        "verb",
    )

    def __init__(
        self,
        kit: Kit,
        verb: Verb[Any],
        candidate: Candidate,
        held: tuple[QuotaStore, Reservation] | None,
        wants: Sequence[tuple[str, float]],
        passed: Pass,
        attempts: int,
        budget: float,
    ) -> None:
        self.kit = kit
        self.verb = verb
        self.candidate = candidate
        self.attempts = attempts
        self.budget = budget
        self.deadline = verb.deadline
        self.dropped = verb.dropped(candidate)
        self._held = held
        self._wants = wants
        self._pass = passed
        self._started = kit.clock.monotonic()
        self._ended = False

    @property
    def routing(self) -> Routing:
        """Where the call went, before its cost is known."""
        found = self.candidate
        return Routing(found.provider, found.account_id, found.model, self.attempts, found.free, 0.0, self.dropped)

    def routing_for(self, usage: Usage) -> Routing:
        """Where the call went, with what `usage` cost in dollars."""
        found = self.candidate
        cost = self.cost(usage)
        return Routing(found.provider, found.account_id, found.model, self.attempts, found.free, cost, self.dropped)

    def cost(self, usage: Usage) -> float:
        """Dollars; 0 for a free call."""
        return 0.0 if self.candidate.free else cost_of(self.candidate.slot.seat.account, usage)

    def succeed(self, usage: Usage, charged: Usage | None = None) -> None:
        """End with an answer: charge `charged`, by default `usage`."""
        self._end(Verdict.SUCCESS, self._amounts(charged or usage), usage, None)

    def fail(self, error: InferRouterError, charge: str, verdict: Verdict, charged: Usage | None = None) -> None:
        """End without one: charge "nothing", the "request", or the whole "reservation"; or the larger of it and `charged`."""
        if charged is not None:
            amounts: list[float] | None = [
                max(reserved, amount) for (_, reserved), amount in zip(self._wants, self._amounts(charged), strict=True)
            ]
        elif charge == "reservation":
            amounts = None
        else:
            kept = charge == "request"
            amounts = [amount if kept and unit == "requests" else 0.0 for amount, unit in self._with_units()]
        self._end(verdict, amounts, charged or Usage(), error)

    def abandon(self) -> None:
        """End without knowing how it went (an interrupt from outside): the reservation stays charged."""
        self._end(Verdict.NEUTRAL, None, None, None)

    def _end(self, verdict: Verdict, amounts: list[float] | None, usage: Usage | None, error: InferRouterError | None) -> None:
        if self._ended:
            return
        self._ended = True
        kit = self.kit
        now = kit.now()
        kit.health.leave(self._pass, verdict, now.mono)
        if self._held is not None:
            kit.ledger.settle(self._held, amounts, now.wall)
        if usage is not None:
            found = self.candidate
            took = now.mono - self._started
            cost = self.cost(usage)
            event = ResultEvent(
                found.provider, found.account_id, found.model, found.free, error is None, took, usage, cost, error
            )
            _tell(kit.meter.on_result, event)

    def _amounts(self, usage: Usage) -> list[float]:
        tokens = max(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        amounts: list[float] = []
        for reserved, unit in self._with_units():
            if unit == "tokens":
                amounts.append(tokens)
            elif unit == "dollars":
                amounts.append(cost_of(self.candidate.slot.seat.account, usage))
            else:
                amounts.append(reserved)
        return amounts

    def _with_units(self) -> list[tuple[float, str]]:
        slot = self.candidate.slot
        keys = slot.free_keys if self.candidate.free else slot.paid_keys
        return [(amount, unit) for (_, amount), (_, unit) in zip(self._wants, keys, strict=True)]


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
        queue = self._ordered(found.candidates)
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
                queue = self._ordered((*queue, *self._as_paid(candidate)))
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
        request = self._encode(candidate)
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
        admission = Admission(kit, verb, candidate, held, wants, passed, number, budget)
        event = RouteEvent(
            candidate.provider, candidate.account_id, candidate.model, candidate.free, number, verb.situation.need.total
        )
        _tell(kit.meter.on_route, event)
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
            error, cost, reused = signed(exc, admission.candidate), _cost_of_error(exc, self.kit.auth_next), False
        except Exception as exc:
            error, cost, reused = _foreign(exc, admission), _BROKEN, False
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
            key = _rest_key(error, candidate)
            kit.ledger.hold(key, until, _reason(error), kit.clock.time())
            self._resting.add(key)
            self.retry_at.append(until)
        if cost.fatal:
            raise error
        if not isinstance(error, (RateLimitedError, QuotaExceededError)):
            self.only_limits = False
        self.attempts.append(Attempt(candidate.provider, candidate.account_id, candidate.model, error))

    def _encode(self, candidate: Candidate) -> WireRequest:
        try:
            return self.verb.encode(candidate)
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
            ) from _bare(exc)

    def _ordered(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        if len(candidates) < 2:
            return list(candidates)
        try:
            chosen = list(self.kit.policy.select(candidates))
        except Exception as exc:
            name = type(self.kit.policy).__name__
            raise ConfigError(f"policy: {name}.select raised {type(exc).__name__}; mend it or use another") from exc
        return [candidate for candidate in dict.fromkeys(chosen) if candidate in candidates]

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


def exchange(admission: Admission, request: WireRequest, fresh: bool) -> Any:
    """Send, and hand a 2xx answer to the verb. Raises `WireFault` or the error the answer means."""
    seat = admission.candidate.slot.seat
    reply = seat.wire.send(request, timeout_s=admission.budget, allow_http=seat.account.allow_http, fresh=fresh)
    if 200 <= reply.status < 300:
        return admission.verb.run(admission, reply)
    with reply:
        try:
            body = reply.read(ERROR_BODY_BYTES)
        except WireFault:
            body = b""
    raise seat.provider.error(reply.status, reply.headers, body, admission.kit.clock.time())


def _cost_of_error(error: ProviderError, auth_next: bool) -> Cost:
    """The table of what each answer costs; the first class that fits decides."""
    if isinstance(error, AuthenticationError):
        return _AUTH._replace(fatal=not auth_next)
    if isinstance(error, ProviderUnavailableError) and error.status is None:
        return _LOST
    return next(cost for kind, cost in _COSTS if isinstance(error, kind))


def _rate_rest(error: ProviderError, candidate: Candidate, now: float) -> float:
    least, unsaid, most = RATE_REST
    return now + min(max(unsaid if error.retry_after is None else error.retry_after, least), most)


def _quota_rest(error: ProviderError, candidate: Candidate, now: float) -> float:
    if error.resets_at is not None and error.resets_at > now:
        return error.resets_at
    if error.retryable and error.retry_after:
        return now + max(error.retry_after, 1.0)
    if error.retryable and candidate.slot.seat.account.reset != "rolling":
        return next_reset(now, "day", candidate.slot.seat.account.reset)
    return now + QUOTA_REST


_AUTH = Cost("nothing", Verdict.NEUTRAL, True, lambda error, candidate, now: now + AUTH_REST)
_BROKEN = Cost("reservation", Verdict.FAILURE, False)
_LOST = Cost("reservation", Verdict.FAILURE, False)
_NOT_SENT = Cost("nothing", Verdict.FAILURE, False)
_COSTS: tuple[tuple[type[ProviderError], Cost], ...] = (
    (ContextWindowError, Cost("nothing", Verdict.NEUTRAL, False)),
    (InvalidRequestError, Cost("nothing", Verdict.NEUTRAL, True)),
    (QuotaExceededError, Cost("nothing", Verdict.NEUTRAL, False, _quota_rest)),
    (ModelNotFoundError, Cost("nothing", Verdict.NEUTRAL, False, lambda error, candidate, now: now + MODEL_REST)),
    (RateLimitedError, Cost("request", Verdict.NEUTRAL, False, _rate_rest)),
    (ProviderUnavailableError, Cost("request", Verdict.FAILURE, False)),
    (ProviderError, _BROKEN),
)


def translated(fault: WireFault, candidate: Candidate) -> tuple[ProviderError, Cost]:
    """What the transport's fault means here, and what it costs."""
    kind = AttemptTimeoutError if fault.kind == "timeout" else ProviderUnavailableError
    error = kind(
        candidate.provider,
        candidate.account_id,
        candidate.model,
        message=redact(fault.message, (candidate.slot.seat.account.auth.api_key,)),
    )
    error.__cause__ = _bare(fault)
    return error, _LOST if fault.sent else _NOT_SENT


def _foreign(exc: Exception, admission: Admission) -> ProviderError:
    found = admission.candidate
    error = ProviderUnavailableError(
        found.provider, found.account_id, found.model, message=f"{type(exc).__name__} inside the provider's own code"
    )
    error.__cause__ = _bare(exc)
    return error


def signed(error: ProviderError, candidate: Candidate) -> Any:
    """`error` with the facts of who failed, and without the account's key should the provider have echoed it."""
    key = candidate.slot.seat.account.auth.api_key
    error.provider = candidate.provider
    error.account_id = candidate.account_id
    error.model = candidate.model
    error.message = redact(error.message, (key,))
    error.body = redact(error.body, (key,))
    _bare(error)
    return error


def _bare(exc: Exception) -> Exception:
    """`exc` and what is behind it, without their frames: local variables there hold bodies that may echo a key."""
    link: BaseException | None = exc
    while link is not None:
        link.__traceback__ = None
        if link.__suppress_context__:
            link.__context__ = None
        link = link.__cause__ or link.__context__
    return exc


def _rest_key(error: ProviderError, candidate: Candidate) -> str:
    seat = candidate.slot.seat
    owner = seat.account.id if isinstance(error, (AuthenticationError, ModelNotFoundError)) else seat.scope
    model_only = error.scope == "model" or isinstance(error, ModelNotFoundError)
    return f"{owner}|{candidate.model}" if model_only else owner


def _reason(error: ProviderError) -> str:
    status = f" ({error.status})" if error.status else ""
    return f"{type(error).__name__.removesuffix('Error')}{status}"


def _tell(hook: Callable[[Any], None], event: Any) -> None:
    try:
        hook(event)
    except Exception:
        return
