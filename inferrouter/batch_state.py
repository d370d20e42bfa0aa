"""Keeps what an output was made with, beside it, and lets one process at a time write to it.

Strategy: a small JSON file `OUTPUT.job.json` with the settings that shape an answer; a run with others is refused with both
shown, since a file half made by another prompt is worse than none. That file carries the lock, which the operating system lets
go of when its process dies, however it dies. Must never know rows or providers.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import BatchError

VERSION = 1


class JobState:
    """The file beside `output`. Open it with `take`, which locks; `release` closes."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(output.name + ".job.json")
        self._fd = -1

    def take(self) -> None:
        """Lock, or raise `BatchError` that names the process which has it."""
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as exc:
            raise BatchError(
                f"output {str(self.output)!r}: {exc.strerror} ({str(self.path)!r}); name another with --out"
            ) from exc
        try:
            _lock(self._fd)
        except OSError as exc:
            holder = self._read().get("process", "unknown")
            self.release()
            raise BatchError(
                f"output {str(self.output)!r} is being written by another run ({holder}): wait for it, or give each run its own "
                "part with --shard 1/2, --shard 2/2 and its own --out"
            ) from exc

    def release(self) -> None:
        """Unlock and close. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def check(self, made_with: Mapping[str, Any], begun: bool) -> None:
        """Compare with what the output was made with, if it is `begun`, and note what it is made with from now on.

        Raises `BatchError` that shows each difference and the choices.
        """
        changed = self._differences(made_with) if begun else []
        if changed:
            raise BatchError(
                f"output {str(self.output)!r} was begun with other settings: {'; '.join(changed)}. Choose: another file with "
                "--out; or --changed restart, which puts the old file aside and begins anew; or --changed keep, which keeps "
                "what is finished and asks the rest the new way"
            )
        self.note(made_with)

    def differs(self, made_with: Mapping[str, Any]) -> bool:
        """Whether the output was made with something else."""
        return bool(self._differences(made_with))

    def note(self, made_with: Mapping[str, Any]) -> None:
        """Write down what the output is made with, and who writes it."""
        process = f"process {os.getpid()} on {socket.gethostname()}"
        data = json.dumps({"version": VERSION, "process": process, "made_with": dict(made_with)}, indent=1).encode()
        try:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.write(self._fd, data)
        except OSError as exc:
            raise BatchError(f"{str(self.path)!r} cannot be written: {exc.strerror}") from exc

    def _differences(self, made_with: Mapping[str, Any]) -> list[str]:
        before = self._read().get("made_with")
        if not isinstance(before, dict):
            return []
        now = json.loads(json.dumps(dict(made_with)))
        return [f"{key} was {_shown(before.get(key))}, is {_shown(now[key])}" for key in now if now[key] != before.get(key)]

    def _read(self) -> dict[str, Any]:
        """What the file says; nothing where it was torn."""
        with contextlib.suppress(OSError, ValueError):
            os.lseek(self._fd, 0, os.SEEK_SET)
            found = json.loads(os.read(self._fd, 1 << 24))
            if isinstance(found, dict):
                return found
        return {}


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _lock(fd: int) -> None:
    """Take the file's lock or raise `OSError` at once."""
    try:
        import fcntl
    except ImportError:
        import msvcrt

        os.lseek(fd, 1 << 30, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # exists on Windows alone
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
