"""Looks for those who may take a call, at a server only where it matters.

Strategy: a store on a server remembers what it showed last. The first look of a call takes that, whatever its age, if it leaves
somebody who may serve for free or turns nobody down: to ask the server would cost a round trip, while the reservation asks it
anyway, and brings a new look along. A choice that is out of date costs one refused attempt. Must never call a provider.
"""

from __future__ import annotations

import math

from .assessment import CallNeeds, Instant
from .candidates import Found, find_candidates
from .guarded_store import GuardedStore
from .health import Health
from .routes import Route


def look_for(
    route: Route, needs: CallNeeds, ledger: GuardedStore, health: Health, now: Instant, max_wait: float | None, first: bool
) -> Found:
    """See `candidates.find_candidates`. `first`: nothing of the call was tried yet. Raises `QuotaStoreError`."""
    if first and ledger.keeps_looks:
        found = find_candidates(route, needs, ledger, health, now, max_wait, math.inf)
        if not found.rejections or any(each.free for each in found.candidates):
            return found
    return find_candidates(route, needs, ledger, health, now, max_wait)
