"""Estimates what a call may need before anybody has counted it, and says what it used, in each unit of a limit.

Strategy: a rough count of tokens that errs on the high side (about 3.5 ASCII characters or one other character a token, fixed
sizes for media), since the reservation is corrected by the real usage afterwards. Each unit is one row of `UNITS`: whoever
counts, checks or shows an amount asks that row. Must never know a provider.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from .content import Part
from .errors import InvalidRequestError
from .frozen import EMPTY, FrozenDict, frozen_value, quick, replace
from .records import ChatRequest, EmbedRequest, Message, Usage

DEFAULT_OUTPUT_TOKENS = 1024
"""Tokens reserved for an answer whose `max_tokens` is not given."""

MOST_ANSWERS = 128  # OpenAI's highest n
OUTPUT_KEYS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""What bounds an answer in a provider's own request, as `extra` may hold it."""
MOST_TOKENS = 10**12
"""More than any call has; what is asked for beyond it counts as this many."""

PRICED_MEDIA = ("audio", "image", "video")
"""Kinds of input that may have a price of their own."""

TOKENS_PER_MESSAGE = 4
IMAGE_TOKENS = 1100  # a high-detail picture at OpenAI; Gemini counts 258 a tile
UNSEEN_TOKENS = 5000  # audio, video or a document behind a URL, whose size nobody knows
UNSEEN_AUDIO_S = 300.0
AUDIO_BYTES_PER_S = 4000.0  # 32 kbit/s, as speech is often packed; music takes more, and is then taken for longer than it is
BYTES_PER_TOKEN = {"audio": 500, "video": 1000, "document": 200}


@frozen_value
class Estimate:
    """Tokens: what goes in, and what may come out at most. `media`: how many of those that go in are of which kind of media.

    `inputs`: texts to make vectors of; `images`: pictures that go in; `audio_s`: seconds of sound that go in. `open_answers`: how
    many answers are wanted whose length nobody bounds, so that `output_tokens` is a guess; 0: it is bounded.
    """

    input_tokens: int
    output_tokens: int
    media: Mapping[str, int] = EMPTY
    inputs: int = 0
    images: int = 0
    audio_s: float = 0.0
    open_answers: int = 0

    @property
    def total(self) -> int:
        """Both together."""
        return self.input_tokens + self.output_tokens


class Prices(Protocol):
    """Dollars per token as an account states them, None where it does not."""

    @property
    def cost_per_input_token(self) -> float | None: ...
    @property
    def cost_per_output_token(self) -> float | None: ...
    @property
    def cost_per_cached_input_token(self) -> float | None: ...
    @property
    def cost_per_audio_input_token(self) -> float | None: ...
    @property
    def cost_per_image_input_token(self) -> float | None: ...
    @property
    def cost_per_video_input_token(self) -> float | None: ...

    @property
    def has_price(self) -> bool:
        """Whether any price is stated."""
        ...


@frozen_value
class Unit:
    """What limits are counted in. `needed`: of a call that was estimated; `used`: of one that was answered.

    `used` None: no provider says, so what was needed counts. `key`: how the keys of an account's limits begin in that unit ("r"
    of rpm), "" for none. `shown`: an amount in words. `whole`: amounts have no fraction. `depends_on`: what `needed` varies
    with: nothing, the estimate's "total", or its "parts". `kept`: a provider that refuses a call has used it all the same.
    `held`: used only while the call is under way, whatever becomes of it. `slack`: what sums may be off, in binary.
    `often_none`: of many calls nothing counts in it.
    """

    key: str
    needed: Callable[[Estimate, Prices], float]
    used: Callable[[Usage, Prices], float] | None
    shown: Callable[[float], str]
    whole: bool = True
    depends_on: str = ""
    kept: bool = False
    held: bool = False
    slack: float = 0.0
    often_none: bool = False


def estimate_chat(request: ChatRequest) -> Estimate:
    """Input tokens by size, output tokens by `max_tokens` or the default, for each answer. Raises `InvalidRequestError`."""
    count, rich = 3, False
    for message in request.messages:
        if isinstance(message, Message):
            content = message.content
            if type(content) is str and not message.tool_calls:
                count += TOKENS_PER_MESSAGE + estimate_text(content)
            else:
                count += _message_tokens(message)
                rich = rich or type(content) is not str
    if request.tools:
        count += sum(tool.form.once(_tool_tokens) for tool in request.tools)
    form = request.response_format
    if form is not None:
        count += form.once(_form_tokens) if isinstance(form, FrozenDict) else _form_tokens(form)
    wanted, answers = (output_wanted(request), answers_wanted(request)) if request.extra else (request.max_tokens, 1)
    output = min(wanted or DEFAULT_OUTPUT_TOKENS, MOST_TOKENS)
    media, inputs, images, audio_s = _media(request) if rich else _NO_MEDIA
    return new_estimate(count, output * answers, media, inputs, images, audio_s, 0 if wanted else answers)


def output_wanted(request: ChatRequest) -> int | None:
    """The longest answer that is asked for, in tokens: `max_tokens`, or what `extra` puts in its place; None for no bound."""
    extra = request.extra
    if not extra:
        return request.max_tokens
    config = extra.get("generationConfig")
    inner = [config.get("maxOutputTokens")] if isinstance(config, Mapping) else []
    wanted = [request.max_tokens, *inner, *[extra.get(name) for name in OUTPUT_KEYS]]
    return max((count for count in wanted if type(count) is int and count > 0), default=None)


def answers_wanted(request: ChatRequest) -> int:
    """How many answers `extra` asks for: OpenAI's `n`, or `candidateCount` in Gemini's `generationConfig`; 1 by default."""
    extra = request.extra
    if not extra:
        return 1
    config = extra.get("generationConfig")
    wanted = [extra.get("n"), *((config.get("candidateCount"),) if isinstance(config, Mapping) else ())]
    return max((count for count in wanted if type(count) is int and 1 <= count <= MOST_ANSWERS), default=1)


def estimate_embed(request: EmbedRequest) -> Estimate:
    """Input tokens of all texts; vectors cost no output."""
    return Estimate(sum(estimate_text(text) + 1 for text in request.inputs), 0, EMPTY, len(request.inputs))


def estimate_text(text: str) -> int:
    """Tokens of `text`, rounded up."""
    size = len(text)
    if text.isascii():
        return -(-size * 2 // 7)
    plain = len(text.encode("ascii", "ignore"))
    return -(-plain * 2 // 7) + size - plain


def blended_price(prices: Prices) -> float | None:
    """Dollars per token, an answer being taken for twice as long as its question; None if no price is stated."""
    if not prices.has_price:
        return None
    return ((prices.cost_per_input_token or 0.0) + 2 * (prices.cost_per_output_token or 0.0)) / 3


def cost_of(prices: Prices, usage: Usage) -> float:
    """Dollars that `usage` costs at `prices`; cached and media input at theirs where they have one."""
    base = prices.cost_per_input_token or 0.0
    plain = usage.prompt_tokens
    cost = 0.0
    breakdown = usage.input_breakdown
    for count, price in (
        (usage.cached_tokens, prices.cost_per_cached_input_token),
        *((breakdown.get(kind, 0), _media_price(prices, kind)) for kind in (PRICED_MEDIA if breakdown else ())),
    ):
        if price is not None and count:
            part = min(count, plain)
            plain -= part
            cost += part * price
    return cost + plain * base + usage.completion_tokens * (prices.cost_per_output_token or 0.0)


def most_it_costs(prices: Prices, estimate: Estimate) -> float:
    """Dollars that a call of this estimate may cost: media that is dearer than text at its own price."""
    usage = Usage(estimate.input_tokens, estimate.output_tokens, estimate.total)
    return cost_of(prices, with_media(usage, estimate, prices))


def with_media(usage: Usage, estimate: Estimate, prices: Prices) -> Usage:
    """`usage`, where it does not say how much of the input was media, with what the estimate says of media dearer than text."""
    if usage.input_breakdown or not estimate.media:
        return usage
    base = prices.cost_per_input_token or 0.0
    dearer = {kind: count for kind, count in estimate.media.items() if (_media_price(prices, kind) or 0.0) > base}
    return replace(usage, input_breakdown=dearer) if dearer else usage


def total_usage(usages: Sequence[Usage]) -> Usage:
    """Several usages as one, each count and each kind of input added up; an estimate if one of them is."""
    if len(usages) == 1:
        return usages[0]
    breakdown: dict[str, int] = {}
    for usage in usages:
        for kind, count in usage.input_breakdown.items():
            breakdown[kind] = breakdown.get(kind, 0) + count
    return Usage(
        sum([usage.prompt_tokens for usage in usages]),
        sum([usage.completion_tokens for usage in usages]),
        sum([usage.total_tokens for usage in usages]),
        sum([usage.cached_tokens for usage in usages]),
        sum([usage.reasoning_tokens for usage in usages]),
        breakdown,
        any(usage.estimated for usage in usages),
    )


def _media_price(prices: Prices, kind: str) -> float | None:
    found: float | None = getattr(prices, f"cost_per_{kind}_input_token")
    return found


def _json_tokens(value: object, what: str) -> int:
    try:
        return estimate_text(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidRequestError(message=f"{what} holds a value that JSON cannot express") from exc


def _tool_tokens(form: Mapping[str, Any]) -> int:
    return _json_tokens(form, f"tool {form['function']['name']!r}")


def _form_tokens(form: object) -> int:
    return _json_tokens(form, "response_format")


def _message_tokens(message: Message) -> int:
    count = TOKENS_PER_MESSAGE
    if isinstance(message.content, str):
        count += estimate_text(message.content)
    else:
        count += sum(_part_tokens(part) for part in message.parts)
    for call in message.tool_calls:
        count += estimate_text(call.name) + estimate_text(call.arguments) + TOKENS_PER_MESSAGE
    return count


def _media(request: ChatRequest) -> tuple[Mapping[str, int], int, int, float]:
    """What the last fields of an `Estimate` say of a chat: tokens by kind of media, no inputs, pictures, seconds of sound."""
    found: dict[str, int] = {}
    images, seconds = 0, 0.0
    for message in request.messages:
        if isinstance(message, Message) and not isinstance(message.content, str):
            for part in message.parts:
                if part.kind in PRICED_MEDIA:
                    found[part.kind] = found.get(part.kind, 0) + _part_tokens(part)
                images += part.kind == "image"
                seconds += audio_seconds(part) if part.kind == "audio" else 0.0
    return found or EMPTY, 0, images, seconds


new_estimate = quick(Estimate)
_NO_MEDIA: tuple[Mapping[str, int], int, int, float] = (EMPTY, 0, 0, 0.0)


def audio_seconds(part: Part) -> float:
    """How long a sound is: what its WAV header says, else its size at a low rate, so rather too long; a guess behind a URL."""
    data = part.data
    if data is None:
        return UNSEEN_AUDIO_S
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE" and len(data) >= 44 and (rate := int.from_bytes(data[28:32], "little")):
        return (len(data) - 44) / rate
    return len(data) / AUDIO_BYTES_PER_S


def _part_tokens(part: Part) -> int:
    if part.kind == "text":
        return estimate_text(part.value or "")
    if part.kind == "image":
        return IMAGE_TOKENS
    if part.data is None:
        return UNSEEN_TOKENS
    return max(258, len(part.data) // BYTES_PER_TOKEN.get(part.kind, 200))


def _counted(one: str, rest: str = "") -> Callable[[float], str]:
    def shown(amount: float) -> str:
        word = (one if amount == 1 else f"{one}s") + rest
        return f"{amount:.0f} {word}" if amount == int(amount) else f"{amount:g} {word}"

    return shown


UNITS: Mapping[str, Unit] = FrozenDict(
    requests=Unit("r", lambda estimate, prices: 1.0, lambda usage, prices: 1.0, _counted("request"), kept=True),
    tokens=Unit(
        "t",
        lambda estimate, prices: estimate.total,
        # A total below its parts is not believed.
        lambda usage, prices: max(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens),
        _counted("token"),
        depends_on="total",
    ),
    dollars=Unit(
        "",
        lambda estimate, prices: most_it_costs(prices, estimate),
        lambda usage, prices: cost_of(prices, usage),
        lambda amount: f"${amount:.6f}".rstrip("0").rstrip("."),
        whole=False,
        depends_on="parts",
        slack=1e-9,  # a billionth of a dollar
    ),
    # Gemini counts towards tpm only what goes in, Anthropic each side by itself: https://docs.claude.com/en/api/rate-limits
    input_tokens=Unit(
        "it",
        lambda estimate, prices: estimate.input_tokens,
        lambda usage, prices: usage.prompt_tokens,
        _counted("input token"),
        depends_on="parts",
    ),
    output_tokens=Unit(
        "ot",
        lambda estimate, prices: estimate.output_tokens,
        lambda usage, prices: usage.completion_tokens,
        _counted("output token"),
        depends_on="parts",
    ),
    inputs=Unit("", lambda estimate, prices: estimate.inputs, None, _counted("input"), depends_on="parts", often_none=True),
    images=Unit("i", lambda estimate, prices: estimate.images, None, _counted("image"), depends_on="parts", often_none=True),
    # Groq counts seconds of audio per hour and day: https://console.groq.com/docs/rate-limits
    audio_seconds=Unit(
        "",
        lambda estimate, prices: estimate.audio_s,
        None,
        _counted("second", " of audio"),
        whole=False,
        depends_on="parts",
        slack=1e-6,
        often_none=True,
    ),
    parallel=Unit("", lambda estimate, prices: 1.0, lambda usage, prices: 0.0, _counted("call", " at once"), held=True),
)
"""Every unit by its name."""
COUNTED = tuple(name for name, unit in UNITS.items() if not unit.held)
"""Units of which a day can have an amount."""
