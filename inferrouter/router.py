"""Holds a program's routing together: the object with `chat_completion`, `stream`, `embed`, `explain` and `status`.

Strategy: builds the parts once and hands them down; every call resolves its model, states what it needs, and leaves the rest to
the one walk. Starts no thread, and opens no connection before the first call. Must never know a wire format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from .agreement import LOOK_EVERY_S
from .assessment import CallNeeds
from .assumptions import Assumed, with_catalog
from .attempt import Operation, Runtime
from .calls import embed_all, embedding_name, read_chat
from .candidates import find_candidates
from .config import Config
from .costs import estimate_chat
from .errors import ConfigError, InferRouterError, InvalidRequestError, UnknownModelError, router_closed
from .frozen import new_tuple, replace
from .guarded_store import GuardedStore
from .health import Health, HealthConfig
from .meter import Clock, Meter, SystemClock, listeners_for
from .ordering import left_out, ordered
from .policy import Policy, policy_named
from .provider import Provider
from .provider_factory import missing_key_warnings, providers_for
from .public_call import as_cancel, as_seconds, chat_request, only_library_errors
from .quota import QuotaStore
from .records import ChatRequest, EmbedRequest
from .router_makers import RouterMakers
from .router_parts import check_parts, dead_steps, store_for, transport_for
from .routes import Route, RouteTable
from .transport_config import TransportConfig
from .waiting import BOUNDS
from .walk import walk

if TYPE_CHECKING:
    from datetime import datetime

    from .call_events import CallTrace
    from .capacity import Capacity, FinishTime
    from .mapping import MapRun
    from .records import ChatOptions, MessagesLike
    from .responses import ChatResponse, EmbedResponse
    from .status import Explanation, RouterStatus
    from .stream import ChatStream
    from .waiting import Cancel, WaitingRoom


class Router(RouterMakers):
    """Routes requests over the accounts of a `Config`. Thread-safe; a context manager.

    `providers`: those that the catalog does not know, or that shall replace its own; None: all are built from the configuration.
    `quota_store`, `policy`: override the configuration's. `meter`: one meter or a list of them, told what happens (see `Meter`).
    `clock`: has `time()`, `monotonic()`, `sleep(s)`. `transport`: overrides the configuration's; may hold an `ssl.SSLContext`.
    Raises `ConfigError` listing every problem, or `QuotaStoreError`.
    """

    _closed = True  # until it was made

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
    ) -> None:
        if not isinstance(config, Config):
            raise ConfigError(f"Router takes an ir.Config, not {type(config).__name__}; for a file use Router.from_file(path)")
        check_parts(quota_store, policy, meter, health, clock, transport)
        clock = clock or SystemClock()
        given = list(providers) if isinstance(providers, Iterable) else providers
        known = providers_for(config, given)
        assumed = self._with_catalog(config, given, clock)
        self._config = config = assumed.config
        self.assumed: tuple[str, ...] = assumed.said
        self._own_store = quota_store is None
        store = store_for(config.quota) if quota_store is None else quota_store
        self._ledger = GuardedStore(store, config.on_store_error or config.quota.on_store_error)
        self._transport = transport_for(transport or config.transport)
        self._runtime = Runtime(
            clock,
            self._ledger,
            Health(health),
            policy_named(config.policy) if policy is None else policy,
            listeners_for(meter),
            config.attempt_timeout,
            None if config.auth_errors is None else config.auth_errors == "next",
        )
        self._routes = RouteTable(config, known, self._transport, self._ledger)
        only_library_errors(self._routes.define_limits)(clock.time(), self._runtime.say)
        dead = only_library_errors(dead_steps)(config, self._runtime)
        self._notes: tuple[str, ...] = (
            *assumed.warnings,
            *(text for text in config.warnings(self._routes.directly_addressable()) if text not in dead),
            *missing_key_warnings(config),
            *self._default_unknown(),
        )
        self._closed = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is legal but surprising in the configuration, and what turned out since, as models and keys that were refused."""
        self._routes.agreement.look(self._runtime.clock, self._runtime.say)
        return (*self._notes, *self._runtime.notices.texts())

    @overload
    def chat(
        self, messages: MessagesLike | ChatRequest, *, stream: Literal[False] = False, **fields: Unpack[ChatOptions]
    ) -> ChatResponse: ...
    @overload
    def chat(
        self, messages: MessagesLike | ChatRequest, *, stream: Literal[True], **fields: Unpack[ChatOptions]
    ) -> ChatStream: ...
    @overload
    def chat(
        self, messages: MessagesLike | ChatRequest, *, stream: bool, **fields: Unpack[ChatOptions]
    ) -> ChatResponse | ChatStream: ...

    @only_library_errors
    def chat(self, messages: Any, *, stream: bool = False, **fields: Any) -> ChatResponse | ChatStream:
        """The short way: one question, or a list of messages or OpenAI-style dicts, and by name the fields of `ChatRequest`.

        Returns what `chat_completion` returns, or with `stream=True` what `stream` returns; `timeout`, `max_wait`, `cancel` and
        errors as there.
        """
        bounds = {name: fields.pop(name) for name in BOUNDS if name in fields}
        request = chat_request(messages, fields)
        return self.stream(request, **bounds) if stream else self.chat_completion(request, **bounds)

    @only_library_errors
    def chat_completion(
        self,
        request: ChatRequest,
        *,
        timeout: float | None = None,
        max_wait: float | None = None,
        cancel: Cancel | None = None,
    ) -> ChatResponse:
        """One whole answer. `timeout`: seconds for everything; `max_wait`: seconds it may sleep until a candidate is free.

        None: the configuration's. `cancel`: ends the call from another thread with a `CallCancelledError`.
        Raises errors of the `InferRouterError` tree only: `InvalidRequestError`, `UnknownModelError`, `NoCandidatesError`,
        `AllCandidatesFailedError`, `AuthenticationError`, `ContextWindowError`, `QuotaStoreError`.
        """
        route, needs, deadline, max_wait = self._prepared(request, timeout, max_wait, "chat_completion")
        trace = None if self._runtime.meter is None else self._trace(request)
        cancel = None if cancel is None else as_cancel(cancel)
        return walk(route, Operation(request, needs, read_chat, deadline, max_wait, False, trace, cancel), self._runtime)

    @only_library_errors
    def stream(
        self,
        request: ChatRequest,
        *,
        timeout: float | None = None,
        max_wait: float | None = None,
        cancel: Cancel | None = None,
    ) -> ChatStream:
        """An open stream, before its first content; see `ChatStream`. Parameters and errors as for `chat_completion`."""
        from .stream import stream_operation

        route, needs, deadline, max_wait = self._prepared(request, timeout, max_wait, "stream")
        idle = self._config.idle_timeout or self._config.attempt_timeout
        trace, cancel = self._trace(request, True), as_cancel(cancel)
        return walk(route, stream_operation(request, needs, deadline, max_wait, idle, trace, cancel), self._runtime)

    @only_library_errors
    def embed(
        self,
        request: EmbedRequest,
        *,
        timeout: float | None = None,
        max_wait: float | None = None,
        cancel: Cancel | None = None,
    ) -> EmbedResponse:
        """Vectors for texts, all of one model; without a name the alias "embed", else the default model.

        Parameters and errors as for `chat_completion`.
        """
        if self._closed or not isinstance(request, EmbedRequest):
            raise self._refused(request, EmbedRequest, "embed")
        deadline, max_wait = self._bounds(timeout, max_wait)
        if not request.model:
            request = replace(request, model=embedding_name(self._config, self._route))
        route = self._route(request.model, deadline)
        trace = self._trace(request)
        return embed_all(request, route, self._runtime, self._config.allow_paid, deadline, max_wait, trace, as_cancel(cancel))

    @only_library_errors
    def map(
        self,
        requests: Iterable[Any],
        *,
        workers: int = 8,
        model: str = "",
        ordered: bool = True,
        timeout: float | None = None,
        tries: int = 3,
        until: float | datetime | None = None,
        stop_when_spent: bool | float = False,
    ) -> MapRun:
        """Answers to many requests, paced by the limits: an iterator of `MapResult`s (`index`, `request`, `response` or `error`).

        `requests`: any iterable, read as it is needed, of strings, lists of messages, `ChatRequest`s or `EmbedRequest`s.
        `workers`: calls in flight at most. `model`: for requests that name none. `ordered`: results in the input's order, so that
        a row that waits holds up those after it; False: as they come. `timeout`: seconds a call may take, None: the
        configuration's. `tries`: how often providers may fail a row; waiting for a slot is not a try. `until`: epoch seconds or a
        datetime, no row begins later. `stop_when_spent`: True stops when no slot comes within five minutes (a number: within
        that many seconds) and tells when one does in `.retry_at`; False waits, for days if it must be.

        No row's error ends it. Raised while iterating is what every row would meet: `NoCandidatesError`,
        `AllCandidatesFailedError`, `UnknownModelError`, `ConfigError`, `QuotaStoreError`; and `InvalidRequestError` for a
        wrong setting. `close()` it, or use it in a `with` block, to leave early.
        """
        from .mapping import run_map

        if self._closed:
            raise router_closed()
        return run_map(
            self,
            requests,
            model=model,
            workers=workers,
            ordered=ordered,
            timeout=timeout,
            tries=tries,
            until=until,
            stop_when_spent=stop_when_spent,
        )

    @only_library_errors
    def explain(self, request: ChatRequest) -> Explanation:
        """What a call would do now: candidates in order, and why each other was left out. Nothing is reserved.

        Raises `UnknownModelError`, `InvalidRequestError`, `QuotaStoreError`, or `ConfigError` if the policy fails.
        """
        from .dry_run import fitting
        from .status import Explanation

        route, needs, _, _ = self._prepared(request, None, None, "explain")
        runtime = self._runtime
        runtime.settle_dropped_streams()
        now = runtime.now()
        found = find_candidates(route, needs, runtime.ledger, runtime.health, now)
        queue = ordered(runtime.policy, found.candidates, needs)
        able, full = fitting(queue, needs, runtime.ledger, now.wall)
        return Explanation(route.name, tuple(able), (*found.rejections, *full, *left_out(found.candidates, queue)))

    @property
    def config(self) -> Config:
        """What it was made from."""
        return self._config

    def model_names(self) -> tuple[str, ...]:
        """Every name that can be asked for: aliases first, then the models they name and those an account lists, each once."""
        return self._routes.names()

    @only_library_errors
    def rest(self, account_id: str, seconds: float, reason: str = "rested by hand") -> None:
        """Hold an account for this many `seconds`, at most 35 days; 0 ends every hold of it and of its models.

        Raises `ConfigError` for an account that is not configured, `InvalidRequestError` for a wrong number, `QuotaStoreError`
        where the store could not carry it out.
        """
        from .resting import forget_overloads, rest_account

        if self._closed:
            raise router_closed()
        if not isinstance(reason, str):
            raise InvalidRequestError(message=f"reason is a text, not {type(reason).__name__}")
        seconds = as_seconds("seconds", seconds)
        said = rest_account(self._routes, self._ledger, account_id, seconds, reason, self._runtime.clock.time())
        if said:
            self._runtime.say(f"rest {account_id}", said, ("", account_id, ""))
        if not seconds:
            forget_overloads(self._runtime.health.outages, account_id)

    @only_library_errors
    def status(self) -> RouterStatus:
        """Every account's limits, holds, breaker and spend, an `AccountStatus` by account id. Raises `QuotaStoreError`."""
        from .status import router_status

        runtime = self._runtime
        runtime.settle_dropped_streams()
        self._routes.agreement.look(runtime.clock, runtime.say)
        return router_status(self._routes, self._ledger, runtime.health, runtime.now(), runtime.notices.texts())

    @only_library_errors
    def capacity(
        self,
        days: float = 1,
        *,
        model: str = "",
        tokens: int | None = None,
        output_tokens: int | None = None,
        reserved: int | None = None,
        paid: bool = False,
    ) -> Capacity:
        """What the accounts will carry in the next `days` days, hour by hour: see `Capacity`. Nothing is reserved.

        It goes by the limits as they are counted now, what is used of them, their resets and the holds. `model`: "" is all that
        the configuration names. `tokens`: what a request uses, `output_tokens` of them answered; None: the estimate of a short
        question. `reserved`: tokens reserved for it until it is answered, None: no more than that. `paid`: accounts that cost
        money too. Raises `InvalidRequestError`, `UnknownModelError`, `QuotaStoreError`.
        """
        from .capacity import capacity_of, row_needs

        runtime = self._runtime
        runtime.settle_dropped_streams()
        needs = row_needs(tokens, output_tokens, reserved)
        return capacity_of(self._routes, self._ledger, runtime.clock.time(), days, needs, model, paid)

    @only_library_errors
    def finish_time(
        self,
        rows: int,
        *,
        model: str = "",
        tokens: int | None = None,
        output_tokens: int | None = None,
        reserved: int | None = None,
        paid: bool = False,
        per_second: float = float("inf"),
    ) -> FinishTime:
        """When `rows` more requests will have been served, and how many within a day. `per_second`: the workers' own speed.

        `model`: "" is the default model, as for a request, or without one all that is named. Else as for `capacity`.
        """
        from .capacity import finish_time, row_needs

        needs = row_needs(tokens, output_tokens, reserved)
        now = self._runtime.clock.time()
        name = model or self._config.default_model
        return finish_time(self._routes, self._ledger, now, rows, needs, name, paid, per_second)

    @property
    def clock(self) -> Clock:
        """The clock that everything of this router goes by."""
        return self._runtime.clock

    @property
    def waiting(self) -> WaitingRoom:
        """Where its calls sleep until a slot may be free, for those that make calls wait beside it: it wakes all on `close`."""
        return self._runtime.waiting

    def close(self) -> None:
        """Close idle connections, and the quota store if this router made it; calls and rows of `map` that wait for a slot
        end with an `InferRouterError`. May be called twice, and from a signal handler."""
        if self._closed:
            return
        self._closed = True
        self._runtime.waiting.close()
        self._runtime.settle_dropped_streams()
        self._ledger.close(self._runtime.clock.time(), self._own_store)
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._closed:  # or never opened, when a traceback shows it
            return "<Router: closed>"
        aliases = [mapping.alias for mapping in self._config.models]
        named = f"; aliases {', '.join(aliases[:8])}" if aliases else ""
        default = f"; default {self._config.default_model}" if self._config.default_model else ""
        counts = f"{len(self._routes.bound_accounts)} accounts, {len(self._routes.providers)} providers, open"
        return f"<Router: {counts}{named}{default}; .chat() .stream() .embed() .explain() .status() .warnings>"

    @only_library_errors
    def _with_catalog(self, config: Config, given: Iterable[Provider] | None, clock: Clock) -> Assumed:
        return with_catalog(config, {provider.name for provider in given or ()}, clock.time())

    def _trace(self, request: ChatRequest | EmbedRequest, stream: bool = False) -> CallTrace | None:
        listeners = self._runtime.meter
        if listeners is None:
            return None
        from .call_events import CallTrace

        return CallTrace(listeners, self._runtime.clock, request, request.model or self._config.default_model, stream)

    def _prepared(
        self, request: ChatRequest, timeout: float | None, max_wait: float | None, name: str
    ) -> tuple[Route, CallNeeds, float | None, float]:
        if self._closed or not isinstance(request, ChatRequest):
            raise self._refused(request, ChatRequest, name)
        deadline, max_wait = self._bounds(timeout, max_wait)
        needs = new_tuple(CallNeeds, (estimate_chat(request), self._config.allow_paid, request, request.media))
        return self._route(request.model, deadline), needs, deadline, max_wait

    def _default_unknown(self) -> list[str]:
        try:
            if self._config.default_model:
                self._route("")
        except UnknownModelError as error:
            return [f"default_model: {error}"]
        return []

    def _route(self, name: str, deadline: float | None = None) -> Route:
        clock, routes = self._runtime.clock, self._routes
        if clock.monotonic() >= routes.agreement.next_look:
            routes.agreement.look(clock, self._runtime.say, LOOK_EVERY_S)
        known = routes.known.get(name or self._config.default_model)
        if known is not None:
            return known
        return routes.resolve(name, clock.time(), None if deadline is None else max(deadline - clock.monotonic(), 0.0))

    def _refused(self, request: object, kind: type, name: str) -> InferRouterError:
        """What is wrong with a call that cannot begin."""
        if self._closed:
            return router_closed()
        from .misuse import wrong_request

        return wrong_request(name, request, kind)

    def _bounds(self, timeout: float | None, max_wait: float | None) -> tuple[float | None, float]:
        limit = self._config.timeout if timeout is None else as_seconds("timeout", timeout)
        max_wait = self._config.max_wait if max_wait is None else as_seconds("max_wait", max_wait)
        return None if limit is None else self._runtime.clock.monotonic() + limit, max_wait
