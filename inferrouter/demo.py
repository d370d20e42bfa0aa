"""Shows the router at work: three stand-in providers with real limits on this machine, and every free request of theirs used.

Strategy: four acts over real HTTP, each with a sentence before it and a line for each call; then a table from the router's
events, held against what the stand-ins counted. Everything on a line is what the library itself says. The clock starts at noon,
so that no minute and no day ends by chance. Every promise is checked, so a demo that shows something else fails. Must never need
a key, a network, or anything that is not public, nor make up a figure.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TextIO

from .account import AccountConfig, Auth
from .config import Config, ModelMapping, ModelRef
from .errors import InferRouterError, RateLimitedError, Rejection
from .events import ResultEvent, RouteEvent
from .records import ChatRequest, Routing, Usage
from .router import Router
from .simulator import KeyLimits, Simulator
from .status import Explanation
from .terminal import Screen

HAIKU = "Write a haiku about a router."
SUM = "  {:<12} {:>6} {:>8} {:>8}   {:<5} {:>10}"


def run_demo(out: TextIO | None = None) -> int:
    """Show everything on `out` (None: stdout), in under 10 seconds. Returns 0, or 1 if a promise was not kept."""
    screen = Screen(sys.stdout if out is None else out)
    clock = DemoClock()
    events = EventList()
    with ExitStack() as stack:
        stack.enter_context(_past_any_proxy())
        stand_ins = build_stand_ins(clock, 0.04 if screen.terminal else 0.01)
        for stand_in in stand_ins.values():
            stack.callback(stand_in.stop)  # a second time, should Ctrl-C have cut the first one short
            stack.enter_context(stand_in)
        config = build_config(stand_ins)
        router = stack.enter_context(Router(config, meter=events, clock=clock))
        show = Show(screen, router, clock, events)
        try:
            _introduce(screen, config, stand_ins)
            _free_first(show)
            _a_429(show)
            _paid_last(show)
            _a_stream(show)
            _the_count(show, stand_ins)
        except InferRouterError as error:
            show.expect(False, f"the demo ended early: {error}")
    return show.verdict()


def _introduce(screen: Screen, config: Config, stand_ins: Mapping[str, Simulator]) -> None:
    screen.line("One router, three accounts, real HTTP on 127.0.0.1", "bold")
    screen.paragraph("Each provider is a stand-in that counts per key and refuses as the real one does. No network.")
    screen.line()
    for account in config.accounts:
        free = f"{account.daily_free:g} {account.quota_unit} a day, free" if account.daily_free else "paid by the token"
        dialect = {"gemini": "Gemini", "openai": "OpenAI"}[stand_ins[account.provider].dialect]
        screen.line(f"  {account.id:<12} speaks {dialect:<7} {free}")
    screen.pause(0.4)


def _free_first(show: Show) -> None:
    show.act(
        "1. Free first, and balanced",
        "The paid account waits. Each call goes to the free account with the larger share of its day left, whether it "
        "is counted in requests or in tokens. The columns gemini and groq show that share after the call.",
    )
    who = [show.call().account_id for _ in range(4)]
    evenly = sorted(who) == ["gemini-free"] * 2 + ["groq-free"] * 2
    show.expect(evenly, "four calls are shared evenly by the free accounts")


def _a_429(show: Show) -> None:
    show.act(
        "2. A 429 that fails over",
        "Groq takes 2 requests a minute, and the router does not know. Groq is next in turn and will answer 429; the "
        "same call then goes to Gemini, and Groq is left alone for as long as it asked.",
    )
    first, second = show.call(), show.call()
    show.expect(first.attempts == 2 and first.account_id == "gemini-free", "a call that Groq refuses goes on to Gemini")
    show.expect(show.refusals("groq") == 1, "Groq answers 429 once")
    show.expect(second.attempts == 1 and second.account_id == "gemini-free", "Groq is not asked again while it is held")


def _paid_last(show: Show) -> None:
    show.act(
        "3. Free is spent, paid takes over",
        "Gemini has one free request left. The router knows, so Gemini never has to refuse. After that nothing free "
        "can answer, and paid is allowed here, up to 5 cents a day.",
    )
    routes = [show.call() for _ in range(3)]
    in_turn = [where.free for where in routes] == [True, False, False]
    show.expect(in_turn, "the paid account comes after the last free request")
    show.expect(all(where.cost > 0 for where in routes[1:]), "a paid call has a price")
    show.expect(show.refusals("gemini") == 0, "Gemini never refuses")


def _a_stream(show: Show) -> None:
    show.act(
        "4. A stream, free again",
        "The demo sets its clock one minute ahead. Groq's hold is over, so it comes before the paid account again, "
        "this time word by word.",
    )
    show.clock.skip(60.0)
    where, moments = show.stream(HAIKU)
    show.expect(where.account_id == "groq-free" and where.free, "Groq is free again after its hold")
    show.expect(len(moments) > 5 and moments[-1] - moments[0] > 0.05, "the stream comes piece by piece")


def _the_count(show: Show, stand_ins: Mapping[str, Simulator]) -> None:
    show.act("The count", "From the router's own events; refused are the 429s.")
    screen = show.screen
    screen.line(SUM.format("account", "calls", "refused", "tokens", "", "dollars"), "dim")
    counts = {provider: show.count(provider) for provider in stand_ins}
    for provider, state in zip(stand_ins, show.router.status().values(), strict=True):
        calls, refused, tokens, cost = counts[provider]
        screen.line(SUM.format(state.account_id, calls, refused, tokens, "paid" if cost else "free", f"${cost:.6f}"))
        used = {"gemini": calls, "groq": tokens}.get(provider)
        show.expect(state.used == used, f"the quota of {state.account_id} shows what was used")
        show.expect(abs(state.spend_today - cost) < 1e-12, f"the spend of {state.account_id} shows what it cost")
    totals = [sum(column) for column in zip(*counts.values(), strict=True)]
    screen.line(SUM.format("together", *totals[:3], "", f"${totals[3]:.6f}"), "bold")
    seen = {provider: _served(stand_in) for provider, stand_in in stand_ins.items()}
    agree = seen == {provider: count[:3] for provider, count in counts.items()}
    if show.expect(agree, f"the stand-ins counted the same (they say {seen})"):
        screen.line("The stand-ins counted the same: calls, refusals and tokens, each of them.", "green")


def _served(stand_in: Simulator) -> tuple[int, int, int]:
    """Requests answered, requests refused with 429, and tokens, as the stand-in logged them."""
    log = stand_in.log
    tokens = sum(each.prompt_tokens + each.completion_tokens for each in log)
    return sum(each.status == 200 for each in log), sum(each.status == 429 for each in log), tokens


@contextmanager
def _past_any_proxy() -> Iterator[None]:
    """Ask 127.0.0.1 itself, whatever proxy the environment names."""
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = "127.0.0.1"
    try:
        yield
    finally:
        del os.environ["no_proxy"]
        if before is not None:
            os.environ["no_proxy"] = before


class DemoClock:
    """The machine's pace from noon (UTC) of an ordinary day, for router and stand-ins alike; `skip` sets it ahead."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._start = time.monotonic()
        self._noon = time.time() // 86_400 * 86_400 + 43_200 + 15  # a minute's first quarter is over: 45 s to its end

    def time(self) -> float:
        """Epoch seconds."""
        return self._noon + self.monotonic() - self._start

    def monotonic(self) -> float:
        """Seconds."""
        return time.monotonic() + self._ahead

    def sleep(self, seconds: float) -> None:
        """Wait, by skipping."""
        self.skip(seconds)

    def skip(self, seconds: float) -> None:
        """Set the clock ahead."""
        self._ahead += seconds


def build_stand_ins(clock: DemoClock, chunk_delay_s: float) -> dict[str, Simulator]:
    """The providers by name, not started yet. Groq's limit by the minute is what the configuration does not know of."""
    return {
        "gemini": Simulator("gemini", name="gemini", keys={"demo-key-1": KeyLimits(rpd=5)}, clock=clock.time),
        "groq": Simulator(
            "openai",
            name="groq",
            keys={"demo-key-2": KeyLimits(rpm=2)},
            clock=clock.time,
            chunk_words=1,
            chunk_delay_s=chunk_delay_s,
        ),
        "openai": Simulator("openai", name="openai", keys={"demo-key-3": KeyLimits(rpm=60)}, clock=clock.time),
    }


def build_config(stand_ins: Mapping[str, Simulator]) -> Config:
    """What a user would write: two free accounts, a paid one, and one alias over all three."""
    return Config(
        allow_paid=True,
        default_model="fast",
        models=[
            ModelMapping(
                "fast",
                [
                    ModelRef("gemini", "gemini-3.5-flash"),
                    ModelRef("groq", "openai/gpt-oss-20b"),
                    ModelRef("openai", "gpt-4o-mini"),
                ],
            )
        ],
        accounts=[
            AccountConfig(
                provider="gemini",
                id="gemini-free",
                auth=Auth("demo-key-1"),
                base_url=stand_ins["gemini"].base_url,
                daily_free=5,
                quota_unit="requests",
            ),
            AccountConfig(
                provider="groq",
                id="groq-free",
                auth=Auth("demo-key-2"),
                base_url=stand_ins["groq"].base_url,
                daily_free=260,
                quota_unit="tokens",
            ),
            AccountConfig(
                provider="openai",
                id="openai-paid",
                auth=Auth("demo-key-3"),
                base_url=stand_ins["openai"].base_url,
                paid_enabled=True,
                cost_per_input_token=1.5e-7,
                cost_per_output_token=6e-7,
                max_daily_spend=0.05,
            ),
        ],
    )


QUESTIONS = (
    "Why is the sky blue?",
    "Why is the sky blue, in one sentence?",
    "Once more for the children: why is the sky blue?",
    "What is the capital of France?",
    "What is 2+2?",
    "Tell me a joke.",
    "Say hello.",
    "Which joke would you tell at a wedding?",
    "So why is the sky blue?",
)
ROW = "{:>3}  {:<11} {:>6}  {:>9} {:>6}  {:>5}  {}"


class EventList:
    """A meter that keeps every result."""

    def __init__(self) -> None:
        self.results: list[ResultEvent] = []

    def on_route(self, event: RouteEvent) -> None:
        """Nothing: what came of it is shown soon."""

    def on_result(self, event: ResultEvent) -> None:
        """Keep it."""
        self.results.append(event)


class Show:
    """The router at work: makes calls, prints a line for each, and remembers what was promised in vain."""

    def __init__(self, screen: Screen, router: Router, clock: DemoClock, events: EventList) -> None:
        self.screen = screen
        self.router = router
        self.clock = clock
        self._events = events
        self._calls = 0
        self._headed = False
        self._broken: list[str] = []

    def act(self, title: str, sentence: str) -> None:
        """Say what comes."""
        self._headed = False
        self.screen.heading(title)
        self.screen.paragraph(sentence)
        self.screen.pause(0.3)
        self.screen.line()

    def call(self) -> Routing:
        """Ask the next question, print who answered."""
        request = ChatRequest(QUESTIONS[self._calls], max_tokens=60)
        before, seen = self.router.explain(request), len(self._events.results)
        answer = self.router.chat_completion(request)
        self._row(answer.routing, answer.usage, self._why(before, self._events.results[seen:]))
        return answer.routing

    def stream(self, question: str) -> tuple[Routing, list[float]]:
        """Ask for a stream and print it as it comes; the second part is when each piece came, in monotonic seconds."""
        request = ChatRequest(question, max_tokens=60)
        before, moments = self.router.explain(request), []
        with self.router.stream(request) as stream:
            self.screen.piece("     ")
            for chunk in stream:
                self.screen.piece(chunk.text.replace("\n", "\n     "), "green")
                moments.append(time.monotonic())
        self.screen.line("\n")
        self._row(stream.response.routing, stream.response.usage, self._why(before, []))
        return stream.response.routing, moments

    def count(self, provider: str) -> tuple[int, int, int, float]:
        """Calls answered, calls refused with 429, tokens, dollars."""
        good = [event for event in self._events.results if event.provider == provider and event.success]
        tokens = sum(event.usage.total_tokens for event in good)
        return len(good), self.refusals(provider), tokens, sum(event.cost for event in good)

    def refusals(self, provider: str) -> int:
        """How often it answered 429."""
        mine = [event.error for event in self._events.results if event.provider == provider]
        return sum(isinstance(error, RateLimitedError) for error in mine)

    def expect(self, kept: bool, promise: str) -> bool:
        """Remember `promise` if it was not kept."""
        if not kept:
            self._broken.append(promise)
        return kept

    def verdict(self) -> int:
        """The exit code; says what was not kept."""
        for promise in self._broken:
            self.screen.line(f"This did not happen: {promise}", "red")
        return 1 if self._broken else 0

    def _row(self, where: Routing, usage: Usage, why: str) -> None:
        if not self._headed:
            self._headed = True
            self.screen.line(ROW.format("#", "answered by", "tokens", "cost", "gemini", "groq", "why"), "dim")
        self._calls += 1
        cost = "free" if where.free else f"${where.cost:.6f}"
        left = [f"{self._share(account):.0%}" for account in ("gemini-free", "groq-free")]
        style = "" if where.free else "yellow"
        self.screen.line(ROW.format(self._calls, where.account_id, usage.total_tokens, cost, *left, why), style)
        self.screen.pause(0.08)

    def _share(self, account_id: str) -> float:
        allowance = next(limit for limit in self.router.status()[account_id].limits if limit.name == "allowance")
        return allowance.remaining / allowance.amount

    def _why(self, before: Explanation, results: list[ResultEvent]) -> str:
        for event in results:
            if isinstance(event.error, RateLimitedError):
                return f"{event.provider}: 429, held {event.error.retry_after:.0f} s"
        if before.rejections:
            return ", ".join(map(self._absence, before.rejections))
        first, second = before.candidates[:2]
        if first.share == second.share:
            return f"as good as {second.provider}, named first"
        return f"{first.share:.0%} left beats {second.share:.0%}"

    def _absence(self, rejection: Rejection) -> str:
        if rejection.code == "held" and rejection.retry_at is not None:
            return f"{rejection.provider} held {rejection.retry_at - self.clock.time():.0f} s"
        why = "spent" if rejection.code == "paid_not_allowed" else "left out"
        return f"{rejection.provider} {why}"
