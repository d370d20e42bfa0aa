"""What tests put in the place of the real thing: a clock that only moves when told, a meter that remembers, providers that are
never called, and routers and fixtures over them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests import ir, part

assessment, candidates, costs = part("assessment"), part("candidates"), part("costs")
health, guarded_store, quota, routes = part("health"), part("guarded_store"), part("quota"), part("routes")

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


class EveryHook(ListMeter):
    """Has every hook there is."""

    def heard(self, event: Any) -> None:
        self.events.append(event)

    on_call = on_wait = on_refusal = on_hold = on_limit = heard

    def of(self, kind: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == kind]


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


METHODS: dict[str, Callable[..., Any]] = {"unary": unary, "stream": streamed}


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


NOW = 1_700_000_000.0
"""2023-11-14 22:13:20 UTC."""
MIDNIGHT = 1_700_006_400.0


class FakeProvider:
    """As much of a provider as is asked before a call. `models`: what it declares, None for nothing."""

    def __init__(self, name: str, models: Sequence[str] | None = None, media: Sequence[str] = ("image",)) -> None:
        self.name = name
        self.dialect = "openai"
        self.base_url = f"https://{name}.test/v1"
        self.media = frozenset(media)
        self.models = models
        self.cannot: tuple[str, ...] = ()

    def declares(self, model: str) -> bool | None:
        return None if self.models is None else model in self.models

    def unsupported(self, request: object, model: str) -> tuple[str, ...]:
        return self.cannot


def an_account(name: Any = "a", provider: Any = "p", **settings: Any) -> Any:
    """An account's configuration."""
    return ir.AccountConfig(provider=provider, id=name, **settings)


def alias(name: str, *steps: str) -> Any:
    """A mapping of `name` to steps written provider/model."""
    return ir.ModelMapping(name, [ir.ModelRef(*step.split("/", 1)) for step in steps])


class Fixture:
    """A roster over `accounts`, opened at `NOW`; `wire` stands where the transport would."""

    wire = object()

    def __init__(
        self, *accounts: Any, models: Sequence[Any] = (), providers: Sequence[Any] = (), store: Any = None, **settings: Any
    ) -> None:
        brought = {provider.name: provider for provider in providers}
        for item in accounts:
            brought.setdefault(item.provider, FakeProvider(item.provider))
        self.providers = brought
        self.store = store or part("quota_memory").MemoryQuotaStore()
        self.ledger = guarded_store.GuardedStore(self.store)
        self.health = health.Health()
        made = ir.Config(accounts=accounts, models=models, **settings)
        self.table = routes.RouteTable(made, brought, self.wire, self.ledger)
        self.table.define_limits(NOW)

    def route(self, name: str = "p/m") -> Any:
        return self.table.resolve(name, NOW)

    def find_candidates(
        self, name: str = "p/m", estimate: tuple[int, int] = (10, 20), paid: bool = False, request: Any = None
    ) -> Any:
        media = request.media if request is not None else frozenset()
        needs = assessment.CallNeeds(costs.Estimate(*estimate), paid, request, media)
        return candidates.find_candidates(self.route(name), needs, self.ledger, self.health, assessment.Instant(NOW, 0.0))

    def used(self, key: str, amount: float) -> None:
        """Use `amount` of the bucket `key` up."""
        found = self.ledger.reserve(((key, amount),), NOW)
        assert not isinstance(found, quota.Refusal), found
        self.ledger.settle(found, None, NOW)
