"""Shows an endpoint from inside: the state of every account and the calls, as JSON, as events, as Prometheus text and as a page.

Strategy: one snapshot, made from `Router.status()` and the call log at most five times a second however many look, holds all that
the page and `/status.json` show. A viewer is a stream that ends when its client goes. Accounts are named by id alone. Must never
show a key, nor change anything.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from .errors import InferRouterError
from .meter_metrics import CONTENT_TYPE
from .moments import DAY
from .openai_server import error_body
from .serve_chat import JSON, Service
from .serve_errors import problem_of
from .serve_http import Connection, Fields, Request
from .wire_json import write_event, write_json

if TYPE_CHECKING:
    from .status import AccountStatus

SHOWN_CALLS = 60
LEAST_GAP_S = 0.2
"""Seconds between two snapshots."""
BEAT_S = 1.0
"""Seconds after which a viewer gets a new snapshot though nothing happened: limits free by themselves."""
MOST_VIEWERS = 16
CAPACITY_S = 60.0
REFERENCE = (0.15e-6, 0.6e-6)
"""Dollars a token in and out that free tokens are valued at where no paid account states a price: those of a small model."""
SAFE: Fields = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cache-Control", "no-store"),
)


class Dashboard:
    """Answers what shows the endpoint itself. `needs_token`: the page has to ask for one. Thread-safe."""

    def __init__(self, service: Service, needs_token: bool) -> None:
        self._service = service
        self._needs_token = needs_token
        self._lock = threading.Lock()
        self._kept: tuple[float, bytes] | None = None
        self._carried: tuple[float, dict[str, Any] | None] | None = None
        self._viewers = threading.BoundedSemaphore(MOST_VIEWERS)

    def answer(self, request: Request, connection: Connection, extra: Fields) -> int | None:
        """Answer a GET; returns its status, None if its path is not one of these. Raises `Gone`."""
        path = request.head.path
        if path == "/events":
            return self._events(request, connection, extra)
        if path == "/":
            from .serve_page import page, page_policy

            fields = (("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", page_policy()), *SAFE, *extra)
            connection.answer(200, fields, page(self._needs_token))
            return 200
        if path == "/favicon.ico":
            connection.answer(204, extra, b"")
            return 204
        try:
            if path == "/status.json":
                fields, body = (JSON, *SAFE), self.snapshot()
            elif path == "/metrics":
                status = self._service.router.status()
                fields, body = (("Content-Type", CONTENT_TYPE), *SAFE), self._service.log.metrics.text(status).encode()
            else:
                return None
        except InferRouterError as exc:
            problem = problem_of(exc, self._service.clock.time())
            body = write_json(error_body(problem.message, problem.kind, problem.code))
            connection.answer(problem.status, (JSON, *extra), body)
            return problem.status
        connection.answer(200, (*fields, *extra), body)
        return 200

    def ready(self) -> tuple[bool, str]:
        """Whether a request could be served now, and why not: a word of a short list."""
        if self._service.stopping.is_set():
            return False, "stopping"
        if self._service.router.waiting.closed:
            return False, "router_closed"
        try:
            accounts = self._service.router.status()
        except InferRouterError:
            return False, "quota_store_unavailable"
        if not accounts:
            return False, "no_accounts"
        if all(_rests(account) for account in accounts.values()):
            return False, "all_accounts_resting"
        return True, "ok"

    def snapshot(self) -> bytes:
        """Everything, as JSON. Raises `QuotaStoreError`."""
        now = self._service.clock.monotonic()
        with self._lock:
            if self._kept is None or not 0 <= now - self._kept[0] < LEAST_GAP_S:
                self._kept = (now, write_json(self._facts()))
            return self._kept[1]

    def _events(self, request: Request, connection: Connection, extra: Fields) -> int:
        """A stream of snapshots: one at once, one after each change, one a second."""
        if request.head.method == "HEAD" or not self._viewers.acquire(blocking=False):
            status = 200 if request.head.method == "HEAD" else 503
            connection.answer(status, (("Content-Type", "text/event-stream"), *extra), b"")
            return status
        service, log = self._service, self._service.log
        gone = threading.Event()

        def left() -> None:
            gone.set()
            log.touch()

        watched = service.watch.add(connection.sock, left)
        try:
            connection.begin((("Content-Type", "text/event-stream"), *SAFE[:3], *extra))
            seen = -1
            while not gone.is_set() and not service.stopping.is_set():
                connection.chunk(write_event(self._event()))
                gone.wait(LEAST_GAP_S)
                seen = log.changed(seen, BEAT_S)
            connection.end()
            return 200
        finally:
            service.watch.remove(watched)
            self._viewers.release()

    def _event(self) -> str:
        try:
            return self.snapshot().decode()
        except InferRouterError as exc:
            return write_json({"error": str(exc)}).decode()

    def _facts(self) -> dict[str, Any]:
        service = self._service
        router, log = service.router, service.log
        now, mono = service.clock.time(), service.clock.monotonic()
        accounts = router.status()
        today = log.today()
        per_input, per_output = _prices(router)
        saved = today.free_input * per_input + today.free_output * per_output
        return {
            "now": round(now, 3),
            "free_requests_left": _requests_left(accounts.values()),
            "next_reset": min(_future(accounts.values(), now), default=None),
            "accounts": [_account(account) for account in accounts.values()],
            "models": list(router.model_names()),
            "under_way": [call.shown(mono) for call in log.under_way()],
            "calls": [call.shown(mono) for call in log.past()[:SHOWN_CALLS]],
            "calls_last_hour": len(log.past()),
            "today": {
                "calls": today.calls,
                "free_tokens": today.free_input + today.free_output,
                "paid_tokens": today.paid_input + today.paid_output,
                "dollars": round(today.dollars, 6),
                "saved_dollars": round(saved, 6),
                "valued_at": [per_input, per_output],
            },
            "capacity": self._capacity(now),
            "store_failures": accounts.degraded,
            "warnings": list(router.warnings),
        }

    def _capacity(self, now: float) -> dict[str, Any] | None:
        """Requests that the limits leave for the rest of the UTC day, by hour; worked out once a minute: it takes some ms."""
        kept = self._carried
        if kept is None or not 0 <= now - kept[0] < CAPACITY_S:
            rest = (DAY - now % DAY) / DAY
            try:
                found = self._service.router.capacity(rest)
                midnight = now - now % DAY + DAY
                hours = [[begin, requests] for begin, requests in found.hours if begin < midnight]
                made = {"requests": found.requests, "hours": hours, "unlimited": list(found.unlimited)}
            except InferRouterError:
                made = None
            kept = self._carried = (now, made)
        return kept[1]


def _account(account: AccountStatus) -> dict[str, Any]:
    return {
        "id": account.account_id,
        "provider": account.provider,
        "breaker": account.breaker,
        "in_flight": account.in_flight,
        "spend_today": round(account.spend_today, 6),
        "resting": _rests(account),
        "holds": [{"key": hold.key, "until": hold.until, "reason": hold.reason} for hold in account.holds],
        "limits": [
            {
                "name": limit.name,
                "amount": limit.amount,
                "unit": limit.unit,
                "window": limit.window,
                "used": round(limit.used, 6),
                "remaining": round(limit.remaining, 6),
                "resets_at": limit.resets_at,
            }
            for limit in account.limits
        ],
    }


def _rests(account: AccountStatus) -> bool:
    """Whether nothing of the account may serve: the account as a whole is held, not one of its models, or its breaker is open."""
    return account.breaker == "open" or any("|" not in hold.key for hold in account.holds)


def _requests_left(accounts: Any) -> int | None:
    """Free requests left today, over the accounts whose day is counted in requests; None if there is none."""
    tightest = []
    for account in accounts:
        daily = [limit.remaining for limit in account.limits if limit.unit == "requests" and limit.window == "day"]
        if daily:
            tightest.append(min(daily))
    return int(sum(tightest)) if tightest else None


def _future(accounts: Any, now: float) -> list[float]:
    return [
        limit.resets_at
        for account in accounts
        for limit in account.limits
        if limit.window == "day" and (limit.resets_at or 0) > now
    ]


def _prices(router: Any) -> tuple[float, float]:
    """What free tokens would cost: the cheapest stated price of a paid account, else `REFERENCE`."""
    stated = [
        (account.cost_per_input_token, account.cost_per_output_token)
        for account in router.config.accounts
        if account.paid_enabled and account.cost_per_input_token and account.cost_per_output_token
    ]
    return min(stated, key=lambda pair: pair[0] + 2 * pair[1], default=REFERENCE)
