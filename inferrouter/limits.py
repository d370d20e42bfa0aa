"""Defines limits and their windows, and says when a calendar window begins and ends in its time zone.

Strategy: frozen values and pure arithmetic, time passed in as epoch seconds. Must never know of accounts, stores, locks or
clocks, nor what is used: that is `quota_counting`.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache

from .costs import UNITS
from .errors import ConfigError, QuotaStoreError
from .frozen import frozen_value

WINDOWS = {"minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 7 * 86400.0, "month": 31 * 86400.0}
"""Seconds of a rolling window; a rolling month is 31 days, the longest month there is."""
SPANS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
"""Seconds of what the letter at the end of a span stands for; "w" is seven days."""
LONGEST_SPAN = 366 * 86400
CALENDAR = ("day", "week", "month")
"""Windows that follow the calendar unless they are said to be rolling."""
MAX_AMOUNT = 2.0**53
"""Above it a float no longer counts single units."""

FARTHEST = 6e10
"""Epoch seconds, both ways; dates end with the year 1 on the other side."""


@frozen_value
class Limit:
    """At most `amount` of `unit` in each `window`; amount 0 admits nothing.

    `unit`: a name of `costs.UNITS`, as requests, tokens or dollars. `window`: minute, hour, day, week or month, or a span such as
    "90s", "5h" or "7d". `rolling`: True for any span of that length, False for calendar windows, None for the usual one (rolling
    minutes, hours and spans, calendar days, weeks from Monday, and months). `zone`: "UTC" or the IANA name of the time zone
    whose midnight begins a day, week or month; minutes and hours are cut on UTC.
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
        if self.window not in WINDOWS:
            object.__setattr__(self, "window", canonical_window(self.window))
        if self.rolling is None:
            object.__setattr__(self, "rolling", self.window not in CALENDAR)

    @property
    def ceiling(self) -> float:
        """The amount, plus the slack that sums of fractions need in binary."""
        return self.amount + UNITS[self.unit].slack

    @property
    def span_s(self) -> float:
        """Seconds of a rolling window."""
        return WINDOWS.get(self.window) or _span(self.window) or 0.0

    def __str__(self) -> str:
        if UNITS[self.unit].held:
            return self.quantity(self.amount)
        rolling = "rolling " if self.rolling and self.window in CALENDAR else ""
        return f"{self.quantity(self.amount)} per {rolling}{self.window}"

    def quantity(self, amount: float) -> str:
        """`amount` with the limit's unit, in words."""
        return UNITS[self.unit].shown(amount)


def canonical_window(window: object) -> str | None:
    """The one way in which a window is written: "60s" is a minute and "24h" is "1d"; None for what is not a window."""
    if not isinstance(window, str):
        return None
    if window in WINDOWS:
        return window
    seconds = _span(window)
    if seconds is None or not 1 <= seconds <= LONGEST_SPAN:
        return None
    if seconds in (60, 3600):
        return "minute" if seconds == 60 else "hour"
    return next(f"{seconds // length}{letter}" for letter, length in SPANS.items() if seconds % length == 0)


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
        raise ConfigError(f"window: {window!r} is not one of {', '.join(WINDOWS)}")
    place = _zone(zone)
    today = datetime.fromtimestamp(math.floor(now), place).date()
    first = {"day": today, "week": today - timedelta(days=today.weekday()), "month": today.replace(day=1)}[window]
    after = first + timedelta(days={"day": 1, "week": 7, "month": 31}[window])
    after = after.replace(day=1) if window == "month" else after
    # Where clocks go back over midnight, the day ends with the second of its two midnights.
    ends = [_midnight(after, place, fold) for fold in (0, 1)]
    return _midnight(first, place, 0), next(end for end in ends if end > now)


def check_time(now: float) -> float:
    """`now` itself. Raises QuotaStoreError for what is not an epoch time in seconds."""
    if not -FARTHEST < now < FARTHEST:
        raise QuotaStoreError(f"the time {now!r} is not an epoch time in seconds; check the clock that is passed in")
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
            f'zone: {name!r} is not a known time zone; use "UTC" or a name such as "America/Los_Angeles"'
            ' (if this system has no time zone data: "pip install tzdata")'
        ) from exc


def _midnight(day: date, place: tzinfo, fold: int) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=place, fold=fold).timestamp()


def _span(window: str) -> int | None:
    """Seconds of a span such as "5h"; None for what is not one."""
    digits, letter = window[:-1], window[-1:]
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        return None
    length = 7 * 86400 if letter == "w" else SPANS.get(letter)
    return None if length is None else int(digits) * length


def _limit_problems(limit: Limit) -> list[str]:
    problems = []
    amount: object = limit.amount
    if isinstance(amount, bool) or not isinstance(amount, (int, float)):
        problems.append(f"amount: must be a number, not {type(amount).__name__}")
    elif not 0 <= amount <= MAX_AMOUNT:
        problems.append("amount: must be a number from 0 to 2**53")
    if not isinstance(limit.unit, str) or limit.unit not in UNITS:
        problems.append(f"unit: {limit.unit!r} is not one of {', '.join(UNITS)}")
    if canonical_window(limit.window) is None:
        problems.append(f"window: {limit.window!r} is not one of {', '.join(WINDOWS)}, nor a span such as '5h' or '7d'")
    elif limit.rolling is False and canonical_window(limit.window) not in WINDOWS:
        problems.append(f"rolling: a span such as {limit.window!r} is always rolling; name a window for a calendar one")
    if limit.rolling is not None and not isinstance(limit.rolling, bool):
        problems.append(f"rolling: must be true or false, not {type(limit.rolling).__name__}")
    wrong_zone = zone_problem(limit.zone)
    if wrong_zone:
        problems.append(f"zone: {wrong_zone}")
    return problems
