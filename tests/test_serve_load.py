"""The endpoint under load, in a short form; the long one is tests/benchmarks/bench_serve."""

from __future__ import annotations

import unittest

from tests import rounds
from tests.benchmarks.bench_serve import storm


class Load(unittest.TestCase):
    def test_a_storm(self) -> None:
        """Many clients at once with streams, hang-ups, slow readers and a provider that fails: no wrong answer, nothing left."""
        calls = rounds(240, 120)
        found = storm(calls // 6, calls)
        self.assertNotIn("wrong", found["outcomes"])
        self.assertEqual(sum(found["outcomes"].values()), calls)
        self.assertGreater(found["outcomes"]["whole"], calls * 0.4)
        self.assertGreater(found["outcomes"]["stream"], calls / 6)
        self.assertEqual({name: max(0, count) for name, count in found["left"].items()}, dict.fromkeys(found["left"], 0))


if __name__ == "__main__":
    unittest.main()
