"""Works out what the accounts will carry, hour by hour, and when a job of a given number of rows will be done.

Strategy: rows are served from a copy of what the accounts have, see `capacity_serving`; here that becomes hours and an end.
Nothing is reserved for it. Rows are all alike: they need what an average row of the job needs.
Must never call a provider, nor write to the real store.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from .capacity_serving import MOST_STEPS, Effort, RowNeeds, costs, held_until, serving
from .catalog import offer
from .costs import DEFAULT_OUTPUT_TOKENS, Estimate
from .errors import InvalidRequestError
from .frozen import NamedTuple, field, frozen_value
from .guarded_store import GuardedStore
from .moments import DAY, HOUR, moment_in_words
from .records import Usage
from .routes import Deployment, RouteTable

LONGEST_DAYS = 400
MOST_TOKENS = 10**9
"""Of a row."""
MOST_ROWS = 10**12
"""Of a job, far beyond what any will have."""


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
    """When a job will be done. `at`: epoch seconds, None if not within the time looked at; `in_a_day`: its rows within a day.

    `looked_to`: epoch seconds, the end of that time. `unlimited`: the id of an account without a known limit that takes what is
    left, so that `at` says no more than how fast the workers are; "" if there is none.
    """

    at: float | None
    in_a_day: int
    looked_to: float
    unlimited: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For JSON; None where nobody can say. `as_fast_as`: the account that takes whatever comes, or None."""
        known = not self.unlimited
        return {
            "done_at": _iso(self.at) if known and self.at is not None else None,
            "within_a_day": self.in_a_day if known else None,
            "as_fast_as": self.unlimited or None,
            "looked_to": _iso(self.looked_to),
        }

    def in_words(self, now: float) -> str:
        """As "done Friday 14:10; 40 of them within a day". `now`: epoch seconds."""
        if self.unlimited:
            return f"as fast as {self.unlimited} answers, since no limit of it is known"
        days = round((self.looked_to - now) / DAY)
        when = f"not within {days} days" if self.at is None else f"done {moment_in_words(self.at, now)}"
        return f"{when}; {self.in_a_day:,} of them within a day"


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
    end = now + days * DAY
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
            not costs(each),
            place in unlimited,
            held_until(each, holds),
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

    Raises `InvalidRequestError` for what cannot be a number of rows, else as `capacity_of`.
    """
    if not _is_count(rows, MOST_ROWS):
        raise InvalidRequestError(message=f"rows is a whole number from 0 to {MOST_ROWS:,}, not {rows!r}")
    if isinstance(per_second, bool) or not isinstance(per_second, (int, float)) or not per_second > 0:
        raise InvalidRequestError(message=f"per_second is a number of rows above 0, not {per_second!r}")
    deployments = _deployments(table, model, now, paid)
    begin, left, today, end, unlimited = now, float(rows), 0.0, now + days * DAY, ""
    effort = Effort(MOST_STEPS)
    finished: float | None = now if rows <= 0 else None
    for at, place, served in serving(deployments, ledger, now, end, needs, paid, effort):
        if at >= effort.end:
            break
        if served == math.inf and finished is None:
            unlimited = deployments[place].bound.account.id
        begin = max(begin, at)
        if finished is None:
            takes = min(served, left)
            begin += takes / per_second
            left -= takes
            finished = begin if left <= 0 else None
        if at < now + DAY:
            today += served
        if finished is not None and (today >= rows or at >= now + DAY):
            break  # the rest of the day would change nothing
    return FinishTime(finished, int(min(today, rows, per_second * DAY)), min(end, effort.end), unlimited)


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
    return costs(deployment) or deployment.bound.account.daily_free == 0


def _iso(moment: float) -> str:
    return "never" if moment == math.inf else datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
