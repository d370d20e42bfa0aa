"""Says what a limit is worth by what its provider said or showed, beside what was configured.

Strategy: facts about one bucket, at most one of each kind, never more than what is configured. A stated limit counts until it has
not been said again for a while. A ceiling, from a refusal without figures, grows by a step at a time, so that it is probed
upward and never stays for ever. What remained when it was last less than was counted here is kept to be shown. Pure functions
on frozen values, time passed in as epoch seconds. Must never know a header, a store or a clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from .errors import QuotaStoreError
from .frozen import EMPTY, frozen_value
from .limits import FARTHEST, MAX_AMOUNT

KEPT_S = 8 * 86400.0
"""Seconds a stated limit counts after it was said last: a provider that says it no longer may have raised it."""
RENEWED_S = 86400.0
"""Seconds after which the same statement is noted anew; not at every answer, as each note is a write."""
FIRM_S = 3600.0
"""Seconds before a higher statement replaces a lower one: models of one account may state different limits in turn."""
MAX_SOURCE = 200


@frozen_value
class Observation:
    """What was seen of the bucket `key`; what is None was not.

    `limit`: its amount as the provider states it. `remaining`: what is left by the provider's count; only less than is left here
    counts. `resets_at`: epoch seconds when that is refilled. `ceiling`: what had passed when the provider refused without
    figures; from then on it grows by `step` every `every` seconds, and for `grace_s` seconds, after which what is used now has
    passed, up to `grace` is admitted: the provider says itself when to come back. `source`: the header or answer that showed it.
    """

    key: str
    limit: float | None = None
    remaining: float | None = None
    source: str = ""
    resets_at: float | None = None
    ceiling: float | None = None
    step: float = 0.0
    every: float = 0.0
    grace: float = 0.0
    grace_s: float = 0.0


@frozen_value
class Fact:
    """One thing that was learned of a bucket. `kind`: limit, ceiling or remaining; `at`: epoch seconds when it was seen last;
    the others as in `Observation`."""

    kind: str
    amount: float
    source: str
    at: float
    step: float = 0.0
    every: float = 0.0
    grace: float = 0.0
    grace_s: float = 0.0


@frozen_value
class Learned:
    """All that was learned of the bucket `key`. `configured`: the amount that was set."""

    key: str
    configured: float
    facts: tuple[Fact, ...]


Facts = Mapping[str, Fact]
"""By kind."""

NOTHING: Facts = EMPTY


def allowed(configured: float, facts: Facts, now: float) -> tuple[float, float]:
    """What the bucket admits as of `now`, and until when that is so (infinite if for ever)."""
    amount, until = configured, math.inf
    stated, ceiling = facts.get("limit"), facts.get("ceiling")
    if stated is not None and stated.amount < amount and now < stated.at + KEPT_S:
        amount, until = stated.amount, stated.at + KEPT_S
    if ceiling is not None:
        steps = max(math.floor((now - ceiling.at) / ceiling.every), 0)
        grown, changes = ceiling.amount + steps * ceiling.step, ceiling.at + (steps + 1) * ceiling.every
        if grown < ceiling.grace and now < ceiling.at + ceiling.grace_s:
            grown, changes = ceiling.grace, min(changes, ceiling.at + ceiling.grace_s)
        if grown < amount or changes < until:
            amount, until = min(grown, amount), min(until, changes)
    return amount, until


def with_statement(facts: Facts, seen: Observation, now: float) -> Facts:
    """`facts` with the limit or the ceiling of `seen`; the same object if nothing new was said."""
    known = facts.get("limit")
    if seen.limit is not None and _is_news(known, seen.limit, now):
        facts = {**facts, "limit": Fact("limit", seen.limit, seen.source[:MAX_SOURCE], now)}
    if seen.ceiling is not None:
        growth = (seen.step, seen.every, seen.grace, seen.grace_s)
        facts = {**facts, "ceiling": Fact("ceiling", seen.ceiling, seen.source[:MAX_SOURCE], now, *growth)}
    return facts


def check_observation(seen: Observation) -> None:
    """Raise QuotaStoreError for figures that cannot be."""
    for amount in (seen.limit, seen.remaining, seen.ceiling, seen.step, seen.grace, seen.grace_s):
        if amount is not None and not (type(amount) in (int, float) and 0 <= amount <= MAX_AMOUNT):
            raise QuotaStoreError(f"{amount!r} is not an amount that can have been observed; give a number of 0 or more")
    if seen.ceiling is not None and not (seen.step > 0 and 1 <= seen.every <= FARTHEST):
        raise QuotaStoreError("a ceiling needs a step above 0 and at least a second between steps, or it would stay for ever")


def packed(facts: Facts) -> str:
    """The facts as text, "" for none."""
    rows = [[getattr(each, name) for name in _FIELDS] for each in facts.values()]
    return json.dumps(rows) if rows else ""


def unpacked(text: str) -> Facts:
    """The facts that `packed` gave. Raises ValueError or TypeError for anything else."""
    if not text:
        return NOTHING
    found = [
        Fact(str(kind), _number(amount), str(source), *[_number(each) for each in numbers])
        for kind, amount, source, *numbers in json.loads(text)
    ]
    return {fact.kind: fact for fact in found}


_FIELDS = ("kind", "amount", "source", "at", "step", "every", "grace", "grace_s")


def _is_news(known: Fact | None, limit: float, now: float) -> bool:
    if known is None or limit < known.amount:
        return True
    if limit == known.amount:
        return now >= known.at + RENEWED_S
    return now >= known.at + FIRM_S


def _number(value: object) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)  # type: ignore[arg-type]  # a number, as was just asked
