"""Writes answers in the format of OpenAI's Responses API: the response object, its output items, and the events of a stream.

Strategy: a response is a list of items (reasoning, a message, function calls); a stream tells of each item its beginning, its
growth and its end, numbers its events, and ends with the whole response once more. Must never know who asked, who answered,
HTTP or sockets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .wire_json import write_event

Body = dict[str, Any]


def response_of(number: str, created: float, model: str, echoed: Mapping[str, Any], output: Sequence[Body]) -> Body:
    """A response under way, without usage. `echoed`: the request's settings, which it repeats."""
    return {
        "id": number,
        "object": "response",
        "created_at": int(created),
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": list(output),
        "previous_response_id": None,
        "store": False,
        "truncation": "disabled",
        "usage": None,
        "user": None,
        "metadata": {},
        **echoed,
    }


def ended(response: Body, usage: Body, cut_by: str | None) -> Body:
    """The same response at its end. `cut_by`: max_output_tokens or content_filter, None if it is whole."""
    details = {"reason": cut_by} if cut_by else None
    return {**response, "status": "incomplete" if cut_by else "completed", "incomplete_details": details, "usage": usage}


def failed(response: Body, code: str | None, message: str) -> Body:
    """The same response broken off."""
    return {**response, "status": "failed", "error": {"code": code or "server_error", "message": message}}


def usage_of(prompt: int, completion: int, total: int, cached: int, reasoning: int) -> Body:
    """Tokens; cached is part of the input, reasoning of the output."""
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": total,
    }


def text_part(text: str) -> Body:
    """The one part of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def message_item(number: str, text: str | None) -> Body:
    """A message; with None one that has just begun."""
    content = [] if text is None else [text_part(text)]
    status = "in_progress" if text is None else "completed"
    return {"id": number, "type": "message", "status": status, "role": "assistant", "content": content}


def reasoning_item(number: str, text: str | None) -> Body:
    """Reasoning, as its summary; with None one that has just begun."""
    return {"id": number, "type": "reasoning", "summary": [] if text is None else [summary_part(text)]}


def summary_part(text: str) -> Body:
    """The one part of a reasoning item."""
    return {"type": "summary_text", "text": text}


def call_item(number: str, call_id: str, name: str, arguments: str, status: str = "completed") -> Body:
    """A function call. `arguments`: JSON text."""
    return {
        "id": number,
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


class Events:
    """Numbers and frames the events of one stream."""

    def __init__(self) -> None:
        self._number = 0

    def write(self, kind: str, **facts: Any) -> bytes:
        """One event."""
        made = write_event({"type": kind, "sequence_number": self._number, **facts}, kind)
        self._number += 1
        return made
