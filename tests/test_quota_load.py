"""The stores on servers under load: exact over processes and threads, and nothing lost when workers or servers are killed.

INFERROUTER_ROUNDS: how often each is done (as 20 runs, 40 kills of workers and 20 of the server for a release); by default a few.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import Any

from tests import ir, part
from tests.quota_load_worker import NOON, opened
from tests.quota_servers import PostgresServer, Proxy, RedisServer, needs_servers

errors = part("errors")
limits = part("limits")
quota = part("quota")
ROUNDS = int(os.environ.get("INFERROUTER_ROUNDS", "2"))
LIMIT = 500


class Load:
    """What every store must stand; a subclass starts its server anew for each test."""

    kind = ""
    server: Any

    def start(self) -> Any:
        raise NotImplementedError

    def setUp(self) -> None:
        self.server = self.start()
        self.addCleanup(self.server.close)  # type: ignore[attr-defined]  # mixed into a TestCase
        self.server.start()

    def define(self, store: Any, requests: float = LIMIT, tokens: float = LIMIT * 7) -> None:
        buckets = {"requests": limits.Limit(requests, "requests", "day"), "tokens": limits.Limit(tokens, "tokens", "minute")}
        store.define([quota.Bucket(key, limit) for key, limit in buckets.items()], NOON)

    def used(self) -> list[float]:
        with opened(self.kind, self.server.port, timeout=20.0) as store:
            return [each.used for each in store.headroom(["requests", "tokens"], NOON)]

    def workers(self, job: str, count: int) -> list[subprocess.Popen[str]]:
        """Processes that are ready and have been told to go."""
        command = [sys.executable, "-m", "tests.quota_load_worker", self.kind, str(self.server.port), job]
        folder = Path(__file__).resolve().parent.parent
        started = [
            subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        for worker in started:
            worker.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
        for worker in started:
            worker.stdin.write("go\n")  # type: ignore[union-attr]  # it is a pipe
            worker.stdin.flush()  # type: ignore[union-attr]  # it is a pipe
        return started

    def test_processes_and_threads_admit_exactly_the_limit(self) -> None:
        """Eight processes of eight threads on limits of 500 requests and of their tokens are admitted exactly 500 times."""
        for turn in range(ROUNDS):
            self.server.close()
            self.server = self.start()
            self.addCleanup(self.server.close)  # type: ignore[attr-defined]  # as above
            self.server.start()
            with opened(self.kind, self.server.port) as store:
                self.define(store)
            outputs = [worker.communicate(timeout=120)[0] for worker in self.workers("exact", 8)]
            self.assertEqual(sum(map(int, outputs)), LIMIT, turn)  # type: ignore[attr-defined]  # as above
            self.assertEqual(self.used(), [LIMIT, LIMIT * 7])  # type: ignore[attr-defined]  # as above

    def test_killed_workers(self) -> None:
        """Through rounds of kill -9 of workers no acknowledged commit is lost and nothing is over-admitted."""
        with opened(self.kind, self.server.port) as store:
            self.define(store, requests=1e6, tokens=1e7)
        acknowledged = begun = 0
        for turn in range(2 * ROUNDS):
            workers = self.workers("ack", 2)
            time.sleep(0.05 + turn % 5 * 0.03)
            for worker in workers:
                worker.kill()
            outputs = [worker.communicate()[0] for worker in workers]
            acknowledged += sum(output.count("ack\n") for output in outputs)
            begun += len(workers)
        requests, tokens = self.used()
        self.assertGreater(acknowledged, 0)  # type: ignore[attr-defined]  # mixed into a TestCase, as above
        self.assertGreaterEqual(requests, acknowledged)  # type: ignore[attr-defined]  # as above
        self.assertLessEqual(requests, acknowledged + begun * 2)  # type: ignore[attr-defined]  # as above
        self.assertLessEqual(7 * requests, tokens)  # type: ignore[attr-defined]  # as above
        self.assertLessEqual(tokens, 7 * acknowledged + 10 * begun * 2)  # type: ignore[attr-defined]  # as above

    def test_a_killed_server(self) -> None:
        """The server is killed and started again in the middle of a load: calls wait for it, every acknowledged commit is there,
        and exactly the limit is admitted."""
        amount = 400 * ROUNDS
        admitted: list[int] = []
        failures: list[Exception] = []
        with opened(self.kind, self.server.port, timeout=60.0) as store:
            self.define(store, amount, amount * 7)

            def work() -> None:
                while True:
                    try:
                        taken = store.reserve([("requests", 1), ("tokens", 7)], NOON)
                        if isinstance(taken, quota.Refusal):
                            return
                        store.commit(taken, NOON, [1, 7])
                    except errors.QuotaStoreError as exc:
                        failures.append(exc)
                        return
                    admitted.append(1)
                    time.sleep(0.01)

            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            kills = 0
            while kills < ROUNDS and any(thread.is_alive() for thread in threads):
                time.sleep(0.15)
                self.server.kill()
                self.server.start()
                kills += 1
            for thread in threads:
                thread.join()
        assertions: Any = self
        assertions.assertEqual(failures, [])
        assertions.assertEqual(kills, ROUNDS)
        assertions.assertEqual(len(admitted), amount)
        assertions.assertEqual(self.used(), [amount, amount * 7])

    def test_a_partition(self) -> None:
        """A worker cut off from the store gets QuotaStoreError in time and charges nothing that stays; others go on; once it is
        over, it goes on too, and all that was taken for nobody is given back."""
        proxy = Proxy(self.server.port)
        assertions: Any = self
        assertions.addCleanup(proxy.close)
        with opened(self.kind, self.server.port) as near, opened(self.kind, proxy.port, timeout=0.5) as far:
            self.define(near)
            far.headroom(["requests"], NOON)
            for fault in ("silent", "refusing"):
                setattr(proxy, fault, True)
                if fault == "refusing":
                    proxy.cut()
                for _ in range(3):
                    started = time.monotonic()
                    with assertions.assertRaises(errors.QuotaStoreError):
                        far.reserve([("requests", 1), ("tokens", 7)], NOON)
                    assertions.assertLess(time.monotonic() - started, 0.6)
                    assertions.assertIsInstance(near.reserve([("requests", 1)], NOON), quota.Reservation)
                setattr(proxy, fault, False)
            end = time.monotonic() + 20
            while near.headroom(["requests", "tokens"], NOON)[1].used and time.monotonic() < end:
                time.sleep(0.05)
            assertions.assertEqual([each.used for each in near.headroom(["requests", "tokens"], NOON)], [6, 0])
            while time.monotonic() < end:
                try:
                    taken = far.reserve([("requests", 1)], NOON)
                    break
                except errors.QuotaStoreError:
                    continue
            assertions.assertIsInstance(taken, quota.Reservation)


@needs_servers
class RedisLoad(Load, unittest.TestCase):
    """Redis, with everything in an append-only file that is synced at every write."""

    kind = "redis"

    def start(self) -> Any:
        return RedisServer()


@needs_servers
class PostgresLoad(Load, unittest.TestCase):
    """PostgreSQL, as it comes."""

    kind = "postgres"

    def start(self) -> Any:
        return PostgresServer()


class Package(unittest.TestCase):
    def test_public_names(self) -> None:
        """Both stores are to be had from the package, and are stores."""
        for name in ("RedisQuotaStore", "PostgresQuotaStore"):
            self.assertTrue(all(hasattr(getattr(ir, name), verb) for verb in ("reserve", "commit", "observe", "learned")))


if __name__ == "__main__":
    unittest.main()
