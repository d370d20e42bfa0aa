"""Remembers what was seen of many buckets, so that a look at them costs what changed since the last one, not how many there are.

Strategy: a store numbers its changes, and for a while knows which keys each of them changed; what else moves a headroom is time,
and until when that does not is known of each. Must never know where counts are kept, nor how a bucket counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import chain

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
    """One look at all of some buckets, of which more is known only of those that changed since. `places`: of each in it."""

    __slots__ = ("changes", "keys", "places")

    def __init__(self, changes: Changes, keys: Sequence[str]) -> None:
        self.changes = changes
        self.keys = keys
        self.places = dict(zip(keys, range(len(keys)), strict=True))

    def changed(self, before: int, number: int) -> Collection[str]:
        """The buckets that changes after `before`, up to `number`, changed. Raises KeyError where that is not known any more."""
        return self.places.keys() & chain.from_iterable(map(self.changes.__getitem__, range(before + 1, number + 1)))


class Seen(list[Headroom]):
    """The headroom of many buckets as it was seen as of the change `number`: for `since <= now < until` only changes change it.

    Never changed once it is made, so that threads may share it. `renewed`: the places that were looked at again since the change
    `before`; what was looked up as a whole at another time, of another `origin`, may differ without any change.
    """

    __slots__ = ("before", "number", "origin", "renewed", "since", "until")

    origin: _Origin
    number: int
    before: int
    renewed: Sequence[int]
    since: float
    until: float

    def places_since(self, earlier: object) -> Sequence[int] | None:
        """The places that may differ from those of `earlier`; None where that is not known."""
        origin = self.origin
        if earlier.__class__ is not Seen or earlier.origin is not origin:
            return None
        if earlier.number == self.before:  # as nearly always: the call before had looked at that one
            return self.renewed
        try:
            return [origin.places[key] for key in origin.changed(earlier.number, self.number)]
        except KeyError:
            return None


class Looks:
    """What was seen of the last sets of buckets, by the identity of their keys. `changes`: see `Changes`."""

    __slots__ = ("_changes", "_seen")

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._seen: dict[int, Seen] = {}

    def again(self, keys: Sequence[str], count_of: Callable[[str], Count], number: int, now: float) -> Seen | None:
        """What was seen of `keys`, brought to the change `number`; None if nothing was, or it does not hold at `now`.

        Only those are looked at again that were changed since.
        """
        seen = self._seen.get(id(keys))
        if seen is None or seen.origin.keys is not keys or not seen.since <= now < seen.until:
            return None
        before, origin = seen.number, seen.origin
        if number <= before:
            return seen
        since, until, places = seen.since, seen.until, origin.places
        again: Collection[str]
        try:
            again = origin.changed(before, number)
        except KeyError:  # it is not known any more
            again = keys
        renewed = list(map(places.__getitem__, again))
        shown, _ = shown_with(list(map(count_of, again)), now)
        seen = Seen(seen)
        for place, (headroom, begins, ends, _) in zip(renewed, shown, strict=True):
            seen[place] = headroom
            if begins > since:
                since = begins
            if ends < until:
                until = ends
        seen.origin, seen.number, seen.before, seen.renewed = origin, number, before, renewed
        seen.since, seen.until = since, until
        self._seen[id(keys)] = seen
        return seen

    def keep(self, keys: Sequence[str], number: int, shown: Sequence[Shown]) -> list[Headroom]:
        """The headrooms that were just `shown` of `keys`, kept unless a key stands twice."""
        origin, headrooms = _Origin(self._changes, keys), [each[0] for each in shown]
        if len(origin.places) < len(keys):
            return headrooms
        seen = Seen(headrooms)
        seen.origin, seen.number, seen.before, seen.renewed = origin, number, number, ()
        seen.since = max([begins for _, begins, _, _ in shown])
        seen.until = min([ends for _, _, ends, _ in shown])
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen[id(keys)] = seen
        return seen
