"""Describes what a message may carry besides plain text: a `Part` is one piece of text or media.

Strategy: a part holds either text, bytes, or a URL, with its MIME type; each dialect encodes it in its own way.
OpenAI-style content objects are read here, once. Must never know a provider, nor fetch a URL.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from typing import Any

from .errors import InvalidRequestError
from .frozen import field, frozen_value, replace

MEDIA_KINDS = ("image", "audio", "video", "document")
MAX_FILE_BYTES = 512 << 20
"""No provider takes as much within a request; their own limits are far below."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"\x1aE\xdf\xa3", "video/webm"),
)
_RIFF = {b"WAVE": "audio/wav", b"WEBP": "image/webp", b"AVI ": "video/x-msvideo"}
_AUDIO_FORMATS = {"mp3": "audio/mpeg", "wav": "audio/wav"}


@frozen_value
class Part:
    """One piece of a message. Make it with `Part.text`, `.image`, `.audio`, `.video`, `.document`, `.from_file`, `.image_url`.

    `kind`: text, image, audio, video or document. Exactly one of `value` (text), `data` (bytes) and `url` is set.
    `detail`: how closely OpenAI shall look at a picture (low, high, auto), None: its default; others take no such word.
    """

    kind: str
    value: str | None = None
    data: bytes | None = field(default=None, repr=False)
    mime_type: str | None = None
    url: str | None = None
    filename: str | None = None
    detail: str | None = None

    @classmethod
    def text(cls, text: str) -> Part:
        """Plain text. Raises `InvalidRequestError` if it is not a string."""
        if not isinstance(text, str):
            raise InvalidRequestError(message=f"Part.text takes a string, not {type(text).__name__}")
        return cls("text", value=text)

    @classmethod
    def image(cls, data: bytes, mime_type: str | None = None) -> Part:
        """A picture from its bytes; `mime_type` is recognised from the first bytes when not given."""
        return _media("image", data, mime_type)

    @classmethod
    def audio(cls, data: bytes, mime_type: str | None = None) -> Part:
        """A sound from its bytes; `mime_type` is recognised from the first bytes when not given."""
        return _media("audio", data, mime_type)

    @classmethod
    def video(cls, data: bytes, mime_type: str | None = None) -> Part:
        """A film from its bytes; `mime_type` is recognised from the first bytes when not given."""
        return _media("video", data, mime_type)

    @classmethod
    def document(cls, data: bytes, mime_type: str | None = None, filename: str | None = None) -> Part:
        """A document (PDF, plain text) from its bytes; `filename` is shown to providers that want one."""
        return _media("document", data, mime_type, filename)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Part:
        """The file at `path`, read now; its kind and MIME type come from its name, then from its first bytes.

        Raises `InvalidRequestError` when it cannot be read or its type is unknown.
        """
        import mimetypes

        try:
            name = os.fsdecode(path)
            facts = os.stat(name)
            if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_FILE_BYTES:
                fault = "is not a regular file" if facts.st_size <= MAX_FILE_BYTES else "is larger than any provider takes"
                raise _unreadable(path, f"it {fault}")
            with open(name, "rb") as file:
                data = file.read()
        except (OSError, TypeError, ValueError) as exc:
            raise _unreadable(path, getattr(exc, "strerror", None) or str(exc)) from exc
        mime_type = mimetypes.guess_type(name)[0] or _sniff(data)
        if mime_type is not None and mime_type.startswith("audio/x-"):
            mime_type = "audio/" + mime_type[8:]  # providers list no old names, such as audio/x-wav
        if mime_type is None:
            raise InvalidRequestError(
                message=f"Part.from_file cannot tell the type of {name!r}: use Part.image(data, mime_type) or its like"
            )
        return _media(_kind_of(mime_type), data, mime_type, os.path.basename(name))

    @classmethod
    def image_url(cls, url: str, mime_type: str | None = None) -> Part:
        """A picture the provider fetches itself, or a `data:` URL, which is unpacked here."""
        return _from_url("image", url, mime_type)

    def base64(self) -> str:
        """The bytes in base64; "" for text and for a URL."""
        return base64.b64encode(self.data).decode("ascii") if self.data is not None else ""

    def data_url(self) -> str:
        """`url` itself, or the bytes as a `data:` URL."""
        return self.url if self.url is not None else f"data:{self.mime_type};base64,{self.base64()}"

    def to_dict(self) -> dict[str, Any]:
        """The OpenAI-style content object of this part."""
        if self.kind == "text":
            return {"type": "text", "text": self.value}
        if self.kind == "image":
            detail = {} if self.detail is None else {"detail": self.detail}
            return {"type": "image_url", "image_url": {"url": self.data_url(), **detail}}
        if self.kind == "audio" and self.data is not None:
            return {"type": "input_audio", "input_audio": {"data": self.base64(), "format": audio_format(self)}}
        if self.kind == "document":
            return {"type": "file", "file": {"filename": self.filename or "document", "file_data": self.data_url()}}
        return {"type": f"{self.kind}_url", f"{self.kind}_url": {"url": self.data_url()}}


def audio_format(part: Part) -> str:
    """OpenAI's word for an audio part's format: wav, mp3, or the MIME subtype."""
    subtype = (part.mime_type or "audio/wav").split("/")[-1].removeprefix("x-")
    return {"mpeg": "mp3", "wave": "wav"}.get(subtype, subtype)


def part_from_dict(item: Any, where: str) -> Part:
    """The `Part` of an OpenAI-style content object, or of a plain string. `where` is its path, for the error.

    Raises `InvalidRequestError` for anything it cannot read.
    """
    if isinstance(item, Part):
        return item
    if isinstance(item, str):
        return Part.text(item)
    try:
        return _read_dict(item)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        what = item.get("type") if isinstance(item, Mapping) else type(item).__name__
        raise InvalidRequestError(
            message=f"{where} is not a content part this library knows ({what!r}): use ir.Part or OpenAI's content objects"
        ) from exc


def _read_dict(item: Mapping[str, Any]) -> Part:
    kind = item["type"]
    if kind in ("text", "input_text", "output_text"):
        return Part.text(item["text"])
    if kind in ("image_url", "audio_url", "video_url"):
        target = item[kind]
        url = target["url"] if isinstance(target, Mapping) else target
        part = _from_url(kind.removesuffix("_url"), url, None)
        detail = target.get("detail") if isinstance(target, Mapping) else None
        return replace(part, detail=detail) if isinstance(detail, str) else part
    if kind == "input_audio":
        audio = item["input_audio"]
        mime_type = _AUDIO_FORMATS.get(audio["format"], f"audio/{audio['format']}")
        return Part("audio", data=_decode(audio["data"]), mime_type=mime_type)
    if kind == "file":
        file = item["file"]
        part = _from_url("document", file["file_data"], None)
        return Part(part.kind, data=part.data, mime_type=part.mime_type, url=part.url, filename=file.get("filename"))
    raise ValueError(kind)


def _media(kind: str, data: bytes, mime_type: str | None, filename: str | None = None) -> Part:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InvalidRequestError(
            message=f"Part.{kind} takes the bytes themselves, not {type(data).__name__}; for a path use Part.from_file"
        )
    raw = bytes(data)
    found = mime_type or _sniff(raw)
    if found is None:
        raise InvalidRequestError(message=f"Part.{kind} cannot tell what these bytes are: give mime_type")
    return Part(kind, data=raw, mime_type=found, filename=filename)


def _from_url(kind: str, url: str, mime_type: str | None) -> Part:
    if not isinstance(url, str) or ":" not in url:
        raise InvalidRequestError(message=f"a media URL must be an https: or data: URL, not {str(url)[:60]!r}")
    if not url.startswith("data:"):
        return Part(kind, url=url, mime_type=mime_type)
    head, comma, payload = url[5:].partition(",")
    if not comma or not head.endswith(";base64"):
        raise InvalidRequestError(message="a data: URL must read data:<mime type>;base64,<data>")
    return _media(kind, _decode(payload), head.split(";")[0] or mime_type)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidRequestError(message="media data is not valid base64") from exc


def _sniff(data: bytes) -> str | None:
    if data[:4] == b"RIFF":
        return _RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return "video/mp4"
    return next((mime for magic, mime in _MAGIC if data.startswith(magic)), None)


def _kind_of(mime_type: str) -> str:
    major = mime_type.split("/")[0]
    return major if major in ("image", "audio", "video") else "document"


def _unreadable(path: object, why: str) -> InvalidRequestError:
    error = InvalidRequestError(message=f"Part.from_file cannot read {path!r}: {why}")
    error.hint = "Check the path; a relative one begins in the current folder."
    return error
