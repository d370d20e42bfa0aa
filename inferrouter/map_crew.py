"""Decides how many workers of a job take rows: all of them, unless fewer keep the processor busy by themselves.

Strategy: threads that wait for answers cost nothing, but where answers come at once, dozens of threads that all want to compute
only take turns at the interpreter, and each turn costs. So a job begins with a few workers; as soon as they are seen to wait,
there are more, and if together they compute nearly all the time, there are fewer. Where others want the processor too, workers
seem to wait for answers and wait for it: then twice as many compute no more than before, and are not kept. No lock: a look that
two threads take at once makes one estimate wrong, and the next one right. Must never know a row, nor put a thread to sleep.
"""

from __future__ import annotations

from collections.abc import Callable

FEWEST = 2
"""One may compute while the other's answer is under way."""
LOOK_S = 0.02
"""Seconds between two looks."""
FULL, SLACK = 0.8, 0.6
"""Of the time that passes, what the workers compute: above the first there may be too many of them, below the second too few."""
LITTLE, GAIN = 0.2, 1.25
"""Workers that compute for less than the first share of the time really do wait for answers. Otherwise, twice as many workers
must compute at least the second number times as much to be kept."""
PAUSE, LONGEST_PAUSE = 4, 512
"""Looks until fewer workers are tried again, if they were too few, or more, if they did no more; each time twice as many, up to
the second."""


class Crew:
    """Workers numbered from 0, of which those below `at_work` take rows. `busy`: they compute most of the time. `done`: a number
    that changes with each row.

    `computed`: says what the thread that calls it has computed, in seconds; None: all are always at work. `monotonic`: seconds.
    """

    __slots__ = (
        *("_before", "_computed", "_enough", "_fewer", "_later", "_monotonic", "_pause", "_patience", "_since", "_sum", "_until"),
        *("at_work", "busy", "done", "size"),
    )

    def __init__(self, size: int, computed: Callable[[], float] | None, monotonic: Callable[[], float]) -> None:
        self.size = size
        self.busy = computed is not None
        self.at_work = min(size, FEWEST) if self.busy else size
        self.done = 0
        self._computed = computed
        self._monotonic = monotonic
        self._since = monotonic()
        self._sum = 0.0
        self._fewer = False
        self._pause = self._patience = PAUSE
        self._until = self._later = 0  # looks
        self._enough = size
        self._before = 0.0  # their share when there were half as many, if that was at the last look

    def did(self, before: float) -> float:
        """A worker has done a row, or is about to begin. `before`: what this returned to it the last time, at first -1."""
        if self._computed is None:
            return 0.0
        now = self._computed()
        self.done += 1
        if before >= 0:
            self._sum += now - before
        elif not self._sum:
            self._since = self._monotonic()
        if self._monotonic() - self._since >= LOOK_S:
            self._look()
        return now

    def more_hands(self) -> None:
        """No row was done for a while, so there is nothing to compute: more may wait for answers."""
        self.at_work, self.busy, self._before = min(4 * self.at_work, self.size), False, 0.0

    def _look(self) -> None:
        now, since = self._monotonic(), self._since
        self._since = now
        share, self._sum = self._sum / max(now - since, 1e-9), 0.0
        before, self._before = self._before, 0.0
        self._until -= 1
        self._later -= 1
        if not LITTLE < share < SLACK:
            self._later, self._patience = 0, PAUSE
        elif share < GAIN * before:
            self._later = self._patience = min(2 * self._patience, LONGEST_PAUSE)
            self._enough = max(self.at_work // 2, FEWEST)
        self.busy = share > SLACK or self._later > 0
        if self._later > 0:
            self.at_work = min(self.at_work, self._enough)
        elif share < SLACK:
            if self._fewer:
                self._until = self._pause = min(2 * self._pause, LONGEST_PAUSE)
            if self.at_work < self.size:
                self.at_work, self._before = min(2 * self.at_work, self.size), share
            self._fewer = False
        elif share > FULL and self.at_work > FEWEST and self._until <= 0:
            self.at_work = max(self.at_work // 2, FEWEST)
            self._fewer = True
