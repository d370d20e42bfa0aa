"""The demo keeps its promises, and fails when one is not kept."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import time
import unittest
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tests import ir, part
from tests.commands import Ran, Terminal, finish, start

simulator = part("simulator")
CALL = re.compile(r"^ +(\d+)  (\S+) +(\d+)  +(free|\$[\d.]+) +(\d+)% +(\d+)%  (.+)$", re.MULTILINE)


def shown(out: io.StringIO | None = None) -> tuple[int, str]:
    out = out or io.StringIO()
    return part("demo").run_demo(out), out.getvalue()


def other_cast(name: str, stand_in: Any) -> Any:
    """A patch that puts `stand_in` in the place of one of the demo's own."""
    usual = part("demo").build_stand_ins

    def cast(clock: Any, delay: float) -> dict[str, Any]:
        return {**usual(clock, delay), name: stand_in}

    return mock.patch.object(part("demo"), "build_stand_ins", cast)


def setUpModule() -> None:
    """The whole demo runs beside the other tests."""
    WholeDemoTest.began = time.monotonic()
    # A proxy that nobody can reach: the demo must not need a network, nor be led astray by one.
    WholeDemoTest.process = start("demo", http_proxy="http://127.0.0.1:9", HTTP_PROXY="http://127.0.0.1:9")
    unittest.addModuleCleanup(WholeDemoTest.process.communicate)
    unittest.addModuleCleanup(WholeDemoTest.process.kill)


class WholeDemoTest(unittest.TestCase):
    began: float
    process: subprocess.Popen[str]
    ran: Ran
    seconds: float
    calls: list[tuple[str, ...]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.ran = finish(cls.process)
        cls.seconds = time.monotonic() - cls.began  # or less
        cls.calls = CALL.findall(cls.ran.out)

    def test_it_succeeds_in_silence(self) -> None:
        """A process of its own ends with 0 within 10 seconds and leaves stderr empty, warnings being errors."""
        self.assertEqual((self.ran.code, self.ran.err), (0, ""))
        self.assertLess(self.seconds, 10)

    def test_it_fits_80_columns_in_plain_text(self) -> None:
        """Into a pipe it writes no escape codes, and no line is wider than 80 columns."""
        self.assertNotIn("\x1b", self.ran.out)
        self.assertLessEqual(max(map(len, self.ran.out.splitlines())), 80)

    def test_free_first_and_balanced(self) -> None:
        """The first four calls are free and split between both free accounts by the share that is left."""
        who = [who for _, who, *_ in self.calls[:4]]
        self.assertEqual(who, ["gemini-free", "groq-free", "groq-free", "gemini-free"])
        self.assertEqual({price for *_, price, _, _, _ in self.calls[:4]}, {"free"})

    def test_a_429_fails_over(self) -> None:
        """The fifth call meets a 429 and is answered by the other free account; the sixth does not ask for another."""
        self.assertEqual(self.calls[4][1], "gemini-free")
        self.assertRegex(self.calls[4][-1], r"groq: 429, held \d\d s")
        self.assertEqual(self.calls[5][1], "gemini-free")
        self.assertRegex(self.calls[5][-1], r"groq held \d\d s")

    def test_paid_comes_last(self) -> None:
        """The paid account answers, for money, once the free one is at 0 % and the other one is held."""
        self.assertEqual([who for _, who, *_ in self.calls[6:9]], ["gemini-free", "openai-paid", "openai-paid"])
        for _, _, _, price, gemini, _, why in self.calls[7:9]:
            self.assertGreater(float(price.lstrip("$")), 0)
            self.assertEqual(gemini, "0")
            self.assertRegex(why, r"gemini spent, groq held \d\d s")

    def test_the_stream_is_shown(self) -> None:
        """The streamed text is there, and it came from the free account whose rest was over."""
        self.assertIn("     where the lamp is still burning\n", self.ran.out)
        self.assertEqual((len(self.calls), self.calls[9][1]), (10, "groq-free"))

    def test_the_table_adds_up(self) -> None:
        """Calls, tokens and dollars of the closing table are the sums of the lines above it."""
        table = self.ran.out[self.ran.out.index("The count") :]
        for who in ("gemini-free", "groq-free", "openai-paid"):
            mine = [call for call in self.calls if call[1] == who]
            row = re.search(rf"{who} +(\d+) +(\d+) +(\d+) +(free|paid) +\$([\d.]+)", table)
            assert row is not None
            self.assertEqual(int(row[1]), len(mine))
            self.assertEqual(int(row[2]), 1 if who == "groq-free" else 0)
            self.assertEqual(int(row[3]), sum(int(call[2]) for call in mine))
            paid = sum(float(call[3].lstrip("$")) for call in mine if call[3] != "free")
            self.assertAlmostEqual(float(row[5]), paid, delta=2e-6)
        self.assertIn("The stand-ins counted the same", table)

    def test_no_key_is_shown(self) -> None:
        """The keys of the stand-ins are nowhere in the output."""
        self.assertNotIn("demo-key", self.ran.out)


class DemoChecksItselfTest(unittest.TestCase):
    def test_a_429_and_a_stream_that_do_not_come(self) -> None:
        """A stand-in without a limit, which answers in one piece, breaks two promises; the demo names both and fails."""
        with other_cast("groq", simulator.Simulator("openai", keys=["demo-key-2"], chunk_words=1000)):
            code, out = shown()
        self.assertEqual(code, 1)
        self.assertIn("This did not happen: Groq answers 429 once", out)
        self.assertIn("This did not happen: the stream comes piece by piece", out)

    def test_counts_that_differ(self) -> None:
        """A stand-in that counted something else fails the demo, which then does not claim agreement."""
        with mock.patch.object(part("demo"), "_served", return_value=(0, 0, 0)):
            code, out = shown()
        self.assertEqual(code, 1)
        self.assertNotIn("The stand-ins counted the same", out)
        self.assertIn("This did not happen: the stand-ins counted the same (they say", out)

    def test_an_error_in_the_middle(self) -> None:
        """A call that fails for good ends the demo with its reason, not with a traceback."""
        with other_cast("gemini", simulator.Simulator("gemini", keys=["another-key"])):
            code, out = shown()
        self.assertEqual(code, 1)
        self.assertRegex(out, "This did not happen: the demo ended early: gemini/gemini-free")
        self.assertNotIn("demo-key", out)


class OnATerminalTest(unittest.TestCase):
    def test_colour_and_pauses(self) -> None:
        """A terminal gets colours and short pauses, which together stay under 4 seconds."""
        pauses: list[float] = []
        usual = part("demo").build_stand_ins
        self.enterContext(mock.patch.object(part("demo"), "build_stand_ins", lambda clock, delay: usual(clock, delay / 4)))
        with mock.patch.object(part("terminal"), "time", SimpleNamespace(sleep=pauses.append)):
            with mock.patch.dict(os.environ, {"TERM": "xterm"}, clear=True):
                code, out = shown(Terminal())
                self.assertNotIn("no_proxy", os.environ)
        self.assertEqual(code, 0)
        self.assertIn("\x1b[1m", out)
        self.assertGreater(sum(pauses), 1)
        self.assertLess(sum(pauses), 4)

    def test_no_colour(self) -> None:
        """NO_COLOR, a dumb terminal and a pipe each keep every escape code away."""
        for out, env in ((Terminal(), {"NO_COLOR": "1"}), (Terminal(), {"TERM": "dumb"}), (io.StringIO(), {})):
            part("terminal").Screen(out, env).heading("hello")
            self.assertIn(" hello ", out.getvalue())
            self.assertNotIn("\x1b", out.getvalue())

    def test_ascii(self) -> None:
        """A stream that cannot show UTF-8 gets ASCII lines; the environment's no_proxy is left as it was."""
        raw = io.BytesIO()
        with io.TextIOWrapper(raw, encoding="ascii", write_through=True) as out:
            with mock.patch.dict(os.environ, {"no_proxy": "example.org"}):
                self.assertEqual(part("demo").run_demo(out), 0)
                self.assertEqual(os.environ["no_proxy"], "example.org")
            written = raw.getvalue()
        self.assertIn(b"-- The count ----", written)
        self.assertNotIn(b"?--", written)


@unittest.skipIf(os.name != "posix", "signals and broken pipes as POSIX has them")
class InterruptedTest(unittest.TestCase):
    def test_ctrl_c(self) -> None:
        """Ctrl-C ends it with 130 and one word, no traceback and no warning."""
        process = start("demo")
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        ran = finish(process)
        self.assertEqual((ran.code, ran.err), (130, "\ninterrupted\n"))

    def test_a_reader_that_goes_away(self) -> None:
        """A closed pipe, as `| head` leaves it, ends it without a traceback."""
        process = start("demo")
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        with process:
            self.assertEqual(process.stderr.read(), "")
            self.assertEqual(process.wait(20), 1)


class DemoClockTest(unittest.TestCase):
    def test_it_starts_before_noon_is_a_minute_old(self) -> None:
        """It begins in the first half minute after noon, so neither a minute nor a day ends within the show."""
        clock = part("demo").DemoClock()
        self.assertTrue(43_200 <= clock.time() % 86_400 < 43_230)

    def test_skipping_moves_both_hands(self) -> None:
        """`skip` and `sleep` set wall and monotonic time ahead alike, without waiting."""
        clock = part("demo").DemoClock()
        wall, mono = clock.time(), clock.monotonic()
        clock.skip(60)
        clock.sleep(40)
        self.assertAlmostEqual(clock.time() - wall, 100, delta=1)
        self.assertAlmostEqual(clock.monotonic() - mono, 100, delta=1)

    def test_the_router_takes_it(self) -> None:
        """It is a clock in the router's sense."""
        config = ir.Config(accounts=[ir.AccountConfig(provider="mock", id="a")], default_model="mock/any")
        with ir.Router(config, [ir.MockProvider("mock", ["hi"])], clock=part("demo").DemoClock()) as router:
            self.assertEqual(router.chat_completion(ir.ChatRequest("hello")).text, "hi")


if __name__ == "__main__":
    unittest.main()
