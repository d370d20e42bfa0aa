"""Keeps what each deployment of a route was found to be, and assesses those anew whose facts changed since.

Strategy: what a result depends on is its buckets' headroom, its holds, its account's breaker and calls in flight, what the
request carries, and how many tokens it may need. The ledger says which headrooms may be others than at the last look; of tokens
it is known from and up to which total a result holds. What is kept is never changed, so that threads share it without a lock.
Must never reserve anything.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from .agreement import UNLIMITED
from .assessment import CallNeeds, Candidate, Instant, assess, weighed
from .costs import UNITS, Estimate
from .errors import Rejection
from .guarded_store import GuardedStore
from .health import Health
from .quota import Headroom, Hold
from .quota_seen import Look, Rooms
from .routes import Deployment, Route

KINDS = 32
"""How many kinds of calls a route keeps results for: what a request carries makes its kind."""

Range = tuple[float, float]
"""From and up to which total of estimated tokens a result holds; empty where it is assessed each time."""


Kept = tuple[Look, list[Rooms], Mapping[str, Hold], frozenset[str], "list[Candidate | Rejection]", list[Range], Range, int, bool]
"""What was found of a route: the facts, which are the last look at its buckets, the headrooms of each deployment, holds, and the
accounts that were not idle; the results, a range of each, and what all have in common; the version of the answers' sizes; and
whether all are candidates."""


def kept_results(
    route: Route,
    needs: CallNeeds,
    ledger: GuardedStore,
    hold_keys: tuple[str, ...],
    health: Health,
    now: Instant,
    max_wait: float | None,
    max_age: float,
) -> tuple[list[Candidate | Rejection], bool]:
    """The result of each deployment, taken over from the last look at `route` for calls of this kind where nothing changed; and
    whether all of them are candidates. `max_wait`, `max_age`: see `find_candidates`. Raises `QuotaStoreError`."""
    deployments = route.deployments
    estimate, allow_paid, request, media = needs
    open_answers = estimate.open_answers
    kind = (allow_paid, media, request is not None and bool(request.tools), request is None, open_answers)
    kept: Kept | None = route.memo.get(kind)
    look = ledger.look(route.groups, None if kept is None else kept[0], now.wall, max_wait, max_age)
    holds = ledger.holds(now.wall, hold_keys, max_wait, max_age)
    news = look.news
    busy = health.busy()
    # Where each model expects another length of an answer, the input alone is what they have in common.
    total = estimate.input_tokens if open_answers else estimate.total
    sizes = deployments[0].answers.version
    again: Collection[int]
    if kept is None or (open_answers and kept[7] != sizes):
        if len(route.memo) >= KINDS:
            route.memo.clear()
        again = range(len(deployments))
        results: list[Candidate | Rejection] = [_NOT_YET] * len(deployments)
        calm = False
        rooms: list[Rooms] = [_NO_ROOMS] * len(deployments) if kept is None else kept[1].copy()
        ranges, common, all_able = [_ANY] * len(deployments), _ANY, False
    else:
        _, rooms, held, were_busy, results, ranges, common, _, all_able = kept
        # Nobody is held or busy, nor was: whoever made a candidate needs no more than his headroom weighed anew.
        calm = not (busy or were_busy or holds or held)
        if calm and len(news) == 1 and common[0] <= total <= common[1]:
            again = news
        else:
            again = _changed(route, kept, news, holds, busy, total)
        if not again:
            route.memo[kind] = look, *kept[1:]
            return results, all_able
        results, rooms = results.copy(), rooms.copy()
    outgrown = other = False
    for at in again:
        deployment = deployments[at]
        if at in news:
            rooms[at] = news[at]
        own_rooms, was, bounds = rooms[at], results[at], ranges[at]
        if calm and was.__class__ is Candidate:
            found = weighed(deployment, at, needs, own_rooms, 0)
        else:
            found = assess(deployment, at, needs, own_rooms, holds, health, now)
        results[at] = found
        other = other or (found.__class__ is Candidate) is not all_able
        own = _range(deployment, estimate, total, found, own_rooms[deployment.allowance_key])
        if own is not bounds:
            if kept is not None and ranges is kept[5]:
                ranges = ranges.copy()
            ranges[at] = own
            # One of those that bounded all of them may do so no more.
            outgrown = outgrown or bounds[0] == common[0] > own[0] or bounds[1] == common[1] < own[1]
            common = max(common[0], own[0]), min(common[1], own[1])
        if found.in_flight if isinstance(found, Candidate) else found.code == "breaker":
            busy |= {found.account_id}  # perhaps only since it was asked who is
    if outgrown:
        common = max([low for low, _ in ranges]), min([high for _, high in ranges])
    if other:
        all_able = all(isinstance(found, Candidate) for found in results)
    route.memo[kind] = look, rooms, holds, busy, results, ranges, common, sizes, all_able
    return results, all_able


def _changed(
    route: Route, kept: Kept, news: Mapping[int, Rooms], holds: Mapping[str, Hold], busy: frozenset[str], total: int
) -> set[int]:
    """The places of those whose facts differ from when `kept` was made."""
    _, rooms, held, were_busy, _, ranges, (lowest, highest), _, _ = kept
    changed = {at for at, own in news.items() if own != rooms[at]}
    if busy or were_busy:
        for account_id in busy | were_busy:
            changed.update(route.users.get(account_id, ()))
    if holds or held:
        for key in {*holds, *held}:
            if holds.get(key) != held.get(key):
                changed.update(route.users.get(key, ()))
    if not lowest <= total <= highest:
        changed.update([at for at, (low, high) in enumerate(ranges) if not low <= total <= high])
    return changed


def _range(deployment: Deployment, estimate: Estimate, total: int, found: Candidate | Rejection, allowance: Headroom) -> Range:
    """From and up to which `total` of estimated tokens `found` would be the same. Where that is not plain, it is for `total`
    alone, or for none: then it is assessed each time."""
    free = isinstance(found, Candidate) and found.free
    if not free:
        if isinstance(found, Rejection) and found.code not in ("paid_not_allowed", "spend_cap"):
            return _ANY
        if deployment.spends:
            return _NONE
    limit = allowance.limit
    depends_on = UNITS[limit.unit].depends_on
    if not depends_on or limit.amount == UNLIMITED:
        return _ANY
    if depends_on != "total":
        return _NONE
    if not free:
        return total, total
    reserve = deployment.expected(estimate).output_tokens if estimate.open_answers else 0
    return -math.inf, max(total, limit.ceiling - allowance.used - 1 - reserve)


_ANY: Range = (-math.inf, math.inf)
_NONE: Range = (math.inf, -math.inf)
_NO_ROOMS: Rooms = {}
_NOT_YET = Rejection("", "", "", "", None, "")
