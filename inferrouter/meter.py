"""Tells observers what the router does, and defines the router's clock.

Strategy: a meter is any object with some of the hooks; those it lacks are not told. `Listeners` gives each event to every meter
that has its hook; a meter that raises never breaks a call. The meter here writes to the stdlib's logging. A clock is wall time,
monotonic time and sleep in one object that is handed down, so that tests and simulations bring their own. Must never hold a key
or a message's text.
"""

from __future__ import annotations

import time as stdlib_time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import logging

    from .events import CallEvent, HoldEvent, LimitEvent, NoticeEvent, ResultEvent, RouteEvent, WaitEvent

HOOKS = ("on_route", "on_result", "on_call", "on_wait", "on_refusal", "on_hold", "on_limit", "on_notice")
"""What a meter may have: each takes one event, `RouteEvent`, `ResultEvent`, `CallEvent`, `WaitEvent` and so on."""

MOST_HOLDS = 1000
"""Holds whose end is still to be told; when there are more, the ends of the oldest are not told."""


class Meter(Protocol):
    """Gets every event, in the thread of the call.

    These two hooks are what most meters want. The others of `HOOKS` are optional: on_call(CallEvent), on_wait(WaitEvent),
    on_refusal(RefusalEvent), on_hold(HoldEvent), on_limit(LimitEvent),
    on_notice(NoticeEvent). A meter may also have only some of all of them.
    """

    def on_route(self, event: RouteEvent) -> None:
        """Before an attempt."""
        ...

    def on_result(self, event: ResultEvent) -> None:
        """After an attempt."""
        ...


H = TypeVar("H", bound=Callable[..., None])


def does_nothing(hook: H) -> H:
    """Mark a meter's `hook` that is only there because most meters have it: no event need be made for it."""
    vars(hook)["does_nothing"] = True
    return hook


class Listeners:
    """Several meters as one. `tell` never raises; `hears` says whether any meter has a hook that does something."""

    def __init__(self, meters: Iterable[object]) -> None:
        meters = tuple(meters)
        self._by_hook = {hook: tuple(meter for meter in meters if _wants(meter, hook)) for hook in HOOKS}
        self._holds: dict[str, HoldEvent] = {}

    def hears(self, hook: str) -> bool:
        """Whether any meter wants such events, so that others need not be made."""
        return bool(self._by_hook[hook])

    def tell(self, hook: str, event: Any) -> None:
        """Give `event` to every meter that has `hook`. A meter that fails harms nobody but itself."""
        for meter in self._by_hook[hook]:
            try:
                getattr(meter, hook)(event)
            except Exception:  # noqa: S112  there is nobody to tell: the meter is what would have been told
                continue

    def hold_begins(self, event: HoldEvent) -> None:
        """Tell it now, and its end when `end_holds` finds it over."""
        if not self.hears("on_hold"):
            return
        self._holds.pop(event.key, None)
        self._holds[event.key] = event
        for oldest in list(self._holds)[:-MOST_HOLDS]:
            self._holds.pop(oldest, None)
        self.tell("on_hold", event)

    def end_holds(self, now: float) -> None:
        """Tell the end of every hold that was told and is over. `now`: epoch seconds."""
        if not self._holds:
            return
        for event in [event for event in list(self._holds.values()) if event.until <= now]:
            from .events import HoldEvent

            found = self._holds.pop(event.key, None)  # whoever takes it off tells it
            if found is not event:
                if found is not None:  # another one has begun meanwhile
                    self._holds.setdefault(event.key, found)
                continue
            facts = (event.key, event.provider, event.account_id, event.model, event.until, event.reason)
            self.tell("on_hold", HoldEvent(*facts, begun=False, at=now))


def _wants(meter: object, name: str) -> bool:
    hook = getattr(meter, name, None)
    return callable(hook) and getattr(hook, "does_nothing", None) is not True


def listeners_for(meter: Meter | Sequence[Meter] | None) -> Listeners | None:
    """The `Listeners` over one meter or several; None where nobody listens."""
    meters = [each for each in meters_in(meter) if type(each) is not NoopMeter]
    return Listeners(meters) if meters else None


def meters_in(meter: object) -> Iterator[object]:
    """The meters in what a caller gave: None, one, or a list of them."""
    if isinstance(meter, (list, tuple)) and not is_meter(meter):
        yield from meter
    elif meter is not None:
        yield meter


def is_meter(thing: object) -> bool:
    """Whether `thing` has at least one of the hooks."""
    return any(callable(getattr(thing, hook, None)) for hook in HOOKS)


class NoopMeter:
    """Ignores every event."""

    def on_route(self, event: RouteEvent) -> None:
        """Nothing."""

    def on_result(self, event: ResultEvent) -> None:
        """Nothing."""


class LogMeter:
    """Writes events to a `logging.Logger`, as key=value in one line each.

    `logger`: by default the one that is named like this package, also where the folder was copied under another name. INFO: an
    answer, one line a call, and a limit that was learned; WARNING: a failed attempt, an account that is held; DEBUG: an attempt
    that begins, a wait, a hold that ends, and a call that ends with an error, which its caller gets anyway. The same facts are
    in each record's `inferrouter` attribute, a dict, for formatters that write fields.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        import logging

        self._logger = logger or logging.getLogger(__package__)

    def on_route(self, event: RouteEvent) -> None:
        """DEBUG."""
        if self._logger.isEnabledFor(_DEBUG):
            self._write(_DEBUG, "attempt", _place(event), free=event.free, estimated_tokens=event.estimated_tokens)

    def on_notice(self, event: NoticeEvent) -> None:
        """WARNING, once in a router's life for each."""
        self._write(_WARNING, "notice", _place(event), said=event.text)

    def on_result(self, event: ResultEvent) -> None:
        """INFO for an answer, WARNING for a failure."""
        level = _INFO if event.success else _WARNING
        if not self._logger.isEnabledFor(level):
            return
        usage = event.usage
        facts: dict[str, object] = {"free": event.free, "seconds": round(event.duration, 3)}
        if event.waited_s:
            facts["waited"] = round(event.waited_s, 3)
        if event.first_chunk_s is not None:
            facts["first_chunk"] = round(event.first_chunk_s, 3)
        if event.success:
            facts |= {"input": usage.prompt_tokens, "output": usage.completion_tokens, "total": usage.total_tokens}
            facts |= {"cached": usage.cached_tokens, "reasoning": usage.reasoning_tokens}
            facts |= {"cost": f"{event.cost:.6f}", "finish": ",".join(event.finish_reasons)}
            if event.model_answered not in ("", event.model):
                facts["answered_by"] = event.model_answered
        else:
            facts |= {"error": type(event.error).__name__, "said": str(event.error)}
        self._write(level, "answer" if event.success else "failure", _place(event), **facts)

    def on_call(self, event: CallEvent) -> None:
        """DEBUG, for calls that end without an answer: the error that the caller gets says more."""
        if event.outcome != "ok" and self._logger.isEnabledFor(_DEBUG):
            facts = {"outcome": event.outcome, "attempts": event.attempts, "seconds": round(event.duration, 3)}
            self._write(_DEBUG, "call", {"call": event.call_id, "alias": event.alias}, **facts)

    def on_wait(self, event: WaitEvent) -> None:
        """DEBUG."""
        if self._logger.isEnabledFor(_DEBUG):
            self._write(_DEBUG, "wait", _place(event), seconds=round(event.seconds, 3), reason=event.reason)

    def on_hold(self, event: HoldEvent) -> None:
        """WARNING when it begins, DEBUG when it ends."""
        level = _WARNING if event.begun else _DEBUG
        if self._logger.isEnabledFor(level):
            facts = {"key": event.key, "reason": event.reason, "seconds": round(max(event.until - event.at, 0.0), 3)}
            self._write(level, "hold" if event.begun else "hold_ended", _place(event), **facts)

    def on_limit(self, event: LimitEvent) -> None:
        """INFO where a limit is another than configured, DEBUG where others have used of it."""
        level = _DEBUG if event.stated is None or event.stated == event.configured else _INFO
        if self._logger.isEnabledFor(level):
            facts = {"configured": event.configured, "stated": event.stated, "remaining": event.remaining}
            self._write(level, "limit", _place(event), key=event.key, **facts, source=event.source)

    def _write(self, level: int, kind: str, place: dict[str, object], **facts: object) -> None:
        fields = {"event": kind, **place, **facts}
        line = " ".join(f"{key}={_worded(value)}" for key, value in fields.items() if value is not None and value != "")
        self._logger.log(level, "%s", line, extra={"inferrouter": fields})


_DEBUG, _INFO, _WARNING = 10, 20, 30  # logging's own numbers, which it promises; it loads only where a LogMeter is made


def _place(event: Any) -> dict[str, object]:
    """Which call it was, and who was asked."""
    names = {"call": "call_id", "alias": "alias", "attempt": "attempt"}
    names |= {"provider": "provider", "account": "account_id", "model": "model"}
    return {key: found for key, name in names.items() if (found := getattr(event, name, "")) != ""}


def _worded(value: object) -> str:
    """`value` as it stands after an equals sign: quoted where it would not be one word."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if text.isprintable() and not any(mark in text for mark in ' "='):
        return text
    import json

    return json.dumps(text, ensure_ascii=not text.isprintable())


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

    computed: Callable[[], float] | None = getattr(stdlib_time, "thread_time", None)
    """Seconds that the calling thread has computed; None where the platform does not say."""
