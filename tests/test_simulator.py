"""The simulator as a server: life, keys, limits, faults, log."""

from __future__ import annotations

import http.client
import sys
import threading
import unittest
from typing import Any

from tests import part
from tests.servers import Client

sim = part("simulator")
prompts = part("simulator_prompt")

OPENAI = {"authorization": "Bearer sk-1"}
GEMINI = {"x-goog-api-key": "sk-1"}
ANTHROPIC = {"x-api-key": "sk-1", "anthropic-version": "2023-06-01"}
HEADERS = {"openai": OPENAI, "gemini": GEMINI, "anthropic": ANTHROPIC}


def ask(dialect: str, text: str = "Tell me of ships.", *, stream: bool = False) -> tuple[str, dict[str, Any]]:
    """Path and body of a small chat."""
    if dialect == "gemini":
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/models/m:{method}", {"contents": [{"parts": [{"text": text}]}]}
    path = "/messages" if dialect == "anthropic" else "/chat/completions"
    extra = {"max_tokens": 100} if dialect == "anthropic" else {}
    return path, {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream, **extra}


def client(server: Any, key: str = "sk-1") -> Client:
    """A client with `key` in the header the dialect wants."""
    return Client(server.base_url, {name: value.replace("sk-1", key) for name, value in HEADERS[server.dialect].items()})


class Clock:
    """Epoch seconds that move by hand."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class LifeTest(unittest.TestCase):
    def test_no_address_before_start(self) -> None:
        """A simulator has no address, no socket and no thread until it is started, and none after it is stopped."""
        before = threading.active_count()
        server = sim.Simulator()
        with self.assertRaises(RuntimeError):
            _ = server.base_url
        self.assertEqual(threading.active_count(), before)
        server.start()
        with client(server) as http_client:
            self.assertEqual(http_client.post(*ask("openai")).status, 200)
            server.stop()
        self.assertEqual(threading.active_count(), before)
        with self.assertRaises(RuntimeError):
            _ = server.base_url

    def test_restart_keeps_the_books(self) -> None:
        """A simulator that is started again still knows what each key has used."""
        server = sim.Simulator(keys={"sk-1": sim.KeyLimits(rpd=1)}, clock=Clock())
        statuses = []
        for _ in range(2):
            with server, client(server) as http_client:
                statuses.append(http_client.post(*ask("openai")).status)
        self.assertEqual(statuses, [200, 429])

    def test_keep_alive(self) -> None:
        """One connection serves several requests, refusals and streams among them."""
        with sim.Simulator() as server, client(server) as http_client:
            http_client.post(*ask("openai"))
            socket = http_client.connection.sock
            http_client.post("/chat/completions", b"{")
            http_client.post(*ask("openai", stream=True))
            self.assertIsNotNone(socket)
            self.assertIs(http_client.connection.sock, socket)

    def test_stop_ends_a_slow_answer(self) -> None:
        """Stopping does not wait for an answer that is slow on purpose."""
        with sim.Simulator() as server, client(server) as http_client:
            server.script([sim.Fault("slow", seconds=60)])
            seen = threading.Event()
            broken: list[BaseException] = []

            def run() -> None:
                try:
                    http_client.post(*ask("openai"))
                except (http.client.HTTPException, OSError) as error:
                    broken.append(error)
                seen.set()

            thread = threading.Thread(target=run)
            thread.start()
            while not server.log:
                pass
            server.stop()
            self.assertTrue(seen.wait(5))
            thread.join()
        self.assertEqual(len(broken), 1)

    def test_unframed_request(self) -> None:
        """A request without a length is refused and its connection closed, the next one is served."""
        with sim.Simulator() as server:
            with client(server) as http_client:
                connection = http_client.connection
                connection.putrequest("POST", "/v1/chat/completions")
                for name, value in {**OPENAI, "Transfer-Encoding": "chunked"}.items():
                    connection.putheader(name, value)
                connection.endheaders()  # no body, whose loss on a closing connection could take the answer along
                self.assertEqual(connection.getresponse().status, 411)
            with client(server) as http_client:
                self.assertEqual(http_client.post(*ask("openai")).status, 200)

    def test_unknown_dialect(self) -> None:
        """A dialect nobody speaks is refused with the names of those that are."""
        with self.assertRaises(part("errors").ConfigError) as caught:
            sim.Simulator("klingon")
        self.assertIn("anthropic", str(caught.exception))

    def test_repeatable(self) -> None:
        """The same requests under the same clock give the same bytes."""
        bodies = []
        for _ in range(2):
            with sim.Simulator(clock=Clock()) as server, client(server) as http_client:
                bodies.append([http_client.post(*ask("openai", stream=stream)).body for stream in (False, True)])
        self.assertEqual(bodies[0], bodies[1])

    def test_reply(self) -> None:
        """The caller's own reply is given the question and its words are what goes out."""
        with sim.Simulator(reply=str.upper) as server, client(server) as http_client:
            found = http_client.post(*ask("openai", "be loud")).json
        self.assertEqual(found["choices"][0]["message"]["content"], "BE LOUD")


class KeyTest(unittest.TestCase):
    def test_limits_hold_under_threads(self) -> None:
        """Sixteen threads on a key of 50 a day are served exactly 50 times."""
        statuses: list[int] = []
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)  # threads change places as often as they can
        with sim.Simulator(keys={"sk-1": sim.KeyLimits(rpd=50)}, clock=Clock()) as server:

            def run() -> None:
                with client(server) as http_client:
                    statuses.extend(http_client.post(*ask("openai")).status for _ in range(5))

            threads = [threading.Thread(target=run) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            usage = server.usage()[0]
        self.assertEqual((statuses.count(200), statuses.count(429)), (50, 30))
        self.assertEqual((usage.requests, usage.refused), (50, 30))

    def test_minute_window(self) -> None:
        """A spent minute is refused until the next one begins, a spent day until midnight UTC."""
        clock = Clock(1_800_000_000.0 - 1_800_000_000.0 % 86400)
        with sim.Simulator(keys={"sk-1": sim.KeyLimits(rpm=1, rpd=2)}, clock=clock) as server:
            with client(server) as http_client:
                statuses = []
                for step in (0.0, 59.0, 1.0, 60.0, 86280.0):
                    clock.now += step
                    statuses.append(http_client.post(*ask("openai")).status)
        self.assertEqual(statuses, [200, 429, 200, 429, 200])

    def test_tokens(self) -> None:
        """Token limits count prompt and completion, and refuse a prompt that no longer fits; a refusal is not charged."""
        with (
            sim.Simulator(keys={"sk-1": sim.KeyLimits(tpm=20)}, clock=Clock()) as server,
            client(server) as http_client,
        ):
            first = http_client.post(*ask("openai", "What is the capital of France?")).json["usage"]
            second = http_client.post(*ask("openai", "one two three four five six"))
            usage = server.usage()[0]
        self.assertEqual(first["prompt_tokens"], prompts.count_tokens("What is the capital of France?"))
        self.assertEqual(first["completion_tokens"], prompts.count_tokens("The capital of France is Paris."))
        self.assertEqual(second.status, 429)
        self.assertEqual(usage.tokens, first["total_tokens"])

    def test_keys_are_apart(self) -> None:
        """Each key has its own limits, and the log tells them apart by place, never by value."""
        with sim.Simulator(keys={"sk-1": sim.KeyLimits(rpd=1), "sk-2": None}, clock=Clock()) as server:
            for key in ("sk-1", "sk-1", "sk-2", "sk-bad"):
                with client(server, key) as http_client:
                    http_client.post(*ask("openai"))
            seen = [(served.key, served.status) for served in server.log]
        self.assertEqual(seen, [(0, 200), (0, 429), (1, 200), (None, 401)])
        self.assertNotIn("sk-", repr(server.log) + repr(vars(server)))

    def test_log(self) -> None:
        """The log tells model, stream and tokens of each request, in order, with the tokens its answer reported."""
        with sim.Simulator(models=["m"]) as server, client(server) as http_client:
            usage = http_client.post(*ask("openai")).json["usage"]
            http_client.post(*ask("openai", stream=True))
            http_client.post("/chat/completions", {**ask("openai")[1], "model": "x"})
            log = server.log
        spent = (usage["prompt_tokens"], usage["completion_tokens"])
        self.assertEqual(log[0], sim.LoggedRequest(0, "m", 200, False, *spent))
        self.assertEqual(log[1], sim.LoggedRequest(0, "m", 200, True, *spent))
        self.assertEqual(log[2], sim.LoggedRequest(0, "x", 404))

    def test_keyless(self) -> None:
        """An empty key stands for a server that asks for none."""
        with sim.Simulator(keys=[""]) as server, Client(server.base_url, {}) as http_client:
            self.assertEqual(http_client.post(*ask("openai")).status, 200)


class FaultTest(unittest.TestCase):
    def each(self, fault: Any, *, stream: bool = False) -> Any:
        """The reply of every dialect to a request that meets `fault`, or the error it ends in."""
        for dialect in HEADERS:
            with self.subTest(dialect), sim.Simulator(dialect) as server, client(server) as http_client:
                server.script([fault])
                try:
                    yield dialect, http_client.post(*ask(dialect, stream=stream))
                except (http.client.HTTPException, OSError) as error:
                    yield dialect, error
                self.assertEqual(server.log[-1].fault, fault.kind)
                with client(server) as again:
                    self.assertEqual(again.post(*ask(dialect)).status, 200)

    def test_status(self) -> None:
        """fail_next answers the status with the provider's own body, only so many times, and charges nothing."""
        with sim.Simulator() as server, client(server) as http_client:
            server.fail_next(2, status=500, headers={"retry-after": "7"})
            replies = [http_client.post(*ask("openai")) for _ in range(3)]
            self.assertEqual(server.usage()[0].requests, 1)
        self.assertEqual([reply.status for reply in replies], [500, 500, 200])
        self.assertEqual(replies[0].headers["retry-after"], "7")
        self.assertEqual(replies[0].json["error"]["type"], "server_error")

    def test_status_with_a_body(self) -> None:
        """A scripted body goes out as it is, be it text or JSON."""
        with sim.Simulator() as server, client(server) as http_client:
            server.fail_next(status=402, body={"error": "pay"})
            server.fail_next(status=502, body="<h1>Bad gateway</h1>")
            first, second = http_client.post(*ask("openai")), http_client.post(*ask("openai"))
        self.assertEqual((first.status, first.json), (402, {"error": "pay"}))
        self.assertEqual((second.status, second.body), (502, b"<h1>Bad gateway</h1>"))

    def test_for_one_key(self) -> None:
        """A fault for one key waits for it while the others are served."""
        with sim.Simulator(keys=["sk-1", "sk-2"]) as server:
            server.fail_next(key=1)
            with client(server, "sk-1") as first, client(server, "sk-2") as second:
                statuses = [each.post(*ask("openai")).status for each in (first, second, second)]
        self.assertEqual(statuses, [200, 503, 200])

    def test_script_in_order(self) -> None:
        """None in a script serves one request as usual."""
        with sim.Simulator() as server, client(server) as http_client:
            server.script([None, sim.Fault("status", 500), None])
            statuses = [http_client.post(*ask("openai")).status for _ in range(4)]
        self.assertEqual(statuses, [200, 500, 200, 200])

    def test_html(self) -> None:
        """html is a web page with status 200."""
        for _, reply in self.each(sim.Fault("html")):
            self.assertEqual(reply.status, 200)
            self.assertTrue(reply.body.startswith(b"<!DOCTYPE"))

    def test_broken_json(self) -> None:
        """broken_json is a whole HTTP body whose JSON is not whole, unary and in a stream."""
        for _, reply in self.each(sim.Fault("broken_json")):
            with self.assertRaises(ValueError):
                _ = reply.json
        for _, reply in self.each(sim.Fault("broken_json"), stream=True):
            with self.assertRaises(ValueError):
                _ = reply.events

    def test_empty(self) -> None:
        """empty is a 200 that holds no answer."""
        for dialect, reply in self.each(sim.Fault("empty")):
            name = {"openai": "choices", "gemini": "candidates", "anthropic": "content"}[dialect]
            self.assertFalse(reply.json.get(name))
        for _, reply in self.each(sim.Fault("empty"), stream=True):
            self.assertEqual((reply.status, reply.body), (200, b""))

    def test_error_inside(self) -> None:
        """error_inside is an error object in a 200; in a stream it comes after content and is the last event."""
        for _, reply in self.each(sim.Fault("error_inside")):
            self.assertEqual(reply.status, 200)
            self.assertIn("error", reply.json)
        for _, reply in self.each(sim.Fault("error_inside", after=3), stream=True):
            self.assertEqual(len(reply.events), 4)
            self.assertIn("error", reply.events[-1])

    def test_cut(self) -> None:
        """cut closes the connection in mid-body, so that length or framing tells."""
        for stream in (False, True):
            for _, reply in self.each(sim.Fault("cut"), stream=stream):
                self.assertIsInstance(reply, http.client.IncompleteRead)

    def test_unfinished(self) -> None:
        """unfinished ends a stream cleanly, with all of its content and without its terminal marker."""
        marks = {"openai": b'finish_reason":"stop', "gemini": b"finishReason", "anthropic": b"message_stop"}
        for dialect, reply in self.each(sim.Fault("unfinished"), stream=True):
            self.assertEqual(reply.status, 200)
            self.assertNotIn(marks[dialect], reply.body)
            self.assertNotIn(b"[DONE]", reply.body)
            self.assertGreater(len(reply.events), 3)

    def test_dropped(self) -> None:
        """dropped closes the connection without a byte."""
        for _, reply in self.each(sim.Fault("dropped")):
            self.assertIsInstance(reply, ConnectionError)

    def test_slow_and_stall(self) -> None:
        """slow is silent before the answer and stall in the middle of a stream, for longer than a client waits."""
        for fault, stream in ((sim.Fault("slow", seconds=30), False), (sim.Fault("stall", seconds=30), True)):
            with sim.Simulator() as server, client(server) as http_client:
                server.script([fault])
                http_client.connection.timeout = 0.05
                with self.assertRaises(TimeoutError):
                    http_client.post(*ask("openai", stream=stream))


if __name__ == "__main__":
    unittest.main()
