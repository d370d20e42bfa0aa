"""Keeps keys out of errors and of partial answers before a caller sees them.

Strategy: every text that a server may have sent is searched for the account's secrets, cut ones included; frames and causes that
may hold one are dropped. Must never decide what an error costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from .assessment import Candidate
from .errors import (
    ProviderError,
    ProviderUnavailableError,
)
from .frozen import replace
from .secret import MASK, Secret, redact
from .wire import contains_secret

if TYPE_CHECKING:
    from .records import Message
    from .responses import ChatResponse


def provider_bug(exc: Exception, found: Candidate) -> ProviderError:
    """What an exception from a provider's own code means."""
    error = ProviderUnavailableError(
        found.provider, found.account_id, found.model, message=f"{type(exc).__name__} inside the provider's own code"
    )
    error.__cause__ = safe_cause(exc, _secrets(found))
    return error


def attributed(error: ProviderError, candidate: Candidate) -> ProviderError:
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
    strip_tracebacks(error)
    if isinstance(error.__cause__, Exception):
        error.__cause__ = safe_cause(error.__cause__, secrets)
    return error


def redacted_partial(partial: ChatResponse, candidate: Candidate) -> ChatResponse:
    """What came of a stream that broke off, without the account's key should the provider have echoed it."""

    def clean(text: str) -> str:
        return redact(text, secrets, cut=True)

    secrets = _secrets(candidate)
    choices = []
    for choice in partial.choices:
        message = choice.message
        calls = tuple(
            replace(call, id=clean(call.id), name=clean(call.name), arguments=clean(call.arguments))
            for call in message.tool_calls
        )
        message = replace(message, content=clean(message.text), reasoning=clean(message.reasoning), tool_calls=calls)
        choices.append(replace(choice, message=message))
    source = tuple(map(clean, partial.source))
    quoted = _occurrences((text for choice in partial.choices for text in _texts(choice.message)), secrets)
    if (quoted and quoted > _occurrences(partial.source, secrets)) or any(
        secret.shows_in(piece) for secret in secrets for piece in source
    ):
        source = ()  # a key that came in two pieces would be found in neither
    return replace(partial, id=clean(partial.id), model=clean(partial.model), choices=tuple(choices), source=source)


def redacted_word(text: object, candidate: Candidate) -> str:
    """A name or an id that a provider gave, for events and logs: without the account's key, and of bounded length."""
    return redact(text[:200], _secrets(candidate), cut=True) if text and isinstance(text, str) else ""


def strip_tracebacks(exc: Exception) -> Exception:
    """`exc` and what is behind it, without their frames: local variables there hold bodies that may echo a key."""
    link: BaseException | None = exc
    while link is not None:
        link.__traceback__ = None
        if link.__suppress_context__:
            link.__context__ = None
        link = link.__cause__ or link.__context__
    return exc


def _texts(message: Message) -> Iterator[str]:
    yield message.text
    yield message.reasoning
    for call in message.tool_calls:
        yield call.arguments


def _occurrences(texts: Iterable[str], secrets: Sequence[Secret]) -> int:
    """How often one of `secrets` stands in `texts` as a whole."""
    return sum(redact(text, secrets).count(MASK) - text.count(MASK) for text in texts)


def _secrets(candidate: Candidate) -> tuple[Secret, ...]:
    """What must not be shown of an account: its key, and headers given as secrets."""
    account = candidate.deployment.bound.account
    return (account.auth.api_key, *(value for value in account.headers.values() if isinstance(value, Secret)))


def safe_cause(exc: Exception, secrets: Sequence[Secret]) -> Exception | None:
    """`exc` without frames, or None if it or what is behind it quotes one of `secrets`."""
    return None if contains_secret(strip_tracebacks(exc), secrets) else exc
