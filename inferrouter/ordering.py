"""Puts candidates into the policy's order, each once, whatever a policy of the caller's own does.

Strategy: of a policy's answer counts what it was given, by identity; what it leaves out is left out, what it invents too. Must
never know what a policy goes by.
"""

from __future__ import annotations

from collections.abc import Sequence

from .assessment import Candidate
from .errors import ConfigError, Rejection
from .policy import OWN_POLICIES, Policy, sticky
from .records import ChatRequest


def ordered(policy: Policy, candidates: Sequence[Candidate], request: ChatRequest | None = None) -> list[Candidate]:
    """What `policy` makes of `candidates`, each once; what it invents is left out. Raises `ConfigError` if it fails.

    `request`: of a conversation that is kept where it is, see `policy.sticky`.
    """
    if len(candidates) < 2 and type(policy) in OWN_POLICIES:
        return list(candidates)
    queue = _selected(policy, candidates) if candidates else []
    if request is None or request.session is None or len(queue) < 2:
        return queue
    return sticky(request.session, queue, policy)


def _selected(policy: Policy, candidates: Sequence[Candidate]) -> list[Candidate]:
    if type(policy) in OWN_POLICIES:
        queue = policy.select(candidates)
        return queue if isinstance(queue, list) else list(queue)
    try:
        answer = list(policy.select(list(candidates)))
        if len(answer) == 1 and answer[0] is candidates[0]:
            return answer
        chosen = dict.fromkeys(map(id, answer))
    except Exception as exc:
        name = type(policy).__name__
        raise ConfigError(f"policy: {name}.select raised {type(exc).__name__}; mend it or use another") from exc
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
