"""Looks at what a program gave to `Batch`, before anything is opened or made of it.

Strategy: one table of what kind each argument is, and how that is said; the first that is of another kind is named. Numbers with
a range of their own come after it. Must never open a file, nor know what an argument is for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from .errors import ConfigError

_PATH: tuple[tuple[type, ...], str] = ((str, os.PathLike), "a path")
_TEXT: tuple[tuple[type, ...], str] = ((str, type(None)), "a text or None")
_WORD: tuple[tuple[type, ...], str] = ((str,), "a text")
_SWITCH: tuple[tuple[type, ...], str] = ((bool,), "True or False")

TAKES: Mapping[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("input", "output"), _PATH),
    **dict.fromkeys(("prompt", "system"), _TEXT),
    **dict.fromkeys(("model", "kind", "shape"), _WORD),
    **dict.fromkeys(("dedupe", "retry_failed", "fsync"), _SWITCH),
    "schema": ((str, os.PathLike, Mapping, type(None)), "a JSON schema, its file, or None"),
    "media": ((list, tuple), "a list of columns"),
    "settings": ((Mapping, type(None)), "a mapping of fields of ChatRequest, or None"),
    "max_spend": ((int, float, type(None)), "a number of dollars or None"),
}
"""What kinds of things the arguments of `Batch` are, and how that is said."""


def check_kinds(*given: tuple[str, object]) -> None:
    """Raise `ConfigError` for the first that is of another kind than `TAKES` says."""
    for name, value in given:
        kinds, what = TAKES[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ConfigError(f"{name}: must be {what}, not {type(value).__name__}")


def check_numbers(shard: object, max_spend: float | None) -> None:
    """Raise `ConfigError` for a shard that is not a part of a whole, or a negative amount of money."""
    if shard is not None and not _is_shard(shard):
        raise ConfigError(f"shard: {shard!r} is not (i, n) with i from 1 to n")
    if max_spend is not None and not max_spend >= 0:
        raise ConfigError(f"max_spend: {max_spend!r} is not a number of dollars")


def _is_shard(shard: object) -> bool:
    if not isinstance(shard, (tuple, list)) or [type(number) for number in shard] != [int, int]:
        return False
    return bool(1 <= shard[0] <= shard[1])
