"""Defines what the router tells its meters: an event for each thing that happens to a call, an account or a limit.

Strategy: frozen values, extended only by fields with defaults, so that a meter written for an older version goes on working. One
call id ties together all that belongs to a call. Times in seconds of the router's clock; `at` and `until` are epoch seconds.
Must never hold a key, nor a word of a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import InferRouterError, Rejection
from .frozen import EMPTY, frozen_value
from .records import Usage

Amounts = tuple[tuple[str, float], ...]
"""Buckets by their keys, each with an amount in the unit of its limit."""

NOTHING_USED = Usage()


@frozen_value
class RouteEvent:
    """An attempt is about to be made. `attempt` counts from 1 within the call.

    `alias`: the name that was asked for; `operation`: chat or embeddings; `reserved`: what is charged until the attempt ends;
    `parameters`: those of the request that are set (max_tokens, temperature, top_p, stop, seed, session, n, output), never its
    messages; `base_url`: where it goes.
    """

    provider: str
    account_id: str
    model: str
    free: bool
    attempt: int
    estimated_tokens: int
    call_id: str = ""
    alias: str = ""
    operation: str = "chat"
    stream: bool = False
    reserved: Amounts = ()
    parameters: Mapping[str, Any] = EMPTY
    base_url: str = ""
    at: float = 0.0


@frozen_value
class ResultEvent:
    """An attempt has ended. `duration` in seconds, `cost` in dollars; `error` is None on success.

    `model_answered`, `response_id`, `finish_reasons`: the provider's own words, empty where it said nothing. `first_chunk_s`:
    seconds until a stream's first content, None for whole answers. `reserved` and `charged`: what was taken beforehand and what
    stayed charged. `waited_s`: how long the call had waited for a free slot before.
    """

    provider: str
    account_id: str
    model: str
    free: bool
    success: bool
    duration: float
    usage: Usage
    cost: float
    error: InferRouterError | None = None
    call_id: str = ""
    attempt: int = 1
    alias: str = ""
    operation: str = "chat"
    stream: bool = False
    model_answered: str = ""
    response_id: str = ""
    finish_reasons: tuple[str, ...] = ()
    first_chunk_s: float | None = None
    reserved: Amounts = ()
    charged: Amounts = ()
    waited_s: float = 0.0
    at: float = 0.0


@frozen_value
class CallEvent:
    """A call has ended. `outcome`: ok, refused (nothing could be tried), failed, cut (a stream after its first content), or
    abandoned (interrupted from outside).

    `provider`, `account_id` and `model` are those that answered or were tried last, "" if none was. `usage` and `cost` in
    dollars: of all its attempts; `duration`: seconds from its beginning, waiting included.
    """

    call_id: str
    alias: str
    operation: str
    stream: bool
    outcome: str
    attempts: int
    waited_s: float
    duration: float
    usage: Usage = NOTHING_USED
    cost: float = 0.0
    free: bool = True
    provider: str = ""
    account_id: str = ""
    model: str = ""
    error: BaseException | None = None
    at: float = 0.0


@frozen_value
class WaitEvent:
    """A call is about to wait `seconds`, until `until`, because of `reason`; whom it waits for is the one that is free first."""

    call_id: str
    alias: str
    provider: str
    account_id: str
    model: str
    seconds: float
    until: float
    reason: str
    at: float = 0.0


@frozen_value
class RefusalEvent:
    """A call ends without an attempt. `rejections`: why each candidate was left out; `retry_at`: epoch seconds, or None."""

    call_id: str
    alias: str
    operation: str
    rejections: tuple[Rejection, ...]
    retry_at: float | None
    at: float = 0.0


@frozen_value
class HoldEvent:
    """A hold of `key` has begun, or has ended (`begun` False). `model`: "" where the whole account rests.

    `account_id`: the account whose answer was the reason. The end is told with the first call after it.
    """

    key: str
    provider: str
    account_id: str
    model: str
    until: float
    reason: str
    begun: bool = True
    at: float = 0.0


@frozen_value
class LimitEvent:
    """Something was learned of the limit `key`: what it is (`stated`) or what is left (`remaining`), None where nothing was said.

    `configured`: the amount that was set, None where none was; `source`: the header or the answer that said it.
    """

    key: str
    provider: str
    account_id: str
    model: str
    configured: float | None
    stated: float | None
    remaining: float | None
    source: str
    at: float = 0.0


@frozen_value
class NoticeEvent:
    """Something that waiting does not fix: a model that its provider does not have, a key that was refused. Told once each.

    `text`: the sentence that `Router.warnings` holds from now on.
    """

    text: str
    provider: str
    account_id: str
    model: str
    at: float = 0.0
