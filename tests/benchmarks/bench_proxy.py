"""The endpoint beside LiteLLM's proxy: python3 -m tests.benchmarks.bench_proxy [--litellm COMMAND] [--seconds S]

Both run as a user starts them, each in a process of its own with one worker and a token, over the same stand-in provider, asked
by the same client in one run, call by call in turn. Prints for each: seconds until it answers, the median of a whole answer and
of a stream's first content, calls a second of 8 and of 64 clients, and its memory then. `--litellm`: the proxy's command, which
`.ci/proxy` installs; without it the endpoint alone, beside the provider asked directly.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests import PACKAGE

TOKEN = "sk-bench"  # opens nothing
WORDS = 24
READY_S = 120.0
ENDPOINT = """
default_model = "fast"
[[accounts]]
id = "a"
provider = "stand-in"
base_url = "{url}"
auth = {{ api_key = "sk-1" }}
limits = {{ rpd = 100_000_000, tpd = 100_000_000_000 }}
[[models]]
alias = "fast"
models = [{{ provider = "stand-in", model = "m" }}]
[quota]
store = "memory"
"""
LITELLM = """
model_list:
  - model_name: fast
    litellm_params: {{model: openai/m, api_base: "{url}", api_key: sk-1}}
general_settings: {{master_key: {token}}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""


class Target(NamedTuple):
    """Something that answers chats. `pid`: its process, None for the provider itself."""

    name: str
    port: int
    pid: int | None
    ready_s: float


class Client:
    """One kept-alive connection that spends as little as it can: the figures are to be the server's."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._whole, self._stream = (_request(port, stream) for stream in (False, True))

    def whole(self) -> float:
        """Seconds that a whole answer takes."""
        began = time.perf_counter()
        self._sock.sendall(self._whole)
        head, _, body = self._until(b"\r\n\r\n").partition(b"\r\n\r\n")
        found = re.search(rb"(?i)content-length: *([0-9]+)", head)
        if not head.startswith(b"HTTP/1.1 200") or found is None:
            raise SystemExit(f"no answer: {(head + body)[:600]!r}")
        while len(body) < int(found[1]):
            body += self._sock.recv(65536)
        spent = time.perf_counter() - began
        if json.loads(body)["choices"][0]["message"]["content"].split() != ["word"] * WORDS:
            raise SystemExit(f"a wrong answer: {body[:600]!r}")
        return spent

    def first(self) -> float:
        """Seconds until the first content of a stream, which is read to its end."""
        began = time.perf_counter()
        self._sock.sendall(self._stream)
        seen = self._until(b"word")
        spent = time.perf_counter() - began
        while not seen.endswith(b"0\r\n\r\n"):
            seen += self._sock.recv(65536)
        if seen.count(b"word") != WORDS or b"data: [DONE]" not in seen:
            raise SystemExit(f"a wrong stream: {seen[-600:]!r}")
        return spent

    def close(self) -> None:
        self._sock.close()

    def _until(self, mark: bytes) -> bytes:
        seen = b""
        while mark not in seen:
            piece = self._sock.recv(65536)
            if not piece:
                raise SystemExit(f"broken off: {seen[:600]!r}")
            seen += piece
        return seen


def _request(port: int, stream: bool) -> bytes:
    body = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "say it"}], "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def answers() -> tuple[bytes, bytes]:
    """What the provider sends: a whole answer, and a stream of a chunk a word. Ready bytes: they cost next to nothing."""
    usage = {"prompt_tokens": 9, "completion_tokens": WORDS, "total_tokens": 9 + WORDS}
    head = {"id": "chatcmpl-1", "created": 1, "model": "m"}
    message = {"role": "assistant", "content": " ".join(["word"] * WORDS)}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    whole = json.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": usage}).encode()
    deltas = [{"role": "assistant", "content": ""}, *({"content": "word "} for _ in range(WORDS)), {}]
    events = b""
    for place, delta in enumerate(deltas):
        end = "stop" if place == len(deltas) - 1 else None
        made = {**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        events += b"data: " + json.dumps({**made, **({"usage": usage} if end else {})}).encode() + b"\n\n"
    events += b"data: [DONE]\n\n"
    start = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n"
    return (
        start % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(whole) + whole,
        start % b"text/event-stream" + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(events), events),
    )


def _provide() -> None:
    """The stand-in provider: a thread a connection; it looks whether a request is whole and asks for a stream, and no further."""
    whole, stream = answers()
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)

    def answer(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        while piece := sock.recv(65536):
            data += piece
            head, found, body = data.partition(b"\r\n\r\n")
            size = re.search(rb"(?i)content-length: *([0-9]+)", head)
            if found and len(body) >= int(size[1] if size else 0):
                sock.sendall(stream if re.search(rb'"stream": *true', body) else whole)
                data = b""

    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


@contextmanager
def running(command: Sequence[str], ready: str = "", **env: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of its own; with it the first line that it prints if it is asked for none by HTTP."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command,
            stdout=said if ready else subprocess.PIPE,
            stderr=said,
            stdin=subprocess.DEVNULL,
            text=True,
            env=os.environ | env,
        )
        try:
            if ready:
                yield process, ""
            else:
                assert process.stdout is not None
                yield process, process.stdout.readline().strip()
        except SystemExit:
            said.seek(0)
            print(said.read()[-3000:], file=sys.stderr)
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def target(name: str, command: Sequence[str], port: int, **env: str) -> Iterator[Target]:
    """A server that is awaited until it answers a chat."""
    began = time.perf_counter()
    with running(command, "by HTTP", **env) as (process, _):
        while True:
            if process.poll() is not None or time.perf_counter() - began > READY_S:
                raise SystemExit(f"{name} does not answer")
            try:
                client = Client(port)
            except OSError:
                time.sleep(0.02)
                continue
            client.whole()
            client.close()
            break
        yield Target(name, port, process.pid, time.perf_counter() - began)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def medians(targets: Sequence[Target], rounds: int) -> dict[str, tuple[float, float]]:
    """Microseconds of a whole answer and of a first content, each asked in turn."""
    clients = {each.name: Client(each.port) for each in targets}
    whole: dict[str, list[float]] = {name: [] for name in clients}
    first: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(rounds):
        for name, client in clients.items():
            whole[name].append(client.whole() * 1e6)
            first[name].append(client.first() * 1e6)
    for client in clients.values():
        client.close()
    warm = rounds // 10
    return {name: (statistics.median(whole[name][warm:]), statistics.median(first[name][warm:])) for name in clients}


def calls_a_second(port: int, clients: int, seconds: float) -> float:
    """Whole answers a second of so many clients."""
    counts = [0] * clients
    until = time.perf_counter() + seconds

    def work(place: int) -> None:
        client = Client(port)
        while time.perf_counter() < until:
            client.whole()
            counts[place] += 1
        client.close()

    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(place,)) for place in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


def memory(pid: int | None) -> float:
    """MiB that a process and its children hold, where the system tells (Linux)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    except OSError:
        return 0.0
    own = re.search(r"VmRSS:\s*(\d+)", status)
    return (int(own[1]) / 1024 if own else 0.0) + sum(memory(int(each)) for each in children)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]  # it has one
    parser.add_argument("--litellm", metavar="COMMAND", default="", help="of an environment with litellm[proxy]")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each of the four loads")
    options = parser.parse_args()
    here = "from tests.benchmarks.bench_proxy import _provide; _provide()"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _, port = stack.enter_context(running([sys.executable, "-c", here]))
        url = f"http://127.0.0.1:{port}/v1"
        targets = [Target("provider", int(port), None, 0.0)]
        (folder / "endpoint.toml").write_text(ENDPOINT.format(url=url), "utf-8")
        own = free_port()
        command = [
            sys.executable,
            "-m",
            PACKAGE,
            "serve",
            "--quiet",
            "--config",
            str(folder / "endpoint.toml"),
            "--port",
            str(own),
        ]
        targets.append(stack.enter_context(target("endpoint", command, own, INFERROUTER_TOKEN=TOKEN)))
        if options.litellm:
            (folder / "litellm.yaml").write_text(LITELLM.format(url=url, token=TOKEN), "utf-8")
            other = free_port()
            command = [options.litellm, "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(other)]
            quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "DISABLE_ADMIN_UI": "True"}
            targets.append(stack.enter_context(target("litellm", command, other, **quiet)))
        found = medians(targets, options.rounds)
        print(f"{'':>10}  {'ready':>8}  {'whole':>10}  {'first':>10}  {'8 clients':>12}  {'64 clients':>12}  {'memory':>10}")
        for each in targets:
            rates = [calls_a_second(each.port, clients, options.seconds) for clients in (8, 64)]
            whole, first = found[each.name]
            shown = (f"{each.ready_s:6.2f} s", f"{whole:7.0f} us", f"{first:7.0f} us", *(f"{rate:8.0f} / s" for rate in rates))
            print(
                f"{each.name:>10}  {'  '.join(shown)}  {memory(each.pid):6.0f} MiB"
                if each.pid
                else f"{each.name:>10}  {'  '.join(shown)}"
            )
        print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
