"""Guards the methods that programs call: what they are given, and what may come out of them.

Strategy: one decorator for what comes out, small checks of what goes in; what is to be said of a wrong call stands in `misuse`.
Must never know what a method does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from .errors import InferRouterError, InvalidRequestError
from .records import ChatRequest
from .redaction import strip_tracebacks
from .waiting import Cancel

LONGEST = 1e9
"""Seconds; no call and no wait is longer, infinite ones included."""

P = ParamSpec("P")
T = TypeVar("T")


def only_library_errors(method: Callable[P, T]) -> Callable[P, T]:
    """`method`, which lets out this library's errors alone: what a caller's own provider, policy or clock raises becomes one."""

    @wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except InferRouterError:
            raise
        except Exception as exc:
            if isinstance(exc, TypeError) and exc.__traceback__ is not None and exc.__traceback__.tb_next is None:
                from .misuse import refused_call  # the arguments do not fit: Python got no further than this line

                raise refused_call(method, args[1:], kwargs) from None
            kind = type(exc).__name__
            raise InferRouterError(
                f"{kind} in a provider, policy, quota store or clock of yours, or in this library: see the cause"
            ) from strip_tracebacks(exc)

    return guarded


def chat_request(messages: Any, options: Mapping[str, Any]) -> ChatRequest:
    """The request that `Router.chat` was asked for. Raises `InvalidRequestError` naming an option that does not exist."""
    if isinstance(messages, ChatRequest):
        if options:
            first = next(iter(options))
            message = f"chat was given a ChatRequest and {first!r}: put {first} into the request, with dataclasses.replace"
            raise InvalidRequestError(message=message)
        return messages
    if isinstance(messages, Mapping) and "messages" in messages:
        raise InvalidRequestError(message="chat was given a whole request as a dict: write router.chat(**request)")
    strange = next((name for name in options if name not in ChatRequest.__match_args__), None)
    if strange is not None:
        from .misuse import unknown_field

        raise unknown_field(strange)
    return ChatRequest(messages, **options)


def as_cancel(value: Cancel | None) -> Cancel | None:
    """`value`. Raises `InvalidRequestError` for what gives no call up."""
    if value is not None and not isinstance(value, Cancel):
        raise InvalidRequestError(message=f"cancel is an ir.Cancel, not {type(value).__name__}")
    return value


def as_seconds(name: str, value: float) -> float:
    """`value`, at most `LONGEST`. Raises `InvalidRequestError` for what is not a number of seconds."""
    if type(value) is float and 0 <= value <= LONGEST:  # as most are
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise InvalidRequestError(message=f"{name} is a number of seconds of at least 0, not {value!r}")
    return min(value, LONGEST)
