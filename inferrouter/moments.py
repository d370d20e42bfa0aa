"""Puts moments and spans of time into words: "in 12 s", "in 25 min (00:00 Pacific)", "48 days old".

Strategy: pure functions of epoch seconds, `now` passed in. A person reads the clock of the place where a limit begins anew, or
the machine's own; data stays in UTC. Must never read a clock, and never raise: a moment beyond the calendar is told in seconds.
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, tzinfo

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0

CLOCK_FROM_S = 120.0
"""Seconds; a wait that is longer is told with the hour it ends at."""


def span_in_words(seconds: float) -> str:
    """How long `seconds` are, rounded up to what matters: "12 s", "25 min", "3 h 20 min", "2 days 4 h"."""
    if not math.isfinite(seconds):
        return "for ever"
    whole = max(0, math.ceil(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = math.ceil(whole / MINUTE)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes and hours < 24 else f"{hours + (minutes > 0)} h"
    days, hours = divmod(hours + (minutes > 0), 24)
    return f"{days} days {hours} h" if hours and days < 7 else f"{days + (hours > 0)} days"


def moment_in_words(at: float, now: float, zone: str = "") -> str:
    """When `at` is, seen from `now`: "now", "in 12 s", "in 25 min (00:00 Pacific)".

    `zone`: the IANA zone whose clock is shown, "UTC", or "" (as "rolling") for this machine's own.
    """
    wait = at - now
    if wait <= 0:
        return "now"
    if wait < CLOCK_FROM_S or not math.isfinite(at):
        return f"in {span_in_words(wait)}"
    clock = clock_in_words(at, zone, with_date=wait >= DAY)
    return f"in {span_in_words(wait)} ({clock})" if clock else f"in {span_in_words(wait)}"


def clock_in_words(at: float, zone: str = "", with_date: bool = True) -> str:
    """The clock at `at` in `zone` as in `moment_in_words`, rounded up to the minute; "" beyond the calendar."""
    try:
        local = datetime.fromtimestamp(math.ceil(at / MINUTE) * MINUTE, UTC).astimezone(_place(zone))
    except (OverflowError, ValueError, OSError):
        return ""
    form = "%Y-%m-%d %H:%M" if with_date else "%H:%M"
    return f"{local.strftime(form)} {_label(zone, local)}".rstrip()


def utc_in_words(at: float) -> str:
    """`at` for data and logs: "2026-01-15 12:00:00 UTC", rounded up; seconds after the epoch beyond the calendar."""
    try:
        return datetime.fromtimestamp(math.ceil(at), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{at:.0f} s after the epoch"


def age_in_words(as_of: str, now: float) -> str:
    """How old a figure of the ISO date `as_of` is at `now`: "48 days old", "of today"; "" for what is not a date."""
    try:
        days = (datetime.fromtimestamp(now, UTC).date() - date.fromisoformat(as_of)).days
    except (OverflowError, ValueError, OSError):
        return ""
    if days <= 0:
        return "of today"
    return "1 day old" if days == 1 else f"{days} days old"


def _place(zone: str) -> tzinfo | None:
    """The zone itself; None is this machine's own."""
    if zone in ("", "rolling"):
        return None
    if zone == "UTC":
        return UTC
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def _label(zone: str, local: datetime) -> str:
    if zone in _NAMES:
        return _NAMES[zone]
    return local.tzname() or ""


_NAMES = {"America/Los_Angeles": "Pacific", "America/New_York": "Eastern", "UTC": "UTC"}
