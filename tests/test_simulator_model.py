"""The values that the stand-in models make up for JSON schemas."""

from __future__ import annotations

import unittest
from typing import Any

from tests import part

example = part("simulator_model").example


class ExampleTest(unittest.TestCase):
    def test_by_type(self) -> None:
        """Each type gives a value of it, Gemini's upper-case names and lists of types too."""
        cases: list[tuple[dict[str, Any], Any]] = [
            ({"type": "string"}, "example"),
            ({"type": "STRING"}, "example"),
            ({"type": ["null", "integer"]}, 1),
            ({"type": "number"}, 1.5),
            ({"type": "boolean"}, True),
            ({"type": "null"}, None),
            ({"type": "array", "items": {"type": "integer"}}, [1]),
            ({"type": "object"}, {}),
            ({}, {}),
        ]
        for schema, value in cases:
            with self.subTest(schema=schema):
                self.assertEqual(example(schema), value)

    def test_bounds(self) -> None:
        """Lengths, counts and ranges are kept."""
        cases: list[tuple[dict[str, Any], Any]] = [
            ({"type": "string", "minLength": 9}, "example.."),
            ({"type": "string", "maxLength": 2}, "ex"),
            ({"type": "string", "format": "date"}, "2026-01-01"),
            ({"type": "array", "items": {"type": "null"}, "minItems": 2}, [None, None]),
            ({"type": "integer", "minimum": 4}, 4),
            ({"type": "integer", "exclusiveMinimum": 4}, 5),
            ({"type": "integer", "maximum": 0}, 0),
            ({"type": "integer", "exclusiveMaximum": 1}, 0),
            ({"type": "integer", "multipleOf": 5}, 5),
        ]
        for schema, value in cases:
            with self.subTest(schema=schema):
                self.assertEqual(example(schema), value)

    def test_given_values(self) -> None:
        """const, default, enum and examples win over the type; anyOf takes the first that is not null."""
        cases: list[tuple[dict[str, Any], Any]] = [
            ({"const": 7}, 7),
            ({"type": "string", "default": "d"}, "d"),
            ({"type": "string", "enum": ["e", "f"]}, "e"),
            ({"type": "string", "examples": ["x"]}, "x"),
            ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, True),
            ({"oneOf": [{"type": "null"}]}, None),
        ]
        for schema, value in cases:
            with self.subTest(schema=schema):
                self.assertEqual(example(schema), value)

    def test_references(self) -> None:
        """References and allOf are followed, and a schema that holds itself ends."""
        point = {"type": "object", "properties": {"x": {"type": "integer"}}}
        schema = {"allOf": [{"$ref": "#/$defs/p"}, {"properties": {"y": {"type": "integer"}}}], "$defs": {"p": point}}
        self.assertEqual(example(schema), {"x": 1, "y": 1})
        tree = {
            "$ref": "#/$defs/node",
            "$defs": {
                "node": {
                    "type": "object",
                    "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
                    "required": ["value"],
                }
            },
        }
        found = example(tree)
        self.assertEqual(found["next"]["value"], 1)
        self.assertLess(str(found).count("next"), 8)
        self.assertIsNone(example({"$ref": "#"}))


if __name__ == "__main__":
    unittest.main()
