"""Guards the file under a quota store: whether it can be used, and whether it is still the one that was opened.

Strategy: a file that is not ours, damaged, deleted or replaced is refused, never repaired or overwritten. What can be
seen from outside is seen before SQLite opens the file, as it leaves files of its own beside one that it cannot write.
Every error names the file and the remedy. Must never know what is in the file, nor open it.
"""

from __future__ import annotations

import os
import stat

from .errors import QuotaStoreError

Companions = tuple[tuple[int, int] | None, tuple[int, int] | None]

SHORTEST = 512
"""Bytes of the smallest database there is; SQLite takes some shorter files for empty ones and writes over them."""


class QuotaFile:
    """The file `path` (absolute), and which file that was when it was prepared."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._identity: tuple[int, int] | None = None
        self._beside = path

    @property
    def known(self) -> bool:
        """Whether it was prepared, so that another file in its place is noticed."""
        return self._identity is not None

    def prepare(self) -> None:
        """Makes it (mode 0600) if there is none. An existing one is not opened here: closing it again would take this
        process's other locks on it along. Raises QuotaStoreError where it cannot be used."""
        try:
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass
        except OSError as exc:
            remedy = "see that the folder is there and writable, or name another"
            raise self.unusable(f"cannot be made ({exc.strerror})", remedy) from exc
        try:
            found = os.stat(self.path)
        except OSError as exc:
            raise self.unusable(f"cannot be found ({exc.strerror})", "fix the link, or name another") from exc
        if not stat.S_ISREG(found.st_mode):
            raise self.unusable("is not a regular file", "name a file of its own")
        if not os.access(self.path, os.R_OK | os.W_OK):
            raise self.unusable(*_READ_ONLY)
        if 0 < found.st_size < SHORTEST:
            raise self.damaged(f"{found.st_size} bytes")
        self._identity = found.st_dev, found.st_ino
        self._beside = os.path.realpath(self.path)  # SQLite keeps its files beside what a link points to

    def forget(self) -> None:
        """Another file in its place will do as well."""
        self._identity = None

    def check(self, may_be_empty: bool = False) -> None:
        """Refuses a file that is not the one that was opened: counts in a deleted one would bind nobody else."""
        try:
            found = os.stat(self.path)
        except OSError as exc:
            raise self.unusable("was deleted while in use", "put it back, or make a new store") from exc
        if (found.st_dev, found.st_ino) != self._identity:
            raise self.unusable("was replaced while in use", "put the first one back, or make a new store")
        if not found.st_size and not may_be_empty:
            raise self.unusable("was truncated while in use", "put it back from a copy, or delete it and make a new store")

    def has_companions(self) -> bool:
        """Whether the log and its index lie beside a file that has something in it; one that is empty has none yet."""
        try:
            if not os.stat(self.path).st_size:
                return True
        except OSError:
            return True  # which `check` explains
        return None not in self.companions()

    def companions(self) -> Companions:
        """Which files SQLite's log and its index are now, None for one that is missing."""
        return _identity(f"{self._beside}-wal"), _identity(f"{self._beside}-shm")

    def check_companions(self, opened: Companions) -> None:
        """Refuses a file whose log or index is not the one it was `opened` with: others would count in another one."""
        if self.companions() != opened:
            raise self.log_gone()

    def log_gone(self) -> QuotaStoreError:
        """The error for a file whose log, or the index of it, is not the one that is in use."""
        what = "lost the -wal or -shm file beside it while in use (or is in use under another name)"
        return self.unusable(what, "end every program that uses it, then start them again")

    def locked(self) -> QuotaStoreError:
        """The error for a file that others kept locked for longer than was waited."""
        return self.unusable(*_LOCKED)

    def explained(self, exc: Exception) -> QuotaStoreError:
        """What SQLite's error means for the user."""
        code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
        if code in _REMEDIES:
            return self.unusable(*_REMEDIES[code])
        if code in _DAMAGES:
            return self.damaged(str(exc))
        return self.unusable(f"failed ({type(exc).__name__}: {exc})", "see the cause")

    def damaged(self, how: str) -> QuotaStoreError:
        """The error for a file that holds something else than it should."""
        return self.unusable(f"is damaged, or is not a quota store ({how})", "move it away to start anew, or put a copy back")

    def unusable(self, what: str, remedy: str) -> QuotaStoreError:
        """The error that names the file, `what` is the matter, and the `remedy`."""
        return QuotaStoreError(f"the quota file {self.path} {what}: {remedy}")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


_DAMAGES = (1, 11, 26)
"""SQLite's codes for a damaged file and for none of its own, and for a table or a column that is missing."""
_READ_ONLY = ("cannot be written", "make the file and its folder writable, or name another")
_LOCKED = ("stayed locked by others", "look for a process that is stuck, or raise busy_timeout")
_REMEDIES = {
    3: _READ_ONLY,
    5: _LOCKED,
    6: _LOCKED,
    8: _READ_ONLY,
    10: ("cannot be read or written (disk error)", "check the disk, and that -wal and -shm beside it were not removed"),
    13: ("cannot grow, the disk is full", "free some space; then the same call works again"),
    14: ("cannot be opened", "make the file and its folder readable and writable, or name another"),
}
