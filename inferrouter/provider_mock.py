"""Answers from a script, in process: for tests of programs that use this library.

Strategy: an OpenAI-format provider with a `wire` of its own, so that a test runs everything but the transport. Where the script
does not give token counts, they are this library's estimates; vectors come from a hash of the text. Nothing sleeps unless a
`sleep` is given. Must never open a connection.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from .costs import estimate_text
from .errors import AttemptTimeoutError, ConfigError, ProviderError
from .frozen import EMPTY, field, frozen_value
from .openai_request import ALL, server
from .provider_openai import OpenAICompatProvider
from .records import Message, ToolCall, Usage
from .responses import ChatResponse, Choice
from .wire import WireFault, WireRequest

STATUS_OF_ERROR = {
    "InvalidRequestError": 400,
    "ContextWindowError": 400,
    "AuthenticationError": 401,
    "QuotaExceededError": 429,
    "ModelNotFoundError": 404,
    "RateLimitedError": 429,
}
"""The HTTP status of a scripted error without one; 503 for any other."""
MAX_INDIRECTION = 8
"""How many functions may return one another before a reply is refused."""
VECTOR_LENGTH = 8


@frozen_value
class MockCall:
    """One request that came. `body`: the JSON that would have been sent."""

    model: str
    body: Mapping[str, Any]
    stream: bool


@frozen_value
class MockReply:
    """One scripted reply.

    `usage`: None counts by estimate. `delay_s`: seconds before the answer begins. `chunks`: the pieces of a streamed text, or
    how many; None: one a word. `cut_after`: the connection breaks after this many pieces (of the body, of a stream), None: never.
    `body`: sent as it is instead of everything else. `response`: a whole answer, instead of text and calls.
    """

    text: str = ""
    tool_calls: Sequence[ToolCall] = ()
    usage: Usage | None = None
    delay_s: float = 0.0
    chunks: int | Sequence[str] | None = None
    cut_after: int | None = None
    headers: Mapping[str, str] = field(default=EMPTY)
    status: int = 200
    body: bytes | str | None = None
    response: ChatResponse | None = None


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
    """Gives scripted replies in place of the transport."""

    def __init__(self, replies: Sequence[Any], default: Any, sleep: Callable[[float], object] | None) -> None:
        self._replies = deque(replies)
        self._default = default
        self._sleep = sleep
        self._calls: list[MockCall] = []

    @property
    def calls(self) -> tuple[MockCall, ...]:
        """Every request so far, oldest first."""
        return tuple(self._calls)

    def add(self, replies: Sequence[Any]) -> None:
        """More replies after those that are left."""
        self._replies.extend(replies)

    def send(
        self, request: WireRequest, *, timeout_s: float, allow_http: bool = False, new_connection: bool = False
    ) -> MockWireReply:
        """The next scripted reply. Raises `WireFault`, or a scripted exception."""
        body = json.loads(request.body)
        call = MockCall(str(body.get("model", "")), body, bool(body.get("stream")))
        self._calls.append(call)
        try:
            reply = self._replies.popleft()
        except IndexError:
            reply = self._default
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


class MockWireReply:
    """A scripted `WireReply`. `pieces`: what `read_some` returns, one a call; `cut_after`: how many before a fault."""

    def __init__(self, status: int, headers: Mapping[str, str], pieces: Sequence[bytes], cut_after: int | None = None) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in headers.items()}
        self._pieces = iter(pieces)
        self._left = cut_after

    def read(self, cap: int = 32 << 20) -> bytes:
        """The rest of the body. Raises `WireFault`."""
        pieces = list(iter(self.read_some, b""))
        if sum(map(len, pieces)) > cap:
            raise WireFault("too_large", f"the answer is larger than {cap} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_beginning(self, size: int) -> bytes:
        """The first `size` bytes of the body, or as many as come before its end or a fault."""
        pieces = []
        try:
            while size > 0 and (piece := self.read_some()):
                pieces.append(piece if len(piece) <= size else piece[:size])
                size -= len(piece)
        except WireFault:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_some(self) -> bytes:
        """The next piece, b"" at the end. Raises `WireFault`."""
        if self._left is not None:
            if self._left <= 0:
                raise WireFault("cut", "the scripted connection broke", sent=True)
            self._left -= 1
        return next(self._pieces, b"")

    def set_limits(self, timeout_s: float | None, idle_s: float | None = None) -> None:
        """No time passes between scripted pieces."""

    def shutdown(self) -> None:
        """No thread can be waiting for a scripted piece."""

    def abort(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Scripted(bytes):
    """An error body, with the scripted error that `MockProvider.error` gives back for it."""

    error: ProviderError


def _resolved(reply: Any, body: dict[str, Any]) -> MockReply | BaseException:
    for _ in range(MAX_INDIRECTION):
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
    body = _Scripted(json.dumps({"error": {"message": error.message or type(error).__name__}}).encode())
    kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in STATUS_OF_ERROR), "")
    status = max(error.status or STATUS_OF_ERROR.get(kind, 503), 400)
    body.error = copy.copy(error)
    if error.status is None and not isinstance(error, AttemptTimeoutError):
        body.error.status = status
    return MockWireReply(status, {}, [body])


def _reply(made: MockReply, call: MockCall) -> MockWireReply:
    if made.body is not None:
        raw = made.body.encode("utf-8", "surrogatepass") if isinstance(made.body, str) else made.body
        pieces = [raw]
    elif not 200 <= made.status < 300:
        pieces = [_error_bytes(made.status)]
    elif "messages" not in call.body:
        pieces = [_vectors_bytes(call.body)]
    else:
        pieces = _answer_bytes(made, call.model, call.body, call.stream)
    return MockWireReply(made.status, made.headers, pieces, made.cut_after)


def _answer_bytes(reply: MockReply, model: str, body: Mapping[str, Any], stream: bool) -> list[bytes]:
    """A chat's answer: one piece, or one a stream event."""
    answer = reply.response or _answer(reply, model, body)
    usage = _usage(answer.usage)
    head = {"id": answer.id, "model": answer.model, "created": 0}
    if not stream:
        answered = {
            **head,
            "object": "chat.completion",
            "choices": [_choice(choice) for choice in answer.choices],
            "usage": usage,
        }
        return [json.dumps(answered).encode()]
    head["object"] = "chat.completion.chunk"
    events: list[Any] = [
        {**head, "choices": [{"index": choice.index, "delta": delta, "finish_reason": finish}]}
        for choice in answer.choices
        for delta, finish in _deltas(choice, reply.chunks)
    ]
    events.append({**head, "choices": [], "usage": usage})
    return [f"data: {json.dumps(event)}\n\n".encode() for event in events] + [b"data: [DONE]\n\n"]


def _error_bytes(status: int) -> bytes:
    """An error body in OpenAI's shape."""
    return json.dumps({"error": {"message": f"scripted status {status}", "type": "mock_error", "code": None}}).encode()


def _vectors_bytes(body: Mapping[str, Any]) -> bytes:
    """An answer with one vector for each input."""
    inputs = body.get("input", [])
    texts = [inputs] if isinstance(inputs, str) else list(inputs)
    length = int(body.get("dimensions", VECTOR_LENGTH))
    data = [{"object": "embedding", "index": i, "embedding": _vector(str(text), length)} for i, text in enumerate(texts)]
    count = sum(estimate_text(str(text)) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return json.dumps({"object": "list", "model": body.get("model"), "data": data, "usage": usage}).encode()


def _answer(reply: MockReply, model: str, body: Mapping[str, Any]) -> ChatResponse:
    calls = tuple(reply.tool_calls)
    usage = reply.usage
    if usage is None:
        prompt = sum(estimate_text(str(message.get("content") or "")) for message in body.get("messages", ()))
        written = estimate_text(reply.text + "".join(call.arguments for call in calls))
        usage = Usage(prompt, written, prompt + written)
    finish = "tool_calls" if calls else "stop"
    return ChatResponse("mock-1", model, (Choice(0, Message("assistant", reply.text, calls), finish),), usage)


def _choice(choice: Choice) -> dict[str, Any]:
    message = choice.message
    made = message.to_dict()
    if message.reasoning:
        made["reasoning"] = message.reasoning
    return {"index": choice.index, "message": made, "finish_reason": choice.finish_reason}


def _deltas(choice: Choice, chunks: int | Sequence[str] | None) -> Iterator[tuple[dict[str, Any], str | None]]:
    message = choice.message
    yield {"role": "assistant"}, None
    if message.reasoning:
        yield {"reasoning": message.reasoning}, None
    for piece in _pieces(message.text, chunks):
        yield {"content": piece}, None
    for index, call in enumerate(message.to_dict().get("tool_calls", ())):
        yield {"tool_calls": [{"index": index, **call}]}, None
    yield {}, choice.finish_reason or "stop"


def _pieces(text: str, chunks: int | Sequence[str] | None) -> list[str]:
    if chunks is None:
        words = text.split(" ")
        return [word if i == len(words) - 1 else word + " " for i, word in enumerate(words)] if text else []
    if not isinstance(chunks, int):
        return list(chunks)
    size = -(-len(text) // max(chunks, 1)) or 1
    return [text[i : i + size] for i in range(0, len(text), size)]


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            **{f"{kind}_tokens": count for kind, count in usage.input_breakdown.items()},
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def _vector(text: str, length: int) -> list[float]:
    seed = hashlib.blake2b(text.encode("utf-8", "surrogatepass")).digest()
    return [round(seed[i % len(seed)] / 127.5 - 1, 6) for i in range(length)]
