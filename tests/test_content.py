"""Frozen data, parts of a message, and tools."""

from __future__ import annotations

import base64
import copy
import dataclasses
import enum
import functools
import json
import os
import pickle
import tempfile
import typing
import unittest
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, Required, TypedDict

from tests import part

content, errors, frozen, tool = part("content"), part("errors"), part("frozen"), part("tool")
Part, Tool, FrozenDict = content.Part, tool.Tool, frozen.FrozenDict

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8
WAV = b"RIFF\x00\x00\x00\x00WAVEfmt "


class Frozen(unittest.TestCase):
    def test_no_mutator_works(self) -> None:
        """Every way of changing a FrozenDict raises TypeError and changes nothing."""
        made = frozen.freeze({"a": 1})
        tries: list[Callable[[Any], object]] = [
            lambda d: d.__setitem__("a", 2),
            lambda d: d.__delitem__("a"),
            lambda d: d.update(a=2),
            lambda d: d.setdefault("b", 2),
            lambda d: d.pop("a"),
            lambda d: d.popitem(),
            lambda d: d.clear(),
            lambda d: d.__ior__({"b": 1}),
        ]
        for attempt in tries:
            with self.assertRaises(TypeError):
                attempt(made)
        self.assertEqual(made, {"a": 1})

    def test_freezing_is_deep_and_cut_off_from_the_original(self) -> None:
        """Dicts become FrozenDicts and lists tuples at every depth; later changes of the original do not show."""
        given = {"a": [1, {"b": [2]}], "c": ({"d": 1},)}
        made = frozen.freeze(given)
        given["a"].append(3)  # type: ignore[attr-defined]  # a list, as seen above
        self.assertEqual(made, {"a": (1, {"b": (2,)}), "c": ({"d": 1},)})
        self.assertIsInstance(made["a"][1], FrozenDict)
        self.assertIsInstance(made["c"][0], FrozenDict)
        self.assertIs(frozen.freeze(made), made)

    def test_a_frozen_dict_still_is_a_dict(self) -> None:
        """It can be written as JSON, hashed, copied and pickled."""
        made = frozen.freeze({"a": [1]})
        self.assertEqual(json.dumps(made), '{"a": [1]}')
        self.assertEqual(hash(made), hash(frozen.freeze({"a": [1]})))
        self.assertIs(copy.copy(made), made)
        self.assertIs(copy.deepcopy(made), made)
        twin = pickle.loads(pickle.dumps(made))
        self.assertEqual(twin, made)
        self.assertIsInstance(twin, FrozenDict)

    def test_a_tool_s_form(self) -> None:
        """It is what `to_dict` says, the same object each time, and no part of what a tool is compared by."""
        one, other = (Tool("f", "Does it.", {"type": "object"}, strict=True) for _ in range(2))
        self.assertEqual((one.form, repr(one), hash(one)), (one.to_dict(), repr(other), hash(other)))
        self.assertIs(one.form, one.form)
        self.assertEqual((one, pickle.loads(pickle.dumps(one)), copy.deepcopy(one).form), (other, other, one.form))

    def test_what_follows_from_one_is_worked_out_once(self) -> None:
        """Of one object, by each function for itself; what fails is tried again."""
        made, asked = frozen.freeze({"a": [1]}), []

        def size(given: Any) -> int:
            asked.append(given)
            return len(given)

        self.assertEqual(
            [made.once(size), made.once(size), made.once(str), frozen.freeze({"b": 1}).once(size)], [1, 1, str(made), 1]
        )
        self.assertEqual(asked, [made, {"b": 1}])
        for _ in range(2):
            with self.assertRaises(AttributeError):
                made.once(lambda given: given.nothing)

    def test_data_that_holds_itself_comes_to_an_end(self) -> None:
        """A dict inside itself is frozen to a bounded depth instead of for ever."""
        endless: dict[str, Any] = {}
        endless["self"] = endless
        self.assertIsInstance(frozen.freeze(endless)["self"], FrozenDict)
        deep: list[Any] = []
        for _ in range(90):
            deep = [deep]
        self.assertIsInstance(hash(frozen.freeze(deep)), int)


class Parts(unittest.TestCase):
    def refused(self, words: str, call: Callable[..., object], *args: Any) -> None:
        with self.assertRaises(errors.InvalidRequestError) as caught:
            call(*args)
        self.assertIn(words, str(caught.exception))

    def test_types_are_told_from_the_first_bytes(self) -> None:
        """The MIME type is recognised from the bytes where none is given, and believed where one is."""
        rows = [
            (PNG, "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"GIF89a", "image/gif"),
            (b"RIFF....WEBP", "image/webp"),
            (b"%PDF-1.7", "application/pdf"),
            (b"ID3\x04", "audio/mpeg"),
            (WAV, "audio/wav"),
            (b"OggS", "audio/ogg"),
            (b"fLaC", "audio/flac"),
            (b"\0\0\0\x18ftypmp42", "video/mp4"),
            (b"\x1aE\xdf\xa3", "video/webm"),
            (b"RIFF....AVI ", "video/x-msvideo"),
        ]
        for data, mime_type in rows:
            self.assertEqual(Part.image(data).mime_type, mime_type)
        self.assertEqual(Part.image(PNG, "image/x-own").mime_type, "image/x-own")
        self.refused("give mime_type", Part.image, b"RIFF....ABCD")
        self.refused("Part.audio cannot tell", Part.audio, b"")

    def test_each_constructor_makes_its_kind(self) -> None:
        """image, audio, video and document make parts of that kind, from any bytes-like object."""
        made = [
            Part.image(bytearray(PNG)),
            Part.audio(memoryview(WAV)),
            Part.video(b"x", "video/mp4"),
            Part.document(b"%PDF-", filename="a.pdf"),
        ]
        self.assertEqual(tuple(item.kind for item in made), content.MEDIA_KINDS)
        self.assertTrue(all(type(item.data) is bytes for item in made))
        self.assertEqual(made[3].filename, "a.pdf")

    def test_wrong_input_is_refused_with_advice(self) -> None:
        """A path for bytes, no string for text, and no URL are refused by name."""
        self.refused("for a path use Part.from_file", Part.image, "cat.png")
        self.refused("Part.text takes a string, not int", Part.text, 5)
        self.refused("https: or data: URL", Part.image_url, "cat.png")
        self.refused("https: or data: URL", Part.image_url, 5)
        self.refused("data:<mime type>;base64", Part.image_url, "data:image/png,abc")
        self.refused("data:<mime type>;base64", Part.image_url, "data:image/png;base64")
        self.refused("not valid base64", Part.image_url, "data:image/png;base64,###")

    def test_a_data_url_is_unpacked_and_another_kept(self) -> None:
        """data: URLs become bytes, typed by the URL or by the bytes; other URLs stay URLs."""
        text = base64.b64encode(PNG).decode()
        made = Part.image_url(f"data:image/webp;charset=x;base64,{text}")
        self.assertEqual((made.data, made.mime_type, made.url), (PNG, "image/webp", None))
        self.assertEqual(Part.image_url(f"data:;base64,{text}").mime_type, "image/png")
        self.refused("give mime_type", Part.image_url, "data:;base64,aGk=")
        seen = {"type": "image_url", "image_url": {"url": "https://host/cat.png", "detail": "low"}}
        self.assertEqual(content.part_from_dict(seen, "here").to_dict(), seen, "the wanted detail is kept")
        linked = Part.image_url("https://host/cat.png", "image/png")
        self.assertEqual((linked.data, linked.url, linked.mime_type), (None, "https://host/cat.png", "image/png"))
        self.assertEqual(linked.data_url(), "https://host/cat.png")
        self.assertEqual(linked.base64(), "")

    def test_files_are_read_at_once(self) -> None:
        """The kind comes from the file's name, else from its bytes; what cannot be read or told is refused."""
        with tempfile.TemporaryDirectory() as folder:
            rows = [("a.png", b"x", "image"), ("b.txt", b"hi", "document"), ("c.mp4", b"", "video"), ("d", PNG, "image")]
            for name, data, kind in rows:
                path = os.path.join(folder, name)
                with open(path, "wb") as file:
                    file.write(data)
                made = Part.from_file(path)
                self.assertEqual(Part.from_file(os.fsencode(path)), made)
                self.assertEqual((made.kind, made.data, made.filename), (kind, data, name))
            sound = os.path.join(folder, "f.wav")
            with open(sound, "wb") as file:
                file.write(b"RIFF")
            self.assertEqual(Part.from_file(sound).mime_type, "audio/wav")
            nameless = os.path.join(folder, "e")
            with open(nameless, "wb") as file:
                file.write(b"hello")
            self.refused("cannot tell the type", Part.from_file, nameless)
            self.refused("cannot read", Part.from_file, folder)
            with open(sound, "ab") as file:
                file.truncate(content.MAX_FILE_BYTES + 1)  # without a byte on the disk
            self.refused("larger than any provider takes", Part.from_file, sound)
            if hasattr(os, "mkfifo"):
                os.mkfifo(os.path.join(folder, "pipe.png"))
                self.refused("not a regular file", Part.from_file, os.path.join(folder, "pipe.png"))
                self.refused("not a regular file", Part.from_file, "/dev/zero")
            self.refused("cannot read", Part.from_file, os.path.join(folder, "none.png"))
        self.refused("cannot read", Part.from_file, 5.5)
        self.refused("cannot read", Part.from_file, "a\0b")

    def test_openai_objects_and_parts_are_the_same(self) -> None:
        """A part written as an OpenAI content object and read back is the same part."""
        made = [
            Part.text("hi"),
            Part.image(PNG),
            Part.image_url("https://host/cat.png"),
            Part.audio(WAV),
            Part.audio(b"ID3", "audio/mpeg"),
            Part.video(b"x", "video/mp4"),
            Part("audio", url="https://host/a.mp3"),
            Part.document(b"%PDF-", filename="a.pdf"),
        ]
        for item in made:
            self.assertEqual(content.part_from_dict(item.to_dict(), "content[0]"), item)
        self.assertEqual(Part.document(b"%PDF-").to_dict()["file"]["filename"], "document")
        self.assertEqual(content.audio_format(Part.audio(WAV, "audio/x-wav")), "wav")
        self.assertEqual(content.audio_format(Part("audio", data=b"")), "wav")
        self.assertEqual(Part.audio(b"fLaC").to_dict()["input_audio"]["format"], "flac")

    def test_what_people_write_is_read(self) -> None:
        """Parts, strings and the other spellings of content objects are accepted."""
        read = functools.partial(content.part_from_dict, where="content[2]")
        self.assertEqual(read("hi"), Part.text("hi"))
        self.assertEqual(read(Part.text("hi")), Part.text("hi"))
        for kind in ("text", "input_text", "output_text"):
            self.assertEqual(read({"type": kind, "text": "hi"}), Part.text("hi"))
        self.assertEqual(read({"type": "image_url", "image_url": "https://h/x"}).url, "https://h/x")
        self.assertEqual(read({"type": "input_audio", "input_audio": {"data": "", "format": "opus"}}).mime_type, "audio/opus")

    def test_unknown_objects_are_refused_with_their_place(self) -> None:
        """What is not a content object is an InvalidRequestError that names where it stood."""
        wrong: list[Any] = [{}, {"type": "hologram"}, {"type": "image_url"}, {"type": "input_audio", "input_audio": 5}, 5, None]
        wrong += [{"type": "file", "file": {"file_id": "f-1"}}, [1], {"type": ["text"]}]
        for item in wrong:
            self.refused("content[2] is not a content part", content.part_from_dict, item, "content[2]")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Place(TypedDict):
    city: str
    zip: NotRequired[str]


class Loose(TypedDict, total=False):
    city: Required[str]
    zip: int


@dataclasses.dataclass
class Point:
    kind: typing.ClassVar[str] = "point"
    x: float
    y: float = 0.0
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Node:
    next: Node | None


def weather(
    city: Annotated[str, "where"],
    days: int = 1,
    *,
    unit: Literal["c", "f"] = "c",
    note: str | None = None,
) -> str:
    """Tell the
    weather.

    More words.
    """
    return city


class Tools(unittest.TestCase):
    def schema(self, hint: Any) -> Any:
        def function(value: Any) -> None: ...

        function.__annotations__ = {"value": hint}
        return Tool.from_function(function).parameters["properties"]["value"]

    def test_a_function_becomes_a_tool(self) -> None:
        """Name, first paragraph, parameter types, descriptions and what is required are read from the function."""
        made = Tool.from_function(weather)
        self.assertEqual((made.name, made.description), ("weather", "Tell the weather."))
        self.assertEqual(
            made.parameters,
            {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "where"},
                    "days": {"type": "integer"},
                    "unit": {"type": "string", "enum": ("c", "f")},
                    "note": {"anyOf": ({"type": "string"}, {"type": "null"})},
                },
                "required": ("city",),
            },
        )

    def test_every_hint_has_its_schema(self) -> None:
        """Each understood type hint gives the JSON schema of its values."""
        array = {"type": "array", "items": {"type": "integer"}}
        rows: list[tuple[Any, Any]] = [
            (bool, {"type": "boolean"}),
            (float, {"type": "number"}),
            (None, {"type": "null"}),
            (Any, {}),
            (list[int], array),
            (tuple[int, ...], array),
            (set[int], array),
            (Sequence[int], array),
            (list, {"type": "array"}),
            (dict[str, int], {"type": "object"}),
            (Mapping[str, int], {"type": "object"}),
            (Color, {"type": "string", "enum": ("red", "blue")}),
            (Literal[1, 2], {"type": "integer", "enum": (1, 2)}),
            (Literal[1, "a", None], {"enum": (1, "a", None)}),
            (Annotated[int, 5], {"type": "integer"}),
        ]
        for hint, expected in rows:
            self.assertEqual(self.schema(hint), expected, str(hint))

    def test_a_class_that_contains_itself(self) -> None:
        """It stands under $defs, once, and is referred to."""

        def endless(value: Node, other: list[Node]) -> None: ...

        found = Tool.from_function(endless).parameters
        ref = {"$ref": "#/$defs/Node"}
        self.assertEqual(found["properties"], {"value": ref, "other": {"type": "array", "items": ref}})
        node = {"type": "object", "properties": {"next": {"anyOf": (ref, {"type": "null"})}}, "required": ("next",)}
        self.assertEqual(found["$defs"], {"Node": node})

    def test_optional_fields_are_not_required(self) -> None:
        """NotRequired keys, keys outside a total TypedDict, and dataclass fields with defaults may be left out."""
        self.assertEqual(self.schema(Place)["required"], ("city",))
        self.assertEqual(self.schema(Place)["properties"]["zip"], {"type": "string"})
        self.assertEqual(self.schema(Loose)["required"], ("city",))
        point = self.schema(Point)
        self.assertEqual(point["required"], ("x",))
        self.assertEqual(sorted(point["properties"]), ["tags", "x", "y"])

    def test_what_cannot_be_described_is_refused(self) -> None:
        """Variadic parameters, unknown types and things that are not functions raise InvalidRequestError."""

        def variadic(*args: int) -> None: ...

        def keywords(**kwargs: int) -> None: ...

        def broken(value: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - undefined is the point

        def strange(value: type[int] | complex) -> None: ...

        def opaque(value: object) -> None: ...

        def generic(value: typing.TypeVar("T")) -> None: ...  # type: ignore[valid-type]  # no type on purpose

        partial = functools.partial(weather, "here")
        for function in (variadic, keywords, broken, strange, opaque, generic, partial, max, 5):
            with self.assertRaises(errors.InvalidRequestError, msg=repr(function)):
                Tool.from_function(function)
        self.assertEqual(Tool.from_function(lambda x: x).parameters["properties"], {"x": {"type": "string"}})

    def test_tools_check_themselves(self) -> None:
        """A tool needs a name and a schema, which is kept frozen."""
        for settings in ({"name": ""}, {"name": 5}, {"name": "f", "parameters": [1]}):
            with self.assertRaises(errors.InvalidRequestError):
                Tool(**settings)
        given: dict[str, Any] = {"type": "object"}
        made = Tool("f", parameters=given)
        given["type"] = "array"
        self.assertEqual(made.parameters, {"type": "object"})

    def test_the_form_is_kept_and_is_no_field(self) -> None:
        """The form of a tool is made once; a copy, a pickle and another tool made from it have one of their own fields."""
        made = Tool("f", "does", {"type": "object"})
        self.assertIs(made.form, made.form)
        self.assertEqual(made.form, made.to_dict())
        for other in (copy.copy(made), pickle.loads(pickle.dumps(made)), dataclasses.replace(made, name="g")):
            self.assertEqual(other.form, other.to_dict())
        self.assertEqual([each.name for each in dataclasses.fields(made)], ["name", "description", "parameters", "strict"])
        self.assertEqual(set(dataclasses.asdict(made)), {"name", "description", "parameters", "strict"})

    def test_the_openai_form(self) -> None:
        """A tool written as an OpenAI dict and read back is the same; what is not stated is left out."""
        full = Tool("f", "does", {"type": "object"}, True)
        self.assertEqual(tool.tool_from_dict(full.to_dict(), "tools[0]"), full)
        bare = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
        self.assertEqual(Tool("f").to_dict(), bare)

    def test_tools_in_every_spelling(self) -> None:
        """Tools, functions, OpenAI dicts, flat dicts and `input_schema` are read; anything else is refused with its place."""
        schema = {"type": "object"}
        made = Tool("f", "d", schema)
        for item in (
            made,
            {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}},
            {"function": {"name": "f", "description": "d", "parameters": schema, "strict": None}},
            {"type": "function", "name": "f", "description": "d", "parameters": schema},
            {"name": "f", "description": "d", "input_schema": schema},
        ):
            self.assertEqual(tool.tool_from_dict(item, "tools[3]"), made)
        self.assertEqual(tool.tool_from_dict(weather, "tools[3]").name, "weather")
        wrong: list[Any] = [5, {}, {"type": "web_search"}, {"function": {"name": 5}}, {"name": "f"}, "f"]
        for item in wrong:
            with self.assertRaises(errors.InvalidRequestError) as caught:
                tool.tool_from_dict(item, "tools[3]")
            self.assertIn("tools[3] is not a tool", str(caught.exception))


if __name__ == "__main__":
    unittest.main()
