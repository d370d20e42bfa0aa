"""Tries candidates in the policy's order until one answers; chat, streams and embeddings all go this way.

Strategy: assess all deployments of the route, put the candidates in order, attempt one after the other. What an error costs and
whether the walk goes on stands in `failure_table`. Assessments age: after a failure the next candidate is assessed again right
before its turn, and one whose allowance was taken by another call meanwhile is assessed again at once, so that nobody pays or is
refused while free capacity is left. Must never know a wire format, nor sleep unless the caller allowed it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from .assessment import Candidate, Instant, limit_rejection, outage_places, outage_rejection
from .attempt import LiveAttempt, Operation, Runtime
from .candidates import Found, find_candidates
from .costs import Estimate
from .errors import (
    AllCandidatesFailedError,
    Attempt,
    AttemptTimeoutError,
    AuthenticationError,
    ContextWindowError,
    InferRouterError,
    ModelNotFoundError,
    MultimodalUnavailableError,
    NoCandidatesError,
    Patience,
    ProviderError,
    Rejection,
    router_closed,
)
from .failure_table import (
    LIMITS,
    Failure,
    failure_of,
    hold_key,
    is_answer,
    is_outage,
    is_overload,
    notice_of,
    overload_wait,
    reason_of,
)
from .frozen import FrozenDict
from .health import Verdict
from .ordering import left_out, ordered
from .outage import PROVIDER_OUT
from .quota import Refusal
from .routes import Route, route_over
from .spend_caps import void_cap
from .waiting import CallCancelledError
from .waiting_line import Place
from .waiting_turn import WaitingTurn
from .wire import WireRequest

T = TypeVar("T")

HELD = (*LIMITS, ModelNotFoundError, AuthenticationError)
"""Errors after which others may be waited for: whoever failed with one is held meanwhile."""

MAX_REFUSALS = 20
"""How often one deployment is tried in a round, should other calls take what it has and give it back each time."""

STALE_S = 0.05
"""Seconds after which what was seen may be so no longer, as something waited meanwhile."""


def walk(route: Route, operation: Operation[T], runtime: Runtime) -> T:
    """Try candidates until one answers, and return what `operation.read` made of it: see `_Round._serve` for the loop itself.

    Raises `NoCandidatesError`, `MultimodalUnavailableError`, `AllCandidatesFailedError`, `InvalidRequestError`,
    `ContextWindowError`, `AuthenticationError`, `QuotaStoreError`, or what `read` raises to the caller.
    """
    if runtime.unsettled_streams:
        runtime.settle_dropped_streams()
    attempts: list[Attempt] = []
    turn = WaitingTurn(route.name, operation, runtime) if operation.max_wait > 0 else None
    try:
        while True:
            if runtime.waiting.closed:
                raise router_closed()
            if turn is not None:
                turn.wait_for_turn()
            round_ = _Round(route, operation, runtime, attempts, None if turn is None else turn.place)
            answer = round_.run()
            if answer is not None:
                return answer
            left = 0.0 if turn is None else turn.left
            pause = round_.pause(left)
            if turn is None or pause is None:
                answer = round_.run_again()
                if answer is not None:
                    return answer
                raise round_.failure(left)
            turn.sleep(*pause)
    except BaseException as exc:
        if operation.trace is not None:
            operation.trace.ends(exc)
        raise
    finally:
        if turn is not None:
            turn.end()


def _fits_smaller(refusal: Refusal, estimate: Estimate) -> bool:
    """Whether the call would fit the limit that refused it, were less kept for an answer that nobody bounds."""
    return bool(estimate.open_answers) and refusal.limit.unit == "tokens" and estimate.input_tokens < refusal.limit.amount


class _Round(Generic[T]):
    """One pass over the candidates. Failures of earlier rounds are in `attempts` already.

    What went wrong in it are values that are replaced whole, so that a round in which nothing does makes none.
    """

    queue: list[Candidate]
    rejections: tuple[Rejection, ...] = ()
    only_limits = True
    _held_until: Mapping[str, float] = FrozenDict()
    _resting: tuple[Rejection, ...] = ()
    _unwanted: frozenset[tuple[str, str]] = frozenset()
    _refusals: tuple[tuple[str, str], ...] = ()
    _turned_down: Mapping[tuple[str, str], Refusal] = FrozenDict()

    def __init__(
        self, route: Route, operation: Operation[T], runtime: Runtime, attempts: list[Attempt], place: Place | None
    ) -> None:
        self.route = route
        self.place = place
        self.operation = operation
        self.runtime = runtime
        self.attempts = attempts
        self._endless = operation.deadline is None
        self._now = runtime.now()
        self._begun = self._as_of = len(attempts), 0, self._now.mono

    def run(self) -> T | None:
        """What `read` returned, or None when no candidate is left."""
        found = self._look(self.route, self._now, first=True)
        self.rejections = found.rejections
        self.queue = ordered(self.runtime.policy, found.candidates, self.operation.needs)
        if len(self.queue) != len(found.candidates):
            unwanted = left_out(found.candidates, self.queue)
            self._unwanted = frozenset([(each.account_id, each.model) for each in unwanted])
            self.rejections += (*unwanted,)
        if self.operation.cancel is not None and self.operation.cancel.on_line is not None:
            self.operation.cancel.on_line(self.queue, self.rejections)
        answer = self._serve()
        if answer is None and len(self.attempts) > self._begun[0]:
            return self.run_again()
        return answer

    def run_again(self) -> T | None:
        """The same for those that may serve now, where anything failed, was refused or waited since they were looked for."""
        while self._time_left() > 0 and self._look_again():
            answer = self._serve()
            if answer is not None:
                return answer
        return None

    def _serve(self) -> T | None:
        while self.queue and (self._endless or self._time_left() > 0):
            first = self.queue.pop(0)
            old = self._changed(self._begun, not first.free)
            candidate = self._in_turn(first) if old else first
            answer = self._try(candidate) if candidate is not None else None
            if answer is not None:
                return answer
        return None

    def pause(self, max_wait: float) -> tuple[float, Rejection] | None:
        """Seconds to sleep until a candidate may be free again, and what kept it, or None if waiting is not allowed or would not
        help."""
        first = self._soonest() if self.only_limits and max_wait > 0 else None
        if first is None or first.retry_at is None:
            return None
        pause = max(first.retry_at - self.runtime.clock.time(), 0.001)
        return (pause, first) if pause <= min(max_wait, self._time_left()) else None

    def failure(self, max_wait: float) -> InferRouterError:
        """The error that tells how this ended. `max_wait`: seconds that it might still have slept."""
        first = self._soonest()
        retry_at = None if first is None else first.retry_at
        left = self._time_left()
        patience = Patience(self.runtime.clock.time(), *((left, "timeout") if left < max_wait else (max_wait, "max_wait")))
        if not self.attempts:
            if self._time_left() <= 0:
                return AttemptTimeoutError(message="the call's timeout ran out before anything could be tried")
            media = bool(self.rejections) and all(rejection.code == "media" for rejection in self.rejections)
            return (MultimodalUnavailableError if media else NoCandidatesError)(self.rejections, retry_at, patience=patience)
        last = self.attempts[-1].error
        if all(isinstance(attempt.error, ContextWindowError) for attempt in self.attempts):
            return last
        if self.runtime.auth_next is None and all(isinstance(attempt.error, AuthenticationError) for attempt in self.attempts):
            return last
        return AllCandidatesFailedError(self.attempts, retry_at, self.rejections, patience=patience)

    def _try(self, candidate: Candidate, new_connection: bool = False) -> T | None:
        """The answer of one candidate, or None; then its failure or its rejection is on record."""
        if self.operation.cancel is not None and self.operation.cancel.cut:
            raise CallCancelledError
        outages = self.runtime.health.outages
        if outages.out and self._is_out(candidate):
            return None
        request, dropped = self.operation.encode(candidate)
        attempt = LiveAttempt(self.runtime, self.operation, candidate, len(self.attempts) + 1, dropped)
        try:
            refused = attempt.begin()
            if refused is not None and outages.out:
                outages.not_asked(outage_places(candidate), self.runtime.clock.monotonic())
            if isinstance(refused, Refusal):
                self._refused(candidate, refused)
                return None
            if refused is not None:
                self.rejections += (refused,)
                return None
            if not candidate.free and candidate.deployment.spends:
                self._say_void_cap(candidate, attempt.wants)
            if self.place is not None:
                self.runtime.lines.leave(self.place)
            answer, failure = self._answer_of(attempt, request, new_connection)
            if failure is None:
                return answer
            again = failure.reused and not new_connection
            self._record(attempt, failure._replace(rule=failure.rule._replace(verdict=Verdict.IGNORED)) if again else failure)
        except BaseException:
            attempt.abandon()
            raise
        return self._try(candidate, new_connection=True) if again and self._time_left() > 0 else None

    def _answer_of(
        self, attempt: LiveAttempt, request: WireRequest, new_connection: bool
    ) -> tuple[T, None] | tuple[None, Failure]:
        """What was read of the answer, or what went wrong. A method of its own, so that no step of it escapes `_try`."""
        candidate, outages = attempt.candidate, self.runtime.health.outages
        try:
            answer: T = attempt.exchange(request, new_connection)
            if outages.suspects:
                outages.answered(*outage_places(candidate))
            return answer, None
        except Exception as exc:
            failure = failure_of(exc, candidate, *self._auth_next(candidate))
            if failure is None:
                raise
            if self.operation.cancel is not None and self.operation.cancel.cut and failure.error.status is None:
                attempt.abandon(charged=failure.rule.charge != "nothing")
                raise CallCancelledError from None
            return None, failure

    def _record(self, attempt: LiveAttempt, failure: Failure) -> None:
        """Settle a failed attempt, hold what must be held, and raise the error if nobody else may be tried."""
        candidate, runtime, (error, rule, _) = attempt.candidate, self.runtime, failure
        attempt.fail(error, rule)
        rest = self._note_outage(error, candidate)
        if isinstance(error, LIMITS):
            seen = runtime.learner.refused(candidate, attempt.wants, error, attempt.said, runtime.now())
            if seen and self.operation.trace is not None:
                self.operation.trace.learned(candidate, seen)
        if rule.hold is not None:
            until = max(rule.hold(error, candidate, runtime.clock.time()), runtime.clock.time() + rest)
            embeds = self.operation.embeds
            bound = candidate.deployment.bound
            key, reason = hold_key(error, candidate, embeds), reason_of(error, embeds, bound.account.auth.place)
            runtime.ledger.hold(key, until, reason, runtime.clock.time())
            if self.operation.trace is not None:
                self.operation.trace.hold_begins(bound.shown_key(key), candidate, until, reason)
            self._held_until = {**self._held_until, key: until}
            self._say_once(error, candidate, key)
            if error.retryable:
                place = (candidate.provider, candidate.account_id, candidate.model)
                self._resting += (Rejection(*place, f"held: {reason}", until, "held"),)
        if rule.fatal:
            raise error
        if not isinstance(error, HELD) and not is_overload(error):
            self.only_limits = False
        self.attempts.append(Attempt(candidate.provider, candidate.account_id, candidate.model, error))

    def _is_out(self, candidate: Candidate) -> bool:
        """Whether its whole provider or its model rests, or another call is the probe for it: then that is on record."""
        outages, now, places = self.runtime.health.outages, self.runtime.now(), outage_places(candidate)
        if not outages.rests(places, now.mono) and all(outages.enter(place, now.mono) for place in places):
            return False
        self.rejections += (outage_rejection(candidate, outages, now, least=1.0),)
        return True

    def _note_outage(self, error: ProviderError, candidate: Candidate) -> float:
        """Note what `error` says of the server, or of the model there. Seconds that the model rests at this account, 0: not."""
        outages, places = self.runtime.health.outages, outage_places(candidate)
        if is_overload(error):
            return outages.overloaded(places, candidate.account_id, self.runtime.clock.monotonic(), overload_wait(error))
        if is_answer(error):
            outages.answered(*places)
        elif is_outage(error):
            rest = outages.failed(places[-1], candidate.account_id, self.runtime.clock.monotonic())
            if rest is not None and self.operation.trace is not None:
                until = self.runtime.clock.time() + rest
                self.operation.trace.hold_begins(f"provider:{candidate.provider}", candidate, until, PROVIDER_OUT)
        return 0.0

    def _auth_next(self, candidate: Candidate) -> tuple[bool, bool]:
        """Whether a refused key lets others be tried, and whether there are others: where nothing is configured only if its own
        provider has another account."""
        others = [each.bound.account for each in self.route.deployments if each.bound.account.id != candidate.account_id]
        if self.runtime.auth_next is None:
            return any(account.provider == candidate.provider for account in others), bool(others)
        return self.runtime.auth_next and bool(others), bool(others)

    def _say_once(self, error: ProviderError, candidate: Candidate, key: str) -> None:
        """Tell the meter and `Router.warnings`, the first time, of what waiting does not fix."""
        text = notice_of(error, candidate, self.route.name, self.operation.embeds)
        if text:
            self.runtime.say(key, text, (candidate.provider, candidate.account_id, candidate.model))

    def _say_void_cap(self, candidate: Candidate, wants: Sequence[tuple[str, float]]) -> None:
        """Tell the meter and `Router.warnings`, the first time, of a paid call that no cap of its account counts."""
        place = (candidate.provider, candidate.account_id, candidate.model)
        text = void_cap(*place, candidate.deployment.spends, wants)
        if text:
            self.runtime.say(f"cap {candidate.account_id}", text, place)

    def _refused(self, candidate: Candidate, refusal: Refusal) -> None:
        """The store had too little left. If other calls took what `candidate` was assessed by, it is assessed again: it may serve
        as paid now, or for free after all."""
        deployment = candidate.deployment
        assessed_by = (deployment.allowance,) if candidate.free and deployment.allowance else deployment.spends
        place = (candidate.account_id, candidate.model)
        self._refusals += (place,)
        self._turned_down = {**self._turned_down, place: refusal}
        if self._forestalled(candidate):
            again = candidate.free and self._may_pay(candidate)
        else:
            again = any(refusal.key == key for key, _ in assessed_by)
        if again:
            found = self._assessed_again(candidate)
            if found is not None:
                self._put_back(found)
        else:
            estimate = deployment.expected(self.operation.needs.estimate)
            if refusal.retry_at is None and self._refusals.count(place) == 1 and _fits_smaller(refusal, estimate):
                deployment.token_ceiling = refusal.limit.amount  # a limit that was learned to be smaller than configured
                self._put_back(candidate)
            else:
                self.rejections += (limit_rejection(candidate, refusal, estimate, self.runtime.clock.time()),)

    def _in_turn(self, candidate: Candidate) -> Candidate | None:
        """`candidate` as it is now, after failures that took time; or None: it must not serve, or goes behind what is free."""
        now = self.runtime.clock.time()
        if any(self._held_until.get(key, 0.0) > now for key in candidate.deployment.hold_keys):
            return None
        again = self._assessed_again(candidate)
        if again is None or again.free or not self._changed(self._as_of):
            return again
        failed = {(each.account_id, each.model) for each in self.attempts if not isinstance(each.error, LIMITS)}
        self._put_back(again, *[each for each in self._found_besides(failed) if each.free])
        return None

    def _look_again(self) -> bool:
        """Whether others may serve now, when all that were found have failed or were refused: then they are in the queue."""
        if not self._changed(self._as_of) or self._all_as_before():
            return False
        tried = {(each.account_id, each.model) for each in self.attempts[self._begun[0] :]}
        self._put_back(*self._found_besides(tried))
        return bool(self.queue)

    def _found_besides(self, others: set[tuple[str, str]]) -> list[Candidate]:
        """What may serve now, and is not in the queue, nor one of `others`, left out by the policy, or refused as before."""
        now = self.runtime.now()
        self._as_of = len(self.attempts), len(self._refusals), now.mono
        known = others | self._unwanted | {(each.account_id, each.model) for each in self.queue}
        found = [each for each in self._look(self.route, now).candidates if (each.account_id, each.model) not in known]
        return [each for each in found if self._may_fit(each)]

    def _all_as_before(self) -> bool:
        """Whether nothing but refusals came since, and all of them still stand."""
        return not self._changed(self._as_of, False) and not self._fit_now(list(self._turned_down.values()))

    def _may_fit(self, candidate: Candidate) -> bool:
        place = (candidate.account_id, candidate.model)
        refusal = self._turned_down.get(place)
        return refusal is None or (not self._forestalled(candidate) and self._fit_now([refusal]))

    def _fit_now(self, refusals: list[Refusal]) -> bool:
        """Whether what any of these did not get has been given back since."""
        runtime = self.runtime
        refusals = [each for each in refusals if each.retry_at is not None]
        keys = tuple(dict.fromkeys(each.key for each in refusals))
        wait = self.operation.store_wait(runtime.clock)
        found = {each.key: each for each in runtime.ledger.headroom(keys, runtime.clock.time(), wait)} if keys else {}
        return any(found[each.key].used + each.needed <= found[each.key].limit.ceiling for each in refusals)

    def _changed(self, since: tuple[int, int, float], refusals: bool = True) -> bool:
        """Whether anything failed, waited or, if `refusals` count, was refused since that moment, so that what was seen then may
        not be so any more."""
        failed, refused, seconds = since
        waited = self.runtime.clock.monotonic() - seconds > STALE_S
        return waited or len(self.attempts) != failed or (refusals and len(self._refusals) != refused)

    def _assessed_again(self, candidate: Candidate) -> Candidate | None:
        """`candidate` under the facts of this moment, or None: then its rejection is on record."""
        found = self._look(route_over(self.route.name, (candidate.deployment,)), self.runtime.now())
        self.rejections += found.rejections
        if not found.candidates:
            return None
        again = found.candidates[0]._replace(order=candidate.order)
        return again._replace(free=False) if again.free and self._forestalled(again) and self._may_pay(again) else again

    def _forestalled(self, candidate: Candidate) -> bool:
        """Whether other calls were faster so often that it is not tried for free any more."""
        return self._refusals.count((candidate.account_id, candidate.model)) > MAX_REFUSALS

    def _may_pay(self, candidate: Candidate) -> bool:
        return candidate.deployment.bound.account.paid_enabled and self.operation.needs.allow_paid

    def _look(self, route: Route, now: Instant, first: bool = False) -> Found:
        """See `find_candidates`. The first look of a call takes what a store on a server showed last, whatever its age, if that
        leaves somebody who may serve for free or turns nobody down: to ask the server would cost a round trip, while the
        reservation asks it anyway, and brings a new look along. A choice that is out of date costs one refused attempt."""
        needs, ledger, health = self.operation.needs, self.runtime.ledger, self.runtime.health
        wait = None if self._endless else self.operation.store_wait(self.runtime.clock)
        if first and ledger.keeps_looks:
            found = find_candidates(route, needs, ledger, health, now, wait, math.inf)
            if not found.rejections or any(each.free for each in found.candidates):
                return found
        return find_candidates(route, needs, ledger, health, now, wait)

    def _put_back(self, *candidates: Candidate) -> None:
        declared = sorted((*self.queue, *candidates), key=lambda each: each.order)  # as every policy expects them
        self.queue = ordered(self.runtime.policy, declared, self.operation.needs)

    def _soonest(self) -> Rejection | None:
        """The first that may serve again of those that were left out, or were tried and now rest; None if no waiting helps."""
        from .soonest import soonest

        operation, runtime = self.operation, self.runtime
        waiting, wait = (*self._resting, *self.rejections), operation.store_wait(runtime.clock)
        return soonest(waiting, self.route, operation.needs, runtime.ledger, runtime.health, runtime.now(), wait)

    def _time_left(self) -> float:
        return math.inf if self._endless else self.operation.time_left(self.runtime.clock)
