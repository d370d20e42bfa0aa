"""Private servers for the tests of the network stores: Redis, PostgreSQL, pgbouncer, each on its own port and folder.

They run only where INFERROUTER_SERVERS is set, as `.ci/servers` does: then what is missing is a failure, not a skip. Elsewhere
every test that needs one is skipped, saying so. A `Proxy` stands between a client and a server: it delays, cuts and swallows.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WANTED = bool(os.environ.get("INFERROUTER_SERVERS"))
POSTGRES = Path(os.environ.get("INFERROUTER_POSTGRES", "/usr/lib/postgresql/15/bin"))
needs_servers = unittest.skipUnless(WANTED, "needs a Redis and a PostgreSQL server of its own; run .ci/servers")


def has(package: str) -> bool:
    """Whether a client library is installed; where servers are wanted, a missing one is found out by its import."""
    return importlib.util.find_spec(package) is not None


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(ready: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Polls `ready`; an AssertionError that names `what` once `seconds` have passed."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {seconds} seconds")
        time.sleep(0.02)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Server:
    """A server process in a folder of its own. `kill` is SIGKILL; `start` after it finds what it had written."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="quota-server-"))
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        return listens(self.port)

    def user(self) -> str | None:
        """Another user to run as, None: this one."""
        return None

    def start(self) -> None:
        """Starts it, again where what was killed has not quite gone."""
        for _ in range(20):
            self._start_once()
            if self.process is not None and self.process.poll() is None:
                return
            time.sleep(0.1)
        raise AssertionError(f"{self.command()[0]} ends at once: {(self.folder / 'log').read_text()[-2000:]}")

    def _start_once(self) -> None:
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.user(),
                group=self.user(),
            )
        try:
            wait_until(self._ready_or_over, f"the start of {self.command()[0]}")
        except AssertionError as exc:
            raise AssertionError(f"{exc}: {(self.folder / 'log').read_text()[-2000:]}") from None

    def _ready_or_over(self) -> bool:
        return self.ready() or (self.process is not None and self.process.poll() is not None)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class RedisServer(Server):
    """A redis-server. By default it keeps everything in an append-only file, synced at every write."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self.options = options or ("--appendonly", "yes", "--appendfsync", "always")
        while "--cluster-enabled" in options and self.port > 55_535:  # the nodes' own port is 10,000 higher
            self.port = free_port() - 20_000

    def command(self) -> list[str]:
        fixed = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(self.folder),
            "--loglevel",
            "warning",
        ]
        return ["redis-server", *fixed, *self.options]

    def ready(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


class PostgresServer(Server):
    """A PostgreSQL server; as the server refuses to run as root, it runs as the user `postgres` then."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self.options = options
        data = self.folder / "data"
        if self.user():
            shutil.chown(self.folder, self.user())
        done = subprocess.run(
            [str(POSTGRES / "initdb"), "-D", str(data), "-U", "quota", "-A", "trust", "-E", "UTF8", "--no-sync"],
            cwd=self.folder, user=self.user(), group=self.user(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise AssertionError(done.stderr)

    def user(self) -> str | None:
        if os.getuid() != 0:
            return None
        return "postgres"

    def command(self) -> list[str]:
        fixed = ["-D", str(self.folder / "data"), "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        return [str(POSTGRES / "postgres"), *fixed, "-k", str(self.folder), "-c", "max_connections=200", *self.options]

    def ready(self) -> bool:
        probe = [str(POSTGRES / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "quota", "-d", "postgres"]
        return subprocess.run(probe, check=False).returncode == 0

    def kill(self) -> None:
        """SIGKILL for the postmaster and its children, as a machine's crash would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)  # it shall make no more of them
            listed = subprocess.run(
                ["ps", "-o", "pid=", "--ppid", str(self.process.pid)], capture_output=True, text=True, check=False
            )
            self.process.kill()
            for pid in listed.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            self.process.wait()
            self.process = None
            (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    @property
    def dsn(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=quota dbname=postgres"


class PgBouncer(Server):
    """pgbouncer in transaction mode, before a PostgreSQL server."""

    def __init__(self, server: PostgresServer) -> None:
        super().__init__()
        if self.user():
            shutil.chown(self.folder, self.user())
        (self.folder / "users.txt").write_text('"quota" ""\n')
        (self.folder / "bouncer.ini").write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={server.port} dbname=postgres user=quota\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nauth_type = any\nauth_file = {self.folder}/users.txt\n"
            "pool_mode = transaction\ndefault_pool_size = 4\nunix_socket_dir =\n"
        )
        (self.folder / "log").touch()

    def user(self) -> str | None:
        return "postgres" if os.getuid() == 0 else None

    def command(self) -> list[str]:
        return ["pgbouncer", str(self.folder / "bouncer.ini")]

    @property
    def dsn(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=quota dbname=postgres"


class Proxy:
    """Forwards TCP to a port of 127.0.0.1. `delay`: seconds added each way. `requests`: how often a client spoke.

    `cut_replies`: that many replies are swallowed and their connection cut, after the server has done its work.
    `cut_requests`: that many requests are swallowed and their connection cut. `silent`: nothing passes, nothing is cut.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.delay = 0.0
        self.requests = 0
        self.cut_replies = 0
        self.cut_requests = 0
        self.silent = False
        self.refusing = False
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._socket.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cuts every connection there is."""
        with self._lock:
            for each in list(self._open):
                self._shut(each)

    def close(self) -> None:
        self._shut(self._socket)
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            if self.refusing:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(each)
            threading.Thread(target=self._forward, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._forward, args=(server, client, False), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := source.recv(1 << 18):
                if asks:
                    self.requests += 1
                if self.delay:
                    time.sleep(self.delay)
                while self.silent and self._socket.fileno() >= 0:
                    time.sleep(0.01)
                if self._taken("cut_requests" if asks else "cut_replies"):
                    break
                sink.sendall(data)
        for each in (source, sink):
            self._shut(each)

    def _taken(self, counter: str) -> bool:
        with self._lock:
            left = getattr(self, counter)
            if left:
                setattr(self, counter, left - 1)
            return bool(left)

    def _shut(self, each: socket.socket) -> None:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        self._open.discard(each)
        each.close()


@contextlib.contextmanager
def running(server: Any) -> Iterator[Any]:
    """`server`, started, and gone afterwards."""
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def far_away(port: int, delay: float) -> Iterator[int]:
    """The port of a relay in a process of its own, which adds `delay` seconds each way and takes nothing of this one's time."""
    command = [sys.executable, "-m", "tests.quota_servers", str(port), str(delay)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def relay(port: int, delay: float) -> None:
    """Passes on what arrives `delay` seconds later, in one thread, until standard input ends: threads would wait for each other,
    and a sleep takes 60 us longer than asked by default, which is no part of the way."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK, in nanoseconds
    door = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(door.getsockname()[1], flush=True)
    others: dict[socket.socket, socket.socket] = {}
    due: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        while due and due[0][0] <= time.monotonic():
            _, sink, data = due.popleft()
            with contextlib.suppress(OSError):
                sink.sendall(data)
        wait = max(0.0, due[0][0] - time.monotonic()) if due else None
        readable, _, _ = select.select([door, sys.stdin, *others], (), (), wait)
        for source in readable:
            if source is sys.stdin:
                return
            if source is door:
                ends = door.accept()[0], socket.create_connection(("127.0.0.1", port))
                for end, other in (ends, ends[::-1]):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    others[end] = other
                continue
            data = b""
            with contextlib.suppress(OSError):
                data = source.recv(1 << 18)
            if data:
                due.append((time.monotonic() + delay, others[source], data))
                continue
            for end in (source, others.get(source)):
                if end is not None and others.pop(end, None) is not None:
                    end.close()


if __name__ == "__main__":
    relay(int(sys.argv[1]), float(sys.argv[2]))
