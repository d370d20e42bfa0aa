"""Keeps the counts of buckets so that several change in one step, and remembers what was seen of many of them.

Strategy: a change is an entry in a cell, which counts as soon as it is the newest one; whoever looks next carries it out, if who
made it was cut off before or is slower. Entries are numbered, and for a while it is known which keys each one changed, so that a
look at many buckets costs what changed since the last one, not how many there are. No lock is held. Must never read a clock, nor
know how a bucket counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from .cell import Cell, Version
from .frozen import NamedTuple, new_tuple
from .quota import Headroom, Reservation
from .quota_counting import Shown, shown_with
from .quota_plain import Count, Counts

KNOWN = 256
"""Of so many of the last entries it is known which keys they changed."""


class Entry(NamedTuple):
    """One change of a book: the new counts, which can be taken from here once, and the reservation that it settles."""

    counts: Iterator[tuple[str, Count]]
    settles: Reservation | None
    number: int
    keys: tuple[str, ...]


class Book:
    """The counts by key. What is in it is replaced, and never charged itself."""

    def __init__(self) -> None:
        self._counts: Counts = {}
        self._newest: Cell[Entry] = Cell(Entry(iter(()), None, 0, ()))
        self._done = 0
        self._changed: dict[int, tuple[str, ...]] = {}

    def look(self) -> tuple[Counts, Version[Entry]]:
        """All counts as they are now, and as of which version."""
        entry, seen = self._newest.look()
        if entry[2] != self._done:
            self._carry_out(entry)
        return self._counts, seen

    def look_as_of(self) -> tuple[Counts, int]:
        """All counts as they are now or newer, and as of which entry."""
        entry, _ = self._newest.look()
        if entry[2] != self._done:
            self._carry_out(entry)
        return self._counts, entry[2]

    def replace(self, seen: Version[Entry], changed: Counts, settles: Reservation | None = None) -> bool:
        """Put `changed` in the place of what was `seen`. False, changing nothing, if there is a newer version."""
        last = seen.value
        number = last.number + 1 if isinstance(last, Entry) else 0  # of a version that was replaced the value is gone
        entry = new_tuple(Entry, (iter(changed.items()), settles, number, tuple(changed)))
        if not self._newest.replace(seen, entry):
            return False
        self._carry_out(entry)
        return True

    def changed_between(self, first: int, last: int) -> set[str] | None:
        """The keys that entries after `first`, up to `last`, changed; None where that is not known any more."""
        keys: set[str] = set()
        try:
            for number in range(first + 1, last + 1):
                keys.update(self._changed[number])
        except KeyError:
            return None
        return keys

    def _carry_out(self, entry: Entry) -> None:
        """Done again, by another thread or after an interrupt, each of these steps does nothing: an iterator is empty once it was
        taken from, in the one step of the interpreter's that `dict.update` is."""
        self._counts.update(entry.counts)
        if entry.settles is not None:
            entry.settles.settled = True
        self._changed[entry.number] = entry.keys
        self._changed.pop(entry.number - KNOWN, None)
        self._done = entry.number


class Seen(list[Headroom]):
    """The headroom of many buckets as it was seen as of an entry of a book: for `since <= now < until` only entries change it.

    Never changed once it is made, so that threads may share it.
    """

    __slots__ = ("_book", "_number", "_origin", "_places", "keys", "since", "until")

    def __init__(self, book: Book, number: int, keys: Sequence[str], headrooms: Iterable[Headroom]) -> None:
        super().__init__(headrooms)
        self.keys = keys
        self._book = book
        self._number = number
        self._places = dict(zip(keys, range(len(keys)), strict=True))
        self._origin = object()  # what was looked up as a whole at another time may differ without any entry

    @classmethod
    def of(cls, book: Book, number: int, keys: Sequence[str], shown: Sequence[Shown]) -> Seen | None:
        """What was just shown of `keys`; None if one stands twice."""
        seen = cls(book, number, keys, [each.headroom for each in shown])
        if len(seen._places) < len(keys):
            return None
        seen._lasts(shown)
        return seen

    def renewed(self, counts: Counts, number: int, now: float) -> Seen:
        """The same buckets as of the entry `number`: only those are looked at that entries changed since."""
        if number <= self._number:
            return self
        changed = self._book.changed_between(self._number, number)
        places = self._places
        chosen = {key: counts[key] for key in (places if changed is None else places.keys() & changed)}
        other = Seen.__new__(Seen)
        other.extend(self)
        other.keys, other.since, other.until = self.keys, self.since, self.until
        other._book, other._number, other._origin, other._places = self._book, number, self._origin, places
        shown, _ = shown_with(chosen.values(), now)
        for key, each in zip(chosen, shown, strict=True):
            other[places[key]] = each.headroom
        other._lasts(shown, self.since, self.until)
        return other

    def changed_since(self, earlier: object) -> list[int] | None:
        """The places that may differ from those of `earlier`; None where that is not known."""
        if not isinstance(earlier, Seen) or earlier._origin is not self._origin:
            return None
        changed = self._book.changed_between(earlier._number, self._number)
        return None if changed is None else [self._places[key] for key in changed if key in self._places]

    def _lasts(self, shown: Iterable[Shown], since: float = -math.inf, until: float = math.inf) -> None:
        """From and until when all that was `shown` holds, within these bounds."""
        for each in shown:
            since, until = max(since, each.since), min(until, each.until)
        self.since, self.until = since, until
