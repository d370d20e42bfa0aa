"""Tests what a store learns of limits against its contract, `quota.Learning`: the stores here, and anybody's own.

Strategy: a mixin like `conformance.QuotaStoreConformance`, for stores that have the methods `observe` and `learned`. Time is
passed in. Must never know how a store keeps what it learned.
"""

from __future__ import annotations

import random
from typing import Any

from .conformance_store import NOON, StoreCase
from .errors import QuotaStoreError
from .limits import Limit
from .quota_learned import FIRM_S, KEPT_S, RENEWED_S, Fact, Learned, Observation


class LearningConformance(StoreCase):
    """Every claim a store that learns must hold. `make_store` returns a new empty store; the suite closes it."""

    def observe(self, key: str, now: float = NOON, **seen: Any) -> bool:
        """Whether an observation of one bucket changed anything."""
        [changed] = self.store.observe([Observation(key, **seen)], now)  # type: ignore[attr-defined]  # what this suite is about
        return bool(changed)

    def learned(self, key: str) -> dict[str, Fact]:
        """What is known of one bucket, by kind."""
        found: dict[str, Learned] = self.store.learned()  # type: ignore[attr-defined]  # what this suite is about
        return {fact.kind: fact for fact in found[key].facts} if key in found else {}

    def test_a_lower_limit_is_adopted(self) -> None:
        """A stated limit below the configured one counts in its place: in headroom, admission and refusal."""
        self.define("k", Limit(20, "requests", "day"))
        self.take("k", 1)
        self.assertTrue(self.observe("k", limit=5, source="x-ratelimit-limit"))
        shown = self.headroom("k")
        self.assertEqual((shown.limit.amount, shown.used, shown.remaining, shown.share), (5, 1, 4, 0.8))
        self.assertEqual(self.admitted("k", 10), 4)
        self.assertEqual(self.refused([("k", 1)]).limit.amount, 5)
        self.assertIsNone(self.refused([("k", 6)]).retry_at)
        self.assertEqual(self.learned("k"), {"limit": Fact("limit", 5, "x-ratelimit-limit", NOON)})

    def test_a_higher_limit_is_only_shown(self) -> None:
        """A stated limit above the configured one admits nothing more."""
        self.define("k", Limit(3, "requests", "day"))
        self.assertTrue(self.observe("k", limit=50, source="h"))
        self.assertEqual((self.admitted("k", 10), self.headroom("k").limit.amount), (3, 3))
        self.assertEqual(self.learned("k")["limit"].amount, 50)
        self.assertEqual(self.store.learned()["k"].configured, 3)  # type: ignore[attr-defined]  # what this suite is about

    def test_statements_in_turn(self) -> None:
        """A lower statement counts at once, a higher one only after an hour; the same one again is news once a day."""
        self.define("k", Limit(20, "requests", "day"))
        self.assertTrue(self.observe("k", limit=5))
        self.assertFalse(self.observe("k", limit=5))
        self.assertFalse(self.observe("k", limit=8))
        self.assertTrue(self.observe("k", limit=4))
        self.assertFalse(self.observe("k", NOON + FIRM_S - 1, limit=8))
        self.assertTrue(self.observe("k", NOON + FIRM_S, limit=8))
        self.assertEqual(self.headroom("k", NOON + FIRM_S).limit.amount, 8)
        self.assertFalse(self.observe("k", NOON + FIRM_S + RENEWED_S - 1, limit=8))
        self.assertTrue(self.observe("k", NOON + FIRM_S + RENEWED_S, limit=8))

    def test_a_statement_that_is_not_repeated_is_let_go(self) -> None:
        """A stated limit counts for eight days after it was said last."""
        self.define("k", Limit(20, "requests", "minute"))
        self.observe("k", limit=5)
        self.assertEqual(self.headroom("k", NOON + KEPT_S - 1).limit.amount, 5)
        self.assertEqual(self.headroom("k", NOON + KEPT_S).limit.amount, 20)
        self.assertEqual(self.admitted("k", 30, now=NOON + KEPT_S), 20)

    def test_a_ceiling_grows(self) -> None:
        """A ceiling admits what had passed, and a step more each time, up to the configured amount and no further."""
        self.define("k", Limit(20, "requests", "minute"))
        self.assertTrue(self.observe("k", ceiling=10, step=4, every=600, source="429"))
        for after, amount in ((0, 10), (530, 10), (600, 14), (1200, 18), (1800, 20), (9e6, 20)):
            self.assertEqual(self.headroom("k", NOON + after).limit.amount, amount, after)
            self.assertEqual(self.admitted("k", 25, now=NOON + after), amount, after)
        self.assertTrue(self.observe("k", NOON + 9e6, ceiling=11, step=1, every=600))
        self.assertEqual(self.headroom("k", NOON + 9e6).limit.amount, 11)

    def test_a_ceiling_leaves_one_more_try(self) -> None:
        """For its grace a ceiling admits what the provider may have room for now; never more than configured."""
        self.define("k", Limit(20, "requests", "minute"))
        self.take("k", 11)
        self.observe("k", ceiling=10, step=1, every=600, grace=12, grace_s=60)
        self.assertEqual(self.admitted("k", 5, now=NOON + 1), 1)
        self.assertEqual(self.headroom("k", NOON + 59).limit.amount, 12)
        self.assertEqual(self.headroom("k", NOON + 60).limit.amount, 10)
        self.observe("k", NOON + 60, ceiling=10, step=1, every=600, grace=500, grace_s=60)
        self.assertEqual(self.headroom("k", NOON + 60).limit.amount, 20)

    def test_ceiling_and_statement(self) -> None:
        """Of a ceiling and a stated limit the lower one counts."""
        self.define("k", Limit(20, "requests", "day"))
        self.observe("k", ceiling=10, step=1, every=60)
        self.observe("k", limit=15)
        self.assertEqual(self.headroom("k").limit.amount, 10)
        self.assertEqual(self.headroom("k", NOON + 3600).limit.amount, 15)

    def test_what_remains_only_lowers(self) -> None:
        """Less than is left here is charged; as much or more changes nothing."""
        self.define("k", Limit(20, "requests", "day"))
        self.take("k", 2)
        self.assertFalse(self.observe("k", remaining=18))
        self.assertFalse(self.observe("k", remaining=500))
        self.assertEqual(self.headroom("k").remaining, 18)
        self.assertTrue(self.observe("k", remaining=11, source="h"))
        self.assertEqual((self.headroom("k").used, self.headroom("k").remaining), (9, 11))
        self.assertEqual(self.admitted("k", 20), 11)
        self.assertEqual(self.learned("k"), {"remaining": Fact("remaining", 11, "h", NOON)})

    def test_what_remains_of_a_lower_limit(self) -> None:
        """Limit and remaining of one answer are of one count."""
        self.define("k", Limit(20, "requests", "day"))
        self.assertTrue(self.observe("k", limit=10, remaining=4))
        self.assertEqual((self.headroom("k").used, self.headroom("k").remaining), (6, 4))

    def test_it_frees_when_the_provider_refills_it(self) -> None:
        """What is charged because of others frees with the provider's window, at the latest with the own."""
        for resets_in, frees_in in ((None, 60.9375), (600.0, 60.9375), (30.0, 30.9375), (1.0, 1.9375), (-5.0, 1.9375)):
            key = f"k{resets_in}"
            self.define(key, Limit(10, "requests", "minute", rolling=True))
            self.observe(key, remaining=0, resets_at=None if resets_in is None else NOON + resets_in)
            self.assertEqual(self.headroom(key).remaining, 0)
            self.assertEqual(self.headroom(key, NOON + frees_in).remaining, 10, resets_in)
        self.assertEqual(self.headroom("k30.0", NOON + 29).remaining, 0)
        self.define("day", Limit(10, "requests", "day"))
        self.observe("day", remaining=0, resets_at=NOON + 30)
        self.assertEqual([self.headroom("day", NOON + after).remaining for after in (60, 43_199, 43_200)], [0, 0, 10])

    def test_own_calls_are_settled_as_ever(self) -> None:
        """A reservation from before an observation gives back what it took, and no more."""
        self.define("k", Limit(10, "tokens", "minute"))
        taken = self.reserved([("k", 4)])
        self.observe("k", remaining=1)
        self.assertEqual(self.headroom("k").used, 9)
        self.assertTrue(self.store.rollback(taken, NOON))
        self.assertEqual(self.headroom("k").used, 5)

    def test_define_keeps_what_was_learned(self) -> None:
        """Defining a bucket again, with the same amount or another, keeps what was learned of it."""
        self.define("k", Limit(20, "requests", "day"))
        self.observe("k", limit=5)
        self.define("k", Limit(20, "requests", "day"))
        self.assertEqual(self.headroom("k").limit.amount, 5)
        self.define("k", Limit(30, "requests", "day"))
        self.assertEqual(self.headroom("k").limit.amount, 5)
        self.define("k", Limit(3, "requests", "day"))
        self.assertEqual(self.headroom("k").limit.amount, 3)

    def test_it_is_kept(self) -> None:
        """What was learned is there when the store is opened again, growth and charges included."""
        self.define("k", Limit(20, "requests", "day"))
        self.observe("k", limit=15, remaining=4, source="h")
        self.observe("k", ceiling=10, step=1, every=600, source="429")
        known = self.learned("k")
        self.store = self.reopened()
        self.assertEqual(self.learned("k"), known)
        self.assertEqual((self.headroom("k").limit.amount, self.headroom("k").used), (10, 11))
        self.assertEqual(self.headroom("k", NOON + 1200).limit.amount, 12)

    def test_nonsense(self) -> None:
        """A bucket that nobody defined, and figures that cannot be, are refused, and nothing of the call is done."""
        self.define("k", Limit(20, "requests", "day"))
        inf, nan = float("inf"), float("nan")
        wrong: list[dict[str, Any]] = [{name: value} for name in ("limit", "remaining") for value in (-1, inf, nan, True, "5")]
        wrong += [
            {"ceiling": 5},
            {"ceiling": 5, "step": 1},
            {"ceiling": 5, "step": 0, "every": 60},
            {"ceiling": -1, "step": 1, "every": 9},
        ]
        for seen in ({"key": "unknown", "limit": 5}, *({"key": "k", **each} for each in wrong)):
            with self.assertRaises(QuotaStoreError):
                self.store.observe([Observation("k", limit=7), Observation(**seen)], NOON)  # type: ignore[attr-defined]  # as above
        self.assertEqual((self.headroom("k").limit.amount, self.learned("k")), (20, {}))

    def test_never_more_than_without(self) -> None:
        """Whatever is observed, in whatever order, admits no more than nothing observed would."""
        chance = random.Random(7)  # noqa: S311  varies a test, guards nothing
        for kind, limit in enumerate((Limit(20, "requests", "minute"), Limit(20, "requests", "day"))):
            self.define(f"plain{kind}", limit)
            self.define(f"seen{kind}", limit)
            now = NOON
            for _ in range(200):
                now += chance.choice((0, 0.5, 10, 4000))
                figures = {name: chance.choice((None, 0, 3, 19, 20, 500)) for name in ("limit", "remaining")}
                ceiling = {"ceiling": chance.choice((1, 10, 50)), "step": 1, "every": 60} if chance.random() < 0.1 else {}
                before = self.headroom(f"seen{kind}", now).remaining
                self.observe(f"seen{kind}", now, resets_at=chance.choice((None, now + 5)), **figures, **ceiling)
                after = self.headroom(f"seen{kind}", now)
                plain = self.headroom(f"plain{kind}", now)
                self.assertLessEqual(after.remaining, plain.remaining)
                self.assertLessEqual(after.limit.amount, plain.limit.amount)
                if figures["limit"] is None and not ceiling:
                    self.assertLessEqual(after.remaining, before)
