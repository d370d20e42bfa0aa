"""Meters: what they are told, the lines a LogMeter writes, and several of them as one."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tests import ir, part
from tests.fakes import NOON, EveryHook, ListMeter

errors, events, meter, records = (part(name) for name in ("errors", "events", "meter", "records"))

USAGE = records.Usage(10, 20, 30, 4, 5)
ROUTE = events.RouteEvent("p", "a", "m", True, 1, 30, "c1", "fast")
ANSWER = events.ResultEvent(
    *("p", "a", "m", False, True, 0.5, USAGE, 0.25, None, "c1", 2, "fast", "chat", True, "m-001", "r1", ("stop",), 0.125),
    waited_s=3.5,
)
FAILURE = events.ResultEvent("p", "a", "m", True, False, 0.5, USAGE, 0.0, errors.RateLimitedError("p", "a", "m", 429))
HOLD = events.HoldEvent("a|m", "p", "a", "m", NOON + 60, "RateLimited (429)", at=NOON)
OVER = events.HoldEvent("a|m", "p", "a", "m", NOON + 60, "RateLimited (429)", begun=False, at=NOON + 61)
WAIT = events.WaitEvent("c1", "fast", "p", "a", "m", 2.5, NOON + 2.5, 'held: "x"', NOON)
LIMIT = events.LimitEvent("a/rpm", "p", "a", "m", 20.0, 5.0, None, "x-ratelimit-limit-requests", NOON)
REFUSED = events.CallEvent("c1", "fast", "chat", False, "refused", 0, 0.0, 0.001)


class Lines(unittest.TestCase):
    def lines(self, *told: tuple[str, Any]) -> list[logging.LogRecord]:
        made = ir.LogMeter()
        with self.assertLogs("inferrouter", logging.DEBUG) as logs:
            for hook, event in told:
                getattr(made, hook)(event)
        return logs.records

    def test_each_event_is_one_line_of_facts(self) -> None:
        """Every event is one line of key=value, at the level that logging's conventions have for it."""
        told = [("on_route", ROUTE), ("on_result", ANSWER), ("on_result", FAILURE), ("on_hold", HOLD), ("on_hold", OVER)]
        told += [("on_wait", WAIT), ("on_limit", LIMIT), ("on_call", REFUSED)]
        place = "call=c1 alias=fast attempt=1 provider=p account=a model=m"
        said = "p/a (m) answered 429: RateLimitedError. Wait, or add another account."
        expected = [
            ("DEBUG", f"event=attempt {place} free=true estimated_tokens=30"),
            (
                "INFO",
                f"event=answer {place.replace('attempt=1', 'attempt=2')} free=false seconds=0.5 waited=3.5 first_chunk=0.125 "
                "input=10 output=20 total=30 cached=4 reasoning=5 cost=0.250000 finish=stop answered_by=m-001",
            ),
            (
                "WARNING",
                "event=failure attempt=1 provider=p account=a model=m free=true seconds=0.5 error=RateLimitedError "
                f'said="{said}"',
            ),
            ("WARNING", 'event=hold provider=p account=a model=m key=a|m reason="RateLimited (429)" seconds=60'),
            ("DEBUG", 'event=hold_ended provider=p account=a model=m key=a|m reason="RateLimited (429)" seconds=0'),
            ("DEBUG", f"event=wait {place.replace(' attempt=1', '')} seconds=2.5 " + r'reason="held: \"x\""'),
            (
                "INFO",
                "event=limit provider=p account=a model=m key=a/rpm configured=20 stated=5 source=x-ratelimit-limit-requests",
            ),
            ("DEBUG", "event=call call=c1 alias=fast outcome=refused attempts=0 seconds=0.001"),
        ]
        self.assertEqual([(record.levelname, record.getMessage()) for record in self.lines(*told)], expected)

    def test_no_line_is_two(self) -> None:
        """What a provider says cannot begin a second line, nor a second field."""
        wicked = events.ResultEvent(
            "p",
            "a",
            "m",
            True,
            True,
            0.5,
            USAGE,
            0.0,
            None,
            model_answered="m\nevent=forged level=\u2028x",
            finish_reasons=("a b",),
        )
        [record] = self.lines(("on_result", wicked))
        self.assertNotIn("\n", record.getMessage())
        self.assertTrue(record.getMessage().isprintable())
        self.assertIn(r'finish="a b" answered_by="m\nevent=forged level=\u2028x"', record.getMessage())

    def test_fields_for_formatters(self) -> None:
        """The facts stand in one attribute of the record too, with their types."""
        [record] = self.lines(("on_result", ANSWER))
        self.assertEqual(record.inferrouter["input"], 10)  # type: ignore[attr-defined]  # as documented
        self.assertIs(record.inferrouter["free"], False)  # type: ignore[attr-defined]  # as documented

    def test_an_answered_call_is_one_line(self) -> None:
        """Above DEBUG, a call that is answered at once is one line, and one that is refused is none: its caller hears of it."""
        provider = ir.MockProvider("mock", ["hello"])
        account = ir.AccountConfig("mock", "a", limits={"rpd": 1})
        with ir.Router(ir.Config([account], default_model="mock/m"), [provider], meter=ir.LogMeter()) as router:
            with self.assertLogs("inferrouter", logging.INFO) as logs:
                router.chat_completion(ir.ChatRequest("hi"))
            self.assertEqual([record.levelname for record in logs.records], ["INFO"])
            with self.assertNoLogs("inferrouter", logging.INFO), self.assertRaises(ir.NoCandidatesError):
                router.chat_completion(ir.ChatRequest("hi"))

    def test_disabled_levels_write_nothing(self) -> None:
        """A logger that is at WARNING hears of failures alone."""
        made = ir.LogMeter(logging.getLogger("own"))
        with self.assertLogs("own", logging.WARNING) as logs:
            for hook, event in (("on_route", ROUTE), ("on_result", ANSWER), ("on_wait", WAIT), ("on_limit", LIMIT)):
                getattr(made, hook)(event)
            made.on_result(FAILURE)
        self.assertEqual([record.name for record in logs.records], ["own"])

    def test_a_copied_folder_logs_under_its_own_name(self) -> None:
        """The logger is named like the package, also where the folder was copied under another name, or into another package."""
        script = (
            "import logging; logging.basicConfig(format='%(name)s')\n"
            "from app.vendored import LogMeter, HoldEvent\n"
            "LogMeter().on_hold(HoldEvent('k', 'p', 'a', '', 1.0, 'why'))"
        )
        with tempfile.TemporaryDirectory() as folder:
            inner = Path(folder, "app")
            shutil.copytree(Path(str(ir.__file__)).parent, inner / "vendored", ignore=shutil.ignore_patterns("__pycache__"))
            (inner / "__init__.py").touch()
            command = [sys.executable, "-S", "-B", "-c", script]
            environment = {**os.environ, "PYTHONPATH": folder}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        self.assertEqual(done.stderr.strip(), "app.vendored")

    def test_a_noop_meter_says_nothing(self) -> None:
        """Nothing is logged."""
        made = ir.NoopMeter()
        with self.assertNoLogs(level=logging.DEBUG):
            made.on_route(ROUTE)
            made.on_result(ANSWER)


class Several(unittest.TestCase):
    def router(self, given: Any, *replies: Any) -> Any:
        account = ir.AccountConfig("mock", "a")
        router = ir.Router(ir.Config([account], default_model="mock/m"), [ir.MockProvider("mock", replies)], meter=given)
        self.addCleanup(router.close)
        return router

    def test_each_hears_what_it_has_hooks_for(self) -> None:
        """Of several meters each is told what it has hooks for, and one that raises keeps nothing from the others."""

        class Broken:
            def on_route(self, event: Any) -> None:
                raise ZeroDivisionError

        every, old, only = EveryHook(), ListMeter(), SimpleNamespace(on_call=(heard := []).append)
        self.router([Broken(), every, old, only], "hello").chat_completion(ir.ChatRequest("hi"))
        self.assertEqual([type(event).__name__ for event in every.events], ["RouteEvent", "ResultEvent", "CallEvent"])
        self.assertEqual([type(event).__name__ for event in old.events], ["RouteEvent", "ResultEvent"])
        self.assertEqual([type(event).__name__ for event in heard], ["CallEvent"])
        self.assertEqual(len({event.call_id for event in (*every.events, *old.events, *heard)}), 1)

    def test_a_hook_that_does_nothing(self) -> None:
        """A hook that says of itself that it does nothing is told nothing; one in its place is, and a mock says no such thing."""

        class Own(ir.MetricsMeter):  # type: ignore[misc, name-defined]  # the package is a value here
            def on_route(self, event: Any) -> None:
                heard.append(event)

        heard: list[Any] = []
        for given, hears in ((ir.MetricsMeter(), False), (Own(), True), (mock.MagicMock(), True)):
            router = self.router(given, "hello")
            self.assertIs(router._runtime.meter.hears("on_route"), hears)
            router.chat_completion(ir.ChatRequest("hi"))
        self.assertEqual([type(event).__name__ for event in heard], ["RouteEvent"])

    def test_nobody_listens(self) -> None:
        """No meter, none in a list and only NoopMeters are the same: no event is made."""
        for given in (None, [], (), ir.NoopMeter(), [ir.NoopMeter()]):
            router = self.router(given, "hello")
            self.assertIsNone(router._runtime.meter)
            self.assertEqual(router.chat_completion(ir.ChatRequest("hi")).text, "hello")

    def test_wrong_ones(self) -> None:
        """What has no hook is refused, alone and in a list."""
        for given in (object(), "log", [ir.LogMeter(), object()], ["log"]):
            with self.assertRaisesRegex(ir.ConfigError, "on_route"):
                self.router(given)


class Old(unittest.TestCase):
    def test_events_as_they_were(self) -> None:
        """Events can still be made, and read, with what they had at first."""
        route = ir.RouteEvent("p", "a", "m", True, 1, 30)
        result = ir.ResultEvent("p", "a", "m", False, True, 0.5, USAGE, 0.25)
        self.assertEqual((route.call_id, route.reserved, route.parameters), ("", (), {}))
        self.assertEqual((result.error, result.attempt, result.first_chunk_s, result.charged), (None, 1, None, ()))


if __name__ == "__main__":
    unittest.main()
