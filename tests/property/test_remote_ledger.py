"""The stores on servers against the naive model, with sequences that hypothesis looks for and shrinks."""

from __future__ import annotations

import unittest

from tests import ledger_model
from tests.quota_load_worker import opened
from tests.quota_servers import PostgresServer, RedisServer, needs_servers

try:
    from hypothesis import given, settings
    from hypothesis import strategies as st
except ImportError as exc:
    raise unittest.SkipTest("hypothesis is not installed") from exc


@needs_servers
class RemoteLedgerPropertyTest(unittest.TestCase):
    redis: RedisServer
    postgres: PostgresServer
    turn = 0

    @classmethod
    def setUpClass(cls) -> None:
        cls.redis, cls.postgres = RedisServer("--appendonly", "no"), PostgresServer("-c", "fsync=off")
        for server in (cls.redis, cls.postgres):
            cls.addClassCleanup(server.close)
            server.start()

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 2**32), steps=st.integers(1, 300))
    def test_redis(self, seed: int, steps: int) -> None:
        """The Redis store agrees with the model on any random run."""
        type(self).turn += 1
        with opened("redis", self.redis.port, prefix=f"p{self.turn}", timeout=30.0) as store:
            ledger_model.run(self, store, seed, steps)

    @settings(max_examples=10, deadline=None)
    @given(seed=st.integers(0, 2**32), steps=st.integers(1, 200))
    def test_postgres(self, seed: int, steps: int) -> None:
        """The PostgreSQL store agrees with the model on any random run."""
        type(self).turn += 1
        with opened("postgres", self.postgres.port, schema=f"p{self.turn}", timeout=30.0) as store:
            ledger_model.run(self, store, seed, steps)


if __name__ == "__main__":
    unittest.main()
