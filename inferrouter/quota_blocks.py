"""The arithmetic of counting by the readings of a clock that may step either way at any time.

Strategy: a charge stays where the reading that made it put it, so that no step of the clock re-opens a window that was charged.
A rolling window is cut into 64 slots, and 64 slots are a block. Near the reading charges are kept by slot; what lies further
away, behind or ahead, is folded into its block. No more than eight blocks are kept: two neighbours are merged for each one more.
A merged block counts as a whole wherever it is touched, so that a reading there may be refused though nothing was charged just
then. Once readings a whole window apart were in the same block of a long past, it is let go, so that a clock that was set right
is not refused for long. A calendar window is a block by itself. Plain functions on plain data, so that a store in another
language can follow them line by line. Must never know of limits, time zones, stores or clocks.
"""

from __future__ import annotations

from collections.abc import Mapping

SLOTS = 64
"""Slots of a rolling window, and of a block. A charge counts until `SLOTS` + 1 slots later."""
MAX_BLOCKS = 8

Block = tuple[float, float, float]
"""Beginning, end (excluded) and charge: in slots for rolling windows, in epoch seconds for calendar ones."""
Blocks = tuple[Block, ...]
"""In order of time. A block of 64 slots, or a calendar window, is touched by one of them at most."""


def used_around(slots: Mapping[int, float], slot: int) -> float:
    """The most that any `SLOTS` + 1 slots in a row that hold `slot` were charged: with nothing ahead, the last ones."""
    if not slots:
        return 0.0
    first = slot - SLOTS
    if max(slots) <= slot:
        return sum([charge for each, charge in slots.items() if each >= first], 0.0)
    used = most = sum([charge for each, charge in slots.items() if first <= each <= slot], 0.0)
    for last in range(slot + 1, slot + SLOTS + 1):
        used += slots.get(last, 0.0) - slots.get(last - SLOTS - 1, 0.0)
        most = max(most, used)
    return most


def touched(blocks: Blocks, low: float, high: float) -> float:
    """What the blocks that touch `low` to `high` (excluded) hold: each counts as a whole."""
    return sum([charge for begin, end, charge in blocks if begin < high and end > low], 0.0)


def with_charge(blocks: Blocks, begin: float, end: float, delta: float, low: float, high: float) -> Blocks:
    """`blocks` with `delta` at `begin` to `end`, added to the block that touches `low` to `high` if there is one. A negative one
    gives back, never below 0; an empty block goes."""
    place = 0
    for place, (first, last, charge) in enumerate(blocks):
        if first < high and last > low:
            wider = (min(first, begin), max(last, end)) if delta > 0 else (first, last)
            kept = ((*wider, charge + delta),) if charge + delta > 0 else ()
            return blocks[:place] + kept + blocks[place + 1 :]
        if first >= high:
            break
    else:
        place = len(blocks)
    return (*blocks[:place], (begin, end, delta), *blocks[place:]) if delta > 0 else blocks


def merged(blocks: Blocks, low: float, high: float) -> Blocks:
    """`blocks`, with two neighbours in one as long as there are more than `MAX_BLOCKS`: those that are short, close together, and
    far from `low` to `high`, where the clock is. What would lie over that stays apart."""
    while len(blocks) > MAX_BLOCKS:
        pairs = []
        for place in range(1, len(blocks)):
            begin, end = blocks[place - 1][0], blocks[place][1]
            away = max(low - end, begin - high)
            if away >= 0:
                blurred = blocks[place][0] - blocks[place - 1][1] + (end - begin) / 8
                pairs.append((blurred / (blurred + away), place))
        if not pairs:
            break
        place = min(pairs)[1]
        (begin, _, one), (_, end, other) = blocks[place - 1 : place + 1]
        blocks = (*blocks[: place - 1], (begin, end, one + other), *blocks[place + 1 :])
    return blocks


def around(slot: int) -> tuple[int, int]:
    """The slots that count together with `slot`: the first of them and the end (excluded)."""
    return slot - SLOTS, slot + SLOTS + 1


def folded(slots: Mapping[int, float], blocks: Blocks, slot: int) -> tuple[dict[int, float], Blocks]:
    """`slots` without those that lie neither in the block of `slot` nor in one beside it, and `blocks` with what these held."""
    kept, near = {}, slot // SLOTS
    for each, charge in slots.items():
        block = each // SLOTS
        if near - 1 <= block <= near + 1:
            kept[each] = charge
        else:
            blocks = with_charge(blocks, each, each + 1, charge, block * SLOTS, block * SLOTS + SLOTS)
    return kept, merged(blocks, *around(slot))


def merged_over_window(blocks: Blocks, begin: float, end: float) -> Blocks:
    """The blocks over a calendar window that stand for a long past: more than `MAX_BLOCKS` times as long."""
    longest = MAX_BLOCKS * (end - begin)
    return tuple([block for block in blocks if block[0] < end and block[1] > begin and block[1] - block[0] > longest])


def merged_around(blocks: Blocks, slot: int) -> Blocks:
    """The blocks that count against `slot` and stand for a long past: more than `MAX_BLOCKS` windows long."""
    low, high = around(slot)
    longest = MAX_BLOCKS * SLOTS
    return tuple([block for block in blocks if block[0] < high and block[1] > low and block[1] - block[0] > longest])


def without(blocks: Blocks, others: Blocks) -> Blocks:
    """`blocks` but those of `others`."""
    return tuple([block for block in blocks if block not in others])
