"""Answers whose provider counts nothing: the library's own count, the same for whole and streamed answers, and marked as such."""

from __future__ import annotations

import json
import unittest
from typing import Any

from tests import ir
from tests.dialects import frames
from tests.fakes import FakeClock, ListMeter
from tests.faults import KEY_HEADERS, Asked, FaultServer, chunked, http, provider
from tests.servers import Peer

PRICE = {"paid_enabled": True, "cost_per_input_token": 1e-6, "cost_per_output_token": 1e-6}
ASKED = ir.ChatRequest("What is the weather in Zürich?", max_tokens=500)
ARGUMENTS = {"city": "Zürich", "days": 3}
THOUGHT, TEXT = "Let me see. ", "It rains in Zürich, as 天気 has it."


def whole(dialect: str, reasoning: bool, call: bool, empty: bool) -> dict[str, Any]:
    """A body without a word of usage; `empty`: its call takes no arguments."""
    arguments = {} if empty else ARGUMENTS
    if dialect == "gemini":
        parts: list[Any] = [{"text": THOUGHT, "thought": True}] if reasoning else []
        parts += [{"text": TEXT}] + ([{"functionCall": {"name": "weather", "args": arguments}}] if call else [])
        return {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP", "index": 0}]}
    if dialect == "anthropic":
        blocks: list[Any] = [{"type": "thinking", "thinking": THOUGHT}] if reasoning else []
        blocks += [{"type": "text", "text": TEXT}]
        blocks += [{"type": "tool_use", "id": "t", "name": "weather", "input": arguments}] if call else []
        return {"content": blocks, "stop_reason": "tool_use" if call else "end_turn"}
    function = {"name": "weather", "arguments": "" if empty else json.dumps(arguments)}
    message = {"content": TEXT, **({"reasoning": THOUGHT} if reasoning else {})}
    message |= {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": function}]} if call else {}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls" if call else "stop"}]}


def streamed(dialect: str, body: dict[str, Any]) -> bytes:
    """The same answer as a stream."""
    done = b"data: [DONE]\n\n" * (dialect == "openai")
    return chunked(frames(*stream_events(dialect, body), named=dialect == "anthropic"), done)


def stream_events(dialect: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of such a stream."""
    if dialect == "gemini":
        return [body]
    if dialect == "openai":
        choice = body["choices"][0]
        deltas = [{"index": 0, "delta": {key: value}} for key, value in choice["message"].items()]
        return [{"choices": [each]} for each in (*deltas, {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]})]
    items = [{"type": "message_start", "message": {"id": "m"}}]
    for place, block in enumerate(body["content"]):
        kind = block["type"]
        empty = {"text": {"text": ""}, "thinking": {"thinking": ""}, "tool_use": {**block, "input": {}}}[kind]
        pieces = {"text": "text", "thinking": "thinking", "tool_use": "partial_json"}
        said = block[kind] if kind != "tool_use" else json.dumps(block["input"], separators=(",", ":"), ensure_ascii=False)
        delta = {"type": {"tool_use": "input_json_delta"}.get(kind, f"{kind}_delta"), pieces[kind]: said}
        items += [{"type": "content_block_start", "index": place, "content_block": {"type": kind, **empty}}]
        items += [{"type": "content_block_delta", "index": place, "delta": delta}] if said != "{}" else []
    return [*items, {"type": "message_delta", "delta": {"stop_reason": body["stop_reason"]}}, {"type": "message_stop"}]


class Estimates(unittest.TestCase):
    def setUp(self) -> None:
        self.server = self.enterContext(FaultServer())

    def router(self, dialect: str, meter: Any = None) -> Any:
        account = ir.AccountConfig(dialect, "a", ir.Auth("k"), limits={"tpd": 10**6}, **PRICE)
        config = ir.Config([account], default_model=f"{dialect}/m", allow_paid=True)
        made = ir.Router(config, [provider(dialect, self.server.server.url)], meter=meter, clock=FakeClock())
        self.addCleanup(made.close)
        return made

    def answers(self, dialect: str, body: dict[str, Any]) -> list[tuple[Any, Any, float]]:
        """Usage and routing of the answer, what the meter heard and what was charged, whole and streamed."""

        def script(peer: Peer, asked: Asked) -> object:
            return peer.send(streamed(dialect, body) if asked.method == "stream" else http(body))

        self.server.script = script
        found = []
        for stream in (False, True):
            meter = ListMeter()
            router = self.router(dialect, meter)
            if stream:
                with router.stream(ASKED) as opened:
                    list(opened)
                answer = opened.response
            else:
                answer = router.chat_completion(ASKED)
            self.assertEqual(answer.text, TEXT)
            self.assertEqual(meter.results[0].usage, answer.usage)
            self.assertEqual(meter.results[0].cost, answer.routing.cost)
            found.append((answer.usage, answer.routing, router.status()["a"].limits[0].used))
        return found

    def test_whole_and_streamed_alike(self) -> None:
        """Text, reasoning and calls are counted alike in whole and streamed answers, in every dialect."""
        for dialect in KEY_HEADERS:
            for reasoning, call, empty in ((False, False, False), (True, False, False), (True, True, False), (False, True, True)):
                with self.subTest(dialect, reasoning=reasoning, call=call, empty=empty):
                    one, other = self.answers(dialect, whole(dialect, reasoning, call, empty))
                    self.assertEqual(one, other)
                    usage, routing, charged = one
                    self.assertTrue(usage.estimated)
                    self.assertGreater(min(usage.prompt_tokens, usage.completion_tokens), 5)
                    self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
                    self.assertEqual(charged, usage.total_tokens)
                    self.assertAlmostEqual(routing.cost, usage.total_tokens * 1e-6)

    def test_what_was_told_is_not_marked(self) -> None:
        """A provider's own figures are what they are."""
        body = whole("openai", False, False, False) | {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
        usage = self.answers("openai", body)[0][0]
        self.assertEqual((usage.total_tokens, usage.estimated), (5, False))

    def test_vectors(self) -> None:
        """Vectors without usage are counted and marked, over several batches too."""
        bodies = {
            "openai": {"data": [{"index": 0, "embedding": [0.5]}]},
            "gemini": {"embeddings": [{"values": [0.5]}]},
        }
        for dialect, body in bodies.items():
            self.server.script = lambda peer, asked, body=body: peer.send(http(body))
            meter = ListMeter()
            answer = self.router(dialect, meter).embed(ir.EmbedRequest(["some text"]))
            self.assertTrue(answer.usage.estimated)
            self.assertGreater(answer.usage.prompt_tokens, 0)
            self.assertEqual((meter.results[0].usage, answer.usage.completion_tokens), (answer.usage, 0))

    def test_what_came_of_a_broken_stream(self) -> None:
        """Of a stream that broke off or was closed early, a count of the library's own is marked, and a told one is not."""
        said = {"choices": [{"index": 0, "delta": {"content": TEXT}}]}
        told = {"choices": [], "usage": {"prompt_tokens": 900, "completion_tokens": 900, "total_tokens": 1800}}
        for items, marked in (([said], True), ([said, told], False)):
            self.server.script = lambda peer, asked, items=items: peer.send(chunked(frames(*items), ended=False)) and False
            with self.assertRaises(ir.StreamInterruptedError) as caught:
                list(self.router("openai").stream(ASKED))
            self.assertEqual(caught.exception.partial.usage.estimated, marked)
            self.server.script = lambda peer, asked, items=items: (
                peer.send(chunked(frames(*items), ended=False)) and peer.wait(0.2)
            )
            stream = self.router("openai").stream(ASKED)
            stream.close()
            self.assertEqual(stream.response.usage.estimated, marked)


if __name__ == "__main__":
    unittest.main()
