"""What each answer costs, who is held for how long, and that no key stays in an error."""

from __future__ import annotations

import math
import traceback
import unittest
from typing import Any

from tests import part
from tests.fakes import MIDNIGHT, NOW, Fixture, an_account

account, answers, errors, health = part("account"), part("responses"), part("errors"), part("health")
failures, redaction, records, secret, wire = (
    part("failure_table"),
    part("redaction"),
    part("records"),
    part("secret"),
    part("wire"),
)
SUCCESS, FAILURE, IGNORED = health.Verdict.SUCCESS, health.Verdict.FAILURE, health.Verdict.IGNORED
KEY = "sk-canary-0123456789"


def candidate(**settings: Any) -> Any:
    (found,) = Fixture(an_account(auth=account.Auth(KEY), **settings)).find_candidates().candidates
    return found


class Table(unittest.TestCase):
    def test_every_row(self) -> None:
        """Each class of answer has the charge, verdict, next step and rest of the documented table."""
        rows: list[tuple[Any, str, Any, bool, bool]] = [
            (errors.InvalidRequestError(status=400), "nothing", IGNORED, True, False),
            (errors.ContextWindowError(status=400), "nothing", IGNORED, False, False),
            (errors.AuthenticationError(status=401), "nothing", IGNORED, True, True),
            (errors.QuotaExceededError(status=402), "nothing", IGNORED, False, True),
            (errors.ModelNotFoundError(status=404), "nothing", IGNORED, False, True),
            (errors.RateLimitedError(status=429), "request", IGNORED, False, True),
            (errors.ProviderUnavailableError(status=503), "request", FAILURE, False, False),
            (errors.ProviderUnavailableError(status=503, scope="model"), "request", IGNORED, False, True),
            (errors.ProviderUnavailableError(scope="model"), "reservation", FAILURE, False, False),
            (errors.AttemptTimeoutError(status=504), "request", FAILURE, False, False),
            (errors.ProviderUnavailableError(), "reservation", FAILURE, False, False),
            (errors.AttemptTimeoutError(), "reservation", FAILURE, False, False),
            (errors.MalformedResponseError(status=200), "reservation", FAILURE, False, False),
            (errors.ProviderError(status=418), "reservation", FAILURE, False, False),
        ]
        for error, charge, verdict, fatal, hold in rows:
            cost = failures.rule_for(error, auth_next=False)
            found = (cost.charge, cost.verdict, cost.fatal, cost.hold is not None)
            self.assertEqual(found, (charge, verdict, fatal, hold), repr(error))

    def test_a_refused_key_may_move_on(self) -> None:
        """With auth_errors = "next" a refused key is not fatal and costs the same otherwise."""
        stay, move = (failures.rule_for(errors.AuthenticationError(), auth_next) for auth_next in (False, True))
        self.assertEqual((stay.fatal, move.fatal), (True, False))
        self.assertEqual(stay._replace(fatal=False), move)

    def test_every_provider_error_has_a_row(self) -> None:
        """No class of the tree falls through the table."""
        for name in vars(errors):
            kind = getattr(errors, name)
            if isinstance(kind, type) and issubclass(kind, errors.ProviderError):
                self.assertIsInstance(failures.rule_for(kind(), False), failures.FailureRule)

    def test_transport_faults(self) -> None:
        """Not sent gives everything back, sent charges the reservation; a timeout and an unusable body have their own classes."""
        rows = [
            ("refused", False, errors.ProviderUnavailableError, "nothing"),
            ("dns", False, errors.ProviderUnavailableError, "nothing"),
            ("cut", True, errors.ProviderUnavailableError, "reservation"),
            ("too_large", True, errors.MalformedResponseError, "reservation"),
            ("encoding", True, errors.MalformedResponseError, "reservation"),
            ("timeout", True, errors.AttemptTimeoutError, "reservation"),
            ("timeout", False, errors.AttemptTimeoutError, "nothing"),
        ]
        for kind, sent, expected, charge in rows:
            fault = wire.WireFault(kind, f"why {KEY}", sent=sent)
            error, cost, reused = failures.failure_of(fault, candidate())
            self.assertFalse(reused)
            self.assertIs(type(error), expected)
            self.assertEqual((cost.charge, cost.verdict, cost.fatal, cost.hold), (charge, FAILURE, False, None))
            self.assertEqual((error.provider, error.account_id, error.model), ("p", "a", "m"))
            self.assertEqual(error.message, "why ***")
            self.assertIs(error.__cause__, fault)


class Holds(unittest.TestCase):
    def hold(self, error: Any, **settings: Any) -> float:
        """Seconds that `error` holds its candidate for."""
        found = candidate(**settings)
        cost = failures.rule_for(error, False)
        until: float = cost.hold(error, found, NOW)
        return until - NOW

    def test_a_refused_key_is_held_ten_minutes_and_a_model_an_hour(self) -> None:
        """401 and 404 have fixed holds."""
        self.assertEqual(self.hold(errors.AuthenticationError()), 600)
        self.assertEqual(self.hold(errors.ModelNotFoundError()), 3600)

    def test_a_rate_limit_holds_as_the_server_says_within_bounds(self) -> None:
        """Retry-After counts between a second and a day; where there is none it is ten seconds; nonsense is a second."""
        rows = [
            (None, 10.0),
            (30.0, 30.0),
            (0.0, 1.0),
            (-5.0, 1.0),
            (0.2, 1.0),
            (86_400.0, 86_400.0),
            (1e9, 86_400.0),
            (math.inf, 86_400.0),
            (math.nan, 1.0),
        ]
        for told, expected in rows:
            self.assertEqual(self.hold(errors.RateLimitedError(retry_after=told)), expected, told)

    def test_a_spent_quota_is_held_until_its_reset(self) -> None:
        """A told reset counts, else the told wait, else the account's next midnight; without any of them an hour."""
        spent = errors.QuotaExceededError
        rows: list[tuple[Any, dict[str, Any], float]] = [
            (spent(resets_at=NOW + 77), {}, 77),
            (spent(resets_at=NOW + 77, retry_after=5), {}, 77),
            (spent(resets_at=NOW - 77, retry_after=5), {}, 5),
            (spent(resets_at=math.nan, retry_after=0.5), {}, 1),
            (spent(retry_after=math.nan), {}, 1),
            (spent(), {}, MIDNIGHT - NOW),
            (spent(), {"reset": "America/Los_Angeles"}, MIDNIGHT - NOW + 8 * 3600),
            (spent(), {"reset": "rolling"}, 3600),
            (spent(retryable=False), {}, 3600),
            (spent(retryable=False, retry_after=5), {}, 3600),
        ]
        for error, settings, expected in rows:
            try:
                self.assertEqual(self.hold(error, **settings), expected, f"{error} {settings}")
            except errors.ConfigError:
                self.assertIn("reset", settings)  # a machine without time zones knows UTC only

    def test_who_is_held(self) -> None:
        """A refused key holds one account, a model one model there; quota and rate limits hold all who share the quota."""
        rows: list[tuple[Any, str]] = [
            (errors.AuthenticationError(), "access"),
            (errors.AuthenticationError(scope="model"), "access|m"),
            (errors.ModelNotFoundError(), "access|m"),
            (errors.AddressNotFoundError(), "access|m"),
            (errors.ProviderUnavailableError(scope="model"), "a|m"),
            (errors.QuotaExceededError(), "group:g"),
            (errors.QuotaExceededError(scope="model"), "group:g|m"),
            (errors.RateLimitedError(), "group:g"),
            (errors.RateLimitedError(scope="model"), "group:g|m"),
        ]
        for error, key in rows:
            found = candidate(quota_group="g")
            self.assertEqual(failures.hold_key(error, found), key.replace("access", found.deployment.bound.access))
            self.assertIn(failures.hold_key(error, found), found.deployment.hold_keys)
            self.assertIn(failures.hold_key(error, found, embeds=True), found.deployment.embed_hold_keys)
        self.assertEqual(failures.hold_key(errors.RateLimitedError(), candidate()), "a")

    def test_reasons_are_short(self) -> None:
        """A hold's reason is the class without "Error", and the status where there was one."""
        self.assertEqual(failures.reason_of(errors.RateLimitedError(status=429)), "RateLimited (429)")
        self.assertEqual(failures.reason_of(errors.QuotaExceededError()), "QuotaExceeded")
        refused = errors.AuthenticationError(status=401)
        self.assertEqual(failures.reason_of(refused), "Authentication (401), check auth.api_key")


class Bare(unittest.TestCase):
    def test_signing_adds_who_and_takes_the_key_out(self) -> None:
        """A signed error names account and model, and holds no key in message or body, even when echoed."""
        error = errors.AuthenticationError(body=f"bad key {KEY}", message=f"no {KEY}", status=401)
        self.assertIs(redaction.attributed(error, candidate()), error)
        self.assertEqual((error.provider, error.account_id, error.model), ("p", "a", "m"))
        self.assertEqual((error.message, error.body), ("no ***", "bad key ***"))
        self.assertNotIn(KEY, f"{error!r} {vars(error)}")

    def test_headers_that_are_secrets_go_too(self) -> None:
        """A secret header's value is masked in message, body, request id and where the text was cut inside it."""
        found = candidate(headers={"X-Own": secret.Secret("hd-canary-9876"), "X-Open": "public-value"})
        error = errors.ProviderError(body="hd-canary-9876 public-value hd-can", message="hd-canary-9876", request_id=f"r-{KEY}")
        redaction.attributed(error, found)
        self.assertEqual((error.body, error.message, error.request_id), ("*** public-value ***", "***", "r-***"))
        self.assertIsNone(redaction.attributed(errors.ProviderError(), found).request_id)

    def test_a_cause_that_quotes_the_key_is_dropped(self) -> None:
        """What is behind an error stays unless it, or what is behind that, shows the key."""

        def with_cause(cause: Exception, behind: Exception | None = None) -> Any:
            cause.__cause__ = behind
            error = errors.MalformedResponseError()
            error.__cause__ = cause
            return redaction.attributed(error, candidate()).__cause__

        clean = ValueError("clean")
        self.assertIs(with_cause(clean), clean)
        self.assertIs(with_cause(clean, KeyError("clean too")), clean)
        self.assertIsNone(with_cause(ValueError(f"bad {KEY}")))
        self.assertIsNone(with_cause(clean, KeyError(KEY)))
        telling = ValueError("clean")
        telling.doc = KEY  # type: ignore[attr-defined]  # as json.JSONDecodeError has it
        self.assertIsNone(with_cause(telling))
        self.assertIsNone(redaction.provider_bug(ValueError(KEY), candidate()).__cause__)

    def test_a_partial_answer_holds_no_key(self) -> None:
        """Text, reasoning and sources of what came of a broken stream are masked, the rest stays."""
        message = records.Message("assistant", f"a {KEY} b", reasoning=f"r {KEY[:10]}")
        partial = answers.ChatResponse("id", "m", (answers.Choice(0, message),), source=(f'{{"a": "{KEY}"}}',))
        made = redaction.redacted_partial(partial, candidate())
        self.assertEqual((made.text, made.reasoning, made.source), ("a *** b", "r ***", ('{"a": "***"}',)))
        self.assertEqual((made.id, made.model, len(made.choices)), ("id", "m", 1))

    def test_no_frame_survives(self) -> None:
        """Exceptions of a provider's code, and all that is behind them, lose their frames, whose locals may hold a key."""

        def deepest() -> None:
            body = f"echo {KEY}"
            raise ValueError(len(body))

        def middle() -> None:
            echo = KEY
            try:
                deepest()
            except ValueError as exc:
                raise KeyError(len(echo)) from exc

        try:
            try:
                middle()
            except KeyError:
                raise LookupError("last")  # noqa: B904 - the implicit context is the point
        except LookupError as exc:
            error = redaction.provider_bug(exc, candidate())
        self.assertIs(type(error), errors.ProviderUnavailableError)
        self.assertEqual(error.message, "LookupError inside the provider's own code")
        self.assertEqual((error.account_id, type(error.__cause__)), ("a", LookupError))
        text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        self.assertIn("KeyError", text)
        self.assertNotIn(KEY, text)
        self.assertNotIn("deepest", text)

    def test_a_suppressed_context_is_dropped(self) -> None:
        """What `from None` or `from cause` hides is not kept either."""
        try:
            try:
                raise ValueError(KEY)
            except ValueError:
                raise KeyError("shown") from None
        except KeyError as exc:
            found = redaction.strip_tracebacks(exc)
        self.assertIsNone(found.__context__)
        self.assertIsNone(found.__traceback__)

    def test_raising_an_error_again_does_not_make_it_longer(self) -> None:
        """An error that is signed each time it is raised keeps one frame, not one a time."""
        error = errors.RateLimitedError()
        for _ in range(50):
            try:
                raise redaction.attributed(error, candidate())
            except errors.RateLimitedError as exc:
                depth = len(traceback.extract_tb(exc.__traceback__))
        self.assertEqual(depth, 1)


if __name__ == "__main__":
    unittest.main()
