"""Tests a quota store against its contract: the stores here, and anybody's own.

Strategy: a mixin. Derive from it and `unittest.TestCase`, say in `make_store` how to make an empty store, and run it:

    class MyStoreTest(QuotaStoreConformance, unittest.TestCase):
        def make_store(self): return MyStore(...)

Time is passed in, so nothing sleeps. A store that passes counts exactly as the ones here do. Must never know how a
store keeps its counts: it uses the protocol's methods only.
"""

from __future__ import annotations

import math

from .conformance_clock import ClockConformance
from .conformance_store import NOON
from .conformance_threads import ThreadConformance
from .errors import QuotaStoreError
from .limits import WINDOWS, Limit, next_reset
from .quota import LONGEST_HOLD, Headroom, Refusal, Reservation, allowance_key

__all__ = ["NOON", "QuotaStoreConformance"]


class QuotaStoreConformance(ClockConformance, ThreadConformance):
    """Every claim a store must hold. `make_store` returns a new empty store; the suite closes it."""

    def test_admits_exactly_the_amount(self) -> None:
        """A limit of three admits three, whatever the window."""
        for window in ("minute", "hour", "day", "week", "month", "90s", "5h", "7d"):
            for rolling in (True, False) if window in WINDOWS else (True,):
                key = f"{window} {rolling}"
                self.define(key, Limit(3, "requests", window, rolling))
                self.assertEqual(self.admitted(key, 5), 3, key)

    def test_boundary_of_uneven_amounts(self) -> None:
        """What fits exactly is admitted, one more is not."""
        self.define("k", Limit(10, "tokens", "minute"))
        self.take("k", 9)
        self.assertIsInstance(self.store.reserve([("k", 2)], NOON), Refusal)
        self.take("k", 1)
        self.assertEqual(self.headroom("k").remaining, 0)

    def test_dollars_add_up(self) -> None:
        """Ten times ten cents fit into a dollar and three into thirty cents, though binary sums are a little off."""
        self.define("k", Limit(1, "dollars", "day"))
        self.assertEqual(self.admitted("k", 11, 0.1), 10)
        self.define("off", Limit(0.3, "dollars", "day"))
        self.assertEqual(self.admitted("off", 4, 0.1), 3)

    def test_nothing_fits_a_limit_of_zero(self) -> None:
        """A limit of zero refuses for ever, and its share is zero."""
        self.define("k", Limit(0, "requests", "day"))
        self.assertIsNone(self.refused([("k", 1)]).retry_at)
        self.assertEqual(self.headroom("k"), Headroom("k", Limit(0, "requests", "day"), 0, 0, 0.0, None))

    def test_asking_for_nothing(self) -> None:
        """An amount of zero is admitted by a full limit, as is a reservation of no bucket."""
        self.define("k", Limit(1, "requests", "day"))
        self.take("k", 1)
        self.take("k", 0)
        self.assertIsInstance(self.store.reserve([], NOON), Reservation)

    def test_a_key_twice_counts_twice(self) -> None:
        """Two amounts of one bucket count together, in reserving and in settling."""
        self.define("k", Limit(3, "tokens", "day"))
        self.assertEqual(self.refused([("k", 2), ("k", 2)]).needed, 4)
        taken = self.reserved([("k", 2), ("k", 1)])
        self.assertTrue(self.store.commit(taken, NOON, [1, 1]))
        self.assertEqual(self.headroom("k").used, 2)

    def test_odd_keys(self) -> None:
        """Any text is a key."""
        for key in ("", "it's", 'a"b; DROP TABLE bucket', "nul\0nul", "nul\0", "schlüssel 鍵", "x" * 10_000):
            self.define(key, Limit(1, "requests", "day"))
            self.assertEqual(self.admitted(key, 2), 1, key[:20])
            self.store.hold(key, NOON + 60, "held", NOON)
            self.assertIn(key, self.store.holds(NOON))

    def test_refused_writes_nothing(self) -> None:
        """When one of several limits refuses, none of the others is charged."""
        self.define("wide", Limit(100, "tokens", "day"))
        self.define("narrow", Limit(1, "requests", "day"))
        self.take("narrow", 1)
        before = self.store.headroom(["wide", "narrow"], NOON)
        for wants in ([("wide", 5), ("narrow", 1)], [("narrow", 1), ("wide", 5)]):
            self.assertIsInstance(self.store.reserve(wants, NOON), Refusal)
        self.assertEqual(self.store.headroom(["wide", "narrow"], NOON), before)

    def test_refusal_says_when(self) -> None:
        """A refusal names bucket, need, what is left and time; at that time it fits, and not a moment before."""
        self.define("k", Limit(10, "tokens", "minute"))
        for second, amount in ((0, 4), (20, 4)):
            self.reserved([("k", amount)], NOON + second)
        refusal = self.refused([("k", 5)], NOON + 30)
        self.assertEqual((refusal.key, refusal.needed, refusal.remaining), ("k", 5, 2))
        at = refusal.retry_at or 0.0
        self.assertGreaterEqual(at, NOON + 60)
        self.assertLessEqual(at, NOON + 60 * 1.02)
        self.assertIsInstance(self.store.reserve([("k", 5)], math.nextafter(at, 0)), Refusal)
        self.assertIsInstance(self.store.reserve([("k", 5)], at), Reservation)

    def test_refusal_that_frees_last_wins(self) -> None:
        """Of several refusing buckets the one that frees last is named, whatever their order."""
        self.define("minute", Limit(1, "requests", "minute"))
        self.define("day", Limit(1, "requests", "day"))
        self.reserved([("minute", 1), ("day", 1)])
        for keys in (("minute", "day"), ("day", "minute")):
            refusal = self.refused([(key, 1) for key in keys])
            self.assertEqual((refusal.key, refusal.retry_at), ("day", NOON + 43_200))

    def test_larger_than_the_whole_limit(self) -> None:
        """What can never fit is refused without a time, and is named before what only waits."""
        self.define("small", Limit(4000, "tokens", "minute"))
        self.define("day", Limit(1, "requests", "day"))
        self.take("day", 1)
        refusal = self.refused([("small", 5000), ("day", 1)])
        self.assertEqual((refusal.key, refusal.retry_at), ("small", None))
        self.assertIn("more than the whole limit of 4000 tokens per minute", str(refusal))

    def test_nonsense_is_an_error(self) -> None:
        """An unknown key and an amount that is not one raise QuotaStoreError and change nothing."""
        self.define("k", Limit(10, "tokens", "day"))
        for amount in (-1, math.nan, math.inf, -math.inf, True, "1", None):
            with self.assertRaises(QuotaStoreError, msg=repr(amount)):
                self.store.reserve([("k", 1), ("k", amount)], NOON)  # type: ignore[list-item]  # wrong on purpose
        with self.assertRaises(QuotaStoreError):
            self.store.reserve([("k", 1), ("unknown", 1)], NOON)
        with self.assertRaises(QuotaStoreError):
            self.store.headroom(["k", "unknown"], NOON)
        self.assertEqual(self.headroom("k").used, 0)

    def test_settles_to_what_was_used(self) -> None:
        """Less gives back, more is charged beyond the limit, None keeps the reservation, rolling back gives all back."""
        for number, (amounts, used) in enumerate(((3, 3.0), (15, 15.0), (None, 8.0), (0, 0.0))):
            key = f"k{number}"
            self.define(key, Limit(10, "tokens", "day"))
            taken = self.reserved([(key, 8)])
            self.assertTrue(self.store.commit(taken, NOON, None if amounts is None else [amounts]))
            self.assertEqual(self.headroom(key).used, used)
            self.assertEqual(self.headroom(key).remaining, max(0, 10 - used))
        self.define("back", Limit(10, "tokens", "day"))
        self.assertTrue(self.store.rollback(self.reserved([("back", 8)]), NOON))
        self.assertEqual(self.headroom("back").used, 0)

    def test_settles_once(self) -> None:
        """Settling again returns False and changes nothing, whichever way came first."""
        self.define("k", Limit(100, "tokens", "day"))
        for used, first in enumerate((self.commit_one, self.store.rollback), 1):
            taken = self.reserved([("k", 10)])
            self.assertTrue(first(taken, NOON))
            self.assertFalse(self.store.commit(taken, NOON, [50]))
            self.assertFalse(self.store.commit(taken, NOON))
            self.assertFalse(self.store.rollback(taken, NOON))
            self.assertEqual(self.headroom("k").used, 1, used)

    def test_nonsense_in_settling(self) -> None:
        """Wrong amounts raise QuotaStoreError and leave the reservation open, to be settled properly."""
        self.define("k", Limit(100, "tokens", "day"))
        taken = self.reserved([("k", 10)])
        for amounts in ([], [1, 1], [-1], [math.nan], [math.inf], [True]):
            with self.assertRaises(QuotaStoreError, msg=repr(amounts)):
                self.store.commit(taken, NOON, amounts)
        self.assertEqual(self.headroom("k").used, 10)
        self.assertTrue(self.store.commit(taken, NOON, [4]))
        self.assertEqual(self.headroom("k").used, 4)

    def test_never_settled(self) -> None:
        """A reservation nobody settles stays charged until its windows pass."""
        self.define("minute", Limit(5, "requests", "minute"))
        self.define("day", Limit(5, "requests", "day"))
        self.reserved([("minute", 5), ("day", 5)])
        self.assertEqual(self.headroom("minute", NOON + 60).used, 5)
        self.assertEqual(self.headroom("minute", NOON + 62).used, 0)
        self.assertEqual(self.headroom("day", NOON + 43_199).used, 5)
        self.assertEqual(self.headroom("day", NOON + 43_200).used, 0)

    def test_late_settling_corrects_its_own_window_only(self) -> None:
        """A commit after one of its windows passed leaves the new one alone and still corrects the one that lasts."""
        self.define("minute", Limit(50, "tokens", "minute"))
        self.define("day", Limit(50, "tokens", "day"))
        self.define("month", Limit(50, "tokens", "month"))
        keys = ["minute", "day", "month"]
        late = self.reserved([(key, 10) for key in keys])
        after = NOON + 43_200
        self.reserved([(key, 7) for key in keys], after)
        self.assertTrue(self.store.commit(late, after, [30, 30, 30]))
        self.assertEqual([each.used for each in self.store.headroom(keys, after)], [7, 7, 37])

    def test_settling_after_everything_passed(self) -> None:
        """A first settling after all windows passed returns True and changes nothing."""
        self.define("k", Limit(5, "requests", "minute"))
        late = self.reserved([("k", 1)])
        self.reserved([("k", 2)], NOON + 300)
        self.assertTrue(self.store.commit(late, NOON + 300, [4]))
        self.assertFalse(self.store.rollback(late, NOON + 300))
        self.assertEqual(self.headroom("k", NOON + 300).used, 2)

    def test_rolling_window_never_overruns(self) -> None:
        """No span of a minute holds more than the amount, however the calls fall, and 2 % of it at most is wasted."""
        self.define("k", Limit(7, "requests", "minute"))
        times = []
        now = NOON
        for step in range(2000):
            now += 0.3 + (step * 7919 % 13) / 10
            if isinstance(self.store.reserve([("k", 1)], now), Reservation):
                times.append(now)
        for first, eighth in zip(times, times[7:], strict=False):
            self.assertGreaterEqual(eighth - first, 60)
        self.assertGreater(len(times), (now - NOON) / 60 * 7 * 0.96)

    def test_rolling_window_wastes_little(self) -> None:
        """A whole amount taken at once is free again after the window and at most 2 % more."""
        for window, seconds in (("minute", 60), ("hour", 3600), ("day", 86_400), ("90s", 90), ("5h", 18_000), ("week", 604_800)):
            self.define(window, Limit(5, "requests", window, rolling=True))
            self.reserved([(window, 5)], NOON + 0.123)
            self.assertEqual(self.headroom(window, NOON + seconds).used, 5)
            self.assertEqual(self.headroom(window, NOON + 0.123 + seconds * 1.02).used, 0)

    def test_calendar_day_ends_at_midnight_of_its_zone(self) -> None:
        """A day's limit is free again at midnight in UTC, and not a moment before."""
        limit = Limit(2, "requests", "day")
        self.define("k", limit)
        midnight = next_reset(NOON, "day")
        self.assertEqual(self.admitted("k", 3, now=math.nextafter(midnight, 0)), 2)
        self.assertEqual(self.headroom("k", math.nextafter(midnight, 0)).resets_at, midnight)
        self.assertEqual(self.admitted("k", 3, now=midnight), 2)

    def test_limits_of_one_unit_side_by_side(self) -> None:
        """Five hours and a week of one unit hold both, each freed by itself, as coding plans count."""
        self.define("5h", Limit(3, "requests", "5h"))
        self.define("week", Limit(5, "requests", "week"))
        both = [("5h", 1), ("week", 1)]
        for now, admitted in ((NOON, 3), (NOON + 18_500, 2), (NOON + 37_000, 0)):
            outcomes = [self.store.reserve(both, now) for _ in range(4)]
            self.assertEqual(sum(isinstance(each, Reservation) for each in outcomes), admitted, now)
        refusal = self.refused(both, NOON + 37_000)
        self.assertEqual((refusal.key, refusal.retry_at), ("week", next_reset(NOON, "week")))

    def test_fractions(self) -> None:
        """Units that have fractions, as seconds of audio, are counted to the fraction."""
        self.define("k", Limit(10, "audio_seconds", "hour"))
        self.take("k", 7.25)
        self.assertIsInstance(self.store.reserve([("k", 2.76)], NOON), Refusal)
        self.take("k", 2.75)

    def test_headroom(self) -> None:
        """Headroom says what is used and left, the share and when something frees, in the order asked, and writes nothing."""
        self.define("a", Limit(10, "requests", "day"))
        self.define("b", Limit(20, "tokens", "day"))
        self.take("b", 5)
        found = self.store.headroom(["b", "a", "b"], NOON)
        seen = [(each.key, each.used, each.remaining, each.share) for each in found]
        self.assertEqual(seen, [("b", 5, 15, 0.75), ("a", 0, 10, 1.0), ("b", 5, 15, 0.75)])
        self.assertEqual([each.resets_at for each in found], [NOON + 43_200, None, NOON + 43_200])
        self.assertEqual(self.headroom("b", NOON + 86_400).used, 0)
        self.assertEqual(self.headroom("b", NOON).used, 5)

    def test_defining_again_keeps_what_is_used(self) -> None:
        """Defining is idempotent; a changed amount takes effect at once, and so does another window."""
        self.define("k", Limit(10, "requests", "day"))
        taken = self.reserved([("k", 6)])
        self.define("k", Limit(10, "requests", "day"))
        self.assertEqual(self.headroom("k").used, 6)
        self.define("k", Limit(4, "requests", "day"))
        self.assertEqual((self.headroom("k").used, self.headroom("k").remaining), (6, 0))
        self.define("k", Limit(7, "requests", "day"))
        self.assertEqual(self.admitted("k", 3), 1)
        self.store.commit(taken, NOON, [2])
        self.assertEqual(self.headroom("k").used, 3)
        self.define("k", Limit(7, "requests", "hour"))
        self.assertEqual(self.headroom("k").used, 3)
        self.assertEqual(self.headroom("k", NOON + 3800).used, 0)

    def test_the_unit_changes_under_a_call(self) -> None:
        """What was reserved in tokens leaves a count of requests alone when it is settled, and so does a change by `define`."""
        key = allowance_key("acc")
        self.define(key, Limit(10**6, "tokens", "day"))
        self.define("k", Limit(10**6, "tokens", "minute"))
        for used in ([3000, 3000], [10, 10], [0, 0]):
            flying = self.reserved([(key, 1032), ("k", 1032)])
            self.store.set_quota("acc", 50, "requests")
            self.define("k", Limit(50, "requests", "minute"))
            self.reserved([(key, 20), ("k", 20)])
            self.assertTrue(self.store.commit(flying, NOON, used))
            self.assertEqual([each.used for each in self.store.headroom([key, "k"], NOON)], [20, 20], used)
            self.store.set_quota("acc", 10**6, "tokens")
            self.define("k", Limit(10**6, "tokens", "minute"))
            self.assertEqual([each.used for each in self.store.headroom([key, "k"], NOON)], [0, 0])

    def test_the_window_changes_under_a_call(self) -> None:
        """What was used goes over into the new window, and a call that was under way is settled there."""
        self.define("k", Limit(50, "requests", "day"))
        flying = self.reserved([("k", 6)])
        self.define("k", Limit(50, "requests", "hour"))
        self.assertEqual(self.headroom("k").used, 6)
        self.assertTrue(self.store.commit(flying, NOON + 1, [2]))
        self.assertEqual(self.headroom("k").used, 2)

    def test_set_quota(self) -> None:
        """`set_quota` makes or changes the daily allowance and outlasts a later define; the defined zone stays."""
        key = allowance_key("acc")
        self.store.set_quota("acc", 2, "requests")
        self.assertEqual(self.admitted(key, 3), 2)
        self.define(key, Limit(9, "tokens", "day", zone="UTC"))
        self.assertEqual(self.headroom(key).limit, Limit(2, "requests", "day"))
        self.store.set_quota("acc", 3, "requests")
        self.assertEqual(self.admitted(key, 3), 1)
        rolling = allowance_key("rolling")
        self.define(rolling, Limit(9, "tokens", "day", rolling=True))
        self.store.set_quota("rolling", 4, "tokens")
        self.assertEqual(self.headroom(rolling).limit, Limit(4, "tokens", "day", rolling=True))

    def test_holds(self) -> None:
        """A hold lasts until its time; the later of two wins; a time that has come releases."""
        self.store.hold("a", NOON + 60, "429", NOON)
        self.store.hold("a", NOON + 30, "shorter", NOON)
        self.store.hold("b", NOON + 10, "short", NOON)
        held = self.store.holds(NOON)
        self.assertEqual((held["a"].key, held["a"].until, held["a"].reason), ("a", NOON + 60, "429"))
        self.assertEqual(set(self.store.holds(NOON + 10)), {"a"})
        self.store.hold("a", NOON + 90, "longer", NOON + 20)
        self.assertEqual(self.store.holds(NOON + 89)["a"].reason, "longer")
        self.store.hold("a", NOON + 89, "over", NOON + 89)
        self.assertEqual(self.store.holds(NOON + 89), {})

    def test_holds_end(self) -> None:
        """No hold lasts longer than 35 days, whatever was asked for."""
        for key, until in (("far", NOON * 100), ("never", math.inf), ("huge", 10**400)):
            self.store.hold(key, until, "", NOON)
            self.assertEqual(self.store.holds(NOON)[key].until, NOON + LONGEST_HOLD)
        self.assertEqual(self.store.holds(NOON + LONGEST_HOLD), {})
        with self.assertRaises(QuotaStoreError):
            self.store.hold("k", math.nan, "", NOON)
        with self.assertRaises(QuotaStoreError):
            self.store.hold("k", NOON, "", math.nan)

    def test_closed(self) -> None:
        """A closed store refuses every method with QuotaStoreError; closing again is fine."""
        self.define("k", Limit(5, "requests", "day"))
        taken = self.reserved([("k", 1)])
        self.store.close()
        self.store.close()
        for method in (
            lambda: self.store.define([], NOON),
            lambda: self.store.headroom(["k"], NOON),
            lambda: self.store.reserve([("k", 1)], NOON),
            lambda: self.store.commit(taken, NOON),
            lambda: self.store.rollback(taken, NOON),
            lambda: self.store.hold("k", NOON + 1, "", NOON),
            lambda: self.store.holds(NOON),
            lambda: self.store.set_quota("k", 1, "requests"),
        ):
            with self.assertRaises(QuotaStoreError):
                method()
