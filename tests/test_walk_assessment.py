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


if __name__ == "__main__":
    unittest.main()
