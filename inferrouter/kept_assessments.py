"""Keeps what each deployment of a route was found to be, and assesses those anew whose facts changed since.

Strategy: what a result depends on is its buckets' headroom, its holds, its account's breaker and calls in flight, what the
request carries, and how many tokens it may need. Headroom is compared by identity, see `quota_counting.headrooms_of`; of tokens
it is known from and up to which total a result holds. What is kept is never changed, so that threads share it without a lock.
Must never look at a store.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress, count
from operator import is_not

from .agreement import UNLIMITED
from .assessment import CallNeeds, Candidate, Instant, assess, weighed
from .costs import UNITS, Estimate
from .errors import Rejection
from .health import Health
from .quota import Headroom, Hold
from .quota_seen import Seen
from .routes import Deployment, Route

KINDS = 32
"""Of so many kinds of calls a route keeps results: what a request carries makes its kind."""

Range = tuple[float, float]
"""From and up to which total of estimated tokens a result holds; empty where it is assessed each time."""


Kept = tuple[Sequence[Headroom], Mapping[str, Hold], frozenset[str], "list[Candidate | Rejection]", list[Range], Range, int, bool]
"""What one look at a route found: the facts, which are headrooms, holds, and the accounts that it was not idle at; the results, a
range of each, and what all have in common; the version of the answers' sizes; and whether all are candidates."""


def kept_results(
    route: Route,
    needs: CallNeeds,
    headrooms: Sequence[Headroom],
    holds: Mapping[str, Hold],
    health: Health,
    now: Instant,
) -> tuple[list[Candidate | Rejection], bool]:
    """The result of each deployment, taken over from the last look at `route` for calls of this kind where nothing changed; and
    whether all of them are candidates."""
    deployments = route.deployments
    estimate, request = needs.estimate, needs.request
    open_answers = estimate.open_answers
    kind = (needs.allow_paid, needs.media, request is not None and bool(request.tools), request is None, open_answers)
    kept: Kept | None = route.memo.get(kind)
    busy = health.busy()
    # Where each model expects another length of an answer, the input alone is what they have in common.
    total = estimate.input_tokens if open_answers else estimate.total
    sizes = deployments[0].answers.version
    if kept is None or (open_answers and kept[6] != sizes):
        if len(route.memo) >= KINDS:
            route.memo.clear()
        again: Iterable[int] = range(len(deployments))
        results: list[Candidate | Rejection] = [_NOT_YET] * len(deployments)
        calm = False
        ranges, common, all_able = [_ANY] * len(deployments), _ANY, False
    else:
        again = _changed(route, kept, headrooms, holds, busy, total)
        _, held, were_busy, results, ranges, common, _, all_able = kept
        if not again:
            return results, all_able
        results = results.copy()
        # Nobody is held or busy, nor was: whoever made a candidate needs no more than his headroom weighed anew.
        calm = not (busy or were_busy or holds or held)
    outgrown = other = False
    for at in again:
        deployment = deployments[at]
        by_key = dict(zip(deployment.bucket_keys, map(headrooms.__getitem__, route.places[at]), strict=True))
        before, bounds = results[at], ranges[at]
        if calm and before.__class__ is Candidate:
            found = weighed(deployment, at, needs, by_key, 0)
        else:
            found = assess(deployment, at, needs, by_key, holds, health, now)
        results[at] = found
        other = other or (found.__class__ is Candidate) is not all_able
        own = _range(deployment, estimate, total, found, by_key[deployment.allowance_key])
        if own is not bounds:
            if kept is not None and ranges is kept[4]:
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
    route.memo[kind] = headrooms, holds, busy, results, ranges, common, sizes, all_able
    return results, all_able


def _changed(
    route: Route,
    kept: Kept,
    headrooms: Sequence[Headroom],
    holds: Mapping[str, Hold],
    busy: frozenset[str],
    total: int,
) -> set[int]:
    """The places of those whose facts are others than when `kept` was made."""
    before, held, were_busy, _, ranges, (lowest, highest), _, _ = kept
    changed: set[int] = set()
    places: Iterable[int] | None = headrooms.places_since(before) if headrooms.__class__ is Seen else None
    if places is None:
        places = compress(count(), map(is_not, before, headrooms))
    changed.update(*map(route.looking.__getitem__, places))
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
_NOT_YET = Rejection("", "", "", "", None, "")
