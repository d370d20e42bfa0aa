"""Every call ends by its deadline, however slowly the other side goes, and a stream by its silence."""

from __future__ import annotations

import itertools
import socket
import time
import unittest
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from unittest import mock

from tests import part
from tests.cases import WireCase, read, transport
from tests.servers import OK, Peer, ScriptedServer, answering

GRACE_S = 0.1
TOTAL_S = 0.2
SHORT_S = 0.1
"""Where nothing has to happen in time but the end."""
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PING = b"8\r\n: ping\n\n\r\n"


def silent(peer: Peer) -> None:
    peer.request()
    peer.wait()


def silent_in_body(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    peer.wait()


def drip_body(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    peer.drip(b"x" * 1000, 0.02)


def drip_head(peer: Peer) -> None:
    peer.request()
    peer.drip(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000, 0.02)


def drip_chunk_sizes(peer: Peer) -> None:
    peer.request()
    peer.send(CHUNKED)
    peer.drip(b"0" * 1000, 0.02)


def pings(peer: Peer) -> None:
    peer.request()
    peer.send(CHUNKED)
    while peer.send(PING) and not peer.server.stopped.wait(0.02):
        pass


def continues(peer: Peer) -> None:
    peer.request()
    while peer.send(b"HTTP/1.1 100 Continue\r\n\r\n") and not peer.server.stopped.wait(0.02):
        pass


def floods_continues(peer: Peer) -> None:
    peer.request()
    while peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 100):
        pass


def trailers(peer: Peer) -> None:
    peer.request()
    peer.send(CHUNKED + b"0\r\n")
    while peer.send(b"X: 1\r\n") and not peer.server.stopped.wait(0.02):
        pass


def floods_trailers(peer: Peer) -> None:
    peer.request()
    peer.send(CHUNKED + b"0\r\n")
    while peer.send(b"X: 1\r\n" * 100):
        pass


def reads_nothing(peer: Peer) -> None:
    peer.wait()


SLOW: list[tuple[str, Callable[[Peer], None]]] = [
    ("silent before the head", silent),
    ("silent in the body", silent_in_body),
    ("drips the body", drip_body),
    ("drips the head", drip_head),
    ("drips a chunk size", drip_chunk_sizes),
    ("pings for ever", pings),
    ("repeats 100 Continue", continues),
    ("never ends the trailers", trailers),
    ("never reads the upload", reads_nothing),
]


class Deadlines(WireCase):
    def test_slow_servers(self) -> None:
        """Against every slow server, in plain and in TLS, a call ends by its deadline, with a timeout."""
        with ExitStack() as stack, ThreadPoolExecutor(20) as pool:
            runs = []
            for tls in ("", "good"):
                for name, script in SLOW:
                    url = stack.enter_context(ScriptedServer(script, tls)).url
                    call = url, bytes(20 << 20) if "upload" in name else b"{}"
                    runs.append((name, call, pool.submit(self._overshoot, *call)))
            for name, call, run in runs:
                kind, over = run.result()
                if over >= GRACE_S:  # perhaps the machine was busy with all the others: once more, alone
                    kind, over = self._overshoot(*call)
                with self.subTest(name):
                    self.assertEqual(kind, "timeout")
                    self.assertGreater(over, -0.05)
                    self.assertLess(over, GRACE_S)

    def test_floods(self) -> None:
        """A server that sends nothing but 100 Continue, or trailers, as fast as it can, keeps nobody busy until the deadline."""
        for flood, tls in itertools.product((floods_continues, floods_trailers), ("", "good")):
            with ScriptedServer(flood, tls) as server:
                began = time.monotonic()
                self.assertEqual(self.fault(server.url, timeout_s=20.0).kind, "timeout")
                self.assertLess(time.monotonic() - began, 2.0)

    def test_no_server_hello(self) -> None:
        """A server that takes the connection and never shakes hands is a timeout that sent nothing."""
        with ScriptedServer(lambda peer: peer.wait()) as server:
            start = time.monotonic()
            fault = self.fault(server.url.replace("http", "https"), timeout_s=SHORT_S)
            self.assertEqual((fault.kind, fault.sent), ("timeout", False))
            self.assertLess(time.monotonic() - start, SHORT_S + GRACE_S)

    def test_dead_addresses(self) -> None:
        """Three addresses that never answer share the time; a live one behind them is still reached."""
        with socket.socket() as full, ExitStack() as stack:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(3):  # fills the backlog, so that the next connection gets no answer
                other = stack.enter_context(socket.socket())
                other.setblocking(False)
                other.connect_ex(full.getsockname())
            dead = (socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname())
            with mock.patch("socket.getaddrinfo", return_value=[dead] * 3):
                start = time.monotonic()
                fault = self.fault("http://localhost:1/", timeout_s=SHORT_S)
                self.assertEqual((fault.kind, fault.sent), ("timeout", False))
                self.assertLess(time.monotonic() - start, SHORT_S + GRACE_S)
            server = stack.enter_context(ScriptedServer(answering(OK)))
            live = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
            with mock.patch("socket.getaddrinfo", return_value=[dead, *[live] * 9]):  # a tenth of the time is the dead one's
                self.assertEqual(self.send("http://localhost:1/", timeout_s=1.0).read(), b"ok")

    def test_the_name_look_up_is_charged(self) -> None:
        """The time a name look-up took is missing afterwards: nothing is connected once the deadline is over."""
        now = [0.0]

        def slow(*_: Any) -> Any:
            now[0] += 2.0
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]

        wire = self.transport(monotonic=lambda: now[0])
        with mock.patch("socket.getaddrinfo", slow), mock.patch("socket.socket.connect", side_effect=AssertionError):
            fault = self.fault("https://h.example/", timeout_s=1.5, wire=wire)
        self.assertEqual((fault.kind, fault.sent), ("timeout", False))

    def test_no_time_left(self) -> None:
        """A timeout of nothing or less sends nothing; on a kept connection the server sees no second request."""
        for timeout_s in (0.0, -5.0):
            with ScriptedServer(answering(OK)) as server:
                for _ in range(2):
                    fault = self.fault(server.url, timeout_s=timeout_s)
                    self.assertEqual((fault.kind, fault.sent), ("timeout", False))
                    self.send(server.url).read()
                self.assertEqual((len(server.requests), server.connections), (2, 1))

    def test_endless_time(self) -> None:
        """An infinite timeout is allowed."""
        with ScriptedServer(answering(OK)) as server:
            self.assertEqual(self.send(server.url, timeout_s=float("inf")).read(), b"ok")

    def test_a_kept_connection_gets_a_new_deadline(self) -> None:
        """The deadline and the silence allowed to one call do not bind the next one on the same connection."""

        def script(peer: Peer) -> None:
            while peer.request() is not None:
                peer.wait(0.05)
                peer.send(OK)

        with ScriptedServer(script) as server:
            reply = self.send(server.url)
            reply.set_limits(0.001, 0.001)  # enough: the body has come with the head
            reply.read()
            again = self.send(server.url)
            self.assertEqual((server.reused, again.read()), (True, b"ok"))

    def _overshoot(self, url: str, body: bytes) -> tuple[str, float]:
        start = time.monotonic()
        try:
            with self.wire.send(transport.WireRequest(url, body), timeout_s=TOTAL_S) as reply:
                read(reply, some=True)
        except transport.WireFault as fault:
            return fault.kind, time.monotonic() - start - TOTAL_S
        return "none", 0.0


class Rearmed(WireCase):
    def test_silence(self) -> None:
        """A stream that is silent for longer than idle_s ends by it, although its total is far away."""
        with ScriptedServer(silent_in_body) as server, self.send(server.url) as reply:
            reply.set_limits(30.0, 0.05)
            self.assertEqual(reply.read_some(), b"abc")
            start = time.monotonic()
            with self.assertRaises(transport.WireFault) as caught:
                reply.read_some()
            self.assertEqual((caught.exception.kind, caught.exception.sent), ("timeout", True))
            self.assertLess(time.monotonic() - start, 0.05 + GRACE_S)

    def test_pings_break_the_silence_but_not_the_total(self) -> None:
        """Comments keep a stream alive past its idle time, until its total is over."""
        with ScriptedServer(pings) as server, self.send(server.url) as reply:
            start = time.monotonic()
            reply.set_limits(0.22, 0.15)
            with self.assertRaises(transport.WireFault):
                while reply.read_some() and time.monotonic() - start < 3.0:
                    pass
            self.assertGreater(time.monotonic() - start, 0.2)
            self.assertLess(time.monotonic() - start, 0.22 + GRACE_S)

    def test_limits_can_be_lifted(self) -> None:
        """A reply armed with None outlives the timeout it was sent with."""

        def script(peer: Peer) -> None:
            peer.request()
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
            peer.wait(0.22)
            peer.send(b"k")

        with ScriptedServer(script) as server, self.send(server.url, timeout_s=0.2) as reply:
            reply.set_limits(None)
            self.assertEqual(reply.read(), b"ok")


class Leaving(WireCase):
    def test_every_way_closes_the_socket(self) -> None:
        """Leaving a stream early, by close, by exception or by forgetting it, ends the connection within 50 ms."""

        def close(reply: Any) -> None:
            reply.close()

        def error(reply: Any) -> None:
            with self.assertRaises(ZeroDivisionError), reply:
                raise ZeroDivisionError

        def forget(reply: Any) -> None:
            del reply

        for leave in (close, error, forget):
            seen: list[float] = []

            def script(peer: Peer, seen: list[float] = seen) -> None:
                peer.request()
                peer.send(CHUNKED + PING)
                if peer.gone():
                    seen.append(time.monotonic())

            with ScriptedServer(script) as server:
                holder = [self.send(server.url)]
                holder[0].read_some()
                start = time.monotonic()
                leave(holder.pop())
                server._threads[-1].join(3)
                self.assertEqual(len(seen), 1)
                self.assertLess(seen[0] - start, 0.05)


class Patience(unittest.TestCase):
    def test_set_when_it_differs(self) -> None:
        """A wait is handed to the system when it is off by more than a millisecond, or may not be at all, and no other time."""
        now = [0.0]
        near, far = socket.socketpair()
        timed = part("connections").TimedSocket(fileno=near.detach())
        self.addCleanup(timed.close)
        self.addCleanup(far.close)
        timed.clock = lambda: now[0]
        steps = [(0.0, 10.0, 10.0), (0.0005, 10.0, None), (0.002, 10.0, 9.998), (0.002, 10.0009, None), (0.002, 10.002, 10.0)]
        steps += [(5.0, 5.0005, 0.0005)]
        for at, deadline, wanted in steps:
            now[0], timed.deadline = at, deadline
            far.sendall(b"x")
            with self.subTest(at=at), mock.patch.object(timed, "settimeout", wraps=timed.settimeout) as setter:
                self.assertEqual(timed.recv(9), b"x")
                self.assertEqual([round(call.args[0], 6) for call in setter.call_args_list], [wanted] if wanted else [])
        timed.idle = 0.0
        with self.assertRaises(OSError):
            timed.recv(9)


if __name__ == "__main__":
    unittest.main()
