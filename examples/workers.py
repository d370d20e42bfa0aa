"""A pool of worker processes over one Redis: together they use every free call once, and none twice."""

from __future__ import annotations

import multiprocessing

from _shared import ask, missing, report, shared_ledger


def main() -> None:
    lacking = missing("redis")
    if lacking:
        print(lacking)
        return
    prompts = [f"Tell me a fact about the number {number}." for number in range(50)]
    with shared_ledger(), multiprocessing.get_context("spawn").Pool(4) as pool:
        report(pool.map(ask, prompts, chunksize=1))


if __name__ == "__main__":
    main()
