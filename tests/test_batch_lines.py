"""Looking through files of millions of lines: a block at a time finds what line by line finds, whatever stands in them."""

from __future__ import annotations

import io
import random
import unittest
from array import array
from typing import Any
from unittest import mock

from tests import ir, part
from tests.jobs import JobCase

batch_index, batch_input, batch_lines, batch_output = map(part, ("batch_index", "batch_input", "batch_lines", "batch_output"))

INPUTS = (
    *(b'{"custom_id": "a-%d", "text": "x"}', b'{"custom_id":"b-%d","text":"x"}', b'  {"custom_id": "c-%d", "text": "x"}  '),
    *(b'{"custom_id": "d-%d"}', b'{ "custom_id" :\t"e-%d" , "text": {"a": 1}}', b'{"custom_id": "f-%d", "text": "x"}\r'),
    *(b'{"custom_id": "row-%016x", "text": "x"}', b'{"custom_id": "row-%d", "t": 1}', b'{"custom_id": "g\\u0041-%d", "t": 1}'),
    *(b'{"text": "x", "custom_id": "h-%d"}', b'{"x": {"custom_id": "i-%d"}}', b'{"custom_id": %d, "text": 1}', b'{"text": "%d"}'),
    *(b'"a text %d"', b"no JSON %d", b"", b"  ", b'{"custom_id": "", "text": "%d"}', b'{"custom_id": "j\xff-%d", "text": 1}'),
    *(b'{"custom_id": "k-%d", "broken', b'{"custom_id": "l-%d", "text": 1}, "more"', b'{"custom_id": "m-%d",\x0b"t": "}"}'),
    *(b"%d" + b"long" * 30, b'{"custom_id": "n-%d", "text": "' + b"long" * 40 + b'"}', b'{"custom_id": "o-%d" "text": }'),
)
OUTPUTS = (
    *(b'{"custom_id": "row-%016x", "error": null, "id": 1}', b'{"custom_id": "row-%016x", "error": {"code": "x"}}'),
    *(
        b'{"custom_id": "a-%d", "error": null, "text": "\\n"}',
        b'{"custom_id": "b-%d", "error": {}}',
        b'{"custom_id": "row-%016x-2", "error": null}',
    ),
    *(
        b'{"custom_id": "row-%d", "error": null}',
        b'{"custom_id": "c\\u0041%d", "error": null}',
        b'{"error": null, "custom_id": "d-%d"}',
    ),
    *(
        b"",
        b'{"custom_id":"e-%d","error":null}',
        b'{"custom_id": "f-%d", "error": false}',
        b'{"custom_id": "", "error": null, "n": %d}',
    ),
    *(
        b'{"custom_id": "g\xff-%d", "error": null}',
        b'{"custom_id": "row-%016X", "error": null}',
        b'{"custom_id": "h-%d", "error": "w"}',
    ),
)


def written(chance: random.Random, kinds: tuple[bytes, ...]) -> bytes:
    """A file of some lines of a few of `kinds`, mostly of one."""
    some = chance.sample(kinds, chance.randint(1, 4))
    lines = chance.choices(some, [20, *([1] * (len(some) - 1))], k=chance.randint(1, 60))
    text = b"".join((kind % number if b"%" in kind else kind) + b"\n" for number, kind in enumerate(lines))
    return text if chance.random() < 0.7 else text[:-1]


class Inputs(JobCase):
    def test_a_block_at_a_time_or_a_line(self) -> None:
        """Names and contents are those that each row has by itself, in whatever order kinds of lines, ends and blocks come."""
        chance = random.Random(3)
        for turn in range(400):
            bom = b"\xef\xbb\xbf" if chance.random() < 0.2 else b""
            path = self.file("in.jsonl", bom + written(chance, INPUTS))
            for kind in (batch_input.JsonLines, batch_input.Lines):
                source = kind(path)
                source.lasting = chance.random() < 0.3
                small = mock.patch.multiple(batch_lines, BLOCK=chance.choice((1, 7, 100, 1000, 1 << 20)))
                with small, mock.patch.object(batch_input, "MAX_LINE", chance.choice((100, 150, 1 << 26))):
                    expected = batch_input.Source.scan(source)
                    with self.subTest(turn=turn, kind=kind):
                        self.assertEqual(tuple(source.scan()), expected)

    def test_a_line_without_end(self) -> None:
        """Of a line longer than any row may be no more is held than a row may be."""

        class Endless(io.BytesIO):
            left = 50

            def read(self, size: int | None = -1) -> bytes:
                self.left -= 1
                return b"x" * (size or 0) if self.left > 0 else b"\nend" if self.left == 0 else b""

        with mock.patch.object(batch_lines, "BLOCK", 10):
            found = list(batch_lines.blocks(Endless(), 100))
        self.assertEqual([len(block) for block in found], [101, 4])
        self.assertEqual(found[-1], b"end\n")


class Outputs(JobCase):
    def test_a_block_at_a_time_or_a_line(self) -> None:
        """The keys are those of the records, read one by one, whoever wrote them."""
        chance = random.Random(4)
        for turn in range(400):
            path = self.file("out.jsonl", written(chance, OUTPUTS).rstrip(b"\n") + b"\n")
            records = list(batch_output.line_records(path))
            expected = [
                sorted(batch_input.key_of(each.custom_id) for each in records if each.failed is bad) for bad in (False, True)
            ]
            with self.subTest(turn=turn):
                with mock.patch.object(batch_lines, "BLOCK", chance.choice((1, 50, 300, 1 << 20))):
                    found = batch_output.keys_of(path, "openai")
                self.assertEqual([sorted(keys) for keys in found], expected)

    def test_what_is_no_record(self) -> None:
        """A foreign or a torn line is told by its number, however many whole ones stand before it."""
        whole = [b'{"custom_id": "row-%016x", "error": null}\n' % number for number in range(40)]
        for at, wrong in ((0, b"# a note\n"), (17, b'{"custom_id": "torn\n'), (40, b'{"custom_id": "row-00\n'), (40, b"[1]\n")):
            for block in (30, 1 << 20):
                path = self.file("out.jsonl", b"".join((*whole[:at], wrong, *whole[at:])))
                with self.subTest(at=at, block=block), mock.patch.object(batch_lines, "BLOCK", block):
                    with self.assertRaisesRegex(ir.BatchError, rf"line {at + 1} is not a result"):
                        batch_output.keys_of(path, "openai")


class Indexes(JobCase):
    def states(self, lines: list[bytes], fine: Any, failed: Any, dedupe: bool = True) -> list[int]:
        index = batch_index.Index(batch_input.Lines(self.file("in.txt", b"\n".join(lines))), None, dedupe)
        keys = [[batch_input.content_hash(line) for line in some] for some in (fine, failed)]
        index.mark(*(array("Q", some) for some in keys))
        return list(index.states)

    def test_what_is_finished(self) -> None:
        """A record that is an answer counts before one that is an error; what the output has beside the input is none of it."""
        rows = [b"a", b"b", b"c"]
        self.assertEqual(self.states(rows, [], []), [0, 0, 0])
        self.assertEqual(self.states(rows, rows, []), [1, 1, 1])
        self.assertEqual(self.states(rows, [b"a", b"z"], [b"b", b"a", b"y"]), [1, 2, 0])
        self.assertEqual(self.states([b"a", b"b", b"a"], [b"a"], []), [1, 0, 3])


if __name__ == "__main__":
    unittest.main()
