"""Writes a request as a JSON body in OpenAI's format, as each of its many servers takes it.

Strategy: one pass over the request builds a plain dict, from which turns of nothing but text are left out: they are written as
text at once. Where servers differ, it asks `ServerQuirks`, a row of the table at the end, found by the provider's name; a server
without a row gets the plain format, and no other module compares provider names. The caller's `extra` goes in last, as it is.
Must never know addresses, keys or answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

from .content import Part
from .frozen import EMPTY, FrozenDict, field, frozen_value, replace
from .records import ChatRequest, EmbedRequest, Message, ToolCall
from .validation import matches
from .wire_json import merge_extra, quoted, write_json, write_members, write_value

IMAGE = frozenset({"image"})
USUAL = frozenset({"image", "audio", "document"})
ALL = USUAL | {"video"}

REASONING_MODELS = ("o[1-9]*", "gpt-5*", "*/o[1-9]*", "*/gpt-5*")
"""OpenAI's models that think before they answer."""
NO_SAMPLING = ("o[1-9]*", "gpt-5", "gpt-5-[!c]*", "*/o[1-9]*", "*/gpt-5", "*/gpt-5-[!c]*")
"""Those of them that refuse `temperature` and `top_p`."""
NO_STOP = ("o[1245-9]*", "o3", "o3-[!m]*", "gpt-5", "gpt-5-[!c]*", "*/o[1-9]*", "*/gpt-5", "*/gpt-5-[!c]*")
"""Those of them that refuse `stop`."""


@frozen_value
class ServerQuirks:
    """What one server does in its own way; the defaults are the plain format.

    `refuses`: parameters it does not take ("json_schema" is one kind of `response_format`), each with patterns of the models that
    refuse it. `effort_models`: models that take a reasoning effort; `effort_key`: under which key. `long_limit_models`: models
    that want `max_completion_tokens`. `stream_usage`: on streams it sends usage if asked, and does not refuse to be asked.
    `names`: takes a name on a message. `developer_role`: takes that role. `short_ids`: takes tool call ids of nine letters and
    digits only. `mistral_media`: documents and audio are written as Mistral does, also among tools' results. `audio_in_total`:
    spoken input counts in its total alone. `embed_format`: takes `encoding_format`. `int8_vectors`: the base64 of its vectors
    holds signed bytes.
    """

    __eq__, __hash__ = object.__eq__, object.__hash__  # each is one row of a table, and a key of caches that every call asks

    media: frozenset[str] = USUAL
    refuses: Mapping[str, tuple[str, ...]] = field(default=EMPTY)
    effort_models: tuple[str, ...] = ("*",)
    effort_key: str = "reasoning_effort"
    long_limit_models: tuple[str, ...] = ()
    stream_usage: bool = True
    names: bool = True
    developer_role: bool = False
    short_ids: bool = False
    seed_key: str = "seed"
    key_header: str = "Authorization"
    mistral_media: bool = False
    audio_in_total: bool = False
    embed_format: bool = True
    dimensions_key: str = "dimensions"
    int8_vectors: bool = False


def server(name: str) -> ServerQuirks:
    """The quirks of the provider `name`; the plain format if it is not in the table."""
    return _SERVERS.get(name, _PLAIN_SERVER)


def chat_json(
    request: ChatRequest, model: str, server: ServerQuirks, provider: str, stream: bool, dropped: Sequence[str]
) -> bytes:
    """What `chat_body` makes, as JSON. Plain turns become text without a dict between, in a third of the time."""
    turns = None if request.extra else _turn_texts(request.messages, server, provider)
    if turns is None:
        return write_json(chat_body(request, model, server, provider, stream, dropped))
    begun = f'{{"model":{quoted(model)},"messages":[{",".join(turns)}]'
    settings = _settings(request, model, server, stream, dropped)
    return f"{begun}{write_members(settings) if settings else ''}}}".encode()


def chat_body(
    request: ChatRequest, model: str, server: ServerQuirks, provider: str, stream: bool, dropped: Sequence[str]
) -> dict[str, Any]:
    """The JSON object to send, without the parameters named by `dropped` (see `unsupported`).

    `provider`: its name, whose own turns go back as they came. `request.extra` goes in last, objects of one key merged.
    """
    body: dict[str, Any] = {"model": model, "messages": _turns(request.messages, server, provider)}
    body |= _settings(request, model, server, stream, dropped)
    if request.extra:
        merge_extra(body, request.extra)
    return body


def embed_body(request: EmbedRequest, model: str, server: ServerQuirks) -> dict[str, Any]:
    """The body that asks for vectors; `request.extra` goes in last."""
    body: dict[str, Any] = {"model": model, "input": list(request.inputs)}
    if server.embed_format:
        body["encoding_format"] = "float"
    if request.dimensions is not None:
        body[server.dimensions_key] = request.dimensions
    if request.extra:
        body.update(request.extra)
    return body


def unsupported(request: ChatRequest, refused: frozenset[str]) -> tuple[str, ...]:
    """The names of those of `request`'s parameters that are `refused`, see `refused_by`."""
    given = zip(_PARAMETERS, _values(request), strict=True)
    found = [name for name, value in given if value is not None and _refused(name, value, refused)]
    if request.tools and "tools" in refused:
        found.append("tools")
    return tuple(found)


def _settings(request: ChatRequest, model: str, server: ServerQuirks, stream: bool, dropped: Sequence[str]) -> dict[str, Any]:
    """What a body says besides its messages."""
    made: dict[str, Any] = {}
    if stream:
        made["stream"] = True
        if server.stream_usage:
            made["stream_options"] = {"include_usage": True}
    if request.max_tokens is not None:
        made[_max_tokens_key(server, model)] = request.max_tokens
    if request.tools and "tools" not in dropped:
        made["tools"] = [tool.form for tool in request.tools]
    values = _values(request)
    if values != _NO_VALUES:
        for name, value in zip(_PARAMETERS, values, strict=True):
            if value is not None and name not in dropped:
                _set(made, name, value, server)
    return made


def _refused(name: str, value: Any, refused: frozenset[str]) -> bool:
    if value == 1 and name in ("temperature", "top_p"):
        return False  # which is how such models sample anyway
    return name in refused or (name == "response_format" and "json_schema" in refused and bool(value["type"] == "json_schema"))


def _set(body: dict[str, Any], name: str, value: Any, server: ServerQuirks) -> None:
    if name == "seed":
        body[server.seed_key] = value
    elif name == "reasoning_effort" and server.effort_key == "reasoning":
        body["reasoning"] = {"effort": value}
    elif name == "response_format" and value["type"] == "json_schema" and "name" not in value["json_schema"]:
        body[name] = {**value, "json_schema": {"name": "answer", **value["json_schema"]}}
    else:
        body[name] = value


def _turn_texts(messages: Sequence[Any], server: ServerQuirks, provider: str) -> list[str] | None:
    """The JSON of each of `messages`; None if one of them becomes two, see `_turns`."""
    turns = []
    for message in messages:
        content, begun = message.content, _BEGUN.get(message.role)
        if (
            begun is not None
            and type(content) is str
            and not message.tool_calls
            and message.native is message.tool_call_id is message.name is None
        ):
            turns.append(f"{begun}{quoted(content)}}}")
        elif message.role == "tool" and not isinstance(content, str):
            return None
        else:
            turns.append(write_value(_message(message, server, provider)))
    return turns


def _turns(messages: Sequence[Any], server: ServerQuirks, provider: str) -> list[dict[str, Any]]:
    """The messages. A tool message holds text only, save Mistral's, so media among results follow in a user message."""
    made: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    for message in messages:
        if shown and message.role != "tool":
            made.append({"role": "user", "content": shown})
            shown = []
        turn = _message(message, server, provider)
        if message.role == "tool" and not isinstance(message.content, str) and not server.mistral_media:
            shown += [part.to_dict() for part in message.parts if part.kind != "text"]
            turn["content"] = message.text
        made.append(turn)
    return [*made, {"role": "user", "content": shown}] if shown else made


def _message(message: Message, server: ServerQuirks, provider: str) -> dict[str, Any]:
    role = message.role
    if role == "assistant":
        return _assistant(message, server, provider)
    if role == "developer" and not server.developer_role:
        role = "system"
    made: dict[str, Any] = {"role": role, "content": _content(message, server)}
    if message.tool_call_id is not None:
        made["tool_call_id"] = _call_id(message.tool_call_id, server)
    if message.name is not None and server.names:
        made["name"] = message.name
    return made


def _assistant(message: Message, server: ServerQuirks, provider: str) -> dict[str, Any]:
    if message.native is not None:
        kept = message.native_for("openai", provider)
        if isinstance(kept, dict):
            for call in kept.get("tool_calls", ()):
                call["id"] = _call_id(call["id"], server)
            return kept
    made: dict[str, Any] = {"role": "assistant", "content": _content(message, server)}
    if message.tool_calls:
        made["content"] = made["content"] or None
        made["tool_calls"] = [
            replace(call, id=_call_id(call.id, server), arguments=call.arguments.strip() or "{}").to_dict()
            for call in message.tool_calls
            if isinstance(call, ToolCall)
        ]
    if message.name is not None and server.names:
        made["name"] = message.name
    return made


def _content(message: Message, server: ServerQuirks) -> str | list[dict[str, Any]]:
    content = message.content
    if isinstance(content, str):
        return content
    parts = message.parts
    if all(part.kind == "text" for part in parts):
        return message.text if len(parts) < 2 else [part.to_dict() for part in parts]
    return [_mistral_part(part) if server.mistral_media else part.to_dict() for part in parts]


def _mistral_part(part: Part) -> dict[str, Any]:
    if part.kind == "document":
        return {"type": "document_url", "document_url": part.data_url()}
    if part.kind == "audio":
        return {"type": "input_audio", "input_audio": part.url or part.base64()}
    return part.to_dict()


def _call_id(call_id: str, server: ServerQuirks) -> str:
    """The id as the server takes it: always the same for the same id, so that a result still finds its call."""
    if not server.short_ids or (len(call_id) == 9 and call_id.isascii() and call_id.isalnum()):
        return call_id
    from hashlib import blake2b  # loading it loads OpenSSL's

    digest = blake2b(call_id.encode("utf-8", "surrogatepass"), digest_size=9).digest()
    return "".join(_LETTERS[byte % 62] for byte in digest)


@lru_cache(maxsize=1024)
def refused_by(server: ServerQuirks, model: str) -> frozenset[str]:
    """The parameters that `model` on this server refuses, perhaps with "json_schema" among them."""
    found = {name for name, patterns in server.refuses.items() if _any(model, patterns)}
    if not _any(model, server.effort_models):
        found.add("reasoning_effort")
    return frozenset(found)


@lru_cache(maxsize=1024)
def _max_tokens_key(server: ServerQuirks, model: str) -> str:
    """The key under which `model` on this server takes `max_tokens`."""
    return "max_completion_tokens" if _any(model, server.long_limit_models) else "max_tokens"


def _any(model: str, patterns: tuple[str, ...]) -> bool:
    return any(matches(model, pattern) for pattern in patterns)


_PARAMETERS = ("temperature", "top_p", "seed", "tool_choice", "response_format", "reasoning_effort", "stop")
"""Parameters that most servers take under their names in `ChatRequest`."""
_values, _NO_VALUES = attrgetter(*_PARAMETERS), (None,) * len(_PARAMETERS)
_BEGUN = FrozenDict({role: f'{{"role":"{role}","content":' for role in ("system", "user", "assistant")})
"""How a turn's JSON begins, for roles that every server knows and that mean nothing but who speaks."""
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PLAIN_SERVER = ServerQuirks()
_OPENAI = ServerQuirks(
    refuses=FrozenDict(temperature=NO_SAMPLING, top_p=NO_SAMPLING, stop=NO_STOP),
    effort_models=REASONING_MODELS,
    long_limit_models=REASONING_MODELS,
    developer_role=True,
)
_GROK = ServerQuirks(
    media=IMAGE,
    refuses=FrozenDict(stop=("grok-3-mini*", "grok-4*")),
    effort_models=("grok-3-mini*", "grok-4.2*multi-agent*", "grok-4.3*"),
)
_CEREBRAS = ServerQuirks(media=IMAGE, effort_models=("*gpt-oss*", "zai-glm*"))
_MISTRAL = ServerQuirks(
    effort_models=("mistral-small*", "mistral-medium*"),
    stream_usage=False,
    names=False,
    short_ids=True,
    seed_key="random_seed",
    mistral_media=True,
    audio_in_total=True,
    dimensions_key="output_dimension",
)
_SERVERS: Mapping[str, ServerQuirks] = FrozenDict(
    {
        "openai": _OPENAI,
        "azure_openai": replace(_OPENAI, key_header="api-key"),
        "github-models": replace(_OPENAI, media=frozenset({"image", "audio"}), developer_role=False),
        "grok": _GROK,
        "xai": _GROK,
        "cerebras": _CEREBRAS,
        "cerebro": _CEREBRAS,
        "groq": ServerQuirks(media=IMAGE, effort_models=("*gpt-oss*", "*qwen3*"), names=False),
        "openrouter": ServerQuirks(media=ALL, effort_key="reasoning"),
        "vercel-ai-gateway": ServerQuirks(effort_key="reasoning"),
        "mistral": _MISTRAL,
        "deepseek": ServerQuirks(media=frozenset(), refuses=FrozenDict(json_schema=("*",))),
        "perplexity": ServerQuirks(
            media=frozenset({"image", "document"}),
            refuses=FrozenDict(tools=("*",), tool_choice=("*",), seed=("*",)),
            stream_usage=False,
            embed_format=False,
            int8_vectors=True,
        ),
        "voyage": ServerQuirks(embed_format=False, dimensions_key="output_dimension"),
        "ollama": ServerQuirks(media=IMAGE),
        "ollama-cloud": ServerQuirks(media=IMAGE),
        **dict.fromkeys(("together", "zai", "huggingface", "siliconflow", "modelscope", "vllm"), ServerQuirks(media=ALL)),
    }
)
