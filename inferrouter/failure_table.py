"""Says what each error means for the walk: what is charged, what is held and until when, whether the next candidate is tried.

Strategy: one table over the error classes, the first that fits decides; faults of the transport become errors here and nowhere
else. Must never settle, hold or retry by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .assessment import Candidate
from .catalog import PRESETS, own_names
from .errors import (
    AddressNotFoundError,
    AttemptTimeoutError,
    AuthenticationError,
    ContextWindowError,
    InferRouterError,
    InvalidRequestError,
    MalformedResponseError,
    ModelNotFoundError,
    ProviderError,
    ProviderUnavailableError,
    QuotaExceededError,
    RateLimitedError,
)
from .frozen import NamedTuple
from .health import Verdict
from .lazy_pattern import lazy_pattern
from .limits import next_reset
from .redaction import _secrets, attributed, provider_bug, strip_tracebacks
from .secret import redact
from .spelling import misspelt
from .wire import WireFault

LIMITS = (RateLimitedError, QuotaExceededError)
"""Errors that pass with time alone."""

AUTH_HOLD_S = 600.0
MODEL_HOLD_S = 3600.0
QUOTA_HOLD_S = 3600.0
RATE_HOLD_S = (1.0, 10.0, 86_400.0)
"""Seconds a rate-limited account is held: at least, when the provider did not say, at most."""


class FailureRule(NamedTuple):
    """What an error means for the rest of the walk.

    `charge`: nothing | request | reservation; `fatal`: the walk ends; `hold`: until when, epoch seconds, None: nothing is held.
    """

    charge: str
    verdict: Verdict
    fatal: bool
    hold: Callable[[ProviderError, Candidate, float], float] | None = None


class Failure(NamedTuple):
    """How an attempt failed: the error to show, what it means, and whether it broke on a kept connection before any answer."""

    error: ProviderError
    rule: FailureRule
    reused: bool = False


def failure_of(exc: Exception, candidate: Candidate, auth_next: bool = False, others: bool = False) -> Failure | None:
    """What `exc`, raised while `candidate` was called, means; None for an error of this library that no provider caused.

    `auth_next`: whether a refused key lets the next candidate be tried; `others`: whether there are any of other accounts.
    """
    if isinstance(exc, WireFault):
        error = error_from_fault(exc, candidate)
        return Failure(error, UNKNOWN_OUTCOME if exc.sent else _NOT_SENT, exc.reused)
    if isinstance(exc, ProviderError):
        error = wrong_address(attributed(exc, candidate), candidate)
        if isinstance(error, AuthenticationError):
            error.hint = _key_advice(candidate, others and not auth_next)
        elif type(error) is ModelNotFoundError:
            meant = misspelt(candidate.model, own_names(candidate.provider))[:2]
            if meant:
                error.hint = f"Did you mean {' or '.join(map(repr, meant))}? Else check the model's name with the provider."
        return Failure(error, rule_for(error, auth_next))
    if isinstance(exc, InferRouterError):
        return None
    return Failure(provider_bug(exc, candidate), UNKNOWN_OUTCOME)


def rule_for(error: ProviderError, auth_next: bool) -> FailureRule:
    """The row of the table for `error`: the first class that fits decides."""
    if isinstance(error, AuthenticationError):
        return _AUTH._replace(fatal=not auth_next)
    if isinstance(error, ProviderUnavailableError) and error.status is None:
        return UNKNOWN_OUTCOME
    if is_overload(error):
        return _OVERLOAD
    return next(rule for kind, rule in FAILURE_TABLE if isinstance(error, kind))


def error_from_fault(fault: WireFault, candidate: Candidate) -> ProviderError:
    """What the transport's fault means here."""
    kind = _FAULTS.get(fault.kind, ProviderUnavailableError)
    error = kind(
        candidate.provider,
        candidate.account_id,
        candidate.model,
        message=redact(fault.message, _secrets(candidate)),
    )
    if fault.lasting:
        error.retryable = False
    error.__cause__ = strip_tracebacks(fault)
    return error


def wrong_address(error: ProviderError, candidate: Candidate) -> ProviderError:
    """`error`, or what a 404 means that calls the address wrong, or comes from one without a version and speaks of no model."""
    if type(error) is not ModelNotFoundError or hasattr(candidate.deployment.bound.provider, "wire"):
        return error
    base_url = candidate.deployment.bound.endpoint.base_url
    said = f"{error.message} {error.body}"
    versioned = _VERSION.search(base_url) is not None or base_url in {row.base_url for row in PRESETS.values()}
    if not _OF_AN_ADDRESS.search(said):
        names_model = re.search(rf"(?<!\w){re.escape(candidate.model)}(?!\w)", said) or _OF_A_MODEL.search(said)
        if versioned or names_model:
            return error
    lacks = "" if versioned else ", which has no version such as /v1"
    message = f"nothing is served at the address that begins with base_url {base_url!r}{lacks} ({error.message or 'no details'})"
    place = (candidate.provider, candidate.account_id, candidate.model)
    return AddressNotFoundError(*place, error.status, error.body, request_id=error.request_id, message=message)


def is_outage(error: ProviderError) -> bool:
    """Whether `error` says that the server is not there, or serves nobody: no connection, no such host, 503 or 529."""
    cause = error.__cause__
    if isinstance(cause, WireFault):
        return cause.kind in ("refused", "dns")
    return error.status in (503, 529)


def is_overload(error: ProviderError) -> bool:
    """Whether `error` says that one model is too busy, while the account's others may serve."""
    return isinstance(error, ProviderUnavailableError) and error.scope == "model" and error.status is not None


def overload_wait(error: ProviderError) -> float | None:
    """Seconds that the provider of an overloaded model asked to wait, None if it did not say."""
    least, _, most = RATE_HOLD_S
    return min(max(least, error.retry_after), most) if error.retry_after else None


def is_answer(error: ProviderError) -> bool:
    """Whether the server answered, so that it is not out whatever it said."""
    return error.status is not None and error.status < 500


def hold_key(error: ProviderError, candidate: Candidate, embeds: bool = False) -> str:
    """What is held: everything that shares the account's quota, or the account, and of it one model alone; what its key or its
    address is to blame for, under these alone. A model that does not embed (`embeds`) may chat all the same."""
    bound = candidate.deployment.bound
    model_only = error.scope == "model" or isinstance(error, ModelNotFoundError)
    owner = bound.scope
    if isinstance(error, (AuthenticationError, ModelNotFoundError)):
        owner = bound.embed_access if embeds and model_only else bound.access
    elif isinstance(error, ProviderUnavailableError):
        owner = bound.account.id
    return f"{owner}|{candidate.model}" if model_only else owner


def reason_of(error: ProviderError, embeds: bool = False, key: str = "auth.api_key") -> str:
    """`error` in two words, for a hold; a refused key with what to do about it. `embeds`: it was asked for vectors; `key`: where
    the key is to be corrected."""
    status = f" ({error.status})" if error.status else ""
    if is_overload(error):
        return f"the model is overloaded{status}"
    mend = f", check {key}" if isinstance(error, AuthenticationError) else ""
    asked = " for embeddings" if embeds and isinstance(error, ModelNotFoundError) else ""
    return f"{type(error).__name__.removesuffix('Error')}{status}{asked}{mend}"


def notice_of(error: ProviderError, candidate: Candidate, name: str, embeds: bool = False) -> str | None:
    """What is to be said once about `error`, which waiting does not fix; None for all others. `name`: what was asked for,
    `embeds`: for vectors."""
    who = f"{candidate.provider}/{candidate.account_id}"
    if isinstance(error, ModelNotFoundError):
        asked = "" if name == candidate.model else f"; take it out of {name!r}, or check its name"
        what = f"does not embed with {candidate.model!r}" if embeds else f"does not serve {candidate.model!r}"
        return f"models: {who} {what}, which is passed over for an hour at a time{asked}"
    if isinstance(error, AuthenticationError):
        return (
            f"accounts: the key of {who} was refused, so it is passed over for ten minutes at a time; check "
            f'{_place_of_key(candidate)} (auth_errors = "raise" stops a call there)'
        )
    return None


def _key_advice(candidate: Candidate, others_wait: bool) -> str:
    """What to do about a refused key. `others_wait`: others could serve, and are not asked."""
    said = f"Check {_place_of_key(candidate)} and what the key is allowed to do; a corrected key is asked at once."
    return f'{said} auth_errors = "next" lets other accounts serve meanwhile.' if others_wait else said


def _place_of_key(candidate: Candidate) -> str:
    variable = candidate.deployment.bound.account.auth.variable
    return f"the variable {variable}" if variable else "this account's auth.api_key"


def _rate_hold(error: ProviderError, candidate: Candidate, now: float) -> float:
    least, default, most = RATE_HOLD_S
    return now + min(max(least, default if error.retry_after is None else error.retry_after), most)


def _model_hold(error: ProviderError, candidate: Candidate, now: float) -> float:
    return now + MODEL_HOLD_S


def _quota_hold(error: ProviderError, candidate: Candidate, now: float) -> float:
    if error.resets_at is not None and error.resets_at > now:
        return error.resets_at
    if error.retryable and error.retry_after:
        return now + max(1.0, error.retry_after)
    if error.retryable and candidate.deployment.bound.account.reset != "rolling":
        return next_reset(now, "day", candidate.deployment.bound.account.reset)
    return now + QUOTA_HOLD_S


_OF_A_MODEL = lazy_pattern(r"\bmodels?\b", re.IGNORECASE)
_OF_AN_ADDRESS = lazy_pattern(
    r"invalid url|cannot post|page not found|no (?:such )?(?:route|endpoint|path)\b"
    r"|(?:route|endpoint|path|url)\b.{0,80} not found|unknown (?:request )?(?:url|path|endpoint|route)",
    re.IGNORECASE,
)
_VERSION = lazy_pattern(r"/v[0-9]")


_FAULTS: dict[str, type[ProviderError]] = {
    "timeout": AttemptTimeoutError,
    "encoding": MalformedResponseError,
    "too_large": MalformedResponseError,
}


_AUTH = FailureRule(charge="nothing", verdict=Verdict.IGNORED, fatal=True, hold=lambda error, candidate, now: now + AUTH_HOLD_S)
UNKNOWN_OUTCOME = FailureRule(charge="reservation", verdict=Verdict.FAILURE, fatal=False)
_OVERLOAD = FailureRule(
    charge="request",
    verdict=Verdict.IGNORED,
    fatal=False,
    hold=lambda error, candidate, now: now + (overload_wait(error) or 0.0),
)
_NOT_SENT = FailureRule(charge="nothing", verdict=Verdict.FAILURE, fatal=False)


FAILURE_TABLE: tuple[tuple[type[ProviderError], FailureRule], ...] = (
    (ContextWindowError, FailureRule(charge="nothing", verdict=Verdict.IGNORED, fatal=False)),
    (InvalidRequestError, FailureRule(charge="nothing", verdict=Verdict.IGNORED, fatal=True)),
    (QuotaExceededError, FailureRule(charge="nothing", verdict=Verdict.IGNORED, fatal=False, hold=_quota_hold)),
    (ModelNotFoundError, FailureRule(charge="nothing", verdict=Verdict.IGNORED, fatal=False, hold=_model_hold)),
    (RateLimitedError, FailureRule(charge="request", verdict=Verdict.IGNORED, fatal=False, hold=_rate_hold)),
    (ProviderUnavailableError, FailureRule(charge="request", verdict=Verdict.FAILURE, fatal=False)),
    (ProviderError, UNKNOWN_OUTCOME),
)
"""The table: what each error charges, says of the account's health, holds, and whether the walk ends. The first class that fits
decides, after the rules above it that `rule_for` looks at first."""
