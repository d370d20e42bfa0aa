"""Asks every account once, to see whether its key, address and model are right.

Strategy: a router over each account alone, one call of a few tokens each, all at once, so that one silent server delays no other.
The calls are counted like any other. What is to be done about a failure is what the error itself says. Must never show a key.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from .account import AccountConfig
from .catalog import own_names
from .cli_common import one_line
from .config import Config
from .errors import AllCandidatesFailedError, InferRouterError, NoCandidatesError
from .frozen import NamedTuple, replace
from .moments import moment_in_words
from .quota import QuotaStore
from .records import ChatRequest
from .router import Router

QUESTION = "Answer with the word OK."
MAX_TOKENS = 16
TIMEOUT_S = 30.0
AT_ONCE = 16


class Probe(NamedTuple):
    """How one account answered. `model`: "" where none is known to ask for; `seconds`: None if nobody was asked."""

    account_id: str
    provider: str
    model: str
    fine: bool
    seconds: float | None
    says: str


def probe_accounts(config: Config, store: QuotaStore | None) -> list[Probe]:
    """Ask each account of `config` once, and say how each answered, in their order.

    `store`: where the calls are counted; None: where `config` says. Raises nothing but for the store itself (`QuotaStoreError`).
    """
    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(config.accounts))), "probe") as pool:
        return list(pool.map(lambda account: _probe(account, config, store), config.accounts))


def _probe(account: AccountConfig, config: Config, store: QuotaStore | None) -> Probe:
    model = _model_of(account, config)
    if not model:
        says = f"no model of {account.provider} is known; name one in an alias, or as default_model"
        return Probe(account.id, account.provider, "", False, None, says)
    alone = replace(config, accounts=[account], models=[], default_model="", auth_errors="raise", max_wait=0.0)
    started = time.monotonic()
    try:
        with Router(alone, quota_store=store) as router:
            if any(hold.reason.startswith("Authentication") for hold in router.status()[account.id].holds):
                router.rest(account.id, 0)  # the key may have been corrected since
            request = ChatRequest(QUESTION, model=f"{account.provider}/{model}", max_tokens=MAX_TOKENS)
            answer = router.chat_completion(request, timeout=TIMEOUT_S)
    except NoCandidatesError as error:
        when = "" if error.retry_at is None else f"; free {moment_in_words(error.retry_at, time.time())}"
        reasons = "; ".join(dict.fromkeys(rejection.reason for rejection in error.rejections))
        return Probe(account.id, account.provider, model, False, None, f"was not asked: {reasons or one_line(str(error))}{when}")
    except AllCandidatesFailedError as error:
        says = one_line(str(error.attempts[-1].error if error.attempts else error))
        return Probe(account.id, account.provider, model, False, time.monotonic() - started, says)
    except InferRouterError as error:
        return Probe(account.id, account.provider, model, False, time.monotonic() - started, one_line(str(error)))
    seconds = time.monotonic() - started
    said = f"answered {answer.usage.total_tokens} tokens, {'free' if answer.routing.free else f'${answer.routing.cost:.6f}'}"
    return Probe(account.id, account.provider, model, True, seconds, said)


def _model_of(account: AccountConfig, config: Config) -> str:
    """The model to ask `account` for: one that an alias has at its provider, the default, or one the catalog knows."""
    steps = [step.model for mapping in config.models for step in mapping.models if step.provider == account.provider]
    provider, _, model = config.default_model.partition("/")
    default = [model] if provider == account.provider and model else []
    chats = [name for name in _choices(default, steps, own_names(account.provider)) if "embed" not in name]
    return next(iter(chats), "")


def _choices(*lists: Sequence[str]) -> list[str]:
    return [name for names in lists for name in names]
