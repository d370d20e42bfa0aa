"""How connections are made and kept is for the caller to say; what is wrong with an address or a certificate is told."""

from __future__ import annotations

import json
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from tests import ir
from tests.fakes import METHODS, delta, http, sse
from tests.faults import KEY_HEADERS, FaultServer, good, provider
from tests.servers import DATA, Peer, ScriptedServer, answering, client_context, environment

ANSWER = http({"choices": [{"message": {"content": "fine"}, "finish_reason": "stop"}], "usage": {"total_tokens": 9}})
ENDINGS = ("/chat/completions", "/completions", "/embeddings", "/messages", "/responses", "/models/m:generateContent")


def ask(url: str, *, dialect: str = "openai", settings: dict[str, Any] | None = None, **parts: Any) -> Any:
    """The answer of one call to `url`, or the error of its only attempt."""
    with environment(), router(url, dialect, settings, **parts) as made:
        try:
            return made.chat_completion(ir.ChatRequest("hi"))
        except ir.AllCandidatesFailedError as exc:
            return exc.attempts[0].error


def router(url: str, dialect: str = "openai", settings: dict[str, Any] | None = None, **parts: Any) -> Any:
    account = ir.AccountConfig("p", "a", ir.Auth("sk-some-key"), base_url=url, dialect=dialect)
    config = ir.Config([account], default_model="p/some-model", attempt_timeout=5, **(settings or {}))
    return ir.Router(config, health=ir.HealthConfig(failure_threshold=99), **parts)


class Trust(unittest.TestCase):
    def test_ways_to_trust_a_server_of_ones_own(self) -> None:
        """A CA file or a context of the caller's, given to the router or in its configuration, make a private server trusted."""
        ca = DATA / "tls_good.pem"
        with ScriptedServer(answering(ANSWER), "good") as server:
            for name, parts in {
                "a path": {"transport": ir.TransportConfig(ca_file=ca)},
                "a string": {"transport": ir.TransportConfig(ca_file=str(ca))},
                "a context": {"transport": ir.TransportConfig(ssl_context=client_context())},
                "the configuration": {"settings": {"transport": ir.TransportConfig(ca_file=ca)}},
                "the router first": {
                    "settings": {"transport": ir.TransportConfig(ca_file=DATA / "tls_expired.pem")},
                    "transport": ir.TransportConfig(ca_file=ca),
                },
            }.items():
                with self.subTest(name):
                    self.assertEqual(ask(server.url + "/v1", **parts).text, "fine")

    def test_a_certificate_that_is_not_trusted(self) -> None:
        """A certificate error sends nothing, is not worth another try, and says what to check."""
        everything = ir.TransportConfig(ssl_context=client_context("good", "expired", "wrong_host"))
        for tls, parts in (("good", {}), ("expired", {"transport": everything}), ("wrong_host", {"transport": everything})):
            with self.subTest(tls), ScriptedServer(answering(ANSWER), tls) as server:
                error = ask(server.url + "/v1", **parts)
                self.assertIs(type(error), ir.ProviderUnavailableError)
                self.assertFalse(error.retryable)
                for word in ("certificate of 127.0.0.1", "base_url", "clock", "transport.ca_file", "will not help"):
                    self.assertIn(word, str(error))
                self.assertEqual(server.requests, [])
                with (
                    environment(),
                    router(server.url + "/v1", **parts) as made,
                    self.assertRaises(ir.AllCandidatesFailedError) as caught,
                ):
                    made.stream(ir.ChatRequest("hi"))
                self.assertFalse(caught.exception.retryable)

    def test_a_connection_that_breaks_is_worth_another_try(self) -> None:
        """Where no TLS is spoken at all the error stays retryable."""
        with ScriptedServer(lambda peer: peer.close()) as server:
            self.assertTrue(ask(server.url.replace("http", "https") + "/v1").retryable)

    def test_ca_files_that_are_none(self) -> None:
        """A CA file that is missing is a configuration's problem; one without certificates is told before anything is opened."""
        with self.assertRaisesRegex(ir.ConfigError, r"transport\.ca_file: '/no/such.pem' is not a file"):
            router("https://127.0.0.1:1/v1", transport=ir.TransportConfig(ca_file="/no/such.pem"))
        with tempfile.TemporaryDirectory() as folder, ScriptedServer(answering(ANSWER), "good") as server:
            empty = Path(folder, "empty.pem")
            for content in (b"", b"no certificate", b"\xff\x00"):
                empty.write_bytes(content)
                error = ask(server.url + "/v1", transport=ir.TransportConfig(ca_file=empty))
                self.assertIn("transport.ca_file holds no certificates", str(error))
                self.assertFalse(error.retryable)
            self.assertEqual(server.connections, 0)


class Settings(unittest.TestCase):
    def test_what_is_wrong_is_listed(self) -> None:
        """Every wrong setting is a problem with its path, of the router's own value and of the configuration's."""
        wrong = {
            "transport.ssl_context": {"ssl_context": "secret"},
            "transport.ca_file": {"ca_file": 5},
            "transport.idle_timeout": {"idle_timeout": -1},
            "transport.max_connections": {"max_connections": 1.5},
            "transport.stream_limit": {"stream_limit": 0},
        }
        every = ir.TransportConfig(**{key: value for each in wrong.values() for key, value in each.items()})
        for make in (lambda: ir.Config(transport=every), lambda: ir.Router(ir.Config(), transport=every)):
            with self.assertRaises(ir.ConfigError) as caught:
                make()
            self.assertEqual([problem.partition(":")[0] for problem in caught.exception.problems], list(wrong))
        both = ir.TransportConfig(ssl_context=client_context(), ca_file="x.pem")
        for value, words in (
            (both, "give one of the two"),
            ({"ca_file": "x"}, "must be a TransportConfig"),
            (None, "TransportConfig"),
        ):
            with self.assertRaisesRegex(ir.ConfigError, words):
                ir.Config(transport=value)

    def test_files(self) -> None:
        """A configuration file has the same settings but for ssl_context; a CA file is looked for beside it."""
        with tempfile.TemporaryDirectory() as folder, ScriptedServer(answering(ANSWER), "good") as server:
            Path(folder, "own.pem").write_bytes((DATA / "tls_good.pem").read_bytes())
            account = {"provider": "p", "id": "a", "auth": {"api_key": "${HOME:-x}x".replace("HOME", "NOT_SET_ANYWHERE")}}
            account["base_url"] = server.url + "/v1"
            table = {"ca_file": "${NOT_SET_ANYWHERE:-own}.pem", "idle_timeout": 5, "max_connections": 2, "stream_limit": 1000}
            path = Path(folder, "router.json")
            path.write_text(json.dumps({"accounts": [account], "default_model": "p/m", "transport": table}))
            with environment(), ir.Router.from_file(path) as made:
                self.assertEqual(made.chat_completion(ir.ChatRequest("hi")).text, "fine")
                meant = ir.TransportConfig(None, str(Path(folder, "own.pem")), 5, 2, 1000)
                self.assertEqual(made.config.transport, meant)
            for key, problem in (
                ("ssl_context", "transport.ssl_context: unknown key"),
                ("idle_timeot", "did you mean 'idle_timeout'"),
            ):
                path.write_text(json.dumps({"transport": {key: 1}}))
                with self.assertRaisesRegex(ir.ConfigError, problem):
                    ir.Router.from_file(path)
            path.write_text(json.dumps({"accounts": [account], "default_model": "p/m"}))
            with environment(), ir.Router.from_file(path, transport=ir.TransportConfig(ca_file=DATA / "tls_good.pem")) as made:
                self.assertEqual(made.chat_completion(ir.ChatRequest("hi")).text, "fine")

    def test_kept_connections(self) -> None:
        """Connections are kept for idle_timeout seconds, and as many as max_connections says."""
        for settings, connections in (
            ({}, 1),
            ({"max_connections": 0}, 3),
            ({"idle_timeout": 0.01}, 3),
            ({"max_connections": 1}, 1),
        ):
            with self.subTest(settings), ScriptedServer(answering(ANSWER)) as server:
                with router(server.url + "/v1", transport=ir.TransportConfig(**settings)) as made:
                    for _ in range(3):
                        made.chat_completion(ir.ChatRequest("hi"))
                        time.sleep(2 * settings.get("idle_timeout", 0))
                self.assertEqual(server.connections, connections)

    def test_stream_limit(self) -> None:
        """A stream that never ends is interrupted at stream_limit bytes, with what came and the setting's name."""

        def endless(peer: Peer) -> None:
            if peer.request() is not None:
                piece = sse(*[delta("word ")] * 20, ended=False)
                peer.send(piece)
                while peer.send(piece.partition(b"\r\n\r\n")[2]):
                    pass

        with ScriptedServer(endless) as server:
            with router(server.url + "/v1", transport=ir.TransportConfig(stream_limit=100_000)) as made:
                with made.stream(ir.ChatRequest("hi")) as stream, self.assertRaises(ir.StreamInterruptedError) as caught:
                    list(stream)
                self.assertEqual(made.status()["a"].in_flight, 0)
        self.assertIsInstance(caught.exception.cause, ir.MalformedResponseError)
        self.assertIn("transport.stream_limit", str(caught.exception))
        self.assertGreater(len(caught.exception.partial.text), 1000)


class Addresses(unittest.TestCase):
    def test_an_endpoint_for_a_base_url(self) -> None:
        """A base_url that goes on to an endpoint is refused, of an account and of a provider, and says where it should end."""
        for ending in ENDINGS:
            for slash in ("", "/"):
                url = f"https://api.test/v1{ending}{slash}"
                for make in (
                    lambda url=url: ir.Config([ir.AccountConfig("p", "a", base_url=url)]),
                    lambda url=url: ir.OpenAICompatProvider("p", url),
                    lambda url=url: ir.GeminiProvider(url),
                    lambda url=url: ir.AnthropicProvider(url),
                ):
                    with self.subTest(url), self.assertRaisesRegex(ir.ConfigError, "added to it for each call"):
                        make()
        for url in (
            "https://api.test/v1",
            "https://api.test/completions/v1",
            "https://api.test/my-messages",
            "https://h.test/models",
        ):
            ir.OpenAICompatProvider("p", url)

    def test_a_base_url_without_its_version(self) -> None:
        """A 404 of an address without a version names base_url and the version, unless it speaks of a model."""
        bodies = {
            "OpenAI": {"error": {"message": "Invalid URL (POST /chat/completions)", "type": "invalid_request_error"}},
            "Anthropic": {"type": "error", "error": {"type": "not_found_error", "message": "Not Found"}},
            "FastAPI": {"detail": "Not Found"},
            "nginx": b"<html><title>404 Not Found</title></html>",
            "Go": b"404 page not found",
            "Express": b"<pre>Cannot POST /chat/completions</pre>",
            "nothing": b"",
        }
        models = {
            "OpenAI": {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}},
            "Anthropic": {"type": "error", "error": {"type": "not_found_error", "message": "model: some-model"}},
            "the name alone": {"error": {"message": "some-model: not here"}},
        }
        for dialect in KEY_HEADERS:
            for name, body in bodies.items():
                with self.subTest(name, dialect=dialect), ScriptedServer(answering(http(body, 404))) as server:
                    error = ask(server.url + "/api", dialect=dialect)
                    self.assertIs(type(error), ir.AddressNotFoundError)
                    self.assertIn(f"'{server.url}/api'", str(error))
                    self.assertIn("no version such as /v1", str(error))
                    self.assertIn("Check base_url", str(error))
            for name, body in models.items():
                with self.subTest(name, dialect=dialect), ScriptedServer(answering(http(body, 404))) as server:
                    self.assertIs(type(ask(server.url + "/api", dialect=dialect)), ir.ModelNotFoundError)

    def test_an_address_with_its_version(self) -> None:
        """With a version in the address only what calls the address wrong is taken for that."""
        wrong = {"error": {"message": "Invalid URL (POST /v1/v1/chat/completions)"}}
        for body, kind in ((wrong, ir.AddressNotFoundError), ({"detail": "Not Found"}, ir.ModelNotFoundError)):
            with ScriptedServer(answering(http(body, 404))) as server:
                error = ask(server.url + "/v1")
                self.assertIs(type(error), kind)
                self.assertNotIn("has no version", str(error))

    def test_the_walk_goes_on(self) -> None:
        """A wrong address costs nothing, rests that model at that account, and the next candidate is tried."""
        with ScriptedServer(answering(http(b"404 page not found", 404))) as wrong, FaultServer() as right:
            right.script = good
            made = [provider("openai", wrong.url), ir.OpenAICompatProvider("other", right.server.url)]
            accounts = [ir.AccountConfig(each.name, each.name, ir.Auth("k"), limits={"rpd": 9}) for each in made]
            mapping = ir.ModelMapping("chat", [ir.ModelRef(each.name, "m") for each in made])
            with ir.Router(ir.Config(accounts, [mapping], policy="declared_order"), made) as router_:
                for call in METHODS.values():
                    self.assertEqual(call(router_, ir.ChatRequest("hi", model="chat")).routing.account_id, "other")
                status = router_.status()["openai"]
                self.assertEqual((status.limits[0].used, len(status.holds), status.breaker), (0, 1, "closed"))
                self.assertIn("AddressNotFound", status.holds[0].reason)
            self.assertEqual(len(wrong.requests), 1)


if __name__ == "__main__":
    unittest.main()
