"""Bounds the memory that the bodies of all requests take together: who comes when it is full waits for room, first come first.

Strategy: a body takes its whole length before a byte of it is read, so that no two wait for each other with half of theirs; one
that comes in chunks takes more as it grows. Small bodies take nothing: how many there are is bounded by the number of clients,
and nobody can keep them out with large ones. Must never know HTTP, nor what is in a body.
"""

from __future__ import annotations

import threading
from collections import deque

from .meter import Clock

SMALL = 64 << 10
"""Bytes up to which a body takes no room of the others'."""


class Bodies:
    """Room for `size` bytes of bodies. Thread-safe."""

    def __init__(self, size: int, clock: Clock) -> None:
        self._left = size
        self._clock = clock
        self._changed = threading.Condition()
        self._line: deque[object] = deque()
        self._closed = False

    def take(self, size: int, wait_s: float) -> bool:
        """Take room for `size` bytes, waiting at most `wait_s` seconds for it; whether there was."""
        if size <= 0:
            return True
        with self._changed:
            if not self._line and size <= self._left:
                self._left -= size
                return True
            place, deadline = object(), self._clock.monotonic() + wait_s
            self._line.append(place)
            try:
                while self._line[0] is not place or size > self._left:
                    left = deadline - self._clock.monotonic()
                    if left <= 0 or self._closed:
                        return False
                    self._changed.wait(left)
                self._left -= size
                return True
            finally:
                self._line.remove(place)
                self._changed.notify_all()

    def give(self, size: int) -> None:
        """Give it back."""
        if size > 0:
            with self._changed:
                self._left += size
                self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
