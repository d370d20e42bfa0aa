"""Runs the rows of a job in a few threads: lazily read, bounded in memory, stopped in good order.

Strategy: each thread takes a row, serves it to its end (waits and tries included) and hands the result over; no more rows are
out than the window holds, so an endless input costs no more memory than a short one. Threads start with the first result that is
asked for. A row costs no lock that others wait for: who finds nothing to do sleeps on a bell of its own, and is rung. Stopping
lets what is in flight finish, and every call settles itself; a thread that the caller's own iterable keeps is left behind.
Must never know files, prompts or providers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from .errors import router_closed
from .map_crew import Crew
from .map_pacing import Pacer
from .map_serving import JobSettings, Row, RowServer, Served, Serves
from .meter import SystemClock
from .waiting import new_bell, ring

TICK_S = 0.25
"""Seconds after which whoever waits for a result looks up, for Ctrl-C and for a display."""
READ_S = 0.005
"""Seconds that the reading of an item mostly takes at most; who has to wait longer for it goes to sleep."""
BUSY_TICK_S = 0.02
"""As `TICK_S`, while rows come so fast that a few workers suffice: this soon it is noticed when they no longer do."""
BUSY_CHUNK = 16
"""How many results are handed over at once then, as waking a thread costs as much as many rows."""
SOON_S, LATE_S = 0.002, 0.005
"""Where results come more often than the first, more of them are handed over at once, none later than the second."""
LEFT_S = 0.5
"""Seconds that `join` gives to a thread that is inside of the caller's iterable, which nothing can wake."""

T = TypeVar("T")
_NOTHING: Any = object()


class Workers:
    """The threads of one job. `begin` starts them; `next` gives results as they come; `stop` takes no new rows.

    `items` is read by one thread at a time, so it had better be quick; `row_of` makes rows of what it gives, in many.
    `stopped`: why the job took no more rows: "" while it runs or at the end of its rows, "spent", "until" or "stopped".
    `retry_at`: epoch seconds when a slot is free again, where it stopped for want of one.
    """

    def __init__(self, router: Serves, items: Iterator[T], row_of: Callable[[T], Row], settings: JobSettings) -> None:
        self._items: Iterator[Any] = items
        self._row_of: Callable[[Any], Row] = row_of
        self._settings = settings
        self._ends = settings.until is not None
        self._clock = router.clock
        self._room = router.waiting
        self._lock = threading.RLock()
        self._pacer = Pacer(router.clock, self._lock, self._woken, self._ended_by_waiting, router.waiting)
        self._server = RowServer(router, settings, self._pacer, self._lock)
        own_clock = isinstance(router.clock, SystemClock)
        self._crew = Crew(settings.workers, SystemClock.computed if own_clock else None, router.clock.monotonic)
        # What `keep` has had may be counted a tick later: waking a thread for each row costs more than the row.
        # Others are handed over as they come, several at once where they come often, see `_await_enough`.
        self._enough = 1 if settings.keeper is None or not own_clock else (settings.window + 1) // 2
        self._adapts = settings.keeper is None and own_clock
        self._enough_busy = max(self._enough, min(BUSY_CHUNK, settings.window // 2))
        self._low = settings.window - min(settings.workers, settings.window // 2)  # rows out, when idle threads are called again
        self._threads: list[tuple[threading.Thread, threading.Lock]] = []
        self._began: set[int] = set()
        self._called_off = False
        self._idle: deque[threading.Lock] = deque()
        self._off: deque[threading.Lock] = deque()
        self._results: deque[Served] = deque()
        self._arrived = new_bell()
        self._awaited = False
        self._reading = threading.Lock()
        self._reader: threading.Lock | None = None
        self._exhausted = False
        self._read = 0
        self._done = 0
        self._live = 0
        self._fault: BaseException | None = None
        self.stopped = ""
        self.retry_at: float | None = None

    def begin(self) -> None:
        """Start the threads, once. Cut off, those that have not begun never will, and the job is stopped."""
        if self._threads:
            return
        try:
            self._start()
        except BaseException:
            self._call_off()
            raise

    def _start(self) -> None:
        with self._lock:
            if self._threads or self.stopped:
                return
            self._live = count = self._settings.workers
            self._pacer.awake = count + 1  # the one who asks for results may make room for rows
            bells = [new_bell() for _ in range(count)]
            self._threads = [
                (threading.Thread(target=self._work, args=(number, bell), name=f"inferrouter-map-{number}", daemon=True), bell)
                for number, bell in enumerate(bells)
            ]
        for _, bell in self._threads:
            self._room.admit(bell)
        for thread, _ in self._threads:
            thread.start()

    def _call_off(self) -> None:
        with self._lock:
            self._called_off = True
            missing = len(self._threads) - len(self._began) if self._threads else self._live
            self._live -= missing
            self._pacer.awake -= missing
        self.stop()

    def next(self, tick: Callable[[], object] | None = None) -> Served | None:
        """The next result, None when the last has been given. Raises what ended the job. `tick`: called while nothing comes."""
        results = self._results
        while True:
            if results:
                return results.popleft()
            if not self._over():
                self._await_result()
                if tick is not None and not results:
                    tick()
            elif not results:  # what came before the last thread ended was seen above, or is now
                if self._fault is not None:
                    fault, self._fault = self._fault, None
                    raise fault
                return None

    def ready(self) -> Served | None:
        """The next result if there is one already."""
        try:
            return self._results.popleft()
        except IndexError:
            return None

    def taken(self) -> None:
        """The one who asked for a result has done with it: there is room for another row."""
        self._done += 1
        if self._idle and self._read - self._done <= self._low:
            self._call_reader()

    def stop(self, why: str = "stopped", retry_at: float | None = None) -> None:
        """Take no more rows; what waits for a slot gives up, what is in flight goes on to its end."""
        with self._lock:
            self._pacer.stop()
            if not self.stopped:
                self.stopped, self.retry_at = why, retry_at
            for bell in (*self._idle, *self._off, self._arrived):
                ring(bell)

    def join(self) -> None:
        """Wait until every call has ended and settled. Called after `stop`, or when the last result was given."""
        reader = self._reader  # nobody else begins to read now, see `_take`
        current = threading.current_thread()
        late = None
        for number, (thread, bell) in enumerate(self._threads):
            if self._called_off and number not in self._began:
                continue
            if bell is reader:
                late = thread
            elif thread is not current:
                thread.join()
        if late is not None and late is not current:
            late.join(LEFT_S)

    @property
    def in_flight(self) -> int:
        """Rows that are being asked now."""
        return self._pacer.in_flight

    def next_look(self) -> tuple[float, str] | None:
        """When the first row that waits looks again, in epoch seconds, and whom it waits for; None while rows are asked."""
        with self._lock:
            return None if self._pacer.in_flight else self._pacer.next_look()

    def _work(self, number: int, bell: threading.Lock) -> None:
        with self._lock:
            if self._called_off:
                return
            self._began.add(number)
        row_of, serve, keeper, results, crew = self._row_of, self._server.serve, self._settings.keeper, self._results, self._crew
        off, half = self._off, self._settings.workers // 2
        at_work, computed = crew.at_work, crew.did(-1.0)
        try:
            while (item := self._take(number, bell)) is not _NOTHING:
                result = serve(row_of(item))
                if result is None:  # the job has stopped
                    break
                if keeper is not None:
                    keeper.keep(result, half if len(off) >= half else 0)
                results.append(result)
                if self._awaited and len(results) >= (self._enough_busy if crew.busy else self._enough):
                    self._awaited = False
                    ring(self._arrived)
                computed = crew.did(computed)
                if at_work != crew.at_work:
                    at_work = crew.at_work
                    self._call_crew()
            self._flush()
        except BaseException as exc:
            self._fail(exc)
        finally:
            self._room.dismiss(bell)
            with self._lock:
                self._live -= 1
                ring(self._arrived)
                self._pacer.step_aside()

    def _take(self, number: int, bell: threading.Lock) -> Any:
        """The next item, read by one thread at a time as long as there is room for it; `_NOTHING` when there are no more."""
        reading, window = self._reading, self._settings.window
        while not (self.stopped or self._exhausted):
            if self._room.closed:
                raise router_closed()
            if number >= self._crew.at_work:
                self._be_off(number, bell)
                continue
            if reading.acquire(True, READ_S):
                try:
                    self._reader = bell  # before the look at `stopped`: `join` looks the other way round
                    if self._read - self._done < window and not (self._ends and self._too_late()) and not self.stopped:
                        item = next(self._items, _NOTHING)
                        if item is _NOTHING:
                            self._exhausted = True
                        self._read += 1
                        return item
                finally:
                    self._reader = None
                    reading.release()
                    if self._idle and (self._read - self._done < window or self._exhausted or self.stopped):
                        self._call_reader()
            self._flush()
            self._sleep(bell, self._idle, self._may_read)
        self._call_reader()  # that it is over
        self._call_crew()
        return _NOTHING

    def _be_off(self, number: int, bell: threading.Lock) -> None:
        """Sleep until more workers are wanted. Those who sleep look up now and then, one of them often: if no row was done
        meanwhile, more are wanted."""
        crew = self._crew
        if self._idle and self._may_read():  # this one may have been called to read
            self._call_reader()
        done = crew.done
        self._sleep(bell, self._off, lambda: number < crew.at_work, BUSY_TICK_S if number == crew.at_work else TICK_S)
        self._flush()
        if number >= crew.at_work and done == crew.done and not (self.stopped or self._exhausted):
            crew.more_hands()
            self._call_crew()

    def _sleep(
        self, bell: threading.Lock, among: deque[threading.Lock], may_go_on: Callable[[], bool], seconds: float = -1.0
    ) -> None:
        """Sleep `among` others until one may go on, the job has ended, or `seconds` have passed."""
        with self._lock:
            among.append(bell)
            self._pacer.step_aside()
        try:
            if not (self.stopped or self._exhausted or may_go_on() or self._room.closed):
                bell.acquire(timeout=seconds)
        finally:
            with self._lock:
                among.remove(bell)
                self._pacer.awake += 1

    def _flush(self) -> None:
        if self._settings.keeper is not None:
            self._settings.keeper.flush()

    def _call_crew(self) -> None:
        """Ring those who had nothing to do, as there may be more to do than before, or nothing ever again."""
        for bell in tuple(self._off):
            ring(bell)

    def _may_read(self) -> bool:
        """Somebody has done with the input, and there is room."""
        return self._read - self._done < self._settings.window and not self._reading.locked()

    def _call_reader(self) -> None:
        """Ring one who is idle. It rings another when it has read a row, so that none is forgotten."""
        try:
            ring(self._idle[0])
        except IndexError:  # it has gone meanwhile, and looks by itself
            return

    def _too_late(self) -> bool:
        if self._clock.time() < (self._settings.until or 0.0):
            return False
        self.stop("until")
        return True

    def _await_result(self) -> None:
        """Sleep until a result has come, the job has ended, or for a tick."""
        with self._lock:
            self._awaited = True
            self._pacer.step_aside()
        try:
            if not self._results and not self._over():
                if self._crew.busy:
                    self._arrived.acquire(timeout=BUSY_TICK_S)
                    if self._crew.busy and not self._results:
                        self._crew.more_hands()
                        self._call_crew()
                elif self._adapts:
                    self._await_enough()
                else:
                    self._arrived.acquire(timeout=TICK_S)
        finally:
            with self._lock:
                self._awaited = False
                self._pacer.awake += 1
        if self._room.closed and not self.stopped and not self._exhausted:
            self._fail(router_closed())

    def _await_enough(self) -> None:
        began = self._clock.monotonic()
        self._arrived.acquire(timeout=TICK_S if self._enough == 1 else LATE_S)
        took = self._clock.monotonic() - began
        if took < SOON_S:
            self._enough = min(2 * self._enough, self._enough_busy)
        elif took >= LATE_S:
            self._enough = max(self._enough // 2, 1)

    def _over(self) -> bool:
        """Whether no more results come. A thread that a stopped job left inside of the caller's iterable brings none."""
        return self._live <= (1 if self.stopped and self._reader is not None else 0)

    def _fail(self, fault: BaseException) -> None:
        with self._lock:
            if self._fault is None:
                self._fault = fault
            self.stop()

    def _woken(self) -> bool:
        """Whether a thread that waits for a result or for the input has what it waits for and has not run since."""
        if self._off and not (self.stopped or self._exhausted):  # who is off may find a row that can be served
            self._crew.more_hands()
            self._call_crew()
            return True
        over = bool(self.stopped) or self._exhausted
        return bool(self._results) or bool(self._idle and (over or self._may_read()))

    def _ended_by_waiting(self, at: float) -> bool:
        """Called by the pacer while nothing is in flight and no slot is free before `at`: whether the job ends by that."""
        settings = self._settings
        if settings.until is not None and at >= settings.until:
            self.stop("until", at)
        elif settings.spent_s is not None and at - self._clock.time() > settings.spent_s:
            self.stop("spent", at)
        return bool(self.stopped)
