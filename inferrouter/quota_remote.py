"""Keeps quota on a server that many machines share: what every such store does, whichever server it is.

Strategy: each verb is one operation that the server does in one step, carried by `quota_lanes`. What the server cannot do by
itself it hands back ("n") with the buckets as they are: the functions of `quota_counting` compute the outcome here, and it is
written if nobody was faster, else all is done once more. So there is one arithmetic, and zones are known in one place. An
operation has an id, so that a repetition changes nothing. Must never know a client library, nor read a clock.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Self

from .errors import ConfigError, QuotaStoreError
from .limits import MAX_AMOUNT, check_time
from .own_process import OwnNumbers
from .quota import Bucket, Headroom, Hold, Refusal, Reservation, Wants, allowance_key
from .quota_counting import (
    BucketState,
    admit,
    headrooms_of,
    learned_of,
    live_hold,
    merged_hold,
    nonsense,
    note,
    observe,
    redefined,
    settle,
    with_quota,
)
from .quota_exchange import Ask, Ledger
from .quota_lanes import Carrier, Lanes, Operation
from .quota_learned import Learned, Observation
from .quota_mirror import Mirror
from .quota_raw import hold_text, name_of, read_bucket, read_hold
from .quota_remote_buckets import TRIES, Change, KnownBucket, RemoteBuckets
from .validation import check_bool

KEPT_S = 3600.0
"""Seconds for which the record of a settled reservation is kept, so that a repetition is known as one."""
GRACE_S = 2 * 86400.0
"""Seconds by which the record of an open reservation outlasts its windows, as clocks may step back."""

LOST_WRITES = 2
"""How often one verb's change may come too late before it claims the ledger, so that others wait until it is made."""
CLAIM_S = 0.1
"""Seconds, and the way to the server, after which a claim of one who died is over."""

_CLAIMING = frozenset("LRSWA")
_TO_SETTLE, _TO_LEARN = 4.0, 9.0
"""Round trips that a settlement, and what was learned, are given, however far away the server is and short the time: that is
read, and written when nobody else has been faster, which takes up to seven."""
_KEPT = str(int(KEPT_S * 1000))
_KEPT_TOKENS = 20_000


class RemoteQuotaStore:
    """The verbs of a quota store over a server.

    `server`: its name in messages, without a password. `timeout`: seconds a verb may take in all. `adopt_empty`: go on at once,
    from zero, where the server has lost its counts; else a bucket is refused until its window has passed. `most_lanes`: round
    trips under way at once; `far_s`: as in `Lanes`. Raises ConfigError for a wrong value. Connects with the first verb.
    """

    def __init__(self, server: str, timeout: float, adopt_empty: bool, most_lanes: int, far_s: float) -> None:
        problems = [f"adopt_empty: {problem}" for problem in [check_bool(adopt_empty)] if problem]
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            problems.append(f"timeout: {timeout!r} is not a number of seconds above 0")
        if problems:
            raise ConfigError(problems)
        self._buckets = RemoteBuckets(server, adopt_empty)
        self._ledger = self._buckets.ledger
        self._tokens: dict[int, str] = {}
        self._mirror = Mirror()
        self._numbers = OwnNumbers()
        self._closed = False
        self._lanes = Lanes(self._open_carrier, self._explained, float(timeout), most_lanes, far_s, self._forked)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the operator should know of the server, in sentences: clocks that differ, counts that may be or were lost."""
        return self._ledger.warnings

    @property
    def skew_s(self) -> float:
        """Seconds by which the caller's clock was ahead of the server's at the last answer."""
        return self._ledger.skew_s

    def define(self, buckets: Sequence[Bucket], now: float, max_wait: float | None = None) -> None:
        check_time(now)
        self._mirror.forget(bucket.key for bucket in buckets)
        self._buckets.redefine({bucket.key: _redefining(bucket, now) for bucket in buckets}, now, self._asking(max_wait))
        self._buckets.defined.update((bucket.key, bucket.limit) for bucket in buckets)

    def headroom(self, keys: Sequence[str], now: float, max_wait: float | None = None, max_age: float = 0.0) -> list[Headroom]:
        """See `QuotaStore`. `max_age`: seconds that what other processes did meanwhile may go unseen, to save the round trip."""
        check_time(now)
        ask = self._asking(max_wait)
        unique = tuple(dict.fromkeys(keys))
        if max_age > 0:
            return self._mirror.headroom(keys, unique, now, max_age, lambda: self._looked(unique, now, max_wait, ask))
        for _ in range(TRIES):
            answer = ask(self._buckets.looking(unique, now))
            stored = self._buckets.read(unique, answer, now, ask)
            if stored is None:
                continue
            states = {key: each.state for key, each in stored.items()}
            headrooms, to_note = headrooms_of(states, keys, now)
            if not to_note or self._buckets.written(stored, note(states, unique, now), now, ask):
                return headrooms
        raise self._buckets.contended()

    def reserve(self, wants: Wants, now: float, max_wait: float | None = None) -> Reservation | Refusal:
        check_time(now)
        wants = tuple(wants)
        sums: dict[str, float] = {}
        for key, amount in wants:
            sums[key] = sums.get(key, 0) + _checked(amount)
        ident = self._numbers.next()
        ask = self._asking(max_wait)
        for _ in range(TRIES):
            known = self._buckets.knowing(sums, now, ask)
            taken, operation = self._reserving(ident, wants, sums, known, now)
            due, at = self._mirror.due()
            if due:
                operation.along = (self._buckets.looking(due, now), _seeing_holds(now))
            answer = ask(operation)
            try:
                if due:
                    self._rode_along(due, operation.along, at)
                if answer == "y":
                    self._mirror.charged(sums, now)
                    return taken
            except BaseException:  # Ctrl-C, for one: nobody will settle it
                self._lanes.take_back(operation)
                raise
            outcome = self._decided(answer, taken, sums, now, ask)
            if outcome is not None:
                return outcome
        raise self._buckets.contended()

    def commit(
        self, reservation: Reservation, now: float, amounts: Sequence[float] | None = None, max_wait: float | None = None
    ) -> bool:
        ask = self._asking(max_wait, _TO_SETTLE)
        if reservation.settled:
            return False
        token = self._tokens.pop(reservation.id, None) or f"{self._numbers.next():x}"
        try:
            settled = self._settled("S", reservation, amounts, token, now, ask)
        except QuotaStoreError:
            self._tokens[reservation.id] = token  # perhaps it was done: a repetition is the same settlement
            if len(self._tokens) > _KEPT_TOKENS:
                self._tokens.pop(next(iter(self._tokens)), None)
            raise
        self._mirror.settled(reservation, amounts)
        reservation.settled = True
        return settled

    def rollback(self, reservation: Reservation, now: float) -> bool:
        return self.commit(reservation, now, [0.0] * len(reservation.wants))

    def hold(self, key: str, until: float, reason: str, now: float, max_wait: float | None = None) -> None:
        new, ask, stored = Hold(key, until, reason), self._asking(max_wait, _TO_SETTLE), ""
        self._mirror.forget_holds()
        merged_hold(None, new, now)
        for _ in range(TRIES):
            wanted = hold_text(merged_hold(read_hold(stored), new, now))
            answer = "y" if wanted == stored != "" else ask(Operation("H", ("h",), ("h", name_of(key), stored, wanted), now))
            if answer == "y":
                return
            stored = answer[2:]
        raise self._buckets.contended()

    def holds(self, now: float, max_wait: float | None = None, max_age: float = 0.0) -> dict[str, Hold]:
        """See `QuotaStore`, and `headroom`."""
        ask = self._asking(max_wait)
        if max_age > 0:
            return self._mirror.holds(now, max_age, lambda: ask(_seeing_holds(now)))
        return self._live_holds(ask(_seeing_holds(now)), now, ask)

    def _live_holds(self, answer: str, now: float, ask: Ask) -> dict[str, Hold]:
        live: dict[str, Hold] = {}
        for stored in filter(None, answer.split("\n")):
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
        self._mirror.forget((key,))
        self._buckets.redefine({key: lambda known: with_quota(known, key, amount, unit)}, 0.0, self._asking())
        self._buckets.defined.setdefault(key, limit)

    def observe(self, observations: Sequence[Observation], now: float, max_wait: float | None = None) -> list[bool]:
        """See `quota.Learning`."""
        keys, ask = tuple(dict.fromkeys(seen.key for seen in observations)), self._asking(max_wait, _TO_LEARN)
        observe({}, (), now)
        for _ in range(TRIES):
            stored = self._buckets.read(keys, ask(self._buckets.looking(keys, now)), now, ask)
            if stored is None:
                continue
            states = {key: each.state for key, each in stored.items()}
            changed = observe(states, observations, now)
            news = {seen.key for seen, new in zip(observations, changed, strict=True) if new}
            for key in news:  # a list of them is kept apart, for `learned`; first, as it may list what is not written after all
                ask(Operation("H", ("l",), ("l", name_of(key), "", json.dumps(key)), now))
            if self._buckets.written(stored, [states[key] for key in news], now, ask):
                return changed
        raise self._buckets.contended()

    def learned(self) -> dict[str, Learned]:
        """See `quota.Learning`."""
        ask = self._asking()
        keys = [json.loads(text) for text in filter(None, ask(Operation("V", ("l",), ("l",))).split("\n"))]
        texts = ask(self._buckets.looking(keys, 0.0)).split("\n") if keys else []
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
        ledger: Ledger | None = getattr(self, "_ledger", None)  # a traceback may show one that is half built
        return f"<{type(self).__name__} {ledger.server if ledger else ''}{' closed' if ledger and self._closed else ''}>"

    def _open_carrier(self) -> Carrier:
        """A way to the server; a store of its own says how."""
        raise NotImplementedError

    def _explained(self, exc: Exception) -> tuple[QuotaStoreError, bool]:
        """What an exception of the client library means, and whether to try again; likewise."""
        raise NotImplementedError

    def _forked(self) -> None:
        """In a forked child: no lock that a thread of the parent held."""
        self._mirror = Mirror()
        self._ledger.forked()

    def _asking(self, max_wait: float | None = None, trips: float = 0.0) -> Ask:
        """How to ask within what one verb may take in all; where others are faster each time, they are made to wait."""
        lanes = self._lanes
        lanes.check_open()
        end = lanes.deadline(max_wait, trips)
        lost, token = 0, ""

        def ask(operation: Operation) -> str:
            nonlocal lost, token
            asked = operation
            if lost >= LOST_WRITES and operation.verb in _CLAIMING:
                token = token or f"{self._numbers.next():x}"
                asked = self._claiming(operation, token)
            while (answer := lanes.ask(asked, end)) == "w":
                lanes.pause(end)
            if answer[:1] == "n" and operation.verb in ("W", "A"):
                lost += 1
            return answer

        return ask

    def _claiming(self, operation: Operation, token: str) -> Operation:
        """The same operation, while others wait."""
        args = [token, _milliseconds(CLAIM_S + _TO_SETTLE * self._lanes.round_trip), operation.verb, *operation.args]
        claiming = Operation("C", operation.names, args, operation.now, operation.undo)
        claiming.along = operation.along
        return claiming

    def _looked(self, keys: Sequence[str], now: float, max_wait: float | None, ask: Ask) -> tuple[dict[str, BucketState], str]:
        """The buckets and the holds, in one round trip."""
        for _ in range(TRIES):
            both = (self._buckets.looking(keys, now), _seeing_holds(now))
            looking, holds = self._lanes.ask_together(both, self._lanes.deadline(max_wait))
            stored = self._buckets.read(keys, looking, now, ask)
            if stored is not None:
                return {key: each.state for key, each in stored.items()}, holds
        raise self._buckets.contended()

    def _rode_along(self, keys: Sequence[str], along: Sequence[Operation], at: float) -> None:
        """Takes notice of a look that came with a reservation; without one, the next look is made again."""
        looked, holds = (operation.answer for operation in along)
        texts = looked.split("\n") if looked else ()
        self._mirror.forget(keys)
        if holds is not None and len(texts) == len(keys) and all(texts):
            with contextlib.suppress(QuotaStoreError):
                stored = {key: read_bucket(key, text) for key, text in zip(keys, texts, strict=True)}
                self._mirror.saw_all({key: each.state for key, each in stored.items() if each is not None}, holds, at)

    def _reserving(
        self, ident: int, wants: Wants, sums: Mapping[str, float], known: Sequence[KnownBucket], now: float
    ) -> tuple[Reservation, Operation]:
        name, until = f"{ident:x}", now
        args: list[str] = []
        runs = {}
        for (key, amount), each in zip(sums.items(), known, strict=True):
            running = runs[key] = each.at(now)
            if running.expires_at > until:
                until = running.expires_at
            args += running.words
            args.append(repr(float(amount)))
        limits = {key: each.limit for key, each in zip(sums, known, strict=True)}
        taken = Reservation(ident, wants, [runs[key].window for key, _ in wants], [limits[key] for key, _ in wants])
        taken.until = until
        ttl = _milliseconds(until - now + GRACE_S)

        def undoing() -> Operation:
            undo = [name, "undo", ttl]
            for key, amount in sums.items():
                undo += (*runs[key].words[:3], repr(-float(amount)))
            back = Operation("U", entries, undo, now)
            back.then = lambda ask: self._settled("U", taken, [0.0] * len(wants), "undo", now, ask)
            return back

        entries = [f"r:{name}", *[each.entry for each in known]]
        return taken, Operation("R", entries, [name, ttl, repr(float(now)), *args], now, undoing)

    def _decided(
        self, answer: str, taken: Reservation, sums: Mapping[str, float], now: float, ask: Ask
    ) -> Reservation | Refusal | None:
        """The outcome of a reservation that the server handed back; None if somebody was faster."""
        if answer == "d":
            raise QuotaStoreError(f"{self._ledger.server} had already dropped the reservation; call again")
        stored = self._buckets.read(tuple(sums), answer[2:], now, ask)
        if stored is None:
            return None
        self._ledger.check_lost(stored, now)
        states = {key: each.state for key, each in stored.items()}
        outcome = admit(states, taken.wants, now, taken.id)
        if isinstance(outcome, Refusal):
            self._mirror.saw(states)
            return outcome if self._buckets.written(stored, note(states, tuple(sums), now), now, ask) else None
        outcome.until = max([now, *[state.counter.expires_at for state in states.values()]])
        ttl = _milliseconds(outcome.until - now + GRACE_S)
        written = ask(self._buckets.writing(stored, states.values(), now, "o", f"{taken.id:x}", "", ttl))
        if written != "y":
            return None
        self._mirror.saw(states)
        return outcome

    def _settled(
        self, verb: str, reservation: Reservation, amounts: Sequence[float] | None, token: str, now: float, ask: Ask
    ) -> bool:
        """Settles as asked; False if it was settled before. `verb`: "S", or "U" where it may never have been reserved."""
        ident, ttl = f"{reservation.id:x}", _KEPT
        args, entries, keys = [ident, token, ttl], [f"r:{ident}"], []
        if amounts is not None:
            settle({}, reservation, amounts)  # raises for nonsense
            deltas: dict[str, float] = {}
            places: dict[str, int] = {}
            for place, ((key, reserved), amount) in enumerate(zip(reservation.wants, amounts, strict=True)):
                if amount != reserved:
                    deltas[key] = deltas.get(key, 0.0) + amount - reserved
                places.setdefault(key, place)
            for key, delta in deltas.items():
                place = places[key]
                words = self._buckets.settling(key, reservation.limits[place], reservation.window_ids[place])
                args += words
                args.append(repr(delta))
                entries.append(f"b:{words[0]}")
                keys.append(key)
        operation = Operation(verb, entries, args, now)
        for _ in range(TRIES):
            answer = ask(operation)
            if answer[:1] == "n":
                texts = answer[2:].split("\n")
                found = {key: read_bucket(key, text) for key, text in zip(keys, texts, strict=True)}
                stored = {key: each for key, each in found.items() if each is not None}
                changed = settle({key: each.state for key, each in stored.items()}, reservation, amounts or ())
                answer = ask(self._buckets.writing(stored, changed, now, "s", ident, token, ttl))
            if answer == "y":
                return True
            if answer in ("f", "g"):
                return answer == "g" and reservation.until <= now  # forgotten: its windows have passed, nothing is left
        raise self._buckets.contended()


def _seeing_holds(now: float) -> Operation:
    return Operation("V", ("h",), ("h",), now)


def _redefining(bucket: Bucket, now: float) -> Change:
    return lambda known: redefined(known, bucket, now)


def _milliseconds(seconds: float) -> str:
    return str(max(1, int(seconds * 1000)))


def _checked(amount: float) -> float:
    if amount.__class__ not in (int, float) or not 0 <= amount <= MAX_AMOUNT:
        raise nonsense(amount)
    return amount
