"""One of several processes that share a quota file: imports little, as it starts while others wait."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from tests import ir
from tests.fakes import FakeClock, account, alias_of, unary

KEYS = ["sk-1", "sk-2", "sk-3", "sk-4"]


def free_accounts(amount: int) -> list[Any]:
    """An account a key, each with `amount` free requests a day."""
    return [account(key, provider="sim", auth=ir.Auth(key), daily_free=amount, limits={}) for key in KEYS]


def serve(router: Any, calls: int, method: Any = unary) -> Counter[str]:
    """How `calls` calls ended: the account that served, or the error's name."""
    ends: Counter[str] = Counter()
    for _ in range(calls):
        try:
            ends[method(router).routing.account_id] += 1
        except ir.InferRouterError as exc:
            ends[type(exc).__name__] += 1
    return ends


def main() -> None:
    """So many calls once it is told to go; prints how many were served and how many refused."""
    url, path, calls = sys.argv[1:]
    config = ir.Config(free_accounts(10), [alias_of("sim")], quota=ir.QuotaConfig("sqlite", path))
    with ir.Router(config, [ir.OpenAICompatProvider("sim", url)], clock=FakeClock()) as router:
        print("ready", flush=True)
        sys.stdin.readline()
        ends = serve(router, int(calls))
    print(sum(ends[key] for key in KEYS), ends["NoCandidatesError"])
