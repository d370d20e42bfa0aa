"""A day of the pool on a clock that only moves when told: what `free` serves, and the most that anybody could have served.

The most is reckoned for each limit of the catalog by itself: calls of one size go out as early as the limits allow, each window
counted exactly, which no other order can beat. It knows nothing of the router, its ledger or its estimates.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tests import ir, part
from tests.fakes import FakeClock

catalog = part("catalog")

KEYS = {"GEMINI_API_KEY": "g", "GROQ_API_KEY": "q", "OPENROUTER_API_KEY": "o", "CEREBRAS_API_KEY": "c"}
DAWN = datetime(2026, 11, 26, tzinfo=ZoneInfo("America/Los_Angeles")).timestamp()
DAY = 86_400.0
QUESTION = "Put this sentence into French: the harbour was quiet that morning, and nobody had seen the boats leave."
PROMPT_TOKENS = 30
SPANS = {"m": 60.0, "h": 3600.0, "d": DAY}


class Outcome(NamedTuple):
    """Answers by provider and model, and those that were refused although the day was not over."""

    served: Counter[tuple[str, str]]
    refused: int
    waits: int


def answer_tokens(model: str) -> int:
    """What every answer of a model has, between 60 and 660 tokens: enough that some models run out of tokens before calls."""
    return 60 + zlib.crc32(model.encode()) % 601


def play(seconds: float) -> Outcome:
    """Ask without a pause for `seconds` from midnight in California on, waiting as long as it takes."""
    clock = FakeClock(DAWN)

    def reply(body: Mapping[str, Any]) -> Any:
        tokens = answer_tokens(body["model"])
        return ir.MockReply("Le port etait calme.", usage=ir.Usage(PROMPT_TOKENS, tokens, PROMPT_TOKENS + tokens))

    providers = [ir.MockProvider(name, default=reply) for name in ("gemini", "groq", "openrouter", "cerebras")]
    served: Counter[tuple[str, str]] = Counter()
    refused = 0
    with ir.Router.from_env(KEYS, providers=providers, clock=clock) as router:
        while clock.now < DAWN + seconds:
            left = DAWN + seconds - clock.now
            try:
                where = router.chat(QUESTION, max_wait=left).routing
            except ir.NoCandidatesError as error:
                refused += error.retry_at is None or error.retry_at < DAWN + seconds
                break
            if clock.now < DAWN + seconds:
                served[where.provider, where.model] += 1
    return Outcome(served, refused, len(clock.slept))


def most(seconds: float) -> Counter[tuple[str, str]]:
    """The most answers that each model, or the account as a whole where its limits are, could give in that time."""
    found: Counter[tuple[str, str]] = Counter()
    for name in ("gemini", "groq", "openrouter", "cerebras"):
        row = catalog.preset(name)
        if row.limits:  # all models together, the cheapest in tokens as good as any
            found[name, "*"] = sum(1 for _ in _times(row.limits, row.reset, 0, seconds))
            continue
        offered = [each.model for each in catalog.OFFERS if each.provider == name and not each.embeds]
        for model in offered:
            size = PROMPT_TOKENS + (0 if row.tpm_counts == "input" else answer_tokens(model))
            found[name, model] = sum(1 for _ in _times(row.model_limits[model], row.reset, size, seconds))
    return found


def _times(limits: Mapping[str, float], reset: str, size: int, seconds: float) -> Iterator[float]:
    """When each call of `size` tokens goes out at the earliest, in seconds after dawn."""
    times: list[float] = []
    rolling = [
        (_calls(key, amount, size), SPANS[key[2:]]) for key, amount in limits.items() if reset == "rolling" or key[2:] != "d"
    ]
    daily = [_calls(key, amount, size) for key, amount in limits.items() if reset != "rolling" and key[2:] == "d"]
    begins, today = 0.0, 0
    while True:
        at = times[-1] if times else 0.0
        for count, span in rolling:
            if len(times) >= count:
                at = max(at, times[len(times) - count] + span)
        if at >= _next_day(begins, reset):
            begins, today = _next_day(begins, reset), 0
        while any(today >= count for count in daily):
            begins, today = _next_day(begins, reset), 0
            at = max(at, begins)
        if at >= seconds:
            return
        times.append(at)
        today += 1
        yield at


def _calls(key: str, amount: float, size: int) -> int:
    """How many calls an amount is."""
    return int(amount) if key[0] == "r" else int(amount // size)


def _next_day(after: float, reset: str) -> float:
    """Seconds from dawn to the first midnight in the zone of `reset` that comes after `after`."""
    if reset == "rolling":
        return math.inf
    zone = UTC if reset == "UTC" else ZoneInfo(reset)
    day = datetime.fromtimestamp(DAWN + after, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day + timedelta(days=1)).timestamp() - DAWN
