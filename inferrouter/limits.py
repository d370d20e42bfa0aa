"""Limits, calendar windows, and the count of what is used of one limit.

Strategy: pure arithmetic, time passed in as epoch seconds. A calendar window is one slot with a beginning and an end
in its time zone. A rolling window is a ring of 64 slots and the running one; a slot stays charged until a whole window
after its end, so that no span of the window's length ever holds more than the amount, and at most 1/65 of it is wasted.
A count only moves forward: `moved` gives the count as of a time and leaves the old one as it was. Must never know of
accounts, stores, locks or clocks.
"""

from __future__ import annotations

import copy
import math
import struct
from array import array
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache

from .errors import ConfigError, QuotaStoreError

__all__ = [
    "MAX_AMOUNT",
    "UNITS",
    "WINDOWS",
    "Limit",
    "Tally",
    "check_time",
    "next_reset",
    "tally_of",
    "tally_unpacked",
    "window_bounds",
    "zone_problem",
]

UNITS = ("requests", "tokens", "dollars")
WINDOWS = {"minute": 60.0, "hour": 3600.0, "day": 86400.0, "month": 31 * 86400.0}
"""Seconds of a rolling window; a rolling month is 31 days, the longest month there is."""
MAX_AMOUNT = 2.0**53
"""Above it a float no longer counts single units."""

_SLOTS = 64
_RING = _SLOTS + 1
_DOLLAR_SLACK = 1e-9
_FARTHEST = 6e10  # seconds; dates end with the year 1 on the other side
_ROLLING_MARK = struct.Struct("=q")
_CALENDAR_STATE = struct.Struct("=3d")


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `amount` of `unit` in each `window`; amount 0 admits nothing.

    `unit`: requests, tokens or dollars. `window`: minute, hour, day or month. `rolling`: True for any span of that
    length, False for calendar windows, None for the usual one (rolling minutes and hours, calendar days and months).
    `zone`: "UTC" or the IANA name of the time zone whose midnight begins a day or month; minutes and hours are cut on UTC.
    Raises ConfigError naming every field that is wrong.
    """

    amount: float
    unit: str
    window: str
    rolling: bool | None = None
    zone: str = "UTC"

    def __post_init__(self) -> None:
        problems = _limit_problems(self)
        if problems:
            raise ConfigError(problems)
        if self.rolling is None:
            object.__setattr__(self, "rolling", self.window in ("minute", "hour"))

    @property
    def ceiling(self) -> float:
        """The amount, plus a billionth of a dollar that sums of cents need in binary."""
        return self.amount + _DOLLAR_SLACK if self.unit == "dollars" else self.amount

    def __str__(self) -> str:
        rolling = "rolling " if self.rolling and self.window in ("day", "month") else ""
        return f"{self.quantity(self.amount)} per {rolling}{self.window}"

    def quantity(self, amount: float) -> str:
        """`amount` with the limit's unit, in words."""
        if self.unit == "dollars":
            return f"${amount:.6f}".rstrip("0").rstrip(".")
        unit = self.unit[:-1] if amount == 1 else self.unit
        return f"{amount:.0f} {unit}" if amount == int(amount) else f"{amount:g} {unit}"


class Tally:
    """What is used of one limit, charged to its newest slot. Plain and mutable: the stores' hot path.

    `used`: all that counts; `older`: what of it lies in older slots. `mark`: the newest slot's name, None before any.
    Within `begin <= now < end` (epoch seconds) nothing moves; at `gone` the newest slot has passed.
    """

    __slots__ = ("begin", "end", "gone", "limit", "mark", "older", "used")

    def __init__(self, limit: Limit, mark: float | None = None, used: float = 0.0, older: float = 0.0) -> None:
        self.limit = limit
        self.mark = mark
        self.used = used
        self.older = older
        self.begin = math.inf
        self.end = -math.inf
        self.gone = math.inf

    def moved(self, now: float) -> Tally:
        """The count as of `now`: itself if nothing moves, else a new one. Raises QuotaStoreError for an absurd time."""
        raise NotImplementedError

    def correct(self, mark: float | None, delta: float) -> None:
        """Adds `delta` (negative gives back) to the slot named `mark`, if it still counts; no slot falls below 0."""
        if mark == self.mark:
            used = self.used + delta
            self.used = used if used > self.older else self.older

    def frees_at(self, amount: float) -> float | None:
        """Epoch seconds when `amount` of what is used has passed; 0 asks for any of it, None means nothing is used."""
        return self.end if self.used > 0 else None

    def pack(self) -> bytes:
        """The count as bytes, for `tally_unpacked`; empty before the first use."""
        raise NotImplementedError

    def relimited(self, limit: Limit) -> Tally:
        """The same count under a limit that differs in its amount only."""
        other = copy.copy(self)
        other.limit = limit
        return other


class _Calendar(Tally):
    """One slot named by its beginning. It never moves back: after a clock's step back the newest window is charged."""

    __slots__ = ()

    def moved(self, now: float) -> Tally:
        if now < self.end:
            return self
        return _calendar(self.limit, *window_bounds(now, self.limit.window, self.limit.zone))

    def pack(self) -> bytes:
        return b"" if self.mark is None else _CALENDAR_STATE.pack(self.begin, self.end, self.used)


class _Rolling(Tally):
    """A ring of slots named by their number since the epoch. The newest slot's place in the ring is written by `_whole`.

    A step back within the window goes on charging the newest slot; a longer one brings all that is used to the slot
    of the new time, so that it counts for one more window and no longer.
    """

    __slots__ = ("first", "ring", "scanned")

    ring: array[float]
    first: float
    """When the oldest slot that holds something passes, as found while `older` was `scanned`."""
    scanned: float

    def moved(self, now: float) -> Tally:
        slot = int(check_time(now) // _width(self.limit))
        if self.mark is None:
            return _rolling(self.limit, slot, _empty_ring())
        newest = int(self.mark)
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

    def correct(self, mark: float | None, delta: float) -> None:
        if mark is None or self.mark is None:
            return
        if mark > self.mark:  # a long step back moved that slot's charge: more is charged here, nothing is given back
            mark, delta = self.mark, max(0.0, delta)
        if mark == self.mark:
            super().correct(mark, delta)
        elif self.mark - mark <= _SLOTS:
            index = int(mark) % _RING
            delta = max(delta, -self.ring[index])
            self.ring[index] += delta
            self.older += delta
            self.used += delta

    def frees_at(self, amount: float) -> float | None:
        if self.older <= 0:
            return self.gone if self.used > 0 else None
        if amount > 0:
            return self._passed(amount)
        if self.scanned != self.older:  # looked for at every call, and the same as long as no older slot changes
            self.first, self.scanned = self._passed(0.0) or self.gone, self.older
        return self.first

    def _passed(self, amount: float) -> float | None:
        ring = self._whole()
        newest = int(self.mark or 0)
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
        return b"" if self.mark is None else _ROLLING_MARK.pack(self.mark) + self._whole().tobytes()

    def _whole(self) -> array[float]:
        if self.mark is not None:
            self.ring[int(self.mark) % _RING] = self.used - self.older
        return self.ring


def tally_of(limit: Limit) -> Tally:
    """An empty count of `limit`."""
    if not limit.rolling:
        return _Calendar(limit)
    tally = _Rolling(limit)
    tally.ring, tally.scanned = _empty_ring(), -1.0
    return tally


def tally_unpacked(limit: Limit, state: bytes) -> Tally:
    """The count that `pack` gave. Raises QuotaStoreError where `state` is no count of such a limit."""
    if not state:
        return tally_of(limit)
    try:
        if not limit.rolling:
            return _calendar(limit, *_CALENDAR_STATE.unpack(state))
        ring = array("d", state[_ROLLING_MARK.size :])
        if len(ring) != _RING:
            raise ValueError(f"{len(ring)} slots")
        return _rolling(limit, _ROLLING_MARK.unpack_from(state)[0], ring)
    except (struct.error, ValueError) as exc:
        raise QuotaStoreError(f"a count of {limit} is damaged ({len(state)} bytes)") from exc


def next_reset(now: float, window: str, zone: str = "UTC") -> float:
    """Epoch seconds when the calendar window that holds `now` ends in `zone`. Raises ConfigError for unknown names."""
    return window_bounds(now, window, zone)[1]


def window_bounds(now: float, window: str, zone: str = "UTC") -> tuple[float, float]:
    """Beginning and end (epoch seconds) of the calendar window that holds `now`, `begin <= now < end`.

    Days and months begin at midnight in `zone`, so that a day may have 23 or 25 hours. Raises ConfigError for an unknown
    window or zone, QuotaStoreError for an absurd time.
    """
    check_time(now)
    if window in ("minute", "hour"):
        begin = now // WINDOWS[window] * WINDOWS[window]
        return begin, begin + WINDOWS[window]
    if window not in WINDOWS:
        raise ConfigError(f"window: {window!r} is none of {', '.join(WINDOWS)}")
    place = _zone(zone)
    today = datetime.fromtimestamp(math.floor(now), place).date()
    first = today if window == "day" else today.replace(day=1)
    after = first + timedelta(days=1) if window == "day" else (first + timedelta(days=31)).replace(day=1)
    # Where clocks go back over midnight, the day ends with the second of its two midnights.
    ends = [_midnight(after, place, fold) for fold in (0, 1)]
    return _midnight(first, place, 0), next(end for end in ends if end > now)


def check_time(now: float) -> float:
    """`now` itself. Raises QuotaStoreError for what is no epoch time in seconds."""
    if not -_FARTHEST < now < _FARTHEST:
        raise QuotaStoreError(f"the time {now!r} is no epoch time in seconds; check the clock that is passed in")
    return now


def zone_problem(zone: object) -> str | None:
    """What is wrong with a time zone's name, None if it can be used."""
    if not isinstance(zone, str):
        return f"must be the name of a time zone, not {type(zone).__name__}"
    try:
        _zone(zone)
    except ConfigError as error:
        return error.problems[0].removeprefix("zone: ")
    return None


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ConfigError(
            f'zone: {name!r} is no known time zone; use "UTC" or a name such as "America/Los_Angeles"'
            ' (if this system has no time zone data: "pip install tzdata")'
        ) from exc


def _midnight(day: date, place: tzinfo, fold: int) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=place, fold=fold).timestamp()


def _calendar(limit: Limit, begin: float, end: float, used: float = 0.0) -> _Calendar:
    tally = _Calendar(limit, begin, used)
    tally.begin = begin
    tally.end = tally.gone = end
    return tally


def _rolling(limit: Limit, slot: int, ring: array[float]) -> _Rolling:
    used = sum(ring)
    width = _width(limit)
    tally = _Rolling(limit, slot, used, used - ring[slot % _RING])
    tally.ring, tally.scanned = ring, -1.0
    tally.begin = slot * width
    tally.end = (slot + 1) * width
    tally.gone = (slot + _RING) * width
    return tally


def _width(limit: Limit) -> float:
    return WINDOWS[limit.window] / _SLOTS


def _empty_ring() -> array[float]:
    return array("d", bytes(8 * _RING))


def _limit_problems(limit: Limit) -> list[str]:
    problems = []
    amount: object = limit.amount
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        problems.append(f"amount: must be a number, not {type(amount).__name__}")
    elif not 0 <= amount <= MAX_AMOUNT:
        problems.append("amount: must be a number from 0 to 2**53")
    if limit.unit not in UNITS:
        problems.append(f"unit: {limit.unit!r} is none of {', '.join(UNITS)}")
    if not isinstance(limit.window, str) or limit.window not in WINDOWS:
        problems.append(f"window: {limit.window!r} is none of {', '.join(WINDOWS)}")
    if limit.rolling is not None and not isinstance(limit.rolling, bool):
        problems.append(f"rolling: must be true or false, not {type(limit.rolling).__name__}")
    wrong_zone = zone_problem(limit.zone)
    if wrong_zone:
        problems.append(f"zone: {wrong_zone}")
    return problems
