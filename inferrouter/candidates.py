"""Finds the deployments that may take a call now, with the facts a policy needs, and says why each other may not.

Strategy: one look at the ledger and the breakers for all deployments of a route, then one judgement each, in declared order.
Nothing is reserved and nothing is changed here, so that a dry run is this and no more. Must never call a provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .costs import Estimate
from .errors import Rejection
from .guarded_store import GuardedStore
from .health import BreakerState, Health
from .quota import Headroom, Hold
from .records import ChatRequest, Usage
from .routes import Deployment, Route, cost_of


class Candidate(NamedTuple):
    """One model at one account that may be tried. See `policy.Rankable` for the facts; `order`: its declared place."""

    provider: str
    account_id: str
    model: str
    free: bool
    share: float
    price: float | None
    in_flight: int
    order: int
    deployment: Deployment

    @property
    def reason(self) -> str:
        """Why it may serve, in words."""
        if self.free:
            return f"free, {self.share:.0%} of its tightest limit left"
        price = "no stated price" if self.price is None else f"${self.price * 1e6:.2f} per million tokens"
        return f"paid, {price}, {self.share:.0%} of its tightest limit left"

    def __repr__(self) -> str:
        kind = "free" if self.free else "paid"
        where = f"{self.provider}/{self.account_id} {self.model}"
        return f"<Candidate {where}: {kind}, {self.share:.0%} left, {self.in_flight} in flight>"


class Instant(NamedTuple):
    """One moment on both clocks: `wall` epoch seconds, `mono` monotonic seconds."""

    wall: float
    mono: float


class CallNeeds(NamedTuple):
    """What a call asks of whoever takes it. `request` is None for calls that carry no chat."""

    estimate: Estimate
    allow_paid: bool
    request: ChatRequest | None = None
    media: frozenset[str] = frozenset()


class Assessment(NamedTuple):
    """Candidates in declared order, and a rejection for each other deployment."""

    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]


def find_candidates(route: Route, needs: CallNeeds, ledger: GuardedStore, health: Health, now: Instant) -> Assessment:
    """Assess every deployment of `route`. Raises `QuotaStoreError`."""
    headrooms = {headroom.key: headroom for headroom in ledger.headroom(route.bucket_keys, now.wall)} if route.bucket_keys else {}
    holds = ledger.holds(now.wall)
    candidates: list[Candidate] = []
    rejections: list[Rejection] = []
    for order, deployment in enumerate(route.deployments):
        found = assess(deployment, order, needs, headrooms, holds, health, now)
        if isinstance(found, Candidate):
            candidates.append(found)
        else:
            rejections.append(found)
    return Assessment(tuple(candidates), tuple(rejections))


def assess(
    deployment: Deployment,
    order: int,
    needs: CallNeeds,
    headrooms: Mapping[str, Headroom],
    holds: Mapping[str, Hold],
    health: Health,
    now: Instant,
) -> Candidate | Rejection:
    """The candidate that `deployment` makes under these facts, or why it makes none."""
    account = deployment.bound.account
    if holds:
        hold = max((holds[key] for key in deployment.hold_keys if key in holds), key=_until, default=None)
        if hold is not None:
            # A key that was refused is not mended by waiting.
            until = None if hold.reason.startswith("Authentication") else hold.until
            return _rejection(deployment, "held", f"held: {hold.reason}", until)
    state, wait, in_flight = health.peek(account.id, now.mono)
    if state is not BreakerState.CLOSED and wait > 0:
        return _rejection(deployment, "breaker", "the breaker is open after repeated failures", now.wall + wait)
    unable = _unable(deployment, needs)
    if unable is not None:
        return unable
    deployment = deployment.with_allowance(headrooms[deployment.allowance_key].limit)
    free, spent = _is_free(deployment, needs, headrooms)
    if not free:
        refused = _refused_paid(deployment, needs, headrooms, spent)
        if refused is not None:
            return refused
    keys = deployment.free_buckets if free else deployment.paid_buckets
    share = min([headrooms[key].share for key, _ in keys], default=1.0)
    return Candidate(account.provider, account.id, deployment.model, free, share, deployment.price, in_flight, order, deployment)


def amounts_needed(candidate: Candidate, estimate: Estimate) -> tuple[tuple[str, float], ...]:
    """What the candidate's call must reserve: each bucket with its amount."""
    deployment = candidate.deployment
    keys = deployment.free_buckets if candidate.free else deployment.paid_buckets
    return tuple([(key, 1 if unit == "requests" else amount_of(deployment, unit, estimate)) for key, unit in keys])


def amount_of(deployment: Deployment, unit: str, estimate: Estimate) -> float:
    """What `estimate` is in a limit's unit."""
    if unit == "requests":
        return 1
    if unit == "tokens":
        return estimate.total
    return cost_of(deployment.bound.account, Usage(estimate.input_tokens, estimate.output_tokens, estimate.total))


def _is_free(deployment: Deployment, needs: CallNeeds, headrooms: Mapping[str, Headroom]) -> tuple[bool, Headroom | None]:
    if deployment.allowance is None:
        return not deployment.bound.account.paid_enabled, None
    key, unit = deployment.allowance
    headroom = headrooms[key]
    needed = amount_of(deployment, unit, needs.estimate)
    return headroom.used + needed <= headroom.limit.ceiling and headroom.remaining > 0, headroom


def _refused_paid(
    deployment: Deployment, needs: CallNeeds, headrooms: Mapping[str, Headroom], spent: Headroom | None
) -> Rejection | None:
    account = deployment.bound.account
    if not (account.paid_enabled and needs.allow_paid):
        what = _spent_words(spent) if spent is not None else "it is a paid account"
        missing = "allow_paid is false" if account.paid_enabled else "paid_enabled is false"
        return _rejection(deployment, "paid_not_allowed", f"{what}, and {missing}", _comes_back(deployment, needs, spent))
    if deployment.spend is not None:
        headroom = headrooms[deployment.spend]
        needed = amount_of(deployment, "dollars", needs.estimate)
        if headroom.used + needed > headroom.limit.ceiling or (headroom.remaining <= 0 and account.max_daily_spend is not None):
            spent_today = f"${headroom.used:.4f} of ${headroom.limit.amount:g} spent today"
            reason = f"max_daily_spend reached: {spent_today}, about ${needed:.4f} needed"
            fits_later = needed <= headroom.limit.ceiling and headroom.limit.amount > 0
            return _rejection(deployment, "spend_cap", reason, headroom.resets_at if fits_later else None)
    return None


def _spent_words(headroom: Headroom) -> str:
    limit = headroom.limit
    return f"the free allowance does not reach ({limit.quantity(headroom.remaining)} left of {limit})"


def _comes_back(deployment: Deployment, needs: CallNeeds, spent: Headroom | None) -> float | None:
    if spent is None or deployment.allowance is None:
        return None
    fits = amount_of(deployment, deployment.allowance[1], needs.estimate) <= spent.limit.ceiling
    return spent.resets_at if fits else None


def _unable(deployment: Deployment, needs: CallNeeds) -> Rejection | None:
    request = needs.request
    if request is None:
        return None
    provider = deployment.bound.provider
    for kind in sorted(needs.media):
        if kind not in provider.media:
            return _rejection(deployment, "media", f"the {provider.dialect} wire format carries no {kind}")
        if deployment.capabilities is None or kind not in deployment.capabilities:
            known = "not known to take" if deployment.capabilities is None else "declared not to take"
            return _rejection(deployment, "media", f"{known} {kind}; if it does, add {kind!r} to the account's capabilities")
    if request.tools and deployment.capabilities is not None and "tools" not in deployment.capabilities:
        return _rejection(deployment, "tools", "does not take tools (see the account's capabilities)")
    if request.require:
        missing = [name for name in provider.unsupported(request, deployment.model) if name in request.require]
        if missing:
            return _rejection(deployment, "required", f"cannot express {', '.join(missing)}, which the request requires")
    return None


def _rejection(deployment: Deployment, code: str, reason: str, retry_at: float | None = None) -> Rejection:
    account = deployment.bound.account
    return Rejection(account.provider, account.id, deployment.model, reason, retry_at, code)


def _until(hold: Hold) -> float:
    return hold.until
