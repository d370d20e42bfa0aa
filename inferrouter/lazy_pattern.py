"""Makes regular expressions that compile when they are first used.

Strategy: compiling twenty of them took a tenth of what a script waits for before its first call, and most scripts use five. The
stand-in takes over the pattern's methods at the first question, so that later ones cost nothing more. Must never know what is
matched.
"""

from __future__ import annotations

import re
from typing import Any, AnyStr, Generic, cast

_METHODS = ("search", "match", "fullmatch", "findall", "finditer", "sub", "subn", "split")


class _LazyPattern(Generic[AnyStr]):
    def __init__(self, pattern: AnyStr, flags: int) -> None:
        self.pattern: AnyStr = pattern
        self.flags = flags

    def __getattr__(self, name: str) -> Any:  # asked for what is not there yet
        compiled = re.compile(self.pattern, self.flags)
        for method in _METHODS:
            setattr(self, method, getattr(compiled, method))
        return getattr(compiled, name)


def lazy_pattern(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """What `re.compile` gives, compiled at its first use."""
    return cast("re.Pattern[AnyStr]", _LazyPattern(pattern, flags))
