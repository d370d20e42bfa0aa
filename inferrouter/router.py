"""The router: the object a program holds.

Strategy: builds the parts once and hands them down; every call resolves its model, states what it needs, and leaves the rest to
the one walk. Starts no thread, and opens no connection before the first call. Must never know a wire format.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from .admission import Kit
from .answers import ChatResponse, EmbedResponse
from .attempt import left_out, ordered, walk
from .candidates import Situation, survey
from .chat import chat_verb
from .clock import Clock, SystemClock
from .config import Config, QuotaConfig
from .config_file import load_config
from .embed import embed_all
from .errors import ConfigError, InferRouterError, InvalidRequestError
from .estimate import estimate_chat
from .frozen import FrozenDict
from .health import Health, HealthConfig
from .ledger import Ledger
from .meter import Meter, NoopMeter
from .outcome import bare
from .policy import Policy, policy_named
from .provider import Provider
from .quota import MemoryQuotaStore, QuotaStore
from .records import ChatRequest, EmbedRequest
from .registry import KNOWN_PROVIDERS, accounts_in, config_over, providers_for
from .roster import Plan, Roster
from .status import AccountStatus, Explanation, account_states
from .stream import ChatStream, stream_verb
from .transport import Transport

__all__ = ["Router"]

LONGEST = 1e9
"""Seconds; no call and no wait is longer, infinite ones included."""


P = ParamSpec("P")
T = TypeVar("T")


def _ours(method: Callable[P, T]) -> Callable[P, T]:
    """`method`, which lets out this library's errors alone: what a caller's own provider, policy or clock raises becomes one."""

    @wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except InferRouterError:
            raise
        except Exception as exc:
            kind = type(exc).__name__
            raise InferRouterError(
                f"{kind} in a provider, policy or clock of yours, or in this library: see the cause"
            ) from bare(exc)

    return guarded


class Router:
    """Routes requests over the accounts of a `Config`. Thread-safe; a context manager.

    `providers`: those that the catalog does not know, or that shall replace its own; None: all are built from the configuration.
    `quota_store`, `policy`: override the configuration's. `meter`: gets an event before and after each attempt. `clock`: has
    `time()`, `monotonic()`, `sleep(s)`. Raises `ConfigError` listing every problem, or `QuotaStoreError`.
    """

    def __init__(
        self,
        config: Config,
        providers: Iterable[Provider] | None = None,
        *,
        quota_store: QuotaStore | None = None,
        policy: Policy | None = None,
        meter: Meter | None = None,
        health: HealthConfig | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._closed = True
        if not isinstance(config, Config):
            raise ConfigError(f"Router takes an ir.Config, not {type(config).__name__}; for a file use Router.from_file(path)")
        if policy is not None and not hasattr(policy, "select"):
            raise ConfigError("policy: must have a method select(candidates); a policy's name goes into Config(policy=...)")
        if quota_store is not None and not hasattr(quota_store, "reserve"):
            raise ConfigError(
                f"quota_store: must be a store such as ir.SQLiteQuotaStore(path), not {type(quota_store).__name__}"
            )
        self._config = config
        known = providers_for(config, providers)
        self._own_store = quota_store is None
        store = _store(config.quota) if quota_store is None else quota_store
        self._ledger = Ledger(store, config.on_store_error or config.quota.on_store_error)
        self._transport = Transport()
        self._kit = Kit(
            clock or SystemClock(),
            self._ledger,
            Health(health),
            policy_named(config.policy) if policy is None else policy,
            None if type(meter) is NoopMeter else meter,
            config.attempt_timeout,
            config.auth_errors == "next",
        )
        self._roster = Roster(config, known, self._transport, self._ledger)
        self._roster.open(self._kit.clock.time())
        self.warnings: tuple[str, ...] = config.warnings(self._roster.direct())
        self._closed = False

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], providers: Iterable[Provider] | None = None, **parts: object) -> Router:
        """A router from a .toml or .json file; `parts` as for the constructor. Raises `ConfigError` listing every problem."""
        given = list(providers) if isinstance(providers, Iterable) else []
        names = {str(getattr(provider, "name", "")) for provider in given}
        config, warnings = load_config(path, known_providers=KNOWN_PROVIDERS | names)
        router = cls(config, given or providers, **parts)  # type: ignore[arg-type]  # the constructor names what it takes
        router.warnings = (*warnings, *router.warnings)
        return router

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, **parts: object) -> Router:
        """A router over whatever known API keys the environment holds, one account each, with the catalog's free limits.

        `env`: None: the process's own. `parts` as for the constructor. A key's bill is not known: every account counts as
        free. Raises `ConfigError` that names the variables if none is set.
        """
        accounts = accounts_in(os.environ if env is None else env)
        del env  # a traceback with locals would show it
        return cls(config_over(accounts), **parts)  # type: ignore[arg-type]  # as in from_file

    @_ours
    def chat_completion(
        self, request: ChatRequest, *, timeout: float | None = None, max_wait: float | None = None
    ) -> ChatResponse:
        """One whole answer. `timeout`: seconds for everything; `max_wait`: seconds it may sleep for a free slot.

        None: the configuration's. Raises errors of the `InferRouterError` tree only: `InvalidRequestError`, `UnknownModelError`,
        `NoCandidatesError`, `AllCandidatesFailedError`, `AuthenticationError`, `ContextWindowError`, `QuotaStoreError`.
        """
        situation, deadline, patience = self._prepared(request, timeout, max_wait)
        plan = self._plan(request.model)
        return walk(plan, chat_verb(request, situation, deadline, patience), self._kit)

    @_ours
    def stream(self, request: ChatRequest, *, timeout: float | None = None, max_wait: float | None = None) -> ChatStream:
        """An open stream, before its first content; see `ChatStream`. Parameters and errors as for `chat_completion`."""
        situation, deadline, patience = self._prepared(request, timeout, max_wait)
        plan = self._plan(request.model)
        idle = self._config.idle_timeout or self._config.attempt_timeout
        return walk(plan, stream_verb(request, situation, deadline, patience, idle), self._kit)

    @_ours
    def embed(self, request: EmbedRequest, *, timeout: float | None = None, max_wait: float | None = None) -> EmbedResponse:
        """Vectors for texts, all of one model. Parameters and errors as for `chat_completion`."""
        self._check(request, EmbedRequest)
        deadline, patience = self._bounds(timeout, max_wait)
        plan = self._plan(request.model)
        return embed_all(request, plan, self._kit, self._config.allow_paid, deadline, patience)

    @_ours
    def explain(self, request: ChatRequest) -> Explanation:
        """What a call would do now: candidates in order, and why each other was left out. Nothing is reserved.

        Raises `UnknownModelError`, `InvalidRequestError`, `QuotaStoreError`, or `ConfigError` if the policy fails.
        """
        situation, _, _ = self._prepared(request, None, None)
        kit = self._kit
        kit.settle_orphans()
        plan = self._plan(request.model)
        with kit.nest:
            found = survey(plan, situation, kit.ledger, kit.health, kit.now())
        queue = ordered(kit.policy, found.candidates)
        return Explanation(plan.name, tuple(queue), (*found.rejections, *left_out(found.candidates, queue)))

    @_ours
    def status(self) -> Mapping[str, AccountStatus]:
        """Every account's limits, holds, breaker and spend, by account id. Raises `QuotaStoreError`."""
        kit = self._kit
        kit.settle_orphans()
        with kit.nest:
            return FrozenDict(account_states(self._roster, self._ledger, kit.health, kit.now()))

    def close(self) -> None:
        """Close idle connections, and the quota store if this router made it. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._kit.settle_orphans()
        self._ledger.close(self._kit.clock.time(), self._own_store)
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._closed:  # or never opened, when a traceback shows it
            return "<Router: closed>"
        return f"<Router: {len(self._roster.seats)} accounts, {len(self._roster.providers)} providers, open>"

    def _prepared(
        self, request: ChatRequest, timeout: float | None, max_wait: float | None
    ) -> tuple[Situation, float | None, float]:
        self._check(request, ChatRequest)
        deadline, patience = self._bounds(timeout, max_wait)
        situation = Situation(estimate_chat(request), self._config.allow_paid, request, request.media)
        return situation, deadline, patience

    def _plan(self, name: str) -> Plan:
        known = self._roster.known(name)
        if known is not None:
            return known
        with self._kit.nest:
            return self._roster.resolve(name, self._kit.clock.time())

    def _check(self, request: object, kind: type) -> None:
        if self._closed:
            raise InferRouterError("this router is closed: make a new one")
        if not isinstance(request, kind):
            raise InvalidRequestError(message=f"this call takes an ir.{kind.__name__}, not {type(request).__name__}")

    def _bounds(self, timeout: float | None, max_wait: float | None) -> tuple[float | None, float]:
        limit = self._config.timeout if timeout is None else _seconds("timeout", timeout)
        patience = self._config.max_wait if max_wait is None else _seconds("max_wait", max_wait)
        return None if limit is None else self._kit.clock.monotonic() + limit, patience


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise InvalidRequestError(message=f"{name} is a number of seconds of at least 0, not {value!r}")
    return min(value, LONGEST)


def _store(quota: QuotaConfig) -> QuotaStore:
    if quota.store == "sqlite" and quota.path is not None:
        from .quota_sqlite import SQLiteQuotaStore

        return SQLiteQuotaStore(quota.path)
    return MemoryQuotaStore()
