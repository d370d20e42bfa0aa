"""What a router shows of itself."""

from __future__ import annotations

import pickle
import unittest

from tests import ir, part
from tests.fakes import MIDNIGHT, NOW, Fixture, an_account

account, assessment, health, status = part("account"), part("assessment"), part("health"), part("status")
quota_memory = part("quota_memory")


def states(fixture: Fixture) -> dict[str, object]:
    found: dict[str, object] = status.router_status(fixture.table, fixture.ledger, fixture.health, assessment.Instant(NOW, 0.0))
    return found


class Failing(quota_memory.MemoryQuotaStore):  # type: ignore[misc, name-defined]  # the package is a value here
    """A store whose reservations fail."""

    def reserve(self, wants: object, now: float) -> object:
        raise OSError("no disk")


class Degraded(unittest.TestCase):
    def test_failures_of_the_store_are_shown(self) -> None:
        """A store that failed and was passed by is counted, and the text says so; without failures it says nothing."""
        config = ir.Config(
            accounts=[ir.AccountConfig("mock", "a", daily_free=5)], default_model="mock/m", on_store_error="ignore"
        )
        with ir.Router(config, [ir.MockProvider("mock")], quota_store=Failing()) as router:
            self.assertEqual(router.status().degraded, 0)
            self.assertNotIn("failed", str(router.status()))
            router.chat_completion(ir.ChatRequest("hi"))
            shown = router.status()
            self.assertEqual((shown.degraded, list(shown)), (1, ["a"]))
            self.assertIn("the quota store failed 1 times", str(shown))
            again = pickle.loads(pickle.dumps(shown))
            self.assertEqual((again, again.degraded), (shown, 1))


class States(unittest.TestCase):
    def test_an_account_shows_limits_holds_breaker_and_spend(self) -> None:
        """Every bucket has its short name and figures; holds of account and model, state, calls and spend are shown."""
        prices = {"cost_per_input_token": 1e-6, "cost_per_output_token": 1e-6}
        fixture = Fixture(
            an_account(
                daily_free=100,
                limits={"rpm": 3},
                model_limits={"m": {"rpd": 9}},
                paid_enabled=True,
                max_daily_spend=2.0,
                **prices,
            ),
            an_account("b"),
        )
        fixture.route()
        fixture.used("a/allowance", 40)
        fixture.used("a/spend", 0.5)
        fixture.ledger.hold("a|m", NOW + 60, "RateLimited (429)", NOW)
        fixture.ledger.hold("b", NOW + 60, "other", NOW)
        under_way = fixture.health.acquire("a", 0.0)
        made = states(fixture)["a"]
        names = [limit.name for limit in made.limits]  # type: ignore[attr-defined]  # the package is reached by name
        self.assertEqual(names, ["rpm", "allowance", "spend", "m/rpd"])
        facts = ("provider", "account_id", "breaker", "in_flight", "spend_today", "used", "remaining", "resets_at")
        self.assertEqual([getattr(made, fact) for fact in facts], ["p", "a", "closed", 1, 0.5, 40, 60, MIDNIGHT])
        self.assertIsNotNone(under_way)
        text = str(made)
        self.assertIn("closed, 1 in flight, $0.5000 today", text)
        self.assertIn("allowance: 40 of 100 requests per day", text)
        self.assertIn("spend: 0.5 of ", text)
        self.assertIn("held until 2023-11-14 22:14:20 UTC: RateLimited (429)", text)
        self.assertNotIn("other", text)

    def test_an_account_without_allowance_says_none(self) -> None:
        """Nothing stated is None, not 0; spend without a cap is counted but is not a limit."""
        fixture = Fixture(an_account(paid_enabled=True, cost_per_input_token=1.0))
        fixture.used("a/spend", 3.0)
        made = states(fixture)["a"]
        found = [getattr(made, name) for name in ("used", "remaining", "resets_at", "spend_today", "limits", "holds")]
        self.assertEqual(found, [None, None, None, 3.0, (), ()])

    def test_a_group_is_shown_at_each_of_its_accounts(self) -> None:
        """Accounts of a group show the same buckets under the same short names, and the group's holds."""
        fixture = Fixture(an_account("a", quota_group="g", daily_free=5), an_account("b", quota_group="g", daily_free=5))
        fixture.used("group:g/allowance", 2)
        fixture.ledger.hold("group:g", NOW + 60, "why", NOW)
        for made in states(fixture).values():
            self.assertEqual([getattr(made, name) for name in ("used", "remaining")], [2, 3])
            self.assertEqual([hold.reason for hold in made.holds], ["why"])  # type: ignore[attr-defined]  # as above

    def test_an_open_breaker_shows(self) -> None:
        """The breaker's state is told in words."""
        fixture = Fixture(an_account())
        for _ in range(3):
            fixture.health.release(fixture.health.acquire("a", 0.0), health.Verdict.FAILURE, 0.0)
        self.assertIn("open, 0 in flight", str(states(fixture)["a"]))

    def test_no_key_is_shown(self) -> None:
        """Neither the state nor the roster behind it prints a key."""
        fixture = Fixture(an_account(auth=account.Auth("sk-canary-0123456789"), daily_free=5))
        shown = f"{states(fixture)} {states(fixture)['a']} {fixture.table.bound_accounts!r} {fixture.find_candidates()!r}"
        self.assertNotIn("canary", shown)


class Explanations(unittest.TestCase):
    def test_it_prints_order_and_reasons(self) -> None:
        """Candidates are numbered, with what is left and what is under way; rejections follow."""
        fixture = Fixture(an_account("a", daily_free=10), an_account("b"), an_account("c", paid_enabled=True))
        fixture.used("a/allowance", 5)
        under_way = fixture.health.acquire("b", 0.0)
        found = fixture.find_candidates()
        made = status.Explanation("p/m", found.candidates, found.rejections)
        self.assertEqual(
            str(made).splitlines(),
            [
                "p/m:",
                "  1. p/a m: free, 50% left",
                "  2. p/b m: free, 100% left, 1 in flight",
                "  -  p/c (m): it is a paid account, and allow_paid is false",
            ],
        )
        self.assertIsNotNone(under_way)


if __name__ == "__main__":
    unittest.main()
