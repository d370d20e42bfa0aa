"""What tests of whole calls share: a clock that only moves when told, a meter that remembers, and routers over stand-ins."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests import ir

NOON = 1_768_478_400.0
"""2026-01-15 12:00:00 UTC, a Thursday; 04:00 in Los Angeles."""

ALIAS = "chat"
HELLO = ir.ChatRequest("Hello!", model=ALIAS, max_tokens=50)


class FakeClock:
    """Wall and monotonic time in one; `sleep` moves both and is noted in `slept`."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now
        self.slept: list[float] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - NOON + 1000.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def advance(self, seconds: float) -> None:
        self.now += seconds


class ListMeter:
    """Keeps every event in order."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_route(self, event: Any) -> None:
        self.events.append(event)

    def on_result(self, event: Any) -> None:
        self.events.append(event)

    @property
    def routes(self) -> list[Any]:
        return [event for event in self.events if isinstance(event, ir.RouteEvent)]

    @property
    def results(self) -> list[Any]:
        return [event for event in self.events if isinstance(event, ir.ResultEvent)]


def account(name: str, **settings: Any) -> Any:
    """An account `name` at the provider of the same name, with calendar limits that a test does not reach by itself."""
    settings.setdefault("limits", {"rpd": 1000, "tpd": 1_000_000})
    settings.setdefault("auth", ir.Auth("sk-1"))
    settings.setdefault("provider", name)
    return ir.AccountConfig(id=name, **settings)


def make_router(urls: dict[str, str], *accounts: Any, config: dict[str, Any] | None = None, **parts: Any) -> Any:
    """A router over OpenAI-format providers by name, tried in that order; the alias `ALIAS` is model "m" at each.

    `accounts`: by default one a provider. Whatever is not given is a fake clock and the declared order.
    """
    parts.setdefault("clock", FakeClock())
    settings = {"policy": "declared_order", "models": [alias_of(*urls)], **(config or {})}
    made = ir.Config(accounts=list(accounts) or [account(name) for name in urls], **settings)
    return ir.Router(made, [ir.OpenAICompatProvider(name, url) for name, url in urls.items()], **parts)


def alias_of(*providers: str, alias: str = ALIAS, model: str = "m") -> Any:
    return ir.ModelMapping(alias, [ir.ModelRef(provider, model) for provider in providers])


def unary(router: Any, request: Any = HELLO, **bounds: Any) -> Any:
    """The whole answer."""
    return router.chat_completion(request, **bounds)


def streamed(router: Any, request: Any = HELLO, **bounds: Any) -> Any:
    """The whole answer, read as a stream."""
    with router.stream(request, **bounds) as stream:
        for _ in stream:
            pass
    return stream.response


VERBS: dict[str, Callable[..., Any]] = {"unary": unary, "stream": streamed}


def used(router: Any, name: str) -> dict[str, float]:
    """What is used of each limit of an account."""
    return {limit.name: limit.used for limit in router.status()[name].limits}


def http(body: Any, status: int = 200, **headers: str) -> bytes:
    """A whole HTTP answer; `body` is bytes, a string, or anything JSON."""
    payload = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(payload)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in {"Content_Type": "application/json", **headers}.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


def sse(*events: Any, ended: bool = True) -> bytes:
    """A chunked event stream, each event one chunk; strings go out as they are. Without `ended` the last chunk is missing."""
    frames = [b"data: " + (each if isinstance(each, str) else json.dumps(each)).encode() + b"\n\n" for each in events]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(frame), frame) for frame in frames)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunks + (b"0\r\n\r\n" if ended else b"")


def delta(text: str, finish: str | None = None) -> dict[str, Any]:
    """One chunk of a stream in OpenAI's format."""
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def dead_url() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def threads(count: int, work: Callable[[int], None]) -> Iterator[None]:
    """`count` threads begin `work(number)` at one moment; the block's end waits for them and raises what they raised."""
    faults: list[BaseException] = []
    gate = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            gate.wait(10)
            work(number)
        except BaseException as exc:
            faults.append(exc)

    running = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in running:
        thread.start()
    yield
    for thread in running:
        thread.join(30)
    if faults:
        raise faults[0]
