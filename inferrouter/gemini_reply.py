"""Reads Gemini's answers: whole ones, streams, vectors, usage and finish reasons.

Strategy: a stream's chunk has the shape of a whole answer, so one reader serves both. A turn that holds more than plain
text (calls, thought signatures, code runs, pictures) is kept unchanged, part by part, to be sent back with the next turn. Must
never know requests, URLs or keys.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from .errors import MalformedResponseError
from .frozen import EMPTY, FrozenDict
from .provider import Provider, StreamDecoder
from .records import Message, NativeTurn, ToolCall, Usage
from .responses import NOTHING_NEW, ChatChunk, ChatResponse, Choice, ChunkChoice, Delta, EmbedResponse, ToolCallDelta
from .wire_json import clean_text, dump_json, finish_word, has_error, malformed, read_vector, text_or_empty, tokens

FINISHES = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        (
            *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"),
            *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
        ),
        "content_filter",
    ),
}
TEXT = frozenset(("text",))
THOUGHT = frozenset(("text", "thought"))


def read_answer(item: Any, model: str, provider: str, source: str) -> ChatResponse:
    """The whole answer in the JSON value `item`, whose text is `source`. Raises `MalformedResponseError` if it is not one."""
    choices = []
    for place, candidate in enumerate(_candidates(item)):
        turn = _Turn()
        index = _index(candidate, place)
        turn.take(candidate, index)
        if turn.reason is None and not turn.parts:
            malformed("a candidate has neither content nor finishReason")
        choices.append(turn.choice(index, provider))
    if not choices:
        if not _blocked(item):
            malformed("the answer has no candidates")
        choices.append(Choice(0, Message("assistant", ""), "content_filter"))
    choices.sort(key=_order)
    usage = read_usage(item.get("usageMetadata")) or Usage()
    return ChatResponse(
        text_or_empty(item.get("responseId")),
        text_or_empty(item.get("modelVersion")) or model,
        tuple(choices),
        usage,
        source=(source,),
    )


def read_vectors(item: Any, model: str, source: str) -> EmbedResponse:
    """A whole answer with vectors: those of a batch, or a single one. Raises `MalformedResponseError` if it is not one."""
    found = item.get("embeddings") if isinstance(item, dict) else None
    if found is None and isinstance(item, dict) and "embedding" in item:
        found = [item["embedding"]]
    if not isinstance(found, list):
        malformed("the answer has no embeddings")
    vectors = tuple([read_vector(each.get("values") if isinstance(each, dict) else None, "an embedding") for each in found])
    return EmbedResponse(vectors, model, read_usage(item.get("usageMetadata")) or Usage(), source=(source,))


def read_usage(given: Any, *, detailed: bool = True) -> Usage | None:
    """Tokens of a usageMetadata object, None if it counts nothing; by modality if `detailed`.

    Thoughts come on top of the candidates' count.
    """
    if not isinstance(given, dict):
        return None
    get = given.get
    thoughts = tokens(get("thoughtsTokenCount"))
    prompt = tokens(get("promptTokenCount")) + tokens(get("toolUsePromptTokenCount"))
    completion = tokens(get("candidatesTokenCount")) + thoughts
    total = tokens(get("totalTokenCount")) or prompt + completion
    if not total:
        return None
    by_modality = _breakdown(given) if detailed else EMPTY
    return Usage(prompt, completion, total, tokens(get("cachedContentTokenCount")), thoughts, by_modality)


class GeminiDecoder(StreamDecoder):
    """One streamed answer of a `GeminiProvider`. Complete once every candidate that was seen has its finishReason."""

    __slots__ = ("_model", "_turns")

    def __init__(self, provider: Provider, model: str) -> None:
        super().__init__(provider)
        self._model = model
        self._turns: dict[int, _Turn] = {}

    def read(self, event: str, item: Any, source: str) -> list[ChatChunk]:
        """See `StreamDecoder.read`; the answer to a blocked prompt is complete at once."""
        if isinstance(item, list) and has_error(item):
            self.fail(item)
        candidates = _candidates(item)
        choices: tuple[ChunkChoice, ...] = NOTHING_NEW
        if candidates:
            choices = tuple([self._choice(candidate, place) for place, candidate in enumerate(candidates)])
            self.complete = all([turn.reason for turn in self._turns.values()])  # noqa: C419  a list is faster here
        elif _blocked(item):
            choices = (ChunkChoice(0, Delta(), "content_filter"),)
            self.complete = True
        # Every chunk repeats the usage and the last one counts, so the details can wait for the end.
        usage = read_usage(item.get("usageMetadata"), detailed=self.complete)
        model = text_or_empty(item.get("modelVersion")) or self._model
        return [ChatChunk(text_or_empty(item.get("responseId")), model, choices, usage, source)]

    def decode_unary_body(self, item: Any, source: str) -> list[ChatChunk]:
        """See `StreamDecoder.decode_unary_body`; without `alt=sse` a server sends the chunks as one array."""
        items = item if isinstance(item, list) else [item]
        if not all(isinstance(each, dict) and ("candidates" in each or _blocked(each)) for each in items):
            return []
        sources = [source] if len(items) == 1 else map(dump_json, items)
        return [chunk for each, text in zip(items, sources, strict=True) for chunk in self.read("", each, text)]

    def natives(self) -> Mapping[int, NativeTurn]:
        """See `StreamDecoder.natives`."""
        found = {index: turn.native(self._provider.name) for index, turn in self._turns.items()}
        return {index: native for index, native in found.items() if native is not None}

    def _choice(self, candidate: Any, place: int) -> ChunkChoice:
        index = _index(candidate, place)
        turn = self._turns.get(index)
        if turn is None:
            turn = self._turns[index] = _Turn()
        return turn.take(candidate, index)


class _Turn:
    """What one candidate has sent so far: its parts as they came, and what they mean."""

    __slots__ = ("calls", "parts", "reason", "reasoning", "text")

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[ToolCall] = []
        self.reason: str | None = None

    def take(self, candidate: Any, index: int) -> ChunkChoice:
        """Add a candidate object, or a piece of one; returns what it adds."""
        if not isinstance(candidate, dict):
            malformed("a candidate is not an object")
        text = reasoning = ""
        calls_before = len(self.calls)
        for part in _parts(candidate):
            if not isinstance(part, dict):
                malformed("a content part is not an object")
            self.parts.append(part)
            piece = part.get("text")
            if piece is not None:
                if not isinstance(piece, str):
                    malformed("a part's text is not a string")
                piece = piece if piece.isascii() else clean_text(piece)
                if part.get("thought"):
                    reasoning += piece
                else:
                    text += piece
            if part.get("functionCall") is not None:
                self.calls.append(_call(part))
        if text:
            self.text.append(text)
        if reasoning:
            self.reasoning.append(reasoning)
        added = self.calls[calls_before:]
        reason = finish_word(candidate.get("finishReason"), "finishReason")
        if reason is not None:
            self.reason = reason
        finish = self.finish() if reason or (added and self.reason) else None
        return ChunkChoice(index, Delta(text, reasoning, _deltas(added, calls_before) if added else ()), finish)

    def finish(self) -> str | None:
        """The finish reason in OpenAI's vocabulary, which this library uses; Gemini ends calls with STOP."""
        if not self.reason:
            return None
        if self.calls and self.reason == "STOP":
            return "tool_calls"
        return FINISHES.get(self.reason) or self.reason.lower()

    def choice(self, index: int, provider: str) -> Choice:
        """All of it as a whole answer's choice."""
        calls, reasoning = tuple(self.calls), "".join(self.reasoning)
        message = Message("assistant", "".join(self.text), calls, reasoning=reasoning, native=self.native(provider))
        return Choice(index, message, self.finish())

    def native(self, provider: str) -> NativeTurn | None:
        """The turn as Gemini wrote it, with neighbouring pieces of plain text joined; None if it is all plain text."""
        if all(_plain(part) for part in self.parts):
            return None
        kept: list[dict[str, Any]] = []
        for plain, parts in groupby(self.parts, _plain):
            if plain is None:
                kept += parts
                continue
            pieces = list(parts)
            joined = {**pieces[0], "text": "".join([part["text"] or "" for part in pieces])}
            if joined["text"]:
                kept.append(joined)
        try:
            return NativeTurn("gemini", provider, dump_json(kept), "".join(self.text), tuple(self.calls))
        except MalformedResponseError:
            return None  # the message is sent in the general form then


def _candidates(item: Any) -> list[Any]:
    if not isinstance(item, dict):
        malformed("the answer is not a JSON object")
    candidates = item.get("candidates")
    if candidates is None:
        return []
    if not isinstance(candidates, list):
        malformed("candidates is not a list")
    return candidates


def _parts(candidate: dict[str, Any]) -> list[Any]:
    """The parts; [] if content or its parts are missing, as they are in an empty answer."""
    content = candidate.get("content")
    if content is None:
        return []
    if not isinstance(content, dict):
        malformed("a candidate's content is not an object")
    parts = content.get("parts")
    if parts is None:
        return []
    if not isinstance(parts, list):
        malformed("a content's parts are not a list")
    return parts


def _call(part: dict[str, Any]) -> ToolCall:
    function = part["functionCall"]
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        malformed("a functionCall has no name")
    arguments = function.get("args")
    if arguments is not None and not isinstance(arguments, dict):
        malformed("a functionCall's args are not an object")
    return ToolCall(
        text_or_empty(function.get("id")) or f"call_{os.urandom(8).hex()}",
        clean_text(name),
        dump_json(arguments or {}),
        text_or_empty(part.get("thoughtSignature")) or None,
    )


def _deltas(calls: list[ToolCall], start: int) -> tuple[ToolCallDelta, ...]:
    """A delta for each of `calls`, numbered from `start` on; Gemini never splits one."""
    return tuple(
        ToolCallDelta(place, call.id, call.name, call.arguments, call.signature) for place, call in enumerate(calls, start)
    )


def _plain(part: dict[str, Any]) -> frozenset[str] | None:
    """`TEXT` or `THOUGHT` for a part of plain text, None for any other."""
    keys = part.keys()
    return TEXT if keys == TEXT else THOUGHT if keys == THOUGHT and part["thought"] is True else None


def _breakdown(given: dict[str, Any]) -> Mapping[str, int]:
    """Input tokens by modality, those of tool-use prompts included."""
    found: dict[str, int] = {}
    for key in ("promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails"):
        details = given.get(key)
        if not isinstance(details, list):
            continue
        for detail in details:
            kind = text_or_empty(detail.get("modality")).lower() if isinstance(detail, dict) else ""
            if kind:
                found[kind] = found.get(kind, 0) + tokens(detail.get("tokenCount"))
    return FrozenDict(found) if found else EMPTY


def _blocked(item: dict[str, Any]) -> bool:
    feedback = item.get("promptFeedback")
    return isinstance(feedback, dict) and bool(feedback.get("blockReason"))


def _order(choice: Choice) -> int:
    return choice.index


def _index(candidate: Any, place: int) -> int:
    """The candidate's own number, or its place in the list."""
    given = candidate.get("index") if isinstance(candidate, dict) else None
    return given if type(given) is int else place
