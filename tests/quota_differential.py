"""Drives two stores through the same random verbs, clock steps both ways included: they must agree on everything they answer.

The amounts are multiples of 1/64, so that sums are exact in any order and agreement is equality, to the last bit.
"""

from __future__ import annotations

import contextlib
import random
import time
import unittest
from collections.abc import Callable
from typing import Any

from tests import part
from tests.quota_servers import wait_until

errors = part("errors")
limits = part("limits")
quota = part("quota")

START = 1_788_955_200.0
KINDS = (
    limits.Limit(6, "requests", "minute"),
    limits.Limit(40, "tokens", "minute"),
    limits.Limit(25, "requests", "hour"),
    limits.Limit(60, "tokens", "minute", rolling=False),
    limits.Limit(150, "tokens", "day"),
    limits.Limit(300, "tokens", "month", zone="America/Los_Angeles"),
    limits.Limit(9, "requests", "day", rolling=True),
    limits.Limit(2.5, "dollars", "day", zone="Asia/Tokyo"),
    limits.Limit(30, "tokens", "5h"),
    limits.Limit(12, "requests", "90s"),
    limits.Limit(90, "tokens", "week", zone="Europe/Berlin"),
)
STEPS = (0.01, 0.3, 0.9, 3, 20, 61, 130, 700, 9000, 100_000)


class Uncached(part("quota_memory").MemoryQuotaStore):  # type: ignore[misc]  # the module is looked up as the suite was told to
    """The memory store without what it has shown before, so that every headroom is counted anew."""

    def headroom(self, keys: Any, now: float) -> Any:
        for state, _ in self._look()[0].values():
            state.changed()
        return super().headroom(keys, now)


def run(test: unittest.TestCase, one: Any, other: Any, seed: int, steps: int, reopened: Callable[[], Any] | None = None) -> int:
    """Compares `steps` random steps: of a clock that mostly goes forward, of one that jumps, or of several a little apart.
    `reopened`: another object on the data of `other`, taken over now and then. Returns how many reservations were admitted."""
    rng = random.Random(seed)
    kinds = {f"{number} {limit}": limit for number, limit in enumerate(KINDS)}
    keys = list(kinds)
    wild, several = seed % 3 == 0, seed % 3 == 1
    now = START
    for store in (one, other):
        store.define([quota.Bucket(key, limit) for key, limit in kinds.items()], now)
    opened: list[tuple[Any, Any]] = []
    admitted = 0
    for step in range(steps):
        where = f"seed {seed}, step {step}, now {now!r}"
        chance = rng.random()
        if chance < 0.30:
            behind = several and rng.random() < 0.45
            now += rng.choice((-0.05, -1, -2.5) if behind else STEPS[:6] if several else STEPS) * rng.random()
        elif chance < (0.36 if wild else 0.31):
            now += rng.choice((-1, -1, 1)) * rng.choice((0.5, 30, 100, 4000, 90_000, 3e6)) * rng.random()
        elif chance < 0.68:
            wants = [(key, rng.choice((0, 1, 1, 2, 0.25, 8))) for key in rng.choices(keys, k=rng.randrange(1, 4))]
            first, second = one.reserve(wants, now), other.reserve(wants, now)
            test.assertEqual(type(first), type(second), f"{where}: {wants}: {first} {second}")
            if isinstance(first, quota.Refusal):
                test.assertEqual(first, second, where)
            else:
                test.assertEqual(list(first.window_ids), list(second.window_ids), where)
                opened.append((first, second))
                admitted += 1
        elif chance < 0.90 and opened:
            first, second = opened.pop(rng.randrange(len(opened)))
            amounts = None if rng.random() < 0.2 else [rng.choice((0, 1, 3, 0.5, 12)) for _ in first.wants]
            test.assertEqual(one.commit(first, now, amounts), other.commit(second, now, amounts), where)
        elif chance < 0.905:
            key = rng.choice(keys)
            limit = limits.Limit(
                rng.choice((5, 50, 500)), kinds[key].unit, kinds[key].window, kinds[key].rolling, kinds[key].zone
            )
            for store in (one, other):
                store.define([quota.Bucket(key, limit)], now)
        elif chance < 0.907 and reopened is not None:
            other = reopened()
        if step % 7 == 0:
            some = rng.choices(keys, k=3)
            test.assertEqual(one.headroom(some, now), other.headroom(some, now), where)
    return admitted


def a_little_apart(test: unittest.TestCase, store: Any, noon: float, requests: Callable[[], int]) -> None:
    """Reserves and settles at times milliseconds or seconds apart, on either side of slots, of blocks of them and of days: each
    verb must cost one round trip. `requests` counts them."""
    kinds = ("minute", "hour", "day")
    store.define([quota.Bucket(key, limits.Limit(1e6, "requests", key)) for key in kinds], noon)
    wants = [(key, 1) for key in kinds]
    store.reserve(wants, noon)
    begun = []
    before, asked = requests(), 0
    for edge in (15 / 16, 30 / 16, 225 / 4, 60, 61.875, 120, 3600, 12 * 3600, 12 * 3600 + 60, 36 * 3600):
        for step in range(9):
            now = noon + edge + (0.002, -0.002, 0.9, -1.1)[step % 4]
            begun.append((store.reserve(wants, now), now))
            asked += 1
            if step % 5 > 2:
                taken, at = begun.pop(-(step % 3) - 1)
                test.assertTrue(store.commit(taken, at, [2, 0.5, 1]))
                asked += 1
    test.assertEqual(requests() - before, asked)


def a_lost_race(test: unittest.TestCase, far: Any, near: Any, noon: float) -> None:
    """What `far` changes is made within a few operations, however often `near` is faster: it reserves before each of them."""
    near.define([quota.Bucket("raced", limits.Limit(1e6, "requests", "day"))], noon)
    asked: list[str] = []
    reserved: list[Any] = []
    ask = far._lanes.ask

    def raced(operation: Any, deadline: float) -> str:
        asked.append(operation.verb)
        with contextlib.suppress(errors.QuotaStoreError):  # it has to wait now, and does not
            reserved.append(near.reserve([("raced", 1)], noon, max_wait=0.03))
        return ask(operation, deadline)

    far._lanes.ask = raced
    observation = part("quota_learned").Observation("raced", remaining=9e5, source="a header")
    test.assertEqual(far.observe([observation], noon), [True])
    test.assertLess(len(asked), 12)
    test.assertGreater(len(reserved), 2)
    far._lanes.ask = ask
    left = near.headroom(["raced"], noon)[0].remaining
    test.assertTrue(9e5 - len(reserved) <= left <= 9e5, left)
    test.assertIsInstance(near.reserve([("raced", 1)], noon), quota.Reservation)


def a_claim_of_one_who_died(test: Any, noon: float) -> None:
    """Of `test.store`, what somebody claimed and never changed is free again before long; only those who charge it wait."""
    operation = test.store._claiming(test.store._buckets.looking(["k"], noon), "somebody")
    test.store._lanes.ask(operation, time.monotonic() + 1)
    test.assertEqual(test.used(), 0)
    with test.assertRaises(errors.QuotaStoreError):
        test.store.reserve([("k", 1)], noon, max_wait=0.02)
    test.assertIsInstance(test.store.reserve([("k", 2)], noon), quota.Reservation)
    wait_until(lambda: bool(test.used() == 2), "giving back")


def in_order(answer: str) -> str:
    """An answer with the slots of each bucket in order: a server that has many gives them in any."""
    lines = []
    for line in answer.split("\n"):
        fields = line.split("\t")
        words = fields[-2].split() if len(fields) > 2 else []
        fields[-2:-1] = [" ".join(map(" ".join, sorted(zip(words[0::2], words[1::2], strict=True))))] if words else fields[-2:-1]
        lines.append("\t".join(fields))
    return "\n".join(lines)


def replay(test: unittest.TestCase, one: Any, other: Any, seed: int, steps: int) -> int:
    """Sends what random steps ask of the store `one` on a server, one operation at a time, to the empty `other` in batches: every
    answer must be the same. Returns how many operations there were."""
    sent: list[tuple[Any, str]] = []
    ask = one._lanes.ask

    def noted(operation: Any, deadline: float) -> str:
        sent.append((operation, ask(operation, deadline)))
        return sent[-1][1]

    one._lanes.ask = noted
    run(test, Uncached(), one, seed, steps)
    rng = random.Random(seed)
    carrier = other._open_carrier()
    place = 0
    while place < len(sent):
        batch = sent[place : place + rng.choice((1, 2, 3, 8, 24))]
        answers = carrier.send([operation for operation, _ in batch])
        alone = [in_order(answer) for _, answer in batch]
        test.assertEqual([in_order(answer) for answer in answers], alone, f"seed {seed}, operations from {place}")
        place += len(batch)
    carrier.close()
    return place
