"""Guards the methods that programs call: what they are given, and what may come out of them.

Strategy: one decorator. Must never know what a method does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from .errors import InferRouterError, InvalidRequestError
from .redaction import strip_tracebacks

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
            kind = type(exc).__name__
            raise InferRouterError(
                f"{kind} in a provider, policy or clock of yours, or in this library: see the cause"
            ) from strip_tracebacks(exc)

    return guarded


def as_seconds(name: str, value: float) -> float:
    """`value`, at most `LONGEST`. Raises `InvalidRequestError` for what is not a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise InvalidRequestError(message=f"{name} is a number of seconds of at least 0, not {value!r}")
    return min(value, LONGEST)
