"""Describes a router's whole configuration as values: accounts, aliases, and how the router behaves.

Strategy: frozen data that is right once it exists. Parts accept anything; `Config` looks at all of them when it is made
and raises one `ConfigError` with every fault and its path. What is legal but surprising is said by `warnings`, as data.
Must never read a file or the environment, nor know a provider by name.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence

from .account import (
    AccountConfig,
    account_problems,
    check_seconds,
)
from .costs import UNITS
from .errors import ConfigError
from .frozen import field, freeze, frozen_value
from .secret import Secret
from .transport_config import TransportConfig, transport_problems
from .validation import (
    URL_FOR_FILE,
    check_bool,
    check_choice,
    check_name,
    check_number,
    describe_type,
    did_you_mean,
    looks_like_url,
    misfit_in_words,
)

POLICIES = ("free_first", "cost_first", "least_busy", "declared_order", "best_first")
SERVERS = ("redis", "postgres")
STORES = ("memory", "sqlite", *SERVERS)
"""What a configuration can count in; `router_parts.store_for` opens each, the servers through `quota_url.open_store`."""
ON_STORE_ERROR = ("refuse", "ignore")
MAX_PLAUSIBLE_PRICE = 0.01  # dollars; ten thousand a million is more than any model costs


@frozen_value
class ModelRef:
    """One step of an alias: `model`, by the provider's own name for it, at the accounts of `provider`."""

    provider: str
    model: str


@frozen_value
class ModelMapping:
    """An alias: requests for `alias` go to `models`, tried in this order where the policy sees no difference."""

    alias: str
    models: Sequence[ModelRef]

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", freeze(self.models))


@frozen_value
class QuotaConfig:
    """Where use is counted. `store`: memory | sqlite | redis | postgres; `path`: the sqlite file, None with the others.

    `on_store_error`: what happens to a call when the store fails: refuse | ignore. For a server: `url` (a str or `Secret`, as it
    may hold a password), such as "redis://host:6379/0" or "postgresql://user@host/database"; `prefix`: of its keys, or its
    schema; `adopt_empty`: what happens when the server has lost its counts: False refuses each limit until its window has passed.
    """

    store: str = "memory"
    path: str | os.PathLike[str] | None = None
    on_store_error: str = "refuse"
    url: Secret | str | None = None
    prefix: str = "inferrouter"
    adopt_empty: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.url, str):
            object.__setattr__(self, "url", Secret(self.url) if self.url else None)


@frozen_value
class Config:
    """Everything a router is built from.

    `default_model`: alias or model of a request that names none, "": there is none. `policy`: free_first | cost_first |
    least_busy | declared_order | best_first. `attempt_timeout`: seconds one attempt may take. `max_wait`: seconds a call may
    sleep for a candidate to be free again, 0: not at all. `timeout`: seconds for a whole call, None: no bound but the
    attempts'. `idle_timeout`: longest silence of a stream in seconds, None: as `attempt_timeout`. `auth_errors`: what follows a
    refused key: raise | next; None: the next where the name is served by another account of that provider, else raise.
    `on_store_error`: refuse | ignore, None: the `quota`'s. `transport`: how connections are made and kept.

    Raises `ConfigError` that lists every problem of every part.
    """

    accounts: Sequence[AccountConfig] = ()
    models: Sequence[ModelMapping] = ()
    allow_paid: bool = False
    default_model: str = ""
    policy: str = "free_first"
    attempt_timeout: float = 120.0
    max_wait: float = 0.0
    timeout: float | None = None
    idle_timeout: float | None = None
    auth_errors: str | None = None
    on_store_error: str | None = None
    quota: QuotaConfig = field(default_factory=QuotaConfig)
    transport: TransportConfig = field(default_factory=TransportConfig)

    @classmethod
    def misfit(cls, names: Sequence[str]) -> ConfigError:
        """What to raise where settings `names` were given that do not fit; see `frozen`."""
        return ConfigError(misfit_in_words(cls.__name__, names, cls.__match_args__))

    def __post_init__(self) -> None:
        object.__setattr__(self, "accounts", freeze(self.accounts))
        object.__setattr__(self, "models", freeze(self.models))
        problems = [*_config_problems(self)]
        if problems:
            raise ConfigError(problems)

    def problems_with(self, known_providers: Collection[str]) -> list[str]:
        """A problem for each account whose provider is not among `known_providers` and that names no base_url."""
        return provider_problems(self.accounts, known_providers)

    def warnings(self, direct: Collection[str] = ()) -> tuple[str, ...]:
        """What is legal but surprising, each beginning with its path.

        `direct`: providers that can be reached by a model's own name, without an alias.
        """
        unused = "quota.path: is not used by the store 'memory'; counts are lost when the program ends"
        forgotten = (unused,) if self.quota.store == "memory" and self.quota.path is not None else ()
        empty = () if self.accounts else ("accounts: is empty, so no call can be made; add one",)
        return (*empty, *forgotten, *step_warnings(self), *_account_warnings(self, direct))


def provider_problems(accounts: Sequence[AccountConfig], known_providers: Collection[str]) -> list[str]:
    """See `Config.problems_with`; takes accounts that need not make a valid `Config`."""
    return [
        f"accounts[{i}].provider: {account.provider!r} is not a known provider{did_you_mean(account.provider, known_providers)}; "
        "correct it, give the account a base_url, or pass that provider to the router"
        for i, account in enumerate(accounts)
        if account.base_url is None and isinstance(account.provider, str) and account.provider not in known_providers
    ]


def _config_problems(config: Config) -> Iterator[str]:
    yield from _accounts_problems(config.accounts)
    yield from _models_problems(config.models)
    for setting, problem in (
        ("allow_paid", check_bool(config.allow_paid)),
        ("default_model", None if config.default_model == "" else check_name(config.default_model)),
        ("policy", check_choice(config.policy, POLICIES)),
        ("attempt_timeout", check_number(config.attempt_timeout, above=0.0, most=31_536_000)),
        ("max_wait", check_number(config.max_wait, most=31_536_000)),
        ("timeout", check_seconds(config.timeout)),
        ("idle_timeout", check_seconds(config.idle_timeout)),
        ("auth_errors", config.auth_errors and check_choice(config.auth_errors, ("raise", "next"))),
        ("on_store_error", config.on_store_error and check_choice(config.on_store_error, ON_STORE_ERROR)),
        *_quota_problems(config.quota),
        *transport_problems(config.transport),
    ):
        if problem:
            yield f"{setting}: {problem}"


def _quota_problems(quota: object) -> Iterator[tuple[str, str | None]]:
    if not isinstance(quota, QuotaConfig):
        yield "quota", f"must be a QuotaConfig, not {describe_type(quota)}"
        return
    yield "quota.store", check_choice(quota.store, STORES)
    yield "quota.adopt_empty", check_bool(quota.adopt_empty)
    if not isinstance(quota.prefix, str) or not quota.prefix:
        yield "quota.prefix", "must be a string such as 'inferrouter'"
    if quota.url is not None and not isinstance(quota.url, Secret):
        yield "quota.url", f"must be a string, not {describe_type(quota.url)}"
    elif quota.store in SERVERS and not quota.url:
        example = "redis://host:6379/0" if quota.store == "redis" else "postgresql://user@host/database"
        yield "quota.url", f"is needed with the store {quota.store!r}: name the server, such as {example!r}"
    yield "quota.on_store_error", check_choice(quota.on_store_error, ON_STORE_ERROR)
    if quota.path is not None and not isinstance(quota.path, (str, os.PathLike)):
        yield "quota.path", f"must be a string, not {describe_type(quota.path)}"
    elif quota.path is not None and looks_like_url(os.fspath(quota.path)):
        yield "quota.path", URL_FOR_FILE
    elif quota.store == "sqlite" and not (quota.path and os.fspath(quota.path)):
        yield "quota.path", "is needed with the store 'sqlite': name the file to count in"


def _accounts_problems(accounts: object) -> Iterator[str]:
    if not isinstance(accounts, tuple):
        yield f"accounts: must be a list of AccountConfig, not {describe_type(accounts)}"
        return
    first: dict[str, int] = {}
    leaders: dict[str, tuple[int, AccountConfig]] = {}
    for i, account in enumerate(accounts):
        path = f"accounts[{i}]"
        if not isinstance(account, AccountConfig):
            yield f"{path}: must be an AccountConfig, not {describe_type(account)}"
            continue
        yield from account_problems(account, path)
        if isinstance(account.id, str) and first.setdefault(account.id, i) != i:
            yield f"{path}.id: {account.id!r} is already the id of accounts[{first[account.id]}]"
        if isinstance(account.quota_group, str):
            leader, other = leaders.setdefault(account.quota_group, (i, account))
            yield from _group_problems(account, path, other, f"accounts[{leader}]")
    yield from _collisions([account for account in accounts if isinstance(account, AccountConfig)])


def _collisions(accounts: Sequence[AccountConfig]) -> Iterator[str]:
    """Names whose counts and holds would be kept under the same keys: an id like a group's, or like another account's model."""
    names: dict[str, str] = {}
    for i, account in enumerate(accounts):
        if isinstance(account.quota_group, str):
            names.setdefault(f"group:{account.quota_group}", f"accounts[{i}].quota_group")
    groups = dict(names)
    for i, account in enumerate(accounts):
        if isinstance(account.id, str):
            if account.id in groups:
                yield f"accounts[{i}].id: {account.id!r} stands for {groups[account.id]}; choose another id"
            names.setdefault(account.id, f"accounts[{i}].id")
    for name, path in names.items():
        owner = next((name[:at] for at, mark in enumerate(name) if mark == "|" and name[:at] in names), None)
        if owner is not None:
            model = name[len(owner) + 1 :]
            yield f"{path}: stands for the model {model!r} of {names[owner]}; choose a name without '|'"


def _group_problems(account: AccountConfig, path: str, other: AccountConfig, where: str) -> Iterator[str]:
    """What two accounts of one quota group declare differently, though they count in the same buckets."""
    for name in ("daily_free", "quota_unit", "max_daily_spend", "limits", "model_limits", "reset", "leave", "tpm_counts"):
        if getattr(account, name) != getattr(other, name):
            yield f"{path}.{name}: differs from {where}, which has the same quota_group {account.quota_group!r}"


def _models_problems(models: object) -> Iterator[str]:
    if not isinstance(models, tuple):
        yield f"models: must be a list of ModelMapping, not {describe_type(models)}"
        return
    first: dict[str, int] = {}
    for i, mapping in enumerate(models):
        path = f"models[{i}]"
        if not isinstance(mapping, ModelMapping):
            yield f"{path}: must be a ModelMapping, not {describe_type(mapping)}"
            continue
        problem = check_name(mapping.alias)
        if problem:
            yield f"{path}.alias: {problem}"
        elif first.setdefault(mapping.alias, i) != i:
            yield f"{path}.alias: {mapping.alias!r} is already the alias of models[{first[mapping.alias]}]"
        yield from _steps_problems(mapping.models, f"{path}.models")


def _steps_problems(steps: object, path: str) -> Iterator[str]:
    if not isinstance(steps, tuple):
        yield f"{path}: must be a list of ModelRef, not {describe_type(steps)}"
    elif not steps:
        yield f"{path}: must name at least one model"
    else:
        for i, step in enumerate(steps):
            if not isinstance(step, ModelRef):
                yield f"{path}[{i}]: must be a ModelRef, not {describe_type(step)}"
                continue
            for name in ("provider", "model"):
                problem = check_name(getattr(step, name))
                if problem:
                    yield f"{path}[{i}].{name}: {problem}"


def step_warnings(config: Config) -> Iterator[str]:
    """A warning for each step of an alias at whose provider there is no account."""
    providers = {account.provider for account in config.accounts}
    for i, mapping in enumerate(config.models):
        for j, step in enumerate(mapping.models):
            if step.provider not in providers:
                yield (
                    f"models[{i}].models[{j}].provider: no account of provider {step.provider!r}"
                    f"{did_you_mean(step.provider, providers)}, so this step of {mapping.alias!r} is never taken"
                )


def _account_warnings(config: Config, direct: Collection[str]) -> Iterator[str]:
    reachable = {step.provider for mapping in config.models for step in mapping.models} | set(direct)
    first: dict[object, int] = {}
    for i, account in enumerate(config.accounts):
        same = first.setdefault((account.provider, account.base_url, account.auth.api_key), i) if account.auth.api_key else i
        if same != i and _counted_apart(account, config.accounts[same]):
            yield (
                f"accounts[{i}].auth: holds the same key as accounts[{same}], so that each counts by itself what the provider "
                "counts together: leave one out, or give both one quota_group"
            )
        for setting, surprise in _surprises(account, config.allow_paid):
            yield f"accounts[{i}].{setting}: {surprise}"
        if account.provider not in reachable:
            yield (
                f"accounts[{i}].provider: no alias names {account.provider!r} and it declares no models, so only "
                f"requests for {account.provider}/<model> reach account {account.id!r}"
            )


def _counted_apart(one: AccountConfig, other: AccountConfig) -> bool:
    """Whether both count the same kind of thing, each in buckets of its own."""
    if one.quota_group is not None and one.quota_group == other.quota_group:
        return False
    return (one.daily_free is not None and other.daily_free is not None) or bool(
        (one.limit_rows and other.limit_rows) or set(one.model_limits) & set(other.model_limits)
    )


def _surprises(account: AccountConfig, allow_paid: bool) -> Iterator[tuple[str, str]]:
    who = f"account {account.id!r}"
    if account.max_daily_spend is not None and not account.paid_enabled:
        yield "max_daily_spend", f"{who} has a spend cap, but paid_enabled is false, so it is never used beyond what is free"
    elif account.paid_enabled and not account.is_priced:
        yield "paid_enabled", f"paid {who} has no price, so its cost counts as 0 and it is tried after priced ones"
    if account.quota_unit == "dollars" and account.daily_free is not None and not account.is_priced:
        yield "daily_free", f"{who} has an allowance in dollars but no price, so it is never used up"
    if account.daily_free and UNITS[account.quota_unit].often_none:
        yield "quota_unit", f"the allowance of {who} counts {account.quota_unit} alone: calls without any never use it up"
    if account.paid_enabled and not allow_paid:
        yield "paid_enabled", f"allow_paid is false, so {who} is never used beyond what is free"
    if account.daily_free == 0 and not account.paid_enabled:
        yield "daily_free", f"{who} has nothing free and paid_enabled is false, so it is never used"
    if account.has_price and account.daily_free is None and not account.paid_enabled:
        yield "cost_per_input_token", f"{who} has a price but neither daily_free nor paid_enabled: it counts as free"
    if max(account.cost_per_input_token or 0, account.cost_per_output_token or 0) > MAX_PLAUSIBLE_PRICE:
        yield "cost_per_input_token", f"the price of {who} is in dollars per token; is it meant per million tokens?"
