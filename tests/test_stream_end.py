"""Where a stream ends: finish reasons that come early, late, twice, in every chunk, or as a word that is none."""

from __future__ import annotations

import json
import time
import unittest
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tests import ir, part
from tests.dialects import frames
from tests.faults import STREAM_HEAD, provider
from tests.servers import Peer, ScriptedServer

stream_end = part("stream_end")

TAIL_S, LIKELY_S, GAP_S = 0.02, 0.1, 0.05
NEVER_S = 30.0
END = b"0\r\n\r\n"

Event = tuple[str, str | None]
"""What one event of a stream brings: its text, and the finish reason it names. ("", None) is a pause instead."""
PAUSE: Event = ("", None)


def openai(text: str, reason: str | None, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": text} if text else {}, "finish_reason": reason}]}


def gemini(text: str, reason: str | None, index: int = 0) -> dict[str, Any]:
    candidate = {"index": index, "content": {"parts": [{"text": text}] if text else []}, "finishReason": reason}
    return {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1, "totalTokenCount": 4}}


MAKERS = {"openai": (openai, "stop"), "gemini": (gemini, "STOP")}


def scripted(dialect: str, events: Sequence[Event], gap_s: float = 0.0, *, marked: bool = False, cut: bool = False) -> Any:
    """A script that sends `events`, then [DONE] if `marked`, then the end of the body unless `cut`. A pause is `gap_s` long.

    What must come in time is sent at once: a pause stands only where silence has to be outlived, however long it gets.
    """
    make, stop = MAKERS[dialect]

    def script(peer: Peer) -> None:
        if peer.request() is None:
            return
        peer.send(STREAM_HEAD)
        for text, reason in events:
            if (text, reason) == PAUSE:
                time.sleep(gap_s)
                continue
            chunk = frames(make(text, stop if reason == "end" else reason))
            peer.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        peer.send(b"e\r\ndata: [DONE]\n\n\r\n" * marked + END * (not cut))

    return script


def tails(likely_s: float) -> Any:
    """A patch that lets streams end after a silence that fits a test."""
    return patch.multiple(stream_end, TAIL_S=TAIL_S, LIKELY_TAIL_S=likely_s)


@contextmanager
def opened(dialect: str, script: Any, **extra: Any) -> Iterator[Any]:
    """An open stream of a router over a server that runs `script`."""
    with ScriptedServer(script) as server:
        config = ir.Config([ir.AccountConfig(dialect, "a", ir.Auth("k"))], default_model=f"{dialect}/m", attempt_timeout=5)
        with ir.Router(config, [provider(dialect, server.url)]) as router:
            with router.stream(ir.ChatRequest("hi", extra=extra or None)) as stream:
                yield stream
            assert router.status()["a"].in_flight == 0


def read(dialect: str, script: Any, **extra: Any) -> Any:
    with opened(dialect, script, **extra) as stream:
        list(stream)
        return stream.response


def whole(dialect: str, script: Any, **extra: Any) -> Any:
    with tails(LIKELY_S):
        return read(dialect, script, **extra)


def each(events: Sequence[Event], gap_s: float, likely_s: float) -> list[tuple[str, Any]]:
    """Every dialect with its whole answer. They are read side by side, as each takes its pauses."""
    with tails(likely_s), ThreadPoolExecutor(len(MAKERS)) as pool:
        answers = pool.map(lambda dialect: read(dialect, scripted(dialect, events, gap_s)), MAKERS)
        return list(zip(MAKERS, answers, strict=True))


class Ends(unittest.TestCase):
    def test_a_finish_reason_in_every_chunk(self) -> None:
        """A server that names a finish reason in every chunk is read to the end of its body, however slow it is."""
        events = [event for i in range(3) for event in ((f"w{i} ", "end"), PAUSE)]
        for dialect, answer in each([*events, ("w3 ", "end")], GAP_S, NEVER_S):
            with self.subTest(dialect):
                self.assertEqual((answer.text, answer.finish_reason), ("w0 w1 w2 w3 ", "stop"))

    def test_silence_between_chunks_that_all_say_stop(self) -> None:
        """Once content came after a finish reason, silence is no end any more: the stream waits as long as any other."""
        events = [("w0 ", "end"), ("w1 ", "end")]
        for dialect, answer in each([*events, PAUSE, ("w2 ", "end")], 2 * GAP_S, GAP_S):
            with self.subTest(dialect):
                self.assertEqual(answer.text, "w0 w1 w2 ")

    def test_cut_between_chunks_that_all_say_stop(self) -> None:
        """Once content came after a finish reason, a connection that breaks is an interruption, never a whole answer."""
        for dialect in MAKERS:
            script = scripted(dialect, [("w0 ", "end"), ("w1 ", "end")], cut=True)
            with self.subTest(dialect), self.assertRaises(ir.StreamInterruptedError) as caught:
                whole(dialect, script)
            self.assertEqual(caught.exception.partial.text, "w0 w1 ")

    def test_a_finish_reason_that_was_taken_back(self) -> None:
        """Content after a finish reason needs another one, or [DONE], before the body's end makes an answer of it."""
        for dialect in MAKERS:
            for first in ("", "w0 "):
                events = [(first, "end"), ("w1 ", None)]
                with self.subTest(dialect, first=first):
                    with self.assertRaises(ir.StreamInterruptedError):
                        whole(dialect, scripted(dialect, events))
                    self.assertEqual(whole(dialect, scripted(dialect, events, marked=True)).text, f"{first}w1 ")
                    self.assertEqual(whole(dialect, scripted(dialect, [*events, ("", "end")])).text, f"{first}w1 ")

    def test_a_finish_reason_before_any_content(self) -> None:
        """A finish reason in an empty first chunk does not end the stream: the model may be thinking."""
        events = [("", "end"), PAUSE, ("", "end"), PAUSE, ("w0 ", None), ("w1", None), ("", "end")]
        for dialect, answer in each(events, GAP_S, TAIL_S):
            with self.subTest(dialect):
                self.assertEqual(answer.text, "w0 w1")

    def test_an_empty_answer(self) -> None:
        """An answer with a finish reason and no content is whole at the body's end; before it only if the reason explains it."""
        for dialect, reason in (("openai", "stop"), ("gemini", "STOP")):
            with self.subTest(dialect):
                answer = whole(dialect, scripted(dialect, [("", reason)]))
                self.assertEqual((answer.text, answer.finish_reason), ("", "stop"))
                with self.assertRaises(ir.AllCandidatesFailedError):
                    whole(dialect, scripted(dialect, [("", reason)], cut=True))
        for dialect, reason in (("openai", "length"), ("gemini", "MAX_TOKENS")):
            with self.subTest(dialect, reason=reason):
                self.assertEqual(whole(dialect, scripted(dialect, [("", reason)], cut=True)).finish_reason, "length")

    def test_words_that_are_no_reason(self) -> None:
        """A finish reason of "", "null" or "None" is none, whole or streamed, in every dialect."""
        for word in ("", "null", "None", " NULL "):
            for dialect in MAKERS:
                with self.subTest(dialect, word=word):
                    events = [("w0 ", word), ("w1", word)]
                    answer = whole(dialect, scripted(dialect, [*events, ("", "end")]))
                    self.assertEqual((answer.text, answer.finish_reason), ("w0 w1", "stop"))
                    with self.assertRaises(ir.StreamInterruptedError):
                        whole(dialect, scripted(dialect, events))
            with self.subTest("whole", word=word):
                made: dict[str, Any] = {
                    "openai": {"choices": [{"message": {"content": "hi"}, "finish_reason": word}]},
                    "gemini": {"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": word}]},
                    "anthropic": {"content": [{"type": "text", "text": "hi"}], "stop_reason": word},
                }
                for dialect, body in made.items():
                    answer = provider(dialect, "https://api.test/v1").decode(json.dumps(body).encode(), "m")
                    self.assertEqual((answer.text, answer.finish_reason), ("hi", None))

    def test_anthropic_ends_with_its_marker_alone(self) -> None:
        """Anthropic's stop_reason ends nothing, however early it comes and whatever it says: message_stop does."""
        start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        said = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "w "}}
        early: list[Any] = [
            {"type": "message_delta", "delta": {"stop_reason": word}, "usage": {}} for word in ("end_turn", "", "null", None)
        ]
        begun = [{"type": "message_start", "message": {}}, start, *(each for stop in early for each in (said, stop))]
        for end, reason in (({"type": "message_stop"}, "end_turn"), ({"type": "ping"}, None)):
            decoder = provider("anthropic", "https://api.test/v1").decoder("m")
            chunks = [chunk for event in [*begun, end] for chunk in decoder.feed(frames(event, named=True))]
            with self.subTest(reason=reason):
                self.assertEqual("".join(chunk.text for chunk in chunks), "w w w w ")
                self.assertEqual(decoder.complete, reason is not None)
                self.assertEqual([chunk.finish_reason for chunk in chunks if chunk.finish_reason], ["stop"])

    def test_a_second_choice_that_begins_late(self) -> None:
        """Where several choices were asked for, none is given up on before it began, nor taken for whole if it never came."""
        for dialect, extra in (("openai", {"n": 2}), ("gemini", {"generationConfig": {"candidateCount": 2}})):
            make, stop = MAKERS[dialect]
            for comes in (True, False):

                def script(peer: Peer, make: Any = make, stop: str = stop, comes: bool = comes) -> None:
                    if peer.request() is not None:
                        peer.send(
                            b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" if not comes else b"HTTP/1.1 200 OK\r\n\r\n"
                        )
                        peer.send(frames(make("first", None), make("", stop)))
                        time.sleep(TAIL_S * 2)
                        peer.send(frames(make("second", None, 1), make("", stop, 1)) if comes else b"")

                with self.subTest(dialect, comes=comes):
                    if comes:
                        answer = whole(dialect, script, **extra)
                        self.assertEqual([choice.message.text for choice in answer.choices], ["first", "second"])
                    else:
                        with self.assertRaises(ir.StreamInterruptedError) as caught:
                            whole(dialect, script, **extra)
                        self.assertEqual(caught.exception.partial.text, "first")

    def test_a_server_that_ignores_n(self) -> None:
        """Fewer choices than were asked for are an answer where the body ends well."""
        self.assertEqual(len(whole("openai", scripted("openai", [("one", None), ("", "end")]), n=3).choices), 1)

    def test_the_tail_begins_anew_with_content(self) -> None:
        """Silence after the real end closes a stream that stays open; a finish reason with content waits longer."""
        for events, least, most in (
            ([("fine", None), ("", "end")], TAIL_S, LIKELY_S),
            ([("fine", "end")], LIKELY_S, 3 * LIKELY_S),
        ):

            def script(peer: Peer, events: Sequence[Event] = events) -> None:
                if peer.request() is not None:
                    peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + frames(*(openai(text, r and "stop") for text, r in events)))
                    peer.wait()

            with self.subTest(events=events), tails(LIKELY_S), opened("openai", script) as stream:
                began = time.monotonic()
                self.assertEqual("".join(chunk.text for chunk in stream), "fine")
                took = time.monotonic() - began
                self.assertTrue(least * 0.9 <= took <= most + 1.0, took)


class Table(unittest.TestCase):
    """`StreamEnd` by itself. In a history "w" is content, "." a finish reason, "W" both in one event."""

    def read(self, history: str, wanted: int = 1, reason: str = "stop") -> Any:
        responses = part("responses")
        end = stream_end.StreamEnd(wanted)
        for event in history:
            delta = responses.Delta("text" if event in "wW" else "")
            choice = responses.ChunkChoice(0, delta, reason if event in ".W" else None)
            self.assertEqual(end.add(responses.ChatChunk(choices=(choice,))), event in "wW")
        return end

    def test_tails(self) -> None:
        """How long silence must last to be the end, by what came before it; None: it never is."""
        tail, likely = stream_end.TAIL_S, stream_end.LIKELY_TAIL_S
        for seconds, histories in (
            (tail, ("w.", "w..", "w", "ww", ".w.", "..w.", "W.")),
            (likely, ("W", "wW", ".W", ".wW")),
            (None, ("", ".", "..", ".w", "w.w", "Ww", "WW", "WWW.", "w.w.", "w.w.w", "WWw")),
        ):
            for history in histories:
                with self.subTest(history):
                    self.assertEqual(self.read(history).tail_s, seconds)
        self.assertIsNone(self.read("w.", wanted=2).tail_s)
        self.assertEqual(self.read(".", reason="length").tail_s, tail)
        self.assertEqual(self.read(".", reason="malformed_function_call").tail_s, tail)

    def test_taken_back(self) -> None:
        """An end was taken back where content came after it, until the next end."""
        for history, taken_back in {
            **dict.fromkeys(("", "w", ".", "w.", "W", "WW", "w.w.", ".w.", ".W", "WwW"), False),
            **dict.fromkeys((".w", "w.w", "Ww", "WWw", "w.w.w", "..w"), True),
        }.items():
            with self.subTest(history):
                self.assertEqual(self.read(history).taken_back, taken_back)


if __name__ == "__main__":
    unittest.main()
