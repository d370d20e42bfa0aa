"""Makes a router of a configuration file, or of the API keys in an environment.

Strategy: alternative constructors in a base class of the router, which only gather a configuration and hand it on, every option
by its name and type. Must never know what a router does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Self

from .catalog import KEY_VARIABLES
from .config import Config
from .health import HealthConfig
from .meter import Clock, Meter
from .policy import Policy
from .provider import Provider
from .provider_factory import KNOWN_PROVIDERS
from .quota import QuotaStore
from .router_parts import quota_at
from .transport_config import TransportConfig


class RouterMakers:
    """The ways to make a router other than of a `Config`."""

    _notes: tuple[str, ...]

    if TYPE_CHECKING:  # the router's own constructor

        def __init__(
            self,
            config: Config,
            providers: Iterable[Provider] | None = None,
            *,
            quota_store: QuotaStore | None = None,
            policy: Policy | None = None,
            meter: Meter | Sequence[Meter] | None = None,
            health: HealthConfig | None = None,
            clock: Clock | None = None,
            transport: TransportConfig | None = None,
        ) -> None: ...

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        providers: Iterable[Provider] | None = None,
        *,
        quota_store: QuotaStore | None = None,
        policy: Policy | None = None,
        meter: Meter | Sequence[Meter] | None = None,
        health: HealthConfig | None = None,
        clock: Clock | None = None,
        transport: TransportConfig | None = None,
    ) -> Self:
        """A router from a .toml or .json file; the parts as for the constructor. Raises `ConfigError` listing every problem."""
        from .config_file import load_config

        given = list(providers) if isinstance(providers, Iterable) else []
        names = {str(getattr(provider, "name", "")) for provider in given}
        config, warnings = load_config(path, known_providers=KNOWN_PROVIDERS | names, key_variables=KEY_VARIABLES)
        router = cls(
            config,
            given or providers,
            quota_store=quota_store,
            policy=policy,
            meter=meter,
            health=health,
            clock=clock,
            transport=transport,
        )
        router._notes = (*warnings, *router._notes)
        return router

    @classmethod
    def from_env(
        cls,
        env: Mapping[str, str] | None = None,
        *,
        allow_paid: bool = False,
        default_model: str | None = None,
        policy: str | Policy | None = None,
        max_wait: float = 0.0,
        timeout: float | None = None,
        attempt_timeout: float = 120.0,
        idle_timeout: float | None = None,
        auth_errors: str | None = "next",
        store: str | os.PathLike[str] | QuotaStore | None = None,
        on_store_error: str | None = None,
        providers: Iterable[Provider] | None = None,
        meter: Meter | Sequence[Meter] | None = None,
        health: HealthConfig | None = None,
        clock: Clock | None = None,
        quota_store: QuotaStore | None = None,
        transport: TransportConfig | None = None,
    ) -> Self:
        """A router over whatever known API keys the environment holds, with the catalog's free limits and its aliases.

        Each key is an account; `GEMINI_API_KEY_2` and so on are further ones. A request that names no model goes to
        `default_model`, by default "free": every free model, best first. "fast", "smart", "vision" and "embed" are the others.
        A provider without a free tier in the catalog counts as paid and is used only with `allow_paid`, last, and then the
        default is "any".

        `env`: None: the process's own. `policy`: a name as in `Config` or an object, None: best_first. `store`: the path of an
        SQLite file to count in, the URL of a Redis or PostgreSQL server, or a store; None: in memory. `auth_errors`: a refused
        key is passed over; "raise" stops at it.
        The rest as in `Config` and the constructor. Raises `ConfigError` that names the variables if none is set, or lists what
        is wrong.
        """
        from .environment import accounts_from_env, config_for

        found = accounts_from_env(os.environ if env is None else env)
        del env  # a traceback with locals would show it
        path = store if isinstance(store, (str, os.PathLike)) else None
        config = config_for(
            found.required(),
            allow_paid,
            default_model=default_model,
            policy=policy if isinstance(policy, str) else "best_first",
            attempt_timeout=attempt_timeout,
            max_wait=max_wait,
            timeout=timeout,
            idle_timeout=idle_timeout,
            auth_errors=auth_errors,
            on_store_error=on_store_error,
            quota=None if path is None else quota_at(path),
        )
        router = cls(
            config,
            providers,
            quota_store=quota_store if path is not None or store is None else store,  # type: ignore[arg-type]  # not a path here
            policy=None if isinstance(policy, str) else policy,
            meter=meter,
            health=health,
            clock=clock,
            transport=transport,
        )
        router._notes = (*found.notes, *router._notes)
        return router
