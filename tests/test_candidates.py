"""Candidates: who may take a call, and for each other the reason why not."""

from __future__ import annotations

import unittest
from typing import Any

from tests import part
from tests.fakes import MIDNIGHT, NOW, FakeProvider, Fixture, an_account

assessment, content, costs, health = part("assessment"), part("content"), part("costs"), part("health")
records, tool = part("records"), part("tool")

PRICES = {"cost_per_input_token": 0.01, "cost_per_output_token": 0.02}
PICTURE = records.ChatRequest([records.Message("user", [content.Part.image(b"x", "image/png")])])
TOOLS = records.ChatRequest("x", tools=[tool.Tool("f")])


def ids(found: Any) -> list[tuple[str, bool]]:
    return [(candidate.account_id, candidate.free) for candidate in found.candidates]


class Reasons(unittest.TestCase):
    def only(self, fixture: Fixture, code: str, words: str, retry_at: float | None, **asked: Any) -> None:
        """The stage's one slot is left out for this reason."""
        found = fixture.find_candidates(**asked)
        self.assertEqual(found.candidates, ())
        (rejection,) = found.rejections
        self.assertEqual((rejection.provider, rejection.account_id, rejection.model), ("p", "a", "m"))
        self.assertEqual((rejection.code, rejection.retry_at), (code, retry_at))
        self.assertIn(words, rejection.reason)

    def test_held(self) -> None:
        """A hold on the account, its group, or the model at either leaves it out until the latest of them ends."""
        for key in ("a", "a|m", "group:g", "group:g|m"):
            fixture = Fixture(an_account(quota_group="g"))
            fixture.ledger.hold(key, NOW + 9, "RateLimited (429)", NOW)
            self.only(fixture, "held", "held: RateLimited (429)", NOW + 9)
        fixture = Fixture(an_account())
        fixture.ledger.hold("a|m", NOW + 90, "late", NOW)
        fixture.ledger.hold("a", NOW + 9, "early", NOW)
        self.only(fixture, "held", "held: late", NOW + 90)
        fixture.ledger.hold("a", NOW + 600, "Authentication (401), check auth.api_key", NOW)
        self.only(fixture, "held", "held: Authentication (401), check auth.api_key", None)

    def test_another_models_hold_does_not_count(self) -> None:
        """A hold on another model or account leaves this one in."""
        fixture = Fixture(an_account())
        for key in ("a|n", "b", "p"):
            fixture.ledger.hold(key, NOW + 9, "why", NOW)
        self.assertEqual(ids(fixture.find_candidates()), [("a", True)])

    def test_breaker_open(self) -> None:
        """An open breaker leaves the account out until its rest is over, a half-open one only while its probe runs."""

        def failed(at: float) -> Any:
            fixture = Fixture(an_account())
            for _ in range(3):
                fixture.health.release(fixture.health.acquire("a", at), health.Verdict.FAILURE, at)
            return fixture

        self.only(failed(-10.0), "breaker", "breaker is open", NOW + 20)
        fixture = failed(-30.0)
        self.assertEqual(ids(fixture.find_candidates()), [("a", True)])
        probe = fixture.health.acquire("a", 0.0)
        self.assertIsNotNone(probe)
        self.only(fixture, "breaker", "breaker is open", NOW + 1)

    def test_media_the_format_cannot_carry(self) -> None:
        """A wire format without pictures leaves the account out, whatever the model can."""
        fixture = Fixture(an_account(capabilities=["image"]), providers=[FakeProvider("p", media=())])
        self.only(fixture, "media", "the openai wire format carries no image", None, request=PICTURE)

    def test_media_the_model_cannot_take(self) -> None:
        """A model that is declared or known not to see is left out, an unknown one too, with different words."""
        self.only(Fixture(an_account(capabilities=["text"])), "media", "declared not to take image", None, request=PICTURE)
        self.only(Fixture(an_account()), "media", "not known to take image; if it does, add 'image'", None, request=PICTURE)
        self.assertEqual(ids(Fixture(an_account(capabilities=["image"])).find_candidates(request=PICTURE)), [("a", True)])

    def test_tools_the_model_cannot_take(self) -> None:
        """A model declared without tools is left out when there are tools; an unknown one is tried."""
        self.only(Fixture(an_account(capabilities=["text"])), "tools", "does not take tools", None, request=TOOLS)
        self.assertEqual(ids(Fixture(an_account()).find_candidates(request=TOOLS)), [("a", True)])
        self.assertEqual(ids(Fixture(an_account(capabilities=["tools"])).find_candidates(request=TOOLS)), [("a", True)])
        text = records.ChatRequest("x")
        self.assertEqual(ids(Fixture(an_account(capabilities=["text"])).find_candidates(request=text)), [("a", True)])

    def test_parameters_that_are_required(self) -> None:
        """A format that cannot express a required parameter is left out; what is not required is dropped."""
        provider = FakeProvider("p")
        provider.cannot = ("seed", "top_p")
        fixture = Fixture(an_account(), providers=[provider])
        self.only(
            fixture, "required", "cannot express seed, which", None, request=records.ChatRequest("x", seed=1, require="seed")
        )
        self.assertEqual(ids(fixture.find_candidates(request=records.ChatRequest("x", seed=1))), [("a", True)])
        other = records.ChatRequest("x", stop="a", require="stop")
        self.assertEqual(ids(fixture.find_candidates(request=other)), [("a", True)])

    def test_paid_without_leave(self) -> None:
        """A paid account is left out if allow_paid is false, for good as waiting does not help."""
        self.only(
            Fixture(an_account(paid_enabled=True)), "paid_not_allowed", "it is a paid account, and allow_paid is false", None
        )

    def test_a_spent_allowance_without_leave(self) -> None:
        """A spent free account comes back at its reset; which of the two switches is off is said."""
        for settings, paid, missing in (({}, True, "paid_enabled"), ({"paid_enabled": True}, False, "allow_paid")):
            fixture = Fixture(an_account(daily_free=2, **settings))
            fixture.used("a/allowance", 2)
            words = f"is not enough (0 requests left of 2 requests per day), and {missing} is false"
            self.only(fixture, "paid_not_allowed", words, MIDNIGHT, paid=paid)

    def test_a_call_larger_than_the_whole_allowance_does_not_come_back(self) -> None:
        """Where the call never fits, waiting for the reset is not suggested."""
        fixture = Fixture(an_account(daily_free=25, quota_unit="tokens"))
        self.only(fixture, "paid_not_allowed", "25 tokens left of 25 tokens per day", None)
        nothing = Fixture(an_account(daily_free=0))
        self.only(nothing, "paid_not_allowed", "allowance is not enough", None)

    def test_spend_cap(self) -> None:
        """A paid account whose cap does not reach for the call is left out until midnight UTC, with the figures."""
        fixture = Fixture(an_account(paid_enabled=True, max_daily_spend=1.0, **PRICES))
        fixture.used("a/spend", 0.6)
        self.only(fixture, "spend_cap", "$0.6000 of $1 spent today, about $0.5000 needed", MIDNIGHT, paid=True)
        fixture = Fixture(an_account(paid_enabled=True, max_daily_spend=0.4, **PRICES))
        self.only(fixture, "spend_cap", "max_daily_spend reached", None, paid=True)
        fixture = Fixture(an_account(paid_enabled=True, max_daily_spend=0.0))
        self.only(fixture, "spend_cap", "max_daily_spend reached", None, paid=True)

    def test_a_cap_just_reached_lets_through(self) -> None:
        """A call that exactly fits the cap, or an allowance in dollars, may go, though cents do not add up in binary."""
        for amount, used in ((1.0, 0.5), (1.1, 0.1 + 0.2 + 0.3)):
            fixture = Fixture(an_account(paid_enabled=True, max_daily_spend=amount, **PRICES))
            fixture.used("a/spend", used)
            self.assertEqual(ids(fixture.find_candidates(paid=True)), [("a", False)])
            fixture = Fixture(an_account(daily_free=amount, quota_unit="dollars", **PRICES))
            fixture.used("a/allowance", used)
            self.assertEqual(ids(fixture.find_candidates()), [("a", True)])

    def test_reasons_are_asked_in_order(self) -> None:
        """A hold is told before an open breaker, and that before what the account cannot do."""
        fixture = Fixture(an_account(capabilities=["text"]))
        for _ in range(3):
            fixture.health.release(fixture.health.acquire("a", 0.0), health.Verdict.FAILURE, 0.0)
        self.assertEqual(fixture.find_candidates(request=TOOLS).rejections[0].code, "breaker")
        fixture.ledger.hold("a", NOW + 9, "why", NOW)
        self.assertEqual(fixture.find_candidates(request=TOOLS).rejections[0].code, "held")


class FreeOrPaid(unittest.TestCase):
    def test_what_counts_as_free(self) -> None:
        """An allowance that reaches is free; without one an account is free unless it is a paid one."""
        rows: list[tuple[dict[str, Any], bool]] = [
            ({}, True),
            ({"limits": {"rpm": 5}}, True),
            (PRICES, True),
            ({"paid_enabled": True}, False),
            ({"daily_free": 1}, True),
            ({"daily_free": 1, "paid_enabled": True}, True),
            ({"daily_free": 0, "paid_enabled": True}, False),
            ({"daily_free": 30, "quota_unit": "tokens", "paid_enabled": True}, True),
            ({"daily_free": 29, "quota_unit": "tokens", "paid_enabled": True}, False),
            ({"daily_free": 0.5, "quota_unit": "dollars", "paid_enabled": True, **PRICES}, True),
            ({"daily_free": 0.49, "quota_unit": "dollars", "paid_enabled": True, **PRICES}, False),
        ]
        for settings, free in rows:
            self.assertEqual(ids(Fixture(an_account(**settings)).find_candidates(paid=True)), [("a", free)], settings)

    def test_a_spent_dollar_allowance_is_not_free_even_for_a_call_without_price(self) -> None:
        """Nothing left is nothing free, also when the call is worth nothing."""
        fixture = Fixture(an_account(daily_free=1, quota_unit="dollars", paid_enabled=True))
        self.assertEqual(ids(fixture.find_candidates(paid=True)), [("a", True)])
        fixture.used("a/allowance", 1)
        self.assertEqual(ids(fixture.find_candidates(paid=True)), [("a", False)])

    def test_wants_follow_the_kind(self) -> None:
        """A free call takes allowance and hard limits; a paid one hard limits and spend; each in its unit."""
        settings: dict[str, Any] = {"limits": {"rpm": 5, "tpm": 500}, "paid_enabled": True, "max_daily_spend": 1.0, **PRICES}
        estimate = costs.Estimate(10, 20)
        hard = (("a/rpm", 1), ("a/tpm", 30))
        (free,) = Fixture(an_account(daily_free=3, **settings)).find_candidates(paid=True).candidates
        self.assertEqual(assessment.amounts_needed(free, estimate), (("a/allowance", 1), *hard))
        (paid,) = Fixture(an_account(**settings)).find_candidates(paid=True).candidates
        self.assertEqual(assessment.amounts_needed(paid, estimate), (*hard, ("a/spend", 0.5)))
        (bare,) = Fixture(an_account()).find_candidates().candidates
        self.assertEqual(assessment.amounts_needed(bare, estimate), ())


class Live(unittest.TestCase):
    def test_share_is_that_of_the_tightest_limit_across_units(self) -> None:
        """Of requests, tokens and dollars the smallest remaining part counts; without limits all is left."""
        settings: dict[str, Any] = {"limits": {"rpm": 10, "tpm": 1000}, "daily_free": 100, "paid_enabled": True}
        settings |= {"max_daily_spend": 2.0, **PRICES}
        rows = [("a/rpm", 1, 0.9), ("a/tpm", 200, 0.8), ("a/allowance", 75, 0.25)]
        fixture = Fixture(an_account(**settings))
        self.assertEqual(fixture.find_candidates().candidates[0].share, 1.0)
        for key, amount, share in rows:
            fixture.used(key, amount)
            self.assertAlmostEqual(fixture.find_candidates().candidates[0].share, share)
        fixture.used("a/spend", 1.9)
        self.assertAlmostEqual(fixture.find_candidates().candidates[0].share, 0.25)
        self.assertEqual(Fixture(an_account()).find_candidates().candidates[0].share, 1.0)

    def test_a_paid_call_looks_at_spend_and_not_at_the_allowance(self) -> None:
        """The share of a paid candidate is that of its own limits."""
        fixture = Fixture(an_account(daily_free=1, paid_enabled=True, max_daily_spend=2.0, **PRICES))
        fixture.used("a/allowance", 1)
        fixture.used("a/spend", 1.0)
        self.assertEqual(fixture.find_candidates(paid=True).candidates[0].share, 0.5)

    def test_candidates_carry_what_policies_need(self) -> None:
        """Declared place, price, calls in flight and model are told, and its text names them."""
        fixture = Fixture(an_account("a", paid_enabled=True, **PRICES), an_account("b"))
        under_way = fixture.health.acquire("b", 0.0)
        first, second = fixture.find_candidates(paid=True).candidates
        self.assertEqual((first.provider, first.model, first.order, second.order), ("p", "m", 0, 1))
        self.assertAlmostEqual(first.price, 0.05 / 3)
        self.assertEqual((second.price, first.in_flight, second.in_flight), (None, 0, 1))
        self.assertIsNotNone(under_way)
        self.assertEqual(repr(second), "<Candidate p/b m: free, 100% left, 1 in flight>")
        self.assertIn(": paid, ", repr(first))

    def test_declared_order_is_kept_and_places_are_of_the_whole_plan(self) -> None:
        """Left-out slots keep their place in the count."""
        fixture = Fixture(an_account("a"), an_account("b"), an_account("c"))
        fixture.ledger.hold("b", NOW + 9, "why", NOW)
        found = fixture.find_candidates()
        self.assertEqual([(c.account_id, c.order) for c in found.candidates], [("a", 0), ("c", 2)])
        self.assertEqual([r.account_id for r in found.rejections], ["b"])

    def test_looking_changes_nothing(self) -> None:
        """A survey reserves nothing, however often it is made."""
        fixture = Fixture(an_account(daily_free=5, limits={"rpm": 3}))
        before = fixture.store.headroom(fixture.route().bucket_keys, NOW)
        for _ in range(20):
            fixture.find_candidates()
        self.assertEqual(fixture.store.headroom(fixture.route().bucket_keys, NOW), before)
        self.assertEqual(fixture.health._breakers, {})

    def test_a_failing_store_is_an_error_and_no_rejection(self) -> None:
        """A store that cannot be asked refuses the survey."""
        fixture = Fixture(an_account(daily_free=5))
        fixture.store.close()
        with self.assertRaises(part("errors").QuotaStoreError):
            fixture.find_candidates()


if __name__ == "__main__":
    unittest.main()
