"""Keeps quota in this process's memory: exact over threads, forgotten at exit.

Strategy: the bookkeeping of `quota_plain`, or where that does not do of `quota_counting` on copies of the buckets at hand; what
comes of it takes the place of the old counts in one step, or not at all if others were faster. No lock is held, so that an
interrupt leaves nothing half counted, and a signal handler, a finalizer or a forked child never waits for whoever is in the
middle. Must never read a clock, call back, or know of providers, requests or API keys.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar

from .cell import Cell, Version
from .errors import QuotaStoreError
from .frozen import shown_once_made
from .quota import FORGET_HOLDS_S, Bucket, Headroom, Hold, Refusal, Reservation, Wants, allowance_key
from .quota_book import Book
from .quota_counting import (
    BucketState,
    Shown,
    admit,
    learned_of,
    live_hold,
    merged_hold,
    note,
    observe,
    redefined,
    settle,
    shown_with,
    unknown_bucket,
    with_quota,
)
from .quota_learned import Learned, Observation
from .quota_plain import Counts, admit_plainly, counts_of, settle_plainly, states_of
from .quota_seen import Groups, Look, look_again, whole_look

T = TypeVar("T")
States = dict[str, BucketState]
Holds = dict[str, tuple[Hold, float]]


class MemoryQuotaStore:
    """Counts in this process's memory: exact over threads, forgotten at exit."""

    def __init__(self) -> None:
        self._book = Book()
        self._holds: Cell[Holds] = Cell({})
        self._idents = itertools.count(1)
        self._closed = False

    def define(self, buckets: Sequence[Bucket], now: float) -> None:
        def work(states: States) -> None:
            for bucket in buckets:
                states[bucket.key] = redefined(states.get(bucket.key), bucket, now)

        self._change([bucket.key for bucket in buckets], work)

    def headroom(self, keys: Sequence[str], now: float) -> list[Headroom]:
        if self._closed:
            self._check_open()
        shown, _ = self._read(self._book.counts()[0], keys, now)
        return [each[0] for each in shown]

    def look_at_groups(self, groups: Groups, before: Look | None, now: float) -> Look:
        """See `guarded_store.GuardedStore.look`."""
        if self._closed:
            self._check_open()
        book = self._book
        counts, _, number = book.counts()
        found = look_again(groups, before, book.changes, number, counts.__getitem__, now)
        if found is not None:
            return found
        book.watched = True
        return whole_look(groups, book.changes, number, *self._read(counts, groups.keys, now))

    def reserve(self, wants: Wants, now: float) -> Reservation | Refusal:
        ident = next(self._idents)
        if self._closed:
            self._check_open()
        while True:
            counts, seen, number = self._book.counts()
            taken = admit_plainly(counts, wants, now, ident)
            if taken is not None:
                if self._book.change(seen, number, taken[1]):
                    return taken[0]
                continue
            keys = [key for key, _ in wants]
            mine = states_of(counts, keys)
            answer = admit(mine, wants, now, ident)
            if answer.__class__ is Refusal and not note(mine, keys, now):
                return answer
            if self._book.change(seen, number, counts_of(mine)):
                return answer

    def commit(self, reservation: Reservation, now: float, amounts: Sequence[float] | None = None) -> bool:
        if self._closed:
            self._check_open()
        while True:
            counts, seen, number = self._book.counts()
            if reservation.settled:
                return False
            settled = {} if amounts is None else _settled(counts, reservation, amounts)
            if self._book.change(seen, number, settled, reservation):
                return True

    def rollback(self, reservation: Reservation, now: float) -> bool:
        return self.commit(reservation, now, [0.0] * len(reservation.wants))

    def hold(self, key: str, until: float, reason: str, now: float) -> None:
        self._check_open()
        new, long_ago = Hold(key, until, reason), now - FORGET_HOLDS_S

        def work(holds: Holds) -> dict[str, tuple[Hold, float] | None]:
            kept = {each: held for each, held in holds.items() if held[0].until > long_ago}
            return {**kept, key: merged_hold(holds.get(key), new, now)}

        self._keep_holds(work)

    def holds(self, now: float, keys: Iterable[str] | None = None) -> dict[str, Hold]:
        if self._closed:
            self._check_open()
        kept, _ = self._holds.look()
        if not kept:
            return {}
        chosen = kept if keys is None else {key: kept[key] for key in keys if key in kept}
        live = _live(chosen, now)
        if live != chosen:  # what is over is over, and a clock's step back moves them for good
            self._keep_holds(lambda holds: {**holds, **_live({key: holds[key] for key in chosen if key in holds}, now)})
        return {key: held[0] for key, held in live.items() if held is not None}

    def set_quota(self, account_id: str, amount: float, unit: str) -> None:
        key = allowance_key(account_id)

        def work(states: States) -> None:
            states[key] = with_quota(states.get(key), key, amount, unit)

        self._change([key], work)

    def observe(self, observations: Sequence[Observation], now: float) -> list[bool]:
        """See `quota.Learning`."""
        return self._change([seen.key for seen in observations], lambda states: observe(states, observations, now))

    def learned(self) -> dict[str, Learned]:
        """See `quota.Learning`."""
        return learned_of([state for state, _ in list(self._look()[0].values())])

    def pinned(self, keys: Sequence[str]) -> frozenset[str]:
        """Those of `keys` whose amount was set by `set_quota`."""
        counts, _, _ = self._look()
        return frozenset(key for key in keys if key in counts and counts[key][0].pinned)

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @shown_once_made
    def __repr__(self) -> str:
        return f"<MemoryQuotaStore: {len(self._book.counts()[0])} buckets, {len(self._holds.look()[0])} holds>"

    def _check_open(self) -> None:
        if self._closed:
            raise QuotaStoreError("the quota store is closed; make a new one")

    def _look(self) -> tuple[Counts, Version[Any], int]:
        if self._closed:
            self._check_open()
        return self._book.counts()

    def _read(self, counts: Counts, keys: Sequence[str], now: float) -> tuple[list[Shown], bool]:
        """What each of `keys` shows, and whether that had to be noted, which is done then."""
        try:
            shown, to_note = shown_with(list(map(counts.__getitem__, keys)), now)  # in one step: other threads go on
        except KeyError as exc:
            raise unknown_bucket(exc.args[0]) from None
        if to_note:
            self._change(keys, lambda states: note(states, keys, now))
        return shown, to_note

    def _change(self, keys: Iterable[str], work: Callable[[States], T]) -> T:
        """What `work` returns for copies of the states of `keys`, which then take the place of these."""
        while True:
            counts, seen, number = self._look()
            mine = states_of(counts, keys)
            result = work(mine)
            if self._book.change(seen, number, counts_of(mine)):
                return result

    def _keep_holds(self, work: Callable[[Holds], Mapping[str, tuple[Hold, float] | None]]) -> None:
        """Keep what `work` makes of the holds; None releases."""
        while True:
            holds, seen = self._holds.look()
            if self._holds.replace(seen, {key: held for key, held in work(holds).items() if held is not None}):
                return


def _settled(counts: Counts, reservation: Reservation, amounts: Sequence[float]) -> Counts:
    """What the counts become that `amounts` change."""
    settled = settle_plainly(counts, reservation, amounts)
    if settled is None:
        mine = states_of(counts, reservation.keys)
        settle(mine, reservation, amounts)
        settled = counts_of(mine)
    return settled


def _live(holds: Holds, now: float) -> dict[str, tuple[Hold, float] | None]:
    return {key: live_hold(*held, now) for key, held in holds.items()}
