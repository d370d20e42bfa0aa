"""Reads and writes the JSON of requests and answers, and the values in it that servers write in many ways.

Strategy: strict where a wrong value would lie (NaN, absurd nesting, a word in a vector), tolerant of what is only missing.
What is read can be printed and stored: lone surrogates become U+FFFD. Every problem of an answer is a `MalformedResponseError`,
every problem of a request an `InvalidRequestError`. Must never know a wire format, HTTP or a provider.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from .errors import InvalidRequestError, MalformedResponseError
from .frozen import FrozenDict
from .lazy_pattern import lazy_pattern

MOST_MARKS = 10**12
"""No call uses more, so that what is counted stays far below what a quota store takes (2**53)."""
NO_REASON = frozenset(("", "null", "none"))


def write_json(body: Mapping[str, Any]) -> bytes:
    """`body` as compact JSON. Raises `InvalidRequestError` for what JSON cannot express, such as NaN."""
    return write_value(body).encode()


def write_value(value: Any) -> str:
    """Any value as `write_json` writes it."""
    try:
        return _compact(value)
    except (TypeError, ValueError, RecursionError) as exc:
        raise _unwritable(exc) from exc


def write_members(body: Mapping[str, Any]) -> str:
    """The members of `body` as `write_json` writes them, each after a comma. What cannot change, as a schema, is written once."""
    try:
        return "".join([f",{quoted(name)}:{_member(value)}" for name, value in body.items()])
    except (TypeError, ValueError, RecursionError) as exc:
        raise _unwritable(exc) from exc


def dump_json(value: Any) -> str:
    """A value out of an answer as compact JSON text. Raises `MalformedResponseError` where that cannot be written."""
    try:
        return clean_text(_READABLE.encode(value))
    except (ValueError, RecursionError) as exc:
        raise MalformedResponseError(message="the answer holds JSON that cannot be written again") from exc


def merge_extra(body: dict[str, Any], extra: Mapping[str, Any] | None) -> None:
    """Put the caller's `extra` over `body`; where both hold an object under one key, their members are merged."""
    for key, value in (extra or {}).items():
        known = body.get(key)
        body[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value


def as_object(text: str, key: str) -> dict[str, Any]:
    """`text` as the JSON object it is; if it is not one, an object that holds it under `key`."""
    stripped = text.strip()
    if stripped.startswith("{"):
        try:
            found: dict[str, Any] = load_json(stripped)
            return found
        except MalformedResponseError:
            pass
    return {key: text}


def load_json(data: bytes | str) -> Any:
    """`data` as JSON, ill-formed UTF-8 being U+FFFD. Raises `MalformedResponseError`, for NaN, 1e999 and absurd nesting."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        if text[:1] == "{":  # as nearly always: spares the search for white space around it, a quarter of a chunk's parsing
            try:
                item, end = _SCAN(text, 0)
                if end == len(text):
                    return item
            except StopIteration:
                pass
        return _DECODER.decode(text)
    except RecursionError:
        problem = "nested too deeply"
    except ValueError as exc:
        problem = str(exc)[:100]
    # Raised outside the handler: the stdlib's error holds the whole document, which may echo a key.
    raise MalformedResponseError(message=f"the answer is not JSON ({problem})", body=clean_text(text[:2048]))


def write_event(data: Any, event: str = "", end: str = "\n") -> bytes:
    """One server-sent event. `data`: JSON-encoded unless it is a string; `event`: its name, "" for none; `end`: of its lines."""
    text = data if isinstance(data, str) else _SENT.encode(data)
    name = f"event: {event}{end}" if event else ""
    return f"{name}data: {text}{end}{end}".encode("utf-8", "replace")


def load_cut_json(text: str) -> Any:
    """JSON that was cut off somewhere, as far as it goes: of its last value the beginning counts, or nothing.

    Raises `MalformedResponseError` where nothing is left of it.
    """
    closers: list[str] = []
    kept, last = 0, ""
    for match in _MARK.finditer(text):
        mark = match[0]
        if mark in _CLOSER:
            closers.append(_CLOSER[mark])
        elif mark in ("}", "]") and closers:
            closers.pop()
        if mark[0] != '"' and mark != ":":
            kept = match.start() if mark == "," else match.end()
        elif match.end() == len(text) and last == ":":
            kept = len(text)  # a string that was cut, or came whole just before the cut
        last = mark
    ending = "".join(reversed(closers))
    if kept == len(text) and last[:1] == '"':
        for size in range(kept, max(kept - _LONGEST_ESCAPE, 0), -1):
            try:
                return load_json(f'{text[:size]}"{ending}')
            except MalformedResponseError:
                continue
    return load_json(text[:kept] + ending)


def malformed(message: str, source: str = "") -> NoReturn:
    """Raise `MalformedResponseError` with `message` and the beginning of `source`."""
    raise MalformedResponseError(message=message, body=source[:2048])


def read_vector(values: Any, what: str) -> tuple[float, ...]:
    """A list of finite numbers as a vector. Raises `MalformedResponseError` that calls it `what`."""
    if not isinstance(values, list) or not values or not {type(value) for value in values} <= {int, float}:
        malformed(f"{what} is not a list of numbers")
    try:
        vector = tuple(map(float, values))
    except OverflowError:
        vector = (math.inf,)
    if not all(map(math.isfinite, vector)):
        malformed(f"{what} holds a number that is not finite")
    return vector


def tokens(value: Any) -> int:
    """A token count as a server wrote it, at most `MOST_MARKS`; anything but a number above 0 (a bool, a string, None) is 0."""
    if type(value) is int and 0 <= value <= MOST_MARKS:
        return value
    if type(value) is int or (type(value) is float and value < 1e15):
        return int(min(value, MOST_MARKS)) if value > 0 else 0
    return 0


def text_or_empty(value: Any) -> str:
    """A string that can be printed (see `clean_text`); "" for a value that is not a string."""
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else clean_text(value)


def finish_word(value: Any, what: str) -> str | None:
    """A finish reason as a server wrote it; None for none at all, which some write as "" or as the word null.

    Raises `MalformedResponseError` that calls it `what` if it is not a string.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        malformed(f"{what} is not a string")
    return None if value.strip().lower() in NO_REASON else clean_text(value)


def clean_text(text: str) -> str:
    """`text` with lone surrogates replaced by U+FFFD, so that it can be printed and stored."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def has_error(item: Any) -> bool:
    """Whether an answer is an object with an `error`, or a list that begins with one."""
    first = _first(item)
    return isinstance(first, (dict, Mapping)) and bool(first.get("error"))


def embedded_status(item: Any, default: int) -> int:
    """The HTTP status an error object inside a 2xx answer names for itself, or `default`."""
    holder = _first(item)
    error = holder.get("error") if isinstance(holder, Mapping) else None
    for source in (error, holder):
        if isinstance(source, Mapping):
            for key in ("status_code", "code", "status"):
                value = source.get(key)
                if type(value) is int and 400 <= value < 600:
                    return value
                if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit() and 400 <= int(value) < 600:
                    return int(value)
    return default


def _member(value: Any) -> str:
    if isinstance(value, FrozenDict):
        return value.once(_compact)
    return f"[{','.join(map(_member, value))}]" if type(value) is list else _compact(value)


def _unwritable(exc: Exception) -> InvalidRequestError:
    return InvalidRequestError(message=f"the request cannot be written as JSON ({exc}): look at extra and tools")


def _first(item: Any) -> Any:
    return item[0] if isinstance(item, list) and item else item


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    """A number with a fraction or an exponent. Takes 0.1 us more than the decoder's own, which makes infinity of 1e999."""
    value = float(digits)
    if value - value != 0.0:
        raise ValueError("a number is not finite")
    return value


_MARK = lazy_pattern(r'"(?:[^"\\]|\\.)*+(?:"|\\?$)|[{}\[\],:]', re.DOTALL)
_CLOSER = {"{": "}", "[": "]"}
_LONGEST_ESCAPE = 6  # characters, as of \\u00e9

_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_SCAN = _DECODER.scan_once  # type: ignore[attr-defined]  # documented for subclasses only, there since Python 2.7

quoted = json.encoder.encode_basestring_ascii
"""A string as JSON, which is ASCII then."""

# json.dumps would build an encoder for every call that is not all defaults.
_COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def _encoder() -> Callable[[Any], str]:
    """What `_COMPACT.encode` does, which makes a C encoder anew for each body: a fifth of its time."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # a Python without the C module
        return _COMPACT.encode
    pieces = make(None, _COMPACT.default, quoted, None, ":", ",", False, False, False)
    return lambda body: "".join(pieces(body, 0))


_compact = _encoder()
_READABLE = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)
_SENT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
