"""Reads what a provider's refusal says, whatever shape the server gave it, and how long it asks to wait.

Strategy: one generic reading of objects, lists, strings and text, for all providers alike: the message, the codes, a status, the
delay and the metadata. A wait is in seconds, from 0 to a day, wherever it was found: in a header, a sentence, or the moment when
a spent window is refilled; only plain ASCII decimal numbers count. Must never raise on foreign input, read a clock (`now` comes
in), or judge what the refusal means: that is `error_table`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import MalformedResponseError
from .frozen import EMPTY, frozen_value
from .wire_json import clean_text, embedded_status, load_cut_json, load_json

READ_BYTES = 64 << 10
"""More of an error body than this is not looked at."""
MAX_WAIT = 86400.0
"""Seconds, a day: no wait is longer."""

_CODE_KEYS = ("code", "type", "status", "error_code", "reason", "error_type")
_TITLE = re.compile(r"<title[^>]{0,100}>([^<]{1,300})<", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,13}(?:\.[0-9]{1,12})?")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_UNIT = r"milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|h|days?|d"
_PIECE = re.compile(rf"([0-9]{{1,9}}(?:\.[0-9]{{1,12}})?) ?({_UNIT})")
_PIECES = rf"(?:[0-9]{{1,9}}(?:\.[0-9]{{1,12}})? ?(?:{_UNIT})[ ,]{{0,2}}){{1,5}}"
_DURATION = re.compile(_PIECES)
_ASKED = re.compile(rf"\b(?:retry|try again|wait)(?: [a-z]{{1,12}}){{0,3}} ({_PIECES})(?![a-z0-9])", re.IGNORECASE)
_REMAINING = re.compile(r"((?:x|anthropic)-ratelimit)-(?:remaining(-[a-z-]+)?|([a-z-]+)-remaining)")
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})")


@frozen_value
class ErrorBody:
    """What was read. `text`: the body; `codes`: its codes, types and reasons in lower case, most specific place first;
    `status`: the HTTP status it names, or 0; `retry_delay`: Gemini's, such as "48s".
    """

    text: str
    message: str = ""
    codes: tuple[str, ...] = ()
    status: int = 0
    retry_delay: str = ""
    metadata: Mapping[str, Any] = EMPTY
    request_id: str | None = None

    @property
    def code_set(self) -> frozenset[str]:
        """`codes` as a set."""
        return frozenset(self.codes)


def read_body(body: bytes) -> ErrorBody:
    """`body` read as far as it can be. Never raises."""
    text = clean_text(body[:READ_BYTES].decode("utf-8", "replace").removeprefix("\ufeff")).strip()
    try:
        item = _item(text)
    except MalformedResponseError:
        return ErrorBody(text, _cut(_from_page(text)))
    if isinstance(item, list):
        item = next((entry for entry in item if isinstance(entry, Mapping)), item[0] if item else "")
    if not isinstance(item, Mapping):
        return ErrorBody(text, _cut(item) if isinstance(item, str) else "")
    return _from_object(item, text)


def asked_wait(headers: Mapping[str, str], error_body: ErrorBody, now: float) -> float | None:
    """Seconds to wait by the first of header, body and rate-limit headers that says; else None. `now`: epoch s, 0 if unknown."""
    for found in (retry_after_header(headers, now), retry_after_text(error_body.message, error_body.retry_delay)):
        if found is not None:
            return found
    epoch = body_epoch(error_body.metadata)
    return clamp(epoch - now) if epoch is not None and now > 0 else spent_window(headers, now)


def retry_after_header(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds from `retry-after-ms` (if above 0) or `retry-after` (number or HTTP date against `now`); None if neither says."""
    millis = plain_number(headers.get("retry-after-ms"))
    if millis:
        return clamp(millis / 1000)
    value = headers.get("retry-after")
    seconds = plain_number(value)
    if seconds is not None:
        return clamp(seconds)
    moment = _http_date(value) if isinstance(value, str) else None
    return None if moment is None else clamp(moment - now)


def retry_after_text(message: str, retry_delay: str = "") -> float | None:
    """Seconds from a sentence such as "Please try again in 9m38.016s", else from Gemini's `retryDelay` ("48s")."""
    asked = _ASKED.search(message)
    return duration(asked.group(1)) if asked else duration(retry_delay)


def spent_window(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until every window whose remaining count is 0 in the rate-limit headers is refilled; None if none is spent."""
    return max(_resets(headers, now), default=None)


def duration(text: str) -> float | None:
    """Seconds of "12ms", "1m12.5s", "20 seconds"; None for anything else."""
    text = text.strip().lower()
    one = _PIECE.fullmatch(text)
    if one is not None:  # as most are
        number, unit = one.groups()
        return clamp(float(number) * (_UNITS.get(unit) or _UNITS[_short(unit)]))
    if len(text) > 80 or not _DURATION.fullmatch(text):
        return None
    return clamp(sum(float(number) * _UNITS[_short(unit)] for number, unit in _PIECE.findall(text)))


def body_epoch(metadata: Mapping[str, Any]) -> float | None:
    """Epoch seconds of the reset that OpenRouter puts into an error's metadata as the headers it would have sent."""
    headers = metadata.get("headers")
    if not isinstance(headers, Mapping):
        return None
    found = {name.lower(): value for name, value in headers.items() if isinstance(name, str)}
    value = found.get("x-ratelimit-reset")
    if type(value) is int and value >= 0:
        value = str(value)
    number = plain_number(value)
    return _epoch(number) if number is not None else None


def clamp(seconds: float) -> float:
    """`seconds`, but from 0 to a day."""
    return min(max(0.0, seconds), MAX_WAIT)


def _item(text: str) -> Any:
    """The JSON value in `text`, or as much as there is of an object or a list that was cut off."""
    try:
        return load_json(text)
    except MalformedResponseError:
        if text[:1] not in ("{", "["):
            raise
    return load_cut_json(text)


def _from_object(item: Mapping[str, Any], text: str) -> ErrorBody:
    error = item.get("error")
    inner: Mapping[str, Any] = error if isinstance(error, Mapping) else EMPTY
    metadata = inner.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else EMPTY
    notes = list(_notes(inner)) + list(_notes(item))
    message = next(filter(None, _sentences(item, error, inner)), "")
    raw = metadata.get("raw")
    if isinstance(raw, str) and raw and raw not in message:
        message = f"{message}: {raw}" if message else raw
    request_id = item.get("request_id")
    return ErrorBody(
        text,
        _cut(message),
        tuple(_codes(inner, item, *notes, metadata)),
        embedded_status(item, 0),
        next((note["retryDelay"] for note in notes if isinstance(note.get("retryDelay"), str)), ""),
        metadata,
        request_id[:200] if isinstance(request_id, str) and request_id.isprintable() and request_id else None,
    )


def _sentences(item: Mapping[str, Any], error: Any, inner: Mapping[str, Any]) -> Iterator[str]:
    for value in (inner.get("message"), error, item.get("message"), item.get("detail"), inner.get("detail"), inner.get("error")):
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            nested = value.get("message") or value.get("detail")
            yield nested if isinstance(nested, str) else ""
        elif isinstance(value, list):
            found = [entry.get("msg") for entry in value[:5] if isinstance(entry, Mapping)]
            yield "; ".join(part for part in found if isinstance(part, str))
    for value in (item.get("title"), inner.get("type"), inner.get("code")):
        yield value if isinstance(value, str) else ""


def _notes(holder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects that servers put below an error: a list of details, one details object, an inner error."""
    details = holder.get("details")
    for note in details[:20] if isinstance(details, list) else (details, holder.get("innererror")):
        if isinstance(note, Mapping):
            yield note


def _codes(*holders: Mapping[str, Any]) -> Iterator[str]:
    for holder in holders:
        for key in _CODE_KEYS:
            value = holder.get(key)
            if isinstance(value, str) and value:
                yield value[:100].lower()


def _from_page(text: str) -> str:
    if not text.lstrip().startswith("<"):
        return text
    title = _TITLE.search(text)
    return f"an HTML page: {title.group(1).strip()}" if title else "an HTML page instead of an API answer"


def _cut(text: str) -> str:
    """The beginning of `text` in one line, without what would steer a terminal or turn the writing around."""
    shown = clean_text(text[:2000])
    if not shown.isprintable():
        shown = "".join(char if char.isprintable() else " " for char in shown)
    return " ".join(shown.split())


def _resets(headers: Mapping[str, str], now: float) -> Iterator[float]:
    for name, remaining in headers.items():
        found = _REMAINING.fullmatch(name)
        if not found or plain_number(remaining) != 0:
            continue
        family, after, before = found.groups()
        value = headers.get(f"{family}-{before}-reset" if before else f"{family}-reset{after or ''}")
        wait = seconds_until(value, now)
        if wait is not None:
            yield wait


def seconds_until(value: Any, now: float) -> float | None:
    """Seconds, at most a day, until a reset written as a duration, bare seconds, an epoch in s or ms, or an RFC 3339 moment."""
    if isinstance(value, str) and value.endswith("s"):  # neither a number nor a moment
        return duration(value)
    number = plain_number(value)
    if number is not None:
        moment = _epoch(number)
        return clamp(number if moment is None else moment - now)
    if not isinstance(value, str):
        return None
    if value[4:5] == "-" and _RFC3339.fullmatch(value):
        from datetime import datetime

        try:
            return clamp(datetime.fromisoformat(value).timestamp() - now)
        except (ValueError, OverflowError):
            return None
    return duration(value)


def _epoch(number: float) -> float | None:
    """Epoch seconds if the number is large enough to be an epoch: in milliseconds from 1e11, in seconds from 1e9."""
    if number >= 1e11:
        return number / 1000
    return number if number >= 1e9 else None


def plain_number(value: Any) -> float | None:
    """The number that a text is in plain ASCII decimals, of at most 13 digits before the point; None for anything else."""
    if not isinstance(value, str):
        return None
    if value.isascii() and value.isdigit() and len(value) <= 13:  # as most are
        return float(value)
    text = value.strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def _http_date(value: str) -> float | None:
    from email.utils import mktime_tz, parsedate_tz

    try:
        parsed = parsedate_tz(value[:100])
        if parsed is None:
            return None
        # A date without a zone is meant as GMT, not as this machine's time.
        return float(mktime_tz((*parsed[:9], parsed[9] or 0)))
    except (TypeError, ValueError, OverflowError, IndexError):
        return None


def _short(unit: str) -> str:
    if unit.startswith("mi"):
        return "ms" if unit.startswith("mil") else "m"
    return unit if unit == "ms" else unit[0]
