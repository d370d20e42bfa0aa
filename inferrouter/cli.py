"""Offers the command line: gathers the commands, runs one, and turns whatever happens into words and an exit code.

Strategy: each family of commands is a module `cli_*` with `add(commands)`, which makes its parsers and says what runs. Exit
codes: 0 done, 1 failed with one line on stderr that says what to do next, 2 misused, 130 interrupted. Errors end here as words,
never as a traceback. Must never show a key, nor do what a program could not do with the public classes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import cli_ask, cli_batch, cli_check, cli_demo, cli_init, cli_models, cli_plan, cli_serve, cli_status
from .cli_common import DONE, FAILED, INTERRUPTED, MISUSED, PACKAGE, PROGRAM, Console, one_line
from .errors import ConfigError, InferRouterError
from .terminal import Screen

if TYPE_CHECKING:
    from argparse import ArgumentParser

FAMILIES = (cli_ask, cli_batch, cli_plan, cli_models, cli_status, cli_check, cli_init, cli_serve, cli_demo)
"""The modules that bring commands, in the order of the help."""

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
    parser = _parser()
    options = parser.parse_args(argv)
    if options.run is None:
        parser.print_help()
        return DONE
    code: int = options.run(options, console)
    return code


def _parser() -> ArgumentParser:
    from argparse import ArgumentParser

    parser = ArgumentParser(PROGRAM, description="Route LLM requests over many accounts: free capacity first.", epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=_version())
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for family in FAMILIES:
        family.add(commands)
    return parser


def _version() -> str:
    package = sys.modules[PACKAGE]
    return f"{package.__name__} {package.__version__}"


def _forget_stdout() -> None:
    """The reader has gone; let the interpreter's last flush go nowhere, or it would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
