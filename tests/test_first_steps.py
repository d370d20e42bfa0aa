"""What the commands say to somebody who has just begun: a wrong default, an empty file, no limits, no alias, a held key."""

from __future__ import annotations

import inspect
import json
import traceback
import unittest
from typing import Any

from tests import ir
from tests.commands import Ran
from tests.test_cli_setup import GEMINI, WithKeys

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
        file = self.file(f'default_model = "gpt-4o-mini"\n{FAST}[[accounts]]\nprovider = "gemini"\nid = "g"\n')
        self.assertIn("nor a model of any account: it is a model of openai, which has no account", self.ran("check", file).out)
        long = self.ran(
            "check", self.file(f'default_model = "gpt-{"x" * 900}"\n{FAST}[[accounts]]\nprovider = "gemini"\nid = "g"\n')
        )
        self.assertIn(f"- default_model: 'gpt-{'x' * 193}...' is not an alias", long.out)
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
        facts = json.loads(self.plan("--rows", "20000", "--json", config=DESK).out)
        self.assertEqual([facts[name] for name in ("done_at", "within_a_day", "as_fast_as")], [None, None, "desk"])
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


class NoKey(Case):
    def test_the_first_key_is_recommended(self) -> None:
        """Without a key each command names a free one and where to get it, the command that lists all, and the demo."""
        for command in (("ask", "hi"), ("doctor",), ("check",), ("plan",), ("models",), ("init",)):
            ran = self.ran(*command, **NO_KEYS)
            self.assertEqual(ran.code, 1)
            self.assertRegex(
                ran.out + ran.err, r"such as GEMINI_API_KEY \(free, from https://.* providers` lists them all.* demo` "
            )
            self.assertNotIn("PERPLEXITY", ran.out + ran.err)
        with self.assertRaisesRegex(ir.ConfigError, "set one first, such as GEMINI_API_KEY"):
            ir.Router.from_env({})

    def test_a_misspelt_variable_is_told(self) -> None:
        """A variable that is nearly the name of a key is named with the right one; others, and what they hold, are not."""
        ran = self.ran("ask", "hi", GEMINY_API_KEY=GEMINI, **NO_KEYS)
        self.assertIn("GEMINY_API_KEY (did you mean GEMINI_API_KEY?)", ran.err)
        with self.assertRaisesRegex(ir.ConfigError, r"GROQ_API_KEYS \(did you mean GROQ_API_KEY\?\)"):
            ir.Router.from_env({"GROQ_API_KEYS": "0123456789"})
        for name in ("GH_TOKEN", "GITHUB_TOKEN", "MONKEY", "GEMINY_HOME"):
            with self.assertRaisesRegex(ir.ConfigError, "set one first"):
                ir.Router.from_env({name: "0123456789"})

    def test_a_paid_key_alone(self) -> None:
        """With a paid key alone a question is refused for what it costs, and the error says what allows it."""
        ran = self.ran("ask", "hi", OPENAI_API_KEY="sk-0123456789", **NO_KEYS)
        self.assertEqual(ran.code, 1)
        self.assertRegex(ran.err, r"it is a paid account.*allow paid use \(allow_paid = true; --paid in a command")
        self.assertEqual(ran.err.count("it is a paid account"), 1)


class Words(Case):
    def test_settings_that_do_not_exist(self) -> None:
        """A setting that a class does not have is a ConfigError with the one that is meant; what was given is not repeated."""
        for words, make in (
            ("no setting 'defualt_model' (did you mean 'default_model'?)", lambda: ir.Config(defualt_model="fast")),
            ("no setting 'api_key': write auth=Auth(api_key=...)", lambda: ir.AccountConfig("gemini", "a", api_key=GEMINI)),
            ("AccountConfig: needs provider and id", lambda: ir.AccountConfig("gemini")),
        ):
            with self.assertRaises(ir.ConfigError) as caught:
                make()
            self.assertIn(words, str(caught.exception))
            frames = traceback.walk_tb(caught.exception.__traceback__)
            kept = [frame.f_locals for frame, _ in frames if frame.f_globals.get("__name__", "").startswith(ir.__name__)]
            self.assertNotIn(GEMINI, repr(kept))
        self.assertIn("default_model", inspect.signature(ir.Config).parameters)

    def test_files_that_are_nearly_right(self) -> None:
        """A key in the place of a table, a missing quote and a missing bracket are told with what to write."""
        for text, words in (
            (f'[[accounts]]\nprovider = "gemini"\nid = "a"\nauth = "{GEMINI}"\n', 'write auth = { api_key = "..." }'),
            ("default_model = fast\n", 'most likely a text without quotes: write key = "text"'),
            ("default_model = 'fast\n", "most likely a quote, a bracket or"),
            ("[[accounts]\n", "a bracket or an equals sign is missing"),
        ):
            ran = self.ran("check", self.file(text))
            self.assertEqual(ran.code, 1)
            self.assertIn(words, ran.out)
        self.assertIn("most likely a key without double quotes", self.ran("check", self.file("{a: 1}", "c.json")).out)

    def test_true_false_and_nothing_of_other_languages(self) -> None:
        """True, yes or None where a value belongs is told with what the file writes, and not taken for a text without quotes."""
        rows = {
            "default_model = 'ü\u2028'\r\nallow_paid = True": "TOML writes true, in lower case",
            "allow_paid = FALSE  # not yet\n": "TOML writes false, in lower case",
            "allow_paid = yes\n": "TOML writes true for yes",
            "quota = { adopt_empty = no }\n": "TOML writes false for no",
            "timeout = None\n": "to say nothing, leave that setting out",
            "timeout = null": "to say nothing, leave that setting out",
            "default_model = none of them\n": "most likely a text without quotes",
        }
        for text, words in rows.items():
            with self.subTest(text):
                ran = self.ran("check", self.file(text))
                self.assertRegex(ran.out, rf"- .*: is not valid TOML: Invalid value \(at line [12], column [0-9]+\); {words}")
        ran = self.ran("check", self.file('{"allow_paid": True,\n"timeout": 1}', "c.json"))
        self.assertIn("Expecting value: line 1 column 16 (char 15); JSON writes true, in lower case", ran.out)

    def test_a_word_after_a_value_is_no_value(self) -> None:
        """Where a value is complete, the word behind it is not explained as one."""
        for name, text, words in (
            ("c.toml", "allow_paid = true yes\n", "most likely a quote, a bracket or an equals sign is missing there"),
            ("c.json", '{"max_wait": 1 no}', "most likely a comma, a colon or a quote is missing before it"),
        ):
            out = self.ran("check", self.file(text, name)).out
            self.assertIn(words, out)
            self.assertNotIn("writes", out)

    def test_files_that_are_not_there(self) -> None:
        """A file that is missing is told as such, and the path is what to check."""
        rows = (("ask", "hi", "--file", "no.txt"), ("ask", "hi", "--file", "no.png"), ("ask", "hi", "--image", "no.png"))
        for command in (*rows, ("batch", self.file("one\n", "in.txt"), "--out", "out.jsonl", "--prompt", "@no.txt")):
            ran = self.ran(*command)
            self.assertEqual(ran.code, 1)
            self.assertRegex(ran.err, r"No such file or directory.* [Cc]heck the path")
            self.assertNotRegex(ran.err, "UTF-8|Change the request")

    def test_small_words(self) -> None:
        """One account is one account, and a chat without a message says how one is written."""
        self.assertIn(": 1 account, readable", self.ran("init", GROQ_API_KEY="").out)
        with ir.Router(ir.Config()) as router, self.assertRaisesRegex(ir.InvalidRequestError, 'write router.chat\\("Hello!"\\)'):
            router.chat()

    def test_a_wrong_default_in_a_question(self) -> None:
        """A question that names no model is told that the file's default is what is wrong."""
        file = self.file(f'default_model = "fats"\n{FAST}{DESK}[[accounts]]\nprovider = "gemini"\nid = "g"\n')
        ran = self.ran("ask", "--config", file, "hi")
        self.assertIn(f"{file}: default_model: unknown model 'fats'", ran.err)
        self.assertNotIn("--model", ran.err)


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
