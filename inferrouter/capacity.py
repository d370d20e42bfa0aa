"""Works out what the accounts will carry, hour by hour, and when a job of so many rows will be done.

Strategy: the limits, what is used of them and every hold are copied into a store of its own, and rows are served there on a
clock that jumps from slot to slot, by the same arithmetic as the real ones: as many as fit at each moment, then on to the next
moment when one fits. Nothing is reserved for it. Rows are all alike: they need what an average row of the job needs.
Must never call a provider, nor write to the real store.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .agreement import UNLIMITED
from .catalog import offer
from .costs import DEFAULT_OUTPUT_TOKENS, UNITS, Estimate
from .errors import InvalidRequestError
from .frozen import NamedTuple, field, frozen_value
from .guarded_store import GuardedStore
from .limits import WINDOWS, Limit
from .quota import Bucket, Headroom, Hold, QuotaStore, Refusal
from .quota_memory import MemoryQuotaStore
from .records import Usage
from .routes import Deployment, RouteTable

HOUR = 3600.0
LONGEST_DAYS = 400
MOST_TOKENS = 10**9
"""Of a row."""
MOST_ROWS = 10**12
"""Of a job, far beyond what any will have."""
SLOTS = 64
"""A rolling window is counted in so many slots and the running one, see `quota_counting`."""


@frozen_value
class AccountCapacity:
    """What one model at one account will carry. `hours`: requests in each hour of the capacity; `unlimited`: no limit is known,
    so that its hours say nothing; `free`: they cost nothing; `held_until`: epoch seconds until which it is held, or None."""

    provider: str
    account_id: str
    model: str
    hours: tuple[int, ...]
    free: bool = True
    unlimited: bool = False
    held_until: float | None = None

    @property
    def requests(self) -> int:
        """In all its hours."""
        return sum(self.hours)


@frozen_value
class Capacity:
    """What the accounts will carry from `begin` to `end`, epoch seconds, by rows of `tokens` tokens each.

    `accounts`: an `AccountCapacity` each; their hours are the clock's, the first one begun at `first_hour`.
    """

    begin: float
    end: float
    tokens: int
    accounts: tuple[AccountCapacity, ...] = field(repr=False)

    @property
    def first_hour(self) -> float:
        """Epoch seconds when the first hour begins, at or before `begin`."""
        return self.begin // HOUR * HOUR

    @property
    def hours(self) -> tuple[tuple[float, int], ...]:
        """Each hour's beginning in epoch seconds, and the requests of all accounts in it."""
        columns = zip(*(account.hours for account in self.accounts), strict=True) if self.accounts else ()
        return tuple((self.first_hour + at * HOUR, sum(column)) for at, column in enumerate(columns))

    @property
    def requests(self) -> int:
        """All together, without the accounts that are unlimited."""
        return sum(account.requests for account in self.accounts)

    @property
    def unlimited(self) -> tuple[str, ...]:
        """The ids of accounts for which no limit is known."""
        return tuple(dict.fromkeys(account.account_id for account in self.accounts if account.unlimited))

    def days(self, zone: str = "UTC") -> tuple[tuple[str, int], ...]:
        """Requests by calendar day in `zone`, as (ISO date, requests)."""
        import zoneinfo

        place = UTC if zone == "UTC" else zoneinfo.ZoneInfo(zone)
        found: dict[str, int] = {}
        for begin, requests in self.hours:
            day = datetime.fromtimestamp(begin, place).date().isoformat()
            found[day] = found.get(day, 0) + requests
        return tuple(found.items())

    def to_dict(self) -> dict[str, Any]:
        """Everything, for JSON; times in ISO 8601."""
        return {
            "begin": _iso(self.begin),
            "end": _iso(self.end),
            "tokens_per_request": self.tokens,
            "requests": self.requests,
            "hours": [{"begin": _iso(begin), "requests": requests} for begin, requests in self.hours],
            "accounts": [
                {
                    "provider": each.provider,
                    "account_id": each.account_id,
                    "model": each.model,
                    "free": each.free,
                    "unlimited": each.unlimited,
                    "held_until": None if each.held_until is None else _iso(each.held_until),
                    "requests": each.requests,
                    "hours": list(each.hours),
                }
                for each in self.accounts
            ],
        }

    def __str__(self) -> str:
        lines = [f"{self.requests:,} requests of {self.tokens:,} tokens from {_iso(self.begin)} to {_iso(self.end)}"]
        for each in self.accounts:
            carries = "no limit is known" if each.unlimited else f"{each.requests:,}"
            lines.append(f"  {each.provider}/{each.account_id} {each.model}: {carries}{'' if each.free else ', paid'}")
        return "\n".join(lines)


class FinishTime(NamedTuple):
    """When a job will be done. `at`: epoch seconds, None if not within the time looked at; `in_a_day`: its rows within a day."""

    at: float | None
    in_a_day: int


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


def row_needs(tokens: int | None = None, output_tokens: int | None = None, reserved: int | None = None) -> RowNeeds:
    """A row of `tokens` in all, `output_tokens` of them answered (None: a quarter); `reserved`: tokens reserved, None: the same.

    `tokens` None: a short question and the answer that is reserved by default. Raises `InvalidRequestError`.
    """
    for name, given in (("tokens", tokens), ("output_tokens", output_tokens), ("reserved", reserved)):
        if given is not None and not _is_count(given, MOST_TOKENS):
            message = f"{name} is a whole number of tokens from 0 to {MOST_TOKENS:,}, not {given!r}"
            raise InvalidRequestError(message=message)
    total = DEFAULT_OUTPUT_TOKENS if tokens is None else tokens
    answer = min(total, total // 4 if output_tokens is None else output_tokens)
    held = max(total, reserved or 0)
    return RowNeeds(Usage(total - answer, answer, total), Estimate(held - answer, answer))


def capacity_of(
    table: RouteTable, ledger: GuardedStore, now: float, days: float, needs: RowNeeds, model: str, paid: bool
) -> Capacity:
    """What `Router.capacity` returns. Raises `UnknownModelError`, `QuotaStoreError`, or `InvalidRequestError` for wrong days."""
    if isinstance(days, bool) or not isinstance(days, (int, float)) or not 0 < days <= LONGEST_DAYS:
        raise InvalidRequestError(message=f"days is a number above 0 and up to {LONGEST_DAYS}, not {days!r}")
    end = now + days * 86400.0
    deployments = _deployments(table, model, now, paid)
    first = now // HOUR
    count = math.ceil(end / HOUR) - int(first)
    hours = [[0] * count for _ in deployments]
    unlimited = set()
    for at, place, rows in serving(deployments, ledger, now, end, needs, paid):
        if rows == math.inf:
            unlimited.add(place)
        else:
            hours[place][int(at / HOUR - first)] += int(rows)
    holds = ledger.holds(now)
    accounts = tuple(
        AccountCapacity(
            each.bound.account.provider,
            each.bound.account.id,
            each.model,
            tuple(hours[place]),
            not _costs(each),
            place in unlimited,
            _held_until(each, holds),
        )
        for place, each in enumerate(deployments)
    )
    return Capacity(now, end, needs.usage.total_tokens, accounts)


def finish_time(
    table: RouteTable,
    ledger: GuardedStore,
    now: float,
    rows: int,
    needs: RowNeeds,
    model: str,
    paid: bool,
    per_second: float = math.inf,
    days: float = 90.0,
) -> FinishTime:
    """What `Router.finish_time` returns. `per_second`: rows that the workers can do at most; `days`: how far it looks.

    Raises `InvalidRequestError` for what cannot be so many rows, else as `capacity_of`.
    """
    if not _is_count(rows, MOST_ROWS):
        raise InvalidRequestError(message=f"rows is a whole number from 0 to {MOST_ROWS:,}, not {rows!r}")
    if isinstance(per_second, bool) or not isinstance(per_second, (int, float)) or not per_second > 0:
        raise InvalidRequestError(message=f"per_second is a number of rows above 0, not {per_second!r}")
    deployments = _deployments(table, model, now, paid)
    begin, left, today = now, float(rows), 0.0
    finished: float | None = now if rows <= 0 else None
    for at, _, served in serving(deployments, ledger, now, now + days * 86400.0, needs, paid):
        begin = max(begin, at)
        if finished is None:
            takes = min(served, left)
            begin += takes / per_second
            left -= takes
            finished = begin if left <= 0 else None
        if at < now + 86400.0:
            today += served
        if finished is not None and (today >= rows or at >= now + 86400.0):
            break  # the rest of the day would change nothing
    return FinishTime(finished, int(min(today, rows, per_second * 86400.0)))


def serving(
    deployments: Sequence[Deployment], ledger: GuardedStore, now: float, end: float, needs: RowNeeds, paid: bool
) -> Iterator[Served]:
    """Who serves how many rows when, in the order of time, if there are always more rows. Raises `QuotaStoreError`."""
    scopes: dict[str, list[int]] = {}
    for place, deployment in enumerate(deployments):
        scopes.setdefault(deployment.bound.scope, []).append(place)
    holds = ledger.holds(now)
    copied = _copied(ledger, {key for each in deployments for key in each.bucket_keys}, now)
    streams = [
        _scope_serving([(place, deployments[place]) for place in places], copied, holds, now, end, needs, paid)
        for places in scopes.values()
    ]
    return heapq.merge(*streams, key=lambda served: served.at)


def _scope_serving(
    members: list[tuple[int, Deployment]],
    store: QuotaStore,
    holds: Mapping[str, Hold],
    now: float,
    end: float,
    needs: RowNeeds,
    paid: bool,
) -> Iterator[Served]:
    """One account's serving, or one quota group's."""
    due: list[tuple[float, int, Deployment]] = []
    for place, deployment in members:
        held = _held_until(deployment, holds)
        heapq.heappush(due, (now if held is None else max(now, held), place, deployment))
    while due:
        at, place, deployment = heapq.heappop(due)
        if at >= end:
            continue
        rows, again = _serve(deployment, store, at, needs, paid)
        if rows:
            yield Served(at, place, rows)
        if again is not None:
            heapq.heappush(due, (max(again, at + 0.001), place, deployment))


def _serve(deployment: Deployment, store: QuotaStore, at: float, needs: RowNeeds, paid: bool) -> tuple[float, float | None]:
    """How many rows fit at `at`, which are then charged, and when the next one does: None is never, or any number now."""
    limits = {each.key: each for each in store.headroom(deployment.bucket_keys, at)}
    deployment = deployment.with_allowance(limits[deployment.allowance_key].limit)
    buckets = deployment.free_buckets
    if _costs(deployment):
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


def _deployments(table: RouteTable, model: str, now: float, paid: bool) -> list[Deployment]:
    """What serves `model`; "" is every model that the configuration names and that chats, or else each account by itself."""
    found = table.resolve(model, now).deployments if model else table.named_deployments(now)
    seen: dict[tuple[str, str], Deployment] = {}
    for each in found:
        if paid or not _only_paid(each):
            seen.setdefault((each.bound.account.id, each.model), each)
    named = list(seen.values())
    chats = [each for each in named if not _embeds(each)]
    return named if model or not chats else chats


def _embeds(deployment: Deployment) -> bool:
    """Whether the catalog knows that the model makes vectors, and so answers nothing."""
    known = offer(deployment.bound.account.provider, deployment.model)
    return known is not None and known.embeds


def _is_count(given: object, most: int) -> bool:
    return isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= most


def _only_paid(deployment: Deployment) -> bool:
    return _costs(deployment) or deployment.bound.account.daily_free == 0


def _costs(deployment: Deployment) -> bool:
    """Whether its calls cost money from the first on."""
    return deployment.allowance is None and deployment.bound.account.paid_enabled


def _held_until(deployment: Deployment, holds: Mapping[str, Hold]) -> float | None:
    found = [holds[key] for key in deployment.hold_keys if key in holds]
    if not found:
        return None
    longest = max(found, key=lambda hold: hold.until)
    return math.inf if longest.reason.startswith("Authentication") else longest.until


def _iso(moment: float) -> str:
    return "never" if moment == math.inf else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
