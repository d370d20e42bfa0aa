"""The quota store: every limit of a call is reserved in one step, and settled once with what was really used.

Strategy: a store is seven verbs, each one round trip, over buckets that are named by a key and counted by a `Limit`.
A refused reservation writes nothing. A reservation names its windows, so that settling late never touches a newer one;
one that is never settled (a crash) stays charged until its windows pass. The bookkeeping (`admit`, `settle`, `redefined`)
is pure and shared by the stores; `MemoryQuotaStore` is that bookkeeping under a lock. Stores take `now` (epoch seconds)
from the caller, never read a clock, and never call back. Must never know of providers, requests or keys to an API.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Protocol, Self, runtime_checkable

from .errors import QuotaStoreError
from .limits import MAX_AMOUNT, Limit, Tally, check_time, tally_of

__all__ = [
    "LONGEST_HOLD",
    "Bucket",
    "Entry",
    "Headroom",
    "Hold",
    "MemoryQuotaStore",
    "QuotaStore",
    "Refusal",
    "Reservation",
    "admit",
    "allowance_key",
    "caught_up",
    "headroom_of",
    "live_hold",
    "merged_hold",
    "redefined",
    "settle",
    "with_quota",
]

LONGEST_HOLD = 35 * 86400.0
"""Seconds; a hold never rests longer than this, whatever a provider or a wrong clock says."""

Wants = Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Refusal:
    """The bucket that refused a reservation; where several did, the one that frees last.

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
        left = self.limit.quantity(self.remaining).split(" ")[0]
        frees = datetime.fromtimestamp(math.ceil(self.retry_at), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"{left} of {self.limit} left, needs {needed}: frees at {frees}"


@dataclass(frozen=True, slots=True)
class Hold:
    """`key` (an account, or one of its models) must rest until `until` (epoch seconds), because of `reason`."""

    key: str
    until: float
    reason: str


class Reservation:
    """What was taken, and from which windows. Opaque to callers: hand it back to `commit` or `rollback` of its store."""

    __slots__ = ("id", "marks", "settled", "until", "wants")

    def __init__(self, ident: int, wants: Wants, marks: Sequence[float | None]) -> None:
        self.id = ident
        self.wants = wants
        self.marks = marks
        self.settled = False
        self.until = math.inf

    @property
    def keys(self) -> tuple[str, ...]:
        """The buckets it was taken from, in the order they were asked for."""
        return tuple(key for key, _ in self.wants)

    def __repr__(self) -> str:
        state = "settled" if self.settled else "open"
        return f"<Reservation {self.id} {state}: {', '.join(f'{key} {amount:g}' for key, amount in self.wants)}>"


@runtime_checkable
class QuotaStore(Protocol):
    """What the router needs of a store. Every verb is atomic over threads (and processes, where the store is shared).

    Every verb raises QuotaStoreError where the store cannot be reached or trusted, was closed, or is asked nonsense
    (an unknown key, an amount that is negative, NaN, infinite or a bool); then nothing was changed, and the call may
    be repeated. `inferrouter.conformance` holds the suite that every store must pass.
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
        """Marks `key` as resting until `until` (epoch seconds). The later of two holds wins; `until <= now` releases.

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
        """Ends the use of the store; every verb raises QuotaStoreError afterwards. May be called again."""


class MemoryQuotaStore:
    """Counts in this process's memory: exact over threads, forgotten at exit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._holds: dict[str, tuple[Hold, float]] = {}
        self._behind: dict[str, float] = {}
        self._count = 0
        self._closed = False

    def define(self, buckets: Sequence[Bucket], now: float) -> None:
        with self._lock:
            self._check_open()
            new = [redefined(self._entries.get(bucket.key), bucket, now) for bucket in buckets]
            self._entries.update((entry.key, entry) for entry in new)

    def headroom(self, keys: Sequence[str], now: float) -> list[Headroom]:
        with self._lock:
            self._check_open()
            rooms = [headroom_of(self._entries, key, now) for key in keys]
            if caught_up(self._entries, keys, now, self._behind):
                rooms = [headroom_of(self._entries, key, now) for key in keys]
            return rooms

    def reserve(self, wants: Wants, now: float) -> Reservation | Refusal:
        with self._lock:
            self._check_open()
            self._count += 1
            answer = admit(self._entries, wants, now, self._count)
            if isinstance(answer, Refusal) or self._behind:
                freed = caught_up(self._entries, [key for key, _ in wants], now, self._behind)
                if freed and isinstance(answer, Refusal):
                    answer = admit(self._entries, wants, now, self._count)
            return answer

    def commit(self, reservation: Reservation, now: float, amounts: Sequence[float] | None = None) -> bool:
        with self._lock:
            self._check_open()
            if reservation.settled:
                return False
            if amounts is not None:
                settle(self._entries, reservation, amounts)
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

    def holds(self, now: float) -> dict[str, Hold]:
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
            self._entries[key] = with_quota(self._entries.get(key), key, amount, unit)

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MemoryQuotaStore: {len(self._entries)} buckets, {len(self._holds)} holds>"

    def _check_open(self) -> None:
        if self._closed:
            raise QuotaStoreError("the quota store is closed; make a new one")


class Entry:
    """A bucket as the bookkeeping sees it: its limit and the count of it. `pinned`: the amount was set by `set_quota`."""

    __slots__ = ("ceiling", "key", "limit", "pinned", "tally")

    def __init__(self, key: str, tally: Tally, pinned: bool = False) -> None:
        self.key = key
        self.pinned = pinned
        self.limit = tally.limit
        self.ceiling = tally.limit.ceiling
        self.tally = tally


def admit(entries: Mapping[str, Entry], wants: Wants, now: float, ident: int) -> Reservation | Refusal:
    """Charges every want to its entry and returns the reservation `ident`, or changes nothing and returns the refusal."""
    taken: dict[str, tuple[Entry, Tally, float]] = {}
    refused = []
    for key, amount in wants:
        entry = entries.get(key)
        if entry is None:
            raise _unknown(key)
        if amount.__class__ not in _NUMBERS or not 0 <= amount <= MAX_AMOUNT:
            raise _nonsense(amount)
        tally = entry.tally
        if not tally.begin <= now < tally.end:
            tally = tally.moved(now)
        if tally.used + amount > entry.ceiling:
            refused.append(_refusal(entry, tally, amount))
        taken[key] = entry, tally, amount
    if len(taken) != len(wants):
        return _admit_sums(entries, wants, now, ident)
    if refused:
        return max(refused, key=_frees)
    marks = []
    for entry, tally, amount in taken.values():
        entry.tally = tally
        tally.used += amount
        marks.append(tally.mark)
    return Reservation(ident, tuple(wants), marks)


def settle(entries: Mapping[str, Entry], reservation: Reservation, amounts: Sequence[float]) -> list[Entry]:
    """Corrects what `reservation` charged to `amounts`, one per want, in the windows it names; returns what changed."""
    wants = reservation.wants
    if len(amounts) != len(wants):
        raise QuotaStoreError(f"{len(wants)} amounts were reserved and {len(amounts)} are settled; give one for each")
    for amount in amounts:
        if amount.__class__ not in _NUMBERS or not 0 <= amount <= MAX_AMOUNT:
            raise _nonsense(amount)
    changed = []
    for (key, reserved), mark, amount in zip(wants, reservation.marks, amounts):  # noqa: B905 - hot, lengths are checked
        if amount != reserved and key in entries:
            entry = entries[key]
            entry.tally.correct(mark, amount - reserved)
            changed.append(entry)
    return changed


def headroom_of(entries: Mapping[str, Entry], key: str, now: float) -> Headroom:
    """How full the entry of `key` is as of `now`."""
    entry = entries.get(key)
    if entry is None:
        raise _unknown(key)
    tally = entry.tally
    if not tally.begin <= now < tally.end:
        tally = tally.moved(now)
    limit = entry.limit
    remaining = max(0.0, limit.amount - tally.used)
    share = remaining / limit.amount if limit.amount else 0.0
    return Headroom(key, limit, tally.used, remaining, share, tally.frees_at(0.0))


def caught_up(entries: Mapping[str, Entry], keys: Iterable[str], now: float, behind: dict[str, float]) -> list[Entry]:
    """Empties each entry that lies a window or more ahead of `now`, after a clock's step back, once a whole window was seen
    to pass since. `behind`: when each was first seen so, for the store to keep; a clock that flaps frees nothing. Returns
    what changed."""
    changed = []
    for key in keys:
        entry = entries[key]
        moved = entry.tally.moved(now) if now < entry.tally.begin < math.inf else entry.tally
        if moved is entry.tally:
            behind.pop(key, None)
            continue
        since = behind[key] = min(behind.get(key, now), now)
        if now >= since + moved.gone - moved.begin:
            del behind[key]
            entry.tally = tally_of(entry.limit).moved(now)
            changed.append(entry)
    return changed


def redefined(known: Entry | None, bucket: Bucket, now: float) -> Entry:
    """The entry of `bucket` with what `known` has counted, as of `now`; an amount that was pinned stays."""
    limit = bucket.limit
    if known is not None and known.pinned:
        limit = dataclasses.replace(limit, amount=known.limit.amount, unit=known.limit.unit)
    return _relimited(known, Entry(bucket.key, tally_of(limit), known is not None and known.pinned), now)


def with_quota(known: Entry | None, key: str, amount: float, unit: str) -> Entry:
    """The entry `key` with an amount and a unit that are pinned, in the window it had: by default a day in UTC."""
    limit = dataclasses.replace(known.limit, amount=amount, unit=unit) if known else Limit(amount, unit, "day")
    return _relimited(known, Entry(key, tally_of(limit), pinned=True), None)


def merged_hold(old: tuple[Hold, float] | None, new: Hold, now: float) -> tuple[Hold, float] | None:
    """Which of two holds stays, with the time it was made at; None if the new one releases."""
    if not isinstance(new.until, (int, float)) or not abs(new.until) <= math.inf:
        raise QuotaStoreError(f"{new.until!r} is no time to hold {new.key!r} until; give epoch seconds")
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


def allowance_key(account_id: str) -> str:
    """The key of an account's daily allowance."""
    return f"{account_id}/allowance"


_NUMBERS = frozenset((int, float))


def _relimited(known: Entry | None, entry: Entry, now: float | None) -> Entry:
    """`entry` with what `known` has counted; over a change of the window as of `now`, not over a change of the unit."""
    limit = entry.limit
    if known is None or known.limit.unit != limit.unit:
        return entry
    if known.limit == limit and known.pinned == entry.pinned:
        return known
    if dataclasses.replace(known.limit, amount=limit.amount) == limit:
        return Entry(entry.key, known.tally.relimited(limit), entry.pinned)
    if now is not None:
        entry.tally = entry.tally.moved(now)
        entry.tally.used += known.tally.moved(now).used
    return entry


def _admit_sums(entries: Mapping[str, Entry], wants: Wants, now: float, ident: int) -> Reservation | Refusal:
    """`admit` where a key comes more than once: its amounts count together."""
    sums: dict[str, float] = {}
    for key, amount in wants:
        sums[key] = sums.get(key, 0) + amount
    taken = admit(entries, tuple(sums.items()), now, ident)
    if isinstance(taken, Refusal):
        return taken
    marks = dict(zip(sums, taken.marks, strict=True))
    return Reservation(ident, tuple(wants), [marks[key] for key, _ in wants])


def _refusal(entry: Entry, tally: Tally, amount: float) -> Refusal:
    remaining = max(0.0, entry.limit.amount - tally.used)
    retry_at = None if amount > entry.ceiling else tally.frees_at(tally.used + amount - entry.ceiling)
    return Refusal(entry.key, entry.limit, amount, remaining, retry_at)


def _frees(refusal: Refusal) -> float:
    return math.inf if refusal.retry_at is None else refusal.retry_at


def _unknown(key: str) -> QuotaStoreError:
    return QuotaStoreError(f"the quota store knows no bucket {key!r}; define it first")


def _nonsense(amount: object) -> QuotaStoreError:
    return QuotaStoreError(f"{amount!r} is no amount that can be counted; give a finite number of 0 or more")
