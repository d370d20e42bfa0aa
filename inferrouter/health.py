"""Breaks the circuit to an account that keeps failing, and counts the calls that are under way on each.

Strategy: one table of (state, event) -> next state, with `now` (monotonic seconds) passed in. Every admitted call holds a
`Permit` and ends it exactly once; a permit from before the last change of state moves nothing, and a probe that ends without a
verdict gives its turn back. Must never know why a call failed.
"""

from __future__ import annotations

import threading
from collections import deque
from enum import Enum

from .errors import ConfigError
from .frozen import frozen_value
from .outage import Outages


@frozen_value
class HealthConfig:
    """When an account's breaker opens: at `failure_threshold` failures in `failure_window` seconds, for `open_for` seconds.

    Raises `ConfigError`.
    """

    failure_threshold: int = 3
    failure_window: float = 300.0
    open_for: float = 30.0

    def __post_init__(self) -> None:
        problems = []
        if type(self.failure_threshold) is not int or self.failure_threshold < 1:
            problems.append("health.failure_threshold: must be a whole number of at least 1")
        for name in ("failure_window", "open_for"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
                problems.append(f"health.{name}: must be a positive number of seconds")
        if problems:
            raise ConfigError(problems)


class BreakerState(Enum):
    """closed lets calls through, open none, half_open exactly one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Verdict(Enum):
    """What a call says of its account's health; IGNORED is nobody's fault, or the caller's."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "neutral"


# What a verdict does in the state its call was admitted in: the next state, or None to stay.
_NEXT: dict[tuple[BreakerState, Verdict], BreakerState | None] = {
    (BreakerState.CLOSED, Verdict.SUCCESS): None,
    (BreakerState.CLOSED, Verdict.IGNORED): None,
    (BreakerState.CLOSED, Verdict.FAILURE): BreakerState.OPEN,  # once the threshold is reached
    (BreakerState.HALF_OPEN, Verdict.SUCCESS): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, Verdict.FAILURE): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, Verdict.IGNORED): None,
}


class Permit:
    """An admitted call; give it back with `Health.release`."""

    __slots__ = ("_breaker", "_ended", "_epoch", "_probe")

    def __init__(self, breaker: _Breaker, probe: bool) -> None:
        self._breaker = breaker
        self._epoch = breaker.epoch
        self._probe = probe
        self._ended = False


class Health:
    """All accounts' breakers and counts. Thread-safe; `now` is monotonic seconds."""

    def __init__(self, config: HealthConfig | None = None) -> None:
        self.config = config or HealthConfig()
        self.outages = Outages()
        self._lock = threading.Lock()
        self._breakers: dict[str, _Breaker] = {}
        self._busy: set[str] = set()

    def peek(self, account_id: str, now: float) -> tuple[BreakerState, float, int]:
        """The state, the seconds until a call may be let through (0: now), and the calls in flight. Changes nothing."""
        breaker = self._breakers.get(account_id)
        if breaker is None:
            return BreakerState.CLOSED, 0.0, 0
        with self._lock:
            return breaker.state_at(now), breaker.wait(now), breaker.in_flight

    def busy(self) -> frozenset[str]:
        """The accounts that have calls under way or a breaker that is not closed."""
        with self._lock:
            return frozenset(self._busy)

    def acquire(self, account_id: str, now: float) -> Permit | None:
        """Admit a call, or None while the breaker is open or its one probe is under way."""
        with self._lock:
            breaker = self._breakers.get(account_id)
            if breaker is None:
                breaker = self._breakers[account_id] = _Breaker(account_id, self.config)
            permit = breaker.acquire(now)
            if permit is not None:
                self._busy.add(account_id)
            return permit

    def release(self, admitted: Permit, verdict: Verdict, now: float) -> None:
        """End an admitted call; a second end does nothing."""
        with self._lock:
            if not admitted._ended:
                admitted._ended = True
                breaker = admitted._breaker
                breaker.release(admitted, verdict, now)
                if not breaker.in_flight and breaker.state is BreakerState.CLOSED:
                    self._busy.discard(breaker.account_id)


class _Breaker:
    __slots__ = ("account_id", "config", "epoch", "failures", "in_flight", "open_until", "probing", "state")

    def __init__(self, account_id: str, config: HealthConfig) -> None:
        self.account_id = account_id
        self.config = config
        self.state = BreakerState.CLOSED
        self.epoch = 0
        self.failures: deque[float] = deque(maxlen=config.failure_threshold)
        self.open_until = 0.0
        self.probing = False
        self.in_flight = 0

    def state_at(self, now: float) -> BreakerState:
        if self.state is BreakerState.OPEN and now >= self.open_until:
            return BreakerState.HALF_OPEN
        return self.state

    def wait(self, now: float) -> float:
        if self.state is BreakerState.OPEN and now < self.open_until:
            return self.open_until - now
        return 1.0 if self.probing else 0.0

    def acquire(self, now: float) -> Permit | None:
        if self.state is not BreakerState.CLOSED:
            if self.wait(now) > 0:
                return None
            if self.state is BreakerState.OPEN:
                self._move(BreakerState.HALF_OPEN)
            self.probing = True
        self.in_flight += 1
        return Permit(self, self.probing)

    def release(self, admitted: Permit, verdict: Verdict, now: float) -> None:
        self.in_flight -= 1
        if admitted._epoch != self.epoch:
            return
        if admitted._probe:
            self.probing = False
        if verdict is not Verdict.FAILURE and self.state is BreakerState.CLOSED:
            return  # nearly every call ends here
        target = _NEXT[self.state, verdict]
        if verdict is Verdict.FAILURE and self.state is BreakerState.CLOSED and not self._tripped(now):
            return
        if target is not None:
            self.open_until = now + self.config.open_for
            self._move(target)

    def _tripped(self, now: float) -> bool:
        self.failures.append(now)
        recent = sum(now - moment <= self.config.failure_window for moment in self.failures)
        return recent >= self.config.failure_threshold

    def _move(self, state: BreakerState) -> None:
        self.state = state
        self.epoch += 1
        self.probing = False
        self.failures.clear()
