"""Breaks the circuit to an account that keeps failing, and counts the calls that are under way on each.

Strategy: one table of (state, event) -> next state, with `now` (monotonic seconds) passed in. Every admitted call holds a
`Permit` and ends it exactly once; a permit from before the last change of state moves nothing, and a probe that ends without a
verdict gives its turn back. A state is replaced whole and no lock is taken; a call is under way for as long as its permit lives
in this process, so that one that was cut off at any point, or left behind by a fork, counts no more. Must never know why a call
failed.
"""

from __future__ import annotations

from enum import Enum
from weakref import ref

from .cell import Cell
from .errors import ConfigError
from .frozen import NamedTuple, frozen_value
from .outage import Outages
from .own_process import PROCESS


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
    """One call's leave to use an account; admitted by `Health.acquire`, given back by `Health.release`."""

    __slots__ = ("__weakref__", "_counted", "_ended", "_epoch", "_flight", "_pid", "_place", "account_id")

    def __init__(self, account_id: str) -> None:
        self.account_id = account_id
        self._pid = PROCESS.pid
        self._epoch = 0
        self._flight: set[ref[Permit]] | None = None
        self._place: ref[Permit] | None = None
        self._counted = False
        self._ended = False

    @property
    def _alive(self) -> bool:
        return not self._ended and self._pid == PROCESS.pid


class Health:
    """The breakers of all accounts. Thread-safe."""

    def __init__(self, config: HealthConfig | None = None) -> None:
        self.config = config or HealthConfig()
        self.outages = Outages()
        self._breakers: dict[str, _Breaker] = {}
        self._busy: set[str] = set()

    def peek(self, account_id: str, now: float) -> tuple[BreakerState, float, int]:
        """State, seconds until a call may be admitted, and calls in flight; without changing anything."""
        breaker = self._breakers.get(account_id) if account_id in self._busy else None
        if breaker is None:
            return _CLOSED, 0.0, 0
        flight = breaker.flights.get(PROCESS.pid)
        in_flight = 0 if flight is None else len(flight)
        if breaker.calm:
            return _CLOSED, 0.0, in_flight
        circuit, _ = breaker.circuit.look()
        if circuit.state is _CLOSED:
            return _CLOSED, 0.0, in_flight
        return circuit.state_at(now), circuit.wait(now), in_flight

    def busy(self) -> frozenset[str]:
        """The accounts that have calls under way or a breaker that is not closed."""
        return frozenset(self._busy) if self._busy else _NOBODY

    def acquire(self, account_id: str, now: float, permit: Permit | None = None) -> Permit | None:
        """Admit a call, or None while the breaker is open or its one probe is under way.

        `permit`: the one to admit. Whoever makes it beforehand can give it back even if this method is cut off.
        """
        breaker = self._breakers.get(account_id) or self._breakers.setdefault(account_id, _Breaker(self.config))
        if permit is None:
            permit = Permit(account_id)
        flight = breaker.flights.get(PROCESS.pid)
        if flight is None:  # the first call of this process
            flight = breaker.flights.setdefault(PROCESS.pid, set())
        permit._flight = flight  # from here on there may be something to give back
        if not breaker.calm and not breaker.admit(permit, now):
            return None
        permit._place = ref(permit, flight.discard)
        flight.add(permit._place)
        self._busy.add(account_id)  # after it is in flight, see `release`
        return permit

    def release(self, admitted: Permit, verdict: Verdict, now: float) -> None:
        """End an admitted call; a second end does nothing, unless the first was cut off: then it is carried out again."""
        flight = admitted._flight
        if flight is None or admitted._ended or admitted._pid != PROCESS.pid:
            return
        breaker = self._breakers[admitted.account_id]
        closed = (verdict is not _FAILURE and breaker.calm) or breaker.settle(admitted, verdict, now)
        if admitted._place is not None:
            flight.discard(admitted._place)
        admitted._ended = True
        if not flight and closed:
            self._busy.discard(admitted.account_id)
            if flight or not (breaker.calm or breaker.closed):  # another call was admitted in between
                self._busy.add(admitted.account_id)


_NOBODY: frozenset[str] = frozenset()
_CLOSED, _FAILURE = BreakerState.CLOSED, Verdict.FAILURE  # which nearly every call looks at, and an enum is slow to give


class _Circuit(NamedTuple):
    """What a breaker knows: never changed, replaced whole. `probe`: the permit that may be under way while it is not closed.

    `counted`: the permit whose end made this circuit; whoever comes next notes that on it, so that an end that was cut off and is
    carried out again counts once.
    """

    state: BreakerState = BreakerState.CLOSED
    epoch: int = 0
    failures: tuple[float, ...] = ()
    open_until: float = 0.0
    probe: ref[Permit] | None = None
    counted: ref[Permit] | None = None

    def state_at(self, now: float) -> BreakerState:
        if self.state is BreakerState.OPEN and now >= self.open_until:
            return BreakerState.HALF_OPEN
        return self.state

    def wait(self, now: float) -> float:
        if self.state is BreakerState.OPEN and now < self.open_until:
            return self.open_until - now
        probe = self.probe() if self.probe is not None else None
        return 1.0 if probe is not None and probe._alive else 0.0

    def moved(self, state: BreakerState) -> _Circuit:
        return _Circuit(state, self.epoch + 1, open_until=self.open_until)


class _Breaker:
    """`calm`: no failure was counted yet, so that `circuit` is as it was made; False from before that changes, for good.

    `flights`: the permits under way, by process. Those of the parent, before a fork, are none of its child's.
    """

    __slots__ = ("calm", "circuit", "config", "flights")

    def __init__(self, config: HealthConfig) -> None:
        self.config = config
        self.calm = True
        self.circuit = Cell(_Circuit())
        self.flights: dict[int, set[ref[Permit]]] = {}

    @property
    def closed(self) -> bool:
        return self.circuit.look()[0].state is _CLOSED

    def admit(self, permit: Permit, now: float) -> bool:
        while True:
            circuit, seen = self.circuit.look()
            permit._epoch = circuit.epoch
            if circuit.state is _CLOSED:
                return True
            if circuit.wait(now) > 0:
                return False
            if circuit.state is BreakerState.OPEN:
                circuit = circuit.moved(BreakerState.HALF_OPEN)
            permit._epoch = circuit.epoch
            if self.circuit.replace(seen, circuit._replace(probe=ref(permit))):
                return True

    def settle(self, admitted: Permit, verdict: Verdict, now: float) -> bool:
        """Count how a call ended; whether calls are let through now."""
        if verdict is _FAILURE:
            self.calm = False
        while True:
            circuit, seen = self.circuit.look()
            last = circuit.counted() if circuit.counted is not None else None
            if last is not None:
                last._counted = True
            if admitted._counted:
                return circuit.state is _CLOSED
            if verdict is not _FAILURE and circuit.state is _CLOSED:
                return True
            after = self._after(circuit, admitted, verdict, now)
            if after is circuit or self.circuit.replace(seen, after._replace(counted=ref(admitted))):
                return after.state is _CLOSED

    def _after(self, circuit: _Circuit, admitted: Permit, verdict: Verdict, now: float) -> _Circuit:
        if admitted._epoch != circuit.epoch or circuit.state is BreakerState.OPEN:  # nobody is admitted while it is open
            return circuit
        if circuit.state is _CLOSED:
            circuit = circuit._replace(failures=(*circuit.failures, now)[-self.config.failure_threshold :])
            recent = sum(now - moment <= self.config.failure_window for moment in circuit.failures)
            if recent < self.config.failure_threshold:
                return circuit
        target = _NEXT[circuit.state, verdict]
        return circuit if target is None else circuit._replace(open_until=now + self.config.open_for).moved(target)
