"""Runs a long job from a file into a file (`batch`), and puts the parts of one together (`merge`).

Strategy: options become a `Batch`, signals become `stop`; progress and summary go to stderr, or as JSON lines to stdout. Exit
codes beside the usual: 3 done, but some rows failed; 75 stopped before the end, and the same command goes on.
Must never show a key, nor do what a program could not do with `Batch`.
"""

from __future__ import annotations

import json
import re
import signal
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from .batch import ON_CHANGE, Batch
from .batch_display import display, show_summary, summary_facts
from .batch_input import KINDS
from .batch_merge import merge as merge_parts
from .batch_output import FORMATS
from .batch_prompt import template_file
from .cli_common import DONE, Console, add_config, add_json, add_paid, open_router
from .costs import estimate_chat
from .errors import ConfigError
from .router import Router

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator
    from types import FrameType

SOME_FAILED, COME_BACK = 3, 75
"""Exit codes; 75 is EX_TEMPFAIL of sysexits.h: try again later."""

CODES = (
    "exit codes: 0 every row is done; 3 every row is in the output, some as errors; 75 stopped before the end (spent, --until, "
    "--max-spend, Ctrl-C once): run the same command again; 1 could not begin or go on; 2 misused; 130 Ctrl-C twice"
)


def add_batch(parser: ArgumentParser) -> None:
    """What `batch` takes."""
    parser.description = "Ask every row of a file or folder. What is in the output is done: the same command again goes on."
    parser.epilog = CODES
    parser.add_argument("input", metavar="IN", help=".jsonl, .csv, .tsv, a text (a line a row), or a folder (a file a row)")
    parser.add_argument("-o", "--out", required=True, metavar="OUT", help="where answers go: .jsonl, or .csv for a table")
    what = parser.add_argument_group("what is asked")
    what.add_argument("-p", "--prompt", metavar="TEXT", help="with {column} in it; @FILE reads it from a file")
    what.add_argument("--system", metavar="TEXT", help="a system text, likewise")
    what.add_argument("--model", default="", help="an alias, a model, or provider/model")
    what.add_argument("--schema", metavar="FILE", help="a JSON schema that answers follow; its properties become columns")
    what.add_argument("--media", action="append", default=[], metavar="COLUMN", help="a column with a file's path or a URL")
    what.add_argument("--max-tokens", type=int, metavar="N", help="tokens of an answer at most")
    what.add_argument("--temperature", type=float, metavar="T")
    what.add_argument("--kind", choices=KINDS, default="", help="of the input, where its name does not say")
    what.add_argument("--format", choices=FORMATS, default="", dest="shape", help="of the output; default by its name")
    how = parser.add_argument_group("how it runs")
    how.add_argument("--workers", type=int, default=8, metavar="N", help="calls in flight at most; default 8")
    how.add_argument("--tries", type=int, default=3, metavar="N", help="how often a provider may fail a row; waits do not count")
    how.add_argument("--timeout", type=float, metavar="S", help="seconds for one answer")
    how.add_argument("--until", metavar="WHEN", help="begin no row later: 18:00, 2h, 90min, or 2026-01-31T18:00")
    how.add_argument("--stop-when-spent", action="store_true", help="stop when no slot comes within five minutes")
    how.add_argument("--max-spend", type=float, metavar="DOLLARS", help="stop once this run has cost that much")
    add_paid(how)
    how.add_argument("--retry-failed", action="store_true", help="ask rows again whose record is an error")
    how.add_argument("--no-dedupe", dest="dedupe", action="store_false", help="ask rows that say the same each by itself")
    how.add_argument("--shard", metavar="I/N", help="take the I-th of N parts, with an output of its own; see merge")
    how.add_argument("--fsync", action="store_true", help="every record on the disk before the next, against power cuts")
    how.add_argument("--changed", choices=ON_CHANGE, default="refuse", help="if the output was begun with other settings")
    how.add_argument("--plan", action="store_true", help="say how many rows and tokens, and when it would be done; ask nothing")
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=batch)


def add_merge(parser: ArgumentParser) -> None:
    """What `merge` takes."""
    parser.add_argument("parts", metavar="PART", nargs="+", help="outputs of batch")
    parser.add_argument("-o", "--out", required=True, metavar="OUT", help="the file to make")
    parser.add_argument("--input", default="", metavar="IN", help="the job's input, whose order the rows then have")
    add_json(parser)
    parser.set_defaults(run=merge)


def batch(options: Namespace, console: Console) -> int:
    """Run the job, or plan it."""
    job = _job(options)
    with open_router(options, allow_paid=options.paid) as router:
        if options.plan:
            return _plan(options, job, router, console)
        screen = console.out if options.json else console.err
        with _stopped_by_signals(job):
            summary = job.run(router, display(screen, options.json))
        now = router.clock.time()
    if options.json:
        console.out.line(json.dumps(summary_facts(summary)))
    else:
        show_summary(console.err, summary, options.out, now)
    if summary.left:
        return COME_BACK
    return SOME_FAILED if summary.failed else DONE


def merge(options: Namespace, console: Console) -> int:
    """Put parts together."""
    found = merge_parts(options.parts, options.out, options.input)
    if options.json:
        console.data(found._asdict())
        return DONE
    twice = f", {found.twice:,} that came twice left out" if found.twice else ""
    missing = f"; {found.missing:,} rows of the input are in no part" if found.missing else ""
    console.err.line(f"{options.out}: {found.rows:,} rows, {found.failed:,} failed{twice}{missing}")
    return DONE


def until_time(text: str, now: float) -> float:
    """Epoch seconds of "18:00" (the next one here), "2h", "90min", "45s", "3d" or an ISO date with time. Raises `ConfigError`."""
    span = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", text.strip())
    if span:
        return now + float(span[1]) * {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}[span[2]]
    try:
        here = datetime.fromtimestamp(now).astimezone()
        if re.fullmatch(r"\d{1,2}:\d\d", text.strip()):
            hour, minute = map(int, text.split(":"))
            found = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return (found if found > here else found + timedelta(days=1)).timestamp()
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=here.tzinfo)).timestamp()
    except ValueError:
        raise ConfigError(f"--until: {text!r} is not a time such as 18:00, 2h, 90min or 2026-01-31T18:00") from None


def _job(options: Namespace) -> Batch:
    from .meter import SystemClock

    settings = {"max_tokens": options.max_tokens, "temperature": options.temperature}
    return Batch(
        options.input,
        options.out,
        prompt=_text(options.prompt),
        system=_text(options.system),
        model=options.model,
        schema=options.schema,
        media=options.media,
        kind=options.kind,
        shape=options.shape,
        settings={name: value for name, value in settings.items() if value is not None},
        workers=options.workers,
        tries=options.tries,
        timeout=options.timeout,
        until=None if options.until is None else until_time(options.until, SystemClock().time()),
        stop_when_spent=options.stop_when_spent,
        max_spend=options.max_spend,
        dedupe=options.dedupe,
        retry_failed=options.retry_failed,
        shard=_shard(options.shard),
        fsync=options.fsync,
        on_change=options.changed,
    )


def _text(given: str | None) -> str | None:
    return template_file(given[1:]) if given and given.startswith("@") else given


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if found is None:
        raise ConfigError(f"--shard: {text!r} is not I/N, such as 1/3")
    return int(found[1]), int(found[2])


def _plan(options: Namespace, job: Batch, router: Router, console: Console) -> int:
    total, left = job.rows()
    sizes = [estimate_chat(request) for request in job.sample()]
    tokens = sum(each.total for each in sizes) // len(sizes) if sizes else None
    done = router.finish_time(left, model=options.model, tokens=tokens, paid=options.paid)
    now = router.clock.time()
    if options.json:
        console.data({"total": total, "left": left, "tokens_per_row": tokens, **done.to_dict()})
        return DONE
    size = f", about {tokens:,} tokens each at most" if tokens else ""
    console.out.line(f"{options.input}: {total:,} rows, {left:,} left{size}")
    console.out.line(f"  {done.in_words(now)}", "bold")
    return DONE


@contextmanager
def _stopped_by_signals(job: Batch) -> Iterator[None]:
    """Ctrl-C or SIGTERM once stops the job in good order; Ctrl-C again ends it at once."""
    before: dict[int, Any] = {}
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped:
            raise KeyboardInterrupt
        stopped = True
        job.stop()

    try:
        for each in (signal.SIGINT, signal.SIGTERM):
            before[each] = signal.signal(each, stop)
    except ValueError:  # not the main thread: whoever called has the signals
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
