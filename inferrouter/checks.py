"""Small judgements on one value a user wrote: each returns what is wrong in words, or None.

Strategy: a check never raises and never repeats the value, because it may be a key in the wrong place; it names the
type instead. The caller puts the path before the text, so that all faults of a configuration can be listed at once.
Must never know which setting it looks at.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

__all__ = ["check_flag", "check_name", "check_number", "check_path", "check_word", "kind_of", "nearest"]


def check_number(
    value: object, *, least: float = 0.0, most: float = 1e18, above: float | None = None, whole: bool = False
) -> str | None:
    """A finite int or float, no bool: `least` <= value <= `most`, more than `above`, without a fraction if `whole`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        advice = "; write it without quotes" if isinstance(value, str) else ""
        return f"must be a number, not {kind_of(value)}{advice}"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if above is not None and value <= above:
        return f"must be greater than {above:g}"
    if value < least:
        return "must not be negative" if least == 0 else f"must be at least {least:g}"
    if value > most:
        return f"must be at most {most:g}"
    if whole and value != int(value):
        return "must be a whole number"
    return None


def check_flag(value: object) -> str | None:
    """true or false, nothing that merely counts as one."""
    return None if isinstance(value, bool) else f"must be true or false, not {kind_of(value)}"


def check_name(value: object) -> str | None:
    """A string with something to read in it, on one line, without blanks at its ends."""
    if not isinstance(value, str):
        return f"must be a string, not {kind_of(value)}"
    if not value:
        return "must not be empty"
    if value != value.strip() or not value.isprintable():
        return "must not hold control characters, nor blanks at its ends"
    return None


def check_path(value: object) -> str | None:
    """The path of a file, in whichever of Python's ways."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        return f"must be a string, not {kind_of(value)}"
    name = os.fsdecode(value)
    if name in ("", ":memory:") or "\0" in name:
        return "names no file; to count in memory alone use the store 'memory'"
    return None


def check_word(value: object, known: Sequence[str]) -> str | None:
    """One of the words in `known`."""
    if not isinstance(value, str):
        return f"must be one of {', '.join(known)}, not {kind_of(value)}"
    if value not in known:
        return f"is not one of {', '.join(known)}{nearest(value, known)}"
    return None


def nearest(word: object, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for the known word most like `word`, or nothing."""
    close = get_close_matches(str(word).lower(), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def kind_of(value: object) -> str:
    """What `value` is, in the words of a config file and never showing it, apart from true, false and nothing."""
    if value is None:
        return "nothing (None)"
    if isinstance(value, bool):
        return "true" if value else "false"
    for types, words in _KINDS:
        if isinstance(value, types):
            return words
    return f"a {type(value).__name__}"


_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((str,), "a string"),
    ((int, float), "a number"),
    ((Mapping,), "a table"),
    ((list, tuple, set, frozenset), "a list"),
)
