"""What the endpoint adds to a call, and how it holds under load: python3 -m tests.benchmarks.bench_serve [--proxy URL] [--short]

Prints, over a stand-in provider in a process of its own: the time a whole answer and a first chunk take through the router alone
and through the endpoint (medians, interleaved; asked by http.client, and once more by a bare socket, as much of what a call takes
longer is spent in that client), how evenly 64 streams of 50 chunks a second arrive, and what is left after 200 clients made 5,000
calls with hang-ups, slow readers and a provider that fails. With --proxy the same calls through another proxy.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests import ir, part
from tests.cases import open_files, thread_count

simulator = part("simulator")
JSON = {"Content-Type": "application/json", "Authorization": "Bearer sk-1"}


@contextmanager
def provider(**settings: Any) -> Iterator[str]:
    """A stand-in provider in a process of its own; its base URL."""
    with providers(1, **settings) as (url,):
        yield url


@contextmanager
def providers(count: int, **settings: Any) -> Iterator[list[str]]:
    """So many of them, which start at the same time."""
    code = f"from tests.benchmarks.bench_serve import _provide; _provide({settings!r})"
    with ExitStack() as stack:
        command = [sys.executable, "-c", code]
        started = [stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) for _ in range(count)]
        for process in started:
            stack.callback(process.send_signal, signal.SIGTERM)
        yield [process.stdout.readline().strip() for process in started if process.stdout is not None]


def _provide(settings: dict[str, Any]) -> None:
    words = settings.pop("words", 12)
    with simulator.Simulator(reply=lambda question: " ".join(question.split()[-1:] * words), **settings) as sim:
        print(sim.base_url, flush=True)
        threading.Event().wait()


def make_router(*urls: str, **settings: Any) -> Any:
    accounts = [
        ir.AccountConfig(f"p{place}", f"a{place}", base_url=url, auth=ir.Auth("sk-1"), limits={"rpd": 10**6, "tpd": 10**9})
        for place, url in enumerate(urls)
    ]
    alias = ir.ModelMapping("fast", [ir.ModelRef(f"p{place}", "m") for place in range(len(urls))])
    providers = [ir.OpenAICompatProvider(f"p{place}", url) for place, url in enumerate(urls)]
    return ir.Router(ir.Config(models=[alias], accounts=accounts, policy="declared_order"), providers, **settings)


def body_of(text: str, stream: bool = False) -> bytes:
    return json.dumps({"model": "fast", "messages": [{"role": "user", "content": text}], "stream": stream}).encode()


def ask(connection: http.client.HTTPConnection, text: str, path: str = "/v1/chat/completions") -> Any:
    connection.request("POST", path, body_of(text), JSON)
    found = json.loads(connection.getresponse().read())
    if "choices" not in found:
        raise SystemExit(f"no answer: {found}")
    return found


def added_time(rounds: int, proxy: str) -> dict[str, float]:
    """Medians in microseconds, in one interleaved run."""
    spans: dict[str, list[float]] = {
        name: []
        for name in (
            *("provider", "router", "endpoint", "router first", "endpoint first", "proxy"),
            *("router again", "bare"),
        )
    }

    def timed(name: str, work: Any) -> None:
        began = time.perf_counter()
        work()
        spans[name].append((time.perf_counter() - began) * 1e6)

    with provider() as url, make_router(url) as router, serving(url) as port:
        bare = http.client.HTTPConnection(url.split("/")[2])
        through = http.client.HTTPConnection("127.0.0.1", port)
        other = http.client.HTTPConnection(proxy.split("/")[2]) if proxy else None
        request = ir.ChatRequest("say it", model="fast")
        for turn in range(rounds):
            timed("provider", lambda: ask(bare, "say it"))
            timed("router", lambda: router.chat_completion(request))
            timed("endpoint", lambda: ask(through, "say it"))
            spans["router first"].append(first_of_router(router, request) * 1e6)
            spans["endpoint first"].append(first_of_endpoint(through) * 1e6)
            if other is not None and turn % 4 == 0:
                timed("proxy", lambda: ask(other, "say it"))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:  # apart: one more in the round slows all of it
            barely = bare_client(sock)
            for _ in range(rounds // 2):
                timed("router again", lambda: router.chat_completion(request))
                timed("bare", barely)
        for connection in (bare, through, *([other] if other else [])):
            connection.close()
    return {name: statistics.median(each[len(each) // 10 :]) for name, each in spans.items() if each}


@contextmanager
def serving(*urls: str) -> Iterator[int]:
    """The endpoint in a process of its own, as it runs; its port."""
    code = f"from tests.benchmarks.bench_serve import _serve; _serve({urls!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGTERM)


def _serve(urls: tuple[str, ...]) -> None:
    with make_router(*urls) as router, ir.serve(router, port=0) as server:
        print(server.port, flush=True)
        threading.Event().wait()


def first_of_router(router: Any, request: Any) -> float:
    """Seconds until the first content."""
    began = time.perf_counter()
    with router.stream(request) as stream:
        next(stream)
        spent = time.perf_counter() - began
        for _ in stream:
            pass
    return spent


def first_of_endpoint(connection: http.client.HTTPConnection) -> float:
    """The same through the endpoint."""
    began = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body_of("say it", True), JSON)
    answer = connection.getresponse()
    while b'"content":"' not in (line := answer.readline()) or b'"content":""' in line:
        pass
    spent = time.perf_counter() - began
    answer.read()
    return spent


def bare_client(sock: socket.socket) -> Callable[[], None]:
    """What asks for a whole answer with as little as a client can do: one write, one read, and a look at its end."""
    body = body_of("say it")
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    data = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def asked() -> None:
        sock.sendall(data)
        if not sock.recv(65536).endswith(b"}}"):
            raise SystemExit("no answer to a bare client")

    return asked


def steady_streams(count: int, seconds: float) -> tuple[float, float, int]:
    """`count` streams of 50 chunks a second: the median and the longest gap between two chunks in ms, and chunks in all."""
    words = int(seconds * 50)
    gaps: list[float] = []
    lock = threading.Lock()

    def read(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", "/v1/chat/completions", body_of("say it", True), JSON)
        answer, last, own = connection.getresponse(), None, []
        while line := answer.readline():
            if b'"content":"' in line:
                now = time.perf_counter()
                if last is not None:
                    own.append((now - last) * 1000)
                last = now
        connection.close()
        with lock:
            gaps.extend(own)

    with provider(words=words, chunk_words=1, chunk_delay_s=0.02) as url, serving(url) as port:
        running = [threading.Thread(target=read, args=(port,)) for _ in range(count)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    return statistics.median(gaps), max(gaps), len(gaps)


def storm(clients: int, calls: int, seed: int = 1) -> dict[str, Any]:
    """`clients` threads make `calls` calls, a third as streams; some hang up, some read slowly, a provider fails at times."""
    found: Counter[str] = Counter()
    lock = threading.Lock()
    before = thread_count(), open_files()
    with providers(2, words=8, chunk_words=1) as (good, bad), failing(bad) as worse:
        with (
            make_router(worse, good, health=ir.HealthConfig(failure_threshold=10**6)) as router,
            ir.serve(router, port=0) as server,
        ):
            began = time.perf_counter()

            def work(number: int) -> None:
                luck = random.Random(seed * 1000 + number)
                for turn in range(calls // clients):
                    outcome = one_call(server.port, f"w{number}x{turn}", luck)
                    with lock:
                        found[outcome] += 1

            running = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(clients)]
            for thread in running:
                thread.start()
            for thread in running:
                thread.join(300)
            took = time.perf_counter() - began
            end = time.monotonic() + 10
            while server.calls.under_way() and time.monotonic() < end:
                time.sleep(0.05)
            left = {"under way": len(server.calls.under_way())}
            left["in flight"] = sum(account.in_flight for account in router.status().values())
            served = Counter(call.state for call in server.calls.past())
    left["threads"], left["files"] = thread_count() - before[0], open_files() - before[1]
    return {"outcomes": dict(found), "left": left, "seconds": round(took, 1), "last states": dict(served)}


def one_call(port: int, word: str, luck: random.Random) -> str:
    """One call of the storm; how it went: whole, stream, cut (an honest error), left (we hung up), or wrong."""
    stream, leaves, slow = luck.random() < 0.34, luck.random() < 0.12, luck.random() < 0.03
    with socket.create_connection(("127.0.0.1", port), timeout=120) as sock:
        body = body_of(word, stream)
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n"
        sock.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        if leaves:
            if luck.random() < 0.5:
                sock.recv(40)
            if luck.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return "left"
        seen = b""
        while piece := sock.recv(64 if slow else 65536):
            seen += piece
            if slow:
                time.sleep(0.002)
    return judged(seen, word, stream)


def judged(seen: bytes, word: str, stream: bool) -> str:
    head, _, rest = seen.partition(b"\r\n\r\n")
    wanted = " ".join([word] * 8)
    if not head.startswith(b"HTTP/1.1 200"):
        return "refused" if b'{"error":' in rest else "wrong"
    if not stream:
        return "whole" if json.loads(rest)["choices"][0]["message"]["content"] == wanted else "wrong"
    events = [line[6:] for line in rest.split(b"\n") if line.startswith(b"data: ")]
    if not rest.endswith(b"0\r\n\r\n"):
        return "cut" if b"[DONE]" not in events and any(b'"error"' in event for event in events) else "wrong"
    text = "".join(json.loads(each)["choices"][0]["delta"].get("content") or "" for each in events if each != b"[DONE]")
    return "stream" if text == wanted and events[-1] == b"[DONE]" else "wrong"


@contextmanager
def failing(url: str) -> Iterator[str]:
    """A provider before the one at `url` that answers every fifth request with 503 and breaks every seventh off."""
    host = url.split("/")[2]
    counter = iter(range(10**9))

    def script(peer: Any) -> None:
        while (asked := peer.request()) is not None:
            number = next(counter)
            if number % 5 == 0:
                peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\n{}")
                continue
            with socket.create_connection((host.split(":")[0], int(host.split(":")[1])), timeout=30) as inner:
                inner.sendall(asked.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                answer = b""
                while piece := inner.recv(65536):
                    answer += piece
            if number % 7 == 0:
                peer.send(answer[: len(answer) * 2 // 3])
                return
            if not peer.send(answer.replace(b"Connection: close\r\n", b"")):
                return
            return

    from tests.servers import ScriptedServer

    with ScriptedServer(script) as server:
        yield server.url + "/v1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]  # it has one
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--proxy", default="", help="base URL of another proxy over its own provider, for the same unary calls")
    options = parser.parse_args()
    rounds, clients, calls = (150, 40, 400) if options.short else (600, 200, 5000)
    spans = added_time(rounds, options.proxy)
    for name, median in spans.items():
        print(f"{name:>16}: {median:8.0f} us")
    whole, first = (spans[f"endpoint{kind}"] - spans[f"router{kind}"] for kind in ("", " first"))
    bare = spans["bare"] - spans["router again"]
    print(f"added to a whole answer: {whole:.0f} us (to a bare client's: {bare:.0f} us), to a first chunk: {first:.0f} us")
    middle, longest, chunks = steady_streams(16 if options.short else 64, 2.0)
    print(f"streams: {chunks} chunks, median gap {middle:.1f} ms of 20, longest {longest:.0f} ms")
    print("storm:", json.dumps(storm(clients, calls)), f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
