"""The commands that lead from a key to a working configuration: models, providers, init, check, doctor."""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
import unittest
from pathlib import Path
from typing import Any

from tests import part
from tests.commands import Ran, run

simulator = part("simulator")
GEMINI, GROQ = "gk-right-0123456789", "qk-right-0123456789"


class WithKeys(unittest.TestCase):
    """Two stand-in providers under the variables of Gemini and Groq, in a folder that is empty."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        old = os.getcwd()
        self.addCleanup(os.chdir, old)
        os.chdir(self.folder)
        self.gemini = self.enterContext(simulator.Simulator("gemini", keys=[GEMINI]))
        self.groq = self.enterContext(simulator.Simulator("openai", keys=[GROQ]))
        self.env = {
            "GEMINI_API_KEY": GEMINI,
            "GROQ_API_KEY": GROQ,
            "GEMINI_BASE_URL": self.gemini.base_url,
            "GROQ_BASE_URL": self.groq.base_url,
            "XDG_STATE_HOME": str(self.folder / "state"),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
        }

    def ran(self, *argv: str, **env: str) -> Ran:
        ran = run(*argv, env=self.env | env)
        for key in (GEMINI, GROQ):
            self.assertNotIn(key, ran.out + ran.err)
        return ran

    def data(self, *argv: str, code: int = 0, **env: str) -> Any:
        ran = self.ran(*argv, "--json", **env)
        self.assertEqual(ran.code, code, ran)
        return json.loads(ran.out)


class FromKeysAlone(WithKeys):
    def test_a_question_needs_no_model_and_no_file(self) -> None:
        """With keys in the environment alone, ask answers from the best free model."""
        ran = self.ran("ask", "What is 2+2?")
        self.assertEqual((ran.code, ran.out), (0, "2 + 2 = 4.\n"))
        self.assertRegex(ran.err, r"^\[gemini/gemini gemini-[\w.-]+: \d+ tokens, free\]\n$")

    def test_models(self) -> None:
        """models shows each name to ask for, the default among them, and each model with what is left; asks nobody."""
        self.ran("ask", "hi")
        found = self.data("models")
        self.assertEqual(found["default"], "free")
        self.assertLessEqual({"free", "fast", "smart", "vision", "embed"}, set(found["aliases"]))
        used = next(row for row in found["models"] if any(limit["used"] for limit in row["limits"]))
        self.assertTrue(used["can_be_asked"])
        self.assertEqual(len(self.gemini.log) + len(self.groq.log), 1)
        ran = self.ran("models")
        self.assertRegex(ran.out, r"(?m)^  free \(default\)  +(\d+) of \1 can be asked now  +next: gemini-")
        self.assertRegex(ran.out, rf"(?m)^  {used['model']}  +gemini/gemini  tier 1  4 of 5 a minute, 19 of 20 a day")

    def test_models_of_one_name(self) -> None:
        """models NAME shows what is behind that name; an unknown one is an error with the nearest."""
        rows = self.data("models", "embed")["models"]
        self.assertEqual([row["model"] for row in rows], ["gemini-embedding-001"])
        ran = self.ran("models", "fats")
        self.assertEqual(ran.code, 1)
        self.assertIn("fast", ran.err)

    def test_a_model_that_rests(self) -> None:
        """A model that is held says why, and when it is back."""
        self.gemini.fail_next(1, 429, headers={"Retry-After": "300"})
        self.ran("ask", "hi")
        row = next(row for row in self.data("models")["models"] if not row["can_be_asked"])
        self.assertIn("429", row["state"])
        self.assertRegex(self.ran("models").out, r"not now: held: .*429.*\(in \d+ (s|min)")

    def test_providers(self) -> None:
        """providers tells the key variable, where to get a key, limits with date and age, what is counted, and the terms."""
        text = self.ran("providers").out
        for word in ("GEMINI_API_KEY", "a key: https://aistudio.google.com", "days old", "counted:", "terms:"):
            self.assertIn(word, text)
        self.assertEqual(self.ran("catalog").out, text)


class Init(WithKeys):
    def test_a_file_that_works(self) -> None:
        """init writes a file for its owner alone, without a key; it is found, is fine, and serves what the keys alone served."""
        first = self.ran("explain").out
        ran = self.ran("init")
        self.assertEqual(ran.code, 0, ran)
        file = self.folder / "inferrouter.toml"
        if os.name == "posix":
            self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        text = file.read_text("utf-8")
        self.assertFalse({GEMINI, GROQ} & set(text.split('"')))
        self.assertEqual([account["id"] for account in tomllib.loads(text)["accounts"]], ["gemini", "groq"])
        self.assertEqual(self.ran("explain").out, first)
        checked = self.ran("check")
        self.assertEqual(checked.code, 0, checked)
        self.assertTrue(checked.out.endswith("inferrouter.toml: fine\n"))
        self.assertEqual(self.ran("ask", "What is 2+2?").out, "2 + 2 = 4.\n")

    def test_keys_that_cost_money(self) -> None:
        """Accounts without a free tier are written as paid, and a further key as a further account."""
        ran = self.ran("init", "mine.toml", OPENAI_API_KEY="sk-paid-0123456789", GEMINI_API_KEY_2="gk-more-0123456789")
        self.assertEqual(ran.code, 0, ran)
        accounts = {each["id"]: each for each in tomllib.loads((self.folder / "mine.toml").read_text("utf-8"))["accounts"]}
        self.assertEqual(set(accounts), {"openai", "gemini", "gemini-2", "groq"})
        self.assertTrue(accounts["openai"]["paid_enabled"])
        self.assertEqual(accounts["gemini-2"]["auth"]["api_key"], "${GEMINI_API_KEY_2}")

    def test_never_over_a_file(self) -> None:
        """A file that is there stays as it is; no key, another ending and a missing folder are told in one line."""
        (self.folder / "inferrouter.toml").write_text("# mine", "utf-8")
        for argv, env, words in (
            ((), {}, "is there already"),
            (("x.json",), {}, "ends in .toml"),
            (("nowhere/x.toml",), {}, "cannot be made"),
            (("y.toml",), {"GEMINI_API_KEY": "", "GROQ_API_KEY": ""}, "none of the known keys"),
        ):
            with self.subTest(words):
                ran = self.ran("init", *argv, **env)
                self.assertEqual((ran.code, ran.out, ran.err.count("\n")), (1, "", 1))
                self.assertIn(words, ran.err)
        self.assertEqual((self.folder / "inferrouter.toml").read_text("utf-8"), "# mine")


class Doctor(WithKeys):
    def test_every_account_answers(self) -> None:
        """doctor asks each account once, in a few tokens that are counted, and is fine."""
        ran = self.ran("doctor")
        self.assertEqual(ran.code, 0, ran)
        self.assertRegex(ran.out, r"(?m)^  ok   gemini/gemini gemini-\S+ in \d\.\d\d s: answered \d+ tokens, free$")
        self.assertEqual((len(self.gemini.log), len(self.groq.log)), (1, 1))
        used = [
            limit["used"] for each in self.data("status").values() for limit in each["limits"] if limit["name"].endswith("/rpm")
        ]
        self.assertEqual(sum(used), 2)

    def test_what_to_do_about_each_failure(self) -> None:
        """A refused key and a silent server each say what to do, the others answer all the same, and the command fails."""
        found = self.data(
            "check",
            "--live",
            code=1,
            GROQ_API_KEY="wrong-0123456789",
            MISTRAL_API_KEY="mk",
            MISTRAL_BASE_URL="http://127.0.0.1:9/v1",
        )
        by_id = {each["account_id"]: each for each in found["accounts"]}
        self.assertTrue(by_id["gemini"]["fine"])
        self.assertIn("Check the variable GROQ_API_KEY and what", by_id["groq"]["says"])
        self.assertFalse(found["fine"])

    def test_a_mended_key_is_seen_at_once(self) -> None:
        """A key that was refused a moment ago does not keep doctor from asking with the right one."""
        self.assertEqual(self.ran("doctor", GROQ_API_KEY="wrong-0123456789").code, 1)
        self.assertEqual(self.ran("doctor").code, 0)


if __name__ == "__main__":
    unittest.main()
