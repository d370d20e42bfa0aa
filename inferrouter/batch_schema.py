"""Checks a structured answer against its JSON schema, as far as a row's schema goes.

Strategy: the keywords that structured answers use (type, properties, required, additionalProperties, enum, const, items, bounds,
anyOf, $defs); a keyword it does not know demands nothing. It says where the answer is wrong, for the row's error.
Must never know a provider or a file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .errors import ConfigError

_DEEPEST = 60


def schema_from_file(path: str) -> dict[str, Any]:
    """The schema in a JSON file; the wrapping of OpenAI's response_format is taken off. Raises `ConfigError`."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            found = json.load(file)
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"schema {path}: cannot be read as JSON ({exc})") from exc
    for key in ("json_schema", "schema"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not ({"type", "properties", "anyOf", "$ref", "enum"} & found.keys()):
        raise ConfigError(f'schema {path}: is not a JSON schema; it begins with {{"type": "object", "properties": ...}}')
    return found


def schema_fault(value: Any, schema: Any, where: str = "answer", root: Any = None, depth: int = 0) -> str | None:
    """Where and how `value` breaks `schema`, None if it does not."""
    root = schema if root is None else root
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    if "$ref" in schema:
        return schema_fault(value, _referred(schema["$ref"], root), where, root, depth + 1)
    if "anyOf" in schema or "oneOf" in schema:
        options = schema.get("anyOf") or schema.get("oneOf") or ()
        faults = [schema_fault(value, option, where, root, depth + 1) for option in options]
        if faults and all(faults):
            return faults[0]
    kinds = schema.get("type")
    names = [kinds] if isinstance(kinds, str) else list(kinds or ())
    if names and not any(_is(value, name) for name in names):
        return f"{where} is {_kind(value)}, not {' or '.join(map(str, names))}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is {json.dumps(value)[:60]}, not one of {json.dumps(schema['enum'])[:120]}"
    if "const" in schema and value != schema["const"]:
        return f"{where} is not {json.dumps(schema['const'])[:60]}"
    if isinstance(value, dict):
        return _object_fault(value, schema, where, root, depth)
    if isinstance(value, list):
        return _list_fault(value, schema, where, root, depth)
    return _bounds_fault(value, schema, where)


def _object_fault(value: dict[str, Any], schema: Mapping[str, Any], where: str, root: Any, depth: int) -> str | None:
    properties = schema.get("properties") or {}
    for name in schema.get("required") or ():
        if name not in value:
            return f"{where} lacks {name!r}"
    others = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            fault = schema_fault(item, properties[name], f"{where}.{name}", root, depth + 1)
        elif others is False:
            fault = f"{where} has {name!r}, which the schema does not allow"
        else:
            fault = schema_fault(item, others, f"{where}.{name}", root, depth + 1)
        if fault:
            return fault
    return None


def _list_fault(value: list[Any], schema: Mapping[str, Any], where: str, root: Any, depth: int) -> str | None:
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    if len(value) < least or (most is not None and len(value) > most):
        return f"{where} has {len(value)} items"
    faults = (schema_fault(item, schema.get("items"), f"{where}[{at}]", root, depth + 1) for at, item in enumerate(value))
    return next(filter(None, faults), None)


def _bounds_fault(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0) or len(value) > schema.get("maxLength", len(value)):
            return f"{where} has {len(value)} characters"
        return None
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        return f"{where} is {value}, out of bounds"
    return None


def _referred(reference: Any, root: Any) -> Any:
    """What a `$ref` within the schema points at; nothing is demanded where it points nowhere."""
    found = root
    for step in str(reference).removeprefix("#").strip("/").split("/"):
        if step:
            found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _is(value: Any, name: str) -> bool:
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "integer":
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return whole and not isinstance(value, bool)
    return _kind(value) == name


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array")):
        if isinstance(value, kind):
            return name
    return "object"
