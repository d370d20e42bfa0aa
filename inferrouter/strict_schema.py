"""JSON schemas the way providers want them that hold a model to every word of one.

Strategy: objects are closed and keywords that are not enforced are left out, since such a provider refuses both. Must never
know a provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["closed", "is_open"]

UNCHECKED = frozenset(
    (
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
    )
)
"""Keywords that strict output refuses; without them the schema allows a little more."""


def closed(schema: Any) -> Any:
    """`schema` as JSON output wants it: every object closed, no keyword that it refuses."""
    if isinstance(schema, (list, tuple)):
        return [closed(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            made[key] = {name: closed(each) for name, each in value.items()}
        elif key in ("enum", "const", "default", "examples"):
            made[key] = value
        elif key not in UNCHECKED:
            made[key] = closed(value)
    if "properties" in made or "object" in (made.get("type") or ()):
        made["additionalProperties"] = False
    return made


def is_open(schema: Any) -> bool:
    """Whether an object in `schema` may have members of any name, which JSON output cannot say."""
    if isinstance(schema, Mapping):
        return bool(schema.get("additionalProperties")) or any(is_open(value) for value in schema.values())
    return isinstance(schema, (list, tuple)) and any(is_open(value) for value in schema)
