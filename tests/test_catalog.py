"""The catalog of providers and of what their models can take."""

from __future__ import annotations

import datetime
import json
import unittest
from typing import Any

from tests import SHARED, part

account = part("account")
catalog = part("catalog")
config = part("config")
errors = part("errors")


class Rows(unittest.TestCase):
    def test_every_row_makes_a_good_account(self) -> None:
        """URL, dialect, reset and limits of each preset are accepted by the configuration as they stand."""
        config.Config(
            accounts=[
                config.AccountConfig(
                    row.name,
                    row.name,
                    base_url=row.base_url,
                    dialect=row.dialect,
                    reset=row.reset if row.reset == "rolling" else "UTC",
                    limits=row.limits,
                    model_limits=row.model_limits,
                )
                for row in catalog.PRESETS.values()
            ]
        )

    def test_every_number_has_a_date_and_a_source(self) -> None:
        """A preset with limits says since when, from where and how sure; no date is in another form."""
        for row in catalog.PRESETS.values():
            for tier in row.free:
                with self.subTest(row.name, models=tier.models):
                    datetime.date.fromisoformat(tier.as_of)
                    self.assertIn(tier.confidence, ("docs", "reported"))
                    self.assertTrue(row.source.startswith("https://"))
                    self.assertTrue(tier.limits)

    def test_no_model_is_limited_twice(self) -> None:
        """No two tiers of a preset name the same model, and at most one is for the whole account."""
        for row in catalog.PRESETS.values():
            models = [model for tier in row.free for model in tier.models or ("",)]
            self.assertEqual(len(models), len(set(models)), row.name)

    def test_no_key_variable_means_two_providers(self) -> None:
        """An environment variable belongs to one provider only."""
        names = [name for row in catalog.PRESETS.values() for name in row.env]
        self.assertEqual(len(names), len(set(names)))

    @unittest.skipIf(SHARED is None, "the collected facts are not here")
    def test_the_numbers_are_the_collected_ones(self) -> None:
        """Each limit of each preset stands in the dated collection, with the same date and confidence."""
        assert SHARED is not None
        rows = json.loads((SHARED / "facts" / "free_tiers.json").read_text())
        for row in catalog.PRESETS.values():
            for tier in row.free:
                for model in tier.models or ("",):
                    with self.subTest(row.name, model=model):
                        self.assertTrue(any(self.same(row.name, model, tier, fact) for fact in rows))

    def same(self, name: str, model: str, tier: Any, fact: dict[str, Any]) -> bool:
        stated = {key: fact[key] for key in ("rpm", "rph", "rpd", "tpm", "tph", "tpd") if fact[key] is not None}
        if fact.get("concurrency"):
            stated["parallel"] = fact["concurrency"]
        if fact["monthly"] is not None:
            stated["rpmonth"] = fact["monthly"]
        limits = dict(tier.limits)
        return (
            fact["provider"] == name
            and (model in ("", "*") or fact["model"] == model)
            and (fact["as_of"], fact["confidence"]) == (tier.as_of, tier.confidence)
            and limits.items() <= stated.items()
        )


class Lookups(unittest.TestCase):
    def test_a_preset_is_found_by_each_of_its_names(self) -> None:
        """Older and other spellings lead to the same preset."""
        for other, name in (("cerebro", "cerebras"), ("xai", "grok"), ("google", "gemini"), ("openai", "openai")):
            self.assertIs(catalog.preset(other), catalog.PRESETS[name])

    def test_an_unknown_preset_is_answered_with_the_nearest(self) -> None:
        """A misspelt name is a ConfigError that offers the right one; a provider that is gone is said to be."""
        with self.assertRaisesRegex(errors.ConfigError, "did you mean 'openrouter'"):
            catalog.preset("openruoter")
        with self.assertRaisesRegex(errors.ConfigError, "shut down"):
            catalog.preset("github-models")

    def test_limits_are_split_by_account_and_model(self) -> None:
        """Tiers without models limit the account, the others their models; without any there are none and no date."""
        cohere, gemini, openai = (catalog.preset(name) for name in ("cohere", "gemini", "openai"))
        self.assertEqual((cohere.limits, cohere.model_limits), ({"rpmonth": 1000}, {"*": {"rpm": 20}}))
        self.assertEqual(gemini.model_limits["gemini-2.5-flash"], {"rpm": 5, "rpd": 20, "tpm": 250_000})
        self.assertEqual((gemini.limits, gemini.reset), ({}, "America/Los_Angeles"))
        self.assertEqual(gemini.as_of, min(tier.as_of for tier in gemini.free))
        self.assertEqual((openai.limits, openai.model_limits, openai.as_of), ({}, {}, ""))

    def test_own_names_are_recognised(self) -> None:
        """A provider declares its own models' names and no other's."""
        rows = [
            ("openai", "gpt-4o-mini", True),
            ("openai", "o3", True),
            ("openai", "o4-mini", True),
            ("openai", "gpt-oss-120b", False),
            ("openai", "ollama-x", False),
            ("gemini", "gemini-2.0-flash", True),
            ("gemini", "models/gemini-2.0-flash", False),
            ("grok", "grok-3-fast", True),
            ("anthropic", "claude-sonnet-4-5", True),
            ("openrouter", "meta-llama/llama-3.3-70b-instruct:free", True),
            ("openrouter", "openai/gpt-4o", False),
            ("ollama", "llama3.2", False),
        ]
        for name, model, expected in rows:
            with self.subTest(name, model=model):
                self.assertEqual(catalog.preset(name).declares(model), expected)


class Abilities(unittest.TestCase):
    def test_known_models_have_known_abilities(self) -> None:
        """What a model takes does not depend on the maker before its name or the tag behind it."""
        rows = [
            ("gemini", "gemini-2.5-flash", "image audio video document tools json", ""),
            ("openrouter", "google/gemini-2.5-flash:free", "image video", ""),
            ("gemini", "gemini-3.1-flash-tts", "text", "image tools"),
            ("google", "gemma-3-27b-it", "image", "tools"),
            ("openai", "gpt-4o", "image document tools json", "audio video"),
            ("openai", "gpt-4o-audio-preview", "audio", "image"),
            ("openai", "o3-mini", "tools", "image"),
            ("openrouter", "openai/o3:free", "image tools", "audio"),
            ("groq", "openai/gpt-oss-120b", "tools json", "image"),
            ("anthropic", "claude-sonnet-4-5", "image document tools json", "audio video"),
            ("grok", "grok-3-fast", "tools", "image"),
            ("own", "Meta-Llama-3.3-70B-Instruct", "tools", "image"),
            ("openai", "text-embedding-3-small", "text", "tools"),
        ]
        for provider, model, able, unable in rows:
            with self.subTest(model):
                found = catalog.capabilities(provider, model)
                self.assertLessEqual(set(able.split()), found)
                self.assertTrue(found.isdisjoint(unable.split()), found)
                self.assertIn("text", found)

    def test_an_unknown_model_is_unknown(self) -> None:
        """A name that no row knows gives None, not an empty set."""
        self.assertIsNone(catalog.capabilities("openai", "some-model"))

    def test_every_row_uses_known_words(self) -> None:
        """No row has a word that the configuration would refuse."""
        for _, pattern, words in part("catalog_models").MODEL_ABILITIES:
            self.assertLessEqual(words, set(account.CAPABILITIES), pattern)


if __name__ == "__main__":
    unittest.main()
