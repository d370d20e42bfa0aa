"""Describes one account at a provider: its key, what it may use up, what it costs, and how it is reached.

Strategy: plain frozen data. An account never raises on what it is given, however wrong: `account_problems` says
everything that is wrong with it at once, so that `Config` can list the faults of all accounts together.
Must never know what is used up, nor how a limit is counted, nor show a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .costs import COUNTED, UNITS
from .errors import ConfigError
from .frozen import EMPTY, FrozenDict, field, frozen_value
from .limit_rows import LIMIT_KEYS as LIMIT_KEYS
from .limit_rows import TPM_COUNTS, LimitRow, leave_problems, left_to_others, limit_problems, limit_rows
from .limits import MAX_AMOUNT, zone_problem
from .secret import Secret
from .spend_caps import DOLLARS, PRICES_NEEDED, cap_problems, spend_caps
from .validation import (
    check_base_url,
    check_bool,
    check_choice,
    check_header_name,
    check_header_value,
    check_name,
    check_number,
    describe_type,
    misfit_in_words,
    names_credential,
    shown_name,
)

DIALECTS = ("openai", "gemini", "anthropic")
CAPABILITIES = ("text", "image", "audio", "video", "document", "tools", "json")
UNSTATED: FrozenDict[str, Any] = FrozenDict()
"""The `limits` of an account that is silent about them, told by identity: an empty mapping of the caller's own says none."""

CATALOG = "catalog"
"""Stands in the place of `limits` for what the catalog has."""


@frozen_value
class Auth:
    """How an account proves itself: `api_key`, a string or a `Secret`; "" means that the provider asks for none.

    `variable`: of the environment, that it came from; "": none. `fault`: what was wrong with what was given, with its path below
    the account; "": nothing.
    """

    api_key: Secret
    variable: str = field(repr=False, compare=False)
    fault: str = field(repr=False)

    def __init__(self, api_key: str | Secret = "", variable: str = "") -> None:
        good = isinstance(api_key, (str, Secret))
        fault = "" if good else f"auth.api_key: must be a string, not {describe_type(api_key)}; is its variable set?"
        object.__setattr__(self, "api_key", Secret(api_key if good else ""))
        object.__setattr__(self, "variable", variable)
        object.__setattr__(self, "fault", fault)

    @property
    def place(self) -> str:
        """Where the key is to be corrected."""
        return self.variable or "auth.api_key"


@frozen_value
class AccountConfig:
    """One account. Only `provider` and `id` are needed; what is None is not stated.

    What it may use:
    `daily_free`: the free allowance of a day in `quota_unit` (requests | tokens | dollars ...); 0: nothing is free; None: not
    stated, so free as long as the limits hold, or all paid where `paid_enabled` is set. `limits`: hard for free and paid alike,
    a mapping: keys rpm rph rpd rpweek rpmonth (requests), tpm ... (tokens), itpm ... and otpm ... (those that go in or come out),
    ipm ... (images) per minute, hour, day, week, month; or an amount of any unit with a window, {"requests": 45, "per": "5h"};
    {"parallel": 2} for calls at once; a list of such mappings where a unit has several. The word "catalog" stands for what the
    catalog says is free at the provider, which also stands, with a warning, where an account that is not paid and has no address
    of its own states no limit at all; {} for none. `model_limits`: such limits per model name; "*" is every model without an
    entry, each counted by itself. `leave`: what is left of every limit to the owner's other programs: a share such as 0.2, or
    shares and amounts by limit. `tpm_counts`: what counts towards tpm: total | input.
    `quota_group`: accounts of one group share every count, so they must declare the same amounts. `reset`: where days, weeks
    and months begin, an IANA zone such as "America/Los_Angeles", or "rolling" for the last 24 hours at any moment.

    What it costs (dollars per token; `prices = "catalog"`: the catalog's list price of each model, where none is stated here):
    `paid_enabled`: may be used beyond what is free, if the configuration's `allow_paid` agrees. `max_daily_spend`: the most
    that is used as paid in a UTC day: dollars, which need a price, or amounts of other units such as {"requests": 100} or
    "50000 tokens"; None: no cap. `cost_per_*_token`: None: not stated; cached and media input then cost what input costs.

    How it is reached:
    `base_url`: None: the provider's own. `dialect`: openai | gemini | anthropic, None: the provider's own. `headers`:
    sent with every call; what names a credential is kept as a secret. `allow_http`: plain http to other hosts than this
    machine. `attempt_timeout`: seconds for one attempt, None: the configuration's. `capabilities`: words of text image
    audio video document tools json, for all models or by model name; None: what the catalog knows. `optional`: in a
    file, leave the account out when its variables are not set.
    """

    provider: str
    id: str
    auth: Auth = Auth()
    base_url: str | None = None
    dialect: str | None = None
    daily_free: float | None = None
    quota_unit: str = "requests"
    paid_enabled: bool = False
    max_daily_spend: float | Mapping[str, float] | str | None = None
    cost_per_input_token: float | None = None
    cost_per_output_token: float | None = None
    cost_per_cached_input_token: float | None = None
    cost_per_audio_input_token: float | None = None
    cost_per_image_input_token: float | None = None
    cost_per_video_input_token: float | None = None
    limits: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str = UNSTATED
    model_limits: Mapping[str, Mapping[str, Any] | Sequence[Mapping[str, Any]]] = EMPTY
    quota_group: str | None = None
    reset: str = "UTC"
    attempt_timeout: float | None = None
    optional: bool = False
    capabilities: Sequence[str] | Mapping[str, Sequence[str]] | None = None
    headers: Mapping[str, str | Secret] = field(default=EMPTY, repr=False)
    allow_http: bool = False
    prices: str = ""
    leave: float | Mapping[str, float] | None = None
    tpm_counts: str = "total"

    @classmethod
    def misfit(cls, names: Sequence[str]) -> ConfigError:
        """What to raise where settings `names` were given that do not fit; see `frozen`."""
        return ConfigError(misfit_in_words(cls.__name__, names, cls.__match_args__, ("provider", "id")))

    def __post_init__(self) -> None:
        if not isinstance(self.auth, Auth):
            object.__setattr__(self, "auth", _unusable(self.auth))
        for name in ("limits", "model_limits", "capabilities", "headers", "max_daily_spend", "leave"):
            stated = getattr(self, name)
            if stated is not UNSTATED:
                object.__setattr__(self, name, _frozen(stated))
        if self.headers and isinstance(self.headers, Mapping):
            object.__setattr__(self, "headers", FrozenDict({name: _kept(name, self.headers[name]) for name in self.headers}))

    @property
    def limit_rows(self) -> tuple[LimitRow, ...]:
        """The stated `limits`; none where the catalog's are asked for and not put in yet."""
        return () if isinstance(self.limits, str) else limit_rows(self.limits, self.leave, self.tpm_counts)

    def model_limit_rows(self, model: str) -> tuple[LimitRow, ...]:
        """The limits of one model, its own or those of "*"."""
        return limit_rows(self.model_limits.get(model, self.model_limits.get("*", EMPTY)), self.leave, self.tpm_counts)

    @property
    def free_a_day(self) -> float | None:
        """`daily_free` without what is left to others."""
        share = self.leave.get("daily_free") if isinstance(self.leave, Mapping) else self.leave
        amount = self.daily_free
        return amount if amount is None else amount - left_to_others(amount, share, _counts_whole(self.quota_unit))

    @property
    def is_priced(self) -> bool:
        """Whether prices are stated, or taken from the catalog."""
        return self.has_price or self.prices == CATALOG

    @property
    def has_price(self) -> bool:
        """Whether input or output tokens have a stated price."""
        return self.cost_per_input_token is not None or self.cost_per_output_token is not None

    @property
    def spend_caps(self) -> Mapping[str, float]:
        """`max_daily_spend` by unit; empty: no cap."""
        return spend_caps(self.max_daily_spend)


def account_problems(account: AccountConfig, path: str) -> list[str]:
    """Everything that is wrong with `account`, each as "path.setting: what is wrong"; never the value of a key."""
    found = [
        ("provider", _check_provider(account.provider)),
        ("id", check_name(account.id)),
        _key_problem(account),
        ("base_url", _check_url(account)),
        ("dialect", None if account.dialect is None else check_choice(account.dialect, DIALECTS)),
        ("daily_free", _check_amount(account.daily_free, whole=_counts_whole(account.quota_unit))),
        ("quota_unit", check_choice(account.quota_unit, COUNTED)),
        *((name, check_bool(getattr(account, name))) for name in _FLAGS),
        *((name, _check_amount(getattr(account, name))) for name in _DOLLARS),
        *cap_problems(account.max_daily_spend),
        ("max_daily_spend", _check_cap_counts(account)),
        *(() if account.limits == CATALOG else limit_problems("limits", account.limits)),
        *_model_limit_problems(account.model_limits),
        ("quota_group", None if account.quota_group is None else check_name(account.quota_group)),
        ("reset", _check_reset(account.reset)),
        ("prices", None if account.prices == "" else check_choice(account.prices, (CATALOG,))),
        *leave_problems(account.leave, _limit_names(account)),
        ("tpm_counts", check_choice(account.tpm_counts, TPM_COUNTS)),
        ("attempt_timeout", check_seconds(account.attempt_timeout)),
        *_capability_problems(account.capabilities),
        *_header_problems(account.headers),
    ]
    return [f"{path}.{setting}: {problem}" for setting, problem in found if problem]


def check_seconds(value: object) -> str | None:
    """None, or more than 0 seconds and at most a year."""
    return None if value is None else check_number(value, above=0.0, most=31_536_000)


_FLAGS = ("paid_enabled", "optional", "allow_http")
_DOLLARS = (
    "cost_per_input_token",
    "cost_per_output_token",
    "cost_per_cached_input_token",
    "cost_per_audio_input_token",
    "cost_per_image_input_token",
    "cost_per_video_input_token",
)
_FRAMING = (
    "host",
    "content-length",
    "transfer-encoding",
    "content-encoding",
    "accept-encoding",
    "connection",
    "expect",
)

_Found = Iterator[tuple[str, str | None]]


def _check_provider(name: object) -> str | None:
    problem = check_name(name)
    if problem is None and "/" in str(name):
        return "must not hold a slash, as provider/model names a model"
    return problem


def _key_problem(account: AccountConfig) -> tuple[str, str | None]:
    setting, _, problem = account.auth.fault.partition(": ")
    if problem:
        return setting, problem
    if account.auth.api_key.fits_header():
        return "auth.api_key", None
    return "auth.api_key", (
        f"the key of account {account.id!r} holds a blank, a line break or a character that is not ASCII; copy it again"
    )


def _check_cap_counts(account: AccountConfig) -> str | None:
    """A cap in dollars where no price is known would never be reached: every call counts as $0."""
    if account.is_priced or not account.paid_enabled or not account.spend_caps.get(DOLLARS):
        return None
    return PRICES_NEEDED.format(repr(account.id))


def _counts_whole(unit: object) -> bool:
    return isinstance(unit, str) and unit in UNITS and UNITS[unit].whole


def _check_url(account: AccountConfig) -> str | None:
    if account.base_url is None:
        return None
    if not isinstance(account.base_url, str):
        return f"must be a string, not {describe_type(account.base_url)}"
    return check_base_url(account.base_url, account.allow_http is True)


def _check_amount(value: object, whole: bool = False) -> str | None:
    return None if value is None else check_number(value, whole=whole, most=MAX_AMOUNT)


def _check_reset(value: object) -> str | None:
    problem = check_name(value)
    if problem or value in ("UTC", "rolling"):
        return problem
    return zone_problem(value)


def _limit_names(account: AccountConfig) -> frozenset[str]:
    models = account.model_limits.values() if isinstance(account.model_limits, Mapping) else ()
    stated = [limit_rows(each) for each in (account.limits, *models)]
    return frozenset(["daily_free", *(row.name for rows in stated for row in rows)])


def _model_limit_problems(model_limits: object) -> _Found:
    if not isinstance(model_limits, Mapping):
        yield "model_limits", f"must be a table of tables by model name, not {describe_type(model_limits)}"
        return
    for model, limits in model_limits.items():
        yield f'model_limits."{model}"', check_name(model)
        yield from limit_problems(f'model_limits."{model}"', limits)


def _capability_problems(capabilities: object) -> _Found:
    if isinstance(capabilities, Mapping):
        for model, words in capabilities.items():
            yield from _word_problems(f'capabilities."{model}"', words)
    elif capabilities is not None:
        yield from _word_problems("capabilities", capabilities)


def _word_problems(path: str, words: object) -> _Found:
    if not isinstance(words, tuple):
        yield path, f"must be a list of {', '.join(CAPABILITIES)}, not {describe_type(words)}"
        return
    for index, word in enumerate(words):
        yield f"{path}[{index}]", check_choice(word, CAPABILITIES)


def _header_problems(headers: object) -> _Found:
    if not isinstance(headers, Mapping):
        yield "headers", f"must be a table, not {describe_type(headers)}"
        return
    for name, value in headers.items():
        if not isinstance(name, str) or check_header_name(name):
            yield "headers", f"{shown_name(name)!r} is not a header name"
        elif name.lower() in _FRAMING:
            yield f"headers.{name}", "is set by the transport alone"
        elif not isinstance(value, (str, Secret)):
            yield f"headers.{shown_name(name)}", f"must be a string, not {describe_type(value)}"
        else:
            yield f"headers.{shown_name(name)}", check_header_value(value)


def _kept(name: object, value: Any) -> Any:
    return Secret.of_header(value) if isinstance(value, str) and isinstance(name, str) and names_credential(name) else value


def _unusable(given: object) -> Auth:
    """An `Auth` that remembers only what kind of thing stood in its place, as that may hold the key."""
    auth = Auth()
    object.__setattr__(auth, "fault", f"auth: must be Auth(api_key=...), not {describe_type(given)}")
    return auth


def _frozen(value: Any, depth: int = 0) -> Any:
    """`value` with its mappings and lists frozen; what is deeper than anything right could be stays, to be refused."""
    if isinstance(value, Mapping) and depth < 4:
        return FrozenDict({key: _frozen(item, depth + 1) for key, item in value.items()})
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(value, key=str))
    return tuple([_frozen(item, depth + 1) for item in value]) if isinstance(value, list) and depth < 4 else value
