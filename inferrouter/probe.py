"""Asks every account one short question, all at once, to see which keys and models work.

Strategy: each call goes the way of all others over the one model of its account that has the most calls left, so that it is
counted and what it learns is kept; it fails over to nobody. Must never decide what follows from an answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial

from .attempt import Runtime
from .calls import chat_operation
from .candidates import CallNeeds
from .costs import estimate_chat
from .errors import InferRouterError
from .frozen import frozen_value
from .model_overview import AskableModel
from .records import ChatRequest
from .routes import RouteTable, route_over
from .walk import walk

QUESTION = ChatRequest("Answer with the word yes.", max_tokens=64)
MOST_AT_ONCE = 16


@frozen_value
class Probe:
    """How one account answered. `model`: what was asked, "" where no model of it is known; `error`: None if all is well.

    `seconds`: how long it took; `answered_by`: the model's own name in its answer.
    """

    provider: str
    account_id: str
    model: str
    seconds: float
    error: InferRouterError | None = None
    answered_by: str = ""

    @property
    def ok(self) -> bool:
        """Whether there was an answer."""
        return self.error is None

    def __str__(self) -> str:
        said = "works" if self.error is None else str(self.error)
        return f"{self.provider}/{self.account_id} ({self.model or 'no model'}): {said}"


def probe_accounts(
    table: RouteTable, models: Sequence[AskableModel], runtime: Runtime, allow_paid: bool, timeout: float
) -> tuple[Probe, ...]:
    """One `Probe` an account, in declared order. `timeout`: seconds for each. Raises nothing that an account caused."""
    found: dict[str, Probe] = {}

    def ask(account_id: str, provider: str) -> None:
        found[account_id] = _asked(account_id, provider, table, models, runtime, allow_paid, timeout)

    accounts = [bound.account for bound in table.bound_accounts]
    for begin in range(0, len(accounts), MOST_AT_ONCE):
        _together([partial(ask, each.id, each.provider) for each in accounts[begin : begin + MOST_AT_ONCE]])
    return tuple([found[account.id] for account in accounts])


def _asked(
    account_id: str,
    provider: str,
    table: RouteTable,
    models: Sequence[AskableModel],
    runtime: Runtime,
    allow_paid: bool,
    timeout: float,
) -> Probe:
    own = [each for each in models if each.account_id == account_id]
    began = runtime.clock.monotonic()
    if not own:
        error = InferRouterError(f"no model of {provider} is known: name one in an alias, or ask for {provider}/<model>")
        return Probe(provider, account_id, "", 0.0, error)
    model = max(own, key=lambda each: (each.available, _calls_left(each))).model
    try:
        route = table.resolve(f"{provider}/{model}", runtime.clock.time())
        mine = [each for each in route.deployments if each.bound.account.id == account_id]
        needs = CallNeeds(estimate_chat(QUESTION), allow_paid, QUESTION)
        answer = walk(route_over(f"{provider}/{model}", mine), chat_operation(QUESTION, needs, began + timeout, 0.0), runtime)
    except InferRouterError as error:
        return Probe(provider, account_id, model, runtime.clock.monotonic() - began, error)
    return Probe(provider, account_id, model, runtime.clock.monotonic() - began, None, answer.model)


def _calls_left(model: AskableModel) -> float:
    return min([limit.remaining for limit in model.limits if limit.unit == "requests"], default=0.0)


def _together(works: Sequence[Callable[[], None]]) -> None:
    """Run all of `works` in threads of their own and wait for them."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
