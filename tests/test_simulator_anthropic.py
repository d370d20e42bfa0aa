"""The simulator's Anthropic wire, read with plain HTTP."""

from __future__ import annotations

import base64
import json
import unittest
from typing import Any

from tests import part
from tests.servers import Client, Reply

sim = part("simulator")
prompts = part("simulator_prompt")

HEADERS = {"x-api-key": "k", "anthropic-version": "2023-06-01"}
WEATHER = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
TIME = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048}


class AnthropicTest(unittest.TestCase):
    def setUp(self) -> None:
        self.sim = sim.Simulator("anthropic", keys={"k": None}, models=["c"])
        self.addCleanup(self.sim.stop)
        self.client = Client(self.sim.start().base_url, HEADERS)
        self.addCleanup(self.client.connection.close)

    def chat(self, *messages: Any, **extra: Any) -> Reply:
        turns = [{"role": "user", "content": each} if isinstance(each, str) else each for each in messages]
        return self.client.post("/messages", {"model": "c", "max_tokens": 100, "messages": turns, **extra})

    def refused(self, reply: Reply, status: int = 400, kind: str = "invalid_request_error") -> str:
        self.assertEqual(reply.status, status, reply.body)
        found = reply.json
        self.assertEqual((found["type"], found["error"]["type"]), ("error", kind))
        self.assertEqual(found["request_id"], reply.headers["request-id"])
        return str(found["error"]["message"])


class AnswerTest(AnthropicTest):
    def test_unary(self) -> None:
        """A message has content blocks, a stop reason, usage over system and messages, and a request id."""
        reply = self.chat("hello", system="Be kind.")
        found = reply.json
        self.assertEqual((found["type"], found["role"], found["model"]), ("message", "assistant", "c"))
        self.assertEqual(found["content"], [{"type": "text", "text": "Hello! How can I help you today?"}])
        self.assertEqual((found["stop_reason"], found["stop_sequence"]), ("end_turn", None))
        self.assertEqual(found["usage"]["input_tokens"], prompts.count_tokens("hello Be kind."))
        self.assertEqual(found["usage"]["output_tokens"], prompts.count_tokens(found["content"][0]["text"]))
        self.assertTrue(reply.headers["request-id"])

    def test_stream(self) -> None:
        """A stream is the whole event sequence with a ping, named events, and cumulative usage at the end."""
        whole = self.chat("hello").json
        reply = self.chat("hello", stream=True)
        kinds = [event["type"] for event in reply.events]
        middle = ["content_block_delta"] * (len(kinds) - 6)
        self.assertEqual(kinds[:3], ["message_start", "content_block_start", "ping"])
        self.assertEqual(kinds[3:-3], middle)
        self.assertEqual(kinds[-3:], ["content_block_stop", "message_delta", "message_stop"])
        names = [line.removeprefix("event: ") for line in reply.body.decode().splitlines() if line.startswith("event: ")]
        self.assertEqual(names, kinds)
        said = "".join(event["delta"]["text"] for event in reply.events if event["type"] == "content_block_delta")
        self.assertEqual(said, whole["content"][0]["text"])
        self.assertEqual(reply.events[0]["message"]["usage"]["output_tokens"], 1)
        self.assertEqual(reply.events[-2]["usage"], whole["usage"])

    def test_stop_reasons(self) -> None:
        """max_tokens cuts to exactly that many tokens, a stop sequence is named."""
        cut = self.chat("hello", max_tokens=2).json
        self.assertEqual((cut["stop_reason"], cut["usage"]["output_tokens"]), ("max_tokens", 2))
        stopped = self.chat("hello", stop_sequences=["help", "!"]).json
        self.assertEqual((stopped["stop_reason"], stopped["stop_sequence"]), ("stop_sequence", "!"))
        self.assertEqual(stopped["content"][0]["text"], "Hello")

    def test_thinking(self) -> None:
        """Thinking comes first with a signature, in a stream the signature after the thinking; output counts it."""
        whole = self.chat("hello", **THINKING).json
        thought, text = whole["content"]
        self.assertEqual((thought["type"], text["type"]), ("thinking", "text"))
        spent = prompts.count_tokens(thought["thinking"]) + prompts.count_tokens(text["text"])
        self.assertEqual(whole["usage"]["output_tokens"], spent)
        events = self.chat("hello", stream=True, **THINKING).events
        deltas = [event["delta"] for event in events if event["type"] == "content_block_delta" and event["index"] == 0]
        self.assertEqual("".join(delta.get("thinking", "") for delta in deltas), thought["thinking"])
        self.assertEqual(deltas[-1], {"type": "signature_delta", "signature": thought["signature"]})

    def test_media(self) -> None:
        """Images and documents are named, counted, and refused when unreadable."""
        data = base64.b64encode(b"x" * 10).decode()
        content = [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}},
            {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}},
        ]
        found = self.chat({"role": "user", "content": content}).json
        self.assertEqual(
            found["content"][0]["text"],
            "I see 2 images (image/png, 10 bytes; image/*, a link) and 2 documents (application/pdf, 10 bytes; "
            "text/plain, 3 bytes).",
        )
        self.assertEqual(found["usage"]["input_tokens"], 2 * 258 + 2 * 516)
        wrong = {"type": "image", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}
        self.refused(self.chat({"role": "user", "content": [wrong]}))

    def test_output_format(self) -> None:
        """An output format's answer fits its schema."""
        schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
        config = {"format": {"type": "json_schema", "schema": schema}}
        text = self.chat("hello", output_config=config).json["content"][0]["text"]
        self.assertEqual(json.loads(text), {"ok": True})

    def test_models(self) -> None:
        """The model list names what the server serves."""
        self.assertEqual([each["id"] for each in self.client.get("/models").json["data"]], ["c"])


class ToolTest(AnthropicTest):
    def test_round_trip(self) -> None:
        """A mentioned tool is used, and its result, text or blocks, is quoted."""
        found = self.chat("get weather please", tools=[TIME, WEATHER]).json
        (use,) = found["content"]
        self.assertEqual((found["stop_reason"], use["name"], use["input"]), ("tool_use", "get_weather", {"city": "Paris"}))
        asked = {"role": "assistant", "content": found["content"]}
        for content in ("18 degrees", [{"type": "text", "text": "18 degrees"}]):
            back = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use["id"], "content": content}]}
            answer = self.chat("get weather please", asked, back, tools=[TIME, WEATHER]).json
            self.assertEqual(answer["content"][0]["text"], "The tool get_weather answered: 18 degrees")

    def test_stream(self) -> None:
        """Input comes as JSON fragments, and without any for a tool that takes nothing."""
        events = self.chat("get_weather and get_time", tools=[WEATHER, TIME], stream=True).events
        starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
        self.assertEqual([(start["name"], start["input"]) for start in starts], [("get_weather", {}), ("get_time", {})])
        pieces: list[list[str]] = [[], []]
        for event in events:
            if event["type"] == "content_block_delta":
                pieces[event["index"]].append(event["delta"]["partial_json"])
        self.assertGreater(len(pieces[0]), 1)
        self.assertEqual(json.loads("".join(pieces[0])), {"city": "Paris"})
        self.assertEqual(pieces[1], [])

    def test_choice(self) -> None:
        """A tool choice is obeyed: a name, any, none, and one at a time."""

        def uses(text: str, **choice: Any) -> list[str]:
            content = self.chat(text, tools=[WEATHER, TIME], tool_choice=choice).json["content"]
            return [block["name"] for block in content if block["type"] == "tool_use"]

        self.assertEqual(uses("hello", type="tool", name="get_time"), ["get_time"])
        self.assertEqual(uses("hello", type="any"), ["get_weather"])
        self.assertEqual(uses("get_weather", type="none"), [])
        both = "get_weather, get_time"
        self.assertEqual(uses(both, type="auto"), ["get_weather", "get_time"])
        self.assertEqual(uses(both, type="auto", disable_parallel_tool_use=True), ["get_weather"])

    def test_thinking_must_return(self) -> None:
        """The thinking before a tool use must come back unchanged; foreign history without it is welcome."""
        content = self.chat("get_time", tools=[TIME], **THINKING).json["content"]
        thought, use = content
        back: dict[str, Any] = {"role": "user"}
        back["content"] = [{"type": "tool_result", "tool_use_id": use["id"], "content": "noon"}]

        def again(blocks: list[Any], result: Any = back) -> Reply:
            return self.chat("get_time", {"role": "assistant", "content": blocks}, result, tools=[TIME], **THINKING)

        self.assertEqual(again(content).status, 200)
        self.assertIn("Expected `thinking`", self.refused(again([use])))
        self.assertIn("signature", self.refused(again([{**thought, "thinking": "other"}, use])))
        self.assertIn("signature", self.refused(again([{**thought, "signature": "x"}, use])))
        other = {"role": "user", "content": [{**back["content"][0], "tool_use_id": "call_1"}]}
        self.assertEqual(again([{**use, "id": "call_1"}], other).status, 200)

    def test_history_is_checked(self) -> None:
        """Tool uses and results must match in the very next message, and ids have a fixed alphabet."""
        use = {"type": "tool_use", "id": "t1", "name": "get_time", "input": {}}
        asked = {"role": "assistant", "content": [use]}
        result = {"type": "tool_result", "tool_use_id": "t1", "content": "noon"}
        back = {"role": "user", "content": [result]}
        self.assertEqual(self.chat("a", asked, back).status, 200)
        odd = {"role": "assistant", "content": [{**use, "id": "a:1"}]}
        text = {"role": "assistant", "content": [{**use, "input": "{}"}]}
        wrong = {"role": "user", "content": [{**result, "tool_use_id": "t2"}]}
        for messages in (["a", asked], ["a", asked, "b"], ["a", back], ["a", asked, wrong], ["a", text, back]):
            with self.subTest(messages=messages):
                self.refused(self.chat(*messages))
        self.refused(self.chat("a", odd, {"role": "user", "content": [{**result, "tool_use_id": "a:1"}]}))


class RefusalTest(AnthropicTest):
    def test_bad_key_and_version(self) -> None:
        """A wrong key is 401 authentication_error, a missing version 400."""
        body = {"model": "c", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]}
        self.refused(self.client.post("/messages", body, {**HEADERS, "x-api-key": "z"}), 401, "authentication_error")
        message = self.refused(self.client.post("/messages", body, {"x-api-key": "k"}))
        self.assertIn("anthropic-version", message)

    def test_unknown_model_and_path(self) -> None:
        """An unknown model or path is 404 not_found_error."""
        self.assertEqual(self.refused(self.chat("a", model="x"), 404, "not_found_error"), "model: x")
        self.refused(self.client.post("/embeddings", {}), 404, "not_found_error")

    def test_bad_requests(self) -> None:
        """Missing, unknown and empty fields, a system role and an impossible thinking budget are 400."""
        user = {"role": "user", "content": "a"}
        good = {"model": "c", "max_tokens": 5, "messages": [user]}
        for body in (
            b"{",
            {"max_tokens": 5, "messages": [user]},
            {"model": "c", "messages": [user]},
            {"model": "c", "max_tokens": 5},
            {**good, "max_tokens": 0},
            {**good, "max_completion_tokens": 5},
            {**good, "messages": []},
            {**good, "messages": [{"role": "system", "content": "a"}]},
            {**good, "messages": [{"role": "user", "content": ""}]},
            {**good, "messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
            {**good, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            {**good, "messages": [{"role": "assistant", "content": "a"}]},
            {**good, "temperature": 1.5},
            {**good, "tools": [{"name": "f"}]},
            {**good, "tools": [{**WEATHER, "name": "a b"}]},
            {**good, "thinking": {"type": "enabled", "budget_tokens": 5}},
            {**good, "thinking": {"type": "enabled", "budget_tokens": 1024}},
            {**good, **THINKING, "temperature": 0.5},
            {**good, **THINKING, "tools": [TIME], "tool_choice": {"type": "any"}},
        ):
            with self.subTest(body=body):
                self.refused(self.client.post("/messages", body))

    def test_overloaded(self) -> None:
        """529 is overloaded_error with x-should-retry and without retry-after."""
        self.sim.fail_next(status=529)
        reply = self.chat("a")
        self.refused(reply, 529, "overloaded_error")
        self.assertEqual(reply.headers["x-should-retry"], "true")
        self.assertNotIn("retry-after", reply.headers)

    def test_rate_limit(self) -> None:
        """A spent limit is 429 with retry-after, and what is left in anthropic-ratelimit-* with RFC 3339 resets."""
        server = sim.Simulator("anthropic", keys={"k": sim.KeyLimits(rpm=9, tpm=12)}, clock=lambda: 1_800_000_000.0 + 48)
        with server, Client(server.base_url, HEADERS) as client:
            body = {"model": "c", "max_tokens": 50, "messages": [{"role": "user", "content": "hello there, you"}]}
            served, refused = client.post("/messages", body), client.post("/messages", body)
        self.assertEqual(served.headers["anthropic-ratelimit-requests-remaining"], "8")
        self.assertEqual(served.headers["anthropic-ratelimit-tokens-remaining"], "0")
        self.assertEqual(served.headers["anthropic-ratelimit-tokens-reset"], "2027-01-15T08:01:00Z")
        self.assertIn("12 input tokens per minute", self.refused(refused, 429, "rate_limit_error"))
        self.assertEqual(refused.headers["retry-after"], "12")


if __name__ == "__main__":
    unittest.main()
