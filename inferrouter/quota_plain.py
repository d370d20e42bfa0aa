"""Charges and settles counts where they stand, which is what nearly every call asks for: one number is replaced by another.

Strategy: a count is the state of a bucket and beside it the number in use, which is what counts. Where that is all that changes,
no state is copied or changed; whatever else there is goes by `quota_counting`, on copies that have the number within. Time is
passed in as epoch seconds. Must never know of locks, threads or clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .limits import MAX_AMOUNT
from .quota import Reservation, Wants
from .quota_counting import BucketState

Count = tuple[BucketState, float]
"""A bucket's state, and how much of it is in use, whatever the state's own counter says."""

Counts = dict[str, Count]


def admit_plainly(counts: Mapping[str, Count], wants: Wants, now: float, ident: int) -> tuple[Reservation, Counts] | None:
    """What `quota_counting.admit` does, as the counts after it, where every count stands at `now` already and has room, as nearly
    always; None elsewhere, and for what is wrong: then `admit` says what."""
    made: Counts = {}
    window_ids, limits = [], []
    for key, amount in wants:
        count, kind = counts.get(key), type(amount)
        if count is None or (kind is not int and kind is not float) or not 0 <= amount <= MAX_AMOUNT:
            return None
        state, used = count
        counter = state.counter
        used += amount
        if used > state.ceiling or not counter.begin <= now < counter.end or now >= state.firm_until:
            return None
        made[key] = state, used
        window_ids.append(counter.window_id)
        limits.append(counter.limit)
    return (Reservation(ident, tuple(wants), window_ids, limits), made) if len(made) == len(wants) else None


def settle_plainly(counts: Mapping[str, Count], reservation: Reservation, amounts: Sequence[float]) -> Counts | None:
    """What `quota_counting.settle` does, as the counts after it, where all that changes was charged where charges still go; None
    elsewhere, and for what is wrong: then `settle` says what."""
    wants = reservation.wants
    if len(amounts) != len(wants) or not reservation.limits:
        return None
    made: Counts = {}
    for place, amount in enumerate(amounts):
        kind = type(amount)
        if (kind is not int and kind is not float) or not 0 <= amount <= MAX_AMOUNT:
            return None
        key, reserved = wants[place]
        if amount == reserved:
            continue
        count = made.get(key) or counts.get(key)
        if count is None:
            return None
        state, used = count
        counter = state.counter
        used += amount - reserved
        if used < counter.older or counter.window_id != reservation.window_ids[place]:
            return None
        if reservation.limits[place] is not counter.limit:
            return None
        made[key] = state, used
    return made


def states_of(counts: Mapping[str, Count], keys: Iterable[str]) -> dict[str, BucketState]:
    """Copies of the states of `keys`, as far as they are known, with what is in use counted in them."""
    known = {key: counts[key] for key in keys if key in counts}
    return {key: state.copied(used) for key, (state, used) in known.items()}


def counts_of(states: Mapping[str, BucketState]) -> Counts:
    """The counts of `states`, which are not changed any more."""
    return {key: (state, state.counter.used) for key, state in states.items()}
