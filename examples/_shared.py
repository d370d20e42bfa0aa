"""What the examples with many workers share: one Redis, two simulated accounts with 20 free calls each, and a router a process.

The Redis is the one at REDIS_URL, or a private one, where redis-server is installed.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from _start import ir

from inferrouter.simulator import KeyLimits, Simulator

FREE_CALLS = 20
MODEL = "openai/gpt-4o-mini"


def missing(*packages: str) -> str:
    """What must be installed before the example can run; "" if nothing."""
    lacking = [name for name in packages if importlib.util.find_spec(name) is None]
    if lacking:
        return f"this example needs {' and '.join(lacking)}: pip install {' '.join(lacking)}"
    if not os.environ.get("REDIS_URL") and not shutil.which("redis-server"):
        return "this example needs a Redis: set REDIS_URL, or install redis-server"
    return ""


@contextmanager
def shared_ledger() -> Iterator[None]:
    """A Redis for the counts and an API with two keys, told to the workers by environment variables."""
    keys = {f"sk-{name}": KeyLimits(rpd=FREE_CALLS) for name in ("alice", "bob")}
    with Simulator("openai", keys=keys, models=("gpt-4o-mini",)) as api, _redis() as url:
        os.environ.update(EXAMPLE_REDIS=url, EXAMPLE_API=api.base_url, EXAMPLE_PREFIX=f"example-{uuid.uuid4().hex[:8]}")
        yield


@functools.cache
def router() -> ir.Router:
    """This process's router: each process has one, and all of them count in the same ledger."""
    accounts = [
        ir.AccountConfig(
            provider="openai",
            id=name,
            auth=ir.Auth(f"sk-{name}"),
            base_url=os.environ["EXAMPLE_API"],
            daily_free=FREE_CALLS,
            quota_unit="requests",
        )
        for name in ("alice", "bob")
    ]
    ledger = ir.QuotaConfig("redis", url=os.environ["EXAMPLE_REDIS"], prefix=os.environ["EXAMPLE_PREFIX"])
    return ir.Router(ir.Config(accounts=accounts, default_model=MODEL, quota=ledger))


def ask(prompt: str) -> str:
    """One call, from whichever worker runs it: who served it, or "refused"."""
    try:
        return router().chat_completion(ir.ChatRequest(prompt)).routing.account_id
    except ir.NoCandidatesError:
        return "refused"


def report(outcomes: list[str]) -> None:
    """How the calls ended: however many workers asked, each account served what it has for free, and no more."""
    for outcome in sorted(set(outcomes)):
        print(f"{outcome}: {outcomes.count(outcome)} calls")
    served = len(outcomes) - outcomes.count("refused")
    assert served == min(len(outcomes), 2 * FREE_CALLS), served


@contextmanager
def _redis() -> Iterator[str]:
    url = os.environ.get("REDIS_URL")
    if url:
        yield url
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()
            server.wait()


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit("redis-server did not start")
