"""How much of a fleet's free limits is served, and how many calls are refused, beside a naive rotation over the keys.

`python3 -m tests.benchmarks.fleet [--minutes 10] [--speed 1] [SCENARIO ...]`: six accounts of a simulated provider that counts
real minutes; `--speed 30` runs the same in a thirtieth of the time. Served is a share of the exact maximum, refused one of all
attempts; where limits have to be learned, after the first minute. Returns 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tests import ir, part

simulator, transport = part("simulator"), part("transport")

RPM = (5, 10, 10, 15, 20, 30)
KEYS = tuple(f"sk-fleet-{number}" for number in range(len(RPM)))
WORKERS = 12
FOREIGN_SHARE = 0.2
RESTART_S = 30.0
PROCESSES = 4
EDGE = 1_768_478_400.0
"""A full minute, epoch seconds."""
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]})

SCENARIOS = {
    "known": "limits known",
    "twice": "limits twice what they are",
    "silent": "the same, and answers without figures",
    "foreign": "a foreign client uses a fifth",
    "restarts": "a restart every 30 s",
    "processes": "four processes on one sqlite file",
}
LEARNS = ("twice", "silent", "foreign")
BARS = {**dict.fromkeys(SCENARIOS, (0.995, 0.0)), **dict.fromkeys(LEARNS, (0.98, 0.01))}
"""At least served, at most refused."""


class Clock:
    """The machine's clock, `speed` times as fast, from a full minute on; processes that are given the same `zero` agree."""

    def __init__(self, speed: float, zero: float) -> None:
        self.speed = speed
        self.zero = zero

    def monotonic(self) -> float:
        return (time.time() - self.zero) * self.speed

    def time(self) -> float:
        return EDGE + self.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(max(seconds, 0.0) / self.speed)


class Tally:
    """When each call was served, and when one was refused. A meter too."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.served: list[float] = []
        self.refused: list[float] = []

    def note(self, good: bool) -> None:
        (self.served if good else self.refused).append(self.clock.monotonic())

    def on_result(self, event: Any) -> None:
        if event.success or isinstance(event.error, (ir.RateLimitedError, ir.QuotaExceededError)):
            self.note(event.success)

    def between(self, begin: float, end: float) -> tuple[int, int]:
        """How many were served and how many refused from `begin` to `end`."""
        served, refused = (sum(begin <= each < end for each in times) for times in (self.served, self.refused))
        return served, refused


class Result(NamedTuple):
    served: int
    refused: int
    maximum: int

    @property
    def shares(self) -> tuple[float, float]:
        return self.served / self.maximum, self.refused / max(self.served + self.refused, 1)

    def __str__(self) -> str:
        served, refused = self.shares
        return f"{self.served} of {self.maximum} served ({served:.2%}), {refused:.2%} refused"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; all by default")
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--speed", type=float, default=1.0)
    parser.add_argument("--child", nargs=2, metavar=("URL", "FILE"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        return _child(*given.child, minutes=given.minutes, speed=given.speed)
    missed = 0
    for name in given.scenarios or SCENARIOS:
        ours = run(name, given.minutes, given.speed)
        theirs = run(name, given.minutes, given.speed, naive=True)
        least, most = BARS[name]
        good = ours.shares[0] >= least and ours.shares[1] <= most
        missed += not good
        print(f"{SCENARIOS[name]}: {ours}{'' if good else ' MISSED'}; naive rotation: {theirs}", flush=True)
    return 1 if missed else 0


def run(name: str, minutes: int, speed: float, *, naive: bool = False) -> Result:
    """One scenario, by the router or by the naive rotation."""
    clock = Clock(speed, 0.0)
    skipped = 60.0 if name in LEARNS else 0.0
    ends = skipped + 60.0 * minutes
    keys = {key: simulator.KeyLimits(rpm=rpm) for key, rpm in zip(KEYS, RPM, strict=True)}
    with ExitStack() as stack:
        provider = stack.enter_context(simulator.Simulator("openai", keys=keys, clock=clock.time))
        file = Path(stack.enter_context(TemporaryDirectory())) / "quota.sqlite"
        clock.zero = time.time()
        tally, others = Tally(clock), Tally(clock)
        threads = _foreign(provider.base_url, others, ends) if name == "foreign" else []
        if naive:
            work(_rotation(provider.base_url, tally), clock, ends)
        elif name == "processes":
            tally = _processes(provider.base_url, file, clock, minutes)
        elif name == "restarts":
            for until in range(int(RESTART_S), int(ends) + 1, int(RESTART_S)):
                with ir.SQLiteQuotaStore(file) as store, opened(provider.base_url, tally, store) as router:
                    work(_routed(router), clock, float(until))
        else:
            factor = 2 if name in ("twice", "silent") else 1
            with opened(provider.base_url, tally, ir.MemoryQuotaStore(), factor, name == "silent") as router:
                work(_routed(router), clock, ends)
        for thread in threads:
            thread.join()
    return Result(*tally.between(skipped, ends), sum(RPM) * minutes - others.between(skipped, ends)[0])


def work(ask: Callable[[float], bool], clock: Clock, until: float) -> None:
    """Threads that ask for one answer after the other. `ask(patience)`: whether to go on at once."""

    def go() -> None:
        while (left := until - clock.monotonic()) > 0:
            again = False
            with suppress(ir.InferRouterError):
                again = ask(left)
            if not again:
                clock.sleep(min(0.5, left))

    threads = [threading.Thread(target=go, daemon=True) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Silent:
    """A wire whose answers say nothing of limits but how long to wait."""

    def __init__(self) -> None:
        self._transport = transport.Transport()

    def send(self, request: Any, **options: Any) -> Any:
        reply = self._transport.send(request, **options)
        reply.headers = {name: value for name, value in reply.headers.items() if "ratelimit" not in name}
        return reply

    def close(self) -> None:
        self._transport.close()


@contextmanager
def opened(url: str, tally: Tally, store: Any, factor: int = 1, silent: bool = False) -> Iterator[Any]:
    """A router over the fleet at `url`. `factor`: how many times the real limits it believes in; `silent`: no figures come."""
    accounts = [
        ir.AccountConfig("fleet", f"a{number}", ir.Auth(key), limits={"rpm": rpm * factor})
        for number, (key, rpm) in enumerate(zip(KEYS, RPM, strict=True))
    ]
    provider, config = ir.OpenAICompatProvider("fleet", url), ir.Config(accounts, default_model="fleet/m")
    with ExitStack() as stack:
        if silent:
            provider.wire = _Silent()
            stack.callback(provider.wire.close)
        yield stack.enter_context(ir.Router(config, [provider], quota_store=store, clock=tally.clock, meter=tally))


def _routed(router: Any) -> Callable[[float], bool]:
    def ask(patience: float) -> bool:
        router.chat_completion(ir.ChatRequest("hello", max_tokens=20), max_wait=patience)
        return True

    return ask


def _rotation(url: str, tally: Tally) -> Callable[[float], bool]:
    """One key after the other; a refused call goes on to the next, until each was asked once."""
    turns, local = itertools.count(), threading.local()

    def ask(patience: float) -> bool:
        if not hasattr(local, "post"):
            local.post = Client(url)
        for _ in KEYS:
            good = local.post(KEYS[next(turns) % len(KEYS)])
            tally.note(good)
            if good:
                return True
        return False

    return ask


class Client:
    """Posts with a key, over one connection; calling it says whether it was served."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = f"{parts.path}/chat/completions"
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port)

    def __call__(self, key: str) -> bool:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connection.request("POST", self._path, BODY, headers)
        reply = self._connection.getresponse()
        reply.read()
        return reply.status == 200

    def close(self) -> None:
        self._connection.close()


def _foreign(url: str, tally: Tally, until: float) -> list[threading.Thread]:
    """A client of the owner's that uses its share of each account, evenly."""

    def use(key: str, rpm: int) -> None:
        post, pause = Client(url), 60 / (rpm * FOREIGN_SHARE)
        while tally.clock.monotonic() + pause < until:
            tally.clock.sleep(pause)
            tally.note(post(key))

    threads = [threading.Thread(target=use, args=each, daemon=True) for each in zip(KEYS, RPM, strict=True)]
    for thread in threads:
        thread.start()
    return threads


def _processes(url: str, file: Path, clock: Clock, minutes: int) -> Tally:
    command = [sys.executable, "-m", "tests.benchmarks.fleet", f"--minutes={minutes}", f"--speed={clock.speed}"]
    command += ["--child", url, os.fspath(file)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    ran = [subprocess.Popen(command, **pipes) for _ in range(PROCESSES)]
    tally = Tally(clock)
    for process in ran:
        process.stdout.readline()  # it is there
    clock.zero = time.time()
    for process in ran:
        process.stdin.write(f"{clock.zero!r}\n")
        process.stdin.flush()
    for process in ran:
        served, refused = json.loads(process.communicate()[0])
        tally.served += served
        tally.refused += refused
    return tally


def _child(url: str, file: str, minutes: int, speed: float) -> int:
    clock = Clock(speed, time.time())
    tally = Tally(clock)
    with ir.SQLiteQuotaStore(file) as store, opened(url, tally, store) as router:
        print("ready", flush=True)
        clock.zero = float(input())
        work(_routed(router), clock, 60.0 * minutes)
    print(json.dumps([tally.served, tally.refused]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
