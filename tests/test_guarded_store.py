"""The ledger's guard: what happens to a call when its quota store fails."""

from __future__ import annotations

import functools
import threading
import unittest
from collections.abc import Callable
from typing import Any, ClassVar

from tests import part

errors, ledger, limits, quota = part("errors"), part("guarded_store"), part("limits"), part("quota")
Bucket, GuardedStore, Limit = quota.Bucket, ledger.GuardedStore, limits.Limit
NOW = 1_700_000_000.0
BUCKETS = (Bucket("a", Limit(10, "requests", "day")),)
WANTS = (("a", 4),)


class Flaky:
    """A memory store whose methods fail while `broken` names them; "" breaks none and "*" all."""

    def __init__(self) -> None:
        self._inner = part("quota_memory").MemoryQuotaStore()
        self.broken: set[str] = set()
        self.error: BaseException = OSError("disk gone")
        self.closed = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)

        def guarded(*args: Any) -> Any:
            if name in self.broken or "*" in self.broken:
                raise self.error
            self.closed |= name == "close"
            return method(*args)

        return guarded


def opened(on_error: str = "refuse") -> tuple[Any, Any]:
    """A store with one bucket, and its ledger."""
    store = Flaky()
    made = GuardedStore(store, on_error)
    made.define(BUCKETS, NOW)
    return store, made


def used(store: Any) -> float:
    found: float = store._inner.headroom(("a",), NOW)[0].used
    return found


class Working(unittest.TestCase):
    def test_the_verbs_reach_the_store(self) -> None:
        """With a store that works the ledger adds nothing."""
        store, made = opened()
        held = made.reserve(WANTS, NOW)
        self.assertIs(held[0], store)
        self.assertEqual(made.headroom(("a",), NOW)[0].remaining, 6)
        made.settle(held, (1,), NOW)
        self.assertEqual(used(store), 1)
        made.hold("a", NOW + 5, "why", NOW)
        self.assertEqual(made.holds(NOW)["a"].reason, "why")
        self.assertEqual(made.limit_of("a", NOW), BUCKETS[0].limit)
        self.assertIsNone(made.limit_of("b", NOW))
        self.assertEqual(made.degraded, 0)

    def test_a_refusal_is_no_failure(self) -> None:
        """A reservation that does not fit comes back as the store's refusal."""
        _, made = opened()
        self.assertIsInstance(made.reserve((("a", 11),), NOW), quota.Refusal)
        self.assertEqual(made.degraded, 0)

    def test_a_store_that_forgets_to_say(self) -> None:
        """One whose `reserve` returns nothing has failed: no call goes on uncounted."""
        store, made = opened()
        store.reserve = lambda *facts: None
        with self.assertRaisesRegex(errors.QuotaStoreError, "Flaky failed with TypeError"):
            made.reserve(WANTS, NOW)
        store, made = opened("ignore")
        store.reserve = lambda *facts: None
        self.assertIsNot(made.reserve(WANTS, NOW)[0], store)

    def test_no_amounts_settle_as_reserved(self) -> None:
        """None leaves the reservation charged, zeros give it back."""
        store, made = opened()
        made.settle(made.reserve(WANTS, NOW), None, NOW)
        self.assertEqual(used(store), 4)
        made.settle(made.reserve(WANTS, NOW), (0,), NOW)
        self.assertEqual(used(store), 4)

    def test_closing_closes_the_store_only_when_it_is_ours(self) -> None:
        """A store that was brought stays open."""
        for ours in (True, False):
            store, made = opened()
            made.close(NOW, ours)
            self.assertIs(store.closed, ours)


class Refusing(unittest.TestCase):
    def methods(self, made: Any) -> list[tuple[str, Callable[[], object]]]:
        return [
            ("define", lambda: made.define(BUCKETS, NOW)),
            ("headroom", lambda: made.headroom(("a",), NOW)),
            ("holds", lambda: made.holds(NOW)),
            ("reserve", lambda: made.reserve(WANTS, NOW)),
        ]

    def test_a_failing_store_refuses_the_call(self) -> None:
        """Whatever a method raises becomes a QuotaStoreError that says how to go on, with the fault as its cause."""
        for error in (OSError("disk gone"), KeyError("x"), errors.ConfigError("x")):
            store, made = opened()
            store.error = error
            for count, (name, method) in enumerate(self.methods(made), 1):
                store.broken = {name}
                with self.assertRaises(errors.QuotaStoreError) as caught:
                    method()
                self.assertIs(caught.exception.__cause__, error)
                self.assertIn(f"Flaky failed with {type(error).__name__}", str(caught.exception))
                self.assertIn('on_store_error = "ignore"', str(caught.exception))
                self.assertEqual(made.degraded, count)

    def test_the_stores_own_error_passes(self) -> None:
        """A QuotaStoreError is not wrapped again."""
        store, made = opened()
        store.error = errors.QuotaStoreError("the file is gone")
        for name, method in self.methods(made):
            store.broken = {name}
            with self.assertRaises(errors.QuotaStoreError) as caught:
                method()
            self.assertIs(caught.exception, store.error)

    def test_an_interrupt_is_not_swallowed(self) -> None:
        """KeyboardInterrupt inside a method leaves as it is."""
        store, made = opened()
        store.error, store.broken = KeyboardInterrupt(), {"*"}
        for _, method in self.methods(made):
            with self.assertRaises(KeyboardInterrupt):
                method()

    def test_a_lost_hold_and_a_failing_close_break_nothing(self) -> None:
        """`hold`, `close` and `limit_of` never raise; each failure counts once."""
        store, made = opened()
        store.broken = {"*"}
        made.hold("a", NOW + 5, "why", NOW)
        self.assertEqual(made.degraded, 1)
        self.assertIsNone(made.limit_of("a", NOW))
        made.close(NOW, True)
        self.assertEqual(made.degraded, 2)


class Replay(unittest.TestCase):
    def test_a_settlement_that_fails_is_tried_again_before_the_next_reservation(self) -> None:
        """It stays charged as reserved until the store works again, and then counts as told."""
        store, made = opened()
        held = made.reserve(WANTS, NOW)
        store.broken = {"commit"}
        made.settle(held, (1,), NOW)
        self.assertEqual(used(store), 4)
        made.settle(made.reserve((("a", 1),), NOW), (1,), NOW)
        self.assertEqual(used(store), 5)
        store.broken = set()
        made.reserve((("a", 1),), NOW)
        self.assertEqual(used(store), 1 + 1 + 1)
        self.assertEqual(len(made._unsettled), 0)

    def test_closing_settles_what_is_left(self) -> None:
        """The last chance is the close."""
        store, made = opened()
        held = made.reserve(WANTS, NOW)
        store.broken = {"commit"}
        made.settle(held, (0,), NOW)
        store.broken = set()
        made.close(NOW, False)
        self.assertEqual(used(store), 0)

    def test_what_is_kept_is_bounded(self) -> None:
        """More settlements than can be kept drop the oldest, which then stay charged."""
        store, made = opened()
        held = made.reserve(WANTS, NOW)
        store.broken = {"commit"}
        for _ in range(ledger.KEPT_SETTLEMENTS + 5):
            made.settle(held, (1,), NOW)
        self.assertEqual(len(made._unsettled), ledger.KEPT_SETTLEMENTS)

    def test_two_threads_do_not_replay_at_once(self) -> None:
        """While one thread replays, another goes on without waiting for it."""
        store, made = opened()
        held = made.reserve(WANTS, NOW)
        store.broken = {"commit"}
        made.settle(held, (1,), NOW)
        store.broken = set()
        first = part("turn").Holder()
        self.assertTrue(made._replaying.take(first))
        other = threading.Thread(target=made.reserve, args=(WANTS, NOW))
        other.start()
        other.join(5)
        self.assertFalse(other.is_alive())
        self.assertEqual(len(made._unsettled), 1)
        made._replaying.give(first)
        made.reserve((("a", 0),), NOW)
        self.assertEqual(len(made._unsettled), 0)


class Waiting(unittest.TestCase):
    def test_only_a_store_that_can_be_told_so_is_told_how_long_to_wait(self) -> None:
        """`max_wait` and `keys` reach the methods that name them, decorated or not; a store of the protocol's first days is asked
        as ever."""

        def decorated(method: Any) -> Any:
            @functools.wraps(method)
            def asked(*args: Any, **options: Any) -> Any:
                return method(*args, **options)

            return asked

        class Patient(part("quota_memory").MemoryQuotaStore):  # type: ignore[misc]  # the base is a module's member
            waits: ClassVar[list[object]] = []

            def reserve(self, wants: Any, now: float, *, max_wait: float | None = None) -> Any:
                self.waits.append(max_wait)
                return super().reserve(wants, now)

            @decorated
            def commit(self, reservation: Any, now: float, amounts: Any = None, max_wait: float | None = None) -> Any:
                self.waits.append(max_wait)
                return super().commit(reservation, now, amounts)

            def holds(self, now: float, keys: Any = None) -> Any:
                self.waits.append(keys)
                return super().holds(now)

        made = GuardedStore(Patient())
        made.define(BUCKETS, NOW, 0.5)
        made.settle(made.reserve(WANTS, NOW, 0.5), None, NOW)
        made.reserve(WANTS, NOW)
        made.holds(NOW, ("a", "b"), 0.5)
        self.assertEqual(Patient.waits, [0.5, ledger.SETTLE_WAIT_S, None, ("a", "b")])
        store, made = opened()
        made.settle(made.reserve(WANTS, NOW, 0.5), None, NOW)
        self.assertEqual((used(store), made.holds(NOW, ("a",), 0.5)), (4, {}))

    def test_a_store_that_stays_busy_is_asked_once_a_reservation(self) -> None:
        """Settlements that are left do not add up their waits: after one that fails again, the others wait for the next time."""
        store, made = opened()
        made.define((Bucket("b", Limit(1000, "requests", "day")),), NOW)
        taken = [made.reserve((("b", 1),), NOW) for _ in range(8)]
        store.broken = {"commit"}
        for each in taken:
            made.settle(each, (0,), NOW)
        tried: list[Any] = []
        commit = store._inner.commit
        store._inner.commit = lambda reservation, *rest: tried.append(reservation) or commit(reservation, *rest)
        made.reserve((("b", 1),), NOW)
        self.assertEqual((len(made._unsettled), made._unsettled[-1].reservation), (8, taken[0][1]))
        store.broken = set()
        made.reserve((("b", 1),), NOW)
        self.assertEqual((len(made._unsettled), len(tried)), (0, 8))

    def test_close_gives_up(self) -> None:
        """A store that fails and fails keeps `close` no longer than a few tries."""
        store, made = opened()
        taken = made.reserve(WANTS, NOW)
        store.broken = {"commit"}
        for _ in range(100):
            made.settle(taken, (0,), NOW)
        asked: list[str] = []
        store.__class__ = type(
            "Counting", (Flaky,), {"__getattr__": lambda self, name: asked.append(name) or Flaky.__getattr__(self, name)}
        )
        made.close(NOW, False)
        self.assertEqual(asked.count("commit"), ledger.CLOSING_TRIES)


class Ignoring(unittest.TestCase):
    def test_a_store_in_memory_takes_over(self) -> None:
        """With "ignore" every method goes on in memory, limits still hold, and the failures are counted."""
        store, made = opened("ignore")
        store.broken = {"*"}
        held = made.reserve(WANTS, NOW)
        self.assertIsNot(held[0], store)
        made.settle(held, (9,), NOW)
        self.assertEqual(made.headroom(("a",), NOW)[0].remaining, 1)
        self.assertIsInstance(made.reserve(WANTS, NOW), quota.Refusal)
        made.hold("a", NOW + 5, "why", NOW)
        self.assertIn("a", made.holds(NOW))
        made.define((Bucket("b", Limit(1, "requests", "day")),), NOW)
        self.assertIsInstance(made.reserve((("b", 1),), NOW), tuple)
        self.assertEqual(made.degraded, 7)
        self.assertEqual(used(store), 0)

    def test_the_store_is_used_again_once_it_works(self) -> None:
        """A reservation is settled with the store it was taken from; the next goes to the real one again."""
        store, made = opened("ignore")
        store.broken = {"*"}
        held = made.reserve(WANTS, NOW)
        store.broken = set()
        made.settle(held, (1,), NOW)
        self.assertEqual(used(store), 0)
        self.assertIs(made.reserve(WANTS, NOW)[0], store)
        self.assertEqual(used(store), 4)

    def test_a_bucket_nobody_knows_is_still_an_error(self) -> None:
        """What neither store knows is refused."""
        _, made = opened("ignore")
        with self.assertRaises(errors.QuotaStoreError):
            made.reserve((("unknown", 1),), NOW)


if __name__ == "__main__":
    unittest.main()
