"""A plausible value for a JSON schema: tool arguments and structured answers of the stand-in models.

Strategy: const, enum, default and examples win; else a value by type, with a friendly word for well-known property
names; every property is filled in, deep levels only where required, so a schema that refers to itself ends.
Understands JSON Schema and Gemini's upper-case types. Must never know what the value is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["example"]

MAX_DEPTH = 6

_WORDS = {
    "city": "Paris",
    "location": "Paris",
    "place": "Paris",
    "country": "France",
    "capital": "Paris",
    "currency": "EUR",
    "name": "Ada",
    "email": "ada@example.org",
    "url": "https://example.org/",
    "unit": "celsius",
    "language": "English",
    "query": "weather in Paris",
    "expression": "2 + 2",
    "answer": "Yes.",
}
_FORMATS = {
    "date": "2026-01-01",
    "time": "12:00:00Z",
    "date-time": "2026-01-01T12:00:00Z",
    "email": "ada@example.org",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def example(schema: Mapping[str, Any] | bool, name: str = "") -> Any:
    """A value that fits `schema`; `name` is the property it is for. A schema that says nothing gives an empty object."""
    root = schema if isinstance(schema, Mapping) else {}
    return _value(root, root, name, 0)


def _value(schema: Any, root: Mapping[str, Any], name: str, depth: int) -> Any:
    if not isinstance(schema, Mapping):
        return {}
    if depth > 4 * MAX_DEPTH:  # references may loop without ever reaching a property
        return None
    if "$ref" in schema:
        return _value(_resolve(str(schema["$ref"]), root), root, name, depth + 1)
    for word in ("const", "default"):
        if schema.get(word) is not None:
            return schema[word]
    for word in ("enum", "examples"):
        if schema.get(word):
            return schema[word][0]
    for word in ("anyOf", "oneOf"):
        if schema.get(word):
            options = [option for option in schema[word] if _type(option) != "null"]
            return _value(options[0] if options else {"type": "null"}, root, name, depth + 1)
    if schema.get("allOf"):
        return _value(_merged(schema, root), root, name, depth + 1)
    return _by_type(schema, root, name, depth)


def _by_type(schema: Mapping[str, Any], root: Mapping[str, Any], name: str, depth: int) -> Any:
    kind = _type(schema)
    if kind == "string":
        return _string(schema, name)
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    if kind == "array":
        least = int(schema.get("minItems", 0))
        wanted = least if depth > MAX_DEPTH else max(1, least)
        return [_value(schema.get("items", {"type": "string"}), root, name, depth + 1) for _ in range(wanted)]
    properties: Mapping[str, Any] = schema.get("properties") or {}
    required = schema.get("required") or ()
    wanted_names = [each for each in properties if depth <= MAX_DEPTH or each in required]
    return {each: _value(properties[each], root, each, depth + 1) for each in wanted_names}


def _type(schema: Any) -> str:
    kind = schema.get("type", "") if isinstance(schema, Mapping) else ""
    if isinstance(kind, list):
        kind = next((each for each in kind if each != "null"), "null")
    return str(kind).lower() or "object"


def _string(schema: Mapping[str, Any], name: str) -> str:
    text = _FORMATS.get(str(schema.get("format", "")), "") or _WORDS.get(name.lower(), "") or name or "example"
    text = text.ljust(int(schema.get("minLength", 0)), ".")
    return text[: int(schema.get("maxLength", len(text)))]


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    value: float = 1 if whole else 1.5
    if low is not None and value < low:
        value = low
    if above is not None and value <= above:
        value = above + 1
    if high is not None and value > high:
        value = high
    if below is not None and value >= below:
        value = below - 1
    step = schema.get("multipleOf")
    if step:
        value = -(-value // step) * step
    return int(value) if whole else value


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step:
            found = found.get(step, {}) if isinstance(found, Mapping) else {}
    return found


def _merged(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    merged = {word: value for word, value in schema.items() if word != "allOf"}
    properties: dict[str, Any] = dict(merged.get("properties") or {})
    for option in schema["allOf"]:
        part = _resolve(str(option["$ref"]), root) if "$ref" in option else option
        merged = {**part, **merged}
        properties = {**(part.get("properties") or {}), **properties}
    return {**merged, "properties": properties} if properties else merged
