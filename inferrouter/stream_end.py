"""Judges when a streamed answer is over, since servers name a finish reason early, late, or in every chunk.

Strategy: a table of how far each choice has come. A finish reason of its own, after content, is the end. One in the same event as
content is the end if silence follows. One before any content is not, and none is any more once content has followed one: only the
end of the body tells then. Must never know a wire format, a socket or a clock.
"""

from __future__ import annotations

from enum import Enum

from .responses import ChatChunk, ChunkChoice

TAIL_S = 2.0
"""Seconds of silence after the end that close a stream; so long may its usage be on the way."""

LIKELY_TAIL_S = 5.0
"""The same where the finish reason came together with content, as it does in every chunk of some servers."""

NEEDS_CONTENT = frozenset(("stop", "tool_calls"))
"""Finish reasons of answers that hold something."""


class Stage(Enum):
    """How far one choice has come."""

    SILENT = "nothing was said"
    HINTED = "a finish reason before any content"
    RESUMED = "content after such a hint"
    SPEAKING = "content"
    LIKELY = "a finish reason together with content"
    OVER = "a finish reason of its own"
    DOUBTED = "content after an end"
    REPEATED = "another end after that"


_NEXT = {
    # after:        content, content and a finish reason, a finish reason
    Stage.SILENT: (Stage.SPEAKING, Stage.LIKELY, Stage.OVER),
    Stage.HINTED: (Stage.RESUMED, Stage.LIKELY, Stage.OVER),
    Stage.RESUMED: (Stage.RESUMED, Stage.LIKELY, Stage.OVER),
    Stage.SPEAKING: (Stage.SPEAKING, Stage.LIKELY, Stage.OVER),
    Stage.LIKELY: (Stage.DOUBTED, Stage.REPEATED, Stage.OVER),
    Stage.OVER: (Stage.DOUBTED, Stage.REPEATED, Stage.OVER),
    Stage.DOUBTED: (Stage.DOUBTED, Stage.REPEATED, Stage.REPEATED),
    Stage.REPEATED: (Stage.DOUBTED, Stage.REPEATED, Stage.REPEATED),
}
_SPEAKING = Stage.SPEAKING
_WORDLESS = (Stage.SILENT, Stage.HINTED)
_TAKEN_BACK = frozenset((Stage.RESUMED, Stage.DOUBTED))
_ENDLESS = frozenset((Stage.HINTED, Stage.RESUMED, Stage.DOUBTED, Stage.REPEATED))


class StreamEnd:
    """What the chunks of one stream say of its end. `wanted`: how many choices were asked for."""

    __slots__ = ("_stages", "_wanted")

    def __init__(self, wanted: int = 1) -> None:
        self._wanted = wanted
        self._stages: dict[int, Stage] = {}

    def add(self, chunk: ChatChunk) -> bool:
        """Take one chunk; returns whether it brings content."""
        content = False
        for choice in chunk.choices:
            if choice.finish_reason is None and choice.delta.content and self._stages.get(choice.index) is _SPEAKING:
                content = True  # as nearly every chunk; what follows would take a twentieth of its time
            else:
                content |= self._take(choice)
        return content

    @property
    def taken_back(self) -> bool:
        """Whether a choice went on after its finish reason and has no other since: the end of the body comes too early then."""
        return not _TAKEN_BACK.isdisjoint(self._stages.values())

    @property
    def tail_s(self) -> float | None:
        """How many seconds of silence end a stream whose decoder calls it complete; None: silence ends nothing."""
        stages = self._stages.values()
        if len(stages) < self._wanted or not _ENDLESS.isdisjoint(stages):
            return None
        return LIKELY_TAIL_S if Stage.LIKELY in stages else TAIL_S

    def _take(self, choice: ChunkChoice) -> bool:
        delta, reason = choice.delta, choice.finish_reason
        said = bool(delta.content or delta.reasoning or delta.tool_calls)
        if said or reason is not None:
            stage = self._stages.get(choice.index, Stage.SILENT)
            if not said and stage in _WORDLESS and reason in NEEDS_CONTENT:
                self._stages[choice.index] = Stage.HINTED
            else:
                self._stages[choice.index] = _NEXT[stage][(0 if reason is None else 1) if said else 2]
        return said
