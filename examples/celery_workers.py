"""Celery workers that share one Redis: for their queue, for their results, and for the counts of the router in each."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from _shared import ask, missing, report, shared_ledger


def app() -> Any:
    """The Celery application, the same in the workers and in the program that sends the tasks."""
    import celery

    url, name = os.environ["EXAMPLE_REDIS"], os.environ["EXAMPLE_PREFIX"]
    made = celery.Celery(name, broker=url, backend=url)
    made.conf.update(task_default_queue=name, broker_connection_retry_on_startup=True)
    made.task(ask, name="ask")
    return made


def main() -> None:
    lacking = missing("redis", "celery")
    if lacking:
        print(lacking)
        return
    with shared_ledger():
        tasks = app()
        sent = [tasks.tasks["ask"].delay(f"Tell me a fact about the number {number}.") for number in range(50)]
        command = [sys.executable, __file__]
        workers = [subprocess.Popen([*command, "work", str(number)], stdout=subprocess.DEVNULL) for number in range(2)]
        try:
            report([task.get(timeout=60) for task in sent])
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        app().worker_main(["worker", "--concurrency=2", "--loglevel=ERROR", f"--hostname=worker{sys.argv[2]}@%h"])
    else:
        main()
