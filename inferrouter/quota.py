"""Defines the quota store: every limit of a call is reserved in one step, and settled once with what was really used.

Strategy: a store's methods work in one step each, over buckets that are named by a key and counted by a `Limit`.
A refused reservation writes nothing. A reservation names its windows, so that settling late never touches a newer one;
one that is never settled (a crash) stays charged until its windows pass. Stores take `now` (epoch seconds) from the caller, never
read a clock, and never call back. Must never know of providers, requests or keys to an API.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol, runtime_checkable

from .costs import UNITS
from .errors import ConfigError
from .frozen import NamedTuple, frozen_value, shown_once_made
from .limits import Limit
from .quota_learned import Learned, Observation

LONGEST_HOLD = 35 * 86400.0
"""Seconds; a hold never lasts longer than this, whatever a provider or a wrong clock says."""

FORGET_HOLDS_S = 2 * 86400.0
"""Seconds after which a store may forget a hold that is over: a clock may step back by as much and still find it."""

PLACE_WAIT_S = 0.5
"""Seconds until a call that found all places of a `parallel` limit taken looks again: no clock says when one is free."""

Wants = Sequence[tuple[str, float]]


@frozen_value
class Bucket:
    """What is counted under one key, and its limit. Several accounts share a bucket by naming the same key."""

    key: str
    limit: Limit


class Headroom(NamedTuple):
    """How full a bucket is. `share`: remaining / amount, 0.0 where the amount is 0.

    `used` and `remaining` are in the limit's unit; `used` may exceed the amount, `remaining` never falls below 0.
    `resets_at`: epoch seconds when something of it frees, None if nothing is used.
    """

    key: str
    limit: Limit
    used: float
    remaining: float
    share: float
    resets_at: float | None


@frozen_value
class Refusal:
    """The bucket that refused a reservation; where several did, the one that frees last. Places of calls under way may be free
    at any moment, so they count as free after `PLACE_WAIT_S`.

    `needed` and `remaining` are in the limit's unit. `retry_at`: epoch seconds when it will fit if nothing else is
    taken; None means never, as it is larger than the whole bucket.
    """

    key: str
    limit: Limit
    needed: float
    remaining: float
    retry_at: float | None

    def __str__(self) -> str:
        needed = self.limit.quantity(self.needed)
        if self.retry_at is None:
            return f"needs {needed}, more than the whole limit of {self.limit}"
        if UNITS[self.limit.unit].held:
            return f"{self.limit}, and all are under way"
        left = self.limit.quantity(self.remaining).split(" ")[0]
        frees = datetime.fromtimestamp(math.ceil(self.retry_at), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{left} of {self.limit} left, needs {needed}: frees at {frees}"


@frozen_value
class Hold:
    """`key` (an account, or one of its models) is held until `until` (epoch seconds), because of `reason`."""

    key: str
    until: float
    reason: str


class Reservation:
    """What was taken, and from which windows. Opaque to callers: hand it back to `commit` or `rollback` of its store."""

    __slots__ = ("id", "limits", "settled", "until", "wants", "window_ids")

    def __init__(self, ident: int, wants: Wants, window_ids: Sequence[float | None], limits: Sequence[Limit] = ()) -> None:
        self.id = ident
        self.wants = wants
        self.window_ids = window_ids
        self.limits = limits
        self.settled = False
        self.until = math.inf

    @property
    def keys(self) -> tuple[str, ...]:
        """The buckets it was taken from, in the order they were asked for."""
        return tuple(key for key, _ in self.wants)

    @shown_once_made
    def __repr__(self) -> str:
        state = "settled" if self.settled else "open"
        return f"<Reservation {self.id} {state}: {', '.join(f'{key} {amount:g}' for key, amount in self.wants)}>"


@runtime_checkable
class QuotaStore(Protocol):
    """What the router needs of a store. Every method is atomic over threads (and processes, where the store is shared).

    Every method raises QuotaStoreError where the store cannot be reached or trusted, was closed, or is asked nonsense
    (an unknown key, an amount that is negative, NaN, infinite or a bool); then nothing was changed, and the call may
    be repeated. `inferrouter.conformance` holds the suite that every store must pass.

    A method other than `set_quota` and `close` may take a keyword `max_wait` as well: seconds it may wait for others (a file's
    lock, a server) before it raises, None for the store's own patience. `holds` may take `keys`, the only ones that are looked
    at: holds of others may be left out. Both are passed where a method names them.
    """

    def define(self, buckets: Sequence[Bucket], now: float) -> None:
        """Makes the buckets known. Idempotent: keeps what is used; a changed amount takes effect at once."""

    def headroom(self, keys: Sequence[str], now: float) -> list[Headroom]:
        """How full these buckets are, in the order of `keys`, seen in one step. Writes nothing."""

    def reserve(self, wants: Wants, now: float) -> Reservation | Refusal:
        """Takes every (key, amount) or nothing. Amounts are in the limits' units; 0 is allowed, a key may come twice."""

    def commit(self, reservation: Reservation, now: float, amounts: Sequence[float] | None = None) -> bool:
        """Settles with what was really used, one amount per want in order; None keeps what was reserved.

        An amount may exceed its reservation. Charged to the windows that were reserved from, as far as they still count.
        Returns False, changing nothing, if it was settled before.
        """

    def rollback(self, reservation: Reservation, now: float) -> bool:
        """Gives everything back. Returns False, changing nothing, if it was settled before."""

    def hold(self, key: str, until: float, reason: str, now: float) -> None:
        """Holds `key` until `until` (epoch seconds). The later of two holds wins; `until <= now` releases.

        No hold has longer to go than `LONGEST_HOLD`, nor, after a clock's step back, than it had when it was made.
        """

    def holds(self, now: float) -> dict[str, Hold]:
        """The holds that still last, by key."""

    def set_quota(self, account_id: str, amount: float, unit: str) -> None:
        """Sets the daily allowance of an account (or of "group:NAME"), the bucket `allowance_key(account_id)`.

        A new bucket counts calendar days in UTC; a known one keeps its window and zone. What is set here outlasts a later
        `define` of that bucket, for as long as the store remembers. Raises ConfigError for a wrong amount or unit.
        """

    def close(self) -> None:
        """Ends the use of the store; every method raises QuotaStoreError afterwards. May be called again."""


@runtime_checkable
class Learning(Protocol):
    """What a store may have besides, to learn of limits from what providers say. Without it everything else works."""

    def observe(self, observations: Sequence[Observation], now: float) -> Sequence[bool]:
        """Takes in what providers said or showed of known buckets, all or nothing; says of each whether it changed anything.

        `remaining` only lowers what is left: the difference is charged, and frees when the provider refills it. A stated limit
        or a ceiling below the defined amount counts in its place and is kept, with source and time, as counts are; above it,
        it is only kept to be shown. A stated limit counts until it was not said for eight days, a ceiling grows by its steps.
        A later `define` keeps all of it. Headroom and refusals show the limit that counts. Raises QuotaStoreError as all do.
        """

    def learned(self) -> Mapping[str, Learned]:
        """What was learned, by key, of every bucket of which anything was."""


def allowance_key(account_id: str) -> str:
    """The key of an account's daily allowance. Raises `ConfigError` for what is not an account's id."""
    if not isinstance(account_id, str):
        raise ConfigError(f"account_id: must be the id of an account, or group:NAME, not {account_id!r:.60}")
    return f"{account_id}/allowance"
