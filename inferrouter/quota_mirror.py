"""Remembers what a store on a server looked like a moment ago, so that choosing among accounts costs no round trip of its own.

Strategy: buckets and holds as they were last read, with what this process has charged and settled since; what other processes did
goes unseen until they are read again: with the next reservation, once they are older than a second, or at once where a caller
allows less. A choice made from it is checked by the reservation, which the server decides. Must never ask a server, nor decide
what is admitted.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from .quota import Headroom, Hold, Reservation
from .quota_counting import BucketState, headrooms_of, live_hold, settle
from .quota_raw import read_hold

FRESH_S = 1.0
"""Seconds after which what was shown is read again with the next reservation, whatever age its reader allowed."""


class Mirror:
    """Buckets and holds as this process saw them last. `monotonic`: a clock in seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.RLock()  # a signal handler's call may come in the middle of one
        self._states: dict[str, BucketState] = {}
        self._read_at: dict[str, float] = {}
        self._holds: list[tuple[Hold, float]] = []
        self._holds_at = -math.inf
        self._due: Sequence[str] = ()

    def headroom(
        self,
        keys: Sequence[str],
        unique: Sequence[str],
        now: float,
        max_age: float,
        look: Callable[[], tuple[Mapping[str, BucketState], str]],
    ) -> list[Headroom]:
        """How full the buckets are, read again by `look` (with the holds) if one was read longer ago than `max_age`."""
        at = self._monotonic()
        oldest = min([self._read_at.get(key, -math.inf) for key in unique], default=at)
        if oldest <= at - max_age:
            self.saw_all(*look(), at)
        elif oldest <= at - FRESH_S:
            self._due = unique
        with self._lock:
            return headrooms_of(self._states, keys, now)[0]

    def holds(self, now: float, max_age: float, look: Callable[[], str]) -> dict[str, Hold]:
        """The holds that last, read again by `look` if they were read longer ago than `max_age`, where no reservation does it."""
        at = self._monotonic()
        if self._holds_at <= at - (max_age if self._due else min(max_age, FRESH_S)):
            answer = look()
            with self._lock:
                self._keep_holds(answer, at)
        live = [live_hold(*held, now) for held in self._holds]
        return {held[0].key: held[0] for held in live if held is not None}

    def saw(self, states: Mapping[str, BucketState], at: float | None = None) -> None:
        """The buckets as the server has them; `at`: since when, None: now."""
        with self._lock:
            self._states.update(states)
            self._read_at.update(dict.fromkeys(states, self._monotonic() if at is None else at))

    def saw_all(self, states: Mapping[str, BucketState], holds: str, at: float) -> None:
        """The buckets and the holds as the server had them `at` that moment of the clock."""
        self.saw(states, at)
        with self._lock:
            self._keep_holds(holds, at)

    def due(self) -> tuple[Sequence[str], float]:
        """Which buckets are to be read again, with the holds, by whoever asks this alone; and this moment of the clock."""
        with self._lock:
            keys, self._due, at = self._due, (), self._monotonic()
            if keys:
                self._read_at.update(dict.fromkeys(keys, at))
                self._holds_at = at
        return keys, at

    def charged(self, amounts: Mapping[str, float], now: float) -> None:
        """This process has reserved these amounts."""
        with self._lock:
            for key, amount in amounts.items():
                state = self._states.get(key)
                if state is not None:
                    state.counter = state.counter.as_of(now)
                    state.counter.used += amount
                    state.changed()

    def settled(self, reservation: Reservation, amounts: Sequence[float] | None) -> None:
        """This process has settled a reservation."""
        if amounts is not None and self._states:
            with self._lock:
                settle(self._states, reservation, amounts)

    def forget(self, keys: Iterable[str]) -> None:
        """These buckets are to be read again."""
        with self._lock:
            for key in keys:
                self._read_at.pop(key, None)

    def forget_holds(self) -> None:
        """The holds are to be read again."""
        self._holds_at = -math.inf

    def _keep_holds(self, answer: str, at: float) -> None:
        found = [read_hold(text) for text in answer.split("\n") if text]
        self._holds = [held for held in found if held is not None]
        self._holds_at = at
