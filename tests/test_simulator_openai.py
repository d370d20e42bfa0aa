"""The simulator's OpenAI-compatible wire, read with plain HTTP."""

from __future__ import annotations

import base64
import json
import struct
import unittest
from typing import Any

from tests import part
from tests.servers import Client, Reply

sim = part("simulator")
prompts = part("simulator_prompt")

PNG = b"\x89PNG" + bytes(64)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}


class OpenAITest(unittest.TestCase):
    def setUp(self) -> None:
        self.sim = sim.Simulator("openai", keys={"sk-1": sim.KeyLimits(rpm=100, tpd=100_000)}, models=["m"])
        self.addCleanup(self.sim.stop)
        self.client = Client(self.sim.start().base_url, {"authorization": "Bearer sk-1"})
        self.addCleanup(self.client.connection.close)

    def chat(self, *messages: Any, **extra: Any) -> Reply:
        turns = [{"role": "user", "content": each} if isinstance(each, str) else each for each in messages]
        return self.client.post("/chat/completions", {"model": "m", "messages": turns, **extra})

    def refused(self, reply: Reply, status: int = 400) -> Any:
        self.assertEqual(reply.status, status, reply.body)
        error = reply.json["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        return error


class AnswerTest(OpenAITest):
    def test_unary(self) -> None:
        """A completion has an id, one choice with text and finish_reason, and usage that adds up."""
        reply = self.chat("hello")
        found = reply.json
        self.assertTrue(found["id"].startswith("chatcmpl-"))
        self.assertEqual((found["object"], found["model"]), ("chat.completion", "m"))
        choice = found["choices"][0]
        self.assertEqual(choice["message"]["content"], "Hello! How can I help you today?")
        self.assertEqual(choice["finish_reason"], "stop")
        usage = found["usage"]
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"] + usage["completion_tokens"])
        self.assertTrue(reply.headers["x-request-id"])

    def test_stream(self) -> None:
        """A stream is a role chunk, content chunks, a finish chunk and [DONE], and says what the unary answer says."""
        whole = self.chat("hello").json["choices"][0]["message"]["content"]
        reply = self.chat("hello", stream=True)
        self.assertEqual(reply.headers["content-type"], "text/event-stream")
        self.assertEqual(reply.data[-1], "[DONE]")
        choices = [event["choices"][0] for event in reply.events]
        self.assertEqual(choices[0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual("".join(choice["delta"].get("content", "") for choice in choices), whole)
        self.assertEqual([choice["finish_reason"] for choice in choices][-2:], [None, "stop"])
        self.assertNotIn("usage", reply.events[0])

    def test_stream_usage(self) -> None:
        """include_usage adds null usage to every chunk and a last chunk with usage and no choices."""
        usage = self.chat("hello").json["usage"]
        events = self.chat("hello", stream=True, stream_options={"include_usage": True}).events
        self.assertEqual([event["usage"] for event in events], [None] * (len(events) - 1) + [usage])
        self.assertEqual(events[-1]["choices"], [])

    def test_max_tokens_and_stop(self) -> None:
        """max_tokens cuts to exactly that many tokens with length; a stop word ends before itself with stop."""
        cut = self.chat("hello", max_completion_tokens=3).json
        self.assertEqual(cut["choices"][0]["finish_reason"], "length")
        self.assertEqual(cut["usage"]["completion_tokens"], 3)
        stopped = self.chat("hello", stop=[" can"]).json["choices"][0]
        self.assertEqual((stopped["message"]["content"], stopped["finish_reason"]), ("Hello! How", "stop"))

    def test_n(self) -> None:
        """n choices are all there, interleaved in a stream, and all counted."""
        one, two = self.chat("hello").json, self.chat("hello", n=2).json
        self.assertEqual([choice["index"] for choice in two["choices"]], [0, 1])
        self.assertEqual(two["usage"]["completion_tokens"], 2 * one["usage"]["completion_tokens"])
        both = self.chat("hello", n=2, reasoning_effort="low").json
        reasoning = prompts.count_tokens(both["choices"][0]["message"]["reasoning_content"])
        self.assertEqual(both["usage"]["completion_tokens_details"]["reasoning_tokens"], 2 * reasoning)
        events = self.chat("hello", n=2, stream=True).events
        self.assertEqual([event["choices"][0]["index"] for event in events][:4], [0, 1, 0, 1])

    def test_json_schema(self) -> None:
        """An answer to a json_schema fits it; json_object is an object."""
        schema = {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "size": {"type": "integer", "minimum": 5},
                "tags": {"type": "array"},
            },
            "required": ["city", "size"],
        }
        shaped = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema}}
        found = json.loads(self.chat("hello", response_format=shaped).json["choices"][0]["message"]["content"])
        self.assertEqual((found["city"], found["size"]), ("Paris", 5))
        loose = self.chat("hello", response_format={"type": "json_object"}).json["choices"][0]["message"]["content"]
        self.assertIsInstance(json.loads(loose), dict)

    def test_reasoning(self) -> None:
        """reasoning_effort brings reasoning_content beside the text, counted inside completion_tokens."""
        found = self.chat("hello", reasoning_effort="low").json
        message, usage = found["choices"][0]["message"], found["usage"]
        reasoning = prompts.count_tokens(message["reasoning_content"])
        self.assertEqual(usage["completion_tokens_details"]["reasoning_tokens"], reasoning)
        self.assertEqual(usage["completion_tokens"], reasoning + prompts.count_tokens(message["content"]))
        self.assertNotIn("reasoning_content", self.chat("hello").json["choices"][0]["message"])

    def test_media(self) -> None:
        """Attachments are named with type and size, links as links, and each kind costs its fixed tokens."""
        data = base64.b64encode(PNG).decode()
        parts = [
            {"type": "text", "text": "hello"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
            {"type": "input_audio", "input_audio": {"format": "wav", "data": data}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{data}"}},
        ]
        found = self.chat({"role": "user", "content": parts}).json
        text = found["choices"][0]["message"]["content"]
        self.assertIn("I see 2 images (image/png, 68 bytes; image/*, a link) and 1 audio (audio/wav, 68 bytes)", text)
        self.assertIn("1 document (application/pdf, 68 bytes)", text)
        self.assertEqual(found["usage"]["prompt_tokens"], 1 + 2 * 258 + 320 + 516)
        self.assertEqual(found["usage"]["prompt_tokens_details"]["audio_tokens"], 320)
        broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,!!"}}
        self.refused(self.chat({"role": "user", "content": [broken]}))

    def test_embeddings(self) -> None:
        """Embeddings keep order and dimensions, are unit vectors, and near for texts that share words; base64 holds the same."""
        body = {"model": "m", "input": ["red ship", "red ships sail a ship", "tax law"], "dimensions": 32}
        found = self.client.post("/embeddings", body).json
        vectors = [each["embedding"] for each in found["data"]]
        self.assertEqual([each["index"] for each in found["data"]], [0, 1, 2])
        near, far = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
        self.assertGreater(near, far)
        self.assertAlmostEqual(sum(value * value for value in vectors[0]), 1.0, places=4)
        packed = self.client.post("/embeddings", {**body, "encoding_format": "base64"}).json["data"][0]["embedding"]
        for value, expected in zip(struct.unpack("<32f", base64.b64decode(packed)), vectors[0], strict=True):
            self.assertAlmostEqual(value, expected, places=5)
        for size in (-1, 2**31):
            self.refused(self.client.post("/embeddings", {**body, "dimensions": size}))

    def test_half_characters(self) -> None:
        """A lone surrogate, which JSON can say and UTF-8 cannot, is answered like any other."""
        self.assertEqual(self.chat({"role": "user", "content": "\ud83d"}).status, 200)

    def test_models(self) -> None:
        """The model list names what the server serves."""
        self.assertEqual([each["id"] for each in self.client.get("/models").json["data"]], ["m"])


class ToolTest(OpenAITest):
    def test_round_trip(self) -> None:
        """A mentioned tool is called with arguments from its schema, and its result is quoted in the answer."""
        choice = self.chat("Please get weather.", tools=[TIME, WEATHER]).json["choices"][0]
        self.assertEqual(choice["finish_reason"], "tool_calls")
        self.assertIsNone(choice["message"]["content"])
        (call,) = choice["message"]["tool_calls"]
        self.assertEqual(call["function"]["name"], "get_weather")
        self.assertEqual(json.loads(call["function"]["arguments"]), {"city": "Paris", "days": 1})
        result = {"role": "tool", "tool_call_id": call["id"], "content": "18 degrees"}
        answer = self.chat("Please get weather.", choice["message"], result, tools=[TIME, WEATHER]).json["choices"][0]
        self.assertEqual(answer["message"]["content"], "The tool get_weather answered: 18 degrees")

    def test_parallel_stream(self) -> None:
        """Two mentioned tools come as fragments by index that join to JSON, id and name first."""
        events = self.chat("get_weather and get_time", tools=[WEATHER, TIME], stream=True).events
        calls: dict[int, dict[str, str]] = {}
        for event in events:
            for piece in event["choices"][0]["delta"].get("tool_calls", []):
                call = calls.setdefault(piece["index"], {"id": piece.get("id", ""), "text": ""})
                call["text"] += piece["function"]["arguments"]
        self.assertEqual([json.loads(call["text"]) for call in calls.values()], [{"city": "Paris", "days": 1}, {}])
        self.assertEqual(len({call["id"] for call in calls.values()} - {""}), 2)
        single = self.chat("get_weather and get_time", tools=[WEATHER, TIME], parallel_tool_calls=False).json
        self.assertEqual(len(single["choices"][0]["message"]["tool_calls"]), 1)

    def test_choice(self) -> None:
        """A named choice is obeyed and finishes with stop, required calls something, none calls nothing."""
        named = {"type": "function", "function": {"name": "get_time"}}
        forced = self.chat("hello", tools=[WEATHER, TIME], tool_choice=named).json["choices"][0]
        self.assertEqual(forced["message"]["tool_calls"][0]["function"]["name"], "get_time")
        self.assertEqual(forced["finish_reason"], "stop")
        required = self.chat("hello", tools=[WEATHER], tool_choice="required").json["choices"][0]
        self.assertEqual(required["finish_reason"], "tool_calls")
        none = self.chat("get_weather", tools=[WEATHER], tool_choice="none").json["choices"][0]
        self.assertNotIn("tool_calls", none["message"])

    def test_history_is_checked(self) -> None:
        """A tool call without its result, a result without its call and arguments that are not a string are refused."""
        call = {"id": "c1", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
        asked = {"role": "assistant", "content": None, "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": "c1", "content": "noon"}
        loose = {**asked, "tool_calls": [{**call, "function": {"name": "get_time", "arguments": {}}}]}
        self.assertEqual(self.chat("a", asked, result).status, 200)
        for messages in (
            ["a", asked],
            ["a", asked, "b"],
            ["a", result],
            ["a", asked, {**result, "tool_call_id": "c2"}],
            ["a", asked, result, result],
            ["a", loose, result],
            ["a", {**asked, "tool_calls": [{**call, "id": None}]}, result],
        ):
            with self.subTest(messages=messages):
                self.refused(self.chat(*messages))


class RefusalTest(OpenAITest):
    def test_bad_key(self) -> None:
        """A wrong or missing key is 401 invalid_api_key, whatever the body."""
        for headers in ({"authorization": "Bearer sk-9"}, {"authorization": "Basic sk-1"}, {}):
            reply = self.client.post("/chat/completions", b"?", headers)
            self.assertEqual(self.refused(reply, 401)["code"], "invalid_api_key")
            self.assertNotIn(b"sk-9", reply.body)

    def test_unknown_model_and_path(self) -> None:
        """An unknown model is 404 model_not_found, an unknown path another 404."""
        self.assertEqual(self.refused(self.chat("a", model="x"), 404)["code"], "model_not_found")
        self.assertIsNone(self.refused(self.client.post("/completions", {}), 404)["code"])

    def test_bad_requests(self) -> None:
        """Bodies the service refuses are 400 with its error object."""
        user = {"role": "user", "content": "a"}
        for body in (
            b"{",
            b"[]",
            {"messages": [user]},
            {"model": "m"},
            {"model": "m", "messages": []},
            {"model": "m", "messages": ["a"]},
            {"model": "m", "messages": [{"role": "wizard", "content": "a"}]},
            {"model": "m", "messages": [{"role": "user", "content": None}]},
            {"model": "m", "messages": [{"role": "user", "content": [{"type": "smell"}]}]},
            {"model": "m", "messages": [user], "max_tokens": 0},
            {"model": "m", "messages": [user], "tool_choice": "auto"},
            {"model": "m", "messages": [user], "stream_options": {"include_usage": True}},
            {"model": "m", "messages": [user], "response_format": {"type": "json_schema"}},
            {"model": "m", "messages": [user], "stop": 5},
            {"model": "m", "messages": [user], "n": "many"},
        ):
            with self.subTest(body=body):
                self.refused(self.client.post("/chat/completions", body))
        for given in ("", [], [1], None):
            self.refused(self.client.post("/embeddings", {"model": "m", "input": given}))

    def test_rate_limit(self) -> None:
        """A spent limit is 429 with retry-after, what is left in x-ratelimit-*, and the limit's name in the message."""
        server = sim.Simulator(keys={"k": sim.KeyLimits(rpm=1, tpm=50)}, clock=lambda: 1_800_000_000.0 + 39.5)
        with server, Client(server.base_url, {"authorization": "Bearer k"}) as client:
            body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
            served, refused = client.post("/chat/completions", body), client.post("/chat/completions", body)
        self.assertEqual(served.headers["x-ratelimit-limit-requests"], "1")
        self.assertEqual(served.headers["x-ratelimit-remaining-requests"], "0")
        self.assertEqual(served.headers["x-ratelimit-remaining-tokens"], str(50 - served.json["usage"]["total_tokens"]))
        self.assertEqual(served.headers["x-ratelimit-reset-tokens"], "20.5s")
        error = self.refused(refused, 429)
        self.assertEqual((error["type"], error["code"]), ("requests", "rate_limit_exceeded"))
        self.assertIn("(RPM): Limit 1, Used 1, Requested 1. Please try again in 20.5s", error["message"])
        self.assertEqual(refused.headers["retry-after"], "21")

    def test_tightest_limit(self) -> None:
        """Of two limits on requests the headers tell the one with the smaller share left."""
        with sim.Simulator(keys={"k": sim.KeyLimits(rpm=2, rpd=100)}) as server:
            with Client(server.base_url, {"authorization": "Bearer k"}) as client:
                reply = client.post("/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "a"}]})
        self.assertEqual(reply.headers["x-ratelimit-limit-requests"], "2")

    def test_without_tools(self) -> None:
        """A server that takes no tools refuses them."""
        with sim.Simulator(tools=False) as server:
            with Client(server.base_url, {"authorization": "Bearer sk-1"}) as client:
                body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "tools": [WEATHER]}
                self.refused(client.post("/chat/completions", body))


if __name__ == "__main__":
    unittest.main()
