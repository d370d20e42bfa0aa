"""Reads what an account's `limits` say, in each of the ways in which they can be written.

Strategy: short keys (rpm, tpd), or an amount of a unit with `per`, a window's name or any span: { requests = 45, per = "5h" };
one table, or a list of them where a unit has several limits. Each becomes a row with a name of its own, the same for the same
limit however it is written, so that a count outlives a rewritten configuration. Part of an amount may be left to the owner's
other programs. Must never raise for what is written, nor know what is used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from .costs import UNITS
from .frozen import freeze, frozen_value
from .limits import MAX_AMOUNT, canonical_window
from .validation import check_number, describe_type, did_you_mean, shown_name

LIMIT_KEYS: Mapping[str, tuple[str, str]] = freeze(
    {
        f"{unit.key}p{suffix}": (name, window)
        for name, unit in UNITS.items()
        if unit.key
        for suffix, window in (("m", "minute"), ("h", "hour"), ("d", "day"), ("week", "week"), ("month", "month"))
    }
)
"""What a short key of `limits` means: unit and window."""

LEASE = "10m"
"""Window of limits on calls at once: how long the place of a call that crashed stays taken, unless `per` says otherwise."""

TPM_COUNTS = ("total", "input")
"""What counts towards tpm: all tokens of a call, or those that go in."""

_SHORT = {meaning: key for key, meaning in LIMIT_KEYS.items()}
_MODIFIERS = ("per", "leave", "counts")
_FORMS = 'a table such as {rpm = 15} or { requests = 45, per = "5h" }'


@frozen_value
class LimitRow:
    """One limit: `amount` of `unit` in each `window`, of which `leave` is kept for the owner's other programs.

    `name`: what it is called in `Router.status()`, and what the key of its bucket ends with.
    """

    name: str
    amount: float
    unit: str
    window: str
    leave: float = 0.0


def limit_rows(stated: object, leave: object = None, tpm_counts: object = "total") -> tuple[LimitRow, ...]:
    """The limits that `stated` holds; what is not right is left out, see `limit_problems`.

    `leave`: what is left to others of those that do not say so themselves: a share, or shares and amounts by name.
    """
    rows = []
    for _, found, _ in _read("", stated):
        if found is None:
            continue
        row, own = found
        if tpm_counts == "input" and row.name == "tpm" and row.unit == "tokens":
            row = LimitRow(row.name, row.amount, "input_tokens", row.window)
        if own is None and isinstance(leave, Mapping):
            own = leave.get(row.name)
        elif own is None and not UNITS[row.unit].held:
            own = leave
        left = left_to_others(row.amount, own, UNITS[row.unit].whole)
        rows.append(LimitRow(row.name, row.amount, row.unit, row.window, left))
    return tuple(rows)


def limit_problems(path: str, stated: object) -> Iterator[tuple[str, str | None]]:
    """What is wrong with `stated`, each with its path; two limits with one name among it."""
    seen: dict[str, str] = {}
    for place, found, problem in _read(path, stated):
        twice = found is not None and seen.setdefault(found[0].name, place) != place
        yield place, f"is the same limit as {seen[found[0].name]}; state it once" if found and twice else problem


def left_to_others(amount: float, leave: object, whole: bool) -> float:
    """How much of `amount` is left to others: `leave` is a share below 1, or an amount. One unit at least may be used here."""
    if isinstance(leave, bool) or not isinstance(leave, (int, float)) or not 0 <= leave <= MAX_AMOUNT:
        return 0.0
    left = amount * leave if leave < 1 else float(leave)
    if whole:
        left = float(math.ceil(left - 1e-9))
    return min(left, max(amount - 1.0, 0.0) if whole else amount)


def check_leave(leave: object) -> str | None:
    """A share from 0 to below 1, or an amount from 1 on."""
    return check_number(leave, most=MAX_AMOUNT)


def leave_problems(leave: object, names: frozenset[str]) -> Iterator[tuple[str, str | None]]:
    """What is wrong with an account's `leave`, whose limits are called `names`."""
    if leave is None:
        return
    if not isinstance(leave, Mapping):
        problem = check_leave(leave)
        if problem is None and isinstance(leave, (int, float)) and leave >= 1:
            problem = "must be a share below 1 such as 0.2; amounts are stated by limit, as in { rpd = 100 }"
        yield "leave", problem
        return
    for name, each in leave.items():
        known = name in names
        yield (
            f"leave.{shown_name(name)}",
            check_leave(each) if known else f"is not a limit of this account{did_you_mean(name, names)}",
        )


_Found = Iterator[tuple[str, "tuple[LimitRow, object] | None", "str | None"]]


def _read(path: str, stated: object) -> _Found:
    """Each place with the row that stands there and its own `leave`, or with what is wrong."""
    if isinstance(stated, Mapping):
        yield from _table(path, stated)
    elif isinstance(stated, (list, tuple)):
        for index, entry in enumerate(stated):
            if isinstance(entry, Mapping) and entry:
                yield from _table(f"{path}[{index}]", entry)
            elif isinstance(entry, Mapping):
                yield f"{path}[{index}]", None, f"names no limit; write {_FORMS}, or leave it out"
            else:
                yield path, None, f"must be {_FORMS}, or a list of these, not a list of {describe_type(entry)}"
                return
    else:
        yield path, None, f"must be {_FORMS}, or a list of these, not {describe_type(stated)}"


def _table(path: str, table: Mapping[Any, Any]) -> _Found:
    per, leave, counts = (table.get(name) for name in _MODIFIERS)
    limits = [key for key in table if key not in _MODIFIERS]
    if "leave" in table:
        yield f"{path}.leave", None, check_leave(leave)
    if "counts" in table and counts not in TPM_COUNTS:
        yield f"{path}.counts", None, f"must be one of {', '.join(TPM_COUNTS)}"
    if table.keys() & set(_MODIFIERS) and not limits:
        yield path, None, f"names no limit; write {_FORMS}"
    for key in limits:
        place, amount = f"{path}.{key}", table[key]
        if key in LIMIT_KEYS:
            problem = f"has its window in its name; leave `per` out, or write {LIMIT_KEYS[key][0]}" if "per" in table else None
            yield from _row(place, *LIMIT_KEYS[key], amount, leave, counts, problem)
        elif key not in UNITS:
            known = [*LIMIT_KEYS, *UNITS]
            unknown = f"unknown limit{did_you_mean(key, [*known, *_MODIFIERS])}; known: {', '.join(known)}"
            yield f"{path}.{shown_name(key)}", None, unknown
        elif isinstance(amount, Mapping) and "per" not in table:
            if not amount:
                yield place, None, f'names no window, as in {{ {key} = {{ "5h" = 45 }} }}, or {{ {key} = 45, per = "5h" }}'
            for window, each in amount.items():
                yield from _row(f"{place}.{window}", key, window, each, leave, counts)
        else:
            window = per if "per" in table else LEASE if UNITS[key].held else None
            needs = None if window is not None else f'needs a window, as in {{ {key} = 45, per = "5h" }}'
            yield from _row(place, key, window, amount, leave, counts, needs)


def _row(
    place: str, unit: str, window: object, amount: object, leave: object, counts: object, problem: str | None = None
) -> _Found:
    canonical = canonical_window(window)
    problem = problem or check_number(amount, whole=UNITS[unit].whole, most=MAX_AMOUNT)
    if canonical is None and problem is None:
        problem = 'per: must be minute, hour, day, week or month, or a span such as "90s", "5h" or "7d"'
    if problem is not None or canonical is None or not isinstance(amount, (int, float)):
        yield place, None, problem
        return
    name = unit if UNITS[unit].held else _SHORT.get((unit, canonical), f"{unit} per {canonical}")
    counted = "input_tokens" if counts == "input" and unit == "tokens" else unit
    yield place, (LimitRow(name, amount, counted, canonical), leave), None
