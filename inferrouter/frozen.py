"""Makes immutable things: classes of frozen values, and copies of what a caller hands in as dicts and lists.

Strategy: a value's class is a frozen, slotted dataclass whose methods are shared where the stdlib compiles six for every class,
and which the stdlib's functions know as theirs when they are asked. A dict that refuses to change still is a dict to json, pickle
and `==`, so values that hold one stay comparable and printable. Must never know what the data means, nor load `dataclasses`,
which loads `inspect`: a tenth of what a script waited for before its first call (tests/benchmarks/bench_start).
"""

from __future__ import annotations

import sys
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial, wraps
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast, dataclass_transform

new_tuple = tuple.__new__
"""`new_tuple(Point, (1, 2))` is `Point(1, 2)` of a named tuple in two thirds of the time, for those that each call makes."""

C = TypeVar("C")
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class _Missing:
    """No default. Its text is what `help` shows where a factory makes one, as the stdlib does."""

    def __repr__(self) -> str:
        return "<factory>"


_MISSING: Any = _Missing()


class _Field:
    """What is known of one field of a value, by the names that the stdlib's `Field` has. `name` and `type`: set by its class."""

    __slots__ = ("compare", "default", "default_factory", "init", "name", "repr", "type")

    def __init__(
        self,
        *,
        default: Any = _MISSING,
        default_factory: Any = _MISSING,
        init: bool = True,
        repr: bool = True,  # noqa: A002  the stdlib's name
        compare: bool = True,
    ) -> None:
        self.name = self.type = ""
        self.default = default
        self.default_factory = default_factory
        self.init = init
        self.repr = repr
        self.compare = compare


def _replace(value: Any, /, **changes: Any) -> Any:
    fields = vars(type(value)).get("__value_fields__")
    if fields is None:  # a class that inherits from a value's, which may have more fields
        from dataclasses import replace

        return replace(value, **changes)
    for each in fields:
        if each.init and each.name not in changes:
            changes[each.name] = getattr(value, each.name)
    return value.__class__(**changes)


if TYPE_CHECKING:
    from dataclasses import field as field
    from dataclasses import replace as replace
    from typing import NamedTuple as NamedTuple
else:  # the same, of the values that are made here
    field, replace = _Field, _replace


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen_value(cls: type[C]) -> type[C]:
    """`cls` as by `dataclass(frozen=True, slots=True)`, in a quarter of the time.

    The stdlib compiles six methods for each class; thirty classes at 0.56 ms were a third of what a script waited for before its
    first call (tests/benchmarks/bench_start). Here `__init__` alone is compiled, the others are shared.
    """
    body = dict(vars(cls))
    for name in ("__dict__", "__weakref__"):  # what a class without slots has
        body.pop(name, None)
    fields = tuple(_field_of(name, hint, body.pop(name, _MISSING)) for name, hint in cls.__annotations__.items())
    made: Any = type(cls.__name__, cls.__bases__, _SHARED | _facts(fields) | body)
    made.__qualname__ = cls.__qualname__
    return made  # type: ignore[no-any-return]  # `Any` because a class is put together here


def _field_of(name: str, hint: Any, given: Any) -> _Field:
    """The field `name` of a class whose body says `given`: a `field()`, a default or nothing."""
    made = given if isinstance(given, _Field) else _Field(default=given)
    made.name = name
    made.type = hint
    return made


def _facts(fields: tuple[_Field, ...]) -> dict[str, Any]:
    """What a value's class has for these fields."""
    return {
        "__slots__": tuple(each.name for each in fields),
        "__match_args__": tuple(each.name for each in fields if each.init),
        "__init__": _LazyInit(),
        "__value_fields__": fields,
        "__value_key__": attrgetter(*[each.name for each in fields if each.compare]),
        "__dataclass_fields__": _ForDataclasses(),
        "__dataclass_params__": _ForDataclasses(),
    }


class _ForDataclasses:
    """An attribute by which `dataclasses` knows a class as its own, made by itself when it is asked for."""

    def __set_name__(self, owner: Any, name: str) -> None:
        self._of = owner, name

    def __get__(self, instance: Any, owner: Any) -> Any:
        from dataclasses import dataclass, field

        cls, name = self._of
        body: dict[str, Any] = {"__module__": cls.__module__, "__annotations__": dict(cls.__annotations__)}
        for each in cls.__value_fields__:
            settings = {"init": each.init, "repr": each.repr, "compare": each.compare}
            defaults = {"default": each.default, "default_factory": each.default_factory}
            settings |= {word: given for word, given in defaults.items() if given is not _MISSING}
            body[each.name] = field(**settings)
        twin: Any = dataclass(frozen=True)(type(cls.__name__, (), body))
        cls.__dataclass_fields__ = twin.__dataclass_fields__
        cls.__dataclass_params__ = twin.__dataclass_params__
        return getattr(twin, name)


if not TYPE_CHECKING:

    class _NamedTupleMaker(type):
        """Makes what `typing.NamedTuple` makes, in a third of the time: it does not compile each field's annotation.

        Twenty such classes at 0.4 ms were a twelfth of what a script waited for before its first call (bench_start).
        """

        def __new__(mcls, name, bases, body):
            if not bases:
                return super().__new__(mcls, name, bases, body)
            if Generic in bases:
                body["__class_getitem__"] = classmethod(_as_it_is)
            fields = body.get("__annotations__", {})
            defaults = [body[each] for each in fields if each in body]
            made = namedtuple(name, fields, defaults=defaults, module=body["__module__"])
            made.__annotations__ = dict(fields)
            for key, value in body.items():
                if key not in fields and key not in _NOT_COPIED:
                    setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_NamedTupleMaker):
        """To be inherited from, as `typing.NamedTuple` is."""

    def _as_it_is(cls, parameters):
        return cls

    _NOT_COPIED = frozenset(("__annotations__", "__module__", "__dict__", "__orig_bases__"))


def quick(cls: type[C], checked: bool = False) -> type[C]:
    """What calling `cls` does, in a third of the time, for values that each call or chunk makes; `cls` checks nothing when made.
    `checked`: it does, and whoever makes one here gives only what it would take and keep as it is.

    A class that refuses to be changed sets its fields one by one through their descriptors. Here they are set on a twin that does
    not refuse, and then becomes the class: 0.3 us less a value, of which a chunk of a stream is three.
    """
    made: Any = cls
    if hasattr(made, "__post_init__") and not checked:
        raise TypeError(f"{cls.__name__} validates its arguments: call {cls.__name__}(...) directly, or pass checked=True")
    fields = [each for each in made.__value_fields__ if each.init]
    names: dict[str, Any] = {"_twin": _twin_of(made), "_class": cls}
    names |= {f"_default_{each.name}": each.default for each in fields if each.default is not _MISSING}
    parameters = [each.name + ("" if each.default is _MISSING else f"=_default_{each.name}") for each in fields]
    lines = "".join(f"    made.{each.name} = {each.name}\n" for each in fields)
    head = f"def make({', '.join(parameters)}):\n    made = _twin()\n"
    return cast("type[C]", _compiled(f"{head}{lines}    made.__class__ = _class\n    return made", names)["make"])


@cache
def _twin_of(cls: Any) -> Any:
    """A class whose values look like those of `cls`, which any of them can become and be made from, but may be changed."""
    own = {name: getattr(object, name) for name in ("__init__", "__setattr__", "__delattr__")}
    facts = {"__slots__": (), "__value_fields__": cls.__value_fields__, "__qualname__": cls.__qualname__}
    return type(cls.__name__, (cls,), own | facts | {"__module__": cls.__module__})


def _compiled(source: str, names: dict[str, Any]) -> dict[str, Any]:
    """`names` with what `source`, made of names of fields alone, defines. As code: a Ctrl-C amid the running of a text would make
    the interpreter end with the signal, whoever catches it."""
    exec(compile(source, "<frozen>", "exec"), names)  # noqa: S102  see above
    return names


class _LazyInit:
    """An `__init__` that is compiled once a class has made a few values, or when it is asked for: most of a script's classes make
    one or two, which so takes 3 us more each, while compiling takes 90 us."""

    _left = 12  # values to be made before it pays

    def __set_name__(self, owner: Any, name: str) -> None:
        self._of = owner

    def __get__(self, instance: Any, owner: Any) -> Any:
        # `inspect.signature` of 3.13 and later asks with the class for an instance.
        if instance is not None and self._left and not isinstance(instance, type):
            self._left -= 1
            return partial(self._fill, instance)
        made = self._of.__init__ = _init_of(self._of, self._of.__value_fields__)
        return made.__get__(instance, owner)

    def _fill(self, made: Any, /, *given: Any, **named: Any) -> None:
        values = dict(zip(self._of.__match_args__, given, strict=False)) | named
        fits = len(values) == len(given) + len(named)
        for each in self._of.__value_fields__:
            if each.init and each.name in values:
                value = values.pop(each.name)
            elif each.default_factory is not _MISSING:
                value = each.default_factory()
            elif each.init:
                value = each.default
                fits = fits and value is not _MISSING
            else:
                continue
            object.__setattr__(made, each.name, value)
        error = None if fits and not values else _misfit(self._of, made, given, named)
        value = values = given = named = None  # type: ignore[assignment]  # a traceback with locals would show a key
        if error is not None:
            raise error
        if hasattr(made, "__post_init__"):
            made.__post_init__()


def _misfit(cls: Any, made: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Exception | None:
    """What the compiled `__init__` says to arguments that do not fit."""
    try:
        _init_of(cls, cls.__value_fields__)(made, *given, **named)
    except Exception as exc:
        return exc.with_traceback(None)  # nor this frame
    return None


WORTH_A_TWIN = 6
"""From this many fields on it is quicker to turn a value into its twin (see `quick`) and set them there than to set each through
its descriptor."""


def _init_of(cls: Any, fields: tuple[_Field, ...]) -> Any:
    names = dict(vars(sys.modules[cls.__module__]))  # where `typing.get_type_hints` looks for what the annotations name
    parameters, values = ["self"], {}
    for each in fields:
        if not each.init:
            if each.default_factory is not _MISSING:
                names[f"_make_{each.name}"] = each.default_factory
                values[each.name] = f"_make_{each.name}()"
            continue
        default, values[each.name] = "", each.name
        if each.default is not _MISSING:
            names[f"_default_{each.name}"] = each.default
            default = f"=_default_{each.name}"
        elif each.default_factory is not _MISSING:
            names[f"_make_{each.name}"] = each.default_factory
            default, values[each.name] = "=_MISSING", f"_make_{each.name}() if {each.name} is _MISSING else {each.name}"
        parameters.append(each.name + default)
    names |= {f"_set_{name}": vars(cls)[name].__set__ for name in values}  # the slot's own: `__setattr__` refuses
    lines = [f"    _set_{name}(self, {value})\n" for name, value in values.items()]
    if len(lines) >= WORTH_A_TWIN:
        names |= {"_class": cls, "_twin": _twin_of(cls), "_become": vars(object)["__class__"].__set__}
        quickly = "".join(f"        self.{name} = {value}\n" for name, value in values.items())
        head = f"    if self.__class__ is _class:\n        _become(self, _twin)\n{quickly}        self.__class__ = _class\n"
        lines = [f"{head}    else:\n", *(f"    {line}" for line in lines)]  # else: a class that inherits
    if hasattr(cls, "__post_init__"):
        lines.append("    self.__post_init__()\n")
    names["_MISSING"] = _MISSING
    made = _compiled(f"def __init__({', '.join(parameters)}):\n{''.join(lines) or '    pass'}", names)["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__module__ = cls.__module__
    made.__annotations__ = {each.name: each.type for each in fields if each.init} | {"return": None}
    return _explaining(made, cls) if hasattr(cls, "misfit") else made


def _explaining(made: Any, cls: Any) -> Any:
    """`made`, which raises what `cls.misfit(names)` returns where the arguments, the named ones `names`, do not fit."""

    @wraps(made)
    def explained(self: Any, *args: Any, **settings: Any) -> None:
        try:
            made(self, *args, **settings)
        except TypeError as exc:
            if exc.__traceback__ is None or exc.__traceback__.tb_next is not None:
                raise  # from within
            error = cls.misfit(list(settings))
        else:
            return
        del args, settings  # a traceback with locals would show a key
        raise error

    explained.__annotations__ = made.__annotations__  # 3.14 no longer copies those that were set, as here
    return explained


def _fields(self: Any) -> Iterable[Any]:
    """The fields of a value, or of one whose class inherits from a value's."""
    found: Iterable[Any] = vars(type(self)).get("__value_fields__") or self.__dataclass_fields__.values()
    return found


def _repr(self: Any) -> str:
    # A traceback may show a value whose making failed: what is not set yet is shown as "...".
    shown = [f"{each.name}={getattr(self, each.name, ...)!r}" for each in _fields(self) if each.repr]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _eq(self: Any, other: Any) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return self.__value_key__(self) == self.__value_key__(other)


def _hash(self: Any) -> int:
    made: int = hash(self.__value_key__(self))
    return made


def _refuse_setting(self: Any, name: str, new: object) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deleting(self: Any, name: str) -> NoReturn:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in _fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for each, item in zip(_fields(self), state, strict=True):
        object.__setattr__(self, each.name, item)


_SHARED = {
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _refuse_setting,
    "__delattr__": _refuse_deleting,
    "__getstate__": _getstate,
    "__setstate__": _setstate,
    "__replace__": _replace,
}


def shown_once_made(method: Callable[[Any], str]) -> Callable[[Any], str]:
    """A `__repr__` that a traceback with locals may also call on an object whose making failed."""

    @wraps(method)
    def shown(self: Any) -> str:
        try:
            return method(self)
        except AttributeError:
            return f"<{type(self).__name__}: not made>"

    return shown


class FrozenDict(dict[K, V]):
    """A dict whose every mutator raises TypeError. Hashable when its values are."""

    __slots__ = ("_said",)
    _said: dict[Any, Any]

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("this mapping is part of an immutable value; build a new one with dict(...)")

    __setitem__ = __delitem__ = update = setdefault = pop = popitem = clear = __ior__ = _refuse

    def once(self, make: Callable[[FrozenDict[K, V]], T]) -> T:
        """What `make` says of it, worked out once, since it stays as it is."""
        try:
            said = self._said
        except AttributeError:
            said = self._said = {}
        found: T = said[make] if make in said else said.setdefault(make, make(self))
        return found

    def __hash__(self) -> int:  # type: ignore[override]  # dict is unhashable only because it can change
        return hash(frozenset(self.items()))

    def __copy__(self) -> FrozenDict[K, V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict[K, V]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


EMPTY: FrozenDict[str, Any] = FrozenDict()

_DEEPEST = 100
_AS_THEY_ARE = frozenset((str, int, float, bool, type(None)))  # nearly all that there is to freeze


def freeze(value: Any, depth: int = 0) -> Any:
    """A deep copy in which dicts are `FrozenDict`s and lists are tuples.

    What lies deeper than any real data, such as the inside of a list that holds itself, stays as it is.
    """
    if isinstance(value, FrozenDict) or depth > _DEEPEST:
        return value
    if type(value) is dict or isinstance(value, Mapping):
        items = value.items()
        return FrozenDict({key: item if type(item) in _AS_THEY_ARE else freeze(item, depth + 1) for key, item in items})
    if isinstance(value, (list, tuple)):
        return tuple([item if type(item) in _AS_THEY_ARE else freeze(item, depth + 1) for item in value])
    return value
