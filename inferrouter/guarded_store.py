"""Guards the router against a failing quota store: the one place that says what such a failure means.

Strategy: with `on_error="refuse"` a store that fails refuses the call; with "ignore" a store in memory takes over from there
and the fact is counted in `degraded`. A settlement that fails is kept and tried again before the next reservation: until then
the reservation stays charged, which errs on the safe side. Must never know why an amount is what it is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from .errors import InferRouterError, QuotaStoreError, router_closed
from .limits import Limit
from .quota import Bucket, Headroom, Hold, Learning, QuotaStore, Refusal, Reservation
from .quota_learned import Learned, Observation
from .quota_memory import MemoryQuotaStore

T = TypeVar("T")

KEPT_SETTLEMENTS = 10_000


class GuardedStore:
    """The methods of a store, made safe. Each raises `QuotaStoreError` or nothing; `InferRouterError` once it is closed."""

    def __init__(self, store: QuotaStore, on_error: str = "refuse") -> None:
        self.store = store
        self.degraded = 0
        self._closed = False
        self._spare = MemoryQuotaStore() if on_error == "ignore" else None
        self._unsettled: deque[tuple[QuotaStore, Reservation, Sequence[float] | None]] = deque(maxlen=KEPT_SETTLEMENTS)
        self._replaying = threading.Lock()

    def define(self, buckets: Sequence[Bucket], now: float) -> None:
        """Make the buckets known."""
        if self._spare is not None:
            self._spare.define(buckets, now)
        self._ask(lambda store: store.define(buckets, now))

    def headroom(self, keys: Sequence[str], now: float) -> list[Headroom]:
        """What is left in each bucket, in order."""
        try:
            return self.store.headroom(keys, now)
        except Exception as exc:
            return self.fallback_or_raise(exc).headroom(keys, now)

    def limit_of(self, key: str, now: float) -> Limit | None:
        """The limit that the store itself counts under `key`, None if it knows none or cannot say."""
        try:
            return self.store.headroom((key,), now)[0].limit
        except Exception:
            return None

    def holds(self, now: float) -> dict[str, Hold]:
        """The live holds by key."""
        try:
            return self.store.holds(now)
        except Exception as exc:
            return self.fallback_or_raise(exc).holds(now)

    def reserve(self, wants: Sequence[tuple[str, float]], now: float) -> tuple[QuotaStore, Reservation] | Refusal:
        """All of `wants` or nothing; with the reservation comes the store that it must be settled with."""
        if self._unsettled:
            self._replay(now)
        store = self.store
        try:
            answer = store.reserve(wants, now)
        except Exception as exc:
            store = self.fallback_or_raise(exc)
            answer = store.reserve(wants, now)
        return answer if isinstance(answer, Refusal) else (store, answer)

    def settle(self, held: tuple[QuotaStore, Reservation], amounts: Sequence[float] | None, now: float) -> None:
        """Charge `amounts` (None: as reserved). Never raises: a store that fails gets it again later."""
        store, reservation = held
        try:
            store.commit(reservation, now, amounts)
        except Exception:
            self._unsettled.append((store, reservation, amounts))

    def hold(self, key: str, until: float, reason: str, now: float) -> None:
        """Hold an account or a model. Never raises: a hold that is lost costs one more refused call."""
        try:
            self._ask(lambda store: store.hold(key, until, reason, now))
        except InferRouterError:
            return

    def observe(self, observations: Sequence[Observation], now: float) -> Sequence[bool]:
        """Which of `observations` changed anything; none in a store that does not learn. Never raises: one that is lost costs
        one more refused call."""
        try:
            return self.store.observe(observations, now) if isinstance(self.store, Learning) else [False] * len(observations)
        except Exception:
            return [False] * len(observations)

    def learned(self) -> Mapping[str, Learned]:
        """What the store has learned, by bucket; nothing where it does not learn or cannot say."""
        try:
            return self.store.learned() if isinstance(self.store, Learning) else {}
        except Exception:
            return {}

    def close(self, now: float, store_too: bool) -> None:
        """Settle what is left, and close the store if `store_too`. Raises nothing.

        What fails from then on failed because its router is closed, and says so."""
        self._replay(now)
        self._closed = True
        try:
            if store_too:
                self.store.close()
        except Exception:
            self.degraded += 1

    def _ask(self, method: Callable[[QuotaStore], T]) -> T:
        try:
            return method(self.store)
        except Exception as exc:
            return method(self.fallback_or_raise(exc))

    def fallback_or_raise(self, exc: Exception) -> QuotaStore:
        if self._closed:
            raise router_closed() from exc
        self.degraded += 1
        if self._spare is not None:
            return self._spare
        if isinstance(exc, QuotaStoreError):
            raise exc
        kind = type(self.store).__name__
        raise QuotaStoreError(
            f'the quota store {kind} failed with {type(exc).__name__}: mend it, or set quota.on_store_error = "ignore"'
        ) from exc

    def _replay(self, now: float) -> None:
        if not self._replaying.acquire(blocking=False):
            return
        try:
            for _ in range(len(self._unsettled)):
                store, reservation, amounts = self._unsettled.popleft()
                self.settle((store, reservation), amounts, now)
        finally:
            self._replaying.release()
