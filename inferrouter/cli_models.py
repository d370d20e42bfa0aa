"""Lists what can be asked now (`models`) and what the known providers give (`providers`).

Strategy: each alias as a dry run shows it, then every model at every account with what is left of its limits; the catalog as it
stands, with dates and sources. Asks nobody and reserves nothing. Must never show a key.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .catalog import PRESETS, FreeTier, Preset, offer, own_names
from .cli_common import DONE, Console, add_config, add_json, add_paid, open_router
from .config import Config
from .frozen import NamedTuple
from .moments import age_in_words, moment_in_words
from .records import ChatRequest
from .router import Router
from .status import Explanation, LimitStatus, RouterStatus

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

WINDOWS = {"minute": "a minute", "hour": "an hour", "day": "a day", "week": "a week", "month": "a month"}


class Row(NamedTuple):
    """One model at one account. `state`: "" where it can be asked now, else why not. `tier`: its quality, None if unknown."""

    model: str
    provider: str
    account_id: str
    free: bool
    state: str
    retry_at: float | None
    tier: int | None
    limits: tuple[LimitStatus, ...]


def add_models(parser: ArgumentParser) -> None:
    """What `models` takes."""
    parser.add_argument("alias", metavar="ALIAS", nargs="?", help="only the models behind this name")
    add_paid(parser)
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=models)


def add_providers(parser: ArgumentParser) -> None:
    """What `providers` takes."""
    add_json(parser)
    parser.set_defaults(run=providers)


add_catalog = add_providers
"""Its older name."""


def models(options: Namespace, console: Console) -> int:
    """Aliases with who would answer now, then each model at each account."""
    with open_router(options, allow_paid=options.paid) as router:
        config = router.config
        found = _explained(router, config, options.alias)
        rows = _rows(found.values(), router.status())
    if options.json:
        console.data({"default": config.default_model, "aliases": _aliases(found), "models": [_facts(row) for row in rows]})
        return DONE
    out = console.out
    out.line("names to ask for", "bold")
    if options.alias or config.models or config.default_model:
        out.table([_alias_row(name, each, config.default_model) for name, each in found.items()])
    else:
        places = ", ".join(dict.fromkeys(f"{account.provider}/MODEL" for account in config.accounts))
        out.line(f"  {places or 'none, as there is no account'}; no alias is configured, [[models]] makes one")
    if rows:
        out.line()
        out.line("models", "bold")
        now = time.time()
        out.table([_model_row(row, now) for row in rows])
    return DONE


def providers(options: Namespace, console: Console) -> int:
    """The known providers: address, key variables, where to get a key, what is free there, with dates, sources and terms."""
    if options.json:
        console.data([_preset_facts(row) for row in PRESETS.values()])
        return DONE
    now = time.time()
    for row in PRESETS.values():
        _show_preset(row, console, now)
    return DONE


def _explained(router: Router, config: Config, only: str | None) -> dict[str, Explanation]:
    """A dry run of each alias and of the default, else of each model that the catalog knows; or of one name.

    Raises `UnknownModelError`.
    """
    names = [only] if only else [*(mapping.alias for mapping in config.models), config.default_model]
    if not any(names):
        names = [f"{each.provider}/{model}" for each in config.accounts for model in own_names(each.provider)]
    return {name: router.explain(ChatRequest("Hello", model=name)) for name in dict.fromkeys(names) if name}


def _rows(found: Iterable[Explanation], status: RouterStatus) -> list[Row]:
    """Each model at each account once, in the order in which the names give them."""
    rows: dict[tuple[str, str], Row] = {}
    for each in found:
        for who in each.candidates:
            place = (who.account_id, who.model)
            limits = _limits_of(status, *place)
            rows.setdefault(place, Row(who.model, who.provider, who.account_id, who.free, "", None, _tier(who), limits))
        for left in each.rejections:
            place = (left.account_id, left.model)
            limits = _limits_of(status, *place)
            row = Row(left.model, left.provider, left.account_id, True, left.reason, left.retry_at, _tier(left), limits)
            rows.setdefault(place, row)
    return list(rows.values())


def _tier(who: Any) -> int | None:
    known = offer(who.provider, who.model)
    return None if known is None else known.tier


def _limits_of(status: Mapping[str, Any], account_id: str, model: str) -> tuple[LimitStatus, ...]:
    """The limits that count a model's calls at an account: its own and the whole account's."""
    account = status.get(account_id)
    known = account.limits if account is not None else ()
    return tuple(limit for limit in known if "/" not in limit.name or limit.name.rpartition("/")[0] == model)


def _alias_row(name: str, found: Explanation, default: str) -> tuple[str, str, str]:
    served = f"{len(found.candidates)} of {len(found.candidates) + len(found.rejections)} can be asked now"
    first = found.candidates[0] if found.candidates else None
    best = "" if first is None else f"next: {first.model} at {first.provider}/{first.account_id}"
    return name + (" (default)" if name == default else ""), served, best


def _model_row(row: Row, now: float) -> tuple[str, str, str, str]:
    tier = f"tier {row.tier}" if row.tier is not None else ""
    paid = "" if row.free else "paid; "
    if row.state:
        back = "" if row.retry_at is None else f" ({moment_in_words(row.retry_at, now)})"
        return row.model, f"{row.provider}/{row.account_id}", tier, f"{paid}not now: {row.state}{back}"
    left = ", ".join(_left(limit) for limit in row.limits) or "no limits are known"
    return row.model, f"{row.provider}/{row.account_id}", tier, f"{paid}{left}"


def _left(limit: LimitStatus) -> str:
    if limit.unit == "parallel":
        return f"{limit.remaining:,.0f} of {limit.amount:,.0f} {limit.counts}"
    unit = "" if limit.unit == "requests" else " " + limit.unit.replace("_", " ")
    span = WINDOWS.get(limit.window, f"in {limit.window}")
    return f"{limit.remaining:,.0f} of {limit.amount:,.0f}{unit} {span}"


def _aliases(found: Mapping[str, Explanation]) -> dict[str, list[str]]:
    return {name: [f"{who.provider}/{who.account_id} {who.model}" for who in each.candidates] for name, each in found.items()}


def _facts(row: Row) -> dict[str, Any]:
    names = ("name", "amount", "unit", "window", "used", "remaining", "resets_at")
    limits = [{name: getattr(limit, name) for name in names} for limit in row.limits]
    return {**row._asdict(), "limits": limits, "can_be_asked": not row.state}


def _show_preset(row: Preset, console: Console, now: float) -> None:
    out = console.out
    out.line(row.name, "bold")
    out.line(f"  {row.dialect} at {row.base_url}, key in {' or '.join(row.env) or 'none'}")
    if row.key_url:
        out.line(f"  a key: {row.key_url}")
    for tier in row.free:
        limits = ", ".join(f"{key} {amount:,.0f}" for key, amount in tier.limits.items()) or "no number stated"
        served = ", ".join(tier.models) or "the whole account"
        out.line(f"  free: {limits} for {served} ({tier.confidence} {tier.as_of}, {age_in_words(tier.as_of, now)})", "green")
    if row.counted:
        out.line(f"  counted: {row.counted}")
    if row.terms:
        out.line(f"  terms: {row.terms}")
    if row.source:
        out.line(f"  from {row.source}", "dim")


def _preset_facts(row: Preset) -> dict[str, Any]:
    names = ("name", "dialect", "base_url", "reset", "key_url", "counted", "terms", "source")
    free = [_tier_facts(tier) for tier in row.free]
    return {name: getattr(row, name) for name in names} | {"env": list(row.env), "free": free}


def _tier_facts(tier: FreeTier) -> dict[str, Any]:
    return {
        "limits": dict(tier.limits),
        "models": list(tier.models),
        "as_of": tier.as_of,
        "confidence": tier.confidence,
    }
