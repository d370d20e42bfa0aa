"""Raises KeyboardInterrupt at a chosen step of the package's own code: any of its bytecodes, as no signal could more finely."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tests import ir

PACKAGE = str(Path(str(ir.__file__)).parent)


class Stepper:
    """Runs `work`, counting the bytecodes of the package that this thread executes. `place`: where it was interrupted."""

    def __init__(self, work: Callable[[], object], at: int = 0) -> None:
        self.steps = 0
        self.place = ""
        self.ended = False
        self._at = at
        before, hook = sys.gettrace(), sys.unraisablehook
        sys.unraisablehook = lambda args: None  # an interrupt in a finalizer is told to nobody
        sys.settrace(self._called)
        try:
            work()
            self.ended = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
            sys.unraisablehook = hook

    def _called(self, frame: FrameType, event: str, arg: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "opcode":
            self.steps += 1
            if self.steps == self._at:
                code = frame.f_code
                self.place = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name}+{frame.f_lasti}"
                sys.settrace(None)
                raise KeyboardInterrupt
        return self._step


def steps_of(work: Callable[[], object]) -> int:
    """How many bytecodes of the package `work` takes."""
    gc.collect()
    return Stepper(work).steps
