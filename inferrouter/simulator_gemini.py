"""Serves Gemini's native format in the simulator: generateContent, streamGenerateContent, embeddings, model list.

Strategy: requests are read as strictly as the service reads them (unknown fields, empty parts, function calls without
their answers and lost thought signatures are refused), answers have its habits: calls without an id and with STOP, a
signature on the first call only, usage on every chunk, CRLF framing, no terminal event, and bare JSON errors under an
event-stream content type. A model named gemini-3* wants a signature on every first call, others on those they signed.
Must never know sockets, clocks or how limits are counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .secret import Secret
from .simulator_model import MOST_DIMENSIONS, make_id, pieces, sign, vector
from .simulator_prompt import Call, IssuedTokens, Media, Prompt, Result, Texts, ToolSpec, Turn, compact
from .simulator_wire import (
    Body,
    Exchange,
    LimitState,
    Refusal,
    as_media,
    as_object,
    first_unknown_field,
    link_media,
    names,
)
from .wire_json import write_event

ANY_SIGNATURE = "skip_thought_signature_validator"  # documented stand-in for history that another model wrote
FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "sequence": "STOP", "calls": "STOP"}
STATUS = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
QUOTA_IDS = {
    "requests": "GenerateRequestsPer{}PerProjectPerModel-FreeTier",
    "tokens": "GenerateContentInputTokensPerModelPer{}-FreeTier",
}
METRICS = {"requests": "generate_content_free_tier_requests", "tokens": "generate_content_free_tier_input_token_count"}
TYPE = "type.googleapis.com/google.rpc."
DATA = names("text inlineData fileData functionCall functionResponse")
PART = DATA | names("thought thoughtSignature videoMetadata mediaResolution")
CONTENT = names("role parts")
REQUEST = names("model contents systemInstruction tools toolConfig safetySettings generationConfig cachedContent labels")
CONFIG = names(
    "stopSequences responseMimeType responseSchema responseJsonSchema responseModalities candidateCount "
    "maxOutputTokens temperature topP topK seed presencePenalty frequencyPenalty responseLogprobs logprobs "
    "thinkingConfig mediaResolution speechConfig imageConfig"
)
DECLARATION = names("name description parameters parametersJsonSchema response responseJsonSchema behavior")
EMBED = names("model content taskType title outputDimensionality")


class GeminiWire:
    """See `simulator_wire.Wire`. Memory holds the thought signatures it gave out."""

    root = "/v1beta"
    indent: int | None = 2
    id_header = ""

    def __init__(self, memory: IssuedTokens) -> None:
        self._memory = memory

    def key(self, headers: Mapping[str, str]) -> Secret:
        """The x-goog-api-key header."""
        return Secret(headers.get("x-goog-api-key", ""))

    def error_type(self, query: Mapping[str, str]) -> str:
        """An event stream's type even for the bare JSON of an error, as the service has it."""
        return "text/event-stream" if query.get("alt") == "sse" else "application/json; charset=UTF-8"

    def read(self, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Prompt | Texts:
        """The request behind /models/{model}:{method}."""
        route = re.fullmatch(r"/models/([^:]+):(\w+)", path)
        model, method = route.groups() if route else ("", "")
        found = as_object(body)
        if found is None:
            raise self.refusal(400, "Invalid JSON payload received.")
        if method in ("generateContent", "streamGenerateContent"):
            stream = method == "streamGenerateContent"
            return self._prompt(model, found, sse=stream and query.get("alt") == "sse", array=stream)
        if method == "embedContent":
            return self._texts(model, [found], frozenset(["single"]))
        if method == "batchEmbedContents":
            return self._texts(model, found.get("requests") or [], frozenset())
        raise self.refusal(404, "Requested entity was not found.")

    def refusal(self, status: int, message: str = "", model: str = "") -> Refusal:
        """A Google error body; a bad key is a 400."""
        if status == 401:
            reason = {"@type": f"{TYPE}ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}
            return Refusal(400, _error(400, "API key not valid. Please pass a valid API key.", [reason]))
        usual = {
            404: f"models/{model} is not found for API version v1beta, or is not supported for generateContent.",
            429: "Resource has been exhausted (e.g. check quota).",
            503: "The model is overloaded. Please try again later.",
        }
        return Refusal(status, _error(status, message or usual.get(status, "An internal error has occurred.")))

    def limited(self, model: str, spent: list[LimitState], asked: int, now: float) -> Refusal:
        """429 with every violation; the delay is short even when a day is spent, and there is no Retry-After."""
        delay = min(each.wait for each in spent) if all(each.window == "minute" for each in spent) else 60 - now % 60
        violations = [
            {
                "quotaMetric": f"generativelanguage.googleapis.com/{METRICS[each.unit]}",
                "quotaId": QUOTA_IDS[each.unit].format(each.window.capitalize()),
                "quotaDimensions": {"location": "global", "model": model},
                "quotaValue": str(each.limit),
            }
            for each in spent
        ]
        quotas = "".join(
            f"\n* Quota exceeded for metric: {each['quotaMetric']}, limit: {each['quotaValue']}, model: {model}"
            for each in violations
        )
        said = f"You exceeded your current quota. {quotas}\nPlease retry in {delay:.3f}s."
        details: list[Body] = [
            {"@type": f"{TYPE}Help", "links": [{"url": "https://ai.google.dev/gemini-api/docs/rate-limits"}]},
            {"@type": f"{TYPE}QuotaFailure", "violations": violations},
            {"@type": f"{TYPE}RetryInfo", "retryDelay": f"{int(delay)}s"},
        ]
        return Refusal(429, _error(429, said, details))

    def rate_headers(self, limits: list[LimitState], now: float) -> dict[str, str]:
        """None: Gemini does not tell."""
        return {}

    def whole(self, exchange: Exchange) -> Any:
        """A GenerateContentResponse, or the array of a stream that was not asked for as events."""
        if "array" in exchange.prompt.notes:
            return self._chunks(exchange)
        self._remember(exchange)
        answer = exchange.answer
        parts: list[Body] = _thoughts(exchange, answer.thinking)
        if answer.text:
            signed = {"thoughtSignature": sign("text", answer.text)} if answer.thinking else {}
            parts.append({"text": answer.text, **signed})
        parts += _call_parts(answer.calls)
        return _response(exchange, parts, FINISH[answer.finish], answer.completion_tokens - answer.thinking_tokens)

    def stream(self, exchange: Exchange) -> tuple[list[bytes], list[bytes]]:
        """Chunks with CRLF framing; the one with the finishReason is the end."""
        frames = [write_event(chunk, end="\r\n") for chunk in self._chunks(exchange)]
        return frames[:-1], frames[-1:]

    def error_event(self) -> bytes:
        """An error object in a chunk's place."""
        return write_event(self.refusal(503).body, end="\r\n")

    def empty_response(self, exchange: Exchange) -> Any:
        """A response without candidates."""
        return {"usageMetadata": _usage(exchange, 0), "modelVersion": exchange.prompt.model}

    def vectors(self, texts: Texts) -> Any:
        """One embedding, or a batch with usage."""
        values = [{"values": vector(text, texts.dimensions)} for text in texts.inputs]
        if "single" in texts.notes:
            return {"embedding": values[0]}
        return {"embeddings": values, "usageMetadata": {"promptTokenCount": texts.tokens}}

    def listing(self, models: tuple[str, ...]) -> Any:
        """The model list."""
        return {"models": [{"name": f"models/{name}", "displayName": name} for name in models]}

    def _chunks(self, exchange: Exchange) -> list[Body]:
        self._remember(exchange)
        answer, size = exchange.answer, exchange.chunk_words
        content = [_thoughts(exchange, piece) for piece in pieces(answer.thinking, size)]
        content += [[{"text": piece}] for piece in pieces(answer.text, size)]
        content += [[part] for part in _call_parts(answer.calls)]
        total = answer.completion_tokens - answer.thinking_tokens
        grown = [total * place // max(1, len(content)) for place in range(1, len(content) + 1)]
        chunks = [_response(exchange, parts, None, tokens) for parts, tokens in zip(content, grown, strict=True) if parts]
        signed = {"thoughtSignature": sign("text", answer.text)} if answer.thinking and answer.text else {}
        last = [{"text": "", **signed}] if answer.text or answer.calls else []
        return [*chunks, _response(exchange, last, FINISH[answer.finish], total)]

    def _remember(self, exchange: Exchange) -> None:
        for call in exchange.answer.calls[:1]:
            self._memory.add(sign(exchange.prompt.question, _signature(call.name, call.arguments)))

    def _prompt(self, model: str, given: Body, *, sse: bool, array: bool) -> Prompt:
        found = self._fields(given, REQUEST, "")
        config = self._fields(found.get("generationConfig") or {}, CONFIG, "generation_config")
        contents = found.get("contents")
        if not isinstance(contents, list) or not contents:
            raise self._bad("* GenerateContentRequest.contents: contents is not specified")
        turns = tuple(self._turn(content, f"contents[{place}]") for place, content in enumerate(contents))
        self._check_calls(turns, strict=model.startswith("gemini-3"))
        if found.get("systemInstruction"):
            system = self._turn({"role": "user", **found["systemInstruction"]}, "system_instruction")
            turns = (Turn("system", system.text), *turns)
        thinking = config.get("thinkingConfig") or {}
        calling = (found.get("toolConfig") or {}).get("functionCallingConfig") or {}
        allowed = list(calling.get("allowedFunctionNames") or [])
        mode = str(calling.get("mode") or "AUTO").lower()
        notes = {"array": array and not sse, "thoughts": thinking.get("includeThoughts")}
        return Prompt(
            model=model,
            turns=turns,
            tools=tuple(tool for group in found.get("tools") or () for tool in self._tools(group)),
            choice=allowed[0] if mode == "any" and len(allowed) == 1 else {"validated": "auto"}.get(mode, mode),
            max_tokens=config.get("maxOutputTokens"),
            stop=tuple(config.get("stopSequences") or ()),
            schema=self._schema(config),
            stream=sse,
            thinking=any(map(thinking.get, ("thinkingBudget", "thinkingLevel", "includeThoughts"))),
            copies=int(config.get("candidateCount") or 1),
            notes=frozenset(note for note, present in notes.items() if present),
        )

    def _texts(self, model: str, requests: list[Body], notes: frozenset[str]) -> Texts:
        inputs: list[str] = []
        sizes: list[int] = []
        for place, request in enumerate(requests):
            fields = self._fields(request, EMBED, f"requests[{place}]")
            inputs.append(self._turn(fields.get("content"), f"requests[{place}].content").text)
            sizes.append(int(fields.get("outputDimensionality") or 64))
            if not notes and fields.get("model") != f"models/{model}":
                raise self._bad(f"* BatchEmbedContentsRequest.requests[{place}].model: must match the batch's model")
        if not inputs:
            raise self._bad("* BatchEmbedContentsRequest.requests: at least one request is required")
        if not 0 < sizes[0] <= MOST_DIMENSIONS:
            raise self._bad(f"* EmbedContentRequest.output_dimensionality: {sizes[0]} is out of range")
        return Texts(model, tuple(inputs), sizes[0], notes)

    def _turn(self, content: Any, where: str) -> Turn:
        fields = self._fields(content, CONTENT, where)
        role = fields.get("role", "user")
        if role not in ("user", "model", "function"):
            raise self._bad("Please use a valid role: user, model.")
        parts = fields.get("parts")
        if not isinstance(parts, list) or not parts:
            raise self._bad(f"* {where}.parts: contents.parts must not be empty.")
        texts: list[str] = []
        media: list[Media] = []
        calls: list[Call] = []
        results: list[Result] = []
        for place, given in enumerate(parts):
            here = f"{where}.parts[{place}]"
            part = self._fields(given, PART, here)
            kinds = [kind for kind in DATA if kind in part]
            if len(kinds) != 1:
                raise self._bad(f"* {here}.data: required oneof field 'data' must have one initialized field")
            value = part[kinds[0]]
            if kinds[0] == "text":
                texts.append(str(value))
            elif kinds[0] == "functionCall":
                calls.append(self._past_call(value, part.get("thoughtSignature"), here))
            elif kinds[0] == "functionResponse":
                if not isinstance(value.get("response"), dict) or not value.get("name"):
                    raise self._bad(f"* {here}.function_response: name and response (an object) are required")
                results.append(Result(value["name"], _said(value["response"])))
            else:
                media.append(self._media(value, here))
        role = "assistant" if role == "model" else "user"
        return Turn(role, "\n".join(texts), tuple(media), tuple(calls), tuple(results))

    def _past_call(self, call: Body, signature: object, where: str) -> Call:
        name, arguments = str(call.get("name", "")), call.get("args") or {}
        if signature not in (None, ANY_SIGNATURE, _signature(name, arguments)):
            raise self._bad(f"Corrupted thought signature at {where}.")
        return Call(name, arguments, str(signature or ""))  # the signature is the only mark a call has here

    def _check_calls(self, turns: tuple[Turn, ...], *, strict: bool) -> None:
        waiting: list[str] = []
        question = ""
        for place, turn in enumerate((*turns, Turn("user"))):
            if sorted(waiting) != sorted(result.name for result in turn.results):
                raise self._bad(
                    "Please ensure that the function response parts match the function call parts of the turn before."
                )
            waiting = [call.name for call in turn.calls]
            question = turn.text if turn.role == "user" and turn.text else question
            for call in turn.calls[:1]:
                given = sign(question, _signature(call.name, call.arguments))
                if not call.id and (strict or given in self._memory):
                    raise self._bad(f"Function call `{call.name}` at contents[{place}] is missing a thought_signature.")

    def _media(self, value: Body, where: str) -> Media:
        fields = self._fields(value, names("mimeType data fileUri displayName"), where)
        mime_type = str(fields.get("mimeType", ""))
        if "fileUri" in fields:
            family = mime_type.partition("/")[0]
            seen = link_media(fields["fileUri"], family if family in ("image", "audio", "video") else "document")
        else:
            seen = as_media(mime_type, fields.get("data"))
        if seen is None:
            raise self._bad(f"Unable to process input {where}: {mime_type or 'no mime type'}.")
        return seen

    def _tools(self, group: Any) -> list[ToolSpec]:
        known = names("functionDeclarations googleSearch codeExecution urlContext")
        declared = self._fields(group, known, "tools[0]").get("functionDeclarations") or []
        tools: list[ToolSpec] = []
        for each in declared:
            fields = self._fields(each, DECLARATION, "tools[0].function_declarations[0]")
            if not re.fullmatch(r"[A-Za-z_][\w.:-]{0,63}", str(fields.get("name", ""))):
                raise self._bad("* GenerateContentRequest.tools[0].function_declarations[0].name: Invalid function name.")
            self._no_references(fields.get("parameters"), "tools[0].function_declarations[0].parameters")
            schema = fields.get("parameters") or fields.get("parametersJsonSchema") or {}
            tools.append(ToolSpec(fields["name"], schema, str(fields.get("description", ""))))
        return tools

    def _schema(self, config: Body) -> Mapping[str, Any] | None:
        schema: Mapping[str, Any] | None = config.get("responseSchema") or config.get("responseJsonSchema")
        if config.get("responseMimeType") == "application/json":
            self._no_references(config.get("responseSchema"), "generation_config.response_schema")
            return schema or {}
        if schema:
            raise self._bad("* generation_config.response_schema: only allowed with response_mime_type application/json")
        return None

    def _no_references(self, schema: Any, where: str) -> None:
        for name, value in schema.items() if isinstance(schema, dict) else enumerate(schema or ()):
            if str(name).startswith("$"):
                raise self._bad(f"Invalid JSON payload received. Unknown name {name!r} at {where!r}: Cannot find field.")
            if isinstance(value, (dict, list)):
                self._no_references(value, where)

    def _fields(self, found: Any, known: frozenset[str], where: str) -> Body:
        if not isinstance(found, dict):
            raise self._bad(f"Invalid value at {where!r}: expected an object.")
        fields = {re.sub(r"_(\w)", lambda match: match.group(1).upper(), name): value for name, value in found.items()}
        odd = first_unknown_field(fields, known)
        if odd is not None:
            place = f" at '{where}'" if where else ""
            raise self._bad(f'Invalid JSON payload received. Unknown name "{odd}"{place}: Cannot find field.')
        return fields

    def _bad(self, message: str) -> Refusal:
        return self.refusal(400, message)


def _error(status: int, message: str, details: list[Body] | None = None) -> Body:
    error: Body = {"code": status, "message": message, "status": STATUS.get(status, "UNKNOWN")}
    return {"error": {**error, "details": details} if details else error}


def _signature(name: str, arguments: Mapping[str, Any]) -> str:
    return sign("call", name, json.dumps(arguments, sort_keys=True))


def _said(response: Body) -> str:
    only = list(response.values())
    return only[0] if len(only) == 1 and isinstance(only[0], str) else compact(response)


def _thoughts(exchange: Exchange, text: str) -> list[Body]:
    return [{"text": text, "thought": True}] if text and "thoughts" in exchange.prompt.notes else []


def _call_parts(calls: tuple[Call, ...]) -> list[Body]:
    parts: list[Body] = [{"functionCall": {"name": call.name, "args": call.arguments}} for call in calls]
    for part, call in zip(parts[:1], calls, strict=False):
        part["thoughtSignature"] = _signature(call.name, call.arguments)
    return parts


def _usage(exchange: Exchange, tokens: int) -> Body:
    prompt, thoughts = exchange.prompt_tokens, exchange.answer.thinking_tokens
    media = exchange.prompt.media_tokens()
    modalities = [{"modality": "TEXT", "tokenCount": prompt - sum(media.values())}]
    modalities += [{"modality": kind.upper(), "tokenCount": count} for kind, count in media.items()]
    usage: Body = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": tokens * exchange.prompt.copies,
        "totalTokenCount": prompt + (tokens + thoughts) * exchange.prompt.copies,
        "promptTokensDetails": modalities,
    }
    return {**usage, "thoughtsTokenCount": thoughts * exchange.prompt.copies} if thoughts else usage


def _response(exchange: Exchange, parts: list[Body], finish: str | None, tokens: int) -> Body:
    candidates: list[Body] = []
    for index in range(exchange.prompt.copies):
        candidate: Body = {"content": {"parts": parts, "role": "model"} if parts else {"role": "model"}}
        if finish:
            candidate["finishReason"] = finish
        candidates.append({**candidate, "index": index})
    return {
        "candidates": candidates,
        "usageMetadata": _usage(exchange, tokens),
        "modelVersion": exchange.prompt.model,
        "responseId": make_id("", exchange.prompt.model, exchange.now, exchange.number),
    }
