"""Runs the simulator's HTTP server: real sockets on 127.0.0.1, kept-alive connections, chunked streams, faults on purpose.

Strategy: read a whole request, ask one function for a `ScriptedResponse`, send it exactly as told. A `Fault` names one thing that
goes wrong: another answer instead, or this one broken on its way. Open connections are known, so that stopping shuts every one
and leaves no thread and no socket behind. Must never know a dialect, a key or a limit.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Literal

from .frozen import field, frozen_value
from .simulator_prompt import Texts
from .simulator_wire import Exchange, ScriptedResponse, Wire

MAX_BODY = 64 * 1024 * 1024  # bytes
POLL_S = 0.004  # how often the acceptor looks whether it is to stop, which whoever stops it waits for


Respond = Callable[[str, str, Mapping[str, str], bytes], ScriptedResponse]


class Server(ThreadingHTTPServer):
    """Serves on `port` (0: a free one) until `stop`. `respond(method, target, headers, body)`: header names in lower case."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, respond: Respond, port: int = 0) -> None:
        self.respond = respond
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[Any, threading.Thread] = {}
        super().__init__(("127.0.0.1", port), _Handler)
        self._acceptor = threading.Thread(target=self.serve_forever, args=(POLL_S,), name="simulator", daemon=True)

    def start(self) -> None:
        """Begin to accept connections."""
        self._acceptor.start()

    def stop(self) -> None:
        """Stop accepting, close every connection, wait for their threads."""
        self.stopping.set()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)  # wakes the acceptor at once
        except OSError:
            pass  # not everywhere can a listening socket be shut; it wakes by itself there
        try:
            self.shutdown()
            self._acceptor.join()
        finally:
            self.server_close()
        with self._lock:
            left = dict(self._open)
        for connection in left:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client was faster
        for thread in left.values():
            thread.join()

    def server_bind(self) -> None:
        """Bind without asking for the host's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread that `stop` can find."""
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        with self._lock:
            self._open[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        super().shutdown_request(request)
        with self._lock:
            self._open.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not an error; anything else is shown on stderr."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:  # http.server looks it up by this name
        self._serve()

    def do_GET(self) -> None:  # and by this one
        self._serve()

    def version_string(self) -> str:
        return "stand-in"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        pass  # the simulator keeps its own log

    def _serve(self) -> None:
        length = self.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY or self.headers.get("transfer-encoding"):
            self.close_connection = True
            self._send(ScriptedResponse(411 if self.headers.get("transfer-encoding") else 413))
            return
        body = self.rfile.read(int(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._send(self.server.respond(self.command, self.path, headers, body))

    def _send(self, outgoing: ScriptedResponse) -> None:
        if self._waited(outgoing.wait) or outgoing.end == "dropped":
            self.close_connection = True
            return
        self.send_response(outgoing.status)
        for name, value in outgoing.headers.items():
            self.send_header(name, value)
        if outgoing.events is None:
            self._send_body(outgoing)
        else:
            self._send_events(outgoing, outgoing.events)

    def _send_body(self, outgoing: ScriptedResponse) -> None:
        body = outgoing.body
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if outgoing.end == "cut":
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def _send_events(self, outgoing: ScriptedResponse, events: tuple[bytes, ...]) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for place, event in enumerate(events):
            stall = outgoing.stall if place == outgoing.stall_at else 0.0
            if self._waited(outgoing.pause + stall):
                self.close_connection = True
                return
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
        if outgoing.end == "cut":
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    def _waited(self, seconds: float) -> bool:
        """Wait; True if the server is stopping."""
        return seconds > 0 and self.server.stopping.wait(seconds)


HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in to continue</h1></body></html>"
FaultKind = Literal["status", "html", "broken_json", "empty", "error_inside", "cut", "unfinished", "slow", "stall", "dropped"]


@frozen_value
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


def replacement(fault: Fault, wire: Wire, error_type: str) -> ScriptedResponse | None:
    """The answer that replaces the exchange, None if the fault needs a real answer to break."""
    if fault.kind == "dropped":
        return ScriptedResponse(end="dropped")
    if fault.kind == "html":
        return ScriptedResponse(200, {"Content-Type": "text/html; charset=utf-8"}, HTML)
    if fault.kind != "status":
        return None
    usual = wire.refusal(fault.status)
    headers = {"Content-Type": error_type, **(usual.headers if fault.body is None else {}), **fault.headers}
    body = usual.body if fault.body is None else fault.body
    status = usual.status if fault.body is None else fault.status
    return ScriptedResponse(status, headers, body.encode() if isinstance(body, str) else json_body(body, wire.indent))


def deliver(exchange: Exchange, wire: Wire, fault: Fault | None, headers: Mapping[str, str]) -> ScriptedResponse:
    """The exchange's answer, whole or with the fault in it."""
    if exchange.prompt.stream:
        return _stream(exchange, wire, fault, {"Content-Type": "text/event-stream", **headers})
    return _unary(wire.whole(exchange), wire.empty_response(exchange), wire, fault, headers)


def deliver_vectors(texts: Texts, wire: Wire, fault: Fault | None, headers: Mapping[str, str]) -> ScriptedResponse:
    """The embeddings, whole or with the fault in them."""
    return _unary(wire.vectors(texts), {}, wire, fault, headers)


def json_body(value: Any, indent: int | None) -> bytes:
    """`value` as a JSON body."""
    return json.dumps(value, ensure_ascii=False, indent=indent).encode("utf-8", "replace")


def _unary(value: Any, empty_response: Any, wire: Wire, fault: Fault | None, headers: Mapping[str, str]) -> ScriptedResponse:
    kind = fault.kind if fault else ""
    said = {"empty": empty_response, "error_inside": wire.refusal(503).body}.get(kind, value)
    body = json_body(said, wire.indent)
    if kind == "broken_json":
        body = body[: len(body) // 2]
    end: Literal["cut", "whole"] = "cut" if kind in ("cut", "unfinished") else "whole"
    return ScriptedResponse(200, {"Content-Type": "application/json", **headers}, body, end=end, wait=_wait(fault))


def _stream(exchange: Exchange, wire: Wire, fault: Fault | None, headers: dict[str, str]) -> ScriptedResponse:
    content, ending = wire.stream(exchange)
    if fault is None or fault.kind == "slow":
        return ScriptedResponse(200, headers, events=(*content, *ending), wait=_wait(fault))
    first = content[: fault.after]
    broken: dict[str, list[bytes]] = {
        "empty": [],
        "unfinished": content,
        "cut": first,
        "broken_json": [*first, b'data: {"id": "br\n\n', *content[fault.after :], *ending],
        "error_inside": [*first, wire.error_event()],
        "stall": [*content, *ending],
    }
    return ScriptedResponse(
        200,
        headers,
        events=tuple(broken[fault.kind]),
        end="cut" if fault.kind == "cut" else "whole",
        stall_at=fault.after,
        stall=fault.seconds if fault.kind == "stall" else 0.0,
    )


def _wait(fault: Fault | None) -> float:
    return fault.seconds if fault and fault.kind == "slow" else 0.0
