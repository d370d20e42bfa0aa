"""All four stores in one table: pairs of reserve and commit (3 buckets) per second, and the longest wait of a verb.

Run: python3 -m tests.benchmarks.bench_stores [SECONDS] [ROUNDS]. It starts a Redis (append-only file synced every second, as is
usual) and a PostgreSQL of its own; without them, or without redis-py and psycopg, it shows memory and sqlite alone. "1 ms" is
added each way by a proxy in a process of its own. First, for each server, its floor in the same run: two empty round trips
by one thread. Every figure is the median of the rounds; each wait is the longest of all.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import part
from tests.quota_servers import PostgresServer, RedisServer, far_away

limits = part("limits")
quota = part("quota")
WINDOWS = ("minute", "day", "hour")
BUCKETS = [quota.Bucket(f"account/{number}", limits.Limit(1e12, "tokens", window)) for number, window in enumerate(WINDOWS)]
Outcome = tuple[float, float]
DELAY_S = 0.001


def pairs(store: Any, threads: int, seconds: float) -> Outcome:
    """Pairs a second over all threads, and the longest verb in milliseconds."""
    store.define(BUCKETS, time.time())
    counts: list[int] = []
    waits: list[float] = []
    clock = time.perf_counter
    wants = tuple((bucket.key, 10) for bucket in BUCKETS)
    end = clock() + seconds

    def work() -> None:
        done, worst, before = 0, 0.0, clock()
        while before < end:
            taken = store.reserve(wants, time.time())
            between = clock()
            store.commit(taken, time.time(), (5, 5, 5))
            after = clock()
            worst = max(worst, between - before, after - between)
            before, done = after, done + 1
        counts.append(done)
        waits.append(worst)

    crowd = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    store.close()
    return sum(counts) / seconds, max(waits) * 1000


def floor(ask: Callable[[], object], seconds: float) -> float:
    """Two empty round trips, as often as they fit into a second."""
    end, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        ask()
        ask()
        done += 1
    return done / seconds


def row(label: str, make: Callable[[], Any], seconds: float, rounds: int) -> None:
    """One line of the table: 1, 8 and 64 threads."""
    cells = []
    for threads in (1, 8, 64):
        runs = [pairs(make(), threads, seconds) for _ in range(rounds)]
        cells.append(f"{statistics.median(rate for rate, _ in runs):>12,.0f} {max(wait for _, wait in runs):>8.1f}")
    print(f"{label:34}" + "".join(cells), flush=True)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    print(f"{'store':34}" + "".join(f"{count:>4} threads: /s, ms " for count in (1, 8, 64)))
    row("memory", part("quota_memory").MemoryQuotaStore, seconds, rounds)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "quota.db"
        row("sqlite", lambda: part("quota_sqlite").SQLiteQuotaStore(file, busy_timeout=60.0), seconds, rounds)
    try:
        import psycopg
        import redis
    except ImportError as exc:
        print(f"redis and postgres: left out ({exc})")
        return
    server: Any = RedisServer("--appendonly", "yes", "--appendfsync", "everysec")
    on_servers(server, lambda port: redis_store(redis, port), lambda port: redis.Redis(port=port).ping, seconds, rounds)
    server = PostgresServer()
    server_dsn = server.dsn

    def dsn(port: int) -> str:
        return server_dsn.replace(str(server.port), str(port))

    def asking(port: int) -> Callable[[], object]:
        connection = psycopg.connect(dsn(port), autocommit=True)
        return lambda: connection.execute("SELECT 1").fetchone()

    def postgres_store(port: int) -> Any:
        return part("quota_postgres").PostgresQuotaStore(lambda: psycopg.connect(dsn(port)), timeout=60.0)

    on_servers(server, postgres_store, asking, seconds, rounds)


def redis_store(redis: Any, port: int) -> Any:
    """A store with a client of its own."""
    return part("quota_redis").RedisQuotaStore(redis.Redis(port=port), timeout=60.0)


def on_servers(
    server: Any, make: Callable[[int], Any], asking: Callable[[int], Callable[[], object]], seconds: float, rounds: int
) -> None:
    """The lines of one server: its floor, on the spot, and a millisecond away each way."""
    name = type(server).__name__.removesuffix("Server").lower()
    server.start()
    try:
        near = floor(asking(server.port), seconds)
        print(f"{name}: two empty round trips {near:>11,.0f}   ({os.cpu_count()} cores)", flush=True)
        row(f"{name}, on the spot", lambda: make(server.port), seconds, rounds)
        with far_away(server.port, DELAY_S) as port:
            beyond = (0.5 / floor(asking(port), seconds) - 0.5 / near) / 2 - DELAY_S
        with far_away(server.port, DELAY_S - beyond) as port:
            far = floor(asking(port), seconds)
            added = (0.5 / far - 0.5 / near) / 2 * 1000
            print(f"{name}: two empty round trips {far:>11,.0f}   ({added:.2f} ms added each way)", flush=True)
            row(f"{name}, 1 ms each way", lambda: make(port), seconds, rounds)
    finally:
        server.close()


if __name__ == "__main__":
    main()
