"""`Router.chat`, answers as classes, what answers show of themselves, and what a wrong call is told."""

from __future__ import annotations

import dataclasses
import enum
import json
import pickle
import tempfile
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict

from tests import PACKAGE, ir, part
from tests.fakes import FakeClock

shapes = part("shapes")


class Colour(enum.Enum):
    """A choice."""

    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Inner:
    """A part of an answer."""

    x: int
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Outer:
    """An answer with every kind of field."""

    name: Annotated[str, "who"]
    inner: Inner
    many: list[Inner]
    pair: tuple[int, str]
    kind: Literal["a", "b"]
    colour: Colour
    maybe: Optional[float] = None  # noqa: UP045  both spellings are understood
    either: int | str = 0
    table: dict[str, int] = dataclasses.field(default_factory=dict)
    words: tuple[str, ...] = ()
    anything: Any = None


class Typed(TypedDict):
    """An answer as a dict."""

    city: str
    degrees: NotRequired[float]


class Model:
    """What a pydantic model looks like from outside."""

    model_fields: Mapping[str, Any] = {}

    def __init__(self, city: str) -> None:
        self.city = city

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

    @classmethod
    def model_validate(cls, data: Any) -> Model:
        return cls(data["city"])


def router(*replies: Any, **settings: Any) -> Any:
    mock = ir.MockProvider("mock", replies)
    config = ir.Config([ir.AccountConfig("mock", "a")], default_model="mock/m", **settings)
    return ir.Router(config, [mock], clock=FakeClock()), mock


class Chat(unittest.TestCase):
    def test_the_short_way_is_the_long_way(self) -> None:
        """The fields of a request by name make the same request, and the same answer comes."""
        fields = {"model": "mock/x", "temperature": 0.5, "max_tokens": 9, "stop": ["E"], "seed": 3, "extra": {"top_k": 1}}
        made, mock = router("hi", "hi")
        with made:
            short = made.chat([{"role": "user", "content": "Hello"}], **fields)
            long = made.chat_completion(ir.ChatRequest("Hello", **fields))
        self.assertEqual(mock.calls[0].body, mock.calls[1].body)
        self.assertEqual((short.text, short.routing), (long.text, long.routing))
        self.assertIs(type(short), ir.ChatResponse)

    def test_a_stream(self) -> None:
        """`stream=True` gives the open stream."""
        made, mock = router("one two")
        with made, made.chat("Hello", stream=True) as stream:
            self.assertIs(type(stream), ir.ChatStream)
            self.assertEqual("".join(chunk.text for chunk in stream), "one two")
        self.assertTrue(mock.calls[0].stream)

    def test_bounds(self) -> None:
        """`timeout` and `max_wait` are those of the call."""
        clock = FakeClock()
        config = ir.Config([ir.AccountConfig("mock", "a", limits={"rpm": 1})], default_model="mock/m")
        with ir.Router(config, [ir.MockProvider()], clock=clock) as made:
            made.chat("one")
            with self.assertRaises(ir.NoCandidatesError):
                made.chat("two")
            made.chat("two", max_wait=70)
            with self.assertRaises(ir.NoCandidatesError):
                made.chat("three", max_wait=70, timeout=5)
        self.assertEqual(len(clock.slept), 1)

    @unittest.skipUnless(PACKAGE == "inferrouter", "the script imports the package by its name")
    def test_the_script_that_type_checkers_accept_runs(self) -> None:
        """All of it does what its types say."""
        from tests import user_script as script

        mock = ir.MockProvider("mock", default=lambda body: '{"city": "Paris", "degrees": 8}')
        with script.build(mock) as made:
            self.assertEqual(len(script.chats(made)), 11)
            self.assertEqual(script.shaped(made), script.Weather("Paris", 8.0))
            self.assertIn("Paris", script.streams(made, True) + script.streams(made, False))
            self.assertEqual(len(script.vectors(made)), 2)
            self.assertTrue(script.looks(made))
            self.assertIn("fast", script.failing(made))
        with tempfile.TemporaryDirectory() as folder, script.from_env({"GROQ_API_KEY": "k"}, Path(folder)) as made:
            self.assertEqual(made._config.max_wait, 60)


class Misused(unittest.TestCase):
    def told(self, call: Any, *words: str) -> None:
        """`call` raises an InvalidRequestError that says all of `words`, and nothing was sent."""
        made, mock = router()
        with made, self.assertRaises(ir.InvalidRequestError) as caught:
            call(made)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertEqual(mock.calls, ())
        self.assertIsNone(caught.exception.__cause__)

    def test_what_to_write_instead(self) -> None:
        """Each wrong call is told the right one, in the words to write."""
        request = ir.ChatRequest("Hi")
        messages = [{"role": "user", "content": "a secret"}]
        for call, *words in (
            (
                lambda r: r.chat_completion(model="m", messages=messages),
                "router.chat(messages, model=...)",
                "ir.ChatRequest(messages, model=...)",
            ),
            (lambda r: r.chat_completion(prompt="x", max_completion_tokens=3), "router.chat(messages, max_tokens=...)"),
            (lambda r: r.chat_completion(request, temperature=1), "ir.ChatRequest(messages, temperature=...)"),
            (lambda r: r.chat_completion({"messages": messages}), "ir.ChatRequest(**request)", "router.chat(**request)"),
            (lambda r: r.chat_completion("a secret"), "router.chat(messages)"),
            (lambda r: r.chat_completion(messages), "router.chat(messages)"),
            (lambda r: r.chat_completion(request, 30), "router.chat_completion(request, timeout=...)", "timeout, max_wait"),
            (lambda r: r.chat_completion(request, time_out=3), "'time_out'", "did you mean 'timeout'"),
            (lambda r: r.chat_completion(), "takes one ir.ChatRequest"),
            (lambda r: r.stream(messages=messages), "router.chat(messages, stream=True)"),
            (lambda r: r.stream("x"), "router.chat(messages, stream=True)"),
            (lambda r: r.embed("x"), "router.embed(ir.EmbedRequest(texts, model=...))"),
            (lambda r: r.embed(model="e", inputs=["x"]), "router.embed(ir.EmbedRequest(inputs, model=...))"),
            (lambda r: r.explain("x"), "router.explain(ir.ChatRequest(messages, model=...))"),
            (lambda r: r.chat("x", modle="m"), "did you mean 'model'"),
            (lambda r: r.chat("x", max_completion_tokens=4), "here it is called max_tokens"),
            (lambda r: r.chat("x", top_k=4), 'extra={"top_k": ...}'),
            (lambda r: r.chat({"messages": messages}), "router.chat(**request)"),
            (lambda r: r.chat(request, model="x"), "dataclasses.replace"),
            (lambda r: r.chat(), "needs messages"),
            (lambda r: r.status(1), "write router.status()"),
        ):
            with self.subTest(words[0]):
                self.told(call, *words)
                with self.assertRaises(ir.InvalidRequestError) as caught:
                    call(router()[0])
                self.assertNotIn("secret", str(caught.exception))

    def test_a_type_error_of_a_callers_part_is_not_taken_for_one(self) -> None:
        """What a policy of the caller's own raises is still said to be that."""

        class Broken:
            def select(self, candidates: Any) -> Any:
                raise TypeError("mine")

        config = ir.Config([ir.AccountConfig("mock", "a")], default_model="mock/m")
        with ir.Router(config, [ir.MockProvider()], policy=Broken()) as made:
            with self.assertRaisesRegex(ir.ConfigError, "Broken.select raised TypeError"):
                made.chat("Hi")


class Shapes(unittest.TestCase):
    def asked(self, shape: Any, text: str) -> Any:
        made, mock = router(text, text)
        with made:
            answer = made.chat("JSON", response_format=shape)
            with made.chat("JSON", response_format=shape, stream=True) as stream:
                list(stream)
            self.form = mock.calls[0].body["response_format"]["json_schema"]
            self.assertEqual(type(stream.response.parsed()), type(answer.parsed()))
        return answer

    def test_a_dataclass(self) -> None:
        """A dataclass is asked for by its schema, strictly where every field is needed, and comes back built."""
        answer = self.asked(Inner, '```json\n{"x": 3.0, "tags": ["a"], "more": 1}\n```')
        self.assertEqual(answer.parsed(), Inner(3, ["a"]))
        self.assertEqual(self.form["name"], "Inner")
        self.assertEqual(self.form["schema"]["additionalProperties"], False)
        self.assertNotIn("strict", self.form, "a field may be left out")

        @dataclasses.dataclass
        class Needed:
            x: int

        self.asked(Needed, '{"x": 1}')
        self.assertEqual(self.form["strict"], True)

    def test_every_kind_of_field(self) -> None:
        """Nested classes, choices, enums, unions, tuples and tables are built."""
        data = {
            "name": "n",
            "inner": {"x": 1},
            "many": [{"x": 2, "tags": ["t"]}],
            "pair": [1, "one"],
            "kind": "b",
            "colour": "blue",
            "maybe": 2,
            "either": "s",
            "table": {"k": 1},
            "words": ["w"],
            "anything": {"deep": [1]},
        }
        made = self.asked(Outer, json.dumps(data)).parsed()
        self.assertEqual(
            made,
            Outer("n", Inner(1), [Inner(2, ["t"])], (1, "one"), "b", Colour.BLUE, 2.0, "s", {"k": 1}, ("w",), {"deep": [1]}),
        )

    def test_what_does_not_fit_says_where(self) -> None:
        """A missing field, a wrong type at any depth, and what is no JSON are a MalformedResponseError with the place."""
        good = {"name": "n", "inner": {"x": 1}, "many": [], "pair": [1, "a"], "kind": "a", "colour": "red"}
        for change, words in (
            ({"inner": {"x": "1"}}, r"Outer\.inner\.x is a whole number, not '1'"),
            ({"inner": {"x": True}}, r"Outer\.inner\.x"),
            ({"many": [{"x": 1}, {}]}, r"Outer\.many\[1\] has no 'x'"),
            ({"pair": [1]}, r"Outer\.pair has 1 items, not 2"),
            ({"kind": "c"}, r"Outer\.kind is one of 'a', 'b', not 'c'"),
            ({"colour": "green"}, r"Outer\.colour is a value of Colour"),
            ({"either": None}, r"Outer\.either fits none"),
            ({"table": []}, r"Outer\.table is an object"),
            ({"words": "w"}, r"Outer\.words is a list"),
            ({"maybe": "x"}, r"Outer\.maybe"),
        ):
            made, _ = router(json.dumps({**good, **change}))
            with made, self.assertRaisesRegex(ir.MalformedResponseError, words) as caught:
                made.chat("JSON", response_format=Outer).parsed()
            self.assertTrue(caught.exception.body)
        made, _ = router("no json", "[1]")
        with made:
            for words in ("not JSON", "an object with the fields of Inner"):
                with self.assertRaisesRegex(ir.MalformedResponseError, words):
                    made.chat("JSON", response_format=Inner).parsed()

    def test_a_typed_dict(self) -> None:
        """A TypedDict comes back as a dict whose needed fields are there."""
        self.assertEqual(self.asked(Typed, '{"city": "Paris"}').parsed(), {"city": "Paris"})
        self.assertEqual(self.form["schema"]["required"], ["city"])
        made, _ = router('{"degrees": 3}')
        with made, self.assertRaisesRegex(ir.MalformedResponseError, "Typed has no 'city'"):
            made.chat("JSON", response_format=Typed).parsed()

    def test_a_pydantic_model(self) -> None:
        """A class with pydantic's methods is asked and built by them; what they raise is told."""
        answer = self.asked(Model, '{"city": "Paris"}')
        self.assertIs(type(answer.parsed()), Model)
        self.assertEqual(self.form["schema"], Model.model_json_schema())
        made, _ = router("{}")
        with made, self.assertRaisesRegex(ir.MalformedResponseError, "does not fit Model"):
            made.chat("JSON", response_format=Model).parsed()

    def test_a_bare_schema(self) -> None:
        """A JSON schema needs no wrapping; the answer comes back as plain JSON."""
        schema = {"title": "City name", "type": "object", "properties": {"city": {"type": "string"}}}
        self.assertEqual(self.asked(schema, '{"city": "P"}').parsed(), {"city": "P"})
        self.assertEqual((self.form["name"], self.form["schema"]), ("City_name", schema))
        self.assertEqual(self.asked({"anyOf": [{"type": "string"}]}, '"x"').parsed(), "x")

    def test_openais_own_forms(self) -> None:
        """OpenAI's dict and words go on working, and `parsed` gives their JSON."""
        made, _ = router('{"a": 1}', '{"a": 1}', '{"a": 1}')
        wrapped = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
        with made:
            for form in ("json_object", {"type": "json_object"}, wrapped):
                self.assertEqual(made.chat("JSON", response_format=form).parsed(), {"a": 1})

    def test_what_is_no_shape(self) -> None:
        """Another class, an unknown word and a field that no schema can say are refused with their name."""

        @dataclasses.dataclass
        class Odd:
            when: complex

        for form, words in (
            (int, "not int"),
            ({"type": "xml"}, "not 'xml'"),
            ({}, "not None"),
            (Odd, "cannot take Odd: .*Odd.when"),
        ):
            with self.assertRaisesRegex(ir.InvalidRequestError, words):
                ir.ChatRequest("Hi", response_format=form)

    def test_the_shape_survives(self) -> None:
        """A request that was replaced, and one that was pickled, still know the class."""
        request = ir.ChatRequest("Hi", response_format=Inner)
        for other in (dataclasses.replace(request, model="x"), pickle.loads(pickle.dumps(request))):
            self.assertIs(other.response_format.shape, Inner)
            self.assertEqual(other.response_format, request.response_format)

    def test_other_dialects_take_the_schema(self) -> None:
        """Gemini and Anthropic get the schema of a class in their own place."""
        endpoint = ir.Endpoint("https://x.example", part("secret").Secret("k"), {})
        for provider, path in (
            (ir.GeminiProvider(), ("generationConfig", "responseJsonSchema")),
            (ir.AnthropicProvider(), ("output_config",)),
        ):
            request = ir.ChatRequest("Hi", response_format=Inner, max_tokens=5)
            body = json.loads(provider.encode(request, "gemini-3.5-flash" if path[1:] else "claude-opus-5", endpoint, False).body)
            for key in path:
                body = body[key]
            self.assertIn('"x": {"type": "integer"}', json.dumps(body))


class Shown(unittest.TestCase):
    def test_to_dict(self) -> None:
        """An answer becomes OpenAI's dict with the routing beside it, which is JSON and can be read back as a message."""
        made, _ = router(ir.MockReply("hi", tool_calls=[ir.ToolCall("c", "f", '{"a": 1}')], usage=ir.Usage(3, 4, 7)))
        with made:
            answer = made.chat("Hello")
        data = json.loads(json.dumps(answer.to_dict()))
        self.assertEqual(data["object"], "chat.completion")
        self.assertEqual(ir.Message.from_dict(data["choices"][0]["message"]).tool_calls, answer.tool_calls)
        self.assertEqual(data["usage"]["total_tokens"], 7)
        self.assertEqual((data["routing"]["account_id"], data["routing"]["free"]), ("a", True))

    def test_vectors_to_dict(self) -> None:
        """Vectors become OpenAI's list."""
        made, _ = router()
        with made:
            answer = made.embed(ir.EmbedRequest(["a", "b"], model="mock/e"))
        data = json.loads(json.dumps(answer.to_dict()))
        self.assertEqual([tuple(row["embedding"]) for row in data["data"]], list(answer.embeddings))
        self.assertRegex(
            repr(answer), r"^<EmbedResponse 2 vectors of 8 numbers from mock/a e: \d+ tokens; \.embeddings \.usage \.routing>$"
        )

    def test_reprs_name_what_one_needs_next(self) -> None:
        """Answers, streams and routers show where they come from and which attributes to read; long text is cut."""
        made, _ = router("x" * 500, "hi", models=[ir.ModelMapping("fast", [ir.ModelRef("mock", "m")])])
        with made:
            shown = repr(made.chat("Hello"))
            for word in (".text", ".parsed()", ".usage", ".routing", "mock/a m", "stop", "..."):
                self.assertIn(word, shown)
            self.assertLess(len(shown), 220)
            with made.chat("Hello", stream=True) as stream:
                self.assertIn("iterate it for chunks with .text", repr(stream))
                list(stream)
            self.assertIn("ended; .response", repr(stream))
            for word in ("fast", "default mock/m", ".chat()", ".status()"):
                self.assertIn(word, repr(made))


if __name__ == "__main__":
    unittest.main()
