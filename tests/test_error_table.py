"""What each refusal means: bodies as providers word them, shortened, and the class and facts they must give."""

from __future__ import annotations

import json
import random
import unittest
import unittest.mock
from typing import Any

from tests import SHARED, part, rounds

errors = part("errors")
table = part("error_table")

NOW = 1_786_190_000.0
PACIFIC_MIDNIGHT = 1_786_258_800.0
GEMINI_TEXT = "You exceeded your current quota, please check your plan and billing details."


def gemini(message: str, *quota_ids: str, delay: str = "42s") -> dict[str, Any]:
    details = [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": name} for name in quota_ids]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    ]
    return {"error": {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}}


def openai(message: str, code: Any = None, kind: Any = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


def openrouter(message: str, reset_ms: str) -> dict[str, Any]:
    return openai(message, 429, metadata={"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset_ms}})


# name: (status, body, class, facts that must hold)
CASES: dict[str, tuple[int, Any, str, dict[str, Any]]] = {
    "gemini day": (
        429,
        gemini(GEMINI_TEXT + " Please retry in 42.8s.", "GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        "QuotaExceededError",
        {"resets_at": PACIFIC_MIDNIGHT, "retry_after": PACIFIC_MIDNIGHT - NOW, "scope": "model", "retryable": True},
    ),
    "gemini minute": (
        429,
        gemini(GEMINI_TEXT + " Please retry in 48.939935699s.", "GenerateContentPaidTierInputTokensPerModelPerMinute"),
        "RateLimitedError",
        {"retry_after": 48.939935699, "scope": "model", "resets_at": None},
    ),
    "gemini minute, delay in details only": (
        429,
        gemini(GEMINI_TEXT, "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", delay="7s"),
        "RateLimitedError",
        {"retry_after": 7.0},
    ),
    "gemini limit 0": (
        429,
        gemini(GEMINI_TEXT + " limit: 0, model: g-2 Please retry in 10.6s.", "GenerateRequestsPerDayPerProjectPerModel-FreeTier"),
        "QuotaExceededError",
        {"retryable": False, "scope": "model", "retry_after": None, "resets_at": None},
    ),
    "gemini limit 20 is not 0": (
        429,
        gemini(GEMINI_TEXT + " limit: 20, model: g-3 Please retry in 10s.", "XPerMinute"),
        "RateLimitedError",
        {"retryable": True},
    ),
    "gemini milliseconds": (
        429,
        gemini("Please retry in 997.965142ms.", "PerMinute"),
        "RateLimitedError",
        {"retry_after": 0.997965142},
    ),
    "gemini without details": (429, openai("Resource exhausted.", 429), "RateLimitedError", {"retry_after": None}),
    "gemini prepaid": (429, openai("Your prepayment credits are depleted.", 429), "QuotaExceededError", {"retryable": False}),
    "gemini bad key": (
        400,
        {"error": {"code": 400, "message": "Bad.", "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}},
        "AuthenticationError",
        {"status": 400},
    ),
    "gemini list": (429, [openai("Resource has been exhausted (e.g. check quota).", 429)], "RateLimitedError", {"status": 429}),
    "gemini overloaded": (
        503,
        openai("The model is overloaded. Please try again later.", 503),
        "ProviderUnavailableError",
        {"retryable": True, "scope": "model"},
    ),
    "gemini high demand": (
        503,
        openai("This model is currently experiencing high demand. Spikes in demand are usually temporary."),
        "ProviderUnavailableError",
        {"scope": "model"},
    ),
    "groq over capacity": (
        503,
        openai("llama-3.3-70b-versatile is currently over capacity. Please try again and back off exponentially."),
        "ProviderUnavailableError",
        {"scope": "model"},
    ),
    "openrouter nobody serves": (
        503,
        openai("There is no available model provider that meets your routing requirements", 503),
        "ProviderUnavailableError",
        {"scope": "model"},
    ),
    "one-api": (
        503,
        openai("\u5f53\u524d\u5206\u7ec4 default \u4e0b\u5bf9\u4e8e\u6a21\u578b x \u65e0\u53ef\u7528\u6e20\u9053"),
        "ProviderUnavailableError",
        {"scope": "model"},
    ),
    "a named model": (503, openai("Model x/y-2.5 is overloaded"), "ProviderUnavailableError", {"scope": "model"}),
    "hugging face loading": (503, {"error": "Model a/b is currently loading"}, "ProviderUnavailableError", {"scope": "model"}),
    "openai overloaded model": (
        429,
        openai("That model is currently overloaded with other requests."),
        "RateLimitedError",
        {"scope": "model"},
    ),
    "openai overloaded engine": (
        503,
        openai("The engine is currently overloaded."),
        "ProviderUnavailableError",
        {"scope": "account"},
    ),
    "deepseek overloaded": (
        503,
        openai("Server overloaded. Use another model."),
        "ProviderUnavailableError",
        {"scope": "account"},
    ),
    "a 500 of a model": (500, openai("The model is overloaded."), "ProviderUnavailableError", {"scope": "account"}),
    "openai no quota": (429, openai(GEMINI_TEXT, "insufficient_quota"), "QuotaExceededError", {"retryable": False}),
    "openai no quota, code null": (
        429,
        openai(GEMINI_TEXT, None, "insufficient_quota"),
        "QuotaExceededError",
        {"retryable": False},
    ),
    "openai spend limit": (429, openai("No.", "project_spend_limit_exceeded"), "QuotaExceededError", {"retryable": False}),
    "openai minute": (
        429,
        openai(
            "Rate limit reached for gpt-4o in organization o on tokens per min (TPM). Please try again in 2.502s.",
            "rate_limit_exceeded",
            "tokens",
        ),
        "RateLimitedError",
        {"retry_after": 2.502, "scope": "model"},
    ),
    "openai too large for the minute": (
        429,
        openai("Request too large for gpt-4o in organization o on tokens per min (TPM): Limit 30000, Requested 40000."),
        "RateLimitedError",
        {"retryable": False},
    ),
    "openai model": (404, openai("The model `x` does not exist.", "model_not_found"), "ModelNotFoundError", {"scope": "model"}),
    "groq day": (
        429,
        openai("Rate limit reached for model `l` on tokens per day (TPD): Limit 9. Please try again in 9m38.016s. Need more?"),
        "QuotaExceededError",
        {"retry_after": 578.016, "resets_at": NOW + 578.016, "retryable": True, "scope": "model"},
    ),
    "groq too large": (
        413,
        openai("Request too large for model `x` on tokens per minute (TPM): Limit 6000", "rate_limit_exceeded"),
        "ContextWindowError",
        {},
    ),
    "groq inside a stream": (
        200,
        openai("Tool call failed", "tool_use_failed", status_code=400),
        "InvalidRequestError",
        {"status": 400},
    ),
    "openrouter day": (
        429,
        openrouter("Rate limit exceeded: free-models-per-day. Add 10 credits", "1786233600000"),
        "QuotaExceededError",
        {"resets_at": 1_786_233_600.0, "retry_after": 43_600.0, "retryable": True},
    ),
    "openrouter minute": (
        429,
        openrouter("Rate limit exceeded: free-models-per-min. ", "1786190060000"),
        "RateLimitedError",
        {"retry_after": 60.0},
    ),
    "openrouter upstream": (
        429,
        openai("Provider returned error", 429, metadata={"raw": "g is temporarily rate-limited upstream."}),
        "RateLimitedError",
        {"scope": "model", "message": "Provider returned error: g is temporarily rate-limited upstream."},
    ),
    "openrouter credit": (402, openai("This request requires more credits", 402), "QuotaExceededError", {"retryable": False}),
    "openrouter moderation": (
        403,
        openai("Your input was flagged", 403, metadata={"reasons": ["x"], "flagged_input": "y"}),
        "InvalidRequestError",
        {},
    ),
    "openrouter model": (400, openai("foo/bar is not a valid model ID", 400), "ModelNotFoundError", {}),
    "anthropic overloaded": (
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"},
        "ProviderUnavailableError",
        {"request_id": "req_1"},
    ),
    "anthropic overloaded inside a stream": (
        200,
        {"type": "error", "error": {"details": None, "type": "overloaded_error", "message": "Overloaded"}},
        "ProviderUnavailableError",
        {},
    ),
    "anthropic minute": (
        429,
        {"type": "error", "error": {"type": "rate_limit_error", "message": "would exceed 20,000 input tokens per minute"}},
        "RateLimitedError",
        {"retryable": True},
    ),
    "anthropic spend limit": (
        429,
        {
            "type": "error",
            "error": {"type": "rate_limit_error", "message": "x", "details": {"error_code": "enforced_spend_limit_reached"}},
        },
        "QuotaExceededError",
        {"retryable": False},
    ),
    "anthropic credit": (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to go on."}},
        "QuotaExceededError",
        {"retryable": False},
    ),
    "anthropic prompt": (
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"}},
        "ContextWindowError",
        {},
    ),
    "cerebras flat": (
        429,
        {"message": "Requests per minute limit exceeded", "type": "too_many_requests_error", "code": "request_quota_exceeded"},
        "RateLimitedError",
        {"message": "Requests per minute limit exceeded", "scope": "model"},
    ),
    "cerebras day": (
        429,
        {"message": "Tokens per day limit exceeded", "code": "token_quota_exceeded"},
        "QuotaExceededError",
        {"retryable": True, "scope": "model"},
    ),
    "mistral flat": (429, {"object": "error", "message": "Rate limit exceeded", "code": "1300"}, "RateLimitedError", {}),
    "mistral capacity as a 400": (
        400,
        {"object": "error", "message": "Service tier capacity exceeded for this model.", "type": "invalid_request_error"},
        "ProviderUnavailableError",
        {"scope": "model"},
    ),
    "mistral flat as a 400": (400, {"message": "Too fast", "type": "rate_limited"}, "RateLimitedError", {}),
    "mistral key": (401, {"detail": "Invalid API Key"}, "AuthenticationError", {"message": "Invalid API Key"}),
    "fastapi detail": (
        422,
        {"detail": [{"loc": ["body"], "msg": "field required"}]},
        "InvalidRequestError",
        {"message": "field required"},
    ),
    "xai string": (
        400,
        {"code": "invalid-argument", "error": "Incorrect API key provided. Get one."},
        "AuthenticationError",
        {"message": "Incorrect API key provided. Get one."},
    ),
    "azure filter in a 200": (
        200,
        openai("The response was filtered", "content_filter", status=400),
        "InvalidRequestError",
        {"status": 400},
    ),
    "perplexity window": (
        400,
        openai("The total length of all messages is too long.", 400, "too_many_prompt_tokens"),
        "ContextWindowError",
        {},
    ),
    "openai window": (400, openai("Too big", "context_length_exceeded"), "ContextWindowError", {"retryable": False}),
    "voyage model": (400, {"detail": "Model nonexistent is not supported. Supported models are [1]."}, "ModelNotFoundError", {}),
    "anthropic window": (400, openai("input length and `max_tokens` exceed context limit: 1 + 2 > 2"), "ContextWindowError", {}),
    "together window": (422, openai("`inputs` tokens + `max_new_tokens` must be <= 4097."), "ContextWindowError", {}),
    "github window": (413, openai("Request body too large.", "tokens_limit_reached"), "ContextWindowError", {}),
    "zhipu balance": (429, openai("\u4f59\u989d\u4e0d\u8db3", "1113"), "QuotaExceededError", {"retryable": False}),
    "a week": (429, {"error": "you have reached your weekly usage limit"}, "QuotaExceededError", {"retryable": True}),
    "five hours": (429, openai("Usage limit reached for 5 hour."), "RateLimitedError", {"retryable": True}),
    "feature, not model": (400, openai("Web search options not supported with this model."), "InvalidRequestError", {}),
    "role, not model": (
        400,
        openai("Unsupported value: 'messages[0].role' does not support 'system' with this model.", "unsupported_value"),
        "InvalidRequestError",
        {},
    ),
    "github day": (
        429,
        openai("Rate limit of 50 per 86400s exceeded for UserByModelByDay. Please wait 41242 seconds before retrying."),
        "QuotaExceededError",
        {"retry_after": 41242.0, "scope": "model"},
    ),
    "forbidden": (403, openai("Forbidden"), "AuthenticationError", {}),
    "flex capacity": (498, openai("full"), "ProviderUnavailableError", {}),
    "conflict": (409, "", "ProviderUnavailableError", {}),
    "timeout": (408, "", "ProviderUnavailableError", {}),
    "teapot": (418, "", "InvalidRequestError", {}),
    "error without a kind in a 200": (200, {"error": "boom"}, "MalformedResponseError", {"message": "boom"}),
    "a page": (
        502,
        "<html><title>502 Bad Gateway</title></html>",
        "ProviderUnavailableError",
        {"message": "an HTML page: 502 Bad Gateway"},
    ),
}


def classified(status: int, body: Any, headers: dict[str, str] | None = None, now: float = NOW) -> Any:
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return table.classify(status, headers or {}, data, now)


class ClassifyTest(unittest.TestCase):
    def test_every_wording(self) -> None:
        """Every provider's wording gives the class and the facts the walk needs."""
        for name, (status, body, kind, facts) in CASES.items():
            with self.subTest(name):
                error = classified(status, body)
                self.assertEqual(type(error).__name__, kind)
                for fact, value in facts.items():
                    got = getattr(error, fact)
                    if isinstance(value, float):
                        self.assertAlmostEqual(got, value, places=6, msg=fact)
                    else:
                        self.assertEqual(got, value, fact)

    def test_words_inside_a_200(self) -> None:
        """An error inside a good answer that has no number is judged by its word."""
        for word, kind in (
            ("invalid_request_error", "InvalidRequestError"),
            ("context_length_exceeded", "ContextWindowError"),
            ("authentication_error", "AuthenticationError"),
            ("permission_error", "AuthenticationError"),
            ("billing_error", "QuotaExceededError"),
            ("not_found_error", "ModelNotFoundError"),
            ("request_too_large", "InvalidRequestError"),
            ("rate_limit_error", "RateLimitedError"),
            ("insufficient_quota", "QuotaExceededError"),
            ("api_error", "ProviderUnavailableError"),
            ("upstream_error", "ProviderUnavailableError"),
            ("UNAVAILABLE", "ProviderUnavailableError"),
            ("timeout", "ProviderUnavailableError"),
            ("overloaded_error", "ProviderUnavailableError"),
            ("never_heard_of", "MalformedResponseError"),
        ):
            for key in ("type", "code", "status"):
                error = classified(200, {"error": {"message": "x", key: word}})
                self.assertEqual(type(error).__name__, kind, (key, word))
        self.assertEqual(classified(200, openai("x", "overloaded")).status, 503)
        self.assertEqual(classified(500, openai("x", "exceed_context_size_error")).__class__.__name__, "ContextWindowError")

    def test_sizes(self) -> None:
        """The message is cut to 500 characters and the body to 2048, however long the answer is."""
        error = classified(400, openai("x" * 5000))
        self.assertEqual((len(error.message), len(error.body)), (500, 2048))

    def test_request_id(self) -> None:
        """The provider's request id comes from the headers first, then from the body."""
        body = {"error": {"message": "x"}, "request_id": "in-body"}
        self.assertEqual(classified(500, body, {"x-request-id": "in-header"}).request_id, "in-header")
        self.assertEqual(classified(500, body).request_id, "in-body")

    def test_should_retry(self) -> None:
        """A server that says not to retry is believed."""
        self.assertFalse(classified(429, openai("x"), {"x-should-retry": "false"}).retryable)
        self.assertTrue(classified(429, openai("x"), {"x-should-retry": "true"}).retryable)

    def test_inside_a_stream_no_moment_is_made_up(self) -> None:
        """Where the time is not known, a daily quota names no reset that lies in 1970."""
        error = classified(200, gemini(GEMINI_TEXT, "GenerateRequestsPerDayPerProject"), now=0.0)
        self.assertEqual((type(error).__name__, error.resets_at), ("QuotaExceededError", None))

    def test_without_time_zones(self) -> None:
        """On a machine without time zone data a spent Gemini day holds for an hour."""
        body = gemini(GEMINI_TEXT, "GenerateRequestsPerDayPerProject")
        with unittest.mock.patch.object(table, "next_reset", side_effect=errors.ConfigError("no zones")):
            self.assertEqual(classified(429, body).resets_at, NOW + 3600)

    def test_any_bytes(self) -> None:
        """No body makes it raise: wrong types anywhere, cut JSON, binary, deep nesting."""
        rng = random.Random(5)
        wrong = [None, True, 7, -1.5, "text", [], {}, [[]], {"a": {}}, "429", 10**30, "\ud800"]

        def spoil(value: Any, depth: int = 0) -> Any:
            if rng.random() < 0.25:
                return rng.choice(wrong)
            if isinstance(value, dict):
                return {key: spoil(item, depth + 1) for key, item in value.items()}
            return [spoil(item, depth + 1) for item in value] if isinstance(value, list) else value

        for _ in range(rounds(20, 7)):
            for status, body, _, _ in CASES.values():
                data = json.dumps(spoil(body)).encode()
                self.assertIsInstance(classified(status, data), errors.ProviderError)
                self.assertIsInstance(classified(status, data[: rng.randrange(len(data) + 1)]), errors.ProviderError)
        for data in (b"\xff\xfe\x00", b"[" * 100_000, b'{"error":' * 20_000, b"", b"null", b'"x"', b"[]", b"[[1]]"):
            self.assertIsInstance(classified(400, data), errors.ProviderError)

    @unittest.skipIf(SHARED is None, "the recorded errors are not here")
    def test_recorded(self) -> None:
        """Recorded bodies of every status give a class that fits the status."""
        assert SHARED is not None
        fits = {429: ("RateLimitedError", "QuotaExceededError"), 401: ("AuthenticationError",), 404: ("ModelNotFoundError",),
                402: ("QuotaExceededError",), 503: ("ProviderUnavailableError",), 529: ("ProviderUnavailableError",)}  # fmt: skip
        for name, row in json.loads((SHARED / "recorded" / "errors.json").read_text("utf-8")).items():
            body = row.get("body_verbatim") or row.get("body")
            if body is not None and row.get("status") in fits:
                with self.subTest(name):
                    error = classified(row["status"], body, row.get("headers"))
                    self.assertIn(type(error).__name__, fits[row["status"]])
                    self.assertTrue(error.message)


if __name__ == "__main__":
    unittest.main()
