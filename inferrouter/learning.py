"""Learns the limits as they really are, from what providers say in their answers and from where they refuse.

Strategy: figures of an answer are matched to the deployment's bucket of the same unit and window; only what would lower its
headroom reaches the ledger, so that nearly every answer costs no write. A refusal that no figure explains makes a ceiling of what
had passed in the window: one that is likely is probed rarely, one that is far below the limit is probed soon, as it may have been
a passing thing. Errors here are never a call's. Must never know a wire format, nor hold or retry.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from .assessment import Candidate, Instant
from .errors import InferRouterError, ProviderError, QuotaExceededError
from .frozen import replace
from .guarded_store import GuardedStore
from .health import Health
from .limit_headers import HEARD
from .limits import window_bounds
from .moments import DAY, HOUR
from .quota import Bucket
from .quota_learned import RENEWED_S, Observation

if TYPE_CHECKING:
    from .rate_headers import Reading

ENOUGH_LEFT = 0.5
"""While more than this share of a limit remains, what others use of it endangers nothing, and the next answers will tell."""
CALLS_PER_PROBE = 200
"""A likely ceiling is probed about once in this many calls; where it is right, a probe costs a refusal."""
CALLS_PER_LOOK = 100
"""The same where others use a limit too: how much they do varies, and the answers tell of it in time."""
LIKELY_SHARE = 0.25
"""A first refusal below this share of the limit is more likely a passing thing."""
PROBE_STEP = 0.02
"""What a ceiling grows by at a probe, as a share of it, at least one call."""
SAME_S = 2.0
"""Seconds by which the ends of one window may differ, as answers come late and figures are rounded."""
NOT_A_WINDOW = ("concurren", "upstream", "shared_capacity", "overloaded")
"""Words of refusals that no count of calls in a window explains."""


class Learner:
    """What one router learns. Thread-safe: each step is one operation, and a lost one costs a refusal."""

    def __init__(self, ledger: GuardedStore, health: Health) -> None:
        self._ledger = ledger
        self._health = health
        self._stated: dict[str, tuple[float, float]] = {}
        self._refused: dict[str, deque[float]] = {}
        self._ceilings: dict[str, tuple[Instant, Observation]] = {}
        # By bucket: the end of the provider's window, what others used of it, and what of that is charged here.
        self._others: dict[str, tuple[float, float, float]] = {}
        self._reads: Callable[[Mapping[str, str], float, str], Sequence[Reading]] | None = None

    def answered(
        self, found: Candidate, wants: Sequence[tuple[str, float]], headers: Mapping[str, str], started: float, now: Instant
    ) -> list[Observation]:
        """What the headers of an answer taught. `started`: when it was asked for, monotonic seconds. Never raises."""
        readings = (self._reads or self._loaded())(headers, now.wall, found.provider)
        seen = list(self._passed_after_all(wants, started)) if self._ceilings else []
        began = now.wall - (now.mono - started)
        try:
            for reading in readings:
                bucket = _bucket_of(found, reading)
                # An answer under a limit of 0 says that there is none.
                if bucket is not None and reading.limit != 0 and not _is_the_models(found, bucket, reading):
                    seen += self._worth_noting(bucket, reading, began, now.wall)
        except InferRouterError:  # of the store: the next reservation will say so
            return []
        return self._noted(seen, now.wall)

    def _loaded(self) -> Callable[[Mapping[str, str], float, str], Sequence[Reading]]:
        """What reads headers, loaded by the first answer that says anything."""
        from .rate_headers import read_headers

        self._reads = read_headers
        return read_headers

    def hears(self, headers: Any) -> TypeGuard[Mapping[str, str]]:
        """Whether an answer with these headers may teach anything: from most there is nothing to learn."""
        if headers.__class__ is not dict and not isinstance(headers, Mapping):
            return False
        names = "".join(headers)  # a word that two names make together costs one reading
        for word in HEARD:
            if word in names:
                return True
        return bool(self._ceilings)

    def refused(
        self,
        found: Candidate,
        wants: Sequence[tuple[str, float]],
        error: ProviderError,
        said: tuple[Mapping[str, str], bytes],
        now: Instant,
    ) -> list[Observation]:
        """What a refusal because of a limit taught, after its attempt has been settled. Never raises."""
        from .rate_headers import read_refusal

        headers, body = said
        if not error.retryable and b"TP" not in body and b"RP" not in body:
            return []
        try:
            seen = list(self._of_refusal(found, dict(wants), error, read_refusal(headers, body, now.wall, found.provider), now))
        except InferRouterError:  # of the store: the next reservation will say so
            return []
        return self._noted(seen, now.wall)

    def _of_refusal(
        self, found: Candidate, needed: Mapping[str, float], error: ProviderError, readings: Iterable[Reading], now: Instant
    ) -> Iterable[Observation]:
        explained = not error.retryable
        for reading in readings:
            bucket = _bucket_of(found, reading)
            if bucket is None or reading.model not in ("", found.model):
                continue
            if _is_the_models(found, bucket, reading):
                explained |= reading.remaining == 0
                continue
            wait = reading.resets_in if reading.resets_in else error.retry_after
            limit = reading.limit if reading.limit else None
            if reading.remaining == 0 and limit is not None:
                most = min(bucket.limit.amount, limit)
                missing = self._missing(bucket, most, -1.0, now.wall)
                yield from self._room_for_others(bucket, most, missing, reading.resets_in, now.wall)
            yield Observation(bucket.key, limit, reading.remaining, reading.source, now.wall + wait if wait else None)
            explained |= reading.remaining is not None and reading.remaining < max(needed.get(bucket.key, 1.0), 1.0)
        if not explained and not any(word in f"{error.message} {error.body}".lower() for word in NOT_A_WINDOW):
            yield from self._ceiling(found, needed, error, now)

    def _worth_noting(self, bucket: Bucket, reading: Reading, began: float, now: float) -> Sequence[Observation]:
        limit, remaining = reading.limit, reading.remaining
        amount, at = self._stated.get(bucket.key, (None, -math.inf))
        if limit is not None and (limit != amount or now - at >= RENEWED_S):
            self._stated[bucket.key] = limit, now
        else:
            limit = None
        ceilings: Iterable[Observation] = ()
        if remaining is not None:
            most = min(bucket.limit.amount, reading.limit or math.inf)
            enough = remaining > ENOUGH_LEFT * most or _is_over(bucket, began, now)
            missing = 0.0 if enough else self._missing(bucket, most, remaining, now)
            if missing > 0:
                ceilings = self._room_for_others(bucket, most, missing, reading.resets_in, now)
            else:
                remaining = None
        if limit is None and remaining is None:  # as nearly always
            return ()
        resets_at = now + reading.resets_in if reading.resets_in else None
        return (*ceilings, Observation(bucket.key, limit, remaining, reading.source, resets_at))

    def _missing(self, bucket: Bucket, most: float, remaining: float, now: float) -> float:
        """How much less of `most` remains than by the count here: what others have used. A refused call has not passed: -1."""
        return most - self._ledger.headroom((bucket.key,), now)[0].used - remaining

    def _room_for_others(
        self, bucket: Bucket, most: float, missing: float, resets_in: float | None, now: float
    ) -> Iterable[Observation]:
        """A ceiling that leaves others, in the next windows, the requests they were seen to use in this one. Their own ones they
        would get only by luck, and each of ours that comes too late would be refused. Tokens are counted in too many ways."""
        span = bucket.limit.span_s
        if missing <= 0 or bucket.limit.unit != "requests" or not bucket.limit.rolling or span > HOUR:
            return
        counted = self._ledger.headroom((bucket.key,), now)[0].limit.amount
        ends = now + (resets_in or 0.0)  # of the provider's window, or this moment where it does not say
        last, most_seen, charged = self._others.get(bucket.key, (-math.inf, 0.0, 0.0))
        if abs(ends - last) >= (SAME_S if resets_in else span):
            most_seen = charged = 0.0
        most_seen = max(most_seen, charged + missing)
        self._others[bucket.key] = ends, most_seen, charged + max(missing - (most - counted), 0.0)
        ceiling = most - min(most_seen, most / 2)
        if ceiling < counted:
            growth = {"step": max(1.0, PROBE_STEP * ceiling), "every": span * max(1.0, math.ceil(CALLS_PER_LOOK / ceiling))}
            yield Observation(bucket.key, source="others use it", ceiling=ceiling, **growth, grace=most, grace_s=span)

    def _ceiling(
        self, found: Candidate, needed: Mapping[str, float], error: ProviderError, now: Instant
    ) -> Iterable[Observation]:
        """A ceiling for the window that was most likely meant: the shortest that the asked wait fits, and the fullest of those. A
        short wait says nothing of a day."""
        wait = DAY if isinstance(error, QuotaExceededError) else error.retry_after or 0.0
        shortest, longest = (min(wait, DAY), math.inf) if wait >= HOUR else (wait, HOUR)
        buckets = [
            bucket
            for bucket in found.deployment.limits.values()
            if bucket.key in needed
            and bucket.limit.unit not in ("dollars", "parallel")
            and not (error.scope == "model" and _is_shared(found, bucket))
            and shortest <= bucket.limit.span_s <= longest
        ]
        if not buckets:
            return
        span = min(bucket.limit.span_s for bucket in buckets)
        same = [bucket for bucket in buckets if bucket.limit.span_s == span]
        rooms = dict(zip(same, self._ledger.headroom([bucket.key for bucket in same], now.wall), strict=True))
        bucket = min(same, key=lambda each: rooms[each].share)
        room, own = rooms[bucket], max(needed[bucket.key], 1.0)
        passed = room.used - self._health.peek(found.account_id, now.mono)[2] * own
        if bucket.limit.unit == "requests":  # a refused one stays charged, but has not passed
            passed -= self._refusals(bucket.key, span, now.wall)
        if not own <= passed < room.limit.amount:  # where not one call passed, it was not the count of calls
            return
        before = self._ceilings.get(bucket.key)
        likely = (before is not None and now.mono - before[0].mono <= 10 * span) or passed >= LIKELY_SHARE * bucket.limit.amount
        if span >= DAY:
            step, every = max(own, bucket.limit.amount / 10), span
        elif likely:
            step, every = max(own, PROBE_STEP * passed), span * max(1.0, math.ceil(CALLS_PER_PROBE * own / passed))
        else:
            step, every = max(own, bucket.limit.amount / 8), span
        status = f"{error.status or type(error).__name__} after {bucket.limit.quantity(passed)}"
        growth = {"step": step, "every": every, "grace": room.used + own, "grace_s": span}
        made = Observation(bucket.key, source=status, ceiling=passed, **growth)
        self._ceilings[bucket.key] = now, made
        yield made

    def _refusals(self, key: str, span: float, now: float) -> int:
        """How many calls were refused in the window, this one included."""
        times = self._refused.setdefault(key, deque(maxlen=1000))
        times.append(now)
        return sum([at > now - span for at in list(times)])

    def _passed_after_all(self, wants: Sequence[tuple[str, float]], started: float) -> Iterable[Observation]:
        """A call that was under way when a ceiling was made has passed too."""
        for key, amount in wants:
            known = self._ceilings.get(key)
            if known is not None and started < known[0].mono:
                at, made = known
                more = replace(made, ceiling=(made.ceiling or 0.0) + amount, grace=made.grace + amount)
                self._ceilings[key] = at, more
                yield more

    def _noted(self, seen: Sequence[Observation], now: float) -> list[Observation]:
        if not seen:
            return []
        return [each for each, changed in zip(seen, self._ledger.observe(seen, now), strict=True) if changed]


def _is_shared(found: Candidate, bucket: Bucket) -> bool:
    """Whether several models count in `bucket` here."""
    deployment = found.deployment
    return len(deployment.siblings) > 1 and not bucket.key.startswith(f"{deployment.bound.scope}|{found.model}/")


def _is_the_models(found: Candidate, bucket: Bucket, reading: Reading) -> bool:
    """Whether a reading below what several models share is most likely about one of them alone: so most providers count."""
    return reading.limit is not None and reading.limit < bucket.limit.amount and _is_shared(found, bucket)


def _is_over(bucket: Bucket, began: float, now: float) -> bool:
    """Whether the calendar window of a call that began then has ended, so that what was left of it says nothing."""
    limit = bucket.limit
    return not limit.rolling and window_bounds(now, limit.window, limit.zone)[0] > began


def _bucket_of(found: Candidate, reading: Reading) -> Bucket | None:
    """The bucket that a reading is about; None where that is not plain."""
    limits = found.deployment.limits
    unit = "tokens" if reading.unit == "input_tokens" and reading.source.startswith("QuotaFailure") else reading.unit
    if not (reading.window and reading.sure):
        alike = [bucket for (kind, _), bucket in limits.items() if kind == unit and bucket.limit.amount == reading.limit]
        if len(alike) == 1:
            return alike[0]
    return limits.get((unit, reading.window))
