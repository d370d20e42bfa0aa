"""Turns what a row came to into what is written of it: OpenAI's body, the answer's columns, an error with what to do.

Strategy: an answer becomes the OpenAI object whichever provider gave it, so that whatever reads OpenAI's files reads these; it
is put together as text, at a third of the cost of a dict that is then encoded. With a schema its JSON is checked and becomes
columns. Must never know files, nor decide whether a row is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .batch_output import Outcome, encoded, line_of, quoted, request_id_of
from .batch_schema import schema_fault
from .errors import ProviderError
from .map_serving import Served
from .responses import ChatResponse, Choice, EmbedResponse, misfit

LONGEST_MESSAGE = 2000
"""Characters of an error's text in the output."""


def check_answer(answer: Any, schema: Mapping[str, Any]) -> None:
    """Raise `MalformedResponseError` saying where a structured answer breaks its schema, or that it is not JSON."""
    if not isinstance(answer, ChatResponse):
        return
    fault = schema_fault(answer.json(), schema)
    if fault is not None:
        raise misfit(answer, f"the answer breaks the schema: {fault}")


def answer_columns(schema: Mapping[str, Any] | None) -> list[str]:
    """The columns that an answer fills: the schema's properties, or `answer`."""
    properties = schema.get("properties") if schema is not None else None
    return list(properties) if isinstance(properties, Mapping) and properties else ["answer"]


def outcome_of(served: Served, custom_id: str, columns: Mapping[str, Any], schema: Mapping[str, Any] | None) -> Outcome:
    """What is written of a row where the answer becomes columns."""
    answer = served.response
    if answer is None:
        return Outcome(custom_id, None, _error(served), columns, {})
    where, usage = answer.routing, answer.usage
    facts = {
        "account": where.account_id,
        "model": where.model,
        "cost": round(where.cost, 9),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    if isinstance(answer, EmbedResponse):
        vectors: Any = [list(vector) for vector in answer.embeddings]
        return Outcome(custom_id, vectors[0] if len(vectors) == 1 else vectors, None, columns, facts)
    return Outcome(custom_id, answer.text if schema is None else answer.json(), None, columns, facts)


def batch_line(served: Served, custom_id: str, columns: Mapping[str, Any]) -> bytes:
    """The record of a row as OpenAI's batches have it, its line break included."""
    answer = served.response
    error, response, routing = "null", "null", "{}"
    if answer is None:
        error = encoded(_error(served))
    else:
        if isinstance(answer, EmbedResponse):
            body, request_id = _vectors_body(answer), "null"
        else:
            body, request_id = _chat_body(answer, served.at), quoted(answer.id) if answer.id else "null"
        response = f'{{"status_code": 200, "request_id": {request_id}, "body": {body}}}'
        where, usage = answer.routing, answer.usage
        cost = encoded(round(where.cost, 9)) if where.cost else where.cost
        routing = (
            f'{{"provider": {quoted(where.provider)}, "account": {quoted(where.account_id)}, "model": {quoted(where.model)}, '
            f'"free": {"true" if where.free else "false"}, "cost": {cost}, '
            f'"attempts": {where.attempts}, "tries": {served.tries}, '
            f'"prompt_tokens": {usage.prompt_tokens}, "completion_tokens": {usage.completion_tokens}}}'
        )
    row = f', "row": {_object(columns)}' if columns else ""
    return line_of(
        f'{{"custom_id": {quoted(custom_id)}, "error": {error}, "id": "{request_id_of(custom_id)}", '
        f'"response": {response}, "routing": {routing}{row}}}'
    )


def _error(served: Served) -> dict[str, Any]:
    error = served.error
    made: dict[str, Any] = {
        "code": type(error).__name__,
        "message": str(error)[:LONGEST_MESSAGE],
        "tries": served.tries,
    }
    last = getattr(error, "attempts", None)
    if isinstance(last, Sequence) and last and isinstance(last[-1].error, ProviderError):
        made["provider_error"] = type(last[-1].error).__name__
    return made


def _chat_body(answer: ChatResponse, at: float) -> str:
    usage = answer.usage
    return (
        f'{{"id": {quoted(answer.id)}, "object": "chat.completion", "created": {int(at)}, '
        f'"model": {quoted(answer.model or answer.routing.model)}, "choices": [{", ".join(map(_choice, answer.choices))}], '
        f'"usage": {{"prompt_tokens": {usage.prompt_tokens}, "completion_tokens": {usage.completion_tokens}, '
        f'"total_tokens": {usage.total_tokens}}}}}'
    )


def _choice(choice: Choice) -> str:
    message, reason = choice.message, choice.finish_reason
    if isinstance(message.content, str) and not message.tool_calls and message.tool_call_id is message.name is None:
        told = f'{{"refusal": null, "role": {quoted(message.role)}, "content": {quoted(message.content)}}}'
    else:
        told = encoded({"refusal": None, **message.to_dict()})
    reason = "null" if reason is None else quoted(reason)
    return f'{{"index": {choice.index}, "message": {told}, "finish_reason": {reason}}}'


def _object(columns: Mapping[str, Any]) -> str:
    """As `encoded`, at a quarter of the cost where each value is a text, as in most rows."""
    try:
        return f"{{{', '.join([f'{quoted(name)}: {quoted(value)}' for name, value in columns.items()])}}}"
    except TypeError:
        return encoded(columns)


def _vectors_body(answer: EmbedResponse) -> str:
    return encoded(
        {
            "object": "list",
            "model": answer.model,
            "data": [{"object": "embedding", "index": at, "embedding": list(each)} for at, each in enumerate(answer.embeddings)],
            "usage": {"prompt_tokens": answer.usage.prompt_tokens, "total_tokens": answer.usage.total_tokens},
        }
    )
