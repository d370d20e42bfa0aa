"""Finds a word in a text however the text spells it: escaped as JSON, JavaScript, URLs or HTML do, or packed as base64.

Strategy: the text is read as it is, then with its escapes resolved, and so on while there are any, since escapes are escaped in
turn; each reading remembers where its characters stand in the text. Must never know what the words are for.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence

from .lazy_pattern import lazy_pattern

READINGS = 4
"""How often escapes are resolved at most: the text itself, then escapes within escapes."""

SHORTEST_PACKED = 8
"""Characters of base64; fewer would be found by chance."""

Span = tuple[int, int]
"""Where something stands in a text: from the first place up to, not with, the second."""

_ESCAPE = lazy_pattern(
    r"\\u00([0-9A-Fa-f]{2})|\\x([0-9A-Fa-f]{2})|%([0-9A-Fa-f]{2})|&#[xX]0*([0-9A-Fa-f]{1,4});|&#0*([0-9]{1,5});"
    r"|(&[A-Za-z]{2,8};)|\\([\"'\\/])"
)
_HALF_ESCAPE = lazy_pattern(r"(?:\\(?:u[0-9A-Fa-f]{0,3}|x[0-9A-Fa-f]?)?|%[0-9A-Fa-f]?|&#?[0-9A-Za-z]{0,7})\Z")


def spans_of(words: Sequence[str], text: str, cut: int = 0) -> list[Span]:
    """Where any of `words` stands in `text`, in whatever spelling. `cut`: a word may be cut at the end of the text, but for so
    many of its first characters; 0: it may not."""
    found: list[Span] = []
    for reading, places in _readings(text):
        for word in words:
            if word[: cut or None] not in reading:
                continue  # as nearly always
            start = reading.find(word)
            while start >= 0:
                end = start + len(word)
                found.append((places[start], places[end]))
                start = reading.find(word, end)
            size = _cut_size(word, reading, cut) if cut else 0
            if size:
                found.append((places[len(reading) - size], len(text)))
    return found


def shows_any(words: Sequence[str], text: str) -> bool:
    """Whether any of `words` stands in `text`, in whatever spelling."""
    return any(word in reading for reading, _ in _readings(text) for word in words)


def packed(word: str) -> Iterator[str]:
    """What base64 makes of `word`, in both alphabets: alone, and as much as is certain among whatever else."""
    raw = word.encode("utf-8", "replace")
    alone = b64encode(raw).decode()
    made = [alone, alone.rstrip("=")]
    for before in range(3):
        core = b64encode(bytes(before) + raw).decode()[(0, 2, 3)[before] : (before + len(raw)) * 8 // 6]
        made += [core] * (len(core) >= SHORTEST_PACKED)
    for each in dict.fromkeys(made):
        yield each
        yield each.replace("+", "-").replace("/", "_")


def _readings(text: str) -> Iterator[tuple[str, Sequence[int]]]:
    """`text`, then with its escapes resolved; with each reading the place in `text` of each of its characters, and of its end."""
    places: Sequence[int] = range(len(text) + 1)
    for _ in range(READINGS):
        yield text, places
        if "\\" not in text and "%" not in text and "&" not in text:
            return
        resolved, starts = _resolved(text)
        if len(resolved) == len(text):
            return
        text, places = resolved, [places[start] for start in starts]


def _resolved(text: str) -> tuple[str, list[int]]:
    """`text` with its escapes resolved, one that was cut at its end left out, and where each character stood."""
    half = _HALF_ESCAPE.search(text)
    end = half.start() if half else len(text)
    pieces: list[str] = []
    starts: list[int] = []
    last = 0
    for match in _ESCAPE.finditer(text, 0, end):
        meant = _meaning(match)
        pieces += (text[last : match.start()], meant)
        starts += range(last, match.start())
        starts += [match.start()] * len(meant)
        last = match.end()
    pieces.append(text[last:end])
    starts += range(last, end)
    starts.append(end)
    return "".join(pieces), starts


def _meaning(match: re.Match[str]) -> str:
    for group, base in ((1, 16), (2, 16), (3, 16), (4, 16), (5, 10)):
        if match[group]:
            return chr(int(match[group], base))
    if match[6]:
        from html import unescape

        return unescape(match[6])
    return match[7]


def _cut_size(word: str, text: str, least: int) -> int:
    """How many characters of the beginning of `word` end `text`, 0 for fewer than `least`."""
    for size in range(min(len(word) - 1, len(text)), least - 1, -1):
        if text.endswith(word[:size]):
            return size
    return 0
