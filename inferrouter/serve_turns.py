"""Remembers the turns in which a model called tools, so that what their client forgets goes back with them.

Strategy: some models sign what they thought before a call and refuse a history without it (Gemini's thought signatures, Claude's
thinking); most clients give back the call and drop the signature. A turn is found again by the id of its first call, and put in
the place of the client's copy if that says the same. Bounded, in memory alone: a turn that is forgotten goes as the client sent
it. Must never know a wire format.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from .errors import InvalidRequestError
from .records import Message, ToolCall
from .responses import ChatResponse

KEPT = 2000
"""Turns that are remembered at most."""


class TurnMemory:
    """The turns of one endpoint. Thread-safe."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._lock = threading.Lock()
        self._turns: OrderedDict[str, Message] = OrderedDict()

    def remember(self, responses: Iterable[ChatResponse]) -> None:
        """Keep each turn that holds more than a client gives back."""
        for response in responses:
            for choice in response.choices:
                message = choice.message
                if message.tool_calls and (message.native or any(call.signature for call in message.tool_calls)):
                    with self._lock:
                        self._turns[message.tool_calls[0].id] = message
                        if len(self._turns) > self._kept:
                            self._turns.popitem(last=False)

    def recalled(self, message: Message) -> Message:
        """The turn as it was, if `message` is a copy of one that is known; else `message`."""
        if message.role != "assistant" or not message.tool_calls:
            return message
        with self._lock:
            known = self._turns.get(message.tool_calls[0].id)
        same = known is not None and _said(known.tool_calls) == _said(message.tool_calls) and known.text == message.text
        return known if known is not None and same else message


def _said(calls: Iterable[ToolCall]) -> list[tuple[str, str, object]]:
    """What calls say, however their JSON is spaced."""
    return [(call.id, call.name, _arguments(call)) for call in calls]


def _arguments(call: ToolCall) -> object:
    try:
        return call.parsed()
    except InvalidRequestError:
        return call.arguments
