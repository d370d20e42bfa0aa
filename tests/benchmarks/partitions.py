"""What each verb gets when the way to the server is cut: `python3 -m tests.benchmarks.partitions` prints the table.

A proxy stands between a store (timeout 0.5 s) and its server. Each row is a fault, made while the store is connected; each cell
tells the outcome of one verb and how long it took; last, what the server has charged a second after the fault was over.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tests import part
from tests.quota_load_worker import NOON, opened
from tests.quota_servers import PostgresServer, Proxy, RedisServer

errors = part("errors")
limits = part("limits")
quota = part("quota")
KEY = "k"


def fault_of(name: str, proxy: Proxy, on: bool) -> None:
    """Makes a fault, or ends it."""
    if name in ("cut_replies", "cut_requests"):
        setattr(proxy, name, 1 if on else 0)
    elif name == "cut":
        if on:
            proxy.cut()
    else:
        setattr(proxy, name, on)
        if name == "refusing":
            proxy.cut()


FAULTS = {
    "connection cut": "cut",
    "one request lost": "cut_requests",
    "one reply lost": "cut_replies",
    "no answer at all": "silent",
    "refused": "refusing",
}


def outcome(verb: Callable[[], Any]) -> str:
    """What a verb gives, and after how many milliseconds."""
    started = time.monotonic()
    try:
        found = verb()
        told = type(found).__name__ if isinstance(found, (quota.Reservation, quota.Refusal)) else "answered"
    except errors.QuotaStoreError:
        told = "QuotaStoreError"
    return f"{told} {(time.monotonic() - started) * 1000:.0f} ms"


def main() -> int:
    """Prints a table a server; 1 if a verb took a tenth of a second longer than its time, or more was charged than asked for."""
    wrong = 0
    for kind, server in (("redis", RedisServer()), ("postgres", PostgresServer())):
        server.start()
        print(f"{kind:18} {'reserve 2':28} {'commit 3':28} {'headroom':28} charged")
        try:
            for number, (label, fault) in enumerate(FAULTS.items()):
                cells, charged, slow = row(kind, server.port, fault, f"{KEY}{number}")
                known = 3.0 * ("Reservation" in cells[0]) + 3.0  # a commit that failed may have been done
                wrong += slow or charged > known
                print(f"{label:18} " + " ".join(f"{cell:28}" for cell in cells) + f" {charged:g}", flush=True)
        finally:
            server.close()
    return 1 if wrong else 0


def row(kind: str, port: int, fault: str, key: str) -> tuple[list[str], float, bool]:
    """The cells of a fault, what is charged in the end, and whether a verb took too long."""
    proxy = Proxy(port)
    cells = []
    with opened(kind, port) as near, opened(kind, proxy.port, timeout=0.5) as far:
        near.define([quota.Bucket(key, limits.Limit(99, "requests", "day"))], NOON)
        taken = far.reserve([(key, 2)], NOON)
        held: list[Any] = []

        def reserve() -> Any:
            held.append(far.reserve([(key, 2)], NOON))
            return held[0]

        for verb in (reserve, lambda: far.commit(taken, NOON, [3]), lambda: far.headroom([key], NOON)):
            fault_of(fault, proxy, True)
            cells.append(outcome(verb))
            fault_of(fault, proxy, False)
        time.sleep(1.0)
        for each in held:
            near.commit(each, NOON, [3])
        charged = near.headroom([key], NOON)[0].used
    proxy.close()
    return cells, charged, any(float(cell.split()[-2]) > 600 for cell in cells)


if __name__ == "__main__":
    sys.exit(main())
