"""Keeps what a running router has to say once: a model that its provider does not have, a key that was refused.

Strategy: a short list of sentences, each under a key, so that the thousandth call says nothing new. What is fixed is taken back.
Must never hold a key to an API, nor decide what is worth saying.
"""

from __future__ import annotations

MOST = 100
"""Sentences that are kept; a router that has more to say has said enough."""


class Notices:
    """Sentences by key, in the order in which they were said first. Thread-safe."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    def say(self, key: str, text: str) -> bool:
        """Keep `text` under `key`; whether it is new."""
        if key in self._texts or len(self._texts) >= MOST:
            return False
        return self._texts.setdefault(key, text) is text  # of threads that say it at once, the first one's is kept

    def texts(self) -> tuple[str, ...]:
        """What was said, oldest first."""
        return tuple(self._texts.values())
