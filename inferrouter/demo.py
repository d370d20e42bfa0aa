"""The demo: three stand-in providers with real limits on this machine, and a router that makes the most of them.

Strategy: four acts over real HTTP, each with a sentence before it and a line for each call; then a table from the
router's events, held against what the stand-ins counted. Every promise is checked, so a demo that shows something
else fails. Must never need a key, a network, or anything that is not public.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TextIO

from .config import Config
from .demo_cast import DemoClock, build_config, build_stand_ins
from .demo_show import EventList, Show
from .errors import InferRouterError
from .router import Router
from .screen import Screen
from .simulator import Simulator

__all__ = ["run_demo"]

HAIKU = "Write a haiku about a router."
SUM = "  {:<12} {:>6} {:>8} {:>8}   {:<5} {:>10}"


def run_demo(out: TextIO | None = None) -> int:
    """Show everything on `out` (None: stdout), in under 10 seconds. Returns 0, or 1 if a promise was not kept."""
    screen = Screen(sys.stdout if out is None else out)
    clock = DemoClock()
    events = EventList()
    with ExitStack() as stack:
        stack.enter_context(_past_any_proxy())
        stand_ins = build_stand_ins(clock, 0.04 if screen.terminal else 0.01)
        for stand_in in stand_ins.values():
            stack.callback(stand_in.stop)  # a second time, should Ctrl-C have cut the first one short
            stack.enter_context(stand_in)
        config = build_config(stand_ins)
        router = stack.enter_context(Router(config, meter=events, clock=clock))
        show = Show(screen, router, clock, events)
        try:
            _introduce(screen, config, stand_ins)
            _free_first(show)
            _a_429(show)
            _paid_last(show)
            _a_stream(show)
            _the_count(show, stand_ins)
        except InferRouterError as error:
            show.expect(False, f"the demo ended early: {error}")
    return show.verdict()


def _introduce(screen: Screen, config: Config, stand_ins: Mapping[str, Simulator]) -> None:
    screen.line("One router, three accounts, real HTTP on 127.0.0.1", "bold")
    screen.paragraph("Each provider is a stand-in that counts per key and refuses as the real one does. No network.")
    screen.line()
    for account in config.accounts:
        free = f"{account.daily_free:g} {account.quota_unit} a day, free" if account.daily_free else "paid by the token"
        dialect = {"gemini": "Gemini", "openai": "OpenAI"}[stand_ins[account.provider].dialect]
        screen.line(f"  {account.id:<12} speaks {dialect:<7} {free}")
    screen.pause(0.4)


def _free_first(show: Show) -> None:
    show.act(
        "1. Free first, and balanced",
        "The paid account waits. Each call goes to the free account with the larger share of its day left, whether it "
        "is counted in requests or in tokens. The columns gemini and groq show that share after the call.",
    )
    who = [show.call().account_id for _ in range(4)]
    evenly = sorted(who) == ["gemini-free"] * 2 + ["groq-free"] * 2
    show.expect(evenly, "four calls are shared evenly by the free accounts")


def _a_429(show: Show) -> None:
    show.act(
        "2. A 429 that fails over",
        "Groq takes 2 requests a minute, and nobody told the router. Groq is next in turn and will answer 429; the "
        "same call then goes to Gemini, and Groq is left alone for as long as it asked.",
    )
    first, second = show.call(), show.call()
    show.expect(first.attempts == 2 and first.account_id == "gemini-free", "a call that Groq refuses goes on to Gemini")
    show.expect(show.refusals("groq") == 1, "Groq answers 429 once")
    show.expect(second.attempts == 1 and second.account_id == "gemini-free", "Groq is not asked again while it rests")


def _paid_last(show: Show) -> None:
    show.act(
        "3. Free is spent, paid takes over",
        "Gemini has one free request left. The router knows, so Gemini never has to refuse. After that nothing free "
        "can answer, and paid is allowed here, up to 5 cents a day.",
    )
    routes = [show.call() for _ in range(3)]
    in_turn = [where.free for where in routes] == [True, False, False]
    show.expect(in_turn, "the paid account comes after the last free request")
    show.expect(all(where.cost > 0 for where in routes[1:]), "a paid call has a price")
    show.expect(show.refusals("gemini") == 0, "Gemini never refuses")


def _a_stream(show: Show) -> None:
    show.act(
        "4. A stream, free again",
        "The demo sets its clock one minute ahead. Groq's rest is over, so it comes before the paid account again, "
        "this time word by word.",
    )
    show.clock.skip(60.0)
    where, moments = show.stream(HAIKU)
    show.expect(where.account_id == "groq-free" and where.free, "Groq is free again after its rest")
    show.expect(len(moments) > 5 and moments[-1] - moments[0] > 0.05, "the stream comes piece by piece")


def _the_count(show: Show, stand_ins: Mapping[str, Simulator]) -> None:
    show.act("The count", "From the router's own events; refused are the 429s.")
    screen = show.screen
    screen.line(SUM.format("account", "calls", "refused", "tokens", "", "dollars"), "dim")
    counts = {provider: show.count(provider) for provider in stand_ins}
    for provider, state in zip(stand_ins, show.router.status().values(), strict=True):
        calls, refused, tokens, cost = counts[provider]
        screen.line(SUM.format(state.account_id, calls, refused, tokens, "paid" if cost else "free", f"${cost:.6f}"))
        used = {"gemini": calls, "groq": tokens}.get(provider)
        show.expect(state.used == used, f"the quota of {state.account_id} shows what was used")
        show.expect(abs(state.spend_today - cost) < 1e-12, f"the spend of {state.account_id} shows what it cost")
    totals = [sum(column) for column in zip(*counts.values(), strict=True)]
    screen.line(SUM.format("together", *totals[:3], "", f"${totals[3]:.6f}"), "bold")
    seen = {provider: _served(stand_in) for provider, stand_in in stand_ins.items()}
    agree = seen == {provider: count[:3] for provider, count in counts.items()}
    if show.expect(agree, f"the stand-ins counted the same (they say {seen})"):
        screen.line("The stand-ins counted the same: calls, refusals and tokens, each of them.", "green")


def _served(stand_in: Simulator) -> tuple[int, int, int]:
    """Requests answered, requests refused with 429, and tokens, as the stand-in logged them."""
    log = stand_in.log
    tokens = sum(each.prompt_tokens + each.completion_tokens for each in log)
    return sum(each.status == 200 for each in log), sum(each.status == 429 for each in log), tokens


@contextmanager
def _past_any_proxy() -> Iterator[None]:
    """Ask 127.0.0.1 itself, whatever proxy the environment names."""
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "127.0.0.1"
    try:
        yield
    finally:
        del os.environ["no_proxy"]
        if before is not None:
            os.environ["no_proxy"] = before
