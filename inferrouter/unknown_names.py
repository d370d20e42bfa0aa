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
from .spelling import LONGEST_SHOWN, misspelt
from .validation import did_you_mean

LONGEST = 60
"""Characters; what is longer is not the name of a provider."""
MOST_SERVERS = 3
"""Providers that are named for a model which any of them may have."""


def unknown_model(
    name: str, aliases: Mapping[str, Sequence[ModelRef]], providers: Collection[str], by_variables: bool = False
) -> UnknownModelError:
    """The error for `name`, which is none of `aliases` and no model of `providers`, the ones that are configured.

    `by_variables`: whether a key in one more variable of the environment makes one more account.
    """
    known = list(dict.fromkeys([*aliases, *(step.model for steps in aliases.values() for step in steps)]))
    if not name or len(name) > LONGEST_SHOWN:
        return UnknownModelError(name, known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    why = _why(name, known, providers, by_variables)
    return UnknownModelError(name, list(dict.fromkeys([*close, *known])), why=why)


def _why(name: str, known: Sequence[str], providers: Collection[str], by_variables: bool) -> str:
    present = {ALIASES.get(each, each) for each in providers}
    absent = [row for row in PRESETS.values() if row.name not in present]
    typo = misspelt(name, known)
    owners = [row for row in absent if name in own_names(row.name)]
    if not owners and not typo:
        owners = [row for row in absent if row.declares(name)]
    maker, slash, model = name.partition("/")
    of_maker = bool(maker and slash and model) and len(maker) <= LONGEST
    servers = _servers(name, providers) if of_maker else ""
    if owners:
        return f": it is a model of {_without_account(owners[0], by_variables)}{servers}"
    if typo:
        return f" (did you mean {typo[0]!r}?)"
    if not of_maker:
        return did_you_mean(name, known)
    row = PRESETS.get(ALIASES.get(maker, maker))
    if row in absent:
        return f": it names {_without_account(row, by_variables)}{servers}"
    called = next((each for each in providers if row is not None and ALIASES.get(each, each) == row.name), None)
    if called is not None:
        return f" (did you mean {f'{called}/{model}'!r}?){servers}"
    return f": no account here is at a provider {maker!r}{did_you_mean(maker, providers)}{servers}"


def _servers(name: str, providers: Collection[str]) -> str:
    """How `name` is written if it is a model of one of `providers`: those that serve models of others have slashes in names."""
    found = [each for each in providers if any("/" in model for model in own_names(each))][:MOST_SERVERS]
    written = " or ".join(repr(f"{each}/{name}") for each in found)
    return f"; if it is a model of {' or '.join(found)}, write {written}" if found else ""


def _without_account(row: Preset, by_variables: bool) -> str:
    paid = "" if row.free else " and allow paid use (--paid, or allow_paid)"
    key = f": set {row.env[0]}{paid}" if row.env and by_variables else ""
    return f"{row.name}, which has no account here (add one{key})"
