"""Does what the dialects do alike: a body becomes bytes, an answer's bytes become JSON or the error inside it.

Strategy: small functions without state; each dialect brings its own words. Must never know a wire format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from .errors import ConfigError, InvalidRequestError, MalformedResponseError
from .provider import Endpoint, Provider, clean_text, embedded_status, load_json
from .secret import Secret
from .validation import check_url, matches

T = TypeVar("T")

JSON_TYPE = ("Content-Type", "application/json")


def validated_args(name: str, base_url: str, models: Sequence[str] | str | None) -> tuple[str, str, tuple[str, ...] | None]:
    """What a provider was made of, in the form it is kept in. Raises `ConfigError` for a name, URL or list that is not one.

    Whether a plain http address may be used is for the account to say.
    """
    if not isinstance(name, str) or not name:
        raise ConfigError('provider: a name is needed, such as "together"')
    if not isinstance(base_url, str) or not base_url:
        raise ConfigError(f'provider {name!r}: base_url is a URL such as "https://api.example.com/v1"')
    problem = check_url(base_url, allow_http=True)
    if problem:
        raise ConfigError(f"provider {name!r}: base_url {problem}")
    patterns = (models,) if isinstance(models, str) else models
    if patterns is not None and not (isinstance(patterns, Sequence) and all(isinstance(p, str) for p in patterns)):
        raise ConfigError(f"provider {name!r}: models is a list of names or patterns")
    return name, base_url.rstrip("/"), None if patterns is None else tuple(patterns)


def write_json(body: Mapping[str, Any]) -> bytes:
    """`body` as compact JSON. Raises `InvalidRequestError` for what JSON cannot say, such as NaN."""
    try:
        return _COMPACT.encode(body).encode()
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidRequestError(message=f"the request cannot be written as JSON ({exc}): look at extra and tools") from exc


def merge_extra(body: dict[str, Any], extra: Mapping[str, Any] | None) -> None:
    """Put the caller's `extra` over `body`; where both hold an object under one key, their members are merged."""
    for key, value in (extra or {}).items():
        known = body.get(key)
        body[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value


def malformed(message: str, source: str = "") -> NoReturn:
    """Raise `MalformedResponseError` with `message` and the beginning of `source`."""
    raise MalformedResponseError(message=message, body=source[:2048])


def as_object(text: str, key: str) -> dict[str, Any]:
    """`text` as the JSON object it is, or an object that holds it under `key`."""
    stripped = text.strip()
    if stripped.startswith("{"):
        try:
            found: dict[str, Any] = load_json(stripped)
            return found
        except MalformedResponseError:
            pass
    return {key: text}


def json_headers(endpoint: Endpoint, key_header: str, prefix: str = "") -> list[tuple[str, str | Secret]]:
    """Content type, the key with `prefix` under `key_header` unless it is empty, and the account's own headers."""
    headers: list[tuple[str, str | Secret]] = [JSON_TYPE, *endpoint.headers.items()]
    if endpoint.key:
        headers.append((key_header, endpoint.key.prefixed(prefix) if prefix else endpoint.key))
    return headers


def dump_json(value: Any) -> str:
    """A value out of an answer as compact JSON text. Raises `MalformedResponseError` where that cannot be written."""
    try:
        return clean_text(_READABLE.encode(value))
    except (ValueError, RecursionError) as exc:
        raise MalformedResponseError(message="the answer holds JSON that cannot be written again") from exc


def load_answer(provider: Provider, body: bytes) -> tuple[str, Any]:
    """A 2xx body as text and as JSON. Raises `MalformedResponseError`, or what an error object inside it means."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    item = load_json(text)
    first = item[0] if isinstance(item, list) and item else item
    if isinstance(first, dict) and first.get("error"):
        raise provider.error(embedded_status(item, 200), {}, body, 0.0)
    return text, item


def decoded(provider: Provider, body: bytes, read: Callable[[Any, str], T]) -> T:
    """What `read` makes of an answer's JSON and text; what it finds malformed carries the beginning of the text."""
    text, item = load_answer(provider, body)
    try:
        return read(item, text)
    except MalformedResponseError as exc:
        exc.body = exc.body or text[:2048]
        raise


def matches_any(models: Sequence[str], *names: str) -> bool | None:
    """Whether one of `names` is among `models` (names or patterns, case counts); None if `models` is empty."""
    if not models:
        return None
    return any(matches(name, pattern) for pattern in models for name in names)


# json.dumps would build an encoder for every call that is not all defaults.
_COMPACT = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_READABLE = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False)
