"""Knows which rows of an input there are, which are finished, and which say the same: a byte a row, for millions.

Strategy: one look at the input gives every row 64 bits of name and of content; the output's names are held against them; what is
left of it is a byte a row, so that a job of a million rows runs in the memory of a job of ten. Must never know prompts, answers
or how an output is written.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise

from .batch_input import RawRow, Source, key_of, name_of, numbered
from .errors import BatchError

TO_DO, FINISHED, FAILED, COPY, ELSEWHERE = range(5)
"""What a row is: to be asked; in the output; in the output with an error; the same as an earlier one; another shard's."""


class Index:
    """The rows of one job. `states`: a byte a row, in the input's order; `total`: those of this shard."""

    def __init__(self, source: Source, shard: tuple[int, int] | None, dedupe: bool) -> None:
        """Look through the input. `shard`: (i, n), i from 1. Raises `ConfigError`, or `BatchError` for names that come twice."""
        self._source = source
        source.lasting = shard is not None
        keys, contents = source.scan()
        if not keys:
            raise BatchError(f"input {str(source.path)!r} is empty: there is no row to ask")
        self.states = bytearray(len(keys))
        self._twice = _repeated(contents, different := set(contents))
        if self._twice:
            keys = keys[:]
            self._tell_apart(keys, contents, dedupe)
        if self._twice or keys is not contents:
            different.clear()  # two at a time are more than a job of a million rows may need
            different.update(keys)
            self._refuse_names_twice(_repeated(keys, different))
        self._keys, self._missing = keys, different
        if shard is not None:
            place, count = shard
            for at, content in enumerate(contents):
                if content % count != place - 1:
                    self.states[at] = ELSEWHERE
        self.total = len(keys) - self.states.count(ELSEWHERE)

    def mark(self, fine: Iterable[int], failed: Iterable[int]) -> None:
        """Note what is in the output, by the keys of its records. Called once: what it needed is let go of."""
        keys, missing = self._keys, self._missing
        self._keys, self._missing = array("Q"), set()
        states, wrong = self.states, frozenset(failed)
        missing.difference_update(fine)
        if not missing and not any(states):
            states[:] = bytes([FINISHED]) * len(states)
            return
        for at, key in enumerate(keys):
            if states[at] == ELSEWHERE:
                continue
            if key not in missing:
                states[at] = FINISHED
            elif key in wrong:
                states[at] = FAILED

    def count(self, *states: int) -> int:
        """How many rows are in these states."""
        return sum(map(self.states.count, states))

    def rows(self, *states: int) -> Iterator[tuple[int, str, RawRow]]:
        """The rows in these states: place, `custom_id`, and the row before it is read."""
        if not self.count(*states):
            return
        seen: dict[int, int] = {}
        known, twice, name_in = self.states, self._twice, self._source.name
        for at, row in enumerate(self._source.raw()):
            if at >= len(known):  # the file has grown since; the next run takes what was added
                return
            wanted = known[at] in states
            if not (wanted or twice):
                continue
            name = name_in(row)
            times = 1
            if twice and name.content in twice and not name.custom_id:
                times = seen[name.content] = seen.get(name.content, 0) + 1
            if wanted:
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
                    keys[at] = numbered(content, times)
                if times > 1 and dedupe:
                    self.states[at] = COPY

    def _refuse_names_twice(self, wrong: frozenset[int]) -> None:
        if not wrong:
            return
        seen: dict[str, int] = {}
        for row in self._source.raw():
            custom_id = self._source.name(row).custom_id
            if custom_id and key_of(custom_id) in wrong:
                if custom_id in seen:
                    raise BatchError(
                        f"{self._source.place(row)}: custom_id {custom_id!r} is also in line {seen[custom_id]}: "
                        "each row needs its own"
                    )
                seen[custom_id] = row.line


def _repeated(numbers: array[int], different: set[int]) -> frozenset[int]:
    """Those that come more than once, of which `different` has each once."""
    if len(different) == len(numbers):
        return frozenset()
    return frozenset(low for low, high in pairwise(sorted(numbers)) if low == high)
