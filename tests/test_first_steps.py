"""What the commands say to somebody who has just begun: a wrong default, an empty file, no limits, no alias, a held key."""

from __future__ import annotations

import unittest
from typing import Any

from tests.commands import Ran
from tests.test_cli_setup import WithKeys

DESK = '[[accounts]]\nprovider = "local"\nid = "desk"\nbase_url = "http://127.0.0.1:9/v1"\n'
FAST = '[[models]]\nalias = "fast"\nmodels = [{ provider = "local", model = "m" }]\n'
NO_KEYS = {"GEMINI_API_KEY": "", "GROQ_API_KEY": ""}


class Case(WithKeys):
    def file(self, text: str, name: str = "c.toml") -> str:
        path = self.folder / name
        path.write_text(text, "utf-8")
        path.chmod(0o600)
        return str(path)


class Doctor(Case):
    def test_an_answer_ends_what_was_held(self) -> None:
        """A key that was refused a moment ago and serves now is fine: doctor says so and nothing else."""
        self.gemini.fail_next(status=401)
        self.assertEqual(self.ran("ask", "hi", GROQ_API_KEY="").code, 1)
        held = self.ran("ask", "hi", GROQ_API_KEY="")
        self.assertRegex(held.err, r"check GEMINI_API_KEY; the hold ends at \d\d:\d\d.*doctor asks the same one again")
        ran = self.ran("doctor", GROQ_API_KEY="")
        self.assertEqual((ran.code, ran.out.splitlines()[-1]), (0, "the environment: fine"), ran.out)
        self.assertNotIn("held", ran.out)
        self.assertEqual(self.ran("ask", "hi", GROQ_API_KEY="").code, 0)

    def test_embed_does_not_turn_chats_off(self) -> None:
        """embed without --model asks the alias embed alone, and a chat answers afterwards."""
        self.assertEqual(self.ran("embed", "one text").code, 0)
        self.assertEqual(self.ran("ask", "hi").code, 0)
        self.assertRegex(str(self.gemini.log[0].model), "embedding")


class Check(Case):
    def test_a_wrong_default_is_named(self) -> None:
        """A default model that leads nowhere is a problem of that setting in that file, with the name that is meant."""
        file = self.file(f'default_model = "fats"\n{FAST}{DESK}[[accounts]]\nprovider = "gemini"\nid = "g"\n')
        for command in ("check", "doctor"):
            ran = self.ran(command, file)
            self.assertEqual((ran.code, ran.err), (1, ""))
            self.assertIn(f"{file}: 1 problem\n  - default_model: 'fats' is not an alias", ran.out)
            self.assertIn("(did you mean 'fast'?)", ran.out)
        file = self.file('default_model = "fats"\n[[accounts]]\nprovider = "gemini"\nid = "g"\n')
        self.assertRegex(self.ran("check", file).out, r"there is no alias\. Write provider/model, such as gemini/gemini-")

    def test_no_account_is_not_fine(self) -> None:
        """A configuration without an account cannot make a call, and check fails."""
        file = self.file("")
        ran = self.ran("check", file)
        self.assertEqual(ran.code, 1)
        self.assertIn("has no account to ask", ran.out)
        self.assertNotIn("fine", ran.out)
        self.assertFalse(self.data("check", file, code=1)["fine"])


class Plan(Case):
    def plan(self, *words: str, config: str = "", **env: Any) -> Ran:
        ran = self.ran("plan", *words, *(("--config", self.file(config)) if config else ()), **env)
        self.assertEqual((ran.code, ran.err), (0, ""))
        return ran

    def test_without_a_limit_nothing_is_promised(self) -> None:
        """Where no limit is known plan says so: not 0 requests, and no moment when rows are done."""
        said = self.plan("--rows", "20000", config=DESK).out
        self.assertIn("no limit is known, so nobody can say how many", said)
        self.assertIn("20,000 rows: as fast as desk answers, since no limit of it is known", said)
        self.assertNotRegex(said, r"\b0 requests|done")
        limited = '[[accounts]]\nprovider = "p"\nid = "o"\nbase_url = "http://127.0.0.1:9/v1"\nlimits = { rpd = 7 }\n'
        both = self.plan(config=DESK + limited)
        self.assertIn(", and what desk may carry without a known limit", both.out)

    def test_what_costs_money_is_left_out_aloud(self) -> None:
        """With a paid key alone plan says what it left out, and how to count it."""
        keys = {**NO_KEYS, "OPENAI_API_KEY": "sk-0123456789"}
        self.assertEqual(self.plan(**keys).out, "  what may cost money is left out (openai): --paid counts it too\n")
        self.assertIn("openai/openai", self.plan("--paid", **keys).out)
        self.assertNotIn("--paid", self.plan("--days", "0.02", GROQ_API_KEY="").out)

    def test_vectors_are_not_chats(self) -> None:
        """A model that makes vectors is not counted among the requests that the accounts will answer, unless it is named."""
        self.assertNotIn("embedding", self.plan("--days", "0.02", GROQ_API_KEY="").out)
        self.assertIn("gemini-embedding-001", self.plan("--days", "0.02", "--model", "embed", GROQ_API_KEY="").out)


class Models(Case):
    def test_accounts_without_an_alias(self) -> None:
        """Without an alias models says what to ask for, and lists what the catalog knows at the accounts."""
        known = self.ran("models", "--config", self.file(DESK + '[[accounts]]\nprovider = "gemini"\nid = "g"\n')).out
        self.assertIn("local/MODEL, gemini/MODEL; no alias is configured, [[models]] makes one", known)
        self.assertRegex(known, r"(?m)^  gemini-3\.5-flash +gemini/g ")
        alone = self.ran("models", "--config", self.file(DESK)).out
        self.assertEqual(alone, "names to ask for\n  local/MODEL; no alias is configured, [[models]] makes one\n")


if __name__ == "__main__":
    unittest.main()
