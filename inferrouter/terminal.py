"""Prints for whoever runs a command: plain words on any stream, a little colour and rhythm on a real terminal.

Strategy: what a stream can take is found out once; letters it cannot show are replaced, and control characters of
foreign texts are left out, since an answer or an error may hold what moves a terminal's cursor or changes its title.
Must never know what is being said.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Mapping
from typing import TextIO

WIDTH = 78  # columns; fits a terminal of 80
STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


class Screen:
    """Writes to `out`. Colours and pauses on a terminal only; no colour if `env` (None: the process's) has NO_COLOR."""

    def __init__(self, out: TextIO, env: Mapping[str, str] | None = None) -> None:
        env = os.environ if env is None else env
        self._out = out
        self._encoding = getattr(out, "encoding", None) or "utf-8"
        self.terminal = out.isatty()
        self._colour = self.terminal and not env.get("NO_COLOR") and env.get("TERM") != "dumb"
        self._rule = "\u2500" if self.shown("\u2500") == "\u2500" else "-"

    def line(self, text: str = "", style: str = "") -> None:
        """One line, or several if `text` has line breaks. `style`: bold, dim, red, green, yellow or ""."""
        self.piece(text, style)
        self.piece("\n")

    def piece(self, text: str, style: str = "") -> None:
        """`text` as it is, at once; `style` as for `line`."""
        shown = self.shown(text)
        if self._colour and style and shown:
            shown = f"\x1b[{STYLES[style]}m{shown}\x1b[0m"
        self._out.write(shown)
        self._out.flush()

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
