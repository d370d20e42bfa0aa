"""Waiting in line: first come, first served, one look at a time, and nobody behind somebody he has nothing in common with."""

from __future__ import annotations

import threading
import time
import unittest
from typing import Any

from tests import ir, part
from tests.fakes import NOON, FakeClock, alias_of

lines_module, memory = part("waiting_line"), part("quota_memory")


class FastClock:
    """The machine's clock, so many times as fast."""

    def __init__(self, times: float) -> None:
        self._times = times
        self._began = time.monotonic()

    def monotonic(self) -> float:
        return (time.monotonic() - self._began) * self._times

    def time(self) -> float:
        return NOON + self.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / self._times)


class Looking(memory.MemoryQuotaStore):  # type: ignore[misc, name-defined]  # the package is a value here
    """Counts how often it was asked for a reservation or for what is left."""

    looks = 0

    def headroom(self, keys: Any, now: float) -> Any:
        self.looks += 1
        return super().headroom(keys, now)


class Order(unittest.TestCase):
    def setUp(self) -> None:
        self.lines = lines_module.Lines()

    def place(self, kind: str = "chat", total: int = 10, joined: bool = True) -> Any:
        place = self.lines.place("fast", kind, total)
        if joined:
            self.lines.join(place, 1.0)
        return place

    def test_by_number(self) -> None:
        """Who came first is first, whenever they joined; those behind know whom they wait for."""
        late, early = self.lines.place("fast", "chat", 10), self.lines.place("fast", "chat", 10)
        late, early = early, late
        self.lines.join(late, 1.0)
        self.assertIsNone(self.lines.leader(late))
        self.lines.join(early, 1.0)
        self.assertIs(self.lines.leader(late), early)
        self.assertIsNone(self.lines.leader(early))

    def test_leaving_rings_the_next(self) -> None:
        """Who leaves wakes those who have nobody before them now, and nobody else; leaving twice wakes nobody."""
        first, second, third = self.place(), self.place(), self.place()
        self.lines.leave(first)
        self.assertEqual([each.rung for each in (first, second, third)], [False, True, False])
        second.rung = False
        self.lines.leave(first)
        self.assertFalse(second.rung)

    def test_others_beside(self) -> None:
        """Another kind, or less than those before need, has nobody before it; as much or more has."""
        self.place()
        self.assertIsNone(self.lines.leader(self.place("embed")))
        self.assertIsNone(self.lines.leader(self.place(total=9)))
        self.assertIsNotNone(self.lines.leader(self.place(total=10)))
        self.assertIsNotNone(self.lines.leader(self.place(total=11)))
        self.assertIsNone(self.lines.leader(self.lines.place("slow", "chat", 50)))

    def test_something_is_given_back(self) -> None:
        """All who are first look when something was given back."""
        first, second, small, other = self.place(), self.place(), self.place(total=3), self.place("embed")
        self.lines.freed()
        self.assertEqual([each.rung for each in (first, second, small, other)], [True, False, True, True])


class Served(unittest.TestCase):
    def in_turn(self, count: int, clock: Any, limits: dict[str, int], wait: float) -> tuple[list[int], Looking]:
        """In which order so many threads were served that came one after the other and wait for slots."""
        store, provider = Looking(), ir.MockProvider("mock")
        account = ir.AccountConfig("mock", "a", limits=limits)
        config = ir.Config([account], [alias_of("mock")])
        with ir.Router(config, [provider], clock=clock, quota_store=store) as router:
            for _ in range(limits["rpm"]):
                router.chat_completion(ir.ChatRequest("hi", model="chat"))

            def come(number: int) -> None:
                request = ir.ChatRequest(f"number {number:03}", model="chat", max_tokens=20)
                router.chat_completion(request, max_wait=wait)

            store.looks = 0
            threads = [threading.Thread(target=come, args=(number,), daemon=True) for number in range(count)]
            line = router._runtime.lines._lines.setdefault("chat", {})
            for number, thread in enumerate(threads):
                thread.start()
                ends = time.monotonic() + 5
                while len(line) + len(provider.calls) - limits["rpm"] <= number and time.monotonic() < ends:
                    time.sleep(0.0005)
            for thread in threads:
                thread.join(20)
        texts = [call.body["messages"][0]["content"] for call in provider.calls]
        return [int(text.split()[1]) for text in texts if text != "hi"], store

    def test_threads_are_served_in_the_order_they_came(self) -> None:
        """Twenty threads wait for one slot a minute: each gets the slot after the one before, and nobody else looked for it."""
        served, store = self.in_turn(20, FastClock(3000.0), {"rpm": 1}, 1e6)
        self.assertEqual(served, list(range(20)))
        self.assertLessEqual(store.looks, 20 * 5)

    def test_many_slots_at_once(self) -> None:
        """Where several slots free at once as many are served at once, in order."""
        served, _ = self.in_turn(20, FastClock(600.0), {"rpm": 10}, 1e6)
        self.assertEqual(sorted(served), list(range(20)))
        self.assertEqual(set(served[:10]), set(range(10)))

    def test_on_the_machines_clock(self) -> None:
        """A slot that is given back early wakes the first in line at once, and a router that closes wakes all."""
        gate = threading.Event()
        slow = [ir.MockReply("one", usage=ir.Usage(1, 1, 2))]
        provider = ir.MockProvider("mock", [lambda body: gate.wait(5) and slow[0]])
        account = ir.AccountConfig("mock", "a", limits={"tpm": 1100})
        answers: list[str] = []
        with ir.Router(ir.Config([account], [alias_of("mock")]), [provider]) as router:

            def ask(text: str) -> None:
                answers.append(router.chat_completion(ir.ChatRequest(text, model="chat"), max_wait=100).text)

            threads = [threading.Thread(target=ask, args=(text,), daemon=True) for text in ("first", "second")]
            threads[0].start()
            while not provider.calls:
                time.sleep(0.001)
            threads[1].start()
            while not router._runtime.lines._lines.get("chat"):
                time.sleep(0.001)
            began = time.monotonic()
            gate.set()  # the first answer gives nearly all of its tokens back
            for thread in threads:
                thread.join(5)
            self.assertLess(time.monotonic() - began, 3)
        self.assertEqual(len(answers), 2)

    def test_who_cannot_wait_that_long(self) -> None:
        """A call that may not wait until the first in line is served is refused at once, not after its patience."""
        clock = FakeClock()
        account = ir.AccountConfig("mock", "a", limits={"rpm": 1})
        with ir.Router(ir.Config([account], [alias_of("mock")]), [ir.MockProvider("mock")], clock=clock) as router:
            router.chat_completion(ir.ChatRequest("hi", model="chat"))
            lines = router._runtime.lines
            lines.join(lines.place("chat", (False, frozenset(), False, ()), 5), clock.monotonic() + 50)
            with self.assertRaises(ir.NoCandidatesError):
                router.chat_completion(ir.ChatRequest("hi", model="chat"), max_wait=10)
            self.assertEqual(clock.slept, [])
            self.assertEqual(len(lines._lines["chat"]), 1)

    def test_patience_ends_in_line(self) -> None:
        """Who waits behind others and is not served in time is refused, with the reasons, and leaves the line."""
        account = ir.AccountConfig("mock", "a", limits={"rpm": 1})
        clock = FastClock(300.0)
        with ir.Router(ir.Config([account], [alias_of("mock")]), [ir.MockProvider("mock")], clock=clock) as router:
            router.chat_completion(ir.ChatRequest("hi", model="chat"))
            lines = router._runtime.lines
            lines.join(lines.place("chat", (False, frozenset(), False, ()), 5), clock.monotonic() + 5)
            with self.assertRaises(ir.NoCandidatesError) as caught:
                router.chat_completion(ir.ChatRequest("hi", model="chat"), max_wait=20)
            self.assertEqual([each.code for each in caught.exception.rejections], ["limit"])
            self.assertEqual(len(lines._lines["chat"]), 1)


if __name__ == "__main__":
    unittest.main()
