"""Speaks Google's native Gemini API (v1beta).

Strategy: `gemini_request` writes bodies and `gemini_reply` reads answers; this module adds URLs, headers and the requests for
vectors. The key travels in the x-goog-api-key header, never in the URL. A stream is asked for with alt=sse. Must never open a
connection, nor know accounts in plural, quota or retries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from . import gemini_request
from .errors import InvalidRequestError, ProviderError
from .frozen import shown_once_made
from .gemini_reply import GeminiDecoder, read_answer, read_vectors
from .provider import Endpoint, StreamDecoder, decode_answer, json_headers, matches_any, validated_args
from .records import ChatRequest, EmbedRequest
from .responses import ChatResponse, EmbedResponse
from .wire import WireRequest
from .wire_json import write_json

# "text-embedding-0*" and not more: text-embedding-3-* are OpenAI's.
PATTERNS = ("gemini-*", "gemma-*", "learnlm-*", "embedding-*", "text-embedding-0*", "models/*", "tunedModels/*")


class GeminiProvider:
    """Gemini at `base_url`. `models`: names or patterns it serves; None = Google's own naming, () = none declared.

    Raises `ConfigError` for a name, URL or list that is not one.
    """

    dialect = "gemini"
    media = frozenset(("image", "audio", "video", "document"))

    def __init__(
        self,
        base_url: str = "https://generativelanguage.googleapis.com/v1beta",
        name: str = "gemini",
        models: Sequence[str] | str | None = None,
    ) -> None:
        self.name, self.base_url, patterns = validated_args(name, base_url, models)
        self.models: tuple[str, ...] = PATTERNS if patterns is None else patterns

    @shown_once_made
    def __repr__(self) -> str:
        return f"GeminiProvider({self.base_url!r}, name={self.name!r})"

    def declares(self, model: str) -> bool | None:
        """See `Provider.declares`; a leading `models/` is Google's own and means nothing."""
        return matches_any(self.models, model, model.removeprefix("models/"))

    def unsupported(self, request: ChatRequest, model: str) -> tuple[str, ...]:
        """See `Provider.unsupported`."""
        return gemini_request.unsupported(request, model.removeprefix("models/"))

    def encode(self, request: ChatRequest, model: str, endpoint: Endpoint, stream: bool) -> WireRequest:
        """See `Provider.encode`."""
        dropped = self.unsupported(request, model)
        body = gemini_request.chat_body(request, model.removeprefix("models/"), dropped)
        method = ":streamGenerateContent?alt=sse" if stream else ":generateContent"
        return _request(endpoint, _path(model) + method, body, dropped)

    def decode(self, body: bytes, model: str) -> ChatResponse:
        """See `Provider.decode`."""
        return decode_answer(self, body, lambda item, text: read_answer(item, model, self.name, text))

    def decoder(self, model: str) -> StreamDecoder:
        """See `Provider.decoder`."""
        return GeminiDecoder(self, model)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
        """See `Provider.error`."""
        from .error_table import classify  # the first error loads it

        return classify(status, headers, body, now, provider=self.name)

    def encode_embed(self, request: EmbedRequest, model: str, endpoint: Endpoint) -> WireRequest:
        """See `Provider.encode_embed`; `extra` (taskType, title) goes into each request of the batch, where it belongs."""
        path = _path(model)
        each: dict[str, Any] = {"model": path.lstrip("/")}
        if request.dimensions is not None:
            each["outputDimensionality"] = request.dimensions
        extra = request.extra or {}
        requests = [{**each, "content": {"parts": [{"text": text}]}, **extra} for text in request.inputs]
        return _request(endpoint, path + ":batchEmbedContents", {"requests": requests}, ())

    def decode_embed(self, body: bytes, model: str) -> EmbedResponse:
        """See `Provider.decode_embed`; reads a batch and a single embedding."""
        return decode_answer(self, body, lambda item, text: read_vectors(item, model, text))


def _request(endpoint: Endpoint, path: str, body: Mapping[str, Any], dropped: tuple[str, ...]) -> WireRequest:
    return WireRequest(endpoint.base_url + path, write_json(body), json_headers(endpoint, "x-goog-api-key"), dropped=dropped)


@lru_cache(256)
def _path(model: str) -> str:
    """The URL path of a model; tuned models and the like bring their own collection. Raises `InvalidRequestError`."""
    if not {"", ".", ".."}.isdisjoint(model.split("/")):
        raise InvalidRequestError(message=f"{model!r} is not the name of a model: it would lead to another address")
    collection = "" if "/" in model else "models/"
    return f"/{collection}{quote(model, safe='/@')}"
