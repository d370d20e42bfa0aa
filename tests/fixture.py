"""Accounts, ledger and breakers put on a stage: everything a call looks at, and nothing that is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests import part

account, candidates, config, costs = part("account"), part("candidates"), part("config"), part("costs")
health, guarded_store, quota, routes = part("health"), part("guarded_store"), part("quota"), part("routes")

NOW = 1_700_000_000.0
"""2023-11-14 22:13:20 UTC."""
MIDNIGHT = 1_700_006_400.0


class FakeProvider:
    """As much of a provider as is asked before a call. `models`: what it declares, None for nothing."""

    def __init__(self, name: str, models: Sequence[str] | None = None, media: Sequence[str] = ("image",)) -> None:
        self.name = name
        self.dialect = "openai"
        self.base_url = f"https://{name}.test/v1"
        self.media = frozenset(media)
        self.models = models
        self.cannot: tuple[str, ...] = ()

    def declares(self, model: str) -> bool | None:
        return None if self.models is None else model in self.models

    def unsupported(self, request: object, model: str) -> tuple[str, ...]:
        return self.cannot


def an_account(name: Any = "a", provider: Any = "p", **settings: Any) -> Any:
    """An account's configuration."""
    return account.AccountConfig(provider=provider, id=name, **settings)


def alias(name: str, *steps: str) -> Any:
    """A mapping of `name` to steps written provider/model."""
    return config.ModelMapping(name, [config.ModelRef(*step.split("/", 1)) for step in steps])


class Fixture:
    """A roster over `accounts`, opened at `NOW`; `wire` stands where the transport would."""

    wire = object()

    def __init__(
        self, *accounts: Any, models: Sequence[Any] = (), providers: Sequence[Any] = (), store: Any = None, **settings: Any
    ) -> None:
        brought = {provider.name: provider for provider in providers}
        for item in accounts:
            brought.setdefault(item.provider, FakeProvider(item.provider))
        self.providers = brought
        self.store = store or part("quota_memory").MemoryQuotaStore()
        self.ledger = guarded_store.GuardedStore(self.store)
        self.health = health.Health()
        made = config.Config(accounts=accounts, models=models, **settings)
        self.table = routes.RouteTable(made, brought, self.wire, self.ledger)
        self.table.define_limits(NOW)

    def route(self, name: str = "p/m") -> Any:
        return self.table.resolve(name, NOW)

    def find_candidates(
        self, name: str = "p/m", estimate: tuple[int, int] = (10, 20), paid: bool = False, request: Any = None
    ) -> Any:
        media = request.media if request is not None else frozenset()
        needs = candidates.CallNeeds(costs.Estimate(*estimate), paid, request, media)
        return candidates.find_candidates(self.route(name), needs, self.ledger, self.health, candidates.Instant(NOW, 0.0))

    def used(self, key: str, amount: float) -> None:
        """Use `amount` of the bucket `key` up."""
        found = self.ledger.reserve(((key, amount),), NOW)
        assert not isinstance(found, quota.Refusal), found
        self.ledger.settle(found, None, NOW)
