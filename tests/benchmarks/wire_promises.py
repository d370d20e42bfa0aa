"""The transport's promises as figures, over more calls than the tests make: `python3 -m tests.benchmarks.wire_promises`."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tests import part
from tests.cases import open_files, read, request, thread_count
from tests.servers import Peer, ScriptedServer, client_context, environment
from tests.test_transport_deadlines import SLOW
from tests.test_transport_faults import BODIES, HEADS

transport = part("transport")


def main() -> None:
    with environment():
        before = open_files(), thread_count()
        _random_closes(10_000)
        _faults(2_000)
        _deadlines(0.7)
        print(f"leaks: fds {open_files() - before[0]:+d}, threads {thread_count() - before[1]:+d}")


def _random_closes(calls: int) -> None:
    """A server that closes each connection after one to five requests, one in ten times with a request in hand."""
    rng = random.Random(1)

    def script(peer: Peer) -> None:
        for _ in range(rng.randint(1, 5)):
            asked = peer.request()
            if asked is None or rng.random() < 0.1:
                return
            body = asked.partition(b"\r\n\r\n")[2]
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    wire, outcomes = transport.Transport(), Counter[str]()
    with ScriptedServer(script) as server:
        for i in range(calls):
            body = b"id-%d" % i
            try:
                outcomes["answered" if wire.send(request(server.url, body), timeout_s=5).read() == body else "foreign"] += 1
            except transport.WireFault as fault:
                outcomes["reused" if fault.reused else "fresh"] += 1
        wire.close()
        seen = Counter(re.findall(rb"id-\d+", b"\n".join(asked for _, asked in server.requests)))
    twice = sum(count > 1 for count in seen.values())
    print(f"random closes: {calls} calls, {outcomes['answered']} answered, {outcomes['reused']} lost on a kept connection, "
          f"{outcomes['fresh']} on a new one, {outcomes['foreign']} foreign answers, {twice} requests seen twice")  # fmt: skip


def _faults(calls: int) -> None:
    """Every cut body and every bad head in a random order, in plain and in TLS."""
    rng = random.Random(2)
    answers = [sent for _, sent, meant in BODIES if meant is None] + [sent for sent, _ in HEADS]

    def script(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(rng.choice(answers))

    wire, kinds, whole = transport.Transport(ssl_context=client_context()), Counter[str](), 0
    with ScriptedServer(script) as plain, ScriptedServer(script, "good") as tls:
        for _ in range(calls):
            try:
                with wire.send(request(rng.choice((plain, tls)).url), timeout_s=5) as reply:
                    read(reply, rng.random() < 0.5)
                whole += 1
            except transport.WireFault as fault:
                kinds[fault.kind] += 1
    wire.close()
    print(f"transport faults: {calls} injected, {sum(kinds.values())} classified {dict(kinds)}, {whole} returned as success")


def _deadlines(total_s: float) -> None:
    """Every slow server at once, in plain and in TLS."""

    def overshoot(url: str, body: bytes) -> float:
        start = time.monotonic()
        try:
            with wire.send(transport.WireRequest(url, body), timeout_s=total_s) as reply:
                read(reply, some=True)
        except transport.WireFault:
            pass
        return time.monotonic() - start - total_s

    wire = transport.Transport(ssl_context=client_context())
    with ExitStack() as stack, ThreadPoolExecutor(32) as pool:
        runs = []
        for tls in ("", "good"):
            for name, script in SLOW:
                url = stack.enter_context(ScriptedServer(script, tls)).url
                runs.append(pool.submit(overshoot, url, bytes(20 << 20) if "upload" in name else b"{}"))
        worst = max(run.result() for run in runs)
    wire.close()
    print(f"deadline: {len(runs)} slow servers, worst overshoot {worst * 1000:.0f} ms of {total_s * 1000:.0f} ms")


if __name__ == "__main__":
    main()
