"""Shows a long job to a person: a bar on a terminal, plain lines in a pipe, events as JSON; and what came of it.

Strategy: each display is called with a `Progress` and decides by itself how often it shows one. It writes to stderr, since the
results are in the job's file and stdout may be piped on. Must never know how a job runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from .batch_progress import BatchSummary, Progress
from .moments import clock_in_words, moment_in_words, span_in_words
from .terminal import Screen

LINE_S = 30.0
"""Seconds between two lines in a pipe."""
BAR_S = 0.2


def display(screen: Screen, events: bool) -> Callable[[Progress], None]:
    """What shows progress on `screen`; `events`: one JSON object a line, for programs."""
    if events:
        return Events(screen)
    return Bar(screen) if screen.terminal else Lines(screen)


class Bar:
    """One line of a terminal, written over."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown_at = -1e18

    def __call__(self, state: Progress) -> None:
        """Show `state`, at most five times a second."""
        if state.ended:
            self._screen.passing("")
            return
        if state.now - self._shown_at < BAR_S:
            return
        self._shown_at = state.now
        screen = self._screen
        wide = screen.width >= 100
        share = (state.done + state.failed) / state.total if state.total else 1.0
        words = [f"{state.done + state.failed:,}/{state.total:,}", *_facts(state, short=not wide)]
        screen.passing(f"{screen.bar(share, 20 if wide else 8)} {share:.0%} {', '.join(words)}")


class Lines:
    """A whole line every 30 seconds, and whenever the job begins to wait or goes on."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown_at = -1e18
        self._waited = False

    def __call__(self, state: Progress) -> None:
        """Show `state` if it is time, or if something has changed."""
        waits = state.waiting_until is not None and state.waiting_until - state.now > LINE_S
        if state.ended or (state.now - self._shown_at < LINE_S and waits == self._waited):
            return
        self._shown_at, self._waited = state.now, waits
        done = state.done + state.failed
        words = [f"{done:,} of {state.total:,} rows", *_facts(state, short=False)]
        self._screen.line(f"{clock_in_words(state.now // 60 * 60)}: {', '.join(words)}")


class Events:
    """Every state as a JSON object, at most one a second; the last has `"ended": true`."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._shown_at = -1e18

    def __call__(self, state: Progress) -> None:
        """Write `state`."""
        if not state.ended and state.now - self._shown_at < 1.0:
            return
        self._shown_at = state.now
        facts = {field.name: getattr(state, field.name) for field in fields(state)}
        self._screen.line(json.dumps({"event": "progress", **facts}))


def summary_facts(summary: BatchSummary) -> dict[str, Any]:
    """A summary as plain data."""
    plain = ("total", "done", "failed", "asked", "copied", "left", "tokens", "cost", "seconds", "stopped", "retry_at", "mended")
    return {
        "event": "summary",
        **{name: getattr(summary, name) for name in plain},
        "errors": [{"error": text, "rows": rows, "example": example} for text, rows, example in summary.errors],
        "accounts": dict(summary.accounts),
    }


def show_summary(screen: Screen, summary: BatchSummary, output: str, now: float) -> None:
    """What came of a run, in a few lines."""
    screen.passing("")
    failed = f", {summary.failed:,} failed" if summary.failed else ""
    left = f", {summary.left:,} left" if summary.left else ""
    screen.line(f"{output}: {summary.done:,} of {summary.total:,} rows done{failed}{left}", "bold")
    if summary.mended:
        screen.line("  removed an incomplete record at its end, left by a run that was cut short")
    if summary.asked:
        copied = f", {summary.copied:,} copied from equal rows" if summary.copied else ""
        cost = f"${summary.cost:.4f}" if summary.cost else "free"
        took = span_in_words(summary.seconds)
        screen.line(f"  {summary.asked:,} asked in {took}{copied}; {summary.tokens:,} tokens, {cost}", "dim")
    for account, rows in list(summary.accounts.items())[:10]:
        screen.line(f"  {rows:>8,}  {account}", "dim")
    for text, rows, example in summary.errors:
        screen.line(f"  {rows:,} x {text} (such as {example})", "yellow")
    if summary.stopped:
        screen.line(f"  {_WHY.get(summary.stopped, summary.stopped)}; run the same command again to go on", "yellow")
        if summary.retry_at is not None:
            screen.line(f"  the next slot is free {moment_in_words(summary.retry_at, now)}", "yellow")
    elif summary.failed:
        screen.line("  --retry-failed asks the failed rows again", "yellow")


_WHY = {
    "spent": "stopped: the free capacity is spent for now",
    "until": "stopped at the time that was set",
    "max_spend": "stopped at the spending limit that was set",
    "stopped": "stopped by hand",
}


def _facts(state: Progress, short: bool) -> list[str]:
    """What is worth saying besides the rows, the weightiest first, as a narrow terminal cuts the rest."""
    words = []
    if state.failed:
        words.append(f"{state.failed:,} failed")
    if state.waiting_until is not None and state.waiting_until - state.now > 1.0:
        whom = "a slot" if short or not state.waiting_for else state.waiting_for
        words.append(f"waits for {whom} {moment_in_words(state.waiting_until, state.now)}")
    elif state.per_minute:
        words.append(f"{state.per_minute:,.0f}/min")
    if state.left and state.eta is not None:
        more = "" if short or state.today is None or state.today >= state.left else f"{state.today:,} more within a day, "
        words.append(f"{more}done {_when(state.eta, state.now)}")
    words.append(f"{state.tokens:,} tokens")
    words.append(f"${state.cost:.4f}, {state.paid:,} paid" if state.paid else "free")
    return words


def _when(at: float, now: float) -> str:
    """A moment as people say it: the hour today, with the weekday within a week, else the date; in this machine's zone."""
    if at - now < 90.0:
        return moment_in_words(at, now)
    from datetime import UTC, datetime

    local, today = (datetime.fromtimestamp(each, UTC).astimezone() for each in (at, now))
    days = (local.date() - today.date()).days
    return local.strftime("%H:%M" if days == 0 else "%A %H:%M" if days < 7 else "%Y-%m-%d %H:%M")
