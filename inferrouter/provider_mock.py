"""A provider that answers from a script, in process: for tests of programs that use this library.

Strategy: it is an OpenAI-format provider that brings its own wire, so that everything between the router and the socket is
the real thing. Nothing sleeps unless a `sleep` is given. Must never open a connection.
"""

from __future__ import annotations

import copy
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .answers import ChatResponse
from .errors import AttemptTimeoutError, ConfigError, ProviderError
from .mock_wire import MockReply, MockWireReply, answer_bytes, error_bytes, vectors_bytes
from .openai_servers import ALL, server
from .provider_openai import OpenAICompatProvider
from .wire import WireFault, WireRequest

__all__ = ["MockCall", "MockProvider", "MockReply"]

STATUS_OF_ERROR = {
    "InvalidRequestError": 400,
    "ContextWindowError": 400,
    "AuthenticationError": 401,
    "QuotaExceededError": 429,
    "ModelNotFoundError": 404,
    "RateLimitedError": 429,
}
MOST_INDIRECTION = 8


@dataclass(frozen=True, slots=True)
class MockCall:
    """One request that came. `body`: the JSON that would have been sent."""

    model: str
    body: Mapping[str, Any]
    stream: bool


class MockProvider(OpenAICompatProvider):
    """Answers with `replies`, one a call, in order; then with `default`, for ever. Safe to share between threads.

    A reply is a text, a `MockReply`, a `ChatResponse`, an HTTP status, an exception (a `ProviderError` is what the provider
    answers; anything else is raised by the wire) or a function of the request's body that returns one of these.
    `sleep`: called with the seconds of a reply's delay (pass a clock's `sleep`), None: delays take no time but still count
    against timeouts. `models`: as in `OpenAICompatProvider`.
    """

    def __init__(
        self,
        name: str = "mock",
        replies: Sequence[Any] = (),
        *,
        default: Any = "mock reply",
        models: Sequence[str] | str | None = None,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        super().__init__(name, "http://127.0.0.1/mock", models)
        self._server = server("")
        self.media = ALL
        self.wire = MockWire([replies] if isinstance(replies, str) else replies, default, sleep)

    @property
    def calls(self) -> tuple[MockCall, ...]:
        """Every request so far, oldest first."""
        return self.wire.calls

    def add(self, *replies: Any) -> None:
        """More replies after those that are left."""
        self.wire.add(replies)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
        """See `Provider`; a scripted error comes back as it is."""
        if isinstance(body, _Scripted):
            return body.error
        return super().error(status, headers, body, now)


class MockWire:
    """Stands where the transport stands."""

    def __init__(self, replies: Sequence[Any], default: Any, sleep: Callable[[float], object] | None) -> None:
        self._lock = threading.Lock()
        self._replies = deque(replies)
        self._default = default
        self._sleep = sleep
        self._calls: list[MockCall] = []

    @property
    def calls(self) -> tuple[MockCall, ...]:
        """The log."""
        with self._lock:
            return tuple(self._calls)

    def add(self, replies: Sequence[Any]) -> None:
        """More replies."""
        with self._lock:
            self._replies.extend(replies)

    def send(
        self, request: WireRequest, *, timeout_s: float, allow_http: bool = False, fresh: bool = False
    ) -> MockWireReply:
        """The next scripted reply. Raises `WireFault`, or a scripted exception."""
        body = json.loads(request.body)
        call = MockCall(str(body.get("model", "")), body, bool(body.get("stream")))
        with self._lock:
            self._calls.append(call)
            reply = self._replies.popleft() if self._replies else self._default
        made = _resolved(reply, body)
        if isinstance(made, ProviderError):
            return _refusal(made)
        if isinstance(made, BaseException):
            raise copy.copy(made)
        self._wait(made.delay_s, timeout_s)
        return _reply(made, call)

    def close(self) -> None:
        """Nothing is open."""

    def _wait(self, delay_s: float, timeout_s: float) -> None:
        if self._sleep is not None and delay_s > 0:
            self._sleep(min(delay_s, timeout_s))
        if delay_s > timeout_s:
            raise WireFault("timeout", f"the scripted delay of {delay_s:g} s is over the {timeout_s:g} s left", sent=True)


class _Scripted(bytes):
    """A body that carries the very error it stands for."""

    error: ProviderError


def _resolved(reply: Any, body: dict[str, Any]) -> MockReply | BaseException:
    for _ in range(MOST_INDIRECTION):
        if not callable(reply) or isinstance(reply, type):
            break
        reply = reply(body)
    if isinstance(reply, (MockReply, BaseException)):
        return reply
    if isinstance(reply, str):
        return MockReply(reply)
    if isinstance(reply, ChatResponse):
        return MockReply(response=reply)
    if isinstance(reply, int) and not isinstance(reply, bool):
        return MockReply(status=reply)
    raise ConfigError(
        f"MockProvider cannot answer with {reply!r}: use a text, a MockReply, a ChatResponse, a status, an error or a function"
    )


def _refusal(error: ProviderError) -> MockWireReply:
    said = _Scripted(json.dumps({"error": {"message": error.message or type(error).__name__}}).encode())
    kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in STATUS_OF_ERROR), "")
    status = max(error.status or STATUS_OF_ERROR.get(kind, 503), 400)
    said.error = copy.copy(error)
    if error.status is None and not isinstance(error, AttemptTimeoutError):
        said.error.status = status
    return MockWireReply(status, {}, [said])


def _reply(made: MockReply, call: MockCall) -> MockWireReply:
    if made.body is not None:
        raw = made.body.encode("utf-8", "surrogatepass") if isinstance(made.body, str) else made.body
        pieces = [raw]
    elif not 200 <= made.status < 300:
        pieces = [error_bytes(made.status)]
    elif "messages" not in call.body:
        pieces = [vectors_bytes(call.body)]
    else:
        pieces = answer_bytes(made, call.model, call.body, call.stream)
    return MockWireReply(made.status, made.headers, pieces, made.cut_after)
