"""Over many accounts only what changed is assessed again: the result is always that of assessing everything anew."""

from __future__ import annotations

import itertools
import random
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from tests import ir, part, rounds
from tests.fakes import MIDNIGHT, NOW, Fixture, an_account

assessment, candidates, costs, quota, records = map(part, ("assessment", "candidates", "costs", "quota", "records"))
kept_assessments = part("kept_assessments")
routes = part("routes")
Verdict = part("health").Verdict

PRICES = {"cost_per_input_token": 1e-5, "cost_per_output_token": 2e-5}
PICTURE = records.ChatRequest([records.Message("user", [ir.Part.image(data=b"x", mime_type="image/png")])])
TOOLS = records.ChatRequest("x", tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}])


class FreshStore:
    """A store that makes every value anew at each look, as one in another process would."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def headroom(self, keys: Any, now: float) -> list[Any]:
        return [quota.Headroom(*headroom) for headroom in self._inner.headroom(keys, now)]

    def holds(self, now: float) -> dict[str, Any]:
        return {key: quota.Hold(hold.key, hold.until, hold.reason) for key, hold in self._inner.holds(now).items()}


def many_accounts(count: int, dice: random.Random) -> list[Any]:
    """Accounts of every kind: free by requests, tokens or dollars, paid with and without a cap, with limits and without."""
    kinds: list[dict[str, Any]] = [
        {"daily_free": 20, "quota_unit": "requests"},
        {"daily_free": 900, "quota_unit": "tokens"},
        {"daily_free": 0.01, "quota_unit": "dollars", **PRICES},
        {"daily_free": 300, "quota_unit": "tokens", "paid_enabled": True, "max_daily_spend": 0.02, **PRICES},
        {"daily_free": 0, "quota_unit": "requests", "paid_enabled": True, "max_daily_spend": 0.01, **PRICES},
        {"paid_enabled": True, **PRICES},
        {"paid_enabled": True},
        {"limits": {"rpm": 3}},
        {"limits": {"tpm": 500, "rpd": 30}, "capabilities": ["image"]},
        {"quota_group": "shared", "daily_free": 700, "quota_unit": "tokens"},
    ]
    return [an_account(f"a{number}", **dice.choice(kinds)) for number in range(count)]


def facts(found: Any) -> Any:
    """All that an assessment says."""
    chosen = [(*each[:8], each.deployment.free_buckets, each.deployment.paid_buckets) for each in found.candidates]
    return chosen, found.rejections


class Kept(unittest.TestCase):
    def agree(self, store: Any, seed: int, steps: int) -> None:
        """Random calls, failures, holds, clock steps and settings: kept and plain assessments are equal after each."""
        dice = random.Random(seed)
        fixture = Fixture(*many_accounts(24, dice), store=store, models=[], allow_paid=True)
        route, now, mono = fixture.route(), NOW, 0.0
        running: list[tuple[Any, Any]] = []
        for step in range(steps):
            estimate = costs.Estimate(dice.choice((5, 40, 200)), dice.choice((1, 60, 400)))
            request = dice.choice((None, records.ChatRequest("x"), PICTURE, TOOLS))
            media = request.media if request is not None else frozenset()
            needs = assessment.CallNeeds(estimate, dice.random() < 0.7, request, media)
            instant = assessment.Instant(now, mono)
            found = candidates.find_candidates(route, needs, fixture.ledger, fixture.health, instant)
            with mock.patch.object(candidates, "MANY", 10**9):
                plain = candidates.find_candidates(route, needs, fixture.ledger, fixture.health, instant)
            self.assertEqual(facts(found), facts(plain), f"seed {seed}, step {step}")
            action = dice.random()
            if action < 0.5 and found.candidates:
                chosen = dice.choice(found.candidates)
                wants = assessment.amounts_needed(chosen, estimate)
                taken = fixture.ledger.reserve(wants, now) if wants else None
                if not isinstance(taken, quota.Refusal):
                    running.append((taken, fixture.health.acquire(chosen.account_id, mono)))
            elif action < 0.8 and running:
                taken, permit = running.pop(dice.randrange(len(running)))
                if taken is not None:
                    amounts = [amount * dice.choice((0, 0.5, 1, 2)) for _, amount in taken[1].wants]
                    fixture.ledger.settle(taken, amounts, now)
                if permit is not None:
                    fixture.health.release(permit, dice.choice(list(Verdict)), mono)
            elif action < 0.85:
                account = f"a{dice.randrange(24)}"
                fixture.ledger.hold(dice.choice((account, f"{account}|m")), now + dice.choice((-1, 5, 500)), "429", now)
            elif action < 0.88:
                fixture.store.set_quota(f"a{dice.randrange(24)}", dice.choice((0, 5, 1e4)), dice.choice(("requests", "tokens")))
            passed = dice.choice((0, 0, 0.01, 2, 70, 4000, MIDNIGHT - NOW, -3, -100, -90_000))
            now, mono = now + passed, mono + max(passed, 0.0)

    def test_memory(self) -> None:
        """Over the store in memory, which shows the same object until something changes."""
        for seed in range(rounds(12, 4)):
            self.agree(ir.MemoryQuotaStore(), seed, 120)

    def test_sqlite(self) -> None:
        """Over the store in a file, with a second store that writes to the same file behind the first one's back."""
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(2):
                path = Path(folder) / f"{seed}.sqlite"
                with ir.SQLiteQuotaStore(path) as one, ir.SQLiteQuotaStore(path) as other:
                    self.agree(Alternating(one, other), seed, 60)

    def test_fresh_objects(self) -> None:
        """Over a store that makes its values anew each time, everything is assessed anew."""
        for seed in range(rounds(3, 2)):
            self.agree(FreshStore(ir.MemoryQuotaStore()), seed, 80)

    def test_only_what_changed_is_assessed(self) -> None:
        """Of 100 accounts a second look assesses none again, and after a call only the one that served."""
        fixture = Fixture(*(an_account(f"a{number}", daily_free=100, quota_unit="requests") for number in range(100)))
        route, needs = fixture.route(), assessment.CallNeeds(costs.Estimate(10, 20), False)

        def look() -> int:
            with (
                mock.patch.object(kept_assessments, "assess", wraps=assessment.assess) as assess,
                mock.patch.object(kept_assessments, "weighed", wraps=assessment.weighed) as weighed,
            ):
                instant = assessment.Instant(NOW, 0.0)
                candidates.find_candidates(route, needs, fixture.ledger, fixture.health, instant)
                return int(assess.call_count + weighed.call_count)

        self.assertEqual([look(), look()], [100, 0])
        fixture.used("a7/allowance", 1)
        self.assertEqual([look(), look()], [1, 0])
        permit = fixture.health.acquire("a9", 0.0)
        self.assertEqual([look(), look()], [1, 1], "an account with calls under way is looked at each time")
        fixture.health.release(permit, Verdict.SUCCESS, 0.0)
        self.assertEqual([look(), look()], [1, 0])
        with mock.patch.object(part("quota_memory"), "look_again", return_value=None):
            self.assertEqual(look(), 0, "where all are looked at, only those are assessed that show something else")
        fixture.ledger.hold("a3", NOW + 5, "429", NOW)
        self.assertEqual([look(), look()], [1, 0])

    def test_another_call_needs_more(self) -> None:
        """What was found for a small call says nothing of a large one, also where one account alone has changed since."""
        fixture = Fixture(*(an_account(f"a{number}", daily_free=100, quota_unit="tokens") for number in range(10)))
        route = fixture.route()
        for tokens, free in ((50, 10), (150, 0), (90, 8), (20, 10)):
            needs = assessment.CallNeeds(costs.Estimate(tokens, 0), False)
            found = candidates.find_candidates(route, needs, fixture.ledger, fixture.health, assessment.Instant(NOW, 0.0))
            self.assertEqual(len(found.candidates), free)
            fixture.used(f"a{free % 7}/allowance", 20)

    def test_no_more_kinds_than_that(self) -> None:
        """Of many kinds of calls only some are kept, and all are right."""
        fixture = Fixture(*(an_account(f"a{number}") for number in range(10)))
        with mock.patch.object(kept_assessments, "KINDS", 2):
            for request in (None, PICTURE, TOOLS, records.ChatRequest("x")) * 2:
                media = request.media if request is not None else frozenset()
                needs = assessment.CallNeeds(costs.Estimate(10, 20), False, request, media)
                facts_now = fixture.ledger, fixture.health, assessment.Instant(NOW, 0.0)
                found = candidates.find_candidates(fixture.route(), needs, *facts_now)
                with mock.patch.object(candidates, "MANY", 10**9):
                    self.assertEqual(facts(found), facts(candidates.find_candidates(fixture.route(), needs, *facts_now)))
                self.assertLessEqual(len(fixture.route().memo), 2)

    def test_few_are_assessed_the_plain_way(self) -> None:
        """Below a handful of deployments nothing is kept."""
        fixture = Fixture(*(an_account(f"a{number}") for number in range(candidates.MANY - 1)))
        fixture.find_candidates()
        self.assertEqual(fixture.route().memo, {})


class Alternating:
    """Two stores over one file, asked by turns."""

    def __init__(self, *stores: Any) -> None:
        self._turn = itertools.cycle(stores)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._turn), name)


if __name__ == "__main__":
    unittest.main()
