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
GROUPS = quota_seen.Groups([KEYS[place : place + 4] for place in range(0, 30, 3)])
"""Each shares a key with the next."""


def a_bucket(key: str, dice: random.Random) -> Any:
    window, rolling = dice.choice((("minute", True), ("minute", False), ("day", True), ("day", False)))
    return quota.Bucket(key, limits.Limit(dice.choice((5, 50, 1000)), "tokens", window, rolling=rolling))


def opened(dice: random.Random) -> Any:
    store = ir.MemoryQuotaStore()
    store.define([a_bucket(key, dice) for key in KEYS], NOON)
    return store


class Follower:
    """Whoever keeps what it saw, and takes in what is new of what a store or its guard tells."""

    def __init__(self) -> None:
        self.rooms: dict[int, Any] = {}
        self._before: Any = None

    def look(self, store: Any, now: float) -> tuple[Any, list[Any]]:
        """The look at `store`, and what is known after it of each of `KEYS`."""
        tell = store.look if isinstance(store, part("guarded_store").GuardedStore) else store.look_at_groups
        look = self._before = tell(GROUPS, self._before, now)
        self.rooms.update(look.news)
        known = {key: room for place in sorted(self.rooms, reverse=True) for key, room in self.rooms[place].items()}
        return look, [known[key] for key in KEYS]

    def last_of_each(self) -> list[Any]:
        """The same, each as the last group that has it shows it."""
        known = {key: room for place in sorted(self.rooms) for key, room in self.rooms[place].items()}
        return [known[key] for key in KEYS]


def anew(store: Any, now: float) -> list[Any]:
    """What the store in memory shows where nothing is kept."""
    for state, _ in store._book._counts.values():
        state.changed()
        state.counter.steady = None
        if state.limit.rolling:
            state.counter.first = None
    return list(store.headroom(KEYS, now))


class Plain:
    """A store that shows headrooms and no more, always in the same list."""

    def __init__(self, inner: Any) -> None:
        self._inner, self._list = inner, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def headroom(self, keys: Any, now: float) -> Any:
        self._list[:] = type(self._inner).headroom(self._inner, keys, now)
        return self._list


def guarded(store: Any) -> Any:
    return part("guarded_store").GuardedStore(store)


class Looks(unittest.TestCase):
    def test_the_same_as_anew(self) -> None:
        """After any run of reservations, settlements, new limits, observations and clock steps, whoever took in what each look
        called new knows what a fresh look shows, however long ago the look before was."""
        for seed in range(8):
            dice = random.Random(seed)
            store, now, open_ones = opened(dice), NOON, []
            often, seldom, behind = Follower(), Follower(), Follower()
            guard = guarded(store)
            with mock.patch.object(quota_seen, "KNOWN", dice.choice((3, 256))):
                for _ in range(150):
                    now += dice.choice((0.0, 0.001, 0.3, 5.0, 5.0, 20.0, 70.0, -0.5, -30.0, -200.0))
                    for _ in range(dice.choice((0, 1, 1, 5))):
                        self.do_something(store, now, dice, open_ones)
                    found = [often.look(store, now)[1], behind.look(guard, now)[1]]
                    found += [seldom.look(store, now)[1]] * (dice.random() < 0.2)
                    found.append(often.last_of_each())
                    expected = anew(store, now)
                    self.assertEqual(found, [expected] * len(found), f"seed {seed}")

    def test_a_file(self) -> None:
        """What is known after the looks at a file is what another store over that file shows which has just opened it; also of
        holds, and whoever wrote last."""
        for seed in range(3):
            dice, now, open_ones, follower = random.Random(seed), NOON, [], Follower()
            with tempfile.TemporaryDirectory() as folder, ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as store:
                store.define([a_bucket(key, dice) for key in KEYS], NOON)
                with ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as other:
                    for _ in range(60):
                        now += dice.choice((0.0, 0.001, 5.0, 20.0, 70.0, -0.5, -30.0, -200.0))
                        writer = dice.choice((store, store, store, other))
                        if dice.random() < 0.5:
                            follower.look(store, now)
                        store.holds(now, KEYS)
                        self.do_something(writer, now, dice, open_ones)
                        if dice.random() < 0.2:
                            writer.hold(dice.choice(KEYS), now + dice.choice((-1.0, 3.0, 100.0)), "429", now)
                        seen = follower.look(store, now)[1], store.holds(now, KEYS)
                        with ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as fresh:
                            self.assertEqual(seen, (list(fresh.headroom(KEYS, now)), fresh.holds(now, KEYS)))

    def test_another_store(self) -> None:
        """What was seen in one store says nothing of another, in memory or in a file, whatever the numbers of their changes."""
        follower = Follower()
        with tempfile.TemporaryDirectory() as folder, ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as file:
            file.define([a_bucket(key, random.Random(9)) for key in KEYS], NOON)
            for store in (opened(random.Random(1)), opened(random.Random(2)), file, opened(random.Random(3)), Plain(file), file):
                self.assertEqual(follower.look(guarded(store), NOON)[1], list(store.headroom(KEYS, NOON)))

    def test_a_store_that_says_no_more(self) -> None:
        """Of a store that shows headrooms and no more, these are compared: those that are the same objects are not new, also
        where it changes its list itself."""
        store = Plain(opened(random.Random(1)))
        follower, guard = Follower(), guarded(store)
        self.assertEqual(len(follower.look(guard, NOON)[0].news), 10)
        self.assertEqual(follower.look(guard, NOON)[0].news, {})
        store.reserve([("k7", 1.0), ("k3", 1.0)], NOON)
        look, rooms = follower.look(guard, NOON)
        self.assertEqual((set(look.news), rooms[7].used, rooms[3].used), ({0, 1, 2}, 1.0, 1.0))

    def test_a_headroom_of_ones_own_is_asked(self) -> None:
        """Whatever a store inherits: if its `headroom` is not that of the class that says what is new, it is asked, also where
        it was changed after the router was made; and a `look` of its own means nothing to us."""

        class Own(ir.MemoryQuotaStore):  # type: ignore[misc]  # the class comes from the package under test
            def headroom(self, keys: Any, now: float) -> Any:
                raise ConnectionError

        class Hiding(ir.MemoryQuotaStore):  # type: ignore[misc]
            def __getattribute__(self, name: str) -> Any:
                return broken if name == "headroom" else super().__getattribute__(name)

        class Looking(ir.MemoryQuotaStore):  # type: ignore[misc]
            def look(self) -> None:
                raise ConnectionError

        def broken(keys: Any, now: float) -> Any:
            raise ConnectionError

        patched, wrapped = ir.MemoryQuotaStore(), Plain(Own())
        guards = [guarded(store) for store in (Own(), Hiding(), patched, wrapped)]
        patched.headroom = broken
        for guard in guards:
            with self.assertRaisesRegex(ir.QuotaStoreError, "failed with ConnectionError"):
                guard.look(GROUPS, None, NOON)
        store = Looking()
        store.define([a_bucket(key, random.Random(9)) for key in KEYS], NOON)
        guard = guarded(store)
        self.assertEqual(len(guard.look(GROUPS, None, NOON).news), 10)
        with (
            mock.patch.object(ir.MemoryQuotaStore, "headroom", side_effect=ConnectionError),
            self.assertRaises(ir.QuotaStoreError),
        ):
            guard.look(GROUPS, None, NOON)

    def test_one_headroom_for_each_bucket(self) -> None:
        """A store that returns too few headrooms, too many, or nothing that has a length is told so; where a store in memory may
        take over, it does."""
        inner = opened(random.Random(1))
        for returned in (lambda rooms: rooms[:-1], lambda rooms: rooms + rooms[-1:], lambda rooms: None, iter):
            store = Plain(inner)
            store.headroom = lambda keys, now, returned=returned: returned(inner.headroom(keys, now))
            for look in (guarded(store).headroom, lambda keys, now, store=store: guarded(store).look(GROUPS, None, now)):
                with self.assertRaisesRegex(ir.QuotaStoreError, "one for each, in order|failed with TypeError"):
                    look(KEYS, NOON)
            spared = part("guarded_store").GuardedStore(store, "ignore")
            spared._spare.define([a_bucket(key, random.Random(9)) for key in KEYS], NOON)
            self.assertEqual((len(spared.headroom(KEYS, NOON)), len(spared.look(GROUPS, None, NOON).news)), (30, 10))

    def test_a_look_waits_as_long_as_it_may(self) -> None:
        """What a call may wait for others is told to a store in a file, and not to one that never waits."""
        with tempfile.TemporaryDirectory() as folder, ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as file:
            for store, told in ((file, {"max_wait": 0.3}), (ir.MemoryQuotaStore(), {})):
                guard = guarded(store)
                with mock.patch.object(type(store), "look_at_groups") as look:
                    guard.look(GROUPS, None, NOON, 0.3)
                    guard.look(GROUPS, None, NOON)
                self.assertEqual([call.kwargs for call in look.call_args_list], [told, {}])

    def test_an_unknown_bucket(self) -> None:
        """A look at a bucket that was never defined says which one."""
        with tempfile.TemporaryDirectory() as folder, ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as file:
            for store in (ir.MemoryQuotaStore(), file):
                store.define([a_bucket("k0", random.Random(9))], NOON)
                with self.assertRaisesRegex(ir.QuotaStoreError, "'k1'"):
                    guarded(store).look(quota_seen.Groups([("k0", "k1")]), None, NOON)

    def test_what_is_due_is_noted(self) -> None:
        """A kept look notes since when merged blocks count as a look at all of it does: two stores that are asked in the one and
        in the other way show the same later on."""
        for late in range(0, 7200, 600):
            found = []
            for keeps in (True, False):
                store, follower = ir.MemoryQuotaStore(), Follower()
                store.define([quota.Bucket(key, limits.Limit(20, "requests", "minute")) for key in KEYS], NOON)
                for passed in (*range(0, 7200, 600), 10**6, late):
                    store.reserve([("k0", 1)], NOON + passed)
                follower.look(store, NOON + late)
                store.reserve([("k0", 1)], NOON + 2 * 10**6)
                moments = [NOON + late + passed for passed in (0, 20, 59, 61, 81, 100)]
                found.append([(follower.look(store, now)[1] if keeps else store.headroom(KEYS, now))[0] for now in moments])
            self.assertEqual(*found, late)

    def test_what_reading_changes_is_new(self) -> None:
        """A limit that was learned ends with time: whoever reads it then changes it, and a look from before knows that it may
        show something else, even if the clock steps back."""
        with tempfile.TemporaryDirectory() as folder, ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as file:
            for store in (ir.MemoryQuotaStore(), file):
                store.define([quota.Bucket(key, limits.Limit(100, "requests", "day")) for key in KEYS], NOON)
                store.reserve([("k0", 50)], NOON)
                store.observe([part("quota_learned").Observation("k0", source="said", ceiling=50.0, step=5.0, every=600.0)], NOON)
                first, second = Follower(), Follower()
                self.assertEqual(first.look(store, NOON + 590)[1][0].remaining, 0)
                self.assertEqual(second.look(store, NOON + 610)[1][0].remaining, 5)
                self.assertEqual(first.look(store, NOON + 595)[1], list(store.headroom(KEYS, NOON + 595)))

    def test_what_is_remembered_is_bounded(self) -> None:
        """However many changes there are, by whomever and in whatever order they are noted, only the last ones are known."""
        most = 2 * quota_seen.KNOWN
        changes: dict[int, Any] = {}
        for number in range(1000):
            quota_seen.note_change(changes, number, ("k0",))
            if number % 3 == 0:
                quota_seen.note_change(changes, number - 200, ("k0",))  # by a slow thread, once more
            self.assertLessEqual(len(changes), most + 1)
        self.assertLessEqual(set(range(1000 - quota_seen.KNOWN, 1000)), set(changes))
        with tempfile.TemporaryDirectory() as folder, ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as one:
            one.define([a_bucket(key, random.Random(9)) for key in KEYS], NOON)
            with ir.SQLiteQuotaStore(f"{folder}/quota.sqlite") as other:
                for number in range(600):
                    random.Random(number).choice((one, one, other)).reserve([(f"k{number % 30}", 1)], NOON)
            self.assertLessEqual(len(one._session.changes), most)

    def test_while_a_store_fails(self) -> None:
        """A store in memory takes over where that is wished, and what it shows is not taken for what the other one showed."""
        for kind in (lambda store: store, Plain):
            store = opened(random.Random(1))
            guard = part("guarded_store").GuardedStore(kind(store), "ignore")
            guard.define([quota.Bucket(key, limits.Limit(7, "requests", "day")) for key in KEYS], NOON)
            follower = Follower()
            follower.look(guard, NOON)
            store.reserve([("k7", 1.0)], NOON)
            for _ in range(2):
                store._closed = True
                self.assertEqual(follower.look(guard, NOON)[1][7].used, 0.0)
                store._closed = False
                self.assertEqual(follower.look(guard, NOON)[1][7].used, 1.0)

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
        for ahead in range(50, 200, 11):
            store, follower = ir.MemoryQuotaStore(), Follower()
            store.define([quota.Bucket(key, limits.Limit(10, "requests", "minute", rolling=True)) for key in KEYS], NOON)
            for now in (NOON + ahead, NOON):
                store.reserve([(key, 1.0) for key in KEYS], now)
            for passed in range(0, ahead + 70, 8):
                self.assertEqual(follower.look(store, NOON + passed)[1], anew(store, NOON + passed))

    def test_only_what_changed_is_looked_at(self) -> None:
        """Of ten groups the one with a bucket that is charged is looked at again, and none where nothing changed."""
        store, follower = opened(random.Random(1)), Follower()
        follower.look(store, NOON)
        store.reserve([("k7", 1.0)], NOON)
        with mock.patch.object(quota_seen, "shown_with", wraps=quota_seen.shown_with) as looked:
            seen, rooms = follower.look(store, NOON)
            self.assertEqual(rooms[7].used, 1.0)
            self.assertEqual((set(seen.news), follower.look(store, NOON)[0].news), ({2}, {}))
        self.assertEqual([[state.key for state, _ in call.args[0]] for call in looked.call_args_list], [[*KEYS[6:10]]])

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
            before, follower = 0.0, Follower()
            while any(thread.is_alive() for thread in charging):
                used = sum(each.used for each in follower.look(store, NOON)[1])
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
