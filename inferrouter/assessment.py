"""Assesses one deployment: the candidate that it makes under the facts of this moment, or why it makes none.

Strategy: facts come in as values, what was seen of the ledger and of the breakers; words come out with each reason, and when it
ends. Nothing is reserved and nothing is changed here. Must never look at a store or call a provider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .account import CATALOG
from .agreement import UNLIMITED
from .costs import UNITS, Estimate, Unit
from .errors import Rejection
from .frozen import NamedTuple, new_tuple, replace
from .health import BreakerState, Health
from .limits import MAX_AMOUNT
from .moments import clock_in_words, moment_in_words
from .outage import Outages, places_of
from .quota import PLACE_WAIT_S, Headroom, Hold, Refusal
from .records import ChatRequest
from .routes import Deployment
from .spend_caps import DOLLARS

BREAKER_OPEN = "the breaker is open after repeated failures"


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

    @property
    def tier(self) -> int | None:
        """The model's quality in the catalog, from 1, the best, to 5; None where nobody has said."""
        return self.deployment.tier

    @property
    def buckets(self) -> Sequence[tuple[str, str]]:
        """The buckets that its call is charged to, with their units."""
        return self.deployment.free_buckets if self.free else self.deployment.paid_buckets

    @property
    def charges(self) -> Sequence[tuple[str, Unit]]:
        """The same with all that each unit says."""
        return self.deployment.free_charges if self.free else self.deployment.paid_charges

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
    if holds:
        keys = deployment.hold_keys if needs.request is not None else deployment.embed_hold_keys
        hold = max((holds[key] for key in keys if key in holds), key=_until, default=None)
        if hold is not None:
            if hold.reason.startswith("Authentication"):  # waiting does not fix a key
                ends = clock_in_words(hold.until, with_date=False)
                return _rejection(deployment, "held", f"held: {hold.reason}; the hold ends at {ends}")
            return _rejection(deployment, "held", f"held: {hold.reason}", hold.until)
    state, wait, in_flight = health.peek(deployment.bound.account.id, now.mono)
    if wait > 0 and state is not BreakerState.CLOSED:
        return _rejection(deployment, "breaker", BREAKER_OPEN, now.wall + wait)
    request = needs.request
    if request is not None and (needs.media or request.tools or request.require):
        unable = _unable(deployment, request, needs.media)
        if unable is not None:
            return unable
    return weighed(deployment, order, needs, headrooms, in_flight)


def weighed(
    deployment: Deployment, order: int, needs: CallNeeds, headrooms: Mapping[str, Headroom], in_flight: int
) -> Candidate | Rejection:
    """The same of one that is known to be able, not held and in order, with `in_flight` calls under way."""
    account = deployment.bound.account
    counted = headrooms[deployment.allowance_key].limit
    if counted is not deployment.counted or deployment.foreign:
        deployment = deployment.with_allowance(counted)
    estimate = deployment.expected(needs.estimate)
    free, spent = _is_free(deployment, estimate, headrooms)
    if not free:
        refused = _refused_paid(deployment, needs.allow_paid, estimate, headrooms, spent)
        if refused is not None:
            return refused
    share = 1.0
    for key, _ in deployment.free_buckets if free else deployment.paid_buckets:
        found = headrooms[key].share
        if found < share:
            share = found
    facts = (account.provider, account.id, deployment.model, free, share, deployment.price, in_flight, order, deployment)
    return new_tuple(Candidate, facts)


def outage_places(found: Candidate) -> tuple[str, str, str]:
    """What may be out of all that `found` needs, as `Outages` names it."""
    return places_of(found.deployment.bound.server, found.account_id, found.model)


def outage_rejection(found: Candidate, outages: Outages, now: Instant, least: float = 0.0) -> Rejection:
    """Why `found` must not be tried while its whole provider, or its model there, rests; for `least` seconds at least."""
    wait = outages.rests(outage_places(found), now.mono)
    server = found.deployment.bound.server
    whole = server in outages.places() and outages.wait(server, now.mono) == wait
    what = f"{found.provider} is out: it failed at several accounts" if whole else "the model is overloaded"
    until = now.wall + max(wait, least)
    return Rejection(found.provider, found.account_id, found.model, f"{what}, and rests", until, "outage")


def amounts_needed(candidate: Candidate, estimate: Estimate) -> tuple[tuple[str, float], ...]:
    """What the candidate's call must reserve: each bucket with its amount."""
    deployment = candidate.deployment
    prices = deployment.prices
    wants = []
    for key, unit in deployment.free_charges if candidate.free else deployment.paid_charges:
        needed = unit.needed
        amount = needed(estimate, prices)
        wants.append((key, amount if amount <= MAX_AMOUNT else MAX_AMOUNT))
    return tuple(wants)


def amount_of(deployment: Deployment, unit: str, estimate: Estimate) -> float:
    """What `estimate` is in a limit's unit."""
    return min(UNITS[unit].needed(estimate, deployment.prices), MAX_AMOUNT)


def _is_free(deployment: Deployment, estimate: Estimate, headrooms: Mapping[str, Headroom]) -> tuple[bool, Headroom | None]:
    if deployment.allowance is None:
        return not deployment.bound.account.paid_enabled, None
    key, unit = deployment.free_charges[0]
    headroom = headrooms[key]
    needed, left = unit.needed, headroom.remaining
    amount = needed(estimate, deployment.prices)
    return left > 0 and (amount <= left or headroom.used + min(amount, MAX_AMOUNT) <= headroom.limit.ceiling), headroom


def _refused_paid(
    deployment: Deployment, allow_paid: bool, estimate: Estimate, headrooms: Mapping[str, Headroom], spent: Headroom | None
) -> Rejection | None:
    account = deployment.bound.account
    if not (account.paid_enabled and allow_paid):
        what = _spent_words(spent, deployment, estimate) if spent is not None else "it is a paid account"
        missing = "allow_paid is false" if account.paid_enabled else "paid_enabled is false"
        back, full = _not_before(_comes_back(deployment, estimate, spent), deployment, headrooms)
        found = _rejection(deployment, "paid_not_allowed", f"{what}, and {missing}{full}", back)
        return found if spent is None or spent.limit.rolling else replace(found, zone=spent.limit.zone)
    if not deployment.prices.has_price and account.prices == CATALOG and DOLLARS in account.spend_caps:
        reason = f"the catalog has no price of {deployment.model!r}, so max_daily_spend could not hold; state its price"
        return _rejection(deployment, "spend_cap", reason)
    for key, unit in deployment.spends:
        headroom = headrooms[key]
        limit = headroom.limit
        needed = amount_of(deployment, unit, estimate)
        if headroom.used + needed > limit.ceiling or (headroom.remaining <= 0 and limit.amount != UNLIMITED):
            reason = f"max_daily_spend reached: {_spend_words(headroom, needed)}{reserve_words(unit, estimate)}"
            fits_later = needed <= limit.ceiling and limit.amount > 0
            ways = (headroom.resets_at if fits_later else None, _comes_back(deployment, estimate, spent))
            soonest = min([each for each in ways if each is not None], default=None)
            back, full = _not_before(soonest, deployment, headrooms)
            return _rejection(deployment, "spend_cap", f"{reason}{full}", back)
    return None


def _spend_words(headroom: Headroom, needed: float) -> str:
    limit = headroom.limit
    if limit.unit == "dollars":
        return f"${headroom.used:.4f} of ${limit.amount:g} spent today, about ${needed:.4f} needed"
    return f"{headroom.used:g} of {limit.quantity(limit.amount)} used as paid today, about {needed:g} needed"


def _spent_words(headroom: Headroom, deployment: Deployment, estimate: Estimate) -> str:
    limit = headroom.limit
    needed = ""
    if UNITS[limit.unit].depends_on:
        amount = limit.quantity(amount_of(deployment, limit.unit, estimate))
        needed = f", needs {amount}{reserve_words(limit.unit, estimate)}"
    return f"the free allowance is not enough ({limit.quantity(headroom.remaining)} left of {limit}{needed})"


def reserve_words(unit: str, estimate: Estimate) -> str:
    """What part of the need is kept for the answer, and what changes that; "" where it plays no part."""
    if not estimate.output_tokens or UNITS[unit].depends_on == "":
        return ""
    if unit not in ("tokens", "output_tokens", "dollars"):
        return ""
    kept = f"{estimate.output_tokens} of them" if unit != "dollars" else f"{estimate.output_tokens} tokens of it"
    return f", {kept} kept for the answer (max_tokens= changes that)"


def limit_rejection(candidate: Candidate, refusal: Refusal, estimate: Estimate, now: float) -> Rejection:
    """The rejection of a candidate whose limit has too little left, in words."""
    limit = refusal.limit
    needed = f"needs {limit.quantity(refusal.needed)}{reserve_words(limit.unit, estimate)}"
    zone = "" if limit.rolling or limit.window in ("minute", "hour") else limit.zone
    retry_at = refusal.retry_at
    if refusal.retry_at is None:
        reason = f"{needed}, more than the whole limit of {limit}"
    elif UNITS[limit.unit].held:
        reason = str(refusal)
        retry_at = min(refusal.retry_at, now + PLACE_WAIT_S)
    else:
        left = limit.quantity(refusal.remaining).split(" ")[0]
        reason = f"{left} of {limit} left, {needed}: frees {moment_in_words(refusal.retry_at, now, zone)}"
    place = (candidate.provider, candidate.account_id, candidate.model)
    return Rejection(*place, reason, retry_at, "limit", zone)


def _not_before(back: float | None, deployment: Deployment, headrooms: Mapping[str, Headroom]) -> tuple[float | None, str]:
    """When `deployment`, whose allowance or cap is back at `back`, may serve as far as its limits go, and which of them is later,
    in words. A limit that is not full yet is left to the reservation."""
    own = {deployment.allowance_key, *[key for key, _ in deployment.spends]}
    limits = [headrooms[key] for key, _ in deployment.paid_buckets if key not in own]
    full = [each for each in limits if each.remaining <= 0 and not UNITS[each.limit.unit].held]
    if any(each.resets_at is None for each in full):  # a limit of 0
        return None, ""
    last = max(full, key=lambda each: each.resets_at or 0.0, default=None)
    if back is None or last is None or last.resets_at is None or last.resets_at <= back:
        return back, ""
    return last.resets_at, f"; the limit of {last.limit} is used up too"


def _comes_back(deployment: Deployment, estimate: Estimate, spent: Headroom | None) -> float | None:
    if spent is None or deployment.allowance is None:
        return None
    fits = amount_of(deployment, deployment.allowance[1], estimate) <= spent.limit.ceiling
    return spent.resets_at if fits else None


def _unable(deployment: Deployment, request: ChatRequest, media: frozenset[str]) -> Rejection | None:
    provider = deployment.bound.provider
    for kind in sorted(media):
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
