"""A key that does not show itself, and the eraser for texts that might hold one.

Strategy: the value leaves only through `reveal()`, which the transport alone calls, at the last moment before the
socket. repr, str, format, vars, copies and pickles never hold it. Must never know what the key is for.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Any, NoReturn

__all__ = ["Secret", "redact"]

MASK = "***"


class Secret:
    """A string that prints as `***`. Equal to a `Secret` or `str` of the same value; cannot be pickled (TypeError)."""

    __slots__ = ("_prefix", "_value")

    def __init__(self, value: str | Secret = "", prefix: str = "") -> None:
        self._value: str = value._value if isinstance(value, Secret) else value
        self._prefix = prefix

    def reveal(self) -> str:
        """The plain value, prefix included."""
        return self._prefix + self._value

    def prefixed(self, prefix: str) -> Secret:
        """The same secret with a public prefix before it, such as "Bearer "."""
        return Secret(self, prefix)

    def fits_header(self) -> bool:
        """Whether every character is printable ASCII without spaces, the only kind that is safe in a header."""
        return all("!" <= char <= "~" for char in self._value)

    def erase_from(self, text: str) -> str:
        """`text` with each occurrence of the value (not its prefix) masked; values under 4 characters are left alone."""
        return text.replace(self._value, MASK) if len(self._value) >= 4 else text

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return f"Secret({MASK!r})" if self._value else "Secret('')"

    def __str__(self) -> str:
        return MASK if self._value else ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (Secret, str)):
            return NotImplemented
        value = other.reveal() if isinstance(other, Secret) else other
        return hmac.compare_digest(self.reveal().encode("utf-8", "replace"), value.encode("utf-8", "replace"))

    def __hash__(self) -> int:
        return hash(self.reveal())

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: pass the key through the environment instead")


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """`text` without any of `secrets`, each occurrence replaced by `***`."""
    for secret in secrets:
        text = secret.erase_from(text)
    return text
