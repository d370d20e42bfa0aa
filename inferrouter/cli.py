"""Offers the command line: the demo, a check of a configuration, one question, the known
providers, and what is left of every account.

Strategy: each command is a function that prints and returns an exit code: 0 done, 1 failed with one line on stderr that
says what to do next, 2 misused, 130 interrupted. Errors end here as words, never as a traceback.
Must never show a key, nor do what a program could not do with the public classes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from .config_file import load_config
from .errors import ConfigError, InferRouterError, InvalidRequestError, UnknownModelError
from .provider_factory import KNOWN_PROVIDERS
from .quota_memory import MemoryQuotaStore
from .records import ChatRequest, Routing, Usage
from .router import Router
from .terminal import Screen

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

PROGRAM = f"python3 -m {__name__.rpartition('.')[0]}"


class Streams(NamedTuple):
    """Where a command writes: what was asked for, and what is said about it."""

    out: Screen
    err: Screen


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` None: the process's own arguments. Returns the exit code and raises nothing."""
    err = Screen(sys.stderr)
    try:
        return _run(argv, Streams(Screen(sys.stdout), err))
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else 2
    except InferRouterError as error:
        err.line(f"{PROGRAM}: {_one_line(error)}")
        return 1
    except KeyboardInterrupt:
        err.line("\ninterrupted")
        return 130
    except BrokenPipeError:
        _forget_stdout()
        return 1


def demo(options: Namespace, streams: Streams) -> int:
    """Three stand-in providers and a router over them."""
    from .demo import run_demo

    return run_demo()


def check(options: Namespace, streams: Streams) -> int:
    """Say what is wrong with a configuration, or who serves each alias. Counts and holds are not looked at."""
    out = streams.out
    try:
        config, warnings = load_config(options.file, known_providers=KNOWN_PROVIDERS)
        router = Router(config, quota_store=MemoryQuotaStore())
    except ConfigError as error:
        out.line(f"{options.file}: {len(error.problems)} problem{'s' * (len(error.problems) != 1)}")
        for problem in error.problems:
            out.line(f"  - {problem}")
        return 1
    names = dict.fromkeys([*(mapping.alias for mapping in config.models), config.default_model or None])
    with router:
        unserved = [name for name in names if name and not _explained(router, name, out)]
    for warning in (*warnings, *router.warnings):
        out.line(f"  ! {warning}")
    if unserved:
        what = ", ".join(unserved)
        out.line(f"{options.file}: nothing can serve {what}; add an account, or allow what is refused above")
        return 1
    out.line(f"{options.file}: fine")
    return 0


def ask(options: Namespace, streams: Streams) -> int:
    """One question, its answer on stdout, who gave it on stderr."""
    request = ChatRequest(_question(options.text), model=options.model)
    with Router.from_file(options.config) if options.config else _from_env(options.paid) as router:
        try:
            where, usage = (_streamed if options.stream else _answered)(router, request, streams.out)
        except UnknownModelError as error:
            streams.err.line(f"{PROGRAM}: {_one_line(error)} It goes after --model.")
            return 1
    cost = "free" if where.free else f"${where.cost:.6f}"
    tries = f", attempt {where.attempts}" if where.attempts > 1 else ""
    streams.err.line(f"[{where.provider}/{where.account_id} {where.model}: {usage.total_tokens} tokens, {cost}{tries}]", "dim")
    return 0


def status(options: Namespace, streams: Streams) -> int:
    """Limits, use and holds of every account."""
    config, _ = load_config(options.config, known_providers=KNOWN_PROVIDERS)
    with Router(config) as router:
        streams.out.line(str(router.status()))
        if config.quota.store == "memory":
            streams.err.line('(these counts begin with each program; [quota] store = "sqlite" keeps them)', "dim")
    return 0


def catalog(options: Namespace, streams: Streams) -> int:
    """The providers known by name: address, key variables, and what is free there, with dates and sources."""
    from .catalog import PRESETS

    for row in PRESETS.values():
        streams.out.line(f"{row.name}: {row.dialect} at {row.base_url}, key in {' or '.join(row.env) or 'none'}")
        for tier in row.free:
            limits = ", ".join(f"{key} {amount:,.0f}" for key, amount in tier.limits.items()) or "no number stated"
            models = ", ".join(tier.models) or "the whole account"
            streams.out.line(f"  free: {limits} for {models} ({tier.confidence} {tier.as_of})")
        if row.source:
            streams.out.line(f"  from {row.source}", "dim")
    return 0


def _run(argv: Sequence[str] | None, streams: Streams) -> int:
    parser = _parser()
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help()
        return 0
    code: int = options.command(options, streams)
    return code


def _explained(router: Router, name: str, out: Screen) -> bool:
    """Print who would serve `name`; whether anybody would."""
    found = router.explain(ChatRequest("Hello", model=name))
    out.line(str(found))
    return bool(found.candidates)


def _from_env(allow_paid: bool) -> Router:
    try:
        return Router.from_env(allow_paid=allow_paid)
    except ConfigError as error:
        raise ConfigError(f"{'; '.join(error.problems)}; or name a configuration file with --config") from None


def _question(words: list[str]) -> str:
    if words != ["-"]:
        return " ".join(words)
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as exc:
        raise InvalidRequestError(message=f"the question is not {exc.encoding} text at byte {exc.start}") from exc


def _answered(router: Router, request: ChatRequest, out: Screen) -> tuple[Routing, Usage]:
    answer = router.chat_completion(request)
    out.line(answer.text)
    return answer.routing, answer.usage


def _streamed(router: Router, request: ChatRequest, out: Screen) -> tuple[Routing, Usage]:
    with router.stream(request) as stream:
        try:
            for chunk in stream:
                out.piece(chunk.text)
        finally:
            out.line()
    return stream.response.routing, stream.response.usage


def _parser() -> ArgumentParser:
    from argparse import ArgumentParser

    parser = ArgumentParser(PROGRAM, description="Route LLM requests over many accounts: free capacity first.")
    parser.add_argument("--version", action="version", version=_version())
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    command = commands.add_parser("demo", help="three stand-in providers with real limits, on this machine; no key")
    command.set_defaults(command=demo)

    command = commands.add_parser("check", help="what is wrong with a configuration, and who serves each alias")
    command.add_argument("file", metavar="FILE", help="a .toml or .json file")
    command.set_defaults(command=check)

    command = commands.add_parser("ask", help="one question")
    command.add_argument("--config", metavar="FILE", help="default: the API keys of the environment")
    command.add_argument("--model", default="", help="an alias, a model, or provider/model")
    command.add_argument("--stream", action="store_true", help="print the answer as it comes")
    command.add_argument("text", metavar="TEXT", nargs="+", help="the question; - reads it from stdin")
    command.add_argument("--paid", action="store_true", help="without --config: accounts that cost money may be used")
    command.set_defaults(command=ask)

    command = commands.add_parser("catalog", help="the providers known by name, and what they give for free")
    command.set_defaults(command=catalog)

    command = commands.add_parser("status", help="limits, use and holds of every account")
    command.add_argument("--config", metavar="FILE", required=True)
    command.set_defaults(command=status)
    return parser


def _version() -> str:
    package = sys.modules[__name__.rpartition(".")[0]]
    return f"{package.__name__} {package.__version__}"


def _one_line(error: InferRouterError) -> str:
    """The error without line breaks."""
    words = "; ".join(error.problems) if isinstance(error, ConfigError) else str(error)
    return " ".join(words.split())


def _forget_stdout() -> None:
    """The reader has gone; let the interpreter's last flush go nowhere, or it would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
