"""Pairs of reserve and commit per second, and the worst wait. Run: python3 -m tests.benchmarks.bench_ledger [SECONDS]

A pair takes every bucket of a call and settles each to another amount. Rows: the store and who uses it; columns: 1, 3 and
8 buckets a reservation. Every figure is the best of three runs, as other work on the machine only slows it; every wait is
the worst of all three.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from tests import part

limits = part("limits")
quota = part("quota")
memory = part("quota_memory")
quota_sqlite = part("quota_sqlite")

WINDOWS = ("minute", "day", "hour")
ROUNDS = 3
Outcome = tuple[int, float]


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    print(f"{'store':34}" + "".join(f"{count:>8} buckets: pairs/s, worst ms" for count in (1, 3, 8)))
    for label, bench in (
        ("memory, 1 thread", lambda count: threads(memory.MemoryQuotaStore(), 1, count, seconds)),
        ("memory, 8 threads", lambda count: threads(memory.MemoryQuotaStore(), 8, count, seconds)),
        ("sqlite NORMAL, 1 thread", on_file(lambda path, count: threads(opened(path), 1, count, seconds))),
        ("sqlite NORMAL, 8 threads", on_file(lambda path, count: threads(opened(path), 8, count, seconds))),
        ("sqlite NORMAL, 4 processes", on_file(lambda path, count: processes(path, "NORMAL", count, seconds))),
        ("sqlite FULL, 1 thread", on_file(lambda path, count: threads(opened(path, "FULL"), 1, count, seconds))),
        ("sqlite FULL, 4 processes", on_file(lambda path, count: processes(path, "FULL", count, seconds))),
    ):
        cells = []
        for count in (1, 3, 8):
            runs = [bench(count) for _ in range(ROUNDS)]
            pairs = max(done for done, _ in runs) / seconds
            cells.append(f"{pairs:>23,.0f}, {max(worst for _, worst in runs) * 1000:>8.1f}")
        print(f"{label:34}" + "".join(cells), flush=True)


def pairs(store: Any, count: int, seconds: float) -> Outcome:
    """How many pairs fit into `seconds`, and the longest one method took, in seconds."""
    wants = tuple((bucket.key, 10) for bucket in buckets(count))
    amounts = [5] * count
    clock = time.perf_counter
    end = clock() + seconds
    done, worst, before = 0, 0.0, clock()
    while before < end:
        taken = store.reserve(wants, 1.79e9 + done * 0.001)
        between = clock()
        store.commit(taken, 1.79e9 + done * 0.001, amounts)
        after = clock()
        worst = max(worst, between - before, after - between)
        before = after
        done += 1
    return done, worst


def threads(store: Any, number: int, count: int, seconds: float) -> Outcome:
    store.define(buckets(count), 1.79e9)
    outcomes: list[Outcome] = []
    crowd = [threading.Thread(target=lambda: outcomes.append(pairs(store, count, seconds))) for _ in range(number)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    store.close()
    return sum(done for done, _ in outcomes), max(worst for _, worst in outcomes)


def processes(path: str, synchronous: str, count: int, seconds: float) -> Outcome:
    with opened(path, synchronous) as store:
        store.define(buckets(count), 1.79e9)
    with multiprocessing.Pool(4) as pool:
        outcomes = pool.starmap(process, [(path, synchronous, count, seconds)] * 4, chunksize=1)
    return sum(done for done, _ in outcomes), max(worst for _, worst in outcomes)


def process(path: str, synchronous: str, count: int, seconds: float) -> Outcome:
    with opened(path, synchronous) as store:
        return pairs(store, count, seconds)


def on_file(bench: Callable[[str, int], Outcome]) -> Callable[[int], Outcome]:
    def run(count: int) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            return bench(f"{folder}/quota.db", count)

    return run


def opened(path: str, synchronous: str = "NORMAL") -> Any:
    return quota_sqlite.SQLiteQuotaStore(path, synchronous, busy_timeout=60.0)


def buckets(count: int) -> list[Any]:
    return [quota.Bucket(f"account/{number}", limits.Limit(1e12, "tokens", WINDOWS[number % 3])) for number in range(count)]


if __name__ == "__main__":
    main()
