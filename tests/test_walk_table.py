"""What every answer of a provider costs: the caller, the ledger, the breaker, and who is tried next; over real sockets.

Two accounts in declared order: `first` answers as each test says, `second` answers well. A single failure opens a breaker
here, so that a failure can be seen. Every test runs for whole and for streamed answers.
"""

from __future__ import annotations

import socket
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from unittest import mock

from tests import ir, part
from tests.fakes import HELLO, METHODS, NOON, FakeClock, ListMeter, account, alias_of, dead_url, delta, make_router, sse
from tests.servers import ScriptedServer, then_close

Simulator = part("simulator").Simulator
Fault = part("simulator").Fault
KeyLimits = part("simulator").KeyLimits

HOUR, DAY = 3600.0, 86_400.0
PACIFIC_MIDNIGHT = NOON + 20 * HOUR
CONTEXT = {"error": {"message": "This model's maximum context length is 8192 tokens.", "code": "context_length_exceeded"}}
NO_CREDIT = {"error": {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota"}}


@dataclass
class Outcome:
    """What one call left behind. `seen`: requests that each server got during it."""

    method: str
    answer: Any
    error: Any
    status: Any
    seen: tuple[int, int]
    reserved: int
    meter: ListMeter

    @property
    def charged(self) -> tuple[float, float]:
        """Requests and tokens charged to the first account."""
        amounts = {limit.name: limit.used for limit in self.status["first"].limits}
        return amounts["rpd"], amounts["tpd"]

    @property
    def holds(self) -> dict[str, float]:
        """What is held, and for how many seconds."""
        return {hold.key: hold.until - NOON for hold in self.status["first"].holds}

    @property
    def breaker(self) -> str:
        return str(self.status["first"].breaker)


class WalkCase(unittest.TestCase):
    """Plays one call against `first` with a fault scripted, and `second` well."""

    first: Any
    second: Any

    @classmethod
    def setUpClass(cls) -> None:
        cls.first = Simulator(name="first").start()
        cls.addClassCleanup(cls.first.stop)
        cls.second = Simulator(name="second").start()
        cls.addClassCleanup(cls.second.stop)

    def each(self, fault: Any = None, **kind: Any) -> Iterator[Outcome]:
        """The outcome of one call per method; `fault` goes wrong at the first server."""
        for method in METHODS:
            yield self.play(method, fault, **kind)

    def play(
        self, method: str, fault: Any = None, url: str = "", alone: bool = False, warm: bool = False, **config: Any
    ) -> Outcome:
        """One call. `url`: instead of the first server's; `alone`: there is no second; `warm`: after a call that did well."""
        urls = {"first": url or self.first.base_url} | ({} if alone else {"second": self.second.base_url})
        accounts = [account(name, attempt_timeout=config.pop(f"{name}_timeout", None)) for name in urls]
        meter = ListMeter()
        health = ir.HealthConfig(failure_threshold=1)
        with make_router(urls, *accounts, config=config, meter=meter, health=health) as router:
            if warm:
                METHODS[method](router)
            if fault is not None:
                self.first.script([fault])
            before = len(self.first.log), len(self.second.log)
            answer = error = None
            try:
                answer = METHODS[method](router)
            except ir.InferRouterError as exc:
                error = exc
            seen = len(self.first.log) - before[0], len(self.second.log) - before[1]
            outcome = Outcome(method, answer, error, router.status(), seen, meter.routes[0].estimated_tokens, meter)
        self.assertEqual({name: state.in_flight for name, state in outcome.status.items()}, dict.fromkeys(urls, 0))
        self.assertEqual(len(meter.routes), len(meter.results), "every attempt that began has one end")
        return outcome

    def moved_on(self, outcome: Outcome, kind: type[Exception]) -> None:
        """The first attempt failed with `kind` and the second account served."""
        self.assertIsNone(outcome.error, outcome.method)
        self.assertEqual((outcome.answer.routing.account_id, outcome.answer.routing.attempts), ("second", 2))
        self.assertIs(type(outcome.meter.results[0].error), kind)
        self.assertEqual([event.account_id for event in outcome.meter.routes], ["first", "second"])

    def raised(self, outcome: Outcome, kind: type[Exception]) -> None:
        """The caller got `kind` itself and nobody else was asked."""
        self.assertIs(type(outcome.error), kind, outcome.method)
        self.assertEqual(outcome.seen[1], 0)
        self.assertEqual((outcome.error.provider, outcome.error.account_id, outcome.error.model), ("first", "first", "m"))

    def left(self, outcome: Outcome, charged: tuple[float, float], holds: dict[str, float], breaker: str) -> None:
        self.assertEqual((outcome.charged, outcome.holds, outcome.breaker), (charged, holds, breaker), outcome.method)


class GoodAnswers(WalkCase):
    def test_complete(self) -> None:
        """A complete answer returns, and what it really used is charged."""
        for outcome in self.each():
            served = self.first.log[-1]
            self.assertEqual(outcome.answer.text, "Hello! How can I help you today?")
            self.assertEqual(outcome.answer.routing.attempts, 1)
            self.assertEqual(outcome.answer.usage.total_tokens, served.prompt_tokens + served.completion_tokens)
            self.left(outcome, (1, served.prompt_tokens + served.completion_tokens), {}, "closed")
            self.assertEqual(outcome.seen, (1, 0))


class CallersFault(WalkCase):
    def test_bad_request(self) -> None:
        """400, 413 and 422 are the caller's fault: raised at once, rolled back, nobody is held."""
        for status in (400, 413, 422):
            for outcome in self.each(Fault("status", status)):
                self.raised(outcome, ir.InvalidRequestError)
                self.assertEqual(outcome.error.status, status)
                self.left(outcome, (0, 0), {}, "closed")

    def test_context_window(self) -> None:
        """A context window that is too small moves on to a model that may be larger, and costs nothing."""
        for outcome in self.each(Fault("status", 400, CONTEXT)):
            self.moved_on(outcome, ir.ContextWindowError)
            self.left(outcome, (0, 0), {}, "closed")

    def test_context_window_everywhere(self) -> None:
        """Where every context window is too small, that very error is raised."""
        for outcome in self.each(Fault("status", 400, CONTEXT), alone=True):
            self.raised(outcome, ir.ContextWindowError)
            self.left(outcome, (0, 0), {}, "closed")


class BadKeys(WalkCase):
    def test_raises(self) -> None:
        """401 and 403 are raised at once; rolled back, and the account is held for ten minutes."""
        for status in (401, 403):
            for outcome in self.each(Fault("status", status)):
                self.raised(outcome, ir.AuthenticationError)
                self.left(outcome, (0, 0), {"first": 600.0}, "closed")

    def test_moves_on(self) -> None:
        """With auth_errors "next" a refused key moves on, and the account is held all the same."""
        for outcome in self.each(Fault("status", 401), auth_errors="next"):
            self.moved_on(outcome, ir.AuthenticationError)
            self.left(outcome, (0, 0), {"first": 600.0}, "closed")

    def test_in_a_400(self) -> None:
        """A 400 whose body means a bad key is a bad key."""
        body = {"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}
        for outcome in self.each(Fault("status", 400, body)):
            self.raised(outcome, ir.AuthenticationError)
            self.left(outcome, (0, 0), {"first": 600.0}, "closed")


class SpentQuotas(WalkCase):
    def test_no_credit(self) -> None:
        """402 and insufficient_quota move on, roll back, and the account is held for an hour."""
        for fault in (Fault("status", 402), Fault("status", 429, NO_CREDIT)):
            for outcome in self.each(fault):
                self.moved_on(outcome, ir.QuotaExceededError)
                self.left(outcome, (0, 0), {"first": HOUR}, "closed")

    def test_daily(self) -> None:
        """A spent day without a date holds until the account's own midnight."""
        body = {"error": {"message": "You have reached your daily quota.", "code": "rate_limit_exceeded"}}
        for outcome in self.each(Fault("status", 429, body)):
            self.moved_on(outcome, ir.QuotaExceededError)
            self.left(outcome, (0, 0), {"first": 12 * HOUR}, "closed")

    def test_daily_at_gemini(self) -> None:
        """Gemini's spent day holds until midnight in Los Angeles, whatever short delay it names."""
        for method in METHODS:
            with self.subTest(method), Simulator("gemini", keys={"sk-1": KeyLimits(rpd=1)}, clock=lambda: NOON) as gemini:
                config = ir.Config(
                    models=[alias_of("gemini", "second")],
                    accounts=[account("gemini"), account("second")],
                    policy="declared_order",
                )
                providers = [ir.GeminiProvider(gemini.base_url), ir.OpenAICompatProvider("second", self.second.base_url)]
                with ir.Router(config, providers, clock=FakeClock()) as router:
                    first = METHODS[method](router)
                    answer = METHODS[method](router)
                    state = router.status()["gemini"]
                self.assertEqual((first.routing.account_id, first.routing.attempts), ("gemini", 1))
                self.assertEqual((answer.routing.account_id, answer.routing.attempts), ("second", 2))
                self.assertEqual([limit.used for limit in state.limits], [1, first.usage.total_tokens])
                self.assertEqual([hold.until for hold in state.holds], [PACIFIC_MIDNIGHT])


class MissingModels(WalkCase):
    def test_unknown_model(self) -> None:
        """404 moves on, rolls back, and holds that model at that account for an hour."""
        for outcome in self.each(Fault("status", 404)):
            self.moved_on(outcome, ir.ModelNotFoundError)
            self.left(outcome, (0, 0), {"first|m": HOUR}, "closed")

    def test_other_models_go_on(self) -> None:
        """While one model is held, the account's other models serve."""
        models = [alias_of("first"), alias_of("first", alias="other", model="n")]
        with make_router({"first": self.first.base_url}, config={"models": models}) as router:
            self.first.fail_next(status=404)
            for name, served in (("chat", False), ("other", True), ("chat", False)):
                before = len(self.first.log)
                try:
                    ok = bool(router.chat_completion(ir.ChatRequest("Hello!", model=name)).text)
                except (ir.AllCandidatesFailedError, ir.NoCandidatesError):
                    ok = False
                self.assertEqual(ok, served, name)
            self.assertEqual(len(self.first.log), before, "a held model is not asked again")


class RateLimits(WalkCase):
    def test_moves_on(self) -> None:
        """429 moves on, keeps the request and releases the tokens, holds the account, and is not a failure."""
        for outcome in self.each(Fault("status", 429, None, {"Retry-After": "7"})):
            self.moved_on(outcome, ir.RateLimitedError)
            self.assertEqual(outcome.meter.results[0].error.retry_after, 7)
            self.left(outcome, (1, 0), {"first": 7.0}, "closed")

    def test_rest_is_clamped(self) -> None:
        """Retry-After holds between one second and a day; what is not a number of seconds means ten seconds."""
        date = formatdate(NOON + 90, usegmt=True)
        for value, rest in (
            ("0", 1.0), ("0.2", 1.0), ("9999999", DAY), (date, 90.0), (formatdate(NOON - 90, usegmt=True), 1.0),
            ("soon", 10.0), ("-5", 10.0), ("inf", 10.0), ("nan", 10.0), ("1e9", 10.0), ("", 10.0), ("9" * 400, 10.0),
        ):  # fmt: skip
            with self.subTest(value):
                outcome = self.play("unary", Fault("status", 429, {"error": {"message": "slow down"}}, {"Retry-After": value}))
                self.left(outcome, (1, 0), {"first": rest}, "closed")

    def test_delay_in_the_body(self) -> None:
        """A delay that only the body names is obeyed."""
        body = {"error": {"message": "Rate limit reached. Please try again in 1m12.5s.", "code": "rate_limit_exceeded"}}
        for outcome in self.each(Fault("status", 429, body)):
            self.left(outcome, (1, 0), {"first": 72.5}, "closed")

    def test_everywhere(self) -> None:
        """Where everybody is limited, the error carries every attempt and when the soonest is free."""
        for outcome in self.each(Fault("status", 429, None, {"Retry-After": "7"}), alone=True):
            self.assertIs(type(outcome.error), ir.AllCandidatesFailedError)
            self.assertEqual([type(each.error) for each in outcome.error.attempts], [ir.RateLimitedError])
            self.assertEqual(outcome.error.retry_at, NOON + 7)
            self.assertTrue(outcome.error.retryable)


class Failures(WalkCase):
    def test_server_errors(self) -> None:
        """408, 409 and every 5xx move on, keep the request, release the tokens, and count as a failure."""
        for status in (408, 409, 500, 502, 503, 504, 529):
            for outcome in self.each(Fault("status", status)):
                self.moved_on(outcome, ir.ProviderUnavailableError)
                self.assertEqual(outcome.meter.results[0].error.status, status)
                self.left(outcome, (1, 0), {}, "open")

    def test_refused(self) -> None:
        """A refused connection moves on, rolls back, and counts as a failure."""
        for outcome in self.each(url=dead_url()):
            self.moved_on(outcome, ir.ProviderUnavailableError)
            self.left(outcome, (0, 0), {}, "open")

    def test_unknown_host(self) -> None:
        """A host that does not resolve moves on, rolls back, and counts as a failure."""
        resolve = socket.getaddrinfo

        def nowhere(host: str, *args: Any, **more: Any) -> Any:
            if host == "nowhere.invalid":
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            return resolve(host, *args, **more)

        with mock.patch("socket.getaddrinfo", nowhere):
            for outcome in self.each(url="https://nowhere.invalid"):
                self.moved_on(outcome, ir.ProviderUnavailableError)
                self.assertIn("nowhere.invalid does not resolve", str(outcome.meter.results[0].error))
                self.left(outcome, (0, 0), {}, "open")

    def test_lost_after_sending(self) -> None:
        """A connection lost after sending moves on, and as its outcome is unknown its whole reservation is charged."""
        for outcome in self.each(Fault("dropped")):
            self.moved_on(outcome, ir.ProviderUnavailableError)
            self.left(outcome, (1, outcome.reserved), {}, "open")

    def test_timeout(self) -> None:
        """An attempt that takes too long moves on, and its whole reservation is charged."""
        for outcome in self.each(Fault("slow", seconds=5), first_timeout=0.05):
            self.moved_on(outcome, ir.AttemptTimeoutError)
            self.left(outcome, (1, outcome.reserved), {}, "open")

    def test_bad_body(self) -> None:
        """A 2xx answer that is none moves on, and its whole reservation is charged."""
        for kind in ("html", "empty", "broken_json"):
            for outcome in self.each(Fault(kind, after=0)):
                self.moved_on(outcome, ir.MalformedResponseError)
                self.left(outcome, (1, outcome.reserved), {}, "open")

    def test_cut_whole_answer(self) -> None:
        """A whole answer that is cut moves on, and its whole reservation is charged."""
        outcome = self.play("unary", Fault("cut"))
        self.moved_on(outcome, ir.ProviderUnavailableError)
        self.left(outcome, (1, outcome.reserved), {}, "open")

    def test_cut_before_content(self) -> None:
        """A stream that is cut before its first content moves on, and its whole reservation is charged."""
        outcome = self.play("stream", Fault("cut", after=1))
        self.moved_on(outcome, ir.ProviderUnavailableError)
        self.left(outcome, (1, outcome.reserved), {}, "open")

    def test_kept_connection_dies(self) -> None:
        """A kept-alive connection that dies unheard is charged, and the same account is tried once more on a fresh one."""
        for outcome in self.each(Fault("dropped"), warm=True):
            served = self.first.log[-1]
            real = served.prompt_tokens + served.completion_tokens
            self.assertEqual((outcome.answer.routing.account_id, outcome.answer.routing.attempts), ("first", 2))
            self.assertEqual(outcome.seen, (2, 0))
            self.left(outcome, (3, real + outcome.reserved + real), {}, "closed")

    def test_all_fail(self) -> None:
        """Where everybody fails, the error holds one record an attempt, in order."""
        for method in METHODS:
            with self.subTest(method):
                self.second.fail_next(status=500)
                outcome = self.play(method, Fault("status", 503))
                self.assertIs(type(outcome.error), ir.AllCandidatesFailedError)
                facts = [(each.provider, each.account_id, each.model, each.error.status) for each in outcome.error.attempts]
                self.assertEqual(facts, [("first", "first", "m", 503), ("second", "second", "m", 500)])


class Streams(WalkCase):
    def test_cut_after_content(self) -> None:
        """A stream cut after content was handed out raises with what came, is charged, and nobody else is asked."""
        outcome = self.play("stream", Fault("cut", after=3))
        self.assertIs(type(outcome.error), ir.StreamInterruptedError)
        self.assertTrue("Hello! How can I help you today?".startswith(outcome.error.partial.text))
        self.assertTrue(outcome.error.partial.text)
        self.assertEqual(outcome.seen, (1, 0))
        self.left(outcome, (1, outcome.reserved), {}, "open")

    def test_cut_after_more_than_reserved(self) -> None:
        """A cut stream that had brought more than was reserved is charged what was seen."""
        answer = sse(delta("word " * 400), ended=False)
        meter = ListMeter()
        with ScriptedServer(then_close(answer)) as server, make_router({"first": server.url}, meter=meter) as router:
            with self.assertRaises(ir.StreamInterruptedError) as caught:
                METHODS["stream"](router)
            charged = {limit.name: limit.used for limit in router.status()["first"].limits}
        seen = part("costs").estimate_text(caught.exception.partial.text)
        self.assertGreater(seen, meter.routes[0].estimated_tokens)
        self.assertEqual(charged, {"rpd": 1, "tpd": seen + meter.routes[0].estimated_tokens - HELLO.max_tokens})

    def test_stopped_early(self) -> None:
        """A caller who stops early is charged what was seen, at least the input, and the account has done well."""
        meter = ListMeter()
        health = ir.HealthConfig(failure_threshold=1)
        with make_router({"first": self.first.base_url}, meter=meter, health=health) as router:
            with router.stream(HELLO) as stream:
                first = next(iter(stream))
                self.assertEqual(stream.routing.account_id, "first")
            state = router.status()["first"]
        charged = {limit.name: limit.used for limit in state.limits}
        given = meter.routes[0].estimated_tokens - HELLO.max_tokens
        self.assertEqual(charged["rpd"], 1)
        self.assertGreaterEqual(charged["tpd"], given)
        self.assertLess(charged["tpd"], meter.routes[0].estimated_tokens)
        self.assertEqual((state.breaker, state.in_flight), ("closed", 0))
        self.assertTrue(stream.response.text.startswith(first.text))
        self.assertIsNone(stream.response.choices[0].finish_reason)
        self.assertTrue(meter.results[0].success)


class Breakers(WalkCase):
    def test_three_failures(self) -> None:
        """Three failures open a breaker for thirty seconds; then one probe that does well closes it."""
        clock = FakeClock()
        with make_router({"first": self.first.base_url}, clock=clock) as router:
            self.first.fail_next(3)
            for state in ("closed", "closed", "open"):
                with self.assertRaises(ir.AllCandidatesFailedError):
                    router.chat_completion(HELLO)
                self.assertEqual(router.status()["first"].breaker, state)
            clock.advance(29)
            asked = len(self.first.log)
            with self.assertRaises(ir.NoCandidatesError) as caught:
                router.chat_completion(HELLO)
            self.assertEqual(len(self.first.log), asked, "an open breaker lets nothing through")
            self.assertEqual(caught.exception.retry_at, NOON + 30)
            clock.advance(1)
            self.assertEqual(router.status()["first"].breaker, "half_open")
            self.assertTrue(router.chat_completion(HELLO).text)
            self.assertEqual(router.status()["first"].breaker, "closed")

    def test_failed_probe(self) -> None:
        """A probe that fails opens the breaker again for its whole time."""
        clock = FakeClock()
        with make_router({"first": self.first.base_url}, clock=clock) as router:
            self.first.fail_next(4)
            for _ in range(3):
                with self.assertRaises(ir.AllCandidatesFailedError):
                    router.chat_completion(HELLO)
            clock.advance(30)
            with self.assertRaises(ir.AllCandidatesFailedError):
                router.chat_completion(HELLO)
            with self.assertRaises(ir.NoCandidatesError) as caught:
                router.chat_completion(HELLO)
            self.assertEqual(caught.exception.retry_at, NOON + 60)

    def test_old_failures_are_forgotten(self) -> None:
        """Failures that lie more than five minutes apart open nothing."""
        clock = FakeClock()
        with make_router({"first": self.first.base_url}, clock=clock) as router:
            self.first.fail_next(3)
            for _ in range(3):
                with self.assertRaises(ir.AllCandidatesFailedError):
                    router.chat_completion(HELLO)
                clock.advance(151)
            self.assertEqual(router.status()["first"].breaker, "closed")


if __name__ == "__main__":
    unittest.main()
