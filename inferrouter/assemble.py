"""A stream's chunks put together into one whole answer.

Strategy: lists that are joined once, at the end. A tool call reaches the whole answer only when nothing of it can be
missing: a stream that was cut gives no half-written call away as a finished one. Must never know a provider.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from .answers import ChatChunk, ChatResponse, Choice, ToolCallDelta
from .records import Message, Native, Routing, ToolCall, Usage

__all__ = ["Assembler"]


class Assembler:
    """Takes chunks with `add`, gives a `ChatResponse` with `response`. For one stream, used by one thread."""

    __slots__ = ("_choices", "_sources", "id", "model", "usage")

    def __init__(self) -> None:
        self.id = ""
        self.model = ""
        self.usage: Usage | None = None
        self._choices: dict[int, _Building] = {}
        self._sources: list[str] = []

    def add(self, chunk: ChatChunk) -> None:
        """Take one chunk; usage is replaced, never added, since providers repeat it."""
        if chunk.usage is not None:
            self.usage = chunk.usage
        if not self.id:
            self.id = chunk.id
        if not self.model:
            self.model = chunk.model
        self._sources.append(chunk.source)
        for choice in chunk.choices:
            building = self._choices.get(choice.index)
            if building is None:
                building = self._choices[choice.index] = _Building()
            delta = choice.delta
            if delta.content:
                building.text.append(delta.content)
            if delta.reasoning:
                building.reasoning.append(delta.reasoning)
            for fragment in delta.tool_calls:
                building.add_call(fragment)
            if choice.finish_reason is not None:
                building.finish_reason = choice.finish_reason

    @property
    def empty(self) -> bool:
        """Whether nothing has come that could be called an answer, not even the reason why there is none."""
        return not any(each.finish_reason is not None or each.pieces() for each in self._choices.values())

    @property
    def produced(self) -> str:
        """Everything the model wrote so far, for counting: text, reasoning and arguments of all choices."""
        return "".join(piece for building in self._choices.values() for piece in building.pieces())

    def response(self, routing: Routing, usage: Usage, natives: Mapping[int, Native], complete: bool) -> ChatResponse:
        """The whole answer; with `complete` False what came of it, without a finish reason and without unfinished calls."""
        choices = tuple(
            building.choice(index, natives.get(index), complete) for index, building in sorted(self._choices.items())
        )
        empty = (Choice(0, Message("assistant", "")),)
        sources = tuple(source for source in self._sources if source)
        return ChatResponse(self.id, self.model, choices or empty, usage, routing, sources)


class _Building:
    __slots__ = ("calls", "finish_reason", "reasoning", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.calls: dict[int, _Call] = {}
        self.finish_reason: str | None = None

    def add_call(self, fragment: ToolCallDelta) -> None:
        call = self.calls.get(fragment.index)
        if call is None:
            call = self.calls[fragment.index] = _Call()
        call.id = call.id or fragment.id or ""
        call.name = call.name or fragment.name or ""
        call.signature = call.signature or fragment.signature
        if fragment.arguments:
            call.arguments.append(fragment.arguments)

    def pieces(self) -> list[str]:
        return [*self.text, *self.reasoning, *(piece for call in self.calls.values() for piece in call.arguments)]

    def choice(self, index: int, native: Native | None, complete: bool) -> Choice:
        made = [call.made() for _, call in sorted(self.calls.items())]
        calls = tuple(call for call in made if complete or _whole(call))
        message = Message("assistant", "".join(self.text), calls, reasoning="".join(self.reasoning), native=native)
        return Choice(index, message, self.finish_reason if complete else None)


class _Call:
    __slots__ = ("arguments", "id", "name", "signature")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.signature: str | None = None

    def made(self) -> ToolCall:
        return ToolCall(self.id, self.name, "".join(self.arguments) or "{}", self.signature)


def _whole(call: ToolCall) -> bool:
    try:
        return isinstance(json.loads(call.arguments), dict) and call.arguments != "{}"
    except (ValueError, RecursionError):
        return False
