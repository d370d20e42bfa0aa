"""Keeps count of a long job: rows, tokens, dollars, speed, what is waited for, and when it will be done.

Strategy: counting is cheap and done at every row; the end is foretold from what the accounts will carry and from this job's own
averages, not from the last minute's speed, and anew only as often as it costs next to nothing. Whoever shows it gets a frozen
`Progress`. Must never print, nor know files.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any

from .capacity import FinishTime
from .errors import InferRouterError
from .frozen import EMPTY, FrozenDict, field, frozen_value
from .map_serving import Served
from .meter import Clock
from .records import Usage

RECENT = 200
"""How many of the last rows the speed that is shown is taken from."""
FORETELL_SHARE = 50.0
"""The end is foretold anew after this many times the seconds that it took the last time, and not before `FORETELL_S`."""
FORETELL_S = 10.0
SHOWN_ERRORS = 3


@frozen_value
class Progress:
    """How far a job is. Rows: `total`, of which `done` and `failed` are in the output, `before` of them when it began; `left`.

    `tokens`, `cost` (dollars), `free` and `paid` (rows): of this run. `per_minute`: rows, lately. `waiting_until`: epoch seconds
    when a slot comes, if nothing is in flight for want of one, and `waiting_for`: at which "provider/account model". `eta`: epoch
    seconds, None if not known; `today`: rows that will be done within a day. `stopped`: as in `MapRun`. `ended`: the last one.
    """

    total: int
    done: int
    failed: int
    before: int
    left: int
    in_flight: int
    tokens: int
    cost: float
    free: int
    paid: int
    per_minute: float
    began: float
    now: float
    waiting_until: float | None = None
    eta: float | None = None
    today: int | None = None
    waiting_for: str = ""
    stopped: str = ""
    ended: bool = False


@frozen_value
class BatchSummary:
    """How a run ended. Rows: `total` in the input, `done` and `failed` in the output, `asked` in this run, `copied` from equal
    ones, `left` for the next run. `stopped`: "", "spent", "until", "max_spend" or "stopped"; `retry_at`: epoch seconds when to
    come back. `errors`: the commonest, as (text, rows, an example's custom_id). `accounts`: rows by "provider/account model".
    """

    total: int
    done: int
    failed: int
    asked: int
    copied: int
    left: int
    tokens: int
    cost: float
    seconds: float
    stopped: str = ""
    retry_at: float | None = None
    errors: tuple[tuple[str, int, str], ...] = ()
    accounts: Mapping[str, int] = field(default=EMPTY)
    mended: bool = False


class Tracker:
    """Counts one run. `foretell(rows, usage, per_second)` says when that many more rows will be done. Used by one thread."""

    def __init__(
        self, clock: Clock, total: int, done: int, failed: int, foretell: Callable[[int, Usage, float], FinishTime] | None
    ) -> None:
        self._clock = clock
        self._foretell = foretell
        self._began = clock.time()
        self._recent: deque[float] = deque([self._began], maxlen=RECENT)
        self._foretold: FinishTime | None = None
        self._foretold_at = -1e18
        self._foretold_took = 0.0
        self._prompt = self._completion = 0
        self._errors: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._accounts: Counter[tuple[str, str, str]] = Counter()
        self.total, self.done, self.failed, self.before = total, done, failed, done + failed
        self.asked = self.answered = self.copied = self.free = self.paid = 0
        self.cost = 0.0

    @property
    def left(self) -> int:
        """Rows that are not in the output."""
        return max(0, self.total - self.done - self.failed)

    def served(self, served: Served, custom_id: str) -> None:
        """A row was asked and is written."""
        self.asked += 1
        self._recent.append(served.at)
        if served.error is not None:
            self.failed += 1
            self._note_error(served.error, custom_id)
            return
        self.done += 1
        self.answered += 1
        answer = served.response
        where, usage = answer.routing, answer.usage
        self._prompt += usage.prompt_tokens
        self._completion += usage.completion_tokens
        self.cost += where.cost
        if where.free:
            self.free += 1
        else:
            self.paid += 1
        self._accounts[where.provider, where.account_id, where.model] += 1

    def copy(self, failed: bool) -> None:
        """A row was filled from an equal one."""
        self.copied += 1
        self.failed += failed
        self.done += not failed

    def progress(self, in_flight: int, next_look: tuple[float, str] | None, stopped: str = "", ended: bool = False) -> Progress:
        """The state of this moment. `next_look`: when the first row that waits looks again, and for whom it waits."""
        now = self._clock.time()
        per_minute = self._per_second(now) * 60.0
        foretold = None if ended else self._when_done(now)
        waiting_until, waiting_for = next_look or (None, "")
        return Progress(
            self.total,
            self.done,
            self.failed,
            self.before,
            self.left,
            in_flight,
            self._prompt + self._completion,
            self.cost,
            self.free,
            self.paid,
            per_minute,
            self._began,
            now,
            waiting_until,
            foretold.at if foretold else None,
            foretold.in_a_day if foretold else None,
            waiting_for,
            stopped,
            ended,
        )

    def summary(self, stopped: str, retry_at: float | None, mended: bool) -> BatchSummary:
        """How it ended."""
        errors = tuple((text, count, self._examples[text]) for text, count in self._errors.most_common(SHOWN_ERRORS))
        return BatchSummary(
            self.total,
            self.done,
            self.failed,
            self.asked,
            self.copied,
            self.left,
            self._prompt + self._completion,
            self.cost,
            self._clock.time() - self._began,
            stopped,
            retry_at,
            errors,
            FrozenDict({f"{place}/{account} {model}": rows for (place, account, model), rows in self._accounts.most_common()}),
            mended,
        )

    def _note_error(self, error: InferRouterError, custom_id: str) -> None:
        last: Any = getattr(error, "attempts", None)
        shown = last[-1].error if last else error
        text = f"{type(shown).__name__}: {str(getattr(shown, 'message', '') or shown)[:120]}"
        if text not in self._examples and len(self._examples) >= 1000:  # messages may all differ
            text = type(shown).__name__
        self._errors[text] += 1
        self._examples.setdefault(text, custom_id)

    def _per_second(self, now: float) -> float:
        passed = now - self._recent[0]
        return (len(self._recent) - 1) / passed if passed > 0 and len(self._recent) > 1 else 0.0

    def _when_done(self, now: float) -> FinishTime | None:
        if self._foretell is None or not self.left or not self.answered:
            return self._foretold if self.left else None
        pause = max(FORETELL_S, FORETELL_SHARE * self._foretold_took)
        if now - self._foretold_at < pause:
            return self._foretold
        count = self.answered
        usage = Usage(self._prompt // count, self._completion // count, (self._prompt + self._completion) // count)
        began = self._clock.monotonic()
        try:
            self._foretold = self._foretell(self.left, usage, self._own_speed())
        except InferRouterError:
            self._foretold = None
        self._foretold_took = self._clock.monotonic() - began
        self._foretold_at = now
        return self._foretold

    def _own_speed(self) -> float:
        """Rows a second that the workers do where no limit holds them: the fastest stretch seen among the last rows."""
        moments = list(self._recent)
        stretch = max(2, min(20, len(moments) - 1))
        spans = [late - early for early, late in zip(moments, moments[stretch:], strict=False)]
        fastest = min((span for span in spans if span > 0), default=0.0)
        return stretch / fastest if fastest else float("inf")
