"""What a user may bring to the router, meters, policies, providers and stores, and that no fault of theirs breaks it."""

from __future__ import annotations

import unittest
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from tests import ir, part
from tests.cases import RouterCase, paid
from tests.fakes import HELLO, METHODS, FakeClock, ListMeter, account, alias_of, streamed, unary, used

Simulator = part("simulator").Simulator


class Meters(RouterCase):
    def test_events(self) -> None:
        """A meter hears of every attempt before and after it, in order, with its facts."""
        meter = ListMeter()
        router = self.router("a", paid("b"), config={"allow_paid": True}, meter=meter)
        for way in METHODS.values():
            meter.events.clear()
            self.simulator.fail_next(status=503)
            answer = way(router)
            kinds = [type(event).__name__ for event in meter.events]
            self.assertEqual(kinds, ["RouteEvent", "ResultEvent", "RouteEvent", "ResultEvent"])
            for event, (who, is_free) in zip(meter.events, (("a", True), ("a", True), ("b", False), ("b", False)), strict=True):
                self.assertEqual((event.provider, event.account_id, event.model, event.free), ("sim", who, "m", is_free))
            self.assertEqual([event.attempt for event in meter.routes], [1, 2])
            self.assertGreater(meter.routes[0].estimated_tokens, HELLO.max_tokens)
            failed, served = meter.results
            self.assertEqual((failed.success, failed.usage, failed.cost), (False, ir.Usage(), 0.0))
            self.assertEqual((type(failed.error), failed.error.status), (ir.ProviderUnavailableError, 503))
            self.assertEqual((served.success, served.error), (True, None))
            self.assertEqual((served.usage, served.cost), (answer.usage, answer.routing.cost))

    def test_duration(self) -> None:
        """The duration of an attempt is in seconds of the router's clock, a stream's until its end."""
        clock, meter = FakeClock(), ListMeter()
        provider = ir.MockProvider("sim", [ir.MockReply("Hello", delay_s=2.5)], sleep=clock.sleep)
        config = ir.Config([account("a", provider="sim")], [alias_of("sim")])
        with ir.Router(config, [provider], clock=clock, meter=meter) as router:
            router.chat_completion(HELLO)
            with router.stream(HELLO) as stream:
                clock.advance(4)
                list(stream)
        self.assertEqual([event.duration for event in meter.results], [2.5, 4.0])

    def test_raising_meter(self) -> None:
        """A meter that raises breaks no call."""

        class Broken:
            def on_route(self, event: Any) -> None:
                raise ZeroDivisionError

            def on_result(self, event: Any) -> None:
                raise ZeroDivisionError

        router = self.router("a", meter=Broken())
        for way in METHODS.values():
            self.assertTrue(way(router).text)
        self.assertEqual(router.status()["a"].in_flight, 0)

    def test_half_a_meter(self) -> None:
        """A meter that has only one of the two hooks hears of half the events and breaks no call."""

        class Results:
            def __init__(self) -> None:
                self.events: list[Any] = []

            def on_result(self, event: Any) -> None:
                self.events.append(event)

        class Routes:
            on_route = staticmethod(lambda event: None)

        results = Results()
        for meter in (results, Routes()):
            router = self.router("a", meter=meter)
            for way in METHODS.values():
                self.assertTrue(way(router).text)
        self.assertEqual([event.success for event in results.events], [True] * len(METHODS))

    def test_log_meter(self) -> None:
        """LogMeter writes a line for each result, failures as warnings."""
        router = self.router("a", "b", config={"policy": "declared_order"}, meter=ir.LogMeter())
        self.simulator.fail_next(status=503)
        with self.assertLogs("inferrouter", "INFO") as logs:
            router.chat_completion(HELLO)
        self.assertEqual([record.levelname for record in logs.records], ["WARNING", "INFO"])
        self.assertIn("event=answer", logs.records[1].getMessage())
        self.assertIn("provider=sim account=b model=m free=true", logs.records[1].getMessage())


class WrongParts(RouterCase):
    def test_names_in_place_of_parts(self) -> None:
        """A policy's name and a store's path in place of the objects are ConfigErrors that say what to pass."""
        config = ir.Config(accounts=[ir.AccountConfig("mock", "a")])
        rows = (("policy", "cost_first", "Config(policy="), ("quota_store", "x.db", "SQLiteQuotaStore(path)"))
        for part_name, value, word in rows:
            with self.assertRaises(ir.ConfigError) as caught:
                ir.Router(config, [ir.MockProvider("mock")], **{part_name: value})
            self.assertIn(word, str(caught.exception))

    def test_classes_in_the_place_of_objects(self) -> None:
        """A class whose object was meant is refused by its name; one that needs no object is taken."""

        class Plain:
            @staticmethod
            def select(candidates: Any) -> Any:
                return candidates

        for name, kind in (
            ("policy", ir.FreeFirstPolicy),
            ("meter", ir.LogMeter),
            ("meter", [ir.NoopMeter(), ir.LogMeter]),
            ("health", ir.HealthConfig),
            ("quota_store", ir.MemoryQuotaStore),
            ("clock", FakeClock),
        ):
            shown = kind[-1].__name__ if isinstance(kind, list) else kind.__name__
            with self.assertRaisesRegex(ir.ConfigError, rf"{name}: is the class {shown}: pass an instance of it"):
                self.router("a", **{name: kind})
        with self.assertRaisesRegex(ir.ConfigError, r"providers\[0\]: is the class MockProvider: pass an instance of it"):
            ir.Router(ir.Config([account("a", provider="mock")]), [ir.MockProvider])
        for parts in ({"policy": Plain}, {"clock": ir.SystemClock}):
            self.assertTrue(self.router("a", **parts).chat_completion(HELLO).text)


class Policies(RouterCase):
    def test_own_policy(self) -> None:
        """Any object with select decides the order, from the facts of each candidate."""
        seen: list[Any] = []

        class Last:
            def select(self, candidates: Any) -> Any:
                seen.extend(candidates)
                return candidates[::-1]

        router = self.router("a", paid("b"), policy=Last(), config={"allow_paid": True})
        self.assertEqual(self.served_by(router, 1), ["b"])
        facts = [(each.provider, each.account_id, each.model, each.free, each.share, each.in_flight) for each in seen]
        self.assertEqual(facts, [("sim", "a", "m", True, 1.0, 0), ("sim", "b", "m", False, 1.0, 0)])
        self.assertIsNone(seen[0].price)
        self.assertAlmostEqual(seen[1].price, 0.005 / 3)

    def test_leaves_out(self) -> None:
        """What a policy leaves out is not tried, also when it is the only candidate, and is told as such."""

        class OnlyA:
            def select(self, candidates: Any) -> Any:
                return [each for each in candidates if each.account_id == "a"]

        router = self.router("b", "a", policy=OnlyA())
        self.assertEqual(self.served_by(router, 1), ["a"])
        self.simulator.fail_next(status=429, headers={"Retry-After": "7"})
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HELLO)
        asked = len(self.simulator.log)
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(HELLO)
        self.assertEqual({each.account_id: each.code for each in caught.exception.rejections}, {"a": "held", "b": "policy"})
        self.assertEqual({each.account_id: each.code for each in router.explain(HELLO).rejections}, {"a": "held", "b": "policy"})
        self.assertEqual(len(self.simulator.log), asked)

    def test_invents_and_repeats(self) -> None:
        """What a policy invents is not tried, and what it names twice is tried once."""

        class Odd:
            def select(self, candidates: Any) -> Any:
                return [{"not": "hashable"}, None, candidates[0], candidates[0], candidates[0]._replace(account_id="x")]

        router = self.router("a", "b", policy=Odd())
        self.simulator.fail_next(1, status=503)
        with self.assertRaises(ir.AllCandidatesFailedError) as caught:
            router.chat_completion(HELLO)
        self.assertEqual([each.account_id for each in caught.exception.attempts], ["a"])

    def test_raising(self) -> None:
        """A policy that fails is a ConfigError, in calls and in explain, and nothing is left reserved."""

        class Broken:
            def select(self, candidates: Any) -> Any:
                raise ZeroDivisionError

        class Nothing:
            def select(self, candidates: Any) -> Any:
                return None

        for policy in (Broken(), Nothing()):
            router = self.router("a", policy=policy)
            for call in (router.chat_completion, router.stream, router.explain):
                with self.assertRaisesRegex(ir.ConfigError, type(policy).__name__):
                    call(HELLO)
            self.assertEqual((used(router, "a"), router.status()["a"].in_flight), ({"rpd": 0, "tpd": 0}, 0))

    def test_any_iterable(self) -> None:
        """A policy may sort its list in place, or give an iterator, over one candidate as over several."""

        class InPlace:
            def select(self, candidates: Any) -> Any:
                candidates.sort(key=lambda each: each.account_id, reverse=True)
                return candidates

        class Lazy:
            def select(self, candidates: Any) -> Any:
                return reversed(candidates)

        for policy in (InPlace(), Lazy()):
            for accounts in (("a",), ("a", "b")):
                self.assertEqual(self.served_by(self.router(*accounts, policy=policy), 1), [accounts[-1]])

    def test_no_policy(self) -> None:
        """An object without select is not a policy."""
        with self.assertRaisesRegex(ir.ConfigError, "select"):
            self.router("a", policy=object())


class ForeignFaults(RouterCase):
    """A user's own provider, clock or signal handler raises what it likes."""

    def faulty(self, meter: Any = None, **methods: Any) -> Any:
        """A router over a provider with these methods replaced, and a good one behind it."""
        kind = type("Own", (ir.OpenAICompatProvider,), methods)
        accounts = [account("a", provider="own"), account("b", provider="sim")]
        config = ir.Config(accounts, [alias_of("own", "sim")], policy="declared_order")
        providers = [kind("own", self.url), ir.OpenAICompatProvider("sim", self.url)]
        router = ir.Router(config, providers, clock=FakeClock(), meter=meter)
        self.addCleanup(router.close)
        return router

    def test_decoding(self) -> None:
        """A foreign exception while decoding becomes a failure of that candidate, and the reservation is charged."""

        def broken(*args: Any) -> Any:
            raise ZeroDivisionError

        for name, way in (("decode", unary), ("decoder", streamed)):
            router = self.faulty(**{name: broken})
            self.assertEqual(way(router).routing.account_id, "b")
            self.assertEqual(router.status()["a"].in_flight, 0)
            self.assertGreater(used(router, "a")["tpd"], HELLO.max_tokens)

    def test_half_an_answer(self) -> None:
        """What a provider gives back instead of an answer ends its attempt once, and the next candidate serves."""
        meter = ListMeter()
        nothing = SimpleNamespace(usage=ir.Usage(3, 4, 7))
        router = self.faulty(meter, decode=lambda *args: nothing)
        self.assertEqual(unary(router).routing.account_id, "b")
        self.assertEqual([event.account_id for event in meter.results], ["a", "b"])

    def test_reading_an_error(self) -> None:
        """A foreign exception while reading a refusal becomes a failure of that candidate."""
        router = self.faulty(error=lambda *args, **more: 1 / 0)
        self.simulator.fail_next(2, status=503)
        with self.assertRaises(ir.AllCandidatesFailedError) as caught:
            router.chat_completion(HELLO)
        first = caught.exception.attempts[0].error
        self.assertIs(type(first), ir.ProviderUnavailableError)
        self.assertIsInstance(first.__cause__, ZeroDivisionError)
        self.assertIn("ZeroDivisionError inside the provider's own code", str(first))

    def test_encoding(self) -> None:
        """A foreign exception while encoding, or while saying what cannot be said, is the request's fault; nothing is held."""
        for name in ("encode", "unsupported"):
            router = self.faulty(**{name: lambda *args: 1 / 0})
            for way in METHODS.values():
                with self.assertRaisesRegex(ir.InvalidRequestError, "ZeroDivisionError"):
                    way(router)
            self.assertEqual((used(router, "a"), router.status()["a"].in_flight), ({"rpd": 0, "tpd": 0}, 0))

    def test_what_was_dropped(self) -> None:
        """What a request lost is what its encoding says; only a provider whose encoding does not say is asked beside it."""
        asked: list[str] = []

        def unsupported(provider: Any, request: Any, model: str) -> tuple[str, ...]:
            asked.append(model)
            return ("seed",)

        def encode(dropped: Any) -> Any:
            def own(provider: Any, *args: Any) -> Any:
                return replace(ir.OpenAICompatProvider.encode(provider, *args), dropped=dropped)

            return own

        def without(provider: Any, *args: Any) -> Any:
            found = ir.OpenAICompatProvider.encode(provider, *args)
            return SimpleNamespace(**{name: getattr(found, name) for name in ("url", "body", "headers", "method")})

        for methods, dropped, times in (
            ({}, ("seed",), 1),
            ({"encode": encode(())}, (), 1),
            ({"encode": encode(("stop",))}, ("stop",), 1),
            ({"encode": encode(None)}, ("seed",), 2),
            ({"encode": without}, ("seed",), 2),
        ):
            for way in METHODS.values():
                asked.clear()
                answer = way(self.faulty(unsupported=unsupported, **methods))
                self.assertEqual((answer.routing.dropped, len(asked)), (dropped, times))

    def test_in_the_middle_of_a_stream(self) -> None:
        """A foreign exception in the middle of a stream is an interruption with what came."""
        good = part("openai_stream").OpenAIDecoder

        class Trap(good):  # type: ignore[misc,valid-type]  # the class is looked up at run time
            def read(self, event: str, item: Any, source: str) -> Any:
                if item["choices"] and item["choices"][0]["finish_reason"]:
                    raise ZeroDivisionError
                return super().read(event, item, source)

        with Simulator(chunk_delay_s=0.002) as slow:
            config = ir.Config([account("a", provider="own")], [alias_of("own")])
            kind = type("Own", (ir.OpenAICompatProvider,), {"decoder": lambda self, model: Trap(self)})
            with ir.Router(config, [kind("own", slow.base_url)], clock=FakeClock()) as router:
                with self.assertRaises(ir.StreamInterruptedError) as caught:
                    streamed(router)
                self.assertEqual(router.status()["a"].in_flight, 0)
        self.assertTrue(caught.exception.partial.text)
        self.assertIsInstance(caught.exception.cause.__cause__, ZeroDivisionError)

    def test_interrupt(self) -> None:
        """An interrupt from outside passes as it is; its reservation stays charged, and nothing stays in flight."""
        for way in METHODS.values():
            provider = ir.MockProvider("sim", [KeyboardInterrupt()])
            config = ir.Config([account("a", provider="sim")], [alias_of("sim")])
            with ir.Router(config, [provider], clock=FakeClock()) as router:
                with self.assertRaises(KeyboardInterrupt):
                    way(router)
                self.assertEqual(router.status()["a"].in_flight, 0)
                self.assertGreater(used(router, "a")["tpd"], HELLO.max_tokens)
                self.assertTrue(way(router).text)

    def test_interrupt_in_a_meter(self) -> None:
        """An interrupt while a meter runs leaves nothing in flight either."""

        class Interrupting(ListMeter):
            def on_route(self, event: Any) -> None:
                raise KeyboardInterrupt

        router = self.router("a", meter=Interrupting())
        with self.assertRaises(KeyboardInterrupt):
            router.chat_completion(HELLO)
        self.assertEqual(router.status()["a"].in_flight, 0)

    def test_interrupted_probe(self) -> None:
        """A probe that is interrupted gives its turn back."""
        clock = FakeClock()
        provider = ir.MockProvider("sim", [503, KeyboardInterrupt(), "well again"])
        config = ir.Config([account("a", provider="sim")], [alias_of("sim")])
        with ir.Router(config, [provider], clock=clock, health=ir.HealthConfig(failure_threshold=1)) as router:
            with self.assertRaises(ir.AllCandidatesFailedError):
                router.chat_completion(HELLO)
            clock.advance(30)
            with self.assertRaises(KeyboardInterrupt):
                router.chat_completion(HELLO)
            self.assertEqual(router.chat_completion(HELLO).text, "well again")

    def test_anywhere_else(self) -> None:
        """A fault in declaring a model, in saying what is unsupported, or in the clock, leaves as ours with its cause."""

        def fail(*args: object) -> Any:
            raise KeyError("own fault")

        asked = ir.ChatRequest("Hi", model="mock/m", seed=1, require=["seed"])
        for broken in ("declares", "unsupported", "clock"):
            provider, clock = ir.MockProvider("mock"), FakeClock()
            config = ir.Config(accounts=[ir.AccountConfig(provider="mock", id="a")])
            with self.subTest(broken=broken), ir.Router(config, [provider], clock=clock) as router:
                if broken == "clock":
                    clock.monotonic = fail
                else:
                    setattr(provider, broken, fail)
                for call in (router.chat_completion, router.stream, router.explain):
                    with self.assertRaises(ir.InferRouterError) as caught:
                        call(asked)
                    self.assertIsInstance(caught.exception.__cause__, KeyError)

    def test_broken_store(self) -> None:
        """A store that fails refuses the call before anybody is asked; with on_store_error "ignore" it is served."""

        class Broken(ir.MemoryQuotaStore):  # type: ignore[misc,name-defined]  # the class is looked up at run time
            def reserve(self, wants: Any, now: float) -> Any:
                raise ZeroDivisionError

        asked = len(self.simulator.log)
        router = self.router("a", quota_store=Broken())
        with self.assertRaisesRegex(ir.QuotaStoreError, "on_store_error"):
            router.chat_completion(HELLO)
        self.assertEqual((len(self.simulator.log), router.status()["a"].in_flight), (asked, 0))
        quota = ir.QuotaConfig(on_store_error="ignore")
        router = self.router("a", quota_store=Broken(), config={"quota": quota})
        self.assertTrue(router.chat_completion(HELLO).text)


class NoSuchPart(unittest.TestCase):
    def test_wrong_parts(self) -> None:
        """What cannot be a store, policy, meter, health or clock is told at once, all of it in one ConfigError."""
        parts: dict[str, Any] = dict.fromkeys(("quota_store", "policy", "meter", "health", "clock"), 5)
        with self.assertRaises(ir.ConfigError) as caught:
            ir.Router(ir.Config(accounts=[ir.AccountConfig("openai", "a")]), **parts)
        self.assertEqual([problem.partition(":")[0] for problem in caught.exception.problems], list(parts))

    def test_clock_that_raises(self) -> None:
        """A clock that raises while the router is made is an error of this library too."""
        clock = FakeClock()
        clock.time = lambda: 1 / 0  # type: ignore[method-assign]  # it shall raise
        with self.assertRaises(ir.InferRouterError) as caught:
            ir.Router(ir.Config(accounts=[ir.AccountConfig("openai", "a")]), clock=clock)
        self.assertIsInstance(caught.exception.__cause__, ZeroDivisionError)


if __name__ == "__main__":
    unittest.main()
