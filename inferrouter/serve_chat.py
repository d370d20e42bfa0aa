"""Runs one chat for a client: waits for its slot, sends the answer whole or as a stream, and ends it whichever way it goes.

Strategy: the router is asked with the client's own patience; a watch on the socket gives the call up when its client hangs up,
wherever it is: waiting, or with a provider, whose connection is then closed. A stream's head is held back until the answer
begins, so that a refusal still has a status of its own; if that takes long it is sent, and comments keep the connection alive. A
stream that a provider breaks off is told so and never ended cleanly. Must never know a wire format.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .costs import total_usage
from .errors import InferRouterError, StreamInterruptedError
from .frozen import frozen_value, replace
from .meter import Clock
from .records import Routing
from .responses import ChatResponse
from .serve_dialect import Asked, Body, Dialect, parse_body
from .serve_errors import Problem, problem_of
from .serve_http import Connection, Fields, Gone, Request
from .serve_log import Call, CallLog
from .serve_watch import Watch
from .waiting import CallCancelledError, Cancel
from .wire_json import write_json

if TYPE_CHECKING:
    from .stream import ChatStream

HOLD_BACK_S = 8.0
"""Seconds for which a stream's head is held back, so that a refusal can still be a status."""
PING_S = 10.0
"""Seconds of silence after which a stream is kept alive by a comment."""
MARGIN = 0.1
"""The share of a client's patience that is kept for the answer itself, at most 30 s of it."""
SHOWN_NAMES, SHOWN_NAME = 32, 64
"""How many of the parameters that were left out a header names, and characters of each."""
JSON = ("Content-Type", "application/json")
EVENTS: Fields = (("Content-Type", "text/event-stream; charset=utf-8"), ("X-Accel-Buffering", "no"))


@frozen_value
class Service:
    """What every call of an endpoint works with. `max_wait`: seconds a client waits that does not say how patient it is.

    `cancels`: those of the calls under way, which a stop throws. `stopping`: set once no new call may begin to wait.
    """

    router: Any
    clock: Clock
    log: CallLog
    watch: Watch
    max_wait: float
    cancels: dict[int, Cancel]
    stopping: threading.Event


class CallGuard:
    """Watches one call's client: throws `cancel` when it hangs up, and tells `on_gone`. A context manager."""

    def __init__(self, service: Service, connection: Connection, call: Call) -> None:
        self.cancel = Cancel(call.lined_up)
        self.gone = False
        self.on_gone: Callable[[], None] | None = None
        self.tick: Callable[[], None] | None = None
        self._service = service
        self._connection = connection
        self._call = call
        self._number = 0

    def __enter__(self) -> CallGuard:
        service = self._service
        service.cancels[self._call.number] = self.cancel
        if service.stopping.is_set():
            self.cancel.cancel()
        self._number = service.watch.add(self._connection.sock, self._left, self._ticked)
        return self

    def __exit__(self, *error: object) -> None:
        self._service.watch.remove(self._number)
        self._service.cancels.pop(self._call.number, None)

    def _left(self) -> None:
        self.gone = True
        self.cancel.hang_up()
        hook = self.on_gone
        if hook is not None:
            hook()

    def _ticked(self) -> None:
        hook = self.tick
        if hook is not None:
            hook()


def serve_chat(service: Service, dialect: Dialect, request: Request, connection: Connection, call: Call, extra: Fields) -> None:
    """Serve the chat in `request`; `extra`: headers of every answer. Raises `Gone`, and what is not an error of this library."""
    try:
        asked = dialect.read(parse_body(request.body))
        call.model, call.stream = asked.model, asked.stream
        with CallGuard(service, connection, call) as guard:
            if asked.stream:
                _Streaming(service, dialect, asked, connection, call, guard, extra).run(
                    patience_of(request.head.fields, service.max_wait)
                )
            else:
                _whole(service, dialect, asked, connection, call, guard, request, extra)
    except CallCancelledError as exc:
        if guard.gone:
            service.log.left(call)
            raise Gone from exc
        refuse(service, dialect.error, connection, call, stopping_problem(), extra)
    except InferRouterError as exc:
        refuse(service, dialect.error, connection, call, problem_of(exc, service.clock.time()), extra)


def refuse(
    service: Service,
    write: Callable[[Problem], Body],
    connection: Connection,
    call: Call,
    problem: Problem,
    extra: Fields,
) -> None:
    """Answer with `problem`, in the words of a dialect, and note it. Raises `Gone`."""
    service.log.end(call, "failed", problem.status, problem.message)
    body = write_json(write(problem))
    connection.answer(problem.status, (JSON, *problem.fields, *extra), body, problem.status == 413)


def stopping_problem() -> Problem:
    """What a call is told that waits while the endpoint stops."""
    said = "the endpoint is stopping: ask again in a moment"
    return Problem(503, "server_error", "stopping", said, fields=(("retry-after", "2"),))


def patience_of(fields: Mapping[str, str], default: float) -> tuple[float, float | None]:
    """Seconds a client may wait for a slot, and for the whole answer (None: it does not say), by its own headers."""
    for name in ("x-stainless-read-timeout", "x-stainless-timeout"):
        text = fields.get(name)
        if text is None:
            continue
        try:
            stated = float(text)
        except ValueError:
            continue
        if 0 < stated < 1e6:
            return stated - min(30.0, stated * MARGIN), stated
    return default, None


def routing_fields(routing: Routing, dropped: Sequence[str]) -> Fields:
    """The headers that tell who answered."""
    left_out = _named(dropped, routing.dropped) if dropped or routing.dropped else ""
    return (
        ("x-inferrouter-account", routing.account_id),
        ("x-inferrouter-provider", routing.provider),
        ("x-inferrouter-model", routing.model),
        ("x-inferrouter-attempts", str(routing.attempts)),
        ("x-inferrouter-free", "true" if routing.free else "false"),
        ("x-inferrouter-cost", f"{routing.cost:.8f}".rstrip("0").rstrip(".")),
        *((("x-inferrouter-dropped", left_out),) if left_out else ()),
    )


def _named(*dropped: Sequence[str]) -> str:
    """The names of what was left out, in a header that every client reads: many take none beyond a few KiB."""
    names = list(
        dict.fromkeys(name if len(name) <= SHOWN_NAME else f"{name[:SHOWN_NAME]}..." for each in dropped for name in each)
    )
    more = [f"and {len(names) - SHOWN_NAMES} more"] if len(names) > SHOWN_NAMES else []
    return ", ".join(names[:SHOWN_NAMES] + more)


def _whole(
    service: Service,
    dialect: Dialect,
    asked: Asked,
    connection: Connection,
    call: Call,
    guard: CallGuard,
    request: Request,
    extra: Fields,
) -> None:
    max_wait, timeout = patience_of(request.head.fields, service.max_wait)
    responses: list[ChatResponse] = []
    for _ in range(asked.copies):
        responses.append(service.router.chat_completion(asked.request, timeout=timeout, max_wait=max_wait, cancel=guard.cancel))
        routing = note(call, responses)
    body = write_json(dialect.whole(asked, responses, service.clock.time()))
    service.log.end(call, "done", 200)
    connection.answer(200, (JSON, *routing_fields(routing, asked.dropped), *extra), body)


def note(call: Call, responses: Sequence[ChatResponse]) -> Routing:
    """Put into the log who gave the last of `responses`, with what all of them cost, and what they used."""
    routing = responses[-1].routing
    if len(responses) > 1:
        routing = replace(routing, cost=math.fsum(response.routing.cost for response in responses))
    call.routing, call.usage = routing, total_usage([response.usage for response in responses])
    return routing


class _Streaming:
    """One stream on its way to its client."""

    def __init__(
        self,
        service: Service,
        dialect: Dialect,
        asked: Asked,
        connection: Connection,
        call: Call,
        guard: CallGuard,
        extra: Fields,
    ) -> None:
        self.service = service
        self.dialect = dialect
        self.asked = asked
        self.connection = connection
        self.call = call
        self.guard = guard
        self.extra = extra
        self.writer = dialect.writer(asked, service.clock.time())
        self._began = service.clock.monotonic()
        self._lock = threading.Lock()
        self._open = False
        self._over = False
        self._stream: ChatStream | None = None

    def run(self, patience: tuple[float, float | None]) -> None:
        """Send it, whatever comes. Raises `Gone`, or an error that can still be answered by a status."""
        self.guard.tick = self._keep_alive
        self.guard.on_gone = self._hang_up
        responses: list[ChatResponse] = []
        try:
            for copy in range(self.asked.copies):
                with self.service.router.stream(self.asked.request, max_wait=patience[0], cancel=self.guard.cancel) as stream:
                    self._stream = stream
                    if self.guard.gone:
                        stream.close()
                    if copy == 0:
                        self._start(stream.routing)
                    for chunk in stream:
                        self._send(self.writer.chunk(chunk, copy))
                    responses.append(stream.response)
                note(self.call, responses)
                if self.guard.gone:
                    raise Gone
        except InferRouterError as exc:
            self._broken(exc)
            return
        except Gone:
            self._left()
            raise
        with self._lock:
            self._over = True
        self.service.log.end(self.call, "done", 200)
        self.connection.end(self.writer.end(responses))

    def _start(self, routing: Routing) -> None:
        self.service.log.routed(self.call, routing)
        fields = routing_fields(routing, self.asked.dropped)
        with self._lock:
            begun, self._open = self._open, True
            if not begun:
                self.connection.begin((*EVENTS, *fields, *self.extra), self.writer.start(routing))
        if begun:
            self._send(self.writer.start(routing))

    def _send(self, data: bytes) -> None:
        self.connection.chunk(data)

    def _keep_alive(self) -> None:
        """Called by the watch's thread: commit a head that was held back long enough, break a silence that was."""
        now = self.service.clock.monotonic()
        if now - self._began < HOLD_BACK_S or now - self.connection.last_write < PING_S:
            return
        try:
            with self._lock:
                if self._over:
                    return
                if not self._open:
                    self._open = True
                    self.connection.begin((*EVENTS, *self.extra))
                self.connection.ping(self.dialect.ping)
        except Gone:
            self.guard._left()

    def _hang_up(self) -> None:
        """Called by the watch's thread: nobody reads any more."""
        stream = self._stream
        if stream is not None:
            stream.close()

    def _broken(self, error: InferRouterError) -> None:
        """The answer broke off, or never came. Raises `error` where a status can still tell it."""
        with self._lock:
            self._over = True
        if isinstance(error, CallCancelledError) and self.guard.gone:
            self._left()
            raise Gone from error
        if not self._open:
            raise error
        stopped = isinstance(error, CallCancelledError)
        problem = stopping_problem() if stopped else problem_of(error, self.service.clock.time())
        if isinstance(error, StreamInterruptedError) and error.partial is not None:
            self.call.usage = total_usage((self.call.usage, error.partial.usage))
        self.service.log.end(self.call, "failed", problem.status, problem.message)
        self.connection.cut(self.writer.error(problem))

    def _left(self) -> None:
        with self._lock:
            self._over = True
        stream = self._stream
        if stream is not None:
            self.call.routing = stream.routing
        self.service.log.left(self.call)
