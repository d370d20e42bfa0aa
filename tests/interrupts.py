"""Comes in between at a chosen step of the package's own code, at any of its bytecodes, as no signal could more finely: with a
KeyboardInterrupt, or with work of its own, as a signal handler or a finalizer does."""

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
    """Runs `work`, counting the bytecodes of the package that this thread executes, and comes in between before number `at`.

    `then`: what is done there, None: KeyboardInterrupt is raised. `place`: where that was, "" if it was not reached; `ended`:
    whether `work` came to its end. `keep`: keep the interrupt with its traceback and all frames in it, as a notebook does.
    """

    def __init__(
        self, work: Callable[[], object], at: int = 0, then: Callable[[], object] | None = None, keep: bool = False
    ) -> None:
        self.steps = 0
        self.kept: BaseException | None = None
        self.place = ""
        self.ended = False
        self._at = at
        self._then = then
        before, hook = sys.gettrace(), sys.unraisablehook
        sys.unraisablehook = lambda args: None  # an interrupt in a finalizer is told to nobody
        sys.settrace(self._called)
        try:
            work()
            self.ended = True
        except KeyboardInterrupt as exc:
            self.kept = exc if keep else None
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
                if self._then is None:
                    sys.settrace(None)
                    frame.f_trace = None
                    raise KeyboardInterrupt
                self._then()  # traced by nobody, and what follows still is: CPython 3.13 would forget to tell of the next run
        return self._step


def steps_within(work: Callable[[], object], function: str) -> range:
    """The bytecodes of `work` from the first of `function` (by its qualified name) to the last, those of what it calls included.

    `work` was done before, as newer interpreters tell of them from the second time on."""
    found: list[int] = []

    class Noting(Stepper):
        def _step(self, frame: FrameType, event: str, arg: object) -> Any:
            then = super()._step(frame, event, arg)
            if event == "opcode" and frame.f_code.co_qualname == function:
                found.append(self.steps)
            return then

    gc.collect()
    Noting(work)
    return range(found[0], found[-1] + 1)


def steps_of(work: Callable[[], object]) -> int:
    """How many bytecodes of the package `work` takes, done twice: newer interpreters tell of them from the second time on."""
    gc.collect()
    Stepper(work)
    return Stepper(work).steps
