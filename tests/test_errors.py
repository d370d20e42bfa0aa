"""The error tree: what each class carries, says, and survives."""

from __future__ import annotations

import copy
import pickle
import unittest
from typing import Any

from tests import ir, part

errors = part("errors")

TREE = {
    "ConfigError": "InferRouterError",
    "UnknownModelError": "InferRouterError",
    "NoCandidatesError": "InferRouterError",
    "MultimodalUnavailableError": "NoCandidatesError",
    "AllCandidatesFailedError": "InferRouterError",
    "ProviderError": "InferRouterError",
    "InvalidRequestError": "ProviderError",
    "ContextWindowError": "InvalidRequestError",
    "AuthenticationError": "ProviderError",
    "QuotaExceededError": "ProviderError",
    "RateLimitedError": "ProviderError",
    "ModelNotFoundError": "ProviderError",
    "AddressNotFoundError": "ModelNotFoundError",
    "ProviderUnavailableError": "ProviderError",
    "AttemptTimeoutError": "ProviderUnavailableError",
    "MalformedResponseError": "ProviderError",
    "StreamInterruptedError": "InferRouterError",
    "QuotaStoreError": "InferRouterError",
    "BatchError": "InferRouterError",
}
RETRYABLE = {
    "QuotaExceededError",
    "RateLimitedError",
    "ProviderUnavailableError",
    "AttemptTimeoutError",
    "MalformedResponseError",
    "StreamInterruptedError",
}


def unavailable(**facts: Any) -> Any:
    return errors.ProviderUnavailableError("openai", "a", "m", 500, **facts)


def one_of_each() -> list[Any]:
    attempt = errors.Attempt("openai", "a", "m", unavailable(body="down"))
    rejection = errors.Rejection("openai", "b", "m", "held: RateLimited", 1.5, "held")
    providers = [getattr(errors, name) for name in TREE if issubclass(getattr(errors, name), errors.ProviderError)]
    return [
        errors.ConfigError(["a: wrong", "b: wrong"]),
        errors.UnknownModelError("fsat", ["fast"]),
        errors.NoCandidatesError([rejection], 1.5),
        errors.MultimodalUnavailableError([rejection]),
        errors.AllCandidatesFailedError([attempt], 2.5, [rejection]),
        errors.StreamInterruptedError(None, None),
        errors.QuotaStoreError("the file is gone: bring it back"),
        errors.BatchError("the output is gone: bring it back"),
        *(kind("p", "a", "m", 418, "body", 3.0, "req-1", message="said", scope="model", resets_at=9.0) for kind in providers),
    ]


class Facts(unittest.TestCase):
    def test_facts_of_another_kind(self) -> None:
        """What a provider's own code hands over as bytes, text or nothing is taken as what it says; nonsense is left out."""
        for facts, expected in (
            ({"status": "503"}, ("status", 503)),
            ({"status": "bad"}, ("status", None)),
            ({"retry_after": "7.5"}, ("retry_after", 7.5)),
            ({"retry_after": [7]}, ("retry_after", None)),
            ({"resets_at": "1e9"}, ("resets_at", 1e9)),
            ({"resets_at": "soon"}, ("resets_at", None)),
            ({"body": b"no \xff"}, ("body", "no \ufffd")),
            ({"body": None}, ("body", "")),
            ({"body": 5}, ("body", "5")),
            ({"message": None}, ("message", "")),
            ({"message": b"why"}, ("message", "why")),
            ({"request_id": 7}, ("request_id", "7")),
            ({"request_id": ""}, ("request_id", None)),
        ):
            error = errors.RateLimitedError("p", "a", "m", **facts)
            self.assertEqual(getattr(error, expected[0]), expected[1], facts)
            self.assertIn("p/a (m)", str(error))


class Tree(unittest.TestCase):
    def test_every_class_stands_where_the_documentation_says(self) -> None:
        """The tree of classes is the documented one."""
        self.assertIs(errors.InferRouterError.__base__, Exception)
        for name, base in TREE.items():
            self.assertEqual(getattr(errors, name).__base__.__name__, base, name)

    def test_the_tree_holds_every_error_class_of_the_module(self) -> None:
        """No error class of the module is outside the tree, and each is public."""
        found = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
        self.assertEqual(found, {*TREE, "InferRouterError"})
        self.assertLessEqual(found, set(ir.__all__))

    def test_retryable_by_class(self) -> None:
        """Only errors that may heal by themselves are retryable."""
        for name in TREE:
            self.assertEqual(getattr(errors, name).retryable, name in RETRYABLE, name)

    def test_retryable_follows_the_facts_where_they_decide(self) -> None:
        """A quota that never comes back is not retryable; nothing to try is retryable once a slot is known."""
        self.assertFalse(errors.QuotaExceededError(retryable=False).retryable)
        self.assertTrue(errors.QuotaExceededError().retryable)
        self.assertTrue(errors.NoCandidatesError((), 5.0).retryable)
        self.assertFalse(errors.NoCandidatesError().retryable)
        self.assertTrue(errors.AllCandidatesFailedError((), 5.0).retryable)
        self.assertFalse(errors.AllCandidatesFailedError().retryable)
        denied = errors.Attempt("p", "a", "m", errors.AuthenticationError())
        self.assertFalse(errors.AllCandidatesFailedError([denied]).retryable)
        self.assertTrue(errors.AllCandidatesFailedError([denied, errors.Attempt("p", "a", "m", unavailable())]).retryable)


def busy(provider: str, status: int | None = 503) -> Any:
    """An attempt at a provider that is not there, or says so."""
    return errors.Attempt(provider, "a", "m", errors.ProviderUnavailableError(provider, "a", "m", status, message="gone"))


class Copies(unittest.TestCase):
    def test_every_error_survives_pickle_and_copy(self) -> None:
        """Pickled and copied errors keep their type, text and facts."""
        for error in one_of_each():
            for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
                self.assertIs(type(twin), type(error))
                self.assertEqual(str(twin), str(error))
                self.assertEqual(set(vars(twin)), set(vars(error)))


class Messages(unittest.TestCase):
    def test_every_message_is_whole_sentences(self) -> None:
        """No message doubles a full stop, and every one of an account ends with one."""
        for error in one_of_each():
            text = str(error)
            self.assertNotIn("..", text)
            self.assertNotIn("..", repr(error))
            if not isinstance(error, (errors.ConfigError, errors.QuotaStoreError, errors.BatchError)):
                self.assertTrue(text.endswith("."), text)

    def test_a_provider_error_says_who_what_and_what_next(self) -> None:
        """The message holds account, model, status, words, wait, request id and advice, as they are when asked."""
        error = errors.RateLimitedError("", "", "", 429, "slow down.", 7.0, "req-9")
        self.assertEqual(
            str(error),
            "the provider answered 429: slow down. It asks to wait 7 s. Request id req-9. Wait, or add another account.",
        )
        error.provider, error.account_id, error.model = "openai", "a", "m"
        self.assertTrue(str(error).startswith("openai/a (m) answered 429: slow down."))
        self.assertEqual(repr(error), f"<RateLimitedError: {error}>")

    def test_a_fault_of_the_caller_names_no_provider(self) -> None:
        """An error made before anybody was asked does not speak of a provider's answer."""
        error = errors.InvalidRequestError(message="messages is empty")
        self.assertEqual(str(error), "messages is empty. Change the request; the same one would be refused again.")

    def test_message_comes_before_body_and_body_before_the_class(self) -> None:
        """What is said is the message, else the first 200 characters of the body, else the class's name."""
        self.assertIn(": told. ", str(errors.ProviderError("p", body="raw", message="told")))
        self.assertIn(": " + "x" * 200 + ". ", str(errors.ProviderError("p", body="x" * 300)))
        self.assertIn("p: ProviderError. ", str(errors.ProviderError("p")))

    def test_a_spent_quota_tells_whether_waiting_helps(self) -> None:
        """The advice of `QuotaExceededError` follows `retryable`."""
        self.assertIn("comes back when the quota resets", str(errors.QuotaExceededError("p")))
        self.assertIn("Waiting does not help", str(errors.QuotaExceededError("p", retryable=False)))

    def test_config_errors_list_every_problem(self) -> None:
        """One problem stands in the line, several one below the other; a string counts as one."""
        self.assertEqual(str(errors.ConfigError("a: bad")), "the configuration has a problem: a: bad")
        self.assertEqual(errors.ConfigError("a: bad").problems, ("a: bad",))
        many = errors.ConfigError(["a: bad", "b: bad"])
        self.assertEqual(str(many), "the configuration has 2 problems:\n  - a: bad\n  - b: bad")

    def test_an_unknown_model_is_named_with_what_is_known(self) -> None:
        """At most twelve known names are listed; no name at all is told apart from a wrong one."""
        error = errors.UnknownModelError("fsat", [f"m{i}" for i in range(20)])
        self.assertIn("unknown model 'fsat'; known: m0, ", str(error))
        self.assertIn("m11. Name", str(error))
        self.assertEqual(len(error.known), 20)
        self.assertIn("names no model and the configuration has no default_model. Name", str(errors.UnknownModelError("")))

    def test_the_soonest_slot_is_a_date(self) -> None:
        """`retry_at` reads as a UTC time, never one that is too early, and an absurd one as seconds."""
        self.assertIn("at 1970-01-02 00:00:00 UTC", str(errors.NoCandidatesError((), 86400.0)))
        self.assertIn("at 1970-01-02 00:00:01 UTC", str(errors.NoCandidatesError((), 86400.2)))
        self.assertIn("s after the epoch", str(errors.NoCandidatesError((), 1e30)))
        self.assertIn("inf s after the epoch", str(errors.NoCandidatesError((), float("inf"))))
        self.assertIn("Waiting does not help", str(errors.NoCandidatesError()))

    def test_nothing_to_try_says_why(self) -> None:
        """Every rejection is in the message; none at all means that nobody serves the model."""
        rejection = errors.Rejection("openai", "b", "m", "held")
        self.assertIn("openai/b (m): held. ", str(errors.NoCandidatesError([rejection])))
        self.assertIn("no account serves this model", str(errors.NoCandidatesError()))
        self.assertIn("media: openai/b (m): held. ", str(errors.MultimodalUnavailableError([rejection])))

    def test_all_failed_counts_and_numbers_the_attempts(self) -> None:
        """Attempts are numbered from 1, in order, with the rejections after them."""
        attempts = [errors.Attempt("openai", name, "m", unavailable()) for name in ("a", "b")]
        one = str(errors.AllCandidatesFailedError(attempts[:1]))
        self.assertTrue(one.startswith("the only attempt failed: [1] openai/a (m) answered 500"), one)
        self.assertNotIn("Left out", one)
        two = str(errors.AllCandidatesFailedError(attempts, None, [errors.Rejection("p", "c", "m", "held")]))
        self.assertTrue(two.startswith("all 2 attempts failed: [1] "), two)
        self.assertIn("; [2] openai/a (m)", two)
        self.assertIn(" Left out: p/c (m): held.", two)

    def test_one_reason_of_many_models_is_said_once(self) -> None:
        """What one account says of several models alike stands once, with the models; another account's stands by itself."""
        models = [f"m{number}" for number in range(13)]
        rejections = [errors.Rejection("p", name, model, "held: why") for name in ("a", "b") for model in models]
        text = str(errors.NoCandidatesError(rejections))
        self.assertIn("p/a (m0 and 12 more): held: why; p/b (m0 and 12 more): held: why. ", text)
        few = str(errors.NoCandidatesError(rejections[:2]))
        self.assertIn("p/a (m0, m1): held: why. ", few)

    def test_one_failure_of_many_models_is_said_once(self) -> None:
        """Attempts that failed alike but for the model stand once, with their numbers; one that failed otherwise stands alone."""
        missing = [
            errors.Attempt("p", "a", name, errors.ModelNotFoundError("p", "a", name, 404, message=f"models/{name} is not found"))
            for name in ("m0", "m1", "m2", "m3")
        ]
        text = str(errors.AllCandidatesFailedError([*missing, errors.Attempt("openai", "a", "m", unavailable())]))
        self.assertIn("all 5 attempts failed: [1-4] p/a (m0 and 3 more) answered 404: models/m0 is not found. Check", text)
        self.assertIn("; [5] openai/a (m) answered 500", text)
        self.assertEqual(text.count("is not found"), 1)

    def test_advice_fits_what_happened(self) -> None:
        """Paid use is advised where it was refused, another provider where the only one is busy, and a key that was refused is
        to be corrected."""
        paid = errors.Rejection("p", "a", "m", "paid", None, "paid_not_allowed")
        media = errors.Rejection("p", "a", "m", "takes no tools", None, "tools")
        held = errors.Rejection("p", "a", "m", "held: Authentication (401)", None, "held")
        rows = [
            (
                errors.NoCandidatesError([paid]),
                "add an account or allow paid use (allow_paid = true; --paid in a command",
                "change",
            ),
            (errors.NoCandidatesError([media]), "add an account or change the request.", "paid use"),
            (errors.NoCandidatesError([held]), "Correct the key, and it is asked at once; python3 -m", "Waiting"),
            (errors.AllCandidatesFailedError([busy("p")]), "An account at another provider could take over.", "Waiting"),
            (errors.AllCandidatesFailedError([busy("p"), busy("q")]), "[2] q/a (m) answered 503", "another provider"),
            (errors.AllCandidatesFailedError([busy("p", None)]), "p/a (m)", "another provider"),
        ]
        for error, said, left_out in rows:
            self.assertIn(said, str(error))
            self.assertNotIn(left_out, str(error))

    def test_a_broken_stream_says_how_far_it_came(self) -> None:
        """The partial text's length and the cause are in the message."""

        class Partial:
            text = "12345"

        error = errors.StreamInterruptedError(Partial(), unavailable())
        self.assertIn("after 5 characters: openai/a (m) answered 500", str(error))
        self.assertIn("after 0 characters. What came", str(errors.StreamInterruptedError()))


if __name__ == "__main__":
    unittest.main()
