"""Holds the known providers as rows: where they are, how they talk, what is free, where a key is had, and under what terms.

Strategy: data. A number is here only if the provider documents it or users report it alike, with its date; it is what a free
account starts from, and a configuration overrules it. Must never open a connection or read the environment, nor know a model's
abilities: those are in `catalog_models`.
"""

from __future__ import annotations

from collections.abc import Mapping

from .frozen import FrozenDict, frozen_value
from .validation import matches


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
    `key_url`: where a key is had. `counted`: whose use the free limits count. `terms`: what to know before using them.
    `tpm_counts`: what counts towards tpm, as in `AccountConfig`.
    """

    name: str
    base_url: str
    env: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    dialect: str = "openai"
    reset: str = "UTC"
    free: tuple[FreeTier, ...] = ()
    source: str = ""
    key_url: str = ""
    counted: str = ""
    terms: str = ""
    tpm_counts: str = "total"

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

    @property
    def base_url_env(self) -> str:
        """The variable that may name another address of this provider, "" if none does.

        Those of OpenAI and Anthropic are not read: other programs look into them for any server of that kind, such as the one of
        this very library, which would then ask itself.
        """
        if self.name in ("openai", "anthropic"):
            return ""
        return self.env[0].removesuffix("_API_KEY").removesuffix("_TOKEN") + "_BASE_URL" if self.env else ""

    def declares(self, model: str) -> bool:
        """Whether `model` is named like one of this provider's own."""
        return any(matches(model, pattern) for pattern in self.patterns)


def _tier(as_of: str, confidence: str, *models: str, **limits: float) -> FreeTier:
    return FreeTier(FrozenDict(limits), as_of, confidence, models)


# Gemini counts input tokens only towards tpm: https://ai.google.dev/gemini-api/docs/rate-limits (tpm_counts of its row).
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
        key_url="https://platform.openai.com/api-keys",
    ),
    Preset(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta",
        ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        ("gemini-*", "gemma-*"),
        dialect="gemini",
        reset="America/Los_Angeles",
        free=_GEMINI,
        tpm_counts="input",
        source="https://github.com/mnfst/awesome-free-llm-apis and https://github.com/cheahjs/free-llm-api-resources",
        key_url="https://aistudio.google.com/apikey",
        counted="each project and model",
        terms="free prompts may train Google's products; Google shows your own limits in AI Studio alone",
    ),
    Preset(
        "anthropic",
        "https://api.anthropic.com/v1",
        ("ANTHROPIC_API_KEY",),
        ("claude-*",),
        dialect="anthropic",
        key_url="https://console.anthropic.com/settings/keys",
    ),
    Preset(
        "grok",
        "https://api.x.ai/v1",
        ("XAI_API_KEY", "GROK_API_KEY"),
        ("grok-*",),
        key_url="https://console.x.ai",
        terms="no free tier is documented (2026-07-29)",
    ),
    Preset(
        "cerebras",
        "https://api.cerebras.ai/v1",
        ("CEREBRAS_API_KEY",),
        reset="rolling",
        free=(_tier("2026-08-31", "docs", "gpt-oss-120b", rpm=5, tpm=30_000, tph=1_000_000, tpd=1_000_000),),
        source="https://inference-docs.cerebras.ai/support/rate-limits (a trial of 30 days)",
        key_url="https://cloud.cerebras.ai",
        counted="each organization and model",
        terms="a trial since 2026-07-16: a card is needed, $5 once, over after 30 days; max_tokens counts up front",
    ),
    Preset(
        "groq",
        "https://api.groq.com/openai/v1",
        ("GROQ_API_KEY",),
        reset="rolling",
        free=_GROQ,
        source="https://console.groq.com/docs/rate-limits",
        key_url="https://console.groq.com/keys",
        counted="each organization and model",
        terms="cached tokens do not count",
    ),
    Preset(
        "mistral",
        "https://api.mistral.ai/v1",
        ("MISTRAL_API_KEY",),
        _MISTRAL,
        key_url="https://console.mistral.ai/api-keys",
        terms="one phone number for each free plan; some accounts see paid plans only (2026-10)",
    ),
    Preset(
        "openrouter",
        "https://openrouter.ai/api/v1",
        ("OPENROUTER_API_KEY",),
        ("*:free", "openrouter/free"),
        free=(_tier("2026-10-17", "docs", rpm=20, rpd=50),),
        source="https://openrouter.ai/docs (accounts that bought fewer than 10 credits; all :free models together)",
        key_url="https://openrouter.ai/settings/keys",
        counted="the account, all free models together",
        terms="more keys or accounts do not help; failed attempts count; a negative balance answers 402 even for free models",
    ),
    Preset(
        "deepseek",
        "https://api.deepseek.com/v1",
        ("DEEPSEEK_API_KEY",),
        ("deepseek-chat", "deepseek-reasoner"),
        key_url="https://platform.deepseek.com/api_keys",
    ),
    Preset(
        "together",
        "https://api.together.xyz/v1",
        ("TOGETHER_API_KEY",),
        key_url="https://api.together.ai/settings/api-keys",
        terms="no free tier: $5 must be paid in (2026-09-04)",
    ),
    Preset(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        ("FIREWORKS_API_KEY",),
        key_url="https://app.fireworks.ai/settings/users/api-keys",
    ),
    Preset(
        "perplexity",
        "https://api.perplexity.ai",
        ("PERPLEXITY_API_KEY",),
        ("sonar", "sonar-*"),
        key_url="https://www.perplexity.ai/account/api/keys",
    ),
    Preset(
        "nvidia-nim",
        "https://integrate.api.nvidia.com/v1",
        ("NVIDIA_API_KEY",),
        free=(_tier("2026-10-16", "reported", rpm=40),),
        source="https://github.com/steipete/CodexBar/issues/2498",
        key_url="https://build.nvidia.com/settings/api-keys",
        counted="the account, all models together",
        terms="for evaluation only; the limit varies and is shown in the account alone",
    ),
    Preset(
        "sambanova",
        "https://api.sambanova.ai/v1",
        ("SAMBANOVA_API_KEY",),
        key_url="https://cloud.sambanova.ai/apis",
        terms="a new account answers 402 until a payment method is linked (2026-10-16)",
    ),
    Preset(
        "cohere",
        "https://api.cohere.ai/compatibility/v1",
        ("COHERE_API_KEY", "CO_API_KEY"),
        ("command-*",),
        free=(_tier("2026-10-09", "docs", rpmonth=1_000), _tier("2026-10-09", "docs", "*", rpm=20)),
        source="https://docs.cohere.com/docs/rate-limits (trial keys, not for commercial use)",
        key_url="https://dashboard.cohere.com/api-keys",
        counted="the trial key; requests a minute for each model",
        terms="not for commercial use",
    ),
    Preset(
        "huggingface",
        "https://router.huggingface.co/v1",
        ("HF_TOKEN",),
        key_url="https://huggingface.co/settings/tokens",
        terms="free accounts get little or no monthly credit (2026-10-16)",
    ),
    Preset(
        "zai",
        "https://api.z.ai/api/paas/v4",
        ("ZAI_API_KEY",),
        ("glm-*",),
        key_url="https://z.ai/manage-apikey/apikey-list",
        reset="rolling",
        free=(_tier("2026-10-09", "reported", "glm-4.7-flash", "glm-4.5-flash", "glm-4.6v-flash", parallel=1),),
        source="https://docs.z.ai/guides/overview/pricing",
        counted="each account and model",
        terms="the flash models are free, one call at a time; no other number is published (2026-10-09)",
    ),
    Preset(
        "siliconflow",
        "https://api.siliconflow.cn/v1",
        ("SILICONFLOW_API_KEY",),
        free=(_tier("2026-08-21", "reported", "Qwen/Qwen3-8B", rpm=1_000, tpm=50_000),),
        source="https://github.com/mnfst/awesome-free-llm-apis",
        key_url="https://cloud.siliconflow.cn/account/ak",
        counted="each account and model",
        terms="identity must be verified since 2026-05-15",
    ),
    Preset(
        "modelscope",
        "https://api-inference.modelscope.cn/v1",
        ("MODELSCOPE_API_KEY",),
        reset="rolling",
        free=(_tier("2026-08-21", "docs", rpd=2_000),),
        source="https://modelscope.cn/docs/model-service/API-Inference/limits",
        key_url="https://modelscope.cn/my/myaccesstoken",
        counted="the account; at most 500 a day for each model",
        terms="an Alibaba Cloud account with a checked real name is needed",
    ),
    Preset(
        "ollama-cloud",
        "https://ollama.com/v1",
        ("OLLAMA_API_KEY",),
        key_url="https://ollama.com/settings/keys",
        terms="one call at a time; limits of 5 hours and 7 days are not published (2026-10-16)",
    ),
    Preset(
        "llm7",
        "https://api.llm7.io/v1",
        ("LLM7_API_KEY",),
        reset="rolling",
        free=(_tier("2026-08-21", "docs", rpm=40, rph=100, tpd=1_000_000),),
        source="https://docs.llm7.io/limits (with a free token)",
        key_url="https://token.llm7.io",
        counted="the token",
    ),
    Preset(
        "aion",
        "https://api.aionlabs.ai/v1",
        ("AION_API_KEY",),
        ("aion-labs/*",),
        reset="rolling",
        free=(_tier("2026-08-21", "docs", rpm=15, tpd=20_000),),
        source="https://github.com/mnfst/awesome-free-llm-apis",
        key_url="https://www.aionlabs.ai",
        counted="the account",
    ),
    Preset(
        "ovhcloud",
        "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
        free=(_tier("2026-10-09", "docs", "*", rpm=2),),
        source="https://github.com/mnfst/awesome-free-llm-apis (without a key)",
        counted="each address and model, without a key",
    ),
    Preset(
        "vercel-ai-gateway",
        "https://ai-gateway.vercel.sh/v1",
        ("AI_GATEWAY_API_KEY",),
        key_url="https://vercel.com/docs/ai-gateway",
        terms="$5 of credit a month for each team (2026-08-29)",
    ),
    Preset("ollama", "http://localhost:11434/v1"),
    Preset("lmstudio", "http://localhost:1234/v1"),
    Preset("llamacpp", "http://localhost:8080/v1"),
    Preset("vllm", "http://localhost:8000/v1"),
)
PRESETS: Mapping[str, Preset] = FrozenDict({row.name: row for row in _ROWS})
