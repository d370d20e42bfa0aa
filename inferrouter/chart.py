"""Draws a capacity: a table and bars for a terminal, or one picture as SVG, by itself or in a page.

Strategy: plain text and plain SVG, no script and no foreign font; hours become days where they would not fit. Whatever comes
from a configuration is escaped. Must never know how a capacity is worked out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from .capacity import Capacity
from .moments import clock_in_words
from .terminal import Screen

MOST_BARS = 48
WIDTH, HEIGHT, MARGIN = 960, 320, 48
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0")


def show_capacity(screen: Screen, found: Capacity) -> None:
    """The accounts as a table, then their hours or days as bars."""
    rows = [("account", "model", "requests", "")]
    for each in found.accounts:
        carries = "no known limit" if each.unlimited else f"{each.requests:,}"
        notes = ["paid"] if not each.free else []
        if each.held_until is not None:
            notes.append("its key was refused" if each.held_until == float("inf") else f"held to {_local(each.held_until)}")
        rows.append((f"{each.provider}/{each.account_id}", each.model or "any", carries, ", ".join(notes)))
    screen.table(rows)
    if found.accounts and all(each.unlimited for each in found.accounts):
        screen.line(
            "  no limit is known, so nobody can say how many: state limits in the configuration, as in { rpm = 60 }", "bold"
        )
        return
    besides = f", and what {', '.join(found.unlimited)} may carry without a known limit" if found.unlimited else ""
    screen.line(f"  {found.requests:,} requests of {found.tokens:,} tokens up to {_local(found.end)}{besides}", "bold")
    screen.line()
    bars = _bars(found)
    most = max((requests for _, requests in bars), default=0)
    labels = [label for label, _ in bars]
    width = max(map(len, labels), default=0)
    room = max(10, screen.width - width - 14)
    for label, requests in bars:
        bar = screen.bar(1.0, max(1, round(requests / most * room))) if requests else ""
        screen.piece(f"  {label.ljust(width)}  ")
        screen.piece(bar, "green")
        screen.line(f" {requests:,}" if requests else "-")


def svg(found: Capacity, title: str = "Requests that the accounts will carry, by the hour") -> str:
    """One stacked bar an hour, a colour for each account."""
    shown = [account for account in found.accounts if not account.unlimited and account.requests]
    hours = [begin for begin, _ in found.hours]
    most = max((sum(account.hours[at] for account in shown) for at in range(len(hours))), default=0) or 1
    step = (WIDTH - 2 * MARGIN) / max(1, len(hours))
    tall = HEIGHT - 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + 20 * len(shown)}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>',
        f'<text x="{MARGIN}" y="20" font-size="15">{escape(title)}</text>',
    ]
    for at, begin in enumerate(hours):
        top = float(HEIGHT - MARGIN)
        for number, account in enumerate(shown):
            high = tall * account.hours[at] / most
            if high:
                top -= high
                parts.append(
                    f'<rect x="{MARGIN + at * step:.2f}" y="{top:.2f}" width="{max(step - 0.6, 0.6):.2f}" height="{high:.2f}" '
                    f'fill="{COLOURS[number % len(COLOURS)]}"><title>{escape(account.account_id)} {escape(account.model)}, '
                    f"{_local(begin)}: {account.hours[at]:,}</title></rect>"
                )
        if at % max(1, len(hours) // 8) == 0:
            parts.append(f'<text x="{MARGIN + at * step:.2f}" y="{HEIGHT - MARGIN + 16}">{_local(begin)}</text>')
    parts.append(f'<text x="4" y="{MARGIN + 4}">{most:,}</text><text x="4" y="{HEIGHT - MARGIN}">0</text>')
    for number, account in enumerate(shown):
        line = HEIGHT + 20 * number
        name = f"{account.provider}/{account.account_id} {account.model}: {account.requests:,}"
        parts.append(
            f'<rect x="{MARGIN}" y="{line - 10}" width="12" height="12" fill="{COLOURS[number % len(COLOURS)]}"/>'
            f'<text x="{MARGIN + 20}" y="{line}">{escape(name)}</text>'
        )
    return "\n".join((*parts, "</svg>\n"))


def page(found: Capacity) -> str:
    """The picture in a page of its own."""
    head = f"{found.requests:,} requests of {found.tokens:,} tokens up to {_local(found.end)}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Capacity</title></head>\n'
        f'<body style="max-width: 1000px; margin: 2em auto; font-family: sans-serif">\n<p>{escape(head)}</p>\n{svg(found)}'
        "</body></html>\n"
    )


def _bars(found: Capacity) -> Sequence[tuple[str, int]]:
    if len(found.hours) <= MOST_BARS:
        return [(_local(begin), requests) for begin, requests in found.hours]
    days: dict[str, int] = {}
    for begin, requests in found.hours:
        day = datetime.fromtimestamp(begin, UTC).astimezone().strftime("%a %Y-%m-%d")
        days[day] = days.get(day, 0) + requests
    return list(days.items())


def _local(moment: float) -> str:
    return clock_in_words(moment)[:16]
