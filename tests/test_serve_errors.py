"""What a client is told about each error: status, type, code, and a sentence that says what to do."""

from __future__ import annotations

import unittest
from typing import Any

from tests import ir, part
from tests.fakes import NOON

errors = part("serve_errors")
HELD = ir.Rejection("p", "a", "m", "held: RateLimitedError", NOON + 90, "held")
MISSING = ir.Rejection("p", "a", "m", "held: ModelNotFound (404)", NOON + 9, "held")
KEY = ir.Rejection("p", "a", "m", "held: AuthenticationError: refused", None, "held")


def tried(*failed: Any, retry_at: float | None = None) -> Any:
    return ir.AllCandidatesFailedError([ir.Attempt("p", f"a{n}", "m", each) for n, each in enumerate(failed)], retry_at)


TABLE: list[tuple[Any, int, str, str | None]] = [
    (ir.UnknownModelError("x", ["y"]), 404, "invalid_request_error", "model_not_found"),
    (ir.InvalidRequestError(message="no"), 400, "invalid_request_error", None),
    (ir.ContextWindowError(message="long"), 400, "invalid_request_error", "context_length_exceeded"),
    (ir.MultimodalUnavailableError([HELD]), 400, "invalid_request_error", None),
    (ir.NoCandidatesError([HELD], NOON + 90), 429, "rate_limit_error", "rate_limit_exceeded"),
    (ir.NoCandidatesError([KEY]), 502, "provider_error", "provider_authentication_failed"),
    (ir.NoCandidatesError([ir.Rejection("p", "a", "m", "paid use is not allowed")]), 503, "server_error", "no_capacity"),
    (ir.NoCandidatesError(), 503, "server_error", "no_capacity"),
    (ir.NoCandidatesError([MISSING] * 2, NOON + 9), 404, "invalid_request_error", "model_not_found"),
    (ir.NoCandidatesError((), NOON + 9), 429, "rate_limit_error", "rate_limit_exceeded"),
    (ir.NoCandidatesError([MISSING, HELD], NOON + 9), 429, "rate_limit_error", "rate_limit_exceeded"),
    (ir.AuthenticationError("p", "a", "m", 401), 502, "provider_error", "provider_authentication_failed"),
    (tried(ir.AuthenticationError("p", "a", "m", 401)), 502, "provider_error", "provider_authentication_failed"),
    (tried(ir.RateLimitedError("p"), retry_at=NOON + 9), 429, "rate_limit_error", "rate_limit_exceeded"),
    (tried(ir.QuotaExceededError("p", retryable=False)), 502, "server_error", "all_providers_failed"),
    (tried(ir.ContextWindowError("p"), ir.ModelNotFoundError("p")), 400, "invalid_request_error", "context_length_exceeded"),
    (tried(ir.ModelNotFoundError("p")), 404, "invalid_request_error", "model_not_found"),
    (tried(ir.ProviderUnavailableError("p")), 502, "server_error", "all_providers_failed"),
    (tried(ir.AttemptTimeoutError("p")), 504, "server_error", "all_providers_failed"),
    (
        tried(ir.ProviderUnavailableError("p", status=503, scope="model"), ir.RateLimitedError("p"), retry_at=NOON + 9),
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
    ),
    (
        tried(ir.RateLimitedError("p"), ir.ProviderUnavailableError("p"), retry_at=NOON),
        502,
        "server_error",
        "all_providers_failed",
    ),
    (ir.AttemptTimeoutError(message="over"), 504, "server_error", "timeout"),
    (ir.MalformedResponseError("p"), 502, "server_error", "malformed_answer"),
    (ir.ProviderUnavailableError("p"), 502, "server_error", "provider_error"),
    (ir.StreamInterruptedError(), 502, "server_error", "stream_interrupted"),
    (ir.StreamInterruptedError(cause=ValueError("cut")), 502, "server_error", "stream_interrupted"),
    (ir.QuotaStoreError("gone"), 503, "server_error", "quota_store_unavailable"),
    (ir.ConfigError("policy: broken"), 500, "server_error", "configuration_error"),
    (ir.InferRouterError("closed"), 503, "server_error", "unavailable"),
    (ValueError("sk-secret"), 500, "server_error", "internal_error"),
]


class Table(unittest.TestCase):
    def test_every_error_has_its_answer(self) -> None:
        """Row by row; nobody is told to try again at once, as the router has tried everything already."""
        for error, status, kind, code in TABLE:
            with self.subTest(repr(error)):
                problem = errors.problem_of(error, NOON)
                self.assertEqual((problem.status, problem.kind, problem.code), (status, kind, code))
                self.assertTrue(problem.message)
                self.assertNotIn("sk-secret", problem.message)
                if status >= 500 or status == 429:
                    self.assertIn(("x-should-retry", "false"), problem.fields)

    def test_a_limit_says_when(self) -> None:
        """Whole seconds in the header, a clock time and a span in the sentence."""
        problem = errors.problem_of(ir.NoCandidatesError([HELD] * 5, NOON + 89.2), NOON)
        self.assertIn(("retry-after", "90"), problem.fields)
        self.assertIn("12:01:30 UTC, in 90 s", problem.message)
        self.assertIn("and 2 more", problem.message)

    def test_moments(self) -> None:
        """A clock time, with its date if it is another day, and how long that is, never less than a second."""
        self.assertEqual(errors.spell(NOON, NOON), "12:00:00 UTC, in 1 s")
        self.assertEqual(errors.spell(NOON + 11_500, NOON), "15:11:40 UTC, in 3 h 12 min")
        self.assertEqual(errors.spell(NOON + 2 * 86_400, NOON), "2026-01-17 12:00:00 UTC, in 2 days")
        self.assertEqual(errors.spell(1e300, NOON), "some day")


class OldWays(unittest.TestCase):
    def test_functions(self) -> None:
        """The way before tools: functions, function_call, and a result in the role function."""
        messages = [
            {"role": "user", "content": "weather"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "sunny"},
            {"role": "assistant", "content": "", "refusal": "no"},
            {"role": "user", "content": [{"type": "refusal", "refusal": "no"}]},
        ]
        body = {
            "messages": messages,
            "functions": [{"name": "f", "parameters": {"type": "object"}}],
            "function_call": {"name": "f"},
        }
        request = part("serve_openai").ChatDialect().read(body).request
        self.assertEqual((request.tools[0].name, request.forced_tool), ("f", "f"))
        self.assertEqual(request.messages[1].tool_calls[0].id, request.messages[2].tool_call_id)
        self.assertEqual([message.text for message in request.messages[3:]], ["no", "no"])


if __name__ == "__main__":
    unittest.main()
