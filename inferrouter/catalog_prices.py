"""Holds list prices of well-known models, in dollars per million tokens, each with its source and date.

Strategy: rows of data, only where the provider's own page says so; a dated snapshot of a model costs what the model costs. An
account that asks for them (`prices = "catalog"`) gets them, what it states itself wins. Must never know what anything is used
for.
"""

from __future__ import annotations

from collections.abc import Sequence

from .frozen import frozen_value

MILLION = 1_000_000


@frozen_value
class ListPrice:
    """What `model` at `provider` costs: dollars per million tokens, `cached` None where nothing is said. `as_of`: ISO date."""

    provider: str
    model: str
    input: float
    output: float
    cached: float | None
    source: str
    as_of: str

    @property
    def cost_per_input_token(self) -> float | None:
        """Dollars per token."""
        return self.input / MILLION

    @property
    def cost_per_output_token(self) -> float | None:
        """Dollars per token."""
        return self.output / MILLION

    @property
    def cost_per_cached_input_token(self) -> float | None:
        """Dollars per token."""
        return None if self.cached is None else self.cached / MILLION

    @property
    def cost_per_audio_input_token(self) -> float | None:
        """Nothing is said."""
        return None

    @property
    def cost_per_image_input_token(self) -> float | None:
        """Nothing is said."""
        return None

    @property
    def cost_per_video_input_token(self) -> float | None:
        """Nothing is said."""
        return None

    @property
    def has_price(self) -> bool:
        """Always."""
        return True


_ANTHROPIC = "https://platform.claude.com/docs/en/about-claude/pricing"
_OPENAI = "https://openai.com/api/pricing"

PRICES: Sequence[ListPrice] = (
    ListPrice("anthropic", "claude-opus-5", 5.0, 25.0, None, _ANTHROPIC, "2026-09-14"),
    ListPrice("anthropic", "claude-sonnet-5", 2.0, 10.0, 0.2, _ANTHROPIC, "2026-09-24"),
    ListPrice("anthropic", "claude-haiku-4-5", 1.0, 5.0, 0.1, _ANTHROPIC, "2026-09-24"),
    ListPrice("openai", "gpt-5", 1.25, 10.0, None, _OPENAI, "2026-03-01"),
    ListPrice("openai", "gpt-5-mini", 0.25, 2.0, None, _OPENAI, "2026-03-01"),
    ListPrice("openai", "gpt-4.1", 2.0, 8.0, None, _OPENAI, "2026-03-01"),
    ListPrice("openai", "gpt-4o", 2.5, 10.0, None, _OPENAI, "2026-03-01"),
    ListPrice("openai", "gpt-4o-mini", 0.15, 0.6, None, _OPENAI, "2026-03-01"),
)


def list_price(provider: str, model: str) -> ListPrice | None:
    """The price of `model`, or of the model that it is a dated snapshot of, at `provider`; None where nobody has said."""
    return next((each for each in PRICES if each.provider == provider and _is(model, each.model)), None)


def _is(model: str, priced: str) -> bool:
    return model == priced or model.startswith(f"{priced}-20")
