"""The simulator's Gemini wire, read with plain HTTP."""

from __future__ import annotations

import base64
import json
import unittest
from typing import Any

from tests import part
from tests.servers import Client, Reply

sim = part("simulator")
prompts = part("simulator_prompt")

WEATHER = {"name": "get_weather", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}}
TIME = {"name": "get_time", "parametersJsonSchema": {"type": "object", "properties": {}}}
TOOLS = [{"functionDeclarations": [WEATHER, TIME]}]


def turn(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "parts": [{"text": text}]}


def result(name: str, **response: Any) -> dict[str, Any]:
    return {"role": "user", "parts": [{"functionResponse": {"name": name, "response": response}}]}


class GeminiTest(unittest.TestCase):
    def setUp(self) -> None:
        self.sim = sim.Simulator("gemini", keys={"k": None}, models=["g"])
        self.addCleanup(self.sim.stop)
        self.client = Client(self.sim.start().base_url, {"x-goog-api-key": "k"})
        self.addCleanup(self.client.connection.close)

    def chat(self, *turns: Any, stream: bool = False, **extra: Any) -> Reply:
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        contents = [turn(each) if isinstance(each, str) else each for each in turns]
        return self.client.post(f"/models/g:{method}", {"contents": contents, **extra})

    def refused(self, reply: Reply, status: int = 400, name: str = "INVALID_ARGUMENT") -> Any:
        self.assertEqual(reply.status, status, reply.body)
        error = reply.json["error"]
        self.assertEqual((error["code"], error["status"]), (status, name))
        return error


class AnswerTest(GeminiTest):
    def test_unary(self) -> None:
        """An answer is one candidate with text parts and STOP, usage that adds up, and a model version."""
        found = self.chat("hello", systemInstruction={"parts": [{"text": "Be kind."}]}).json
        (candidate,) = found["candidates"]
        self.assertEqual(candidate["content"]["parts"], [{"text": "Hello! How can I help you today?"}])
        self.assertEqual((candidate["finishReason"], candidate["content"]["role"]), ("STOP", "model"))
        usage = found["usageMetadata"]
        self.assertEqual(usage["promptTokenCount"], prompts.count_tokens("hello Be kind."))
        self.assertEqual(usage["totalTokenCount"], usage["promptTokenCount"] + usage["candidatesTokenCount"])
        self.assertEqual(found["modelVersion"], "g")

    def test_stream(self) -> None:
        """A stream has CRLF framing, usage on every chunk, a finishReason on the last alone, and no [DONE]."""
        whole = self.chat("hello").json
        reply = self.chat("hello", stream=True)
        self.assertEqual(reply.headers["content-type"], "text/event-stream")
        self.assertNotIn(b"\n", reply.body.replace(b"\r\n", b""))
        self.assertNotIn(b"[DONE]", reply.body)
        candidates = [event["candidates"][0] for event in reply.events]
        said = "".join(piece["text"] for each in candidates for piece in each["content"]["parts"])
        self.assertEqual(said, whole["candidates"][0]["content"]["parts"][0]["text"])
        self.assertEqual([each.get("finishReason") for each in candidates], [None] * (len(candidates) - 1) + ["STOP"])
        counts = [event["usageMetadata"]["candidatesTokenCount"] for event in reply.events]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(reply.events[-1]["usageMetadata"], whole["usageMetadata"])

    def test_stream_without_sse(self) -> None:
        """Without alt=sse a stream is one JSON array."""
        found = self.client.post("/models/g:streamGenerateContent", {"contents": [turn("hello")]}).json
        self.assertEqual(found[-1]["candidates"][0]["finishReason"], "STOP")

    def test_limits_of_the_answer(self) -> None:
        """maxOutputTokens ends with MAX_TOKENS, without parts when thinking ate it all; a stop sequence with STOP."""
        cut = self.chat("hello", generationConfig={"maxOutputTokens": 2}).json
        self.assertEqual(cut["candidates"][0]["finishReason"], "MAX_TOKENS")
        self.assertEqual(cut["usageMetadata"]["candidatesTokenCount"], 2)
        config = {"maxOutputTokens": 2, "thinkingConfig": {"thinkingBudget": 100}}
        eaten = self.chat("hello", generationConfig=config).json["candidates"][0]
        self.assertEqual((eaten["content"], eaten["finishReason"]), ({"role": "model"}, "MAX_TOKENS"))
        stopped = self.chat("hello", generationConfig={"stopSequences": ["!"]}).json["candidates"][0]
        self.assertEqual((stopped["content"]["parts"], stopped["finishReason"]), ([{"text": "Hello"}], "STOP"))

    def test_snake_case(self) -> None:
        """Field names may be written in snake case."""
        body: dict[str, Any] = {
            "generation_config": {"max_output_tokens": 1},
            "system_instruction": {"parts": [{"text": "x"}]},
        }
        self.assertEqual(self.chat("hello", **body).json["candidates"][0]["finishReason"], "MAX_TOKENS")

    def test_thoughts(self) -> None:
        """Thoughts are counted apart from the candidate, and shown as thought parts only when they are asked for."""
        quiet = self.chat("hello", generationConfig={"thinkingConfig": {"thinkingBudget": -1}}).json
        parts = quiet["candidates"][0]["content"]["parts"]
        self.assertEqual(len(parts), 1)
        usage = quiet["usageMetadata"]
        thoughts = usage["thoughtsTokenCount"]
        self.assertGreater(thoughts, 0)
        self.assertEqual(usage["totalTokenCount"], sum(usage[f"{n}TokenCount"] for n in ("prompt", "candidates", "thoughts")))
        shown = {"thinkingConfig": {"thinkingBudget": 10, "includeThoughts": True}}
        parts = self.chat("hello", generationConfig=shown).json["candidates"][0]["content"]["parts"]
        self.assertEqual([piece.get("thought") for piece in parts], [True, None])
        self.assertEqual(prompts.count_tokens(parts[0]["text"]), thoughts)
        events = self.chat("hello", generationConfig=shown, stream=True).events
        streamed = [piece for event in events for piece in event["candidates"][0]["content"]["parts"]]
        self.assertEqual("".join(each["text"] for each in streamed if each.get("thought")), parts[0]["text"])
        off = self.chat("hello", generationConfig={"thinkingConfig": {"thinkingBudget": 0}}).json
        self.assertNotIn("thoughtsTokenCount", off["usageMetadata"])

    def test_schema(self) -> None:
        """JSON answers fit responseSchema and responseJsonSchema, which need the JSON mime type."""
        schema = {"type": "OBJECT", "properties": {"mood": {"type": "STRING", "enum": ["glad", "sad"]}}}
        plain = {"type": "object", "properties": {"mood": {"$ref": "#/$defs/m"}}, "$defs": {"m": {"const": "glad"}}}
        for config in ({"responseSchema": schema}, {"responseJsonSchema": plain}):
            typed = {**config, "responseMimeType": "application/json"}
            text = self.chat("hello", generationConfig=typed).json["candidates"][0]["content"]["parts"][0]["text"]
            self.assertEqual(json.loads(text), {"mood": "glad"})
            self.refused(self.chat("hello", generationConfig=config))
        self.refused(self.chat("a", generationConfig={"responseSchema": plain, "responseMimeType": "application/json"}))

    def test_media(self) -> None:
        """Inline and linked media are named, and counted by modality."""
        data = base64.b64encode(b"x" * 10).decode()
        parts = [
            {"inlineData": {"mimeType": "image/png", "data": data}},
            {"fileData": {"mimeType": "video/mp4", "fileUri": "https://example.org/v"}},
        ]
        found = self.chat({"role": "user", "parts": parts}).json
        text = found["candidates"][0]["content"]["parts"][0]["text"]
        self.assertEqual(text, "I see 1 image (image/png, 10 bytes) and 1 video (video/*, a link).")
        modalities = {each["modality"]: each["tokenCount"] for each in found["usageMetadata"]["promptTokensDetails"]}
        self.assertEqual(modalities, {"TEXT": 0, "IMAGE": 258, "VIDEO": 1300})
        self.refused(self.chat({"parts": [{"inlineData": {"mimeType": "image/png", "data": "!"}}]}))

    def test_embeddings(self) -> None:
        """A batch keeps order and dimensions; a single text gets a single embedding."""
        requests = [
            {"model": "models/g", "content": {"parts": [{"text": text}]}, "outputDimensionality": 8} for text in ("a", "b", "a")
        ]
        found = self.client.post("/models/g:batchEmbedContents", {"requests": requests}).json["embeddings"]
        self.assertEqual([len(each["values"]) for each in found], [8, 8, 8])
        self.assertEqual(found[0], found[2])
        self.assertNotEqual(found[0], found[1])
        single = self.client.post("/models/g:embedContent", {k: v for k, v in requests[0].items() if k != "model"}).json
        self.assertEqual(single["embedding"], found[0])
        wrong = [{**requests[0], "model": "models/other"}]
        self.refused(self.client.post("/models/g:batchEmbedContents", {"requests": wrong}))
        self.refused(self.client.post("/models/g:batchEmbedContents", {"requests": []}))
        self.refused(self.client.post("/models/g:embedContent", {**requests[0], "outputDimensionality": 2**31}))

    def test_models(self) -> None:
        """The model list names what the server serves."""
        self.assertEqual([each["name"] for each in self.client.get("/models").json["models"]], ["models/g"])


class ToolTest(GeminiTest):
    def call(self, text: str = "get_weather please", **extra: Any) -> Any:
        return self.chat(text, tools=TOOLS, **extra).json["candidates"][0]

    def test_round_trip(self) -> None:
        """A call has no id, comes with STOP and a signature, and is answered once its result is back."""
        candidate = self.call()
        (piece,) = candidate["content"]["parts"]
        self.assertEqual(candidate["finishReason"], "STOP")
        self.assertEqual(piece["functionCall"], {"name": "get_weather", "args": {"city": "Paris"}})
        back = result("get_weather", result="18 degrees")
        answer = self.chat("get_weather please", candidate["content"], back, tools=TOOLS).json["candidates"][0]
        self.assertEqual(answer["content"]["parts"], [{"text": "The tool get_weather answered: 18 degrees"}])

    def test_signature(self) -> None:
        """A signature given here must come back on its very part; foreign history without one is welcome."""
        question, back = "get_weather please", result("get_weather", result="18")
        foreign: dict[str, Any] = {"functionCall": {"name": "get_weather", "args": {"city": "Paris"}}}

        def status(piece: Any, text: str = question) -> int:
            return self.chat(text, {"role": "model", "parts": [piece]}, back, tools=TOOLS).status

        self.assertEqual(status(foreign), 200)
        (signed,) = self.call(question)["content"]["parts"]
        self.assertEqual(status(signed), 200)
        self.assertEqual(status(foreign), 400)
        self.assertEqual(status(foreign, "another conversation"), 200)
        self.assertEqual(status({**signed, "functionCall": {"name": "get_weather", "args": {}}}), 400)
        self.assertEqual(status({**foreign, "thoughtSignature": "skip_thought_signature_validator"}), 200)

    def test_signature_of_strict_models(self) -> None:
        """A gemini-3 model takes no first call without a signature, whoever made the call."""
        foreign: dict[str, Any] = {"functionCall": {"name": "get_time", "args": {}}}
        skipped = {**foreign, "thoughtSignature": "skip_thought_signature_validator"}
        with sim.Simulator("gemini", keys=["k"]) as server, Client(server.base_url, {"x-goog-api-key": "k"}) as client:
            for piece, status in ((foreign, 400), (skipped, 200)):
                contents = [turn("a"), {"role": "model", "parts": [piece]}, result("get_time", result="noon")]
                reply = client.post("/models/gemini-3-flash:generateContent", {"contents": contents})
                self.assertEqual(reply.status, status)

    def test_parallel(self) -> None:
        """Of two calls only the first is signed, streamed or not."""
        unary = self.call("get_weather and get_time")["content"]["parts"]
        events = self.chat("get_weather and get_time", tools=TOOLS, stream=True).events
        streamed = [piece for event in events for piece in event["candidates"][0]["content"]["parts"]]
        for parts in (unary, streamed[:2]):
            self.assertEqual([each["functionCall"]["name"] for each in parts], ["get_weather", "get_time"])
            self.assertEqual(["thoughtSignature" in each for each in parts], [True, False])
        self.call("get_time alone")  # now the second call was signed once, as a first one
        back = {"role": "user", "parts": [result(name, n=1)["parts"][0] for name in ("get_weather", "get_time")]}
        asked = {"role": "model", "parts": unary}
        self.assertEqual(self.chat("get_weather and get_time", asked, back, tools=TOOLS).status, 200)

    def test_modes(self) -> None:
        """ANY calls something, with one allowed name that one; NONE calls nothing."""

        def mode(name: str, **extra: Any) -> Any:
            parts = self.call("hello get_weather", toolConfig={"functionCallingConfig": {"mode": name, **extra}})
            return parts["content"]["parts"][0].get("functionCall", {}).get("name")

        self.assertEqual(mode("ANY", allowedFunctionNames=["get_time"]), "get_time")
        self.assertEqual(mode("ANY"), "get_weather")
        self.assertEqual(mode("VALIDATED"), "get_weather")
        self.assertIsNone(mode("NONE"))

    def test_history_is_checked(self) -> None:
        """Calls and responses must match in the very next turn, and a response is an object."""
        asked = {"role": "model", "parts": [{"functionCall": {"name": "get_time", "args": {}}}]}
        back = result("get_time", result="noon")
        self.assertEqual(self.chat("a", asked, back).status, 200)
        text = {"role": "user", "parts": [{"functionResponse": {"name": "get_time", "response": "noon"}}]}
        for turns in (["a", asked], ["a", asked, "b"], ["a", back], ["a", asked, result("other")], ["a", asked, text]):
            with self.subTest(turns=turns):
                self.refused(self.chat(*turns))


class RefusalTest(GeminiTest):
    def test_bad_key(self) -> None:
        """A wrong key is 400 API_KEY_INVALID; asked for events, the JSON is bare under an event stream's type."""
        body = {"contents": [turn("a")]}
        for key in ({"x-goog-api-key": "z"}, {}):
            for method, kind in (
                ("generateContent", "application/json"),
                ("streamGenerateContent?alt=sse", "text/event-stream"),
            ):
                reply = self.client.post(f"/models/g:{method}", body, key)
                self.assertEqual(self.refused(reply)["details"][0]["reason"], "API_KEY_INVALID")
                self.assertTrue(reply.headers["content-type"].startswith(kind))
                self.assertIn(b"\n  ", reply.body)

    def test_unknown_model_and_path(self) -> None:
        """An unknown model or method is 404 NOT_FOUND."""
        for path in ("/models/x:generateContent", "/models/g:dream", "/chat/completions"):
            self.refused(self.client.post(path, {"contents": [turn("a")]}), 404, "NOT_FOUND")

    def test_bad_requests(self) -> None:
        """Unknown fields, empty parts, wrong roles and references in an OpenAPI schema are 400."""
        good = turn("a")
        pointing: dict[str, Any] = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"$ref": "#/x"}}}}
        bodies: list[Any] = [
            b"{",
            {},
            {"contents": []},
            {"contents": [good], "messages": []},
            {"contents": [good], "generationConfig": {"maxTokens": 1}},
            {"contents": [{"role": "assistant", "parts": [{"text": "a"}]}]},
            {"contents": [{"role": "user", "parts": []}]},
            {"contents": [{"role": "user", "parts": [{}]}]},
            {"contents": [{"role": "user", "parts": [{"text": "a", "inlineData": {}}]}]},
            {"contents": [{"role": "user", "parts": [{"image": "a"}]}]},
            {"contents": [{"role": "user", "content": "a"}]},
            {"contents": [good], "tools": [{"functionDeclarations": [{"name": "9 lives"}]}]},
            {"contents": [good], "tools": [{"functionDeclarations": [pointing]}]},
        ]
        for body in bodies:
            with self.subTest(body=body):
                self.refused(self.client.post("/models/g:generateContent", body))

    def test_quota(self) -> None:
        """A 429 names every spent quota, has no Retry-After, and its delay is short although the day is spent."""
        minute = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier"
        day = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
        tokens = "GenerateContentInputTokensPerModelPerMinute-FreeTier"
        for limits, quota_ids in (
            (sim.KeyLimits(rpm=1, rpd=1), [minute, day]),
            (sim.KeyLimits(rpd=1), [day]),
            (sim.KeyLimits(tpm=2), [tokens]),
        ):
            server = sim.Simulator("gemini", keys={"k": limits}, clock=lambda: 1_800_000_000.0 + 18)
            with self.subTest(limits=limits), server, Client(server.base_url, {"x-goog-api-key": "k"}) as client:
                body = {"contents": [turn("hello")]}
                served = client.post("/models/g:generateContent", body)
                refused = client.post("/models/g:generateContent", body)
                self.assertFalse([name for name in served.headers if "limit" in name])
                error = self.refused(refused, 429, "RESOURCE_EXHAUSTED")
                details = {each["@type"].rpartition(".")[2]: each for each in error["details"]}
                self.assertEqual([each["quotaId"] for each in details["QuotaFailure"]["violations"]], quota_ids)
                self.assertEqual(details["RetryInfo"]["retryDelay"], "42s")
                self.assertNotIn("retry-after", refused.headers)


if __name__ == "__main__":
    unittest.main()
