"""Looks at the parts that a router is handed, and makes those that its configuration describes.

Strategy: every part that cannot be one is listed at once, before anything is opened. Must never call a part that was handed in,
but for a meter's hooks.
"""

from __future__ import annotations

import os

from .attempt import Runtime
from .config import Config, QuotaConfig, step_warnings
from .errors import ConfigError
from .health import HealthConfig
from .meter import is_meter, meters_in
from .quota import QuotaStore
from .quota_memory import MemoryQuotaStore
from .secret import Secret
from .transport import Transport
from .transport_config import TransportConfig, transport_problems
from .validation import class_in_words


def check_parts(
    quota_store: object, policy: object, meter: object, health: object, clock: object, transport: object = None
) -> None:
    """Raise `ConfigError` listing each part that cannot be one; None is always good."""

    def lacks(part: object, *methods: str) -> bool:
        return part is not None and not all(callable(getattr(part, name, None)) for name in methods)

    problems = [
        f"{name}: {class_in_words(part)}"
        for name, parts, method in (
            ("quota_store", (quota_store,), "reserve"),
            ("policy", (policy,), "select"),
            ("meter", meters_in(meter), "on_result"),
            ("health", (health,), "__init__"),
            ("clock", (clock,), "time"),
        )
        for part in parts
        if isinstance(part, type) and callable(getattr(part, method, None)) and not _of_the_class(part, method)
    ]
    if problems:
        raise ConfigError(problems)
    if lacks(quota_store, "reserve"):
        problems.append(f"quota_store: must be a store such as ir.SQLiteQuotaStore(path), not {type(quota_store).__name__}")
    if lacks(policy, "select"):
        problems.append("policy: must have a method select(candidates); a policy's name goes into Config(policy=...)")
    if not all(map(is_meter, meters_in(meter))):
        problems.append(
            "meter: must have methods on_route(event) and on_result(event), as ir.LogMeter() has, or be a list of these"
        )
    if health is not None and not isinstance(health, HealthConfig):
        problems.append(f"health: must be an ir.HealthConfig, not {type(health).__name__}")
    if lacks(clock, "time", "monotonic", "sleep"):
        problems.append("clock: must have methods time(), monotonic() and sleep(seconds)")
    if transport is not None:
        problems += [f"{setting}: {problem}" for setting, problem in transport_problems(transport) if problem]
    if problems:
        raise ConfigError(problems)


def _of_the_class(part: type, method: str) -> bool:
    """Whether `method` is called on the class itself, so that nothing need be made of it."""
    from inspect import getattr_static

    return isinstance(getattr_static(part, method), (staticmethod, classmethod))


def dead_steps(config: Config, runtime: Runtime) -> list[str]:
    """The steps of aliases that nobody serves, told like what turns out later."""
    dead = list(step_warnings(config))
    for text in dead:
        if runtime.notices.say(text, text) and runtime.meter is not None:
            from .events import NoticeEvent

            runtime.meter.tell("on_notice", NoticeEvent(text, "", "", "", runtime.clock.time()))
    return dead


def transport_for(config: TransportConfig) -> Transport:
    """The transport that a configuration describes. Raises `ConfigError` for a `ca_file` that is not there."""
    ca_file = None if config.ca_file is None else os.fsdecode(config.ca_file)
    if ca_file is not None and not os.path.isfile(ca_file):
        raise ConfigError(f"transport.ca_file: {ca_file!r} is not a file; name a PEM file of certificates")
    return Transport(
        idle_s=config.idle_timeout,
        per_host=int(config.max_connections),
        stream_limit=int(config.stream_limit),
        ssl_context=config.ssl_context,
        ca_file=ca_file,
    )


def quota_at(place: str | os.PathLike[str]) -> QuotaConfig:
    """Where to count, from the URL of a server or the path of an SQLite file."""
    if isinstance(place, str) and "://" in place:
        from .quota_url import kind_of_url

        kind = kind_of_url(place)
        if kind is not None:
            return QuotaConfig(kind, url=place)
    return QuotaConfig("sqlite", os.path.expanduser(place))


def store_for(quota: QuotaConfig) -> QuotaStore:
    """The store that a configuration names. Raises `QuotaStoreError` if it cannot be opened, `ConfigError` if its client library
    is missing, or if nothing here opens it: counts that others share are kept nowhere else."""
    if quota.store == "memory":
        return MemoryQuotaStore()
    if quota.store == "sqlite" and quota.path is not None:
        from .quota_sqlite import SQLiteQuotaStore

        return SQLiteQuotaStore(quota.path)
    from .quota_url import open_store

    return open_store(quota.store, Secret(quota.url or ""), quota.prefix, quota.adopt_empty)
