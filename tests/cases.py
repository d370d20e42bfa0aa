"""Bases of tests: routers over one stand-in provider, and transports that send to scripted servers."""

from __future__ import annotations

import os
import threading
import unittest
from typing import Any

from tests import part
from tests.fakes import HELLO, account, make_router
from tests.servers import client_context, environment

Simulator = part("simulator").Simulator
transport = part("transport")
secret = part("secret")

PRICE = {"cost_per_input_token": 0.001, "cost_per_output_token": 0.002}


class RouterCase(unittest.TestCase):
    """One stand-in provider, `self.url`, for all accounts of a test."""

    simulator: Any
    url: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.simulator = Simulator().start()
        cls.addClassCleanup(cls.simulator.stop)
        cls.url = cls.simulator.base_url

    def router(self, *accounts: Any, config: dict[str, Any] | None = None, **parts: Any) -> Any:
        """A router over accounts of the provider "sim"; it is closed at the test's end."""
        made = [account(each, provider="sim") if isinstance(each, str) else each for each in accounts]
        settings = {"policy": "free_first", **(config or {})}
        router = make_router({"sim": self.url}, *made, config=settings, **parts)
        self.addCleanup(router.close)
        return router

    def served_by(self, router: Any, calls: int, **bounds: Any) -> list[str]:
        return [router.chat_completion(HELLO, **bounds).routing.account_id for _ in range(calls)]


def free(name: str, amount: float, unit: str = "requests", **settings: Any) -> Any:
    return account(name, provider="sim", daily_free=amount, quota_unit=unit, limits={}, **settings)


def paid(name: str, **settings: Any) -> Any:
    return account(name, provider="sim", paid_enabled=True, limits={}, **{**PRICE, **settings})


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


def thread_count() -> int:
    return threading.active_count()
