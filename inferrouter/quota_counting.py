"""Counts what is used of each limit: pure bookkeeping, shared by every quota store.

Strategy: arithmetic on plain objects, time passed in as epoch seconds. A calendar window is one slot with a beginning and an end
in its time zone. A rolling window is a ring of 64 slots and the running one; a slot stays charged until a whole window after its
end, so that no span of the window's length ever holds more than the amount, and at most 1/65 of it is wasted. A count only moves
forward. A refused reservation changes nothing. Must never know of accounts, locks, files or clocks.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence

from .errors import QuotaStoreError
from .limits import FARTHEST, MAX_AMOUNT, WINDOWS, Limit, check_time, window_bounds
from .quota import LONGEST_HOLD, Bucket, Headroom, Hold, Refusal, Reservation, Wants


class WindowCounter:
    """What is used of one limit, charged to its newest slot. Plain and mutable: the stores' hot path.

    `used`: all that counts; `older`: what of it lies in older slots. `window_id`: the newest slot's name, None before any.
    Within `begin <= now < end` (epoch seconds) nothing moves; at `expires_at` the newest slot has passed.
    """

    __slots__ = ("begin", "end", "expires_at", "limit", "older", "used", "window_id")

    def __init__(self, limit: Limit, window_id: float | None = None, used: float = 0.0, older: float = 0.0) -> None:
        self.limit = limit
        self.window_id = window_id
        self.used = used
        self.older = older
        self.begin = math.inf
        self.end = -math.inf
        self.expires_at = math.inf

    def as_of(self, now: float) -> WindowCounter:
        """The count as of `now`: itself if nothing moves, else a new one. Raises QuotaStoreError for an absurd time."""
        raise NotImplementedError

    def correct(self, window_id: float | None, delta: float) -> None:
        """Adds `delta` (negative gives back) to the slot named `window_id`, if it still counts; no slot falls below 0."""
        if window_id == self.window_id:
            used = self.used + delta
            self.used = used if used > self.older else self.older

    def frees_at(self, amount: float) -> float | None:
        """Epoch seconds when `amount` of what is used has passed; 0 asks for any of it, None means nothing is used."""
        return self.end if self.used > 0 else None

    def pack(self) -> bytes:
        """The count as bytes, for `counter_unpacked`; empty before the first use."""
        raise NotImplementedError

    def relimited(self, limit: Limit) -> WindowCounter:
        """The same count under a limit that differs in its amount only."""
        other = copy.copy(self)
        other.limit = limit
        return other


class _Calendar(WindowCounter):
    """One slot named by its beginning. It never moves back: after a clock's step back the newest window is charged."""

    __slots__ = ()

    def as_of(self, now: float) -> WindowCounter:
        if now < self.end:
            return self
        return _calendar(self.limit, *window_bounds(now, self.limit.window, self.limit.zone))

    def pack(self) -> bytes:
        return b"" if self.window_id is None else _CALENDAR_STATE.pack(self.begin, self.end, self.used)


class _Rolling(WindowCounter):
    """A ring of slots named by their number since the epoch. The newest slot's place in the ring is written by `_whole`.

    A step back within the window goes on charging the newest slot; a longer one brings all that is used to the slot
    of the new time, so that it counts for one more window and no longer.
    """

    __slots__ = ("first", "ring", "scanned")

    ring: array[float]
    first: float
    """When the oldest slot that holds something passes, as found while `older` was `scanned`."""
    scanned: float

    def as_of(self, now: float) -> WindowCounter:
        slot = int(check_time(now) // _width(self.limit))
        if self.window_id is None:
            return _rolling(self.limit, slot, _empty_ring())
        newest = int(self.window_id)
        if newest - _SLOTS <= slot <= newest:
            return self
        if slot < newest:
            ring = _empty_ring()
            ring[slot % _RING] = self.used
            return _rolling(self.limit, slot, ring)
        ring = self._whole()[:]
        for passed in range(newest + 1, min(slot, newest + _RING) + 1):
            ring[passed % _RING] = 0.0
        return _rolling(self.limit, slot, ring)

    def correct(self, window_id: float | None, delta: float) -> None:
        if window_id is None or self.window_id is None:
            return
        if window_id > self.window_id:  # a long step back moved that slot's charge: more is charged here, nothing is given back
            window_id, delta = self.window_id, max(0.0, delta)
        if window_id == self.window_id:
            super().correct(window_id, delta)
        elif self.window_id - window_id <= _SLOTS:
            index = int(window_id) % _RING
            delta = max(delta, -self.ring[index])
            self.ring[index] += delta
            self.older += delta
            self.used += delta

    def frees_at(self, amount: float) -> float | None:
        if self.older <= 0:
            return self.expires_at if self.used > 0 else None
        if amount > 0:
            return self._passed(amount)
        if self.scanned != self.older:  # looked for at every call, and the same as long as no older slot changes
            self.first, self.scanned = self._passed(0.0) or self.expires_at, self.older
        return self.first

    def _passed(self, amount: float) -> float | None:
        ring = self._whole()
        newest = int(self.window_id or 0)
        freed, last = 0.0, None
        for slot in range(newest - _SLOTS, newest + 1):
            held = ring[slot % _RING]
            if held > 0:
                freed += held
                last = (slot + _RING) * _width(self.limit)
                if freed >= amount:
                    break
        return last

    def pack(self) -> bytes:
        return b"" if self.window_id is None else _ROLLING_ID.pack(self.window_id) + self._whole().tobytes()

    def _whole(self) -> array[float]:
        if self.window_id is not None:
            self.ring[int(self.window_id) % _RING] = self.used - self.older
        return self.ring


def counter_of(limit: Limit) -> WindowCounter:
    """An empty count of `limit`."""
    if not limit.rolling:
        return _Calendar(limit)
    counter = _Rolling(limit)
    counter.ring, counter.scanned = _empty_ring(), -1.0
    return counter


def counter_unpacked(limit: Limit, state: bytes) -> WindowCounter:
    """The count that `pack` gave. Raises QuotaStoreError where `state` is not a count of such a limit."""
    if not state:
        return counter_of(limit)
    try:
        if not limit.rolling:
            return _calendar(limit, *_CALENDAR_STATE.unpack(state))
        ring = array("d", state[_ROLLING_ID.size :])
        if len(ring) != _RING:
            raise ValueError(f"{len(ring)} slots")
        return _rolling(limit, _ROLLING_ID.unpack_from(state)[0], ring)
    except (struct.error, ValueError) as exc:
        raise QuotaStoreError(f"a count of {limit} is damaged ({len(state)} bytes)") from exc


def _calendar(limit: Limit, begin: float, end: float, used: float = 0.0) -> _Calendar:
    counter = _Calendar(limit, begin, used)
    counter.begin = begin
    counter.end = counter.expires_at = end
    return counter


def _rolling(limit: Limit, slot: int, ring: array[float]) -> _Rolling:
    used = sum(ring)
    width = _width(limit)
    counter = _Rolling(limit, slot, used, used - ring[slot % _RING])
    counter.ring, counter.scanned = ring, -1.0
    counter.begin = slot * width
    counter.end = (slot + 1) * width
    counter.expires_at = (slot + _RING) * width
    return counter


def _width(limit: Limit) -> float:
    return WINDOWS[limit.window] / _SLOTS


def _empty_ring() -> array[float]:
    return array("d", bytes(8 * _RING))


_SLOTS = 64


_RING = _SLOTS + 1


_ROLLING_ID = struct.Struct("=q")


_CALENDAR_STATE = struct.Struct("=3d")


class BucketState:
    """A bucket as the bookkeeping sees it: its limit and the count of it. `pinned`: the amount was set by `set_quota`.

    `shown`: its headroom, which holds for `shown_from <= now < shown_until` as long as nothing is charged or corrected.
    """

    __slots__ = ("ceiling", "counter", "key", "limit", "pinned", "shown", "shown_from", "shown_until")

    def __init__(self, key: str, counter: WindowCounter, pinned: bool = False) -> None:
        self.key = key
        self.pinned = pinned
        self.limit = counter.limit
        self.ceiling = counter.limit.ceiling
        self.counter = counter
        self.shown = Headroom(key, self.limit, 0.0, self.limit.amount, 1.0, None)
        self.shown_from = math.inf
        self.shown_until = -math.inf

    def changed(self) -> None:
        """Forget the headroom: what is counted has changed."""
        self.shown_until = -math.inf


def admit(states: Mapping[str, BucketState], wants: Wants, now: float, ident: int) -> Reservation | Refusal:
    """Charges every want to its entry and returns the reservation `ident`, or changes nothing and returns the refusal."""
    taken: dict[str, tuple[BucketState, WindowCounter, float]] = {}
    refused = []
    for key, amount in wants:
        state = states.get(key)
        if state is None:
            raise _unknown(key)
        if amount.__class__ not in _NUMBERS or not 0 <= amount <= MAX_AMOUNT:
            raise _nonsense(amount)
        counter = state.counter
        if not counter.begin <= now < counter.end:
            counter = counter.as_of(now)
        if counter.used + amount > state.ceiling:
            refused.append(_refusal(state, counter, amount))
        taken[key] = state, counter, amount
    if len(taken) != len(wants):
        return _admit_sums(states, wants, now, ident)
    if refused:
        return max(refused, key=_frees)
    window_ids = []
    for state, counter, amount in taken.values():
        state.counter = counter
        state.shown_until = -math.inf
        counter.used += amount
        window_ids.append(counter.window_id)
    return Reservation(ident, tuple(wants), window_ids)


def settle(states: Mapping[str, BucketState], reservation: Reservation, amounts: Sequence[float]) -> list[BucketState]:
    """Corrects what `reservation` charged to `amounts`, one per want, in the windows it names; returns what changed."""
    wants = reservation.wants
    if len(amounts) != len(wants):
        raise QuotaStoreError(f"{len(wants)} amounts were reserved and {len(amounts)} are settled; give one for each")
    for amount in amounts:
        if amount.__class__ not in _NUMBERS or not 0 <= amount <= MAX_AMOUNT:
            raise _nonsense(amount)
    changed = []
    for (key, reserved), window_id, amount in zip(wants, reservation.window_ids, amounts):  # noqa: B905 - hot, lengths are checked
        if amount != reserved and key in states:
            state = states[key]
            state.counter.correct(window_id, amount - reserved)
            state.changed()
            changed.append(state)
    return changed


def headrooms_of(states: Mapping[str, BucketState], keys: Sequence[str], now: float) -> tuple[list[Headroom], bool]:
    """How full the buckets `keys` are as of `now`, and whether one of them was charged ahead of it, before a clock's step back.

    A bucket gives the same `Headroom` object until it is charged, corrected or its window ends, so that whoever keeps what he
    made of it sees by identity what has changed.
    """
    ahead: list[str] = []
    try:
        chosen = map(states.__getitem__, keys)
        found = [state.shown if state.shown_from <= now < state.shown_until else _headroom(state, now, ahead) for state in chosen]
    except KeyError as exc:
        raise _unknown(exc.args[0]) from None
    return found, bool(ahead)


def _headroom(state: BucketState, now: float, ahead: list[str]) -> Headroom:
    counter, limit = state.counter, state.limit
    if not counter.begin <= now < counter.end:
        if now < counter.begin < math.inf:
            ahead.append(state.key)
        counter = counter.as_of(check_time(now))
    left = limit.amount - counter.used
    remaining = left if left > 0 else 0.0
    share = remaining / limit.amount if remaining else 0.0
    state.shown = shown = Headroom(state.key, limit, counter.used, remaining, share, counter.frees_at(0.0))
    if state.counter.used:
        state.shown_from, state.shown_until = counter.begin, counter.end
    else:  # an empty bucket looks the same at any time
        state.shown_from, state.shown_until = -FARTHEST, FARTHEST
    return shown


def release_after_clock_step(
    states: Mapping[str, BucketState], keys: Iterable[str], now: float, ahead_since: dict[str, float]
) -> list[BucketState]:
    """Empties each entry that lies a window or more ahead of `now`, after a clock's step back, once a whole window was seen
    to pass since. `ahead_since`: when each was first seen so, for the store to keep; a clock that flaps frees nothing. Returns
    what changed."""
    changed = []
    for key in keys:
        state = states[key]
        as_of = state.counter.as_of(now) if now < state.counter.begin < math.inf else state.counter
        if as_of is state.counter:
            ahead_since.pop(key, None)
            continue
        since = ahead_since[key] = min(ahead_since.get(key, now), now)
        if now >= since + as_of.expires_at - as_of.begin:
            del ahead_since[key]
            state.counter = counter_of(state.limit).as_of(now)
            state.changed()
            changed.append(state)
    return changed


def redefined(known: BucketState | None, bucket: Bucket, now: float) -> BucketState:
    """The entry of `bucket` with what `known` has counted, as of `now`; an amount that was pinned stays."""
    limit = bucket.limit
    if known is not None and known.pinned:
        limit = dataclasses.replace(limit, amount=known.limit.amount, unit=known.limit.unit)
    return _relimited(known, BucketState(bucket.key, counter_of(limit), known is not None and known.pinned), now)


def with_quota(known: BucketState | None, key: str, amount: float, unit: str) -> BucketState:
    """The entry `key` with an amount and a unit that are pinned, in the window it had: by default a day in UTC."""
    limit = dataclasses.replace(known.limit, amount=amount, unit=unit) if known else Limit(amount, unit, "day")
    return _relimited(known, BucketState(key, counter_of(limit), pinned=True), None)


def merged_hold(old: tuple[Hold, float] | None, new: Hold, now: float) -> tuple[Hold, float] | None:
    """Which of two holds stays, with the time it was made at; None if the new one releases."""
    if not isinstance(new.until, (int, float)) or not abs(new.until) <= math.inf:
        raise QuotaStoreError(f"{new.until!r} is not a time to hold {new.key!r} until; give epoch seconds")
    check_time(now)
    if new.until <= now:
        return None
    new = dataclasses.replace(new, until=min(new.until, now + LONGEST_HOLD))
    kept = live_hold(*old, now) if old else None
    return kept if kept and kept[0].until >= new.until else (new, now)


def live_hold(hold: Hold, made: float, now: float) -> tuple[Hold, float] | None:
    """A hold made at `made` as of `now`: None once it is over, moved along where the clock stepped back before it."""
    if now < made:
        hold, made = dataclasses.replace(hold, until=hold.until - (made - now)), now
    return (hold, made) if hold.until > now else None


_NUMBERS = frozenset((int, float))


def _relimited(known: BucketState | None, state: BucketState, now: float | None) -> BucketState:
    """`state` with what `known` has counted; over a change of the window as of `now`, not over a change of the unit."""
    limit = state.limit
    if known is None or known.limit.unit != limit.unit:
        return state
    if known.limit == limit and known.pinned == state.pinned:
        return known
    if dataclasses.replace(known.limit, amount=limit.amount) == limit:
        return BucketState(state.key, known.counter.relimited(limit), state.pinned)
    if now is not None:
        state.counter = state.counter.as_of(now)
        state.counter.used += known.counter.as_of(now).used
    return state


def _admit_sums(states: Mapping[str, BucketState], wants: Wants, now: float, ident: int) -> Reservation | Refusal:
    """`admit` where a key comes more than once: its amounts count together."""
    sums: dict[str, float] = {}
    for key, amount in wants:
        sums[key] = sums.get(key, 0) + amount
    taken = admit(states, tuple(sums.items()), now, ident)
    if isinstance(taken, Refusal):
        return taken
    window_ids = dict(zip(sums, taken.window_ids, strict=True))
    return Reservation(ident, tuple(wants), [window_ids[key] for key, _ in wants])


def _refusal(state: BucketState, counter: WindowCounter, amount: float) -> Refusal:
    remaining = max(0.0, state.limit.amount - counter.used)
    retry_at = None if amount > state.ceiling else counter.frees_at(counter.used + amount - state.ceiling)
    return Refusal(state.key, state.limit, amount, remaining, retry_at)


def _frees(refusal: Refusal) -> float:
    return math.inf if refusal.retry_at is None else refusal.retry_at


def _unknown(key: str) -> QuotaStoreError:
    return QuotaStoreError(f"the quota store knows no bucket {key!r}; define it first")


def _nonsense(amount: object) -> QuotaStoreError:
    return QuotaStoreError(f"{amount!r} is not an amount that can be counted; give a finite number of 0 or more")
