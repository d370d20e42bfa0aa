"""Rate-limit headers of every provider as they were recorded, and what is made of hostile ones."""

from __future__ import annotations

import json
import random
import string
import unittest
from typing import Any
from unittest import mock

from tests import SHARED, part, rounds
from tests.fakes import NOW

rate_headers = part("rate_headers")
learning = part("learning")

MINUTE, HOUR, DAY, WEEK, MONTH = 60.0, 3600.0, 86400.0, 604_800.0, 2_678_400.0

Row = tuple[str, float, float | None, float | None, float | None]

RECORDED: dict[str, tuple[str, dict[str, str], list[Row]]] = {
    "Groq, recorded": (
        "groq",
        {
            "x-ratelimit-limit-requests": "1000",
            "x-ratelimit-limit-tokens": "12000",
            "x-ratelimit-remaining-requests": "983",
            "x-ratelimit-remaining-tokens": "11866",
            "x-ratelimit-reset-requests": "24m28.8s",
            "x-ratelimit-reset-tokens": "670ms",
        },
        [("requests", DAY, 1000, 983, 1468.8), ("tokens", MINUTE, 12000, 11866, 0.67)],
    ),
    "Groq under another name: the refill tells the windows": (
        "mine",
        {
            "x-ratelimit-limit-requests": "1000",
            "x-ratelimit-limit-tokens": "12000",
            "x-ratelimit-remaining-requests": "983",
            "x-ratelimit-remaining-tokens": "11866",
            "x-ratelimit-reset-requests": "24m28.8s",
            "x-ratelimit-reset-tokens": "670ms",
        },
        [("requests", DAY, 1000, 983, 1468.8), ("tokens", MINUTE, 12000, 11866, 0.67)],
    ),
    "OpenAI, a day of requests on the free tier": (
        "openai",
        {
            "x-ratelimit-limit-requests": "200",
            "x-ratelimit-remaining-requests": "199",
            "x-ratelimit-reset-requests": "7m12s",
            "x-ratelimit-limit-tokens": "40000",
            "x-ratelimit-remaining-tokens": "39970",
            "x-ratelimit-reset-tokens": "45ms",
        },
        [("requests", DAY, 200, 199, 432.0), ("tokens", MINUTE, 40000, 39970, 0.045)],
    ),
    "OpenAI, nothing used: the window is unknown": (
        "openai",
        {"x-ratelimit-limit-requests": "200", "x-ratelimit-remaining-requests": "200", "x-ratelimit-reset-requests": "0s"},
        [("requests", 0.0, 200, 200, 0.0)],
    ),
    "Azure, without limits": (
        "azure",
        {"x-ratelimit-remaining-requests": "119", "x-ratelimit-remaining-tokens": "119984"},
        [("requests", 0.0, None, 119, None), ("tokens", 0.0, None, 119984, None)],
    ),
    "GitHub Models": (
        "github-models",
        {
            "x-ratelimit-limit-requests": "20000",
            "x-ratelimit-remaining-requests": "19999",
            "x-ratelimit-reset-requests": "0",
            "x-ratelimit-renewalperiod-requests": "60",
        },
        [("requests", MINUTE, 20000, 19999, 0.0)],
    ),
    "Cerebras": (
        "cerebras",
        {
            "x-ratelimit-limit-requests-day": "14400",
            "x-ratelimit-limit-tokens-minute": "60000",
            "x-ratelimit-remaining-requests-day": "13693",
            "x-ratelimit-remaining-tokens-minute": "60000",
            "x-ratelimit-reset-requests-day": "11726.2840924263",
            "x-ratelimit-reset-tokens-minute": "26.28409242630005",
        },
        [("requests", DAY, 14400, 13693, 11726.2840924263), ("tokens", MINUTE, 60000, 60000, None)],
    ),
    "Cerebras, every window and no reset": (
        "cerebras",
        {
            f"x-ratelimit-{what}-{unit}-{window}": "5"
            for what in ("limit", "remaining")
            for unit in ("requests", "tokens")
            for window in ("minute", "hour", "day")
        },
        [(unit, span, 5, 5, None) for unit in ("requests", "tokens") for span in (MINUTE, HOUR, DAY)],
    ),
    "Mistral": (
        "mistral",
        {
            "x-ratelimit-limit-req-minute": "50",
            "x-ratelimit-limit-tokens-minute": "50000",
            "x-ratelimit-remaining-tokens-minute": "47300",
            "x-ratelimit-remaining-req-minute": "49",
            "x-ratelimit-limit-tokens-month": "4000000",
            "x-ratelimit-tokens-query-cost": "1300",
        },
        [("requests", MINUTE, 50, 49, None), ("tokens", MINUTE, 50000, 47300, None), ("tokens", MONTH, 4_000_000, None, None)],
    ),
    "Anthropic, recorded": (
        "anthropic",
        {
            "anthropic-ratelimit-input-tokens-limit": "30000",
            "anthropic-ratelimit-input-tokens-remaining": "29000",
            "anthropic-ratelimit-input-tokens-reset": "2023-11-14T22:13:27Z",
            "anthropic-ratelimit-output-tokens-limit": "8000",
            "anthropic-ratelimit-output-tokens-remaining": "8000",
            "anthropic-ratelimit-output-tokens-reset": "2023-11-14T22:13:31Z",
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:21Z",
            "anthropic-ratelimit-tokens-limit": "38000",
            "anthropic-ratelimit-tokens-remaining": "38000",
            "retry-after": "13",
        },
        [
            ("input_tokens", MINUTE, 30000, 29000, 7.0),
            ("output_tokens", MINUTE, 8000, 8000, 11.0),
            ("requests", MINUTE, 50, 49, 1.0),
            ("tokens", MINUTE, 38000, 38000, None),
        ],
    ),
    "OpenRouter's own, as headers": (
        "openrouter",
        {"x-ratelimit-limit": "50", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000060000"},
        [("requests", MINUTE, 50, 0, 60.0)],
    ),
    "GitHub's style": (
        "proxy",
        {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "56", "x-ratelimit-reset": "1700000030"},
        [("requests", MINUTE, 60, 56, 30.0)],
    ),
    "SambaNova": (
        "sambanova",
        {
            "x-ratelimit-limit-requests": "20",
            "x-ratelimit-remaining-requests": "19",
            "x-ratelimit-reset-requests": "1700000050",
            "x-ratelimit-limit-requests-day": "200",
            "x-ratelimit-remaining-requests-day": "150",
        },
        [("requests", MINUTE, 20, 19, 50.0), ("requests", DAY, 200, 150, None)],
    ),
    "xAI": (
        "grok",
        {"x-ratelimit-limit-requests": "480", "x-ratelimit-remaining-requests": "479", "x-ratelimit-remaining-tokens": "1999"},
        [("requests", MINUTE, 480, 479, None), ("tokens", MINUTE, None, 1999, None)],
    ),
    "Cohere's trial": (
        "cohere",
        {"x-endpoint-monthly-call-limit": "1000", "x-trial-endpoint-call-limit": "20", "x-trial-endpoint-call-remaining": "19"},
        [("requests", MONTH, 1000, None, None), ("requests", MINUTE, 20, 19, None)],
    ),
    "Kong": (
        "proxy",
        {"x-ratelimit-limit-minute": "5", "x-ratelimit-remaining-minute": "4", "x-ratelimit-limit-hour": "50"},
        [("requests", MINUTE, 5, 4, None), ("requests", HOUR, 50, None, None)],
    ),
    "The window first": (
        "proxy",
        {"x-ratelimit-minute-limit": "5", "x-ratelimit-minute-remaining": "4", "x-ratelimit-day-limit": "100"},
        [("requests", MINUTE, 5, 4, None), ("requests", DAY, 100, None, None)],
    ),
    "Draft 3": (
        "proxy",
        {"ratelimit-limit": "20, 20;w=60, 500;w=86400", "ratelimit-remaining": "19", "ratelimit-reset": "32"},
        [("requests", MINUTE, 20, 19, 32.0)],
    ),
    "Draft 3 with one policy": (
        "proxy",
        {"x-ratelimit-limit": "20, 20;w=60", "x-ratelimit-remaining": "19", "x-ratelimit-reset": "32"},
        [("requests", MINUTE, 20, 19, 32.0)],
    ),
    "Draft 5": (
        "proxy",
        {"ratelimit-limit": "100", "ratelimit-remaining": "50", "ratelimit-reset": "50", "ratelimit-policy": "100;w=3600"},
        [("requests", HOUR, 100, 50, 50.0)],
    ),
    "Draft 7": (
        "proxy",
        {"ratelimit": "limit=100, remaining=50, reset=5", "ratelimit-policy": "100;w=60"},
        [("requests", MINUTE, 100, 50, 5.0)],
    ),
    "Draft 10": (
        "proxy",
        {"ratelimit": '"burst";r=9;t=1, "daily";r=90;t=4000', "ratelimit-policy": '"burst";q=10;w=60,"daily";q=100;w=86400'},
        [("requests", MINUTE, 10, 9, 1.0), ("requests", DAY, 100, 90, 4000.0)],
    ),
    "Draft 10, of bytes": ("proxy", {"ratelimit": '"b";r=9;t=1', "ratelimit-policy": '"b";q=10;w=60;qu="content-bytes"'}, []),
    "nothing": ("openai", {"content-type": "application/json", "x-request-id": "1"}, []),
}

DAY_AND_MINUTE = {
    "error": {
        "code": 429,
        "message": "You exceeded your current quota",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {
                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [
                    {
                        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
                        "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
                        "quotaDimensions": {"location": "global", "model": "gemini-3.5-flash"},
                        "quotaValue": "20",
                    },
                    {
                        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_input_token_count",
                        "quotaId": "GenerateContentInputTokensPerModelPerMinute-FreeTier",
                        "quotaDimensions": {"model": "gemini-3.5-flash"},
                    },
                ],
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "42s"},
        ],
    }
}
FREE_MODELS_PER_DAY = {
    "error": {
        "message": "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
        "code": 429,
        "metadata": {"headers": {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1700006400000"}},
    }
}


def rows(readings: Any) -> list[Row]:
    return [(each.unit, each.window, each.limit, each.remaining, each.resets_in) for each in readings]


class Headers(unittest.TestCase):
    def test_recorded(self) -> None:
        """Each provider's headers say unit, window, limit, what remains and when it is refilled, whatever their order."""
        shuffled = random.Random(1)
        for name, (provider, headers, expected) in RECORDED.items():
            for _ in range(3):
                items = list(headers.items())
                shuffled.shuffle(items)
                found = rate_headers.read_headers(dict(items), NOW, provider)
                plain = [(*row[:4], None if name == "Cerebras" and row[0] == "tokens" else row[4]) for row in rows(found)]
                with self.subTest(name):
                    self.assertEqual(sorted(plain, key=repr), sorted(expected, key=repr))

    def test_sources(self) -> None:
        """Each reading names the header that said it."""
        for name, (provider, headers, _) in RECORDED.items():
            for reading in rate_headers.read_headers(headers, NOW, provider):
                self.assertIn(reading.source, headers, name)

    def test_what_is_read_is_heard(self) -> None:
        """Every answer from whose headers something can be read is looked at for them, as those are that learn from answers."""
        learner = learning.Learner(None, None)
        for name, (_, headers, expected) in RECORDED.items():
            with self.subTest(name):
                self.assertTrue(learner.hears(headers) or not expected)

    def test_what_is_not_heard_is_not_read(self) -> None:
        """A name without any of the words by which an answer is looked at gives no reading, so that a missing word is noticed."""
        names = [name for _, headers, _ in RECORDED.values() for name in headers if name not in ("ratelimit", "ratelimit-policy")]
        known = {name for name in names if rate_headers._place.__wrapped__(name)}
        self.assertGreater(len(known), 30)
        with mock.patch.object(rate_headers, "HEARD", ("pebble",)):
            self.assertEqual([name for name in known if rate_headers._place.__wrapped__(name)], [])

    def test_what_is_no_number(self) -> None:
        """What is not a plain decimal number is not read, and more than the limit is not left."""
        name = "x-ratelimit-remaining-requests-day"
        for value in (
            "",
            "-1",
            "nan",
            "inf",
            "1e9",
            "0x10",
            "1_000",
            "٣",
            "9" * 14,
            "1 2",
            "12;w=60",
            "1, 2",
            "unlimited",
            "\x00",
        ):
            self.assertEqual(rate_headers.read_headers({name: value}, NOW), (), value)
        [reading] = rate_headers.read_headers({name: "30", "x-ratelimit-limit-requests-day": "20"}, NOW)
        self.assertEqual((reading.limit, reading.remaining), (20, 20))


class Refusals(unittest.TestCase):
    def read(self, body: Any, **headers: str) -> list[Any]:
        return list(rate_headers.read_refusal(headers, json.dumps(body).encode(), NOW, "gemini"))

    def test_gemini(self) -> None:
        """QuotaFailure's violations name metric, window, model and, mostly, the amount; nothing of it is left."""
        for body in (DAY_AND_MINUTE, [DAY_AND_MINUTE]):
            found = self.read(body)
            self.assertEqual(rows(found), [("requests", DAY, 20, 0, None), ("input_tokens", MINUTE, None, 0, None)])
            self.assertEqual({each.model for each in found}, {"gemini-3.5-flash"})
            self.assertEqual(found[0].source, "QuotaFailure GenerateRequestsPerDayPerProjectPerModel-FreeTier")

    def test_openrouter(self) -> None:
        """The headers in OpenRouter's body are read as headers, the window from the message."""
        [reading] = self.read(FREE_MODELS_PER_DAY)
        self.assertEqual(rows([reading]), [("requests", DAY, 50, 0, 6400.0)])
        self.assertEqual(reading.source, "body x-ratelimit-remaining")
        minute = json.loads(json.dumps(FREE_MODELS_PER_DAY).replace("free-models-per-day", "free-models-per-min"))
        self.assertEqual(self.read(minute)[0].window, MINUTE)

    def test_other_bodies(self) -> None:
        """A body without figures says nothing, whatever it is; headers beside it still count."""
        for body in ({}, [], "x", None, 5, {"error": "x"}, {"error": []}, {"error": {"details": [None, {"violations": [None]}]}}):
            self.assertEqual(self.read(body), [])
        [reading] = self.read("x", **{"x-ratelimit-remaining-requests-day": "0"})
        self.assertEqual(rows([reading]), [("requests", DAY, None, 0, None)])
        self.assertEqual(rate_headers.read_refusal({}, b"\xff{", NOW), ())

    @unittest.skipUnless(SHARED, "recorded errors are not here")
    def test_recorded_errors(self) -> None:
        """Every recorded refusal is read without an exception, and Gemini's give their quotas."""
        assert SHARED is not None
        recorded = json.loads((SHARED / "recorded" / "errors.json").read_text())
        for name, sample in recorded.items():
            body = sample.get("body_verbatim") or json.dumps(sample.get("body"))
            found = rate_headers.read_refusal(sample.get("headers", {}), body.encode(), NOW)
            if name.startswith("gemini_429") and "QuotaFailure" in body:
                self.assertTrue(found, name)


ALPHABET = string.printable + "٣é\u2028\x00"
SHAPES = (
    "{0}",
    "{0}s",
    "{0}ms",
    "{0}, {1};w={2}",
    '"a";q={0};w={1}',
    '"a";r={0};t={1}',
    "limit={0}, remaining={1}, reset={2}",
    "-{0}",
    "{0}e{1}",
    "{0}.{1}",
)
NAMES = sorted({name for _, headers, _ in RECORDED.values() for name in headers} | {"ratelimit", "ratelimit-policy"})


def hostile(chance: random.Random) -> dict[str, str]:
    """A set of headers that no honest server sends: right names with wrong values, and names that are nearly right."""
    made = {}
    for _ in range(chance.randrange(12)):
        name = chance.choice(NAMES)
        if chance.random() < 0.2:
            name = "-".join(chance.sample([*name.split("-"), "limit", "remaining", "requests", "day"], 4))
        numbers = [str(chance.choice((0, 1, 59, 60, 10**6, 10**15, 10**40, chance.randrange(10**9)))) for _ in range(3)]
        value = chance.choice(SHAPES).format(*numbers)
        if chance.random() < 0.3:
            value = "".join(chance.choices(ALPHABET, k=chance.randrange(30)))
        made[name] = value
    return made


class Hostile(unittest.TestCase):
    def test_nothing_raises(self) -> None:
        """No set of headers raises, and every figure is a number from 0 on with what remains within its limit."""
        chance = random.Random(20260101)
        for _ in range(rounds(5000, 1500)):
            headers = hostile(chance)
            body = json.dumps({"error": {"message": "per day", "metadata": {"headers": hostile(chance)}}}).encode()
            for reading in rate_headers.read_refusal(headers, body, NOW, chance.choice(("groq", "x"))):
                figures = (reading.window, reading.limit, reading.remaining, reading.resets_in)
                self.assertTrue(all(each is None or 0 <= each < 1e14 for each in figures), headers)
                self.assertTrue(reading.limit is None or reading.remaining is None or reading.remaining <= reading.limit)


if __name__ == "__main__":
    unittest.main()
