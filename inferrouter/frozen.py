"""Makes immutable copies of what a caller hands in as dicts and lists.

Strategy: a dict that refuses to change still is a dict to json, pickle and `==`, so values that hold one stay
comparable and printable. Must never know what the data means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict whose every mutator raises TypeError. Hashable when its values are."""

    __slots__ = ()

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("this mapping is part of an immutable value; build a new one with dict(...)")

    __setitem__ = __delitem__ = update = setdefault = pop = popitem = clear = __ior__ = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # dict is unhashable only because it can change
        return hash(frozenset(self.items()))

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


EMPTY: FrozenDict[str, Any] = FrozenDict()

_DEEPEST = 100


def freeze(value: Any, depth: int = 0) -> Any:
    """A deep copy in which dicts are `FrozenDict`s and lists are tuples.

    What lies deeper than any real data, such as the inside of a list that holds itself, stays as it is.
    """
    if isinstance(value, FrozenDict) or depth > _DEEPEST:
        return value
    if isinstance(value, Mapping):
        return FrozenDict({key: freeze(item, depth + 1) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item, depth + 1) for item in value)
    return value
