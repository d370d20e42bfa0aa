"""Outages: a provider that is down is noticed at two accounts, left alone for a short time, and probed by one call."""

from __future__ import annotations

import threading
import unittest
from typing import Any

from tests import ir, part
from tests.cases import RouterCase
from tests.fakes import HELLO, METHODS, EveryHook, FakeClock, account, alias_of, dead_url, threads, used

outage = part("outage")
Simulator = part("simulator").Simulator

REST = outage.REST_S


class Steps(unittest.TestCase):
    def setUp(self) -> None:
        self.outages = outage.Outages()

    def test_two_accounts_make_an_outage(self) -> None:
        """One account's failures are its own; a second account's within a minute, and no later, are an outage."""
        for _ in range(5):
            self.assertIsNone(self.outages.failed("s", "a", 0.0))
        self.assertIsNone(self.outages.failed("s", "b", outage.WITHIN_S + 1))
        self.assertFalse(self.outages.out)
        self.assertEqual(self.outages.failed("s", "a", outage.WITHIN_S + 2), REST)
        self.assertTrue(self.outages.out)
        self.assertEqual(self.outages.wait("s", outage.WITHIN_S + 3), REST - 1)
        self.assertEqual(self.outages.wait("other", 0.0), 0.0)
        self.assertTrue(self.outages.enter("other", 0.0))

    def test_an_answer_in_between(self) -> None:
        """A server that answered in between is not out."""
        self.outages.failed("s", "a", 0.0)
        self.assertTrue(self.outages.suspects)
        self.assertFalse(self.outages.answered("s"))
        self.assertFalse(self.outages.suspects)
        self.assertIsNone(self.outages.failed("s", "b", 1.0))

    def test_one_probe_a_rest(self) -> None:
        """Nobody goes while it rests; then one call, and the next one a rest later; a failure prolongs, an answer ends it."""
        self.outages.failed("s", "a", 0.0)
        self.outages.failed("s", "b", 1.0)
        self.assertFalse(self.outages.enter("s", REST))
        self.assertEqual([self.outages.enter("s", REST + 1) for _ in range(3)], [True, False, False])
        self.assertEqual([self.outages.enter("s", 2 * REST + 1) for _ in range(3)], [True, False, False])
        self.assertEqual(self.outages.failed("s", "a", 2 * REST + 2), REST)
        self.assertFalse(self.outages.enter("s", 3 * REST + 1))
        self.assertTrue(self.outages.enter("s", 3 * REST + 2))
        self.assertTrue(self.outages.answered("s"))
        self.assertEqual([self.outages.enter("s", 3 * REST + 2) for _ in range(3)], [True] * 3)
        self.assertFalse(self.outages.out)

    def test_threads(self) -> None:
        """Of threads that see the end of a rest at one moment exactly one is the probe."""
        gate, met = threading.Barrier(4), threading.local()

        class Meeting(dict[str, float]):
            """Lets all threads read before any goes on."""

            def get(self, *args: Any) -> Any:
                found = super().get(*args)
                if not hasattr(met, "yes"):
                    met.yes = True
                    gate.wait(10)
                return found

        self.outages.failed("s", "a", 0.0)
        self.outages.failed("s", "b", 0.0)
        self.outages.out = Meeting(self.outages.out)
        entered: list[bool] = []
        with threads(4, lambda number: entered.append(self.outages.enter("s", REST))):
            pass
        self.assertEqual(sorted(entered), [False, False, False, True])


class Down(RouterCase):
    """Provider "sim" with many accounts, and "other" behind it."""

    def setUp(self) -> None:
        self.clock, self.meter = FakeClock(), EveryHook()
        self.other = Simulator().start()
        self.addCleanup(self.other.stop)
        self.simulator.script([])

    def both(self, names: str = "abcdef", url: str | None = None) -> Any:
        accounts = [account(name, provider="sim") for name in names] + [account("z", provider="other")]
        config = ir.Config(accounts, [alias_of("sim", "other")], policy="declared_order")
        providers = [ir.OpenAICompatProvider("sim", url or self.url), ir.OpenAICompatProvider("other", self.other.base_url)]
        router = ir.Router(config, providers, clock=self.clock, meter=self.meter)
        self.addCleanup(router.close)
        return router

    def asked(self) -> list[str]:
        accounts = [event.account_id for event in self.meter.routes]
        self.meter.events.clear()
        return accounts

    def test_no_call_burns_through_every_account(self) -> None:
        """A server that answers 503 costs two of its accounts a request; the call goes on elsewhere, and so do the next ones."""
        for status in (503, 529):
            for method in METHODS.values():
                for names in ("abcdef", "abcdefghijkl"):  # over many deployments assessments are kept
                    router = self.both(names)
                    self.simulator.fail_next(2, status=status)
                    self.assertEqual(method(router).routing.account_id, "z")
                    self.assertEqual(self.asked(), ["a", "b", "z"])
                    self.assertEqual(method(router).routing.account_id, "z")
                    self.assertEqual(self.asked(), ["z"])
                    self.assertEqual([used(router, name)["rpd"] for name in "abcz"], [1, 1, 0, 2])

    def test_refused_connections(self) -> None:
        """A server that is not there is an outage too, and costs nothing."""
        router = self.both(url=dead_url())
        self.assertEqual(router.chat_completion(HELLO).routing.account_id, "z")
        self.assertEqual(self.asked(), ["a", "b", "z"])
        self.assertEqual(used(router, "a")["rpd"], 0)

    def test_it_comes_back_by_one_probe(self) -> None:
        """After the rest one call probes the provider: if it fails all others stay away, if it answers everyone is back."""
        router = self.both()
        self.simulator.fail_next(3, status=503)
        router.chat_completion(HELLO)
        self.clock.advance(REST)
        self.asked()
        self.assertEqual(router.chat_completion(HELLO).routing.account_id, "z")
        self.assertEqual(self.asked(), ["a", "z"])
        self.clock.advance(REST - 1)
        router.chat_completion(HELLO)
        self.assertEqual(self.asked(), ["z"])
        self.clock.advance(1)
        self.assertEqual(router.chat_completion(HELLO).routing.provider, "sim")
        self.assertFalse(router._runtime.health.outages.out)

    def test_other_failures_are_no_outage(self) -> None:
        """A 500 is an account's failure, and a 429 an answer: every account is tried."""
        for statuses in ((500,) * 3, (429,) * 3, (503, 429, 503)):
            router = self.both("abc")
            for status in statuses:
                self.simulator.fail_next(status=status)
            self.assertEqual(router.chat_completion(HELLO).routing.account_id, "z")
            self.assertEqual(self.asked(), ["a", "b", "c", "z"])

    def test_it_is_told_and_shown(self) -> None:
        """Events, explain and status say that the provider rests and until when, and max_wait waits for it."""
        router = self.router("a", "b", "c", config={"policy": "declared_order"}, clock=self.clock, meter=self.meter)
        self.simulator.fail_next(2, status=503)
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HELLO)
        until = self.clock.now + REST
        [hold] = self.meter.of("HoldEvent")
        self.assertEqual((hold.key, hold.until, hold.reason), ("provider:sim", until, "the provider is out"))
        self.assertEqual({(each.code, each.retry_at) for each in router.explain(HELLO).rejections}, {("outage", until)})
        for state in router.status().values():
            self.assertEqual([(each.key, each.until) for each in state.holds], [("provider:sim", until)])
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(HELLO)
        self.assertEqual(caught.exception.retry_at, until)
        self.assertIn("sim is out", str(caught.exception))
        self.assertTrue(router.chat_completion(HELLO, max_wait=REST).text)
        self.assertEqual(self.clock.slept, [REST])
        self.assertEqual(router.status()["a"].holds, ())

    def test_another_address_is_another_server(self) -> None:
        """Accounts of one provider at different addresses have nothing in common."""
        accounts = [account(name, provider="sim", base_url=dead_url()) for name in "ab"]
        accounts.append(account("c", provider="sim", base_url=self.url))
        router = self.router(*accounts, config={"policy": "declared_order"}, clock=self.clock)
        self.assertEqual(router.chat_completion(HELLO).routing.account_id, "c")


OVERLOADED = ir.MockReply(
    body='{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}', status=503
)
FIRST = outage.OVERLOAD_S[0]


class Overloaded(unittest.TestCase):
    """Models "big" and "small", in this order, at accounts of one provider; each answers what `self.says` holds for it."""

    def setUp(self) -> None:
        self.clock, self.meter = FakeClock(), EveryHook()
        self.says: dict[str, Any] = {"big": OVERLOADED}

    def router(self, names: str = "a", models: tuple[str, ...] = ("big", "small"), **settings: Any) -> Any:
        provider = ir.MockProvider("sim", default=lambda body: self.says.get(body["model"], "served"))
        alias = ir.ModelMapping("chat", [ir.ModelRef("sim", model) for model in models])
        config = ir.Config([account(name, provider="sim", **settings) for name in names], [alias], policy="best_first")
        router = ir.Router(config, [provider], clock=self.clock, meter=self.meter)
        self.addCleanup(router.close)
        return router

    def asked(self) -> list[str]:
        found = [event.account_id + " " + event.model for event in self.meter.routes]
        self.meter.events.clear()
        return found

    def test_the_accounts_other_models_serve(self) -> None:
        """An overloaded model rests by itself: the account's breaker stays closed, and its other models answer every call."""
        for method in METHODS.values():
            self.clock, self.meter = FakeClock(), EveryHook()
            router = self.router()
            for _ in range(10):
                self.assertEqual(method(router).routing.model, "small")
            self.assertEqual(self.asked(), ["a big"] + ["a small"] * 10)
            state = router.status()["a"]
            self.assertEqual(state.breaker, "closed")
            (hold,) = state.holds
            self.assertEqual((hold.key, hold.until), ("a|big", self.clock.now + FIRST))
            self.assertIn("overloaded (503)", hold.reason)
            self.assertEqual(used(router, "a")["rpd"], 11)

    def test_it_rests_longer_each_time(self) -> None:
        """Every rest is twice the one before, to a limit; an answer, or long silence, makes the next a first one."""
        router = self.router()
        rests = []
        for _ in range(9):
            router.chat_completion(HELLO)
            (hold,) = router.status()["a"].holds
            rests.append(hold.until - self.clock.now)
            self.clock.now = hold.until
        self.assertEqual(rests, [5, 10, 20, 40, 80, 160, 300, 300, 300])
        self.says["big"] = "at last"
        self.assertEqual(router.chat_completion(HELLO).text, "at last")
        self.assertFalse(router._runtime.health.outages.out)
        self.assertFalse(router._runtime.health.outages.suspects)
        self.says["big"] = OVERLOADED
        for pause in (FIRST, outage.FORGET_S + 11):
            router.chat_completion(HELLO)
            (hold,) = router.status()["a"].holds
            self.clock.advance(pause)
        router.chat_completion(HELLO)
        (hold,) = router.status()["a"].holds
        self.assertEqual(hold.until - self.clock.now, FIRST)

    def test_the_provider_says_how_long(self) -> None:
        """A Retry-After counts instead."""
        self.says["big"] = ir.MockReply(status=503, body="The model is overloaded", headers={"retry-after": "77"})
        router = self.router()
        for _ in range(3):
            router.chat_completion(HELLO)
            (hold,) = router.status()["a"].holds
            self.assertEqual(hold.until - self.clock.now, 77)
            self.clock.now = hold.until

    def test_one_call_probes_it(self) -> None:
        """After the rest one call asks the model, and those that come while it does go elsewhere."""
        router = self.router()
        router.chat_completion(HELLO)
        self.clock.advance(FIRST)
        inner: list[str] = []

        def answer(body: Any) -> str:
            inner.extend(router.chat_completion(HELLO).routing.model for _ in range(3))
            return "back"

        self.says["big"] = answer
        self.asked()
        self.assertEqual(router.chat_completion(HELLO).text, "back")
        self.assertEqual(inner, ["small"] * 3)
        self.assertEqual(self.asked(), ["a big"] + ["a small"] * 3)
        self.says["big"] = "back"
        self.assertEqual(router.chat_completion(HELLO).routing.model, "big")

    def test_a_probe_that_finds_no_room(self) -> None:
        """A call that was let through and then refused by a limit was no probe: the next one that has room is."""
        router = self.router(models=("big",), limits={"rpm": 1})
        for pause in (FIRST + 15, FIRST + 15, 0, 0, 0):
            with self.assertRaises((ir.NoCandidatesError, ir.AllCandidatesFailedError)) as caught:
                router.chat_completion(HELLO)
            self.clock.advance(pause)
        self.assertIn("0 of 1 request per minute left", str(caught.exception))
        self.assertGreater(caught.exception.retry_at, self.clock.now)
        self.clock.now = caught.exception.retry_at
        self.says["big"] = "back"
        self.assertEqual(router.chat_completion(HELLO).text, "back")

    def test_two_accounts_tell_of_all(self) -> None:
        """A model that is overloaded at two accounts is not asked for at the others, while their other models are."""
        router = self.router("abcdef")
        self.assertEqual(router.chat_completion(HELLO).routing.model, "small")
        self.assertEqual(self.asked(), ["a big", "b big", "a small"])
        rejected = {(each.account_id, each.code) for each in router.explain(HELLO).rejections}
        self.assertEqual(rejected, {("a", "held"), ("b", "held"), *((name, "outage") for name in "cdef")})
        self.assertIn("the model is overloaded, and rests", str(router.explain(HELLO)))
        self.assertEqual({state.breaker for state in router.status().values()}, {"closed"})
        self.clock.advance(REST)
        router.chat_completion(HELLO)
        self.assertEqual([each[2:] for each in self.asked()], ["big", "small"])
        self.clock.advance(REST)
        self.says["big"] = "back"
        for _ in range(6):
            self.assertEqual(router.chat_completion(HELLO).routing.model, "big")

    def test_waiting_for_it(self) -> None:
        """Where there is nothing else the error says when it may serve again, and max_wait waits for that."""
        router = self.router(models=("big",))
        with self.assertRaises(ir.AllCandidatesFailedError) as caught:
            router.chat_completion(HELLO)
        self.assertEqual(caught.exception.retry_at, self.clock.now + FIRST)
        with self.assertRaises(ir.NoCandidatesError) as refused:
            router.chat_completion(HELLO)
        self.assertEqual(refused.exception.retry_at, self.clock.now + FIRST)
        answers = iter([OVERLOADED, "back"])
        self.says["big"] = lambda body: next(answers)
        self.assertEqual(router.chat_completion(HELLO, max_wait=60).text, "back")
        self.assertEqual(self.clock.slept, [FIRST, 2 * FIRST])

    def test_a_step_that_stands_twice(self) -> None:
        """An alias that names a model twice has it once: who failed is not asked again in the same call."""
        self.says["big"] = ir.MockReply(status=500)
        router = self.router(models=("big", "big", "small", "big"))
        self.assertEqual(router.chat_completion(HELLO).routing.model, "small")
        self.assertEqual(self.asked(), ["a big", "a small"])
        self.assertEqual(len(router.explain(HELLO).candidates), 2)

    def test_a_caller_at_fault_is_no_overload(self) -> None:
        """A probe that is refused for what it asked leaves the model to the next call."""
        router = self.router(models=("big",))
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HELLO)
        self.clock.advance(FIRST)
        self.says["big"] = ir.MockReply(status=400, body="no")
        with self.assertRaises(ir.InvalidRequestError):
            router.chat_completion(HELLO)
        self.says["big"] = "fine"
        self.assertEqual(router.chat_completion(HELLO).text, "fine")

    def test_a_plain_503(self) -> None:
        """One that does not speak of a model is the account's failure, as a 500 is whatever it says."""
        for status, said in ((503, "Service unavailable"), (500, "The model is overloaded")):
            self.says["big"] = ir.MockReply(status=status, body=said)
            router = self.router(models=("big",))
            for _ in range(3):
                with self.assertRaises(ir.AllCandidatesFailedError):
                    router.chat_completion(HELLO)
            self.assertEqual(router.status()["a"].breaker, "open")


if __name__ == "__main__":
    unittest.main()
