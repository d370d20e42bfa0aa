"""Tests a quota store against threads: whoever comes in while another call is in the middle, both are counted.

Strategy: chance finds a step that is not atomic once in many runs, so little is left to it. One call is stopped at each function
that it calls, one after the other, and another call is made meanwhile in a thread of its own; where a lock makes that one wait,
the first goes on after a moment. Crowds of threads that change places as often as they can come on top. Must never know how a
store keeps its counts, nor leave the interpreter otherwise than it was.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from .conformance_store import NOON, StoreCase
from .limits import Limit
from .quota import Refusal, Reservation

CROWD = 8
PATIENCE_S = 0.002
"""How long a call is stopped for one that waits for it, as it does where the store has a lock."""
MOST_PLACES = 32
"""The most places of a call at which another one comes in; of a longer call at every second place, every third, and so on."""


class ThreadConformance(StoreCase):
    """What a store must hold of calls that come at once."""

    places = 0

    def test_threads(self) -> None:
        """Eight threads on two limits of fifty are admitted exactly fifty times."""
        self.define("requests", Limit(50, "requests", "day"))
        self.define("tokens", Limit(50 * 7, "tokens", "minute"))
        outcomes: list[object] = []

        def work() -> None:
            for _ in range(10):
                outcomes.append(self.store.reserve([("requests", 1), ("tokens", 7)], NOON))

        at_once(work)
        self.assertEqual(sum(isinstance(outcome, Reservation) for outcome in outcomes), 50)
        self.assertEqual(len(outcomes), 80)
        self.assertEqual([each.used for each in self.store.headroom(["requests", "tokens"], NOON)], [50, 350])

    def test_threads_settle_once(self) -> None:
        """Of eight threads that settle the same reservation, one does."""
        self.define("k", Limit(100, "tokens", "day"))
        taken = self.reserved([("k", 10)])
        outcomes: list[bool] = []
        at_once(lambda: outcomes.append(self.commit_one(taken, NOON)))
        self.assertEqual(sorted(outcomes), [False] * 7 + [True])
        self.assertEqual(self.headroom("k").used, 1)

    def test_threads_reserve_in_the_middle(self) -> None:
        """Of two calls that want the last of a limit one is admitted, wherever in the first the second comes."""

        def last_one(place: int) -> None:
            key = f"k{place}"
            self.define(key, Limit(1, "requests", "day"))
            kinds = [type(each) for each in self.both(place, *[lambda: self.store.reserve([(key, 1)], NOON)] * 2)]
            self.assertEqual((kinds.count(Reservation), kinds.count(Refusal)), (1, 1), self.words(place))
            self.assertEqual(self.headroom(key).used, 1, self.words(place))

        self.everywhere(last_one)

    def test_threads_settle_in_the_middle(self) -> None:
        """Of two calls that settle the same reservation one does, wherever in the first the second comes."""
        self.define("k", Limit(10**6, "tokens", "day"))

        def same_one(place: int) -> None:
            before = self.headroom("k").used
            taken = self.reserved([("k", 10)])
            settled = self.both(place, *[lambda: self.commit_one(taken, NOON)] * 2)
            self.assertEqual(sorted(settled), [False, True], self.words(place))
            self.assertEqual(self.headroom("k").used, before + 1, self.words(place))

        self.everywhere(same_one)

    def test_threads_reserve_while_another_settles(self) -> None:
        """What is reserved while another call settles counts beside what that one used, wherever it comes."""
        self.define("k", Limit(10**6, "tokens", "day"))

        def both_count(place: int) -> None:
            before = self.headroom("k").used
            taken = self.reserved([("k", 10)])
            self.both(place, lambda: self.commit_one(taken, NOON), lambda: self.store.reserve([("k", 5)], NOON))
            self.assertEqual(self.headroom("k").used, before + 6, self.words(place))

        self.everywhere(both_count)

    def test_threads_hold_in_the_middle(self) -> None:
        """Of two holds that are made at once none is lost, wherever in the first the second comes."""

        def both_hold(place: int) -> None:
            one, other = f"a{place}", f"b{place}"
            self.both(
                place,
                lambda: self.store.hold(one, NOON + 60, "first", NOON),
                lambda: self.store.hold(other, NOON + 60, "second", NOON),
            )
            self.assertLessEqual({one, other}, set(self.store.holds(NOON)), self.words(place))

        self.everywhere(both_hold)

    def everywhere(self, claim: Callable[[int], None]) -> None:
        """Makes `claim` of the places of a call; of 0 first, where no other comes before it is over, which counts them."""
        self.places = 0
        claim(0)
        for place in range(1, self.places + 1, -(-self.places // MOST_PLACES)):
            claim(place)

    def both(self, place: int, first: Callable[[], object], second: Callable[[], object]) -> list[Any]:
        """What both return, where `second` is called as `first` comes to its `place`-th call of a function, or return of one."""
        outcomes: list[Any] = []
        other = threading.Thread(target=lambda: outcomes.append(second()))
        places = 0

        def stop(*_: object) -> None:
            nonlocal places
            places += 1
            if places == place:
                other.start()
                other.join(PATIENCE_S)

        def watched() -> None:
            sys.setprofile(stop)  # of this thread alone
            try:
                outcomes.append(first())
            finally:
                sys.setprofile(None)

        in_threads(watched, 1)
        if other.ident is None:
            other.start()
        other.join()
        self.places = max(self.places, places)
        return outcomes

    def words(self, place: int) -> str:
        """Where the other call came."""
        return f"another call came in at place {place} of {self.places}"


def at_once(work: Callable[[], object]) -> None:
    """Does `work` in a crowd of threads that change places as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(work, CROWD)
    finally:
        sys.setswitchinterval(interval)


def in_threads(work: Callable[[], object], count: int) -> None:
    """Does `work` in `count` threads at once."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
