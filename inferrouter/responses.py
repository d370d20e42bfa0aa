"""Defines what comes back: whole answers, the chunks of a stream, and how chunks are put together into an answer.

Strategy: built by the dialects from the provider's JSON, which stays reachable as text and is parsed afresh on each `raw`, so
that a value holds nothing mutable. A stream's pieces are lists that are joined once, at the end; a tool call reaches the whole
answer only when nothing of it can be missing. Must never know a provider.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .errors import MalformedResponseError
from .frozen import field, frozen_value, quick, shown_once_made
from .records import Message, NativeTurn, Routing, ToolCall, Usage

NOWHERE = Routing("", "", "")
UNTOLD = Usage()


@frozen_value
class Choice:
    """One answer. `finish_reason`: stop, length, tool_calls, content_filter, the provider's own word in lower case, or None."""

    index: int
    message: Message
    finish_reason: str | None = None


@frozen_value
class ChatResponse:
    """A whole answer. `text`, `tool_calls`, `reasoning` and `message` are those of the first choice."""

    id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage = UNTOLD
    routing: Routing = NOWHERE
    source: tuple[str, ...] = field(default=(), repr=False, compare=False)
    shape: Any = field(default=None, repr=False, compare=False)

    @shown_once_made
    def __repr__(self) -> str:
        calls = "".join(f" {call.name}(...)" for call in self.tool_calls)
        where = _place(self.routing)
        facts = f"{self.usage.total_tokens} tokens, {self.finish_reason}"
        return f"<ChatResponse {_cut(self.text)}{calls}{where}: {facts}; .text .parsed() .tool_calls .usage .routing .to_dict()>"

    @property
    def message(self) -> Message:
        """The first choice's message: append it to the conversation to go on."""
        return self.choices[0].message

    @property
    def text(self) -> str:
        """The first choice's text, "" if there is none."""
        return self.message.text

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The first choice's tool calls."""
        return tuple(self.message.tool_calls)

    @property
    def reasoning(self) -> str:
        """The first choice's reasoning text, "" if none was shown."""
        return self.message.reasoning

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason

    def routed(self, routing: Routing, usage: Usage | None = None, shape: Any = None) -> ChatResponse:
        """The same answer with `routing`, with `usage` if it is given, and the class that was asked for, which `parsed` makes."""
        usage = self.usage if usage is None else usage
        shape = self.shape if shape is None else shape
        return _response(self.id, self.model, self.choices, usage, routing, self.source, shape)

    @property
    def raw(self) -> Any:
        """The provider's own JSON, parsed anew each time: an object, or for a stream the list of its objects."""
        return _parsed(self.source)

    def json(self) -> Any:
        """The text parsed as JSON, code fences around it forgiven. Raises `MalformedResponseError` when it is not JSON."""
        text = self.text.strip()
        if text.startswith("```") and text.endswith("```"):
            text = text[3:-3]
            text = text[4:] if text[:4].lower() == "json" else text
        try:
            return json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as exc:
            cut = " It was cut by max_tokens." if self.finish_reason == "length" else ""
            message = f"the answer is not JSON ({_first_line(exc)}).{cut} Ask with response_format, or read .text"
            raise misfit(self, message) from exc

    def parsed(self) -> Any:
        """The text as what `response_format` asked for: an instance of its class, else what the JSON holds.

        Raises `MalformedResponseError` when it is not JSON or does not fit the class, saying where.
        """
        data = self.json()
        if self.shape is None:
            return data
        from .shapes import built, name_of

        try:
            return built(self.shape, data)
        except Exception as exc:
            message = f"the answer does not fit {name_of(self.shape)}: {_first_line(exc)}. Ask again, or read .json()"
            raise misfit(self, message) from exc

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's chat.completion dict, with `routing` and what it cost beside it; for logs and files."""
        choices = [
            {
                "index": choice.index,
                "message": choice.message.to_dict()
                | ({"reasoning": choice.message.reasoning} if choice.message.reasoning else {}),
                "finish_reason": choice.finish_reason,
            }
            for choice in self.choices
        ]
        made = {"id": self.id, "object": "chat.completion", "model": self.model, "choices": choices}
        return made | {"usage": _usage_dict(self.usage), "routing": _routing_dict(self.routing)}


def misfit(answer: ChatResponse, message: str) -> MalformedResponseError:
    """The error that `answer` is not what was asked for."""
    where = answer.routing
    return MalformedResponseError(where.provider, where.account_id, where.model, body=answer.text[:2048], message=message)


@frozen_value
class ToolCallDelta:
    """A fragment of tool call number `index`; `arguments` is to be appended."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    signature: str | None = field(default=None, repr=False)


@frozen_value
class Delta:
    """What a chunk adds to one choice; "" and () mean nothing."""

    content: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()


@frozen_value
class ChunkChoice:
    """A chunk's part of choice number `index`."""

    index: int
    delta: Delta
    finish_reason: str | None = None


NOTHING_NEW = (ChunkChoice(0, Delta()),)


@frozen_value
class ChatChunk:
    """One piece of a stream; it always has at least one choice. `usage` is None until the provider tells it."""

    id: str = ""
    model: str = ""
    choices: tuple[ChunkChoice, ...] = NOTHING_NEW
    usage: Usage | None = None
    source: str = field(default="", repr=False, compare=False)

    @property
    def text(self) -> str:
        """The text this chunk adds to the first choice."""
        choices = self.choices
        if len(choices) == 1:
            return choices[0].delta.content if choices[0].index == 0 else ""
        return "".join(choice.delta.content for choice in choices if choice.index == 0)

    @property
    def reasoning(self) -> str:
        """The reasoning text this chunk adds to the first choice."""
        return "".join(choice.delta.reasoning for choice in self.choices if choice.index == 0)

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended, once it has."""
        return next((choice.finish_reason for choice in self.choices if choice.index == 0), None)

    @property
    def raw(self) -> Any:
        """The provider's own JSON of this chunk, parsed anew."""
        return _parsed((self.source,)) if self.source else None


_response = quick(ChatResponse)


@frozen_value
class EmbedResponse:
    """Vectors, one for each input, in order."""

    embeddings: tuple[tuple[float, ...], ...] = field(repr=False)
    model: str = ""
    usage: Usage = UNTOLD
    routing: Routing = NOWHERE
    source: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @shown_once_made
    def __repr__(self) -> str:
        size = f" of {len(self.embeddings[0])} numbers" if self.embeddings else ""
        count = f"{len(self.embeddings)} vector{'s' * (len(self.embeddings) != 1)}{size}"
        return f"<EmbedResponse {count}{_place(self.routing)}: {self.usage.total_tokens} tokens; .embeddings .usage .routing>"

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's embeddings dict, with `routing` beside it."""
        data = [{"object": "embedding", "index": i, "embedding": list(vector)} for i, vector in enumerate(self.embeddings)]
        made = {"object": "list", "model": self.model, "data": data}
        return made | {"usage": _usage_dict(self.usage), "routing": _routing_dict(self.routing)}

    @property
    def raw(self) -> Any:
        """The provider's own JSON, parsed anew; a list where several batches were asked."""
        return _parsed(self.source)


def _parsed(texts: tuple[str, ...]) -> Any:
    """The JSON of `texts`, alone or as a list. Raises `MalformedResponseError` where it is nested too deeply for this stack."""
    try:
        objects = [json.loads(text) for text in texts]
    except (ValueError, RecursionError) as exc:
        raise MalformedResponseError(message="the JSON is nested too deeply to be parsed here; its text is in .source") from exc
    return objects[0] if len(objects) == 1 else objects


def _place(routing: Routing) -> str:
    return f" from {routing.provider}/{routing.account_id} {routing.model}" if routing.provider else ""


def _cut(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _usage_dict(usage: Usage) -> dict[str, Any]:
    counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    details = {
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, **usage.input_breakdown},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
    return {**counts, "total_tokens": usage.total_tokens, **details}


def _routing_dict(routing: Routing) -> dict[str, Any]:
    names = ("provider", "account_id", "model", "attempts", "free", "cost")
    return {name: getattr(routing, name) for name in names} | {"dropped": list(routing.dropped)}


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _first_line(exc: Exception) -> str:
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__


class Assembler:
    """Takes chunks with `add`, gives a `ChatResponse` with `response`. For one stream, used by one thread."""

    __slots__ = ("_choices", "_sources", "id", "model", "usage")

    def __init__(self) -> None:
        self.id = ""
        self.model = ""
        self.usage: Usage | None = None
        self._choices: dict[int, ChoiceBuilder] = {}
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
                building = self._choices[choice.index] = ChoiceBuilder()
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

    def response(self, routing: Routing, usage: Usage, natives: Mapping[int, NativeTurn], complete: bool) -> ChatResponse:
        """The whole answer; with `complete` False what came of it, without a finish reason and without unfinished calls."""
        choices = tuple(building.choice(index, natives.get(index), complete) for index, building in sorted(self._choices.items()))
        empty = (Choice(0, Message("assistant", "")),)
        sources = tuple(source for source in self._sources if source)
        return ChatResponse(self.id, self.model, choices or empty, usage, routing, sources)


class ChoiceBuilder:
    """Puts one choice together from its deltas."""

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

    def choice(self, index: int, native: NativeTurn | None, complete: bool) -> Choice:
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
