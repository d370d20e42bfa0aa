"""Reads the HTTP answers that come in over one connection, one after the other, by stricter rules than `http.client`.

Strategy: http.client makes a file and a buffer anew for each answer, and gives its head to the email package, which accepts lines
that are not headers; here one object serves a connection all its life, in a third of the time. A head that came at once, and the
body behind it, are cut out of what came; what comes in drops is read line by line. A line is `name: value` or the answer is
refused, and names are lower-case from the start. Interim answers (1xx) are skipped, a bounded number of them; 101 is an answer,
which nobody asked for. Errors are those of http.client, which loads with the first of them, being a quarter of what a first call
loads; none quotes the peer, save http.client's own. Must never know requests, pools or keys.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from .lazy_pattern import lazy_pattern
from .wire import WireFault

if TYPE_CHECKING:
    from http.client import HTTPException

_MAX_LINE = 64 << 10  # bytes, its end included
_BUFFER = 8 << 10  # bytes, less than a line may have: a head that comes with one read needs no look at how long its lines are
_MOST = 64 << 10  # bytes of a long body that are asked for at a time
_MAX_FIELDS = 100
_MAX_INTERIM = 100  # heads, as CPython counts them since 2026
_PLAIN = "HTTP/1.1 200 OK\n"  # how nearly each head begins
_STATUS_LINE = lazy_pattern(r"HTTP/1\.([0-9])[ \t]+([1-9][0-9]{2})(?:[ \t][^\r\n]*)?\n?")
_FIELD = lazy_pattern(r"^([!-9;-~]++):(.*+)\n", re.MULTILINE)
_FOLD = lazy_pattern(r"\n[ \t]+")
_CHUNK_SIZE = lazy_pattern(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")
_NEXT_SIZE = lazy_pattern(rb"(?s:..)" + _CHUNK_SIZE.pattern)  # behind the line end of the chunk before
_BLANK = (b"\r\n", b"\n")
_NO_BODY = frozenset({204, 304})


class Source(Protocol):
    """A socket, as far as answers are read from it."""

    def recv(self, most: int, /) -> bytes:
        """What is there, as soon as there is something; b"" only at its end."""


class Answers:
    """What comes in from `sock`. `status`, `fields`: the head of the last answer; its headers by
    lower-case name, those of one name joined by ", ".

    `length`: bytes of its body, None if that is `chunked`, or ends with the connection. `will_close`: nothing comes after it.
    `ambiguous_length`: its headers give a length that is not a number, or contradict each other. `data`, `at`: what was received,
    and how much of it was read: unless that is all, what comes next is not the beginning of an answer.
    """

    __slots__ = (
        "_chunk_left",
        "ambiguous_length",
        "at",
        "chunked",
        "data",
        "fields",
        "length",
        "sock",
        "status",
        "will_close",
    )
    sock: Source
    length: int | None
    _chunk_left: int | None  # None before the first chunk, 0 at the end of one

    def __init__(self, sock: Source) -> None:
        self.sock = sock
        self.data = b""
        self.at = 0

    def begin(self, method: str) -> None:
        """Reads the head of the answer to a request of `method`.

        Raises OSError or HTTPException, IncompleteRead if the connection ends within, WireFault in a flood.
        """
        for _ in range(_MAX_INTERIM + 1):
            head = self._head()
            if head.startswith(_PLAIN):
                minor, status, start = "1", 200, len(_PLAIN)
            else:
                start = head.index("\n") + 1
                minor, status = _status(head[:start])
            fields = _fields(head[start:])
            if status >= 200 or status == 101:
                break
        else:
            raise WireFault("timeout", f"the server stalls: more than {_MAX_INTERIM} interim answers and no other")
        self.status = status
        self.fields = fields
        self.chunked = self.ambiguous_length = False
        self.length = self._chunk_left = None
        length, transfer, connection = fields.get("content-length"), fields.get("transfer-encoding"), fields.get("connection")
        if transfer is not None:
            self.chunked = _agreed(transfer).lower() == "chunked"
            self.ambiguous_length = length is not None
        elif length is not None:
            digits = _agreed(length) if "," in length else length
            if digits.isascii() and digits.isdigit():
                self.length = int(digits)
            else:
                self.ambiguous_length = True
        if status < 200 or status in _NO_BODY or method == "HEAD":
            self.length = 0
        if self.length is None and not self.chunked:
            self.will_close = True
        elif connection is None:
            self.will_close = minor == "0"
        else:
            words = connection.lower()
            self.will_close = "close" in words or (minor == "0" and "keep-alive" not in words)

    def read(self, size: int) -> bytes:
        """`size` bytes; fewer only if the connection ends before."""
        data, at = self.data, self.at
        end = at + size
        if end < len(data):
            self.at = end
            return data[at:end]
        self.data, self.at = b"", 0
        missing = end - len(data)
        if not missing:
            return data[at:]
        pieces = [data[at:]] if data else []
        while missing and (data := self.sock.recv(min(missing, _MOST))):
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def read_some(self, most: int) -> bytes:
        """The bytes that are here, or come next, but at most `most` of them; b"" only at the connection's end."""
        at = self.at
        if at == len(self.data):
            return self.sock.recv(most)
        piece = self.data[at : at + most]
        self.at = at + len(piece)
        return piece

    def read_chunk(self, most: int) -> bytes:
        """The next piece of a chunked body, of its present chunk; b"" only at its end. Raises IncompleteRead where it is cut."""
        left = self._chunk_left or self._next_chunk()
        if not left:
            return b""
        if most > left:
            most = left
        at = self.at
        piece = self.data[at : at + most] or self.sock.recv(most)
        if not piece:
            raise _error("IncompleteRead", b"")
        size = len(piece)
        if at < len(self.data):
            self.at = at + size
        self._chunk_left = left - size
        return piece

    def _next_chunk(self) -> int:
        """The size of the next chunk, 0 after the last, whose trailers are passed over.

        http.client takes whatever `int` does as a size: signs, blanks, underscores, a leading 0x.
        """
        data, at = self.data, self.at
        first = self._chunk_left is None
        if len(data) - at <= (0 if first else 2):  # but the line end of the one before, as where each chunk comes by itself
            data, at = self.data, self.at = data[at:] + self.sock.recv(_BUFFER), 0
        match = (_CHUNK_SIZE if first else _NEXT_SIZE).match(data, at, at + _MAX_LINE)
        if match is not None:
            self.at = match.end()
        else:  # it is not whole yet, or is not one
            if not first and len(self.read(2)) < 2:
                raise _error("IncompleteRead", b"")
            match = _CHUNK_SIZE.fullmatch(self._line())
            if match is None:
                raise _error("IncompleteRead", b"")
        size = int(match[1], 16)
        if not size:
            self._pass_trailers()
        return size

    def _pass_trailers(self) -> None:
        """As in http.client, a cut is the end: the body has come. A flood is not, which that reads for ever before 2026."""
        for _ in range(_MAX_FIELDS + 1):
            line = self._line()
            if line in _BLANK or not line:
                return
            if len(line) == _MAX_LINE and line[-1:] != b"\n":
                raise _error("LineTooLong", "trailer")
        raise WireFault("timeout", f"the server stalls: more than {_MAX_FIELDS} headers after the last chunk")

    def _head(self) -> str:
        """The next head without its blank line, and with plain ends of its lines: out of what is here if all of it came with one
        read, as nearly always; else line by line."""
        data, at = self.data, self.at
        if at == len(data):
            data, at = self.data, self.at = self.sock.recv(_BUFFER), 0
        end = data.find(b"\n\r\n", at) + 1
        bare = data.find(b"\n\n", at, end or len(data)) + 1
        if bare or end:
            self.at = bare + 1 if bare else end + 2
            return data[at : bare or end].decode("latin-1").replace("\r\n", "\n")
        line = self._line()
        if not line:
            raise _error("RemoteDisconnected", "no answer")
        # Whoever speaks no HTTP is not listened to any longer. A line may be cut between the two bytes of its end.
        _status(line.decode("latin-1").replace("\r\n", "\n").removesuffix("\r"))
        lines = [line]
        while (line := self._line()) not in _BLANK:
            if line[-1:] != b"\n":
                raise _error("LineTooLong", "header line") if len(line) == _MAX_LINE else _error("IncompleteRead", b"")
            lines.append(line)
            if len(lines) > _MAX_FIELDS + 1:
                raise _error("HTTPException", f"more than {_MAX_FIELDS} headers")
        return b"".join(lines).decode("latin-1").replace("\r\n", "\n")

    def _line(self) -> bytes:
        """The next line with its end; without one if it is longer than a line may be, or the connection ends within."""
        while True:
            data, at = self.data, self.at
            end = data.find(b"\n", at, at + _MAX_LINE) + 1
            if not end and len(data) - at >= _MAX_LINE:
                end = at + _MAX_LINE
            elif not end and (more := self.sock.recv(_BUFFER)):
                self.data, self.at = data[at:] + more, 0
                continue
            self.at = end = end or len(data)
            return data[at:end]


def _status(line: str) -> tuple[str, int]:
    """The minor version and the status that a status line says."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise _error("BadStatusLine", line)
    if line[-1] != "\n":
        raise _error("IncompleteRead", b"")
    return match[1], int(match[2])


def _fields(text: str) -> dict[str, str]:
    """The fields of `text`, which is whole lines with plain ends. A line that begins with a blank continues the one before."""
    lines = text.count("\n")
    if lines > _MAX_FIELDS:
        raise _error("HTTPException", f"more than {_MAX_FIELDS} headers")
    if "\r" in text or "\0" in text:
        raise _error("HTTPException", "a line of the head is not a header")
    found = _FIELD.findall(text)
    if len(found) != lines:
        text = _FOLD.sub(" ", text)
        found = _FIELD.findall(text)
        if len(found) != text.count("\n"):
            raise _error("HTTPException", "a line of the head is not a header")
    fields = {}
    for name, padded in found:
        fields[name.lower()] = padded.strip(" \t")
    if len(fields) == len(found):  # as nearly always: no name comes twice
        return fields
    fields = {}
    for name, padded in found:
        key, value = name.lower(), padded.strip(" \t")
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields


def _error(name: str, said: object) -> HTTPException:
    """An error of `http.client`, by its name there."""
    import http.client

    made: HTTPException = getattr(http.client, name)(said)
    return made


def _agreed(value: str) -> str:
    """The one value of a header that may be repeated with the same value; all of it if the values differ."""
    if "," in value:
        values = {part.strip() for part in value.split(",")}
        return values.pop() if len(values) == 1 else value
    return value
