"""Runs the stand-in providers: the demo (`demo`), and providers to try a configuration against by hand (`simulate`).

Strategy: `demo` is a program of its own; `simulate` starts one stand-in for each dialect on fixed ports, prints a configuration
that uses them, and shows each request until it is interrupted. Must never need a key or a network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cli_common import DONE, PROGRAM, Console, add_json

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from .simulator import Simulator

FIRST_PORT = 8811


def add_demo(parser: ArgumentParser) -> None:
    """What `demo` takes: nothing."""
    parser.set_defaults(run=demo)


def add_simulate(parser: ArgumentParser) -> None:
    """What `simulate` takes."""
    parser.add_argument(
        "--port", type=int, default=FIRST_PORT, metavar="N", help=f"the first of three ports; default {FIRST_PORT}"
    )
    parser.add_argument("--key", default="sk-simulated", help="the key that they accept; default sk-simulated")
    for name, amount, what in (
        ("rpm", 10, "requests a minute"),
        ("rpd", 100, "requests a day"),
        ("tpm", 20_000, "tokens a minute"),
    ):
        parser.add_argument(f"--{name}", type=int, default=amount, metavar="N", help=f"{what}; default {amount}")
    parser.add_argument("--seconds", type=float, metavar="S", help="stop by itself after this many seconds")
    add_json(parser)
    parser.set_defaults(run=simulate)


def demo(options: Namespace, console: Console) -> int:
    """Three stand-in providers and a router over them."""
    from .demo import run_demo

    return run_demo()


def simulate(options: Namespace, console: Console) -> int:
    """Serve until Ctrl-C, or for as many seconds as were asked for."""
    from contextlib import ExitStack

    from .simulator import KeyLimits, Simulator

    limits = KeyLimits(rpm=options.rpm, rpd=options.rpd, tpm=options.tpm)
    with ExitStack() as stack:
        served = [
            stack.enter_context(Simulator(dialect, keys={options.key: limits}, port=options.port + place))
            for place, dialect in enumerate(("openai", "gemini", "anthropic"))
        ]
        if options.json:
            console.data([{"dialect": each.dialect, "base_url": each.base_url, "key": options.key} for each in served])
        else:
            _introduce(served, options.key, console)
        _show(served, options.seconds, console)
    return DONE


def _introduce(served: list[Simulator], key: str, console: Console) -> None:
    out = console.out
    out.line(f"# a configuration for them; save it, then: {PROGRAM} ask --config FILE hello", "dim")
    out.line(f'default_model = "{served[1].dialect}/any"')
    for each in served:
        out.line(f'\n[[accounts]]\nprovider = "{each.dialect}"\nid = "{each.dialect}-simulated"')
        out.line(f'base_url = "{each.base_url}"\nauth = {{ api_key = "{key}" }}')
    console.err.line("\nserving on 127.0.0.1; Ctrl-C stops", "dim")


def _show(served: list[Simulator], seconds: float | None, console: Console) -> None:
    """Print each request as it comes, until the time is over or Ctrl-C."""
    import time

    ends = None if seconds is None else time.monotonic() + seconds
    shown = [0] * len(served)

    def show_new() -> None:
        for place, each in enumerate(served):
            for request in each.log[shown[place] :]:
                shown[place] += 1
                tokens = (
                    f"{request.prompt_tokens} + {request.completion_tokens} tokens" if request.status == 200 else request.fault
                )
                console.err.line(f"{each.dialect} {request.model or '-'}: {request.status} {tokens}".rstrip())

    try:
        while ends is None or time.monotonic() < ends:
            show_new()
            time.sleep(0.1)
    finally:
        show_new()
