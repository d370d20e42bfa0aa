"""Says which of this library's errors a provider's refusal is.

Strategy: the HTTP status decides; the body decides only where a status is ambiguous (a bad key as a 400, an error inside a 200,
a spent day among 429s). `error_body` reads the body and the wait; here are the rows: the codes and phrases that servers use, and
the error that each means. Must never know accounts, and must never raise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .error_body import ErrorBody, asked_wait, body_epoch, clamp, read_body, retry_after_header, retry_after_text
from .errors import (
    AuthenticationError,
    ConfigError,
    ContextWindowError,
    InvalidRequestError,
    MalformedResponseError,
    ModelNotFoundError,
    ProviderError,
    ProviderUnavailableError,
    QuotaExceededError,
    QuotaStoreError,
    RateLimitedError,
)
from .limits import next_reset

REQUEST_IDS = ("x-request-id", "request-id", "apim-request-id", "x-kong-request-id", "x-amzn-requestid", "nvcf-reqid")

STATUS_OF_CODE = {
    **dict.fromkeys(("invalid_request_error", "invalid_argument", "invalid-argument", "content_filter", "bad_request"), 400),
    **dict.fromkeys(("tool_use_failed", "json_validate_failed", "context_length_exceeded", "invalid_value"), 400),
    **dict.fromkeys(("exceed_context_size_error", "failed_precondition", "invalid_prompt"), 400),
    **dict.fromkeys(("authentication_error", "invalid_api_key", "unauthenticated", "unauthorized"), 401),
    **dict.fromkeys(("billing_error", "payment_required", "insufficient_balance"), 402),
    **dict.fromkeys(("permission_error", "permission_denied"), 403),
    **dict.fromkeys(("not_found_error", "model_not_found", "not_found"), 404),
    "request_too_large": 413,
    **dict.fromkeys(("rate_limit_error", "rate_limit_exceeded", "rate_limited", "resource_exhausted"), 429),
    **dict.fromkeys(("too_many_requests", "too_many_requests_error", "insufficient_quota"), 429),
    **dict.fromkeys(("api_error", "server_error", "internal_error", "internal_server_error", "internal"), 500),
    **dict.fromkeys(("upstream_error", "provider_error"), 502),
    **dict.fromkeys(("service_unavailable", "unavailable", "overloaded", "server_overloaded"), 503),
    **dict.fromkeys(("timeout", "timeout_error", "deadline_exceeded"), 504),
    "overloaded_error": 529,
}
"""The HTTP status of an error that names only a code."""

FINAL_CODES = frozenset(
    (
        *("insufficient_quota", "credit_balance_exhausted", "organization_spend_limit_exceeded"),
        *("project_spend_limit_exceeded", "organization_usage_limit_exceeded", "project_usage_limit_exceeded"),
        *("enforced_spend_limit_reached", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance"),
        *("insufficient_credits", "exceeded_current_quota_error", "payment_required", "billing_error"),
    )
)
FINAL = re.compile(
    r"prepayment credits are depleted|credit balance is too low|insufficient (?:account )?(?:balance|credits?|funds)"
    r"|balance is (?:insufficient|not enough)|(?:requires|purchase|add) more credits|out of credits"
    r"|(?:spend|spending|billing hard) limit (?:has been )?(?:reached|exceeded)|\blimit: 0(?![\d.])"
    r"|\u4f59\u989d\u4e0d\u8db3",  # "insufficient balance", as Zhipu and SiliconFlow say it
    re.IGNORECASE,
)
"""Quotas that do not come back by waiting: credit, spend limits, a tier that does not offer the model."""
REQUEST_TOO_LARGE = re.compile(r"request too large for", re.IGNORECASE)
DAILY = re.compile(
    r"per[ -]?day\b|PerDay|ByDay|\((?:TPD|RPD|ASD)\)|free_tier_daily"
    r"|per[ -]?month\b|/ ?month\b|\b(?:daily|weekly|monthly) (?:\w+ )?(?:quota|limit|allowance)",
    re.IGNORECASE,
)
PER_MODEL = re.compile(
    r"PerModel|ByModel|\bfor (?:the |this )?model\b|rate limit reached for \S+ in |your requests to \S+ for "
    r"|, model: |shared_capacity|rate-limited upstream",
    re.IGNORECASE,
)
PER_MODEL_CODES = frozenset(("request_quota_exceeded", "token_quota_exceeded"))
"""Cerebras counts per organization and model: https://inference-docs.cerebras.ai/support/rate-limits"""
CONTEXT_CODES = frozenset(
    (
        *("context_length_exceeded", "too_many_prompt_tokens", "model_context_window_exceeded"),
        *("exceed_context_size_error", "context_window_exceeded", "tokens_limit_reached"),
    )
)
CONTEXT = re.compile(
    r"maximum context|context[ _-]?(?:length|window|size|limit)|prompt is too long|input is too long|prompt too long"
    r"|too many (?:prompt |input )?tokens|maximum number of tokens|maximum prompt length"
    r"|length of all messages is too long|reduce the length of the (?:messages|prompt|input)"
    r"|input tokens? (?:count )?(?:\([^)]{0,20}\) )?exceeds?|too large for model|max_new_tokens\W{1,3}must be",
    re.IGNORECASE,
)
KEY_CODES = frozenset(
    ("api_key_invalid", "invalid_api_key", "authentication_error", "unauthenticated", "invalid_authentication_error")
)
KEY = re.compile(
    r"api[ _-]?key\b[^.]{0,40}\b(?:not valid|invalid|incorrect|expired|missing|revoked|disabled)"
    r"|\b(?:incorrect|invalid|missing|expired|no) (?:x-)?api[ _-]?key|user location is not supported",
    re.IGNORECASE,
)
MODEL_CODES = frozenset(
    (
        *("model_not_found", "model_not_available", "model_not_supported", "model_decommissioned"),
        *("unknown_model", "invalid_model", "not_found_error", "model_not_exist"),
    )
)
MODEL = re.compile(
    r"\bmodel:? ?[`'\"]?[^\s`'\"]{0,120}[`'\"]? ?(?:does not exist|not exist|(?:is |was )?not found|has been decommissioned)"
    r"|^(?:the )?(?:requested |specified )?model:? [`'\"]?[^\s`'\"]{1,120}[`'\"]? is not (?:supported|available)"
    r"|\bnot a valid model|\b(?:unknown|no such) model\b|\binvalid model(?::| id| name)",
    re.IGNORECASE,
)
MODERATION = re.compile(r"moderation|\bflagged\b", re.IGNORECASE)
CAPACITY = re.compile(r"service tier capacity exceeded", re.IGNORECASE)
OVERLOADED_MODEL = re.compile(
    r"\bmodel\b(?:[^.!?]|\.(?=\S)){0,120}\b(?:overloaded|(?:over|at) (?:\w+ )?capacity|high (?:demand|load|traffic)"
    r"|too busy|is (?:\w+ )?(?:busy|loading)|(?:temporarily|currently) (?:unavailable|loading))"
    r"|^\S{1,120} is (?:currently |temporarily )?(?:over|at) capacity"
    r"|\bno (?:available|healthy) (?:model provider|channels?|deployments?)\b|\bno instances available\b"
    r"|\u65e0\u53ef\u7528\u6e20\u9053",  # "no channel available", as resellers that run one-api say of a model
    re.IGNORECASE,
)
"""What Gemini, Groq, xAI, OpenRouter and others say while one model is too busy, and the rest of the account is not."""


def classify(status: int, headers: Mapping[str, str], body: bytes, now: float, *, provider: str = "") -> ProviderError:
    """What an answer with `status` (200 for an error object inside a good one) means. Never raises.

    `headers` have lower-case names; `now` is in epoch seconds, 0 where it is not known (inside a stream). `provider` is only
    noted in the error.
    """
    error_body = read_body(body)
    effective = _status(status, error_body)
    kind = _kind(effective, error_body)
    facts: dict[str, Any] = {
        "message": error_body.message[:500],
        "request_id": _request_id(headers, error_body),
        "scope": "model" if _is_of_one_model(kind, effective, error_body) else "account",
    }
    if kind is QuotaExceededError:
        facts.update(_quota(effective, headers, error_body, now))
    elif effective:
        facts["retry_after"] = asked_wait(headers, error_body, now)
        if headers.get("x-should-retry") == "false" or (
            kind is RateLimitedError and REQUEST_TOO_LARGE.search(error_body.message)
        ):
            facts["retryable"] = False
    return kind(provider, "", "", effective or status, error_body.text[:2048], **facts)


def _status(status: int, error_body: ErrorBody) -> int:
    """The status that counts. An error inside a 2xx names its own, by number or by code; 0 if it does not."""
    if status >= 400:
        return status
    return error_body.status or next((STATUS_OF_CODE[code] for code in error_body.codes if code in STATUS_OF_CODE), 0)


def _kind(status: int, error_body: ErrorBody) -> type[ProviderError]:
    codes, text = error_body.code_set, error_body.message
    if CAPACITY.search(text) or "overloaded_error" in codes:
        return ProviderUnavailableError
    if status in (400, 403, 413, 422):
        return _kind_by_body(status, error_body)
    if status == 401:
        return AuthenticationError
    if status == 402:
        return QuotaExceededError
    if status == 404:
        return ModelNotFoundError
    if status == 429:
        spent = not codes.isdisjoint(FINAL_CODES) or FINAL.search(text) or DAILY.search(error_body.text)
        return QuotaExceededError if spent else RateLimitedError
    if status == 500 and not codes.isdisjoint(CONTEXT_CODES):
        return ContextWindowError
    if status in (408, 409, 498) or status >= 500:
        return ProviderUnavailableError
    return InvalidRequestError if status else MalformedResponseError


def _is_of_one_model(kind: type[ProviderError], status: int, error_body: ErrorBody) -> bool:
    """Whether the refusal concerns the one model that was asked for."""
    if kind is ModelNotFoundError:
        return True
    if not error_body.code_set.isdisjoint(PER_MODEL_CODES):
        return True
    found = OVERLOADED_MODEL.search(error_body.message) or PER_MODEL.search(error_body.text)
    sure = kind is not ProviderUnavailableError or status in (503, 529) or CAPACITY.search(error_body.message)
    return bool(found and sure)


def _kind_by_body(status: int, error_body: ErrorBody) -> type[ProviderError]:
    codes, text = error_body.code_set, error_body.message
    if not codes.isdisjoint(FINAL_CODES) or FINAL.search(text):
        return QuotaExceededError
    if codes & {"rate_limited", "rate_limit_error"}:
        return RateLimitedError
    if not codes.isdisjoint(MODEL_CODES) or MODEL.search(text):
        return ModelNotFoundError
    if status == 403:
        return InvalidRequestError if MODERATION.search(error_body.text) else AuthenticationError
    if not codes.isdisjoint(KEY_CODES) or KEY.search(text):
        return AuthenticationError
    if not codes.isdisjoint(CONTEXT_CODES) or CONTEXT.search(text):
        return ContextWindowError
    return InvalidRequestError


def _quota(status: int, headers: Mapping[str, str], error_body: ErrorBody, now: float) -> dict[str, Any]:
    """When a spent quota comes back: not by waiting, at a time that the body names, or after a delay."""
    if status == 402 or not error_body.code_set.isdisjoint(FINAL_CODES) or FINAL.search(error_body.message):
        return {"retryable": False, "retry_after": retry_after_header(headers, now)}
    if now <= 0:
        return {
            "resets_at": body_epoch(error_body.metadata),
            "retry_after": retry_after_text(error_body.message, error_body.retry_delay),
        }
    resets_at = _midnight(now) if "PerDay" in error_body.text else body_epoch(error_body.metadata)
    if resets_at is not None:
        return {"resets_at": resets_at, "retry_after": clamp(resets_at - now)}
    wait = asked_wait(headers, error_body, now)
    return {"retry_after": wait, "resets_at": None if wait is None else now + wait}


def _midnight(now: float) -> float:
    """The end of Gemini's day, by the Pacific clock; an hour from `now` if the machine has no time zone data."""
    try:
        return next_reset(now, "day", "America/Los_Angeles")
    except (ConfigError, QuotaStoreError):
        return now + 3600.0


def _request_id(headers: Mapping[str, str], error_body: ErrorBody) -> str | None:
    for name in REQUEST_IDS:
        value = headers.get(name)
        if isinstance(value, str) and value.isprintable() and value:
            return value[:200]
    return error_body.request_id
