"""What an error means: what it costs, whether the walk goes on, who rests and until when.

Strategy: one table over the error classes, the first that fits decides; faults of the transport become errors here and nowhere
else, with the facts of who failed and without any key. Must never settle, hold or retry by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from .answers import ChatResponse
from .candidates import Candidate
from .errors import (
    AttemptTimeoutError,
    AuthenticationError,
    ContextWindowError,
    InvalidRequestError,
    MalformedResponseError,
    ModelNotFoundError,
    ProviderError,
    ProviderUnavailableError,
    QuotaExceededError,
    RateLimitedError,
)
from .health import Verdict
from .limits import next_reset
from .secret import Secret, redact
from .wire import WireFault, quotes

__all__ = ["BROKEN", "Cost", "bare", "cost_of_error", "foreign", "reason_of", "rest_key", "signed", "translated", "unquoted"]

AUTH_REST = 600.0
MODEL_REST = 3600.0
QUOTA_REST = 3600.0
RATE_REST = (1.0, 10.0, 86_400.0)
"""Seconds a rate-limited account rests: at least, when the provider did not say, at most."""


class Cost(NamedTuple):
    """What an error means for the rest of the walk. `charge`: nothing | request | reservation; `rest`: hold or None."""

    charge: str
    verdict: Verdict
    fatal: bool
    rest: Callable[[ProviderError, Candidate, float], float] | None = None


def cost_of_error(error: ProviderError, auth_next: bool) -> Cost:
    """The table of what each answer costs; the first class that fits decides."""
    if isinstance(error, AuthenticationError):
        return _AUTH._replace(fatal=not auth_next)
    if isinstance(error, ProviderUnavailableError) and error.status is None:
        return _LOST
    return next(cost for kind, cost in _COSTS if isinstance(error, kind))


def _rate_rest(error: ProviderError, candidate: Candidate, now: float) -> float:
    least, unsaid, most = RATE_REST
    return now + min(max(least, unsaid if error.retry_after is None else error.retry_after), most)


def _quota_rest(error: ProviderError, candidate: Candidate, now: float) -> float:
    if error.resets_at is not None and error.resets_at > now:
        return error.resets_at
    if error.retryable and error.retry_after:
        return now + max(1.0, error.retry_after)
    if error.retryable and candidate.slot.seat.account.reset != "rolling":
        return next_reset(now, "day", candidate.slot.seat.account.reset)
    return now + QUOTA_REST


_FAULTS: dict[str, type[ProviderError]] = {
    "timeout": AttemptTimeoutError,
    "encoding": MalformedResponseError,
    "too_large": MalformedResponseError,
}
_AUTH = Cost("nothing", Verdict.NEUTRAL, True, lambda error, candidate, now: now + AUTH_REST)
BROKEN = Cost("reservation", Verdict.FAILURE, False)
_LOST = Cost("reservation", Verdict.FAILURE, False)
_NOT_SENT = Cost("nothing", Verdict.FAILURE, False)
_COSTS: tuple[tuple[type[ProviderError], Cost], ...] = (
    (ContextWindowError, Cost("nothing", Verdict.NEUTRAL, False)),
    (InvalidRequestError, Cost("nothing", Verdict.NEUTRAL, True)),
    (QuotaExceededError, Cost("nothing", Verdict.NEUTRAL, False, _quota_rest)),
    (ModelNotFoundError, Cost("nothing", Verdict.NEUTRAL, False, lambda error, candidate, now: now + MODEL_REST)),
    (RateLimitedError, Cost("request", Verdict.NEUTRAL, False, _rate_rest)),
    (ProviderUnavailableError, Cost("request", Verdict.FAILURE, False)),
    (ProviderError, BROKEN),
)


def translated(fault: WireFault, candidate: Candidate) -> tuple[ProviderError, Cost]:
    """What the transport's fault means here, and what it costs."""
    kind = _FAULTS.get(fault.kind, ProviderUnavailableError)
    error = kind(
        candidate.provider,
        candidate.account_id,
        candidate.model,
        message=redact(fault.message, _secrets(candidate)),
    )
    error.__cause__ = bare(fault)
    return error, _LOST if fault.sent else _NOT_SENT


def foreign(exc: Exception, found: Candidate) -> ProviderError:
    """What an exception from a provider's own code means."""
    error = ProviderUnavailableError(
        found.provider, found.account_id, found.model, message=f"{type(exc).__name__} inside the provider's own code"
    )
    error.__cause__ = _hushed(exc, _secrets(found))
    return error


def signed(error: ProviderError, candidate: Candidate) -> ProviderError:
    """`error` with the facts of who failed, and without the account's key should the provider have echoed it.

    Its texts were cut by whoever made it, perhaps in the middle of the key.
    """
    secrets = _secrets(candidate)
    error.provider = candidate.provider
    error.account_id = candidate.account_id
    error.model = candidate.model
    error.message = redact(error.message, secrets, cut=True)
    error.body = redact(error.body, secrets, cut=True)
    error.request_id = redact(error.request_id, secrets, cut=True) if error.request_id else None
    bare(error)
    if isinstance(error.__cause__, Exception):
        error.__cause__ = _hushed(error.__cause__, secrets)
    return error


def unquoted(partial: ChatResponse, candidate: Candidate) -> ChatResponse:
    """What came of a stream that broke off, without the account's key should the provider have echoed it."""

    def clean(text: str) -> str:
        return redact(text, secrets, cut=True)

    secrets = _secrets(candidate)
    choices = []
    for choice in partial.choices:
        message = choice.message
        calls = tuple(replace(call, arguments=clean(call.arguments)) for call in message.tool_calls)
        said = replace(message, content=clean(message.text), reasoning=clean(message.reasoning), tool_calls=calls)
        choices.append(replace(choice, message=said))
    return replace(partial, choices=tuple(choices), source=tuple(map(clean, partial.source)))


def bare(exc: Exception) -> Exception:
    """`exc` and what is behind it, without their frames: local variables there hold bodies that may echo a key."""
    link: BaseException | None = exc
    while link is not None:
        link.__traceback__ = None
        if link.__suppress_context__:
            link.__context__ = None
        link = link.__cause__ or link.__context__
    return exc


def rest_key(error: ProviderError, candidate: Candidate) -> str:
    """What must rest: the account, everything that shares its quota, or one model there."""
    seat = candidate.slot.seat
    owner = seat.account.id if isinstance(error, (AuthenticationError, ModelNotFoundError)) else seat.scope
    model_only = error.scope == "model" or isinstance(error, ModelNotFoundError)
    return f"{owner}|{candidate.model}" if model_only else owner


def reason_of(error: ProviderError) -> str:
    """`error` in two words, for a hold; a refused key with what to do about it."""
    status = f" ({error.status})" if error.status else ""
    mend = ", check auth.api_key" if isinstance(error, AuthenticationError) else ""
    return f"{type(error).__name__.removesuffix('Error')}{status}{mend}"


def _secrets(candidate: Candidate) -> tuple[Secret, ...]:
    """What must not be shown of an account: its key, and headers given as secrets."""
    account = candidate.slot.seat.account
    return (account.auth.api_key, *(value for value in account.headers.values() if isinstance(value, Secret)))


def _hushed(exc: Exception, secrets: Sequence[Secret]) -> Exception | None:
    """`exc` without frames, or None if it or what is behind it quotes one of `secrets`."""
    return None if quotes(bare(exc), secrets) else exc
