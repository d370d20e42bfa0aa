"""Describes how connections to providers are made and kept: whom they trust, how long and how many, how much they carry.

Strategy: a frozen value that accepts anything; `transport_problems` says everything that is wrong with one, so that it is listed
with a configuration's other faults. Must never open a file or a connection, nor load `ssl`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .frozen import field, frozen_value
from .validation import check_number, describe_type

if TYPE_CHECKING:
    from ssl import SSLContext
else:  # for `typing.get_type_hints`
    SSLContext = Any


@frozen_value
class TransportConfig:
    """How connections are made and kept.

    `ssl_context`: an `ssl.SSLContext` that verifies servers by its own rules, for this router alone (the router puts its kind of
    socket into it); None: the system's roots and TLS 1.2 or newer. `ca_file`: a PEM file of certificates to trust besides the
    system's, as a company's proxy or a server of one's own needs; None: no others. `idle_timeout`: seconds a kept connection may
    wait for its next use. `max_connections`: idle connections kept for one key at one server at most; 0: none is kept.
    `stream_limit`: bytes of one streamed answer at most.
    """

    ssl_context: SSLContext | None = field(default=None, repr=False)
    ca_file: str | os.PathLike[str] | None = None
    idle_timeout: float = 60.0
    max_connections: int = 32
    stream_limit: int = 64 << 20


def transport_problems(config: object) -> Iterator[tuple[str, str | None]]:
    """What is wrong with `config`, as setting and problem; a problem of None is not one."""
    if not isinstance(config, TransportConfig):
        yield "transport", f"must be a TransportConfig, not {describe_type(config)}"
        return
    yield "transport.ssl_context", _context_problem(config)
    yield "transport.ca_file", None if config.ca_file is None else _file_problem(config.ca_file)
    yield "transport.idle_timeout", check_number(config.idle_timeout, most=31_536_000)
    yield "transport.max_connections", check_number(config.max_connections, most=10_000, whole=True)
    yield "transport.stream_limit", check_number(config.stream_limit, least=1, most=1 << 40, whole=True)


def _file_problem(path: object) -> str | None:
    if not isinstance(path, (str, bytes, os.PathLike)):
        return f"must be the path of a file, not {describe_type(path)}"
    name = os.fsdecode(path)
    return "names no file" if not name or "\0" in name else None


def _context_problem(config: TransportConfig) -> str | None:
    context = config.ssl_context
    if context is None:
        return None
    if not (hasattr(context, "wrap_socket") and hasattr(context, "verify_mode")):
        return f"must be an ssl.SSLContext, not {describe_type(context)}"
    if config.ca_file is not None:
        return "cannot be combined with ca_file: give one of the two, or call load_verify_locations(ca_file) on the context"
    return None
