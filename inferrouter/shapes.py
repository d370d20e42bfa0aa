"""Turns a class into the JSON schema of an answer, and an answer's JSON back into that class.

Strategy: dataclasses, TypedDicts, NamedTuples and pydantic models (known by their methods, never imported) become OpenAI's
`json_schema` form that remembers the class; a bare schema becomes one that remembers nothing. Building back is strict: what does
not fit says where.
Must never know a provider.
"""

from __future__ import annotations

import enum
import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from .errors import InvalidRequestError
from .frozen import FrozenDict, freeze
from .tool import class_schema, fields_of, has_fields, json_value, plain_hint

_WORDS = frozenset(("object", "array", "string", "number", "integer", "boolean", "null"))
_MARKS = frozenset(("properties", "items", "enum", "anyOf", "oneOf", "allOf", "$ref", "$schema", "$defs", "const"))


class ShapedFormat(FrozenDict[str, Any]):
    """A `response_format` that came from a class, kept as `shape`."""

    __slots__ = ("shape",)

    def __init__(self, form: Mapping[str, Any], shape: Any) -> None:
        super().__init__(form)
        self.shape = shape

    def __reduce__(self) -> tuple[Any, ...]:
        return ShapedFormat, (dict(self), self.shape)


class UnfitError(ValueError):
    """An answer that does not have the asked-for shape; says where."""


def is_shape(form: object) -> bool:
    """Whether `form` is a class that an answer can be given as."""
    base = typing.get_origin(form) or form
    return has_fields(base) or (isinstance(form, type) and _method(form, *_SCHEMAS) is not None)


def not_a_shape(form: object) -> InvalidRequestError:
    """What to write instead of `form`, which is neither a class with fields nor a schema."""
    if isinstance(form, type) or typing.get_origin(form) is not None or isinstance(form, typing.TypeVar):
        what = form.__name__ if isinstance(form, type) and typing.get_origin(form) is None else str(form)
        mend = f"an answer is an object, so put it into a field: @dataclass class Answer: value: {what}"
    else:
        what = f"an object of class {type(form).__name__}"
        mend = "give the class itself" if has_fields(type(form)) else "give a class"
    takes = "response_format takes a dataclass, a TypedDict, a NamedTuple, a pydantic model or a JSON schema"
    return InvalidRequestError(message=f"{takes}, not {what}: {mend}")


def name_of(shape: Any) -> str:
    """The name of a class, without what it is parametrized with."""
    return str((typing.get_origin(shape) or shape).__name__)


def is_schema(form: Mapping[str, Any]) -> bool:
    """Whether `form` is a bare JSON schema rather than OpenAI's wrapping of one."""
    kind = form.get("type")
    if kind is None:
        return not _MARKS.isdisjoint(form)
    kinds = kind if isinstance(kind, (list, tuple)) else (kind,)
    return bool(kinds) and all(isinstance(each, str) and each in _WORDS for each in kinds)


def format_of_class(shape: Any) -> ShapedFormat:
    """OpenAI's `json_schema` form of a class. Raises `InvalidRequestError` for a field that no schema can express."""
    make = _method(shape, *_SCHEMAS)
    try:
        schema = freeze(make()) if make is not None else _closed(class_schema(shape))
    except InvalidRequestError as exc:
        raise InvalidRequestError(message=f"response_format cannot take {name_of(shape)}: {exc.message}") from exc
    except RecursionError as exc:
        message = f"response_format cannot take {name_of(shape)}: a type in it contains itself, so make that one a dataclass"
        raise InvalidRequestError(message=message) from exc
    except Exception as exc:
        raise InvalidRequestError(message=f"response_format cannot take {name_of(shape)} ({type(exc).__name__}: {exc})") from exc
    strict = {"strict": True} if make is None and _is_strict(schema) else {}
    return ShapedFormat(
        freeze({"type": "json_schema", "json_schema": {"name": _named(shape), "schema": schema, **strict}}), shape
    )


def format_of_schema(schema: Mapping[str, Any]) -> FrozenDict[str, Any]:
    """OpenAI's `json_schema` form of a bare schema."""
    title = schema.get("title")
    name = "".join(char if char.isalnum() else "_" for char in title) if isinstance(title, str) and title.isascii() else ""
    made: FrozenDict[str, Any] = freeze({"type": "json_schema", "json_schema": {"name": name or "answer", "schema": schema}})
    return made


def built(shape: Any, data: Any) -> Any:
    """`data`, from JSON, as an instance of `shape`. Raises `UnfitError`, or what a pydantic model raises."""
    validate = _method(shape, "model_validate", "parse_obj")
    return validate(data) if validate is not None else _value(shape, data, name_of(shape))


_SCHEMAS = ("model_json_schema", "schema")


def _method(shape: Any, *names: str) -> Callable[..., Any] | None:
    """A pydantic model's method, by the names it has in its versions; None for what is not one."""
    if not hasattr(shape, "model_fields") and not hasattr(shape, "__fields__"):
        return None
    found: Callable[..., Any] | None = next((each for name in names if callable(each := getattr(shape, name, None))), None)
    return found


def _named(shape: Any) -> str:
    return "".join(char if char.isascii() and char.isalnum() else "_" for char in name_of(shape))[:64]


def _closed(schema: Any) -> Any:
    """`schema`, whose objects with named fields have no others."""
    if isinstance(schema, Mapping):
        made = {key: _closed_each(value) if key in _NAMED else _closed(value) for key, value in schema.items()}
        if "properties" in schema:
            made["additionalProperties"] = False
        return FrozenDict(made)
    return tuple(map(_closed, schema)) if isinstance(schema, (list, tuple)) else schema


def _closed_each(schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    return FrozenDict({name: _closed(schema) for name, schema in schemas.items()})


def _is_strict(schema: Any) -> bool:
    """Whether every object names all its fields and needs each, as strict output wants it."""
    if isinstance(schema, (list, tuple)):
        return all(map(_is_strict, schema))
    if not isinstance(schema, Mapping):
        return True
    if schema.get("type") == "object" and set(schema.get("required", ())) != set(schema.get("properties", {"": 0})):
        return False
    return all(map(_is_strict, schema.values()))


def _value(hint: Any, data: Any, where: str) -> Any:
    hint = plain_hint(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _value(args[0], data, where)
    if hint is Any:
        return data
    if origin is typing.Literal:
        return _chosen(args, data, where, f"one of {', '.join(map(repr, map(json_value, args)))}")
    if origin in (typing.Union, types.UnionType):
        return _first_of(args, data, where)
    base = origin or hint
    if base in _SCALARS:
        return _scalar(base, data, where)
    if isinstance(base, type) and issubclass(base, enum.Enum):
        return _chosen(tuple(base), data, where, f"a value of {base.__name__}")
    if has_fields(base):
        return _fields(base, args, data, where)
    return _container(base, args, data, where)


_NAMED = ("properties", "$defs")
"""What of a schema holds others by name."""
_SCALARS: dict[Any, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    type(None): "null",
}


def _scalar(kind: Any, data: Any, where: str) -> Any:
    if kind in (int, float):
        number = isinstance(data, (int, float)) and not isinstance(data, bool) and _is_finite(data)
        fits = number and (kind is float or data == int(data))
    else:
        fits = type(data) is kind
    if not fits:
        raise _unfit(data, where, _SCALARS[kind])
    return kind(data) if kind in (int, float) else data


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number that no float can hold
        return False


def _chosen(choices: Sequence[Any], data: Any, where: str, words: str) -> Any:
    """The one of `choices` that `data` stands for: true is not 1, and 1.0 is not either."""
    for choice in choices:
        value = json_value(choice)
        if value == data and (type(value) is type(data) or (type(value) is float and type(data) is int)):
            return choice
    raise _unfit(data, where, words)


def _first_of(hints: Sequence[Any], data: Any, where: str) -> Any:
    """`data` as the first of `hints` that it fits, one of its very own type before all others."""
    faults = []
    for hint in sorted(hints, key=lambda each: each is not type(data)):
        try:
            return _value(hint, data, where)
        except UnfitError as exc:
            faults.append(str(exc))
    raise UnfitError(faults[0] if len(faults) == 1 else f"{where} fits none of its kinds ({'; '.join(faults)})")


def _fields(base: Any, args: tuple[Any, ...], data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise _unfit(data, where, f"an object with the fields of {base.__name__}")
    fields = fields_of(base, args)
    known = {key: _value(fields[key][0], value, f"{where}.{key}") for key, value in data.items() if key in fields}
    missing = [key for key, (_, needed) in fields.items() if needed and key not in known]
    if missing:
        raise UnfitError(f"{where} has no {missing[0]!r}")
    if typing.is_typeddict(base):
        return {**data, **known}
    try:
        return base(**known)
    except Exception as exc:
        raise UnfitError(f"{where} is refused by {base.__name__} ({type(exc).__name__}: {exc})") from exc


def _container(base: Any, args: tuple[Any, ...], data: Any, where: str) -> Any:
    if isinstance(base, type) and issubclass(base, Mapping):
        if not isinstance(data, Mapping):
            raise _unfit(data, where, "an object")
        kinds = args if len(args) == 2 else (str, Any)
        return _made(base, {_key(kinds[0], key, where): _value(kinds[1], data[key], f"{where}.{key}") for key in data}, where)
    if isinstance(base, type) and issubclass(base, (Sequence, Set)):
        if not isinstance(data, (list, tuple)):
            raise _unfit(data, where, "a list")
        if issubclass(base, tuple) and args and args[-1] is not ... and len(args) != len(data):
            raise UnfitError(f"{where} has {len(data)} items, not {len(args)}")
        each = args if issubclass(base, tuple) and args and args[-1] is not ... else (args[:1] or (Any,)) * len(data)
        items = [_value(hint, item, f"{where}[{index}]") for index, (hint, item) in enumerate(zip(each, data, strict=True))]
        return _made(base, items, where)
    raise UnfitError(f"{where}: a {base!r} cannot be made of JSON")


def _key(hint: Any, key: str, where: str) -> Any:
    """A key of an object as what `hint` says: in JSON it is always a text."""
    hint = plain_hint(hint)
    if hint is int and re.fullmatch(r"-?[0-9]{1,4000}", key):
        return int(key)
    return key if hint is str else _value(hint, key, f"a key of {where}")


def _made(base: Any, found: Any, where: str) -> Any:
    """What was `found` as a `base`, where that is a class of its own."""
    if base is type(found) or not issubclass(base, (dict, list, tuple, set, frozenset)):
        return found
    try:
        return base(found)
    except Exception as exc:
        raise UnfitError(f"{where} is refused by {base.__name__} ({type(exc).__name__}: {exc})") from exc


def _unfit(data: Any, where: str, words: str) -> UnfitError:
    shown = repr(data)
    return UnfitError(f"{where} is {words}, not {shown if len(shown) <= 60 else shown[:57] + '...'}")
