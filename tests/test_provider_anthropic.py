"""Anthropic's Messages format: requests by its documented schema and by model, answers, event streams, usage."""

from __future__ import annotations

import json
import unittest
from typing import Any

from tests import dialects, part, places, rounds

errors = part("errors")
records = part("records")
Part = part("content").Part
Tool = part("tool").Tool
Message, ChatRequest, ToolCall = records.Message, records.ChatRequest, records.ToolCall
CLAUDE = part("provider_anthropic").AnthropicProvider()
SONNET = "claude-sonnet-4-5-20250929"
OLD = "claude-sonnet-4-20250514"
OPUS = "claude-opus-4-7"

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOSED = {**SCHEMA, "additionalProperties": False}
WEATHER = Tool("weather", "Tells the weather.", SCHEMA)
FORM = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}

FULL = ChatRequest(
    [
        Message("system", "Be brief."),
        Message("user", [Part.text("What is this?"), Part.image(b"png", "image/png"), Part.document(b"%PDF-", filename="a")]),
        Message("assistant", "A picture."),
        Message("developer", "Be kind."),
        Message("user", [Part.image_url("https://x.test/a.png"), Part.document(b"plain", "text/plain")]),
    ],
    temperature=0.5,
    max_tokens=100,
    stop=["END"],
    tools=[WEATHER, Tool("now")],
    tool_choice="weather",
    extra={"metadata": {"user_id": "u"}},
)
# https://docs.claude.com/en/api/messages, field by field.
FULL_BODY: dict[str, Any] = {
    "model": SONNET,
    "max_tokens": 100,
    "system": "Be brief.\n\nBe kind.",
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "cG5n"}},
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                    "title": "a",
                },
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "A picture."}]},
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}},
            ],
        },
    ],
    "temperature": 0.5,
    "stop_sequences": ["END"],
    "tools": [
        {"name": "weather", "description": "Tells the weather.", "input_schema": SCHEMA},
        {"name": "now", "input_schema": {"type": "object"}},
    ],
    "tool_choice": {"type": "tool", "name": "weather"},
    "stream": True,
    "metadata": {"user_id": "u"},
}


def answer(*blocks: Any, stop: str | None = "end_turn", **more: Any) -> dict[str, Any]:
    """A message of these content blocks."""
    return {"id": "msg_1", "type": "message", "model": "claude-x", "content": list(blocks), "stop_reason": stop, **more}


def decoded(item: Any) -> Any:
    """`item` as CLAUDE decodes it."""
    return CLAUDE.decode(json.dumps(item).encode(), "asked-model")


def body_of(model: str = SONNET, messages: Any = "hi", **given: Any) -> dict[str, Any]:
    """The body CLAUDE sends for a request of these parameters."""
    body: dict[str, Any] = dialects.sent(CLAUDE, ChatRequest(messages, **given), model)
    return body


def dropped(model: str, messages: Any = "hi", **given: Any) -> tuple[str, ...]:
    """What CLAUDE says it cannot express."""
    names: tuple[str, ...] = CLAUDE.unsupported(ChatRequest(messages, **given), model)
    return names


def start(index: int, block: dict[str, Any]) -> dict[str, Any]:
    """A content_block_start event."""
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, kind: str, key: str, piece: Any) -> dict[str, Any]:
    """A content_block_delta event."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: piece}}


def stop(index: int) -> dict[str, Any]:
    """A content_block_stop event."""
    return {"type": "content_block_stop", "index": index}


BEGIN = {"type": "message_start", "message": answer(stop=None, usage={"input_tokens": 9, "output_tokens": 1})}
PING = {"type": "ping"}
STOP = {"type": "message_stop"}


def end(reason: str = "end_turn", **usage: Any) -> dict[str, Any]:
    """A message_delta event."""
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


class Requests(unittest.TestCase):
    def test_every_field(self) -> None:
        """Everything a request can carry lands in the documented field."""
        self.assertEqual(dialects.sent(CLAUDE, FULL, SONNET, stream=True), FULL_BODY)
        self.assertEqual(CLAUDE.unsupported(FULL, SONNET), ())

    def test_url_and_headers(self) -> None:
        """The key is in x-api-key alone, and an account's own version header wins."""
        wire = CLAUDE.encode(ChatRequest("hi"), SONNET, dialects.endpoint("https://h/v1"), False)
        self.assertEqual(wire.url, "https://h/v1/messages")
        self.assertEqual(
            dict(wire.headers),
            {"Content-Type": "application/json", "x-api-key": "key-123456", "anthropic-version": "2023-06-01"},
        )
        own = CLAUDE.encode(ChatRequest("hi"), SONNET, dialects.endpoint(key="", **{"Anthropic-Version": "2024"}), False)
        self.assertEqual(dict(own.headers), {"Content-Type": "application/json", "Anthropic-Version": "2024"})

    def test_max_tokens_default(self) -> None:
        """Anthropic demands max_tokens, so there is a default."""
        self.assertEqual(body_of()["max_tokens"], 4096)

    def test_tool_choice(self) -> None:
        """auto, none and required become Anthropic's words."""
        for choice, kind in (("auto", "auto"), ("none", "none"), ("required", "any")):
            self.assertEqual(body_of(tools=[WEATHER], tool_choice=choice)["tool_choice"], {"type": kind})

    def test_strict_tools(self) -> None:
        """A strict tool is sent as one, its schema closed, where the model checks; elsewhere it is a plain tool."""
        strict = Tool("weather", "", SCHEMA, strict=True)
        self.assertEqual(body_of(tools=[strict])["tools"], [{"name": "weather", "input_schema": CLOSED, "strict": True}])
        self.assertEqual(body_of(OLD, tools=[strict])["tools"], [{"name": "weather", "input_schema": SCHEMA}])

    def test_thinking_by_budget(self) -> None:
        """An effort becomes a budget below max_tokens, half of it at most, and comes on top of the default."""
        thinking = body_of(reasoning_effort="medium")
        self.assertEqual(thinking["thinking"], {"type": "enabled", "budget_tokens": 8192})
        self.assertEqual(thinking["max_tokens"], 8192 + 4096)
        tight = body_of(reasoning_effort="high", max_tokens=3000)
        self.assertEqual((tight["thinking"]["budget_tokens"], tight["max_tokens"]), (1500, 3000))
        self.assertEqual(body_of(reasoning_effort="low", max_tokens=1200)["thinking"]["budget_tokens"], 1024)
        self.assertNotIn("thinking", body_of(reasoning_effort="none"))
        other = body_of("other-model", reasoning_effort="minimal", tools=[WEATHER], tool_choice="auto")
        self.assertEqual(other["thinking"], {"type": "enabled", "budget_tokens": 1024})

    def test_thinking_by_effort(self) -> None:
        """Newer models get the effort itself, shown where they would hide their thoughts."""
        body = body_of("claude-opus-4-6", reasoning_effort="xhigh")
        self.assertEqual((body["thinking"], body["output_config"]), ({"type": "adaptive"}, {"effort": "max"}))
        body = body_of(OPUS, reasoning_effort="xhigh")
        self.assertEqual(body["thinking"], {"type": "adaptive", "display": "summarized"})
        self.assertEqual(body["output_config"], {"effort": "xhigh"})
        self.assertEqual(body["max_tokens"], 24576 + 4096)
        body = body_of("claude-sonnet-5", reasoning_effort="none")
        self.assertEqual((body["thinking"], body["max_tokens"]), ({"type": "disabled"}, 4096))
        self.assertEqual(body_of(OPUS, reasoning_effort="low", max_tokens=9)["max_tokens"], 9)

    def test_what_cannot_be_said_is_named_and_left_out(self) -> None:
        """A parameter a model cannot take is listed as unsupported, before and after encoding, and is not in the body."""
        wish = {"reasoning_effort": "low"}
        cases: tuple[tuple[str, dict[str, Any], tuple[str, ...], tuple[str, ...]], ...] = (
            (SONNET, {"seed": 1}, ("seed",), ("seed",)),
            (SONNET, {"temperature": 1.5}, ("temperature",), ("temperature",)),
            (SONNET, {"temperature": 0.1, "top_p": 0.5}, ("top_p",), ("top_p",)),
            (OLD, {"temperature": 0.1, "top_p": 0.5}, (), ()),
            (OPUS, {"temperature": 0.1, "top_p": 0.5}, ("temperature", "top_p"), ("temperature", "top_p")),
            (SONNET, {"temperature": 0.1, **wish}, ("temperature",), ("temperature",)),
            (SONNET, {"max_tokens": 1000, **wish}, ("reasoning_effort",), ("thinking",)),
            (SONNET, {"reasoning_effort": "absurd"}, ("reasoning_effort",), ("thinking",)),
            (SONNET, {"tools": [WEATHER], "tool_choice": "required", **wish}, ("reasoning_effort",), ("thinking",)),
            (SONNET, {"tools": [WEATHER], "tool_choice": "weather", **wish}, ("reasoning_effort",), ("thinking",)),
            (OLD, {"response_format": FORM, **wish}, ("reasoning_effort",), ("thinking",)),
            ("claude-3-5-haiku-20241022", wish, ("reasoning_effort",), ("thinking",)),
            ("claude-mythos-preview", {"reasoning_effort": "none"}, ("reasoning_effort",), ("thinking",)),
            (SONNET, {"top_p": 0.9, **wish}, ("top_p",), ("top_p",)),
            (SONNET, {"top_p": 0.95, **wish}, (), ()),
            ("claude-fable-5", {"reasoning_effort": "none"}, ("reasoning_effort",), ("thinking",)),
            ("claude-fable-5", {"tools": [WEATHER], "tool_choice": "required"}, ("tool_choice",), ("tool_choice",)),
            (SONNET, {"tool_choice": "required"}, ("tool_choice",), ("tool_choice",)),
            (SONNET, {"stop": ["\n"]}, ("stop",), ("stop_sequences",)),
        )
        for model, given, names, keys in cases:
            with self.subTest(model=model, given=given):
                self.assertEqual(dropped(model, **given), names)
                wire = CLAUDE.encode(ChatRequest("hi", **given), model, dialects.endpoint(), False)
                self.assertEqual(wire.dropped, names)
                self.assertFalse(set(keys) & set(body_of(model, **given)))
        self.assertEqual(body_of(stop=["\n", "END"])["stop_sequences"], ["END"])

    def test_json_by_schema(self) -> None:
        """A model that writes JSON by schema gets it closed, and without the keywords it refuses."""
        schema = {
            "type": "object",
            "properties": {"minimum": {"type": "integer", "minimum": 1}, "list": {"type": "array", "items": SCHEMA}},
            "$defs": {"maximum": {"type": "string", "enum": ["minimum"]}},
        }
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        expected = {
            "type": "object",
            "properties": {"minimum": {"type": "integer"}, "list": {"type": "array", "items": CLOSED}},
            "$defs": {"maximum": {"type": "string", "enum": ["minimum"]}},
            "additionalProperties": False,
        }
        body = body_of(response_format=form)
        self.assertEqual(body["output_config"], {"format": {"type": "json_schema", "schema": expected}})
        self.assertNotIn("tools", body)

    def test_who_writes_json_by_schema(self) -> None:
        """Claude does since 4.5, and Opus 4.1; every object is closed, whether its members or only its type are told."""
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
        for model in (SONNET, "claude-opus-4-1-20250805", OPUS, "claude-haiku-4-5", "claude-sonnet-5"):
            told = body_of(model, response_format=form)["output_config"]["format"]["schema"]
            self.assertEqual(told, {"type": "object", "additionalProperties": False})
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"properties": {}}}}
        told = body_of(response_format=form)["output_config"]["format"]["schema"]
        self.assertEqual(told, {"properties": {}, "additionalProperties": False})
        for model in (OLD, "claude-opus-4-20250514", "claude-3-7-sonnet-20250219", "other-model"):
            self.assertNotIn("output_config", body_of(model, response_format=form))

    def test_json_by_tool(self) -> None:
        """Other models, and open schemas, get a tool they must answer with."""
        tool = {"name": "json_answer", "description": "Give your answer.", "input_schema": SCHEMA}
        body = body_of(OLD, response_format=FORM)
        self.assertEqual((body["tools"], body["tool_choice"]), ([tool], {"type": "tool", "name": "json_answer"}))
        body = body_of("other-model", response_format=FORM, tools=[WEATHER])
        self.assertEqual((body["tools"][1], body["tool_choice"]), (tool, {"type": "any"}))
        forced = body_of(OLD, response_format=FORM, tools=[WEATHER], tool_choice="weather")
        self.assertEqual(forced["tool_choice"], {"type": "tool", "name": "weather"})
        schema = {"type": "object", "additionalProperties": {"type": "integer"}}
        opened = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        self.assertEqual(body_of(SONNET, response_format=opened)["tools"][0]["input_schema"], schema)
        self.assertEqual(dropped("claude-fable-5", response_format=opened), ("response_format",))
        with self.assertRaises(errors.InvalidRequestError):
            body_of(OLD, tools=[Tool("json_answer")])

    def test_json_object(self) -> None:
        """JSON without a schema is asked for in words, after the caller's own system prompt."""
        messages = [Message("system", "S"), Message("user", "hi")]
        system = body_of(messages=messages, response_format="json_object")["system"]
        self.assertTrue(system.startswith("S\n\n") and "JSON" in system)

    def test_only_a_system_message(self) -> None:
        """A request of a system message alone becomes a user turn."""
        body = body_of(messages=[Message("system", "S")])
        self.assertEqual(body["messages"], [{"role": "user", "content": [{"type": "text", "text": "S"}]}])
        self.assertNotIn("system", body)

    def test_the_assistant_begins(self) -> None:
        """A conversation that the assistant begins gets a user turn before it, as Anthropic demands."""
        messages = body_of(messages=[Message("assistant", "Hello!"), Message("user", "hi")])["messages"]
        self.assertEqual([each["role"] for each in messages], ["user", "assistant", "user"])

    def test_media_it_cannot_take(self) -> None:
        """Sound, film, unknown documents and media in a system message are refused before they are sent."""
        for role, piece in (
            ("user", Part.audio(b"x", "audio/wav")),
            ("user", Part.video(b"x", "video/mp4")),
            ("user", Part.document(b"x", "application/zip")),
            ("system", Part.image(b"x", "image/png")),
        ):
            with self.subTest(kind=piece.kind), self.assertRaises(errors.InvalidRequestError):
                body_of(messages=[Message(role, [piece])])

    def test_embeddings(self) -> None:
        """There are none, and asking says so."""
        with self.assertRaises(errors.InvalidRequestError):
            CLAUDE.encode_embed(records.EmbedRequest("a"), "m", dialects.endpoint())
        with self.assertRaises(errors.MalformedResponseError):
            CLAUDE.decode_embed(b"{}", "m")

    def test_declares(self) -> None:
        """Claude's names are declared by default."""
        self.assertIs(CLAUDE.declares(SONNET), True)
        self.assertIs(CLAUDE.declares("gpt-4o"), False)


class Tools(unittest.TestCase):
    def test_results_of_another_providers_calls(self) -> None:
        """Calls another provider made go out with ids Anthropic takes, results first in one user turn."""
        calls = (ToolCall("call:1", "weather", '{"city":"Bern"}'), ToolCall("c2", "time", ""))
        messages = body_of(
            messages=[
                Message("user", "hi"),
                Message("assistant", "Wait.", calls),
                Message("tool", "sun", tool_call_id="call:1"),
                Message("tool", [Part.image(b"x", "image/png")], tool_call_id="c2"),
                Message("user", "so?"),
            ]
        )["messages"]
        mapped = messages[1]["content"][1]["id"]
        self.assertRegex(mapped, r"^[a-zA-Z0-9_-]+$")
        self.assertEqual(
            messages[1]["content"],
            [
                {"type": "text", "text": "Wait."},
                {"type": "tool_use", "id": mapped, "name": "weather", "input": {"city": "Bern"}},
                {"type": "tool_use", "id": "c2", "name": "time", "input": {}},
            ],
        )
        source = {"type": "base64", "media_type": "image/png", "data": "eA=="}
        self.assertEqual(
            messages[2]["content"],
            [
                {"type": "tool_result", "tool_use_id": mapped, "content": [{"type": "text", "text": "sun"}]},
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "image", "source": source}]},
                {"type": "text", "text": "so?"},
            ],
        )

    def test_ids_are_mapped_one_to_one(self) -> None:
        """Two ids that differ stay different, and an empty result has no content."""
        ids = ("a.b", "a:b", "a_b")
        calls = tuple(ToolCall(each, "f") for each in ids)
        results = [Message("tool", "", tool_call_id=each) for each in ids]
        messages = body_of(messages=[Message("user", "hi"), Message("assistant", "", calls), *results])["messages"]
        given = [block["id"] for block in messages[1]["content"]]
        self.assertEqual(len(set(given)), 3)
        self.assertEqual(messages[2]["content"], [{"type": "tool_result", "tool_use_id": each} for each in given])

    def test_a_result_without_an_id(self) -> None:
        """A tool message that names no call is refused."""
        with self.assertRaises(errors.InvalidRequestError):
            body_of(messages=[Message("tool", "x")])

    def test_signed_turn_goes_back_verbatim(self) -> None:
        """A turn with thinking is given back block by block, signatures included."""
        blocks = [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "r"},
            {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {"q": 1}},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Bern"}},
        ]
        reply = decoded(answer(*blocks, {"type": "text", "text": ""}, stop="tool_use"))
        self.assertEqual((reply.reasoning, reply.finish_reason), ("hm", "tool_calls"))
        self.assertEqual([call.name for call in reply.tool_calls], ["weather"])
        history = [Message("user", "hi"), reply.message, Message("tool", "sun", tool_call_id="toolu_1")]
        body = body_of(messages=history, reasoning_effort="low")
        self.assertEqual(body["messages"][1], {"role": "assistant", "content": blocks})
        self.assertEqual(body["thinking"]["type"], "enabled")

    def test_thinking_in_another_providers_turn(self) -> None:
        """A budget is left out while a turn goes on that began without thinking, as Anthropic would refuse it."""
        open_turn = [
            Message("user", "hi"),
            Message("assistant", "", (ToolCall("c1", "f"),)),
            Message("tool", "x", tool_call_id="c1"),
        ]
        self.assertEqual(dropped(SONNET, open_turn, reasoning_effort="low"), ("reasoning_effort",))
        self.assertEqual(dropped(OPUS, open_turn, reasoning_effort="low"), ())
        self.assertEqual(dropped(SONNET, [*open_turn, Message("user", "so?")], reasoning_effort="low"), ())


class Answers(unittest.TestCase):
    def test_plain_text(self) -> None:
        """Text blocks are joined, and plain text needs no copy of Anthropic's words."""
        reply = decoded(answer({"type": "text", "text": "He"}, {"type": "text", "text": "llo"}))
        self.assertEqual((reply.text, reply.id, reply.model), ("Hello", "msg_1", "claude-x"))
        self.assertIsNone(reply.message.native)

    def test_half_characters(self) -> None:
        """Half a surrogate pair anywhere becomes U+FFFD, so that the answer can be printed and stored."""
        call = {"type": "tool_use", "id": "i\ud800", "name": "f\ud800", "input": {"x": "\udc00"}}
        reply = decoded({**answer({"type": "text", "text": "a\ud800"}, call, stop="x\ud800"), "id": "m\ud800"})
        made = reply.tool_calls[0]
        self.assertEqual((reply.text, reply.id, reply.finish_reason), ("a\ufffd", "m\ufffd", "x\ufffd"))
        self.assertEqual((made.id, made.name, made.arguments), ("i\ufffd", "f\ufffd", '{"x":"\ufffd"}'))
        read = dialects.Read(CLAUDE, dialects.frames(BEGIN, start(0, call), stop(0), end("tool_use"), STOP)).end()
        self.assertEqual(read.answer.tool_calls, reply.tool_calls)

    def test_stop_reasons(self) -> None:
        """Stop reasons are in one vocabulary, unknown ones stay what they are."""
        cases = (
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("tool_use", "tool_calls"),
            ("refusal", "content_filter"),
            ("pause_turn", "pause_turn"),
            ("NEW_ONE", "new_one"),
        )
        for given, expected in cases:
            self.assertEqual(decoded(answer(stop=given)).finish_reason, expected)

    def test_usage(self) -> None:
        """Writing to the cache and reading from it are input, thinking is output."""
        usage = {
            "input_tokens": 3,
            "cache_creation_input_tokens": 10,
            "cache_read_input_tokens": 20,
            "output_tokens": 8,
            "output_tokens_details": {"thinking_tokens": 5},
        }
        self.assertEqual(decoded(answer(usage=usage)).usage, records.Usage(33, 8, 41, 20, 5))
        self.assertEqual(decoded(answer(usage={"input_tokens": 3})).usage, records.Usage(3, 0, 3))
        self.assertEqual(decoded(answer(usage={"output_tokens": 3})).usage, records.Usage(0, 3, 3))

    def test_json_by_tool(self) -> None:
        """An answer through the JSON tool is text that stops, unary and streamed, and is never given back as a call."""
        block = {"type": "tool_use", "id": "t", "name": "json_answer", "input": {"a": 1}}
        body = dialects.frames(
            BEGIN,
            start(0, {**block, "input": {}}),
            delta(0, "input_json_delta", "partial_json", '{"a":'),
            delta(0, "input_json_delta", "partial_json", "1}"),
            stop(0),
            end("tool_use", output_tokens=3),
            STOP,
        )
        for reply in (decoded(answer(block, stop="tool_use")), dialects.Read(CLAUDE, body).end().answer):
            self.assertEqual((reply.json(), reply.tool_calls, reply.finish_reason), ({"a": 1}, (), "stop"))
            self.assertIsNone(reply.message.native)

    def test_no_answer(self) -> None:
        """An answer without content, of another shape or not JSON is malformed, with its beginning as the body."""
        for body in (b"{}", b"[]", b"null", b"<html>", b'{"content":[],"stop_reason":null}', b'{"content":"x"}'):
            with self.subTest(body=body), self.assertRaises(errors.MalformedResponseError) as caught:
                CLAUDE.decode(body, "m")
            self.assertEqual(caught.exception.body, body.decode())

    def test_errors(self) -> None:
        """An overloaded provider is unavailable, as a 529, inside a 2xx answer, and in the middle of a stream."""
        item = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        error = CLAUDE.error(529, {"request-id": "req_1"}, json.dumps(item).encode(), 0.0)
        self.assertIsInstance(error, errors.ProviderUnavailableError)
        self.assertEqual(error.request_id, "req_1")
        with self.assertRaises(errors.ProviderUnavailableError):
            decoded(item)
        with self.assertRaises(errors.ProviderUnavailableError):
            dialects.Read(CLAUDE, dialects.frames(BEGIN, item, named=True)).end()


class Streams(unittest.TestCase):
    items = (
        BEGIN,
        start(0, {"type": "thinking", "thinking": "", "signature": ""}),
        PING,
        delta(0, "thinking_delta", "thinking", "hm"),
        delta(0, "signature_delta", "signature", "sig"),
        stop(0),
        start(1, {"type": "text", "text": ""}),
        delta(1, "text_delta", "text", "Grüße "),
        delta(1, "text_delta", "text", "🙂"),
        delta(1, "citations_delta", "citation", {"url": "u"}),
        stop(1),
        start(2, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        delta(2, "input_json_delta", "partial_json", '{"q":1}'),
        stop(2),
        start(3, {"type": "tool_use", "id": "t1", "name": "f", "input": {}}),
        start(4, {"type": "tool_use", "id": "t2", "name": "g", "input": {}}),
        delta(3, "input_json_delta", "partial_json", '{"a"'),
        delta(4, "input_json_delta", "partial_json", ""),
        delta(3, "input_json_delta", "partial_json", ":1}"),
        stop(3),
        stop(4),
        start(5, {"type": "tool_use", "id": "t3", "name": "h", "input": {"whole": True}}),
        stop(5),
        {"type": "something_new", "x": 1},
        end("tool_use", output_tokens=7, cache_read_input_tokens=2),
        STOP,
    )
    native = (
        {"type": "thinking", "thinking": "hm", "signature": "sig"},
        {"type": "text", "text": "Grüße 🙂", "citations": [{"url": "u"}]},
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"q": 1}},
        {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
        {"type": "tool_use", "id": "t3", "name": "h", "input": {"whole": True}},
    )

    def test_whole_and_cut(self) -> None:
        """However the bytes are cut, interleaved blocks come out whole, and the turn is kept as the unary one is."""
        body = dialects.frames(*self.items, named=True)
        for cut in (len(body), 997, 7, 1):
            reply = dialects.Read(CLAUDE, body, cut).end().answer
            self.assertEqual((reply.text, reply.reasoning, reply.finish_reason), ("Grüße 🙂", "hm", "tool_calls"))
            calls = [(call.id, call.name, call.parsed()) for call in reply.tool_calls]
            self.assertEqual(calls, [("t1", "f", {"a": 1}), ("t2", "g", {}), ("t3", "h", {"whole": True})])
            self.assertEqual(reply.usage, records.Usage(11, 7, 18, 2))
            self.assertEqual(reply.message.native_for("anthropic"), list(self.native))
            self.assertEqual((reply.id, reply.model), ("msg_1", "claude-x"))

    def test_text_at_a_blocks_start(self) -> None:
        """What a block's start already says is said, and a message_delta may come without anything in it."""
        body = dialects.frames(
            BEGIN,
            start(0, {"type": "thinking", "thinking": "h"}),
            delta(0, "thinking_delta", "thinking", "m"),
            start(1, {"type": "text", "text": "a"}),
            delta(1, "text_delta", "text", "b"),
            {"type": "message_delta"},
            STOP,
        )
        reply = dialects.Read(CLAUDE, body).end().answer
        self.assertEqual((reply.reasoning, reply.text, reply.finish_reason), ("hm", "ab", None))
        self.assertEqual([block["type"] for block in reply.message.native_for("anthropic")], ["thinking", "text"])

    def test_usage_is_replaced(self) -> None:
        """A later count replaces an earlier one, and what a later event leaves out or nulls stays."""
        usage = end(input_tokens=20, output_tokens=4, cache_read_input_tokens=None)
        reply = dialects.Read(CLAUDE, dialects.frames(BEGIN, end(output_tokens=3), usage, STOP)).end().answer
        self.assertEqual(reply.usage, records.Usage(20, 4, 24))

    def test_ended_at_every_byte(self) -> None:
        """A stream that ends before message_stop has come is never complete, afterwards it is."""
        body = dialects.frames(*self.items, named=True)
        marker = body.rindex(b"}") + 1
        for length in places(len(body), marker):
            read = dialects.Read(CLAUDE, body[:length])
            try:
                read.end()
            except errors.MalformedResponseError:
                self.assertLess(length, marker)
            self.assertEqual(read.decoder.complete, length >= marker, length)
            read.decoder.natives()

    def test_nothing_after_the_end(self) -> None:
        """What follows message_stop is not read."""
        late = dialects.frames(BEGIN, end(), STOP, start(0, {"type": "text", "text": "late"}))
        read = dialects.Read(CLAUDE, late).end()
        self.assertTrue(read.decoder.done)
        self.assertEqual(read.answer.text, "")

    def test_a_unary_answer_to_a_stream(self) -> None:
        """A server that ignores `stream` and answers in one piece is read as well, signatures included."""
        item = answer(*self.native, stop="tool_use", usage={"input_tokens": 1, "output_tokens": 1})
        read = dialects.Read(CLAUDE, json.dumps(item, indent=1).encode(), 100).end()
        self.assertTrue(read.decoder.complete)
        self.assertEqual(read.answer.text, "Grüße 🙂")
        self.assertEqual(len(read.answer.tool_calls), 3)
        self.assertEqual(read.answer.message.native_for("anthropic"), list(self.native))

    def test_events_of_the_wrong_shape(self) -> None:
        """A delta of a block that was not begun, without an index or without text is malformed."""
        text = start(0, {"type": "text", "text": ""})
        for items in (
            (delta(0, "text_delta", "text", "x"),),
            (text, {**delta(0, "text_delta", "text", "x"), "index": None}),
            (text, delta(0, "text_delta", "text", 5)),
            (start(0, {"type": "tool_use", "id": "t"}),),
            ({"type": "message_start"},),
            (BEGIN, BEGIN, text, BEGIN),
        ):
            with self.subTest(items=items), self.assertRaises(errors.MalformedResponseError) as caught:
                dialects.Read(CLAUDE, dialects.frames(*items)).end()
            self.assertEqual(json.loads(caught.exception.body), items[-1])


class Recorded(unittest.TestCase):
    def test_recordings(self) -> None:
        """Every recorded answer means what it is expected to, streams at three cuts."""
        for row in dialects.recorded("anthropic"):
            body, expect = row["body"].encode("utf-8", "surrogatepass"), row["expect"]
            with self.subTest(row["id"]):
                if expect.get("error"):
                    self.assertIsInstance(CLAUDE.error(row["status"], {}, body, 0.0), errors.ProviderError)
                    continue
                for cut in (len(body), 997, 1) if row["stream"] and len(body) < 50_000 else (997 * row["stream"],):
                    reply = dialects.Read(CLAUDE, body, cut).end().answer if cut else CLAUDE.decode(body, "m")
                    want = {key: value for key, value in expect.items() if value is not None}
                    self.assertEqual({key: dialects.told(reply)[key] for key in want}, want)

    def test_damaged_answers(self) -> None:
        """Whatever type a value turns into, only errors of this library leave."""
        full = answer(*Streams.native, usage={"input_tokens": 1, "output_tokens_details": {"thinking_tokens": 1}})
        for item in dialects.damaged(full, 1, rounds(600, 200)):
            self._survives(decoded, item)
        for items in dialects.damaged(list(Streams.items), 2, rounds(600, 200)):
            self._survives(self._stream, items)

    def _survives(self, call: Any, item: Any) -> None:
        try:
            reply = call(item)
        except errors.ProviderError as error:
            self.assertTrue(str(error))
            return
        self.assertIsInstance(reply.text, str)
        reply.message.native_for("anthropic")

    @staticmethod
    def _stream(items: Any) -> Any:
        return dialects.Read(CLAUDE, dialects.frames(*items)).end().answer
