"""Guards a few steps against other threads of the same process, and against nothing else.

Strategy: a lock that the same thread may take again, since a signal handler may come in the middle of the guarded steps; and a
new one in a forked child, since nobody there would ever give back what a thread of the parent held. Must never guard a wait.
"""

from __future__ import annotations

import os
import threading


class OwnLock:
    """To be used in a `with` block."""

    __slots__ = ("_lock", "_pid")

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if self._pid != os.getpid():
            self.__init__()  # type: ignore[misc]  # in a forked child: the same, made anew
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()
