"""Reads the head of an HTTP answer by our own rules; `http.client` reads the body as ever.

Strategy: http.client hands each head to the email package, which costs more than all else in a small call and takes what
is not a header at all. Here a line is `name: value` or the answer is refused, and the names are lower-case from the start.
Only 100 Continue is skipped. Text of the peer's is put into no error but http.client's own.
Must never know requests, pools or keys. Loaded on first use, because `http.client` is slow to import.
"""

from __future__ import annotations

import io
import re
from http.client import BadStatusLine, HTTPException, HTTPResponse, IncompleteRead, LineTooLong, RemoteDisconnected
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

    from _typeshed import WriteableBuffer

_LONGEST_LINE = 64 << 10  # bytes, its end included
_MOST_FIELDS = 100
_STATUS_LINE = re.compile(r"HTTP/1\.([0-9])[ \t]+([1-9][0-9]{2})(?:[ \t][^\r\n]*)?\r?\n?")
_FIELD = re.compile(r"^([!-9;-~]++):([^\r\n\0]*+)\r?\n", re.MULTILINE)
_FOLD = re.compile(r"\r?\n[ \t]+")
_BLANK = (b"\r\n", b"\n")
_NO_BODY = frozenset({204, 304})


class Response(HTTPResponse):
    """An answer that comes in through `reader`. `fields`: its headers by lower-case name, said twice joined by ", ".

    `ambiguous_length`: what it says about its length is not a number, or not all there is to it.
    """

    fp: Any  # an Inlet until it is given back, then None

    def __init__(self, reader: BodyReader, method: str) -> None:
        super().__init__(reader, method=method)  # type: ignore[arg-type]  # all it asks of a socket is makefile
        self._bodiless = method == "HEAD"
        self.fields: dict[str, str] = {}
        self.ambiguous_length = False

    def begin(self) -> None:
        """Reads the head. Raises OSError or HTTPException, IncompleteRead if the connection ends within."""
        minor, status = self._status()
        fields = self._fields()
        while status == 100:
            minor, status = self._status()
            fields = self._fields()
        self.status = status
        self.version = 10 if minor == "0" else 11
        self.fields = fields
        self._set_length(fields.get("content-length"), fields.get("transfer-encoding"))
        self.will_close = self._ends_connection(fields.get("connection", "").lower())

    def close(self) -> None:
        """Gives the inlet back. Idempotent. Less work than http.client's, which flushes what is only read."""
        if self.fp is not None:
            reader, self.fp = self.fp, None
            reader.close()

    def _set_length(self, said: str | None, transfer: str | None) -> None:
        self.chunked = transfer is not None and _agreed(transfer).lower() == "chunked"
        self.chunk_left = None
        self.length = None
        if said is not None:
            digits = _agreed(said)
            self.ambiguous_length = transfer is not None or not (digits.isascii() and digits.isdigit())
            self.length = None if self.ambiguous_length else int(digits)
        if self.status < 200 or self.status in _NO_BODY or self._bodiless:
            self.length = 0

    def _ends_connection(self, connection: str) -> bool:
        if self.length is None and not self.chunked:
            return True
        return "close" in connection or (self.version == 10 and "keep-alive" not in connection)

    def _status(self) -> tuple[str, int]:
        line = self.fp.readline(_LONGEST_LINE).decode("latin-1")
        if not line:
            raise RemoteDisconnected("no answer")
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            raise BadStatusLine(line)
        if line[-1] != "\n":
            raise IncompleteRead(b"")
        return match[1], int(match[2])

    def _fields(self) -> dict[str, str]:
        lines: list[bytes] = []
        while (line := self.fp.readline(_LONGEST_LINE)) not in _BLANK:
            if line[-1:] != b"\n":
                raise LineTooLong("header line") if len(line) == _LONGEST_LINE else IncompleteRead(b"")
            lines.append(line)
            if len(lines) > _MOST_FIELDS:
                raise HTTPException(f"more than {_MOST_FIELDS} headers")
        return _parsed(b"".join(lines).decode("latin-1"), len(lines))


class BodyReader(io.BufferedReader):
    """What a socket receives, through one buffer for all the answers it will ever carry.

    Each answer takes it as the file it reads and closes it at its end; that closes nothing, but looks whether bytes were
    left behind. `out_of_sync`: some were, or some are missing: the next bytes to come are not the beginning of an answer.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._tap = SocketReader(sock)
        self._left_over = False
        super().__init__(self._tap)

    @property
    def out_of_sync(self) -> bool:
        """Whether this is the end of the connection's use."""
        return self._tap.lost or self._left_over

    def makefile(self, mode: str) -> BodyReader:
        """Itself: what http.client asks of a socket."""
        return self

    def close(self) -> None:
        """Ends one answer."""
        self._tap.shut = True
        try:
            self._left_over = bool(self.peek(1))
        finally:
            self._tap.shut = False


class SocketReader(io.RawIOBase):
    """The unbuffered side. `shut`: nothing more comes in; `lost`: a read failed, so that bytes may be missing."""

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
        except BlockingIOError:  # only with no patience at all; whoever reads on takes it for the end
            self.lost = True
            return None
        except BaseException:
            self.lost = True
            raise


def _parsed(text: str, lines: int) -> dict[str, str]:
    """The fields of `text`, a number of whole lines. Each has to be one field, but for those that go on with the one before."""
    found = _FIELD.findall(text)
    if len(found) != lines:
        text = _FOLD.sub(" ", text)
        found = _FIELD.findall(text)
        if len(found) != text.count("\n"):
            raise HTTPException("a line of the head is not a header")
    fields: dict[str, str] = {}
    for name, padded in found:
        key, value = name.lower(), padded.strip(" \t")
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields


def _agreed(value: str) -> str:
    """What a header says that must say one thing, though it may say so twice; all of it if it contradicts itself."""
    if "," in value:
        said = {part.strip() for part in value.split(",")}
        return said.pop() if len(said) == 1 else value
    return value
