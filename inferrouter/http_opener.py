"""Sends requests over the pool's connections, through the environment's proxies as `urllib.request` finds them.

Strategy: one opener serves http and https. It takes a connection from the pool or opens one, sends, and returns the connection as
soon as the head of the answer is read: nothing is followed or sent twice. URL and headers are checked before anything is opened,
once for all requests that have both in common. urllib is asked for the way alone, and only where a proxy may be named: what it
loads was 5 ms of what a script waited for before its first call. Must never know what an answer means. Loaded on first use.
"""

from __future__ import annotations

import functools
import math
import os
import ssl
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .connections import Connection, Destination, Pool, TimedSocket, connect, secure, tls_context
from .frozen import NamedTuple
from .http_answer import Answers
from .secret import Secret
from .validation import check_header_name, check_header_value, check_url, names_credential
from .wire import Headers, RequestPhase, Stop, WireFault, WireRequest

if TYPE_CHECKING:
    import urllib.request

_DEFAULTS = {"User-agent": "inferrouter", "Accept-encoding": "identity"}  # some gateways refuse urllib's own user agent
_RESERVED = frozenset({"connection", "content-length", "expect", "host", "transfer-encoding"})
_SAID = "Proxy-authorization"  # as urllib spells it
_METHODS = frozenset(("POST", "GET"))
_PORTS = {"http": 80, "https": 443}
_MOST_PREPARED = 4096  # pairs of a URL and headers that are kept
_ASK_THE_SYSTEM = frozenset(("darwin", "win32"))  # where urllib also looks for proxies outside of the environment
_ONE_SEGMENT = 64 << 10  # bytes; a copy is cheaper than a second send, which costs 4 % of a small call
_EARLY_ANSWER_S = 0.05  # how long to look for an answer after the server stopped taking the request


class Address(NamedTuple):
    """A URL that was checked and parsed. `host`: as messages name it, and a request; `selector`: what its first line asks for."""

    host: str
    selector: str
    destination: Destination


class Prepared:
    """What was worked out for all requests to one URL with the same headers. `lines`: the head, by names spelled as urllib spells
    them, from behind what its first line asks for, but for the `secrets`. `destination`: where they go, which the keys in the
    headers decide too; `carries_key`: whether there is one, be it only by the name of its header."""

    __slots__ = ("carries_key", "destination", "given", "host", "lines", "secrets", "selector")

    def __init__(self, address: Address, headers: Headers) -> None:
        self.given = headers  # kept, so that their id stays theirs, see `Opener`
        self.host = address.host
        self.selector = address.selector
        spelled: dict[str, str | Secret] = {"Host": address.host, **_DEFAULTS}
        for name, value in headers:
            word, problem = _spelled(name)
            # The value is checked in the clear, with its prefix: as it goes over the wire.
            problem = problem or check_header_value(value.reveal() if isinstance(value, Secret) else value)
            if problem is not None:
                raise WireFault("setup", f"the header {name!a} {problem}", sent=False)
            spelled[word] = value
        keys = tuple(value for name, value in headers if isinstance(value, Secret) or names_credential(name))
        plain = [f"{name}: {value}\r\n" for name, value in spelled.items() if not isinstance(value, Secret)]
        self.lines = f" HTTP/1.1\r\n{''.join(plain)}"
        self.secrets = tuple([(name, value) for name, value in spelled.items() if isinstance(value, Secret)])
        self.destination = address.destination._replace(owner=hash(keys))
        self.carries_key = bool(keys)


class ProxyQuestion:
    """A request as `urllib.request` asks about one, when it is asked by which proxy it goes: without keys, and without a body.

    `type`, `host`, `selector`, `full_url`, `headers` and the methods are what its opener and its proxy handler ask for. They
    change `type`, `host` and `selector` to those of the proxy.
    """

    data = None  # for the opener, as `timeout`, which it sets itself: both go past it
    tunnelled = False

    def __init__(self, prepared: Prepared, request: WireRequest) -> None:
        self.type = prepared.destination.scheme
        self.host = prepared.host
        self.selector = prepared.selector
        self.full_url = request.url
        self.headers: dict[str, str] = {}  # what urllib's proxy handler has to say
        self.method: str = request.method

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


class Opener:
    """Sends requests over connections of `pool`, http and https, along the environment's proxies as they are when it is made.

    `context`: for TLS, None for the default, which also trusts the certificates in `ca_file` and is made when first needed.
    """

    def __init__(self, pool: Pool, context: ssl.SSLContext | None, ca_file: str | None, clock: Callable[[], float]) -> None:
        self.pool = pool
        self._clock = clock
        self._given = context
        self._ca_file = ca_file
        self._context: dict[None, ssl.SSLContext] = {}  # empty, or the one in use
        self._prepared: dict[tuple[str, bool, int], Prepared] = {}  # by URL, whether it may be plain http, and id of the headers
        self.proxies = _proxies()

    def open(
        self,
        request: WireRequest,
        phase: RequestPhase,
        deadline: float,
        allow_http: bool,
        new_connection: bool,
        stop: Stop | None,
    ) -> Connection:
        """A connection with the head of the answer to `request` read, whose body will come from it. Tells `phase` how far it is.

        `deadline`: seconds on the transport's clock. Raises whatever the stdlib raises, or `WireFault`, "setup" if the URL, the
        method or a header cannot be used.
        """
        method = request.method
        if method not in _METHODS and check_header_name(method):
            raise WireFault("setup", "the method is not an HTTP method", sent=False)
        url, headers = request.url, request.headers
        prepared = self._prepared.get((url, allow_http, id(headers)))
        if prepared is None:
            prepared = self._prepare(url, allow_http, headers)
        phase.host = prepared.host
        now = self._clock()
        if now >= deadline:
            raise TimeoutError("no time is left to begin")
        destination, target, authorization = prepared.destination, prepared.selector, ""
        if self.proxies is not None:
            destination, target, authorization = _way(self.proxies, prepared, request)
        connection = None if new_connection else self.pool.take(destination, now)
        if connection is None:
            connection = Connection(destination, self._dial(destination, phase, deadline, stop, authorization))
        try:
            sock = connection.sock
            sock.deadline = deadline
            sock.idle = math.inf
            sock.silent = True
            if stop is not None:
                sock.cut_by(stop)
            phase.phase = "exchange"
            body = request.body
            head = f"{method} {target}{prepared.lines}"
            for name, secret in prepared.secrets:
                head += f"{name}: {secret.reveal()}\r\n"
            if authorization and destination.scheme == "http":
                head += f"{_SAID}: {authorization}\r\n"
            length = f"Content-length: {len(body)}\r\n" if body or method != "GET" else ""
            data = f"{head}{length}\r\n".encode("ascii")
            try:
                if len(body) <= _ONE_SEGMENT:
                    sock.sendall(data + body)
                else:
                    sock.sendall(data)
                    sock.sendall(body)
            except (BrokenPipeError, ConnectionResetError) as exc:
                _early_answer(connection, method, exc)
            else:
                connection.begin(method)
        except BaseException:
            phase.reused = connection.used and connection.sock.silent
            connection.close()
            raise
        return connection

    def _prepare(self, url: str, allow_http: bool, headers: Headers) -> Prepared:
        """What such requests need, kept for as long as the headers are the same object. Raises `WireFault` "setup"."""
        prepared = Prepared(_address(url, allow_http), headers)
        if headers.__class__ is tuple:  # a provider of the user's own may hand in a list, and change it
            if len(self._prepared) >= _MOST_PREPARED:
                self._prepared.clear()
            self._prepared[url, allow_http, id(headers)] = prepared
        return prepared

    def _dial(
        self, destination: Destination, phase: RequestPhase, deadline: float, stop: Stop | None, authorization: str
    ) -> TimedSocket:
        """A new connection along `destination`: straight, or through a proxy, with TLS where it is asked for."""
        if destination.scheme == "https":
            self._tls()  # what is wrong with it is told before anything is opened
        if not destination.proxy:
            phase.phase = "connect"
            sock = connect(destination.host, destination.port, deadline, self._clock, stop)
            return secure(sock, self._tls(), destination.host, stop) if destination.scheme == "https" else sock
        phase.phase = "proxy"
        kind, _, netloc = destination.proxy.partition(":")
        parts = urlsplit(f"//{netloc}")
        sock = connect(parts.hostname or "", parts.port or _PORTS[kind], deadline, self._clock, stop)
        if destination.scheme == "https":
            _tunnel(sock, destination, authorization)
            phase.phase = "connect"
            return secure(sock, self._tls(), destination.host, stop)
        return secure(sock, self._tls(), parts.hostname or "", stop) if kind == "https" else sock

    def _tls(self) -> ssl.SSLContext:
        return self._context.get(None) or self._context.setdefault(None, tls_context(self._given, self._ca_file))


def _proxies() -> urllib.request.OpenerDirector | None:
    """What finds the proxy of a request among those that the environment names now; None where it names none, as an opener's way
    to its one handler is 3 % of a small call."""
    if sys.platform not in _ASK_THE_SYSTEM and not any(name[-6:].lower() == "_proxy" for name in os.environ):
        return None
    import urllib.request

    proxies = urllib.request.ProxyHandler()
    if not any(hasattr(proxies, f"{scheme}_open") for scheme in _PORTS):
        return None
    found = urllib.request.BaseHandler()
    vars(found).update({f"{scheme}_open": lambda asked: asked for scheme in _PORTS})
    opener = urllib.request.OpenerDirector()
    opener.add_handler(proxies)
    opener.add_handler(found)
    return opener


def _way(proxies: urllib.request.OpenerDirector, prepared: Prepared, request: WireRequest) -> tuple[Destination, str, str]:
    """How `request` goes by the environment's proxies: where to, what its first line asks for, what it says to the proxy."""
    asked = ProxyQuestion(prepared, request)
    proxies.open(asked)  # type: ignore[arg-type]  # it has what is asked for
    if asked.host == prepared.host:
        return prepared.destination, prepared.selector, ""
    if asked.type not in _PORTS:
        raise WireFault("proxy", "the environment names a proxy of a kind that cannot be used", sent=False)
    destination = prepared.destination._replace(proxy=f"{asked.type}:{asked.host}")
    if destination.scheme == "http" and prepared.carries_key:
        raise WireFault("proxy", "a key would pass the proxy in the clear; use https, or no_proxy", sent=False)
    return destination, asked.selector if destination.scheme == "http" else prepared.selector, asked.headers.get(_SAID, "")


@functools.lru_cache(maxsize=256)  # without it a small call takes 2.5 % longer
def _spelled(name: str) -> tuple[str, str | None]:
    """`name` as urllib spells it, and what is wrong with it or None."""
    return name.capitalize(), "is set by the transport" if name.lower() in _RESERVED else check_header_name(name)


@functools.lru_cache(maxsize=256)
def _address(url: str, allow_http: bool) -> Address:
    problem = check_url(url, allow_http)
    if problem is not None:
        raise WireFault("setup", f"the URL {problem}", sent=False)
    parts = urlsplit(url)
    path = url[len(f"{parts.scheme}://{parts.netloc}") :]
    destination = Destination(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme])
    return Address(parts.netloc, path if path.startswith("/") else f"/{path}", destination)


def _tunnel(sock: TimedSocket, destination: Destination, authorization: str) -> None:
    """Asks the proxy at the other end of `sock` for a tunnel; closes `sock` if it is not granted."""
    host = f"[{destination.host}]" if ":" in destination.host else destination.host
    try:
        head = f"CONNECT {host}:{destination.port} HTTP/1.1\r\nHost: {host}:{destination.port}\r\n"
        head += f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
        sock.sendall(f"{head}\r\n".encode("ascii"))
        answer = Answers(sock)
        answer.begin("CONNECT")
        if not 200 <= answer.status < 300 or answer.at != len(answer.data):
            raise WireFault("proxy", f"the proxy answered {answer.status} to CONNECT", sent=False)
    except BaseException:
        sock.close()
        raise


def _early_answer(connection: Connection, method: str, failure: OSError) -> None:
    """Reads the head of the answer of a server that stopped taking the request, if it left one; else raises `failure`."""
    sock = connection.sock
    deadline = sock.deadline
    sock.deadline = min(deadline, sock.clock() + _EARLY_ANSWER_S)
    try:
        connection.begin(method)
    except Exception as exc:
        from http.client import HTTPException

        if isinstance(exc, (OSError, HTTPException)):
            raise failure from None
        raise
    sock.deadline = deadline
    connection.will_close = True
