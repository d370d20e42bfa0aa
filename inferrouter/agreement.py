"""Defines a router's limits in its store, and notices where the store counts by others.

Strategy: several programs may share a store, and whoever defines a limit last decides for all. What is in the store is looked at
before it is defined anew and again from time to time, and each difference is a sentence. Where nothing is stated, as by an
account without `daily_free`, nothing that another program stated is switched off. Must never know what is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .frozen import replace
from .guarded_store import GuardedStore
from .limits import Limit
from .meter import Clock
from .quota import Bucket, allowance_key

UNLIMITED = 1e15
"""A day's amount where none is stated: counts what is spent without a cap, and stands where an allowance may yet be set."""

ALLOWANCE = allowance_key("")
"""How the key of every allowance ends."""

LOOK_EVERY_S = 60.0
"""Seconds from one look at what the store counts by to the next."""


class Agreement:
    """What this router has defined, by key. Thread-safe: what it keeps is only added to.

    `foreign`: allowances that the store counts for other configurations, and that do not hold here. `next_look`: monotonic
    seconds before which `look`, asked to do so every `LOOK_EVERY_S` at most, does nothing.
    """

    def __init__(self, ledger: GuardedStore) -> None:
        self.foreign: dict[str, Limit] = {}
        self._ledger = ledger
        self._defined: dict[str, Limit] = {}
        self.next_look = -math.inf

    def define(self, buckets: Sequence[Bucket], now: float, max_wait: float | None = None) -> list[str]:
        """Define `buckets`, but for those of no stated amount that the store has one for. A sentence for each that was counted
        otherwise before. `max_wait`: seconds to wait for the store. Raises `QuotaStoreError`."""
        before = self._counted([bucket.key for bucket in buckets], now)
        said = []
        stated = [bucket for bucket in buckets if not _is_silent(bucket.limit, before.get(bucket.key))]
        self._ledger.define(stated, now, max_wait)
        for key, limit in [(bucket.key, bucket.limit) for bucket in buckets]:
            self._defined[key] = limit
            old = before.get(key)
            if old is None or old.amount == UNLIMITED or old == limit:
                continue
            if limit.amount != UNLIMITED:
                said.append(f"{_place(key)}: the quota store counted {old} until now, and from here on {limit}; {_ADVICE}")
            elif self._is_foreign(key, old, limit, now):
                self.foreign[key] = old
                said.append(f"{_stated_elsewhere(key, old)} does not apply here; {_ADVICE}")
            elif not key.endswith(ALLOWANCE):
                said.append(f"{_stated_elsewhere(key, old)} still applies; {_ADVICE}")
        return said

    def look(self, clock: Clock, say: Callable[[str, str], None], every: float = 0.0) -> None:
        """Tell `say` the key and the sentence of each difference, at most once in `every` seconds."""
        mono = clock.monotonic()
        if every and self.next_look == -math.inf:  # all was looked at when it was defined
            self.next_look = mono + every
        if every and mono < self.next_look:
            return
        self.next_look = mono + LOOK_EVERY_S
        for key, text in self.differences(clock.time()):
            say(key, text)

    def differences(self, now: float) -> list[tuple[str, str]]:
        """Where the store counts otherwise than this router defined: the key and a sentence. Empty if the store cannot say."""
        found = []
        for key, counted in self._counted(list(self._defined), now).items():
            stated = self._defined[key]
            if counted != stated and stated.amount != UNLIMITED:
                others = "no limit" if counted.amount == UNLIMITED else str(counted)
                text = f"{_place(key)}: the quota store now counts {others}, but this configuration says {stated}; {_ADVICE}"
                found.append((f"differs {key}", text))
        return found

    def counted(self, key: str, now: float) -> Limit | None:
        """The limit that the store counts under `key`, before what a provider said of it; None if it knows none."""
        return self._counted([key], now).get(key)

    def _is_foreign(self, key: str, old: Limit, limit: Limit, now: float) -> bool:
        """Whether the allowance `old` is another configuration's, and not what `set_quota` said, which holds for all."""
        if not key.endswith(ALLOWANCE):
            return False
        pinned = getattr(self._ledger.store, "pinned", None)
        if pinned is not None:
            return key not in pinned((key,))
        self._ledger.define((Bucket(key, limit),), now)  # what was set outlasts this
        if self._counted([key], now).get(key) != limit:
            return False
        self._ledger.define((Bucket(key, old),), now)
        return True

    def _counted(self, keys: Sequence[str], now: float) -> dict[str, Limit]:
        store = self._ledger.store
        try:
            found = {headroom.key: headroom.limit for headroom in store.headroom(keys, now)}
        except Exception:  # one of them is new, most likely
            limits = [(key, self._ledger.limit_of(key, now)) for key in keys]
            found = {key: limit for key, limit in limits if limit is not None}
        learned = getattr(store, "learned", None)
        if found and learned is not None:
            try:
                known = learned()
            except Exception:
                return found
            for key in known.keys() & found.keys():
                found[key] = replace(found[key], amount=known[key].configured)
        return found


def _is_silent(limit: Limit, counted: Limit | None) -> bool:
    return limit.amount == UNLIMITED and counted is not None and counted.amount != UNLIMITED


def _place(key: str) -> str:
    scope, _, name = key.rpartition("/")
    return f"{name} of {scope}"


def _stated_elsewhere(key: str, limit: Limit) -> str:
    return f"{_place(key)}: another configuration states {limit} and this one states none, so that limit"


_ADVICE = "programs that share a store share its limits, and the last to start decides: give them the same configuration"
