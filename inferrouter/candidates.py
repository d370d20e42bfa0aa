"""Which accounts may take this call now, with the facts a policy needs, and why each of the others was left out.

Strategy: one look at the ledger and the breakers for all slots of a plan, then one judgement a slot, in declared order. Nothing
is reserved and nothing is changed here, so that a dry run is this and no more. Must never call a provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .errors import Rejection
from .estimate import Estimate
from .health import BreakerState, Health
from .ledger import Ledger
from .quota import Headroom, Hold
from .records import ChatRequest, Usage
from .roster import Plan, Slot, cost_of

__all__ = ["Candidate", "Now", "Situation", "Survey", "survey", "wants_of"]


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
    slot: Slot

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


class Now(NamedTuple):
    """One moment on both clocks: `wall` epoch seconds, `mono` monotonic seconds."""

    wall: float
    mono: float


class Situation(NamedTuple):
    """What a call asks of whoever takes it. `request` is None for calls that carry no chat."""

    need: Estimate
    allow_paid: bool
    request: ChatRequest | None = None
    media: frozenset[str] = frozenset()


class Survey(NamedTuple):
    """Candidates in declared order, and a rejection for each other slot."""

    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]


def survey(plan: Plan, situation: Situation, ledger: Ledger, health: Health, now: Now) -> Survey:
    """Judge every slot of `plan`. Raises `QuotaStoreError`."""
    rooms = {room.key: room for room in ledger.headroom(plan.room_keys, now.wall)} if plan.room_keys else {}
    holds = ledger.holds(now.wall)
    candidates: list[Candidate] = []
    rejections: list[Rejection] = []
    for order, slot in enumerate(plan.slots):
        found = judge(slot, order, situation, rooms, holds, health, now)
        if isinstance(found, Candidate):
            candidates.append(found)
        else:
            rejections.append(found)
    return Survey(tuple(candidates), tuple(rejections))


def judge(
    slot: Slot,
    order: int,
    situation: Situation,
    rooms: Mapping[str, Headroom],
    holds: Mapping[str, Hold],
    health: Health,
    now: Now,
) -> Candidate | Rejection:
    """The candidate a slot makes under these facts, or why it makes none."""
    account = slot.seat.account
    if holds:
        hold = max((holds[key] for key in slot.hold_keys if key in holds), key=_until, default=None)
        if hold is not None:
            # A key that was refused is not mended by waiting.
            until = None if hold.reason.startswith("Authentication") else hold.until
            return _rejection(slot, "held", f"held: {hold.reason}", until)
    state, wait, in_flight = health.look(account.id, now.mono)
    if state is not BreakerState.CLOSED and wait > 0:
        return _rejection(slot, "breaker", "resting after repeated failures (breaker open)", now.wall + wait)
    unable = _unable(slot, situation)
    if unable is not None:
        return unable
    slot = slot.counting(rooms[slot.allowance_key].limit)
    free, spent = _is_free(slot, situation, rooms)
    if not free:
        refused = _refused_paid(slot, situation, rooms, spent)
        if refused is not None:
            return refused
    keys = slot.free_keys if free else slot.paid_keys
    share = min([rooms[key].share for key, _ in keys], default=1.0)
    return Candidate(account.provider, account.id, slot.model, free, share, slot.price, in_flight, order, slot)


def wants_of(candidate: Candidate, need: Estimate) -> tuple[tuple[str, float], ...]:
    """What the candidate's call must reserve: each bucket with its amount."""
    slot = candidate.slot
    keys = slot.free_keys if candidate.free else slot.paid_keys
    return tuple([(key, 1 if unit == "requests" else amount_of(slot, unit, need)) for key, unit in keys])


def amount_of(slot: Slot, unit: str, need: Estimate) -> float:
    """What `need` is in a limit's unit."""
    if unit == "requests":
        return 1
    if unit == "tokens":
        return need.total
    return cost_of(slot.seat.account, Usage(need.input_tokens, need.output_tokens, need.total))


def _is_free(slot: Slot, situation: Situation, rooms: Mapping[str, Headroom]) -> tuple[bool, Headroom | None]:
    if slot.allowance is None:
        return not slot.seat.account.paid_enabled, None
    key, unit = slot.allowance
    room = rooms[key]
    needed = amount_of(slot, unit, situation.need)
    return room.used + needed <= room.limit.ceiling and room.remaining > 0, room


def _refused_paid(slot: Slot, situation: Situation, rooms: Mapping[str, Headroom], spent: Headroom | None) -> Rejection | None:
    account = slot.seat.account
    if not (account.paid_enabled and situation.allow_paid):
        what = _spent_words(spent) if spent is not None else "it is a paid account"
        missing = "allow_paid is false" if account.paid_enabled else "paid_enabled is false"
        return _rejection(slot, "paid_not_allowed", f"{what}, and {missing}", _comes_back(slot, situation, spent))
    if slot.spend is not None:
        room = rooms[slot.spend]
        needed = amount_of(slot, "dollars", situation.need)
        if room.used + needed > room.limit.ceiling or (room.remaining <= 0 and account.max_daily_spend is not None):
            return _rejection(
                slot,
                "spend_cap",
                f"max_daily_spend reached: ${room.used:.4f} of ${room.limit.amount:g} spent today, about ${needed:.4f} needed",
                room.resets_at if needed <= room.limit.ceiling and room.limit.amount > 0 else None,
            )
    return None


def _spent_words(room: Headroom) -> str:
    limit = room.limit
    return f"the free allowance does not reach ({limit.quantity(room.remaining)} left of {limit})"


def _comes_back(slot: Slot, situation: Situation, spent: Headroom | None) -> float | None:
    if spent is None or slot.allowance is None:
        return None
    fits = amount_of(slot, slot.allowance[1], situation.need) <= spent.limit.ceiling
    return spent.resets_at if fits else None


def _unable(slot: Slot, situation: Situation) -> Rejection | None:
    request = situation.request
    if request is None:
        return None
    provider = slot.seat.provider
    for kind in sorted(situation.media):
        if kind not in provider.media:
            return _rejection(slot, "media", f"the {provider.dialect} wire format carries no {kind}")
        if slot.can is None or kind not in slot.can:
            known = "not known to take" if slot.can is None else "declared not to take"
            return _rejection(slot, "media", f"{known} {kind}; if it does, add {kind!r} to the account's capabilities")
    if request.tools and slot.can is not None and "tools" not in slot.can:
        return _rejection(slot, "tools", "does not take tools (see the account's capabilities)")
    if request.require:
        missing = [name for name in provider.unsupported(request, slot.model) if name in request.require]
        if missing:
            return _rejection(slot, "required", f"cannot express {', '.join(missing)}, which the request requires")
    return None


def _rejection(slot: Slot, code: str, reason: str, retry_at: float | None = None) -> Rejection:
    account = slot.seat.account
    return Rejection(account.provider, account.id, slot.model, reason, retry_at, code)


def _until(hold: Hold) -> float:
    return hold.until
