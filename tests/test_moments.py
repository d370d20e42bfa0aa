"""Moments and spans in words."""

from __future__ import annotations

import math
import unittest

from tests import part

moments = part("moments")
NOON = 1_768_478_400.0  # 2026-01-15 12:00:00 UTC


class Spans(unittest.TestCase):
    def test_words(self) -> None:
        """A span is rounded up to the unit that matters at its size."""
        rows = [
            (0, "0 s"),
            (0.2, "1 s"),
            (12, "12 s"),
            (119.5, "2 min"),
            (25 * 60, "25 min"),
            (25 * 60 - 30, "25 min"),
            (119 * 60, "119 min"),
            (2 * 3600, "2 h"),
            (3 * 3600 + 20 * 60, "3 h 20 min"),
            (30 * 3600 + 60, "31 h"),
            (2 * 86_400, "2 days"),
            (2 * 86_400 + 4 * 3600, "2 days 4 h"),
            (10 * 86_400 + 1, "11 days"),
            (-5, "0 s"),
            (math.inf, "for ever"),
        ]
        self.assertEqual([moments.span_in_words(seconds) for seconds, _ in rows], [words for _, words in rows])


class Moments(unittest.TestCase):
    def test_short_waits_have_no_clock(self) -> None:
        """What is over soon is told in seconds alone, and what has come already is now."""
        self.assertEqual(moments.moment_in_words(NOON + 12, NOON, "UTC"), "in 12 s")
        self.assertEqual(moments.moment_in_words(NOON - 1, NOON, "UTC"), "now")

    def test_longer_waits_show_the_clock_of_the_limit(self) -> None:
        """A longer wait shows the hour where the limit's day begins, and the date when it is more than a day away."""
        eight = NOON + 20 * 3600  # midnight in Los Angeles
        self.assertEqual(moments.moment_in_words(eight, eight - 25 * 60, "America/Los_Angeles"), "in 25 min (00:00 Pacific)")
        self.assertEqual(moments.moment_in_words(NOON + 3600, NOON, "UTC"), "in 60 min (13:00 UTC)")
        self.assertEqual(moments.moment_in_words(NOON + 2 * 86_400, NOON, "UTC"), "in 2 days (2026-01-17 12:00 UTC)")
        self.assertEqual(moments.moment_in_words(NOON + 3600, NOON, "Asia/Tokyo"), "in 60 min (22:00 JST)")

    def test_the_machines_own_clock(self) -> None:
        """Without a zone the reader's own clock is shown, with its name."""
        shown = moments.moment_in_words(NOON + 3600, NOON, "rolling")
        self.assertRegex(shown, r"^in 60 min \(\d\d:\d\d \S+\)$")

    def test_nothing_raises(self) -> None:
        """A moment beyond the calendar and an unknown zone are told all the same."""
        self.assertEqual(moments.moment_in_words(1e300, NOON).split()[0], "in")
        self.assertEqual(moments.moment_in_words(math.inf, NOON), "in for ever")
        self.assertEqual(moments.clock_in_words(NOON, "Nowhere/City"), "2026-01-15 12:00 UTC")
        self.assertEqual(moments.utc_in_words(NOON - 0.5), "2026-01-15 12:00:00 UTC")
        self.assertEqual(moments.utc_in_words(1e300), f"{1e300:.0f} s after the epoch")

    def test_age(self) -> None:
        """A figure's age is told in days."""
        rows = [("2026-01-15", "of today"), ("2026-01-14", "1 day old"), ("2025-11-28", "48 days old"), ("yesterday", "")]
        self.assertEqual([moments.age_in_words(day, NOON) for day, _ in rows], [words for _, words in rows])


if __name__ == "__main__":
    unittest.main()
