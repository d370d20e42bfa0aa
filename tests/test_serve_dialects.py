"""The Responses API and Anthropic's messages at the endpoint: what goes in, what comes out, event by event."""

from __future__ import annotations

import json
import unittest
from typing import Any

from tests import ir, part
from tests.servers import Reply
from tests.serving import Served

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
anthropic, responses = part("serve_anthropic"), part("serve_responses")


def named_events(reply: Reply) -> list[tuple[str, Any]]:
    """Each event's name and JSON."""
    blocks = [block.split("\n") for block in reply.body.decode().split("\n\n") if block.startswith("event: ")]
    return [(block[0].removeprefix("event: "), json.loads(block[1].removeprefix("data: "))) for block in blocks]


class Responses(Served):
    simulated = {"chunk_words": 1}  # noqa: RUF012  # never changed

    def respond(self, given: Any, **more: Any) -> Reply:
        return self.ask("POST", "/v1/responses", {"model": "fast", "input": given, **more})

    def test_whole(self) -> None:
        """One message, the settings repeated, usage in its own words."""
        found = self.respond("hello", instructions="be kind", max_output_tokens=50, metadata={"a": "b"}).json
        self.assertEqual((found["object"], found["status"], found["model"]), ("response", "completed", "fast"))
        self.assertEqual(found["output"][0]["content"][0]["text"], "Hello! How can I help you today?")
        self.assertEqual((found["instructions"], found["max_output_tokens"], found["metadata"]), ("be kind", 50, {"a": "b"}))
        usage = found["usage"]
        self.assertEqual(usage["total_tokens"], usage["input_tokens"] + usage["output_tokens"])

    def test_stream(self) -> None:
        """Every item begins, grows and ends; numbers go up by one; the end holds what the pieces made."""
        events = named_events(self.respond("hello", stream=True))
        self.assertEqual([event["sequence_number"] for _, event in events], list(range(len(events))))
        self.assertEqual([name for name, event in events], [event["type"] for _, event in events])
        names = [name for name, _ in events]
        self.assertEqual(names[:4], ["response.created", "response.in_progress", *names[2:4]])
        self.assertEqual(names[2:4], ["response.output_item.added", "response.content_part.added"])
        self.assertEqual(names[-4:-1], ["response.output_text.done", "response.content_part.done", "response.output_item.done"])
        text = "".join(event["delta"] for name, event in events if name == "response.output_text.delta")
        final = events[-1][1]["response"]
        self.assertEqual((names[-1], final["output"][0]["content"][0]["text"]), ("response.completed", text))
        self.assertEqual(final["output"][0]["id"], events[2][1]["item"]["id"])

    def test_calls(self) -> None:
        """A function call is an item of its own, and its output finds it again; built-in tools are dropped and named."""
        tools = [{"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}, {"type": "web_search"}]
        reply = self.respond("get_weather please", tools=tools)
        item = reply.json["output"][0]
        self.assertEqual(
            (item["type"], item["name"], json.loads(item["arguments"])), ("function_call", "get_weather", {"city": "Paris"})
        )
        self.assertEqual(reply.headers["x-inferrouter-dropped"], "tools")
        events = named_events(self.respond("get_weather please", tools=tools, stream=True))
        pieces = "".join(event["delta"] for name, event in events if name == "response.function_call_arguments.delta")
        done = next(event for name, event in events if name == "response.function_call_arguments.done")
        self.assertEqual((json.loads(pieces), done["arguments"], done["name"]), ({"city": "Paris"}, pieces, "get_weather"))
        given = [
            {"role": "user", "content": "get_weather please"},
            {"type": "reasoning", "summary": []},
            item,
            {"type": "function_call_output", "call_id": item["call_id"], "output": "sunny"},
        ]
        told = self.respond(given, tools=tools).json
        self.assertIn("sunny", told["output"][0]["content"][0]["text"])

    def test_structured_answers_and_cut_ones(self) -> None:
        """A schema in text.format reaches the model; an answer cut by its limit is incomplete."""
        form = {"type": "json_schema", "name": "place", "schema": {**WEATHER, "required": ["city"]}}
        text = self.respond("where", text={"format": form}).json["output"][0]["content"][0]["text"]
        self.assertEqual(json.loads(text), {"city": "Paris"})
        cut = self.respond("hello", max_output_tokens=2).json
        self.assertEqual((cut["status"], cut["incomplete_details"]), ("incomplete", {"reason": "max_output_tokens"}))
        self.assertEqual(named_events(self.respond("hello", max_output_tokens=2, stream=True))[-1][0], "response.incomplete")

    def test_turns(self) -> None:
        """Calls that stand side by side are one turn of the assistant, with the words before them."""
        call = {"type": "function_call", "name": "f", "arguments": "{}"}
        given = [
            {"role": "developer", "content": [{"type": "input_text", "text": "be kind"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I will"}]},
            {**call, "call_id": "1"},
            {**call, "call_id": "2"},
            {"type": "function_call_output", "call_id": "1", "output": "one"},
            {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "two"}]},
            {"type": "message", "role": "assistant", "content": "done"},
        ]
        asked = responses.ResponsesDialect().read({"input": given})
        turns = [(message.role, message.text, [each.id for each in message.tool_calls]) for message in asked.request.messages]
        self.assertEqual(
            turns,
            [
                ("developer", "be kind", []),
                ("user", "go", []),
                ("assistant", "I will", ["1", "2"]),
                ("tool", "one", []),
                ("tool", "two", []),
                ("assistant", "done", []),
            ],
        )

    def test_what_cannot_be_served(self) -> None:
        """Earlier ids, unknown items and what is not an input are 400, with a sentence."""
        self.assertIn("stored", self.respond("a", previous_response_id="resp_1").json["error"]["message"])
        for given in ([], None, [7], [{"type": "computer_call"}], [{"type": "function_call"}], [{"role": "user"}], {"a": 1}):
            reply = self.respond(given)
            self.assertEqual((reply.status, reply.json["error"]["type"]), (400, "invalid_request_error"), given)

    def test_a_cut_stream(self) -> None:
        """An error event and a failed response, and no clean end."""
        self.sim.script([part("simulator_server").Fault("cut", after=4)])
        body = json.dumps({"model": "fast", "input": "hello", "stream": True}).encode()
        from tests.serving import post

        seen = self.raw(post(body, path="/v1/responses"))
        self.assertIn(b"event: error", seen)
        self.assertIn(b'"status":"failed"', seen)
        self.assertNotIn(b"response.completed", seen)
        self.assertFalse(seen.endswith(b"0\r\n\r\n"))

    def test_reasoning(self) -> None:
        """What a model thinks is an item before its answer."""
        events = named_events(self.respond("hello", reasoning={"effort": "low"}, stream=True))
        kinds = [item["type"] for item in events[-1][1]["response"]["output"]]
        self.assertEqual(kinds, ["reasoning", "message"])
        whole = self.respond("hello", reasoning={"effort": "low"}).json
        self.assertEqual([item["type"] for item in whole["output"]], ["reasoning", "message"])


class Messages(Served):
    simulated = {"chunk_words": 1}  # noqa: RUF012  # never changed

    def message(self, content: Any, **more: Any) -> Reply:
        body = {"model": "fast", "max_tokens": 100, "messages": [{"role": "user", "content": content}], **more}
        return self.ask("POST", "/v1/messages", body, {"anthropic-version": "2023-06-01", "x-api-key": "any"})

    def test_whole(self) -> None:
        """A message in blocks, under the name that was asked for."""
        reply = self.message(
            "hello", system=[{"type": "text", "text": "be kind"}], service_tier="auto", metadata={"user_id": "u"}
        )
        found = reply.json
        self.assertEqual(
            (found["type"], found["role"], found["model"], found["stop_reason"]), ("message", "assistant", "fast", "end_turn")
        )
        self.assertEqual(found["content"], [{"type": "text", "text": "Hello! How can I help you today?"}])
        self.assertGreater(found["usage"]["input_tokens"], 0)
        self.assertEqual(reply.headers["x-inferrouter-dropped"], "service_tier")

    def test_conversations_have_names(self) -> None:
        """What clients name a conversation or its cached prompt by keeps it on one account."""
        body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1, "metadata": {"user_id": "u_session_1"}}
        self.assertEqual(anthropic.MessagesDialect().read(body).request.session, "u_session_1")
        self.assertIsNone(anthropic.MessagesDialect().read({**body, "metadata": {"user_id": 7}}).request.session)
        self.assertEqual(responses.ResponsesDialect().read({"input": "a", "prompt_cache_key": "k"}).request.session, "k")
        chat = part("serve_openai").ChatDialect().read({**body, "prompt_cache_key": "k"})
        self.assertEqual(chat.request.session, "k")

    def test_stream(self) -> None:
        """message_start, blocks that begin and end, message_delta with usage, message_stop."""
        events = named_events(self.message("hello", stream=True))
        names = [name for name, _ in events]
        self.assertEqual(names[:3], ["message_start", "ping", "content_block_start"])
        self.assertEqual(names[-3:], ["content_block_stop", "message_delta", "message_stop"])
        self.assertEqual([name for name, _ in events], [event["type"] for _, event in events])
        text = "".join(event["delta"]["text"] for name, event in events if name == "content_block_delta")
        self.assertEqual(text, "Hello! How can I help you today?")
        end = next(event for name, event in events if name == "message_delta")
        self.assertEqual((end["delta"]["stop_reason"], end["usage"]["output_tokens"]), ("end_turn", 9))

    def test_calls(self) -> None:
        """A tool_use block, whole and in pieces, and its result; a tool that runs at Anthropic is dropped and named."""
        tools = [
            {"name": "get_weather", "description": "d", "input_schema": WEATHER},
            {"type": "web_search_20250305", "name": "web"},
        ]
        reply = self.message("get_weather please", tools=tools, tool_choice={"type": "any"})
        found = reply.json
        block = found["content"][0]
        self.assertEqual((found["stop_reason"], block["name"], block["input"]), ("tool_use", "get_weather", {"city": "Paris"}))
        self.assertEqual(reply.headers["x-inferrouter-dropped"], "tools")
        events = named_events(self.message("get_weather please", tools=tools, stream=True))
        pieces = [event["delta"]["partial_json"] for name, event in events if name == "content_block_delta"]
        self.assertEqual(json.loads("".join(pieces)), {"city": "Paris"})
        turns = [
            {"role": "user", "content": "get_weather please"},
            {"role": "assistant", "content": found["content"]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": block["id"], "content": [{"type": "text", "text": "sunny"}]}],
            },
        ]
        told = self.message("", tools=tools, messages=turns).json
        self.assertIn("sunny", told["content"][0]["text"])

    def test_thinking(self) -> None:
        """Thinking is a block before the answer, whole and streamed."""
        whole = self.message("hello", thinking={"type": "enabled", "budget_tokens": 2000}, max_tokens=4000).json
        self.assertEqual([block["type"] for block in whole["content"]], ["thinking", "text"])
        events = named_events(
            self.message("hello", thinking={"type": "enabled", "budget_tokens": 9000}, stream=True, max_tokens=9999)
        )
        begun = [event["content_block"]["type"] for name, event in events if name == "content_block_start"]
        self.assertEqual(begun, ["thinking", "text"])

    def test_counting(self) -> None:
        """An estimate of the input, that grows with it."""
        body = {"model": "fast", "messages": [{"role": "user", "content": "hello"}]}
        few = self.ask("POST", "/v1/messages/count_tokens", body).json["input_tokens"]
        many = self.ask("POST", "/v1/messages/count_tokens", {**body, "system": "word " * 500}).json["input_tokens"]
        self.assertTrue(0 < few < many)

    def test_media(self) -> None:
        """Pictures and documents in Anthropic's blocks become parts."""
        source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
        blocks = [
            {"type": "image", "source": source, "cache_control": {"type": "ephemeral"}},
            {"type": "document", "source": {"type": "url", "url": "https://a.test/b.pdf"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": source}], "is_error": False},
        ]
        asked = anthropic.MessagesDialect().read({"messages": [{"role": "user", "content": blocks}]})
        tool, user = asked.request.messages
        self.assertEqual(([part.kind for part in tool.parts], tool.tool_call_id), (["image"], "t"))
        self.assertEqual([part.kind for part in user.parts], ["image", "document", "text"])

    def test_errors(self) -> None:
        """In Anthropic's shape and words: wrong requests, unknown models, limits."""
        for change in (
            {"messages": [{"role": "king", "content": "a"}]},
            {"messages": [{"role": "user", "content": 7}]},
            {"tools": [1]},
        ):
            reply = self.message("a", **change)
            self.assertEqual(
                (reply.status, reply.json["type"], reply.json["error"]["type"]), (400, "error", "invalid_request_error")
            )
        self.assertEqual(self.message([{"type": "hologram"}]).status, 400)
        self.assertEqual(self.message([{"type": "image"}]).status, 400)
        self.sim.fail_next(1, 429, headers={"retry-after": "30"})
        limited = self.message("hello")
        self.assertEqual(
            (limited.status, limited.json["error"]["type"], limited.headers["x-should-retry"]), (429, "rate_limit_error", "false")
        )

    def test_models(self) -> None:
        """A client that speaks Anthropic's format gets the list in it."""
        found = self.ask("GET", "/v1/models", headers={"anthropic-version": "2023-06-01"}).json
        self.assertEqual((found["data"][0]["type"], found["data"][0]["id"], found["has_more"]), ("model", "fast", False))


class BrokenCalls(unittest.TestCase):
    def test_arguments_that_are_no_object(self) -> None:
        """A model's fault is told as one; what its limit cut off is given as far as it came, as Claude itself does."""

        def content(arguments: str, finish: str) -> Any:
            call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            body = {"id": "x", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": finish}]}
            answer = ir.OpenAICompatProvider("p", "http://127.0.0.1:1").decode(json.dumps(body).encode(), "m")
            dialect = anthropic.MessagesDialect()
            request = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 9}
            return dialect.whole(dialect.read(request), [answer], 0.0)["content"][-1]["input"]

        self.assertEqual(content('{"a": 1}', "tool_calls"), {"a": 1})
        self.assertEqual(content("", "tool_calls"), {})
        self.assertEqual(content('{"a": [1, 2', "length"), {"a": [1]})
        self.assertEqual(content("{", "length"), {})
        for arguments in ('{"a": [1, 2', "[1]", "x"):
            self.assertRaises(ir.MalformedResponseError, content, arguments, "tool_calls")


class ClaudeBehind(Served):
    dialect = "anthropic"

    def test_thinking_survives_a_turn_with_tools(self) -> None:
        """A Claude behind the router sees its signed thinking again, as it demands, when its client gives the blocks back."""
        tools = [{"name": "get_weather", "input_schema": WEATHER}]
        ask = {
            "model": "sim/claude-sonnet-4",
            "max_tokens": 4000,
            "tools": tools,
            "thinking": {"type": "enabled", "budget_tokens": 2000},
        }
        turns: list[Any] = [{"role": "user", "content": "get_weather please"}]
        first = self.ask("POST", "/v1/messages", {**ask, "messages": turns}).json
        self.assertEqual([block["type"] for block in first["content"]], ["thinking", "tool_use"])
        self.assertTrue(first["content"][0]["signature"])
        result = {"type": "tool_result", "tool_use_id": first["content"][1]["id"], "content": "sunny"}
        turns += [{"role": "assistant", "content": first["content"]}, {"role": "user", "content": [result]}]
        second = self.ask("POST", "/v1/messages", {**ask, "messages": turns})
        self.assertEqual(second.status, 200, second.body)
        self.assertIn("sunny", second.json["content"][-1]["text"])


class GeminiBehind(Served):
    dialect = "gemini"

    def turns(self, path: str, first: Any, second: Any) -> None:
        """A call, and its result with the call as most clients give it back: without what Gemini signed."""
        for stream in (False, True):
            with self.subTest(path, stream=stream):
                reply = self.ask("POST", path, {**first({}), "stream": stream})
                told = self.ask("POST", path, second(reply, stream))
                self.assertEqual(told.status, 200, told.body)
                self.assertIn(b"sunny", told.body)

    def test_signatures_survive_clients_that_drop_them(self) -> None:
        """Gemini wants the signature of a call it signed again; the endpoint knows it though the client gave none."""
        model = "sim/gemini-2.5-pro"
        tools = [{"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}]
        asked = {"role": "user", "content": "get_weather please"}

        def chat(more: Any) -> Any:
            return {"model": model, "messages": [asked], "tools": tools, "reasoning_effort": "low", **more}

        def chat_again(reply: Reply, stream: bool) -> Any:
            if stream:
                found = [each for event in reply.events for each in event["choices"][0]["delta"].get("tool_calls", ())]
                number, arguments = found[0]["id"], "".join(each["function"]["arguments"] for each in found)
            else:
                call = reply.json["choices"][0]["message"]["tool_calls"][0]
                number, arguments = call["id"], call["function"]["arguments"]
            function = {"name": "get_weather", "arguments": json.dumps(json.loads(arguments), indent=1)}
            call = {"id": number, "type": "function", "function": function}
            said = {"role": "assistant", "content": None, "tool_calls": [call]}
            return chat({"messages": [asked, said, {"role": "tool", "tool_call_id": number, "content": "sunny"}]})

        self.turns("/v1/chat/completions", chat, chat_again)

        def message(more: Any) -> Any:
            own = [{"name": "get_weather", "input_schema": WEATHER}]
            thinking = {"type": "enabled", "budget_tokens": 2000}
            return {"model": model, "max_tokens": 9000, "messages": [asked], "tools": own, "thinking": thinking, **more}

        def message_again(reply: Reply, stream: bool) -> Any:
            if stream:
                events = named_events(reply)
                block = next(
                    event["content_block"] for _, event in events if event.get("content_block", {}).get("type") == "tool_use"
                )
                pieces = [event["delta"].get("partial_json", "") for name, event in events if name == "content_block_delta"]
                block = {**block, "input": json.loads("".join(pieces))}
            else:
                block = reply.json["content"][-1]
            result = {"type": "tool_result", "tool_use_id": block["id"], "content": "sunny"}
            return message(
                {"messages": [asked, {"role": "assistant", "content": [block]}, {"role": "user", "content": [result]}]}
            )

        self.turns("/v1/messages", message, message_again)

    def test_what_was_changed_is_not_put_back(self) -> None:
        """A call that its client changed, or that nobody knows, goes as it came; the memory is bounded."""
        memory = part("serve_turns").TurnMemory(2)

        def said(number: str, arguments: str = '{"a":1}', signature: str | None = None) -> Any:
            return ir.Message("assistant", "", [ir.ToolCall(number, "f", arguments, signature)])

        def answer(number: str) -> Any:
            return ir.ChatResponse("id", "m", (ir.Choice(0, said(number, signature="signed")),))

        memory.remember([answer("1"), answer("2")])
        self.assertEqual(memory.recalled(said("1", '{ "a": 1 }')).tool_calls[0].signature, "signed")
        for other in (said("1", '{"a":2}'), said("9"), said("1", "{broken"), ir.Message("user", "a")):
            self.assertIs(memory.recalled(other), other)
        memory.remember([answer("3")])
        self.assertIsNone(memory.recalled(said("1")).tool_calls[0].signature)


class Writers(unittest.TestCase):
    def test_an_answer_without_words(self) -> None:
        """A stream that said nothing still has one empty block, one empty message."""
        empty = ir.ChatResponse("id", "m", (ir.Choice(0, ir.Message("assistant", ""), "stop"),))
        asked = anthropic.MessagesDialect().read({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1})
        routing = ir.Routing("p", "a", "m")
        for dialect, wanted in (
            (anthropic.MessagesDialect(), b"content_block_start"),
            (responses.ResponsesDialect(), b"output_item.added"),
        ):
            writer = dialect.writer(asked, 0.0)
            self.assertTrue(writer.start(routing))
            self.assertIn(wanted, writer.end([empty]))

    def test_errors_in_a_stream(self) -> None:
        """Each dialect has a way to say that it broke off."""
        problem = part("serve_errors").Problem(502, "server_error", "stream_interrupted", "it broke")
        asked = anthropic.MessagesDialect().read({"messages": [{"role": "user", "content": "a"}]})
        self.assertIn(b"event: error", anthropic.MessagesDialect().writer(asked, 0.0).error(problem))


if __name__ == "__main__":
    unittest.main()
