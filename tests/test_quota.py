"""The memory store, the contract of stores, and the words of a refusal."""

from __future__ import annotations

import copy
import threading
import unittest
from typing import Any

from tests import ledger_model, part, rounds

conformance = part("conformance")
learning = part("conformance_learning")
errors = part("errors")
limits = part("limits")
quota = part("quota")
counting = part("quota_counting")
windows = part("quota_windows")
memory = part("quota_memory")
book, cell = part("quota_book"), part("cell")
NOON = conformance.NOON


class MemoryQuotaStoreTest(conformance.QuotaStoreConformance, learning.LearningConformance, unittest.TestCase):
    """The whole contract over the memory store."""

    def make_store(self) -> Any:
        return memory.MemoryQuotaStore()


class CountingStore:
    """What somebody else's store may look like: another class behind the same methods, counting its calls."""

    def __init__(self) -> None:
        self.inner = memory.MemoryQuotaStore()
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        self.calls += 1
        return getattr(self.inner, name)


class ThirdPartyStoreTest(conformance.QuotaStoreConformance, unittest.TestCase):
    """The whole contract over a store that is not ours."""

    def make_store(self) -> Any:
        return CountingStore()


class HastyBook(book.Book):  # type: ignore[misc]  # the module is looked up as the suite was told to
    """What puts new counts in the place of any, not only of those that were seen."""

    def change(self, seen: Any, number: int, changed: Any, settles: Any = None) -> bool:
        self._counts.update(changed)
        if settles is not None:
            settles.settled = True
        return True


class HastyCell(cell.Cell):  # type: ignore[misc]  # as above
    """The same for one value."""

    def replace(self, seen: Any, value: Any) -> bool:
        self.__init__(value)  # type: ignore[misc]  # a cell that nobody has looked at yet
        return True


class ContractTest(unittest.TestCase):
    def test_the_suite_sees_faults(self) -> None:
        """The contract fails for stores that admit too much, charge refusals, settle twice or open spent windows."""

        class Generous(memory.MemoryQuotaStore):
            def reserve(self, wants: Any, now: float) -> Any:
                return super().reserve([(key, amount * 0.9) for key, amount in wants], now)

        class Charging(memory.MemoryQuotaStore):
            def reserve(self, wants: Any, now: float) -> Any:
                outcome = super().reserve(wants, now)
                if isinstance(outcome, quota.Refusal):
                    for want in wants:
                        super().reserve([want], now)
                return outcome

        class Forgetful(memory.MemoryQuotaStore):
            def commit(self, reservation: Any, now: float, amounts: Any = None) -> bool:
                return super().commit(copy.copy(reservation), now, amounts)

        class Believing(memory.MemoryQuotaStore):
            last = NOON

            def reserve(self, wants: Any, now: float) -> Any:
                if now < self.last:
                    for key, (state, _) in self._book._counts.items():
                        self._book._counts[key] = counting.BucketState(key, windows.counter_of(state.limit)), 0.0
                self.last = now
                return super().reserve(wants, now)

        for faulty in (Generous, Charging, Forgetful, Believing):
            case = type("Case", (conformance.QuotaStoreConformance, unittest.TestCase), {"make_store": lambda s, f=faulty: f()})
            result = unittest.TestResult()
            result.failfast = True
            unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
            self.assertFalse(result.wasSuccessful(), faulty)

    def test_the_suite_sees_what_is_not_atomic(self) -> None:
        """A store that saves what it counted, whoever was faster, fails each claim of two calls that come at once, every time."""

        class Hasty(memory.MemoryQuotaStore):
            def __init__(self) -> None:
                super().__init__()
                self._book, self._holds = HastyBook(), HastyCell({})

        claims = [name for name in dir(conformance.QuotaStoreConformance) if name.startswith("test_threads_")]
        claims.remove("test_threads_settle_once")  # which leaves it to chance
        self.assertGreaterEqual(len(claims), 4)
        for store, seen in ((Hasty, True), (memory.MemoryQuotaStore, False)):
            case = type("Case", (conformance.QuotaStoreConformance, unittest.TestCase), {"make_store": lambda s, f=store: f()})
            for name in claims * 3:
                result = unittest.TestResult()
                case(name).run(result)
                self.assertEqual((len(result.failures), len(result.errors)), (int(seen), 0), name)

    def test_a_copy_has_everything(self) -> None:
        """A copied state has every attribute of the one it was copied from, and shares nothing that can be changed."""
        for window in ("day", "minute"):
            limit = limits.Limit(9, "requests", window)
            with memory.MemoryQuotaStore() as store:
                store.define([quota.Bucket("k", limit)], NOON)
                for now in (NOON, NOON + 30, NOON + 90_000):
                    store.commit(store.reserve([("k", 2)], now), now, [1])
                state = store._look()[0]["k"][0]
                other = state.copied(state.counter.used)
                for one, two in ((state, other), (state.counter, other.counter)):
                    names = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ()) if name != "counter"]
                    self.assertEqual([getattr(one, name) for name in names], [getattr(two, name) for name in names])
                self.assertIsNot(state.counter, other.counter)
                slots = dict(getattr(state.counter, "slots", {}))
                other.counter.correct(min(slots, default=other.counter.window_id), 5.0)
                self.assertEqual(getattr(state.counter, "slots", {}), slots)

    def test_protocol(self) -> None:
        """The memory store is a QuotaStore and a context manager that closes it."""
        with memory.MemoryQuotaStore() as store:
            self.assertIsInstance(store, quota.QuotaStore)
        with self.assertRaises(errors.QuotaStoreError):
            store.holds(NOON)

    def test_random_verbs_against_the_model(self) -> None:
        """Thousands of random methods, clock steps included, agree with the naive model."""
        total: dict[str, int] = {}
        for seed in range(rounds(3, 1)):
            with memory.MemoryQuotaStore() as store:
                for outcome, count in ledger_model.run(self, store, seed, 1500).items():
                    total[outcome] = total.get(outcome, 0) + count
        self.assertTrue(all(count > rounds(25, 8) for count in total.values()), total)

    def test_sixteen_threads(self) -> None:
        """Sixteen threads that reserve, settle and roll back never have more than the limit charged."""
        store = memory.MemoryQuotaStore()
        store.define([quota.Bucket("k", limits.Limit(20, "requests", "day"))], NOON)
        worst = []

        def work(number: int) -> None:
            for turn in range(200):
                taken = store.reserve([("k", 1)], NOON)
                worst.append(store.headroom(["k"], NOON)[0].used)
                if isinstance(taken, quota.Reservation) and (number + turn) % 4:
                    store.rollback(taken, NOON)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(max(worst), 20)
        self.assertEqual(store.headroom(["k"], NOON)[0].used, 20)
        store.close()


class RefusalTest(unittest.TestCase):
    def test_in_words(self) -> None:
        """A refusal tells what is left, what is needed, and when it frees, or that it never will."""
        minute = limits.Limit(15, "requests", "minute")
        waits = quota.Refusal("k", minute, 5, 3, NOON + 60.5)
        self.assertEqual(str(waits), "3 of 15 requests per minute left, needs 5 requests: frees at 2026-09-09 12:01:01 UTC")
        never = quota.Refusal("k", limits.Limit(4000, "tokens", "minute"), 5000, 4000, None)
        self.assertEqual(str(never), "needs 5000 tokens, more than the whole limit of 4000 tokens per minute")
        dollars = quota.Refusal("k", limits.Limit(0.5, "dollars", "day"), 0.25, 0.125, NOON)
        self.assertIn("$0.125 of $0.5 per day left, needs $0.25", str(dollars))

    def test_reservation_in_words(self) -> None:
        """A reservation shows what it took and whether it is settled, and nothing else."""
        store = memory.MemoryQuotaStore()
        store.define([quota.Bucket("k", limits.Limit(5, "tokens", "day"))], NOON)
        taken = store.reserve([("k", 2)], NOON)
        self.assertEqual(repr(taken), "<Reservation 1 open: k 2>")
        self.assertEqual(taken.keys, ("k",))
        store.commit(taken, NOON)
        self.assertEqual(repr(taken), "<Reservation 1 settled: k 2>")
        self.assertEqual(repr(store), "<MemoryQuotaStore: 1 buckets, 0 holds>")
        store.close()

    def test_zone_of_an_allowance_stays(self) -> None:
        """`set_quota` keeps the zone in which the account's day was defined."""
        store = memory.MemoryQuotaStore()
        key = quota.allowance_key("a")
        store.define([quota.Bucket(key, limits.Limit(5, "tokens", "day", zone="Asia/Tokyo"))], NOON)
        store.set_quota("a", 7, "tokens")
        self.assertEqual(store.headroom([key], NOON)[0].limit, limits.Limit(7, "tokens", "day", zone="Asia/Tokyo"))
        with self.assertRaises(errors.ConfigError):
            store.set_quota("a", -7, "tokens")
        self.assertEqual(store.headroom([key], NOON)[0].limit.amount, 7)
        store.close()

    def test_what_is_no_allowance(self) -> None:
        """Calls at once are no allowance of a day, and what is no text is no account."""
        store = memory.MemoryQuotaStore()
        for account, unit, words in (
            ("a", "parallel", "not counted in 'parallel'"),
            (5, "requests", "account_id"),
            (None, "tokens", "id"),
        ):
            with self.assertRaisesRegex(errors.ConfigError, words):
                store.set_quota(account, 7, unit)
        store.close()


if __name__ == "__main__":
    unittest.main()
