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
from .frozen import replace
from .limits import FARTHEST, MAX_AMOUNT, Limit, check_time
from .quota import LONGEST_HOLD, PLACE_WAIT_S, Bucket, Headroom, Hold, Refusal, Reservation, Wants
from .quota_learned import MAX_SOURCE, NOTHING, Fact, Facts, Learned, Observation, allowed, check_observation, with_statement
from .quota_windows import WindowCounter, counter_of


class BucketState:
    """A bucket as the bookkeeping sees it: its limit and the count of it. `pinned`: the amount was set by `set_quota`.

    `limit`: what is admitted, by `learned` less than the counter's own limit, which is the configured one; it holds until
    `firm_until`. `shown`: its headroom, which holds for `shown_from <= now < shown_until` as long as nothing is charged or
    corrected.
    """

    __slots__ = ("ceiling", "counter", "firm_until", "key", "learned", "limit", "pinned", "shown", "shown_from", "shown_until")

    def __init__(self, key: str, counter: WindowCounter, pinned: bool = False, learned: Facts = NOTHING) -> None:
        self.key = key
        self.pinned = pinned
        self.limit = counter.limit
        self.ceiling = counter.limit.ceiling
        self.counter = counter
        self.learned = learned
        self.firm_until = -math.inf if learned else math.inf
        self.shown = Headroom(key, self.limit, 0.0, self.limit.amount, 1.0, None)
        self.shown_from = math.inf
        self.shown_until = -math.inf

    def copied(self) -> BucketState:
        """The same by itself: what is charged to one is not charged to the other."""
        other = BucketState.__new__(BucketState)
        other.key, other.pinned, other.limit, other.ceiling = self.key, self.pinned, self.limit, self.ceiling
        other.counter, other.learned, other.firm_until = self.counter.copied(), self.learned, self.firm_until
        other.shown, other.shown_from, other.shown_until = self.shown, self.shown_from, self.shown_until
        return other

    def changed(self) -> None:
        """Forget the headroom: what is counted has changed."""
        self.shown_until = -math.inf

    def limit_at(self, now: float) -> None:
        """Work out anew what is admitted, by what was learned."""
        amount, until = allowed(self.counter.limit.amount, self.learned, now)
        if amount != self.limit.amount:
            self.limit = replace(self.counter.limit, amount=amount)
            self.ceiling = self.limit.ceiling
            self.changed()
        self.firm_until = until  # last: an interrupt before it lets the next look begin anew

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
            raise _unknown(key)
        if amount.__class__ not in _NUMBERS or not 0 <= amount <= MAX_AMOUNT:
            raise _nonsense(amount)
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
        state.shown_until = -math.inf
        counter.used += amount
        window_ids.append(counter.window_id)
        limits.append(counter.limit)
    return Reservation(ident, tuple(wants), window_ids, limits)


def admit_plainly(
    states: Mapping[str, BucketState], wants: Wants, now: float, ident: int
) -> tuple[Reservation, dict[str, BucketState]] | None:
    """What `admit` does on copies, which it returns with the reservation, where every count stands at `now` already and has room,
    as nearly always; None elsewhere, and for what is wrong: then `admit` says what."""
    made: dict[str, BucketState] = {}
    window_ids, limits = [], []
    for key, amount in wants:
        state = states.get(key)
        if state is None or amount.__class__ not in _NUMBERS or not 0 <= amount <= MAX_AMOUNT:
            return None
        counter = state.counter
        used = counter.used + amount
        if used > state.ceiling or not counter.begin <= now < counter.end or now >= state.firm_until:
            return None
        made[key] = charged = state.copied()
        charged.counter.used = used
        charged.shown_until = -math.inf
        window_ids.append(counter.window_id)
        limits.append(counter.limit)
    return (Reservation(ident, tuple(wants), window_ids, limits), made) if len(made) == len(wants) else None


def settle(states: Mapping[str, BucketState], reservation: Reservation, amounts: Sequence[float]) -> list[BucketState]:
    """Corrects what `reservation` charged to `amounts`, one per want, in the windows it names; returns what changed."""
    wants = reservation.wants
    if len(amounts) != len(wants):
        raise _permanent(f"{len(wants)} amounts were reserved and {len(amounts)} are settled; give one for each")
    for amount in amounts:
        if amount.__class__ not in _NUMBERS or not 0 <= amount <= MAX_AMOUNT:
            raise _nonsense(amount)
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
    to_note: list[str] = []
    try:
        chosen = list(map(states.__getitem__, keys))  # in one step, as other threads may go on replacing them
        found = [
            state.shown if state.shown_from <= now < state.shown_until else _headroom(state, now, to_note) for state in chosen
        ]
    except KeyError as exc:
        raise _unknown(exc.args[0]) from None
    return found, bool(to_note)


def observe(states: Mapping[str, BucketState], observations: Sequence[Observation], now: float) -> list[bool]:
    """Takes in what providers said or showed, all or, where one is nonsense, nothing. Says of each whether it changed anything.

    What remains can only lower what is left: the difference is charged, to where it frees when the provider refills it. A stated
    limit or a ceiling below the configured amount takes its place; above it, it is only kept to be shown.
    """
    check_time(now)
    for seen in observations:
        if seen.key not in states:
            raise _unknown(seen.key)
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


def _headroom(state: BucketState, now: float, to_note: list[str]) -> Headroom:
    if now >= state.firm_until:
        state.limit_at(now)
    counter, limit = state.counter, state.limit
    if not counter.begin <= now < counter.end:
        if counter.since_at(check_time(now)) != counter.since:
            to_note.append(state.key)
        counter = counter.as_of(now)
    used, amount = counter.used, limit.amount
    remaining = amount - used if amount > used else 0.0
    share = remaining / amount if remaining else 0.0
    # As `Headroom(...)` does it, in two thirds of the time: every look at every bucket makes one.
    state.shown = shown = _made(Headroom, (state.key, limit, used, remaining, share, counter.frees_at(0.0)))
    state.shown_from = counter.begin
    state.shown_until = counter.end if counter.end < state.firm_until else state.firm_until
    if used <= 0 and counter.idle():  # it looks the same until something is charged
        state.shown_until = min(FARTHEST, state.firm_until)
        if state.counter.window_id is None:
            state.shown_from = -FARTHEST
    return shown


def note(states: Mapping[str, BucketState], keys: Iterable[str], now: float) -> list[BucketState]:
    """Keeps since when merged blocks count against each entry, now that `now` was read; charges and frees nothing. Returns what
    changed, for the store to keep, so that short runs of many processes see a whole window pass together."""
    changed = []
    for key in keys:
        state = states[key]
        since = state.counter.since_at(now)
        if since != state.counter.since:
            state.counter.since = since
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


_NUMBERS = frozenset((int, float))
_made = tuple.__new__


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


def _unknown(key: str) -> QuotaStoreError:
    return _permanent(f"the quota store knows no bucket {key!r}; define it first")


def _nonsense(amount: object) -> QuotaStoreError:
    return _permanent(f"{amount!r} is not an amount that can be counted; give a finite number of 0 or more")


def _permanent(text: str) -> QuotaStoreError:
    error = QuotaStoreError(text)
    error.permanent = True
    return error
