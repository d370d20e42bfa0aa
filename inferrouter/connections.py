"""Keeps connections alive between requests, and makes sockets that end by a deadline, in plain and in TLS.

Strategy: a stack of idle connections for each destination (scheme, host, port, proxy, key); the last one back is the first one
out, because it is the one most likely alive. Anything readable on an idle connection means it is dead or out of sync. Whoever
takes one off its list has it alone, which needs no lock. A socket sets the time that is left before each blocking call, so that
a peer who drips bytes cannot stretch a call; connecting divides it over the addresses of the name. Looking the name up cannot
be cut short without a thread, but its time counts. Must never know requests, answers or keys. Loaded on first use: `ssl` is
slow to import.
"""

from __future__ import annotations

import functools
import math
import os
import select
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from .frozen import NamedTuple
from .http_answer import Answers
from .own_process import PROCESS
from .wire import Stop, WireFault

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_Address = tuple[Any, Any, int, str, Any]  # as getaddrinfo gives them
_TOLERANCE = 0.001  # seconds that a deadline may be off to spare a system call
_LONGEST_WAIT = 86_400.0  # seconds; an endless deadline still needs a number the operating system takes


class Destination(NamedTuple):
    """Where a connection goes, and whose it is. `proxy`: "host:port" it goes through, "" for none.

    `owner`: a number for the keys it carries. What a server sends too late can so never answer the request of another key.
    """

    scheme: str
    host: str
    port: int
    proxy: str = ""
    owner: int = 0


class Connection(Answers):
    """One open connection. `used`: it has carried an exchange to its end; `idle_since`: seconds on the pool's clock.

    `probe`: says whether there is anything to read, be it the end; `pending`: whether TLS has decrypted anything, None without.
    """

    __slots__ = ("destination", "idle_since", "pending", "pid", "probe", "used")
    sock: TimedSocket

    def __init__(self, destination: Destination, sock: TimedSocket) -> None:
        super().__init__(sock)
        self.destination = destination
        self.probe = _probe(sock)
        self.pending: Callable[[], object] | None = sock.pending if isinstance(sock, TLSSocket) else None
        self.used = False
        self.pid = PROCESS.pid
        self.idle_since = 0.0

    def close(self) -> None:
        """Closes the socket. Idempotent."""
        self.sock.close()

    def abandon(self) -> None:
        """Lets go of a connection that belongs to the parent process, without a byte to its peer."""
        try:
            os.close(self.sock.detach())
        except OSError:
            pass


class Pool:
    """Idle connections. `idle_s`: seconds one may wait for its next use; `per_host`: how many are kept for one destination."""

    _idle: dict[Destination, list[Connection]]

    def __init__(self, idle_s: float, per_host: int, clock: Callable[[], float]) -> None:
        self._idle_s = idle_s
        self._per_host = per_host
        self._clock = clock
        self._closed = False
        self._start()

    def take(self, destination: Destination, now: float) -> Connection | None:
        """A live idle connection that is now the caller's alone, None if there is none. `now`: seconds on the pool's clock.

        Of a live one, the next bytes to come can only be the answer to the next request.
        """
        if self._pid != PROCESS.pid:
            self._forget_parents()
        stack = self._idle.get(destination)
        while stack:
            try:
                connection = stack.pop()
            except IndexError:  # another thread took the last
                break
            fresh = now - connection.idle_since <= self._idle_s and connection.sock.fileno() >= 0
            if fresh and not (connection.pending is not None and connection.pending()) and not connection.probe():
                return connection
            connection.close()
        return None

    def put(self, connection: Connection) -> None:
        """Takes back a connection whose last answer was read to its end; closes it if it cannot be kept."""
        now = connection.idle_since = self._clock()
        if self._pid != PROCESS.pid:
            self._forget_parents()
        in_sync = connection.at == len(connection.data) and not connection.sock.lost
        if not in_sync or connection.pid != self._pid:
            connection.close()
            return
        connection.data, connection.at = b"", 0
        connection.used = True
        stack = self._idle.get(connection.destination)
        if stack is None:
            stack = self._idle.setdefault(connection.destination, [])
        stack.append(connection)
        if len(stack) > self._per_host:
            _close_first(stack)
        if now >= self._next_sweep:
            self._sweep(now)
        if self._closed:  # perhaps in the meantime
            self.close()

    def close(self) -> None:
        """Closes every idle connection; what comes back later is closed too."""
        if self._pid != PROCESS.pid:
            self._forget_parents()
        self._closed = True
        for stack in list(self._idle.values()):
            while stack:
                _close_first(stack)

    def _start(self) -> None:
        self._idle = {}
        self._next_sweep = 0.0
        self._pid = PROCESS.pid

    def _forget_parents(self) -> None:
        """After a fork the sockets are the parent's: start anew."""
        idle = self._idle
        self._start()
        for stack in idle.values():
            for connection in stack:
                connection.abandon()

    def _sweep(self, now: float) -> None:
        """Close what has been idle for too long, whatever its destination."""
        self._next_sweep = now + self._idle_s
        for stack in list(self._idle.values()):
            for connection in stack.copy():
                if now - connection.idle_since > self._idle_s:
                    try:
                        stack.remove(connection)
                    except ValueError:  # another thread has it
                        continue
                    connection.close()


def _close_first(stack: list[Connection]) -> None:
    """Close the connection that is idle the longest, unless other threads have taken the last."""
    try:
        stack.pop(0).close()
    except IndexError:
        return


class TimedSocket(socket.socket):
    """A socket whose blocking calls raise TimeoutError once `deadline` is over, or nothing was received for `idle`.

    `deadline`: in seconds of `clock`, infinite if there is none. `idle`: seconds of silence, infinite if any is allowed.
    `silent`: nothing was received since it was set. `lost`: a read failed, or is under way, so that bytes may be missing.
    """

    deadline: float = math.inf
    idle: float = math.inf
    clock: Callable[[], float] = time.monotonic
    silent: bool = True
    lost: bool = False
    _shortest: float = 0.0  # seconds; what is left when the wait need not be set anew is between these
    _longest: float = 0.0
    _recv = socket.socket.recv

    def left(self) -> float:
        """Seconds until the deadline, always above 0. Raises TimeoutError when it is over."""
        seconds = self.deadline - self.clock()
        if seconds <= 0.0:
            raise TimeoutError("the deadline has passed")
        return min(seconds, _LONGEST_WAIT)

    def cut_by(self, stop: Stop | None) -> None:
        """Let `stop` end whatever blocks on this socket. Raises OSError if it has been thrown already."""
        if stop is not None:
            stop.cuts(self.shutdown_both)
            if stop.cut:
                raise ConnectionAbortedError("the call was given up")

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        seconds = self.deadline - self.clock()
        if self.idle < seconds:
            seconds = self.idle
        if not self._shortest < seconds < self._longest:  # mostly it is
            self._limit_wait(min(self.left(), self.idle))
        if self.lost:  # by a read that failed, or one that this comes into the midst of, as a signal handler may
            raise RuntimeError("what comes next is another read's")
        self.lost = True
        data = self._recv(buflen, flags)
        self.lost = False
        if data:
            self.silent = False
        return data

    def shutdown_both(self) -> None:
        """End both directions now: a read that is blocked in another thread returns. TLS says no farewell."""
        with suppress(OSError):  # it may have ended by itself
            socket.socket.shutdown(self, socket.SHUT_RDWR)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        if not self._shortest < self.deadline - self.clock() < self._longest:
            self._limit_wait(self.left())
        socket.socket.sendall(self, data, flags)

    def _limit_wait(self, seconds: float) -> None:
        """Sets how long the next call may block, which is a call of the system's, so not for a millisecond's difference."""
        if not self._shortest < seconds < self._longest:
            self._longest = 0.0  # whatever comes in between, nothing is near to what is not set
            self.settimeout(seconds)
            self._shortest = max(seconds - _TOLERANCE, 0.0)
            self._longest = seconds + _TOLERANCE if seconds else 0.0  # 0 means not to block at all, which no wait is near to


class TLSSocket(TimedSocket, ssl.SSLSocket):
    """The same over TLS."""

    _recv = ssl.SSLSocket.recv

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """As ssl's own, but each send of its own ends by the deadline, and most need but one."""
        sent, view = 0, memoryview(data)
        while sent < len(view):
            if not self._shortest < self.deadline - self.clock() < self._longest:
                self._limit_wait(self.left())
            sent += self.send(view[sent:] if sent else data, flags)


def connect(
    host: str, port: int, deadline: float, clock: Callable[[], float] = time.monotonic, stop: Stop | None = None
) -> TimedSocket:
    """A connected socket with this deadline. Raises OSError; of several addresses' errors, the last."""
    # As bytes, since a host is plain ASCII here and a string would load the tables of IDNA.
    addresses = socket.getaddrinfo(host.encode("ascii"), port, 0, socket.SOCK_STREAM)
    failure: OSError = OSError(f"no address for {host}")
    for tried, address in enumerate(addresses):
        share = (deadline - clock()) / (len(addresses) - tried)
        try:
            return _connect_one(address, deadline, share, clock, stop)
        except OSError as exc:
            failure = exc
    raise failure


def secure(sock: TimedSocket, context: ssl.SSLContext, host: str, stop: Stop | None = None) -> TLSSocket:
    """`sock` wrapped in verified TLS for `host`, with the same deadline. Closes `sock` and raises OSError if it fails."""
    wrapped = None
    try:
        sock.settimeout(sock.left())
        wrapped = cast("TLSSocket", context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False))
        wrapped.clock = sock.clock
        wrapped.deadline = sock.deadline
        wrapped.cut_by(stop)
        wrapped.do_handshake()
    except BaseException:
        (wrapped or sock).close()
        raise
    return wrapped


def tls_context(given: ssl.SSLContext | None = None, ca_file: str | None = None) -> ssl.SSLContext:
    """A context that verifies and speaks TLS 1.2 or newer; one that is `given` keeps its rules. Slow: about 20 ms.

    `ca_file`: certificates to trust besides the system's. Raises `WireFault` "tls" if it holds none.
    """
    context = given
    if context is None:
        context = ssl.create_default_context()
        if ca_file is not None:
            _trust(context, ca_file)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = TLSSocket
    return context


def _trust(context: ssl.SSLContext, ca_file: str) -> None:
    try:
        context.load_verify_locations(ca_file)
    except OSError as exc:  # ssl.SSLError is one
        raise WireFault("tls", "transport.ca_file holds no certificates that can be read", sent=False, lasting=True) from exc


def _connect_one(address: _Address, deadline: float, share: float, clock: Callable[[], float], stop: Stop | None) -> TimedSocket:
    family, kind, protocol, _, place = address
    sock = TimedSocket(family, kind, protocol)
    try:
        sock.clock = clock
        sock.deadline = deadline
        sock.cut_by(stop)
        sock.settimeout(min(sock.left(), share))
        sock.connect(place)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _probe(sock: TimedSocket) -> Callable[[], object]:
    """A function that says whether there is anything to read from `sock`, be it its end."""
    if not hasattr(select, "poll"):  # Windows
        return lambda: select.select([sock], [], [], 0)[0]
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return functools.partial(poll.poll, 0)
