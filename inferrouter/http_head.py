"""Reads the head of an HTTP answer by stricter rules than `http.client`, which reads the body.

Strategy: http.client gives each head to the email package, which accepts lines that are not headers and takes 29 us for twelve of
them, a fifth of a small call; this module takes 8 us. A line is `name: value` or the answer is refused, and names are lower-case
from the start. Interim answers (1xx) are skipped, a bounded number of them; 101 is an answer, which nobody asked for. No error
quotes the peer, save those of http.client itself. Must never know requests, pools or keys. Loaded on first use, because
`http.client` is slow to import.
"""

from __future__ import annotations

import io
import re
from http.client import BadStatusLine, HTTPException, HTTPResponse, IncompleteRead, LineTooLong, RemoteDisconnected
from typing import TYPE_CHECKING, Any

from .lazy_pattern import lazy_pattern
from .wire import WireFault

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer

_MAX_LINE = 64 << 10  # bytes, its end included
_BUFFER = 8 << 10  # bytes, less than a line may have: a head that comes with one read needs no look at how long its lines are
_MAX_FIELDS = 100
_MAX_INTERIM = 100  # heads, as CPython counts them since 2026
_STATUS_LINE = lazy_pattern(r"HTTP/1\.([0-9])[ \t]+([1-9][0-9]{2})(?:[ \t][^\r\n]*)?\r?\n?")
_FIELD = lazy_pattern(r"^([!-9;-~]++):([^\r\n\0]*+)\r?\n", re.MULTILINE)
_FOLD = lazy_pattern(r"\r?\n[ \t]+")
_CHUNK_SIZE = lazy_pattern(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")
_BLANK = (b"\r\n", b"\n")
_NO_BODY = frozenset({204, 304})


class Response(HTTPResponse):
    """An answer that comes in through `reader`. `fields`: its headers by lower-case name, those of one name joined by ", ".

    `ambiguous_length`: its headers give a length that is not a number, or contradict each other.
    """

    fp: Any  # the reader, None once it is closed

    def __init__(self, reader: BodyReader, method: str) -> None:
        super().__init__(reader, method=method)  # type: ignore[arg-type]  # all it asks of a socket is makefile
        self._bodiless = method == "HEAD"
        self.fields: dict[str, str] = {}
        self.ambiguous_length = False

    def begin(self) -> None:
        """Reads the head. Raises OSError or HTTPException, IncompleteRead if the connection ends within, WireFault in a flood."""
        for _ in range(_MAX_INTERIM + 1):
            minor, status, fields = self._head()
            if status >= 200 or status == 101:
                break
        else:
            raise WireFault("timeout", f"the server stalls: more than {_MAX_INTERIM} interim answers and no other")
        self.status = status
        self.version = 10 if minor == "0" else 11
        self.fields = fields
        self._set_length(fields.get("content-length"), fields.get("transfer-encoding"))
        self.will_close = self._ends_connection(fields.get("connection", "").lower())

    def close(self) -> None:
        """Closes the reader. Idempotent. http.client's own does more: it flushes what can only be read."""
        if self.fp is not None:
            reader, self.fp = self.fp, None
            reader.close()

    def _read_next_chunk_size(self) -> int:
        """Called by http.client, whose own takes whatever `int` does: signs, blanks, underscores, a leading 0x."""
        match = _CHUNK_SIZE.fullmatch(self.fp.readline(_MAX_LINE))
        if match is None:
            raise ValueError("not the size of a chunk")  # IncompleteRead to whoever reads the body
        return int(match[1], 16)

    def _read_and_discard_trailer(self) -> None:
        """Called by http.client, whose own never stops before 2026. As there, a cut is the end: the body has come."""
        for _ in range(_MAX_FIELDS + 1):
            line = self.fp.readline(_MAX_LINE)
            if line in _BLANK or not line:
                return
            if len(line) == _MAX_LINE and line[-1:] != b"\n":
                raise LineTooLong("trailer")
        raise WireFault("timeout", f"the server stalls: more than {_MAX_FIELDS} headers after the last chunk")

    def _set_length(self, length: str | None, transfer: str | None) -> None:
        self.chunked = transfer is not None and _agreed(transfer).lower() == "chunked"
        self.chunk_left = self.length = None
        if length is not None:
            digits = _agreed(length)
            self.ambiguous_length = transfer is not None or not (digits.isascii() and digits.isdigit())
            self.length = None if self.ambiguous_length else int(digits)
        if self.status < 200 or self.status in _NO_BODY or self._bodiless:
            self.length = 0

    def _ends_connection(self, connection: str) -> bool:
        if self.length is None and not self.chunked:
            return True
        return "close" in connection or (self.version == 10 and "keep-alive" not in connection)

    def _head(self) -> tuple[str, int, dict[str, str]]:
        """The minor version, the status and the fields of the next head: out of the buffer if all of it came with one read, as
        nearly always, which takes half the time; else line by line."""
        end = _end_of_head(self.fp.peek(1))
        if end is None:
            line = self.fp.readline(_MAX_LINE).decode("latin-1")
            if not line:
                raise RemoteDisconnected("no answer")
            return *_status(line), self._fields()
        head = self.fp.read(end).decode("latin-1")
        begin = head.index("\n") + 1
        minor, status = _status(head[:begin])
        text = head[begin : -2 if head.endswith("\r\n") else -1]
        lines = text.count("\n")
        if lines > _MAX_FIELDS:
            raise HTTPException(f"more than {_MAX_FIELDS} headers")
        return minor, status, _parsed(text, lines)

    def _fields(self) -> dict[str, str]:
        lines: list[bytes] = []
        while (line := self.fp.readline(_MAX_LINE)) not in _BLANK:
            if line[-1:] != b"\n":
                raise LineTooLong("header line") if len(line) == _MAX_LINE else IncompleteRead(b"")
            lines.append(line)
            if len(lines) > _MAX_FIELDS:
                raise HTTPException(f"more than {_MAX_FIELDS} headers")
        return _parsed(b"".join(lines).decode("latin-1"), len(lines))


class BodyReader(io.BufferedReader):
    """The buffered bytes of a socket. Closing it ends one answer; the socket stays open, and the next answer reads on.

    `out_of_sync`: an answer has left bytes in the buffer, or some are missing, so that what comes next is not the beginning of an
    answer. One reader serves a connection all its life, because a new one for each answer costs 4 % of a small call.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._raw = SocketReader(sock)
        self._left_over = False
        super().__init__(self._raw, _BUFFER)

    @property
    def out_of_sync(self) -> bool:
        """Whether the connection cannot be used again."""
        return self._raw.lost or self._left_over

    def makefile(self, mode: str) -> BodyReader:
        """Itself: what http.client asks of a socket."""
        return self

    def close(self) -> None:
        """Ends one answer: looks whether it left bytes in the buffer. Idempotent."""
        self._raw.shut = True  # so that `peek` does not wait for more
        try:
            self._left_over = bool(self.peek(1))
        finally:
            self._raw.shut = False


class SocketReader(io.RawIOBase):
    """Reads the socket. `shut`: it does not for now; `lost`: a read failed, so that bytes may be missing."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.shut = False
        self.lost = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if self.shut:
            return None
        try:
            return self._sock.recv_into(buffer)
        except BlockingIOError:  # a socket that may not wait; http.client takes None for the end of the body
            self.lost = True
            return None
        except BaseException:
            self.lost = True
            raise


def _end_of_head(data: bytes) -> int | None:
    """Where the first blank line of `data` ends, None if there is none yet."""
    at = data.find(b"\n\r\n")
    bare = data.find(b"\n\n", 0, at + 1 if at >= 0 else len(data))
    if bare >= 0:
        return bare + 2
    return at + 3 if at >= 0 else None


def _status(line: str) -> tuple[str, int]:
    """The minor version and the status that a status line says."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadStatusLine(line)
    if line[-1] != "\n":
        raise IncompleteRead(b"")
    return match[1], int(match[2])


def _parsed(text: str, lines: int) -> dict[str, str]:
    """The fields of `text`, which is so many whole lines. A line that begins with a blank continues the one before."""
    found = _FIELD.findall(text)
    if len(found) != lines:
        text = _FOLD.sub(" ", text)
        found = _FIELD.findall(text)
        if len(found) != text.count("\n"):
            raise HTTPException("a line of the head is not a header")
    fields = {name.lower(): padded.strip(" \t") for name, padded in found}
    if len(fields) == len(found):  # as nearly always: no name comes twice
        return fields
    fields = {}
    for name, padded in found:
        key, value = name.lower(), padded.strip(" \t")
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields


def _agreed(value: str) -> str:
    """The one value of a header that may be repeated with the same value; all of it if the values differ."""
    if "," in value:
        values = {part.strip() for part in value.split(",")}
        return values.pop() if len(values) == 1 else value
    return value
