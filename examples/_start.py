"""What the examples share: a router over your own keys of free tiers if you have any, else over the simulator.

A key that may cost money, such as OPENAI_API_KEY, is left alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import inferrouter as ir
from inferrouter.simulator import KeyLimits, Simulator

__all__ = ["example_router", "ir"]

STEPS = {
    "GEMINI_API_KEY": ir.ModelRef("gemini", "gemini-3.5-flash"),
    "GROQ_API_KEY": ir.ModelRef("groq", "openai/gpt-oss-20b"),
}
SIMULATED = (ir.ModelRef("gemini", "gemini-3.5-flash"), ir.ModelRef("openai", "gpt-4o-mini"))


@contextmanager
def example_router() -> Iterator[ir.Router]:
    """A router whose default model is served by whatever there is."""
    steps = {name: step for name, step in STEPS.items() if os.environ.get(name)}
    with ExitStack() as stack:
        config = _own(steps) if steps else _simulated(stack)
        yield stack.enter_context(ir.Router(config))


def _own(steps: dict[str, ir.ModelRef]) -> ir.Config:
    accounts = [
        ir.AccountConfig(provider=step.provider, id=step.provider, auth=ir.Auth(os.environ[name]), limits={"rpm": 5})
        for name, step in steps.items()
    ]
    return ir.Config(accounts=accounts, models=[ir.ModelMapping("any", list(steps.values()))], default_model="any")


def _simulated(stack: ExitStack) -> ir.Config:
    print("(no key of a free tier found: talking to the simulator; set GEMINI_API_KEY or GROQ_API_KEY for the real thing)\n")
    openai = stack.enter_context(Simulator("openai", keys={"sk-demo": KeyLimits(rpm=30)}, models=("gpt-4o-mini",)))
    gemini = stack.enter_context(Simulator("gemini", keys={"g-demo": KeyLimits(rpm=30)}, models=("gemini-3.5-flash",)))
    accounts = [
        ir.AccountConfig(provider="gemini", id="gemini-free", auth=ir.Auth("g-demo"), base_url=gemini.base_url, daily_free=20),
        ir.AccountConfig(provider="openai", id="openai-free", auth=ir.Auth("sk-demo"), base_url=openai.base_url, daily_free=20),
    ]
    return ir.Config(accounts=accounts, models=[ir.ModelMapping("any", SIMULATED)], default_model="any")
