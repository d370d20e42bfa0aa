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


def _code() -> int:
    """The code to end with. A Ctrl-C that came amid a text that a module of the standard library had evaluated, as for each named
    tuple, leaves a mark by which CPython would end with the signal, whoever caught it; to run another text wipes it off."""
    code = _main()
    exec("")  # noqa: S102  does nothing else
    return code


if __name__ == "__main__":
    raise SystemExit(_code())
