"""Knows the id of this process without asking the system each time, and gives out numbers that no other process does.

Strategy: who must not touch what belongs to the parent of a fork compares ids, a dozen times a call, and each question to the
system takes 0.5 us. Here the id is kept, and asked anew by the interpreter's own hook after a fork; modules with such hooks of
their own import this one first, as hooks run in that order. Must never know what it is compared for.
"""

from __future__ import annotations

import itertools
import os


class OwnProcess:
    """This process. `pid`: its id, also in a forked child."""

    __slots__ = ("pid",)

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Ask the system again."""
        self.pid = os.getpid()


class OwnNumbers:
    """Numbers that no other process gives out: counted from a random one, and from another in a forked child."""

    __slots__ = ("_counted",)

    def __init__(self) -> None:
        self._counted = 0, itertools.count()

    def next(self) -> int:
        """Another one."""
        pid, numbers = self._counted
        if pid != PROCESS.pid:
            numbers = itertools.count(int.from_bytes(os.urandom(7), "big"))
            self._counted = PROCESS.pid, numbers
        return next(numbers)


PROCESS = OwnProcess()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PROCESS.renew)
