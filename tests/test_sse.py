"""The event stream reader: every rule, however the bytes are cut."""

from __future__ import annotations

import base64
import itertools
import json
import random
import time
import tracemalloc
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import SHARED, part, rounds

sse = part("sse")
CASES = json.loads((Path(__file__).parent / "data" / "sse_cases.json").read_text())


def cuts(stream: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, in sevens, and in two with nothing between, at every place (at fifty of a long stream)."""
    yield [stream]
    yield [stream[i : i + 1] for i in range(len(stream))]
    yield [stream[i : i + 7] for i in range(0, len(stream), 7)]
    step = 1 if len(stream) <= rounds(1000, 150) else len(stream) // 50
    for i in range(0, len(stream) + 1, step):
        yield [stream[:i], b"", stream[i:]]


def run(chunks: list[bytes]) -> tuple[list[tuple[str, str, str]], Any]:
    reader = sse.Reader()
    events = [tuple(event) for chunk in chunks for event in reader.feed(chunk)]
    return events, reader


def oracle(stream: bytes) -> list[tuple[str, str, str]]:
    """The rules of the standard, character by character, as slow and plain as they are written."""
    text = stream.decode("utf-8", "replace")
    text = text[1:] if text.startswith("\ufeff") else text
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    events, data, kind, last = [], "", "", ""
    *lines, _ = text.split("\n")
    for line in lines:
        if line == "":
            if data:
                events.append((kind or "message", data.removesuffix("\n"), last))
            data = kind = ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last = value
    return events


class Rules(unittest.TestCase):
    def test_own_cases(self) -> None:
        """Every rule holds for every way of cutting the bytes."""
        for case in CASES:
            stream = case["stream"].encode("latin-1")
            expected = [tuple(event) for event in case["events"]]
            for chunks in cuts(stream):
                events, reader = run(chunks)
                self.assertEqual(events, expected, case["name"])
                pending = case.get("pending")
                self.assertEqual(reader.pending(), tuple(pending) if pending else None, case["name"])

    @unittest.skipIf(SHARED is None, "the collected cases are not here")
    def test_collected_cases(self) -> None:
        """The cases collected from other readers' suites pass, cut in every way."""
        assert SHARED is not None
        for case in json.loads((SHARED / "recorded" / "sse_cases.json").read_text()):
            given = [base64.b64decode(chunk) for chunk in case["chunks"]]
            expected = [(e["event"], e["data"], e["id"]) for e in case["expect"]]
            for chunks in itertools.chain([given], cuts(b"".join(given))):
                events, _ = run(chunks)
                self.assertEqual(events, expected, case["name"])

    def test_every_mix_of_line_ends(self) -> None:
        """All strings of up to four CRs and LFs between two data lines read as the standard says."""
        for count in range(1, 5):
            for ends in itertools.product((b"\r", b"\n"), repeat=count):
                stream = b"data: a" + b"".join(ends) + b"data: b\n\n"
                for chunks in cuts(stream):
                    self.assertEqual(run(chunks)[0], oracle(stream), stream)

    def test_random_streams(self) -> None:
        """Random streams in random pieces give what the plain reading of the standard gives."""
        rng = random.Random(20)
        words = [b"data", b"data:", b"data: ", b"event:", b"id: ", b":", b" ", b"\r", b"\n", b"\r\n", b"\n\n", b"x",
                 b"\0", "\ufeff".encode(), "é€".encode(), b"\xff", b"\xe2\x82"]  # fmt: skip
        for _ in range(rounds(2000, 700)):
            stream = b"".join(rng.choices(words, k=rng.randrange(25)))
            places = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(4)))
            chunks = [stream[a:b] for a, b in itertools.pairwise([0, *places, len(stream)])]
            self.assertEqual(run(chunks)[0], oracle(stream), chunks)


class Liveness(unittest.TestCase):
    def test_a_lone_cr_does_not_wait(self) -> None:
        """An event ended by CR CR is there at once, without waiting for an LF that may never come."""
        self.assertEqual([e.data for e in sse.Reader().feed(b"data: x\r\r")], ["x"])

    def test_pending_is_asked_once(self) -> None:
        """Asking for the unterminated block ends it: the second answer is None."""
        reader = sse.Reader()
        reader.feed(b"data: x")
        self.assertEqual(reader.pending().data, "x")
        self.assertIsNone(reader.pending())


class Limits(unittest.TestCase):
    def test_a_long_line_costs_no_more_a_byte(self) -> None:
        """A line that arrives in small pieces takes time in proportion to its length, not to its square."""

        def seconds(pieces: int) -> float:
            reader, piece, start = sse.Reader(), b"x" * 64, time.thread_time()
            reader.feed(b"data: ")
            for _ in range(pieces):
                reader.feed(piece)
            self.assertEqual(len(reader.feed(b"\n\n")[0].data), 64 * pieces)
            return time.thread_time() - start

        seconds(1000)
        self.assertLess(min(seconds(64_000) for _ in range(2)), 10 * max(seconds(16_000), 0.005))

    def test_too_large(self) -> None:
        """A line, a comment or the data lines of one event over the limit raise SSETooLarge, however they are cut."""
        for stream in (b"data: " + b"x" * 100, b": " + b"x" * 100 + b"\n", b"data: " + b"x" * 100 + b"\n\n",
                       b"data: 0123456789\n" * 10, b"data\n" * 30, b"id: " + b"x" * 100 + b"\n", b"x" * 100):  # fmt: skip
            for chunks in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
                reader = sse.Reader(max_event=90)
                with self.assertRaises(sse.SSETooLarge):
                    for chunk in chunks:
                        reader.feed(chunk)

    def test_just_fits(self) -> None:
        """What is exactly as large as the limit passes, and so does any number of smaller events after it."""
        reader = sse.Reader(max_event=90)
        for _ in range(50):
            self.assertEqual(len(reader.feed(b"data: " + b"x" * 84 + b"\n\n")), 1)
            self.assertEqual(len(reader.feed(b"data: " + b"x" * 39 + b"\ndata: " + b"y" * 39 + b"\n\n")), 1)

    def test_nothing_but_the_event_is_kept(self) -> None:
        """Comments by the megabyte leave nothing behind, and a line stopped at the limit no more than twice the limit."""
        reader = sse.Reader(max_event=1 << 20)
        tracemalloc.start()
        try:
            for _ in range(rounds(100, 30)):
                reader.feed(b": keep-alive\nunknown: line\n" * 1000)
            self.assertLess(tracemalloc.get_traced_memory()[0], 100_000)
            tracemalloc.reset_peak()
            with self.assertRaises(sse.SSETooLarge):
                for _ in range(100):
                    reader.feed(b"x" * 65536)
            self.assertLess(tracemalloc.get_traced_memory()[1], 2 << 20)
        finally:
            tracemalloc.stop()


if __name__ == "__main__":
    unittest.main()
