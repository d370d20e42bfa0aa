"""Lets one at a time use what two must not use at once, and takes it back from whoever was cut off.

Strategy: who has the turn stands in a `Cell`, as a weak reference to a `Holder` that lives in the frame of the work. Work that
an interrupt ended loses the turn with its frame, and a parent's turn is void in a forked child. Work that comes in the midst of
work of the same thread (a signal handler, a finalizer) cannot wait for it: it takes the turn over, and the other, now `cut`,
starts anew. Whoever has waited for long is next. Must never know what is done in a turn.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import ref

from .cell import Cell
from .frozen import NamedTuple
from .own_process import PROCESS

LONG_S = 0.01
"""Whoever has waited so long is given the turn; until then the fastest takes it, which keeps the others' threads asleep."""
LOOK_S = 0.05
"""How often a waiting thread looks whether the turn was lost by whoever had it."""


class Holder:
    """Somebody's work. `cut`: work that came in the midst of it took the turn away; `took_over`: it is such work itself."""

    __slots__ = ("__weakref__", "cut", "pid", "thread", "took_over")

    def __init__(self) -> None:
        self.cut = self.took_over = False
        self.pid = PROCESS.pid
        self.thread = threading.get_ident()


class Turn:
    """`take` it, and `give` it back in a `finally`, twice if need be."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = monotonic
        self._holder: Cell[ref[Holder] | None] = Cell(None)
        self._queue: deque[_Waiting] = deque()

    @contextmanager
    def had(self) -> Iterator[None]:
        """Take it for a block, however long that waits. For steps that bear a signal handler's in the midst of them."""
        holder = Holder()
        try:
            self.take(holder, math.inf)
            yield
        finally:
            self.give(holder)

    def held_by(self, holder: Holder) -> bool:
        """Whether it is this one's."""
        found, _ = self._holder.look()
        return found is not None and found() is holder

    def take(self, holder: Holder, wait_s: float = 0.0) -> bool:
        """Take it, waiting at most `wait_s` seconds; whether it was had. It must not be this one's already."""
        if self._grasp(holder):
            return True
        if wait_s <= 0:
            return False
        began = self._clock()
        waiting = _Waiting(ref(holder), threading.Lock(), began)
        waiting.bell.acquire()
        try:
            self._queue.append(waiting)
            while not self._grasp(holder):
                left = began + wait_s - self._clock()
                if left <= 0:
                    return False
                waiting.bell.acquire(timeout=min(left, LOOK_S))
            return True
        finally:
            self._dismiss(waiting)

    def give(self, holder: Holder) -> None:
        """Give it back; does nothing where it is not this one's."""
        found, seen = self._holder.look()
        if found is None or found() is not holder:
            return
        first = self._first()
        late = first is not None and self._clock() - first.since > LONG_S
        if self._holder.replace(seen, first.holder if late and first is not None else None) and first is not None:
            first.ring()

    def _grasp(self, holder: Holder) -> bool:
        while True:
            found, seen = self._holder.look()
            other = found() if found is not None else None
            holder.took_over = other is not None and other is not holder and other.pid == holder.pid
            if holder.took_over and other is not None:
                if other.thread != holder.thread:
                    return False
                other.cut = True
            if other is holder:
                return True
            if self._holder.replace(seen, ref(holder)):
                return True

    def _first(self) -> _Waiting | None:
        while True:
            try:
                first = self._queue[0]
            except IndexError:
                return None
            holder = first.holder()
            if holder is not None and holder.pid == PROCESS.pid:
                return first
            self._dismiss(first)

    def _dismiss(self, waiting: _Waiting) -> None:
        try:
            self._queue.remove(waiting)
        except (ValueError, IndexError):  # another thread was faster
            return


class _Waiting(NamedTuple):
    """One that waits; `bell` is locked until it is rung. Compared by `bell`: no two share one."""

    holder: ref[Holder]
    bell: threading.Lock
    since: float

    def ring(self) -> None:
        try:
            self.bell.release()
        except RuntimeError:  # was rung before
            return
