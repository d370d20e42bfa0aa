"""Kept-alive connections: one user at a time, back only in step, never past a fork.

Strategy: a stack of idle connections for each route (scheme, host, port, proxy); the last one back is the first one out,
because it is the one most likely alive. Checked before use: anything readable on an idle connection means it is dead or
out of step. The lock guards the lists only; sockets are probed and closed outside it.
Must never know requests, answers or keys. Loaded on first use with `http.client`.
"""

from __future__ import annotations

import functools
import os
import select
import threading
from collections.abc import Callable
from typing import NamedTuple

from .response import Response
from .sockets import Inlet, TimedSocket, TLSSocket

__all__ = ["Connection", "Pool", "Route"]

_ONE_SEGMENT = 64 << 10  # bytes; up to here a copy is cheaper than a second packet


class Route(NamedTuple):
    """Where a connection goes. `proxy`: "host:port" it goes through, "" for none."""

    scheme: str
    host: str
    port: int
    proxy: str = ""


class Connection:
    """One open connection. `used`: it has carried a whole exchange; `idle_since`: on the pool's clock."""

    __slots__ = ("idle_since", "inlet", "pid", "probe", "route", "sock", "used")

    def __init__(self, route: Route, sock: TimedSocket) -> None:
        self.route = route
        self.sock = sock
        self.inlet = Inlet(sock)
        self.probe = _probe(sock)
        self.used = False
        self.pid = os.getpid()
        self.idle_since = 0.0

    def transmit(self, head: bytes, body: bytes) -> None:
        """Sends one request, a small one in a single segment. Raises OSError."""
        self.sock.received = 0
        if len(body) <= _ONE_SEGMENT:
            self.sock.sendall(head + body)
        else:
            self.sock.sendall(head)
            self.sock.sendall(body)

    def receive(self, method: str) -> Response:
        """The answer to the request just sent, its head read. Raises OSError or HTTPException."""
        response = Response(self.inlet, method)
        try:
            response.begin()
        except BaseException:
            response.close()
            raise
        return response

    def in_step(self) -> bool:
        """Whether the next bytes to come can only be the answer to the next request."""
        sock = self.sock
        if sock.fileno() < 0 or (isinstance(sock, TLSSocket) and sock.pending()):
            return False
        return not self.probe()

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
    """Idle connections. `idle_s`: seconds one may wait for its next use; `per_host`: most to keep for one route."""

    _idle: dict[Route, list[Connection]]

    def __init__(self, idle_s: float, per_host: int, clock: Callable[[], float]) -> None:
        self._idle_s = idle_s
        self._per_host = per_host
        self._clock = clock
        self._closed = False
        self._start()

    def take(self, route: Route) -> Connection | None:
        """A live idle connection that is now the caller's alone, None if there is none."""
        if self._pid != os.getpid():
            self._forget_parents()
        while True:
            with self._lock:
                stack = self._idle.get(route)
                if not stack:
                    return None
                connection = stack.pop()
            if self._clock() - connection.idle_since <= self._idle_s and connection.in_step():
                return connection
            connection.close()

    def put(self, connection: Connection) -> None:
        """Takes back a connection whose last answer was read to its exact end; closes it if it cannot be kept."""
        now = connection.idle_since = self._clock()
        if self._pid != os.getpid():
            self._forget_parents()
        surplus: list[Connection] = []
        with self._lock:
            if self._closed or connection.pid != self._pid or not self._per_host:
                surplus.append(connection)
            else:
                stack = self._idle.setdefault(connection.route, [])
                stack.append(connection)
                if len(stack) > self._per_host:
                    surplus.append(stack.pop(0))
                if now >= self._next_sweep:
                    surplus += self._expired(now)
        for spare in surplus:
            spare.close()

    def close(self) -> None:
        """Closes every idle connection; what comes back later is closed too."""
        if self._pid != os.getpid():
            self._forget_parents()
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for stack in idle.values():
            for connection in stack:
                connection.close()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle = {}
        self._next_sweep = 0.0

    def _forget_parents(self) -> None:
        """After a fork the lock may be held for ever and the sockets are the parent's: start anew."""
        idle = self._idle
        self._start()
        for stack in idle.values():
            for connection in stack:
                connection.abandon()

    def _expired(self, now: float) -> list[Connection]:
        """Under the lock: removes and returns what has been idle for too long, on whichever route."""
        self._next_sweep = now + self._idle_s
        gone: list[Connection] = []
        for route, stack in list(self._idle.items()):
            fresh = [connection for connection in stack if now - connection.idle_since <= self._idle_s]
            gone += [connection for connection in stack if now - connection.idle_since > self._idle_s]
            if fresh:
                self._idle[route] = fresh
            else:
                del self._idle[route]
        return gone


def _probe(sock: TimedSocket) -> Callable[[], object]:
    """A function that says whether there is anything to read from `sock`, be it its end."""
    if not hasattr(select, "poll"):  # Windows
        return lambda: select.select([sock], [], [], 0)[0]
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return functools.partial(poll.poll, 0)
