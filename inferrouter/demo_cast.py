"""Who plays in the demo: the stand-in providers with their limits, the accounts at them, and the clock they share.

Strategy: the clock starts at noon, so that no minute and no day ends by chance in the middle of the show. The
configuration is what a user would write, and leaves out the one limit that the demo wants to run into.
Must never know what is asked, or what is printed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from .config import AccountConfig, Auth, Config, ModelMapping, ModelRef
from .simulator import KeyLimits, Simulator

__all__ = ["DemoClock", "build_config", "build_stand_ins"]


class DemoClock:
    """The machine's pace from noon (UTC) of an ordinary day, for router and stand-ins alike; `skip` sets it ahead."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._start = time.monotonic()
        self._noon = time.time() // 86_400 * 86_400 + 43_200 + 15  # a minute's first quarter is over: 45 s to its end

    def time(self) -> float:
        """Epoch seconds."""
        return self._noon + self.monotonic() - self._start

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic() + self._ahead

    def sleep(self, seconds: float) -> None:
        """Wait, by skipping."""
        self.skip(seconds)

    def skip(self, seconds: float) -> None:
        """Set the clock ahead."""
        self._ahead += seconds


def build_stand_ins(clock: DemoClock, chunk_delay_s: float) -> dict[str, Simulator]:
    """The providers by name, not started yet. Groq's limit by the minute is what the configuration does not know of."""
    return {
        "gemini": Simulator("gemini", name="gemini", keys={"demo-key-1": KeyLimits(rpd=5)}, clock=clock.time),
        "groq": Simulator(
            "openai",
            name="groq",
            keys={"demo-key-2": KeyLimits(rpm=2)},
            clock=clock.time,
            chunk_words=1,
            chunk_delay_s=chunk_delay_s,
        ),
        "openai": Simulator("openai", name="openai", keys={"demo-key-3": KeyLimits(rpm=60)}, clock=clock.time),
    }


def build_config(stand_ins: Mapping[str, Simulator]) -> Config:
    """What a user would write: two free accounts, a paid one, and one alias over all three."""
    return Config(
        allow_paid=True,
        default_model="fast",
        models=[
            ModelMapping(
                "fast",
                [
                    ModelRef("gemini", "gemini-3.5-flash"),
                    ModelRef("groq", "openai/gpt-oss-20b"),
                    ModelRef("openai", "gpt-4o-mini"),
                ],
            )
        ],
        accounts=[
            AccountConfig(
                provider="gemini",
                id="gemini-free",
                auth=Auth("demo-key-1"),
                base_url=stand_ins["gemini"].base_url,
                daily_free=5,
                quota_unit="requests",
            ),
            AccountConfig(
                provider="groq",
                id="groq-free",
                auth=Auth("demo-key-2"),
                base_url=stand_ins["groq"].base_url,
                daily_free=260,
                quota_unit="tokens",
            ),
            AccountConfig(
                provider="openai",
                id="openai-paid",
                auth=Auth("demo-key-3"),
                base_url=stand_ins["openai"].base_url,
                paid_enabled=True,
                cost_per_input_token=1.5e-7,
                cost_per_output_token=6e-7,
                max_daily_spend=0.05,
            ),
        ],
    )
