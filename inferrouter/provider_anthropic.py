"""Speaks Anthropic's Messages API.

Strategy: `anthropic_request` writes bodies and `anthropic_reply` reads answers; this module adds the URL and headers. It serves
every server of the same format, under its own base_url and name. Must never open a connection, nor know accounts in plural, quota
or retries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import anthropic_request
from .anthropic_reply import AnthropicDecoder, read_answer
from .errors import InvalidRequestError, MalformedResponseError, ProviderError
from .frozen import shown_once_made
from .provider import Endpoint, StreamDecoder, decode_answer, json_headers, matches_any, validated_args
from .records import ChatRequest, EmbedRequest
from .responses import ChatResponse, EmbedResponse
from .wire import WireRequest
from .wire_json import write_json

PATTERNS = ("claude-*",)
VERSION = ("anthropic-version", "2023-06-01")


class AnthropicProvider:
    """Anthropic at `base_url`. `models`: names or patterns it serves; None = claude-*, () = none declared.

    Raises `ConfigError` for a name, URL or list that is not one.
    """

    dialect = "anthropic"
    media = frozenset(("image", "document"))
    embed_batch = 0

    def __init__(
        self,
        base_url: str = "https://api.anthropic.com/v1",
        name: str = "anthropic",
        models: Sequence[str] | str | None = None,
    ) -> None:
        self.name, self.base_url, patterns = validated_args(name, base_url, models)
        self.models: tuple[str, ...] = PATTERNS if patterns is None else patterns

    @shown_once_made
    def __repr__(self) -> str:
        return f"AnthropicProvider({self.base_url!r}, name={self.name!r})"

    def declares(self, model: str) -> bool | None:
        """See `Provider.declares`."""
        return matches_any(self.models, model)

    def unsupported(self, request: ChatRequest, model: str) -> tuple[str, ...]:
        """See `Provider.unsupported`."""
        return anthropic_request.unsupported(request, model)

    def encode(self, request: ChatRequest, model: str, endpoint: Endpoint, stream: bool) -> WireRequest:
        """See `Provider.encode`; an account's own anthropic-version header wins over ours."""
        body, dropped = anthropic_request.chat_body(request, model, stream)
        headers = json_headers(endpoint, "x-api-key", also=(VERSION,))
        return WireRequest(endpoint.base_url + "/messages", write_json(body), headers, dropped=dropped)

    def decode(self, body: bytes, model: str) -> ChatResponse:
        """See `Provider.decode`."""
        return decode_answer(self, body, lambda item, text: read_answer(item, model, self.name, text))

    def decoder(self, model: str) -> StreamDecoder:
        """See `Provider.decoder`."""
        return AnthropicDecoder(self, model)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
        """See `Provider.error`."""
        from .error_table import classify  # the first error loads it

        return classify(status, headers, body, now, provider=self.name)

    def encode_embed(self, request: EmbedRequest, model: str, endpoint: Endpoint) -> WireRequest:
        """Raises `InvalidRequestError`: there are no embeddings here."""
        raise InvalidRequestError(self.name, model=model, message="Anthropic has no embeddings: name another provider's model")

    def decode_embed(self, body: bytes, model: str) -> EmbedResponse:
        """Raises `MalformedResponseError`: there are no embeddings here."""
        raise MalformedResponseError(self.name, model=model, message="Anthropic has no embeddings")
