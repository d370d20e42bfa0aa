"""What is held for a wrong key, a wrong address, or a model that does one thing and not the other; and what ends it."""

from __future__ import annotations

import unittest
from typing import Any

from tests import ir, part
from tests.fakes import EveryHook, FakeClock, account

Simulator = part("simulator").Simulator

KEY, CORRECTED = "sk-wrong-0123456789", "sk-right-9876543210"
TEXTS = ir.EmbedRequest(["one", "two"], model="sim/m")
FREE_AND_EMBED = [
    ir.ModelMapping("free", [ir.ModelRef("gemini", "gemini-3.5-flash")]),
    ir.ModelMapping("embed", [ir.ModelRef("gemini", "gemini-embedding-001")]),
]


class Case(unittest.TestCase):
    def setUp(self) -> None:
        self.clock, self.store, self.meter = FakeClock(), ir.MemoryQuotaStore(), EveryHook()

    def router(self, provider: Any, **settings: Any) -> Any:
        """A router over the one account "a" at `provider`, counting where the others of this test do."""
        config = ir.Config([account("a", provider=provider.name, **settings)], default_model=f"{provider.name}/m")
        router = ir.Router(config, [provider], quota_store=self.store, clock=self.clock, meter=self.meter)
        self.addCleanup(router.close)
        return router


class Keys(Case):
    def test_a_corrected_key_is_asked_at_once(self) -> None:
        """A refused key is held for ten minutes, also from another program; another key of the same account is not."""
        provider = ir.MockProvider("sim", [401])
        with self.assertRaises(ir.AuthenticationError):
            self.router(provider, auth=ir.Auth(KEY)).chat("Hello!")
        again = self.router(provider, auth=ir.Auth(KEY))
        with self.assertRaises(ir.NoCandidatesError):
            again.chat("Hello!")
        self.assertEqual([hold.key for hold in again.status()["a"].holds], ["a"])
        corrected = self.router(provider, auth=ir.Auth(CORRECTED))
        self.assertEqual(corrected.chat("Hello!").text, "mock reply")
        self.assertEqual(corrected.status()["a"].holds, ())
        self.assertEqual(len(provider.calls), 2)

    def test_a_corrected_header_is_another_key(self) -> None:
        """A credential in a header counts as a key does."""
        provider = ir.MockProvider("sim", [401])
        with self.assertRaises(ir.AuthenticationError):
            self.router(provider, headers={"Authorization": KEY}).chat("Hello!")
        self.assertTrue(self.router(provider, headers={"Authorization": CORRECTED}).chat("Hello!").text)

    def test_the_error_says_when_it_ends_and_what_ends_it(self) -> None:
        """Who asks again is told when the hold ends, that a corrected key is asked at once, and what asks the same one again."""
        router = self.router(ir.MockProvider("sim", [401]), auth=ir.Auth(KEY))
        with self.assertRaisesRegex(ir.AuthenticationError, "Check this account's auth.api_key") as first:
            router.chat("Hello!")
        self.assertNotIn("auth_errors", str(first.exception))
        ends = part("moments").clock_in_words(self.clock.now + 600, with_date=False)
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat("Hello!")
        text = str(caught.exception)
        self.assertIn(f"check auth.api_key; the hold ends at {ends}. Correct the key, and it is asked at once", text)
        self.assertIn("doctor asks the same one again", text)
        self.assertNotIn("Waiting does not help", text)

    def test_a_key_of_the_environment_is_named_by_its_variable(self) -> None:
        """Whoever has no configuration file is told which variable to look at."""
        provider = ir.MockProvider("gemini", default=401)
        env = {"GEMINI_API_KEY": KEY, "GEMINI_API_KEY_2": CORRECTED}
        with ir.Router.from_env(env, providers=[provider], clock=self.clock) as router:
            for kind in (ir.AllCandidatesFailedError, ir.NoCandidatesError):
                with self.assertRaises(kind) as caught:
                    router.chat("Hello!", model="gemini/gemini-3.5-flash")
                for variable in env:
                    self.assertRegex(str(caught.exception), rf"(?i)check (the variable )?{variable}\b")
                self.assertNotIn("auth.api_key", str(caught.exception))
            self.assertIn("check the variable GEMINI_API_KEY_2 ", router.warnings[-1])

    def test_limits_stay_with_the_account(self) -> None:
        """What a key is not to blame for, such as a 429, holds the account whatever its key is."""
        with self.assertRaises(ir.AllCandidatesFailedError):
            self.router(ir.MockProvider("sim", [429]), auth=ir.Auth(KEY)).chat("Hello!")
        with self.assertRaises(ir.NoCandidatesError):
            self.router(ir.MockProvider("sim"), auth=ir.Auth(CORRECTED)).chat("Hello!")

    def test_nothing_of_the_key_is_kept(self) -> None:
        """Neither the store's keys nor the events and the status hold any four characters of a key in order."""
        with self.assertRaises(ir.AuthenticationError):
            self.router(ir.MockProvider("sim", [401]), auth=ir.Auth(KEY)).chat("Hello!")
        (held,) = self.store.holds(self.clock.now).values()
        (event,) = self.meter.of("HoldEvent")
        self.assertEqual(event.key, "a")
        for text in (held.key, held.reason, repr(event)):
            self.assertEqual([part for at in range(len(KEY) - 3) if (part := KEY[at : at + 4]) in text], [])

    def test_waking_ends_it(self) -> None:
        """`rest(account, 0)` ends a hold of the key, of the model, and of the model for embeddings."""
        router = self.router(ir.MockProvider("sim", [404, 404, 401]))
        for call in (lambda: router.chat("Hello!"), lambda: router.embed(TEXTS), lambda: router.chat("Hello!", model="sim/n")):
            with self.assertRaises(ir.InferRouterError):
                call()
        self.assertEqual(sorted(hold.key for hold in router.status()["a"].holds), ["a", "a|m", "a|m"])
        router.rest("a", 0)
        self.assertEqual(router.status()["a"].holds, ())
        self.assertTrue(router.chat("Hello!").text)


class Addresses(Case):
    def test_a_corrected_address_is_asked_at_once(self) -> None:
        """A hold for an address at which nothing is served does not count for another address of the same account."""
        with Simulator("openai") as server:
            provider = ir.OpenAICompatProvider("sim", server.base_url)
            with self.assertRaises(ir.AllCandidatesFailedError) as caught:
                self.router(provider, base_url=f"{server.base_url}/nowhere").chat("Hello!")
            self.assertIsInstance(caught.exception.attempts[0].error, ir.AddressNotFoundError)
            with self.assertRaisesRegex(ir.NoCandidatesError, r"\(404\)\. Check base_url; the address is asked again in"):
                self.router(provider, base_url=f"{server.base_url}/nowhere/").chat("Hello!")
            self.assertTrue(self.router(provider).chat("Hello!").text)


class Names(Case):
    def test_a_misspelt_model_is_told_as_such(self) -> None:
        """A provider that takes any name refuses a typo: the error names what may be meant, and later ones do not call it a
        matter of time, though it is asked again."""
        router = self.router(ir.MockProvider("gemini", default=404))
        with self.assertRaisesRegex(ir.AllCandidatesFailedError, r"Did you mean 'gemini-3\.5-flash'\? Else check .* provider\.$"):
            router.chat("Hello!", model="gemini/gemini-3.5-flsh")
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat("Hello!", model="gemini/gemini-3.5-flsh", max_wait=60)
        text = str(caught.exception)
        self.assertRegex(
            text, r"Check the model's name with the provider, .*; the model is asked again in 60 min \(\d\d:\d\d UTC\)\.$"
        )
        self.assertNotIn("max_wait", text)
        self.assertEqual(caught.exception.retry_at, self.clock.now + 3600)

    def test_whom_waiting_brings_is_told_all_the_same(self) -> None:
        """Where another account rests for longer than a misspelt model is held, it is told when that one serves again."""
        config = ir.Config([account("a", provider="gemini"), account("b", provider="sim")], default_model="both")
        models = [ir.ModelMapping("both", [ir.ModelRef("gemini", "gemini-3.5-flsh"), ir.ModelRef("sim", "m")])]
        providers = [ir.MockProvider("gemini", default=404), ir.MockProvider("sim")]
        with ir.Router(part("frozen").replace(config, models=models), providers, clock=self.clock) as router:
            router.rest("b", 7200)
            for _ in range(2):
                with self.assertRaises(ir.InferRouterError) as caught:
                    router.chat("Hello!")
            self.assertRegex(str(caught.exception), r"The soonest is free in 2 h .*: wait \(max_wait=7200 does it for you\)")

    def test_no_guess_is_better_than_a_wild_one(self) -> None:
        """A model that is like none that the catalog knows there is told to be checked, as any is at a provider of one's own."""
        for provider, model in (("gemini", "llama-4"), ("sim", "gemini-3.5-flsh"), ("gemini", "gemini-3.5-flash")):
            with self.assertRaisesRegex(ir.AllCandidatesFailedError, "Check the model's name with the provider"):
                self.router(ir.MockProvider(provider, default=404)).chat("Hello!", model=f"{provider}/{model}")


class Embeddings(Case):
    def test_a_model_that_does_not_embed_still_chats(self) -> None:
        """A 404 for an embedding passes the model over for embeddings alone, and says so."""
        provider = ir.MockProvider("sim", [404])
        router = self.router(provider)
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.embed(TEXTS)
        with self.assertRaisesRegex(ir.NoCandidatesError, r"ModelNotFound \(404\) for embeddings"):
            router.embed(TEXTS)
        self.assertEqual((router.chat("Hello!").text, len(provider.calls)), ("mock reply", 2))
        self.assertIn("a does not embed with 'm'", router.warnings[-1])

    def test_a_model_that_does_not_chat_still_embeds(self) -> None:
        """A 404 for a chat passes the model over for chats alone."""
        router = self.router(ir.MockProvider("sim", [404]))
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat("Hello!")
        with self.assertRaises(ir.NoCandidatesError):
            router.chat("Hello!")
        self.assertEqual(len(router.embed(TEXTS).embeddings), 2)

    def test_a_limit_holds_both(self) -> None:
        """A 429 for an embedding holds the account for chats too."""
        router = self.router(ir.MockProvider("sim", [429]))
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.embed(TEXTS)
        with self.assertRaises(ir.NoCandidatesError):
            router.chat("Hello!")

    def test_without_a_name_the_alias_embed(self) -> None:
        """An embedding that names no model goes to the alias "embed" where there is one, whatever the default model is."""
        provider = ir.MockProvider("gemini")
        config = ir.Config([account("gemini")], FREE_AND_EMBED, default_model="free")
        with ir.Router(config, [provider], clock=self.clock) as router:
            self.assertEqual(router.embed(ir.EmbedRequest(["one"])).routing.model, "gemini-embedding-001")
            self.assertEqual([call.model for call in provider.calls], ["gemini-embedding-001"])

    def test_a_default_that_only_chats_is_not_asked(self) -> None:
        """Without that alias a default model which the catalog knows to chat alone is refused in words, and nobody is asked."""
        provider = ir.MockProvider("gemini")
        config = ir.Config([account("gemini")], FREE_AND_EMBED[:1], default_model="free")
        with ir.Router(config, [provider], clock=self.clock) as router:
            with self.assertRaisesRegex(ir.InvalidRequestError, "the default model 'free' makes no vectors: name one that does"):
                router.embed(ir.EmbedRequest(["one"]))
            self.assertEqual(provider.calls, ())

    def test_those_that_only_chat_are_passed_by(self) -> None:
        """Of an alias with both kinds only those are asked that may make vectors."""
        provider = ir.MockProvider("gemini")
        steps = [ir.ModelRef("gemini", name) for name in ("gemini-3.5-flash", "gemini-embedding-001")]
        config = ir.Config([account("gemini")], [ir.ModelMapping("both", steps)], default_model="both", policy="declared_order")
        with ir.Router(config, [provider], clock=self.clock) as router:
            self.assertEqual(router.embed(ir.EmbedRequest(["one"])).routing.model, "gemini-embedding-001")
        self.assertEqual([call.model for call in provider.calls], ["gemini-embedding-001"])

    def test_other_defaults_are_asked(self) -> None:
        """A default model that the catalog does not know is asked for vectors."""
        self.assertEqual(len(self.router(ir.MockProvider("sim")).embed(ir.EmbedRequest(["one"])).embeddings), 1)


if __name__ == "__main__":
    unittest.main()
