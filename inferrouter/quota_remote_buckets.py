"""Knows the buckets of a ledger on a server: how to read, write and define them, and what is known of them without asking.

Strategy: a bucket is read as it is, changed by the functions of `quota_counting`, and written if its version is still the same.
Those that were defined here are remembered, so that one that the server has lost is noticed and made again. Must never know a
client library, nor how an operation travels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from .errors import QuotaStoreError
from .frozen import NamedTuple
from .limits import Limit
from .quota import Bucket
from .quota_counting import BucketState, redefined, unknown_bucket
from .quota_exchange import Ask, Ledger
from .quota_lanes import Operation
from .quota_raw import Stored, bucket_fields, head_of, kind_of, name_of, read_bucket, stamp_of, window_passes

TRIES = 500
"""How often a change is tried while others are faster."""
Change = Callable[[BucketState | None], BucketState]
"""Makes a bucket of what is known of it, None: nothing."""


class Running(NamedTuple):
    """The slot or window of a bucket at a moment. `begin` to `until_next`: while it is the same; `expires_at`: when a charge has
    passed; `window`: its number; `words`: what an operation says of it: name, kind, window and end."""

    begin: float
    until_next: float
    expires_at: float
    window: float
    words: tuple[str, str, str, str]


class KnownBucket:
    """What is known of a bucket without asking: its name on the server, its limit and that limit's kind."""

    __slots__ = ("entry", "kind", "limit", "name", "running")

    def __init__(self, key: str, limit: Limit) -> None:
        self.name = name_of(key)
        self.entry = f"b:{self.name}"
        self.limit = limit
        self.kind = kind_of(limit)
        self.running = _NEVER

    def at(self, now: float) -> Running:
        """Its slot or window at `now`."""
        running = self.running
        if not running.begin <= now < running.until_next:
            stamp = stamp_of(self.limit, now)
            window = float(stamp.window) if stamp.end else int(stamp.window)
            words = (self.name, self.kind, stamp.window, stamp.end)
            running = self.running = Running(stamp.begin, stamp.until_next, stamp.expires_at, window, words)
        return running


class RemoteBuckets:
    """The buckets of one ledger. `defined`: the limits that this process has set, by key."""

    def __init__(self, server: str, adopt_empty: bool) -> None:
        self.ledger = Ledger(server, adopt_empty, self.define_anew)
        self.defined: dict[str, Limit] = {}
        self._known: dict[str, KnownBucket] = {}

    def looking(self, keys: Iterable[str], now: float) -> Operation:
        """Asks for buckets as they are."""
        names = [name_of(key) for key in keys]
        return Operation("L", entries_of(names), names, now)

    def knowing(self, keys: Iterable[str], now: float, ask: Ask) -> list[KnownBucket]:
        """What is known of each bucket. Raises QuotaStoreError for one that nobody defined."""
        known = self._known
        try:
            return [known[key] for key in keys]
        except KeyError:
            missing = [key for key in keys if key not in known]
        while missing:
            stored = self.read(missing, ask(self.looking(missing, now)), now, ask)
            missing = missing if stored is None else []
        return [known[key] for key in keys]

    def read(self, keys: Sequence[str], answer: str, now: float, ask: Ask) -> dict[str, Stored] | None:
        """The buckets an answer holds; None if one was gone, and defined again. Raises QuotaStoreError for unknown ones."""
        texts = answer.split("\n") if keys else []
        stored = {key: read_bucket(key, text) for key, text in zip(keys, texts, strict=True)}
        gone = [key for key, each in stored.items() if each is None]
        if gone:
            unknown = [key for key in gone if key not in self.defined]
            if unknown:
                raise unknown_bucket(unknown[0])
            self.ledger.tell_gone(len(gone))
            self.define_anew(gone, None if self.ledger.adopt_empty else now, now, ask)
            return None
        found = {key: each for key, each in stored.items() if each is not None}
        for key, each in found.items():
            self._know(key, each.state.counter.limit)
        return found

    def settling(self, key: str, limit: Limit, window: float | None) -> tuple[str, str, str]:
        """What an operation says of a charge: name, kind and window of its bucket."""
        known = self._known.get(key)
        if known is not None and known.limit is limit:
            running = known.running
            if running.window == window:
                return running.words[:3]
        return name_of(key), kind_of(limit), repr(window)

    def _know(self, key: str, limit: Limit) -> None:
        known = self._known.get(key)
        if known is None or known.limit != limit:
            self._known[key] = KnownBucket(key, limit)

    def written(self, stored: Mapping[str, Stored], changed: Iterable[BucketState], now: float, ask: Ask) -> bool:
        """Writes what changed; False if somebody was faster."""
        states = tuple(changed)
        return not states or ask(self.writing(stored, states, now)) == "y"

    def writing(
        self, stored: Mapping[str, Stored | None], states: Iterable[BucketState], now: float, *record: str, lost: float = 0.0
    ) -> Operation:
        """Writes `states`, if each still has the version it had in `stored`. `record`: what becomes of which reservation."""
        args = list(record) or ["", "", "", ""]
        names = []
        for state in {id(state): state for state in states}.values():
            before = stored.get(state.key)
            names.append(name_of(state.key))
            args += (names[-1], before.version if before else "", *bucket_fields(state, lost))
        entries = (f"r:{record[1]}", *entries_of(names)) if record else entries_of(names)
        return Operation("W", entries, args, now)

    def redefine(self, changes: Mapping[str, Change], now: float, ask: Ask) -> None:
        """Makes each bucket what its change says, keeping what others count meanwhile."""
        left = dict(changes)
        for _ in range(TRIES):
            if not left:
                return
            keys = tuple(left)
            texts = ask(self.looking(keys, now)).split("\n")
            for key, text in zip(keys, texts, strict=True):
                stored = read_bucket(key, text)
                new = left[key](stored.state if stored else None)
                if self._is_made(stored, new, now, ask):
                    del left[key]
                    self._know(key, new.counter.limit)
        if left:
            raise self.contended()

    def _is_made(self, stored: Stored | None, new: BucketState, now: float, ask: Ask) -> bool:
        """Makes a bucket what it is to be; False if somebody was faster. Where nothing but its amount changes, others go on
        counting meanwhile."""
        adopting = self.ledger.adopt_empty
        old = stored.state if stored else None
        same = old is not None and not old.learned and kind_of(old.counter.limit) == kind_of(new.counter.limit)
        if stored is None or old is None or not same or (stored.lost and adopting):
            lost = stored.lost if stored and not adopting else 0.0
            return ask(self.writing({new.key: stored}, (new,), now, lost=lost)) == "y"
        if head_of(old) == head_of(new):
            return True
        name = name_of(new.key)
        args = (name, head_of(old), head_of(new), repr(float(new.ceiling)))
        return ask(Operation("A", entries_of([name]), args, now)) == "y"

    def define_anew(self, keys: Iterable[str] | None, lost_at: float | None, now: float, ask: Ask) -> None:
        """Defines buckets that the server has lost, None: all; refused until what was charged by `lost_at` has passed."""
        for key in tuple(self.defined) if keys is None else keys:
            limit = self.defined[key]
            lost = window_passes(limit, lost_at) if lost_at is not None else 0.0
            for _ in range(TRIES):
                stored = read_bucket(key, ask(self.looking([key], now)))
                if stored is not None and stored.lost >= lost:
                    break
                state = stored.state if stored else redefined(None, Bucket(key, limit), now)
                if ask(self.writing({key: stored}, (state,), now, lost=lost if lost > now else 0.0)) == "y":
                    break

    def contended(self) -> QuotaStoreError:
        """What is told after as many tries as make no sense."""
        return QuotaStoreError(f"{self.ledger.server} is being changed by others faster than this process can follow; call again")


def entries_of(names: Iterable[str]) -> tuple[str, ...]:
    """The entries of buckets on the server."""
    return tuple([f"b:{name}" for name in names])


_NEVER = Running(math.inf, -math.inf, 0.0, math.nan, ("", "", "", ""))
