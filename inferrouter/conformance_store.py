"""Makes the store that the conformance suite tests, and asks it in few words.

Strategy: the suite's foundation: what its claims are written with, and the moment at which they begin. Must never claim
anything, nor know how a store keeps its counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .limits import Limit, window_bounds
from .quota import Bucket, Headroom, QuotaStore, Refusal, Reservation

if TYPE_CHECKING:
    import unittest

    _Base = unittest.TestCase
else:
    _Base = object

NOON = 1_788_955_200.0
"""Epoch seconds of 2026-09-09 12:00 UTC, where every test begins."""


class StoreCase(_Base):
    """A test with a store in `self.store`."""

    def make_store(self) -> QuotaStore:
        """A new, empty store."""
        raise NotImplementedError

    def reopened(self) -> QuotaStore:
        """The store as a program finds it that starts anew: another object on the same data, closed by whoever makes it.

        The same store where its data end with it, as by default.
        """
        return self.store

    def setUp(self) -> None:
        super().setUp()
        self.store = self.make_store()
        self.addCleanup(self.store.close)

    def define(self, key: str, limit: Limit) -> None:
        """Defines one bucket."""
        self.store.define([Bucket(key, limit)], NOON)

    def headroom(self, key: str, now: float = NOON) -> Headroom:
        """The headroom of one bucket."""
        return self.store.headroom([key], now)[0]

    def reserved(self, wants: Sequence[tuple[str, float]], now: float = NOON) -> Reservation:
        """A reservation, which must be admitted."""
        outcome = self.store.reserve(wants, now)
        if not isinstance(outcome, Reservation):
            self.fail(f"should be admitted: {outcome}")
        return outcome

    def take(self, key: str, amount: float) -> None:
        """Takes from one bucket for good."""
        self.assertTrue(self.store.commit(self.reserved([(key, amount)]), NOON))

    def refused(self, wants: Sequence[tuple[str, float]], now: float = NOON) -> Refusal:
        """A refusal, which must come."""
        outcome = self.store.reserve(wants, now)
        if not isinstance(outcome, Refusal):
            self.fail(f"should be refused: {outcome}")
        return outcome

    def admitted(self, key: str, tries: int, amount: float = 1, now: float = NOON) -> int:
        """How many of `tries` reservations are admitted."""
        outcomes = [self.store.reserve([(key, amount)], now) for _ in range(tries)]
        return sum(isinstance(outcome, Reservation) for outcome in outcomes)

    def assert_never_over(self, limit: Limit, readings: Sequence[float]) -> None:
        """No window, or span of a rolling window's length, holds more than the amount of these readings of one call each."""
        if not limit.rolling:
            begins = [window_bounds(now, limit.window, limit.zone)[0] for now in readings]
            self.assertLessEqual(max(map(begins.count, begins)), limit.amount)
            return
        ordered = sorted(readings)
        for first, over in zip(ordered, ordered[int(limit.amount) :], strict=False):
            self.assertGreaterEqual(over - first, limit.span_s)

    def commit_one(self, reservation: Reservation, now: float) -> bool:
        """Commits a use of 1."""
        return self.store.commit(reservation, now, [1])
