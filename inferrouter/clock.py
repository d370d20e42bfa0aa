"""Time as the router sees it, so that tests and simulations can bring their own.

Strategy: wall time for calendars and holds, monotonic time for durations, and sleep, in one object that is handed down. Must
never be asked by a store, a parser or a state machine: those are told the time.
"""

from __future__ import annotations

import time as stdlib_time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """`time()`: epoch seconds; `monotonic()`: seconds; `sleep(seconds)`."""

    def time(self) -> float:
        """Epoch seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own."""

    time = staticmethod(stdlib_time.time)
    monotonic = staticmethod(stdlib_time.monotonic)
    sleep = staticmethod(stdlib_time.sleep)
