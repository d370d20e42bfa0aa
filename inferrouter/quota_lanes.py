"""Carries the verbs of a quota store to a server, many in one round trip, each answered in time.

Strategy: a verb is queued as an `Operation`; a few threads ("lanes", started when first needed, gone when idle) take what is
queued and send it as one batch. One lane carries what all threads ask, so that they share a round trip; to a server that is
far away several do. Whoever asked waits for its answer until its own deadline, whatever the client library does. A batch that
failed is sent again, as every operation is idempotent by its id; what may have been done for one who has given up is undone.
Must never know what an operation means, nor a client library.
"""

from __future__ import annotations

import _thread
import itertools
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .errors import QuotaStoreError

LARGEST_BATCH = 48
"""Operations that one round trip carries at most, so that the server is not blocked for long."""
IDLE_S = 30.0
"""Seconds after which a lane without work ends."""
NUDGE_S = 0.05
"""Seconds after which whoever waits looks whether all lanes hang."""
HUNG_S = 0.25
"""Seconds without an answer, if that is less than a quarter of the timeout, after which another lane takes what is queued."""
MOST_LANES = 24
"""Threads at most, those included that a silent server keeps waiting."""
KEPT_UNDOS = 10_000
_SHORT_S = 0.001
_UNDO_PAUSE_S = 0.25
_GATHERING = 0.3
"""Part of a round trip that a lane waits for those who were just answered, so that they travel together again."""


class Operation:
    """One verb on its way. `names`: the entries of the server it touches; `args`: the rest, all as ASCII text.

    `now`: the caller's time (epoch seconds). `undo`: makes what takes it back, should nobody wait for its answer any more.
    `along`: what travels before it, and is not waited for. `then`: what to do, on the same way to the server, if that hands it
    back ("n") and nobody waits.
    """

    __slots__ = (
        "along",
        "answer",
        "args",
        "deadline",
        "error",
        "gate",
        "given_up",
        "names",
        "now",
        "sent",
        "then",
        "undo",
        "verb",
    )

    def __init__(
        self, verb: str, names: Sequence[str], args: Sequence[str], now: float = 0.0, undo: Callable[[], Operation] | None = None
    ) -> None:
        self.verb = verb
        self.names = names
        self.args = args
        self.now = now
        self.undo = undo
        self.along: Sequence[Operation] = ()
        self.then: Callable[[Callable[[Operation], str]], object] | None = None
        self.deadline = 0.0
        self.answer: str | None = None
        self.error: QuotaStoreError | None = None
        self.given_up = False
        self.sent = False
        self.gate: threading.Lock | None = None


class Carrier(Protocol):
    """One way to the server, used by one thread at a time."""

    def send(self, batch: Sequence[Operation]) -> list[str]:
        """The answers of the batch, in order, done in one step. Raises whatever the client library raises."""

    def close(self) -> None:
        """Let go of the connection. Raises nothing."""


class Lanes:
    """The queue and its lanes. `open_carrier` makes a way to the server, `explain` translates an exception of it: what to tell,
    and whether to try again. `timeout`: seconds an operation may take in all. `most`: lanes busy at once. `far`: seconds of
    a round trip below which one lane carries everybody's, the faster way to a near server; beyond, more by the square of it.
    `forked` is called in a forked child.
    """

    def __init__(
        self,
        open_carrier: Callable[[], Carrier],
        explain: Callable[[Exception], tuple[QuotaStoreError, bool]],
        timeout: float,
        most: int,
        far: float,
        forked: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._forked = forked
        self._open_carrier = open_carrier
        self._explain = explain
        self._timeout = timeout
        self._most = most
        self._far = far
        self._monotonic = monotonic
        self._sleep = sleep
        self._closed = False
        self._carriers: set[Any] = set()
        self._begin()
        _LANES.add(self)

    def deadline(self, within: float | None = None, trips: float = 0.0) -> float:
        """When a verb that begins now must have ended, on the monotonic clock. `within`: seconds, if less is left. `trips`: but
        long enough for as many round trips, where giving up early would gain nothing."""
        if within is None:
            return self._monotonic() + self._timeout
        return self._monotonic() + max(trips * self.round_trip, min(within, self._timeout))

    def ask(self, operation: Operation, deadline: float) -> str:
        """The answer. Raises QuotaStoreError that says why there is none by `deadline` (monotonic seconds): then the outcome is
        unknown, and what may have been reserved is given back."""
        along = operation.along
        if self._lock._is_owned():  # type: ignore[attr-defined]  # as Condition itself asks its lock
            return self._alone((*along, operation), deadline)[-1]
        for each in along:
            each.deadline = deadline
        operation.answer = operation.error = None  # it may be asked again
        operation.gate = gate = threading.Lock()
        gate.acquire()
        operation.deadline = deadline
        with self._lock:
            if self._closed:
                self.check_open()
            if along:
                self._queue.extend(along)
            self._queue.append(operation)
            bell = self._start_lane() if self._busy < self._enough else None
        if bell is not None:
            bell.release()  # not under the lock, which whom it wakes takes first
        return self._answer_to(operation, gate, deadline)

    def ask_together(self, operations: Sequence[Operation], deadline: float) -> list[str]:
        """The answers to several, which travel together; see `ask`."""
        *along, last = operations
        if self._lock._is_owned():  # type: ignore[attr-defined]  # likewise
            return self._alone(operations, deadline)
        for operation in along:
            operation.gate = threading.Lock()
            operation.gate.acquire()
        last.along = along
        answer = self.ask(last, deadline)
        return [*[self._answer_to(each, each.gate, deadline) for each in along if each.gate is not None], answer]

    def _answer_to(self, operation: Operation, gate: threading.Lock, deadline: float) -> str:
        left = deadline - self._monotonic()
        try:
            while not gate.acquire(timeout=NUDGE_S if left > NUDGE_S else max(0.0, left)):
                left = deadline - self._monotonic()
                with self._lock:
                    if operation.answer is not None or operation.error is not None:
                        break
                    if left <= 0:
                        raise self._given_up(operation)
                    self._nudge()
        except QuotaStoreError:
            raise
        except BaseException:  # Ctrl-C, for one: nobody waits for it any more
            with self._lock:
                self._given_up(operation)
            raise
        if operation.error is not None:
            raise operation.error
        return operation.answer or ""

    def _alone(self, operations: Sequence[Operation], deadline: float) -> list[str]:
        """The answers, got by a thread of their own: a signal handler came where its thread holds the lock, so that no lane could
        move. A bare thread, as that thread may hold the locks of `threading`, too."""
        self.check_open()
        over = threading.Lock()
        over.acquire()
        told: list[list[str] | QuotaStoreError] = []

        def carry() -> None:
            carrier: Carrier | None = None
            try:
                carrier = self._open_carrier()
                told.append(carrier.send(operations))
            except Exception as exc:
                told.append(self._explain(exc)[0])
            finally:
                over.release()
                if carrier is not None:
                    carrier.close()

        _thread.start_new_thread(carry, ())
        over.acquire(timeout=max(0.0, deadline - self._monotonic()))
        answers = told[0] if told else self._late()
        if isinstance(answers, QuotaStoreError):
            self._undos.extend(operation.undo() for operation in operations if operation.undo is not None)
            raise answers
        return answers

    def pause(self, deadline: float) -> None:
        """Waits half a round trip for what others do on the server, and no longer than until `deadline`."""
        self._sleep(max(0.0, min(deadline - self._monotonic(), max(self._nearest / 2, _SHORT_S))))

    @property
    def round_trip(self) -> float:
        """Seconds of the shortest round trip of late, 0 before the first."""
        return self._nearest

    def take_back(self, operation: Operation) -> None:
        """Undoes what was done: who asked was interrupted before he could know of it."""
        if operation.undo is not None:
            with self._lock:
                self._undos.append(operation.undo())
                bell = self._idle.pop() if self._idle else None
            if bell is not None:
                bell.release()

    def _late(self) -> QuotaStoreError:
        return self._explain(TimeoutError("no answer in time"))[0]

    def check_open(self) -> None:
        """Raises QuotaStoreError once it was closed."""
        if self._closed:
            raise QuotaStoreError("the quota store is closed; make a new one")

    def close(self) -> None:
        """Ends the lanes, with a last try to undo what is to be undone. May be called again."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._idle.pop().release()
            threads = [thread for thread in self._threads if thread is not threading.current_thread()]
        end = self._monotonic() + self._timeout
        for thread in threads:
            thread.join(max(0.0, end - self._monotonic()))

    def abandon(self) -> None:
        """In a forked child: begin anew, and never close what belongs to the parent."""
        _INHERITED.append((self._carriers, self._queue, self._threads))
        self._carriers = set()
        self._begin()
        self._forked()

    def _begin(self) -> None:
        self._lock = threading.RLock()  # a signal handler's call may come in the middle of one
        self._queue: deque[Operation] = deque()
        self._undos: deque[Operation] = deque()
        self._threads: dict[threading.Thread, float] = {}
        self._busy = 0
        self._idle: list[threading.Lock] = []  # what wakes each lane that waits; the last one to wait is the first to be woken
        self._nearest = 0.0
        self._enough = 1
        self._last_error: QuotaStoreError | None = None
        self._retry_undos_at = 0.0

    def _nudge(self) -> None:
        """Under the lock: another lane takes what is queued, where all that are busy have heard nothing for long."""
        hung = self._monotonic() - min(HUNG_S, self._timeout / 4)
        if self._queue and all(began <= hung for began in self._threads.values() if began):
            bell = self._start_lane()
            if bell is not None:
                bell.release()

    def _start_lane(self) -> threading.Lock | None:
        """Under the lock: one lane more. Returns what is to be released to wake it, if it waits."""
        if self._idle:
            return self._idle.pop()
        if len(self._threads) < MOST_LANES:
            thread = threading.Thread(target=self._lane, name=f"quota-lane-{next(_NUMBERS)}", daemon=True)
            self._threads[thread] = self._monotonic()
            self._busy += 1  # from now on, so that nobody starts another one for the same work
            thread.start()
        return None

    def _given_up(self, operation: Operation) -> QuotaStoreError:
        """Under the lock: nobody waits for it any more. Returns why there is no answer."""
        operation.given_up = True
        if operation.sent and operation.undo is not None:
            self._undos.append(operation.undo())
        cause = self._last_error or self._late()
        error = QuotaStoreError(str(cause))
        error.__cause__ = cause
        return error

    def _lane(self) -> None:
        carrier: Carrier | None = None
        me = threading.current_thread()
        bell = threading.Lock()
        bell.acquire()
        try:
            while True:
                batch = self._next_batch(me, bell)
                if batch is None:
                    return
                carrier = self._carry(batch, carrier)
                if len(batch) > 1 and self._enough == 1:
                    self._gather(min(len(self._queue) + len(batch), LARGEST_BATCH))
        finally:
            self._let_go(carrier)
            with self._lock:
                self._threads.pop(me, None)

    def _gather(self, expected: int) -> None:
        """Waits a little until those who were just answered are queued with those who came meanwhile."""
        pause = self._nearest * _GATHERING / 4
        for _ in range(4):
            if len(self._queue) >= expected or self._closed:
                return
            self._sleep(pause)

    def _next_batch(self, me: threading.Thread, bell: threading.Lock) -> list[Operation] | None:
        """What to send, None once there is nothing to do for long. Waits until its bell is released."""
        busy = True
        idle_until = 0.0
        while True:
            with self._lock:
                now = self._monotonic()
                batch = self._taken(now)
                if batch:
                    self._busy += not busy
                    self._threads[me] = now
                    return batch
                if busy:
                    busy = False
                    self._busy -= 1
                    self._threads[me] = 0.0
                    idle_until = now + IDLE_S
                if self._closed or now >= idle_until:
                    return None
                self._idle.append(bell)
                left = _UNDO_PAUSE_S if self._undos else idle_until - now
            if not bell.acquire(timeout=left):
                with self._lock:
                    if bell in self._idle:
                        self._idle.remove(bell)
                    else:
                        bell.acquire(blocking=False)  # it was to be woken just now; perhaps whoever did was interrupted

    def _taken(self, now: float) -> list[Operation]:
        """Under the lock: what is queued, and what is to be undone."""
        batch: list[Operation] = []
        while self._queue and len(batch) < LARGEST_BATCH:
            operation = self._queue.popleft()
            if not operation.given_up:
                operation.sent = True
                batch.append(operation)
        if self._undos and (batch or self._closed or now >= self._retry_undos_at):
            for _ in range(min(LARGEST_BATCH, len(self._undos))):
                undo = self._undos.popleft()
                undo.deadline = now
                batch.append(undo)
        return batch

    def _carry(self, batch: list[Operation], carrier: Carrier | None) -> Carrier | None:
        """Sends the batch until it is answered, or nobody waits for it; returns the carrier if it is still good."""
        pause = 0.002
        while True:
            started = self._monotonic()
            try:
                if carrier is None:
                    carrier = self._open_carrier()
                    self._carriers.add(carrier)
                answers = carrier.send(batch)
            except Exception as exc:  # a client library raises what it likes; the one place where that ends
                error, again = self._explain(exc)
                self._last_error = error
                self._let_go(carrier)
                carrier = None
                if not again and len(batch) > 1:
                    for operation in batch:  # one of them may be to blame
                        carrier = self._carry([operation], carrier)
                    return carrier
                waits = [operation for operation in batch if operation.deadline > self._monotonic() and not operation.given_up]
                if not again or not waits:
                    self._failed(batch, error)
                    return None
                self._failed([operation for operation in batch if operation not in waits], error)
                batch = waits
                self._sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads those who retry, guards nothing
                pause = min(pause * 2, 0.1)
                continue
            took = self._monotonic() - started
            self._nearest = nearest = min(self._nearest * 1.01 if self._nearest else took, took)
            self._enough = min(self._most, 1 + int(nearest / self._far) ** 2)
            self._last_error = None
            self._answered(batch, answers)
            return carrier

    def _answered(self, batch: Sequence[Operation], answers: Sequence[str]) -> None:
        with self._lock:
            for operation, answer in zip(batch, answers, strict=True):
                if operation.given_up:
                    continue  # its undo is queued already
                operation.answer = answer
                _release(operation)

    def _failed(self, batch: Sequence[Operation], error: QuotaStoreError) -> None:
        with self._lock:
            for operation in batch:
                if operation.verb == "U":
                    if not self._closed and len(self._undos) < KEPT_UNDOS:
                        self._undos.append(operation)
                        self._retry_undos_at = self._monotonic() + _UNDO_PAUSE_S
                elif not operation.given_up:
                    operation.error = QuotaStoreError(str(error))
                    operation.error.__cause__ = error.__cause__
                    if operation.undo is not None and not self._closed:
                        self._undos.append(operation.undo())
                    _release(operation)

    def _let_go(self, carrier: Carrier | None) -> None:
        if carrier is not None:
            self._carriers.discard(carrier)
            carrier.close()


def _release(operation: Operation) -> None:
    if operation.gate is not None:
        operation.gate.release()


_NUMBERS = itertools.count(1)
_LANES: weakref.WeakSet[Lanes] = weakref.WeakSet()
_INHERITED: list[Any] = []


def _after_fork() -> None:
    for lanes in list(_LANES):
        lanes.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
