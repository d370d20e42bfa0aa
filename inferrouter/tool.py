"""Describes a function the model may call: its name, what it does, and the JSON schema of its parameters.

Strategy: one value for all dialects; `Tool.from_function` reads a Python function's signature, type hints and
docstring. Must never call the function.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any

from .errors import InvalidRequestError
from .frozen import EMPTY, FrozenDict, freeze, frozen_value

_SCALARS: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


class _Formed:
    """Has a slot for the OpenAI-style dict that is worked out from a value once, and that is not one of its fields."""

    __slots__ = ("_form",)
    if TYPE_CHECKING:  # else it would be among the hints of the values
        _form: FrozenDict[str, Any]


@frozen_value
class Tool(_Formed):
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

    @property
    def form(self) -> FrozenDict[str, Any]:
        """What `to_dict` says, the same object each time, so that what follows from it can be kept with it."""
        try:
            return self._form
        except AttributeError:
            made: FrozenDict[str, Any] = freeze(self.to_dict())
            object.__setattr__(self, "_form", made)
            return made


def class_schema(shape: Any) -> Mapping[str, Any]:
    """The JSON schema of a class with fields (see `has_fields`). Raises `InvalidRequestError` for what no schema can express."""
    classes = _Classes()
    base = typing.get_origin(shape) or shape
    _object_schema(base, typing.get_args(shape), base.__name__, classes)
    return classes.resolved(classes.made[base, typing.get_args(shape)])


def has_fields(base: Any) -> bool:
    """Whether `base` is a class that is an object in JSON: a dataclass, a TypedDict or a NamedTuple."""
    if not isinstance(base, type):
        return False
    return dataclasses.is_dataclass(base) or typing.is_typeddict(base) or _is_named_tuple(base)


def fields_of(base: Any, args: tuple[Any, ...] = ()) -> dict[str, tuple[Any, bool]]:
    """The fields that make an instance of `base`, with their hints, and whether each must be given. `args`: what `base` is
    parametrized with. Raises `InvalidRequestError` for a hint that names what is not known."""
    hints = _hints(base, args)
    if dataclasses.is_dataclass(base):
        given = [(name, field, hints.get(name, Any)) for name, field in base.__dataclass_fields__.items()]
        return {
            name: (hint, field.default is field.default_factory is MISSING)
            for name, field, hint in given
            if field.init and typing.get_origin(hint) is not typing.ClassVar and hint is not typing.ClassVar
        }
    if _is_named_tuple(base):
        return {name: (hints.get(name, Any), name not in base._field_defaults) for name in base._fields}
    # Under postponed annotations __required_keys__ has not seen what a hint is wrapped in.
    wrapped = {typing.Required: True, typing.NotRequired: False}
    return {name: (hint, wrapped.get(typing.get_origin(hint), name in base.__required_keys__)) for name, hint in hints.items()}


def plain_hint(hint: Any) -> Any:
    """`hint` without what says nothing of its values: `Required`, `Final`, `InitVar`, a `NewType`, the name of a type."""
    while True:
        if typing.get_origin(hint) in _WRAPPERS:
            hint = typing.get_args(hint)[0]
        elif isinstance(hint, dataclasses.InitVar):
            hint = hint.type
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":  # from a `type` statement, which Python 3.11 has not
            hint = hint.__value__
        elif type(typing.get_origin(hint)).__name__ == "TypeAliasType":
            alias = typing.get_origin(hint)
            hint = _with_variables(alias.__value__, dict(zip(alias.__type_params__, typing.get_args(hint), strict=True)))
        else:
            return hint


def json_value(choice: Any) -> Any:
    """What stands for `choice`, a value of a `Literal` or a member of an enum, in JSON."""
    return choice.value if isinstance(choice, enum.Enum) else choice


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


def _signature_schema(function: Callable[..., Any]) -> Mapping[str, Any]:
    import inspect

    hints = typing.get_type_hints(function, include_extras=True)
    properties, required, classes = {}, [], _Classes()
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidRequestError(message=f"Tool.from_function: {name!r} is variadic, which no schema can express")
        properties[name] = _schema(hints.get(name, str), f"parameter {name!r}", classes)
        if parameter.default is parameter.empty:
            required.append(name)
    return classes.resolved(FrozenDict(type="object", properties=FrozenDict(properties), required=tuple(required)))


class _Classes:
    """The classes that a schema is made of, each described once: within a description the key of a class stands for it.

    `made`: the descriptions by class and its parameters; `inside`: the classes that each names; `around`: those under way.
    """

    def __init__(self) -> None:
        self.made: dict[Any, FrozenDict[str, Any]] = {}
        self.inside: dict[Any, set[Any]] = {}
        self.around: list[Any] = []

    def resolved(self, root: FrozenDict[str, Any]) -> FrozenDict[str, Any]:
        """`root` with every class in its place; those that contain themselves stand under `$defs`."""
        names: dict[Any, str] = {}
        for key in filter(self._contains_itself, self.made):
            same = sum(other[0].__name__ == key[0].__name__ for other in names)
            names[key] = f"{key[0].__name__}{same + 1 if same else ''}"
        made: FrozenDict[str, Any] = self._filled(root, names)
        if not names:
            return made
        return FrozenDict(
            {**made, "$defs": FrozenDict({name: self._filled(self.made[key], names) for key, name in names.items()})}
        )

    def _contains_itself(self, key: Any) -> bool:
        seen, left = set(), [*self.inside[key]]
        while left:
            each = left.pop()
            if each not in seen:
                seen.add(each)
                left += self.inside[each]
        return key in seen

    def _filled(self, value: Any, names: Mapping[Any, str]) -> Any:
        if isinstance(value, tuple):
            return tuple([self._filled(each, names) for each in value])
        if not isinstance(value, Mapping):
            return value
        key = value.get(_CLASS)
        if key in names:
            return FrozenDict({"$ref": f"#/$defs/{names[key]}"})
        return self._filled(self.made[key], names) if key else FrozenDict({k: self._filled(v, names) for k, v in value.items()})


def _schema(hint: Any, where: str, classes: _Classes) -> FrozenDict[str, Any]:
    hint = plain_hint(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        notes = [note for note in args[1:] if isinstance(note, str)]
        return FrozenDict({**_schema(args[0], where, classes), **({"description": notes[0]} if notes else {})})
    if hint in _SCALARS:
        return FrozenDict(type=_SCALARS[hint])
    if hint is Any:
        return FrozenDict()
    if origin is typing.Literal:
        return _one_of(args, where)
    if origin in (typing.Union, types.UnionType):
        return FrozenDict(anyOf=tuple(_schema(arg, where, classes) for arg in args))
    base = origin or hint
    if isinstance(base, type):
        found = _class_schema(base, args, where, classes)
        if found is not None:
            return found
    mend = (
        "say what it stands for, as in Box[int]"
        if isinstance(hint, typing.TypeVar)
        else "use plain types, or write the schema out"
    )
    raise InvalidRequestError(message=f"no schema can describe {where} ({hint!r}): {mend}")


def _one_of(choices: Sequence[Any], where: str) -> FrozenDict[str, Any]:
    """The schema of a choice, with its type where all values have the same: some servers take no bare enum."""
    values = tuple(map(json_value, choices))
    if not values or any(type(value) not in _SCALARS or value in (math.inf, -math.inf) or value != value for value in values):
        raise InvalidRequestError(
            message=f"no schema can describe {where}: its values must be texts, numbers, true, false or None"
        )
    words = {_SCALARS[type(value)] for value in values}
    word = words.pop() if len(words) == 1 else None
    return FrozenDict({"type": word, "enum": values} if word else {"enum": values})


def _class_schema(base: Any, args: tuple[Any, ...], where: str, classes: _Classes) -> FrozenDict[str, Any] | None:
    if issubclass(base, enum.Enum):
        return _one_of(tuple(base), where)
    if has_fields(base):
        return _object_schema(base, args, where, classes)
    if issubclass(base, dict) or base is Mapping:
        return FrozenDict(type="object")
    if issubclass(base, (list, tuple, set, frozenset)) or base is Sequence:
        items = [arg for arg in args if arg is not ...]
        return FrozenDict(type="array", **({"items": _schema(items[0], where, classes)} if items else {}))
    return None


def _object_schema(base: Any, args: tuple[Any, ...], where: str, classes: _Classes) -> FrozenDict[str, Any]:
    key = base, args
    if classes.around:
        classes.inside[classes.around[-1]].add(key)
    if key not in classes.inside:
        classes.inside[key] = set()
        classes.around.append(key)
        fields = fields_of(base, args)
        properties = FrozenDict({name: _schema(hint, f"{where}.{name}", classes) for name, (hint, _) in fields.items()})
        classes.made[key] = FrozenDict(
            type="object", properties=properties, required=tuple(name for name, (_, needed) in fields.items() if needed)
        )
        classes.around.pop()
    return FrozenDict({_CLASS: key})


def _is_named_tuple(base: Any) -> bool:
    return isinstance(base, type) and issubclass(base, tuple) and hasattr(base, "_fields")


def _hints(base: Any, args: tuple[Any, ...]) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(base, include_extras=True)
    except NameError:
        try:  # a class within a function knows itself at least
            hints = typing.get_type_hints(base, localns={**vars(base), base.__name__: base}, include_extras=True)
        except NameError as exc:
            message = f"in {base.__name__} the {exc}: define classes that fields name at the top level of a module"
            raise InvalidRequestError(message=message) from exc
    values = _type_variables(base, args)
    return {name: _with_variables(hint, values) for name, hint in hints.items()} if values else hints


def _type_variables(base: Any, args: tuple[Any, ...]) -> dict[Any, Any]:
    """What each type variable of a generic class stands for, and of the classes it is made from."""
    values = dict(zip(getattr(base, "__parameters__", ()), args))  # noqa: B905 - a bare class has no arguments
    for parent in getattr(base, "__orig_bases__", ()):
        origin = typing.get_origin(parent)
        if origin not in (None, typing.Generic):
            known = tuple([_with_variables(each, values) for each in typing.get_args(parent)])
            values = {**_type_variables(origin, known), **values}
    return values


def _with_variables(hint: Any, values: Mapping[Any, Any]) -> Any:
    if isinstance(hint, typing.TypeVar):
        return values.get(hint, hint)
    names = () if isinstance(hint, type) and typing.get_origin(hint) is None else getattr(hint, "__parameters__", ())
    return hint[tuple([values.get(name, name) for name in names])] if names else hint


_WRAPPERS = (typing.Required, typing.NotRequired, typing.Final, getattr(typing, "ReadOnly", typing.Required))
_CLASS = "\0class"
"""Stands for "$ref" while the classes are put together: no field has this name."""
