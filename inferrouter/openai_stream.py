"""Reads a streamed answer in OpenAI's format, event by event.

Strategy: one pass over each chunk. Tool-call fragments are told apart per choice by index, or by id where servers leave the
index out or give several calls the same one. Usage is replaced, never added. The answer is complete when every choice has
a finish reason, or at `[DONE]`. Must never know HTTP or quota.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import MalformedResponseError
from .frozen import quick
from .openai_reply import arguments_of, finish_of, function_of, new_call_id, read_usage, split_content
from .provider import Provider, StreamDecoder
from .records import NativeTurn, ToolCall
from .responses import NOTHING_NEW, ChatChunk, ChunkChoice, Delta, ToolCallDelta
from .wire_json import clean_text, dump_json, load_json, malformed, text_or_empty

NO_DELTA = Delta()
_delta, _part, _chunk = quick(Delta), quick(ChunkChoice), quick(ChatChunk)
GROWING = ("text", "summary", "data")
"""Fields of a reasoning detail that come in pieces."""


class OpenAIDecoder(StreamDecoder):
    """Decodes one stream. `audio_in_total`: see `read_usage`."""

    __slots__ = ("_audio_in_total", "_open", "_tracks")

    def __init__(self, provider: Provider, audio_in_total: bool = False) -> None:
        super().__init__(provider)
        self._audio_in_total = audio_in_total
        self._tracks: dict[int, _Track] = {}
        self._open: set[int] = set()

    def read(self, event: str, item: Any, source: str) -> list[ChatChunk]:
        """See `StreamDecoder.read`."""
        if type(item) is not dict:
            malformed("a chunk of the stream is not an object", source)
        choices = item.get("choices")
        if not choices:
            if item.get("object") == "error":
                self.fail(item)
            made: tuple[ChunkChoice, ...] = NOTHING_NEW
        elif type(choices) is not list:
            malformed("a chunk's choices are not a list", source)
        elif len(choices) == 1:
            made = (self._choice(choices[0], source),)
        else:
            made = tuple([self._choice(choice, source) for choice in choices])
        usage = item.get("usage")
        if not usage and "x_groq" in item:
            usage = item["x_groq"].get("usage") if isinstance(item["x_groq"], dict) else None
        counted = read_usage(usage, self._audio_in_total) if usage and type(usage) is dict else None
        ident, model = item.get("id"), item.get("model")
        if type(ident) is not str or not ident.isascii() or type(model) is not str or not model.isascii():
            ident, model = text_or_empty(ident), text_or_empty(model)
        return [_chunk(ident, model, made, counted, source)]

    def decode_unary_body(self, item: Any, source: str) -> list[ChatChunk]:
        """See `StreamDecoder.decode_unary_body`."""
        if not isinstance(item, dict) or not item.get("choices"):
            return []
        chunks = self.read("", item, source)
        self.complete = self.done = bool(self._tracks)
        return chunks

    def end(self) -> list[ChatChunk]:
        """See `StreamDecoder.end`. Raises `MalformedResponseError` for a stream that ended well but held no answer."""
        chunks = super().end()
        if self.complete and not self._tracks:
            malformed("the stream held no answer")
        return chunks

    def natives(self) -> Mapping[int, NativeTurn]:
        """See `StreamDecoder.natives`."""
        made = {index: track.native(self._provider.name) for index, track in self._tracks.items()}
        return {index: native for index, native in made.items() if native is not None}

    def _choice(self, choice: Any, source: str) -> ChunkChoice:
        if type(choice) is not dict:
            malformed("a chunk's choice is not an object", source)
        index = choice.get("index")
        if type(index) is not int:
            index = 0
        track = self._tracks.get(index)
        if track is None:
            track = self._tracks[index] = _Track()
            self._open.add(index)
            self.complete = False
        delta = choice.get("delta")
        if delta is None and not track.started:
            delta = choice.get("message")
        finish = choice.get("finish_reason")
        if finish is not None:
            finish = finish_of(finish)
        if finish is not None:
            self._open.discard(index)
            self.complete = not self._open
        if not delta:
            return _part(index, NO_DELTA, finish)
        if type(delta) is not dict:
            malformed("a chunk's delta is not an object", source)
        return _part(index, track.take(delta, source), finish)


class _Call:
    __slots__ = ("arguments", "extra", "id", "name", "position")

    def __init__(self, position: int) -> None:
        self.position = position
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.extra: Any = None


class _Track:
    """What one choice has sent so far, as far as later chunks or the native turn need it."""

    __slots__ = ("by_key", "calls", "kept", "listed", "reasoning", "returned", "started", "text")

    def __init__(self) -> None:
        self.started = False
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[_Call] = []
        self.by_key: dict[Any, _Call] = {}
        self.kept: dict[str, Any] = {}
        self.listed = False
        self.returned = False

    def take(self, delta: dict[str, Any], source: str) -> Delta:
        """The delta in our words, remembered."""
        get = delta.get
        text, reasoning = get("content"), ""
        self.started = True
        if text and len(delta) == 1 and type(text) is str and text.isascii():  # nearly every chunk
            self.text.append(text)
            return _delta(text)
        if text:
            if type(text) is not str:
                self.listed = True
                text, reasoning = split_content(text)
            elif not text.isascii():
                text = clean_text(text)
            self.text.append(text)
        shown = text_or_empty(get("reasoning") or get("reasoning_content"))
        if shown:
            reasoning += shown
            self.returned = self.returned or "reasoning_content" in delta
        if reasoning:
            self.reasoning.append(reasoning)
        if "reasoning_details" in delta or "extra_content" in delta:
            self._keep(delta)
        calls = get("tool_calls")
        if not calls:
            return Delta(text or "", reasoning)
        if type(calls) is not list:
            malformed("tool_calls is not a list", source)
        return Delta(text or "", reasoning, tuple([self._call(call, source) for call in calls]))

    def native(self, provider: str) -> NativeTurn | None:
        """The turn in the server's own words, if it must get it back."""
        calls = tuple(ToolCall(call.id, call.name, "".join(call.arguments) or "{}") for call in self.calls)
        kept, text = dict(self.kept), "".join(self.text)
        if calls and self.returned:
            kept["reasoning_content"] = "".join(self.reasoning)
        if not kept and not self.listed and not any(call.extra for call in self.calls):
            return None
        content: Any = text
        if self.listed:
            thought = [{"type": "text", "text": "".join(self.reasoning)}]
            content = [{"type": "thinking", "thinking": thought}] if self.reasoning else []
            content += [{"type": "text", "text": text}] if text else []
        data: dict[str, Any] = {"role": "assistant", "content": content or None, **kept}
        if calls:
            data["tool_calls"] = [
                {**made.to_dict(), **({"extra_content": call.extra} if call.extra else {})}
                for made, call in zip(calls, self.calls, strict=True)
            ]
        try:
            return NativeTurn("openai", provider, dump_json(data), text, calls)
        except MalformedResponseError:
            return None  # the message is sent in the general form then

    def _call(self, fragment: Any, source: str) -> ToolCallDelta:
        if type(fragment) is not dict:
            malformed("a tool call fragment is not an object", source)
        function = function_of(fragment)
        given, name = text_or_empty(fragment.get("id")), text_or_empty(function.get("name"))
        arguments = arguments_of(function.get("arguments"))
        call = self._find(fragment.get("index"), given, name, arguments)
        fresh = not call.id
        if fresh:
            call.id = given or new_call_id()
        call.name = call.name or name
        call.extra = fragment.get("extra_content") or call.extra
        if arguments:
            call.arguments.append(arguments)
        return ToolCallDelta(call.position, call.id if fresh else None, name or None, arguments)

    def _find(self, index: Any, given: str, name: str, arguments: str) -> _Call:
        """The call a fragment belongs to: by index, by id where there is none, else the latest."""
        key = index if type(index) is int else given or None
        call = self.by_key.get(key)
        if call is None and key is None and not name and self.calls:
            return self.calls[-1]
        if call is None or (name and _begins_another(call, key, given, arguments)):
            call = self.by_key[key] = _Call(len(self.calls))
            self.calls.append(call)
        return call

    def _keep(self, delta: dict[str, Any]) -> None:
        if delta.get("extra_content"):
            self.kept["extra_content"] = delta["extra_content"]
        details = delta.get("reasoning_details")
        if not isinstance(details, list):
            return
        kept = self.kept.setdefault("reasoning_details", [])
        for detail in details:
            last = kept[-1] if kept else None
            if isinstance(last, dict) and isinstance(detail, dict) and _same_block(last, detail):
                _grow(last, detail)
            else:
                kept.append(detail)


def _begins_another(call: _Call, key: Any, given: str, arguments: str) -> bool:
    """Whether a fragment with a name, found under the key of `call`, is the next call by a server that counts carelessly."""
    if key is None or (given and given != call.id):
        return True
    return bool(arguments) and not given and _whole("".join(call.arguments))


def _whole(arguments: str) -> bool:
    if not arguments.endswith("}"):
        return False
    try:
        return isinstance(load_json(arguments), dict)
    except MalformedResponseError:
        return False


def _same_block(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.get("type") == other.get("type") and one.get("index") == other.get("index") and "index" in other


def _grow(block: dict[str, Any], piece: dict[str, Any]) -> None:
    for key, value in piece.items():
        before = block.get(key)
        if key in GROWING and isinstance(before, str) and isinstance(value, str):
            block[key] = before + value
        elif value is not None:
            block[key] = value
