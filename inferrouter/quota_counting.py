"""Counts what is used of many limits at once: the bookkeeping that every quota store shares.

Strategy: arithmetic on plain objects, time passed in as epoch seconds. A reservation charges all its buckets or none, and is
settled in the slots and windows that it names. How one limit counts is `quota_windows`'s. A refused reservation changes nothing.
Must never know of accounts, locks, files or clocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from .costs import COUNTED, UNITS
from .errors import ConfigError, QuotaStoreError
from .frozen import new_tuple, replace
from .limits import FARTHEST, MAX_AMOUNT, Limit, check_time
from .quota import LONGEST_HOLD, PLACE_WAIT_S, Bucket, Headroom, Hold, Refusal, Reservation, Wants
from .quota_learned import MAX_SOURCE, NOTHING, Fact, Facts, Learned, Observation, allowed, check_observation, with_statement
from .quota_windows import WindowCounter, counter_of

NUMBERS = frozenset((int, float))
"""What an amount may be: a flag is not one, though Python counts with it."""


Shown = tuple[Headroom, float, float, float | None]
"""A bucket's headroom, which holds for `since <= now < until` (epoch seconds) as long as the number in use is `of`, that very
object: in this order, in a plain tuple, as every call makes and takes apart a few."""


class BucketState:
    """A bucket as the bookkeeping sees it: its limit and the count of it. `pinned`: the amount was set by `set_quota`.

    `limit`: what is admitted, by `learned` less than the counter's own limit, which is the configured one; it holds until
    `firm_until`. `shown`: its headroom as it was seen last.
    """

    __slots__ = ("ceiling", "counter", "firm_until", "key", "learned", "limit", "pinned", "shown")

    def __init__(self, key: str, counter: WindowCounter, pinned: bool = False, learned: Facts = NOTHING) -> None:
        self.key = key
        self.pinned = pinned
        self.limit = counter.limit
        self.ceiling = counter.limit.ceiling
        self.counter = counter
        self.learned = learned
        self.firm_until = -math.inf if learned else math.inf
        self.shown = _NEVER

    def copied(self, used: float) -> BucketState:
        """The same by itself, with `used` in use: what is charged to one is not charged to the other."""
        other = BucketState.__new__(BucketState)
        other.key, other.pinned, other.limit, other.ceiling = self.key, self.pinned, self.limit, self.ceiling
        other.counter, other.learned, other.firm_until = self.counter.copied(), self.learned, self.firm_until
        other.counter.used = used
        other.shown = self.shown
        return other

    def changed(self) -> None:
        """Forget the headroom: what is counted has changed."""
        self.shown = _NEVER

    def limit_at(self, now: float) -> bool:
        """Work out anew what is admitted, by what was learned; whether that is another amount."""
        amount, until = allowed(self.counter.limit.amount, self.learned, now)
        other = amount != self.limit.amount
        if other:
            self.limit = replace(self.counter.limit, amount=amount)
            self.ceiling = self.limit.ceiling
            self.changed()
        self.firm_until = until  # last: an interrupt before it lets the next look begin anew
        return other

    def learn(self, facts: Facts, now: float) -> None:
        """Take `facts` in the place of what was learned before."""
        self.learned = facts
        self.limit_at(now)


def admit(states: Mapping[str, BucketState], wants: Wants, now: float, ident: int) -> Reservation | Refusal:
    """Charges every want to its entry and returns the reservation `ident`, or changes nothing and returns the refusal."""
    taken: dict[str, tuple[BucketState, WindowCounter, float]] = {}
    refused = []
    for key, amount in wants:
        state = states.get(key)
        if state is None:
            raise unknown_bucket(key)
        if amount.__class__ not in NUMBERS or not 0 <= amount <= MAX_AMOUNT:
            raise nonsense(amount)
        counter = state.counter
        if not counter.begin <= now < counter.end:
            counter = counter.as_of(now)
        if now >= state.firm_until:
            state.limit_at(now)
        if counter.used + amount > state.ceiling:
            refused.append(_refusal(state, counter, amount, now))
        taken[key] = state, counter, amount
    if len(taken) != len(wants):
        return _admit_sums(states, wants, now, ident)
    if refused:
        return max(refused, key=_frees)
    window_ids, limits = [], []
    for state, counter, amount in taken.values():
        state.counter = counter
        counter.used += amount
        window_ids.append(counter.window_id)
        limits.append(counter.limit)
    return Reservation(ident, tuple(wants), window_ids, limits)


def settle(states: Mapping[str, BucketState], reservation: Reservation, amounts: Sequence[float]) -> list[BucketState]:
    """Corrects what `reservation` charged to `amounts`, one per want, in the windows it names; returns what changed."""
    wants = reservation.wants
    if len(amounts) != len(wants):
        raise _permanent(f"{len(wants)} amounts were reserved and {len(amounts)} are settled; give one for each")
    for amount in amounts:
        if amount.__class__ not in NUMBERS or not 0 <= amount <= MAX_AMOUNT:
            raise nonsense(amount)
    changed = []
    for place, ((key, reserved), amount) in enumerate(zip(wants, amounts)):  # noqa: B905 - hot, lengths are checked
        if amount != reserved and key in states:
            state = states[key]
            counter = state.counter
            limit = reservation.limits[place] if reservation.limits else counter.limit
            if limit is counter.limit or _same_windows(limit, counter.limit):
                counter.correct(reservation.window_ids[place], amount - reserved)
            elif limit.unit == counter.limit.unit:  # all that was used went into the window that ran at the change
                counter.correct(counter.window_id, amount - reserved)
            else:  # what was charged in another unit is not counted here any more
                continue
            state.changed()
            changed.append(state)
    return changed


def headrooms_of(states: Mapping[str, BucketState], keys: Sequence[str], now: float) -> tuple[list[Headroom], bool]:
    """How full the buckets `keys` are as of `now`, and whether one of them has to `note` that reading.

    A bucket gives the same `Headroom` object until it is charged, corrected or its window ends, so that whoever keeps what he
    made of it sees by identity what has changed.
    """
    try:
        chosen = [states[key] for key in keys]
    except KeyError as exc:
        raise unknown_bucket(exc.args[0]) from None
    shown, to_note = shown_with([(state, state.counter.used) for state in chosen], now)
    return [each[0] for each in shown], to_note


def shown_with(counts: Iterable[tuple[BucketState, float]], now: float) -> tuple[list[Shown], bool]:
    """The same, with how long it holds, for states that each come with what is used of them, whatever their counters say."""
    to_note: list[str] = []
    found = []
    for state, used in counts:
        shown = last, since, until, of = state.shown
        if of is not used or not since <= now < until:
            counter = state.counter
            count, since, resets_at = used, counter.begin, counter.steady
            # What is charged to one place passes when what was there before does: then nothing but the number in use has changed.
            same = used > 0 and resets_at is not None and resets_at is last[5] and since <= now < counter.end and now < until
            if not same:
                count, since, until, resets_at = _looked_up(state, used, now, to_note)
            limit = state.limit
            amount = limit.amount
            left, share = amount - count, 0.0
            if left > 0:
                share = left / amount
            else:
                left = 0.0
            headroom = new_tuple(Headroom, (state.key, limit, count, left, share, resets_at))
            shown = headroom, since, until, used
            if not to_note or to_note[-1] is not state.key:  # else the next look would not find it due any more
                state.shown = shown
        found.append(shown)
    return found, bool(to_note)


def observe(states: Mapping[str, BucketState], observations: Sequence[Observation], now: float) -> list[bool]:
    """Takes in what providers said or showed, all or, where one is nonsense, nothing. Says of each whether it changed anything.

    What remains can only lower what is left: the difference is charged, to where it frees when the provider refills it. A stated
    limit or a ceiling below the configured amount takes its place; above it, it is only kept to be shown.
    """
    check_time(now)
    for seen in observations:
        if seen.key not in states:
            raise unknown_bucket(seen.key)
        check_observation(seen)
    return [_observe(states[seen.key], seen, now) for seen in observations]


def _observe(state: BucketState, seen: Observation, now: float) -> bool:
    facts = with_statement(state.learned, seen, now)
    news = facts is not state.learned
    if news:
        state.learn(facts, now)
    if seen.remaining is None:
        return news
    if now >= state.firm_until:
        state.limit_at(now)
    counter = state.counter.as_of(now)
    missing = max(state.limit.amount - counter.used, 0.0) - seen.remaining
    if missing <= 0:
        return news
    state.counter = counter
    counter.correct(counter.place_of(now, seen.resets_at), missing)
    state.learned = {**state.learned, "remaining": Fact("remaining", seen.remaining, seen.source[:MAX_SOURCE], now)}
    state.changed()
    return True


def learned_of(states: Iterable[BucketState]) -> dict[str, Learned]:
    """What was learned, of each of `states` of which anything was."""
    known = [(state.key, state.counter.limit.amount, tuple(state.learned.values())) for state in states if state.learned]
    return {key: Learned(key, configured, facts) for key, configured, facts in known}


def _looked_up(state: BucketState, used: float, now: float, to_note: list[str]) -> tuple[float, float, float, float | None]:
    """Of a state with `used` in use: what counts at `now`, from and until when it does, and when some of it passes."""
    firm_until = state.firm_until
    if now >= firm_until and state.limit_at(now) and firm_until > -math.inf:
        to_note.append(state.key)
    counter, count = state.counter, used
    since, until = counter.begin, counter.end
    if not since <= now < until:
        if counter.used != used:
            counter = counter.copied()
            counter.used = used
        if counter.since_at(check_time(now)) != counter.since:
            to_note.append(state.key)
        counter = counter.as_of(now)
        since, until, count = counter.begin, counter.end, counter.used
    resets_at = (counter.steady or counter.resets_at(count)) if count > 0 else None
    if resets_at is not None:
        until = counter.same_until(resets_at)
    elif counter.idle():  # it looks the same until something is charged
        until = FARTHEST
        if state.counter.window_id is None:
            since = -FARTHEST
    if until > state.firm_until:
        until = state.firm_until
    return count, since, until, resets_at


def note(states: Mapping[str, BucketState], keys: Iterable[str], now: float) -> list[BucketState]:
    """Keeps since when merged blocks count against each entry, now that `now` was read; charges and frees nothing. Returns what
    changed, for the store to keep, so that short runs of many processes see a whole window pass together."""
    changed = []
    for key in keys:
        state = states[key]
        since = state.counter.since_at(now)
        if since != state.counter.since:
            state.counter.since, state.counter.steady = since, None
            state.changed()
            changed.append(state)
    return changed


def redefined(known: BucketState | None, bucket: Bucket, now: float) -> BucketState:
    """The entry of `bucket` with what `known` has counted, as of `now`; an amount that was pinned stays."""
    limit = bucket.limit
    if known is not None and known.pinned:
        limit = replace(limit, amount=known.counter.limit.amount, unit=known.counter.limit.unit)
    return _relimited(known, BucketState(bucket.key, counter_of(limit), known is not None and known.pinned), now)


def with_quota(known: BucketState | None, key: str, amount: float, unit: str) -> BucketState:
    """The entry `key` with an amount and a unit that are pinned, in the window it had: by default a day in UTC."""
    if unit in UNITS and UNITS[unit].held:
        raise ConfigError(f"unit: an allowance of a day is not counted in {unit!r}; use one of {', '.join(COUNTED)}")
    limit = replace(known.counter.limit, amount=amount, unit=unit) if known else Limit(amount, unit, "day")
    return _relimited(known, BucketState(key, counter_of(limit), pinned=True), None)


def merged_hold(old: tuple[Hold, float] | None, new: Hold, now: float) -> tuple[Hold, float] | None:
    """Which of two holds stays, with the time it was made at; None if the new one releases."""
    if not isinstance(new.until, (int, float)) or not abs(new.until) <= math.inf:
        raise QuotaStoreError(f"{new.until!r} is not a time to hold {new.key!r} until; give epoch seconds")
    check_time(now)
    if new.until <= now:
        return None
    new = replace(new, until=min(new.until, now + LONGEST_HOLD))
    kept = live_hold(*old, now) if old else None
    return kept if kept and kept[0].until >= new.until else (new, now)


def live_hold(hold: Hold, made: float, now: float) -> tuple[Hold, float] | None:
    """A hold made at `made` as of `now`: None once it is over, moved along where the clock stepped back before it."""
    if now < made:
        hold, made = replace(hold, until=hold.until - (made - now)), now
    return (hold, made) if hold.until > now else None


_NEVER: Shown = (Headroom("", Limit(0.0, "requests", "day"), 0.0, 0.0, 0.0, None), math.inf, -math.inf, None)


def _relimited(known: BucketState | None, state: BucketState, now: float | None) -> BucketState:
    """`state` with what `known` has counted; over a change of the window as of `now`, not over a change of the unit."""
    limit = state.limit
    if known is None or known.counter.limit.unit != limit.unit:
        return state
    if known.counter.limit == limit and known.pinned == state.pinned:
        return known
    if _same_windows(known.counter.limit, limit):
        return BucketState(state.key, known.counter.relimited(limit), state.pinned, known.learned)
    if now is not None:
        state.counter = state.counter.as_of(now)
        state.counter.used += known.counter.as_of(now).used
    return state


def _same_windows(one: Limit, other: Limit) -> bool:
    """Whether two limits differ in their amount only, so that what one counted the other goes on counting."""
    return (one.unit, one.window, one.rolling, one.zone) == (other.unit, other.window, other.rolling, other.zone)


def _admit_sums(states: Mapping[str, BucketState], wants: Wants, now: float, ident: int) -> Reservation | Refusal:
    """`admit` where a key comes more than once: its amounts count together."""
    sums: dict[str, float] = {}
    for key, amount in wants:
        sums[key] = sums.get(key, 0) + amount
    taken = admit(states, tuple(sums.items()), now, ident)
    if isinstance(taken, Refusal):
        return taken
    charged = dict(zip(sums, zip(taken.window_ids, taken.limits, strict=True), strict=True))
    window_ids, limits = zip(*[charged[key] for key, _ in wants], strict=True)
    return Reservation(ident, tuple(wants), window_ids, limits)


def _refusal(state: BucketState, counter: WindowCounter, amount: float, now: float) -> Refusal:
    remaining = max(0.0, state.limit.amount - counter.used)
    retry_at = None if amount > state.ceiling else counter.frees_at(counter.used + amount - state.ceiling)
    if retry_at is not None and UNITS[state.limit.unit].held:
        retry_at = min(retry_at, now + PLACE_WAIT_S)
    return Refusal(state.key, state.limit, amount, remaining, retry_at)


def _frees(refusal: Refusal) -> float:
    return math.inf if refusal.retry_at is None else refusal.retry_at


def unknown_bucket(key: str) -> QuotaStoreError:
    """What is raised for a key that nobody defined."""
    return _permanent(f"the quota store knows no bucket {key!r}; define it first")


def nonsense(amount: object) -> QuotaStoreError:
    """What is raised for what is not an amount."""
    return _permanent(f"{amount!r} is not an amount that can be counted; give a finite number of 0 or more")


def _permanent(text: str) -> QuotaStoreError:
    error = QuotaStoreError(text)
    error.permanent = True
    return error
