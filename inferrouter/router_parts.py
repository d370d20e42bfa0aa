"""Looks at the parts that a router is handed, and makes the store that its configuration names.

Strategy: every part that cannot be one is listed at once, before anything is opened. Must never call a part.
"""

from __future__ import annotations

from .config import QuotaConfig
from .errors import ConfigError
from .health import HealthConfig
from .meter import is_meter, meters_in
from .quota import QuotaStore
from .quota_memory import MemoryQuotaStore
from .secret import Secret


def check_parts(quota_store: object, policy: object, meter: object, health: object, clock: object) -> None:
    """Raise `ConfigError` listing each part that cannot be one; None is always good."""

    def lacks(part: object, *methods: str) -> bool:
        return part is not None and not all(callable(getattr(part, name, None)) for name in methods)

    problems = []
    if lacks(quota_store, "reserve"):
        problems.append(f"quota_store: must be a store such as ir.SQLiteQuotaStore(path), not {type(quota_store).__name__}")
    if lacks(policy, "select"):
        problems.append("policy: must have a method select(candidates); a policy's name goes into Config(policy=...)")
    if not all(map(is_meter, meters_in(meter))):
        problems.append(
            "meter: must have methods on_route(event) and on_result(event), as ir.LogMeter() has, or be a list of such"
        )
    if health is not None and not isinstance(health, HealthConfig):
        problems.append(f"health: must be an ir.HealthConfig, not {type(health).__name__}")
    if lacks(clock, "time", "monotonic", "sleep"):
        problems.append("clock: must have methods time(), monotonic() and sleep(seconds)")
    if problems:
        raise ConfigError(problems)


def store_for(quota: QuotaConfig) -> QuotaStore:
    """The store that a configuration names. Raises `QuotaStoreError` if it cannot be opened, `ConfigError` if its client library
    is missing."""
    if quota.store == "sqlite" and quota.path is not None:
        from .quota_sqlite import SQLiteQuotaStore

        return SQLiteQuotaStore(quota.path)
    if quota.store in ("redis", "postgres") and isinstance(quota.url, Secret):
        from .quota_url import open_store

        return open_store(quota.store, quota.url, quota.prefix, quota.adopt_empty)
    return MemoryQuotaStore()
