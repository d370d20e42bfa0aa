"""Configuration files and tables: what is read, what is refused, and what is never shown."""

from __future__ import annotations

import copy
import datetime
import json
import math
import os
import tempfile
import traceback
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from tests import LONG, ir, part

config = part("config")
account_module = part("account")
catalog = part("catalog")
config_file = part("config_file")
errors = part("errors")

KEY = "sk-canary-0123456789"
OR_OPTIONAL = (
    '; set it, or write optional = true (in JSON "optional": true) beside this account\'s provider and id '
    "to leave the account out while it is not set"
)
FULL = """
allow_paid = true
default_model = "fast"
policy = "cost_first"
attempt_timeout = 30
max_wait = 5.5
timeout = 90
idle_timeout = 10
auth_errors = "next"

[quota]
store = "sqlite"
path = "quota.db"
on_store_error = "ignore"

[[models]]
alias = "fast"
models = [{provider = "gemini", model = "g-flash"}, {provider = "own", model = "m"}]

[[accounts]]
provider = "gemini"
id = "gemini-1"
auth.api_key = "${GEMINI_KEY}"
daily_free = 1500
quota_unit = "requests"
limits = {rpm = 15, tpm = 1_000_000}
model_limits."g-flash" = {rpd = 20}
model_limits."*" = {rpd = 5}
reset = "rolling"
quota_group = "project"
capabilities = ["text", "image"]

[[accounts]]
provider = "own"
id = "own-1"
base_url = "https://${HOST:-llm.example}/v1"
dialect = "openai"
paid_enabled = true
max_daily_spend = 0.5
cost_per_input_token = 1.5e-7
cost_per_output_token = 6e-7
attempt_timeout = 12
headers = {X-Title = "my app"}
allow_http = false
"""


class FileCase(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def write(self, text: str | bytes, name: str = "c.toml", mode: int = 0o600) -> Path:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    def problems(self, path: object, **options: Any) -> list[str]:
        with self.assertRaises(errors.ConfigError) as caught:
            config_file.load_config(path, **options)
        self.assertIsNone(caught.exception.__context__)
        return list(caught.exception.problems)


def parse_config(data: Any, *, env: dict[str, str] | None = None, known_providers: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """What a file with the tables `data` gives."""
    reader = config_file.TableReader(env)
    reader.build(data, known_providers)
    return reader.result()  # type: ignore[no-any-return]  # a module by name


def load(data: dict[str, Any], env: dict[str, str] | None = None, known: tuple[str, ...] = ()) -> tuple[Any, Any]:
    return parse_config(data, env=env or {}, known_providers=known)


def table_problems(data: object, env: dict[str, str] | None = None, known: tuple[str, ...] = ()) -> list[str]:
    try:
        parse_config(data, env=env or {}, known_providers=known)
    except errors.ConfigError as exc:
        return list(exc.problems)
    return []


def account(**settings: Any) -> dict[str, Any]:
    """The tables of a configuration with one account."""
    return {"accounts": [{"provider": "p", "id": "a"} | settings]}


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The ConfigError of a call, its frames untouched (assertRaises would clear their locals)."""
    try:
        call(*args, **kwargs)
    except errors.ConfigError as exc:
        return exc
    raise AssertionError("was not refused")


def shown(error: BaseException) -> str:
    """All that a log could show of `error`, with the locals of every frame but this file's."""
    stack = traceback.TracebackException.from_exception(error, capture_locals=True).stack
    frames = [str(frame.locals) for frame in stack if not frame.filename.endswith(Path(__file__).name)]
    assert len(frames) > 1, "no frame was looked at"
    return str(error) + repr(vars(error)) + "".join(frames)


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside `value`, its own first."""
    yield path
    if isinstance(value, (dict, list)):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], other: object) -> Any:
    """A copy of `value` with `other` in the place `path`."""
    if not path:
        return other
    made = copy.copy(value)
    made[path[0]] = replaced(value[path[0]], path[1:], other)
    return made


class Files(FileCase):
    def test_toml_and_json_give_what_code_gives(self) -> None:
        """One configuration written as TOML, as JSON and in code is three times the same value."""
        import tomllib

        env = {"GEMINI_KEY": KEY}
        from_toml, _ = config_file.load_config(self.write(FULL), env=env)
        from_json, _ = config_file.load_config(self.write(json.dumps(tomllib.loads(FULL)), "c.json"), env=env)
        made = config.Config(
            allow_paid=True,
            default_model="fast",
            policy="cost_first",
            attempt_timeout=30,
            max_wait=5.5,
            timeout=90,
            idle_timeout=10,
            auth_errors="next",
            quota=config.QuotaConfig("sqlite", str(self.folder / "quota.db"), "ignore"),
            models=[
                config.ModelMapping("fast", [config.ModelRef("gemini", "g-flash"), config.ModelRef("own", "m")]),
            ],
            accounts=[
                config.AccountConfig(
                    "gemini",
                    "gemini-1",
                    account_module.Auth(KEY),
                    daily_free=1500,
                    limits={"rpm": 15, "tpm": 1_000_000},
                    model_limits={"g-flash": {"rpd": 20}, "*": {"rpd": 5}},
                    reset="rolling",
                    quota_group="project",
                    capabilities=["text", "image"],
                ),
                config.AccountConfig(
                    "own",
                    "own-1",
                    base_url="https://llm.example/v1",
                    dialect="openai",
                    paid_enabled=True,
                    max_daily_spend=0.5,
                    cost_per_input_token=1.5e-7,
                    cost_per_output_token=6e-7,
                    attempt_timeout=12,
                    headers={"X-Title": "my app"},
                ),
            ],
        )
        self.assertEqual(from_toml, made)
        self.assertEqual(from_json, made)

    def test_a_relative_quota_path_begins_in_the_files_folder(self) -> None:
        """The path of the quota file does not depend on the folder the program was started in; an absolute one stays."""
        for given, expected in (("q.db", str(self.folder / "q.db")), ("/x/q.db", "/x/q.db")):
            made, _ = config_file.load_config(self.write(f'quota = {{store = "sqlite", path = "{given}"}}'))
            self.assertEqual(made.quota.path, expected)

    def test_a_byte_order_mark_is_accepted(self) -> None:
        """A file that an editor began with a BOM is read, TOML and JSON."""
        for name, text in (("c.toml", 'policy = "cost_first"'), ("c.json", '{"policy": "cost_first"}')):
            made, _ = config_file.load_config(self.write(b"\xef\xbb\xbf" + text.encode(), name))
            self.assertEqual(made.policy, "cost_first")

    def test_an_unusable_file_is_said_in_words(self) -> None:
        """Missing, folder, FIFO, wrong ending, bad syntax, not UTF-8, too deep, too large: one problem with the path each."""
        fifo = self.folder / "fifo.toml"
        os.mkfifo(fifo)
        deep = "[" * 100_000
        rows: list[tuple[object, str]] = [
            (self.folder / "missing.toml", "does not exist"),
            (self.folder, "is a folder"),
            (fifo, "is not a regular file"),
            ("/dev/zero", "is not a regular file"),
            (self.write("x", "c.yaml"), "must be .toml or .json"),
            (self.write("a = \n"), "line 1"),
            (self.write('{"a": 1,\n\n  "b" 2}', "bad.json"), "line 3"),
            (self.write("", "empty.json"), "line 1"),
            (self.write('{"max_wait": ' + "9" * 5000 + "}", "digits.json"), "not valid JSON"),
            (self.write(b'a = "\xff"', "latin.toml"), "byte 5"),
            (self.write(deep, "deep.json"), "nested too deeply"),
            (self.write("a = " + deep, "deep.toml"), "nested too deeply"),
            (self.write("#" * (config_file.MAX_FILE_BYTES + 1), "large.toml"), "larger than"),
            ("a\0b.toml", "is not the path"),
            (None, "must be a string or a Path"),
            (5, "must be a string or a Path"),
        ]
        for path, words in rows:
            with self.subTest(words=words, path=str(path)[-20:]):
                (problem,) = self.problems(path)
                self.assertIn(words, problem)

    def test_a_file_without_permission_is_said_in_words(self) -> None:
        """A file that may not be read is a ConfigError with the system's words."""
        path = self.write("")
        with mock.patch("builtins.open", side_effect=PermissionError(13, "Permission denied")):
            (problem,) = self.problems(path)
        self.assertIn("cannot be read: Permission denied", problem)

    def test_json_is_read_strictly(self) -> None:
        """A key given twice, NaN and Infinity are refused, together with what else is wrong."""
        text = '{"max_wait": NaN, "timeout": Infinity, "allow_paid": 5, "accounts": [{"id": "a", "id": "b", "provider": "p"}]}'
        found = self.problems(self.write(text, "c.json"))
        for words in ("NaN", "Infinity", "the key 'id' twice", "allow_paid: must be true or false"):
            self.assertEqual(sum(words in problem for problem in found), 1, words)
        (only,) = self.problems(self.write('{"policy": "free_first", "policy": "cost_first"}', "c.json"))
        self.assertIn("the key 'policy' twice", only)

    def test_a_key_that_others_can_read_is_warned_about(self) -> None:
        """A literal key in a file with group or other read permission gives a warning; a variable or mode 0600 does not."""
        literal = f'[[accounts]]\nprovider = "p"\nid = "a"\nauth.api_key = "{KEY}"\n'
        rows = [
            (literal, 0o644, True),
            (literal, 0o640, True),
            (literal, 0o604, True),
            (literal, 0o600, False),
            (literal.replace(KEY, "${K}"), 0o644, False),
            (literal.replace(KEY, "${K:-" + KEY + "}"), 0o644, True),
            (literal.replace(KEY, "sk-${K}"), 0o644, True),
            (literal.replace(KEY, "${K}-sk"), 0o644, True),
            (literal.replace(KEY, "${K}${K}"), 0o644, False),
            (literal.replace(KEY, ""), 0o644, False),
        ]
        for text, mode, warned in rows:
            with self.subTest(mode=oct(mode), text=text[-20:]):
                path = self.write(text, mode=mode)
                _, warnings = config_file.load_config(path, env={"K": "x"})
                self.assertEqual(len(warnings), int(warned))
                self.assertNotIn(KEY, "".join(warnings))

    def test_no_key_shows_when_a_file_is_refused(self) -> None:
        """Neither text, attributes, context nor locals of any frame of a refusal hold a key of the file or environment."""
        texts = [
            f'[[accounts]]\nprovider = "p"\nid = "a"\nauth.api_key = "{KEY}"\nheaders = {{X = "{KEY}\\n"}}\n',
            '[[accounts]]\nprovider = "p"\nid = 5\nauth.api_key = "${K}"\nheaders = {X-Key = "Bearer ${K}"}\n',
            f'auth = "{KEY}"\n[[accounts]]\nauth = "{KEY}"\n',
            f'a = "{KEY}',
        ]
        for text in texts:
            path = self.write(text)
            with self.subTest(text=text[:50]), mock.patch.dict(os.environ, {"K": KEY}):
                for env in (None, {"K": KEY}):
                    error = refusal(config_file.load_config, path, env=env)
                    self.assertNotIn(KEY, shown(error))
                    self.assertIsNone(error.__context__)
        as_json = self.write(json.dumps({"accounts": [{"auth": {"api_key": KEY}}]}), "keyed.json")
        error = refusal(config_file.load_config, as_json, env={"K": KEY})
        self.assertNotIn(KEY, shown(error))

    def test_the_old_configuration_stays_when_a_new_one_is_bad(self) -> None:
        """Loading has no effect but its result: a refused file leaves a loaded configuration as it was."""
        first, _ = config_file.load_config(self.write('policy = "cost_first"'))
        self.problems(self.write("policy = 5"))
        self.assertEqual(first.policy, "cost_first")


class CloseVariables(FileCase):
    def test_another_providers_key_is_not_asked_after(self) -> None:
        """A known provider's variable is told with its own in small letters, never with another provider's."""
        pairs = [("GROQ_API_KEY", "GROK_API_KEY"), ("XAI_API_KEY", "ZAI_API_KEY"), ("GROK_API_KEY_2", "GROQ_API_KEY_2")]
        pairs += [("GROQ_API_KEY", "grok_api_key")]
        for missing, other in [*pairs, *(pair[::-1] for pair in pairs)]:
            text = f'[[accounts]]\nprovider = "p"\nid = "a"\nbase_url = "https://h/"\nauth = {{ api_key = "${{{missing}}}" }}\n'
            begin = f"accounts[0].auth.api_key: the environment variable {missing} is not set"
            path, known = self.write(text), catalog.KEY_VARIABLES
            with self.subTest(missing):
                self.assertEqual(self.problems(path, env={other: KEY}, key_variables=known), [f"{begin}{OR_OPTIONAL}"])
                near = self.problems(path, env={other: KEY, missing.swapcase(): KEY}, key_variables=known)
                self.assertEqual(near, [f"{begin} (did you mean {missing.swapcase()}?){OR_OPTIONAL}"])

    def test_the_catalogs_variables_are_handed_in(self) -> None:
        """A router and a command that read a file know which variables are another provider's."""
        path = self.write('[[accounts]]\nprovider = "groq"\nid = "a"\nauth = { api_key = "${GROQ_API_KEY}" }\n')
        with mock.patch.dict(os.environ, {"GROK_API_KEY": KEY}):
            os.environ.pop("GROQ_API_KEY", None)
            for read in (ir.Router.from_file, part("cli_common").loaded):
                with self.assertRaises(errors.ConfigError) as caught:
                    read(path)
                self.assertNotIn("did you mean", str(caught.exception))


class Variables(unittest.TestCase):
    def test_variables_are_put_into_strings(self) -> None:
        """Set, default, empty, literal dollars, several in one text: each gives the text that the row says."""
        env = {"A": "one", "E": "", "R": "${A}"}
        rows = [
            ("${A}", "one"),
            ("x${A}y${A}", "xoneyone"),
            ("${N:-two}", "two"),
            ("${E:-two}", "two"),
            ("${A:-two}", "one"),
            ("$${A}", "${A}"),
            ("$$${A}", "$one"),
            ("$A $5", "$A $5"),
            ("${R}", "${A}"),
            ("${N:-$A}", "$A"),
        ]
        for text, expected in rows:
            with self.subTest(text=text):
                made, _ = load({"default_model": text}, env)
                self.assertEqual(made.default_model, expected)

    def test_variables_are_put_into_values_only(self) -> None:
        """A key that looks like a variable stays as it is; nested values are reached."""
        made, _ = load(account(capabilities={"${A}": ["${A}"]}), {"A": "text"})
        self.assertEqual(made.accounts[0].capabilities, {"${A}": ("text",)})

    def test_a_missing_variable_is_named_with_its_path(self) -> None:
        """Each missing variable is one problem that names it, where it stands and what to do; nothing else follows from it."""
        data = account(auth={"api_key": "${K}"}, base_url="https://${H}/", daily_free="${N}") | {
            "models": [{"alias": "${M}", "models": [{"provider": "p", "model": "${M}"}]}]
        }
        expected = [
            f"accounts[0].auth.api_key: the environment variable K is not set{OR_OPTIONAL}",
            f"accounts[0].base_url: the environment variable H is not set{OR_OPTIONAL}",
            f"accounts[0].daily_free: the environment variable N is not set{OR_OPTIONAL}",
            "models[0].alias: the environment variable M is not set; set it, or write ${M:-default}",
            "models[0].models[0].model: the environment variable M is not set; set it, or write ${M:-default}",
        ]
        self.assertEqual(sorted(table_problems(data, known=("p",))), sorted(expected))

    def test_a_missing_variable_is_told_with_one_of_a_close_name(self) -> None:
        """A variable that is set and has nearly the name is asked after, its value not shown; empty and other ones are not."""
        data = account(auth={"api_key": "${GEMINI_API_KY}"})
        begin = "accounts[0].auth.api_key: the environment variable GEMINI_API_KY is not set"
        near = {"GROQ_API_KEY": "q", "GEMINI_API_KEY": KEY}
        self.assertEqual(table_problems(data, near), [f"{begin} (did you mean GEMINI_API_KEY?){OR_OPTIONAL}"])
        for env in ({"GEMINI_API_KEY": ""}, {"GROQ_API_KEY": "q", "GEMINI_API_KEY_2": KEY}):
            self.assertEqual(table_problems(data, env), [f"{begin}{OR_OPTIONAL}"])
        data["accounts"][0]["optional"] = True
        _, (warning,) = load(data, near)
        self.assertEqual(warning, f"{begin} (did you mean GEMINI_API_KEY?), so this optional account is left out")

    def test_an_empty_key_is_a_missing_one(self) -> None:
        """An empty variable is a problem for a key unless an empty default is written, and none for other settings."""
        (found,) = table_problems(account(auth={"api_key": "${K}"}), {"K": ""})
        self.assertEqual(found, f"accounts[0].auth.api_key: the environment variable K is empty{OR_OPTIONAL}")
        for env in ({}, {"K": ""}):
            made, _ = load(account(auth={"api_key": "${K:-}"}), env)
            self.assertFalse(made.accounts[0].auth.api_key)
        made, _ = load({"default_model": "${K}"}, {"K": ""})
        self.assertEqual(made.default_model, "")

    def test_a_broken_variable_is_refused(self) -> None:
        """What begins like a variable and is none is one problem, not passed on as text."""
        for text in ("${", "${A", "${A-b}", "${1}", "${}", "x ${A b}"):
            with self.subTest(text=text):
                (found,) = table_problems({"default_model": text}, {"A": "x"})
                self.assertTrue(found.startswith("default_model: has '${'"), found)

    def test_the_line_break_after_a_key_is_left_out_and_told(self) -> None:
        """A key from a file that ends in a line break works, with a warning; one inside the key is refused."""
        made, (warning,) = load(account(auth={"api_key": "${K}"}), {"K": KEY + "\r\n"})
        self.assertEqual(made.accounts[0].auth.api_key.reveal(), KEY)
        self.assertTrue(warning.startswith("accounts[0].auth.api_key: "), warning)
        (found,) = table_problems(account(auth={"api_key": "${K}"}), {"K": "a\nb"})
        self.assertTrue(found.startswith("accounts[0].auth.api_key: "), found)

    def test_an_optional_account_without_its_variable_is_left_out(self) -> None:
        """It is gone with a warning that names the variable; paths of the others keep their number in the file."""
        tables: list[dict[str, Any]] = [
            {"provider": "p", "id": "a", "optional": True, "auth": {"api_key": "${K}"}},
            {"provider": "p", "id": "b", "optional": True, "auth": {"api_key": "${SET}"}},
            {"provider": "p", "id": "c"},
        ]
        made, (warning,) = load({"accounts": tables}, {"SET": "x"})
        self.assertEqual([each.id for each in made.accounts], ["b", "c"])
        self.assertTrue(warning.startswith("accounts[0].auth.api_key: the environment variable K"), warning)
        tables[2] |= {"daily_free": -1, "id": "b"}
        found = table_problems({"accounts": tables}, {"SET": "x"})
        self.assertEqual(found[0], "accounts[2].daily_free: must not be negative")
        self.assertEqual(found[1], "accounts[2].id: 'b' is already the id of accounts[1]")

    def test_a_table_in_place_of_a_list_says_how_to_write_one(self) -> None:
        """[accounts] for [[accounts]], and a name where a step of an alias stands, are told with what to write."""
        found = table_problems({"accounts": {"provider": "p"}, "models": [{"alias": "m", "models": ["p/m"]}]}, {})
        self.assertEqual(
            found,
            [
                "accounts: must be a list of tables, not a table; in TOML each begins with [[accounts]]",
                'models[0].models[0]: must be a table such as { provider = "...", model = "..." }, not a string',
            ],
        )

    def test_an_optional_account_is_still_checked(self) -> None:
        """Being left out does not hide an unknown key, and only a plain true makes an account optional."""
        found = f"accounts[0].auth.api_key: the environment variable K is not set{OR_OPTIONAL}"
        self.assertIn(found, table_problems(account(optional="no", auth={"api_key": "${K}"})))
        (found,) = table_problems(account(optional=True, auth={"api_key": "${K}"}, limts={}))
        self.assertIn("'limits'", found)

    def test_a_header_with_a_variable_is_a_secret(self) -> None:
        """What a variable put into a header does not show, with or without a scheme or blanks; a plain header stays text."""
        headers = {"X-A": "Bearer ${K}", "X-B": "${WHOLE}", "X-C": "${K}", "X-Title": "my app", "X-D": "${NAME}"}
        made, _ = load(account(headers=headers), {"K": KEY, "WHOLE": f"Bearer {KEY}", "NAME": "two words"})
        found = made.accounts[0].headers
        self.assertEqual([found[name].reveal() for name in ("X-A", "X-B", "X-C")], [f"Bearer {KEY}"] * 2 + [KEY])
        self.assertEqual([found[name].erase_from(f"<{KEY}>") for name in ("X-A", "X-B", "X-C")], ["<***>"] * 3)
        self.assertEqual((found["X-Title"], found["X-D"].reveal()), ("my app", "two words"))
        for shown in (KEY, "two words"):
            self.assertNotIn(shown, repr(found) + repr(made))

    def test_a_credential_as_plain_text_is_a_secret(self) -> None:
        """A header that names a credential is kept as a secret, and its file must be the owner's alone."""
        for name, text in {"Authorization": f"Bearer {KEY}", "api-key": KEY, "Cookie": f"a={KEY}; b=c"}.items():
            with self.subTest(name):
                reader = config_file.TableReader({})
                reader.build(account(headers={name: text}))
                made, _ = reader.result()
                self.assertEqual(made.accounts[0].headers[name].reveal(), text)
                self.assertNotIn(KEY, repr(dict(made.accounts[0].headers)))
                self.assertTrue(reader.holds_key)
        reader = config_file.TableReader({})
        reader.build(account(headers={"X-Title": "my app"}))
        self.assertFalse(reader.holds_key)
        self.assertEqual(reader.result()[0].accounts[0].headers["X-Title"], "my app")

    def test_the_process_environment_is_the_default(self) -> None:
        """Without `env`, variables come from os.environ."""
        with mock.patch.dict(os.environ, {"INFERROUTER_TEST_WORD": "fast"}):
            made, _ = parse_config({"default_model": "${INFERROUTER_TEST_WORD}"})
        self.assertEqual(made.default_model, "fast")


class Tables(unittest.TestCase):
    def test_an_unknown_key_is_answered_with_the_nearest(self) -> None:
        """On every level a key that nobody knows is a problem with its path and the nearest known one."""
        step = {"provider": "p", "model": "m"}
        rows: list[tuple[dict[str, Any], str, str]] = [
            ({"allow_payed": True}, "allow_payed", "allow_paid"),
            ({"account": []}, "account", "accounts"),
            (account(daily_fre=5), "accounts[0].daily_fre", "daily_free"),
            (account(api_key="x"), "accounts[0].api_key", "auth.api_key"),
            (account(auth={"apikey": "x"}), "accounts[0].auth.apikey", "api_key"),
            ({"quota": {"stor": "memory"}}, "quota.stor", "store"),
            ({"models": [{"alias": "a", "models": [step], "aliass": 1}]}, "models[0].aliass", "alias"),
            ({"models": [{"alias": "a", "models": [step | {"modl": 1}]}]}, "models[0].models[0].modl", "model"),
        ]
        for data, path, right in rows:
            with self.subTest(path):
                (found,) = table_problems(data)
                self.assertTrue(found.startswith(f"{path}: unknown key"), found)
                self.assertIn(f"did you mean {right!r}", found)

    def test_a_wrong_kind_of_value_is_one_problem(self) -> None:
        """Where a table or list belongs and something else stands, that is said once, with its path."""
        rows: list[tuple[object, str]] = [
            ([], "the configuration"),
            (None, "the configuration"),
            ({"accounts": {}}, "accounts"),
            ({"accounts": "a"}, "accounts"),
            ({"accounts": ["a"]}, "accounts[0]"),
            ({"models": [5]}, "models[0]"),
            ({"models": [{"alias": "a", "models": "m"}]}, "models[0].models"),
            ({"models": [{"alias": "a", "models": ["p/m"]}]}, "models[0].models[0]"),
            ({"quota": "sqlite"}, "quota"),
            (account(auth="x"), "accounts[0].auth"),
            (account(auth={"api_key": 5}), "accounts[0].auth.api_key"),
            (account(headers=["x"]), "accounts[0].headers"),
            (account(daily_free="1500"), "accounts[0].daily_free"),
            (account(limits=[1]), "accounts[0].limits"),
            ({"policy": ["free_first"]}, "policy"),
        ]
        for data, path in rows:
            with self.subTest(path, data=str(data)[:60]):
                (found,) = table_problems(data)
                self.assertEqual(found.partition(": ")[0], path)

    def test_a_missing_key_is_said_once(self) -> None:
        """What a table must have and has not is a problem with its path."""
        found = table_problems({"accounts": [{}], "models": [{}, {"alias": "a", "models": [{}]}]}, known=("x",))
        expected = ["accounts[0].id", "accounts[0].provider", "models[0].alias", "models[0].models"]
        expected += ["models[1].models[0].model", "models[1].models[0].provider"]
        self.assertEqual(sorted(f"{path}: is missing" for path in expected), sorted(found))

    def test_nothing_but_a_configuration_or_a_refusal_comes_out(self) -> None:
        """Any odd value in any place of a full configuration is accepted or a ConfigError, never another exception."""
        import tomllib

        full = tomllib.loads(FULL)
        odd: list[Any] = [
            None,
            True,
            -1,
            math.nan,
            10**400,
            "",
            "${A}",
            "\ud800",
            b"x",
            [],
            {},
            [["x"]],
            {"": ""},
            {5: [5]},
            {"x"},
        ]
        odd += [object(), datetime.date(2020, 1, 1), -0.0]
        for number, path in enumerate(places(full)):
            for value in odd if LONG else odd[number % 3 :: 3]:
                with self.subTest(path=path, value=repr(value)[:30]):
                    table_problems(replaced(full, path, value), {"A": "x", "GEMINI_KEY": "x"}, ("gemini",))

    def test_nesting_without_end_is_refused(self) -> None:
        """A table that holds itself is a problem, not a RecursionError."""
        endless: dict[str, Any] = {}
        endless["x"] = endless
        found = table_problems(account(limits=endless))
        self.assertIn("nested too deeply", found[0])

    def test_faults_of_all_levels_come_in_one_error(self) -> None:
        """Unknown keys, missing variables, wrong values and unknown providers are listed together."""
        data = account(provider="gemni", auth={"api_key": "${K}"}, daily_free=True) | {"polcy": "x"}
        paths = [problem.partition(": ")[0] for problem in table_problems(data, known=("gemini",))]
        expected = ["accounts[0].auth.api_key", "accounts[0].daily_free", "accounts[0].provider", "polcy"]
        self.assertEqual(sorted(paths), expected)

    def test_known_providers_and_base_urls_are_fine(self) -> None:
        """A known provider needs no base_url, an unknown one with base_url is accepted, and no list means any."""
        known = ("gemini",)
        self.assertEqual(table_problems(account(provider="gemini"), known=known), [])
        self.assertEqual(table_problems(account(base_url="https://x.example/v1"), known=known), [])
        self.assertEqual(table_problems(account()), [])


class Urls(unittest.TestCase):
    def test_a_url_for_a_path(self) -> None:
        """A server's URL in the place of a file is told as such, and the password in it is not repeated."""
        url = "redis://user:hunter2hunter2@host/0"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "router.toml")
            file.write_text(f'[quota]\nstore = "sqlite"\npath = "{url}"\n', "utf-8")
            for make in (lambda: ir.Router.from_file(file), lambda: ir.SQLiteQuotaStore(url)):
                with self.assertRaisesRegex(ir.ConfigError, "quota.path: is a URL, but this setting names a file") as caught:
                    make()
                self.assertNotIn("hunter2", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
