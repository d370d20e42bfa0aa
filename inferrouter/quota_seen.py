"""Says how a look at many buckets differs from the one before, so that its cost depends on what changed, not how many there are.

Strategy: a store numbers its changes, and for a while knows which keys each of them changed; what else moves a headroom is time,
and until when that does not is known of each. Where a store does not say that much, looks are compared. Must never know where
counts are kept, nor how a bucket counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain, compress, repeat
from operator import is_not

from .frozen import NamedTuple, new_tuple
from .quota import Headroom
from .quota_counting import Shown, shown_with
from .quota_plain import Count

Changes = dict[int, Collection[str]]
"""The keys that each of the last changes of a store changed, by its number."""

KNOWN = 64
"""How many of the last changes are remembered with their keys."""

Rooms = Mapping[str, Headroom]
"""The headrooms of one group of buckets, by key."""


def note_change(changes: Changes, number: int, keys: Collection[str]) -> None:
    """Note which keys the change `number` changed, and forget those that are long past."""
    changes[number] = keys
    changes.pop(number - KNOWN, None)
    if len(changes) > 2 * KNOWN:  # slow threads noted theirs once more
        for old in [each for each in list(changes) if each <= number - KNOWN]:
            changes.pop(old, None)


class Groups:
    """Buckets that are looked at in groups, which may share some. `keys`: each of them once; `each`: the keys of each group;
    `places`: of each key, which groups have it, by their places in `each`."""

    __slots__ = ("each", "keys", "places")

    def __init__(self, groups: Iterable[Sequence[str]]) -> None:
        self.each = tuple(groups)
        places: dict[str, list[int]] = {}
        for place, keys in enumerate(self.each):
            for key in keys:
                places.setdefault(key, []).append(place)
        self.keys = tuple(places)
        self.places = {key: tuple(found) for key, found in places.items()}


class Look(NamedTuple):
    """What was seen of groups of buckets as of the change `number` of `source`, a store's changes.

    `news`: the headrooms of each group, by place, that may differ from those of the look before, or of all where there is none.
    For `since <= now < until` only changes change what any of them shows; for no moment where both are infinite. `seen`: all
    headrooms, where the store says no more.
    """

    source: Changes | None
    number: int
    since: float
    until: float
    news: Mapping[int, Rooms]
    seen: Sequence[Headroom] = ()


def look_again(
    groups: Groups, before: Look | None, changes: Changes, number: int, count_of: Callable[[str], Count], now: float
) -> Look | None:
    """What is new since the look `before`, as of the change `number`. None where that is not known, or something of it is to be
    noted: then all must be looked at."""
    if before is None:
        return None
    source, last, since, until, _, _ = before
    if source is not changes or not since <= now < until:
        return None
    if number <= last:
        return before._replace(news={})
    try:
        changed = chain.from_iterable(map(changes.__getitem__, range(last + 1, number + 1)))
        places = set(chain.from_iterable(map(groups.places.get, changed, repeat(()))))
    except KeyError:  # it is not known any more
        return None
    news = {}
    for place in places:
        keys = groups.each[place]
        shown, to_note = shown_with(list(map(count_of, keys)), now)
        if to_note:
            return None
        headrooms, begins, ends, _ = zip(*shown, strict=True)
        news[place] = dict(zip(keys, headrooms, strict=True))
        since, until = max(since, *begins), min(until, *ends)
    return new_tuple(Look, (changes, number, since, until, news, ()))


def whole_look(groups: Groups, changes: Changes, number: int, shown: Sequence[Shown], to_note: bool) -> Look:
    """The look that found `shown` of all keys. `to_note`: whether that is to be noted, so that the next look may find more."""
    news = _by_group(groups, range(len(groups.each)), [each[0] for each in shown])
    if to_note:
        return Look(changes, number, math.inf, math.inf, news)
    since, until = max([begins for _, begins, _, _ in shown]), min([ends for _, _, ends, _ in shown])
    return Look(changes, number, since, until, news)


def compared(groups: Groups, before: Look | None, seen: Sequence[Headroom]) -> Look:
    """The look that found `seen`, one of each key, in a store that says no more: what is another object may be other."""
    seen = tuple(seen)  # a store of the user's own may change its list
    places: Collection[int]
    if before is None or before.source is not None:
        places = range(len(groups.each))
    else:
        keys = compress(groups.keys, map(is_not, before.seen, seen))
        places = set(chain.from_iterable(map(groups.places.__getitem__, keys)))
    return Look(None, 0, math.inf, math.inf, _by_group(groups, places, seen), seen)


def _by_group(groups: Groups, places: Collection[int], seen: Sequence[Headroom]) -> dict[int, Rooms]:
    by_key = dict(zip(groups.keys, seen, strict=True)) if places else {}
    return {place: {key: by_key[key] for key in groups.each[place]} for place in places}
