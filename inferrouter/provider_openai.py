"""Speaks the OpenAI-compatible format: one provider class for every server that takes it.

Strategy: `openai_request` writes bodies and knows what servers do differently, `openai_reply` and `openai_stream` read answers;
this module adds URLs and headers and puts them together as a `Provider`. Must never open a connection, nor know accounts in
plural, quota or retries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from .catalog import preset
from .errors import ConfigError, ProviderError
from .frozen import shown_once_made
from .openai_request import chat_json, embed_body, refused_by, server, unsupported
from .provider import Endpoint, StreamDecoder, decode_answer, json_headers, matches_any, validated_args
from .records import ChatRequest, EmbedRequest
from .wire import WireRequest, new_request
from .wire_json import dump_json, embedded_status, write_json

if TYPE_CHECKING:
    from .responses import ChatResponse, EmbedResponse


class OpenAICompatProvider:
    """A provider `name` at `base_url` (such as "https://api.openai.com/v1"). See `Provider` for what its methods do.

    `models`: names or shell-style patterns of what it serves; None: it declares none and takes any name.
    Raises `ConfigError` for a name, URL or list that is not one.
    """

    dialect = "openai"

    def __init__(self, name: str, base_url: str, models: Sequence[str] | str | None = None) -> None:
        self.models: tuple[str, ...] | None
        self.name, self.base_url, self.models = validated_args(name, base_url, models)
        self._server = server(name)
        self._key_header = self._server.key_header
        self._key_prefix = "Bearer " if self._key_header == "Authorization" else ""
        self.media = self._server.media

    @classmethod
    def openai(cls) -> OpenAICompatProvider:
        """OpenAI itself."""
        return cls.preset("openai")

    @classmethod
    def grok(cls) -> OpenAICompatProvider:
        """xAI's Grok."""
        return cls.preset("grok")

    @classmethod
    def cerebras(cls) -> OpenAICompatProvider:
        """Cerebras."""
        return cls.preset("cerebras")

    @classmethod
    def cerebro(cls) -> OpenAICompatProvider:
        """Cerebras under the name "cerebro", for configurations that spell it so."""
        return cls.preset("cerebro")

    @classmethod
    def preset(cls, name: str) -> OpenAICompatProvider:
        """Any OpenAI-compatible provider of the catalog, called `name`. Raises `ConfigError` for others."""
        row = preset(name)
        if row.dialect != "openai":
            raise ConfigError(f"provider {name!r} speaks the {row.dialect} dialect: use its own provider class")
        return cls(name, row.base_url, row.patterns or None)

    @shown_once_made
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.base_url!r})"

    def declares(self, model: str) -> bool | None:
        """See `Provider`."""
        return matches_any(self.models, model) if self.models is not None else None

    def unsupported(self, request: ChatRequest, model: str) -> tuple[str, ...]:
        """See `Provider`."""
        refused = refused_by(self._server, model)
        return unsupported(request, refused) if refused else ()

    def encode(self, request: ChatRequest, model: str, endpoint: Endpoint, stream: bool) -> WireRequest:
        """See `Provider`."""
        dropped = self.unsupported(request, model)
        body = chat_json(request, model, self._server, self.name, stream, dropped)
        headers = json_headers(endpoint, self._key_header, self._key_prefix)
        return new_request(endpoint.base_url + "/chat/completions", body, headers, "POST", dropped)

    def decode(self, body: bytes, model: str) -> ChatResponse:
        """See `Provider`."""
        return decode_answer(self, body, self._read)

    def decoder(self, model: str) -> StreamDecoder:
        """See `Provider`."""
        from .openai_stream import OpenAIDecoder

        return OpenAIDecoder(self, self._server.audio_in_total)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
        """See `Provider`."""
        from .error_table import classify  # the first error loads it

        return classify(status, headers, body, now, provider=self.name)

    def encode_embed(self, request: EmbedRequest, model: str, endpoint: Endpoint) -> WireRequest:
        """See `Provider`."""
        body = write_json(embed_body(request, model, self._server))
        headers = json_headers(endpoint, self._key_header, self._key_prefix)
        return WireRequest(endpoint.base_url + "/embeddings", body, headers)

    def decode_embed(self, body: bytes, model: str) -> EmbedResponse:
        """See `Provider`."""
        from .openai_reply import read_vectors

        return decode_answer(self, body, lambda item, source: read_vectors(item, source, self._server.int8_vectors))

    def _read(self, item: Any, source: str) -> ChatResponse:
        return _answer_reader()(item, source, self.name, self._server.audio_in_total, self._fail)

    def _fail(self, failure: Any) -> NoReturn:
        raise self.error(embedded_status(failure, 200), {}, dump_json(failure).encode("utf-8", "replace"), 0.0)


@cache
def _answer_reader() -> Callable[[Any, str, str, bool, Callable[[Any], NoReturn]], ChatResponse]:
    from .openai_reply import read_answer  # the first answer loads it

    return read_answer
