"""Counts what is used of one limit, in a rolling window or in the calendar windows of its time zone.

Strategy: a count stands at one slot, or one calendar window, and is charged there in one addition; only a reading of another
one moves it, by the arithmetic of `quota_blocks`, into a new count. Packed, a count is as long as what it holds. Time is
passed in as epoch seconds. Must never know of accounts, stores, locks or clocks.
"""

from __future__ import annotations

import math
import struct
from array import array
from typing import Self

from .errors import QuotaStoreError
from .limits import Limit, check_time, window_bounds
from .quota_blocks import (
    SLOTS,
    Blocks,
    around,
    folded,
    merged,
    merged_around,
    merged_over_window,
    touched,
    used_around,
    with_charge,
    without,
)


class WindowCounter:
    """What is used of one limit as of one slot of a rolling window, or one calendar window. Plain and mutable: the hot path.

    `window_id`: the slot's number or the window's beginning, None before any; charges go there. `used`: all that counts as of it;
    `older`: what of that lies elsewhere. Within `begin <= now < end` (epoch seconds) nothing moves; what is charged now has
    passed at `expires_at`. `blocks`: what is charged far away. `since`: the first of the readings in a row in one merged block.
    `steady`: what `resets_at` says while anything is used, whatever is charged here, None: ask it.
    """

    __slots__ = ("begin", "blocks", "end", "expires_at", "limit", "older", "since", "steady", "used", "window_id")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.window_id: float | None = None
        self.used = self.older = 0.0
        self.begin = self.expires_at = math.inf
        self.end = -math.inf
        self.blocks: Blocks = ()
        self.since: float | None = None
        self.steady: float | None = None

    def as_of(self, now: float) -> WindowCounter:
        """The count as of `now`: itself if nothing moves, else a new one. Raises QuotaStoreError for an absurd time."""
        raise NotImplementedError

    def since_at(self, now: float) -> float | None:
        """What `since` is once `now` was read."""
        raise NotImplementedError

    def correct(self, window_id: float | None, delta: float) -> None:
        """Adds `delta` (negative gives back) to the slot or window named `window_id`, which never falls below 0."""
        raise NotImplementedError

    def place_of(self, now: float, refills_at: float | None) -> float | None:
        """The window or slot to charge for what frees at `refills_at` (None: unknown), as near as it can be named."""
        return self.window_id

    def frees_at(self, amount: float) -> float | None:
        """Epoch seconds when `amount` of what is used has passed; 0 asks for any of it, None means nothing is used."""
        raise NotImplementedError

    def resets_at(self, used: float) -> float | None:
        """`frees_at(0)` if `used` is in use: any difference to its own was charged or given back where charges go now."""
        raise NotImplementedError

    def same_until(self, resets_at: float) -> float:
        """Until when, from `begin` on, a reading shows the same, if what is used resets then and nothing is charged."""
        return self.end

    def idle(self) -> bool:
        """Whether nothing is used and nothing is charged ahead, so that nothing will be used until something is charged."""
        return self.used <= 0 and (not self.blocks or self.blocks[-1][1] <= self._near()[0])

    def pack(self) -> bytes:
        """The count as bytes, for `counter_unpacked`; empty before the first use."""
        raise NotImplementedError

    def relimited(self, limit: Limit) -> WindowCounter:
        """The same count under a limit that differs in its amount only."""
        other = self.copied()
        other.limit = limit
        return other

    def copied(self) -> Self:
        """The same count by itself: what is charged to one is not charged to the other."""
        other = object.__new__(type(self))
        other.limit, other.window_id, other.begin, other.end = self.limit, self.window_id, self.begin, self.end
        other.used, other.older, other.expires_at = self.used, self.older, self.expires_at
        other.blocks, other.since, other.steady = self.blocks, self.since, self.steady
        return other

    def _charge_here(self, delta: float) -> float:
        """Adds `delta` where charges go now; returns what could not be given back from there."""
        used = self.used + delta
        self.used = used if used > self.older else self.older
        return used - self.used

    def _near(self) -> tuple[float, float]:
        """Where blocks count, in their measure: beginning and end."""
        raise NotImplementedError


class _Calendar(WindowCounter):
    """The running window by itself, every other one as a block."""

    __slots__ = ()

    def as_of(self, now: float) -> WindowCounter:
        if self.begin <= now < self.end:
            return self
        begin, end = window_bounds(now, self.limit.window, self.limit.zone)
        blocks = self.blocks
        if self.used > self.older:
            blocks = with_charge(blocks, self.begin, self.end, self.used - self.older, self.begin, self.end)
        since = self._since(blocks, begin, end, now)
        if since is not None and now >= since + end - begin:
            blocks, since = without(blocks, merged_over_window(blocks, begin, end)), None
        own = sum([charge for first, last, charge in blocks if (first, last) == (begin, end)], 0.0)
        others = merged(tuple([block for block in blocks if block[:2] != (begin, end)]), begin, end)
        return _calendar(self.limit, begin, end, own, others, since)

    def since_at(self, now: float) -> float | None:
        return self._since(self.blocks, *window_bounds(now, self.limit.window, self.limit.zone), now)

    def correct(self, window_id: float | None, delta: float) -> None:
        if window_id == self.window_id and self.used + delta >= self.older:
            self.used += delta
            return
        if window_id == self.window_id or window_id is None:
            delta = self._charge_here(delta)
            if not delta or window_id is None:
                return
        begin, end = window_bounds(window_id, self.limit.window, self.limit.zone)
        own = self.used - self.older
        self.blocks = merged(with_charge(self.blocks, begin, end, delta, begin, end), self.begin, self.end)
        self.older = touched(self.blocks, self.begin, self.end)
        self.used = self.older + own

    def frees_at(self, amount: float) -> float | None:
        return self.resets_at(self.used)

    def resets_at(self, used: float) -> float | None:
        if used <= 0:
            return None
        if self.since is not None:
            return max(self.end, self.since + self.end - self.begin)
        self.steady = self.end
        return self.end

    def pack(self) -> bytes:
        if self.window_id is None:
            return b""
        head = _CALENDAR.pack(self.begin, self.end, self.used - self.older, _or_nan(self.since))
        return head + _packed_blocks(self.blocks)

    def _near(self) -> tuple[float, float]:
        return self.begin, self.end

    def _since(self, blocks: Blocks, begin: float, end: float, now: float) -> float | None:
        over, since = merged_over_window(blocks, begin, end), self.since
        if not over:
            return None
        same = since is not None and since <= now and any(first <= since < last for first, last, _ in over)
        return since if same else now


class _Rolling(WindowCounter):
    """Slots named by their number since the epoch; `slots` holds those of the blocks around, but the running one.

    `plain`: nothing lies ahead and no block is touched, as in every clock that only goes forward. `width`: seconds of a slot.
    `first`: when the oldest slot that counts passes; `packed`: `slots` and `blocks` as bytes; both None until they are asked for.
    """

    __slots__ = ("first", "packed", "plain", "slots", "width")

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self.width = limit.span_s / SLOTS
        self.slots: dict[int, float] = {}
        self.plain = True
        self.first: float | None = None
        self.packed: bytes | None = None

    def as_of(self, now: float) -> WindowCounter:
        slot, here = math.floor(check_time(now) / self.width), self.window_id
        if slot == here:
            return self
        blocks, slots = self.blocks, self._all_slots()
        if here is not None and slot // SLOTS != here // SLOTS:
            slots, blocks = folded(slots, blocks, slot)
        elif here is not None and self.plain and here < slot and not (blocks and blocks[-1][1] > here - SLOTS):
            passed = sum([slots.get(each, 0.0) for each in range(int(here) - SLOTS, slot - SLOTS)])
            if self.used - passed > passed * 1e-9:  # else what is left may be no more than what binary sums are off
                return _standing(self.limit, slot, slots, blocks, self.used - passed, True)
        since = self._since(blocks, slot, now)
        if since is not None and now >= since + (SLOTS + 1) * self.width:
            blocks, since = without(blocks, merged_around(blocks, slot)), None
        return _rolling(self.limit, slot, slots, blocks, since)

    def since_at(self, now: float) -> float | None:
        if not self.blocks:
            return None
        return self._since(self.blocks, math.floor(check_time(now) / self.width), now)

    def correct(self, window_id: float | None, delta: float) -> None:
        if window_id == self.window_id and self.used + delta >= self.older:
            self.used += delta
            return
        if window_id is None or self.window_id is None:
            return
        slot, here = int(window_id), int(self.window_id)
        before = after = 0.0
        if slot == here:
            delta = self._charge_here(delta)
        else:
            before = self.slots.get(slot, 0.0)
            if before > 0 or (delta > 0 and self._keeps(slot)):
                after = max(0.0, before + delta)
                self.slots = {**self.slots, slot: after}
                if not after:
                    del self.slots[slot]
                delta += before - after
                self.packed = self.first = self.steady = None
            if self.plain and here - SLOTS <= slot < here:
                self.older += after - before
                self.used += after - before
        if delta or not (self.plain and slot <= here):
            self._correct_far(slot, delta)

    def _correct_far(self, slot: int, delta: float) -> None:
        """Adds `delta` to the block that holds `slot`, and counts anew."""
        here, own = int(self.window_id or 0), self.used - self.older
        low = slot // SLOTS * SLOTS
        blocks = with_charge(self.blocks, slot, slot + 1, delta, low, low + SLOTS)
        anew = _rolling(self.limit, here, {**self.slots, here: own}, merged(blocks, *self._near()), self.since)
        for name in ("used", "older", "blocks", "plain", "first", "packed", "steady"):
            setattr(self, name, getattr(anew, name))

    def place_of(self, now: float, refills_at: float | None) -> float | None:
        if refills_at is None or self.window_id is None:
            return self.window_id
        width = self.width
        frees = math.ceil(min(max(refills_at, now), now + SLOTS * width) / width)  # a slot counts for `SLOTS` more
        return min(max(frees - SLOTS - 1, self.window_id - SLOTS + 1), self.window_id)

    def frees_at(self, amount: float) -> float | None:
        if self.used <= 0:
            return None
        if self.since is not None:
            return self.since + (SLOTS + 1) * self.width
        if amount > 0:
            return self._fits_at(self.used - amount)
        if self.first is None or not self.plain:  # with charges ahead, one made here may be the first to pass
            self.first = self._fits_at(math.nextafter(self.used, 0)) if self.older > 0 else self.expires_at
        return self.first

    def resets_at(self, used: float) -> float | None:
        if used <= 0:
            return None
        if self.since is None and self.plain and (self.first is not None or self.older <= 0):
            self.steady = self.expires_at if self.first is None else self.first  # whatever is charged here passes later
            return self.steady
        if used == self.used:
            return self.frees_at(0)
        other = self.copied()
        other.used = used
        found = other.frees_at(0)
        if self.since is None and self.plain:
            self.first = found
        return found

    def pack(self) -> bytes:
        if self.window_id is None:
            return b""
        if self.packed is None:
            base = (int(self.window_id) // SLOTS - 1) * SLOTS
            places = bytes([slot - base for slot in self.slots])
            self.packed = places + array("d", self.slots.values()).tobytes() + _packed_blocks(self.blocks)
        head = _ROLLING.pack(int(self.window_id), self.used - self.older, _or_nan(self.since), len(self.slots))
        return head + self.packed

    def copied(self) -> Self:
        other = super().copied()
        other.slots, other.width, other.plain = self.slots, self.width, self.plain  # `slots` is replaced, never changed
        other.first, other.packed = self.first, self.packed
        return other

    def same_until(self, resets_at: float) -> float:
        if self.blocks or not self.plain:
            return self.end
        return max(resets_at, self.end)  # what lies in a slot by itself until then stays so, see `quota_blocks.folded`

    def idle(self) -> bool:
        return self.plain and super().idle()

    def _near(self) -> tuple[float, float]:
        return around(int(self.window_id or 0))

    def _all_slots(self) -> dict[int, float]:
        slots = self.slots.copy()
        own = self.used - self.older
        if own > 0 and self.window_id is not None:
            slots[int(self.window_id)] = own
        return slots

    def _since(self, blocks: Blocks, slot: int, now: float) -> float | None:
        over, since = merged_around(blocks, slot), self.since
        if not over:
            return None
        same = since is not None and since <= now and merged_around(over, math.floor(since / self.width))
        return since if same else now

    def _keeps(self, slot: int) -> bool:
        """Whether charges of `slot` are kept by slot: its block is near, and it was not folded since."""
        return abs(slot // SLOTS - int(self.window_id or 0) // SLOTS) <= 1 and not touched(self.blocks, slot, slot + 1)

    def _fits_at(self, most: float) -> float | None:
        """The first reading at which no more than `most` is used, if nothing else is charged."""
        slots, here, width = self._all_slots(), int(self.window_id or 0), self.width
        if self.plain:
            used = self.used
            for slot in sorted(slots):
                if slot >= here - SLOTS:
                    used -= slots[slot]
                    if used <= most:
                        return (slot + SLOTS + 1) * width
        moments = {slot + SLOTS + 1 for slot in slots} | {int(end) + SLOTS for _, end, _ in self.blocks}
        for moment in sorted(moments):
            if moment > here and used_around(slots, moment) + touched(self.blocks, *around(moment)) <= most:
                return moment * width
        return max(moments) * width


def counter_of(limit: Limit) -> WindowCounter:
    """An empty count of `limit`."""
    return _Rolling(limit) if limit.rolling else _Calendar(limit)


def counter_unpacked(limit: Limit, state: bytes) -> WindowCounter:
    """The count that `pack` gave. Raises QuotaStoreError where `state` is not a count of such a limit."""
    if not state:
        return counter_of(limit)
    try:
        return _rolling_unpacked(limit, state) if limit.rolling else _calendar_unpacked(limit, state)
    except (struct.error, ValueError, IndexError) as exc:
        raise QuotaStoreError(f"a count of {limit} is damaged ({len(state)} bytes)") from exc


def counter_restored(
    limit: Limit, window_id: float, charges: dict[int, float], blocks: Blocks, since: float | None
) -> WindowCounter:
    """The count at the slot or window `window_id`, from its parts. `charges`: by slot; of a calendar window, its own under 0."""
    if limit.rolling:
        return _rolling(limit, int(window_id), charges, blocks, since)
    return _calendar(limit, *window_bounds(window_id, limit.window, limit.zone), charges[0], blocks, since)


def counter_of_version_1(limit: Limit, state: bytes) -> WindowCounter:
    """The count as files of schema version 1 kept it: a calendar window by itself, or a ring of the last slots."""
    if not state:
        return counter_of(limit)
    try:
        if not limit.rolling:
            begin, end, used = struct.unpack("=3d", state)
            return _calendar(limit, begin, end, _counts([used])[0], (), None)
        newest, ring = struct.unpack_from("=q", state)[0], _counts(array("d", state[8:]))
        if len(ring) != SLOTS + 1:
            raise ValueError(f"{len(ring)} slots")
        slots = {slot: ring[slot % len(ring)] for slot in range(newest - SLOTS, newest + 1) if ring[slot % len(ring)]}
        return _rolling(limit, newest, slots, (), None)
    except (struct.error, ValueError) as exc:
        raise QuotaStoreError(f"a count of {limit} is damaged ({len(state)} bytes)") from exc


def _calendar(limit: Limit, begin: float, end: float, own: float, blocks: Blocks, since: float | None) -> _Calendar:
    counter = _Calendar(limit)
    counter.window_id = counter.begin = begin
    counter.end = counter.expires_at = end
    counter.blocks, counter.since = blocks, since
    counter.older = touched(blocks, begin, end) if blocks else 0.0
    counter.used = counter.older + own
    return counter


def _rolling(limit: Limit, slot: int, slots: dict[int, float], blocks: Blocks, since: float | None) -> _Rolling:
    beside = touched(blocks, *around(slot)) if blocks else 0.0
    plain = not beside and (not slots or max(slots) <= slot)
    counter = _standing(limit, slot, slots, blocks, used_around(slots, slot) + beside, plain)
    counter.since = since
    return counter


def _standing(limit: Limit, slot: int, slots: dict[int, float], blocks: Blocks, used: float, plain: bool) -> _Rolling:
    """The count at `slot`, which is taken out of `slots`."""
    counter = _Rolling(limit)
    width = counter.width
    counter.window_id, counter.slots, counter.blocks, counter.plain = slot, slots, blocks, plain
    counter.used, counter.older = used, used - slots.pop(slot, 0.0)
    counter.begin, counter.end, counter.expires_at = slot * width, (slot + 1) * width, (slot + SLOTS + 1) * width
    return counter


def _calendar_unpacked(limit: Limit, state: bytes) -> WindowCounter:
    begin, end, own, since = _CALENDAR.unpack_from(state)
    if not begin < end:
        raise ValueError("a window without length")
    blocks = _unpacked_blocks(state[_CALENDAR.size :])
    return _calendar(limit, begin, end, _counts([own])[0], blocks, None if math.isnan(since) else since)


def _rolling_unpacked(limit: Limit, state: bytes) -> WindowCounter:
    slot, own, since, count = _ROLLING.unpack_from(state)
    base = (slot // SLOTS - 1) * SLOTS
    values = _ROLLING.size + count
    rest = values + 8 * count
    charges = _counts(array("d", state[values:rest]))
    slots = dict(zip([base + place for place in state[_ROLLING.size : values]], charges, strict=True))
    slots[slot] = _counts([own])[0]
    return _rolling(limit, slot, slots, _unpacked_blocks(state[rest:]), None if math.isnan(since) else since)


def _packed_blocks(blocks: Blocks) -> bytes:
    return array("d", [number for block in blocks for number in block]).tobytes()


def _unpacked_blocks(packed: bytes) -> Blocks:
    numbers = array("d", packed)
    _counts(numbers[2::3])
    blocks = tuple(zip(numbers[0::3], numbers[1::3], numbers[2::3], strict=True))
    if any(begin >= end for begin, end, _ in blocks):
        raise ValueError("a block without length")
    return blocks


def _counts(charges: array[float] | list[float]) -> array[float] | list[float]:
    if charges and not (min(charges) >= 0 and sum(charges) < math.inf):
        raise ValueError("a charge that is not a number of 0 or more")
    return charges


def _or_nan(since: float | None) -> float:
    return math.nan if since is None else since


_ROLLING = struct.Struct("=qddB")
_CALENDAR = struct.Struct("=4d")
