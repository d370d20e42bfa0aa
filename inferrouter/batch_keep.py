"""Writes each result of a job as it comes, called by the threads that have them; and says when the job has cost too much.

Strategy: a result is made a line by the thread that has it, and whoever comes to the file first writes what the others have ready
too. Where rows come fast, a few lines are put off until they are worth a write, or until somebody asks for it. Must never know
a prompt, nor who serves a row.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from .batch_answer import batch_line, outcome_of
from .batch_output import Output
from .errors import BatchError
from .map_serving import Served
from .meter import Clock

CHECK_S = 0.05
"""Seconds after which it is looked at again whether the output still is where it was."""


class Keeper:
    """What a job does with its results: see `Keeps`. `fsync`: nothing is put off.

    `max_spend`: dollars, None: no end; `spent`: called once a run has cost that much, when those that are in flight, whose number
    `in_flight` says, are counted in.
    """

    def __init__(
        self, output: Output, schema: Mapping[str, Any] | None, clock: Clock, fsync: bool, max_spend: float | None = None
    ) -> None:
        self._output = output
        self._schema = schema
        self._clock = clock
        self._openai = output.shape == "openai"
        self._most = 0 if fsync else None
        self._max_spend = max_spend
        self._lines: list[bytes] = []
        self._writing = threading.Lock()
        self._over: BaseException | None = None
        self._looked = -1e18
        self._cost, self._answered = 0.0, 0
        self.in_flight: Callable[[], int] = lambda: 0
        self.spent: Callable[[], object] = lambda: None

    def keep(self, served: Served, spare: int) -> None:
        """Write it, at the latest with as many others as `spare`. Raises `BatchError`, for whatever thread wrote in vain."""
        custom_id, columns = served.row.item
        if self._openai:
            line = batch_line(served, custom_id, columns)
        else:
            line = self._output.line(outcome_of(served, custom_id, columns, self._schema))
        self._lines.append(line)
        if len(self._lines) > (spare if self._most is None else self._most):
            self.flush()
        if self._max_spend is not None and served.response is not None:
            self._count(served.response.routing.cost, self._max_spend)

    def flush(self) -> None:
        """Write whatever is ready. Raises as `keep`."""
        with self._writing:
            if self._over is not None:  # what this thread had ready may have been in a write that failed
                raise self._over
            if self._lines:
                self._write()

    def end(self) -> None:
        """Nothing is written any more once this returns, as the file is closed next: whoever is left behind is told so."""
        with self._writing:
            if self._over is None:
                try:
                    if self._lines:
                        self._write()
                finally:
                    self._over = self._over or BatchError("the run is over")

    def _write(self) -> None:
        try:
            now = self._clock.monotonic()
            if not 0 < now - self._looked < CHECK_S:  # no time passes on a clock that is simulated
                self._output.check()
                self._looked = now
            ready = self._lines[:]
            self._output.write(b"".join(ready))
            del self._lines[: len(ready)]  # others have come behind them meanwhile
        except BaseException as exc:
            self._over = exc
            raise

    def _count(self, cost: float, most: float) -> None:
        with self._writing:
            self._cost += cost
            self._answered += 1
            over = self._cost and self._cost * (1 + self.in_flight() / self._answered) >= most
        if over:
            self.spent()
