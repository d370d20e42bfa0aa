"""Says what the accounts will carry, hour by hour, and when a number of rows will be done (`plan`).

Strategy: the router's own `capacity` and `finish_time`, printed as a table and bars, as JSON, or drawn into a file.
Nothing is reserved and nobody is asked. Must never show a key.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .account import AccountConfig
from .capacity import LONGEST_DAYS, MOST_ROWS, MOST_TOKENS
from .chart import page, show_capacity, svg
from .cli_common import DONE, FAILED, Console, add_config, add_json, bounded, open_router
from .errors import BatchError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_plan(parser: ArgumentParser) -> None:
    """What `plan` takes."""
    parser.add_argument("--rows", type=bounded(int, 0, MOST_ROWS), metavar="N", help="when this many rows would be done")
    parser.add_argument(
        "--tokens", type=bounded(int, 0, MOST_TOKENS), metavar="T", help="of a row, in and out; default: a short question"
    )
    parser.add_argument(
        "--days", type=bounded(float, 0.01, LONGEST_DAYS), default=1.0, metavar="D", help="how far to look; default 1"
    )
    parser.add_argument("--model", default="", help="an alias, a model, or provider/model; default: all that is configured")
    parser.add_argument("--paid", action="store_true", help="count accounts that cost money too")
    parser.add_argument("--chart", metavar="FILE", help="draw it into FILE, .svg or .html")
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=plan)


def plan(options: Namespace, console: Console) -> int:
    """Show the capacity; 1 if `--rows` will not be done within the time that is looked at, mostly 90 days."""
    with open_router(options, allow_paid=options.paid) as router:
        found = router.capacity(options.days, model=options.model, tokens=options.tokens, paid=options.paid)
        now = router.clock.time()
        done = None
        if options.rows is not None:
            done = router.finish_time(options.rows, model=options.model, tokens=options.tokens, paid=options.paid)
        left_out = [] if options.paid else [account.id for account in router.config.accounts if _costs(account)]
    if options.chart:
        _draw(options.chart, svg(found) if options.chart.endswith(".svg") else page(found))
    if options.json:
        facts = {"rows": options.rows, **done.to_dict()} if done is not None else {}
        console.data({**found.to_dict(), **facts})
    else:
        if found.accounts or not left_out:
            show_capacity(console.out, found)
        if left_out:
            console.out.line(f"  what may cost money is left out ({', '.join(left_out)}): --paid counts it too")
        if done is not None:
            console.out.line(f"\n{options.rows:,} rows: {done.in_words(now)}", "bold")
    return FAILED if done is not None and done.at is None else DONE


def _costs(account: AccountConfig) -> bool:
    """Whether only `--paid` counts it."""
    return account.paid_enabled and not account.daily_free


def _draw(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise BatchError(f"{path!r} cannot be written: {exc.strerror}") from exc
