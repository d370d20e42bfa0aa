"""The Redis store on a real server: the whole contract, the naive model, idempotency and every fault of a server."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import unittest
from typing import Any

from tests import ir, ledger_model, part, quota_differential
from tests.fakes import FakeClock
from tests.quota_servers import Proxy, RedisServer, listens, needs_servers, wait_until

conformance = part("conformance")
conformance_learning = part("conformance_learning")
errors = part("errors")
limits = part("limits")
quota = part("quota")
quota_redis = part("quota_redis")
STEPS = int(os.environ.get("INFERROUTER_STEPS", "4000"))
NOON = conformance.NOON


@needs_servers
class RedisCase(unittest.TestCase):
    """A server of its own for each class, emptied before each test."""

    server: RedisServer
    options: tuple[str, ...] = ()
    decode = False

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = RedisServer(*cls.options)
        cls.addClassCleanup(cls.server.close)
        cls.server.start()

    def client(self, port: int | None = None, **options: Any) -> Any:
        import redis

        options.setdefault("decode_responses", self.decode)
        client = redis.Redis(port=port or self.server.port, **options)
        self.addCleanup(client.close)
        return client

    def make_store(self) -> Any:
        self.client().flushall()
        return quota_redis.RedisQuotaStore(self.client())


class RedisConformance(conformance.QuotaStoreConformance, conformance_learning.LearningConformance, RedisCase):
    """The whole contract."""

    def make_store(self) -> Any:
        return RedisCase.make_store(self)

    def reopened(self) -> Any:
        store = quota_redis.RedisQuotaStore(self.client())
        self.addCleanup(store.close)
        return store


class RedisDecodingConformance(RedisConformance):
    """The whole contract with a client that decodes."""

    decode = True


class RedisAgainstOthers(RedisCase):
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
            with self.make_store() as one, quota_redis.RedisQuotaStore(self.client(), prefix=f"batches{seed}") as other:
                operations = quota_differential.replay(self, one, other, seed, STEPS // 4)
                self.assertGreater(operations, STEPS // 8)


class RedisVerbs(RedisCase):
    def setUp(self) -> None:
        self.store = self.make_store()
        self.addCleanup(self.store.close)
        self.store.define([quota.Bucket("k", limits.Limit(10, "requests", "day"))], NOON)

    def used(self, store: Any = None) -> float:
        used: float = (store or self.store).headroom(["k"], NOON)[0].used
        return used

    def through(self, proxy: Proxy, timeout: float = 2.0, **options: Any) -> Any:
        store = quota_redis.RedisQuotaStore(self.client(proxy.port, **options), timeout=timeout)
        self.addCleanup(store.close)
        self.addCleanup(proxy.close)
        return store

    def test_one_round_trip_a_verb(self) -> None:
        """Reserving, settling, looking and holding cost one round trip each, once a bucket was charged."""
        proxy = Proxy(self.server.port)
        store = self.through(proxy)
        self.store.reserve([("k", 1)], NOON)
        store.headroom(["k"], NOON)
        for verb in (
            lambda: store.reserve([("k", 1)], NOON),
            lambda: store.headroom(["k"], NOON),
            lambda: store.hold("k", NOON + 5, "", NOON),
            lambda: store.holds(NOON),
        ):
            before = proxy.requests
            verb()
            self.assertEqual(proxy.requests - before, 1)
        taken = store.reserve([("k", 1)], NOON)
        before = proxy.requests
        store.commit(taken, NOON, [2])
        self.assertEqual(proxy.requests - before, 1)

    def test_later_slots_and_windows_cost_one_round_trip(self) -> None:
        """A clock that goes forward is followed by the server alone: over slots, days, and long pauses."""
        proxy = Proxy(self.server.port)
        store = self.through(proxy)
        store.define([quota.Bucket(key, limits.Limit(99, "requests", key)) for key in ("minute", "hour", "day")], NOON)
        wants = [(key, 1) for key in ("minute", "hour", "day")]
        store.reserve(wants, NOON)
        now, before = NOON, proxy.requests
        for step in range(60):
            now += (0.5, 3, 70, 5000, 90_000)[step % 5]
            taken = store.reserve(wants, now)
            store.commit(taken, now + (2 if step % 2 else 0), [2, 2, 2])
        self.assertEqual(proxy.requests - before, 120)

    def test_clocks_a_little_apart_cost_one_round_trip(self) -> None:
        """Callers whose clocks are milliseconds or seconds apart, on either side of a slot, a day and a year, are counted by the
        server alone: handing each back would keep those who are far away waiting for as long as others are busy."""
        proxy = Proxy(self.server.port)
        store = self.through(proxy)
        quota_differential.a_little_apart(self, store, NOON, lambda: proxy.requests)

    def test_a_lost_race(self) -> None:
        """One who is far away changes a bucket that others charge all the time: after two tries they wait for it."""
        with quota_redis.RedisQuotaStore(self.client()) as near:
            quota_differential.a_lost_race(self, self.store, near, NOON)

    def test_a_claim_of_one_who_died(self) -> None:
        """What somebody claimed and never changed is free again before long; only those who charge it wait."""
        quota_differential.a_claim_of_one_who_died(self, NOON)

    def test_a_lost_reply_charges_once(self) -> None:
        """The server did it and its reply was lost: reserving, settling and rolling back again change nothing more."""
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        for retry in (Retry(NoBackoff(), 3), Retry(NoBackoff(), 0)):
            self.store = self.make_store()
            self.addCleanup(self.store.close)
            self.store.define([quota.Bucket("k", limits.Limit(10, "requests", "day"))], NOON)
            proxy = Proxy(self.server.port)
            store = self.through(proxy, retry=retry)
            store.headroom(["k"], NOON)
            for cut in ("cut_replies", "cut_requests"):
                setattr(proxy, cut, 1)
                taken = store.reserve([("k", 2)], NOON)
                self.assertEqual(self.used(), 2, cut)
                setattr(proxy, cut, 1)
                self.assertTrue(store.commit(taken, NOON, [3]))
                self.assertEqual(self.used(), 3, cut)
                self.assertFalse(store.commit(taken, NOON, [3]))
                taken = store.reserve([("k", 2)], NOON)
                setattr(proxy, cut, 1)
                self.assertTrue(store.rollback(taken, NOON))
                self.assertEqual(self.used(), 3, cut)
                self.store.set_quota("x", 1, "requests")
                store.rollback(self.store.reserve([("k", 1)], NOON), NOON)
                self.store.commit(store.reserve([("k", 0)], NOON), NOON, [0])
                back = store.reserve([("k", 0)], NOON)
                store.commit(back, NOON, [0])
                self.client().hset("{inferrouter}:b:k", "u", "0.0")

    def test_a_silent_server(self) -> None:
        """A server that does not answer: QuotaStoreError in time, which names it; what was reserved for nobody is given back."""
        proxy = Proxy(self.server.port)
        store = self.through(proxy, timeout=0.3)
        store.headroom(["k"], NOON)
        proxy.silent = True
        for verb in (
            lambda: store.reserve([("k", 2)], NOON),
            lambda: store.headroom(["k"], NOON),
            lambda: store.holds(NOON),
        ):
            started = time.monotonic()
            with self.assertRaisesRegex(errors.QuotaStoreError, f"127.0.0.1:{proxy.port}|localhost:{proxy.port}"):
                verb()
            self.assertLess(time.monotonic() - started, 0.4)
        proxy.silent = False
        self.assertIsInstance(store.reserve([("k", 1)], NOON), quota.Reservation)
        wait_until(lambda: self.used() == 1, "giving back")

    def test_a_server_that_is_gone(self) -> None:
        """A refused connection: QuotaStoreError in time, and no word of a password."""
        proxy = Proxy(self.server.port)
        proxy.close()
        store = quota_redis.RedisQuotaStore(self.client(proxy.port, password="hunter2"), timeout=0.3)
        self.addCleanup(store.close)
        started = time.monotonic()
        with self.assertRaisesRegex(errors.QuotaStoreError, "see that it is up") as caught:
            store.reserve([("k", 1)], NOON)
        self.assertLess(time.monotonic() - started, 0.4)
        self.assertNotIn("hunter2", repr(caught.exception) + str(caught.exception) + repr(store))

    def test_scripts_forgotten(self) -> None:
        """SCRIPT FLUSH between two verbs is not noticed."""
        for _ in range(3):
            self.assertIsInstance(self.store.reserve([("k", 1)], NOON), quota.Reservation)
            self.client().script_flush()
        self.assertEqual(self.used(), 3)

    def test_keys(self) -> None:
        """Every key carries the prefix as its one hash tag and has a time to live."""
        self.store.reserve([("k", 1)], NOON)
        self.store.hold("k", NOON + 60, "", NOON)
        client = self.client(decode_responses=True)
        keys = client.keys()
        self.assertEqual(len(keys), 4)
        for key in keys:
            self.assertTrue(key.startswith("{inferrouter}:"), key)
            self.assertGreater(client.ttl(key), 3600)

    def test_what_is_in_use_never_goes(self) -> None:
        """A ledger in which nothing but charges happens lives on: its epoch and its buckets get their time anew as windows pass,
        which is longer than the longest window."""
        client = self.client(decode_responses=True)
        year = 366 * 86400
        self.store.reserve([("k", 1)], NOON)
        for key in client.keys("*:b:*") + client.keys("*:epoch"):
            self.assertGreater(client.ttl(key), year)
            client.expire(key, 600)
        self.store.reserve([("k", 1)], NOON + 86400)
        for key in client.keys("*:b:*") + client.keys("*:epoch"):
            self.assertGreater(client.ttl(key), year)

    def test_prefixes_are_apart(self) -> None:
        """Two prefixes on one server are two ledgers."""
        with quota_redis.RedisQuotaStore(self.client(), prefix="other") as other:
            other.define([quota.Bucket("k", limits.Limit(5, "requests", "day"))], NOON)
            self.store.reserve([("k", 3)], NOON)
            self.assertEqual(self.used(other), 0)

    def test_wrong_clients(self) -> None:
        """An asynchronous client, or none, is a ConfigError that says what to pass; so is a wrong prefix or timeout."""
        import redis.asyncio

        for wrong in (redis.asyncio.Redis(), None, "redis://localhost", object()):
            with self.assertRaisesRegex(errors.ConfigError, "redis"):
                quota_redis.RedisQuotaStore(wrong)
        for options in ({"prefix": ""}, {"prefix": "{a}"}, {"timeout": 0}, {"timeout": "1"}, {"adopt_empty": 1}):
            with self.assertRaises(errors.ConfigError):
                quota_redis.RedisQuotaStore(self.client(), **options)

    def test_a_clock_that_differs_is_told(self) -> None:
        """A caller's clock more than two seconds from the server's is a warning, which goes when it is right again."""
        with quota_redis.RedisQuotaStore(self.client()) as store:
            for skew, told in ((0.0, False), (90.0, True), (-90.0, True), (1.0, False)):
                store.holds(time.time() + skew)
                self.assertEqual(any("clock" in each for each in store.warnings), told, skew)
                self.assertAlmostEqual(store.skew_s, skew, delta=1.0)

    def test_machines_with_clocks_apart(self) -> None:
        """A caller who is behind never re-opens a window that one ahead has charged, nor one ahead that of one behind."""
        with quota_redis.RedisQuotaStore(self.client()) as other:
            bucket = quota.Bucket("m", limits.Limit(10, "requests", "minute"))
            admitted = []
            for store in (self.store, other):
                store.define([bucket], NOON)
            for step in range(400):
                for store, ahead in ((self.store, 0), (other, 50)):
                    now = NOON + step * 0.3 + ahead
                    admitted += [now] * isinstance(store.reserve([("m", 1)], now), quota.Reservation)
        admitted.sort()
        self.assertTrue(all(late - early >= 60 for early, late in zip(admitted, admitted[10:], strict=False)))

    def test_fork(self) -> None:
        """A forked child goes on with the ledger of its parent, on connections of its own."""
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

    def test_fork_under_load(self) -> None:
        """Children that are forked while other threads reserve go on, and every charge is counted once."""
        self.store.define([quota.Bucket("k", limits.Limit(1e6, "requests", "day"))], NOON)
        counts, over = [], threading.Event()

        def work() -> None:
            while not over.is_set():
                self.store.headroom(["k"], NOON, max_age=1.0)
                counts.append(isinstance(self.store.reserve([("k", 1)], NOON), quota.Reservation))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(8):
            pid = os.fork()
            if not pid:
                code = 1
                try:
                    self.store.headroom(["k"], NOON, max_age=1.0)
                    code = 0 if isinstance(self.store.reserve([("k", 1)], NOON), quota.Reservation) else 2
                finally:
                    os._exit(code)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
        over.set()
        for thread in threads:
            thread.join()
        self.assertEqual(self.used(), len(counts) + 8)

    def test_a_signal_in_the_middle(self) -> None:
        """A signal handler that reserves on the same store never waits for what it interrupted, and every charge is counted."""
        self.store.define([quota.Bucket("k", limits.Limit(1e6, "requests", "day"))], NOON)
        made: list[bool] = []

        def handler(*_: object) -> None:
            self.store.headroom(["k"], NOON, max_age=1.0)
            made.append(isinstance(self.store.reserve([("k", 1)], NOON), quota.Reservation))

        before, measuring = signal.signal(signal.SIGALRM, handler), sys.gettrace()
        sys.settrace(None)  # what measures coverage has a lock: a lane would wait for it, and we for the lane
        try:
            for turn in range(150):
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + turn * 0.00001)
                self.store.headroom(["k"], NOON, max_age=1.0)
                made.append(isinstance(self.store.reserve([("k", 1)], NOON), quota.Reservation))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            sys.settrace(measuring)
        self.assertGreater(len(made), 150)
        self.assertEqual(self.used(), len(made))

    def test_a_signal_and_a_silent_server(self) -> None:
        """A signal handler's call ends in time where its thread holds the store's lock and the server is silent; what it may have
        reserved is given back."""
        proxy = Proxy(self.server.port)
        store = self.through(proxy)
        store.headroom(["k"], NOON)
        proxy.silent = True
        started = time.monotonic()
        with store._lanes._lock, self.assertRaisesRegex(errors.QuotaStoreError, "did not answer in time"):
            store.reserve([("k", 2)], NOON, max_wait=0.2)
        self.assertLess(time.monotonic() - started, 0.3)
        proxy.silent = False
        self.assertIsInstance(store.reserve([("k", 1)], NOON), quota.Reservation)
        wait_until(lambda: self.used() == 1, "giving back")

    def test_ctrl_c_gives_back(self) -> None:
        """What was reserved while the caller was interrupted is given back."""
        proxy = Proxy(self.server.port)
        store = self.through(proxy)
        store.headroom(["k"], NOON)
        proxy.delay = 0.2

        def handler(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            with self.assertRaises(KeyboardInterrupt):
                store.reserve([("k", 2)], NOON)
        finally:
            signal.signal(signal.SIGALRM, before)
        time.sleep(0.5)
        wait_until(lambda: self.used() == 0, "giving back")

    def test_a_settlement_over_a_long_way(self) -> None:
        """A settlement that may wait shorter than the way to the server takes is made all the same, not given up each time."""
        proxy = Proxy(self.server.port)
        store = self.through(proxy)
        proxy.delay = 0.06
        taken = store.reserve([("k", 3)], NOON)
        self.assertTrue(store.commit(taken, NOON, [1], max_wait=0.05))
        self.assertEqual(self.used(), 1)

    def test_no_thread_is_left(self) -> None:
        """Making a store starts no thread, and closing it ends those it had."""
        before = threading.active_count()
        store = quota_redis.RedisQuotaStore(self.client())
        self.assertEqual(threading.active_count(), before)
        store.holds(NOON)
        self.assertGreater(threading.active_count(), before)
        store.close()
        self.assertEqual(threading.active_count(), before)

    def test_connections_of_the_callers_pool(self) -> None:
        """A store keeps a connection of a roomy pool until it is closed, and none of one that is short of them."""
        import redis

        roomy, narrow = self.client(), self.client(max_connections=1)
        for client, kept in ((roomy, 1), (narrow, 0)):
            with quota_redis.RedisQuotaStore(client) as store:
                store.holds(NOON)
                pool = client.connection_pool
                self.assertEqual(len(pool._in_use_connections), kept)
                if not kept:
                    client.ping()
            self.assertEqual(len(pool._in_use_connections), 0)
        self.assertIsInstance(redis.Redis(connection_pool=roomy.connection_pool).ping(), bool)

    def test_a_connection_that_the_server_ended(self) -> None:
        """A server that ends idle connections is asked again over a new one, also by a client that does not try again itself."""
        import valkey

        client = valkey.Valkey(port=self.server.port)
        self.addCleanup(client.close)
        with quota_redis.RedisQuotaStore(client) as store:
            store.holds(NOON)
            self.client().execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
            self.assertIsInstance(store.reserve([("k", 1)], NOON), quota.Reservation)

    def test_valkey_client(self) -> None:
        """valkey-py serves as well as redis-py."""
        import valkey

        client = valkey.Valkey(port=self.server.port)
        self.addCleanup(client.close)
        with quota_redis.RedisQuotaStore(client) as store:
            taken = store.reserve([("k", 2)], NOON)
            self.assertTrue(store.commit(taken, NOON, [1]))
        self.assertEqual(self.used(), 1)


class RedisUnderARouter(RedisCase):
    """What a call through a router costs and gets."""

    def router(self, store: Any, **options: Any) -> Any:
        accounts = [
            ir.AccountConfig(
                provider="mock", id=f"a{number}", daily_free=3, quota_unit="requests", limits={"rpm": 9, "tpm": 9000}
            )
            for number in range(3)
        ]
        built = ir.Config(accounts=accounts, default_model="mock/any", **options)
        router = ir.Router(built, [ir.MockProvider("mock", ["hello"] * 99)], quota_store=store)
        self.addCleanup(router.close)
        return router

    def store_at(self, port: int, **options: Any) -> Any:
        store = quota_redis.RedisQuotaStore(self.client(port), **options)
        self.addCleanup(store.close)
        return store

    def test_two_round_trips_a_call(self) -> None:
        """A call costs two round trips more than with memory: one to reserve and one to settle."""
        self.client().flushall()
        proxy = Proxy(self.server.port)
        self.addCleanup(proxy.close)
        router = self.router(self.store_at(proxy.port))
        for _ in range(3):  # the first call at each account begins its windows
            router.chat_completion(ir.ChatRequest("hi"))
        before = proxy.requests
        for _ in range(5):
            router.chat_completion(ir.ChatRequest("hi"))
        self.assertEqual(proxy.requests - before, 10)
        router.chat_completion(ir.ChatRequest("hi"))
        with self.assertRaises(ir.NoCandidatesError):
            router.chat_completion(ir.ChatRequest("hi"))

    def slow_clock(self, store: Any) -> list[float]:
        """Seconds by which the clock of what `store` remembers is ahead: as if calls came so far apart."""
        ahead = [0.0]
        store._mirror = part("quota_mirror").Mirror(lambda: time.monotonic() + ahead[0])
        return ahead

    def test_two_round_trips_a_slow_call(self) -> None:
        """Calls far apart cost two round trips as well: the new look comes with the reservation."""
        self.client().flushall()
        proxy = Proxy(self.server.port)
        self.addCleanup(proxy.close)
        store = self.store_at(proxy.port)
        ahead = self.slow_clock(store)
        router = self.router(store)
        for _ in range(3):
            router.chat_completion(ir.ChatRequest("hi"))
        for pause in (2, 30, 90, 4000):
            ahead[0] += pause
            before = proxy.requests
            router.chat_completion(ir.ChatRequest("hi"))
            self.assertEqual(proxy.requests - before, 2)

    def test_a_look_that_came_with_a_reservation(self) -> None:
        """What others did before the last reservation is known to the next choice, and what they did since is found out."""
        self.client().flushall()
        store = self.store_at(self.server.port)
        ahead = self.slow_clock(store)
        router, other = self.router(store), self.router(self.store_at(self.server.port))
        router.chat_completion(ir.ChatRequest("hi"))
        with self.store_at(self.server.port) as third:
            third.hold("a1", time.time() + 900, "rested elsewhere", time.time())
        ahead[0] += 60
        router.chat_completion(ir.ChatRequest("hi"))
        for _ in range(2):
            ahead[0] += 60
            self.assertNotEqual(router.chat_completion(ir.ChatRequest("hi")).routing.account_id, "a1")
        ahead[0] += 60
        with self.assertRaises(ir.NoCandidatesError):
            for _ in range(9):
                other.chat_completion(ir.ChatRequest("hi"))
        with self.assertRaises(ir.NoCandidatesError):
            router.chat_completion(ir.ChatRequest("hi"))

    def test_two_routers_never_overrun(self) -> None:
        """Two programs with the same accounts serve each free request once, whichever of them asks, and see it in status."""
        self.client().flushall()
        routers = [self.router(self.store_at(self.server.port)) for _ in range(2)]
        served = 0
        for turn in range(14):
            try:
                routers[turn % 2].chat_completion(ir.ChatRequest("hi"))
                served += 1
            except ir.NoCandidatesError:
                pass
        self.assertEqual(served, 9)
        for router in routers:
            self.assertEqual([account.remaining for account in router.status().values()], [0, 0, 0])

    def test_no_call_without_an_answer_of_the_store(self) -> None:
        """A server that is gone or silent: QuotaStoreError within the call's time and a tenth of a second, and no call is
        placed; with on_store_error = "ignore" the calls go on."""
        for fault in ("silent", "refusing"):
            self.client().flushall()
            proxy = Proxy(self.server.port)
            self.addCleanup(proxy.close)
            provider = ir.MockProvider("mock", ["hello"] * 9)
            account = ir.AccountConfig(provider="mock", id="a", daily_free=9, quota_unit="requests")
            for ignoring in (False, True):
                built = ir.Config(accounts=[account], default_model="mock/any", on_store_error="ignore" if ignoring else "refuse")
                with ir.Router(built, [provider], quota_store=self.store_at(proxy.port, timeout=0.4)) as router:
                    setattr(proxy, fault, True)
                    proxy.cut()
                    started, placed = time.monotonic(), len(provider.calls)
                    if ignoring:
                        router.chat_completion(ir.ChatRequest("hi"))
                        self.assertGreater(router.status().degraded, 0)
                    else:
                        with self.assertRaises(ir.QuotaStoreError):
                            router.chat_completion(ir.ChatRequest("hi"), timeout=0.2)
                        self.assertLess(time.monotonic() - started, 0.3)
                        self.assertEqual(len(provider.calls), placed)
                    setattr(proxy, fault, False)

    def test_partitions(self) -> None:
        """README's table: what a call gets when the way to the store breaks before its reservation, at the answer to that, while
        the provider works, or at the answer to its settlement; and what is counted once the way is there again."""
        for fault in ("silent", "refusing"):
            self.partition(fault, "", served=False)
            self.partition("", fault, served=True)
        for fault in ("cut_requests", "cut_replies"):
            self.partition(fault, "", served=True)
            self.partition("", fault, served=True)

    def partition(self, before: str, meanwhile: str, served: bool) -> None:
        """One call whose way to the store breaks before it, or while the provider works."""
        proxy = Proxy(self.server.port)
        self.addCleanup(proxy.close)

        def break_way(fault: str) -> str:
            if fault:
                setattr(proxy, fault, True if fault in ("silent", "refusing") else 1)
            if fault == "refusing":
                proxy.cut()
            return "hello"

        provider = ir.MockProvider("mock", ["hello", lambda _: break_way(meanwhile)], default="hello")
        account = ir.AccountConfig(provider="mock", id="a", limits={"rpd": 9, "tpd": 9000})
        built = ir.Config(accounts=[account], default_model="mock/any")
        # A ledger of its own: to the stores of the one before, which go on, an emptied one would have lost its counts.
        prefix = f"{before}-{meanwhile}"
        near = ir.Router(built, [provider], quota_store=self.store_at(self.server.port, prefix=prefix))
        self.addCleanup(near.close)
        with self.subTest(before=before, meanwhile=meanwhile), self.routed(built, provider, proxy, prefix) as router:
            tokens = router.chat_completion(ir.ChatRequest("hi")).usage.total_tokens
            break_way(before)
            started = time.monotonic()
            with contextlib.nullcontext() if served else self.assertRaises(ir.QuotaStoreError):
                router.chat_completion(ir.ChatRequest("hi"), timeout=0.4)
            self.assertLess(time.monotonic() - started, 0.5)
            self.assertEqual(len(provider.calls), 1 + served)
            proxy.silent = proxy.refusing = False
            router.chat_completion(ir.ChatRequest("hi"))
            wanted = {"rpd": 2 + served, "tpd": tokens * (2 + served)}
            wait_until(lambda: {each.name: each.used for each in near.status()["a"].limits} == wanted, "the count")

    def routed(self, built: Any, provider: Any, proxy: Proxy, prefix: str) -> Any:
        """A router whose way to the store goes through the proxy."""
        return ir.Router(built, [provider], quota_store=self.store_at(proxy.port, prefix=prefix))

    def test_what_is_learned_waits_as_long_as_a_settlement(self) -> None:
        """A store that falls silent after a call has had its answer keeps that call no longer than a tenth of a second, settling
        and learning together, however long the store itself would wait."""
        self.client().flushall()
        proxy = Proxy(self.server.port)
        self.addCleanup(proxy.close)
        guarded = part("guarded_store").GuardedStore(self.store_at(proxy.port, timeout=5.0))
        now = time.time()
        guarded.define([quota.Bucket("k", limits.Limit(100, "requests", "minute"))], now)
        taken = guarded.reserve([("k", 1)], now)
        seen = [part("quota_learned").Observation("k", remaining=5, source="a header")]
        proxy.silent = True
        started = time.monotonic()
        guarded.settle(taken, [2], now)
        self.assertEqual(guarded.observe(seen, now), [False])
        self.assertLess(time.monotonic() - started, 0.1)
        proxy.silent = False
        # What was sent into the silence may have arrived after all: then it is no news when it is said again, but is known.
        wait_until(lambda: guarded.store.observe(seen, now) == [True] or "k" in guarded.learned(), "learning")

    def test_status_tells_a_clock_that_differs(self) -> None:
        """A clock more than two seconds from the server's is in `status`."""
        self.client().flushall()
        router = self.router(self.store_at(self.server.port))
        self.assertFalse([each for each in router.status().notices if "clock" in each])
        slow = ir.Router(
            ir.Config(accounts=[ir.AccountConfig(provider="mock", id="a")], default_model="mock/any"),
            [ir.MockProvider("mock", ["hello"])],
            quota_store=self.store_at(self.server.port),
            clock=FakeClock(),
        )
        self.addCleanup(slow.close)
        self.assertIn("NTP", " ".join(slow.status().notices))


class RedisEmptied(RedisCase):
    """A failover to an empty replica, or a restart without persistence."""

    def test_refused_until_the_window_has_passed(self) -> None:
        """A store that knew the old counts refuses each limit until its window has passed, and says so."""
        store = self.make_store()
        self.addCleanup(store.close)
        now = time.time()
        store.define(
            [quota.Bucket("m", limits.Limit(9, "requests", "minute")), quota.Bucket("h", limits.Limit(9, "requests", "hour"))],
            now,
        )
        store.reserve([("m", 5), ("h", 5)], now)
        self.client().flushall()
        for _ in range(2):
            with self.assertRaisesRegex(errors.QuotaStoreError, "adopt_empty=True"):
                store.reserve([("m", 1)], now + 1)
        self.assertIn("without its counts", store.warnings[0])
        with self.assertRaises(errors.QuotaStoreError):
            store.reserve([("m", 1)], now + 59)
        self.assertIsInstance(store.reserve([("m", 1)], now + 63), quota.Reservation)
        with self.assertRaises(errors.QuotaStoreError):
            store.reserve([("m", 1), ("h", 1)], now + 63)
        self.assertIsInstance(store.reserve([("m", 1), ("h", 1)], now + 3700), quota.Reservation)

    def test_adopted(self) -> None:
        """With adopt_empty=True counting goes on from zero; another store that was refused goes on with it."""
        patient = self.make_store()
        self.addCleanup(patient.close)
        bucket = quota.Bucket("h", limits.Limit(9, "requests", "hour"))
        now = time.time()
        eager = quota_redis.RedisQuotaStore(self.client(), adopt_empty=True)
        self.addCleanup(eager.close)
        for store in (patient, eager):
            store.define([bucket], now)
            store.reserve([("h", 4)], now)
        self.client().flushall()
        self.assertIsInstance(eager.reserve([("h", 1)], now), quota.Reservation)
        self.assertIsInstance(patient.reserve([("h", 1)], now), quota.Reservation)
        self.assertEqual(patient.headroom(["h"], now)[0].used, 2)

    def test_adopting_later(self) -> None:
        """A store made with adopt_empty=True ends the refusal of an emptied ledger for all."""
        store = self.make_store()
        self.addCleanup(store.close)
        bucket = quota.Bucket("h", limits.Limit(9, "requests", "hour"))
        now = time.time()
        store.define([bucket], now)
        self.client().flushall()
        with self.assertRaises(errors.QuotaStoreError):
            store.reserve([("h", 1)], now)
        with quota_redis.RedisQuotaStore(self.client(), adopt_empty=True) as eager:
            eager.define([bucket], now)
        self.assertIsInstance(store.reserve([("h", 1)], now), quota.Reservation)

    def test_one_bucket_evicted(self) -> None:
        """A bucket that the server dropped is refused until its window has passed, as what was used of it is unknown."""
        store = self.make_store()
        self.addCleanup(store.close)
        now = time.time()
        store.define([quota.Bucket("m", limits.Limit(9, "requests", "minute"))], now)
        store.reserve([("m", 5)], now)
        self.client().delete("{inferrouter}:b:m")
        with self.assertRaisesRegex(errors.QuotaStoreError, "lost its counts"):
            store.reserve([("m", 1)], now + 1)
        self.assertIsInstance(store.reserve([("m", 1)], now + 63), quota.Reservation)
        self.assertIn("eviction", " ".join(store.warnings))


class RedisFaults(RedisCase):
    """What a Redis server may answer instead; each is a QuotaStoreError that names the remedy, and nothing is charged."""

    def setUp(self) -> None:
        self.store = self.make_store()
        self.addCleanup(self.store.close)
        self.store.define([quota.Bucket("k", limits.Limit(10, "requests", "day"))], NOON)

    def refused(self, remedy: str, store: Any = None) -> None:
        with self.assertRaisesRegex(errors.QuotaStoreError, remedy):
            (store or self.store).reserve([("k", 1)], NOON)

    def quick(self, **options: Any) -> Any:
        store = quota_redis.RedisQuotaStore(self.client(**options), timeout=0.3)
        self.addCleanup(store.close)
        return store

    def test_out_of_memory(self) -> None:
        """Without memory: raise maxmemory; afterwards it goes on."""
        client = self.client()
        self.store.reserve([("k", 1)], NOON)
        client.config_set("maxmemory", "100kb")
        try:
            self.refused("raise maxmemory")
        finally:
            client.config_set("maxmemory", "0")
        self.assertEqual(self.store.headroom(["k"], NOON)[0].used, 1)

    def test_read_only_replica(self) -> None:
        """A replica: connect to the primary."""
        other = RedisServer("--appendonly", "no", "--replicaof", "127.0.0.1", str(self.server.port))
        self.addCleanup(other.close)
        other.start()
        with quota_redis.RedisQuotaStore(self.client(other.port), timeout=0.3) as store:
            self.refused("replica|loading|MASTERDOWN", store)
            wait_until(lambda: self.client(other.port).info("replication")["master_link_status"] == "up", "replication")
            self.refused("connect to the primary", store)

    def test_busy(self) -> None:
        """A long script: end it; when it has ended, calls go on."""
        client = self.client()
        client.config_set("busy-reply-threshold", 50)
        thread = threading.Thread(target=lambda: swallowed(self.client(), "while true do end"))
        thread.start()
        time.sleep(0.15)
        try:
            self.refused("SCRIPT KILL", self.quick())
        finally:
            client.script_kill()
            thread.join()
            client.config_set("busy-reply-threshold", 5000)
        self.assertIsInstance(self.store.reserve([("k", 1)], NOON), quota.Reservation)

    def test_no_permission_and_wrong_password(self) -> None:
        """A user who may not, and one with a wrong password, are told so; the password is not."""
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = self.client()
        client.acl_setuser("weak", enabled=True, passwords=["+hunter2"], categories=["+@read"], keys=["*"])
        self.addCleanup(client.acl_deluser, "weak")
        self.refused("may not", self.quick(username="weak", password="hunter2"))
        with self.assertRaisesRegex(errors.QuotaStoreError, "password or user is wrong") as caught:
            self.quick(username="weak", password="hunter3", retry=Retry(NoBackoff(), 0)).holds(NOON)
        self.assertNotIn("hunter3", str(caught.exception))

    def test_eviction_policy_is_told(self) -> None:
        """A server that may drop keys is warned of with the first verb; one that may not is not."""
        self.store.holds(NOON)
        self.assertNotIn("noeviction", " ".join(self.store.warnings))
        client = self.client()
        client.config_set("maxmemory-policy", "allkeys-lru")
        self.addCleanup(client.config_set, "maxmemory-policy", "noeviction")
        store = self.quick()
        store.holds(NOON)
        self.assertIn("noeviction", " ".join(store.warnings))

    def test_no_replicas(self) -> None:
        """Too few replicas to write: bring them back."""
        client = self.client()
        client.config_set("min-replicas-to-write", 2)
        self.addCleanup(client.config_set, "min-replicas-to-write", 0)
        self.refused("replicas", self.quick())

    def test_loading(self) -> None:
        """While the server loads its data, a call waits for it; where that takes too long, it is told."""
        server = RedisServer()
        self.addCleanup(server.close)
        server.start()
        client = self.client(server.port)
        with quota_redis.RedisQuotaStore(client, timeout=20) as store:
            store.define([quota.Bucket("k", limits.Limit(10, "requests", "day"))], NOON)
            store.reserve([("k", 3)], NOON)
            for number in range(400):
                client.set(f"x{number}", "x" * 200)
            server.kill()
            server.options = (*server.options, "--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
            server.ready = lambda: listens(server.port)  # type: ignore[method-assign]  # it listens before it has loaded
            server.start()
            with (
                quota_redis.RedisQuotaStore(self.client(server.port), timeout=0.05) as hasty,
                self.assertRaises(errors.QuotaStoreError),
            ):
                hasty.reserve([("k", 1)], NOON)
            self.assertIsInstance(store.reserve([("k", 1)], NOON), quota.Reservation)
            self.assertEqual(store.headroom(["k"], NOON)[0].used, 4)

    def test_what_a_client_raises(self) -> None:
        """What redis-py makes of a cluster's and a Sentinel's answers, whose code it takes off, is told apart all the same."""
        import redis.exceptions as raised
        from redis.sentinel import MasterNotFoundError

        cases = {
            MasterNotFoundError("No master found for 'quota'"): ("is up", True),
            raised.ClusterDownError("Hash slot not served"): ("CLUSTER INFO", True),
            raised.MasterDownError("Link with MASTER is down"): ("without its primary", True),
            raised.SlotNotCoveredError('Slot "7" not covered by the cluster.'): ("CLUSTER INFO", True),
            raised.TryAgainError("Multiple keys request during rehashing of slot"): ("moving slots", True),
            raised.ClusterError("TTL exhausted."): ("moving slots", True),
            raised.MovedError("7 127.0.0.1:7000"): ("RedisCluster", False),
            raised.AuthorizationError("no"): ("may not", False),
            raised.ResponseError("anything"): ("its log", False),
        }
        for exc, (remedy, again) in cases.items():
            error, tried_again = self.store._explained(exc)
            self.assertIn(remedy, str(error))
            self.assertEqual(tried_again, again, exc)

    def test_cluster(self) -> None:
        """On a cluster a cluster's client serves; a plain one works on the node that has the slot."""
        import redis

        server = RedisServer("--cluster-enabled", "yes", "--appendonly", "no")
        self.addCleanup(server.close)
        server.start()
        self.client(server.port).execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: self.client(server.port).execute_command("CLUSTER INFO")["cluster_state"] == "ok", "the cluster")
        client = redis.RedisCluster("127.0.0.1", server.port)
        self.addCleanup(client.close)
        with quota_redis.RedisQuotaStore(client) as store:
            keys = [f"k{number}" for number in range(20)]
            store.define([quota.Bucket(key, limits.Limit(2, "requests", "day")) for key in keys], NOON)
            taken = store.reserve([(key, 1) for key in keys], NOON)
            self.assertTrue(store.commit(taken, NOON, [2] * 20))
            self.assertIsInstance(store.reserve([(key, 1) for key in keys], NOON), quota.Refusal)


def swallowed(client: Any, script: str) -> None:
    """Runs a script that will be killed."""
    import redis

    with contextlib.suppress(redis.RedisError):
        client.eval(script, 0)


if __name__ == "__main__":
    unittest.main()
