"""Reads Anthropic's answers: whole ones, event streams, usage and stop reasons.

Strategy: an answer is a list of content blocks, whole or in pieces. Text, thinking and tool_use are read, other kinds ignored. If
there is more than plain text, the blocks are kept unchanged, signatures included, to be sent back with the next turn. Must never
know requests, URLs or keys.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .anthropic_request import JSON_TOOL
from .errors import MalformedResponseError
from .provider import Provider, StreamDecoder
from .records import Message, NativeTurn, ToolCall, Usage
from .responses import NOTHING_NEW, ChatChunk, ChatResponse, Choice, ChunkChoice, Delta, ToolCallDelta
from .wire_json import clean_text, dump_json, finish_word, load_json, malformed, text_or_empty, tokens

FINISHES = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def read_answer(item: Any, model: str, provider: str, source: str) -> ChatResponse:
    """The whole answer in the JSON value `item`, whose text is `source`. Raises `MalformedResponseError` if it is not one."""
    content = item.get("content") if isinstance(item, dict) else None
    if not isinstance(content, list):
        malformed("the answer has no content")
    blocks = [_Block(given) for given in content]
    finish = _finish(item.get("stop_reason"), blocks)
    if not content and finish is None:
        malformed("the answer has neither content nor stop_reason")
    text = "".join([block.written() for block in blocks if block.kind in ("text", "json")])
    reasoning = "".join([block.written() for block in blocks if block.kind == "thinking"])
    calls = tuple([block.call() for block in blocks if block.kind == "tool_use"])
    message = Message("assistant", text, calls, None, None, reasoning, _native(blocks, provider))
    counts = item.get("usage")
    usage = (_usage(counts) if isinstance(counts, dict) else None) or Usage()
    name, served = text_or_empty(item.get("id")), text_or_empty(item.get("model")) or model
    return ChatResponse(name, served, (Choice(0, message, finish),), usage, source=(source,))


class AnthropicDecoder(StreamDecoder):
    """One streamed answer of an `AnthropicProvider`. Complete with message_stop."""

    __slots__ = ("_blocks", "_calls", "_counts", "_id", "_model", "_whole")

    def __init__(self, provider: Provider, model: str) -> None:
        super().__init__(provider)
        self._id = ""
        self._model = model
        self._blocks: dict[int, _Block] = {}
        self._calls = 0
        self._counts: dict[str, Any] = {}
        self._whole: NativeTurn | None = None

    def read(self, event: str, item: Any, source: str) -> list[ChatChunk]:
        """See `StreamDecoder.read`; events of an unknown type give an empty chunk."""
        if not isinstance(item, dict):
            malformed("a stream event is not a JSON object")
        kind = item.get("type") or event
        if kind == "content_block_delta":
            return [ChatChunk(self._id, self._model, self._delta(item), None, source)]
        if kind == "ping":
            return []
        if kind == "error":
            self.fail(item)
        choices: tuple[ChunkChoice, ...] = NOTHING_NEW
        usage = None
        if kind == "content_block_start":
            choices = self._start(item)
        elif kind == "content_block_stop":
            choices = self._stop(item)
        elif kind == "message_start":
            usage = self._begin(item)
        elif kind == "message_delta":
            usage = self._count(item.get("usage"))
            delta = item.get("delta")
            reason = delta.get("stop_reason") if isinstance(delta, dict) else None
            choices = (ChunkChoice(0, Delta(), _finish(reason, self._blocks.values())),)
        elif kind == "message_stop":
            self.complete = self.done = True
        return [ChatChunk(self._id, self._model, choices, usage, source)]

    def decode_unary_body(self, item: Any, source: str) -> list[ChatChunk]:
        """See `StreamDecoder.decode_unary_body`."""
        if not isinstance(item, dict) or not isinstance(item.get("content"), list):
            return []
        answer = read_answer(item, self._model, self._provider.name, source)
        message = answer.message
        self._whole = message.native
        self.complete = True
        calls = tuple(ToolCallDelta(place, call.id, call.name, call.arguments) for place, call in enumerate(message.tool_calls))
        choice = ChunkChoice(0, Delta(message.text, message.reasoning, calls), answer.finish_reason)
        return [ChatChunk(answer.id, answer.model, (choice,), answer.usage, source)]

    def natives(self) -> Mapping[int, NativeTurn]:
        """See `StreamDecoder.natives`."""
        blocks = [block for _, block in sorted(self._blocks.items())]
        native = self._whole or _native(blocks, self._provider.name)
        return {} if native is None else {0: native}

    def _begin(self, item: dict[str, Any]) -> Usage | None:
        message = item.get("message")
        if not isinstance(message, dict):
            malformed("message_start holds no message")
        if self._blocks:
            malformed("a second message begins inside the first")
        self._id = text_or_empty(message.get("id"))
        self._model = text_or_empty(message.get("model")) or self._model
        return self._count(message.get("usage"))

    def _count(self, given: Any) -> Usage | None:
        """Later counts replace earlier ones; what a later event does not repeat stays."""
        if not isinstance(given, dict):
            return None
        self._counts.update((key, value) for key, value in given.items() if value is not None)
        return _usage(self._counts)

    def _start(self, item: dict[str, Any]) -> tuple[ChunkChoice, ...]:
        block = self._blocks[_index(item)] = _Block(item.get("content_block"))
        if block.kind == "tool_use":
            block.place = self._calls
            self._calls += 1
            fragment = ToolCallDelta(block.place, block.given["id"], block.given["name"])
            return (ChunkChoice(0, Delta("", "", (fragment,))),)
        text = block.written() if block.kind in ("text", "thinking") else ""
        if not text:
            return NOTHING_NEW
        return (ChunkChoice(0, Delta(text) if block.kind == "text" else Delta("", text)),)

    def _delta(self, item: dict[str, Any]) -> tuple[ChunkChoice, ...]:
        block = self._blocks.get(_index(item))
        delta = item.get("delta")
        if block is None or not isinstance(delta, dict):
            malformed("content_block_delta belongs to no block, or holds no delta")
        kind = delta.get("type")
        if kind == "text_delta":
            return (ChunkChoice(0, Delta(block.add(delta, "text"))),)
        if kind == "thinking_delta":
            return (ChunkChoice(0, Delta("", block.add(delta, "thinking"))),)
        if kind != "input_json_delta":
            block.extend(delta)
            return NOTHING_NEW
        piece = block.add(delta, "partial_json")
        return block.chunk_of(piece) if piece else NOTHING_NEW

    def _stop(self, item: dict[str, Any]) -> tuple[ChunkChoice, ...]:
        """Arguments that came whole at the start: they are given out here, once it is clear that no delta follows."""
        block = self._blocks.get(_index(item))
        if block is None or block.pieces or not block.given.get("input"):
            return NOTHING_NEW
        return block.chunk_of(block.arguments())


class _Block:
    """A content block: what its start gave, and the pieces that came after."""

    __slots__ = ("given", "kind", "pieces", "place")

    def __init__(self, given: Any) -> None:
        if not isinstance(given, dict):
            malformed("a content block is not an object")
        self.given: dict[str, Any] = given
        self.pieces: list[str] = []
        self.place = 0
        self.kind = text_or_empty(given.get("type"))
        if self.kind == "tool_use":
            if not isinstance(given.get("name"), str):
                malformed("a tool_use block has no name")
            given["name"] = text_or_empty(given.get("name"))
            given["id"] = text_or_empty(given.get("id")) or f"toolu_{os.urandom(8).hex()}"
            if given["name"] == JSON_TOOL:
                self.kind = "json"

    def add(self, delta: dict[str, Any], key: str) -> str:
        """Take the piece under `key` and return it."""
        piece = delta.get(key)
        if not isinstance(piece, str):
            malformed(f"a delta's {key} is not a string")
        if piece:
            piece = piece if piece.isascii() else clean_text(piece)
            self.pieces.append(piece)
        return piece

    def extend(self, delta: dict[str, Any]) -> None:
        """Take a delta that is not read, so that the block can be sent back whole."""
        given = self.given
        if delta.get("type") == "citations_delta":
            cited = given.get("citations")
            given["citations"] = [*(cited if isinstance(cited, list) else ()), delta.get("citation")]
            return
        for key, value in delta.items():
            if key != "type":
                given[key] = text_or_empty(given.get(key)) + value if isinstance(value, str) else value

    def chunk_of(self, piece: str) -> tuple[ChunkChoice, ...]:
        """What the caller gets for a piece of a tool's input: arguments, text of the JSON answer, or nothing."""
        if self.kind == "tool_use":
            return (ChunkChoice(0, Delta("", "", (ToolCallDelta(self.place, None, None, piece),))),)
        return (ChunkChoice(0, Delta(piece)),) if self.kind == "json" else NOTHING_NEW

    def written(self) -> str:
        """The text of a block of text, thinking or JSON."""
        if self.kind == "json":
            return self.arguments()
        first = self.given.get(self.kind)
        if first is not None and not isinstance(first, str):
            malformed(f"a {self.kind} block's {self.kind} is not a string")
        return "".join([clean_text(first or ""), *self.pieces])

    def arguments(self) -> str:
        """A tool's input as JSON text; nothing at all is the empty object."""
        if self.pieces:
            return "".join(self.pieces)
        given = self.given.get("input")
        if given and not isinstance(given, dict):
            malformed("a tool_use block's input is not an object")
        return dump_json(given or {})

    def call(self) -> ToolCall:
        """The tool call of a tool_use block."""
        return ToolCall(self.given["id"], self.given["name"], self.arguments())

    def verbatim(self) -> dict[str, Any]:
        """The block as one piece. Raises `MalformedResponseError` if its JSON was cut."""
        if not self.pieces:
            return self.given
        if self.kind in ("text", "thinking"):
            return {**self.given, self.kind: self.written()}
        return {**self.given, "input": load_json(self.arguments())}


def _native(blocks: Sequence[_Block], provider: str) -> NativeTurn | None:
    """The turn as Anthropic wrote it; None if it is plain text, or if it answered through the JSON tool."""
    if all(block.kind == "text" and not block.given.get("citations") for block in blocks):
        return None
    if any(block.kind == "json" for block in blocks):
        return None
    try:
        # Anthropic refuses empty text even in what it wrote itself.
        kept = dump_json([block.verbatim() for block in blocks if block.kind != "text" or block.written().strip()])
        text = "".join([block.written() for block in blocks if block.kind == "text"])
        calls = tuple([block.call() for block in blocks if block.kind == "tool_use"])
    except MalformedResponseError:
        return None  # the message is sent in the general form then
    return NativeTurn("anthropic", provider, kept, text, calls)


def _finish(given: Any, blocks: Any) -> str | None:
    reason = finish_word(given, "stop_reason")
    if reason is None:
        return None
    if reason == "tool_use":
        kinds = {block.kind for block in blocks}
        if "json" in kinds and "tool_use" not in kinds:
            return "stop"
    return FINISHES.get(reason) or reason.lower()


def _usage(counts: dict[str, Any]) -> Usage | None:
    """Tokens; what was written to the cache and read from it comes on top of input_tokens. None if nothing is counted."""
    get = counts.get
    cached = tokens(get("cache_read_input_tokens"))
    prompt = tokens(get("input_tokens")) + tokens(get("cache_creation_input_tokens")) + cached
    completion = tokens(get("output_tokens"))
    details = get("output_tokens_details")
    reasoning = tokens(details.get("thinking_tokens")) if isinstance(details, dict) else 0
    if not prompt and not completion:
        return None
    return Usage(prompt, completion, prompt + completion, cached, reasoning)


def _index(item: dict[str, Any]) -> int:
    index = item.get("index")
    if type(index) is not int:
        malformed("a content block event has no index")
    return index
