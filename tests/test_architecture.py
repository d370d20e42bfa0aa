"""The shape of the package: who may import whom, what an import costs, and what must stand in no file."""

from __future__ import annotations

import ast
import gc
import json
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests import ir

PACKAGE = Path(str(ir.__file__)).parent
ROOT = Path(__file__).resolve().parents[1]

# From the ground up; a module may import what stands before it, on its own floor or below.
FLOORS = """
ground      own_process lazy_pattern frozen cell turn moments rejections errors
ground      escapes secret sse content tool shapes records responses
tools       validation spelling costs answer_sizes limits notices events meter meter_metrics meter_otel
outside     spend_caps limit_rows account wire transport_config config config_file
outside     catalog_providers catalog_models catalog_prices catalog
outside     http_answer connections http_opener transport policy outage health
ledger      quota_blocks quota_learned quota quota_windows quota_counting quota_plain quota_seen quota_book quota_memory
ledger      quota_file quota_schema quota_session quota_sqlite
ledger      quota_raw quota_mirror quota_lanes quota_exchange quota_remote_buckets quota_remote
ledger      quota_redis_lua quota_redis quota_postgres_windows quota_postgres_sql quota_postgres quota_url
ledger      guarded_store
ledger      conformance_store conformance_clock conformance_threads conformance_learning conformance
contract    wire_json provider error_body error_table limit_headers rate_headers
dialects    openai_request openai_reply openai_stream provider_openai
dialects    gemini_request gemini_reply provider_gemini
dialects    anthropic_request anthropic_reply provider_anthropic provider_mock
dialects    openai_server anthropic_server responses_server
who-may     provider_factory assumptions environment agreement bound_account unknown_names routes
who-may     assessment kept_assessments candidates ordering
walk        dry_run soonest redaction failure_table learning call_events waiting waiting_line attempt waiting_turn walk
operations  calls stream_end stream
jobs        map_errors map_crew map_pacing map_serving map_workers mapping capacity_serving capacity
object      status resting router_parts misuse public_call router_makers router
batch       batch_prompt batch_schema batch_lines batch_input batch_output batch_state batch_index
batch       batch_answer batch_keep batch_progress batch_checks batch
roof        simulator_prompt simulator_model simulator_wire simulator_server
roof        simulator_openai simulator_gemini simulator_anthropic simulator
roof        serve_head serve_bodies serve_http serve_errors serve_guard serve_log serve_watch serve_turns serve_dialect
roof        serve_openai serve_responses serve_anthropic serve_chat
roof        serve_page_style serve_page_script serve_page serve_status serve_routes serve_port serve_endpoint
roof        terminal demo batch_display batch_merge chart
roof        cli_wait cli_common cli_ask cli_batch cli_plan cli_models cli_status cli_probe cli_check cli_init cli_demo cli_serve
roof        cli __main__ __init__
"""
ORDER = [name for line in FLOORS.strip().splitlines() for name in line.split()[1:]]

HEAVY = {
    *("urllib.request", "http.client", "http.server", "ssl", "sqlite3", "tomllib", "argparse", "zoneinfo", "mimetypes"),
    *("unittest", "asyncio"),
}
REVEALERS = {"secret", "http_opener", "quota_url"}
HIDDEN = {"_value", "_spelled", "_words"}
"""Where a secret keeps what it hides."""
STUBS = {"_typeshed"}  # exists for type checkers alone
LOCKS = {
    *("turn", "waiting"),  # bells: each is one sleeper's own
    *(
        "quota_lanes",
        "quota_mirror",
        "quota_exchange",
        "quota_postgres",
    ),  # stores with threads, and a rule for handlers, of their own
    *("map_pacing", "map_workers", "batch_keep"),  # work in threads of their own
}
"""What may have locks. A call takes none: a signal handler, a finalizer or a forked child would wait for it for ever."""
OWN_CLOCKS = {"demo", "terminal", "cli_demo", "cli_init", "cli_models", "cli_probe", "cli_status", "cli_wait"}
"""Programs on the roof, which show real time to a person."""
LONGEST = 460


@cache
def sources() -> dict[str, str]:
    return {path.stem: path.read_text("utf-8") for path in sorted(PACKAGE.glob("*.py"))}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(sources()[name])


@cache
def nodes(name: str) -> list[ast.AST]:
    """Every statement and expression of a module that these tests look at."""
    kinds = (ast.ImportFrom, ast.Import, ast.Call, ast.Attribute)
    return [node for node in ast.walk(tree(name)) if isinstance(node, kinds)]


def setUpModule() -> None:
    """The trees are hundreds of thousands of objects, none of them garbage: looking for some would take longer than parsing."""
    Vendored.begin()
    gc.disable()
    unittest.addModuleCleanup(gc.enable)
    for kept in (nodes, tree, sources):
        unittest.addModuleCleanup(kept.cache_clear)


def exported(name: str) -> list[str] | None:
    """The names in a module's `__all__`, None if it has none."""
    for node in tree(name).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            found: list[str] = ast.literal_eval(node.value)  # type: ignore[attr-defined]  # both kinds have a value
            return found
    return None


def imports(name: str) -> Iterator[tuple[int, str | None, list[str]]]:
    """(level, module, names) of every import statement, wherever it stands; `import x` has level 0 and no names."""
    for node in nodes(name):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, []


def inner_imports(name: str) -> Iterator[str]:
    """The package's own modules that `name` imports; "" is the package itself."""
    for level, module, names in imports(name):
        if level == 1 and module is not None:
            yield module
        elif level == 1:
            yield from (found if found in sources() else "" for found in names)


def clock_reads(name: str) -> list[str]:
    """Calls of the machine's clocks: time.time(), monotonic(), sleep() under any name, datetime.now() and its like."""
    modules = {"time"}
    found = []
    for node in nodes(name):
        if isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "time" and alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module == "time" and node.level == 0:
            found.append(f"{name}: from time import ...")
    for node in nodes(name):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, method = node.func.value, node.func.attr
            timing = isinstance(owner, ast.Name) and owner.id in modules
            dating = method in ("now", "utcnow", "today") and ast.unparse(owner) in ("datetime", "date", "datetime.datetime")
            if timing or dating:
                found.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    return found


def names_read(name: str, wanted: set[str]) -> bool:
    """Whether a module has an attribute of one of these names, or one as a text, as `getattr` would take it."""
    dotted = any(isinstance(node, ast.Attribute) and node.attr in wanted for node in nodes(name))
    return dotted or any(f"{mark}{each}{mark}" in sources()[name] for each in wanted for mark in "'\"")


class Locks(unittest.TestCase):
    def test_a_call_takes_no_lock(self) -> None:
        """Below the roof no module makes a lock, a condition or an event, but those that say why."""
        roof = {name for line in FLOORS.strip().splitlines() if line.startswith("roof") for name in line.split()[1:]}
        made = re.compile(r"\b(?:threading|multiprocessing)\.(?:R?Lock|Condition|Event|\w*Semaphore|Barrier)\(")
        found = {name for name, source in sources().items() if made.search(source)}
        self.assertEqual(found - roof - LOCKS, set())


class Imports(unittest.TestCase):
    def test_every_module_has_its_floor(self) -> None:
        """No module is missing from the table of floors, and none stands there twice."""
        self.assertEqual(set(sources()) - set(ORDER), set())
        self.assertEqual(len(ORDER), len(set(ORDER)))

    def test_the_table_names_no_module_that_is_gone(self) -> None:
        """Every module of the table exists."""
        self.assertEqual(set(ORDER) - set(sources()), set())

    def test_imports_go_strictly_down(self) -> None:
        """Every module imports only what stands before it in the table, lazy and type-only imports included."""
        place = {name: index for index, name in enumerate(ORDER)}
        upward = [
            f"{name} imports {other}"
            for name in sources()
            for other in inner_imports(name)
            if place.get(other, len(ORDER)) >= place.get(name, -1)
        ]
        self.assertEqual(upward, [])

    def test_nobody_inside_imports_the_package_itself(self) -> None:
        """The package root re-exports; no module takes anything from it."""
        self.assertEqual([name for name in sources() if "" in set(inner_imports(name))], [])

    def test_everything_else_is_the_stdlib(self) -> None:
        """Inner imports are relative, and whatever is imported absolutely comes with Python."""
        strange = []
        for name in sources():
            for level, module, _ in imports(name):
                if level > 1 or (level == 0 and str(module).partition(".")[0] not in sys.stdlib_module_names | STUBS):
                    strange.append(f"{name} imports {'.' * level}{module}")
        self.assertEqual(strange, [])

    def test_no_module_is_named_like_one_of_the_stdlib(self) -> None:
        """A folder on the path, or a script beside the modules, shadows nothing."""
        self.assertEqual({name for name in sources() if name in sys.stdlib_module_names}, set())


class Pages(unittest.TestCase):
    def test_every_module_says_what_it_is(self) -> None:
        """Each opens with a docstring of 3 to 12 lines."""
        for name in sources():
            lines = (ast.get_docstring(tree(name)) or "").splitlines()
            self.assertTrue(3 <= len(lines) <= 12, f"{name}: a docstring of {len(lines)} lines")

    def test_no_module_is_too_long(self) -> None:
        """One concept a module fits into a few pages."""
        long = {name: text.count("\n") for name, text in sources().items() if text.count("\n") > LONGEST}
        self.assertEqual(long, {})

    def test_every_exported_name_exists_and_is_listed_once(self) -> None:
        """`__all__` holds names that the module defines or imports, none twice."""
        for name in sources():
            names = exported(name) or []
            bound = {found for _, _, brought in imports(name) for found in brought}
            for node in tree(name).body:
                if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                    bound.add(node.name)
                elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                    bound |= {
                        leaf.id for leaf in ast.walk(node) if isinstance(leaf, ast.Name) and isinstance(leaf.ctx, ast.Store)
                    }
            self.assertEqual(set(names) - bound, set(), name)
            self.assertEqual(len(names), len(set(names)), name)

    def test_every_public_name_says_what_it_does(self) -> None:
        """Each class and function without an underscore has a docstring of its own."""
        silent = [
            f"{name}.{node.name}"
            for name in sources()
            for node in tree(name).body
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_") and not ast.get_docstring(node)
        ]
        self.assertEqual(silent, [])

    def test_the_root_exports_what_it_lists(self) -> None:
        """Everything in the package's `__all__` can be had, and its version is a literal."""
        for name in exported("__init__") or ():
            self.assertTrue(hasattr(ir, name), name)
        self.assertRegex(sources()["__init__"], r'(?m)^__version__ = "\d+\.\d+\.\d+"$')


class Manners(unittest.TestCase):
    def test_nobody_reads_a_clock(self) -> None:
        """Time is handed in; the machine's clocks are defaults that are named, not called."""
        found = [call for name in sources() if name not in OWN_CLOCKS for call in clock_reads(name)]
        self.assertEqual(found, [])

    def test_the_check_for_clocks_sees_one(self) -> None:
        """The programs that read a clock are found by the very check."""
        self.assertTrue(any(clock_reads(name) for name in OWN_CLOCKS))

    def test_only_the_transports_side_reveals_a_key(self) -> None:
        """A secret is revealed next to the socket, and where a store's client library gets its URL; nowhere else, nor is what it
        hides read past `reveal`. The secret's own module names both."""
        self.assertEqual({name for name in sources() if names_read(name, {"reveal"})}, REVEALERS)
        self.assertEqual({name for name in sources() if names_read(name, HIDDEN)}, {"secret"})
        told = re.findall(r"`(\w+)` alone", " ".join((ast.get_docstring(tree("secret")) or "").split()))
        self.assertEqual({"secret", *told}, REVEALERS)

    def test_what_a_secret_hides_is_found_in_it(self) -> None:
        """Each hidden name is one that a secret has, and every slot but the public prefix is among them."""
        secret = ir.Secret("sk-0123456789")
        self.assertTrue(all(hasattr(secret, name) for name in HIDDEN))
        self.assertLessEqual(set(ir.Secret.__slots__) - {"_prefix"}, HIDDEN)

    def test_no_excuse_without_its_reason(self) -> None:
        """A `type: ignore` or `noqa` says why in the same comment."""
        bare = [
            f"{name}:{number}"
            for name, text in sources().items()
            for number, line in enumerate(text.splitlines(), 1)
            if re.search(r"#\s*(type:\s*ignore|noqa)\S*(\s*,\s*[\w-]+\]?)*\s*$", line)
        ]
        self.assertEqual(bare, [])


FRESH = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
package = importlib.import_module("vendored")
loaded = sorted(sys.modules)
for name in json.loads(sys.argv[2]):
    importlib.import_module("vendored." + name)
print(json.dumps([package.__version__, loaded, sorted(name for name in sys.modules if "inferrouter" in name)]))
"""


class Vendored(unittest.TestCase):
    process: subprocess.Popen[str]

    @classmethod
    def begin(cls) -> None:
        """Compiling every module takes an interpreter so long that it had better do it beside the other tests."""
        folder = tempfile.TemporaryDirectory()
        unittest.addModuleCleanup(folder.cleanup)
        shutil.copytree(PACKAGE, Path(folder.name, "vendored"), ignore=shutil.ignore_patterns("__pycache__"))
        modules = json.dumps([name for name in sources() if name != "__init__"])
        command = [sys.executable, "-I", "-S", "-B", "-W", "error", "-c", FRESH, folder.name, modules]
        cls.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        unittest.addModuleCleanup(cls.process.communicate)
        unittest.addModuleCleanup(cls.process.kill)

    def test_a_copied_folder_works_under_any_name_and_loads_nothing_heavy(self) -> None:
        """In a bare Python the folder imports under another name, without a heavy stdlib module, and every module of it too."""
        out, err = self.process.communicate(timeout=60)
        self.assertEqual((self.process.returncode, err), (0, ""))
        version, loaded, by_own_name = json.loads(out)
        self.assertEqual(version, ir.__version__)
        self.assertEqual(HEAVY.intersection(loaded), set())
        self.assertEqual(by_own_name, [])


@unittest.skipUnless((ROOT / "pyproject.toml").is_file(), "not in a checkout")
class Repository(unittest.TestCase):
    def test_no_file_holds_a_path_of_somebodys_machine(self) -> None:
        """Neither this checkout's place nor anybody's home stands in a file of the repository."""
        homes = re.compile(r"(?<![\w./:-])/(?:work|root|home|Users|tmp/brief|tmp/venv)/[\w.]")
        here = (str(ROOT), str(Path.home()))
        found = []
        for path in repository_files():
            try:
                text = path.read_text("utf-8")
            except (UnicodeDecodeError, OSError):
                continue
            hit = homes.search(text) or next((place for place in here if len(place) > 5 and place in text), None)
            if hit and path != Path(__file__).resolve():
                found.append(f"{path.relative_to(ROOT)}: {hit}")
        self.assertEqual(found, [])

    @unittest.skipUnless((ROOT / "README.md").is_file(), "the README is not here")
    def test_the_map_names_who_reveals(self) -> None:
        """README's line about keys names every module that reveals a secret."""
        lines = (ROOT / "README.md").read_text("utf-8").splitlines()
        (line,) = (each for each in lines if "a key is revealed" in each)
        self.assertLessEqual({f"`{name}`" for name in REVEALERS}, set(re.findall(r"`\w+`", line)))


def repository_files() -> Iterator[Path]:
    """Files that are, or could be, part of the repository; what tools leave behind is not."""
    left = {"__pycache__", "build", "dist"}
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part.startswith(".") and part not in (".ci", ".github", ".gitignore") for part in parts)
        if (
            path.is_file()
            and not hidden
            and not left.intersection(parts)
            and not any(part.endswith(".egg-info") for part in parts)
        ):
            yield path


if __name__ == "__main__":
    unittest.main()
