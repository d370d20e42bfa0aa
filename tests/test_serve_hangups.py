"""Clients that hang up while their call is with a provider: it ends at once, stays charged, and makes room for the next."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from tests import ir, part
from tests.servers import Peer, ScriptedServer
from tests.serving import HELLO, Served, post

MESSAGES = [{"role": "user", "content": "hello"}]
CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": HELLO,
    "/v1/completions": {"model": "fast", "prompt": "hello"},
    "/v1/responses": {"model": "fast", "input": "hello"},
    "/v1/messages": {"model": "fast", "messages": MESSAGES, "max_tokens": 100},
}
WAYS = [(path, {**body, "stream": stream}) for path, body in CALLS.items() for stream in (False, True)]
WAYS.append(("/v1/embeddings", {"model": "fast", "input": "hello"}))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: hold on\n\n"


class Stuck(Served):
    """Over a provider that takes requests and says no more than `beginning`."""

    limits = {"rpd": 1000, "parallel": 1}  # noqa: RUF012  # never changed
    settings = {"max_clients": 1, "max_wait": 30.0}  # noqa: RUF012  # as above
    beginning = b""

    def setUp(self) -> None:
        self.left: list[float] = []

        def script(peer: Peer) -> None:
            while peer.request():
                peer.sock.sendall(self.beginning)
                peer.sock.settimeout(10)
                if peer.sock.recv(1) == b"":
                    self.left.append(time.monotonic())
                return

        self.provider = ScriptedServer(script)
        self.addCleanup(self.provider.__exit__)
        super().setUp()

    def make_router(self) -> Any:
        account = ir.AccountConfig("stuck", "a", base_url=self.provider.url, auth=ir.Auth("k"), limits=self.limits)
        models = [ir.ModelMapping("fast", [ir.ModelRef("stuck", "m")])]
        config = ir.Config(models=models, default_model="fast", accounts=[account])
        return ir.Router(config, [ir.OpenAICompatProvider("stuck", self.provider.url)])

    def hang_up(self, path: str, body: dict[str, Any], reset: bool = False) -> float:
        """Ask, leave once the provider has it, and return when."""
        came = len(self.provider.requests)
        with self.connect() as sock:
            sock.sendall(post(json.dumps(body).encode(), path=path))
            self.until(lambda: len(self.provider.requests) > came, f"{path} has reached the provider")
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return time.monotonic()

    def check(self, ways: list[tuple[str, dict[str, Any]]], reset: bool = False) -> None:
        for number, (path, body) in enumerate(ways, 1):
            with self.subTest(path=path, stream=body.get("stream")):
                at = self.hang_up(path, body, reset)
                self.assertEqual(self.ask("GET", "/healthz").status, 200)  # the only place for a client is free again
                self.assertLess(time.monotonic() - at, 2.0)
                self.until(lambda: len(self.left) == number, "the provider's connection is closed", 2.0)  # noqa: B023
                call = self.server.calls.past()[0]
                self.assertEqual((call.state, call.status, call.path), ("left", 499, path.removeprefix("/v1")))
                found = self.router.status()["a"]
                self.assertEqual([limit.used for limit in found.limits], [number, 0])  # charged, and its place is given back
                self.assertEqual((found.in_flight, found.breaker), (0, "closed"))
        self.assertEqual(self.server.calls.under_way(), [])


class Before(Stuck):
    def test_before_the_answer_begins(self) -> None:
        """Whole or streamed, in any dialect: the provider's connection is closed, the call charged, the next client served."""
        self.check(WAYS)

    def test_a_reset(self) -> None:
        """A connection that breaks is as one that is closed."""
        self.check(WAYS[:2], reset=True)

    def test_a_client_that_says_no_more(self) -> None:
        """One that shuts its sending half counts as gone, as most servers take it: nothing tells it from one that has closed."""
        with self.connect() as sock:
            sock.sendall(post(json.dumps(HELLO).encode()))
            self.until(lambda: self.provider.requests, "it has reached the provider")
            sock.shutdown(socket.SHUT_WR)
            self.until(lambda: self.left, "the provider's connection is closed", 2.0)
            self.assertEqual(sock.recv(99), b"")
        self.assertEqual([call.state for call in self.server.calls.past()], ["left"])

    def test_several_choices(self) -> None:
        """What was left during the first of several choices asks for no other."""
        self.check([("/v1/chat/completions", {**HELLO, "n": 3})])
        self.assertEqual(len(self.provider.requests), 1)

    def test_with_another_request_behind_it(self) -> None:
        """A client that had sent its next request already is seen to leave too."""
        with self.connect() as sock:
            sock.sendall(post(json.dumps(HELLO).encode()))
            self.until(lambda: self.provider.requests, "it has reached the provider")
            sock.sendall(post(json.dumps(HELLO).encode()))
        self.until(lambda: self.left, "the provider's connection is closed", 2.0)
        self.until(lambda: not self.server._open, "its place is free", 2.0)
        self.assertEqual(len(self.provider.requests), 1)


class Amid(Stuck):
    beginning = HEAD

    def test_amid_a_whole_answer(self) -> None:
        """The head was there, and the body will never be."""
        self.check([way for way in WAYS if not way[1].get("stream")])


class Silent(Stuck):
    beginning = STREAM

    def test_before_the_first_content(self) -> None:
        """The provider has begun a stream, and sends nothing but comments."""
        self.check([way for way in WAYS if way[1].get("stream")])


class Stops(Stuck):
    def test_a_stop_ends_what_is_with_a_provider(self) -> None:
        """Calls under way have their grace to end; after it their connections are closed, and no thread is left."""
        with self.connect() as sock:
            sock.sendall(post(json.dumps(HELLO).encode()))
            self.until(lambda: self.provider.requests, "it has reached the provider")
            self.server.stop(0.05)
            self.until(lambda: self.left, "the provider's connection is closed", 1.0)
        self.assertEqual(self.server._open, {})
        self.assertEqual(self.router.status()["a"].in_flight, 0)


class Watching(unittest.TestCase):
    def test_one_calls_fault(self) -> None:
        """A call whose settling fails leaves the others watched."""
        self.enterContext(mock.patch.object(part("serve_watch"), "TICK_S", 0.02))
        watch, seen = part("serve_watch").Watch(), threading.Event()
        pairs = [socket.socketpair() for _ in range(2)]

        def fails() -> None:
            raise ir.QuotaStoreError("not there")

        with self.assertLogs("inferrouter.serve", "ERROR") as logged:
            watch.add(pairs[0][0], fails, fails)
            watch.start()
            self.addCleanup(watch.stop)
            pairs[0][1].close()
            while not logged.records:
                time.sleep(0.01)
            watch.add(pairs[1][0], seen.set)
            pairs[1][1].close()
            self.assertTrue(seen.wait(2))
        for pair in pairs:
            pair[0].close()


class Connecting(unittest.TestCase):
    def test_while_a_connection_is_made(self) -> None:
        """What was not sent is not charged: a server whose queue is full takes no connection, and the call ends all the same."""
        self.enterContext(mock.patch.object(part("serve_watch"), "TICK_S", 0.02))
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            waiting = [socket.socket() for _ in range(3)]
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            url = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
            account = ir.AccountConfig("full", "a", base_url=url, auth=ir.Auth("k"), limits={"rpd": 10})
            with (
                ir.Router(ir.Config([account]), [ir.OpenAICompatProvider("full", url)]) as router,
                ir.serve(router, port=0) as server,
            ):
                with socket.create_connection(("127.0.0.1", server.port)) as sock:
                    sock.sendall(post(json.dumps({**HELLO, "model": "full/m"}).encode()))
                    while not router.status()["a"].in_flight:
                        time.sleep(0.01)
                began = time.monotonic()
                while server.calls.under_way():
                    self.assertLess(time.monotonic() - began, 2.0)
                    time.sleep(0.01)
                self.assertEqual(router.status()["a"].limits[0].used, 0)
            for sock in waiting:
                sock.close()


class Cancels(unittest.TestCase):
    def test_a_call_is_given_up_wherever_it_is(self) -> None:
        """`Cancel.hang_up` ends a call that is with a provider, and one thrown before the call asks nobody at all."""
        with ScriptedServer(lambda peer: peer.wait(20) if peer.request() else None) as stuck:
            account = ir.AccountConfig("stuck", "a", base_url=stuck.url, auth=ir.Auth("k"), limits={"rpd": 10})
            with ir.Router(ir.Config([account]), [ir.OpenAICompatProvider("stuck", stuck.url)]) as router:
                cancel = ir.Cancel()
                with ThreadPoolExecutor(1) as pool:
                    call = pool.submit(router.chat_completion, ir.ChatRequest("hello", model="stuck/m"), cancel=cancel)
                    while not stuck.requests:
                        time.sleep(0.01)
                    cancel.cancel()  # for calls that wait alone
                    self.assertRaises(TimeoutError, call.result, 0.05)
                    cancel.hang_up()
                    self.assertRaises(ir.CallCancelledError, call.result, 2)
                with self.assertRaises(ir.CallCancelledError):
                    router.chat_completion(ir.ChatRequest("hello", model="stuck/m"), cancel=cancel)
                self.assertEqual((len(stuck.requests), router.status()["a"].limits[0].used), (1, 1))
            stuck.stopped.set()

    def test_amid_a_handshake(self) -> None:
        """A server that takes a connection and says nothing of TLS is left as well, and what was not sent is not charged."""
        with ScriptedServer(lambda peer: peer.gone()) as mute:
            account = ir.AccountConfig("mute", "a", base_url=f"https://{mute.netloc}/v1", auth=ir.Auth("k"), limits={"rpd": 10})
            with ir.Router(ir.Config([account])) as router, ThreadPoolExecutor(1) as pool:
                cancel = ir.Cancel()
                call = pool.submit(router.chat_completion, ir.ChatRequest("hello", model="mute/m"), cancel=cancel)
                while not mute.connections:
                    time.sleep(0.01)
                cancel.hang_up()
                self.assertRaises(ir.CallCancelledError, call.result, 2)
                self.assertEqual(router.status()["a"].limits[0].used, 0)

    def test_a_kept_connection_is_not_another_calls(self) -> None:
        """A call that ends as it is given up leaves its connection to nobody, since that may be shut at any moment."""
        transport = part("transport").Transport()
        with ScriptedServer(keep) as server:
            for cut in (False, True, False):
                cancel = ir.Cancel()
                with transport.send(part("wire").WireRequest(server.url), timeout_s=5, stop=cancel) as reply:
                    cancel.cut = cut  # as far as `hang_up` has come when the last byte is read
                    self.assertEqual(reply.read(), b"ok")
                self.assertIsNone(cancel._shut)
            transport.close()
        self.assertEqual([number for number, _ in server.requests], [0, 0, 1])


def keep(peer: Peer) -> None:
    while peer.request():
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


if __name__ == "__main__":
    unittest.main()
