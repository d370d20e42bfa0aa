"""Sends HTTP requests over kept-alive connections; every call ends by its deadline, every fault is a `WireFault`.

Strategy: `send` returns when the head of the answer is in; the body is then read in one bounded loop, at once or piece by piece,
and a connection goes back to the pool only at the body's exact end. Nothing is followed, decoded or sent twice. Keys are in the
clear only below this module, and no frame that holds one is left in a traceback. Sockets and TLS load with the first
request. Must never know providers, accounts or quota.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from .own_process import PROCESS
from .wire import Headers, RequestPhase, Stop, WireFault, WireRequest, fault_from

if TYPE_CHECKING:
    import ssl

    from .connections import Connection, Pool
    from .http_opener import Opener

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
        self._loaded: dict[None, Opener] = {}  # by the first call
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
        reply = self._try(request, self._clock() + timeout_s, allow_http, new_connection, stop)
        return reply if isinstance(reply, WireReply) else _raised(reply)

    def close(self) -> None:
        """Closes every idle connection. Open replies may be read to their end; their connections are then closed."""
        self._closed = True  # before the look at what is loaded, see `_load`
        opener = self._loaded.get(None)
        if opener is not None:
            opener.pool.close()

    def _try(
        self, request: WireRequest, deadline: float, allow_http: bool, new_connection: bool, stop: Stop | None
    ) -> WireReply | WireFault:
        """Faults are returned, not raised, so that they are raised where no foreign frame is in sight."""
        phase = RequestPhase()
        try:
            opener = self._loaded.get(None) or self._load()
            connection = opener.open(request, phase, deadline, allow_http, new_connection, stop)
            reply = WireReply(connection, opener.pool, phase.host, request.headers, self._stream_limit, stop)
            if reply._body_fault is not None or not 200 <= reply.status < 300:
                _check_head(reply)
            return reply
        except Exception as exc:
            return fault_from(exc, phase, request.headers)
        except BaseException as exc:
            raise exc.with_traceback(None)  # noqa: B904  an interrupt passes, without the frames that hold keys

    def _load(self) -> Opener:
        from .connections import Pool
        from .http_opener import Opener

        pool = Pool(self._idle_s, self._per_host, self._clock)
        made = Opener(pool, self._ssl_context, self._ca_file, self._clock)
        opener = self._loaded.setdefault(None, made)  # of threads that come at once, the first one's
        if self._closed:  # while this first call was on its way: nothing may be kept
            opener.pool.close()
        return opener


class WireReply:
    """An answer whose body is still to come. `headers`: by lower-case name. Close it, or use it in a `with`.

    It is its own process's alone: a forked child neither reads it nor shuts it down.
    """

    __slots__ = (
        "__weakref__",
        "_body_fault",
        "_connection",
        "_host",
        "_left",
        "_open",
        "_pool",
        "_sent_headers",
        "_shut",
        "_stop",
        "_stream_left",
        "headers",
        "status",
    )

    def __init__(
        self,
        connection: Connection,
        pool: Pool,
        host: str,
        sent: Headers,
        stream_limit: int,
        stop: Stop | None,
    ) -> None:
        self._connection = connection
        self._pool = pool
        self._host = host
        self._sent_headers = sent
        fields = connection.fields
        odd = connection.ambiguous_length or "content-encoding" in fields or "transfer-encoding" in fields
        self._body_fault = _body_fault(connection) if odd else None
        self._stream_left = stream_limit
        self._left = connection.length
        self._open = True
        self._shut = False
        self.status = connection.status
        self.headers: Mapping[str, str] = fields
        self._stop = stop
        if stop is not None:
            stop.cuts(self.shutdown)

    def read(self, cap: int = 32 << 20) -> bytes:
        """The rest of the body, at most `cap` bytes. Raises `WireFault`."""
        left = self._left
        body = self._piece(whole=True) if left and left <= cap else self._whole(cap)
        return body if isinstance(body, bytes) else _raised(body)

    def read_beginning(self, size: int) -> bytes:
        """The first `size` bytes of the body, or as many as come before its end or a fault. Raises nothing."""
        pieces: list[bytes] = []
        while size > 0 and isinstance(piece := self._piece(), bytes) and piece:
            pieces.append(piece[:size])
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_some(self) -> bytes:
        """The next piece of the body as soon as there is one, b"" only at its exact end. Raises `WireFault`."""
        piece = self._piece()
        if not isinstance(piece, bytes):
            _raised(piece)
        self._stream_left -= len(piece)
        if self._stream_left < 0:
            self.abort()
            raise WireFault("too_large", "the stream is larger than transport.stream_limit allows")
        return piece

    def set_limits(self, timeout_s: float | None, idle_s: float | None = None) -> None:
        """New limits, in seconds: for all that is left from now on, and for silence between pieces. None lifts one."""
        if self._open:
            endless = float("inf")
            sock = self._connection.sock
            sock.deadline = endless if timeout_s is None else sock.clock() + timeout_s
            sock.idle = endless if idle_s is None else max(idle_s, 0.0)

    def close(self) -> None:
        """Ends the reply. The connection is kept if only the end of the body is unread, and has already come."""
        if self._open:
            self._connection.sock.idle = 0.0
            if self._piece() != b"":
                self.abort()

    def shutdown(self) -> None:
        """For another thread than the one that reads: a read under way fails at once, and the connection is not kept."""
        self._shut = True  # before the look whether it is open, see `_finish`: another call could have the connection already
        if self._open and self._connection.pid == PROCESS.pid:
            self._connection.sock.shutdown_both()

    def abort(self) -> None:
        """Closes the connection, whatever state it is in."""
        if self._open:
            self._open = False
            self._left = None
            try:
                self._was_cut()
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
        if self._connection.pid != PROCESS.pid:  # whoever reads takes it from the parent
            return WireFault("cut", "the answer belongs to the process that asked for it")
        try:
            connection, left = self._connection, self._left
            if left is None:
                piece = connection.read_chunk(_PIECE) if connection.chunked else connection.read_some(_PIECE)
                if not piece:
                    # An end that the connection's end makes is not one where somebody here made that.
                    if not self._open or (self._shut and not connection.chunked):
                        raise WireFault("cut", "the answer was closed before its end")
                    self._finish()
                return piece
            piece = b"" if not left else connection.read(left) if whole else connection.read_some(min(left, _PIECE))
            self._left = left = left - len(piece)
            if not left:
                self._finish()
            elif whole or not piece:
                raise WireFault("cut", f"the answer of {self._host} ends {left} bytes too early")
            return piece
        except Exception as exc:
            self.abort()
            phase = RequestPhase()
            phase.host, phase.phase = self._host, "exchange"
            return fault_from(exc, phase, self._sent_headers)
        except BaseException:  # interrupted: nobody knows how much of the answer's framing was read
            self.abort()
            raise

    def _finish(self) -> None:
        self._open = False  # before the look whether it was shut down, see `shutdown`: one of the two sees the other
        self._left = 0
        if (self._stop is not None and self._was_cut()) or self._shut or self._connection.will_close:
            self._connection.close()
        else:
            self._pool.put(self._connection)

    def _was_cut(self) -> bool:
        """Whether the call was given up: then what ended it may still shut the connection down. It shall hold this no longer."""
        stop, self._stop = self._stop, None
        if stop is not None:
            stop.cuts(None)
        return stop is not None and stop.cut


def _raised(fault: WireFault) -> NoReturn:
    """Raises `fault` from here, where no frame holds a header or a body."""
    try:
        raise fault
    finally:
        del fault  # or the fault, its traceback and this frame would keep each other alive


def _check_head(reply: WireReply) -> None:
    """Raise the fault of a reply that is not an answer. A refusal keeps status and headers, even if nobody can read its body."""
    status = reply.status
    try:
        if status < 200 or status == 304:
            raise WireFault("protocol", f"the server answered with status {status}, which is not an answer to this request")
        if 300 <= status < 400:
            target = _host(reply.headers.get("location", ""))
            raise WireFault("redirect", f"the server redirects to {target}; set base_url to the final address")
        if reply._body_fault is not None and status < 300:
            raise reply._body_fault
    except BaseException:
        reply.abort()
        raise


def _body_fault(connection: Connection) -> WireFault | None:
    """Why the body of the answer that came in cannot be read, None if it can."""
    encoding = connection.fields.get("content-encoding")
    if encoding is not None and encoding.strip().lower() not in ("identity", ""):
        return WireFault("encoding", "the answer is compressed although identity was asked for")
    if not connection.chunked and "transfer-encoding" in connection.fields:
        return WireFault("encoding", "the answer has a transfer encoding that was not asked for")
    if connection.ambiguous_length:
        return WireFault("protocol", "the answer contradicts itself about its length")
    return None


def _host(location: str) -> str:
    from urllib.parse import urlsplit

    try:
        return urlsplit(location).hostname or "another path of the same host"
    except ValueError:
        return "an unusable address"
