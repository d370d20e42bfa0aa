"""Serves one row of a job to its end: asks, waits for slots, tries again, and says how it ended.

Strategy: what an error means stands in `map_errors`, long waits in `map_pacing`; here is the loop between them, and what the rows
of a job know together: whether anything was ever answered, since when nothing was, how often the store failed in a row.
Called by many threads at once. Must never start a thread, nor know where rows come from or go to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

from .errors import InferRouterError, InvalidRequestError
from .frozen import field, frozen_value, quick, replace
from .map_errors import Judgement, Meaning, backoff, heard_busy, judge, waited_for
from .map_pacing import Pacer, Turn
from .meter import Clock, SystemClock
from .records import ChatRequest, EmbedRequest, Message
from .waiting import WaitingRoom

STORE_TRIES = 6
"""How often in a row the quota store may fail, with pauses of half a second that double, before the job ends."""
MAX_UNSERVED = 10
"""How many rows may fail by their providers before the first answer of all; then the job ends, as nothing seems to work."""
LONGEST_OUTAGE_S = 6 * 3600.0
"""Seconds without an answer, with providers failing, after which a job ends."""
PATIENCE_S = 2.0
"""Seconds that a call may wait within the router; a longer wait is the job's, which can be stopped and shown."""
MAX_REFUSED_KEYS = 100
"""How many accounts may refuse their keys while one row is served."""


class Serves(Protocol):
    """What a job needs of a router."""

    @property
    def clock(self) -> Clock: ...
    @property
    def waiting(self) -> WaitingRoom: ...
    def chat_completion(self, request: ChatRequest, *, timeout: float | None = None, max_wait: float | None = None) -> Any: ...
    def embed(self, request: EmbedRequest, *, timeout: float | None = None, max_wait: float | None = None) -> Any: ...
    def explain(self, request: ChatRequest) -> Any: ...
    def model_names(self) -> tuple[str, ...]: ...


class Keeps(Protocol):
    """Where the results of a job are kept. Called by many threads."""

    def keep(self, served: Served, spare: int) -> None:
        """Keep it. That may be put off until more than `spare` wait for it: at most as many as workers are off, and who is off
        calls `flush` before it takes a row. So no more rows than there are workers are asked but not kept."""

    def flush(self) -> None:
        """Put nothing off any longer."""


@frozen_value
class JobSettings:
    """How a job runs. `workers`: rows in flight at most; `window`: rows that are out at most; `timeout`: seconds a call may take,
    None: the router's; `tries`: how often a row may fail by its provider; `until`: epoch seconds after which no row begins, None:
    no end; `spent_s`: the longest wait for a slot, in seconds, before the job stops; None: it waits.
    `check`: raises for an answer that will not do. `keeper`: gets each result in the thread that served it, before that takes
    another row.
    """

    workers: int
    window: int
    timeout: float | None = None
    tries: int = 3
    until: float | None = None
    spent_s: float | None = None
    check: Callable[[Any, Any], object] | None = field(default=None, repr=False)
    keeper: Keeps | None = field(default=None, repr=False)


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
    """How a row ended: with one of `response` and `error`. `tries`: how often a provider was asked for it in vain, and once.
    `at`: when it ended, in epoch seconds."""

    row: Row
    response: Any
    error: InferRouterError | None
    tries: int
    at: float


# What each row makes.
new_row = quick(Row)
_answered = quick(Served)


class RowServer:
    """Serves rows, each by the thread that calls `serve`. `lock` is the job's."""

    def __init__(self, router: Serves, settings: JobSettings, pacer: Pacer, lock: threading.RLock) -> None:
        self._router = router
        self._settings = settings
        self._pacer = pacer
        self._lock = lock
        self._clock = router.clock
        # Short waits are the walk's own, where the router's other callers stand in line too; but to stand in line costs a little,
        # so nobody does before the first row had to wait. A simulated clock is slept on by the pacer alone.
        self._patience = PATIENCE_S if isinstance(router.clock, SystemClock) else 0.0
        self._lines_up = False
        self._served = self._heard_busy = False
        self._unserved = 0
        self._outage_since: float | None = None
        self._store_failures = 0

    def serve(self, row: Row) -> Served | None:
        """The row's result; None if the job stopped before it had one. Raises what ends the job."""
        request = row.request
        if request is None:
            return self._given_up(row, row.error, 1)
        turn = self._pacer.enter(request.model)
        if turn is None:
            return None
        try:
            return self._result(row, request, turn)
        finally:
            self._pacer.leave(turn)

    def _result(self, row: Row, request: ChatRequest | EmbedRequest, turn: Turn) -> Served | None:
        failures, refused_keys, busy = 0, 0, 0
        while True:
            lined_up = self._lines_up
            answer, error = self._asked(row, request, self._patience if lined_up else 0.0)
            if error is None:
                if not self._served or self._outage_since is not None or self._store_failures:
                    self._note_success()
                return _answered(row, answer, None, failures + 1, self._clock.time())
            meaning, at = self._judged(row, error)
            if meaning is Meaning.ROW:
                return self._given_up(row, error, failures + 1)
            if meaning is Meaning.JOB:
                raise error
            if meaning is Meaning.WAIT and not lined_up and self._patience:
                self._lines_up = True
                continue
            now = self._clock.time()
            if meaning is Meaning.WAIT:
                go_on = self._pacer.wait(turn, now if at is None else max(at, now + 0.001), waited_for(error))
            else:
                failures += meaning is Meaning.TRY
                refused_keys += meaning is Meaning.AGAIN
                if refused_keys > MAX_REFUSED_KEYS or failures >= self._settings.tries:
                    self._note_failure(error)
                    return self._given_up(row, error, max(failures, 1))
                busy += meaning is Meaning.BUSY
                pause = self._pause(meaning, busy if meaning is Meaning.BUSY else failures)
                go_on = self._pacer.rest(turn, now + pause)
            if not go_on:
                return None

    def _asked(self, row: Row, request: ChatRequest | EmbedRequest, max_wait: float) -> tuple[Any, InferRouterError | None]:
        settings = self._settings
        try:
            answer: Any
            if isinstance(request, EmbedRequest):
                answer = self._router.embed(request, timeout=settings.timeout, max_wait=max_wait)
            else:
                answer = self._router.chat_completion(request, timeout=settings.timeout, max_wait=max_wait)
            if settings.check is not None:
                settings.check(row.item, answer)
            return answer, None
        except InferRouterError as exc:
            return None, exc

    def _judged(self, row: Row, error: InferRouterError) -> Judgement:
        self._heard_busy = self._heard_busy or heard_busy(error)
        found = judge(error, row.own_model, self._served or self._heard_busy)
        if found.meaning is Meaning.PROBE:
            return Judgement(Meaning.ROW if self._another_would_do(row) else Meaning.JOB)
        if found.meaning is Meaning.STORE:
            with self._lock:
                self._store_failures += 1
                return Judgement(Meaning.STORE if self._store_failures < STORE_TRIES else Meaning.JOB)
        failing = found.meaning in (Meaning.TRY, Meaning.BUSY)
        if failing or (found.meaning is Meaning.WAIT and self._outage_since is not None):
            with self._lock:
                now = self._clock.time()
                if self._outage_since is None:
                    self._outage_since = now
                known = self._served or self._heard_busy
                if known and now - self._outage_since > LONGEST_OUTAGE_S and failing:
                    return Judgement(Meaning.JOB)
        return found

    def _another_would_do(self, row: Row) -> bool:
        """Whether the smallest request to its model could be served, now or later: then it is this row that cannot. A row with a
        model of its own says nothing of those to others."""
        assert row.request is not None
        if self._could_serve(row.request.model):
            return True
        if not row.own_model and not isinstance(row.request, EmbedRequest):
            return False
        return self._served or any(map(self._could_serve, self._router.model_names()))

    def _could_serve(self, model: str) -> bool:
        try:
            found = self._router.explain(ChatRequest("?", model, max_tokens=1))
        except InferRouterError:
            return False
        return bool(found.candidates) or any(each.retry_at is not None for each in found.rejections)

    def _pause(self, meaning: Meaning, failures: int) -> float:
        if meaning is Meaning.AGAIN:
            return 0.001
        return backoff(self._store_failures if meaning is Meaning.STORE else failures)

    def _note_success(self) -> None:
        with self._lock:
            self._served, self._outage_since, self._store_failures = True, None, 0

    def _given_up(self, row: Row, error: InferRouterError | None, tries: int) -> Served:
        return Served(row, None, error, tries, self._clock.time())

    def _note_failure(self, error: InferRouterError) -> None:
        """A row was given up because of its providers. Raises `error` when nothing has ever worked."""
        with self._lock:
            self._unserved += 1
            if not self._served and self._unserved > MAX_UNSERVED:
                raise error


_asked, _turn = quick(ChatRequest, checked=True), quick(Message, checked=True)


def request_of(item: Any, model: str) -> ChatRequest | EmbedRequest:
    """What `item` asks: a request as it is, or a string, a message, a list of messages. Raises `InvalidRequestError`."""
    if type(item) is str and type(model) is str:  # as in most jobs: nothing that a request would check
        return _asked((_turn("user", item),), model)
    if isinstance(item, (ChatRequest, EmbedRequest)):
        if item.model or not model:
            return item
        return replace(item, model=model)
    return ChatRequest(item, model)


def row_of(numbered: tuple[int, Any], model: str) -> Row:
    """An item and its place as a row; what cannot be a request is a row with its error."""
    index, item = numbered
    try:
        own = bool(getattr(item, "model", "")) and item.model != model
        return new_row(index, item, request_of(item, model), None, own)
    except InvalidRequestError as exc:
        return Row(index, item, None, exc)
