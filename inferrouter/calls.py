"""Runs the calls that end with one whole answer: the chat, and the embedding of texts in batches.

Strategy: each is an `Operation` that the walk carries out; here is only how its answer is read. A batch of texts is a walk of its
own; from the second batch on only the model that served the first may serve, since vectors of different models cannot be
compared. Must never know a wire format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .assessment import CallNeeds
from .attempt import LiveAttempt, Operation, Runtime
from .catalog import offer
from .config import Config
from .costs import Estimate, estimate_embed, estimate_text, total_usage
from .errors import InvalidRequestError, MalformedResponseError
from .frozen import replace
from .records import EmbedRequest, Usage
from .routes import Deployment, Route, route_over
from .transport import WireReply
from .walk import walk

if TYPE_CHECKING:
    from .call_events import CallTrace
    from .responses import ChatResponse, EmbedResponse
    from .waiting import Cancel


def read_chat(attempt: LiveAttempt, reply: WireReply) -> ChatResponse:
    """The whole answer of `Router.chat_completion`, charged to its attempt."""
    try:
        body = reply.read()
    finally:
        reply.close()
    operation, found = attempt.operation, attempt.candidate
    answer = found.deployment.bound.provider.decode(body, found.model)
    usage = answer.usage
    if not usage.total_tokens:
        usage = usage_of(answer, operation.needs.estimate)
    form = operation.request.response_format  # type: ignore[union-attr]  # a chat's
    answer = answer.routed(attempt.routing_for(usage), usage, None if form is None else getattr(form, "shape", None))
    attempt.succeed(usage, answer)
    return answer


def usage_of(answer: ChatResponse, estimate: Estimate) -> Usage:
    """What `answer` says it used, or where it says nothing an own count: the input's estimate and what the model wrote."""
    usage = answer.usage
    if usage.total_tokens or usage.prompt_tokens or usage.completion_tokens:
        return usage
    output = estimate_text(
        "".join(
            choice.message.text + choice.message.reasoning + "".join(call.arguments for call in choice.message.tool_calls)
            for choice in answer.choices
        )
    )
    return estimated(estimate.input_tokens, output)


def estimated(prompt: int, completion: int) -> Usage:
    """An own count, in tokens."""
    return Usage(prompt, completion, prompt + completion, estimated=True)


DEFAULT_BATCH = 100
EMBED_ALIAS = "embed"
"""The alias of an embedding that names no model, where there is one."""


def embedding_name(config: Config, route_of: Callable[[str], Route]) -> str:
    """What an embedding that names no model asks for: the alias "embed", else the default model.

    Raises `InvalidRequestError` where the catalog knows that no model behind the default makes vectors.
    """
    name = config.default_model
    if any(mapping.alias == EMBED_ALIAS for mapping in config.models):
        return EMBED_ALIAS
    if name and all(_only_chats(deployment) for deployment in route_of(name).deployments):
        raise InvalidRequestError(
            message=f"the request names no model, and the default model {name!r} makes no vectors: name one that does, or make "
            f'an alias "{EMBED_ALIAS}" of such models'
        )
    return name


def embed_all(
    request: EmbedRequest,
    route: Route,
    runtime: Runtime,
    allow_paid: bool,
    deadline: float | None,
    max_wait: float,
    trace: CallTrace | None = None,
    cancel: Cancel | None = None,
) -> EmbedResponse:
    """Every input's vector, in order. Raises what `walk` raises; vectors of earlier batches are lost with the call."""
    able = [deployment for deployment in route.deployments if _batch(deployment) > 0]
    able = [deployment for deployment in able if not _only_chats(deployment)] or able
    if able:  # else the dialect says itself that it has none
        route = route_over(route.name, able)
    size = min(map(_batch, able), default=DEFAULT_BATCH)
    inputs = request.inputs
    answers: list[EmbedResponse] = []
    waits: list[float] = []
    for start in range(0, len(inputs), size):
        batch = replace(request, inputs=inputs[start : start + size])
        operation = embed_operation(batch, allow_paid, deadline, max(max_wait - sum(waits), 0.0), trace, cancel, waits)
        answer = walk(route, operation, runtime)
        answers.append(answer)
        route = _only(route, answer.routing.provider, answer.routing.model)
    if trace is not None:
        trace.ends()
    return answers[0] if len(answers) == 1 else _joined(answers)


def embed_operation(
    request: EmbedRequest,
    allow_paid: bool,
    deadline: float | None,
    max_wait: float,
    trace: CallTrace | None = None,
    cancel: Cancel | None = None,
    waits: list[float] | None = None,
) -> Operation[EmbedResponse]:
    """The operation of one batch of `Router.embed`. `deadline`: monotonic seconds or None; `max_wait`: seconds."""
    needs = CallNeeds(estimate_embed(request), allow_paid)

    def read(attempt: LiveAttempt, reply: WireReply) -> EmbedResponse:
        try:
            body = reply.read()
        finally:
            reply.close()
        found = attempt.candidate
        answer = found.deployment.bound.provider.decode_embed(body, found.model)
        if len(answer.embeddings) != len(request.inputs):
            raise MalformedResponseError(message=f"{len(request.inputs)} texts gave {len(answer.embeddings)} vectors")
        usage = answer.usage if answer.usage.total_tokens else estimated(needs.estimate.input_tokens, 0)
        answer = replace(answer, usage=usage, routing=attempt.routing_for(usage))
        attempt.succeed(usage, answer)
        return answer

    return Operation(request, needs, read, deadline, max_wait, False, trace, cancel, waits)


def _batch(deployment: Deployment) -> int:
    """How many texts one call takes; 0: the provider has no embeddings."""
    size: int = getattr(deployment.bound.provider, "embed_batch", DEFAULT_BATCH)
    return size


def _only_chats(deployment: Deployment) -> bool:
    """Whether the catalog knows the model, and knows that it makes no vectors."""
    found = offer(deployment.bound.account.provider, deployment.model)
    return found is not None and not found.embeds


def _only(route: Route, provider: str, model: str) -> Route:
    return route_over(
        route.name,
        [
            deployment
            for deployment in route.deployments
            if deployment.model == model and deployment.bound.account.provider == provider
        ],
    )


def _joined(answers: Sequence[EmbedResponse]) -> EmbedResponse:
    from .responses import EmbedResponse

    usage = total_usage([answer.usage for answer in answers])
    routing = replace(answers[-1].routing, cost=sum(answer.routing.cost for answer in answers))
    vectors = tuple(vector for answer in answers for vector in answer.embeddings)
    return EmbedResponse(vectors, answers[0].model, usage, routing, tuple(text for answer in answers for text in answer.source))
