"""What is free is used before anything is paid for, also when time passes or other calls take and give back within one call."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import Any

from tests import ir, part
from tests.fakes import ALIAS, HELLO, FakeClock, alias_of

Refusal = part("quota").Refusal
BEFORE_MIDNIGHT = 1_768_521_540.0
"""2026-01-15 23:59:00 UTC."""
PRICES = {"cost_per_input_token": 1e-4, "cost_per_output_token": 1e-4}


def free(name: str, daily: float = 1000, **settings: Any) -> Any:
    return ir.AccountConfig("p" + name, name, daily_free=daily, **{"quota_unit": "requests", **settings})


def paid(name: str) -> Any:
    return ir.AccountConfig("p" + name, name, paid_enabled=True, **PRICES)


def router(clock: FakeClock, providers: dict[str, Any], *accounts: Any, **parts: Any) -> Any:
    config = ir.Config(accounts=accounts, models=[alias_of(*providers)], allow_paid=True)
    return ir.Router(config, list(providers.values()), clock=clock, **parts)


def slow(name: str, clock: FakeClock) -> Any:
    """A provider that answers nothing until the attempt's 120 seconds are over."""
    return ir.MockProvider(name, default=lambda body: ir.MockReply("late", delay_s=500), sleep=clock.sleep)


class TimePasses(unittest.TestCase):
    def test_a_new_day_begins_during_an_attempt(self) -> None:
        """An allowance that came back while another attempt timed out is used for free, not paid for."""
        clock = FakeClock(BEFORE_MIDNIGHT - 600)
        providers = {"pa": slow("pa", clock), "pb": ir.MockProvider("pb")}
        with router(clock, providers, free("a"), free("b", 5, paid_enabled=True, **PRICES)) as it:
            for _ in range(5):
                it.chat_completion(ir.ChatRequest("hi", model="pb/m"))
            clock.now = BEFORE_MIDNIGHT
            routing = it.chat_completion(HELLO).routing
            self.assertEqual((routing.account_id, routing.free, routing.attempts), ("b", True, 2))
            self.assertEqual(it.status()["b"].used, 1)

    def test_a_hold_ends_during_an_attempt(self) -> None:
        """An account that was held for two seconds is asked again before a paid one, once a slow attempt took longer."""
        clock = FakeClock()
        limited = ir.MockProvider("pc", replies=[ir.MockReply(status=429, headers={"Retry-After": "2"}), "served"])
        providers = {"pc": limited, "pa": slow("pa", clock), "pz": ir.MockProvider("pz")}
        with router(clock, providers, free("c"), free("a"), paid("z"), policy=ir.DeclaredOrderPolicy()) as it:
            answer = it.chat_completion(HELLO)
            self.assertEqual((answer.text, answer.routing.account_id, answer.routing.attempts), ("served", "c", 3))

    def test_what_failed_by_itself_is_not_asked_twice(self) -> None:
        """A free account that broke is not free again for this call: the paid one serves."""
        clock = FakeClock()
        broken = ir.MockProvider("pb", default=lambda body: ir.MockReply(status=500))
        providers = {"pb": broken, "pa": slow("pa", clock), "pz": ir.MockProvider("pz")}
        with router(clock, providers, free("b"), free("a"), paid("z"), policy=ir.DeclaredOrderPolicy()) as it:
            routing = it.chat_completion(HELLO).routing
            self.assertEqual((routing.account_id, routing.attempts), ("z", 3))
            self.assertEqual(len(broken.calls), 1)


class GivingBack(ir.MemoryQuotaStore):  # type: ignore[misc, name-defined]  # the package is a value here
    """A store in which another call takes 1,500 of 2,000 tokens just before a reservation, and gives most back just after."""

    taken: Any = None

    def other_takes(self, now: float) -> None:
        self.taken = super().reserve([("f/allowance", 1500.0)], now)

    def reserve(self, wants: Any, now: float) -> Any:
        answer = super().reserve(wants, now)
        if isinstance(answer, Refusal) and self.taken is not None:
            other, self.taken = self.taken, None
            self.commit(other, now, [10.0])
        return answer


class OthersTake(unittest.TestCase):
    def served(self, *others: Any, own: dict[str, Any] | None = None, each_time: bool = False) -> Any:
        """Where a call of 900 tokens goes when another call's tokens come back between refusal and second look."""
        clock, store = FakeClock(), GivingBack()

        class Racing:
            """Free first; right after its first choice, or after each, the other call takes its tokens."""

            chosen = 0

            def select(self, candidates: Any) -> Any:
                self.chosen += 1
                if each_time or self.chosen == 1:
                    store.other_takes(clock.time())
                return ir.FreeFirstPolicy().select(candidates)

        accounts = [free("f", 2000, quota_unit="tokens", **(own or {})), *others]
        providers = {each.provider: ir.MockProvider(each.provider) for each in accounts}
        with router(clock, providers, *accounts, quota_store=store, policy=Racing()) as it:
            return it.chat_completion(ir.ChatRequest("hi", model=ALIAS, max_tokens=900)).routing

    def test_given_back_at_once(self) -> None:
        """A free account whose tokens were another call's for a moment serves, whatever paid accounts there are."""
        cases: dict[str, Callable[[], Any]] = {
            "nobody else": self.served,
            "another is paid": lambda: self.served(paid("z")),
            "it may be paid itself": lambda: self.served(own={"paid_enabled": True, **PRICES}),
        }
        for name, call in cases.items():
            with self.subTest(name):
                routing = call()
                self.assertEqual((routing.account_id, routing.free), ("f", True))

    def test_a_race_that_is_lost_for_ever_ends(self) -> None:
        """Where another call wins each time, this one ends at the paid account after a bounded number of looks."""
        self.assertEqual(self.served(paid("z"), each_time=True).account_id, "z")


class Lender(ir.MemoryQuotaStore):  # type: ignore[misc, name-defined]  # the package is a value here
    """A store in which another call holds what is left of a hard limit; `give_back` ends it."""

    lent: Any = None

    def lend(self, key: str, amount: float, now: float) -> None:
        self.lent = super().reserve([(key, amount)], now)

    def give_back(self, now: float) -> None:
        lent, self.lent = self.lent, None
        if lent is not None:
            self.commit(lent, now, [0.0])


class Refused(unittest.TestCase):
    """What was refused is tried again once it is there: nobody pays, or is refused, while it is."""

    def test_given_back_between_refusal_and_second_look(self) -> None:
        """A hard limit that another call gives back right after it refused this one admits it after all."""
        for limits in ({"tpm": 2000}, {"rpm": 1}):

            class Store(Lender):
                def reserve(self, wants: Any, now: float) -> Any:
                    answer = super().reserve(wants, now)
                    self.give_back(now)
                    return answer

            clock, store = FakeClock(), Store()
            account = ir.AccountConfig("pa", "a", limits=limits)
            with router(clock, {"pa": ir.MockProvider("pa")}, account, quota_store=store) as it:
                store.lend(f"a/{next(iter(limits))}", 1500.0 if "tpm" in limits else 1.0, clock.time())
                self.assertEqual(it.chat_completion(ir.ChatRequest("hi", model=ALIAS, max_tokens=900)).routing.account_id, "a")

    def test_given_back_during_an_attempt(self) -> None:
        """An account that was refused is tried again before a call fails, or pays, once a slow attempt has taken time."""
        for others in ((), (paid("z"),)):
            clock, store = FakeClock(), Lender()

            def late(body: Any, clock: FakeClock = clock, store: Any = store) -> Any:
                clock.sleep(1)
                store.give_back(clock.time())
                return 503

            providers = {"pa": ir.MockProvider("pa"), "pb": ir.MockProvider("pb", default=late), "pz": ir.MockProvider("pz")}
            accounts = [ir.AccountConfig("pa", "a", limits={"rpm": 1}), free("b"), *others]
            with router(clock, providers, *accounts, quota_store=store, policy=ir.DeclaredOrderPolicy()) as it:
                store.lend("a/rpm", 1.0, clock.time())
                routing = it.chat_completion(HELLO).routing
                self.assertEqual((routing.account_id, routing.free, routing.attempts), ("a", True, 2), others)

    def test_always_too_late(self) -> None:
        """A call that others always forestall at a free allowance pays in the end, as it may; one that may not is refused."""

        class Store(ir.MemoryQuotaStore):  # type: ignore[misc, name-defined]  # the package is a value here
            def reserve(self, wants: Any, now: float) -> Any:
                others = super().reserve([("a/allowance", 1000.0)], now) if wants[0][0] == "a/allowance" else None
                answer = super().reserve(wants, now)
                if others is not None:
                    self.commit(others, now, [0.0])
                return answer

        for settings in ({"paid_enabled": True, **PRICES}, {}):
            account = ir.AccountConfig("pa", "a", daily_free=1000, quota_unit="requests", **settings)
            with router(FakeClock(), {"pa": ir.MockProvider("pa")}, account, quota_store=Store()) as it:
                if settings:
                    self.assertFalse(it.chat_completion(HELLO).routing.free)
                else:
                    with self.assertRaises(ir.NoCandidatesError):
                        it.chat_completion(HELLO)

    def test_a_wait_makes_what_was_seen_old(self) -> None:
        """A candidate is assessed again in its turn when a refusal before it was waited for: a new day's allowance is found."""
        clock = FakeClock(BEFORE_MIDNIGHT)

        class Store(ir.MemoryQuotaStore):  # type: ignore[misc, name-defined]  # the package is a value here
            def reserve(self, wants: Any, now: float) -> Any:
                if wants[0][0] == "b/rpmonth":
                    clock.sleep(120)  # as a locked file would
                return super().reserve(wants, now)

        providers = {name: ir.MockProvider(name) for name in ("pb", "pa")}
        accounts = [
            ir.AccountConfig("pb", "b", limits={"rpmonth": 1}),
            ir.AccountConfig("pa", "a", daily_free=1, quota_unit="requests", paid_enabled=True, **PRICES),
        ]
        store = Store()
        with router(clock, providers, *accounts, quota_store=store, policy=ir.DeclaredOrderPolicy()) as it:
            it.chat_completion(ir.ChatRequest("hi", model="pa/m"))
            ir.MemoryQuotaStore.reserve(store, [("b/rpmonth", 1.0)], clock.time())
            routing = it.chat_completion(HELLO).routing
            self.assertEqual((routing.account_id, routing.free), ("a", True))


if __name__ == "__main__":
    unittest.main()
