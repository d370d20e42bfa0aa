"""Looks through files of millions of lines: what their rows are called, and what they hold, in numbers.

Strategy: a file is read in blocks of whole lines, and whatever can be done for a whole block is done in one pass over it. That
works where each line of the block is written as this library or nearly everybody writes it; a block with any other line is told
so and is left to whoever reads line by line. Must never know what a line means beyond its beginning.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import compress
from operator import not_
from typing import BinaryIO

BLOCK = 1 << 20
"""Bytes that are read at a time."""


def blocks(file: BinaryIO, longest: int = sys.maxsize) -> Iterator[bytes]:
    """Some whole lines at a time, each with a line break, also the last one of all.

    Of a line that is longer than `longest` bytes only that many are kept, and how it ends.
    """
    rest = b""
    while data := file.read(max(BLOCK, min(len(rest), longest))):
        end = data.rfind(b"\n") + 1
        if end:
            yield rest + data[:end]
            rest = data[end:]
        else:
            rest = (rest + data)[:longest]
    if rest:
        yield rest + b"\n"


def content_hashes(lines: Iterable[bytes]) -> array[int]:
    """64 bits of each, the same on every machine."""
    fresh = blake2b(digest_size=8).copy
    digests = []
    for line in lines:
        one = fresh()
        one.update(line)
        digests.append(one.digest())
    return _big_endian(b"".join(digests))


def own_hashes(lines: Iterable[bytes]) -> array[int]:
    """64 bits of each, for this process alone: Python's own hash, which costs less."""
    return array("Q", array("q", map(hash, lines)).tobytes())


def named_rows(block: bytes) -> tuple[list[bytes], list[bytes]] | None:
    """The `custom_id` of each line of an input, which is the first key of it, and what follows it; None if one is different."""
    found = _NAMED.split(block)  # nothing, name and rest of each line by turns
    names: list[bytes] = found[1::3]
    return (names, found[2::3]) if all(names) else None


def made_keys(block: bytes) -> array[int] | None:
    """The hashes that the lines of an output are named after, if each is an answer to a row without a name; else None."""
    found = _MADE.findall(block)
    return _from_hex(found) if all(found) else None


def answer_names(block: bytes) -> list[bytes] | None:
    """The names of an output's lines, if each is an answer; else None."""
    found: list[bytes] = _ANSWER.findall(block)
    return found if all(found) else None


def record_names(block: bytes) -> tuple[list[bytes], list[bytes]] | None:
    """The names of an output's lines that are answers, and of those that are errors; None if a line is neither."""
    found = _RECORD.split(block)
    names, kinds = found[1::3], found[2::3]
    if not all(kinds):
        return None
    fine = [kind == b"null" for kind in kinds]
    return list(compress(names, fine)), list(compress(names, map(not_, fine)))


def made_from(names: Sequence[bytes]) -> array[int] | None:
    """The hashes in names that were made of them, None if one of the names was not."""
    if _ALL_MADE.fullmatch(whole := b"\n".join([*names, b""])) is None:
        return None
    return _from_hex([whole.replace(b"row-", b"")])


def _from_hex(digits: Sequence[bytes]) -> array[int]:
    return _big_endian(bytes.fromhex(str(b"".join(digits), "ascii")))


def _big_endian(data: bytes) -> array[int]:
    numbers = array("Q", data)
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers


# Each takes a whole line, whatever it is: one that is not as it should be gives empty groups.
_NAMED = re.compile(rb'(?:\{[ \t]*"custom_id"[ \t]*:[ \t]*"([^"\\\n]+)"[ \t]*,?[ \t]*(\}|[^\s,].*\})[^\S\n]*(?=\n))?.*\n')
_MADE = re.compile(rb'(?:\{"custom_id": "row-([0-9a-f]{16})", "error": null)?.*\n')
_ANSWER = re.compile(rb'(?:\{"custom_id": "([^"\\\n]+)", "error": null)?.*\n')
_RECORD = re.compile(rb'(?:\{"custom_id": "([^"\\\n]*)", "error": (null|\{))?.*\n')
_ALL_MADE = re.compile(rb"(?:row-[0-9a-f]{16}\n)*")
