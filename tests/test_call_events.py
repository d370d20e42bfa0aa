"""The events of a call: what each says, in which order they come, and that a call ends once whichever way it does."""

from __future__ import annotations

import unittest
from typing import Any
from unittest import mock

from tests import ir
from tests.fakes import METHODS, NOON, EveryHook, FakeClock

HELLO = ir.ChatRequest("Hello!", max_tokens=50, temperature=0.5, seed=7, response_format="json_object", extra={"n": 1})
PRICES = {"cost_per_input_token": 0.001, "cost_per_output_token": 0.002}


class Told(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = FakeClock()
        self.meter = EveryHook()

    def router(self, *replies: Any, accounts: tuple[str, ...] = ("a",), **settings: Any) -> Any:
        provider = ir.MockProvider("mock", replies, sleep=self.clock.sleep)
        made = [ir.AccountConfig("mock", name, **settings) for name in accounts]
        config = ir.Config(
            made,
            [ir.ModelMapping("fast", [ir.ModelRef("mock", "m")])],
            default_model="fast",
            policy="declared_order",
            allow_paid=True,
        )
        router = ir.Router(config, [provider], clock=self.clock, meter=self.meter)
        self.addCleanup(router.close)
        return router

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.meter.events]

    def test_a_call_that_fails_over(self) -> None:
        """One id ties the attempts of a call to its end; the end sums them up."""
        for method in METHODS.values():
            self.meter.events.clear()
            router = self.router(503, "hello you", accounts=("a", "b"), limits={"rpd": 10, "tpd": 10_000})
            answer = method(router, HELLO)
            first, failed, second, served, end = self.meter.events
            self.assertEqual(self.kinds(), ["RouteEvent", "ResultEvent", "RouteEvent", "ResultEvent", "CallEvent"])
            self.assertEqual(len({event.call_id for event in self.meter.events}), 1)
            self.assertEqual({event.alias for event in self.meter.events}, {"fast"})
            self.assertEqual(
                [(event.account_id, event.attempt) for event in (first, failed, second, served)], [("a", 1)] * 2 + [("b", 2)] * 2
            )
            self.assertEqual((end.outcome, end.attempts, end.account_id, end.error), ("ok", 2, "b", None))
            self.assertEqual((end.usage, end.operation), (answer.usage, "chat"))
            self.assertEqual(end.stream, method is METHODS["stream"])

    def test_what_was_reserved_and_what_stays_charged(self) -> None:
        """The events name each bucket with what was taken beforehand and what stays charged after it."""
        router = self.router(503, "hello you", accounts=("a", "b"), limits={"rpd": 10, "tpd": 10_000})
        usage = router.chat_completion(HELLO).usage
        first, failed, _, served, _ = self.meter.events
        self.assertEqual(dict(first.reserved), {"a/rpd": 1, "a/tpd": first.estimated_tokens})
        self.assertEqual((dict(failed.reserved), dict(failed.charged)), (dict(first.reserved), {"a/rpd": 1, "a/tpd": 0}))
        self.assertEqual(dict(served.charged), {"b/rpd": 1, "b/tpd": usage.total_tokens})

    def test_an_answer(self) -> None:
        """Model, id and finish reason as the provider says them, tokens with cached and reasoning, cost, and what was asked."""
        usage = ir.Usage(100, 50, 150, 20, 30)
        router = self.router(ir.MockReply("{}", usage=usage, delay_s=2), paid_enabled=True, **PRICES)
        answer = router.chat_completion(HELLO)
        route, result, end = self.meter.events
        self.assertEqual(
            dict(route.parameters), {"max_tokens": 50, "temperature": 0.5, "seed": 7, "output": "json_object", "n": 1}
        )
        self.assertEqual((route.base_url, route.at), ("http://127.0.0.1/mock", NOON))
        self.assertEqual((result.model_answered, result.response_id), (answer.model, answer.id))
        self.assertTrue(result.model_answered and result.response_id)
        self.assertEqual((result.finish_reasons, result.first_chunk_s, result.stream), (("stop",), None, False))
        self.assertEqual((result.usage, result.duration, result.at), (usage, 2, NOON + 2))
        self.assertAlmostEqual(result.cost, 0.2)
        self.assertEqual((end.cost, end.free, end.duration), (result.cost, False, 2))

    def test_the_first_chunk_of_a_stream(self) -> None:
        """A stream says how long its first content took, and ends its call where its reader does."""
        router = self.router(ir.MockReply("hello you", delay_s=2))
        with router.stream(HELLO) as stream:
            self.assertEqual(self.kinds(), ["RouteEvent"])
            self.clock.advance(3)
            list(stream)
        self.assertEqual(self.kinds(), ["RouteEvent", "ResultEvent", "CallEvent"])
        _, result, end = self.meter.events
        self.assertEqual((result.first_chunk_s, result.duration, result.finish_reasons), (2, 5, ("stop",)))
        self.assertEqual((end.outcome, end.duration), ("ok", 5))

    def test_a_stream_that_is_left(self) -> None:
        """A stream that its reader leaves has ended well; one that is dropped ends with the next call."""
        router = self.router(default := "hello you and all", default)
        with router.stream(HELLO) as stream:
            next(stream)
        self.assertEqual([event.outcome for event in self.meter.of("CallEvent")], ["ok"])
        stream = router.stream(HELLO)
        del stream
        router.status()
        self.assertEqual([event.outcome for event in self.meter.of("CallEvent")], ["ok", "ok"])

    def test_a_stream_that_breaks(self) -> None:
        """A stream that breaks after its first content is cut, once."""
        router = self.router(ir.MockReply("hello you and all", chunks=4, cut_after=2))
        with router.stream(HELLO) as stream, self.assertRaises(ir.StreamInterruptedError) as caught:
            list(stream)
        self.assertEqual(self.kinds(), ["RouteEvent", "ResultEvent", "CallEvent"])
        end = self.meter.events[-1]
        self.assertEqual((end.outcome, end.error), ("cut", caught.exception))

    def test_a_wait(self) -> None:
        """A call that waits says who for, how long, why and until when, and has waited when it is answered."""
        router = self.router("one", "two", limits={"rpm": 1})
        router.chat_completion(HELLO)
        self.meter.events.clear()
        router.chat_completion(HELLO, max_wait=90)
        wait, route, result, end = self.meter.events
        [slept] = self.clock.slept
        self.assertEqual(self.kinds(), ["WaitEvent", "RouteEvent", "ResultEvent", "CallEvent"])
        self.assertEqual((wait.account_id, wait.model, wait.seconds, wait.until), ("a", "m", slept, NOON + slept))
        self.assertRegex(wait.reason, "0 of 1 request per minute left")
        self.assertEqual(wait.call_id, route.call_id)
        self.assertEqual((result.waited_s, end.waited_s), (slept, slept))

    def test_a_refusal(self) -> None:
        """A call that nobody can take says why nobody can, and has no attempt."""
        router = self.router("one", limits={"rpm": 1})
        router.chat_completion(HELLO)
        for method in METHODS.values():
            self.meter.events.clear()
            with self.assertRaises(ir.NoCandidatesError) as caught:
                method(router, HELLO)
            refusal, end = self.meter.events
            self.assertEqual((refusal.rejections, refusal.retry_at), (caught.exception.rejections, caught.exception.retry_at))
            self.assertEqual((end.outcome, end.attempts, end.account_id, end.call_id), ("refused", 0, "", refusal.call_id))

    def test_a_hold_begins_and_ends(self) -> None:
        """A hold is told when it begins, and its end with the first call after it; the wait in between names who is held."""
        limited = ir.MockReply(status=429, headers={"Retry-After": "7"})
        router = self.router(limited, "hello", "again")
        router.chat_completion(HELLO, max_wait=10)
        self.assertEqual(
            self.kinds(), ["RouteEvent", "ResultEvent", "HoldEvent", "WaitEvent", "RouteEvent", "ResultEvent", "CallEvent"]
        )
        begun, wait = self.meter.events[2:4]
        self.assertEqual((begun.key, begun.account_id, begun.model, begun.until, begun.begun), ("a", "a", "", NOON + 7, True))
        self.assertEqual((wait.account_id, wait.seconds, wait.reason), ("a", 7, "held: RateLimited (429)"))
        router.chat_completion(HELLO)
        ended = self.meter.of("HoldEvent")[-1]
        self.assertEqual((ended.key, ended.begun, ended.at, ended.until), ("a", False, NOON + 7, NOON + 7))
        router.chat_completion(HELLO)
        self.assertEqual(len(self.meter.of("HoldEvent")), 2)

    def test_a_model_that_is_held(self) -> None:
        """A hold of one model names it."""
        router = self.router(404, accounts=("a",))
        with self.assertRaises(ir.AllCandidatesFailedError) as caught:
            router.chat_completion(HELLO)
        [hold] = self.meter.of("HoldEvent")
        self.assertEqual((hold.key, hold.model), ("a|m", "m"))
        end = self.meter.events[-1]
        self.assertEqual((end.outcome, end.attempts, end.error), ("failed", 1, caught.exception))

    def test_texts(self) -> None:
        """Texts in several batches are one call of several attempts."""
        router = self.router()
        router.embed(ir.EmbedRequest([f"text {number}" for number in range(250)], model="m"))
        self.assertEqual(self.kinds(), ["RouteEvent", "ResultEvent"] * 3 + ["CallEvent"])
        self.assertEqual({event.operation for event in self.meter.events}, {"embeddings"})
        end = self.meter.events[-1]
        self.assertEqual((end.attempts, end.outcome), (3, "ok"))
        self.assertEqual(end.usage.prompt_tokens, sum(event.usage.prompt_tokens for event in self.meter.results))
        with self.assertRaises(ir.InferRouterError):
            self.router(400).embed(ir.EmbedRequest(["x"], model="m"))
        self.assertEqual(self.meter.events[-1].outcome, "failed")

    def test_the_end_adds_up_all_that_was_told(self) -> None:
        """Of texts in several batches, cached tokens, kinds of input and whether one is an estimate, too; so does the answer."""
        usages = [ir.Usage(100, 0, 110, 40, 0, {"audio": 30}), ir.Usage(10, 0, 10, 4, 0, {"audio": 3}, estimated=True)]
        total = ir.Usage(110, 0, 120, 44, 0, {"audio": 33}, estimated=True)
        router = self.router()
        vectors = [ir.EmbedResponse(((0.5,),) * size, "m", usage) for size, usage in zip((100, 1), usages, strict=True)]
        with mock.patch.object(ir.MockProvider, "decode_embed", side_effect=vectors):
            answer = router.embed(ir.EmbedRequest(["text"] * 101, model="m"))
        self.assertEqual((answer.usage, self.meter.events[-1].usage), (total, total))

    def test_an_interrupt(self) -> None:
        """A call that is interrupted from outside is abandoned, once, and the interrupt passes."""
        router = self.router(KeyboardInterrupt())
        with self.assertRaises(KeyboardInterrupt):
            router.chat_completion(HELLO)
        self.assertEqual(self.kinds(), ["RouteEvent", "CallEvent"])
        self.assertEqual(self.meter.events[-1].outcome, "abandoned")

    def test_what_a_provider_says_holds_no_key(self) -> None:
        """A key that a provider writes into a model's name or an id is in no event, and a long name is cut."""
        key = "sk-canary-0123456789abcdef"
        choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": f"x-{key}"}
        body = f'{{"id": "{key}", "model": "{key}{"y" * 500}", "choices": [{choice}]}}'.replace("'", '"')
        router = self.router(ir.MockReply(body=body), auth=ir.Auth(key))
        self.assertEqual(router.chat_completion(HELLO).id, key)
        [result] = self.meter.results
        self.assertNotIn("canary", repr(self.meter.events))
        self.assertLess(len(result.model_answered), 250)


if __name__ == "__main__":
    unittest.main()
