"""Sleeping until a slot is free: whoever waits is woken when the router closes, and simulated clocks sleep as they always did."""

from __future__ import annotations

import signal
import threading
import time
import unittest
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests import ir, part
from tests.fakes import HELLO, FakeClock, account, alias_of

WaitingRoom = part("waiting").WaitingRoom


def full(**parts: Any) -> Any:
    """A router whose one slot this minute is taken."""
    config = ir.Config(accounts=[account("mock", limits={"rpm": 1})], models=[alias_of("mock")])
    router = ir.Router(config, [ir.MockProvider()], **parts)
    router.chat_completion(HELLO)
    return router


def sleepers(router: Any, count: int) -> None:
    """Return once so many calls sleep in the router."""
    room, end = router._runtime.waiting, time.monotonic() + 10
    while len(room._bells) < count:
        if time.monotonic() > end:
            raise AssertionError(f"{len(room._bells)} of {count} sleep")
        time.sleep(0.002)


class Closing(unittest.TestCase):
    def test_close_wakes_every_sleeper(self) -> None:
        """Eight threads that wait a minute for a slot end at once when the router closes, and say that it is closed."""
        router = full()
        errors: list[BaseException] = []

        def wait() -> None:
            try:
                router.chat_completion(HELLO, max_wait=600)
            except BaseException as exc:
                errors.append(exc)

        running = [threading.Thread(target=wait, daemon=True) for _ in range(8)]
        for thread in running:
            thread.start()
        sleepers(router, 8)
        began = time.monotonic()
        router.close()
        for thread in running:
            thread.join(5)
        self.assertLess(time.monotonic() - began, 1.0)
        self.assertEqual(
            {(type(exc), str(exc)) for exc in errors}, {(ir.InferRouterError, "this router is closed: make a new one")}
        )
        self.assertEqual(len(errors), 8)

    def test_an_interrupted_pool_ends_with_its_router(self) -> None:
        """After Ctrl-C in a program with a pool of workers and many jobs waiting, `close` lets it end within a second."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        self.addCleanup(signal.signal, signal.SIGINT, before)
        router = full()
        jobs: list[Future[Any]] = []
        with self.assertRaises(KeyboardInterrupt), ThreadPoolExecutor(8) as pool:
            jobs += [pool.submit(router.chat_completion, HELLO, max_wait=600) for _ in range(40)]
            sleepers(router, 8)
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                began = time.monotonic()
                router.close()
        self.assertLess(time.monotonic() - began, 1.0)
        self.assertEqual({str(job.exception()) for job in jobs}, {"this router is closed: make a new one"})

    def test_close_in_a_signal_handler(self) -> None:
        """A handler may close the router in whose call it came."""
        router = full()
        before = signal.signal(signal.SIGALRM, lambda *_: router.close())
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        began = time.monotonic()
        with self.assertRaisesRegex(ir.InferRouterError, "this router is closed"):
            router.chat_completion(HELLO, max_wait=600)
        self.assertLess(time.monotonic() - began, 2.0)

    def test_a_clock_that_sleeps_by_itself(self) -> None:
        """A caller's own clock does the sleeping; a router that was closed meanwhile is noticed after it."""

        class Closes(FakeClock):
            def sleep(self, seconds: float) -> None:
                super().sleep(seconds)
                router.close()

        clock = Closes()
        router = full(clock=clock)
        with self.assertRaisesRegex(ir.InferRouterError, "this router is closed"):
            router.chat_completion(HELLO, max_wait=600)
        self.assertEqual(len(clock.slept), 1)

    def test_a_closed_room(self) -> None:
        """Nobody falls asleep in a room that is closed; closing it twice is not an error."""
        room = WaitingRoom()
        room.close()
        room.close()
        clock = FakeClock()
        with self.assertRaisesRegex(ir.InferRouterError, "closed"):
            room.sleep(5, clock)
        self.assertEqual(clock.slept, [])

    def test_the_rest_is_slept(self) -> None:
        """An open room sleeps as long as it was told, and keeps nothing of who slept."""
        room = WaitingRoom()
        began = time.monotonic()
        room.sleep(0.02, ir.SystemClock())
        self.assertGreaterEqual(time.monotonic() - began, 0.019)
        self.assertEqual(room._bells, set())


class ClosedUnderway(unittest.TestCase):
    def test_a_call_in_the_middle(self) -> None:
        """A call whose router closes between its two attempts speaks of the router, never of the store it had made itself."""
        for settings in ({}, {"on_store_error": "ignore"}):
            made: list[Any] = []

            def closes(body: Any, made: list[Any] = made) -> int:
                made[0].close()
                return 503

            accounts = [account(name, provider="mock") for name in ("a", "b")]
            config = ir.Config(accounts=accounts, models=[alias_of("mock")], **settings)
            provider = ir.MockProvider(default=closes)
            made.append(ir.Router(config, [provider], clock=FakeClock()))
            with self.assertRaises(ir.InferRouterError) as caught:
                made[0].chat_completion(HELLO)
            self.assertEqual(str(caught.exception), "this router is closed: make a new one")
            self.assertEqual(len(provider.calls), 1)

    def test_an_answer_that_came(self) -> None:
        """An answer that comes after the router closed is handed out."""
        made: list[Any] = []
        config = ir.Config(accounts=[account("mock")], models=[alias_of("mock")])
        made.append(ir.Router(config, [ir.MockProvider(default=lambda body: made[0].close() or "late")], clock=FakeClock()))
        self.assertEqual(made[0].chat_completion(HELLO).text, "late")


class Cancelling(unittest.TestCase):
    def test_one_call_is_given_up(self) -> None:
        """A call that waits a minute ends at once when it is cancelled, the one beside it waits on, and nothing is reserved."""
        for method in ("chat_completion", "stream"):
            with self.subTest(method), full() as router, ThreadPoolExecutor(2) as pool:
                cancel, other = ir.Cancel(), ir.Cancel()
                calls = [pool.submit(getattr(router, method), HELLO, max_wait=600, cancel=each) for each in (cancel, other)]
                sleepers(router, 2)
                cancel.cancel()
                self.assertRaises(ir.CallCancelledError, calls[0].result, 5)
                self.assertFalse(calls[1].done())
                other.cancel()
                self.assertIn("cancelled", str(calls[1].exception(5)))
                self.assertEqual(router.status()["mock"].limits[0].used, 1)

    def test_the_short_way(self) -> None:
        """`router.chat` takes it too, and whatever is no Cancel is refused by its type before anything is asked."""
        cancel = ir.Cancel()
        cancel.cancel()
        with full() as router:
            for stream in (False, True):
                with self.assertRaises(ir.CallCancelledError):
                    router.chat("Hi", model="mock/m", max_wait=600, cancel=cancel, stream=stream)
        with full(clock=FakeClock()) as router:
            for call in (
                lambda wrong: router.chat("Hi", model="mock/m", cancel=wrong),
                lambda wrong: router.stream(HELLO, cancel=wrong),
                lambda wrong: router.embed(ir.EmbedRequest("a", "mock/m"), cancel=wrong),
            ):
                for wrong in (5, True, threading.Event(), ir.Cancel):
                    with self.assertRaisesRegex(ir.InvalidRequestError, "cancel is an ir.Cancel, not"):
                        call(wrong)

    def test_a_call_that_was_given_up_before(self) -> None:
        """It does not sleep at all; one that need not wait is answered all the same."""
        cancel = ir.Cancel()
        cancel.cancel()
        with full() as router:
            self.assertRaises(ir.CallCancelledError, router.chat_completion, HELLO, max_wait=600, cancel=cancel)
        with full(clock=FakeClock()) as router:
            self.assertRaises(ir.CallCancelledError, router.embed, ir.EmbedRequest("a", "mock/m"), max_wait=600, cancel=cancel)


if __name__ == "__main__":
    unittest.main()
