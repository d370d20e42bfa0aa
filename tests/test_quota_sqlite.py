"""The SQLite store: the contract, the faults of files, forks, growth, and that nothing is lost on the way."""

from __future__ import annotations

import os
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
import unittest
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

from tests import PACKAGE, ir, ledger_model, part, rounds

conformance = part("conformance")
learning = part("conformance_learning")
errors = part("errors")
limits = part("limits")
quota = part("quota")
quota_learned = part("quota_learned")
quota_sqlite = part("quota_sqlite")
NOON = conformance.NOON
DAY = limits.Limit(10, "requests", "day")
MINUTE = limits.Limit(10, "requests", "minute")


class Folder(unittest.TestCase):
    """A test with a folder of its own, and stores in it that are closed at its end."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.path = self.folder / "quota.db"

    def open(self, path: Path | None = None, **options: Any) -> Any:
        store = quota_sqlite.SQLiteQuotaStore(path or self.path, **options)
        self.addCleanup(store.close)
        return store

    def filled(self, **options: Any) -> Any:
        """A store with bucket "k" of ten a day, four of them used."""
        store = self.open(**options)
        store.define([quota.Bucket("k", DAY)], NOON)
        store.commit(store.reserve([("k", 4)], NOON), NOON)
        return store

    def refuses(self, *words: str, path: Path | None = None) -> str:
        """Opening raises QuotaStoreError that names the file and says `words`, with sqlite3's error as its cause, if any."""
        with self.assertRaises(errors.QuotaStoreError) as caught:
            self.open(path)
        return self.says(caught.exception, *words, path=path)

    def says(self, error: Exception, *words: str, path: Path | None = None) -> str:
        for word in (str(path or self.path), *words):
            self.assertIn(word, str(error))
        return str(error)


class SQLiteConformanceTest(conformance.QuotaStoreConformance, learning.LearningConformance, Folder):
    """The whole contract over a file, which another store opens where a program starts anew."""

    def make_store(self) -> Any:
        return self.open()

    def reopened(self) -> Any:
        self.store.close()
        return self.open()


class FullSyncConformanceTest(conformance.QuotaStoreConformance, Folder):
    """The whole contract with synchronous=FULL, each method through the other of two stores on one file."""

    def make_store(self) -> Any:
        stores = [self.open(synchronous="FULL"), self.open()]

        class Turns:
            def __getattr__(self, name: str) -> Any:
                if name == "close":
                    return lambda: [store.close() for store in stores]
                stores.reverse()
                return getattr(stores[0], name)

            def set_quota(self, *args: Any) -> None:
                for store in stores:
                    store.set_quota(*args)

        return Turns()


class KeepingTest(Folder):
    def test_survives_reopening(self) -> None:
        """Counts, limits, holds and open reservations are there again after closing and opening."""
        store = self.filled()
        store.hold("a", NOON + 60, "429", NOON)
        opened = store.reserve([("k", 5)], NOON)
        store.close()
        again = self.open()
        room = again.headroom(["k"], NOON)[0]
        self.assertEqual((room.used, room.limit), (9, DAY))
        self.assertEqual(again.holds(NOON)["a"], quota.Hold("a", NOON + 60, "429"))
        self.assertTrue(again.commit(opened, NOON, [1]))
        self.assertEqual(again.headroom(["k"], NOON)[0].used, 5)

    def test_set_quota_survives_reopening(self) -> None:
        """An allowance that was set outlasts a define by a later program, or by another one; one that was defined does not."""
        key, other = quota.allowance_key("a"), quota.allowance_key("b")
        one, two = self.open(), self.open()
        one.set_quota("a", 2, "requests")
        one.define([quota.Bucket(other, DAY)], NOON)
        tokens = [quota.Bucket(name, limits.Limit(9, "tokens", "day", zone="Asia/Tokyo")) for name in (key, other)]
        two.define(tokens, NOON)
        one.close()
        two.close()
        again = self.open()
        again.define(tokens, NOON)
        kept, defined = (room.limit for room in again.headroom([key, other], NOON))
        self.assertEqual(kept, limits.Limit(2, "requests", "day", zone="Asia/Tokyo"))
        self.assertEqual(defined, tokens[1].limit)

    def test_two_stores_see_each_other(self) -> None:
        """What one store takes, settles, holds or defines, another on the same file sees at once."""
        one, two = self.filled(), self.open()
        taken = two.reserve([("k", 6)], NOON)
        self.assertIsInstance(one.reserve([("k", 1)], NOON), quota.Refusal)
        two.rollback(taken, NOON)
        self.assertIsInstance(one.reserve([("k", 1)], NOON), quota.Reservation)
        one.hold("a", NOON + 60, "held", NOON)
        self.assertEqual(set(two.holds(NOON)), {"a"})
        one.define([quota.Bucket("k", limits.Limit(3, "requests", "day"))], NOON)
        self.assertEqual(two.headroom(["k"], NOON)[0].limit.amount, 3)

    def test_nobody_writes_between_reading_and_writing(self) -> None:
        """What a reservation read is still so when it writes: in between another connection cannot begin to write."""
        tried, really = [], quota_sqlite.admit
        store = self.open()
        store.define([quota.Bucket("k", limits.Limit(10, "requests", "day"))], NOON)
        with closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as other:

            def admit(*facts: Any) -> Any:
                with self.assertRaisesRegex(sqlite3.OperationalError, "locked"):
                    other.execute("BEGIN IMMEDIATE")
                tried.append(facts)
                return really(*facts)

            with mock.patch.object(quota_sqlite, "admit", admit):
                store.reserve([("k", 1)], NOON)
            self.assertEqual(len(tried), 1)
            other.execute("BEGIN IMMEDIATE")

    def test_random_verbs_against_the_model(self) -> None:
        """Random methods, clock steps included, agree with the naive model."""
        for seed in (1, 2):
            with quota_sqlite.SQLiteQuotaStore(self.folder / f"{seed}.db") as store:
                ledger_model.run(self, store, seed, 700)

    def test_private_file(self) -> None:
        """A new file and what SQLite puts beside it can be read by its owner only, whatever the umask."""
        before = os.umask(0)
        try:
            self.filled()
        finally:
            os.umask(before)
        found = sorted(self.folder.iterdir())
        self.assertEqual([path.name for path in found], ["quota.db", "quota.db-shm", "quota.db-wal"])
        self.assertEqual({path.stat().st_mode & 0o777 for path in found}, {0o600})

    def test_marked_as_ours(self) -> None:
        """The file says whose it is and which version of the schema it has, and sqlite3 finds it sound."""
        self.filled().close()
        db = sqlite3.connect(self.path)
        self.addCleanup(db.close)
        self.assertEqual(db.execute("PRAGMA user_version").fetchone()[0], 3)
        self.assertNotEqual(db.execute("PRAGMA application_id").fetchone()[0], 0)
        self.assertEqual(db.execute("PRAGMA integrity_check").fetchone()[0], "ok")
        self.assertEqual(db.execute("PRAGMA journal_mode").fetchone()[0], "wal")

    def test_loads_late(self) -> None:
        """Importing the package and this module loads no sqlite3."""
        folder = Path(ir.__file__).parent.parent
        code = f"import sys, {PACKAGE}.quota_sqlite; sys.exit('sqlite3' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-S", "-c", code], cwd=folder, check=False).returncode, 0)

    def test_wrong_synchronous(self) -> None:
        """Any other durability than NORMAL and FULL is a ConfigError, before a file is made."""
        with self.assertRaises(errors.ConfigError):
            self.open(synchronous="OFF")
        self.assertFalse(self.path.exists())

    def test_what_is_no_path(self) -> None:
        """What names no file is a ConfigError; bytes and paths are as good as strings."""
        for wrong in (None, 5, "", "a\0b", ":memory:"):
            with self.subTest(path=wrong), self.assertRaises(errors.ConfigError):
                quota_sqlite.SQLiteQuotaStore(wrong)
        self.open(os.fsencode(self.path))
        self.assertTrue(self.path.exists())


class FaultTest(Folder):
    def test_empty_file_is_taken_as_new(self) -> None:
        """An existing empty file, as tempfile makes them, becomes a ledger."""
        self.path.touch()
        self.filled()

    def test_no_folder(self) -> None:
        """A missing folder is said, and not made."""
        path = self.folder / "missing" / "quota.db"
        self.refuses("cannot be made", "name another", path=path)
        self.assertFalse(path.parent.exists())

    def test_a_folder(self) -> None:
        """A folder, a pipe or a device instead of a file is said."""
        self.refuses("is not a regular file", path=self.folder)
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        self.refuses("is not a regular file", path=pipe)
        link = self.folder / "link"
        link.symlink_to(self.folder / "missing" / "quota.db")
        self.refuses("cannot be found", "fix the link", path=link)

    def test_not_a_database(self) -> None:
        """A file that is not a database is refused and left as it was."""
        for notes in (b"important notes\n" * 1000, b"x", b"\0", b"\0" * 512, b"SQLite format 3\0"):
            self.path.write_bytes(notes)
            self.refuses("damaged, or is not a quota store", "move it away")
            self.assertEqual(self.path.read_bytes(), notes)

    def test_foreign_database(self) -> None:
        """Another program's database is refused and left as it was, to the byte."""
        marked, table = "PRAGMA application_id = 77", "CREATE TABLE theirs (x)"
        for place, statements in enumerate((("PRAGMA page_size = 4096", table), (marked, table), (marked,))):
            path = self.folder / f"{place}.db"
            with closing(sqlite3.connect(path)) as db:
                for statement in statements:
                    db.execute(statement)
            before = path.read_bytes()
            self.refuses("another program's database", "left untouched", path=path)
            self.assertEqual(path.read_bytes(), before)

    def test_newer_schema(self) -> None:
        """A file of a newer version of the library is refused, and says so."""
        self.filled().close()
        db = sqlite3.connect(self.path)
        db.execute("PRAGMA user_version = 99")
        db.close()
        self.refuses("schema version 99", "update this library")

    def test_older_schema(self) -> None:
        """A file of schema version 1 is brought up to date when it is opened: what it counts, its holds and pins stay."""
        kinds = {"minute": MINUTE, "day": DAY, "rolling": limits.Limit(10, "requests", "day", rolling=True), "new": DAY}
        with self.open() as store:
            store.define([quota.Bucket(key, limit) for key, limit in kinds.items()], NOON)
            store.set_quota("acc", 3, "requests")
            store.hold("k", NOON + 60, "held", NOON)
        slot = int(NOON // 1350)  # of a rolling day
        ring = [0.0] * 65
        ring[slot % 65], ring[(slot - 1) % 65], ring[(slot - 64) % 65] = 1.0, 2.0, 4.0
        minute = [0.0] * 65
        minute[int(NOON // 0.9375) % 65] = 5.0
        states = {
            "minute": struct.pack("=q65d", int(NOON // 0.9375), *minute),
            "day": struct.pack("=3d", NOON - 43_200, NOON + 43_200, 6.0),
            "rolling": struct.pack("=q65d", slot, *ring),
        }
        db = sqlite3.connect(self.path)
        db.executemany("UPDATE bucket SET state = ? WHERE key = ?", [(state, key) for key, state in states.items()])
        db.execute("ALTER TABLE bucket DROP COLUMN learned")
        db.execute("PRAGMA user_version = 1")
        db.commit()
        db.close()
        for _ in range(2):
            store = self.open()
            self.assertEqual([each.used for each in store.headroom(list(kinds), NOON)], [5, 6, 7, 0])
            self.assertEqual(store.headroom(["rolling"], NOON + 1350)[0].used, 3)
            self.assertEqual(store.headroom([quota.allowance_key("acc")], NOON)[0].limit.amount, 3)
            self.assertEqual(set(store.holds(NOON)), {"k"})
            self.assertEqual(store._session.db.execute("PRAGMA user_version").fetchone()[0], 3)
            store.close()

    def test_a_schema_that_learned_nothing(self) -> None:
        """A file of schema version 2 keeps its counts, and can learn from then on."""
        with self.open() as store:
            store.define([quota.Bucket("k", limits.Limit(9, "requests", "day"))], NOON)
            store.commit(store.reserve([("k", 4)], NOON), NOON)
        with closing(sqlite3.connect(self.path)) as db:
            db.execute("ALTER TABLE bucket DROP COLUMN learned")
            db.execute("PRAGMA user_version = 2")
        for _ in range(2):
            with self.open() as store:
                store.observe([quota_learned.Observation("k", limit=6)], NOON)
                self.assertEqual(store.headroom(["k"], NOON)[0].remaining, 2)

    def test_older_schema_damaged(self) -> None:
        """A file of schema version 1 with a count that cannot be read is refused, and left as it is."""
        self.filled().close()
        db = sqlite3.connect(self.path)
        db.execute("UPDATE bucket SET state = x'00'")
        db.execute("PRAGMA user_version = 1")
        db.commit()
        db.close()
        self.refuses("damaged")
        db = sqlite3.connect(self.path)
        self.assertEqual(db.execute("PRAGMA user_version").fetchone()[0], 1)
        db.close()

    def test_a_table_is_missing(self) -> None:
        """A ledger of which a part was removed is said to be damaged, with a remedy."""
        self.filled().close()
        with closing(sqlite3.connect(self.path)) as db:
            db.execute("DROP TABLE bucket")
        store = self.open()
        with self.assertRaises(errors.QuotaStoreError) as caught:
            store.headroom(["k"], NOON)
        self.says(caught.exception, "damaged", "bucket", "put a copy back")

    def test_damaged_pages(self) -> None:
        """Garbage in the pages of a ledger is refused at opening, and left as it is."""
        self.filled().close()
        data = bytearray(self.path.read_bytes())
        data[2048:] = os.urandom(len(data) - 2048)
        self.path.write_bytes(data)
        self.refuses("damaged")
        self.assertEqual(self.path.read_bytes(), bytes(data))

    def test_half_a_file(self) -> None:
        """A ledger cut in half is refused at opening."""
        self.filled().close()
        os.truncate(self.path, self.path.stat().st_size // 2)
        self.refuses("damaged")

    def test_damaged_count(self) -> None:
        """A count that does not fit its limit is an error, not a new count."""
        self.filled().close()
        db = sqlite3.connect(self.path)
        db.execute("UPDATE bucket SET state = x'00'")
        db.commit()
        db.close()
        with self.assertRaises(errors.QuotaStoreError):
            self.open().reserve([("k", 1)], NOON)

    def test_damaged_limit(self) -> None:
        """A limit that cannot be read is an error that names the file."""
        for column, value in (("kind", "'nonsense'"), ("amount", "'x'"), ("amount", "-1"), ("kind", "NULL")):
            path = self.folder / f"{column}{len(value)}.db"
            store = self.open(path)
            store.define([quota.Bucket("k", DAY)], NOON)
            db = sqlite3.connect(path)
            db.execute(f"UPDATE bucket SET {column} = {value}")
            db.commit()
            db.close()
            with self.assertRaises(errors.QuotaStoreError) as caught:
                store.reserve([("k", 1)], NOON)
            self.says(caught.exception, "damaged", path=path)

    def test_deleted_while_in_use(self) -> None:
        """After the file was deleted nothing is admitted, as others would count in another one; put back, it goes on."""
        store = self.filled()
        kept = self.folder / "kept"
        self.path.rename(kept)
        for method in (lambda: store.reserve([("k", 1)], NOON), lambda: store.headroom(["k"], NOON), lambda: store.holds(NOON)):
            with self.assertRaises(errors.QuotaStoreError) as caught:
                method()
            self.says(caught.exception, "was deleted while in use", "put it back")
        self.assertFalse(self.path.exists())
        kept.rename(self.path)
        self.assertIsInstance(store.reserve([("k", 1)], NOON), quota.Reservation)

    def test_replaced_while_in_use(self) -> None:
        """After the file was replaced nothing is admitted."""
        store = self.filled()
        other = self.folder / "other"
        self.open(other).close()
        other.replace(self.path)
        with self.assertRaises(errors.QuotaStoreError) as caught:
            store.reserve([("k", 1)], NOON)
        self.says(caught.exception, "was replaced while in use")

    def test_truncated_while_in_use(self) -> None:
        """After the file was cut to nothing, nothing is admitted: it does not become a new ledger by itself."""
        store = self.filled()
        os.truncate(self.path, 0)
        with self.assertRaises(errors.QuotaStoreError) as caught:
            store.reserve([("k", 1)], NOON)
        self.says(caught.exception, "was truncated while in use")

    def test_locked_too_long(self) -> None:
        """A lock that others keep is waited for with patience, then said; when it is gone, the same call works."""
        naps: list[float] = []
        store = self.filled(busy_timeout=0.5, sleep=naps.append)
        taken = store.reserve([("k", 1)], NOON)
        db = sqlite3.connect(self.path, isolation_level=None)
        self.addCleanup(db.close)
        db.execute("BEGIN IMMEDIATE")
        with self.assertRaises(errors.QuotaStoreError) as caught:
            store.commit(taken, NOON, [0])
        self.says(caught.exception, "locked by others", "busy_timeout")
        self.assertIsInstance(caught.exception.__cause__, sqlite3.Error)
        self.assertGreaterEqual(sum(naps), 0.5)
        self.assertLess(max(naps), 0.01)
        self.assertEqual(store.headroom(["k"], NOON)[0].used, 5, "reading needs no lock")
        db.execute("ROLLBACK")
        self.assertTrue(store.commit(taken, NOON, [0]))
        self.assertEqual(store.headroom(["k"], NOON)[0].used, 4)

    def test_disk_full(self) -> None:
        """On a full disk reserving and settling raise and change nothing; with space again the same calls work."""
        store = self.open()
        keys = [f"{number:04}{'x' * 400}" for number in range(200)]
        minute = limits.Limit(10, "requests", "minute")
        store.define([quota.Bucket("k", DAY)], NOON)
        taken = store.reserve([("k", 4)], NOON)
        page_count = store._session.db.execute("PRAGMA page_count").fetchone()[0]
        store._session.db.execute(f"PRAGMA max_page_count = {page_count + 1}")
        with self.assertRaises(errors.QuotaStoreError) as caught:
            store.define([quota.Bucket(key, minute) for key in keys], NOON)
        self.says(caught.exception, "disk is full", "free some space")
        with self.assertRaises(errors.QuotaStoreError):
            store.headroom([keys[0]], NOON)
        self.assertEqual(store.headroom(["k"], NOON)[0].used, 4)
        store._session.db.execute("PRAGMA max_page_count = 100000")
        store.define([quota.Bucket(key, minute) for key in keys], NOON)
        self.assertTrue(store.commit(taken, NOON, [1]))
        self.assertEqual([room.used for room in store.headroom(["k", keys[7]], NOON)], [1, 0])

    def test_settling_that_failed_can_be_repeated(self) -> None:
        """When writing a settlement fails, nothing of it is kept, and the same call settles later, once."""
        store = self.filled()
        taken = store.reserve([("k", 5)], NOON)
        store._session.db.execute("CREATE TEMP TRIGGER t BEFORE UPDATE ON main.bucket BEGIN SELECT RAISE(ABORT, 'broken'); END")
        for _ in range(2):
            with self.assertRaises(errors.QuotaStoreError) as caught:
                store.commit(taken, NOON, [1])
            self.assertIn("broken", str(caught.exception))
        self.assertEqual(store.headroom(["k"], NOON)[0].used, 9)
        store._session.db.execute("DROP TRIGGER t")
        self.assertTrue(store.commit(taken, NOON, [1]))
        self.assertFalse(store.commit(taken, NOON, [1]))
        self.assertEqual(store.headroom(["k"], NOON)[0].used, 5)

    def test_interrupted_in_the_middle(self) -> None:
        """An interrupt within a method leaves nothing half done and the store usable."""
        store = self.filled()

        def interrupt() -> Any:
            raise KeyboardInterrupt

        looks, store._file.check = store._file.check, interrupt
        with self.assertRaises(KeyboardInterrupt):
            store.reserve([("k", 1)], NOON)
        store._file.check = looks
        self.assertEqual(store.headroom(["k"], NOON)[0].used, 4)
        self.assertIsInstance(store.reserve([("k", 1)], NOON), quota.Reservation)

    def test_texts_that_cannot_be_stored(self) -> None:
        """A key that is not valid text is an error of ours, not of the codec."""
        store = self.filled()
        with self.assertRaises(errors.QuotaStoreError):
            store.hold("\ud800", NOON + 1, "", NOON)
        with self.assertRaises(errors.QuotaStoreError):
            store.define([quota.Bucket("\ud800", DAY)], NOON)

    @unittest.skipUnless(hasattr(os, "fork"), "needs POSIX users")
    def test_no_permission(self) -> None:
        """A file or folder that may not be written is said at opening, with a remedy."""
        self.filled().close()
        for mode, folder_mode in ((0o444, 0o777), (0o666, 0o555), (0o000, 0o777)):
            self.path.chmod(mode)
            self.folder.chmod(folder_mode)
            forked(lambda: self.refuses("cannot be", "writable"), user=65534)
        self.folder.chmod(0o555)
        forked(lambda: self.refuses("cannot be made", "writable", path=self.folder / "new"), user=65534)
        self.folder.chmod(0o777)

    @unittest.skipUnless(hasattr(os, "fork"), "needs POSIX users")
    def test_writable_again(self) -> None:
        """A file that could not be written serves as soon as it can be: refusing it left nothing beside it."""

        def refused_then_served() -> None:
            self.filled().close()
            self.path.chmod(0o444)
            self.refuses("cannot be written", "writable")
            self.path.chmod(0o600)
            self.assertEqual(self.open().headroom(["k"], NOON)[0].used, 4)

        self.folder.chmod(0o777)
        forked(refused_then_served, user=65534)

    def test_many_open_a_new_file_at_once(self) -> None:
        """Sixteen threads that open and use the same new file all succeed."""
        failures: list[BaseException] = []

        def work() -> None:
            try:
                with quota_sqlite.SQLiteQuotaStore(self.path) as store:
                    store.define([quota.Bucket("k", DAY)], NOON)
                    store.reserve([("k", 1)], NOON)
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])
        self.assertEqual(self.open().headroom(["k"], NOON)[0].used, 10)


def forked(work: Callable[[], Any], user: int = 0) -> None:
    """Runs `work` in a forked child, as `user` where that is possible; it must end well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking among threads is what some tests are about
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if user and os.geteuid() == 0:
                os.setuid(user)
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise AssertionError("the child failed, see above")


@unittest.skipUnless(hasattr(os, "fork"), "needs fork")
class ForkTest(Folder):
    def test_child_and_parent_share_the_ledger(self) -> None:
        """A child forked with an open store counts in the same ledger, and the parent goes on with its own connection."""
        store = self.filled()

        def work() -> None:
            self.assertIsNone(store._session, "no connection may be open while a process forks")
            for _ in range(3):
                assert isinstance(store.reserve([("k", 1)], NOON), quota.Reservation)
            store.close()

        forked(work)
        self.assertEqual(store.headroom(["k"], NOON)[0].used, 7)
        self.assertEqual(sum(isinstance(store.reserve([("k", 1)], NOON), quota.Reservation) for _ in range(5)), 3)

    def test_settled_once_over_a_fork(self) -> None:
        """A reservation that a child settled is settled for the parent too."""
        store = self.filled()
        taken = store.reserve([("k", 5)], NOON)
        forked(lambda: store.commit(taken, NOON, [1]) or os._exit(3))
        self.assertFalse(store.commit(taken, NOON, [3]))
        self.assertEqual(store.headroom(["k"], NOON)[0].used, 5)

    def test_fork_among_busy_threads(self) -> None:
        """Forking while other threads use the store leaves neither side hanging or wrong."""
        store = self.open()
        store.define([quota.Bucket("k", limits.Limit(100_000, "requests", "day"))], NOON)
        stop = threading.Event()
        taken = [0]

        def busy() -> None:
            while not stop.is_set():
                store.commit(store.reserve([("k", 1)], NOON), NOON)
                taken[0] += 1

        thread = threading.Thread(target=busy)
        thread.start()
        try:
            for _ in range(5):
                forked(lambda: store.reserve([("k", 1)], NOON))
        finally:
            stop.set()
            thread.join()
        self.assertEqual(store.headroom(["k"], NOON)[0].used, taken[0] + 5)

    def test_fork_without_hooks(self) -> None:
        """A child made behind Python's back lets go of the parent's connection and opens its own."""
        store = self.filled()
        parents = store._session.db
        store._session.pid -= 1
        self.addCleanup(parents.close)
        self.assertIsInstance(store.reserve([("k", 1)], NOON), quota.Reservation)
        self.assertIsNot(store._session.db, parents)
        self.assertEqual(parents.execute("SELECT 1").fetchone()[0], 1)


class GrowthTest(Folder):
    def test_a_year_stays_small(self) -> None:
        """A year of calls on twenty accounts, crashes included, leaves a file under a megabyte and a log under five."""
        store = self.open()
        kinds = (("rpm", 30, "minute"), ("rph", 900, "hour"), ("rpd", 1500, "day"), ("rpmonth", 40_000, "month"))
        for account in range(20):
            buckets = [quota.Bucket(f"account-{account}/{n}", limits.Limit(a, "requests", w)) for n, a, w in kinds]
            store.define(buckets, NOON)
        now, crashed = NOON, 0
        calls = rounds(7300, 1460)
        for call in range(calls):
            now = NOON + call * 365 * 86400 / calls
            account = call % 20
            taken = store.reserve([(f"account-{account}/{name}", 1) for name, _, _ in kinds], now)
            if isinstance(taken, quota.Reservation) and call % 10:
                store.commit(taken, now)
            else:
                crashed += 1
        left = store._session.db.execute("SELECT count(*) FROM reservation").fetchone()[0]
        self.assertLess(left, crashed / 6, "reservations of crashed calls go with their windows")
        self.assertLess(self.path.with_name("quota.db-wal").stat().st_size, 5_000_000)
        store.close()
        self.assertLess(self.path.stat().st_size, 300_000)


if __name__ == "__main__":
    unittest.main()
