"""Says what to write instead of a call that Python refused: OpenAI's keywords, a dict, a place for a keyword, a misspelt option.

Strategy: looks at the names and kinds of what was given and never at its content, so that no message and no key is repeated.
Loaded only when a call went wrong. Must never make the call.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from .errors import InvalidRequestError
from .records import ChatRequest, EmbedRequest, Message
from .validation import did_you_mean
from .waiting import BOUNDS

OTHER_NAMES = {
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "prompt": "messages",
    "input": "messages",
    "question": "messages",
    "functions": "tools",
    "response_model": "response_format",
    "stop_sequences": "stop",
    "wait": "max_wait",
}
"""What other libraries call what is called otherwise here."""

FOR_EXTRA = frozenset(
    (
        *("n", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs"),
        *("top_logprobs", "user", "store", "metadata", "parallel_tool_calls", "service_tier", "modalities", "prediction"),
    )
)
"""What some providers take and this library only hands on."""

REQUESTS: Mapping[str, type[Any]] = {
    "chat_completion": ChatRequest,
    "stream": ChatRequest,
    "explain": ChatRequest,
    "embed": EmbedRequest,
}


def refused_call(method: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> InvalidRequestError:
    """What to write instead of `method(*args, **kwargs)`, whose arguments do not fit its signature. `args` without `self`."""
    name = method.__name__
    parameters = [each for each in inspect.signature(method).parameters.values() if each.name != "self"]
    parameters = [each for each in parameters if each.kind is not each.VAR_KEYWORD]
    known = [each.name for each in parameters]
    kind = REQUESTS.get(name)
    strange = [key for key in kwargs if key not in known]
    if kind is not None and (_of_request(strange, kind) or (not args and "request" not in kwargs)):
        return InvalidRequestError(message=f"{name} takes one ir.{kind.__name__}: write {_written(name, kind, kwargs)}")
    if strange:
        return _unknown_option(name, strange[0], known)
    places = [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY]
    if len(args) > len(places):
        options = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
        first = f"{name}({', '.join([*places, f'{options[0]}=...'])})" if options else f"{name}({', '.join(places)})"
        rest = f"; options go by name: {', '.join(options)}" if options else ""
        count = f"{len(places)} argument{'s' * (len(places) != 1)}" if places else "no argument"
        return InvalidRequestError(message=f"{name} takes {count} by place: write router.{first}{rest}")
    if name == "chat":
        return InvalidRequestError(message='chat needs messages, a text or a list of them: write router.chat("Hello!")')
    return InvalidRequestError(message=f"{name} needs {' and '.join(places) or 'no argument'}, each once")


def wrong_request(name: str, given: object, kind: type[Any]) -> InvalidRequestError:
    """What to write instead of handing `given` to the method `name`, which takes a `kind`."""
    what = f"{name} takes an ir.{kind.__name__}, not {type(given).__name__}"
    if isinstance(given, Mapping) and kind is ChatRequest:
        if "messages" in given:
            return InvalidRequestError(
                message=f"{what}: write router.{name}(ir.ChatRequest(**request)) or router.chat(**request)"
            )
        return InvalidRequestError(message=f"{what}: write router.{name}(ir.ChatRequest([message]))")
    if isinstance(given, (str, Message, list, tuple)):
        if kind is EmbedRequest:
            return InvalidRequestError(message=f"{what}: write router.embed(ir.EmbedRequest(texts, model=...))")
        streamed = ", stream=True" if name == "stream" else ""
        short = f" or router.chat(messages{streamed})" if name in ("chat_completion", "stream") else ""
        return InvalidRequestError(message=f"{what}: write router.{name}(ir.ChatRequest(messages, model=...)){short}")
    return InvalidRequestError(message=what)


def unknown_field(option: str) -> InvalidRequestError:
    """What to say of a keyword that `Router.chat` does not have."""
    return _unknown_option("chat", option, [*_field_names(ChatRequest), "stream", *BOUNDS])


def _of_request(names: Sequence[str], kind: type[Any]) -> bool:
    """Whether any of `names` belongs into the request."""
    known = _field_names(kind)
    return any(name in known or OTHER_NAMES.get(name) in known for name in names)


def _written(name: str, kind: type[Any], kwargs: Mapping[str, Any]) -> str:
    """The call as it should be, with the names of what was given."""
    known = _field_names(kind)
    first = known[0]
    inside = [OTHER_NAMES.get(key, key) for key in kwargs]
    inner = "".join(f", {key}=..." for key in inside if key in known and key != first)
    own = "".join(f", {key}=..." for key in kwargs if key in BOUNDS)
    full = f"router.{name}(ir.{kind.__name__}({first}{inner}){own})"
    if kind is EmbedRequest or name == "explain":
        return full
    streamed = ", stream=True" if name == "stream" else ""
    return f"router.chat({first}{inner}{own}{streamed}) or {full}"


def _unknown_option(name: str, option: str, known: Sequence[str]) -> InvalidRequestError:
    if name == "chat" and option in FOR_EXTRA:
        return InvalidRequestError(
            message=f'chat has no option {option!r}: write extra={{"{option}": ...}}, which is sent as it is'
        )
    if option in OTHER_NAMES and OTHER_NAMES[option] in known:
        return InvalidRequestError(message=f"{name} has no option {option!r}: here it is called {OTHER_NAMES[option]}")
    close = did_you_mean(option, known)
    inside = f'; what a provider takes beyond them goes into extra={{"{option}": ...}}' if name == "chat" and not close else ""
    return InvalidRequestError(message=f"{name} has no option {option!r}{close}; it takes {', '.join(known)}{inside}")


def _field_names(kind: type[Any]) -> list[str]:
    return [each.name for each in fields(kind)]
