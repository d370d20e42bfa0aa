"""Splits bytes into server-sent events, and nothing else.

Strategy: the WHATWG event stream rules (HTML 9.2) to the letter, on bytes. Every chunk is cut into lines at C speed, only
finished lines are looked at, and text is decoded when an event is complete, so a stream costs the same however its bytes
were cut. Strict at the end of input: an unterminated last block is not an event; `pending()` shows it to whoever must judge.
Must never know JSON, HTTP, terminal markers or providers.
"""

from __future__ import annotations

from .frozen import NamedTuple, new_tuple

_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One dispatched event. `event`: its type, "message" if none was given; `id`: the last id seen so far, or ""."""

    event: str
    data: str
    id: str


class SSETooLarge(ValueError):  # noqa: N818  named for what happened, as the rest of the library names its faults
    """A line, or the data lines of one event, exceed the reader's limit. The reader is of no use afterwards."""


class Reader:
    """Turns the bytes of one event stream into events.

    `max_event`: bytes; neither one line nor the data lines of one event may be longer. A server's `retry` field is passed over:
    nobody reconnects to an answer.
    """

    __slots__ = ("_after_cr", "_data", "_event", "_head", "_id", "_line", "_max", "_size")

    def __init__(self, max_event: int = 8 << 20) -> None:
        self._max = max_event
        self._head: bytes | None = b""  # the first bytes, until it is clear whether they are a byte order mark
        self._after_cr = False
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._event = b""
        self._id = ""

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises `SSETooLarge`, nothing else whatever the bytes are."""
        if self._head is not None:
            data = self._skip_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 10:
                data = data[1:]
        if not data:
            return []
        if b"\r" in data:
            self._after_cr = data[-1] == 13
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._line:
            self._line += lines[0]
            lines[0] = bytes(self._line)
            self._line = bytearray()
        if rest:
            self._line += rest
            self._check(len(self._line))
        elif len(lines) == 2 and not lines[1] and lines[0].startswith(b"data: ") and not (self._data or self._event):
            self._check(len(lines[0]))  # one event of one line, as nearly every piece of a stream is
            return [new_tuple(Event, ("message", lines[0][6:].decode("utf-8", "replace"), self._id))]
        return self._take(lines) if lines else []

    def pending(self) -> Event | None:
        """What the unterminated last block would have been, None if there is none. Ends the reader: call it once, at the end."""
        events = self.feed(b"\n\n")
        return events[0] if events else None

    def _skip_bom(self, data: bytes) -> bytes:
        head = (self._head or b"") + data
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _take(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(self._dispatch())
                self._event = b""
            elif line.startswith(b"data:"):
                self._size += len(line)
                if self._size > self._max:
                    self._check(self._size)
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            else:
                self._check(len(line))
                self._field(line)
        return events

    def _dispatch(self) -> Event:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._size = 0
        event = self._event.decode("utf-8", "replace") if self._event else "message"
        return new_tuple(Event, (event, data.decode("utf-8", "replace"), self._id))

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._event = value
        elif name == b"data":  # the rare "data" without a colon
            self._size += len(line)
            self._check(self._size)
            self._data.append(value)
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")

    def _check(self, size: int) -> None:
        if size > self._max:
            raise SSETooLarge(f"an event of the stream is larger than {self._max} bytes")
