"""Puts the calls of one router that wait for the same route in line: first come, first served.

Strategy: a call takes a number when it comes, and stands in its route's line while it waits. Only who has nobody alike before him
looks for a slot; whoever gets one leaves the line at that moment, and the next one looks. Somebody who needs less than those
before him, or something else, may look beside them, as they may wait for what he does not need. Places are kept in dicts whose
single operations are atomic, so that no lock is held. Must never know what a slot is.
"""

from __future__ import annotations

from collections.abc import Hashable
from itertools import count

from .waiting import Alarm


class Place(Alarm):
    """One call's place. `kind`, `total`: what it needs, in kind and in tokens; `due`: when it looks next, monotonic seconds."""

    __slots__ = ("due", "kind", "line", "number", "total")

    def __init__(self, line: str, number: int, kind: Hashable, total: int) -> None:
        super().__init__()
        self.line = line
        self.number = number
        self.kind = kind
        self.total = total
        self.due = 0.0


class Lines:
    """The lines of a router, one for each route. `joined`: somebody has ever stood in one."""

    def __init__(self) -> None:
        self.joined = False
        self._lines: dict[str, dict[int, Place]] = {}
        self._numbers = count(1)

    def place(self, line: str, kind: Hashable, total: int) -> Place:
        """A place for a call that has come, not yet in line."""
        return Place(line, next(self._numbers), kind, total)

    def join(self, place: Place, due: float) -> None:
        """Stand in line, by one's number, to look at `due` unless somebody is before."""
        place.due = due
        place.rung = False
        self.joined = True
        self._lines.setdefault(place.line, {})[place.number] = place

    def leave(self, place: Place) -> None:
        """Go; those who have nobody before them now look. Does nothing for who is not in line."""
        line = self._lines.get(place.line)
        if line and line.pop(place.number, None) is not None:
            for first in _firsts(line):
                first.ring()

    def leader(self, place: Place) -> Place | None:
        """Somebody alike who is before, None if nobody is."""
        line = self._lines.get(place.line)
        before = [each for each in list(line.values()) if each.number < place.number and _alike(each, place)] if line else []
        return min(before, key=_number, default=None)

    def freed(self) -> None:
        """Something was given back: the first ones look, before their time."""
        for line in list(self._lines.values()):
            if line:
                for first in _firsts(line):
                    first.ring()


def _alike(before: Place, place: Place) -> bool:
    """Whether what serves `place` would have served who is `before`."""
    return before.kind == place.kind and before.total <= place.total


def _firsts(line: dict[int, Place]) -> list[Place]:
    """Those with nobody alike before them."""
    least: dict[Hashable, int] = {}
    found = []
    for place in sorted(line.values(), key=_number):
        if place.total < least.get(place.kind, place.total + 1):
            least[place.kind] = place.total
            found.append(place)
    return found


def _number(place: Place) -> int:
    return place.number
