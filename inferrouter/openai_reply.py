"""Reads answers in OpenAI's format: whole ones, embeddings, and usage by one definition.

Strategy: tolerant of what servers leave out or add, strict about types that would lie (a message that is not an object). The
table of servers decides nothing here but whose spoken input hides in the total. Vectors, as floats or base64, are put in order
by their index; whoever asked checks how many there are. Must never know HTTP, nor raise anything but this library's errors on any
JSON value.
"""

from __future__ import annotations

import binascii
import math
import os
import struct
from collections.abc import Mapping
from typing import Any

from .frozen import EMPTY, FrozenDict
from .provider import clean_text, tokens
from .records import Message, NativeTurn, ToolCall, Usage
from .responses import ChatResponse, Choice, EmbedResponse
from .wire_json import dump_json, malformed

NO_USAGE = Usage()
KEPT = ("reasoning_details", "extra_content")
"""What a server wants back unchanged on the assistant turn it came with."""
KEPT_KEYS = frozenset(KEPT)


def read_answer(item: Any, source: str, provider: str, audio_in_total: bool) -> ChatResponse:
    """A whole answer. Raises `MalformedResponseError` if there is none in it."""
    choices = item.get("choices") if isinstance(item, dict) else None
    if not isinstance(choices, list) or not choices:
        malformed("the answer has no choices", source)
    made = tuple([_choice(choice, position, source, provider) for position, choice in enumerate(choices)])
    usage = item.get("usage")
    return ChatResponse(
        text_or_empty(item.get("id")),
        text_or_empty(item.get("model")),
        made,
        read_usage(usage, audio_in_total) if isinstance(usage, dict) else NO_USAGE,
        source=(source,),
    )


def embedded_error(item: Any) -> dict[str, Any] | None:
    """The error in an answer that has no `error` at its top: a flat one (vLLM), or one in the first choice (OpenRouter)."""
    if not isinstance(item, dict):
        return None
    choices = item.get("choices")
    if not choices:
        return item if item.get("object") == "error" else None
    first = choices[0] if isinstance(choices, list) else None
    error = first.get("error") if isinstance(first, dict) else None
    return {"error": error} if error else None


def read_usage(usage: Mapping[str, Any], audio_in_total: bool = False) -> Usage:
    """Usage by the one definition: completion holds the reasoning, even where the server counts it in the total only."""
    prompt = tokens(usage.get("prompt_tokens", usage.get("input_tokens")))
    completion = tokens(usage.get("completion_tokens", usage.get("output_tokens")))
    total = tokens(usage.get("total_tokens")) or prompt + completion
    if total > prompt + completion and not (audio_in_total or tokens(usage.get("prompt_audio_seconds"))):
        completion = total - prompt
    cached = 0
    breakdown: Mapping[str, int] = EMPTY
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict):
        cached = tokens(details.get("cached_tokens"))
        breakdown = _breakdown(details, prompt)
    if not cached:
        cached = tokens(usage.get("prompt_cache_hit_tokens") or usage.get("cached_tokens") or usage.get("num_cached_tokens"))
    details = usage.get("completion_tokens_details")
    reasoning = tokens((details if isinstance(details, dict) else usage).get("reasoning_tokens"))
    return Usage(prompt, completion, total, min(cached, prompt), reasoning, breakdown)


def split_content(content: Any) -> tuple[str, str]:
    """Text and reasoning of a content value: a string, None, or a list of typed objects (Mistral's thinking among them)."""
    if isinstance(content, str):
        return text_or_empty(content), ""
    if content is None:
        return "", ""
    if not isinstance(content, list):
        malformed("the content is neither text nor a list")
    text, thinking = [], []
    for part in content:
        if isinstance(part, str):
            text.append(part)
        elif isinstance(part, dict) and part.get("type") in ("text", "output_text"):
            text.append(text_or_empty(part.get("text")))
        elif isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
            thinking.append(_thinking(part.get("thinking") or part.get("summary") or part.get("text")))
    return text_or_empty("".join(text)), text_or_empty("".join(thinking))


def finish_of(value: Any) -> str | None:
    """Why a choice ended: the server's word in lower case, None for none yet."""
    return text_or_empty(value).lower() or None


def arguments_of(value: Any) -> str:
    """A call's arguments (or a piece of them) as text; servers that send an object mean its JSON."""
    if isinstance(value, str):
        return text_or_empty(value)
    if value is None:
        return ""
    if not isinstance(value, (dict, list)):
        malformed("a tool call's arguments are neither text nor an object")
    return clean_text(dump_json(value))


def function_of(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """A call's name and arguments, or those of a tool of OpenAI's custom kind; empty if there are none."""
    function = call.get("function")
    if isinstance(function, dict):
        return function
    custom = call.get("custom")
    if isinstance(custom, dict):
        return {"name": custom.get("name"), "arguments": custom.get("input")}
    if function is not None:
        malformed("a tool call's function is not an object")
    return EMPTY


def new_call_id() -> str:
    """An id for a call that came without one; letters and digits, unique for all practical purposes."""
    return "call_" + os.urandom(12).hex()


def text_or_empty(value: Any) -> str:
    """A string that can be printed, anything else as ""."""
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else clean_text(value)


def _choice(choice: Any, position: int, source: str, provider: str) -> Choice:
    message = choice.get("message") if isinstance(choice, dict) else None
    if message is None and isinstance(choice, dict) and choice.get("finish_reason") == "content_filter":
        message = EMPTY  # Azure leaves out what its filter took away
    if not isinstance(message, Mapping):
        malformed(f"choices[{position}] holds no message", source)
    index = choice.get("index")
    text, reasoning = split_content(message.get("content"))
    reasoning += text_or_empty(message.get("reasoning") or message.get("reasoning_content"))
    calls = _calls(message.get("tool_calls"), source)
    native = _native(message, text, calls, provider)
    made = Message("assistant", text, calls, reasoning=reasoning, native=native)
    return Choice(index if type(index) is int else position, made, finish_of(choice.get("finish_reason")))


def _calls(calls: Any, source: str) -> tuple[ToolCall, ...]:
    if not calls:
        return ()
    if not isinstance(calls, list):
        malformed("tool_calls is not a list", source)
    made = []
    for call in calls:
        function = function_of(call) if isinstance(call, dict) else EMPTY
        if not isinstance(function.get("name"), str):
            malformed("a tool call names no function", source)
        arguments = arguments_of(function.get("arguments"))
        made.append(ToolCall(text_or_empty(call.get("id")) or new_call_id(), text_or_empty(function["name"]), arguments or "{}"))
    return tuple(made)


def _native(message: Mapping[str, Any], text: str, calls: tuple[ToolCall, ...], provider: str) -> NativeTurn | None:
    """The turn in the server's own words if it must get it back: opaque reasoning, signatures, Mistral's thinking."""
    if not calls and type(message.get("content")) is str and KEPT_KEYS.isdisjoint(message):
        return None
    kept = {key: message[key] for key in KEPT if message.get(key)}
    content, raw_calls = message.get("content"), message.get("tool_calls") or ()
    if calls and isinstance(message.get("reasoning_content"), str) and message["reasoning_content"]:
        kept["reasoning_content"] = message["reasoning_content"]
    special = any("extra_content" in call or "custom" in call for call in raw_calls)
    if not kept and not special and not isinstance(content, list):
        return None
    data: dict[str, Any] = {"role": "assistant", "content": content, **kept}
    if calls:
        data["tool_calls"] = [{**raw, "id": call.id} for raw, call in zip(raw_calls, calls, strict=True)]
    return NativeTurn("openai", provider, dump_json(data), text, calls)


def _breakdown(details: Mapping[str, Any], prompt: int) -> Mapping[str, int]:
    found = {}
    for kind in ("audio", "image", "video"):
        count = tokens(details.get(f"{kind}_tokens"))
        if count:
            found[kind] = count
    text = tokens(details.get("text_tokens"))
    if found:
        text = text or max(0, prompt - sum(found.values()))
    if text:
        found["text"] = text
    return FrozenDict(found) if found else EMPTY


def _thinking(value: Any) -> str:
    if isinstance(value, list):
        return "".join(text_or_empty(part.get("text")) for part in value if isinstance(part, dict))
    return text_or_empty(value)


def read_vectors(item: Any, source: str, int8: bool = False) -> EmbedResponse:
    """A whole answer with vectors, in base64 of floats or, if `int8`, of signed bytes. Raises `MalformedResponseError`."""
    data = item.get("data") if isinstance(item, dict) else None
    if not isinstance(data, list) or not data:
        malformed("the answer holds no vectors", source)
    placed = []
    for position, entry in enumerate(data):
        if not isinstance(entry, dict):
            malformed(f"data[{position}] is not an object", source)
        index = entry.get("index")
        placed.append((index if type(index) is int else position, _vector(entry.get("embedding"), position, source, int8)))
    placed.sort(key=lambda pair: pair[0])
    usage = item.get("usage")
    counted = read_usage(usage) if isinstance(usage, dict) else Usage()
    # Vectors have no output; servers that report only a total mean the input.
    whole = max(counted.prompt_tokens, counted.total_tokens)
    return EmbedResponse(
        tuple(vector for _, vector in placed),
        text_or_empty(item.get("model")),
        Usage(whole, 0, whole, counted.cached_tokens, 0, counted.input_breakdown),
        source=(source,),
    )


def _vector(value: Any, position: int, source: str, int8: bool) -> tuple[float, ...]:
    if isinstance(value, str):
        return _unpacked(value, position, source, int8)
    if not isinstance(value, list) or not value or not all(type(number) in (float, int) for number in value):
        malformed(f"data[{position}] holds no vector", source)
    try:
        return tuple([float(number) for number in value])
    except OverflowError:
        malformed(f"data[{position}] holds something that is not a number", source)


def _unpacked(text: str, position: int, source: str, int8: bool) -> tuple[float, ...]:
    try:
        raw = binascii.a2b_base64(text)
    except (binascii.Error, ValueError):
        raw = b""
    size, code = (1, "b") if int8 else (4, "f")
    if not raw or len(raw) % size:
        malformed(f"data[{position}] is neither a list of numbers nor base64 numbers", source)
    vector = tuple(map(float, struct.unpack(f"<{len(raw) // size}{code}", raw)))
    if not all(map(math.isfinite, vector)):
        malformed(f"data[{position}] holds numbers that are none", source)
    return vector
