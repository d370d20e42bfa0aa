"""What a router call costs beside a kept-alive `http.client` connection with JSON on both sides; a chunk beside `json.loads`.

`python3 -m tests.benchmarks.bench_router`; the server is a process of its own, all figures are medians of one run.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from tests import ir
from tests.servers import DATA, bench_server, client_context

ROUNDS = 60
CALLS = 40
BODY = {"model": "m", "messages": [{"role": "user", "content": "x" * 200}]}
LIMITS = {"rpm": 10**9, "tpm": 10**12}


def main() -> None:
    os.environ["SSL_CERT_FILE"] = str(DATA / "tls_good.pem")
    for tls in (False, True):
        with bench_server(tls) as url, contextlib.ExitStack() as stack, TemporaryDirectory() as folder:
            store = stack.enter_context(ir.SQLiteQuotaStore(Path(folder) / "quota.sqlite"))
            bare = _bare(url, tls)
            memory = _routed(stack.enter_context(_router(url, ir.MemoryQuotaStore())))
            sqlite = _routed(stack.enter_context(_router(url, store)))
            rows = [(_time(bare), _time(memory), _time(sqlite)) for _ in range(ROUNDS)]
        name = "https" if tls else "http"
        base, call, slow = (statistics.median(column) for column in zip(*rows, strict=True))
        ratio = statistics.median(b / a for a, b, _ in rows)
        print(f"{name}: http.client {base:.0f} us, router {call:.0f} us, ratio {ratio:.2f}", end="; ")
        print(f"with sqlite {slow:.0f} us (+{slow - call:.0f} us)")
    _stream_chunks()


def _router(url: str, store: object) -> object:
    account = ir.AccountConfig(
        provider="bench", id="a", auth=ir.Auth("sk-0123456789"), base_url=url + "/v1", daily_free=10**9, limits=LIMITS
    )
    config = ir.Config(accounts=[account], default_model="bench/m")
    return ir.Router(config, [ir.OpenAICompatProvider("bench", url + "/v1")], quota_store=store)


def _routed(router: object) -> Callable[[], None]:
    request = ir.ChatRequest([ir.Message("user", "x" * 200)])

    def call() -> None:
        router.chat_completion(request)

    return call


def _bare(url: str, tls: bool) -> Callable[[], None]:
    netloc = urlsplit(url).netloc
    connection = http.client.HTTPSConnection(netloc, context=client_context()) if tls else http.client.HTTPConnection(netloc)
    headers = {"Authorization": "Bearer sk-0123456789", "Content-Type": "application/json"}

    def call() -> None:
        connection.request("POST", "/v1/chat/completions", json.dumps(BODY).encode(), headers)
        json.loads(connection.getresponse().read())

    return call


def _time(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS * 1e6


class _Pieces:
    """A wire that hands out one stream from memory, so that only the library's own work is measured."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.status, self.headers, self.reused = 200, {"content-type": "text/event-stream"}, False
        self._left: Iterator[bytes] = iter(())

    def send(self, request: object, **options: object) -> _Pieces:
        self._left = iter(self.pieces)
        return self

    def read_some(self) -> bytes:
        return next(self._left, b"")

    def set_limits(self, timeout_s: float | None, idle_s: float | None = None) -> None:
        """Time does not matter here."""

    def close(self) -> None:
        """Nothing is open."""


def _stream_chunks(count: int = 2000) -> None:
    row = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    texts = [json.dumps({**row, "choices": [{"index": 0, "delta": {"content": f"word{i} "}}]}) for i in range(count)]
    last = json.dumps({**row, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    pieces = [f"data: {text}\n\n".encode() for text in (*texts, last, "[DONE]")]
    provider = ir.OpenAICompatProvider("bench", "http://127.0.0.1:9/v1")
    provider.wire = _Pieces(pieces)
    config = ir.Config(accounts=[ir.AccountConfig(provider="bench", id="a")], default_model="bench/m")
    request = ir.ChatRequest("hi")
    rows = []
    with ir.Router(config, [provider]) as router:
        for _ in range(15):
            start = time.perf_counter()
            for text in texts:
                json.loads(text)
            parsed = time.perf_counter()
            for _chunk in router.stream(request):
                pass
            rows.append(((parsed - start) / count * 1e6, (time.perf_counter() - parsed) / count * 1e6))
    base, chunk = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"stream chunk: json.loads {base:.1f} us, through the router {chunk:.1f} us (+{chunk - base:.1f} us)")


if __name__ == "__main__":
    main()
