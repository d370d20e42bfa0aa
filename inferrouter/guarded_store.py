"""Guards the router against a failing quota store: the one place that says what such a failure means.

Strategy: with `on_error="refuse"` a store that fails refuses the call; with "ignore" a store in memory takes over from there
and the fact is counted in `degraded`. A settlement that fails is kept and tried again before the next reservation: until then
the reservation stays charged, which errs on the safe side. An answer never waits for its settlement. Must never know why an
amount is what it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import FunctionType
from typing import Any

from .errors import InferRouterError, QuotaStoreError, router_closed
from .frozen import NamedTuple
from .limits import Limit
from .own_process import PROCESS
from .quota import Bucket, Headroom, Hold, Learning, QuotaStore, Refusal, Reservation
from .quota_learned import Learned, Observation
from .quota_memory import MemoryQuotaStore
from .quota_seen import Groups, Look, compared
from .turn import Holder, Turn

KEPT_SETTLEMENTS = 10_000
METHODS = ("define", "headroom", "holds", "reserve", "commit", "hold", "observe")
OPTIONS = frozenset(("max_wait", "max_age"))
"""What a method may take besides: how long it may wait, how old a look may be."""
LOOK_S = 1.0
"""Seconds that what other machines did may go unseen where it matters; a reservation sees everything, and brings a new look."""
SETTLE_WAIT_S = 0.05
"""How long a settlement or a hold may wait for a store that others keep busy. A settlement that fails then is made later."""
CLOSING_TRIES = 10
"""How many settlements may fail before `close` gives the rest up."""


class GuardedStore:
    """The methods of a store, made safe. Each raises `QuotaStoreError` or nothing; `InferRouterError` once it is closed.

    `max_wait`: seconds a method may wait for others, where the store can be told so; None: as the store likes. `keeps_looks`:
    the store can show what it saw before, where a look costs a round trip.
    """

    def __init__(self, store: QuotaStore, on_error: str = "refuse") -> None:
        self.store = store
        self.degraded = 0
        self._closed = False
        self._spare = MemoryQuotaStore() if on_error == "ignore" else None
        self._unsettled: deque[_Settlement] = deque(maxlen=KEPT_SETTLEMENTS)
        self._replaying = Turn()
        self._takes = {name: _parameters(store, name) & OPTIONS for name in METHODS}
        self.keeps_looks = "max_age" in self._takes["headroom"]
        self._headroom = _trusted_headroom(store)
        if self._headroom is not _NOBODYS:
            self._takes["look_at_groups"] = _parameters(store, "look_at_groups") & OPTIONS
        self._holds_by_keys = "keys" in _parameters(store, "holds")

    def define(self, buckets: Sequence[Bucket], now: float, max_wait: float | None = None) -> None:
        """Make the buckets known."""
        if self._spare is not None:
            self._spare.define(buckets, now)
        self._ask("define", (buckets, now), max_wait)

    def headroom(self, keys: Sequence[str], now: float, max_wait: float | None = None, max_age: float = 0.0) -> list[Headroom]:
        """What is left in each bucket, in order; as it was `max_age` seconds ago at most, where a store saves a look by that."""
        try:
            if self._takes["headroom"]:
                found: list[Headroom] = self.store.headroom(keys, now, **self._options("headroom", max_wait, max_age))
            else:
                found = self.store.headroom(keys, now)
            if len(found) == len(keys):
                return found
            kind = type(self.store).__name__
            raise QuotaStoreError(
                f"{kind}.headroom returned {len(found)} values for {len(keys)} keys: return one for each, in order"
            )
        except Exception as exc:
            return self.fallback_or_raise(exc).headroom(keys, now)

    def look(self, groups: Groups, before: Look | None, now: float, max_wait: float | None = None, max_age: float = 0.0) -> Look:
        """What is new of each group of buckets since the look `before`.

        `max_age`: as for `headroom`; a store that says itself what is new saves no look by it."""
        store = self.store
        try:
            if getattr(store.headroom, "__func__", None) is self._headroom:
                look: Callable[..., Look] = store.look_at_groups  # type: ignore[attr-defined]  # as the class of `_headroom` has it
                if max_wait is None:
                    return look(groups, before, now)
                return look(groups, before, now, **self._options("look_at_groups", max_wait))
        except Exception as exc:
            return self.fallback_or_raise(exc).look_at_groups(groups, before, now)
        return compared(groups, before, self.headroom(groups.keys, now, max_wait, max_age))

    def limit_of(self, key: str, now: float) -> Limit | None:
        """The limit that the store itself counts under `key`, None if it knows none or cannot say."""
        try:
            return self.store.headroom((key,), now)[0].limit
        except Exception:
            return None

    def holds(
        self, now: float, keys: Sequence[str] | None = None, max_wait: float | None = None, max_age: float = 0.0
    ) -> dict[str, Hold]:
        """The live holds by key; `keys` are those the caller looks at, None: all. There may be others with them.

        `max_age`: as for `headroom`."""
        facts: tuple[Any, ...] = (now, keys) if self._holds_by_keys and keys is not None else (now,)
        if not self._takes["holds"]:
            try:
                return self.store.holds(*facts)
            except Exception as exc:
                return self.fallback_or_raise(exc).holds(now)
        found: dict[str, Hold] = self._ask("holds", facts, max_wait, max_age)
        return found

    def reserve(
        self, wants: Sequence[tuple[str, float]], now: float, max_wait: float | None = None
    ) -> tuple[QuotaStore, Reservation] | Refusal:
        """All of `wants` or nothing; with the reservation comes the store that it must be settled with."""
        if self._unsettled:
            self._replay(now, 1)
        store = self.store
        try:
            answer = (
                store.reserve(wants, now, **self._options("reserve", max_wait))
                if self._takes["reserve"]
                else store.reserve(wants, now)
            )
            if answer is None:  # a store of the user's own that forgot to say: nothing would be counted
                raise TypeError("reserve returned None")
        except Exception as exc:
            store = self.fallback_or_raise(exc)
            answer = store.reserve(wants, now)
        return answer if isinstance(answer, Refusal) else (store, answer)

    def settle(
        self, held: tuple[QuotaStore, Reservation], amounts: Sequence[float] | None, now: float, keep: bool = True
    ) -> bool:
        """Charge `amounts` (None: as reserved); whether that is done. Never raises, and waits for nobody: a store that fails gets
        it again later, if it is to be kept."""
        store, reservation = held
        try:
            if store is self.store and self._takes["commit"]:
                # Where one could not be made just now, the others wait for nothing: else their waits would add up.
                options = self._options("commit", 0.0 if self._unsettled else SETTLE_WAIT_S)
                store.commit(reservation, now, amounts, **options)
            else:
                store.commit(reservation, now, amounts)
        except Exception as exc:
            if isinstance(exc, (TypeError, ValueError)) or getattr(exc, "permanent", False):
                self.degraded += 1  # the store will never carry it out: the reservation stays charged
                return True
            if keep:
                self._unsettled.append(_Settlement(PROCESS.pid, store, reservation, amounts))
            return False
        return True

    def hold(self, key: str, until: float, reason: str, now: float) -> None:
        """Hold an account or a model. Never raises: a hold that is lost costs one more refused call."""
        with suppress(InferRouterError):
            self._ask("hold", (key, until, reason, now), SETTLE_WAIT_S)

    def hold_as_wished(self, key: str, until: float, reason: str, now: float) -> bool:
        """Hold by a person's wish, or release. Raises what keeps it from being made; False: it lasts only while the store fails,
        as it is kept in memory."""
        try:
            self.store.hold(key, until, reason, now)
        except Exception as exc:
            self.fallback_or_raise(exc).hold(key, until, reason, now)
            return False
        return True

    def observe(self, observations: Sequence[Observation], now: float) -> Sequence[bool]:
        """Which of `observations` changed anything; none in a store that does not learn. Never raises: one that is lost costs
        one more refused call."""
        try:
            if isinstance(self.store, Learning):
                options = self._options("observe", 0.0 if self._unsettled else SETTLE_WAIT_S)
                return self.store.observe(observations, now, **options)
            return [False] * len(observations)
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
        self._replay(now, CLOSING_TRIES)
        self._closed = True
        try:
            if store_too:
                self.store.close()
        except Exception:
            self.degraded += 1

    def fallback_or_raise(self, exc: Exception) -> MemoryQuotaStore:
        """The store in memory that takes over after `exc`. Raises what a caller is told where none does."""
        if self._closed:
            raise router_closed() from exc
        self.degraded += 1
        if self._spare is not None:
            return self._spare
        if isinstance(exc, QuotaStoreError):
            raise exc
        kind = type(self.store).__name__
        raise QuotaStoreError(
            f'the quota store {kind} failed with {type(exc).__name__}: fix it, or set quota.on_store_error = "ignore"'
        ) from exc

    def _ask(self, method: str, facts: tuple[Any, ...], max_wait: float | None, max_age: float = 0.0) -> Any:
        try:
            return getattr(self.store, method)(*facts, **self._options(method, max_wait, max_age))
        except Exception as exc:
            return getattr(self.fallback_or_raise(exc), method)(*facts)

    def _options(self, method: str, max_wait: float | None, max_age: float = 0.0) -> dict[str, Any]:
        takes = self._takes[method]
        options = {} if max_wait is None or "max_wait" not in takes else {"max_wait": max_wait}
        if max_age and "max_age" in takes:
            options["max_age"] = max_age
        return options

    def _replay(self, now: float, failures: int) -> None:
        """Try each settlement that is left once more, until `failures` of them failed. One thread at a time: the others go on."""
        holder = Holder()
        try:
            if self._replaying.take(holder):
                for _ in range(len(self._unsettled)):
                    settlement = self._unsettled[0]
                    pid, store, reservation, amounts = settlement
                    # Of a parent's, a forked child settles none.
                    settled = pid != PROCESS.pid or self.settle((store, reservation), amounts, now, keep=False)
                    if not settled:
                        failures -= 1
                        self._unsettled.append(
                            settlement
                        )  # behind the others, before it is taken off: an interrupt loses nothing
                    self._unsettled.remove(settlement)
                    if failures <= 0:
                        return
        except (IndexError, ValueError):  # a signal handler's call was faster
            return
        finally:
            self._replaying.give(holder)


class _Settlement(NamedTuple):
    """One that a store could not carry out. `pid`: the process whose reservation it is."""

    pid: int
    store: QuotaStore
    reservation: Reservation
    amounts: Sequence[float] | None


def _trusted_headroom(store: QuotaStore) -> object:
    """The function of `headroom`, if the very class that has it says itself what is new of groups. Of any other class, as of one
    that inherits that and has a `headroom` of its own, what no method is."""
    kinds = [vars(each) for each in type(store).__mro__ if "headroom" in vars(each)]
    return kinds[0]["headroom"] if kinds and "look_at_groups" in kinds[0] else _NOBODYS


_NOBODYS = object()


def _parameters(store: QuotaStore, method: str) -> frozenset[str]:
    """The names of what `method` takes: a store of the user's own may know nothing of what came later."""
    function = getattr(getattr(store, method, None), "__func__", None)
    if isinstance(function, FunctionType) and not vars(function):  # as nearly always: a method that nothing wraps
        code = function.__code__
        return frozenset(code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])
    from inspect import signature  # which loads for 4 ms

    try:
        return frozenset(signature(getattr(store, method)).parameters)
    except (AttributeError, TypeError, ValueError):
        return frozenset()
