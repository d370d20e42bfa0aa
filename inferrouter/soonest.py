"""Says who may serve first of those that may not now, and when.

Strategy: each rejection names a moment. One because of a hold, a breaker or an outage looked at no limit, so before it is waited
for it is looked at as if that were over: a limit of it may be full for longer. Only done where a call waits or fails, and for a
few of them. Must never reserve anything, nor decide whether waiting is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable

from .assessment import CallNeeds, Candidate, Instant, assess, outage_places, outage_rejection
from .dry_run import unfit
from .errors import InferRouterError, Rejection
from .guarded_store import LOOK_S, GuardedStore
from .health import Health
from .routes import Route

RESTS = ("held", "breaker", "outage")
"""Codes of rejections that looked at no limit."""
MOST_LOOKS = 8
"""How many are looked at again; a call that has more accounts at rest learns of the others' limits when it comes to them."""


def soonest(
    waiting: Iterable[Rejection],
    route: Route,
    needs: CallNeeds,
    ledger: GuardedStore,
    health: Health,
    now: Instant,
    max_wait: float | None,
) -> Rejection | None:
    """The one of `waiting` that may serve first; None if waiting helps none. `max_wait`: seconds the ledger may be waited for."""
    left = [each for each in waiting if each.retry_at is not None]
    looked_at: list[Rejection] = []
    while left:
        first = min(left, key=lambda each: each.retry_at or 0.0)
        if first.code not in RESTS or first in looked_at or len(looked_at) >= MOST_LOOKS:
            return first
        left.remove(first)
        try:
            later = _behind(first, route, needs, ledger, health, now, max_wait)
        except InferRouterError:  # of the store: what was seen before stands
            later = first
        if later is not None:
            left.append(later)
            looked_at.append(later)
    return None


def _behind(
    rests: Rejection,
    route: Route,
    needs: CallNeeds,
    ledger: GuardedStore,
    health: Health,
    now: Instant,
    max_wait: float | None,
) -> Rejection | None:
    """`rests`, or what keeps its deployment from serving for longer; None: it never may."""
    place = (rests.provider, rests.account_id, rests.model)
    found = [each for each in route.deployments if (each.bound.account.provider, each.bound.account.id, each.model) == place]
    if not found:
        return rests
    headrooms = {each.key: each for each in ledger.headroom(found[0].bucket_keys, now.wall, max_wait, LOOK_S)}
    made = assess(found[0], 0, needs, headrooms, {}, health if rests.code == "held" else Health(), now)
    others = [made] if isinstance(made, Rejection) else []
    if isinstance(made, Candidate):
        full = unfit(made, needs, headrooms, now.wall)
        others += [full] if full is not None else []
        if rests.code != "outage" and health.outages.rests(outage_places(made), now.mono) > 0:
            others.append(outage_rejection(made, health.outages, now))
    if any(each.retry_at is None for each in others):
        return None
    return max([rests, *others], key=lambda each: each.retry_at or 0.0)
