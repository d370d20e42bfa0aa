"""`max_daily_spend` in all its forms, and what is refused of it."""

from __future__ import annotations

import unittest
from typing import Any

from tests import ir, part

spend_caps = part("spend_caps")


class Forms(unittest.TestCase):
    def test_what_is_meant(self) -> None:
        """A number is dollars, a table names units, a text an amount and its unit."""
        rows: list[tuple[Any, dict[str, float]]] = [
            (None, {}),
            (0.5, {"dollars": 0.5}),
            (0, {"dollars": 0}),
            ({"requests": 100}, {"requests": 100}),
            ({"requests": 100, "dollars": 1.5}, {"requests": 100, "dollars": 1.5}),
            ("100 requests", {"requests": 100}),
            ("1 request", {"requests": 1}),
            ("50_000 tokens", {"tokens": 50_000}),
            ("50,000 tokens", {"tokens": 50_000}),
            ("$0.50", {"dollars": 0.5}),
            ("0.5 dollars", {"dollars": 0.5}),
            (" 3 requests ", {"requests": 3}),
        ]
        for stated, caps in rows:
            self.assertEqual(dict(spend_caps.spend_caps(stated)), caps, stated)
            self.assertEqual([text for _, text in spend_caps.cap_problems(stated) if text], [], stated)

    def test_what_is_wrong(self) -> None:
        """Each fault is told with its path and what to write; the value is not repeated."""
        rows: list[tuple[Any, str, str]] = [
            ("lots", "max_daily_spend", "100 requests"),
            ("5", "max_daily_spend", "100 requests"),
            ("$5 requests", "max_daily_spend", "100 requests"),
            ("5 parsecs", "max_daily_spend", "tokens"),
            (True, "max_daily_spend", "not true"),
            ([1], "max_daily_spend", "not a"),
            (-1, "max_daily_spend", "negative"),
            ({}, "max_daily_spend", "at least one unit"),
            ({"request": 5}, "max_daily_spend.request", "did you mean 'requests'"),
            ({"requests": 1.5}, "max_daily_spend.requests", "whole"),
            ({"tokens": "5"}, "max_daily_spend.tokens", "without quotes"),
            ({"dollars": -1}, "max_daily_spend.dollars", "negative"),
            ({7: 5}, "max_daily_spend.7", "unknown unit"),
        ]
        for stated, path, words in rows:
            with self.assertRaises(ir.ConfigError, msg=repr(stated)) as caught:
                ir.Config(accounts=[ir.AccountConfig("p", "a", max_daily_spend=stated, cost_per_input_token=1.0)])
            (problem,) = caught.exception.problems
            self.assertTrue(problem.startswith(f"accounts[0].{path}: "), problem)
            self.assertIn(words, problem)
            self.assertEqual(dict(spend_caps.spend_caps(stated)), {})

    def test_dollars_need_a_price(self) -> None:
        """A cap in dollars is refused where the account may cost money and states no price, and nowhere else."""
        price = {"cost_per_output_token": 1e-6}
        rows: list[tuple[dict[str, Any], bool]] = [
            ({"max_daily_spend": 1}, True),
            ({"max_daily_spend": "$1"}, True),
            ({"max_daily_spend": {"dollars": 1, "requests": 5}}, True),
            ({"max_daily_spend": 1, **price}, False),
            ({"max_daily_spend": 0}, False),
            ({"max_daily_spend": 1, "paid_enabled": False}, False),
            ({"max_daily_spend": {"requests": 5}}, False),
        ]
        for settings, refused in rows:
            account = ir.AccountConfig("p", "a", **{"paid_enabled": True, **settings})
            problems = part("account").account_problems(account, "accounts[0]")
            self.assertEqual(bool(problems), refused, (settings, problems))


if __name__ == "__main__":
    unittest.main()
