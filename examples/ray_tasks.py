"""Ray tasks on several processes, which share their counts over one Redis."""

from __future__ import annotations

import os
import sys

from _shared import ask, missing, report, shared_ledger


def main() -> None:
    lacking = missing("redis", "ray")
    if lacking:
        print(lacking)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    with shared_ledger():
        # Workers find the example's modules and its ledger by their environment; on a cluster, give both in `runtime_env`.
        os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")])
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False, configure_logging=False)
        try:
            task = ray.remote(ask)
            report(ray.get([task.remote(f"Tell me a fact about the number {number}.") for number in range(50)]))
        finally:
            ray.shutdown()


if __name__ == "__main__":
    main()
