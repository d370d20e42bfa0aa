"""The README's recipe: two hundred texts, three keys, Ctrl-C, and again. The providers count for themselves."""

from __future__ import annotations

import functools
import io
import json
import os
import tempfile
import unittest
from collections import deque
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any
from unittest import mock

from tests import ir, part
from tests.fakes import FakeClock
from tests.test_readme import README, section

catalog = part("catalog")
KEYS = {"GEMINI_API_KEY": "g", "GROQ_API_KEY": "q", "OPENROUTER_API_KEY": "o"}
TEXTS = [f"text number {number}" for number in range(200)]


class Provider:
    """Answers within its own limits, counted over the last minute and the last day, and refuses what is beyond them."""

    def __init__(self, name: str, clock: FakeClock) -> None:
        self.row = catalog.preset(name)
        self.clock = clock
        self.calls: dict[str, deque[float]] = {}
        self.refused = 0
        self.interrupt_at = 0
        self.mock = ir.MockProvider(name, default=self.reply)

    def reply(self, body: dict[str, Any]) -> Any:
        model = body["model"] if self.row.model_limits else ""
        limits = self.row.model_limits.get(model) or self.row.limits
        calls = self.calls.setdefault(model, deque())
        now = self.clock.now
        for key, span in (("rpm", 60.0), ("rpd", 86_400.0)):
            if sum(now - at < span for at in calls) >= limits.get(key, 1e9):
                self.refused += 1
                return 429
        calls.append(now)
        self.clock.advance(0.5)
        if self.total == self.interrupt_at:
            raise KeyboardInterrupt
        return f"en francais: {body['messages'][-1]['content']}"

    @property
    def total(self) -> int:
        return sum(map(len, self.calls.values()))


@unittest.skipUnless(README.is_file(), "the README is not here")
class Recipe(unittest.TestCase):
    def test_all_of_it_without_one_refusal(self) -> None:
        """In ten lines, without a configuration file, every text is answered once though it was stopped, and no limit is hit."""
        code = section("Two hundred texts, three keys").partition("```python\n")[2].partition("```")[0]
        lines = [line for line in code.splitlines() if line.strip()]
        self.assertLessEqual(len(lines), 10)
        clock = FakeClock()
        providers = [Provider(name, clock) for name in ("gemini", "groq", "openrouter")]
        providers[1].interrupt_at = 40
        made = functools.partial(ir.Router.from_env, clock=clock, providers=[each.mock for each in providers])
        with (
            tempfile.TemporaryDirectory() as folder,
            chdir(folder),
            mock.patch.dict(os.environ, KEYS, clear=True),
            mock.patch.object(ir.Router, "from_env", made),
            mock.patch.dict("sys.modules", {"inferrouter": ir}),
            redirect_stdout(io.StringIO()),
        ):
            Path("texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
            with self.assertRaises(KeyboardInterrupt):
                exec(compile(code, "recipe", "exec"), {})
            before = len(Path("answers.jsonl").read_text(encoding="utf-8").splitlines())
            exec(compile(code, "recipe", "exec"), {})
            rows = [json.loads(line) for line in Path("answers.jsonl").read_text(encoding="utf-8").splitlines()]
            self.assertEqual(sorted(os.listdir()), ["answers.jsonl", "counts.sqlite", "texts.txt"])
        self.assertTrue(0 < before < 200)
        self.assertEqual(sorted(row["text"] for row in rows), sorted(TEXTS))
        self.assertEqual([each.refused for each in providers], [0, 0, 0])
        self.assertEqual(sum(each.total for each in providers), 201, "the interrupted call was made twice")
        self.assertTrue(all(each.total for each in providers))


if __name__ == "__main__":
    unittest.main()
