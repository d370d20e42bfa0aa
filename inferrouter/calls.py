"""The unary chat: the verb that reads one whole answer.

Strategy: everything hard is the walk's. Must never know a wire format.
"""

from __future__ import annotations

from collections.abc import Callable

from .admission import Admission, Verb
from .answers import ChatResponse
from .candidates import Candidate, Situation
from .estimate import Estimate, estimate_text
from .records import ChatRequest, Usage
from .transport import WireReply
from .wire import WireRequest

__all__ = ["chat_verb", "counted", "dropped_by", "encoder"]


def chat_verb(request: ChatRequest, situation: Situation, deadline: float | None, max_wait: float) -> Verb[ChatResponse]:
    """The verb of `Router.chat_completion`. `deadline`: monotonic seconds or None; `max_wait`: seconds."""

    def run(admission: Admission, reply: WireReply) -> ChatResponse:
        with reply:
            body = reply.read()
        found = admission.candidate
        answer = found.slot.seat.provider.decode(body, found.model)
        usage = counted(answer.usage, situation.need, answer)
        admission.succeed(answer.usage, usage)
        return answer.routed(admission.routing_for(usage))

    return Verb(situation, encoder(request, stream=False), run, deadline, max_wait, dropped_by(request))


def encoder(request: ChatRequest, stream: bool) -> Callable[[Candidate], WireRequest]:
    """How `request` is put for a candidate."""

    def encode(candidate: Candidate) -> WireRequest:
        seat = candidate.slot.seat
        return seat.provider.encode(request, candidate.model, seat.endpoint, stream)

    return encode


def dropped_by(request: ChatRequest) -> Callable[[Candidate], tuple[str, ...]]:
    """Which of the request's parameters a candidate's format leaves out."""

    def dropped(candidate: Candidate) -> tuple[str, ...]:
        return candidate.slot.seat.provider.unsupported(request, candidate.model)

    return dropped


def counted(usage: Usage | None, need: Estimate, answer: ChatResponse | None = None, produced: str = "") -> Usage:
    """`usage`, or where the provider told none an own count: the input's estimate and what the model wrote."""
    if usage is not None and (usage.total_tokens or usage.prompt_tokens or usage.completion_tokens):
        return usage
    written = produced
    if answer is not None:
        written += "".join(
            choice.message.text + choice.message.reasoning + "".join(call.arguments for call in choice.message.tool_calls)
            for choice in answer.choices
        )
    output = estimate_text(written)
    return Usage(need.input_tokens, output, need.input_tokens + output)
