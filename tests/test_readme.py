"""README and examples: what they show runs, and what they name exists.

Each of the README's blocks runs by itself, over real HTTP, with stand-ins where the catalog's providers would be.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import runpy
import sys
import tempfile
import unittest
from contextlib import ExitStack, chdir, redirect_stdout
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from unittest import mock

from tests import LONG, PACKAGE, ir, ledger_model, part, rounds
from tests.fakes import FakeClock

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
EXAMPLES = ROOT / "examples"
KEY = "..."
MODELS = {"gemini": "gemini-3.5-flash", "openai": "gpt-4o-mini"}


def blocks(language: str) -> list[tuple[int, str]]:
    """Each block of `language` with the number of its first line."""
    text = README.read_text(encoding="utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, block.start(1)) + 1, block[1]) for block in found]


def section(title: str) -> str:
    """The text under `## title`."""
    return README.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_column(title: str) -> list[str]:
    """The names in the first column of the table under `title`."""
    cells = re.findall(r"^\| (`.*?) \|", section(title), re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(.*?)`", cell)]


@unittest.skipUnless(README.is_file(), "the README is not here")
class BlocksTest(unittest.TestCase):
    def setUp(self) -> None:
        self.parts = ExitStack()
        self.addCleanup(self.parts.close)
        self.folder = Path(self.parts.enter_context(tempfile.TemporaryDirectory()))
        self.parts.enter_context(chdir(self.folder))
        self.parts.enter_context(mock.patch.dict(os.environ, {"GEMINI_API_KEY": KEY}, clear=True))

    def stand_in(self) -> None:
        """Simulators where the catalog says Gemini and OpenAI are."""
        simulator = part("simulator").Simulator
        urls = {
            name: self.parts.enter_context(simulator(name, keys=[KEY], models=[model])).base_url for name, model in MODELS.items()
        }
        real = part("catalog").preset

        def preset(name: str) -> Any:
            row = real(name)
            return dataclasses.replace(row, base_url=urls[name]) if name in urls else row

        for module in ("provider_factory", "provider_gemini", "provider_openai"):
            if hasattr(part(module), "preset"):
                self.parts.enter_context(mock.patch.object(part(module), "preset", preset))

    def test_python_blocks_run(self) -> None:
        """Every Python block runs as it stands, by itself, and prints something where it has a print."""
        self.stand_in()
        capacity, real = part("capacity"), part("capacity").serving
        if not LONG:  # what a week carries takes a while to reckon; two hours of it show the same

            def two_hours(deployments: Any, ledger: Any, now: float, end: float, *needs: Any) -> Any:
                return real(deployments, ledger, now, min(end, now + 7200.0), *needs)

            self.parts.enter_context(mock.patch.object(capacity, "serving", two_hours))
        (self.folder / "inferrouter.toml").write_text(blocks("toml")[0][1], encoding="utf-8")
        (self.folder / "texts.txt").write_text("one\ntwo\n", encoding="utf-8")
        shown = {}
        for line, text in blocks("python"):
            out = io.StringIO()
            space: dict[str, Any] = {}
            named = {"inferrouter": ir, "inferrouter.simulator": part("simulator")}
            with redirect_stdout(out), mock.patch.dict(sys.modules, named):
                exec(compile("\n" * (line - 1) + text, str(README), "exec"), space)
            if "router" in space:
                space["router"].close()
            shown[line] = out.getvalue()
            self.assertEqual(bool(shown[line].strip()), "print(" in text, f"line {line}: {shown[line]!r}")
        self.assertGreaterEqual(len(shown), 7)
        self.assertIn("The tool weather answered: 8 degrees", "".join(shown.values()))

    def test_the_file_has_no_problem(self) -> None:
        """The README's configuration file is read without a warning, and its alias has both steps."""
        (self.folder / "inferrouter.toml").write_text(blocks("toml")[0][1], encoding="utf-8")
        with ir.Router.from_file("inferrouter.toml") as router:
            self.assertEqual(router.warnings, ())
            self.assertEqual(len(router.explain(ir.ChatRequest("Hello!")).candidates), 2)
        self.assertTrue((self.folder / "quota.sqlite").is_file(), "beside the file")

    def test_settings_exist(self) -> None:
        """Every setting in the table of an account's settings is one, and every limit's name too."""
        fields = {field.name for field in dataclasses.fields(ir.AccountConfig)}
        named = first_column("Configuration file")
        self.assertLessEqual(set(named), fields)
        self.assertGreaterEqual(len(named), 15)
        limits = re.findall(r"`(rpm [a-z ]*)`|`(tpm [a-z ]*)`", section("Configuration file"))
        self.assertEqual({name for pair in limits for name in "".join(pair).split()}, set(part("account").LIMIT_KEYS))

    def test_names_exist(self) -> None:
        """Every `ir.Name`, every error, every policy, every provider and every variable that is named exists."""
        text = README.read_text(encoding="utf-8")
        for name in {*re.findall(r"\bir\.([A-Za-z_]+)", text), *re.findall(r"`([A-Za-z]+Error)\b", text)}:
            self.assertTrue(hasattr(ir, name), name)
        catalog = section("Adding providers").partition("catalog (")[2].partition(")")[0]
        self.assertLessEqual(set(re.findall(r"`(.*?)`", catalog)), part("provider_factory").KNOWN_PROVIDERS)
        for policy in part("config").POLICIES:
            self.assertIn(f"`{policy}`", section("Policies"))
        known = {name for row in part("catalog").PRESETS.values() for name in row.env}
        self.assertLessEqual(set(re.findall(r"\b[A-Z]+_API_KEY\b", text)), known)

    def test_every_module_has_its_place_on_the_map(self) -> None:
        """Each module is matched by a name in the map of the code, and each name there by a module."""
        text = section("How the code is laid out")
        names = set(re.findall(r"`([a-z_0-9*]+)`", text))
        modules = {path.stem for path in Path(str(ir.__file__)).parent.glob("*.py")} - {"__init__", "__main__"}
        self.assertEqual({each for each in modules if not any(fnmatch(each, name) for name in names)}, set())
        self.assertEqual({name for name in names if not any(fnmatch(each, name) for each in modules)}, set())

    def test_what_an_outage_costs(self) -> None:
        """As many requests as README says go to a provider that is out: three where it has one account, two where it has more."""
        asked = []
        for count in (1, 2):
            accounts = [ir.AccountConfig("mock", f"a{number}") for number in range(count)]
            provider = ir.MockProvider("mock", default=503)
            with ir.Router(ir.Config(accounts, default_model="mock/any"), [provider], clock=FakeClock()) as router:
                for _ in range(9):
                    with self.assertRaises(ir.InferRouterError):
                        router.chat("Hello!")
            asked.append(len(provider.calls))
        self.assertEqual(asked, [3, 2])
        self.assertIn("costs two or three requests", section("Why"))

    def test_commands_exist(self) -> None:
        """Every command line shown under Command line is one that the program takes."""
        lines = first_column("Command line")[1:]
        parser = part("cli")._parser()
        for line in lines:
            if not line.startswith(("--", "store")):
                with self.subTest(line):
                    self.assertEqual(parser.parse_args(re.findall(r"[^\s\"]+", line)).command, line.split()[0])
        shown = next(each for each in parser._actions if each.dest == "command").choices
        self.assertEqual({line.split()[0] for line in lines}, set(shown) - {"catalog"})  # the older name of providers


@unittest.skipUnless(EXAMPLES.is_dir() and PACKAGE == "inferrouter", "the examples are not here, or import another package")
class ExamplesTest(unittest.TestCase):
    def setUp(self) -> None:
        parts = ExitStack()
        self.addCleanup(parts.close)
        parts.enter_context(mock.patch.dict(os.environ, {"OPENAI_API_KEY": "costs"}, clear=True))
        parts.enter_context(mock.patch.object(sys, "path", [str(EXAMPLES), *sys.path]))
        parts.enter_context(mock.patch.dict(sys.modules))

    def test_examples_run(self) -> None:
        """Every example runs without a key of a free tier, leaves one that may cost alone, and shows what it is about."""
        facts = {
            "chat.py": "gemini/gemini-free gemini-3.5-flash: ",
            "engines.py": "6 requests counted for 6 rows",
            "limits.py": "call 6: paid, $0.0000",
            "own_store.py": " claims about a store hold",
            "stream.py": " tokens from gemini-free",
            "tools.py": "the model calls weather(",
        }
        installing = dict.fromkeys(
            ("celery_workers.py", "dask_tasks.py", "engine_jobs.py", "queue_workers.py", "ray_tasks.py", "workers.py"),
            "this example needs",
        )
        self.assertEqual(sorted(facts | installing), sorted(path.name for path in EXAMPLES.glob("[!_]*.py")))
        with mock.patch("importlib.util.find_spec", lambda name: None):  # with everything they run in tests of their own
            for name, fact in installing.items():
                with self.subTest(name), redirect_stdout(io.StringIO()) as out:
                    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
                    self.assertIn(fact, out.getvalue())
        for name, fact in facts.items():
            with self.subTest(name), redirect_stdout(io.StringIO()) as out:
                runpy.run_path(str(EXAMPLES / name), run_name="__main__")
                self.assertIn(fact, out.getvalue())

    def test_own_store(self) -> None:
        """The example's store counts as the naive model does; with a step that is not atomic it fails the suite."""
        space = runpy.run_path(str(EXAMPLES / "own_store.py"))
        ledger_model.run(self, space["OwnStore"](), 1, rounds(1500, 500))

        class Hasty(part("cell").Cell):  # type: ignore[misc]  # the module is looked up as the suite was told to
            def replace(self, seen: Any, value: Any) -> bool:
                self.__init__(value)  # type: ignore[misc]  # as if nobody had been faster
                return True

        def hasty() -> Any:
            store = space["OwnStore"]()
            store._kept = Hasty(store._kept.look()[0])
            return store

        case = type("Case", (space["OwnStoreTest"],), {"make_store": lambda self: hasty()})
        for name in (
            "test_threads_reserve_in_the_middle",
            "test_threads_settle_in_the_middle",
            "test_threads_hold_in_the_middle",
        ):
            result = unittest.TestResult()
            case(name).run(result)
            self.assertEqual((len(result.failures), len(result.errors)), (1, 0), name)

    def test_the_file(self) -> None:
        """The example configuration is right with its variables set and without them."""
        keys = {"GEMINI_API_KEY": "g", "GROQ_API_KEY": "q"}
        for env, accounts, warnings in ((keys, 3, 0), ({}, 1, 2)):
            config, found = part("config_file").load_config(
                EXAMPLES / "inferrouter.toml", env=env, known_providers=part("provider_factory").KNOWN_PROVIDERS
            )
            self.assertEqual((len(config.accounts), len(found)), (accounts, warnings))


if __name__ == "__main__":
    unittest.main()
