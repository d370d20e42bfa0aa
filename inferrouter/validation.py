"""Judges one value a user wrote: each check returns what is wrong in words, or None.

Strategy: a check never raises and never repeats the value, because it may be a key in the wrong place; it names the type instead.
The caller puts the path before the text, so that all faults of a configuration can be listed at once. URLs and headers may hold
the little that providers need: http or https, a plain host, a port, a path; plain http is for this machine only, unless allowed.
Must never know which setting it looks at.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from urllib.parse import SplitResult, urlsplit

from .lazy_pattern import lazy_pattern
from .secret import MASK, Secret

URL_FOR_FILE = "is a URL, but this setting names a file: the URL of a server goes into quota.url"

_WILD = frozenset("?[")


def check_number(
    value: object, *, least: float = 0.0, most: float = 1e18, above: float | None = None, whole: bool = False
) -> str | None:
    """A finite int or float, no bool: `least` <= value <= `most`, more than `above`, without a fraction if `whole`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        advice = "; write it without quotes" if isinstance(value, str) else ""
        return f"must be a number, not {describe_type(value)}{advice}"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if above is not None and value <= above:
        return f"must be greater than {above:g}"
    if value < least:
        return "must not be negative" if least == 0 else f"must be at least {least:g}"
    if value > most:
        return f"must be at most {most:g}"
    if whole and value != int(value):
        return "must be a whole number"
    return None


def check_bool(value: object) -> str | None:
    """true or false, nothing that merely counts as one."""
    return None if isinstance(value, bool) else f"must be true or false, not {describe_type(value)}"


def matches(name: str, pattern: str) -> bool:
    """Whether `name` fits `pattern` as in the shell, case included. Stars alone need no regex, whose compiling is dear, nor does
    a name that begins otherwise."""
    if _WILD.isdisjoint(pattern):
        first, *others = pattern.split("*")
        if not others:
            return name == pattern
        last = others.pop()
        place = len(first)
        for part in others:
            place = name.find(part, place)
            if place < 0:
                return False
            place += len(part)
        return name.startswith(first) and name.endswith(last) and place + len(last) <= len(name)
    if not name.startswith(pattern.partition("[")[0].partition("?")[0].partition("*")[0]):
        return False
    from fnmatch import fnmatchcase

    return fnmatchcase(name, pattern)


def check_name(value: object) -> str | None:
    """A string with something to read in it, on one line, without blanks at its ends."""
    if not isinstance(value, str):
        return f"must be a string, not {describe_type(value)}"
    if not value:
        return "must not be empty"
    if value != value.strip() or not value.isprintable():
        return "must not hold control characters, nor blanks at its ends"
    return None


def class_in_words(given: type) -> str:
    """What is wrong with a class where an instance of it is meant."""
    return f"is the class {given.__name__}: pass an instance of it, as in {given.__name__}()"


def check_path(value: object) -> str | None:
    """The path of a file, in whichever of Python's ways."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        return f"must be a string, not {describe_type(value)}"
    name = os.fsdecode(value)
    if name in ("", ":memory:") or "\0" in name:
        return "names no file; to count in memory alone use the store 'memory'"
    if looks_like_url(name):  # which may hold a password, so it is not repeated
        return f'{URL_FOR_FILE}, with store = "redis" or "postgres"'
    return None


def looks_like_url(text: str) -> bool:
    """Whether a URL's scheme stands in `text`, also after a folder that was put before it."""
    return re.search(r"(?:^|[/\\])[A-Za-z][A-Za-z0-9+.-]+:/", text) is not None


def check_choice(value: object, known: Sequence[str]) -> str | None:
    """One of the words in `known`."""
    if not isinstance(value, str):
        return f"must be one of {', '.join(known)}, not {describe_type(value)}"
    if value not in known:
        return f"is not one of {', '.join(known)}{did_you_mean(value, known)}"
    return None


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for the known word most like `word`, or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(str(word).lower(), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def misfit_in_words(kind: str, names: Iterable[str], known: Collection[str], required: Sequence[str] = ()) -> str:
    """What to say of `kind(...)` that was given settings `names`, not all of which it has, or too few of those `required`."""
    strange = next((name for name in names if name not in known), None)
    if strange is None:
        return f"{kind}: needs {' and '.join(required) or 'no more'}, and takes each setting once, by name"
    if strange in ("api_key", "key", "token") and "auth" in known:
        return f"{kind}: has no setting {strange!r}: write auth=Auth(api_key=...)"
    return f"{kind}: has no setting {shown_name(strange)!r}{did_you_mean(strange, known)}"


def shown_name(name: object) -> str:
    """What stands in the place of a setting's name, to be repeated in a problem; masked where it may be a key, or a URL, which
    may hold a password."""
    text = str(name)
    return MASK if _SECRET_NAME.search(text) else text


def describe_type(value: object) -> str:
    """What `value` is, in the words of a config file and never showing it, apart from true, false and nothing."""
    if value is None:
        return "nothing (None)"
    if isinstance(value, bool):
        return "true" if value else "false"
    for types, words in _KINDS:
        if isinstance(value, types):
            return words
    return f"a {type(value).__name__}"


_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((str,), "a string"),
    ((int, float), "a number"),
    ((Mapping,), "a table"),
    ((list, tuple, set, frozenset), "a list"),
)


_SECRET_NAME = lazy_pattern(
    r"[:@]/?/?\S*@|://|\b(?:bearer|basic|token) \S|(?:sk|pk|rk|gsk|csk|xai|hf|nvapi|pplx|api|key)[-_][A-Za-z0-9_-]{8,}|AIza"
    r"|(?=[A-Za-z_/+=-]*[0-9])(?=[0-9_/+=-]*[A-Za-z])[A-Za-z0-9_/+=-]{20,}",
    re.IGNORECASE,
)
_BAD_HOST = "has no valid host name, or a port outside 1 to 65535"
_VISIBLE = lazy_pattern(r"[!-~]+")
_TEXT = lazy_pattern(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_NAME = lazy_pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ENDPOINT = lazy_pattern(
    r"/(?:chat/completions|completions|embeddings|messages|responses|models/[^/]+:[A-Za-z]+Content)/*\Z", re.IGNORECASE
)
_CREDENTIAL = lazy_pattern(r"auth|key|token|secret|cookie|passw|credential", re.IGNORECASE)
_LABEL = r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_NETLOC = lazy_pattern(rf"(?!.{{260}})(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?")
_LOOPBACK = lazy_pattern(r"localhost|127(?:\.[0-9]{1,3}){3}|::1", re.IGNORECASE)


def check_base_url(url: str, allow_http: bool = False) -> str | None:
    """What is wrong with a provider's base URL, None if nothing. The text never repeats the URL beyond its host."""
    problem = check_url(url, allow_http)
    if problem is None and "?" in url:
        return "has a query; give the address up to the path only, and the key as auth.api_key"
    endpoint = _ENDPOINT.search(url)
    if problem is None and endpoint:
        return f"ends with {endpoint[0].rstrip('/')}, which is added to it for each call; give the address before that"
    return problem


def check_url(url: str, allow_http: bool = False) -> str | None:
    """The same for the URL of one request, which may have a query."""
    if not _VISIBLE.fullmatch(url):
        return "is empty, or has a space, a control or a non-ASCII character"
    if "\\" in url or "#" in url:
        return "has a backslash or a fragment (#)"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return _BAD_HOST
    return _check_parts(parts, port, allow_http)


def check_header_name(name: str) -> str | None:
    """What is wrong with a header's name, None if nothing."""
    return None if _NAME.fullmatch(name) else "is not a header name"


def check_header_value(value: str | Secret) -> str | None:
    """What is wrong with a header's value, None if nothing. The text never repeats the value."""
    fits = value.fits_header(blanks=True) if isinstance(value, Secret) else _TEXT.fullmatch(value) is not None
    return None if fits else "has a space at an end, a line break, a control or a non-ASCII character, which no header may carry"


@functools.lru_cache(maxsize=256)
def names_credential(header: str) -> bool:
    """Whether a header of this name holds what nobody may see, such as Authorization, api-key or Cookie."""
    return _CREDENTIAL.search(header) is not None


def _check_parts(parts: SplitResult, port: int | None, allow_http: bool) -> str | None:
    host = parts.hostname
    if parts.scheme not in ("http", "https"):
        return "must start with https:// (or http:// for this machine)"
    if "@" in parts.netloc:
        return "has a user name or password before the host; put the key in auth.api_key"
    if not host or port == 0 or not _NETLOC.fullmatch(parts.netloc):
        return _BAD_HOST
    if parts.scheme == "http" and not allow_http and not _LOOPBACK.fullmatch(host):
        return f"would send the key in the clear to {host}; use https, or allow_http if that network is yours"
    return None
