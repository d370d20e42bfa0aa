"""Holds one value that is replaced in one step, without a lock.

Strategy: each version of the value knows the one that came after it, and the first to name itself there has won: one call of
the interpreter's own (`dict.setdefault`), which no thread, signal handler or finalizer can come in between. Nobody ever waits,
so whoever is interrupted at any point, or lost over a fork, stands in nobody's way. Must never know what the value is; it is
not changed, only replaced.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Version(dict[None, "Version[T]"], Generic[T]):
    """One version of a cell's value, and in it, as soon as there is one, the version that came after it."""

    __slots__ = ("value",)

    value: T


class Cell(Generic[T]):
    """`look` at it; make the next value of what was seen, `replace` that version, and look again if another was faster."""

    __slots__ = ("_newest",)

    def __init__(self, value: T) -> None:
        self._newest = Version[T]()
        self._newest.value = value

    def look(self) -> tuple[T, Version[T]]:
        """The value as it is now, and which version that is."""
        version = self._newest
        while True:
            if version:
                version = version[None]
                continue
            value = version.value
            if value is not GONE:
                return value, version
            version = self._newest

    def replace(self, seen: Version[T], value: T) -> bool:
        """Put `value` in the place of the version that was `seen`. False, changing nothing, if that was replaced since."""
        new: Version[T] = Version()
        new.value = value
        if seen.setdefault(None, new) is not new:
            return False
        self._newest = new
        seen.value = GONE  # or a thread that still looks at it would keep every later value alive
        return True


GONE: Any = object()
"""What a version that was replaced has for a value."""
