"""Keeps the counts of buckets so that several change in one step, and remembers what was seen of many of them.

Strategy: a change is an entry in a cell, which counts as soon as it is the newest one; whoever looks next carries it out, if who
made it was cut off before or is slower. Entries are numbered, and for a while it is known which keys each one changed, so that a
look at many buckets costs what changed since the last one, not how many there are. No lock is held. Must never read a clock, nor
know how a bucket counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence

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
    keys: Collection[str]


class Book(Cell[Entry]):
    """The counts by key. What is in it is replaced, and never charged itself. `watched`: somebody wants to know which keys an
    entry changed."""

    __slots__ = ("_changed", "_counts", "_done", "watched")

    def __init__(self) -> None:
        super().__init__(Entry(iter(()), None, 0, ()))
        self._counts: Counts = {}
        self._done = 0
        self._changed: dict[int, Collection[str]] = {}
        self.watched = False

    def counts(self) -> tuple[Counts, Version[Entry]]:
        """All counts as they are now, and as of which version."""
        entry, seen = self.look()
        if entry[2] != self._done:
            self._carry_out(entry)
        return self._counts, seen

    def counts_as_of(self) -> tuple[Counts, int]:
        """All counts as they are now or newer, and as of which entry."""
        entry, _ = self.look()
        if entry[2] != self._done:
            self._carry_out(entry)
        return self._counts, entry[2]

    def change(self, seen: Version[Entry], changed: Counts, settles: Reservation | None = None) -> bool:
        """Put `changed` in the place of what was `seen`. False, changing nothing, if there is a newer version."""
        last = seen.value
        number = last[2] + 1 if last.__class__ is Entry else 0  # of a version that was replaced the value is gone
        entry = new_tuple(Entry, (iter(changed.items()), settles, number, changed.keys()))
        if not self.replace(seen, entry):
            return False
        self._carry_out(entry)
        return True

    def changed_between(self, first: int, last: int) -> set[str] | None:
        """The keys that entries after `first`, up to `last`, changed; None where that is not known."""
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
        if self.watched:
            self._changed[entry.number] = entry.keys
            self._changed.pop(entry.number - KNOWN, None)
        self._done = entry.number


class Seen(list[Headroom]):
    """The headroom of many buckets as it was seen as of an entry of a book: for `since <= now < until` only entries change it.

    Never changed once it is made, so that threads may share it.
    """

    __slots__ = ("_before", "_book", "_number", "_origin", "_places", "_renewed", "keys", "since", "until")

    def __init__(self, book: Book, number: int, keys: Sequence[str], headrooms: Iterable[Headroom]) -> None:
        super().__init__(headrooms)
        self.keys = keys
        self._book = book
        book.watched = True
        self._number = self._before = number
        self._renewed: list[int] = []  # the places that were looked at again since the entry `_before`
        self._places = dict(zip(keys, range(len(keys)), strict=True))
        self._origin = object()  # what was looked up as a whole at another time may differ without any entry

    @classmethod
    def of(cls, book: Book, number: int, keys: Sequence[str], shown: Sequence[Shown]) -> Seen | None:
        """What was just shown of `keys`; None if one stands twice."""
        seen = cls(book, number, keys, [each.headroom for each in shown])
        if len(seen._places) < len(keys):
            return None
        seen._lasts(shown, -math.inf, math.inf)
        return seen

    def renewed(self, counts: Counts, number: int, now: float) -> Seen:
        """The same buckets as of the entry `number`: only those are looked at that entries changed since."""
        if number <= self._number:
            return self
        changed, keys = self._places_changed(self._number, number), self.keys
        places = range(len(keys)) if changed is None else changed
        shown, _ = shown_with([counts[keys[place]] for place in places], now)
        other = Seen.__new__(Seen)
        other.extend(self)
        for place, each in zip(places, shown, strict=True):
            other[place] = each.headroom
        other.keys, other._book, other._origin, other._places = keys, self._book, self._origin, self._places
        other._before, other._number, other._renewed = self._number, number, list(places)
        other._lasts(shown, self.since, self.until)
        return other

    def changed_since(self, earlier: object) -> list[int] | None:
        """The places that may differ from those of `earlier`; None where that is not known."""
        if earlier.__class__ is not Seen or earlier._origin is not self._origin:
            return None
        if earlier._number == self._before:  # as nearly always: the call before had looked at that one
            return self._renewed
        return self._places_changed(earlier._number, self._number)

    def _places_changed(self, first: int, last: int) -> list[int] | None:
        """The places that entries after `first`, up to `last`, changed; None where that is not known."""
        changed, places = self._book.changed_between(first, last), self._places
        return None if changed is None else [places[key] for key in changed if key in places]

    def _lasts(self, shown: Iterable[Shown], since: float, until: float) -> None:
        """From and until when all that was `shown` holds, within these bounds."""
        for each in shown:
            if each.since > since:
                since = each.since
            if each.until < until:
                until = each.until
        self.since, self.until = since, until
