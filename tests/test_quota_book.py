"""A look at many buckets costs what changed since the last one, and shows what a look at each of them anew shows."""

from __future__ import annotations

import random
import tempfile
import threading
import unittest
from typing import Any
from unittest import mock

from tests import ir, part

limits, quota, quota_seen = part("limits"), part("quota"), part("quota_seen")
NOON = 1_800_000_000.0
KEYS = tuple(f"k{number}" for number in range(30))


def a_bucket(key: str, dice: random.Random) -> Any:
    window, rolling = dice.choice((("minute", True), ("minute", False), ("day", True), ("day", False)))
    return quota.Bucket(key, limits.Limit(dice.choice((5, 50, 1000)), "tokens", window, rolling=rolling))


def opened(dice: random.Random) -> Any:
    store = ir.MemoryQuotaStore()
    store.define([a_bucket(key, dice) for key in KEYS], NOON)
    return store


def seen_and_anew(store: Any, now: float) -> tuple[list[Any], list[Any]]:
    """What a look shows by what is kept of all buckets together and of each, and what it shows where nothing is kept."""
    seen, few = list(store.headroom(KEYS, now)), store.headroom(KEYS[:5], now)
    for state, _ in store._book._counts.values():
        state.changed()
        state.counter.steady = None
        if state.limit.rolling:
            state.counter.first = None
    anew = store.headroom(list(KEYS), now)
    return [*seen, *few], [*anew, *anew[:5]]


class Looks(unittest.TestCase):
    def test_the_same_as_anew(self) -> None:
        """After any run of reservations, settlements, new limits, observations and clock steps, a kept look is a fresh one, and
        every place where it differs from an earlier look is named."""
        for seed in range(12):
            dice = random.Random(seed)
            store, now, open_ones = opened(dice), NOON, []
            earlier = store.headroom(KEYS, now)
            with mock.patch.object(quota_seen, "KNOWN", dice.choice((3, 256))):
                for _ in range(150):
                    now += dice.choice((0.0, 0.001, 0.3, 5.0, 5.0, 20.0, 70.0, -0.5, -30.0, -200.0))
                    for _ in range(dice.choice((0, 1, 1, 5))):
                        self.do_something(store, now, dice, open_ones)
                    seen = store.headroom(KEYS, now)
                    self.assertEqual(*seen_and_anew(store, now))
                    named = getattr(seen, "places_since", lambda _: None)(earlier)
                    if named is not None:
                        differ = {place for place, each in enumerate(seen) if each is not earlier[place]}
                        self.assertLessEqual(differ, set(named))
                    if dice.random() < 0.7:
                        earlier = seen

    def test_a_file(self) -> None:
        """What a store over a file shows is what another store over that file shows which has just opened it; also of holds, and
        whoever wrote last."""
        for seed in range(3):
            dice, now, open_ones = random.Random(seed), NOON, []
            with tempfile.TemporaryDirectory() as folder, ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as store:
                store.define([a_bucket(key, dice) for key in KEYS], NOON)
                with ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as other:
                    for _ in range(60):
                        now += dice.choice((0.0, 0.001, 5.0, 20.0, 70.0, -0.5, -30.0, -200.0))
                        writer = dice.choice((store, store, store, other))
                        store.headroom(KEYS, now)
                        store.holds(now, KEYS)
                        self.do_something(writer, now, dice, open_ones)
                        if dice.random() < 0.2:
                            writer.hold(dice.choice(KEYS), now + dice.choice((-1.0, 3.0, 100.0)), "429", now)
                        seen = list(store.headroom(KEYS, now)), store.holds(now, KEYS)
                        with ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as fresh:
                            self.assertEqual(seen, (list(fresh.headroom(KEYS, now)), fresh.holds(now, KEYS)))

    def do_something(self, store: Any, now: float, dice: random.Random, open_ones: list[Any]) -> None:
        what = dice.random()
        key = dice.choice(KEYS)
        if what < 0.5:
            taken = store.reserve([(each, dice.randrange(4)) for each in dice.sample(KEYS, 3)], now)
            open_ones += [taken] * isinstance(taken, quota.Reservation)
        elif what < 0.8 and open_ones:
            taken = open_ones.pop(dice.randrange(len(open_ones)))
            store.commit(taken, now, [dice.randrange(6) for _ in taken.wants])
        elif what < 0.9:
            store.define([a_bucket(key, dice)], now)
        else:
            store.observe([part("quota_learned").Observation(key, dice.choice((3, 80)), dice.choice((None, 1)), "said")], now)

    def test_charges_ahead(self) -> None:
        """After a clock step back, what was charged before it comes into sight again, in a kept look too."""
        for ahead in range(50, 200, 7):
            store = ir.MemoryQuotaStore()
            store.define([quota.Bucket(key, limits.Limit(10, "requests", "minute", rolling=True)) for key in KEYS], NOON)
            for now in (NOON + ahead, NOON):
                store.reserve([(key, 1.0) for key in KEYS], now)
            for passed in range(0, ahead + 70, 3):
                self.assertEqual(*seen_and_anew(store, NOON + passed))

    def test_only_what_changed_is_looked_at(self) -> None:
        """Of thirty buckets one that is charged is looked at again, and none where nothing changed."""
        store = opened(random.Random(1))
        store.headroom(KEYS, NOON)
        store.reserve([("k7", 1.0)], NOON)
        with mock.patch.object(quota_seen, "shown_with", wraps=quota_seen.shown_with) as looked:
            seen = store.headroom(KEYS, NOON)
            self.assertEqual(seen[7].used, 1.0)
            self.assertIs(store.headroom(KEYS, NOON), seen)
        self.assertEqual([[state.key for state, _ in call.args[0]] for call in looked.call_args_list], [["k7"]])

    def test_threads(self) -> None:
        """While threads charge, every look shows no less than the one before, and the last one shows all of it."""
        store = ir.MemoryQuotaStore()
        store.define([quota.Bucket(key, limits.Limit(10**9, "tokens", "day")) for key in KEYS], NOON)
        failures: list[str] = []

        def charge(number: int) -> None:
            dice = random.Random(number)
            for _ in range(150):
                store.reserve([(key, 1.0) for key in dice.sample(KEYS, 3)], NOON)

        def look() -> None:
            before = 0.0
            while any(thread.is_alive() for thread in charging):
                used = sum(each.used for each in store.headroom(KEYS, NOON))
                if used < before:
                    failures.append(f"{used} after {before}")
                before = used

        charging = [threading.Thread(target=charge, args=(number,)) for number in range(3)]
        looking = [threading.Thread(target=look) for _ in range(2)]
        for thread in (*charging, *looking):
            thread.start()
        for thread in (*charging, *looking):
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(sum(each.used for each in store.headroom(KEYS, NOON)), 3 * 150 * 3)


if __name__ == "__main__":
    unittest.main()
