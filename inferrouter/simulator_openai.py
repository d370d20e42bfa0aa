"""Serves OpenAI's format in the simulator: chat completions, embeddings, model list.

Strategy: the documented request is read strictly where a mistake would be refused by the real service (roles, tool
call ids, argument strings), and answered with its fields, headers and habits: usage in a trailing chunk on request, a named
tool_choice that still finishes with "stop", tool arguments in fragments. Reasoning is shown as `reasoning_content`,
as most compatible servers do. Must never know sockets, clocks or how limits are counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .openai_server import (
    DONE,
    choice,
    chunk,
    completion,
    error_body,
    head_of,
    message_of,
    model_list,
    tool_call,
    usage_chunk,
    usage_of,
    vector_list,
)
from .secret import Secret
from .simulator_model import MOST_DIMENSIONS, make_id, pieces, vector
from .simulator_prompt import Call, IssuedTokens, Media, Prompt, Result, Texts, ToolSpec, Turn, compact
from .simulator_wire import Body, Exchange, LimitState, Refusal, as_media, as_object, link_media
from .wire_json import write_event

FINISH = {"stop": "stop", "length": "length", "sequence": "stop", "calls": "tool_calls"}
TYPES = {429: "requests", 500: "server_error", 503: "server_error"}
CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
FRAGMENT = 12  # characters of tool arguments in one chunk


class OpenAIWire:
    """See `simulator_wire.Wire`. It needs no memory: its ids come back in the request itself."""

    root = "/v1"
    indent: int | None = None
    id_header = "x-request-id"

    def __init__(self, memory: IssuedTokens) -> None:
        self._memory = memory

    def key(self, headers: Mapping[str, str]) -> Secret:
        """The bearer token."""
        kind, _, value = headers.get("authorization", "").partition(" ")
        return Secret(value.strip() if kind.lower() == "bearer" else "")

    def error_type(self, query: Mapping[str, str]) -> str:
        """Plain JSON."""
        return "application/json"

    def read(self, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Prompt | Texts:
        """The chat or embedding request."""
        found = as_object(body)
        if found is None:
            raise self.refusal(400, "We could not parse the JSON body of your request.")
        if path == "/chat/completions":
            return self._prompt(found)
        if path == "/embeddings":
            return self._texts(found)
        raise Refusal(404, error_body(f"Invalid URL (POST {self.root}{path})", "invalid_request_error", None))

    def refusal(self, status: int, message: str = "", model: str = "") -> Refusal:
        """An OpenAI error body."""
        usual = {
            401: "Incorrect API key provided: ***.",
            404: f"The model `{model}` does not exist or you do not have access to it.",
            429: "Rate limit reached.",
        }
        said = message or usual.get(status, "The server had an error while processing your request.")
        return Refusal(status, error_body(said, TYPES.get(status, "invalid_request_error"), CODES.get(status)))

    def limited(self, model: str, spent: list[LimitState], asked: int, now: float) -> Refusal:
        """429 with retry-after; the message names the limit that heals last."""
        worst = max(spent, key=lambda each: each.resets_in)
        short = f"{worst.unit[0]}p{worst.window[0]}".upper()
        said = (
            f"Rate limit reached for {model} on {worst.unit} per {worst.window[:3]} ({short}): Limit {worst.limit}, "
            f"Used {worst.used}, Requested {asked if worst.unit == 'tokens' else 1}. "
            f"Please try again in {_duration(worst.resets_in)}."
        )
        return Refusal(429, error_body(said, worst.unit, "rate_limit_exceeded"), {"retry-after": str(worst.wait)})

    def rate_headers(self, limits: list[LimitState], now: float) -> dict[str, str]:
        """x-ratelimit-*: the tightest limit of each unit, resets as durations."""
        headers: dict[str, str] = {}
        for unit in ("requests", "tokens"):
            of_unit = [each for each in limits if each.unit == unit]
            if of_unit:
                tight = min(of_unit, key=lambda each: each.remaining / max(1, each.limit))
                headers[f"x-ratelimit-limit-{unit}"] = str(tight.limit)
                headers[f"x-ratelimit-remaining-{unit}"] = str(tight.remaining)
                headers[f"x-ratelimit-reset-{unit}"] = _duration(tight.resets_in)
        return headers

    def whole(self, exchange: Exchange) -> Any:
        """A chat.completion."""
        answer = exchange.answer
        calls = [_call(exchange, place, call) for place, call in enumerate(answer.calls)]
        message, finish = message_of(answer.text, calls, answer.thinking), _finish(exchange)
        choices = [choice(index, message, finish) for index in range(exchange.prompt.copies)]
        return completion(_head(exchange, "chat.completion"), choices, _usage(exchange))

    def stream(self, exchange: Exchange) -> tuple[list[bytes], list[bytes]]:
        """Role, content and tool fragments; then finish, usage if asked for, and [DONE]."""
        with_usage = "usage" in exchange.prompt.notes
        head = _head(exchange, "chat.completion.chunk")
        extra: Body = {"usage": None} if with_usage else {}

        def chunks(delta: Body, finish: str | None = None) -> list[bytes]:
            return [write_event(chunk(head, index, delta, finish, extra)) for index in range(exchange.prompt.copies)]

        answer = exchange.answer
        events = chunks({"role": "assistant", "content": None if answer.calls else ""})
        for piece in pieces(answer.thinking, exchange.chunk_words):
            events += chunks({"reasoning_content": piece})
        for piece in pieces(answer.text, exchange.chunk_words):
            events += chunks({"content": piece})
        for place, call in enumerate(answer.calls):
            for fragment in _fragments(exchange, place, call):
                events += chunks({"tool_calls": [fragment]})
        ending = chunks({}, _finish(exchange))
        if with_usage:
            ending.append(write_event(usage_chunk(head, _usage(exchange))))
        return events, [*ending, DONE]

    def error_event(self) -> bytes:
        """An error object in a chunk's place."""
        return write_event(self.refusal(503).body)

    def empty_response(self, exchange: Exchange) -> Any:
        """A completion with no choices."""
        return {**_head(exchange, "chat.completion"), "choices": []}

    def vectors(self, texts: Texts) -> Any:
        """Embeddings as float lists, or base64 of little-endian floats when asked for."""
        vectors = [vector(text, texts.dimensions) for text in texts.inputs]
        return vector_list(vectors, texts.model, texts.tokens, packed="base64" in texts.notes)

    def listing(self, models: tuple[str, ...]) -> Any:
        """The model list."""
        return model_list(models, "stand-in")

    def _prompt(self, found: Body) -> Prompt:
        messages = found.get("messages")
        if not isinstance(found.get("model"), str) or not found["model"]:
            raise self._bad("you must provide a model parameter", "model")
        if not isinstance(messages, list) or not messages:
            raise self._bad("Missing required parameter: 'messages'.", "messages")
        turns = tuple(self._turn(message, place) for place, message in enumerate(messages))
        self._check_calls(messages)
        tools = tuple(self._tool(tool) for tool in found.get("tools") or ())
        if found.get("tool_choice") is not None and not tools:
            raise self._bad("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
        if found.get("stream_options") is not None and not found.get("stream"):
            raise self._bad("'stream_options' is only allowed when 'stream' is enabled.", "stream_options")
        stop = found.get("stop") or ()
        limit = found.get("max_completion_tokens", found.get("max_tokens"))
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise self._bad(f"Invalid 'max_tokens': {limit!r}.", "max_tokens")
        choice = found.get("tool_choice") or "auto"
        named = isinstance(choice, dict)
        wanted = str((choice.get("function") or {}).get("name", "")) if isinstance(choice, dict) else str(choice)
        return Prompt(
            model=found["model"],
            turns=_with_names(turns, messages),
            tools=tools,
            choice="any" if wanted == "required" else wanted,
            parallel=found.get("parallel_tool_calls") is not False,
            max_tokens=limit,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            schema=self._schema(found.get("response_format") or {}),
            stream=bool(found.get("stream")),
            thinking=found.get("reasoning_effort") not in (None, "none"),
            copies=int(found.get("n") or 1),
            notes=frozenset(
                note
                for note, present in (
                    ("usage", (found.get("stream_options") or {}).get("include_usage")),
                    ("named", named),
                )
                if present
            ),
        )

    def _texts(self, found: Body) -> Texts:
        given = found.get("input")
        inputs = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else ()
        if not inputs or not all(isinstance(text, str) and text for text in inputs):
            raise self._bad("'$.input' is invalid.", "input")
        notes = frozenset(["base64"] if found.get("encoding_format") == "base64" else [])
        size = int(found.get("dimensions") or 64)
        if not 0 < size <= MOST_DIMENSIONS:
            raise self._bad(f"Invalid value for 'dimensions' = {size}.", "dimensions")
        return Texts(str(found.get("model", "")), inputs, size, notes)

    def _turn(self, message: Any, place: int) -> Turn:
        where = f"messages[{place}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user", "assistant", "tool"):
            raise self._bad(f"Invalid value for '{where}.role': {role!r}.", f"{where}.role")
        content = message.get("content")
        calls = tuple(self._past_call(call, where) for call in message.get("tool_calls") or ())
        if content is None and not (role == "assistant" and (calls or message.get("refusal"))):
            raise self._bad(f"Invalid value for '{where}.content': expected a string, got null.", f"{where}.content")
        text, media = self._content(content, f"{where}.content")
        if role == "tool":
            return Turn("tool", results=(Result("", text),), media=media)
        return Turn("system" if role == "developer" else role, text, media, calls)

    def _content(self, content: Any, where: str) -> tuple[str, tuple[Media, ...]]:
        if content is None or isinstance(content, str):
            return content or "", ()
        if not isinstance(content, list):
            raise self._bad(f"Invalid type for '{where}'.", where)
        texts: list[str] = []
        media: list[Media] = []
        for index, part in enumerate(content):
            kind = part.get("type") if isinstance(part, dict) else None
            if kind in ("text", "refusal"):
                texts.append(str(part.get(kind, "")))
                continue
            seen = _media(part, str(kind)) if kind else None
            if seen is None:
                raise self._bad(f"Invalid value for '{where}[{index}]': type {kind!r}.", f"{where}[{index}]")
            media.append(seen)
        return "\n".join(texts), tuple(media)

    def _past_call(self, call: Any, where: str) -> Call:
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(arguments, str) or call.get("type") != "function":
            raise self._bad(f"Invalid type for '{where}.tool_calls'.", f"{where}.tool_calls")
        if not isinstance(call.get("id"), str) or not call["id"]:
            raise self._bad(f"Missing required parameter: '{where}.tool_calls[0].id'.", f"{where}.tool_calls")
        return Call(str(function.get("name", "")), {"arguments": arguments}, call["id"])

    def _check_calls(self, messages: list[Any]) -> None:
        waiting: dict[str, int] = {}
        for place, message in enumerate(messages):
            if message["role"] == "tool":
                if message.get("tool_call_id") not in waiting:
                    raise self._bad(
                        "messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
                        f"messages.[{place}].role",
                    )
                del waiting[message["tool_call_id"]]
                continue
            self._all_answered(waiting)
            waiting = {call["id"]: place for call in message.get("tool_calls") or ()}
        self._all_answered(waiting)

    def _all_answered(self, waiting: dict[str, int]) -> None:
        if waiting:
            raise self._bad(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. Missing: {', '.join(waiting)}",
                f"messages.[{max(waiting.values())}].role",
            )

    def _tool(self, tool: Any) -> ToolSpec:
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not function.get("name"):
            raise self._bad("Missing required parameter: 'tools[0].function'.", "tools")
        return ToolSpec(function["name"], function.get("parameters") or {}, function.get("description") or "")

    def _schema(self, wanted: Any) -> Mapping[str, Any] | None:
        kind = wanted.get("type", "text") if isinstance(wanted, dict) else None
        if kind == "text":
            return None
        if kind == "json_object":
            return {}
        described = wanted.get("json_schema") if kind == "json_schema" else None
        if not isinstance(described, dict) or not described.get("name") or "schema" not in described:
            raise self._bad("Missing required parameter: 'response_format.json_schema'.", "response_format")
        schema: Mapping[str, Any] = described["schema"]
        return schema

    def _bad(self, message: str, param: str) -> Refusal:
        return Refusal(400, error_body(message, "invalid_request_error", None, param))


def _head(exchange: Exchange, kind: str) -> Body:
    number = make_id("chatcmpl-", exchange.prompt.model, exchange.now, exchange.number)
    return head_of(number, kind, exchange.now, exchange.prompt.model)


def _finish(exchange: Exchange) -> str:
    if exchange.answer.calls and "named" in exchange.prompt.notes:
        return "stop"
    return FINISH[exchange.answer.finish]


def _usage(exchange: Exchange) -> Body:
    audio = exchange.prompt.media_tokens().get("audio", 0)
    prompt, written = exchange.prompt_tokens, exchange.completion_tokens
    thinking = exchange.answer.thinking_tokens * exchange.prompt.copies
    return usage_of(prompt, written, prompt + written, reasoning=thinking, audio=audio)


def _call(exchange: Exchange, place: int, call: Call) -> Body:
    number = make_id("call_", exchange.prompt.model, exchange.now, exchange.number, place)
    return tool_call(number, call.name, compact(call.arguments))


def _fragments(exchange: Exchange, place: int, call: Call) -> list[Body]:
    whole = _call(exchange, place, call)
    text = whole["function"]["arguments"]
    first = {"index": place, **whole, "function": {"name": call.name, "arguments": ""}}
    rest = [text[start : start + FRAGMENT] for start in range(0, len(text), FRAGMENT)]
    return [first, *({"index": place, "function": {"arguments": piece}} for piece in rest)]


def _with_names(turns: tuple[Turn, ...], messages: list[Body]) -> tuple[Turn, ...]:
    names = {call.id: call.name for turn in turns for call in turn.calls}
    return tuple(
        Turn("tool", results=(Result(names.get(message["tool_call_id"], ""), turn.results[0].text),), media=turn.media)
        if turn.role == "tool"
        else turn
        for turn, message in zip(turns, messages, strict=True)
    )


def _media(part: Body, kind: str) -> Media | None:
    inner = part.get(kind)
    if not isinstance(inner, dict):
        return None
    if kind in ("image_url", "video_url"):
        return link_media(inner.get("url"), kind.removesuffix("_url"))
    if kind == "input_audio":
        return as_media(f"audio/{inner.get('format')}", inner.get("data"))
    if kind == "file":
        return link_media(inner.get("file_data"), "document")
    return None


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{int(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if hours or minutes else ''}{rest:g}s"
