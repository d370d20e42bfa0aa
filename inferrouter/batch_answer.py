"""Turns what a row came to into what is written of it: OpenAI's body, the answer's columns, an error with what to do.

Strategy: an answer becomes the OpenAI object whichever provider gave it, so that whatever reads OpenAI's files reads these; it
is put together as text, at a third of the cost of a dict that is then encoded. With a schema its JSON is checked and becomes
columns. Must never know files, nor decide whether a row is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .batch_output import Outcome, encoded, quoted
from .batch_schema import schema_fault
from .errors import MalformedResponseError, ProviderError
from .map_serving import Served
from .records import Message
from .responses import ChatResponse, EmbedResponse

LONGEST_MESSAGE = 2000
"""Characters of an error's text in the output."""


def check_answer(answer: Any, schema: Mapping[str, Any]) -> None:
    """Raise `MalformedResponseError` saying where a structured answer breaks its schema, or that it is not JSON."""
    if not isinstance(answer, ChatResponse):
        return
    fault = schema_fault(answer.json(), schema)
    if fault is not None:
        where = answer.routing
        raise MalformedResponseError(
            where.provider,
            where.account_id,
            where.model,
            body=answer.text[:2048],
            message=f"the answer breaks the schema: {fault}",
        )


def answer_columns(schema: Mapping[str, Any] | None) -> list[str]:
    """The columns that an answer fills: the schema's properties, or `answer`."""
    properties = schema.get("properties") if schema is not None else None
    return list(properties) if isinstance(properties, Mapping) and properties else ["answer"]


def outcome_of(
    served: Served, custom_id: str, columns: Mapping[str, Any], schema: Mapping[str, Any] | None, now: float, whole: bool = True
) -> Outcome:
    """What is written of a row. `now`: epoch seconds; `whole`: with the body as OpenAI has it."""
    answer = served.response
    if answer is None:
        return Outcome(custom_id, "", "", None, _error(served), columns, {})
    where, usage = answer.routing, answer.usage
    facts = {
        "provider": where.provider,
        "account": where.account_id,
        "model": where.model,
        "free": where.free,
        "cost": round(where.cost, 9),
        "attempts": where.attempts,
        "tries": served.tries,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    if isinstance(answer, EmbedResponse):
        vectors: Any = [list(vector) for vector in answer.embeddings]
        body = _vectors_body(answer) if whole else ""
        return Outcome(custom_id, "", body, vectors[0] if len(vectors) == 1 else vectors, None, columns, facts)
    value = answer.json() if schema is not None else answer.text
    return Outcome(custom_id, answer.id, _chat_body(answer, now) if whole else "", value, None, columns, facts)


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


def _chat_body(answer: ChatResponse, now: float) -> str:
    usage = answer.usage
    choices = ", ".join(
        [
            f'{{"index": {each.index}, "message": {_message(each.message)}, "finish_reason": '
            f"{'null' if each.finish_reason is None else quoted(each.finish_reason)}}}"
            for each in answer.choices
        ]
    )
    return (
        f'{{"id": {quoted(answer.id)}, "object": "chat.completion", "created": {int(now)}, '
        f'"model": {quoted(answer.model or answer.routing.model)}, "choices": [{choices}], '
        f'"usage": {{"prompt_tokens": {usage.prompt_tokens}, "completion_tokens": {usage.completion_tokens}, '
        f'"total_tokens": {usage.total_tokens}}}}}'
    )


def _message(message: Message) -> str:
    made = message.to_dict()
    if len(made) == 2 and isinstance(made["content"], str):  # an answer's most common form
        return f'{{"refusal": null, "role": {quoted(message.role)}, "content": {quoted(made["content"])}}}'
    return encoded({"refusal": None, **made})


def _vectors_body(answer: EmbedResponse) -> str:
    return encoded(
        {
            "object": "list",
            "model": answer.model,
            "data": [{"object": "embedding", "index": at, "embedding": list(each)} for at, each in enumerate(answer.embeddings)],
            "usage": {"prompt_tokens": answer.usage.prompt_tokens, "total_tokens": answer.usage.total_tokens},
        }
    )
