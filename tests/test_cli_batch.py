"""The commands of long jobs: what they print, their exit codes, and a run that is killed again and again."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from tests import LONG, ir, part
from tests.commands import finish, run, start
from tests.jobs import JobCase

simulator = part("simulator")
ROWS = "id,text\n1,good\n2,bad\n3,fine\n"
CHILD = {"XDG_STATE_HOME": "none"}


class Commands(JobCase):
    def setUp(self) -> None:
        super().setUp()
        self.simulator = self.enterContext(simulator.Simulator(keys={"sk-1": None}))

    def config(self, limits: str = "{}", keys: tuple[str, ...] = ("sk-1",)) -> str:
        accounts = "".join(
            f'[[accounts]]\nprovider = "local"\nid = "a{at}"\nbase_url = "{self.simulator.base_url}"\n'
            f'auth = {{ api_key = "{key}" }}\nlimits = {limits}\nreset = "rolling"\n'
            for at, key in enumerate(keys)
        )
        path = self.file(
            "router.toml",
            'default_model = "local/m"\n[quota]\nstore = "sqlite"\npath = "quota.sqlite"\n' + accounts,
        )
        path.chmod(0o600)
        return str(path)

    def words(self, command: str, *more: Any, config: str = "") -> list[str]:
        return [command, *map(str, more), "--config", config or self.config()]

    def test_a_job(self) -> None:
        """Every row done is 0, with the summary on stderr and nothing on stdout; run again it asks nothing."""
        source, out = self.file("in.csv", ROWS), self.folder / "out.jsonl"
        words = self.words("batch", source, "--out", out, "--prompt", "Say: {text}", "--workers", 2)
        ran = run(*words)
        self.assertEqual((ran.code, ran.out), (0, ""), ran.err)
        self.assertIn("3 of 3 rows done", ran.err)
        self.assertRegex(ran.err, r"3  local/a0 m")
        asked = len(self.simulator.log)
        self.assertEqual(run(*words).code, 0)
        self.assertEqual((len(self.simulator.log), len(self.records())), (asked, 3))

    def test_for_programs(self) -> None:
        """--json prints one object a line: states, the last of them ended, then the summary."""
        source, out = self.file("in.csv", ROWS), self.folder / "out.jsonl"
        ran = run(*self.words("batch", source, "--out", out, "--prompt", "{text}", "--json"))
        lines = [json.loads(line) for line in ran.out.splitlines()]
        self.assertEqual([line["event"] for line in lines[-2:]], ["progress", "summary"])
        self.assertEqual((lines[-2]["ended"], lines[-1]["done"], lines[-1]["left"]), (True, 3, 0))

    def test_exit_codes(self) -> None:
        """3: some rows failed; 75: it has to come back; 1 with one line: it could not begin; 2: misused."""
        out = self.folder / "out.jsonl"
        broken = self.file("in.jsonl", '"a"\n{broken\n')
        ran = run(*self.words("batch", broken, "--out", out))
        self.assertEqual(ran.code, 3)
        self.assertRegex(ran.err, r"1 x InvalidRequestError: .*in\.jsonl:2: is not JSON")
        self.assertIn("--retry-failed", ran.err)
        many = self.file("many.txt", "".join(f"{number}\n" for number in range(9)))
        config = self.config("{ rpd = 4 }")
        ran = run(*self.words("batch", many, "--out", self.folder / "2.jsonl", "--stop-when-spent", config=config))
        self.assertEqual(ran.code, 75)
        self.assertRegex(ran.err, "the next slot is free in .* (h|min)")
        ran = run(*self.words("batch", self.folder / "none.csv", "--out", out))
        self.assertEqual((ran.code, ran.err.count("\n")), (1, 1))
        self.assertIn("does not exist; check the path", ran.err)
        self.assertEqual(run("batch", str(many)).code, 2)
        for wrong in (("--until", "soon"), ("--shard", "1 of 3"), ("--shard", "4/3"), ("--workers", "0")):
            self.assertEqual(run(*self.words("batch", many, "--out", out, *wrong)).code, 1, wrong)

    def test_the_plan_of_a_job(self) -> None:
        """--plan says rows, tokens and when it would be done, and asks nobody."""
        source = self.file("in.csv", ROWS)
        words = self.words("batch", source, "--out", self.folder / "out.jsonl", "--prompt", "{text}", "--plan")
        ran = run(*words)
        self.assertEqual((ran.code, len(self.simulator.log)), (0, 0))
        self.assertIn("3 rows, 3 left, about 1,", ran.out)
        self.assertFalse((self.folder / "out.jsonl").exists())
        self.assertEqual(json.loads(run(*words, "--json").out)["left"], 3)

    def test_shards_and_merge(self) -> None:
        """Two shards over one store, put together in the input's order."""
        source = self.file("in.txt", "".join(f"row {number}\n" for number in range(20)))
        parts = [self.folder / f"{place}.jsonl" for place in (1, 2)]
        config = self.config()
        for place, path in enumerate(parts, 1):
            self.assertEqual(run(*self.words("batch", source, "--out", path, "--shard", f"{place}/2", config=config)).code, 0)
        ran = run("merge", *map(str, parts), "--out", str(self.folder / "all.jsonl"), "--input", str(source))
        self.assertEqual((ran.code, ran.err.partition(": ")[2]), (0, "20 rows, 0 failed\n"))
        self.assertEqual([each["custom_id"] for each in self.records("all.jsonl")], self.names(source))

    def names(self, source: Path) -> list[str]:
        index = part("batch_index").Index(part("batch_input").source(source), None, False)
        return [custom_id for _, custom_id, _ in index.rows(0)]

    def test_plan(self) -> None:
        """The capacity as a table and bars, as JSON, and as a picture; when so many rows are done."""
        config = self.config("{ rpd = 40, rpm = 5 }", ("sk-1", "sk-2"))
        ran = run("plan", "--rows", "100", "--days", "2", "--config", config)
        self.assertEqual(ran.code, 0, ran.err)
        self.assertRegex(ran.out, r"local/a1 +m? ?(any)? +\d+")
        self.assertRegex(ran.out, r"100 rows: done in .*; \d+ of them within a day")
        facts = json.loads(run("plan", "--days", "1", "--json", "--config", config).out)
        self.assertEqual(sum(hour["requests"] for hour in facts["hours"]), facts["requests"])
        for name, begin in (("c.svg", "<svg"), ("c.html", "<!DOCTYPE html>")):
            path = self.folder / name
            self.assertEqual(run("plan", "--chart", str(path), "--config", config).code, 0)
            text = path.read_text("utf-8")
            self.assertTrue(text.startswith(begin))
            self.assertIn("local/a0 m", text)
        facts = json.loads(run("plan", "--rows", "5", "--json", "--config", config).out)
        self.assertRegex(facts["done_at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual((facts["within_a_day"], facts["as_fast_as"]), (5, None))
        never = self.config("{ rpd = 0 }")
        self.assertEqual(run("plan", "--rows", "5", "--config", never).code, 1)

    def test_a_plan_that_cannot_be(self) -> None:
        """A number out of its range is misuse, 2, in words that name the option and the range."""
        config = self.config()
        for option, wrong in (
            *(("--rows", text) for text in ("-1", "1.5", "many", str(10**13))),
            *(("--tokens", text) for text in ("-1", str(10**10))),
            *(("--days", text) for text in ("0", "-1", "nan", "inf", "401")),
        ):
            with self.subTest(option=option, wrong=wrong):
                ran = run("plan", option, wrong, "--config", config)
                self.assertEqual((ran.code, ran.out), (2, ""))
                self.assertRegex(ran.err, rf"argument {option}: '{wrong}' is not a (whole )?number from [\d.]+ to [\d,]+\n$")
        self.assertEqual(run("plan", "--rows", "0", "--tokens", "0", "--days", "400", "--config", config).code, 0)

    def test_until_times(self) -> None:
        """The ways a time is written, and words that are none."""
        until = part("cli_batch").until_time
        now = 1_768_478_400.0
        self.assertEqual([until(text, now) - now for text in ("45s", "90min", "2h", "1.5d")], [45.0, 5400.0, 7200.0, 129_600.0])
        self.assertTrue(0 < until("18:00", now) - now <= 86_400)
        self.assertEqual(until("2026-01-15T12:00:00+00:00", now), now)
        for wrong in ("soon", "25:00", "2 weeks"):
            with self.assertRaises(ir.ConfigError):
                until(wrong, now)


class Killed(JobCase):
    def test_again_and_again(self) -> None:
        """Killed at random moments, each row is in the output exactly once, and few were asked twice."""
        kills, workers, count = (3, 4, 60) if LONG else (1, 4, 24)
        limits = simulator.KeyLimits(rpd=5000)
        keys = {f"sk-{at}": limits for at in range(3)}
        with simulator.Simulator(keys=keys, latency_s=0.02) as provider:
            accounts = "".join(
                f'[[accounts]]\nprovider = "local"\nid = "a{at}"\nbase_url = "{provider.base_url}"\n'
                f'auth = {{ api_key = "{key}" }}\nlimits = {{ rpd = 5000 }}\n'
                for at, key in enumerate(keys)
            )
            config = self.file("r.toml", f'default_model = "local/m"\n[quota]\nstore = "sqlite"\npath = "q.sqlite"\n{accounts}')
            config.chmod(0o600)
            source = self.file("in.txt", "".join(f"row {number}\n" for number in range(count)))
            out = self.folder / "out.jsonl"
            words = ["batch", str(source), "--out", str(out), "--workers", str(workers), "--config", str(config)]
            chance = random.Random(7)
            for _ in range(kills):
                wanted = len(provider.log) + chance.randint(5, 15)
                process = start(*words)
                deadline = time.monotonic() + 20
                while len(provider.log) < wanted and time.monotonic() < deadline and process.poll() is None:
                    time.sleep(0.002)
                process.send_signal(signal.SIGKILL) if os.name == "posix" else process.kill()
                finish(process)
            ran = finish(start(*words))
            asked = sum(usage.requests for usage in provider.usage())
            refused = sum(usage.refused for usage in provider.usage())
        self.assertEqual(ran.code, 0, ran.err)
        names = [each["custom_id"] for each in self.records()]
        self.assertEqual((len(names), len(set(names)), refused), (count, count, 0))
        self.assertLessEqual(asked, count + kills * workers)

    @unittest.skipIf(os.name != "posix", "signals as POSIX has them")
    def test_ctrl_c(self) -> None:
        """The first Ctrl-C finishes what is in flight and ends with 75; the same command goes on from there."""
        with simulator.Simulator(keys={"sk-1": None}, latency_s=0.02) as provider:
            config = self.file(
                "r.toml",
                f'default_model = "local/m"\n[[accounts]]\nprovider = "local"\nid = "a"\nbase_url = "{provider.base_url}"\n'
                'auth = { api_key = "sk-1" }\n[quota]\nstore = "sqlite"\npath = "q.sqlite"\n',
            )
            config.chmod(0o600)
            source = self.file("in.txt", "".join(f"row {number}\n" for number in range(200)))
            words = ["batch", str(source), "--out", str(self.folder / "out.jsonl"), "--workers", "2", "--config", str(config)]
            process: subprocess.Popen[str] = start(*words)
            deadline = time.monotonic() + 20
            while len(provider.log) < 5 and time.monotonic() < deadline:
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            ran = finish(process)
        self.assertEqual(ran.code, 75, ran.err)
        self.assertRegex(ran.err, "stopped by hand; run the same command again to go on")
        self.assertEqual(len(self.records()), len(provider.log))


class Display(unittest.TestCase):
    def test_a_bar(self) -> None:
        """A terminal has one line that is written over and says what matters first; at the end it is gone."""
        from tests.commands import Terminal

        screen = Terminal()
        display, progress = part("batch_display"), part("batch_progress")
        facts = (200, 90, 10, 0, 100, 4, 12_345, 0.5, 80, 10, 42.0, 0.0)
        with mock.patch.dict(os.environ, {"COLUMNS": "140", "TERM": "dumb"}):
            show = display.display(part("terminal").Screen(screen), False)
            show(progress.Progress(*facts, 100.0, eta=100.0 + 3 * 86_400, today=60))
            show(progress.Progress(*facts, 200.0, waiting_until=500.0, waiting_for="gemini/a m"))
            show(progress.Progress(*facts, 300.0, ended=True))
        text = screen.getvalue()
        self.assertRegex(
            text, r"50% 100/200, 10 failed, 42/min, 60 more within a day, done \w+ \d\d:\d\d, 12,345 tokens, \$0\.5000"
        )
        self.assertRegex(text, r"waits for gemini/a m in 5 min")
        self.assertTrue(text.endswith("\r"))

    def test_a_terminal_made_narrower(self) -> None:
        """What a bar leaves on the screen, whatever becomes of the terminal's width meanwhile, is nothing."""
        from tests.commands import Terminal

        for term in ("xterm", "dumb"):
            for widths in ((140, 60, 30), (140, 20, 100), (60, 140, 41)):
                screen = Terminal()
                with mock.patch.dict(os.environ, {"TERM": term}):
                    shown = part("terminal").Screen(screen)
                    for columns in widths:
                        with mock.patch.dict(os.environ, {"COLUMNS": str(columns)}):
                            before = len(screen.getvalue())
                            shown.passing("x" * 200)
                            drawn = re.sub(r"\x1b\[\d*[mJ]|\r", "", screen.getvalue()[before:])
                            self.assertEqual(drawn, "x" * (columns - 1))  # one more would make a line of its own
                            shown.passing("y" * (columns // 2))
                            last = re.sub(r"\x1b\[\d*[mJ]", "", screen.getvalue()).split("\r")[-2]
                            self.assertEqual(last, "y" * (columns // 2) + " " * (columns - 1 - columns // 2))
                            shown.passing("z" * 200)
                    self.assertEqual("\x1b[J" in screen.getvalue(), term == "xterm")

    def test_in_a_pipe(self) -> None:
        """Whole lines, one in thirty seconds, and one when a wait begins or ends."""
        import io

        out = io.StringIO()
        display, progress = part("batch_display"), part("batch_progress")
        show = display.display(part("terminal").Screen(out), False)
        for now in range(100):
            waiting = 1000.0 if now > 70 else None
            show(progress.Progress(200, now, 0, 0, 200 - now, 4, 10, 0.0, now, 0, 42.0, 0.0, float(now), waiting))
        lines = out.getvalue().splitlines()
        self.assertEqual([int(found[1]) for line in lines if (found := re.search(r": (\d+) of 200", line))], [0, 30, 60, 71])


if __name__ == "__main__":
    unittest.main()
