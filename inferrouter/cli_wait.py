"""Shows a person that a call waits: for whom, why, and how long still.

Strategy: a meter that hears of each wait, and a clock whose sleep counts down on one line of a terminal; off a terminal one line
says it once, so that a log shows why nothing happens. Must never decide whether to wait.
"""

from __future__ import annotations

import time as stdlib_time

from .events import ResultEvent, RouteEvent, WaitEvent
from .moments import moment_in_words, span_in_words
from .terminal import Screen

TICK_S = 0.5
"""Seconds between two pictures of the countdown; Ctrl-C is heard at once."""


class Countdown:
    """The meter and the clock of a router whose waits a person sees on `screen`."""

    time = staticmethod(stdlib_time.time)
    monotonic = staticmethod(stdlib_time.monotonic)

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._who = ""

    def on_route(self, event: RouteEvent) -> None:
        """Nothing."""

    def on_result(self, event: ResultEvent) -> None:
        """Nothing."""

    def on_wait(self, event: WaitEvent) -> None:
        """Keep whom the wait is for; off a terminal say it."""
        self._who = f"{event.provider}/{event.account_id} {event.model}"
        if not self._screen.terminal:
            when = moment_in_words(event.until, event.at)
            self._screen.line(f"waiting for {self._who}, free {when}: {event.reason}")

    def sleep(self, seconds: float, /) -> None:
        """Sleep, counting down on a terminal."""
        ends = stdlib_time.monotonic() + seconds
        if not self._screen.terminal:
            stdlib_time.sleep(max(0.0, seconds))
            return
        try:
            while (left := ends - stdlib_time.monotonic()) > 0:
                self._screen.passing(f"waiting {span_in_words(left)} for {self._who or 'a free slot'} (Ctrl-C stops)")
                stdlib_time.sleep(min(TICK_S, left))
        finally:
            self._screen.passing("")
