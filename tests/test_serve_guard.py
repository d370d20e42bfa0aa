"""Who may ask an endpoint: other sites, other names, other people and requests that hide in each other are refused, and noted."""

from __future__ import annotations

import http.client
import json
import socket
import unittest
from typing import Any

from tests import ir, part
from tests.serving import HELLO, JSON, Served, post

BODY = json.dumps(HELLO).encode()


class Browsers(Served):
    def refused(self, status: int, code: str, **headers: str) -> None:
        """A chat with these headers is refused before anything is spent, and the log says so."""
        with self.assertLogs("inferrouter.serve", "INFO") as noted:
            reply = self.ask(
                "POST", "/v1/chat/completions", HELLO, {name.replace("_", "-"): text for name, text in headers.items()}
            )
        self.assertEqual((reply.status, reply.json["error"]["code"]), (status, code), headers)
        self.assertTrue(any(f" refused with {status}: " in line for line in noted.output), noted.output)
        self.assertEqual(self.sim.log, ())

    def test_other_names(self) -> None:
        """A name that was made to point here is not this server's (DNS rebinding)."""
        for host in ("evil.test", "evil.test:80", "localhost.evil.test", "127.0.0.1.evil.test", "10.0.0.1", "[::2]", "0.0.0.0"):
            self.refused(403, "host_not_allowed", Host=host)
        seen = self.raw(post(BODY).replace(b"POST /", b"POST http://evil.test/"))
        self.assertTrue(seen.startswith(b"HTTP/1.1 403"), seen)

    def test_own_names(self) -> None:
        """Every way to name this machine's own address is."""
        for host in ("localhost", "localhost:1", "127.0.0.1", "127.9.9.9:80", "[::1]:8787"):
            self.assertEqual(self.ask("GET", "/v1/models", headers={"Host": host}).status, 200, host)

    def test_other_sites(self) -> None:
        """A page of another site may neither ask nor learn anything (CSRF), nor may a sandboxed one."""
        for origin in ("http://evil.test", "null", "https://127.0.0.1", "http://localhost:1", "http://127.0.0.1.evil.test"):
            self.refused(403, "origin_not_allowed", Origin=origin)
        self.refused(403, "origin_not_allowed", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")
        for path in ("/v1/models", "/status.json", "/events", "/metrics"):
            reply = self.ask("GET", path, headers={"Sec-Fetch-Site": "same-site"})
            self.assertEqual(reply.status, 403, path)
            self.assertNotIn("access-control-allow-origin", reply.headers)

    def test_a_form_cannot_ask(self) -> None:
        """What a form can send without asking first is no request: only JSON is."""
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", ""):
            self.refused(415, "content_type", Content_Type=kind)
        for path in ("/accounts/a/rest", "/v1/embeddings", "/v1/messages"):
            self.assertEqual(self.ask("POST", path, b"{}", {"Content-Type": "text/plain"}).status, 415)

    def test_own_page(self) -> None:
        """The endpoint's own page may ask, and a link to it may be followed."""
        own = f"http://127.0.0.1:{self.server.port}"
        self.assertEqual(self.chat(headers={"Origin": own, "Sec-Fetch-Site": "same-origin"}).status, 200)
        linked = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
        self.assertEqual(self.ask("GET", "/", headers=linked).status, 200)
        self.assertEqual(self.ask("GET", "/status.json", headers=linked).status, 403)


class Smuggling(Served):
    def test_a_request_cannot_hide_in_another(self) -> None:
        """What could be read as one request or as two is refused, the connection closed, and nothing behind it is served."""
        hidden = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
        chunks = b"0\r\n\r\n" + hidden
        attacks = {
            "both lengths": post(chunks, "Transfer-Encoding: chunked"),
            "two lengths": post(b"", "Content-Length: 0", f"Content-Length: {len(hidden)}", length=False) + hidden,
            "a list of lengths": post(b"", "Content-Length: 0, 5", length=False) + hidden,
            "a negative length": post(b"", "Content-Length: -1", length=False) + hidden,
            "a signed length": post(b"", "Content-Length: +5", length=False) + hidden,
            "another coding": post(chunks, "Transfer-Encoding: chunked, identity", length=False),
            "a hidden coding": post(chunks, "Transfer-Encoding: \x0bchunked", length=False),
            "a spaced coding": post(chunks, "Transfer-Encoding : chunked", length=False),
            "a folded coding": post(chunks, "Transfer-Encoding:\r\n chunked", length=False),
            "bare line feeds": b"POST / HTTP/1.1\nHost: localhost\n\n" + b"\r\n\r\n" + hidden,
            "a bare return": post(b"", "X: a\rContent-Length: 5", length=False) + hidden,
            "a short chunk": post(b"5\r\nabc\r\n0\r\n\r\n" + hidden, "Transfer-Encoding: chunked", length=False),
            "a long chunk": post(b"2\r\nabc\r\n0\r\n\r\n" + hidden, "Transfer-Encoding: chunked", length=False),
            "a chunk size with a sign": post(b"+2\r\nab\r\n0\r\n\r\n" + hidden, "Transfer-Encoding: chunked", length=False),
            "a chunk size in a bare line": post(b"2\nab\r\n0\r\n\r\n" + hidden, "Transfer-Encoding: chunked", length=False),
            "a huge chunk": post(b"fffffffff\r\n" + hidden, "Transfer-Encoding: chunked", length=False),
        }
        for name, attack in attacks.items():
            with self.subTest(name):
                seen = self.raw(attack, 3.0)
                self.assertRegex(seen, rb"^HTTP/1\.1 (400|408|413|501) ")
                self.assertEqual(seen.count(b"HTTP/1.1 4") + seen.count(b"HTTP/1.1 5"), 1, seen)
                self.assertIn(b"Connection: close", seen)
                self.assertIn(b'{"error":', seen)

    def test_refusals_close_the_connection(self) -> None:
        """The body of a refused request is never taken for the next request."""
        inner = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
        seen = self.raw(post(inner, "Origin: http://evil.test"))
        self.assertEqual(seen.count(b"HTTP/1.1 "), 1)
        self.assertTrue(seen.startswith(b"HTTP/1.1 403"))

    def test_headers_cannot_be_injected(self) -> None:
        """What a client or a provider names goes into headers encoded, never as a line of its own."""
        plain = part("serve_http").plain
        self.assertEqual(plain("a\r\nSet-Cookie: x"), "a%0D%0ASet-Cookie: x")
        self.assertEqual(plain("modèle\u2028"), "mod%C3%A8le%E2%80%A8")
        reply = self.ask("POST", "/v1/chat/completions", {**HELLO, "x\r\nEvil: yes": 1, "\u00fc": 2})
        self.assertEqual(reply.status, 200)
        self.assertNotIn("evil", reply.headers)
        self.assertEqual(reply.headers["x-inferrouter-dropped"], "x%0D%0AEvil: yes, %C3%BC")

    def test_odd_methods_and_protocols(self) -> None:
        """What is not HTTP/1.x is told so in JSON and closed."""
        for data, status in (
            (b"GET /\r\n\r\n", b"400"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
            (b"TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"405"),
            (b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n", b"400"),
        ):
            self.assertTrue(self.raw(data).startswith(b"HTTP/1.1 " + status), data)


class Tokens(Served):
    settings = {"token": "let-me-in-123", "origins": ["https://app.test"], "hosts": ["router.lan"]}  # noqa: RUF012  # never changed

    def test_a_token_is_asked_for(self) -> None:
        """In whichever header a dialect has; what shows nothing of accounts is open."""
        refused = self.chat()
        self.assertEqual((refused.status, refused.json["error"]["code"]), (401, "invalid_api_key"))
        self.assertEqual(self.chat(headers={"Authorization": "Bearer let-me-in-12"}).status, 401)
        for headers in (
            {"Authorization": "Bearer let-me-in-123"},
            {"authorization": "bearer let-me-in-123"},
            {"x-api-key": "let-me-in-123"},
            {"x-goog-api-key": "let-me-in-123"},
        ):
            self.assertEqual(self.chat(headers=headers).status, 200, headers)
        for path in ("/healthz", "/readyz", "/"):
            self.assertEqual(self.ask("GET", path).status, 200, path)
        for path in ("/v1/models", "/status.json", "/events", "/metrics", "/nope"):
            self.assertEqual(self.ask("GET", path).status, 401, path)
        for path in ("/accounts/a/rest", "/accounts/a/wake", "/v1/messages"):
            self.assertEqual(self.ask("POST", path, {}).status, 401, path)
        self.assertEqual(self.ask("POST", "/v1/messages", {}).json["error"]["type"], "authentication_error")

    def test_guessing_is_slowed(self) -> None:
        """After many wrong tokens an address has to wait, even with the right one."""
        for _ in range(30):
            self.assertEqual(self.chat(headers={"x-api-key": "guess"}).status, 401)
        self.assertEqual(self.chat(headers={"x-api-key": "let-me-in-123"}).status, 429)

    def test_the_token_is_never_shown(self) -> None:
        """Not in a repr, a log or an answer."""
        with self.assertLogs("inferrouter.serve", "INFO") as noted:
            self.chat(headers={"x-api-key": "let-me-in-123"})
            self.ask("GET", "/status.json?key=let-me-in-123", headers={"x-api-key": "let-me-in-123"})
        shown = [*noted.output, repr(self.server), repr(self.server._guard._rules)]
        for path in ("/status.json", "/metrics", "/"):
            shown.append(self.ask("GET", path, headers={"x-api-key": "let-me-in-123"}).body.decode())
        for text in shown:
            self.assertNotIn("let-me-in", text)
            self.assertNotIn("sk-1", text)

    def test_allowed_pages(self) -> None:
        """A page that was allowed may ask, is told what it may read, and its preflight needs no token."""
        asks = {"Origin": "https://app.test", "Access-Control-Request-Headers": "authorization, content-type, x-stainless-os"}
        preflight = self.ask(
            "OPTIONS", "/v1/chat/completions", headers={**asks, "Access-Control-Request-Private-Network": "true"}
        )
        self.assertEqual(preflight.headers["access-control-allow-origin"], "https://app.test")
        self.assertEqual(preflight.headers["access-control-allow-headers"], asks["Access-Control-Request-Headers"])
        self.assertEqual(preflight.headers["access-control-allow-private-network"], "true")
        reply = self.chat(headers={"Origin": "https://app.test", "x-api-key": "let-me-in-123"}, stream=True)
        self.assertEqual((reply.status, reply.headers["access-control-allow-origin"]), (200, "https://app.test"))
        self.assertEqual(self.ask("OPTIONS", "/v1/models", headers={"Origin": "https://other.test"}).status, 403)

    def test_other_names_of_this_server(self) -> None:
        """A name that was given is this server's own."""
        headers = {"x-api-key": "let-me-in-123"}
        self.assertEqual(self.ask("GET", "/v1/models", headers={**headers, "Host": "Router.LAN:80"}).status, 200)
        self.assertEqual(self.ask("GET", "/v1/models", headers={**headers, "Host": "router.lan.evil"}).status, 403)


class Addresses(unittest.TestCase):
    def setUp(self) -> None:
        config = ir.Config(accounts=[ir.AccountConfig("mock", "a")])
        self.router = ir.Router(config, [ir.MockProvider("mock", ["hello"])])
        self.addCleanup(self.router.close)

    def problem(self, **settings: Any) -> str:
        with self.assertRaises(ir.ConfigError) as caught:
            ir.Serve(self.router, **settings)
        return str(caught.exception)

    def test_an_open_address_needs_a_token(self) -> None:
        """Others can reach it, so it does not begin without one."""
        for host in ("0.0.0.0", "::", "192.0.2.1", "router.lan"):
            self.assertIn("token", self.problem(host=host, port=0))

    def test_an_open_address_is_asked_by_its_number(self) -> None:
        """Any address may stand in Host there, a foreign name may not."""
        with ir.serve(self.router, host="0.0.0.0", port=0, token="t0k3n") as server:
            self.assertEqual(server.url, f"http://127.0.0.1:{server.port}")
            for host, status in ((b"192.0.2.7", b"200"), (b"evil.test", b"403")):
                with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
                    sock.sendall(
                        b"GET /v1/models HTTP/1.1\r\nHost: " + host + b"\r\nX-Api-Key: t0k3n\r\nConnection: close\r\n\r\n"
                    )
                    self.assertTrue(sock.recv(99).startswith(b"HTTP/1.1 " + status))

    def test_a_taken_port(self) -> None:
        """It says who has it, where the system tells, and what to do."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            said = self.problem(port=other.getsockname()[1])
        self.assertIn("is taken", said)
        self.assertIn("--port 0", said)
        if part("serve_port").os.path.exists("/proc/net/tcp"):
            self.assertIn("by process", said)
        self.assertEqual(part("serve_port").listener_of(1), "")

    def test_wrong_settings(self) -> None:
        """A port that is none, a host that is none, a number of clients below 1, times that never come, names no request has."""
        self.assertIn("port", self.problem(port=70_000))
        self.assertIn("max_clients", self.problem(max_clients=0))
        for value in (-1, float("nan"), float("inf")):
            self.assertIn("grace: ", self.problem(grace=value, port=0))
            self.assertIn("max_wait: ", self.problem(max_wait=value, port=0))
        for origin in ("*", "evil.test", "https://*.evil.test", "https://a.test/page", "null", ""):
            self.assertIn("origins: ", self.problem(origins=["https://a.test", origin], port=0))
        for name in ("*", "https://a.test", "a.test:80", ""):
            self.assertIn("hosts: ", self.problem(hosts=["a.test", name], port=0))
        self.assertIn("cannot listen", self.problem(host="203.0.113.9", token="t", port=0))

    def test_a_closed_router(self) -> None:
        """It is not served; one that is closed later is told in each answer, and the endpoint is not ready."""
        with ir.serve(self.router, port=0) as server:
            self.router.close()
            for method, path, wanted in (
                ("POST", "/v1/chat/completions", b"router is closed"),
                ("GET", "/readyz", b"router_closed"),
            ):
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
                connection.request(method, path, json.dumps(HELLO), JSON)
                answer = connection.getresponse()
                self.assertEqual(answer.status, 503)
                self.assertIn(wanted, answer.read())
                connection.close()
        self.assertIn("router: is closed", self.problem(port=0))

    def test_an_endpoint_stops_once(self) -> None:
        """It may be stopped twice, closes its port, and does not begin again."""
        server = ir.Serve(self.router, port=0)
        self.assertEqual(server.start(), server.start())
        server.stop()
        server.stop()
        self.assertRaises(OSError, socket.create_connection, ("127.0.0.1", server.port), 1)
        self.assertRaises(ir.ConfigError, server.start)
        self.assertIn("stopped", repr(server))


class Health(Served):
    def test_health_and_readiness(self) -> None:
        """Alive is always; ready is while an account may serve, and why not is one word."""
        self.assertEqual(self.ask("GET", "/healthz").json, {"status": "ok"})
        self.assertEqual(self.ask("GET", "/readyz").json, {"status": "ready", "reason": "ok"})
        self.assertEqual(self.ask("POST", "/accounts/a/rest", {"seconds": 60}, JSON).json, {"account": "a", "resting": True})
        unready = self.ask("GET", "/readyz")
        self.assertEqual((unready.status, unready.json["reason"]), (503, "all_accounts_resting"))
        self.assertEqual(self.ask("POST", "/accounts/a/wake", {}).json, {"account": "a", "resting": False})
        self.assertEqual(self.ask("GET", "/readyz").status, 200)
        self.assertEqual(self.ask("POST", "/accounts/b/rest", {}).status, 404)
        self.assertEqual(self.ask("POST", "/accounts/a/rest", {"seconds": "long"}).status, 400)


if __name__ == "__main__":
    unittest.main()
