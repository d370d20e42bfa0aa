"""Prints for whoever runs a command: plain words on any stream, a little colour and rhythm on a real terminal.

Strategy: what a stream can take is found out once; letters it cannot show are replaced, and control characters of
foreign texts are left out, since an answer or an error may hold what moves a terminal's cursor or changes its title.
Must never know what is being said.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import textwrap
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

WIDTH = 78  # columns; fits a terminal of 80
FULL, EMPTY, SIDE = "\u2588", "\u2591", "\u2500"
STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Screen:
    """Writes to `out`. Colours and pauses on a terminal only; no colour if `env` (None: the process's) has NO_COLOR."""

    def __init__(self, out: TextIO | None, env: Mapping[str, str] | None = None) -> None:
        env = os.environ if env is None else env
        out = io.StringIO() if out is None else out  # a program may be started without
        self._out = out
        self._encoding = getattr(out, "encoding", None) or "utf-8"
        self.terminal = out.isatty()
        self._colour = self.terminal and not env.get("NO_COLOR") and env.get("TERM") != "dumb"
        self._erases = self.terminal and env.get("TERM") != "dumb"
        self._rule = SIDE if self.shown(SIDE) == SIDE else "-"
        self._blocks = (FULL, EMPTY) if self.shown(FULL + EMPTY) == FULL + EMPTY else ("#", ".")
        self._passing = 0

    @property
    def width(self) -> int:
        """Columns a line may take: the terminal's, at least 40; off a terminal `WIDTH`."""
        return max(40, self._columns()) if self.terminal else WIDTH

    def line(self, text: str = "", style: str = "") -> None:
        """One line, or several if `text` has line breaks. `style`: bold, dim, red, green, yellow or ""."""
        self.piece(text, style)
        self.piece("\n")

    def piece(self, text: str, style: str = "", *, raw: bool = False) -> None:
        """`text` as it is, at once; `style` as for `line`. `raw`: the program's own control characters stay in it."""
        shown = text if raw else self.shown(text)
        if self._colour and style and shown:
            shown = f"\x1b[{STYLES[style]}m{shown}\x1b[0m"
        self._out.write(shown)
        self._out.flush()

    def passing(self, text: str) -> None:
        """A line that the next one takes the place of, on a terminal; elsewhere nothing. "" takes it away."""
        if not self.terminal or (not text and not self._passing):
            return
        columns = self._columns()  # anew each time: a line that is longer than the terminal leaves a part of itself behind
        shown = text[:columns]
        narrowed = self._passing > columns  # what stood there has wrapped into the lines below
        self.piece("\r\x1b[J" if narrowed and self._erases else "\r", raw=True)
        self.piece(shown.ljust(min(self._passing, columns)), "dim")
        self.piece("\r", raw=True)
        self._passing = len(shown)

    def bar(self, share: float, columns: int = 20) -> str:
        """How full something is, 0 to 1, as a bar. No bar is empty or full unless the share is 0 or 1."""
        share = min(max(share, 0.0), 1.0)
        filled = round(share * columns)
        if 0 < share < 1:
            filled = min(max(filled, 1), columns - 1)
        return self._blocks[0] * filled + self._blocks[1] * (columns - filled)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Rows of cells, each column as wide as its widest; the last one is cut at the width of a terminal."""
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
            text = "  ".join(("", *cells, row[-1])).rstrip()
            self.line(text[: self.width] if self.terminal else text)

    def heading(self, text: str) -> None:
        """A line that fills the width, after an empty one."""
        self.line()
        self.line(f"{self._rule * 2} {text} ".ljust(WIDTH, self._rule), "bold")

    def paragraph(self, text: str) -> None:
        """Sentences, broken at the width."""
        self.line(textwrap.fill(text, WIDTH))

    def pause(self, seconds: float) -> None:
        """Time to read, given on a terminal alone."""
        if self.terminal:
            time.sleep(seconds)

    def shown(self, text: str) -> str:
        """`text` as this stream can show it."""
        return text.translate(CONTROLS).encode(self._encoding, "replace").decode(self._encoding)

    def _columns(self) -> int:
        """Columns of the terminal that this stream goes to, without the last one, in which some terminals wrap."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no descriptor, or no terminal behind it
            if not os.environ.get("COLUMNS"):
                return max(1, os.get_terminal_size(self._out.fileno()).columns - 1)
        return max(1, shutil.get_terminal_size((WIDTH, 24)).columns - 1)
