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
from .assessment import CallNeeds, Candidate, Instant, assess
from .costs import UNITS
from .errors import Rejection
from .frozen import NamedTuple, new_tuple
from .health import Health
from .quota import Headroom, Hold
from .routes import Deployment, Route

KINDS = 32
"""Of so many kinds of calls a route keeps results: what a request carries makes its kind."""

Range = tuple[float, float]
"""From and up to which total of estimated tokens a result holds; empty where it is assessed each time."""


class Kept(NamedTuple):
    """What one look at a route found. `ranges`: of each result, and `lowest`, `highest` what all of them have in common; `busy`:
    the accounts it was not idle at; `sizes`: the version of the answers' sizes; `rejected`: how many are rejections."""

    headrooms: Sequence[Headroom]
    holds: Mapping[str, Hold]
    busy: frozenset[str]
    results: list[Candidate | Rejection]
    ranges: list[Range]
    lowest: float
    highest: float
    sizes: int
    rejected: int


def kept_results(
    route: Route,
    needs: CallNeeds,
    headrooms: Sequence[Headroom],
    holds: Mapping[str, Hold],
    health: Health,
    now: Instant,
) -> Kept:
    """The result of each deployment, taken over from the last look at `route` for calls of this kind where nothing changed."""
    deployments = route.deployments
    estimate, request = needs.estimate, needs.request
    open_answers = estimate.open_answers
    kind = (needs.allow_paid, needs.media, request is not None and bool(request.tools), request is None, open_answers)
    kept: Kept | None = route.memo.get(kind)
    busy = health.busy()
    # Where each model expects another length of an answer, the input alone is what they have in common.
    total = estimate.input_tokens if open_answers else estimate.total
    sizes = deployments[0].answers.version
    if kept is None or len(kept.headrooms) != len(headrooms) or (open_answers and kept.sizes != sizes):
        again: Iterable[int] = range(len(deployments))
        results: list[Candidate | Rejection] = [_NOT_YET] * len(deployments)
        ranges: list[Range] = [_ANY] * len(deployments)
        (lowest, highest), rejected = _ANY, len(deployments)
    else:
        again = _changed(route, kept, headrooms, holds, busy, total)
        if not again:
            return kept
        results, ranges = kept.results.copy(), kept.ranges.copy()
        lowest, highest, rejected = kept.lowest, kept.highest, kept.rejected
    not_idle = set(busy)
    outgrown = False
    places = route.places
    for at in again:
        deployment = deployments[at]
        by_key = {key: headrooms[places[key]] for key in deployment.bucket_keys}
        before, bounds = results[at], ranges[at]
        found = results[at] = assess(deployment, at, needs, by_key, holds, health, now)
        rejected += (found.__class__ is Rejection) - (before.__class__ is Rejection)
        reserve = deployment.expected(estimate).output_tokens if open_answers else 0
        low, high = _range(deployment, total + reserve, found, by_key[deployment.allowance_key])
        low, high = ranges[at] = low - reserve, high - reserve
        # One of those that bounded all of them may do so no more.
        outgrown = outgrown or bounds[0] == lowest > low or bounds[1] == highest < high
        if low > lowest:
            lowest = low
        if high < highest:
            highest = high
        if found.in_flight if isinstance(found, Candidate) else found.code == "breaker":
            not_idle.add(found.account_id)  # perhaps only since `busy` was asked
    if outgrown:
        lowest, highest = max([low for low, _ in ranges]), min([high for _, high in ranges])
    if len(route.memo) >= KINDS:
        route.memo.clear()
    made = new_tuple(Kept, (headrooms, holds, frozenset(not_idle), results, ranges, lowest, highest, sizes, rejected))
    route.memo[kind] = made
    return made


def _changed(
    route: Route,
    kept: Kept,
    headrooms: Sequence[Headroom],
    holds: Mapping[str, Hold],
    busy: frozenset[str],
    total: int,
) -> set[int]:
    """The places of those whose facts are others than when `kept` was made."""
    changed: set[int] = set()
    users, keys = route.users, route.bucket_keys
    for place in _changed_places(kept.headrooms, headrooms):
        changed.update(users[keys[place]])
    if busy or kept.busy:
        for account_id in busy | kept.busy:
            changed.update(users.get(account_id, ()))
    if holds or kept.holds:
        for key in {*holds, *kept.holds}:
            if holds.get(key) != kept.holds.get(key):
                changed.update(users.get(key, ()))
    if not kept.lowest <= total <= kept.highest:
        changed.update([at for at, (low, high) in enumerate(kept.ranges) if not low <= total <= high])
    return changed


def _changed_places(before: Sequence[Headroom], headrooms: Sequence[Headroom]) -> Iterable[int]:
    """Where the headroom may be another object than before. Stores may know that, see `quota_seen.Seen`."""
    tell = getattr(headrooms, "changed_since", None)
    places: list[int] | None = tell(before) if tell is not None else None
    return compress(count(), map(is_not, before, headrooms)) if places is None else places


def _range(deployment: Deployment, total: int, found: Candidate | Rejection, allowance: Headroom) -> Range:
    """From and up to which total of estimated tokens `found` would be the same. Where that is not plain, it is for `total` alone,
    or for none: then it is assessed each time."""
    limit = allowance.limit
    if isinstance(found, Rejection) and found.code not in ("paid_not_allowed", "spend_cap"):
        return _ANY
    if deployment.spends and not (isinstance(found, Candidate) and found.free):
        return math.inf, -math.inf
    depends_on = UNITS[limit.unit].depends_on
    if limit.amount == UNLIMITED or not depends_on:
        return _ANY
    if depends_on == "total" and isinstance(found, Candidate) and found.free:
        return -math.inf, max(total, limit.ceiling - allowance.used - 1)
    return (total, total) if depends_on == "total" else (math.inf, -math.inf)


_ANY: Range = (-math.inf, math.inf)
_NOT_YET = Rejection("", "", "", "", None, "")
