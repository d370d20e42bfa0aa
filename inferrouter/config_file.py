"""A configuration from a .toml or .json file.

Strategy: look at the file before opening it, read it whole up to a cap, parse it strictly, and leave the tables to
`config_tables`. The parsers' errors hold the file's text, so they end here as words; the one `ConfigError` is raised
where no local variable holds the text or the environment, since a traceback may show locals. Must never know a key.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .config import Config
from .config_tables import TableReader

__all__ = ["MAX_FILE_BYTES", "load_config"]

MAX_FILE_BYTES = 1 << 20


def load_config(
    path: str | os.PathLike[str], *, env: Mapping[str, str] | None = None, known_providers: Collection[str] = ()
) -> tuple[Config, tuple[str, ...]]:
    """The configuration in the file `path` (.toml or .json), and warnings about the file.

    `env` and `known_providers` as for `parse_config`. A relative `quota.path` begins in the file's folder, and `~` is
    the user's home.
    Raises `ConfigError` that lists every problem: an unusable file, missing variables, unknown keys, wrong values.
    """
    reader = _read(path, env, known_providers)
    del env  # a traceback with locals would show it
    return reader.outcome()


class _UnusableError(Exception):
    """Why a file is none of ours, in words that follow its path."""


def _read(path: object, env: Mapping[str, str] | None, known_providers: Collection[str]) -> TableReader:
    """A reader that has read everything, problems included."""
    if not isinstance(path, (str, os.PathLike)):
        reader = TableReader(env)
        reader.problems.append("the path of the configuration must be a string or a Path")
        return reader
    file = Path(path)
    reader = TableReader(env, file.parent)
    faults: list[str] = []
    try:
        raw, open_to_others = _bytes(file)
        data = _parsed(raw, file.suffix.lower(), faults)
    except _UnusableError as exc:
        faults.append(str(exc))
    else:
        reader.build(data, known_providers)
        if reader.holds_key and open_to_others:
            reader.warnings.append(
                f"{file}: holds a key as plain text and other users can read it; "
                "write ${VARIABLE} instead, or take their permission away (chmod 600)"
            )
    if faults:
        reader.problems[:0] = [f"{file}: {fault}" for fault in faults]
        reader.config = None
    return reader


def _bytes(file: Path) -> tuple[bytes, bool]:
    """The file's content, and whether other users may read it."""
    try:
        facts = os.stat(file)
        if not stat.S_ISREG(facts.st_mode):
            kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "no regular file"
            raise _UnusableError(f"is {kind}; name a .toml or .json file")
        with open(file, "rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as exc:
        raise _UnusableError("does not exist; check the path, a relative one begins in the current folder") from exc
    except OSError as exc:
        raise _UnusableError(f"cannot be read: {exc.strerror}; check the path and its permissions") from exc
    except ValueError as exc:
        raise _UnusableError("is no path of a file") from exc
    if len(raw) > MAX_FILE_BYTES:
        raise _UnusableError(f"is larger than {MAX_FILE_BYTES} bytes, which no configuration is; check the path")
    # Windows has no such bits: it shows every file as readable by all.
    return raw, os.name == "posix" and bool(facts.st_mode & 0o044)


def _parsed(raw: bytes, suffix: str, faults: list[str]) -> Any:
    """What the file's text means; what is wrong but can be read past goes to `faults`."""
    try:
        text = raw.decode("utf-8-sig")
        if suffix == ".json":
            return _parsed_json(text, faults)
        if suffix == ".toml":
            import tomllib

            return tomllib.loads(text)
    except UnicodeDecodeError as exc:
        raise _UnusableError(f"is not UTF-8 at byte {exc.start}; save it as UTF-8") from exc
    except RecursionError as exc:
        raise _UnusableError("is nested too deeply") from exc
    except ValueError as exc:
        raise _UnusableError(f"is no valid {suffix[1:].upper()}: {exc}") from exc
    raise _UnusableError("has no known ending; it must be .toml or .json")


def _parsed_json(text: str, faults: list[str]) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        for key, value in pairs:
            if key in table:
                faults.append(f"has the key {key!r} twice in one table")
            table[key] = value
        return table

    def no_number(word: str) -> None:
        faults.append(f"has {word}, which is no JSON number")

    return json.loads(text, object_pairs_hook=once, parse_constant=no_number)
