"""One attempt's holdings: its reservation, its place in flight and its breaker pass, ended together and exactly once.

Strategy: whoever runs an attempt calls `succeed`, `fail` or `abandon` on every way out; the first call settles the ledger, tells
the breaker and the meter, and later ones do nothing. Must never decide which candidate comes next.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from .candidates import CallNeeds, Candidate, Instant
from .errors import InferRouterError
from .guarded_store import GuardedStore
from .health import Health, Permit, Verdict
from .meter import Clock, Meter, ResultEvent
from .policy import Policy
from .quota import QuotaStore, Reservation
from .records import Routing, Usage
from .routes import Deployment, cost_of
from .transport import WireReply
from .wire import WireRequest

T = TypeVar("T")


class Nest(threading.local):
    """How deep this thread is inside the router, a `with` block a level: a finalizer that runs there must not ask for a lock."""

    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *exc: object) -> None:
        self.depth -= 1


@dataclass(frozen=True, slots=True)
class Runtime:
    """What every walk of a router works with. `attempt_timeout` in seconds; `auth_next`: a refused key moves on."""

    clock: Clock
    ledger: GuardedStore
    health: Health
    policy: Policy
    meter: Meter | None
    attempt_timeout: float
    auth_next: bool
    nest: Nest = field(default_factory=Nest, repr=False)
    unsettled_streams: deque[Callable[[], None]] = field(default_factory=deque, repr=False)

    def now(self) -> Instant:
        """This moment on both clocks."""
        return Instant(self.clock.time(), self.clock.monotonic())

    def settle_dropped_streams(self) -> None:
        """Settle what was collected as garbage at a moment when locks may have been held."""
        while self.unsettled_streams:
            self.unsettled_streams.popleft()()


class Operation(NamedTuple, Generic[T]):
    """One call: how it is encoded for a candidate, and what is done with its open 2xx answer.

    `read` settles its admission with success, or raises a `ProviderError` or `WireFault`. `deadline`: monotonic seconds for the
    whole walk, None: no bound; `max_wait`: seconds the walk may sleep in all.
    """

    needs: CallNeeds
    encode: Callable[[Candidate], WireRequest]
    read: Callable[[LiveAttempt, WireReply], T]
    deadline: float | None
    max_wait: float
    dropped: Callable[[Candidate], tuple[str, ...]] = lambda candidate: ()


class LiveAttempt:
    """One attempt's reservation, place in flight and breaker pass. `succeed` or `fail` ends it; a second end does nothing."""

    __slots__ = (
        "_ended",
        "_permit",
        "_reservation",
        "_started",
        "_wants",
        "attempts",
        "budget",
        "candidate",
        "dropped",
        "operation",
        "runtime",
    )

    def __init__(
        self,
        runtime: Runtime,
        operation: Operation[Any],
        candidate: Candidate,
        reservation: tuple[QuotaStore, Reservation] | None,
        wants: Sequence[tuple[str, float]],
        permit: Permit,
        attempts: int,
        budget: float,
        dropped: tuple[str, ...],
    ) -> None:
        self.runtime = runtime
        self.operation = operation
        self.candidate = candidate
        self.attempts = attempts
        self.budget = budget
        self.dropped = dropped
        self._reservation = reservation
        self._wants = wants
        self._permit = permit
        self._started = runtime.clock.monotonic()
        self._ended = False

    @property
    def routing(self) -> Routing:
        """Where the call went, before its cost is known."""
        return self.routing_for(Usage())

    def routing_for(self, usage: Usage) -> Routing:
        """Where the call went, with what `usage` cost in dollars."""
        found = self.candidate
        cost = self.cost(usage)
        return Routing(found.provider, found.account_id, found.model, self.attempts, found.free, cost, self.dropped)

    def cost(self, usage: Usage) -> float:
        """Dollars; 0 for a free call."""
        return 0.0 if self.candidate.free else cost_of(self.candidate.deployment.bound.account, usage)

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
        self._end(Verdict.IGNORED, None, None, None)

    def _end(self, verdict: Verdict, amounts: list[float] | None, usage: Usage | None, error: InferRouterError | None) -> None:
        if self._ended:
            return
        self._ended = True
        nest = self.runtime.nest
        nest.depth += 1
        try:
            self._settle(verdict, amounts, usage, error)
        finally:
            nest.depth -= 1

    def _settle(self, verdict: Verdict, amounts: list[float] | None, usage: Usage | None, error: InferRouterError | None) -> None:
        runtime = self.runtime
        now = runtime.now()
        runtime.health.release(self._permit, verdict, now.mono)
        if self._reservation is not None:
            runtime.ledger.settle(self._reservation, amounts, now.wall)
        if usage is not None and runtime.meter is not None:
            found = self.candidate
            took = now.mono - self._started
            cost = self.cost(usage)
            event = ResultEvent(
                found.provider, found.account_id, found.model, found.free, error is None, took, usage, cost, error
            )
            notify(runtime.meter, "on_result", event)

    def _amounts(self, usage: Usage) -> list[float]:
        deployment = self.candidate.deployment
        return [reserved if unit == "requests" else used_of(deployment, unit, usage) for reserved, unit in self._with_units()]

    def _with_units(self) -> list[tuple[float, str]]:
        deployment = self.candidate.deployment
        keys = deployment.free_buckets if self.candidate.free else deployment.paid_buckets
        return [(amount, unit) for (_, amount), (_, unit) in zip(self._wants, keys, strict=True)]


def used_of(deployment: Deployment, unit: str, usage: Usage) -> float:
    """What `usage` is in tokens or dollars; a total below its parts is not believed."""
    if unit == "tokens":
        return max(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
    return cost_of(deployment.bound.account, usage)


def notify(meter: Meter, hook: str, event: Any) -> None:
    """Give `event` to a meter, whose faults are its own: a hook that raises, or one it does not have."""
    try:
        getattr(meter, hook)(event)
    except Exception:
        return
