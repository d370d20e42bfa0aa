"""Says which process listens on a port of this machine, so that "port taken" can be answered with a name.

Strategy: Linux shows listening sockets in /proc/net/tcp and every process's files in /proc; elsewhere, and for the processes of
others, nothing is known and nothing is said. Must never raise: it only makes an error clearer.
"""

from __future__ import annotations

import os

LISTENING = "0A"


def listener_of(port: int) -> str:
    """ "process 123 (python3)" for who listens on `port`, "" where that cannot be told."""
    try:
        inodes = set().union(*(_inodes(table, port) for table in ("/proc/net/tcp", "/proc/net/tcp6")))
        for entry in os.listdir("/proc") if inodes else ():
            if entry.isdigit() and _holds(entry, inodes):
                with open(f"/proc/{entry}/comm", encoding="utf-8", errors="replace") as file:
                    return f"process {entry} ({file.read().strip()})"
    except OSError:
        pass
    return ""


def _inodes(table: str, port: int) -> set[str]:
    found: set[str] = set()
    try:
        with open(table, encoding="ascii", errors="replace") as file:
            rows = [line.split() for line in file.readlines()[1:]]
    except OSError:
        return found
    for row in rows:
        if len(row) > 9 and row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port:
            found.add(f"socket:[{row[9]}]")
    return found


def _holds(process: str, inodes: set[str]) -> bool:
    folder = f"/proc/{process}/fd"
    try:
        return any(os.readlink(f"{folder}/{name}") in inodes for name in os.listdir(folder))
    except OSError:
        return False
