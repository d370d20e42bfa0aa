"""Defines what goes in: messages, requests, and the small values that requests and answers share.

Strategy: one vocabulary, OpenAI's, for every dialect. Constructors accept what people write (strings, dicts,
functions) and keep one immutable form, so that nothing below has to ask again. Must never know a provider.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from .errors import InvalidRequestError
from .frozen import EMPTY, field, freeze, frozen_value, quick

if TYPE_CHECKING:
    from .content import Part
    from .tool import Tool

    MessageLike: TypeAlias = "Message | Mapping[str, Any]"
    MessagesLike: TypeAlias = str | MessageLike | Sequence[MessageLike]
    ToolLike: TypeAlias = Tool | Callable[..., Any] | Mapping[str, Any]
    FormatLike: TypeAlias = str | type[Any] | Mapping[str, Any]

    class ChatOptions(TypedDict, total=False):
        """What `Router.chat` takes by name: bounds in seconds, the `Cancel` that gives it up, and a `ChatRequest`'s fields."""

        timeout: float | None
        max_wait: float | None
        cancel: Any
        model: str
        temperature: float | None
        max_tokens: int | None
        top_p: float | None
        stop: Sequence[str] | str | None
        seed: int | None
        tools: Sequence[ToolLike] | None
        tool_choice: str | Mapping[str, Any] | None
        response_format: FormatLike | None
        reasoning_effort: str | None
        extra: Mapping[str, Any] | None
        require: Sequence[str] | str
        session: str | None
else:  # for `typing.get_type_hints`
    Part = Tool = Any

FORMATS = ("text", "json_object", "json_schema")
NO_MEDIA: frozenset[str] = frozenset()
ROLES = ("system", "developer", "user", "assistant", "tool")
OPTIONAL = ("temperature", "max_tokens", "top_p", "stop", "seed", "tools", "tool_choice", "response_format", "reasoning_effort")


@frozen_value
class Usage:
    """Tokens, one definition for all providers.

    prompt: all input, cached and tool-use prompt included; completion: all output, reasoning included; total: as reported.
    `cached_tokens` and `reasoning_tokens` are parts of them. `input_breakdown`: input tokens by modality, where known.
    `estimated`: the provider did not say, or not all, so this is the library's own count.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    input_breakdown: Mapping[str, int] = EMPTY
    estimated: bool = False


@frozen_value
class Routing:
    """Who served the call. `attempts` counts from 1; `cost` in dollars, 0 when free or unpriced; `dropped`: what was left out."""

    provider: str
    account_id: str
    model: str
    attempts: int = 1
    free: bool = True
    cost: float = 0.0
    dropped: tuple[str, ...] = ()


@frozen_value
class ToolCall:
    """A call the model asks for. `arguments`: JSON text as the model wrote it; `signature`: an opaque token to give back."""

    id: str
    name: str
    arguments: str = "{}"
    signature: str | None = field(default=None, repr=False)

    def parsed(self) -> Any:
        """The arguments as Python values, `{}` when empty. Raises `InvalidRequestError` if the model wrote broken JSON."""
        try:
            return json.loads(self.arguments) if self.arguments.strip() else {}
        except (ValueError, RecursionError) as exc:
            raise InvalidRequestError(message=f"the model's arguments for {self.name!r} are not JSON: ask it again") from exc

    def to_dict(self) -> dict[str, Any]:
        """The OpenAI-style dict."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


@frozen_value
class NativeTurn:
    """A turn in its provider's own words, kept to be given back unchanged (thinking signatures live in it).

    `data`: JSON text that only `dialect` (for OpenAI-compatible servers: of `provider`) understands; `text` and `calls`: what it
    said in our words, so that a turn that was edited since is told apart.
    """

    dialect: str
    provider: str
    data: str = field(repr=False)
    text: str = field(repr=False)
    calls: tuple[ToolCall, ...] = field(repr=False)


@frozen_value
class Message:
    """One turn. `content`: a string or a sequence of `Part`s (or strings, or OpenAI content objects).

    Assistant turns may carry `tool_calls`; a tool's answer has role "tool" and the `tool_call_id` it answers.
    Raises `InvalidRequestError` for anything else.
    """

    role: str
    content: str | Sequence[Part] | None = ""
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str = field(default="", repr=False)
    native: NativeTurn | None = field(default=None, repr=False, compare=False)

    if TYPE_CHECKING:  # what is taken is wider than what is kept

        def __init__(
            self,
            role: str,
            content: str | Part | Sequence[Part | str | Mapping[str, Any]] | None = "",
            tool_calls: Sequence[ToolCall | Mapping[str, Any]] | None = (),
            tool_call_id: str | None = None,
            name: str | None = None,
            reasoning: str = "",
            native: NativeTurn | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise InvalidRequestError(message=f"a message's role is one of {', '.join(ROLES)}, not {self.role!r}")
        if not isinstance(self.content, str):
            object.__setattr__(self, "content", _content(self.content))
        if self.tool_calls:
            calls = _listed("tool_calls", self.tool_calls)
            object.__setattr__(self, "tool_calls", tuple(_tool_call(call) for call in calls))
        elif self.tool_calls != ():
            object.__setattr__(self, "tool_calls", ())

    @property
    def text(self) -> str:
        """All its text, joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.value or "" for part in self.parts)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Its content as parts, a string being one text part and "" none."""
        if isinstance(self.content, str):
            from .content import Part

            return (Part("text", value=self.content),) if self.content else ()
        return tuple(self.content or ())

    def native_for(self, dialect: str, provider: str = "") -> Any:
        """The turn in the dialect's own words, or None if it came from elsewhere or was changed since."""
        native = self.native
        if native is None or native.dialect != dialect or (provider and native.provider != provider):
            return None
        if native.text != self.text or native.calls != self.tool_calls:
            return None
        return json.loads(native.data)

    def to_dict(self) -> dict[str, Any]:
        """The OpenAI-style dict, with Gemini's call signatures where Google puts them; thinking is not in it."""
        content = self.content if isinstance(self.content, str) else [part.to_dict() for part in self.parts]
        made: dict[str, Any] = {"role": self.role, "content": content}
        if self.tool_calls:
            made["tool_calls"] = [_signed_dict(call) for call in self.tool_calls]
        if self.tool_call_id is not None:
            made["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            made["name"] = self.name
        return made

    @classmethod
    def from_dict(cls, item: Mapping[str, Any]) -> Message:
        """From an OpenAI-style dict. Raises `InvalidRequestError` for a key or value it does not know."""
        unknown = [key for key in item if key not in _MESSAGE_KEYS]
        if unknown:
            raise InvalidRequestError(message=f"a message has no {unknown[0]!r}; it takes {', '.join(sorted(_MESSAGE_KEYS))}")
        if "role" not in item:
            raise InvalidRequestError(message="a message needs a role")
        return cls(
            item["role"],
            item.get("content", ""),
            item.get("tool_calls") or (),
            item.get("tool_call_id"),
            item.get("name"),
            item.get("reasoning") or item.get("reasoning_content") or "",
        )


_turn, _LARGEST = quick(Message, checked=True), 2**63

# What servers put into an assistant turn, so that their answers can be handed back as they are.
_MESSAGE_KEYS = frozenset(
    (
        *("role", "content", "tool_calls", "tool_call_id", "name", "reasoning", "reasoning_content"),
        *("refusal", "annotations", "audio", "function_call", "reasoning_details"),
    )
)


@frozen_value
class ChatRequest:
    """One chat. `messages`: `Message`s, OpenAI-style dicts, or one string.

    `model`: an alias, a model, provider/model, or "" for the default. None means the provider's own default. `max_tokens`
    bounds the answer, reasoning included. `extra`: merged into the provider's body as it is. `require`: names of parameters
    that must not be dropped; a candidate that cannot express one is left out. `response_format`: OpenAI's dict or word, a bare
    JSON schema, or a class (dataclass, TypedDict, pydantic model) that the answer's `parsed()` gives back. `session`: any name
    of a conversation, which is kept on one account and model while those may serve, as their prompt caches know it; never sent.
    Raises `InvalidRequestError` for anything that is wrong in itself.
    """

    messages: Sequence[Message] | str
    model: str = ""
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    stop: Sequence[str] | str | None = None
    seed: int | None = None
    tools: Sequence[Tool] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    response_format: Mapping[str, Any] | str | None = None
    reasoning_effort: str | None = None
    extra: Mapping[str, Any] | None = None
    require: Sequence[str] = ()
    session: str | None = None

    if TYPE_CHECKING:  # what is taken is wider than what is kept

        def __init__(
            self,
            messages: MessagesLike,
            model: str = "",
            temperature: float | None = None,
            max_tokens: int | None = None,
            top_p: float | None = None,
            stop: Sequence[str] | str | None = None,
            seed: int | None = None,
            tools: Sequence[ToolLike] | None = (),
            tool_choice: str | Mapping[str, Any] | None = None,
            response_format: FormatLike | None = None,
            reasoning_effort: str | None = None,
            extra: Mapping[str, Any] | None = None,
            require: Sequence[str] | str = (),
            session: str | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        settle = object.__setattr__
        settle(self, "messages", _messages(self.messages))
        if not isinstance(self.model, str):
            raise InvalidRequestError(message=f"model is a name, not {self.model!r}")
        if self.temperature is not None or self.max_tokens is not None or self.top_p is not None or self.seed is not None:
            _number("temperature", self.temperature, float, 0)
            _number("max_tokens", self.max_tokens, int, 1)
            _number("top_p", self.top_p, float, 0)
            _number("seed", self.seed, int, None)
        if self.reasoning_effort is not None and not isinstance(self.reasoning_effort, str):
            raise InvalidRequestError(message="reasoning_effort is a word such as low, medium or high")
        if self.session is not None and not (isinstance(self.session, str) and self.session):
            raise InvalidRequestError(message=f"session is a conversation's name, not {self.session!r}")
        if self.stop is not None:
            settle(self, "stop", _strings("stop", self.stop))
        if self.tools:
            from .tool import tool_from_dict

            tools = _listed("tools", self.tools)
            settle(self, "tools", tuple(tool_from_dict(tool, f"tools[{i}]") for i, tool in enumerate(tools)))
        elif self.tools != ():
            settle(self, "tools", ())
        if self.tool_choice is not None:
            settle(self, "tool_choice", _tool_choice(self.tool_choice))
        if self.response_format is not None:
            settle(self, "response_format", _response_format(self.response_format))
        if self.extra is not None:
            settle(self, "extra", _extra(self.extra))
        if self.require != ():
            settle(self, "require", _strings("require", self.require))
            unknown = [name for name in self.require if name not in OPTIONAL]
            if unknown:
                raise InvalidRequestError(message=f"require cannot name {unknown[0]!r}; it takes {', '.join(OPTIONAL)}")

    @property
    def forced_tool(self) -> str | None:
        """The one tool's name that `tool_choice` demands, or None."""
        return self.tool_choice["function"]["name"] if isinstance(self.tool_choice, Mapping) else None

    @property
    def media(self) -> frozenset[str]:
        """The kinds of media in the messages: image, audio, video, document."""
        for message in self.messages:
            if isinstance(message, Message) and type(message.content) is not str:
                return frozenset(
                    part.kind for turn in self.messages for part in getattr(turn, "parts", ()) if part.kind != "text"
                )
        return NO_MEDIA


@frozen_value
class EmbedRequest:
    """Texts to turn into vectors. `dimensions`: asked vector length, None = the model's own. Raises `InvalidRequestError`."""

    inputs: Sequence[str] | str
    model: str = ""
    dimensions: int | None = None
    extra: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", _strings("inputs", self.inputs))
        if not self.inputs:
            raise InvalidRequestError(message="inputs is empty: give at least one text")
        if not isinstance(self.model, str):
            raise InvalidRequestError(message=f"model is a name, not {self.model!r}")
        _number("dimensions", self.dimensions, int, 1)
        if self.extra is not None:
            object.__setattr__(self, "extra", _extra(self.extra))


def _content(content: Any) -> str | tuple[Part, ...]:
    if content is None:
        return ""
    from .content import Part, part_from_dict

    if isinstance(content, Part):
        return (content,)
    if isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
        return tuple(part_from_dict(item, f"content[{i}]") for i, item in enumerate(content))
    raise InvalidRequestError(message=f"a message's content is a string or a list of parts, not {type(content).__name__}")


def _signed_dict(call: ToolCall) -> dict[str, Any]:
    """The call's dict with its signature in the place of Google's OpenAI-compatible endpoint."""
    return call.to_dict() | ({"extra_content": {"google": {"thought_signature": call.signature}}} if call.signature else {})


def _tool_call(item: Any) -> ToolCall:
    if isinstance(item, ToolCall):
        return item
    try:
        function = item["function"]
        arguments = function.get("arguments", "{}")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        extra = item.get("extra_content")
        signature = extra.get("google", {}).get("thought_signature") if isinstance(extra, Mapping) else None
        return ToolCall(str(item.get("id") or ""), str(function["name"]), text, signature)
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise InvalidRequestError(message="tool_calls takes ir.ToolCall or OpenAI-style tool call dicts") from exc


def _messages(messages: Any) -> tuple[Message, ...]:
    if isinstance(messages, str):
        return (_turn("user", messages),)
    if type(messages) is not list:  # as most are: to ask whether it is a `Mapping` or a `Sequence` takes longer than all else
        messages = (messages,) if isinstance(messages, (Message, Mapping)) else messages
        if not isinstance(messages, Sequence) or isinstance(messages, (bytes, bytearray)):
            raise InvalidRequestError(message="messages takes a string, or a list of ir.Message or OpenAI-style dicts")
    if not messages:
        raise InvalidRequestError(message="messages is empty: give at least one message")
    return tuple([item if isinstance(item, Message) else _message(item, i) for i, item in enumerate(messages)])


def _message(item: Any, index: int) -> Message:
    if not isinstance(item, Mapping):
        raise InvalidRequestError(message=f"messages[{index}] is {type(item).__name__}; use ir.Message or an OpenAI-style dict")
    try:
        return Message.from_dict(item)
    except InvalidRequestError as exc:
        raise InvalidRequestError(message=f"messages[{index}]: {exc.message}") from exc


def _number(name: str, value: Any, kind: type, least: int | None) -> None:
    if value is None:
        return
    allowed = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, allowed):
        raise InvalidRequestError(message=f"{name} is {'a number' if kind is float else 'a whole number'}, not {value!r}")
    if not -_LARGEST <= value < _LARGEST:
        raise InvalidRequestError(message=f"{name} is not a number that any provider takes: it is beyond 64 bits, or NaN")
    if least is not None and value < least:
        raise InvalidRequestError(message=f"{name} is at least {least}, not {value!r}")


def _listed(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise InvalidRequestError(message=f"{name} takes a list, not {type(value).__name__}")
    return value


def _extra(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise InvalidRequestError(message="extra is a dict merged into the provider's body")
    return freeze(value)


def _strings(name: str, value: Any) -> tuple[str, ...]:
    items = (value,) if isinstance(value, str) else value
    if not isinstance(items, Sequence) or not all(isinstance(item, str) for item in items):
        raise InvalidRequestError(message=f"{name} takes a string or a list of strings")
    return tuple(items)


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        if choice in ("auto", "none", "required", "any"):
            return "required" if choice == "any" else choice
        choice = {"type": "function", "function": {"name": choice}}
    if (
        isinstance(choice, Mapping)
        and isinstance(choice.get("function"), Mapping)
        and isinstance(choice["function"].get("name"), str)
    ):
        return freeze(choice)
    raise InvalidRequestError(message="tool_choice is auto, none, required, a tool's name, or OpenAI's function dict")


def _response_format(form: Any) -> Any:
    if isinstance(form, str):
        form = {"type": form}
    elif not isinstance(form, Mapping) or form.get("type") not in FORMATS:
        from .shapes import format_of_class, format_of_schema, is_schema, is_shape, not_a_shape

        if isinstance(form, Mapping) and is_schema(form):
            return format_of_schema(form)
        if is_shape(form):
            return format_of_class(form)
        if not isinstance(form, Mapping):
            raise not_a_shape(form)
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "json_schema":
        inner = form.get("json_schema")
        if not isinstance(inner, Mapping) or not isinstance(inner.get("schema"), Mapping):
            raise InvalidRequestError(message='response_format json_schema needs {"json_schema": {"name": ..., "schema": {...}}}')
    elif kind not in FORMATS:
        raise InvalidRequestError(message=f"response_format's type is text, json_object or json_schema, not {kind!r}")
    return freeze(form)
