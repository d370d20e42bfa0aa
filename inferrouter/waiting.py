"""Lets calls sleep until a slot may be free, and wakes them all when their router closes, or one when its caller gives it up.

Strategy: each sleeper waits on a lock of its own that nobody else takes, so that waking needs no lock: a signal handler or a
finalizer may do it at any point. A clock of the caller's own sleeps by itself, which cannot be cut short: the closing is noticed
after it. A call that is with a provider already is not disturbed, since its tokens are spent either way. Must never know what is
waited for, nor for whom.
"""

from __future__ import annotations

import threading
import time

from .errors import InferRouterError, router_closed
from .meter import Clock


class CallCancelledError(InferRouterError):
    """The call was given up by its caller while it waited; nothing of it is reserved."""

    def __str__(self) -> str:
        return "the call was cancelled while it waited for a free slot: ask again if the answer is still wanted"


class Cancel:
    """Gives up one call from another thread, while it waits for a free slot: the call takes it as `cancel`. For one call."""

    def __init__(self) -> None:
        self.cancelled = False
        self._bell: threading.Lock | None = None

    def cancel(self) -> None:
        """Give the call up. May be called again, from anywhere."""
        self.cancelled = True
        bell = self._bell
        if bell is not None:
            _ring(bell)

    def check(self) -> None:
        """Raise `CallCancelledError` if the call was given up."""
        if self.cancelled:
            raise CallCancelledError

    def rings(self, bell: threading.Lock | None) -> None:
        """Which bell wakes the call."""
        self._bell = bell


class WaitingRoom:
    """Where the calls of one router sleep."""

    def __init__(self) -> None:
        self.closed = False
        self._bells: set[threading.Lock] = set()

    def check_open(self) -> None:
        """Raise `InferRouterError` once the router is closed."""
        if self.closed:
            raise router_closed()

    def sleep(self, seconds: float, clock: Clock, cancel: Cancel | None = None) -> None:
        """Sleep so long on `clock`, on the machine's own until the router closes at most, or `cancel` is thrown.

        Raises `InferRouterError` if it was closed, `CallCancelledError` if it was cancelled.
        """
        self.check_open()
        if getattr(clock, "sleep", None) is time.sleep:
            self._rest(seconds, cancel)
        else:
            clock.sleep(seconds)
        self.check_open()
        if cancel is not None:
            cancel.check()

    def close(self) -> None:
        """Wake everyone, and let nobody sleep any more."""
        self.closed = True
        for bell in list(self._bells):
            _ring(bell)

    def _rest(self, seconds: float, cancel: Cancel | None) -> None:
        bell = threading.Lock()
        bell.acquire()
        try:
            self._bells.add(bell)
            if cancel is not None:
                cancel.rings(bell)
            if not self.closed and (cancel is None or not cancel.cancelled):  # else it may have been too late to be rung
                bell.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        finally:
            self._bells.discard(bell)
            if cancel is not None:
                cancel.rings(None)


def _ring(bell: threading.Lock) -> None:
    try:
        bell.release()
    except RuntimeError:  # was rung before
        return
