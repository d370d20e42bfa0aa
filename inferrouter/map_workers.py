"""Runs the rows of a job in a few threads: lazily read, bounded in memory, stopped in good order.

Strategy: each thread takes a row, serves it to its end (waits and tries included) and hands the result over; no more rows are
out than the window holds, so an endless input costs no more memory than a short one. Threads start with the first result that is
asked for. Stopping lets what is in flight finish, and every call settles itself. Must never know files, prompts or providers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import field
from typing import Any, Protocol

from .errors import InferRouterError, InvalidRequestError
from .frozen import frozen_value
from .map_errors import Judgement, Meaning, backoff, judge
from .map_pacing import Pacer
from .meter import Clock
from .records import ChatRequest, EmbedRequest

STORE_TRIES = 6
"""How often in a row the quota store may fail, with pauses of half a second that double, before the job ends."""
MAX_UNSERVED = 10
"""So many rows may fail by their providers before the first answer of all; then the job ends, as nothing seems to work."""
LONGEST_OUTAGE_S = 6 * 3600.0
"""Seconds without an answer, with providers failing, after which a job ends."""
MAX_REFUSED_KEYS = 100
"""So many accounts may refuse their keys while one row is served."""
TICK_S = 0.25
"""Seconds after which whoever waits for a result looks up, for Ctrl-C and for a display."""


class Serves(Protocol):
    """What a job needs of a router."""

    @property
    def clock(self) -> Clock: ...
    def chat_completion(self, request: ChatRequest, *, timeout: float | None = None, max_wait: float | None = None) -> Any: ...
    def embed(self, request: EmbedRequest, *, timeout: float | None = None, max_wait: float | None = None) -> Any: ...
    def explain(self, request: ChatRequest) -> Any: ...


@frozen_value
class JobSettings:
    """How a job runs. `workers`: rows in flight at most; `window`: rows that are out at most; `timeout`: seconds a call may take,
    None: the router's; `tries`: how often a row may fail by its provider; `until`: epoch seconds after which no row begins, None:
    no end; `spent_s`: the longest wait for a slot, in seconds, before the job stops; None: it waits.
    `check`: raises for an answer that will not do.
    """

    workers: int
    window: int
    timeout: float | None = None
    tries: int = 3
    until: float | None = None
    spent_s: float | None = None
    check: Callable[[Any, Any], object] | None = field(default=None, repr=False)


@frozen_value
class Row:
    """One thing to be asked. `own_model`: it names its model itself."""

    index: int
    item: Any
    request: ChatRequest | EmbedRequest | None
    error: InferRouterError | None = None
    own_model: bool = False


@frozen_value
class Served:
    """How a row ended: with one of `response` and `error`. `tries`: how often a provider was asked for it in vain, and once."""

    row: Row
    response: Any = None
    error: InferRouterError | None = None
    tries: int = 1


class Workers:
    """The threads of one job. `begin` starts them; `next` gives results as they come; `stop` takes no new rows.

    `stopped`: why the job took no more rows: "" while it runs or at the end of its rows, "spent", "until" or "stopped".
    `retry_at`: epoch seconds when a slot is free again, where it stopped for want of one.
    """

    def __init__(self, router: Serves, rows: Iterator[Row], settings: JobSettings) -> None:
        self._router = router
        self._rows = rows
        self._settings = settings
        self._clock = router.clock
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._arrived = threading.Condition(self._lock)
        self._pacer = Pacer(router.clock, self._lock, self._woken, self._ended_by_waiting)
        self._threads: list[threading.Thread] = []
        self._results: deque[Served] = deque()
        self._reading = threading.Lock()
        self._out = 0
        self._without_room = 0
        self._live = 0
        self._served = False
        self._unserved = 0
        self._outage_since: float | None = None
        self._store_failures = 0
        self._fault: BaseException | None = None
        self.in_flight = 0
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
    def waiting_until(self) -> float | None:
        """Epoch seconds when the first row that waits looks for a slot again; None: no row waits, or some are in flight."""
        with self._lock:
            return self._pacer.waiting_until if not self.in_flight else None

    def _work(self) -> None:
        try:
            while True:
                row = self._take()
                if row is None:
                    return
                result = self._serve(row)
                with self._lock:
                    if result is None:
                        self._out -= 1
                    else:
                        self._results.append(result)
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

    def _serve(self, row: Row) -> Served | None:
        """The row's result; None if the job stopped before it had one."""
        if row.request is None:
            return Served(row, error=row.error)
        turn = self._pacer.enter(row.request.model)
        if turn is None:
            return None
        failures, refused_keys = 0, 0
        while True:
            answer, error = self._asked(row, row.request)
            if error is None:
                self._pacer.leave(turn)
                self._note_success()
                return Served(row, answer, tries=failures + 1)
            meaning, at = self._judged(row, error)
            if meaning is Meaning.ROW:
                self._pacer.leave(turn)
                return Served(row, error=error, tries=failures + 1)
            if meaning is Meaning.JOB:
                self._pacer.leave(turn)
                raise error
            now = self._clock.time()
            if meaning is Meaning.WAIT:
                go_on = self._pacer.wait(turn, now if at is None else max(at, now + 0.001))
            else:
                failures += meaning is Meaning.TRY
                refused_keys += meaning is Meaning.AGAIN
                if refused_keys > MAX_REFUSED_KEYS or failures >= self._settings.tries:
                    self._pacer.leave(turn)
                    self._note_failure(error)
                    return Served(row, error=error, tries=max(failures, 1))
                go_on = self._pacer.rest(turn, now + (0.001 if meaning is Meaning.AGAIN else self._pause(meaning, failures)))
            if not go_on:
                return None

    def _asked(self, row: Row, request: ChatRequest | EmbedRequest) -> tuple[Any, InferRouterError | None]:
        with self._lock:
            self.in_flight += 1
        try:
            timeout = self._settings.timeout
            answer: Any
            if isinstance(request, EmbedRequest):
                answer = self._router.embed(request, timeout=timeout, max_wait=0.0)
            else:
                answer = self._router.chat_completion(request, timeout=timeout, max_wait=0.0)
            if self._settings.check is not None:
                self._settings.check(row.item, answer)
            return answer, None
        except InferRouterError as exc:
            return None, exc
        finally:
            with self._lock:
                self.in_flight -= 1

    def _judged(self, row: Row, error: InferRouterError) -> Judgement:
        found = judge(error, row.own_model, self._served)
        if found.meaning is Meaning.PROBE:
            return Judgement(Meaning.ROW if self._another_would_do(row, error) else Meaning.JOB)
        if found.meaning is Meaning.STORE:
            with self._lock:
                self._store_failures += 1
                return Judgement(Meaning.STORE if self._store_failures < STORE_TRIES else Meaning.JOB)
        if found.meaning is Meaning.TRY or (found.meaning is Meaning.WAIT and self._outage_since is not None):
            with self._lock:
                now = self._clock.time()
                if self._outage_since is None:
                    self._outage_since = now
                if self._served and now - self._outage_since > LONGEST_OUTAGE_S and found.meaning is Meaning.TRY:
                    return Judgement(Meaning.JOB)
        return found

    def _another_would_do(self, row: Row, error: InferRouterError) -> bool:
        """Whether the smallest request of that model could be served, now or later: then it is this row that cannot."""
        assert row.request is not None
        if isinstance(row.request, EmbedRequest) or row.own_model:
            return True
        try:
            found = self._router.explain(ChatRequest("?", row.request.model, max_tokens=1))
        except InferRouterError:
            return False
        return bool(found.candidates) or any(each.retry_at is not None for each in found.rejections)

    def _pause(self, meaning: Meaning, failures: int) -> float:
        return backoff(self._store_failures if meaning is Meaning.STORE else failures)

    def _note_success(self) -> None:
        if not self._served or self._outage_since is not None or self._store_failures:
            with self._lock:
                self._served, self._outage_since, self._store_failures = True, None, 0

    def _note_failure(self, error: InferRouterError) -> None:
        """A row was given up because of its providers. Raises `error` when nothing has ever worked."""
        with self._lock:
            self._unserved += 1
            if not self._served and self._unserved > MAX_UNSERVED:
                raise error

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


def request_of(item: Any, model: str) -> ChatRequest | EmbedRequest:
    """What `item` asks: a request as it is, or a string, a message, a list of messages. Raises `InvalidRequestError`."""
    if isinstance(item, (ChatRequest, EmbedRequest)):
        if item.model or not model:
            return item
        from dataclasses import replace

        return replace(item, model=model)
    return ChatRequest(item, model)


def row_of(index: int, item: Any, model: str) -> Row:
    """`item` as a row; what cannot be a request is a row with its error."""
    try:
        own = bool(getattr(item, "model", "")) and item.model != model
        return Row(index, item, request_of(item, model), None, own)
    except InvalidRequestError as exc:
        return Row(index, item, None, exc)
