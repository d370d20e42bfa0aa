"""Offers the command line: gathers the commands, runs one, and turns whatever happens into words and an exit code.

Strategy: a table names every command, its module `cli_*` and its line of the help; only the module of the command that runs is
loaded, and its `add_NAME(parser)` says what the command takes and what runs. Exit codes: 0 done, 1 failed with one line on stderr
that says what to do next, 2 misused, 130 interrupted. Errors end here as words, never as a traceback. Must never show a key, nor
do what a program could not do with the public classes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from .cli_common import DONE, FAILED, INTERRUPTED, MISUSED, PACKAGE, PROGRAM, Console, one_line
from .errors import ConfigError, InferRouterError
from .terminal import Screen

if TYPE_CHECKING:
    from argparse import ArgumentParser

COMMANDS = {
    "ask": ("cli_ask", "one question"),
    "explain": ("cli_ask", "who would serve a request, in order, and why not the others; asks nobody"),
    "embed": ("cli_ask", "vectors for texts, one JSON array a line"),
    "batch": ("cli_batch", "ask every row of a file, paced by the limits; run it again to go on"),
    "merge": ("cli_batch", "put the outputs of shards together"),
    "plan": ("cli_plan", "what the accounts will carry, hour by hour, and when a job will be done"),
    "models": ("cli_models", "what can be asked now: aliases, models, what is left of each"),
    "providers": ("cli_models", "the providers known by name, where to get a key, and what they give for free"),
    "catalog": ("cli_models", "the providers known by name, where to get a key, and what they give for free"),
    "status": ("cli_status", "what is left of every limit, when it comes back, and what is held"),
    "check": ("cli_check", "what is wrong with a configuration, and who serves each alias"),
    "doctor": ("cli_check", "check --live: what is wrong, and whether every account answers"),
    "init": ("cli_init", "write a commented configuration of the keys found in the environment"),
    "serve": ("cli_serve", "an endpoint that OpenAI's and Anthropic's clients can use, with a page to look at"),
    "demo": ("cli_demo", "three stand-in providers with real limits, on this machine; no key"),
    "simulate": ("cli_demo", "stand-in providers on fixed ports, to try a configuration by hand"),
}
"""By name, in the order of the help: the module that brings the command, and what it does in a line."""

EXIT_CODES = "exit codes: 0 done; 1 failed, with one line on stderr that says what to do; 2 misused; 130 interrupted"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` None: the process's own arguments. Returns the exit code and raises nothing."""
    err = Screen(sys.stderr)
    try:
        return _run(argv, Console(Screen(sys.stdout), err))
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else MISUSED
    except InferRouterError as error:
        words = "; ".join(error.problems) if isinstance(error, ConfigError) else str(error)
        err.line(f"{PROGRAM}: {one_line(words)}")
        return FAILED
    except KeyboardInterrupt:
        err.line("\ninterrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return FAILED
    except OSError as error:
        err.line(f"{PROGRAM}: the output cannot be written ({error.strerror}): look at where it goes")
        _forget_stdout()
        return FAILED


def _run(argv: Sequence[str] | None, console: Console) -> int:
    words = sys.argv[1:] if argv is None else argv
    parser = _parser(next(([word] for word in words if not word.startswith("-")), ()))  # no option before it takes a value
    options, strange = parser.parse_known_args(words)
    if strange:
        _refuse(strange, options.parser)
    if options.run is None:
        parser.print_help()
        return DONE
    code: int = options.run(options, console)
    return code


def _refuse(strange: Sequence[str], command: ArgumentParser) -> NoReturn:
    """End as argparse does for words that it cannot place, but with the usage of the command itself and what was likely meant."""
    from .spelling import misspelt

    known = [each for each in command._option_string_actions if each.startswith("--")]  # the help has prose and is torn
    hints = []
    for flag in [word.partition("=")[0] for word in strange if word.startswith("-")]:
        if flag in known:
            hints.append(f"{flag} goes after the command")
        else:
            hints += [f"did you mean {each}?" for each in misspelt(flag, known)[:1]]
    command.error(f"unrecognized arguments: {' '.join(strange)}{f' ({hints[0]})' if hints else ''}")


def _parser(wanted: Collection[str] = frozenset(COMMANDS)) -> ArgumentParser:
    """The parser of all commands; only those that are `wanted` know what they take, so that the others' modules stay out."""
    from argparse import ArgumentParser

    parser = ArgumentParser(PROGRAM, description="Route LLM requests over many accounts: free capacity first.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=_version())
    parser.set_defaults(run=None, parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, (module, does) in COMMANDS.items():
        command = commands.add_parser(name, help=does)
        command.set_defaults(parser=command)
        if name in wanted:
            getattr(import_module(f".{module}", PACKAGE), f"add_{name}")(command)
    return parser


def _version() -> str:
    package = sys.modules[PACKAGE]
    return f"{package.__name__} {package.__version__}"


def _forget_stdout() -> None:
    """The reader has gone; let the interpreter's last flush go nowhere, or it would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
