"""Writes a chat request as the body of Gemini's :generateContent, and names the parameters that a model does not take.

Strategy: turns become contents; neighbours of one role are merged, because Gemini wants roles to alternate. A turn that Gemini
wrote goes back unchanged, with its thought signatures; a turn of another provider is written in Gemini's form. What a model takes
is read from the family and version in its name. Must never know URLs, keys or answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .content import Part
from .errors import InvalidRequestError
from .records import ChatRequest, Message
from .wire_json import as_object, merge_extra

Json = dict[str, Any]

ANY_SIGNATURE = "skip_thought_signature_validator"  # the documented stand-in for a call that Gemini did not sign
BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576, "max": 24576}
LEAST_PRO_BUDGET = 128  # the Pro models of 2.5 cannot stop thinking
LEVELS = {"none": "minimal", "minimal": "minimal", "low": "low", "medium": "medium"}  # every other effort is "high"
PRO_LEVELS = {"none": "low", "minimal": "low", "low": "low", "medium": "medium"}
FIRST_PRO_LEVELS = {"none": "low", "minimal": "low", "low": "low"}  # gemini-3-pro knows two levels only
CHOICES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_VERSION = re.compile(r"(gemini|gemma)-(\d+)(?:\.(\d+))?")


def unsupported(request: ChatRequest, model: str) -> tuple[str, ...]:
    """The names of `request`'s parameters that this format cannot carry to `model`."""
    if not (request.tools or request.tool_choice or request.response_format or request.reasoning_effort):
        return ()
    family, version = _family(model)
    small = family == "gemma" and version < (4, 0)
    dropped = []
    if small and request.tools:
        dropped.append("tools")
    if request.tool_choice and (small or not request.tools):
        dropped.append("tool_choice")
    form: Any = request.response_format
    # Before Gemini 3 an answer is either calls or JSON.
    if form and form["type"] != "text" and (small or (request.tools and family == "gemini" and version < (3, 0))):
        dropped.append("response_format")
    effort = request.reasoning_effort
    if effort is not None and (effort not in BUDGETS or family == "gemma" or (family and version < (2, 5))):
        dropped.append("reasoning_effort")
    return tuple(dropped)


def chat_body(request: ChatRequest, model: str, dropped: Sequence[str]) -> Json:
    """The JSON object to send, without the parameters named by `dropped` (see `unsupported`).

    `request.extra` comes last, objects of one key merged. Raises `InvalidRequestError`.
    """
    system, contents = _turns(request.messages, signed=_checks_signatures(model))
    if system and (not contents or model.startswith("gemma-")):
        _prepend(system, contents)
    body: Json = {"contents": contents}
    if system:
        body["systemInstruction"] = {"parts": system}
    if request.tools and "tools" not in dropped:
        body.update(_tools(request))
    generation = _generation(request, model, dropped)
    if generation:
        body["generationConfig"] = generation
    if request.extra:
        merge_extra(body, request.extra)
    return body


def _family(model: str) -> tuple[str, tuple[int, int]]:
    """("gemini" or "gemma", version); ("", (0, 0)) for a name without a version."""
    found = _VERSION.match(model)
    return (found[1], (int(found[2]), int(found[3] or 0))) if found else ("", (0, 0))


def _checks_signatures(model: str) -> bool:
    family, version = _family(model)
    return (family == "gemini" and version >= (3, 0)) or model.endswith("-latest")


def _turns(messages: Sequence[Message | Any], *, signed: bool) -> tuple[list[Json], list[Json]]:
    """The parts of the system instruction, and the contents."""
    system: list[Json] = []
    contents: list[Json] = []
    called: dict[str, tuple[str, str | None]] = {}
    for message in messages:
        role = message.role
        if role in ("system", "developer"):
            system += _system_parts(message)
            continue
        if role == "assistant":
            role, parts = "model", _model_parts(message, called, signed=signed)
            if not parts:
                continue
        elif role == "tool":
            role, parts = "user", _result_parts(message, called)
        else:
            parts = _parts(message) or [{"text": ""}]
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"] += parts
        else:
            contents.append({"role": role, "parts": parts})
    return system, contents


def _system_parts(message: Message) -> list[Json]:
    if any(part.kind != "text" for part in message.parts):
        raise InvalidRequestError(message="Gemini takes text only in a system message: put media into a user message")
    return _parts(message)


def _prepend(system: list[Json], contents: list[Json]) -> None:
    """Move the system instruction to the start of the first user turn."""
    if contents and contents[0]["role"] == "user":
        contents[0]["parts"][:0] = system
    else:
        contents.insert(0, {"role": "user", "parts": system[:]})
    system.clear()


def _model_parts(message: Message, called: dict[str, tuple[str, str | None]], *, signed: bool) -> list[Json]:
    native = message.native_for("gemini")
    if isinstance(native, list):
        parts = native
    else:
        parts = [part for part in _parts(message) if part.get("text") != ""]
        parts += [_call(call.name, call.arguments, call.signature) for call in message.tool_calls]
    calls = [part for part in parts if part.get("functionCall") is not None]
    for call, part in zip(message.tool_calls, calls, strict=False):
        called[call.id] = (call.name, part["functionCall"].get("id"))
    if signed and calls and "thoughtSignature" not in calls[0]:
        calls[0]["thoughtSignature"] = ANY_SIGNATURE
    return parts


def _call(name: str, arguments: str, signature: str | None) -> Json:
    made = {"functionCall": {"name": name, "args": as_object(arguments, "input") if arguments.strip() else {}}}
    return {**made, "thoughtSignature": signature} if signature else made


def _result_parts(message: Message, called: dict[str, tuple[str, str | None]]) -> list[Json]:
    name, native_id = called.get(message.tool_call_id or "", (message.name, None))
    if name is None:
        raise InvalidRequestError(
            message=f"a tool message answers the call {message.tool_call_id!r}, which no earlier message made: "
            "keep the assistant message with its tool_calls, or give the tool message a name"
        )
    response: Json = {"name": name, "response": as_object(message.text, "result")}
    if native_id:
        response["id"] = native_id
    media = () if isinstance(message.content, str) else [part for part in message.parts if part.kind != "text"]
    return [{"functionResponse": response}, *map(_part, media)]


def _parts(message: Message) -> list[Json]:
    content = message.content
    if isinstance(content, str):
        return [{"text": content}] if content else []
    return [_part(part) for part in message.parts]


def _part(part: Part) -> Json:
    if part.kind == "text":
        return {"text": part.value or ""}
    if part.url is not None:
        mime_type = part.mime_type or _guess(part.url)
        return {"fileData": {"fileUri": part.url, **({"mimeType": mime_type} if mime_type else {})}}
    return {"inlineData": {"mimeType": part.mime_type or "application/octet-stream", "data": part.base64()}}


def _guess(url: str) -> str | None:
    import mimetypes

    return mimetypes.guess_type(url.partition("?")[0])[0]


def _tools(request: ChatRequest) -> Json:
    declared = []
    for tool in request.tools:
        function: Json = {"name": tool.name}
        if tool.description:
            function["description"] = tool.description
        if tool.parameters:
            function["parametersJsonSchema"] = tool.parameters
        declared.append(function)
    made: Json = {"tools": [{"functionDeclarations": declared}]}
    if request.tool_choice is not None:
        forced = request.forced_tool
        calling: Json = {"mode": "ANY" if forced else CHOICES[str(request.tool_choice)]}
        if forced:
            calling["allowedFunctionNames"] = [forced]
        made["toolConfig"] = {"functionCallingConfig": calling}
    return made


def _generation(request: ChatRequest, model: str, dropped: Sequence[str]) -> Json:
    made: Json = {}
    if request.temperature is not None:
        made["temperature"] = request.temperature
    if request.max_tokens is not None:
        made["maxOutputTokens"] = request.max_tokens
    if request.top_p is not None:
        made["topP"] = request.top_p
    if request.stop:
        made["stopSequences"] = request.stop
    if request.seed is not None:
        made["seed"] = request.seed
    if request.response_format and "response_format" not in dropped:
        made.update(_format(request.response_format))
    if request.reasoning_effort is not None and "reasoning_effort" not in dropped:
        made["thinkingConfig"] = _thinking(request.reasoning_effort, model)
    return made


def _format(form: Any) -> Json:
    if form["type"] == "text":
        return {}
    made: Json = {"responseMimeType": "application/json"}
    if form["type"] == "json_schema":
        made["responseJsonSchema"] = form["json_schema"]["schema"]
    return made


def _thinking(effort: str, model: str) -> Json:
    family, version = _family(model)
    pro = "-pro" in model
    made: Json
    if family == "gemini" and version >= (3, 0):
        levels = LEVELS if not pro else FIRST_PRO_LEVELS if version == (3, 0) else PRO_LEVELS
        made = {"thinkingLevel": levels.get(effort, "high")}
    else:
        budget = BUDGETS[effort]
        made = {"thinkingBudget": max(budget, LEAST_PRO_BUDGET) if pro else budget}
    if effort != "none":
        made["includeThoughts"] = True
    return made
