"""Serves every command: where a configuration is found, the router over it, and what goes to which stream.

Strategy: a command is a function of its parsed options and a `Console`. The configuration is looked for in one order
everywhere; without one the environment's keys make the router, which loads when it is opened. Counts are kept in one sqlite file
of the user's, unless the configuration names a store, so that two commands know of each other. Must never show a key, nor know
what a command does.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ConfigError
from .frozen import NamedTuple
from .terminal import Screen

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _ArgumentGroup

    from .cli_wait import Countdown
    from .config import Config
    from .meter import Meter
    from .quota import QuotaStore
    from .router import Router

PACKAGE = __name__.rpartition(".")[0]
PROGRAM = f"python3 -m {PACKAGE}"
FOLDER = "inferrouter"  # also for a copy under another name: it is the same user, the same keys and the same counts
CONFIG_VARIABLE = "INFERROUTER_CONFIG"
CONFIG_NAMES = ("inferrouter.toml", "inferrouter.json")

ENV_WAIT_S = 60.0
"""Seconds that a command waits for a free slot where neither an option nor a configuration says."""

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes. Failed: one line on stderr says what to do next."""


N = TypeVar("N", int, float)


class Console(NamedTuple):
    """Where a command writes: what was asked for, and what is said about it."""

    out: Screen
    err: Screen

    def data(self, value: Any) -> None:
        """`value` as JSON, for programs: one document, times as ISO 8601 in UTC."""
        self.out.line(json.dumps(value, indent=2, ensure_ascii=False))


def add_config(parser: ArgumentParser) -> None:
    """The option that every command with a router has."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"a .toml or .json file; default: ${CONFIG_VARIABLE}, ./{CONFIG_NAMES[0]} or .json, the user's own, else the keys "
        "of the environment",
    )


def add_json(parser: ArgumentParser) -> None:
    """The option that every command has."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def add_paid(parser: ArgumentParser | _ArgumentGroup) -> None:
    """The option of commands that ask models."""
    parser.add_argument("--paid", action="store_true", help="without a configuration: accounts that cost money may be used")


def bounded(kind: Callable[[str], N], least: N, most: N) -> Callable[[str], N]:
    """What reads an option that is a number from `least` to `most`, `kind` int or float; argparse tells what it refuses."""

    def read(text: str) -> N:
        from argparse import ArgumentTypeError

        try:
            value = kind(text)
            if least <= value <= most:
                return value
        except ValueError:
            pass
        what = "a whole number" if kind is int else "a number"
        raise ArgumentTypeError(f"{text!r} is not {what} from {least:,} to {most:,}")

    return read


def found_config(given: str | None, env: Mapping[str, str] | None = None) -> Path | None:
    """The configuration file to use: the one given or named by the environment, else the first that exists, else None."""
    env = os.environ if env is None else env
    named = given or env.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    places = [Path(name) for name in CONFIG_NAMES] + [config_folder(env) / name for name in CONFIG_NAMES]
    return next((place for place in places if place.is_file()), None)


def config_folder(env: Mapping[str, str]) -> Path:
    """Where this user's configuration is, as the platform has it."""
    return _folder(env, "XDG_CONFIG_HOME", ".config", "APPDATA")


def loaded(path: Path) -> tuple[Config, tuple[str, ...]]:
    """The configuration in a file, and what is surprising in it. Raises `ConfigError` with every problem."""
    from .catalog import KEY_VARIABLES
    from .config_file import load_config
    from .provider_factory import KNOWN_PROVIDERS

    return load_config(path, known_providers=KNOWN_PROVIDERS, key_variables=KEY_VARIABLES)


@contextmanager
def open_router(
    options: Namespace, *, countdown: Countdown | None = None, allow_paid: bool = False, meter: Meter | None = None
) -> Iterator[Router]:
    """A router over the configuration that is found, else over the environment's keys. Raises `ConfigError`, `QuotaStoreError`.

    `countdown`: shows waits. `allow_paid` counts without a configuration. `meter`: is told what happens, instead of `countdown`.
    """
    from .router import Router

    told = meter or countdown
    path = found_config(options.config)
    with own_store(path) as store:
        try:
            if path is None:
                made = Router.from_env(allow_paid=allow_paid, store=store, max_wait=ENV_WAIT_S, meter=told, clock=countdown)
            else:
                made = Router.from_file(path, quota_store=store, meter=told, clock=countdown)
        except ConfigError as error:
            if path is not None:
                raise
            raise ConfigError(f"{'; '.join(error.problems)}; or name a configuration file with --config") from None
        with made as router:
            yield router


def state_file(env: Mapping[str, str]) -> Path:
    """Where this user's commands count, unless a configuration names a store."""
    return _folder(env, "XDG_STATE_HOME", ".local/state", "LOCALAPPDATA") / "quota.sqlite"


@contextmanager
def own_store(path: Path | None) -> Iterator[QuotaStore | None]:
    """The user's own sqlite store, or None where the configuration `path` names a store itself. Raises `ConfigError` if it cannot
    be made, or `QuotaStoreError`."""
    from .config_file import names_a_store

    if path is not None and names_a_store(path):
        yield None
        return
    from .quota_sqlite import SQLiteQuotaStore

    file = state_file(os.environ)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"the folder {str(file.parent)!r} for counts cannot be made ({exc.strerror}): "
            'set XDG_STATE_HOME to a folder that can be made, or name a file with [quota] store = "sqlite", path = "..."'
        ) from exc
    with SQLiteQuotaStore(file) as store:
        yield store


def one_line(text: str) -> str:
    """`text` without line breaks."""
    return " ".join(text.split())


def _folder(env: Mapping[str, str], variable: str, below_home: str, windows: str) -> Path:
    if sys.platform == "win32" and env.get(windows):
        return Path(env[windows]) / FOLDER
    base = env.get(variable, "")
    return (Path(base) if os.path.isabs(base) else Path.home() / below_home) / FOLDER
