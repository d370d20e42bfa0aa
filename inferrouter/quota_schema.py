"""Opens a quota file with SQLite: whose it is, which tables it has, and how one of an earlier version is brought up to date.

Strategy: everything that a connection needs before its first use, in one function that leaves nothing open when it fails. A file
that is not ours is left as it is, to the byte. Must never count, nor wait for a lock that others hold.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, QuotaStoreError
from .limits import Limit
from .quota_counting import BucketState
from .quota_file import QuotaFile
from .quota_learned import unpacked
from .quota_windows import WindowCounter, counter_of_version_1, counter_unpacked

if TYPE_CHECKING:
    import sqlite3

_APPLICATION_ID = 0x49524C47
_SCHEMA_VERSION = 3
_SCHEMA = (
    "CREATE TABLE bucket (id INTEGER PRIMARY KEY, key TEXT UNIQUE, amount REAL, kind TEXT, state BLOB, learned TEXT)",
    "CREATE TABLE reservation (until REAL, id INTEGER, PRIMARY KEY (until, id)) WITHOUT ROWID",
    "CREATE TABLE hold (key TEXT PRIMARY KEY, until REAL, reason TEXT, made REAL) WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)
_PAGE_BYTES = 2048
_LOG_BYTES = 4_000_000
_OLDEST_SQLITE = (3, 15, 0)
_BUSY_CODES = (5, 6)
_LOOKS, _LOOK_S = 50, 0.01  # how often, and how many seconds apart, a missing log is looked for


def open_database(file: QuotaFile, synchronous: str, sleep: Callable[[float], None]) -> sqlite3.Connection:
    """A connection to `file`, its tables made. Raises QuotaStoreError, or sqlite3.Error, then nothing stays open."""
    import sqlite3

    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise QuotaStoreError(f"SQLite {sqlite3.sqlite_version} is too old for a quota store; 3.15 or newer is needed")
    fresh = not file.known
    if fresh:
        file.prepare()
    try:
        if fresh and not file.has_companions():
            _check_nobody_counts_elsewhere(file, sleep)
        db = _connect(file)
        try:
            file.check(may_be_empty=fresh)
            _check_owner(db, file)
            if fresh and (damage := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise file.damaged(damage)
            db.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_BYTES // _PAGE_BYTES}")
            db.execute(f"PRAGMA synchronous = {synchronous}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("BEGIN IMMEDIATE")
            _migrate(db, db.execute("PRAGMA user_version").fetchone()[0], file)
            for statement in _SCHEMA if _is_blank(db) else _SCHEMA[-1:]:  # always shows whether it can be written
                db.execute(statement)
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
    except BaseException:
        if fresh:
            file.forget()
        raise
    return db


def read_state(
    file: QuotaFile,
    key: str,
    amount: Any,
    kind: Any,
    state: Any,
    learned: Any = "",
    counter: Callable[[Limit, bytes], WindowCounter] = counter_unpacked,
) -> BucketState:
    """The state that a row of `bucket` holds. Raises QuotaStoreError for one that cannot be."""
    try:
        return BucketState(key, counter(_limit(amount, kind), state), kind.endswith(" set"), unpacked(learned))
    except (ValueError, TypeError, AttributeError, ConfigError, QuotaStoreError) as exc:
        raise file.damaged(f"bucket {key!r} cannot be read") from exc


def kind_of(limit: Limit, pinned: bool) -> str:
    """What of `limit` is written into the column `kind`."""
    return f"{limit.unit} {limit.window} {'rolling' if limit.rolling else 'calendar'} {limit.zone}{' set' if pinned else ''}"


def _connect(file: QuotaFile) -> sqlite3.Connection:
    import sqlite3

    return sqlite3.connect(file.path, timeout=0, isolation_level=None, check_same_thread=False)


def _check_nobody_counts_elsewhere(file: QuotaFile, sleep: Callable[[float], None]) -> None:
    """Refuses a file whose log is missing while others have it open: they count in a log that was deleted, or in one under
    another name of the file, and nobody would see the other. Others may be opening it just now: their log comes soon."""
    for _ in range(_LOOKS):
        if file.has_companions() or _alone_with(file):
            return
        sleep(_LOOK_S)
    raise file.log_gone()


def _alone_with(file: QuotaFile) -> bool:
    """Whether nobody else has the file open: SQLite lets a connection have it for itself only then."""
    import sqlite3

    db = _connect(file)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError as exc:
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF not in _BUSY_CODES:
            raise
        return False
    finally:
        db.close()
    return True


def _migrate(db: sqlite3.Connection, version: int, file: QuotaFile) -> None:
    """Brings a file of an earlier schema version into today's form; nothing that it counts is lost."""
    if version == 1:  # counted by rings
        for ident, key, amount, kind, old in db.execute("SELECT id, key, amount, kind, state FROM bucket").fetchall():
            state = read_state(file, key, amount, kind, old, counter=counter_of_version_1)
            db.execute("UPDATE bucket SET state = ? WHERE id = ?", (state.counter.pack(), ident))
    if version in (1, 2):  # learned nothing
        db.execute("ALTER TABLE bucket ADD COLUMN learned TEXT DEFAULT ''")


def _check_owner(db: sqlite3.Connection, file: QuotaFile) -> None:
    db.execute("BEGIN")  # all in one look, as another process may be making the file at this very moment
    application = db.execute("PRAGMA application_id").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    blank = _is_blank(db)
    db.execute("COMMIT")
    if application != _APPLICATION_ID and (application or not blank):
        raise file.unusable("is another program's database", "name a file of its own; this one was left untouched")
    if version > _SCHEMA_VERSION:
        raise file.unusable(
            f"has schema version {version}, newer than the {_SCHEMA_VERSION} known here",
            "update this library, or name another file",
        )


@lru_cache(maxsize=4096)
def _limit(amount: float, kind: str) -> Limit:
    unit, window, rolling, zone = kind.removesuffix(" set").split(" ", 3)
    return Limit(amount, unit, window, rolling == "rolling", zone)


def _is_blank(db: sqlite3.Connection) -> bool:
    return not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
