"""The first minutes of a simulated day of the pool; `tests.benchmarks.bench_pool_day` plays all of it."""

from __future__ import annotations

import unittest

from tests import rounds
from tests.pool_day import most, play

MINUTES = rounds(4, 2)


class FirstMinutes(unittest.TestCase):
    def test_nearly_everything_that_the_limits_allow_is_served(self) -> None:
        """Over the catalog's rows for four keys, 99 % of the most is served, no model gives more than it may, none refuses."""
        found, best = play(MINUTES * 60), most(MINUTES * 60)
        for (provider, model), bound in best.items():
            mine = sum(count for (at, name), count in found.served.items() if at == provider and model in ("*", name))
            self.assertLessEqual(mine, bound, (provider, model))
        self.assertGreaterEqual(found.served.total(), 0.99 * best.total())
        self.assertEqual(found.refused, 0)


if __name__ == "__main__":
    unittest.main()
