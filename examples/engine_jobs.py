"""Fifty rows on Dask, Ray Data and Spark, whichever are installed: each engine splits the data, and each of its workers calls
`router.map` on a router of its own. All count in one Redis, so that four partitions have the free calls of one.

`python3 examples/engine_jobs.py [dask ray spark]`
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from _shared import missing, report, router, shared_ledger

ROWS, PARTITIONS = 50, 4


def served_by(numbers: Iterable[int]) -> Iterator[str]:
    """One partition: who answered each of its rows; "refused" for those that are left for tomorrow."""
    prompts = [f"Tell me a fact about the number {number}." for number in numbers]
    with router().map(prompts, workers=4, stop_when_spent=True) as results:
        found = {result.index: result.response.routing.account_id for result in results if result.response is not None}
    for index in range(len(prompts)):
        yield found.get(index, "refused")


def on_dask() -> list[str]:
    """Partitions in two processes. Dask works on a partition again when its worker dies."""
    from dask import bag
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 2, "processes": True, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster):
        rows = bag.from_sequence(range(ROWS), npartitions=PARTITIONS)
        return list(rows.map_partitions(lambda numbers: list(served_by(numbers))).compute())


def on_ray() -> list[str]:
    """Blocks in two processes. Ray tries a failed block again, three times by default."""
    import ray

    def block(columns: dict[str, Any]) -> dict[str, list[str]]:
        return {"served_by": list(served_by(columns["item"]))}

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        rows = ray.data.from_items(list(range(ROWS))).repartition(PARTITIONS).map_batches(block, batch_size=None)
        return [row["served_by"] for row in rows.take_all()]
    finally:
        ray.shutdown()


def on_spark() -> list[str]:
    """Partitions in two processes. `spark.speculation` stays off: it would ask every slow partition twice."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        return list(spark.sparkContext.parallelize(range(ROWS), PARTITIONS).mapPartitions(served_by).collect())
    finally:
        spark.stop()


ENGINES: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "dask": ("distributed", on_dask),
    "ray": ("ray", on_ray),
    "spark": ("pyspark", on_spark),
}


def main(chosen: list[str]) -> None:
    """Run the engines that are `chosen`, or all that are installed."""
    installed = [name for name, (package, _) in ENGINES.items() if importlib.util.find_spec(package) is not None]
    chosen = [name for name in chosen if name in ENGINES]
    lacking = missing("redis", *(ENGINES[name][0] for name in chosen or installed or ["dask"]))
    if lacking:
        print(lacking)
        return
    places = (Path(__file__).resolve().parent, Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, places), os.environ.get("PYTHONPATH", "")])  # the workers' too
    for name in chosen or installed:
        with shared_ledger():
            print(f"{name}: {ROWS} rows in {PARTITIONS} partitions")
            report(ENGINES[name][1]())


if __name__ == "__main__":
    main(sys.argv[1:])
