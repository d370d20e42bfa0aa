"""Opens requests over the pool's connections, through the environment's proxies as `urllib.request` finds them.

Strategy: one handler serves http and https. It takes a connection from the pool or opens one, sends, and returns the answer as
it is: there is no handler for redirects, errors, cookies, passwords, files, ftp or data, so nothing is followed or sent twice.
URL and headers are checked before anything is opened. urllib is asked only where a proxy may be named: what it loads was 5 ms of
what a script waited for before its first call. Must never know what an answer means. Loaded on first use.
"""

from __future__ import annotations

import functools
import math
import os
import ssl
import sys
from collections.abc import Callable
from http.client import HTTPException
from urllib.parse import urlsplit

from .connections import Connection, Destination, Pool, TimedSocket, connect, secure, tls_context
from .frozen import NamedTuple, new_tuple
from .http_head import BodyReader, Response
from .secret import Secret
from .validation import check_header_name, check_header_value, check_url, names_credential
from .wire import Headers, RequestPhase, Stop, WireFault, WireRequest

_DEFAULTS = {"User-agent": "inferrouter", "Accept-encoding": "identity"}  # some gateways refuse urllib's own user agent
_RESERVED = frozenset({"connection", "content-length", "expect", "host", "transfer-encoding"})
_METHODS = frozenset(("POST", "GET"))
_PORTS = {"http": 80, "https": 443}
_MOST_CHECKED = 4096  # sets of headers that are kept for one URL
_ASK_THE_SYSTEM = frozenset(("darwin", "win32"))  # where urllib also looks for proxies outside of the environment
_EARLY_ANSWER_S = 0.05  # how long to look for an answer after the server stopped taking the request


class OpenResponse(NamedTuple):
    """A response whose head is read, and the connection its body will come from."""

    response: Response
    connection: Connection


class CheckedHeaders(NamedTuple):
    """Headers that can be sent, by names spelled as urllib spells them. `lines`: as they go over the wire, but for `secrets`.
    `destination`: where requests with them go, which the keys among them decide too; `carries_key`: whether one is a secret, or
    named like one."""

    given: Headers
    lines: str
    secrets: tuple[tuple[str, Secret], ...]
    destination: Destination
    carries_key: bool


class OutgoingRequest:
    """A `WireRequest` on its way. `deadline`: seconds on the transport's clock.

    An opener of `urllib.request` takes it for one of its own: `type`, `host`, `selector`, `full_url`, `headers` and the methods
    are what that and its proxy handler ask for. They change `type`, `host` and `selector` to those of the proxy.
    """

    data = None  # for the opener, as `timeout`, which it sets itself: both go past it
    tunnelled = False

    def __init__(
        self,
        parsed: ParsedUrl,
        request: WireRequest,
        checked: CheckedHeaders,
        deadline: float,
        new_connection: bool,
        stop: Stop | None = None,
    ) -> None:
        self.type = parsed.destination.scheme
        self.host = parsed.host
        self.selector = parsed.selector
        self.full_url = request.url
        self.headers: dict[str, str] = {}  # what urllib's proxy handler has to say
        self.lines = checked.lines
        self.secrets = checked.secrets
        self.carries_key = checked.carries_key
        self.destination = checked.destination
        self.netloc = parsed.host
        self.method: str = request.method
        self.body = request.body
        self.deadline = deadline
        self.new_connection = new_connection
        self.stop = stop
        self.phase = RequestPhase(parsed.host)
        self.request = request

    def get_method(self) -> str:
        """For the opener."""
        return self.method

    def add_header(self, name: str, value: str) -> None:
        """For the proxy handler, who has a password to say."""
        self.headers[name] = value

    def set_proxy(self, host: str, kind: str) -> None:
        """For the proxy handler: it goes to `host` first, which is asked for a tunnel or, for plain http, takes the whole URL."""
        if self.type == "https" and not self.tunnelled:
            self.tunnelled = True
        else:
            self.type = kind
            self.selector = self.full_url
        self.host = host


class ParsedUrl:
    """A URL that was checked and parsed, kept for later requests to it, with the headers that were checked for it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        path = url[len(f"{parts.scheme}://{parts.netloc}") :]
        self.selector = path if path.startswith("/") else f"/{path}"
        self.destination = Destination(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])
        self._checked: dict[int, CheckedHeaders] = {}

    def checked(self, headers: Headers) -> CheckedHeaders:
        """`headers`, checked once as long as they are the same object. Raises `WireFault` "setup"."""
        if headers.__class__ is not tuple:  # a provider of the user's own may hand in a list, and change it
            return _checked(headers, self.destination, self.host)
        known = self._checked.get(id(headers))
        if known is None or known.given is not headers:
            if len(self._checked) >= _MOST_CHECKED:
                self._checked.clear()
            known = self._checked[id(headers)] = _checked(headers, self.destination, self.host)
        return known


class PooledHandler:
    """Handles http and https with connections of `pool`.

    `context`: for TLS, None for the default, which also trusts the certificates in `ca_file` and is made when first needed.
    """

    def __init__(self, pool: Pool, context: ssl.SSLContext | None, ca_file: str | None, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._clock = clock
        self._given = context
        self._ca_file = ca_file
        self._context: dict[None, ssl.SSLContext] = {}  # empty, or the one in use

    def open(self, outgoing: OutgoingRequest) -> OpenResponse:
        """The answer to `outgoing`, its head read. Raises whatever the stdlib raises, or `WireFault`."""
        if self._clock() >= outgoing.deadline:
            raise TimeoutError("no time is left to begin")
        destination, authorization = _destination(outgoing)
        connection = None if outgoing.new_connection else self._pool.take(destination)
        if connection is None:
            connection = Connection(destination, self._dial(destination, outgoing, authorization))
        connection.sock.deadline = outgoing.deadline
        connection.sock.idle = math.inf
        if outgoing.stop is not None:
            _cut_by(connection, outgoing.stop)
        return _exchange(connection, outgoing)

    def _dial(self, destination: Destination, outgoing: OutgoingRequest, authorization: str) -> TimedSocket:
        """A new connection along `destination`: straight, or through a proxy, with TLS where it is asked for."""
        phase = outgoing.phase
        if destination.scheme == "https":
            self._tls()  # what is wrong with it is told before anything is opened
        if not destination.proxy:
            phase.phase = "connect"
            sock = connect(destination.host, destination.port, outgoing.deadline, self._clock, outgoing.stop)
            return secure(sock, self._tls(), destination.host, outgoing.stop) if destination.scheme == "https" else sock
        phase.phase = "proxy"
        kind, _, netloc = destination.proxy.partition(":")
        parts = urlsplit(f"//{netloc}")
        sock = connect(parts.hostname or "", parts.port or _PORTS[kind], outgoing.deadline, self._clock, outgoing.stop)
        if destination.scheme == "https":
            _tunnel(sock, destination, authorization)
            phase.phase = "connect"
            return secure(sock, self._tls(), destination.host, outgoing.stop)
        return secure(sock, self._tls(), parts.hostname or "", outgoing.stop) if kind == "https" else sock

    def _tls(self) -> ssl.SSLContext:
        return self._context.get(None) or self._context.setdefault(None, tls_context(self._given, self._ca_file))


def open_with(handler: PooledHandler) -> Callable[[OutgoingRequest], OpenResponse]:
    """What opens a request with `handler`, by the environment's proxies as they are now: `handler` alone where it names none, as
    an opener's way to its one handler is 3 % of a small call."""
    if sys.platform not in _ASK_THE_SYSTEM and not any(name[-6:].lower() == "_proxy" for name in os.environ):
        return handler.open
    import urllib.request

    proxies = urllib.request.ProxyHandler()
    if not any(hasattr(proxies, f"{scheme}_open") for scheme in _PORTS):
        return handler.open
    ours = urllib.request.BaseHandler()
    vars(ours).update({f"{scheme}_open": handler.open for scheme in _PORTS})
    opener = urllib.request.OpenerDirector()
    opener.add_handler(proxies)
    opener.add_handler(ours)
    return opener.open  # type: ignore[return-value]  # the answer is our handler's


def prepare(
    request: WireRequest, deadline: float, allow_http: bool, new_connection: bool, stop: Stop | None = None
) -> OutgoingRequest:
    """`request` in `urllib`'s terms. Raises `WireFault` "setup" if its URL, method or a header cannot be used."""
    if request.method not in _METHODS and check_header_name(request.method):
        raise WireFault("setup", "the method is not an HTTP method", sent=False)
    parsed = _address(request.url, allow_http)
    checked = parsed.checked(request.headers)
    return OutgoingRequest(parsed, request, checked, deadline, new_connection, stop)


def _checked(headers: Headers, destination: Destination, host: str) -> CheckedHeaders:
    spelled: dict[str, str | Secret] = {"Host": host, **_DEFAULTS}
    for name, value in headers:
        word, problem = _spelled(name)
        # The value is checked in the clear, with its prefix: as it goes over the wire.
        problem = problem or check_header_value(value.reveal() if isinstance(value, Secret) else value)
        if problem is not None:
            raise WireFault("setup", f"the header {name!a} {problem}", sent=False)
        spelled[word] = value
    keys = tuple(value for name, value in headers if isinstance(value, Secret) or names_credential(name))
    lines = "".join([f"{name}: {value}\r\n" for name, value in spelled.items() if not isinstance(value, Secret)])
    secrets = tuple([(name, value) for name, value in spelled.items() if isinstance(value, Secret)])
    return CheckedHeaders(headers, lines, secrets, destination._replace(owner=hash(keys)), bool(keys))


@functools.lru_cache(maxsize=256)  # without it a small call takes 2.5 % longer
def _spelled(name: str) -> tuple[str, str | None]:
    """`name` as urllib spells it, and what is wrong with it or None."""
    return name.capitalize(), "is set by the transport" if name.lower() in _RESERVED else check_header_name(name)


@functools.lru_cache(maxsize=256)
def _address(url: str, allow_http: bool) -> ParsedUrl:
    problem = check_url(url, allow_http)
    if problem is not None:
        raise WireFault("setup", f"the URL {problem}", sent=False)
    return ParsedUrl(url)


def _destination(outgoing: OutgoingRequest) -> tuple[Destination, str]:
    """Where `outgoing` goes, after urllib's proxy handler has seen it, and what it says to the proxy of a tunnel."""
    if outgoing.host == outgoing.netloc:
        return outgoing.destination, ""
    if outgoing.type not in _PORTS:
        raise WireFault("proxy", "the environment names a proxy of a kind that cannot be used", sent=False)
    destination = outgoing.destination._replace(proxy=f"{outgoing.type}:{outgoing.host}")
    if destination.scheme == "https":
        return destination, outgoing.headers.pop("Proxy-authorization", "")
    if outgoing.carries_key:
        raise WireFault("proxy", "a key would pass the proxy in the clear; use https, or no_proxy", sent=False)
    return destination, ""


def _cut_by(connection: Connection, stop: Stop) -> None:
    """Let `stop` end what this connection carries next; closes it if that was thrown already."""
    try:
        connection.sock.cut_by(stop)
    except OSError:
        connection.close()
        raise


def _exchange(connection: Connection, outgoing: OutgoingRequest) -> OpenResponse:
    """Sends `outgoing` and reads the head of its answer; closes the connection if that fails."""
    method = outgoing.method
    phase = outgoing.phase
    phase.phase = "exchange"
    try:
        try:
            connection.transmit(_head(method, outgoing), outgoing.body)
        except (BrokenPipeError, ConnectionResetError) as exc:
            return OpenResponse(_early_answer(connection, method, exc), connection)
        return new_tuple(OpenResponse, (connection.receive(method), connection))
    except BaseException:
        phase.reused = connection.used and not connection.sock.received
        connection.close()
        raise


def _head(method: str, outgoing: OutgoingRequest) -> bytes:
    lines = outgoing.lines
    for name, secret in outgoing.secrets:
        lines += f"{name}: {secret.reveal()}\r\n"
    for name, value in outgoing.headers.items():
        lines += f"{name}: {value}\r\n"
    if outgoing.body or method != "GET":
        lines += f"Content-length: {len(outgoing.body)}\r\n"
    return f"{method} {outgoing.selector} HTTP/1.1\r\n{lines}\r\n".encode("ascii")


def _tunnel(sock: TimedSocket, destination: Destination, authorization: str) -> None:
    """Asks the proxy at the other end of `sock` for a tunnel; closes `sock` if it is not granted."""
    host = f"[{destination.host}]" if ":" in destination.host else destination.host
    try:
        head = f"CONNECT {host}:{destination.port} HTTP/1.1\r\nHost: {host}:{destination.port}\r\n"
        head += f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
        sock.sendall(f"{head}\r\n".encode("ascii"))
        reader = BodyReader(sock)
        response = Response(reader, "CONNECT")
        try:
            response.begin()
        finally:
            response.close()
        if not 200 <= response.status < 300 or reader.out_of_sync:
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
