"""Lets the rows of a job wait for slots: first come, first served, one look at a time, and no look that cannot succeed.

Strategy: a row that was refused waits in the line of its model until the time its refusal named. Then they go one by one, each
as soon as the one before it was refused or has evidently been admitted. When a call ends, the first in line may look early, as
that call may have used less than was reserved for it. On the machine's own clock a waiting thread can be woken to stop; any
other clock is slept on by one thread alone, and only while no call is under way, so that a simulated week is exact.
Must never know a provider, a request or an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count

from .meter import Clock, SystemClock
from .waiting import WaitingRoom, new_bell, ring

GRACE_S = 0.01
"""Seconds after which a row that was let through and has not been refused counts as admitted; a refusal takes a tenth of it."""
LONGEST_NAP_S = 30.0
"""Seconds a thread sleeps at most before it looks at the clock again, which may have been set, or the machine suspended."""
SHORT_WAIT_S = 60.0
"""Seconds up to which newcomers wait behind the line; if the first in line waits longer, they look for themselves."""


class Turn:
    """A row's place in the line of `model`. `at`: epoch seconds when it may look for a slot; `why`: what it waits for."""

    __slots__ = ("at", "bell", "model", "number", "why")

    def __init__(self, model: str, number: int) -> None:
        self.model = model
        self.number = number
        self.at = 0.0
        self.why = ""
        self.bell: threading.Lock | None = None  # made when it has to wait, which most never do

    def wake(self) -> None:
        """Let the thread that waits look around."""
        if self.bell is not None:
            ring(self.bell)


class _Line:
    """The rows of one model that wait. `looking`: the row let through last, as long as its outcome is open."""

    __slots__ = ("looking", "since", "turns")

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.looking: Turn | None = None
        self.since = 0.0


class Pacer:
    """Makes rows wait. Every method is called by the thread that has the row; `lock` is the job's.

    `woken()`: whether a thread that waits for something else is about to go on. `idle(at)`: called when every thread waits and
    nothing is to be had before `at`, epoch seconds; true ends the job. Both are called under the lock. `awake`: how
    many of the job's threads do something other than wait; whoever changes it holds the lock. `room`: where bells are rung when
    the router closes; a row that waits then goes on, and is told so.
    """

    def __init__(
        self,
        clock: Clock,
        lock: threading.RLock,
        woken: Callable[[], bool],
        idle: Callable[[float], bool],
        room: WaitingRoom | None = None,
    ) -> None:
        self._clock = clock
        self._lock = lock
        self._woken = woken
        self._idle = idle
        self._simulated = not isinstance(clock, SystemClock)
        self._lines: dict[str, _Line] = {}
        self._room = WaitingRoom() if room is None else room
        self._numbers = count(1)
        self._flying: set[Turn] = set()
        self._sleeping = False
        self._stopped = False
        self.awake = 0

    @property
    def in_flight(self) -> int:
        """Rows between `enter` and `leave` that do not wait."""
        return len(self._flying)

    def next_look(self) -> tuple[float, str] | None:
        """When the first row in line looks again, in epoch seconds, and what it waits for; None if no row waits."""
        with self._lock:
            turns = [turn for line in self._lines.values() for turn in line.turns]
            first = min(turns, key=lambda turn: (turn.at, not turn.why), default=None)
            return None if first is None else (first.at, first.why)

    def enter(self, model: str) -> Turn | None:
        """A turn for a row that has come: at once if nobody waits, without the lock. None: the job has stopped."""
        turn = Turn(model, next(self._numbers))
        line = self._lines.get(model)
        if line is None or line.turns or self._stopped:
            with self._lock:
                line = self._lines.setdefault(model, line or _Line())
                if line.turns:
                    soonest = line.turns[0].at
                    now = self._clock.time()
                    turn.at = soonest if soonest <= now + SHORT_WAIT_S else now
                    if not self._wait(line, turn):
                        return None
                elif self._stopped:
                    return None
        self._flying.add(turn)
        return turn

    def wait(self, turn: Turn, at: float, why: str) -> bool:
        """The row of `turn` was refused until `at`, because of `why`: wait in line. False: the job has stopped."""
        with self._lock:
            turn.at, turn.why = at, why
            line = self._lines[turn.model]
            self._known(line, turn)
            self._flying.discard(turn)
            try:
                return self._wait(line, turn)
            finally:
                self._flying.add(turn)

    def rest(self, turn: Turn, at: float) -> bool:
        """The row of `turn` pauses until `at`, beside the line and not in anybody's way. False: the job has stopped."""
        with self._lock:
            turn.at = at
            self._known(self._lines[turn.model], turn)
            alone = self._lines[f"{turn.model}\n{turn.number}"] = _Line()
            self._flying.discard(turn)
            try:
                return self._wait(alone, turn)
            finally:
                self._flying.add(turn)
                del self._lines[f"{turn.model}\n{turn.number}"]

    def leave(self, turn: Turn) -> None:
        """The call of `turn` has ended: what it did not use of its reservation may serve the first in line."""
        self._flying.discard(turn)
        line = self._lines[turn.model]
        if not line.turns and line.looking is not turn:
            return
        with self._lock:
            self._known(line, turn)
            if line.turns:
                first = line.turns[0]
                first.at = min(first.at, self._clock.time())
                first.wake()

    def stop(self) -> None:
        """Send every waiting row home."""
        with self._lock:
            self._stopped = True
            for line in self._lines.values():
                for turn in line.turns:
                    turn.wake()

    def step_aside(self) -> None:
        """A thread of the job begins to wait for something else, or ends. The lock is held."""
        self.awake -= 1
        self._nobody_awake()

    def _wait(self, line: _Line, turn: Turn) -> bool:
        turns = line.turns
        bell = turn.bell = turn.bell or new_bell()
        self._room.admit(bell)
        turns.append(turn)
        if len(turns) > 1 and turns[-2].number > turn.number:
            turns.sort(key=_number)
        self.awake -= 1
        try:
            while not self._stopped:
                now = self._clock.time()
                if (turn.at <= now and self._is_next(line, turn, now)) or self._room.closed:
                    return True
                if not self._nobody_awake():
                    nap = self._nap(line, turn, now)
                    self._lock.release()
                    try:
                        bell.acquire(timeout=nap)
                    finally:
                        self._lock.acquire()
            return False
        finally:
            self.awake += 1
            self._room.dismiss(bell)
            turns.remove(turn)
            if self._stopped:
                self._known(line, turn)
            else:
                line.looking, line.since = turn, self._clock.monotonic()
                self._wake_next(line)

    def _is_next(self, line: _Line, turn: Turn, now: float) -> bool:
        first = next(each for each in line.turns if each.at <= now)
        return first is turn and (line.looking is None or self._grace_left(line) <= 0)

    def _grace_left(self, line: _Line) -> float:
        """Seconds; on a simulated clock no time passes during a look, so its outcome is always waited for."""
        return GRACE_S if self._simulated else line.since + GRACE_S - self._clock.monotonic()

    def _nap(self, line: _Line, turn: Turn, now: float) -> float:
        """Seconds to sleep at most, negative for no end."""
        if self._simulated:
            return -1.0
        if turn.at > now:
            return min(turn.at - now, LONGEST_NAP_S)
        return max(self._grace_left(line), 0.001) if line.looking is not None else LONGEST_NAP_S

    def _known(self, line: _Line, turn: Turn) -> None:
        """The outcome of `turn`'s look is known: the next may look."""
        if line.looking is turn:
            line.looking = None
            self._wake_next(line)

    def _wake_next(self, line: _Line) -> None:
        if line.turns:
            now = self._clock.time()
            ready = next((each for each in line.turns if each.at <= now), None)
            if ready is not None:
                ready.wake()

    def _nobody_awake(self) -> bool:
        """Whether something changed because no thread is awake: the job was ended, or a simulated clock moved."""
        if self.awake > 0 or self._sleeping or self._stopped or self._woken():
            return False
        turns = [turn for line in self._lines.values() for turn in line.turns]
        now = self._clock.time()
        if not turns or any(turn.at <= now for turn in turns):
            return False
        at = min(turn.at for turn in turns)
        if self._idle(at):
            self.stop()
            return True
        if not self._simulated:
            return False
        self._sleeping = True
        self._lock.release()
        try:
            self._clock.sleep(at - now)
        finally:
            self._lock.acquire()
            self._sleeping = False
        for line in self._lines.values():
            self._wake_next(line)
        return True


def _number(turn: Turn) -> int:
    return turn.number
