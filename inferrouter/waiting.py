"""Lets calls sleep until a slot may be free, and wakes them all when their router closes.

Strategy: each sleeper waits on a lock of its own that nobody else takes, so that waking needs no lock: a signal handler or a
finalizer may do it at any point. A clock of the caller's own sleeps by itself, which cannot be cut short: the closing is noticed
after it. Must never know what is waited for, nor for whom.
"""

from __future__ import annotations

import threading
import time

from .errors import router_closed
from .meter import Clock


class WaitingRoom:
    """Where the calls of one router sleep."""

    def __init__(self) -> None:
        self.closed = False
        self._bells: set[threading.Lock] = set()

    def check_open(self) -> None:
        """Raise `InferRouterError` once the router is closed."""
        if self.closed:
            raise router_closed()

    def sleep(self, seconds: float, clock: Clock) -> None:
        """Sleep so long on `clock`, on the machine's own until the router closes at most. Raises `InferRouterError` if it did."""
        self.check_open()
        if getattr(clock, "sleep", None) is time.sleep:
            self._rest(seconds)
        else:
            clock.sleep(seconds)
        self.check_open()

    def close(self) -> None:
        """Wake everyone, and let nobody sleep any more."""
        self.closed = True
        for bell in list(self._bells):
            _ring(bell)

    def _rest(self, seconds: float) -> None:
        bell = threading.Lock()
        bell.acquire()
        try:
            self._bells.add(bell)
            if not self.closed:  # else it may have been too late to be rung
                bell.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        finally:
            self._bells.discard(bell)


def _ring(bell: threading.Lock) -> None:
    try:
        bell.release()
    except RuntimeError:  # was rung before
        return
