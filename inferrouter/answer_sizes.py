"""Remembers how long the answers of each model were, so that no more is reserved for the next one than it will need.

Strategy: the longest of the last answers and a quarter more, a multiple of it while few are known, a fixed amount before. Sizes
change in steps, so that who keeps what follows from them need not look each time. A call that bounds its answer itself is not
concerned. Must never know a limit.
"""

from __future__ import annotations

import itertools
from collections import deque

from .costs import DEFAULT_OUTPUT_TOKENS, Estimate

MARGINS = (4.0, 3.0, 2.0, 1.25)
"""How much of the longest answer is kept after one, two, three and more of them."""

REMEMBERED = 64
"""Answers of one model that are looked back at."""

STEP = 16
"""Tokens; a reserve is a multiple of it."""


class AnswerSize:
    """The answers of one model. `reserve`: tokens to keep for the next one. Thread-safe.

    `fitted`: an estimate, the reserve and the most tokens that a call may need, and what came of them: as one call asks twice or
    more, and the deployments of a model ask alike.
    """

    __slots__ = ("_longest", "_recent", "_table", "fitted", "reserve")

    fitted: tuple[Estimate, int, float, Estimate]

    def __init__(self, table: AnswerSizes) -> None:
        self.reserve = DEFAULT_OUTPUT_TOKENS
        self._table = table
        self._recent: deque[int] = deque(maxlen=REMEMBERED)
        self._longest = 0
        self.fitted = _NOTHING, 0, 0.0, _NOTHING

    @property
    def version(self) -> int:
        """Changes whenever the reserve of any model of the same table does."""
        return self._table.version

    def learn(self, tokens: int) -> None:
        """An answer had this many `tokens`."""
        if tokens <= 0:
            return
        recent, longest = self._recent, self._longest
        if tokens <= longest and len(recent) == REMEMBERED and (recent[0] < longest or tokens == longest):
            recent.append(tokens)  # neither who comes nor who goes changes which is the longest
            return
        recent.append(tokens)
        answers = list(recent)  # in one step, so that no lock is needed: a signal handler's call could never get it
        margin = MARGINS[min(len(answers), len(MARGINS)) - 1]
        self._longest = longest = max(answers)
        reserve = -(-int(longest * margin) // STEP) * STEP
        if reserve != self.reserve:
            self._table.changes()
            self.reserve = reserve
            self._table.changes()


class AnswerSizes:
    """The sizes of all models of a router, by provider and model."""

    def __init__(self) -> None:
        self.version = 0
        self._versions = itertools.count(1)
        self._sizes: dict[tuple[str, str], AnswerSize] = {}

    def __reduce__(self) -> tuple[type[AnswerSizes], tuple[()]]:
        """A copy begins anew: what was learned is this router's."""
        return AnswerSizes, ()

    def changes(self) -> None:
        """Called before and after a reserve changes: an interrupt between the two lets nobody keep what is old."""
        self.version = next(self._versions)

    def of(self, provider: str, model: str) -> AnswerSize:
        """That model's, the same object each time."""
        found = self._sizes.get((provider, model))
        return self._sizes.setdefault((provider, model), AnswerSize(self)) if found is None else found


_NOTHING = Estimate(0, 0)
