"""Lets a whole provider rest when it is out, so that one call does not burn through the quota of every account there.

Strategy: a failure that says the server is not there or not serving, at two accounts within a minute, is an outage of that
server, not of the accounts. It rests for a short time; then one call is let through as a probe, and the next one only after
another rest. Any answer ends it. Each step is one operation of a dict, so that no lock is held and nobody waits. Times are
monotonic seconds, passed in. Must never know why a call failed, nor who waits.
"""

from __future__ import annotations

ACCOUNTS = 2
"""At so many accounts of one server a failure makes an outage."""
WITHIN_S = 60.0
"""Seconds between the first and the last of those failures."""
REST_S = 15.0
"""Seconds a server that is out is left alone before each probe."""


class Outages:
    """Which servers are out. A server is named by a key, mostly of its provider and address."""

    def __init__(self) -> None:
        self._failed: dict[str, dict[str, float]] = {}
        self._until: dict[str, float] = {}
        self._probes: dict[tuple[str, float], object] = {}

    def __bool__(self) -> bool:
        """Whether any server is out, or on probation: without that nobody need ask."""
        return bool(self._until)

    @property
    def suspects(self) -> bool:
        """Whether any server failed since it answered last: without that no answer need be told."""
        return bool(self._failed)

    def failed(self, server: str, account_id: str, now: float) -> float | None:
        """An account failed as if the server were out. Seconds of rest if that makes, or prolongs, an outage; else None."""
        failures = self._failed.setdefault(server, {})
        failures[account_id] = now
        recent = [moment for moment in list(failures.values()) if now - moment <= WITHIN_S]
        if len(recent) < ACCOUNTS and server not in self._until:
            return None
        self._until[server] = now + REST_S
        return REST_S

    def answered(self, server: str) -> bool:
        """The server answered: it is not out. Whether it was."""
        self._failed.pop(server, None)
        return self._until.pop(server, None) is not None

    def wait(self, server: str, now: float) -> float:
        """Seconds until a call may be let through, 0: now."""
        return max(self._until.get(server, now) - now, 0.0)

    def enter(self, server: str, now: float) -> bool:
        """Whether a call may go there: always while it is not out, never while it rests, then one of them as the probe."""
        until = self._until.get(server)
        if until is None:
            return True
        if now < until:
            return False
        probe = object()
        if self._probes.setdefault((server, until), probe) is not probe:
            return False
        if self._until.get(server) == until:  # or the outage is over by now
            self._until[server] = now + REST_S
        for passed in [place for place in list(self._probes) if place[0] == server and place[1] < until]:
            self._probes.pop(passed, None)  # not this one: others may still be about to claim it
        return True
