"""Resolves model names to deployments and their limits.

Strategy: everything that does not change from call to call is worked out once and kept: a `Deployment` is one model at one
account, a `Route` the deployments that serve a name, in declared order. A typo never widens a route. Must never know what is used
or held now.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .account import CATALOG, AccountConfig
from .agreement import UNLIMITED, Agreement
from .answer_sizes import AnswerSize, AnswerSizes
from .bound_account import BoundAccount, bind
from .catalog import ALIASES, offer, own_names
from .catalog import capabilities as known_capabilities
from .catalog_prices import list_price
from .config import Config
from .content import MEDIA_KINDS
from .costs import UNITS, Estimate, Prices, Unit, blended_price, new_estimate
from .errors import ConfigError, UnknownModelError
from .frozen import EMPTY, field, frozen_value
from .guarded_store import GuardedStore
from .limit_rows import LimitRow
from .limits import CALENDAR, Limit
from .provider import Provider
from .quota import Bucket, Headroom, allowance_key
from .quota_seen import Groups
from .spelling import LONGEST_SHOWN, misspelt
from .transport import Transport

MEDIA = frozenset(MEDIA_KINDS)
MAX_CACHED_NAMES = 10_000
_WILD = frozenset("*?[")


class Deployment:
    """One model at one account. Keys come with their units; `price` is blended dollars per token, None if not stated.

    `limits`: of each unit and window (in seconds) the bucket that a provider means by it: the model's own before the account's.
    `siblings`: the models that share the account's own buckets, as far as they were asked for.
    `allowance_key` is looked at by every call; `allowance` is that key with its unit, None while it counts no amount.
    `spends`: what is counted of its paid use in a day, with its units. `foreign`: allowances that hold for others alone.
    `answers`: how long its model's answers were; `token_ceiling`: the most tokens a call may need to fit into a whole limit.
    `hold_keys`: where a hold keeps chats from it, `embed_hold_keys` embeddings.
    `counted`: what the store counts as its allowance, once it was seen to be what is stated, unless `foreign` says otherwise.
    `free_charges`, `paid_charges`: the buckets of such calls, each with all that its unit says; `holds_places`: whether one of
    them counts calls under way.
    """

    __slots__ = (
        "allowance",
        "allowance_key",
        "answers",
        "bound",
        "bucket_keys",
        "capabilities",
        "counted",
        "embed_hold_keys",
        "foreign",
        "free_buckets",
        "free_charges",
        "hold_keys",
        "holds_places",
        "limits",
        "model",
        "paid_buckets",
        "paid_charges",
        "price",
        "prices",
        "siblings",
        "spends",
        "token_ceiling",
    )

    def __init__(
        self,
        bound: BoundAccount,
        model: str,
        hard: Sequence[tuple[str, str]],
        foreign: Mapping[str, Limit] = EMPTY,
        answers: AnswerSize | None = None,
        token_ceiling: float = UNLIMITED,
    ) -> None:
        account = bound.account
        self.limits: Mapping[tuple[str, float], Bucket] = {}
        self.siblings: set[str] = {model}
        self.bound = bound
        self.model = model
        self.foreign = foreign
        self.allowance_key = allowance_key(bound.scope)
        self.allowance = None if account.daily_free is None else (self.allowance_key, account.quota_unit)
        self.spends = tuple([(bucket.key, bucket.limit.unit) for bucket in _spend_buckets(bound)])
        self.paid_buckets = (*hard, *self.spends)
        self.paid_charges = _charges(self.paid_buckets)
        self.holds_places = any(unit.held for _, unit in self.paid_charges)
        self.free_buckets = (*((self.allowance,) if self.allowance else ()), *hard)
        self.free_charges = _charges(self.free_buckets)
        self.bucket_keys = tuple(dict.fromkeys((self.allowance_key, *(key for key, _ in self.paid_buckets))))
        ids = dict.fromkeys((account.id, bound.scope))
        shared = (*ids, bound.access, *(f"{name}|{model}" for name in ids))
        self.hold_keys = (*shared, f"{bound.access}|{model}")
        self.embed_hold_keys = (*shared, f"{bound.embed_access}|{model}")
        self.prices = prices_of(account, model)
        self.price = blended_price(self.prices)
        self.capabilities = _capabilities(account, model)
        self.answers = answers or AnswerSizes().of(account.provider, model)
        self.token_ceiling = token_ceiling
        self.counted: Limit | None = None

    @property
    def tier(self) -> int | None:
        """The model's quality in the catalog, from 1, the best, to 5; None where nobody has said."""
        found = offer(self.bound.account.provider, self.model)
        return None if found is None else found.tier

    def expected(self, estimate: Estimate) -> Estimate:
        """`estimate` for this model: where nobody bounds the answer, what its answers use, within what its limits allow."""
        if not estimate.open_answers:
            return estimate
        answers, ceiling = self.answers, self.token_ceiling
        reserve, last = answers.reserve, answers.fitted
        if last[0] is estimate and last[1] == reserve and last[2] == ceiling:
            return last[3]
        output, room = reserve * estimate.open_answers, ceiling - estimate.input_tokens
        if not 1 <= output <= room:
            output = int(max(min(output, room), 1))
        media, inputs, images, audio_s = estimate.media, estimate.inputs, estimate.images, estimate.audio_s
        made = new_estimate(estimate.input_tokens, output, media, inputs, images, audio_s, estimate.open_answers)
        answers.fitted = estimate, reserve, ceiling, made
        return made

    def with_allowance(self, allowed: Limit) -> Deployment:
        """This deployment under the allowance that the store counts now, which `set_quota` may have changed: mostly itself."""
        ignored = allowed.amount == UNLIMITED or (self.foreign and self.foreign.get(self.allowance_key) == allowed)
        unit = None if ignored else allowed.unit
        if unit == (self.allowance[1] if self.allowance else None):
            self.counted = allowed
            return self
        other = copy.copy(self)
        other.allowance = None if unit is None else (self.allowance_key, unit)
        if unit == "tokens":
            other.token_ceiling = min(self.token_ceiling, allowed.amount)
        hard = self.free_buckets[1:] if self.allowance else self.free_buckets
        other.free_buckets = (*((other.allowance,) if other.allowance else ()), *hard)
        other.free_charges = _charges(other.free_buckets)
        return other


@frozen_value
class Route:
    """What serves a name: deployments in declared order, and every bucket and hold they look at, each once.

    `groups`: the buckets of each deployment. `users`: which deployments, by place, look at a hold or an account of that name.
    `memo`: what `kept_assessments` keeps.
    """

    name: str
    deployments: tuple[Deployment, ...]
    bucket_keys: tuple[str, ...]
    hold_keys: tuple[str, ...] = field(repr=False, compare=False)
    users: Mapping[str, tuple[int, ...]] = field(repr=False, compare=False)
    groups: Groups = field(repr=False, compare=False)
    memo: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)


def route_over(name: str, deployments: Iterable[Deployment]) -> Route:
    """The route of `name` over `deployments`."""
    chosen = tuple(deployments)
    users: dict[str, list[int]] = {}
    for place, deployment in enumerate(chosen):
        for key in {*deployment.hold_keys, *deployment.embed_hold_keys, deployment.bound.account.id}:
            users.setdefault(key, []).append(place)
    groups = Groups([deployment.bucket_keys for deployment in chosen])
    hold_keys = tuple(dict.fromkeys(key for deployment in chosen for key in deployment.hold_keys))
    return Route(name, chosen, groups.keys, hold_keys, {key: tuple(places) for key, places in users.items()}, groups)


class RouteTable:
    """Every account of a router with its deployments. `resolve` is thread-safe; `known`: the routes of names it was asked for."""

    def __init__(self, config: Config, providers: Mapping[str, Provider], transport: Transport, ledger: GuardedStore) -> None:
        self._config = config
        self._ledger = ledger
        self.agreement = Agreement(ledger)
        self.known: dict[str, Route] = {}
        self._deployments: dict[tuple[str, str], Deployment] = {}
        self._models: dict[str, set[str]] = {}
        self._sizes = AnswerSizes()
        self._aliases = {mapping.alias: mapping.models for mapping in config.models}
        self.providers = dict(providers)
        self.bound_accounts = tuple(bind(account, self.providers[account.provider], transport) for account in config.accounts)

    def define_limits(self, now: float, say: Callable[[str, str], None] | None = None) -> None:
        """Tell the ledger every bucket that is known beforehand. `say` is told, as a key and a sentence, what the ledger counted
        otherwise until now. Raises `QuotaStoreError`."""
        for bound in self.bound_accounts:
            for text in self.agreement.define(_account_buckets(bound), now):
                if say is not None:
                    say(text, text)
            key = allowance_key(bound.scope)
            counted = self.agreement.counted(key, now)
            if counted is not None:  # what `set_quota` said, for the store that takes over if this one fails
                self._ledger.define((Bucket(key, counted),), now)

    def resolve(self, name: str, now: float, max_wait: float | None = None) -> Route:
        """The route of an alias, a declared model, or provider/model; "" is the default model.

        `max_wait`: seconds to wait for the store, None: as it likes. Raises `UnknownModelError`, `QuotaStoreError`.
        """
        name = name or self._config.default_model
        route = self.known.get(name)
        if route is None:
            steps = self._steps(name)
            if len(self._deployments) > MAX_CACHED_NAMES:  # a provider that takes any name may be asked for ever new ones
                self.known, self._deployments, self._models, self._sizes = {}, {}, {}, AnswerSizes()
            deployments = [
                self._deployment(bound, model, now, max_wait) for provider, model in steps for bound in self._at(provider)
            ]
            route = self.known.setdefault(name, route_over(name, deployments))  # of threads that come at once, the first one's
        return route

    def left_to_others(self, bound: BoundAccount) -> dict[str, float]:
        """How much of each limit of an account is left to its owner's other programs, by key."""
        account = bound.account
        scopes = [(bound.scope, account.limit_rows)]
        models = [deployment.model for deployment in list(self._deployments.values()) if deployment.bound is bound]
        scopes += [(f"{bound.scope}|{model}", account.model_limit_rows(model)) for model in models]
        found = {f"{scope}/{row.name}": row.leave for scope, rows in scopes for row in rows if row.leave}
        if account.daily_free is not None and account.free_a_day != account.daily_free:
            found[allowance_key(bound.scope)] = account.daily_free - (account.free_a_day or 0.0)
        return found

    def own_headrooms(self, headrooms: Iterable[Headroom]) -> list[Headroom]:
        """Those of `headrooms` that apply here: all but allowances that only another configuration states."""
        foreign = self.agreement.foreign
        return [each for each in headrooms if each.key not in foreign or each.limit != foreign[each.key]]

    def named_deployments(self, now: float) -> list[Deployment]:
        """Every deployment that the default model or an alias has; of an account that none reaches, one for each model that its
        limits name, or one that stands for any model. Raises `QuotaStoreError`."""
        names = [*filter(None, (self._config.default_model,)), *self._aliases]
        found: dict[tuple[str, str], Deployment] = {}
        for name in names:
            try:
                deployments = self.resolve(name, now).deployments
            except UnknownModelError:
                continue
            for each in deployments:
                found.setdefault((each.bound.account.id, each.model), each)
        reached = {account_id for account_id, _ in found}
        for bound in self.bound_accounts:
            if bound.account.id not in reached:
                models = [model for model in bound.account.model_limits if model != "*"] or [""]
                found |= {(bound.account.id, model): self._deployment(bound, model, now) for model in models}
        return list(found.values())

    def keys_of(self, bound: BoundAccount) -> tuple[str, ...]:
        """Every bucket of an account that is known so far."""
        own = [bucket.key for bucket in _account_buckets(bound)]
        used = [
            key
            for (owner, _), deployment in list(self._deployments.items())
            if owner == bound.account.id
            for key in deployment.bucket_keys
        ]
        return tuple(dict.fromkeys((*own, *used)))

    def names(self) -> tuple[str, ...]:
        """Every name that is known to lead somewhere: aliases, then models that aliases or accounts name, each once."""
        steps = [step.model for steps in self._aliases.values() for step in steps]
        stated = [name for bound in self.bound_accounts for name in bound.account.model_limits if name != "*"]
        offered = [getattr(provider, "models", None) for provider in self.providers.values()]
        declared = [name for names in offered if isinstance(names, tuple) for name in names if not _WILD.intersection(name)]
        default = [self._config.default_model] if self._config.default_model else []
        return tuple(dict.fromkeys([*self._aliases, *default, *steps, *stated, *declared]))

    def hold_owners(self, account_id: str) -> tuple[str, ...]:
        """What the keys of an account's holds begin with: see `BoundAccount.hold_owners`. Raises `ConfigError`."""
        for bound in self.bound_accounts:
            if bound.account.id == account_id:
                return bound.hold_owners
        raise ConfigError(
            f"account {account_id!r} is not configured; known: {', '.join(b.account.id for b in self.bound_accounts)}"
        )

    def directly_addressable(self) -> frozenset[str]:
        """Names of the providers that can be reached by a model's own name."""
        open_ones = [name for name, provider in self.providers.items() if _declares_nothing(provider)]
        return frozenset(name for name in self.providers if name not in open_ones or open_ones == [name])

    def _steps(self, name: str) -> Sequence[tuple[str, str]]:
        if name in self._aliases:
            return list(dict.fromkeys([(step.provider, step.model) for step in self._aliases[name]]))
        mentioned = [(step.provider, step.model) for steps in self._aliases.values() for step in steps if step.model == name]
        declared = [(key, name) for key, provider in self.providers.items() if _declares(key, provider, name)]
        found = list(dict.fromkeys([*mentioned, *declared]))
        if found:
            return found
        provider, slash, model = name.partition("/")
        if slash and model and provider in self.providers:
            return [(provider, model)]
        takes_any = [key for key, candidate in self.providers.items() if _declares_nothing(candidate)]
        if name and len(takes_any) == 1 and name not in self.providers:
            meant = self._meant_by(name)
            if not meant:
                return [(takes_any[0], name)]
            written = f"{takes_any[0]}/{name}" if len(name) <= LONGEST_SHOWN else f"{takes_any[0]}/ before it"
            raise UnknownModelError(name, meant, f"If it is not misspelt, write {written}.")
        from .unknown_names import unknown_model

        by_variables = any(bound.account.auth.variable for bound in self.bound_accounts)
        raise unknown_model(name, self._aliases, self.providers, by_variables)

    def _meant_by(self, name: str) -> list[str]:
        """What `name`, which a provider would take as it takes any, may be a misspelling of."""
        listed = [entry for provider in self.providers.values() for entry in getattr(provider, "models", None) or ()]
        plain = [entry for entry in listed if not any(mark in entry for mark in "*?[")]
        steps = [step.model for models in self._aliases.values() for step in models]
        own = [model for key in self.providers for model in own_names(key)]
        known = dict.fromkeys([*self._aliases, *steps, *plain, *own])
        patterns = [entry for entry in listed if entry not in plain]
        return misspelt(name, known, patterns)

    def _at(self, provider: str) -> Iterable[BoundAccount]:
        return (bound for bound in self.bound_accounts if bound.account.provider == provider)

    def _deployment(self, bound: BoundAccount, model: str, now: float, max_wait: float | None = None) -> Deployment:
        key = (bound.account.id, model)
        deployment = self._deployments.get(key)
        if deployment is None:
            buckets = _model_buckets(bound, model)
            if buckets:
                self.agreement.define(buckets, now, max_wait)
            own = _limit_buckets(bound, bound.account.limit_rows, bound.scope)
            hard = [(bucket.key, bucket.limit.unit) for bucket in (*own, *buckets)]
            sizes = [bucket.limit.amount for bucket in (*own, *buckets) if bucket.limit.unit == "tokens"]
            if bound.account.quota_unit == "tokens" and bound.account.free_a_day is not None and not bound.account.paid_enabled:
                sizes.append(bound.account.free_a_day)
            answers = self._sizes.of(bound.account.provider, model)
            made = Deployment(bound, model, hard, self.agreement.foreign, answers, min(sizes, default=UNLIMITED))
            made.limits = _by_window(bound, made, buckets)
            made.siblings = self._models.setdefault(bound.scope, set())
            made.siblings.add(model)
            deployment = self._deployments.setdefault(key, made)
        return deployment


def _charges(buckets: Iterable[tuple[str, str]]) -> tuple[tuple[str, Unit], ...]:
    return tuple([(key, UNITS[unit]) for key, unit in buckets])


def _by_window(bound: BoundAccount, made: Deployment, own: Sequence[Bucket]) -> dict[tuple[str, float], Bucket]:
    """The buckets of `made` by unit and window: the model's `own` before the account's, and the allowance last."""
    spends = [key for key, _ in made.spends]
    counted = [bucket for bucket in _account_buckets(bound) if bucket.key not in spends and bucket.limit.amount != UNLIMITED]
    counted.sort(key=lambda bucket: bucket.key != made.allowance_key)
    found = {(bucket.limit.unit, bucket.limit.span_s): bucket for bucket in (*counted, *own)}
    for (unit, span), bucket in list(found.items()):
        if unit == "input_tokens":  # what its provider calls tokens, where only these count
            found.setdefault(("tokens", span), bucket)
    return found


def _account_buckets(bound: BoundAccount) -> list[Bucket]:
    account = bound.account
    buckets = _limit_buckets(bound, account.limit_rows, bound.scope)
    free = _limit(account, _amount(account.free_a_day), account.quota_unit, "day")
    buckets.append(Bucket(allowance_key(bound.scope), free))
    return [*buckets, *_spend_buckets(bound)]


def _amount(stated: float | None) -> float:
    return UNLIMITED if stated is None else stated


def _model_buckets(bound: BoundAccount, model: str) -> list[Bucket]:
    return _limit_buckets(bound, bound.account.model_limit_rows(model), f"{bound.scope}|{model}")


def _limit_buckets(bound: BoundAccount, rows: Sequence[LimitRow], scope: str) -> list[Bucket]:
    return [Bucket(f"{scope}/{row.name}", _limit(bound.account, row.amount - row.leave, row.unit, row.window)) for row in rows]


def _limit(account: AccountConfig, amount: float, unit: str, window: str) -> Limit:
    if account.reset == "rolling":
        return Limit(amount, unit, window, rolling=True)
    return Limit(amount, unit, window, zone=account.reset if window in CALENDAR else "UTC")


def _spend_buckets(bound: BoundAccount) -> list[Bucket]:
    """What is counted of an account's paid use in a UTC day: each unit that is capped, and dollars where they are known."""
    account = bound.account
    if not account.paid_enabled:
        return []
    caps = {**({"dollars": UNLIMITED} if account.is_priced else {}), **account.spend_caps}
    return [
        Bucket(f"{bound.scope}/spend" + ("" if unit == "dollars" else f"_{unit}"), Limit(amount, unit, "day"))
        for unit, amount in caps.items()
    ]


def _capabilities(account: AccountConfig, model: str) -> frozenset[str] | None:
    stated = account.capabilities
    if isinstance(stated, Mapping):
        stated = stated.get(model, stated.get("*"))
    if stated is None:
        return known_capabilities(account.provider, model)
    # A list of media alone says nothing of tools; one that names text, tools or json is meant to be complete.
    return frozenset(stated) | ({"text", "tools", "json"} if MEDIA.issuperset(stated) else frozenset())


def prices_of(account: AccountConfig, model: str) -> Prices:
    """What `model` costs at an account: as stated there, else as the catalog says, where it is asked."""
    if account.has_price or account.prices != CATALOG:
        return account
    return list_price(ALIASES.get(account.provider, account.provider), model) or account


def _declares(key: str, provider: Provider, name: str) -> bool:
    """Whether the provider says so, or the catalog does of one that says nothing."""
    found = provider.declares(name)
    return name in own_names(key) if found is None else found


def _declares_nothing(provider: Provider) -> bool:
    return provider.declares("") is None
