"""Writes a chat request as the body of Anthropic's /messages, and names the parameters that a model does not take.

Strategy: turns become messages of content blocks; neighbours of one role are merged, because the results of parallel calls must
share one message. A turn that Anthropic wrote goes back unchanged, with its thinking signatures. What a model takes (`Traits`) is
read from its name: one regular expression finds family and version, and each trait compares versions, so that a new model of a
known family works at once. A name that is not Claude's belongs to another server of this format and gets the oldest form, which
all of them take. Must never know URLs, keys or answers.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from .content import Part
from .errors import InvalidRequestError
from .frozen import frozen_value
from .records import ChatRequest, Message
from .wire_json import as_object, merge_extra

Json = dict[str, Any]

DEFAULT_MAX_TOKENS = 4096
"""Tokens an answer may have when the request does not say, as Anthropic demands a number; a thinking budget comes on top."""

JSON_TOOL = "json_answer"
"""The tool a model without JSON output must call to answer; what it is called with is the answer's text."""

LEAST_BUDGET = 1024
BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 24576}
EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max"}
CHOICES = {"auto": "auto", "none": "none", "required": "any"}
OPENING = "."  # a conversation that the assistant begins needs a user turn before it, which cannot be empty
ASK_FOR_JSON = "Answer with one valid JSON object and nothing else: no code fence, no words before or after it."
NEWEST = (5, 0)  # the version of a Claude whose name does not tell it
UNCHECKED = frozenset(
    (
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    )
)
"""Keywords that a strict schema may not have; without them it allows a little more."""
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NAME = re.compile(r"claude-(?:([a-z]+)-)?(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")


@frozen_value
class Traits:
    """What a model takes. `budgets`: it thinks by a token budget; `adaptive`: by effort; neither: not at all.

    `xhigh`: takes that effort. `stops_thinking`: how the effort "none" is written ("omit", "disabled"; "" for a model that always
    thinks). `sampling`: takes temperature and top_p; `one_sampling`: but not both. `json_format`: writes JSON by a schema and
    checks strict tools. `can_force_tools`: can be forced to call a tool. `shows_thinking`: shows it only when asked to.
    """

    budgets: bool = True
    adaptive: bool = False
    xhigh: bool = False
    stops_thinking: str = "omit"
    sampling: bool = True
    one_sampling: bool = False
    json_format: bool = False
    can_force_tools: bool = True
    shows_thinking: bool = False


@lru_cache(256)
def traits(model: str) -> Traits:
    """The traits of the model of this name."""
    start = model.find("claude-")
    if start < 0:
        return Traits()
    found = _NAME.match(model, start)
    version = (int(found[2]), int(found[3] or 0)) if found else NEWEST
    family = found[1] if found else model[start + 7 :].partition("-")[0]
    adaptive = version >= (4, 6)
    since_4_7 = version >= (4, 7)
    always_thinks = family in ("fable", "mythos")
    structured = version >= (4, 5) or (family == "opus" and version == (4, 1))
    return Traits(
        budgets=(3, 7) <= version < (4, 6),
        adaptive=adaptive,
        xhigh=since_4_7,
        stops_thinking="" if always_thinks else "disabled" if version >= (5, 0) else "omit",
        sampling=not since_4_7,
        one_sampling=structured,
        json_format=structured,
        can_force_tools=not always_thinks,
        shows_thinking=since_4_7,
    )


def unsupported(request: ChatRequest, model: str) -> tuple[str, ...]:
    """The names of `request`'s parameters that this format cannot carry to `model`."""
    return _fitted(request, traits(model)).dropped


def chat_body(request: ChatRequest, model: str, stream: bool) -> tuple[Json, tuple[str, ...]]:
    """The JSON object to send, and the names of the parameters that are not in it, which are those of `unsupported`.

    `request.extra` comes last. Raises `InvalidRequestError`.
    """
    known = traits(model)
    fitted = _fitted(request, known)
    system, messages = _turns(request.messages)
    form: Any = request.response_format
    if form and form["type"] == "json_object":
        system.append(ASK_FOR_JSON)
    if not messages and system:
        messages = [{"role": "user", "content": [{"type": "text", "text": system.pop(0)}]}]
    body: Json = {"model": model, "max_tokens": fitted.max_tokens, "messages": messages}
    if system:
        body["system"] = "\n\n".join(system)
    _add_sampling(body, request, fitted)
    _add_tools(body, request, fitted, known)
    if fitted.thinking:
        body["thinking"] = fitted.thinking
    output: Json = {"effort": fitted.effort} if fitted.effort else {}
    if fitted.schema is not None and not fitted.by_tool:
        output["format"] = {"type": "json_schema", "schema": fitted.schema}
    if output:
        body["output_config"] = output
    if stream:
        body["stream"] = True
    if request.extra:
        merge_extra(body, request.extra)
    return body, fitted.dropped


@frozen_value
class _Fitted:
    """A request as one model takes it. `dropped`: parameters left out; `schema`: of its JSON output, by tool if `by_tool`."""

    dropped: tuple[str, ...]
    thinking: Json | None
    effort: str | None
    schema: Any
    by_tool: bool
    max_tokens: int


def _fitted(request: ChatRequest, known: Traits) -> _Fitted:
    schema, by_tool = _json_output(request, known)
    forced = bool(request.tools) and (request.forced_tool is not None or request.tool_choice == "required")
    thinking, effort, max_tokens = _thinking(request, known, forced=forced or by_tool)
    word, form = request.reasoning_effort, _schema_of(request)
    dropped = _lost_sampling(request, known, thinking)
    if request.stop and any(not word.strip() for word in request.stop):
        dropped.append("stop")  # Anthropic refuses words of white space alone
    if request.seed is not None:
        dropped.append("seed")
    if request.tool_choice is not None and (not request.tools or (forced and not known.can_force_tools)):
        dropped.append("tool_choice")
    if form is not None and schema is None:
        dropped.append("response_format")
    if word is not None and (not known.stops_thinking if word == "none" else thinking is None):
        dropped.append("reasoning_effort")
    return _Fitted(tuple(dropped), thinking, effort, schema, by_tool, max_tokens)


def _json_output(request: ChatRequest, known: Traits) -> tuple[Any, bool]:
    """The schema of the answer, and whether a tool must carry it; (None, False) without a schema, or if neither way works."""
    schema = _schema_of(request)
    if schema is None:
        return None, False
    if known.json_format and not _allows_extra_keys(schema):
        return _strict_schema(schema), False
    if known.can_force_tools and schema.get("type", "object") == "object":
        return {"type": "object", **schema}, True
    return None, False


def _schema_of(request: ChatRequest) -> Any:
    form: Any = request.response_format
    return form["json_schema"]["schema"] if form and form["type"] == "json_schema" else None


def _thinking(request: ChatRequest, known: Traits, *, forced: bool) -> tuple[Json | None, str | None, int]:
    """The thinking object, the effort, and max_tokens; a budget leaves at least half of max_tokens to the answer."""
    word, limit = request.reasoning_effort, request.max_tokens
    if word == "none" and known.stops_thinking == "disabled":
        return {"type": "disabled"}, None, limit or DEFAULT_MAX_TOKENS
    if word in BUDGETS:
        if known.adaptive:
            effort = word if word == "xhigh" and known.xhigh else EFFORTS[word]
            shown = {"display": "summarized"} if known.shows_thinking else {}
            return {"type": "adaptive", **shown}, effort, limit or DEFAULT_MAX_TOKENS + BUDGETS[word]
        if known.budgets and not forced and _may_think(request.messages):
            budget = max(LEAST_BUDGET, min(BUDGETS[word], limit // 2)) if limit else BUDGETS[word]
            if not limit or budget < limit:
                return {"type": "enabled", "budget_tokens": budget}, None, limit or DEFAULT_MAX_TOKENS + budget
    return None, None, limit or DEFAULT_MAX_TOKENS


def _may_think(messages: Sequence[Message | Any]) -> bool:
    """Whether thinking may be asked for: not if an unfinished turn began without it, as another provider's turn did."""
    for message in reversed(messages):
        if message.role == "tool":
            continue
        if message.role != "assistant":
            break
        blocks = message.native_for("anthropic")
        return bool(blocks) and blocks[0]["type"] in ("thinking", "redacted_thinking")
    return True


def _lost_sampling(request: ChatRequest, known: Traits, thinking: Json | None) -> list[str]:
    temperature, top_p = request.temperature, request.top_p
    thinks = thinking is not None and thinking["type"] != "disabled"
    dropped = []
    if temperature is not None and (temperature > 1 or not known.sampling or (thinks and temperature != 1)):
        dropped.append("temperature")
    both = known.one_sampling and temperature is not None and not dropped
    if top_p is not None and (both or not known.sampling or (thinks and top_p < 0.95)):
        dropped.append("top_p")
    return dropped


def _add_sampling(body: Json, request: ChatRequest, fitted: _Fitted) -> None:
    if request.temperature is not None and "temperature" not in fitted.dropped:
        body["temperature"] = request.temperature
    if request.top_p is not None and "top_p" not in fitted.dropped:
        body["top_p"] = request.top_p
    words = [word for word in request.stop or () if word.strip()]
    if words:
        body["stop_sequences"] = words


def _add_tools(body: Json, request: ChatRequest, fitted: _Fitted, known: Traits) -> None:
    tools: list[Json] = []
    for tool in request.tools:
        if tool.name == JSON_TOOL:
            raise InvalidRequestError(message=f"a tool cannot be named {JSON_TOOL!r} here, as JSON answers use that name")
        strict = bool(tool.strict) and known.json_format and not _allows_extra_keys(tool.parameters)
        schema = _strict_schema(tool.parameters) if strict else tool.parameters
        made: Json = {"name": tool.name, "input_schema": {"type": "object", **schema}}
        if tool.description:
            made["description"] = tool.description
        if strict:
            made["strict"] = True
        tools.append(made)
    choice = _choice(request) if request.tool_choice is not None and "tool_choice" not in fitted.dropped else None
    if fitted.by_tool:
        tools.append({"name": JSON_TOOL, "description": "Give your answer.", "input_schema": fitted.schema})
        if choice is None or choice["type"] != "tool":
            open_choice = bool(request.tools) and request.tool_choice != "none"
            choice = {"type": "any"} if open_choice else {"type": "tool", "name": JSON_TOOL}
    if tools:
        body["tools"] = tools
    if choice is not None:
        body["tool_choice"] = choice


def _choice(request: ChatRequest) -> Json:
    forced = request.forced_tool
    return {"type": "tool", "name": forced} if forced else {"type": CHOICES[str(request.tool_choice)]}


def _turns(messages: Sequence[Message | Any]) -> tuple[list[str], list[Json]]:
    """The texts of the system prompt, and the messages."""
    system: list[str] = []
    turns: list[Json] = []
    for message in messages:
        role = message.role
        if role in ("system", "developer"):
            if any(part.kind != "text" for part in message.parts):
                raise InvalidRequestError(message="Anthropic takes text only in a system message: use a user message")
            if message.text:
                system.append(message.text)
            continue
        if role == "assistant":
            blocks = _assistant_blocks(message)
        elif role == "tool":
            role, blocks = "user", [_tool_result(message)]
        else:
            blocks = _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if turns and turns[0]["role"] == "assistant":
        turns.insert(0, {"role": "user", "content": [{"type": "text", "text": OPENING}]})
    return system, turns


def _assistant_blocks(message: Message) -> list[Json]:
    native = message.native_for("anthropic")
    if isinstance(native, list):
        return native
    calls = [
        {
            "type": "tool_use",
            "id": _id(call.id),
            "name": call.name,
            "input": as_object(call.arguments, "input") if call.arguments.strip() else {},
        }
        for call in message.tool_calls
    ]
    return _blocks(message) + calls


def _tool_result(message: Message) -> Json:
    if not message.tool_call_id:
        raise InvalidRequestError(message="a tool message needs the tool_call_id of the call it answers")
    made: Json = {"type": "tool_result", "tool_use_id": _id(message.tool_call_id)}
    blocks = _blocks(message)
    return {**made, "content": blocks} if blocks else made


def _id(given: str) -> str:
    """`given` if Anthropic takes it as an id, else another that is always the same for it."""
    if _ID.fullmatch(given):
        return given
    return "call_" + base64.urlsafe_b64encode(given.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def _blocks(message: Message) -> list[Json]:
    """The message's parts as content blocks; text without a visible character is left out, as Anthropic refuses it."""
    return [_block(part) for part in message.parts if part.kind != "text" or (part.value or "").strip()]


def _block(part: Part) -> Json:
    if part.kind == "text":
        return {"type": "text", "text": part.value}
    if part.kind == "image":
        return {"type": "image", "source": _source(part, part.mime_type or "image/png")}
    if part.kind == "document":
        title = {"title": part.filename} if part.filename else {}
        return {"type": "document", "source": _source(part, part.mime_type or "application/pdf"), **title}
    raise InvalidRequestError(message=f"Anthropic does not take {part.kind}: send it to a model of another provider")


def _source(part: Part, mime_type: str) -> Json:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    if mime_type.startswith("text/"):
        return {"type": "text", "media_type": "text/plain", "data": (part.data or b"").decode("utf-8", "replace")}
    if part.kind == "document" and mime_type != "application/pdf":
        raise InvalidRequestError(message=f"Anthropic takes PDF and plain text as documents, not {mime_type}")
    return {"type": "base64", "media_type": mime_type, "data": part.base64()}


def _strict_schema(schema: Any) -> Any:
    """`schema` as strict output wants it: its objects allow no other keys, and the keywords it refuses are left out."""
    if isinstance(schema, (list, tuple)):
        return [_strict_schema(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            made[key] = {name: _strict_schema(each) for name, each in value.items()}
        elif key in ("enum", "const", "default", "examples"):
            made[key] = value
        elif key not in UNCHECKED:
            made[key] = _strict_schema(value)
    if "properties" in made or "object" in (made.get("type") or ()):
        made["additionalProperties"] = False
    return made


def _allows_extra_keys(schema: Any) -> bool:
    """Whether an object in `schema` may have keys of any name, which a strict schema cannot express."""
    if isinstance(schema, Mapping):
        return bool(schema.get("additionalProperties")) or any(_allows_extra_keys(value) for value in schema.values())
    return isinstance(schema, (list, tuple)) and any(_allows_extra_keys(value) for value in schema)
