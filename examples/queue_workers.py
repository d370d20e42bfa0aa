"""RQ workers that share one Redis for their jobs and for their counts."""

from __future__ import annotations

import os
import subprocess
import sys

from _shared import ask, missing, report, shared_ledger


def work() -> None:
    """One worker, until no job is left."""
    import redis
    import rq

    connection = redis.Redis.from_url(os.environ["EXAMPLE_REDIS"])
    rq.SimpleWorker([os.environ["EXAMPLE_PREFIX"]], connection=connection).work(burst=True, logging_level="WARNING")


def main() -> None:
    lacking = missing("redis", "rq")
    if lacking:
        print(lacking)
        return
    import redis
    import rq

    with shared_ledger(), redis.Redis.from_url(os.environ["EXAMPLE_REDIS"]) as connection:
        queue = rq.Queue(os.environ["EXAMPLE_PREFIX"], connection=connection)
        jobs = [queue.enqueue(ask, f"Tell me a fact about the number {number}.") for number in range(50)]
        workers = [subprocess.Popen([sys.executable, __file__, "work"]) for _ in range(3)]
        for worker in workers:
            worker.wait()
        report([str(job.return_value(refresh=True)) for job in jobs])


if __name__ == "__main__":
    if sys.argv[1:] == ["work"]:
        work()
    else:
        main()
