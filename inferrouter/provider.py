"""Defines what a provider must do: a request becomes bytes and headers, bytes become records, an error becomes one of ours.

Strategy: sans-I/O. A provider knows one wire format and nothing of sockets, accounts in plural, quota or retries. What all
dialects share is here: strict JSON reading, honest token counts, and the stream decoder that feeds server-sent events to a
dialect and knows when an answer is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from .errors import MalformedResponseError, ProviderError
from .frozen import EMPTY
from .records import ChatRequest, EmbedRequest, NativeTurn
from .responses import ChatChunk, ChatResponse, EmbedResponse
from .secret import Secret
from .sse import Event, Reader, SSETooLarge
from .wire import WireRequest

SNIFF_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and as whom to call: an account, as far as a dialect has to know it. `base_url` has no trailing slash."""

    base_url: str
    key: Secret
    headers: Mapping[str, str | Secret] = field(default=EMPTY)


class Provider(Protocol):
    """One wire format of one provider. Methods raise only errors of this library's tree.

    `name` is what accounts and aliases call it; `dialect`: "openai", "gemini", "anthropic" or a word of its own (turns kept in a
    provider's own words are given back to the same dialect only); `media`: kinds of media its format can carry.

    Two more members are optional. `embed_batch`: how many texts one call of `encode_embed` takes, 100 if it is missing, 0 for a
    provider without embeddings. `wire`: an object with the `send` of `Transport`, used instead of the transport.
    """

    name: str
    dialect: str
    base_url: str
    media: frozenset[str]

    def declares(self, model: str) -> bool | None:
        """Whether it serves `model`; None if it declares no models at all."""
        ...

    def unsupported(self, request: ChatRequest, model: str) -> tuple[str, ...]:
        """The parameters of `request` that its format cannot express for `model`, by name. Cheap: it builds no body."""
        ...

    def encode(self, request: ChatRequest, model: str, endpoint: Endpoint, stream: bool) -> WireRequest:
        """The HTTP request, whose `dropped` is what `unsupported` says; None there makes the caller ask `unsupported`.

        Raises `InvalidRequestError` for what can neither be expressed nor left out.
        """
        ...

    def decode(self, body: bytes, model: str) -> ChatResponse:
        """A whole 2xx answer. Raises `MalformedResponseError`, or what `error` says of an error object inside it."""
        ...

    def decoder(self, model: str) -> StreamDecoder:
        """A fresh decoder for one streamed answer."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
        """What a non-2xx answer means. `headers` have lower-case names, `now` is in epoch seconds. Never raises."""
        ...

    def encode_embed(self, request: EmbedRequest, model: str, endpoint: Endpoint) -> WireRequest:
        """The HTTP request for vectors. Raises `InvalidRequestError` where the provider has none."""
        ...

    def decode_embed(self, body: bytes, model: str) -> EmbedResponse:
        """A whole 2xx answer with vectors. Raises like `decode`."""
        ...


class StreamDecoder:
    """Bytes of one streamed answer in, chunks out. A dialect overrides `read` (and `decode_unary_body`, `natives`).

    `complete`: the terminal marker was seen, so whatever happens now the answer is whole. `done`: nothing more will come, stop
    reading. An error object inside the stream is raised as what `Provider.error` makes of it; if chunks came before it in the
    same bytes, they are given first and the error stays in `failure`, for the next `feed` or `end` to raise.
    """

    __slots__ = ("_ended", "_events", "_prefix", "_provider", "_reader", "complete", "done", "failure")

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._reader = Reader()
        self._events = 0
        self._prefix = bytearray()
        self._ended = False
        self.complete = False
        self.done = False
        self.failure: ProviderError | None = None

    def feed(self, data: bytes) -> list[ChatChunk]:
        """The chunks that `data` completes. Raises `ProviderError` and its kin."""
        if self.failure is not None:
            raise self.failure
        chunks: list[ChatChunk] = []
        try:
            for event in self._reader.feed(data):
                if self.done:
                    break
                self._take(event, chunks)
        except SSETooLarge:
            self._fail_after(chunks, MalformedResponseError(message="a stream event is larger than 8 MiB"))
        except ProviderError as exc:
            self._fail_after(chunks, exc)
        if not self._events and len(self._prefix) < SNIFF_BYTES:
            self._prefix += data
        return chunks

    def end(self) -> list[ChatChunk]:
        """What a clean end of the body still gives; afterwards `complete` tells whether the answer was whole."""
        if self.failure is not None:
            raise self.failure
        chunks: list[ChatChunk] = []
        if not self._ended and not self.done:
            self._ended = True
            pending = self._reader.pending()
            if pending is not None:
                self._take_unterminated(pending, chunks)
            elif not self._events and self._prefix.strip():
                self._take_plain_json(chunks)
        return chunks

    def _fail_after(self, chunks: list[ChatChunk], error: ProviderError) -> None:
        if not chunks:
            raise error
        self.failure = error

    def read(self, event: str, item: Any, source: str) -> list[ChatChunk]:
        """The chunks of one event whose data is the JSON value `item`."""
        raise NotImplementedError

    def decode_unary_body(self, item: Any, source: str) -> list[ChatChunk]:
        """The chunks of a whole unary answer, sent by a server that ignores `stream`; none if it is not one."""
        return []

    def natives(self) -> Mapping[int, NativeTurn]:
        """Per choice, the turn in the provider's own words, once complete; empty if it need not be kept."""
        return {}

    def fail(self, item: Any, status: int = 200) -> NoReturn:
        """Raise what an error object inside a 2xx stream means. One that comes after the terminal marker undoes it."""
        self.complete = False
        body = json.dumps(item).encode()
        raise self._provider.error(embedded_status(item, status), {}, body, 0.0)

    def _take(self, event: Event, chunks: list[ChatChunk]) -> None:
        self._events += 1
        data = event.data
        if data[:1] != "{":
            data = data.strip()
            if data == "[DONE]":
                self.complete = self.done = True
            if not data or self.done:
                return
        item = load_json(data)
        if event.event == "error" or (type(item) is dict and item.get("error")):
            self.fail(item)
        try:
            chunks.extend(self.read(event.event, item, data))
        except MalformedResponseError as exc:
            exc.body = exc.body or clean_text(data[:2048])
            raise

    def _take_unterminated(self, pending: Event, chunks: list[ChatChunk]) -> None:
        """A last event without its blank line counts if it is whole JSON; a piece of one is a cut."""
        if pending.data.strip() != "[DONE]":
            try:
                load_json(pending.data)
            except MalformedResponseError:
                return
        self._take(pending, chunks)

    def _take_plain_json(self, chunks: list[ChatChunk]) -> None:
        try:
            item = load_json(bytes(self._prefix))
        except MalformedResponseError as exc:
            exc.message = "the answer to a stream request is not an event stream"
            exc.body = clean_text(bytes(self._prefix[:2048]).decode("utf-8", "replace"))
            raise
        first = item[0] if isinstance(item, list) and item else item
        if isinstance(first, Mapping) and first.get("error"):
            self.fail(item)
        found = self.decode_unary_body(item, self._prefix.decode("utf-8", "replace"))
        if not found:
            self.fail(item)
        chunks.extend(found)


def load_json(data: bytes | str) -> Any:
    """`data` as JSON; ill-formed UTF-8 reads as U+FFFD. Raises `MalformedResponseError` (NaN, absurd nesting and digits too)."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace").removeprefix("\ufeff")
    try:
        return _parsed(text)
    except RecursionError:
        problem = "nested too deeply"
    except ValueError as exc:
        problem = str(exc)[:100]
    # Raised outside the handler: the stdlib's error holds the whole document, which may echo a key.
    raise MalformedResponseError(message=f"the answer is not JSON ({problem})", body=clean_text(text[:2048]))


def tokens(value: Any) -> int:
    """A token count as a server wrote it; anything but a number of at least 0 (a bool, a string, None) counts 0."""
    if type(value) is int:
        return value if value > 0 else 0
    return int(value) if isinstance(value, float) and 0 < value < 1e15 else 0


def clean_text(text: str) -> str:
    """`text` with lone surrogates replaced by U+FFFD, so that it can be printed and stored."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def embedded_status(item: Any, default: int) -> int:
    """The HTTP status an error object inside a 2xx answer names for itself, or `default`."""
    holder = item[0] if isinstance(item, list) and item else item
    error = holder.get("error") if isinstance(holder, Mapping) else None
    for source in (error, holder):
        if isinstance(source, Mapping):
            for key in ("status_code", "code", "status"):
                value = source.get(key)
                if type(value) is int and 400 <= value < 600:
                    return value
                if isinstance(value, str) and value.isascii() and value.isdigit() and 400 <= int(value[:4]) < 600:
                    return int(value)
    return default


def _parsed(text: str) -> Any:
    if text[:1] == "{":  # as nearly always: spares the search for white space around the value, a quarter of a chunk's parsing
        try:
            item, end = _SCAN(text, 0)
            if end == len(text):
                return item
        except StopIteration:
            pass
    return _DECODER.decode(text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_SCAN = _DECODER.scan_once  # type: ignore[attr-defined]  # documented for subclasses only, there since Python 2.7
