"""What can be asked for now, and whether every account answers."""

from __future__ import annotations

import unittest
from typing import Any

from tests import ir
from tests.fakes import NOON, FakeClock

BEST = "gemini-3.8-flash"


def pool(*replies: Any, clock: Any = None, **options: Any) -> Any:
    env = {"GEMINI_API_KEY": "g", "GROQ_API_KEY": "q", "GROQ_API_KEY_2": "r"}
    providers = [ir.MockProvider("gemini", default="yes"), ir.MockProvider("groq", replies, default="yes")]
    return ir.Router.from_env(env, providers=providers, clock=clock or FakeClock(), **options)


class Models(unittest.TestCase):
    def test_every_model_at_every_account(self) -> None:
        """Each model stands once for each account, with its aliases, its tier, its limits and why it may be asked."""
        with pool() as router:
            rows = router.models()
        self.assertEqual(len({(row.account_id, row.model) for row in rows}), len(rows))
        best = next(row for row in rows if row.model == BEST)
        self.assertEqual((best.provider, best.aliases, best.tier), ("gemini", ("free", "smart", "vision"), 1))
        self.assertEqual(
            {limit.name: limit.amount for limit in best.limits},
            {f"{BEST}/{k}": v for k, v in (("rpm", 5), ("rpd", 20), ("tpm", 250_000))},
        )
        self.assertEqual((best.available, best.free, best.retry_at), (True, True, None))
        self.assertIn("free, 100% of its tightest limit left", best.reason)
        self.assertEqual(len([row for row in rows if row.model == "openai/gpt-oss-20b"]), 2)
        self.assertEqual([row.aliases for row in rows if row.model == "gemini-embedding-001"], [("embed",)])

    def test_what_is_full_says_until_when(self) -> None:
        """A model without room now is not available, with its reason and time."""
        with pool() as router:
            for _ in range(5):
                router.chat("Hi", model=f"gemini/{BEST}", max_tokens=5)
            row = next(row for row in router.models() if row.model == BEST)
        self.assertFalse(row.available)
        self.assertIn("0 of 5 requests per minute left", row.reason)
        self.assertTrue(NOON < row.retry_at <= NOON + 63)
        self.assertEqual([limit.used for limit in row.limits if limit.name.endswith("rpd")], [5])

    def test_without_aliases(self) -> None:
        """A configuration without aliases lists the models that it names."""
        config = ir.Config([ir.AccountConfig("mock", "a", model_limits={"m": {"rpm": 1}})], default_model="mock/x")
        with ir.Router(config, [ir.MockProvider()], clock=FakeClock()) as router:
            self.assertEqual(sorted(row.model for row in router.models()), ["m", "x"])


class Probes(unittest.TestCase):
    def test_one_call_an_account(self) -> None:
        """Each account is asked once, the model with the most calls left, and what works is told; the calls are counted."""
        with pool() as router:
            found = router.probe()
            used = {
                name: sum(limit.used for limit in state.limits if limit.name.endswith("rpd"))
                for name, state in router.status().items()
            }
        self.assertEqual([(each.account_id, each.ok) for each in found], [("gemini", True), ("groq", True), ("groq-2", True)])
        self.assertEqual(used, {"gemini": 1, "groq": 1, "groq-2": 1})
        self.assertNotEqual(found[0].model, BEST, "the best one's twenty calls are not spent on this")
        self.assertIn("gemini/gemini", str(found[0]))

    def test_what_fails_says_what_to_do(self) -> None:
        """A refused key is told at its account, and fails over to nobody."""
        with pool(401, 401) as router:
            found = {each.account_id: each for each in router.probe()}
        self.assertTrue(found["gemini"].ok)
        for name in ("groq", "groq-2"):
            self.assertIsInstance(found[name].error, ir.AuthenticationError)
            self.assertIn("auth.api_key", str(found[name]))

    def test_an_account_without_a_model(self) -> None:
        """Where no model is known, the probe says so and nothing is asked."""
        mock = ir.MockProvider()
        with ir.Router(ir.Config([ir.AccountConfig("mock", "a")]), [mock], clock=FakeClock()) as router:
            (found,) = router.probe(timeout=5)
        self.assertFalse(found.ok)
        self.assertIn("no model of mock is known", str(found))
        self.assertEqual(mock.calls, ())


if __name__ == "__main__":
    unittest.main()
