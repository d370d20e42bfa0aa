"""Describes a function the model may call: its name, what it does, and the JSON schema of its parameters.

Strategy: one value for all dialects; `Tool.from_function` reads a Python function's signature, type hints and
docstring. Must never call the function.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from typing import Any

from .errors import InvalidRequestError
from .frozen import EMPTY, FrozenDict, freeze, frozen_value

_SCALARS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


@frozen_value
class Tool:
    """One function. `parameters`: a JSON schema of type object; `strict`: ask the provider to hold to it, None = its default."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = EMPTY
    strict: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise InvalidRequestError(message="a Tool needs a name")
        if not isinstance(self.parameters, Mapping):
            raise InvalidRequestError(message=f"Tool {self.name!r}: parameters must be a JSON schema (a dict)")
        object.__setattr__(self, "parameters", freeze(self.parameters))

    @classmethod
    def from_function(cls, function: Callable[..., Any]) -> Tool:
        """A tool described by `function`'s signature, type hints and docstring (its first paragraph).

        Understands str, int, float, bool, None, list, tuple, set, dict, Literal, Optional, unions, enums, TypedDict, dataclasses
        and Annotated[..., "description"]. Raises `InvalidRequestError` for *args, **kwargs and hints it cannot describe.
        """
        import inspect

        try:
            schema = _signature_schema(function)
            name = function.__name__
        except (TypeError, NameError, ValueError, AttributeError, RecursionError) as exc:
            raise InvalidRequestError(message=f"Tool.from_function cannot read {function!r}: {exc}") from exc
        about = (inspect.getdoc(function) or "").split("\n\n")[0]
        return cls(name, " ".join(about.split()), schema)

    def to_dict(self) -> dict[str, Any]:
        """The OpenAI-style function dict of this tool."""
        function: dict[str, Any] = {"name": self.name, "parameters": self.parameters or {"type": "object", "properties": {}}}
        if self.description:
            function["description"] = self.description
        if self.strict is not None:
            function["strict"] = self.strict
        return {"type": "function", "function": function}


def class_schema(shape: Any) -> Mapping[str, Any]:
    """The JSON schema of a dataclass or a TypedDict. Raises `InvalidRequestError` for a field that no schema can say."""
    found = _class_schema(shape, (), shape.__name__)
    if found is None:
        raise InvalidRequestError(message=f"{shape.__name__} is neither a dataclass nor a TypedDict")
    return found


def tool_from_dict(item: Any, where: str) -> Tool:
    """A `Tool` from a Tool, an OpenAI-style function dict, or a Python function. Raises `InvalidRequestError` naming `where`."""
    if isinstance(item, Tool):
        return item
    if callable(item):
        return Tool.from_function(item)
    if isinstance(item, Mapping):
        function = item.get("function") if item.get("type", "function") == "function" else None
        if function is None and "name" in item and ("parameters" in item or "input_schema" in item):
            function = {**item, "parameters": item.get("parameters", item.get("input_schema"))}
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            return Tool(
                function["name"], function.get("description") or "", function.get("parameters") or EMPTY, function.get("strict")
            )
    raise InvalidRequestError(
        message=f"{where} is not a tool: pass ir.Tool, a Python function, or an OpenAI-style function dict; "
        "a provider's own kind of tool goes into `extra`"
    )


def _signature_schema(function: Callable[..., Any]) -> dict[str, Any]:
    import inspect

    hints = typing.get_type_hints(function, include_extras=True)
    properties, required = {}, []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidRequestError(message=f"Tool.from_function: {name!r} is variadic, which no schema can say")
        properties[name] = _schema(hints.get(name, str), f"parameter {name!r}")
        if parameter.default is parameter.empty:
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def _schema(hint: Any, where: str) -> FrozenDict[str, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        notes = [note for note in args[1:] if isinstance(note, str)]
        return FrozenDict({**_schema(args[0], where), **({"description": notes[0]} if notes else {})})
    if origin in (typing.Required, typing.NotRequired):
        return _schema(args[0], where)
    if hint in _SCALARS:
        return FrozenDict(type=_SCALARS[hint])
    if hint is Any:
        return FrozenDict()
    if origin is typing.Literal:
        return _one_of(args)
    if origin in (typing.Union, types.UnionType):
        return FrozenDict(anyOf=tuple(_schema(arg, where) for arg in args))
    base = origin or hint
    if isinstance(base, type):
        found = _class_schema(base, args, where)
        if found is not None:
            return found
    raise InvalidRequestError(message=f"no schema can describe {where} ({hint!r}): use plain types, or write the schema out")


def _one_of(values: tuple[Any, ...]) -> FrozenDict[str, Any]:
    """The schema of a choice, with its type where all values have the same: some servers take no bare enum."""
    words = {_SCALARS.get(type(value)) for value in values}
    word = words.pop() if len(words) == 1 else None
    return FrozenDict({"type": word, "enum": values} if word else {"enum": values})


def _class_schema(base: type, args: tuple[Any, ...], where: str) -> FrozenDict[str, Any] | None:
    if issubclass(base, enum.Enum):
        return _one_of(tuple(member.value for member in base))
    if typing.is_typeddict(base) or dataclasses.is_dataclass(base):
        hints = typing.get_type_hints(base, include_extras=True)
        needed = _needed(base, hints)
        fields = FrozenDict({name: _schema(hints[name], f"{where}.{name}") for name in needed})
        return FrozenDict(type="object", properties=fields, required=tuple(name for name in needed if needed[name]))
    if issubclass(base, dict) or base is Mapping:
        return FrozenDict(type="object")
    if issubclass(base, (list, tuple, set, frozenset)) or base is Sequence:
        items = [arg for arg in args if arg is not ...]
        return FrozenDict(type="array", **({"items": _schema(items[0], where)} if items else {}))
    return None


def _needed(base: Any, hints: Mapping[str, Any]) -> dict[str, bool]:
    """The fields of a TypedDict or a dataclass, and whether each must be given."""
    if dataclasses.is_dataclass(base):
        return {field.name: field.default is field.default_factory is MISSING for field in dataclasses.fields(base)}
    # Under postponed annotations __required_keys__ has not seen what a hint is wrapped in.
    wrapped = {typing.Required: True, typing.NotRequired: False}
    return {name: wrapped.get(typing.get_origin(hint), name in base.__required_keys__) for name, hint in hints.items()}
