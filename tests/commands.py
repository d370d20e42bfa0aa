"""Running the package's commands, inside this process or as a process of their own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from tests import PACKAGE, ir, part

FOLDER = Path(str(ir.__file__)).resolve().parent


class Ran(NamedTuple):
    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def run(*argv: str, stdin: str = "", env: Mapping[str, str] | None = None) -> Ran:
    """A command in this process, under an environment of these variables alone; its user's folders are empty and go away."""
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as home, redirect_stdout(out), redirect_stderr(err):
        own = {"XDG_STATE_HOME": home, "XDG_CONFIG_HOME": home}
        with mock.patch.object(sys, "stdin", io.StringIO(stdin)), mock.patch.dict(os.environ, own | dict(env or {}), clear=True):
            code = part("cli").main(list(argv))
    return Ran(code, out.getvalue(), err.getvalue())


def start(*argv: str, package: str = PACKAGE, folder: Path = FOLDER.parent, **env: str) -> subprocess.Popen[str]:
    """The same as a process, every warning an error. It starts without site-packages, unless its coverage is measured."""
    bare = () if "COVERAGE_PROCESS_START" in os.environ else ("-S",)
    known = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "COVERAGE_PROCESS_START") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, *bare, "-W", "error", "-m", package, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**known, "PYTHONPATH": str(folder), "PYTHONIOENCODING": "utf-8", "PYTHONDONTWRITEBYTECODE": "1", **env},
    )


def finish(process: subprocess.Popen[str]) -> Ran:
    """Its end; a process that does not end within 20 seconds is killed."""
    with process:
        try:
            out, err = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Ran(process.returncode, out or "", err or "")
