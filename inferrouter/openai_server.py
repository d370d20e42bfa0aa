"""Writes answers in OpenAI's format, as its servers do: completions, chunks, vectors, model lists, errors.

Strategy: each function turns plain facts into the JSON object that goes out, so that the endpoint and the simulator send the
same bytes for the same facts. What OpenAI always writes is always there, and null where there is nothing to say.
Must never know who asked, who answered, HTTP or sockets.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Body = dict[str, Any]

DONE = b"data: [DONE]\n\n"
"""The event that ends a stream."""


def error_body(message: str, kind: str, code: str | None, param: str | None = None) -> Body:
    """An error. `kind`: OpenAI's `type`."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def head_of(number: str, kind: str, created: float, model: str) -> Body:
    """What a completion and each chunk begin with. `kind`: "chat.completion" or "chat.completion.chunk"."""
    return {"id": number, "object": kind, "created": int(created), "model": model}


def completion(head: Body, choices: Sequence[Body], usage: Body) -> Body:
    """A whole answer of `choice`s."""
    return {**head, "choices": list(choices), "usage": usage}


def choice(index: int, message: Body, finish: str | None) -> Body:
    """One choice of a whole answer."""
    return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}


def message_of(text: str, calls: Sequence[Body] = (), reasoning: str = "") -> Body:
    """The message of a choice. Its content is null where there are tool calls alone."""
    message: Body = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = list(calls)
    return message


def tool_call(number: str, name: str, arguments: str) -> Body:
    """A whole tool call; `arguments` is JSON text."""
    return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


def chunk(head: Body, index: int, delta: Body, finish: str | None = None, extra: Mapping[str, Any] | None = None) -> Body:
    """One chunk of a stream with one choice in it."""
    return {**head, "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **(extra or {})}


def usage_chunk(head: Body, usage: Body) -> Body:
    """The chunk before the end that carries usage and no choice."""
    return {**head, "choices": [], "usage": usage}


def usage_of(prompt: int, completion_tokens: int, total: int, cached: int = 0, reasoning: int = 0, audio: int = 0) -> Body:
    """Tokens; cached and audio are part of the prompt, reasoning is part of the completion."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion_tokens,
        "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": audio},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def vector_list(vectors: Iterable[Sequence[float]], model: str, tokens: int, packed: bool) -> Body:
    """Embeddings in order: as numbers, or if `packed` as base64 of little-endian floats. `tokens`: those of the input."""
    data: list[Body] = []
    for index, numbers in enumerate(vectors):
        values: Any = list(numbers)
        if packed:
            values = base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
        data.append({"object": "embedding", "index": index, "embedding": values})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def model_list(names: Iterable[str], owner: str) -> Body:
    """The model list."""
    return {"object": "list", "data": [model_of(name, owner) for name in names]}


def model_of(name: str, owner: str) -> Body:
    """One entry of it."""
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
