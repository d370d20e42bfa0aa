"""How the servers that speak OpenAI's format differ from it, one row a server.

Strategy: a table of frozen rows looked up by the provider's name; a server without a row gets the plain format. No other
module compares provider names. Must never know a request's content, nor an account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import lru_cache

from .frozen import EMPTY, FrozenDict

__all__ = ["ALL", "Server", "lacking", "limit_word", "server"]

IMAGE = frozenset({"image"})
USUAL = frozenset({"image", "audio", "document"})
ALL = USUAL | {"video"}

# OpenAI's models that think before they answer; the second set refuses to be sampled otherwise than it likes, the third to
# stop at given words.
THINKERS = ("o[1-9]*", "gpt-5*", "*/o[1-9]*", "*/gpt-5*")
FIXED = ("o[1-9]*", "gpt-5", "gpt-5-[!c]*", "*/o[1-9]*", "*/gpt-5", "*/gpt-5-[!c]*")
UNSTOPPED = ("o[1245-9]*", "o3", "o3-[!m]*", "gpt-5", "gpt-5-[!c]*", "*/o[1-9]*", "*/gpt-5", "*/gpt-5-[!c]*")


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """One server's ways.

    `refuses`: parameters (and "json_schema", a kind of one) it has no word for, each with patterns of the models that
    refuse. `effort_models`: who takes a reasoning effort; `effort_word`: under which key. `long_limit_models`: who wants
    `max_completion_tokens`. `stream_usage`: whether it must be asked for usage on streams, and does not refuse the question.
    `names`: whether it takes a name on a message. `short_ids`: it takes tool call ids of nine letters and digits only.
    `audio_in_total`: spoken input counts in its total alone. `int8_vectors`: the base64 of its vectors holds signed bytes.
    """

    media: frozenset[str] = USUAL
    refuses: Mapping[str, tuple[str, ...]] = field(default=EMPTY)
    effort_models: tuple[str, ...] = ("*",)
    effort_word: str = "reasoning_effort"
    long_limit_models: tuple[str, ...] = ()
    stream_usage: bool = True
    names: bool = True
    developer_role: bool = False
    short_ids: bool = False
    seed_word: str = "seed"
    key_header: str = "Authorization"
    mistral_media: bool = False
    audio_in_total: bool = False
    embed_format: bool = True
    dimensions_word: str = "dimensions"
    int8_vectors: bool = False


def server(name: str) -> Server:
    """The ways of the provider `name`."""
    return _SERVERS.get(name, _PLAIN)


@lru_cache(maxsize=1024)
def lacking(server: Server, model: str) -> frozenset[str]:
    """The parameters that `model` on this server refuses, "json_schema" among them."""
    found = {name for name, patterns in server.refuses.items() if _any(model, patterns)}
    if not _any(model, server.effort_models):
        found.add("reasoning_effort")
    return frozenset(found)


@lru_cache(maxsize=1024)
def limit_word(server: Server, model: str) -> str:
    """Under which key `model` on this server takes the bound of its answer."""
    return "max_completion_tokens" if _any(model, server.long_limit_models) else "max_tokens"


def _any(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in patterns)


_PLAIN = Server()
_OPENAI = Server(
    refuses=FrozenDict(temperature=FIXED, top_p=FIXED, stop=UNSTOPPED),
    effort_models=THINKERS,
    long_limit_models=THINKERS,
    developer_role=True,
)
_GROK = Server(
    media=IMAGE,
    refuses=FrozenDict(stop=("grok-3-mini*", "grok-4*")),
    effort_models=("grok-3-mini*", "grok-4.2*multi-agent*", "grok-4.3*"),
)
_CEREBRAS = Server(media=IMAGE, effort_models=("*gpt-oss*", "zai-glm*"))
_MISTRAL = Server(
    effort_models=("mistral-small*", "mistral-medium*"),
    stream_usage=False,
    names=False,
    short_ids=True,
    seed_word="random_seed",
    mistral_media=True,
    audio_in_total=True,
    dimensions_word="output_dimension",
)
_AZURE = Server(
    refuses=_OPENAI.refuses, effort_models=THINKERS, long_limit_models=THINKERS, developer_role=True, key_header="api-key"
)
_SERVERS: Mapping[str, Server] = FrozenDict(
    {
        "openai": _OPENAI,
        "azure_openai": _AZURE,
        "github-models": Server(
            media=frozenset({"image", "audio"}),
            refuses=_OPENAI.refuses,
            effort_models=THINKERS,
            long_limit_models=THINKERS,
        ),
        "grok": _GROK,
        "xai": _GROK,
        "cerebras": _CEREBRAS,
        "cerebro": _CEREBRAS,
        "groq": Server(media=IMAGE, effort_models=("*gpt-oss*", "*qwen3*"), names=False),
        "openrouter": Server(media=ALL, effort_word="reasoning"),
        "vercel-ai-gateway": Server(effort_word="reasoning"),
        "mistral": _MISTRAL,
        "deepseek": Server(media=frozenset(), refuses=FrozenDict(json_schema=("*",))),
        "perplexity": Server(
            media=frozenset({"image", "document"}),
            refuses=FrozenDict(tools=("*",), tool_choice=("*",), seed=("*",)),
            stream_usage=False,
            embed_format=False,
            int8_vectors=True,
        ),
        "voyage": Server(embed_format=False, dimensions_word="output_dimension"),
        "ollama": Server(media=IMAGE),
        "ollama-cloud": Server(media=IMAGE),
        **dict.fromkeys(("together", "zai", "huggingface", "siliconflow", "modelscope", "vllm"), Server(media=ALL)),
    }
)
