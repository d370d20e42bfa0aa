"""How an answer of the simulator reaches the wire, whole or broken on purpose.

Strategy: a `Fault` names one thing that goes wrong; `instead` is the answer that replaces an exchange, `deliver` is an
exchange with whatever the fault does to it. Must never know sockets, keys or limits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .simulator_prompt import Texts
from .simulator_wire import Exchange, Outgoing, Wire

__all__ = ["Fault", "deliver", "deliver_vectors", "instead", "json_body"]

HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in to continue</h1></body></html>"
FaultKind = Literal[
    "status", "html", "broken_json", "empty", "error_inside", "cut", "unfinished", "slow", "stall", "dropped"
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, once.

    - status: answer `status` with `body` (a string, or anything JSON; None is the provider's own) and `headers`
    - html: a 200 that is a web page; broken_json: a 200 whose JSON breaks off; empty: a 200 without any answer
    - error_inside: an error object in a 200, in a stream after `after` events
    - cut: the connection closes in mid-body, in a stream after `after` events
    - unfinished: a stream that ends cleanly without its terminal marker (a unary answer is cut)
    - slow: `seconds` before the first byte; stall: `seconds` of silence after `after` events of a stream
    - dropped: the connection closes without a byte

    Status, html and dropped are not charged to the key. `key`: the place of the only key it is for, None for any.
    """

    kind: FaultKind = "status"
    status: int = 503
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int = 2
    seconds: float = 1.0
    key: int | None = None


def instead(fault: Fault, wire: Wire, error_type: str) -> Outgoing | None:
    """The answer that replaces the exchange, None if the fault needs a real answer to break."""
    if fault.kind == "dropped":
        return Outgoing(end="dropped")
    if fault.kind == "html":
        return Outgoing(200, {"Content-Type": "text/html; charset=utf-8"}, HTML)
    if fault.kind != "status":
        return None
    usual = wire.refusal(fault.status)
    headers = {"Content-Type": error_type, **(usual.headers if fault.body is None else {}), **fault.headers}
    body = usual.body if fault.body is None else fault.body
    status = usual.status if fault.body is None else fault.status
    return Outgoing(status, headers, body.encode() if isinstance(body, str) else json_body(body, wire.indent))


def deliver(exchange: Exchange, wire: Wire, fault: Fault | None, headers: Mapping[str, str]) -> Outgoing:
    """The exchange's answer, whole or with the fault in it."""
    if exchange.prompt.stream:
        return _stream(exchange, wire, fault, {"Content-Type": "text/event-stream", **headers})
    return _unary(wire.whole(exchange), wire.hollow(exchange), wire, fault, headers)


def deliver_vectors(texts: Texts, wire: Wire, fault: Fault | None, headers: Mapping[str, str]) -> Outgoing:
    """The embeddings, whole or with the fault in them."""
    return _unary(wire.vectors(texts), {}, wire, fault, headers)


def json_body(value: Any, indent: int | None) -> bytes:
    """`value` as a JSON body."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode()


def _unary(value: Any, hollow: Any, wire: Wire, fault: Fault | None, headers: Mapping[str, str]) -> Outgoing:
    kind = fault.kind if fault else ""
    said = {"empty": hollow, "error_inside": wire.refusal(503).body}.get(kind, value)
    body = json_body(said, wire.indent)
    if kind == "broken_json":
        body = body[: len(body) // 2]
    end: Literal["cut", "whole"] = "cut" if kind in ("cut", "unfinished") else "whole"
    return Outgoing(200, {"Content-Type": "application/json", **headers}, body, end=end, wait=_wait(fault))


def _stream(exchange: Exchange, wire: Wire, fault: Fault | None, headers: dict[str, str]) -> Outgoing:
    content, ending = wire.stream(exchange)
    if fault is None or fault.kind == "slow":
        return Outgoing(200, headers, events=(*content, *ending), wait=_wait(fault))
    first = content[: fault.after]
    broken: dict[str, list[bytes]] = {
        "empty": [],
        "unfinished": content,
        "cut": first,
        "broken_json": [*first, b'data: {"id": "br\n\n', *content[fault.after :], *ending],
        "error_inside": [*first, wire.error_event()],
        "stall": [*content, *ending],
    }
    return Outgoing(
        200,
        headers,
        events=tuple(broken[fault.kind]),
        end="cut" if fault.kind == "cut" else "whole",
        stall_at=fault.after,
        stall=fault.seconds if fault.kind == "stall" else 0.0,
    )


def _wait(fault: Fault | None) -> float:
    return fault.seconds if fault and fault.kind == "slow" else 0.0
