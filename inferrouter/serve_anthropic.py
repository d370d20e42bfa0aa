"""Serves Anthropic's messages and its token count: what Claude Code and the anthropic SDK ask.

Strategy: blocks become messages of the library's one vocabulary and come back as blocks; a turn that was thought about keeps its
blocks as they came, so that a Claude behind the router sees its own signatures again. A stream opens a block when its first
piece comes and closes it before the next. Must never know HTTP or who answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .anthropic_server import (
    ERROR_TYPES,
    PING,
    block_delta,
    block_start,
    block_stop,
    error_body,
    event,
    message_end,
    message_of,
    message_start,
    usage_of,
)
from .costs import estimate_chat
from .errors import InvalidRequestError, MalformedResponseError
from .records import ChatRequest, Message, NativeTurn, Routing, ToolCall
from .responses import ChatChunk, ChatResponse, ToolCallDelta
from .serve_dialect import Asked, Body, count_of, finish_of, flag_of, list_of, new_id, text_of, unknown_keys
from .serve_errors import Problem
from .serve_turns import TurnMemory
from .wire_json import dump_json, load_cut_json, load_json

STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
EFFORTS = ((4096, "low"), (12288, "medium"))
CARRIED = frozenset(
    (
        *("model", "messages", "max_tokens", "system", "tools", "tool_choice", "thinking", "stop_sequences", "stream"),
        *("temperature", "top_p", "output_config", "output_format", "metadata"),
    )
)


class MessagesDialect:
    """`/v1/messages`. See `serve_dialect.Dialect`."""

    ping = event(PING)

    def __init__(self, turns: TurnMemory | None = None) -> None:
        self._turns = turns or TurnMemory()

    def read(self, body: Body) -> Asked:
        """The chat in `body`."""
        model = text_of(body, "model")
        limit = count_of(body, "max_tokens")
        output = body.get("output_config") if isinstance(body.get("output_config"), dict) else {}
        tools = [tool for tool in map(_tool, list_of(body, "tools")) if tool is not None]
        request = ChatRequest(
            [self._turns.recalled(message) for message in _messages(body)],
            model,
            temperature=body.get("temperature"),
            max_tokens=limit,
            top_p=body.get("top_p"),
            stop=list_of(body, "stop_sequences") or None,
            tools=tools,
            tool_choice=_choice(body.get("tool_choice")) if tools else None,
            response_format=_format((output or {}).get("format") or body.get("output_format")),
            reasoning_effort=(output or {}).get("effort") or _effort(body.get("thinking")),
            session=_session(body.get("metadata")),
        )
        dropped = unknown_keys(body, CARRIED)
        built_in = ("tools",) if len(tools) < len(list_of(body, "tools")) else ()
        return Asked(request, model, flag_of(body, "stream"), 1, (*dropped, *built_in))

    def whole(self, asked: Asked, responses: Sequence[ChatResponse], now: float) -> Body:
        """A message."""
        self._turns.remember(responses)
        response = responses[0]
        usage = usage_of(response.usage.prompt_tokens, response.usage.completion_tokens, response.usage.cached_tokens)
        stop = STOPS[finish_of(response)]
        return message_of(
            _id(response), asked.model or response.model, _blocks(response.message, stop == "max_tokens"), usage, stop
        )

    def writer(self, asked: Asked, now: float) -> MessagesWriter:
        """The writer of a stream."""
        return MessagesWriter(asked, self._turns)

    def error(self, problem: Problem) -> Body:
        """Anthropic's error object."""
        return error_body(ERROR_TYPES.get(problem.status, "api_error"), problem.message)


class MessagesWriter:
    """Writes the events of one message."""

    def __init__(self, asked: Asked, turns: TurnMemory | None = None) -> None:
        self._asked = asked
        self._turns = turns
        self._index = -1
        self._kind: tuple[str, int] | None = None

    def start(self, routing: Routing) -> bytes:
        """message_start, with the input as it was estimated: what it really was comes at the end."""
        prompt = estimate_chat(self._asked.request).input_tokens
        begun = message_of(new_id("msg_"), self._asked.model or routing.model, (), usage_of(prompt, 1), None)
        return event(message_start(begun)) + event(PING)

    def chunk(self, chunk: ChatChunk, copy: int) -> bytes:
        """What the chunk adds to the first choice."""
        made = b""
        for choice in chunk.choices:
            if choice.index != 0:
                continue
            delta = choice.delta
            if delta.reasoning:
                made += self._enter("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                made += self._grow({"type": "thinking_delta", "thinking": delta.reasoning})
            if delta.content:
                made += self._enter("text", {"type": "text", "text": ""})
                made += self._grow({"type": "text_delta", "text": delta.content})
            for fragment in delta.tool_calls:
                made += self._call(fragment)
        return made

    def end(self, responses: Sequence[ChatResponse]) -> bytes:
        """The end of the last block and of the message, with usage."""
        if self._turns is not None:
            self._turns.remember(responses)
        response = responses[0]
        made = self._leave()
        if self._index < 0:  # nothing was said, which a message still says in a block
            made += event(block_start(0, {"type": "text", "text": ""})) + event(block_stop(0))
        usage = usage_of(response.usage.prompt_tokens, response.usage.completion_tokens, response.usage.cached_tokens)
        return made + b"".join(map(event, message_end(STOPS[finish_of(response)], None, usage)))

    def error(self, problem: Problem) -> bytes:
        """An error event."""
        return event(error_body("overloaded_error" if problem.status >= 500 else "api_error", problem.message))

    def _call(self, fragment: ToolCallDelta) -> bytes:
        block = {"type": "tool_use", "id": fragment.id or new_id("toolu_"), "name": fragment.name or "", "input": {}}
        made = self._enter("tool_use", block, fragment.index)
        return made + (
            self._grow({"type": "input_json_delta", "partial_json": fragment.arguments}) if fragment.arguments else b""
        )

    def _enter(self, kind: str, block: Body, number: int = 0) -> bytes:
        """Be in a block of this kind: the open one if it is, else a new one."""
        if self._kind == (kind, number):
            return b""
        made = self._leave()
        self._index += 1
        self._kind = (kind, number)
        return made + event(block_start(self._index, block))

    def _grow(self, delta: Body) -> bytes:
        return event(block_delta(self._index, delta))

    def _leave(self) -> bytes:
        if self._kind is None:
            return b""
        self._kind = None
        return event(block_stop(self._index))


def count_tokens(body: Body) -> Body:
    """`/v1/messages/count_tokens`: the input's tokens as this library estimates them, on the high side."""
    return {"input_tokens": estimate_chat(MessagesDialect().read({**body, "max_tokens": 1}).request).input_tokens}


def _messages(body: Body) -> Iterable[Message]:
    system = body.get("system")
    if isinstance(system, list):
        system = "\n\n".join(str(block.get("text", "")) for block in system if isinstance(block, dict))
    if system:
        yield Message("system", str(system))
    for place, item in enumerate(list_of(body, "messages")):
        if not isinstance(item, dict) or item.get("role") not in ("user", "assistant", "system"):
            raise InvalidRequestError(message=f"messages[{place}] needs a role, user or assistant")
        content = item.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise InvalidRequestError(message=f"messages[{place}].content is a text or a list of blocks")
        try:
            yield from _assistant(blocks) if item["role"] == "assistant" else _user(blocks, item["role"])
        except (KeyError, TypeError, AttributeError) as exc:
            raise InvalidRequestError(message=f"messages[{place}].content holds a block that cannot be read ({exc!r})") from None


def _assistant(blocks: list[Body]) -> Iterable[Message]:
    text = "".join(str(block["text"]) for block in blocks if block.get("type") == "text")
    calls = tuple(
        ToolCall(str(block["id"]), str(block["name"]), dump_json(block.get("input") or {}))
        for block in blocks
        if block.get("type") == "tool_use"
    )
    thought = "".join(str(block.get("thinking", "")) for block in blocks if block.get("type") == "thinking")
    kept = [{key: value for key, value in block.items() if key != "cache_control"} for block in blocks]
    # Thinking without a signature was written by another provider, and Anthropic refuses it.
    signed = all(block.get("signature") for block in kept if block.get("type") == "thinking")
    native = NativeTurn("anthropic", "", dump_json(kept), text, calls) if thought and signed else None
    yield Message("assistant", text, calls, reasoning=thought, native=native)


def _user(blocks: list[Body], role: str) -> Iterable[Message]:
    rest: list[Any] = []
    for block in blocks:
        if block.get("type") == "tool_result":
            yield Message("tool", _result(block), tool_call_id=str(block["tool_use_id"]))
        else:
            rest.append(_part(block))
    if rest:
        only_text = all(part["type"] == "text" for part in rest)
        yield Message(role, "\n\n".join(part["text"] for part in rest) if only_text else rest)


def _result(block: Body) -> Any:
    content = block.get("content")
    if isinstance(content, list):
        parts = [_part(each) for each in content]
        if all(part["type"] == "text" for part in parts):
            content = "\n\n".join(part["text"] for part in parts)
        else:
            return parts
    text = "" if content is None else str(content)
    return f"Error: {text}" if block.get("is_error") else text


def _part(block: Body) -> Body:
    kind = block.get("type")
    if kind == "text":
        return {"type": "text", "text": str(block["text"])}
    if kind in ("image", "document"):
        source = block["source"]
        if source["type"] == "text":
            return {"type": "text", "text": str(source["data"])}
        url = source["url"] if source["type"] == "url" else f"data:{source['media_type']};base64,{source['data']}"
        if kind == "image":
            return {"type": "image_url", "image_url": {"url": url}}
        return {"type": "file", "file": {"filename": block.get("title") or "document", "file_data": url}}
    raise InvalidRequestError(message=f"a content block of type {kind!r} cannot be passed on: send text, image or document")


def _tool(item: Any) -> Body | None:
    """A tool of the client's own; None for one that runs at Anthropic, which nobody else has."""
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise InvalidRequestError(message="each of tools needs a name and an input_schema")
    if "input_schema" not in item:
        return None
    function = {"name": item["name"], "description": item.get("description") or "", "parameters": item["input_schema"]}
    return {"type": "function", "function": function}


def _choice(choice: Any) -> Any:
    if not isinstance(choice, Mapping):
        return None
    kind = choice.get("type")
    return choice.get("name") if kind == "tool" else CHOICES.get(str(kind))


def _format(form: Any) -> Any:
    if not isinstance(form, Mapping) or form.get("type") != "json_schema":
        return None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form.get("schema")}}


def _effort(thinking: Any) -> str | None:
    """How much to think, by the budget that was given."""
    if not isinstance(thinking, Mapping) or thinking.get("type") != "enabled":
        return None
    budget = thinking.get("budget_tokens")
    return next((word for most, word in EFFORTS if isinstance(budget, int) and budget <= most), "high")


def _session(metadata: Any) -> str | None:
    """Whose conversation it is: agents such as Claude Code name it there, and a cached prompt is where it was cached."""
    user = metadata.get("user_id") if isinstance(metadata, Mapping) else None
    return user if isinstance(user, str) and user else None


def _blocks(message: Message, cut: bool) -> list[Body]:
    native = message.native_for("anthropic")
    if isinstance(native, list):
        return native
    blocks: list[Body] = []
    if message.reasoning:
        blocks.append({"type": "thinking", "thinking": message.reasoning, "signature": ""})
    if message.text or not (message.tool_calls or blocks):
        blocks.append({"type": "text", "text": message.text})
    for call in message.tool_calls:
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call, cut)})
    return blocks


def _input(call: ToolCall, cut: bool) -> Body:
    """A call's arguments, which must be an object here; those of an answer that was `cut` by its limit as far as they go."""
    text = call.arguments.strip()
    try:
        given = (load_cut_json if cut else load_json)(text) if text else {}
    except MalformedResponseError:
        given = {} if cut else None
    if not isinstance(given, dict):
        raise MalformedResponseError(message=f"the model's arguments for {call.name!r} are not a JSON object")
    return given


def _id(response: ChatResponse) -> str:
    return response.id if response.id.startswith("msg_") else new_id("msg_")
