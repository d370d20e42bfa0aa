"""KeyboardInterrupt at any bytecode of a call: nothing stays in flight, no probe is lost, and the next call works.

`tests/benchmarks/bench_interrupts.py` does the same at a thousand points and more, with real signals too.
"""

from __future__ import annotations

import random
import unittest
from collections.abc import Callable
from functools import partial
from typing import Any

from tests import ir
from tests.fakes import HELLO, FakeClock, account, alias_of, streamed, unary
from tests.interrupts import Stepper, steps_of

POINTS = 40
"""How many points of each kind of call are tried here."""


def embed(router: Any) -> Any:
    return router.embed(ir.EmbedRequest(["a", "b"], model="chat"))


def stopped(router: Any) -> None:
    """A stream that its caller leaves after the first chunk."""
    with router.stream(HELLO) as stream:
        next(stream)


CALLS: dict[str, Callable[[Any], Any]] = {"unary": unary, "stream": streamed, "stopped": stopped, "embed": embed}


class Fixture:
    """A router over one account whose provider answers `status` while that is not 200."""

    def __init__(self, **parts: Any) -> None:
        self.status = 200
        self.clock = FakeClock()
        provider = ir.MockProvider(default=lambda body: self.status if self.status != 200 else "one two three")
        config = ir.Config(accounts=[account("mock")], models=[alias_of("mock")])
        parts.setdefault("health", ir.HealthConfig(failure_threshold=1))
        self.router = ir.Router(config, [provider], clock=self.clock, **parts)

    def state(self) -> Any:
        return self.router.status()["mock"]

    def trip(self) -> None:
        """Open the breaker, and let its rest pass: the next call is the probe."""
        self.status = 503
        try:
            self.router.chat_completion(HELLO)
        except ir.InferRouterError:
            self.status = 200
        self.clock.advance(31)


class AtAnyPoint(unittest.TestCase):
    def points(self, name: str, call: Callable[[Any], Any], probe: bool) -> list[int]:
        """Some steps of such a call, always the same ones."""
        fixture = Fixture()
        call(fixture.router)
        if probe:
            fixture.trip()
        steps = steps_of(lambda: call(fixture.router))
        return sorted(random.Random(name).sample(range(1, steps + 1), POINTS))

    def test_nothing_stays_in_flight(self) -> None:
        """Wherever a call is cut off, none is under way afterwards, and the next is answered."""
        for name, call in CALLS.items():
            fixture = Fixture()
            call(fixture.router)
            for at in self.points(name, call, False):
                cut = Stepper(partial(call, fixture.router), at)
                self.assertEqual(fixture.state().in_flight, 0, (name, cut.place))
                self.assertEqual(fixture.router.chat_completion(HELLO).text, "one two three", (name, cut.place))

    def test_no_probe_is_lost(self) -> None:
        """Wherever the one call that a half-open breaker admits is cut off, the next one is admitted at once."""
        for name, call in CALLS.items():
            fixture = Fixture()
            call(fixture.router)
            for at in self.points(name, call, True):
                fixture.trip()
                cut = Stepper(partial(call, fixture.router), at)
                self.assertEqual(fixture.state().in_flight, 0, (name, cut.place))
                self.assertEqual(fixture.router.chat_completion(HELLO).text, "one two three", (name, cut.place))

    def test_what_failed_is_settled_as_it_failed(self) -> None:
        """An interrupt in the midst of settling a refused call leaves nothing half settled: all is given back, or nothing."""
        fixture = Fixture(health=ir.HealthConfig(failure_threshold=10**6))

        def refused() -> None:
            fixture.status = 400
            try:
                fixture.router.chat_completion(HELLO)
            except ir.InvalidRequestError:
                return

        refused()
        steps = steps_of(refused)
        for at in sorted(random.Random(1).sample(range(steps // 2, steps + 1), POINTS)):
            before = fixture.state()
            cut = Stepper(refused, at)
            after = fixture.state()
            requests, tokens = (new.used - old.used for old, new in zip(before.limits[:2], after.limits[:2], strict=True))
            self.assertIn((requests, tokens > 0), {(0, False), (1, True)}, cut.place)
            self.assertEqual(after.in_flight, 0, cut.place)


if __name__ == "__main__":
    unittest.main()
