"""OpenTelemetry: spans and metrics by the GenAI conventions, over stand-ins for the caller's objects and over the real SDK."""

from __future__ import annotations

import os
import unittest
from typing import Any
from unittest import mock

from tests import ir, part, rounds
from tests.fakes import METHODS, FakeClock

errors, events, otel = part("errors"), part("events"), part("meter_otel")

try:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.trace import SpanKind, StatusCode

    REAL = True
except ImportError:
    REAL = False
    if os.environ.get("INFERROUTER_REAL_METERS"):
        raise

HELLO = ir.ChatRequest("Hello!", max_tokens=50, temperature=0.5, stop="END", response_format="json_object")


class Span:
    """What a tracer gives, and what became of it."""

    def __init__(self, name: str, attributes: dict[str, Any]) -> None:
        self.name = name
        self.attributes = dict(attributes)
        self.notes: list[tuple[str, dict[str, Any]]] = []
        self.ends = 0

    def set_attribute(self, name: str, value: Any) -> None:
        self.attributes[name] = value

    def set_attributes(self, attributes: dict[str, Any]) -> None:
        self.attributes.update(attributes)

    def add_event(self, name: str, attributes: dict[str, Any]) -> None:
        self.notes.append((name, attributes))

    def set_status(self, status: Any) -> None:
        self.status = status

    def end(self) -> None:
        self.ends += 1


class Tracer:
    def __init__(self) -> None:
        self.spans: list[Span] = []

    def start_span(self, name: str, context: Any = None, kind: Any = None, attributes: Any = None) -> Span:
        self.spans.append(Span(name, attributes))
        return self.spans[-1]


class Instrument:
    def __init__(self) -> None:
        self.seen: list[tuple[float, dict[str, Any]]] = []

    def record(self, amount: float, attributes: dict[str, Any]) -> None:
        self.seen.append((amount, attributes))

    add = record


class OldMeter:
    """A meter whose histograms take no advice on buckets."""

    def __init__(self) -> None:
        self.made: dict[str, Instrument] = {}

    def create_histogram(self, name: str, unit: str, description: str) -> Instrument:
        return self.made.setdefault(name, Instrument())

    create_counter = create_histogram


def router(meter: Any, *replies: Any, **settings: Any) -> Any:
    clock = FakeClock()
    provider = ir.MockProvider("mistral", replies, sleep=clock.sleep)
    config = ir.Config(
        [ir.AccountConfig("mistral", name, base_url="https://api.example.com/v1", **settings) for name in ("a", "b")],
        [ir.ModelMapping("fast", [ir.ModelRef("mistral", "m")])],
        default_model="fast",
        policy="declared_order",
    )
    return ir.Router(config, [provider], clock=clock, meter=meter)


class StandIns(unittest.TestCase):
    def setUp(self) -> None:
        self.tracer, self.meter = Tracer(), OldMeter()
        self.otel = ir.OTelMeter(self.tracer, self.meter)

    def test_a_call_and_its_attempts(self) -> None:
        """A call is a span, and each attempt one below it, with the conventions' attributes; each ends once."""
        usage = ir.Usage(10, 20, 30, 4, 5)
        for method in METHODS.values():
            self.tracer.spans.clear()
            with router(self.otel, 503, ir.MockReply("{}", usage=usage)) as made:
                method(made, HELLO)
            call, failed, served = self.tracer.spans
            self.assertEqual([span.name for span in self.tracer.spans], ["inferrouter chat fast", "chat m", "chat m"])
            self.assertEqual([span.ends for span in self.tracer.spans], [1, 1, 1])
            self.assertEqual(failed.attributes["error.type"], "503")
            expected = {
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "mistral_ai",
                "gen_ai.request.model": "m",
                "server.address": "api.example.com",
                "server.port": 443,
                "gen_ai.request.max_tokens": 50,
                "gen_ai.request.temperature": 0.5,
                "gen_ai.request.stop_sequences": ("END",),
                "gen_ai.output.type": "json",
                "gen_ai.response.finish_reasons": ("stop",),
                "gen_ai.usage.input_tokens": 10,
                "gen_ai.usage.output_tokens": 20,
                "gen_ai.usage.cache_read.input_tokens": 4,
                "gen_ai.usage.reasoning.output_tokens": 5,
                "inferrouter.account": "b",
                "inferrouter.attempt": 2,
                "inferrouter.free": True,
            }
            self.assertEqual({name: served.attributes.get(name) for name in expected}, expected)
            self.assertEqual("gen_ai.request.stream" in served.attributes, method is METHODS["stream"])
            self.assertEqual((call.attributes["inferrouter.attempts"], call.attributes["inferrouter.outcome"]), (2, "ok"))
            self.assertNotIn("Hello", repr([span.attributes for span in self.tracer.spans]))

    def test_metrics(self) -> None:
        """Durations, tokens and calls are recorded under the conventions' names."""
        with router(self.otel, 503, ir.MockReply("{}", usage=ir.Usage(10, 20, 30), delay_s=2)) as made:
            made.stream(HELLO).close()
        failed, served = self.meter.made["gen_ai.client.operation.duration"].seen
        self.assertEqual((failed[1]["error.type"], served[0]), ("503", 2))
        self.assertEqual(served[1]["gen_ai.provider.name"], "mistral_ai")
        first = self.meter.made["gen_ai.client.operation.time_to_first_chunk"].seen
        self.assertEqual([amount for amount, _ in first], [2])
        self.assertEqual([amount for amount, _ in self.meter.made["inferrouter.calls"].seen], [1])
        with router(self.otel, ir.MockReply("{}", usage=ir.Usage(10, 20, 30))) as made:
            made.chat_completion(HELLO)
        tokens = self.meter.made["gen_ai.client.token.usage"].seen[-2:]
        self.assertEqual([(amount, labels["gen_ai.token.type"]) for amount, labels in tokens], [(10, "input"), (20, "output")])

    def test_waits_refusals_and_holds(self) -> None:
        """Waits and refusals are events of the call's span, holds a count; a refused call has a span too."""
        limited = ir.MockReply(status=429, headers={"Retry-After": "7"})
        with router(self.otel, limited, limited, "hello", limits={"rpd": 2}) as made:
            made.chat_completion(HELLO, max_wait=10)
            made.chat_completion(HELLO)
            with self.assertRaises(ir.NoCandidatesError):
                made.chat_completion(HELLO)
        waited, refused = self.tracer.spans[0], self.tracer.spans[-1]
        self.assertEqual([(name, facts["inferrouter.seconds"]) for name, facts in waited.notes], [("inferrouter.wait", 7)])
        self.assertEqual([name for name, _ in refused.notes], ["inferrouter.rejected"] * 2)
        self.assertEqual((refused.ends, refused.attributes["error.type"]), (1, "NoCandidatesError"))
        self.assertEqual(len(self.meter.made["inferrouter.holds"].seen), 2)
        self.assertEqual(self.meter.made["inferrouter.waited"].seen, [(7, {"inferrouter.alias": "fast"})])

    def test_interrupted(self) -> None:
        """An attempt that is interrupted from outside leaves no span open."""
        with router(self.otel, KeyboardInterrupt()) as made, self.assertRaises(KeyboardInterrupt):
            made.chat_completion(HELLO)
        self.assertEqual([span.ends for span in self.tracer.spans], [1, 1])
        self.assertEqual(self.otel._open, {})

    def test_calls_that_never_end(self) -> None:
        """Spans of calls whose end is never told do not pile up."""
        self.enterContext(mock.patch.object(otel, "MOST_OPEN", rounds(otel.MOST_OPEN, 500)))
        for number in range(otel.MOST_OPEN + 5):
            self.otel.on_route(events.RouteEvent("p", "a", "m", True, 1, 30, f"c{number}"))
        self.assertEqual(len(self.otel._open), otel.MOST_OPEN)
        self.assertEqual(sum(span.ends for span in self.tracer.spans), 10)

    def test_either_may_be_missing(self) -> None:
        """Without a tracer there are only metrics, without a meter only spans."""
        for given in ((self.tracer, None), (None, self.meter), (None, None)):
            with router(ir.OTelMeter(*given), 429, "hello") as made:
                self.assertTrue(made.chat_completion(HELLO).text)
        self.assertEqual([span.ends for span in self.tracer.spans], [1, 1, 1])
        self.assertEqual(len(self.meter.made["inferrouter.calls"].seen), 1)

    def test_limits(self) -> None:
        """What was learned is counted."""
        self.otel.on_limit(events.LimitEvent("a/rpm", "p", "a", "m", 20.0, 5.0, None, "x"))
        self.assertEqual(self.meter.made["inferrouter.limits_learned"].seen, [(1, {"inferrouter.account": "a"})])


@unittest.skipUnless(REAL, "opentelemetry-sdk is not installed")
class RealSDK(unittest.TestCase):
    def setUp(self) -> None:
        self.spans = InMemorySpanExporter()
        traces = TracerProvider()
        traces.add_span_processor(SimpleSpanProcessor(self.spans))
        self.addCleanup(traces.shutdown)
        self.reader = InMemoryMetricReader()
        metrics = MeterProvider(metric_readers=[self.reader])
        self.addCleanup(metrics.shutdown)
        self.tracer = traces.get_tracer("tests")
        self.otel = ir.OTelMeter(self.tracer, metrics.get_meter("tests"))

    def test_spans(self) -> None:
        """The call's span is INTERNAL below the caller's own, its attempts CLIENT below it; the failed one has status ERROR."""
        for method in METHODS.values():
            self.spans.clear()
            with self.tracer.start_as_current_span("mine"), router(self.otel, 503, "{}") as made:
                method(made, HELLO)
            failed, served, call, mine = self.spans.get_finished_spans()
            self.assertEqual([span.kind for span in (failed, served, call)], [SpanKind.CLIENT] * 2 + [SpanKind.INTERNAL])
            self.assertEqual({span.parent.span_id for span in (failed, served)}, {call.context.span_id})
            self.assertEqual(call.parent.span_id, mine.context.span_id)
            self.assertEqual(len({span.context.trace_id for span in (failed, served, call, mine)}), 1)
            codes = [span.status.status_code for span in (failed, served, call)]
            self.assertEqual(codes, [StatusCode.ERROR, StatusCode.UNSET, StatusCode.UNSET])
            self.assertEqual(served.attributes["gen_ai.request.stop_sequences"], ("END",))
            self.assertEqual(served.attributes["gen_ai.response.finish_reasons"], ("stop",))

    def test_a_refusal(self) -> None:
        """A refused call is a span with an event for each candidate that was left out."""
        with router(self.otel, "one", "two", limits={"rpd": 1}) as made:
            for _ in range(2):
                made.chat_completion(HELLO)
            self.spans.clear()
            with self.assertRaises(ir.NoCandidatesError):
                made.chat_completion(HELLO)
        [call] = self.spans.get_finished_spans()
        self.assertEqual([event.attributes["inferrouter.account"] for event in call.events], ["a", "b"])
        self.assertEqual(call.status.status_code, StatusCode.ERROR)

    def test_metrics(self) -> None:
        """The histograms have the conventions' names, units and advised buckets."""
        with router(self.otel, ir.MockReply("{}", usage=ir.Usage(10, 20, 30))) as made:
            made.chat_completion(HELLO)
        [resource] = self.reader.get_metrics_data().resource_metrics
        found = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
        tokens = found["gen_ai.client.token.usage"]
        self.assertEqual(tokens.unit, "{token}")
        sums = {point.attributes["gen_ai.token.type"]: point.sum for point in tokens.data.data_points}
        self.assertEqual(sums, {"input": 10, "output": 20})
        [duration] = found["gen_ai.client.operation.duration"].data.data_points
        self.assertEqual(tuple(duration.explicit_bounds), part("meter_metrics").SECONDS)
        self.assertEqual(duration.attributes["gen_ai.provider.name"], "mistral_ai")


@unittest.skipUnless(REAL, "opentelemetry-sdk and prometheus-client are not installed")
class RealParser(unittest.TestCase):
    def test_prometheus_reads_the_text(self) -> None:
        """The Prometheus client's own parser reads every sample, with odd characters in its labels."""
        from prometheus_client.parser import text_string_to_metric_families

        meter = ir.MetricsMeter()
        with router(meter, 503, ir.MockReply("{}", usage=ir.Usage(10, 20, 30)), daily_free=5) as made:
            made.chat_completion(HELLO)
            meter.on_result(events.ResultEvent("p", 'a"\\\n', "m", True, True, 0.5, ir.Usage(), 0.0))
            families = {family.name: family for family in text_string_to_metric_families(meter.text(made.status()))}
        attempts = families["inferrouter_attempts"].samples
        self.assertEqual([sample.value for sample in attempts], [1, 1, 1])
        self.assertIn('a"\\\n', {sample.labels["account"] for sample in attempts})
        self.assertEqual(families["inferrouter_attempt_seconds"].type, "histogram")
        self.assertEqual(families["inferrouter_limit_amount"].type, "gauge")


if __name__ == "__main__":
    unittest.main()
