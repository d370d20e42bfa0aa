"""The router as its user sees it: who is asked, who pays, what it shows of itself, and how it begins and ends."""

from __future__ import annotations

import tempfile
import time
import unittest
from collections import Counter
from pathlib import Path

from tests import ir, part
from tests.cases import PRICE, RouterCase, free, paid
from tests.fakes import ALIAS, HELLO, METHODS, NOON, FakeClock, account, alias_of, make_router, streamed, unary, used

Simulator = part("simulator").Simulator
Fault = part("simulator").Fault

MIDNIGHT = NOON + 12 * 3600


class WhoServes(RouterCase):
    def test_free_first_and_balanced(self) -> None:
        """Free accounts are used up evenly, by share and not by amount, before the paid one is touched."""
        router = self.router(paid("paid"), free("small", 2), free("large", 6), config={"allow_paid": True})
        served = self.served_by(router, 10)
        self.assertEqual(Counter(served[:4]), {"small": 1, "large": 3})
        self.assertEqual(Counter(served[:8]), {"small": 2, "large": 6})
        self.assertEqual(served[8:], ["paid", "paid"])
        answer = router.chat_completion(HELLO)
        self.assertFalse(answer.routing.free)
        usage = answer.usage
        self.assertAlmostEqual(answer.routing.cost, usage.prompt_tokens * 0.001 + usage.completion_tokens * 0.002)
        self.assertAlmostEqual(router.status()["paid"].spend_today, 3 * answer.routing.cost)

    def test_shares_over_units(self) -> None:
        """Allowances in different units are compared by their remaining share."""
        router = self.router(free("requests", 100), free("tokens", 100, "tokens"))
        self.assertEqual(self.served_by(router, 3), ["requests", "tokens", "requests"])

    def test_paid_must_be_allowed(self) -> None:
        """Without allow_paid nobody pays, and the error says what is missing and when the allowance is back."""
        router = self.router(free("a", 1), paid("b"))
        self.assertEqual(self.served_by(router, 1), ["a"])
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(HELLO)
        reasons = {each.account_id: (each.code, each.retry_at) for each in caught.exception.rejections}
        self.assertEqual(reasons, {"a": ("paid_not_allowed", MIDNIGHT), "b": ("paid_not_allowed", None)})
        self.assertEqual(caught.exception.retry_at, MIDNIGHT)
        self.assertIn("allow_paid is false", str(caught.exception))

    def test_own_spill(self) -> None:
        """An account whose allowance is spent goes on as a paid one if it may."""
        router = self.router(free("a", 1, paid_enabled=True, **PRICE), config={"allow_paid": True})
        routings = [router.chat_completion(HELLO).routing for _ in range(2)]
        self.assertEqual([(each.account_id, each.free) for each in routings], [("a", True), ("a", False)])
        self.assertEqual((routings[0].cost, router.status()["a"].used), (0.0, 1))

    def test_what_is_left_does_not_reach(self) -> None:
        """A call that needs more than what is left of the allowance is not free, and the allowance is not overrun."""
        router = self.router(free("a", 100, "tokens", paid_enabled=True, **PRICE), config={"allow_paid": True})
        kinds = [router.chat_completion(HELLO).routing.free for _ in range(5)]
        self.assertEqual(kinds, sorted(kinds, reverse=True))
        self.assertEqual((kinds[0], kinds[-1]), (True, False))
        self.assertTrue(0 < router.status()["a"].used < 100)

    def test_cheapest_paid(self) -> None:
        """Among paid accounts the cheapest serves, input and twice the output taken together."""
        dear = paid("dear", cost_per_input_token=0.0001, cost_per_output_token=0.004)
        router = self.router(dear, paid("cheap"), config={"allow_paid": True})
        self.assertEqual(self.served_by(router, 2), ["cheap", "cheap"])

    def test_spend_cap(self) -> None:
        """A spend cap is never passed, is told as such, and opens again at midnight."""
        clock = FakeClock()
        router = self.router(paid("a", max_daily_spend=0.2), config={"allow_paid": True}, clock=clock)
        spent = 0.0
        with self.assertRaises(ir.NoCandidatesError) as caught:
            for _ in range(20):
                spent += router.chat_completion(HELLO).routing.cost
        self.assertTrue(0 < spent <= 0.2, spent)
        self.assertAlmostEqual(router.status()["a"].spend_today, spent)
        rejection = caught.exception.rejections[0]
        self.assertEqual((rejection.code, rejection.retry_at), ("spend_cap", MIDNIGHT))
        clock.now = MIDNIGHT
        self.assertEqual(router.status()["a"].spend_today, 0)
        self.assertEqual(self.served_by(router, 1), ["a"])

    def test_spend_cap_in_calls(self) -> None:
        """Where no price is known, a cap in calls or tokens stops what is paid, and leaves what is free alone."""
        unknown = {"cost_per_input_token": None, "cost_per_output_token": None}
        for cap, word in (({"requests": 2}, "2 of 2 requests"), ("2 requests", "2 of 2 requests"), ({"tokens": 40}, "tokens")):
            account = paid("a", max_daily_spend=cap, daily_free=1, **unknown)
            router = self.router(account, config={"allow_paid": True})
            served = []
            with self.assertRaises(ir.NoCandidatesError) as caught:
                for _ in range(20):
                    served.append(router.chat_completion(ir.ChatRequest("Hello!", model="chat", max_tokens=5)).routing.free)
            self.assertEqual(served[0], True)
            self.assertTrue(0 < served.count(False) < 10, served)
            (rejection,) = caught.exception.rejections
            self.assertEqual((rejection.code, rejection.retry_at), ("spend_cap", MIDNIGHT))
            self.assertIn(word, rejection.reason)

    def test_a_cap_in_dollars_needs_a_price(self) -> None:
        """A cap that would never be reached, as every call counts as $0, is refused with the three ways out."""
        with self.assertRaises(ir.ConfigError) as caught:
            self.router(paid("a", max_daily_spend=1, cost_per_input_token=None, cost_per_output_token=None))
        (problem,) = caught.exception.problems
        self.assertTrue(problem.startswith("accounts[0].max_daily_spend: "), problem)
        for way in ("cost_per_input_token", "catalog", "requests = 100", "50000 tokens"):
            self.assertIn(way, problem)

    def test_no_spend(self) -> None:
        """A spend cap of 0 dollars lets no paid call through."""
        router = self.router(paid("a", max_daily_spend=0), config={"allow_paid": True})
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(HELLO)
        self.assertIsNone(caught.exception.retry_at)

    def test_hard_limits(self) -> None:
        """Limits hold for free and paid calls alike, and the next account takes over."""
        limits = {"rpd": 2}
        first = ir.AccountConfig("sim", "a", ir.Auth("sk-1"), daily_free=1, limits=limits, paid_enabled=True, **PRICE)
        router = self.router(first, "b", config={"allow_paid": True, "policy": "declared_order"})
        self.assertEqual(self.served_by(router, 4), ["a", "a", "b", "b"])

    def test_least_busy(self) -> None:
        """LeastBusyPolicy goes where the fewest calls are under way, open streams included."""
        router = self.router("a", "b", policy=ir.LeastBusyPolicy())
        with router.stream(HELLO) as stream:
            self.assertEqual(stream.routing.account_id, "a")
            self.assertEqual([state.in_flight for state in router.status().values()], [1, 0])
            self.assertEqual(self.served_by(router, 2), ["b", "b"])
        self.assertEqual(self.served_by(router, 1), ["a"])

    def test_store_sets_quota(self) -> None:
        """An allowance that was set on the store itself counts like a configured one."""
        store = ir.MemoryQuotaStore()
        store.set_quota("a", 1, "requests")
        router = self.router("a", "b", quota_store=store, config={"policy": "declared_order"})
        self.assertEqual(self.served_by(router, 2), ["a", "b"])

    def test_store_sets_quota_later(self) -> None:
        """An allowance that is set while the router is at work counts from then on, in whatever unit."""
        for accounts in (("a", "b"), (free("a", 9), "b")):
            store = ir.MemoryQuotaStore()
            router = self.router(*accounts, quota_store=store, config={"policy": "declared_order"})
            self.assertEqual(self.served_by(router, 2), ["a", "a"])
            store.set_quota("a", 2, "requests")
            self.assertEqual(self.served_by(router, 3)[-1], "b")
            store.set_quota("a", 1, "tokens")
            self.assertEqual(self.served_by(router, 1), ["b"])
            store.set_quota("a", 1_000_000, "tokens")
            self.assertEqual(self.served_by(router, 1), ["a"])
            self.assertEqual(used(router, "a")["allowance"], 11)

    def test_an_allowance_taken_out_of_the_configuration(self) -> None:
        """What a file remembers of an earlier configuration's daily_free makes nothing free any more."""
        with tempfile.TemporaryDirectory() as folder:
            store = ir.SQLiteQuotaStore(Path(folder) / "quota.db")
            self.addCleanup(store.close)
            self.assertEqual(self.served_by(self.router(free("a", 9), quota_store=store), 1), ["a"])
            router = self.router(paid("a"), quota_store=store, config={"allow_paid": True})
            self.assertFalse(router.chat_completion(HELLO).routing.free)
            self.assertNotIn("allowance", used(router, "a"))

    def test_shared_store(self) -> None:
        """Two routers on one store share what is left."""
        store = ir.MemoryQuotaStore()
        one, other = (self.router(free("a", 2), quota_store=store) for _ in range(2))
        self.assertEqual(self.served_by(one, 1) + self.served_by(other, 1), ["a", "a"])
        for router in (one, other):
            with self.assertRaises(ir.NoCandidatesError):
                router.chat_completion(HELLO)

    def test_larger_than_a_bucket(self) -> None:
        """A request that is larger than a whole bucket is refused at once, however long it may wait."""
        clock = FakeClock()
        router = self.router(account("a", provider="sim", limits={"tpm": 20}), clock=clock)
        for method in METHODS.values():
            with self.assertRaises(ir.NoCandidatesError) as caught:
                method(router, max_wait=1000)
            self.assertIsNone(caught.exception.retry_at)
            self.assertIn("more than the whole limit", str(caught.exception))
        self.assertEqual((clock.slept, used(router, "a")), ([], {"tpm": 0}))

    def test_embed(self) -> None:
        """Vectors are routed like answers: a failure moves on, and what was used is charged."""
        router = self.router("a", "b", config={"policy": "declared_order"})
        self.simulator.fail_next(status=503)
        answer = router.embed(ir.EmbedRequest(["one", "two"], model=ALIAS))
        self.assertEqual((len(answer.embeddings), answer.routing.account_id, answer.routing.attempts), (2, "b", 2))
        self.assertEqual(used(router, "a"), {"rpd": 1, "tpd": 0})
        self.assertEqual(used(router, "b"), {"rpd": 1, "tpd": answer.usage.total_tokens})

    def test_embed_in_batches(self) -> None:
        """All batches of a call come from the model that served the first, in order."""
        router = self.router("a")
        texts = [f"text {number}" for number in range(150)]
        before = len(self.simulator.log)
        answer = router.embed(ir.EmbedRequest(texts, model=ALIAS))
        batches = len(self.simulator.log) - before
        single = router.embed(ir.EmbedRequest([texts[120]], model=ALIAS))
        self.assertEqual((len(answer.embeddings), answer.embeddings[120]), (150, single.embeddings[0]))
        self.assertEqual((batches, used(router, "a")["rpd"]), (2, 3))

    def test_embed_passes_by_who_has_none(self) -> None:
        """A step of the alias whose provider has no embeddings is passed by; where it is the only one, the error says so."""
        url = self.url
        providers = [ir.AnthropicProvider(url), ir.OpenAICompatProvider("sim", url)]
        accounts = [ir.AccountConfig("anthropic", "a", ir.Auth("k")), ir.AccountConfig("sim", "b", ir.Auth("sk-1"))]
        steps = ir.ModelMapping(ALIAS, [ir.ModelRef("anthropic", "claude-x"), ir.ModelRef("sim", "second")])
        with ir.Router(ir.Config(accounts, [steps], policy="declared_order"), providers) as router:
            answer = router.embed(ir.EmbedRequest("one", model=ALIAS))
            self.assertEqual((answer.routing.account_id, answer.routing.attempts), ("b", 1))
            with self.assertRaises(ir.InvalidRequestError) as caught:
                router.embed(ir.EmbedRequest("one", model="anthropic/claude-x"))
            self.assertIn("no embeddings", str(caught.exception))

    def test_vectors_are_not_mixed(self) -> None:
        """When the model of the first batch fails later, another account may take over, but no other model."""
        steps = ir.ModelMapping(ALIAS, [ir.ModelRef("sim", "first"), ir.ModelRef("sim", "second")])
        texts = [f"text {number}" for number in range(150)]
        for names, models in ((["a"], ["first", "first"]), (["a", "b"], ["first", "first", "first"])):
            router = self.router(*names, config={"models": [steps], "policy": "declared_order"})
            before = len(self.simulator.log)
            self.simulator.script([None, Fault("status", 404)])
            if len(names) == 1:
                with self.assertRaises(ir.AllCandidatesFailedError):
                    router.embed(ir.EmbedRequest(texts, model=ALIAS))
            else:
                self.assertEqual(router.embed(ir.EmbedRequest(texts, model=ALIAS)).routing.account_id, "b")
            asked = self.simulator.log[before:]
            self.assertEqual([each.model or "first" for each in asked], models)


class Names(RouterCase):
    def test_unknown(self) -> None:
        """A name that nobody knows is an error with close matches first, and widens nothing."""
        provider = ir.OpenAICompatProvider("sim", self.url, models=["m"])
        models = [alias_of("sim", alias="fast"), alias_of("sim", alias="smart")]
        config = ir.Config([account("a", provider="sim")], models)
        with ir.Router(config, [provider], clock=FakeClock()) as router:
            for method in (unary, streamed, lambda router, request: router.explain(request)):
                with self.assertRaises(ir.UnknownModelError) as caught:
                    method(router, ir.ChatRequest("Hello!", model="smrat"))
            self.assertEqual((caught.exception.model, caught.exception.known[0]), ("smrat", "smart"))
            with self.assertRaises(ir.UnknownModelError) as caught:
                unary(router, ir.ChatRequest("Hello!"))
            self.assertIn("no default_model", str(caught.exception))

    def test_forms(self) -> None:
        """An alias, a model's own name, provider/model, and the default model all find their account."""
        router = self.router("a", config={"default_model": ALIAS})
        for name, model in ((ALIAS, "m"), ("m", "m"), ("sim/other", "other"), ("", "m"), ("never-heard-of", "never-heard-of")):
            with self.subTest(name):
                answer = router.chat_completion(ir.ChatRequest("Hello!", model=name))
                self.assertEqual((answer.routing.model, self.simulator.log[-1].model), (model, model))

    def test_steps_in_order(self) -> None:
        """The steps of an alias are tried in their order."""
        steps = ir.ModelMapping(ALIAS, [ir.ModelRef("sim", "first"), ir.ModelRef("sim", "second")])
        router = self.router("a", config={"models": [steps]})
        self.simulator.fail_next(status=404)
        answer = router.chat_completion(HELLO)
        self.assertEqual((answer.routing.model, answer.routing.attempts), ("second", 2))


class Looks(RouterCase):
    def test_explain(self) -> None:
        """explain names candidates in order and every other one with its reason, and neither asks nor reserves."""
        router = self.router(free("a", 3), free("b", 9), free("c", 0), paid("d"), config={"policy": "free_first"})
        self.simulator.fail_next(status=429, headers={"Retry-After": "7"})
        self.assertEqual(self.served_by(router, 1), ["b"])
        before, asked = router.status(), len(self.simulator.log)
        told = router.explain(HELLO)
        self.assertEqual([each.account_id for each in told.candidates], ["b"])
        codes = {each.account_id: each.code for each in told.rejections}
        self.assertEqual(codes, {"a": "held", "c": "paid_not_allowed", "d": "paid_not_allowed"})
        self.assertEqual((router.status(), len(self.simulator.log)), (before, asked))
        self.assertIn("1. sim/b m: free", str(told))
        self.assertEqual(router.chat_completion(HELLO).routing.account_id, told.candidates[0].account_id)

    def test_status(self) -> None:
        """status tells every account's limits, what is used and left, when it resets, its holds, and its spend."""
        second_account = account("b", provider="sim", limits={"rpm": 5, "tpd": 1000})
        router = self.router(free("a", 10), second_account, config={"policy": "declared_order"})
        tokens = router.chat_completion(HELLO).usage.total_tokens
        self.simulator.fail_next(status=429, headers={"Retry-After": "7"})
        second = router.chat_completion(HELLO).usage.total_tokens
        state = router.status()
        self.assertEqual(list(state), ["a", "b"])
        first = state["a"]
        self.assertEqual((first.provider, first.used, first.remaining, first.resets_at), ("sim", 2, 8, MIDNIGHT))
        self.assertEqual([(hold.until, hold.reason) for hold in state["a"].holds], [(NOON + 7, "RateLimited (429)")])
        found = {limit.name: (limit.used, limit.remaining, limit.unit, limit.window) for limit in state["b"].limits}
        self.assertEqual(found, {"rpm": (1, 4, "requests", "minute"), "tpd": (second, 1000 - second, "tokens", "day")})
        self.assertEqual((state["b"].used, state["b"].breaker, state["b"].in_flight, tokens), (None, "closed", 0, second))
        self.assertIn("allowance: 2 of 10 requests per day", str(state["a"]))
        with self.assertRaises(TypeError):
            state["a"] = None

    def test_status_of_model_limits(self) -> None:
        """Limits of a single model are counted and shown by themselves."""
        router = self.router(
            account("a", provider="sim", limits={}, model_limits={"m": {"rpd": 1}}),
            config={"models": [alias_of("sim"), alias_of("sim", alias="other", model="n")]},
        )
        self.assertEqual(self.served_by(router, 1), ["a"])
        with self.assertRaises(ir.NoCandidatesError):
            router.chat_completion(HELLO)
        self.assertTrue(router.chat_completion(ir.ChatRequest("Hello!", model="other")).text)
        self.assertEqual([limit.used for limit in router.status()["a"].limits], [1])

    def test_warnings(self) -> None:
        """What is legal but surprising in a configuration is told as data."""
        router = self.router(paid("a", cost_per_input_token=None, cost_per_output_token=None))
        self.assertIsInstance(router.warnings, tuple)
        self.assertTrue(any("has no price" in each for each in router.warnings), router.warnings)
        self.assertEqual(self.router("b").warnings, ())

    def test_repr_without_keys(self) -> None:
        """Nothing that a router shows of itself holds a key."""
        router = self.router(account("a", provider="sim", auth=ir.Auth("sk-canary")))
        with self.assertRaises(ir.AuthenticationError) as caught:
            router.chat_completion(HELLO)
        error = caught.exception
        shown = f"{router!r} {router.status()} {router.explain(HELLO)} {router._config!r} {error!r} {vars(error)}"
        self.assertNotIn("canary", shown)


class Life(RouterCase):
    def test_close(self) -> None:
        """A closed router refuses every method, closing twice is not an error, and a given store stays open."""
        store = ir.MemoryQuotaStore()
        with self.router("a", quota_store=store) as router:
            router.chat_completion(HELLO)
        router.close()
        for call in (router.chat_completion, router.stream, router.explain):
            with self.assertRaisesRegex(ir.InferRouterError, "closed"):
                call(HELLO)
        self.assertIn("closed", repr(router))
        self.assertEqual(store.headroom(["a/rpd"], NOON)[0].used, 1)

    def test_connections_close(self) -> None:
        """Calls share a kept-alive connection, and closing the router closes it."""
        with Simulator() as simulator:
            with make_router({"a": simulator.base_url}) as router:
                for _ in range(3):
                    router.chat_completion(HELLO)
                    streamed(router)
                server = simulator._server
                self.assertEqual(len(server._open), 1)
            deadline = time.monotonic() + 2
            while server._open and time.monotonic() < deadline:
                time.sleep(0.001)
            self.assertEqual(len(server._open), 0)

    def test_construction_problems(self) -> None:
        """Every problem of a configuration and its providers comes in one ConfigError."""
        with self.assertRaisesRegex(ir.ConfigError, "from_file"):
            ir.Router("inferrouter.toml")
        config = ir.Config([account("a", provider="nobody"), account("b", provider="nowhere")])
        with self.assertRaises(ir.ConfigError) as caught:
            ir.Router(config, [object()])
        self.assertEqual(len(caught.exception.problems), 3)

    def test_from_file(self) -> None:
        """A file alone makes a router: aliases, providers by base_url, limits, and what is surprising in it."""
        text = f"""
default_model = "fast"
[[models]]
alias = "fast"
models = [{{provider = "local", model = "m"}}]
[[accounts]]
provider = "local"
id = "a"
base_url = "{self.url}"
auth.api_key = "sk-1"
daily_free = 1
[[accounts]]
provider = "local"
id = "b"
base_url = "{self.url}"
auth.api_key = "sk-1"
max_daily_spend = 1
"""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "inferrouter.toml")
            path.write_text(text)
            path.chmod(0o644)
            with ir.Router.from_file(path, clock=FakeClock()) as router:
                self.assertEqual(router.chat_completion(ir.ChatRequest("Hello!")).routing.account_id, "a")
                self.assertEqual(router.chat_completion(ir.ChatRequest("Hello!")).routing.account_id, "b")
            self.assertEqual(len([each for each in router.warnings if "read" in each or "spend cap" in each]), 2, router.warnings)
            path.write_text(text.replace("daily_free", "daly_free"))
            with self.assertRaisesRegex(ir.ConfigError, "daly_free.*daily_free"):
                ir.Router.from_file(path)

    def test_from_env(self) -> None:
        """The environment's known keys make a router with the catalog's limits; without one it says what to set."""
        with ir.Router.from_env({"GROQ_API_KEY": "gsk-1", "GEMINI_API_KEY": " key ", "OTHER": "x"}, clock=FakeClock()) as router:
            self.assertEqual(sorted(router.status()), ["gemini", "groq"])
            told = router.explain(ir.ChatRequest("Hello!", model="gemini-2.5-flash"))
            self.assertEqual([each.account_id for each in told.candidates], ["gemini"])
            names = {limit.name.rpartition("/")[2] for limit in router.status()["gemini"].limits}
            self.assertIn("rpd", names)
        with self.assertRaisesRegex(ir.ConfigError, "GROQ_API_KEY"):
            ir.Router.from_env({})

    def test_sqlite_by_configuration(self) -> None:
        """With the sqlite store what is used outlasts the router."""
        with tempfile.TemporaryDirectory() as folder:
            quota = ir.QuotaConfig("sqlite", Path(folder, "quota.db"))
            for served in (True, False):
                with make_router({"sim": self.url}, free("a", 1), config={"quota": quota}) as router:
                    if served:
                        router.chat_completion(HELLO)
                    else:
                        with self.assertRaises(ir.NoCandidatesError):
                            router.chat_completion(HELLO)


if __name__ == "__main__":
    unittest.main()
