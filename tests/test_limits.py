"""Limits: what is refused as a limit, where calendar windows begin and end, and what a count keeps."""

from __future__ import annotations

import math
import random
import unittest
from datetime import UTC, datetime
from typing import Any

from tests import part, rounds

errors = part("errors")
limits = part("limits")
quota_blocks = part("quota_blocks")
windows = part("quota_windows")
Limit = limits.Limit


def at(text: str) -> float:
    """Epoch seconds of an ISO time, UTC unless it says otherwise."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


class LimitValueTest(unittest.TestCase):
    def test_rolling_default(self) -> None:
        """Minutes and hours roll, days and months follow the calendar, unless said otherwise."""
        for window, rolling in (("minute", True), ("hour", True), ("day", False), ("month", False)):
            self.assertIs(Limit(1, "requests", window).rolling, rolling)
        self.assertIs(Limit(1, "requests", "day", rolling=True).rolling, True)
        self.assertIs(Limit(1, "requests", "minute", rolling=False).rolling, False)

    def test_wrong_fields_are_named(self) -> None:
        """Each wrong field is a ConfigError that names it."""
        for field, args in (
            ("amount", (True, "tokens", "day")),
            ("amount", (math.nan, "tokens", "day")),
            ("amount", (math.inf, "tokens", "day")),
            ("amount", (-1, "tokens", "day")),
            ("amount", (10**400, "tokens", "day")),
            ("amount", ("5", "tokens", "day")),
            ("amount", (None, "tokens", "day")),
            ("unit", (1, "token", "day")),
            ("unit", (1, [], "day")),
            ("window", (1, "tokens", "fortnight")),
            ("window", (1, "tokens", [])),
            ("rolling", (1, "tokens", "day", 1)),
            ("zone", (1, "tokens", "day", None, "Mars/Olympus")),
            ("zone", (1, "tokens", "day", None, "")),
            ("zone", (1, "tokens", "day", None, "../../etc/passwd")),
            ("zone", (1, "tokens", "day", None, "America")),
            ("zone", (1, "tokens", "day", None, "nul\0")),
            ("zone", (1, "tokens", "day", None, [])),
        ):
            with self.assertRaises(errors.ConfigError, msg=args) as caught:
                Limit(*args)
            self.assertEqual(len(caught.exception.problems), 1, args)
            self.assertTrue(caught.exception.problems[0].startswith(f"{field}: "), caught.exception)

    def test_all_wrong_fields_at_once(self) -> None:
        """Several wrong fields come in one error."""
        with self.assertRaises(errors.ConfigError) as caught:
            Limit(-1, "x", "y", "z", "w")
        self.assertEqual(len(caught.exception.problems), 5)

    def test_missing_zone_data_has_a_hint(self) -> None:
        """An unknown zone tells how to get time zone data."""
        self.assertIn("pip install tzdata", limits.zone_problem("America/Nowhere"))
        self.assertIsNone(limits.zone_problem("UTC"))
        self.assertIn("not int", limits.zone_problem(5))

    def test_in_words(self) -> None:
        """A limit reads as amount, unit and window."""
        self.assertEqual(str(Limit(15, "requests", "minute")), "15 requests per minute")
        self.assertEqual(str(Limit(1, "requests", "day", rolling=True)), "1 request per rolling day")
        self.assertEqual(str(Limit(0.5, "dollars", "day")), "$0.5 per day")
        self.assertEqual(str(Limit(1000000, "tokens", "month")), "1000000 tokens per month")
        self.assertEqual(str(Limit(10, "dollars", "day")), "$10 per day")

    def test_values(self) -> None:
        """Limits are values: equal, hashable, frozen."""
        self.assertEqual(Limit(5, "tokens", "minute"), Limit(5, "tokens", "minute", True, "UTC"))
        self.assertEqual(len({Limit(5, "tokens", "day"), Limit(5, "tokens", "day")}), 1)
        with self.assertRaises(AttributeError):
            Limit(5, "tokens", "day").amount = 6


class CalendarTest(unittest.TestCase):
    def check(self, now: str, window: str, zone: str, begin: str, end: str) -> None:
        self.assertEqual(limits.window_bounds(at(now), window, zone), (at(begin), at(end)), (now, window, zone))
        self.assertEqual(limits.next_reset(at(now), window, zone), at(end))

    def test_utc(self) -> None:
        """Minute, hour, day and month in UTC, leap years and the year's end included."""
        self.check("2026-09-09T12:34:56", "minute", "UTC", "2026-09-09T12:34", "2026-09-09T12:35")
        self.check("2026-09-09T12:34:56", "hour", "UTC", "2026-09-09T12:00", "2026-09-09T13:00")
        self.check("2026-09-09T12:34:56", "day", "UTC", "2026-09-09", "2026-09-10")
        self.check("2024-02-29T23:59:59", "month", "UTC", "2024-02-01", "2024-03-01")
        self.check("2026-12-31T23:59:59", "month", "UTC", "2026-12-01", "2027-01-01")

    def test_edges(self) -> None:
        """A window holds its first moment and not its end, to the last bit of a float."""
        midnight = at("2026-09-10")
        self.assertEqual(limits.window_bounds(math.nextafter(midnight, 0), "day")[1], midnight)
        self.assertEqual(limits.window_bounds(midnight, "day")[0], midnight)

    def test_days_of_23_and_25_hours(self) -> None:
        """Where clocks change, a day has 23 or 25 hours and its month fits them."""
        zone = "America/Los_Angeles"
        self.check("2026-03-08T20:00", "day", zone, "2026-03-08T00:00-08:00", "2026-03-09T00:00-07:00")
        self.check("2026-11-01T20:00", "day", zone, "2026-11-01T00:00-07:00", "2026-11-02T00:00-08:00")
        self.check("2026-11-22T20:00", "month", zone, "2026-11-01T00:00-07:00", "2026-12-01T00:00-08:00")
        begin, end = limits.window_bounds(at("2026-03-08T20:00"), "day", zone)
        self.assertEqual(end - begin, 23 * 3600)
        begin, end = limits.window_bounds(at("2026-11-01T20:00"), "day", zone)
        self.assertEqual(end - begin, 25 * 3600)

    def test_midnight_that_does_not_exist(self) -> None:
        """Where clocks leave midnight out, the day begins with its first moment."""
        self.check("2018-11-04T12:00", "day", "America/Sao_Paulo", "2018-11-04T03:00", "2018-11-05T02:00")
        self.check("2026-04-24T12:00", "day", "Africa/Cairo", "2026-04-23T22:00", "2026-04-24T21:00")

    def test_midnight_that_comes_twice(self) -> None:
        """Where clocks go back over midnight, a window still ends after the time it holds."""
        for second in range(at_int("2006-10-29T01:00"), at_int("2006-10-29T05:00"), 30):
            begin, end = limits.window_bounds(second, "day", "America/St_Johns")
            self.assertLessEqual(begin, second)
            self.assertLess(second, end)

    def test_every_hour_of_years(self) -> None:
        """Windows of a zone follow each other without gap or overlap, over years of hours."""
        for zone in ("Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana"):
            for window in ("day", "month"):
                end = limits.window_bounds(at(f"{rounds(2022, 2025)}-01-01T12:00"), window, zone)[1]
                while end < at("2027-01-01"):
                    begin, after = limits.window_bounds(end, window, zone)
                    self.assertEqual(begin, end, (zone, window))
                    self.assertEqual(limits.window_bounds(after - 0.001, window, zone), (begin, after))
                    end = after

    def test_nonsense(self) -> None:
        """An absurd time is a QuotaStoreError, an unknown window a ConfigError."""
        for now in (math.nan, math.inf, 1e300, 1e11, -7e10):
            with self.assertRaises(errors.QuotaStoreError):
                limits.window_bounds(now, "day")
            with self.assertRaises(errors.QuotaStoreError):
                windows.counter_of(Limit(1, "tokens", "minute")).as_of(now)
        with self.assertRaises(errors.ConfigError):
            limits.next_reset(0, "fortnight")


class TallyTest(unittest.TestCase):
    def test_moving_leaves_the_old_count(self) -> None:
        """`as_of` gives a new count and leaves the old one as it was."""
        for window in ("minute", "day"):
            counter = windows.counter_of(Limit(10, "tokens", window)).as_of(1000.0)
            counter.used += 4
            later = counter.as_of(1000.0 + 2 * 86400)
            self.assertEqual((counter.used, later.used), (4, 0))
            later.used += 1
            self.assertEqual(counter.used, 4)

    def test_gone(self) -> None:
        """`expires_at` is the very time at which the newest slot's charge has passed."""
        for window in ("minute", "hour", "day", "month"):
            counter = windows.counter_of(Limit(10, "tokens", window)).as_of(1.7e9)
            counter.used += 4
            self.assertEqual(counter.frees_at(0), counter.expires_at)
            self.assertEqual(counter.as_of(math.nextafter(counter.expires_at, 0)).used, 4)
            self.assertEqual(counter.as_of(counter.expires_at).used, 0)

    def test_when_it_resets(self) -> None:
        """When the next of it passes is what a count says that was just unpacked, after any charges, corrections, clock steps and
        readings in a merged past, however often it was asked before."""
        for seed in range(rounds(60, 30)):
            rng = random.Random(seed)
            limit = Limit(100, "tokens", rng.choice(("minute", "day")), rolling=rng.random() < 0.7)
            span = limit.span_s
            counter, now, places = windows.counter_of(limit), 1.7e9, [None]
            for _ in range(60):
                now += rng.choice((0.0, 0.01, 0.02, 0.1, 0.5, 1.1, -0.3, -1.2, -3, -700)) * span
                counter = counter.as_of(now)
                places = [*places[-3:], counter.window_id]
                for _ in range(4):
                    counter.used += rng.choice((0, 0, 1, 4))
                    asked = (counter.steady or counter.resets_at(counter.used)) if counter.used > 0 else None
                    self.assertEqual(asked, windows.counter_unpacked(limit, counter.pack()).frees_at(0), f"seed {seed}")
                    counter.correct(rng.choice(places), rng.choice((-4, -1, 3)))
                    since = counter.since_at(now)
                    if since != counter.since:
                        counter.since, counter.steady = since, None

    def test_packing(self) -> None:
        """A count survives packing, before and after use, as calendar and as slots, whatever way the clock steps."""
        rng = random.Random(7)
        for window, rolling in (("minute", True), ("month", False), ("day", True), ("day", False)):
            limit = Limit(10, "tokens", window, rolling)
            counter = windows.counter_of(limit)
            self.assertEqual(windows.counter_unpacked(limit, counter.pack()).window_id, None)
            now = 1e9
            for step in range(300):
                now += (rng.random() - 0.4) * rng.choice((0.01, 0.1, 1, 30)) * limit.span_s
                counter = counter.as_of(now)
                counter.used += rng.randrange(5)
                if step % 7 == 0:
                    counter.correct(counter.as_of(now - 0.2 * limit.span_s).window_id, 2)
                again = windows.counter_unpacked(limit, counter.pack())
                for name in ("begin", "end", "expires_at", "window_id", "older", "used", "blocks", "since"):
                    self.assertEqual(getattr(again, name), getattr(counter, name), name)
                self.assertLessEqual(len(counter.blocks), quota_blocks.MAX_BLOCKS)
                self.assertLess(len(counter.pack()), 2000)

    def test_damaged(self) -> None:
        """Bytes that are not a count, and counts that are not numbers of 0 or more, raise QuotaStoreError."""
        for window in ("minute", "day"):
            limit = Limit(9, "tokens", window)
            with self.assertRaises(errors.QuotaStoreError):
                windows.counter_unpacked(limit, b"xx")
            for absurd in (math.nan, math.inf, -1.0):
                for passed in (0, 1, 200):
                    counter = windows.counter_of(limit).as_of(1e9)
                    counter.used = absurd
                    counter.blocks = ((1.0, 2.0, absurd),)
                    state = counter.pack() if passed else counter.pack()[:-24]
                    with self.assertRaises(errors.QuotaStoreError):
                        windows.counter_unpacked(limit, state)

    def test_what_is_used(self) -> None:
        """Of what lies ahead the most that a span with the reading in it was charged counts, and of what lies behind all."""
        for slots, at, used in (
            ({}, 0, 0),
            ({0: 1, 64: 2}, 64, 3),
            ({0: 1, 64: 2}, 65, 2),
            ({0: 1, 64: 2}, 0, 3),
            ({0: 5, 70: 3, 100: 4}, 40, 7),
            ({0: 9, 70: 3, 100: 4}, 40, 9),
            ({-100: 9, 200: 3}, 40, 0),
        ):
            self.assertEqual(quota_blocks.used_around(slots, at), used, (slots, at))

    def test_blocks_are_merged_where_it_matters_least(self) -> None:
        """More than eight blocks are merged far from the clock and never over it; nothing of what they hold is lost."""
        rng = random.Random(3)
        for _ in range(300):
            blocks: Any = ()
            for _ in range(40):
                here = rng.randrange(500)
                at = rng.randrange(500)
                if at != here:
                    blocks = quota_blocks.merged(quota_blocks.with_charge(blocks, at, at + 1, 1.0, at, at + 1), here, here + 1)
                    self.assertLessEqual(len(blocks), quota_blocks.MAX_BLOCKS)
            edges = [edge for begin, end, _ in blocks for edge in (begin, end)]
            self.assertEqual(edges, sorted(edges))
        recent = quota_blocks.merged(tuple((at, at + 1, 1.0) for at in range(9)), 10, 11)
        self.assertEqual((recent[0], recent[-1]), ((0, 2, 2.0), (8, 9, 1.0)))

    def test_giving_back_never_goes_below_zero(self) -> None:
        """A correction takes from its own slot only, so that the total stays the sum of the slots."""
        counter = windows.counter_of(Limit(10, "tokens", "minute")).as_of(0.0)
        counter.used += 5
        first = counter.window_id
        counter = counter.as_of(1.0)
        counter.used += 2
        counter.correct(first, -9)
        self.assertEqual((counter.used, counter.older), (2, 0))
        counter.correct(counter.window_id, -9)
        self.assertEqual(counter.used, 0)


def at_int(text: str) -> int:
    return int(at(text))


if __name__ == "__main__":
    unittest.main()
