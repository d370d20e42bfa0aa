"""What one key of a stand-in provider may use, has used, and has left.

Strategy: real counting in fixed windows, the UTC minute and the UTC day, told by the caller's clock; a request is refused
when one more would not fit (its completion is not known yet and is not asked about), and a refused one leaves no trace.
Must never know which key it counts for. Not locked: the simulator holds its own lock around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .simulator_wire import Room

__all__ = ["KeyCounter", "KeyLimits", "KeyUsage"]

SPAN = {"minute": 60.0, "day": 86400.0}  # seconds


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Requests and tokens a key may use per minute and per day; None is no limit, 0 refuses everything."""

    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    tpd: int | None = None


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """What a key has used since the start. `requests`: served ones; `refused`: answered 429 because a limit was spent."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    refused: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens


class KeyCounter:
    """The windows of one key. Every method takes `now`, epoch seconds."""

    def __init__(self, limits: KeyLimits | None) -> None:
        self._limits = limits or KeyLimits()
        self._windows: dict[str, tuple[int, int, int]] = {}  # name: number of the window, requests, tokens
        self.usage = KeyUsage()

    def admit(self, prompt_tokens: int, completion_tokens: int, now: float) -> list[Room]:
        """Charge a request unless a limit is spent; returns the spent limits, empty when it was charged."""
        spent = [
            room for room in self.rooms(now) if room.used + (prompt_tokens if room.unit == "tokens" else 1) > room.limit
        ]
        used = self.usage
        if spent:
            self.usage = KeyUsage(used.requests, used.prompt_tokens, used.completion_tokens, used.refused + 1)
            return spent
        self._charge(1, prompt_tokens + completion_tokens, now)
        self.usage = KeyUsage(
            used.requests + 1,
            used.prompt_tokens + prompt_tokens,
            used.completion_tokens + completion_tokens,
            used.refused,
        )
        return []

    def rooms(self, now: float) -> list[Room]:
        """Every limit of the key and how much of it is used."""
        limits = self._limits
        asked: list[tuple[Literal["requests", "tokens"], Literal["minute", "day"], int | None]] = [
            ("requests", "minute", limits.rpm),
            ("requests", "day", limits.rpd),
            ("tokens", "minute", limits.tpm),
            ("tokens", "day", limits.tpd),
        ]
        found: list[Room] = []
        for unit, window, limit in asked:
            if limit is not None:
                _, requests, tokens = self._window(window, now)
                used = requests if unit == "requests" else tokens
                found.append(Room(unit, window, limit, used, SPAN[window] - now % SPAN[window]))
        return found

    def _window(self, name: str, now: float) -> tuple[int, int, int]:
        number = int(now // SPAN[name])
        window = self._windows.get(name, (number, 0, 0))
        return window if window[0] == number else (number, 0, 0)

    def _charge(self, requests: int, tokens: int, now: float) -> None:
        for name in SPAN:
            number, so_far, spent = self._window(name, now)
            self._windows[name] = (number, so_far + requests, spent + tokens)
