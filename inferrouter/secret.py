"""Hides keys: a value that does not show itself, and the eraser for texts that might hold one.

Strategy: the value leaves only through `reveal()`, which `http_opener` alone calls for a key, at the last moment before the
socket, and `quota_url` alone for a store's URL, which may hold a password. repr, str, format, vars, copies and pickles never hold
it, and it is erased in whatever way a text spells it. Must never know what the key is for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

from .frozen import shown_once_made

MASK = "***"
SHORTEST = 4
"""Characters; anything shorter is not a key, and would be found in ordinary words."""

SCHEMES = frozenset(("bearer", "basic", "token", "key", "apikey", "api-key", "digest"))
"""What stands before a credential in a header, in lower case."""

TELLING = 8
"""Characters; a text with this many of a key's first ones may be an abridged copy of it."""


class Secret:
    """A string that prints as `***`. Equal to a `Secret` or `str` of the same value; cannot be pickled (TypeError)."""

    __slots__ = ("_prefix", "_spelled", "_value")

    def __init__(self, value: str | Secret = "", prefix: str = "") -> None:
        self._value: str = value._value if isinstance(value, Secret) else value
        self._prefix = prefix
        self._spelled: tuple[str, ...] | None = None

    def reveal(self) -> str:
        """The plain value, prefix included."""
        return self._prefix + self._value

    def prefixed(self, prefix: str) -> Secret:
        """The same secret with a public prefix before it, such as "Bearer "."""
        return Secret(self, prefix)

    @classmethod
    def of_header(cls, text: str) -> Secret:
        """The secret that a header's value is; the name of a scheme before it, such as "Bearer", is its public prefix."""
        scheme, blank, rest = text.partition(" ")
        return cls(rest, scheme + blank) if rest and scheme.lower() in SCHEMES else cls(text)

    def fits_header(self, blanks: bool = False) -> bool:
        """Whether every character is printable ASCII, the only kind that is safe in a header; `blanks`: also between words."""
        value = self._value.replace(" ", "") if blanks and self._value == self._value.strip() else self._value
        return all("!" <= char <= "~" for char in value)

    def erase_from(self, text: str, cut: bool = False) -> str:
        """`text` with each occurrence of the value (not its prefix) masked, however JSON, URLs, HTML or base64 spell it.

        `cut`: the text may end inside the value, so its beginning goes there too. Under 4 characters nothing is masked.
        """
        if len(self._value) < SHORTEST:
            return text
        from .escapes import spans_of

        kept = end = 0
        pieces: list[str] = []
        for start, stop in sorted(spans_of(self._words(), text, SHORTEST if cut else 0)):
            if start >= end:
                pieces += (text[kept:start], MASK)
            kept = end = max(end, stop)
        return "".join([*pieces, text[kept:]])

    def shows_in(self, text: str) -> bool:
        """Whether `text` holds the value, or enough of its beginning to be an abridged copy. Cautious: it may be mistaken."""
        from .escapes import shows_any

        return len(self._value) >= SHORTEST and shows_any([word[:TELLING] for word in self._words()], text)

    def _words(self) -> tuple[str, ...]:
        """The value as it is and as base64 writes it, worked out once."""
        if self._spelled is None:
            from .escapes import packed

            self._spelled = (self._value, *packed(self._value))
        return self._spelled

    def __bool__(self) -> bool:
        return bool(self._value)

    @shown_once_made
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
        import hmac

        return hmac.compare_digest(self.reveal().encode("utf-8", "replace"), value.encode("utf-8", "replace"))

    def __hash__(self) -> int:
        return hash(self.reveal())

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: pass the key through the environment instead")


def fingerprint(*parts: str | Secret) -> str:
    """Eight digits that tell these texts and secrets from others, and from which nobody gets back to them."""
    from hashlib import blake2b

    digest = blake2b(digest_size=4)  # so short that countless keys share it: enough to see a change, of no use for a guess
    for part in parts:
        value = part._value if isinstance(part, Secret) else part
        digest.update(value.encode("utf-8", "replace") + b"\0")
    return digest.hexdigest()


def redact(text: str, secrets: Iterable[Secret], cut: bool = False) -> str:
    """`text` without any of `secrets`, each occurrence replaced by `***`; `cut` as for `Secret.erase_from`."""
    for secret in secrets:
        text = secret.erase_from(text, cut)
    return text
