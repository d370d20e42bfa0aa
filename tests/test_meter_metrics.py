"""Counters and histograms, and the text that Prometheus reads."""

from __future__ import annotations

import math
import re
import unittest
from typing import Any

from tests import ir, part
from tests.fakes import NOON, FakeClock, threads

errors, events, metrics = part("errors"), part("events"), part("meter_metrics")

LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\})? (\S+)')


def samples(text: str) -> dict[str, float]:
    """Every sample of a text by its name and labels; a line that is no sample and no comment is a mistake."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = LINE.fullmatch(line)
            if match is None:
                raise AssertionError(f"not a sample: {line!r}")
            found[line.rpartition(" ")[0]] = float(match[3])
    return found


def result(error: Any = None, **facts: Any) -> Any:
    usage = ir.Usage(10, 20, 30, 4, 5) if error is None else ir.Usage()
    given = {"provider": "p", "account_id": "a", "model": "m", "free": True, "duration": 0.3, "cost": 0.0, **facts}
    return events.ResultEvent(success=error is None, usage=usage, error=error, **given)


class Counting(unittest.TestCase):
    def test_a_router(self) -> None:
        """Calls, attempts, tokens, cost, waits and holds of a router are in the text, and its limits with its status."""
        clock, meter = FakeClock(), ir.MetricsMeter()
        limited = ir.MockReply(status=429, headers={"Retry-After": "7"})
        provider = ir.MockProvider("mock", [limited, ir.MockReply("hi", usage=ir.Usage(10, 20, 30, 4, 5))])
        account = ir.AccountConfig("mock", "a", daily_free=10, limits={"tpm": 5000})
        with ir.Router(ir.Config([account], default_model="mock/m"), [provider], clock=clock, meter=meter) as router:
            router.chat_completion(ir.ChatRequest("hi"), max_wait=10)
            status = router.status()
        found = samples(meter.text(status))
        place = 'provider="mock",account="a",model="m"'
        expected = {
            'inferrouter_calls_total{alias="mock/m",outcome="ok"}': 1,
            f'inferrouter_attempts_total{{{place},outcome="ok",free="true"}}': 1,
            f'inferrouter_attempts_total{{{place},outcome="rate_limited",free="true"}}': 1,
            'inferrouter_waited_seconds_total{alias="mock/m"}': 7,
            'inferrouter_holds_total{provider="mock",account="a"}': 1,
            f'inferrouter_tokens_total{{{place},type="cached",free="true"}}': 4,
            f'inferrouter_tokens_total{{{place},type="output",free="true"}}': 20,
            'inferrouter_attempt_seconds_count{provider="mock",model="m"}': 2,
            'inferrouter_limit_amount{account="a",limit="tpm",unit="tokens",window="minute"}': 5000,
            'inferrouter_limit_used{account="a",limit="allowance",unit="requests",window="day"}': 2,
            'inferrouter_free_share{account="a"}': 0.8,
            'inferrouter_account_resting{account="a"}': 0,
            'inferrouter_in_flight{account="a"}': 0,
            "inferrouter_store_errors": 0,
        }
        self.assertEqual({name: found.get(name) for name in expected}, expected)

    def test_outcomes(self) -> None:
        """Each kind of failure is one word of a short list."""
        rows = {
            "rate_limited": errors.RateLimitedError(),
            "quota": errors.QuotaExceededError(),
            "timeout": errors.AttemptTimeoutError(),
            "auth": errors.AuthenticationError(),
            "model": errors.ModelNotFoundError(),
            "invalid": errors.ContextWindowError(),
            "unavailable": errors.MalformedResponseError(),
            "ok": None,
        }
        self.assertEqual({word: metrics.outcome_of(error) for word, error in rows.items()}, {word: word for word in rows})

    def test_histograms(self) -> None:
        """Buckets are cumulative, the last is +Inf and equals the count; a value on a bound belongs to it."""
        meter = ir.MetricsMeter()
        for seconds in (0.005, 0.01, 0.3, 1000.0):
            meter.on_result(result(duration=seconds, first_chunk_s=0.02))
        found = samples(meter.text())
        name, place = "inferrouter_attempt_seconds", 'provider="p",model="m"'
        buckets = [found[f'{name}_bucket{{{place},le="{bound:g}"}}'] for bound in metrics.SECONDS]
        self.assertEqual(buckets[:6], [2, 2, 2, 2, 2, 3])
        self.assertEqual(buckets, sorted(buckets))
        self.assertEqual(found[f'{name}_bucket{{{place},le="+Inf"}}'], 4)
        self.assertEqual((found[f"{name}_count{{{place}}}"], found[f"{name}_sum{{{place}}}"]), (4, 1000.315))
        self.assertEqual(found[f"inferrouter_first_chunk_seconds_count{{{place}}}"], 4)

    def test_threads(self) -> None:
        """No count is lost between threads."""
        meter = ir.MetricsMeter()
        with threads(4, lambda number: [meter.on_result(result()) for _ in range(500)] and None):
            pass
        found = samples(meter.text())
        self.assertEqual(found['inferrouter_attempts_total{provider="p",account="a",model="m",outcome="ok",free="true"}'], 2000)


class Text(unittest.TestCase):
    def test_shape(self) -> None:
        """Every metric says once what it is before its samples, and the last line ends."""
        meter = ir.MetricsMeter()
        self.assertEqual(meter.text(), "\n")
        meter.on_result(result())
        meter.on_result(result(errors.RateLimitedError(), cost=0.5))
        meter.on_limit(events.LimitEvent("a/rpm", "p", "a", "m", 20.0, 5.0, None, "x"))
        text = meter.text()
        self.assertTrue(text.endswith("\n"))
        blocks = re.findall(r"(?m)^# HELP (\S+) .+\n# TYPE (\S+) (counter|histogram)$", text)
        self.assertEqual([name for name, _, _ in blocks], [name for _, name, _ in blocks])
        self.assertEqual(len(blocks), len({name for name, _, _ in blocks}))
        self.assertIn('inferrouter_cost_dollars_total{provider="p",account="a",model="m"} 0.5\n', text)

    def test_labels_are_escaped(self) -> None:
        """Quotes, backslashes and line breaks in a name stay inside their label."""
        meter = ir.MetricsMeter()
        meter.on_result(result(model='m"\\\n} 1'))
        name = r'inferrouter_attempts_total{provider="p",account="a",model="m\"\\\n} 1",outcome="ok",free="true"}'
        self.assertEqual(samples(meter.text())[name], 1)

    def test_numbers(self) -> None:
        """Numbers are written as Go does."""
        rows = {1.0: "1", 0.25: "0.25", 1e21: "1e+21", math.inf: "+Inf", -math.inf: "-Inf", NOON: "1768478400"}
        self.assertEqual({value: metrics._number(value) for value in rows}, rows)
        self.assertEqual(metrics._number(math.nan), "NaN")


if __name__ == "__main__":
    unittest.main()
