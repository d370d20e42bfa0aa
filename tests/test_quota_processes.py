"""One ledger under several processes: exact under contention, nothing lost and nothing over-admitted through kill -9."""

from __future__ import annotations

import os
import select
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import unittest
import warnings
from pathlib import Path

from tests import PACKAGE, ir, part, rounds

limits = part("limits")
quota = part("quota")
quota_sqlite = part("quota_sqlite")
NOON = part("conformance").NOON

WORKER = f"""
import sys, threading
from {PACKAGE} import quota, quota_sqlite
store = quota_sqlite.SQLiteQuotaStore(sys.argv[1], busy_timeout=30.0)
admitted = []
def work():
    for turn in range(20):
        taken = store.reserve([("requests", 1), ("tokens", 7)], {NOON})
        if isinstance(taken, quota.Reservation):
            admitted.append(taken)
            store.commit(taken, {NOON}, [1, 7])
sys.stdin.readline()
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
store.close()
print(len(admitted))
"""


class ProcessTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "quota.db"

    def defined(self, **kinds: object) -> None:
        with quota_sqlite.SQLiteQuotaStore(self.path) as store:
            store.define([quota.Bucket(key, limit) for key, limit in kinds.items()], NOON)

    def used(self, *keys: str) -> list[float]:
        with quota_sqlite.SQLiteQuotaStore(self.path) as store:
            return [room.used for room in store.headroom(keys, NOON)]

    def test_processes_and_threads_admit_exactly_the_limit(self) -> None:
        """Four processes of eight threads on limits of fifty requests and of tokens are admitted exactly fifty times."""
        self.defined(
            requests=limits.Limit(50, "requests", "minute"),
            tokens=limits.Limit(50 * 7, "tokens", "day"),
        )
        folder = Path(ir.__file__).parent.parent
        command = [sys.executable, "-S", "-c", WORKER, str(self.path)]
        workers = [
            subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
        ]
        admitted = 0
        for worker in workers:  # they are let go together, once each has started
            worker.stdin.write("go\n")
            worker.stdin.flush()
        for worker in workers:
            out, _ = worker.communicate(timeout=60)
            self.assertEqual(worker.returncode, 0)
            admitted += int(out)
        self.assertEqual(admitted, 50)
        self.assertEqual(self.used("requests", "tokens"), [50, 350])

    @unittest.skipUnless(hasattr(os, "fork"), "needs fork")
    def test_a_new_file_opened_by_all_at_once(self) -> None:
        """Processes that make the same new file at the same moment all get it, whoever is first."""
        for turn in range(rounds(25, 8)):
            path = self.path.with_name(f"{turn}.db")
            gate, opener = os.pipe()
            children = []
            for _ in range(4):
                pid = os.fork()
                if not pid:
                    code = 1
                    try:
                        os.close(opener)
                        os.read(gate, 1)
                        quota_sqlite.SQLiteQuotaStore(path).close()
                        code = 0
                    finally:
                        os._exit(code)
                children.append(pid)
            os.close(opener)
            ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
            os.close(gate)
            self.assertEqual(ends, [0] * 4, f"round {turn}")

    @unittest.skipUnless(hasattr(os, "fork"), "needs fork and kill")
    def test_kill_9(self) -> None:
        """Through rounds of kill -9 no acknowledged commit is lost, nothing is over-admitted, and the file stays sound."""
        self.defined(
            wide=limits.Limit(10**9, "tokens", "day"),
            tight=limits.Limit(500, "requests", "day"),
        )
        acknowledged, kills = "", 0
        for turn in range(rounds(40, 8)):
            children = [self.start_worker() for _ in range(4)]
            heard, pipes = b"", [pipe for _, pipe in children]
            while heard.count(b"C") < 6:
                ready, _, _ = select.select(pipes, [], [], 20)
                self.assertTrue(ready, "nobody gets anything done")
                heard += b"".join(os.read(pipe, 4096) for pipe in ready)
            acknowledged += heard.decode()
            time.sleep(turn % 5 * 0.004)
            for pid, _ in children:
                os.kill(pid, signal.SIGKILL)
                kills += 1
            for pid, pipe in children:
                os.waitpid(pid, 0)
                with open(pipe, "rb") as stream:
                    acknowledged += stream.read().decode()
        commits, reserves, tight = (acknowledged.count(letter) for letter in "CRT")
        wide_used, tight_used = self.used("wide", "tight")
        self.assertGreater(commits, rounds(200, 25), "the rounds must have done something")
        self.assertGreaterEqual(wide_used, 5 * commits, "an acknowledged commit was lost")
        self.assertLessEqual(wide_used, 5 * commits + 7 * kills, "more was charged than calls in flight")
        self.assertLessEqual(tight, 500, "over-admitted")
        self.assertLessEqual(tight_used, 500)
        self.assertGreaterEqual(reserves, commits)
        db = sqlite3.connect(self.path)
        self.addCleanup(db.close)
        self.assertEqual(db.execute("PRAGMA integrity_check").fetchone()[0], "ok")
        self.assertLessEqual(db.execute("SELECT count(*) FROM reservation").fetchone()[0], kills + tight_used)

    def start_worker(self) -> tuple[int, int]:
        """Forks a process that reserves and settles for ever, telling each success through a pipe. Its id and the pipe."""
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            os.close(writer)
            return pid, reader
        try:
            store = quota_sqlite.SQLiteQuotaStore(self.path, busy_timeout=30.0)
            while True:
                if isinstance(store.reserve([("tight", 1)], NOON), quota.Reservation):
                    os.write(writer, b"T")
                taken = store.reserve([("wide", 7)], NOON)
                os.write(writer, b"R")
                if store.commit(taken, NOON, [5]):
                    os.write(writer, b"C")
        finally:
            os._exit(1)


if __name__ == "__main__":
    unittest.main()
