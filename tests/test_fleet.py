"""The fleet benchmark in short, on a clock that only moves when told: how much is served and how little is refused."""

from __future__ import annotations

import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import ir, part, rounds
from tests.benchmarks import fleet

simulator = part("simulator")


class SteppedClock:
    """Time passes in sleeps alone; what is due meanwhile happens in them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return fleet.EDGE + self.now

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self.due and self.due[0][0] <= until:
            self.now, happen = self.due.pop(0)
            happen()
        self.now = until


class Short(unittest.TestCase):
    def run_for(self, name: str, minutes: int) -> Any:
        """A scenario of the benchmark by one caller who always wants more."""
        clock, learns = SteppedClock(), name in fleet.LEARNS
        skipped = 60.0 if learns else 0.0
        ends = skipped + 60.0 * minutes
        keys = {key: simulator.KeyLimits(rpm=rpm) for key, rpm in zip(fleet.KEYS, fleet.RPM, strict=True)}
        tally, others = fleet.Tally(clock), fleet.Tally(clock)
        with simulator.Simulator("openai", keys=keys, clock=clock.time) as provider, tempfile.TemporaryDirectory() as folder:
            url = provider.base_url
            if name == "foreign":
                clock.due = self.foreign(url, others, ends)
            spans = [ends] if name != "restarts" else [fleet.RESTART_S * number for number in range(1, 2 * minutes + 1)]
            memory = ir.MemoryQuotaStore()
            for until in spans:
                store = ir.SQLiteQuotaStore(Path(folder) / "quota.sqlite") if name == "restarts" else memory
                factor = 2 if name in ("twice", "silent") else 1
                with store, fleet.opened(url, tally, store, factor, name == "silent") as router:
                    self.use(router, clock, until)
        return fleet.Result(*tally.between(skipped, ends), sum(fleet.RPM) * minutes - others.between(skipped, ends)[0])

    def use(self, router: Any, clock: SteppedClock, until: float) -> None:
        while clock.now < until:
            try:
                router.chat_completion(ir.ChatRequest("hello", max_tokens=20), max_wait=until - clock.now)
            except ir.InferRouterError:
                clock.sleep(min(1.0, until - clock.now))

    def foreign(self, url: str, tally: Any, ends: float) -> list[tuple[float, Callable[[], None]]]:
        """What a foreign client does: its share of each account, evenly."""
        post = fleet.Client(url)
        self.addCleanup(post.close)
        events = []
        for key, rpm in zip(fleet.KEYS, fleet.RPM, strict=True):
            pause = 60 / (rpm * fleet.FOREIGN_SHARE)
            events += [(pause * number, lambda key=key: tally.note(post(key))) for number in range(1, int(ends / pause))]
        return sorted(events, key=lambda event: event[0])

    def test_bars(self) -> None:
        """Where limits are known nearly all is served and nothing refused; where they are wrong nearly so, after a minute."""
        for name in ("known", "twice", "silent", "foreign", "restarts"):
            result = self.run_for(name, rounds(4, 1 if name in fleet.LEARNS else 2))
            least, most = fleet.BARS[name]
            with self.subTest(name, result=str(result)):
                self.assertGreaterEqual(result.shares[0], least)
                self.assertLessEqual(result.shares[1], most)


if __name__ == "__main__":
    unittest.main()
