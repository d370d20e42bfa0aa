"""Answers as a stand-in model: one neutral question in, one neutral answer out, the same every time.

Strategy: `answer` picks tool calls, a value that fits the schema, a quoted tool result or a pleasant sentence, and cuts it at
stop words and at the token limit; ids, signatures and vectors are hashes. A value for a schema is its const, enum, default or
example, else one by type; deep levels only where required, so that a schema that refers to itself ends. Nothing is random and
no clock is read.
Must never know a dialect, a key, or HTTP.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .simulator_prompt import TOKEN, Answer, Call, Media, Prompt, ToolSpec, count_tokens

ReplyFunction = Callable[[str], str]

_FACTS = (
    ("capital of france", "The capital of France is Paris."),
    ("2+2", "2 + 2 = 4."),
    ("2 + 2", "2 + 2 = 4."),
    ("sky blue", "Air scatters short waves of light more than long ones, so blue reaches your eye from every side."),
    ("haiku", "Many doors, one guest:\nwhere the lamp is still burning\nshe is let in first."),
    ("joke", "There are 10 kinds of people: those who read binary, and those who do not."),
    ("hello", "Hello! How can I help you today?"),
)
_SENTENCES = (
    "You asked: {question} I am {model}, a stand-in, so here is a calm and friendly answer that means nothing at all.",
    "That is worth a thought: {question} The short answer is yes, the long one needs a real model behind {model}.",
    "{question} A fine question. Begin with the smallest part, make it work, then take the next one.",
    "About this: {question} Most of it becomes clear once it is written down; the rest after a walk.",
)


def answer(prompt: Prompt, reply: ReplyFunction | None = None) -> Answer:
    """What the stand-in says to `prompt`; `reply(question)` replaces its own sentences, not tool calls or JSON."""
    thinking = f"The user wants: {_short(prompt.question)} A short answer will do." if prompt.thinking else ""
    calls = () if prompt.results else _calls(prompt)
    if calls:
        return Answer("", thinking, calls, "calls")
    text, stop_word = _until_stop(_text(prompt, reply), prompt.stop)
    most = None if prompt.max_tokens is None else max(0, prompt.max_tokens - count_tokens(thinking))
    cut = _cut(text, most)
    if cut != text:
        return Answer(cut, thinking, finish="length")
    return Answer(text, thinking, finish="sequence" if stop_word else "stop", stop_word=stop_word)


def pieces(text: str, words: int) -> Iterator[str]:
    """`text` in pieces of `words` words, spaces kept, so that joining them gives `text` back."""
    split = re.findall(r"\s*\S+|\s+$", text)
    size = max(1, words)
    for start in range(0, len(split), size):
        yield "".join(split[start : start + size])


MOST_DIMENSIONS = 16_384
"""No model gives longer vectors."""


def vector(text: str, dimensions: int) -> list[float]:
    """A unit vector for `text`; texts that share words are near each other."""
    sums = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [text]:
        mark = zlib.crc32(word.encode("utf-8", "replace"))
        sums[mark % dimensions] += 1.0 if mark & 0x10000 else -1.0
    length = math.sqrt(sum(value * value for value in sums))
    return [round(value / length, 6) for value in sums] if length else [1.0] + [0.0] * (dimensions - 1)


def sign(*facts: str) -> str:
    """An opaque signature that any stand-in can check: base64 of a hash over `facts`."""
    return base64.b64encode(hashlib.sha256("\0".join(("stand-in", *facts)).encode("utf-8", "replace")).digest()).decode()


def make_id(prefix: str, *facts: object) -> str:
    """An id that is unique for `facts`: `prefix` and 24 hexadecimal digits."""
    return prefix + hashlib.sha256("\0".join(map(str, facts)).encode("utf-8", "replace")).hexdigest()[:24]


def _calls(prompt: Prompt) -> tuple[Call, ...]:
    if not prompt.tools or prompt.choice == "none":
        return ()
    named = [tool for tool in prompt.tools if tool.name == prompt.choice]
    heard = prompt.question.lower()
    last_is_user = prompt.turns[-1].role == "user"
    asked = [tool for tool in prompt.tools if last_is_user and _mentions(heard, tool.name.lower())]
    chosen = named or asked or (list(prompt.tools[:1]) if prompt.choice == "any" else [])
    if not prompt.parallel:
        chosen = chosen[:1]
    return tuple(Call(tool.name, _arguments(tool)) for tool in chosen)


def _arguments(tool: ToolSpec) -> dict[str, Any]:
    built = example(tool.schema)
    return built if isinstance(built, dict) else {}


def _mentions(heard: str, name: str) -> bool:
    return name in heard or name.replace("_", " ") in heard


def _text(prompt: Prompt, reply: ReplyFunction | None) -> str:
    if prompt.schema is not None:
        return json.dumps(example(prompt.schema or {"type": "object", "properties": {"answer": {"type": "string"}}}))
    if prompt.results:
        return " ".join(f"The tool {result.name} answered: {result.text}" for result in prompt.results)
    seen = _seen(next((turn.media for turn in reversed(prompt.turns) if turn.role == "user"), ()))
    if reply is not None:
        return reply(prompt.question)
    said = _sentence(prompt) if prompt.question or not seen else ""
    return f"{seen} {said}".strip()


def _sentence(prompt: Prompt) -> str:
    asked = prompt.question.lower()
    known = next((fact for words, fact in _FACTS if words in asked), None)
    if known is not None:
        return known
    pick = _SENTENCES[zlib.crc32(prompt.question.encode("utf-8", "replace")) % len(_SENTENCES)]
    return pick.format(question=_short(prompt.question), model=prompt.model)


def _seen(media: tuple[Media, ...]) -> str:
    kinds: dict[str, list[str]] = {}
    for item in media:
        kinds.setdefault(item.kind, []).append(f"{item.mime_type}, {f'{item.size} bytes' if item.size else 'a link'}")
    counted = [f"{len(each)} {kind}{'s' * (len(each) > 1)} ({'; '.join(each)})" for kind, each in kinds.items()]
    return f"I see {' and '.join(counted)}." if counted else ""


def _short(question: str) -> str:
    line = " ".join(question.split())
    line = line if len(line) <= 80 else line[:77] + "..."
    return line if not line or line[-1] in ".?!" else f"{line}."


def _until_stop(text: str, stop: tuple[str, ...]) -> tuple[str, str]:
    hits = [(text.index(word), word) for word in stop if word and word in text]
    if not hits:
        return text, ""
    place, word = min(hits)
    return text[:place], word


def _cut(text: str, most: int | None) -> str:
    if most is None:
        return text
    for number, token in enumerate(TOKEN.finditer(text)):
        if number == most:
            return text[: token.start()].rstrip()
    return text


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
