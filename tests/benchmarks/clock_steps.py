"""Reservations over threads and processes with a clock that steps both ways: how many passed the limit, which is to be none.

`python3 -m tests.benchmarks.clock_steps [COUNT]`: so many reservations in all (20,000 by default, a few seconds; 1000000 in
full), half of them by threads on a store in memory, half by processes of threads on one file. The clock, one for all, runs and
now and then steps back or ahead by up to a window and a half, or to a place some weeks away where it never was, and home again.
Every reading at which something was admitted is kept; then each span of each window's length is looked at. A clock that runs for
a whole window in a long past, where it has been before, is believed to have been set right, and is not what is looked at here.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import threading
import time
from typing import Any

from tests import part

limits = part("limits")
quota = part("quota")
memory = part("quota_memory")
quota_sqlite = part("quota_sqlite")

START = 1_788_955_200.0
KINDS = {
    "rpm": limits.Limit(40, "requests", "minute"),
    "rph": limits.Limit(400, "requests", "hour"),
    "5h": limits.Limit(900, "requests", "5h"),
    "rpd": limits.Limit(2000, "requests", "day"),
    "week": limits.Limit(5000, "requests", "week"),
    "rolling day": limits.Limit(1500, "requests", "day", rolling=True),
}
NEAR = (-90.0, 75.0, -60.0, 61.0, -30.0, 45.0)
"""Seconds by which the clock may be off for a while."""
FAR = 1e6
"""Seconds from where it began to the first of the places where it never was, on either side; each is `APART` from the last."""
APART = 20_000.0
THREADS = 4
PROCESSES = 4
Admitted = list[tuple[str, float]]


class SteppingClock:
    """One clock for threads and processes: it runs by a step at each reading, and is sometimes set."""

    def __init__(self) -> None:
        self._shared = multiprocessing.Array(
            "d", [START, 0.0, 0.0]
        )  # how far it has run, how far it is off, how often it was set

    def read(self, dice: random.Random) -> float:
        """The time now, in epoch seconds."""
        with self._shared:
            self._shared[0] += dice.expovariate(2.0)
            if dice.random() < 0.002:
                far = dice.random() < 0.2
                home = self._shared[1] and dice.random() < 0.6
                self._shared[2] += 1
                place = START + dice.choice((-1, 1)) * (FAR + APART * self._shared[2])
                self._shared[1] = 0.0 if home else place - self._shared[0] if far else dice.choice(NEAR)
            return float(self._shared[0] + self._shared[1])

    @property
    def steps(self) -> int:
        """How often it was set."""
        return int(self._shared[2])


def main(count: int) -> int:
    """Prints a line for each store; 1 if a limit was passed."""
    over = 0
    began = time.perf_counter()
    clock = SteppingClock()
    store = memory.MemoryQuotaStore()
    store.define([quota.Bucket(key, limit) for key, limit in KINDS.items()], START)
    found = by_threads(store, clock, count // 2, 1)
    over += told("memory", count // 2, found, clock.steps, began)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/quota.db"
        with quota_sqlite.SQLiteQuotaStore(path) as store:
            store.define([quota.Bucket(key, limit) for key, limit in KINDS.items()], START)
        clock = SteppingClock()
        found_by: Any = multiprocessing.SimpleQueue()
        jobs = [
            multiprocessing.Process(target=by_process, args=(path, clock, seed, count // 2 // PROCESSES, found_by))
            for seed in range(PROCESSES)
        ]
        for job in jobs:
            job.start()
        admitted = [each for _ in jobs for each in found_by.get()]
        for job in jobs:
            job.join()
    over += told(f"sqlite, {PROCESSES} processes", count // 2, admitted, clock.steps, began)
    return 1 if over else 0


def by_process(path: str, clock: SteppingClock, seed: int, count: int, found: Any) -> None:
    with quota_sqlite.SQLiteQuotaStore(path, busy_timeout=60.0) as store:
        found.put(by_threads(store, clock, count, seed))


def by_threads(store: Any, clock: SteppingClock, count: int, seed: int) -> Admitted:
    admitted: Admitted = []

    def work(number: int) -> None:
        dice = random.Random(seed * 100 + number)
        own: Admitted = []
        for _ in range(count // THREADS):
            key = dice.choice(list(KINDS))
            now = clock.read(dice)
            taken = store.reserve([(key, 1)], now)
            if isinstance(taken, quota.Reservation):
                if dice.random() < 0.2:
                    store.rollback(taken, now)
                else:
                    own.append((key, now))
        admitted.extend(own)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return admitted


def told(what: str, count: int, admitted: Admitted, steps: int, began: float) -> int:
    """How often a limit was passed, after saying it."""
    over = sum(passed(limit, sorted(now for key, now in admitted if key == name)) for name, limit in KINDS.items())
    took = time.perf_counter() - began
    print(
        f"{what}: {count:,} reservations, {steps:,} clock steps, {len(admitted):,} kept, {over} over ({took:.0f} s)", flush=True
    )
    return over


def passed(limit: Any, readings: list[float]) -> int:
    """How many readings begin a span, or fall into a window, that holds more than the amount."""
    amount = int(limit.amount)
    if limit.rolling:
        return sum(late - early < limit.span_s for early, late in zip(readings, readings[amount:], strict=False))
    windows: dict[float, int] = {}
    end = begin = float("-inf")
    for now in readings:
        if not begin <= now < end:
            begin, end = limits.window_bounds(now, limit.window, limit.zone)
        windows[begin] = windows.get(begin, 0) + 1
    return sum(max(0, used - amount) for used in windows.values())


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
