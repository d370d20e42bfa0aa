"""Vectors in OpenAI's format: the request body, and the answer as floats or as base64.

Strategy: results are put in order by their index; whoever asked checks how many there are. Must never know HTTP.
"""

from __future__ import annotations

import binascii
import math
import struct
from typing import Any

from .answers import EmbedResponse
from .openai_reply import broken, read_usage, word
from .openai_servers import Server
from .records import EmbedRequest, Usage

__all__ = ["embed_body", "read_vectors"]


def embed_body(request: EmbedRequest, model: str, server: Server) -> dict[str, Any]:
    """The body that asks for vectors."""
    body: dict[str, Any] = {"model": model, "input": list(request.inputs)}
    if server.embed_format:
        body["encoding_format"] = "float"
    if request.dimensions is not None:
        body[server.dimensions_word] = request.dimensions
    if request.extra:
        body.update(request.extra)
    return body


def read_vectors(item: Any, source: str, int8: bool = False) -> EmbedResponse:
    """A whole answer with vectors, in base64 of floats or, if `int8`, of signed bytes. Raises `MalformedResponseError`."""
    data = item.get("data") if isinstance(item, dict) else None
    if not isinstance(data, list) or not data:
        broken("the answer holds no vectors", source)
    placed = []
    for position, entry in enumerate(data):
        if not isinstance(entry, dict):
            broken(f"data[{position}] is no object", source)
        index = entry.get("index")
        placed.append((index if type(index) is int else position, _vector(entry.get("embedding"), position, source, int8)))
    placed.sort(key=lambda pair: pair[0])
    usage = item.get("usage")
    counted = read_usage(usage) if isinstance(usage, dict) else Usage()
    # Vectors have no output; servers that report only a total mean the input.
    whole = max(counted.prompt_tokens, counted.total_tokens)
    return EmbedResponse(
        tuple(vector for _, vector in placed),
        word(item.get("model")),
        Usage(whole, 0, whole, counted.cached_tokens, 0, counted.input_breakdown),
        source=(source,),
    )


def _vector(value: Any, position: int, source: str, int8: bool) -> tuple[float, ...]:
    if isinstance(value, str):
        return _unpacked(value, position, source, int8)
    if not isinstance(value, list) or not value or not all(type(number) in (float, int) for number in value):
        broken(f"data[{position}] holds no vector", source)
    try:
        return tuple([float(number) for number in value])
    except OverflowError:
        broken(f"data[{position}] holds a number that is none", source)


def _unpacked(text: str, position: int, source: str, int8: bool) -> tuple[float, ...]:
    try:
        raw = binascii.a2b_base64(text)
    except (binascii.Error, ValueError):
        raw = b""
    size, code = (1, "b") if int8 else (4, "f")
    if not raw or len(raw) % size:
        broken(f"data[{position}] is neither a list of numbers nor base64 numbers", source)
    vector = tuple(map(float, struct.unpack(f"<{len(raw) // size}{code}", raw)))
    if not all(map(math.isfinite, vector)):
        broken(f"data[{position}] holds numbers that are none", source)
    return vector
