"""Remembers what was seen of many buckets, so that a look at them costs what changed since the last one, not how many there are.

Strategy: a store numbers its changes, and for a while knows which keys each of them changed; what else moves a headroom is time,
and until when that does not is known of each. Must never know where counts are kept, nor how a bucket counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from .quota import Headroom
from .quota_counting import Shown, shown_with
from .quota_plain import Count

Changes = dict[int, Collection[str]]
"""The keys that each of the last changes of a store changed, by its number."""

KNOWN = 256
"""Of so many of the last changes it is known which keys they changed."""


MANY = 24
"""Buckets from which on it pays to keep what was seen of them."""
MOST_SEEN = 64
"""Sets of so many buckets of which that is kept."""


def worth_keeping(keys: Sequence[str]) -> bool:
    """Whether it pays to keep what is seen of `keys`, and they stay what they are."""
    return len(keys) >= MANY and keys.__class__ is tuple


def note_change(changes: Changes, number: int, keys: Collection[str]) -> None:
    """Note which keys the change `number` changed, and forget one that is long past."""
    changes[number] = keys
    changes.pop(number - KNOWN, None)


class _Origin:
    """One look at all of some buckets, of which more is known only of those that changed since: where each stands in it."""

    __slots__ = ("changes", "keys", "places")

    def __init__(self, changes: Changes, keys: Sequence[str]) -> None:
        self.changes = changes
        self.keys = keys
        self.places = dict(zip(keys, range(len(keys)), strict=True))

    def changed(self, first: int, last: int) -> Collection[str] | None:
        """The buckets that changes after `first`, up to `last`, changed; None where that is not known any more."""
        keys: set[str] = set()
        changes = self.changes
        try:
            for number in range(first + 1, last + 1):
                keys.update(changes[number])
        except KeyError:
            return None
        return self.places.keys() & keys


class Seen(list[Headroom]):
    """The headroom of many buckets as it was seen as of a numbered change: for `since <= now < until` only entries change it.

    Never changed once it is made, so that threads may share it. `_renewed`: the places that were looked at again since the change
    `_before`; what was looked up as a whole at another time, of another `origin`, may differ without any change.
    """

    __slots__ = ("_before", "_number", "_renewed", "origin", "since", "until")

    since: float
    until: float

    def __init__(self, headrooms: Iterable[Headroom], origin: _Origin, number: int) -> None:
        super().__init__(headrooms)
        self.origin = origin
        self._number = self._before = number
        self._renewed: list[int] = []

    def renewed(self, count_of: Callable[[str], Count], number: int, now: float) -> Seen:
        """The same buckets as of the change `number`: only those are looked at that were changed since."""
        before, origin = self._number, self.origin
        if number <= before:
            return self
        keys = origin.changed(before, number)
        if keys is None:
            keys = origin.keys
        places = list(map(origin.places.__getitem__, keys))
        shown, _ = shown_with(list(map(count_of, keys)), now)
        other = Seen(self, origin, number)
        since, until = self.since, self.until
        for place, (headroom, begins, ends, _) in zip(places, shown, strict=True):
            other[place] = headroom
            if begins > since:
                since = begins
            if ends < until:
                until = ends
        other._before, other._renewed, other.since, other.until = before, places, since, until
        return other

    def changed_since(self, earlier: object) -> list[int] | None:
        """The places that may differ from those of `earlier`; None where that is not known."""
        origin = self.origin
        if earlier.__class__ is not Seen or earlier.origin is not origin:
            return None
        if earlier._number == self._before:  # as nearly always: the call before had looked at that one
            return self._renewed
        changed = origin.changed(earlier._number, self._number)
        return None if changed is None else [origin.places[key] for key in changed]


class Looks:
    """What was seen of the last sets of buckets, by the identity of their keys. `changes`: see `Seen`."""

    __slots__ = ("_changes", "_seen")

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._seen: dict[int, Seen] = {}

    def again(self, keys: Sequence[str], count_of: Callable[[str], Count], number: int, now: float) -> Seen | None:
        """What was seen of `keys`, brought to the change `number`; None if nothing was, or it does not hold at `now`."""
        seen = self._seen.get(id(keys))
        if seen is None or seen.origin.keys is not keys or not seen.since <= now < seen.until:
            return None
        self._seen[id(keys)] = seen = seen.renewed(count_of, number, now)
        return seen

    def keep(self, keys: Sequence[str], number: int, shown: Sequence[Shown]) -> list[Headroom]:
        """The headrooms that were just `shown` of `keys`, kept unless a key stands twice."""
        headrooms, origin = [each[0] for each in shown], _Origin(self._changes, keys)
        if len(origin.places) < len(keys):
            return headrooms
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        seen = Seen(headrooms, origin, number)
        seen.since = max([begins for _, begins, _, _ in shown])
        seen.until = min([ends for _, _, ends, _ in shown])
        self._seen[id(keys)] = seen
        return seen
