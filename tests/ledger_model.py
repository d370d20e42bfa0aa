"""A quota store so naive that it can be checked by reading: every charge stands by itself, nothing is kept in sums.

`run` drives random calls through a store and the model at once; they must agree on every outcome and every count.
"""

from __future__ import annotations

import copy
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


class Bucket:
    """Charges by slot. A calendar window is a slot named by its beginning."""

    def __init__(self, limit: Any) -> None:
        self.limit = limit
        self.newest: Any = None
        self.charges: dict[float, float] = {}
        self.behind: float | None = None

    def look(self, now: float) -> None:
        """What lies a window ahead, after a step back, passes one window after it was first seen to."""
        width = limits.WINDOWS[self.limit.window] / SLOTS
        if not self.limit.rolling or self.newest is None or self.newest - now // width <= SLOTS:
            self.behind = None
            return
        self.behind = now if self.behind is None else min(self.behind, now)
        if now >= self.behind + (SLOTS + 1) * width:
            self.newest, self.charges, self.behind = now // width, {}, None

    def move(self, now: float) -> None:
        if self.limit.rolling:
            slot = now // (limits.WINDOWS[self.limit.window] / SLOTS)
            if self.newest is not None and self.newest - slot > SLOTS:
                self.charges = {slot: self.used()}
                self.newest = slot
            self.newest = max(slot, self.newest) if self.newest is not None else slot
            self.charges = {s: n for s, n in self.charges.items() if self.newest - s <= SLOTS}
        else:
            begin = limits.window_bounds(now, self.limit.window, self.limit.zone)[0]
            if self.newest is None or begin > self.newest:
                self.newest = begin
                self.charges = {}

    def used(self) -> float:
        return sum(self.charges.values())

    def add(self, slot: float, delta: float) -> None:
        if self.limit.rolling and slot > self.newest:
            slot, delta = self.newest, max(0, delta)
        if self.newest - slot <= (SLOTS if self.limit.rolling else 0):
            self.charges[slot] = max(0, self.charges.get(slot, 0) + delta)


class Model:
    """The methods, with a reservation as the list of (key, amount, slot), None where it was refused."""

    def __init__(self, kinds: dict[str, Any]) -> None:
        self.buckets = {key: Bucket(limit) for key, limit in kinds.items()}
        self.holds: dict[str, tuple[float, float]] = {}

    def reserve(self, wants: Sequence[tuple[str, float]], now: float) -> list[tuple[str, float, float]] | None:
        taken = self.admit(wants, now)
        for key, _ in wants:
            self.buckets[key].look(now)
        return taken or self.admit(wants, now)

    def admit(self, wants: Sequence[tuple[str, float]], now: float) -> list[tuple[str, float, float]] | None:
        trial = copy.deepcopy(self.buckets)
        for key, amount in wants:
            trial[key].move(now)
            trial[key].add(trial[key].newest, amount)
            if trial[key].used() > trial[key].limit.amount:
                return None
        self.buckets = trial
        return [(key, amount, trial[key].newest) for key, amount in wants]

    def settle(self, taken: list[tuple[str, float, float]], amounts: list[float]) -> None:
        for (key, reserved, slot), amount in zip(taken, amounts, strict=True):
            self.buckets[key].add(slot, amount - reserved)

    def used(self, key: str, now: float) -> float:
        self.buckets[key].look(now)
        bucket = copy.deepcopy(self.buckets[key])
        bucket.move(now)
        return bucket.used()

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
    opened: list[tuple[Any, list[tuple[str, float, float]]]] = []
    settled: list[Any] = []
    seen = dict.fromkeys(("admitted", "refused", "settled", "again", "back"), 0)
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
            taken, expected = store.reserve(wants, now), model.reserve(wants, now)
            test.assertEqual(isinstance(taken, quota.Reservation), expected is not None, f"{where}: {wants} {taken}")
            seen["refused" if expected is None else "admitted"] += 1
            if expected is not None:
                opened.append((taken, expected))
        elif chance < 0.85 and opened:
            taken, expected = opened.pop(rng.randrange(len(opened)))
            way = rng.randrange(3)
            amounts = [float(rng.randrange(12)) for _ in expected] if way == 0 else [0.0] * len(expected)
            if way == 1:
                test.assertTrue(store.commit(taken, now), where)
            else:
                done = store.commit(taken, now, amounts) if way == 0 else store.rollback(taken, now)
                test.assertTrue(done, where)
                model.settle(expected, amounts)
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
            shown = store.headroom(keys, now)
            test.assertEqual([each.used for each in shown], [model.used(key, now) for key in keys], where)
    return seen
