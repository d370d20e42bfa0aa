"""Our own `urllib.request` opener: proxies as everywhere, HTTP and HTTPS over the pool, and nothing else.

Strategy: one handler serves both schemes. It takes a connection from the pool or opens one, sends, and returns the answer
as it is: no redirect, error, cookie, password, file, ftp or data handler exists, so nothing is followed or sent twice.
Must never know what an answer means. Loaded on first use with `urllib.request`.
"""

from __future__ import annotations

import functools
import http.client
import math
import ssl
import threading
import urllib.request
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from .pool import Connection, Pool, Route
from .secret import Secret
from .sockets import TimedSocket, connect, secure, tls_context
from .urls import check_header_name, check_header_value, check_url
from .wire import Progress, WireFault, WireRequest

__all__ = ["Answer", "Call", "PooledHandler", "build_opener", "prepare"]

_PORTS = {"http": 80, "https": 443}
_EARLY_ANSWER_S = 0.05  # how long to look for an answer after the server stopped taking the request


class Answer(NamedTuple):
    """A response whose head is read, and the connection its body will come from."""

    response: http.client.HTTPResponse
    connection: Connection


class Call(urllib.request.Request):
    """A `WireRequest` on its way. `deadline`: on the transport's clock."""

    route: Route
    netloc: str
    deadline: float
    fresh: bool
    progress: Progress
    secrets: tuple[Secret, ...]


class PooledHandler(urllib.request.AbstractHTTPHandler):
    """Serves http and https from `pool`. The TLS context is made when first needed."""

    def __init__(self, pool: Pool, context: ssl.SSLContext | None, clock: Callable[[], float]) -> None:
        super().__init__()
        self._pool = pool
        self._clock = clock
        self._given = context
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def http_request(self, request: urllib.request.Request) -> urllib.request.Request:
        return self.do_request_(request)

    https_request = http_request

    def http_open(self, call: Call) -> Answer:
        """The answer to `call`, its head read. Raises whatever the stdlib raises, or `WireFault`."""
        headers = {**call.unredirected_hdrs, **call.headers}
        proxied = call.host != call.netloc
        route = call.route._replace(proxy=f"{call.type}:{call.host}") if proxied else call.route
        authorization = headers.pop("Proxy-authorization", "") if proxied and route.scheme == "https" else ""
        if proxied and route.scheme == "http" and call.secrets:
            raise WireFault("proxy", "a key would pass the proxy in the clear; use https, or no_proxy", sent=False)
        connection = None if call.fresh else self._pool.take(route)
        if connection is None:
            call.progress.phase = "proxy" if proxied else "connect"
            connection = Connection(route, self._dial(route, call, authorization))
        else:
            call.progress.reused = True
            connection.wire.deadline = call.deadline
        connection.wire.idle = math.inf
        call.progress.phase = "exchange"
        return self._exchange(connection, call, headers)

    https_open = http_open

    def _exchange(self, connection: Connection, call: Call, headers: dict[str, str]) -> Answer:
        try:
            try:
                connection.transmit(call.get_method(), call.selector, call.data, headers)  # type: ignore[arg-type]  # ours is bytes
            except (BrokenPipeError, ConnectionResetError):
                return Answer(_early_answer(connection), connection)
            return Answer(connection.getresponse(), connection)
        except BaseException:
            connection.close()
            raise
        finally:
            if connection.wire.received:
                call.progress.reused = False

    def _dial(self, route: Route, call: Call, authorization: str) -> TimedSocket:
        """A new connection along `route`: straight, or through a proxy, with TLS where it is asked for."""
        if not route.proxy:
            sock = connect(route.host, route.port, call.deadline, self._clock)
            return secure(sock, self._tls(), route.host) if route.scheme == "https" else sock
        parts = urlsplit("//" + call.host)
        kind = call.type or "http"
        sock = connect(parts.hostname or "", parts.port or _PORTS[kind], call.deadline, self._clock)
        if route.scheme == "https":
            _tunnel(sock, route, authorization)
            call.progress.phase = "connect"
            return secure(sock, self._tls(), route.host)
        return secure(sock, self._tls(), parts.hostname or "") if kind == "https" else sock

    def _tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = tls_context(self._given)
            return self._context


def build_opener(handler: PooledHandler) -> urllib.request.OpenerDirector:
    """An opener with `handler` and the environment's proxies."""
    opener = urllib.request.OpenerDirector()
    opener.addheaders = [("User-Agent", "inferrouter")]  # some gateways turn urllib's own name away
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(handler)
    return opener


def prepare(request: WireRequest, deadline: float, allow_http: bool, fresh: bool) -> Call:
    """`request` in `urllib`'s terms. Raises `WireFault` "setup" if its URL or a header cannot be used."""
    route, netloc = _locate(request.url, allow_http)
    call = Call(request.url, request.body or (b"" if request.method == "POST" else None), method=request.method)
    call.route = route
    call.netloc = netloc
    call.deadline = deadline
    call.fresh = fresh
    call.progress = Progress(route.host)
    call.secrets = tuple(value for _, value in request.headers if isinstance(value, Secret))
    for name, value in request.headers:
        problem = check_header_name(name) or check_header_value(value)
        if problem is not None:
            raise WireFault("setup", f"the header {name!a} {problem}", sent=False)
        call.add_unredirected_header(name, value.reveal() if isinstance(value, Secret) else value)
    return call


@functools.lru_cache(maxsize=256)
def _locate(url: str, allow_http: bool) -> tuple[Route, str]:
    problem = check_url(url, allow_http)
    if problem is not None:
        raise WireFault("setup", f"the URL {problem}", sent=False)
    parts = urlsplit(url)
    return Route(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]), parts.netloc


def _tunnel(sock: TimedSocket, route: Route, authorization: str) -> None:
    """Asks the proxy at the other end of `sock` for a tunnel; closes `sock` if it is not granted."""
    host = f"[{route.host}]" if ":" in route.host else route.host
    try:
        head = f"CONNECT {host}:{route.port} HTTP/1.1\r\nHost: {host}:{route.port}\r\n"
        head += f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
        sock.sendall(f"{head}\r\n".encode("ascii"))
        response = http.client.HTTPResponse(sock, method="CONNECT")
        try:
            response.begin()
        finally:
            response.close()
        if not 200 <= response.status < 300 or sock.spilled:
            raise WireFault("proxy", f"the proxy answered {response.status} to CONNECT", sent=False)
    except BaseException:
        sock.close()
        raise


def _early_answer(connection: Connection) -> http.client.HTTPResponse:
    """The answer of a server that stopped taking the request, if it left one. Called while that error is handled."""
    wire = connection.wire
    deadline, wire.deadline = wire.deadline, min(wire.deadline, wire.clock() + _EARLY_ANSWER_S)
    try:
        response = connection.getresponse()
    except (OSError, http.client.HTTPException):
        response = None
    finally:
        wire.deadline = deadline
    if response is None:
        raise  # noqa: PLE0704  the error in hand is the better one
    return response


