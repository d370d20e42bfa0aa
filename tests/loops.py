"""The long loops behind the figures: many calls that go wrong at random, streams cut at every byte, and slow servers.

Each returns what it counted; the tests demand, `benchmarks.figures` prints.
"""

from __future__ import annotations

import gc
import random
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from tests import ir, part, places
from tests.cases import open_files, thread_count
from tests.fakes import FakeClock
from tests.faults import KEY_HEADERS, SILENT, TIME_LIMIT_S, TROUBLES, FaultServer, events, good, provider
from tests.servers import environment
from tests.test_transport_deadlines import GRACE_S, SLOW, TOTAL_S

MockWireReply = part("provider_mock").MockWireReply
HELLO = ir.ChatRequest("Hello!", max_tokens=20)
SAID = "Hello there."
NEVER_OPEN = ir.HealthConfig(failure_threshold=10**6)


@dataclass
class Mix:
    """Random calls: `wrong` says what must not be; `files` and `threads` are what was left over."""

    calls: int = 0
    troubles: int = 0
    abandoned: int = 0
    wrong: list[str] = field(default_factory=list)
    files: int = 0
    threads: int = 0


def router_of(providers: list[Any], clock: Any = None) -> Any:
    """A router with one account a provider; each call goes to model "m" of whichever answers."""
    key, limits = ir.Auth("sk-some-key"), {"tpd": 10**12}
    accounts = [ir.AccountConfig(each.name, f"at-{each.name}", key, limits=limits) for each in providers]
    alias = ir.ModelMapping("m", [ir.ModelRef(each.name, "m") for each in providers])
    config = ir.Config(accounts, [alias], default_model="m", policy="declared_order")
    return ir.Router(config, providers, clock=clock, health=NEVER_OPEN)


def mix(count: int, seed: int = 4) -> Mix:
    """`count` calls, whole and streamed, of which two thirds meet some trouble at all three dialects, through one router."""
    done, chance = Mix(), random.Random(seed)
    gc.collect()
    before = open_files(), thread_count()
    clock = FakeClock()
    with (
        environment(),
        FaultServer() as fault_server,
        router_of([provider(each, fault_server.server.url) for each in KEY_HEADERS], clock) as router,
    ):
        for number in range(count):
            name = "" if chance.random() < 1 / 3 else chance.choice([*TROUBLES])
            if name in SILENT and number % 8:  # each takes its whole timeout
                name = "dropped"
            fault_server.script = TROUBLES[name] if name else good
            _one_call(router, name, chance, done)
            clock.advance(2 * 86_400)  # whoever had to rest is back
        done.wrong += [f"{state.account_id} is in flight" for state in router.status().values() if state.in_flight]
    gc.collect()
    done.files, done.threads = open_files() - before[0], thread_count() - before[1]
    return done


def _one_call(router: Any, name: str, chance: random.Random, done: Mix) -> None:
    """One call that meets the trouble `name`, or none."""
    done.calls += 1
    done.troubles += bool(name)
    timeout = TIME_LIMIT_S if name in SILENT else 10.0
    try:
        if chance.random() < 0.5:
            text = router.chat_completion(HELLO, timeout=timeout).text
        else:
            stream = router.stream(HELLO, timeout=timeout)
            if not name and chance.random() < 0.4:
                next(stream)
                done.abandoned += 1
                return
            deque(stream, maxlen=0)
            text = stream.response.text
    except ir.InferRouterError as error:
        if not name:
            done.wrong.append(f"a good answer: {error}")
    except Exception as error:
        done.wrong.append(f"{name}: {error!r}")
    else:
        if name or text != SAID:
            done.wrong.append(f"{name or 'a good answer'} gave {text!r}")


@dataclass
class Cuts:
    """Streams that were cut: how many before their marker, how many of those were noticed, and what went wrong."""

    before: int = 0
    noticed: int = 0
    after: int = 0
    wrong: list[str] = field(default_factory=list)


class CutWire:
    """A wire whose answer is `body`, which ends cleanly."""

    def __init__(self) -> None:
        self.body = b""

    def send(self, request: object, **bounds: object) -> Any:
        return MockWireReply(200, {"content-type": "text/event-stream"}, [self.body] if self.body else [])


def cuts() -> Cuts:
    """A stream of each dialect, ended after every byte (see `places`): an error before its terminal marker, whole after it."""
    done = Cuts()
    for dialect in KEY_HEADERS:
        body = b"".join(events(dialect, "Hello ", "there."))
        marker = len(body.rstrip())
        made, wire = provider(dialect, "https://h.example"), CutWire()
        made.wire = wire
        with router_of([made], FakeClock()) as router:
            for size in places(len(body), marker):
                wire.body = body[:size]
                _one_cut(router, f"{dialect} after {size} of {marker} bytes", size >= marker, done)
    return done


def _one_cut(router: Any, where: str, whole: bool, done: Cuts) -> None:
    done.before += not whole
    done.after += whole
    try:
        stream = router.stream(HELLO)
        deque(stream, maxlen=0)
    except (ir.StreamInterruptedError, ir.AllCandidatesFailedError) as error:
        done.noticed += not whole
        partial = getattr(getattr(error, "partial", None), "text", "")
        if whole or not SAID.startswith(partial):
            done.wrong.append(f"{where}: {error}")
    else:
        if not whole or stream.response.text != SAID:
            done.wrong.append(f"{where} counts as {stream.response!r}")


@dataclass
class Overshoot:
    """Calls to slow servers: how far beyond its timeout the worst went, in seconds, and what went wrong."""

    calls: int = 0
    worst_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


def overshoot() -> Overshoot:
    """Whole and streamed calls with a timeout to every slow server, half of them at a time."""
    done = Overshoot()
    with environment(), ExitStack() as stack, ThreadPoolExecutor(9) as pool:
        runs = []
        for name, script in SLOW:
            fault_server = stack.enter_context(FaultServer())
            fault_server.server.script = script
            router = stack.enter_context(router_of([provider("openai", fault_server.server.url)]))
            request = ir.ChatRequest("x" * (8 << 20)) if "upload" in name else HELLO
            runs += [(name, pool.submit(_late_by, router, request, method)) for method in ("chat_completion", "stream")]
        for name, run in runs:
            late_s, error = run.result()
            done.calls += 1
            done.worst_s = max(done.worst_s, late_s)
            if not isinstance(error, (ir.AllCandidatesFailedError, ir.AttemptTimeoutError)):
                done.wrong.append(f"{name}: {error!r}")
    return done


def _late_by(router: Any, request: Any, method: str) -> tuple[float, Exception | None]:
    """Seconds beyond its timeout that a call took, and its error. One that was late gets two more chances: the machine may
    have been busy elsewhere."""
    tries = [_lateness(router, request, method)]
    while tries[-1][0] > GRACE_S and len(tries) < 3:
        tries.append(_lateness(router, request, method))
    return min(tries, key=lambda each: each[0])


def _lateness(router: Any, request: Any, method: str) -> tuple[float, Exception | None]:
    start = time.monotonic()
    failure: Exception | None = None
    try:
        getattr(router, method)(request, timeout=TOTAL_S)
    except Exception as error:
        failure = error
    return time.monotonic() - start - TOTAL_S, failure
