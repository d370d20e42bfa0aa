"""Rests and wakes accounts by hand: a person's wish is a hold like any other.

Strategy: an account rests under its own id, until a time; waking it ends every hold of it, of its quota group and of its models,
whatever the reason was. A wish that could not be carried out is told. Must never touch what is counted.
"""

from __future__ import annotations

from .errors import QuotaStoreError
from .guarded_store import GuardedStore
from .outage import Outages
from .routes import RouteTable


def rest_account(table: RouteTable, ledger: GuardedStore, account_id: str, seconds: float, reason: str, now: float) -> str:
    """Hold an account for `seconds`; 0 ends every hold of it. What is to be said of a store that failed meanwhile, or "".

    Raises `ConfigError` for an unknown id, or `QuotaStoreError` that says what did not happen.
    """
    owners = table.hold_owners(account_id)
    what = f"account {account_id!r} was {'put to rest' if seconds else 'woken'}"
    try:
        if seconds:
            kept = [ledger.hold_as_wished(owners[0], now + seconds, reason, now)]
        else:
            held = [key for key in ledger.holds(now) if key.partition("|")[0] in owners]
            kept = [ledger.hold_as_wished(key, now, "", now) for key in held]
    except QuotaStoreError as exc:
        raise QuotaStoreError(f"{what.replace(' was ', ' was not ')}, as the quota store failed: {exc}") from exc
    if all(kept):
        return ""
    return f"rest: {what} in this process's memory alone, as the quota store fails: do it again once the store works"


def forget_overloads(outages: Outages, account_id: str) -> None:
    """Let the account's overloaded models be asked at once."""
    outages.answered(*[place for place in outages.places() if place.startswith(f"{account_id}|")])
