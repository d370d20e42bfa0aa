"""What shows an endpoint from inside: the page, its stream of snapshots, /status.json and /metrics."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import re
import time
import unittest
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tests import ir, part
from tests.serving import Served

page = part("serve_page")


class Page(unittest.TestCase):
    def test_it_asks_nobody(self) -> None:
        """One file: no address of anybody else, no source, no import in it."""
        text = page.page(False).decode()
        self.assertEqual(re.findall(r"https?://|\bsrc=|@import|url\(|\bimport\b", text), [])
        self.assertNotIn("innerHTML", text)

    def test_its_policy_allows_exactly_what_is_in_it(self) -> None:
        """The hashes are those of its one style and its one script; there is no inline handler or style attribute."""
        text, policy = page.page(False).decode(), page.page_policy()
        for tag, name in (("style", "style-src"), ("script", "script-src")):
            (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            self.assertIn(f"{name} 'sha256-{digest}'", policy)
        self.assertIn("default-src 'none'", policy)
        frame = text.partition("<script>")[0].partition("</style>")[2]
        self.assertEqual(re.findall(r"\s(?:on\w+|style)=", frame), [])

    def test_every_control_has_a_name(self) -> None:
        """Each field has a label, each section a heading, and the page a language and a title."""
        text = page.page(True).decode()
        for field in re.findall(r"<(?:input|select|textarea) id=\"(\w+)\"", text):
            self.assertIn(f'for="{field}"', text)
        for heading in re.findall(r'aria-labelledby="([\w-]+)"', text):
            self.assertIn(f'<h2 id="{heading}"', text)
        self.assertIn('<html lang="en">', text)
        self.assertIn('data-token="1"', text)


class Copies(Served):
    used = ir.Usage(100, 20, 120, 40, 5, {"audio": 30}), ir.Usage(10, 2, 12, 4, 1, {"audio": 3})

    def make_router(self) -> Any:
        last = ir.MockReply("two words", usage=self.used[1])
        replies = [ir.MockReply("hello", usage=self.used[0]), last] * 2
        replies += [replies[0], ir.MockReply("two words", cut_after=3), replies[0], 400]
        account = ir.AccountConfig("sim", "a", paid_enabled=True, cost_per_input_token=0.5, cost_per_output_token=0.5)
        config = ir.Config([account], [ir.ModelMapping("fast", [ir.ModelRef("sim", "m")])], allow_paid=True)
        return ir.Router(config, [ir.MockProvider("sim", replies)])

    def test_what_they_used_is_told_together(self) -> None:
        """The answer, the log and the metrics have the tokens and the cost of all choices, even if the last of them fails."""
        answer = self.chat(n=2)
        usage = answer.json["usage"]
        self.assertEqual(answer.headers["x-inferrouter-cost"], "66")
        self.assertEqual((usage["prompt_tokens"], usage["total_tokens"]), (110, 132))
        self.assertEqual(usage["prompt_tokens_details"], {"cached_tokens": 44, "audio_tokens": 33})
        self.chat(n=2, stream=True)
        text = self.ask("GET", "/metrics").body.decode()
        for kind, count in {"input": 220, "output": 44, "cached": 88, "reasoning": 12}.items():
            self.assertRegex(text, rf'tokens_total\{{.*type="{kind}".*\}} {count}\n')
        self.assertRegex(text, r"cost_dollars_total\{.*\} 132\n")
        with contextlib.suppress(http.client.IncompleteRead):
            self.chat(n=2, stream=True)
        self.chat(n=2)
        calls = self.ask("GET", "/status.json").json["calls"]
        self.assertEqual([call["state"] for call in calls], ["failed", "failed", "done", "done"])
        self.assertEqual([call["prompt_tokens"] for call in calls[2:]], [110, 110])
        refused, cut = calls[:2]
        self.assertEqual((refused["prompt_tokens"], refused["completion_tokens"]), (100, 20))
        self.assertGreater(cut["prompt_tokens"], 100, "what came of the cut one counts too")


class Snapshots(Served):
    limits = {"rpm": 10, "rpd": 1000}  # noqa: RUF012  # never changed

    def status(self) -> Any:
        return self.ask("GET", "/status.json").json

    def test_the_page_is_served_safely(self) -> None:
        """With its policy, and never kept or framed."""
        headers = self.ask("GET", "/").headers
        self.assertEqual(headers["content-security-policy"], page.page_policy())
        self.assertEqual((headers["x-frame-options"], headers["cache-control"]), ("DENY", "no-store"))

    def test_status(self) -> None:
        """Every account with its limits, what is left today, and each call with who answered and why."""
        self.chat()
        found = self.status()
        self.assertEqual(found["free_requests_left"], 999)
        (account,) = found["accounts"]
        self.assertEqual([(limit["name"], limit["used"]) for limit in account["limits"]], [("rpm", 1), ("rpd", 1)])
        (call,) = found["calls"]
        told = {name: call[name] for name in ("model", "account", "served_by", "free", "state", "status", "stream")}
        wanted = {
            "model": "fast",
            "account": "a",
            "served_by": "m",
            "free": True,
            "state": "done",
            "status": 200,
            "stream": False,
        }
        self.assertEqual(told, wanted)
        self.assertIn("free, ", call["why"])
        self.assertEqual((found["today"]["calls"], found["today"]["dollars"]), (1, 0))
        self.assertGreater(found["today"]["saved_dollars"], 0)
        self.assertEqual(found["models"], ["fast", "m"])
        self.assertGreater(found["capacity"]["requests"], 0)
        self.assertNotIn("hello", json.dumps(found))

    def test_who_stood_where(self) -> None:
        """Of those in line the one that answered is told from those before it, which failed or were full, and those behind it."""
        call = part("serve_log").Call(1, "/chat/completions", "", 0.0, 0.0)
        line = [SimpleNamespace(account_id=name, model=model, reason="free") for name, model in ("ax", "bx", "by", "cx")]
        call.lined_up(line, ["d: full"])
        shown = call.shown(0.0)
        self.assertEqual((shown["why"], shown["ahead"], len(shown["behind"])), ("", [], 4))
        call.routing = ir.Routing("p", "b", "y", 3, True, 0.0, ())
        shown = call.shown(0.0)
        self.assertEqual((shown["ahead"], shown["behind"]), (["a: free", "b: free"], ["c: free"]))
        self.assertEqual((shown["why"], shown["passed_over"]), ("free", ["d: full"]))

    def test_a_refused_call_tells_why(self) -> None:
        """Who was passed over, and the error, stand in the log."""
        self.router.rest("a", 600)
        self.chat()
        call = self.status()["calls"][0]
        self.assertEqual((call["state"], call["status"], call["account"]), ("failed", 429, None))
        self.assertIn("rested by hand", call["passed_over"][0])
        self.assertIn("in 10 min", call["error"])

    def test_metrics(self) -> None:
        """Counts of calls and tokens, and the limits, as Prometheus text."""
        self.chat()
        self.chat(model="sim/x", stream=True)
        text = self.ask("GET", "/metrics").body.decode()
        self.assertIn('inferrouter_calls_total{alias="fast",outcome="ok"} 1\n', text)
        self.assertIn('inferrouter_limit_used{account="a",limit="rpd",unit="requests",window="day"} 2\n', text)
        self.assertIn('inferrouter_first_chunk_seconds_count{provider="sim",model="x"} 1\n', text)
        self.assertTrue(text.endswith("\n"))

    def test_events(self) -> None:
        """A viewer sees a call within a moment of its end, and is let go when the endpoint stops."""
        self.enterContext(mock.patch.object(part("serve_status"), "LEAST_GAP_S", 0.05))
        sock = self.connect()
        sock.settimeout(5)
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        seen = b""
        while b"data: " not in seen:
            seen += sock.recv(65536)
        began = time.monotonic()
        self.chat("look at me")
        while b'"model":"fast"' not in seen:
            seen += sock.recv(65536)
        self.assertLess(time.monotonic() - began, 1.0)
        self.server.stop(1)
        self.assertTrue(self.drained(sock).endswith(b"0\r\n\r\n"))
        sock.close()

    def drained(self, sock: Any) -> bytes:
        from tests.serving import drained

        return drained(sock)

    def test_viewers_that_go_are_forgotten(self) -> None:
        """A viewer's end frees its thread, though nothing happens; more than sixteen are turned away."""
        socks = [self.connect() for _ in range(17)]
        for sock in socks:
            sock.settimeout(5)
            sock.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            first = sock.recv(100)
        self.assertTrue(first.startswith(b"HTTP/1.1 503"), first)
        for sock in socks:
            sock.close()
        self.until(lambda: not self.server._open, "every viewer is gone", 3)

    def test_the_log_forgets(self) -> None:
        """Calls of more than an hour ago are not shown, and the day's sums begin anew at midnight."""
        from tests.fakes import FakeClock

        clock = FakeClock()
        log = part("serve_log").CallLog(clock)
        call = log.begin("/chat/completions", "127.0.0.1")
        call.routing, call.usage = ir.Routing("p", "a", "m", free=False, cost=0.25), ir.Usage(10, 5, 15)
        log.end(call, "done", 200)
        self.assertEqual((len(log.past()), log.today().paid_input, log.today().dollars), (1, 10, 0.25))
        clock.advance(3601)
        self.assertEqual(log.past(), [])
        clock.advance(86400)
        self.assertEqual(log.today().dollars, 0)

    def test_a_failing_store_is_told(self) -> None:
        """Where the ledger cannot be read, the status is an error of its own and readiness says so."""
        self.router._ledger.store.close()
        self.assertEqual(self.ask("GET", "/status.json").status, 503)
        self.assertEqual(self.ask("GET", "/readyz").json["reason"], "quota_store_unavailable")
        self.assertEqual(self.chat().json["error"]["code"], "quota_store_unavailable")


if __name__ == "__main__":
    unittest.main()
