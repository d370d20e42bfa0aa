"""Answers one question (`ask`), gives vectors for texts (`embed`), and says who would be asked (`explain`).

Strategy: the answer alone goes to stdout, so that it can be piped on; who gave it, what it cost and what is waited for goes to
stderr. On a terminal an answer comes as it is written. Must never show a key, nor know how a request is routed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cli_common import DONE, FAILED, PROGRAM, Console, add_config, add_json, add_paid, found_config, one_line, open_router
from .cli_wait import Countdown
from .content import Part
from .errors import ConfigError, InvalidRequestError, UnknownModelError
from .records import ChatRequest, EmbedRequest, Message, Routing, Usage
from .router import Router
from .terminal import Screen

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

TEXT_ENDINGS = frozenset((".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".jsonl", ".toml", ".yaml", ".yml", ".xml", ".html"))
SOURCE_ENDINGS = frozenset(
    (".py", ".js", ".ts", ".c", ".h", ".cpp", ".rs", ".go", ".java", ".sh", ".sql", ".css", ".ini", ".log")
)


def add_ask(parser: ArgumentParser) -> None:
    """What `ask` takes."""
    parser.description = "One question; its answer goes to stdout."
    parser.add_argument("text", metavar="TEXT", nargs="*", help="the question; what stdin holds comes after it, - is stdin alone")
    _add_request(parser)
    _add_max_wait(parser)
    parser.add_argument("--explain", action="store_true", help="say on stderr who may serve and why not the others")
    stream = parser.add_mutually_exclusive_group()
    stream.add_argument("--stream", action="store_true", default=None, help="print the answer as it comes (usual on a terminal)")
    stream.add_argument("--no-stream", dest="stream", action="store_false", help="print the answer when it is whole")
    parser.set_defaults(run=ask, misused=parser.error)


def add_explain(parser: ArgumentParser) -> None:
    """What `explain` takes."""
    parser.add_argument("text", metavar="TEXT", nargs="*", help="the question, for its size; default: a short one")
    _add_request(parser)
    parser.set_defaults(run=explain)


def add_embed(parser: ArgumentParser) -> None:
    """What `embed` takes."""
    parser.add_argument("text", metavar="TEXT", nargs="*", help="the texts; none, or -: each line of stdin")
    parser.add_argument("--model", default="", help="an alias, a model, or provider/model; default: the alias embed")
    _add_max_wait(parser)
    add_paid(parser)
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=embed)


def ask(options: Namespace, console: Console) -> int:
    """One question, its answer on stdout, who gave it on stderr."""
    question = _question(options.text, _piped())
    if not question:
        options.misused("there is no question; write it after the command, or pipe it in")
    request = _request(options, question)
    with open_router(options, countdown=Countdown(console.err), allow_paid=options.paid) as router:
        try:
            if options.explain:
                console.err.line(str(router.explain(request)), "dim")
            if options.json:
                return _as_json(router, request, options.max_wait, console)
            streamed = console.out.terminal if options.stream is None else options.stream
            where, usage = (_streamed if streamed else _answered)(router, request, options.max_wait, console.out)
        except UnknownModelError as error:
            return _unknown(error, options, console.err)
    cost = "free" if where.free else f"${where.cost:.6f}"
    tries = f", attempt {where.attempts}" if where.attempts > 1 else ""
    console.err.line(f"[{where.provider}/{where.account_id} {where.model}: {usage.total_tokens} tokens, {cost}{tries}]", "dim")
    return DONE


def explain(options: Namespace, console: Console) -> int:
    """Who would be asked now, and why each other would not. Fails if nobody would."""
    request = _request(options, _question(options.text or ["Hello"], ""))
    with open_router(options, allow_paid=options.paid) as router:
        try:
            found = router.explain(request)
        except UnknownModelError as error:
            return _unknown(error, options, console.err)
    if options.json:
        facts = ("provider", "account_id", "model", "free", "share", "price", "in_flight", "reason")
        why = ("provider", "account_id", "model", "reason", "retry_at", "code")
        console.data(
            {
                "model": found.model,
                "candidates": [{name: getattr(each, name) for name in facts} for each in found.candidates],
                "rejections": [{name: getattr(each, name) for name in why} for each in found.rejections],
            }
        )
    else:
        console.out.line(str(found))
    return DONE if found.candidates else FAILED


def embed(options: Namespace, console: Console) -> int:
    """A JSON array of numbers a line, in the order of the texts."""
    given = options.text not in ([], ["-"])
    texts = list(options.text) if given else [line for line in _stdin().splitlines() if line.strip()]
    if not texts:
        raise InvalidRequestError(message="there is no text to embed; give some, or lines on stdin")
    with open_router(options, countdown=Countdown(console.err), allow_paid=options.paid) as router:
        try:
            found = router.embed(EmbedRequest(texts, model=options.model), max_wait=options.max_wait)
        except UnknownModelError as error:
            return _unknown(error, options, console.err)
    where = found.routing
    if options.json:
        vectors = [list(vector) for vector in found.embeddings]
        console.data({"embeddings": vectors, "model": found.model, "routing": _routing(where), "usage": _usage(found.usage)})
    else:
        import json

        for vector in found.embeddings:
            console.out.line(json.dumps(list(vector)))
    console.err.line(f"[{where.provider}/{where.account_id} {where.model}: {found.usage.total_tokens} tokens]", "dim")
    return DONE


def _add_max_wait(parser: ArgumentParser) -> None:
    parser.add_argument("--max-wait", type=_seconds, metavar="S", help="seconds to wait for a free slot")


def _add_request(parser: ArgumentParser) -> None:
    parser.add_argument("--model", default="", help="an alias, a model, or provider/model; default: the configuration's")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told before the question")
    parser.add_argument("--file", metavar="PATH", action="append", default=[], help="a text, document, picture or sound to send")
    parser.add_argument(
        "--image", metavar="PATH", action="append", default=[], help="a picture to send, from a file or an https URL"
    )
    parser.add_argument("--max-tokens", type=int, metavar="N", help="tokens the answer may have")
    add_paid(parser)
    add_config(parser)
    add_json(parser)


def _request(options: Namespace, question: str) -> ChatRequest:
    parts = [*(_file(path) for path in options.file), *(_image(path) for path in options.image)]
    content = [Part.text(question), *parts] if parts else question
    messages = [Message("system", options.system)] if options.system else []
    return ChatRequest([*messages, Message("user", content)], model=options.model, max_tokens=options.max_tokens)


def _file(path: str) -> Part:
    """A file as a part: as text where its name says that it is text."""
    suffix = Path(path).suffix.lower()
    if suffix not in TEXT_ENDINGS | SOURCE_ENDINGS:
        return Part.from_file(path)
    try:
        return Part.text(f"{Path(path).name}:\n\n{Path(path).read_text('utf-8')}")
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not UTF-8 text at byte {exc.start}; save it as UTF-8") from exc
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}; check the path") from exc


def _image(place: str) -> Part:
    return Part.image_url(place) if place.startswith("https://") else Part.from_file(place)


def _question(words: list[str], piped: str) -> str:
    """What is asked: the words, then what was piped in; "" for nothing."""
    spoken = " ".join(words) if words != ["-"] else ""
    return "\n\n".join(text for text in (spoken, piped) if text.strip())


def _piped() -> str:
    """What stdin holds; nothing is read from a terminal."""
    return "" if sys.stdin is None or sys.stdin.isatty() else _stdin()


def _stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as exc:
        raise InvalidRequestError(message=f"the question is not {exc.encoding} text at byte {exc.start}") from exc


def _answered(router: Router, request: ChatRequest, max_wait: float | None, out: Screen) -> tuple[Routing, Usage]:
    answer = router.chat_completion(request, max_wait=max_wait)
    out.line(answer.text)
    return answer.routing, answer.usage


def _streamed(router: Router, request: ChatRequest, max_wait: float | None, out: Screen) -> tuple[Routing, Usage]:
    with router.stream(request, max_wait=max_wait) as stream:
        try:
            for chunk in stream:
                out.piece(chunk.text)
        finally:
            out.line()
    return stream.response.routing, stream.response.usage


def _as_json(router: Router, request: ChatRequest, max_wait: float | None, console: Console) -> int:
    answer = router.chat_completion(request, max_wait=max_wait)
    facts = {"text": answer.text, "finish_reason": answer.finish_reason, "model": answer.model}
    console.data({**facts, "routing": _routing(answer.routing), "usage": _usage(answer.usage)})
    return DONE


def _routing(where: Routing) -> dict[str, Any]:
    names = ("provider", "account_id", "model", "attempts", "free", "cost")
    return {name: getattr(where, name) for name in names} | {"dropped": list(where.dropped)}


def _usage(usage: Usage) -> dict[str, Any]:
    names = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
    return {name: getattr(usage, name) for name in names}


def _unknown(error: UnknownModelError, options: Namespace, err: Screen) -> int:
    path = found_config(options.config)
    where = f"{path}: default_model: " if error.model and not options.model and path is not None else ""
    err.line(f"{PROGRAM}: {where}{one_line(str(error))}{'' if where else ' It goes after --model.'}")
    return FAILED


def _seconds(text: str) -> float:
    """The seconds in an option; argparse makes its words of the ValueError."""
    value = float(text)
    if not value >= 0:
        raise ValueError(text)
    return value
