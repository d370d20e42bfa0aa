"""Makes one call wait for its turn, between its looks for a slot, and counts how long it has waited.

Strategy: a call that may wait has a place in its route's line from the moment it comes. It goes behind those who came before, if
they will be served in the time that it has; and it sleeps until the moment that its last look named, or until something was
given back. Must never decide who serves it, nor whether waiting helps.
"""

from __future__ import annotations

from typing import Any

from .attempt import Operation, Runtime
from .errors import Rejection


class WaitingTurn:
    """How long one call that may wait still does, and where it stands."""

    __slots__ = ("_operation", "_runtime", "_waited", "place")

    def __init__(self, line: str, operation: Operation[Any], runtime: Runtime) -> None:
        self._operation = operation
        self._runtime = runtime
        self._waited = 0.0
        self.place = runtime.lines.place(line, _kind(operation), operation.needs.estimate.total)

    @property
    def left(self) -> float:
        """Seconds it may still wait."""
        return self._operation.max_wait - self._waited

    def wait_for_turn(self) -> None:
        """Wait for those before, in line for the same, unless they will be there for longer than it may wait."""
        place, lines, clock = self.place, self._runtime.lines, self._runtime.clock
        while True:
            leader = lines.leader(place)
            left = min(self.left, self._operation.time_left(clock))
            if leader is None or left <= 0 or (not self._waited and leader.due - clock.monotonic() > left):
                return
            lines.join(place, clock.monotonic() + left)
            if lines.leader(place) is not None:  # else it has gone meanwhile, before it could ring
                self._sleep(left, Rejection("", "", "", "others came before", None, "line"), behind=True)

    def sleep(self, seconds: float, reason: Rejection) -> None:
        """Sleep in line for what `reason` names, or until there is something to look for before."""
        self._runtime.lines.join(self.place, self._runtime.clock.monotonic() + seconds)
        self._sleep(seconds, reason, behind=False)

    def end(self) -> None:
        """The call has ended, or gives up: leave the line."""
        self._runtime.lines.leave(self.place)
        if self._operation.waits is not None:
            self._operation.waits.append(self._waited)

    def _sleep(self, seconds: float, reason: Rejection, behind: bool) -> None:
        clock, trace, place = self._runtime.clock, self._operation.trace, self.place
        began = clock.monotonic()
        if trace is not None:
            trace.waits(seconds, clock.time() + seconds, reason)
        self._runtime.waiting.sleep(seconds, clock, self._operation.cancel, place, behind)
        early = behind or place.rung
        self._waited += max(clock.monotonic() - began, 0.0) if early else seconds
        if trace is not None:
            trace.waited_s = self._waited


def _kind(operation: Operation[Any]) -> tuple[object, ...]:
    """What a call needs beside tokens: calls of one kind are served by the same."""
    needs, request = operation.needs, operation.needs.request
    wishes = (bool(request.tools), request.require) if request is not None else ()
    return (needs.allow_paid, needs.media, *wishes)
