"""Refusals in every size, coding and shape: the status counts, the body as far as it was read, and no error is lost over it."""

from __future__ import annotations

import gzip
import json
import random
import unittest
from typing import Any

from tests import LONG, ir, part
from tests.dialects import damaged
from tests.fakes import METHODS, NOON, FakeClock, alias_of, http, used
from tests.faults import KEY_HEADERS, Asked, FaultServer, good, provider
from tests.servers import Peer

wire_json, error_body = part("wire_json"), part("error_body")

PAD = "x" * 70_000
DAY = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
HOUR_S, AUTH_S = 3600, 600
MIDNIGHT_S = 20 * 3600  # from noon UTC to the end of the day in Los Angeles

SAID: dict[str, dict[str, Any]] = {
    "context": {
        "openai": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"},
        "gemini": {
            "code": 400,
            "message": "The input token count (9) exceeds the maximum number of tokens allowed (8).",
            "status": "",
        },
        "anthropic": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"},
    },
    "spent": {
        "openai": {"message": "no", "type": "insufficient_quota", "code": "insufficient_quota"},
        "gemini": {"code": 429, "message": "q", "details": [{"violations": [{"quotaId": DAY}]}]},
        "anthropic": {"type": "rate_limit_error", "message": "n", "details": {"error_code": "enforced_spend_limit_reached"}},
    },
    "key": {
        "openai": {"message": "Incorrect", "code": "invalid_api_key"},
        "gemini": {"code": 400, "message": "no", "details": [{"reason": "API_KEY_INVALID"}]},
        "anthropic": {"type": "authentication_error", "message": "invalid x-api-key"},
    },
}
STATUS = {"context": 400, "spent": 429, "key": 400}
CLASS = {"context": "ContextWindowError", "spent": "QuotaExceededError", "key": "AuthenticationError"}


class Refusals(unittest.TestCase):
    """A first account that refuses, and a second one that answers."""

    def setUp(self) -> None:
        self.first = self.enterContext(FaultServer())
        self.second = self.enterContext(FaultServer())

    def ask(self, dialect: str, answer: bytes, method: str = "unary", ends: bool = False) -> tuple[Any, Any]:
        """The answer or the error of a call whose first account sends `answer` (and hangs up if it `ends`), and the router."""
        self.first.script = lambda peer, asked: peer.send(answer) and not ends
        other = ir.OpenAICompatProvider("other", self.second.server.url)
        named = provider(dialect, self.first.server.url)
        accounts = [
            ir.AccountConfig(each.name, each.name, ir.Auth("k"), limits={"rpd": 9, "tpd": 9999}) for each in (named, other)
        ]
        config = ir.Config(accounts, models=[alias_of(dialect, "other")], policy="declared_order")
        router = ir.Router(config, [named, other], clock=FakeClock(), health=ir.HealthConfig(failure_threshold=1))
        self.addCleanup(router.close)
        try:
            return METHODS[method](router), router
        except ir.InferRouterError as exc:
            return exc, router

    def held_s(self, router: Any, account: str) -> float:
        holds = router.status()[account].holds
        return round(holds[0].until - NOON) if holds else 0

    def test_bodies_of_any_size(self) -> None:
        """A refusal means what its first 64 KiB say, however much follows and wherever it is cut."""
        for kind, dialects in SAID.items():
            for dialect, error in dialects.items():
                large_last = {**{k: v for k, v in error.items() if k != "message"}, "message": f"{error['message']} {PAD}"}
                for number, (name, body) in enumerate(
                    {
                        "small": {"error": error},
                        "large": {"error": error, "input": PAD},
                        "a large list": {"error": error, "input": [{"a": "b"}] * 9000},
                        "a large message": {"error": large_last},
                        "a large member": {"error": {**error, "param": PAD}},
                    }.items()
                ):
                    for method in METHODS if LONG else [list(METHODS)[(number + len(dialect)) % 2]]:
                        with self.subTest(dialect, kind=kind, body=name, method=method):
                            outcome, router = self.ask(dialect, http(body, STATUS[kind]), method)
                            held = self.held_s(router, dialect)
                            if kind == "key":
                                self.assertEqual((type(outcome).__name__, held), (CLASS[kind], AUTH_S))
                            else:
                                wait = {"context": 0, "spent": MIDNIGHT_S if dialect == "gemini" else HOUR_S}[kind]
                                self.assertEqual((outcome.routing.account_id, held), ("other", wait))
                            self.assertEqual(used(router, dialect), {"rpd": 0, "tpd": 0})
                            self.assertEqual(router.status()[dialect].breaker, "closed")

    def test_bodies_that_end_early_or_never(self) -> None:
        """What came of a refusal's body before the connection broke is read all the same."""
        body = json.dumps({"error": SAID["spent"]["openai"], "more": PAD}).encode()
        for size in (len(body) + 9, 1 << 60):
            answer = b"HTTP/1.1 429 X\r\nContent-Length: %d\r\n\r\n" % size + body[:300]

            with self.subTest(size=size):
                outcome, router = self.ask("openai", answer, ends=True)
                self.assertEqual((outcome.routing.account_id, self.held_s(router, "openai")), ("other", HOUR_S))

    def test_bodies_that_cannot_be_read(self) -> None:
        """A compressed refusal keeps its status and its headers: what is charged, held and tried next follows from them."""
        coded = gzip.compress(b'{"error": {"message": "hidden", "code": "insufficient_quota"}}')
        for coding in ("Content-Encoding", "Transfer-Encoding", "length"):
            for status, charged, held in (
                (429, 1, 60),
                (402, 0, HOUR_S),
                (401, 0, AUTH_S),
                (404, 0, HOUR_S),
                (503, 1, 0),
                (400, 0, 0),
            ):
                for method in METHODS:
                    headers = {"Retry_After": "60", coding.replace("-", "_"): "gzip"}
                    if coding == "length":
                        headers = {"Retry_After": "60", "Content_length": str(len(coded) + 1)}
                    with self.subTest(coding, status=status, method=method):
                        outcome, router = self.ask("openai", http(coded, status, **headers), method)
                        if status in (400, 401):
                            self.assertEqual(outcome.status, status)
                            self.assertEqual(outcome.body, "")
                        else:
                            self.assertEqual(outcome.routing.account_id, "other")
                        self.assertEqual(
                            (used(router, "openai"), self.held_s(router, "openai")), ({"rpd": charged, "tpd": 0}, held)
                        )
                        self.assertEqual(router.status()["openai"].breaker, "open" if status == 503 else "closed")

    def test_not_modified_is_no_redirect(self) -> None:
        """A 304 is an answer that makes no sense, not a redirect with a target."""
        outcome, router = self.ask("openai", b"HTTP/1.1 304 Not Modified\r\n\r\n")
        self.assertEqual(outcome.routing.account_id, "other")
        self.assertEqual(router.status()["openai"].breaker, "open")


class InterimAnswers(unittest.TestCase):
    def test_whatever_comes_before_the_answer(self) -> None:
        """Answers with a status from 100 to 199 are passed over, in every dialect, before whole answers and streams."""
        early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"
        for name, interim in {
            "100": b"HTTP/1.1 100 Continue\r\n\r\n",
            "102": b"HTTP/1.1 102 Processing\r\n\r\n",
            "103": early,
            "110": b"HTTP/1.1 110 X\r\nContent-Length: 5\r\n\r\n",
            "mixed": (early + b"HTTP/1.1 100\r\n\r\n") * 20,
        }.items():
            with FaultServer() as server:

                def script(peer: Peer, asked: Asked, interim: bytes = interim) -> object:
                    return peer.send(interim) and good(peer, asked)

                server.script = script
                for dialect in KEY_HEADERS:
                    config = ir.Config([ir.AccountConfig(dialect, "a", ir.Auth("k"))], default_model=f"{dialect}/m")
                    with ir.Router(config, [provider(dialect, server.server.url)]) as router:
                        for method, call in METHODS.items():
                            with self.subTest(name, dialect=dialect, method=method):
                                self.assertEqual(call(router, ir.ChatRequest("hi")).text, "Hello there.")
                        self.assertTrue(server.server.reused, "an interim answer costs no connection")


class ReadingErrors(unittest.TestCase):
    def test_json_cut_anywhere(self) -> None:
        """Of JSON that was cut, all that came whole is read, and the beginning of a string; wherever the cut is."""
        whole = {
            "error": {"message": 'a "b" \\ \u00e9 \U0001f600', "codes": [1, {"a": [None, True]}], "code": "spent"},
            "x": ["{", "]"],
        }
        for ascii_only in (True, False):
            text = json.dumps(whole, ensure_ascii=ascii_only)
            for size in range(1, len(text) + 1):
                found = wire_json.load_cut_json(text[:size])
                for key, value in found.get("error", {}).items():
                    with self.subTest(size=size, key=key):
                        meant = whole["error"][key]
                        if key == "message":
                            self.assertTrue(meant.startswith(value.removesuffix("\ud83d")))  # half a pair
                        elif key == "code":
                            self.assertTrue(meant.startswith(value))
                        else:
                            self.assertIsInstance(value, list)
            self.assertEqual(found, whole)
        for nothing in ("", "x", "}", '"a', "]]", "{]"):
            with self.assertRaises(ir.MalformedResponseError):
                wire_json.load_cut_json(nothing)

    def test_error_never_raises(self) -> None:
        """Whatever status, headers, body and time a refusal comes with, it is one of this library's errors."""
        rng = random.Random(5)
        statuses = (0, -1, 99, 200, 299, 304, 399, 400, 429, 500, 599, 600, 999, 10**30)
        times = (0.0, NOON, -1.0, 1e30, float("inf"), float("nan"))
        codes = (
            "0500" + "9" * 4400,
            "05001",
            "\ud800",
            "500",
            " 429 ",
            "4e2",
            5.0,
            10**40,
            -429,
            True,
            [],
            {"a": 1},
            "\u0665\u0660\u0660",
        )
        bodies = [
            json.dumps({"error": {"message": "x", key: code}}).encode() for code in codes for key in ("code", "status", "type")
        ]
        bodies += [b"", b"\xff", b"[" * 99999, b'{"error": {"code": 429', b'{"error": ' + b"9" * 5000 + b"}", b'{"error": 1e999}']
        for item in ({"error": SAID[kind][dialect], "request_id": "r"} for kind in SAID for dialect in KEY_HEADERS):
            bodies += [json.dumps(broken).encode() for broken in damaged(item, 3, 100)]
        names = ("retry-after", "retry-after-ms", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "x-request-id")
        values = (
            "",
            "0",
            "-1",
            "nan",
            "inf",
            "1e3",
            "9" * 400,
            "\u0661",
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "1m",
            "2026-13-45T99:99:99Z",
            "x\ny",
        )
        for dialect in KEY_HEADERS:
            named = provider(dialect, "https://api.test/v1")
            for body in bodies:
                headers = {name: rng.choice(values) for name in rng.sample(names, 3)}
                error = named.error(rng.choice(statuses), headers, body, rng.choice(times))
                self.assertIsInstance(error, ir.ProviderError)
                self.assertTrue(error.retry_after is None or 0 <= error.retry_after <= 86400, (headers, body))
                str(error)

    def test_numbers_that_are_not_finite(self) -> None:
        """1e999, NaN and infinities are malformed answers wherever they stand: in usage, in vectors, as text or in base64."""
        infinite = "AACAfw=="  # a float's infinity
        bodies = {
            "openai": (
                '{"choices": [{"message": {"content": "hi"}}], "usage": {"total_tokens": %s}}',
                '{"data": [{"embedding": [%s]}]}',
            ),
            "gemini": (
                '{"candidates": [{"content": {"parts": [{"text": "a"}]}}], "n": %s}',
                '{"embeddings": [{"values": [%s]}]}',
            ),
            "anthropic": ('{"content": [{"type": "text", "text": "a"}], "usage": {"input_tokens": %s}}', ""),
        }
        for dialect, (chat, vectors) in bodies.items():
            named = provider(dialect, "https://api.test/v1")
            for number in ("1e999", "-1e999", "NaN", "Infinity", "1" * 400 + ".0"):
                for body, decode in ((chat, named.decode), (vectors, named.decode_embed)):
                    if body:
                        with self.subTest(dialect, number=number, body=body), self.assertRaises(ir.MalformedResponseError):
                            decode((body % number).encode(), "m")
        with self.assertRaises(ir.MalformedResponseError):
            ir.OpenAICompatProvider("p", "https://h/v1").decode_embed(b'{"data": [{"embedding": "%s"}]}' % infinite.encode(), "m")


if __name__ == "__main__":
    unittest.main()
