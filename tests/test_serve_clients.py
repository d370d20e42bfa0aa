"""Real clients through the endpoint: what each of them does with answers, streams, tools, limits and streams that break."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import Any

from tests import ir, part
from tests.serving import Served

HERE = os.environ.get("INFERROUTER_CLIENTS", "").split()
GREETING = "Hello! How can I help you today?"
Fault = part("simulator_server").Fault


def client(name: str) -> Any:
    """Skips a class unless .ci/clients brought this client; then it must be there."""
    return unittest.skipUnless(name in HERE, f"runs from .ci/clients, which brings {name}")


class Clients(Served):
    simulated = {"chunk_words": 1}  # noqa: RUF012  # never changed

    @property
    def base(self) -> str:
        return f"{self.server.url}/v1"

    def run_tool(self, *command: str, folder: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """A command-line client; its output."""
        settings = {**os.environ, "HOME": folder or tempfile.gettempdir(), **env}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=settings, cwd=folder)


WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@client("openai")
class OpenAISdk(Clients):
    def setUp(self) -> None:
        super().setUp()
        import openai

        self.openai = openai
        self.client = openai.OpenAI(base_url=self.base, api_key="any")
        self.addCleanup(self.client.close)

    def ask(self, text: str = "hello", **more: Any) -> Any:  # type: ignore[override]  # the SDK's own way
        return self.client.chat.completions.create(model="fast", messages=[{"role": "user", "content": text}], **more)

    def test_chat(self) -> None:
        answer = self.ask()
        self.assertEqual((answer.choices[0].message.content, answer.choices[0].finish_reason), (GREETING, "stop"))
        self.assertGreater(answer.usage.total_tokens, 0)
        raw = self.client.chat.completions.with_raw_response.create(model="fast", messages=[{"role": "user", "content": "hello"}])
        self.assertEqual(raw.headers["x-inferrouter-account"], "a")

    def test_stream(self) -> None:
        chunks = list(self.ask(stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), GREETING)
        self.assertGreater(chunks[-1].usage.completion_tokens, 0)

    def test_tools(self) -> None:
        tools = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
        message = self.ask("get_weather please", tools=tools).choices[0].message
        self.assertEqual(json.loads(message.tool_calls[0].function.arguments), {"city": "Paris"})
        turns = [
            {"role": "user", "content": "get_weather please"},
            message,
            {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"},
        ]
        told = self.client.chat.completions.create(model="fast", messages=turns, tools=tools)
        self.assertIn("sunny", told.choices[0].message.content)

    def test_tools_streamed(self) -> None:
        tools = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
        with self.client.chat.completions.stream(
            model="fast", messages=[{"role": "user", "content": "get_weather please"}], tools=tools
        ) as stream:
            for _ in stream:
                pass
            call = stream.get_final_completion().choices[0].message.tool_calls[0]
        self.assertEqual((call.function.name, json.loads(call.function.arguments)), ("get_weather", {"city": "Paris"}))

    def test_parse(self) -> None:
        import pydantic

        class Place(pydantic.BaseModel):
            city: str

        found = self.client.chat.completions.parse(
            model="fast", messages=[{"role": "user", "content": "where"}], response_format=Place
        )
        self.assertEqual(found.choices[0].message.parsed, Place(city="Paris"))
        answer = self.client.responses.parse(model="fast", input="where", text_format=Place)
        self.assertEqual(answer.output_parsed, Place(city="Paris"))

    def test_responses(self) -> None:
        self.assertEqual(self.client.responses.create(model="fast", input="hello").output_text, GREETING)
        with self.client.responses.stream(model="fast", input="hello") as stream:
            kinds = [event.type for event in stream]
            self.assertEqual(stream.get_final_response().output_text, GREETING)
        self.assertEqual((kinds[0], kinds[-1]), ("response.created", "response.completed"))
        tools = [{"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}]
        call = self.client.responses.create(model="fast", input="get_weather please", tools=tools).output[0]
        given = [{"role": "user", "content": "get_weather please"}, call]
        given.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
        self.assertIn("sunny", self.client.responses.create(model="fast", input=given, tools=tools).output_text)

    def test_embeddings_models_completions(self) -> None:
        vectors = self.client.embeddings.create(model="fast", input=["one", "two"], dimensions=16)
        self.assertEqual([len(each.embedding) for each in vectors.data], [16, 16])
        self.assertEqual([model.id for model in self.client.models.list()], ["fast", "m"])
        self.assertEqual(self.client.completions.create(model="fast", prompt="hello").choices[0].text, GREETING)

    def test_a_limit_is_waited_for(self) -> None:
        """Not refused: the SDK says that it waits ten minutes."""
        self.router.rest("a", 1.0)
        self.assertEqual(self.ask().choices[0].message.content, GREETING)
        self.assertEqual(len(self.server.calls.past()), 1)

    def test_a_spent_day_is_told_once(self) -> None:
        """One request, one error with the time in it."""
        self.router.rest("a", 3 * 3600)
        with self.assertRaises(self.openai.RateLimitError) as caught:
            self.ask()
        self.assertIn("in 3 h", str(caught.exception))
        self.assertEqual(len(self.server.calls.past()), 1)

    def test_a_cut_stream_is_an_error(self) -> None:
        for kind in ("cut", "unfinished", "error_inside"):
            with self.subTest(kind):
                self.sim.script([Fault(kind, after=4)])
                with self.assertRaises(self.openai.APIError):
                    list(self.ask(stream=True))
                self.sim.script([Fault(kind, after=4)])
                with self.assertRaises(self.openai.APIError):
                    list(self.client.responses.create(model="fast", input="hello", stream=True))

    def test_errors(self) -> None:
        with self.assertRaises(self.openai.BadRequestError):
            self.ask(temperature="hot")
        self.sim.fail_next(9, 500)
        with self.assertRaises(self.openai.InternalServerError):
            self.ask()
        self.assertEqual(len(self.server.calls.past()), 2)


@client("anthropic")
class AnthropicSdk(Clients):
    def setUp(self) -> None:
        super().setUp()
        import anthropic

        self.anthropic = anthropic
        self.client = anthropic.Anthropic(base_url=self.server.url, api_key="any")
        self.addCleanup(self.client.close)
        self.said = {"model": "fast", "max_tokens": 500, "messages": [{"role": "user", "content": "hello"}]}

    def test_messages(self) -> None:
        message = self.client.messages.create(**self.said)
        self.assertEqual((message.content[0].text, message.stop_reason), (GREETING, "end_turn"))
        self.assertGreater(message.usage.output_tokens, 0)
        self.assertGreater(self.client.messages.count_tokens(model="fast", messages=self.said["messages"]).input_tokens, 0)
        self.assertEqual([model.id for model in self.client.models.list()], ["fast", "m"])

    def test_stream(self) -> None:
        with self.client.messages.stream(**self.said) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        self.assertEqual((text, final.content[0].text, final.stop_reason), (GREETING, GREETING, "end_turn"))

    def test_tools(self) -> None:
        tools = [{"name": "get_weather", "description": "weather", "input_schema": WEATHER}]
        turns: list[Any] = [{"role": "user", "content": "get_weather please"}]
        message = self.client.messages.create(**{**self.said, "messages": turns}, tools=tools)
        block = message.content[0]
        self.assertEqual((message.stop_reason, block.name, block.input), ("tool_use", "get_weather", {"city": "Paris"}))
        turns += [
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}]},
        ]
        self.assertIn("sunny", self.client.messages.create(**{**self.said, "messages": turns}, tools=tools).content[0].text)
        with self.client.messages.stream(**{**self.said, "messages": turns[:1]}, tools=tools) as stream:
            self.assertEqual(stream.get_final_message().content[0].input, {"city": "Paris"})

    def test_limits_and_cut_streams(self) -> None:
        self.sim.script([Fault("cut", after=4)])
        with self.assertRaises(self.anthropic.APIError), self.client.messages.stream(**self.said) as stream:
            list(stream)
        self.router.rest("a", 3 * 3600)
        with self.assertRaises(self.anthropic.RateLimitError):
            self.client.messages.create(**self.said)
        self.assertEqual(len(self.server.calls.past()), 2)


@client("llm")
class Llm(Clients):
    def test_prompt(self) -> None:
        """Simon Willison's `llm`, configured by its own file: whole, streamed, listed, refused."""
        with tempfile.TemporaryDirectory() as folder:
            row = f'- model_id: router\n  model_name: fast\n  api_base: "{self.base}"\n'
            Path(folder, "extra-openai-models.yaml").write_text(row)
            env = {"LLM_USER_PATH": folder, "OPENAI_API_KEY": "any"}
            for more in ((), ("--no-stream",)):
                ran = self.run_tool("llm", "-m", "router", *more, "hello", folder=folder, **env)
                self.assertEqual((ran.returncode, ran.stdout.strip()), (0, GREETING), ran.stderr)
            self.router.rest("a", 3 * 3600)
            ran = self.run_tool("llm", "-m", "router", "hello", folder=folder, **env)
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn("in 3 h", ran.stderr)


@client("langchain_openai")
class LangChain(Clients):
    def test_chat_openai(self) -> None:
        from langchain_openai import ChatOpenAI, OpenAIEmbeddings

        model = ChatOpenAI(model="fast", base_url=self.base, api_key="any", stream_usage=True)
        self.assertEqual(model.invoke("hello").content, GREETING)
        self.assertEqual("".join(str(chunk.content) for chunk in model.stream("hello")), GREETING)
        schema = {"title": "get_weather", "description": "weather", **WEATHER}
        call = model.bind_tools([schema]).invoke("get_weather please").tool_calls[0]
        self.assertEqual((call["name"], call["args"]), ("get_weather", {"city": "Paris"}))
        self.assertEqual(model.with_structured_output({**schema, "title": "place"}).invoke("where"), {"city": "Paris"})
        embeddings = OpenAIEmbeddings(model="fast", base_url=self.base, api_key="any", check_embedding_ctx_length=False)
        self.assertEqual(len(embeddings.embed_documents(["one", "two"])), 2)

    def test_a_cut_stream_is_an_error(self) -> None:
        from langchain_openai import ChatOpenAI

        self.sim.script([Fault("cut", after=4)])
        with self.assertRaises(Exception) as caught:
            list(ChatOpenAI(model="fast", base_url=self.base, api_key="any").stream("hello"))
        self.assertIn("API", type(caught.exception).__name__)


@client("litellm")
class LiteLlm(Clients):
    def test_as_a_client(self) -> None:
        import litellm

        def ask(**more: Any) -> Any:
            messages = [{"role": "user", "content": more.pop("text", "hello")}]
            return litellm.completion("openai/fast", messages, api_base=self.base, api_key="any", num_retries=0, **more)

        self.assertEqual(ask().choices[0].message.content, GREETING)
        self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in ask(stream=True)), GREETING)
        tools = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
        call = ask(text="get_weather please", tools=tools).choices[0].message.tool_calls[0]
        self.assertEqual(json.loads(call.function.arguments), {"city": "Paris"})
        vectors = litellm.embedding("openai/fast", ["one"], api_base=self.base, api_key="any")
        self.assertEqual(len(vectors.data), 1)
        self.sim.script([Fault("cut", after=4)])
        with self.assertRaises(Exception):  # noqa: B017  # LiteLLM's own, of several kinds
            list(ask(stream=True))
        self.router.rest("a", 3 * 3600)
        with self.assertRaises(litellm.RateLimitError):
            ask()


@client("aider")
class Aider(Clients):
    @property
    def edit(self) -> str:
        return "app.py\n```\n<<<<<<< SEARCH\nprint('hello')\n=======\nprint('goodbye')\n>>>>>>> REPLACE\n```\n"

    def test_one_edit(self) -> None:
        """aider asks for an edit of a file and applies the answer."""
        self.sim.stop()
        self.sim = part("simulator").Simulator(reply=lambda question: self.edit).start()
        self.addCleanup(self.sim.stop)
        self.router, old = self.make_router(), self.router
        self.addCleanup(self.router.close)
        self.server.stop(0)
        old.close()
        self.server = ir.serve(self.router, port=0)
        self.addCleanup(self.server.stop, 0)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "app.py")
            file.write_text("print('hello')\n")
            flags = (
                "--no-git",
                "--yes-always",
                "--no-check-update",
                "--no-show-release-notes",
                "--no-pretty",
                "--analytics-disable",
            )
            more = ("--no-show-model-warnings", "--no-detect-urls", "--edit-format", "diff", "--message", "say goodbye instead")
            where = ("--openai-api-base", self.base, "--openai-api-key", "any", "--model", "openai/fast")
            ran = self.run_tool(sys.executable, "-m", "aider", *where, *flags, *more, "app.py", folder=folder)
            self.assertEqual(file.read_text(), "print('goodbye')\n", ran.stdout + ran.stderr)
        self.assertEqual({call.state for call in self.server.calls.past()}, {"done"})


if __name__ == "__main__":
    unittest.main()
