"""Puts candidates into the order in which they are tried.

Strategy: a policy is any object with `select(candidates) -> sequence`; those here are sort keys, and Python's stable sort
keeps the declared order where a key sees no difference. A policy may leave candidates out, never add any. Must never
reserve, wait or call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Protocol, TypeVar

from .errors import ConfigError


class Rankable(Protocol):
    """What a policy sees of a candidate.

    `free`: whether this call would cost nothing; `share`: the remaining part (0 to 1) of its tightest limit; `price`: blended
    dollars per token, (input + 2 x output) / 3, None if not stated; `in_flight`: calls under way on its account.
    """

    @property
    def provider(self) -> str: ...
    @property
    def account_id(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def free(self) -> bool: ...
    @property
    def share(self) -> float: ...
    @property
    def price(self) -> float | None: ...
    @property
    def in_flight(self) -> int: ...


C = TypeVar("C", bound=Rankable)


class Policy(Protocol):
    """Orders candidates; what it leaves out is not tried."""

    def select(self, candidates: Sequence[C]) -> Sequence[C]:
        """The candidates to try, best first."""
        ...


class FreeFirstPolicy:
    """Free before paid; among free the largest remaining share; among paid the cheapest, unpriced last."""

    def select(self, candidates: Sequence[C]) -> Sequence[C]:
        """Sorted; ties keep the declared order."""
        free = list(filter(_is_free, candidates))
        free.sort(key=_share, reverse=True)  # which keeps the order of equals, too
        if len(free) == len(candidates):
            return free
        return [*free, *sorted([candidate for candidate in candidates if not candidate.free], key=_cost)]


class BestFirstPolicy:
    """Free before paid, in the order of the alias's models; what is full comes after what is not.

    Among accounts of one model the largest remaining share goes first; among paid models the cheapest, unpriced last.
    """

    def select(self, candidates: Sequence[C]) -> Sequence[C]:
        """Sorted by each model's first place among `candidates`, which come in declared order; ties keep that order."""
        places: dict[tuple[str, str], int] = {}
        for candidate in candidates:
            places.setdefault((candidate.provider, candidate.model), len(places))

        def rank(candidate: C) -> tuple[bool, bool, float, float]:
            if not candidate.free:
                return True, False, _cost(candidate), -candidate.share
            place = places[candidate.provider, candidate.model]
            return False, candidate.share <= 0, place, -candidate.share

        return sorted(candidates, key=rank)


class CostFirstPolicy:
    """Cheapest first: free costs nothing, unpriced comes last."""

    def select(self, candidates: Sequence[C]) -> Sequence[C]:
        """Sorted; ties keep the declared order."""
        return sorted(candidates, key=_cost)


class LeastBusyPolicy:
    """Fewest calls under way first."""

    def select(self, candidates: Sequence[C]) -> Sequence[C]:
        """Sorted; ties keep the declared order."""
        return sorted(candidates, key=_in_flight)


class DeclaredOrderPolicy:
    """As the configuration has them."""

    def select(self, candidates: Sequence[C]) -> Sequence[C]:
        """Unchanged."""
        return candidates


def own_order(policy: Policy, candidates: Sequence[C], all_free: bool) -> list[C]:
    """What `policy`, one of those here, makes of `candidates`. `all_free`: none of them may cost anything, so none is asked."""
    if all_free and type(policy) is FreeFirstPolicy:
        return sorted(candidates, key=_share, reverse=True)  # as `select` has them
    found = policy.select(candidates)
    return found if isinstance(found, list) else list(found)


def policy_named(name: str) -> Policy:
    """The policy a configuration calls `name`. Raises `ConfigError`."""
    try:
        return _POLICIES[name]()
    except KeyError:
        raise ConfigError(f"policy: {name!r} is not one of {', '.join(_POLICIES)}") from None


def sticky(session: str, queue: Sequence[C], policy: Policy) -> list[C]:
    """`queue` with those that cost the same in an order that only `session` decides, so that a conversation stays where it is.

    Rendezvous hashing: each place is hashed with the session, the highest goes first. Whoever drops out moves only the sessions
    that it served, and gets them back when it returns; nothing is remembered. Where the order itself was asked for (declared
    order, a policy of the caller's own) only the accounts of one model are equals.
    """
    by_cost = type(policy) in (FreeFirstPolicy, CostFirstPolicy, LeastBusyPolicy)
    classes: dict[tuple[object, ...], list[tuple[bytes, C]]] = {}
    for each in queue:
        cost = (True,) if each.free else (False, each.price)
        alike = cost if by_cost else (*cost, each.provider, each.model)
        classes.setdefault(alike, []).append((_rank(session, each), each))
    return [each for alike in classes.values() for _, each in sorted(alike, key=_first, reverse=True)]


def _rank(session: str, candidate: Rankable) -> bytes:
    from hashlib import blake2b

    place = "\0".join((session, candidate.provider, candidate.account_id, candidate.model))
    return blake2b(place.encode("utf-8", "replace"), digest_size=16).digest()


def _first(pair: tuple[bytes, object]) -> bytes:
    return pair[0]


_share, _is_free = attrgetter("share"), attrgetter("free")


def _cost(candidate: Rankable) -> float:
    if candidate.free:
        return 0.0
    return math.inf if candidate.price is None else candidate.price


def _in_flight(candidate: Rankable) -> int:
    return candidate.in_flight


_POLICIES: dict[str, type[FreeFirstPolicy | CostFirstPolicy | LeastBusyPolicy | DeclaredOrderPolicy | BestFirstPolicy]] = {
    "free_first": FreeFirstPolicy,
    "cost_first": CostFirstPolicy,
    "least_busy": LeastBusyPolicy,
    "declared_order": DeclaredOrderPolicy,
    "best_first": BestFirstPolicy,
}
OWN_POLICIES = frozenset(_POLICIES.values())
"""Which neither invent candidates nor raise."""
