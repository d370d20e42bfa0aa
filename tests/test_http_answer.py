"""The heads of answers: read as http.client reads them where they are well formed, refused where it would guess."""

from __future__ import annotations

import http.client
import io
import itertools
import random
import re
import socket
import unittest
from collections import Counter
from typing import Any, NamedTuple
from unittest import mock

from tests import part
from tests.cases import WireCase
from tests.servers import Peer, ScriptedServer

answers = part("http_answer")

OK = b"HTTP/1.1 200 OK\r\n"
REFUSALS = (http.client.HTTPException, OSError, ValueError, part("wire").WireFault)

# Legal heads, odd ones among them, which mean the same to http.client.
ALIKE: dict[str, bytes] = {
    "no headers": OK + b"\r\n",
    "line feeds alone": b"HTTP/1.1 200 OK\nContent-Length: 3\nX: y\n\n",
    "both line ends": OK + b"A: 1\nB: 2\r\nContent-Length: 3\n\r\n",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\n",
    "an empty reason": b"HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n",
    "a reason in Latin-1": b"HTTP/1.1 200 tr\xe8s bien\r\nContent-Length: 3\r\n\r\n",
    "blanks in the first line": b"HTTP/1.1  200\tOK\r\nContent-Length: 3\r\n\r\n",
    "another minor version": b"HTTP/1.2 200 OK\r\nContent-Length: 3\r\n\r\n",
    "an unknown status": b"HTTP/1.1 999 What\r\nContent-Length: 3\r\n\r\n",
    "no blank after the colon": OK + b"Content-Length:3\r\nX:y\r\n\r\n",
    "many blanks after the colon": OK + b"Content-Length: \t 3\r\nX: \t y z\r\n\r\n",
    "an empty value": OK + b"X:\r\nY: \r\nContent-Length: 3\r\n\r\n",
    "colons in the value": OK + b"X: a:b: c\r\nContent-Length: 3\r\n\r\n",
    "any case": OK + b"CONTENT-length: 3\r\nconnection: Close\r\n\r\n",
    "odd names": OK + b"X_a.b~1!#$%&'*+^`|: y\r\nA(b)/c: d\r\nContent-Length: 3\r\n\r\n",
    "Latin-1 and UTF-8 values": OK + b"X: \xe9 \xc3\xa9 \x85 \xa0\r\nContent-Length: 3\r\n\r\n",
    "said twice": OK + b"X: 1\r\nx: 2\r\nX: 3\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
    "leading zeros": OK + b"Content-Length: 0003\r\n\r\n",
    "zero": OK + b"Content-Length: 0\r\n\r\n",
    "chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n",
    "Chunked": OK + b"Transfer-Encoding: Chunked\r\nConnection: close\r\n\r\n",
    "chunked said twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "another coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "kept alive": OK + b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 3\r\n\r\n",
    "close in a list": OK + b"Connection: foo, close\r\nContent-Length: 3\r\n\r\n",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n",
    "HTTP/1.0 kept alive": b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 3\r\n\r\n",
    "100 first": b"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\n" + OK + b"Content-Length: 3\r\n\r\n",
    "100 twice": b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + OK + b"Content-Length: 3\r\n\r\n",
    "204": b"HTTP/1.1 204 No\r\n\r\n",
    "204 with a length": b"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n",
    "304": b"HTTP/1.1 304 Same\r\nContent-Length: 3\r\n\r\n",
    "101": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    "99 headers": OK + b"X: 1\r\n" * 98 + b"Content-Length: 3\r\n\r\n",
    "a long header": OK + b"X: " + b"x" * 65000 + b"\r\n\r\n",
}

# Heads that http.client takes, reading them otherwise than the standard does, and what they mean.
BETTER: dict[bytes, dict[str, Any]] = {
    OK + b"X: y \t\r\n\r\n": {"fields": {"x": "y"}},
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"X: y\r\n\r\n": {"status": 200, "fields": {"x": "y"}},
    b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 199 X\r\nContent-Length: 3\r\n\r\n" + OK + b"\r\n": {"status": 200, "length": None},
    b"HTTP/1.1 100 C\r\n\r\n" * 100 + OK + b"\r\n": {"status": 200},
    OK + b"Content-Length: 3 \r\n\r\n": {"length": 3, "ambiguous_length": False},
    OK + b"Transfer-Encoding: chunked \r\n\r\n": {"chunked": True},
    OK + b"X: a\r\n b\r\n\tc \r\nY: d\r\n\r\n": {"fields": {"x": "a b c", "y": "d"}},
    OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n": {"chunked": True},
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n": {"chunked": False, "will_close": True},
    OK + b"Connection: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\n": {"will_close": True},
    OK + b"X: 1\r\n" * 100 + b"\r\n": {"fields": {"x": ", ".join("1" * 100)}},
}

# Lengths nobody should believe; http.client takes some of them for a number, and others for none.
LENGTHS = [b"-3", b"+3", b"3_0", b"3, 4", b"3,", b",3", b"three", b"0x3", b"3.0", b"3 0", b"\xb3", b"", b"3;q=1"]

# Heads that are refused, and by which error.
REFUSED: list[tuple[bytes, type[Exception]]] = [
    (b"", http.client.RemoteDisconnected),
    (b"\r\n", http.client.BadStatusLine),
    (b"\r\n" + OK + b"\r\n", http.client.BadStatusLine),
    (b"HTTP/1.1\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1.1 \r\n\r\n", http.client.BadStatusLine),
    (b" HTTP/1.1 200 OK\r\n\r\n", http.client.BadStatusLine),
    (b"http/1.1 200 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/2 200 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/2.0 200 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/0.9 200 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1. 200 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1.10 200 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1.1 20 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1.1 2000 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1.1 +20 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1.1 2_0 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1.1 \xb2\xb2\xb2 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1.1 020 OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1.1 200OK\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1.1 200 OK\rX: y\r\n\r\n", http.client.BadStatusLine),
    (b"HTTP/1.1 200 " + b"x" * 70000 + b"\r\n\r\n", http.client.HTTPException),
    (b"HTTP/1.1 200 ".ljust(65536, b"x") + b"X: y\r\n\r\n", http.client.HTTPException),
    (OK + b"no colon\r\n\r\n", http.client.HTTPException),
    (OK + b": no name\r\n\r\n", http.client.HTTPException),
    (OK + b" X: folded into nothing\r\n\r\n", http.client.HTTPException),
    (OK + b"\tX: y\r\n\r\n", http.client.HTTPException),
    (OK + b"X : y\r\n\r\n", http.client.HTTPException),
    (OK + b"X y: z\r\n\r\n", http.client.HTTPException),
    (OK + b"X\0: y\r\n\r\n", http.client.HTTPException),
    (OK + b"\xe9: y\r\n\r\n", http.client.HTTPException),
    (OK + b"X: y\0\r\n\r\n", http.client.HTTPException),
    (OK + b"X: y\rContent-Length: 3\r\n\r\n", http.client.HTTPException),
    (OK + b"X: y\r\r\n\r\n", http.client.HTTPException),
    (OK + b"X: y\r\n \rz\r\n\r\n", http.client.HTTPException),
    (OK + b"From me at noon\r\n\r\n", http.client.HTTPException),
    (OK + b"\r\r\n\r\n", http.client.HTTPException),
    (OK + b"X: 1\r\n" * 101 + b"\r\n", http.client.HTTPException),
    (OK + b"X: 1\r\n" + b" 2\r\n" * 100 + b"\r\n", http.client.HTTPException),
    (OK + b"X: " + b"x" * 65536 + b"\r\n\r\n", http.client.LineTooLong),
    (OK + b"Content-Length: " + b"9" * 9000 + b"\r\n\r\n", ValueError),
    (b"HTTP/1.1 103 Early\r\n\r\n" * 101 + OK + b"\r\n", part("wire").WireFault),
    (b"HTTP/1.1 100 Continue\r\nno colon\r\n\r\n" + OK + b"\r\n", http.client.HTTPException),
]


class Head(NamedTuple):
    """What a head says, in a form that both readers share; `rest` is what they leave unread."""

    status: int
    fields: dict[str, str]
    chunked: bool
    length: int | None
    will_close: bool
    rest: bytes


class Wire:
    """All that a reader of answers asks of a socket, and what http.client asks."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def recv(self, most: int) -> bytes:
        return self.file.read(most)

    def makefile(self, mode: str) -> Any:
        return self.file


def ours(data: bytes, method: str = "POST") -> Any:
    made = answers.Answers(Wire(data))
    made.begin(method)
    return made


def our_head(data: bytes, method: str = "POST") -> Head:
    made = ours(data, method)
    return Head(made.status, made.fields, made.chunked, made.length, made.will_close, made.read(1 << 20))


def their_head(data: bytes, method: str = "POST") -> Head:
    made: Any = http.client.HTTPResponse(Wire(data), method=method)  # type: ignore[arg-type]  # it needs no more
    made.begin()
    fields: dict[str, str] = {}
    for name, value in made.headers.items():
        fields[name.lower()] = f"{fields[name.lower()]}, {value}" if name.lower() in fields else value
    return Head(made.status, fields, made.chunked, made.length, made.will_close, made.fp.read())


class Heads(unittest.TestCase):
    def test_alike(self) -> None:
        """A legal head, however odd, means what it means to http.client, and the body behind it is left as it is."""
        for name, head in ALIKE.items():
            for method, body in itertools.product(("POST", "HEAD"), (b"abc", b"\n\nabc", b"\r\n\r\n", b"\n\r\n")):
                with self.subTest(name, method=method, body=body):
                    self.assertEqual(our_head(head + body, method), their_head(head + body, method))
            with self.subTest(name):
                self.assertFalse(ours(head).ambiguous_length)

    def test_better(self) -> None:
        """Blanks around a value, folded lines and headers said twice are read as the standard has it."""
        for head, meant in BETTER.items():
            with self.subTest(head[:60]):
                made = ours(head)
                self.assertEqual({name: getattr(made, name) for name in meant}, meant)

    def test_lengths(self) -> None:
        """A length that is not a plain number, or stands beside a transfer encoding, is noticed and not used."""
        for length in LENGTHS:
            with self.subTest(length):
                made = ours(OK + b"Content-Length: " + length + b"\r\n\r\n")
                self.assertEqual((made.ambiguous_length, made.length, made.will_close), (True, None, True))
        for coding in (b"chunked", b"gzip", b""):
            made = ours(OK + b"Content-Length: 3\r\nTransfer-Encoding: " + coding + b"\r\n\r\n")
            self.assertEqual((made.ambiguous_length, made.length), (True, None), coding)

    def test_refused(self) -> None:
        """What is not a head is refused."""
        for head, error in REFUSED:
            with self.subTest(head[:60]), self.assertRaises(error) as caught:
                ours(head)
            self.assertIsInstance(caught.exception, REFUSALS)

    def test_no_refusal_quotes_a_header(self) -> None:
        """The error about a bad header does not repeat it."""
        for line in (b"canary", b"X: canary\0", b"canary : y", b"canary: " + b"canary" * 20000):
            with self.assertRaises(http.client.HTTPException) as caught:
                ours(OK + line + b"\r\n\r\n")
            self.assertNotIn("canary", repr(caught.exception))

    def test_cut(self) -> None:
        """A head that ends early, after whichever byte, is never taken for a whole one."""
        for name, head in ALIKE.items():
            for size in range(min(len(head), 400)):
                with self.subTest(name, size=size), self.assertRaises(REFUSALS):
                    ours(head[:size])

    def test_a_status_line_is_cut_and_not_wrong(self) -> None:
        """After whichever byte a status line ends, it is cut off, not no HTTP; with one return too many it is none."""
        line = b"HTTP/1.1 200 OK\r\n"
        for size in range(len(b"HTTP/1.1 200"), len(line)):
            with self.subTest(size=size), self.assertRaises(http.client.IncompleteRead):
                ours(line[:size])
        with self.assertRaises(http.client.BadStatusLine):
            ours(b"HTTP/1.1 200 OK\r\r\n\r\n")

    def test_random_heads(self) -> None:
        """Whatever well-formed headers are put together, both readers agree."""
        rng = random.Random(7)
        good = [b"A: b", b"a:c", b"X-Y:  d e", b"Connection: close", b"Connection: keep-alive", b"Keep-Alive: 5", b"Z: \xff,;\"'"]
        sizes = [b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Transfer-Encoding: br"]
        for _ in range(2000):
            lines = [*rng.choices(good, k=rng.randrange(6)), *rng.sample(sizes, rng.randrange(2))]
            rng.shuffle(lines)
            connections = sum(line.startswith(b"Connection") for line in lines)
            status = b"HTTP/1.1 %d x\r\n" % rng.choice((200, 204, 404, 500))
            data = status + b"".join(line + rng.choice((b"\r\n", b"\n")) for line in lines) + b"\r\nabc"
            if connections < 2:  # of two, http.client sees the first alone
                self.assertEqual(our_head(data), their_head(data), data)

    def test_noise(self) -> None:
        """Bytes changed at random end in an answer or in one of the errors the transport knows, with nothing between."""
        rng = random.Random(8)
        heads = [head for head in ALIKE.values() if len(head) < 1000]
        taken = 0
        for _ in range(4000):
            data = bytearray(rng.choice(heads))
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.choice((rng.randrange(256), 10, 13, 32, 58, 0))
            try:
                fields = ours(bytes(data) + b"\r\n\r\n").fields
            except REFUSALS:
                continue
            taken += 1
            self.assertFalse(any(set("\r\n\0") & set(name + value) or name != name.lower() for name, value in fields.items()))
        self.assertGreater(taken, 300)


class Bodies(unittest.TestCase):
    def test_what_is_no_size_is_refused_at_once(self) -> None:
        """A first line that is here and is no size of a chunk is refused without a wait for more."""
        for line in (b"\r\n", b"\n", b"g\n"):
            made = ours(OK + b"Transfer-Encoding: chunked\r\n\r\n" + line)
            with mock.patch.object(made.sock, "recv", side_effect=AssertionError("it waits")), self.assertRaises(REFUSALS):
                made.read_chunk(100)

    def test_alike(self) -> None:
        """A body in chunks or of a length, whole or cut anywhere, in whatever pieces it comes, is what http.client makes of it;
        and what comes behind a whole one is left for the next."""
        rng = random.Random(9)
        ends: Counter[str] = Counter()
        for _ in range(3000):
            data, most = body_of(rng), rng.choice((1, 2, 3, 7, 100, 1 << 16))
            whole = len(data)
            if rng.random() < 0.5:
                data = data[: rng.randrange(data.index(b"\r\n\r\n") + 4, whole + 1)]
            else:
                data += rng.choice((b"", OK + b"\r\n"))
            made = answers.Answers(Dripping(data, most, rng))
            made.begin("POST")
            try:
                meant = their_body(data)
                if re.search(rb"\n0[^\n]*\Z", data):  # a size that may go on, which http.client believes
                    raise http.client.IncompleteRead(meant)
            except http.client.IncompleteRead:
                ends["cut"] += 1
                with self.assertRaises(http.client.IncompleteRead, msg=data):
                    our_body(made, rng)
                continue
            ends["whole"] += 1
            self.assertEqual(our_body(made, rng), meant, data)
            self.assertEqual(made.read(1 << 16), data[whole:])
        self.assertGreater(min(ends["whole"], ends["cut"]), 500, ends)


def body_of(rng: random.Random) -> bytes:
    """An answer of random size, in chunks or of a length."""
    pieces = [bytes(rng.choices(b"ab;\r\n", k=rng.choice((1, 2, 5, 16, 300)))) for _ in range(rng.randrange(5))]
    if rng.random() < 0.3:
        body = b"".join(pieces)
        return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body
    extensions, line_ends, sizes = (b"", b";x=1", b'; a="b"', b" "), (b"\r\n", b"\r\n", b"\n"), (b"%x", b"%X", b"00%x")
    chunks = [rng.choice(sizes) % len(each) + rng.choice(extensions) + rng.choice(line_ends) + each + b"\r\n" for each in pieces]
    trailers = rng.choice((b"", b"X: 1\r\n", b"X: 1\nY: 2\r\n"))
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks) + b"0\r\n" + trailers + b"\r\n"


class Dripping(Wire):
    """Gives at most so many bytes at a time, and sometimes fewer."""

    def __init__(self, data: bytes, most: int, rng: random.Random) -> None:
        super().__init__(data)
        self.most = most
        self.rng = rng

    def recv(self, most: int) -> bytes:
        return super().recv(min(most, self.rng.randint(1, self.most)))


def our_body(made: Any, rng: random.Random) -> bytes:
    most = rng.choice((1, 4, 1 << 16))
    if made.length is not None:
        body = made.read(made.length)
        if len(body) < made.length:
            raise http.client.IncompleteRead(body)
        return body
    pieces = []
    while piece := made.read_chunk(most):
        pieces.append(piece)
    return b"".join(pieces)


def their_body(data: bytes) -> bytes:
    made: Any = http.client.HTTPResponse(Wire(data))  # type: ignore[arg-type]  # it needs no more
    made.begin()
    return made.read()


class Inlets(WireCase):
    def test_answers_in_one_packet(self) -> None:
        """Two answers that come at once are never both used: the second was not asked for yet."""

        def script(peer: Peer) -> None:
            while peer.request() is not None:
                peer.send((OK + b"Content-Length: 1\r\n\r\na") * 2)

        for tls in ("", "good"):
            with ScriptedServer(script, tls) as server:
                for _ in range(3):
                    reply = self.send(server.url)
                    self.assertEqual((reply.read(), server.reused), (b"a", False))

    def test_a_head_in_drops(self) -> None:
        """A head that comes byte by byte, on a kept connection too, is the same head."""
        answer = OK + b"X-Y:  z \r\nContent-Length: 2\r\n\r\nok"

        def script(peer: Peer) -> None:
            while peer.request() is not None:
                peer.drip(answer, 0.0)

        with ScriptedServer(script) as server:
            for used in (False, True, True):
                reply = self.send(server.url)
                self.assertEqual((reply.read(), reply.headers["x-y"], server.reused), (b"ok", "z", used))

    def test_a_reader_refuses_after_a_failed_read(self) -> None:
        """A connection on which a read failed is out of sync for ever."""
        near, far = socket.socketpair()
        timed = part("connections").TimedSocket(fileno=near.detach())
        self.addCleanup(timed.close)
        self.addCleanup(far.close)
        timed.idle = 0.0
        with self.assertRaises(BlockingIOError):
            timed.recv(1)
        self.assertTrue(timed.lost)
        far.sendall(b"x")
        with self.assertRaises(RuntimeError):
            timed.recv(1)
        connections = part("connections")
        pool = connections.Pool(60.0, 1, lambda: 0.0)
        pool.put(connections.Connection(connections.Destination("http", "h", 80), timed))
        self.assertEqual((pool._idle, timed.fileno()), ({}, -1))


if __name__ == "__main__":
    unittest.main()
