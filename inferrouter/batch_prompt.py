"""Makes a request of an input row: a template filled with its columns, or the request that the row holds itself.

Strategy: a template is text with `{column}` in it, cut once into pieces; no format language, so that a row cannot reach into
anything. A row that is a request already (OpenAI's batch line, a body with messages, a `prompt`) is taken as it is.
Must never know files or where a row came from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .content import Part
from .errors import ConfigError, InvalidRequestError
from .frozen import EMPTY, frozen_value
from .map_serving import request_of
from .records import ChatRequest, EmbedRequest, Message


@frozen_value
class Template:
    """Text with columns in it. `pieces`: text and column by turns, the first and the last being text."""

    pieces: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names, each once."""
        return tuple(dict.fromkeys(self.pieces[1::2]))

    def filled(self, values: Mapping[str, Any]) -> str:
        """The text with the row's values. Raises `InvalidRequestError` that names a missing column."""
        found = list(self.pieces)
        for at in range(1, len(found), 2):
            if found[at] not in values:
                raise InvalidRequestError(message=f"the row has no {found[at]!r}; it has {', '.join(values) or 'nothing'}")
            found[at] = as_text(values[found[at]])
        return "".join(found)


def template(text: str) -> Template:
    """`text` cut at its `{column}`s; `{{` and `}}` are braces. Raises `ConfigError` for a brace without its other."""
    pieces, at = [""], 0
    while at < len(text):
        letter = text[at]
        if letter in "{}" and text[at : at + 2] == letter * 2:
            pieces[-1] += letter
            at += 2
        elif letter == "{":
            end = text.find("}", at)
            if end < 0 or not text[at + 1 : end].strip():
                raise ConfigError(f"prompt: {text[at : at + 20]!r} is not a column in braces; write {{{{ for a brace itself")
            pieces += [text[at + 1 : end].strip(), ""]
            at = end + 1
        elif letter == "}":
            raise ConfigError("prompt: a closing brace stands alone; write }} for a brace itself")
        else:
            pieces[-1] += letter
            at += 1
    return Template(tuple(pieces))


@frozen_value
class Asking:
    """How rows become requests. `prompt`, `system`: templates or None; `media`: columns that hold a path or a URL; `base`: the
    folder that paths start from; `model`: "" leaves it to the row or the router; `settings`: further fields of `ChatRequest`."""

    prompt: Template | None = None
    system: Template | None = None
    model: str = ""
    media: tuple[str, ...] = ()
    base: str = "."
    settings: Mapping[str, Any] = EMPTY

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column it needs."""
        templates = [each for each in (self.prompt, self.system) if each is not None]
        return tuple(dict.fromkeys([*(name for each in templates for name in each.columns), *self.media]))

    def request(self, values: Mapping[str, Any]) -> ChatRequest | EmbedRequest:
        """The request of a row. Raises `InvalidRequestError` saying what the row lacks."""
        if self.prompt is None:
            body = _own_request(values)
            if body is not None:
                return self._from_body(body)
            text = _plain_text(values)
        else:
            text = self.prompt.filled(values)
        media = [part for name in self.media if (part := self._media(values, name)) is not None] if self.media else ()
        if not (text or media):
            raise InvalidRequestError(message="the row is empty")
        if not media and self.system is None and not self.settings:
            return request_of(text, self.model)
        messages = [Message("user", [*([text] if text else ()), *media] if media else text)]
        if self.system is not None:
            messages.insert(0, Message("system", self.system.filled(values)))
        return ChatRequest(messages, self.model, **self.settings)

    def _from_body(self, body: Mapping[str, Any]) -> ChatRequest | EmbedRequest:
        request = request_of_body({**body, "model": self.model or body.get("model", "")}, self.settings)
        if self.system is not None and isinstance(request, ChatRequest):
            from dataclasses import replace

            return replace(request, messages=(Message("system", self.system.filled({})), *request.messages))
        return request

    def _media(self, values: Mapping[str, Any], name: str) -> Part | None:
        place = values.get(name)
        if name not in values:
            raise InvalidRequestError(message=f"the row has no {name!r}; it has {', '.join(values) or 'nothing'}")
        if not place:
            return None
        if isinstance(place, str) and place.startswith(("http:", "https:", "data:")):
            return Part.image_url(place)
        return Part.from_file(os.path.join(self.base, str(place)))


def request_of_body(body: Mapping[str, Any], settings: Mapping[str, Any]) -> ChatRequest | EmbedRequest:
    """The request that an OpenAI body is, with `settings` where it says nothing. Raises `InvalidRequestError`."""
    if "messages" not in body and "input" in body:
        known = {"input", "model", "dimensions", "encoding_format"}
        extra = {key: value for key, value in body.items() if key not in known}
        return EmbedRequest(body["input"], body.get("model") or "", body.get("dimensions"), extra or None)
    fields = dict(settings)
    extra = dict(fields.pop("extra", None) or {})
    for key, value in body.items():
        if key == "max_completion_tokens":
            fields["max_tokens"] = value
        elif key in _FIELDS:
            fields[key] = value
        elif key not in _UNUSED:
            extra[key] = value
    return ChatRequest(**{key: value for key, value in fields.items() if value is not None}, extra=extra or None)


def template_file(path: str) -> str:
    """The text of a file that holds a template or a system text. Raises `ConfigError`."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read ({exc.strerror}); check the path after the @") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: is not UTF-8 at byte {exc.start}; save it as UTF-8") from exc


def as_text(value: Any) -> str:
    """A column's value as it stands in a prompt or a table: text as it is, nothing for None, else JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    import json

    return json.dumps(value, ensure_ascii=False)


_FIELDS = frozenset(
    (
        *("messages", "model", "temperature", "max_tokens", "top_p", "stop", "seed", "tools", "tool_choice"),
        *("response_format", "reasoning_effort"),
    )
)
_UNUSED = frozenset(("stream", "stream_options"))


def _own_request(values: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The OpenAI body that a row is or holds, None if it is a row of columns."""
    body, messages = values.get("body"), values.get("messages")
    if body is not None and isinstance(body, Mapping):
        url = values.get("url") or "/v1/chat/completions"
        if not str(url).endswith(("/chat/completions", "/embeddings")):
            raise InvalidRequestError(message=f"the row's url {str(url)[:80]!r} is neither chat/completions nor embeddings")
        return body
    if messages is not None and isinstance(messages, Sequence) and not isinstance(messages, str):
        return {key: value for key, value in values.items() if key not in ("custom_id", "id", "metadata")}
    return None


def _plain_text(values: Mapping[str, Any]) -> str:
    """What to ask without a template: the column `prompt` or `text`, or the only one there is."""
    for name in ("prompt", "text"):
        if name in values:
            return as_text(values[name])
    columns = [name for name in values if name != "custom_id"]
    if len(columns) == 1:
        return as_text(values[columns[0]])
    raise InvalidRequestError(
        message=f"which of {', '.join(columns) or 'no columns'} is asked? Give a prompt with {{column}} in it"
    )
