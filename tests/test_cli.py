"""The command line: what each command prints, its exit code, and that every failure is words that help."""

from __future__ import annotations

import io
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from tests import PACKAGE, ir, part
from tests.commands import FOLDER, Ran, finish, run, start

simulator = part("simulator")
KEY = "sk-right-0123456789"
WRONG = "sk-wrong-0123456789"


class CommandTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def file(self, text: str, name: str = "router.toml") -> str:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return str(path)

    def config(self, base_url: str, key: str = KEY, head: str = "") -> str:
        return self.file(
            f"""{head}
default_model = "fast"
[[models]]
alias = "fast"
models = [{{ provider = "local", model = "small" }}]
[[accounts]]
provider = "local"
id = "desk"
base_url = "{base_url}"
auth = {{ api_key = "{key}" }}
daily_free = 10
"""
        )

    def failed(self, ran: Ran, pattern: str) -> None:
        """It ended with 1, nothing on stdout, and one line on stderr that matches and holds no key."""
        self.assertEqual((ran.code, ran.out), (1, ""))
        self.assertRegex(ran.err, pattern)
        self.assertEqual(ran.err.count("\n"), 1)
        for key in (KEY, WRONG):
            self.assertNotIn(key, ran.err)


class HelpTest(CommandTest):
    def test_bare(self) -> None:
        """Without a command it prints help and succeeds."""
        ran = run()
        self.assertEqual((ran.code, ran.err), (0, ""))
        for word in (f"usage: python3 -m {PACKAGE}", "demo", "check", "ask", "status"):
            self.assertIn(word, ran.out)

    def test_version(self) -> None:
        """--version prints the package's."""
        self.assertEqual(run("--version"), Ran(0, f"{PACKAGE} {ir.__version__}\n", ""))

    def test_misuse(self) -> None:
        """An unknown command and a missing argument are misuse, told on stderr with 2."""
        for words in (("bogus",), ("ask",), ("ask", "--max-wait", "soon", "hi"), ("status", "extra"), ("--bogus",)):
            with self.subTest(words=words):
                ran = run(*words)
                self.assertEqual((ran.code, ran.out), (2, ""))
                self.assertIn("usage:", ran.err)

    def test_words_that_a_command_does_not_take(self) -> None:
        """They are refused with the usage of that command, and an option that is nearly one of its own with that one."""
        for words, said in (
            (("ask", "--modle", "fast", "hi"), "unrecognized arguments: --modle (did you mean --model?)"),
            (("ask", "--max_wiat=3", "hi"), "unrecognized arguments: --max_wiat=3 (did you mean --max-wait?)"),
            (("--json", "ask", "hi"), "unrecognized arguments: --json (--json goes after the command)"),
            (("merge", "x", "-o", "y", "--bogus"), "unrecognized arguments: --bogus"),
            (("batch", "x", "-o", "y", "--promt", "z"), "unrecognized arguments: --promt z (did you mean --prompt?)"),
            (("providers", "gemini"), "unrecognized arguments: gemini"),
        ):
            with self.subTest(words):
                ran = run(*words)
                name = f"python3 -m {PACKAGE} {next(word for word in words if not word.startswith('-'))}"
                self.assertEqual((ran.code, ran.out), (2, ""))
                self.assertTrue(ran.err.startswith(f"usage: {name} [-h]"), ran.err)
                self.assertTrue(ran.err.endswith(f"{name}: error: {said}\n"), ran.err)
        self.assertIn("--versoin (did you mean --version?)", run("--versoin").err)

    def test_only_options_of_the_command_are_meant(self) -> None:
        """An option in the help's prose is none of the command's own, and a narrow terminal tears no name."""
        self.assertNotIn("did you mean", run("--liv").err)
        with mock.patch.dict(os.environ, {"COLUMNS": "20"}):
            self.assertIn("(did you mean --max-tokens?)", run("ask", "--max-toknes=3", "hi").err)

    def test_as_a_process(self) -> None:
        """`python3 -m` of the package runs it, with the exit code of the command."""
        ran = finish(start("check", "nowhere.toml"))
        self.assertEqual((ran.code, ran.err), (1, ""))
        self.assertIn("nowhere.toml: 1 problem\n", ran.out)

    def test_a_copied_folder(self) -> None:
        """A copy of the folder under another name runs and calls itself by that name."""
        shutil.copytree(FOLDER, self.folder / "routes")
        ran = finish(start(package="routes", folder=self.folder))
        self.assertEqual((ran.code, ran.err), (0, ""))
        self.assertIn("usage: python3 -m routes", ran.out)

    def test_nothing_heavy_before_it_runs(self) -> None:
        """Importing the command line and its entry point runs nothing and loads neither argparse nor the demo."""
        names = [f"{PACKAGE}.demo", "argparse", "urllib.request", "sqlite3"]
        code = f"import sys, {PACKAGE}.__main__; print([name for name in {names} if name in sys.modules])"
        python = [sys.executable, "-S", "-c", code]
        self.assertEqual(subprocess.check_output(python, cwd=FOLDER.parent, text=True), "[]\n")

    def test_a_command_loads_its_own_module(self) -> None:
        """Help, the version and a typo load no command and no router; a command loads its own module and no other's."""
        shown = f"print(*sorted(name for name in sys.modules if name.startswith('{PACKAGE}.')))"
        code = f"import sys; from {PACKAGE}.cli import main; main(sys.argv[1:]); {shown}"
        command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(FOLDER.parent)!r}); {code}"]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        families = {module for module, _ in part("cli").COMMANDS.values()}
        wanted = {
            "--version": (),
            "--help": (),
            "merg": (),
            "merge x -o y": ("batch",),
            "init a.b": ("init",),
        }
        running = [subprocess.Popen([*command, *words.split()], cwd=self.folder, **pipes) for words in wanted]
        for process, (words, own) in zip(running, wanted.items(), strict=True):
            out, err = process.communicate(timeout=60)
            with self.subTest(words):
                self.assertEqual(process.returncode, 0, err)
                found = {name.partition(".")[2] for name in out.splitlines()[-1].split()}
                self.assertEqual(found & families, {f"cli_{name}" for name in own})
                others = {"simulator", "serve_endpoint"} | (set() if own else {"router", "config"})
                self.assertEqual(found & others, set())

    def test_the_table_and_the_modules_agree(self) -> None:
        """Every command of the table is made by its module, and every module's commands stand in the table."""
        made = {f"{module}.add_{name}" for name, (module, _) in part("cli").COMMANDS.items()}
        families = {module for module, _ in part("cli").COMMANDS.values()}
        self.assertEqual(
            made,
            {
                f"{module}.{name}"
                for module in families
                for name in vars(part(module))
                if name.startswith("add_") and name not in ("add_config", "add_json", "add_paid")
            },
        )

    def test_the_entry_point(self) -> None:
        """Running the package as a module ends with the command's exit code."""
        with mock.patch.object(sys, "argv", [PACKAGE, "--version"]), redirect_stdout(io.StringIO()) as out:
            with self.assertRaises(SystemExit) as ended:
                runpy.run_module(PACKAGE, run_name="__main__", alter_sys=True)
        self.assertEqual((ended.exception.code, out.getvalue()), (0, f"{PACKAGE} {ir.__version__}\n"))

    @unittest.skipIf(os.name != "posix", "broken pipes as POSIX has them")
    def test_a_reader_that_goes_away(self) -> None:
        """A pipe without a reader ends a command with 1 and without a word, and its last flush goes nowhere."""
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w", encoding="utf-8") as out, redirect_stdout(out), redirect_stderr(io.StringIO()) as err:
            self.assertEqual(part("cli").main(["check", self.config("http://127.0.0.1:9")]), 1)
            out.write("more, to nobody")
        self.assertEqual(err.getvalue(), "")

    def test_ctrl_c(self) -> None:
        """Ctrl-C in any command is 130 and one word."""
        with mock.patch.object(part("demo"), "run_demo", side_effect=KeyboardInterrupt):
            self.assertEqual(run("demo"), Ran(130, "", "\ninterrupted\n"))


class CheckTest(CommandTest):
    def test_fine(self) -> None:
        """A good file is fine, and each alias is shown with who would serve it."""
        file = self.config("http://127.0.0.1:9/v1")
        ran = run("check", file)
        self.assertEqual((ran.code, ran.err), (0, ""))
        self.assertIn("fast:\n  1. local/desk small: free, 100% left\n", ran.out)
        self.assertTrue(ran.out.endswith(f"{file}: fine\n"))
        self.assertNotIn(KEY, ran.out)

    def test_a_typo(self) -> None:
        """A misspelled key and a wrong type are both listed, with paths and the nearest known key."""
        ran = run("check", self.config("http://127.0.0.1:9/v1", head='alow_paid = true\nmax_wait = "soon"'))
        self.assertEqual((ran.code, ran.err), (1, ""))
        self.assertIn("2 problems", ran.out)
        self.assertRegex(ran.out, r"(?m)^  - alow_paid: .*allow_paid")
        self.assertRegex(ran.out, r"(?m)^  - max_wait: ")
        self.assertNotIn(KEY, ran.out)

    def test_no_such_file(self) -> None:
        """A path in an empty folder is a problem that says to check the path."""
        ran = run("check", str(self.folder / "router.toml"))
        self.assertEqual(ran.code, 1)
        self.assertIn("does not exist; check the path", ran.out)

    def test_warnings(self) -> None:
        """What is legal but surprising is shown, and is not a failure."""
        text = Path(self.config("http://127.0.0.1:9")).read_text(encoding="utf-8")
        ran = run("check", self.file(text + "paid_enabled = true\n"))
        self.assertEqual(ran.code, 0)
        self.assertRegex(ran.out, r"(?m)^  ! accounts\[0\]\.paid_enabled: ")

    def test_an_alias_that_nobody_can_serve(self) -> None:
        """An alias whose only account is paid while paid is not allowed fails the check, with the reason."""
        file = self.config("http://127.0.0.1:9/v1")
        text = Path(file).read_text(encoding="utf-8").replace("daily_free = 10", "paid_enabled = true")
        ran = run("check", self.file(text))
        self.assertEqual(ran.code, 1)
        self.assertIn("local/desk (small): it is a paid account, and allow_paid is false", ran.out)
        self.assertIn("nothing can serve fast; add an account", ran.out)

    def test_it_writes_nothing(self) -> None:
        """A check makes no quota file."""
        text = Path(self.config("http://127.0.0.1:9")).read_text(encoding="utf-8")
        ran = run("check", self.file(f'{text}\n[quota]\nstore = "sqlite"\npath = "quota.sqlite"\n'))
        self.assertEqual(ran.code, 0)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["router.toml"])


class AskTest(CommandTest):
    def served(self, **settings: Any) -> Any:
        return self.enterContext(simulator.Simulator("openai", keys=[KEY], **settings))

    def test_an_answer(self) -> None:
        """The answer is all there is on stdout; who gave it is on stderr."""
        file = self.config(self.served().base_url)
        ran = run("ask", "--config", file, "What", "is", "2+2?")
        self.assertEqual((ran.code, ran.out), (0, "2 + 2 = 4.\n"))
        self.assertRegex(ran.err, r"^\[local/desk small: \d+ tokens, free\]\n$")

    def test_a_stream(self) -> None:
        """--stream prints the same answer."""
        file = self.config(self.served(chunk_words=1).base_url)
        ran = run("ask", "--config", file, "--stream", "What is 2+2?")
        self.assertEqual((ran.code, ran.out), (0, "2 + 2 = 4.\n"))
        self.assertRegex(ran.err, r"^\[local/desk small: \d+ tokens, free\]\n$")

    def test_from_stdin(self) -> None:
        """- reads the question from stdin."""
        file = self.config(self.served().base_url)
        self.assertEqual(run("ask", "--config", file, "-", stdin="What is 2+2?\n").out, "2 + 2 = 4.\n")

    def test_what_stdin_cannot_be(self) -> None:
        """Bytes that are not text are refused with the place where they stop being text."""
        file = self.config(self.served().base_url)
        with io.TextIOWrapper(io.BytesIO(b"ab\xff"), encoding="utf-8") as stdin:
            out, err = io.StringIO(), io.StringIO()
            with mock.patch.object(sys, "stdin", stdin), redirect_stdout(out), redirect_stderr(err):
                code = part("cli").main(["ask", "--config", file, "-"])
        self.failed(Ran(code, out.getvalue(), err.getvalue()), "not utf-8 text at byte 2")

    def test_a_model(self) -> None:
        """--model is used as it is."""
        sim = self.served()
        self.assertEqual(run("ask", "--config", self.config(sim.base_url), "--model", "local/large", "hi").code, 0)
        self.assertEqual(sim.log[-1].model, "large")

    def test_an_unknown_model(self) -> None:
        """A misspelled alias is an error that names the nearest and the option, where it can be no model's name."""
        text = Path(self.config(self.served().base_url)).read_text(encoding="utf-8")
        other = '[[accounts]]\nprovider = "other"\nid = "other"\nbase_url = "http://127.0.0.1:9"\n'
        ran = run("ask", "--config", self.file(text + other), "--model", "fasst", "hi")
        self.failed(ran, "unknown model 'fasst' \\(did you mean 'fast'\\?\\); known: fast, .*--model")

    def test_a_wrong_key(self) -> None:
        """A key that the provider refuses is said in one line that points to api_key and does not show it."""
        ran = run("ask", "--config", self.config(self.served().base_url, key=WRONG), "hi")
        self.failed(ran, r"local/desk \(small\) answered 401: .*Check this account's auth.api_key")

    def test_a_wrong_key_for_a_stream(self) -> None:
        """The same for a stream."""
        ran = run("ask", "--stream", "--config", self.config(self.served().base_url, key=WRONG), "hi")
        self.failed(ran, "answered 401: .*auth.api_key")

    def test_a_cut_stream(self) -> None:
        """What came of a stream that breaks off stays on stdout, and the break is an error."""
        sim = self.served(chunk_words=1)
        sim.script([simulator.Fault("cut")])
        ran = run("ask", "--stream", "--config", self.config(sim.base_url), "hello")
        self.assertEqual(ran.code, 1)
        self.assertTrue(ran.out.startswith("Hello!"))
        self.assertIn("the stream broke off after", ran.err)

    def test_nobody_listens(self) -> None:
        """A refused port is one line that says what to check."""
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]
        ran = run("ask", "--config", self.config(f"http://127.0.0.1:{port}/v1"), "hi")
        self.failed(ran, f"no connection to 127.0.0.1:{port}.*check base_url and the network")

    def test_no_keys(self) -> None:
        """Without a file and without keys it says which variables to set."""
        self.failed(run("ask", "hi"), "set one first, such as GEMINI_API_KEY .* --config")

    def test_no_model(self) -> None:
        """Without a model it says how to name one, or with a paid key alone what that costs; and shows no key."""
        file = self.file('[[accounts]]\nprovider = "local"\nid = "desk"\nbase_url = "http://127.0.0.1:9/v1"\n')
        self.failed(run("ask", "--config", file, "hi"), "names no model.*--model")
        self.failed(run("ask", "hi", env={"OPENAI_API_KEY": KEY}), "it is a paid account.*--paid")

    def test_a_bad_file(self) -> None:
        """Several problems of a file become one line."""
        file = self.config("http://127.0.0.1:9/v1", head='alow_paid = true\nmax_wait = "soon"')
        self.failed(run("ask", "--config", file, "hi"), "alow_paid: .*; max_wait: ")

    def test_control_characters(self) -> None:
        """An answer cannot send escape codes to the terminal."""
        sim = self.served(reply=lambda question: "a\x1b[2Jb\x07\u009bc\n\td")
        for options in ([], ["--stream"]):
            self.assertEqual(run("ask", *options, "--config", self.config(sim.base_url), "hi").out, "a[2Jbc\n\td\n")

    def test_the_second_attempt(self) -> None:
        """An answer that took more than one attempt says so, and a paid one its price."""
        with simulator.Simulator("openai", keys={WRONG: simulator.KeyLimits(rpm=0)}) as full:
            file = self.config(self.served().base_url)
            text = Path(file).read_text(encoding="utf-8")
            both = text.replace("[[accounts]]", _SPENT.format(full.base_url, WRONG), 1)
            ran = run("ask", "--config", self.file(both), "hi")
        self.assertRegex(ran.err, r"^\[local/desk small: \d+ tokens, free, attempt 2\]\n$")


_SPENT = """[[accounts]]
provider = "local"
id = "spent"
base_url = "{}"
auth = {{ api_key = "{}" }}
[[accounts]]"""


class CatalogTest(CommandTest):
    def test_every_row_is_shown(self) -> None:
        """Each known provider is shown with its address and key variables, each free limit with its date, each source."""
        ran = run("catalog")
        self.assertEqual((ran.code, ran.err), (0, ""))
        for row in part("catalog").PRESETS.values():
            for word in (row.name, row.base_url, *row.env, row.source, *(tier.as_of for tier in row.free)):
                self.assertIn(word, ran.out)


class StatusTest(CommandTest):
    def test_counts_of_a_file(self) -> None:
        """With a sqlite store, status shows what an earlier command has used."""
        with simulator.Simulator("openai", keys=[KEY]) as sim:
            text = Path(self.config(sim.base_url)).read_text(encoding="utf-8")
            file = self.file(f'{text}\n[quota]\nstore = "sqlite"\npath = "quota.sqlite"\n')
            self.assertEqual(run("ask", "--config", file, "hi").code, 0)
        ran = run("status", "--config", file)
        self.assertEqual((ran.code, ran.err), (0, ""))
        self.assertIn("local/desk", ran.out)
        self.assertIn("1 of 10 requests per day", ran.out)

    def test_counts_in_memory(self) -> None:
        """With a memory store it says that these counts begin with each program."""
        text = Path(self.config("http://127.0.0.1:9")).read_text(encoding="utf-8")
        ran = run("status", "--config", self.file(f'{text}\n[quota]\nstore = "memory"\n'))
        self.assertEqual(ran.code, 0)
        self.assertIn("0 of 10 requests per day", ran.out)
        self.assertIn('store = "sqlite" keeps them', ran.err)

    def test_an_unusable_store(self) -> None:
        """A quota file that is something else is one line, not a traceback."""
        text = Path(self.config("http://127.0.0.1:9")).read_text(encoding="utf-8")
        (self.folder / "quota.sqlite").write_text("no database, and long enough to see it" * 100, encoding="utf-8")
        file = self.file(f'{text}\n[quota]\nstore = "sqlite"\npath = "quota.sqlite"\n')
        self.failed(run("status", "--config", file), "quota.sqlite")


if __name__ == "__main__":
    unittest.main()
