"""Dask tasks on several processes, which share their counts over one Redis."""

from __future__ import annotations

from _shared import ask, missing, report, shared_ledger


def main() -> None:
    lacking = missing("redis", "distributed")
    if lacking:
        print(lacking)
        return
    from distributed import Client, LocalCluster

    options = {"n_workers": 2, "threads_per_worker": 4, "processes": True, "dashboard_address": None}
    with shared_ledger(), LocalCluster(**options) as cluster, Client(cluster) as client:
        prompts = [f"Tell me a fact about the number {number}." for number in range(50)]
        report(client.gather(client.map(ask, prompts)))


if __name__ == "__main__":
    main()
