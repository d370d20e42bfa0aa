"""Endpoints under test: a router over stand-in providers, served on a port of its own, and clients that speak plain sockets."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from tests import ir, part
from tests.servers import Reply

simulator = part("simulator")
JSON = {"Content-Type": "application/json"}
HELLO: dict[str, Any] = {"model": "fast", "messages": [{"role": "user", "content": "hello"}]}


class Served(unittest.TestCase):
    """`self.sim`: the stand-in; `self.server`: the endpoint over one account "a" at it. Settings of both stand in the class."""

    dialect = "openai"
    keys: Any = ("sk-1",)
    limits: dict[str, float] = {}  # noqa: RUF012  # never changed
    settings: dict[str, Any] = {}  # noqa: RUF012  # as above
    simulated: dict[str, Any] = {}  # noqa: RUF012  # as above

    def setUp(self) -> None:
        self.enterContext(mock.patch.object(part("serve_watch"), "TICK_S", 0.02))
        self.sim = simulator.Simulator(self.dialect, keys=self.keys, **self.simulated).start()
        self.addCleanup(self.sim.stop)
        self.router = self.make_router()
        self.addCleanup(self.router.close)
        self.server = ir.serve(self.router, port=0, **{"max_wait": 5.0, **self.settings})
        self.addCleanup(self.server.stop, 0)

    def make_router(self) -> Any:
        url = self.sim.base_url
        settings = {"auth": ir.Auth("sk-1"), "limits": self.limits, "capabilities": ("text", "tools", "json", "image")}
        account = ir.AccountConfig(provider="sim", id="a", base_url=url, **settings)
        config = ir.Config(models=[ir.ModelMapping("fast", [ir.ModelRef("sim", "m")])], default_model="fast", accounts=[account])
        kinds = {"anthropic": ir.AnthropicProvider, "gemini": ir.GeminiProvider}
        provider = Named(kinds[self.dialect](url)) if self.dialect in kinds else ir.OpenAICompatProvider("sim", url)
        return ir.Router(config, [provider], health=ir.HealthConfig(failure_threshold=1000))

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """One request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, payload, {**(JSON if body is not None else {}), **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def chat(self, text: str = "hello", headers: dict[str, str] | None = None, **more: Any) -> Reply:
        messages = [{"role": "user", "content": text}]
        return self.ask("POST", "/v1/chat/completions", {"model": "fast", "messages": messages, **more}, headers)

    def raw(self, data: bytes, wait: float = 5.0) -> bytes:
        """Everything that comes back for these bytes until the server closes or is silent."""
        with self.connect() as sock:
            sock.settimeout(wait)
            sock.sendall(data)
            return drained(sock)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=5)

    @contextmanager
    def stopping(self, grace: float = 30.0) -> Iterator[None]:
        """The endpoint is told to stop, and in the block what keeps it from that must end."""
        thread = threading.Thread(target=self.server.stop, args=(grace,))
        thread.start()
        yield
        thread.join(5)
        self.assertFalse(thread.is_alive(), "it stops")

    def used(self) -> float:
        return float(self.router.status()["a"].limits[0].used)

    def until(self, true: Any, what: str, seconds: float = 5.0) -> None:
        """Wait until `true()`; fails if it never is."""
        pause, end = threading.Event(), time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                self.fail(f"never happened: {what}")
            pause.wait(0.002)


class Named:
    """A provider under the name "sim"."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self.name = "sim"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)


def drained(sock: socket.socket) -> bytes:
    pieces = []
    try:
        while piece := sock.recv(65536):
            pieces.append(piece)
    except OSError:
        pass
    return b"".join(pieces)


def post(body: bytes, *lines: str, path: str = "/v1/chat/completions", length: bool = True) -> bytes:
    """A request as bytes."""
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", *lines]
    if length:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
