"""Our own `urllib.request` opener: proxies as everywhere, HTTP and HTTPS over the pool, and nothing else.

Strategy: one handler serves both schemes. It takes a connection from the pool or opens one, sends, and returns the answer
as it is: no redirect, error, cookie, password, file, ftp or data handler exists, so nothing is followed or sent twice.
Must never know what an answer means. Loaded on first use with `urllib.request`.
"""

from __future__ import annotations

import functools
import math
import ssl
import threading
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import NamedTuple
from urllib.parse import urlsplit

from .pool import Connection, Pool, Route
from .response import Response
from .secret import Secret
from .sockets import Inlet, TimedSocket, connect, secure, tls_context
from .urls import check_header_name, check_header_value, check_url
from .wire import Progress, WireFault, WireRequest

__all__ = ["Answer", "Call", "PooledHandler", "build_opener", "prepare"]

_DEFAULTS = {"User-agent": "inferrouter", "Accept-encoding": "identity"}  # gateways turn urllib's own name away
_OURS = frozenset({"connection", "content-length", "expect", "host", "transfer-encoding"})
_PORTS = {"http": 80, "https": 443}
_EARLY_ANSWER_S = 0.05  # how long to look for an answer after the server stopped taking the request


class Answer(NamedTuple):
    """A response whose head is read, and the connection its body will come from."""

    response: Response
    connection: Connection


class Call(urllib.request.Request):
    """A `WireRequest` on its way. `deadline`: on the transport's clock."""

    def __init__(self, address: Address, request: WireRequest, deadline: float, fresh: bool) -> None:
        vars(self).update(vars(address))  # the URL is parsed already
        self.headers = {}
        self.unredirected_hdrs: dict[str, str] = {}
        self.route = address.route
        self.netloc = address.host
        self.method: str = request.method
        self.body = request.body
        self.deadline = deadline
        self.fresh = fresh
        self.progress = Progress(address.host)
        self.request = request

    @property
    def keyed(self) -> bool:
        """Whether it carries a key."""
        return any(isinstance(value, Secret) for _, value in self.request.headers)


class Address(urllib.request.Request):
    """A URL that was checked and parsed, to be used again and again."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        parts = urlsplit(url)
        self.route = Route(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])


class PooledHandler(urllib.request.BaseHandler):
    """Serves http and https from `pool`. The TLS context is made when first needed."""

    def __init__(self, pool: Pool, context: ssl.SSLContext | None, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self._given = context
        self._context: ssl.SSLContext | None = None
        self._lock = threading.Lock()

    def http_open(self, call: Call) -> Answer:
        """The answer to `call`, its head read. Raises whatever the stdlib raises, or `WireFault`."""
        if self._clock() >= call.deadline:
            raise TimeoutError("no time is left to begin")
        route, authorization = _route(call)
        connection = None if call.fresh else self._pool.take(route)
        if connection is None:
            connection = Connection(route, self._dial(route, call, authorization))
        connection.sock.deadline = call.deadline
        connection.sock.idle = math.inf
        return _exchange(connection, call)

    https_open = http_open

    def _dial(self, route: Route, call: Call, authorization: str) -> TimedSocket:
        """A new connection along `route`: straight, or through a proxy, with TLS where it is asked for."""
        progress = call.progress
        if not route.proxy:
            progress.phase = "connect"
            sock = connect(route.host, route.port, call.deadline, self._clock)
            return secure(sock, self._tls(), route.host) if route.scheme == "https" else sock
        progress.phase = "proxy"
        kind, _, netloc = route.proxy.partition(":")
        parts = urlsplit(f"//{netloc}")
        sock = connect(parts.hostname or "", parts.port or _PORTS[kind], call.deadline, self._clock)
        if route.scheme == "https":
            _tunnel(sock, route, authorization)
            progress.phase = "connect"
            return secure(sock, self._tls(), route.host)
        return secure(sock, self._tls(), parts.hostname or "") if kind == "https" else sock

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            with self._lock:
                self._context = self._context or tls_context(self._given)
        return self._context


def build_opener(handler: PooledHandler) -> urllib.request.OpenerDirector:
    """An opener with `handler` and the environment's proxies, as they are now."""
    opener = urllib.request.OpenerDirector()
    opener.add_handler(urllib.request.ProxyHandler())
    opener.add_handler(handler)
    return opener


def prepare(request: WireRequest, deadline: float, allow_http: bool, fresh: bool) -> Call:
    """`request` in `urllib`'s terms. Raises `WireFault` "setup" if its URL, method or a header cannot be used."""
    if check_header_name(request.method):
        raise WireFault("setup", "the method is no HTTP method", sent=False)
    call = Call(_address(request.url, allow_http), request, deadline, fresh)
    call.unredirected_hdrs = _plain_headers(request, call.netloc)
    return call


def _plain_headers(request: WireRequest, host: str) -> dict[str, str]:
    """The headers as they go over the wire, by names that are spelled as urllib spells them."""
    plain = dict(_DEFAULTS)
    for name, value in request.headers:
        spelled, problem = _spelled(name)
        # The value checked is the plain one, prefix included: what counts here is what goes over the wire.
        plain[spelled] = value.reveal() if isinstance(value, Secret) else value
        problem = problem or check_header_value(plain[spelled])
        if problem is not None:
            raise WireFault("setup", f"the header {name!a} {problem}", sent=False)
    plain["Host"] = host
    if request.body or request.method != "GET":
        plain["Content-length"] = str(len(request.body))
    return plain


@functools.lru_cache(maxsize=256)
def _spelled(name: str) -> tuple[str, str | None]:
    """`name` as urllib spells it, and what is wrong with it."""
    return name.capitalize(), "is set by the transport" if name.lower() in _OURS else check_header_name(name)


@functools.lru_cache(maxsize=256)
def _address(url: str, allow_http: bool) -> Address:
    problem = check_url(url, allow_http)
    if problem is not None:
        raise WireFault("setup", f"the URL {problem}", sent=False)
    return Address(url)


def _route(call: Call) -> tuple[Route, str]:
    """Where `call` goes, after urllib's proxy handler has seen it, and what it says to the proxy of a tunnel."""
    if call.host == call.netloc:
        return call.route, ""
    if call.type not in _PORTS:
        raise WireFault("proxy", "the environment names a proxy of a kind that cannot be used", sent=False)
    route = call.route._replace(proxy=f"{call.type}:{call.host}")
    if route.scheme == "https":
        return route, call.headers.pop("Proxy-authorization", "")
    if call.keyed:
        raise WireFault("proxy", "a key would pass the proxy in the clear; use https, or no_proxy", sent=False)
    return route, ""


def _exchange(connection: Connection, call: Call) -> Answer:
    """Sends `call` and reads the head of its answer; closes the connection if that fails."""
    method = call.method
    progress = call.progress
    progress.phase = "exchange"
    try:
        try:
            connection.transmit(_head(method, call), call.body)
        except (BrokenPipeError, ConnectionResetError) as exc:
            return Answer(_early_answer(connection, method, exc), connection)
        return Answer(connection.receive(method), connection)
    except BaseException:
        progress.reused = connection.used and not connection.sock.received
        connection.close()
        raise


def _head(method: str, call: Call) -> bytes:
    lines = [f"{method} {call.selector or '/'} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in call.header_items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _tunnel(sock: TimedSocket, route: Route, authorization: str) -> None:
    """Asks the proxy at the other end of `sock` for a tunnel; closes `sock` if it is not granted."""
    host = f"[{route.host}]" if ":" in route.host else route.host
    try:
        head = f"CONNECT {host}:{route.port} HTTP/1.1\r\nHost: {host}:{route.port}\r\n"
        head += f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
        sock.sendall(f"{head}\r\n".encode("ascii"))
        inlet = Inlet(sock)
        response = Response(inlet, "CONNECT")
        try:
            response.begin()
        finally:
            response.close()
        if not 200 <= response.status < 300 or inlet.spilled:
            raise WireFault("proxy", f"the proxy answered {response.status} to CONNECT", sent=False)
    except BaseException:
        sock.close()
        raise


def _early_answer(connection: Connection, method: str, failure: OSError) -> Response:
    """The answer of a server that stopped taking the request, if it left one; else raises `failure`."""
    sock = connection.sock
    deadline = sock.deadline
    sock.deadline = min(deadline, sock.clock() + _EARLY_ANSWER_S)
    try:
        response = connection.receive(method)
    except (OSError, HTTPException):
        raise failure from None
    sock.deadline = deadline
    response.will_close = True
    return response
