"""Knows which rows of an input there are, which are finished, and which say the same: a byte a row, for millions.

Strategy: one look at the input gives every row 64 bits of name and of content; the output's names are held against them; what is
left of it is a byte a row, so that a job of a million rows runs in the memory of a job of ten. Must never know prompts, answers
or how an output is written.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise

from .batch_input import RawRow, RowName, Source, content_hash
from .batch_output import Record
from .errors import BatchError

TO_DO, FINISHED, FAILED, COPY, ELSEWHERE = range(5)
"""What a row is: to be asked; in the output; in the output with an error; the same as an earlier one; another shard's."""


class Index:
    """The rows of one job. `states`: a byte a row, in the input's order; `total`: those of this shard."""

    def __init__(self, source: Source, shard: tuple[int, int] | None, dedupe: bool) -> None:
        """Look through the input. `shard`: (i, n), i from 1. Raises `ConfigError`, or `BatchError` for names that come twice."""
        self._source = source
        keys, contents = array("Q"), array("Q")
        for row in source.raw():
            name = source.name(row)
            keys.append(_named(name.custom_id) if name.custom_id else name.content)
            contents.append(name.content)
        if not keys:
            raise BatchError(f"input {str(source.path)!r} is empty: there is no row to ask")
        self.states = bytearray(len(keys))
        self._twice = _repeated(contents)
        self._keys: array[int] | None = keys
        if self._twice:
            self._tell_apart(keys, contents, dedupe)
        self._refuse_names_twice(keys)
        if shard is not None:
            place, count = shard
            for at, content in enumerate(contents):
                if content % count != place - 1:
                    self.states[at] = ELSEWHERE
        self.total = len(keys) - self.states.count(ELSEWHERE)

    def mark(self, records: Iterable[Record]) -> None:
        """Note what is in the output. Called once: what it needed is let go of."""
        keys, self._keys = self._keys, None
        assert keys is not None
        fine: set[int] = set()
        failed: set[int] = set()
        for custom_id, _, _, bad in records:
            (failed if bad else fine).add(key_of(custom_id))
        if not fine and not failed:
            return
        states = self.states
        for at, key in enumerate(keys):
            if states[at] != ELSEWHERE and (key in fine or key in failed):
                states[at] = FINISHED if key in fine else FAILED

    def count(self, *states: int) -> int:
        """How many rows are in these states."""
        return sum(map(self.states.count, states))

    def rows(self, *states: int) -> Iterator[tuple[int, str, RawRow]]:
        """The rows in these states: place, `custom_id`, and the row before it is read."""
        seen: dict[int, int] = {}
        for at, row in enumerate(self._source.raw()):
            if at >= len(self.states):  # the file has grown since; the next run takes what was added
                return
            if not self._twice and self.states[at] not in states:
                continue
            name = self._source.name(row)
            times = 1
            if name.content in self._twice and not name.custom_id:
                times = seen[name.content] = seen.get(name.content, 0) + 1
            if self.states[at] in states:
                yield at, name_of(name, times), row

    def originals(self) -> Iterator[tuple[str, list[str]]]:
        """For each row that has copies to be made: its `custom_id`, and theirs."""
        first: dict[int, str] = {}
        copies: dict[int, list[str]] = {}
        for at, custom_id, row in self.rows(TO_DO, FINISHED, FAILED, COPY):
            content = self._source.name(row).content
            if content in self._twice:
                if content not in first:
                    first[content] = custom_id
                elif self.states[at] == COPY:
                    copies.setdefault(content, []).append(custom_id)
        for content, names in copies.items():
            yield first[content], names

    def _tell_apart(self, keys: array[int], contents: array[int], dedupe: bool) -> None:
        """Number the rows without a name of their own that say the same, and mark all but the first as copies."""
        seen: dict[int, int] = {}
        for at, content in enumerate(contents):
            if content in self._twice:
                times = seen[content] = seen.get(content, 0) + 1
                if times > 1 and keys[at] == content:
                    keys[at] = _numbered(content, times)
                if times > 1 and dedupe:
                    self.states[at] = COPY

    def _refuse_names_twice(self, keys: array[int]) -> None:
        wrong = _repeated(keys)
        if not wrong:
            return
        seen: dict[str, int] = {}
        for row in self._source.raw():
            custom_id = self._source.name(row).custom_id
            if custom_id and _named(custom_id) in wrong:
                if custom_id in seen:
                    raise BatchError(
                        f"{self._source.place(row)}: custom_id {custom_id!r} stands in line {seen[custom_id]} too: "
                        "each row needs its own"
                    )
                seen[custom_id] = row.line


def name_of(name: RowName, times: int) -> str:
    """What a row is called in the output: its own name, else one made of what it holds, the `times`th row that says it."""
    return name.custom_id or f"row-{name.content:016x}{f'-{times}' if times > 1 else ''}"


def key_of(custom_id: str) -> int:
    """64 bits for a row by its name in the output."""
    made = _MADE.fullmatch(custom_id)
    if made is None:
        return _named(custom_id)
    return _numbered(int(made[1], 16), int(made[2] or 1))


_MADE = re.compile(r"row-([0-9a-f]{16})(?:-(\d{1,9}))?")


def _named(custom_id: str) -> int:
    return content_hash(b"custom_id\x00" + custom_id.encode("utf-8", "replace"))


def _numbered(content: int, times: int) -> int:
    return (content + (times - 1) * 0x9E3779B97F4A7C15) % 2**64


def _repeated(numbers: array[int]) -> frozenset[int]:
    """Those that come more than once."""
    return frozenset(low for low, high in pairwise(sorted(numbers)) if low == high)
