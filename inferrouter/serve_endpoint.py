"""Serves a router to every tool that speaks OpenAI's or Anthropic's format: the class `Serve`, and `serve`.

Strategy: one thread accepts, one more for each connection up to `max_clients`; beyond it a connection that has been idle gives
way, else the newcomer waits in the listen queue. Every request is checked by the guard before its body is read. Stopping ends the
listening, gives up the calls that wait, lets streams run for `grace` seconds and then shuts what is left. Must never know a wire
format, nor show what is said through it.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .errors import ConfigError
from .frozen import shown_once_made
from .meter import Clock, SystemClock
from .redaction import strip_tracebacks
from .secret import Secret
from .serve_bodies import Bodies
from .serve_chat import JSON, Service
from .serve_errors import Problem, invalid, problem_of
from .serve_guard import Guard, Refused, Rules, is_loopback
from .serve_head import BadRequest, Head
from .serve_http import Connection, Crowded, Gone, plain
from .serve_log import CallLog
from .serve_routes import Routes
from .serve_status import Dashboard
from .serve_watch import Watch
from .wire_json import write_json

if TYPE_CHECKING:
    from .meter_metrics import MetricsMeter
    from .router import Router

PORT = 8787
PATIENCE_S = 60.0
IDLE_S = 30.0
"""Seconds a connection may be kept open without a request."""
BACKLOG = 128
LAST_S = 2.0
"""Seconds that threads have to end once their clients are gone; one whose provider cannot be hung up on is left to itself."""
SPARED_S = 1.0
"""Seconds a connection must have been idle before it has to give way to a newcomer."""
log = logging.getLogger("inferrouter.serve")
log.addHandler(logging.NullHandler())


class Serve:
    """An endpoint over `router`, listening from the moment it is made and answering from `start()` on. A context manager.

    `host`: other than this machine's own needs a `token`; `port`: 0 takes a free one. `token`: what clients send as API key, None
    or "": none is asked for. `hosts`: names of this server besides localhost; `origins`: web pages that may ask. `max_clients`:
    connections at a time; `max_wait`: seconds a request waits for a free slot unless its client says how long, None: the
    configuration's, or 60; `max_body`: bytes of one body, `max_bodies` of all that are held at a time (those up to 64 KiB not
    counted; what comes when it is full waits half a minute, then gets a 503). `grace`: seconds that answers under way may take
    when it stops. `metrics`: a meter that `router` has, for `/metrics`; None: the endpoint counts its own calls.
    Raises `ConfigError` if a setting is wrong, the port taken, the router closed, or the address open to others without a token.
    """

    def __init__(
        self,
        router: Router,
        *,
        host: str = "127.0.0.1",
        port: int = PORT,
        token: str | Secret | None = None,
        hosts: Sequence[str] = (),
        origins: Sequence[str] = (),
        max_clients: int = 256,
        max_wait: float | None = None,
        max_body: int = 32 << 20,
        max_bodies: int = 256 << 20,
        grace: float = 10.0,
        metrics: MetricsMeter | None = None,
        clock: Clock | None = None,
    ) -> None:
        loopback = is_loopback(host)
        secret = Secret(token or "")
        del token  # a traceback with locals would show it
        if not loopback and not secret:
            raise ConfigError(f"host: {host} can be reached by others, so a token is needed: token=..., or --token")
        if router.waiting.closed:
            raise ConfigError("router: is closed; make a new one, and keep it open as long as it is served")
        for name, value in (("max_wait", max_wait), ("grace", grace)):
            if value is not None and not 0 <= value < 1e9:  # nor nan
                raise ConfigError(f"{name}: must be a number of seconds, 0 or more")
        if max_clients < 1:
            raise ConfigError("max_clients: must be at least 1")
        if max_bodies < max_body:
            raise ConfigError("max_bodies: must be at least max_body, or the largest body would never be admitted")
        self.router = router
        self.host = host
        self.grace = grace
        self._clock: Clock = clock or SystemClock()
        self._max_body = max_body
        self._bodies = Bodies(max_bodies, self._clock)
        self._guard = Guard(Rules(secret, hosts, origins, loopback), self._clock)
        self._watch = Watch()
        self._log = CallLog(self._clock, metrics)
        self._stopping = threading.Event()
        patience = (router.config.max_wait or PATIENCE_S) if max_wait is None else max_wait
        self._service = Service(router, self._clock, self._log, self._watch, patience, {}, self._stopping)
        self._routes = Routes(self._service, Dashboard(self._service, needs_token=bool(secret)))
        self._slots = threading.Semaphore(max_clients)
        self._lock = threading.Lock()
        self._open: dict[Connection, threading.Thread] = {}
        self._idle_since: dict[Connection, float] = {}
        self._acceptor = threading.Thread(target=self._accept, name="inferrouter-serve", daemon=True)
        self._listener = _listen(host, port)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        """The address: a base URL for any client, with or without /v1 behind it."""
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)  # noqa: S104  compared, not bound
        return f"http://{shown}:{self.port}"

    @property
    def calls(self) -> CallLog:
        """The calls under way and those of the last hour."""
        return self._log

    def start(self) -> Self:
        """Begin to answer; does nothing if it answers already. Raises `ConfigError` after `stop()`."""
        if self._stopping.is_set():
            raise ConfigError("this endpoint was stopped: make a new one")
        if not self._acceptor.is_alive():
            self._watch.start()
            self._acceptor.start()
        return self

    def stop(self, grace: float | None = None) -> None:
        """Stop answering; answers under way may take `grace` more seconds (None: as made). The router stays open.

        May be called twice, by another thread too: the second with 0 ends what is left at once.
        """
        first = not self._stopping.is_set()
        self._stopping.set()
        if first:
            try:
                self._listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # not everywhere can a listening socket be shut; closing it is enough there
            self._listener.close()
            if self._acceptor.is_alive():
                self._acceptor.join()
        self._bodies.close()
        for cancel in list(self._service.cancels.values()):
            cancel.cancel()
        self._log.touch()
        deadline = self._clock.monotonic() + (self.grace if grace is None else grace)
        for connection, thread in self._connections():
            if connection.idle:
                _shut(connection)
            thread.join(max(0.0, deadline - self._clock.monotonic()))
            _shut(connection)
        deadline = self._clock.monotonic() + LAST_S
        for _, thread in self._connections():
            thread.join(max(0.0, deadline - self._clock.monotonic()))
        self._watch.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @shown_once_made
    def __repr__(self) -> str:
        state = "stopped" if self._stopping.is_set() else "open"
        return f"<Serve: {self.url}, {len(self._open)} connections, {state}>"

    def _connections(self) -> list[tuple[Connection, threading.Thread]]:
        with self._lock:
            return list(self._open.items())

    def _accept(self) -> None:
        while not self._stopping.is_set():
            while not self._slots.acquire(timeout=0.2):
                if self._stopping.is_set():
                    return
                self._make_room()
            try:
                sock, address = self._listener.accept()
            except OSError as exc:
                self._slots.release()
                if self._stopping.is_set() or exc.errno in (errno.EBADF, errno.EINVAL):
                    return
                self._stopping.wait(0.05)  # out of files: some will be free again
                continue
            try:
                connection = Connection(sock, self._clock, self._max_body, IDLE_S, self._bodies)
            except OSError:  # gone before it was looked at
                sock.close()
                self._slots.release()
                continue
            thread = threading.Thread(target=self._serve, args=(connection, address[0]), name="inferrouter-client", daemon=True)
            with self._lock:
                self._open[connection] = thread
                self._idle_since[connection] = self._clock.monotonic()
            try:
                thread.start()
            except RuntimeError:  # no thread to be had
                self._forget(connection)

    def _make_room(self) -> None:
        """Close the connection that has been idle longest, so that one that waits can come in."""
        now = self._clock.monotonic()
        with self._lock:
            idle = [(since, connection) for connection, since in self._idle_since.items() if connection.idle]
        longest = min(idle, key=lambda pair: pair[0], default=None)
        if longest is not None and now - longest[0] >= SPARED_S:
            _shut(longest[1])

    def _serve(self, connection: Connection, address: str) -> None:
        try:
            while not self._stopping.is_set():
                self._idle_since[connection] = self._clock.monotonic()
                if not self._request(connection, address) or not connection.keeps:
                    return
        except Gone:
            pass
        except Exception as exc:
            log.error("an error inside the endpoint: %s", type(exc).__name__, exc_info=strip_tracebacks(exc))
        finally:
            self._forget(connection)

    def _request(self, connection: Connection, address: str) -> bool:
        """Serve one request; whether the connection can be used for another. Raises `Gone`."""
        began = self._clock.monotonic()
        line = ["?", "?"]
        status = 0

        def check(head: Head) -> None:
            line[:] = head.method, head.path
            self._guard.check(head, address)

        try:
            request = connection.read(check)
            if request is None:
                return False
            began = self._clock.monotonic()
            extra = self._guard.preflight(request.head) if request.head.method == "OPTIONS" else self._guard.cors(request.head)
            status = self._routes.answer(request, connection, address, extra)
        except BadRequest as exc:
            status = self._refused(connection, address, line, invalid(exc.said, status=exc.status))
        except Refused as exc:
            status = self._refused(connection, address, line, exc.problem)
        except Crowded:
            status = self._refused(connection, address, line, _crowded())
        except Gone:
            status = 499
            raise
        except Exception as exc:
            status = 500
            log.error("an error inside the endpoint: %s", type(exc).__name__, exc_info=strip_tracebacks(exc))
            self._inner_error(connection, line[1], exc)
        finally:
            connection.forget()
            if status:
                self._log.count()
                if log.isEnabledFor(logging.INFO):
                    took = self._clock.monotonic() - began
                    log.info("%s %s %s %d %.3f s", address, line[0], plain(line[1][:200]), status, took)
        return True

    def _refused(self, connection: Connection, address: str, line: Sequence[str], problem: Problem) -> int:
        """Note and answer a request whose body was not read, so that the connection is of no more use."""
        method, path = line
        log.warning("%s %s %s refused with %d: %s", address, method, plain(path[:200]), problem.status, plain(problem.message))
        body = write_json(self._routes.problem(path, problem))
        connection.answer(problem.status, (JSON, *problem.fields), body, close=True)
        return problem.status

    def _inner_error(self, connection: Connection, path: str, error: Exception) -> None:
        problem = problem_of(error, self._clock.time())
        if connection.streaming:
            connection.cut()
        else:
            connection.answer(
                problem.status, (JSON, *problem.fields), write_json(self._routes.problem(path, problem)), close=True
            )

    def _forget(self, connection: Connection) -> None:
        connection.close()
        with self._lock:
            self._open.pop(connection, None)
            self._idle_since.pop(connection, None)
        self._slots.release()


def serve(router: Router, **settings: object) -> Serve:
    """An endpoint over `router` that answers at once; `settings` as for `Serve`. Stop it with `stop()`, or use it in a `with`."""
    return Serve(router, **settings).start()  # type: ignore[arg-type]  # the constructor names what it takes


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise ConfigError("port: must be a whole number from 0 to 65535")
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port: {port} is taken{_holder(port)}; take another with port=..., or --port 0 for any free one"
            ) from None
        raise ConfigError(f"host: cannot listen at {host}:{port} ({exc.strerror or exc})") from None


def _holder(port: int) -> str:
    """ " by process 123 (name)" for what listens on this machine's `port`, as far as the system lets see; else nothing."""
    from .serve_port import listener_of

    found = listener_of(port)
    return f" by {found}" if found else ""


def _crowded() -> Problem:
    said = "the bodies of other requests use all the memory that is set aside for them: ask again in a moment"
    return Problem(503, "server_error", "overloaded", said, fields=(("retry-after", "5"),))


def _shut(connection: Connection) -> None:
    try:
        connection.sock.shutdown(socket.SHUT_RDWR)
    except (OSError, ValueError):
        pass
