"""Delays as servers write them: what counts, what is refused, what is clamped."""

from __future__ import annotations

import unittest

from tests import part

waiting = part("error_body")

NOW = 1_786_190_000.0  # Sat, 08 Aug 2026 11:53:20 GMT


class RetryAfterTest(unittest.TestCase):
    def header(self, **headers: str) -> float | None:
        return waiting.retry_after_header({name.replace("_", "-"): value for name, value in headers.items()}, NOW)

    def test_plain_numbers(self) -> None:
        """Seconds may have a fraction and spaces around; milliseconds go before seconds unless they are 0."""
        self.assertEqual(self.header(retry_after="2"), 2.0)
        self.assertEqual(self.header(retry_after=" 0.5 "), 0.5)
        self.assertEqual(self.header(retry_after="9", retry_after_ms="250"), 0.25)
        self.assertEqual(self.header(retry_after="1", retry_after_ms="0"), 1.0)

    def test_clamped_to_a_day(self) -> None:
        """A wait longer than a day counts as a day."""
        self.assertEqual(self.header(retry_after="999999999"), 86_400.0)

    def test_refused(self) -> None:
        """Words, signs, exponents, other scripts' digits and endless digits are not numbers."""
        for value in ("inf", "nan", "-1", "+1", "1e3", "1_0", "\u0661\u0662", "9" * 400, "", "soon", "0x10", "1.", ".5"):
            self.assertIsNone(self.header(retry_after=value), value)
        self.assertIsNone(self.header())

    def test_dates(self) -> None:
        """An HTTP date counts from now; one in the past is 0, one without a zone is GMT, garbage is nothing."""
        self.assertEqual(self.header(retry_after="Sat, 08 Aug 2026 11:54:20 GMT"), 60.0)
        self.assertEqual(self.header(retry_after="Sat, 08 Aug 2026 11:54:20"), 60.0)
        self.assertEqual(self.header(retry_after="Sat, 08 Aug 2020 12:34:20 GMT"), 0.0)
        for value in ("Sat, 99 Aug 2026 99:99:99 GMT", "Sat, 08 Aug 99999999 12:34:20 GMT", "Sat, GMT"):
            self.assertIn(self.header(retry_after=value), (None, 0.0, 86_400.0), value)

    def test_sentences(self) -> None:
        """A delay is found in the sentences providers write, and beats the shorter field beside it."""
        for text, seconds in (
            ("Please retry in 42.87350591s.", 42.87350591),
            ("Please try again in 9m38.016s. Need more", 578.016),
            ("Please try again in 174ms. Visit", 0.174),
            ("Please wait 41242 seconds before retrying.", 41242.0),
            ("Please retry after 26 seconds.", 26.0),
            ("try again in 1 hour, 2 minutes", 3720.0),
            ("Try again in 1d2h", 86_400.0),
        ):
            self.assertAlmostEqual(waiting.retry_after_text(text, "48s"), seconds, places=6, msg=text)
        for text in ("Limit 10000 / min", "in 5 seconds", "retry with 5 samples", "try again in \u0661s", "retry " * 5000):
            self.assertIsNone(waiting.retry_after_text(text), text)
        self.assertEqual(waiting.retry_after_text("", "48s"), 48.0)

    def test_durations(self) -> None:
        """Durations of reset headers are read; anything else is nothing."""
        for text, seconds in (("12ms", 0.012), ("34.142s", 34.142), ("1m12.5s", 72.5), ("24m28.8s", 1468.8), ("2h", 7200.0)):
            self.assertAlmostEqual(waiting.duration(text), seconds, places=6, msg=text)
        for text in ("", "s", "1", "-1s", "1x", "1s?", "9" * 100 + "s", "1s" * 100):
            self.assertIsNone(waiting.duration(text), text)


class WindowTest(unittest.TestCase):
    def spent(self, **headers: str) -> float | None:
        return waiting.spent_window({name.replace("_", "-"): value for name, value in headers.items()}, NOW)

    def test_only_spent_windows(self) -> None:
        """A reset counts only where the remaining count beside it is 0; the latest of several wins."""
        self.assertIsNone(self.spent(x_ratelimit_remaining_requests="3", x_ratelimit_reset_requests="2m"))
        self.assertEqual(
            self.spent(
                x_ratelimit_remaining_requests="0",
                x_ratelimit_reset_requests="2m59.56s",
                x_ratelimit_remaining_tokens="0",
                x_ratelimit_reset_tokens="7.66s",
            ),
            179.56,
        )

    def test_every_way_to_write_a_reset(self) -> None:
        """Durations, bare seconds, epochs in seconds or milliseconds and RFC 3339 moments are all seconds from now."""
        for value, seconds in (
            ("26", 26.0),
            ("670ms", 0.67),
            ("1786190030", 30.0),
            ("1786190030000", 30.0),
            ("2026-08-08T11:54:00Z", 40.0),
            ("2020-01-01T00:00:00Z", 0.0),
        ):
            wait = self.spent(x_ratelimit_remaining="0", x_ratelimit_reset=value)
            self.assertAlmostEqual(wait or 0.0, seconds, places=3, msg=value)
        self.assertEqual(
            self.spent(anthropic_ratelimit_tokens_remaining="0", anthropic_ratelimit_tokens_reset="2026-08-08T11:53:30Z"), 10.0
        )
        for value in ("inf", "-5", "2026-99-99T00:00:00Z", "later"):
            self.assertIsNone(self.spent(x_ratelimit_remaining="0", x_ratelimit_reset=value), value)


if __name__ == "__main__":
    unittest.main()
