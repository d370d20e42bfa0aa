"""The endpoint over real sockets: chats whole and streamed, waiting, clients that go away, streams that break."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
import unittest
import unittest.mock
from typing import Any

from tests import ir, part
from tests.cases import open_files, thread_count
from tests.fakes import threads
from tests.servers import ScriptedServer
from tests.serving import HELLO, Served, drained, post, simulator

serve_chat = part("serve_chat")
WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Chats(Served):
    def test_whole(self) -> None:
        """A completion under the name that was asked for; who answered stands in the headers."""
        reply = self.chat()
        found = reply.json
        self.assertEqual((reply.status, found["object"], found["model"]), (200, "chat.completion", "fast"))
        self.assertEqual(found["choices"][0]["message"]["content"], "Hello! How can I help you today?")
        self.assertEqual(found["choices"][0]["finish_reason"], "stop")
        self.assertEqual(found["usage"]["total_tokens"], found["usage"]["prompt_tokens"] + found["usage"]["completion_tokens"])
        told = {
            name: reply.headers[f"x-inferrouter-{name}"] for name in ("account", "provider", "model", "attempts", "free", "cost")
        }
        self.assertEqual(told, {"account": "a", "provider": "sim", "model": "m", "attempts": "1", "free": "true", "cost": "0"})

    def test_stream(self) -> None:
        """Role, pieces, reason and marker, in order, in whole events; usage only if it was asked for."""
        plain, told = self.chat(stream=True), self.chat(stream=True, stream_options={"include_usage": True})
        self.assertEqual(plain.headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertEqual(plain.data[-1], "[DONE]")
        deltas = [event["choices"][0]["delta"] for event in plain.events]
        self.assertEqual(deltas[0]["role"], "assistant")
        self.assertEqual("".join(delta.get("content") or "" for delta in deltas), "Hello! How can I help you today?")
        reasons = [event["choices"][0]["finish_reason"] for event in plain.events]
        self.assertEqual((reasons[-1], set(reasons[:-1])), ("stop", {None}))
        self.assertEqual(len({event["id"] for event in plain.events}), 1)
        self.assertFalse(any("usage" in event for event in plain.events))
        self.assertEqual(told.events[-1]["choices"], [])
        self.assertEqual(told.events[-1]["usage"]["total_tokens"], self.chat().json["usage"]["total_tokens"])
        self.assertEqual(plain.headers["x-inferrouter-account"], "a")

    def test_tools(self) -> None:
        """A call comes back whole and in fragments, and its result is understood."""
        call = self.chat("weather please: get_weather", tools=[WEATHER]).json["choices"][0]
        self.assertEqual(call["finish_reason"], "tool_calls")
        self.assertEqual(json.loads(call["message"]["tool_calls"][0]["function"]["arguments"]), {"city": "Paris"})
        events = self.chat("weather please: get_weather", tools=[WEATHER], stream=True).events
        fragments = [each for event in events for each in event["choices"][0]["delta"].get("tool_calls", ())]
        self.assertEqual((fragments[0]["function"]["name"], fragments[0]["type"]), ("get_weather", "function"))
        self.assertEqual(json.loads("".join(each["function"]["arguments"] for each in fragments)), {"city": "Paris"})
        messages = [
            {"role": "user", "content": "get_weather"},
            {**call["message"]},
            {"role": "tool", "tool_call_id": call["message"]["tool_calls"][0]["id"], "content": "sunny"},
        ]
        told = self.ask("POST", "/v1/chat/completions", {"model": "fast", "messages": messages, "tools": [WEATHER]}).json
        self.assertIn("sunny", told["choices"][0]["message"]["content"])

    def test_structured_answers_and_images(self) -> None:
        """A schema reaches the model, and so does a picture."""
        form = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
        text = self.chat(response_format=form).json["choices"][0]["message"]["content"]
        self.assertEqual(json.loads(text), {"city": "Paris"})
        content = [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
        body = {"model": "fast", "messages": [{"role": "user", "content": content}]}
        reply = self.ask("POST", "/v1/chat/completions", body)
        self.assertIn("1 image", reply.json["choices"][0]["message"]["content"])

    def test_several_choices(self) -> None:
        """n choices are n calls, counted as such, whole and streamed."""
        found = self.chat(n=3).json
        self.assertEqual([choice["index"] for choice in found["choices"]], [0, 1, 2])
        self.assertEqual(found["usage"]["completion_tokens"], 3 * self.chat().json["usage"]["completion_tokens"])
        events = self.chat(n=2, stream=True).events
        ends = [choice["index"] for event in events for choice in event["choices"] if choice["finish_reason"]]
        self.assertEqual(ends, [0, 1])
        self.assertEqual(self.chat(n=17).status, 400)

    def test_what_agents_send(self) -> None:
        """Null content, parts without a type, limits of 0 and fields from everywhere are no errors; what is dropped is named."""
        call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
        messages = [
            {"role": "developer", "content": [{"text": "be kind"}]},
            {"role": "user", "content": "hello", "tool_calls": None},
            {"role": "assistant", "content": None, "tool_calls": [call], "audio": None, "refusal": None},
            {
                "role": "tool",
                "tool_call_id": "c1",
                "content": [{"type": "text", "text": "sunny"}],
                "cache_control": {"type": "x"},
            },
        ]
        odd = {"user": "me", "store": False, "logprobs": True, "parallel_tool_calls": True, "metadata": {"a": "b"}}
        none = {"max_tokens": -1, "stop": None, "stream_options": {"include_usage": True}}
        body = {"model": "fast", "messages": messages, "tools": [WEATHER], **none, **odd}
        reply = self.ask("POST", "/v1/chat/completions", body)
        self.assertEqual(reply.status, 200, reply.body)
        self.assertEqual(reply.headers["x-inferrouter-dropped"], "user, store, logprobs, parallel_tool_calls, metadata")

    def test_a_header_has_its_bounds(self) -> None:
        """However much is left out, and however long its names are, what is told of it is a header that every client takes."""
        reply = self.chat(**{"k" * 50_000: 1, **{f"k{number}\r\n": 1 for number in range(5_000)}})
        self.assertEqual(reply.status, 200)
        told = reply.headers["x-inferrouter-dropped"]
        self.assertTrue(told.startswith("k" * 64 + "..., k0%0D%0A, ") and told.endswith(", and 4969 more"), told[-99:])
        self.assertLess(len(told), 4096)

    def test_models(self) -> None:
        """Aliases first, one by name, and close matches for one that is not there."""
        ids = [entry["id"] for entry in self.ask("GET", "/v1/models").json["data"]]
        self.assertEqual(ids, ["fast", "m"])
        self.assertEqual(self.ask("GET", "/models/fast").json["id"], "fast")
        self.assertEqual(self.ask("GET", "/v1/models/nope").json["error"]["code"], "model_not_found")

    def test_completions(self) -> None:
        """A plain prompt gives plain text, whole and streamed."""
        body = {"model": "fast", "prompt": "hello"}
        whole = self.ask("POST", "/v1/completions", body).json
        self.assertEqual((whole["object"], whole["choices"][0]["text"]), ("text_completion", "Hello! How can I help you today?"))
        events = self.ask("POST", "/v1/completions", {**body, "stream": True}).events
        self.assertEqual("".join(event["choices"][0]["text"] for event in events), "Hello! How can I help you today?")
        self.assertEqual(self.ask("POST", "/v1/completions", {"model": "fast", "prompt": ["a", "b"]}).status, 400)

    def test_embeddings(self) -> None:
        """Vectors as numbers or as base64 of the same numbers; token ids are refused with the switch that mends it."""
        body = {"model": "fast", "input": ["hello there", "bye"], "dimensions": 8}
        plain = self.ask("POST", "/v1/embeddings", body).json
        packed = self.ask("POST", "/v1/embeddings", {**body, "encoding_format": "base64"}).json
        import base64

        numbers = struct.unpack("<8f", base64.b64decode(packed["data"][1]["embedding"]))
        for one, other in zip(numbers, plain["data"][1]["embedding"], strict=True):
            self.assertAlmostEqual(one, other, places=6)
        self.assertEqual([entry["index"] for entry in plain["data"]], [0, 1])
        refused = self.ask("POST", "/v1/embeddings", {"model": "fast", "input": [[1, 2]]})
        self.assertIn("check_embedding_ctx_length", refused.json["error"]["message"])

    def test_one_connection_carries_many_requests(self) -> None:
        """Kept alive, requests sent ahead of their answers are answered in order, and HTTP/1.0 closes."""
        body = json.dumps(HELLO).encode()
        answers = self.raw(post(body) * 3 + post(body, "Connection: close"))
        self.assertEqual(answers.count(b"HTTP/1.1 200"), 4)
        old = post(body).replace(b"HTTP/1.1", b"HTTP/1.0")
        self.assertEqual(self.raw(old + old).count(b"HTTP/1.1 200"), 1)

    def test_chunked_bodies(self) -> None:
        """A body in chunks is read to its end, so that the next request is the next request."""
        body = json.dumps(HELLO).encode()
        chunks = b"%x;note=1\r\n%b\r\n%X\r\n%b\r\n0\r\nTrailer: x\r\n\r\n" % (10, body[:10], len(body) - 10, body[10:])
        chunked = post(chunks, "Transfer-Encoding: chunked", length=False)
        self.assertEqual(self.raw(chunked + post(body, "Connection: close")).count(b"HTTP/1.1 200"), 2)

    def test_head_and_options(self) -> None:
        """HEAD has the length and no body; OPTIONS says what there is."""
        head = self.ask("HEAD", "/v1/models")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertGreater(int(head.headers["content-length"]), 10)
        options = self.ask("OPTIONS", "/v1/chat/completions")
        self.assertEqual((options.status, options.headers["allow"]), (204, "GET, HEAD, POST, OPTIONS"))
        self.assertNotIn("access-control-allow-origin", options.headers)

    def test_unknown_paths_say_what_there_is(self) -> None:
        """404 and 405 are JSON with a way out, a doubled /v1 is told so."""
        self.assertIn("/v1/chat/completions", self.ask("GET", "/nope").json["error"]["message"])
        self.assertIn("twice", self.ask("POST", "/v1/v1/chat/completions", HELLO).json["error"]["message"])
        for method, path in (("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("DELETE", "/v1/models")):
            self.assertEqual(self.ask(method, path, {} if method == "POST" else None).status, 405)

    def test_without_v1(self) -> None:
        """The same routes without /v1."""
        self.assertEqual(self.ask("POST", "/chat/completions", HELLO).status, 200)


class Errors(Served):
    def said(self, reply: Any, status: int, kind: str, code: str | None) -> str:
        error = reply.json["error"]
        self.assertEqual((reply.status, error["type"], error["code"]), (status, kind, code), reply.body)
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        return str(error["message"])

    def test_wrong_requests(self) -> None:
        """400 with what is wrong, whatever the JSON is."""
        for body in (b"{", b"[]", b'"a"', b"\xff", b"{}", b"[" * 100_000, b'{"messages": NaN}'):
            self.said(self.ask("POST", "/v1/chat/completions", body), 400, "invalid_request_error", None)
        for change in (
            {"messages": []},
            {"messages": "x", "model": "fast"},
            {"messages": [7]},
            {"messages": [{"role": "king", "content": "x"}]},
            {"messages": [{"role": "user", "content": {"a": 1}}]},
            {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
            {"temperature": "hot"},
            {"tools": [1]},
            {"tools": {}},
            {"tool_choice": 7},
            {"stream": "yes"},
            {"model": 7},
            {"max_tokens": "many"},
            {"response_format": {"type": "poem"}},
            {"response_format": {"type": {}}},
            {"response_format": {"type": []}},
            {"messages": [{"role": "tool", "content": "x", "tool_call_id": {}}]},
            {"messages": [{"role": "user", "content": "x", "name": 7}]},
        ):
            reply = self.ask("POST", "/v1/chat/completions", {**HELLO, **change})
            self.said(reply, 400, "invalid_request_error", None)

    def test_odd_requests(self) -> None:
        """Long queries, paths like hosts, packed bodies, https at an http address and half characters are no errors of ours."""
        self.assertEqual(self.ask("GET", "/v1/models?" + "a=1&" * 500).status, 200)
        for path in ("//[::1", "//evil.test/status.json"):
            self.said(self.ask("GET", path), 404, "invalid_request_error", "unknown_url")
        packed = self.ask("POST", "/v1/chat/completions", gzip.compress(json.dumps(HELLO).encode()), {"Content-Encoding": "gzip"})
        self.assertIn("as it is", self.said(packed, 415, "invalid_request_error", "content_encoding"))
        self.assertIn(b"not https", self.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40)))
        surrogate = b'{"model": "\\ud800", "messages": [{"role": "user", "content": "\\ud83d"}]}'
        for _ in range(2):
            self.assertEqual(self.ask("POST", "/v1/chat/completions", surrogate).status, 200)

    def test_unknown_models(self) -> None:
        """404 model_not_found, and the names there are."""
        config = ir.Config(models=[ir.ModelMapping("fast", [ir.ModelRef("mock", "m")])], accounts=[ir.AccountConfig("mock", "a")])
        with ir.Router(config, [ir.MockProvider("mock", ["hello"], models=["m"])]) as router, ir.serve(router, port=0) as server:
            self.server.stop(0)
            self.server = server
            reply = self.chat(model="fsat")
            self.assertIn("fast", self.said(reply, 404, "invalid_request_error", "model_not_found"))

    def test_faults_of_providers(self) -> None:
        """A provider's fault is the endpoint's 5xx, without a retry; a refused key is not the client's."""
        self.sim.fail_next(9, 500)
        reply = self.chat()
        self.said(reply, 502, "server_error", "all_providers_failed")
        self.assertEqual(reply.headers["x-should-retry"], "false")

    def test_a_refused_key(self) -> None:
        """A provider's 401 says whose key it was."""
        self.sim.fail_next(1, 401)
        said = self.said(self.chat(), 502, "provider_error", "provider_authentication_failed")
        self.assertIn("not yours", said)
        self.assertNotIn("sk-1", said)

    def test_the_callers_own_fault(self) -> None:
        """A provider's 400 stays one; a prompt that is too long has the code that agents shrink on."""
        self.sim.fail_next(1, 400, {"error": {"message": "no such size", "code": None}})
        self.assertIn("no such size", self.said(self.chat(), 400, "invalid_request_error", None))
        long = {"error": {"message": "maximum context length is 9 tokens", "code": "context_length_exceeded"}}
        self.sim.fail_next(1, 400, long)
        self.said(self.chat(), 400, "invalid_request_error", "context_length_exceeded")

    def test_a_fault_of_ours(self) -> None:
        """An error inside is a 500 that shows nothing of it, and the endpoint goes on."""

        def broken(*_: object, **__: object) -> None:
            raise ValueError("sk-secret")

        self.router.chat_completion, kept = broken, self.router.chat_completion
        with self.assertLogs("inferrouter.serve", "ERROR"):
            said = self.said(self.chat(), 500, "server_error", "internal_error")
        self.assertNotIn("sk-secret", said)
        self.router.chat_completion = kept
        self.assertEqual(self.chat().status, 200)


class Patience(Served):
    def test_waits_as_long_as_the_client_does(self) -> None:
        """A request that only a hold keeps back waits for its end, whole and streamed, and an embedding too."""
        body = {"model": "fast", "input": "hello"}
        for ask in (self.chat, lambda: self.chat(stream=True), lambda: self.ask("POST", "/v1/embeddings", body)):
            began = time.monotonic()
            self.router.rest("a", 0.05)
            self.assertEqual(ask().status, 200)
            self.assertGreater(time.monotonic() - began, 0.04)

    def test_patience_is_read_from_headers(self) -> None:
        """What the SDKs say, less a margin for the answer; else the endpoint's own."""
        read = serve_chat.patience_of
        self.assertEqual(read({"x-stainless-read-timeout": "600"}, 60.0), (570.0, 600.0))
        self.assertEqual(read({"x-stainless-timeout": "10"}, 60.0), (9.0, 10.0))
        for odd in ("", "x", "-1", "nan", "inf", "0"):
            self.assertEqual(read({"x-stainless-timeout": odd}, 60.0), (60.0, None))


class Lines(Served):
    limits = {"parallel": 1}  # noqa: RUF012  # never changed

    def setUp(self) -> None:
        self.all_came = threading.Event()
        self.simulated = {"reply": lambda question: self.all_came.wait(10) and "ok"}
        super().setUp()

    def test_first_come_first_served(self) -> None:
        """Where one call at a time is allowed, five that come at once are all answered, in the order they came."""
        socks = []
        for number in range(5):
            sock = self.connect()
            sock.settimeout(10)
            sock.sendall(post(json.dumps(HELLO).encode(), f"X-N: {number}", "Connection: close"))
            socks.append(sock)
            self.until(lambda seen=number: len(self.server.calls.under_way()) + len(self.server.calls.past()) > seen, "it came")
        self.all_came.set()
        for sock in socks:
            self.assertIn(b"200 OK", drained(sock))
            sock.close()
        self.assertEqual([call.number for call in reversed(self.server.calls.past())], [1, 2, 3, 4, 5])


class Waits(Served):
    limits = {"rpm": 1}  # noqa: RUF012  # never changed

    def test_refused_when_it_would_take_longer_than_the_client_waits(self) -> None:
        """429 with the seconds, without a retry, and a sentence that says when."""
        self.assertEqual(self.chat().status, 200)
        for reply in (self.chat(), self.chat(stream=True), self.chat(headers={"x-stainless-read-timeout": "3"})):
            error = reply.json["error"]
            self.assertEqual((reply.status, error["type"], error["code"]), (429, "rate_limit_error", "rate_limit_exceeded"))
            self.assertTrue(1 <= int(reply.headers["retry-after"]) <= 62)
            self.assertEqual(reply.headers["x-should-retry"], "false")
            self.assertRegex(error["message"], r"free at \d\d:\d\d:\d\d UTC, in \d+ ")

    def test_a_client_that_hangs_up_frees_its_place(self) -> None:
        """Waiting ends at once, and nothing stays reserved."""
        self.assertEqual(self.chat().status, 200)
        used = self.used()
        for stream in (False, True):
            with self.subTest(stream=stream):
                sock = self.connect()
                body = json.dumps({**HELLO, "stream": stream}).encode()
                sock.sendall(post(body, "x-stainless-read-timeout: 600"))
                self.until(self.server.calls.under_way, "the call waits")
                sock.close()
                self.until(lambda: not self.server.calls.under_way(), "the call was given up", 2.0)
                self.assertEqual(self.server.calls.past()[0].state, "left")
                self.assertEqual(self.used(), used)

    def test_a_long_wait_is_kept_alive(self) -> None:
        """A stream that waits long gets its head and comments, and then its answer or an error in its place."""
        self.assertEqual(self.chat().status, 200)
        with unittest.mock.patch.multiple(serve_chat, HOLD_BACK_S=0.02, PING_S=0.02):
            sock = self.connect()
            body = json.dumps({**HELLO, "stream": True}).encode()
            sock.sendall(post(body, "x-stainless-read-timeout: 600"))
            seen = b""
            while seen.count(b": keep-alive") < 2:
                seen += sock.recv(65536)
            with self.stopping():
                seen += drained(sock)
                sock.close()
        self.assertTrue(seen.startswith(b"HTTP/1.1 200 OK"))
        self.assertIn(b'"code":"stopping"', seen)
        self.assertNotIn(b"[DONE]", seen)
        self.assertFalse(seen.endswith(b"0\r\n\r\n"))


class Streams(Served):
    limits = {"rpd": 1000}  # noqa: RUF012  # never changed
    simulated = {"chunk_words": 1}  # noqa: RUF012  # as above

    def test_a_cut_stream_is_cut(self) -> None:
        """An error event, no marker, no reason, no last chunk: for each way in which a provider breaks off."""
        fault = part("simulator_server").Fault
        for kind in ("cut", "unfinished", "error_inside", "broken_json"):
            with self.subTest(kind=kind):
                self.sim.script([fault(kind, after=4)])
                seen = self.raw(post(json.dumps({**HELLO, "stream": True}).encode()))
                self.assertIn(b'"content":"Hello!"', seen)
                self.assertIn(b'"code":"stream_interrupted"', seen)
                self.assertNotIn(b"[DONE]", seen)
                self.assertNotIn(b'"finish_reason":"stop"', seen)
                self.assertFalse(seen.endswith(b"0\r\n\r\n"), seen[-60:])

    def test_an_old_client_sees_a_reset(self) -> None:
        """Where no chunks are spoken a clean close would be a clean end."""
        self.sim.script([part("simulator_server").Fault("cut", after=4)])
        with self.connect() as sock:
            sock.sendall(post(json.dumps({**HELLO, "stream": True}).encode()).replace(b"HTTP/1.1", b"HTTP/1.0"))
            with self.assertRaises(ConnectionResetError):
                while sock.recv(65536):
                    pass

    def test_before_the_first_content_another_attempt_is_made(self) -> None:
        """A stream that breaks before it said anything is a status, or another account's answer."""
        self.sim.fail_next(1, 503)
        self.assertEqual(self.chat(stream=True).status, 502)


class HangUps(Served):
    limits = {"rpd": 1000}  # noqa: RUF012  # never changed
    simulated = {"chunk_words": 1, "chunk_delay_s": 0.02, "reply": lambda question: "word " * 400}  # noqa: RUF012  # as above

    def test_a_client_that_leaves_a_stream_ends_it(self) -> None:
        """The provider's stream is closed at once, and what was seen is charged, once."""
        for reset in (False, True):
            with self.subTest(reset=reset):
                sock = self.connect()
                sock.sendall(post(json.dumps({**HELLO, "stream": True}).encode()))
                sock.recv(4096)
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                self.until(lambda: not self.server.calls.under_way(), "the stream was given up", 3.0)
                self.assertEqual(self.server.calls.past()[0].state, "left")
                self.until(lambda: self.router.status()["a"].in_flight == 0, "the attempt has ended")
        self.assertEqual(self.used(), 2)

    def test_a_client_that_leaves_a_silent_stream(self) -> None:
        """While the provider says nothing nothing is written, and still the stream is closed at once."""
        self.sim.script([part("simulator_server").Fault("stall", after=4, seconds=8.0)])
        with self.connect() as sock:
            sock.sendall(post(json.dumps({**HELLO, "stream": True}).encode()))
            seen = b""
            while seen.count(b"word") < 3:
                seen += sock.recv(4096)
        self.until(lambda: not self.server.calls.under_way(), "the stream was given up", 2.0)
        self.assertEqual(self.router.status()["a"].in_flight, 0)

    def test_stopping_lets_a_stream_end(self) -> None:
        """Within its grace a stream comes to its end; a second stop ends it at once, without a clean end."""
        sock = self.connect()
        sock.sendall(post(json.dumps({**HELLO, "stream": True}).encode()))
        seen = sock.recv(4096)
        with self.stopping():
            self.until(lambda: self.server._listener.fileno() < 0, "it listens no more")
            self.assertRaises(OSError, self.connect)
            self.assertTrue(sock.recv(4096))
            self.server.stop(0)
        seen += drained(sock)
        sock.close()
        self.assertNotIn(b"[DONE]", seen)


class Resources(unittest.TestCase):
    def test_nothing_is_left_behind(self) -> None:
        """After many calls, hang-ups and refusals no thread, no file and no reservation is left."""
        before = thread_count(), open_files()
        with simulator.Simulator() as sim:
            account = ir.AccountConfig("sim", "a", base_url=sim.base_url, auth=ir.Auth("sk-1"), limits={"rpd": 1000})
            config = ir.Config(models=[ir.ModelMapping("fast", [ir.ModelRef("sim", "m")])], accounts=[account])
            with ir.Router(config, [ir.OpenAICompatProvider("sim", sim.base_url)]) as router, ir.serve(router, port=0) as server:

                def work(number: int) -> None:
                    for turn in range(6):
                        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
                            sock.sendall(post(json.dumps({**HELLO, "stream": turn % 2 == 0}).encode()))
                            if turn % 3:
                                sock.recv(10)

                with threads(8, work):
                    pass
            state = router._runtime.health.peek("a", 0.0)
            self.assertEqual(state[2], 0)
        self.assertEqual(thread_count(), before[0])
        self.assertLessEqual(open_files(), before[1])

    def test_many_clients_share_few_threads(self) -> None:
        """Beyond `max_clients` newcomers wait, and a connection that is idle makes room."""
        config = ir.Config(accounts=[ir.AccountConfig("mock", "a")], default_model="mock/m")
        with ir.Router(config, [ir.MockProvider("mock", ["hello"] * 99)]) as router:
            spared = unittest.mock.patch.object(part("serve_endpoint"), "SPARED_S", 0.1)
            with spared, ir.serve(router, port=0, max_clients=3) as server:
                idle = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(3)]
                with socket.create_connection(("127.0.0.1", server.port), timeout=5) as late:
                    late.sendall(post(json.dumps({**HELLO, "model": ""}).encode(), "Connection: close"))
                    self.assertIn(b"200 OK", drained(late))
                self.assertLessEqual(len(server._open), 3)
                for sock in idle:
                    sock.close()


class Bounds(Served):
    settings = {"max_body": 1000}  # noqa: RUF012  # never changed

    def test_large_bodies_are_refused_unread(self) -> None:
        """By their length before a byte of them, in chunks as soon as they are too long."""
        seen = self.raw(post(b"", "Content-Length: 1001", length=False))
        self.assertTrue(seen.startswith(b"HTTP/1.1 413"), seen)
        chunked = post(b"3e9\r\n" + b"a" * 1001, "Transfer-Encoding: chunked", length=False)
        self.assertTrue(self.raw(chunked).startswith(b"HTTP/1.1 413"))
        self.assertTrue(
            self.raw(post(b"", "Content-Length: 1001", "Expect: 100-continue", length=False)).startswith(b"HTTP/1.1 413")
        )

    def test_continue(self) -> None:
        """A client that waits to be asked for its body is asked."""
        body = json.dumps(HELLO).encode()
        with self.connect() as sock:
            sock.sendall(post(b"", f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close", length=False))
            self.assertTrue(sock.recv(100).startswith(b"HTTP/1.1 100"))
            sock.sendall(body)
            self.assertIn(b"200 OK", drained(sock))

    def test_slow_clients(self) -> None:
        """A head or a body that does not come is given up: told so where it can be, and the thread is free."""
        body = json.dumps(HELLO).encode()
        http = part("serve_http")
        with unittest.mock.patch.object(http, "BODY_S", 0.05):
            self.assertTrue(self.raw(post(body)[:-5]).startswith(b"HTTP/1.1 408"))
        with unittest.mock.patch.object(http, "HEAD_S", 0.05):
            self.assertEqual(self.raw(b"GET /v1/mod"), b"")
            with self.connect() as sock:  # one byte at a time is no faster
                for byte in b"GET / HTTP/1.1\r\nX: " + b"y" * 100:
                    try:
                        sock.sendall(bytes([byte]))
                    except OSError:
                        break
                    time.sleep(0.005)
                self.assertEqual(drained(sock), b"")
        self.until(lambda: len(self.server._open) == 0, "every connection is closed")

    def test_heads_without_end(self) -> None:
        """A head of more than 64 KiB is refused."""
        self.assertTrue(self.raw(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000).startswith(b"HTTP/1.1 431"))


class SlowProviders(unittest.TestCase):
    def test_stopping_waits_for_no_provider(self) -> None:
        """A call whose provider does not answer, and whose wire is its own and cannot be shut, keeps nobody from stopping."""
        asked, over = threading.Event(), threading.Event()

        class Deaf:
            def send(self, *_: object, **settings: object) -> None:
                asked.set()
                over.wait(20)
                raise part("wire").WireFault("cut", "over")

        provider: Any = ir.OpenAICompatProvider("stuck", "http://127.0.0.1:1")
        provider.wire = Deaf()
        with ir.Router(ir.Config(accounts=[ir.AccountConfig("stuck", "s", auth=ir.Auth("k"))]), [provider]) as router:
            server = ir.serve(router, port=0)
            with socket.create_connection(("127.0.0.1", server.port)) as hanging:
                hanging.sendall(post(json.dumps({**HELLO, "model": "stuck/m"}).encode()))
                self.assertTrue(asked.wait(5))
                began = time.monotonic()
                with unittest.mock.patch.object(part("serve_endpoint"), "LAST_S", 0.05):
                    server.stop(0.05)
                self.assertLess(time.monotonic() - began, 3.0)
            thread = next(iter(server._open.values()))
            over.set()
            thread.join(10)
        self.assertFalse(thread.is_alive())

    def test_an_answer_that_never_comes_holds_nobody_else(self) -> None:
        """While one call hangs at its provider, others are answered."""
        with ScriptedServer(lambda peer: peer.wait(20) if peer.request() else None) as stuck, simulator.Simulator() as sim:
            accounts = [
                ir.AccountConfig("stuck", "s", base_url=stuck.url, auth=ir.Auth("k")),
                ir.AccountConfig("sim", "a", base_url=sim.base_url, auth=ir.Auth("sk-1")),
            ]
            providers = [ir.OpenAICompatProvider("stuck", stuck.url), ir.OpenAICompatProvider("sim", sim.base_url)]
            with ir.Router(ir.Config(accounts=accounts), providers) as router, ir.serve(router, port=0, grace=0) as server:
                with socket.create_connection(("127.0.0.1", server.port)) as hanging:
                    hanging.sendall(post(json.dumps({**HELLO, "model": "stuck/m"}).encode()))
                    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as quick:
                        quick.sendall(post(json.dumps({**HELLO, "model": "sim/m"}).encode(), "Connection: close"))
                        self.assertIn(b"200 OK", drained(quick))
                stuck.stopped.set()


if __name__ == "__main__":
    unittest.main()
