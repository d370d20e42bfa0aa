"""What well-known models can take: text, image, audio, video, document, tools, json.

Strategy: rows of name patterns, the first match counts, the most particular stand first. The same model has the same
row at every provider, apart from a few. A name that no row knows is unknown, which is not the same as unable; whoever
knows better says so in the account's `capabilities`. Must never ask a provider.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache

from .account import CAPABILITIES

__all__ = ["abilities_of"]


@lru_cache(maxsize=1024)
def abilities_of(provider: str, model: str) -> frozenset[str] | None:
    """What `model` at `provider` (its name in the catalog) can take; None: unknown."""
    name = model.lower().rpartition("/")[2].partition(":")[0]
    for where, pattern, words in _ROWS:
        if where in ("", provider) and fnmatchcase(name, pattern):
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
_ROWS: tuple[tuple[str, str, frozenset[str]], ...] = (
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
