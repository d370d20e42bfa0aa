"""What a script pays before its first answer, and that the public names are all there although nothing is loaded for them."""

from __future__ import annotations

import ast
import contextlib
import copy
import dataclasses
import inspect
import io
import pickle
import pydoc
import shutil
import subprocess
import sys
import tempfile
import traceback
import typing
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests import ir, part
from tests.servers import environment

PACKAGE = Path(str(ir.__file__)).parent
frozen = part("frozen")
OLD = ("python3.10", "python3.9", "python3.8")


def fresh(*scripts: str) -> list[str]:
    """What each of `scripts` prints in an interpreter of its own, where the package is on the path; they run side by side."""
    return [printed(process) for process in [begun(script) for script in scripts]]


def begun(script: str) -> subprocess.Popen[str]:
    """An interpreter of its own that runs `script`, with the package on the path."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r})\n{script}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def printed(process: subprocess.Popen[str]) -> str:
    """What `process` has printed when it ends, which it must do well."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


def found(name: str) -> str:
    """Where an interpreter is, "" if it does not start; a version manager may have names for what it has not installed."""
    path = shutil.which(name)
    command = [path or "", "-c", "import sys; print(sys.executable)"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() if path else ""


class Names(unittest.TestCase):
    def test_the_table_and_the_type_checkers_block_agree(self) -> None:
        """Each public name stands once in `__all__`, in the table and in the block that type checkers read, with one module."""
        tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
        block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
        seen = {alias.name: node.module for node in imports for alias in node.names}
        lists = {
            "the TYPE_CHECKING block": [alias.name for node in imports for alias in node.names],
            "__all__": [name for name in ir.__all__ if name != "__version__"],
            "_NAMES": [name for names in ir._NAMES.values() for name in names.split()],
        }
        every = {name for names in lists.values() for name in names}
        for where, names in lists.items():
            self.assertEqual(every - set(names), set(), f"not in {where} of __init__.py")
            self.assertEqual(len(names), len(set(names)), f"twice in {where} of __init__.py")
        self.assertEqual(seen, ir._HOME, "the TYPE_CHECKING block and _NAMES have a name from different modules")

    def test_every_name_is_there(self) -> None:
        """Each public name is found, belongs to the module that the table names, and is the same object every time."""
        for name, module in ir._HOME.items():
            self.assertIs(getattr(ir, name), getattr(part(module), name))
            self.assertIs(getattr(ir, name), getattr(ir, name))

    def test_dir_help_and_star(self) -> None:
        """`dir`, `help` and `import *` show every public name, before any was used."""
        name = PACKAGE.name
        script = f"import {name} as ir\nprint(set(ir.__all__) - set(dir(ir)))\nfrom {name} import *\nprint(Router, Secret)"
        missing, star = fresh(script)[0].splitlines()
        self.assertEqual(missing, "set()")
        self.assertIn("Router", star)
        with contextlib.redirect_stdout(io.StringIO()):
            text = pydoc.plain(pydoc.render_doc(ir))
        for name in ("class Router", "class ChatRequest", "load_config("):
            self.assertIn(name, text)

    def test_modules_are_attributes(self) -> None:
        """A module that holds public names can be reached as an attribute without an import of its own."""
        self.assertEqual(fresh(f"import {PACKAGE.name} as ir\nprint(ir.errors.ConfigError.__name__)"), ["ConfigError\n"])

    def test_unknown_names(self) -> None:
        """A name that is not there is an AttributeError that names the nearest one, and no ImportError."""
        with self.assertRaisesRegex(AttributeError, "no attribute 'Roter'; did you mean 'Router'"):
            ir.Roter  # noqa: B018  reading it is the point
        with self.assertRaisesRegex(AttributeError, r"no attribute '__wrapped__'$"):
            ir.__wrapped__  # noqa: B018  as above
        self.assertFalse(hasattr(ir, "zzz"))

    def test_one_guess(self) -> None:
        """A program that ends with a misspelt name shows one guess, not Python's own after it."""
        script = f"import {PACKAGE.name} as ir\nir.Providr"
        ran = subprocess.run(
            [sys.executable, "-S", "-c", script], capture_output=True, text=True, cwd=PACKAGE.parent, check=False
        )
        self.assertEqual(ran.stderr.lower().count("did you mean"), 1, ran.stderr)


class Loading(unittest.TestCase):
    def importing(self, script: str) -> str:
        """`script` after the package's import, and then what is loaded."""
        return f"import {PACKAGE.name} as ir\n{script}\nprint(*sys.modules)"

    def test_importing_loads_nothing(self) -> None:
        """The import itself loads no module of the package, nor of the stdlib."""
        loaded, before = fresh(self.importing(""), "print(*sys.modules)")
        self.assertEqual(set(loaded.split()) - set(before.split()), {PACKAGE.name})

    def test_a_router_loads_what_it_needs(self) -> None:
        """A router over one dialect loads no other, nothing that shows or simulates, and no dear module of the stdlib."""
        script = (
            "account = ir.AccountConfig('own', 'a', base_url='http://127.0.0.1:9/v1', dialect='openai')\n"
            "router = ir.Router(ir.Config(accounts=[account], default_model='own/m')); ir.ChatRequest('hi')"
        )
        loaded = set(fresh(self.importing(script))[0].split())
        for name in (
            *(
                "provider_gemini",
                "provider_anthropic",
                "provider_mock",
                "quota_sqlite",
                "config_file",
                "status",
                "stream",
                "tool",
            ),
            *("openai_reply", "openai_stream", "error_table", "connections", "simulator", "demo", "cli", "conformance"),
        ):
            self.assertNotIn(f"{PACKAGE.name}.{name}", loaded)
        dear = {"logging", "hmac", "random", "difflib", "pathlib", "http.client", "ssl", "sqlite3", "zoneinfo"}
        dear |= {"dataclasses", "inspect"}
        self.assertEqual(loaded & dear, set())

    def test_a_first_call_asks_urllib_where_a_proxy_is_named(self) -> None:
        """A call loads none of `dataclasses`, `urllib.request` and `http.client`, which load much; where the environment names a
        proxy it asks urllib for it."""
        script = (
            "account = ir.AccountConfig('own', 'a', base_url='http://127.0.0.1:9/v1', dialect='openai')\n"
            "with ir.Router(ir.Config(accounts=[account], default_model='own/m')) as router:\n"
            "    try: router.chat_completion(ir.ChatRequest('hi'))\n"
            "    except ir.AllCandidatesFailedError: pass"
        )
        loads = {"urllib.request", "http.client"}
        asks = sys.platform in ("darwin", "win32")  # there the system may name one
        running = []
        for variables, named in (({}, False), ({"All_Proxy": ""}, True), ({"https_proxy": "http://127.0.0.1:1"}, True)):
            with environment(**variables):
                running.append((variables, named, begun(self.importing(script))))
        for variables, named, process in running:
            loaded = set(printed(process).split())
            with self.subTest(variables):
                self.assertIn("ssl", loaded)
                self.assertEqual(loads & loaded, loads if named or asks else set())
                self.assertEqual(loaded & {"dataclasses", "inspect"}, set())

    def test_old_interpreters_are_told(self) -> None:
        """Python 3.10 and older get one line that says what is needed, under whatever name the folder was copied."""
        with ThreadPoolExecutor(len(OLD)) as pool:
            old = next(filter(None, pool.map(found, OLD)), None)
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(PACKAGE, Path(folder) / "vendored", ignore=shutil.ignore_patterns("__pycache__"))
            script = "import vendored"
            if old is None:  # then as if this one were old
                old, script = sys.executable, "import sys; sys.version_info = (3, 10, 0); import vendored"
            commands = ([old, "-c", script], [old, "-m", "vendored"] if old != sys.executable else [old, "-c", script])
            pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            for process in [subprocess.Popen(command, cwd=folder, **pipes) for command in commands]:
                out, err = process.communicate(timeout=60)
                self.assertEqual((process.returncode, out), (1, ""))
                self.assertRegex(err, r"\Avendored needs Python 3\.11 or newer; this is Python 3\.\S+\n\Z")


@frozen.frozen_value
class Point:
    """A value with every kind of field."""

    x: int
    y: list[int] = frozen.field(default_factory=list)
    note: str = frozen.field(default="", repr=False, compare=False)
    own: dict[str, int] = frozen.field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x")


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """The same by the standard library."""

    x: int
    y: list[int] = dataclasses.field(default_factory=list)
    note: str = dataclasses.field(default="", repr=False, compare=False)
    own: dict[str, int] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)


class Place(frozen.NamedTuple):
    """A place."""

    x: int
    y: int = 2

    def sum(self) -> int:
        return self.x + self.y

    @property
    def total(self) -> int:
        return self.sum()


class TypedPlace(typing.NamedTuple):
    """A place."""

    x: int
    y: int = 2


class Values(unittest.TestCase):
    """`frozen_value` makes what `dataclass(frozen=True, slots=True)` makes."""

    def test_construction(self) -> None:
        """Arguments by place and by name, defaults, a new list each time, wrong arguments, and the check after."""
        for kind in (Point, Plain):
            made: Any = kind(1)
            self.assertEqual((made.x, made.y, made.note), (1, [], ""))
            self.assertIsNot(made.y, kind(1).y)
            self.assertEqual(kind(y=[2], x=1, note="n").y, [2])
            self.assertIsNot(dataclasses.replace(made, x=2).own, made.own)
            for wrong in ({}, {"x": 1, "z": 2}):
                with self.assertRaisesRegex(TypeError, r"__init__\(\)"):
                    kind(**wrong)
        with self.assertRaises(ValueError):
            Point(-1)

    def test_the_first_ones_are_as_the_later_ones(self) -> None:
        """Before its `__init__` is compiled and after, a class takes the same arguments and refuses others in the same words."""

        @frozen.frozen_value
        class Fresh:
            """A value of its own: nobody has made one."""

            x: int
            y: int = 2
            made: list[int] = frozen.field(default_factory=list)
            inner: int = frozen.field(init=False, repr=False, compare=False)

        @frozen.frozen_value
        class Wide:
            """One with more fields, which are set in another way."""

            x: int
            y: int = 2
            made: list[int] = frozen.field(default_factory=list)
            inner: list[int] = frozen.field(default_factory=list, init=False)
            a: int = 3
            b: int = 4

        class Heir(Wide):
            """One that has more than its class knows of."""

        for kind in (Fresh, Wide, Heir):
            self.assertEqual([self.tries(kind) for _ in range(30)], [self.tries(kind)] * 30)
            made: Any = kind(1)
            self.assertEqual((type(made), made, made.x), (kind, kind(1), 1))
            with self.assertRaises(dataclasses.FrozenInstanceError):
                made.x = 2
        for kind in (Fresh, Wide):
            self.assertEqual(vars(kind)["__init__"].__class__.__name__, "function")

    def tries(self, kind: Any) -> list[str]:
        told = []
        for args, named in (((1,), {}), ((1, 3, [4]), {}), ((), {"y": 1, "x": 2}), ((1,), {"made": [2]}), ((1, 2), {"x": 1})):
            told.append(self.told(kind, *args, **named))
        for args, named in (((), {}), ((1, 2, [3], 4), {}), ((1,), {"z": 1}), ((1,), {"inner": 1}), ((), {"y": 1})):
            told.append(self.told(kind, *args, **named))
        self.assertIsNot(kind(1).made, kind(1).made)
        return told

    def told(self, kind: Any, *args: Any, **named: Any) -> str:
        try:
            return repr(kind(*args, **named))
        except TypeError as exc:
            return str(exc)

    def test_a_refusal_shows_no_argument(self) -> None:
        """A traceback with locals shows no argument of a value that could not be made, be it the first or the hundredth."""
        for kind in (ir.AccountConfig, Point) * 15:
            self.assertNotIn("canary", self.shown(kind))

    def shown(self, kind: Any) -> str:
        try:
            kind("own", "a", headers={"x": "".join(("can", "ary"))}, wrong=1)
        except (TypeError, ir.ConfigError) as exc:
            return "".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format())
        raise self.failureException("it was made")

    def test_quick(self) -> None:
        """What `quick` makes is what the class makes, as immutable, by place and by name, and refuses the same arguments."""
        make, kind = frozen.quick(ir.Usage), ir.Usage
        for args, named in (((), {}), ((1, 2, 3), {}), ((1,), {"estimated": True, "cached_tokens": 5})):
            made = make(*args, **named)
            self.assertIs(type(made), kind)
            self.assertEqual((made, repr(made), hash(made)), (kind(*args, **named), repr(kind(*args, **named)), hash(made)))
            self.assertEqual(pickle.loads(pickle.dumps(made)), copy.deepcopy(made))
            with self.assertRaises(dataclasses.FrozenInstanceError):
                made.prompt_tokens = 1
        for wrong in ({"tokens": 1}, {"prompt_tokens": 1, "x": 2}):
            with self.assertRaises(TypeError):
                make(**wrong)
        with self.assertRaisesRegex(TypeError, "Message validates its arguments: call Message"):
            frozen.quick(ir.Message)
        self.assertEqual(frozen.quick(ir.Message, checked=True)("assistant", "x"), ir.Message("assistant", "x"))

    def test_named_tuples(self) -> None:
        """What is made of `frozen.NamedTuple` is what `typing.NamedTuple` makes: fields, defaults, methods, repr, pickles."""
        one, other = Place(1), TypedPlace(1)
        self.assertEqual((one, one._fields, one._field_defaults), (other, other._fields, other._field_defaults))
        self.assertEqual(repr(one), repr(other).replace("TypedPlace", "Place"))
        self.assertEqual((one.sum(), one.total, Place.__doc__), (3, 3, "A place."))
        self.assertEqual((pickle.loads(pickle.dumps(one)), one._replace(y=5)), (one, Place(1, 5)))
        self.assertEqual(type(pickle.loads(pickle.dumps(one))), Place)
        self.assertEqual(Place.__annotations__, {"x": "int", "y": "int"})

    def test_behaviour(self) -> None:
        """repr, equality, hash, copies, pickles, replace, fields and refusal of any change are the same."""
        one: Any = Point(1, [2], "secret")
        other: Any = Plain(1, [2], "secret")
        self.assertEqual(repr(one), repr(other).replace("Plain", "Point"))
        self.assertEqual(one, Point(1, [2], "another"))
        self.assertNotEqual(one, Point(2, [2]))
        self.assertNotEqual(one, other)
        self.assertEqual(hash(Point(1, ())), hash(Plain(1, ())))  # type: ignore[arg-type]  # hashable stand-ins
        self.assertEqual([copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))], [one] * 3)
        self.assertEqual(pickle.loads(pickle.dumps(one)).note, "secret")
        self.assertEqual(dataclasses.replace(one, x=5), Point(5, [2]))
        self.assertEqual([field.name for field in dataclasses.fields(one)], ["x", "y", "note", "own"])
        self.assertEqual(one.__slots__, other.__slots__)
        self.assertEqual(one.__match_args__, other.__match_args__)
        for made in (one, other):
            self.assertTrue(type(made).__dataclass_params__.frozen)
            self.assertFalse(hasattr(made, "__dict__"))
            for change in (lambda made=made: setattr(made, "x", 2), lambda made=made: delattr(made, "x")):
                with self.assertRaises(dataclasses.FrozenInstanceError):
                    change()

    def test_for_dataclasses(self) -> None:
        """The stdlib's functions take it as one of theirs: its fields, `asdict`, its signature, `__replace__`."""
        one: Any = Point(1, [2], "n")
        for mine, plain in zip(dataclasses.fields(Point), dataclasses.fields(Plain), strict=True):
            for fact in ("name", "type", "default", "default_factory", "init", "repr", "compare", "hash", "kw_only"):
                self.assertEqual(getattr(mine, fact), getattr(plain, fact))
        self.assertEqual(dataclasses.asdict(one), {"x": 1, "y": [2], "note": "n", "own": {}})
        self.assertEqual((one.__replace__(x=5), frozen.replace(one, x=5)), (Point(5, [2]), Point(5, [2])))
        self.assertEqual(frozen.replace(one, x=5).note, "n")
        self.assertEqual(str(inspect.signature(Point)).replace("'", ""), str(inspect.signature(Plain)).replace("'", ""))

    def test_public_values_before_any_was_made(self) -> None:
        """The signature, help, fields and hints of every public value, and what the stdlib does with one, in any CPython."""
        script = f"from typing import Any\nimport {PACKAGE.name} as ir\n{inspect.getsource(misread)}"
        halves = fresh(*(f"{script}\nprint(*misread(ir, {half}), sep=', ')" for half in (0, 1)))
        self.assertEqual(halves, ["\n", "\n"])

    def test_a_class_that_inherits_from_a_value(self) -> None:
        """A dataclass of the user's that adds a field to a value keeps it in repr, copies, pickles and `replace`."""
        one: Any = Further(1, note="n", more=7)
        self.assertIn("more=7", repr(one))
        self.assertEqual((frozen.replace(one, x=5).more, dataclasses.replace(one, x=5).more), (7, 7))
        self.assertEqual((copy.copy(one).more, pickle.loads(pickle.dumps(one)).more, one.note), (7, 7, "n"))


def misread(ir: Any, half: int) -> list[str]:
    """What the stdlib's tools get wrong about every other public value of `ir`, from the one at `half` on. Run by itself, in an
    interpreter that has made none."""
    import copy
    import dataclasses
    import inspect
    import pickle
    import pydoc
    import typing

    public = [getattr(ir, name) for name in ir.__all__]
    values = [
        each for each in public if dataclasses.is_dataclass(each) and each is not ir.Auth
    ]  # that has an __init__ of its own
    wrong = [] if len(values) > 40 else ["values"]
    for cls in values[half::2]:
        names = [field.name for field in dataclasses.fields(cls)]
        given = [field.name for field in dataclasses.fields(cls) if field.init]
        told = {
            "signature": list(inspect.signature(cls).parameters) == given,
            "help": all(f"{name}: " in pydoc.plain(pydoc.render_doc(cls)) for name in given),
            "hints": list(typing.get_type_hints(cls)) == names,
            "hints of __init__": list(typing.get_type_hints(cls.__init__)) == [*given, "return"],
        }
        wrong += [f"{cls.__name__}: {what}" for what, right in told.items() if not right]
    for cls in public:
        if hasattr(cls, "_fields") and tuple(typing.get_type_hints(cls)) != cls._fields:
            wrong.append(f"{cls.__name__}: hints")
    one = ir.Message("user", "hi")
    replaced = [dataclasses.replace(one, content="ho")] + ([copy.replace(one, content="ho")] if hasattr(copy, "replace") else [])
    done = {
        "replace": set(replaced) == {ir.Message("user", "ho")},
        "asdict": dataclasses.asdict(one)["content"] == "hi",
        "is_dataclass": dataclasses.is_dataclass(one),
        "copies": [copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))] == [one] * 3,
    }
    return wrong + [what for what, right in done.items() if not right]


@dataclasses.dataclass(frozen=True, slots=True)
class Further(Point):
    """A point and more."""

    more: int = 0


if __name__ == "__main__":
    unittest.main()
