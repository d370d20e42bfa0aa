"""Reads what `max_daily_spend` says: how much a paid account may use in a day, in dollars or in another unit.

Strategy: a plain number is dollars; a table gives an amount for each unit, a text such as "100 requests" one. Dollars mean
nothing where no price is known, so a cap in them is refused there, with the ways out. Must never know what is spent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from .costs import COUNTED, UNITS
from .frozen import EMPTY
from .lazy_pattern import lazy_pattern
from .limits import MAX_AMOUNT
from .validation import check_number, describe_type, did_you_mean, shown_name

DOLLARS = "dollars"

PRICES_NEEDED = (
    "counts dollars, and no price of account {} is known, so that nothing would ever be counted: state cost_per_input_token and "
    "cost_per_output_token, take them from the catalog, or cap another unit, as in max_daily_spend = {{ requests = 100 }} "
    'or "50000 tokens"'
)
"""Why a cap in dollars is refused for an account."""

_FORMS = 'must be a number of dollars, a table such as { requests = 100 }, or a text such as "100 requests"'
_TEXT = lazy_pattern(r"(\$?)\s*(\d[\d_,]*(?:\.\d+)?)\s*([a-z_]*)", re.IGNORECASE)


def spend_caps(stated: object) -> Mapping[str, float]:
    """The most of each unit that may be used as paid in a UTC day; what is not right is left out, see `cap_problems`."""
    if isinstance(stated, str):
        stated = _from_text(stated)
    elif isinstance(stated, (int, float)) and not isinstance(stated, bool):
        stated = {DOLLARS: stated}
    if not isinstance(stated, Mapping):
        return EMPTY
    return {unit: amount for unit, amount in stated.items() if unit in COUNTED and not _amount_problem(unit, amount)}


def cap_problems(stated: object) -> Iterator[tuple[str, str | None]]:
    """What is wrong with a `max_daily_spend`, each with its path."""
    path = "max_daily_spend"
    if stated is None:
        return
    if isinstance(stated, str):
        found = _from_text(stated)
        if found is None:
            yield path, f"{_FORMS}; units are {', '.join(COUNTED)}"
            return
        stated = found
    if isinstance(stated, Mapping):
        if not stated:
            yield path, "must name an amount of at least one unit, as in { requests = 100 }"
        for unit, amount in stated.items():
            if unit in COUNTED:
                yield f"{path}.{unit}", _amount_problem(unit, amount)
            else:
                yield f"{path}.{shown_name(unit)}", f"unknown unit{did_you_mean(unit, COUNTED)}; known: {', '.join(COUNTED)}"
    elif isinstance(stated, bool) or not isinstance(stated, (int, float)):
        yield path, f"{_FORMS}, not {describe_type(stated)}"
    else:
        yield path, _amount_problem(DOLLARS, stated)


def void_cap(
    provider: str, account_id: str, model: str, spends: Sequence[tuple[str, str]], wants: Sequence[tuple[str, float]]
) -> str:
    """What to say of a paid call of which no cap of its account counts anything, "" for all others.

    `spends`: the buckets of the caps with their units; `wants`: what the call reserved, theirs last.
    """
    units = [unit.replace("_", " ") for _, unit in spends]
    if DOLLARS in units or any(amount for _, amount in wants[-len(units) :]):
        return ""
    return (
        f"accounts: max_daily_spend of {provider}/{account_id} counts {' and '.join(units)} alone, of which calls of {model!r} "
        "have none, so that it does not bound them: cap requests or dollars as well"
    )


def _amount_problem(unit: str, amount: object) -> str | None:
    return check_number(amount, whole=UNITS[unit].whole, most=MAX_AMOUNT)


def _from_text(text: str) -> Mapping[str, float] | None:
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        return None
    sign, digits, word = match.groups()
    unit = word.lower() or (DOLLARS if sign else "")
    unit = unit if unit in COUNTED else f"{unit}s"
    if unit not in COUNTED or (sign and unit != DOLLARS):
        return None
    return {unit: float(digits.replace("_", "").replace(",", ""))}
