"""Defines what a provider must do: a request becomes bytes and headers, bytes become records, a refusal becomes an error.

Strategy: sans-I/O. A provider knows one wire format and nothing of sockets, other accounts, quota or retries. What all dialects
share is here too: the check of a provider's arguments, headers, the reading of a whole answer, and the stream decoder, which
feeds server-sent events to a dialect and knows when an answer is complete. Must never know one dialect from another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from .errors import ConfigError, MalformedResponseError, ProviderError
from .frozen import EMPTY, field, frozen_value
from .records import ChatRequest, EmbedRequest, NativeTurn
from .secret import Secret
from .sse import Event, Reader, SSETooLarge
from .validation import check_base_url, matches
from .wire import Headers, WireRequest
from .wire_json import clean_text, embedded_status, has_error, load_json

if TYPE_CHECKING:
    from .responses import ChatChunk, ChatResponse, EmbedResponse

T = TypeVar("T")

SNIFF_BYTES = 1 << 20


@frozen_value
class Endpoint:
    """What a dialect knows of an account: where to call, with which key and headers. `base_url` does not end with a slash."""

    base_url: str
    key: Secret
    headers: Mapping[str, str | Secret] = field(default=EMPTY)
    sealed: dict[tuple[str, str], Headers] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `json_headers` made of it."""


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
        """Whether it serves `model`; None if it does not declare which models it serves."""
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
        """A new decoder for one streamed answer."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
        """What a non-2xx answer means. `headers` have lower-case names, `now` is in epoch seconds. Never raises."""
        ...

    def encode_embed(self, request: EmbedRequest, model: str, endpoint: Endpoint) -> WireRequest:
        """The HTTP request for vectors. Raises `InvalidRequestError` if the provider does not make any."""
        ...

    def decode_embed(self, body: bytes, model: str) -> EmbedResponse:
        """A whole 2xx answer with vectors. Raises like `decode`."""
        ...


class StreamDecoder:
    """Turns the bytes of one streamed answer into chunks. A dialect overrides `read` (and `decode_unary_body`, `natives`).

    `complete`: the terminal marker was seen, so the answer is whole whatever happens now. `done`: nothing more will come, stop
    reading. An error object inside the stream is raised as what `Provider.error` makes of it; if chunks came before it in the
    same bytes, they are returned first, and the next `feed` or `end` raises the error, which is kept in `failure`.
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
        """The chunks that `data` completes. Raises `ProviderError`."""
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
        """The last chunks, once the body has ended well; afterwards `complete` says whether the answer was whole."""
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

    def read(self, event: str, item: Any, source: str) -> list[ChatChunk]:
        """The chunks of one event whose data is the JSON value `item`."""
        raise NotImplementedError

    def decode_unary_body(self, item: Any, source: str) -> list[ChatChunk]:
        """The chunks of a whole answer from a server that ignores `stream`; [] if `item` is not a whole answer."""
        return []

    def natives(self) -> Mapping[int, NativeTurn]:
        """For each choice whose turn must go back to the provider unchanged, that turn. Only once the answer is complete."""
        return {}

    def fail(self, item: Any) -> NoReturn:
        """Raise what an error object inside a 2xx stream means; the answer is not complete then, even after its marker."""
        self.complete = False
        body = json.dumps(item).encode()
        raise self._provider.error(embedded_status(item, 200), {}, body, 0.0)

    def _fail_after(self, chunks: list[ChatChunk], error: ProviderError) -> None:
        if not chunks:
            raise error
        self.failure = error

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
        """A last event without its blank line counts if its JSON is whole; otherwise the answer was cut there."""
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
        if has_error(item):
            self.fail(item)
        found = self.decode_unary_body(item, self._prefix.decode("utf-8", "replace"))
        if not found:
            self.fail(item)
        chunks.extend(found)


def validated_args(name: str, base_url: str, models: Sequence[str] | str | None) -> tuple[str, str, tuple[str, ...] | None]:
    """The arguments of a provider in the form it keeps them. Raises `ConfigError` for a name, URL or list that is not one.

    A plain http address passes: whether it may be used is for the account to say.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError('provider: a name is needed, such as "together"')
    if not isinstance(base_url, str) or not base_url:
        raise ConfigError(f'provider {name!r}: base_url is a URL such as "https://api.example.com/v1"')
    problem = check_base_url(base_url, allow_http=True)
    if problem:
        raise ConfigError(f"provider {name!r}: base_url {problem}")
    patterns = (models,) if isinstance(models, str) else models
    if patterns is not None and not (isinstance(patterns, Sequence) and all(isinstance(p, str) for p in patterns)):
        raise ConfigError(f"provider {name!r}: models is a list of names or patterns")
    return name, base_url.rstrip("/"), None if patterns is None else tuple(patterns)


def matches_any(models: Sequence[str], *names: str) -> bool | None:
    """Whether one of `names` is among `models` (names or patterns, case counts); None if `models` is empty."""
    if not models:
        return None
    return any(matches(name, pattern) for pattern in models for name in names)


def json_headers(endpoint: Endpoint, key_header: str, prefix: str = "", also: Headers = ()) -> Headers:
    """Content type, the key with `prefix` under `key_header` unless it is empty, the account's own headers, and those of `also`
    that it has none of. Of one endpoint the same object each time, so that the transport need not look at it again."""
    known = endpoint.sealed.get((key_header, prefix))
    if known is not None:
        return known
    headers: list[tuple[str, str | Secret]] = [("Content-Type", "application/json"), *endpoint.headers.items()]
    if endpoint.key:
        headers.append((key_header, endpoint.key.prefixed(prefix) if prefix else endpoint.key))
    own = {name.lower() for name in endpoint.headers}
    headers += [header for header in also if header[0].lower() not in own]
    return endpoint.sealed.setdefault((key_header, prefix), tuple(headers))


def decode_answer(provider: Provider, body: bytes, read: Callable[[Any, str], T]) -> T:
    """What `read` makes of a 2xx body's JSON and its text.

    Raises what `read` raises, what an error object in the body means, or `MalformedResponseError` with the beginning of the text.
    """
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    item = load_json(text)
    if item.get("error") if type(item) is dict else has_error(item):
        raise provider.error(embedded_status(item, 200), {}, body, 0.0)
    try:
        return read(item, text)
    except MalformedResponseError as exc:
        exc.body = exc.body or text[:2048]
        raise
