"""The stores against the naive model, with sequences that hypothesis looks for and shrinks."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

from tests import ledger_model, part, rounds

try:
    from hypothesis import given, settings
    from hypothesis import strategies as st
except ImportError as exc:
    raise unittest.SkipTest("hypothesis is not installed") from exc

limits = part("limits")
quota = part("quota")
quota_sqlite = part("quota_sqlite")

KIND = st.sampled_from(("minute", "hour", "day", "month"))
ZONE = st.sampled_from(("UTC", "America/Los_Angeles", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata"))


class LedgerPropertyTest(unittest.TestCase):
    @settings(max_examples=rounds(60, 20), deadline=None)
    @given(seed=st.integers(0, 2**32), steps=st.integers(1, 400))
    def test_memory(self, seed: int, steps: int) -> None:
        """The memory store agrees with the model on any random run."""
        with part("quota_memory").MemoryQuotaStore() as store:
            ledger_model.run(self, store, seed, steps)

    @settings(max_examples=rounds(15, 5), deadline=None)
    @given(seed=st.integers(0, 2**32), steps=st.integers(1, 300))
    def test_sqlite(self, seed: int, steps: int) -> None:
        """The SQLite store agrees with the model on any random run."""
        with tempfile.TemporaryDirectory() as folder:
            with quota_sqlite.SQLiteQuotaStore(Path(folder) / "q.db") as store:
                ledger_model.run(self, store, seed, steps)

    @settings(max_examples=rounds(150, 50), deadline=None)
    @given(
        amount=st.integers(1, 20),
        window=st.sampled_from(("minute", "hour", "day")),
        gaps=st.lists(st.floats(0, 0.2), min_size=30, max_size=120),
    )
    def test_no_span_holds_more(self, amount: int, window: str, gaps: list[float]) -> None:
        """However the calls fall, no span of a rolling window's length holds more than its amount."""
        length = limits.WINDOWS[window]
        with part("quota_memory").MemoryQuotaStore() as store:
            store.define([quota.Bucket("k", limits.Limit(amount, "requests", window, rolling=True))], 0.0)
            now, times = ledger_model.START, []
            for gap in gaps:
                now += gap * length
                if isinstance(store.reserve([("k", 1)], now), quota.Reservation):
                    times.append(now)
        for first, after in zip(times, times[amount:], strict=False):
            self.assertGreaterEqual(after - first, length)

    @settings(max_examples=rounds(300, 100), deadline=None)
    @given(now=st.floats(0, 4e9), window=KIND, zone=ZONE)
    def test_calendar_windows_hold_their_time(self, now: float, window: str, zone: str) -> None:
        """A calendar window holds the time it was asked for, and the next begins where it ends."""
        begin, end = limits.window_bounds(now, window, zone)
        self.assertLessEqual(begin, now)
        self.assertLess(now, end)
        self.assertEqual(limits.window_bounds(end, window, zone)[0], end)


if __name__ == "__main__":
    unittest.main()
