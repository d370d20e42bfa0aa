"""Reads what a provider says of its own limits, in the headers of any answer and in the body of a refusal.

Strategy: one table of header families; a header's name says whether it is a limit, what remains or when that is refilled, of
which unit and in which window. Where a name leaves the window out, the provider's row says it, or the refill does: a bucket that
was emptied by a tenth and is full again in six seconds is one of a minute. Values are plain decimal numbers, or they are nothing.
Must never raise on foreign input, read a clock, or know accounts and buckets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from .error_body import duration, plain_number, seconds_until
from .errors import MalformedResponseError
from .frozen import frozen_value, quick, replace
from .limit_headers import HEARD
from .wire_json import load_json

MAX_FIELDS = 200
"""More headers, or details of a body, are not looked at."""
BODY_BYTES = 64 << 10
SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0, "week": 604_800.0, "month": 2_678_400.0}
UNITS = {
    "": "requests",
    "requests": "requests",
    "req": "requests",
    "tokens": "tokens",
    "project-tokens": "tokens",
    "input-tokens": "input_tokens",
    "output-tokens": "output_tokens",
}

# OpenAI: https://platform.openai.com/docs/guides/rate-limits (limit, remaining, reset as "1s" or "6m0s"; a unit, no window).
# Groq: https://console.groq.com/docs/rate-limits (requests are per day, tokens per minute).
# Cerebras: https://inference-docs.cerebras.ai/support/rate-limits (the window in the name, reset in seconds).
# Mistral: limit and remaining of req-minute, tokens-minute and tokens-month, without reset, seen on answers of 2026.
# SambaNova: https://docs.sambanova.ai/docs/en/models/rate-limits (requests a minute; those of a day end in -day).
# xAI: https://docs.x.ai/docs/guides/rate-limits (requests and tokens a minute).
# GitHub Models, Azure: renewalperiod in seconds beside limit, remaining and reset, seen on answers of 2026.
# Kong: https://docs.konghq.com/hub/kong-inc/rate-limiting/ (X-RateLimit-Limit-Minute).
_FAMILY = re.compile(
    r"(?:x-)?ratelimit-(?P<what>limit|remaining|reset|renewalperiod)"
    r"(?:-(?P<unit>requests|req|tokens|project-tokens|input-tokens|output-tokens))?"
    r"(?:-(?P<window>second|minute|hour|day|week|month))?"
)
# https://docs.claude.com/en/api/rate-limits: per minute, resets as RFC 3339.
_ANTHROPIC = re.compile(
    r"anthropic-ratelimit-(?P<unit>requests|tokens|input-tokens|output-tokens)-(?P<what>limit|remaining|reset)"
)
# Gateways that put the window first: X-RateLimit-Minute-Limit.
_WINDOW_FIRST = re.compile(r"x-ratelimit-(?P<window>second|minute|hour|day|month)-(?P<what>limit|remaining|reset)")
_BY_NAME = {
    # Cohere's trial keys, seen on answers of 2026.
    "x-trial-endpoint-call-limit": ("limit", "trial", "requests", 60.0),
    "x-trial-endpoint-call-remaining": ("remaining", "trial", "requests", 60.0),
    "x-endpoint-monthly-call-limit": ("limit", "monthly", "requests", SECONDS["month"]),
}
"""Names that stand by themselves: what each is, with which others it belongs together, its unit and its window."""
WINDOWS_BY_PROVIDER: Mapping[str, Mapping[str, float]] = {
    "groq": {"requests": 86400.0, "tokens": 60.0},
    "sambanova": {"requests": 60.0},
    "grok": {"requests": 60.0, "tokens": 60.0},
    "xai": {"requests": 60.0, "tokens": 60.0},
}
"""Seconds of the window that a provider's headers mean where their names do not say it."""

# https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/: draft 10 writes RateLimit-Policy: "name";q=100;w=60 and
# RateLimit: "name";r=50;t=30; draft 7 limit=100, remaining=50, reset=5; draft 3 RateLimit-Limit: 100, 100;w=60.
_ITEM = re.compile(r"\s*\"?([^\";,=]{0,100})\"?\s*((?:;\s*[a-z*]{1,10}\s*=\s*[^;,]{0,40})*)\s*(?:,|$)")
_PARAMETER = re.compile(r";\s*([a-z*]{1,10})\s*=\s*\"?([^;,\"]{0,40})")
_PAIR = re.compile(r"\b(limit|remaining|reset)\s*=\s*([0-9.]{1,20})")

# Gemini: https://ai.google.dev/gemini-api/docs/rate-limits, google.rpc.QuotaFailure.
_QUOTA_WINDOW = re.compile(r"Per(Minute|Hour|Day|Month)", re.IGNORECASE)
_SENTENCE = re.compile(r"\(([RT])P([MHD])\): Limit ([0-9]{1,13})(?:, Used ([0-9]{1,13}))?")
_LETTERS = {"M": 60.0, "H": 3600.0, "D": 86400.0}
_OPENROUTER_WINDOW = re.compile(r"per[- ](min|minute|hour|day|month)", re.IGNORECASE)


@frozen_value
class Reading:
    """What was said of one limit. `unit`: requests, tokens, input_tokens or output_tokens; `window`: its seconds, 0: not said.

    `limit`, `remaining`: in that unit, None where it was not said. `resets_in`: seconds until it is refilled, at most a day, or
    None. `source`: the header or quota that said it. `model`: where the provider names one, else "". `sure`: the window
    was named.
    """

    unit: str
    window: float
    limit: float | None
    remaining: float | None
    resets_in: float | None
    source: str
    model: str = ""
    sure: bool = True


_new_reading = quick(Reading)


def read_headers(headers: Mapping[str, str], now: float, provider: str = "") -> tuple[Reading, ...]:
    """What `headers` (lower-case names) say; () where nothing. `now`: epoch seconds. Never raises."""
    found = [_reading(group, named, headers, now, provider) for group, named in _groups(tuple(headers))]
    drafts = _draft(headers, now) if "ratelimit" in headers else ()
    return (*filter(None, found), *drafts)


def read_refusal(headers: Mapping[str, str], body: bytes, now: float, provider: str = "") -> tuple[Reading, ...]:
    """What a refusal says, in headers and body (Gemini's QuotaFailure, OpenRouter's headers in the body). Never raises."""
    found = read_headers(headers, now, provider)
    try:
        item = load_json(body[:BODY_BYTES])
    except MalformedResponseError:
        return found
    if isinstance(item, list):
        item = item[0] if item else None
    error = item.get("error") if isinstance(item, Mapping) else None
    if not isinstance(error, Mapping):
        return found
    return (*found, *_quota_failures(error), *_forwarded(error, now), *_in_words(error.get("message")))


@lru_cache(maxsize=32)
def _groups(names: tuple[str, ...]) -> tuple[tuple[tuple[str, str, float], Mapping[str, str]], ...]:
    """What headers of these names speak of, each with the names that say its limit, what remains and so on. The answers of one
    server have the same names over and over."""
    groups: dict[tuple[str, str, float], dict[str, str]] = {}
    for name in names:
        place = _place(name)
        if place is not None:
            what, family, unit, window = place
            groups.setdefault((family, unit, window), {})[what] = name
            if len(groups) > MAX_FIELDS:
                break
    return tuple(groups.items())


@lru_cache(maxsize=512)
def _place(name: str) -> tuple[str, str, str, float] | None:
    """What a header of that name is: limit, remaining, reset or renewalperiod; its family, unit and window, 0 if unsaid."""
    if not any(word in name for word in HEARD):  # nobody looks at an answer for its sake
        return None
    if name in _BY_NAME:
        return _BY_NAME[name]
    match = _FAMILY.fullmatch(name)
    if match:
        window = match["window"]
        family = "x" if name.startswith("x-") else "draft"
        if match["unit"] in (None, "project-tokens"):
            family = match["unit"] or f"bare {family}"
        return match["what"], family, UNITS[match["unit"] or ""], SECONDS[window] if window else 0.0
    match = _ANTHROPIC.fullmatch(name)
    if match:
        return match["what"], "anthropic", UNITS[match["unit"]], 60.0
    match = _WINDOW_FIRST.fullmatch(name)
    return (match["what"], "first", "requests", SECONDS[match["window"]]) if match else None


def _reading(
    group: tuple[str, str, float], named: Mapping[str, str], headers: Mapping[str, str], now: float, provider: str
) -> Reading | None:
    family, unit, window = group
    limit = _first_number(headers.get(named.get("limit", "")))
    remaining = _first_number(headers.get(named.get("remaining", "")))
    if limit is None and remaining is None:
        return None
    reset = headers.get(named.get("reset", ""))
    resets_in = seconds_until(reset, now)
    if not window:
        stated = plain_number(headers.get(named["renewalperiod"])) if "renewalperiod" in named else None
        window = stated or _window_of_draft(headers, named.get("limit", ""), limit)
    if not window:
        meant = {} if family.startswith("bare") else WINDOWS_BY_PROVIDER.get(provider, {})
        window = meant.get(unit, 0.0)
    sure = bool(window)
    window = window or _window_by_refill(limit, remaining, reset, resets_in)
    source = named.get("limit" if remaining is None else "remaining") or named["limit"]
    return _checked(_new_reading(unit, window, limit, remaining, resets_in, source, "", sure))


def _checked(reading: Reading) -> Reading:
    """Nobody has more left than the limit is."""
    if reading.limit is None or reading.remaining is None or reading.remaining <= reading.limit:
        return reading
    return replace(reading, remaining=reading.limit)


def _first_number(value: str | None) -> float | None:
    """The number in a header; of a draft's list the first, which is the one that counts. Two different ones count as none."""
    number = plain_number(value)
    if number is not None or not isinstance(value, str) or "," not in value or len(value) > 300:
        return number
    parts = [part.strip() for part in value.split(",")]
    numbers = {plain_number(part) for part in parts if ";" not in part}
    return numbers.pop() if len(numbers) == 1 else None


def _window_of_draft(headers: Mapping[str, str], name: str, limit: float | None) -> float:
    """The window of the policy that allows `limit`, in `RateLimit-Limit: 100, 100;w=60` or in `RateLimit-Policy`."""
    stated = f"{headers.get(name) or ''},{headers.get('ratelimit-policy') or ''}"[:2000]
    if ";" not in stated:  # no parameter, so no window
        return 0.0
    for item in stated.split(",")[:40]:
        amount, _, rest = item.partition(";")
        parameters = _parameters(f";{rest}")
        if limit is not None and plain_number(parameters.get("q", amount)) == limit:
            window = plain_number(parameters.get("w"))
            if window:
                return window
    return 0.0


def _window_by_refill(limit: float | None, remaining: float | None, reset: Any, resets_in: float | None) -> float:
    """What is refilled within a minute is most likely a minute's. Else the window of a bucket that is refilled steadily, as
    OpenAI's and Groq's are: they write resets with a unit ("6m0s")."""
    if resets_in and resets_in <= SECONDS["minute"]:
        return SECONDS["minute"]
    seconds = duration(reset) if isinstance(reset, str) and reset[-1:].isalpha() else None
    if not seconds or limit is None or remaining is None or remaining >= limit:
        return 0.0
    span = seconds * limit / (limit - remaining)
    return next((window for window in SECONDS.values() if abs(span - window) <= 0.25 * window), 0.0)


def _draft(headers: Mapping[str, str], now: float) -> Iterator[Reading]:
    """`RateLimit` and `RateLimit-Policy` of the newer drafts."""
    stated = headers.get("ratelimit")
    if not isinstance(stated, str) or len(stated) > 2000:
        return
    pairs = dict(_PAIR.findall(stated))
    if pairs:
        limit, remaining = plain_number(pairs.get("limit")), plain_number(pairs.get("remaining"))
        window = _window_of_draft(headers, "", limit)
        if limit is not None or remaining is not None:
            yield _checked(Reading("requests", window, limit, remaining, seconds_until(pairs.get("reset"), now), "ratelimit"))
        return
    policies = _items(headers.get("ratelimit-policy"))
    for name, said in _items(stated).items():
        policy = policies.get(name, {})
        remaining = plain_number(said.get("r"))
        if remaining is None or policy.get("qu", "requests").strip('"') != "requests":
            continue
        limit, window = plain_number(policy.get("q")), plain_number(policy.get("w")) or 0.0
        yield _checked(Reading("requests", window, limit, remaining, seconds_until(said.get("t"), now), "ratelimit"))


def _items(value: str | None) -> dict[str, dict[str, str]]:
    """The named items of a structured list with their parameters."""
    if not isinstance(value, str) or len(value) > 2000:
        return {}
    return {name: _parameters(rest) for name, rest in _ITEM.findall(value)[:20] if rest}


def _parameters(text: str) -> dict[str, str]:
    return dict(_PARAMETER.findall(text[:2000]))


def _quota_failures(error: Mapping[str, Any]) -> Iterator[Reading]:
    """Gemini's violations: each names its metric, its quota, the model and mostly the amount."""
    details = error.get("details")
    for detail in details[:MAX_FIELDS] if isinstance(details, list) else ():
        violations = detail.get("violations") if isinstance(detail, Mapping) else None
        for each in violations[:MAX_FIELDS] if isinstance(violations, list) else ():
            if isinstance(each, Mapping):
                yield from _violation(each)


def _violation(each: Mapping[str, Any]) -> Iterator[Reading]:
    quota, metric, dimensions = each.get("quotaId"), each.get("quotaMetric"), each.get("quotaDimensions")
    if not isinstance(quota, str) or not isinstance(metric, str) or len(quota) > 200:
        return
    window = _QUOTA_WINDOW.search(quota)
    unit = "requests" if metric.endswith("requests") else "input_tokens" if "input_token" in metric else ""
    amount = each.get("quotaValue")
    limit = float(amount) if type(amount) is int and 0 <= amount < 10**13 else plain_number(amount)
    model = dimensions.get("model") if isinstance(dimensions, Mapping) else ""
    if window and unit:
        named = model[:200] if isinstance(model, str) else ""
        yield Reading(unit, SECONDS[window[1].lower()], limit, 0.0, None, f"QuotaFailure {quota}", named)


def _in_words(message: object) -> Iterator[Reading]:
    """OpenAI's and Groq's sentence: ... on tokens per day (TPD): Limit 100000, Used 99500, Requested 1000."""
    for unit, window, limit, used in _SENTENCE.findall(message[:2000]) if isinstance(message, str) else ():
        amount, taken = plain_number(limit), plain_number(used)
        if amount is not None:
            left = None if taken is None else max(amount - taken, 0.0)
            name = f"message {unit}P{window}"
            yield Reading("tokens" if unit == "T" else "requests", _LETTERS[window], amount, left, None, name)


def _forwarded(error: Mapping[str, Any], now: float) -> Iterator[Reading]:
    """The headers that OpenRouter puts into the body of its own 429s; the message names the window."""
    metadata, message = error.get("metadata"), error.get("message")
    headers = metadata.get("headers") if isinstance(metadata, Mapping) else None
    if not isinstance(headers, Mapping) or not isinstance(message, str):
        return
    lowered = {
        name.lower(): str(value)
        for name, value in list(headers.items())[:MAX_FIELDS]
        if isinstance(name, str) and type(value) in (str, int)
    }
    word = _OPENROUTER_WINDOW.search(message[:2000])
    window = SECONDS["minute" if word[1].lower() == "min" else word[1].lower()] if word else 0.0
    for reading in read_headers(lowered, now):
        yield Reading(
            reading.unit, reading.window or window, reading.limit, reading.remaining, reading.resets_in, f"body {reading.source}"
        )
