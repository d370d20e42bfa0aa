"""Speaks OpenTelemetry over the caller's own tracer and meter, by the GenAI conventions v1.41.0.

Strategy: one table of names, nothing imported: what a tracer needs beyond itself (span kinds, a parent's context) stands in
modules that whoever made the tracer has loaded. A call is an INTERNAL span, each attempt a CLIENT span below it; what the
conventions have no names for is under `inferrouter.`. Prompts and answers are never written. Must never import OpenTelemetry.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from .errors import ProviderError
from .events import CallEvent, HoldEvent, LimitEvent, RefusalEvent, ResultEvent, RouteEvent, WaitEvent
from .meter_metrics import SECONDS, outcome_of
from .turn import Turn

# https://github.com/open-telemetry/semantic-conventions/tree/v1.41.0/docs/gen-ai: later versions renamed the metrics.
PROVIDERS: Mapping[str, str] = {
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "grok": "x_ai",
    "xai": "x_ai",
    "moonshot": "moonshot_ai",
    "perplexity": "perplexity",
}
"""Well-known values of `gen_ai.provider.name` that differ from the catalog's names."""

REQUEST_PARAMETERS: Mapping[str, str] = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "stop": "gen_ai.request.stop_sequences",
    "seed": "gen_ai.request.seed",
    "session": "gen_ai.conversation.id",
}
TOKEN_BOUNDS = tuple(4**power for power in range(14))
MOST_OPEN = 10_000
"""Calls whose spans are open at once; when there are more, the oldest are ended."""


class OTelMeter:
    """Spans to `tracer` and metrics to `meter`, both the caller's own OpenTelemetry objects; either may be None.

    Spans: `inferrouter chat ALIAS` for a call, `chat MODEL` for each attempt. Metrics: `gen_ai.client.operation.duration`,
    `.token.usage`, `.operation.time_to_first_chunk`, and the counters `inferrouter.calls`, `.cost`, `.waited`, `.holds`,
    `.limits_learned`. The span of a call is a child of the caller's current span.
    """

    def __init__(self, tracer: Any = None, meter: Any = None) -> None:
        self._tracer = tracer
        self._turn = Turn()  # not a lock: a signal handler or a forked child would wait for it for ever
        self._open: dict[str, list[Any]] = {}
        self._duration = self._tokens = self._first = None
        self._counters: dict[str, Any] = {}
        if meter is not None:
            self._duration = _histogram(meter, "gen_ai.client.operation.duration", "s", "Duration of an attempt", SECONDS)
            self._tokens = _histogram(meter, "gen_ai.client.token.usage", "{token}", "Tokens of an attempt", TOKEN_BOUNDS)
            name, about = "gen_ai.client.operation.time_to_first_chunk", "Time until the first content of a stream"
            self._first = _histogram(meter, name, "s", about, SECONDS)
            for name, unit, about in _COUNTERS:
                self._counters[name] = meter.create_counter(name, unit=unit, description=about)

    def on_route(self, event: RouteEvent) -> None:
        """Begin an attempt's span."""
        if self._tracer is None:
            return
        spans = self._spans(event.call_id, event.operation, event.alias)
        attributes = {
            **_facts(event),
            "server.address": _server(event.base_url)[0],
            "server.port": _server(event.base_url)[1],
            **{name: event.parameters.get(key) for key, name in REQUEST_PARAMETERS.items()},
            "gen_ai.request.choice.count": event.parameters.get("n") if event.parameters.get("n") != 1 else None,
            "gen_ai.output.type": _output(event.parameters.get("output")),
            "gen_ai.request.stream": True if event.stream else None,
            "inferrouter.account": event.account_id,
            "inferrouter.attempt": event.attempt,
            "inferrouter.free": event.free,
            "inferrouter.estimated_tokens": event.estimated_tokens,
        }
        name = f"{event.operation} {event.model}"
        spans[1] = self._tracer.start_span(name, **_parent(spans[0]), **_kind("CLIENT"), attributes=_stated(attributes))

    def on_result(self, event: ResultEvent) -> None:
        """End an attempt's span, and record its metrics."""
        failed = {"error.type": _error_type(event.error)} if event.error is not None else {}
        usage = event.usage
        with self._turn.had():
            spans = self._open.get(event.call_id, [None, None])
            span, spans[1] = spans[1], None
        if span is not None:
            answered: dict[str, Any] = {
                "gen_ai.response.model": event.model_answered or None,
                "gen_ai.response.id": event.response_id or None,
                "gen_ai.response.finish_reasons": event.finish_reasons or None,
                "gen_ai.response.time_to_first_chunk": event.first_chunk_s,
                "gen_ai.usage.input_tokens": usage.prompt_tokens or None,
                "gen_ai.usage.output_tokens": usage.completion_tokens or None,
                "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens or None,
                "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens or None,
                "inferrouter.cost": event.cost,
                "inferrouter.retry_after_s": getattr(event.error, "retry_after", None),
                **failed,
            }
            span.set_attributes(_stated(answered))
            _finish(span, event.error)
        if self._duration is not None and self._tokens is not None and self._first is not None:
            labels = _stated({**_facts(event), "gen_ai.response.model": event.model_answered or None})
            self._duration.record(event.duration, {**labels, **failed})
            if event.first_chunk_s is not None:
                self._first.record(event.first_chunk_s, labels)
            for kind, count in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
                if count > 0:
                    self._tokens.record(count, {**labels, "gen_ai.token.type": kind})
        self._count("inferrouter.cost", event.cost, {**_facts(event), "inferrouter.account": event.account_id})

    def on_wait(self, event: WaitEvent) -> None:
        """An event of the call's span."""
        facts = {"account": event.account_id, "seconds": event.seconds, "reason": event.reason}
        self._note(event.call_id, event.alias, "chat", "inferrouter.wait", facts)

    def on_refusal(self, event: RefusalEvent) -> None:
        """An event of the call's span for each candidate that was left out."""
        for each in event.rejections:
            facts = {"account": each.account_id, "reason": each.reason, "retry_at": each.retry_at}
            self._note(event.call_id, event.alias, event.operation, "inferrouter.rejected", facts)

    def on_hold(self, event: HoldEvent) -> None:
        """Count a hold that begins."""
        if event.begun:
            self._count("inferrouter.holds", 1, {"inferrouter.account": event.account_id})

    def on_limit(self, event: LimitEvent) -> None:
        """Count a limit that is less than configured."""
        if event.stated is not None and event.configured is not None and event.stated < event.configured:
            self._count("inferrouter.limits_learned", 1, {"inferrouter.account": event.account_id})

    def on_call(self, event: CallEvent) -> None:
        """End the call's span."""
        labels = {"inferrouter.alias": event.alias, "inferrouter.outcome": event.outcome}
        self._count("inferrouter.calls", 1, labels)
        self._count("inferrouter.waited", event.waited_s, {"inferrouter.alias": event.alias})
        if self._tracer is None:
            return
        span, attempt = self._spans(event.call_id, event.operation, event.alias)
        with self._turn.had():
            self._open.pop(event.call_id, None)
        if attempt is not None:  # interrupted from outside
            attempt.end()
        facts = {"attempts": event.attempts, "waited_s": event.waited_s, "free": event.free, "cost": event.cost}
        span.set_attributes({f"inferrouter.{name}": value for name, value in facts.items()})
        span.set_attribute("inferrouter.outcome", event.outcome)
        if event.error is not None:
            span.set_attribute("error.type", _error_type(event.error))
        _finish(span, event.error)

    def _spans(self, call_id: str, operation: str, alias: str) -> list[Any]:
        """The open spans of a call, [its own, its attempt's or None]; its own begins with the first event of it."""
        with self._turn.had():
            spans = self._open.get(call_id)
            oldest = self._open.pop(next(iter(self._open))) if spans is None and len(self._open) >= MOST_OPEN else []
        for span in oldest:
            if span is not None:
                span.end()
        if spans is None:
            attributes = {"inferrouter.alias": alias, "inferrouter.call_id": call_id}
            span = self._tracer.start_span(f"inferrouter {operation} {alias}", **_kind("INTERNAL"), attributes=attributes)
            spans = [span, None]
            with self._turn.had():
                self._open[call_id] = spans
        return spans

    def _note(self, call_id: str, alias: str, operation: str, name: str, facts: Mapping[str, Any]) -> None:
        if self._tracer is not None:
            span = self._spans(call_id, operation, alias)[0]
            span.add_event(name, _stated({f"inferrouter.{key}": value for key, value in facts.items()}))

    def _count(self, name: str, amount: float, labels: Mapping[str, Any]) -> None:
        counter = self._counters.get(name)
        if counter is not None and amount > 0:
            counter.add(amount, labels)


_COUNTERS = (
    ("inferrouter.calls", "{call}", "Calls that have ended"),
    ("inferrouter.cost", "{USD}", "Dollars spent"),
    ("inferrouter.waited", "s", "Seconds that calls waited for a free slot"),
    ("inferrouter.holds", "{hold}", "Holds that have begun"),
    ("inferrouter.limits_learned", "{limit}", "Limits that a provider said are lower than configured"),
)


def _histogram(meter: Any, name: str, unit: str, about: str, bounds: tuple[float, ...]) -> Any:
    try:
        return meter.create_histogram(name, unit=unit, description=about, explicit_bucket_boundaries_advisory=bounds)
    except TypeError:  # an API older than 1.30 takes no advice
        return meter.create_histogram(name, unit=unit, description=about)


def _facts(event: RouteEvent | ResultEvent) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": event.operation,
        "gen_ai.provider.name": PROVIDERS.get(event.provider, event.provider),
        "gen_ai.request.model": event.model,
    }


def _stated(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}


def _server(base_url: str) -> tuple[str | None, int | None]:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(base_url)
        return parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    except ValueError:
        return None, None


def _output(form: str | None) -> str | None:
    return "json" if form in ("json_object", "json_schema") else form


def _error_type(error: BaseException | None) -> str:
    """A word of a short list, or the HTTP status."""
    word = outcome_of(error) if isinstance(error, ProviderError) else type(error).__name__
    status = getattr(error, "status", None)
    return str(status) if word == "unavailable" and status else word


def _finish(span: Any, error: BaseException | None) -> None:
    trace = sys.modules.get("opentelemetry.trace")
    if error is not None and trace is not None:
        span.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
    span.end()


def _kind(name: str) -> dict[str, Any]:
    trace = sys.modules.get("opentelemetry.trace")
    return {} if trace is None else {"kind": trace.SpanKind[name]}


def _parent(span: Any) -> dict[str, Any]:
    trace = sys.modules.get("opentelemetry.trace")
    return {} if trace is None else {"context": trace.set_span_in_context(span)}
