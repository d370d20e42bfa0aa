"""Estimates how many tokens a call may need, before anybody has counted them.

Strategy: a rough count that errs on the high side (about 3.5 ASCII characters or one other character a token, fixed
sizes for media), since the reservation is corrected by the real usage afterwards. Must never know a provider.
"""

from __future__ import annotations

import json

from .content import Part
from .errors import InvalidRequestError
from .frozen import frozen_value
from .records import ChatRequest, EmbedRequest, Message

DEFAULT_OUTPUT_TOKENS = 1024
"""Tokens reserved for an answer whose `max_tokens` is not given."""

TOKENS_PER_MESSAGE = 4
IMAGE_TOKENS = 1100  # a high-detail picture at OpenAI; Gemini counts 258 a tile
UNSEEN_TOKENS = 5000  # audio, video or a document behind a URL, whose size nobody knows
BYTES_PER_TOKEN = {"audio": 500, "video": 1000, "document": 200}


@frozen_value
class Estimate:
    """Tokens: what goes in, and what may come out at most."""

    input_tokens: int
    output_tokens: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.input_tokens + self.output_tokens


def estimate_chat(request: ChatRequest) -> Estimate:
    """Input tokens by size, output tokens by `max_tokens` or the default, times `extra["n"]`. Raises `InvalidRequestError`."""
    count = 3
    for message in request.messages:
        if isinstance(message, Message):
            count += _message_tokens(message)
    if request.tools:
        count += sum(_json_tokens(tool.to_dict(), f"tool {tool.name!r}") for tool in request.tools)
    if request.response_format is not None:
        count += _json_tokens(request.response_format, "response_format")
    answers = request.extra.get("n", 1) if request.extra else 1
    times = answers if type(answers) is int and 1 <= answers <= 128 else 1
    return Estimate(count, (request.max_tokens or DEFAULT_OUTPUT_TOKENS) * times)


def estimate_embed(request: EmbedRequest) -> Estimate:
    """Input tokens of all texts; vectors cost no output."""
    return Estimate(sum(estimate_text(text) + 1 for text in request.inputs), 0)


def estimate_text(text: str) -> int:
    """Tokens of `text`, rounded up."""
    size = len(text)
    if text.isascii():
        return -(-size * 2 // 7)
    plain = len(text.encode("ascii", "ignore"))
    return -(-plain * 2 // 7) + size - plain


def _json_tokens(value: object, what: str) -> int:
    try:
        return estimate_text(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidRequestError(message=f"{what} holds something that JSON cannot say") from exc


def _message_tokens(message: Message) -> int:
    count = TOKENS_PER_MESSAGE
    if isinstance(message.content, str):
        count += estimate_text(message.content)
    else:
        count += sum(_part_tokens(part) for part in message.parts)
    for call in message.tool_calls:
        count += estimate_text(call.name) + estimate_text(call.arguments) + TOKENS_PER_MESSAGE
    return count


def _part_tokens(part: Part) -> int:
    if part.kind == "text":
        return estimate_text(part.value or "")
    if part.kind == "image":
        return IMAGE_TOKENS
    if part.data is None:
        return UNSEEN_TOKENS
    return max(258, len(part.data) // BYTES_PER_TOKEN.get(part.kind, 200))
