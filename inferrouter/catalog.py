"""Lists the known providers: where they are, how they talk, what they give for free, and what well-known models can take.

Strategy: rows of data. A number is here only if the provider documents it or users report it alike, with its date; it is
what a free account starts from, and a configuration overrules it. A model's row is found by name pattern, the first match
counts; a name without a row is unknown, which is not the same as unable. Must never open a connection or read the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from .account import CAPABILITIES
from .errors import ConfigError
from .frozen import FrozenDict, freeze, frozen_value
from .validation import did_you_mean, matches


@frozen_value
class FreeTier:
    """Limits of a free account: of each of `models`, or of the account as a whole where `models` is empty.

    `limits`: keys as in `AccountConfig.limits`. `as_of`: ISO date of the source. `confidence`: docs | reported.
    """

    limits: Mapping[str, float]
    as_of: str
    confidence: str
    models: tuple[str, ...] = ()


@frozen_value
class Preset:
    """A provider. `env`: variables that may hold its key, the first that is set wins; none: it is used without a key.

    `patterns`: shell-style patterns of model names that are this provider's own. `reset`: as in `AccountConfig`;
    "rolling" where the provider does not say when its day begins. `source`: where the numbers of `free` are from.
    """

    name: str
    base_url: str
    env: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    dialect: str = "openai"
    reset: str = "UTC"
    free: tuple[FreeTier, ...] = ()
    source: str = ""

    @property
    def limits(self) -> Mapping[str, float]:
        """Free limits of a whole account."""
        return FrozenDict({key: amount for tier in self.free if not tier.models for key, amount in tier.limits.items()})

    @property
    def model_limits(self) -> Mapping[str, Mapping[str, float]]:
        """Free limits by model name, "*" for every other model."""
        return FrozenDict({model: tier.limits for tier in self.free for model in tier.models})

    @property
    def as_of(self) -> str:
        """The date of the oldest number, "" if there is none."""
        return min((tier.as_of for tier in self.free), default="")

    def declares(self, model: str) -> bool:
        """Whether `model` is named like one of this provider's own."""
        return any(matches(model, pattern) for pattern in self.patterns)


def preset(name: str) -> Preset:
    """The provider `name`, also by an older or other spelling. Raises `ConfigError` with the nearest known names."""
    found = PRESETS.get(ALIASES.get(name, name))
    if found is None:
        gone = _GONE.get(name)
        if gone:
            raise ConfigError(f"provider {name!r}: {gone}")
        raise ConfigError(f"provider {name!r} is not in the catalog{did_you_mean(name, [*PRESETS, *ALIASES])}; give a base_url")
    return found


def capabilities(provider: str, model: str) -> frozenset[str] | None:
    """What `model` at `provider` can take, words as in `AccountConfig.capabilities`; None: unknown."""
    return abilities_of(ALIASES.get(provider, provider), model)


ALIASES: Mapping[str, str] = freeze({"cerebro": "cerebras", "xai": "grok", "google": "gemini"})

_GONE = {"github-models": "GitHub Models was shut down on 2026-07-30; remove the account"}


def _tier(as_of: str, confidence: str, *models: str, **limits: float) -> FreeTier:
    return FreeTier(FrozenDict(limits), as_of, confidence, models)


# Gemini counts input tokens only towards tpm; counting all of them, as this library does, stays on the safe side.
_GEMINI = (
    _tier("2026-10-10", "reported", "gemini-3.7-flash", "gemini-3.5-flash", rpm=5, rpd=20, tpm=250_000),
    _tier("2026-09-17", "reported", "gemini-3.8-flash", "gemini-3.6-flash", rpm=5, rpd=20, tpm=250_000),
    _tier("2026-07-18", "reported", "gemini-3-flash-preview", "gemini-2.5-flash", rpm=5, rpd=20, tpm=250_000),
    _tier("2026-10-10", "reported", "gemini-3.5-flash-lite", "gemini-3.1-flash-lite", rpm=15, rpd=500, tpm=250_000),
    _tier("2026-07-18", "reported", "gemini-2.5-flash-lite", rpm=10, rpd=20, tpm=250_000),
    _tier("2026-08-03", "reported", "gemma-4-31b-it", rpm=30, rpd=14_400),
    _tier("2026-07-18", "reported", "gemma-3-27b-it", "gemma-3-12b-it", "gemma-3-4b-it", rpm=30, rpd=14_400, tpm=15_000),
    _tier("2026-03-23", "reported", "gemini-embedding-001", rpm=100, rpd=1_000, tpm=30_000),
)
_GROQ = (
    _tier(
        "2026-10-09",
        "docs",
        "openai/gpt-oss-120b",
        "openai/gpt-oss-20b",
        "openai/gpt-oss-safeguard-20b",
        "qwen/qwen3.6-27b",
        "qwen/qwen3.8-27b",
        rpm=30,
        rpd=1_000,
        tpm=8_000,
        tpd=200_000,
    ),
    _tier("2026-08-21", "docs", "groq/compound", "groq/compound-mini", rpm=30, rpd=250, tpm=70_000),
)
_MISTRAL = (
    "mistral-*",
    "ministral-*",
    "codestral-*",
    "devstral-*",
    "magistral-*",
    "pixtral-*",
    "voxtral-*",
    "open-mi*",
)

_ROWS = (
    Preset(
        "openai",
        "https://api.openai.com/v1",
        ("OPENAI_API_KEY",),
        ("gpt-[0-9]*", "chatgpt-*", "o[1-9]", "o[1-9]-*", "text-embedding-3-*", "text-embedding-ada-*"),
    ),
    Preset(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        ("gemini-*", "gemma-*"),
        dialect="gemini",
        reset="America/Los_Angeles",
        free=_GEMINI,
        source="https://github.com/mnfst/awesome-free-llm-apis and https://github.com/cheahjs/free-llm-api-resources",
    ),
    Preset("anthropic", "https://api.anthropic.com/v1", ("ANTHROPIC_API_KEY",), ("claude-*",), dialect="anthropic"),
    Preset("grok", "https://api.x.ai/v1", ("XAI_API_KEY", "GROK_API_KEY"), ("grok-*",)),
    Preset(
        "cerebras",
        "https://api.cerebras.ai/v1",
        ("CEREBRAS_API_KEY",),
        reset="rolling",
        free=(_tier("2026-08-31", "docs", "gpt-oss-120b", rpm=5, tpm=30_000, tph=1_000_000, tpd=1_000_000),),
        source="https://inference-docs.cerebras.ai/support/rate-limits (a trial of 30 days)",
    ),
    Preset(
        "groq",
        "https://api.groq.com/openai/v1",
        ("GROQ_API_KEY",),
        reset="rolling",
        free=_GROQ,
        source="https://console.groq.com/docs/rate-limits",
    ),
    Preset("mistral", "https://api.mistral.ai/v1", ("MISTRAL_API_KEY",), _MISTRAL),
    Preset(
        "openrouter",
        "https://openrouter.ai/api/v1",
        ("OPENROUTER_API_KEY",),
        ("*:free",),
        free=(_tier("2026-10-17", "docs", rpm=20, rpd=50),),
        source="https://openrouter.ai/docs (accounts that bought fewer than 10 credits; all :free models together)",
    ),
    Preset("deepseek", "https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",), ("deepseek-chat", "deepseek-reasoner")),
    Preset("together", "https://api.together.xyz/v1", ("TOGETHER_API_KEY",)),
    Preset("fireworks", "https://api.fireworks.ai/inference/v1", ("FIREWORKS_API_KEY",)),
    Preset("perplexity", "https://api.perplexity.ai", ("PERPLEXITY_API_KEY",), ("sonar", "sonar-*")),
    Preset(
        "nvidia-nim",
        "https://integrate.api.nvidia.com/v1",
        ("NVIDIA_API_KEY",),
        free=(_tier("2026-10-16", "reported", rpm=40),),
        source="https://github.com/steipete/CodexBar/issues/2498",
    ),
    Preset("sambanova", "https://api.sambanova.ai/v1", ("SAMBANOVA_API_KEY",)),
    Preset(
        "cohere",
        "https://api.cohere.ai/compatibility/v1",
        ("COHERE_API_KEY", "CO_API_KEY"),
        ("command-*",),
        free=(_tier("2026-10-09", "docs", rpmonth=1_000), _tier("2026-10-09", "docs", "*", rpm=20)),
        source="https://docs.cohere.com/docs/rate-limits (trial keys, not for commercial use)",
    ),
    Preset("huggingface", "https://router.huggingface.co/v1", ("HF_TOKEN",)),
    Preset("zai", "https://api.z.ai/api/paas/v4", ("ZAI_API_KEY",), ("glm-*",)),
    Preset(
        "siliconflow",
        "https://api.siliconflow.cn/v1",
        ("SILICONFLOW_API_KEY",),
        free=(_tier("2026-08-21", "reported", "Qwen/Qwen3-8B", rpm=1_000, tpm=50_000),),
        source="https://github.com/mnfst/awesome-free-llm-apis",
    ),
    Preset(
        "modelscope",
        "https://api-inference.modelscope.cn/v1",
        ("MODELSCOPE_API_KEY",),
        reset="rolling",
        free=(_tier("2026-08-21", "docs", rpd=2_000),),
        source="https://modelscope.cn/docs/model-service/API-Inference/limits",
    ),
    Preset("ollama-cloud", "https://ollama.com/v1", ("OLLAMA_API_KEY",)),
    Preset(
        "llm7",
        "https://api.llm7.io/v1",
        ("LLM7_API_KEY",),
        reset="rolling",
        free=(_tier("2026-08-21", "docs", rpm=40, rph=100, tpd=1_000_000),),
        source="https://docs.llm7.io/limits (with a free token)",
    ),
    Preset(
        "aion",
        "https://api.aionlabs.ai/v1",
        ("AION_API_KEY",),
        ("aion-labs/*",),
        reset="rolling",
        free=(_tier("2026-08-21", "docs", rpm=15, tpd=20_000),),
        source="https://github.com/mnfst/awesome-free-llm-apis",
    ),
    Preset(
        "ovhcloud",
        "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
        free=(_tier("2026-10-09", "docs", "*", rpm=2),),
        source="https://github.com/mnfst/awesome-free-llm-apis (without a key)",
    ),
    Preset("vercel-ai-gateway", "https://ai-gateway.vercel.sh/v1", ("AI_GATEWAY_API_KEY",)),
    Preset("ollama", "http://localhost:11434/v1"),
    Preset("lmstudio", "http://localhost:1234/v1"),
    Preset("llamacpp", "http://localhost:8080/v1"),
    Preset("vllm", "http://localhost:8000/v1"),
)
PRESETS: Mapping[str, Preset] = FrozenDict({row.name: row for row in _ROWS})


@lru_cache(maxsize=1024)
def abilities_of(provider: str, model: str) -> frozenset[str] | None:
    """What `model` at `provider` (its name in the catalog) can take; None: unknown."""
    name = model.lower().rpartition("/")[2].partition(":")[0]
    for where, pattern, words in _MODEL_ROWS:
        if where in ("", provider) and matches(name, pattern):
            return words
    return None


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


_TEXT = _words("text")
_TOOLS = _words("text tools json")
_SEES = _words("text image tools json")
_READS = _words("text image document tools json")
_ALL = frozenset(CAPABILITIES)

# Provider ("" is any), pattern of the name without its maker and its ":tag", what the model takes.
_MODEL_ROWS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("", "*embed*", _TEXT),
    ("", "gemini-*-tts*", _TEXT),
    ("", "gemini-*-image*", _words("text image")),
    ("", "gemini-[1-9]*", _ALL),
    ("gemini", "gemma-3-1b*", _TEXT),
    ("gemini", "gemma-3-*", _words("text image")),
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
    ("", "*llama-3.[13]-*", _TOOLS),
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
