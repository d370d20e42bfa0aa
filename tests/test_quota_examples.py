"""The examples with many workers, as they stand: over a Redis of their own every free call is used once, and none twice."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import unittest
from pathlib import Path

from tests.quota_servers import needs_servers

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@needs_servers
class SharedExamples(unittest.TestCase):
    def test_every_free_call_once(self) -> None:
        """Fifty calls by a pool of processes, RQ and Celery workers, and Dask and Ray tasks use the two accounts' twenty each,
        exactly."""
        for name in ("workers", "queue_workers", "celery_workers", "dask_tasks", "ray_tasks"):
            with self.subTest(name):
                command = [sys.executable, str(EXAMPLES / f"{name}.py")]
                done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
                self.assertEqual(done.returncode, 0, done.stderr[-2000:])
                self.assertEqual(done.stdout.splitlines()[-3:], ["alice: 20 calls", "bob: 20 calls", "refused: 10 calls"])

    def test_engines(self) -> None:
        """Fifty rows in four partitions, each with a `router.map` of its own, use the two accounts' twenty each, exactly, on each
        engine that is installed: dask (distributed), Ray Data (ray, pyarrow), Spark (pyspark, java)."""
        packages = {"dask": "distributed", "ray": "ray", "spark": "pyspark"}
        for name in (name for name, package in packages.items() if importlib.util.find_spec(package) is not None):
            with self.subTest(name):
                command = [sys.executable, str(EXAMPLES / "engine_jobs.py"), name]
                done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
                self.assertEqual(done.returncode, 0, done.stderr[-2000:])
                self.assertEqual(done.stdout.splitlines()[-3:], ["alice: 20 calls", "bob: 20 calls", "refused: 10 calls"])


if __name__ == "__main__":
    unittest.main()
