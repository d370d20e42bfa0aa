"""Watches the sockets of calls under way: gives a call up when its client hangs up, and keeps a silent stream alive.

Strategy: one thread looks every tenth of a second, and only while there are calls, at all sockets in one poll; a socket whose
other end is shut, or that is readable without a byte to read, has been closed by its client. What happens then, and what keeps a
stream alive, are callbacks. A call that is quicker than a tick costs two dictionary operations. Must never know HTTP, nor what a
call is.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable, Iterable

from .frozen import NamedTuple

log = logging.getLogger("inferrouter.serve")
TICK_S = 0.1
"""Seconds between two looks."""
_RDHUP = getattr(select, "POLLRDHUP", 0)  # Linux tells of an end behind bytes that nobody has read yet
_LEFT = _RDHUP | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)


class Watched(NamedTuple):
    """One call. `gone`: called once when its client has hung up; `tick`: called at each look, it may write."""

    sock: socket.socket
    gone: Callable[[], None]
    tick: Callable[[], None] | None


class Watch:
    """Watches what is added. `start` begins a thread, `stop` ends it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: dict[int, Watched] = {}
        self._some = threading.Event()
        self._stopping = threading.Event()
        self._numbers = 0
        self._thread = threading.Thread(target=self._run, name="inferrouter-watch", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the thread."""
        self._stopping.set()
        self._some.set()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, sock: socket.socket, gone: Callable[[], None], tick: Callable[[], None] | None = None) -> int:
        """Watch a call; returns its number for `remove`."""
        with self._lock:
            self._numbers += 1
            self._calls[self._numbers] = Watched(sock, gone, tick)
            number = self._numbers
        if not self._some.is_set():
            self._some.set()
        return number

    def remove(self, number: int) -> None:
        """Watch it no longer. Its callbacks may be under way when this returns."""
        with self._lock:
            self._calls.pop(number, None)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._some.wait()
            if self._stopping.wait(TICK_S):
                return
            with self._lock:
                calls = dict(self._calls)
                if not calls:
                    self._some.clear()
                    continue
                left = _hung_up(calls)
                for number in left:
                    self._calls.pop(number, None)
            for number, call in calls.items():
                todo = call.gone if number in left else call.tick
                if todo is not None:
                    _carried_out(todo)


def _carried_out(todo: Callable[[], None]) -> None:
    """One call's fault (a store that cannot be reached, when its stream is settled) leaves the others watched."""
    try:
        todo()
    except Exception as exc:
        log.error("a call could not be given up: %s", type(exc).__name__)


def _hung_up(calls: dict[int, Watched]) -> set[int]:
    """Those whose client has closed its end, or whose connection broke."""
    by_file = {call.sock.fileno(): number for number, call in calls.items()}
    found = _events(file for file in by_file if file >= 0)
    return {by_file[file] for file, event in found if event & _LEFT or _at_end(calls[by_file[file]].sock)}


def _events(files: Iterable[int]) -> list[tuple[int, int]]:
    """Those of `files` that are readable, each with what the system says of it."""
    if not hasattr(select, "poll"):
        return [(file, 0) for file in select.select(list(files), [], [], 0)[0]]
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN | _RDHUP)
    return poll.poll(0)


def _at_end(sock: socket.socket) -> bool:
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, InterruptedError, TimeoutError):
        return False
    except OSError:
        return True
