"""The breaker: every transition, one probe at a time, and no say for calls from before."""

from __future__ import annotations

import threading
import unittest
from typing import Any

from tests import part

errors, health = part("errors"), part("health")
Health, HealthConfig = health.Health, health.HealthConfig
CLOSED, OPEN, HALF_OPEN = health.BreakerState.CLOSED, health.BreakerState.OPEN, health.BreakerState.HALF_OPEN
SUCCESS, FAILURE, IGNORED = health.Verdict.SUCCESS, health.Verdict.FAILURE, health.Verdict.IGNORED


def call(made: Any, verdict: Any, now: float, account: str = "a") -> bool:
    """One call that begins and ends at `now`; whether it was admitted."""
    admitted = made.acquire(account, now)
    if admitted is None:
        return False
    made.release(admitted, verdict, now)
    return True


def tripped(now: float = 0.0, **settings: Any) -> Any:
    """A breaker that opened at `now`."""
    made = Health(HealthConfig(**settings))
    for _ in range(made.config.failure_threshold):
        call(made, FAILURE, now)
    return made


class Transitions(unittest.TestCase):
    def test_an_unknown_account_is_closed_and_idle(self) -> None:
        """Before the first call a breaker is closed with nothing in flight, and looking makes none."""
        made = Health()
        self.assertEqual(made.peek("a", 0.0), (CLOSED, 0.0, 0))
        self.assertEqual(made._breakers, {})

    def test_every_transition(self) -> None:
        """The state after each event in each state is the one of the table."""
        rows = [
            ("closed, success", Health, SUCCESS, 0.0, CLOSED),
            ("closed, neutral", Health, IGNORED, 0.0, CLOSED),
            ("closed, first failure", Health, FAILURE, 0.0, CLOSED),
            ("half open, success", tripped, SUCCESS, 30.0, CLOSED),
            ("half open, neutral", tripped, IGNORED, 30.0, HALF_OPEN),
            ("half open, failure", tripped, FAILURE, 30.0, OPEN),
        ]
        for name, make, verdict, now, after in rows:
            made = make()
            self.assertTrue(call(made, verdict, now), name)
            self.assertIs(made.peek("a", now)[0], after, name)

    def test_it_opens_at_the_threshold_and_not_before(self) -> None:
        """Two of three failures leave it closed, the third opens it for 30 seconds."""
        made = Health()
        call(made, FAILURE, 0.0)
        call(made, FAILURE, 1.0)
        self.assertEqual(made.peek("a", 1.0), (CLOSED, 0.0, 0))
        call(made, FAILURE, 2.0)
        self.assertEqual(made.peek("a", 2.0), (OPEN, 30.0, 0))
        self.assertEqual(made.peek("a", 31.5), (OPEN, 0.5, 0))
        self.assertFalse(call(made, SUCCESS, 31.999))
        self.assertEqual(made.peek("a", 32.0), (HALF_OPEN, 0.0, 0))

    def test_failures_spread_wider_than_the_window_do_not_count_together(self) -> None:
        """Three failures open it only within five minutes, the edge included."""
        for last, state in ((300.0, OPEN), (300.001, CLOSED)):
            made = Health()
            for now in (0.0, 150.0, last):
                call(made, FAILURE, now)
            self.assertIs(made.peek("a", last)[0], state, last)

    def test_the_minimum_of_failures_is_needed(self) -> None:
        """With a threshold of ten, nine failures leave it closed and ten open it, however many successes between."""
        made = Health(HealthConfig(failure_threshold=10))
        for _ in range(9):
            call(made, FAILURE, 0.0)
            call(made, SUCCESS, 0.0)
        self.assertIs(made.peek("a", 0.0)[0], CLOSED)
        call(made, FAILURE, 0.0)
        self.assertIs(made.peek("a", 0.0)[0], OPEN)

    def test_a_failed_probe_opens_it_for_the_whole_time_again(self) -> None:
        """After a failed probe the rest starts anew, and one success closes it with a clean slate."""
        made = tripped()
        self.assertTrue(call(made, FAILURE, 40.0))
        self.assertEqual(made.peek("a", 40.0), (OPEN, 30.0, 0))
        self.assertFalse(call(made, SUCCESS, 69.0))
        self.assertTrue(call(made, SUCCESS, 70.0))
        call(made, FAILURE, 70.0)
        call(made, FAILURE, 70.0)
        self.assertIs(made.peek("a", 70.0)[0], CLOSED)

    def test_accounts_do_not_share_a_breaker(self) -> None:
        """One account's failures close no other."""
        made = tripped()
        self.assertFalse(call(made, SUCCESS, 0.0, "a"))
        self.assertTrue(call(made, SUCCESS, 0.0, "b"))

    def test_ten_thousand_trips_change_nothing(self) -> None:
        """The rest neither grows nor overflows however often it opens."""
        made = tripped()
        now = 0.0
        for _ in range(10_000):
            now += 30.0
            self.assertTrue(call(made, FAILURE, now))
        self.assertEqual(made.peek("a", now), (OPEN, 30.0, 0))


class Probes(unittest.TestCase):
    def test_a_hundred_threads_get_one_probe(self) -> None:
        """Of 100 threads at a half-open breaker exactly one is let through, round after round."""
        for _ in range(5):
            made = tripped()
            barrier = threading.Barrier(100)
            admitted: list[Any] = []

            def knock(made: Any = made, barrier: Any = barrier, admitted: list[Any] = admitted) -> None:
                barrier.wait(10)
                found = made.acquire("a", 30.0)
                if found is not None:
                    admitted.append(found)

            threads = [threading.Thread(target=knock) for _ in range(100)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(len(admitted), 1)
            self.assertEqual(made.peek("a", 30.0), (HALF_OPEN, 1.0, 1))

    def test_a_probe_without_a_verdict_gives_its_turn_back(self) -> None:
        """After a neutral end the next call is the probe."""
        made = tripped()
        probe = made.acquire("a", 30.0)
        self.assertIsNone(made.acquire("a", 30.0))
        made.release(probe, IGNORED, 31.0)
        self.assertEqual(made.peek("a", 31.0), (HALF_OPEN, 0.0, 0))
        again = made.acquire("a", 31.0)
        self.assertIsNotNone(again)
        self.assertIsNone(made.acquire("a", 31.0))
        made.release(again, SUCCESS, 32.0)
        self.assertEqual(made.peek("a", 32.0), (CLOSED, 0.0, 0))

    def test_a_call_ends_once(self) -> None:
        """A second end changes neither the count nor the state."""
        made = Health(HealthConfig(failure_threshold=2))
        admitted = made.acquire("a", 0.0)
        self.assertEqual(made.peek("a", 0.0)[2], 1)
        made.release(admitted, FAILURE, 0.0)
        made.release(admitted, FAILURE, 0.0)
        self.assertEqual(made.peek("a", 0.0), (CLOSED, 0.0, 0))

    def test_calls_in_flight_are_counted(self) -> None:
        """Every admitted call counts until it ends, whatever its verdict."""
        made = Health()
        passes = [made.acquire("a", 0.0) for _ in range(3)]
        self.assertEqual(made.peek("a", 0.0)[2], 3)
        for left, (admitted, verdict) in enumerate(zip(passes, (SUCCESS, FAILURE, IGNORED), strict=True), 1):
            made.release(admitted, verdict, 0.0)
            self.assertEqual(made.peek("a", 0.0)[2], 3 - left)


class Before(unittest.TestCase):
    def test_calls_from_before_the_trip_move_nothing(self) -> None:
        """A late success does not close an open breaker, and late failures do not prolong its rest."""
        for verdict in (SUCCESS, FAILURE, IGNORED):
            made = Health()
            late = made.acquire("a", 0.0)
            for _ in range(3):
                call(made, FAILURE, 0.0)
            made.release(late, verdict, 20.0)
            self.assertEqual(made.peek("a", 20.0), (OPEN, 10.0, 0), verdict)

    def test_calls_from_before_the_trip_do_not_end_the_probe(self) -> None:
        """With a probe under way, what ends late neither closes, opens, nor lets a second probe through."""
        for verdict in (SUCCESS, FAILURE, IGNORED):
            made = Health()
            late = made.acquire("a", 0.0)
            for _ in range(3):
                call(made, FAILURE, 0.0)
            probe = made.acquire("a", 30.0)
            made.release(late, verdict, 31.0)
            self.assertEqual(made.peek("a", 31.0), (HALF_OPEN, 1.0, 1), verdict)
            self.assertIsNone(made.acquire("a", 31.0))
            made.release(probe, SUCCESS, 32.0)
            self.assertIs(made.peek("a", 32.0)[0], CLOSED)

    def test_failures_from_before_a_recovery_do_not_count_after_it(self) -> None:
        """Calls that began before the breaker opened cannot open it again once it has closed."""
        made = Health()
        late = [made.acquire("a", 0.0) for _ in range(3)]
        for _ in range(3):
            call(made, FAILURE, 0.0)
        call(made, SUCCESS, 30.0)
        for admitted in late:
            made.release(admitted, FAILURE, 31.0)
        self.assertEqual(made.peek("a", 31.0), (CLOSED, 0.0, 0))


class Settings(unittest.TestCase):
    def test_defaults(self) -> None:
        """Three failures in five minutes open it for half a minute."""
        self.assertEqual(HealthConfig(), HealthConfig(3, 300.0, 30.0))
        self.assertEqual(Health().config, HealthConfig())

    def test_a_threshold_of_one_opens_at_once(self) -> None:
        """The least threshold is one."""
        self.assertIs(tripped(failure_threshold=1, open_for=5).peek("a", 0.0)[0], OPEN)

    def test_wrong_settings_are_listed_together(self) -> None:
        """Every wrong setting is named in one ConfigError."""
        with self.assertRaises(errors.ConfigError) as caught:
            HealthConfig(0, -1.0, float("nan"))
        names = [problem.partition(":")[0] for problem in caught.exception.problems]
        self.assertEqual(names, ["health.failure_threshold", "health.failure_window", "health.open_for"])
        wrong: list[dict[str, Any]] = [
            {"failure_threshold": True},
            {"failure_threshold": 1.5},
            {"open_for": "30"},
            {"open_for": True},
            {"failure_window": float("inf")},
            {"failure_window": 0},
        ]
        for settings in wrong:
            with self.assertRaises(errors.ConfigError):
                HealthConfig(**settings)


if __name__ == "__main__":
    unittest.main()
