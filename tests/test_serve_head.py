"""What a request's head may look like: whatever could be read in two ways is refused."""

from __future__ import annotations

import time
import unittest
from collections.abc import Callable

from tests import part

head = part("serve_head")
HOST = b"Host: localhost:1"


def parse(*lines: bytes) -> object:
    return head.parse_head(b"\r\n".join(lines))


class Again(unittest.TestCase):
    def test_a_head_that_came_before(self) -> None:
        """A connection's next head is read as if it were the first, whatever of it is the same as before."""
        begin, length = b"POST /v1/x HTTP/1.1\r\n" + HOST, b"\r\nContent-Length: "
        heads = [
            begin + length + b"12\r\nA: b",
            begin + length + b"7\r\nA: b",
            begin + length + b"7\r\nA: b",
            begin + length + b"007\r\nA: b",
            begin + length + b"123456789012345\r\nA: b",
            begin + length.lower() + b"12\r\nA: b",
            begin + length + b"12\r\nA: c",
            begin + length + b"12\r\nA: c\r\nConnection: close",
            begin + length + b"12",
            begin + length + b"3",
            begin,
            begin + length + b"5" + length + b"6",
            begin + length + length + b"6",
            begin + length + b"6" + length,
            begin + length + b"6\r\nTransfer-Encoding: chunked",
            begin + length + b"7\r\nTransfer-Encoding: chunked",
            begin + length + b"1234567890123456",
            begin + length + b"+6",
            begin + length + b"6 ",
            begin + length + b"6, 6",
            b"GET /" + length.strip() + b"5 HTTP/1.1\r\n" + HOST,
        ]
        for first in heads:
            for second in heads:
                reader = head.Heads()
                self.assertEqual(
                    [told(reader.parse, each) for each in (first, second)],
                    [told(head.parse_head, each) for each in (first, second)],
                )


def told(parse: Callable[[bytes], object], data: bytes) -> object:
    try:
        return parse(data)
    except head.BadRequest as exc:
        return exc.status, exc.said


class Refused(unittest.TestCase):
    def refused(self, status: int, *lines: bytes) -> None:
        with self.assertRaises(head.BadRequest, msg=lines) as caught:
            parse(*lines)
        self.assertEqual(caught.exception.status, status, lines)

    def test_a_head_that_is_long_to_read(self) -> None:
        """A long head is refused in the time its bytes take, whatever they are: no other client waits for it."""
        for line in (
            b"X:" + b" " * 60_000 + b"\x01",
            b"X:" + b" \t" * 15_000 + b"\n",
            b"X" * 60_000,
            b"X: a\r\n" * 9_000 + b"\n",
        ):
            began = time.process_time()
            self.refused(400, b"GET / HTTP/1.1", HOST, line)
            self.assertLess(time.process_time() - began, 1.0, line[:9])

    def test_first_lines(self) -> None:
        """Only METHOD TARGET HTTP/1.x begins a request, with single spaces and visible characters."""
        for line in (
            b"",
            b"GET /",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b" GET / HTTP/1.1",
            b"GET /a b HTTP/1.1",
            b"GET /\x00 HTTP/1.1",
            b"GET /\xff HTTP/1.1",
            b"GET / http/1.1",
            b"GET / HTTP/1.10",
            b"GET\t/\tHTTP/1.1",
            b"G/T / HTTP/1.1",
        ):
            self.refused(400, line, HOST)
        self.refused(505, b"GET / HTTP/2.0", HOST)
        self.refused(505, b"GET / HTTP/0.9", HOST)

    def test_targets(self) -> None:
        """A target is a path or an http URL, and not without end."""
        for target in (b"a", b"ftp://h/", b"//", b"http://", b"https://h/"):
            if target != b"//":
                self.refused(400, b"GET " + target + b" HTTP/1.1", HOST)
        self.refused(414, b"GET /" + b"a" * 9000 + b" HTTP/1.1", HOST)

    def test_fields(self) -> None:
        """A field is name: value on one line, and names that decide anything come once."""
        for line in (
            b"X",
            b": x",
            b"X : y",
            b" X: y",
            b"\tfolded",
            b"X: a\nY: b",
            b"X: a\rb",
            b"X: \x00",
            b"X\xff: y",
            b"Host: other",
            b"HOST: localhost:1",
        ):
            self.refused(400, b"GET / HTTP/1.1", HOST, line)
        for name in (b"Content-Length: 1", b"Authorization: Bearer a", b"Origin: http://a", b"Content-Type: text/plain"):
            self.refused(400, b"POST / HTTP/1.1", HOST, name, name)
        self.refused(431, b"GET / HTTP/1.1", HOST, *[b"X: y"] * 100)

    def test_hosts(self) -> None:
        """HTTP/1.1 needs a Host, and it is a name or an address with at most a port."""
        self.refused(400, b"GET / HTTP/1.1")
        for host in (b"", b"a b", b"a/b", b"user@host", b"host:port", b"host:123456", b"a,b", b"[::1"):
            self.refused(400, b"GET / HTTP/1.1", b"Host: " + host)

    def test_lengths(self) -> None:
        """One length, in plain digits, and never beside a transfer coding."""
        for value in (b"-1", b"+1", b"1 1", b"0x10", b"1,1", b"1e3", b"\xb2", b"", b"9" * 20):
            self.refused(400, b"POST / HTTP/1.1", HOST, b"Content-Length: " + value)
        self.refused(400, b"POST / HTTP/1.1", HOST, b"Content-Length: 1", b"Transfer-Encoding: chunked")
        for coding in (b"gzip, chunked", b"chunked, chunked", b"identity", b"xchunked", b"chunked;q=1", b""):
            self.refused(501, b"POST / HTTP/1.1", HOST, b"Transfer-Encoding: " + coding)
        self.refused(501, b"POST / HTTP/1.0", HOST, b"Transfer-Encoding: chunked")


class Read(unittest.TestCase):
    def test_what_is_taken(self) -> None:
        """Path, query, fields by lower-case name, and how the connection goes on."""
        found = parse(b"post /v1/x?key=a%20b HTTP/1.1", HOST, b"X-A: 1", b"x-a:  2 ", b"Content-Length: 3")
        self.assertEqual((found.method, found.path), ("POST", "/v1/x"))
        self.assertEqual((found.fields["x-a"], found.length, found.keeps, found.chunks), ("1, 2", 3, True, True))
        self.assertFalse(parse(b"GET / HTTP/1.1", HOST, b"Connection: x, CLOSE").keeps)
        old = parse(b"GET / HTTP/1.0")
        self.assertEqual((old.host, old.keeps, old.chunks), ("", False, False))
        self.assertTrue(parse(b"GET / HTTP/1.0", b"Connection: keep-alive").keeps)
        self.assertIsNone(parse(b"POST / HTTP/1.1", HOST, b"Transfer-Encoding: Chunked").length)

    def test_odd_targets(self) -> None:
        """A path stays as it is, however long its query, however much it looks like a host, an address or something cut off."""
        for target, path in (
            (b"/v1/models?" + b"a=1&" * 500, "/v1/models"),
            (b"//evil.test/v1/models", "//evil.test/v1/models"),
            (b"//[::1", "//[::1"),
            (b"/[x]?y", "/[x]"),
            (b"/a#b?c", "/a"),
            (b"*", "*"),
        ):
            self.assertEqual(parse(b"GET " + target + b" HTTP/1.1", HOST).path, path)

    def test_an_absolute_target_names_its_host(self) -> None:
        """The host of the target counts, not the one beside it."""
        found = parse(b"GET http://evil.test/x HTTP/1.1", HOST)
        self.assertEqual((found.host, found.path), ("evil.test", "/x"))


if __name__ == "__main__":
    unittest.main()
