"""What an error body says, whatever shape the server gave it.

Strategy: one generic reading of dict, list, string and text: the sentence, the machine words (codes, types, reasons), a
number that is a status, the delay and the metadata. Nothing is looked up by provider. Must never raise on foreign input,
and must never judge: that is `error_table`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import MalformedResponseError
from .frozen import EMPTY
from .provider import clean_text, embedded_status, load_json

__all__ = ["Said", "read_body"]

READ_BYTES = 64 << 10
"""More of an error body than this is not looked at."""
KEEP_CHARS = 16 << 10

_CODE_KEYS = ("code", "type", "status", "error_code", "reason", "error_type")
_TITLE = re.compile(r"<title[^>]{0,100}>([^<]{1,300})<", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """What was read. `codes`: machine words in lower case, most specific place first; `status`: embedded number or 0."""

    text: str
    message: str = ""
    codes: tuple[str, ...] = ()
    status: int = 0
    retry_delay: str = ""
    metadata: Mapping[str, Any] = EMPTY
    request_id: str | None = None

    @property
    def code_set(self) -> frozenset[str]:
        """The machine words as a set."""
        return frozenset(self.codes)


def read_body(body: bytes) -> Said:
    """`body` read as far as it can be. Never raises."""
    text = clean_text(body[:READ_BYTES].decode("utf-8", "replace")).strip()[:KEEP_CHARS]
    try:
        item = load_json(body[:READ_BYTES])
    except MalformedResponseError:
        return Said(text, _cut(_from_page(text)))
    if isinstance(item, list):
        item = next((entry for entry in item if isinstance(entry, Mapping)), item[0] if item else "")
    if not isinstance(item, Mapping):
        return Said(text, _cut(item) if isinstance(item, str) else "")
    return _from_object(item, text)


def _from_object(item: Mapping[str, Any], text: str) -> Said:
    error = item.get("error")
    inner: Mapping[str, Any] = error if isinstance(error, Mapping) else EMPTY
    metadata = inner.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else EMPTY
    notes = list(_notes(inner)) + list(_notes(item))
    message = next(filter(None, _sentences(item, error, inner)), "")
    raw = metadata.get("raw")
    if isinstance(raw, str) and raw and raw not in message:
        message = f"{message}: {raw}" if message else raw
    request_id = item.get("request_id")
    return Said(
        text,
        _cut(message),
        tuple(_codes(inner, item, *notes, metadata)),
        embedded_status(item, 0),
        next((note["retryDelay"] for note in notes if isinstance(note.get("retryDelay"), str)), ""),
        metadata,
        request_id[:200] if isinstance(request_id, str) and request_id.isprintable() and request_id else None,
    )


def _sentences(item: Mapping[str, Any], error: Any, inner: Mapping[str, Any]) -> Iterator[str]:
    for value in (inner.get("message"), error, item.get("message"), item.get("detail"), inner.get("detail"), inner.get("error")):
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            nested = value.get("message") or value.get("detail")
            yield nested if isinstance(nested, str) else ""
        elif isinstance(value, list):
            found = [entry.get("msg") for entry in value[:5] if isinstance(entry, Mapping)]
            yield "; ".join(part for part in found if isinstance(part, str))
    for value in (item.get("title"), inner.get("type"), inner.get("code")):
        yield value if isinstance(value, str) else ""


def _notes(holder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The objects servers hang below an error: a list of details, one details object, an inner error."""
    details = holder.get("details")
    for note in details[:20] if isinstance(details, list) else (details, holder.get("innererror")):
        if isinstance(note, Mapping):
            yield note


def _codes(*holders: Mapping[str, Any]) -> Iterator[str]:
    for holder in holders:
        for key in _CODE_KEYS:
            value = holder.get(key)
            if isinstance(value, str) and value:
                yield value[:100].lower()


def _from_page(text: str) -> str:
    if not text.lstrip().startswith("<"):
        return text
    title = _TITLE.search(text)
    return f"an HTML page: {title.group(1).strip()}" if title else "an HTML page instead of an API answer"


def _cut(text: str) -> str:
    return " ".join(clean_text(text[:2000]).split())
