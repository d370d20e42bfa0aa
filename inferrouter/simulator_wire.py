"""Defines what a dialect must offer to be served by the simulator, with the small tools its wires share.

Strategy: a `Wire` turns a request into a `Prompt` or `Texts`, or raises `Refusal` with the provider's own status and
body; and turns an `Answer` into one JSON body or into server-sent events, the ending kept apart so that a fault can
leave it out. A wire must never know sockets, clocks or how limits are counted.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from .frozen import field, frozen_value
from .secret import Secret
from .simulator_prompt import Answer, Media, Prompt, Texts

Body = dict[str, Any]


class Refusal(Exception):  # noqa: N818  # it is an answer, not a fault of the simulator
    """The provider's refusal: HTTP `status`, JSON `body`, extra `headers`."""

    def __init__(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers: Mapping[str, str] = headers or {}


@frozen_value
class LimitState:
    """One limit of one key. `resets_in`: seconds until its window ends."""

    unit: Literal["requests", "tokens"]
    window: Literal["minute", "day"]
    limit: int
    used: int
    resets_in: float

    @property
    def remaining(self) -> int:
        """What is left, never below 0."""
        return max(0, self.limit - self.used)

    @property
    def wait(self) -> int:
        """Whole seconds until the window ends, at least 1."""
        return max(1, math.ceil(self.resets_in))


@frozen_value
class Exchange:
    """One accepted request and its answer. `number`: unique, for ids; `now`: epoch seconds; `prompt_tokens` came in."""

    prompt: Prompt
    answer: Answer
    prompt_tokens: int
    number: str
    now: float
    chunk_words: int

    @property
    def completion_tokens(self) -> int:
        """Tokens that go out, over all choices."""
        return self.answer.completion_tokens * self.prompt.copies


@frozen_value
class ScriptedResponse:
    """What to send. `events` None sends `body` with its length, else each event is a chunk.

    `end`: whole; cut (half a body, or the events without the last chunk, then the connection closes); dropped (closed
    without a byte). `wait`: seconds before the first byte; `pause`: seconds before each event; `stall`: seconds more
    before event number `stall_at`, from 0.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    events: tuple[bytes, ...] | None = None
    end: Literal["whole", "cut", "dropped"] = "whole"
    wait: float = 0.0
    pause: float = 0.0
    stall_at: int = 0
    stall: float = 0.0


class Wire(Protocol):
    """One provider's dialect."""

    root: str
    """The path that a base_url ends with."""
    indent: int | None
    """Indentation of JSON bodies."""
    id_header: str
    """Name of the header that carries the request's id, "" if there is none."""

    def key(self, headers: Mapping[str, str]) -> Secret:
        """The key that came, empty if none did."""

    def error_type(self, query: Mapping[str, str]) -> str:
        """The content type of an error."""

    def read(self, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Prompt | Texts:
        """The request behind a POST; raises `Refusal`. `path` begins after the root."""

    def refusal(self, status: int, message: str = "", model: str = "") -> Refusal:
        """The provider's usual body for `status`; 401 means a bad key and 404 an unknown model."""

    def limited(self, model: str, spent: list[LimitState], asked: int, now: float) -> Refusal:
        """The 429 for the limits in `spent`; `asked`: prompt tokens of the request."""

    def rate_headers(self, limits: list[LimitState], now: float) -> dict[str, str]:
        """Headers that tell what is left."""

    def whole(self, exchange: Exchange) -> Any:
        """The JSON body of a unary answer."""

    def stream(self, exchange: Exchange) -> tuple[list[bytes], list[bytes]]:
        """Framed events with content, and the framed events that end the stream."""

    def error_event(self) -> bytes:
        """A framed event that reports a failure in mid-stream."""

    def empty_response(self, exchange: Exchange) -> Any:
        """A body of a 200 that holds no answer at all."""

    def vectors(self, texts: Texts) -> Any:
        """The JSON body of an embedding answer."""

    def listing(self, models: tuple[str, ...]) -> Any:
        """The JSON body of the model list."""


def as_object(body: bytes) -> Body | None:
    """`body` as a JSON object, None if it is anything else."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def as_media(mime_type: str, data: object) -> Media | None:
    """The attachment in base64 text `data`, None if it cannot be read."""
    try:
        size = len(base64.b64decode(str(data), validate=True))
    except (binascii.Error, ValueError):
        return None
    return Media(_kind(mime_type), mime_type, size) if size and "/" in mime_type else None


def link_media(url: object, kind: str = "image") -> Media | None:
    """The attachment behind `url`, a data URL or a link, None if it is neither."""
    text = str(url)
    if text.startswith("data:"):
        head, _, data = text[5:].partition(",")
        return as_media(head.removesuffix(";base64"), data) if head.endswith(";base64") else None
    return Media(kind, f"{kind}/*", 0) if text.startswith(("http://", "https://", "gs://")) else None


def names(text: str) -> frozenset[str]:
    """The words of `text` as a set of field names."""
    return frozenset(text.split())


def first_unknown_field(found: Mapping[str, Any], known: frozenset[str]) -> str | None:
    """The first name in `found` that is not in `known`, None if there is none."""
    return next((name for name in found if name not in known), None)


def _kind(mime_type: str) -> str:
    family = mime_type.partition("/")[0]
    return family if family in ("image", "audio", "video") else "document"
