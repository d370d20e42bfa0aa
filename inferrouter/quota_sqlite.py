"""Keeps quota in one SQLite file: exact over threads and processes, and it survives a crash.

Strategy: one row a bucket holds its whole count, so that the file stays as small as the number of buckets; one row an
open reservation is deleted when it is settled, or once its windows have passed. Every method is one transaction that
takes the write lock first (BEGIN IMMEDIATE) and waits for it in short random naps, so that no process is shut out.
One connection a process, used by one thread at a time, never while it waits; closed over a fork. The bookkeeping is
`quota_counting`'s, the care for the file `quota_file`'s. Must never know how counting works.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .errors import ConfigError, QuotaStoreError
from .frozen import shown_once_made
from .own_process import PROCESS, OwnNumbers
from .quota import FORGET_HOLDS_S, Bucket, Headroom, Hold, Refusal, Reservation, allowance_key
from .quota_counting import (
    admit,
    headrooms_of,
    learned_of,
    live_hold,
    merged_hold,
    note,
    observe,
    redefined,
    settle,
    shown_with,
    unknown_bucket,
    with_quota,
)
from .quota_file import QuotaFile
from .quota_learned import Learned, Observation
from .quota_schema import open_database
from .quota_seen import Groups, Look, look_again, whole_look
from .quota_session import HoldRows, Session
from .turn import Holder, Turn
from .validation import check_choice, check_path

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")

_PRUNE_EVERY = 64
_PRUNE_AT_MOST = 256
_PRUNE_AFTER = 2 * 86400.0  # seconds by which a clock may step back and still find them
_MOST_KEPT = 64  # sets of keys of which the holds, once read, are kept
_FEW_KEYS = 400  # of which holds are looked up one by one
_CLOSE_WAIT_S = 1.0
_TIDY_WAIT_S = 0.05
_FORK_WAIT_S = 5.0


class SQLiteQuotaStore:
    """Counts in the file `path`, created (mode 0600) if there is none; its folder must exist and be on a local disk.

    `synchronous`: "NORMAL" survives any crash of a process, "FULL" also the loss of power, at about a tenth of the speed.
    `busy_timeout`: seconds to wait for other processes' locks before a method gives up; a method's `max_wait` may be less.
    `sleep`: how to wait, in seconds; `monotonic`: how waits are measured. An empty file is taken as new. Raises ConfigError for a
    wrong path or `synchronous`, QuotaStoreError for a file that cannot be used, saying why and what to do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        synchronous: str = "NORMAL",
        *,
        busy_timeout: float = 5.0,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        problems = {"path": check_path(path), "synchronous": check_choice(synchronous, ("NORMAL", "FULL"))}
        if any(problems.values()):
            raise ConfigError([f"quota.{name}: {problem}" for name, problem in problems.items() if problem])
        self._file = QuotaFile(os.path.abspath(os.path.expanduser(os.fsdecode(path))))
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._sleep = sleep
        self._clock = monotonic
        self._turn = Turn(monotonic)
        self._session: Session | None = None
        self._closed = False
        self._idents = OwnNumbers()
        self._held = itertools.count()
        _STORES.add(self)
        self._verb(lambda session: None)

    def define(self, buckets: Sequence[Bucket], now: float, *, max_wait: float | None = None) -> None:
        def work(session: Session) -> None:
            for bucket in buckets:
                session.redefine(redefined(session.state(bucket.key), bucket, now))

        self._verb(work, max_wait=max_wait)

    def headroom(self, keys: Sequence[str], now: float, *, max_wait: float | None = None) -> list[Headroom]:
        headrooms, to_note = self._verb(lambda session: headrooms_of(session.load(keys), keys, now), "BEGIN", max_wait=max_wait)
        if to_note:
            self._note(keys, now)
        return headrooms

    def look_at_groups(self, groups: Groups, before: Look | None, now: float, *, max_wait: float | None = None) -> Look:
        """See `guarded_store.GuardedStore.look`."""

        def work(session: Session) -> tuple[Look, bool]:
            changes, number = session.changes, session.number
            try:
                again = look_again(groups, before, changes, number, session.count, now)
                if again is not None:
                    return again, False
                shown, to_note = shown_with([session.count(key) for key in groups.keys], now)
            except KeyError as exc:
                raise unknown_bucket(exc.args[0]) from None
            return whole_look(groups, changes, number, shown, to_note), to_note

        found, to_note = self._verb(work, "BEGIN", max_wait=max_wait)
        if to_note:
            self._note(groups.keys, now)
        return found

    def reserve(self, wants: Sequence[tuple[str, float]], now: float, *, max_wait: float | None = None) -> Reservation | Refusal:
        keys = [key for key, _ in wants]

        def work(session: Session) -> Reservation | Refusal:
            states = session.load(keys)
            taken = admit(states, wants, now, self._idents.next())
            if isinstance(taken, Refusal):
                session.save(note(states, keys, now))
            else:
                charged = [states[key] for key in keys]
                taken.until = max([now, *[state.counter.expires_at for state in charged]])
                session.save(charged)
                session.cursor.execute("INSERT INTO reservation VALUES (?, ?)", (taken.until, taken.id))
                if taken.id % _PRUNE_EVERY == 0:
                    session.cursor.execute(_PRUNE, (now - _PRUNE_AFTER, _PRUNE_AT_MOST))
            return taken

        return self._verb(work, max_wait=max_wait)

    def commit(
        self,
        reservation: Reservation,
        now: float,
        amounts: Sequence[float] | None = None,
        *,
        max_wait: float | None = None,
    ) -> bool:
        def work(session: Session) -> bool:
            row = (reservation.until, reservation.id)
            if not session.cursor.execute("DELETE FROM reservation WHERE until = ? AND id = ?", row).rowcount:
                return reservation.until <= now  # perhaps pruned: its windows have passed, nothing is left to correct
            if amounts is not None:
                session.save(settle(session.load(reservation.keys), reservation, amounts))
            return True

        if reservation.settled:
            self._check_open()
            return False
        settled = self._verb(work, looks=False, max_wait=max_wait)
        reservation.settled = True
        return settled

    def rollback(self, reservation: Reservation, now: float) -> bool:
        return self.commit(reservation, now, [0.0] * len(reservation.wants))

    def hold(self, key: str, until: float, reason: str, now: float, *, max_wait: float | None = None) -> None:
        def work(session: Session) -> None:
            session.holds.clear()
            old = _holds(session.cursor, [key]).get(key)
            _keep_hold(session.cursor, key, old, merged_hold(old, Hold(key, until, reason), now))
            if next(self._held) % _PRUNE_EVERY == 0:
                session.cursor.execute("DELETE FROM hold WHERE until <= ?", (now - FORGET_HOLDS_S,))

        self._verb(work, max_wait=max_wait)

    def holds(self, now: float, keys: Sequence[str] | None = None, *, max_wait: float | None = None) -> dict[str, Hold]:
        def work(session: Session) -> None:
            session.holds.clear()
            for key, held in _holds(session.cursor, list(kept)).items():
                _keep_hold(session.cursor, key, held, live_hold(*held, now))

        kept = self._verb(lambda session: _read_holds(session, keys), "BEGIN", max_wait=max_wait)
        if not kept:
            return {}
        live = {key: live_hold(*held, now) for key, held in kept.items()}
        if live != kept:  # what is over is over, and a clock's step back moves them for good
            self._tidy(work)
        return {key: held[0] for key, held in live.items() if held is not None}

    def set_quota(self, account_id: str, amount: float, unit: str) -> None:
        key = allowance_key(account_id)
        self._verb(lambda session: session.redefine(with_quota(session.state(key), key, amount, unit)))

    def pinned(self, keys: Sequence[str]) -> frozenset[str]:
        """Those of `keys` whose amount was set by `set_quota`."""

        def work(session: Session) -> frozenset[str]:
            states = session.load(keys)
            return frozenset(key for key in keys if key in states and states[key].pinned)

        return self._verb(work, "BEGIN")

    def observe(self, observations: Sequence[Observation], now: float, *, max_wait: float | None = None) -> list[bool]:
        """See `quota.Learning`."""

        def work(session: Session) -> list[bool]:
            states = session.load([seen.key for seen in observations])
            changed = observe(states, observations, now)
            news = {seen.key for seen, new in zip(observations, changed, strict=True) if new}
            session.save_learned([states[key] for key in news])
            return changed

        return self._verb(work, max_wait=max_wait)

    def learned(self) -> dict[str, Learned]:
        """See `quota.Learning`."""

        def work(session: Session) -> dict[str, Learned]:
            found = session.cursor.execute("SELECT key FROM bucket WHERE learned != ''").fetchall()
            states = session.load([key for (key,) in found])
            return learned_of(states[key] for (key,) in found)

        return self._verb(work, "BEGIN")

    def close(self) -> None:
        self._closed = True  # whoever has the connection closes it when done
        holder = Holder()
        try:
            self._turn.take(holder, _CLOSE_WAIT_S)
        finally:
            self._leave(holder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @shown_once_made
    def __repr__(self) -> str:
        return f"<SQLiteQuotaStore {self._file.path!r}{' closed' if self._closed else ''}>"

    def _verb(
        self,
        work: Callable[[Session], T],
        begin: str = "BEGIN IMMEDIATE",
        looks: bool = True,
        max_wait: float | None = None,
    ) -> T:
        """Runs `work` in one transaction, again while others hold the lock; the one place where sqlite3's errors end."""
        import sqlite3

        patience = _Patience(self._busy_timeout if max_wait is None else min(max_wait, self._busy_timeout), self._clock)
        holder = Holder()
        try:
            while True:
                try:
                    return self._once(holder, patience, work, begin, looks)
                except (sqlite3.Error, UnicodeError, OverflowError) as exc:
                    if not holder.cut and not (_is_busy(exc) and patience.left > 0):
                        raise self._file.explained(exc) from exc
                if holder.cut:  # a signal handler's use came in the midst of this one
                    holder = Holder()
                else:
                    patience.nap(self._sleep)
        finally:
            self._leave(holder)  # once more, as an interrupt may have kept `_once` from it
            if holder.cut:
                self._end_what_is_left()

    def _note(self, keys: Sequence[str], now: float) -> None:
        def work(session: Session) -> None:
            session.save(note(session.load(keys), keys, now))
            session.note_changed(keys)  # which may also have another limit by now

        self._tidy(work)

    def _tidy(self, work: Callable[[Session], object]) -> None:
        """Write what reading found to be due, unless others keep the file busy: then the next look finds it again."""
        with suppress(QuotaStoreError):
            self._verb(work, max_wait=_TIDY_WAIT_S)

    def _once(self, holder: Holder, patience: _Patience, work: Callable[[Session], T], begin: str, looks: bool) -> T:
        gate = Holder()
        try:
            session = self._usable()
            if session is None:
                self._take(_OPENING, gate, patience)
            self._take(self._turn, holder, patience)
            self._check_open()
            session = self._usable() or self._opened(gate, holder)
            if holder.took_over or session.busy or session.db.in_transaction:
                session = self._session = session.taken_over()
            return session.run(work, begin, looks)
        finally:
            self._leave(holder)
            _OPENING.give(gate)

    def _leave(self, holder: Holder) -> None:
        """Give the connection back as it was got: without a transaction."""
        if self._turn.held_by(holder):
            session = self._usable()
            if session is not None:
                session.end()
                if self._closed:
                    self._disconnect()
            self._turn.give(holder)

    def _end_what_is_left(self) -> None:
        """Roll back what work that was cut, and so had the turn no more, left open when it failed."""
        holder = Holder()
        try:
            self._turn.take(holder)
        finally:
            self._leave(holder)

    def _take(self, turn: Turn, holder: Holder, patience: _Patience) -> None:
        if not turn.take(holder, patience.left):
            raise self._file.locked()

    def _usable(self) -> Session | None:
        """The open connection, if there is one of this process."""
        session = self._session
        if session is not None and session.pid != PROCESS.pid:
            # The parent's: it is not closed, which would free the parent's locks.
            _INHERITED.append(session)
            session = self._session = None
        return session

    def _opened(self, gate: Holder, holder: Holder) -> Session:
        import sqlite3

        if _OPENING.held_by(gate):  # else a fork has closed the connection since it was looked for
            db = open_database(self._file, self._synchronous, self._sleep)
            if self._turn.held_by(holder) and _OPENING.held_by(gate):
                session = self._session = Session(db, self._file)
                return session
            db.close()
        holder.cut = True
        raise sqlite3.ProgrammingError("another connection was opened meanwhile")

    def _check_open(self) -> None:
        if self._closed:
            raise self._file.unusable("is closed", "make a new store")

    def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()


class _Patience:
    """How long one method still waits. Naps count as long as they were meant to be, if the clock does not show them."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = monotonic
        self._began = monotonic()
        self._slept = 0.0

    @property
    def left(self) -> float:
        return self._seconds - max(self._slept, self._clock() - self._began)

    def nap(self, sleep: Callable[[float], None]) -> None:
        import random

        longest = 0.002 if self._slept < 0.02 else 0.0005  # who has waited long looks more often
        pause = random.uniform(0.0002, longest)  # noqa: S311 - spreads waiters, guards nothing
        sleep(pause)
        self._slept += pause


_PRUNE = (
    "DELETE FROM reservation WHERE (until, id) IN (SELECT until, id FROM reservation WHERE until <= ? ORDER BY until LIMIT ?)"
)
_OPENING = Turn()
_STORES: weakref.WeakSet[SQLiteQuotaStore] = weakref.WeakSet()
_FORKS: dict[int, list[tuple[Turn, Holder]]] = {}
_INHERITED: list[Any] = []


def _read_holds(session: Session, keys: Sequence[str] | None) -> HoldRows:
    """The holds of `keys`, read once as long as nobody writes one. They are not to be changed."""
    known = session.holds.get(id(keys))
    if known is not None and known[0] is keys:
        return known[1]
    found = _holds(session.cursor, keys)
    if keys is None or keys.__class__ is tuple:  # else the keys may change
        if len(session.holds) >= _MOST_KEPT:
            session.holds.clear()
        session.holds[id(keys)] = keys, found
    return found


def _holds(cursor: sqlite3.Cursor, keys: Iterable[str] | None) -> HoldRows:
    chosen = None if keys is None else list(keys)
    if chosen is None or len(chosen) > _FEW_KEYS:
        rows = cursor.execute("SELECT key, until, reason, made FROM hold").fetchall()
        if chosen is not None:
            wanted = set(chosen)
            rows = [row for row in rows if row[0] in wanted]
    else:
        marks = ",".join("?" * len(chosen))
        query = f"SELECT key, until, reason, made FROM hold WHERE key IN ({marks})"  # noqa: S608 - marks alone
        rows = cursor.execute(query, chosen).fetchall()
    return {key: (Hold(key, until, reason), made) for key, until, reason, made in rows}


def _keep_hold(cursor: sqlite3.Cursor, key: str, old: object, new: tuple[Hold, float] | None) -> None:
    if new is None:
        cursor.execute("DELETE FROM hold WHERE key = ?", (key,))
    elif new != old:
        hold, made = new
        cursor.execute("INSERT OR REPLACE INTO hold VALUES (?, ?, ?, ?)", (key, hold.until, hold.reason, made))


def _is_busy(exc: Exception) -> bool:
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF in (5, 6)


def _before_fork() -> None:
    """SQLite's memory of locks must not be copied into a child: no connection is open, or opened, while a process forks.

    One fork at a time: whoever opens a store waits for it, and it waits for whoever is in a transaction, which none waits in.
    """
    gate = Holder()
    taken = _FORKS[threading.get_ident()] = [(_OPENING, gate)]
    _OPENING.take(gate, _FORK_WAIT_S)
    for store in list(_STORES):
        holder = Holder()
        taken.append((store._turn, holder))
        if store._turn.take(holder, _FORK_WAIT_S):
            store._disconnect()


def _after_fork() -> None:
    for turn, holder in _FORKS.pop(threading.get_ident(), ()):
        turn.give(holder)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
