"""The one walk: candidates in the policy's order, each admitted, reserved, called and settled, until one answers.

Strategy: chat, stream and embed differ only in what they do with an open connection, so they hand that in as `Operation.run`. What an
error costs and whether the walk goes on stands in the table of `outcome`. Must never know a wire format, nor sleep unless the
caller allowed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from .attempt import LiveAttempt, Operation, Runtime, notify
from .candidates import Candidate, amounts_needed, find_candidates
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
from .failure_table import UNKNOWN_OUTCOME, FailureRule, error_from_fault, hold_key, reason_of, rule_for
from .health import Verdict
from .meter import RouteEvent
from .policy import Policy
from .quota import Refusal
from .redaction import attributed, provider_bug, strip_tracebacks
from .routes import Route
from .wire import WireFault, WireRequest

T = TypeVar("T")

ERROR_BODY_BYTES = 64 * 1024


def walk(route: Route, operation: Operation[T], runtime: Runtime) -> T:
    """Try candidates until one answers, and return what `operation.run` made of it.

    Raises `NoCandidatesError`, `MultimodalUnavailableError`, `AllCandidatesFailedError`, `InvalidRequestError`,
    `ContextWindowError`, `AuthenticationError`, `QuotaStoreError`, or what `read` raises to the caller.
    """
    runtime.nest.depth += 1
    try:
        return _walk(route, operation, runtime)
    finally:
        runtime.nest.depth -= 1
        if runtime.unsettled_streams:
            runtime.settle_dropped_streams()


def _walk(route: Route, operation: Operation[T], runtime: Runtime) -> T:
    attempts: list[Attempt] = []
    waited = 0.0
    while True:
        round_ = _Round(route, operation, runtime, attempts)
        answer = round_.run()
        if answer is not None:
            found: T = answer[0]
            return found
        pause = round_.pause(operation.max_wait - waited)
        if pause is None:
            raise round_.failure()
        runtime.clock.sleep(pause)
        waited += pause


class _Round:
    """One pass over the candidates. Failures of earlier rounds are in `attempts` already."""

    def __init__(self, route: Route, operation: Operation[T], runtime: Runtime, attempts: list[Attempt]) -> None:
        self.route = route
        self.operation = operation
        self.runtime = runtime
        self.attempts = attempts
        self.rejections: list[Rejection] = []
        self.only_limits = True
        self.retry_at: list[float] = []
        self._held_keys: set[str] = set()

    def run(self) -> tuple[Any] | None:
        """What `read` returned, in a tuple, or None when no candidate is left."""
        found = find_candidates(self.route, self.operation.needs, self.runtime.ledger, self.runtime.health, self.runtime.now())
        for rejection in found.rejections:
            self._reject(rejection)
        queue = ordered(self.runtime.policy, found.candidates)
        for rejection in left_out(found.candidates, queue):
            self._reject(rejection)
        retried_as_paid: set[tuple[str, str]] = set()
        while queue and self._time_left() > 0:
            candidate = queue.pop(0)
            if self._is_held(candidate):
                continue
            answer, again = self._try(candidate)
            if answer is not None:
                return answer
            place = (candidate.account_id, candidate.model)
            if again and place not in retried_as_paid:
                retried_as_paid.add(place)
                queue = ordered(self.runtime.policy, (*queue, *self._as_paid(candidate)))
        return None

    def pause(self, max_wait: float) -> float | None:
        """Seconds to sleep until the soonest slot, or None if waiting is not allowed or would not help."""
        if not self.only_limits or not self.retry_at:
            return None
        pause = max(min(self.retry_at) - self.runtime.clock.time(), 0.001)
        return pause if pause <= min(max_wait, self._time_left()) else None

    def failure(self) -> InferRouterError:
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

    def _try(self, candidate: Candidate, new_connection: bool = False) -> tuple[tuple[Any] | None, bool]:
        """The answer of one candidate, or None; and whether it may come again as paid."""
        runtime, operation = self.runtime, self.operation
        account = candidate.deployment.bound.account
        request, dropped = self._encode(candidate)
        permit = runtime.health.acquire(account.id, runtime.clock.monotonic())
        if permit is None:
            state_wait = runtime.health.peek(account.id, runtime.clock.monotonic())[1]
            self._refuse(candidate, "breaker", "resting after repeated failures", runtime.clock.time() + max(state_wait, 1.0))
            return None, False
        try:
            wants = amounts_needed(candidate, operation.needs.estimate)
            reservation = runtime.ledger.reserve(wants, runtime.clock.time()) if wants else None
        except BaseException:
            runtime.health.release(permit, Verdict.IGNORED, runtime.clock.monotonic())
            raise
        if isinstance(reservation, Refusal):
            runtime.health.release(permit, Verdict.IGNORED, runtime.clock.monotonic())
            self._refuse(candidate, "limit", str(reservation), reservation.retry_at)
            allowance = candidate.deployment.allowance
            return None, candidate.free and allowance is not None and reservation.key == allowance[0]
        number = len(self.attempts) + 1
        budget = min(account.attempt_timeout or runtime.attempt_timeout, self._time_left())
        attempt = LiveAttempt(runtime, operation, candidate, reservation, wants, permit, number, budget, dropped)
        return self._call(attempt, request, new_connection)

    def _call(self, attempt: LiveAttempt, request: WireRequest, new_connection: bool) -> tuple[tuple[Any] | None, bool]:
        try:
            return (exchange(attempt, request, new_connection),), False
        except WireFault as fault:
            error, cost = error_from_fault(fault, attempt.candidate)
            reused = fault.reused and not new_connection
        except InferRouterError as exc:
            if not isinstance(exc, ProviderError):
                attempt.abandon()
                raise
            error, cost, reused = attributed(exc, attempt.candidate), rule_for(exc, self.runtime.auth_next), False
        except Exception as exc:
            error, cost, reused = provider_bug(exc, attempt.candidate), UNKNOWN_OUTCOME, False
        except BaseException:
            attempt.abandon()
            raise
        self._record(attempt, error, cost._replace(verdict=Verdict.IGNORED) if reused else cost)
        if reused and self._time_left() > 0:
            return self._try(attempt.candidate, new_connection=True)
        return None, False

    def _record(self, attempt: LiveAttempt, error: ProviderError, cost: FailureRule) -> None:
        candidate, runtime = attempt.candidate, self.runtime
        attempt.fail(error, cost.charge, cost.verdict)
        if cost.hold is not None:
            until = cost.hold(error, candidate, runtime.clock.time())
            key = hold_key(error, candidate)
            runtime.ledger.hold(key, until, reason_of(error), runtime.clock.time())
            self._held_keys.add(key)
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
            return self.operation.encode(candidate), self.operation.dropped(candidate)
        except InvalidRequestError as exc:
            attributed(exc, candidate)
            raise
        except InferRouterError:
            raise
        except Exception as exc:
            raise InvalidRequestError(
                candidate.provider,
                candidate.account_id,
                candidate.model,
                message=f"the request cannot be encoded ({type(exc).__name__})",
            ) from strip_tracebacks(exc)

    def _as_paid(self, candidate: Candidate) -> list[Candidate]:
        """The same slot looked at again, now that its allowance is gone."""
        deployment = candidate.deployment
        route = Route(self.route.name, (deployment,), deployment.bucket_keys)
        found = find_candidates(route, self.operation.needs, self.runtime.ledger, self.runtime.health, self.runtime.now())
        return [again._replace(order=candidate.order) for again in found.candidates if not again.free]

    def _is_held(self, candidate: Candidate) -> bool:
        return bool(self._held_keys) and not self._held_keys.isdisjoint(candidate.deployment.hold_keys)

    def _refuse(self, candidate: Candidate, code: str, reason: str, retry_at: float | None) -> None:
        self._reject(Rejection(candidate.provider, candidate.account_id, candidate.model, reason, retry_at, code))

    def _reject(self, rejection: Rejection) -> None:
        self.rejections.append(rejection)
        if rejection.retry_at is not None:
            self.retry_at.append(rejection.retry_at)

    def _time_left(self) -> float:
        deadline = self.operation.deadline
        return float("inf") if deadline is None else deadline - self.runtime.clock.monotonic()


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


def exchange(attempt: LiveAttempt, request: WireRequest, new_connection: bool) -> Any:
    """Send, and hand a 2xx answer to the verb. Raises `WireFault` or the error the answer means."""
    runtime, found = attempt.runtime, attempt.candidate
    if runtime.meter is not None:
        facts = (found.provider, found.account_id, found.model, found.free)
        notify(runtime.meter, "on_route", RouteEvent(*facts, attempt.attempts, attempt.operation.needs.estimate.total))
    bound = found.deployment.bound
    reply = bound.wire.send(request, timeout_s=attempt.budget, allow_http=bound.account.allow_http, new_connection=new_connection)
    if 200 <= reply.status < 300:
        return attempt.operation.read(attempt, reply)
    with reply:
        try:
            body = reply.read(ERROR_BODY_BYTES)
        except WireFault:
            body = b""
    raise bound.provider.error(reply.status, reply.headers, body, runtime.clock.time())
