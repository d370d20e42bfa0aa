"""Interrupts in the midst of calls, and what they leave behind. Run: python3 -m tests.benchmarks.bench_interrupts [COUNT]

COUNT interrupts (default 1,000) for each row: at random bytecodes of a call, by a trace, and at random moments, by a timer.
Rows: the store and the kind of call; every second call is the one probe of a half-open breaker. After each interrupt it looks for
a call in flight, a transaction that is open, a probe that is lost (the next call is refused), and a next call that has to wait.
All must be 0, or it ends with an error.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests import ir
from tests.fakes import HELLO
from tests.interrupts import Stepper, steps_of
from tests.test_interrupts import CALLS, Fixture, locked


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    bad = 0
    print(f"{'store, call':28}{'by':>10}{'interrupts':>12}{'in flight':>11}{'locked':>8}{'probe lost':>12}{'slow':>6}")
    for kind in ("memory", "file"):
        for name in CALLS:
            for way, cut in (("bytecode", by_trace), ("signal", by_signal)):
                with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                    found = row(Path(folder, "quota.db") if kind == "file" else None, name, cut, count)
                print(
                    f"{f'{kind}, {name}':28}{way:>10}{found['interrupts']:>12,}{found['in flight']:>11}{found['locked']:>8}"
                    f"{found['probe lost']:>12}{found['slow']:>6}",
                    flush=True,
                )
                bad += sum(found[leak] for leak in ("in flight", "locked", "probe lost", "slow"))
    if bad:
        raise SystemExit(f"{bad} leaks")


def row(path: Path | None, name: str, cut: Callable[[Callable[[], object], Any], bool], count: int) -> Counter[str]:
    """What is found after `count` interrupts of such calls."""
    store = ir.MemoryQuotaStore() if path is None else ir.SQLiteQuotaStore(path, busy_timeout=1.0)
    fixture, found, dice = Fixture(quota_store=store), Counter[str](), random.Random(f"{path} {name}")
    work = partial(CALLS[name], fixture.router)
    work()
    steps = steps_of(work)
    tries = 0
    while found["interrupts"] < count and tries < 20 * count:
        tries += 1
        if not tries % 100:
            fixture.clock.advance(86_400)  # the day's limit is not the point
        if tries % 2:
            fixture.trip()
        found["interrupts"] += cut(work, (dice, steps))
        found["in flight"] += fixture.state().in_flight
        found["locked"] += path is not None and locked(store)
        began = time.monotonic()
        try:
            fixture.router.chat_completion(HELLO)
        except ir.InferRouterError:
            found["probe lost"] += 1
        found["slow"] += time.monotonic() - began > 0.5
    fixture.router.close()
    store.close()
    return found


def by_trace(work: Callable[[], object], chance: tuple[random.Random, int]) -> bool:
    dice, steps = chance
    return not Stepper(work, dice.randint(1, steps)).ended


def by_signal(work: Callable[[], object], chance: tuple[random.Random, int]) -> bool:
    """Whether a timer's signal came before `work` had ended."""
    dice, _ = chance
    armed = True

    def interrupt(*args: object) -> None:
        if armed:
            raise KeyboardInterrupt

    before, hook = signal.signal(signal.SIGALRM, interrupt), sys.unraisablehook
    sys.unraisablehook = lambda args: None  # an interrupt in a finalizer is told to nobody
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-6, 4e-4))
            work()
        finally:
            armed = False
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook
    return False


if __name__ == "__main__":
    main()
