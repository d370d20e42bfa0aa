"""No key is ever seen again: whatever goes wrong, in whatever call, and wherever one looks afterwards."""

from __future__ import annotations

import base64
import json
import os
import pickle
import socket
import tempfile
import unittest
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from tests import cases, ir, part
from tests.canaries import (
    CANARIES,
    HELLO,
    REFUSED,
    USABLE,
    EveryMeter,
    Evidence,
    Records,
    calls,
    caught,
    misplaced,
    objects_of,
    router_over,
    sweep,
)
from tests.fakes import FakeClock, dead_url
from tests.faults import KEY_HEADERS, FaultServer
from tests.servers import Peer, ScriptedServer, answering, environment

KEY = USABLE["plain"]


def no_tls(peer: Peer) -> None:
    """Answers a handshake in plain HTTP."""
    peer.sock.recv(100)
    peer.send(b"HTTP/1.1 400 Bad\r\n\r\n")


class SecretsCase(unittest.TestCase):
    """`self.evidence` must stay empty."""

    def setUp(self) -> None:
        self.enterContext(environment(SSL_CERT_FILE=os.devnull))  # reading all the roots of the machine takes its time
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.records = self.enterContext(Records())
        self.evidence = Evidence()

    def router(self, dialect: str, url: str, key: str = KEY, **account: Any) -> Any:
        path = self.folder / f"{len(list(self.folder.iterdir()))}.db"
        meter = account.pop("meter", None) or EveryMeter()
        return self.enterContext(router_over(dialect, url, key, path, FakeClock(), meter, **account))

    def fails(self, name: str, call: Callable[[], object], kind: type[Exception] = ir.InferRouterError) -> Any:
        """The error of `call`, which is one of ours and shows no canary."""
        error, shown = caught(call)
        self.assertIsInstance(error, kind, name)
        assert error is not None
        self.evidence.look_at_error(name, error, shown)
        return error

    def clean(self) -> None:
        self.assertEqual(self.evidence.found, [])


class Sweeping(unittest.TestCase):
    def test_no_trouble_shows_a_key(self) -> None:
        """With a provider that echoes the key in every trouble it makes, no call, log, event, state or file shows it."""
        done = sweep(zip(USABLE, KEY_HEADERS, strict=True))
        self.assertEqual(done.evidence.found, [])
        self.assertEqual(done.misplaced, [], "a key belongs into its own header, once")
        self.assertEqual((done.foreign, done.successes), ([], []))
        self.assertEqual(done.classified, done.injected)
        self.assertGreater(done.injected, 500)
        self.assertGreater(done.evidence.looked, 5000)
        self.assertEqual((done.redirects, done.strangers), (40, 0), "redirects are not followed")

    def test_the_search_finds_what_is_there(self) -> None:
        """Every canary is found in every spelling, in bytes, in hidden attributes and behind exceptions."""
        for name, key in CANARIES.items():
            for text in (key, f"x{key}y", key[:8], base64.b64encode(key.encode()).decode(), ascii(key), key.upper()):
                evidence = Evidence()
                evidence.look("planted", text)
                self.assertTrue(evidence.found, f"{name}: {text!a}")
        evidence = Evidence()
        hidden = RuntimeError()
        hidden.body = [{"a": KEY.encode()}]  # type: ignore[attr-defined]  # a stray attribute is the point
        error = ir.InferRouterError("x")
        error.__cause__ = hidden
        evidence.look_at_error("planted", error, "")
        self.assertTrue(evidence.found)

    def test_tracebacks_keep_their_locals(self) -> None:
        """The traceback that is searched has the local variables of the frames below."""

        def inner() -> None:
            local = KEY
            raise ir.InferRouterError(str(len(local)))

        self.assertIn(f"local = {KEY!r}", caught(inner)[1])

    def test_misplaced_keys_are_noticed(self) -> None:
        """A key in the address, in another header, twice or in the body is told from one in its place."""
        good = f"POST / HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\n\r\n{{}}"
        self.assertEqual(misplaced([good.encode()], KEY, "authorization"), [])
        in_url, elsewhere = good.replace("/ H", f"/?key={KEY} H"), good.replace("Auth", "X-Auth")
        for bad in (in_url, elsewhere, good + KEY, good.replace(KEY, "other")):
            self.assertEqual(len(misplaced([bad.encode()], KEY, "authorization")), 1, bad)


class NoAnswer(SecretsCase):
    def test_no_connection(self) -> None:
        """A server that is not there, not to be trusted or not to be found leaves no trace of the key."""
        with ScriptedServer(answering(b""), "good") as tls, ScriptedServer(no_tls) as plain:
            with ScriptedServer(answering(b""), "expired") as expired, ScriptedServer(answering(b""), "wrong_host") as other:
                urls = {"refused": dead_url(), "self-signed": tls.url, "expired": expired.url, "wrong host": other.url}
                urls["no TLS"] = plain.url.replace("http:", "https:")
                for name, url in urls.items():
                    for dialect in KEY_HEADERS:
                        for method, call in calls(self.router(dialect, url), dialect, 5.0).items():
                            self.fails(f"{name}, {dialect} {method}", call, ir.AllCandidatesFailedError)
                for server in (tls, plain, expired, other):
                    self.assertEqual(server.requests, [])
        with mock.patch("socket.getaddrinfo", side_effect=socket.gaierror(-2, KEY)):
            for method, call in calls(self.router("openai", "https://h.invalid"), "openai", 5.0).items():
                self.fails(f"no name, {method}", call, ir.AllCandidatesFailedError)
        self.clean()

    def test_plain_proxies(self) -> None:
        """Through a plain http proxy no key is sent, whatever the account allows."""
        with ScriptedServer(answering(b"")) as proxy, environment(http_proxy=proxy.url, HTTP_PROXY=proxy.url):
            for dialect in KEY_HEADERS:
                router = self.router(dialect, "http://h.example/v1", allow_http=True)
                for method, call in calls(router, dialect, 5.0).items():
                    self.fails(f"proxy, {dialect} {method}", call, ir.AllCandidatesFailedError)
            self.assertEqual((proxy.connections, proxy.requests), (0, []))
        self.clean()

    def test_interrupts(self) -> None:
        """A Ctrl-C in the middle of a call shows no key in its traceback."""
        with FaultServer() as fault_server:
            router = self.router("openai", fault_server.server.url)
            with mock.patch.object(part("http_answer").Answers, "begin", side_effect=KeyboardInterrupt):

                def interrupted() -> None:
                    try:
                        router.chat_completion(ir.ChatRequest(HELLO))
                    except KeyboardInterrupt as exc:
                        raise RuntimeError from exc

                error, shown = caught(interrupted)
            assert error is not None
            self.assertIsInstance(error.__cause__, KeyboardInterrupt)
            self.evidence.look_at_error("interrupt", error, shown)
        self.clean()

    def test_failing_parts(self) -> None:
        """A policy, a meter, a store or a provider of the user's own that raises shows no key."""
        broken = mock.Mock(side_effect=RuntimeError("broken"))
        with FaultServer() as fault_server:
            for name in ("encode", "decode", "decoder", "error"):
                router = self.router("openai", fault_server.server.url)
                with mock.patch.object(router._routes.providers["openai"], name, broken):
                    fault_server.script = lambda peer, asked: peer.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
                    for method, call in calls(router, "openai", 5.0).items():
                        self.fails(f"{name}, {method}", call)
            router = self.router("openai", fault_server.server.url)
            for holder, name in ((router._runtime.policy, "select"), (router._ledger.store, "reserve")):
                with mock.patch.object(type(holder), name, broken):
                    for method, call in calls(router, "openai", 5.0).items():
                        self.fails(f"{name}, {method}", call)
            router.close()
            for method, call in calls(router, "openai", 5.0).items():
                self.fails(f"closed, {method}", call)
            self.evidence.look_at("log", [vars(record) for record in self.records.kept])
        self.clean()


class Headers(unittest.TestCase):
    def test_no_header_travels_on(self) -> None:
        """Keys are in no header that urllib knows of, which it might give to a second host, should anybody teach it to follow."""
        opener, request = part("http_opener"), cases.request("https://h.example/v1")
        prepared = opener.Prepared(opener._address(request.url, False), request.headers)
        asked = opener.ProxyQuestion(prepared, request)
        self.assertEqual(asked.headers, {})
        self.assertNotIn(cases.KEY, repr(vars(asked)))
        self.assertIn(cases.KEY, dict(prepared.secrets)["Authorization"].reveal())


class GoodAnswers(SecretsCase):
    def test_a_good_day(self) -> None:
        """When all goes well too, nothing that a program is handed shows the key, and no value takes it along in a pickle."""
        with FaultServer() as fault_server:
            for dialect, header in KEY_HEADERS.items():
                meter = EveryMeter()
                router = self.router(
                    dialect, fault_server.server.url, headers={"X-Other": ir.Secret(USABLE["with /+="])}, meter=meter
                )
                answer = router.chat_completion(ir.ChatRequest(HELLO))
                with router.stream(ir.ChatRequest(HELLO)) as stream:
                    self.evidence.look("open stream", repr(stream))
                    chunks = list(stream)
                self.assertEqual((answer.text, stream.response.text), ("Hello there.", "Hello there."))
                state = (dict(router.status()), router.explain(ir.ChatRequest(HELLO)))
                for value in (answer, *chunks, stream.response, *state, *meter.events, router.warnings):
                    self.evidence.look_at(f"{dialect}: {type(value).__name__}", value)
                for thing in (router, stream, *objects_of(router)):
                    self.evidence.look(f"{dialect}: {type(thing).__name__}", repr(thing))
                self.assertEqual(misplaced([request for _, request in fault_server.requests], KEY, header), [])
                fault_server.requests.clear()
                for file in self.folder.iterdir():
                    self.evidence.look(file.name, file.read_bytes())
            self.evidence.look_at("log", [vars(record) for record in self.records.kept])
            self.assertGreater(len(self.records.kept), 10)
        self.clean()

    def test_configurations_cannot_be_pickled(self) -> None:
        """What holds a key refuses to be pickled."""
        account = ir.AccountConfig("openai", "a", ir.Auth(KEY))
        for value in (account.auth.api_key, account.auth, account, ir.Config([account])):
            self.evidence.look_at(type(value).__name__, value)
            error, _ = caught(partial(pickle.dumps, value))
            self.assertIsInstance(error, TypeError)
        self.clean()


class Configurations(SecretsCase):
    """A configuration that cannot be used says where it is wrong, and never what the key was."""

    def files(self, key: str) -> dict[str, str]:
        """Files by name, each wrong in its own way."""
        quoted = json.dumps(key)
        account = '[[accounts]]\nprovider = "openai"\nid = "acc-1"\n'
        return {
            "key.toml": f"{account}auth.api_key = {quoted}\n",
            "misplaced.toml": f"{account}api_key = {quoted}\n",
            "auth.toml": f"{account}auth = {quoted}\n",
            "unknown.toml": f"{account}auth.api_keys = {quoted}\n",
            "broken.toml": f"{account}auth.api_key = {quoted} {quoted}\n",
            "open.toml": f"{account}auth.api_key = {quoted[:-1]}\n",
            "list.toml": f"{account}auth.api_key = [{quoted}]\n",
            "number.toml": f"{account}auth.api_key = {quoted}\ndaily_free = {quoted}\n",
            "url.toml": f"{account}base_url = {json.dumps('https://' + key + '@h.example/v1?key=' + key)}\n",
            "header.toml": f'{account}headers = {{X-Key = {json.dumps(key + chr(10))}}}\nauth.api_key = "${{NONE}}"\n',
            "variable.toml": f'{account}auth.api_key = "${{KEY}} "\n',
            "key.json": json.dumps({"accounts": [{"provider": "openai", "id": "acc-1", "auth": {"api_key": f"{key} "}}]}),
            "broken.json": f'{{"accounts": [{{"auth": {{"api_key": {quoted}}}}}',
            "twice.json": f'{{"accounts": [{{"auth": {{"api_key": {quoted}, "api_key": {quoted}}}}}]}}',
        }

    def test_files(self) -> None:
        """A file that is wrong in any way gives an error without the key, its traceback included."""
        for name, key in CANARIES.items():
            for file, text in self.files(key).items():
                path = self.folder / file
                path.write_text(text, encoding="utf-8")
                path.chmod(0o600)
                if file == "key.toml" and name in USABLE:
                    with ir.Router.from_file(path) as router:
                        self.evidence.look_at("warnings", router.warnings)
                        continue
                with environment(KEY=key):
                    self.fails(f"{file}, {name}", partial(ir.Router.from_file, path), ir.ConfigError)
        self.clean()

    def test_environments(self) -> None:
        """A key that no header can carry is refused by its account's name, not its value."""
        for name, key in {**REFUSED, "blank": f"{KEY} {KEY}", "folded": f"{KEY}\r\n x"}.items():
            with mock.patch.dict(os.environ, {"OPENAI_API_KEY": key.replace("\n", "\n;")}, clear=True):
                error = self.fails(f"from_env, {name}", ir.Router.from_env, ir.ConfigError)
                self.assertIn("'openai'", str(error))
        self.clean()

    def test_constructors(self) -> None:
        """Constructors given a bad key, or a key in the wrong place, name the account and not the key."""
        for name, key in CANARIES.items():
            auths = {"key": ir.Auth(key), "auth": key, "auth in a dict": {"api_key": key}, "bytes": ir.Auth(key.encode())}
            accounts = {place: ir.AccountConfig("openai", "acc-1", auth) for place, auth in auths.items()}
            accounts["header"] = ir.AccountConfig("openai", "acc-1", headers={"X": f"{key}\n"})
            for place, account in accounts.items():
                if place != "key" or name in REFUSED:
                    error = self.fails(f"{place}, {name}", partial(ir.Config, [account]), ir.ConfigError)
                    self.assertIn("acc-1" if place == "key" else "accounts[0]", str(error))
        self.clean()

    def test_keys_in_places_of_no_key(self) -> None:
        """Of a key in a URL, or in a table where a class belongs, the error says nothing."""
        for key in CANARIES.values():
            for call in (
                partial(ir.Config, [ir.AccountConfig("openai", "a", base_url=f"https://{key.replace('/', '')}@h.example/")]),
                partial(ir.Config, [ir.AccountConfig("openai", "a", base_url=f"https://h.example/?key={key}")]),
                partial(ir.Config, [{"auth": {"api_key": key}}]),
                partial(ir.Router, {"accounts": [{"auth": key}]}),
            ):
                error, _ = caught(call)
                assert isinstance(error, ir.ConfigError), error
                self.evidence.look_at_error("config", error, "")
        self.clean()

    def test_keys_in_the_place_of_a_name(self) -> None:
        """A key or a password that stands where a setting's name belongs is not repeated, and its place is told."""
        for name, key in CANARIES.items():
            if not key.isascii() or " " in key:
                continue
            account = {"provider": "openai", "id": "acc-1"}
            url = f"redis://user:{key.replace('/', '')}@h.example/0"
            for place, table in (
                ("quota", {"quota": {url: "redis"}}),
                ("accounts[0].auth", {"accounts": [{**account, "auth": {key: "x"}}]}),
                ("accounts[0].headers", {"accounts": [{**account, "headers": {f"Authorization: Bearer {key}": ""}}]}),
                ("accounts[0].headers", {"accounts": [{**account, "headers": {key: 5}}]}),
                ("accounts[0].headers", {"accounts": [{**account, "headers": {key: "${NONE}"}}]}),
                ("accounts[0].limits", {"accounts": [{**account, "limits": {key: 5}}]}),
                ("accounts[0].leave", {"accounts": [{**account, "limits": {"rpm": 5}, "leave": {key: 5}}]}),
                ("accounts[0].max_daily_spend", {"accounts": [{**account, "max_daily_spend": {key: 5}}]}),
            ):
                path = self.folder / "named.json"
                path.write_text(json.dumps(table), encoding="utf-8")
                error = self.fails(f"{place}, {name}", partial(ir.Router.from_file, path), ir.ConfigError)
                self.assertIn(place, str(error))
            twice = self.folder / "twice.json"
            twice.write_text(f"{{{json.dumps(url)}: 1, {json.dumps(url)}: 1}}", encoding="utf-8")
            self.fails(f"twice, {name}", partial(ir.Router.from_file, twice), ir.ConfigError)
        self.clean()

    def test_warnings(self) -> None:
        """A configuration that is legal but surprising warns without the key."""
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            account = ir.AccountConfig("openai", "a", ir.Auth(KEY), paid_enabled=True, daily_free=0)
            with ir.Router(ir.Config([account])) as router:
                self.assertTrue(router.warnings)
                self.evidence.look_at("warnings", router.warnings)
        self.evidence.look_at("python's warnings", [str(each.message) for each in warned])
        self.clean()


if __name__ == "__main__":
    unittest.main()
