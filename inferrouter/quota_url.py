"""Opens the store on a server that a URL names, with whichever client library is installed.

Strategy: the library is imported here and nowhere else, and only when a configuration asks for it; connections get short timeouts
of their own, and no retries, as the store tries again by itself. The URL may hold a password: it is revealed at the last moment,
and stands in no error. Must never import a client library while it is imported itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .errors import ConfigError
from .quota_postgres import PostgresQuotaStore
from .quota_redis import RedisQuotaStore
from .secret import Secret

KINDS = {
    "redis": ("redis://", "rediss://", "unix://", "valkey://", "valkeys://"),
    "postgres": ("postgres://", "postgresql://"),
}
"""The stores on servers, and how their URLs begin."""
CONNECT_S = 2
"""Seconds to wait for a connection."""
SOCKET_S = 2
"""Seconds to wait for an answer before a connection is given up and another one is tried."""


def kind_of_url(url: str) -> str | None:
    """The store that a URL is for; None: none."""
    return next((kind for kind, beginnings in KINDS.items() if url.startswith(beginnings)), None)


def open_store(kind: str, url: Secret, prefix: str, adopt_empty: bool) -> RedisQuotaStore | PostgresQuotaStore:
    """The store `kind` (redis or postgres) at `url`. `prefix`: of the keys, or the schema.

    Raises ConfigError where no client library is installed, saying which to install, where the URL is wrong, and for any other
    kind: counts that several programs share must not be kept elsewhere unasked.
    """
    if kind == "redis":
        client = _redis_client(url)
        store = RedisQuotaStore(client, prefix, adopt_empty=adopt_empty)
        store.own_client()
        return store
    if kind == "postgres":
        return PostgresQuotaStore(_postgres_connect(url), prefix, adopt_empty=adopt_empty)
    raise ConfigError(f"quota.store: nothing opens the store {kind!r}; make it yourself and pass it as quota_store")


def _redis_client(url: Secret) -> Any:
    library = _first_of("redis", "redis", "valkey")
    retry = importlib.import_module(f"{library.__name__}.retry").Retry(
        importlib.import_module(f"{library.__name__}.backoff").NoBackoff(), 0
    )
    options = {"socket_timeout": SOCKET_S, "socket_connect_timeout": CONNECT_S, "max_connections": 64, "retry": retry}
    try:
        return library.from_url(_spelled(url.reveal(), library.__name__), **options)
    except Exception:
        raise ConfigError(['quota.url: is not a URL of a Redis server, such as "redis://host:6379/0"']) from None


def _spelled(url: str, library: str) -> str:
    """The URL with the scheme that the library knows: either library speaks to either server."""
    scheme, mark, rest = url.partition("://")
    ending = "s" if scheme in ("rediss", "valkeys") else ""
    return url if scheme == "unix" else f"{library}{ending}{mark}{rest}"


def _postgres_connect(url: Secret) -> Callable[[], Any]:
    library = _first_of("postgres", "psycopg", "psycopg2", "pg8000.dbapi")
    if library.__name__ != "pg8000.dbapi":
        return lambda: library.connect(url.reveal(), connect_timeout=CONNECT_S, tcp_user_timeout=SOCKET_S * 1000)
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url.reveal())
    facts = {
        "host": parts.hostname or "localhost",
        "port": parts.port or 5432,
        "database": parts.path.lstrip("/") or None,
        "timeout": SOCKET_S,
    }
    secret = Secret(unquote(parts.password or ""))
    user = unquote(parts.username or "postgres")
    return lambda: library.connect(user, password=secret.reveal() or None, **facts)


def _first_of(store: str, *names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    packages = [name.partition(".")[0] for name in names]
    others = f" (or {', '.join(packages[1:])})"
    raise ConfigError([f'quota.store: {store!r} needs a client library: "pip install {packages[0]}"{others}'])
