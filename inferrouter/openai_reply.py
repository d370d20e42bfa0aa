"""Reads whole answers, vectors and usage in OpenAI's format.

Strategy: tolerant of what servers leave out or add, strict about types that would lie (a message that is not an object). Of a
server's ways only two matter here, and they come as arguments: spoken input that counts in the total alone, and vectors of signed
bytes. Vectors are put in order by their index; the caller checks how many there are. Whatever the JSON is, only errors of this
library are raised. Must never know HTTP.
"""

from __future__ import annotations

import binascii
import os
import struct
from collections.abc import Mapping
from typing import Any

from .errors import MalformedResponseError
from .frozen import EMPTY, FrozenDict, quick
from .records import Message, NativeTurn, ToolCall, Usage
from .responses import ChatResponse, Choice, EmbedResponse
from .wire_json import NO_REASON, clean_text, dump_json, malformed, read_vector, text_or_empty, tokens

KEPT = ("reasoning_details", "extra_content")
"""What a server wants back unchanged on the assistant turn it came with."""
KEPT_KEYS = frozenset(KEPT)
_response, _usage, _made = quick(ChatResponse), quick(Usage), quick(Choice)
CACHED = frozenset(("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens"))
"""What servers call the cached part of the input where they do not say it in the details."""


def read_answer(item: Any, source: str, provider: str, audio_in_total: bool) -> ChatResponse:
    """The whole answer in the JSON value `item`, whose text is `source`. Raises `MalformedResponseError` if it is not one."""
    choices = item.get("choices") if isinstance(item, dict) else None
    if not isinstance(choices, list) or not choices:
        malformed("the answer has no choices")
    made = tuple([_choice(choice, position, provider) for position, choice in enumerate(choices)])
    usage = item.get("usage")
    return _response(
        text_or_empty(item.get("id")),
        text_or_empty(item.get("model")),
        made,
        read_usage(usage, audio_in_total) if isinstance(usage, dict) else Usage(),
        source=(source,),
    )


def read_vectors(item: Any, source: str, int8: bool) -> EmbedResponse:
    """A whole answer with vectors, as numbers or in base64 of floats (of signed bytes if `int8`); `source` is its text.

    Raises `MalformedResponseError` if it is not one.
    """
    data = item.get("data") if isinstance(item, dict) else None
    if not isinstance(data, list) or not data:
        malformed("the answer holds no vectors")
    placed = []
    for position, entry in enumerate(data):
        if not isinstance(entry, dict):
            malformed(f"data[{position}] is not an object")
        index, value = entry.get("index"), entry.get("embedding")
        numbers = _unpacked(value, int8) if isinstance(value, str) else value
        placed.append((index if type(index) is int else position, read_vector(numbers, f"data[{position}]")))
    placed.sort(key=lambda pair: pair[0])
    usage = item.get("usage")
    counted = read_usage(usage) if isinstance(usage, dict) else Usage()
    # Vectors have no output; servers that report only a total mean the input.
    total = max(counted.prompt_tokens, counted.total_tokens)
    return EmbedResponse(
        tuple(vector for _, vector in placed),
        text_or_empty(item.get("model")),
        Usage(total, 0, total, counted.cached_tokens, 0, counted.input_breakdown),
        source=(source,),
    )


def embedded_error(item: Any) -> dict[str, Any] | None:
    """The error in an answer without `error` at its top: the whole object (vLLM), or one in the first choice (OpenRouter)."""
    if not isinstance(item, dict):
        return None
    choices = item.get("choices")
    if not choices:
        return item if item.get("object") == "error" else None
    first = choices[0] if isinstance(choices, list) else None
    error = first.get("error") if isinstance(first, dict) else None
    return {"error": error} if error else None


def read_usage(usage: Mapping[str, Any], audio_in_total: bool = False) -> Usage:
    """The tokens of a `usage` object. Completion includes reasoning, even if the server counts that in the total only.

    `audio_in_total`: the server counts spoken input in the total only.
    """
    prompt = tokens(usage["prompt_tokens"] if "prompt_tokens" in usage else usage.get("input_tokens"))
    completion = tokens(usage["completion_tokens"] if "completion_tokens" in usage else usage.get("output_tokens"))
    total = tokens(usage.get("total_tokens")) or prompt + completion
    if total > prompt + completion and not (audio_in_total or tokens(usage.get("prompt_audio_seconds"))):
        completion = total - prompt
    cached = 0
    breakdown: Mapping[str, int] = EMPTY
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict):
        cached = tokens(details.get("cached_tokens"))
        breakdown = _breakdown(details, prompt)
    if not cached and not CACHED.isdisjoint(usage):
        cached = tokens(usage.get("prompt_cache_hit_tokens") or usage.get("cached_tokens") or usage.get("num_cached_tokens"))
    details = usage.get("completion_tokens_details")
    thought = (details if isinstance(details, dict) else usage).get("reasoning_tokens")
    return _usage(prompt, completion, total, min(cached, prompt) if cached else 0, tokens(thought) if thought else 0, breakdown)


def split_content(content: Any) -> tuple[str, str]:
    """The text and the reasoning in a content value: a string, None, or a list of typed objects (as Mistral sends thinking)."""
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
    """Why a choice ended, in lower case; None if it has not."""
    word = text_or_empty(value).lower()
    return None if word.strip() in NO_REASON else word


def arguments_of(value: Any) -> str:
    """A call's arguments, or a piece of them, as text. An object, which some servers send, becomes its JSON."""
    if isinstance(value, str):
        return text_or_empty(value)
    if value is None:
        return ""
    if not isinstance(value, (dict, list)):
        malformed("a tool call's arguments are neither text nor an object")
    return clean_text(dump_json(value))


def function_of(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object with a call's name and arguments, made from `custom` for a custom tool; empty if there is none."""
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


def _choice(choice: Any, position: int, provider: str) -> Choice:
    message = choice.get("message") if isinstance(choice, dict) else None
    if message is None and isinstance(choice, dict) and choice.get("finish_reason") == "content_filter":
        message = EMPTY  # Azure sends no message if its filter removed all of it
    if not isinstance(message, (dict, Mapping)):
        malformed(f"choices[{position}] holds no message")
    index = choice.get("index")
    text, reasoning = split_content(message.get("content"))
    thought = message.get("reasoning") or message.get("reasoning_content")
    if thought:
        reasoning += text_or_empty(thought)
    raw_calls = message.get("tool_calls")
    calls = _calls(raw_calls) if raw_calls else ()
    native = _native(message, text, calls, provider)
    made = Message("assistant", text, calls, reasoning=reasoning, native=native)
    return _made(index if type(index) is int else position, made, finish_of(choice.get("finish_reason")))


def _calls(calls: Any) -> tuple[ToolCall, ...]:
    if not calls:
        return ()
    if not isinstance(calls, list):
        malformed("tool_calls is not a list")
    made = []
    for call in calls:
        function = function_of(call) if isinstance(call, dict) else EMPTY
        if not isinstance(function.get("name"), str):
            malformed("a tool call does not name a function")
        arguments = arguments_of(function.get("arguments"))
        made.append(ToolCall(text_or_empty(call.get("id")) or new_call_id(), text_or_empty(function["name"]), arguments or "{}"))
    return tuple(made)


def _native(message: Mapping[str, Any], text: str, calls: tuple[ToolCall, ...], provider: str) -> NativeTurn | None:
    """The turn as the server wrote it, if it needs it back: opaque reasoning, signatures, Mistral's thinking."""
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
    try:
        return NativeTurn("openai", provider, dump_json(data), text, calls)
    except MalformedResponseError:
        return None  # the message is sent in the general form then


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


def _unpacked(text: str, int8: bool) -> list[float]:
    """The numbers in base64 `text`; [] if it does not hold any."""
    try:
        raw = binascii.a2b_base64(text)
    except ValueError:
        return []
    size, code = (1, "b") if int8 else (4, "f")
    return list(struct.unpack(f"<{len(raw) // size}{code}", raw)) if len(raw) % size == 0 else []
