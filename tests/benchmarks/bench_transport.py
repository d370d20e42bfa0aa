"""What a call costs beside a bare kept-alive `http.client` connection, and an event of a stream beside its `json.loads`.

Run it as `python3 -m tests.benchmarks.bench_transport`.
"""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tests import part
from tests.servers import EVENT, bench_server, client_context

transport = part("transport")
secret = part("secret")
sse = part("sse")

ROUNDS = 80
CALLS = 40
BODY = b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 200 + b'"}]}'


def main() -> None:
    for tls in (False, True):
        with bench_server(tls) as url:
            bare, ours = _bare(url, tls), only_library_errors(url, tls)
            figures = _interleaved(bare, ours)
            event, parse = _stream(url, tls)
        ratio = statistics.median(b / a for a, b in figures)
        base, call = (statistics.median(column) for column in zip(*figures, strict=True))
        name = "https" if tls else "http"
        print(f"{name}: http.client {base:.0f} us, transport {call:.0f} us, ratio {ratio:.2f}, {ROUNDS} rounds of {CALLS}")
        print(f"{name}: an event of a stream {event:.1f} us from socket to event, json.loads of it {parse:.1f} us")


def _interleaved(first: Callable[[], None], second: Callable[[], None]) -> list[tuple[float, float]]:
    """Microseconds a call of both, measured in turns so that a busy machine hits both."""
    _time(first), _time(second)
    return [(_time(first), _time(second)) for _ in range(ROUNDS)]


def _time(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - start) / CALLS * 1e6


def _bare(url: str, tls: bool) -> Callable[[], None]:
    netloc = urlsplit(url).netloc
    connection = http.client.HTTPSConnection(netloc, context=client_context()) if tls else http.client.HTTPConnection(netloc)
    headers = {"Authorization": "Bearer sk-0123456789", "Content-Type": "application/json"}

    def call() -> None:
        connection.request("POST", "/v1/chat/completions", BODY, headers)
        connection.getresponse().read()

    return call


def only_library_errors(url: str, tls: bool) -> Callable[[], None]:
    wire = transport.Transport(ssl_context=client_context() if tls else None)
    headers = (("authorization", secret.Secret("sk-0123456789", "Bearer ")), ("content-type", "application/json"))

    def call() -> None:
        request = transport.WireRequest(url + "/v1/chat/completions", BODY, headers)
        wire.send(request, timeout_s=10.0).read()

    return call


def _stream(url: str, tls: bool) -> tuple[float, float]:
    """Microseconds of processor time: an event read and cut out of the stream, and the parsing of its JSON."""
    wire = transport.Transport(ssl_context=client_context() if tls else None)
    reads, parses = [], []
    for _ in range(7):
        count, reader = 0, sse.Reader()
        with wire.send(transport.WireRequest(url + "/stream"), timeout_s=20.0) as reply:
            start = time.thread_time()
            while piece := reply.read_some():
                count += len(reader.feed(piece))
            reads.append((time.thread_time() - start) / count * 1e6)
        start = time.thread_time()
        for _ in range(count):
            json.loads(EVENT)
        parses.append((time.thread_time() - start) / count * 1e6)
    wire.close()
    return statistics.median(reads), statistics.median(parses)


if __name__ == "__main__":
    main()
