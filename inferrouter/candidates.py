"""Finds the deployments that may take a call now, with the facts a policy needs, and says why each other may not.

Strategy: one look at the ledger and the breakers for all deployments of a route, then one assessment each, in declared order;
over many deployments `kept_assessments` looks and assesses only those whose facts changed since. Nothing is reserved and nothing
is changed here, so that a dry run is this and no more. Must never call a provider.
"""

from __future__ import annotations

from .assessment import CallNeeds, Candidate, Instant, assess, outage_places, outage_rejection
from .errors import Rejection
from .frozen import NamedTuple, new_tuple
from .guarded_store import LOOK_S, GuardedStore
from .health import Health
from .kept_assessments import kept_results
from .routes import Route

MANY = 5
"""Deployments from which on it pays to keep assessments between calls."""


class Found(NamedTuple):
    """Candidates in declared order, and a rejection for each other deployment."""

    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]


def find_candidates(
    route: Route,
    needs: CallNeeds,
    ledger: GuardedStore,
    health: Health,
    now: Instant,
    max_wait: float | None = None,
    max_age: float = LOOK_S,
) -> Found:
    """Assess every deployment of `route`; over many, only those again whose facts changed. Raises `QuotaStoreError`.

    `max_wait`: seconds to wait for the ledger, None: as its store likes. `max_age`: seconds, how old a look may be."""
    hold_keys = route.hold_keys if needs.request is not None else _keys_for_embedding(route)
    if len(route.deployments) >= MANY and not (needs.request is not None and needs.request.require):
        results, all_able = kept_results(route, needs, ledger, hold_keys, health, now, max_wait, max_age)
        if all_able and not health.outages.out:
            return new_tuple(Found, (tuple(results), ()))
    else:
        results = []
        headrooms = ledger.headroom(route.bucket_keys, now.wall, max_wait, max_age) if route.bucket_keys else []
        holds = ledger.holds(now.wall, hold_keys, max_wait, max_age)
        by_key = dict(zip(route.bucket_keys, headrooms, strict=True))
        for order, deployment in enumerate(route.deployments):
            results.append(assess(deployment, order, needs, by_key, holds, health, now))
    if health.outages.out:
        results = [_unless_out(found, health, now) for found in results]
    candidates = tuple([found for found in results if isinstance(found, Candidate)])
    if len(candidates) == len(results):
        return new_tuple(Found, (candidates, ()))
    return Found(candidates, tuple([found for found in results if isinstance(found, Rejection)]))


def _unless_out(found: Candidate | Rejection, health: Health, now: Instant) -> Candidate | Rejection:
    if not isinstance(found, Candidate) or not health.outages.rests(outage_places(found), now.mono):
        return found
    return outage_rejection(found, health.outages, now)


def _keys_for_embedding(route: Route) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for deployment in route.deployments for key in deployment.embed_hold_keys))
