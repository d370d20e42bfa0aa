"""What the accounts will carry: held against the very fleet, run to the end on a clock that moves when slept on."""

from __future__ import annotations

import itertools
import json
import unittest
from collections import Counter
from typing import Any
from unittest import mock

from tests import LONG, ir, part
from tests.fakes import NOON, FakeClock

HOUR = 3600.0
FLEET: tuple[dict[str, Any], ...] = (
    {"limits": {"rpm": 5, "rpd": 20}, "reset": "America/Los_Angeles"},
    {"limits": {"rpm": 2, "rpd": 150, "tpm": 250_000}, "reset": "Asia/Tokyo"},
    {"limits": {"rpm": 30, "rpd": 100, "tpm": 6000, "tpd": 30_000}, "reset": "rolling"},
    {"limits": {"rpm": 3, "rph": 40, "tph": 1_000_000}},
    {"daily_free": 20_000, "quota_unit": "tokens"},
    {"limits": {"rpd": 7}, "quota_group": "pair"},
    {"limits": {"rpd": 7}, "quota_group": "pair"},
)


class Counting:
    """A meter that counts what each account answered in each hour from `begin`."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.begin = 0.0
        self.served: Counter[tuple[str, int]] = Counter()

    def on_route(self, event: Any) -> None:
        pass

    def on_result(self, event: Any) -> None:
        self.served[event.account_id, int((self.clock.now - self.begin) // HOUR)] += event.success


class Fleet(unittest.TestCase):
    def fleet(self, *settings: dict[str, Any], now: float = NOON, **config: Any) -> tuple[Any, FakeClock, Counting]:
        clock = FakeClock(now)
        meter = Counting(clock)
        usage = ir.Usage(300, 100, 400)
        provider = ir.MockProvider("mock", default=ir.MockReply("ok", usage=usage), models=["m", "n"])
        accounts = [ir.AccountConfig("mock", f"a{at}", **each) for at, each in enumerate(settings)]
        made = ir.Config(accounts=accounts, **{"default_model": "m", **config})
        router = ir.Router(made, [provider], clock=clock, meter=meter)
        self.addCleanup(router.close)
        return router, clock, meter

    def test_against_the_run(self) -> None:
        """In the middle of a day, with much used already, each account serves in each hour what was foretold, to the row."""
        router, clock, meter = self.fleet(*FLEET, now=NOON + 1234.5)
        row = ir.ChatRequest("x" * 100, max_tokens=1000)
        for _ in router.map([row] * 220):
            pass
        clock.advance(777.0)
        meter.served.clear()
        meter.begin = clock.now // HOUR * HOUR
        days = 1.5 if LONG else 1.1
        found = router.capacity(days=days, tokens=400, output_tokens=100, reserved=1036)
        fewer_looks: dict[str, Any] = {} if LONG else {"workers": 1}
        for _ in router.map(itertools.repeat(row), **fewer_looks, until=clock.now + days * 24 * HOUR):
            pass
        foretold, served = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
        group = {"a5": "a5 a6", "a6": "a5 a6"}
        for account in found.accounts:
            for hour, requests in enumerate(account.hours):
                name = group.get(account.account_id, account.account_id)
                foretold[name, hour] += requests
                served[name, hour] += meter.served[account.account_id, hour]
        self.assertEqual(foretold, served)
        self.assertGreater(found.requests, 500 if LONG else 300)

    def test_held_and_unlimited(self) -> None:
        """A held account carries nothing until its hold ends; one without limits is named as such and counts nothing."""
        router, _, _ = self.fleet({"limits": {"rpd": 10}}, {}, {"daily_free": 0})
        router._ledger.hold("a0", NOON + 5 * HOUR, "RateLimited", NOON)
        found = router.capacity(days=1)
        self.assertEqual([account.account_id for account in found.accounts], ["a0", "a1"])
        self.assertEqual((found.accounts[0].held_until, found.accounts[0].hours[:6]), (NOON + 5 * HOUR, (0, 0, 0, 0, 0, 10)))
        self.assertEqual((found.unlimited, found.requests), (("a1",), 20))

    def test_writes_nothing(self) -> None:
        """Looking ahead changes no count."""
        router, _, _ = self.fleet(*FLEET)
        for _ in router.map(["x"] * 20):
            pass
        before = str(router.status())
        router.capacity(days=2)
        self.assertEqual(str(router.status()), before)

    def test_models_and_accounts(self) -> None:
        """Each model of each account is a row; without an alias or a default, the models that its limits name."""
        limits = {"m": {"rpd": 5}, "n": {"rpd": 3}}
        router, _, _ = self.fleet({"model_limits": limits}, default_model="")
        found = router.capacity()
        self.assertEqual([(each.model, each.hours[0]) for each in found.accounts], [("m", 5), ("n", 3)])
        self.assertEqual([each.model for each in router.capacity(model="n").accounts], ["n"])
        with self.assertRaises(ir.UnknownModelError):
            router.capacity(model="bogus")

    def test_shown(self) -> None:
        """It prints, turns into JSON, and sums by the days of a zone."""
        router, _, _ = self.fleet({"limits": {"rpd": 10}})
        found = router.capacity(days=2)
        self.assertIn("mock/a0 m: 30", str(found))
        self.assertEqual(json.loads(json.dumps(found.to_dict()))["requests"], 30)
        self.assertEqual(found.days(), (("2026-01-15", 10), ("2026-01-16", 10), ("2026-01-17", 10)))
        self.assertEqual(found.days("America/Los_Angeles")[0], ("2026-01-15", 20))
        for days in (0, -1, True, 1e9, "x"):
            with self.assertRaisesRegex(ir.InvalidRequestError, "days"):
                router.capacity(days=days)

    def test_what_repeats_is_not_worked_out_again(self) -> None:
        """Far ahead a few thousand steps are enough, whatever the limits and however many accounts are alike; what is served up
        to each hour is right to an hour's rows and one in a hundred of what working out all of it says, and so is the end."""
        ahead = part("capacity_serving")
        settings: tuple[tuple[dict[str, Any], ...], ...] = (
            ({"limits": {"rpm": 30, "rpd": 7_000}, "reset": "Asia/Tokyo"}, {"limits": {"rpm": 60}}),
            ({"limits": {"rpm": 30, "rpd": 9_000}, "reset": "rolling"},),
            ({"limits": {"rpm": 40, "rph": 300, "tpm": 10_000}},),
            ({"limits": [{"requests": 45, "per": "5h"}, {"requests": 10, "per": "60s"}]},),
        )
        for accounts in settings:
            router, _, _ = self.fleet(*accounts, now=NOON + 1234.5)
            for _ in router.map(["x"] * 30):
                pass
            slow = accounts[0].get("reset") == "rolling"  # what is off by minutes a day tells after a few days
            days, limits = 12 if LONG else 5 if slow else 2, {"STEPS": 500}
            found = []
            for patch in (limits, {"STEPS": 10**9}):
                with mock.patch.multiple(ahead, **patch):
                    hours = [requests for _, requests in router.capacity(days=days, tokens=400).hours]
                    found.append((hours, router.finish_time(sum(hours[: -days * 2]), tokens=400)))
            (quick, end), (exact, exact_end) = found
            with self.subTest(accounts[0]):
                self.assertAlmostEqual(sum(quick), sum(exact), delta=sum(exact) / 100)
                for one, other in zip(itertools.accumulate(quick), itertools.accumulate(exact), strict=True):
                    self.assertAlmostEqual(one, other, delta=max(exact) + other / 100)
                self.assertAlmostEqual(end.at - NOON, exact_end.at - NOON, delta=(exact_end.at - NOON) / 100)
        router, _, _ = self.fleet(*[{"limits": {"rpm": 60}}] * 12)
        limits = mock.patch.object(ahead, "STEPS", 500)
        with limits, mock.patch.object(ahead, "_serve", side_effect=ahead._serve) as steps:
            self.assertAlmostEqual(router.capacity(days=1).requests, 12 * 85_080, delta=120 * 85)
            self.assertIsNone(router.finish_time(10**12).at)
        self.assertLess(steps.call_count, 2 * 1000)

    def test_what_never_repeats_is_looked_at_so_far(self) -> None:
        """Limits by the month besides those by the minute are worked out as far as that is quick, and it is said how far."""
        router, clock, _ = self.fleet({"limits": [{"requests": 60, "per": "minute"}, {"requests": 2_000_000, "per": "month"}]})
        with mock.patch.object(part("capacity"), "MOST_STEPS", 3000):
            found = router.finish_time(10**9)
            self.assertIsNone(found.at)
            self.assertAlmostEqual((found.looked_to - clock.now) / 86400, 3000 / 1417, delta=0.1)
            self.assertRegex(found.in_words(clock.now), "^not within 2 days; [0-9,]+ of them within a day$")
            self.assertIsNotNone(router.finish_time(100_000).at)

    def test_what_is_no_number_of_rows(self) -> None:
        """A count that cannot be is refused by its name, before anything is worked out."""
        router, _, _ = self.fleet({"limits": {"rpd": 10}})
        for name, wrong in (("rows", -1), ("rows", 2.5), ("rows", True), ("per_second", 0), ("per_second", "1")):
            with self.subTest(name=name, wrong=wrong), self.assertRaisesRegex(ir.InvalidRequestError, f"{name} is a"):
                router.finish_time(**{"rows": 5, name: wrong})
        for name, wrong in (("tokens", -1), ("output_tokens", -1), ("reserved", "9"), ("tokens", 1.0)):
            with self.subTest(name=name, wrong=wrong), self.assertRaisesRegex(ir.InvalidRequestError, f"{name} is a"):
                router.capacity(**{name: wrong})

    def test_when_a_job_is_done(self) -> None:
        """So many rows are done at the moment the last of them is really served, or never where nothing will carry them."""
        router, clock, _ = self.fleet({"limits": {"rpm": 5, "rpd": 20}}, {"limits": {"rpd": 10}})
        foretold = router.finish_time(100, tokens=400)
        for _ in router.map(["x"] * 100):
            pass
        self.assertAlmostEqual(foretold.at, clock.now, delta=1.0)
        self.assertEqual(foretold.in_a_day, 60)
        self.assertEqual(router.finish_time(0).at, clock.now)
        slow = router.finish_time(5, per_second=0.01)
        self.assertGreater(slow.at, clock.now + 400)
        never, _, _ = self.fleet({"limits": {"rpd": 0}})
        self.assertIsNone(never.finish_time(5).at)


if __name__ == "__main__":
    unittest.main()
