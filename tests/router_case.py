"""A base of router tests: one stand-in provider for all accounts, and accounts that are free or paid."""

from __future__ import annotations

import unittest
from typing import Any

from tests import part
from tests.fakes import HELLO, account, make_router

Simulator = part("simulator").Simulator

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
