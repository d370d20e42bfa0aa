"""Lists every model that a router can be asked for: by which names, at which account, with what left, and from when on.

Strategy: resolves every name that leads somewhere and takes one dry look at all of it, as a short question would. Nothing is
reserved. Must never call a provider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .candidates import CallNeeds, Candidate, Instant, find_candidates, fitting
from .costs import estimate_chat
from .errors import Rejection, UnknownModelError
from .frozen import frozen_value
from .guarded_store import GuardedStore
from .health import Health
from .policy import Policy
from .quota import Headroom
from .records import ChatRequest
from .routes import Deployment, RouteTable, route_over
from .status import LimitStatus, limit_status
from .walk import ordered


@frozen_value
class AskableModel:
    """One model at one account. `aliases`: the names it is asked by besides `provider/model`; `tier`: its quality in the catalog.

    `available`: whether a short question would be sent there now; `reason`: why, or why not; `retry_at`: epoch seconds when
    that may change, None: not by waiting. `free`: what the answer would cost nothing. `limits`: everything that a call is
    charged to.
    """

    provider: str
    account_id: str
    model: str
    aliases: tuple[str, ...]
    tier: int | None
    available: bool
    free: bool
    reason: str
    retry_at: float | None
    limits: tuple[LimitStatus, ...]


def askable_models(
    table: RouteTable,
    aliases: Sequence[str],
    allow_paid: bool,
    ledger: GuardedStore,
    health: Health,
    policy: Policy,
    now: Instant,
) -> tuple[AskableModel, ...]:
    """What `Router.models` returns. Raises `QuotaStoreError`, or `ConfigError` if the policy fails."""
    names: dict[Deployment, list[str]] = {}
    for name in table.names():
        try:
            found = table.resolve(name, now.wall).deployments
        except UnknownModelError:
            continue
        for deployment in found:
            names.setdefault(deployment, []).extend([name] if name in aliases else [])
    route = route_over("", names)
    needs = CallNeeds(estimate_chat(ChatRequest("Hello!")), allow_paid)
    look = find_candidates(route, needs, ledger, health, now)
    able, full = fitting(ordered(policy, look.candidates), needs, ledger, now.wall)
    keys = tuple(dict.fromkeys(key for deployment in names for key in deployment.bucket_keys))
    headrooms = {each.key: each for each in ledger.headroom(keys, now.wall)} if keys else {}
    verdicts: dict[tuple[str, str], Candidate | Rejection] = {
        (each.account_id, each.model): each for each in (*look.rejections, *full)
    }
    verdicts |= {(each.account_id, each.model): each for each in able}
    return tuple([_row(deployment, found, verdicts, headrooms) for deployment, found in names.items()])


def _row(
    deployment: Deployment,
    aliases: Sequence[str],
    verdicts: Mapping[tuple[str, str], Candidate | Rejection],
    headrooms: Mapping[str, Headroom],
) -> AskableModel:
    account = deployment.bound.account
    verdict = verdicts.get((account.id, deployment.model))
    charged = dict.fromkeys(key for key, _ in (*deployment.free_buckets, *deployment.paid_buckets))
    limits = tuple([limit_status(headrooms[key], deployment.bound.scope) for key in charged])
    place = (account.provider, account.id, deployment.model, tuple(dict.fromkeys(aliases)), deployment.tier)
    if isinstance(verdict, Candidate):
        return AskableModel(*place, True, verdict.free, verdict.reason, None, limits)
    reason, retry_at = ("left out by the policy", None) if verdict is None else (verdict.reason, verdict.retry_at)
    return AskableModel(*place, False, not account.paid_enabled, reason, retry_at, limits)
