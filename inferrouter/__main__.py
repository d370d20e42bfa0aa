"""Runs the command line: `python3 -m` on the package's folder, under whatever name it was copied.

Strategy: hand over to `cli` and turn its code into the process's; Ctrl-C while that is still being imported ends as it does
later. Must never do anything else, so that importing it does nothing.
"""

from __future__ import annotations


def _main() -> int:
    try:
        from .cli import main

        return main()
    except KeyboardInterrupt:
        import sys

        sys.stderr.write("\ninterrupted\n")
        return 130


if __name__ == "__main__":
    raise SystemExit(_main())
