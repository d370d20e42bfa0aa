"""A file that others keep locked, and files beside it that somebody deletes: calls end in time, answers are handed out at once,
and nobody counts where nobody else sees it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
import unittest
from contextlib import closing
from pathlib import Path
from typing import Any

from tests import PACKAGE, ir, part
from tests.fakes import HELLO, account, alias_of, threads
from tests.test_quota_sqlite import Folder

errors, limits, quota = part("errors"), part("limits"), part("quota")
NOON = part("conformance").NOON
TEN = limits.Limit(10, "requests", "day")
LATE_S = 0.4
"""How much later than asked a call may end here: 100 ms, and what a busy machine adds."""


class Locked(Folder):
    def setUp(self) -> None:
        super().setUp()
        self.other = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self.addCleanup(self.other.close)

    def router(self, **provider: Any) -> Any:
        """A router over the file, in which one call was made; its provider answers with what `provider` says."""
        config = ir.Config(accounts=[account("mock")], models=[alias_of("mock")])
        router = ir.Router(config, [ir.MockProvider(**provider)], quota_store=self.open())
        self.addCleanup(router.close)
        return router

    def lock(self, *args: object) -> str:
        if not self.other.in_transaction:
            self.other.execute("BEGIN IMMEDIATE")
        return "answered"

    def took(self, work: Any) -> float:
        """How many seconds `work` takes until it raises QuotaStoreError.

        On a busy machine the time of a call may be over before it came to the file: then it is asked again.
        """
        for _ in range(20):
            began = time.monotonic()
            with self.assertRaises(errors.InferRouterError) as caught:
                work()
            if not isinstance(caught.exception, errors.AttemptTimeoutError):
                break
        self.assertIsInstance(caught.exception, errors.QuotaStoreError)
        self.assertIn("locked by others", str(caught.exception))
        return time.monotonic() - began

    def test_a_call_ends_by_its_deadline(self) -> None:
        """The call's timeout bounds the wait for the file, however patient the store is."""
        router = self.router()
        self.lock()
        for wait in (0.0, 0.15):
            self.assertLess(self.took(lambda wait=wait: router.chat_completion(HELLO, timeout=wait or 0.01)), wait + LATE_S)

    def test_a_model_that_is_new(self) -> None:
        """The limits of a model that is asked for the first time are defined within the call's time, or not."""
        config = ir.Config(accounts=[account("mock", model_limits={"*": {"rpd": 5}})])
        with ir.Router(config, [ir.MockProvider()], quota_store=self.open()) as router:
            self.lock()
            request = ir.ChatRequest("Hello!", model="mock/new")
            self.assertLess(self.took(lambda: router.chat_completion(request, timeout=0.15)), 0.15 + LATE_S)

    def test_dropped_streams(self) -> None:
        """Streams that were dropped while the file was locked delay the next call by one settlement's wait, not by each's."""
        router = self.router()
        streams = [router.stream(HELLO) for _ in range(40)]
        self.lock()
        streams.clear()
        self.assertLess(self.took(lambda: router.chat_completion(HELLO, timeout=0.1)), 0.1 + LATE_S)

    def test_what_reading_finds_to_be_done(self) -> None:
        """A hold that is over is over, though nobody can write that down just now."""
        store = self.open()
        store.hold("a", NOON + 60, "", NOON)
        self.lock()
        began = time.monotonic()
        self.assertEqual(store.holds(NOON + 61), {})
        self.assertLess(time.monotonic() - began, LATE_S)

    def test_threads_wait_side_by_side(self) -> None:
        """Eight threads that wait for the file do so at the same time, not one after the other."""
        router = self.router()
        self.lock()
        began = time.monotonic()
        with threads(8, lambda number: self.assertTrue(self.took(lambda: router.chat_completion(HELLO, timeout=0.2)))):
            pass
        self.assertLess(time.monotonic() - began, 0.2 + 2 * LATE_S)

    def test_an_answer_is_handed_out_at_once(self) -> None:
        """A file that is locked while calls are under way keeps no answer; what they used is counted once it can be."""
        router = self.router(default=self.lock)
        began = time.monotonic()
        self.assertEqual(router.chat_completion(HELLO).text, "answered")
        self.assertLess(time.monotonic() - began, LATE_S)
        self.assertEqual(len(router._ledger._unsettled), 1)
        self.other.execute("ROLLBACK")
        used = {limit.name: limit.used for limit in router.status()["mock"].limits}["tpd"]
        self.assertEqual(router.chat_completion(HELLO).text, "answered")
        self.other.execute("ROLLBACK")
        router._ledger.close(time.time(), False)
        self.assertLess({limit.name: limit.used for limit in router.status()["mock"].limits}["tpd"], used)

    def test_close_is_bounded(self) -> None:
        """A hundred settlements that cannot be made keep `close` no longer than two seconds."""
        router = self.router()
        store = router._ledger.store
        store.define([quota.Bucket("k", TEN)], NOON)
        taken = [(store, store.reserve([("k", 0.1)], NOON)) for _ in range(100)]
        self.lock()
        router._ledger._unsettled.extend(part("guarded_store")._Settlement(os.getpid(), *each, None) for each in taken)
        began = time.monotonic()
        router.close()
        self.assertLess(time.monotonic() - began, 2.0)

    def test_reading_waits_for_nobody(self) -> None:
        """What is left can be read, and whoever waits to write keeps no thread from it."""
        router = self.router()
        self.lock()
        with threads(1, lambda number: self.assertTrue(self.took(lambda: router.chat_completion(HELLO, timeout=0.3)))):
            began = time.monotonic()
            self.assertEqual(router.status()["mock"].in_flight in (0, 1), True)
            self.assertLess(time.monotonic() - began, 0.25)


class Beside(Folder):
    """The log and its index, which SQLite keeps beside the file."""

    CODE = (
        f"import sys, {PACKAGE} as ir\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        store = ir.SQLiteQuotaStore(path, sleep=lambda seconds: None)\n"
        f"        store.define([ir.Bucket('k', ir.Limit(10, 'requests', 'day'))], {NOON})\n"
        f"        print(sum(isinstance(store.reserve([('k', 1)], {NOON}), ir.Reservation) for _ in range(20)))\n"
        "    except ir.QuotaStoreError as error:\n"
        "        print(error)\n"
    )

    def other_process(self, *paths: Path) -> list[str]:
        """How many of twenty reservations another process gets at each of `paths`, or what it is told."""
        folder = Path(ir.__file__).parent.parent
        command = [sys.executable, "-S", "-c", self.CODE, *map(str, paths)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()

    def test_deleted_while_in_use(self) -> None:
        """Whichever of them is deleted, nobody is admitted any more: not who has the file open, nor who opens it now."""
        stores = {}
        for place, lost in enumerate((["-wal"], ["-shm"], ["-wal", "-shm"])):
            self.path = self.folder / f"{place}.db"
            stores[self.path] = store = self.filled()
            for ending in lost:
                Path(f"{self.path}{ending}").unlink()
            for method in (lambda store=store: store.reserve([("k", 1)], NOON), lambda store=store: store.headroom(["k"], NOON)):
                with self.assertRaises(errors.QuotaStoreError) as caught:
                    method()
                self.says(caught.exception, "-wal or -shm", "start them again")
        told = self.other_process(*stores)
        self.assertEqual(len(told), 3)
        for words in told:
            self.assertIn("-wal or -shm", words)
        for path, store in stores.items():
            store.close()
            with self.open(path) as again:
                self.assertEqual(again.headroom(["k"], NOON)[0].used, 4, "what was counted is in the file")

    def test_under_another_name(self) -> None:
        """A hard link of a file that is in use is refused, as it would have its own log; a symbolic link is the same file."""
        store = self.filled()
        hard, soft = self.folder / "hard.db", self.folder / "soft.db"
        hard.hardlink_to(self.path)
        soft.symlink_to(self.path)
        told = self.other_process(hard, soft)
        self.assertIn("under another name", told[0])
        self.assertEqual(told[1:], ["6"])
        self.assertIsInstance(store.reserve([("k", 1)], NOON), quota.Refusal)

    def test_left_by_a_crash(self) -> None:
        """A file that nobody has open is opened, with what was left beside it or without."""
        code = self.CODE + "import os; os.kill(os.getpid(), 9)"
        folder = Path(ir.__file__).parent.parent
        subprocess.run([sys.executable, "-S", "-c", code, str(self.path)], cwd=folder, capture_output=True, check=False)
        self.assertTrue(Path(f"{self.path}-wal").exists())
        Path(f"{self.path}-shm").unlink()
        with self.open() as store:
            self.assertEqual(store.headroom(["k"], NOON)[0].used, 10)


class Rows(Folder):
    def test_absurd_counts(self) -> None:
        """A count that is not a number, below 0 or endless is damage, not a count."""
        import struct

        bounds = (NOON - 43_200, NOON + 43_200)
        for used in (float("nan"), -1.0, -1e18, float("inf")):
            path = self.folder / f"{used}.db"
            store = self.open(path)
            store.define([quota.Bucket("k", TEN)], NOON)
            with closing(sqlite3.connect(path)) as db:
                db.execute("UPDATE bucket SET state = ?", (struct.pack("=4d", *bounds, used, float("nan")),))
                db.commit()
            with self.assertRaises(errors.QuotaStoreError) as caught:
                store.reserve([("k", 1)], NOON)
            self.says(caught.exception, "damaged", path=path)


class Holds(Folder):
    def test_those_at_hand(self) -> None:
        """Holds are looked up by key; the many of other models are not read, and go when they are long over."""
        store = self.open()
        for number in range(60):
            store.hold(f"a|m{number}", NOON + 60, "ModelNotFound (404)", NOON)
        self.assertEqual(set(store.holds(NOON, ["a", "a|m7", "a|x"])), {"a|m7"})
        self.assertEqual(len(store.holds(NOON)), 60)
        self.assertEqual(len(store.holds(NOON, [f"a|m{number}" for number in range(1000)])), 60)
        later = NOON + 5 * 86400
        for number in range(70):
            store.hold("b", later + 60 + number, "", later)
        self.assertEqual(store._session.db.execute("SELECT count(*) FROM hold").fetchone()[0], 1)


if __name__ == "__main__":
    unittest.main()
