"""Says whether a configuration is right and what it would do (`check`), and whether every account answers (`doctor`).

Strategy: `check` reads and resolves, asks nobody and changes nothing: where counts are kept in a file, a copy of it is looked at,
so that a draft of a configuration never reaches a ledger that others use. With `--live`, or as `doctor`, one short call goes to
each account, counted like any other, and each failure says what to do. Must never show a key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .catalog import own_names
from .cli_common import DONE, FAILED, PROGRAM, Console, add_config, add_json, found_config, loaded, own_store, state_file
from .cli_probe import Probe, probe_accounts
from .config import Config
from .config_file import names_a_store
from .errors import ConfigError, UnknownModelError
from .quota import QuotaStore
from .quota_memory import MemoryQuotaStore
from .records import ChatRequest
from .router import Router
from .spelling import LONGEST_SHOWN
from .validation import did_you_mean

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_check(parser: ArgumentParser) -> None:
    """What `check` takes."""
    parser.add_argument("file", metavar="FILE", nargs="?", help="a .toml or .json file; default: as --config")
    add_config(parser)
    add_json(parser)
    parser.add_argument("--live", action="store_true", help="ask every account once, at the cost of a few tokens each")
    parser.set_defaults(run=check)


def add_doctor(parser: ArgumentParser) -> None:
    """What `doctor` takes."""
    parser.add_argument("file", metavar="FILE", nargs="?", help="a .toml or .json file; default: as --config")
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=check, live=True)


def check(options: Namespace, console: Console) -> int:
    """Say what is wrong with a configuration, or who serves each alias now."""
    path = found_config(options.file or options.config)
    name = "the environment" if path is None else str(path)
    try:
        config, warnings = _of_environment() if path is None else loaded(path)
        with MemoryQuotaStore() as nowhere, Router(config, quota_store=nowhere) as draft:
            _check_default(draft)
        probes = _probed(path, config) if options.live else []  # first: an answer ends what the last one held
        with ledger_copy(path, config) as store, Router(config, quota_store=store) as router:
            report = _report(router, config)
            warnings = (*warnings, *router.warnings)
            agreed = [text for text in router.assumed if not any(warning.startswith(text) for warning in warnings)]
    except ConfigError as error:
        return _wrong(name, error, options.json, console)
    unserved = [each["model"] for each in report if not each["served"]]
    silent = [each.account_id for each in probes if not each.fine]
    fine = bool(config.accounts) and not unserved and not silent
    if options.json:
        live = {"accounts": [each._asdict() for each in probes]} if options.live else {}
        found = {"problems": [], "warnings": list(warnings), "assumed": agreed, "models": report}
        console.data({"file": name, **found, **live, "fine": fine})
        return DONE if fine else FAILED
    for each in report:
        console.out.line(each["explanation"])
    for text in agreed:
        console.out.line(f"  = {text}")
    for warning in warnings:
        console.out.line(f"  ! {warning}")
    for probe in probes:
        _show(probe, console)
    if not config.accounts:
        console.out.line(f"{name}: has no account to ask; {PROGRAM} init FILE writes a configuration of the environment's keys")
    elif silent:
        console.out.line(f"{name}: {', '.join(silent)} cannot serve; see above for what to do")
    elif unserved:
        console.out.line(f"{name}: nothing can serve {', '.join(unserved)}; add an account, or allow what is refused above")
    else:
        console.out.line(f"{name}: fine")
    return DONE if fine else FAILED


def _check_default(router: Router) -> None:
    """Raises `ConfigError` for a default model that leads nowhere."""
    name = router.config.default_model
    if name and router.config.accounts:
        try:
            router.explain(ChatRequest("Hello"))
        except UnknownModelError as error:
            known = f"known: {', '.join(error.known[:12])}. Write one of these, or" if error.known else "there is no alias. Write"
            why = error.why or did_you_mean(name, error.known)
            shown = name if len(name) <= LONGEST_SHOWN else f"{name[: LONGEST_SHOWN - 3]}..."
            raise ConfigError(
                f"default_model: {shown!r} is not an alias, nor a model of any account{why}; {known} "
                f"provider/model{_example(router)}"
            ) from error


def _example(router: Router) -> str:
    """A model that can be named, if the catalog knows one."""
    known = (f"{each.provider}/{model}" for each in router.config.accounts for model in own_names(each.provider))
    first = next(known, "")
    return f", such as {first}" if first else ""


def _of_environment() -> tuple[Config, tuple[str, ...]]:
    """The configuration that the environment's keys make, and what is to be said about them."""
    from .environment import accounts_from_env, config_for

    found = accounts_from_env(os.environ)
    return config_for(found.required()), tuple(found.notes)


def _probed(path: Path | None, config: Config) -> list[Probe]:
    with own_store(path) as store:
        return probe_accounts(config, store)


def _show(probe: Probe, console: Console) -> None:
    took = "" if probe.seconds is None else f" in {probe.seconds:.2f} s"
    console.out.piece("  ok   " if probe.fine else "  FAIL ", "green" if probe.fine else "red")
    console.out.line(f"{probe.provider}/{probe.account_id} {probe.model}{took}: {probe.says}")


@contextmanager
def ledger_copy(path: Path | None, config: Config) -> Iterator[QuotaStore]:
    """A store with the counts that `config` would go on from, apart from any file: what is done to it reaches nobody."""
    file = _ledger_file(path, config)
    if file is None or not file.is_file():
        with MemoryQuotaStore() as memory:
            yield memory
        return
    from .quota_sqlite import SQLiteQuotaStore

    with TemporaryDirectory() as folder:
        copy = Path(folder) / "quota.sqlite"
        _copy(file, copy)
        with SQLiteQuotaStore(copy) as store:
            yield store


def _ledger_file(path: Path | None, config: Config) -> Path | None:
    if path is None or not names_a_store(path):
        return state_file(os.environ)
    return Path(os.fsdecode(config.quota.path)) if config.quota.store == "sqlite" and config.quota.path else None


def _copy(file: Path, copy: Path) -> None:
    """Copy what is committed in a sqlite file, its log included."""
    import sqlite3

    try:
        source = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        try:
            target = sqlite3.connect(copy)
            try:
                source.backup(target)
            finally:
                target.close()
        finally:
            source.close()
    except sqlite3.Error as exc:
        raise ConfigError(f"quota.path: {str(file)!r} cannot be read ({exc}); name another file, or move this one away") from exc


def _report(router: Router, config: Config) -> list[dict[str, Any]]:
    """Who would serve each alias and the default."""
    names = (
        dict.fromkeys([*(mapping.alias for mapping in config.models), config.default_model or None]) if config.accounts else {}
    )
    found = [router.explain(ChatRequest("Hello", model=name)) for name in names if name]
    return [
        {
            "model": each.model,
            "served": bool(each.candidates),
            "candidates": [f"{who.provider}/{who.account_id} {who.model}" for who in each.candidates],
            "explanation": str(each),
        }
        for each in found
    ]


def _wrong(name: str, error: ConfigError, as_json: bool, console: Console) -> int:
    if as_json:
        console.data({"file": name, "problems": list(error.problems), "warnings": [], "models": [], "fine": False})
        return FAILED
    console.out.line(f"{name}: {len(error.problems)} problem{'s' * (len(error.problems) != 1)}")
    for problem in error.problems:
        console.out.line(f"  - {problem}")
    return FAILED
