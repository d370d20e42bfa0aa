"""Servers on 127.0.0.1 that do exactly what a test tells them, byte by byte, over plain sockets or TLS; and a plain client."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

DATA = Path(__file__).resolve().parent / "data"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EVENT = (
    b'{"id":"x","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}'
)

Script = Callable[["Peer"], None]


class Peer:
    """The server's end of one connection. `number` counts connections from 0."""

    def __init__(self, server: ScriptedServer, sock: socket.socket, number: int) -> None:
        self.server = server
        self.sock = sock
        self.number = number
        self._buffer = b""

    def request(self) -> bytes | None:
        """The next whole request, noted in `server.requests`; None once the client has gone."""
        try:
            while b"\r\n\r\n" not in self._buffer:
                self._more()
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line[15:])
            while len(rest) < length:
                self._more()
                rest = self._buffer.partition(b"\r\n\r\n")[2]
        except OSError:
            return None
        self._buffer = rest[length:]
        request = head + b"\r\n\r\n" + rest[:length]
        with self.server.lock:
            self.server.requests.append((self.number, request))
        return request

    def send(self, data: bytes) -> bool:
        """Sends `data`; False if the client has gone."""
        try:
            self.sock.sendall(data)
        except OSError:
            return False
        return True

    def drip(self, data: bytes, every_s: float) -> None:
        """Sends `data` byte by byte until the client has gone or the server stops."""
        for i in range(len(data)):
            if not self.send(data[i : i + 1]) or self.server.stopped.wait(every_s):
                return

    def wait(self, seconds: float = 30.0) -> None:
        """Keeps the connection open and silent until the server stops."""
        self.server.stopped.wait(seconds)

    def gone(self) -> bool:
        """Blocks until the client closed its end; True if it did, False after 2 s."""
        try:
            self.sock.settimeout(2)
            while self.sock.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def reset(self) -> None:
        """Closes with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        """Closes at once; over TLS without close_notify."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self.sock.close()

    def _more(self) -> None:
        piece = self.sock.recv(65536)
        if not piece:
            raise OSError("the client has gone")
        self._buffer += piece


class ScriptedServer:
    """Runs `script(peer)` for each connection, in a thread of its own; closes the connection afterwards."""

    def __init__(self, script: Script, tls: str = "") -> None:
        self.script = script
        self.requests: list[tuple[int, bytes]] = []
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.errors: list[BaseException] = []
        self._context = server_context(tls) if tls else None
        self._peers: list[Peer] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.netloc = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.netloc}"
        self._start(self._accept)

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopped.set()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for peer in self._peers:
            try:
                peer.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads:
            thread.join(5)
        if self.errors and exc[0] is None:
            raise self.errors[0]

    @property
    def connections(self) -> int:
        return len(self._peers)

    @property
    def reused(self) -> bool:
        """Whether the last request came over a connection that had carried one before."""
        with self.lock:
            *earlier, last = [number for number, _ in self.requests]
        return last in earlier

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(self, sock, len(self._peers))
            self._peers.append(peer)
            self._start(self._serve, peer)

    def _serve(self, peer: Peer) -> None:
        try:
            peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                peer.sock.settimeout(5)
                peer.sock = self._context.wrap_socket(peer.sock, server_side=True)
                peer.sock.settimeout(None)
            self.script(peer)
        except OSError:
            pass
        except BaseException as exc:
            self.errors.append(exc)
        finally:
            peer.close()


def answering(*answers: bytes) -> Script:
    """A script that gives `answers` in turn, the last one for ever, over one kept-alive connection."""

    def script(peer: Peer) -> None:
        count = 0
        while peer.request() is not None:
            if not peer.send(answers[min(count, len(answers) - 1)]):
                return
            count += 1

    return script


def then_close(answer: bytes) -> Script:
    """A script that gives `answer` once and closes."""

    def script(peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(answer)

    return script


def server_context(name: str) -> ssl.SSLContext:
    """`name`: "good", "expired" or "wrong_host", the certificates under tests/data."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / f"tls_{name}.pem")
    return context


def client_context(*names: str) -> ssl.SSLContext:
    """A verifying client context that trusts the named certificates, and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for name in names or ("good",):
        context.load_verify_locations(DATA / f"tls_{name}.pem")
    return context


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """The environment without any proxy settings, but with `variables`, for a while."""
    saved = dict(os.environ)
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


@contextmanager
def bench_server(tls: bool = False) -> Iterator[str]:
    """A fast answering server in a process of its own, so that it does not share the interpreter lock; its URL."""
    command = [sys.executable, "-c", "from tests.servers import _bench_main; _bench_main()", "good" if tls else ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGTERM)


def _bench_main() -> None:
    body = b'{"id":"x","choices":[{"message":{"role":"assistant","content":"' + b"a" * 120 + b'"}}],"usage":{"total_tokens":9}}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: bench\r\n"
    answer = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    event = b"data: " + EVENT + b"\n\n"
    stream = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n" % (len(event), event) * 2000 + b"0\r\n\r\n"

    def script(peer: Peer) -> None:
        while (asked := peer.request()) is not None:
            peer.send(stream if b"/stream" in asked[:50] else answer)

    with ScriptedServer(script, tls=sys.argv[1]) as server:
        print(server.url, flush=True)
        server.stopped.wait()


class Reply(NamedTuple):
    """Status, headers in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> list[str]:
        """The data line of each server-sent event."""
        lines = self.body.decode().splitlines()
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]

    @property
    def events(self) -> list[Any]:
        """The JSON of each server-sent event, the [DONE] marker left out."""
        return [json.loads(data) for data in self.data if data != "[DONE]"]


class Client:
    """One kept-alive connection to a simulator, a context manager."""

    def __init__(self, base_url: str, headers: dict[str, str]) -> None:
        url = urlsplit(base_url)
        self.root = url.path
        self.headers = headers
        self.connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=5)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
        """POST `body` (JSON unless it is bytes); `headers` replaces the usual ones."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._ask("POST", path, payload, self.headers if headers is None else headers)

    def get(self, path: str) -> Reply:
        return self._ask("GET", path, None, self.headers)

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        self.connection.request(method, self.root + path, body, headers)
        response = self.connection.getresponse()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
