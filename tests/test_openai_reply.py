"""What comes back in OpenAI's format: whole, streamed, cut at every byte, and spoiled."""

from __future__ import annotations

import base64
import json
import random
import struct
import unittest
from typing import Any

from tests import LONG, SHARED, part, rounds

records = part("records")
errors = part("errors")
Assembler = part("responses").Assembler
OpenAICompatProvider = part("provider_openai").OpenAICompatProvider
Endpoint = part("provider").Endpoint
Secret = part("secret").Secret
NOWHERE = records.Routing("", "", "")


def answer(message: dict[str, Any] | None = None, finish: Any = "stop", **more: Any) -> dict[str, Any]:
    made = {"role": "assistant", "content": "Hi", **(message or {})}
    return {"id": "c1", "model": "m-1", "choices": [{"index": 0, "message": made, "finish_reason": finish}], **more}


def call(name: str, arguments: Any, call_id: str | None = "call_a", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "function", "function": {"name": name, "arguments": arguments}, **more}
    return made if call_id is None else {"id": call_id, **made}


def chunk(delta: Any = None, finish: Any = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "m-1", "choices": [{"index": index, "delta": delta or {}, "finish_reason": finish}], **more}


def events(*items: Any, done: bool = True) -> bytes:
    texts = [item if isinstance(item, str) else f"data: {json.dumps(item)}\n\n" for item in items]
    return ("".join(texts) + ("data: [DONE]\n\n" if done else "")).encode("utf-8", "surrogatepass")


def decoded(item: Any, name: str = "x") -> Any:
    return OpenAICompatProvider(name, "https://e.org").decode(json.dumps(item).encode(), "m")


def streamed(data: bytes, step: int = 10**9, name: str = "x") -> tuple[Any, Any]:
    """The decoder after `data`, and the whole answer put together."""
    decoder = OpenAICompatProvider(name, "https://e.org").decoder("m")
    assembler = Assembler()
    for begin in range(0, len(data), step):
        for piece in decoder.feed(data[begin : begin + step]):
            assembler.add(piece)
    for piece in decoder.end():
        assembler.add(piece)
    return decoder, assembler.response(NOWHERE, assembler.usage or records.Usage(), decoder.natives(), decoder.complete)


def complete(data: bytes) -> bool:
    """Whether the stream counts as whole; a beginning that is not an event stream yet is an error, which is not whole either."""
    try:
        return bool(streamed(data)[0].complete)
    except errors.MalformedResponseError:
        return False


def calls_of(reply: Any) -> list[tuple[str, str, str]]:
    return [(made.id, made.name, made.arguments) for made in reply.tool_calls]


def usage_of(item: dict[str, Any], name: str = "x") -> tuple[int, int, int]:
    usage = decoded(answer(usage=item), name).usage
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


class UnaryTest(unittest.TestCase):
    def test_plain(self) -> None:
        """A plain answer gives text, finish reason, id, model and its own JSON."""
        reply = decoded(answer(usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}))
        self.assertEqual((reply.text, reply.finish_reason, reply.id, reply.model), ("Hi", "stop", "c1", "m-1"))
        self.assertEqual(reply.raw["choices"][0]["message"]["content"], "Hi")

    def test_tool_calls(self) -> None:
        """Calls come with their arguments as text; a missing type, id or object arguments are put right."""
        reply = decoded(
            answer({"content": None, "tool_calls": [call("f", '{"a":1}'), call("g", {"b": 2}, None), call("h", None, "")]})
        )
        self.assertEqual(reply.text, "")
        self.assertEqual(calls_of(reply)[0], ("call_a", "f", '{"a":1}'))
        self.assertEqual([made.parsed() for made in reply.tool_calls], [{"a": 1}, {"b": 2}, {}])
        ids = [made.id for made in reply.tool_calls]
        self.assertTrue(all(ids) and len(set(ids)) == 3, ids)

    def test_reasoning_apart(self) -> None:
        """Reasoning under any of its names, or in Mistral's list, stays apart from the text."""
        thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Hi"}]
        summary = [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}, {"type": "text", "text": "Hi"}]
        for message in ({"reasoning": "hm"}, {"reasoning_content": "hm"}, {"content": thinking}, {"content": summary}):
            reply = decoded(answer(message))
            self.assertEqual((reply.text, reply.reasoning), ("Hi", "hm"))

    def test_finish_reasons(self) -> None:
        """A finish reason is the server's word in lower case; an empty one is none; calls never change it."""
        for given, want in (("stop", "stop"), ("TOOL_CALLS", "tool_calls"), ("eos", "eos"), ("", None), (None, None), (3, None)):
            self.assertEqual(decoded(answer({"tool_calls": [call("f", "{}")]}, finish=given)).finish_reason, want)

    def test_usage_rules(self) -> None:
        """Completion holds the reasoning even where only the total does, except for spoken input that shows nowhere else."""
        base = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
        self.assertEqual(usage_of(base), (10, 2, 12))
        hidden = {
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "total_tokens": 62,
            "completion_tokens_details": {"reasoning_tokens": 50},
        }
        self.assertEqual(usage_of(hidden, "grok"), (10, 52, 62))
        self.assertEqual(usage_of({**base, "total_tokens": 40}, "gemini"), (10, 30, 40))
        self.assertEqual(usage_of({**base, "total_tokens": 40}, "mistral"), (10, 2, 40))
        self.assertEqual(usage_of({**base, "total_tokens": 40, "prompt_audio_seconds": 7}), (10, 2, 40))
        more = {**base, "completion_tokens_details": {"reasoning_tokens": 61}}
        self.assertEqual(usage_of(more, "openrouter"), (10, 2, 12))
        self.assertEqual(usage_of({"prompt_tokens": 4, "completion_tokens": 5}), (4, 5, 9))

    def test_usage_parts(self) -> None:
        """Cached tokens are found under every server's name, never more than the input, which is told by modality."""
        for item in (
            {"prompt_tokens_details": {"cached_tokens": 4}},
            {"prompt_cache_hit_tokens": 4},
            {"cached_tokens": 4},
            {"num_cached_tokens": 4},
        ):
            self.assertEqual(decoded(answer(usage={"prompt_tokens": 9, **item})).usage.cached_tokens, 4)
        more = {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 64}}
        self.assertEqual(decoded(answer(usage=more)).usage.cached_tokens, 9)
        details = {"audio_tokens": 44, "image_tokens": 0, "text_tokens": 20}
        usage = decoded(answer(usage={"prompt_tokens": 64, "prompt_tokens_details": details})).usage
        self.assertEqual(usage.input_breakdown, {"audio": 44, "text": 20})
        usage = decoded(answer(usage={"prompt_tokens": 64, "prompt_tokens_details": {"audio_tokens": 44}})).usage
        self.assertEqual(usage.input_breakdown, {"audio": 44, "text": 20})

    def test_dishonest_counts(self) -> None:
        """Negative, boolean, textual and missing counts are 0."""
        for value in (-5, True, "7", None, [], float("nan")):
            body = json.dumps(answer(usage={"prompt_tokens": value, "completion_tokens": value})).replace("NaN", "null")
            usage = OpenAICompatProvider("x", "https://e.org").decode(body.encode(), "m").usage
            self.assertEqual((usage.prompt_tokens, usage.completion_tokens), (0, 0), value)

    def test_lone_surrogates(self) -> None:
        """Half a character reads as U+FFFD everywhere, so that answers can be printed."""
        message = {"content": "a\ud800", "reasoning": "b\udc00", "tool_calls": [call("f", {"x": "\ud800"})]}
        data = events(chunk({**message, "tool_calls": [call("f", "\ud800", index=0)]}, "stop"))
        for reply in (decoded(answer(message)), streamed(data)[1]):
            self.assertEqual((reply.text, reply.reasoning), ("a\ufffd", "b\ufffd"))
            self.assertIn("\ufffd", reply.tool_calls[0].arguments)
        listed = decoded(answer({"content": [{"type": "text", "text": "a\ud800"}]}))
        self.assertEqual(listed.text, "a\ufffd")

    def test_leading_whitespace(self) -> None:
        """Blank lines before the JSON, and a byte order mark, do no harm."""
        body = b"\n\n   \n" + json.dumps(answer()).encode()
        self.assertEqual(OpenAICompatProvider("x", "https://e.org").decode(body, "m").text, "Hi")

    def test_choices_keep_their_numbers(self) -> None:
        """Several choices keep the index they came with; without one they are counted."""
        item = answer()
        item["choices"] = [{**item["choices"][0], "index": 1}, {**item["choices"][0], "index": 0}]
        self.assertEqual([choice.index for choice in decoded(item).choices], [1, 0])
        item["choices"] = [{"message": {"content": "a"}}, {"message": {"content": "b"}}]
        self.assertEqual([choice.index for choice in decoded(item).choices], [0, 1])

    def test_custom_tools(self) -> None:
        """A call of OpenAI's custom kind keeps its free text, and goes back in its own words."""
        custom = {"id": "c", "type": "custom", "custom": {"name": "grep", "input": "foo bar"}}
        reply = decoded(answer({"content": None, "tool_calls": [custom]}))
        self.assertEqual(calls_of(reply), [("c", "grep", "foo bar")])
        self.assertEqual(reply.message.native_for("openai", "x")["tool_calls"], [custom])

    def test_no_answer(self) -> None:
        """No choices, no message, a page or cut JSON are malformed, and the body is shown."""
        provider = OpenAICompatProvider("x", "https://e.org")
        for body in (
            b"",
            b"{}",
            b'{"choices":[]}',
            b'{"choices":null}',
            b"<html>",
            b'{"choices":[{}]}',
            b"[]",
            b"3",
            b'{"choices":[',
        ):
            with self.assertRaises(errors.MalformedResponseError) as caught:
                provider.decode(body, "m")
            self.assertEqual(caught.exception.body, body.decode())

    def test_filtered_without_a_message(self) -> None:
        """A choice whose message the filter took away is an empty answer; without a message, no other choice is one."""
        reply = decoded({"choices": [{"index": 0, "finish_reason": "content_filter"}], "usage": {"prompt_tokens": 4}})
        self.assertEqual((reply.text, reply.finish_reason, reply.usage.prompt_tokens), ("", "content_filter", 4))
        for choice in ({"finish_reason": "stop"}, {"finish_reason": "content_filter", "message": "x"}):
            with self.assertRaises(errors.MalformedResponseError):
                decoded({"choices": [choice]})

    def test_error_inside(self) -> None:
        """An error object inside a 200, at the top or in a choice, is the error that it names."""
        with self.assertRaises(errors.InvalidRequestError):
            decoded({"error": {"code": "content_filter", "status": 400, "message": "filtered"}})
        broken = answer()
        broken["choices"][0]["error"] = {"code": 502, "message": "upstream"}
        with self.assertRaises(errors.ProviderUnavailableError):
            decoded(broken)
        with self.assertRaises(errors.RateLimitedError):
            decoded({"object": "error", "message": "slow", "type": "x", "code": 429})


class StreamTest(unittest.TestCase):
    def test_text_and_usage(self) -> None:
        """Text is put together, usage of the trailing chunk counts, and [DONE] ends it."""
        data = events(
            ": PROCESSING\n\n",
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "Hel"}),
            chunk({"content": "lo"}),
            chunk({}, "stop"),
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}},
        )
        for step in (10**9, 1, 7):
            decoder, reply = streamed(data, step)
            self.assertEqual((reply.text, reply.finish_reason, reply.usage.total_tokens), ("Hello", "stop", 3))
            self.assertTrue(decoder.complete and decoder.done)

    def test_usage_is_replaced(self) -> None:
        """Usage in many chunks, or twice as Groq sends it, is not added up."""
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        data = events(chunk({"content": "a"}, usage=usage), chunk({}, "stop", usage=usage, x_groq={"usage": usage}))
        self.assertEqual(streamed(data)[1].usage.total_tokens, 3)
        data = events(chunk({"content": "a"}), chunk({}, "stop", x_groq={"usage": usage}))
        self.assertEqual(streamed(data)[1].usage.total_tokens, 3)

    def test_fragments(self) -> None:
        """Fragments of calls meet by index, or by id where there is no index, however they are mixed."""
        interleaved = events(
            chunk({"tool_calls": [call("f", "", "a", index=0), call("g", "", "b", index=1)]}),
            chunk({"tool_calls": [{"index": 1, "function": {"arguments": '{"y":'}}]}),
            chunk(
                {
                    "tool_calls": [
                        {"index": 0, "function": {"arguments": '{"x":1}'}},
                        {"index": 1, "function": {"arguments": "2}"}},
                    ]
                }
            ),
            chunk({}, "tool_calls"),
        )
        without_index = events(
            chunk({"tool_calls": [call("f", '{"x":1}', "a"), call("g", '{"y":2}', "b")]}), chunk({}, "tool_calls")
        )
        pieces_without_index = events(
            chunk({"tool_calls": [call("f", '{"x":', "a")]}),
            chunk({"tool_calls": [{"function": {"arguments": "1}"}}]}),
            chunk({"tool_calls": [call("g", '{"y":2}', "b")]}, "tool_calls"),
        )
        same_index = events(
            chunk({"tool_calls": [call("f", '{"x":1}', "a", index=0)]}),
            chunk({"tool_calls": [call("g", '{"y":2}', "b", index=0)]}, "tool_calls"),
        )
        for data in (interleaved, without_index, pieces_without_index, same_index):
            self.assertEqual(calls_of(streamed(data)[1]), [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')])

    def test_calls_without_ids(self) -> None:
        """Calls without an id get one each, also where all claim index 0; no arguments mean {}."""
        data = events(
            chunk({"tool_calls": [call("f", '{"x":1}', "", index=0)]}),
            chunk({"tool_calls": [call("g", '{"y":2}', "", index=0), call("h", "", None, index=1)]}, "tool_calls"),
        )
        reply = streamed(data)[1]
        self.assertEqual(
            [(made.name, made.arguments) for made in reply.tool_calls], [("f", '{"x":1}'), ("g", '{"y":2}'), ("h", "{}")]
        )
        ids = [made.id for made in reply.tool_calls]
        self.assertTrue(all(ids) and len(set(ids)) == 3, ids)

    def test_repeated_ids_and_names(self) -> None:
        """A server that repeats id and name on every piece still makes one call."""
        data = events(
            chunk({"tool_calls": [call("f", '{"x":', "a", index=0)]}),
            chunk({"tool_calls": [call("f", "1}", "a", index=0)]}, "tool_calls"),
        )
        self.assertEqual(calls_of(streamed(data)[1]), [("a", "f", '{"x":1}')])

    def test_several_choices(self) -> None:
        """Choices interleave, and the stream is complete only when each has finished."""
        provider = OpenAICompatProvider("x", "https://e.org")
        decoder = provider.decoder("m")
        decoder.feed(events(chunk({"content": "a"}), chunk({"content": "b"}, index=1), chunk({}, "stop"), done=False))
        self.assertFalse(decoder.complete)
        decoder.feed(events(chunk({"content": "c"}, "stop", index=1), done=False))
        self.assertTrue(decoder.complete)

    def test_without_done(self) -> None:
        """A finish reason completes a stream that never says [DONE]; neither of both is not a whole answer."""
        self.assertTrue(streamed(events(chunk({"content": "a"}), chunk({}, "stop"), done=False))[0].complete)
        self.assertFalse(streamed(events(chunk({"content": "a"}), done=False))[0].complete)

    def test_whole_answer_to_a_stream(self) -> None:
        """A server that ignores `stream` is understood."""
        decoder, reply = streamed(json.dumps(answer()).encode())
        self.assertEqual((decoder.complete, reply.text, reply.finish_reason), (True, "Hi", "stop"))

    def test_cumulative_message_is_ignored(self) -> None:
        """A whole message beside the deltas does not double the text."""
        data = events(
            {"choices": [{"index": 0, "delta": {"content": "a"}, "message": {"content": "a"}}]},
            {"choices": [{"index": 0, "delta": {"content": "b"}, "message": {"content": "ab"}, "finish_reason": "stop"}]},
        )
        self.assertEqual(streamed(data)[1].text, "ab")

    def test_errors_inside(self) -> None:
        """An error event, or an error beside choices and usage, is raised as what it means."""
        beside = {**chunk({"content": ""}), "error": {"code": 429, "message": "x"}, "usage": {"prompt_tokens": 1}}
        with self.assertRaises(errors.RateLimitedError):
            streamed(events(beside))
        failed = 'event: error\ndata: {"error":{"message":"x","code":"tool_use_failed","status_code":400}}\n\n'
        with self.assertRaises(errors.InvalidRequestError):
            streamed(events(failed, done=False))

    def test_error_after_the_finish_reason(self) -> None:
        """An error that follows the finish reason undoes it, in the same bytes or later."""
        data = events(chunk({"content": "a"}, "length"), {**chunk(), "error": {"code": 400, "message": "x"}})
        for step in (1, len(data)):
            with self.assertRaises(errors.InvalidRequestError):
                streamed(data, step)
        decoder = OpenAICompatProvider("x", "https://e.org").decoder("m")
        self.assertEqual([piece.choices[0].finish_reason for piece in decoder.feed(data)], ["length"])
        self.assertFalse(decoder.complete)

    def test_flat_error_inside(self) -> None:
        """A flat error object among the chunks is an error even where [DONE] follows."""
        with self.assertRaises(errors.InvalidRequestError):
            streamed(events(chunk({"role": "assistant"}), {"object": "error", "message": "x", "code": 400}))

    def test_reasoning(self) -> None:
        """Reasoning under any of its names streams apart from the text."""
        for word in ("reasoning", "reasoning_content"):
            reply = streamed(events(chunk({word: "h"}), chunk({word: "m", "content": ""}), chunk({"content": "Hi"}, "stop")))[1]
            self.assertEqual((reply.text, reply.reasoning), ("Hi", "hm"))
            self.assertIsNone(reply.message.native)

    def test_a_stream_of_nothing(self) -> None:
        """[DONE] alone is not an answer."""
        with self.assertRaises(errors.MalformedResponseError):
            streamed(events())

    def test_cut_at_every_byte(self) -> None:
        """Before the terminal marker no cut is ever complete; from its last byte on every one is."""
        body = events(chunk({"content": "é"}), chunk({"tool_calls": [call("f", '{"a":1}', index=0)]}), done=False)
        last = events(chunk({}, "tool_calls"), done=False)
        for end in range(len(body) + 1):
            self.assertFalse(complete(body[:end]), end)
        for end in range(len(last) - 2):
            self.assertFalse(complete(body + last[:end]), end)
        rest = events({"choices": [], "usage": {"prompt_tokens": 1}})
        for end in range(len(rest) + 1):
            self.assertTrue(complete(body + last + rest[:end]), end)


class GivenBackTest(unittest.TestCase):
    """What a server wants back is given back to it, and to nobody else."""

    def back(self, message: Any, name: str) -> Any:
        provider = OpenAICompatProvider(name, "https://e.org")
        request = records.ChatRequest([records.Message("user", "x"), message, records.Message("user", "y")])
        wire = provider.encode(request, "m", Endpoint("https://e.org", Secret("k")), False)
        return json.loads(wire.body)["messages"][1]

    def test_unary(self) -> None:
        """Reasoning details and signatures of a whole answer go back on the same turn, to the same server only."""
        details = [{"type": "reasoning.encrypted", "data": "xyz", "index": 0}]
        signed = call("f", "{}", "", extra_content={"google": {"thought_signature": "sig"}})
        reply = decoded(answer({"content": None, "tool_calls": [signed], "reasoning_details": details}), "openrouter")
        back = self.back(reply.message, "openrouter")
        self.assertEqual(back["reasoning_details"], details)
        self.assertEqual(back["tool_calls"][0]["extra_content"], {"google": {"thought_signature": "sig"}})
        self.assertEqual(back["tool_calls"][0]["id"], reply.tool_calls[0].id)
        self.assertNotIn("reasoning_details", self.back(reply.message, "openai"))

    def test_signature_alone(self) -> None:
        """A signature on a call is enough to keep the turn; without one nothing is kept."""
        signed = decoded(answer({"tool_calls": [call("f", "{}", extra_content={"g": 1})]}))
        self.assertEqual(self.back(signed.message, "x")["tool_calls"][0]["extra_content"], {"g": 1})
        self.assertIsNone(decoded(answer({"tool_calls": [call("f", "{}")]})).message.native)

    def test_streamed(self) -> None:
        """Pieces of one reasoning block are joined, and the turn of a stream goes back like that of a whole answer."""
        data = events(
            chunk({"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a", "index": 0}]}),
            chunk(
                {"reasoning": "b", "reasoning_details": [{"type": "reasoning.text", "text": "b", "index": 0, "signature": "s"}]}
            ),
            chunk({"tool_calls": [call("f", "{}", index=0, extra_content={"g": 1})]}),
            chunk({"content": "Hi"}, "stop"),
        )
        reply = streamed(data, name="openrouter")[1]
        back = self.back(reply.message, "openrouter")
        self.assertEqual(back["reasoning_details"], [{"type": "reasoning.text", "text": "ab", "index": 0, "signature": "s"}])
        self.assertEqual((back["content"], back["tool_calls"][0]["extra_content"]), ("Hi", {"g": 1}))

    def test_reasoning_content_only_with_calls(self) -> None:
        """DeepSeek's reasoning goes back only on turns that call tools."""
        plain = decoded(answer({"reasoning_content": "hm"}), "deepseek")
        calling = decoded(answer({"reasoning_content": "hm", "tool_calls": [call("f", "{}")]}), "deepseek")
        self.assertNotIn("reasoning_content", self.back(plain.message, "deepseek"))
        self.assertEqual(self.back(calling.message, "deepseek")["reasoning_content"], "hm")

    def test_reasoning_content_of_a_stream(self) -> None:
        """The same holds for a stream."""
        calling = events(chunk({"reasoning_content": "h"}), chunk({"tool_calls": [call("f", "{}", index=0)]}, "tool_calls"))
        self.assertEqual(self.back(streamed(calling, name="deepseek")[1].message, "deepseek")["reasoning_content"], "h")
        other = events(chunk({"reasoning": "h"}), chunk({"tool_calls": [call("f", "{}", index=0)]}, "tool_calls"))
        self.assertNotIn("reasoning_content", self.back(streamed(other, name="deepseek")[1].message, "deepseek"))

    def test_mistral_thinking(self) -> None:
        """Mistral's thinking list goes back as a list, also after a stream."""
        thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
        data = events(chunk({"content": thinking}), chunk({"content": "Hi"}, "stop"))
        content = self.back(streamed(data, name="mistral")[1].message, "mistral")["content"]
        self.assertEqual(content, [*thinking, {"type": "text", "text": "Hi"}])
        data = events(chunk({"content": [{"type": "text", "text": "Hi"}]}, "stop"))
        content = self.back(streamed(data, name="mistral")[1].message, "mistral")["content"]
        self.assertEqual(content, [{"type": "text", "text": "Hi"}])


class VectorsTest(unittest.TestCase):
    def read(self, item: Any) -> Any:
        return OpenAICompatProvider("x", "https://e.org").decode_embed(json.dumps(item).encode(), "m")

    def test_floats_and_base64(self) -> None:
        """Lists of numbers and base64 floats are read alike, in the order of their index."""
        packed = base64.b64encode(struct.pack("<2f", 0.5, -2.0)).decode()
        data = [{"index": 1, "embedding": packed}, {"index": 0, "embedding": [1, 0.25]}]
        reply = self.read({"data": data, "model": "e", "usage": {"total_tokens": 3}})
        self.assertEqual(reply.embeddings, ((1.0, 0.25), (0.5, -2.0)))
        self.assertEqual((reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens), (3, 0, 3))

    def test_signed_bytes(self) -> None:
        """One server's base64 holds signed bytes."""
        body = json.dumps({"data": [{"embedding": base64.b64encode(bytes([1, 255, 128])).decode()}]}).encode()
        reply = OpenAICompatProvider("perplexity", "https://e.org").decode_embed(body, "m")
        self.assertEqual(reply.embeddings, ((1.0, -1.0, -128.0),))

    def test_no_vectors(self) -> None:
        """Anything but vectors is malformed."""
        nan = base64.b64encode(struct.pack("<f", float("nan"))).decode()
        for embedding in (None, [], ["a"], [True], {}, "", "abc", "é", nan, [10**400], [1e400]):
            with self.assertRaises(errors.MalformedResponseError, msg=embedding):
                self.read({"data": [{"embedding": embedding}]})
        for item in ({}, [], {"data": []}, {"data": [3]}, {"data": "x"}):
            self.assertRaises(errors.MalformedResponseError, self.read, item)

    def test_request(self) -> None:
        """Vectors are asked for as floats, except from servers that refuse the question."""
        for name, want in (
            ("openai", {"model": "m", "input": ["a"], "encoding_format": "float", "dimensions": 8}),
            ("voyage", {"model": "m", "input": ["a"], "output_dimension": 8}),
            ("perplexity", {"model": "m", "input": ["a"], "dimensions": 8}),
        ):
            provider = OpenAICompatProvider(name, "https://e.org/v1")
            wire = provider.encode_embed(records.EmbedRequest("a", dimensions=8), "m", Endpoint("https://e.org/v1", Secret("k")))
            self.assertEqual((json.loads(wire.body), wire.url), (want, "https://e.org/v1/embeddings"))


class SpoiledTest(unittest.TestCase):
    def test_only_our_errors_leave(self) -> None:
        """Whatever JSON a server puts in whatever place, an answer or an error of this library comes out."""
        rng = random.Random(11)
        wrong = [None, True, 7, -1.5, "text", "", [], {}, [[]], [None], {"a": {}}, 10**30, "\ud800", [{"type": "text"}]]
        full = answer(
            {
                "content": [{"type": "thinking", "thinking": [{"text": "x"}]}, {"type": "text", "text": "y"}],
                "tool_calls": [call("f", "{}", extra_content={"a": 1})],
                "reasoning_details": [{"type": "t", "text": "a", "index": 0}],
                "reasoning_content": "r",
            },
            usage={"prompt_tokens": 1, "total_tokens": 2, "prompt_tokens_details": {"audio_tokens": 3}},
        )
        parts = [
            chunk({"content": "a", "reasoning": "b", "reasoning_details": [{"type": "t", "text": "a", "index": 0}]}),
            chunk({"tool_calls": [call("f", '{"a":', index=0, extra_content={"a": 1})], "reasoning_content": "x"}),
            chunk({"tool_calls": [call("f", "1}", index=0)]}, "stop", x_groq={"usage": {"prompt_tokens": 1}}),
        ]

        def spoil(value: Any) -> Any:
            if rng.random() < 0.12:
                return rng.choice(wrong)
            if isinstance(value, dict):
                return {key: spoil(item) for key, item in value.items() if rng.random() > 0.03}
            return [spoil(item) for item in value] if isinstance(value, list) else value

        for _ in range(rounds(1500, 500)):
            try:
                self.sound(decoded(spoil(full)))
            except errors.ProviderError:
                pass
            try:
                self.sound(streamed(events(*map(spoil, parts)))[1])
            except errors.ProviderError:
                pass
            try:
                VectorsTest().read(spoil({"data": [{"index": 0, "embedding": [1.0, 2]}], "usage": {"total_tokens": 3}}))
            except errors.ProviderError:
                pass

    def sound(self, reply: Any) -> None:
        """The answer holds what its types say and can be handed back."""
        self.assertIsInstance(reply.text + reply.reasoning + reply.id + reply.model, str)
        for made in reply.tool_calls:
            self.assertTrue(made.id and isinstance(made.name + made.arguments, str))
        self.assertGreaterEqual(min(reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens), 0)
        request = records.ChatRequest([records.Message("user", "x"), reply.message])
        OpenAICompatProvider("x", "https://e.org").encode(request, "m", Endpoint("https://e.org", Secret("k")), True)

    def test_deep_nesting(self) -> None:
        """Absurd nesting is malformed, not a crash."""
        deep = "[" * 100_000 + "]" * 100_000
        provider = OpenAICompatProvider("x", "https://e.org")
        self.assertRaises(errors.MalformedResponseError, provider.decode, f'{{"choices":{deep}}}'.encode(), "m")
        self.assertRaises(errors.MalformedResponseError, streamed, f'data: {{"choices":{deep}}}\n\n'.encode())


@unittest.skipIf(SHARED is None, "the recordings are not here")
class RecordedTest(unittest.TestCase):
    def test_recorded(self) -> None:
        """Every recorded answer comes out as expected, streams at any cut."""
        assert SHARED is not None
        for number, line in enumerate((SHARED / "recorded" / "dev.jsonl").read_text("utf-8").splitlines()):
            row = json.loads(line)
            if row["dialect"] == "openai" and row["kind"] == "chat" and row["status"] == 200:
                with self.subTest(row["id"]):
                    self.check(row, (997, 1 if LONG or number % 4 == 0 else 7))

    def check(self, row: dict[str, Any], steps: tuple[int, ...]) -> None:
        name = {"xai": "grok"}.get(row["provider"], row["provider"])
        data = row["body"].encode("utf-8", "surrogatepass")
        if row["stream"]:
            replies = [streamed(data, step, name)[1] for step in steps]
        else:
            replies = [OpenAICompatProvider(name, "https://e.org").decode(data, "m")]
        want = row["expect"]
        for reply in replies:
            self.assertEqual(reply.text, want["text"])
            self.assertEqual([[made.name, made.parsed()] for made in reply.tool_calls], want["tool_calls"])
            self.assertEqual(reply.finish_reason, want["finish"])
            if want["usage"]:
                usage = reply.usage
                self.assertEqual([usage.prompt_tokens, usage.completion_tokens, usage.total_tokens], want["usage"])


if __name__ == "__main__":
    unittest.main()
