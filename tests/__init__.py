"""The test suite. Every test reaches the package through `ir` and `part`, so the same suite runs against any copy of it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

PACKAGE = os.environ.get("INFERROUTER_PACKAGE", "inferrouter")
ir = importlib.import_module(PACKAGE)

LONG = os.environ.get("INFERROUTER_LONG") == "1"
"""Whether random and repeated tests take their long forms: the same claims over more rounds."""

_shared = Path(__file__).resolve().parents[2] / "shared"
SHARED: Path | None = _shared if _shared.is_dir() else None


def part(name: str) -> ModuleType:
    """The package's module `name`."""
    return importlib.import_module(f"{PACKAGE}.{name}")
