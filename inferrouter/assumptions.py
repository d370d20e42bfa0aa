"""Puts the catalog's free limits where an account leaves them to it, and says so with the age of the figures.

Strategy: an account that writes `limits = "catalog"` gets them; so does, with a warning, one at a known provider's own address
that may not cost anything and states no limit at all, since an account without limits is spent by its first burst. What an
account states itself wins. Must never read a clock: `now` is passed in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from .account import CATALOG, UNSTATED, AccountConfig
from .catalog import ALIASES, PRESETS, Preset
from .catalog_prices import PRICES, ListPrice
from .config import Config
from .errors import ConfigError
from .frozen import FrozenDict, NamedTuple, replace
from .moments import age_in_words

SHOWN = 2
"""How many models, and groups of them, a sentence shows the limits of."""


class Assumed(NamedTuple):
    """A configuration without open questions. `said`: a sentence for each account that got limits; `warnings`: those of them that
    nobody asked for, with what to do about it."""

    config: Config
    said: tuple[str, ...]
    warnings: tuple[str, ...]


def with_catalog(config: Config, given: Collection[str], now: float) -> Assumed:
    """`config` with the catalog's limits where accounts leave them to it. `now`: epoch seconds.

    `given`: names of the providers that the caller brought, of which the catalog knows nothing.
    Raises `ConfigError` naming each account that asks for limits which the catalog does not have.
    """
    problems = [*_problems(config)]
    if problems:
        raise ConfigError(problems)
    accounts, said, warnings = [], [*_prices_said(config, now)], []
    for index, account in enumerate(config.accounts):
        row = PRESETS.get(ALIASES.get(account.provider, account.provider))
        asked = account.limits == CATALOG
        if row is None or not (asked or _leaves_it_open(account, row, given)):
            accounts.append(account)
            continue
        accounts.append(_limited(account, row))
        sentence = (
            f"accounts[{index}].limits: account {account.id!r} has the catalog's free limits of {row.name}, {_figures(row, now)}"
        )
        said.append(sentence)
        if not asked:
            warnings.append(f'{sentence}; write limits = "catalog" to agree, your own, or limits = {{}} for none')
    if all(new is old for new, old in zip(accounts, config.accounts, strict=True)):
        return Assumed(config, tuple(said), ())
    return Assumed(replace(config, accounts=tuple(accounts)), tuple(said), tuple(warnings))


def _problems(config: Config) -> Iterator[str]:
    for index, account in enumerate(config.accounts):
        row = PRESETS.get(ALIASES.get(account.provider, account.provider))
        if account.limits == CATALOG and (row is None or not row.free):
            missing = f"the catalog has no free limits of {account.provider!r}"
            yield f"accounts[{index}].limits: {missing}; write the account's own, or {{}} for none"
        if account.prices == CATALOG and not _known_prices(account) and not account.has_price:
            missing = f"the catalog has no prices of {account.provider!r}"
            yield f"accounts[{index}].prices: {missing}; state cost_per_input_token and cost_per_output_token"


def _prices_said(config: Config, now: float) -> Iterator[str]:
    """A sentence for each account whose prices are the catalog's."""
    for index, account in enumerate(config.accounts):
        known = _known_prices(account)
        if account.prices == CATALOG and known and not account.has_price:
            oldest = min(price.as_of for price in known)
            models = ", ".join(price.model for price in known)
            age = f"list prices of {oldest}, {age_in_words(oldest, now)}"
            yield f"accounts[{index}].prices: account {account.id!r} has the catalog's prices for {models} ({age}); others cost 0"


def _known_prices(account: AccountConfig) -> list[ListPrice]:
    name = ALIASES.get(account.provider, account.provider)
    return [price for price in PRICES if price.provider == name]


def _leaves_it_open(account: AccountConfig, row: Preset, given: Collection[str]) -> bool:
    """Whether nothing is said about limits, and the account is one that the catalog's figures are about."""
    silent = account.limits is UNSTATED and not account.model_limits and account.daily_free is None
    free = bool(row.free) and not account.paid_enabled and not account.has_price
    return silent and free and account.base_url is None and account.provider not in given


def _limited(account: AccountConfig, row: Preset) -> AccountConfig:
    return replace(
        account,
        limits=row.limits,
        model_limits=FrozenDict({**row.model_limits, **account.model_limits}),
        reset=row.reset if account.reset == "UTC" else account.reset,
        tpm_counts=row.tpm_counts if account.tpm_counts == "total" else account.tpm_counts,
    )


def _figures(row: Preset, now: float) -> str:
    """The first of the limits in words, and how old the oldest figure is."""
    words = []
    for tier in row.free[:SHOWN]:
        limits = " ".join(f"{key} {amount:,.0f}" for key, amount in tier.limits.items())
        whose = " and ".join(tier.models) if len(tier.models) <= SHOWN else f"each of {len(tier.models)} models"
        words.append(f"{limits} for {whose}" if tier.models else limits)
    more = [f"{len(row.free) - SHOWN} more groups of models"] if len(row.free) > SHOWN else []
    confidence = " and ".join(sorted({tier.confidence for tier in row.free}))
    return f"{', '.join([*words, *more])} ({confidence}, {row.as_of}, {age_in_words(row.as_of, now)})"
