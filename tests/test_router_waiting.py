"""How long a call may take: waiting for a slot, timeouts, and seconds that are none."""

from __future__ import annotations

import math
import time
import unittest
from typing import Any

from tests import ir, part
from tests.cases import RouterCase
from tests.fakes import HELLO, METHODS, NOON, FakeClock, account, used

Fault = part("simulator").Fault


class Waiting(RouterCase):
    def limited(self, clock: FakeClock) -> tuple[Any, float]:
        """A router whose only slot this minute is taken, and when the next one is free."""
        router = self.router(account("a", provider="sim", limits={"rpm": 1}), clock=clock)
        router.chat_completion(HELLO)
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(HELLO)
        self.assertTrue(NOON + 59 < caught.exception.retry_at < NOON + 63)
        return router, caught.exception.retry_at

    def test_sleeps_exactly_long_enough(self) -> None:
        """A call that may wait sleeps exactly until the soonest is free, once, and is served."""
        for method in METHODS.values():
            clock = FakeClock()
            router, free_at = self.limited(clock)
            self.assertEqual(method(router, max_wait=70).routing.account_id, "a")
            self.assertEqual(clock.slept, [free_at - NOON])

    def test_not_long_enough(self) -> None:
        """A slot that is further away than max_wait is not waited for."""
        clock = FakeClock()
        router, free_at = self.limited(clock)
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(HELLO, max_wait=free_at - NOON - 0.01)
        self.assertEqual((clock.slept, caught.exception.retry_at), ([], free_at))

    def test_timeout_bounds_the_wait(self) -> None:
        """A slot that is further away than the call's timeout is not waited for."""
        clock = FakeClock()
        router, _ = self.limited(clock)
        with self.assertRaises(ir.NoCandidatesError):
            router.chat_completion(HELLO, timeout=30, max_wait=100)
        self.assertEqual(clock.slept, [])

    def test_configured(self) -> None:
        """The configuration's max_wait is the default."""
        clock = FakeClock()
        settings = account("a", provider="sim", limits={"rpm": 1})
        router = self.router(settings, config={"max_wait": 70.0}, clock=clock)
        self.assertEqual(self.served_by(router, 2), ["a", "a"])
        self.assertEqual(len(clock.slept), 1)

    def test_after_429(self) -> None:
        """A 429 everywhere is waited for as long as the provider asked, and the attempts go on counting."""
        clock = FakeClock()
        router = self.router("a", clock=clock)
        self.simulator.fail_next(status=429, headers={"Retry-After": "7"})
        answer = router.chat_completion(HELLO, max_wait=10)
        self.assertEqual((clock.slept, answer.routing.attempts), ([7.0], 2))

    def test_waits_add_up(self) -> None:
        """All waits of a call together stay within max_wait."""
        clock = FakeClock()
        router = self.router("a", clock=clock)
        self.simulator.fail_next(3, status=429, headers={"Retry-After": "4"})
        with self.assertRaises(ir.AllCandidatesFailedError) as caught:
            router.chat_completion(HELLO, max_wait=10)
        self.assertEqual((clock.slept, len(caught.exception.attempts)), ([4.0, 4.0], 3))
        self.assertEqual(caught.exception.retry_at, NOON + 12)

    def test_a_hold_before_a_full_limit(self) -> None:
        """Where a hold is over before a limit frees, nobody waits for the hold alone, and the error names the limit's end."""
        clock, midnight = FakeClock(), NOON + 12 * 3600
        router = self.router(account("a", provider="sim", limits={"rpd": 1}), clock=clock)
        self.simulator.fail_next(status=429, headers={"Retry-After": "7"})
        for kind in (ir.AllCandidatesFailedError, ir.NoCandidatesError):
            with self.assertRaises(kind) as caught:
                router.chat_completion(HELLO, max_wait=60)
            self.assertEqual((caught.exception.retry_at, clock.slept), (midnight, []))
        self.assertTrue(router.chat_completion(HELLO, max_wait=12 * 3600).text)
        self.assertEqual(len(clock.slept), 1)
        router = self.router(
            account("a", provider="sim", limits={"rpd": 1}), account("b", provider="sim", limits={"rpm": 1}), clock=clock
        )
        for _ in range(2):
            router.chat_completion(HELLO)
        router.rest("a", 5)
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(HELLO)
        self.assertAlmostEqual(caught.exception.retry_at, clock.now + 60, delta=2)

    def test_a_hold_of_what_never_fits(self) -> None:
        """A hold on an account that could not serve the call anyway is not waited for."""
        router = self.router(account("a", provider="sim", limits={"tpm": 60}), clock=FakeClock())
        router.rest("a", 5)
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(ir.ChatRequest("Hello!", model="chat", max_tokens=500))
        self.assertIsNone(caught.exception.retry_at)

    def test_an_allowance_and_a_limit_are_spent(self) -> None:
        """Where the allowance is back before a limit is, the limit's end is named, in calls as in a dry run."""
        clock = FakeClock()
        router = self.router(account("a", provider="sim", daily_free=2, limits={"rpweek": 2}), clock=clock)
        for _ in range(2):
            router.chat_completion(HELLO)
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(HELLO, max_wait=86_400)
        monday = NOON + 3.5 * 86_400
        self.assertEqual((caught.exception.retry_at, clock.slept), (monday, []))
        self.assertIn("the limit of 2 requests per week is used up too", str(caught.exception))
        self.assertEqual([each.retry_at for each in router.explain(HELLO).rejections], [monday])
        self.assertTrue(router.chat_completion(HELLO, max_wait=4 * 86_400).text)
        router = self.router(account("a", provider="sim", daily_free=1, limits={"rpd": 0}), clock=clock)
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(HELLO)
        self.assertIsNone(caught.exception.retry_at)

    def test_an_allowance_and_a_cap_are_spent(self) -> None:
        """Where the allowance is back before the spend cap is, the allowance's moment is named."""
        clock = FakeClock()
        settings = {"daily_free": 1, "reset": "rolling", "paid_enabled": True, "max_daily_spend": "1 request", "limits": {}}
        router = self.router(account("a", provider="sim", **settings), config={"allow_paid": True}, clock=clock)
        self.assertTrue(router.chat_completion(HELLO).routing.free)
        clock.advance(13 * 3600)
        self.assertFalse(router.chat_completion(HELLO).routing.free)
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(HELLO)
        self.assertTrue(NOON + 24 * 3600 <= caught.exception.retry_at < NOON + 25 * 3600)
        clock.now = caught.exception.retry_at
        self.assertTrue(router.chat_completion(HELLO).routing.free)

    def test_waits_of_many_batches_add_up(self) -> None:
        """A call for more vectors than one request takes waits no longer in all than max_wait."""
        clock = FakeClock()
        router = self.router(account("a", provider="sim", limits={"rpm": 1}), clock=clock)
        request = ir.EmbedRequest(["text"] * 500, model="chat")
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.embed(request, max_wait=150)
        self.assertEqual(len(clock.slept), 2)
        self.assertLess(sum(clock.slept), 150)
        self.assertIn("max_wait are too short", str(caught.exception))
        clock.advance(60)
        self.assertEqual(len(router.embed(request, max_wait=300).embeddings), 500)

    def test_failures_are_not_waited_for(self) -> None:
        """Only limits are waited for: a failure among the answers ends the call."""
        clock = FakeClock()
        router = self.router("a", "b", config={"policy": "declared_order"}, clock=clock)
        self.simulator.fail_next(status=429, headers={"Retry-After": "1"})
        self.simulator.fail_next(status=503)
        with self.assertRaises(ir.AllCandidatesFailedError):
            router.chat_completion(HELLO, max_wait=100)
        self.assertEqual(clock.slept, [])

    def test_timeout(self) -> None:
        """A call's timeout bounds the whole walk: it ends in time, with what was tried so far."""
        router = self.router("a", "b", clock=ir.SystemClock())
        for method in METHODS.values():
            self.simulator.script([Fault("slow", seconds=5)])
            began = time.monotonic()
            with self.assertRaises(ir.AllCandidatesFailedError) as caught:
                method(router, timeout=0.1)
            self.assertLess(time.monotonic() - began, 1.0)
            self.assertEqual([type(each.error) for each in caught.exception.attempts], [ir.AttemptTimeoutError])

    def test_no_time(self) -> None:
        """A timeout of 0 seconds asks nobody and reserves nothing."""
        router = self.router("a")
        asked = len(self.simulator.log)
        with self.assertRaises(ir.AttemptTimeoutError):
            router.chat_completion(HELLO, timeout=0)
        self.assertEqual((len(self.simulator.log) - asked, used(router, "a")["rpd"]), (0, 0))

    def test_wrong_seconds(self) -> None:
        """A timeout or max_wait that is not a number of seconds is the caller's error; an endless one is not."""
        router = self.router("a")
        for name in ("timeout", "max_wait"):
            for value in (-1, math.nan, True, "5", [5]):
                with self.subTest(name, value=value), self.assertRaisesRegex(ir.InvalidRequestError, name):
                    router.chat_completion(HELLO, **{name: value})
            for value in (math.inf, 10**400):
                self.assertTrue(router.chat_completion(HELLO, **{name: value}).text)

    def test_wrong_request(self) -> None:
        """What is not a request is the caller's error, in every method."""
        router = self.router("a")
        for method in (router.chat_completion, router.stream, router.explain, router.embed):
            with self.assertRaisesRegex(ir.InvalidRequestError, "not str"):
                method("Hello!")


if __name__ == "__main__":
    unittest.main()
