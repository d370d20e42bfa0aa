"""Serves OpenAI's Responses API: what current SDKs and Codex ask.

Strategy: input items become messages of the library's one vocabulary (calls that stand side by side are one turn), and answers
become output items. Nothing is stored, so `previous_response_id` is refused with a sentence; tools that run at OpenAI are dropped
and named. Must never know HTTP or who answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import InvalidRequestError
from .frozen import FrozenDict
from .openai_server import error_body
from .records import ChatRequest, Message, Routing, ToolCall
from .responses import ChatChunk, ChatResponse, ToolCallDelta
from .responses_server import (
    Events,
    call_item,
    ended,
    failed,
    message_item,
    reasoning_item,
    response_of,
    summary_part,
    text_part,
    usage_of,
)
from .serve_dialect import Asked, Body, count_of, finish_of, flag_of, list_of, new_id, text_of, unknown_keys
from .serve_errors import Problem
from .serve_turns import TurnMemory

CARRIED = frozenset(
    (
        *(
            "model",
            "input",
            "instructions",
            "tools",
            "tool_choice",
            "max_output_tokens",
            "temperature",
            "top_p",
            "stream",
            "text",
        ),
        *(
            "reasoning",
            "store",
            "include",
            "stream_options",
            "parallel_tool_calls",
            "metadata",
            "previous_response_id",
            "prompt_cache_key",
        ),
    )
)
ECHOED = ("instructions", "max_output_tokens", "temperature", "top_p", "metadata")
CUTS = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesDialect:
    """`/v1/responses`. See `serve_dialect.Dialect`."""

    ping = b": keep-alive\n\n"

    def __init__(self, turns: TurnMemory | None = None) -> None:
        self._turns = turns or TurnMemory()

    def read(self, body: Body) -> Asked:
        """The chat in `body`."""
        if body.get("previous_response_id") or body.get("conversation"):
            raise InvalidRequestError(
                message="nothing is stored here: send the whole conversation as input, without an earlier id"
            )
        model = text_of(body, "model")
        given = list_of(body, "tools")
        tools = [_tool(tool) for tool in given if isinstance(tool, dict) and tool.get("type", "function") == "function"]
        reasoning = body.get("reasoning") if isinstance(body.get("reasoning"), dict) else {}
        request = ChatRequest(
            [self._turns.recalled(message) for message in _messages(body)],
            model,
            temperature=body.get("temperature"),
            max_tokens=count_of(body, "max_output_tokens"),
            top_p=body.get("top_p"),
            tools=tools,
            tool_choice=_choice(body.get("tool_choice")) if tools else None,
            response_format=_format(body.get("text")),
            reasoning_effort=(reasoning or {}).get("effort"),
            session=text_of(body, "prompt_cache_key") or None,
        )
        dropped = (*unknown_keys(body, CARRIED), *(("tools",) if len(tools) < len(given) else ()))
        echoed: Body = {name: body.get(name) for name in ECHOED}
        echoed["metadata"] = echoed["metadata"] or {}
        echoed["tools"], echoed["tool_choice"] = given, body.get("tool_choice") or "auto"
        echoed["parallel_tool_calls"] = body.get("parallel_tool_calls") is not False
        echoed["text"] = body.get("text") or {"format": {"type": "text"}}
        echoed["reasoning"] = body.get("reasoning") or {"effort": None, "summary": None}
        return Asked(request, model, flag_of(body, "stream"), 1, dropped, FrozenDict(echoed))

    def whole(self, asked: Asked, responses: Sequence[ChatResponse], now: float) -> Body:
        """A response."""
        self._turns.remember(responses)
        response = responses[0]
        message = response.message
        output = [reasoning_item(new_id("rs_"), message.reasoning)] if message.reasoning else []
        if message.text or not message.tool_calls:
            output.append(message_item(new_id("msg_"), message.text))
        output += [call_item(new_id("fc_"), call.id, call.name, call.arguments) for call in message.tool_calls]
        begun = response_of(new_id("resp_"), now, asked.model or response.model, asked.notes, output)
        return ended(begun, _usage(response), CUTS.get(finish_of(response)))

    def writer(self, asked: Asked, now: float) -> ResponsesWriter:
        """The writer of a stream."""
        return ResponsesWriter(asked, now, self._turns)

    def error(self, problem: Problem) -> Body:
        """OpenAI's error object."""
        return error_body(problem.message, problem.kind, problem.code, problem.param)


class ResponsesWriter:
    """Writes the events of one response. One item is open at a time."""

    def __init__(self, asked: Asked, now: float, turns: TurnMemory | None = None) -> None:
        self._asked = asked
        self._turns = turns
        self._now = now
        self._events = Events()
        self._response: Body = {}
        self._done: list[Body] = []
        self._kind: tuple[str, int] | None = None
        self._item: Body = {}
        self._pieces: list[str] = []

    def start(self, routing: Routing) -> bytes:
        """The two events that begin a response."""
        model = self._asked.model or routing.model
        self._response = response_of(new_id("resp_"), self._now, model, self._asked.notes, ())
        write = self._events.write
        return write("response.created", response=self._response) + write("response.in_progress", response=self._response)

    def chunk(self, chunk: ChatChunk, copy: int) -> bytes:
        """What the chunk adds to the first choice."""
        made = b""
        for choice in chunk.choices:
            if choice.index != 0:
                continue
            delta = choice.delta
            if delta.reasoning:
                made += self._enter("reasoning", reasoning_item(new_id("rs_"), None))
                made += self._grow("response.reasoning_summary_text.delta", delta.reasoning, summary_index=0)
            if delta.content:
                made += self._enter("message", message_item(new_id("msg_"), None))
                made += self._grow("response.output_text.delta", delta.content, content_index=0, logprobs=[])
            for fragment in delta.tool_calls:
                made += self._call(fragment)
        return made

    def end(self, responses: Sequence[ChatResponse]) -> bytes:
        """The end of the last item, and the whole response."""
        if self._turns is not None:
            self._turns.remember(responses)
        response = responses[0]
        made = self._leave()
        if not self._done:
            made += self._enter("message", message_item(new_id("msg_"), None)) + self._leave()
        cut_by = CUTS.get(finish_of(response))
        whole = ended({**self._response, "output": self._done}, _usage(response), cut_by)
        return made + self._events.write("response.incomplete" if cut_by else "response.completed", response=whole)

    def error(self, problem: Problem) -> bytes:
        """The two events that tell of a failure."""
        write = self._events.write
        broken = failed({**self._response, "output": self._done}, problem.code, problem.message)
        said = write("error", code=problem.code, message=problem.message, param=problem.param)
        return said + write("response.failed", response=broken)

    def _call(self, fragment: ToolCallDelta) -> bytes:
        item = call_item(new_id("fc_"), fragment.id or new_id("call_"), fragment.name or "", "", "in_progress")
        made = self._enter("function_call", item, fragment.index)
        return made + (self._grow("response.function_call_arguments.delta", fragment.arguments) if fragment.arguments else b"")

    def _enter(self, kind: str, item: Body, number: int = 0) -> bytes:
        """Be in an item of this kind: the open one if it is, else a new one."""
        if self._kind == (kind, number):
            return b""
        made = self._leave()
        self._kind, self._item, self._pieces = (kind, number), item, []
        place, write = len(self._done), self._events.write
        made += write("response.output_item.added", output_index=place, item=item)
        where: Body = {"item_id": item["id"], "output_index": place}
        if kind == "message":
            made += write("response.content_part.added", **where, content_index=0, part=text_part(""))
        elif kind == "reasoning":
            made += write("response.reasoning_summary_part.added", **where, summary_index=0, part=summary_part(""))
        return made

    def _grow(self, event: str, delta: str, **facts: Any) -> bytes:
        self._pieces.append(delta)
        return self._events.write(event, item_id=self._item["id"], output_index=len(self._done), **facts, delta=delta)

    def _leave(self) -> bytes:
        if self._kind is None:
            return b""
        kind, text = self._kind[0], "".join(self._pieces)
        place, write, number = len(self._done), self._events.write, self._item["id"]
        where: Body = {"item_id": number, "output_index": place}
        if kind == "message":
            item = message_item(number, text)
            made = write("response.output_text.done", **where, content_index=0, text=text, logprobs=[])
            made += write("response.content_part.done", **where, content_index=0, part=text_part(text))
        elif kind == "reasoning":
            item = reasoning_item(number, text)
            made = write("response.reasoning_summary_text.done", **where, summary_index=0, text=text)
            made += write("response.reasoning_summary_part.done", **where, summary_index=0, part=summary_part(text))
        else:
            text = text or "{}"
            item = call_item(number, self._item["call_id"], self._item["name"], text)
            made = write("response.function_call_arguments.done", **where, name=item["name"], arguments=text)
        self._kind = None
        self._done.append(item)
        return made + write("response.output_item.done", output_index=place, item=item)


def _messages(body: Body) -> Iterable[Message]:
    if instructions := text_of(body, "instructions"):
        yield Message("system", instructions)
    given = body.get("input")
    if isinstance(given, str):
        yield Message("user", given)
        return
    text, calls = "", []  # the assistant's turn as far as it was read
    for place, item in enumerate(list_of(body, "input")):
        try:
            kind = item.get("type", "message")
            if kind == "function_call":
                calls.append(ToolCall(str(item["call_id"]), str(item["name"]), str(item.get("arguments") or "{}")))
                continue
            if kind == "message" and item["role"] == "assistant" and not calls:
                text += _said(item["content"])
                continue
            if text or calls:
                yield Message("assistant", text, tuple(calls))
                text, calls = "", []
            if kind == "function_call_output":
                yield Message("tool", _output(item.get("output")), tool_call_id=str(item["call_id"]))
            elif kind == "message" and item["role"] == "assistant":
                text = _said(item["content"])
            elif kind == "message":
                yield Message(item["role"], _content(item["content"]))
            elif kind != "reasoning":
                raise InvalidRequestError(message=f"an input item of type {kind!r} cannot be passed on")
        except (KeyError, TypeError, AttributeError) as exc:
            raise InvalidRequestError(message=f"input[{place}] cannot be read ({exc!r})") from None
        except InvalidRequestError as exc:
            raise InvalidRequestError(message=f"input[{place}]: {exc.message}") from None
    if text or calls:
        yield Message("assistant", text, tuple(calls))


def _said(content: Any) -> str:
    """The text of an assistant's message."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or part.get("refusal") or "") for part in content)


def _content(content: Any) -> Any:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _output(output: Any) -> Any:
    if isinstance(output, list):
        return _content(output)
    return "" if output is None else str(output)


def _part(part: Body) -> Body:
    kind = part["type"]
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part["text"]}
    if kind == "input_image":
        detail = {"detail": part["detail"]} if isinstance(part.get("detail"), str) else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    if kind == "input_file":
        return {"type": "file", "file": {"filename": part.get("filename") or "document", "file_data": part["file_data"]}}
    return part


def _tool(tool: Body) -> Body:
    known = {key: tool[key] for key in ("name", "description", "parameters", "strict") if tool.get(key) is not None}
    return {"type": "function", "function": known}


def _choice(choice: Any) -> Any:
    if isinstance(choice, Mapping):
        return choice.get("name") if choice.get("type") == "function" else "auto"
    return choice or None


def _format(text: Any) -> Any:
    form = text.get("format") if isinstance(text, Mapping) else None
    if not isinstance(form, Mapping) or form.get("type") in (None, "text"):
        return None
    if form["type"] != "json_schema":
        return {"type": form["type"]}
    inner = {key: form[key] for key in ("name", "schema", "strict", "description") if form.get(key) is not None}
    return {"type": "json_schema", "json_schema": inner}


def _usage(response: ChatResponse) -> Body:
    usage = response.usage
    return usage_of(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.cached_tokens, usage.reasoning_tokens)
