"""`Router.from_env` serves without a model name, over every key it finds, with nothing silent."""

from __future__ import annotations

import logging
import os
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from tests import ir, part
from tests.fakes import FakeClock

environment = part("environment")
catalog = part("catalog")

KEYS = {"GEMINI_API_KEY": "g-1", "GROQ_API_KEY": "q-1", "OPENROUTER_API_KEY": "o-1", "CEREBRAS_API_KEY": "c-1"}
BEST = "gemini-3.8-flash"


def mocks(*names: str, default: Any = "hi") -> list[Any]:
    """Providers in process, under the catalog's names."""
    return [ir.MockProvider(name, default=default) for name in names]


def pool(env: dict[str, str] | None = None, **options: Any) -> Any:
    """A router over the keys of `env`, whose providers answer in process."""
    options.setdefault("clock", FakeClock())
    options.setdefault("providers", mocks("gemini", "groq", "openrouter", "cerebras"))
    return ir.Router.from_env(KEYS if env is None else env, **options)


class Aliases(unittest.TestCase):
    def names(self, env: dict[str, str], alias: str, **options: Any) -> list[str]:
        with pool(env, **options) as router:
            return [f"{each.provider}/{each.model}" for each in router.explain(ir.ChatRequest("Hi", model=alias)).candidates]

    def test_a_key_is_enough(self) -> None:
        """A request that names no model is served by the best free one."""
        with pool() as router:
            self.assertEqual(router.chat_completion(ir.ChatRequest("Why is the sky blue?")).routing.model, BEST)
            self.assertEqual(router.warnings, ())

    def test_free_is_every_free_chat_model_best_first(self) -> None:
        """The alias holds each chat model of the catalog at the providers with keys, by tier, and no other."""
        with pool() as router:
            found = router.explain(ir.ChatRequest("Hi", model="free")).candidates
        self.assertEqual(
            [(each.provider, each.model) for each in found],
            [
                (each.provider, each.model)
                for each in catalog.OFFERS
                if each.provider in router._routes.providers and not each.embeds
            ],
        )
        tiers = [each.tier for each in found]
        self.assertEqual(tiers, sorted(tiers))
        limited = {model for name in ("gemini", "groq", "cerebras") for model in catalog.preset(name).model_limits}
        without = limited - {each.model for each in found}
        self.assertEqual(without, {"gemini-embedding-001", "openai/gpt-oss-safeguard-20b"}, "all others chat")

    def test_explain_shows_the_order_and_the_tier(self) -> None:
        """The dry run says which tier each model is of."""
        with pool() as router:
            shown = str(router.explain(ir.ChatRequest("Hi")))
        self.assertIn(f"1. gemini/gemini {BEST}: free, tier 1, 100% left", shown)

    def test_the_other_aliases(self) -> None:
        """`fast` begins with the fastest, `smart` has tiers 1 and 2, `vision` what sees, `embed` what makes vectors."""
        self.assertEqual(
            self.names(KEYS, "fast")[:3], ["cerebras/gpt-oss-120b", "groq/openai/gpt-oss-20b", "groq/openai/gpt-oss-120b"]
        )
        smart = self.names(KEYS, "smart")
        self.assertEqual({catalog.offer(*name.split("/", 1)).tier for name in smart}, {1, 2})
        vision = self.names(KEYS, "vision")
        self.assertIn("openrouter/openrouter/free", vision)
        self.assertFalse([name for name in vision if "gpt-oss" in name or "qwen" in name])
        self.assertEqual(self.names(KEYS, "embed"), ["gemini/gemini-embedding-001"])

    def test_an_alias_without_models_does_not_exist(self) -> None:
        """With a key that has no vectors there is no `embed`, and the error names what there is."""
        with pool({"GROQ_API_KEY": "q"}) as router, self.assertRaisesRegex(ir.UnknownModelError, "known: .*free"):
            router.embed(ir.EmbedRequest("text", model="embed"))

    def test_paid_keys_come_last_and_only_when_allowed(self) -> None:
        """`free` never costs; with paid use allowed the default is `any`, in which what costs comes last."""
        env = {"GEMINI_API_KEY": "g", "OPENAI_API_KEY": "o"}
        providers = [*mocks("gemini", "openai")]
        self.assertFalse([name for name in self.names(env, "", providers=providers) if "openai" in name])
        found = self.names(env, "", providers=providers, allow_paid=True)
        self.assertEqual([name.split("/")[0] for name in found][-2:], ["openai", "openai"])
        self.assertEqual(found[0], f"gemini/{BEST}")
        self.assertFalse([name for name in self.names(env, "free", providers=providers, allow_paid=True) if "openai" in name])

    def test_a_model_that_costs_is_not_free_because_its_provider_has_free_ones(self) -> None:
        """At a provider that gives some models for free, the others are in no alias of a key; one call at a time is kept."""
        with pool({"ZAI_API_KEY": "z"}, providers=mocks("zai")) as router:
            found = router.explain(ir.ChatRequest("Hi", model="free")).candidates
            self.assertEqual([each.model for each in found], ["glm-4.7-flash", "glm-4.6v-flash"])
            self.assertEqual(router.chat("Hi").routing.model, "glm-4.7-flash")
            self.assertIn("parallel: 0 of 1 calls at once", str(router.status()))
        dear = catalog.Offer("zai", "glm-5.2", 1, "https://z.ai", "2026-07-24")
        with mock.patch.object(environment, "OFFERS", [dear, *catalog.OFFERS]):
            with pool({"ZAI_API_KEY": "z"}, providers=mocks("zai")) as router:
                self.assertEqual(router.chat("Hi").routing.model, "glm-4.7-flash")

    def test_every_offer_has_its_place(self) -> None:
        """Each offer has a tier, a dated source and a provider in the catalog, and is listed once, the rated ones best first."""
        pairs = [(each.provider, each.model) for each in catalog.OFFERS]
        self.assertEqual(len(pairs), len(set(pairs)))
        for each in catalog.OFFERS:
            self.assertIn(each.provider, catalog.PRESETS)
            self.assertIn(each.tier, range(1, 6))
            self.assertRegex(each.source, r"^https://")
            self.assertRegex(each.as_of, r"^2026-\d\d-\d\d$")
        tiers = [each.tier for each in catalog.OFFERS if catalog.PRESETS[each.provider].free and not each.embeds]
        self.assertEqual(tiers, sorted(tiers))


class Capacity(unittest.TestCase):
    def test_the_next_model_takes_over_within_its_own_limits(self) -> None:
        """Twenty calls a day of the best model are followed by those of the next, and so on."""
        with pool({"GEMINI_API_KEY": "g"}, max_wait=3600) as router:
            models = [router.chat_completion(ir.ChatRequest("Hi", max_tokens=5)).routing.model for _ in range(60)]
            used = {limit.name: limit.used for limit in router.status()["gemini"].limits}
        self.assertEqual(models[:5], [BEST] * 5, "five a minute")
        self.assertEqual(models[5:10], ["gemini-3.7-flash"] * 5)
        self.assertEqual(sum(used[name] for name in used if name.endswith("rpd")), 60)
        self.assertTrue(
            all(
                used[f"{model}/rpm"] <= limits["rpm"]
                for model, limits in catalog.preset("gemini").model_limits.items()
                if f"{model}/rpm" in used
            )
        )

    def test_balanced_where_the_policy_says_so(self) -> None:
        """With `free_first` by name, the one with the most left goes first."""
        with pool({"GEMINI_API_KEY": "g"}, policy="free_first") as router:
            models = [router.chat_completion(ir.ChatRequest("Hi", max_tokens=5)).routing.model for _ in range(8)]
        self.assertGreaterEqual(len(set(models)), 6)

    def test_further_keys_are_further_accounts(self) -> None:
        """Numbered variables give accounts of their own, which double what is free."""
        env = {"GEMINI_API_KEY": "g-1", "GEMINI_API_KEY_2": "g-2", "GEMINI_API_KEY_10": "g-10"}
        with pool(env) as router:
            self.assertEqual(list(router.status()), ["gemini", "gemini-2", "gemini-10"])
            served = [router.chat_completion(ir.ChatRequest("Hi")).routing for _ in range(15)]
        self.assertEqual({each.model for each in served}, {BEST})
        self.assertEqual(len({each.account_id for each in served}), 3)

    def test_numbered_keys_alone(self) -> None:
        """Numbers need no plain variable before them, and an id does not change when another key goes."""
        found = environment.accounts_from_env({"GROQ_API_KEY_1": "a", "GROQ_API_KEY_3": "b", "GROQ_API_KEY_X": "c"})
        self.assertEqual([account.id for account in found.accounts], ["groq-1", "groq-3"])

    def test_one_key_twice_is_one_account(self) -> None:
        """The same key in two variables counts once, and this is said."""
        with pool({"GEMINI_API_KEY": "g", "GEMINI_API_KEY_2": " g\n"}) as router:
            self.assertEqual(list(router.status()), ["gemini"])
            self.assertEqual(router.warnings, ("GEMINI_API_KEY_2: holds the same key as GEMINI_API_KEY, so it is counted once",))

    def test_another_address(self) -> None:
        """A provider is reached where its _BASE_URL variable says, and this is said; an address that is none is refused."""
        with part("simulator").Simulator("gemini", keys=["g"]) as gemini:
            env = {"GEMINI_API_KEY": "g", "GEMINI_BASE_URL": gemini.base_url}
            with ir.Router.from_env(env) as router:
                self.assertTrue(router.chat_completion(ir.ChatRequest("Hi")).text)
                self.assertEqual(len(router.warnings), 1)
                self.assertIn("GEMINI_BASE_URL", router.warnings[0])
        asked_by_others = {"OPENAI_API_KEY": "o", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
        self.assertIsNone(environment.accounts_from_env(asked_by_others).accounts[0].base_url)
        with self.assertRaisesRegex(ir.ConfigError, "in the clear"):
            ir.Router.from_env({"GEMINI_API_KEY": "g", "GEMINI_BASE_URL": "http://elsewhere.example"})


class Options(unittest.TestCase):
    def test_a_store_by_its_path(self) -> None:
        """Counts in a file outlast the router; a store that is handed in is used as it is."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "quota.sqlite")
            for used in (1, 2):
                with pool(store=path) as router:
                    router.chat_completion(ir.ChatRequest("Hi"))
                    counts = {limit.name: limit.used for limit in router.status()["gemini"].limits}
                    self.assertEqual(counts[f"{BEST}/rpd"], used)
        own = ir.MemoryQuotaStore()
        with pool(store=own) as router:
            router.chat_completion(ir.ChatRequest("Hi"))
        self.assertTrue(own.holds(0) == {}, "it is open still")

    def test_bounds_and_default_model(self) -> None:
        """`max_wait`, `timeout` and `default_model` are those of every call."""
        clock = FakeClock()
        with pool(
            {"GROQ_API_KEY": "q"}, clock=clock, default_model="groq/openai/gpt-oss-20b", max_wait=70, timeout=100
        ) as router:
            for _ in range(31):
                self.assertEqual(router.chat_completion(ir.ChatRequest("Hi", max_tokens=1)).routing.model, "openai/gpt-oss-20b")
        self.assertEqual(len(clock.slept), 1)

    def test_what_is_wrong_is_told(self) -> None:
        """A wrong option is a ConfigError that names it."""
        for options in ({"policy": "best"}, {"auth_errors": "ignore"}, {"max_wait": -1}, {"store": 5}):
            with self.assertRaises(ir.ConfigError) as caught:
                pool(**options)
            self.assertIn(next(iter(options)), str(caught.exception))


class Gone(unittest.TestCase):
    """Models and keys that a provider refuses."""

    def missing(self, body: dict[str, Any]) -> Any:
        return 404 if body["model"] == BEST else "hi"

    def test_a_model_that_answers_404_rests_and_the_next_serves(self) -> None:
        """The call is served by the next model, the missing one is asked once, and it is told once in every place."""
        mock = ir.MockProvider("gemini", default=self.missing)
        with (
            self.assertLogs(part("meter").__name__.rpartition(".")[0], logging.WARNING) as logs,
            pool({"GEMINI_API_KEY": "g"}, providers=[mock], meter=ir.LogMeter()) as router,
        ):
            for _ in range(3):
                self.assertEqual(router.chat_completion(ir.ChatRequest("Hi")).routing.model, "gemini-3.7-flash")
            told = [text for text in router.warnings if BEST in text]
            shown = str(router.status())
        self.assertEqual([call.model for call in mock.calls].count(BEST), 1)
        self.assertEqual(len(told), 1)
        self.assertIn("take it out of 'free'", told[0])
        self.assertEqual(shown.count(told[0]), 1)
        self.assertEqual(sum(told[0] in line for line in logs.output), 1)

    def test_others_are_waited_for(self) -> None:
        """A missing model does not keep the call from waiting for one that is only full."""
        clock = FakeClock()
        env = {"CEREBRAS_API_KEY": "c", "OPENROUTER_API_KEY": "o"}
        gone = ir.MockProvider("openrouter", default=404)
        with pool(env, providers=[gone, *mocks("cerebras")], clock=clock) as router:
            for _ in range(5):
                router.chat_completion(ir.ChatRequest("Hi", model="cerebras/gpt-oss-120b", max_tokens=1))
            answer = router.chat_completion(ir.ChatRequest("Hi", max_tokens=1), max_wait=100)
        self.assertEqual((answer.routing.provider, len(clock.slept)), ("cerebras", 1))

    def test_one_bad_key_of_two(self) -> None:
        """A refused key is passed over, whoever's it is; the message names the setting, and it is told once."""
        mock = ir.MockProvider("gemini", [401], default="hi")
        env = {"GEMINI_API_KEY": "bad", "GEMINI_API_KEY_2": "good"}
        with pool(env, providers=[mock]) as router:
            self.assertEqual(router.chat_completion(ir.ChatRequest("Hi")).routing.account_id, "gemini-2")
            router.chat_completion(ir.ChatRequest("Hi"))
            self.assertEqual(len([text for text in router.warnings if "gemini/gemini was refused" in text]), 1)
            self.assertIn('auth_errors = "raise"', router.warnings[-1])
        with pool(env, providers=[ir.MockProvider("gemini", [401])], auth_errors="raise") as router:
            with self.assertRaisesRegex(ir.AuthenticationError, 'auth_errors = "next"'):
                router.chat_completion(ir.ChatRequest("Hi"))

    def test_a_single_bad_key_is_told_at_once(self) -> None:
        """With one key, a call ends with what the provider said of it."""
        mock = ir.MockProvider("gemini", default=401)
        with pool({"GEMINI_API_KEY": "bad"}, providers=[mock]) as router, self.assertRaises(ir.AuthenticationError):
            router.chat_completion(ir.ChatRequest("Hi"))
        self.assertEqual(len(mock.calls), 1)


class DeadSteps(unittest.TestCase):
    def test_a_step_without_an_account_is_told_once_in_every_place(self) -> None:
        """An alias's step that nobody can serve is in the warnings, the log and the status, once each."""
        models = [ir.ModelMapping("m", [ir.ModelRef("mock", "x"), ir.ModelRef("mokc", "y")])]
        config = ir.Config([ir.AccountConfig("mock", "a")], models)
        with self.assertLogs(part("meter").__name__.rpartition(".")[0], logging.WARNING) as logs:
            with ir.Router(config, [ir.MockProvider()], meter=ir.LogMeter(), clock=FakeClock()) as router:
                for _ in range(2):
                    self.assertTrue(router.chat_completion(ir.ChatRequest("Hi", model="m")).text)
                told = [text for text in router.warnings if "is never taken" in text]
                self.assertEqual(len(told), 1)
                self.assertIn("models[0].models[1].provider", told[0])
                self.assertEqual(str(router.status()).count(told[0]), 1)
        self.assertEqual(sum("is never taken" in line for line in logs.output), 1)


class Configured(unittest.TestCase):
    """The same for a configuration of one's own, where nothing is said about refused keys."""

    def router(self, *accounts: Any, replies: Any = (401,), **settings: Any) -> Any:
        config = ir.Config(accounts, [ir.ModelMapping("m", [ir.ModelRef("one", "x"), ir.ModelRef("two", "x")])], **settings)
        return ir.Router(config, [ir.MockProvider("one", replies), ir.MockProvider("two")], clock=FakeClock())

    def account(self, name: str, provider: str) -> Any:
        return ir.AccountConfig(provider, name)

    def test_another_account_of_the_same_provider_serves(self) -> None:
        """One bad key of two at a provider does not end the call."""
        with self.router(self.account("a", "one"), self.account("b", "one")) as router:
            self.assertEqual(router.chat_completion(ir.ChatRequest("Hi", model="m")).routing.account_id, "b")
            self.assertEqual(len(router.warnings), 1 + 1, router.warnings)  # and the alias has a step without an account

    def test_a_providers_only_key_is_fatal(self) -> None:
        """Where a provider has one account, its refused key ends the call, unless it is said otherwise."""
        accounts = self.account("a", "one"), self.account("b", "two")
        with self.router(*accounts) as router, self.assertRaises(ir.AuthenticationError):
            router.chat_completion(ir.ChatRequest("Hi", model="m"))
        with self.router(*accounts, auth_errors="next") as router:
            self.assertEqual(router.chat_completion(ir.ChatRequest("Hi", model="m")).routing.account_id, "b")
        with self.router(self.account("a", "one"), self.account("b", "one"), auth_errors="raise") as router:
            with self.assertRaises(ir.AuthenticationError):
                router.chat_completion(ir.ChatRequest("Hi", model="m"))


class FromFile(unittest.TestCase):
    def test_options_by_name(self) -> None:
        """`from_file` takes the constructor's parts by name, and refuses what is none."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "c.toml")
            Path(path).write_text('[[accounts]]\nprovider = "mock"\nid = "a"\n')
            with ir.Router.from_file(path, [ir.MockProvider()], clock=FakeClock(), meter=ir.NoopMeter()) as router:
                self.assertEqual(router.chat_completion(ir.ChatRequest("Hi", model="mock/m")).text, "mock reply")
            with self.assertRaises(TypeError):
                ir.Router.from_file(path, [ir.MockProvider()], clokc=FakeClock())


if __name__ == "__main__":
    unittest.main()
