"""Sends HTTP requests over kept-alive connections; every call ends by its deadline, every fault is a `WireFault`.

Strategy: `send` returns when the head of the answer is in; the body is then read in one bounded loop, at once or piece by piece,
and a connection goes back to the pool only at the body's exact end. Nothing is followed, decoded or sent twice. Keys are in the
clear only below this module, and no frame that holds one is left in a traceback. Sockets and TLS load with the first
request. Must never know providers, accounts or quota.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from .frozen import NamedTuple
from .own_process import PROCESS
from .wire import RequestPhase, Stop, WireFault, WireRequest, fault_from

if TYPE_CHECKING:
    import ssl

    from .connections import Pool
    from .http_head import Response
    from .http_opener import OpenResponse, OutgoingRequest

_T = TypeVar("_T")
_PIECE = 64 << 10  # bytes asked for at a time

STREAM_LIMIT = 64 << 20
"""Bytes; more than any answer of a model holds, and what a stream that never ends costs at most."""


class Transport:
    """Sends requests; safe to share between threads, usable after a fork.

    `idle_s`: seconds a kept connection may wait for its next use; `per_host`: how many are kept for one key at one host at most.
    `stream_limit`: bytes that `WireReply.read_some` gives of one answer at most.
    `ssl_context`: verifies as the caller wishes; None: the system's roots and those in `ca_file`, and TLS 1.2 or newer.
    """

    def __init__(
        self,
        *,
        idle_s: float = 60.0,
        per_host: int = 32,
        stream_limit: int = STREAM_LIMIT,
        ssl_context: ssl.SSLContext | None = None,
        ca_file: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._idle_s = idle_s
        self._per_host = per_host
        self._stream_limit = stream_limit
        self._ssl_context = ssl_context
        self._ca_file = ca_file
        self._clock = monotonic
        self._loaded: dict[None, _Parts] = {}  # by the first call
        self._closed = False

    def send(
        self,
        request: WireRequest,
        *,
        timeout_s: float,
        allow_http: bool = False,
        new_connection: bool = False,
        stop: Stop | None = None,
    ) -> WireReply:
        """The reply to `request`, whatever its status, once its head is in. Redirects are faults.

        `timeout_s`: seconds for everything, the body included, until `WireReply.set_limits` says otherwise. `allow_http`: plain
        http also to other machines. `new_connection`: never on a kept one. `stop`: ends it from another thread, until its body
        is read. Raises `WireFault`.
        """
        deadline = self._clock() + timeout_s
        return _or_raise(self._try(request, deadline, allow_http, new_connection, stop))

    def close(self) -> None:
        """Closes every idle connection. Open replies may be read to their end; their connections are then closed."""
        self._closed = True  # before the look at what is loaded, see `_load`
        if self._parts is not None:
            self._parts.pool.close()

    @property
    def _parts(self) -> _Parts | None:
        return self._loaded.get(None)

    def _try(
        self, request: WireRequest, deadline: float, allow_http: bool, new_connection: bool, stop: Stop | None
    ) -> WireReply | WireFault:
        """Faults are returned, not raised, so that they are raised where no foreign frame is in sight."""
        outgoing = None
        try:
            parts = self._parts or self._load()
            outgoing = parts.prepare(request, deadline, allow_http, new_connection, stop)
            return _open(parts, request, outgoing, self._stream_limit)
        except Exception as exc:
            return fault_from(exc, outgoing.phase if outgoing else RequestPhase(), request.headers)
        except BaseException as exc:
            raise exc.with_traceback(None)  # noqa: B904  an interrupt passes, without the frames that hold keys

    def _load(self) -> _Parts:
        from .connections import Pool
        from .http_opener import PooledHandler, open_with, prepare

        pool = Pool(self._idle_s, self._per_host, self._clock)
        made = _Parts(prepare, open_with(PooledHandler(pool, self._ssl_context, self._ca_file, self._clock)), pool)
        parts = self._loaded.setdefault(None, made)  # of threads that come at once, the first one's
        if self._closed:  # while this first call was on its way: nothing may be kept
            parts.pool.close()
        return parts


class WireReply:
    """An answer whose body is still to come. `headers`: by lower-case name. Close it, or use it in a `with`.

    It is its own process's alone: a forked child neither reads it nor shuts it down.
    """

    __slots__ = (
        "__weakref__",
        "_body_fault",
        "_connection",
        "_left",
        "_open",
        "_phase",
        "_pid",
        "_pool",
        "_response",
        "_sent_headers",
        "_shut",
        "_sock",
        "_stop",
        "_stream_left",
        "headers",
        "status",
    )

    def __init__(
        self,
        answer: OpenResponse,
        request: WireRequest,
        phase: RequestPhase,
        pool: Pool,
        stream_limit: int = STREAM_LIMIT,
        stop: Stop | None = None,
    ) -> None:
        self._response, self._connection = answer
        self._sock = self._connection.sock
        self._pool = pool
        self._phase = phase
        self._sent_headers = request.headers
        self._body_fault: WireFault | None = None
        self._stream_left = stream_limit
        self._left: int | None = self._response.length
        self._open = True
        self._shut = False
        self._pid = PROCESS.pid
        self.status: int = self._response.status
        self.headers: Mapping[str, str] = self._response.fields
        self._stop = stop
        if stop is not None:
            stop.cuts(self.shutdown)

    def read(self, cap: int = 32 << 20) -> bytes:
        """The rest of the body, at most `cap` bytes. Raises `WireFault`."""
        return _or_raise(self._whole(cap))

    def read_beginning(self, size: int) -> bytes:
        """The first `size` bytes of the body, or as many as come before its end or a fault. Raises nothing."""
        pieces: list[bytes] = []
        while size > 0 and isinstance(piece := self._piece(), bytes) and piece:
            pieces.append(piece[:size])
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_some(self) -> bytes:
        """The next piece of the body as soon as there is one, b"" only at its exact end. Raises `WireFault`."""
        piece = _or_raise(self._piece())
        self._stream_left -= len(piece)
        if self._stream_left < 0:
            self.abort()
            raise WireFault("too_large", "the stream is larger than transport.stream_limit allows")
        return piece

    def set_limits(self, timeout_s: float | None, idle_s: float | None = None) -> None:
        """New limits, in seconds: for all that is left from now on, and for silence between pieces. None lifts one."""
        if self._open:
            endless = float("inf")
            self._sock.deadline = endless if timeout_s is None else self._sock.clock() + timeout_s
            self._sock.idle = endless if idle_s is None else max(idle_s, 0.0)

    def close(self) -> None:
        """Ends the reply. The connection is kept if only the end of the body is unread, and has already come."""
        if self._open:
            self._sock.idle = 0.0
            if self._piece() != b"":
                self.abort()

    def shutdown(self) -> None:
        """For another thread than the one that reads: a read under way fails at once, and the connection is not kept."""
        self._shut = True  # before the look whether it is open, see `_finish`: another call could have the connection already
        if self._open and self._pid == PROCESS.pid:
            self._sock.shutdown_both()

    def abort(self) -> None:
        """Closes the connection, whatever state it is in."""
        if self._open:
            self._open = False
            self._left = None
            self._was_cut()
            try:
                with suppress(RuntimeError):  # a signal handler in the midst of reading it: that read fails with its socket
                    self._response.close()
            finally:
                self._connection.close()

    def __enter__(self) -> WireReply:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.abort()

    def _whole(self, cap: int) -> bytes | WireFault:
        if self._left is not None and self._left > cap:
            self.abort()
            return WireFault("too_large", f"the answer announces more than {cap} bytes")
        if self._left:
            return self._piece(whole=True)
        pieces: list[bytes] = []
        size = 0
        while piece := self._piece():
            if isinstance(piece, WireFault):
                return piece
            pieces.append(piece)
            size += len(piece)
            if size > cap:
                self.abort()
                return WireFault("too_large", f"the answer is larger than {cap} bytes")
        return b"".join(pieces)

    def _piece(self, whole: bool = False) -> bytes | WireFault:
        """The next piece, b"" at the end, or what went wrong; after that the connection is closed. `whole`: all that is left."""
        if self._body_fault is not None:
            self.abort()
            return self._body_fault
        if not self._open:
            return b"" if self._left == 0 else WireFault("cut", "the answer was closed before its end")
        if self._pid != PROCESS.pid:  # whoever reads takes it from the parent
            return WireFault("cut", "the answer belongs to the process that asked for it")
        try:
            return self._next(whole)
        except Exception as exc:
            self.abort()
            return fault_from(exc, self._phase, self._sent_headers)
        except BaseException:  # interrupted: nobody knows how much of the answer's framing was read
            self.abort()
            raise

    def _next(self, whole: bool) -> bytes:
        piece = self._response.read(self._left) if whole else self._response.read1(_PIECE)
        if self._left is not None:
            self._left -= len(piece)
            if self._left and (whole or not piece):
                raise WireFault("cut", f"the answer of {self._phase.host} ends {self._left} bytes too early")
        if not piece or self._left == 0:
            self._finish()
        return piece

    def _finish(self) -> None:
        self._open = False  # before the look whether it was shut down, see `shutdown`: one of the two sees the other
        self._left = 0
        self._response.close()
        if self._was_cut() or self._shut or self._response.will_close or self._connection.reader.out_of_sync:
            self._connection.close()
        else:
            self._connection.used = True
            self._pool.put(self._connection)

    def _was_cut(self) -> bool:
        """Whether the call was given up: then what ended it may still shut the connection down. It shall hold this no longer."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop.cuts(None)
        return stop is not None and stop.cut


class _Parts(NamedTuple):
    """What loads with the first request."""

    prepare: Callable[[WireRequest, float, bool, bool, Stop | None], OutgoingRequest]
    open: Callable[[OutgoingRequest], OpenResponse]
    pool: Pool


def _open(parts: _Parts, request: WireRequest, outgoing: OutgoingRequest, stream_limit: int) -> WireReply:
    answer = parts.open(outgoing)
    reply = WireReply(answer, request, outgoing.phase, parts.pool, stream_limit, outgoing.stop)
    try:
        reply._body_fault = _body_fault(reply.headers, answer.response)
        _check_head(reply)
    except BaseException:
        reply.abort()
        raise
    return reply


def _or_raise(result: _T | WireFault) -> _T:
    """`result`, or the fault it is. Raised from here, where no frame holds a header or a body."""
    if not isinstance(result, WireFault):
        return result
    try:
        raise result
    finally:
        del result  # or the fault, its traceback and this frame would keep each other alive


def _check_head(reply: WireReply) -> None:
    """Raise the fault of a reply that is none. A refusal keeps its status and headers, even if nobody can read its body."""
    status = reply.status
    if status < 200 or status == 304:
        raise WireFault("protocol", f"the server answered with status {status}, which is no answer to this request")
    if 300 <= status < 400:
        target = _host(reply.headers.get("location", ""))
        raise WireFault("redirect", f"the server redirects to {target}; set base_url to the final address")
    if reply._body_fault is not None and status < 300:
        raise reply._body_fault


def _body_fault(headers: Mapping[str, str], response: Response) -> WireFault | None:
    """Why the body of an answer with these headers cannot be read, None if it can."""
    encoding = headers.get("content-encoding")
    if encoding is not None and encoding.strip().lower() not in ("identity", ""):
        return WireFault("encoding", "the answer is compressed although identity was asked for")
    transfer = headers.get("transfer-encoding")
    if transfer is not None and not response.chunked:
        return WireFault("encoding", "the answer has a transfer encoding that was not asked for")
    if response.ambiguous_length:
        return WireFault("protocol", "the answer contradicts itself about its length")
    return None


def _host(location: str) -> str:
    from urllib.parse import urlsplit

    try:
        return urlsplit(location).hostname or "another path of the same host"
    except ValueError:
        return "an unusable address"
