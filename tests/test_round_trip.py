"""A conversation with tools over every dialect and over every change of provider between its turns."""

from __future__ import annotations

import base64
import json
import unittest
from contextlib import ExitStack
from typing import Any

from tests import ir, part

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
MODELS = {
    "openai": "openai/gpt-5-mini",
    "gemini": "gemini/gemini-2.5-flash",
    "gemini-3": "gemini/gemini-3.5-flash",
    "anthropic": "anthropic/claude-sonnet-4-5",
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "people": {"type": "integer"}}, "required": ["city"]}


def weather(city: str) -> str:
    """The weather in a city."""
    return f"{city}: rain"


class RoundTrip(unittest.TestCase):
    """One router over three stand-ins that check the history they are given as their originals do."""

    @classmethod
    def setUpClass(cls) -> None:
        stack = ExitStack()
        cls.addClassCleanup(stack.close)
        simulator = part("simulator")
        accounts = []
        cls.servers = {}
        for dialect in ("openai", "gemini", "anthropic"):
            server = stack.enter_context(simulator.Simulator(dialect, keys=("sk-1234",)))
            cls.servers[dialect] = server
            accounts.append(ir.AccountConfig(provider=dialect, id=dialect, auth=ir.Auth("sk-1234"), base_url=server.base_url))
        cls.router = stack.enter_context(ir.Router(ir.Config(accounts=accounts)))

    def ask(self, model: str, messages: list[Any], streamed: bool, **options: Any) -> Any:
        request = ir.ChatRequest(messages, model=MODELS[model], **options)
        if not streamed:
            return self.router.chat_completion(request)
        with self.router.stream(request) as stream:
            text = "".join(chunk.text for chunk in stream)
        self.assertEqual(stream.response.text, text)
        return stream.response

    def test_question_call_result_answer(self) -> None:
        """A tool round trip works when the second turn goes to any dialect, streamed or not, with reasoning or without."""
        for first in MODELS:
            for second in MODELS:
                for streamed in (False, True):
                    for effort in (None, "low"):
                        with self.subTest(first=first, second=second, streamed=streamed, effort=effort):
                            self.round_trip(first, second, streamed, effort)

    def round_trip(self, first: str, second: str, streamed: bool, effort: str | None) -> None:
        options: dict[str, Any] = {"tools": [ir.Tool.from_function(weather)], "reasoning_effort": effort, "max_tokens": 4000}
        question = f"Use the weather tool ({first}, {second}, {streamed}, {effort})."  # signatures are remembered by question
        messages: list[Any] = [ir.Message("system", "Be brief."), ir.Message("user", question)]
        answer = self.ask(first, messages, streamed, **options)
        self.assertEqual(answer.finish_reason, "tool_calls")
        (call,) = answer.tool_calls
        self.assertEqual(call.name, "weather")
        self.assertTrue(call.id)
        result = weather(**call.parsed())
        messages += [answer.message, ir.Message("tool", result, tool_call_id=call.id)]
        answer = self.ask(second, messages, streamed, **options)
        self.assertIn(result, answer.text)
        self.assertEqual(answer.finish_reason, "stop")
        self.assertEqual(answer.routing.provider, MODELS[second].split("/")[0])

    def test_history_as_dicts(self) -> None:
        """A history kept as OpenAI-style dicts, saved as JSON and read again, goes to every dialect."""
        for first in MODELS:
            for second in MODELS:
                with self.subTest(first=first, second=second):
                    options = {"tools": [ir.Tool.from_function(weather)]}
                    messages: list[Any] = [{"role": "user", "content": f"Use the weather tool ({first}, {second}, dicts)."}]
                    answer = self.ask(first, messages, False, **options)
                    saved = json.loads(json.dumps(answer.message.to_dict()))
                    result = {"role": "tool", "content": "Rome: sun", "tool_call_id": answer.tool_calls[0].id}
                    answer = self.ask(second, [*messages, saved, result], False, **options)
                    self.assertIn("Rome: sun", answer.text)

    def test_forced_and_forbidden_tools(self) -> None:
        """tool_choice names a tool, asks for any, or forbids them all, on every dialect."""
        for model in MODELS:
            with self.subTest(model=model):
                tools = [ir.Tool.from_function(weather), ir.Tool("clock", "The time.")]
                forced = self.ask(model, [ir.Message("user", "Hi.")], False, tools=tools, tool_choice="clock")
                self.assertEqual([call.name for call in forced.tool_calls], ["clock"])
                some = self.ask(model, [ir.Message("user", "Hello there.")], True, tools=tools, tool_choice="required")
                self.assertEqual(len(some.tool_calls), 1)
                none = self.ask(model, [ir.Message("user", "Use the weather tool.")], False, tools=tools, tool_choice="none")
                self.assertEqual(none.tool_calls, ())
                self.assertTrue(none.text)

    def test_structured_answers(self) -> None:
        """A json_schema comes back as JSON that fits it, on every dialect, streamed or not."""
        form = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
        for model in MODELS:
            for streamed in (False, True):
                with self.subTest(model=model, streamed=streamed):
                    answer = self.ask(model, [ir.Message("user", "A city, please.")], streamed, response_format=form)
                    found = answer.json()
                    self.assertIsInstance(found["city"], str)
                    self.assertEqual(answer.finish_reason, "stop")

    def test_pictures_are_seen(self) -> None:
        """A picture reaches every dialect, as a Part and as an OpenAI content object."""
        url = "data:image/png;base64," + base64.b64encode(PNG).decode()
        for model in MODELS:
            for picture in (ir.Part.image(PNG), {"type": "image_url", "image_url": {"url": url}}):
                with self.subTest(model=model, kind=type(picture).__name__):
                    answer = self.ask(model, [ir.Message("user", ["What is this?", picture])], False)
                    self.assertIn("1 image", answer.text)
                    self.assertIn(f"{len(PNG)} bytes", answer.text)

    def test_media_nobody_takes(self) -> None:
        """A film for a model that takes none is refused with the reason, and nothing is sent."""
        before = len(self.servers["anthropic"].log)
        film = ir.Part.video(b"....ftypmp42....", "video/mp4")
        with self.assertRaises(ir.MultimodalUnavailableError) as caught:
            self.ask("anthropic", [ir.Message("user", ["Watch.", film])], False)
        self.assertIn("video", str(caught.exception))
        self.assertEqual([rejection.code for rejection in caught.exception.rejections], ["media"])
        self.assertEqual(len(self.servers["anthropic"].log), before)

    def test_nothing_is_dropped_silently(self) -> None:
        """A parameter a dialect cannot say is listed; the same one, required, leaves the candidate out."""
        question = [ir.Message("user", "Hello there.")]
        answer = self.ask("anthropic", question, False, seed=7)
        self.assertEqual(answer.routing.dropped, ("seed",))
        self.assertEqual(self.ask("gemini", question, False, seed=7).routing.dropped, ())
        with self.assertRaises(ir.NoCandidatesError) as caught:
            self.ask("anthropic", question, False, seed=7, require=["seed"])
        self.assertIn("seed", str(caught.exception))

    def test_reasoning_apart_from_text(self) -> None:
        """Reasoning comes beside the text, in whole answers and in chunks, and counts as output."""
        for model in MODELS:
            for streamed in (False, True):
                with self.subTest(model=model, streamed=streamed):
                    answer = self.ask(
                        model, [ir.Message("user", "Why is the sky blue?")], streamed, reasoning_effort="low", max_tokens=4000
                    )
                    self.assertTrue(answer.reasoning)
                    self.assertNotIn(answer.reasoning, answer.text)
                    self.assertGreaterEqual(answer.usage.completion_tokens, answer.usage.reasoning_tokens)

    def test_raw_is_the_providers_own(self) -> None:
        """`raw` holds what the provider sent, parsed anew each time, so that changing it changes nothing."""
        answer = self.ask("gemini", [ir.Message("user", "Hello there.")], False)
        answer.raw["candidates"].clear()
        self.assertEqual(len(answer.raw["candidates"]), 1)
        streamed = self.ask("openai", [ir.Message("user", "Hello there.")], True)
        self.assertEqual(streamed.raw[0]["object"], "chat.completion.chunk")


if __name__ == "__main__":
    unittest.main()
