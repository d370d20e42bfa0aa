"""Requests and answers: what people write becomes one immutable form, or an InvalidRequestError."""

from __future__ import annotations

import dataclasses
import pickle
import unittest
from collections.abc import Callable
from typing import Any

from tests import part

responses, content, errors, records, tool = (part(name) for name in ("responses", "content", "errors", "records", "tool"))
ChatRequest, EmbedRequest, Message, ToolCall = records.ChatRequest, records.EmbedRequest, records.Message, records.ToolCall
Part = content.Part

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


class Refusing(unittest.TestCase):
    def refused(self, words: str, make: Callable[..., object], *args: Any, **settings: Any) -> None:
        with self.assertRaises(errors.InvalidRequestError, msg=f"{args} {settings}") as caught:
            make(*args, **settings)
        self.assertIn(words, str(caught.exception))


class Messages(Refusing):
    def test_content_in_every_spelling(self) -> None:
        """Strings, parts, lists of either, OpenAI objects and None are content."""
        self.assertEqual(Message("user", "hi").content, "hi")
        self.assertEqual(Message("assistant", None).content, "")
        self.assertEqual(Message("user", Part.text("hi")).content, (Part.text("hi"),))
        self.assertEqual(Message("user", ["a", {"type": "text", "text": "b"}]).text, "ab")
        self.assertEqual(Message("user", "hi").parts, (Part.text("hi"),))
        self.assertEqual(Message("user", "").parts, ())

    def test_wrong_messages_are_refused(self) -> None:
        """Unknown roles, content that is none and tool calls that are none are named."""
        self.refused("role is one of", Message, "robot", "hi")
        self.refused("not int", Message, "user", 5)
        self.refused("not bytes", Message, "user", b"hi")
        self.refused("not dict", Message, "user", {"type": "text"})
        self.refused("content[1] is not a content part", Message, "user", ["a", 5])
        wrong: list[Any] = [[5], [{}], [{"function": {}}], [{"function": {"name": "f", "arguments": object()}}]]
        for calls in wrong:
            self.refused("tool_calls takes", Message, "assistant", "", calls)
        self.refused("tool_calls takes a list, not int", Message, "assistant", "", 5)

    def test_tool_calls_in_every_spelling(self) -> None:
        """ToolCalls and OpenAI dicts, with arguments as text or as values, become ToolCalls."""
        made = Message("assistant", "", [CALL, ToolCall("c2", "g"), {"function": {"name": "h", "arguments": {"b": 2}}}])
        self.assertEqual(made.tool_calls, (ToolCall("c1", "f", '{"a": 1}'), ToolCall("c2", "g"), ToolCall("", "h", '{"b": 2}')))
        self.assertEqual(Message("assistant", "x", None).tool_calls, ())
        self.assertEqual(Message("assistant", "x", []), Message("assistant", "x"))

    def test_arguments_are_parsed_on_demand(self) -> None:
        """Arguments come as Python values, none as {}, and broken JSON as InvalidRequestError."""
        self.assertEqual(ToolCall("c", "f", '{"a": [1]}').parsed(), {"a": [1]})
        self.assertEqual(ToolCall("c", "f", " ").parsed(), {})
        self.refused("are not JSON", ToolCall("c", "f", '{"a":').parsed)
        self.refused("are not JSON", ToolCall("c", "f", "[" * 100_000).parsed)

    def test_the_openai_form(self) -> None:
        """A message written as a dict and read back is the same; what is not set is left out."""
        made = Message("assistant", ["a", Part.image_url("https://h/x")], [CALL], name="n")
        self.assertEqual(Message.from_dict(made.to_dict()), made)
        answer = Message("tool", "42", tool_call_id="c1")
        self.assertEqual(answer.to_dict(), {"role": "tool", "content": "42", "tool_call_id": "c1"})
        self.assertEqual(Message.from_dict(answer.to_dict()), answer)

    def test_a_servers_own_message_can_be_given_back(self) -> None:
        """Keys that servers put into their turns are accepted; reasoning is kept under either name."""
        made = Message.from_dict({"role": "assistant", "content": None, "refusal": None, "reasoning_content": "hm"})
        self.assertEqual((made.content, made.reasoning), ("", "hm"))
        self.refused("has no 'contents'", Message.from_dict, {"role": "user", "contents": "x"})
        self.refused("needs a role", Message.from_dict, {"content": "x"})

    def test_a_native_turn_is_used_only_where_it_came_from_and_unchanged(self) -> None:
        """`native_for` gives the kept turn to its own dialect and provider, and not once text or calls were edited."""
        native = records.NativeTurn("openai", "groq", '{"k": 1}', "hi", ())
        made = Message("assistant", "hi", native=native)
        self.assertEqual(made.native_for("openai"), {"k": 1})
        self.assertEqual(made.native_for("openai", "groq"), {"k": 1})
        self.assertIsNone(made.native_for("gemini"))
        self.assertIsNone(made.native_for("openai", "grok"))
        self.assertIsNone(Message("assistant", "hi").native_for("openai"))
        self.assertIsNone(dataclasses.replace(made, content="ho").native_for("openai"))
        self.assertIsNone(dataclasses.replace(made, tool_calls=[CALL]).native_for("openai"))


class Requests(Refusing):
    def test_messages_in_every_spelling(self) -> None:
        """One string, one message, one dict and lists of both are messages."""
        expected = (Message("user", "hi"),)
        for given in ("hi", Message("user", "hi"), {"role": "user", "content": "hi"}, [{"role": "user", "content": "hi"}]):
            self.assertEqual(ChatRequest(given).messages, expected)

    def test_wrong_messages_are_refused_with_their_place(self) -> None:
        """No messages, things that are none, and faults inside one are named with their place."""
        self.refused("messages is empty", ChatRequest, [])
        self.refused("messages takes", ChatRequest, 5)
        self.refused("messages takes", ChatRequest, b"hi")
        self.refused("messages[1] is int", ChatRequest, [Message("user", "a"), 5])
        self.refused("messages[0]: a message needs a role", ChatRequest, [{}])

    def test_numbers_are_checked(self) -> None:
        """Numbers of the wrong kind, below their least, infinite or absurd are refused by name."""
        for name in ("temperature", "top_p", "max_tokens", "seed"):
            for value in (True, "1", float("nan"), float("inf"), 10**400, -(10**400)):
                self.refused(name, ChatRequest, "x", **{name: value})
        for name, value in (("temperature", -0.1), ("top_p", -1), ("max_tokens", 0), ("max_tokens", 1.5), ("seed", 1.0)):
            self.refused(name, ChatRequest, "x", **{name: value})
        made = ChatRequest("x", temperature=0, top_p=1, max_tokens=1, seed=-1)
        self.assertEqual((made.temperature, made.top_p, made.max_tokens, made.seed), (0, 1, 1, -1))

    def test_words_are_checked(self) -> None:
        """model, reasoning_effort, stop and require take strings."""
        self.refused("model is a name", ChatRequest, "x", model=5)
        self.refused("reasoning_effort is a word", ChatRequest, "x", reasoning_effort=5)
        self.refused("stop takes", ChatRequest, "x", stop=[5])
        self.refused("stop takes", ChatRequest, "x", stop=5)
        self.refused("require cannot name 'sede'", ChatRequest, "x", require=["seed", "sede"])
        made = ChatRequest("x", stop="END", require="seed", reasoning_effort="low")
        self.assertEqual((made.stop, made.require, made.reasoning_effort), (("END",), ("seed",), "low"))

    def test_tools_and_choice(self) -> None:
        """Tools in every spelling, and a choice by word, by name or by dict; anything else is refused."""
        self.assertEqual(ChatRequest("x", tools=[{"function": {"name": "f"}}]).tools, (tool.Tool("f"),))
        self.assertEqual(ChatRequest("x", tools=None).tools, ())
        self.assertEqual(ChatRequest("x", tools=[]), ChatRequest("x"))
        self.refused("tools[0] is not a tool", ChatRequest, "x", tools=[5])
        for wrong in (5, tool.Tool("f"), {"function": {"name": "f"}}, "f"):
            self.refused("tools takes a list", ChatRequest, "x", tools=wrong)
        for word in ("auto", "none", "required"):
            made = ChatRequest("x", tool_choice=word)
            self.assertEqual((made.tool_choice, made.forced_tool), (word, None))
        self.assertEqual(ChatRequest("x", tool_choice="any").tool_choice, "required", "the other dialects' word for it")
        self.assertEqual(ChatRequest("x", tool_choice="f").forced_tool, "f")
        self.assertEqual(ChatRequest("x", tool_choice={"type": "function", "function": {"name": "f"}}).forced_tool, "f")
        for choice in (5, {"type": "function"}, {"function": {"name": 5}}):
            self.refused("tool_choice is", ChatRequest, "x", tool_choice=choice)

    def test_response_format(self) -> None:
        """Words and dicts of the three types are kept frozen; a schema that is none is refused."""
        self.assertEqual(ChatRequest("x", response_format="json_object").response_format, {"type": "json_object"})
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
        self.assertEqual(ChatRequest("x", response_format=form).response_format, form)
        self.refused("json_schema needs", ChatRequest, "x", response_format="json_schema")
        self.refused("json_schema needs", ChatRequest, "x", response_format={"type": "json_schema", "json_schema": {}})
        self.refused("not 'xml'", ChatRequest, "x", response_format="xml")
        self.refused("not an object of class int", ChatRequest, "x", response_format=5)

    def test_extra_is_a_frozen_copy(self) -> None:
        """`extra` does not follow later changes of what was given; both requests take dicts only."""
        given: dict[str, Any] = {"a": [1]}
        made = ChatRequest("x", extra=given)
        given["a"].append(2)
        self.assertEqual(made.extra, {"a": (1,)})
        self.assertEqual(EmbedRequest("x", extra={"a": 1}).extra, {"a": 1})
        for kind in (ChatRequest, EmbedRequest):
            self.refused("extra is a dict", kind, "x", extra=[1])

    def test_media_are_listed(self) -> None:
        """`media` names the kinds in the messages, text apart."""
        png = Part.image(b"x", "image/png")
        made = ChatRequest(
            [Message("user", ["look", png]), Message("user", "x"), Message("user", [Part.audio(b"x", "audio/wav")])]
        )
        self.assertEqual(made.media, {"image", "audio"})
        self.assertEqual(ChatRequest("x").media, frozenset())

    def test_requests_are_values(self) -> None:
        """A request can be compared, pickled and not changed; one made from its parts again is the same."""
        made = ChatRequest("x", model="m", tools=[{"function": {"name": "f"}}], extra={"a": {"b": 1}}, stop=["a"])
        self.assertEqual(pickle.loads(pickle.dumps(made)), made)
        self.assertEqual(dataclasses.replace(made), made)
        with self.assertRaises(dataclasses.FrozenInstanceError):
            made.model = "n"

    def test_embed_requests(self) -> None:
        """One text or a list of them, not none; dimensions is a whole number."""
        self.assertEqual(EmbedRequest("a").inputs, ("a",))
        self.assertEqual(EmbedRequest(["a", "b"], dimensions=8).inputs, ("a", "b"))
        self.refused("inputs is empty", EmbedRequest, [])
        self.refused("inputs takes", EmbedRequest, [5])
        self.refused("dimensions", EmbedRequest, "a", dimensions=0)
        self.refused("model is a name", EmbedRequest, "a", model=None)


class Answers(unittest.TestCase):
    def response(self, text: str, finish: str | None = "stop", **settings: Any) -> Any:
        choice = responses.Choice(0, Message("assistant", text, [CALL], reasoning="hm"), finish)
        return responses.ChatResponse("id", "m", (choice, responses.Choice(1, Message("assistant", "other"))), **settings)

    def test_shortcuts_are_those_of_the_first_choice(self) -> None:
        """text, tool_calls, reasoning, message and finish_reason come from the first choice."""
        made = self.response("hi")
        self.assertEqual((made.text, made.reasoning, made.finish_reason), ("hi", "hm", "stop"))
        self.assertEqual(made.tool_calls, (ToolCall("c1", "f", '{"a": 1}'),))
        self.assertIs(made.message, made.choices[0].message)

    def test_raw_is_parsed_anew(self) -> None:
        """`raw` is the object, or a list where there were several; changing it changes nothing."""
        made = self.response("hi", source=('{"a": 1}',))
        made.raw["a"] = 2
        self.assertEqual(made.raw, {"a": 1})
        self.assertEqual(self.response("hi", source=("1", "2")).raw, [1, 2])
        self.assertEqual(responses.EmbedResponse(((0.5,),), source=("1",)).raw, 1)
        self.assertEqual(responses.EmbedResponse(((0.5,),), source=("1", "2")).raw, [1, 2])

    def test_json_forgives_fences(self) -> None:
        """`json()` reads the text with or without code fences."""
        for text in ('{"a": 1}', '```json\n{"a": 1}\n```', '```\n{"a": 1}\n```', '```JSON\n{"a": 1}```', '  {"a": 1}\n'):
            self.assertEqual(self.response(text).json(), {"a": 1})

    def test_json_says_who_wrote_none(self) -> None:
        """Text that is no JSON raises MalformedResponseError with the account, and says when it was cut."""
        made = self.response('{"a": ', "length", routing=records.Routing("p", "a", "m"))
        with self.assertRaises(errors.MalformedResponseError) as caught:
            made.json()
        error = caught.exception
        self.assertEqual((error.provider, error.account_id, error.model, error.body), ("p", "a", "m", '{"a": '))
        self.assertIn("cut by max_tokens", str(error))
        with self.assertRaises(errors.MalformedResponseError):
            self.response('{"a": NaN}').json()
        with self.assertRaises(errors.MalformedResponseError) as caught:
            self.response("[" * 100_000).json()
        self.assertNotIn("cut by max_tokens", str(caught.exception))
        self.assertEqual(len(caught.exception.body), 2048)

    def test_chunks_show_the_first_choice(self) -> None:
        """A chunk's text, reasoning and finish_reason are those of choice 0, wherever it stands."""
        delta = responses.Delta("a", "r")
        other = responses.ChunkChoice(1, responses.Delta("b", "s"), "length")
        first = responses.ChunkChoice(0, delta, "stop")
        both = responses.ChatChunk(choices=(other, first))
        self.assertEqual((both.text, both.reasoning, both.finish_reason), ("a", "r", "stop"))
        self.assertEqual(responses.ChatChunk(choices=(first,)).text, "a")
        alone = responses.ChatChunk(choices=(other,))
        self.assertEqual((alone.text, alone.reasoning, alone.finish_reason), ("", "", None))
        self.assertEqual(responses.ChatChunk().text, "")
        self.assertEqual(responses.ChatChunk(source="[1]").raw, [1])
        self.assertIsNone(responses.ChatChunk().raw)

    def test_an_error_without_words_has_a_first_line(self) -> None:
        """An exception without a text is named by its type."""
        self.assertEqual(responses._first_line(ValueError()), "ValueError")
        self.assertEqual(responses._first_line(ValueError("a\nb")), "a")


if __name__ == "__main__":
    unittest.main()
