"""The ground for tests of the transport: no proxies from outside, transports that are closed, and short ways to send."""

from __future__ import annotations

import os
import threading
import unittest
from typing import Any

from tests import part
from tests.servers import client_context, environment

transport = part("transport")
secret = part("secret")

KEY = "sk-canary-0123456789abcdef"


class WireCase(unittest.TestCase):
    """Each test has `self.wire`, a `Transport` that trusts the tests' own certificate."""

    def setUp(self) -> None:
        self.enterContext(environment())
        self.wire = self.transport()

    def transport(self, **options: Any) -> Any:
        options.setdefault("ssl_context", client_context())
        made = transport.Transport(**options)
        self.addCleanup(made.close)
        return made

    def send(self, url: str, body: bytes = b"{}", timeout_s: float = 5.0, **options: Any) -> Any:
        """A reply to a POST with a key, as providers send it."""
        options.setdefault("wire", self.wire)
        return options.pop("wire").send(request(url, body), timeout_s=timeout_s, **options)

    def fault(self, url: str, body: bytes = b"{}", timeout_s: float = 5.0, *, some: bool = False, **options: Any) -> Any:
        """The `WireFault` that a POST to `url`, or reading its answer (piece by piece if `some`), ends with."""
        try:  # not assertRaises, which would wipe the traceback that some tests look into
            with self.send(url, body, timeout_s, **options) as reply:
                read(reply, some)
        except transport.WireFault as fault:
            return fault
        raise self.failureException("no fault was raised")


def request(url: str, body: bytes = b"{}", method: str = "POST") -> Any:
    headers = (("authorization", secret.Secret(KEY, "Bearer ")), ("content-type", "application/json"))
    return transport.WireRequest(url, body, headers, method)


def read(reply: Any, some: bool) -> bytes:
    """The whole body, at once or piece by piece."""
    if not some:
        return bytes(reply.read())
    pieces = []
    while piece := reply.read_some():
        pieces.append(piece)
    return b"".join(pieces)


def open_files() -> int:
    """How many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def threads() -> int:
    return threading.active_count()
