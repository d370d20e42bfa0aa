"""Says what an error means for a row of a long job: wait, try again, give the row up, or end the job.

Strategy: one table over the error tree. Waiting for quota, or for a provider that says it is too busy, is never the row's fault
and costs none of its tries; a provider that fails costs one; what is wrong with the request itself costs the row; what would hit
every row alike ends the job at once, as nobody wants 20,000 copies of one error.
Must never call a provider, sleep, or know threads.
"""

from __future__ import annotations

import re
from enum import Enum

from .errors import (
    AllCandidatesFailedError,
    AuthenticationError,
    ConfigError,
    InferRouterError,
    InvalidRequestError,
    ModelNotFoundError,
    NoCandidatesError,
    ProviderError,
    ProviderUnavailableError,
    QuotaStoreError,
    Rejection,
    UnknownModelError,
    router_closed,
)
from .failure_table import LIMITS
from .frozen import NamedTuple
from .lazy_pattern import lazy_pattern

BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0


class Meaning(Enum):
    """What comes next. WAIT: for a slot, no try used; BUSY: a little longer each time, no try used; AGAIN: at once, another
    account may serve; TRY: one try used; ROW: this row fails; PROBE: the row fails, or nothing can serve any row; STORE: the
    quota store failed; JOB: the job ends."""

    WAIT = "wait"
    BUSY = "busy"
    AGAIN = "again"
    TRY = "try"
    ROW = "row"
    PROBE = "probe"
    STORE = "store"
    JOB = "job"


class Judgement(NamedTuple):
    """A meaning, and when to go on: epoch seconds, None where that is the backoff's matter or does not apply."""

    meaning: Meaning
    at: float | None = None


def judge(error: InferRouterError, own_model: bool, served: bool) -> Judgement:
    """What `error` means. `own_model`: the row names a model of its own; `served`: the job has had an answer already, or
    heard that a provider is too busy."""
    if isinstance(error, NoCandidatesError):
        return _nobody(error, served)
    if isinstance(error, AllCandidatesFailedError):
        return _all_failed(error)
    if isinstance(error, UnknownModelError):
        return Judgement(Meaning.ROW if own_model else Meaning.JOB)
    if type(error) is InferRouterError and error.args == router_closed().args:
        return Judgement(Meaning.JOB)
    for kind, meaning in _TABLE:
        if isinstance(error, kind):
            return Judgement(meaning)
    return Judgement(Meaning.ROW)


def waited_for(error: InferRouterError) -> str:
    """Whom an error that passes with time says to wait for: "provider/account model" of the soonest, "" if it does not say."""
    waits = [each for each in getattr(error, "rejections", ()) if each.retry_at is not None]
    if waits:
        soonest = min(waits, key=lambda each: each.retry_at)
        return f"{soonest.provider}/{soonest.account_id} {soonest.model}"
    attempts = getattr(error, "attempts", ())
    return f"{attempts[0].provider}/{attempts[0].account_id} {attempts[0].model}" if attempts else ""


def is_busy(error: InferRouterError) -> bool:
    """Whether a provider, or a model of it, said that it has too much to do."""
    if not isinstance(error, ProviderUnavailableError) or error.status is None:
        return False
    return error.scope == "model" or error.status == 529 or _BUSY.search(f"{error.message} {error.body[:500]}") is not None


def heard_busy(error: InferRouterError) -> bool:
    """Whether anybody who was asked said so."""
    return any(is_busy(each.error) for each in getattr(error, "attempts", ()))


def backoff(tries: int) -> float:
    """Seconds before the next try after `tries` of them failed."""
    return min(BACKOFF_S * 2.0 ** min(tries - 1, 20), LONGEST_BACKOFF_S)


def _nobody(error: NoCandidatesError, served: bool) -> Judgement:
    if error.retry_at is None:
        return Judgement(Meaning.PROBE)
    # Breakers alone: an outage. Before the first answer it may as well be a wrong base_url, which waiting does not fix.
    broken = all(map(_is_broken, (each for each in error.rejections if each.retry_at is not None)))
    if broken and not served:
        return Judgement(Meaning.TRY)
    return Judgement(Meaning.WAIT, error.retry_at)


def _all_failed(error: AllCandidatesFailedError) -> Judgement:
    faults = [attempt.error for attempt in error.attempts]
    busy = any(map(is_busy, faults))
    if (busy or error.retry_at is not None) and all(isinstance(each, LIMITS) or is_busy(each) for each in faults):
        return Judgement(Meaning.BUSY if error.retry_at is None else Meaning.WAIT, error.retry_at)
    never = all(isinstance(each, (ModelNotFoundError, AuthenticationError)) for each in faults)
    if never and faults and not any(each.retry_at is not None for each in error.rejections):
        return Judgement(Meaning.JOB)
    return Judgement(Meaning.TRY)


def _is_broken(rejection: Rejection) -> bool:
    """Whether what was left out is out of order, not merely overloaded, as the reason of the same code says."""
    return rejection.code == "breaker" or (rejection.code == "outage" and "overloaded" not in rejection.reason)


_BUSY = lazy_pattern(
    r"overload|too busy|\b(?:at|over|no) (?:\w+ )?capacity|high (?:demand|load|traffic)|slow down", re.IGNORECASE
)
_TABLE: tuple[tuple[type[InferRouterError], Meaning], ...] = (
    (AuthenticationError, Meaning.AGAIN),  # that account is held now
    (InvalidRequestError, Meaning.ROW),
    (ProviderError, Meaning.TRY),
    (QuotaStoreError, Meaning.STORE),
    (ConfigError, Meaning.JOB),
)
