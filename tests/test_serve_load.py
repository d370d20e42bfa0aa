"""The endpoint under load, in a short form; the long one is tests/benchmarks/bench_serve."""

from __future__ import annotations

import unittest

from tests.benchmarks.bench_serve import storm


class Load(unittest.TestCase):
    def test_a_storm(self) -> None:
        """40 clients, 240 calls with streams, hang-ups, slow readers and a provider that fails: no wrong answer, nothing left."""
        found = storm(40, 240)
        self.assertNotIn("wrong", found["outcomes"])
        self.assertEqual(sum(found["outcomes"].values()), 240)
        self.assertGreater(found["outcomes"]["whole"], 100)
        self.assertGreater(found["outcomes"]["stream"], 40)
        self.assertEqual({name: max(0, count) for name, count in found["left"].items()}, dict.fromkeys(found["left"], 0))


if __name__ == "__main__":
    unittest.main()
