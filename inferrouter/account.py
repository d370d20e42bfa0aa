"""One account at a provider: its key, what it may use up, what it costs, and how it is reached.

Strategy: plain frozen data. An account never raises on what it is given, however wrong: `account_problems` says
everything that is wrong with it at once, so that `Config` can list the faults of all accounts together.
Must never know what is used up, nor how a limit is counted, nor show a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .checks import kind_of
from .frozen import EMPTY, freeze
from .secret import Secret

__all__ = ["CAPABILITIES", "DIALECTS", "LIMIT_KEYS", "QUOTA_UNITS", "AccountConfig", "Auth"]

QUOTA_UNITS = ("requests", "tokens", "dollars")
DIALECTS = ("openai", "gemini", "anthropic")
CAPABILITIES = ("text", "image", "audio", "video", "document", "tools", "json")
LIMIT_KEYS: Mapping[str, tuple[str, str]] = freeze(
    {
        "rpm": ("requests", "minute"),
        "rph": ("requests", "hour"),
        "rpd": ("requests", "day"),
        "rpmonth": ("requests", "month"),
        "tpm": ("tokens", "minute"),
        "tph": ("tokens", "hour"),
        "tpd": ("tokens", "day"),
        "tpmonth": ("tokens", "month"),
    }
)


@dataclass(frozen=True, slots=True, init=False)
class Auth:
    """How an account proves itself: `api_key`, a string or a `Secret`; "" means that the provider asks for none."""

    api_key: Secret
    fault: str = field(repr=False)

    def __init__(self, api_key: str | Secret = "") -> None:
        good = isinstance(api_key, (str, Secret))
        fault = "" if good else f"must be a string, not {kind_of(api_key)}; is its environment variable set?"
        object.__setattr__(self, "api_key", Secret(api_key if good else ""))
        object.__setattr__(self, "fault", fault)


@dataclass(frozen=True, slots=True)
class AccountConfig:
    """One account. Only `provider` and `id` are needed; what is None is not stated.

    What it may use:
    `daily_free`: the free allowance of a day in `quota_unit` (requests | tokens | dollars); None: no stated allowance,
    the account counts as free as long as its limits hold; 0: nothing is free. `limits`: hard for free and paid alike,
    keys rpm rph rpd rpmonth (requests) and tpm tph tpd tpmonth (tokens) per minute, hour, day, month. `model_limits`:
    such a mapping per model name; "*" is every model without an entry, each counted by itself. `quota_group`: accounts
    of one group share every count, so they must declare the same amounts. `reset`: where days and months begin, an
    IANA zone such as "America/Los_Angeles", or "rolling" for the last 24 hours at any moment.

    What it costs (dollars per token):
    `paid_enabled`: may be used beyond what is free, if the configuration's `allow_paid` agrees. `max_daily_spend`:
    dollars a UTC day, None: no cap. `cost_per_*_token`: None: not stated; cached and media input then cost what input
    costs.

    How it is reached:
    `base_url`: None: the provider's own. `dialect`: openai | gemini | anthropic, None: the provider's own. `headers`:
    sent with every call, plain text. `allow_http`: plain http to other hosts than this machine. `attempt_timeout`:
    seconds for one attempt, None: the configuration's. `capabilities`: words of text image audio video document tools
    json, for all models or by model name; None: what the catalog knows. `optional`: in a file, leave the account out
    when its variables are not set.
    """

    provider: str
    id: str
    auth: Auth = Auth()
    base_url: str | None = None
    dialect: str | None = None
    daily_free: float | None = None
    quota_unit: str = "requests"
    paid_enabled: bool = False
    max_daily_spend: float | None = None
    cost_per_input_token: float | None = None
    cost_per_output_token: float | None = None
    cost_per_cached_input_token: float | None = None
    cost_per_audio_input_token: float | None = None
    cost_per_image_input_token: float | None = None
    cost_per_video_input_token: float | None = None
    limits: Mapping[str, float] = EMPTY
    model_limits: Mapping[str, Mapping[str, float]] = EMPTY
    quota_group: str | None = None
    reset: str = "UTC"
    attempt_timeout: float | None = None
    optional: bool = False
    capabilities: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    headers: Mapping[str, str | Secret] = field(default=EMPTY, repr=False)
    allow_http: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.auth, Auth):
            object.__setattr__(self, "auth", _unusable(self.auth))
        for name in ("limits", "model_limits", "capabilities", "headers"):
            object.__setattr__(self, name, _frozen(getattr(self, name)))

    @property
    def has_price(self) -> bool:
        """Whether input or output tokens have a stated price."""
        return self.cost_per_input_token is not None or self.cost_per_output_token is not None


def _unusable(given: object) -> Auth:
    """An `Auth` that remembers only what kind of thing stood in its place, as that may hold the key."""
    auth = Auth()
    object.__setattr__(auth, "fault", f"must be Auth(api_key=...), not {kind_of(given)}")
    return auth


def _frozen(value: Any) -> Any:
    if isinstance(value, Mapping):
        return freeze({key: _frozen(item) for key, item in value.items()})
    return tuple(sorted(value, key=str)) if isinstance(value, (set, frozenset)) else freeze(value)
