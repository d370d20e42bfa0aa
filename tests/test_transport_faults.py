"""The transport on bad days: cut, garbled, oversized, redirected, refused. Each ends as a `WireFault` that shows no key."""

from __future__ import annotations

import base64
import gzip
import pickle
import random
import socket
import ssl
import threading
import traceback
import tracemalloc
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from tests import part, rounds
from tests.cases import KEY, WireCase, open_files, read, request, secret, thread_count, transport
from tests.servers import OK, Peer, ScriptedServer, answering, client_context, then_close

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BIG = b"9" * 19

# What `int` takes for the number 5 in hexadecimal, and a chunk's size must not be.
ODD_SIZES = (b"+5", b"0x5", b"0X5", b" 5", b"\t5", b"0_5", b"5_", b"\x0b5", b"5\x0c", b"\xd9\xa5", b"5 5")

# What the server sends before it closes, and the body it means: None where it was cut.
BODIES: list[tuple[str, bytes, bytes | None]] = [
    ("length, whole", HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    ("length, cut", HEAD + b"Content-Length: 100\r\n\r\nhello", None),
    ("length, nothing came", HEAD + b"Content-Length: 5\r\n\r\n", None),
    ("length, absurd", HEAD + b"Content-Length: " + BIG + b"\r\n\r\nhello", None),
    ("length, too much", HEAD + b"Content-Length: 5\r\n\r\nhello!!", b"hello"),
    ("chunks, whole", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("chunks, cut after one", CHUNKED + b"5\r\nhello\r\n", None),
    ("chunks, cut inside one", CHUNKED + b"5\r\nhel", None),
    ("chunks, cut inside a size", CHUNKED + b"5\r\nhello\r\n1", None),
    ("chunks, nothing came", CHUNKED, None),
    ("chunks, bad size", CHUNKED + b"zz\r\nhello\r\n0\r\n\r\n", None),
    ("chunks, no size", CHUNKED + b"\r\nhello\r\n0\r\n\r\n", None),
    ("chunks, blanks and an extension", CHUNKED + b'5 \t;a="b"\r\nhello\r\n0;x\r\n\r\n', b"hello"),
    ("chunks, sizes in either case", CHUNKED + b"A\r\nhellohello\r\n00a\r\nhellohello\r\n0\r\n\r\n", b"hello" * 4),
    *((f"chunks, size {size!r}", CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n", None) for size in ODD_SIZES),
    ("chunks, negative size", CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", None),
    ("chunks, absurd size", CHUNKED + b"7fffffffffffffff\r\nhello", None),
    ("chunks, a tebibyte", CHUNKED + b"10000000000\r\nhello", None),
    ("chunks, no last line end", CHUNKED + b"5\r\nhello\r\n0\r\n", b"hello"),
    ("until close", HEAD + b"\r\nhello", b"hello"),
]

# Heads that no answer may have, and the kind of fault.
HEADS: list[tuple[bytes, str]] = [
    (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "protocol"),
    (b"HTTP/1.1 103 Early Hints\r\n\r\n", "cut"),
    (b"HTTP/1.1 102 Processing\r\n\r\n" * 101, "timeout"),
    (b"HTTP/1.1 304 Not Modified\r\n\r\n", "protocol"),
    (b"HTTP/9.9 200 OK\r\n\r\n", "protocol"),
    (b"SSH-2.0-OpenSSH\r\n\r\n", "protocol"),
    (b"HTTP/1.1 abc OK\r\n\r\n", "protocol"),
    (b"\x16\x03\x01\r\n\r\n", "protocol"),
    (HEAD + b"X: 1\r\n" * 101 + b"\r\n", "protocol"),
    (HEAD + b"X: " + b"x" * 70000 + b"\r\n\r\n", "protocol"),
    (HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok", "protocol"),
    (HEAD + b"Content-Length: 2, 3\r\n\r\nok", "protocol"),
    (HEAD + b"Content-Length: -2\r\n\r\nok", "protocol"),
    (HEAD + b"Content-Length: two\r\n\r\nok", "protocol"),
    (HEAD + b"Content-Length: \xb2\r\n\r\nok", "protocol"),
    (HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "protocol"),
    (HEAD + b"no colon here\r\nContent-Length: 2\r\n\r\nok", "protocol"),
    (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "encoding"),
    (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", "encoding"),
    (HEAD + b"Content-Encoding: br\r\n\r\n", "encoding"),
    (b"", "cut"),
    (b"HTTP/1.1 20", "protocol"),
    (b"HTTP/1.1 200", "cut"),
    (HEAD, "cut"),
    (HEAD + b"Content-Le", "cut"),
    (HEAD + b"X: 1\r\n", "cut"),
]


class Truncation(WireCase):
    def test_bodies(self) -> None:
        """Every body that was cut is a fault, every whole one is what it was, read at once or in pieces, plain or TLS."""
        count = 0
        for tls in ("", "good"):
            for name, sent, meant in BODIES:
                with ScriptedServer(then_close(sent), tls) as server:
                    for some in (False, True):
                        count += 1
                        with self.subTest(name, tls=tls, some=some):
                            if meant is None:
                                fault = self.fault(server.url, some=some, new_connection=True)
                                self.assertIn(fault.kind, ("cut", "protocol", "too_large"))
                                self.assertTrue(fault.sent)
                            else:
                                with self.send(server.url, new_connection=True) as reply:
                                    self.assertEqual(read(reply, some), meant)
        self.assertEqual(count, 4 * len(BODIES))

    def test_resets(self) -> None:
        """A reset before the head, within it or within the body is a cut."""
        answers = (b"", b"HTTP/1.1 200", HEAD + b"Content-Length: 9\r\n\r\nabc", CHUNKED + b"5\r\nab", HEAD + b"\r\nabc")

        def script(peer: Peer) -> None:
            asked = peer.request() or b""
            peer.send(answers[int(asked[len(b"POST /") :][:1])])
            peer.server.stopped.wait(0.05)
            peer.reset()

        def kind(way: int) -> str:
            with self.assertRaises(transport.WireFault) as caught, self.send(f"{server.url}/{way}") as reply:
                reply.read()
            return str(caught.exception.kind)

        with ScriptedServer(script) as server, ThreadPoolExecutor(len(answers)) as pool:
            kinds = list(pool.map(kind, range(len(answers))))
        self.assertEqual(kinds, ["cut"] * len(answers))

    def test_after_a_fault(self) -> None:
        """After a fault the reply stays broken, its connection is not used again and the next call works."""
        with ScriptedServer(answering(CHUNKED + b"zz\r\n", OK)) as server:
            reply = self.send(server.url)
            for _ in range(2):
                with self.assertRaises(transport.WireFault):
                    reply.read()
            reply.close()
            self.send(server.url)
            self.assertFalse(server.reused)


class Heads(WireCase):
    def test_heads(self) -> None:
        """A head that is not proper HTTP, contradicts itself or is compressed is a fault that says so."""
        for sent, kind in HEADS:
            with self.subTest(sent[:60]), ScriptedServer(then_close(sent)) as server:
                fault = self.fault(server.url)
                self.assertEqual((fault.kind, fault.sent, fault.reused), (kind, True, False))

    def test_redirects(self) -> None:
        """No redirect is followed, whatever its code, method and target; the fault names the target's host only."""
        with ScriptedServer(answering(OK)) as other:
            targets = {
                f"{other.url}/x?key={KEY}": "127.0.0.1",
                f"https://u:{KEY}@h.example/{KEY}": "h.example",
                "/x": "same host",
                "ftp://f.example/": "f.example",
                "file:///etc/passwd": "same host",
                "http://[": "unusable",
                f"http://{KEY}.example/": "unusable",
            }
            for code in (301, 302, 303, 307, 308):
                for target, named in targets.items():
                    answer = b"HTTP/1.1 %d X\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (code, target.encode())
                    with ScriptedServer(answering(answer)) as server:
                        for method in ("POST", "GET"):
                            with self.assertRaises(transport.WireFault) as caught:
                                self.wire.send(request(server.url, b"", method), timeout_s=5)
                            fault = caught.exception
                            self.assertEqual(fault.kind, "redirect")
                            self.assertIn(named, str(fault))
                            self.assertNotIn(KEY, str(fault))
                            self.assertEqual(len(server.requests), server.connections)
            self.assertEqual(other.connections, 0)


class Caps(WireCase):
    def test_caps(self) -> None:
        """A body over the cap, announced or not, is a fault; one of exactly the cap is not."""
        body = b"x" * 1001
        chunks = CHUNKED + b"3e9\r\n" + body + b"\r\n0\r\n\r\n"
        for sent in (HEAD + b"Content-Length: 1001\r\n\r\n" + body, chunks, HEAD + b"\r\n" + body):
            with ScriptedServer(then_close(sent)) as server:
                self.assertEqual(len(self.send(server.url).read(1001)), 1001)
                with self.send(server.url, new_connection=True) as reply, self.assertRaises(transport.WireFault) as caught:
                    reply.read(1000)
                self.assertEqual(caught.exception.kind, "too_large")

    def test_announced(self) -> None:
        """A body announced as too large is refused before any of it has come."""
        head = HEAD + b"Content-Length: 1001\r\n\r\n"
        with ScriptedServer(lambda peer: [peer.request(), peer.send(head), peer.wait()]) as server:
            with self.send(server.url) as reply, self.assertRaises(transport.WireFault) as caught:
                reply.read(1000)
            self.assertEqual(caught.exception.kind, "too_large")

    def test_memory(self) -> None:
        """Endless and compressed bodies, and an announced gigabyte, take less than twice the cap of memory."""
        cap = 1 << 20
        bomb = gzip.compress(bytes(10 << 20))
        floods = [CHUNKED + b"7fffffff\r\n", HEAD + b"\r\n", HEAD + b"Content-Length: 3000000000\r\n\r\n"]
        answers = [HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb]

        def script(peer: Peer) -> None:
            peer.request()
            if peer.number < len(floods):
                peer.send(floods[peer.number])
                while peer.send(zeros):
                    pass
            else:
                peer.send(answers[0])

        zeros = bytes(1 << 18)
        with ScriptedServer(script) as server:
            self.wire.send(request(server.url), timeout_s=5).abort()  # warm, and uses up the first flood
            floods.insert(0, b"")
            for _ in range(4):
                tracemalloc.start()
                with self.assertRaises(transport.WireFault), self.send(server.url) as reply:
                    reply.read(cap)
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                self.assertLess(peak, 2 * cap)


class GivenUp(WireCase):
    def test_an_end_that_we_made_is_none(self) -> None:
        """A body that ends with its connection is cut, not whole, where we shut that while it was read, or closed it."""

        def script(peer: Peer) -> None:
            peer.request()
            peer.send(HEAD + b"\r\nabc")
            peer.wait()

        for tls in ("", "good"):
            wire = transport.Transport(ssl_context=client_context("good") if tls else None)
            with self.subTest(tls=tls), ScriptedServer(script, tls) as server:
                reply = wire.send(request(server.url), timeout_s=5)
                timer = threading.Timer(0.05, reply.shutdown)
                timer.start()
                self.assertEqual(self.fault(reply.read), "cut")
                timer.join()
                reply = wire.send(request(server.url), timeout_s=5)
                ended = mock.patch.object(type(reply._connection), "read_some", lambda *_, reply=reply: reply.abort() or b"")
                with ended:  # as a signal's handler may, while it is read
                    self.assertEqual(self.fault(reply.read), "cut")

    def fault(self, call: Callable[[], object]) -> str:
        with self.assertRaises(transport.WireFault) as caught:
            call()
        return str(caught.exception.kind)


class Setup(WireCase):
    def test_unusable_requests(self) -> None:
        """A URL, method or header that cannot be sent safely is a setup fault: nothing is sent and nothing is repeated."""
        urls = ["", "h.example", f"file:///{KEY}", f"ftp://h/{KEY}", "data:,x", f"http://h.example/?k={KEY}", f"https://u:{KEY}@h/",
                f"https://h/{KEY} x", f"https://h/{KEY}\n", "https://h:99999/", "https://h:0/", "https://h:x/", "https://[::1",
                "https://a..b/", f"https://{'a' * 64}.b/", "https://h\u00e9/", "https:///x", f"https://h/#{KEY}"]  # fmt: skip
        headers = [("a b", "x"), ("", "x"), ("x", f"{KEY}\n"), ("x", f"{KEY}\r\n x: y"), ("x", f"{KEY}\0"), ("x", f"{KEY}\u20ac"),
                   ("x", secret.Secret(f"{KEY}\n")), ("x", secret.Secret(f"{KEY} ")), ("x", secret.Secret(f"{KEY}\u0661")),
                   ("Host", "evil"), ("Content-Length", "9"), ("transfer-encoding", "chunked")]  # fmt: skip
        made = [transport.WireRequest(url) for url in urls]
        made += [transport.WireRequest("https://h.example/", headers=(header,)) for header in headers]
        made += [transport.WireRequest("https://h.example/", method=method) for method in ("", "GET /\r\nx: y", "P T")]
        for asked in made:
            with self.subTest(asked), mock.patch("socket.getaddrinfo", side_effect=AssertionError):
                try:
                    self.wire.send(asked, timeout_s=5)
                    self.fail("it was sent")
                except transport.WireFault as fault:
                    self.assertEqual((fault.kind, fault.sent), ("setup", False))
                    self.assertEqual(shown(fault, KEY), [])

    def test_plain_http_elsewhere_if_allowed(self) -> None:
        """Plain http to another machine is a setup fault, and tried once it is allowed."""
        with mock.patch("socket.getaddrinfo", side_effect=socket.gaierror(-2, "unknown")):
            self.assertEqual(self.fault("http://h.example/").kind, "setup")
            self.assertEqual(self.fault("http://h.example/", allow_http=True).kind, "dns")


class Connecting(WireCase):
    def test_unreachable(self) -> None:
        """No address, nobody listening, no network: faults that say the request was not sent."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        fault = self.fault(f"http://127.0.0.1:{port}")
        self.assertEqual((fault.kind, fault.sent), ("refused", False))
        for error in (socket.gaierror(-2, "unknown"), UnicodeError("label")):
            with mock.patch("socket.getaddrinfo", side_effect=error):
                fault = self.fault("https://h.example/")
                self.assertEqual((fault.kind, fault.sent), ("dns", False))
        with mock.patch("socket.socket.connect", side_effect=OSError(101, "x")):
            fault = self.fault("https://127.0.0.1/")
            self.assertEqual((fault.kind, fault.sent), ("refused", False))

    def test_second_address(self) -> None:
        """A name whose first addresses are dead, or of a family this machine lacks, is reached through a live one."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            dead = listener.getsockname()
        with ScriptedServer(answering(OK)) as server:
            kind = (socket.SOCK_STREAM, 6, "")
            addresses = [(99, *kind, dead), (socket.AF_INET, *kind, dead), (socket.AF_INET, *kind, ("127.0.0.1", server.port))]
            with mock.patch("socket.getaddrinfo", return_value=addresses):
                self.assertEqual(self.send("http://localhost:1/").read(), b"ok")

    def test_certificates(self) -> None:
        """Untrusted, expired and wrong-host certificates, and no TLS at all, end the call before a byte of the request."""
        trusting = self.transport(ssl_context=client_context("good", "expired", "wrong_host"))
        words = {"expired": "expired", "wrong_host": "not valid for", "good": "self-signed"}
        for name, word in words.items():
            wire = self.transport(ssl_context=client_context("expired")) if name == "good" else trusting
            with ScriptedServer(answering(OK), name) as server:
                fault = self.fault(server.url, wire=wire)
                self.assertEqual((fault.kind, fault.sent), ("tls", False))
                self.assertIn(word, str(fault))
                self.assertEqual(server.requests, [])
        with ScriptedServer(lambda peer: [peer.send(OK)]) as server:
            fault = self.fault(server.url.replace("http", "https"))
            self.assertEqual((fault.kind, fault.sent), ("tls", False))
        with ScriptedServer(lambda peer: None) as server:
            fault = self.fault(server.url.replace("http", "https"))
            self.assertEqual((fault.kind, fault.sent), ("tls", False))

    def test_default_context_trusts_no_stranger(self) -> None:
        """Without a context of the caller's, the tests' own certificate is refused."""
        with ScriptedServer(answering(OK), "good") as server:
            self.assertEqual(self.fault(server.url, wire=self.transport(ssl_context=None)).kind, "tls")

    def test_old_tls(self) -> None:
        """The default context does not go below TLS 1.2."""
        context = part("connections").tls_context()
        self.assertIs(part("connections").tls_context(context), context)
        self.assertGreaterEqual(context.minimum_version, ssl.TLSVersion.TLSv1_2)


class Secrets(WireCase):
    def test_no_fault_shows_a_key(self) -> None:
        """No text, attribute, cause or frame of any fault shows a key, even when the server echoes it."""
        seen = 0
        for fault in self._faults():
            seen += 1
            self.assertEqual(shown(fault, KEY), [], repr(fault))
        self.assertGreater(seen, 30)

    def test_an_interrupt_shows_no_key(self) -> None:
        """Ctrl-C, or an error, in the middle of sending leaves no frame that holds a key, and no open connection."""
        before = open_files()
        with ScriptedServer(answering(OK)) as server:
            with mock.patch.object(part("connections").TimedSocket, "sendall", side_effect=KeyboardInterrupt):
                try:
                    self.send(server.url)
                except KeyboardInterrupt as interrupt:
                    self.assertIsNotNone(interrupt.__traceback__)
                    self.assertEqual(shown(interrupt, KEY), [])
            with mock.patch.object(part("connections").TimedSocket, "sendall", side_effect=OSError(5, "x")):
                self.assertEqual(shown(self.fault(server.url), KEY), [])
        self.assertEqual(open_files(), before)

    def test_an_interrupt_in_a_body_closes_the_connection(self) -> None:
        """Ctrl-C while a body is read passes through and gives the connection up."""
        with ScriptedServer(answering(OK)) as server:
            with (
                self.send(server.url) as reply,
                mock.patch.object(part("http_answer").Answers, "read", side_effect=KeyboardInterrupt),
            ):
                with self.assertRaises(KeyboardInterrupt):
                    reply.read()
            self.send(server.url)
            self.assertFalse(server.reused)

    def test_a_foreign_exception_with_the_key_is_dropped(self) -> None:
        """A cause whose text quotes the key is left out; one that does not is kept, without its frames."""
        for error, kept in ((ValueError(f"bad {KEY}"), False), (ValueError("bad"), True)):
            with (
                ScriptedServer(answering(OK)) as server,
                mock.patch.object(part("http_answer").Answers, "begin", side_effect=error),
            ):
                fault = self.fault(server.url)
                self.assertEqual((fault.kind, fault.__cause__ is not None), ("protocol", kept))
                self.assertEqual(shown(fault, KEY), [])

    def test_faults_can_be_pickled(self) -> None:
        """A fault survives a pickle with all its facts."""
        fault = pickle.loads(pickle.dumps(transport.WireFault("cut", "gone", sent=False, reused=True)))
        self.assertEqual((fault.kind, str(fault), fault.sent, fault.reused), ("cut", "gone", False, True))

    def _faults(self) -> Iterator[Any]:
        echo = f"Bearer {KEY}".encode()
        answers = [sent for sent, _ in HEADS] + [sent for _, sent, meant in BODIES if meant is None]
        answers += [HEAD + echo + b"\r\n\r\n", echo + b"\r\n\r\n", HEAD + b"Content-Length: " + echo + b"\r\n\r\n",
                    CHUNKED + echo + b"\r\n", HEAD + b"Content-Length: 999\r\n\r\n" + echo,
                    b"HTTP/1.1 302 X\r\nLocation: " + echo + b"\r\n\r\n"]  # fmt: skip
        for answer in answers:
            with ScriptedServer(then_close(answer)) as server:
                yield self.fault(server.url)
        with ScriptedServer(lambda peer: peer.wait()) as server:
            yield self.fault(server.url, timeout_s=0.05)
        with ScriptedServer(answering(OK), "expired") as server:
            yield self.fault(server.url)
        with ScriptedServer(lambda peer: [peer.request(), peer.reset()]) as server:
            yield self.fault(server.url)
        yield self.fault("http://127.0.0.1:1/")


def shown(error: BaseException, key: str) -> list[str]:
    """Where `key`, or a form or piece of it, shows in `error`: texts, attributes, causes, or the locals of any frame."""
    found = []
    forms = {key, key[:12], key[-12:], base64.b64encode(key.encode()).decode()}
    todo, links = [error], []
    while todo:
        link = todo.pop()
        links.append(link)
        todo += [other for other in (link.__cause__, link.__context__) if other is not None and other not in links]
    for link in links:
        stack = traceback.TracebackException.from_exception(link, capture_locals=True, compact=False)
        own = [f for f in stack.stack if "tests" not in f.filename and "unittest" not in f.filename]
        sinks: dict[str, Any] = {"str": str(link), "repr": repr(link), "args": link.args, "vars": vars(link)}
        for frame in own:
            sinks |= {f"{frame.filename}:{frame.lineno} {name}": value for name, value in (frame.locals or {}).items()}
        found += [f"{type(link).__name__} {sink}" for sink, value in sinks.items() if any(form in repr(value) for form in forms)]
    return found


class Leaks(WireCase):
    def test_nothing_is_left_behind(self) -> None:
        """After hundreds of calls with every fault in turn no file descriptor and no thread is left."""
        rng = random.Random(5)
        answers = [sent for _, sent, _ in BODIES] + [sent for sent, _ in HEADS] + [OK]

        def script(peer: Peer) -> None:
            if peer.request() is not None:
                peer.send(rng.choice(answers))
                if rng.random() < 0.2:
                    peer.reset()

        def leave(reply: Any) -> None:
            reply.read_some()

        ways: list[Callable[[Any], Any]] = [lambda reply: read(reply, False), lambda reply: read(reply, True), leave]
        ways.append(lambda reply: reply.close())
        with ScriptedServer(script) as plain, ScriptedServer(script, "good") as tls:
            before = open_files(), thread_count()
            faults, calls = 0, rounds(300, 120)
            for _ in range(calls):
                try:
                    rng.choice(ways)(self.send(rng.choice((plain, tls)).url))
                except transport.WireFault:
                    faults += 1
            self.wire.close()
            for server in (plain, tls):
                for thread in server._threads[1:]:
                    thread.join(5)
            self.assertGreater(faults, calls / 5)
            self.assertEqual((open_files(), thread_count()), before)


if __name__ == "__main__":
    unittest.main()
