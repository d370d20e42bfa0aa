"""Says what a call would find now: which candidates the limits have room for, and why the others would not serve.

Strategy: candidates are found as for a call; here each one's amounts are held against what is left, as a reservation would do,
but nothing is reserved. Must never call a provider.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .assessment import CallNeeds, Candidate, amounts_needed, limit_rejection
from .costs import UNITS
from .errors import Rejection
from .guarded_store import GuardedStore
from .quota import PLACE_WAIT_S, Headroom, Refusal


def fitting(
    queue: Sequence[Candidate], needs: CallNeeds, ledger: GuardedStore, now: float
) -> tuple[list[Candidate], list[Rejection]]:
    """For a dry run: those of `queue` that the limits have room for now, and why each other has not. Raises `QuotaStoreError`.

    `now`: epoch seconds.
    """
    keys = tuple(dict.fromkeys(key for candidate in queue for key, _ in candidate.buckets))
    headrooms = {headroom.key: headroom for headroom in ledger.headroom(keys, now)} if keys else {}
    found = [(candidate, unfit(candidate, needs, headrooms, now)) for candidate in queue]
    return [candidate for candidate, why in found if why is None], [why for _, why in found if why is not None]


def unfit(candidate: Candidate, needs: CallNeeds, headrooms: Mapping[str, Headroom], now: float) -> Rejection | None:
    """Why the limits have no room for `candidate` now, None if they have. `headrooms`: of its buckets at least."""
    estimate = candidate.deployment.expected(needs.estimate)
    refusals = [
        Refusal(key, headroom.limit, needed, headroom.remaining, _frees(headroom, needed, now))
        for key, needed in amounts_needed(candidate, estimate)
        if (headroom := headrooms[key]).used + needed > headroom.limit.ceiling
    ]
    if not refusals:
        return None
    last = max(refusals, key=lambda each: math.inf if each.retry_at is None else each.retry_at)
    return limit_rejection(candidate, last, estimate, now)


def _frees(headroom: Headroom, needed: float, now: float) -> float | None:
    limit = headroom.limit
    if needed > limit.ceiling or headroom.resets_at is None:
        return None
    return min(headroom.resets_at, now + PLACE_WAIT_S) if UNITS[limit.unit].held else headroom.resets_at
