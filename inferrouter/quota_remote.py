"""Keeps quota on a server that many machines share: what every such store does, whichever server it is.

Strategy: each verb is one operation that the server does in one step, carried by `quota_lanes`. What the server cannot do by
itself it hands back ("n") with the buckets as they are: the functions of `quota_counting` compute the outcome here, and it is
written if nobody was faster, else all is done once more. So there is one arithmetic, and zones are known in one place. An
operation has an id, so that a repetition changes nothing. Must never know a client library, nor read a clock.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Self

from .errors import ConfigError, QuotaStoreError
from .limits import MAX_AMOUNT, Limit, check_time
from .quota import Bucket, Headroom, Hold, Refusal, Reservation, Wants, allowance_key
from .quota_counting import (
    BucketState,
    admit,
    headrooms_of,
    learned_of,
    live_hold,
    merged_hold,
    note,
    observe,
    redefined,
    settle,
    with_quota,
)
from .quota_exchange import Ledger
from .quota_lanes import Carrier, Lanes, Operation
from .quota_learned import Learned, Observation
from .quota_raw import (
    Stamp,
    Stored,
    bucket_fields,
    head_of,
    hold_text,
    kind_of,
    name_of,
    read_bucket,
    read_hold,
    stamp_of,
    window_passes,
)
from .validation import check_bool

KEPT_S = 3600.0
"""Seconds for which the record of a settled reservation is kept, so that a repetition is known as one."""
GRACE_S = 2 * 86400.0
"""Seconds by which the record of an open reservation outlasts its windows, as clocks may step back."""

_KEPT_TOKENS = 20_000
_TRIES = 500
_Ask = Callable[[Operation], str]
_Change = Callable[[BucketState | None], BucketState]


class _Known(NamedTuple):
    """What is known of a bucket without asking: its name on the server, its limit and that limit's kind."""

    name: str
    limit: Limit
    kind: str


class RemoteQuotaStore:
    """The verbs of a quota store over a server.

    `server`: its name in messages, without a password. `timeout`: seconds a verb may take in all. `adopt_empty`: go on at once,
    from zero, where the server has lost its counts; else a bucket is refused until its window has passed. `most_lanes`: round
    trips under way at once. Raises ConfigError for a wrong value. Connects with the first verb.
    """

    def __init__(self, server: str, timeout: float, adopt_empty: bool, most_lanes: int) -> None:
        problems = [f"adopt_empty: {problem}" for problem in [check_bool(adopt_empty)] if problem]
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            problems.append(f"timeout: {timeout!r} is not a number of seconds above 0")
        if problems:
            raise ConfigError(problems)
        self._ledger = Ledger(server, adopt_empty, self._define_anew)
        self._known: dict[str, _Known] = {}
        self._stamps: dict[str, Stamp] = {}
        self._defined: dict[str, Limit] = {}
        self._tokens: dict[int, str] = {}
        self._pid = 0
        self._numbers = itertools.count()
        self._closed = False
        self._lanes = Lanes(self._open_carrier, self._explained, float(timeout), most_lanes)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the operator should know of the server, in sentences: clocks that differ, counts that may be or were lost."""
        return self._ledger.warnings

    @property
    def skew_s(self) -> float:
        """Seconds by which the caller's clock was ahead of the server's at the last answer."""
        return self._ledger.skew_s

    def define(self, buckets: Sequence[Bucket], now: float) -> None:
        check_time(now)
        self._redefine({bucket.key: _redefining(bucket, now) for bucket in buckets}, now)
        self._defined.update((bucket.key, bucket.limit) for bucket in buckets)

    def headroom(self, keys: Sequence[str], now: float) -> list[Headroom]:
        check_time(now)
        ask = self._asking()
        unique = tuple(dict.fromkeys(keys))
        for _ in range(_TRIES):
            answer = ask(self._looking(unique, now))
            stored = self._read(unique, answer, now, ask)
            if stored is None:
                continue
            states = {key: each.state for key, each in stored.items()}
            headrooms, to_note = headrooms_of(states, keys, now)
            if not to_note or self._written(stored, note(states, unique, now), now, ask):
                return headrooms
        raise self._contended()

    def reserve(self, wants: Wants, now: float) -> Reservation | Refusal:
        check_time(now)
        wants = tuple(wants)
        sums: dict[str, float] = {}
        for key, amount in wants:
            sums[key] = sums.get(key, 0) + _checked(amount)
        ident = self._number()
        ask = self._asking()
        for _ in range(_TRIES):
            known = self._knowing(sums, now, ask)
            taken, operation = self._reserving(ident, wants, sums, known, now)
            answer = ask(operation)
            if answer == "y":
                return taken
            outcome = self._decided(answer, taken, sums, now, ask)
            if outcome is not None:
                return outcome
        raise self._contended()

    def commit(self, reservation: Reservation, now: float, amounts: Sequence[float] | None = None) -> bool:
        ask = self._asking()
        if reservation.settled:
            return False
        token = self._tokens.pop(reservation.id, None) or f"{self._number():x}"
        try:
            settled = self._settled("S", reservation, amounts, token, now, ask)
        except QuotaStoreError:
            self._tokens[reservation.id] = token  # perhaps it was done: a repetition is the same settlement
            if len(self._tokens) > _KEPT_TOKENS:
                self._tokens.pop(next(iter(self._tokens)), None)
            raise
        reservation.settled = True
        return settled

    def rollback(self, reservation: Reservation, now: float) -> bool:
        return self.commit(reservation, now, [0.0] * len(reservation.wants))

    def hold(self, key: str, until: float, reason: str, now: float) -> None:
        new, ask, stored = Hold(key, until, reason), self._asking(), ""
        merged_hold(None, new, now)
        for _ in range(_TRIES):
            wanted = hold_text(merged_hold(read_hold(stored), new, now))
            answer = "y" if wanted == stored != "" else ask(Operation("H", ("h",), ("h", name_of(key), stored, wanted), now))
            if answer == "y":
                return
            stored = answer[2:]
        raise self._contended()

    def holds(self, now: float) -> dict[str, Hold]:
        ask = self._asking()
        live: dict[str, Hold] = {}
        for stored in filter(None, ask(Operation("V", ("h",), ("h",), now)).split("\n")):
            held = read_hold(stored)
            assert held is not None
            kept = live_hold(*held, now)
            if kept is not None:
                live[kept[0].key] = kept[0]
            if kept != held:
                ask(Operation("H", ("h",), ("h", name_of(held[0].key), stored, hold_text(kept)), now))
        return live

    def set_quota(self, account_id: str, amount: float, unit: str) -> None:
        key = allowance_key(account_id)
        limit = with_quota(None, key, amount, unit).limit
        self._redefine({key: lambda known: with_quota(known, key, amount, unit)}, 0.0)
        self._defined.setdefault(key, limit)

    def observe(self, observations: Sequence[Observation], now: float) -> list[bool]:
        """See `quota.Learning`."""
        keys, ask = tuple(dict.fromkeys(seen.key for seen in observations)), self._asking()
        observe({}, (), now)
        for _ in range(_TRIES):
            stored = self._read(keys, ask(self._looking(keys, now)), now, ask)
            if stored is None:
                continue
            states = {key: each.state for key, each in stored.items()}
            changed = observe(states, observations, now)
            news = {seen.key for seen, new in zip(observations, changed, strict=True) if new}
            if self._written(stored, [states[key] for key in news], now, ask):
                for key in news:  # a list of them is kept apart, for `learned`
                    ask(Operation("H", ("l",), ("l", name_of(key), "", json.dumps(key)), now))
                return changed
        raise self._contended()

    def learned(self) -> dict[str, Learned]:
        """See `quota.Learning`."""
        ask = self._asking()
        keys = [json.loads(text) for text in filter(None, ask(Operation("V", ("l",), ("l",))).split("\n"))]
        texts = ask(self._looking(keys, 0.0)).split("\n") if keys else []
        stored = [read_bucket(key, text) for key, text in zip(keys, texts, strict=True)]
        return learned_of(each.state for each in stored if each is not None)

    def close(self) -> None:
        self._closed = True
        self._lanes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._ledger.server}{' closed' if self._closed else ''}>"

    def _open_carrier(self) -> Carrier:
        """A way to the server; a store of its own says how."""
        raise NotImplementedError

    def _explained(self, exc: Exception) -> tuple[QuotaStoreError, bool]:
        """What an exception of the client library means, and whether to try again; likewise."""
        raise NotImplementedError

    def _asking(self) -> _Ask:
        """How to ask within what one verb may take in all."""
        lanes = self._lanes
        lanes.check_open()
        end = lanes.deadline()
        return lambda operation: lanes.ask(operation, end)

    def _number(self) -> int:
        """A number that no other process gives out: counted from a random one."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._numbers = itertools.count(int.from_bytes(os.urandom(7), "big"))
        return next(self._numbers)

    def _looking(self, keys: Iterable[str], now: float) -> Operation:
        names = [name_of(key) for key in keys]
        return Operation("L", _entries(names), names, now)

    def _knowing(self, keys: Iterable[str], now: float, ask: _Ask) -> list[_Known]:
        """What is known of each bucket. Raises QuotaStoreError for one that nobody defined."""
        known = self._known
        missing = [key for key in keys if key not in known]
        while missing:
            stored = self._read(missing, ask(self._looking(missing, now)), now, ask)
            missing = missing if stored is None else []
        return [known[key] for key in keys]

    def _read(self, keys: Sequence[str], answer: str, now: float, ask: _Ask) -> dict[str, Stored] | None:
        """The buckets an answer holds; None if one was gone, and defined again. Raises QuotaStoreError for unknown ones."""
        texts = answer.split("\n") if keys else []
        stored = {key: read_bucket(key, text) for key, text in zip(keys, texts, strict=True)}
        gone = [key for key, each in stored.items() if each is None]
        if gone:
            unknown = [key for key in gone if key not in self._defined]
            if unknown:
                raise QuotaStoreError(f"the quota store knows no bucket {unknown[0]!r}; define it first")
            self._ledger.tell_gone(len(gone))
            self._define_anew(gone, None if self._ledger.adopt_empty else now, now, ask)
            return None
        found = {key: each for key, each in stored.items() if each is not None}
        self._known.update(
            (key, _Known(name_of(key), each.state.counter.limit, kind_of(each.state.counter.limit)))
            for key, each in found.items()
        )
        return found

    def _stamp(self, known: _Known, now: float) -> Stamp:
        stamp = self._stamps.get(known.kind)
        if stamp is None or not stamp.begin <= now < stamp.until_next:
            stamp = self._stamps[known.kind] = stamp_of(known.limit, now)
        return stamp

    def _reserving(
        self, ident: int, wants: Wants, sums: Mapping[str, float], known: Sequence[_Known], now: float
    ) -> tuple[Reservation, Operation]:
        args, undo, until, charged = [f"{ident:x}", "", repr(float(now))], [f"{ident:x}", "undo", ""], now, {}
        for (key, amount), each in zip(sums.items(), known, strict=True):
            stamp = self._stamp(each, now)
            args += (each.name, each.kind, stamp.window, stamp.end, repr(float(amount)))
            undo += (each.name, each.kind, stamp.window, repr(-float(amount)))
            until = max(until, stamp.expires_at)
            charged[key] = float(stamp.window) if stamp.end else int(stamp.window), each.limit
        args[1] = undo[2] = _milliseconds(until - now + GRACE_S)
        taken = Reservation(ident, wants, [charged[key][0] for key, _ in wants], [charged[key][1] for key, _ in wants])
        taken.until = until
        entries = (f"r:{args[0]}", *_entries([each.name for each in known]))
        back = Operation("U", entries, undo, now)
        back.then = lambda ask: self._settled("U", taken, [0.0] * len(wants), "undo", now, ask)
        return taken, Operation("R", entries, args, now, back)

    def _decided(
        self, answer: str, taken: Reservation, sums: Mapping[str, float], now: float, ask: _Ask
    ) -> Reservation | Refusal | None:
        """The outcome of a reservation that the server handed back; None if somebody was faster."""
        if answer == "d":
            raise QuotaStoreError(f"{self._ledger.server} had given the reservation up; call again")
        stored = self._read(tuple(sums), answer[2:], now, ask)
        if stored is None:
            return None
        self._ledger.check_lost(stored, now)
        states = {key: each.state for key, each in stored.items()}
        outcome = admit(states, taken.wants, now, taken.id)
        if isinstance(outcome, Refusal):
            return outcome if self._written(stored, note(states, tuple(sums), now), now, ask) else None
        outcome.until = max([now, *[state.counter.expires_at for state in states.values()]])
        ttl = _milliseconds(outcome.until - now + GRACE_S)
        written = ask(self._writing(stored, states.values(), now, "o", f"{taken.id:x}", "", ttl))
        return outcome if written == "y" else None

    def _settled(
        self, verb: str, reservation: Reservation, amounts: Sequence[float] | None, token: str, now: float, ask: _Ask
    ) -> bool:
        """Settles as asked; False if it was settled before. `verb`: "S", or "U" where it may never have been reserved."""
        ident, ttl = f"{reservation.id:x}", _milliseconds(KEPT_S)
        deltas: dict[str, float] = {}
        if amounts is not None:
            settle({}, reservation, amounts)  # raises for nonsense
            for (key, reserved), amount in zip(reservation.wants, amounts, strict=True):
                if amount != reserved:
                    deltas[key] = deltas.get(key, 0.0) + amount - reserved
        args = [ident, token, ttl]
        for place, key in enumerate(reservation.keys):
            if key in deltas:
                window, limit = reservation.window_ids[place], reservation.limits[place]
                args += (name_of(key), kind_of(limit), f"{window!r}", repr(deltas.pop(key)))
        keys = tuple(dict.fromkeys(key for key in reservation.keys if name_of(key) in args))
        operation = Operation(verb, (f"r:{ident}", *_entries(map(name_of, keys))), args, now)
        for _ in range(_TRIES):
            answer = ask(operation)
            if answer[:1] == "n":
                texts = answer[2:].split("\n")
                found = {key: read_bucket(key, text) for key, text in zip(keys, texts, strict=True)}
                stored = {key: each for key, each in found.items() if each is not None}
                changed = settle({key: each.state for key, each in stored.items()}, reservation, amounts or ())
                answer = ask(self._writing(stored, changed, now, "s", ident, token, ttl))
            if answer == "y":
                return True
            if answer in ("f", "g"):
                return (
                    answer == "g" and reservation.until <= now
                )  # forgotten: its windows have passed, nothing is left to correct
        raise self._contended()

    def _written(self, stored: Mapping[str, Stored], changed: Iterable[BucketState], now: float, ask: _Ask) -> bool:
        """Writes what changed; False if somebody was faster."""
        states = tuple(changed)
        return not states or ask(self._writing(stored, states, now)) == "y"

    def _writing(
        self, stored: Mapping[str, Stored | None], states: Iterable[BucketState], now: float, *record: str, lost: float = 0.0
    ) -> Operation:
        """Writes `states`, if each still has the version it had in `stored`. `record`: what becomes of which reservation."""
        args = list(record) or ["", "", "", ""]
        names = []
        for state in {id(state): state for state in states}.values():
            before = stored.get(state.key)
            names.append(name_of(state.key))
            args += (names[-1], before.version if before else "", *bucket_fields(state, lost))
        entries = (f"r:{record[1]}", *_entries(names)) if record else _entries(names)
        return Operation("W", entries, args, now)

    def _redefine(self, changes: Mapping[str, _Change], now: float) -> None:
        """Makes each bucket what its change says, keeping what others count meanwhile."""
        ask, left = self._asking(), dict(changes)
        adopting = self._ledger.adopt_empty
        for _ in range(_TRIES):
            if not left:
                return
            keys = tuple(left)
            texts = ask(self._looking(keys, now)).split("\n")
            for key, text in zip(keys, texts, strict=True):
                stored = read_bucket(key, text)
                old = stored.state if stored else None
                new = left[key](old)
                kind = kind_of(new.counter.limit)
                if (
                    stored is None
                    or old is None
                    or old.learned
                    or kind_of(old.counter.limit) != kind
                    or (stored.lost and adopting)
                ):
                    lost = stored.lost if stored and not adopting else 0.0
                    answer = ask(self._writing({key: stored}, (new,), now, lost=lost))
                elif head_of(old) != head_of(new):
                    ceiling = repr(float(new.ceiling))
                    answer = ask(
                        Operation("A", _entries([name_of(key)]), (name_of(key), head_of(old), head_of(new), ceiling), now)
                    )
                else:
                    answer = "y"
                if answer == "y":
                    del left[key]
                    self._known[key] = _Known(name_of(key), new.counter.limit, kind_of(new.counter.limit))
        if left:
            raise self._contended()

    def _define_anew(self, keys: Iterable[str] | None, lost_at: float | None, now: float, ask: _Ask) -> None:
        """Defines buckets that the server has lost, None: all; refused until what was charged by `lost_at` has passed."""
        for key in tuple(self._defined) if keys is None else keys:
            limit = self._defined[key]
            lost = window_passes(limit, lost_at) if lost_at is not None else 0.0
            for _ in range(_TRIES):
                stored = read_bucket(key, ask(self._looking([key], now)))
                if stored is not None and stored.lost >= lost:
                    break
                state = stored.state if stored else redefined(None, Bucket(key, limit), now)
                if ask(self._writing({key: stored}, (state,), now, lost=lost if lost > now else 0.0)) == "y":
                    break

    def _contended(self) -> QuotaStoreError:
        return QuotaStoreError(f"{self._ledger.server} is changed by others faster than this process can follow; call again")


def _redefining(bucket: Bucket, now: float) -> _Change:
    return lambda known: redefined(known, bucket, now)


def _entries(names: Iterable[str]) -> tuple[str, ...]:
    return tuple([f"b:{name}" for name in names])


def _milliseconds(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))


def _checked(amount: float) -> float:
    if amount.__class__ not in (int, float) or not 0 <= amount <= MAX_AMOUNT:
        raise QuotaStoreError(f"{amount!r} is not an amount that can be counted; give a finite number of 0 or more")
    return amount
