"""The memory of all bodies together is bounded: who comes when it is full waits, first come first served, or is told so."""

from __future__ import annotations

import json
import socket
import threading
import unittest
import unittest.mock
from typing import Any

from tests import ir, part
from tests.fakes import FakeClock
from tests.serving import Served, drained, post

http = part("serve_http")
bodies = part("serve_bodies")


def large(text: str = "hello", size: int = 100_000) -> bytes:
    """A chat of so many bytes."""
    body = {"model": "fast", "messages": [{"role": "user", "content": text}], "metadata": {"padding": ""}}
    body["metadata"]["padding"] = "x" * (size - len(json.dumps(body)))  # type: ignore[index]  # a dict, as it stands above
    return json.dumps(body).encode()


class Room(unittest.TestCase):
    def make(self, size: int) -> Any:
        return bodies.Bodies(size, part("meter").SystemClock())

    def test_what_is_taken_and_given(self) -> None:
        """No more than there is, and all of it again."""
        room = self.make(10)
        self.assertTrue(room.take(6, 0))
        self.assertTrue(room.take(4, 0))
        self.assertFalse(room.take(1, 0))
        room.give(4)
        self.assertFalse(room.take(5, 0))
        self.assertTrue(room.take(4, 0))
        self.assertTrue(room.take(0, 0))

    def test_first_come_first_served(self) -> None:
        """A large one that waits is not passed by small ones that would fit, and who gives up lets the next in."""
        clock, order = FakeClock(), []
        room = bodies.Bodies(10, clock)
        room.take(5, 0)

        def come(size: int, wait_s: float) -> None:
            order.append((size, room.take(size, wait_s)))

        threads = []
        for size, wait_s in ((8, 10.0), (2, 30.0)):
            threads.append(threading.Thread(target=come, args=(size, wait_s)))
            threads[-1].start()
            while len(room._line) + len(order) < len(threads):
                pass
        self.assertEqual(order, [])
        clock.advance(15)
        room.give(1)  # who waits looks at the clock again
        for thread in threads:
            thread.join(5)
        self.assertEqual(dict(order), {8: False, 2: True})
        self.assertEqual(len(room._line), 0)


class Full(Served):
    settings = {"max_body": 200_000, "max_bodies": 200_000}  # noqa: RUF012  # never changed

    def hold(self) -> socket.socket:
        """A client whose body takes all the room, and does not come."""
        sock = self.connect()
        self.addCleanup(sock.close)
        sock.sendall(post(b"{", "Content-Length: 200000", length=False))
        self.until(lambda: self.server._bodies._left == 0, "the room is taken")
        return sock

    def test_a_full_room(self) -> None:
        """Larger bodies get a 503 in their dialect's shape that says when to come back, small ones are served, and then all."""
        with unittest.mock.patch.object(http, "BODY_S", 0.1):
            holder, waiting = self.hold(), []
            for path, kind in (("/v1/chat/completions", "server_error"), ("/v1/messages", "api_error")):
                for request in (
                    post(large(), path=path),
                    post(b"%x\r\n%b\r\n0\r\n\r\n" % (100_000, large()), "Transfer-Encoding: chunked", path=path, length=False),
                ):
                    waiting.append((kind, self.connect()))
                    waiting[-1][1].sendall(request)
            for kind, sock in waiting:
                with sock:
                    seen = drained(sock)
                    self.assertTrue(seen.startswith(b"HTTP/1.1 503"), seen[:300])
                    self.assertIn(b"retry-after: 5\r\n", seen)
                    self.assertIn(b"Connection: close\r\n", seen)
                    error = json.loads(seen.partition(b"\r\n\r\n")[2])["error"]
                    self.assertEqual(error["type"], kind)
                    self.assertIn("ask again", error["message"])
            self.assertEqual(self.chat().status, 200)
        holder.close()
        self.until(lambda: self.server._bodies._left == 200_000, "its room is given back")
        self.assertEqual(self.ask("POST", "/v1/chat/completions", large()).status, 200)
        self.until(lambda: self.server._bodies._left == 200_000, "all room is given back")

    def test_it_waits(self) -> None:
        """A body that comes a moment too early is served as soon as there is room, not asked for before."""
        holder = self.hold()
        with self.connect() as sock:
            body = large()
            sock.sendall(post(b"", f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close", length=False))
            sock.settimeout(0.1)
            self.assertRaises(TimeoutError, sock.recv, 1)
            holder.close()
            sock.settimeout(5)
            self.assertTrue(sock.recv(100).startswith(b"HTTP/1.1 100"))
            sock.sendall(body)
            self.assertIn(b"200 OK", drained(sock))

    def test_a_stop(self) -> None:
        """Whoever waits for room when the endpoint stops is told so at once."""
        holder = self.hold()
        with self.connect() as sock:
            sock.sendall(post(large()))
            self.until(lambda: self.server._bodies._line, "it waits")
            with self.stopping():
                self.assertIn(b" 503 ", drained(sock))
                self.assertTrue(self.server._open, "whose body is under way has its grace")
                holder.close()
                sock.close()
        self.assertEqual(self.server._open, {})

    def test_whatever_happens_to_it(self) -> None:
        """A body that is malformed, cut off or refused leaves no room taken."""
        chunked = "Transfer-Encoding: chunked"
        for data in (
            post(b"x" * 100_000),
            post(large(), path="/v1/nothing"),
            post(b"%x\r\n%b" % (150_000, b"y" * 150_000) + b"zz", chunked, length=False),
            post(b"%x\r\n%b\r\n%x\r\n" % (150_000, b"y" * 150_000, 60_000), chunked, length=False),
        ):
            with self.connect() as sock:
                sock.sendall(data)
                sock.recv(100)
        with self.connect() as sock:
            sock.sendall(post(large())[:-10])
        self.until(lambda: not self.server._open, "all are gone")
        self.until(lambda: self.server._bodies._left == 200_000, "all room is given back")

    def test_chunks_of_a_byte(self) -> None:
        """A body in the smallest of chunks is read as it is."""
        body = large("hello", 2000)
        data = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        self.assertIn(b" 200 OK", self.raw(post(data, "Transfer-Encoding: chunked", "Connection: close", length=False)))

    def test_the_setting(self) -> None:
        """Less than one body is a mistake."""
        with self.assertRaisesRegex(ir.ConfigError, "max_bodies"):
            ir.serve(self.router, port=0, max_body=1000, max_bodies=999)


if __name__ == "__main__":
    unittest.main()
