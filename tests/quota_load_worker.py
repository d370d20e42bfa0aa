"""One of several processes that share a ledger on a server: `python -m tests.quota_load_worker KIND PORT JOB`.

Jobs: `exact`: eight threads reserve as long as something fits, then the number admitted is printed. `ack`: one line is printed
for each commit that was acknowledged, until the process is killed.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from tests import part

limits = part("limits")
quota = part("quota")
NOON = 1_788_955_200.0
WANTS = [("requests", 1), ("tokens", 7)]


def opened(kind: str, port: int, **options: Any) -> Any:
    """A store on the server that listens there."""
    if kind == "redis":
        import redis

        return part("quota_redis").RedisQuotaStore(redis.Redis(port=port), **options)
    import psycopg

    dsn = f"host=127.0.0.1 port={port} user=quota dbname=postgres"
    return part("quota_postgres").PostgresQuotaStore(lambda: psycopg.connect(dsn), **options)


def exact(store: Any, threads: int = 8, tries: int = 20) -> int:
    """How many of the reservations of all threads were admitted; each is settled."""
    admitted: list[Any] = []

    def work() -> None:
        for _ in range(tries):
            taken = store.reserve(WANTS, NOON)
            if isinstance(taken, quota.Reservation):
                admitted.append(taken)
                store.commit(taken, NOON, [1, 7])

    crowd = [threading.Thread(target=work) for _ in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    return len(admitted)


def main() -> None:
    kind, port, job = sys.argv[1:]
    with opened(kind, int(port), timeout=30.0) as store:
        store.holds(NOON)
        print("ready", flush=True)
        sys.stdin.readline()
        if job == "exact":
            print(exact(store), flush=True)
            return
        while isinstance(taken := store.reserve([("requests", 1), ("tokens", 10)], NOON), quota.Reservation):
            store.commit(taken, NOON, [1, 7])
            print("ack", flush=True)


if __name__ == "__main__":
    main()
