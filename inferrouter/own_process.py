"""Knows the id of this process without asking the system each time.

Strategy: who must not touch what belongs to the parent of a fork compares ids, a dozen times a call, and each question to the
system takes 0.5 us. Here the id is kept, and asked anew by the interpreter's own hook after a fork; modules with such hooks of
their own import this one first, as hooks run in that order. Must never know what it is compared for.
"""

from __future__ import annotations

import os


class OwnProcess:
    """This process. `pid`: its id, also in a forked child."""

    __slots__ = ("pid",)

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Ask the system again."""
        self.pid = os.getpid()


PROCESS = OwnProcess()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PROCESS.renew)
