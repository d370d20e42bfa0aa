"""The claim of a quota store so naive that it can be checked by reading: every charge stands by itself, nothing is kept in sums.

`run` drives random calls, clock steps both ways included, through a store and the model at once. What a span of a window's
length was charged must never pass the amount, and where a store can know it exactly the counts must be the same.
"""

from __future__ import annotations

import random
import unittest
from collections.abc import Sequence
from typing import Any

from tests import part

limits = part("limits")
quota = part("quota")

SLOTS = 64
START = 1_788_955_200.0
KINDS = (
    limits.Limit(6, "requests", "minute"),
    limits.Limit(40, "tokens", "minute"),
    limits.Limit(25, "requests", "hour"),
    limits.Limit(60, "tokens", "minute", rolling=False),
    limits.Limit(150, "tokens", "day"),
    limits.Limit(300, "tokens", "month", zone="America/Los_Angeles"),
    limits.Limit(9, "requests", "day", rolling=True),
)


class Charge:
    """What one reservation took from one bucket, where the reading that made it put it. It never moves."""

    def __init__(self, place: float, amount: float) -> None:
        self.place = place
        self.amount = amount
        self.away = False
        self.excused = False


class Bucket:
    """The invariant, by itself: in any span of the window's length, by the readings seen, no more than the amount.

    Every charge is kept for ever. A store may count more than this where the clock came back to a place it had left
    (`away`), and less only for what was charged before the clock ran a whole window behind where it had been (`excused`).
    """

    def __init__(self, limit: Any) -> None:
        self.limit = limit
        self.charges: list[Charge] = []
        self.latest = -1e12
        self.behind: float | None = None

    def place(self, now: float) -> float:
        """The slot, or the window's beginning."""
        if self.limit.rolling:
            return float(now // (self.limit.span_s / SLOTS))
        return float(limits.window_bounds(now, self.limit.window, self.limit.zone)[0])

    def read(self, now: float) -> None:
        """A look at `now`, of whatever kind."""
        if now < self.latest:
            self.behind = now if self.behind is None else min(self.behind, now)
        begin, end = (
            (0.0, self.limit.span_s) if self.limit.rolling else limits.window_bounds(now, self.limit.window, self.limit.zone)
        )
        if self.behind is not None and now >= self.behind + end - begin:
            for charge in self.charges:
                charge.excused = True
        if now >= self.latest:
            self.latest, self.behind = now, None

    def used(self, now: float, excused: bool) -> float:
        """The most that a span which holds `now` was charged, with or without what is excused."""
        here = self.place(now)
        charges = [each for each in self.charges if excused or not each.excused]
        if not self.limit.rolling:
            return sum(each.amount for each in charges if each.place == here)
        near = [each for each in charges if abs(each.place - here) <= SLOTS]
        ends = {here, *[each.place for each in near if each.place > here]}
        return max(sum(each.amount for each in near if end - SLOTS <= each.place <= end) for end in ends)

    def exact(self, now: float) -> bool:
        """Whether a store has to count neither more nor less than this."""
        here = self.place(now)
        reach = 2 * SLOTS if self.limit.rolling else 0
        near = [each for each in self.charges if abs(each.place - here) <= reach]
        if any(each.excused or (each.away and self.limit.rolling) for each in near):
            return False
        away = {each.place // SLOTS if self.limit.rolling else each.place for each in self.charges if each.away}
        away -= set() if self.limit.rolling else {here}
        sides = {block * (SLOTS if self.limit.rolling else 1) > here for block in away}
        return len(away) <= 8 or (len(sides) == 1 and not any(each.away for each in near))

    def add(self, now: float, amount: float) -> Charge:
        """A charge; what lies further away than the next block is away from now on."""
        here = self.place(now)
        for charge in self.charges:
            far = abs(charge.place // SLOTS - here // SLOTS) > 1 if self.limit.rolling else charge.place != here
            charge.away = charge.away or far
        self.charges.append(Charge(here, amount))
        return self.charges[-1]


class Model:
    """The buckets by key, and the holds."""

    def __init__(self, kinds: dict[str, Any]) -> None:
        self.buckets = {key: Bucket(limit) for key, limit in kinds.items()}
        self.holds: dict[str, tuple[float, float]] = {}

    def reserve(self, wants: Sequence[tuple[str, float]], now: float) -> tuple[bool, bool]:
        """Whether a store may admit, and whether it may refuse."""
        for key, _ in wants:
            self.buckets[key].read(now)
        chosen = [(self.buckets[key], amount) for key, amount in wants]
        may_admit = all(bucket.used(now, False) + amount <= bucket.limit.amount for bucket, amount in chosen)
        fits = all(bucket.exact(now) and bucket.used(now, True) + amount <= bucket.limit.amount for bucket, amount in chosen)
        return may_admit, not fits

    def hold(self, key: str, until: float, now: float) -> None:
        live = self.live(now)
        old = self.holds.pop(key, None) and live.get(key)
        if until > now:
            self.holds[key] = old if old and old[0] >= until else (until, now)

    def live(self, now: float) -> dict[str, tuple[float, float]]:
        moved = {k: (until - max(0, made - now), min(made, now)) for k, (until, made) in self.holds.items()}
        return {k: held for k, held in moved.items() if held[0] > now}


def run(test: unittest.TestCase, store: Any, seed: int, steps: int) -> dict[str, int]:
    """Drives `steps` random calls through `store` and a model. Returns how often each outcome was seen."""
    rng = random.Random(seed)
    kinds = {f"{number} {limit}": limit for number, limit in enumerate(KINDS)}
    keys = list(kinds)
    model = Model(kinds)
    store.define([quota.Bucket(key, limit) for key, limit in kinds.items()], START)
    now = START
    opened: list[tuple[Any, list[Charge]]] = []
    settled: list[Any] = []
    seen = dict.fromkeys(("admitted", "refused", "settled", "again", "back", "exact", "at least"), 0)
    latest = now
    for step in range(steps):
        latest = max(latest, now)
        where = f"seed {seed}, step {step}, now {now}"
        chance = rng.random()
        if chance < 0.30:
            now += rng.choice((0.01, 0.5, 3, 20, 61, 700, 9000, 100_000)) * rng.random()
        elif chance < 0.33:
            now -= rng.choice((0.5, 30, 100, 4000, 90_000)) * rng.random()
            now = max(now, latest - 2 * 86400)  # beyond it a file may have forgotten reservations nobody settled
            seen["back"] += 1
        elif chance < 0.65:
            wants = [(key, rng.randrange(0, 9)) for key in rng.sample(keys, rng.randrange(1, 5))]
            may_admit, may_refuse = model.reserve(wants, now)
            taken = store.reserve(wants, now)
            if isinstance(taken, quota.Reservation):
                test.assertTrue(may_admit, f"{where}: {wants} was admitted")
                opened.append((taken, [model.buckets[key].add(now, amount) for key, amount in wants]))
                seen["admitted"] += 1
            else:
                test.assertTrue(may_refuse, f"{where}: {wants} was refused: {taken}")
                seen["refused"] += 1
        elif chance < 0.85 and opened:
            taken, charges = opened.pop(rng.randrange(len(opened)))
            way = rng.randrange(3)
            amounts = [float(rng.randrange(12)) for _ in charges] if way == 0 else [0.0] * len(charges)
            if way == 1:
                test.assertTrue(store.commit(taken, now), where)
            else:
                done = store.commit(taken, now, amounts) if way == 0 else store.rollback(taken, now)
                test.assertTrue(done, where)
                for charge, amount in zip(charges, amounts, strict=True):
                    charge.amount = amount
            settled.append(taken)
            seen["settled"] += 1
        elif chance < 0.88 and settled:
            taken = rng.choice(settled)
            test.assertFalse(store.commit(taken, now, [99] * len(taken.wants)), where)
            seen["again"] += 1
        elif chance < 0.92:
            key, until = rng.choice("abc"), now + rng.choice((-5, 0, 10, 500))
            store.hold(key, until, "", now)
            model.hold(key, until, now)
        else:
            live = model.live(now)
            model.holds = live
            held = {key: hold.until for key, hold in store.holds(now).items()}
            test.assertEqual(held, {key: until for key, (until, _) in live.items()}, where)
        if step % 5 == 0:
            for key, shown in zip(keys, store.headroom(keys, now), strict=True):
                bucket = model.buckets[key]
                bucket.read(now)
                if bucket.exact(now):
                    test.assertEqual(shown.used, bucket.used(now, True), f"{where}: {key}")
                    seen["exact"] += 1
                else:
                    test.assertGreaterEqual(shown.used, bucket.used(now, False), f"{where}: {key}")
                    seen["at least"] += 1
    return seen
