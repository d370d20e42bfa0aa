"""The Redis store over several servers: a Sentinel's failover, a cluster of six nodes, a slot that moves, a master that dies."""

from __future__ import annotations

import subprocess
import threading
import time
import unittest
from typing import Any

from tests import part
from tests.quota_servers import RedisServer, Server, needs_servers, wait_until

errors = part("errors")
limits = part("limits")
quota = part("quota")
quota_redis = part("quota_redis")
NOON = part("conformance").NOON
LIMIT = 1200
BUCKETS = [
    quota.Bucket("requests", limits.Limit(LIMIT, "requests", "day")),
    quota.Bucket("tokens", limits.Limit(LIMIT * 7 + 3, "tokens", "minute")),
]


class Sentinel(Server):
    """A Sentinel that watches the master `quota`."""

    def __init__(self, master: RedisServer) -> None:
        super().__init__()
        (self.folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor quota 127.0.0.1 {master.port} 2\nsentinel down-after-milliseconds quota 500\n"
            "sentinel failover-timeout quota 3000\n"
        )

    def command(self) -> list[str]:
        return ["redis-server", str(self.folder / "sentinel.conf"), "--sentinel"]


class Load:
    """Threads that reserve 10 tokens and use 7, until they are refused."""

    def __init__(self, store: Any, pause: float = 0.0) -> None:
        self.admitted: list[float] = []
        self.failures: list[Exception] = []
        self._store, self._pause = store, pause
        self._threads = [threading.Thread(target=self._work) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        while True:
            try:
                taken = self._store.reserve([("requests", 1), ("tokens", 10)], NOON)
                if isinstance(taken, quota.Refusal):
                    return
                self._store.commit(taken, NOON, [1, 7])
            except errors.QuotaStoreError as exc:
                self.failures.append(exc)
                return
            self.admitted.append(time.monotonic())
            time.sleep(self._pause)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


@needs_servers
class SeveralServers(unittest.TestCase):
    def started(self, server: Any) -> Any:
        self.addCleanup(server.close)
        server.start()
        return server

    def to(self, port: int) -> Any:
        import redis

        client = redis.Redis(port=port, decode_responses=True)
        self.addCleanup(client.close)
        return client


class SentinelFailover(SeveralServers):
    def setUp(self) -> None:
        self.master = self.started(RedisServer("--appendonly", "yes"))
        self.replica = self.started(RedisServer("--appendonly", "yes", "--replicaof", "127.0.0.1", str(self.master.port)))
        wait_until(lambda: self.to(self.replica.port).info("replication")["master_link_status"] == "up", "replication")
        self.sentinels = [self.started(Sentinel(self.master)) for _ in range(3)]
        for sentinel in self.sentinels:
            wait_until(lambda sentinel=sentinel: self.knows(sentinel), "the Sentinels' meeting")

    def knows(self, sentinel: Sentinel) -> bool:
        seen = self.to(sentinel.port).sentinel_master("quota")
        return int(seen["num-slaves"]) == 1 and int(seen["num-other-sentinels"]) == 2

    def store(self, **options: Any) -> Any:
        import redis

        places = [("127.0.0.1", sentinel.port) for sentinel in self.sentinels]
        client = redis.Sentinel(places, socket_timeout=0.5).master_for("quota", socket_timeout=0.5)
        self.addCleanup(client.close)
        store = quota_redis.RedisQuotaStore(client, **options)
        self.addCleanup(store.close)
        return store

    def test_failover(self) -> None:
        """The master is killed in the middle of a load: calls wait until its replica is promoted, and go on with its counts. What
        was acknowledged and had reached the replica is there, and no more than the limit is admitted beyond what had not."""
        store = self.store(timeout=30.0)
        store.define(BUCKETS, NOON)
        load = Load(store, pause=0.002)
        wait_until(lambda: len(load.admitted) > 200, "a load")
        self.master.kill()
        killed = time.monotonic()
        before = len(load.admitted)
        load.join()
        self.assertEqual(load.failures, [])
        self.assertGreater(load.admitted[-1], killed)
        promoted = self.to(self.replica.port)
        self.assertEqual(promoted.info("replication")["role"], "master")
        self.assertEqual([each.used for each in store.headroom(["requests", "tokens"], NOON)], [LIMIT, LIMIT * 7])
        self.assertGreaterEqual(len(load.admitted), LIMIT)
        self.assertLessEqual(len(load.admitted) - LIMIT, 8, f"{before} before the failover")  # a batch or two not yet replicated

    def test_without_a_master(self) -> None:
        """While there is no master, a verb ends in time with an error that names the remedy, and works again afterwards."""
        store = self.store(timeout=1.0)
        store.define(BUCKETS, NOON)
        self.to(self.master.port).wait(1, 2000)
        self.master.kill()
        started = time.monotonic()
        with self.assertRaisesRegex(errors.QuotaStoreError, "see that it is up"):
            store.reserve([("requests", 1)], NOON, max_wait=0.3)
        self.assertLess(time.monotonic() - started, 0.4)

        def works() -> bool:
            try:
                return isinstance(store.reserve([("requests", 1)], NOON), quota.Reservation)
            except errors.QuotaStoreError:
                return False

        wait_until(works, "the failover")


class Cluster(SeveralServers):
    """Three masters with a replica each."""

    def setUp(self) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0")
        self.nodes = [self.started(RedisServer(*options)) for _ in range(6)]
        places = [f"127.0.0.1:{node.port}" for node in self.nodes]
        command = ["redis-cli", "--cluster", "create", *places, "--cluster-replicas", "1", "--cluster-yes"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for node in self.nodes:
            wait_until(lambda node=node: self.state(node) == "ok", "the cluster")
        wait_until(lambda: len(self.linked()) == 3, "the replicas")

    def state(self, node: RedisServer) -> str:
        state: str = self.to(node.port).execute_command("CLUSTER INFO")["cluster_state"]
        return state

    def linked(self) -> list[Any]:
        found = [self.to(node.port).info("replication") for node in self.nodes if node.process is not None]
        return [each for each in found if each["role"] == "slave" and each["master_link_status"] == "up"]

    def store(self, prefix: str = "inferrouter", **options: Any) -> Any:
        import redis

        client = redis.RedisCluster("127.0.0.1", self.nodes[0].port, socket_timeout=1.0)
        self.addCleanup(client.close)
        store = quota_redis.RedisQuotaStore(client, prefix, **options)
        self.addCleanup(store.close)
        return store

    def holder(self, prefix: str = "inferrouter") -> RedisServer:
        """The node that has the ledger."""
        client = self.to(self.nodes[1].port)
        slot = client.execute_command("CLUSTER KEYSLOT", f"{{{prefix}}}:epoch")
        for first, last, (_, port, *_), *_ in self.to(self.nodes[1].port).execute_command("CLUSTER SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError("nobody has the slot")

    def test_ledgers_on_several_nodes(self) -> None:
        """Each ledger lies on one node and counts exactly; ledgers of other names lie on others."""
        stores = {prefix: self.store(prefix) for prefix in ("a", "b", "c", "d")}
        for store in stores.values():
            store.define([quota.Bucket(f"k{number}", limits.Limit(2, "requests", "day")) for number in range(9)], NOON)
            wants = [(f"k{number}", 1) for number in range(9)]
            self.assertTrue(store.commit(store.reserve(wants, NOON), NOON, [2] * 9))
            self.assertIsInstance(store.reserve(wants, NOON), quota.Refusal)
        self.assertGreater(len({self.holder(prefix).port for prefix in stores}), 1)

    def test_a_node_and_its_replica_die(self) -> None:
        """A cluster without some of its slots refuses, in time and saying what to see; a client of a single node is told to use a
        cluster's. Once the nodes are back, calls go on."""
        store = self.store(timeout=1.0)
        store.define(BUCKETS, NOON)
        holder = self.holder()
        plain = next(node for node in self.nodes[:3] if node is not holder)
        with (
            quota_redis.RedisQuotaStore(self.to(plain.port), timeout=0.3) as astray,
            self.assertRaisesRegex(errors.QuotaStoreError, "RedisCluster"),
        ):
            astray.holds(NOON)
        pair = [plain, *[node for node in self.nodes if self.to(node.port).info("replication").get("master_port") == plain.port]]
        self.assertEqual(len(pair), 2)
        for node in pair:
            node.kill()
        wait_until(lambda: self.state(holder) == "fail", "the cluster's end")
        started = time.monotonic()
        with self.assertRaisesRegex(errors.QuotaStoreError, "CLUSTER INFO|it is up"):
            store.reserve([("requests", 1)], NOON)
        self.assertLess(time.monotonic() - started, 1.1)
        for node in pair:
            node.start()
        wait_until(lambda: self.state(holder) == "ok", "the cluster's return")
        self.assertIsInstance(store.reserve([("requests", 1)], NOON), quota.Reservation)
        wait_until(lambda: store.headroom(["requests"], NOON)[0].used == 1, "giving back")

    def test_a_slot_that_moves(self) -> None:
        """The ledger's slot is moved to another node in the middle of a load: exactly the limit is admitted, nobody fails."""
        store = self.store(timeout=30.0)
        store.define(BUCKETS, NOON)
        source = self.holder()
        target = next(node for node in self.nodes[:3] if node is not source)
        one, other = self.to(source.port), self.to(target.port)
        ids = [client.execute_command("CLUSTER MYID") for client in (one, other)]
        slot = one.execute_command("CLUSTER KEYSLOT", "{inferrouter}:epoch")
        load = Load(store, pause=0.002)
        wait_until(lambda: len(load.admitted) > 200, "a load")
        other.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        one.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
        while keys := one.execute_command("CLUSTER GETKEYSINSLOT", slot, 40):
            one.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for client in (other, one):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])
        load.join()
        self.assertEqual(load.failures, [])
        self.assertEqual(len(load.admitted), LIMIT)
        self.assertEqual(self.holder(), target)
        self.assertEqual([each.used for each in store.headroom(["requests", "tokens"], NOON)], [LIMIT, LIMIT * 7])

    def test_a_master_that_dies(self) -> None:
        """The node that has the ledger is killed in the middle of a load: its replica takes over, and calls go on with its
        counts."""
        store = self.store(timeout=30.0)
        store.define(BUCKETS, NOON)
        load = Load(store, pause=0.002)
        wait_until(lambda: len(load.admitted) > 200, "a load")
        self.holder().kill()
        load.join()
        self.assertEqual(load.failures, [])
        self.assertEqual([each.used for each in store.headroom(["requests", "tokens"], NOON)], [LIMIT, LIMIT * 7])
        self.assertTrue(LIMIT <= len(load.admitted) <= LIMIT + 8, len(load.admitted))


if __name__ == "__main__":
    unittest.main()
