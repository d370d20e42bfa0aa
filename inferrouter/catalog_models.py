"""Holds what is known of well-known models: how good and how fast they are, and what they can take.

Strategy: rows of data, each with its source and date. `OFFERS` are the models that a key alone gives a use for, in the order of
quality; a model's abilities are found by name pattern, the first match counts, and a name without a row is unknown, which is not
the same as unable. Must never hold a limit: those are in `catalog_providers`.
"""

from __future__ import annotations

from collections.abc import Sequence

from .account import CAPABILITIES
from .frozen import frozen_value

FASTEST = 200
"""Tokens a second; a model that writes this many counts as fast."""


@frozen_value
class Offer:
    """A model at a provider (its name in the catalog). `tier`: quality from 1, the best, to 5.

    `speed`: tokens a second, 0 where nobody has said. `embeds`: it makes vectors and does not chat. `source`, `as_of` (ISO date):
    of the tier; where that is not an index, the model is placed by hand beside its likes. Tier 1 has 40 and more in the
    Artificial Analysis Intelligence Index, 2 from 30, 3 from 20, 4 from 10, 5 less.
    """

    provider: str
    model: str
    tier: int
    source: str
    as_of: str
    speed: int = 0
    embeds: bool = False


_JULY = ("https://artificialanalysis.ai (Intelligence Index, repeated by https://openrouter.ai/api/v1/models)", "2026-07-24")
_SEPTEMBER = ("https://artificialanalysis.ai (Intelligence Index v4.2)", "2026-09-07")
_GOOGLE = ("https://ai.google.dev/gemini-api/docs/models", "2026-07-18")
_ZAI = ("https://docs.z.ai/guides/overview/pricing", "2026-10-09")
_GROQ = ("https://console.groq.com/docs/models", "2026-08-21")


def _offer(provider: str, model: str, tier: int, source: tuple[str, str] = _JULY, speed: int = 0) -> Offer:
    return Offer(provider, model, tier, *source, speed=speed)


def _vectors(provider: str, model: str, source: str, as_of: str) -> Offer:
    return Offer(provider, model, 3, source, as_of, embeds=True)


# Best first: by tier, and in a tier by figure. Speeds: Artificial Analysis (2026-09-07), Groq's and Cerebras's own pages.
OFFERS: Sequence[Offer] = (
    _offer("gemini", "gemini-3.8-flash", 1, _SEPTEMBER),
    _offer("gemini", "gemini-3.7-flash", 1, _SEPTEMBER, 309),
    _offer("gemini", "gemini-3.5-flash", 1, _JULY, 206),
    _offer("gemini", "gemini-3.6-flash", 1),
    _offer("groq", "qwen/qwen3.8-27b", 1, _SEPTEMBER),
    _offer("openrouter", "nvidia/nemotron-3-ultra-550b-a55b:free", 2),
    _offer("groq", "qwen/qwen3.6-27b", 2),
    _offer("gemini", "gemini-3.5-flash-lite", 2),
    _offer("gemini", "gemini-3-flash-preview", 2, _GOOGLE),
    _offer("openrouter", "google/gemma-4-31b-it:free", 3),
    _offer("gemini", "gemini-3.1-flash-lite", 3, _JULY, 292),
    _offer("gemini", "gemini-2.5-flash", 3, _GOOGLE),
    _offer("cerebras", "gpt-oss-120b", 3, _JULY, 3000),
    _offer("groq", "openai/gpt-oss-120b", 3, _JULY, 500),
    _offer("nvidia-nim", "openai/gpt-oss-120b", 3),
    _offer("zai", "glm-4.7-flash", 3, _ZAI),
    _offer("groq", "groq/compound", 3, _GROQ, 450),
    _offer("cohere", "command-a-03-2025", 3),
    _offer("gemini", "gemma-4-31b-it", 3),
    _offer(
        "openrouter", "openrouter/free", 4, ("https://openrouter.ai/docs/guides/routing/routers/free-router.md", "2026-10-17")
    ),
    _offer("gemini", "gemini-2.5-flash-lite", 4, _GOOGLE),
    _offer("zai", "glm-4.6v-flash", 4, _ZAI),
    _offer("groq", "openai/gpt-oss-20b", 4, _JULY, 1000),
    _offer("groq", "groq/compound-mini", 4, _GROQ, 450),
    _offer("siliconflow", "Qwen/Qwen3-8B", 5),
    _offer("gemini", "gemma-3-27b-it", 5),
    _offer("gemini", "gemma-3-12b-it", 5),
    _offer("gemini", "gemma-3-4b-it", 5),
    # Without a free tier: these cost money.
    _offer("openai", "gpt-5.6-sol", 1),
    _offer("grok", "grok-4.5", 1),
    _offer("anthropic", "claude-sonnet-5", 1),
    _offer("openai", "gpt-5.6-luna", 1),
    _offer("mistral", "mistral-medium-latest", 3),
    _offer("anthropic", "claude-haiku-4-5", 3),
    _offer("deepseek", "deepseek-chat", 3, ("https://api-docs.deepseek.com", "2026-07-24")),
    _offer("mistral", "mistral-small-latest", 4),
    _vectors("gemini", "gemini-embedding-001", "https://ai.google.dev/gemini-api/docs/embeddings", "2026-03-23"),
    _vectors("cohere", "embed-v4.0", "https://docs.cohere.com/docs/rate-limits", "2026-10-09"),
    _vectors("openai", "text-embedding-3-small", "https://platform.openai.com/docs/guides/embeddings", "2026-07-24"),
    _vectors("mistral", "mistral-embed", "https://docs.mistral.ai/capabilities/embeddings", "2026-07-24"),
)


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TEXT = _words("text")
_TOOLS = _words("text tools json")
_SEES = _words("text image tools json")
_READS = _words("text image document tools json")
_ALL = frozenset(CAPABILITIES)

# Provider ("" is any), pattern of the name without its maker and its ":tag", what the model takes.
MODEL_ABILITIES: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("", "*embed*", _TEXT),
    ("", "gemini-*-tts*", _TEXT),
    ("", "gemini-*-image*", _words("text image")),
    ("", "gemini-[1-9]*", _ALL),
    ("gemini", "gemma-3-1b*", _TEXT),
    ("gemini", "gemma-3-*", _words("text image")),
    ("", "gemma-4-*", _SEES),
    ("openrouter", "free", _SEES),  # a router that picks a model that takes what the request holds
    ("groq", "compound*", _TEXT),
    ("", "gpt-oss-*", _TOOLS),
    ("", "gpt-3.5-*", _TOOLS),
    ("", "gpt-4", _TOOLS),
    ("", "gpt-4-turbo*", _SEES),
    ("", "gpt-4o*-audio*", _words("text audio tools")),
    ("", "gpt-4o*", _READS),
    ("", "gpt-4.1*", _READS),
    ("", "gpt-5*", _READS),
    ("", "o1-mini*", _TEXT),
    ("", "o3-mini*", _TOOLS),
    ("", "o[134]", _READS),
    ("", "o[134]-*", _READS),
    ("", "claude-3-haiku*", _SEES),
    ("", "claude-3-opus*", _SEES),
    ("", "claude-*", _READS),
    ("", "grok-2-vision*", _SEES),
    ("", "grok-3*", _TOOLS),
    ("", "grok-code*", _TOOLS),
    ("", "grok-4*", _SEES),
    ("", "*llama-3.2-*-vision*", _words("text image")),
    ("", "*llama-3.1-*", _TOOLS),
    ("", "*llama-3.3-*", _TOOLS),
    ("", "*llama-4-*", _SEES),
    ("", "pixtral-*", _SEES),
    ("", "mistral-small-latest", _SEES),
    ("", "mistral-medium-latest", _SEES),
    ("", "codestral-*", _TOOLS),
    ("", "deepseek-chat*", _TOOLS),
    ("", "deepseek-v3*", _TOOLS),
    ("", "deepseek-reasoner", _TOOLS),
    ("", "command-a-vision*", _words("text image")),
    ("", "command-[ar]*", _TOOLS),
    ("", "glm-4.[56]v*", _words("text image video tools")),
    ("", "glm-4.[567]*", _TOOLS),
    ("", "sonar*", _words("text image json")),
)
