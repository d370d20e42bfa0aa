"""Keys in unusual places: spelled in bodies, in headers, in addresses, in half-built objects, behind proxies and in log lines."""

from __future__ import annotations

import io
import json
import logging
import os
import traceback
import unittest
from typing import Any

from tests import ir, part
from tests.fakes import FakeClock
from tests.faults import KEY_HEADERS, Asked, FaultServer, chunked, events, http, provider
from tests.servers import OK, Peer, ScriptedServer, answering, environment
from tests.test_escapes import SPELLINGS

KEY = "sk-canary+/=0123456789"
PASSWORD = "s3cret-part"
CONTROLS = "\x1b[2J\x1b]0;owned\x07 \u202e evil\r\nWARNING forged\u2028x\x00\x08\x85\u200f"


def everything(exc: BaseException) -> str:
    """Whatever can be seen of an error: its texts, those behind it, and the variables of the frames it passed."""
    shown = "".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format())
    return f"{shown} {exc!r} {vars(exc)!r}"


class Echoes(unittest.TestCase):
    """A provider that repeats the key it was given, in the way a test says."""

    def setUp(self) -> None:
        self.server = self.enterContext(FaultServer())

    def fails(self, dialect: str, script: Any, stream: bool = False, **settings: Any) -> ir.InferRouterError:
        self.server.script = script
        settings.setdefault("auth", ir.Auth(KEY))
        account = ir.AccountConfig(dialect, "a", **settings)
        config = ir.Config([account], default_model=f"{dialect}/m")
        with ir.Router(config, [provider(dialect, self.server.server.url)], clock=FakeClock()) as router:
            with self.assertRaises(ir.InferRouterError) as caught:
                list(router.stream(ir.ChatRequest("hi"))) if stream else router.chat_completion(ir.ChatRequest("hi"))
        return caught.exception

    def test_spelled_in_a_body(self) -> None:
        """A key in JSON escapes, percent, entities or base64 is in no message and no body of an error."""
        for name, spell in SPELLINGS.items():
            for dialect in KEY_HEADERS:
                body = b'{"error": {"message": "no such key: %s.", "code": 401}}' % spell(KEY).replace("\\x", "\\\\x").encode()
                error = self.fails(dialect, lambda peer, asked, body=body: peer.send(http(body, 401)))
                with self.subTest(name, dialect=dialect):
                    self.assertIn("no such key: ***.", error.message)
                    self.assertIn("no such key: ***.", error.body)

    def test_in_every_part_of_a_partial_answer(self) -> None:
        """Of an answer that broke off neither text, reasoning, ids, names nor arguments show the key, nor do its pieces."""
        call = {"index": 0, "id": KEY, "function": {"name": KEY, "arguments": json.dumps({"key": KEY})}}
        delta = {"content": f"text {KEY}", "reasoning": KEY, "tool_calls": [call]}
        halves = [{"choices": [{"index": 0, "delta": {"content": half}}]} for half in (KEY[:9], KEY[9:])]
        for item in ([{"id": KEY, "model": KEY, "choices": [{"index": 0, "delta": delta}]}], halves):
            stream = chunked(*(b"data: %s\n\n" % json.dumps(each).encode() for each in item), ended=False)
            error = self.fails("openai", lambda peer, asked, stream=stream: peer.send(stream) and False, stream=True)
            self.assertIsInstance(error, ir.StreamInterruptedError)
            self.assertIn("***", error.partial.text)
            shown = f"{error.partial!r} {error.partial.raw!r} {everything(error)}"
            self.assertNotIn(KEY, shown)
            self.assertNotIn(KEY[9:], shown)

    def test_in_pieces_of_a_harmless_answer(self) -> None:
        """Where the answer itself quotes no key its pieces are kept, with the key masked in them."""
        frame = events("openai", "fine", ended=False)[0].replace(b'"m"', json.dumps(KEY).encode())
        error = self.fails("openai", lambda peer, asked: peer.send(chunked(frame, ended=False)) and False, stream=True)
        self.assertEqual((error.partial.text, error.partial.raw["model"]), ("fine", "***"))

    def test_headers_that_hold_a_key(self) -> None:
        """A credential in a header is masked like the key, given as text or as a secret, with or without a scheme."""
        for name, value in (("Authorization", f"Bearer {KEY}"), ("api-key", KEY), ("X-Auth-Token", KEY), ("Cookie", f"a={KEY}")):
            asked = json.dumps({"error": {"message": f"you sent {name}: {value}"}}).encode()
            error = self.fails(
                "openai", lambda peer, _, asked=asked: peer.send(http(asked, 401)), auth=ir.Auth(), headers={name: value}
            )
            with self.subTest(name):
                self.assertIn("***", str(error))
                self.assertNotIn(KEY, everything(error))
                self.assertNotIn(KEY, repr(ir.AccountConfig("p", "a", headers={name: value}).headers))
                self.assertIn(f": {value}\r\n".encode(), self.server.requests[-1][1])


class Proxies(unittest.TestCase):
    def call(self, url: str, **settings: Any) -> ir.InferRouterError | str:
        account = ir.AccountConfig("p", "a", base_url=url, allow_http=True, **settings)
        with ir.Router(ir.Config([account], default_model="p/m", attempt_timeout=3)) as router:
            try:
                return str(router.chat_completion(ir.ChatRequest("hi")).text)
            except ir.InferRouterError as exc:
                return exc

    def test_no_credential_in_the_clear(self) -> None:
        """A credential in any header never passes a proxy over plain http; a header without one does."""
        with ScriptedServer(answering(OK)) as proxy, environment(http_proxy=proxy.url):
            for settings in (
                {"auth": ir.Auth(KEY)},
                {"headers": {"Authorization": f"Bearer {KEY}"}},
                {"headers": {"x-api-key": KEY}},
                {"headers": {"X-Any": part("secret").Secret(KEY)}},
            ):
                error = self.call("http://api.test/v1", **settings)
                self.assertIn("a key would pass the proxy in the clear", str(error))
            self.assertEqual(proxy.requests, [])
            self.call("http://api.test/v1", headers={"X-Title": "my app"})
            self.assertEqual(len(proxy.requests), 1)

    def test_passwords(self) -> None:
        """The password of a proxy is in no error, whatever is wrong with the proxy or its address."""
        with ScriptedServer(lambda peer: peer.send(b"no HTTP at all\r\n\r\n")) as proxy:
            for address in (
                *(f"http://user:{PASSWORD}@{proxy.netloc}", f"http://user:{PASSWORD}@127.0.0.1:1", f"http://user:{PASSWORD}"),
                *(
                    f"http://user:{PASSWORD}@[::1",
                    f"http://user:{PASSWORD}@h:99999",
                    f"http:user:{PASSWORD}@",
                    f"http:/{PASSWORD}",
                ),
                *(
                    f"http://user:{PASSWORD}@h:{PASSWORD}",
                    f"http://user:{PASSWORD}/x@127.0.0.1:1",
                    f"socks5://user:{PASSWORD}@h:1",
                ),
                *(
                    f"http://u:{PASSWORD}@bücher:1",
                    f"//u:{PASSWORD}@",
                    f"http://u:{PASSWORD}@a b:1",
                    f"http://{PASSWORD}\x7f@h:1",
                ),
            ):
                for scheme in ("http", "https"):
                    with (
                        self.subTest(address, scheme=scheme),
                        environment(**{f"{scheme}_proxy": address, "SSL_CERT_FILE": os.devnull}),
                    ):
                        error = self.call(f"{scheme}://api.test/v1")
                        self.assertIsInstance(error, ir.InferRouterError)
                        self.assertNotIn(PASSWORD, everything(error))


class Shapes(unittest.TestCase):
    def test_half_built_objects_have_a_repr(self) -> None:
        """Whatever class of this library an object is of, it can be shown before it is made: a traceback may do so."""
        found = [thing for thing in (getattr(ir, name) for name in ir.__all__) if isinstance(thing, type)]
        internal = (("stream", "ChatStream"), ("wire", "WireRequest"), ("wire", "WireFault"), ("candidates", "Candidate"))
        found += [getattr(part(module), name) for module, name in internal]
        for kind in found:
            if not issubclass(kind, tuple):
                with self.subTest(kind.__name__):
                    self.assertIsInstance(repr(kind.__new__(kind)), str)

    def test_a_traceback_through_a_constructor(self) -> None:
        """A provider that is refused can be shown in a traceback with locals, without what was wrong in its address."""
        for make in (
            lambda url: ir.OpenAICompatProvider("p", url),
            lambda url: ir.GeminiProvider(url, name="p"),
            lambda url: ir.AnthropicProvider(url, name="p"),
        ):
            for url in ("nope", f"https://h.example/v1?key={KEY}", f"https://h.example/v1?{KEY}", "https://h.example/v1?", 5):
                with self.subTest(url=url), self.assertRaises(ir.ConfigError) as caught:
                    make(url)
                traceback.TracebackException.from_exception(caught.exception, capture_locals=True)
                self.assertNotIn(KEY, str(caught.exception))


class LogLines(unittest.TestCase):
    def test_no_control_character(self) -> None:
        """No control, line break or change of direction that a provider or a caller chose is in an error's text or a log line."""
        lines = io.StringIO()
        handler = logging.StreamHandler(lines)
        logger = logging.Logger("test")
        logger.addHandler(handler)

        def script(peer: Peer, asked: Asked) -> object:
            return peer.send(http({"error": {"message": CONTROLS, "code": CONTROLS}}, 500, "x-request-id: a\x1bb"))

        with FaultServer() as server:
            server.script = script
            config = ir.Config([ir.AccountConfig("openai", "a", ir.Auth(KEY))], default_model="openai/m")
            own = provider("openai", server.server.url)
            with ir.Router(config, [own], meter=ir.LogMeter(logger), health=ir.HealthConfig(failure_threshold=99)) as router:
                for model in ("openai/m", f"openai/{CONTROLS}", CONTROLS):
                    for call in (router.chat_completion, router.stream):
                        with self.assertRaises(ir.InferRouterError) as caught:
                            call(ir.ChatRequest("hi", model=model))
                        self.assertTrue(str(caught.exception).isprintable(), ascii(str(caught.exception)))
                        for attempt in getattr(caught.exception, "attempts", ()):
                            self.assertTrue(attempt.error.message.isprintable())
        self.assertTrue(lines.getvalue())
        self.assertEqual([line for line in lines.getvalue().split("\n") if not line.isprintable()], [])
        self.assertNotIn("\nWARNING forged", lines.getvalue())

    def test_errors_of_a_provider_of_ones_own(self) -> None:
        """An error that was made with whatever text is shown in one line."""
        for error in (
            ir.ProviderError("p", "a", CONTROLS, 500, message=CONTROLS),
            ir.ProviderError("p", "a", "m", 500, CONTROLS),
            ir.Rejection("p", CONTROLS, "m", CONTROLS),
            ir.NoCandidatesError([ir.Rejection("p", "a", CONTROLS, "x")]),
            ir.UnknownModelError(CONTROLS, [CONTROLS]),
            ir.ConfigError(CONTROLS),
        ):
            self.assertTrue(str(error).isprintable(), ascii(str(error)))
        self.assertEqual(ir.ConfigError(["a\nb", "c"]).problems, ("a\nb", "c"))
        self.assertEqual(len(str(ir.ConfigError(["a\nb", "c"])).splitlines()), 3)


if __name__ == "__main__":
    unittest.main()
