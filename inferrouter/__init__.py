"""Routes LLM requests over many accounts: free capacity first, never overrun, paid only when allowed.

Strategy: re-exports what a program needs and nothing else; modules inside never import from here. Must never load a heavy
module of the stdlib, so that importing costs little.
"""

from .account import AccountConfig, Auth
from .config import Config, ModelMapping, ModelRef, QuotaConfig
from .config_file import load_config
from .content import Part
from .errors import (
    AllCandidatesFailedError,
    Attempt,
    AttemptTimeoutError,
    AuthenticationError,
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
from .health import HealthConfig
from .limits import Limit
from .meter import Clock, LogMeter, Meter, NoopMeter, ResultEvent, RouteEvent, SystemClock
from .policy import CostFirstPolicy, DeclaredOrderPolicy, FreeFirstPolicy, LeastBusyPolicy, Policy
from .provider import Endpoint, Provider, StreamDecoder
from .provider_anthropic import AnthropicProvider
from .provider_gemini import GeminiProvider
from .provider_mock import MockProvider, MockReply
from .provider_openai import OpenAICompatProvider
from .quota import Bucket, Headroom, Hold, QuotaStore, Refusal, Reservation
from .quota_memory import MemoryQuotaStore
from .quota_sqlite import SQLiteQuotaStore
from .records import ChatRequest, EmbedRequest, Message, Routing, ToolCall, Usage
from .responses import ChatChunk, ChatResponse, Choice, ChunkChoice, Delta, EmbedResponse, ToolCallDelta
from .router import Router
from .secret import Secret
from .status import AccountStatus, Explanation, LimitStatus
from .stream import ChatStream
from .tool import Tool
from .wire import WireFault, WireRequest

__version__ = "0.1.0"

__all__ = [
    "AccountConfig",
    "AccountStatus",
    "AllCandidatesFailedError",
    "AnthropicProvider",
    "Attempt",
    "AttemptTimeoutError",
    "Auth",
    "AuthenticationError",
    "Bucket",
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
    "InferRouterError",
    "InvalidRequestError",
    "LeastBusyPolicy",
    "Limit",
    "LimitStatus",
    "LogMeter",
    "MalformedResponseError",
    "MemoryQuotaStore",
    "Message",
    "Meter",
    "MockProvider",
    "MockReply",
    "ModelMapping",
    "ModelNotFoundError",
    "ModelRef",
    "MultimodalUnavailableError",
    "NoCandidatesError",
    "NoopMeter",
    "OpenAICompatProvider",
    "Part",
    "Policy",
    "Provider",
    "ProviderError",
    "ProviderUnavailableError",
    "QuotaConfig",
    "QuotaExceededError",
    "QuotaStore",
    "QuotaStoreError",
    "RateLimitedError",
    "Refusal",
    "Rejection",
    "Reservation",
    "ResultEvent",
    "RouteEvent",
    "Router",
    "Routing",
    "SQLiteQuotaStore",
    "Secret",
    "StreamDecoder",
    "StreamInterruptedError",
    "SystemClock",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "UnknownModelError",
    "Usage",
    "WireFault",
    "WireRequest",
    "__version__",
    "load_config",
]
