"""Answers as classes: what is asked for each kind of field, what comes back of it, and what is refused, with words."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import pickle
import typing
import unittest
from typing import Any, Generic, Literal, NamedTuple, NewType, TypeVar

from tests import ir, part
from tests.test_chat import router

shapes = part("shapes")
T = TypeVar("T")
UserId = NewType("UserId", int)
Pair = collections.namedtuple("Pair", "left right")


class Place(NamedTuple):
    """A tuple with names."""

    city: str
    degrees: float = 0.0


class Number(enum.Enum):
    """Values that == takes for each other."""

    ONE = 1
    HALF = 0.5
    WHOLE = 2.0


class Level(enum.IntEnum):
    """A number as well."""

    LOW = 1


class Flawed(enum.Enum):
    """Values that JSON has not."""

    ODD = (1, 2)


@dataclasses.dataclass
class Tree:
    """A class that contains itself."""

    name: str
    children: list[Tree]
    parent: Tree | None = None


@dataclasses.dataclass
class Here:
    """Half of a circle of classes."""

    there: There | None


@dataclasses.dataclass
class There:
    """The other half."""

    here: list[Here]


@dataclasses.dataclass
class Box(Generic[T]):
    """A generic class."""

    item: T
    more: list[T]
    rest: dict[str, T | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class NumberBox(Box[int]):
    """A class that says what is in it."""

    name: str = ""


@dataclasses.dataclass
class Partly:
    """Fields that are not all given."""

    given: int
    start: dataclasses.InitVar[int]
    shared: typing.ClassVar[int] = 5
    made: int = dataclasses.field(init=False, default=7)
    step: dataclasses.InitVar[int] = 1

    def __post_init__(self, start: int, step: int) -> None:
        self.made = self.given + start + step


def asked(shape: Any, data: Any) -> Any:
    """What comes back of an answer; `data` is text, or becomes JSON."""
    made, _ = router(data if isinstance(data, str) else json.dumps(data))
    with made:
        return made.chat("JSON", response_format=shape).parsed()


def schema_of(shape: Any) -> Any:
    form = ir.ChatRequest("x", response_format=shape).response_format
    return json.loads(json.dumps(form))["json_schema"]


def one(hint: Any) -> Any:
    """A class with one field `value`."""
    return dataclasses.make_dataclass("One", [("value", hint)])


class Values(unittest.TestCase):
    def value(self, hint: Any, text: str) -> Any:
        return asked(one(hint), f'{{"value": {text}}}').value

    def refused(self, hint: Any, text: str, words: str = "One.value") -> None:
        with self.assertRaisesRegex(ir.MalformedResponseError, words):
            self.value(hint, text)

    def test_choices_have_their_very_type(self) -> None:
        """In a choice true is not 1, 1.0 is not 1, and 1 is not true; a whole number stands for a choice with a point."""
        for hint, text in (
            (Literal[1, 2], "true"),
            (Literal[1, 2], "1.0"),
            (Literal[0, 2], "false"),
            (Literal[True], "1"),
            (Literal["1"], "1"),
            (Literal[None], "0"),
            (Number, "true"),
            (Number, "1.0"),
            (Level, "1.0"),
            (Literal[1], "[1]"),
        ):
            self.refused(hint, text)
        for hint, text, expected in (
            (Literal[1, 2], "2", 2),
            (Literal[True, 1], "true", True),
            (Literal[True, 1], "1", 1),
            (Number, "1", Number.ONE),
            (Number, "0.5", Number.HALF),
            (Number, "2", Number.WHOLE),
            (Level, "1", Level.LOW),
            (Literal[Number.ONE, "x"], "1", Number.ONE),
        ):
            found = self.value(hint, text)
            self.assertEqual((type(found), found), (type(expected), expected))

    def test_numbers_are_finite(self) -> None:
        """A number that is too large for a float is no number, nor a whole one."""
        for hint in (float, int, float | None, list[float]):
            for text in ("1e999", "-1e999"):
                self.refused(hint, f"[{text}]" if hint == list[float] else text)
        self.refused(float, "1" + "0" * 400)
        self.assertEqual(self.value(int, "3.0"), 3)

    def test_keys_are_checked(self) -> None:
        """The keys of a table are what their hint says; numbers are read from their text."""
        self.assertEqual(self.value(dict[int, str], '{"-4": "a"}'), {-4: "a"})
        self.assertEqual(self.value(dict[str, int], '{"4": 1}'), {"4": 1})
        self.assertEqual(self.value(dict[Literal["a"], int], '{"a": 1}'), {"a": 1})
        self.assertEqual(self.value(dict, '{"a": 1}'), {"a": 1})
        self.refused(dict[int, str], '{"x": "a"}', "a key of One.value is a whole number, not 'x'")
        self.refused(dict[Literal["a"], int], '{"b": 1}', "a key of One.value is one of 'a'")
        self.refused(dict[bool, int], '{"true": 1}')
        found = self.value(collections.OrderedDict[str, int], '{"b": 1}')
        self.assertIs(type(found), collections.OrderedDict)

    def test_named_tuples(self) -> None:
        """They are asked for as objects, and come back as what they are; a list is none."""
        self.assertEqual(self.value(Place, '{"city": "P", "degrees": 3}'), Place("P", 3.0))
        self.assertIs(type(self.value(Place, '{"city": "P"}')), Place)
        self.assertEqual(asked(Place, {"city": "P"}), Place("P"))
        self.assertEqual(asked(Pair, {"left": 1, "right": [2]}), Pair(1, [2]))
        self.refused(Place, '["P", 3]', "an object with the fields of Place")
        self.refused(Place, "{}", "has no 'city'")
        schema = schema_of(Place)["schema"]
        self.assertEqual((list(schema["properties"]), schema["required"]), (["city", "degrees"], ["city"]))

    def test_names_of_types(self) -> None:
        """A NewType is what it is made of, as is whatever only qualifies a field."""
        self.assertEqual(self.value(UserId, "5"), 5)
        self.refused(UserId, '"5"')
        self.assertEqual(self.value(typing.Final[int], "5"), 5)

    @unittest.skipUnless(hasattr(typing, "TypeAliasType"), "this Python has no `type` statement")
    def test_type_statements(self) -> None:
        """What a `type` statement names is what it stands for, with its parameters; one that contains itself is refused."""
        made: dict[str, Any] = {}
        exec("type Id = int\ntype Many[X] = list[X]\ntype Endless = int | list[Endless]", made)  # older ones can not read it
        self.assertEqual(self.value(made["Id"], "5"), 5)
        self.assertEqual(self.value(made["Many"][int], "[5]"), [5])
        self.refused(made["Many"][int], '["x"]', r"One.value\[0\] is a whole number")
        with self.assertRaisesRegex(ir.InvalidRequestError, "contains itself, so make that one a dataclass"):
            ir.ChatRequest("x", response_format=one(made["Endless"]))

    def test_a_set_of_what_no_set_holds(self) -> None:
        """It does not fit, in words."""
        self.refused(set[Any], "[[1]]", "One.value is refused by set")


class Classes(unittest.TestCase):
    def test_fields_that_are_not_given(self) -> None:
        """What a class makes itself is not asked for; what it only needs to begin with is."""
        self.assertEqual(asked(Partly, {"given": 1, "start": 10}).made, 12)
        self.assertEqual(asked(Partly, {"given": 1, "start": 10, "step": 5, "made": 99, "shared": 1}).made, 16)
        schema = schema_of(Partly)["schema"]
        self.assertEqual(list(schema["properties"]), ["given", "start", "step"])
        self.assertEqual(schema["required"], ["given", "start"])
        with self.assertRaisesRegex(ir.MalformedResponseError, "Partly has no 'start'"):
            asked(Partly, {"given": 1})

    def test_a_class_that_contains_itself(self) -> None:
        """It is described once, refers to itself, and is built to any depth."""
        leaf = {"name": "leaf", "children": []}
        found = asked(Tree, {"name": "root", "children": [{"name": "twig", "children": [leaf]}], "parent": leaf})
        self.assertEqual(found, Tree("root", [Tree("twig", [Tree("leaf", [])])], Tree("leaf", [])))
        schema = schema_of(Tree)["schema"]
        self.assertEqual(schema["properties"]["children"], {"type": "array", "items": {"$ref": "#/$defs/Tree"}})
        self.assertEqual(schema["$defs"]["Tree"]["properties"], schema["properties"])
        self.assertEqual((schema["type"], schema["$defs"]["Tree"]["additionalProperties"]), ("object", False))
        with self.assertRaisesRegex(ir.MalformedResponseError, r"Tree\.children\[0\] has no 'children'"):
            asked(Tree, {"name": "root", "children": [{"name": "x"}]})

    def test_a_circle_of_classes(self) -> None:
        """Each stands once in what is asked, and both are built."""
        found = asked(Here, {"there": {"here": [{"there": None}]}})
        self.assertEqual(found, Here(There([Here(None)])))
        schema = schema_of(Here)["schema"]
        self.assertEqual(sorted(schema["$defs"]), ["Here", "There"])
        self.assertEqual(schema["properties"]["there"]["anyOf"][0], {"$ref": "#/$defs/There"})

    def test_generic_classes(self) -> None:
        """What they hold is asked for and checked; without it the error says how it is written."""
        self.assertEqual(asked(Box[int], {"item": 1, "more": [2], "rest": {"a": None}}), Box(1, [2], {"a": None}))
        self.assertEqual(asked(Box[Tree], {"item": {"name": "n", "children": []}, "more": []}).item, Tree("n", []))
        self.assertEqual(asked(NumberBox, {"item": 1, "more": []}), NumberBox(1, []))
        self.assertEqual(
            asked(one(Box[Box[int]]), {"value": {"item": {"item": 1, "more": []}, "more": []}}).value.item, Box(1, [])
        )
        for shape in (Box[int], NumberBox):
            with self.assertRaisesRegex(ir.MalformedResponseError, r"Box\.item is a whole number, not 'x'"):
                asked(shape, {"item": "x", "more": []})
        with self.assertRaisesRegex(ir.InvalidRequestError, r"Box\.item .*as in Box\[int\]"):
            ir.ChatRequest("x", response_format=Box)
        request = pickle.loads(pickle.dumps(ir.ChatRequest("x", response_format=Box[int])))
        self.assertEqual(request.response_format.shape, Box[int])

    def test_names_that_a_schema_has_too(self) -> None:
        """Fields may be called as the parts of a schema are."""
        shape = dataclasses.make_dataclass("Words", [("properties", str), ("type", int), ("required", bool)])
        schema = schema_of(shape)
        self.assertEqual(list(schema["schema"]["properties"]), ["properties", "type", "required"])
        self.assertEqual(schema["strict"], True)

    def test_what_is_no_shape_says_what_to_do(self) -> None:
        """A list, a union, a plain type and an object are refused with the way to ask for them."""
        for form, words in (
            (
                list[int],
                "not list[int]: an answer is an object, so put it into a field: @dataclass class Answer: value: list[int]",
            ),
            (Tree | None, "put it into a field"),
            (typing.Optional[int], "put it into a field"),  # noqa: UP045  as people write it
            (Literal["a"], "put it into a field"),
            (int, "not int: an answer is an object, so put it into a field"),
            (Number, "not Number: an answer is an object, so put it into a field"),
            (Tree("x", []), "not an object of class Tree: give the class itself"),
            ([Tree], "not an object of class list"),
        ):
            with self.assertRaises(ir.InvalidRequestError) as caught:
                ir.ChatRequest("x", response_format=form)
            self.assertIn(words, str(caught.exception))

    def test_fields_that_no_schema_can_say(self) -> None:
        """Choices that JSON has not, and classes that cannot be found, are refused by name."""

        def in_a_function() -> Any:
            @dataclasses.dataclass
            class Outside:
                inside: Nowhere  # type: ignore[name-defined]  # noqa: F821  undefined is the point

            return Outside

        for shape, words in (
            (one(Flawed), r"One\.value: its values must be texts"),
            (one(Literal[b"x"]), r"One\.value: its values must be texts"),
            (one(enum.Enum("Empty", [])), r"One\.value: its values must be texts"),
            (in_a_function(), "in Outside the name 'Nowhere' is not defined: define classes that fields name at the top"),
        ):
            with self.assertRaisesRegex(ir.InvalidRequestError, words):
                ir.ChatRequest("x", response_format=shape)

    def test_a_local_class_that_contains_itself(self) -> None:
        """It knows its own name."""

        @dataclasses.dataclass
        class Local:
            inner: Local | None = None

        self.assertEqual(asked(Local, {"inner": {}}), Local(Local()))


class Schemas(unittest.TestCase):
    def test_types_that_are_no_words(self) -> None:
        """A `type` that is an object, a list of such, or an empty list is refused as what it is."""
        for kind in ({}, [], [{}], [[]], 5, "xml", ["xml"], [None]):
            with self.assertRaisesRegex(ir.InvalidRequestError, "response_format's type is"):
                ir.ChatRequest("x", response_format={"type": kind})
        self.assertTrue(ir.ChatRequest("x", response_format={"type": ["object", "null"]}).response_format)


if __name__ == "__main__":
    unittest.main()
