"""Tells an observer what the router does: an event before each attempt and one after it; and defines the router's clock.

Strategy: frozen events, a two-method protocol, and one implementation on the stdlib's logging. A meter that raises never breaks a
call; whoever calls it sees to that. A clock is wall time, monotonic time and sleep in one object that is handed down, so that
tests and simulations bring their own. Must never hold a key or a message's text.
"""

from __future__ import annotations

import time as stdlib_time
from typing import TYPE_CHECKING, Protocol

from .errors import InferRouterError
from .frozen import frozen_value
from .records import Usage

if TYPE_CHECKING:
    import logging


@frozen_value
class RouteEvent:
    """An attempt is about to be made. `attempt` counts from 1 within the call."""

    provider: str
    account_id: str
    model: str
    free: bool
    attempt: int
    estimated_tokens: int


@frozen_value
class ResultEvent:
    """An attempt has ended. `duration` in seconds, `cost` in dollars; `error` is None on success."""

    provider: str
    account_id: str
    model: str
    free: bool
    success: bool
    duration: float
    usage: Usage
    cost: float
    error: InferRouterError | None = None


class Meter(Protocol):
    """Gets every event, in the thread of the call."""

    def on_route(self, event: RouteEvent) -> None:
        """Before an attempt."""
        ...

    def on_result(self, event: ResultEvent) -> None:
        """After an attempt."""
        ...


class NoopMeter:
    """Ignores every event."""

    def on_route(self, event: RouteEvent) -> None:
        """Nothing."""

    def on_result(self, event: ResultEvent) -> None:
        """Nothing."""


class LogMeter:
    """Writes events to a `logging.Logger`: routes at DEBUG, successes at INFO, failures at WARNING.

    `logger`: None is the one of this package's name, which is another where the folder was copied under another name.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        import logging

        self._logger = logger or logging.getLogger(__name__.rpartition(".")[0])

    def on_route(self, event: RouteEvent) -> None:
        """One line at DEBUG."""
        self._logger.debug(
            "attempt %d: %s/%s %s (%s), about %d tokens",
            event.attempt,
            event.provider,
            event.account_id,
            event.model,
            "free" if event.free else "paid",
            event.estimated_tokens,
        )

    def on_notice(self, text: str) -> None:
        """One line at WARNING, said once in a router's life: a model or a key that a provider refuses."""
        self._logger.warning("%s", text)

    def on_result(self, event: ResultEvent) -> None:
        """One line at INFO or WARNING."""
        if event.success:
            self._logger.info(
                "%s/%s %s answered in %.3f s: %d tokens, %s, $%.6f",
                event.provider,
                event.account_id,
                event.model,
                event.duration,
                event.usage.total_tokens,
                "free" if event.free else "paid",
                event.cost,
            )
        else:
            self._logger.warning(
                "%s/%s %s failed after %.3f s: %s", event.provider, event.account_id, event.model, event.duration, event.error
            )


class Clock(Protocol):
    """`time()`: epoch seconds; `monotonic()`: seconds; `sleep(seconds)`."""

    def time(self) -> float:
        """Epoch seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own."""

    time = staticmethod(stdlib_time.time)
    monotonic = staticmethod(stdlib_time.monotonic)
    sleep = staticmethod(stdlib_time.sleep)
