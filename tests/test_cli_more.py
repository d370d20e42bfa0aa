"""What commands take and give besides their plain use: JSON, files, pipes; where a configuration is found, what is counted."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tests import PACKAGE, ir, part
from tests.commands import FOLDER, Ran, Terminal, finish, run, start

simulator = part("simulator")
KEY = "sk-right-0123456789"
TEXT = """
default_model = "local/small"
[[accounts]]
provider = "local"
id = "desk"
base_url = "{}"
auth = {{ api_key = "${{DESK_KEY}}" }}
daily_free = 10
limits = {{ rpm = 4 }}
"""


class WithServer(unittest.TestCase):
    """One stand-in provider, a configuration of it in a file, and folders that stand for the user's."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.sim = self.enterContext(simulator.Simulator("openai", keys=[KEY], reply=lambda question: f"<{question}>"))
        self.file = self.written("router.toml", TEXT.format(self.sim.base_url))
        self.env = {"DESK_KEY": KEY, "XDG_STATE_HOME": str(self.folder / "state"), "XDG_CONFIG_HOME": str(self.folder / "config")}

    def written(self, name: str, text: str) -> str:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return str(path)

    def run_ok(self, *argv: str, stdin: str = "", **env: str) -> Ran:
        ran = run(*argv, stdin=stdin, env=self.env | env)
        self.assertEqual(ran.code, 0, ran)
        self.assertNotIn(KEY, ran.out + ran.err)
        return ran

    def json_of(self, *argv: str, **more: Any) -> Any:
        return json.loads(self.run_ok(*argv, "--json", "--config", self.file, **more).out)


class Asking(WithServer):
    def test_text_and_stdin_together(self) -> None:
        """What is piped in comes after the words, with an empty line between."""
        self.assertEqual(self.run_ok("ask", "--config", self.file, "Sum up:", stdin="a\nb").out, "<Sum up:\n\na\nb>\n")

    def test_json(self) -> None:
        """--json holds the text, who gave it and what it used."""
        found = self.json_of("ask", "hi")
        self.assertEqual(found["text"], "<hi>")
        self.assertEqual(found["routing"]["account_id"], "desk")
        self.assertGreater(found["usage"]["total_tokens"], 0)

    def test_a_file_and_a_system_text(self) -> None:
        """A text file is sent as text under its name, a system text before the question."""
        notes = self.written("notes.md", "two and two")
        ran = self.run_ok("ask", "--config", self.file, "--system", "Be brief.", "--file", notes, "What?")
        self.assertEqual(" ".join(ran.out.split()), "<What? notes.md: two and two>")
        plain = self.sim.log[-1].prompt_tokens
        self.run_ok("ask", "--config", self.file, "--file", notes, "What?")
        self.assertLess(self.sim.log[-1].prompt_tokens, plain)

    def test_files_that_cannot_be_sent(self) -> None:
        """A missing file, and bytes that are not text, are one line that says what to do."""
        self.written("bad.txt", "")
        Path(self.folder, "bad.txt").write_bytes(b"ab\xff")
        for name, words in (("missing.txt", "check the path"), ("bad.txt", "not UTF-8 text at byte 2"), ("gone.png", "gone.png")):
            with self.subTest(name):
                ran = run("ask", "--config", self.file, "--file", str(self.folder / name), "x", env=self.env)
                self.assertEqual((ran.code, ran.out, ran.err.count("\n")), (1, "", 1))
                self.assertIn(words, ran.err)

    def test_a_picture_goes_to_who_takes_pictures(self) -> None:
        """A picture for a model that is not known to take any is refused with the remedy; where it is declared it is sent."""
        picture = self.written("dot.png", "")
        Path(picture).write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 20)
        ran = run("ask", "--config", self.file, "--image", picture, "What is it?", env=self.env)
        self.assertEqual(ran.code, 1)
        self.assertIn("capabilities", ran.err)
        text = Path(self.file).read_text("utf-8") + 'capabilities = ["image"]\n'
        able = self.written("able.toml", text)
        self.assertIn("What is it?", self.run_ok("ask", "--config", able, "--image", picture, "What is it?").out)

    def test_streams_on_a_terminal(self) -> None:
        """On a terminal the answer comes as it is written, elsewhere whole, unless the options say otherwise."""
        for out, options, streamed in ((Terminal(), [], True), (Terminal(), ["--no-stream"], False)):
            with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stdin", Terminal()):
                with mock.patch.dict(os.environ, self.env | {"NO_COLOR": "1"}), mock.patch.object(sys, "stderr", Terminal()):
                    self.assertEqual(part("cli").main(["ask", "--config", self.file, *options, "hi"]), 0)
            self.assertEqual(out.getvalue(), "<hi>\n")
            self.assertEqual(self.sim.log[-1].stream, streamed)
        self.run_ok("ask", "--config", self.file, "hi")
        self.assertFalse(self.sim.log[-1].stream)

    def test_explain_beside_the_answer(self) -> None:
        """--explain says on stderr who may serve; the answer alone is on stdout."""
        ran = self.run_ok("ask", "--config", self.file, "--explain", "hi")
        self.assertEqual(ran.out, "<hi>\n")
        self.assertIn("1. local/desk small: free", ran.err)


class Waiting(WithServer):
    def asked(self, err: io.StringIO) -> str:
        """What is said of a wait of about a second, after a 429 that asks for it. The clock moves when slept on."""
        ahead: list[float] = []
        wall, steady = time.time, time.monotonic
        moving = {
            "time": staticmethod(lambda: wall() + sum(ahead)),
            "monotonic": staticmethod(lambda: steady() + sum(ahead)),
        }
        cli_wait = part("cli_wait")
        self.enterContext(mock.patch.multiple(cli_wait.Countdown, **moving))
        self.enterContext(mock.patch.object(cli_wait, "stdlib_time", SimpleNamespace(sleep=ahead.append, **moving)))
        self.sim.fail_next(1, 429, headers={"Retry-After": "1"})
        out = io.StringIO()
        with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
            with mock.patch.dict(os.environ, self.env), mock.patch.object(sys, "stdin", io.StringIO()):
                self.assertEqual(part("cli").main(["ask", "--config", self.file, "--max-wait", "3", "hi"]), 0, err.getvalue())
        self.assertEqual(out.getvalue(), "<hi>\n")
        return err.getvalue()

    def test_a_wait_is_seen(self) -> None:
        """Off a terminal one line says who is waited for, how long and why; on one a countdown passes and is taken away."""
        told, said = part("cli_wait").Countdown(part("terminal").Screen(said_to := io.StringIO())), said_to.getvalue
        told.on_wait(ir.WaitEvent("id", "fast", "local", "desk", "small", 3.0, 1003.0, "held: RateLimited (429)", 1000.0))
        self.assertEqual(said(), "waiting for local/desk small, free in 3 s: held: RateLimited (429)\n")
        shown = self.asked(Terminal())
        self.assertRegex(shown, r"\rwaiting 1 s for local/desk small|waiting 1 s for local/desk small")
        self.assertIn("\r", shown.rpartition("waiting")[2])
        self.assertGreaterEqual(shown.count("waiting"), 2, "it counts down")


class Explaining(WithServer):
    def test_nobody_is_asked(self) -> None:
        """explain shows the order and asks nobody; as JSON it holds the facts."""
        self.assertIn("1. local/desk small: free", self.run_ok("explain", "--config", self.file).out)
        found = self.json_of("explain")
        self.assertEqual([each["account_id"] for each in found["candidates"]], ["desk"])
        self.assertEqual(self.sim.log, ())

    def test_nobody_would_serve(self) -> None:
        """explain fails where no candidate is left, and says why each was left out."""
        for _ in range(4):
            self.run_ok("ask", "--config", self.file, "hi")
        paid = self.written("paid.toml", Path(self.file).read_text("utf-8").replace("daily_free = 10", "paid_enabled = true"))
        ran = run("explain", "--config", paid, env=self.env)
        self.assertEqual(ran.code, 1)
        self.assertIn("allow_paid is false", ran.out)


class Embedding(WithServer):
    def test_vectors(self) -> None:
        """embed prints one JSON array a text, from words or lines of stdin, and fails without any."""
        lines = self.run_ok("embed", "--config", self.file, "a", "b").out.splitlines()
        self.assertEqual([type(json.loads(line)) for line in lines], [list, list])
        self.assertEqual(len(self.run_ok("embed", "--config", self.file, stdin="a\n\nb\nc\n").out.splitlines()), 3)
        self.assertEqual(len(self.json_of("embed", "a")["embeddings"]), 1)
        ran = run("embed", "--config", self.file, env=self.env)
        self.assertEqual((ran.code, ran.out), (1, ""))
        self.assertIn("no text to embed", ran.err)


class Finding(WithServer):
    def test_the_places_in_their_order(self) -> None:
        """--config wins over the environment's variable, that over ./inferrouter.toml, .json, and the user's own folder."""
        common = part("cli_common")
        here = self.folder / "here"
        places = [
            here / "inferrouter.toml",
            here / "inferrouter.json",
            self.folder / "config" / "inferrouter" / "inferrouter.toml",
        ]
        for place in places:
            self.written(str(place.relative_to(self.folder)), "")
        old = os.getcwd()
        self.addCleanup(os.chdir, old)
        os.chdir(here)
        env = self.env | {"INFERROUTER_CONFIG": "named.toml"}
        self.assertEqual(common.found_config("given.toml", env), Path("given.toml"))
        self.assertEqual(common.found_config(None, env), Path("named.toml"))
        for place in places:
            self.assertEqual(common.found_config(None, self.env).resolve(), place.resolve())
            place.unlink()
        self.assertIsNone(common.found_config(None, self.env))

    def test_commands_know_of_each_other(self) -> None:
        """Without a store in the configuration, commands count in one file of the user's, which nobody else may read."""
        self.run_ok("ask", "--config", self.file, "hi")
        self.run_ok("ask", "--config", self.file, "hi")
        self.assertIn("8 left, 2 of 10 requests per day", self.run_ok("status", "--config", self.file).out)
        found = self.json_of("status")["desk"]
        self.assertEqual([each["used"] for each in found["limits"]], [2.0, 2.0])
        self.assertRegex(found["limits"][0]["resets_at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        file = self.folder / "state" / "inferrouter" / "quota.sqlite"
        if os.name == "posix":
            self.assertEqual((file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777), (0o600, 0o700))

    def test_a_state_folder_that_cannot_be_made(self) -> None:
        """A file in the place of the state folder is one line that names the variable to set."""
        self.written("state", "")
        ran = run("ask", "--config", self.file, "hi", env=self.env)
        self.assertEqual((ran.code, ran.err.count("\n")), (1, 1))
        self.assertIn("XDG_STATE_HOME", ran.err)


class Checking(WithServer):
    def test_counts_are_looked_at_and_left_alone(self) -> None:
        """check says that an account is spent, from a copy: the file's limits and counts stay as they are."""
        for _ in range(4):
            self.run_ok("ask", "--config", self.file, "hi")
        spent = self.written("spent.toml", Path(self.file).read_text("utf-8").replace("daily_free = 10", "daily_free = 4"))
        text = Path(spent).read_text("utf-8").replace('default_model = "local/small"', 'default_model = "local/small"')
        ran = run("check", self.written("spent.toml", text), env=self.env)
        self.assertEqual(ran.code, 1)
        self.assertIn("the free allowance is not enough", ran.out)
        self.assertIn("4 of 10 requests per day", self.run_ok("status", "--config", self.file).out)

    def test_json(self) -> None:
        """check --json holds the problems with their paths, or who serves what."""
        found = self.json_of("check")
        self.assertTrue(found["fine"])
        self.assertEqual(found["models"][0]["candidates"], ["local/desk small"])
        bad = self.written("bad.toml", "alow_paid = true")
        found = json.loads(run("check", bad, "--json", env=self.env).out)
        self.assertEqual((found["fine"], len(found["problems"])), (False, 1))

    def test_the_providers_as_json(self) -> None:
        """providers --json lists every known provider with its key variables and free limits."""
        rows = {row["name"]: row for row in json.loads(self.run_ok("providers", "--json").out)}
        self.assertIn("GEMINI_API_KEY", rows["gemini"]["env"])
        self.assertTrue(rows["gemini"]["free"][0]["limits"])


class Simulating(unittest.TestCase):
    def test_serves_what_it_prints(self) -> None:
        """simulate prints a configuration that works as it stands, serves it, and ends by itself or by Ctrl-C with one word."""
        with tempfile.TemporaryDirectory() as folder:
            port = _free_port()
            process = start("simulate", "--port", str(port), "--seconds", "20")
            try:
                assert process.stdout is not None
                lines = []
                while 'id = "anthropic' not in (lines[-1] if lines else ""):
                    lines.append(process.stdout.readline())
                lines += [process.stdout.readline() for _ in range(2)]
                file = Path(folder, "sim.toml")
                file.write_text("".join(lines), "utf-8")
                env = {"XDG_STATE_HOME": folder}
                for model in ("openai/gpt-x", "gemini/gemini-x", "anthropic/claude-x"):
                    ran = run("ask", "--config", str(file), "--model", model, "What is 2+2?", env=env)
                    self.assertEqual((ran.code, ran.out), (0, "2 + 2 = 4.\n"), ran.err)
                self.assertEqual(run("ask", "--config", str(file), "What is 2+2?", env=env).out, "2 + 2 = 4.\n", "its default")
            finally:
                process.send_signal(signal.SIGINT)
                ended = finish(process)
        self.assertEqual(ended.code, 130)
        self.assertIn("openai gpt-x: 200", ended.err)
        self.assertTrue(ended.err.endswith("\ninterrupted\n"))

    def test_a_port_that_is_taken(self) -> None:
        """A taken port is one line that says so."""
        with simulator.Simulator("openai") as taken:
            port = int(taken.base_url.split(":")[2].split("/")[0])
            ran = run("simulate", "--port", str(port), "--seconds", "0")
        self.assertEqual((ran.code, ran.err.count("\n")), (1, 1))
        self.assertIn(f"port: {port} cannot be served on", ran.err)

    def test_stops_by_itself(self) -> None:
        """--seconds 0 starts, says where, and ends with 0; --json gives the addresses."""
        ran = run("simulate", "--port", "0", "--seconds", "0", "--json")
        self.assertEqual(ran.code, 0)
        self.assertEqual([row["dialect"] for row in json.loads(ran.out)], ["openai", "gemini", "anthropic"])


class Writing(WithServer):
    def test_nowhere_to_write(self) -> None:
        """Without a stdout a command does its work all the same."""
        with mock.patch.object(sys, "stdout", None), mock.patch.dict(os.environ, self.env):
            self.assertEqual(part("cli").main(["status", "--config", self.file]), 0)

    @unittest.skipUnless(os.path.exists("/dev/full"), "no full device here")
    def test_a_full_disk(self) -> None:
        """A full disk is one line that says so, and 1."""
        with open("/dev/full", "w", encoding="utf-8") as full:
            process = subprocess.run(
                [sys.executable, "-S", "-m", PACKAGE, "providers"],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=dict(os.environ) | self.env | {"PYTHONPATH": str(FOLDER.parent)},
                timeout=30,
                check=False,
            )
        self.assertEqual((process.returncode, process.stderr.count("\n")), (1, 1), process.stderr)
        self.assertIn("No space left", process.stderr)


class Interrupting(unittest.TestCase):
    @unittest.skipIf(os.name != "posix", "signals as POSIX has them")
    def test_while_it_is_imported(self) -> None:
        """Ctrl-C while the command line is still being imported is one word and 130 too."""
        script = (
            "import builtins, runpy, sys\nreal = builtins.__import__\n"
            "def slow(name, *args, **more):\n"
            "    if name.endswith('cli') and args[3:4] == (1,): raise KeyboardInterrupt\n"
            "    return real(name, *args, **more)\n"
            f"builtins.__import__ = slow\nsys.argv = ['x']\nrunpy.run_module({PACKAGE!r}, run_name='__main__', alter_sys=True)"
        )
        self.assertEqual(self.run_by(script), Ran(130, "", "\ninterrupted\n"))

    @unittest.skipIf(os.name != "posix", "signals as POSIX has them")
    def test_amid_a_text_that_is_evaluated(self) -> None:
        """Ctrl-C while a module of the standard library evaluates a text, as for each named tuple, is 130 and no signal."""
        script = (
            f"import runpy, sys, {PACKAGE}.cli\n{PACKAGE}.cli.main = lambda: exec('raise KeyboardInterrupt')\n"
            f"sys.argv = ['x']\nrunpy.run_module({PACKAGE!r}, run_name='__main__', alter_sys=True)"
        )
        self.assertEqual(self.run_by(script), Ran(130, "", "\ninterrupted\n"))

    def run_by(self, script: str) -> Ran:
        """What `script` does as a module that is run, which CPython ends otherwise than a text."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "the_script.py").write_text(script, encoding="utf-8")
            done = subprocess.run(
                [sys.executable, "-S", "-m", "the_script"],
                cwd=FOLDER.parent,
                env={**os.environ, "PYTHONPATH": folder},
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        return Ran(done.returncode, done.stdout, done.stderr)


def _free_port() -> int:
    """The first of three ports that are free now."""
    import socket

    for _ in range(50):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        try:
            for step in range(3):
                socket.create_server(("127.0.0.1", port + step)).close()
        except OSError:
            time.sleep(0.01)
        else:
            return port
    raise AssertionError("no three free ports in a row")


if __name__ == "__main__":
    unittest.main()
