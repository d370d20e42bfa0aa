"""Who there is: accounts joined with their providers, names resolved to them, and which buckets a call at each must pass.

Strategy: everything that does not change from call to call is worked out once and kept: a `Slot` is one model at one account, a
`Plan` the slots that serve a name, in declared order. A typo never widens a plan. Must never know what is used or held now.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from .catalog import capabilities as known_capabilities
from .config import LIMIT_KEYS, AccountConfig, Config
from .content import MEDIA_KINDS
from .errors import UnknownModelError
from .ledger import Ledger
from .limits import Limit
from .provider import Endpoint, Provider
from .quota import Bucket, allowance_key
from .records import Usage
from .transport import Transport

__all__ = ["NO_CAP", "Plan", "Roster", "Seat", "Slot", "cost_of"]

MEDIA = frozenset(MEDIA_KINDS)
MOST_NAMES = 10_000
NO_CAP = 1e15
"""A day's amount where none is stated: counts what is spent without a cap, and stands where an allowance may yet be set."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One account, ready to be called. `scope` names its buckets: the account's, or its quota group's."""

    account: AccountConfig
    provider: Provider
    endpoint: Endpoint
    wire: Transport = field(repr=False)
    order: int
    scope: str


class Slot:
    """One model at one account. Keys come with their units; `price` is blended dollars per token, None if not stated.

    `allowance_key` is looked at by every call; `allowance` is that key with its unit, None while it counts no amount.
    """

    __slots__ = (
        "allowance",
        "allowance_key",
        "can",
        "free_keys",
        "hold_keys",
        "model",
        "paid_keys",
        "price",
        "room_keys",
        "seat",
        "spend",
    )

    def __init__(self, seat: Seat, model: str, hard: Sequence[tuple[str, str]]) -> None:
        account = seat.account
        self.seat = seat
        self.model = model
        self.allowance_key = allowance_key(seat.scope)
        self.allowance = None if account.daily_free is None else (self.allowance_key, account.quota_unit)
        self.spend = _spend_key(seat)
        self.paid_keys = (*hard, *(((self.spend, "dollars"),) if self.spend else ()))
        self.free_keys = (*((self.allowance,) if self.allowance else ()), *hard)
        self.room_keys = tuple(dict.fromkeys((self.allowance_key, *(key for key, _ in self.paid_keys))))
        ids = dict.fromkeys((account.id, seat.scope))
        self.hold_keys = (*ids, *(f"{name}|{model}" for name in ids))
        self.price = blended_price(account)
        self.can = _capabilities(account, model)

    def counting(self, allowed: Limit) -> Slot:
        """This slot under the allowance that the store counts now, which `set_quota` may have changed: mostly itself."""
        unit = None if allowed.amount == NO_CAP else allowed.unit
        if unit == (self.allowance and self.allowance[1]):
            return self
        other = copy.copy(self)
        other.allowance = None if unit is None else (self.allowance_key, unit)
        hard = self.free_keys[1:] if self.allowance else self.free_keys
        other.free_keys = (*((other.allowance,) if other.allowance else ()), *hard)
        return other


@dataclass(frozen=True, slots=True)
class Plan:
    """What serves a name: slots in declared order, and every bucket of theirs, each once."""

    name: str
    slots: tuple[Slot, ...]
    room_keys: tuple[str, ...]


class Roster:
    """All seats of a router. `resolve` is thread-safe and cached."""

    def __init__(self, config: Config, providers: Mapping[str, Provider], transport: Transport, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self._lock = threading.Lock()
        self._plans: dict[str, Plan] = {}
        self._slots: dict[tuple[str, str], Slot] = {}
        self._aliases = {mapping.alias: mapping.models for mapping in config.models}
        self.providers = dict(providers)
        self.seats = tuple(
            _seat(account, self.providers[account.provider], transport, order) for order, account in enumerate(config.accounts)
        )

    def open(self, now: float) -> None:
        """Tell the ledger every bucket that is known beforehand. Raises `QuotaStoreError`."""
        for seat in self.seats:
            self._ledger.define(_account_buckets(seat), now)
            key = allowance_key(seat.scope)
            counted = self._ledger.limit_of(key, now)
            if counted is not None:  # what `set_quota` said, for the store that takes over if this one fails
                self._ledger.define((Bucket(key, counted),), now)

    def resolve(self, name: str, now: float) -> Plan:
        """The plan of an alias, a declared model, or provider/model; "" is the default model. Raises `UnknownModelError`."""
        name = name or self._config.default_model
        plan = self.known(name)
        if plan is None:
            steps = self._steps(name)
            with self._lock:
                if len(self._slots) > MOST_NAMES:  # a provider that takes any name may be asked for ever new ones
                    self._plans, self._slots = {}, {}
                slots = tuple(self._slot(seat, model, now) for provider, model in steps for seat in self._at(provider))
                keys = tuple(dict.fromkeys(key for slot in slots for key in slot.room_keys))
                plan = self._plans[name] = Plan(name, slots, keys)
        return plan

    def known(self, name: str) -> Plan | None:
        """The plan of a name that was resolved before; takes no lock."""
        return self._plans.get(name or self._config.default_model)

    def keys_of(self, seat: Seat) -> tuple[str, ...]:
        """Every bucket of an account that is known by now."""
        own = [bucket.key for bucket in _account_buckets(seat)]
        used = [key for (owner, _), slot in list(self._slots.items()) if owner == seat.account.id for key in slot.room_keys]
        return tuple(dict.fromkeys((*own, *used)))

    def direct(self) -> frozenset[str]:
        """Names of the providers that can be reached by a model's own name."""
        open_ones = [name for name, provider in self.providers.items() if _declares_nothing(provider)]
        return frozenset(name for name in self.providers if name not in open_ones or open_ones == [name])

    def _steps(self, name: str) -> Sequence[tuple[str, str]]:
        if name in self._aliases:
            return [(step.provider, step.model) for step in self._aliases[name]]
        mentioned = [(step.provider, step.model) for steps in self._aliases.values() for step in steps if step.model == name]
        declared = [(key, name) for key, provider in self.providers.items() if provider.declares(name)]
        found = list(dict.fromkeys([*mentioned, *declared]))
        if found:
            return found
        provider, slash, model = name.partition("/")
        if slash and model and provider in self.providers:
            return [(provider, model)]
        takes_any = [key for key, candidate in self.providers.items() if _declares_nothing(candidate)]
        if name and len(takes_any) == 1 and name not in self.providers:
            return [(takes_any[0], name)]
        raise UnknownModelError(name, self._suggestions(name))

    def _suggestions(self, name: str) -> list[str]:
        known = dict.fromkeys([*self._aliases, *(step.model for steps in self._aliases.values() for step in steps)])
        close = get_close_matches(name, list(known), n=3, cutoff=0.5)
        return list(dict.fromkeys([*close, *known]))

    def _at(self, provider: str) -> Iterable[Seat]:
        return (seat for seat in self.seats if seat.account.provider == provider)

    def _slot(self, seat: Seat, model: str, now: float) -> Slot:
        key = (seat.account.id, model)
        slot = self._slots.get(key)
        if slot is None:
            buckets = _model_buckets(seat, model)
            if buckets:
                self._ledger.define(buckets, now)
            hard = [
                (bucket.key, bucket.limit.unit) for bucket in (*_limit_buckets(seat, seat.account.limits, seat.scope), *buckets)
            ]
            slot = self._slots[key] = Slot(seat, model, hard)
        return slot


def blended_price(account: AccountConfig) -> float | None:
    """Dollars per token, an answer being taken for twice as long as its question; None if no price is stated."""
    if not account.has_price:
        return None
    return ((account.cost_per_input_token or 0.0) + 2 * (account.cost_per_output_token or 0.0)) / 3


def cost_of(account: AccountConfig, usage: Usage) -> float:
    """Dollars that `usage` costs on `account` at its stated prices; cached and media input at theirs where they have one."""
    base = account.cost_per_input_token or 0.0
    plain = usage.prompt_tokens
    cost = 0.0
    breakdown = usage.input_breakdown
    for count, price in (
        (usage.cached_tokens, account.cost_per_cached_input_token),
        (breakdown.get("audio", 0), account.cost_per_audio_input_token),
        (breakdown.get("image", 0), account.cost_per_image_input_token),
        (breakdown.get("video", 0), account.cost_per_video_input_token),
    ):
        if price is not None and count:
            part = min(count, plain)
            plain -= part
            cost += part * price
    return cost + plain * base + usage.completion_tokens * (account.cost_per_output_token or 0.0)


def _seat(account: AccountConfig, provider: Provider, transport: Transport, order: int) -> Seat:
    base = (account.base_url or provider.base_url).rstrip("/")
    scope = f"group:{account.quota_group}" if account.quota_group else account.id
    endpoint = Endpoint(base, account.auth.api_key, account.headers)
    return Seat(account, provider, endpoint, getattr(provider, "wire", None) or transport, order, scope)


def _account_buckets(seat: Seat) -> list[Bucket]:
    account = seat.account
    buckets = _limit_buckets(seat, account.limits, seat.scope)
    free = _limit(account, _amount(account.daily_free), account.quota_unit, "day")
    buckets.append(Bucket(allowance_key(seat.scope), free))
    spend = _spend_key(seat)
    if spend is not None:
        buckets.append(Bucket(spend, Limit(_amount(account.max_daily_spend), "dollars", "day")))
    return buckets


def _amount(stated: float | None) -> float:
    return NO_CAP if stated is None else stated


def _model_buckets(seat: Seat, model: str) -> list[Bucket]:
    limits = seat.account.model_limits
    own = limits.get(model, limits.get("*"))
    return _limit_buckets(seat, own, f"{seat.scope}|{model}") if own else []


def _limit_buckets(seat: Seat, limits: Mapping[str, float], scope: str) -> list[Bucket]:
    return [
        Bucket(f"{scope}/{name}", _limit(seat.account, amount, *unit_window))
        for name, amount in limits.items()
        if (unit_window := LIMIT_KEYS[name])
    ]


def _limit(account: AccountConfig, amount: float, unit: str, window: str) -> Limit:
    if account.reset == "rolling":
        return Limit(amount, unit, window, rolling=True)
    return Limit(amount, unit, window, zone=account.reset if window in ("day", "month") else "UTC")


def _spend_key(seat: Seat) -> str | None:
    account = seat.account
    counted = account.paid_enabled and (account.max_daily_spend is not None or account.has_price)
    return f"{seat.scope}/spend" if counted else None


def _capabilities(account: AccountConfig, model: str) -> frozenset[str] | None:
    stated = account.capabilities
    if isinstance(stated, Mapping):
        stated = stated.get(model, stated.get("*"))
    if stated is None:
        return known_capabilities(account.provider, model)
    # A list of media alone says nothing of tools; one that names text, tools or json is meant to be complete.
    return frozenset(stated) | ({"text", "tools", "json"} if MEDIA.issuperset(stated) else frozenset())


def _declares_nothing(provider: Provider) -> bool:
    return provider.declares("") is None
