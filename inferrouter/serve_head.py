"""Reads the head of an HTTP request by the strict rules that a server on a shared machine needs.

Strategy: one regular expression for the request line and one for all fields; whatever another reader of the same bytes could
take otherwise (a bare line feed, a folded line, two lengths, a length beside a transfer coding) is refused with its status, so
that no request can hide in another one. Nothing is guessed. Must never know sockets, bodies or what a path means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .frozen import frozen_value, quick

MAX_HEAD = 64 << 10
"""Bytes of a whole head."""
MAX_FIELDS = 100
_MAX_TARGET = 8 << 10
_LINE = re.compile(r"([A-Za-z]{1,20}) ([!-~]+) HTTP/([0-9])\.([0-9])")
_FIELD = r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n"
_FIELDS = re.compile(_FIELD)
_ONLY_FIELDS = re.compile(f"(?:{_FIELD})*+")
_ONCE = ("host", "content-length", "transfer-encoding", "authorization", "origin", "content-type")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_.-]+)(?::[0-9]{1,5})?")


class BadRequest(Exception):  # noqa: N818  # named for what the client sent, as an answer is
    """What came cannot be served. `status`: the answer's; `said`: why, in words; the connection closes after it."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status
        self.said = said


@frozen_value
class Head:
    """The head of a request. `path`: without the query, which nothing asks for.

    `fields`: by lower-case name, those of one name joined by ", ". `length`: bytes of the body, None if it comes in chunks.
    `keeps`: whether the connection may carry another request; `chunks`: whether the client takes chunks (HTTP/1.1). `host`: as it
    came, with its port.
    """

    method: str
    path: str
    fields: Mapping[str, str]
    host: str
    length: int | None
    keeps: bool
    chunks: bool


def parse_head(data: bytes) -> Head:
    """The head in `data`, which ends before the empty line. Raises `BadRequest` for anything ambiguous or malformed."""
    first, _, lines = data.decode("latin-1").partition("\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise BadRequest(400, "the first line is not METHOD TARGET HTTP/1.1")
    if line[3] != "1":
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    fields = _fields(f"{lines}\r\n") if lines else {}
    modern = line[4] != "0"
    target, host = _target(line[2], fields.get("host"))
    if host is None and modern:
        raise BadRequest(400, "the Host header is missing")
    if host is not None and not _HOST.fullmatch(host):
        raise BadRequest(400, "the Host header is not a host and a port")
    path = target.partition("?")[0].partition("#")[0]
    keeps = modern
    if "connection" in fields:
        words = {word.strip().lower() for word in fields["connection"].split(",")}
        keeps = "close" not in words if modern else "keep-alive" in words
    length = _length(fields, modern)
    return _head(line[1].upper(), path, fields, host or "", length, keeps, modern)


_head = quick(Head)


def _fields(lines: str) -> dict[str, str]:
    """The fields of `lines`, each of which ends with its CR LF."""
    if _ONLY_FIELDS.fullmatch(lines) is None:
        raise BadRequest(400, "a line of the head is not a header field")
    found = _FIELDS.findall(lines)
    if len(found) > MAX_FIELDS:
        raise BadRequest(431, f"more than {MAX_FIELDS} header fields")
    fields = {name.lower(): value.rstrip(" \t") for name, value in found}
    if len(fields) != len(found):
        fields.clear()
        for name, value in ((name.lower(), value.rstrip(" \t")) for name, value in found):
            if name in fields and name in _ONCE:
                raise BadRequest(400, f"the header {name} came twice")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def _target(target: str, host: str | None) -> tuple[str, str | None]:
    """The path with its query, and the host it is for: an absolute target names its own, which then counts."""
    if len(target) > _MAX_TARGET:
        raise BadRequest(414, "the target is too long")
    if target.startswith("/") or target == "*":
        return target, host
    scheme, _, rest = target.partition("://")
    if scheme.lower() != "http" or not rest:
        raise BadRequest(400, "the target is not a path")
    authority, slash, path = rest.partition("/")
    return slash + path or "/", authority


def _length(fields: Mapping[str, str], modern: bool) -> int | None:
    coding, length = fields.get("transfer-encoding"), fields.get("content-length")
    if coding is not None:
        if length is not None:
            raise BadRequest(400, "Content-Length and Transfer-Encoding came together")
        if coding.lower() != "chunked" or not modern:
            raise BadRequest(501, "the only transfer coding taken is chunked")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()) or len(length) > 15:
        raise BadRequest(400, "Content-Length is not a number")
    return int(length)
