"""Keeps quota in this process's memory: exact over threads, forgotten at exit.

Strategy: the bookkeeping of `quota_counting` under one lock. Must never read a clock, call back, or know of providers, requests
or API keys.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Self

from .errors import QuotaStoreError
from .frozen import shown_once_made
from .quota import Bucket, Headroom, Hold, Refusal, Reservation, Wants, allowance_key
from .quota_counting import (
    BucketState,
    admit,
    headrooms_of,
    learned_of,
    live_hold,
    merged_hold,
    note,
    observe,
    redefined,
    settle,
    with_quota,
)
from .quota_learned import Learned, Observation


class MemoryQuotaStore:
    """Counts in this process's memory: exact over threads, forgotten at exit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, BucketState] = {}
        self._holds: dict[str, tuple[Hold, float]] = {}
        self._count = 0
        self._closed = False

    def define(self, buckets: Sequence[Bucket], now: float) -> None:
        with self._lock:
            self._check_open()
            new = [redefined(self._states.get(bucket.key), bucket, now) for bucket in buckets]
            self._states.update((state.key, state) for state in new)

    def headroom(self, keys: Sequence[str], now: float) -> list[Headroom]:
        with self._lock:
            self._check_open()
            headrooms, to_note = headrooms_of(self._states, keys, now)
            if to_note:
                note(self._states, keys, now)
            return headrooms

    def reserve(self, wants: Wants, now: float) -> Reservation | Refusal:
        with self._lock:
            self._check_open()
            self._count += 1
            answer = admit(self._states, wants, now, self._count)
            if isinstance(answer, Refusal):
                note(self._states, [key for key, _ in wants], now)
            return answer

    def commit(self, reservation: Reservation, now: float, amounts: Sequence[float] | None = None) -> bool:
        with self._lock:
            self._check_open()
            if reservation.settled:
                return False
            if amounts is not None:
                settle(self._states, reservation, amounts)
            reservation.settled = True
            return True

    def rollback(self, reservation: Reservation, now: float) -> bool:
        return self.commit(reservation, now, [0.0] * len(reservation.wants))

    def hold(self, key: str, until: float, reason: str, now: float) -> None:
        with self._lock:
            self._check_open()
            merged = merged_hold(self._holds.get(key), Hold(key, until, reason), now)
            if merged is None:
                self._holds.pop(key, None)
            else:
                self._holds[key] = merged

    def holds(self, now: float, keys: Sequence[str] | None = None) -> dict[str, Hold]:
        with self._lock:
            self._check_open()
            if not self._holds:
                return {}
            live = {key: live_hold(*held, now) for key, held in self._holds.items()}
            self._holds = {key: held for key, held in live.items() if held is not None}
            return {key: held[0] for key, held in self._holds.items()}

    def set_quota(self, account_id: str, amount: float, unit: str) -> None:
        key = allowance_key(account_id)
        with self._lock:
            self._check_open()
            self._states[key] = with_quota(self._states.get(key), key, amount, unit)

    def observe(self, observations: Sequence[Observation], now: float) -> list[bool]:
        """See `quota.Learning`."""
        with self._lock:
            self._check_open()
            return observe(self._states, observations, now)

    def learned(self) -> dict[str, Learned]:
        """See `quota.Learning`."""
        with self._lock:
            self._check_open()
            return learned_of(self._states.values())

    def pinned(self, keys: Sequence[str]) -> frozenset[str]:
        """Those of `keys` whose amount was set by `set_quota`."""
        with self._lock:
            return frozenset(key for key in keys if key in self._states and self._states[key].pinned)

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @shown_once_made
    def __repr__(self) -> str:
        return f"<MemoryQuotaStore: {len(self._states)} buckets, {len(self._holds)} holds>"

    def _check_open(self) -> None:
        if self._closed:
            raise QuotaStoreError("the quota store is closed; make a new one")
