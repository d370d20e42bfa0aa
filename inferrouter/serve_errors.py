"""Says what a client is told about an error: status, OpenAI's type and code, one sentence, and whether to come back.

Strategy: one table from the library's errors to `Problem`s, which every dialect writes in its own shape. The sentence is what
people see in their tools, so it says when to come back, in a clock time and a span. A client is never blamed for a provider's
bad key, and never told to try again at once, since the router has tried everything already. Must never know a wire format, nor
show the text of an error that is not this library's.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from .errors import (
    AllCandidatesFailedError,
    Attempt,
    AttemptTimeoutError,
    AuthenticationError,
    ConfigError,
    ContextWindowError,
    InferRouterError,
    InvalidRequestError,
    MalformedResponseError,
    ModelNotFoundError,
    MultimodalUnavailableError,
    NoCandidatesError,
    ProviderError,
    QuotaStoreError,
    Rejection,
    StreamInterruptedError,
    UnknownModelError,
)
from .failure_table import LIMITS, is_overload
from .frozen import frozen_value
from .moments import span_in_words
from .rejections import NOT_BY_TIME

Fields = tuple[tuple[str, str], ...]
NO_RETRY: Fields = (("x-should-retry", "false"),)


@frozen_value
class Problem:
    """What a client is told. `kind`, `code`: OpenAI's `type` and `code`; `param`: what is wrong in the request, None if unknown.

    `fields`: headers to send with it.
    """

    status: int
    kind: str
    code: str | None
    message: str
    param: str | None = None
    fields: Fields = ()


def invalid(message: str, param: str | None = None, status: int = 400, code: str | None = None) -> Problem:
    """A request that is wrong in itself."""
    return Problem(status, "invalid_request_error", code, message, param)


def problem_of(error: BaseException, now: float) -> Problem:
    """The problem that `error` is. `now`: epoch seconds."""
    if isinstance(error, UnknownModelError):
        return _not_found(error)
    if isinstance(error, StreamInterruptedError):
        said = f"the provider broke the stream off: {error.cause}" if error.cause else "the provider broke the stream off"
        return Problem(502, "server_error", "stream_interrupted", said, fields=NO_RETRY)
    if isinstance(error, MultimodalUnavailableError):
        return invalid(str(error), "messages")
    if isinstance(error, NoCandidatesError):
        return _nobody(error, now)
    if isinstance(error, AllCandidatesFailedError):
        return _all_failed(error, now)
    if isinstance(error, ProviderError):
        return _provider(error)
    if isinstance(error, QuotaStoreError):
        return Problem(503, "server_error", "quota_store_unavailable", str(error), fields=NO_RETRY)
    if isinstance(error, ConfigError):
        return Problem(500, "server_error", "configuration_error", str(error), fields=NO_RETRY)
    if isinstance(error, InferRouterError):
        return Problem(503, "server_error", "unavailable", str(error), fields=NO_RETRY)
    return Problem(500, "server_error", "internal_error", "an error inside the endpoint; its log says more", fields=NO_RETRY)


def spell(moment: float, now: float) -> str:
    """A moment in epoch seconds as "08:00:00 UTC, in 41 min", with its date if it is another day."""
    try:
        then = datetime.fromtimestamp(math.ceil(moment), UTC)
        today = datetime.fromtimestamp(now, UTC).date()
    except (OverflowError, ValueError, OSError):
        return "some day"
    day = "" if then.date() == today else f"{then:%Y-%m-%d} "
    return f"{day}{then:%H:%M:%S} UTC, in {span_in_words(max(1.0, moment - now))}"


def _nobody(error: NoCandidatesError, now: float) -> Problem:
    why = _reasons(error.rejections)
    if error.retry_at is None:
        if error.rejections and all(each.reason.startswith("held: Authentication") for each in error.rejections):
            return _keys_refused(why)
        return Problem(503, "server_error", "no_capacity", f"no account can take this request: {why}", fields=NO_RETRY)
    if error.rejections and all(each.reason.startswith(NOT_BY_TIME) for each in error.rejections):
        return _not_found(error)
    return _limited(f"no account is free to take this request ({why})", error.retry_at, now)


def _all_failed(error: AllCandidatesFailedError, now: float) -> Problem:
    errors = [attempt.error for attempt in error.attempts]
    if any(isinstance(each, ContextWindowError) for each in errors) and not error.retryable:
        return invalid(str(error), "messages", code="context_length_exceeded")
    if all(isinstance(each, AuthenticationError) for each in errors):
        return _keys_refused(_reasons(error.attempts))
    if error.retry_at is not None and all(isinstance(each, LIMITS) or is_overload(each) for each in errors):
        return _limited(f"every account that could serve this is limited ({_reasons(error.attempts)})", error.retry_at, now)
    if all(isinstance(each, ModelNotFoundError) for each in errors):
        return _not_found(error)
    status = 504 if all(isinstance(each, AttemptTimeoutError) for each in errors) else 502
    return Problem(status, "server_error", "all_providers_failed", str(error), fields=NO_RETRY)


def _provider(error: ProviderError) -> Problem:
    if isinstance(error, ContextWindowError):
        return invalid(str(error), "messages", code="context_length_exceeded")
    if isinstance(error, InvalidRequestError):
        return invalid(str(error))
    if isinstance(error, AuthenticationError):
        return _keys_refused(str(error))
    if isinstance(error, AttemptTimeoutError):
        return Problem(504, "server_error", "timeout", str(error), fields=NO_RETRY)
    code = "malformed_answer" if isinstance(error, MalformedResponseError) else "provider_error"
    return Problem(502, "server_error", code, str(error), fields=NO_RETRY)


def _keys_refused(why: str) -> Problem:
    said = f"the provider refused the endpoint's own key, not yours: {why}"
    return Problem(502, "provider_error", "provider_authentication_failed", said, fields=NO_RETRY)


def _not_found(error: InferRouterError) -> Problem:
    return Problem(404, "invalid_request_error", "model_not_found", str(error), "model")


def _limited(what: str, retry_at: float, now: float) -> Problem:
    wait = max(1, math.ceil(retry_at - now))
    said = f"{what}; the first is free at {spell(retry_at, now)}"
    fields = (("retry-after", str(wait)), *NO_RETRY)
    return Problem(429, "rate_limit_error", "rate_limit_exceeded", said, fields=fields)


def _reasons(found: tuple[Rejection, ...] | tuple[Attempt, ...]) -> str:
    """What stood in the way of each, at most three of them."""
    shown = "; ".join(str(each) for each in found[:3]) or "no account serves this model"
    return shown + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
