"""Serves many requests in blocking code: `for result in router.map(prompts): ...`, paced by the limits.

Strategy: an iterator over results; the threads behind it start with the first one asked for and end with `close`. A row's error
is its result; only what would hit every row is raised. Ctrl-C once lets what is in flight finish, twice ends at once.
Must never know files or prompts, nor use more of a router than a program could.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from math import inf
from types import TracebackType
from typing import Any, Self

from .errors import InferRouterError, InvalidRequestError
from .frozen import frozen_value, quick
from .map_serving import JobSettings, Served, Serves, row_of
from .map_workers import Workers
from .records import ChatRequest, EmbedRequest
from .responses import ChatResponse, EmbedResponse

SPENT_S = 300.0
"""Seconds: a job that stops when free capacity is spent still waits for a slot that is no further away."""
MAX_WORKERS = 256


@frozen_value
class MapResult:
    """What became of one request: `response`, or `error`; the other is None.

    `index`: its place in the input, from 0. `request`: what was asked, None if `item`, which was given, could not be a request.
    `tries`: how often it was asked at most; waiting for a slot is not a try.
    """

    index: int
    request: ChatRequest | EmbedRequest | None
    response: ChatResponse | EmbedResponse | None
    error: InferRouterError | None
    item: Any = None
    tries: int = 1

    @property
    def ok(self) -> bool:
        """Whether there is a response."""
        return self.error is None

    @property
    def text(self) -> str:
        """The answer's text, "" where there is none."""
        return self.response.text if isinstance(self.response, ChatResponse) else ""


_result = quick(MapResult)


class MapRun(Iterator[MapResult]):
    """The results of `Router.map`. Used by one thread; a context manager.

    `stopped`: why it ended before the last row: "" (it did not), "spent", "until" or "stopped". `retry_at`: epoch seconds when
    to come back, where it stopped for want of a slot. `done` and `failed`: results so far.
    """

    def __init__(self, workers: Workers, ordered: bool) -> None:
        self._workers = workers
        self._ordered = ordered
        self._early: dict[int, Served] = {}
        self._next = 0
        self._ended = False
        self._interrupted: KeyboardInterrupt | None = None
        self.done = 0
        self.failed = 0

    @property
    def stopped(self) -> str:
        """See the class."""
        return self._workers.stopped

    @property
    def retry_at(self) -> float | None:
        """See the class."""
        return self._workers.retry_at

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MapResult:
        """The next result. Raises what no row could be served with: `AuthenticationError` and its like, `QuotaStoreError` ..."""
        if self._ended:
            raise StopIteration
        self._workers.begin()
        try:
            served = self._ordered_next() if self._ordered else self._arrived()
        except BaseException:
            self._ended = True
            self._workers.stop()
            raise
        if served is None:
            self._ended = True
            self._workers.join()
            if self._interrupted is not None:
                raise self._interrupted
            raise StopIteration
        self._workers.taken()
        row, error = served.row, served.error
        if error is None:
            self.done += 1
        else:
            self.failed += 1
        return _result(row.index, row.request, served.response, error, row.item, served.tries)

    def stop(self) -> None:
        """Take no more rows; go on iterating for what is in flight."""
        self._workers.stop()

    def close(self) -> None:
        """Take no more rows, and wait until every call in flight has ended and settled. May be called twice.

        A thread that your own iterable keeps waiting is left behind after half a second; what it reads then is not asked.
        """
        self._ended = True
        self._workers.stop()
        self._workers.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        workers = getattr(self, "_workers", None)
        if workers is not None and not self._ended:
            workers.stop()

    def _arrived(self) -> Served | None:
        """The next that comes. The first Ctrl-C stops the job and is raised after its last result; a second one at once."""
        while True:
            try:
                return self._workers.next()
            except KeyboardInterrupt as exc:
                if self._interrupted is not None:
                    raise
                self._interrupted = exc
                self._workers.stop()

    def _ordered_next(self) -> Served | None:
        while True:
            if self._next in self._early:
                self._next += 1
                return self._early.pop(self._next - 1)
            served = self._arrived()
            if served is not None and served.row.index == self._next:
                self._next += 1
                return served
            if served is None:  # a stopped job leaves gaps
                self._next = min(self._early, default=self._next)
                if not self._early:
                    return None
                continue
            self._early[served.row.index] = served


def run_map(
    router: Serves,
    requests: Iterable[Any],
    *,
    model: str = "",
    workers: int = 8,
    ordered: bool = True,
    timeout: float | None = None,
    tries: int = 3,
    until: float | datetime | None = None,
    stop_when_spent: bool | float = False,
) -> MapRun:
    """What `Router.map` returns. Raises `InvalidRequestError` for a wrong setting; nothing of `requests` is read before."""
    settings = job_settings(workers, timeout, tries, until, stop_when_spent)
    if not isinstance(model, str):
        raise InvalidRequestError(message=f'model is a name, "" for the default, not {model!r}')
    if not isinstance(ordered, bool):
        raise InvalidRequestError(message=f"ordered is True or False, not {ordered!r}")
    if isinstance(requests, (str, bytes, Mapping)) or not isinstance(requests, Iterable):
        raise InvalidRequestError(message=f"map takes an iterable of prompts or requests, not {type(requests).__name__}")

    return MapRun(Workers(router, _numbered(requests), lambda numbered: row_of(numbered, model), settings), ordered)


def job_settings(
    workers: int,
    timeout: float | None,
    tries: int,
    until: float | datetime | None,
    stop_when_spent: bool | float,
) -> JobSettings:
    """The settings of a job. Raises `InvalidRequestError` naming what is wrong."""
    for name, count, most in (("workers", workers, MAX_WORKERS), ("tries", tries, 1000)):
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most:
            raise InvalidRequestError(message=f"{name} is a whole number from 1 to {most}, not {count!r}")
    spent = SPENT_S if stop_when_spent is True else None
    if not isinstance(stop_when_spent, bool):
        spent = _number("stop_when_spent", stop_when_spent, "True, False or a number of seconds of at least 0")
    limit = None if timeout is None else _number("timeout", timeout, "a number of seconds of at least 0, or None")
    return JobSettings(workers, max(4 * workers, 16), limit, tries, None if until is None else _moment(until), spent)


def _numbered(requests: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """As `enumerate`, but nothing of the caller's runs before the first is asked for."""
    yield from enumerate(requests)


def _moment(until: float | datetime) -> float:
    """Epoch seconds of `until`."""
    what = "a datetime after 1970 or epoch seconds, or None"
    if not isinstance(until, datetime):
        return _number("until", until, what)
    try:
        return _number("until", until.timestamp(), what)
    except (ValueError, OverflowError, OSError):  # outside of what this platform's clock and zones can say
        if until.year > 9000:
            return inf
        raise InvalidRequestError(message=f"until is {what}, not {until!r}") from None


def _number(name: str, given: float, what: str) -> float:
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not given >= 0:
        raise InvalidRequestError(message=f"{name} is {what}, not {given!r}")
    try:
        return float(given)
    except OverflowError:
        raise InvalidRequestError(message=f"{name} is {what}, and this number is too large") from None
