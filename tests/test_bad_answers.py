"""Answers that are none, and streams that end in every wrong way: nothing broken is ever returned as a success."""

from __future__ import annotations

import gc
import json
import signal
import threading
import time
import unittest
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any
from unittest.mock import patch

from tests import ir, part
from tests.fakes import HELLO, METHODS, ListMeter, delta, http, make_router, sse, streamed, unary, used
from tests.servers import Peer, ScriptedServer, answering, then_close

GOOD = http({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}], "usage": {"total_tokens": 9}})
GOOD_STREAM = sse(delta("fine"), delta("", "stop"), "[DONE]")
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]}
HTML = b"<!DOCTYPE html><html><body>Sign in to continue</body></html>"

EVENTS = [b"data: %s\n\n" % json.dumps(event).encode() for event in (delta("fine"), delta("", "stop"))]


def choices(*made: Any, **more: Any) -> dict[str, Any]:
    return {"id": "1", "choices": list(made), **more}


BAD_UNARY: dict[str, bytes] = {
    "broken JSON": http(b'{"choices": [{"message": {"con'),
    "nothing": http(b""),
    "no JSON": http("upstream connect error"),
    "HTML": http(HTML, Content_Type="text/html"),
    "null": http(b"null"),
    "a list": http([]),
    "a number": http(b"7"),
    "not UTF-8": http(b"\xff\xfe\xfd"),
    "NaN": http(b'{"choices": NaN}'),
    "nested without end": http(b"[" * 200_000),
    "no choices": http({"id": "1", "model": "m"}),
    "empty choices": http(choices()),
    "null choices": http({"id": None, "model": None, "choices": None, "usage": None}),
    "a null choice": http(choices(None)),
    "a choice without a message": http(choices({"finish_reason": "stop"})),
    "a null message": http(choices({"message": None, "finish_reason": None, "index": None})),
    "a message that is text": http(choices({"message": "hi"})),
    "content of a wrong type": http(choices({"message": {"content": 7}})),
    "tool calls of a wrong type": http(choices({"message": {"content": "", "tool_calls": "x"}})),
    "a null tool call": http(choices({"message": {"content": None, "tool_calls": [None]}})),
    "error, a string": http({"error": "the backend is gone"}),
    "error, a dict": http({"error": {"message": "the backend is gone"}}),
    "error, in a list": http([{"error": {"message": "the backend is gone"}}]),
    "error, with empty choices": http({"error": {"message": "the backend is gone"}, "choices": []}),
    "compressed": http(b"\x1f\x8b\x08\x00", Content_Encoding="gzip"),
}

BAD_OPENINGS: dict[str, bytes] = {
    "nothing": sse(),
    "only [DONE]": sse("[DONE]"),
    "only empty choices": sse(choices(), "[DONE]"),
    "broken JSON": sse('{"choices": [{"delta"'),
    "null": sse("null"),
    "a list": sse("[]"),
    "null choice": sse(choices(None)),
    "choices of a wrong type": sse({"choices": 7}),
    "delta of a wrong type": sse({"choices": [{"index": 0, "delta": 7}]}),
    "HTML": http(HTML, Content_Type="text/html"),
    "an ended role": sse(ROLE),
    "a cut role": sse(ROLE, ended=False),
    "error, a dict": sse({"error": {"message": "gone"}}),
    "error, a string": sse({"error": "gone"}),
    "error, after the role": sse(ROLE, {"error": {"message": "gone"}}),
    "error, a bare object": http({"error": {"message": "gone"}}),
    "error, a bare list": http([{"error": {"message": "gone"}}]),
    "an empty body": http(b"", Content_Type="text/event-stream"),
}

BAD_MIDDLES: dict[str, bytes] = {
    "cut hard": sse(delta("fi"), delta("ne"), ended=False),
    "ended cleanly without its marker": sse(delta("fi"), delta("ne")),
    "error, a dict": sse(delta("fi"), delta("ne"), {"error": {"message": "gone"}}),
    "error, a string": sse(delta("fi"), delta("ne"), {"error": "gone"}),
    "error, a list": sse(delta("fi"), delta("ne"), '[{"error": {"message": "gone"}}]'),
    "broken JSON": sse(delta("fi"), delta("ne"), '{"choices": ['),
    "null": sse(delta("fi"), delta("ne"), "null"),
    "a null choice": sse(delta("fi"), delta("ne"), choices(None)),
    "half an event": sse(delta("fi"), delta("ne"))[:-5] + b'8\r\ndata: {"\r\n0\r\n\r\n',
}


class BadAnswers(unittest.TestCase):
    def over(self, bad: bytes, good: bytes, method: str) -> tuple[Any, Any, ListMeter]:
        """The answer of one call whose first candidate sends `bad` and whose second sends `good`, and the first's use."""
        meter = ListMeter()
        with ScriptedServer(then_close(bad)) as first, ScriptedServer(then_close(good)) as second:
            with make_router({"a": first.url, "b": second.url}, meter=meter) as router:
                answer = METHODS[method](router)
                return answer, used(router, "a"), meter

    def test_unary(self) -> None:
        """A 2xx body that holds no answer moves on to the next candidate and charges the whole reservation."""
        for name, bad in BAD_UNARY.items():
            with self.subTest(name):
                answer, charged, meter = self.over(bad, GOOD, "unary")
                self.assertEqual((answer.text, answer.routing.account_id), ("fine", "b"))
                self.assertEqual(charged, {"rpd": 1, "tpd": meter.routes[0].estimated_tokens})
                self.assertIsInstance(meter.results[0].error, (ir.MalformedResponseError, ir.ProviderUnavailableError))

    def test_before_the_first_content(self) -> None:
        """A stream that fails before its first content moves on to the next candidate and charges the whole reservation."""
        for name, bad in BAD_OPENINGS.items():
            with self.subTest(name):
                answer, charged, meter = self.over(bad, GOOD_STREAM, "stream")
                self.assertEqual((answer.text, answer.routing.account_id), ("fine", "b"))
                self.assertEqual(charged, {"rpd": 1, "tpd": meter.routes[0].estimated_tokens})
                self.assertIsInstance(meter.results[0].error, (ir.MalformedResponseError, ir.ProviderUnavailableError))

    def test_after_content(self) -> None:
        """A stream that fails after content raises StreamInterruptedError with what came, is charged, and asks nobody else."""
        for name, bad in BAD_MIDDLES.items():
            meter = ListMeter()
            with self.subTest(name), ScriptedServer(then_close(bad)) as first, ScriptedServer(then_close(GOOD_STREAM)) as second:
                with make_router({"a": first.url, "b": second.url}, meter=meter) as router:
                    texts = []
                    with router.stream(HELLO) as stream, self.assertRaises(ir.StreamInterruptedError) as caught:
                        for chunk in stream:
                            texts.append(chunk.text)
                    self.assertEqual("".join(texts), "fine", "everything that came is handed out first")
                    self.assertEqual(used(router, "a"), {"rpd": 1, "tpd": meter.routes[0].estimated_tokens})
                    self.assertEqual(router.status()["a"].in_flight, 0)
                    self.assertEqual(list(stream), [], "after its end a stream gives nothing more")
                error = caught.exception
                self.assertEqual((error.partial.text, error.partial.choices[0].finish_reason), ("fine", None))
                self.assertEqual(error.partial.routing.account_id, "a")
                self.assertIsInstance(error.cause, ir.ProviderError)
                self.assertTrue(error.retryable)
                self.assertEqual(second.connections, 0)
                self.assertEqual([event.success for event in meter.results], [False])

    def test_errors_inside_name_themselves(self) -> None:
        """An error object inside a 200 that names a status means what that status means."""
        limited = {"error": {"message": "slow down, please try again in 3s", "code": 429}}
        for method, bad, good in (("unary", http(limited), GOOD), ("stream", sse(limited), GOOD_STREAM)):
            with self.subTest(method):
                _, charged, meter = self.over(bad, good, method)
                self.assertIs(type(meter.results[0].error), ir.RateLimitedError)
                self.assertEqual(meter.results[0].error.retry_after, 3)
                self.assertEqual(charged, {"rpd": 1, "tpd": 0})

    def test_gemini_and_anthropic(self) -> None:
        """What ends before its terminal marker is an interruption in every dialect, and a success only with it."""
        gemini = [{"candidates": [{"content": {"parts": [{"text": text}]}}]} for text in ("fi", "ne")]
        gemini_end = {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]}
        anthropic = [
            {"type": "message_start", "message": {"id": "1", "model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": t}} for t in ("fi", "ne")),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
        ]
        for provider, events, end in (
            (ir.GeminiProvider, gemini, gemini_end),
            (ir.AnthropicProvider, anthropic, {"type": "message_stop"}),
        ):
            for whole in (False, True):
                script = then_close(sse(*events, *([end] if whole else [])))
                with self.subTest(provider.__name__, whole=whole), ScriptedServer(script) as server:
                    named = provider(server.url)
                    config = ir.Config([ir.AccountConfig(named.name, "a", ir.Auth("k"))])
                    request = ir.ChatRequest("Hello!", model=f"{named.name}/m")
                    with ir.Router(config, [named]) as router:
                        if whole:
                            self.assertEqual(streamed(router, request).text, "fine")
                        else:
                            with self.assertRaises(ir.StreamInterruptedError) as caught:
                                streamed(router, request)
                            self.assertEqual(caught.exception.partial.text, "fine")

    def test_half_a_tool_call(self) -> None:
        """Arguments of a tool call that were cut never reach the caller as a finished call."""
        call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"city": "Par'}}
        event = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
        with ScriptedServer(then_close(sse(event))) as server, make_router({"a": server.url}) as router:
            with self.assertRaises(ir.StreamInterruptedError) as caught:
                streamed(router)
        self.assertEqual(caught.exception.partial.tool_calls, ())

    def test_marker_is_enough(self) -> None:
        """Once its terminal marker was seen a stream is whole, even if the connection breaks right after it."""
        for name, answer in {
            "[DONE]": sse(delta("fine"), "[DONE]", ended=False),
            "finish_reason": sse(delta("fine"), delta("", "stop"), ended=False),
        }.items():
            with self.subTest(name), ScriptedServer(then_close(answer)) as server, make_router({"a": server.url}) as router:
                self.assertEqual(streamed(router).text, "fine")
                self.assertEqual(router.status()["a"].breaker, "closed")

    def test_done_does_not_wait(self) -> None:
        """A stream ends at [DONE], even if the server then keeps the connection open and silent."""

        def script(peer: Peer) -> None:
            if peer.request() is not None:
                peer.send(sse(delta("fine"), delta("", "stop"), "[DONE]", ended=False))
                peer.wait()

        with ScriptedServer(script) as server, make_router({"a": server.url}) as router:
            began = time.monotonic()
            self.assertEqual(streamed(router).text, "fine")
            self.assertLess(time.monotonic() - began, 1.0)

    def test_what_follows_the_answer_prolongs_nothing(self) -> None:
        """After its finish reason a stream ends by the call's deadline or soon, even if comments or empty events trickle on."""

        def read(trickle: bytes, at_once: bool) -> tuple[str, str, float]:
            def script(peer: Peer) -> None:
                if peer.request() is not None:
                    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
                    peer.send(head + b"".join(EVENTS) if at_once else head + EVENTS[0])
                    time.sleep(0.05)
                    peer.send(b"" if at_once else EVENTS[1])
                    peer.drip(trickle * 100, 0.002)

            with ScriptedServer(script) as server, make_router({"a": server.url}) as router:
                began = time.monotonic()
                with router.stream(HELLO, timeout=0.3) as stream:
                    text = "".join(chunk.text for chunk in stream)
                return text, stream.response.finish_reason, time.monotonic() - began

        trickles = (b": still here\n\n", b'data: {"choices": []}\n\n')
        with ThreadPoolExecutor(4) as pool:
            runs = [(each, pool.submit(read, *each)) for each in product(trickles, (True, False))]
        for each, run in runs:
            with self.subTest(each):
                text, reason, seconds = run.result()
                self.assertEqual((text, reason), ("fine", "stop"))
                self.assertLess(seconds, 0.6)

    def test_a_choice_that_begins_late(self) -> None:
        """A second choice that begins after the first has ended has all the time of a stream, not that of its tail."""

        def script(peer: Peer) -> None:
            if peer.request() is not None:
                late = EVENTS[0].replace(b'"index": 0', b'"index": 1')
                peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + b"".join(EVENTS) + late)
                time.sleep(0.08)
                peer.send(EVENTS[1].replace(b'"index": 0', b'"index": 1'))

        with patch.object(part("stream_end"), "TAIL_S", 0.05), ScriptedServer(script) as server:
            with make_router({"a": server.url}) as router:
                response = streamed(router)
        self.assertEqual([choice.message.text for choice in response.choices], ["fine", "fine"])

    def test_everything_bad(self) -> None:
        """Where every candidate answers badly, the error says what each of them sent."""
        page = http(HTML, Content_Type="text/html")
        with ScriptedServer(answering(page)) as server, make_router({"a": server.url, "b": server.url}) as router:
            for method in (unary, streamed):
                with self.assertRaises(ir.AllCandidatesFailedError) as caught:
                    method(router)
                self.assertEqual([type(each.error) for each in caught.exception.attempts], [ir.MalformedResponseError] * 2)
                self.assertIn("Sign in", caught.exception.attempts[0].error.body)


def stop_by_break(stream: Any) -> None:
    for _ in stream:
        break
    stream.close()


def stop_by_close(stream: Any) -> None:
    stream.close()


def stop_by_with(stream: Any) -> None:
    with stream:
        next(iter(stream))


def stop_by_exception(stream: Any) -> None:
    try:
        with stream:
            for _ in stream:
                raise KeyError("the caller's own")
    except KeyError:
        pass


def stop_twice(stream: Any) -> None:
    stream.close()
    with stream:
        stream.close()


STOPS: tuple[Callable[[Any], None], ...] = (stop_by_break, stop_by_close, stop_by_with, stop_by_exception, stop_twice)


class EarlyStops(unittest.TestCase):
    def setUp(self) -> None:
        self.gone_after: list[float] = []
        self.stopped_at = 0.0

    def endless(self, peer: Peer) -> None:
        """Opens a stream, sends some content, then notes how soon after the caller's stop the socket was closed."""
        if peer.request() is not None:
            peer.send(sse(delta("Once "), delta("upon "), ended=False))
            if peer.gone():
                self.gone_after.append(time.monotonic() - self.stopped_at)

    def stopped(self, stop: Callable[[Any], None], keep: bool = False, collect: bool = False) -> None:
        """Stops a stream and looks at what is left. `keep`: the stream lives on; `collect`: it dies as garbage.

        A machine that is busy elsewhere may be late; it gets three turns to be in time once.
        """
        for _ in range(3):
            self.gone_after.clear()
            self.stop_once(stop, keep, collect)
            # Collecting everything takes as long as everything there is.
            if self.gone_after[0] < (1.0 if collect else 0.05):
                return
        self.fail(f"the socket was closed after {self.gone_after[0]:.3f} s only")

    def stop_once(self, stop: Callable[[Any], None], keep: bool, collect: bool) -> None:
        meter = ListMeter()
        with ScriptedServer(self.endless) as server:
            with make_router({"a": server.url}, meter=meter) as router:
                holder = [router.stream(HELLO)]
                self.assertEqual(router.status()["a"].in_flight, 1)
                self.stopped_at = time.monotonic()
                stop(holder[0])
                if not keep:
                    holder.clear()
                if collect:
                    with warnings.catch_warnings():
                        # Within a cycle the interpreter may finalize the socket before the stream, and warns then.
                        warnings.simplefilter("ignore", ResourceWarning)
                        gc.collect()
                state = router.status()["a"]
                deadline = time.monotonic() + 2
                while not self.gone_after and time.monotonic() < deadline:
                    time.sleep(0.001)
                self.assertEqual((state.in_flight, state.breaker), (0, "closed"))
                amounts = {limit.name: limit.used for limit in state.limits}
                self.assertEqual(amounts["rpd"], 1)
                given = meter.routes[0].estimated_tokens - HELLO.max_tokens
                self.assertTrue(given <= amounts["tpd"] < meter.routes[0].estimated_tokens, amounts)
                self.assertEqual([event.success for event in meter.results], [True], "settled once")
        self.assertEqual(len(self.gone_after), 1)

    def test_ways_to_stop(self) -> None:
        """However a caller stops a stream, its socket is closed within 50 ms and it is settled once."""
        for stop in STOPS:
            with self.subTest(stop.__name__):
                self.stopped(stop, keep=True)

    def test_stopped_by_another_thread(self) -> None:
        """A stream that waits for its next chunk ends without an error, and at once, when another thread closes it."""
        chunks: list[str] = []

        def stop(stream: Any) -> None:
            def close() -> None:
                self.stopped_at = time.monotonic()
                stream.close()

            chunks.clear()
            timer = threading.Timer(0.05, close)
            timer.start()
            chunks.extend(chunk.text for chunk in stream)
            timer.join()
            self.assertEqual(stream.response.text, "".join(chunks))

        self.stopped(stop, keep=True)
        self.assertEqual("".join(chunks), "Once upon ")

    @unittest.skipUnless(hasattr(signal, "SIGALRM"), "needs timers that signal")
    def test_stopped_by_a_signal(self) -> None:
        """A signal handler may close the stream in whose read it came."""

        def stop(stream: Any) -> None:
            def close(*args: object) -> None:
                self.stopped_at = time.monotonic()
                stream.close()

            before = signal.signal(signal.SIGALRM, close)
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                self.assertEqual("".join(chunk.text for chunk in stream), "Once upon ")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)

        self.stopped(stop, keep=True)

    def test_dropped(self) -> None:
        """A stream that is dropped, begun or not, is closed and settled at once."""
        for stop in (lambda stream: None, lambda stream: next(iter(stream)) and None):
            self.stopped(stop)

    def test_collected(self) -> None:
        """A stream in a cycle is closed and settled when it is collected."""

        def tie(stream: Any) -> None:
            knot: list[Any] = [stream]
            knot.append(knot)

        self.stopped(tie, collect=True)

    def test_collected_anywhere(self) -> None:
        """A stream that is collected settles nothing by itself, as locks may be held there; the next look or call settles it."""
        meter = ListMeter()
        with ScriptedServer(self.endless) as server, make_router({"a": server.url}, meter=meter) as router:
            held = [router.stream(HELLO)]
            held.clear()
            self.assertEqual(meter.results, [])
            self.assertEqual(router.status()["a"].in_flight, 0)
            self.assertEqual(len(meter.results), 1)
            held = [router.stream(HELLO)]
            held.clear()
            held = [router.stream(HELLO)]
            self.assertEqual(len(meter.results), 2, "the next call settles it too")
            held.clear()

    def test_response_too_early(self) -> None:
        """The whole answer of a stream that is still open is an error that says what to do."""
        with ScriptedServer(self.endless) as server, make_router({"a": server.url}) as router:
            with router.stream(HELLO) as stream:
                with self.assertRaisesRegex(ir.InferRouterError, "iterate it"):
                    stream.response  # noqa: B018  reading it is the point
            self.assertIn(stream.response.text, ("Once ", "Once upon "))

    def test_response_of_a_broken_stream(self) -> None:
        """The whole answer of a stream that broke off is an error that names where the rest is."""
        config = {"idle_timeout": 0.05}
        with ScriptedServer(self.endless) as server, make_router({"a": server.url}, config=config) as router:
            with router.stream(HELLO) as stream, self.assertRaises(ir.StreamInterruptedError):
                list(stream)
            with self.assertRaisesRegex(ir.InferRouterError, r"broke off.*\.partial"):
                stream.response  # noqa: B018  reading it is the point

    def test_idle_and_deadline(self) -> None:
        """A stream that falls silent is interrupted by idle_timeout, or by the call's own timeout."""
        for config, bounds in (({"idle_timeout": 0.05}, {}), ({}, {"timeout": 0.1})):
            with self.subTest(config=config), ScriptedServer(self.endless) as server:
                with make_router({"a": server.url}, config=config) as router:
                    with self.assertRaises(ir.StreamInterruptedError) as caught:
                        streamed(router, **bounds)
                    self.assertIs(type(caught.exception.cause), ir.AttemptTimeoutError)
                    self.assertEqual(caught.exception.partial.text, "Once upon ")


if __name__ == "__main__":
    unittest.main()
