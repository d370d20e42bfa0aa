"""Lets a whole provider rest when it is out, so that one call does not burn through the quota of every account there.

Strategy: a failure that says the server is not there or not serving, at two accounts within a minute, is an outage of that
server, not of the accounts. It rests for a short time; then one call is let through as a probe, and the next one only after
another rest. Any answer ends it. A model that is overloaded rests likewise: at once for the account that was told so, for all of
them after two. Each step is one operation of a dict, so that no lock is held and nobody waits. Times are monotonic seconds,
passed in. Must never know why a call failed, nor who waits.
"""

from __future__ import annotations

import math

PROVIDER_OUT = "the provider is out"
"""The reason of a hold of a whole provider, as it is shown."""
ACCOUNTS = 2
"""How many accounts of one server must fail to make an outage."""
WITHIN_S = 60.0
"""Seconds between the first and the last of those failures."""
REST_S = 15.0
"""Seconds a server that is out is left alone before each probe."""
OVERLOAD_S = (5.0, 300.0)
"""Seconds an overloaded model rests at an account: at first, and at most after rests that each doubled."""
FORGET_S = 600.0
"""Seconds after a rest from which on the next one is a first one again."""


def places_of(server: str, account_id: str, model: str) -> tuple[str, str, str]:
    """What may be out where a deployment is concerned, narrowest first: the model there, the model anywhere, the server."""
    return f"{account_id}|{model}", f"{server}|{model}", server


class Outages:
    """Which servers are out. A server is named by a key, mostly of its provider and address; a model there: see `places_of`.

    `out`: what is out, or on probation, and until when: while it is empty nobody need ask. `suspects`: what failed since it
    answered last, with the accounts and moments: while it is empty no answer need be told. Both are to be looked at alone.
    """

    def __init__(self) -> None:
        self.out: dict[str, float] = {}
        self.suspects: dict[str, dict[str, float]] = {}
        self._probes: dict[tuple[str, float], object] = {}
        self._overloads: dict[str, tuple[int, float]] = {}

    def failed(self, server: str, account_id: str, now: float) -> float | None:
        """An account failed as if the server were out. Seconds of rest if that makes, or prolongs, an outage; else None."""
        failures = self.suspects.setdefault(server, {})
        failures[account_id] = now
        recent = [moment for moment in list(failures.values()) if now - moment <= WITHIN_S]
        if len(recent) < ACCOUNTS and server not in self.out:
            return None
        self.out[server] = now + REST_S
        return REST_S

    def overloaded(self, places: tuple[str, str, str], account_id: str, now: float, asked: float | None = None) -> float:
        """The model at `places` was too busy for an account. Seconds it rests there: `asked`, or longer each time in a row."""
        own, anywhere, _ = places
        self.failed(anywhere, account_id, now)
        self.suspects.setdefault(own, {})[account_id] = now
        times, until = self._overloads.get(own, (0, -math.inf))
        if now >= until:  # else it was under way with the one that was told first
            least, most = OVERLOAD_S
            times = 0 if now - until > FORGET_S else times
            until = now + (asked or min(least * 2.0 ** min(times, 20), most))
            self._overloads[own] = times + 1, until
        self.out[own] = until
        return until - now

    def answered(self, *servers: str) -> bool:
        """Each of `servers` answered: it is not out. Whether one was."""
        for server in servers:
            self.suspects.pop(server, None)
            self._overloads.pop(server, None)
        return [self.out.pop(server, None) for server in servers] != [None] * len(servers)

    def wait(self, server: str, now: float) -> float:
        """Seconds until a call may be let through, 0: now."""
        return max(self.out.get(server, now) - now, 0.0)

    def not_asked(self, places: tuple[str, str, str], now: float) -> None:
        """The call that was let through at `places` was not made after all: another one may be the probe."""
        for place in places:
            if place in self.out:
                self._probes.pop((place, now), None)  # where the clock has not moved since
                self.out[place] = now

    def rests(self, places: tuple[str, str, str], now: float) -> float:
        """Seconds until a call may be let through at `places`, 0: now."""
        until = self.out
        return max(max([until.get(place, now) for place in places]) - now, 0.0)

    def places(self) -> list[str]:
        """All that is out, or on probation."""
        return list(self.out)

    def enter(self, server: str, now: float) -> bool:
        """Whether a call may go there: always while it is not out, never while it rests, then one of them as the probe."""
        until = self.out.get(server)
        if until is None:
            return True
        if now < until:
            return False
        probe = object()
        if self._probes.setdefault((server, until), probe) is not probe:
            return False
        if self.out.get(server) == until:  # or the outage is over already
            self.out[server] = now + REST_S
        for passed in [place for place in list(self._probes) if place[0] == server and place[1] < until]:
            self._probes.pop(passed, None)  # not this one: others may still be about to claim it
        return True
