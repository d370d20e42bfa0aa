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
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from .errors import MalformedResponseError
from .frozen import EMPTY, FrozenDict, quick
from .records import Message, NativeTurn, ToolCall, Usage
from .responses import NOWHERE, UNTOLD, ChatResponse, Choice, EmbedResponse
from .wire_json import MOST_MARKS, NO_REASON, clean_text, dump_json, malformed, read_vector, text_or_empty, tokens

KEPT = ("reasoning_details", "extra_content")
"""What a server wants back unchanged on the assistant turn it came with."""
KEPT_KEYS = frozenset(KEPT)
BESIDE_TEXT = frozenset((*KEPT, "reasoning", "reasoning_content", "tool_calls"))
"""What of a message is looked at besides its content."""
USUAL_ENDS = frozenset(("stop", "length", "tool_calls", "content_filter"))
"""Why choices end, as nearly all servers write it."""
MODALITIES = FrozenDict(audio_tokens="audio", image_tokens="image", video_tokens="video", text_tokens="text")
"""Kinds of input that servers count one by one."""
_MODALITY_KEYS = frozenset(MODALITIES)
_response, _usage, _made = quick(ChatResponse), quick(Usage), quick(Choice)
_turn = quick(Message, checked=True)
CACHED = frozenset(("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens"))
"""What servers call the cached part of the input where they do not say it in the details."""


def read_answer(item: Any, source: str, provider: str, audio_in_total: bool, fail: Callable[[Any], NoReturn]) -> ChatResponse:
    """The whole answer in the JSON value `item`, whose text is `source`. Raises `MalformedResponseError` if it is not one.

    `fail` raises what an error that does not stand at its top means: the whole object is one (vLLM), or it is in the first choice
    (OpenRouter).
    """
    choices = item.get("choices") if type(item) is dict else None
    if type(choices) is not list or not choices:
        if not choices and type(item) is dict and item.get("object") == "error":
            fail(item)
        malformed("the answer has no choices")
    if len(choices) == 1:
        made: tuple[Choice, ...] = (_choice(choices[0], 0, provider, fail),)
    else:
        made = tuple([_choice(choice, position, provider, fail) for position, choice in enumerate(choices)])
    ident, model, usage = item.get("id"), item.get("model"), item.get("usage")
    if type(ident) is not str or not ident.isascii():
        ident = text_or_empty(ident)
    if type(model) is not str or not model.isascii():
        model = text_or_empty(model)
    counted = read_usage(usage, audio_in_total) if type(usage) is dict else UNTOLD
    return _response(ident, model, made, counted, NOWHERE, (source,))


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


def read_usage(usage: Mapping[str, Any], audio_in_total: bool = False) -> Usage:
    """The tokens of a `usage` object. Completion includes reasoning, even if the server counts that in the total only.

    `audio_in_total`: the server counts spoken input in the total only.
    """
    get = usage.get
    prompt, completion, total = get("prompt_tokens"), get("completion_tokens"), get("total_tokens")
    if (
        type(prompt) is not int
        or type(completion) is not int
        or type(total) is not int
        or prompt < 0
        or completion < 0
        or not prompt + completion == total <= MOST_MARKS
    ):
        prompt, completion, total = _settled(usage, audio_in_total)
    cached = 0
    breakdown: Mapping[str, int] = EMPTY
    details = get("prompt_tokens_details")
    if type(details) is dict:
        found = details.get("cached_tokens")
        cached = tokens(found) if found else 0
        if not _MODALITY_KEYS.isdisjoint(details):
            breakdown = _breakdown(details, prompt)
    if not cached and not CACHED.isdisjoint(usage):
        cached = tokens(get("prompt_cache_hit_tokens") or get("cached_tokens") or get("num_cached_tokens"))
    details = get("completion_tokens_details")
    thought = (details if type(details) is dict else usage).get("reasoning_tokens")
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
    if type(value) is str and value in USUAL_ENDS:
        return value
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


def _choice(choice: Any, position: int, provider: str, fail: Callable[[Any], NoReturn]) -> Choice:
    if type(choice) is not dict:
        malformed(f"choices[{position}] holds no message")
    if "error" in choice and position == 0 and choice["error"]:
        fail({"error": choice["error"]})
    message = choice.get("message")
    if type(message) is not dict:
        if message is not None or choice.get("finish_reason") != "content_filter":
            malformed(f"choices[{position}] holds no message")
        message = {}  # Azure sends no message if its filter removed all of it
    text = message.get("content")
    if type(text) is str and text.isascii() and BESIDE_TEXT.isdisjoint(message):  # nearly every answer
        made = _turn("assistant", text)
    else:
        made = _message(message, provider)
    index, finish = choice.get("index"), choice.get("finish_reason")
    return _made(index if type(index) is int else position, made, None if finish is None else finish_of(finish))


def _message(message: Mapping[str, Any], provider: str) -> Message:
    text, reasoning = split_content(message.get("content"))
    thought = message.get("reasoning") or message.get("reasoning_content")
    if thought:
        reasoning += text_or_empty(thought)
    raw_calls = message.get("tool_calls")
    calls = _calls(raw_calls) if raw_calls else ()
    return _turn("assistant", text, calls, None, None, reasoning, _native(message, text, calls, provider))


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


def _settled(usage: Mapping[str, Any], audio_in_total: bool) -> tuple[int, int, int]:
    """Input, output and total of a `usage` whose three counts do not agree, or are not there."""
    get = usage.get
    prompt = get("prompt_tokens") if "prompt_tokens" in usage else get("input_tokens")
    completion = get("completion_tokens") if "completion_tokens" in usage else get("output_tokens")
    prompt, completion = tokens(prompt) if prompt else 0, tokens(completion) if completion else 0
    both = prompt + completion
    total, spoken = tokens(get("total_tokens")) or both, get("prompt_audio_seconds")
    if total > both and not (audio_in_total or (spoken and tokens(spoken))):
        completion = total - prompt
    return prompt, completion, total


def _breakdown(details: Mapping[str, Any], prompt: int) -> Mapping[str, int]:
    found = {}
    for key, kind in MODALITIES.items():
        given = details.get(key)
        if given and (count := tokens(given)):
            found[kind] = count
    if not found:
        return EMPTY
    if "text" not in found and (text := max(0, prompt - sum(found.values()))):
        found["text"] = text
    return FrozenDict(found)


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
