"""Stands in for LLM providers over real HTTP on 127.0.0.1: for tests, for the demo, for trying a configuration without a key.

Strategy: one `Simulator` is one provider in one dialect ("openai", "gemini", "anthropic"), with the provider's own errors,
headers and streams; its answers are the same on every run. Each key is really counted, in fixed windows of the UTC minute and day
by the caller's clock; a refused request leaves no trace. Faults are scripted. It serves only between `start()` and `stop()`,
which a `with` block calls. Must never know the router.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from .errors import ConfigError
from .frozen import frozen_value, replace
from .secret import Secret
from .simulator_anthropic import AnthropicWire
from .simulator_gemini import GeminiWire
from .simulator_model import ReplyFunction, answer, make_id
from .simulator_openai import OpenAIWire
from .simulator_prompt import IssuedTokens, Prompt, Texts
from .simulator_server import Fault, deliver, deliver_vectors, json_body, replacement
from .simulator_wire import Exchange, LimitState, Refusal, ScriptedResponse, Wire

if TYPE_CHECKING:
    from .simulator_server import Server

WIRES: dict[str, Callable[[IssuedTokens], Wire]] = {
    "openai": OpenAIWire,
    "gemini": GeminiWire,
    "anthropic": AnthropicWire,
}


@frozen_value
class LoggedRequest:
    """One request that came. `key`: the place of its key in `keys`, None if unknown; tokens are 0 if it was refused."""

    key: int | None
    model: str
    status: int
    stream: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    fault: str = ""


class Simulator:
    """A provider that is not one. Thread-safe.

    `dialect`: openai, gemini or anthropic. `keys`: the keys it accepts, with their `KeyLimits` if they have any.
    `models`: the names it serves; empty serves any. `reply(question)`: replaces its own sentences. `tools`: whether it
    takes tools. `clock`: epoch seconds, for limits. `latency_s`: seconds before the first byte. `chunk_words`: words in one
    event of a stream; `chunk_delay_s`: seconds before each. `port`: 0 takes a free one. Raises `ConfigError` for an unknown
    dialect; `start` raises it for a port that is taken.
    """

    def __init__(
        self,
        dialect: str = "openai",
        *,
        name: str = "",
        keys: Mapping[str, KeyLimits | None] | Iterable[str] = ("sk-1",),
        models: Iterable[str] = (),
        reply: ReplyFunction | None = None,
        tools: bool = True,
        clock: Callable[[], float] = time.time,
        latency_s: float = 0.0,
        chunk_words: int = 3,
        chunk_delay_s: float = 0.0,
        port: int = 0,
    ) -> None:
        if dialect not in WIRES:
            raise ConfigError(f"dialect: {dialect!r} is not one of {', '.join(WIRES)}")
        self.dialect = dialect
        self.name = name or dialect
        self.models = tuple(models)
        self._wire = WIRES[dialect](IssuedTokens())
        limits = keys if isinstance(keys, Mapping) else dict.fromkeys(keys)
        self._counters = [KeyCounter(limit) for limit in limits.values()]
        self._places = {Secret(key): place for place, key in enumerate(limits)}
        self._reply = reply
        self._tools = tools
        self._clock = clock
        self._latency = latency_s
        self._chunk_words = chunk_words
        self._chunk_delay = chunk_delay_s
        self._port = port
        self._lock = threading.Lock()
        self._faults: deque[Fault | None] = deque()
        self._log: list[LoggedRequest] = []
        self._numbers = 0
        self._server: Server | None = None

    @property
    def base_url(self) -> str:
        """What a provider or an account takes as base_url; RuntimeError before `start()`."""
        if self._server is None:
            raise RuntimeError("the simulator has no address yet: call start() or use it in a with block")
        return f"http://127.0.0.1:{self._server.server_port}{self._wire.root}"

    @property
    def log(self) -> tuple[LoggedRequest, ...]:
        """Every request so far, in the order they were decided."""
        with self._lock:
            return tuple(self._log)

    def usage(self) -> tuple[KeyUsage, ...]:
        """What each key has used, in the order of `keys`."""
        with self._lock:
            return tuple(counter.usage for counter in self._counters)

    def script(self, faults: Iterable[Fault | None]) -> None:
        """Let the next requests go wrong, one fault each, after those already scripted; None serves one as usual."""
        with self._lock:
            self._faults.extend(faults)

    def fail_next(
        self,
        times: int = 1,
        status: int = 503,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        key: int | None = None,
    ) -> None:
        """Answer the next `times` requests with `status`; see `Fault`."""
        self.script([Fault("status", status, body, headers or {}, key=key)] * times)

    def start(self) -> Simulator:
        """Begin to serve; does nothing if it serves already."""
        if self._server is None:
            from .simulator_server import Server

            try:
                self._server = Server(self._respond, self._port)
            except (OSError, OverflowError) as exc:
                raise ConfigError(f"port: {self._port} cannot be served on ({exc}); name another one, or 0 for any") from exc
            self._server.start()
        return self

    def stop(self) -> None:
        """Close every connection and free the port; limits, log and script stay."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _respond(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> ScriptedResponse:
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        place = self._places.get(self._wire.key(headers))
        error_type = self._wire.error_type(query)
        fault = self._next_fault(place)
        replaced = replacement(fault, self._wire, error_type) if fault else None
        if fault and replaced:
            self._record(LoggedRequest(place, "", replaced.status if fault.kind != "dropped" else 0, fault=fault.kind))
            return replaced
        asked: Prompt | Texts | None = None  # known to the log as soon as it could be read
        try:
            if place is None:
                raise self._wire.refusal(401)
            root, path = self._wire.root, url.path.removeprefix(self._wire.root)
            if url.path != root + path or not path.startswith("/"):
                raise self._wire.refusal(404, f"Unknown path {url.path}; it begins with {root}/")
            if method == "GET":
                return self._listing(path, place)
            asked = self._read(path, query, headers, body)
            outgoing = self._answered(asked, place, fault)
        except Refusal as refusal:
            self._record(LoggedRequest(place, asked.model if asked else "", refusal.status, _streams(asked)))
            outgoing = self._json(refusal.status, refusal.body, {"Content-Type": error_type, **refusal.headers})
        headers = {**self._request_id(), **outgoing.headers}
        return replace(outgoing, headers=headers, wait=outgoing.wait + self._latency, pause=self._chunk_delay)

    def _read(self, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Prompt | Texts:
        try:
            return self._wire.read(path, query, headers, body)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise self._wire.refusal(400, f"Invalid request: {error!r}") from error

    def _answered(self, asked: Prompt | Texts, place: int, fault: Fault | None) -> ScriptedResponse:
        if self.models and asked.model not in self.models:
            raise self._wire.refusal(404, model=asked.model)
        if isinstance(asked, Texts):
            headers = self._admit(asked, place, 0, fault)[1]
            return deliver_vectors(asked, self._wire, fault, headers)
        if asked.tools and not self._tools:
            raise self._wire.refusal(400, f"{asked.model} does not support tools")
        said = answer(asked, self._reply)
        number, headers = self._admit(asked, place, said.completion_tokens * asked.copies, fault)
        exchange = Exchange(asked, said, asked.tokens, f"{self.name}-{number}", self._clock(), self._chunk_words)
        return deliver(exchange, self._wire, fault, headers)

    def _admit(self, asked: Prompt | Texts, place: int, completion: int, fault: Fault | None) -> tuple[int, dict[str, str]]:
        """Charge the key and log; returns the answer's number and its rate headers. Raises the wire's 429."""
        now, tokens = self._clock(), asked.tokens
        with self._lock:
            counter = self._counters[place]
            spent = counter.admit(tokens, completion, now)
            limits = counter.limits(now)
            if not spent:
                self._numbers += 1
                kind = fault.kind if fault else ""
                self._log.append(LoggedRequest(place, asked.model, 200, _streams(asked), tokens, completion, kind))
            number = self._numbers
        headers = self._wire.rate_headers(limits, now)
        if spent:
            refusal = self._wire.limited(asked.model, spent, tokens, now)
            raise Refusal(429, refusal.body, {**headers, **refusal.headers})
        return number, headers

    def _listing(self, path: str, place: int) -> ScriptedResponse:
        if path != "/models":
            raise self._wire.refusal(404, f"Unknown path {path}")
        self._record(LoggedRequest(place, "", 200))
        return self._json(200, self._wire.listing(self.models), {})

    def _json(self, status: int, value: Any, headers: Mapping[str, str]) -> ScriptedResponse:
        return ScriptedResponse(status, {"Content-Type": "application/json", **headers}, json_body(value, self._wire.indent))

    def _request_id(self) -> dict[str, str]:
        with self._lock:
            number = len(self._log)
        name = self._wire.id_header
        return {name: make_id("req_", self.name, number)} if name else {}

    def _record(self, served: LoggedRequest) -> None:
        with self._lock:
            self._log.append(served)

    def _next_fault(self, place: int | None) -> Fault | None:
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault is None or fault.key is None or fault.key == place:
                    del self._faults[index]
                    return fault
        return None


def _streams(asked: Prompt | Texts | None) -> bool:
    return isinstance(asked, Prompt) and asked.stream


SPAN = {"minute": 60.0, "day": 86400.0}  # seconds


@frozen_value
class KeyLimits:
    """Requests and tokens a key may use per minute and per day; None: no limit, 0 refuses everything."""

    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    tpd: int | None = None


@frozen_value
class KeyUsage:
    """What a key has used since the start. `requests`: served ones; `refused`: answered 429 because a limit was spent."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    refused: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens."""
        return self.prompt_tokens + self.completion_tokens


class KeyCounter:
    """The windows of one key. Every method takes `now`, epoch seconds."""

    def __init__(self, limits: KeyLimits | None) -> None:
        self._limits = limits or KeyLimits()
        self._windows: dict[str, tuple[int, int, int]] = {}  # name: number of the window, requests, tokens
        self.usage = KeyUsage()

    def admit(self, prompt_tokens: int, completion_tokens: int, now: float) -> list[LimitState]:
        """Charge a request unless a limit is spent; returns the spent limits, empty when it was charged."""
        spent = [each for each in self.limits(now) if each.used + (prompt_tokens if each.unit == "tokens" else 1) > each.limit]
        used = self.usage
        if spent:
            self.usage = KeyUsage(used.requests, used.prompt_tokens, used.completion_tokens, used.refused + 1)
            return spent
        self._charge(1, prompt_tokens + completion_tokens, now)
        self.usage = KeyUsage(
            used.requests + 1,
            used.prompt_tokens + prompt_tokens,
            used.completion_tokens + completion_tokens,
            used.refused,
        )
        return []

    def limits(self, now: float) -> list[LimitState]:
        """Every limit of the key and how much of it is used."""
        limits = self._limits
        asked: list[tuple[Literal["requests", "tokens"], Literal["minute", "day"], int | None]] = [
            ("requests", "minute", limits.rpm),
            ("requests", "day", limits.rpd),
            ("tokens", "minute", limits.tpm),
            ("tokens", "day", limits.tpd),
        ]
        found: list[LimitState] = []
        for unit, window, limit in asked:
            if limit is not None:
                _, requests, tokens = self._window(window, now)
                used = requests if unit == "requests" else tokens
                found.append(LimitState(unit, window, limit, used, SPAN[window] - now % SPAN[window]))
        return found

    def _window(self, name: str, now: float) -> tuple[int, int, int]:
        number = int(now // SPAN[name])
        window = self._windows.get(name, (number, 0, 0))
        return window if window[0] == number else (number, 0, 0)

    def _charge(self, requests: int, tokens: int, now: float) -> None:
        for name in SPAN:
            number, so_far, spent = self._window(name, now)
            self._windows[name] = (number, so_far + requests, spent + tokens)
