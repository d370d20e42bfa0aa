"""The PostgreSQL store on a real server, by every driver: the whole contract, the naive model, idempotency and every fault."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import unittest
from typing import Any

from tests import ledger_model, part, quota_differential
from tests.quota_servers import PgBouncer, PostgresServer, Proxy, needs_servers, wait_until

conformance = part("conformance")
conformance_learning = part("conformance_learning")
errors = part("errors")
limits = part("limits")
quota = part("quota")
quota_postgres = part("quota_postgres")
NOON = conformance.NOON
STEPS = int(os.environ.get("INFERROUTER_STEPS", "4000"))
TABLES = "bucket, reservation, note, epoch"


@needs_servers
class PostgresCase(unittest.TestCase):
    """A server for each class, its tables emptied before each test."""

    server: PostgresServer
    options: tuple[str, ...] = ("-c", "fsync=off")

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = PostgresServer(*cls.options)
        cls.addClassCleanup(cls.server.close)
        cls.server.start()

    def connect(self) -> Any:
        import psycopg

        return psycopg.connect(self.server.dsn)

    def ask(self, text: str) -> None:
        """One statement of an operator."""
        import psycopg

        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            connection.execute(text)

    def make_store(self) -> Any:
        import psycopg

        with contextlib.suppress(psycopg.Error):
            self.ask("TRUNCATE " + ", ".join(f"inferrouter.{table}" for table in TABLES.split(", ")))
        return self.another()

    def another(self, **options: Any) -> Any:
        """Another store on the same tables."""
        store = quota_postgres.PostgresQuotaStore(self.connect, **options)
        self.addCleanup(store.close)
        return store


class PsycopgConformance(conformance.QuotaStoreConformance, conformance_learning.LearningConformance, PostgresCase):
    """The whole contract by psycopg 3."""

    def make_store(self) -> Any:
        return PostgresCase.make_store(self)

    def reopened(self) -> Any:
        return self.another()


class Psycopg2Conformance(PsycopgConformance):
    """The whole contract by psycopg2."""

    def connect(self) -> Any:
        import psycopg2

        return psycopg2.connect(self.server.dsn)


class Pg8000Conformance(PsycopgConformance):
    """The whole contract by pg8000."""

    def connect(self) -> Any:
        import pg8000.dbapi

        return pg8000.dbapi.connect("quota", host="127.0.0.1", port=self.server.port, database="postgres")


class PoolConformance(PsycopgConformance):
    """The whole contract by a pool of psycopg."""

    def setUp(self) -> None:
        import psycopg_pool

        self.pool = psycopg_pool.ConnectionPool(self.server.dsn, min_size=1, max_size=4, open=True)
        self.addCleanup(self.pool.close)
        super().setUp()

    def connect(self) -> Any:
        return self.pool.connection()


class BouncerConformance(PsycopgConformance):
    """The whole contract through pgbouncer in transaction mode."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.bouncer = PgBouncer(cls.server)
        cls.addClassCleanup(cls.bouncer.close)
        cls.bouncer.start()

    def connect(self) -> Any:
        import psycopg

        return psycopg.connect(self.bouncer.dsn)


class PostgresAgainstOthers(PostgresCase):
    def test_random_verbs_against_the_model(self) -> None:
        """Thousands of random methods, clock steps included, agree with the naive model."""
        for seed in range(2):
            with self.make_store() as store:
                ledger_model.run(self, store, seed, 700)

    def test_differential(self) -> None:
        """Random steps, those of the clock both ways included, get the same answers as from memory, to the last bit."""
        for seed in range(4):
            with self.make_store() as store:
                admitted = quota_differential.run(self, quota_differential.Uncached(), store, seed, STEPS // 4)
                self.assertGreater(admitted, STEPS // 40)

    def test_batches_do_what_single_operations_do(self) -> None:
        """The same operations get the same answers, to the last bit, whether they travel one at a time or many together."""
        for seed in range(3):
            with self.make_store() as one, self.another(schema=f"batches{seed}") as other:
                operations = quota_differential.replay(self, one, other, seed, STEPS // 4)
                self.assertGreater(operations, STEPS // 8)


class PostgresVerbs(PostgresCase):
    def setUp(self) -> None:
        self.store = self.make_store()
        self.store.define([quota.Bucket("k", limits.Limit(10, "requests", "day"))], NOON)

    def used(self, store: Any = None) -> float:
        used: float = (store or self.store).headroom(["k"], NOON)[0].used
        return used

    def through(self, proxy: Proxy, **options: Any) -> Any:
        import psycopg

        self.addCleanup(proxy.close)
        store = quota_postgres.PostgresQuotaStore(
            lambda: psycopg.connect(f"host=127.0.0.1 port={proxy.port} user=quota password=hunter2 dbname=postgres"), **options
        )
        self.addCleanup(store.close)
        return store

    def test_one_round_trip_a_verb(self) -> None:
        """Reserving, settling, looking and holding cost one round trip each, over later slots and windows too."""
        proxy = Proxy(self.server.port)
        store = self.through(proxy)
        keys = ("minute", "hour", "day")
        store.define([quota.Bucket(key, limits.Limit(99, "requests", key)) for key in keys], NOON)
        wants = [(key, 1) for key in keys]
        store.reserve(wants, NOON)
        now, before = NOON, proxy.requests
        for step in range(60):
            now += (0.5, 3, 70, 5000, 90_000)[step % 5]
            taken = store.reserve(wants, now)
            store.commit(taken, now + (2 if step % 2 else 0), [2, 2, 2])
        self.assertEqual(proxy.requests - before, 120)
        store.headroom(keys, now)
        store.hold("k", now + 5, "", now)
        store.holds(now)
        self.assertEqual(proxy.requests - before, 123)

    def test_a_lost_race(self) -> None:
        """One who is far away changes a bucket that others charge all the time: after two tries they wait for it."""
        with self.another() as near:
            quota_differential.a_lost_race(self, self.store, near, NOON)

    def test_a_claim_of_one_who_died(self) -> None:
        """What somebody claimed and never changed is free again before long; only those who charge it wait."""
        quota_differential.a_claim_of_one_who_died(self, NOON)

    def test_clocks_a_little_apart_cost_one_round_trip(self) -> None:
        """Callers whose clocks are milliseconds or seconds apart, on either side of slots and days, are counted by the server
        alone."""
        proxy = Proxy(self.server.port)
        store = self.through(proxy)
        quota_differential.a_little_apart(self, store, NOON, lambda: proxy.requests)

    def test_a_lost_reply_charges_once(self) -> None:
        """The server did it and its reply was lost: reserving, settling and rolling back again change nothing more."""
        proxy = Proxy(self.server.port)
        store = self.through(proxy)
        store.headroom(["k"], NOON)
        for turn, cut in enumerate(("cut_replies", "cut_requests")):
            setattr(proxy, cut, 1)
            taken = store.reserve([("k", 2)], NOON)
            self.assertEqual(self.used(), 2 + 3 * turn, cut)
            setattr(proxy, cut, 1)
            self.assertTrue(store.commit(taken, NOON, [3]))
            self.assertEqual(self.used(), 3 + 3 * turn, cut)
            taken = store.reserve([("k", 2)], NOON)
            setattr(proxy, cut, 1)
            self.assertTrue(store.rollback(taken, NOON))
            self.assertEqual(self.used(), 3 + 3 * turn, cut)

    def test_a_silent_server(self) -> None:
        """A server that does not answer: QuotaStoreError in time, without a password; what nobody waited for is given back."""
        proxy = Proxy(self.server.port)
        store = self.through(proxy, timeout=0.4)
        store.headroom(["k"], NOON)
        proxy.silent = True
        for verb in (lambda: store.reserve([("k", 2)], NOON), lambda: store.headroom(["k"], NOON), lambda: store.holds(NOON)):
            started = time.monotonic()
            with self.assertRaisesRegex(errors.QuotaStoreError, f"PostgreSQL at 127.0.0.1:{proxy.port}/postgres") as caught:
                verb()
            self.assertLess(time.monotonic() - started, 0.5)
            self.assertNotIn("hunter2", str(caught.exception))
        proxy.silent = False
        wait_until(lambda: not caught_of(lambda: store.reserve([("k", 1)], NOON)), "an answer")
        wait_until(lambda: self.used() == 1, "giving back")

    def test_killed_backends(self) -> None:
        """Every connection is ended by an operator, again and again: nothing is lost and nobody sees it."""
        for turn in range(5):
            self.store.commit(self.store.reserve([("k", 1)], NOON), NOON, [2])
            self.assertEqual(self.used(), 2 * turn + 2)
            self.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'quota'")

    def test_serialization_failures_and_deadlocks(self) -> None:
        """With serializable transactions by default, and eight threads on the same limits, exactly the limit passes."""
        self.ask("ALTER SYSTEM SET default_transaction_isolation = 'serializable'")
        self.ask("SELECT pg_reload_conf()")
        try:
            stores = [self.another(timeout=20) for _ in range(4)]
            keys = [f"k{number}" for number in range(4)]
            stores[0].define([quota.Bucket(key, limits.Limit(40, "requests", "day")) for key in keys], NOON)
            admitted = []

            def work(number: int) -> None:
                for turn in range(12):
                    some = keys[number % 4 :] + keys[: number % 4]
                    taken = stores[number % 4].reserve([(key, 1) for key in some], NOON + turn * 0.001)
                    admitted.append(isinstance(taken, quota.Reservation))

            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual((len(admitted), sum(admitted)), (96, 40))
        finally:
            self.ask("ALTER SYSTEM RESET default_transaction_isolation")
            self.ask("SELECT pg_reload_conf()")

    def test_idle_in_transaction(self) -> None:
        """Somebody holds the ledger's rows in an idle transaction: QuotaStoreError in time; once the server has ended it, calls
        go on."""
        import psycopg

        blocker = psycopg.connect(self.server.dsn)
        self.addCleanup(blocker.close)
        blocker.execute("SET idle_in_transaction_session_timeout = '700ms'")
        blocker.execute("SELECT * FROM inferrouter.bucket FOR UPDATE")
        started = time.monotonic()
        with self.assertRaises(errors.QuotaStoreError):
            self.another(timeout=0.3).reserve([("k", 1)], NOON)
        self.assertLess(time.monotonic() - started, 0.4)
        self.assertIsInstance(self.store.reserve([("k", 2)], NOON), quota.Reservation)
        wait_until(lambda: self.used() == 2, "giving back")

    def test_statement_timeout_and_read_only(self) -> None:
        """A standby, a server that only reads: connect to the primary."""
        import psycopg

        def read_only() -> Any:
            return psycopg.connect(self.server.dsn, options="-c default_transaction_read_only=on")

        with quota_postgres.PostgresQuotaStore(read_only, timeout=0.3) as store:
            with self.assertRaisesRegex(errors.QuotaStoreError, "connect to the primary"):
                store.reserve([("k", 1)], NOON)

    def test_dropped_schema(self) -> None:
        """The tables were dropped: they are made again, and refused until their windows have passed."""
        self.ask("DROP SCHEMA inferrouter CASCADE")
        with self.assertRaisesRegex(errors.QuotaStoreError, "lost its counts"):
            self.store.reserve([("k", 1)], NOON)
        self.assertIsInstance(self.store.reserve([("k", 1)], NOON + 86_400), quota.Reservation)
        self.assertIn("without its counts", " ".join(self.store.warnings))

    def test_no_permission_no_server_wrong_password(self) -> None:
        """Each is told with its remedy, and without the password."""
        import psycopg

        self.ask("DO $$ BEGIN CREATE ROLE weak LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        weak = self.server.dsn.replace("user=quota", "user=weak")
        gone = Proxy(self.server.port)
        gone.close()
        for connect, remedy in (
            (lambda: psycopg.connect(weak), "GRANT CREATE"),
            (lambda: psycopg.connect(f"postgresql://quota:hunter2@127.0.0.1:{gone.port}/x"), "see that it is up"),
            (lambda: psycopg.connect("postgresql://quota:hunter2@[::1/x"), "failed"),
        ):
            with quota_postgres.PostgresQuotaStore(connect, schema="weak", timeout=0.4) as store:
                with self.assertRaisesRegex(errors.QuotaStoreError, remedy) as caught:
                    store.reserve([("k", 1)], NOON)
            told = "".join(str(each) for each in (caught.exception, caught.exception.__cause__))
            self.assertNotIn("hunter2", told)

    def test_wrong_parameters(self) -> None:
        """What cannot be a connection, a schema or a timeout is a ConfigError or QuotaStoreError that says what to pass."""
        for wrong in (None, "dsn"):
            with self.assertRaisesRegex(errors.ConfigError, "psycopg.connect"):
                quota_postgres.PostgresQuotaStore(wrong)
        for schema in ("", "A", "a; DROP TABLE x", 'a"b'):
            with self.assertRaisesRegex(errors.ConfigError, "schema"):
                quota_postgres.PostgresQuotaStore(self.connect, schema=schema)
        with quota_postgres.PostgresQuotaStore(lambda: 5) as store:
            with self.assertRaisesRegex(errors.QuotaStoreError, "not a connection"):
                store.holds(NOON)

    def test_schemas_are_apart(self) -> None:
        """Two schemas are two ledgers."""
        other = self.another(schema="other")
        other.define([quota.Bucket("k", limits.Limit(5, "requests", "day"))], NOON)
        self.store.reserve([("k", 3)], NOON)
        self.assertEqual((self.used(other), self.used()), (0, 3))

    def test_a_newer_version(self) -> None:
        """Tables of a newer version are left alone."""
        self.ask("CREATE SCHEMA newer")
        self.ask("CREATE TABLE newer.version (ledger integer PRIMARY KEY)")
        self.ask("INSERT INTO newer.version VALUES (99)")
        with self.assertRaisesRegex(errors.QuotaStoreError, "update this library"):
            self.another(schema="newer").holds(NOON)

    def test_many_make_the_tables_at_once(self) -> None:
        """Eight stores that meet an empty database all find their tables."""
        self.ask("DROP SCHEMA IF EXISTS crowd CASCADE")
        failures: list[Exception] = []

        def work() -> None:
            try:
                self.another(schema="crowd", timeout=20).holds(NOON)
            except Exception as exc:
                failures.append(exc)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_fork(self) -> None:
        """A forked child goes on with the ledger, on a connection of its own, and leaves its parent's alone."""
        self.store.reserve([("k", 1)], NOON)
        pid = os.fork()
        if not pid:
            code = 1
            try:
                code = 0 if isinstance(self.store.reserve([("k", 2)], NOON), quota.Reservation) else 2
            finally:
                os._exit(code)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        self.assertEqual(self.used(), 3)

    def test_old_records_go(self) -> None:
        """Records of reservations whose time has passed are deleted by and by."""
        self.ask("INSERT INTO inferrouter.reservation SELECT 'old' || n, 'o', 1 FROM generate_series(1, 300) n")
        for _ in range(1000):
            self.store.holds(NOON)
        import psycopg

        with psycopg.connect(self.server.dsn) as connection:
            left = connection.execute("SELECT count(*) FROM inferrouter.reservation WHERE expires < 2").fetchone()
        self.assertEqual(left, (0,))


def caught_of(work: Any) -> Exception | None:
    """The library's error that `work` raises."""
    try:
        work()
    except errors.InferRouterError as exc:
        caught: Exception = exc
        return caught
    return None


if __name__ == "__main__":
    unittest.main()
