"""`Router.from_env`: what it finds, and that a failure shows no key."""

from __future__ import annotations

import os
import sys
import traceback
import unittest
from unittest import mock

from tests import ir

KEY = "sk-from-env-0123456789"


def shown_by_failure(**variables: str) -> str:
    """The traceback, local variables and all, of `from_env` over an environment of these variables alone."""
    with mock.patch.dict(os.environ, variables, clear=True):
        del variables
        try:
            ir.Router.from_env()
        except ir.ConfigError:
            # assertRaises would clear the frames, and with them what this looks for.
            return "".join(traceback.TracebackException(*sys.exc_info(), capture_locals=True).format())
    raise AssertionError("no ConfigError")


def shown_by_failure_with(name: str) -> str:
    """The same over a mapping that is handed in and that nobody else keeps."""
    try:
        ir.Router.from_env({name: f"{KEY} with-a-space"})
    except ir.ConfigError:
        return "".join(traceback.TracebackException(*sys.exc_info(), capture_locals=True).format())
    raise AssertionError("no ConfigError")


class FromEnvTest(unittest.TestCase):
    def test_known_keys_become_accounts(self) -> None:
        """Each known variable that is set gives one account, and blank ones give none."""
        with ir.Router.from_env({"OPENAI_API_KEY": KEY, "GEMINI_API_KEY": f" {KEY}\n", "XAI_API_KEY": " "}) as router:
            self.assertEqual(set(router.status()), {"openai", "gemini"})

    def test_a_key_without_a_free_tier_costs_money(self) -> None:
        """A provider for which the catalog has nothing free is paid, and left out until paid use is allowed."""
        env = {"OPENAI_API_KEY": KEY, "GROQ_API_KEY": KEY}
        for allowed, served in ((False, ["groq"]), (True, ["groq", "openai"])):
            with self.subTest(allow_paid=allowed), ir.Router.from_env(env, allow_paid=allowed) as router:
                found = [
                    candidate.account_id
                    for name in ("groq/m", "openai/gpt-4o-mini")
                    for candidate in router.explain(ir.ChatRequest("Hi", model=name)).candidates
                ]
                self.assertEqual(found, served)
                self.assertEqual(router.explain(ir.ChatRequest("Hi", model="groq/m")).candidates[0].free, True)

    def test_an_empty_environment_says_what_to_set(self) -> None:
        """Without any known key the error names the variables that would do."""
        with self.assertRaisesRegex(ir.ConfigError, "set one first, such as GEMINI_API_KEY .*providers` lists them all"):
            ir.Router.from_env({"PATH": "/bin"})

    def test_no_key_in_the_traceback_when_nothing_is_known(self) -> None:
        """A traceback with locals shows no variable of an environment that holds none of the known names."""
        for shown in (shown_by_failure(OTHER_SECRET=KEY), shown_by_failure_with("OTHER_SECRET")):
            self.assertIn("holds none of the known keys", shown)
            self.assertNotIn(KEY, shown)

    def test_no_key_in_the_traceback_when_the_key_is_unusable(self) -> None:
        """A traceback with locals shows nothing of a key that no header can carry."""
        for shown in (shown_by_failure(OPENAI_API_KEY=f"{KEY} x"), shown_by_failure_with("OPENAI_API_KEY")):
            self.assertIn("auth.api_key", shown)
            self.assertNotIn(KEY, shown)


if __name__ == "__main__":
    unittest.main()
