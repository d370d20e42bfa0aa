"""Keeps quota on a PostgreSQL server that many machines share, over connections that the caller's function opens.

Strategy: one function of the server does a batch of operations in one round trip and one transaction; the store makes it, and its
tables, in a schema of its own. Each lane has a connection of its own, in autocommit, or takes one from the caller's pool for each
batch. A serialization failure or deadlock is tried again. The verbs are `quota_remote`'s. Must never import a driver, nor rely on
anything that outlives a transaction: a pgbouncer may stand between. What a driver raises ends here, in words that say what to do.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .errors import ConfigError, QuotaStoreError
from .quota_exchange import Exchange, server_error, without_passwords
from .quota_lanes import Carrier
from .quota_postgres_sql import ACT, FUNCTIONS, TABLES, VERSION
from .quota_remote import RemoteQuotaStore


class PostgresQuotaStore(RemoteQuotaStore):
    """Counts in a PostgreSQL database: exact over machines, and as durable as the server (`synchronous_commit = on`).

    `connect`: a function without parameters that returns a connection of psycopg, psycopg2 or pg8000 (which is the store's own
    then), or a context manager that yields one (such as the `connection` of a psycopg pool). `schema`: where its tables and
    functions are made. `timeout`: seconds a verb may take in all. `adopt_empty`: what happens if the tables were lost: False
    refuses each limit until its window has passed, True goes on from zero. `most_lanes`: connections at once.
    Raises ConfigError for a wrong value. Connects with the first verb; each then raises QuotaStoreError naming server and remedy.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        schema: str = "inferrouter",
        *,
        timeout: float = 5.0,
        adopt_empty: bool = False,
        most_lanes: int = 4,
    ) -> None:
        if not callable(connect) or inspect.iscoroutinefunction(connect):
            raise ConfigError(["connect: must be a function that opens a connection, such as lambda: psycopg.connect(dsn)"])
        if not isinstance(schema, str) or not re.fullmatch(r"[a-z_][a-z0-9_]{0,50}", schema):
            raise ConfigError(["schema: must be a name of small letters, digits and underscores"])
        self._connect = connect
        self._schema = schema
        self._made = False
        self._making = threading.Lock()
        super().__init__("PostgreSQL", timeout, adopt_empty, most_lanes, _FAR_S)

    def _open_carrier(self) -> Carrier:
        opened = self._connect()
        if inspect.isawaitable(opened) or "async" in type(opened).__name__.lower():
            with contextlib.suppress(Exception):
                opened.close()
            raise QuotaStoreError("connect opens an asynchronous connection; use psycopg.connect, psycopg2.connect or pg8000")
        if callable(getattr(opened, "cursor", None)):
            own = _Own(opened, self._schema)
            self._named(opened)
            return self._ready(own)
        if callable(getattr(opened, "__enter__", None)):
            return self._ready(_Pooled(self._connect, self._schema))
        raise QuotaStoreError(
            f"connect returned a {type(opened).__name__}, which is not a connection; return what psycopg.connect gives"
        )

    def _forked(self) -> None:
        super()._forked()
        self._making = threading.Lock()

    def _ready(self, way: _Own | _Pooled) -> Carrier:
        try:
            with self._making:
                if not self._made:
                    way.run(self._make)
                    self._made = True
        except BaseException:
            way.close()
            raise
        return Exchange(self._ledger, way.call, way.close)

    def _make(self, cursor: Any, commit: Callable[[], None]) -> None:
        """Makes what is missing of the tables and functions, once over all processes."""
        cursor.execute(f"SELECT to_regprocedure('{self._schema}.{ACT}(text, text, text)') IS NOT NULL")
        (there,) = cursor.fetchone()
        commit()
        if there:
            return
        texts = [text.replace("{schema}", self._schema) for text in (*TABLES, *FUNCTIONS)]
        newer = (
            f"IF EXISTS (SELECT 1 FROM {self._schema}.version WHERE ledger > {VERSION}) THEN RAISE feature_not_supported; END IF"  # noqa: S608 - its name was checked
        )
        parts = [f"EXECUTE $make${text}$make$" for text in texts]
        body = ";\n".join([*parts[:3], newer, *parts[3:]])
        cursor.execute(f"DO $do$ BEGIN PERFORM pg_advisory_xact_lock({_LOCK});\n{body};\nEND $do$")
        commit()

    def _named(self, connection: Any) -> None:
        """Takes host, port and database from what a driver tells of its connection; never a password."""
        with contextlib.suppress(Exception):
            info = connection.info
            self._ledger.server = f"PostgreSQL at {info.host}:{info.port}/{info.dbname}"

    def _explained(self, exc: Exception) -> tuple[QuotaStoreError, bool]:
        if isinstance(exc, QuotaStoreError):
            return exc, False
        code = _sqlstate(exc)
        if code in _DROPPED:  # somebody dropped the schema
            self._made = False
        for begins, remedy, again in _REMEDIES:
            if code.startswith(begins):
                return server_error(self._ledger.server, exc, remedy), again
        again = not code or isinstance(exc, OSError)
        text = without_passwords(str(exc))
        remedy = _REFUSED if "authentication failed" in text else "see that it is up and can be reached"
        return server_error(self._ledger.server, exc, remedy), again and "authentication failed" not in text


class _Own:
    """A connection of the store's own, in autocommit: each statement is a transaction."""

    def __init__(self, connection: Any, schema: str) -> None:
        self._connection = connection
        self._text = _asking(schema)
        connection.autocommit = True
        if hasattr(connection, "prepare_threshold"):
            connection.prepare_threshold = None  # a prepared statement outlives its transaction

    def call(self, names: list[str], args: list[str]) -> str:
        cursor = self._connection.cursor()
        try:
            cursor.execute(self._text, _texts(names, args))
            answers: str = cursor.fetchone()[0]
        finally:
            cursor.close()
        return answers

    def run(self, work: Callable[[Any, Callable[[], None]], None]) -> None:
        cursor = self._connection.cursor()
        try:
            work(cursor, lambda: None)
        finally:
            cursor.close()

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.close()


class _Pooled:
    """A connection of the caller's pool for each batch, given back after its transaction."""

    def __init__(self, connect: Callable[[], Any], schema: str) -> None:
        self._connect = connect
        self._text = _asking(schema)

    def call(self, names: list[str], args: list[str]) -> str:
        found: list[str] = []

        def work(cursor: Any, commit: Callable[[], None]) -> None:
            cursor.execute(self._text, _texts(names, args))
            found.append(cursor.fetchone()[0])
            commit()

        self.run(work)
        return found[-1]

    def run(self, work: Callable[[Any, Callable[[], None]], None]) -> None:
        with self._connect() as connection:
            cursor = connection.cursor()
            try:
                work(cursor, connection.commit)
            except BaseException:
                with contextlib.suppress(Exception):
                    connection.rollback()
                raise
            finally:
                cursor.close()

    def close(self) -> None:
        """The pool is the caller's."""


_FAR_S = 0.005
"""Transactions that touch the same rows wait for each other's commits, so that fewer, larger ones are faster."""
_LOCK = 0x49524C47
"""The advisory lock under which tables are made, as making them twice at once fails."""

_DROPPED = ("42883", "42P01", "3F000")
_REFUSED = "the password or user is wrong"
_REMEDIES: tuple[tuple[str | tuple[str, ...], str, bool], ...] = (
    ("40", "others changed the same limits; call again", True),  # serialization failure, deadlock
    ("55P03", "another transaction holds the ledger's rows; see pg_stat_activity for what is idle in transaction", True),
    ("57014", "a statement was cancelled; raise statement_timeout", True),
    ("57P", "it is starting or shutting down; call again", True),
    ("08", "see that it is up and can be reached", True),
    ("53300", "it has no connection left; raise max_connections or use a pool", True),
    ("53", "it lacks memory or disk; see its log", False),
    ("25P0", "a transaction was ended by a timeout; call again", True),
    ("25006", "this is a standby; connect to the primary", True),
    ("28", _REFUSED, False),
    ("3D", "the database does not exist; create it, or name another", False),
    ("42501", "the user may not do this; GRANT CREATE ON DATABASE, or let a user who may make the store once", False),
    (_DROPPED, "its tables or functions were dropped; call again", True),
    (("23505", "XX000"), "others made the same tables at this moment; call again", True),
    ("0A000", "its tables are of a newer version; update this library, or name another schema", False),
)
"""How a code begins, or how several do, with the remedy and whether to try again; the first row that fits."""


def _asking(schema: str) -> str:
    return f"SELECT {schema}.{ACT}(%s::text, %s::text, %s::text)"


def _texts(names: Sequence[str], args: Sequence[str]) -> tuple[str, str, str]:
    """The names of buckets among the entries, those of reservations, and the words: texts cost a driver less than arrays."""
    buckets = [name[2:] for name in names if name.startswith("b:")]
    records = [name[2:] for name in names if name.startswith("r:")]
    return "\n".join(buckets), "\n".join(records), "\n".join(args)


def _sqlstate(exc: Exception) -> str:
    """The server's code for an error, by whichever driver; "" if there is none."""
    for name in ("sqlstate", "pgcode"):
        code = getattr(exc, name, None)
        if isinstance(code, str):
            return code
    first = exc.args[0] if exc.args else None
    return str(first.get("C", "")) if isinstance(first, dict) else ""
