"""A chat in OpenAI's words, as the JSON body that one of its many servers takes.

Strategy: build a plain dict from the request in one pass, asking the server's row where servers differ; the caller's
`extra` goes in last, as it is. Must never know addresses or keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .content import Part
from .dialect import merge_extra
from .openai_servers import Server, lacking, limit_word
from .records import ChatRequest, Message, ToolCall

__all__ = ["chat_body", "unsupported"]

_PLAIN = ("temperature", "top_p", "seed", "tool_choice", "response_format", "reasoning_effort", "stop")
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def chat_body(request: ChatRequest, model: str, server: Server, provider: str, stream: bool) -> dict[str, Any]:
    """The body for `request`; what the server has no word for is left out (see `unsupported`)."""
    body: dict[str, Any] = {
        "model": model,
        "messages": _turns(request.messages, server, provider),
    }
    if stream:
        body["stream"] = True
        if server.stream_usage:
            body["stream_options"] = {"include_usage": True}
    if request.max_tokens is not None:
        body[limit_word(server, model)] = request.max_tokens
    refused = lacking(server, model)
    if request.tools and "tools" not in refused:
        body["tools"] = [tool.to_dict() for tool in request.tools]
    for name in _PLAIN:
        value = getattr(request, name)
        if value is not None and not _refused(name, value, refused):
            _set(body, name, value, server)
    if request.extra:
        merge_extra(body, request.extra)
    return body


def unsupported(request: ChatRequest, model: str, server: Server) -> tuple[str, ...]:
    """The parameters of `request` that `model` on this server has no word for."""
    refused = lacking(server, model)
    if not refused:
        return ()
    given = {name: getattr(request, name) for name in _PLAIN}
    found = [name for name, value in given.items() if value is not None and _refused(name, value, refused)]
    if request.tools and "tools" in refused:
        found.append("tools")
    return tuple(found)


def _refused(name: str, value: Any, refused: frozenset[str]) -> bool:
    if value == 1 and name in ("temperature", "top_p"):
        return False  # as such models sample anyway
    return name in refused or (
        name == "response_format" and "json_schema" in refused and bool(value["type"] == "json_schema")
    )


def _set(body: dict[str, Any], name: str, value: Any, server: Server) -> None:
    if name == "seed":
        body[server.seed_word] = value
    elif name == "reasoning_effort" and server.effort_word == "reasoning":
        body["reasoning"] = {"effort": value}
    elif name == "response_format" and value["type"] == "json_schema" and "name" not in value["json_schema"]:
        body[name] = {**value, "json_schema": {"name": "answer", **value["json_schema"]}}
    else:
        body[name] = value


def _turns(messages: Sequence[Any], server: Server, provider: str) -> list[dict[str, Any]]:
    """The messages. Media among tools' results follow them in a user message: a tool message holds text only, save Mistral's."""
    made: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for message in messages:
        if shown and message.role != "tool":
            made.append({"role": "user", "content": shown})
            shown = []
        turn = _message(message, server, provider)
        if message.role == "tool" and not isinstance(message.content, str) and not server.mistral_media:
            shown += [part.to_dict() for part in message.parts if part.kind != "text"]
            turn["content"] = message.text
        made.append(turn)
    return [*made, {"role": "user", "content": shown}] if shown else made


def _message(message: Message, server: Server, provider: str) -> dict[str, Any]:
    role = message.role
    if role == "assistant":
        return _assistant(message, server, provider)
    if role == "developer" and not server.developer_role:
        role = "system"
    made: dict[str, Any] = {"role": role, "content": _content(message, server)}
    if message.tool_call_id is not None:
        made["tool_call_id"] = _call_id(message.tool_call_id, server)
    if message.name is not None and server.names:
        made["name"] = message.name
    return made


def _assistant(message: Message, server: Server, provider: str) -> dict[str, Any]:
    if message.native is not None:
        kept = message.native_for("openai", provider)
        if isinstance(kept, dict):
            for call in kept.get("tool_calls", ()):
                call["id"] = _call_id(call["id"], server)
            return kept
    made: dict[str, Any] = {"role": "assistant", "content": _content(message, server)}
    if message.tool_calls:
        made["content"] = made["content"] or None
        made["tool_calls"] = [
            replace(call, id=_call_id(call.id, server), arguments=call.arguments.strip() or "{}").to_dict()
            for call in message.tool_calls
            if isinstance(call, ToolCall)
        ]
    if message.name is not None and server.names:
        made["name"] = message.name
    return made


def _content(message: Message, server: Server) -> str | list[dict[str, Any]]:
    content = message.content
    if isinstance(content, str):
        return content
    parts = message.parts
    if all(part.kind == "text" for part in parts):
        return message.text if len(parts) < 2 else [part.to_dict() for part in parts]
    return [_mistral_part(part) if server.mistral_media else part.to_dict() for part in parts]


def _mistral_part(part: Part) -> dict[str, Any]:
    if part.kind == "document":
        return {"type": "document_url", "document_url": part.data_url()}
    if part.kind == "audio":
        return {"type": "input_audio", "input_audio": part.url or part.base64()}
    return part.to_dict()


def _call_id(call_id: str, server: Server) -> str:
    """The id as the server takes it; the same id always maps to the same, so a result still meets its call."""
    if not server.short_ids or (len(call_id) == 9 and call_id.isascii() and call_id.isalnum()):
        return call_id
    digest = hashlib.blake2b(call_id.encode("utf-8", "surrogatepass"), digest_size=9).digest()
    return "".join(_LETTERS[byte % 62] for byte in digest)
