"""Defines the tree of errors: what leaves a public call is one of them, or derives from one.

Strategy: a class says whose fault it was and how far the walk skips (request, model, account); attributes carry the facts; the
message is built from the attributes each time it is asked for, so facts added later (which account, which model) are in it, and
it always ends with what to do next. Must never know how a provider words its errors, and must never be handed a key: bodies
arrive here redacted and cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .frozen import frozen_value, shown_once_made
from .rejections import Patience as Patience
from .rejections import Rejection as Rejection
from .rejections import model_names, printable, reasons, ways_on


class InferRouterError(Exception):
    """Base of everything this library raises on purpose.

    `retryable`: may the very same call succeed later without anybody changing anything?
    """

    retryable: bool = False

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, dict(self.__dict__))


@frozen_value
class Attempt:
    """One call that was really made and failed."""

    provider: str
    account_id: str
    model: str
    error: ProviderError

    def __str__(self) -> str:
        return str(self.error)


class ConfigError(InferRouterError):
    """The configuration cannot be used. `problems`: every fault found, each beginning with its path."""

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return f"the configuration has a problem: {printable(self.problems[0])}"
        lines = "".join(f"\n  - {printable(problem)}" for problem in self.problems)
        return f"the configuration has {len(self.problems)} problems:{lines}"


class UnknownModelError(InferRouterError):
    """No alias, no provider's declared model and no `provider/model` has this name. `known`: close matches first.

    `hint`: what to write instead, where there is more to say than in general; `why`: what the name may be, in words after it.
    """

    def __init__(self, model: str, known: Sequence[str] = (), hint: str = "", why: str = "") -> None:
        self.model = model
        self.known: tuple[str, ...] = tuple(known)
        self.hint = hint
        self.why = why
        super().__init__(model)

    def __str__(self) -> str:
        if not self.model:
            head = "the request names no model and the configuration has no default_model"
        else:
            head = f"unknown model {self.model if len(self.model) <= 200 else self.model[:197] + '...'!r}"
        if self.hint:
            return f"{head}; did you mean {' or '.join(self.known[:3])}? {self.hint}"
        why = printable(self.why)
        listed = f"; known: {printable(', '.join(self.known[:12]))}" if self.known else ""
        return f"{head}{why}{listed}. Name an alias, a model that a provider with an account declares, or provider/model."


class NoCandidatesError(InferRouterError):
    """Nothing could be tried. `rejections`: a `Rejection` each; `retry_at`: epoch seconds when the soonest may serve, or None.

    `patience`: how long it might have waited, None: unknown.
    """

    def __init__(
        self, rejections: Sequence[Rejection] = (), retry_at: float | None = None, *, patience: Patience | None = None
    ) -> None:
        self.rejections: tuple[Rejection, ...] = tuple(rejections)
        self.retry_at = retry_at
        self.patience = patience
        self.retryable = retry_at is not None
        super().__init__(self.rejections)

    def __str__(self) -> str:
        why = reasons(self.rejections) or "no account serves this model"
        return f"no candidate can take this request: {why}. {ways_on(self.rejections, self.retry_at, self.patience)}"


class MultimodalUnavailableError(NoCandidatesError):
    """Every candidate was left out because it cannot take the request's media."""

    def __str__(self) -> str:
        why = reasons(self.rejections)
        return (
            f"no candidate can take this request's media: {why}. "
            "Name a model that can, or declare it under the account's capabilities."
        )


class AllCandidatesFailedError(InferRouterError):
    """Every candidate that could be tried failed. `attempts`: an `Attempt` each, in order; `retry_at`: epoch seconds or None."""

    def __init__(
        self,
        attempts: Sequence[Attempt] = (),
        retry_at: float | None = None,
        rejections: Sequence[Rejection] = (),
        *,
        patience: Patience | None = None,
    ) -> None:
        self.attempts: tuple[Attempt, ...] = tuple(attempts)
        self.retry_at = retry_at
        self.patience = patience
        self.rejections: tuple[Rejection, ...] = tuple(rejections)
        self.retryable = retry_at is not None or any(a.error.retryable for a in self.attempts)
        super().__init__(self.attempts)

    def __str__(self) -> str:
        tried = _failures(self.attempts)
        skipped = f" Left out: {reasons(self.rejections)}." if self.rejections else ""
        count = len(self.attempts)
        head = "the only attempt" if count == 1 else f"all {count} attempts"
        return f"{head} failed: {tried}.{skipped} {_next_step(self)}".rstrip()


class ProviderError(InferRouterError):
    """A provider's answer, or the lack of one.

    `status`: HTTP status, None if there was none. `body`: what it said, redacted and cut to 2 KiB.
    `retry_after`: seconds it asked to wait, None if it did not say. `resets_at`: epoch seconds when a spent quota
    comes back, None if unknown. `scope`: what is held, "account" or "model". `request_id`: the provider's own.
    """

    hint = "See the provider's message."

    def __init__(
        self,
        provider: str = "",
        account_id: str = "",
        model: str = "",
        status: int | None = None,
        body: str = "",
        retry_after: float | None = None,
        request_id: str | None = None,
        *,
        message: str = "",
        retryable: bool | None = None,
        resets_at: float | None = None,
        scope: str = "account",
    ) -> None:
        self.provider = provider
        self.account_id = account_id
        self.model = model
        self.status = status if isinstance(status, int) or status is None else _whole(status)
        self.body = _text(body)
        self.retry_after = _number(retry_after)
        self.request_id = _text(request_id) or None
        self.message = _text(message)
        self.resets_at = _number(resets_at)
        self.scope = scope
        if retryable is not None:
            self.retryable = retryable
        super().__init__()

    @shown_once_made
    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def __str__(self) -> str:
        who = "/".join(filter(None, (self.provider, self.account_id)))
        model = f" ({self.model})" if self.model else ""
        status = f" answered {self.status}" if self.status else ""
        head = f"{who or 'the provider'}{model}{status}: " if who or model or status else ""
        said = self.message or self.body[:200] or type(self).__name__
        wait = f" It asks to wait {self.retry_after:g} s." if self.retry_after else ""
        known = f" Request id {self.request_id}." if self.request_id else ""
        return f"{printable(head + said.rstrip('.'))}.{wait}{known} {self._advice()}"

    def _advice(self) -> str:
        return self.hint


class InvalidRequestError(ProviderError):
    """400, 413, 422, or a request that is wrong before it is sent: the caller's fault, no other account would help."""

    hint = "Change the request; the same one would be refused again."


class ContextWindowError(InvalidRequestError):
    """The prompt and the asked-for answer do not fit the model's context window."""

    hint = "Shorten the messages, lower max_tokens, or add a model with a larger context window to the alias."


class AuthenticationError(ProviderError):
    """401, 403, or a body that means a bad key. The account is held for ten minutes."""

    hint = "Check this account's auth.api_key and what the key is allowed to do; a corrected key is asked at once."


class QuotaExceededError(ProviderError):
    """402, no credit, or a spent daily quota. `retryable` tells whether waiting heals it."""

    retryable = True

    def _advice(self) -> str:
        if self.retryable:
            return "It comes back when the quota resets; add another account to go on now."
        return "Waiting does not help: check the account's plan, credit or spend limit."


class RateLimitedError(ProviderError):
    """429 that heals by itself soon."""

    retryable = True
    hint = "Wait, or add another account."


class ModelNotFoundError(ProviderError):
    """404: this account does not serve that model. The model is held on this account for an hour."""

    hint = "Check the model's name with the provider, and that the account may use it."


class AddressNotFoundError(ModelNotFoundError):
    """404 for the address itself: `base_url` is wrong, most likely without its version. Treated like a missing model."""

    hint = "Check base_url: it ends where the provider's documentation puts /chat/completions or its like, often with /v1."


class ProviderUnavailableError(ProviderError):
    """5xx, 408, 409, 529, no connection, or a connection lost."""

    retryable = True
    hint = "Try again; if it persists, check base_url and the network."

    def _advice(self) -> str:
        return self.hint if self.retryable else "Trying again will not help until that is fixed."


class AttemptTimeoutError(ProviderUnavailableError):
    """The attempt's time, or the whole call's, ran out before the answer came."""

    hint = "Raise timeout or attempt_timeout, or name a faster model."


class MalformedResponseError(ProviderError):
    """A 2xx answer that holds no answer: cut, not JSON, without choices, too large, or with an error inside."""

    retryable = True
    hint = "The provider broke its own format; look at body, and check base_url if it happens every time."


class StreamInterruptedError(InferRouterError):
    """A stream ended after content was handed out and before its terminal marker.

    `partial`: a `ChatResponse` of everything that came (its `finish_reason` is None); `cause`: the error behind it.
    """

    retryable = True

    def __init__(self, partial: Any = None, cause: BaseException | None = None) -> None:
        self.partial = partial
        self.cause = cause
        super().__init__()

    def __str__(self) -> str:
        seen = len(getattr(self.partial, "text", "") or "")
        why = f": {str(self.cause).rstrip('.')}." if self.cause is not None else "."
        return (
            f"the stream broke off after {seen} characters{why} "
            "What came is in .partial; ask again, as no other account is tried once content was handed out."
        )


class BatchError(InferRouterError):
    """A long job cannot begin or go on: its input or output is not as it must be. What was written stays whole."""


class QuotaStoreError(InferRouterError):
    """The quota store cannot be trusted or reached; without it no call is made (`on_store_error = "ignore"` opts out).

    `permanent`: it was asked for what it will never do, so that asking again is of no use.
    """

    permanent = False


def router_closed() -> InferRouterError:
    """What every use of a closed router ends with."""
    return InferRouterError("this router is closed: make a new one")


def _text(given: Any) -> str:
    """`given` as text: a provider of the user's own may hand over bytes, or nothing."""
    if isinstance(given, str):
        return given
    if isinstance(given, (bytes, bytearray)):
        return given.decode("utf-8", "replace")
    return "" if given is None else str(given)


def _whole(given: Any) -> int | None:
    number = _number(given)
    return int(number) if number is not None and math.isfinite(number) else None


def _number(given: Any) -> float | None:
    """`given`, or a number written as text, as headers hold it; None for anything else."""
    if isinstance(given, (int, float)) or given is None:
        return given
    try:
        return float(given) if isinstance(given, str) else None
    except ValueError:
        return None


def _failures(attempts: Sequence[Attempt]) -> str:
    """Every attempt with its number, those of one account that say the same of several models as one."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for number, each in enumerate(attempts):
        said = str(each).rstrip(".")
        alike = said.replace(each.model, "\0") if each.model else said
        groups.setdefault((each.provider, each.account_id, alike), []).append(number)
    texts = []
    for numbers in groups.values():
        first, last = attempts[numbers[0]], numbers[-1]
        models = list(dict.fromkeys(attempts[number].model for number in numbers))
        in_a_row = last - numbers[0] == len(numbers) - 1
        which = f"{numbers[0] + 1}-{last + 1}" if in_a_row and len(numbers) > 2 else ", ".join(str(n + 1) for n in numbers[:10])
        said = str(first).rstrip(".")
        texts.append(f"[{which}] " + said.replace(f"({first.model})", f"({printable(model_names(models))})", 1))
    return "; ".join(texts)


def _next_step(error: AllCandidatesFailedError) -> str:
    """What to do once everything failed, beyond what each failure says itself."""
    if error.retry_at is not None:
        return ways_on(error.rejections, error.retry_at, error.patience)
    failed = [each.error for each in error.attempts]
    if any(each.retryable for each in failed):
        providers = {each.provider for each in error.attempts} | {each.provider for each in error.rejections}
        busy = len(providers) == 1 and all(each.status is not None for each in failed)
        return "An account at another provider could take over." if busy else ""
    return ways_on(error.rejections, error.retry_at, error.patience) if error.rejections or not failed else ""


def _rebuild(cls: type[InferRouterError], args: tuple[Any, ...], facts: dict[str, Any]) -> InferRouterError:
    error = cls.__new__(cls)
    error.args = args
    error.__dict__.update(facts)
    return error
