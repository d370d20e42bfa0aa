"""Shows what is left: every account's limits as bars, when they come back, and what rests (`status`).

Strategy: the router's own `status()`, printed for people in local time or as JSON in UTC; with `--watch` repeatedly on a
cleared terminal. Must never show a key, nor change anything.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .cli_common import DONE, Console, add_config, add_json, found_config, loaded, one_line, open_router
from .config_file import names_a_store
from .moments import moment_in_words
from .status import AccountStatus, LimitStatus, RouterStatus, failures_in_words, learned_in_words

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

HOME, CLEAR_BELOW = "\x1b[H", "\x1b[J"


def add_status(parser: ArgumentParser) -> None:
    """What `status` takes."""
    parser.add_argument("--all", action="store_true", help="also the limits of models of which nothing is used")
    parser.add_argument("--watch", type=float, nargs="?", const=2.0, metavar="S", help="show it again every S seconds; default 2")
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=status)


def status(options: Namespace, console: Console) -> int:
    """Limits, use and holds of every account."""
    with open_router(options, allow_paid=True) as router:
        if options.watch and console.out.terminal and not options.json:
            console.out.piece("\x1b[2J", raw=True)
            while True:
                console.out.piece(HOME, raw=True)
                show_status(router.status(), console, time.time(), options.all)
                console.out.piece(CLEAR_BELOW, raw=True)
                time.sleep(max(0.2, options.watch))
        found = router.status()
    if options.json:
        console.data({account_id: account_facts(each) for account_id, each in found.items()})
        return DONE
    show_status(found, console, time.time(), options.all)
    path = found_config(options.config)
    if path is None:
        console.err.line("(from the keys of the environment)", "dim")
    elif names_a_store(path) and loaded(path)[0].quota.store == "memory":
        console.err.line('(these counts begin with each program; [quota] store = "sqlite" keeps them)', "dim")
    return DONE


def show_status(found: RouterStatus, console: Console, now: float, everything: bool = True) -> None:
    """Print accounts with a bar for each limit: what is left of it. `everything`: those of unused models too."""
    out = console.out
    columns = 20 if out.width >= 72 else 10
    for account in found.values():
        breaker = "" if account.breaker == "closed" else f", breaker {account.breaker}"
        busy = f", {account.in_flight} in flight" if account.in_flight else ""
        spent = f", ${account.spend_today:.4f} spent today" if account.spend_today else ""
        out.line(f"{account.provider}/{account.account_id}{breaker}{busy}{spent}", "bold")
        shown = [limit for limit in account.limits if everything or limit.used or "/" not in limit.name]
        rows = [_row(limit, now) for limit in shown]
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)] if rows else []
        for limit, (name, left, back) in zip(shown, rows, strict=True):
            share = limit.remaining / limit.amount if limit.amount else 0.0
            out.piece(f"  {name.ljust(widths[0])}  ")
            out.piece(out.bar(share, columns), "green" if share > 0.25 else "yellow" if share > 0 else "red")
            out.line(f"  {left.ljust(widths[1])}  {back}".rstrip())
            words = learned_in_words(limit)
            if words:
                out.line(f"    {one_line(words)}", "dim")
        hidden = len({limit.name.rpartition("/")[0] for limit in account.limits if limit not in shown})
        if hidden:
            out.line(f"  {hidden} models of which nothing is used; --all shows them", "dim")
        elif not rows:
            out.line("  no limits are known", "dim")
        for hold in account.holds:
            what = hold.key.partition("|")[2]
            of = f" ({what})" if what else ""
            out.line(f"  held{of} free {moment_in_words(hold.until, now)}: {one_line(hold.reason)}", "yellow")
    if found.degraded:
        out.line(failures_in_words(found.degraded), "red")


def account_facts(account: AccountStatus) -> dict[str, Any]:
    """An account's state as plain data; times as ISO 8601 in UTC."""
    facts = ("provider", "breaker", "in_flight", "spend_today")
    return {
        **{name: getattr(account, name) for name in facts},
        "limits": [_limit_facts(limit) for limit in account.limits],
        "holds": [{"key": hold.key, "until": _utc(hold.until), "reason": hold.reason} for hold in account.holds],
    }


def _limit_facts(limit: LimitStatus) -> dict[str, Any]:
    names = ("name", "amount", "unit", "window", "used", "remaining", "leave")
    learned = [{"kind": fact.kind, "amount": fact.amount, "source": fact.source, "at": _utc(fact.at)} for fact in limit.learned]
    facts = {name: getattr(limit, name) for name in names} | {"resets_at": _utc(limit.resets_at)}
    return {**facts, "configured": limit.configured, "learned": learned} if learned else facts


def _row(limit: LimitStatus, now: float) -> tuple[str, str, str]:
    left = _amount(limit.remaining, limit.unit)
    used = f"{_amount(limit.used, limit.unit)} of {_amount(limit.amount, limit.unit)} {limit.counts}"
    if limit.leave:
        used += f", {_amount(limit.leave, limit.unit)} left to others"
    back = "" if limit.resets_at is None or limit.used <= 0 else f"more {moment_in_words(limit.resets_at, now)}"
    return limit.name, f"{left} left, {used}", back


def _amount(amount: float, unit: str) -> str:
    return f"{amount:,.4f}".rstrip("0").rstrip(".") if unit == "dollars" else f"{amount:,.0f}"


def _utc(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
