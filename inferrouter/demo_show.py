"""The demo's stage: makes the calls, prints a line for each, and remembers which promises were not kept.

Strategy: everything on a line is what the library itself says: the answer's routing and usage, `status()` for what is
left, and `explain()` before the call plus the meter's events during it for why it went where it went.
Must never know the order of the acts, nor make up a figure.
"""

from __future__ import annotations

import time

from .demo_cast import DemoClock
from .errors import RateLimitedError, Rejection
from .meter import ResultEvent, RouteEvent
from .records import ChatRequest, Routing, Usage
from .router import Router
from .screen import Screen
from .status import Explanation

__all__ = ["EventList", "Show"]

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
        """Nothing: what came of it is told soon."""

    def on_result(self, event: ResultEvent) -> None:
        """Keep it."""
        self.results.append(event)


class Show:
    """The router on stage: makes calls, prints a line for each, and remembers what was promised in vain."""

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
                return f"{event.provider}: 429, rests {event.error.retry_after:.0f} s"
        if before.rejections:
            return ", ".join(map(self._absence, before.rejections))
        first, second = before.candidates[:2]
        if first.share == second.share:
            return f"as good as {second.provider}, named first"
        return f"{first.share:.0%} left beats {second.share:.0%}"

    def _absence(self, rejection: Rejection) -> str:
        if rejection.code == "held" and rejection.retry_at is not None:
            return f"{rejection.provider} rests {rejection.retry_at - self.clock.time():.0f} s"
        why = "spent" if rejection.code == "paid_not_allowed" else "left out"
        return f"{rejection.provider} {why}"
