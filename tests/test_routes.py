"""The roster: names to slots, slots to buckets, prices to dollars."""

from __future__ import annotations

import threading
import unittest
from typing import Any

from tests import part
from tests.stage import NOW, FakeProvider, Stage, alias, seat

errors, limits, quota, records, roster = part("errors"), part("limits"), part("quota"), part("records"), part("roster")


def shown(plan: Any) -> list[str]:
    return [f"{slot.seat.account.id}:{slot.model}" for slot in plan.slots]


class Resolving(unittest.TestCase):
    def test_an_alias_goes_step_by_step_over_the_accounts_in_declared_order(self) -> None:
        """Steps in order, and within a step the provider's accounts in declared order."""
        stage = Stage(
            seat("g1", "gemini"), seat("x1", "grok"), seat("g2", "gemini"), models=[alias("fast", "grok/k", "gemini/f")]
        )
        self.assertEqual(shown(stage.plan("fast")), ["x1:k", "g1:f", "g2:f"])

    def test_an_alias_wins_over_everything_else_of_its_name(self) -> None:
        """A name that is an alias is the alias, even where it looks like provider/model or a declared model."""
        stage = Stage(
            seat(), seat("b", "q"), models=[alias("p/m", "q/other"), alias("m", "q/n")], providers=[FakeProvider("p", ["m"])]
        )
        self.assertEqual(shown(stage.plan("p/m")), ["b:other"])
        self.assertEqual(shown(stage.plan("m")), ["b:n"])

    def test_a_model_that_any_alias_mentions_can_be_named_directly(self) -> None:
        """A model's own name stands for every provider an alias mentions it at, each once."""
        stage = Stage(
            seat(), seat("b", "q"), models=[alias("x", "q/m", "p/n"), alias("y", "p/m", "q/m")], providers=[FakeProvider("r", [])]
        )
        self.assertEqual(shown(stage.plan("m")), ["b:m", "a:m"])

    def test_a_declared_model_can_be_named_directly(self) -> None:
        """Every provider that declares the name serves it, after those an alias mentions."""
        providers = [FakeProvider("p", ["m"]), FakeProvider("q", ["m", "k"])]
        stage = Stage(seat(), seat("b", "q"), models=[alias("x", "q/m")], providers=providers)
        self.assertEqual(shown(stage.plan("m")), ["b:m", "a:m"])
        self.assertEqual(shown(stage.plan("k")), ["b:k"])

    def test_provider_slash_model_names_both(self) -> None:
        """provider/model reaches that provider's accounts alone, whatever it declares; the model may hold slashes."""
        stage = Stage(seat(), seat("b", "q"), providers=[FakeProvider("p", ["x"])])
        self.assertEqual(shown(stage.plan("p/maker/m:free")), ["a:maker/m:free"])
        self.assertEqual(shown(stage.plan("q/m")), ["b:m"])

    def test_a_name_with_a_slash_that_is_declared_is_the_model(self) -> None:
        """A declared name comes before the reading as provider/model."""
        stage = Stage(seat(), seat("b", "q"), providers=[FakeProvider("q", ["p/m"])])
        self.assertEqual(shown(stage.plan("p/m")), ["b:p/m"])

    def test_the_only_provider_without_declarations_takes_any_name(self) -> None:
        """One provider that declares nothing takes any name; two take none."""
        one = Stage(seat(), seat("b", "q"), providers=[FakeProvider("p", ["x"])])
        self.assertEqual(shown(one.plan("whatever")), ["b:whatever"])
        self.assertEqual(one.roster.direct(), {"p", "q"})
        two = Stage(seat(), seat("b", "q"))
        self.assertEqual(two.roster.direct(), frozenset())
        with self.assertRaises(errors.UnknownModelError):
            two.plan("whatever")

    def test_a_typo_never_widens(self) -> None:
        """A name nobody has raises UnknownModelError, close matches first and then all known names."""
        stage = Stage(
            seat(), models=[alias("slow", "p/big"), alias("fast", "p/small")], providers=[FakeProvider("p", ["declared"])]
        )
        for name in ("fsat", "decalred", "q/m", "p/", "/m", "p", "FAST"):
            with self.assertRaises(errors.UnknownModelError, msg=name) as caught:
                stage.plan(name)
            self.assertEqual(caught.exception.model, name)
        with self.assertRaises(errors.UnknownModelError) as caught:
            stage.plan("fsat")
        self.assertEqual(caught.exception.known, ("fast", "slow", "big", "small"))

    def test_a_providers_own_name_is_no_model(self) -> None:
        """The bare name of the provider that takes any name is refused."""
        with self.assertRaises(errors.UnknownModelError):
            Stage(seat()).plan("p")

    def test_no_name_is_the_default_model(self) -> None:
        """The empty name is the default, and without one an UnknownModelError that says so."""
        stage = Stage(seat(), models=[alias("fast", "p/m")], default_model="fast")
        self.assertEqual(shown(stage.plan("")), ["a:m"])
        with self.assertRaises(errors.UnknownModelError) as caught:
            Stage(seat()).plan("")
        self.assertIn("no default_model", str(caught.exception))

    def test_a_step_without_accounts_gives_no_slots(self) -> None:
        """An alias may name a provider that has no account; its plan is then empty."""
        stage = Stage(seat(), models=[alias("x", "q/m")])
        self.assertEqual((stage.plan("x").slots, stage.plan("x").room_keys), ((), ()))

    def test_plans_and_slots_are_made_once(self) -> None:
        """The same name gives the same plan to every thread, and two names of a model share its slot."""
        stage = Stage(seat(), models=[alias("x", "p/m")])
        plans: list[Any] = []
        threads = [threading.Thread(target=lambda: plans.append(stage.plan("x"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertIs(plans[0].slots[0], plans[-1].slots[0])
        self.assertIs(stage.plan("x"), stage.plan("x"))
        self.assertIs(stage.plan("p/m").slots[0], plans[0].slots[0])


class Buckets(unittest.TestCase):
    def slot(self, *accounts: Any, name: str = "p/m", **settings: Any) -> tuple[Stage, Any]:
        stage = Stage(*accounts, **settings)
        return stage, stage.plan(name).slots[0]

    def limit(self, stage: Stage, key: str) -> Any:
        return stage.store.headroom((key,), NOW)[0].limit

    def test_every_limit_is_a_bucket(self) -> None:
        """Allowance, account limits, model limits and spend are buckets with their units, and known to the store."""
        stage, slot = self.slot(
            seat(
                daily_free=100,
                limits={"rpm": 3, "tpd": 5000},
                model_limits={"m": {"rph": 9}, "n": {"rph": 1}},
                paid_enabled=True,
                max_daily_spend=0.5,
                cost_per_input_token=1e-6,
            )
        )
        hard = (("a/rpm", "requests"), ("a/tpd", "tokens"), ("a|m/rph", "requests"))
        self.assertEqual(slot.free_keys, (("a/allowance", "requests"), *hard))
        self.assertEqual(slot.paid_keys, (*hard, ("a/spend", "dollars")))
        self.assertEqual(slot.room_keys, ("a/allowance", "a/rpm", "a/tpd", "a|m/rph", "a/spend"))
        self.assertEqual(stage.plan().room_keys, slot.room_keys)
        self.assertEqual([room.limit.amount for room in stage.store.headroom(slot.room_keys, NOW)], [100, 3, 5000, 9, 0.5])
        self.assertEqual(str(self.limit(stage, "a/rpm")), "3 requests per minute")
        self.assertEqual(str(self.limit(stage, "a/tpd")), "5000 tokens per day")

    def test_an_account_without_limits_has_no_bucket(self) -> None:
        """Nothing stated is nothing counted; where `set_quota` would put an allowance is looked at."""
        _, slot = self.slot(seat())
        self.assertEqual((slot.free_keys, slot.paid_keys, slot.room_keys), ((), (), ("a/allowance",)))
        self.assertEqual((slot.allowance, slot.spend), (None, None))

    def test_a_star_limits_every_other_model_by_itself(self) -> None:
        """ "*" stands for each model without an entry, each in a bucket of its own."""
        stage, slot = self.slot(seat(model_limits={"*": {"rpm": 2}, "own": {"rpm": 7}}))
        self.assertEqual(slot.free_keys, (("a|m/rpm", "requests"),))
        self.assertEqual(stage.plan("p/n").slots[0].free_keys, (("a|n/rpm", "requests"),))
        self.assertEqual(self.limit(stage, "a|m/rpm").amount, 2)
        stage.plan("p/own")
        self.assertEqual(self.limit(stage, "a|own/rpm").amount, 7)

    def test_accounts_of_a_group_share_every_bucket(self) -> None:
        """One quota group has one allowance, one of each limit and one spend; holds fall on the group or the account."""
        settings: dict[str, Any] = {"daily_free": 10, "limits": {"rpm": 3}, "model_limits": {"m": {"rpd": 4}}, "quota_group": "g"}
        settings |= {"paid_enabled": True, "max_daily_spend": 1.0, "cost_per_input_token": 1e-6}
        stage = Stage(seat("a", **settings), seat("b", **settings), seat("c", daily_free=10))
        first, second, other = stage.plan().slots
        self.assertEqual(first.room_keys, ("group:g/allowance", "group:g/rpm", "group:g|m/rpd", "group:g/spend"))
        self.assertEqual(first.room_keys, second.room_keys)
        self.assertEqual(other.room_keys, ("c/allowance",))
        self.assertEqual(second.hold_keys, ("b", "group:g", "b|m", "group:g|m"))
        self.assertEqual(other.hold_keys, ("c", "c|m"))
        stage.used("group:g/allowance", 10)
        free = {found.account_id for found in stage.survey().candidates}
        self.assertEqual(free, {"c"})

    def test_the_zone_cuts_days_and_months_only(self) -> None:
        """`reset` is the zone of days and months; minutes and the spend cap stay as they are."""
        zone = "America/Los_Angeles"
        settings: dict[str, Any] = {"reset": zone, "daily_free": 5, "limits": {"rpm": 1, "rpd": 1, "rpmonth": 1}}
        stage, _ = self.slot(seat(**settings, paid_enabled=True, max_daily_spend=1.0, cost_per_input_token=1.0))
        zones = {key: self.limit(stage, key).zone for key in ("a/rpm", "a/rpd", "a/rpmonth", "a/allowance", "a/spend")}
        self.assertEqual(zones, {"a/rpm": "UTC", "a/rpd": zone, "a/rpmonth": zone, "a/allowance": zone, "a/spend": "UTC"})
        self.assertFalse(self.limit(stage, "a/rpd").rolling)

    def test_rolling_makes_every_window_rolling(self) -> None:
        """`reset = "rolling"` counts the last day at any moment."""
        stage, _ = self.slot(seat(reset="rolling", daily_free=5, limits={"rpd": 1}))
        self.assertTrue(self.limit(stage, "a/rpd").rolling)
        self.assertTrue(self.limit(stage, "a/allowance").rolling)

    def test_spending_is_counted_where_money_may_flow(self) -> None:
        """A paid account with a cap or a price has a spend bucket, without a cap one that is never full."""
        _, slot = self.slot(seat(max_daily_spend=1.0, cost_per_input_token=1.0))
        self.assertIsNone(slot.spend)
        _, slot = self.slot(seat(paid_enabled=True))
        self.assertIsNone(slot.spend)
        _, slot = self.slot(seat(paid_enabled=True, max_daily_spend=0.0))
        self.assertEqual(slot.spend, "a/spend")
        stage, slot = self.slot(seat(paid_enabled=True, cost_per_output_token=1.0))
        self.assertEqual(self.limit(stage, slot.spend).amount, roster.NO_CAP)

    def test_an_allowance_set_on_the_store_counts(self) -> None:
        """`set_quota`, early or late, gives an account without daily_free an allowance, and overrules that of one with."""
        store = quota.MemoryQuotaStore()
        store.set_quota("a", 500, "tokens")
        stage = Stage(seat("a"), seat("b", daily_free=3, quota_unit="tokens"), seat("c"), store=store)
        stage.plan()
        store.set_quota("b", 7, "requests")
        slots = [slot.counting(self.limit(stage, slot.allowance_key)) for slot in stage.plan().slots]
        self.assertEqual([slot.allowance for slot in slots], [("a/allowance", "tokens"), ("b/allowance", "requests"), None])
        self.assertEqual(self.limit(stage, "b/allowance").amount, 7)

    def test_an_allowance_set_on_the_store_survives_its_failure(self) -> None:
        """Where a failing store is ignored, its stand-in knows the allowance too."""

        class Store(quota.MemoryQuotaStore):  # type: ignore[misc, name-defined]  # the package is reached by name
            broken = False

            def reserve(self, *args: Any) -> Any:
                if self.broken:
                    raise OSError("gone")
                return super().reserve(*args)

        store = Store()
        store.set_quota("a", 5, "requests")
        stage = Stage(seat("a"), store=store)
        guard = part("ledger").Ledger(store, "ignore")
        made = roster.Roster(stage.roster._config, stage.providers, stage.wire, guard)
        made.open(NOW)
        store.broken = True
        self.assertIsInstance(guard.reserve((("a/allowance", 5),), NOW), tuple)
        self.assertIsInstance(guard.reserve((("a/allowance", 1),), NOW), quota.Refusal)

    def test_a_store_that_cannot_say_leaves_the_configured_unit(self) -> None:
        """If the store fails between defining and being asked, the configured unit counts."""

        class Store(quota.MemoryQuotaStore):  # type: ignore[misc, name-defined]  # the package is reached by name
            def headroom(self, *args: Any) -> Any:
                raise OSError("gone")

        stage = Stage(seat("a", daily_free=3, quota_unit="tokens"), store=Store())
        self.assertEqual(stage.plan().slots[0].allowance, ("a/allowance", "tokens"))

    def test_known_keys_of_an_account(self) -> None:
        """`keys_of` lists what the configuration declares and what the models asked for so far have added."""
        store = quota.MemoryQuotaStore()
        store.set_quota("b", 7, "requests")
        stage = Stage(seat(limits={"rpm": 3}, model_limits={"*": {"rpd": 4}}), seat("b"), store=store)
        first, second = stage.roster.seats
        self.assertEqual(stage.roster.keys_of(first), ("a/rpm", "a/allowance"))
        stage.plan("p/m")
        self.assertEqual(stage.roster.keys_of(first), ("a/rpm", "a/allowance", "a|m/rpd"))
        self.assertEqual(stage.roster.keys_of(second), ("b/allowance",))


class Facts(unittest.TestCase):
    def test_seats_join_account_and_provider(self) -> None:
        """The account's base_url wins over the provider's, without its last slash; a provider's own wire over the transport."""
        own = FakeProvider("q")
        own.wire = wire = object()  # type: ignore[attr-defined]  # optional on purpose
        stage = Stage(seat(base_url="https://own.test/v2/", headers={"X-A": "1"}), seat("b", "q"), providers=[own])
        first, second = stage.roster.seats
        self.assertEqual((first.endpoint.base_url, second.endpoint.base_url), ("https://own.test/v2", "https://q.test/v1"))
        self.assertIs(first.wire, stage.wire)
        self.assertIs(second.wire, wire)
        self.assertEqual((first.order, second.order, dict(first.endpoint.headers)), (0, 1, {"X-A": "1"}))

    def test_capabilities_are_stated_or_the_catalogs(self) -> None:
        """A list counts for every model, a mapping by name with "*" for the rest; unstated is what the catalog knows."""
        stage = Stage(seat(capabilities={"m": ["text"], "*": ["text", "image"]}))
        self.assertEqual([stage.plan(f"p/{model}").slots[0].can for model in "mn"], [{"text"}, {"text", "image"}])
        self.assertEqual(Stage(seat(capabilities=["tools"])).plan().slots[0].can, {"tools"})
        self.assertIsNone(Stage(seat()).plan().slots[0].can)
        self.assertIn("image", Stage(seat()).plan("p/gpt-4o").slots[0].can)
        partly = Stage(seat(capabilities={"m": ["text"]})).plan("p/gpt-4o").slots[0].can
        self.assertIn("image", partly)

    def test_a_list_of_media_alone_takes_nothing_else_away(self) -> None:
        """Capabilities that name media only add them to text, tools and json; any of those makes the list complete."""
        for stated, expected in ((["image"], {"image", "text", "tools", "json"}), (["image", "json"], {"image", "json"})):
            self.assertEqual(Stage(seat(capabilities=stated)).plan().slots[0].can, expected)

    def test_blended_price(self) -> None:
        """An answer counts twice its question; a price that is not stated counts 0, no price at all None."""
        self.assertIsNone(roster.blended_price(seat()))
        self.assertEqual(roster.blended_price(seat(cost_per_input_token=3.0)), 1.0)
        self.assertEqual(roster.blended_price(seat(cost_per_output_token=3.0)), 2.0)
        self.assertEqual(roster.blended_price(seat(cost_per_input_token=3.0, cost_per_output_token=3.0)), 3.0)

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
            self.assertAlmostEqual(roster.cost_of(seat(**base, **prices), usage), expected, msg=str(prices))
        self.assertEqual(roster.cost_of(seat(), usage), 0.0)

    def test_more_cached_than_prompt_costs_no_less_than_nothing(self) -> None:
        """A provider that tells more cached tokens than input never makes the plain part negative."""
        odd = records.Usage(10, 0, 10, cached_tokens=50)
        account = seat(cost_per_input_token=1.0, cost_per_cached_input_token=0.5)
        self.assertEqual(roster.cost_of(account, odd), 5.0)


if __name__ == "__main__":
    unittest.main()
