"""Keeps quota in one SQLite file: exact over threads and processes, and it survives a crash.

Strategy: one row a bucket holds its whole count, so that the file stays as small as the number of buckets; one row an
open reservation is deleted when it is settled, or once its windows have passed. Every method is one transaction that
takes the write lock first (BEGIN IMMEDIATE) and waits for it in short random naps, so that no process is shut out.
One connection a process behind a lock, closed over a fork. The bookkeeping is `quota_counting`'s, the care for the file
`quota_file`'s. Must never know how counting works.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self, TypeVar

from .errors import ConfigError, QuotaStoreError
from .frozen import shown_once_made
from .limits import Limit
from .quota import Bucket, Headroom, Hold, Refusal, Reservation, allowance_key
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
from .quota_file import QuotaFile
from .quota_learned import Learned, Observation, packed, unpacked
from .quota_windows import WindowCounter, counter_of_version_1, counter_unpacked
from .validation import check_choice, check_path

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")
_Unpacking = Callable[[Limit, bytes], WindowCounter]

_APPLICATION_ID = 0x49524C47
_SCHEMA_VERSION = 3
_SCHEMA = (
    "CREATE TABLE bucket (id INTEGER PRIMARY KEY, key TEXT UNIQUE, amount REAL, kind TEXT, state BLOB, learned TEXT)",
    "CREATE TABLE reservation (until REAL, id INTEGER, PRIMARY KEY (until, id)) WITHOUT ROWID",
    "CREATE TABLE hold (key TEXT PRIMARY KEY, until REAL, reason TEXT, made REAL) WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)
_PRUNE_EVERY = 64
_PRUNE_AT_MOST = 256
_PRUNE_AFTER = 2 * 86400.0  # seconds by which a clock may step back and still find them
_PAGE_BYTES = 2048
_LOG_BYTES = 4_000_000
_OLDEST_SQLITE = (3, 15, 0)


class SQLiteQuotaStore:
    """Counts in the file `path`, created (mode 0600) if there is none; its folder must exist and be on a local disk.

    `synchronous`: "NORMAL" survives any crash of a process, "FULL" also the loss of power, at about a tenth of the speed.
    `busy_timeout`: seconds to wait for other processes' locks before a method gives up. `sleep`: how to wait, in seconds.
    An empty file is taken as new. Raises ConfigError for a wrong path or `synchronous`, QuotaStoreError for a file that
    cannot be used, saying why and what to do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        synchronous: str = "NORMAL",
        *,
        busy_timeout: float = 5.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        problems = {"path": check_path(path), "synchronous": check_choice(synchronous, ("NORMAL", "FULL"))}
        if any(problems.values()):
            raise ConfigError([f"quota.{name}: {problem}" for name, problem in problems.items() if problem])
        self._file = QuotaFile(os.path.abspath(os.path.expanduser(os.fsdecode(path))))
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._sleep = sleep
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None
        self._pid = os.getpid()
        self._closed = False
        self._states: dict[str, BucketState] = {}
        self._rows: dict[str, int] = {}
        self._version = 0
        self._idents = _idents()
        self._verb(lambda db: None)
        _STORES.add(self)

    def define(self, buckets: Sequence[Bucket], now: float) -> None:
        def work(db: sqlite3.Cursor) -> None:
            for bucket in buckets:
                self._redefine(db, redefined(self._state(db, bucket.key), bucket, now))

        self._verb(work)

    def headroom(self, keys: Sequence[str], now: float) -> list[Headroom]:
        def work(db: sqlite3.Cursor) -> tuple[list[Headroom], bool]:
            return headrooms_of(self._load(db, keys), keys, now)

        headrooms, to_note = self._verb(work, "BEGIN")
        if to_note:
            self._verb(lambda db: self._save(db, note(self._load(db, keys), keys, now)))
        return headrooms

    def reserve(self, wants: Sequence[tuple[str, float]], now: float) -> Reservation | Refusal:
        def work(db: sqlite3.Cursor) -> Reservation | Refusal:
            states = self._load(db, [key for key, _ in wants])
            taken = admit(states, wants, now, next(self._idents))
            if isinstance(taken, Refusal):
                self._save(db, note(states, [key for key, _ in wants], now))
            else:
                charged = [states[key] for key, _ in wants]
                taken.until = max([now, *[state.counter.expires_at for state in charged]])
                self._save(db, charged)
                db.execute("INSERT INTO reservation VALUES (?, ?)", (taken.until, taken.id))
                if taken.id % _PRUNE_EVERY == 0:
                    db.execute(_PRUNE, (now - _PRUNE_AFTER, _PRUNE_AT_MOST))
            return taken

        return self._verb(work)

    def commit(self, reservation: Reservation, now: float, amounts: Sequence[float] | None = None) -> bool:
        def work(db: sqlite3.Cursor) -> bool:
            row = (reservation.until, reservation.id)
            if not db.execute("DELETE FROM reservation WHERE until = ? AND id = ?", row).rowcount:
                return reservation.until <= now  # perhaps pruned: its windows have passed, nothing is left to correct
            if amounts is not None:
                self._save(db, settle(self._load(db, reservation.keys), reservation, amounts))
            return True

        if reservation.settled:
            self._check_open()
            return False
        settled = self._verb(work, looks=False)
        reservation.settled = True
        return settled

    def rollback(self, reservation: Reservation, now: float) -> bool:
        return self.commit(reservation, now, [0.0] * len(reservation.wants))

    def hold(self, key: str, until: float, reason: str, now: float) -> None:
        def work(db: sqlite3.Cursor) -> None:
            old = _holds(db, "WHERE key = ?", key).get(key)
            _keep_hold(db, key, old, merged_hold(old, Hold(key, until, reason), now))

        self._verb(work)

    def holds(self, now: float) -> dict[str, Hold]:
        def work(db: sqlite3.Cursor) -> None:
            for key, held in _holds(db).items():
                _keep_hold(db, key, held, live_hold(*held, now))

        kept = self._verb(_holds, "BEGIN")
        live = {key: live_hold(*held, now) for key, held in kept.items()}
        if live != kept:
            self._verb(work)
        return {key: held[0] for key, held in live.items() if held is not None}

    def set_quota(self, account_id: str, amount: float, unit: str) -> None:
        key = allowance_key(account_id)

        def work(db: sqlite3.Cursor) -> None:
            self._redefine(db, with_quota(self._state(db, key), key, amount, unit))

        self._verb(work)

    def pinned(self, keys: Sequence[str]) -> frozenset[str]:
        """Those of `keys` whose amount was set by `set_quota`."""
        states = self._verb(lambda db: self._load(db, keys), "BEGIN")
        return frozenset(key for key in keys if key in states and states[key].pinned)

    def observe(self, observations: Sequence[Observation], now: float) -> list[bool]:
        """See `quota.Learning`."""

        def work(db: sqlite3.Cursor) -> list[bool]:
            states = self._load(db, [seen.key for seen in observations])
            changed = observe(states, observations, now)
            news = {seen.key for seen, new in zip(observations, changed, strict=True) if new}
            self._save(db, [states[key] for key in news])
            rows = [(packed(states[key].learned), self._rows[key]) for key in news]
            db.executemany("UPDATE bucket SET learned = ? WHERE id = ?", rows)
            return changed

        return self._verb(work)

    def learned(self) -> dict[str, Learned]:
        """See `quota.Learning`."""

        def work(db: sqlite3.Cursor) -> list[tuple[str]]:
            found = db.execute("SELECT key FROM bucket WHERE learned != ''").fetchall()
            self._load(db, [key for (key,) in found])
            return found

        return learned_of(self._states[key] for (key,) in self._verb(work, "BEGIN"))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @shown_once_made
    def __repr__(self) -> str:
        return f"<SQLiteQuotaStore {self._file.path!r}{' closed' if self._closed else ''}>"

    def _verb(self, work: Callable[[sqlite3.Cursor], T], begin: str = "BEGIN IMMEDIATE", looks: bool = True) -> T:
        """Runs `work` in one transaction, again while others hold the lock; the one place where sqlite3's errors end.

        `looks`: whether to look that the file is still there, which only what admits or shows something needs.
        """
        import random
        import sqlite3

        waited = 0.0
        with self._lock:
            self._check_open()
            while True:
                try:
                    return self._transaction(work, begin, looks)
                except (sqlite3.Error, UnicodeError, OverflowError) as exc:
                    if not _is_busy(exc) or waited >= self._busy_timeout:
                        raise self._file.explained(exc) from exc
                longest = 0.002 if waited < 0.02 else 0.0005  # who has waited long looks more often
                pause = random.uniform(0.0002, longest)  # noqa: S311 - spreads waiters, guards nothing
                self._sleep(pause)
                waited += pause

    def _transaction(self, work: Callable[[sqlite3.Cursor], T], begin: str, looks: bool) -> T:
        db = self._connected()
        db.execute(begin)
        try:
            if looks:
                self._file.check()
            version = db.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:  # another connection has written since
                self._states.clear()
                self._version = version
            result = work(db)
            db.execute("COMMIT")
        except BaseException:
            self._forget()
            if db.connection.in_transaction:
                db.execute("ROLLBACK")
            raise
        return result

    def _state(self, db: sqlite3.Cursor, key: str) -> BucketState | None:
        state = self._states.get(key)
        if state is None:
            row = db.execute("SELECT id, amount, kind, state, learned FROM bucket WHERE key = ?", (key,)).fetchone()
            if row is not None:
                self._rows[key], *stored = row
                state = self._states[key] = self._read(key, *stored)
        return state

    def _read(
        self, key: str, amount: Any, kind: Any, state: Any, learned: Any = "", counter: _Unpacking = counter_unpacked
    ) -> BucketState:
        try:
            return BucketState(key, counter(_limit(amount, kind), state), kind.endswith(" set"), unpacked(learned))
        except (ValueError, TypeError, AttributeError, ConfigError, QuotaStoreError) as exc:
            raise self._file.damaged(f"bucket {key!r} cannot be read") from exc

    def _load(self, db: sqlite3.Cursor, keys: Iterable[str]) -> dict[str, BucketState]:
        """Every entry that was read since the file was last changed by others, those of `keys` among them."""
        for key in keys:
            if key not in self._states:
                self._state(db, key)
        return self._states

    def _redefine(self, db: sqlite3.Cursor, state: BucketState) -> None:
        limit = state.counter.limit
        if self._states.get(state.key) is not state:
            pinned = " set" if state.pinned else ""
            kind = f"{limit.unit} {limit.window} {'rolling' if limit.rolling else 'calendar'} {limit.zone}{pinned}"
            row = (float(limit.amount), kind, state.counter.pack(), packed(state.learned), state.key)
            if state.key in self._rows:
                db.execute("UPDATE bucket SET amount = ?, kind = ?, state = ?, learned = ? WHERE key = ?", row)
            else:
                db.execute("INSERT INTO bucket (amount, kind, state, learned, key) VALUES (?, ?, ?, ?, ?)", row)
                self._rows[state.key] = db.lastrowid or 0
            self._states[state.key] = state

    def _save(self, db: sqlite3.Cursor, states: Iterable[BucketState]) -> None:
        rows = [(state.counter.pack(), self._rows[state.key]) for state in states]
        if rows:
            db.executemany("UPDATE bucket SET state = ? WHERE id = ?", rows)

    def _forget(self) -> None:
        self._states.clear()
        self._rows.clear()

    def _connected(self) -> sqlite3.Cursor:
        if self._pid != os.getpid():
            self._forked()
        if self._cursor is None:
            with _OPENING:
                self._db = self._connect()
            self._cursor = self._db.cursor()
        return self._cursor

    def _connect(self) -> sqlite3.Connection:
        import sqlite3

        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise QuotaStoreError(f"SQLite {sqlite3.sqlite_version} is too old for a quota store; 3.15 or newer is needed")
        fresh = not self._file.known
        if fresh:
            self._file.prepare()
        db = sqlite3.connect(self._file.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._file.check(may_be_empty=fresh)
            self._check_owner(db)
            if fresh and (damage := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise self._file.damaged(damage)
            db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_BYTES // _PAGE_BYTES}")
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            self._migrate(db, db.execute("PRAGMA user_version").fetchone()[0])
            for statement in _SCHEMA if _is_blank(db) else _SCHEMA[-1:]:  # always shows whether it can be written
                db.execute(statement)
            db.execute("COMMIT")
        except BaseException:
            db.close()
            if fresh:
                self._file.forget()
            raise
        return db

    def _migrate(self, db: sqlite3.Connection, version: int) -> None:
        """Brings a file of an earlier schema version into today's form; nothing that it counts is lost."""
        if version == 1:  # counted by rings
            for ident, key, amount, kind, old in db.execute("SELECT id, key, amount, kind, state FROM bucket").fetchall():
                state = self._read(key, amount, kind, old, counter=counter_of_version_1)
                db.execute("UPDATE bucket SET state = ? WHERE id = ?", (state.counter.pack(), ident))
        if version in (1, 2):  # learned nothing
            db.execute("ALTER TABLE bucket ADD COLUMN learned TEXT DEFAULT ''")

    def _check_owner(self, db: sqlite3.Connection) -> None:
        db.execute("BEGIN")  # all in one look, as another process may be making the file at this very moment
        application = db.execute("PRAGMA application_id").fetchone()[0]
        version = db.execute("PRAGMA user_version").fetchone()[0]
        blank = _is_blank(db)
        db.execute("COMMIT")
        if application != _APPLICATION_ID and (application or not blank):
            raise self._file.unusable("is another program's database", "name a file of its own; this one was left untouched")
        if version > _SCHEMA_VERSION:
            raise self._file.unusable(
                f"has schema version {version}, newer than the {_SCHEMA_VERSION} known here",
                "update this library, or name another file",
            )

    def _check_open(self) -> None:
        if self._closed:
            raise self._file.unusable("is closed", "make a new store")

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = self._cursor = None
            self._forget()

    def _forked(self) -> None:
        """Lets go of a connection that belongs to the parent, without closing it: that would free the parent's locks."""
        _INHERITED.append((self._db, self._cursor))
        self._db = self._cursor = None
        self._forget()
        self._pid = os.getpid()
        self._idents = _idents()


_PRUNE = (
    "DELETE FROM reservation WHERE (until, id) IN (SELECT until, id FROM reservation WHERE until <= ? ORDER BY until LIMIT ?)"
)
_OPENING = threading.Lock()
_STORES: weakref.WeakSet[SQLiteQuotaStore] = weakref.WeakSet()
_FORKING: list[SQLiteQuotaStore] = []
_INHERITED: list[Any] = []


def _holds(db: sqlite3.Cursor, where: str = "", *values: str) -> dict[str, tuple[Hold, float]]:
    rows = db.execute(f"SELECT key, until, reason, made FROM hold {where}", values)  # noqa: S608 - constant texts only
    return {key: (Hold(key, until, reason), made) for key, until, reason, made in rows}


def _keep_hold(db: sqlite3.Cursor, key: str, old: object, new: tuple[Hold, float] | None) -> None:
    if new is None:
        db.execute("DELETE FROM hold WHERE key = ?", (key,))
    elif new != old:
        hold, made = new
        db.execute("INSERT OR REPLACE INTO hold VALUES (?, ?, ?, ?)", (key, hold.until, hold.reason, made))


@lru_cache(maxsize=4096)
def _limit(amount: float, kind: str) -> Limit:
    unit, window, rolling, zone = kind.removesuffix(" set").split(" ", 3)
    return Limit(amount, unit, window, rolling == "rolling", zone)


def _is_blank(db: sqlite3.Connection) -> bool:
    return not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _is_busy(exc: Exception) -> bool:
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF in (5, 6)


def _idents() -> itertools.count[int]:
    """Numbers no other process gives out: counted from a random one."""
    return itertools.count(int.from_bytes(os.urandom(7), "big"))


def _before_fork() -> None:
    """SQLite's memory of locks must not be copied into a child: no connection stays open while a process forks."""
    for store in list(_STORES):
        store._lock.acquire()
        _FORKING.append(store)
        store._disconnect()


def _after_fork() -> None:
    while _FORKING:
        _FORKING.pop()._lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
