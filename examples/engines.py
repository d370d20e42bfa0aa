"""Bulk work on Ray Data, Dask, Spark or a pool of one's own: the engine splits the data, one shared ledger keeps the limits.

The rule in each: a router for each partition, made where the partition is worked on, all of them naming one store (sqlite on one
host, Redis or PostgreSQL over several). Nothing with a key is pickled, and partitions do not multiply the limits. Engines work on
a partition again when a worker dies, so give rows an id and write results by it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _start import ir

from inferrouter.simulator import KeyLimits, Simulator


def label(config: str, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One partition: each row with its answer. The same function serves every engine below."""
    with ir.Router.from_file(config) as router:
        kept = list(rows)
        prompts = (f"Positive or negative, in one word? {row['text']}" for row in kept)
        for row, result in zip(kept, router.map(prompts, workers=4), strict=True):
            yield {"id": row["id"], "label": result.text, "error": str(result.error or "")}


def with_ray(config: str, dataset: Any) -> Any:
    """A `ray.data.Dataset`."""

    def batch(columns: dict[str, Any]) -> dict[str, Any]:
        rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        found = list(label(config, rows))
        return {name: [row[name] for row in found] for name in ("id", "label", "error")}

    return dataset.map_batches(batch, batch_size=256)


def with_dask(config: str, bag: Any) -> Any:
    """A `dask.bag.Bag` of dicts. A partition whose worker is lost is computed again."""
    return bag.map_partitions(lambda rows: list(label(config, rows)))


def with_spark(config: str, rdd: Any) -> Any:
    """An RDD of dicts. Leave `spark.speculation` off: it would ask every slow partition twice."""
    return rdd.mapPartitions(lambda rows: label(config, rows))


def with_threads(config: str, rows: list[dict[str, Any]], count: int = 3) -> list[dict[str, Any]]:
    """A pool of the standard library, a slice of the rows for each of `count` workers."""
    with ThreadPoolExecutor(count) as pool:
        parts = pool.map(lambda at: list(label(config, rows[at::count])), range(count))
        return [row for part in parts for row in part]


if __name__ == "__main__":
    texts = ["I love it", "Broken again", "It works", "Never more", "Fine", "Too late"]
    with Simulator(keys={"sk-demo": KeyLimits(rpm=30)}) as simulator, tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "router.toml")
        path.write_text(
            f"""
            default_model = "local/m"
            quota = {{ store = "sqlite", path = "quota.sqlite" }}
            [[accounts]]
            provider = "local"
            id = "desk"
            base_url = "{simulator.base_url}"
            auth = {{ api_key = "sk-demo" }}
            limits = {{ rpm = 30 }}
            """,
            encoding="utf-8",
        )
        path.chmod(0o600)
        for row in with_threads(str(path), [{"id": number, "text": text} for number, text in enumerate(texts)]):
            print(row["id"], row["label"] or row["error"])
        with ir.Router.from_file(path) as router:
            used = router.status()["desk"].limits[0].used
        print(f"three workers over one ledger: {used:.0f} requests counted for {len(texts)} rows")
