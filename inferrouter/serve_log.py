"""Remembers the calls of an endpoint: those under way, those of the last hour, and sums of today.

Strategy: a `Call` is written by the thread that serves it and read by whoever shows it; the log holds a bounded number of them
and never a word of what was asked or answered. Each change raises a number that viewers wait for. Where the router tells no
`MetricsMeter` of its own, the ends of calls are told to one here. Must never know HTTP or a wire format.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .events import CallEvent, ResultEvent
from .frozen import frozen_value
from .meter import Clock
from .meter_metrics import MetricsMeter
from .moments import DAY, HOUR
from .records import Routing, Usage

if TYPE_CHECKING:
    from .assessment import Candidate
    from .errors import Rejection

KEPT = 2000
"""Calls that are remembered at most."""
KEPT_LINE = 8
"""Accounts that a call remembers of those that stood in line, and of the others."""
KEPT_S = HOUR
"""Seconds for which they are."""
OUTCOMES = {"done": "ok", "left": "abandoned"}


class Call:
    """One call. `state`: waiting (for a slot or an answer), streaming, done, failed or left (the client went away).

    Times are seconds: `began_at` since the epoch, `first_s` until the first content of a stream, `took_s` until the end.
    """

    __slots__ = (
        *("number", "path", "model", "stream", "client", "state", "began_at", "began", "first_s", "took_s", "status"),
        *("routing", "usage", "error", "line", "passed_over"),
    )

    def __init__(self, number: int, path: str, client: str, wall: float, mono: float) -> None:
        self.number = number
        self.path = path
        self.model = ""
        self.stream = False
        self.client = client
        self.state = "waiting"
        self.began_at = wall
        self.began = mono
        self.first_s: float | None = None
        self.took_s: float | None = None
        self.status = 0
        self.routing: Routing | None = None
        self.usage = Usage()
        self.error = ""
        self.line: tuple[Candidate, ...] = ()
        self.passed_over: Sequence[Rejection] = ()

    def lined_up(self, line: Sequence[Candidate], passed_over: Sequence[Rejection]) -> None:
        """Who stood in line when it was last looked for a slot, and who did not: those that are shown."""
        self.line, self.passed_over = tuple(line[:KEPT_LINE]), passed_over  # more are passed over as they are tried

    def shown(self, now: float) -> dict[str, Any]:
        """The call as JSON. `now`: monotonic seconds."""
        routing = self.routing
        return {
            "number": self.number,
            "path": self.path,
            "model": self.model,
            "stream": self.stream,
            "client": self.client,
            "state": self.state,
            "began_at": round(self.began_at, 3),
            "first_s": _rounded(self.first_s),
            "took_s": _rounded(now - self.began if self.took_s is None else self.took_s),
            "status": self.status,
            "account": routing.account_id if routing else None,
            "provider": routing.provider if routing else None,
            "served_by": routing.model if routing else None,
            "attempts": routing.attempts if routing else 0,
            "free": routing.free if routing else None,
            "cost": routing.cost if routing else 0.0,
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "error": self.error,
            **self._choice(),
        }

    def _choice(self) -> dict[str, Any]:
        """Why the one that answered was chosen, who stood behind it, and why each other was passed over."""
        who = (self.routing.account_id, self.routing.model) if self.routing else ()
        place = next((at for at, each in enumerate(self.line) if (each.account_id, each.model) == who), None)
        names = [f"{each.account_id}: {each.reason}" for each in self.line]
        return {
            "why": "" if place is None else self.line[place].reason,
            "ahead": names[: place or 0][:4],
            "behind": names[0 if place is None else place + 1 :][:4],
            "passed_over": [str(each) for each in self.passed_over[:6]],
        }


@frozen_value
class Today:
    """What was served since midnight UTC, or since the endpoint began. `dollars`: what paid calls cost."""

    day: int
    calls: int = 0
    free_input: int = 0
    free_output: int = 0
    paid_input: int = 0
    paid_output: int = 0
    dollars: float = 0.0


class CallLog:
    """The calls of one endpoint. `metrics`: a meter that the router tells already; None: the log tells its own. Thread-safe."""

    def __init__(self, clock: Clock, metrics: MetricsMeter | None = None) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._version = 0
        self._numbers = 0
        self._open: dict[int, Call] = {}
        self._past: deque[Call] = deque(maxlen=KEPT)
        self._today = Today(0)
        self._viewers = 0
        self._told = metrics is not None
        self._metrics = metrics or MetricsMeter()
        self._uncounted: deque[Call] = deque()
        self._counting = threading.Lock()

    def begin(self, path: str, client: str) -> Call:
        """A call that has come."""
        with self._lock:
            self._numbers += 1
            call = Call(self._numbers, path, client, self._clock.time(), self._clock.monotonic())
            self._open[call.number] = call
            self._tell()
        return call

    def routed(self, call: Call, routing: Routing) -> None:
        """An account answers: a stream is open."""
        call.routing = routing
        call.state = "streaming"
        call.first_s = self._clock.monotonic() - call.began
        self.touch()

    def end(self, call: Call, state: str, status: int, error: str = "") -> None:
        """The call is over."""
        call.took_s = self._clock.monotonic() - call.began
        call.state, call.status, call.error = state, status, error
        call.passed_over = call.passed_over[:KEPT_LINE]
        routing = call.routing
        with self._lock:
            self._open.pop(call.number, None)
            self._past.append(call)
            if routing is not None:
                self._add(routing, call.usage)
            self._tell()
        if not self._told:
            self._uncounted.append(call)

    def left(self, call: Call) -> None:
        """The call is over, as its client hung up."""
        self.end(call, "left", 499, "the client hung up")

    def count(self) -> None:
        """Tell the meter of the calls that have ended. For after their answers: a client need not wait for it."""
        with self._counting:
            while self._uncounted:
                self._count(self._uncounted.popleft())

    @property
    def metrics(self) -> MetricsMeter:
        """The meter that counts the calls, all that have ended being counted."""
        self.count()
        return self._metrics

    def touch(self) -> None:
        """Something else has changed: whoever looks is told."""
        with self._lock:
            self._tell()

    def changed(self, since: int, seconds: float) -> int:
        """The number of the latest change, as soon as it is not `since`, or after `seconds`."""
        with self._lock:
            if self._version == since:
                self._viewers += 1
                try:
                    self._changed.wait(seconds)
                finally:
                    self._viewers -= 1
            return self._version

    def under_way(self) -> list[Call]:
        """The calls that are not over, oldest first."""
        with self._lock:
            return list(self._open.values())

    def past(self) -> list[Call]:
        """The calls of the last hour, newest first."""
        since = self._clock.monotonic() - KEPT_S
        with self._lock:
            while self._past and self._past[0].began < since:
                self._past.popleft()
            return list(reversed(self._past))

    def today(self) -> Today:
        """What was served today."""
        with self._lock:
            return self._today if self._today.day == self._day() else Today(self._day())

    def _day(self) -> int:
        return int(self._clock.time() // DAY)

    def _add(self, routing: Routing, usage: Usage) -> None:
        day, so_far = self._day(), self._today
        if so_far.day != day:
            so_far = Today(day)
        free, paid = (usage, Usage()) if routing.free else (Usage(), usage)
        self._today = Today(
            day,
            so_far.calls + 1,
            so_far.free_input + free.prompt_tokens,
            so_far.free_output + free.completion_tokens,
            so_far.paid_input + paid.prompt_tokens,
            so_far.paid_output + paid.completion_tokens,
            so_far.dollars + routing.cost,
        )

    def _count(self, call: Call) -> None:
        routing, took = call.routing, call.took_s or 0.0
        kind, attempts = ("embeddings" if call.path == "/embeddings" else "chat"), routing.attempts if routing else 0
        outcome = OUTCOMES.get(call.state, "refused" if call.status == 429 else "failed")
        self._metrics.on_call(CallEvent("", call.model, kind, call.stream, outcome, attempts, 0.0, took))
        if routing is not None and call.state == "done":
            place = (routing.provider, routing.account_id, routing.model, routing.free)
            first = call.first_s if call.stream else None
            self._metrics.on_result(ResultEvent(*place, True, took, call.usage, routing.cost, first_chunk_s=first))

    def _tell(self) -> None:
        self._version += 1
        if self._viewers:
            self._changed.notify_all()


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)
