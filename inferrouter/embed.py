"""Texts to vectors: the verb that reads one batch, and the rule that all batches of a call come from one model.

Strategy: a batch is an ordinary call of the one walk; from the second batch on only the model that served the first may serve,
since vectors of different models cannot be compared. Must never know a wire format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .admission import Admission, Kit, Verb
from .answers import EmbedResponse
from .attempt import walk
from .candidates import Candidate, Situation
from .errors import MalformedResponseError
from .estimate import estimate_embed
from .records import EmbedRequest, Usage
from .roster import Plan, Slot
from .transport import WireReply
from .wire import WireRequest

__all__ = ["embed_all"]

DEFAULT_BATCH = 100


def embed_all(
    request: EmbedRequest, plan: Plan, kit: Kit, allow_paid: bool, deadline: float | None, max_wait: float
) -> EmbedResponse:
    """Every input's vector, in order. Raises what `walk` raises; vectors of earlier batches are lost with the call."""
    able = [slot for slot in plan.slots if _batch(slot) > 0]
    if able:  # else the dialect says itself that it has none
        plan = _of(plan, able)
    size = min(map(_batch, able), default=DEFAULT_BATCH)
    inputs = request.inputs
    answers: list[EmbedResponse] = []
    for start in range(0, len(inputs), size):
        batch = replace(request, inputs=inputs[start : start + size])
        answer = walk(plan, _verb(batch, allow_paid, deadline, max_wait), kit)
        answers.append(answer)
        plan = _only(plan, answer.routing.provider, answer.routing.model)
    return answers[0] if len(answers) == 1 else _joined(answers)


def _verb(request: EmbedRequest, allow_paid: bool, deadline: float | None, max_wait: float) -> Verb[EmbedResponse]:
    situation = Situation(estimate_embed(request), allow_paid)

    def encode(candidate: Candidate) -> WireRequest:
        seat = candidate.slot.seat
        return seat.provider.encode_embed(request, candidate.model, seat.endpoint)

    def run(admission: Admission, reply: WireReply) -> EmbedResponse:
        with reply:
            body = reply.read()
        found = admission.candidate
        answer = found.slot.seat.provider.decode_embed(body, found.model)
        if len(answer.embeddings) != len(request.inputs):
            raise MalformedResponseError(message=f"{len(request.inputs)} texts gave {len(answer.embeddings)} vectors")
        usage = answer.usage
        charged = usage if usage.total_tokens else Usage(situation.need.input_tokens, 0, situation.need.input_tokens)
        admission.succeed(usage, charged)
        return replace(answer, routing=admission.routing_for(charged))

    return Verb(situation, encode, run, deadline, max_wait)


def _batch(slot: Slot) -> int:
    """How many texts one call takes; 0: the provider has no embeddings."""
    size: int = getattr(slot.seat.provider, "embed_batch", DEFAULT_BATCH)
    return size


def _only(plan: Plan, provider: str, model: str) -> Plan:
    return _of(plan, [slot for slot in plan.slots if slot.model == model and slot.seat.account.provider == provider])


def _of(plan: Plan, slots: Sequence[Slot]) -> Plan:
    return Plan(plan.name, tuple(slots), tuple(dict.fromkeys(key for slot in slots for key in slot.room_keys)))


def _joined(answers: Sequence[EmbedResponse]) -> EmbedResponse:
    usages = [answer.usage for answer in answers]
    usage = Usage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.total_tokens for usage in usages),
    )
    routing = replace(answers[-1].routing, cost=sum(answer.routing.cost for answer in answers))
    vectors = tuple(vector for answer in answers for vector in answer.embeddings)
    return EmbedResponse(vectors, answers[0].model, usage, routing, tuple(text for answer in answers for text in answer.source))
