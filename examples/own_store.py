"""A quota store of your own: where the counts are kept is yours, how one counts is not. This one keeps them in a dict.

All of it goes through `_step`: read, count, write, and again if another was faster. Over a database that is one transaction over
the rows of the same keys. Run this file, and the suite that every store must pass is run over it.
"""

from __future__ import annotations

import io
import itertools
import unittest
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from _start import ir

from inferrouter.cell import Cell
from inferrouter.conformance import QuotaStoreConformance
from inferrouter.quota import allowance_key
from inferrouter.quota_counting import (
    BucketState,
    admit,
    headrooms_of,
    live_hold,
    merged_hold,
    note,
    redefined,
    settle,
    with_quota,
)

T = TypeVar("T")


@dataclass
class Kept:
    """What a store keeps: the buckets and holds by key, each hold with when it was made, and which reservations are open."""

    buckets: dict[str, BucketState] = field(default_factory=dict)
    holds: dict[str, tuple[ir.Hold, float]] = field(default_factory=dict)
    unsettled: set[int] = field(default_factory=set)


class OwnStore:
    """Counts in this process's memory, in the plainest way."""

    def __init__(self) -> None:
        self._kept = Cell(Kept())
        self._idents = itertools.count(1)
        self._closed = False

    def _step(self, keys: Iterable[str], work: Callable[[Kept], T]) -> T:
        """What `work` returns for copies of the buckets `keys` and of all else, which then are what is kept."""
        while True:
            if self._closed:
                raise ir.QuotaStoreError("the store is closed; make a new one")
            kept, seen = self._kept.look()
            copies = {key: kept.buckets[key].copied(kept.buckets[key].counter.used) for key in keys if key in kept.buckets}
            mine = Kept(copies, dict(kept.holds), set(kept.unsettled))
            result = work(mine)
            mine.buckets = {**kept.buckets, **mine.buckets}
            if self._kept.replace(seen, mine):  # False where another was faster: then it is all done again
                return result

    def define(self, buckets: Sequence[ir.Bucket], now: float) -> None:
        def work(kept: Kept) -> None:
            for bucket in buckets:
                kept.buckets[bucket.key] = redefined(kept.buckets.get(bucket.key), bucket, now)

        self._step([bucket.key for bucket in buckets], work)

    def headroom(self, keys: Sequence[str], now: float) -> list[ir.Headroom]:
        def work(kept: Kept) -> list[ir.Headroom]:
            found, to_note = headrooms_of(kept.buckets, keys, now)
            if to_note:
                note(kept.buckets, keys, now)
            return found

        return self._step(keys, work)

    def reserve(self, wants: Sequence[tuple[str, float]], now: float) -> ir.Reservation | ir.Refusal:
        keys = [key for key, _ in wants]

        def work(kept: Kept) -> ir.Reservation | ir.Refusal:
            answer = admit(kept.buckets, wants, now, next(self._idents))
            if isinstance(answer, ir.Refusal):
                note(kept.buckets, keys, now)
            else:
                kept.unsettled.add(answer.id)
            return answer

        return self._step(keys, work)

    def commit(self, reservation: ir.Reservation, now: float, amounts: Sequence[float] | None = None) -> bool:
        def work(kept: Kept) -> bool:
            if reservation.id not in kept.unsettled:
                return False
            if amounts is not None:
                settle(kept.buckets, reservation, amounts)
            kept.unsettled.remove(reservation.id)
            return True

        return self._step(reservation.keys, work)

    def rollback(self, reservation: ir.Reservation, now: float) -> bool:
        return self.commit(reservation, now, [0.0] * len(reservation.wants))

    def hold(self, key: str, until: float, reason: str, now: float) -> None:
        def work(kept: Kept) -> None:
            merged = merged_hold(kept.holds.pop(key, None), ir.Hold(key, until, reason), now)
            if merged is not None:
                kept.holds[key] = merged

        self._step((), work)

    def holds(self, now: float) -> dict[str, ir.Hold]:
        def work(kept: Kept) -> dict[str, ir.Hold]:
            live = {key: live_hold(*held, now) for key, held in kept.holds.items()}
            kept.holds = {key: held for key, held in live.items() if held is not None}
            return {key: hold for key, (hold, _) in kept.holds.items()}

        return self._step((), work)

    def set_quota(self, account_id: str, amount: float, unit: str) -> None:
        key = allowance_key(account_id)

        def work(kept: Kept) -> None:
            kept.buckets[key] = with_quota(kept.buckets.get(key), key, amount, unit)

        self._step([key], work)

    def close(self) -> None:
        self._closed = True


class OwnStoreTest(QuotaStoreConformance, unittest.TestCase):
    """The whole contract."""

    def make_store(self) -> ir.QuotaStore:
        return OwnStore()


if __name__ == "__main__":
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(OwnStoreTest)
    report = io.StringIO()
    result = unittest.TextTestRunner(report).run(suite)
    print(f"all {result.testsRun} claims about a store hold" if result.wasSuccessful() else report.getvalue())
    account = ir.AccountConfig(provider="mock", id="a", daily_free=2)
    config = ir.Config(accounts=[account], default_model="mock/any")
    with ir.Router(config, [ir.MockProvider("mock", default="Hello!")], quota_store=OwnStore()) as router:
        for _ in range(2):
            router.chat_completion(ir.ChatRequest("Hello?"))
        print(router.explain(ir.ChatRequest("Hello?")))
