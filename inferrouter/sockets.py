"""Sockets that end by a deadline, in plain and in TLS.

Strategy: a socket knows until when it may block, and sets the time that is left before each blocking call, so that a peer
who drips bytes cannot stretch a call. Connecting divides what is left over the addresses of the name. The name look-up
itself cannot be cut short without a thread; its time is charged to the deadline.
Must never know HTTP, pools or keys. Loaded on first use, because `ssl` and `socket` are slow to import.
"""

from __future__ import annotations

import io
import math
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

__all__ = ["Inlet", "TLSSocket", "TimedSocket", "connect", "secure", "tls_context"]

_Address = tuple[Any, Any, int, str, Any]  # as getaddrinfo gives them
_TOLERANCE = 0.001  # seconds that a deadline may be overrun to spare a system call
_LONGEST_WAIT = 86_400.0  # seconds; an endless deadline still needs a number the operating system takes


class TimedSocket(socket.socket):
    """A socket whose blocking calls raise TimeoutError once `deadline` is over, or nothing was received for `idle`.

    `deadline`: in seconds of `clock`, infinite if there is none. `idle`: seconds of silence, infinite if any is allowed.
    `received`: bytes received since it was last set to 0.
    """

    deadline: float = math.inf
    idle: float = math.inf
    clock: Callable[[], float] = time.monotonic
    received: int = 0
    _patience: float = -1.0

    def left(self) -> float:
        """Seconds until the deadline, always above 0. Raises TimeoutError when it is over."""
        seconds = self.deadline - self.clock()
        if seconds <= 0.0:
            raise TimeoutError("the deadline is over")
        return min(seconds, _LONGEST_WAIT)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        self._be_patient(min(self.left(), self.idle))
        count = super().recv_into(buffer, nbytes or memoryview(buffer).nbytes, flags)
        self.received += count
        return count

    def hang_up(self) -> None:
        """End both directions now: a read that is blocked in another thread returns. TLS says no farewell."""
        with suppress(OSError):  # it may have ended by itself
            socket.socket.shutdown(self, socket.SHUT_RDWR)

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        self._be_patient(self.left())
        return super().send(data, flags)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self._be_patient(self.left())
        super().sendall(data, flags)

    def _be_patient(self, seconds: float) -> None:
        """Sets how long the next call may block, which is a call of the system's, so not for a millisecond's difference."""
        if not seconds <= self._patience <= seconds + _TOLERANCE:
            self.settimeout(seconds)
            self._patience = seconds


class TLSSocket(TimedSocket, ssl.SSLSocket):
    """The same over TLS."""


class Inlet(io.BufferedReader):
    """What a socket receives, through one buffer for all the answers it will ever carry.

    Each answer takes it as the file it reads and closes it at its end; that closes nothing, but looks whether bytes were
    left behind. `spilled`: some were, or some are missing: the next bytes to come are not the beginning of an answer.
    """

    def __init__(self, sock: TimedSocket) -> None:
        self._tap = _Tap(sock)
        self._left_over = False
        super().__init__(self._tap)

    @property
    def spilled(self) -> bool:
        """Whether this is the end of the connection's use."""
        return self._tap.lost or self._left_over

    def makefile(self, mode: str) -> Inlet:
        """Itself: what http.client asks of a socket."""
        return self

    def close(self) -> None:
        """Ends one answer."""
        self._tap.shut = True
        try:
            self._left_over = bool(self.peek(1))
        finally:
            self._tap.shut = False


class _Tap(io.RawIOBase):
    """The unbuffered side. `shut`: nothing more comes in; `lost`: a read failed, so that bytes may be missing."""

    def __init__(self, sock: TimedSocket) -> None:
        self._sock = sock
        self.shut = False
        self.lost = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if self.shut:
            return None
        try:
            return self._sock.recv_into(buffer)
        except BlockingIOError:  # only with no patience at all; whoever reads on takes it for the end
            self.lost = True
            return None
        except BaseException:
            self.lost = True
            raise


def connect(host: str, port: int, deadline: float, clock: Callable[[], float] = time.monotonic) -> TimedSocket:
    """A connected socket with this deadline. Raises OSError; of several addresses' errors, the last."""
    addresses = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
    failure: OSError = OSError(f"no address for {host}")
    for tried, address in enumerate(addresses):
        share = (deadline - clock()) / (len(addresses) - tried)
        try:
            return _connect_one(address, deadline, share, clock)
        except OSError as exc:
            failure = exc
    raise failure


def secure(sock: TimedSocket, context: ssl.SSLContext, host: str) -> TLSSocket:
    """`sock` wrapped in verified TLS for `host`, with the same deadline. Closes `sock` and raises OSError if it fails."""
    try:
        sock.settimeout(sock.left())
        wrapped = cast("TLSSocket", context.wrap_socket(sock, server_hostname=host))
    except BaseException:
        sock.close()
        raise
    wrapped.clock = sock.clock
    wrapped.deadline = sock.deadline
    return wrapped


def tls_context(given: ssl.SSLContext | None = None) -> ssl.SSLContext:
    """A context that verifies and speaks TLS 1.2 or newer. One that is `given` keeps its rules. Slow: about 20 ms."""
    context = given
    if context is None:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = TLSSocket
    return context


def _connect_one(address: _Address, deadline: float, share: float, clock: Callable[[], float]) -> TimedSocket:
    family, kind, protocol, _, place = address
    sock = TimedSocket(family, kind, protocol)
    try:
        sock.clock = clock
        sock.deadline = deadline
        sock.settimeout(min(sock.left(), share))
        sock.connect(place)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock
