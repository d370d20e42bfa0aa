"""Many callers at once: nothing is overrun and nothing lost, over threads and over processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import unittest
from collections import Counter
from pathlib import Path

from tests import ir, part, rounds
from tests.fakes import HELLO, METHODS, FakeClock, account, http, make_router, streamed, threads, unary, used
from tests.quota_worker import KEYS, free_accounts, serve
from tests.servers import Peer, ScriptedServer

Simulator = part("simulator").Simulator
KeyLimits = part("simulator").KeyLimits

ROOT = Path(__file__).resolve().parents[1]


class Threads(unittest.TestCase):
    def test_exactly_what_is_free(self) -> None:
        """16 threads on 4 accounts of 50 are served exactly 200 times, whole and streamed, and the rest is refused."""
        for name, method in METHODS.items():
            # The server refuses what is over 50 by itself, so an overrun would be seen there.
            with self.subTest(name), Simulator(keys=dict.fromkeys(KEYS, KeyLimits(rpd=50))) as simulator:
                ends: list[Counter[str]] = []
                with make_router({"sim": simulator.base_url}, *free_accounts(50)) as router:
                    with threads(16, lambda number: ends.append(serve(router, 15, method))):  # noqa: B023  joined in the loop
                        pass
                    state = router.status()
                total = sum(ends, Counter())
                self.assertEqual(total, {**dict.fromkeys(KEYS, 50), "NoCandidatesError": 40})
                self.assertEqual([(each.requests, each.refused) for each in simulator.usage()], [(50, 0)] * 4)
                self.assertEqual({(each.used, each.remaining, each.in_flight) for each in state.values()}, {(50, 0, 0)})

    def test_tokens(self) -> None:
        """A token limit is never passed by what is reserved, and in the end holds exactly what the server counted."""
        limits = {"tpd": 1500}
        with Simulator() as simulator:
            with make_router({"sim": simulator.base_url}, account("a", provider="sim", limits=limits)) as router:
                with threads(8, lambda number: serve(router, 20) and None):
                    pass
                told = used(router, "a")["tpd"]
                with self.assertRaises(ir.NoCandidatesError):
                    for _ in range(100):
                        router.chat_completion(HELLO)
                self.assertEqual(used(router, "a")["tpd"], simulator.usage()[0].tokens)
            self.assertTrue(0 < told <= 1500)
            self.assertTrue(1500 - 70 < simulator.usage()[0].tokens <= 1500)

    def test_one_probe(self) -> None:
        """A half-open breaker lets exactly one of 16 threads through, and opens for all once that one did well."""
        refused = threading.Semaphore(0)
        answers = [http({"error": {"message": "down"}}, 503), http({"choices": [{"message": {"content": "well"}}]})]

        def script(peer: Peer) -> None:
            while peer.request() is not None:
                if len(peer.server.requests) == 2:
                    for _ in range(15):
                        self.assertTrue(refused.acquire(timeout=5))
                if not peer.send(answers[min(len(peer.server.requests), 2) - 1]):
                    return

        clock = FakeClock()
        health = ir.HealthConfig(failure_threshold=1)
        with ScriptedServer(script) as server, make_router({"a": server.url}, clock=clock, health=health) as router:
            self.assertEqual(serve(router, 1), {"AllCandidatesFailedError": 1})
            clock.advance(30)
            ends: list[Counter[str]] = []

            def call(number: int) -> None:
                ends.append(serve(router, 1))
                refused.release()

            with threads(16, call):
                pass
            self.assertEqual(sum(ends, Counter()), {"a": 1, "NoCandidatesError": 15})
            self.assertEqual(len(server.requests), 2)
            self.assertEqual(serve(router, 3), {"a": 3})

    def test_streams_that_stop(self) -> None:
        """Streams that 8 threads open and stop in every way leave nothing in flight and one charge each."""

        def work(number: int) -> None:
            for turn in range(10):
                stream = router.stream(HELLO)
                for _ in range((number + turn) % 4):
                    next(stream, None)
                if turn % 3:
                    stream.close()
                del stream

        with Simulator() as simulator, make_router({"sim": simulator.base_url}, *free_accounts(100)) as router:
            with threads(8, work):
                pass
            state = router.status()
            self.assertEqual(sum(each.used for each in state.values()), 80)
            self.assertEqual({each.in_flight for each in state.values()}, {0})
            self.assertEqual({each.breaker for each in state.values()}, {"closed"})

    def test_close_while_busy(self) -> None:
        """A router that is closed while others use it raises nothing but its own errors."""
        with Simulator() as simulator:
            router = make_router({"sim": simulator.base_url}, *free_accounts(1000))
            ends: list[Counter[str]] = []
            with threads(4, lambda number: ends.append(serve(router, 30, (unary, streamed)[number % 2]))):
                router.close()
        self.assertEqual(sum(sum(ends, Counter()).values()), 120)


class Processes(unittest.TestCase):
    def test_exactly_what_is_free(self) -> None:
        """Processes on one file and 4 accounts of 10 are served exactly 40 times, and the rest is refused."""
        processes = rounds(4, 2)
        with tempfile.TemporaryDirectory() as folder, Simulator(keys=dict.fromkeys(KEYS, KeyLimits(rpd=10))) as simulator:
            path = str(Path(folder, "quota.db"))
            command = [sys.executable, "-S", "-c", "from tests.quota_worker import main; main()", simulator.base_url, path]
            command.append(str(64 // processes))
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            env = os.environ | {"PYTHONPATH": str(Path(str(ir.__file__)).parents[1])}
            running = [subprocess.Popen(command, **pipes, text=True, cwd=ROOT, env=env) for _ in range(processes)]
            try:
                for process in running:
                    process.stdout.readline()  # type: ignore[union-attr]  # it is a pipe
                outcomes = [process.communicate("go\n", timeout=30)[0] for process in running]
            finally:
                for process in running:
                    process.kill()
                    process.wait()
                    for pipe in (process.stdin, process.stdout):
                        pipe.close()  # type: ignore[union-attr]  # it is a pipe
            served, refused = (sum(int(each.split()[place]) for each in outcomes) for place in (0, 1))
            self.assertEqual((served, refused), (40, 24))
            self.assertEqual([(each.requests, each.refused) for each in simulator.usage()], [(10, 0)] * 4)
            with ir.SQLiteQuotaStore(path) as store:
                with make_router({"sim": simulator.base_url}, *free_accounts(10), quota_store=store) as router:
                    self.assertEqual([each.used for each in router.status().values()], [10] * 4)


if __name__ == "__main__":
    unittest.main()
