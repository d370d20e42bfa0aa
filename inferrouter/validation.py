"""What may stand in a URL and in a header, said before anything is sent.

Strategy: allow the little that providers need (http or https, a plain host, a port, a path) and name the first thing that
is more, never repeating the URL or the value, since either may hold a key. Plain http is for this machine only, unless
allowed. Must never know accounts or sockets.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from .secret import Secret

__all__ = ["check_base_url", "check_header_name", "check_header_value", "check_url"]

_BAD_HOST = "has no valid host name, or a port outside 1 to 65535"
_VISIBLE = re.compile(r"[!-~]+")
_TEXT = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LABEL = r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_NETLOC = re.compile(rf"(?!.{{260}})(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?")
_LOOPBACK = re.compile(r"localhost|127(?:\.[0-9]{1,3}){3}|::1", re.IGNORECASE)


def check_base_url(url: str, allow_http: bool = False) -> str | None:
    """What is wrong with a provider's base URL, None if nothing. The text never repeats the URL beyond its host."""
    problem = check_url(url, allow_http)
    if problem is None and "?" in url:
        return "has a query; give the address up to the path only, and the key as auth.api_key"
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
    return None if _NAME.fullmatch(name) else "is no header name"


def check_header_value(value: str | Secret) -> str | None:
    """What is wrong with a header's value, None if nothing. Secrets may have no spaces. The text never repeats the value."""
    fits = value.fits_header() if isinstance(value, Secret) else _TEXT.fullmatch(value) is not None
    return None if fits else "has a space, line break, control or non-ASCII character that no header may carry"


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
