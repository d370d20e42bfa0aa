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


class InUse(unittest.TestCase):
    def warned(self, call: Any, **settings: Any) -> list[str]:
        """What is said of caps after `call` was made twice of a paid account."""
        account = ir.AccountConfig("mock", "a", paid_enabled=True, **settings)
        with ir.Router(ir.Config([account], allow_paid=True, default_model="mock/m"), [ir.MockProvider()]) as router:
            for _ in range(2):
                call(router)
            return [text for text in router.warnings if "max_daily_spend" in text]

    def test_a_cap_that_counts_nothing_of_a_call(self) -> None:
        """A paid call that no cap of its account counts is told of, once; one that a cap counts is not."""
        image = ir.Part.image(b"x", "image/png")

        def chat(router: Any) -> None:
            router.chat("Hi")

        def embed(router: Any) -> None:
            router.embed(ir.EmbedRequest(["one"]))

        def seen(router: Any) -> None:
            router.chat([ir.Message("user", [image])])

        for call, caps in (
            (chat, {"images": 5}),
            (chat, {"inputs": 5, "audio_seconds": 9}),
            (embed, {"output_tokens": 500}),
            (embed, "5 images"),
        ):
            (text,) = self.warned(call, max_daily_spend=caps)
            self.assertIn("max_daily_spend of mock/a counts", text)
        for call, settings in (
            (chat, {"max_daily_spend": {"images": 5, "requests": 9}}),
            (chat, {"max_daily_spend": {"output_tokens": 5000}}),
            (embed, {"max_daily_spend": {"inputs": 5}}),
            (seen, {"max_daily_spend": {"images": 5}, "capabilities": ["image"]}),
            (chat, {"max_daily_spend": 1, "cost_per_output_token": 1e-6}),
            (embed, {"max_daily_spend": 1, "cost_per_output_token": 1e-6}),
            (chat, {"max_daily_spend": {"images": 5}, "daily_free": 9}),
            (chat, {}),
        ):
            self.assertEqual(self.warned(call, **settings), [], settings)


if __name__ == "__main__":
    unittest.main()
