"""Several configurations on one store: who disagrees is told, and who is silent switches nothing off."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import Any

from tests import ir, part
from tests.fakes import FakeClock

HELLO = ir.ChatRequest("Hello!")
ANSWER = ir.MockReply("x")


class PlainStore:
    """A store of somebody else's: the methods of the protocol and no more."""

    def __init__(self, inner: Any) -> None:
        for name in ("define", "headroom", "reserve", "commit", "rollback", "hold", "holds", "set_quota", "close"):
            setattr(self, name, getattr(inner, name))


class Disagreement(unittest.TestCase):
    def router(self, store: Any, config: Any = None, **settings: Any) -> Any:
        account = ir.AccountConfig("mock", "a", ir.Auth("k"), **{"limits": {}, **settings})
        made = ir.Config([account], default_model="mock/x", **(config or {}))
        router = ir.Router(made, [ir.MockProvider(default=ANSWER)], quota_store=store, clock=FakeClock())
        self.addCleanup(router.close)
        return router

    def stores(self) -> Any:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        memory, own = ir.MemoryQuotaStore(), PlainStore(ir.MemoryQuotaStore())
        yield "memory", lambda: memory
        yield "sqlite", lambda: self.opened(Path(folder.name) / "quota.db")
        yield "own", lambda: own

    def opened(self, path: Path) -> Any:
        store = ir.SQLiteQuotaStore(path)
        self.addCleanup(store.close)
        return store

    def served(self, router: Any, tries: int) -> int:
        count = 0
        for _ in range(tries):
            try:
                router.chat_completion(HELLO)
                count += 1
            except ir.NoCandidatesError:
                break
        return count

    def test_silence_switches_nothing_off(self) -> None:
        """An account without daily_free leaves another configuration's allowance as it is, and is not bound by it."""
        for kind, store in self.stores():
            with self.subTest(kind):
                stating = self.router(store(), daily_free=10)
                self.assertEqual(self.served(stating, 5), 5)
                silent = self.router(store())
                self.assertTrue(any(each.startswith("allowance of a: ") for each in silent.warnings), silent.warnings)
                self.assertEqual(self.served(silent, 20), 20)
                self.assertEqual(silent.status()["a"].limits, ())
                self.assertEqual(self.served(stating, 20), 5)
                paid = self.router(store(), {"allow_paid": True}, paid_enabled=True)
                self.assertFalse(paid.chat_completion(HELLO).routing.free)

    def test_silence_obeys_what_was_set(self) -> None:
        """What `set_quota` said holds for an account without daily_free too, before and after."""
        for kind, store in self.stores():
            with self.subTest(kind):
                store().set_quota("a", 3, "requests")
                silent = self.router(store())
                self.assertEqual(silent.warnings, ())
                self.assertEqual(self.served(silent, 9), 3)
                store().set_quota("a", 4, "requests")
                self.assertEqual(self.served(silent, 9), 1)

    def test_a_cap_goes_on(self) -> None:
        """A paid account without a cap does not switch another configuration's off: the money is the same."""
        price = {"cost_per_input_token": 0.001, "cost_per_output_token": 0.001, "paid_enabled": True}
        for kind, store in self.stores():
            with self.subTest(kind):
                self.router(store(), {"allow_paid": True}, max_daily_spend=0.05, **price)
                careless = self.router(store(), {"allow_paid": True}, **price)
                self.assertTrue(any(each.startswith("spend of a: ") for each in careless.warnings), careless.warnings)
                self.assertLess(self.served(careless, 100), 100)

    def test_both_sides_are_told(self) -> None:
        """Where two configurations state different amounts, the second is told at its start and the first when it looks: in its
        warnings, in its status, and its meter within a minute of calls."""
        notices: list[str] = []

        class Hearing(ir.NoopMeter):
            def on_notice(self, event: Any) -> None:
                notices.append(event.text)

        for kind, store in self.stores():
            for first, second in (({"limits": {"rpd": 10}}, {"limits": {"rpd": 1000}}), ({"daily_free": 5}, {"daily_free": 7})):
                with self.subTest(kind, second=second):
                    one, again = self.router(store(), **first), self.router(store(), **first)
                    self.assertEqual((one.warnings, again.warnings), ((), ()))
                    other = self.router(store(), **second)
                    (told,) = other.warnings
                    self.assertIn("until now, and from here on", told)
                    (told,) = one.warnings
                    self.assertIn("this configuration says", told)
                    self.assertIn("same configuration", told)
                    again.status()
                    self.assertEqual(again.warnings, (told,))
                    self.router(store(), **first)  # as it was, for the next row
                    if "limits" in first:
                        self.router(store())
        clock, store = FakeClock(), ir.MemoryQuotaStore()
        account = ir.AccountConfig("mock", "a", ir.Auth("k"), limits={"rpd": 10})
        made = ir.Config([account], default_model="mock/x")
        with ir.Router(made, [ir.MockProvider(default=ANSWER)], quota_store=store, clock=clock, meter=Hearing()) as router:
            router.chat_completion(HELLO)
            self.router(store, limits={"rpd": 9})
            router.chat_completion(HELLO)
            self.assertEqual(notices, [])
            clock.sleep(61)
            router.chat_completion(HELLO)
            router.chat_completion(HELLO)
        self.assertEqual(len(notices), 1)

    def test_what_a_provider_said_is_no_disagreement(self) -> None:
        """A limit that was lowered by what a provider stated is not told as another configuration's."""
        store = ir.MemoryQuotaStore()
        router = self.router(store, limits={"rpd": 10})
        router.chat_completion(HELLO)
        store.observe([part("quota_learned").Observation("a/rpd", limit=5, source="a header")], FakeClock().time())
        self.assertEqual(store.headroom(["a/rpd"], FakeClock().time())[0].limit.amount, 5)
        self.assertEqual(router.warnings, ())
        self.assertEqual(self.router(store, limits={"rpd": 10}).warnings, ())


class Permanent(unittest.TestCase):
    def test_what_never_succeeds_is_not_tried_again(self) -> None:
        """A settlement that the store refuses for good is given up and counted; one that fails for now is made later."""
        guarded_store, quota, limits = part("guarded_store"), part("quota"), part("limits")
        inner = ir.MemoryQuotaStore()
        failures: list[Exception] = []

        class Failing(PlainStore):
            def __init__(self) -> None:
                super().__init__(inner)
                self.commit = self.settle

            def settle(self, *args: Any) -> Any:
                if failures:
                    raise failures.pop()
                return inner.commit(*args)

        ledger = guarded_store.GuardedStore(Failing())
        ledger.define([quota.Bucket("k", limits.Limit(100, "tokens", "day"))], 1e9)
        for amounts, failure, left in (
            ([-1.0], None, 0),
            ([float("nan")], None, 0),
            ([1.0, 2.0], None, 0),
            ([1.0], TypeError("x"), 0),
            ([2.0], OSError("x"), 1),
        ):
            taken = ledger.reserve((("k", 5.0),), 1e9)
            failures[:] = [failure] if failure else []
            ledger.settle(taken, amounts, 1e9)
            self.assertEqual(len(ledger._unsettled), left, amounts)
        self.assertEqual(ledger.degraded, 4)
        self.assertIsInstance(ledger.reserve((("k", 5.0),), 1e9), tuple)
        self.assertEqual(len(ledger._unsettled), 0)
        self.assertEqual(inner.headroom(["k"], 1e9)[0].used, 4 * 5 + 2 + 5)

    def test_usage_that_cannot_be(self) -> None:
        """A provider of the user's own that reports absurd usage leaves nothing unsettled, and counts what can be counted."""
        rows: list[tuple[Any, float]] = [
            (ir.Usage(10**17, 5, 10**17 + 5), float(2**53)),
            (ir.Usage(10**400, 5, 10**400), float(2**53)),
            (ir.Usage(-10, -20, -30), 1032.0),
        ]
        for usage, counted in rows:

            class Boasting(ir.MockProvider):
                def decode(self, body: bytes, model: str, usage: Any = usage) -> Any:
                    from dataclasses import replace

                    return replace(super().decode(body, model), usage=usage)

            account = ir.AccountConfig("mock", "a", ir.Auth("k"), limits={"tpm": 10**14})
            made = ir.Config([account], default_model="mock/x")
            with ir.Router(made, [Boasting(default=ANSWER)], clock=FakeClock()) as router:
                router.chat_completion(ir.ChatRequest("hi"))
                self.assertEqual(len(router._ledger._unsettled), 0)
                self.assertEqual(router.status()["a"].limits[0].used, counted, usage)


if __name__ == "__main__":
    unittest.main()
