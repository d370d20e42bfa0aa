"""Keeps the counts of buckets so that several change in one step.

Strategy: a change is an entry in a cell, which counts as soon as it is the newest one; whoever looks next carries it out, if who
made it was cut off before or is slower. Entries are numbered, and for a while it is known which keys each one changed. No lock is
held. Must never read a clock, nor know how a bucket counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from .cell import GONE, Cell, Version
from .frozen import NamedTuple, new_tuple
from .quota import Reservation
from .quota_plain import Count, Counts
from .quota_seen import Changes, note_change


class Entry(NamedTuple):
    """One change of a book: the new counts, which can be taken from here once, and the reservation that it settles."""

    counts: Iterator[tuple[str, Count]]
    settles: Reservation | None
    number: int
    keys: Collection[str]


class Book(Cell[Entry]):
    """The counts by key. What is in it is replaced, and never charged itself. `changes`: the keys of the last entries, by number,
    once it is `watched`."""

    __slots__ = ("_counts", "_done", "changes", "watched")

    def __init__(self) -> None:
        super().__init__(Entry(iter(()), None, 0, ()))
        self._counts: Counts = {}
        self._done = 0
        self.changes: Changes = {}
        self.watched = False

    def counts(self) -> tuple[Counts, Version[Entry], int]:
        """All counts as they are now or newer, and as of which version and number of an entry."""
        seen = self._newest
        entry = seen.value
        if seen or entry is GONE:
            entry, seen = self.look()
        number = entry[2]
        if number != self._done:
            self._carry_out(entry)
        return self._counts, seen, number

    def change(self, seen: Version[Entry], number: int, changed: Counts, settles: Reservation | None = None) -> bool:
        """Put `changed` in the place of what was `seen`, as the entry after `number`. False, changing nothing, if there is a
        newer version."""
        entry = new_tuple(Entry, (iter(changed.items()), settles, number + 1, changed.keys()))
        if not self.replace(seen, entry):
            return False
        self._carry_out(entry)
        return True

    def _carry_out(self, entry: Entry) -> None:
        """Done again, by another thread or after an interrupt, each of these steps does nothing: an iterator is empty once it was
        taken from, in the one step of the interpreter's that `dict.update` is."""
        counts, settles, number, keys = entry
        self._counts.update(counts)
        if settles is not None:
            settles.settled = True
        if self.watched:
            note_change(self.changes, number, keys)
        self._done = number
