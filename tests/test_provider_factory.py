"""From names to providers: what is brought, what the catalog has, and what the environment holds."""

from __future__ import annotations

import unittest
from typing import Any

from tests import ir, part
from tests.fakes import FakeProvider, an_account

config, errors, mock, registry = part("config"), part("errors"), part("provider_mock"), part("provider_factory")
Anthropic = part("provider_anthropic").AnthropicProvider
Gemini = part("provider_gemini").GeminiProvider
OpenAI = part("provider_openai").OpenAICompatProvider


def providers_for(*accounts: Any, given: Any = None) -> Any:
    return registry.providers_for(config.Config(accounts=accounts), given)


def from_environment(env: dict[str, str]) -> Any:
    return part("environment").config_for(part("environment").accounts_from_env(env).accounts)


class Building(unittest.TestCase):
    def problems(self, *accounts: Any, given: Any = None) -> list[str]:
        with self.assertRaises(errors.ConfigError) as caught:
            providers_for(*accounts, given=given)
        return list(caught.exception.problems)

    def test_the_catalog_gives_each_provider_its_class_and_address(self) -> None:
        """Known names get their dialect's class under their own name, at the catalog's address."""
        found = providers_for(*(an_account(name, name) for name in ("openai", "gemini", "anthropic", "grok", "cerebro")))
        self.assertEqual(
            {name: type(made) for name, made in found.items() if type(made) is not OpenAI},
            {"gemini": Gemini, "anthropic": Anthropic},
        )
        self.assertEqual([made.name for made in found.values()], list(found))
        self.assertEqual(found["openai"].base_url, "https://api.openai.com/v1")
        self.assertEqual(found["cerebro"].base_url, "https://api.cerebras.ai/v1")
        self.assertTrue(found["grok"].declares("grok-3"))

    def test_an_unknown_name_with_a_base_url_speaks_the_stated_dialect(self) -> None:
        """Without a dialect it is OpenAI's, and it declares nothing."""
        url = "https://own.test/v1"
        for dialect, kind in ((None, OpenAI), ("openai", OpenAI), ("gemini", Gemini), ("anthropic", Anthropic)):
            made = providers_for(an_account("a", "own", base_url=url, dialect=dialect))["own"]
            self.assertEqual((type(made), made.name, made.base_url), (kind, "own", url))
        self.assertIsNone(providers_for(an_account("a", "own", base_url=url))["own"].declares("m"))

    def test_an_account_may_speak_another_dialect_than_the_catalogs(self) -> None:
        """The account's dialect wins over the catalog's."""
        url = "https://own.test/v1beta/openai"
        made = providers_for(an_account("a", "gemini", base_url=url, dialect="openai"))["gemini"]
        self.assertEqual((type(made), made.name, made.base_url), (OpenAI, "gemini", url))

    def test_a_known_name_at_another_address_keeps_its_preset(self) -> None:
        """A base_url of one account does not take the declared models from the provider."""
        made = providers_for(an_account("a", "openai", base_url="https://proxy.test/v1"))["openai"]
        self.assertTrue(made.declares("gpt-4o"))

    def test_what_is_brought_wins(self) -> None:
        """A provider that was handed in serves its name, and is kept though no account uses it."""
        own, idle = FullProvider("openai"), FullProvider("idle")
        found = providers_for(an_account("a", "openai"), given=(made for made in (own, idle)))
        self.assertEqual(found, {"openai": own, "idle": idle})
        self.assertEqual(providers_for(an_account("a", "mock"), given=[mock.MockProvider()])["mock"].name, "mock")

    def test_every_problem_is_listed(self) -> None:
        """Things that are not providers, names that are taken, and unknown names come in one error."""
        given = [FullProvider("x"), FullProvider("x"), FakeProvider("half"), object()]
        found = self.problems(an_account("a", "openia"), given=given)
        self.assertIn("providers[1]: the name 'x' is taken", found[0])
        self.assertIn("providers[2]: FakeProvider is not a provider: it has no 'encode'", found[1])
        self.assertIn("providers[3]: object is not a provider: it has no 'name'", found[2])
        self.assertIn("accounts[0].provider: 'openia' is not a known provider", found[3])
        self.assertEqual(len(found), 4)

    def test_one_provider_instead_of_a_list(self) -> None:
        """A single provider, or anything else that is not a list, is a ConfigError."""
        for given in (FullProvider("x"), 5):
            self.assertIn("providers: must be a list of providers", self.problems(an_account("a", "openai"), given=given)[0])

    def test_a_class_is_no_provider(self) -> None:
        """Handing in the class instead of an object is told."""
        self.assertIn("is the class OpenAICompatProvider", self.problems(an_account("a", "openai"), given=[OpenAI])[0])


class Made(unittest.TestCase):
    def test_an_address_that_is_none(self) -> None:
        """A provider of any dialect refuses an address that is none when it is made, and does not repeat a password in it."""
        makers = (lambda url: ir.OpenAICompatProvider("x", url), ir.GeminiProvider, ir.AnthropicProvider)
        for make in makers:
            for url in ("", "localhost:8080/v1", "ftp://host/v1", "https://user:canary@host/v1", "https://", None):
                with self.subTest(make=make, url=url), self.assertRaisesRegex(ir.ConfigError, "base_url") as caught:
                    make(url)
                self.assertNotIn("canary", str(caught.exception))
            self.assertEqual(make("http://lan.example/v1/").base_url, "http://lan.example/v1")

    def test_one_model_as_a_string(self) -> None:
        """One name or pattern needs no list, in any dialect, and what is neither is a ConfigError."""
        url = "https://host/v1"
        makers = (lambda models: ir.OpenAICompatProvider("x", url, models), lambda models: ir.GeminiProvider(url, "x", models))
        for make in makers:
            self.assertEqual([make("house-*").declares(name) for name in ("house-1", "h")], [True, False])
            for wrong in (5, [5]):
                with self.assertRaisesRegex(ir.ConfigError, "models"):
                    make(wrong)


class Environment(unittest.TestCase):
    def test_known_keys_become_free_accounts(self) -> None:
        """Each known key gives one account with the catalog's limits and reset, the first variable winning."""
        found = from_environment({"GOOGLE_API_KEY": "k1", "GROQ_API_KEY": " k2\n", "PATH": "/bin", "XAI_API_KEY": " "})
        accounts = {account.id: account for account in found.accounts}
        self.assertEqual(set(accounts), {"gemini", "groq"})
        row = part("catalog").preset("gemini")
        gemini = accounts["gemini"]
        self.assertEqual((gemini.provider, gemini.model_limits, gemini.reset), ("gemini", row.model_limits, row.reset))
        self.assertEqual(accounts["groq"].auth.api_key, "k2")
        both = from_environment({"GOOGLE_API_KEY": "second", "GEMINI_API_KEY": "first"})
        self.assertEqual(both.accounts[0].auth.api_key, "first")
        self.assertFalse(found.allow_paid)

    def test_every_known_key_gives_a_usable_account(self) -> None:
        """All keys at once make a configuration whose providers can all be built."""
        names = [row.env[0] for row in part("catalog").PRESETS.values() if row.env]
        found = from_environment(dict.fromkeys(names, "key-0123"))
        self.assertEqual(len(found.accounts), len(names))
        self.assertEqual(len(registry.providers_for(found, None)), len(names))

    def test_no_key_is_told_with_the_names(self) -> None:
        """An environment without keys raises ConfigError that lists the variables."""
        with self.assertRaises(errors.ConfigError) as caught:
            from_environment({"OPENAI_API_KEY": ""})
        for name in ("OPENAI_API_KEY", "GEMINI_API_KEY", "ANTHROPIC_API_KEY"):
            self.assertIn(name, str(caught.exception))

    def test_a_key_that_is_none_is_a_problem_and_not_shown(self) -> None:
        """A key with a blank inside is refused without its value."""
        with self.assertRaises(errors.ConfigError) as caught:
            from_environment({"OPENAI_API_KEY": "canary key"})
        self.assertNotIn("canary", str(caught.exception))


class FullProvider(FakeProvider):
    """A provider with every part that the contract names."""

    encode = decode = decoder = error = None


class Warnings(unittest.TestCase):
    def test_no_key_and_no_such_default(self) -> None:
        """A known provider without its key, and a default model nobody serves, are told before the first call."""
        accounts = [ir.AccountConfig(provider="groq", id="a", limits={}), ir.AccountConfig(provider="ollama", id="b")]
        models = [ir.ModelMapping("fast", [ir.ModelRef("groq", "m"), ir.ModelRef("ollama", "m")])]
        with ir.Router(ir.Config(accounts=accounts, models=models, default_model="fsat")) as router:
            self.assertIn("accounts[0].auth: account 'a' has no api_key, which 'groq' asks for", router.warnings)
            self.assertTrue(any(text.startswith("default_model: unknown model 'fsat'") for text in router.warnings))
            self.assertEqual(len(router.warnings), 2)
        keyed = [ir.AccountConfig(provider="groq", id="a", auth=ir.Auth("k"), limits={}), accounts[1]]
        with ir.Router(ir.Config(accounts=keyed, models=models, default_model="fast")) as router:
            self.assertEqual(router.warnings, ())


if __name__ == "__main__":
    unittest.main()
