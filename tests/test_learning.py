"""Limits as they really are: learned from good answers and from refusals, kept, shown, and never a reason for more calls."""

from __future__ import annotations

import json
import os
import random
import tempfile
import unittest
from pathlib import Path
from typing import Any

from tests import ir, part, rounds
from tests.fakes import METHODS, NOON, EveryHook, FakeClock, alias_of
from tests.test_rate_headers import DAY_AND_MINUTE, hostile

HI = ir.ChatRequest("hi", model="chat", max_tokens=10)
GROQ = {
    "x-ratelimit-limit-requests": "100",
    "x-ratelimit-remaining-requests": "97",
    "x-ratelimit-reset-requests": "43m12s",
    "x-ratelimit-limit-tokens": "6000",
    "x-ratelimit-remaining-tokens": "5000",
    "x-ratelimit-reset-tokens": "10s",
}


def with_headers(headers: dict[str, str], text: str = "hello") -> Any:
    return ir.MockReply(text, headers=headers)


class Learns(unittest.TestCase):
    def setUp(self) -> None:
        self.clock, self.meter = FakeClock(), EveryHook()

    def router(self, *replies: Any, names: str = "a", store: Any = None, **settings: Any) -> Any:
        self.mock = ir.MockProvider("groq", replies, sleep=self.clock.sleep)
        accounts = [ir.AccountConfig("groq", name, **settings) for name in names]
        config = ir.Config(accounts, [alias_of("groq")], policy="declared_order")
        router = ir.Router(config, [self.mock], clock=self.clock, meter=self.meter, quota_store=store)
        self.addCleanup(router.close)
        return router

    def limits(self, router: Any, name: str = "a") -> dict[str, Any]:
        return {limit.name: limit for limit in router.status()[name].limits}

    def calls(self, router: Any, count: int) -> int:
        """How many of `count` calls at once are answered before the first is refused by the count here."""
        for number in range(count):
            try:
                router.chat_completion(HI)
            except ir.NoCandidatesError:
                return number
        return count


class FromAnswers(Learns):
    def test_a_lower_limit(self) -> None:
        """A stated limit below the configured one is adopted, and shown with what was configured, the header and the time."""
        for method in METHODS.values():
            router = self.router(with_headers(GROQ), limits={"rpd": 500, "tpm": 50_000})
            method(router, HI)
            found = self.limits(router)
            self.assertEqual(
                [(found[name].amount, found[name].configured) for name in ("rpd", "tpm")], [(100, 500), (6000, 50_000)]
            )
            [fact] = found["tpm"].learned
            self.assertEqual((fact.kind, fact.amount, fact.at), ("limit", 6000, NOON))
            text = str(router.status())
            self.assertIn(
                "of 100 requests per day (configured 500, provider says 100 (x-ratelimit-remaining-requests, 2026-01-15", text
            )
            told = {event.key: event for event in self.meter.of("LimitEvent")}
            self.assertEqual((told["a/rpd"].configured, told["a/rpd"].stated), (500, 100))
            self.meter.events.clear()

    def test_a_higher_limit_is_only_shown(self) -> None:
        """A stated limit above the configured one changes nothing but what is shown."""
        router = self.router(with_headers(GROQ), limits={"rpd": 3})
        self.assertEqual(self.calls(router, 5), 3)
        self.assertEqual((self.limits(router)["rpd"].amount, self.limits(router)["rpd"].learned[0].amount), (3, 100))

    def test_what_others_use(self) -> None:
        """Less remaining than is left here is charged, so that nothing is refused; more remaining changes nothing."""
        router = self.router(with_headers({**GROQ, "x-ratelimit-remaining-requests": "4"}), limits={"rpd": 100})
        router.chat_completion(HI)
        self.assertEqual((self.limits(router)["rpd"].used, self.limits(router)["rpd"].remaining), (96, 4))
        self.assertEqual(self.calls(router, 9), 4)
        router = self.router(with_headers({**GROQ, "x-ratelimit-remaining-requests": "100"}), limits={"rpd": 100})
        router.chat_completion(HI)
        self.assertEqual(self.limits(router)["rpd"].used, 1)

    def test_room_for_others(self) -> None:
        """What others were seen to use of a window is left to them in the next ones, and won back slowly."""
        used_by_others = {"x-ratelimit-limit-requests-minute": "10", "x-ratelimit-remaining-requests-minute": "3"}
        router = self.router(*["hello"] * 4, with_headers(used_by_others), limits={"rpm": 10})
        self.assertEqual(self.calls(router, 12), 8, "in this window all that is left is used")
        self.clock.advance(61)
        self.assertEqual((self.calls(router, 12), self.limits(router)["rpm"].amount), (8, 8))
        [fact] = [fact for fact in self.limits(router)["rpm"].learned if fact.kind == "ceiling"]
        self.assertEqual((fact.amount, fact.source), (8, "others use it"))
        self.clock.advance(61 * 14)
        self.assertEqual(self.limits(router)["rpm"].amount, 9)

    def test_tokens_are_counted_in_many_ways(self) -> None:
        """Fewer tokens than are left here are charged, but say nothing of the next window."""
        headers = {"x-ratelimit-limit-tokens-minute": "6000", "x-ratelimit-remaining-tokens-minute": "100"}
        router = self.router(with_headers(headers), limits={"tpm": 6000})
        router.chat_completion(HI)
        self.assertLess(self.limits(router)["tpm"].remaining, 150)
        self.clock.advance(61)
        self.assertEqual(self.limits(router)["tpm"].amount, 6000)

    def test_it_frees_with_the_providers_window(self) -> None:
        """What others used frees when the provider says so, not a whole window later."""
        spent = {"x-ratelimit-limit-requests-minute": "10", "x-ratelimit-remaining-requests-minute": "0"}
        router = self.router(with_headers({**spent, "x-ratelimit-reset-requests-minute": "12"}), limits={"rpm": 10})
        router.chat_completion(HI)
        self.assertEqual(self.limits(router)["rpm"].remaining, 0)
        router.chat_completion(HI, max_wait=60)
        self.assertLess(sum(self.clock.slept), 14)

    def test_a_window_that_ended_meanwhile(self) -> None:
        """What was left of yesterday says nothing of today."""
        router = self.router(
            ir.MockReply("late", headers={**GROQ, "x-ratelimit-remaining-requests": "0"}, delay_s=60), limits={"rpd": 100}
        )
        self.clock.now = NOON + 43_200 - 30
        router.chat_completion(HI)
        self.assertEqual(self.limits(router)["rpd"].remaining, 100)

    def test_the_models_own_limit_before_the_accounts(self) -> None:
        """A header is about the model's own bucket where it has one, the account's else, and the allowance last."""
        router = self.router(with_headers(GROQ), limits={"rpd": 500}, model_limits={"m": {"rpd": 400}}, daily_free=300)
        router.chat_completion(HI)
        amounts = {name: limit.amount for name, limit in self.limits(router).items()}
        self.assertEqual(amounts, {"rpd": 500, "m/rpd": 100, "allowance": 300})
        router = self.router(with_headers(GROQ), daily_free=300)
        router.chat_completion(HI)
        self.assertEqual(self.limits(router)["allowance"].amount, 100)

    def test_one_model_of_several(self) -> None:
        """Where an account's limit is for several models, a lower one is one model's own, and cuts the others not short."""
        spent = {**GROQ, "x-ratelimit-remaining-requests": "0"}
        self.mock = ir.MockProvider("groq", [with_headers(spent), ir.MockReply(status=429, headers=spent), "hello"])
        account = ir.AccountConfig("groq", "a", limits={"rpd": 500})
        models = [ir.ModelMapping("chat", [ir.ModelRef("groq", "m")]), ir.ModelMapping("other", [ir.ModelRef("groq", "n")])]
        with ir.Router(ir.Config([account], models), [self.mock], clock=self.clock) as router:
            router.explain(ir.ChatRequest("hi", model="other"))
            router.chat_completion(HI)
            with self.assertRaises(ir.AllCandidatesFailedError):
                router.chat_completion(HI)
            found = self.limits(router)["rpd"]
            self.assertEqual((found.amount, found.remaining, found.learned), (500, 498, ()))

    def test_no_window_of_that_kind(self) -> None:
        """What is said of a window that is not counted here changes nothing; a limit of 0 on an answer says nothing."""
        zero = {"x-ratelimit-limit-requests-day": "0", "x-ratelimit-remaining-requests-day": "0"}
        router = self.router(with_headers(GROQ), with_headers(zero), limits={"rpm": 50, "rpd": 20})
        for _ in range(2):
            router.chat_completion(HI)
        self.assertEqual({name: limit.amount for name, limit in self.limits(router).items()}, {"rpm": 50, "rpd": 20})
        self.assertEqual(self.limits(router)["rpd"].remaining, 18)

    def test_an_equal_limit_without_its_window(self) -> None:
        """Where the window is not said, a limit that equals one here is that one; else it is nobody's."""
        headers = {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "3"}
        router = self.router(with_headers(headers), limits={"rpm": 60, "rpd": 500})
        router.chat_completion(HI)
        self.assertEqual([self.limits(router)[name].remaining for name in ("rpm", "rpd")], [3, 499])
        router = self.router(with_headers(headers), limits={"rpm": 50, "rpd": 500})
        router.chat_completion(HI)
        self.assertEqual([self.limits(router)[name].remaining for name in ("rpm", "rpd")], [49, 499])

    def test_most_answers_write_nothing(self) -> None:
        """The ledger is asked to learn at the first statement, and then only when less remains than is left."""

        class Counting(part("quota_memory").MemoryQuotaStore):  # type: ignore[misc]  # the package is a value here
            seen = 0

            def observe(self, observations: Any, now: float) -> Any:
                self.seen += 1
                return super().observe(observations, now)

        store = Counting()
        router = self.router(*[with_headers(GROQ)] * 20, limits={"rpd": 500, "tpm": 50_000}, store=store)
        for _ in range(20):
            router.chat_completion(HI)
            self.clock.advance(30)
        self.assertLessEqual(store.seen, 2)


class FromRefusals(Learns):
    def test_without_figures(self) -> None:
        """The count at which a 429 came is a ceiling from then on: the next windows are served without a refusal."""
        hello, limited = "hello", ir.MockReply(status=429, headers={"Retry-After": "30"})
        router = self.router(*[hello] * 10, limited, limits={"rpm": 20})
        self.assertEqual(self.calls(router, 10), 10)
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HI)
        [learned] = self.limits(router)["rpm"].learned
        self.assertEqual((learned.kind, learned.amount), ("ceiling", 10))
        self.assertIn("refused, now at 10 (429 after 10 requests", str(router.status()))
        self.clock.advance(61)
        self.assertEqual(self.calls(router, 30), 10)

    def test_it_is_probed_slowly(self) -> None:
        """A likely ceiling is raised by one call in about two hundred, up to the configured amount; a refusal sets it anew."""
        limited = ir.MockReply(status=429, headers={"Retry-After": "5"})
        router = self.router(*["hello"] * 10, limited, limits={"rpm": 12})
        self.calls(router, 10)
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HI)
        amounts = []
        for _ in range(42):
            self.clock.advance(61)
            amounts.append(self.limits(router)["rpm"].amount)
        self.assertEqual((amounts[0], amounts[18], amounts[20], amounts[41]), (10, 10, 11, 12))
        self.clock.advance(61)
        self.mock.add(*["hello"] * 11, limited)
        self.assertEqual(self.calls(router, 11), 11)
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HI)
        self.clock.advance(61)
        self.assertEqual(self.limits(router)["rpm"].amount, 11)

    def test_an_unlikely_one_is_probed_soon(self) -> None:
        """A refusal far below the limit may be a passing thing: its ceiling is gone after a few windows."""
        router = self.router("hello", ir.MockReply(status=429, headers={"Retry-After": "5"}), limits={"rpm": 40})
        router.chat_completion(HI)
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HI)
        amounts = []
        for _ in range(9):
            self.clock.advance(60)
            amounts.append(self.limits(router)["rpm"].amount)
        self.assertEqual(amounts, [6, 11, 16, 21, 26, 31, 36, 40, 40])

    def test_what_says_nothing_of_a_window(self) -> None:
        """No ceiling comes of a refusal before anything passed, of one about other things, or of a day after a short wait."""
        for text in ("Too many concurrent requests", "temporarily rate-limited upstream", "shared_capacity"):
            body = json.dumps({"error": {"message": text}})
            router = self.router("hello", ir.MockReply(status=429, body=body), limits={"rpm": 5})
            router.chat_completion(HI)
            with self.assertRaises(ir.AllCandidatesFailedError):
                router.chat_completion(HI)
            self.assertEqual(self.limits(router)["rpm"].learned, ())
        for replies, limits in (([429], {"rpm": 5}), (["hello", 429], {"rpd": 5})):
            router = self.router(*replies, limits=limits)
            for _ in replies[1:]:
                router.chat_completion(HI)
            with self.assertRaises(ir.AllCandidatesFailedError):
                router.chat_completion(HI)
            self.assertEqual([limit.learned for limit in self.limits(router).values()], [()])

    def test_a_refused_call_waits_as_asked(self) -> None:
        """Whatever was learned, the call that was refused is let through when the provider asked it to come back."""
        router = self.router("one", "two", ir.MockReply(status=429, headers={"Retry-After": "2"}), "three", limits={"rpm": 9})
        self.calls(router, 2)
        self.assertEqual(router.chat_completion(HI, max_wait=3).text, "three")
        self.assertEqual(self.clock.slept, [2])

    def test_geminis_quota_failure(self) -> None:
        """QuotaFailure's metric, model and value are taken: the day's limit of that model is the stated one, and spent."""
        body = json.dumps(DAY_AND_MINUTE).replace("gemini-3.5-flash", "m")
        reply = ir.MockReply(status=429, body=body)
        limits = {"m": {"rpd": 250, "tpm": 250_000}, "other": {"rpd": 250}}
        router = self.router("hello", reply, model_limits=limits)
        router.chat_completion(HI)
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HI)
        found = self.limits(router)
        self.assertEqual((found["m/rpd"].amount, found["m/rpd"].remaining, found["m/rpd"].configured), (20, 0, 250))
        self.assertEqual((found["m/tpm"].amount, found["m/tpm"].remaining), (250_000, 0))
        self.assertIn("QuotaFailure GenerateRequestsPerDay", found["m/rpd"].learned[0].source)
        router = self.router(ir.MockReply(status=429, body=json.dumps(DAY_AND_MINUTE)), model_limits=limits)
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HI)
        self.assertEqual(self.limits(router)["m/rpd"].amount, 250, "another model's quota")

    def test_a_sentence(self) -> None:
        """A limit that only the message names is taken from it."""
        text = (
            "Rate limit reached for model `m` on tokens per day (TPD): Limit 1000, Used 990, Requested 20. Try again in 9m38.016s"
        )
        router = self.router(
            "hello", ir.MockReply(status=429, body=json.dumps({"error": {"message": text}})), limits={"tpd": 5000}
        )
        router.chat_completion(HI)
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HI)
        found = self.limits(router)["tpd"]
        self.assertEqual(
            (found.amount, found.remaining, [fact.kind for fact in found.learned]), (1000, 10, ["limit", "remaining"])
        )

    def test_what_was_under_way_has_passed_too(self) -> None:
        """A call that was sent before a refusal and is answered after it raises the ceiling that the refusal made."""

        def while_another_is_refused(body: object) -> str:
            self.clock.advance(0.5)
            with self.assertRaises(ir.AllCandidatesFailedError):
                router.chat_completion(HI)
            self.assertEqual(self.limits(router)["rpm"].learned[0].amount, 1)
            return "two"

        router = self.router("one", while_another_is_refused, 429, limits={"rpm": 9})
        router.chat_completion(HI)
        router.chat_completion(HI)
        self.assertEqual(self.limits(router)["rpm"].learned[0].amount, 2)


class Kept(Learns):
    def test_over_a_restart(self) -> None:
        """What was learned is kept in the ledger: the next program knows it from its first call on."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "quota.sqlite")
            for amount in (100, 100):
                with ir.SQLiteQuotaStore(path) as store:
                    router = self.router(with_headers(GROQ), limits={"rpd": 500}, store=store)
                    router.chat_completion(HI)
                    self.assertEqual(self.limits(router)["rpd"].amount, amount)
                    router.close()
            with ir.SQLiteQuotaStore(path) as store:
                router = self.router(limits={"rpd": 500}, store=store)
                self.assertEqual(self.limits(router)["rpd"].learned[0].amount, 100)

    def test_stores_that_do_not_learn(self) -> None:
        """A store of somebody's own without these methods goes on working, and nothing is learned."""

        class Plain:
            def __init__(self) -> None:
                self.inner = part("quota_memory").MemoryQuotaStore()

            def __getattr__(self, name: str) -> Any:
                if name in ("observe", "learned"):
                    raise AttributeError(name)
                return getattr(self.inner, name)

        router = self.router(with_headers(GROQ), 429, "hello", limits={"rpd": 500, "rpm": 9}, store=Plain())
        router.chat_completion(HI)
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HI)
        self.assertEqual([limit.learned for limit in self.limits(router).values()], [(), ()])

    def test_a_store_that_fails_to_learn(self) -> None:
        """A store that fails to take in what was seen harms no call."""

        class Failing(part("quota_memory").MemoryQuotaStore):  # type: ignore[misc]  # the package is a value here
            def observe(self, observations: Any, now: float) -> Any:
                raise OSError("disk full")

            def learned(self) -> Any:
                raise OSError("disk full")

        router = self.router(with_headers(GROQ), limits={"rpd": 500}, store=Failing())
        self.assertTrue(router.chat_completion(HI).text)
        self.assertEqual(self.limits(router)["rpd"].learned, ())


class Hostile(Learns):
    def test_headroom_is_never_raised(self) -> None:
        """Whatever headers come, on answers and refusals, no call fails by them and nothing is admitted that was not before.

        INFERROUTER_FUZZ sets how many; CI takes 100,000.
        """
        chance = random.Random(11)
        limits = {"rpm": 20, "rpd": 1000, "tpm": 6000, "tpd": 10**6}
        count = int(os.environ.get("INFERROUTER_FUZZ", rounds(1000, 400)))
        learning, guarded, assessment = part("learning"), part("guarded_store"), part("assessment")
        router, noted = None, 0
        for number in range(count):
            if number % 500 == 0:
                router = self.router(limits=limits)
                found = router.explain(HI).candidates[0]
                learner = learning.Learner(guarded.GuardedStore(router._ledger.store), router._runtime.health)
            self.clock.advance(chance.choice((0.0, 0.1, 7.0)))
            now = assessment.Instant(self.clock.time(), self.clock.monotonic())
            before = {name: limit.remaining for name, limit in self.limits(router).items()}
            headers = hostile(chance)
            if chance.random() < 0.7:
                seen = learner.answered(found, [("a/rpm", 1)], headers, now.mono, now)
            else:
                body = json.dumps({"error": {"message": "per day", "metadata": {"headers": hostile(chance)}}}).encode()
                error = ir.RateLimitedError(retry_after=chance.choice((None, 1.0, 1e5)))
                seen = learner.refused(found, [("a/rpm", 1), ("a/tpm", 30)], error, (headers, body), now)
            noted += len(seen)
            tried_again = any(each.ceiling is not None for each in seen)  # a new ceiling lets one more try through
            for name, limit in self.limits(router).items():
                if not tried_again:
                    self.assertLessEqual(limit.remaining, before[name], headers)
                self.assertLessEqual(limit.amount, limits[name], headers)
        self.assertGreater(noted, count / 50)


if __name__ == "__main__":
    unittest.main()
