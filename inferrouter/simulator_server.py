"""The simulator's HTTP server: real sockets on 127.0.0.1, kept-alive connections, chunked streams, faults on purpose.

Strategy: read a whole request, ask one function for an `Outgoing`, send it exactly as told, broken where it says so.
Open connections are known, so that stopping shuts every one and leaves no thread and no socket behind.
Must never know a dialect, a key or a limit.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from .simulator_wire import Outgoing

__all__ = ["Server"]

MAX_BODY = 64 * 1024 * 1024  # bytes


Respond = Callable[[str, str, Mapping[str, str], bytes], Outgoing]


class Server(ThreadingHTTPServer):
    """Serves until `stop`. `respond(method, target, headers, body)`: header names arrive in lower case."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[Any, threading.Thread] = {}
        super().__init__(("127.0.0.1", 0), _Handler)
        self._acceptor = threading.Thread(target=self.serve_forever, args=(0.02,), name="simulator", daemon=True)

    def start(self) -> None:
        """Begin to accept connections."""
        self._acceptor.start()

    def stop(self) -> None:
        """Stop accepting, close every connection, wait for their threads."""
        self.stopping.set()
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
        """A client that went away is no error; anything else is told on stderr."""
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
            self._send(Outgoing(411 if self.headers.get("transfer-encoding") else 413))
            return
        body = self.rfile.read(int(length))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._send(self.server.respond(self.command, self.path, headers, body))

    def _send(self, outgoing: Outgoing) -> None:
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

    def _send_body(self, outgoing: Outgoing) -> None:
        body = outgoing.body
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if outgoing.end == "cut":
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def _send_events(self, outgoing: Outgoing, events: tuple[bytes, ...]) -> None:
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
