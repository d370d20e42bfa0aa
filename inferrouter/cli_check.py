"""Says whether a configuration is right and what it would do (`check`), and what the known providers give (`providers`).

Strategy: reads and resolves, asks nobody and changes nothing: where counts are kept in a file, a copy of it is looked at, so
that a draft of a configuration never reaches a ledger that others use. Must never show a key.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .cli_common import DONE, FAILED, Console, add_config, add_json, found_config, loaded, state_file
from .config import Config
from .config_file import names_a_store
from .errors import ConfigError
from .quota import QuotaStore
from .quota_memory import MemoryQuotaStore
from .records import ChatRequest
from .router import Router

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace, _SubParsersAction


def add(commands: _SubParsersAction[ArgumentParser]) -> None:
    """Add the parsers of this family."""
    parser = commands.add_parser("check", help="what is wrong with a configuration, and who serves each alias")
    parser.add_argument("file", metavar="FILE", nargs="?", help="a .toml or .json file; default: as --config")
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=check)

    for name in ("providers", "catalog"):
        parser = commands.add_parser(name, help="the providers known by name, and what they give for free")
        add_json(parser)
        parser.set_defaults(run=providers)


def check(options: Namespace, console: Console) -> int:
    """Say what is wrong with a configuration, or who serves each alias now."""
    path = found_config(options.file or options.config)
    name = "the environment" if path is None else str(path)
    try:
        config, warnings = _of_environment() if path is None else loaded(path)
        with ledger_copy(path, config) as store, Router(config, quota_store=store) as router:
            report = _report(router, config)
            warnings = (*warnings, *router.warnings)
            agreed = [text for text in router.assumed if not any(warning.startswith(text) for warning in warnings)]
    except ConfigError as error:
        return _wrong(name, error, options.json, console)
    unserved = [each["model"] for each in report if not each["served"]]
    if options.json:
        console.data(
            {"file": name, "problems": [], "warnings": list(warnings), "assumed": agreed, "models": report, "fine": not unserved}
        )
        return FAILED if unserved else DONE
    for each in report:
        console.out.line(each["explanation"])
    for text in agreed:
        console.out.line(f"  = {text}")
    for warning in warnings:
        console.out.line(f"  ! {warning}")
    if unserved:
        console.out.line(f"{name}: nothing can serve {', '.join(unserved)}; add an account, or allow what is refused above")
        return FAILED
    console.out.line(f"{name}: fine")
    return DONE


def providers(options: Namespace, console: Console) -> int:
    """The providers known by name: address, key variables, and what is free there, with dates and sources."""
    from .catalog import PRESETS

    if options.json:
        facts = ("name", "dialect", "base_url", "reset", "source")
        console.data(
            [
                {name: getattr(row, name) for name in facts} | {"env": list(row.env), "free": [_tier(tier) for tier in row.free]}
                for row in PRESETS.values()
            ]
        )
        return DONE
    out = console.out
    for row in PRESETS.values():
        out.line(f"{row.name}: {row.dialect} at {row.base_url}, key in {' or '.join(row.env) or 'none'}")
        for tier in row.free:
            limits = ", ".join(f"{key} {amount:,.0f}" for key, amount in tier.limits.items()) or "no number stated"
            models = ", ".join(tier.models) or "the whole account"
            out.line(f"  free: {limits} for {models} ({tier.confidence} {tier.as_of})")
        if row.source:
            out.line(f"  from {row.source}", "dim")
    return DONE


def _of_environment() -> tuple[Config, tuple[str, ...]]:
    """The configuration that the environment's keys make, and what is to be said about them."""
    from .environment import accounts_from_env, config_for

    found = accounts_from_env(os.environ)
    return config_for(found.accounts), tuple(found.notes)


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
    names = dict.fromkeys([*(mapping.alias for mapping in config.models), config.default_model or None])
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


def _tier(tier: Any) -> dict[str, Any]:
    return {
        "limits": dict(tier.limits),
        "models": list(tier.models),
        "as_of": tier.as_of,
        "confidence": tier.confidence,
    }
