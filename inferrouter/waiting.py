"""Lets calls sleep until a slot may be free, and wakes them all when their router closes, or one when its caller gives it up.

Strategy: each sleeper waits on a lock of its own that nobody else takes, so that waking needs no lock: a signal handler or a
finalizer may do it at any point. A clock of the caller's own sleeps by itself, which cannot be cut short: the closing is noticed
after it. A call that is with a provider already is disturbed only if its caller hangs up. Must never know what is waited for, nor
for whom.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .errors import InferRouterError, Rejection, router_closed
from .meter import Clock

if TYPE_CHECKING:
    from .assessment import Candidate


BOUNDS = ("timeout", "max_wait", "cancel")
"""What bounds a call, by its keywords: seconds, and what gives it up."""


class CallCancelledError(InferRouterError):
    """The call was given up by its caller before its answer came. One that a provider had begun on by then stays charged."""

    def __str__(self) -> str:
        return "the call was cancelled before its answer came: ask again if the answer is still wanted"


class Cancel:
    """Gives up one call from another thread: the call takes it as `cancel`. For one call.

    `cancelled`: it was given up; `cut`: also if a provider is at work on it. `on_line`: told, each time the call has looked for a
    slot, who stands in line for it and who was passed over; it must be quick and change neither.
    """

    def __init__(self, on_line: Callable[[Sequence[Candidate], Sequence[Rejection]], None] | None = None) -> None:
        self.on_line = on_line
        self.cancelled = False
        self.cut = False
        self._bell: threading.Lock | None = None
        self._shut: Callable[[], None] | None = None

    def hang_up(self) -> None:
        """Give the call up wherever it is: its connection to a provider is closed, and what it reserved there stays charged.

        A stream that is open already ends by its own `close`. May be called again, from anywhere.
        """
        self.cut = True  # before the look at what to shut, see `cuts`
        shut = self._shut
        if shut is not None:
            shut()
        self.cancel()

    def cuts(self, shut: Callable[[], None] | None) -> None:
        """What closes the call's connection, None if it has none. Who gives it looks at `cut` next: it may have been too late."""
        self._shut = shut

    def cancel(self) -> None:
        """Give the call up if it waits for a free slot, now or later. May be called again, from anywhere."""
        self.cancelled = True
        bell = self._bell
        if bell is not None:
            ring(bell)

    def check(self) -> None:
        """Raise `CallCancelledError` if the call was given up."""
        if self.cancelled:
            raise CallCancelledError

    def rings(self, bell: threading.Lock | None) -> None:
        """Which bell wakes the call."""
        self._bell = bell


class Alarm:
    """Wakes one call that waits, from another thread, so that it looks for a slot before its time."""

    __slots__ = ("_bell", "rung")

    def __init__(self) -> None:
        self.rung = False
        self._bell: threading.Lock | None = None

    def ring(self) -> None:
        """Wake it, or keep it from falling asleep."""
        self.rung = True
        bell = self._bell
        if bell is not None:
            ring(bell)

    def rings(self, bell: threading.Lock | None) -> None:
        """Which bell wakes the call."""
        self._bell = bell


JITTER_S = 0.01
"""Seconds at most that a call sleeps on beyond the moment it waits for."""
LOOK_S = 0.02
"""How often who stands in line looks at a clock that is not the machine's."""


class WaitingRoom:
    """Where the calls of one router sleep."""

    def __init__(self) -> None:
        self.closed = False
        self._bells: set[threading.Lock] = set()

    def check_open(self) -> None:
        """Raise `InferRouterError` once the router is closed."""
        if self.closed:
            raise router_closed()

    def sleep(
        self, seconds: float, clock: Clock, cancel: Cancel | None = None, alarm: Alarm | None = None, behind: bool = False
    ) -> None:
        """Sleep so long on `clock`, on the machine's own until the router closes at most, or `cancel` is thrown, or `alarm` rung.

        `behind`: others are before in line, so that it may take any time. Raises `InferRouterError` if the router was closed,
        `CallCancelledError` if the call was cancelled.
        """
        self.check_open()
        if getattr(clock, "sleep", None) is time.sleep:
            self._rest(seconds if behind else seconds + _jitter(), cancel, alarm)
        elif behind:
            ends = clock.monotonic() + seconds
            while not (self.closed or (cancel and cancel.cancelled) or (alarm and alarm.rung)) and clock.monotonic() < ends:
                self._rest(LOOK_S, cancel, alarm)
        else:
            clock.sleep(seconds)
        self.check_open()
        if cancel is not None:
            cancel.check()

    def admit(self, bell: threading.Lock) -> None:
        """Ring `bell` when the router closes; whoever sleeps on it looks at `closed` before."""
        self._bells.add(bell)

    def dismiss(self, bell: threading.Lock) -> None:
        """Ring `bell` no more."""
        self._bells.discard(bell)

    def close(self) -> None:
        """Wake everyone, and let nobody sleep any more."""
        self.closed = True
        for bell in list(self._bells):
            ring(bell)

    def _rest(self, seconds: float, cancel: Cancel | None, alarm: Alarm | None) -> None:
        bell = new_bell()
        try:
            self.admit(bell)
            if cancel is not None:
                cancel.rings(bell)
            if alarm is not None:
                alarm.rings(bell)
            rung = self.closed or (cancel is not None and cancel.cancelled) or (alarm is not None and alarm.rung)
            if not rung:  # else it may have been too late to be rung
                bell.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        finally:
            self.dismiss(bell)
            if cancel is not None:
                cancel.rings(None)
            if alarm is not None:
                alarm.rings(None)


def _jitter() -> float:
    """A few milliseconds, so that processes that wait for the same moment do not all look at it."""
    from random import random

    return random() * JITTER_S  # noqa: S311  spreads those who wait, guards nothing


def new_bell() -> threading.Lock:
    """What one thread sleeps on, by acquiring it. Rung while nobody sleeps, it keeps the next one from falling asleep."""
    bell = threading.Lock()
    bell.acquire()
    return bell


def ring(bell: threading.Lock) -> None:
    """Wake who sleeps on `bell`."""
    try:
        bell.release()
    except RuntimeError:  # was rung before
        return
