"""The whole configuration as values: accounts, aliases, and how the router behaves.

Strategy: frozen data that is right once it exists. Parts accept anything; `Config` looks at all of them when it is made
and raises one `ConfigError` with every fault and its path. What is legal but surprising is said by `warnings`, as data.
Must never read a file or the environment, nor know a provider by name.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from .account import CAPABILITIES, DIALECTS, LIMIT_KEYS, QUOTA_UNITS, AccountConfig, Auth
from .frozen import freeze

__all__ = [
    "CAPABILITIES",
    "DIALECTS",
    "LIMIT_KEYS",
    "POLICIES",
    "QUOTA_UNITS",
    "AccountConfig",
    "Auth",
    "Config",
    "ModelMapping",
    "ModelRef",
    "QuotaConfig",
]

POLICIES = ("free_first", "cost_first", "least_busy", "declared_order")


@dataclass(frozen=True, slots=True)
class ModelRef:
    """One step of an alias: `model`, by the provider's own name for it, at the accounts of `provider`."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class ModelMapping:
    """An alias: requests for `alias` go to `models`, tried in this order where the policy sees no difference."""

    alias: str
    models: Sequence[ModelRef]

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", freeze(self.models))


@dataclass(frozen=True, slots=True)
class QuotaConfig:
    """Where use is counted. `store`: memory | sqlite; `path`: the sqlite file, None with memory.

    `on_store_error`: what happens to a call when the store fails: refuse | ignore.
    """

    store: str = "memory"
    path: str | os.PathLike[str] | None = None
    on_store_error: str = "refuse"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything a router is built from.

    `default_model`: alias or model of a request that names none, "": there is none. `policy`: free_first | cost_first |
    least_busy | declared_order. `attempt_timeout`: seconds one attempt may take. `max_wait`: seconds a call may sleep
    for a free slot, 0: not at all. `timeout`: seconds for a whole call, None: no bound but the attempts'.
    `idle_timeout`: longest silence of a stream in seconds, None: no such bound. `auth_errors`: what follows a refused
    key: raise | next.

    Raises `ConfigError` that lists every problem of every part.
    """

    accounts: Sequence[AccountConfig] = ()
    models: Sequence[ModelMapping] = ()
    allow_paid: bool = False
    default_model: str = ""
    policy: str = "free_first"
    attempt_timeout: float = 120.0
    max_wait: float = 0.0
    timeout: float | None = None
    idle_timeout: float | None = None
    auth_errors: str = "raise"
    quota: QuotaConfig = field(default_factory=QuotaConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "accounts", freeze(self.accounts))
        object.__setattr__(self, "models", freeze(self.models))
