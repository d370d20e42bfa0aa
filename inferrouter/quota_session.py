"""One open connection to a quota file, and what was read through it.

Strategy: every use is one transaction; what was read stays known until another connection has written, and what was made of it
until something of it was written here. A use that was cut off, by an interrupt or by a signal handler's own use, is rolled back
by whoever comes next, through a new session over the same connection: the old one's statements fail then, so that it can change
nothing any more. Must never know how counting works, nor wait.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from .own_process import PROCESS
from .quota import Hold
from .quota_counting import BucketState
from .quota_file import Companions, QuotaFile
from .quota_learned import packed
from .quota_plain import Count
from .quota_schema import kind_of, read_state
from .quota_seen import Changes, note_change

if TYPE_CHECKING:
    import sqlite3

T = TypeVar("T")
HoldRows = dict[str, tuple[Hold, float]]
"""Holds as they stand in the file, each with when it was made, by key."""


class Session:
    """A connection in use by one at a time. `busy`: between the beginning of a transaction and its end.

    `number`: of the last change of a state; `changes`: see `Changes`. `holds`: those that were read, by the identity of the keys
    that were asked for, with these keys.
    """

    __slots__ = (
        *("_companions", "_file", "_rows", "_version", "busy", "changes", "cursor", "db", "holds", "number", "pid", "states"),
    )

    def __init__(self, db: sqlite3.Connection, file: QuotaFile, companions: Companions | None = None) -> None:
        self.db = db
        self.cursor = db.cursor()
        self.pid = PROCESS.pid
        self.busy = False
        self.states: dict[str, BucketState] = {}
        self._file = file
        self._companions = companions or file.companions()
        self._rows: dict[str, int] = {}
        self._version = 0
        self.holds: dict[int, tuple[object, HoldRows]] = {}
        self.number = 0
        self.changes: Changes = {}

    def run(self, work: Callable[[Session], T], begin: str, looks: bool) -> T:
        """What `work` returns, done in one transaction; it is all in the file, or nothing if this raises and `end` follows.

        `looks`: whether to look that the file is still there, which only what admits or shows something needs.
        """
        cursor = self.cursor
        cursor.execute(begin)
        self.busy = True
        if looks:
            self._file.check()
            self._file.check_companions(self._companions)
        version = cursor.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:  # another connection has written since
            self._forget()
            self._version = version
        result = work(self)
        cursor.execute("COMMIT")
        self.busy = False
        return result

    def end(self) -> None:
        """Roll back what was left open, and forget what may never have been written."""
        if self.busy or self.db.in_transaction:
            import sqlite3

            with suppress(sqlite3.Error):  # there may be nothing to roll back
                self.cursor.execute("ROLLBACK")
            self._forget()
            self._rows.clear()
            self.busy = False

    def close(self) -> None:
        """Close the connection, whoever else still knows this session."""
        self.cursor.close()  # or an open statement would keep the connection, and its locks, alive
        self.db.close()

    def taken_over(self) -> Session:
        """Another session over the same connection; this one, and whoever still uses it, is done with."""
        self.cursor.close()
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        return Session(self.db, self._file, self._companions)

    def state(self, key: str) -> BucketState | None:
        """The state of the bucket `key`, None if there is none."""
        state = self.states.get(key)
        if state is None:
            found = self.cursor.execute("SELECT id, amount, kind, state, learned FROM bucket WHERE key = ?", (key,)).fetchone()
            if found is not None:
                self._rows[key], *stored = found
                state = self.states[key] = read_state(self._file, key, *stored)
        return state

    def load(self, keys: Iterable[str]) -> dict[str, BucketState]:
        """Every state that was read since the file was last changed by others, those of `keys` among them."""
        for key in keys:
            if key not in self.states:
                self.state(key)
        return self.states

    def redefine(self, state: BucketState) -> None:
        """Write a bucket whose limit may be new."""
        if self.states.get(state.key) is not state:
            limit = state.counter.limit
            row = (float(limit.amount), kind_of(limit, state.pinned), state.counter.pack(), packed(state.learned), state.key)
            if state.key in self._rows:
                self.cursor.execute("UPDATE bucket SET amount = ?, kind = ?, state = ?, learned = ? WHERE key = ?", row)
            else:
                self.cursor.execute("INSERT INTO bucket (amount, kind, state, learned, key) VALUES (?, ?, ?, ?, ?)", row)
                self._rows[state.key] = self.cursor.lastrowid or 0
            self.states[state.key] = state
            self.note_changed([state.key])

    def save(self, states: Iterable[BucketState]) -> None:
        """Write what these count."""
        changed = list(states)
        if changed:
            self.note_changed([state.key for state in changed])
            rows = [(state.counter.pack(), self._rows[state.key]) for state in changed]
            self.cursor.executemany("UPDATE bucket SET state = ? WHERE id = ?", rows)

    def save_learned(self, states: Iterable[BucketState]) -> None:
        """Write what these count, and what was learned of them."""
        changed = list(states)
        self.save(changed)
        rows = [(packed(state.learned), self._rows[state.key]) for state in changed]
        self.cursor.executemany("UPDATE bucket SET learned = ? WHERE id = ?", rows)

    def count(self, key: str) -> Count:
        """The state of `key` and what is used of it. Raises KeyError."""
        state = self.state(key)
        if state is None:
            raise KeyError(key)
        return state, state.counter.used

    def note_changed(self, keys: Collection[str]) -> None:
        """Say that `keys` show something else than before."""
        note_change(self.changes, self.number + 1, keys)
        self.number += 1

    def _forget(self) -> None:
        """Nothing that was read is known to be so any more."""
        self.states.clear()
        self.holds.clear()
        self.number += 1  # a change of nobody knows which keys
