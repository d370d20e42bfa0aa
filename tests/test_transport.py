"""The transport on a good day: requests as they were meant, answers whole, connections kept and never shared."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import time
import unittest
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from tests import PACKAGE, part
from tests.cases import KEY, WireCase, read, request, secret, transport
from tests.servers import OK, Peer, ScriptedServer, answering, then_close


def echo(peer: Peer) -> None:
    """Answers each request with its own body."""
    while (asked := peer.request()) is not None:
        body = asked.partition(b"\r\n\r\n")[2]
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


class Requests(WireCase):
    def test_what_the_server_gets(self) -> None:
        """One POST arrives with its path, query, headers, key, length and body; nothing is asked to be compressed."""
        with ScriptedServer(answering(OK)) as server:
            with self.send(server.url + "/v1/chat?alt=sse", b'{"a":1}') as reply:
                self.assertEqual((reply.status, reply.read(), reply.read_some()), (200, b"ok", b""))
        head, _, body = server.requests[0][1].partition(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        self.assertEqual(line, "POST /v1/chat?alt=sse HTTP/1.1")
        self.assertEqual(body, b'{"a":1}')
        self.assertEqual(
            {name.lower(): value for name, value in (header.split(": ", 1) for header in headers)},
            {"host": server.netloc, "authorization": f"Bearer {KEY}", "content-type": "application/json", "content-length": "7",
             "accept-encoding": "identity", "user-agent": "inferrouter"},
        )  # fmt: skip

    def test_get_without_path_or_body(self) -> None:
        """A GET of a bare host asks for "/" and announces no body."""
        with ScriptedServer(answering(OK)) as server:
            self.wire.send(transport.WireRequest(server.url, method="GET"), timeout_s=5).read()
        self.assertTrue(server.requests[0][1].startswith(b"GET / HTTP/1.1\r\n"))
        self.assertNotIn(b"content-length", server.requests[0][1].lower())

    def test_any_status_is_a_reply(self) -> None:
        """An error status comes back as a reply with its headers in lower case and its body, and keeps the connection."""
        error = b"HTTP/1.1 429 Too Many\r\nRetry-After: 7\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 4\r\n\r\nslow"
        with ScriptedServer(answering(error, OK)) as server:
            reply = self.send(server.url)
            self.assertEqual((reply.status, reply.headers["retry-after"], reply.headers["x-a"]), (429, "7", "1, 2"))
            self.assertEqual(reply.read(), b"slow")
            self.send(server.url)
            self.assertTrue(server.reused)

    def test_a_large_request_arrives_whole(self) -> None:
        """A body of several megabytes arrives byte for byte."""
        body = random.Random(1).randbytes(3 << 20)
        with ScriptedServer(echo) as server:
            self.assertEqual(self.send(server.url, body).read(), body)

    def test_an_early_answer_to_a_large_request(self) -> None:
        """A server that answers and stops reading in the middle of an upload gives its answer or a cut, at once."""

        def script(peer: Peer) -> None:
            peer.sock.recv(1000)
            peer.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

        with ScriptedServer(script) as server:
            for _ in range(5):
                try:
                    reply = self.send(server.url, bytes(8 << 20))
                    self.assertEqual((reply.status, reply.read()), (413, b"no"))
                except transport.WireFault as fault:
                    self.assertEqual((fault.kind, fault.sent), ("cut", True))

    def test_an_answer_left_behind_is_found(self) -> None:
        """The answer of a server that broke the connection during the upload is given, and the connection is not kept."""
        timed = part("connections").TimedSocket
        whole = timed.sendall

        def broken(sock: Any, data: bytes, flags: int = 0) -> None:
            whole(sock, data, flags)
            raise BrokenPipeError

        with ScriptedServer(answering(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")) as server:
            with mock.patch.object(timed, "sendall", broken):
                reply = self.send(server.url)
            self.assertEqual((reply.status, reply.read()), (413, b"no"))
            self.send(server.url)
            self.assertFalse(server.reused)
        with ScriptedServer(lambda peer: peer.wait()) as server, mock.patch.object(timed, "sendall", broken):
            fault = self.fault(server.url)
            self.assertEqual((fault.kind, fault.sent), ("cut", True))

    def test_repr_shows_no_key_and_no_query(self) -> None:
        """The repr of a request names host, path and sizes only."""
        shows = {f"https://h.example/p?key={KEY}": "https://h.example/p", f"https://u:{KEY}@h.example/p": "unusable"}
        for url, address in shows.items():
            shown = repr(transport.WireRequest(url, KEY.encode(), (("a", secret.Secret(KEY)), ("b", KEY))))
            self.assertNotIn(KEY, shown)
            self.assertIn(address, shown)

    def test_import_is_light(self) -> None:
        """Importing the transport, and making one, loads neither urllib.request, http.client, ssl nor socket."""
        heavy = "urllib.request,http.client,ssl,socket"
        code = (
            "import sys; before = set(sys.modules)\n"
            f"import importlib, {PACKAGE}.transport as t; t.Transport().close()\n"
            f"print([m for m in '{heavy}'.split(',') if m in sys.modules and m not in before])"
        )
        where = os.path.dirname(part("transport").__file__)
        code = f"import sys, types; p = types.ModuleType('x'); p.__path__ = [{where!r}]; sys.modules[{PACKAGE!r}] = p\n{code}"
        done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False, capture_output=True, text=True)
        self.assertEqual((done.stdout.strip(), done.stderr), ("[]", ""))


class Bodies(WireCase):
    def test_pieces_come_as_they_are_sent(self) -> None:
        """A piece is handed out while the server still holds the next one back."""
        for tls in ("", "good"):
            gate = threading.Event()

            def script(peer: Peer, gate: threading.Event = gate) -> None:
                peer.request()
                peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
                gate.wait(5)
                peer.send(b"3\r\ntwo\r\n0\r\n\r\n")

            with ScriptedServer(script, tls) as server, self.send(server.url) as reply:
                self.assertEqual(reply.read_some(), b"one")
                gate.set()
                self.assertEqual([reply.read_some(), reply.read_some(), reply.read_some()], [b"two", b"", b""])

    def test_shapes(self) -> None:
        """Bodies by length, in chunks with extensions and trailers, until close, and none at all are read whole."""
        shapes = {
            b"Content-Length: 3\r\n\r\nabc": b"abc",
            b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc": b"abc",
            b"Transfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n2\r\nbc\r\n0\r\nT: 1\r\n\r\n": b"abc",
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1": b"abc",
            b"Content-Encoding: identity\r\n\r\nabc": b"abc",
            b"Content-Length: 0\r\n\r\n": b"",
        }
        for answer, body in shapes.items():
            for some in (False, True):
                with ScriptedServer(then_close(b"HTTP/1.1 200 OK\r\n" + answer)) as server, self.send(server.url) as reply:
                    self.assertEqual(read(reply, some), body, answer)

    def test_interim_answers_are_skipped(self) -> None:
        """100 Continue before the answer changes nothing."""
        with ScriptedServer(answering(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)) as server:
            self.assertEqual(self.send(server.url).read(), b"ok")


class Pool(WireCase):
    def test_one_connection_serves_many_calls(self) -> None:
        """Calls one after the other share one connection, in plain and in TLS."""
        for tls in ("", "good"):
            with ScriptedServer(echo, tls) as server:
                self.assertFalse(self._used(self.wire, server))
                for i in range(20):
                    reply = self.send(server.url, b"%d" % i)
                    self.assertEqual((reply.read(), server.reused), (b"%d" % i, True))
                self.assertEqual(server.connections, 1)

    def test_fresh_takes_a_new_connection(self) -> None:
        """`new_connection` opens a connection although one is idle."""
        with ScriptedServer(echo) as server:
            self.send(server.url).read()
            self.send(server.url, new_connection=True)
            self.assertFalse(server.reused)

    def test_closed_while_idle(self) -> None:
        """A connection that the server closed while idle is not used: the next call goes out once, on a new one."""
        closed = threading.Event()

        def script(peer: Peer) -> None:
            peer.request()
            peer.send(OK)
            peer.close()
            closed.set()

        with ScriptedServer(script) as server:
            for _ in range(3):
                closed.clear()
                reply = self.send(server.url)
                self.assertEqual((reply.read(), server.reused), (b"ok", False))
                self.assertTrue(closed.wait(5))
            self.assertEqual(len(server.requests), 3)

    def test_died_before_the_answer(self) -> None:
        """A kept connection that dies, by close or reset, after the request is a reused fault; nothing is sent again."""
        for end in (Peer.close, Peer.reset):

            def script(peer: Peer, end: Any = end) -> None:
                peer.request()
                peer.send(OK)
                peer.request()
                end(peer)

            with ScriptedServer(script) as server:
                self.assertEqual(self.send(server.url).read(), b"ok")
                fault = self.fault(server.url)
                self.assertEqual((fault.kind, fault.sent, fault.reused), ("cut", True, True))
                self.assertEqual(len(server.requests), 2)
                self.assertEqual(self.send(server.url, new_connection=True).read(), b"ok")

    def test_died_within_the_answer(self) -> None:
        """A kept connection that dies after a first byte of the answer is not called reused."""
        half = b"HTTP/1.1 200 OK\r\n"
        with ScriptedServer(lambda peer: [peer.request(), peer.send(OK), peer.request(), peer.send(half)]) as server:
            self.send(server.url).read()
            fault = self.fault(server.url)
            self.assertEqual((fault.kind, fault.reused), ("cut", False))

    def test_the_server_says_close(self) -> None:
        """A connection whose answer says it will be closed is not kept, even if the server leaves it open."""
        with ScriptedServer(answering(OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"))) as server:
            for _ in range(2):
                reply = self.send(server.url)
                self.assertEqual((reply.read(), server.reused), (b"ok", False))

    def test_unasked_answer(self) -> None:
        """Bytes that nobody asked for, with the answer or after it, are never taken for the next answer."""
        late = b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"
        for tls in ("", "good"):
            for apart in (False, True):
                sent = threading.Event()

                def script(peer: Peer, apart: bool = apart, sent: threading.Event = sent) -> None:
                    peer.request()
                    for piece in (OK, late) if apart else (OK + late,):
                        peer.send(piece)
                    sent.set()
                    peer.wait()

                with ScriptedServer(script, tls) as server:
                    self.assertEqual(self.send(server.url).read(), b"ok")
                    self.assertTrue(sent.wait(5))
                    reply = self.send(server.url)
                    self.assertEqual((reply.status, server.reused), (200, False))
                    reply.close()

    def test_unasked_answer_in_the_same_record(self) -> None:
        """Bytes beyond the body that TLS has already decrypted are noticed, too."""
        late = b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"

        def script(peer: Peer) -> None:
            peer.request()
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
            peer.wait(0.05)
            peer.send(b"x" * 10000 + late)
            peer.wait()

        with ScriptedServer(script, "good") as server:
            self.assertEqual(len(self.send(server.url).read()), 10000)
            reply = self.send(server.url)
            self.assertEqual((reply.status, server.reused), (200, False))
            reply.close()

    def test_half_read_body(self) -> None:
        """A reply closed before its end gives its connection up."""
        with ScriptedServer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000)) as server:
            with self.send(server.url) as reply:
                self.assertTrue(reply.read_some())
            with self.assertRaises(transport.WireFault):
                reply.read_some()
            self.send(server.url)
            self.assertFalse(server.reused)

    def test_closed_before_the_first_call_ended(self) -> None:
        """A transport that was closed while its very first call was on its way keeps no connection."""
        with ScriptedServer(lambda peer: [peer.request(), peer.send(OK), gone.append(peer.gone())]) as server:
            gone: list[bool] = []
            self.wire.close()
            self.assertEqual(self.send(server.url).read(), b"ok")
            for thread in server._threads[1:]:
                thread.join(5)
        self.assertEqual(gone, [True])

    def test_closed_at_the_marker(self) -> None:
        """A stream closed at its last event is kept if the end of its body is already here."""
        stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nDONE!\r\n0\r\n\r\n"
        with ScriptedServer(answering(stream)) as server:
            with self.send(server.url) as reply:
                self.assertEqual(reply.read_some(), b"DONE!")
            self.send(server.url)
            self.assertTrue(server.reused)

    def test_closed_before_the_end_is_here(self) -> None:
        """A stream closed when only a part of its body's end has come gives its connection up."""
        for end in (b"", b"\r\n", b"\r\n0", b"\r\n0\r\n"):
            stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nDONE!"
            with self.subTest(end), ScriptedServer(answering(stream + end)) as server:
                with self.send(server.url) as reply:
                    self.assertEqual(reply.read_some(), b"DONE!")
                self.send(server.url)
                self.assertFalse(server.reused)

    def test_shared_by_threads(self) -> None:
        """Eight threads on one transport each get their own answers."""
        with ScriptedServer(echo) as server:

            def calls(thread: int) -> int:
                bodies = [b"%d-%d" % (thread, i) for i in range(40)]
                return sum(self.send(server.url, body).read() == body for body in bodies)

            with ThreadPoolExecutor(8) as pool:
                self.assertEqual(sum(pool.map(calls, range(8))), 320)
            self.assertLessEqual(server.connections, 8)

    def test_after_a_fork(self) -> None:
        """Parent and child use a transport with idle connections side by side; neither sees an answer of the other."""
        for tls in ("", "good"):
            with ScriptedServer(echo, tls) as server:
                self.send(server.url).read()
                code = _in_child(lambda url=server.url: all(self._ask(url, b"child %d" % i) for i in range(20)))
                self.assertTrue(all(self._ask(server.url, b"parent %d" % i) for i in range(20)))
                self.assertEqual(code(), 0)

    def test_a_child_opens_its_own(self) -> None:
        """A forked child takes none of its parent's idle connections; the parent goes on using them."""
        with ScriptedServer(echo) as server:
            self.send(server.url).read()
            self.assertEqual(_in_child(lambda: self._ask(server.url, b"child"))(), 0)
            self.assertFalse(server.reused)
            self.assertTrue(self._ask(server.url, b"parent"))
            self.assertTrue(server.reused)

    def test_idle_too_long(self) -> None:
        """A connection idle for longer than idle_s is closed, whichever host it belongs to."""
        now = [1000.0]
        wire = self.transport(idle_s=10.0, monotonic=lambda: now[0])
        with ScriptedServer(echo) as one, ScriptedServer(echo) as two:
            for server in (one, two):
                self.send(server.url, wire=wire).read()
            now[0] += 9.0
            self.assertTrue(self._used(wire, one))
            now[0] += 10.5
            self.assertFalse(self._used(wire, one))
            self.assertEqual(sum(map(len, wire._loaded[None].pool._idle.values())), 1)

    def test_bounded_per_host(self) -> None:
        """No more than per_host idle connections are kept; the oldest goes."""
        wire = self.transport(per_host=2)
        with ScriptedServer(echo) as server:
            for reply in [self.send(server.url, wire=wire) for _ in range(4)]:
                reply.read()
            self.assertEqual(sum(map(len, wire._loaded[None].pool._idle.values())), 2)

    def test_a_connection_carries_one_key(self) -> None:
        """No connection ever carries the requests of two keys, whatever header they are in; those of one key share theirs."""
        headers: list[tuple[tuple[str, Any], ...]] = [
            *((("authorization", secret.Secret(key, "Bearer ")),) for key in ("alice", "bob")),
            (("x-api-key", secret.Secret("alice")),),
            (("authorization", secret.Secret("alice", "Bearer ")), ("x-org", secret.Secret("two"))),
            (),
        ]
        for tls in ("", "good"):
            with ScriptedServer(answering(OK), tls) as server:
                for _ in range(3):
                    for each in headers:
                        self.wire.send(transport.WireRequest(server.url, b"", each), timeout_s=5).read()
                carried: dict[int, set[bytes]] = {}
                for number, asked in server.requests:
                    secrets = [line for line in asked.split(b"\r\n") if line.lower().startswith((b"auth", b"x-"))]
                    carried.setdefault(number, set()).add(b"|".join(secrets))
                self.assertEqual(len(carried), len(headers))
                self.assertEqual({len(keys) for keys in carried.values()}, {1})

    def test_a_late_second_answer(self) -> None:
        """An answer that nobody asked for, a moment after the first, never reaches the request of another key."""

        def script(peer: Peer) -> None:
            while (asked := peer.request()) is not None:
                body = asked.partition(b"Bearer ")[2][:5]
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body
                peer.send(answer)
                time.sleep(0.001)
                peer.send(answer)

        with ScriptedServer(script) as server:
            for _ in range(20):
                for key in ("alice", "bobby"):
                    headers = (("Authorization", secret.Secret(key, "Bearer ")),)
                    try:
                        body = self.wire.send(transport.WireRequest(server.url, b"", headers), timeout_s=5).read()
                    except transport.WireFault as fault:
                        self.assertTrue(fault.reused)
                    else:
                        self.assertEqual(body, key.encode())

    def test_stream_limit(self) -> None:
        """A stream gives stream_limit bytes at most; a whole answer has a cap of its own, and the next call works."""
        wire = self.transport(stream_limit=1000)
        for size, fits in ((1000, True), (1001, False)):
            body = b"x" * size
            for answer in (b"Content-Length: %d\r\n\r\n%b" % (size, body), b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body)):
                with ScriptedServer(answering(b"HTTP/1.1 200 OK\r\n" + answer)) as server:
                    self.assertEqual(self.send(server.url, wire=wire).read(), body)
                    with self.subTest(size=size, answer=answer[:20]):
                        reply = self.send(server.url, wire=wire)
                        if fits:
                            self.assertEqual(read(reply, some=True), body)
                        else:
                            with self.assertRaises(transport.WireFault) as caught:
                                read(reply, some=True)
                            self.assertEqual((caught.exception.kind, caught.exception.sent), ("too_large", True))
                            self.assertIn("stream_limit", str(caught.exception))
                            self.assertEqual(self.send(server.url, wire=wire).read(), body)

    def test_close(self) -> None:
        """Closing closes what is idle, and what comes back later."""
        with ScriptedServer(echo) as server:
            first, second = self.send(server.url), self.send(server.url)
            first.read()
            self.wire.close()
            self.assertEqual(second.read(), b"{}")
            self.send(server.url)
            self.assertFalse(server.reused)

    def test_random_closes(self) -> None:
        """Against a server that closes after one to five requests no answer is somebody else's and no POST is sent twice."""
        rng = random.Random(3)

        def script(peer: Peer) -> None:
            for _ in range(rng.randint(1, 5)):
                asked = peer.request()
                if asked is None:
                    return
                body = asked.partition(b"\r\n\r\n")[2]
                if rng.random() < 0.1:
                    return  # dies with the request in hand
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

        with ScriptedServer(script) as server:
            answered, cut = set(), set()
            for i in range(400):
                body = b"id-%d" % i
                try:
                    self.assertEqual(self.send(server.url, body).read(), body)
                    answered.add(body)
                except transport.WireFault as fault:
                    self.assertEqual((fault.kind, fault.sent), ("cut", True))
                    cut.add(body)
            seen = [re.search(rb"id-\d+", asked)[0] for _, asked in server.requests]  # type: ignore[index]  # each has one
            self.assertEqual(len(seen), len(set(seen)))
            self.assertLessEqual(answered, set(seen))
            self.assertGreater(len(answered), 300)
            self.assertGreater(len(cut), 0)

    def _ask(self, url: str, body: bytes) -> bool:
        return bool(self.send(url, body).read() == body)

    def _used(self, wire: Any, server: ScriptedServer) -> bool:
        reply = self.send(server.url, wire=wire)
        reply.read()
        return server.reused


def chunked(body: bytes) -> bytes:
    """`body` in chunks of 100 bytes."""
    pieces = [body[i : i + 100] for i in range(0, len(body), 100)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def _in_child(check: Any) -> Any:
    """Runs `check` in a forked child; the returned function waits for it and gives 0 if it was true."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads: that is the point
        pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if check() else 1)
        except BaseException:
            os._exit(2)
    return lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Opener(WireCase):
    def test_handlers(self) -> None:
        """No opener of urllib's is asked, and one with its proxies alone when the environment names some."""
        with ScriptedServer(answering(OK)) as server:
            self.send(server.url).read()
        self.assertIsNone(self.wire._loaded[None].proxies)
        os.environ["https_proxy"] = "http://127.0.0.1:1"
        wire = self.transport()
        self.fault("https://127.0.0.1:2", wire=wire)
        handlers = wire._loaded[None].proxies.handlers
        self.assertEqual([type(handler).__name__ for handler in handlers], ["ProxyHandler", "BaseHandler"])

    def test_tls_rules(self) -> None:
        """The context made by default verifies certificate and host name and takes TLS 1.2 or newer."""
        import ssl

        context = part("connections").tls_context()
        self.assertEqual((context.verify_mode, context.check_hostname), (ssl.CERT_REQUIRED, True))
        self.assertGreaterEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)
        self.assertIs(request("http://h").headers[0][1].__class__, secret.Secret)


if __name__ == "__main__":
    unittest.main()
