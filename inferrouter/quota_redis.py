"""Keeps quota on a Redis or Valkey server that many machines share, through a client that the caller made.

Strategy: one script does a batch of operations in one step; it is called by its digest, and sent whole where the server does not
have it. Every key carries one hash tag, so that a cluster keeps the ledger on one node, and every key has a time to live. The
verbs are `quota_remote`'s. Must never import a client library; what a client raises ends here, in words that say what to do.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
from typing import Any

from .errors import ConfigError, QuotaStoreError
from .quota_exchange import Exchange, server_error, without_passwords
from .quota_lanes import Carrier
from .quota_redis_lua import SCRIPT
from .quota_remote import RemoteQuotaStore

DIGEST = hashlib.sha1(SCRIPT.encode("ascii"), usedforsecurity=False).hexdigest()


class RedisQuotaStore(RemoteQuotaStore):
    """Counts on a Redis or Valkey server: exact over machines, and as durable as the server is (`appendonly yes`).

    `client`: a synchronous client of redis-py or valkey-py (a cluster's or a Sentinel's too), `decode_responses` on or off; it
    stays the caller's to close. `prefix`: begins every key, so that several ledgers share a server. `timeout`: seconds a verb may
    take in all. `adopt_empty`: what happens if the server has lost its counts: False refuses each limit until its window has
    passed, True goes on from zero. The server (Redis 5 or newer) needs `maxmemory-policy noeviction`.
    Raises ConfigError for a wrong value. Connects with the first verb; each then raises QuotaStoreError naming server and remedy.
    """

    def __init__(
        self, client: Any, prefix: str = "inferrouter", *, timeout: float = 2.0, adopt_empty: bool = False, most_lanes: int = 8
    ) -> None:
        problem = _client_problem(client)
        if problem:
            raise ConfigError([f"client: {problem}"])
        if not isinstance(prefix, str) or not prefix.isascii() or not prefix.isprintable() or not prefix.strip("{} "):
            raise ConfigError(["prefix: must be printable ASCII text such as 'inferrouter'"])
        if "{" in prefix or "}" in prefix:
            raise ConfigError(["prefix: must not contain braces; the store puts its own around it, for clusters"])
        self._client = client
        self._prefix = "{" + prefix + "}:"
        self._policy_seen = False
        self._owned = False
        self._roomy = most_lanes * 4
        super().__init__(f"Redis{_place(client)}", timeout, adopt_empty, most_lanes, _FAR_S)

    def own_client(self) -> None:
        """Closes the client with the store: nobody else has it."""
        self._owned = True

    def close(self) -> None:
        super().close()
        if self._owned:
            with contextlib.suppress(Exception):
                self._client.close()

    def _open_carrier(self) -> Carrier:
        own = _own_connection(self._client, self._roomy)
        if own is None:
            return Exchange(self._ledger, functools.partial(self._call, self._client))
        return Exchange(self._ledger, functools.partial(self._call, own), functools.partial(_give_back, own))

    def _call(self, client: Any, names: list[str], args: list[str]) -> str:
        keys = [f"{self._prefix}{name}" for name in ("epoch", "claim", *names)]
        text = "\n".join(args) + "\n"  # one long argument costs a client less than many short ones
        try:
            answer = client.evalsha(DIGEST, len(keys), *keys, self._prefix, text)
        except Exception as exc:
            if type(exc).__name__ != "NoScriptError" and "NOSCRIPT" not in str(exc):
                raise
            answer = client.eval(SCRIPT, len(keys), *keys, self._prefix, text)
        if not self._policy_seen:
            self._look_at_policy()
        return answer if isinstance(answer, str) else bytes(answer).decode("ascii")

    def _look_at_policy(self) -> None:
        """Once, where the server lets it be seen: whether keys may be dropped when memory is short."""
        self._policy_seen = True
        try:
            found = self._client.info("memory")
            policies = {found.get("maxmemory_policy")} | {
                each.get("maxmemory_policy") for each in found.values() if isinstance(each, dict)
            }
        except Exception:  # whatever a client or a managed server says to that: it is a courtesy
            return
        dropping = sorted(policy for policy in policies if policy and policy != "noeviction")
        if dropping:
            self._ledger.warn(
                "policy",
                f"{self._ledger.server} may drop counts when its memory is full (maxmemory-policy {dropping[0]}): "
                "set it to noeviction, or limits are overrun",
            )

    def _explained(self, exc: Exception) -> tuple[QuotaStoreError, bool]:
        name = " ".join([kind.__name__ for kind in type(exc).__mro__])  # a Sentinel's errors, for one, are connection errors
        text = without_passwords(str(exc))
        for words, remedy, again in _REMEDIES:
            if text.startswith(words) or any(word in name or f" {word} " in text for word in words):
                return server_error(self._ledger.server, exc, remedy), again
        return server_error(self._ledger.server, exc, "see that it is up and can be reached"), isinstance(exc, OSError)


_FAR_S = 0.0007

_REMEDIES = (
    (("BusyLoading", "LOADING"), "it is loading its data; call again when it is done", True),
    (("BUSY",), "a long script runs there; end it with SCRIPT KILL", True),
    (("ReadOnly", "READONLY"), "this is a replica; connect to the primary", True),
    (("OutOfMemory", "OOM"), "it has no memory left; raise maxmemory", False),
    (("MISCONF",), "it cannot write to its disk; see its log", False),
    (("NOREPLICAS",), "too few replicas are connected (min-replicas-to-write); bring them back", True),
    (("MasterDown", "MASTERDOWN"), "this is a replica without its primary; connect to the primary", True),
    (("ClusterDown", "CLUSTERDOWN", "SlotNotCovered"), "its cluster is down; see CLUSTER INFO", True),
    (("TryAgain", "TRYAGAIN", "ClusterError"), "its cluster is moving slots; call again", True),
    (("MovedError", "MOVED"), "it is a cluster's node; use a cluster client such as redis.RedisCluster", False),
    (("CrossSlot", "CROSSSLOT"), "its keys lie in several slots; keep the store's prefix as it is", False),
    (("Authorization",), "the user may not connect", False),
    (("Authentication", "WRONGPASS"), "the password or user is wrong", False),
    (("NOAUTH",), "a password is needed", False),
    (("NoPermission", "NOPERM"), "the user may not do this; allow EVALSHA, EVAL and the keys of the prefix", False),
    (("MaxConnections",), "all connections of the client's pool are in use; raise max_connections", True),
    (("ConnectionError",), "see that it is up and can be reached", True),
    (("TimeoutError",), "it did not answer in time; see that it is up and can be reached", True),
    (("ResponseError",), "see its log", False),
)
"""The words that tell an error, in its name or its text, with the remedy and whether to try again; the first row that has one."""


def _client_problem(client: object) -> str | None:
    call = getattr(client, "evalsha", None)
    if not callable(call) or not callable(getattr(client, "eval", None)):
        return f"must be a client of redis-py or valkey-py, such as redis.Redis(...), not {type(client).__name__}"
    if inspect.iscoroutinefunction(call) or "asyncio" in type(client).__module__:
        return "must be a synchronous client; use redis.Redis instead of redis.asyncio.Redis"
    return None


def _own_connection(client: Any, roomy: int) -> Any:
    """A client of one connection out of this one's pool, which saves each batch the taking, looking at and giving back of one;
    None where the pool has fewer than `roomy`, so that the caller's other threads may lack it, or where there is no such thing.
    Raises what connecting raises."""
    most = getattr(getattr(client, "connection_pool", None), "max_connections", 0)
    if not isinstance(most, int) or most < roomy:
        return None
    try:
        return client.client()
    except (AttributeError, TypeError):  # a client of another make
        return None


def _give_back(own: Any) -> None:
    with contextlib.suppress(Exception):
        own.close()


def _place(client: Any) -> str:
    """Where the client connects to, "" if it does not say; never its user or password."""
    found = getattr(getattr(client, "connection_pool", None), "connection_kwargs", None)
    if not isinstance(found, dict):
        return ""
    if found.get("path"):
        return f" at {found['path']}"
    return f" at {found['host']}:{found.get('port', 6379)}" if found.get("host") else ""
