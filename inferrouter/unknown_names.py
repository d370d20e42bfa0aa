"""Says why a name leads to no model: what it may be misspelt for, or whose model it is at a provider without an account.

Strategy: asked only once a name was refused, so it may take its time, and is loaded then alone. What the catalog knows of
providers without an account is told, never served. Must never widen what a name leads to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

from .catalog import ALIASES, PRESETS, Preset, own_names
from .config import ModelRef
from .errors import UnknownModelError
from .spelling import misspelt
from .validation import did_you_mean

LONGEST = 60
"""Characters; what is longer is not the name of a provider."""


def unknown_model(name: str, aliases: Mapping[str, Sequence[ModelRef]], providers: Collection[str]) -> UnknownModelError:
    """The error for `name`, which is none of `aliases` and no model of `providers`, the ones that are configured."""
    known = list(dict.fromkeys([*aliases, *(step.model for steps in aliases.values() for step in steps)]))
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    return UnknownModelError(name, list(dict.fromkeys([*close, *known])), why=_why(name, known, providers) if name else "")


def _why(name: str, known: Sequence[str], providers: Collection[str]) -> str:
    present = {ALIASES.get(each, each) for each in providers}
    absent = [row for row in PRESETS.values() if row.name not in present]
    typo = misspelt(name, known)
    owners = [row for row in absent if name in own_names(row.name)]
    if not owners and not typo:
        owners = [row for row in absent if row.declares(name)]
    if owners:
        return f": it is a model of {_without_account(owners[0])}"
    maker, slash, model = name.partition("/")
    if typo or not (maker and slash and model) or len(maker) > LONGEST:
        return did_you_mean(name, typo or known)
    row = PRESETS.get(ALIASES.get(maker, maker))
    if row in absent:
        return f": it names {_without_account(row)}"
    called = next((each for each in providers if row is not None and ALIASES.get(each, each) == row.name), None)
    if called is not None:
        return f" (did you mean {f'{called}/{model}'!r}?)"
    return f": no account is of a provider {maker!r}{did_you_mean(maker, providers)}"


def _without_account(row: Preset) -> str:
    key = f"; without a configuration: set {row.env[0]}" if row.env else ""
    return f"{row.name}, which has no account here (add one{key})"
