"""Says which known name a name looks like a misspelling of, so that nobody serves a typo as if it were meant.

Strategy: few edits between the letters of two names; other numbers or a tag of its own make another model, never a typo. A false
alarm costs its caller one word more, a swallowed typo an answer of the wrong model. Must never know a provider.
"""

from __future__ import annotations

from collections.abc import Iterable

from .lazy_pattern import lazy_pattern

SHORTEST = 3
"""Letters; what is shorter is like everything."""
MOST_EDITS = 2
LONGEST_SHOWN = 200
"""Characters of a model's name; of a longer one an error shows no more, and says nothing that would repeat it."""


def misspelt(name: str, known: Iterable[str], patterns: Iterable[str] = ()) -> list[str]:
    """The names in `known`, then the shell-style `patterns`, that `name` looks like a misspelling of; the nearest first."""
    found = sorted((edits, place, each) for place, each in enumerate(known) if (edits := _edits_of_typo(name, each)))
    head = "" if "/" in name else _head(name)  # before a slash stands a maker
    begins = [each for each in patterns if len(_head(each)) >= SHORTEST and edit_distance(head, _head(each), 1) == 1]
    return [each for _, _, each in found] + (begins if len(head) >= SHORTEST else [])


def edit_distance(one: str, other: str, most: int) -> int:
    """How many letters must be put in, left out, replaced or swapped; `most` + 1 for anything above `most`."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        earlier, before, row = before, row, [i]
        for j, right in enumerate(other, 1):
            cost = min(before[j] + 1, row[-1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == other[j - 2] and one[i - 2] == right:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return min(row[-1], most + 1)


def _edits_of_typo(name: str, known: str) -> int:
    """How many edits lie between them if the one may be meant by the other, else 0."""
    if abs(len(name) - len(known)) > MOST_EDITS:  # asked first, as the name may be megabytes long
        return 0
    one, other = name.lower(), known.lower()
    if name == known or min(len(one), len(other)) < SHORTEST or (":" in one) != (":" in other):
        return 0
    if one == other:
        return 1
    if _digits(one) != _digits(other):
        return 0
    most = 1 if len(one) < 8 else MOST_EDITS
    edits = edit_distance(one, other, most)
    return edits if edits <= most else 0


def _digits(name: str) -> str:
    return "".join(filter(str.isdigit, name))


def _head(name: str) -> str:
    """The letters that `name` begins with."""
    match = _LETTERS.match(name.lower())
    return match[0] if match else ""


_LETTERS = lazy_pattern(r"[a-z]*")
