"""Tests a quota store against clocks that step: back, ahead and to and fro, between calls and over restarts.

Strategy: a part of the suite in `conformance`. The measure is the invariant: in any span of a window's length, by the readings
seen, no more than the amount; and a clock that was set right is not refused for long. Must never know how a store keeps counts.
"""

from __future__ import annotations

from .conformance_store import NOON, StoreCase
from .limits import Limit


class ClockConformance(StoreCase):
    """Every claim about clock steps that a store must hold."""

    def test_clock_back_does_not_open_a_spent_calendar_window(self) -> None:
        """A day that was spent stays spent, however the clock comes back to it; a day that was never charged serves."""
        self.define("k", Limit(2, "requests", "day"))
        self.assertEqual(self.admitted("k", 3), 2)
        for back in (1, 3600, 43_200):
            self.assertEqual(self.admitted("k", 1, now=NOON - back), 0, back)
        self.assertEqual(self.admitted("k", 3, now=NOON - 43_201), 2)
        self.assertEqual(self.admitted("k", 3, now=NOON + 43_200), 2)
        for now in (NOON, NOON - 43_201, NOON + 43_200):
            self.assertEqual(self.admitted("k", 1, now=now), 0)

    def test_clock_back_within_a_rolling_window(self) -> None:
        """A short step back opens nothing, and what is used frees no later than before."""
        self.define("k", Limit(2, "requests", "minute"))
        self.assertEqual(self.admitted("k", 2), 2)
        self.assertEqual(self.admitted("k", 1, now=NOON - 50), 0)
        self.assertEqual(self.admitted("k", 1, now=NOON + 59), 0)
        self.assertEqual(self.admitted("k", 3, now=NOON + 61.5), 2)

    def test_clock_back_beyond_a_rolling_window(self) -> None:
        """A minute that was never charged serves; back again, the one that was is as full as before."""
        self.define("k", Limit(3, "requests", "minute"))
        self.assertEqual(self.admitted("k", 3), 3)
        back = NOON - 86_400
        self.assertEqual(self.admitted("k", 4, now=back), 3)
        self.assertEqual(self.admitted("k", 1, now=NOON + 1), 0)
        self.assertEqual(self.admitted("k", 1, now=back + 1), 0)
        self.assertEqual(self.admitted("k", 4, now=NOON + 200), 3)

    def test_clock_steps_re_open_no_window(self) -> None:
        """A clock that goes back by more than a window for one call, repeatedly, admits one amount and no more."""
        for window, back in (("minute", 61.0), ("minute", 90.0), ("hour", 3700.0), ("day", 90_000.0)):
            for rolling in (True, False):
                key = f"{window} {back} {rolling}"
                limit = Limit(10, "requests", window, rolling)
                self.define(key, limit)
                readings = []
                for lap in range(10):
                    for count, now in ((9, NOON + lap / 1000), (1, NOON + lap / 1000 - back)):
                        readings += [now] * self.admitted(key, count, now=now)
                self.assertGreaterEqual(len(readings), 10)
                self.assert_never_over(limit, readings)
                self.assertLessEqual(sum(now > NOON - 1 for now in readings), 10)

    def test_clock_ahead_shuts_nothing(self) -> None:
        """A reading far ahead leaves today as it was, on either side of a restart, and today's count leaves the far day alone."""
        for rolling in (True, False):
            for ahead in (2 * 86_400, 365 * 86_400):
                key = f"{rolling} {ahead}"
                self.define(key, Limit(5, "requests", "day", rolling))
                self.assertEqual(self.admitted(key, 2), 2)
                self.assertEqual(self.admitted(key, 9, now=NOON + ahead), 5)
                self.store = self.reopened()
                self.assertEqual(self.admitted(key, 9, now=NOON + 60), 3)
                self.assertEqual(self.admitted(key, 1, now=NOON + ahead), 0)
                self.assertEqual(self.admitted(key, 9, now=NOON + ahead + 90_000), 5)

    def test_glitches_ahead_re_open_nothing(self) -> None:
        """A spent window stays spent though the clock visits one other window after the other in between."""
        for window, length in (("minute", 60), ("day", 86_400)):
            for rolling in (True, False):
                key = f"{window} {rolling}"
                limit = Limit(10, "requests", window, rolling)
                self.define(key, limit)
                readings = [NOON] * self.admitted(key, 20)
                for glitch in range(1, 13):
                    for now in (NOON + glitch * 3 * length, NOON + 1):
                        readings += [now] * self.admitted(key, 20, now=now)
                    self.store = self.reopened()
                self.assertEqual(sum(now < NOON + length for now in readings), 10, key)
                self.assert_never_over(limit, readings)

    def test_clock_both_ways_never_over(self) -> None:
        """However a clock jumps between a few times, no span of a window's length holds more than the amount."""
        state = 7
        for window, length in (("minute", 60), ("hour", 3600), ("day", 86_400)):
            for rolling in (True, False):
                key = f"{window} {rolling}"
                limit = Limit(4, "requests", window, rolling)
                self.define(key, limit)
                readings = []
                for _ in range(150):
                    state = state * 1_103_515_245 + 12_345 & 0x7FFFFFFF
                    now = NOON + (state >> 8) % 8 * 5 * length + (state >> 16) % 64 / 64 * length
                    readings += [now] * self.admitted(key, 2, now=now)
                self.assertGreaterEqual(len(readings), 32)
                self.assert_never_over(limit, readings)

    def test_late_giving_back_over_clock_steps(self) -> None:
        """What is given back, or charged on top, goes to the slot that was charged, wherever the clock has been since."""
        for rolling in (True, False):
            key = f"{rolling}"
            self.define(key, Limit(10, "requests", "minute", rolling))
            flying = [self.reserved([(key, 1)]) for _ in range(9)]
            self.assertEqual(self.admitted(key, 1, now=NOON - 120), 1)
            later = self.admitted(key, 20, now=NOON + 0.2)
            for each in flying[:8]:
                self.assertTrue(self.store.rollback(each, NOON + 2))
            self.assertTrue(self.store.commit(flying[8], NOON + 2, [3]))
            more = self.admitted(key, 20, now=NOON + 3)
            self.assertLessEqual(later, 1)
            self.assertLessEqual(later + more + 3, 10)
            self.assertGreaterEqual(later + more + 3, 9)
            self.assertEqual(self.admitted(key, 20, now=NOON - 115), 9)

    def test_clock_back_into_a_long_past(self) -> None:
        """Back among more spent windows than are kept apart, a bucket serves again once a whole window was seen to pass there,
        by looks of any kind and over restarts; at the first look it refuses, and what it kept apart stays spent."""
        for window, length in (("minute", 60), ("day", 86_400)):
            for rolling in (True, False):
                key = f"{window} {rolling}"
                self.define(key, Limit(2, "requests", window, rolling))
                for passed in range(20):
                    self.assertEqual(self.admitted(key, 3, now=NOON + passed * 2 * length), 2)
                back = NOON + 11 * length
                self.assertEqual(self.headroom(key, back).remaining, 0)
                self.store = self.reopened()
                self.assertEqual(self.admitted(key, 1, now=back + 0.9 * length), 0)
                self.store = self.reopened()
                self.assertEqual(self.admitted(key, 3, now=back + 1.03 * length), 2, key)
                self.assertEqual(self.admitted(key, 1, now=NOON + 38 * length + 1), 0)

    def test_a_flapping_clock_releases_nothing(self) -> None:
        """Between two looks into a long past the clock was right again: that is not a whole window seen to pass there."""
        self.define("k", Limit(2, "requests", "minute"))
        for passed in range(20):
            self.assertEqual(self.admitted("k", 2, now=NOON + passed * 120), 2)
        for flap in range(5):
            self.assertEqual(self.admitted("k", 1, now=NOON + 600 + flap * 70), 0)
            self.assertEqual(self.headroom("k", NOON + 20 * 120 + flap).used, 0)

    def test_a_clock_that_goes_from_one_long_past_to_another(self) -> None:
        """A look into one long past does not count as a look into another: each is let go by a whole window seen there."""
        for rolling in (True, False):
            key, length = f"rolling {rolling}", 86_400
            self.define(key, Limit(2, "requests", "day", rolling))
            for past in (NOON, NOON + 1000 * length):
                for passed in range(20):
                    self.assertEqual(self.admitted(key, 2, now=past + passed * 2 * length), 2)
            for past in (NOON, NOON + 1000 * length):
                self.assertEqual(self.admitted(key, 1, now=past + 11 * length), 0, key)

    def test_clock_back_and_holds(self) -> None:
        """After a step back a hold has no longer to go than when it was made."""
        self.store.hold("k", NOON + 60, "", NOON)
        self.assertEqual(self.store.holds(NOON - 7200)["k"].until, NOON - 7140)
        self.assertEqual(self.store.holds(NOON - 7139), {})

    def test_flapping_clock(self) -> None:
        """A clock that flaps by an hour admits no more than one amount for each window it visits."""
        for key, limit in (("k", Limit(5, "requests", "hour", rolling=False)), ("rolling", Limit(5, "requests", "minute"))):
            self.define(key, limit)
            admitted = sum(self.admitted(key, 6, now=NOON + (flap % 2) * 3600 + flap / 100) for flap in range(20))
            self.assertLessEqual(admitted, 10, key)
