"""What goes out in OpenAI's words: each field of a full request against the documented schema, and the servers' own ways."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import unittest
from typing import Any

from tests import part

records = part("records")
content = part("content")
errors = part("errors")
provider_openai, openai_request = part("provider_openai"), part("openai_request")
Endpoint = part("provider").Endpoint
Secret = part("secret").Secret
ChatRequest, Message, ToolCall = records.ChatRequest, records.Message, records.ToolCall
Part = content.Part

PNG = b"\x89PNG\r\n\x1a\n"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA, "strict": True}}

# The documented request: field -> a JSON type, an object of fields, a list of one kind, or a set of words.
STRING, NUMBER, INTEGER, OBJECT, BOOLEAN = "string", "number", "integer", "object", "boolean"
CALL = {"id": STRING, "type": {"function"}, "function": {"name": STRING, "arguments": STRING}}
PARTS: dict[str, Any] = {
    "text": {"type": {"text"}, "text": STRING},
    "image_url": {"type": {"image_url"}, "image_url": {"url": STRING}},
    "input_audio": {"type": {"input_audio"}, "input_audio": {"data": STRING, "format": {"wav", "mp3"}}},
    "file": {"type": {"file"}, "file": {"filename": STRING, "file_data": STRING}},
}
DOCUMENTED: dict[str, Any] = {
    "model": STRING,
    "temperature": NUMBER,
    "max_tokens": INTEGER,
    "max_completion_tokens": INTEGER,
    "top_p": NUMBER,
    "stop": [STRING],
    "seed": INTEGER,
    "stream": BOOLEAN,
    "stream_options": {"include_usage": BOOLEAN},
    "tools": [
        {"type": {"function"}, "function": {"name": STRING, "description": STRING, "parameters": OBJECT, "strict": BOOLEAN}}
    ],
    "tool_choice": {"type": {"function"}, "function": {"name": STRING}},
    "response_format": {"type": {"json_schema"}, "json_schema": {"name": STRING, "schema": OBJECT}},
    "reasoning_effort": {"low", "medium", "high"},
    "logit_bias": OBJECT,
}
_TYPES: dict[str, Any] = {STRING: str, NUMBER: (int, float), INTEGER: int, OBJECT: dict, BOOLEAN: bool}


def faults(value: Any, kind: Any, where: str) -> list[str]:
    """Where `value` is not what the schema says."""
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return [f"{where} is not an object"]
        extra = [f"{where}.{key} is not documented" for key in value if key not in kind]
        return extra + [fault for key in value if key in kind for fault in faults(value[key], kind[key], f"{where}.{key}")]
    if isinstance(kind, list):
        return [fault for i, item in enumerate(value) for fault in faults(item, kind[0], f"{where}[{i}]")]
    if isinstance(kind, (set, frozenset)):
        return [] if value in kind else [f"{where} is {value!r}"]
    return [] if isinstance(value, _TYPES[kind]) else [f"{where} is {type(value).__name__}"]


def full_request() -> Any:
    return ChatRequest(
        [
            Message("system", "Be brief."),
            Message("developer", "In French."),
            Message(
                "user",
                [
                    Part.text("Look:"),
                    Part.image(PNG),
                    Part.image_url("https://e.org/a.png"),
                    Part.audio(b"ID3x"),
                    Part.document(b"%PDF-1", filename="a.pdf"),
                ],
                name="ann",
            ),
            Message("assistant", "", [ToolCall("call_1", "weather", '{"city":"Rome"}')]),
            Message("tool", '{"sky":"blue"}', tool_call_id="call_1"),
        ],
        temperature=0.5,
        max_tokens=64,
        top_p=0.9,
        stop=["END"],
        seed=7,
        tools=[TOOL],
        tool_choice="weather",
        response_format={"type": "json_schema", "json_schema": {"schema": SCHEMA}},
        reasoning_effort="low",
        extra={"logit_bias": {"1": 2}},
    )


def encoded(name: str, request: Any = None, model: str = "m", stream: bool = False) -> Any:
    provider = provider_openai.OpenAICompatProvider(name, "https://e.org/v1/")
    return provider.encode(request or full_request(), model, Endpoint("https://e.org/v1", Secret("k")), stream)


def sent(name: str, request: Any = None, model: str = "m", stream: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encoded(name, request, model, stream).body)
    return body


def dropped(name: str, model: str, request: Any = None) -> set[str]:
    return set(provider_openai.OpenAICompatProvider(name, "https://e.org").unsupported(request or full_request(), model))


class EncodeTest(unittest.TestCase):
    maxDiff = None

    def test_every_field_is_documented(self) -> None:
        """A request with everything in it uses documented fields of the documented types only, and says all of it."""
        body = sent("somewhere", stream=True)
        messages = body.pop("messages")
        self.assertEqual(faults(body, DOCUMENTED, "body"), [])
        self.assertEqual(set(DOCUMENTED) - set(body), {"max_completion_tokens"})
        self.assertEqual([message["role"] for message in messages], ["system", "system", "user", "assistant", "tool"])
        for piece in messages[2]["content"]:
            self.assertEqual(faults(piece, PARTS[piece["type"]], "part"), [])
        self.assertEqual(
            [piece["type"] for piece in messages[2]["content"]], ["text", "image_url", "image_url", "input_audio", "file"]
        )
        self.assertEqual(messages[2]["content"][1]["image_url"]["url"], "data:image/png;base64,iVBORw0KGgo=")
        self.assertEqual(messages[2]["name"], "ann")
        self.assertIsNone(messages[3]["content"])
        self.assertEqual(faults(messages[3]["tool_calls"][0], CALL, "call"), [])
        self.assertEqual(messages[4], {"role": "tool", "content": '{"sky":"blue"}', "tool_call_id": "call_1"})
        self.assertEqual(body["tools"], [TOOL])
        self.assertEqual(body["tool_choice"], {"type": "function", "function": {"name": "weather"}})
        self.assertEqual(body["response_format"]["json_schema"], {"name": "answer", "schema": SCHEMA})
        self.assertEqual(dropped("somewhere", "m"), set())

    def test_nothing_unasked(self) -> None:
        """A plain question holds nothing but the model and a plain string."""
        self.assertEqual(sent("somewhere", ChatRequest("Hi")), {"model": "m", "messages": [{"role": "user", "content": "Hi"}]})

    def test_plain_turns(self) -> None:
        """A body is the same bytes whether its turns are written as text at once or are dicts first."""
        plain = [
            Message("system", 'Be "brief".\n'),
            Message("user", "Größe \ud800\x00"),
            Message("assistant", ""),
            Message("user", "Hi"),
        ]
        kept = records.NativeTurn("openai", "somewhere", '{"role":"assistant","content":"y"}', "x", ())
        others = [
            Message("user", "x", name="ann"),
            Message("developer", "x"),
            Message("assistant", "x", native=kept),
            Message("assistant", "", tool_calls=[ToolCall("call_1", "look", "")]),
            Message("tool", "y", tool_call_id="call_1"),
            Message("tool", [Part.text("y"), Part.image(PNG)], tool_call_id="call_1"),
            Message("user", [Part.text("x"), Part.image(PNG)]),
            Message("user", [Part.text("x")]),
        ]
        settings: list[dict[str, Any]] = [
            {},
            {"temperature": 0.5, "max_tokens": 5, "stop": ["x"]},
            {"tools": [TOOL], "seed": 1},
            {"response_format": SCHEMA, "tool_choice": "weather", "tools": [TOOL]},
            {"extra": {"messages": [], "n": 2}},
        ]
        for name, fields, stream, other in itertools.product(("somewhere", "mistral"), settings, (False, True), (None, *others)):
            request = ChatRequest([*plain, other] if other else plain, **fields)
            wire, server = encoded(name, request, 'm"é', stream), openai_request.server(name)
            body = openai_request.chat_body(request, 'm"é', server, name, stream, wire.dropped)
            self.assertEqual(wire.body, json.dumps(body, separators=(",", ":")).encode())
            self.assertEqual(encoded(name, request, 'm"é', stream).body, wire.body)

    def test_text_parts_alone_are_a_string(self) -> None:
        """One text part goes out as a plain string, which every server takes."""
        self.assertEqual(sent("x", ChatRequest([Message("user", [Part.text("Hi")])]))["messages"][0]["content"], "Hi")

    def test_media_of_a_tool(self) -> None:
        """A tool message holds text only: its picture follows the results in a user message; Mistral takes it where it is."""
        calls = [ToolCall("call_1", "look", ""), ToolCall("call_2", "look", " ")]
        turns = [
            Message("user", "Look"),
            Message("assistant", "", tool_calls=calls),
            Message("tool", [Part.text("here"), Part.image(b"\x89PNG\r\n\x1a\n")], tool_call_id="call_1"),
            Message("tool", "nothing", tool_call_id="call_2"),
        ]
        for more in ([], [Message("user", "And?")]):
            messages = sent("somewhere", ChatRequest([*turns, *more]))["messages"]
            self.assertEqual([call["function"]["arguments"] for call in messages[1]["tool_calls"]], ["{}", "{}"])
            self.assertEqual([each["content"] for each in messages[2:4]], ["here", "nothing"])
            self.assertEqual((messages[4]["role"], messages[4]["content"][0]["type"]), ("user", "image_url"))
            self.assertEqual([each["content"] for each in messages[5:]], [each.content for each in more])
        kept = sent("mistral", ChatRequest(turns))["messages"]
        self.assertEqual([each["role"] for each in kept], ["user", "assistant", "tool", "tool"])
        self.assertEqual([each["type"] for each in kept[2]["content"]], ["text", "image_url"])

    def test_extra_goes_last(self) -> None:
        """`extra` overrules what was built, and merges into objects."""
        request = ChatRequest("Hi", temperature=1.0, extra={"temperature": 0.1, "stream_options": {"x": 1}})
        body = sent("somewhere", request, stream=True)
        self.assertEqual((body["temperature"], body["stream_options"]), (0.1, {"include_usage": True, "x": 1}))

    def test_what_json_cannot_say(self) -> None:
        """NaN or a foreign object in `extra` is the caller's fault, said before anything is sent."""
        for value in (math.nan, math.inf, object(), {1, 2}):
            with self.assertRaises(errors.InvalidRequestError):
                sent("somewhere", ChatRequest("Hi", extra={"x": value}))

    def test_key_and_headers(self) -> None:
        """The key travels as a secret in a header only; no key, no header; the account's own headers are added."""
        provider = provider_openai.OpenAICompatProvider("somewhere", "https://e.org/v1")
        wire = provider.encode(ChatRequest("Hi"), "m", Endpoint("https://e.org/v1", Secret("sk-123456"), {"X-Title": "t"}), False)
        headers = dict(wire.headers)
        self.assertEqual(wire.url, "https://e.org/v1/chat/completions")
        self.assertIsInstance(headers["Authorization"], Secret)
        self.assertEqual(headers["Authorization"].reveal(), "Bearer sk-123456")
        self.assertEqual((headers["Content-Type"], headers["X-Title"]), ("application/json", "t"))
        self.assertNotIn("sk-123456", wire.url + wire.body.decode() + repr(wire.headers))
        wire = provider.encode(ChatRequest("Hi"), "m", Endpoint("https://e.org/v1", Secret("")), False)
        self.assertNotIn("Authorization", dict(wire.headers))

    def test_headers_are_made_once(self) -> None:
        """Of one endpoint they are the same object each time; another key or another header name makes others."""
        provider = provider_openai.OpenAICompatProvider("somewhere", "https://e.org/v1")
        endpoint = Endpoint("https://e.org/v1", Secret("sk-123456"))
        wires = [provider.encode(ChatRequest("Hi"), "m", endpoint, stream) for stream in (False, True)]
        self.assertIs(wires[0].headers, wires[1].headers)
        other = provider.encode(ChatRequest("Hi"), "m", dataclasses.replace(endpoint, key=Secret("sk-654321")), False)
        self.assertEqual(dict(other.headers)["Authorization"].reveal(), "Bearer sk-654321")

    def test_azure(self) -> None:
        """Azure takes the key in a header of its own, and its address has no query: that is where keys would stand."""
        provider = provider_openai.OpenAICompatProvider("azure_openai", "https://e.org/openai/v1/")
        wire = provider.encode(ChatRequest("Hi"), "m", Endpoint(provider.base_url, Secret("k")), False)
        self.assertEqual(wire.url, "https://e.org/openai/v1/chat/completions")
        self.assertEqual(dict(wire.headers)["api-key"].reveal(), "k")
        with self.assertRaisesRegex(errors.ConfigError, "has a query"):
            provider_openai.OpenAICompatProvider("azure_openai", "https://e.org/openai?api-version=1")


class ServersTest(unittest.TestCase):
    def test_openai_thinkers(self) -> None:
        """OpenAI's thinking models get max_completion_tokens and no sampling words; its others max_tokens and no effort."""
        for model in ("o4-mini", "gpt-5-mini"):
            body = sent("openai", model=model)
            self.assertEqual((body["max_completion_tokens"], body["reasoning_effort"]), (64, "low"))
            self.assertTrue({"max_tokens", "temperature", "top_p", "stop"}.isdisjoint(body))
            self.assertEqual(dropped("openai", model), {"temperature", "top_p", "stop"})
        body = sent("openai", model="gpt-4o-mini")
        self.assertEqual(body["max_tokens"], 64)
        self.assertNotIn("reasoning_effort", body)
        self.assertEqual(dropped("openai", "gpt-4o-mini"), {"reasoning_effort"})

    def test_what_thinkers_take(self) -> None:
        """A temperature and a top_p of 1 do not change a thinking model, so they are sent; o3-mini takes stop words."""
        plain = ChatRequest("Hi", temperature=1.0, top_p=1)
        body = sent("openai", plain, model="gpt-5-nano")
        self.assertEqual((body["temperature"], body["top_p"]), (1.0, 1))
        provider = provider_openai.OpenAICompatProvider("openai", "https://e.org/v1")
        self.assertEqual(provider.unsupported(plain, "gpt-5-nano"), ())
        self.assertEqual(sent("openai", ChatRequest("Hi", stop="x"), model="o3-mini")["stop"], ["x"])
        self.assertEqual(dropped("openai", "o3-mini"), {"temperature", "top_p"})

    def test_developer_role(self) -> None:
        """Only OpenAI is told about developers; everybody else hears the system."""
        self.assertEqual(sent("openai")["messages"][1]["role"], "developer")
        self.assertEqual(sent("groq")["messages"][1]["role"], "system")

    def test_groq(self) -> None:
        """Groq refuses names on messages, so they stay here."""
        self.assertFalse(any("name" in message for message in sent("groq")["messages"]))
        turn = ChatRequest([Message("assistant", "x", name="bob")])
        self.assertEqual(sent("openai", turn)["messages"][0], {"role": "assistant", "content": "x", "name": "bob"})
        self.assertEqual(sent("groq", turn)["messages"][0], {"role": "assistant", "content": "x"})

    def test_deepseek(self) -> None:
        """DeepSeek knows JSON mode but no schema, so a schema is listed as left out."""
        self.assertIn("response_format", dropped("deepseek", "m"))
        self.assertEqual(
            sent("deepseek", ChatRequest("Hi", response_format="json_object"))["response_format"], {"type": "json_object"}
        )

    def test_openrouter(self) -> None:
        """OpenRouter takes the effort inside an object."""
        body = sent("openrouter")
        self.assertEqual((body["reasoning"], "reasoning_effort" in body), ({"effort": "low"}, False))

    def test_mistral(self) -> None:
        """Mistral gets its own seed word, no stream options, its own media objects, and ids of nine letters and digits."""
        body = sent("mistral", stream=True)
        self.assertEqual((body["random_seed"], "seed" in body, "stream_options" in body), (7, False, False))
        call, result = body["messages"][3], body["messages"][4]
        self.assertRegex(call["tool_calls"][0]["id"], r"\A[a-zA-Z0-9]{9}\Z")
        self.assertEqual(call["tool_calls"][0]["id"], result["tool_call_id"])
        kinds = [piece["type"] for piece in body["messages"][2]["content"]]
        self.assertEqual(kinds[-1], "document_url")
        kept = ChatRequest([Message("assistant", "", [ToolCall("abcDEF123", "f")])])
        self.assertEqual(sent("mistral", kept)["messages"][0]["tool_calls"][0]["id"], "abcDEF123")

    def test_refused_and_listed_agree(self) -> None:
        """What is listed as unsupported, alone and by `encode`, is not in the body; what is not listed is, on every server."""
        words = {"seed": ("seed", "random_seed"), "reasoning_effort": ("reasoning_effort", "reasoning")}
        names = ("openai", "grok", "groq", "cerebras", "mistral", "deepseek", "perplexity", "openrouter", "ollama", "x")
        for name in names:
            for model in ("gpt-5", "grok-3-mini", "grok-4", "sonar", "m"):
                body, missing = sent(name, model=model), dropped(name, model)
                self.assertEqual(set(encoded(name, model=model).dropped), missing)
                for field in records.OPTIONAL:
                    if field != "max_tokens":
                        there = any(word in body for word in words.get(field, (field,)))
                        self.assertEqual(there, field not in missing, (name, model, field))


class ConstructorTest(unittest.TestCase):
    def test_named_constructors(self) -> None:
        """Each named constructor gives the provider under the name that configurations use."""
        make = provider_openai.OpenAICompatProvider
        for made, name, host in (
            (make.openai(), "openai", "api.openai.com"),
            (make.grok(), "grok", "api.x.ai"),
            (make.cerebras(), "cerebras", "api.cerebras.ai"),
            (make.cerebro(), "cerebro", "api.cerebras.ai"),
            (make.preset("groq"), "groq", "api.groq.com"),
        ):
            self.assertEqual((made.name, host in made.base_url, made.dialect), (name, True, "openai"))
        self.assertTrue(make.openai().declares("gpt-4o"))
        self.assertFalse(make.openai().declares("claude-x"))

    def test_declares(self) -> None:
        """Without a list a provider declares nothing; with one, names and patterns, and case counts."""
        make = provider_openai.OpenAICompatProvider
        self.assertIsNone(make("x", "https://e.org").declares("m"))
        self.assertTrue(make("x", "https://e.org", ["llama-*"]).declares("llama-3"))
        self.assertFalse(make("x", "https://e.org", ["llama-*"]).declares("Llama-3"))

    def test_wrong_arguments(self) -> None:
        """A provider without a name or a URL, of another dialect, or not in the catalog is a configuration error."""
        make = provider_openai.OpenAICompatProvider
        for wrong in (
            lambda: make("", "https://e.org"),
            lambda: make("x", ""),
            lambda: make("x", None),
            lambda: make("x", "https://e.org", [1]),
            lambda: make.preset("gemini"),
            lambda: make.preset("nowhere"),
        ):
            self.assertRaises(errors.ConfigError, wrong)


if __name__ == "__main__":
    unittest.main()
