"""The roster: names to slots, slots to buckets, prices to dollars."""

from __future__ import annotations

import threading
import unittest
from typing import Any

from tests import part
from tests.fakes import NOW, FakeProvider, Fixture, alias, an_account

costs = part("costs")
errors, limits, quota, records, routes = part("errors"), part("limits"), part("quota"), part("records"), part("routes")


def shown(route: Any) -> list[str]:
    return [f"{deployment.bound.account.id}:{deployment.model}" for deployment in route.deployments]


class Resolving(unittest.TestCase):
    def test_an_alias_goes_step_by_step_over_the_accounts_in_declared_order(self) -> None:
        """Steps in order, and within a step the provider's accounts in declared order."""
        fixture = Fixture(
            an_account("g1", "gemini"),
            an_account("x1", "grok"),
            an_account("g2", "gemini"),
            models=[alias("fast", "grok/k", "gemini/f")],
        )
        self.assertEqual(shown(fixture.route("fast")), ["x1:k", "g1:f", "g2:f"])

    def test_an_alias_wins_over_everything_else_of_its_name(self) -> None:
        """A name that is an alias is the alias, even where it looks like provider/model or a declared model."""
        fixture = Fixture(
            an_account(),
            an_account("b", "q"),
            models=[alias("p/m", "q/other"), alias("m", "q/n")],
            providers=[FakeProvider("p", ["m"])],
        )
        self.assertEqual(shown(fixture.route("p/m")), ["b:other"])
        self.assertEqual(shown(fixture.route("m")), ["b:n"])

    def test_a_model_that_any_alias_mentions_can_be_named_directly(self) -> None:
        """A model's own name stands for every provider an alias mentions it at, each once."""
        fixture = Fixture(
            an_account(),
            an_account("b", "q"),
            models=[alias("x", "q/m", "p/n"), alias("y", "p/m", "q/m")],
            providers=[FakeProvider("r", [])],
        )
        self.assertEqual(shown(fixture.route("m")), ["b:m", "a:m"])

    def test_a_declared_model_can_be_named_directly(self) -> None:
        """Every provider that declares the name serves it, after those an alias mentions."""
        providers = [FakeProvider("p", ["m"]), FakeProvider("q", ["m", "k"])]
        fixture = Fixture(an_account(), an_account("b", "q"), models=[alias("x", "q/m")], providers=providers)
        self.assertEqual(shown(fixture.route("m")), ["b:m", "a:m"])
        self.assertEqual(shown(fixture.route("k")), ["b:k"])

    def test_provider_slash_model_names_both(self) -> None:
        """provider/model reaches that provider's accounts alone, whatever it declares; the model may hold slashes."""
        fixture = Fixture(an_account(), an_account("b", "q"), providers=[FakeProvider("p", ["x"])])
        self.assertEqual(shown(fixture.route("p/maker/m:free")), ["a:maker/m:free"])
        self.assertEqual(shown(fixture.route("q/m")), ["b:m"])

    def test_a_name_with_a_slash_that_is_declared_is_the_model(self) -> None:
        """A declared name comes before the reading as provider/model."""
        fixture = Fixture(an_account(), an_account("b", "q"), providers=[FakeProvider("q", ["p/m"])])
        self.assertEqual(shown(fixture.route("p/m")), ["b:p/m"])

    def test_the_only_provider_without_declarations_takes_any_name(self) -> None:
        """One provider that declares nothing takes any name; two take none."""
        one = Fixture(an_account(), an_account("b", "q"), providers=[FakeProvider("p", ["x"])])
        self.assertEqual(shown(one.route("whatever")), ["b:whatever"])
        self.assertEqual(one.table.directly_addressable(), {"p", "q"})
        two = Fixture(an_account(), an_account("b", "q"))
        self.assertEqual(two.table.directly_addressable(), frozenset())
        with self.assertRaises(errors.UnknownModelError):
            two.route("whatever")

    def test_a_typo_never_widens(self) -> None:
        """A name nobody has raises UnknownModelError, close matches first and then all known names."""
        fixture = Fixture(
            an_account(), models=[alias("slow", "p/big"), alias("fast", "p/small")], providers=[FakeProvider("p", ["declared"])]
        )
        for name in ("fsat", "decalred", "q/m", "p/", "/m", "p", "FAST"):
            with self.assertRaises(errors.UnknownModelError, msg=name) as caught:
                fixture.route(name)
            self.assertEqual(caught.exception.model, name)
        with self.assertRaises(errors.UnknownModelError) as caught:
            fixture.route("fsat")
        self.assertEqual(caught.exception.known, ("fast", "slow", "big", "small"))

    def test_a_refused_name_is_told_what_it_may_be(self) -> None:
        """A typo is told with the name that is meant; the model of a provider without an account, or the name of one, as that."""
        accounts = (an_account("g", "gemini"), an_account("x", "grok"))
        providers = [FakeProvider("gemini", ["gemini-pro"]), FakeProvider("grok", ["grok-4"])]
        table = Fixture(*accounts, models=[alias("fast", "gemini/openai/gpt-oss-20b", "gemini/claude-mine")], providers=providers)
        absent = "which has no account here (add one); known: "
        rows = {
            "fas": " (did you mean 'fast'?); known: fast, ",
            "gpt-4o-mini": f": it is a model of openai, {absent}",
            "openai/gpt-oss-120b": f": it is a model of groq, {absent}",
            "openai/gpt-oss-20": " (did you mean 'openai/gpt-oss-20b'?); known: ",
            "claude-mien": " (did you mean 'claude-mine'?); known: claude-mine, ",
            "cerebro/m": f": it names cerebras, {absent}",
            "ollama/m": f": it names ollama, {absent}",
            "google/m": " (did you mean 'gemini/m'?); known: ",
            "nope/x": ": no account here is at a provider 'nope'; known: ",
            "gmini/m": ": no account here is at a provider 'gmini' (did you mean 'gemini'?); known: ",
            "\u202e/x": r": no account here is at a provider '\u202e'; known: ",
            f"{'n' * 99}/x": "; known: ",
            "something else": "; known: ",
            "nope/": "; known: ",
        }
        for name, words in rows.items():
            with self.subTest(name), self.assertRaises(errors.UnknownModelError) as caught:
                table.route(name)
            self.assertTrue(str(caught.exception).startswith(f"unknown model {name!r}{words}"), str(caught.exception))

    def said(self, table: Any, name: str) -> str:
        with self.assertRaises(errors.UnknownModelError) as caught:
            table.route(name)
        return str(caught.exception)

    def test_the_variable_of_a_key_is_told_to_whoever_uses_variables(self) -> None:
        """Where the accounts are of the environment's keys, the variable to set is told, and that a paid one must be allowed."""
        table = Fixture(
            an_account("g", "gemini", auth=part("account").Auth("k", "GEMINI_API_KEY")), providers=[FakeProvider("gemini", ["m"])]
        )
        self.assertIn("groq, which has no account here (add one: set GROQ_API_KEY)", self.said(table, "groq/m"))
        paid = "openai, which has no account here (add one: set OPENAI_API_KEY and allow paid use (--paid, or allow_paid))"
        for name in ("gpt-4o-mini", "openai/m"):
            self.assertIn(paid, self.said(table, name))
        self.assertIn("ollama, which has no account here (add one)", self.said(table, "ollama/m"))

    def test_a_name_with_its_maker_may_be_a_model_of_a_provider_of_many(self) -> None:
        """Where a configured provider serves models whose names have a slash, it is told how such a name is written there."""
        router, groq, gemini = (an_account(name, name) for name in ("openrouter", "groq", "gemini"))
        one = Fixture(router, providers=[FakeProvider("openrouter", ["m"])])
        for name in ("x-ai/grok", "google/gemini-3.5-flash", "openai/gpt-4o", "nope/x"):
            self.assertIn(f"; if it is a model of openrouter, write 'openrouter/{name}'", self.said(one, name))
        for name in ("gpt-4o-mini", "nope", "nope/", f"{'n' * 99}/x"):
            self.assertNotIn("openrouter", self.said(one, name))
        self.assertNotIn("write '", self.said(Fixture(gemini, providers=[FakeProvider("gemini", ["m"])]), "x-ai/grok"))
        both = Fixture(groq, router, gemini, providers=[FakeProvider(name, ["m"]) for name in ("groq", "openrouter", "gemini")])
        written = "; if it is a model of groq or openrouter, write 'groq/google/x' or 'openrouter/google/x'"
        self.assertIn(f" (did you mean 'gemini/x'?){written}", self.said(both, "google/x"))

    def test_a_typo_in_small_letters_is_told(self) -> None:
        """A name that differs in its case alone is told with the one that is meant, whichever of them is in capitals."""
        table = Fixture(an_account(), models=[alias("FAST", "p/SMALL")], providers=[FakeProvider("p", ["m"])])
        for name, meant in (("fast", "FAST"), ("small", "SMALL")):
            self.assertIn(f"unknown model {name!r} (did you mean {meant!r}?)", self.said(table, name))

    def test_a_long_name_is_cut(self) -> None:
        """A name beyond 200 characters is refused at once, and no error repeats more of it than before."""
        table = Fixture(
            an_account("g", "gemini"),
            an_account("o", "openrouter"),
            models=[alias("fast", "gemini/m")],
            providers=[FakeProvider("gemini", ["m"]), FakeProvider("openrouter", ["m"])],
        )
        for begin in ("google/", "x-ai/", "gpt-4o", "ollama/"):
            long = f"{begin}{'sk-' * 99}SECRET"
            self.assertEqual(self.said(table, long).partition(";")[0], f"unknown model {long[:197] + '...'!r}", begin)
        short = f"x-ai/{'n' * 195}"
        self.assertIn(f"write 'openrouter/{short}'", self.said(table, short))

    def test_a_providers_own_name_is_no_model(self) -> None:
        """The bare name of the provider that takes any name is refused."""
        with self.assertRaises(errors.UnknownModelError):
            Fixture(an_account()).route("p")

    def test_no_name_is_the_default_model(self) -> None:
        """The empty name is the default, and without one an UnknownModelError that says so."""
        fixture = Fixture(an_account(), models=[alias("fast", "p/m")], default_model="fast")
        self.assertEqual(shown(fixture.route("")), ["a:m"])
        with self.assertRaises(errors.UnknownModelError) as caught:
            Fixture(an_account()).route("")
        self.assertIn("no default_model", str(caught.exception))

    def test_a_step_without_accounts_gives_no_slots(self) -> None:
        """An alias may name a provider that has no account; its plan is then empty."""
        fixture = Fixture(an_account(), models=[alias("x", "q/m")])
        self.assertEqual((fixture.route("x").deployments, fixture.route("x").bucket_keys), ((), ()))

    def test_plans_and_slots_are_made_once(self) -> None:
        """The same name gives the same plan to every thread, and two names of a model share its slot."""
        fixture = Fixture(an_account(), models=[alias("x", "p/m")])
        routes_found: list[Any] = []
        threads = [threading.Thread(target=lambda: routes_found.append(fixture.route("x"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertIs(routes_found[0].deployments[0], routes_found[-1].deployments[0])
        self.assertIs(fixture.route("x"), fixture.route("x"))
        self.assertIs(fixture.route("p/m").deployments[0], routes_found[0].deployments[0])


class Buckets(unittest.TestCase):
    def deployment(self, *accounts: Any, name: str = "p/m", **settings: Any) -> tuple[Fixture, Any]:
        fixture = Fixture(*accounts, **settings)
        return fixture, fixture.route(name).deployments[0]

    def limit(self, fixture: Fixture, key: str) -> Any:
        return fixture.store.headroom((key,), NOW)[0].limit

    def test_every_limit_is_a_bucket(self) -> None:
        """Allowance, account limits, model limits and spend are buckets with their units, and known to the store."""
        fixture, deployment = self.deployment(
            an_account(
                daily_free=100,
                limits={"rpm": 3, "tpd": 5000},
                model_limits={"m": {"rph": 9}, "n": {"rph": 1}},
                paid_enabled=True,
                max_daily_spend=0.5,
                cost_per_input_token=1e-6,
            )
        )
        hard = (("a/rpm", "requests"), ("a/tpd", "tokens"), ("a|m/rph", "requests"))
        self.assertEqual(deployment.free_buckets, (("a/allowance", "requests"), *hard))
        self.assertEqual(deployment.paid_buckets, (*hard, ("a/spend", "dollars")))
        self.assertEqual(deployment.bucket_keys, ("a/allowance", "a/rpm", "a/tpd", "a|m/rph", "a/spend"))
        self.assertEqual(fixture.route().bucket_keys, deployment.bucket_keys)
        self.assertEqual(
            [room.limit.amount for room in fixture.store.headroom(deployment.bucket_keys, NOW)], [100, 3, 5000, 9, 0.5]
        )
        self.assertEqual(str(self.limit(fixture, "a/rpm")), "3 requests per minute")
        self.assertEqual(str(self.limit(fixture, "a/tpd")), "5000 tokens per day")

    def test_an_account_without_limits_has_no_bucket(self) -> None:
        """Nothing stated is nothing counted; where `set_quota` would put an allowance is looked at."""
        _, deployment = self.deployment(an_account())
        self.assertEqual((deployment.free_buckets, deployment.paid_buckets, deployment.bucket_keys), ((), (), ("a/allowance",)))
        self.assertEqual((deployment.allowance, deployment.spends), (None, ()))

    def test_a_star_limits_every_other_model_by_itself(self) -> None:
        """ "*" stands for each model without an entry, each in a bucket of its own."""
        fixture, deployment = self.deployment(an_account(model_limits={"*": {"rpm": 2}, "own": {"rpm": 7}}))
        self.assertEqual(deployment.free_buckets, (("a|m/rpm", "requests"),))
        self.assertEqual(fixture.route("p/n").deployments[0].free_buckets, (("a|n/rpm", "requests"),))
        self.assertEqual(self.limit(fixture, "a|m/rpm").amount, 2)
        fixture.route("p/own")
        self.assertEqual(self.limit(fixture, "a|own/rpm").amount, 7)

    def test_accounts_of_a_group_share_every_bucket(self) -> None:
        """One quota group has one allowance, one of each limit and one spend; holds fall on the group or the account."""
        settings: dict[str, Any] = {"daily_free": 10, "limits": {"rpm": 3}, "model_limits": {"m": {"rpd": 4}}, "quota_group": "g"}
        settings |= {"paid_enabled": True, "max_daily_spend": 1.0, "cost_per_input_token": 1e-6}
        fixture = Fixture(an_account("a", **settings), an_account("b", **settings), an_account("c", daily_free=10))
        first, second, other = fixture.route().deployments
        self.assertEqual(first.bucket_keys, ("group:g/allowance", "group:g/rpm", "group:g|m/rpd", "group:g/spend"))
        self.assertEqual(first.bucket_keys, second.bucket_keys)
        self.assertEqual(other.bucket_keys, ("c/allowance",))
        access = second.bound.access
        self.assertEqual(second.hold_keys, ("b", "group:g", access, "b|m", "group:g|m", f"{access}|m"))
        access = other.bound.access
        self.assertEqual(other.hold_keys, ("c", access, "c|m", f"{access}|m"))
        self.assertEqual(other.embed_hold_keys, ("c", access, "c|m", f"{access} embed|m"))
        fixture.used("group:g/allowance", 10)
        free = {found.account_id for found in fixture.find_candidates().candidates}
        self.assertEqual(free, {"c"})

    def test_the_zone_cuts_days_and_months_only(self) -> None:
        """`reset` is the zone of days and months; minutes and the spend cap stay as they are."""
        zone = "America/Los_Angeles"
        settings: dict[str, Any] = {"reset": zone, "daily_free": 5, "limits": {"rpm": 1, "rpd": 1, "rpmonth": 1}}
        fixture, _ = self.deployment(an_account(**settings, paid_enabled=True, max_daily_spend=1.0, cost_per_input_token=1.0))
        zones = {key: self.limit(fixture, key).zone for key in ("a/rpm", "a/rpd", "a/rpmonth", "a/allowance", "a/spend")}
        self.assertEqual(zones, {"a/rpm": "UTC", "a/rpd": zone, "a/rpmonth": zone, "a/allowance": zone, "a/spend": "UTC"})
        self.assertFalse(self.limit(fixture, "a/rpd").rolling)

    def test_rolling_makes_every_window_rolling(self) -> None:
        """`reset = "rolling"` counts the last day at any moment."""
        fixture, _ = self.deployment(an_account(reset="rolling", daily_free=5, limits={"rpd": 1}))
        self.assertTrue(self.limit(fixture, "a/rpd").rolling)
        self.assertTrue(self.limit(fixture, "a/allowance").rolling)

    def test_spending_is_counted_where_money_may_flow(self) -> None:
        """A paid account with a cap or a price has a spend bucket, without a cap one that is never full."""
        for settings in ({"max_daily_spend": 1.0, "cost_per_input_token": 1.0}, {"paid_enabled": True}):
            self.assertEqual(self.deployment(an_account(**settings))[1].spends, ())
        _, deployment = self.deployment(an_account(paid_enabled=True, max_daily_spend=0.0))
        self.assertEqual(deployment.spends, (("a/spend", "dollars"),))
        fixture, deployment = self.deployment(an_account(paid_enabled=True, cost_per_output_token=1.0))
        self.assertEqual(self.limit(fixture, deployment.spends[0][0]).amount, routes.UNLIMITED)

    def test_an_allowance_set_on_the_store_counts(self) -> None:
        """`set_quota`, early or late, gives an account without daily_free an allowance, and overrules that of one with."""
        store = part("quota_memory").MemoryQuotaStore()
        store.set_quota("a", 500, "tokens")
        fixture = Fixture(an_account("a"), an_account("b", daily_free=3, quota_unit="tokens"), an_account("c"), store=store)
        fixture.route()
        store.set_quota("b", 7, "requests")
        deployments = [
            deployment.with_allowance(self.limit(fixture, deployment.allowance_key)) for deployment in fixture.route().deployments
        ]
        self.assertEqual(
            [deployment.allowance for deployment in deployments], [("a/allowance", "tokens"), ("b/allowance", "requests"), None]
        )
        self.assertEqual(self.limit(fixture, "b/allowance").amount, 7)

    def test_an_allowance_set_on_the_store_survives_its_failure(self) -> None:
        """Where a failing store is ignored, its stand-in knows the allowance too."""

        class Store(part("quota_memory").MemoryQuotaStore):  # type: ignore[misc, name-defined]  # the package is reached by name
            broken = False

            def reserve(self, *args: Any) -> Any:
                if self.broken:
                    raise OSError("gone")
                return super().reserve(*args)

        store = Store()
        store.set_quota("a", 5, "requests")
        fixture = Fixture(an_account("a"), store=store)
        guard = part("guarded_store").GuardedStore(store, "ignore")
        made = routes.RouteTable(fixture.table._config, fixture.providers, fixture.wire, guard)
        made.define_limits(NOW)
        store.broken = True
        self.assertIsInstance(guard.reserve((("a/allowance", 5),), NOW), tuple)
        self.assertIsInstance(guard.reserve((("a/allowance", 1),), NOW), quota.Refusal)

    def test_a_store_that_cannot_say_leaves_the_configured_unit(self) -> None:
        """If the store fails between defining and being asked, the configured unit counts."""

        class Store(part("quota_memory").MemoryQuotaStore):  # type: ignore[misc, name-defined]  # the package is reached by name
            def headroom(self, *args: Any) -> Any:
                raise OSError("gone")

        fixture = Fixture(an_account("a", daily_free=3, quota_unit="tokens"), store=Store())
        self.assertEqual(fixture.route().deployments[0].allowance, ("a/allowance", "tokens"))

    def test_known_keys_of_an_account(self) -> None:
        """`keys_of` lists what the configuration declares and what the models asked for so far have added."""
        store = part("quota_memory").MemoryQuotaStore()
        store.set_quota("b", 7, "requests")
        fixture = Fixture(an_account(limits={"rpm": 3}, model_limits={"*": {"rpd": 4}}), an_account("b"), store=store)
        first, second = fixture.table.bound_accounts
        self.assertEqual(fixture.table.keys_of(first), ("a/rpm", "a/allowance"))
        fixture.route("p/m")
        self.assertEqual(fixture.table.keys_of(first), ("a/rpm", "a/allowance", "a|m/rpd"))
        self.assertEqual(fixture.table.keys_of(second), ("b/allowance",))


class Facts(unittest.TestCase):
    def test_seats_join_account_and_provider(self) -> None:
        """The account's base_url wins over the provider's, without its last slash; a provider's own wire over the transport."""
        own = FakeProvider("q")
        own.wire = wire = object()  # type: ignore[attr-defined]  # optional on purpose
        fixture = Fixture(
            an_account(base_url="https://own.test/v2/", headers={"X-A": "1"}), an_account("b", "q"), providers=[own]
        )
        first, second = fixture.table.bound_accounts
        self.assertEqual((first.endpoint.base_url, second.endpoint.base_url), ("https://own.test/v2", "https://q.test/v1"))
        self.assertIs(first.wire, fixture.wire)
        self.assertIs(second.wire, wire)
        self.assertEqual(dict(first.endpoint.headers), {"X-A": "1"})

    def test_capabilities_are_stated_or_the_catalogs(self) -> None:
        """A list counts for every model, a mapping by name with "*" for the rest; unstated is what the catalog knows."""
        fixture = Fixture(an_account(capabilities={"m": ["text"], "*": ["text", "image"]}))
        self.assertEqual(
            [fixture.route(f"p/{model}").deployments[0].capabilities for model in "mn"], [{"text"}, {"text", "image"}]
        )
        self.assertEqual(Fixture(an_account(capabilities=["tools"])).route().deployments[0].capabilities, {"tools"})
        self.assertIsNone(Fixture(an_account()).route().deployments[0].capabilities)
        self.assertIn("image", Fixture(an_account()).route("p/gpt-4o").deployments[0].capabilities)
        partly = Fixture(an_account(capabilities={"m": ["text"]})).route("p/gpt-4o").deployments[0].capabilities
        self.assertIn("image", partly)

    def test_a_list_of_media_alone_takes_nothing_else_away(self) -> None:
        """Capabilities that name media only add them to text, tools and json; any of those makes the list complete."""
        for stated, expected in ((["image"], {"image", "text", "tools", "json"}), (["image", "json"], {"image", "json"})):
            self.assertEqual(Fixture(an_account(capabilities=stated)).route().deployments[0].capabilities, expected)

    def test_blended_price(self) -> None:
        """An answer counts twice its question; a price that is not stated counts 0, no price at all None."""
        self.assertIsNone(costs.blended_price(an_account()))
        self.assertEqual(costs.blended_price(an_account(cost_per_input_token=3.0)), 1.0)
        self.assertEqual(costs.blended_price(an_account(cost_per_output_token=3.0)), 2.0)
        self.assertEqual(costs.blended_price(an_account(cost_per_input_token=3.0, cost_per_output_token=3.0)), 3.0)

    def test_cost_of_usage(self) -> None:
        """Input, output, cached and media tokens each cost their own price, where it is stated, and input's otherwise."""
        usage = records.Usage(100, 10, 110, cached_tokens=40, input_breakdown={"audio": 20, "image": 5})
        base: dict[str, Any] = {"cost_per_input_token": 1.0, "cost_per_output_token": 10.0}
        rows: list[tuple[dict[str, float], float]] = [
            ({}, 100 + 100),
            ({"cost_per_cached_input_token": 0.5}, 60 + 20 + 100),
            ({"cost_per_audio_input_token": 3.0}, 80 + 60 + 100),
            ({"cost_per_image_input_token": 0.0}, 95 + 100),
            ({"cost_per_video_input_token": 9.0}, 100 + 100),
            ({"cost_per_cached_input_token": 0.5, "cost_per_audio_input_token": 3.0}, 40 + 20 + 60 + 100),
        ]
        for prices, expected in rows:
            self.assertAlmostEqual(costs.cost_of(an_account(**base, **prices), usage), expected, msg=str(prices))
        self.assertEqual(costs.cost_of(an_account(), usage), 0.0)

    def test_more_cached_than_prompt_costs_no_less_than_nothing(self) -> None:
        """A provider that tells more cached tokens than input never makes the plain part negative."""
        odd = records.Usage(10, 0, 10, cached_tokens=50)
        account = an_account(cost_per_input_token=1.0, cost_per_cached_input_token=0.5)
        self.assertEqual(costs.cost_of(account, odd), 5.0)


if __name__ == "__main__":
    unittest.main()
