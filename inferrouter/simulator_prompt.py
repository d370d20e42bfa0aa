"""Defines what the stand-in models are asked and what they answer, whatever the dialect, and counts their tokens.

Strategy: a wire parses its dialect into a `Prompt` of `Turn`s or into `Texts`, and renders an `Answer`; tokens are a
real count over the text that came and went, the same on every wire and every run.
Must never know a dialect, a key, or HTTP.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from typing import Any, Literal

from .frozen import field, frozen_value

Finish = Literal["stop", "length", "sequence", "calls"]

MEDIA_TOKENS = {"image": 258, "audio": 320, "video": 1300, "document": 516}  # tokens each, whatever the size
TOKEN = re.compile(r"\w{1,6}|[^\w\s]")


@frozen_value
class Media:
    """One attachment. `kind`: a key of `MEDIA_TOKENS`; `size`: bytes, 0 when only a link came."""

    kind: str
    mime_type: str
    size: int


@frozen_value
class Call:
    """A tool call. `id` is empty where a dialect has none."""

    name: str
    arguments: Mapping[str, Any]
    id: str = ""


@frozen_value
class Result:
    """What the caller's tool gave back."""

    name: str
    text: str


@frozen_value
class Turn:
    """One turn of the history. `role`: system, user, assistant or tool."""

    role: str
    text: str = ""
    media: tuple[Media, ...] = ()
    calls: tuple[Call, ...] = ()
    results: tuple[Result, ...] = ()


@frozen_value
class ToolSpec:
    """A tool on offer; `schema` is the JSON schema of its arguments."""

    name: str
    schema: Mapping[str, Any]
    description: str = ""


@frozen_value
class Prompt:
    """One chat request. `choice`: auto, none, any or a tool's name; `schema`: None asks for text, {} for any JSON object.

    `max_tokens`: None: no limit. `copies`: how many choices. `notes`: what the wire wants to remember for its answer.
    """

    model: str
    turns: tuple[Turn, ...]
    tools: tuple[ToolSpec, ...] = ()
    choice: str = "auto"
    parallel: bool = True
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    stream: bool = False
    thinking: bool = False
    copies: int = 1
    notes: frozenset[str] = field(default_factory=frozenset)

    @property
    def question(self) -> str:
        """The text of the last user turn, "" without one."""
        return next((turn.text for turn in reversed(self.turns) if turn.role == "user" and turn.text), "")

    @property
    def results(self) -> tuple[Result, ...]:
        """The tool results at the very end of the history, in order; () if the last word is not a tool's."""
        found: list[Result] = []
        for turn in reversed(self.turns):
            if not turn.results:
                break
            found[:0] = turn.results
        return tuple(found)

    @property
    def tokens(self) -> int:
        """Tokens of everything that came in, media included."""
        texts = [turn.text for turn in self.turns]
        texts += [f"{call.name} {compact(call.arguments)}" for turn in self.turns for call in turn.calls]
        texts += [result.text for turn in self.turns for result in turn.results]
        texts += [f"{tool.name} {tool.description} {compact(tool.schema)}" for tool in self.tools]
        return sum(map(count_tokens, texts)) + sum(self.media_tokens().values())

    def media_tokens(self) -> dict[str, int]:
        """Tokens of the media by kind; kinds that did not come are left out."""
        spent: dict[str, int] = {}
        for turn in self.turns:
            for media in turn.media:
                spent[media.kind] = spent.get(media.kind, 0) + MEDIA_TOKENS[media.kind]
        return spent


@frozen_value
class Texts:
    """One embedding request. `dimensions`: length of each vector; `notes` as in `Prompt`."""

    model: str
    inputs: tuple[str, ...]
    dimensions: int = 64
    notes: frozenset[str] = field(default_factory=frozenset)

    @property
    def tokens(self) -> int:
        """Tokens of all inputs."""
        return sum(map(count_tokens, self.inputs))


@frozen_value
class Answer:
    """One choice. `stop_word`: the stop sequence met, "" if none. Tokens are per choice; thinking is inside completion."""

    text: str
    thinking: str = ""
    calls: tuple[Call, ...] = ()
    finish: Finish = "stop"
    stop_word: str = ""

    @property
    def thinking_tokens(self) -> int:
        """Tokens of the thinking alone."""
        return count_tokens(self.thinking)

    @property
    def completion_tokens(self) -> int:
        """Tokens of everything that goes out for one choice."""
        calls = sum(count_tokens(f"{call.name} {compact(call.arguments)}") for call in self.calls)
        return self.thinking_tokens + count_tokens(self.text) + calls


class IssuedTokens:
    """What a stand-in has issued and wants to see again; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._issued: set[str] = set()

    def add(self, token: str) -> None:
        """Remember `token`."""
        with self._lock:
            self._issued.add(token)

    def __contains__(self, token: str) -> bool:
        with self._lock:
            return token in self._issued


def count_tokens(text: str) -> int:
    """Tokens of `text`: one for each run of up to six letters or digits, one for each other sign that is not a space."""
    return sum(1 for _ in TOKEN.finditer(text))


def compact(value: object) -> str:
    """`value` as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
