"""The test suite. Every test reaches the package through `ir` and `part`, so the same suite runs against any copy of it."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import threading
import warnings
from functools import partial
from pathlib import Path
from types import ModuleType

# A tool that measures coverage has a lock of its own: a child forked while another thread holds it would wait for ever, before
# its first line. Children end by `os._exit`, so nothing of them was measured anyway. First of all, as hooks run in this order.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=partial(sys.settrace, None))
    os.register_at_fork(after_in_child=partial(threading.settrace, None))

# Tests fork among threads on purpose. From 3.15 on CPython says so before it forks, so that an error would keep it from forking.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

PACKAGE = os.environ.get("INFERROUTER_PACKAGE", "inferrouter")
ir = importlib.import_module(PACKAGE)

LONG = os.environ.get("INFERROUTER_LONG") == "1"
"""Whether random and repeated tests take their long forms: the same claims over more rounds."""

_MEMORY = Path("/dev/shm")
if not LONG and "TMPDIR" not in os.environ and _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK):
    # Thousands of small files are written and synced, and none has to outlive a crash. The long form takes the disk.
    tempfile.tempdir = str(_MEMORY)


def rounds(long: int, short: int) -> int:
    """How many rounds a random or repeated test takes: `long` in its long form, `short` in the bare suite."""
    return long if LONG else short


def places(last: int, *near: int, first: int = 0) -> list[int]:
    """Where to cut something, from `first` to `last`: everywhere in the long form; in the bare suite at every third place, and at
    all that are within four of both ends and of those named `near`."""
    dear = (first, *near, last)
    return [at for at in range(first, last + 1) if LONG or at % 3 == 0 or min(abs(at - each) for each in dear) <= 4]


_shared = Path(__file__).resolve().parents[2] / "shared"
SHARED: Path | None = _shared if _shared.is_dir() else None


def part(name: str) -> ModuleType:
    """The package's module `name`."""
    return importlib.import_module(f"{PACKAGE}.{name}")
