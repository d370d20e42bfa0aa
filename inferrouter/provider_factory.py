"""Builds the providers: those the caller gave, and for every other account one from its settings or the catalog.

Strategy: a provider that the caller gave wins; then the dialect that an account names, at its own base_url; then the catalog's
preset. All problems are gathered before anything is raised. Must never open a connection.
"""

from __future__ import annotations

from collections.abc import Iterable

from .account import AccountConfig
from .catalog import ALIASES, PRESETS, preset
from .config import Config
from .errors import ConfigError
from .provider import Provider
from .validation import class_in_words

KNOWN_PROVIDERS = frozenset((*PRESETS, *ALIASES))

_NEEDED = ("name", "dialect", "base_url", "media", "declares", "unsupported", "encode", "decode", "decoder", "error")


def providers_for(config: Config, given: Iterable[Provider] | None) -> dict[str, Provider]:
    """Every provider that `config` needs, by name. Raises `ConfigError` listing every problem."""
    providers, problems = _checked(given)
    problems += config.problems_with(KNOWN_PROVIDERS | providers.keys())
    if problems:
        raise ConfigError(problems)
    for account in config.accounts:
        if account.provider not in providers:
            providers[account.provider] = _built(account)
    return providers


def missing_key_warnings(config: Config) -> list[str]:
    """A warning for each account without a key at a provider that asks for one."""
    return [
        f"accounts[{i}].auth: account {account.id!r} has no api_key, which {account.provider!r} asks for"
        for i, account in enumerate(config.accounts)
        if not account.auth.api_key and not account.base_url and not account.headers
        if account.provider in KNOWN_PROVIDERS and preset(account.provider).env
    ]


def _checked(given: Iterable[Provider] | None) -> tuple[dict[str, Provider], list[str]]:
    providers: dict[str, Provider] = {}
    problems: list[str] = []
    if given is not None and not isinstance(given, Iterable):
        return providers, [f"providers: must be a list of providers, not {type(given).__name__}"]
    for index, provider in enumerate(given or ()):
        missing = [name for name in _NEEDED if not hasattr(provider, name)]
        if isinstance(provider, type):
            problems.append(f"providers[{index}]: {class_in_words(provider)}")
        elif missing:
            problems.append(f"providers[{index}]: {type(provider).__name__} is not a provider: it has no {missing[0]!r}")
        elif provider.name in providers:
            problems.append(f"providers[{index}]: the name {provider.name!r} is taken by an earlier provider")
        else:
            providers[provider.name] = provider
    return providers, problems


def _built(account: AccountConfig) -> Provider:
    row = preset(account.provider) if account.provider in KNOWN_PROVIDERS else None
    dialect = account.dialect or (row.dialect if row else "openai")
    base_url = account.base_url or (row.base_url if row else "")
    if dialect == "gemini":  # each dialect is loaded for who speaks it
        from .provider_gemini import GeminiProvider

        return GeminiProvider(base_url, name=account.provider)
    if dialect == "anthropic":
        from .provider_anthropic import AnthropicProvider

        return AnthropicProvider(base_url, name=account.provider)
    from .provider_openai import OpenAICompatProvider

    if row is not None and row.dialect == "openai":
        return OpenAICompatProvider.preset(account.provider)
    return OpenAICompatProvider(account.provider, base_url)
