"""Runs the rows of a job in a few threads: lazily read, bounded in memory, stopped in good order.

Strategy: each thread takes a row, serves it to its end (waits and tries included) and hands the result over; no more rows are
out than the window holds, so an endless input costs no more memory than a short one. Threads start with the first result that is
asked for. Stopping lets what is in flight finish, and every call settles itself. Must never know files, prompts or providers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator

from .map_pacing import Pacer
from .map_serving import JobSettings, Row, RowServer, Served, Serves
from .meter import SystemClock

TICK_S = 0.25
"""Seconds after which whoever waits for a result looks up, for Ctrl-C and for a display."""


class Workers:
    """The threads of one job. `begin` starts them; `next` gives results as they come; `stop` takes no new rows.

    `stopped`: why the job took no more rows: "" while it runs or at the end of its rows, "spent", "until" or "stopped".
    `retry_at`: epoch seconds when a slot is free again, where it stopped for want of one.
    """

    def __init__(self, router: Serves, rows: Iterator[Row], settings: JobSettings) -> None:
        self._rows = rows
        self._settings = settings
        self._clock = router.clock
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._arrived = threading.Condition(self._lock)
        self._pacer = Pacer(router.clock, self._lock, self._woken, self._ended_by_waiting)
        self._server = RowServer(router, settings, self._pacer, self._lock)
        # What `keep` has had may be counted a tick later: waking a thread for each row costs more than the row.
        self._eager = settings.keep is None or not isinstance(router.clock, SystemClock)
        self._threads: list[threading.Thread] = []
        self._results: deque[Served] = deque()
        self._reading = threading.Lock()
        self._out = 0
        self._without_room = 0
        self._live = 0
        self._fault: BaseException | None = None
        self.stopped = ""
        self.retry_at: float | None = None

    def begin(self) -> None:
        """Start the threads, once."""
        with self._lock:
            if self._threads or self.stopped:
                return
            count = self._settings.workers
            self._live = count
            self._pacer.awake = count + 1  # the one who asks for results may make room for rows
            self._threads = [
                threading.Thread(target=self._work, name=f"inferrouter-map-{number}", daemon=True) for number in range(count)
            ]
        for thread in self._threads:
            thread.start()

    def next(self, tick: Callable[[], object] | None = None) -> Served | None:
        """The next result, None when the last has been given. Raises what ended the job. `tick`: called while nothing comes."""
        while True:
            with self._lock:
                if not self._results and self._live:
                    self._pacer.step_aside()
                    try:
                        if not self._results and self._live:
                            self._arrived.wait(TICK_S)
                    finally:
                        self._pacer.awake += 1
                if self._results:
                    return self._results.popleft()
                if not self._live:
                    if self._fault is not None:
                        fault, self._fault = self._fault, None
                        raise fault
                    return None
            if tick is not None:
                tick()

    def taken(self) -> None:
        """The one who asked for a result has done with it: there is room for another row."""
        with self._lock:
            self._out -= 1
            self._room.notify()

    def stop(self, why: str = "stopped", retry_at: float | None = None) -> None:
        """Take no more rows; what waits for a slot gives up, what is in flight goes on to its end."""
        with self._lock:
            if not self.stopped:
                self.stopped, self.retry_at = why, retry_at
            self._pacer.stop()
            self._room.notify_all()
            self._arrived.notify_all()

    def join(self) -> None:
        """Wait until every call has ended and settled."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    @property
    def in_flight(self) -> int:
        """Rows that are being asked now."""
        return self._pacer.in_flight

    def next_look(self) -> tuple[float, str] | None:
        """When the first row that waits looks again, in epoch seconds, and whom it waits for; None while rows are asked."""
        with self._lock:
            return None if self._pacer.in_flight else self._pacer.next_look()

    def _work(self) -> None:
        try:
            while True:
                row = self._take()
                if row is None:
                    return
                result = self._server.serve(row)
                if result is not None and self._settings.keep is not None:
                    self._settings.keep(result)
                with self._lock:
                    if result is None:
                        self._out -= 1
                    else:
                        self._results.append(result)
                        if self._eager or len(self._results) * 2 >= self._settings.window:
                            self._arrived.notify()
        except BaseException as exc:
            with self._lock:
                if self._fault is None:
                    self._fault = exc
                self.stop()
        finally:
            with self._lock:
                self._live -= 1
                self._arrived.notify_all()
                self._pacer.step_aside()

    def _take(self) -> Row | None:
        with self._lock:
            if self._out >= self._settings.window:
                self._without_room += 1
                self._pacer.step_aside()
                try:
                    while self._out >= self._settings.window and not self.stopped:
                        self._room.wait()
                finally:
                    self._without_room -= 1
                    self._pacer.awake += 1
            if self._settings.until is not None and self._clock.time() >= self._settings.until:
                self.stop("until")
            if self.stopped:
                return None
            self._out += 1
        with self._reading:
            row = None if self.stopped else next(self._rows, None)
        if row is None:
            with self._lock:
                self._out -= 1
        return row

    def _woken(self) -> bool:
        """Whether a thread that waits for a result or for room has what it waits for and has not run since."""
        return bool(self._results) or (self._without_room > 0 and self._out < self._settings.window)

    def _ended_by_waiting(self, at: float) -> bool:
        """Called by the pacer while nothing is in flight and no slot is free before `at`: whether the job ends by that."""
        settings = self._settings
        if settings.until is not None and at >= settings.until:
            self.stop("until", at)
        elif settings.spent_s is not None and at - self._clock.time() > settings.spent_s:
            self.stop("spent", at)
        return bool(self.stopped)
