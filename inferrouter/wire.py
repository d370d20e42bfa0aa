"""Defines the request that goes to the transport, and the fault that may come back.

Strategy: one fault type with a kind, and with the fact that decides what is charged: may the provider have worked on the request
(`sent`)? Foreign exceptions become faults in one function. It strips their tracebacks, because frames of the transport hold
headers in the clear, and drops a cause that would quote a key. Must never know sockets, pools, providers or accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from .frozen import frozen_value, quick, shown_once_made
from .secret import Secret
from .validation import check_url

Headers = tuple[tuple[str, str | Secret], ...]


@frozen_value
class WireRequest:
    """One HTTP request. Keys belong into `headers`, as `Secret`s; the repr shows neither header values nor the body.

    `dropped`: parameters of the chat request that are not in it, by name, set by `Provider.encode`; None if it does not say.
    """

    url: str
    body: bytes = b""
    headers: Headers = ()
    method: str = "POST"
    dropped: tuple[str, ...] | None = None

    @shown_once_made
    def __repr__(self) -> str:
        address = self.url.partition("?")[0] if check_url(self.url, allow_http=True) is None else "(unusable URL)"
        return f"WireRequest({self.method} {address}, {len(self.headers)} headers, {len(self.body)} bytes)"


new_request = quick(WireRequest)


class Stop(Protocol):
    """Ends one exchange from another thread. `cut`: it was ended; true before what `cuts` was last given is called."""

    cut: bool

    def cuts(self, shut: Callable[[], None] | None) -> None:
        """What ends the exchange in its present state, None: nothing does. Whoever gives it looks at `cut` after that."""


class WireFault(Exception):  # noqa: N818  a fault of the transport, which the walk turns into an error of the tree
    """The only exception that leaves the transport. Its text is safe to show.

    `kind`: "setup" (URL or header unusable), "dns", "refused", "tls", "proxy", "timeout", "cut" (closed, reset, truncated),
    "protocol" (not HTTP as it should be), "redirect", "encoding", "too_large". `sent`: False only if the provider surely did
    nothing for this request. `reused`: a kept-alive connection died before the first byte of the answer. `lasting`: trying again
    does not help until somebody fixes what the message names.
    """

    def __init__(self, kind: str, message: str, *, sent: bool = True, reused: bool = False, lasting: bool = False) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message
        self.sent = sent
        self.reused = reused
        self.lasting = lasting

    def __str__(self) -> str:
        return self.message


_CERTIFICATE_ADVICE = (
    "check that base_url names the right server and that this machine's clock is right; a server of your own, or a company's "
    "proxy, may need its CA as transport.ca_file"
)


class RequestPhase:
    """How far a request has come. `phase`: "setup", "proxy", "connect" or "exchange"; `reused`: it failed on a kept-alive
    connection before the first byte of the answer; `host`: for messages.
    """

    host = ""
    phase = "setup"
    reused = False


def fault_from(exc: Exception, phase: RequestPhase, headers: Headers) -> WireFault:
    """`exc` as a `WireFault`, with `exc` as its cause unless that quotes a secret of `headers`. No traceback survives."""
    if isinstance(exc, WireFault):
        fault = exc
        fault.__cause__ = fault.__context__ = None
        if contains_secret(exc, _secrets(headers)):
            fault = WireFault(exc.kind, f"the server's answer is unusable ({exc.kind})", sent=exc.sent, reused=exc.reused)
    else:
        kind, message = _explain(exc, phase)
        sent = phase.phase == "exchange"
        lasting = _CERTIFICATE_ADVICE in message
        fault = WireFault(kind, message, sent=sent, reused=phase.reused and kind == "cut", lasting=lasting)
        # Before the connection stands, other texts than the operating system's may quote a proxy's password.
        quotes = phase.phase in ("setup", "proxy") and not isinstance(exc, OSError)
        fault.__cause__ = None if quotes or contains_secret(exc, _secrets(headers)) else exc
    for link in _chain(exc):
        link.__traceback__ = None
    return fault


def contains_secret(exc: BaseException, secrets: Sequence[Secret]) -> bool:
    """Whether `exc`, or anything behind it, shows one of `secrets` in its text, arguments or attributes."""
    for link in _chain(exc):
        text = f"{link!s} {link!r} {link.args!r} {vars(link)!r}"
        if any(secret.shows_in(text) for secret in secrets):
            return True
    return False


def _explain(exc: Exception, phase: RequestPhase) -> tuple[str, str]:
    host = phase.host or "the server"
    if isinstance(exc, TimeoutError):
        doing = "answer of" if phase.phase == "exchange" else "connection to"
        return "timeout", f"the time for the {doing} {host} ran out"
    if phase.phase == "exchange":
        return _explain_exchange(exc, host)
    if phase.phase == "proxy":
        return "proxy", f"no connection to {host} through the proxy ({_reason(exc)})"
    if phase.phase == "connect":
        return _explain_connect(exc, host)
    return "setup", f"the request cannot be sent ({type(exc).__name__})"


def _explain_connect(exc: Exception, host: str) -> tuple[str, str]:
    import socket
    import ssl

    if isinstance(exc, (socket.gaierror, UnicodeError)):
        return "dns", f"the host name {host} does not resolve"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "tls", f"the certificate of {host} is not valid ({exc.verify_message.rstrip('.')}): {_CERTIFICATE_ADVICE}"
    if isinstance(exc, (ssl.SSLError, ConnectionResetError, BrokenPipeError)):
        return "tls", f"no TLS connection to {host} ({_reason(exc)})"
    return "refused", f"no connection to {host} ({_reason(exc)})"


def _explain_exchange(exc: Exception, host: str) -> tuple[str, str]:
    import http.client

    if isinstance(exc, (OSError, http.client.IncompleteRead)):
        return "cut", f"the connection to {host} broke off ({_reason(exc)})"
    return "protocol", f"the answer of {host} is not proper HTTP ({type(exc).__name__})"


def _reason(exc: Exception) -> str:
    """The operating system's text for an error number, else only the type: other texts may quote the peer."""
    import os

    number = getattr(exc, "errno", None)
    if type(exc).__module__ == "ssl":
        return str(getattr(exc, "reason", None) or type(exc).__name__).replace("_", " ").lower()
    return os.strerror(number) if isinstance(number, int) and number > 0 else type(exc).__name__


def _secrets(headers: Headers) -> list[Secret]:
    return [value for _, value in headers if isinstance(value, Secret)]


def _chain(exc: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[BaseException | None] = [exc]
    while todo:
        link = todo.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            todo += [link.__cause__, link.__context__]
            yield link
