"""What the catalog puts in where an account says nothing of limits, and that it is said."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

from tests import ir, part
from tests.commands import run
from tests.fakes import NOON, FakeClock

catalog = part("catalog")
assumptions = part("assumptions")


def router(*accounts: Any, providers: Any = None, **settings: Any) -> Any:
    return ir.Router(ir.Config(accounts, **settings), providers, clock=FakeClock())


def groq(**settings: Any) -> Any:
    return ir.AccountConfig("groq", "g", auth=ir.Auth("key"), **settings)


def limits_of(made: Any, model: str = "groq/openai/gpt-oss-20b") -> dict[str, float]:
    """The limits of the account "g" once `model` was looked up."""
    made.explain(ir.ChatRequest("Hi", model=model))
    return {limit.name: limit.amount for limit in made.status()["g"].limits}


class Silent(unittest.TestCase):
    def test_no_word_about_limits_gets_the_catalogs_and_a_warning(self) -> None:
        """A free account at a known provider gets its limits; the warning says how old they are and how to agree or refuse."""
        with router(groq()) as made:
            self.assertEqual(limits_of(made)["openai/gpt-oss-20b/rpd"], 1000)
            told = [text for text in made.warnings if text.startswith("accounts[0].limits: ")]
            self.assertEqual(len(told), 1)
            self.assertEqual(made.assumed, (told[0].partition("; write ")[0],))
            self.assertRegex(told[0], r"rpm 30 .*\(docs, 2026-08-21, of today\)")  # the test's clock is before it
            self.assertIn('limits = "catalog"', told[0])
            self.assertIn("limits = {}", told[0])

    def test_the_age_is_counted(self) -> None:
        """The oldest figure's age in days is told."""
        now = NOON + 300 * 86_400  # 2026-11-11
        found = assumptions.with_catalog(ir.Config([groq()]), (), now)
        self.assertIn("2026-08-21, 82 days old", found.said[0])

    def test_the_providers_own_day(self) -> None:
        """With the limits comes the zone in which the provider's day begins, unless the account names one."""
        gemini = ir.AccountConfig("google", "g", auth=ir.Auth("k"))
        found = assumptions.with_catalog(ir.Config([gemini]), (), NOON).config.accounts[0]
        self.assertEqual((found.reset, found.model_limits), ("America/Los_Angeles", catalog.preset("gemini").model_limits))
        other = ir.AccountConfig("google", "g", auth=ir.Auth("k"), reset="Europe/Berlin")
        self.assertEqual(assumptions.with_catalog(ir.Config([other]), (), NOON).config.accounts[0].reset, "Europe/Berlin")

    def test_whoever_says_anything_is_left_alone(self) -> None:
        """Nothing is assumed of an account with limits, an allowance, a price, an address, or a provider of the caller's own."""
        silent_ones = [
            groq(limits={}),
            groq(limits={"rpm": 5}),
            groq(model_limits={"m": {"rpm": 5}}),
            groq(daily_free=20),
            groq(paid_enabled=True),
            groq(cost_per_input_token=1e-6),
            groq(base_url="https://proxy.example/v1"),
        ]
        for account in silent_ones:
            with router(account) as made:
                self.assertEqual((made.assumed, made._config.accounts), ((), (account,)), account)
        with router(groq(), providers=[ir.MockProvider("groq")]) as made:
            self.assertEqual(made.assumed, ())
        with router(ir.AccountConfig("openai", "o", auth=ir.Auth("k"))) as made:
            self.assertEqual(made.assumed, (), "nothing is free there")


class Asked(unittest.TestCase):
    def test_by_the_word(self) -> None:
        """`limits = "catalog"` gets the limits without a warning, also beside an address of one's own; own model limits win."""
        account = groq(limits="catalog", base_url="https://proxy.example/v1", model_limits={"openai/gpt-oss-20b": {"rpm": 2}})
        with router(account) as made:
            self.assertFalse([text for text in made.warnings if "limits" in text])
            self.assertEqual(len(made.assumed), 1)
            self.assertEqual(limits_of(made), {"openai/gpt-oss-20b/rpm": 2})
            self.assertEqual(limits_of(made, "groq/openai/gpt-oss-120b")["openai/gpt-oss-120b/tpd"], 200_000)

    def test_in_a_file(self) -> None:
        """The word stands in a configuration file like a table does, and an empty table says none."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "c.toml")
            for written, count in (('"catalog"', 4), ("{}", 0), ("{ rpm = 3 }", 1)):
                path.write_text(f'[[accounts]]\nprovider = "groq"\nid = "g"\nauth.api_key = "k"\nlimits = {written}\n')
                path.chmod(0o600)
                with ir.Router.from_file(path, clock=FakeClock()) as made:
                    self.assertEqual(len(limits_of(made)), count, written)

    def test_check_says_what_was_assumed(self) -> None:
        """The check of a file shows the limits that were put in, once, agreed or not, and how old they are."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "c.toml")
            for written, mark in (("", "! "), ('limits = "catalog"', "= ")):
                path.write_text(f'[[accounts]]\nprovider = "groq"\nid = "g"\nauth.api_key = "${{K}}"\n{written}\n')
                ran = run("check", str(path), env={"K": "key"})
                self.assertEqual((ran.code, ran.err), (0, ""))
                shown = [line for line in ran.out.splitlines() if "the catalog's free limits of groq" in line]
                self.assertEqual(len(shown), 1, ran.out)
                self.assertRegex(
                    shown[0], rf"^  {mark}accounts\[0\].limits: account 'g' .*2026-08-21, (\d+ days? old|of today)\)"
                )
                data = json.loads(run("check", str(path), "--json", env={"K": "key"}).out)
                self.assertEqual(len(data["assumed"]), int(mark == "= "))

    def test_what_the_catalog_does_not_have(self) -> None:
        """Asking for limits that the catalog does not have is a problem with its path, as is any other word."""
        for account, words in (
            (
                ir.AccountConfig("openai", "o", limits="catalog"),
                r"accounts\[0\].limits: the catalog has no free limits of 'openai'",
            ),
            (ir.AccountConfig("own", "o", base_url="https://x.example", limits="catalog"), "no free limits of 'own'"),
        ):
            with self.assertRaisesRegex(ir.ConfigError, words):
                router(account)
        with self.assertRaisesRegex(ir.ConfigError, r"accounts\[0\].limits: must be a table"):
            ir.Config([groq(limits="catalogue")])

    def test_a_group_must_agree(self) -> None:
        """Accounts of one group that would get different limits are told so."""
        one, two = groq(quota_group="p"), ir.AccountConfig("groq", "h", auth=ir.Auth("k"), quota_group="p", limits={})
        with self.assertRaisesRegex(ir.ConfigError, r"accounts\[1\].limits: differs|accounts\[1\].model_limits: differs"):
            router(one, two)


class Prices(unittest.TestCase):
    """`prices = "catalog"`."""

    def openai(self, **settings: Any) -> Any:
        return ir.AccountConfig("openai", "o", auth=ir.Auth("k"), paid_enabled=True, prices="catalog", **settings)

    def asked(self, account: Any, model: str, **settings: Any) -> Any:
        reply = ir.MockReply("hi", usage=ir.Usage(1000, 500, 1500))
        config = ir.Config([account], allow_paid=True, **settings)
        made = ir.Router(config, [ir.MockProvider("openai", default=reply)], clock=FakeClock())
        self.addCleanup(made.close)
        return made.chat("Hi", model=f"openai/{model}").routing.cost

    def test_each_model_has_its_own(self) -> None:
        """A call costs what the catalog says of its model, dated snapshots included; a stated price wins."""
        self.assertAlmostEqual(self.asked(self.openai(), "gpt-4o-mini"), 1000 * 0.15e-6 + 500 * 0.6e-6)
        self.assertAlmostEqual(self.asked(self.openai(), "gpt-4o-2024-08-06"), 1000 * 2.5e-6 + 500 * 10e-6)
        self.assertAlmostEqual(self.asked(self.openai(cost_per_input_token=1e-6), "gpt-4o-mini"), 1e-3)
        self.assertEqual(self.asked(self.openai(), "some-model"), 0)

    def test_what_is_used_is_said(self) -> None:
        """The router says which prices it took and how old they are, and does not call the account unpriced."""
        with router(self.openai(max_daily_spend=1), allow_paid=True) as made:
            (said,) = made.assumed
            self.assertFalse([text for text in made.warnings if "price" in text])
        self.assertRegex(said, r"accounts\[0\].prices: .* gpt-4o-mini \(list prices of 2026-03-01, ")

    def test_a_cap_in_dollars_holds(self) -> None:
        """A cap counts the catalog's prices, and a model without one is not called under a cap."""
        account = self.openai(max_daily_spend=0.001)
        self.asked(account, "gpt-4o-mini")
        with self.assertRaisesRegex(ir.NoCandidatesError, "max_daily_spend reached"):
            self.asked(account, "gpt-4o")
        with self.assertRaisesRegex(ir.NoCandidatesError, "the catalog has no price of 'some-model'"):
            self.asked(account, "some-model")

    def test_where_nothing_is_known(self) -> None:
        """Asking for prices that the catalog does not have is a problem, as is any other word."""
        with self.assertRaisesRegex(ir.ConfigError, r"accounts\[0\].prices: the catalog has no prices of 'groq'"):
            router(groq(prices="catalog", limits={}))
        with self.assertRaisesRegex(ir.ConfigError, r"accounts\[0\].prices: is not one of catalog"):
            ir.Config([groq(prices="list")])

    def test_every_price_has_a_source_and_a_date(self) -> None:
        """Each row is of a provider of the catalog, dated, and plausible."""
        for price in part("catalog_prices").PRICES:
            self.assertIn(price.provider, catalog.PRESETS)
            self.assertRegex(price.source + price.as_of, r"^https://\S+2026-\d\d-\d\d$")
            self.assertTrue(0 < price.input <= price.output < 100)

    def test_keys_of_the_environment(self) -> None:
        """A paid account of the environment has the catalog's prices where there are any."""
        with ir.Router.from_env({"OPENAI_API_KEY": "o", "XAI_API_KEY": "x"}, allow_paid=True, clock=FakeClock()) as made:
            self.assertEqual([account.prices for account in made._config.accounts], ["catalog", ""])


if __name__ == "__main__":
    unittest.main()
