"""Looks things up in the catalog: a provider by any of its names, what a model can take, and how good it is.

Strategy: the rows are data in `catalog_providers` and `catalog_models`; here are the questions. What a configuration says itself
always wins over the catalog. Must never open a connection or read the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from .catalog_models import MODEL_ABILITIES, OFFERS, Offer
from .catalog_providers import PRESETS, FreeTier, Preset
from .errors import ConfigError
from .frozen import freeze
from .validation import did_you_mean, matches

__all__ = [
    "ALIASES",
    "KEY_VARIABLES",
    "OFFERS",
    "PRESETS",
    "FreeTier",
    "Offer",
    "Preset",
    "abilities_of",
    "capabilities",
    "offer",
    "own_names",
    "preset",
]


def preset(name: str) -> Preset:
    """The provider `name`, also by an older or other spelling. Raises `ConfigError` with the nearest known names."""
    found = PRESETS.get(ALIASES.get(name, name))
    if found is None:
        gone = _GONE.get(name)
        if gone:
            raise ConfigError(f"provider {name!r}: {gone}")
        raise ConfigError(f"provider {name!r} is not in the catalog{did_you_mean(name, [*PRESETS, *ALIASES])}; give a base_url")
    return found


def capabilities(provider: str, model: str) -> frozenset[str] | None:
    """What `model` at `provider` can take, words as in `AccountConfig.capabilities`; None: unknown."""
    return abilities_of(ALIASES.get(provider, provider), model)


def offer(provider: str, model: str) -> Offer | None:
    """How good and fast `model` at `provider` is, None where nobody has said."""
    return _OFFERS.get((ALIASES.get(provider, provider), model))


def own_names(provider: str) -> tuple[str, ...]:
    """The models that the catalog knows by name at `provider`, best first."""
    row = PRESETS.get(ALIASES.get(provider, provider))
    if row is None:
        return ()
    offered = [each.model for each in OFFERS if each.provider == row.name]
    return tuple(dict.fromkeys((*offered, *(model for tier in row.free for model in tier.models if model != "*"))))


ALIASES: Mapping[str, str] = freeze({"cerebro": "cerebras", "xai": "grok", "google": "gemini"})

KEY_VARIABLES = tuple(dict.fromkeys(name for row in PRESETS.values() for name in row.env))
"""Every variable of the environment that may hold a provider's key, each once."""

_GONE = {"github-models": "GitHub Models was shut down on 2026-07-30; remove the account"}

_OFFERS: Mapping[tuple[str, str], Offer] = {(each.provider, each.model): each for each in OFFERS}


@lru_cache(maxsize=1024)
def abilities_of(provider: str, model: str) -> frozenset[str] | None:
    """What `model` at `provider` (its name in the catalog) can take; None: unknown."""
    name = model.lower().rpartition("/")[2].partition(":")[0]
    for where, pattern, words in MODEL_ABILITIES:
        if where in ("", provider) and matches(name, pattern):
            return words
    return None
