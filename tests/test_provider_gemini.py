"""Gemini's native format: requests by its documented schema, answers, streams, usage, embeddings."""

from __future__ import annotations

import json
import unittest
from typing import Any

from tests import dialects, part

errors = part("errors")
records = part("records")
Part = part("content").Part
Tool = part("tool").Tool
Message, ChatRequest, ToolCall = records.Message, records.ChatRequest, records.ToolCall
GEMINI = part("provider_gemini").GeminiProvider()
FLASH = "gemini-2.5-flash"
SKIP = "skip_thought_signature_validator"

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", "Tells the weather.", SCHEMA)

FULL = ChatRequest(
    [
        Message("system", "Be brief."),
        Message("user", [Part.text("What is this?"), Part.image(b"png", "image/png"), Part.document(b"%PDF-", filename="a")]),
        Message("assistant", "A picture."),
        Message("developer", "Be kind."),
        Message(
            "user", [Part.audio(b"wav", "audio/wav"), Part.video(b"mp4", "video/mp4"), Part.image_url("https://x.test/a.png")]
        ),
    ],
    temperature=0.5,
    max_tokens=100,
    top_p=0.9,
    stop=["END"],
    seed=7,
    tools=[WEATHER],
    tool_choice="weather",
    reasoning_effort="low",
    extra={"generationConfig": {"topK": 5}, "safetySettings": []},
)
# https://ai.google.dev/api/generate-content, field by field.
FULL_BODY: dict[str, Any] = {
    "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
    "contents": [
        {
            "role": "user",
            "parts": [
                {"text": "What is this?"},
                {"inlineData": {"mimeType": "image/png", "data": "cG5n"}},
                {"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}},
            ],
        },
        {"role": "model", "parts": [{"text": "A picture."}]},
        {
            "role": "user",
            "parts": [
                {"inlineData": {"mimeType": "audio/wav", "data": "d2F2"}},
                {"inlineData": {"mimeType": "video/mp4", "data": "bXA0"}},
                {"fileData": {"fileUri": "https://x.test/a.png", "mimeType": "image/png"}},
            ],
        },
    ],
    "tools": [
        {
            "functionDeclarations": [
                {"name": "weather", "description": "Tells the weather.", "parametersJsonSchema": SCHEMA},
            ]
        }
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
    "generationConfig": {
        "temperature": 0.5,
        "maxOutputTokens": 100,
        "topP": 0.9,
        "stopSequences": ["END"],
        "seed": 7,
        "topK": 5,
        "thinkingConfig": {"thinkingBudget": 1024, "includeThoughts": True},
    },
    "safetySettings": [],
}


def answer(*parts: Any, finish: str | None = "STOP", **more: Any) -> dict[str, Any]:
    """A generateContent answer with one candidate."""
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "responseId": "r1", "modelVersion": "gemini-x", **more}


def decoded(item: Any) -> Any:
    """`item` as GEMINI decodes it."""
    return GEMINI.decode(json.dumps(item).encode(), "asked-model")


def conversation(*messages: Any) -> Any:
    """The contents GEMINI sends for `messages`."""
    return dialects.sent(GEMINI, ChatRequest(list(messages)), FLASH)["contents"]


class Requests(unittest.TestCase):
    def test_every_field(self) -> None:
        """Everything a request can carry lands in the documented field."""
        self.assertEqual(dialects.sent(GEMINI, FULL, FLASH), FULL_BODY)
        self.assertEqual(GEMINI.unsupported(FULL, FLASH), ())

    def test_url_and_headers(self) -> None:
        """The key is in x-goog-api-key alone, a stream is asked for as events, and a model's name is escaped."""
        request = ChatRequest("hi")
        unary = GEMINI.encode(request, FLASH, dialects.endpoint("https://h/v1beta", x="y"), False)
        self.assertEqual(unary.url, "https://h/v1beta/models/gemini-2.5-flash:generateContent")
        headers = dict(unary.headers)
        self.assertEqual(headers, {"Content-Type": "application/json", "x": "y", "x-goog-api-key": "key-123456"})
        stream = GEMINI.encode(request, "models/a?b/c", dialects.endpoint("https://h", ""), True)
        self.assertEqual(stream.url, "https://h/models/a%3Fb/c:streamGenerateContent?alt=sse")
        for model in ("../../admin", "a/../b", ".", "a//b", "/a"):
            with self.assertRaises(errors.InvalidRequestError):
                GEMINI.encode(request, model, dialects.endpoint("https://h", ""), False)
        self.assertNotIn("x-goog-api-key", dict(stream.headers))

    def test_json(self) -> None:
        """JSON answers are asked for by MIME type, with the schema where there is one."""
        plain = dialects.sent(GEMINI, ChatRequest("hi", response_format="json_object"), FLASH)
        self.assertEqual(plain["generationConfig"], {"responseMimeType": "application/json"})
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
        body = dialects.sent(GEMINI, ChatRequest("hi", response_format=form), FLASH)
        self.assertEqual(body["generationConfig"], {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA})
        self.assertNotIn("generationConfig", dialects.sent(GEMINI, ChatRequest("hi", response_format="text"), FLASH))

    def test_tool_choice(self) -> None:
        """auto, none and required become the three modes."""
        for choice, mode in (("auto", "AUTO"), ("none", "NONE"), ("required", "ANY")):
            body = dialects.sent(GEMINI, ChatRequest("hi", tools=[WEATHER], tool_choice=choice), FLASH)
            self.assertEqual(body["toolConfig"], {"functionCallingConfig": {"mode": mode}})

    def test_thinking(self) -> None:
        """An effort becomes a budget before Gemini 3 and a level since, each within what the model knows."""
        cases = (
            ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
            ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
            ("gemini-2.5-pro", "high", {"thinkingBudget": 24576, "includeThoughts": True}),
            ("gemini-3-flash-preview", "minimal", {"thinkingLevel": "minimal", "includeThoughts": True}),
            ("gemini-3-flash-preview", "medium", {"thinkingLevel": "medium", "includeThoughts": True}),
            ("gemini-3-pro-preview", "minimal", {"thinkingLevel": "low", "includeThoughts": True}),
            ("gemini-3-pro-preview", "medium", {"thinkingLevel": "high", "includeThoughts": True}),
            ("gemini-3.1-pro-preview", "medium", {"thinkingLevel": "medium", "includeThoughts": True}),
            ("models/gemini-3.5-flash", "xhigh", {"thinkingLevel": "high", "includeThoughts": True}),
            ("gemini-flash-latest", "low", {"thinkingBudget": 1024, "includeThoughts": True}),
        )
        for model, effort, config in cases:
            with self.subTest(model=model, effort=effort):
                body = dialects.sent(GEMINI, ChatRequest("hi", reasoning_effort=effort), model)
                self.assertEqual(body["generationConfig"], {"thinkingConfig": config})

    def test_what_cannot_be_said_is_named_and_left_out(self) -> None:
        """A parameter a model cannot take is listed as unsupported, before and after encoding, and is not in the body."""
        cases: tuple[tuple[str, dict[str, Any], str, str], ...] = (
            ("gemini-2.0-flash", {"reasoning_effort": "low"}, "reasoning_effort", "generationConfig"),
            (FLASH, {"reasoning_effort": "absurd"}, "reasoning_effort", "generationConfig"),
            ("gemma-3-27b-it", {"tools": [WEATHER]}, "tools", "tools"),
            ("gemma-3-27b-it", {"response_format": "json_object"}, "response_format", "generationConfig"),
            (FLASH, {"tool_choice": "required"}, "tool_choice", "toolConfig"),
            (FLASH, {"tools": [WEATHER], "response_format": "json_object"}, "response_format", "generationConfig"),
        )
        for model, given, dropped, key in cases:
            with self.subTest(model=model, dropped=dropped):
                request = ChatRequest("hi", **given)
                self.assertEqual(GEMINI.unsupported(request, model), (dropped,))
                self.assertEqual(GEMINI.encode(request, model, dialects.endpoint(), False).dropped, (dropped,))
                self.assertNotIn(key, dialects.sent(GEMINI, request, model))
        self.assertEqual(GEMINI.unsupported(ChatRequest("hi", tools=[WEATHER]), "gemma-4-31b-it"), ())
        self.assertEqual(GEMINI.unsupported(ChatRequest("hi", tools=[WEATHER], response_format="text"), FLASH), ())
        both = ChatRequest("hi", tools=[WEATHER], response_format="json_object")
        self.assertEqual(GEMINI.unsupported(both, "gemini-3-flash-preview"), ())
        self.assertEqual(GEMINI.encode(both, "gemini-3-flash-preview", dialects.endpoint(), False).dropped, ())

    def test_system_without_a_place(self) -> None:
        """Gemma, and a request of nothing else, get the system's words in the first user turn."""
        request = ChatRequest([Message("system", "S"), Message("user", "U")])
        gemma = dialects.sent(GEMINI, request, "gemma-3-27b-it")
        self.assertEqual(gemma, {"contents": [{"role": "user", "parts": [{"text": "S"}, {"text": "U"}]}]})
        alone = dialects.sent(GEMINI, ChatRequest([Message("system", "S")]), FLASH)
        self.assertEqual(alone, {"contents": [{"role": "user", "parts": [{"text": "S"}]}]})

    def test_media_in_a_system_message(self) -> None:
        """A picture in a system message is refused before it is sent."""
        request = ChatRequest([Message("system", [Part.image(b"x", "image/png")]), Message("user", "hi")])
        with self.assertRaises(errors.InvalidRequestError):
            dialects.sent(GEMINI, request, FLASH)

    def test_nan_in_extra(self) -> None:
        """What JSON cannot say is an invalid request."""
        with self.assertRaises(errors.InvalidRequestError):
            dialects.sent(GEMINI, ChatRequest("hi", extra={"x": float("nan")}), FLASH)

    def test_declares(self) -> None:
        """By default Google's names are declared and OpenAI's embeddings are not; patterns and none at all work."""
        for name in (FLASH, "gemma-3-27b-it", "models/gemini-x", "text-embedding-004", "gemini-embedding-001"):
            self.assertIs(GEMINI.declares(name), True)
        for name in ("gpt-4o", "text-embedding-3-small", "GEMINI-x"):
            self.assertIs(GEMINI.declares(name), False)
        make = part("provider_gemini").GeminiProvider
        self.assertIs(make(models=["my-*"]).declares("my-model"), True)
        self.assertIsNone(make(models=()).declares(FLASH))


class Tools(unittest.TestCase):
    def test_results_of_another_providers_calls(self) -> None:
        """Calls another provider made go out by name, their results in one user turn, objects as they are."""
        calls = (ToolCall("call_1", "weather", '{"city":"Bern"}'), ToolCall("call_2", "time", ""))
        contents = conversation(
            Message("user", "hi"),
            Message("assistant", "", calls),
            Message("tool", '{"sun": true}', tool_call_id="call_1"),
            Message("tool", "noon", tool_call_id="call_2"),
            Message("user", "so?"),
        )
        self.assertEqual(
            contents[1:],
            [
                {
                    "role": "model",
                    "parts": [
                        {"functionCall": {"name": "weather", "args": {"city": "Bern"}}},
                        {"functionCall": {"name": "time", "args": {}}},
                    ],
                },
                {
                    "role": "user",
                    "parts": [
                        {"functionResponse": {"name": "weather", "response": {"sun": True}}},
                        {"functionResponse": {"name": "time", "response": {"result": "noon"}}},
                        {"text": "so?"},
                    ],
                },
            ],
        )

    def test_a_result_without_its_call(self) -> None:
        """A tool message that answers nothing is refused, unless it brings the function's name."""
        with self.assertRaises(errors.InvalidRequestError):
            conversation(Message("user", "hi"), Message("tool", "x", tool_call_id="nowhere"))
        contents = conversation(Message("user", "hi"), Message("tool", "x", tool_call_id="nowhere", name="f"))
        self.assertEqual(contents[0]["parts"][1]["functionResponse"]["name"], "f")

    def test_signed_turn_goes_back_verbatim(self) -> None:
        """A turn with thought signatures is given back part by part, and a result repeats Gemini's own call id."""
        parts = [
            {"text": "thinking", "thought": True},
            {"text": "", "thoughtSignature": "s0"},
            {"functionCall": {"name": "weather", "args": {"city": "Bern"}, "id": "g1"}, "thoughtSignature": "s1"},
            {"functionCall": {"name": "weather", "args": {"city": "Rom"}}},
        ]
        reply = decoded(answer(*parts))
        self.assertEqual([call.signature for call in reply.tool_calls], ["s1", None])
        first, second = reply.tool_calls
        self.assertEqual(first.id, "g1")
        self.assertRegex(second.id, r"^call_\w{16}$")
        contents = conversation(
            Message("user", "hi"),
            reply.message,
            Message("tool", "1", tool_call_id=first.id),
            Message("tool", "2", tool_call_id=second.id),
        )
        self.assertEqual(contents[1], {"role": "model", "parts": parts})
        results = [each["functionResponse"] for each in contents[2]["parts"]]
        self.assertEqual([result.get("id") for result in results], ["g1", None])

    def test_streamed_turn_goes_back_verbatim(self) -> None:
        """A streamed turn keeps its signatures too, with neighbouring pieces of plain text joined."""
        body = dialects.frames(
            answer({"text": "a"}, finish=None),
            answer({"text": "b"}, finish=None),
            answer({"text": "c", "thoughtSignature": "s"}),
        )
        reply = dialects.Read(GEMINI, body).end().answer
        contents = conversation(Message("user", "hi"), reply.message)
        self.assertEqual(contents[1]["parts"], [{"text": "ab"}, {"text": "c", "thoughtSignature": "s"}])

    def test_an_edited_turn_is_written_anew(self) -> None:
        """A turn whose text was changed is not given back in Gemini's old words."""
        reply = decoded(answer({"text": "old", "thoughtSignature": "s"}))
        edited = Message("assistant", "new", native=reply.message.native)
        self.assertEqual(conversation(Message("user", "hi"), edited)[1]["parts"], [{"text": "new"}])

    def test_unsigned_calls_before_gemini_3(self) -> None:
        """Only Gemini 3 and later, which checks signatures, gets the documented stand-in, on the first call alone."""
        calls = (ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}"))
        request = ChatRequest([Message("user", "hi"), Message("assistant", "", calls)])
        for model, expected in (("gemini-3-pro-preview", [SKIP, None]), (FLASH, [None, None])):
            parts = dialects.sent(GEMINI, request, model)["contents"][1]["parts"]
            self.assertEqual([each.get("thoughtSignature") for each in parts], expected)

    def test_nothing_said(self) -> None:
        """An empty assistant turn is left out, an empty user turn stays."""
        contents = conversation(Message("user", "a"), Message("assistant", ""), Message("user", ""))
        self.assertEqual(contents, [{"role": "user", "parts": [{"text": "a"}, {"text": ""}]}])


class Answers(unittest.TestCase):
    def test_text_and_thoughts(self) -> None:
        """Text parts are joined, thoughts kept apart, and plain text needs no copy of Gemini's words."""
        reply = decoded(answer({"text": "hm", "thought": True}, {"text": "He"}, {"text": "llo"}))
        self.assertEqual((reply.text, reply.reasoning, reply.finish_reason), ("Hello", "hm", "stop"))
        self.assertEqual((reply.id, reply.model), ("r1", "gemini-x"))
        self.assertIsNone(reply.message.native)
        self.assertEqual(reply.raw["responseId"], "r1")

    def test_half_characters(self) -> None:
        """Half a surrogate pair anywhere becomes U+FFFD, so that the answer can be printed and stored."""
        call = {"name": "f\ud800", "id": "i\ud800", "args": {"x": "\udc00"}}
        part = {"functionCall": call, "thoughtSignature": "s\ud800"}
        reply = decoded({**answer({"text": "a\ud800"}, part), "responseId": "r\ud800", "modelVersion": "m\ud800"})
        made = reply.tool_calls[0]
        self.assertEqual((reply.text, reply.id, reply.model), ("a\ufffd", "r\ufffd", "m\ufffd"))
        self.assertEqual((made.name, made.id, made.signature), ("f\ufffd", "i\ufffd", "s\ufffd"))
        self.assertEqual(made.arguments, '{"x":"\ufffd"}')
        self.assertIsNotNone(reply.message.native_for("gemini"))

    def test_a_call_that_is_none(self) -> None:
        """A part whose functionCall is null is not a call, and goes back as it came."""
        kept = [{"functionCall": None}, {"functionCall": {"name": "f", "args": {}}}]
        reply = decoded(answer(*kept))
        result = Message("tool", "1", tool_call_id=reply.tool_calls[0].id)
        contents = dialects.sent(GEMINI, ChatRequest([Message("user", "hi"), reply.message, result]), FLASH)["contents"]
        self.assertEqual(contents[1]["parts"], kept)

    def test_numbers_that_are_no_json(self) -> None:
        """An infinite number in a call's arguments is a malformed answer, since no JSON can say it."""
        with self.assertRaises(errors.MalformedResponseError):
            GEMINI.decode(b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"x":1e999}}}]}}]}', "m")

    def test_finish_reasons(self) -> None:
        """Finish reasons are in one vocabulary; calls end with STOP at Gemini, other ends stay what they are."""
        call = {"functionCall": {"name": "f", "args": {}}}
        cases = (
            ("STOP", (), "stop"),
            ("STOP", (call,), "tool_calls"),
            ("UNEXPECTED_TOOL_CALL", (call,), "unexpected_tool_call"),
            ("MAX_TOKENS", (), "length"),
            ("SAFETY", (), "content_filter"),
            ("PROHIBITED_CONTENT", (), "content_filter"),
            ("MODEL_ARMOR", (), "model_armor"),
            ("MALFORMED_FUNCTION_CALL", (), "malformed_function_call"),
        )
        for given, parts, expected in cases:
            with self.subTest(given=given):
                self.assertEqual(decoded(answer(*parts, finish=given)).finish_reason, expected)

    def test_absent_content(self) -> None:
        """A candidate may come without content, with empty content, or without parts."""
        empty: tuple[dict[str, Any], ...] = ({}, {"content": {}}, {"content": {"role": "model"}}, {"content": None})
        for candidate in empty:
            reply = decoded({"candidates": [{**candidate, "finishReason": "SAFETY"}]})
            self.assertEqual((reply.text, reply.finish_reason, reply.model), ("", "content_filter", "asked-model"))

    def test_blocked_prompt(self) -> None:
        """A blocked prompt is an answer that says content_filter, unary and streamed."""
        item = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}
        stream = dialects.Read(GEMINI, dialects.frames(item)).end()
        self.assertTrue(stream.decoder.complete)
        for reply in (decoded(item), stream.answer):
            self.assertEqual((reply.text, reply.finish_reason, reply.usage.total_tokens), ("", "content_filter", 4))

    def test_usage(self) -> None:
        """Tool-use prompts count as input and thoughts as output; the cache is a part of the input."""
        meta = {
            "promptTokenCount": 10,
            "toolUsePromptTokenCount": 5,
            "cachedContentTokenCount": 4,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 2,
            "totalTokenCount": 20,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 6}, {"modality": "AUDIO", "tokenCount": 4}],
            "toolUsePromptTokensDetails": [{"modality": "TEXT", "tokenCount": 5}],
        }
        usage = decoded(answer({"text": "x"}, usageMetadata=meta)).usage
        self.assertEqual(usage, records.Usage(15, 5, 20, 4, 2, {"text": 11, "audio": 4}))

    def test_several_candidates(self) -> None:
        """Candidates come in the order of their index, whatever the order on the wire."""
        second = {"content": {"parts": [{"text": "b"}]}, "finishReason": "STOP", "index": 1}
        first = {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP", "index": 0}
        stream = dialects.Read(GEMINI, dialects.frames({"candidates": [second]}, {"candidates": [first]})).end()
        for reply in (decoded({"candidates": [second, first]}), stream.answer):
            self.assertEqual([(choice.index, choice.message.text) for choice in reply.choices], [(0, "a"), (1, "b")])

    def test_no_answer(self) -> None:
        """An answer without candidates, of another shape or not JSON is malformed, with its beginning as the body."""
        for body in (b"{}", b"[]", b'"x"', b"null", b"<html>", b'{"candidates":[]}', b'{"candidates":[{"index":0}]}'):
            with self.subTest(body=body), self.assertRaises(errors.MalformedResponseError) as caught:
                GEMINI.decode(body, "m")
            self.assertEqual(caught.exception.body, body.decode())

    def test_error_inside_a_good_answer(self) -> None:
        """An error object inside a 2xx answer, or a list of them, is what its own code means."""
        error = {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}
        for item in (error, [error]):
            with self.assertRaises(errors.ProviderUnavailableError):
                decoded(item)
            with self.assertRaises(errors.ProviderUnavailableError):
                dialects.Read(GEMINI, dialects.frames(answer({"text": "a"}, finish=None), item)).end()

    def test_a_bad_key_is_a_400(self) -> None:
        """Gemini's 400 for a bad key is an authentication error."""
        body = json.dumps({"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}})
        self.assertIsInstance(GEMINI.error(400, {}, body.encode(), 0.0), errors.AuthenticationError)


class Streams(unittest.TestCase):
    items = (
        answer({"text": "hm", "thought": True}, finish=None, usageMetadata={"promptTokenCount": 4, "totalTokenCount": 4}),
        answer({"text": "Grüße "}, finish=None),
        answer({"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "s"}, {"text": "🙂"}, finish=None),
        answer({"functionCall": {"name": "g"}}, finish=None),
        answer(usageMetadata={"promptTokenCount": 4, "candidatesTokenCount": 6, "totalTokenCount": 10}),
    )

    def test_whole_and_cut(self) -> None:
        """However the bytes are cut, the stream says the same as the unary answer."""
        body = dialects.frames(*self.items, end="\r\n\r\n")
        for cut in (len(body), 997, 7, 1):
            read = dialects.Read(GEMINI, body, cut).end()
            reply = read.answer
            self.assertEqual((reply.text, reply.reasoning, reply.finish_reason), ("Grüße 🙂", "hm", "tool_calls"))
            self.assertEqual([(call.name, call.arguments) for call in reply.tool_calls], [("f", '{"a":1}'), ("g", "{}")])
            self.assertEqual(len({call.id for call in reply.tool_calls}), 2)
            self.assertEqual(reply.usage.total_tokens, 10)
            self.assertEqual(len(reply.raw), len(self.items))
            self.assertIsNotNone(reply.message.native_for("gemini"))

    def test_ended_at_every_byte(self) -> None:
        """A stream that ends before its finishReason has come is never complete, afterwards it is."""
        body = dialects.frames(*self.items, end="\r\n\r\n")
        marker = body.rindex(b"}") + 1
        for length in range(len(body) + 1):
            read = dialects.Read(GEMINI, body[:length])
            try:
                read.end()
            except errors.MalformedResponseError:
                self.assertLess(length, marker)
            self.assertEqual(read.decoder.complete, length >= marker, length)

    def test_calls_after_the_finish_reason(self) -> None:
        """A call that comes after STOP still makes the answer one of tool calls."""
        late = answer({"functionCall": {"name": "f"}}, finish=None)
        reply = dialects.Read(GEMINI, dialects.frames(answer({"text": "a"}), late)).end().answer
        self.assertEqual((reply.finish_reason, len(reply.tool_calls)), ("tool_calls", 1))

    def test_one_json_array(self) -> None:
        """A server that answers with one JSON array, or one unary answer, is read as well."""
        whole = dialects.Read(GEMINI, json.dumps(list(self.items), indent=1).encode(), 997).end()
        self.assertTrue(whole.decoder.complete)
        self.assertEqual(whole.answer.text, "Grüße 🙂")
        unary = dialects.Read(GEMINI, json.dumps(answer({"text": "hi"})).encode()).end()
        self.assertEqual((unary.answer.text, unary.answer.finish_reason), ("hi", "stop"))

    def test_bare_json_of_another_kind(self) -> None:
        """Bare JSON that is not an answer is malformed."""
        with self.assertRaises(errors.MalformedResponseError):
            dialects.Read(GEMINI, b'{"x": 1}').end()

    def test_a_malformed_chunk_carries_its_body(self) -> None:
        """A chunk of the wrong shape is malformed, with the chunk as the body."""
        with self.assertRaises(errors.MalformedResponseError) as caught:
            dialects.Read(GEMINI, b'data: {"candidates": 5}\n\n')
        self.assertEqual(caught.exception.body, '{"candidates": 5}')


class Embeddings(unittest.TestCase):
    def test_request(self) -> None:
        """Every text is a request of the batch, with the dimensions and the extra fields."""
        request = records.EmbedRequest(["a", "b"], dimensions=8, extra={"taskType": "RETRIEVAL_QUERY"})
        wire = GEMINI.encode_embed(request, "gemini-embedding-001", dialects.endpoint("https://h/v1beta"))
        self.assertEqual(wire.url, "https://h/v1beta/models/gemini-embedding-001:batchEmbedContents")
        one = {"model": "models/gemini-embedding-001", "outputDimensionality": 8, "taskType": "RETRIEVAL_QUERY"}
        self.assertEqual(json.loads(wire.body)["requests"], [{**one, "content": {"parts": [{"text": text}]}} for text in "ab"])

    def test_answers(self) -> None:
        """A batch and a single embedding are read, usage included."""
        batch = {"embeddings": [{"values": [1, 0.5]}, {"values": [2.0]}], "usageMetadata": {"promptTokenCount": 3}}
        reply = GEMINI.decode_embed(json.dumps(batch).encode(), "m")
        self.assertEqual((reply.embeddings, reply.usage.prompt_tokens), (((1.0, 0.5), (2.0,)), 3))
        single = GEMINI.decode_embed(b'{"embedding": {"values": [0.25]}}', "m")
        self.assertEqual(single.embeddings, ((0.25,),))

    def test_no_vectors(self) -> None:
        """Anything but lists of finite numbers is malformed."""
        for body in ("[]", "{}", '{"embeddings":{}}', '{"embeddings":[{"values":[]}]}', '{"embeddings":[{"values":["1"]}]}'):
            with self.subTest(body=body), self.assertRaises(errors.MalformedResponseError):
                GEMINI.decode_embed(body.encode(), "m")
        for value in ("true", "1e999", "1" + "0" * 400):
            with self.subTest(value=value), self.assertRaises(errors.MalformedResponseError):
                GEMINI.decode_embed(f'{{"embeddings":[{{"values":[{value}]}}]}}'.encode(), "m")


class Recorded(unittest.TestCase):
    def test_recordings(self) -> None:
        """Every recorded answer means what it is expected to, streams at three cuts."""
        for row in dialects.recorded("gemini"):
            body, expect = row["body"].encode("utf-8", "surrogatepass"), row["expect"]
            with self.subTest(row["id"]):
                if expect.get("error"):
                    self.assertIsInstance(GEMINI.error(row["status"], {}, body, 0.0), errors.ProviderError)
                elif row["kind"] == "embed":
                    vectors = GEMINI.decode_embed(body, "m").embeddings
                    self.assertEqual((len(vectors), list(vectors[0][:4])), (expect["vectors"], expect["head"]))
                else:
                    cuts = (len(body), 997, 1) if row["stream"] else (0,)
                    for cut in cuts:
                        reply = dialects.Read(GEMINI, body, cut).end().answer if cut else GEMINI.decode(body, "m")
                        want = {key: value for key, value in expect.items() if value is not None}
                        self.assertEqual({key: dialects.told(reply)[key] for key in want}, want)

    def test_damaged_answers(self) -> None:
        """Whatever type a value turns into, only errors of this library leave."""
        full = answer(
            {"text": "a", "thought": True},
            {"text": "b", "thoughtSignature": "s"},
            {"functionCall": {"name": "f", "args": {"a": [1]}, "id": "i"}},
            usageMetadata={"promptTokenCount": 1, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1}]},
            promptFeedback={"blockReason": "X"},
        )
        embeddings = {"embeddings": [{"values": [1.0, 2]}], "usageMetadata": {"promptTokenCount": 1}}
        for item in dialects.damaged(full, 1, 600):
            for call in (decoded, self._stream):
                try:
                    reply = call(item)
                except errors.ProviderError:
                    continue
                self.assertIsInstance(reply.text, str)
                reply.message.native_for("gemini")
        for item in dialects.damaged(embeddings, 2, 300):
            try:
                GEMINI.decode_embed(json.dumps(item).encode(), "m")
            except errors.ProviderError as error:
                self.assertTrue(str(error))

    @staticmethod
    def _stream(item: Any) -> Any:
        return dialects.Read(GEMINI, dialects.frames(item)).end().answer

    def test_absurd_nesting(self) -> None:
        """Nesting too deep for the reader is a malformed answer."""
        for depth in (900, 100_000):
            deep = (
                '{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a":'
                + "[" * depth
                + "]" * depth
                + "}}}]}}]}"
            )
            try:
                GEMINI.decode(deep.encode(), "m")
            except errors.ProviderError as error:
                self.assertIsInstance(error, errors.MalformedResponseError)
