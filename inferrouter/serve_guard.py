"""Decides whether a request may be served at all: its Host, its Origin, its token and its content type.

Strategy: a server on this machine can be reached by every web page in its user's browser, so a Host that is not this server's own
is refused (DNS rebinding), so is an Origin that was not allowed (other sites), and a POST must say that it is JSON, which a form
cannot. A token is compared in constant time; an address that fails too often waits. Must never know what a route does, and never
show a token.
"""

from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Mapping, Sequence

from .errors import ConfigError
from .frozen import frozen_value
from .meter import Clock
from .secret import Secret
from .serve_errors import Problem
from .serve_head import Head
from .serve_http import Fields, field

FAILURES = 30
"""Wrong tokens an address may send in a minute before the next ones are not even looked at."""
_NAME = re.compile(r"[0-9a-z_.-]+")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[0-9a-z_.-]+)(?::[0-9]{1,5})?")
_MAX_ADDRESSES = 4096
_MOST_HOSTS = 64
JSON = "application/json"
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/favicon.ico"})
"""What is answered without a token: pages that show nothing of accounts."""


class Refused(Exception):  # noqa: N818  # an answer, not a fault
    """The request must not be served. `problem`: what the client is told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@frozen_value
class Rules:
    """Who may ask. `token`: empty lets everyone; `hosts`: names of this server besides its addresses; `origins`: web pages of
    others that may ask, each as scheme://host[:port]. `loopback`: whether the server can be reached from this machine alone.
    """

    token: Secret
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    loopback: bool = True


class Guard:
    """Checks heads by `rules`. Thread-safe. Raises `ConfigError` for a host or an origin that no request could have."""

    def __init__(self, rules: Rules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock
        self._hosts = frozenset(_checked("hosts", rules.hosts, _NAME, "a name such as router.lan, without scheme and port"))
        self._origins = frozenset(_checked("origins", rules.origins, _ORIGIN, "scheme://host or scheme://host:port, no pattern"))
        self._seen_hosts: set[str] = set()
        self._lock = threading.Lock()
        self._failures: dict[str, list[float]] = {}

    def check(self, head: Head, address: str) -> None:
        """Raise `Refused` for a request that must not be served. `address`: the client's."""
        if not self._own_host(head.host):
            raise Refused(
                _forbidden(f"{_short(head.host)} is not a name of this server: allow it with --allow-host", "host_not_allowed")
            )
        self._check_origin(head)
        if head.method == "OPTIONS":
            return
        if head.path not in OPEN_PATHS:
            self._check_token(head, address)
        kind = head.fields.get("content-type", "")
        if head.method == "POST" and kind != JSON and kind.partition(";")[0].strip().lower() != JSON:
            raise Refused(
                Problem(415, "invalid_request_error", "content_type", "send the body as Content-Type: application/json")
            )
        coding = head.fields.get("content-encoding", "")
        if coding and coding.lower() != "identity":
            said = f"send the body as it is: Content-Encoding {_short(coding)} is not read here"
            raise Refused(Problem(415, "invalid_request_error", "content_encoding", said))

    def cors(self, head: Head) -> Fields:
        """The headers that let a page of an allowed origin read the answer; none for any other."""
        origin = head.fields.get("origin", "")
        if origin.lower() not in self._origins:
            return ()
        shown = "x-inferrouter-account, x-inferrouter-model, x-inferrouter-provider, retry-after"
        return (("Access-Control-Allow-Origin", origin), ("Vary", "Origin"), ("Access-Control-Expose-Headers", shown))

    def preflight(self, head: Head) -> Fields:
        """The headers that answer an OPTIONS request."""
        cors = self.cors(head)
        if not cors:
            return ()
        asked = field(head.fields, "access-control-request-headers") or "authorization, content-type"
        private = head.fields.get("access-control-request-private-network") == "true"
        return (
            *cors,
            ("Access-Control-Allow-Methods", "GET, POST, OPTIONS"),
            ("Access-Control-Allow-Headers", asked),
            ("Access-Control-Max-Age", "600"),
            *((("Access-Control-Allow-Private-Network", "true"),) if private else ()),
        )

    def _own_host(self, host: str) -> bool:
        if host in self._seen_hosts:
            return True
        own = self._is_own(host)
        if own and len(self._seen_hosts) < _MOST_HOSTS:
            self._seen_hosts.add(host)
        return own

    def _is_own(self, host: str) -> bool:
        name = _name_of(host)
        if not host or name in self._hosts or name in ("localhost", "localhost."):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._rules.loopback  # a name can be made to point here, an address cannot

    def _check_origin(self, head: Head) -> None:
        origin = head.fields.get("origin")
        if origin is None:
            site = head.fields.get("sec-fetch-site", "none")
            opens_page = head.method == "GET" and head.fields.get("sec-fetch-mode") == "navigate" and head.path == "/"
            if site in ("none", "same-origin") or opens_page:
                return
        elif origin.lower() in self._origins or origin.lower() in (f"http://{head.host.lower()}", f"https://{head.host.lower()}"):
            return
        where = _short(origin or "another site")
        raise Refused(_forbidden(f"web pages of {where} may not ask here: allow them with --allow-origin", "origin_not_allowed"))

    def _check_token(self, head: Head, address: str) -> None:
        if not self._rules.token:
            return
        now = self._clock.monotonic()
        if self._failed_often(address, now):
            said = "too many wrong tokens from this address; wait a minute"
            raise Refused(Problem(429, "rate_limit_error", "too_many_failures", said, fields=(("retry-after", "60"),)))
        if self._rules.token != token_of(head.fields):  # compared in constant time
            with self._lock:
                if len(self._failures) >= _MAX_ADDRESSES:
                    self._failures.clear()
                self._failures.setdefault(address, []).append(now)
            said = "the token is missing or wrong: send it as Authorization: Bearer TOKEN, which most tools call their API key"
            fields = (("WWW-Authenticate", "Bearer"),)
            raise Refused(Problem(401, "authentication_error", "invalid_api_key", said, fields=fields))

    def _failed_often(self, address: str, now: float) -> bool:
        if address not in self._failures:
            return False
        with self._lock:
            recent = [moment for moment in self._failures.get(address, ()) if now - moment < 60.0]
            if recent:
                self._failures[address] = recent
            else:
                self._failures.pop(address, None)
        return len(recent) >= FAILURES


def token_of(fields: Mapping[str, str]) -> Secret:
    """The token a client sent, in whichever header its dialect uses; empty if none came."""
    kind, _, value = fields.get("authorization", "").partition(" ")
    found = value.strip() if kind.lower() == "bearer" else ""
    return Secret(found or field(fields, "x-api-key", "x-goog-api-key", "api-key"))


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked(what: str, given: Sequence[str], pattern: re.Pattern[str], shape: str) -> list[str]:
    found = [each.lower().rstrip("/") for each in given]
    wrong = [each for each in found if not pattern.fullmatch(each)]
    if wrong:
        raise ConfigError(f"{what}: {_short(wrong[0])} is not {shape}")
    return found


def _name_of(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _forbidden(message: str, code: str) -> Problem:
    return Problem(403, "permission_error", code, message)


def _short(text: str) -> str:
    return repr(text[:100])
