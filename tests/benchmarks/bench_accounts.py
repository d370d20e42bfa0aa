"""What a router call costs with 1, 20, 100 and 500 accounts, beside a bare kept-alive `http.client` connection in the same run.

`python3 -m tests.benchmarks.bench_accounts [rounds]`; both sides write and read JSON, the server is a process of its own, and all
figures are medians of rounds in which every contestant takes its turn. A turn begins with calls that are not timed, so that what
the contestant before left in the processor's caches plays no part.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from tests import ir
from tests.servers import bench_server

COUNTS = (1, 20, 100, 500)
CALLS = 40
UNTIMED = 20
TEXT = "x" * 200
LIMITS = {"rpm": 10**9, "tpm": 10**12}


def main(rounds: int) -> None:
    """Prints a line for each store: the one-account call over the bare one, then each count over one account."""
    with bench_server() as url, contextlib.ExitStack() as stack, TemporaryDirectory() as folder:
        calls = {"bare": bare(url)}
        for count in COUNTS:
            path = Path(folder) / f"quota{count}.sqlite"
            for kind, store in (("memory", ir.MemoryQuotaStore()), ("sqlite", stack.enter_context(ir.SQLiteQuotaStore(path)))):
                calls[f"{kind} {count}"] = routed(stack.enter_context(router(url, count, store)))
        for call in calls.values():
            call()
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(timed(call))
    print(f"bare http.client with JSON: {statistics.median(times['bare']):.0f} us")
    for kind in ("memory", "sqlite"):
        over = ratio(times[f"{kind} 1"], times["bare"])
        grown = ", ".join(f"{count}: {ratio(times[f'{kind} {count}'], times[f'{kind} 1']):.2f}x" for count in COUNTS[1:])
        print(f"{kind}: one account {statistics.median(times[f'{kind} 1']):.0f} us, {over:.2f}x bare; of one account {grown}")


def ratio(one: list[float], other: list[float]) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def router(url: str, count: int, store: Any) -> Any:
    """A router over `count` accounts with a daily allowance, a minute's requests and a minute's tokens each."""
    accounts = [
        ir.AccountConfig("bench", f"a{number}", auth=ir.Auth("sk-0123456789"), daily_free=10**9, limits=LIMITS)
        for number in range(count)
    ]
    config = ir.Config(accounts=accounts, default_model="bench/m")
    return ir.Router(config, [ir.OpenAICompatProvider("bench", url + "/v1")], quota_store=store)


def routed(made: Any) -> Callable[[], None]:
    def call() -> None:
        made.chat_completion(ir.ChatRequest([ir.Message("user", TEXT)]))

    return call


def bare(url: str) -> Callable[[], None]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    headers = {"Authorization": "Bearer sk-0123456789", "Content-Type": "application/json"}

    def call() -> None:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": TEXT}]}).encode()
        connection.request("POST", "/v1/chat/completions", body, headers)
        json.loads(connection.getresponse().read())

    return call


def timed(call: Callable[[], None]) -> float:
    """Microseconds of one call."""
    for _ in range(UNTIMED):
        call()
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS * 1e6


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 25)
