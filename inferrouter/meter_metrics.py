"""Counts what the router does, and writes the counts as Prometheus text.

Strategy: counters and histograms in plain dicts under one lock, one row a metric; the text is made when somebody asks. Labels are
account ids, models and words of a short list, never an id, a text or a user, so that their number stays small. What the ledger
and the breakers know is read from `Router.status()` when it is handed in. Must never know a router, nor keep an event.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .errors import (
    AttemptTimeoutError,
    AuthenticationError,
    InvalidRequestError,
    ModelNotFoundError,
    QuotaExceededError,
    RateLimitedError,
)
from .events import CallEvent, HoldEvent, LimitEvent, ResultEvent
from .frozen import shown_once_made
from .meter import does_nothing
from .turn import Holder, Turn

if TYPE_CHECKING:
    from .errors import InferRouterError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of `MetricsMeter.text()`; https://prometheus.io/docs/instrumenting/exposition_formats/."""

SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Upper bounds of a duration's buckets, those that the GenAI conventions v1.41.0 advise."""

COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "inferrouter_calls_total": ("Calls that have ended.", ("alias", "outcome")),
    "inferrouter_attempts_total": ("Attempts that have ended.", ("provider", "account", "model", "outcome", "free")),
    "inferrouter_waited_seconds_total": ("Seconds that calls waited for a free slot.", ("alias",)),
    "inferrouter_tokens_total": (
        "Tokens used. input has cached in it, output has reasoning in it.",
        ("provider", "account", "model", "type", "free"),
    ),
    "inferrouter_cost_dollars_total": ("Dollars spent.", ("provider", "account", "model")),
    "inferrouter_holds_total": ("Holds that have begun.", ("provider", "account")),
    "inferrouter_limits_learned_total": ("Limits that a provider said are lower than configured.", ("provider", "account")),
}
HISTOGRAMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "inferrouter_attempt_seconds": ("Seconds of an attempt.", ("provider", "model")),
    "inferrouter_first_chunk_seconds": ("Seconds until the first content of a stream.", ("provider", "model")),
}
GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "inferrouter_limit_amount": ("What a limit allows in its window.", ("account", "limit", "unit", "window")),
    "inferrouter_limit_used": ("What of it is used.", ("account", "limit", "unit", "window")),
    "inferrouter_limit_reset_timestamp_seconds": ("When something of it frees.", ("account", "limit", "unit", "window")),
    "inferrouter_free_share": ("Remaining share of today's free allowance.", ("account",)),
    "inferrouter_account_resting": ("1 while something of the account is held or its breaker is open.", ("account",)),
    "inferrouter_account_rest_until_timestamp_seconds": ("When its last hold ends.", ("account",)),
    "inferrouter_in_flight": ("Calls under way.", ("account",)),
    "inferrouter_store_errors": ("How often the quota store failed.", ()),
}

Labels = tuple[str, ...]


class MetricsMeter:
    """Counters and histograms of this process. `text()` gives them to a scraper. Thread-safe."""

    def __init__(self) -> None:
        self._turn = Turn()  # not a lock: a signal handler or a forked child would wait for it for ever
        self._counts: dict[str, dict[Labels, float]] = {name: {} for name in COUNTERS}
        self._spans: dict[str, dict[Labels, list[float]]] = {name: {} for name in HISTOGRAMS}

    @does_nothing
    def on_route(self, event: object) -> None:
        """Nothing: an attempt counts when it has ended."""

    def on_result(self, event: ResultEvent) -> None:
        """Count an attempt, its tokens, its cost and how long it took."""
        place = (event.provider, event.account_id, event.model)
        free = "true" if event.free else "false"
        usage = event.usage
        tokens = {"input": usage.prompt_tokens, "output": usage.completion_tokens}
        tokens |= {"cached": usage.cached_tokens, "reasoning": usage.reasoning_tokens}
        holder = Holder()
        try:  # what `Turn.had` does, with half its steps
            self._turn.take(holder, math.inf)
            self._add("inferrouter_attempts_total", (*place, outcome_of(event.error), free))
            for kind, count in tokens.items():
                if count > 0:
                    self._add("inferrouter_tokens_total", (*place, kind, free), count)
            if event.cost > 0:
                self._add("inferrouter_cost_dollars_total", place, event.cost)
            self._observe("inferrouter_attempt_seconds", (event.provider, event.model), event.duration)
            if event.first_chunk_s is not None:
                self._observe("inferrouter_first_chunk_seconds", (event.provider, event.model), event.first_chunk_s)
        finally:
            self._turn.give(holder)

    def on_call(self, event: CallEvent) -> None:
        """Count a call, and what it waited."""
        holder = Holder()
        try:
            self._turn.take(holder, math.inf)
            self._add("inferrouter_calls_total", (event.alias, event.outcome))
            if event.waited_s > 0:
                self._add("inferrouter_waited_seconds_total", (event.alias,), event.waited_s)
        finally:
            self._turn.give(holder)

    def on_hold(self, event: HoldEvent) -> None:
        """Count a hold that begins."""
        if event.begun:
            with self._turn.had():
                self._add("inferrouter_holds_total", (event.provider, event.account_id))

    def on_limit(self, event: LimitEvent) -> None:
        """Count a limit that is less than configured."""
        if event.stated is None or event.configured is None or event.stated >= event.configured:
            return
        with self._turn.had():
            self._add("inferrouter_limits_learned_total", (event.provider, event.account_id))

    def text(self, status: Mapping[str, Any] | None = None) -> str:
        """Everything in Prometheus' text format, `CONTENT_TYPE`. `status`: what `Router.status()` said, for limits and holds.

        Counts are this process's own. The limits, where several processes share a store, are the same from each of them.
        """
        with self._turn.had():
            counts = {name: dict(rows) for name, rows in self._counts.items()}
            spans = {name: {labels: list(row) for labels, row in rows.items()} for name, rows in self._spans.items()}
        lines: list[str] = []
        for name, (about, labels) in COUNTERS.items():
            lines += _block(name, "counter", about, ((name, labels, key, value) for key, value in sorted(counts[name].items())))
        for name, (about, labels) in HISTOGRAMS.items():
            lines += _block(name, "histogram", about, _samples(name, labels, spans[name]))
        if status is not None:
            found = _gauges(status)
            for name, (about, labels) in GAUGES.items():
                lines += _block(name, "gauge", about, ((name, labels, key, value) for key, value in found.get(name, ())))
        return "\n".join(lines) + "\n"

    @shown_once_made
    def __repr__(self) -> str:
        with self._turn.had():
            return f"<MetricsMeter: {sum(map(len, self._counts.values()))} counters>"

    def _add(self, name: str, labels: Labels, amount: float = 1) -> None:
        rows = self._counts[name]
        rows[labels] = rows.get(labels, 0) + amount

    def _observe(self, name: str, labels: Labels, seconds: float) -> None:
        row = self._spans[name].get(labels)
        if row is None:
            row = self._spans[name][labels] = [0.0] * (len(SECONDS) + 2)  # the buckets, +Inf, and the sum
        row[bisect_left(SECONDS, seconds)] += 1
        row[-1] += seconds


def outcome_of(error: InferRouterError | None) -> str:
    """How an attempt ended, in one word of a short list: ok, rate_limited, quota, timeout, auth, model, invalid, unavailable."""
    return "ok" if error is None else next((word for kind, word in _OUTCOMES if isinstance(error, kind)), "unavailable")


_OUTCOMES: tuple[tuple[type[InferRouterError], str], ...] = (
    (RateLimitedError, "rate_limited"),
    (QuotaExceededError, "quota"),
    (AttemptTimeoutError, "timeout"),
    (AuthenticationError, "auth"),
    (ModelNotFoundError, "model"),
    (InvalidRequestError, "invalid"),
)

_Sample = tuple[str, tuple[str, ...], Labels, float]


def _block(name: str, kind: str, about: str, samples: Iterable[_Sample]) -> Iterator[str]:
    rows = list(samples)
    if not rows:
        return
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for sample, names, values, amount in rows:
        labels = ",".join(f'{label}="{_escaped(value)}"' for label, value in zip(names, values, strict=True))
        yield f"{sample}{{{labels}}} {_number(amount)}" if labels else f"{sample} {_number(amount)}"


def _samples(name: str, labels: tuple[str, ...], rows: Mapping[Labels, list[float]]) -> Iterator[_Sample]:
    for key, row in sorted(rows.items()):
        total = 0.0
        for bound, count in zip((*SECONDS, math.inf), row, strict=False):
            total += count
            yield f"{name}_bucket", (*labels, "le"), (*key, _number(bound)), total
        yield f"{name}_sum", labels, key, row[-1]
        yield f"{name}_count", labels, key, total


def _gauges(status: Mapping[str, Any]) -> dict[str, list[tuple[Labels, float]]]:
    found: dict[str, list[tuple[Labels, float]]] = {name: [] for name in GAUGES}

    def put(name: str, labels: Labels, amount: float | None) -> None:
        if amount is not None:
            found[f"inferrouter_{name}"].append((labels, amount))

    for account_id, state in status.items():
        for limit in state.limits:
            labels = (account_id, limit.name, limit.unit, limit.window)
            put("limit_amount", labels, limit.amount)
            put("limit_used", labels, limit.used)
            put("limit_reset_timestamp_seconds", labels, limit.resets_at)
            if limit.name == "allowance":
                put("free_share", (account_id,), limit.remaining / limit.amount if limit.amount else 0.0)
        resting = bool(state.holds) or state.breaker == "open"
        put("account_resting", (account_id,), 1.0 if resting else 0.0)
        put("account_rest_until_timestamp_seconds", (account_id,), max((hold.until for hold in state.holds), default=None))
        put("in_flight", (account_id,), state.in_flight)
    put("store_errors", (), getattr(status, "degraded", None))
    return found


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    """`value` as Go writes a float."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
