"""Writes answers in Anthropic's format, as its servers do: messages, the events of a stream, model lists, errors.

Strategy: each function turns plain facts into the JSON object that goes out, so that the endpoint and the simulator send the
same bytes for the same facts; `event` frames one with its type as the event's name. Must never know who asked, who answered,
HTTP or sockets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .wire_json import write_event

Body = dict[str, Any]

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
"""The `type` of an error by its status; any other is an api_error."""


def error_body(kind: str, message: str, request_id: str | None = None) -> Body:
    """An error, also as the data of an error event."""
    known = {} if request_id is None else {"request_id": request_id}
    return {"type": "error", "error": {"type": kind, "message": message}, **known}


def message_of(
    number: str, model: str, content: Sequence[Body], usage: Body, stop_reason: str | None, stop_sequence: str | None = None
) -> Body:
    """A whole message, or for a message_start one without content and stop reason."""
    return {
        "id": number,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": list(content),
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": usage,
    }


def usage_of(prompt: int, completion: int, cached: int = 0) -> Body:
    """Tokens; `cached` is part of `prompt`, and Anthropic's `input_tokens` leaves it out."""
    return {
        "input_tokens": max(0, prompt - cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": completion,
    }


def event(data: Body) -> bytes:
    """`data` as an event that is named by its type."""
    return write_event(data, data["type"])


def message_start(message: Body) -> Body:
    """The first event of a stream."""
    return {"type": "message_start", "message": message}


def block_start(index: int, block: Body) -> Body:
    """Block number `index` begins, empty."""
    return {"type": "content_block_start", "index": index, "content_block": block}


def block_delta(index: int, delta: Body) -> Body:
    """Block number `index` grows."""
    return {"type": "content_block_delta", "index": index, "delta": delta}


def block_stop(index: int) -> Body:
    """Block number `index` is whole."""
    return {"type": "content_block_stop", "index": index}


def message_end(stop_reason: str, stop_sequence: str | None, usage: Body) -> list[Body]:
    """The two events that end a message."""
    stopped = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
    return [{"type": "message_delta", "delta": stopped, "usage": usage}, {"type": "message_stop"}]


PING: Body = {"type": "ping"}


def model_list(names: Iterable[str]) -> Body:
    """The model list, all on one page."""
    data = [{"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"} for name in names]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"data": data, "has_more": False, **ends}
