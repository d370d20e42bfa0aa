"""Shows the inside of a router: the dry run of a request, and the state of every account.

Strategy: frozen values that print well, made from the same looks at ledger and breakers that a call uses. Nothing is reserved.
Must never show a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from .agreement import UNLIMITED
from .assessment import Candidate, Instant
from .bound_account import BoundAccount
from .costs import UNITS
from .errors import Rejection
from .frozen import FrozenDict, frozen_value
from .guarded_store import GuardedStore
from .health import Health
from .moments import moment_in_words, utc_in_words
from .outage import PROVIDER_OUT
from .quota import Headroom, Hold
from .quota_learned import Fact, Learned
from .routes import RouteTable


@frozen_value
class Explanation:
    """What a call would do now: `candidates` in the order they would be tried, `rejections` with the reason each was left out."""

    model: str
    candidates: tuple[Candidate, ...]
    rejections: tuple[Rejection, ...]

    def __str__(self) -> str:
        lines = [f"{self.model}:"]
        for place, found in enumerate(self.candidates, 1):
            kind = "free" if found.free else "paid"
            busy = f", {found.in_flight} in flight" if found.in_flight else ""
            tier = f", tier {found.tier}" if found.tier else ""
            where = f"{found.provider}/{found.account_id} {found.model}"
            lines.append(f"  {place}. {where}: {kind}{tier}, {found.share:.0%} left{busy}")
        lines += [f"  -  {rejection}" for rejection in self.rejections]
        return "\n".join(lines)


@frozen_value
class LimitStatus:
    """One bucket. `name`: allowance, spend, rpm ...; amounts in `unit`; `resets_at`: epoch seconds when some frees, or None.

    `amount`: what counts; `configured`: what was set, None where nothing was learned; `learned`: what the provider said or
    showed, in which header or answer, and when. `leave`: how much more there is, left to the owner's other programs.
    """

    name: str
    amount: float
    unit: str
    window: str
    used: float
    remaining: float
    resets_at: float | None
    configured: float | None = None
    learned: tuple[Fact, ...] = ()
    leave: float = 0.0

    @property
    def full(self) -> bool:
        """Whether nothing is left of it, so that the next call waits or goes elsewhere."""
        return self.remaining <= 0

    @property
    def counts(self) -> str:
        """What it counts, in words: "requests per 5h", "calls at once"."""
        return "calls at once" if UNITS[self.unit].held else f"{self.unit.replace('_', ' ')} per {self.window}"


@frozen_value
class AccountStatus:
    """One account. `breaker`: closed, open or half_open; `spend_today` in dollars; `resets_at` as in `LimitStatus`.

    `used`, `remaining` and `resets_at` are those of the free allowance, None where there is none. `as_of`: epoch seconds of the
    look; `zone`: where its days begin.
    """

    provider: str
    account_id: str
    limits: tuple[LimitStatus, ...]
    holds: tuple[Hold, ...]
    breaker: str
    in_flight: int
    spend_today: float
    as_of: float = 0.0
    zone: str = ""

    @property
    def used(self) -> float | None:
        """Used of the free allowance today."""
        return self._allowance.used if self._allowance else None

    @property
    def remaining(self) -> float | None:
        """Left of the free allowance today."""
        return self._allowance.remaining if self._allowance else None

    @property
    def resets_at(self) -> float | None:
        """Epoch seconds when the free allowance comes back, None if nothing of it is used."""
        return self._allowance.resets_at if self._allowance else None

    @property
    def _allowance(self) -> LimitStatus | None:
        return next((limit for limit in self.limits if limit.name == "allowance"), None)

    def __str__(self) -> str:
        state = f"breaker {self.breaker}, {self.in_flight} in flight, ${self.spend_today:.4f} today"
        lines = [f"{self.provider}/{self.account_id}: {state}"]
        for limit in self.limits:
            used, amount = _said(limit.used, limit.unit), _said(limit.amount, limit.unit)
            left = f", {_said(limit.leave, limit.unit)} left to others" if limit.leave else ""
            words = f" ({learned})" if (learned := learned_in_words(limit)) else ""
            line = f"  {limit.name}: {used} of {amount} {limit.counts}{left}{words}"
            if limit.full and limit.resets_at is not None:
                zone = self.zone if limit.window in ("day", "week", "month") else ""
                line += f"; full, waits until some frees {moment_in_words(limit.resets_at, self.as_of, zone)}"
            lines.append(line)
        for hold in self.holds:
            model = hold.key.partition("|")[2]
            which = f", for {model} alone" if model else ""
            lines.append(f"  held until {utc_in_words(hold.until)}: {hold.reason}{which}")
        return "\n".join(lines)


def learned_in_words(limit: LimitStatus) -> str:
    """What was configured and what was learned of a limit; "" where nothing was."""
    if not limit.learned:
        return ""
    words = {"limit": "provider says", "ceiling": "refused, now at", "remaining": "remained by its count"}
    said = [
        f"{words.get(fact.kind, fact.kind)} {_said(fact.amount, limit.unit)} ({fact.source}, {_moment(fact.at)})"
        for fact in limit.learned
    ]
    configured = limit.amount if limit.configured is None else limit.configured
    return f"configured {_said(configured, limit.unit)}, {', '.join(said)}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _said(amount: float, unit: str) -> str:
    return f"{amount:.{6 if unit == 'dollars' else 2}f}".rstrip("0").rstrip(".")


def failures_in_words(count: int) -> str:
    """What it means that the quota store failed so often."""
    return f"the quota store failed {count} times: what is counted may be less than what was used"


class RouterStatus(FrozenDict[str, AccountStatus]):
    """The state of every account, by id. `degraded`: how often the quota store failed since the router was made.

    With `on_store_error = "ignore"` the counts of those moments are in this process's memory alone. `notices`: models and keys
    that providers refused since.
    """

    __slots__ = ("degraded", "notices")

    def __init__(self, accounts: Mapping[str, AccountStatus], degraded: int = 0, notices: Sequence[str] = ()) -> None:
        super().__init__(accounts)
        self.degraded = degraded
        self.notices = tuple(notices)

    def __reduce__(self) -> tuple[Any, ...]:
        return RouterStatus, (dict(self), self.degraded, self.notices)

    def __str__(self) -> str:
        lines = [str(account) for account in self.values()]
        if self.degraded:
            lines.append(failures_in_words(self.degraded))
        return "\n".join([*lines, *self.notices])


def router_status(
    table: RouteTable, ledger: GuardedStore, health: Health, now: Instant, notices: Sequence[str] = ()
) -> RouterStatus:
    """What `Router.status` shows. Raises `QuotaStoreError`."""
    keys = {bound.account.id: table.keys_of(bound) for bound in table.bound_accounts}
    wanted = tuple(dict.fromkeys(key for owned in keys.values() for key in owned))
    headrooms = {headroom.key: headroom for headroom in ledger.headroom(wanted, now.wall)}
    holds = ledger.holds(now.wall)
    learned = ledger.learned()
    accounts = {
        bound.account.id: _state(
            table, bound, table.own_headrooms(headrooms[key] for key in keys[bound.account.id]), holds, learned, health, now
        )
        for bound in table.bound_accounts
    }
    told: Sequence[str] = getattr(ledger.store, "warnings", ())  # of its server: a clock that differs, counts that were lost
    return RouterStatus(accounts, ledger.degraded, (*notices, *told))


def _state(
    table: RouteTable,
    bound: BoundAccount,
    headrooms: list[Headroom],
    holds: Mapping[str, Hold],
    learned: Mapping[str, Learned],
    health: Health,
    now: Instant,
) -> AccountStatus:
    account = bound.account
    left = table.left_to_others(bound)
    limits = tuple(_limit_status(each, bound.scope, learned.get(each.key), left.get(each.key, 0.0)) for each in headrooms)
    owners = bound.hold_owners
    own = tuple(
        Hold(bound.shown_key(key), hold.until, hold.reason) for key, hold in holds.items() if key.partition("|")[0] in owners
    )
    out = health.outages.wait(bound.server, now.mono)
    if out > 0:
        own = (*own, Hold(f"provider:{account.provider}", now.wall + out, PROVIDER_OUT))
    breaker, _, in_flight = health.peek(account.id, now.mono)
    spent = sum(limit.used for limit in limits if limit.name == "spend")
    shown = tuple(limit for limit in limits if limit.amount != UNLIMITED)
    zone = "" if account.reset == "rolling" else account.reset
    return AccountStatus(account.provider, account.id, shown, own, breaker.value, in_flight, spent, now.wall, zone)


def _limit_status(headroom: Headroom, scope: str, learned: Learned | None, leave: float) -> LimitStatus:
    limit = headroom.limit
    name = headroom.key.removeprefix(scope).lstrip("|/")
    resets_at = None if UNITS[limit.unit].held else headroom.resets_at  # no clock says when a call ends
    facts = (name, limit.amount, limit.unit, limit.window, headroom.used, headroom.remaining, resets_at)
    configured, said = (None, ()) if learned is None else (learned.configured, learned.facts)
    return LimitStatus(*facts, configured, said, leave)
