"""What a user's own program looks like to a type checker: `mypy --strict` and pyright must accept it, and it must run.

Every kind of argument that works when it runs must be right for the checkers too, and every answer must have its type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, assert_type

import inferrouter as ir


@dataclass
class Weather:
    """An answer as a class."""

    city: str
    degrees: float


class Reply(TypedDict):
    """An answer as a dict."""

    city: str


def weather(city: str) -> str:
    """The weather in a city."""
    return f"8 degrees in {city}"


def build(mock: ir.MockProvider) -> ir.Router:
    """A router over a configuration in code, every option by name."""
    config = ir.Config(
        accounts=[
            ir.AccountConfig(
                provider="mock", id="a", auth=ir.Auth(api_key="key"), limits={"rpm": 100}, model_limits={"m": {"rpd": 1000}}
            ),
            ir.AccountConfig("mock", "b", limits="catalog" if not mock else {}, capabilities=["image", "tools"]),
        ],
        models=[ir.ModelMapping("fast", [ir.ModelRef("mock", "m")])],
        default_model="fast",
        auth_errors="next",
    )
    return ir.Router(config, [mock], quota_store=ir.MemoryQuotaStore(), policy=ir.BestFirstPolicy(), meter=ir.LogMeter())


def from_env(env: dict[str, str], folder: Path) -> ir.Router:
    """A router over the keys of an environment."""
    return ir.Router.from_env(
        env, max_wait=60, timeout=120.0, policy="free_first", store=folder / "quota.sqlite", allow_paid=False
    )


def chats(router: ir.Router) -> list[str]:
    """Every way to ask."""
    dicts = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    mixed: list[ir.Message | dict[str, Any]] = [ir.Message("user", "Hi"), {"role": "assistant", "content": "Hello"}]
    parts = ir.Message("user", ["What is this?", ir.Part.image(b"png", "image/png"), {"type": "text", "text": "Say."}])
    answers = [
        router.chat("Why is the sky blue?"),
        router.chat(dicts, model="fast", temperature=0, max_tokens=50, max_wait=60, timeout=30.0),
        router.chat(mixed, stop="END"),
        router.chat([*mixed, ir.Message("user", "And now?")], seed=1),
        router.chat(parts),
        router.chat("Weather?", tools=[weather, ir.Tool.from_function(weather)], tool_choice="auto"),
        router.chat("Weather?", tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        router.chat("Hi", extra={"top_k": 5}, require=["temperature"], reasoning_effort="low"),
        router.chat_completion(ir.ChatRequest(dicts, model="fast", tools=[weather]), timeout=30, max_wait=0.0),
        router.chat_completion(ir.ChatRequest("Hi", response_format=Weather, require="response_format")),
        router.chat(ir.ChatRequest(mixed)),
    ]
    assert_type(answers[0], ir.ChatResponse)
    return [answer.text for answer in answers]


def shaped(router: ir.Router) -> Weather:
    """An answer in a shape."""
    router.chat("JSON", response_format=Reply).parsed()
    router.chat("JSON", response_format={"type": "object", "properties": {"city": {"type": "string"}}}).parsed()
    router.chat("JSON", response_format="json_object").json()
    answer = router.chat("JSON", response_format=Weather)
    saved: dict[str, Any] = answer.to_dict()
    assert saved["choices"]
    found: Weather = answer.parsed()
    return found


def streams(router: ir.Router, wanted: bool) -> str:
    """Both ways to stream, and one that is decided when it runs."""
    with router.chat("Hi", stream=True) as stream:
        assert_type(stream, ir.ChatStream)
        text = "".join(chunk.text for chunk in stream)
    assert_type(stream.response, ir.ChatResponse)
    with router.stream(ir.ChatRequest("Hi")) as other:
        text += "".join(chunk.text for chunk in other)
    either = router.chat("Hi", stream=wanted)
    assert_type(either, ir.ChatResponse | ir.ChatStream)
    if isinstance(either, ir.ChatStream):
        either.close()
    return text


def vectors(router: ir.Router) -> Sequence[tuple[float, ...]]:
    """Vectors of texts."""
    answer = router.embed(ir.EmbedRequest(["one", "two"], model="mock/e"), timeout=5)
    assert_type(answer, ir.EmbedResponse)
    return answer.embeddings


def looks(router: ir.Router) -> list[str]:
    """What can be looked at."""
    told = router.explain(ir.ChatRequest("Hi"))
    state = router.status()["a"]
    rows = [f"{limit.name} {limit.remaining}" for limit in state.limits]
    return [*rows, *(f"{each.account_id} {each.model} {each.share}" for each in told.candidates), *router.warnings]


def failing(router: ir.Router) -> str:
    """Errors have their facts as attributes."""
    try:
        router.chat("Hi", model="fsat")
    except ir.NoCandidatesError as error:
        return str(error.retry_at)
    except ir.UnknownModelError as error:
        return ", ".join(error.known)
    return ""


class Meter:
    """A meter of one's own needs only what it wants to hear."""

    def on_route(self, event: ir.RouteEvent) -> None:
        """Before an attempt."""

    def on_result(self, event: ir.ResultEvent) -> None:
        """After one."""
