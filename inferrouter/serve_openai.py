"""Serves OpenAI's chat completions, completions, embeddings and model list: JSON in, JSON and events out.

Strategy: requests are read as agents really send them (content that is null, parts without a type, limits of 0, fields from every
server there is); what cannot be passed on is dropped and named. The answer repeats the model's name as it was asked, because
agents pin models by name; who really answered stands in the headers. Must never know HTTP or who answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .costs import total_usage
from .errors import InvalidRequestError
from .frozen import FrozenDict
from .openai_server import (
    DONE,
    chunk,
    completion,
    error_body,
    head_of,
    message_of,
    tool_call,
    usage_chunk,
    usage_of,
    vector_list,
)
from .openai_server import choice as choice_of
from .records import ChatRequest, EmbedRequest, Message, Routing, ToolCall
from .responses import ChatChunk, ChatResponse, EmbedResponse, ToolCallDelta
from .serve_dialect import Asked, Body, asked_of, count_of, finish_of, flag_of, list_of, new_id, text_of, unknown_keys
from .serve_errors import Problem
from .serve_turns import TurnMemory
from .wire_json import write_event

MOST_COPIES = 16
CARRIED = frozenset(
    (
        *("model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p"),
        *(
            "stop",
            "seed",
            "tools",
            "tool_choice",
            "response_format",
            "reasoning_effort",
            "functions",
            "function_call",
            "prompt_cache_key",
        ),
    )
)
PLAIN_ROLES = ("user", "assistant", "system")
"""Those whose message is nothing but its text, if that is all there is."""
PLAIN_KEYS = frozenset(("model", "messages", "stream"))
USAGE, NO_USAGE = FrozenDict(usage=True), FrozenDict(usage=False)
MESSAGE_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name", "reasoning", "reasoning_content")


class ChatDialect:
    """`/v1/chat/completions`. See `serve_dialect.Dialect`."""

    ping = b": keep-alive\n\n"

    def __init__(self, turns: TurnMemory | None = None) -> None:
        self._turns = turns or TurnMemory()

    def read(self, body: Body) -> Asked:
        """The chat in `body`."""
        model = text_of(body, "model")
        messages = [self._turns.recalled(read_message(item, place)) for place, item in enumerate(list_of(body, "messages"))]
        if body.keys() <= PLAIN_KEYS:
            return asked_of(ChatRequest(messages, model), model, flag_of(body, "stream"), 1, (), NO_USAGE)
        tools = list_of(body, "tools")
        if "functions" in body:
            tools = tools + [{"type": "function", "function": each} for each in list_of(body, "functions")]
        copies = body.get("n") or 1
        if type(copies) is not int or not 1 <= copies <= MOST_COPIES:
            raise InvalidRequestError(message=f"n is a whole number from 1 to {MOST_COPIES}")
        options = body.get("stream_options")
        request = ChatRequest(
            messages,
            model,
            temperature=body.get("temperature"),
            max_tokens=count_of(body, "max_completion_tokens", "max_tokens"),
            top_p=body.get("top_p"),
            stop=body.get("stop") or None,
            seed=body.get("seed"),
            tools=tools,
            tool_choice=body.get("tool_choice") or _old_choice(body.get("function_call")),
            response_format=body.get("response_format"),
            reasoning_effort=body.get("reasoning_effort"),
            session=text_of(body, "prompt_cache_key") or None,
        )
        notes = USAGE if isinstance(options, dict) and options.get("include_usage") else NO_USAGE
        return asked_of(request, model, flag_of(body, "stream"), copies, unknown_keys(body, CARRIED), notes)

    def whole(self, asked: Asked, responses: Sequence[ChatResponse], now: float) -> Body:
        """A chat.completion."""
        self._turns.remember(responses)
        choices: list[Body] = []
        for response in responses:
            for place, found in enumerate(response.choices):
                message = found.message
                calls = [_call(call) for call in message.tool_calls]
                finish = finish_of(response, place)
                choices.append(choice_of(len(choices), message_of(message.text, calls, message.reasoning), finish))
        head = head_of(responses[0].id or new_id("chatcmpl-"), "chat.completion", now, asked.model or responses[0].model)
        return completion(head, choices, _usage(responses))

    def writer(self, asked: Asked, now: float) -> ChatWriter:
        """The writer of a stream of chat.completion.chunk."""
        return ChatWriter(asked, now, self._turns)

    def error(self, problem: Problem) -> Body:
        """OpenAI's error object."""
        return error_body(problem.message, problem.kind, problem.code, problem.param)


class ChatWriter:
    """Writes chunks; each choice begins with its role, and ends with the reason why, once."""

    def __init__(self, asked: Asked, now: float, turns: TurnMemory | None = None) -> None:
        self._asked = asked
        self._turns = turns
        self._head = head_of(new_id("chatcmpl-"), "chat.completion.chunk", now, asked.model)
        self._extra: Body = {"usage": None} if asked.notes["usage"] else {}
        self._finished: set[int] = set()

    def start(self, routing: Routing) -> bytes:
        """The role of each choice."""
        self._head["model"] = self._asked.model or routing.model
        return b"".join(self._event(place, {"role": "assistant", "content": ""}) for place in range(self._asked.copies))

    def chunk(self, chunk: ChatChunk, copy: int) -> bytes:
        """What the chunk adds to its choices."""
        made = b""
        for choice in chunk.choices:
            delta = choice.delta
            body: Body = {}
            if delta.reasoning:
                body["reasoning_content"] = delta.reasoning
            if delta.content:
                body["content"] = delta.content
            if delta.tool_calls:
                body["tool_calls"] = [_fragment(fragment) for fragment in delta.tool_calls]
            index = copy + choice.index
            finish = choice.finish_reason if choice.finish_reason in ("stop", "length", "tool_calls", "content_filter") else None
            if finish:
                self._finished.add(index)
            if body or finish:
                made += self._event(index, body, finish)
        return made

    def end(self, responses: Sequence[ChatResponse]) -> bytes:
        """The reason of each choice that has not told it, usage if it was asked for, and the marker."""
        made = b""
        if self._turns is not None:
            self._turns.remember(responses)
        for copy, response in enumerate(responses):
            for place, found in enumerate(response.choices):
                if copy + found.index not in self._finished:
                    made += self._event(copy + found.index, {}, finish_of(response, place))
        if self._extra:
            made += write_event(usage_chunk(self._head, _usage(responses)))
        return made + DONE

    def error(self, problem: Problem) -> bytes:
        """An error object in a chunk's place."""
        return write_event(error_body(problem.message, problem.kind, problem.code, problem.param))

    def _event(self, index: int, delta: Body, finish: str | None = None) -> bytes:
        return write_event(chunk(self._head, index, delta, finish, self._extra))


class CompletionDialect:
    """`/v1/completions`: one prompt as one user message, its answer as text."""

    ping = ChatDialect.ping

    def read(self, body: Body) -> Asked:
        """The chat in `body`."""
        prompt = body.get("prompt")
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if not isinstance(prompt, str):
            raise InvalidRequestError(message="prompt is one string here; ask once for each, or use /v1/chat/completions")
        rest = {name: value for name, value in body.items() if name != "prompt"}
        return ChatDialect().read({**rest, "messages": [{"role": "user", "content": prompt}]})

    def whole(self, asked: Asked, responses: Sequence[ChatResponse], now: float) -> Body:
        """A text_completion."""
        choices = [
            {"index": copy, "text": response.text, "logprobs": None, "finish_reason": finish_of(response)}
            for copy, response in enumerate(responses)
        ]
        head = head_of(responses[0].id or new_id("cmpl-"), "text_completion", now, asked.model or responses[0].model)
        return completion(head, choices, _usage(responses))

    def writer(self, asked: Asked, now: float) -> CompletionWriter:
        """The writer of a stream of text_completion."""
        return CompletionWriter(asked, now)

    def error(self, problem: Problem) -> Body:
        """OpenAI's error object."""
        return ChatDialect().error(problem)


class CompletionWriter(ChatWriter):
    """Writes the chunks of a plain completion: text and no roles."""

    def __init__(self, asked: Asked, now: float) -> None:
        super().__init__(asked, now)
        self._head["object"] = "text_completion"

    def start(self, routing: Routing) -> bytes:
        """Nothing: there is no role to tell."""
        self._head["model"] = self._asked.model or routing.model
        return b""

    def _event(self, index: int, delta: Body, finish: str | None = None) -> bytes:
        text = delta.get("content", "")
        if not text and finish is None:
            return b""
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
        return write_event({**self._head, "choices": [choice], **self._extra})


def read_embeddings(body: Body) -> tuple[EmbedRequest, bool]:
    """The texts of `/v1/embeddings`, and whether vectors go out as base64. Raises `InvalidRequestError`."""
    given = body.get("input")
    if isinstance(given, list) and given and all(isinstance(each, (int, list)) for each in given):
        raise InvalidRequestError(
            message="input holds token ids, which only OpenAI's own models understand: send texts "
            "(LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False))"
        )
    if not isinstance(given, (str, list)) or not given or not all(isinstance(each, str) for each in given):
        raise InvalidRequestError(message="input is a text or a list of texts")
    request = EmbedRequest(given, text_of(body, "model"), count_of(body, "dimensions"))
    return request, body.get("encoding_format") == "base64"


def write_embeddings(response: EmbedResponse, asked: str, packed: bool) -> Body:
    """The vectors as OpenAI sends them. `asked`: the model's name as the client wrote it."""
    return vector_list(response.embeddings, asked or response.model, response.usage.prompt_tokens, packed)


def read_message(item: Any, place: int) -> Message:
    """One message as agents send it. Raises `InvalidRequestError`."""
    if not isinstance(item, Mapping):
        raise InvalidRequestError(message=f"messages[{place}] is {type(item).__name__}, not an object")
    if len(item) == 2 and type(item.get("content")) is str and item.get("role") in PLAIN_ROLES:
        return Message(item["role"], item["content"])
    found = {key: item[key] for key in MESSAGE_KEYS if item.get(key) is not None}
    if found.get("role") == "function":  # the older way to give a result
        found = {**found, "role": "tool", "tool_call_id": found.get("tool_call_id") or str(found.get("name"))}
    if item.get("function_call") and not found.get("tool_calls"):
        call = item["function_call"]
        name = call.get("name") if isinstance(call, Mapping) else None
        found["tool_calls"] = [{"id": str(name), "type": "function", "function": call}]
    for name in ("tool_call_id", "name"):
        if not isinstance(found.get(name, ""), str):
            raise InvalidRequestError(message=f"messages[{place}].{name} is a string")
    if isinstance(found.get("content"), list):
        found["content"] = [_part(each) for each in found["content"]]
    if isinstance(item.get("refusal"), str) and not found.get("content"):
        found["content"] = item["refusal"]
    try:
        return Message.from_dict(found)
    except InvalidRequestError as exc:
        raise InvalidRequestError(message=f"messages[{place}]: {exc.message}") from None


def _part(item: Any) -> Any:
    if isinstance(item, Mapping) and "text" in item and item.get("type", "text") in ("text", "input_text", "output_text"):
        return {"type": "text", "text": item["text"]}
    if isinstance(item, Mapping) and item.get("type") == "refusal":
        return {"type": "text", "text": str(item.get("refusal", ""))}
    return item


def _old_choice(value: Any) -> Any:
    return value.get("name") if isinstance(value, Mapping) else value


def _call(call: ToolCall) -> Body:
    made = tool_call(call.id, call.name, call.arguments)
    return {**made, **_signed(call.signature)}


def _fragment(fragment: ToolCallDelta) -> Body:
    function: Body = {} if fragment.name is None else {"name": fragment.name}
    function["arguments"] = fragment.arguments
    made: Body = {"index": fragment.index, "function": function}
    if fragment.id is not None or fragment.name is not None:
        made = {"index": fragment.index, "id": fragment.id or new_id("call_"), "type": "function", "function": function}
    return {**made, **_signed(fragment.signature)}


def _signed(signature: str | None) -> Body:
    """Gemini's opaque token where Google's own endpoint of this format puts it."""
    return {"extra_content": {"google": {"thought_signature": signature}}} if signature else {}


def _usage(responses: Sequence[ChatResponse]) -> Body:
    total = total_usage([response.usage for response in responses])
    tokens = total.prompt_tokens, total.completion_tokens, total.total_tokens, total.cached_tokens, total.reasoning_tokens
    return usage_of(*tokens, total.input_breakdown.get("audio", 0))
