"""Helpers for the tests of the dialects: answers fed in pieces, recorded answers, answers damaged at random."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

from tests import SHARED, part

WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 1.5, 1e300, 10**30, "", "x", "1", "\ud800"),
    *([], {}, [None], [[]], [{}], {"a": 1}, {"type": []}, {"error": None}),
)


def endpoint(base_url: str = "https://api.test/v1", key: str = "key-123456", **headers: str) -> Any:
    """An account's endpoint."""
    return part("provider").Endpoint(base_url, part("secret").Secret(key), headers)


def sent(provider: Any, request: Any, model: str, stream: bool = False) -> Any:
    """The JSON body `provider` makes of `request`."""
    return json.loads(provider.encode(request, model, endpoint(), stream).body)


def frames(*items: Any, named: bool = False, end: str = "\n\n") -> bytes:
    """Server-sent events, one for each JSON value, with an event line of its type if `named`."""
    return "".join((f"event: {item['type']}\n" if named else "") + f"data: {json.dumps(item)}{end}" for item in items).encode()


class Read:
    """A stream fed to a fresh decoder in pieces of `cut` bytes, without its end being called."""

    def __init__(self, provider: Any, body: bytes, cut: int = 1 << 30) -> None:
        self.decoder = provider.decoder("asked-model")
        self.assembler = part("responses").Assembler()
        self.chunks: list[Any] = []
        for start in range(0, len(body), cut):
            self._take(self.decoder.feed(body[start : start + cut]))

    def end(self) -> Read:
        """Tell the decoder that the body ended."""
        self._take(self.decoder.end())
        return self

    def _take(self, chunks: list[Any]) -> None:
        self.chunks += chunks
        for chunk in chunks:
            self.assembler.add(chunk)

    @property
    def answer(self) -> Any:
        """The whole answer."""
        records = part("records")
        usage = self.assembler.usage or records.Usage()
        natives = self.decoder.natives()
        return self.assembler.response(records.Routing("", "", ""), usage, natives, self.decoder.complete)


def told(answer: Any) -> dict[str, Any]:
    """What the recordings' `expect` tells of an answer."""
    usage = answer.usage
    return {
        "text": answer.text,
        "tool_calls": [[call.name, call.parsed()] for call in answer.tool_calls],
        "finish": answer.finish_reason,
        "usage": [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens],
    }


def recorded(dialect: str) -> list[dict[str, Any]]:
    """Recorded answers of a dialect; none where the recordings are not at hand."""
    path = SHARED / "recorded" / "dev.jsonl" if SHARED else None
    if path is None or not path.is_file():
        return []
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row for row in rows if row["dialect"] == dialect]


def damaged(item: Any, seed: int, times: int) -> Iterator[Any]:
    """Copies of the JSON value `item`, each with up to three values lost or replaced by one of a wrong type."""
    rng = random.Random(seed)
    for _ in range(times):
        broken = copy.deepcopy(item)
        for _ in range(rng.randint(1, 3)):
            places = list(_places(broken))
            holder, key = rng.choice(places)
            if isinstance(holder, dict) and rng.random() < 0.2:
                del holder[key]
            else:
                holder[key] = copy.deepcopy(rng.choice(WRONG))
            if not broken:
                break
        yield broken


def _places(item: Any) -> Iterator[tuple[Any, Any]]:
    waiting = [item]
    while waiting:
        holder = waiting.pop()
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            yield holder, key
            if isinstance(value, (dict, list)):
                waiting.append(value)
