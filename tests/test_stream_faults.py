"""Streams whose end cannot be put together: the error is of this library's tree, and the call is settled exactly once."""

from __future__ import annotations

import json
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from tests import ir, part
from tests.dialects import frames
from tests.fakes import FakeClock, ListMeter
from tests.faults import STREAM_HEAD, events, http, provider, whole
from tests.servers import Peer, ScriptedServer

PRICES = {"paid_enabled": True, "cost_per_input_token": 1e-6, "cost_per_output_token": 1e-6}
DIGITS = "9" * 400
HUGE_USAGE = {
    "openai": ({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 7}}, "7}"),
    "gemini": ({"usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 7}}, "7}"),
    "anthropic": ({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 7}}, "7}"),
}


def odd(dialect: str) -> bytes:
    """An event that counts more tokens than there are atoms."""
    item, figure = HUGE_USAGE[dialect]
    return frames(item, named=dialect == "anthropic").replace(figure.encode(), DIGITS.encode() + b"}", 1)


class Watched(unittest.TestCase):
    """A call to a healthy account whose breaker is half open, so that whatever is not given back is missed at once."""

    def watch(self, dialect: str, stream: bytes, call: Callable[[Any], Any], custom: Any = None) -> tuple[Any, ListMeter]:
        """What `call(router)` gives or raises where a stream's body is `stream`. Looks that it left nothing behind."""
        meter, clock, mode = ListMeter(), FakeClock(), ["broken"]

        def script(peer: Peer) -> None:
            while peer.request() is not None:
                if mode[0] == "stream":
                    peer.send(STREAM_HEAD + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in _events(stream)))
                    peer.send(b"0\r\n\r\n")
                elif mode[0] == "whole":
                    peer.send(http(whole(dialect, "fine")))
                else:
                    peer.send(http({}, 500))

        with ScriptedServer(script) as server:
            used = custom(server.url) if custom else provider(dialect, server.url)
            account = ir.AccountConfig(used.name, "a", ir.Auth("k"), limits={"rpd": 100}, **PRICES)
            config = ir.Config([account], default_model=f"{used.name}/m", allow_paid=True)
            health = ir.HealthConfig(failure_threshold=1, open_for=10)
            with ir.Router(config, [used], meter=meter, clock=clock, health=health) as router:
                self.assertRaises(ir.AllCandidatesFailedError, router.chat_completion, ir.ChatRequest("hi"))
                clock.advance(11)
                mode[0] = "stream"
                try:
                    outcome = call(router)
                except ir.InferRouterError as exc:
                    outcome = exc
                self.assertEqual(router.status()["a"].in_flight, 0)
                self.assertEqual(len(meter.results), 2, "settled once")
                clock.advance(11)
                mode[0] = "whole"
                self.assertTrue(custom or router.chat_completion(ir.ChatRequest("hi")).text == "fine")
        return outcome, meter


def _events(stream: bytes) -> list[bytes]:
    mark = b"\r\n\r\n" if b"\r\n\r\n" in stream else b"\n\n"
    return [part + mark for part in stream.split(mark) if part]


def read_all(router: Any) -> Any:
    with router.stream(ir.ChatRequest("hi")) as stream:
        list(stream)
    return stream.response


def close_early(router: Any) -> Any:
    stream = router.stream(ir.ChatRequest("hi"))
    next(stream)
    stream.close()
    return stream.response


class AbsurdFigures(Watched):
    def test_usage_of_400_digits(self) -> None:
        """Usage beyond all measure is cut to a figure that every store can count, however the stream ends."""
        for dialect in HUGE_USAGE:
            said, end = events(dialect, "Hello ", "there.")[:-1], events(dialect, "Hello ", "there.")[-1:]
            body = b"".join([*said, odd(dialect)])
            for name, stream, call in (
                ("whole", body + b"".join(end), read_all),
                ("cut", body, read_all),
                ("closed", body + b"".join(end), close_early),
            ):
                with self.subTest(dialect, ends=name):
                    outcome, meter = self.watch(dialect, stream, call)
                    if name == "cut" and dialect != "anthropic":
                        self.assertIsInstance(outcome, ir.StreamInterruptedError)
                        self.assertEqual(outcome.partial.text, "Hello there.")
                    self.assertLess(meter.results[-1].usage.total_tokens, 2**53)
                    self.assertLess(meter.results[-1].cost, 1e9)

    def test_a_number_that_is_not_finite(self) -> None:
        """1e999 anywhere in an event is a malformed answer, not an infinity that surprises somebody later."""
        for dialect in HUGE_USAGE:
            said = events(dialect, "Hello ", "there.", ended=False)
            infinite = said[-1].replace(b"{", b'{"n": 1e999, ', 1)
            with self.subTest(dialect):
                outcome, _ = self.watch(dialect, b"".join([*said, infinite]), read_all)
                self.assertIsInstance(outcome, ir.StreamInterruptedError)
                self.assertIsInstance(outcome.cause, ir.MalformedResponseError)
                outcome, _ = self.watch(dialect, infinite, read_all)
                self.assertIsInstance(outcome.attempts[0].error, ir.MalformedResponseError)

    def test_a_turn_that_cannot_be_written_again(self) -> None:
        """An answer whose native form is nested deeper than this interpreter can go is given out all the same, without it."""
        details = '"reasoning_details": [{"type": "x", "data": [[]]}]'
        made = '{"choices": [{"index": 0, "%s": {"content": "hi", %s}, "finish_reason": "stop"}]}'
        found = ir.OpenAICompatProvider("p", "https://api.test/v1")
        too_deep = mock.Mock(side_effect=RecursionError)  # how deep that is differs from version to version
        decoder = found.decoder("m")
        self.assertEqual(decoder.feed(f"data: {made % ('delta', details)}\n\n".encode())[0].text, "hi")
        with mock.patch.object(part("wire_json"), "_READABLE", mock.Mock(encode=too_deep)):
            self.assertEqual(dict(decoder.natives()), {})
        answer = found.decode((made % ("message", details)).encode(), "m")
        with mock.patch.object(json, "loads", too_deep), self.assertRaises(ir.MalformedResponseError):
            answer.raw  # noqa: B018  reading it is the point
        self.assertEqual(too_deep.call_count, 2)


class Odd(ir.OpenAICompatProvider):
    """A provider of the caller's own whose decoder goes wrong."""

    def __init__(self, url: str, fault: str) -> None:
        super().__init__("own", url)
        self.fault = fault

    def decoder(self, model: str) -> Any:
        made = super().decoder(model)
        fault = self.fault

        class Decoder(type(made)):  # type: ignore[misc]  # whatever class it is
            def read(self, event: str, item: Any, source: str) -> Any:
                if fault == "read" and item["choices"][0]["delta"].get("content") == "there.":
                    raise KeyError(fault)
                usage = {"usage": ir.Usage(10**400, 10**400, 10**400), "kind": ir.Usage("many", None, [])}.get(fault)
                return [_with(chunk, usage) for chunk in super().read(event, item, source)]

            def natives(self) -> Any:
                if fault == "natives":
                    raise TypeError(fault)
                return super().natives()

        return Decoder(self)


def _with(chunk: Any, usage: Any) -> Any:
    return chunk if usage is None else ir.ChatChunk(chunk.id, chunk.model, chunk.choices, usage, chunk.source)


class OwnProviders(Watched):
    def test_decoders_that_go_wrong(self) -> None:
        """Whatever a decoder of the caller's own raises or counts, the stream ends with an error of the tree, settled once."""
        body = b"".join(events("openai", "Hello ", "there."))
        for fault in ("read", "natives", "usage", "kind"):
            with self.subTest(fault):
                outcome, meter = self.watch("openai", body, read_all, lambda url, fault=fault: Odd(url, fault))
                self.assertIsInstance(outcome, ir.StreamInterruptedError)
                self.assertFalse(meter.results[-1].success)
                self.watch("openai", body, close_early, lambda url, fault=fault: Odd(url, fault))


if __name__ == "__main__":
    unittest.main()
