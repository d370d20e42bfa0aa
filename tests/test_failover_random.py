"""Hundreds of calls into a seeded mix of every fault, over three providers: what the ledger says is what the servers' logs say.

The servers' logs know nothing of the router. From them alone follows what each account must have been charged.
"""

from __future__ import annotations

import gc
import os
import random
import threading
import time
import unittest
from collections import Counter
from typing import Any

from tests import LONG, ir, part
from tests.fakes import HELLO, FakeClock, ListMeter, account, alias_of, used

Simulator = part("simulator").Simulator
Fault = part("simulator").Fault

KEYS = ("sk-1", "sk-2")
GIVEN_BACK = {400, 401, 402, 403, 404, 413, 422}
STATUSES = (*sorted(GIVEN_BACK), 408, 409, 429, 429, 429, 500, 502, 503, 504, 529)
KINDS = ("html", "broken_json", "empty", "error_inside", "cut", "unfinished", "dropped")


def fault(dice: random.Random) -> Any:
    if dice.random() < 0.02:
        return Fault("slow", seconds=5)
    if dice.random() < 0.5:
        return Fault("status", dice.choice(STATUSES))
    kind = dice.choice(KINDS)
    # An error object always comes after all content, so that the log alone tells what it costs.
    return Fault(kind, after=99 if kind == "error_inside" else dice.randrange(4))


def owed(served: Any, reserved: int) -> tuple[int, int]:
    """Requests and tokens that an answer of a server costs."""
    if served.fault == "status" or (served.fault == "error_inside" and not served.stream):
        status = served.status if served.fault == "status" else 503
        return (0 if status in GIVEN_BACK else 1), 0
    if served.fault == "":
        return 1, served.prompt_tokens + served.completion_tokens
    return 1, reserved


class RandomFaults(unittest.TestCase):
    def play(self, seed: int, calls: int, early: bool) -> None:
        dice = random.Random(seed)
        clock, meter = FakeClock(), ListMeter()
        ends: Counter[str] = Counter()
        with Simulator(keys=KEYS) as one, Simulator("gemini", keys=KEYS) as two, Simulator("anthropic", keys=KEYS) as three:
            servers = {"one": one, "gemini": two, "anthropic": three}
            providers = [ir.OpenAICompatProvider("one", one.base_url), ir.GeminiProvider(two.base_url)]
            providers.append(ir.AnthropicProvider(three.base_url))
            limits = {"rpmonth": 100_000, "tpmonth": 100_000_000}
            accounts = [
                account(f"{name}-{key}", provider=name, auth=ir.Auth(key), limits=limits) for name in servers for key in KEYS
            ]
            config = ir.Config(accounts, [alias_of(*servers)], attempt_timeout=0.25)
            with ir.Router(config, providers, clock=clock, meter=meter) as router:
                for _ in range(calls):
                    clock.advance(dice.expovariate(1 / 60))
                    if dice.random() < 0.6:
                        dice.choice(list(servers.values())).script([fault(dice)])
                    ends[self.call(router, dice, early)] += 1
                state = router.status()
                charged = {each.id: used(router, each.id) for each in accounts}
        self.assertEqual({each.in_flight for each in state.values()}, {0})
        self.assertEqual(len(meter.routes), len(meter.results), "every attempt has one end")
        self.assertGreater(ends["answer"], calls / 4, ends)
        self.assertGreater(ends["StreamInterruptedError"], calls / 100, ends)
        self.compare(servers, charged, meter, early)

    def call(self, router: Any, dice: random.Random, early: bool) -> str:
        """One call, whole or streamed; how it ended. Anything but an answer or an own error fails the test."""
        try:
            if dice.random() < 0.5:
                self.assertIsNotNone(router.chat_completion(HELLO).choices[0].finish_reason)
                return "answer"
            with router.stream(HELLO) as stream:
                for _ in stream:
                    if early and dice.random() < 0.2:
                        return "stopped"
            self.assertIsNotNone(stream.response.choices[0].finish_reason)
            return "answer"
        except ir.InferRouterError as exc:
            return type(exc).__name__

    def compare(self, servers: dict[str, Any], charged: dict[str, Any], meter: ListMeter, early: bool) -> None:
        reserved = meter.routes[0].estimated_tokens
        attempts = Counter(event.account_id for event in meter.routes)
        for name, server in servers.items():
            for place, key in enumerate(KEYS):
                seen = [served for served in server.log if served.key == place]
                costs = [owed(served, reserved) for served in seen]
                requests, tokens = (sum(cost[i] for cost in costs) for i in (0, 1))
                told = charged[f"{name}-{key}"]
                self.assertEqual(attempts[f"{name}-{key}"], len(seen), f"{name} {key}: every attempt reached the server")
                self.assertEqual(told["rpmonth"], requests, f"{name} {key}")
                if early:
                    self.assertLessEqual(abs(told["tpmonth"] - tokens), reserved * len(seen))
                else:
                    self.assertEqual(told["tpmonth"], tokens, f"{name} {key}")

    def test_exact(self) -> None:
        """Whatever goes wrong, only own errors come out, every attempt is settled, and the ledger is what the servers saw."""
        self.play(seed=1, calls=300 if LONG else 100, early=False)

    def test_with_early_stops(self) -> None:
        """The same with callers who stop streams wherever they like."""
        self.play(seed=20, calls=120 if LONG else 60, early=True)

    def test_leaves_nothing(self) -> None:
        """After many failing calls there are as many open files and threads as before."""
        gc.collect()
        before = self.resources()
        self.play(seed=8, calls=120 if LONG else 60, early=True)
        gc.collect()
        deadline = time.monotonic() + 2
        while self.resources() != before and time.monotonic() < deadline:
            time.sleep(0.005)
        self.assertEqual(self.resources(), before)

    def resources(self) -> tuple[int, int]:
        files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        return files, threading.active_count()


if __name__ == "__main__":
    unittest.main()
