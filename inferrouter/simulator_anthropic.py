"""Serves Anthropic's format in the simulator: messages and model list.

Strategy: requests are read as strictly as the service reads them (required fields, unknown fields, tool results next to
their calls, unchanged thinking signatures), answers have its whole event sequence with a ping, cumulative usage, and a
tool_use without JSON deltas when the arguments are empty. Must never know sockets, clocks or how limits are counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
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
    model_list,
    usage_of,
)
from .secret import Secret
from .simulator_model import make_id, pieces, sign
from .simulator_prompt import Call, IssuedTokens, Media, Prompt, Result, Texts, ToolSpec, Turn, compact
from .simulator_wire import (
    Body,
    Exchange,
    LimitState,
    Refusal,
    as_media,
    as_object,
    first_unknown_field,
    link_media,
    names,
)

FINISH = {"stop": "end_turn", "length": "max_tokens", "sequence": "stop_sequence", "calls": "tool_use"}
REQUEST = names(
    "model messages max_tokens system tools tool_choice thinking stop_sequences stream temperature top_p top_k metadata "
    "service_tier container context_management mcp_servers output_config output_format inference_geo cache_control"
)
FRAGMENT = 12  # characters of tool input in one delta


class AnthropicWire:
    """See `simulator_wire.Wire`. Memory holds the tool calls it made after thinking."""

    root = "/v1"
    indent: int | None = None
    id_header = "request-id"

    def __init__(self, memory: IssuedTokens) -> None:
        self._memory = memory

    def key(self, headers: Mapping[str, str]) -> Secret:
        """The x-api-key header."""
        return Secret(headers.get("x-api-key", ""))

    def error_type(self, query: Mapping[str, str]) -> str:
        """Plain JSON."""
        return "application/json"

    def read(self, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Prompt | Texts:
        """The messages request."""
        if path != "/messages":
            raise self.refusal(404, "Not found")
        if headers.get("anthropic-version") != "2023-06-01":
            raise self._bad("anthropic-version: header is required")
        found = as_object(body)
        if found is None:
            raise self._bad("The request body is not valid JSON")
        return self._prompt(found)

    def refusal(self, status: int, message: str = "", model: str = "") -> Refusal:
        """An Anthropic error body with its request id."""
        usual = {401: "invalid x-api-key", 404: f"model: {model}", 529: "Overloaded", 503: "Service unavailable"}
        said = message or usual.get(status, "Internal server error")
        number = make_id("req_", status, said)
        headers = {"request-id": number, "x-should-retry": "true" if status in (429, 529) or status >= 500 else "false"}
        return Refusal(status, error_body(ERROR_TYPES.get(status, "api_error"), said, number), headers)

    def limited(self, model: str, spent: list[LimitState], asked: int, now: float) -> Refusal:
        """429 with retry-after until the last of the spent limits heals."""
        worst = max(spent, key=lambda each: each.resets_in)
        unit = "input tokens" if worst.unit == "tokens" else "requests"
        refusal = self.refusal(
            429,
            f"This request would exceed your organization's rate limit of {worst.limit:,} {unit} per {worst.window}.",
        )
        return Refusal(429, refusal.body, {**refusal.headers, "retry-after": str(worst.wait)})

    def rate_headers(self, limits: list[LimitState], now: float) -> dict[str, str]:
        """anthropic-ratelimit-*: the tightest limit of each unit, resets as RFC 3339 times."""
        headers: dict[str, str] = {}
        for unit in ("requests", "tokens"):
            of_unit = [each for each in limits if each.unit == unit]
            if of_unit:
                tight = min(of_unit, key=lambda each: each.remaining / max(1, each.limit))
                moment = datetime.fromtimestamp(int(now + tight.resets_in), UTC)
                headers[f"anthropic-ratelimit-{unit}-limit"] = str(tight.limit)
                headers[f"anthropic-ratelimit-{unit}-remaining"] = str(tight.remaining)
                headers[f"anthropic-ratelimit-{unit}-reset"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        return headers

    def whole(self, exchange: Exchange) -> Any:
        """A message."""
        answer = exchange.answer
        usage = usage_of(exchange.prompt_tokens, exchange.completion_tokens)
        return message_of(*_named_by(exchange), self._blocks(exchange), usage, FINISH[answer.finish], answer.stop_word or None)

    def stream(self, exchange: Exchange) -> tuple[list[bytes], list[bytes]]:
        """message_start, every block, and the two events that end a message."""
        events = [message_start(message_of(*_named_by(exchange), (), usage_of(exchange.prompt_tokens, 1), None))]
        for index, block in enumerate(self._blocks(exchange)):
            bare, deltas = _unfolded(block, exchange.chunk_words)
            events.append(block_start(index, bare))
            if index == 0:
                events.append(PING)
            events += [block_delta(index, delta) for delta in deltas]
            events.append(block_stop(index))
        answer = exchange.answer
        usage = usage_of(exchange.prompt_tokens, exchange.completion_tokens)
        ending = message_end(FINISH[answer.finish], answer.stop_word or None, usage)
        return [event(each) for each in events], [event(each) for each in ending]

    def error_event(self) -> bytes:
        """An error event."""
        return event(error_body("overloaded_error", "Overloaded"))

    def empty_response(self, exchange: Exchange) -> Any:
        """A message without content or stop reason."""
        whole = message_of(*_named_by(exchange), (), usage_of(exchange.prompt_tokens, 0), None)
        return {name: value for name, value in whole.items() if name not in ("content", "stop_sequence")}

    def vectors(self, texts: Texts) -> Any:
        """Never: there are no embeddings here."""
        raise self.refusal(404, "Not found")

    def listing(self, models: tuple[str, ...]) -> Any:
        """The model list."""
        return model_list(models)

    def _blocks(self, exchange: Exchange) -> list[Body]:
        answer = exchange.answer
        blocks: list[Body] = []
        if answer.thinking:
            blocks.append({"type": "thinking", "thinking": answer.thinking, "signature": sign("thinking", answer.thinking)})
        if answer.text:
            blocks.append({"type": "text", "text": answer.text})
        for place, call in enumerate(answer.calls):
            number = make_id("toolu_", exchange.prompt.model, exchange.now, exchange.number, place)
            if answer.thinking:
                self._memory.add(number)
            blocks.append({"type": "tool_use", "id": number, "name": call.name, "input": call.arguments})
        return blocks

    def _prompt(self, found: Body) -> Prompt:
        for name in ("model", "messages", "max_tokens"):
            if name not in found:
                raise self._bad(f"{name}: Field required")
        odd = first_unknown_field(found, REQUEST)
        if odd is not None:
            raise self._bad(f"{odd}: Extra inputs are not permitted")
        limit, messages = found["max_tokens"], found["messages"]
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise self._bad("max_tokens: Input should be greater than or equal to 1")
        if not isinstance(messages, list) or not messages:
            raise self._bad("messages: at least one message is required")
        if not 0 <= (found.get("temperature") or 0) <= 1:
            raise self._bad("temperature: range: 0..1")
        thinking = self._thinking(found)
        turns = tuple(self._turn(message, f"messages.{place}") for place, message in enumerate(messages))
        if turns[0].role != "user":
            raise self._bad('messages: first message must use the "user" role')
        self._check_calls(messages, thinking=thinking)
        system = found.get("system")
        if system:
            turns = (Turn("system", self._content(system, "system").text), *turns)
        choice = found.get("tool_choice") or {"type": "auto"}
        output = (found.get("output_config") or {}).get("format") or found.get("output_format") or {}
        return Prompt(
            model=str(found["model"]),
            turns=_named(turns),
            tools=tuple(self._tool(tool, f"tools.{place}") for place, tool in enumerate(found.get("tools") or ())),
            choice=choice.get("name", "") if choice["type"] == "tool" else choice["type"],
            parallel=not choice.get("disable_parallel_tool_use"),
            max_tokens=limit,
            stop=tuple(found.get("stop_sequences") or ()),
            schema=output.get("schema") if output.get("type") == "json_schema" else None,
            stream=bool(found.get("stream")),
            thinking=thinking,
        )

    def _thinking(self, found: Body) -> bool:
        thinking = found.get("thinking") or {"type": "disabled"}
        if thinking.get("type") == "adaptive":
            return True
        if thinking.get("type") != "enabled":
            return False
        budget = thinking.get("budget_tokens") or 0
        if budget < 1024:
            raise self._bad("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if budget >= found["max_tokens"]:
            raise self._bad("`max_tokens` must be greater than `thinking.budget_tokens`.")
        if (found.get("tool_choice") or {}).get("type") in ("any", "tool"):
            raise self._bad("Thinking may not be enabled when tool_choice forces tool use.")
        if found.get("temperature", 1) != 1:
            raise self._bad("`temperature` may only be set to 1 when thinking is enabled.")
        return True

    def _turn(self, message: Any, where: str) -> Turn:
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant"):
            raise self._bad(f"messages: Unexpected role {role!r}; a system prompt is a top-level field.")
        content = message.get("content")
        if not content:
            raise self._bad(f"{where}: all messages must have non-empty content")
        turn = self._content(content, f"{where}.content")
        return Turn(role, turn.text, turn.media, turn.calls, turn.results)

    def _content(self, content: Any, where: str) -> Turn:
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts: list[str] = []
        media: list[Media] = []
        calls: list[Call] = []
        results: list[Result] = []
        for place, block in enumerate(blocks):
            here = f"{where}.{place}"
            kind = block.get("type")
            if kind == "text":
                if not block.get("text"):
                    raise self._bad(f"{here}: text content blocks must be non-empty")
                texts.append(block["text"])
            elif kind in ("image", "document"):
                media.append(self._media(block.get("source") or {}, kind, here))
            elif kind == "tool_use":
                if not re.fullmatch(r"[a-zA-Z0-9_-]+", str(block.get("id", ""))) or not isinstance(block["input"], dict):
                    raise self._bad(f"{here}.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
                calls.append(Call(block["name"], block["input"], block["id"]))
            elif kind == "tool_result":
                inner = self._content(block.get("content") or [], here)
                results.append(Result(block["tool_use_id"], inner.text))
                media += inner.media
            elif kind == "thinking":
                if block.get("signature") != sign("thinking", str(block.get("thinking"))):
                    raise self._bad(f"{here}: Invalid `signature` in `thinking` block")
            elif kind != "redacted_thinking":
                raise self._bad(f"{here}: Input tag {kind!r} does not match any of the expected tags")
        return Turn("user", "\n".join(texts), tuple(media), tuple(calls), tuple(results))

    def _check_calls(self, messages: list[Body], *, thinking: bool) -> None:
        waiting: list[str] = []
        for place, message in enumerate([*messages, {"content": []}]):
            blocks = message["content"] if isinstance(message["content"], list) else []
            given = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
            where = f"messages.{place}"
            if not set(given) <= set(waiting):
                raise self._bad(f"{where}: unexpected `tool_use_id` found in `tool_result` blocks.")
            if set(waiting) - set(given):
                missing = ", ".join(sorted(set(waiting) - set(given)))
                raise self._bad(
                    f"messages.{place - 1}: `tool_use` ids were found without `tool_result` blocks right after: {missing}"
                )
            waiting = [block["id"] for block in blocks if block["type"] == "tool_use"]
            thought = bool(blocks) and blocks[0]["type"] in ("thinking", "redacted_thinking")
            if thinking and not thought and any(number in self._memory for number in waiting):
                raise self._bad(f"{where}.content.0.type: Expected `thinking` or `redacted_thinking` before `tool_use`.")

    def _media(self, source: Body, kind: str, where: str) -> Media:
        if source.get("type") == "base64":
            seen = as_media(str(source.get("media_type", "")), source.get("data"))
        elif source.get("type") == "url":
            seen = link_media(source.get("url"), kind)
        else:
            text = str(source.get("data", "")) if source.get("type") == "text" else ""
            seen = Media("document", "text/plain", len(text.encode())) if text else None
        if seen is None or seen.kind != kind:
            raise self._bad(f"{where}.{kind}.source: Could not process {kind}")
        return seen

    def _tool(self, tool: Body, where: str) -> ToolSpec:
        if not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", str(tool.get("name", ""))):
            raise self._bad(f"{where}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        schema = tool.get("input_schema")
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise self._bad(f"{where}.custom.input_schema.type: Field required")
        return ToolSpec(tool["name"], schema, str(tool.get("description") or ""))

    def _bad(self, message: str) -> Refusal:
        return self.refusal(400, message)


def _named_by(exchange: Exchange) -> tuple[str, str]:
    """The message's id and its model."""
    return make_id("msg_", exchange.prompt.model, exchange.now, exchange.number), exchange.prompt.model


def _unfolded(block: Body, words: int) -> tuple[Body, list[Body]]:
    if block["type"] == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"], words)]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {**block, "thinking": "", "signature": ""}, deltas
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces(block["text"], words)]
    text = compact(block["input"]) if block["input"] else ""
    parts = [text[start : start + FRAGMENT] for start in range(0, len(text), FRAGMENT)]
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]


def _named(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    names_by_id = {call.id: call.name for turn in turns for call in turn.calls}
    return tuple(
        Turn(
            turn.role,
            turn.text,
            turn.media,
            turn.calls,
            tuple(Result(names_by_id.get(result.name, result.name), result.text) for result in turn.results),
        )
        for turn in turns
    )
