"""Routes LLM requests over many accounts: free capacity first, never overrun, paid only when allowed.

Strategy: re-exports what a program needs and nothing else, each name when it is first asked for (PEP 562), so that importing
costs next to nothing; modules inside never import from here. Type checkers read the names in the `TYPE_CHECKING` block, which a
test holds against the table. Must never import a module of the package, nor a slow one of the stdlib, while it is imported.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036  here, because the modules inside do not even load there
    raise SystemExit(f"{__name__} needs Python 3.11 or newer; this is Python {sys.version.split()[0]}")

TYPE_CHECKING = False  # type checkers take it as true; importing it from `typing` would cost more than all else here

if TYPE_CHECKING:
    from .account import AccountConfig, Auth
    from .batch import Batch
    from .batch_progress import BatchSummary, Progress
    from .capacity import AccountCapacity, Capacity
    from .config import Config, ModelMapping, ModelRef, QuotaConfig
    from .config_file import load_config
    from .content import Part
    from .errors import (
        AddressNotFoundError,
        AllCandidatesFailedError,
        Attempt,
        AttemptTimeoutError,
        AuthenticationError,
        BatchError,
        ConfigError,
        ContextWindowError,
        InferRouterError,
        InvalidRequestError,
        MalformedResponseError,
        ModelNotFoundError,
        MultimodalUnavailableError,
        NoCandidatesError,
        ProviderError,
        ProviderUnavailableError,
        QuotaExceededError,
        QuotaStoreError,
        RateLimitedError,
        Rejection,
        StreamInterruptedError,
        UnknownModelError,
    )
    from .events import CallEvent, HoldEvent, LimitEvent, NoticeEvent, RefusalEvent, ResultEvent, RouteEvent, WaitEvent
    from .health import HealthConfig
    from .limits import Limit
    from .mapping import MapResult, MapRun
    from .meter import Clock, LogMeter, Meter, NoopMeter, SystemClock
    from .meter_metrics import MetricsMeter
    from .meter_otel import OTelMeter
    from .policy import BestFirstPolicy, CostFirstPolicy, DeclaredOrderPolicy, FreeFirstPolicy, LeastBusyPolicy, Policy
    from .provider import Endpoint, Provider, StreamDecoder
    from .provider_anthropic import AnthropicProvider
    from .provider_gemini import GeminiProvider
    from .provider_mock import MockProvider, MockReply
    from .provider_openai import OpenAICompatProvider
    from .quota import Bucket, Headroom, Hold, QuotaStore, Refusal, Reservation
    from .quota_memory import MemoryQuotaStore
    from .quota_postgres import PostgresQuotaStore
    from .quota_redis import RedisQuotaStore
    from .quota_sqlite import SQLiteQuotaStore
    from .records import ChatRequest, EmbedRequest, Message, Routing, ToolCall, Usage
    from .responses import ChatChunk, ChatResponse, Choice, ChunkChoice, Delta, EmbedResponse, ToolCallDelta
    from .router import Router
    from .secret import Secret
    from .serve_endpoint import Serve, serve
    from .status import AccountStatus, Explanation, LimitStatus, RouterStatus
    from .stream import ChatStream
    from .tool import Tool
    from .transport_config import TransportConfig
    from .waiting import CallCancelledError, Cancel
    from .wire import WireFault, WireRequest

__version__ = "0.1.0"

__all__ = [
    "AccountCapacity",
    "AccountConfig",
    "AccountStatus",
    "AddressNotFoundError",
    "AllCandidatesFailedError",
    "AnthropicProvider",
    "Attempt",
    "AttemptTimeoutError",
    "Auth",
    "AuthenticationError",
    "Batch",
    "BatchError",
    "BatchSummary",
    "BestFirstPolicy",
    "Bucket",
    "CallCancelledError",
    "CallEvent",
    "Cancel",
    "Capacity",
    "ChatChunk",
    "ChatRequest",
    "ChatResponse",
    "ChatStream",
    "Choice",
    "ChunkChoice",
    "Clock",
    "Config",
    "ConfigError",
    "ContextWindowError",
    "CostFirstPolicy",
    "DeclaredOrderPolicy",
    "Delta",
    "EmbedRequest",
    "EmbedResponse",
    "Endpoint",
    "Explanation",
    "FreeFirstPolicy",
    "GeminiProvider",
    "Headroom",
    "HealthConfig",
    "Hold",
    "HoldEvent",
    "InferRouterError",
    "InvalidRequestError",
    "LeastBusyPolicy",
    "Limit",
    "LimitEvent",
    "LimitStatus",
    "LogMeter",
    "MalformedResponseError",
    "MapResult",
    "MapRun",
    "MemoryQuotaStore",
    "Message",
    "Meter",
    "MetricsMeter",
    "MockProvider",
    "MockReply",
    "ModelMapping",
    "ModelNotFoundError",
    "ModelRef",
    "MultimodalUnavailableError",
    "NoCandidatesError",
    "NoopMeter",
    "NoticeEvent",
    "OTelMeter",
    "OpenAICompatProvider",
    "Part",
    "Policy",
    "PostgresQuotaStore",
    "Progress",
    "Provider",
    "ProviderError",
    "ProviderUnavailableError",
    "QuotaConfig",
    "QuotaExceededError",
    "QuotaStore",
    "QuotaStoreError",
    "RateLimitedError",
    "RedisQuotaStore",
    "Refusal",
    "RefusalEvent",
    "Rejection",
    "Reservation",
    "ResultEvent",
    "RouteEvent",
    "Router",
    "RouterStatus",
    "Routing",
    "SQLiteQuotaStore",
    "Secret",
    "Serve",
    "StreamDecoder",
    "StreamInterruptedError",
    "SystemClock",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "TransportConfig",
    "UnknownModelError",
    "Usage",
    "WaitEvent",
    "WireFault",
    "WireRequest",
    "__version__",
    "load_config",
    "serve",
]

_NAMES = {
    "account": "AccountConfig Auth",
    "batch": "Batch",
    "batch_progress": "BatchSummary Progress",
    "capacity": "AccountCapacity Capacity",
    "config": "Config ModelMapping ModelRef QuotaConfig",
    "config_file": "load_config",
    "content": "Part",
    "errors": (
        "AddressNotFoundError AllCandidatesFailedError Attempt AttemptTimeoutError AuthenticationError BatchError ConfigError "
        "ContextWindowError InferRouterError InvalidRequestError MalformedResponseError ModelNotFoundError "
        "MultimodalUnavailableError NoCandidatesError ProviderError ProviderUnavailableError "
        "QuotaExceededError QuotaStoreError RateLimitedError Rejection StreamInterruptedError "
        "UnknownModelError"
    ),
    "events": "CallEvent HoldEvent LimitEvent NoticeEvent RefusalEvent ResultEvent RouteEvent WaitEvent",
    "health": "HealthConfig",
    "limits": "Limit",
    "mapping": "MapResult MapRun",
    "meter": "Clock LogMeter Meter NoopMeter SystemClock",
    "meter_metrics": "MetricsMeter",
    "meter_otel": "OTelMeter",
    "policy": "BestFirstPolicy CostFirstPolicy DeclaredOrderPolicy FreeFirstPolicy LeastBusyPolicy Policy",
    "provider": "Endpoint Provider StreamDecoder",
    "provider_anthropic": "AnthropicProvider",
    "provider_gemini": "GeminiProvider",
    "provider_mock": "MockProvider MockReply",
    "provider_openai": "OpenAICompatProvider",
    "quota": "Bucket Headroom Hold QuotaStore Refusal Reservation",
    "quota_memory": "MemoryQuotaStore",
    "quota_postgres": "PostgresQuotaStore",
    "quota_redis": "RedisQuotaStore",
    "quota_sqlite": "SQLiteQuotaStore",
    "records": "ChatRequest EmbedRequest Message Routing ToolCall Usage",
    "responses": "ChatChunk ChatResponse Choice ChunkChoice Delta EmbedResponse ToolCallDelta",
    "router": "Router",
    "secret": "Secret",
    "serve_endpoint": "Serve serve",
    "status": "AccountStatus Explanation LimitStatus RouterStatus",
    "stream": "ChatStream",
    "tool": "Tool",
    "transport_config": "TransportConfig",
    "waiting": "CallCancelledError Cancel",
    "wire": "WireFault WireRequest",
}
"""Which module holds which public names."""

_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}


if not TYPE_CHECKING:  # or every misspelled name would be right

    def __getattr__(name: str) -> object:
        """The public `name`, or the module of that name; kept from then on. Raises `AttributeError`."""
        from importlib import import_module

        if name in _HOME:
            value = getattr(import_module(f".{_HOME[name]}", __name__), name)
        elif name in _NAMES:
            value = import_module(f".{name}", __name__)
        else:
            text = f"module {__name__!r} has no attribute {name!r}"
            hint = _hint(name)
            # A name without the module beside it: Python would add a guess of its own to the hint.
            raise AttributeError(text + hint, name=name) if hint else AttributeError(text)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _hint(name: str) -> str:
    if name.startswith("_"):
        return ""
    from difflib import get_close_matches

    close = get_close_matches(name, _HOME, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
