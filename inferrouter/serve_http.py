"""Carries HTTP/1.1 over one accepted connection: reads a request with its body, writes whole answers and streams.

Strategy: every read and every write has a deadline, and each body a bound that is checked before it is read, so that no client
holds a thread by being slow. An answer goes out in one write, because two small ones cost 44 ms to a client that delays its
acknowledgements. A stream is chunked; one that was cut never gets its last chunk, and where a client takes no chunks the
connection is reset, so that nobody takes it for whole. Must never know a path, a token or a wire format.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from .frozen import frozen_value
from .meter import Clock
from .serve_bodies import SMALL, Bodies
from .serve_head import MAX_HEAD, BadRequest, Head, Heads

Fields = Sequence[tuple[str, str]]

HEAD_S = 15.0
"""Seconds from the first byte of a head to its end."""
BODY_S = 30.0
"""Seconds a body may take, and one more for each `BODY_RATE` bytes of it."""
BODY_RATE = 64 << 10
WRITE_S = 60.0
"""Seconds one write may take: a reader that is slower has gone."""
_READ = 64 << 10
_MAX_CHUNK_LINE = 256
_TLS = b"\x16"  # what a client's first message begins with that takes this for https
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Crowded(Exception):  # noqa: N818  # an answer, not a fault
    """The bodies of other requests take all the room there is, and did so for as long as a client may be kept waiting."""


class Gone(Exception):  # noqa: N818  # it is not an error: clients go away
    """The client has closed its end, reset it, or is too slow to be waited for."""


@frozen_value
class Request:
    """A whole request."""

    head: Head
    body: bytes


class Connection:
    """One connection. Reads and whole answers are for its own thread; `chunk` may be called from another as well."""

    def __init__(self, sock: socket.socket, clock: Clock, max_body: int, idle_s: float, bodies: Bodies | None = None) -> None:
        self.sock = sock
        self.idle = True
        self._clock = clock
        self._max_body = max_body
        self._idle_s = idle_s
        self._bodies = bodies
        self._room = 0
        self._rest = b""
        self._writing = threading.Lock()
        self._head: Head | None = None
        self._heads = Heads()
        self.streaming = False
        self._broken = False
        self._resets = False
        self.last_write = 0.0
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, check: Callable[[Head], None]) -> Request | None:
        """The next request; None if the client is done, or idle for too long. `check` looks at the head before the body is read.

        Its body takes room of all bodies until `forget`. Raises `BadRequest`, `Crowded`, `Gone`, or what `check` raises.
        """
        self.idle = not self._rest
        self._head = None
        data = self._rest
        deadline = self._clock.monotonic() + (HEAD_S if data else self._idle_s)
        try:
            while b"\r\n\r\n" not in data:
                if len(data) > MAX_HEAD:
                    raise BadRequest(431, "the head is too long")
                piece = self._receive(deadline)
                if not piece:
                    return None
                if not data:
                    self.idle = False
                    deadline = self._clock.monotonic() + HEAD_S
                data = (data + piece).removeprefix(b"\r\n")
                if data[:1] == _TLS:
                    raise BadRequest(400, "this address speaks http://, not https://")
        except Gone:
            if self.idle:
                return None
            raise
        self.idle = False
        raw, _, self._rest = data.partition(b"\r\n\r\n")
        if len(raw) > MAX_HEAD:
            raise BadRequest(431, "the head is too long")
        head = self._head = self._heads.parse(raw)
        if head.length is not None and head.length > self._max_body:
            raise BadRequest(413, f"the body is larger than {self._max_body} bytes")
        check(head)
        self._make_room(head.length or 0)
        if head.length != 0 and head.fields.get("expect", "").lower() == "100-continue" and not self._rest:
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(head, self._body(head))

    def forget(self) -> None:
        """The request's body is held no longer."""
        if self._bodies is not None:
            self._bodies.give(self._room)
        self._room = 0

    @property
    def keeps(self) -> bool:
        """Whether another request may come over this connection."""
        return self._head is not None and self._head.keeps and not self._broken

    def answer(self, status: int, fields: Fields, body: bytes, close: bool = False) -> None:
        """A whole answer, in one write. Raises `Gone`."""
        if close:
            self._broken = True
        bodiless = status == 204 or (self._head is not None and self._head.method == "HEAD")
        length = () if status == 204 else (("Content-Length", str(len(body))),)
        self._send(self._start(status, (*fields, *length)) + (b"" if bodiless else body))

    def begin(self, fields: Fields, data: bytes = b"") -> None:
        """The head of a stream with its first piece, in one write; the rest follows by `chunk`. Raises `Gone`."""
        head = self._head
        if head is not None and head.chunks:
            fields = (*fields, ("Transfer-Encoding", "chunked"))
        else:
            self._broken = True
        self.streaming = True
        start = self._start(200, (*fields, ("Cache-Control", "no-cache")))
        self._send(start + self._framed(data) if data else start)

    def chunk(self, data: bytes) -> None:
        """A piece of a stream. Raises `Gone`."""
        if data:
            self._send(self._framed(data))

    def ping(self, data: bytes) -> None:
        """A piece of a stream that may be left out: it waits neither for another write nor for the client. Raises `Gone`."""
        if not self._writing.acquire(blocking=False):
            return
        framed = self._framed(data)
        try:
            self.sock.settimeout(0.0)
            if self.sock.send(framed) < len(framed):
                self._broken = True
                raise Gone
            self.last_write = self._clock.monotonic()
        except BlockingIOError:  # its buffers are full, so it is not silent
            return
        except (OSError, ValueError) as exc:
            self._broken = True
            raise Gone from exc
        finally:
            self._writing.release()

    def end(self, data: bytes = b"") -> None:
        """The end of a stream that is whole, with its last piece. Raises `Gone`."""
        self.streaming = False
        if self._head is not None and self._head.chunks:
            self._send((self._framed(data) if data else b"") + b"0\r\n\r\n")
        else:
            self._send(data)

    def cut(self, data: bytes = b"") -> None:
        """The end of a stream that is not whole: a last piece, and then no clean end. Raises nothing."""
        self._broken = True
        self.streaming = False
        try:
            self.chunk(data)
        except Gone:
            return
        if self._head is not None and not self._head.chunks:
            self._resets = True
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """Close it. Raises nothing. What the client still sends is read for a moment, or it would lose the answer."""
        try:
            if not self._resets:
                self.sock.shutdown(socket.SHUT_WR)
            if self._broken and not self._resets:
                self.sock.settimeout(0.2)
                for _ in range(64):
                    if not self.sock.recv(_READ):
                        break
        except OSError:
            pass
        self.sock.close()

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if not self._head or self._head.chunks else data

    def _start(self, status: int, fields: Fields) -> bytes:
        head = self._head
        keeps = self.keeps
        lines = [f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}", _date(int(self._clock.time()))]
        told = "".join([value for _, value in fields])
        if not (told.isascii() and told.isprintable()):
            fields = [(name, plain(value)) for name, value in fields]
        lines += [f"{name}: {value}" for name, value in fields]
        if not keeps:
            lines.append("Connection: close")
        elif head is not None and not head.chunks:
            lines.append("Connection: keep-alive")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _body(self, head: Head) -> bytes:
        if head.length == 0:
            return b""
        if head.length is None:
            return self._chunks()
        return self._exactly(head.length, self._clock.monotonic() + BODY_S + head.length / BODY_RATE)

    def _make_room(self, size: int) -> None:
        """Take room for a body of `size` bytes, beyond what it has. Raises `Crowded`."""
        missing = size - self._room
        if size <= SMALL or missing <= 0 or self._bodies is None:
            return
        if not self._bodies.take(missing, BODY_S):
            raise Crowded
        self._room = size

    def _exactly(self, size: int, deadline: float) -> bytes:
        if size <= len(self._rest):
            found, self._rest = self._rest[:size], self._rest[size:]
            return found
        made = bytearray(self._rest)
        self._rest = b""
        while (missing := size - len(made)) > 0:
            piece = self._required(deadline)
            made += piece[:missing]
            self._rest = piece[missing:]
        return bytes(made)

    def _chunks(self) -> bytes:
        deadline = self._clock.monotonic() + BODY_S + self._max_body / BODY_RATE
        made = bytearray()  # not a list of pieces: a byte of its own each would take forty times their room
        while True:
            size = self._chunk_size(deadline)
            total = len(made) + size
            if total > self._max_body:
                raise BadRequest(413, f"the body is larger than {self._max_body} bytes")
            if size == 0:
                break
            if total > max(self._room, SMALL):
                self._make_room(min(2 * total, self._max_body))
            made += self._exactly(size, deadline)
            if self._exactly(2, deadline) != b"\r\n":
                raise BadRequest(400, "a chunk is not as long as it says")
        for _ in range(32):  # trailers, which nothing here needs
            if not self._chunk_line(deadline):
                return bytes(made)
        raise BadRequest(431, "too many trailers")

    def _chunk_size(self, deadline: float) -> int:
        digits = self._chunk_line(deadline).partition(b";")[0].rstrip(b" \t")
        if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
            raise BadRequest(400, "a chunk's size is not a hexadecimal number")
        return int(digits, 16)

    def _chunk_line(self, deadline: float) -> bytes:
        while b"\r\n" not in self._rest:
            if len(self._rest) > _MAX_CHUNK_LINE:
                raise BadRequest(400, "a chunk's size is too long a line")
            self._rest += self._required(deadline)
        line, _, self._rest = self._rest.partition(b"\r\n")
        if len(line) > _MAX_CHUNK_LINE or b"\n" in line or b"\r" in line:
            raise BadRequest(400, "a chunk's size is not a line")
        return line

    def _required(self, deadline: float) -> bytes:
        try:
            piece = self._receive(deadline)
        except Gone as gone:
            if isinstance(gone.__cause__, TimeoutError):
                raise BadRequest(408, "the body took too long to come") from None
            raise
        if not piece:
            raise Gone
        return piece

    def _receive(self, deadline: float) -> bytes:
        left = deadline - self._clock.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self.sock.settimeout(left)
            return self.sock.recv(_READ)
        except (OSError, ValueError) as exc:  # ValueError: closed by the server's own stop
            raise Gone from exc

    def _send(self, data: bytes) -> None:
        try:
            with self._writing:
                self.sock.settimeout(WRITE_S)
                self.sock.sendall(data)
                self.last_write = self._clock.monotonic()
        except (OSError, ValueError) as exc:
            self._broken = True
            raise Gone from exc


@lru_cache(maxsize=4)
def _date(second: int) -> str:
    return f"Date: {formatdate(second, usegmt=True)}"


def plain(value: str) -> str:
    """`value` as a header may carry it: what is not printable ASCII is percent-encoded, so that no line can begin in it."""
    if value.isascii() and value.isprintable():
        return value
    return "".join(
        sign if " " <= sign <= "~" else "".join(f"%{byte:02X}" for byte in sign.encode("utf-8", "replace")) for sign in value
    )


def field(fields: Mapping[str, str], *names: str) -> str:
    """The first of the fields of these names that is there, "" if none is."""
    return next((fields[name] for name in names if name in fields), "")
