"""Puts candidates into the policy's order, each once, whatever a policy of the caller's own does.

Strategy: of a policy's answer counts what it was given, by identity; what it leaves out is left out, what it invents too. Must
never know what a policy goes by.
"""

from __future__ import annotations

from collections.abc import Sequence

from .assessment import CallNeeds, Candidate
from .errors import ConfigError, Rejection
from .policy import OWN_POLICIES, Policy, own_order, sticky


def ordered(policy: Policy, candidates: Sequence[Candidate], needs: CallNeeds) -> list[Candidate]:
    """What `policy` makes of `candidates`, each once; what it invents is left out. Raises `ConfigError` if it fails.

    `needs`: of their call; a conversation that it belongs to is kept where it is, see `policy.sticky`.
    """
    if type(policy) not in OWN_POLICIES:
        queue = _selected(policy, candidates) if candidates else []
    elif len(candidates) < 2:
        return list(candidates)
    else:
        queue = own_order(policy, candidates, all_free=not needs.allow_paid)
    request = needs.request
    if request is None or request.session is None or len(queue) < 2:
        return queue
    return sticky(request.session, queue, policy)


def _selected(policy: Policy, candidates: Sequence[Candidate]) -> list[Candidate]:
    try:
        answer = list(policy.select(list(candidates)))
        if len(answer) == 1 and answer[0] is candidates[0]:
            return answer
        chosen = dict.fromkeys(map(id, answer))
    except Exception as exc:
        name = type(policy).__name__
        raise ConfigError(f"policy: {name}.select raised {type(exc).__name__}; fix it or use another") from exc
    known = {id(candidate): candidate for candidate in candidates}
    return [known[place] for place in chosen if place in known]


def left_out(candidates: Sequence[Candidate], queue: Sequence[Candidate]) -> list[Rejection]:
    """A rejection for each of `candidates` that the policy did not put into `queue`."""
    if len(queue) == len(candidates):
        return []
    return [
        Rejection(each.provider, each.account_id, each.model, "left out by the policy", None, "policy")
        for each in candidates
        if each not in queue
    ]
