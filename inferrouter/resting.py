"""Rests and wakes accounts by hand: a person's wish is a hold like any other.

Strategy: an account rests under its own id, until a time; waking it ends every hold of it, of its quota group and of its models,
whatever the reason was. Must never touch what is counted.
"""

from __future__ import annotations

from .guarded_store import GuardedStore
from .routes import RouteTable


def rest_account(table: RouteTable, ledger: GuardedStore, account_id: str, seconds: float, reason: str, now: float) -> None:
    """Hold an account so many seconds; 0 ends every hold of it. Raises `ConfigError` for an unknown id, or `QuotaStoreError`."""
    keys = table.hold_keys(account_id)
    if seconds:
        ledger.hold(keys[0], now + seconds, reason, now)
        return
    for key in ledger.holds(now):
        if key.partition("|")[0] in keys:
            ledger.hold(key, now, "", now)
