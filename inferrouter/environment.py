"""Makes a configuration of the API keys in an environment: one account a key, and aliases over all of them.

Strategy: each variable that the catalog knows gives an account with the catalog's free limits, `NAME_2`, `NAME_3` ... further
ones; the aliases are the catalog's models in the order of their quality, at whatever accounts there are. Raises nothing while
it holds the environment, since a traceback that shows local variables would show every key of it. Must never open a connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .account import CATALOG, AccountConfig, Auth
from .catalog import KEY_VARIABLES, OFFERS, PRESETS, Offer, Preset, capabilities
from .catalog_models import FASTEST
from .catalog_prices import PRICES
from .config import Config, ModelMapping, ModelRef, QuotaConfig
from .errors import ConfigError
from .frozen import NamedTuple
from .secret import Secret
from .spelling import edit_distance

FIRST = PRESETS["gemini"]
"""The provider that is recommended to whoever has no key: its free tier asks for no card, and for no more than a sign-in."""

_RUN = f"python3 -m {__name__.rpartition('.')[0]}"

NO_KEY = (
    f"the environment holds none of the known keys: set one first, such as {FIRST.env[0]} (free, from {FIRST.key_url}), "
    "GROQ_API_KEY or OPENROUTER_API_KEY; "
    f"`{_RUN} providers` lists them all and where to get a key; `{_RUN} demo` shows the router at work without one"
)

SMART = 2
"""Tiers up to this one are in the alias "smart"."""


class Found(NamedTuple):
    """What an environment holds: accounts, and what is to be said about it.

    `near`: variables that may be meant as keys, each with the name that is read.
    """

    accounts: list[AccountConfig]
    notes: list[str]
    near: list[tuple[str, str]]

    def required(self) -> list[AccountConfig]:
        """The accounts. Raises `ConfigError` that says how to come by a key if there is none."""
        if self.accounts:
            return self.accounts
        if self.near:
            renamed = ", ".join(f"{name} (did you mean {meant}?)" for name, meant in self.near)
            raise ConfigError(
                f"the environment holds none of the known keys, and these are not read: {renamed}; "
                "rename those that are meant as keys"
            )
        raise ConfigError(NO_KEY)


def accounts_from_env(env: Mapping[str, str]) -> Found:
    """An account for each known key in `env`, with the catalog's free limits; a paid one if the catalog does not know any.

    `GEMINI_API_KEY` gives the account "gemini", `GEMINI_API_KEY_2` "gemini-2"; a key that comes twice counts once. An address in
    `GEMINI_BASE_URL` takes the place of the provider's own. Raises nothing.
    """
    found = Found([], [], _near(env))
    for row, names in _names(env):
        base_url = env.get(row.base_url_env, "").strip() or None if row.base_url_env else None
        seen: dict[str, AccountConfig] = {}
        for account_id, name in names:
            key = Secret(env[name].strip())
            same = next((known for known, account in seen.items() if account.auth.api_key == key), None)
            if same is not None:
                found.notes.append(f"{name}: holds the same key as {same}, so it is counted once")
            elif account_id not in (account.id for account in seen.values()):
                seen[name] = _account(row, account_id, Auth(key, name), base_url)
        if seen and base_url is not None:
            found.notes.append(f"{row.base_url_env}: {row.name} is reached at the address in this variable")
        found.accounts.extend(seen.values())
    return found


def variables_of(env: Mapping[str, str]) -> dict[str, str]:
    """By the id of each account that `accounts_from_env` may make, the variable that holds its key. Raises nothing."""
    return {account_id: name for _, names in _names(env) for account_id, name in reversed(names)}


def config_for(
    accounts: Sequence[AccountConfig],
    allow_paid: bool = False,
    *,
    default_model: str | None = None,
    policy: str = "best_first",
    attempt_timeout: float = 120.0,
    max_wait: float = 0.0,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    auth_errors: str | None = "next",
    on_store_error: str | None = None,
    quota: QuotaConfig | None = None,
) -> Config:
    """A configuration of what `accounts_from_env` found, with the aliases of `aliases_over`; settings as in `Config`.

    `default_model`: None is "free", or "any" where paid use is allowed and there is a paid account, or nothing is free. Raises
    `ConfigError` if there is no account, a key is unusable, or a setting is wrong.
    """
    if not accounts:
        raise ConfigError(f"{NO_KEY} (known: {', '.join(KEY_VARIABLES)})")
    models = aliases_over(accounts, allow_paid)
    if default_model is None:
        known = {mapping.alias for mapping in models}
        best = ("any", "free") if allow_paid else ("free", "any")  # without a free one the error says what "any" costs
        default_model = next((alias for alias in best if alias in known), "")
    return Config(
        accounts=accounts,
        models=models,
        allow_paid=allow_paid,
        default_model=default_model,
        policy=policy,
        attempt_timeout=attempt_timeout,
        max_wait=max_wait,
        timeout=timeout,
        idle_timeout=idle_timeout,
        auth_errors=auth_errors,
        on_store_error=on_store_error,
        quota=quota or QuotaConfig(),
    )


def aliases_over(accounts: Iterable[AccountConfig], allow_paid: bool = False) -> list[ModelMapping]:
    """The aliases that the catalog makes over `accounts`, each only where a model serves it, its models best first.

    The names: "free" is every free chat model; "fast" the fast ones, fastest first; "smart" tiers 1 and 2; "vision" those that
    see; "embed" those that make vectors; "any" free ones, then paid ones. Paid models stand last, and only where `allow_paid` is
    set or nothing is free.
    """
    paid_at = {account.provider for account in accounts if account.paid_enabled}
    free_at = {account.provider for account in accounts} - paid_at
    free = [each for each in OFFERS if each.provider in free_at and _is_free(each)]
    paid = [each for each in OFFERS if each.provider in paid_at]
    chat = [each for each in free if not each.embeds]
    with_paid = [each for each in paid if not each.embeds] if allow_paid or not chat else []
    everything = [*chat, *with_paid]
    choices = {
        "free": chat,
        "any": everything if with_paid else [],
        "fast": sorted((each for each in everything if each.speed >= FASTEST), key=lambda each: -each.speed) or everything,
        "smart": [each for each in everything if each.tier <= SMART] or everything,
        "vision": [each for each in everything if "image" in (capabilities(each.provider, each.model) or ())],
        "embed": [each for each in (*free, *(paid if allow_paid or not free else ())) if each.embeds],
    }
    return [ModelMapping(alias, [_step(each) for each in offers]) for alias, offers in choices.items() if offers]


def _is_free(offer: Offer) -> bool:
    """Whether the model is among those that its provider gives for free, all of them where the limits are the account's."""
    row = PRESETS[offer.provider]
    return bool(row.limits) or offer.model in row.model_limits or "*" in row.model_limits or not row.model_limits


def _step(offer: Offer) -> ModelRef:
    return ModelRef(offer.provider, offer.model)


def _names(env: Mapping[str, str]) -> Iterator[tuple[Preset, list[tuple[str, str]]]]:
    """Each provider whose key `env` holds, with the ids of its accounts and the variables of their keys."""
    numbered = _numbered(env)
    for row in PRESETS.values():
        first = next((name for name in row.env if env.get(name, "").strip()), None)
        names = [] if first is None else [(row.name, first)]
        further = sorted((number, name) for base in row.env for number, name in numbered.get(base, ()))
        names += [(f"{row.name}-{number}", name) for number, name in further]
        if names:
            yield row, names


def _numbered(env: Mapping[str, str]) -> dict[str, list[tuple[int, str]]]:
    """By what stands before its number, each variable that ends with one and is set."""
    found: dict[str, list[tuple[int, str]]] = {}
    for name in env:
        match = _NUMBERED.fullmatch(name)
        if match and env[name].strip():
            found.setdefault(match[1], []).append((int(match[2]), name))
    return found


def _near(env: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that look like keys and begin nearly as a known one does, which is not set, with the nearest one's name."""
    found = []
    for name in env:
        head = name.partition("_")[0].upper()
        if len(head) < SHORTEST_HEAD or not _KEYLIKE.search(name) or not env[name].strip():
            continue
        if name in KEY_VARIABLES or _NUMBERED.fullmatch(name):
            continue
        heads = {each: edit_distance(head, each.partition("_")[0], 1) for each in KEY_VARIABLES}
        nearest = min(heads, key=heads.__getitem__)
        if heads[nearest] <= 1 and not env.get(nearest, "").strip():
            found.append((name, nearest))
    return found


def _account(row: Preset, account_id: str, auth: Auth, base_url: str | None) -> AccountConfig:
    return AccountConfig(
        provider=row.name,
        id=account_id,
        auth=auth,
        base_url=base_url,
        limits=row.limits,
        model_limits=row.model_limits,
        reset=row.reset,
        tpm_counts=row.tpm_counts,
        paid_enabled=not row.free,
        prices=CATALOG if not row.free and any(price.provider == row.name for price in PRICES) else "",
    )


SHORTEST_HEAD = 4
"""Letters before the first underscore of a variable; fewer are like everything."""

_KEYLIKE = re.compile(r"KEY|TOKEN", re.IGNORECASE)
_NUMBERED = re.compile(r"(.+)_([0-9]{1,4})")
