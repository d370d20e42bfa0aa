"""Runs the command line: `python3 -m` on the package's folder, under whatever name it was copied.

Strategy: hand over to `cli` and turn its code into the process's.
Must never do anything else, so that importing it does nothing.
"""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
