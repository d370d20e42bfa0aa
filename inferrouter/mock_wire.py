"""What a scripted provider puts on its wire: replies as values, and the bytes a real server would have sent for them.

Strategy: OpenAI's format, whole or as an event stream; token counts are this library's own estimates where the script gives
none, and vectors come from a hash of the text, so that the same text has the same vector. Must never read a clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from .answers import ChatResponse, Choice
from .estimate import estimate_text
from .frozen import EMPTY
from .records import Message, ToolCall, Usage
from .wire import WireFault

__all__ = ["MockReply", "MockWireReply", "answer_bytes", "error_bytes", "vectors_bytes"]

VECTOR_LENGTH = 8


@dataclass(frozen=True, slots=True)
class MockReply:
    """One scripted reply.

    `usage`: None counts by estimate. `delay_s`: seconds before the answer begins. `chunks`: the pieces of a streamed text, or
    how many; None: one a word. `cut_after`: the connection breaks after so many pieces (of the body, of a stream), None: never.
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


class MockWireReply:
    """Stands where the transport's reply stands. `pieces`: what `read_some` gives, one a call."""

    def __init__(
        self, status: int, headers: Mapping[str, str], pieces: Sequence[bytes], cut_after: int | None = None
    ) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in headers.items()}
        self.reused = False
        self._pieces = iter(pieces)
        self._left = cut_after

    def read(self, cap: int = 32 << 20) -> bytes:
        """The rest of the body. Raises `WireFault`."""
        pieces = list(iter(self.read_some, b""))
        if sum(map(len, pieces)) > cap:
            raise WireFault("too_large", f"the answer is larger than {cap} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_some(self) -> bytes:
        """The next piece, b"" at the end. Raises `WireFault`."""
        if self._left is not None:
            if self._left <= 0:
                raise WireFault("cut", "the scripted connection broke", sent=True)
            self._left -= 1
        return next(self._pieces, b"")

    def arm(self, timeout_s: float | None, idle_s: float | None = None) -> None:
        """No time passes between scripted pieces."""

    def hang_up(self) -> None:
        """Nobody waits for scripted pieces."""

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def answer_bytes(reply: MockReply, model: str, body: Mapping[str, Any], stream: bool) -> list[bytes]:
    """A chat's answer: one piece, or one a stream event."""
    answer = reply.response or _answer(reply, model, body)
    usage = _usage(answer.usage)
    head = {"id": answer.id, "model": answer.model, "created": 0}
    if not stream:
        whole = {**head, "object": "chat.completion", "choices": [_whole(choice) for choice in answer.choices], "usage": usage}
        return [json.dumps(whole).encode()]
    head["object"] = "chat.completion.chunk"
    events: list[Any] = [
        {**head, "choices": [{"index": choice.index, "delta": delta, "finish_reason": finish}]}
        for choice in answer.choices
        for delta, finish in _deltas(choice, reply.chunks)
    ]
    events.append({**head, "choices": [], "usage": usage})
    return [f"data: {json.dumps(event)}\n\n".encode() for event in events] + [b"data: [DONE]\n\n"]


def error_bytes(status: int) -> bytes:
    """An error body in OpenAI's shape."""
    return json.dumps({"error": {"message": f"scripted status {status}", "type": "mock_error", "code": None}}).encode()


def vectors_bytes(body: Mapping[str, Any]) -> bytes:
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


def _whole(choice: Choice) -> dict[str, Any]:
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
