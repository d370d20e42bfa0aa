"""Bodies meant to do harm, through the whole router: one of our errors, the reservation charged, and little memory."""

from __future__ import annotations

import tracemalloc
import unittest
from typing import Any

from tests import ir
from tests.fakes import FakeClock, ListMeter, streamed, unary, used
from tests.faults import HEAD, KEY_HEADERS, STREAM_HEAD, TROUBLES, Asked, FaultServer, Script, http, provider, whole
from tests.servers import Peer, environment

METHODS = {"unary": unary, "stream": streamed}
HELLO = ir.ChatRequest("Hello!", model="m", max_tokens=30)
HOSTILE = (
    *("NaN", "5,000 digits", "100,000 deep", "UTF-16", "invalid UTF-8", "gzip", "gzip, unannounced", "null", "a string", "empty"),
    *("long header", "bad header", "bad length", "absurd length", "bad chunk size", "cut by length", "cut in a chunk"),
)
MEGABYTE = b"x" * (1 << 20)
WHOLE_CAP, EVENT_CAP = 32 << 20, 8 << 20


def endless(head: bytes, before: bytes) -> Script:
    """A body of 1 MiB chunks without an end."""

    def script(peer: Peer, asked: Asked) -> bool:
        peer.send(head + b"%x\r\n%s\r\n" % (len(before), before))
        while peer.send(b"%x\r\n%s\r\n" % (len(MEGABYTE), MEGABYTE)):
            pass
        return False

    return script


def counting(count: object) -> Script:
    """A good answer, whose every token count is `count`."""

    def script(peer: Peer, asked: Asked) -> bool:
        body = whole(asked.dialect, "Hello there.")
        name = "usageMetadata" if asked.dialect == "gemini" else "usage"
        return peer.send(http({**body, name: dict.fromkeys(body[name], count)}))

    return script


class HostileBodies(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(environment())
        self.fault_server = self.enterContext(FaultServer())
        self.meter = ListMeter()

    def router(self, dialect: str) -> Any:
        account = ir.AccountConfig(dialect, "a", ir.Auth("sk-some-key"), limits={"rpd": 1000, "tpd": 10**9})
        config = ir.Config([account], [ir.ModelMapping("m", [ir.ModelRef(dialect, "m")])])
        made = ir.Router(config, [provider(dialect, self.fault_server.server.url)], clock=FakeClock(), meter=self.meter)
        return self.enterContext(made)

    def test_every_body(self) -> None:
        """Each is an error whose attempt charged what was reserved, in every dialect, whole and streamed."""
        for dialect in KEY_HEADERS:
            for name in HOSTILE:
                for method, call in METHODS.items():
                    with self.subTest(name, dialect=dialect, method=method):
                        self.fault_server.script = TROUBLES[name]
                        router = self.router(dialect)
                        with self.assertRaises(ir.AllCandidatesFailedError) as caught:
                            call(router, HELLO)
                        error = caught.exception.attempts[0].error
                        self.assertIsInstance(error, (ir.MalformedResponseError, ir.ProviderUnavailableError))
                        self.assertEqual(used(router, "a"), {"rpd": 1, "tpd": self.meter.routes[-1].estimated_tokens})

    def test_memory(self) -> None:
        """A body or an event without an end is given up at its cap, in less memory than twice that."""
        plain = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        for method, script, cap in (
            ("unary", endless(plain, b'{"choices": "'), WHOLE_CAP),
            ("stream", endless(STREAM_HEAD, b'data: {"choices": "'), EVENT_CAP),
        ):
            self.fault_server.script = script
            router = self.router("openai")
            tracemalloc.start()
            try:
                with self.assertRaises(ir.AllCandidatesFailedError):
                    METHODS[method](router, HELLO)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            with self.subTest(method):
                self.assertLess(peak, 2 * cap + (4 << 20))
                self.assertGreater(peak, cap // 2)
                self.assertEqual(used(router, "a")["tpd"], self.meter.routes[-1].estimated_tokens)

    def test_token_counts(self) -> None:
        """Counts that are none do not reach the caller or the ledger: what is charged is an own count."""
        for dialect in KEY_HEADERS:
            for count in (-5, True, "7", None, [3], {"a": 1}, 1e300, -0.5):
                with self.subTest(count, dialect=dialect):
                    self.fault_server.script = counting(count)
                    router = self.router(dialect)
                    usage = unary(router, HELLO).usage
                    self.assertEqual({type(usage.prompt_tokens), type(usage.completion_tokens)}, {int})
                    self.assertGreaterEqual(min(usage.prompt_tokens, usage.completion_tokens), 0)
                    self.assertTrue(0 < used(router, "a")["tpd"] < 100, used(router, "a"))

    def test_lone_surrogates(self) -> None:
        """Half a character in an answer does not keep it from being printed."""
        for dialect in KEY_HEADERS:
            self.fault_server.script = lambda peer, asked: peer.send(http(whole(asked.dialect, "a\ud800b")))
            self.assertEqual(unary(self.router(dialect), HELLO).text.encode().decode(), "a\ufffdb")


if __name__ == "__main__":
    unittest.main()
