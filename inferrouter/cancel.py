"""Gives up one call from another thread, while it waits for a free slot.

Strategy: the caller makes a `Cancel`, hands it to the call, and cancels it when nobody waits for the answer any more; the walk
sleeps on it instead of on the clock. A call that is with a provider already is not disturbed, since its tokens are spent either
way; an open stream has its own `close()`. Must never know who waits, nor for what.
"""

from __future__ import annotations

import threading

from .errors import InferRouterError


class CallCancelledError(InferRouterError):
    """The call was given up by its caller while it waited; nothing of it is reserved."""

    def __str__(self) -> str:
        return "the call was cancelled while it waited for a free slot: ask again if the answer is still wanted"


class Cancel:
    """A switch that is thrown once. Thread-safe."""

    def __init__(self) -> None:
        self._thrown = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether it was thrown."""
        return self._thrown.is_set()

    def cancel(self) -> None:
        """Throw it. May be called again."""
        self._thrown.set()

    def wait(self, seconds: float) -> None:
        """Sleep so long. Raises `CallCancelledError` as soon as it is thrown."""
        if self._thrown.wait(seconds):
            raise CallCancelledError
