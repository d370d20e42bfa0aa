"""What a Claude model's name tells about what it accepts.

Strategy: one regular expression reads family and version; every trait is a line that compares versions, so that a new model
of a known kind needs no change. A name that is not Claude's belongs to a server that speaks the same format: it gets the
oldest, most widely spoken form of everything. Must never know requests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Traits", "traits"]

_NAME = re.compile(r"claude-(?:([a-z]+)-)?(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")
NEWEST = (5, 0)  # what a Claude without a version in its name is taken for


@dataclass(frozen=True, slots=True)
class Traits:
    """`budgets`: thinks by a token budget; `adaptive`: thinks by effort; neither: not at all.

    `xhigh`: knows that effort. `stops_thinking`: how "none" is said ("omit", "disabled", or "" for never). `sampling`: takes
    temperature and top_p; `one_sampling`: but not both. `json_format`: writes JSON by schema and checks strict tools. `forcing`:
    may be forced to call a tool. `shows_thinking`: only when asked to.
    """

    budgets: bool = True
    adaptive: bool = False
    xhigh: bool = False
    stops_thinking: str = "omit"
    sampling: bool = True
    one_sampling: bool = False
    json_format: bool = False
    forcing: bool = True
    shows_thinking: bool = False


@lru_cache(256)
def traits(model: str) -> Traits:
    """The traits of the model of this name."""
    start = model.find("claude-")
    if start < 0:
        return Traits()
    found = _NAME.match(model, start)
    version = (int(found[2]), int(found[3] or 0)) if found else NEWEST
    family = found[1] if found else model[start + 7 :].partition("-")[0]
    adaptive = version >= (4, 6)
    since_4_7 = version >= (4, 7)
    always_thinks = family in ("fable", "mythos")
    structured = version >= (4, 5) or (family == "opus" and version == (4, 1))
    return Traits(
        budgets=(3, 7) <= version < (4, 6),
        adaptive=adaptive,
        xhigh=since_4_7,
        stops_thinking="" if always_thinks else "disabled" if version >= (5, 0) else "omit",
        sampling=not since_4_7,
        one_sampling=structured,
        json_format=structured,
        forcing=not always_thinks,
        shows_thinking=since_4_7,
    )
