"""A provider in any dialect that goes wrong in every way we know, over plain sockets.

`TROUBLES` are scripts by name: each answers one request wrongly, quoting the caller's key wherever it can. `good` is the
right answer. `FaultServer` serves them: the test says what comes next.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests import ir
from tests.servers import Peer, ScriptedServer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
KEY_HEADERS = {"openai": "authorization", "gemini": "x-goog-api-key", "anthropic": "x-api-key"}
STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 503, 529)
TIME_LIMIT_S = 0.04
"""The timeout to give a call that meets one of `SILENT`."""


@dataclass(frozen=True)
class Asked:
    """One request as the stand-in understood it. `key`: the caller's key; `method`: whole, stream or vectors."""

    dialect: str
    method: str
    key: str

    def texts(self, *texts: str, ended: bool = True) -> bytes:
        """An answer that says `texts`, one event each in a stream; without `ended` a stream lacks its end."""
        if self.method == "vectors":
            return http(vectors(self.dialect))
        if self.method == "whole":
            return http(whole(self.dialect, "".join(texts)))
        return chunked(*events(self.dialect, *texts, ended=ended))


Script = Callable[[Peer, Asked], object]


class FaultServer:
    """A server for all dialects. `script` answers the next requests; `elsewhere`: an address that it may redirect to."""

    def __init__(self, elsewhere: str = "http://127.0.0.1:9") -> None:
        self.script: Script = good
        self.elsewhere = elsewhere
        self.server = ScriptedServer(self._serve)
        self.requests = self.server.requests

    def __enter__(self) -> FaultServer:
        self.server.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.server.__exit__(*exc)

    def _serve(self, peer: Peer) -> None:
        while (request := peer.request()) is not None:
            asked = understood(request)
            if self.script(peer, asked) is False:
                return


def understood(request: bytes) -> Asked:
    """What a request asks for, by its path and headers."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    path = lines[0].split(" ")[1]
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    dialect = next((dialect for dialect, name in KEY_HEADERS.items() if name in headers), "openai")
    key = headers.get(KEY_HEADERS[dialect], "").removeprefix("Bearer ")
    if "mbed" in path:
        return Asked(dialect, "vectors", key)
    streams = "streamGenerate" in path or b'"stream":true' in body.replace(b" ", b"")
    return Asked(dialect, "stream" if streams else "whole", key)


def provider(dialect: str, url: str) -> Any:
    """A provider named after its dialect, at `url`."""
    makers = {"gemini": ir.GeminiProvider, "anthropic": ir.AnthropicProvider}
    if dialect in makers:
        return makers[dialect](url, name=dialect)
    return ir.OpenAICompatProvider(dialect, url)


def http(body: Any, status: int = 200, *headers: str) -> bytes:
    """A whole answer; `body` is bytes, or anything JSON."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", "Content-Type: application/json", f"Content-Length: {len(payload)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


def chunked(*frames: bytes, ended: bool = True) -> bytes:
    """An event stream of `frames`."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(frame), frame) for frame in frames)
    return STREAM_HEAD + chunks + (b"0\r\n\r\n" if ended else b"")


def whole(dialect: str, text: str) -> dict[str, Any]:
    """A whole answer's body."""
    if dialect == "gemini":
        part = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
        usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
        return {"candidates": [part], "usageMetadata": usage, "modelVersion": "m"}
    if dialect == "anthropic":
        usage = {"input_tokens": 3, "output_tokens": 2}
        said = {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": usage}
        return {"id": "msg", "type": "message", "role": "assistant", "model": "m", **said}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "c", "model": "m", "choices": [choice], "usage": usage}


def vectors(dialect: str) -> dict[str, Any]:
    """A body with one vector."""
    if dialect == "gemini":
        return {"embeddings": [{"values": [0.5, 0.25]}]}
    return {"model": "m", "data": [{"index": 0, "embedding": [0.5, 0.25]}], "usage": {"prompt_tokens": 3, "total_tokens": 3}}


def events(dialect: str, *texts: str, ended: bool = True) -> list[bytes]:
    """The frames of a stream that says `texts`; the terminal marker is in the last one."""
    if dialect == "gemini":
        said = [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0} for text in texts]
        items: list[Any] = [{"candidates": [candidate]} for candidate in said]
        items += [whole("gemini", "")] * ended
        return [b"data: " + json.dumps(item).encode() + b"\r\n\r\n" for item in items]
    if dialect == "anthropic":
        return [b"event: %s\ndata: %s\n\n" % (item["type"].encode(), json.dumps(item).encode()) for item in _turn(texts, ended)]
    deltas: list[tuple[dict[str, str], str | None]] = [({"content": text}, None) for text in texts]
    deltas += [({}, "stop")] * ended
    items = [{"id": "c", "model": "m", "choices": [{"index": 0, "delta": d, "finish_reason": end}]} for d, end in deltas]
    return [b"data: " + json.dumps(item).encode() + b"\n\n" for item in items]


def _turn(texts: tuple[str, ...], ended: bool) -> Iterator[dict[str, Any]]:
    message = {**whole("anthropic", ""), "content": [], "stop_reason": None}
    yield {"type": "message_start", "message": message}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    for text in texts:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    if ended:
        yield {"type": "content_block_stop", "index": 0}
        yield {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}}
        yield {"type": "message_stop"}


def good(peer: Peer, asked: Asked) -> bool:
    """The right answer."""
    return peer.send(asked.texts("Hello ", "there."))


def _error(asked: Asked, message: str = "") -> dict[str, Any]:
    said = message or f"Incorrect API key provided: {asked.key}. It begins like {asked.key}"
    return {"error": {"message": said, "type": "some_error", "code": f"key_{asked.key}", "param": {"key": asked.key}}}


def _status(status: int) -> Script:
    def script(peer: Peer, asked: Asked) -> object:
        echo = (f"x-request-id: {asked.key}", f"www-authenticate: Bearer {asked.key}", f"retry-after: {asked.key}")
        return peer.send(http(_error(asked), status, *echo))

    return script


def _body(make: Callable[[Asked], Any], status: int = 200) -> Script:
    """A body of our making, whatever was asked for."""
    return lambda peer, asked: peer.send(http(make(asked), status))


def _raw(make: Callable[[Asked], bytes]) -> Script:
    """Bytes of our making, and the end of the connection."""

    def script(peer: Peer, asked: Asked) -> bool:
        peer.send(make(asked))
        return False

    return script


def _then(*tail: Callable[[Asked], bytes], ended: bool = True) -> Script:
    """A stream that says something and then `tail`; a body made of the tail alone where no stream was asked for."""

    def script(peer: Peer, asked: Asked) -> bool:
        frames = [make(asked) for make in tail]
        if asked.method == "stream":
            peer.send(chunked(*events(asked.dialect, "Hello ", ended=False), *frames, ended=ended))
        else:
            body = b"".join(frames)
            peer.send(HEAD + b"Content-Length: %d\r\n\r\n" % (len(body) + (not ended)) + body)
        return False

    return script


def _frame(value: Any, event: str = "") -> bytes:
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(value)}\n\n".encode()


def _silent(peer: Peer, asked: Asked) -> bool:
    peer.send(HEAD + f"x-key: {asked.key}\r\n".encode())
    peer.gone()
    return False


def _drips(peer: Peer, asked: Asked) -> bool:
    peer.send(HEAD + b"Content-Length: 1000\r\n\r\n")
    peer.drip(asked.key.encode() * 5, 0.02)
    return False


def _stalls(peer: Peer, asked: Asked) -> bool:
    if asked.method == "stream":
        peer.send(chunked(*events(asked.dialect, "Hello ", ended=False), b"data: " + asked.key.encode(), ended=False))
    peer.gone()
    return False


def _reset(peer: Peer, asked: Asked) -> bool:
    peer.reset()
    return False


def _deep(asked: Asked) -> bytes:
    return b"[" * 100_000 + json.dumps(asked.key).encode()


def _long(filler: int) -> Callable[[Asked], Any]:
    """An error whose message is cut in the middle of the key."""
    return lambda asked: _error(asked, "x" * filler + asked.key)


def _escaped(asked: Asked) -> bytes:
    """The key as PHP, and as an address, would write it."""
    from urllib.parse import quote

    text = json.dumps(_error(asked)).replace("/", "\\/")
    return text.replace('"some_error"', json.dumps(f"?key={quote(asked.key, safe='')}")).encode()


TROUBLES: dict[str, Script] = {
    **{f"status {status}": _status(status) for status in STATUSES},
    "status 401, plain text": _body(lambda asked: f"no such key: {asked.key}".encode(), 401),
    "status 500, a web page": _body(lambda asked: f"<html><title>bad key {asked.key}</title></html>".encode(), 500),
    "status 500, broken JSON": _body(lambda asked: json.dumps(_error(asked)).encode()[:-9], 500),
    "status 401, escaped": _body(_escaped, 401),
    **{f"status 503, cut at {cut}": _body(_long(cut - 12), 503) for cut in (500, 1990, 2000, 2048)},
    "status 503, text cut at 500": _body(lambda asked: b"x" * 490 + asked.key.encode(), 503),
    "status 503, text cut at 2048": _body(lambda asked: b"x" * 2036 + asked.key.encode(), 503),
    "error in a 200": _body(_error),
    "error in a 200, a string": _body(lambda asked: {"error": f"bad key {asked.key}"}),
    "error in a 200, a list": _body(lambda asked: [_error(asked)]),
    "error in a 200, a message": _body(lambda asked: {"message": asked.key, "code": asked.key}),
    "broken JSON": _body(lambda asked: json.dumps({"key": asked.key}).encode()[:-1]),
    "broken JSON, cut": _body(lambda asked: b'{"a": "' + b"x" * 2030 + asked.key.encode()),
    "a web page": _body(lambda asked: f"<html><title>{asked.key}</title></html>".encode()),
    "empty": _body(lambda asked: b""),
    "another object": _body(lambda asked: {"key": asked.key}),
    "null": _body(lambda asked: None),
    "a string": _body(lambda asked: asked.key),
    "NaN": _body(lambda asked: b'{"key": "%s", "choices": NaN}' % asked.key.encode()),
    "5,000 digits": _body(lambda asked: b'{"key": "%s", "choices": %s}' % (asked.key.encode(), b"9" * 5000)),
    "100,000 deep": _body(_deep),
    "UTF-16": _body(lambda asked: json.dumps({"key": asked.key}).encode("utf-16")),
    "invalid UTF-8": _body(lambda asked: b'{"key\xff": "%s"}' % asked.key.encode()),
    "lone surrogates": _body(lambda asked: b'{"error": "\\ud800%s"}' % asked.key.encode()),
    "gzip": _raw(lambda asked: HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(1 << 20))),
    "gzip, unannounced": _body(lambda asked: gzip.compress(asked.key.encode() * 99)),
    "dropped": _raw(lambda asked: b""),
    "reset": _reset,
    "not HTTP": _raw(lambda asked: f"{asked.key} SSH-2.0\r\n\r\n".encode()),
    "bad status": _raw(lambda asked: f"HTTP/1.1 {asked.key} OK\r\n\r\n".encode()),
    "bad version": _raw(lambda asked: f"HTTP/{asked.key} 200 OK\r\n\r\n".encode()),
    "bad header": _raw(lambda asked: HEAD + f"{asked.key}\r\nContent-Length: 2\r\n\r\n{{}}".encode()),
    "long header": _raw(lambda asked: HEAD + f"X: {asked.key * 9000}\r\n\r\n".encode()),
    "bad length": _raw(lambda asked: HEAD + f"Content-Length: {asked.key}\r\n\r\n{{}}".encode()),
    "absurd length": _raw(lambda asked: HEAD + b"Content-Length: 9223372036854775807\r\n\r\n" + asked.key.encode()),
    "cut by length": _raw(lambda asked: HEAD + b"Content-Length: 999\r\n\r\n" + asked.key.encode()),
    "cut in a chunk": _raw(lambda asked: STREAM_HEAD + b"ff\r\n" + asked.key.encode()),
    "bad chunk size": _raw(lambda asked: STREAM_HEAD + f"{asked.key}\r\nhello\r\n0\r\n\r\n".encode()),
    "interim": _raw(lambda asked: f"HTTP/1.1 103 Hints\r\nLink: {asked.key}\r\n\r\n".encode()),
    "stream error": _then(lambda asked: _frame(_error(asked))),
    "stream error event": _then(lambda asked: _frame(_error(asked), "error")),
    "stream of broken JSON": _then(lambda asked: f'data: {{"key": "{asked.key}\n\n'.encode()),
    "stream of another object": _then(lambda asked: _frame({"key": [asked.key]}), lambda asked: _frame([asked.key])),
    "stream cut in an event": _then(lambda asked: f'data: {{"key": "{asked.key}'.encode(), ended=False),
    "stream cut after the key": _then(lambda asked: events(asked.dialect, asked.key, ended=False)[-1], ended=False),
    "stream without its marker": _then(lambda asked: b": the end\n\n"),
    "silent": _silent,
    "drips": _drips,
    "stalls": _stalls,
}
SILENT = frozenset(("silent", "drips", "stalls"))
REDIRECTS = (301, 302, 303, 307, 308)


def redirects(status: int, target: str) -> Script:
    """Sends the caller to `target`, with its key in the address."""
    return lambda peer, asked: peer.send(http(b"", status, f"Location: {target}/?key={asked.key}"))
