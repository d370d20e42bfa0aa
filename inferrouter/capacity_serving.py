"""Serves rows that do not exist from limits that do: who would serve how many when, if there were always more of them.

Strategy: the limits, what is used of them and every hold are copied into a store of its own, and rows are served there on a
clock that jumps from slot to slot, by the same arithmetic as the real ones: as many as fit at each moment, then on to the next
moment when one fits. Accounts that are alike in everything are served as one. Where that takes many steps, a span that would
come many times alike, mostly a day, is not worked out anew each time but repeated. Must never call a provider, nor write to the
real store.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .agreement import UNLIMITED
from .costs import UNITS, Estimate
from .frozen import NamedTuple, frozen_value
from .guarded_store import GuardedStore
from .limits import WINDOWS, Limit
from .moments import DAY
from .quota import Bucket, Headroom, Hold, QuotaStore, Refusal
from .quota_memory import MemoryQuotaStore
from .records import Usage
from .routes import Deployment

SLOTS = 64
_CYCLE = (SLOTS + 1) / SLOTS
"""A rolling window is counted in `SLOTS` slots and the running one, see `quota_counting`."""
STEPS = 6000
"""How many steps are worked out in any case, which takes half a second or so; from then on what repeats is repeated."""
MOST_STEPS = 20_000
"""How many steps are enough where only an end is asked for; what takes more is said not to be known."""
GRID_S = 150.0
"""Seconds; what is repeated is added up in pieces of this length, which divides an hour and a slot of a rolling day."""


@frozen_value
class RowNeeds:
    """What an average row uses: `usage`; and what is reserved for it before: `estimate`."""

    usage: Usage
    estimate: Estimate


class Served(NamedTuple):
    """At `at`, epoch seconds, deployment number `place` serves `rows` rows; infinitely many where nothing limits it."""

    at: float
    place: int
    rows: float


class Effort:
    """How many steps were made, in all accounts together. `most`: how many may be, where nothing repeats; `end`: epoch seconds up
    to which that was enough."""

    __slots__ = ("end", "most", "steps")

    def __init__(self, most: float = math.inf) -> None:
        self.steps = 0
        self.most = most
        self.end = math.inf


def serving(
    deployments: Sequence[Deployment],
    ledger: GuardedStore,
    now: float,
    end: float,
    needs: RowNeeds,
    paid: bool,
    effort: Effort | None = None,
) -> Iterator[Served]:
    """Who serves how many rows when, in the order of time, if there are always more rows. Raises `QuotaStoreError`.

    `effort`: bounds what it costs; what comes from its `end` on is not all.
    """
    scopes: dict[str, list[int]] = {}
    for place, deployment in enumerate(deployments):
        scopes.setdefault(deployment.bound.scope, []).append(place)
    holds = ledger.holds(now)
    copied = _copied(ledger, {key for each in deployments for key in each.bucket_keys}, now)
    alike: dict[object, list[list[int]]] = {}
    for scope, places in scopes.items():
        alike.setdefault(_signature([deployments[place] for place in places], copied, holds, now) or scope, []).append(places)
    effort = effort or Effort()
    streams = [
        _twins(
            _scope_serving([(place, deployments[place]) for place in same[0]], copied, holds, now, end, needs, paid, effort), same
        )
        for same in alike.values()
    ]
    return heapq.merge(*streams, key=lambda served: served.at)


def _signature(scope: Sequence[Deployment], store: QuotaStore, holds: Mapping[str, Hold], now: float) -> object:
    """What an account's serving depends on, where nothing of it is used or held, and it costs nothing; else None."""
    found = []
    numbers: dict[str, int] = {}  # which buckets are the same
    for each in scope:
        rooms = store.headroom(each.bucket_keys, now)
        used = any(room.used for room in rooms) or any(key in holds for key in each.hold_keys)
        if used or each.foreign or each.bound.account.paid_enabled:
            return None
        limits = tuple((numbers.setdefault(room.key, len(numbers)), room.limit) for room in rooms)
        found.append((limits, tuple(unit for _, unit in each.free_buckets), each.bound.account.daily_free == 0))
    return tuple(found)


def _twins(stream: Iterator[Served], same: Sequence[Sequence[int]]) -> Iterator[Served]:
    """What the first of `same` serves, and each that is the same as it."""
    if len(same) == 1:
        yield from stream
        return
    first = {place: at for at, place in enumerate(same[0])}
    for served in stream:
        at = first[served.place]
        for places in same:
            yield Served(served.at, places[at], served.rows)


def _scope_serving(
    members: list[tuple[int, Deployment]],
    store: QuotaStore,
    holds: Mapping[str, Hold],
    now: float,
    end: float,
    needs: RowNeeds,
    paid: bool,
    effort: Effort,
) -> Iterator[Served]:
    """One account's serving, or one quota group's."""
    due: list[tuple[float, int, Deployment]] = []
    for place, deployment in members:
        held = held_until(deployment, holds)
        heapq.heappush(due, (now if held is None else max(now, held), place, deployment))
    keys = {key for _, deployment in members for key in deployment.bucket_keys}
    period = _period([room.limit for room in store.headroom(sorted(keys), now)])
    begin = max((at for at, _, _ in due if at < end), default=end)
    passed, seen = 0, list[Served]()
    while due:
        at, place, deployment = heapq.heappop(due)
        if at >= end:
            continue
        while at >= begin + period:
            begin += period
            passed += 1
            if passed > 1 and effort.steps > STEPS:  # the first began with what was used before
                yield from _repeated(seen, begin, period, end)
                return
            seen = []
        effort.steps += 1
        if effort.steps > effort.most and period == math.inf:
            effort.end = min(at, effort.end)
        if at >= effort.end:
            return
        rows, again = _serve(deployment, store, at, needs, paid)
        if rows:
            seen.append(Served(at, place, rows))
            yield seen[-1]
        if again is not None:
            heapq.heappush(due, (max(again, at + 0.001), place, deployment))


def _period(limits: Iterable[Limit]) -> float:
    """Seconds after which everything comes again under these limits, or so nearly that it makes less than one in a hundred;
    infinite where that takes longer than days.

    A rolling window comes again when all its slots have passed, which is a little longer than it is. Short ones do many times.
    """
    spans = [
        (limit.rolling, _span(limit) if limit.rolling else WINDOWS.get(limit.window, 0.0)) for limit in limits if _counts(limit)
    ]
    long = {(rolling, span) for rolling, span in spans if span > 0.5 * DAY}
    if len(long) > 1 or any(span > DAY for _, span in long):
        return math.inf
    rolling_day = any(rolling for rolling, _ in long)
    period = DAY * _CYCLE if rolling_day else DAY
    between = [span for rolling, span in spans if rolling and 600.0 < span <= 0.5 * DAY]
    if any(not rolling_day or DAY % span for span in between):
        return 5 * period  # else one more or less of them in a day would tell
    return period if long else period / 4


def _counts(limit: Limit) -> bool:
    return limit.amount < UNLIMITED and not UNITS[limit.unit].held


def _repeated(seen: Sequence[Served], begin: float, period: float, end: float) -> Iterator[Served]:
    """What was `seen` in the period before `begin`, in each period from then to `end`, added up in pieces of `GRID_S`."""
    pieces: dict[tuple[float, int], float] = {}
    for served in seen:
        piece = served.at // GRID_S, served.place
        pieces[piece] = pieces.get(piece, 0.0) + served.rows
    firsts = [(grid * GRID_S + GRID_S / 2, place, rows) for (grid, place), rows in sorted(pieces.items())]
    shift = period
    while firsts and begin + shift - period < end:
        for at, place, rows in firsts:
            if at + shift >= end:
                return
            yield Served(at + shift, place, rows)
        shift += period


def _serve(deployment: Deployment, store: QuotaStore, at: float, needs: RowNeeds, paid: bool) -> tuple[float, float | None]:
    """How many rows fit at `at`, which are then charged, and when the next one does: None is never, or any number now."""
    limits = {each.key: each for each in store.headroom(deployment.bucket_keys, at)}
    deployment = deployment.with_allowance(limits[deployment.allowance_key].limit)
    buckets = deployment.free_buckets
    if costs(deployment):
        if not paid:
            return 0.0, None
        buckets = deployment.paid_buckets
    prices = deployment.bound.account
    held = [(key, 0.0 if UNITS[unit].held else UNITS[unit].needed(needs.estimate, prices)) for key, unit in buckets]
    used = [
        (key, needed if (say := UNITS[unit].used) is None else say(needs.usage, prices))
        for (key, needed), (_, unit) in zip(held, buckets, strict=True)
    ]
    rows = min((_fitting(limits[key], h, u) for (key, h), (_, u) in zip(held, used, strict=True)), default=math.inf)
    if rows == math.inf:
        return rows, None
    if rows:
        taken = store.reserve([(key, 0.0) for key, _ in used], at)
        if not isinstance(taken, Refusal):
            store.commit(taken, at, [amount * rows for _, amount in used])
    refusal = store.reserve(held, at)
    if isinstance(refusal, Refusal):
        return rows, refusal.retry_at
    store.rollback(refusal, at)
    return rows, at + 1.0


def _fitting(room: Headroom, held: float, used: float) -> float:
    """How many rows fit into a bucket one after the other, each settled before the next is reserved."""
    limit = room.limit
    if room.used + held > limit.ceiling:
        return 0.0
    if used <= 0 or limit.amount >= UNLIMITED:
        return math.inf
    return math.floor((limit.ceiling - room.used - held) / used) + 1.0


def _copied(ledger: GuardedStore, keys: Iterable[str], now: float) -> QuotaStore:
    """A store with the same limits, and charged so that what is used passes when it really does."""
    wanted = sorted(keys)
    charges: list[tuple[float, str, float]] = []
    limits: list[Bucket] = []
    by_span: dict[float, list[str]] = {}
    used: dict[str, float] = {}
    for room in ledger.headroom(wanted, now):
        limits.append(Bucket(room.key, room.limit))
        used[room.key] = room.used
        span = _span(room.limit)
        if room.used > 0 and span:
            by_span.setdefault(span, []).append(room.key)
        elif room.used > 0:
            charges.append((now, room.key, room.used))
    for span, rolling in by_span.items():
        charges += _passing(ledger, rolling, used, now, span)
    store = MemoryQuotaStore()
    store.define(limits, min([now, *(at for at, _, _ in charges)]))
    for at, key, amount in sorted(charges):
        taken = store.reserve([(key, 0.0)], at)
        if not isinstance(taken, Refusal):
            store.commit(taken, at, [amount])
    return store


def _passing(
    ledger: GuardedStore, keys: Sequence[str], used: dict[str, float], now: float, span: float
) -> Iterator[tuple[float, str, float]]:
    """When what is used of rolling windows was charged, found out by looking at the moments when some of it passes."""
    at = now
    for _ in range(2 * SLOTS):
        rooms = ledger.headroom(keys, at)
        for room in rooms:
            if room.used < used[room.key]:
                yield at - span * (SLOTS + 0.5) / SLOTS, room.key, used[room.key] - room.used
                used[room.key] = room.used
        following = [room.resets_at for room in rooms if room.used > 0 and room.resets_at is not None and room.resets_at > at]
        if not following:
            break
        at = min(following)
    yield from ((now, key, used[key]) for key in keys if used[key] > 0)


def _span(limit: Limit) -> float:
    """Seconds of a rolling window, 0 for a calendar one."""
    return getattr(limit, "span_s", None) or WINDOWS.get(limit.window, 0.0) if limit.rolling else 0.0


def costs(deployment: Deployment) -> bool:
    """Whether its calls cost money from the first on."""
    return deployment.allowance is None and deployment.bound.account.paid_enabled


def held_until(deployment: Deployment, holds: Mapping[str, Hold]) -> float | None:
    """Epoch seconds until which it is held, for ever where its key was refused, None if it is not."""
    found = [holds[key] for key in deployment.hold_keys if key in holds]
    if not found:
        return None
    longest = max(found, key=lambda hold: hold.until)
    return math.inf if longest.reason.startswith("Authentication") else longest.until
