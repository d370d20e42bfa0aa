"""Defines what a dialect must offer to be served by the endpoint, and the small readers its request formats share.

Strategy: a dialect turns a JSON body into an `Asked` (a `ChatRequest` and what its answer needs to know), and a `ChatResponse` or
the chunks of a stream back into its own bytes. What a client sends beyond what the library can express is dropped and named,
never an error. Must never know HTTP, sockets or who answers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from .errors import InvalidRequestError, MalformedResponseError
from .frozen import EMPTY, frozen_value, quick
from .records import ChatRequest, Routing
from .responses import ChatChunk, ChatResponse
from .serve_errors import Problem
from .wire_json import load_json

Body = dict[str, Any]

FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter"})
"""The words for an end that every client knows."""


@frozen_value
class Asked:
    """One chat as it was asked. `model`: the name as the client wrote it, which the answer repeats; `copies`: how many choices.

    `dropped`: parameters left out because the library cannot express them; `notes`: what the dialect wants to know again.
    """

    request: ChatRequest
    model: str
    stream: bool = False
    copies: int = 1
    dropped: tuple[str, ...] = ()
    notes: Mapping[str, Any] = EMPTY


asked_of = quick(Asked)


class StreamWriter(Protocol):
    """Writes one stream. Each method gives bytes that are whole events."""

    def start(self, routing: Routing) -> bytes:
        """What comes before the first chunk."""

    def chunk(self, chunk: ChatChunk, copy: int) -> bytes:
        """One chunk of choice number `copy`; may be empty."""

    def end(self, responses: Sequence[ChatResponse]) -> bytes:
        """What ends a stream that is whole; one response a copy."""

    def error(self, problem: Problem) -> bytes:
        """What tells that it broke off; nothing comes after it."""


class Dialect(Protocol):
    """One client's format."""

    ping: bytes
    """What keeps a silent stream alive, and means nothing."""

    def read(self, body: Body) -> Asked:
        """The chat in `body`. Raises `InvalidRequestError`."""

    def whole(self, asked: Asked, responses: Sequence[ChatResponse], now: float) -> Body:
        """The whole answer; one response a copy. `now`: epoch seconds."""

    def writer(self, asked: Asked, now: float) -> StreamWriter:
        """The writer of a stream."""

    def error(self, problem: Problem) -> Body:
        """The body that tells of `problem`."""


def parse_body(data: bytes) -> Body:
    """`data` as a JSON object. Raises `InvalidRequestError`."""
    try:
        found = load_json(data)
    except MalformedResponseError as exc:
        raise InvalidRequestError(message=f"the body is not JSON{exc.message.partition('is not JSON')[2]}") from None
    if not isinstance(found, dict):
        raise InvalidRequestError(message="the body is not a JSON object")
    return found


def text_of(body: Mapping[str, Any], name: str) -> str:
    """A string of the body; "" where it is missing or null. Raises `InvalidRequestError`."""
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidRequestError(message=f"{name} is a string, not {type(value).__name__}")
    return value


def flag_of(body: Mapping[str, Any], name: str) -> bool:
    """A switch of the body, off where it is missing or null. Raises `InvalidRequestError`."""
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidRequestError(message=f"{name} is true or false")


def list_of(body: Mapping[str, Any], name: str) -> list[Any]:
    """A list of the body, empty where it is missing or null. Raises `InvalidRequestError`."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidRequestError(message=f"{name} is a list, not {type(value).__name__}")
    return value


def count_of(body: Mapping[str, Any], *names: str) -> int | None:
    """A limit of tokens: the first of `names` that says one. Agents send 0 and -1 for none."""
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidRequestError(message=f"{name} is a whole number")
        return value if value > 0 else None
    return None


def unknown_keys(body: Mapping[str, Any], known: frozenset[str]) -> tuple[str, ...]:
    """The names in `body` that are not `known` and say something."""
    if body.keys() <= known:
        return ()
    return tuple(name for name, value in body.items() if name not in known and value is not None and value != [])


def finish_of(response: ChatResponse, choice: int = 0) -> str:
    """Why a choice of a whole answer ended, in a word that every client knows."""
    found = response.choices[choice]
    if found.finish_reason in FINISHES:
        return str(found.finish_reason)
    return "tool_calls" if found.message.tool_calls else "stop"


def new_id(prefix: str) -> str:
    """An id of its own for an answer that came without one."""
    return prefix + os.urandom(12).hex()
