"""Writes a bucket, a hold and a moment as the plain ASCII text that a server keeps, and reads it again, to the last bit.

Strategy: numbers as `repr` writes them, lists separated by blanks, fields by tabs, entries by line breaks; any key becomes a name
of printable ASCII. A server compares, adds and stores these texts and understands nothing else. Must never know a server, nor how
counting works beyond what a count consists of.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import lru_cache

from .errors import ConfigError, QuotaStoreError
from .frozen import NamedTuple
from .limits import Limit, window_bounds
from .quota import Hold
from .quota_blocks import SLOTS
from .quota_counting import BucketState
from .quota_learned import packed, unpacked
from .quota_windows import WindowCounter, counter_of, counter_restored

LONGEST_NAME = 200
_LONG_AGO = -1e300


class Stored(NamedTuple):
    """A bucket as the server keeps it. `version`: counts its changes; `lost`: epoch seconds until which it is refused, as what
    was counted before is gone; 0: it is not."""

    state: BucketState
    version: str
    lost: float


class Stamp(NamedTuple):
    """The slot or window of a moment. `begin` to `until_next`: while it is the same; `expires_at`: when a charge has passed."""

    window: str
    end: str
    begin: float
    until_next: float
    expires_at: float


@lru_cache(maxsize=16384)
def name_of(key: str) -> str:
    """Printable ASCII that names `key` and no other key."""
    name = json.dumps(key)[1:-1]
    if len(name) <= LONGEST_NAME and not name.startswith("#"):
        return name
    return "#" + hashlib.sha256(name.encode("ascii")).hexdigest()


@lru_cache(maxsize=4096)
def kind_of(limit: Limit) -> str:
    """What two limits share that count the same unit in the same windows."""
    return f"{limit.unit} {limit.window} {'rolling' if limit.rolling else 'calendar'} {limit.zone}"


def head_of(state: BucketState) -> str:
    """The limit of a bucket, and whether it was set by `set_quota`."""
    limit = state.counter.limit
    return f"{float(limit.amount)!r} {kind_of(limit)}{' set' if state.pinned else ''}"


def stamp_of(limit: Limit, now: float) -> Stamp:
    """The slot or window of `limit` at `now`. Raises QuotaStoreError for an absurd time."""
    if limit.rolling:
        width = limit.span_s / SLOTS
        slot = math.floor(now / width)
        return Stamp(str(slot), "", slot * width, (slot + 1) * width, (slot + SLOTS + 1) * width)
    begin, end = window_bounds(now, limit.window, limit.zone)
    return Stamp(repr(begin), repr(end), begin, end, end)


def window_passes(limit: Limit, now: float) -> float:
    """Epoch seconds when all that may have been charged until `now` has passed."""
    return stamp_of(limit, now).expires_at


def read_bucket(key: str, text: str) -> Stored | None:
    """The bucket `key` as the server wrote it, None if it has none. Raises QuotaStoreError where it cannot be read."""
    if not text:
        return None
    try:
        version, _, head, lost, window, used, older, since, _, blocks, slots, learned = text.split("\t")
        limit, pinned = _limit(head)
        counter = _counter(limit, window, (float(used), float(older)), since, blocks, slots) if window else counter_of(limit)
        state = BucketState(key, counter, pinned, unpacked(learned))
    except (ValueError, TypeError, ConfigError) as exc:
        raise QuotaStoreError(f"bucket {key!r} on the server cannot be read ({exc}); was it written by another program?") from exc
    return Stored(state, version, float(lost or 0))


def bucket_fields(state: BucketState, lost: float = 0.0) -> list[str]:
    """What is to be written of a bucket, after its name and version; "" stands for what it does not have.

    In this order: kind, head, ceiling, firm (until when the ceiling is right), lost, window, end, used, older, since, plain,
    blocks, slots, learned.
    """
    counter, limit, learned = state.counter, state.counter.limit, packed(state.learned)
    firm = "" if state.firm_until == math.inf else repr(max(state.firm_until, _LONG_AGO))
    fields = [kind_of(limit), head_of(state), repr(float(state.ceiling)), firm, repr(lost) if lost else ""]
    if counter.window_id is None:
        return [*fields, "", "", "0", "0", "", "1", "", "", learned]
    if limit.rolling:
        window, end, slots = str(int(counter.window_id)), "", counter.slots  # type: ignore[attr-defined]  # a rolling one has them
        plain = counter.plain  # type: ignore[attr-defined]  # likewise
    else:
        window, end, slots, plain = repr(float(counter.window_id)), repr(float(counter.end)), {}, counter.older == 0
    return [
        *fields,
        window,
        end,
        repr(float(counter.used)),
        repr(float(counter.older)),
        "" if counter.since is None else repr(float(counter.since)),
        "1" if plain and counter.since is None else "0",
        " ".join([repr(float(number)) for block in counter.blocks for number in block]),
        " ".join([f"{slot} {float(charge)!r}" for slot, charge in sorted(slots.items())]),
        learned,
    ]


def hold_text(held: tuple[Hold, float] | None) -> str:
    """A hold and when it was made; "" for none."""
    return "" if held is None else json.dumps([*[held[0].key, held[0].until, held[0].reason], held[1]])


def read_hold(text: str) -> tuple[Hold, float] | None:
    """What `hold_text` wrote. Raises QuotaStoreError where it cannot be read."""
    if not text:
        return None
    try:
        key, until, reason, made = json.loads(text)
        return Hold(key, float(until), reason), float(made)
    except (ValueError, TypeError) as exc:
        raise QuotaStoreError("a hold on the server cannot be read; was it written by another program?") from exc


@lru_cache(maxsize=4096)
def _limit(head: str) -> tuple[Limit, bool]:
    amount, unit, window, rolling, zone = head.removesuffix(" set").split(" ", 4)
    return Limit(float(amount), unit, window, rolling == "rolling", zone), head.endswith(" set")


def _counter(limit: Limit, window: str, sums: tuple[float, float], since: str, blocks: str, slots: str) -> WindowCounter:
    numbers = [float(number) for number in blocks.split()]
    apart = tuple(zip(numbers[0::3], numbers[1::3], numbers[2::3], strict=True))
    first = float(since) if since else None
    own = sums[0] - sums[1]
    if limit.rolling:
        words = slots.split()
        charges = dict(sorted((int(slot), float(charge)) for slot, charge in zip(words[0::2], words[1::2], strict=True)))
        charges[int(window)] = own
    else:
        charges = {0: own}
    counter = counter_restored(limit, float(window), charges, apart, first)
    counter.used, counter.older = sums
    return counter
