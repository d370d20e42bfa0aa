"""Knows what the endpoint answers: which method and path lead where, and what an unknown one is told.

Strategy: a table of routes; a path is taken with and without its leading /v1, since tools differ in what they call a base URL.
Errors go out in the words of the dialect that was asked. Answers that concern no model are made here, chats by `serve_chat`.
Must never know sockets, threads or a wire format's details.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any
from urllib.parse import unquote

from .anthropic_server import ERROR_TYPES
from .anthropic_server import error_body as anthropic_error
from .anthropic_server import model_list as anthropic_models
from .errors import InferRouterError, UnknownModelError
from .openai_server import error_body, model_list, model_of
from .serve_chat import JSON, CallGuard, Service, patience_of, refuse, routing_fields, serve_chat, stopping_problem
from .serve_dialect import Body, Dialect, parse_body, unknown_keys
from .serve_errors import Problem, invalid, problem_of
from .serve_http import Connection, Fields, Gone, Request
from .serve_openai import ChatDialect, CompletionDialect, read_embeddings, write_embeddings
from .serve_turns import TurnMemory
from .waiting import CallCancelledError
from .wire_json import write_json

OWNER = "inferrouter"
ALLOWED = ("Allow", "GET, HEAD, POST, OPTIONS")
CHATS: dict[str, tuple[str, str]] = {
    "/messages": ("serve_anthropic", "MessagesDialect"),
    "/responses": ("serve_responses", "ResponsesDialect"),
}
"""Dialects that load when they are first asked."""
GETS = ("/", "/v1/models", "/v1/models/{id}", "/status.json", "/events", "/metrics", "/healthz", "/readyz")
POSTS = (
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
    *("/accounts/{id}/rest", "/accounts/{id}/wake"),
)


class Routes:
    """Answers requests. Thread-safe. `dashboard`: answers the paths of the page, by name."""

    def __init__(self, service: Service, dashboard: Any) -> None:
        self._service = service
        self._dashboard = dashboard
        self._turns = TurnMemory()
        self._chats: dict[str, Dialect] = {"/chat/completions": ChatDialect(self._turns), "/completions": CompletionDialect()}

    def answer(self, request: Request, connection: Connection, client: str, extra: Fields) -> int:
        """Answer `request`, whatever it is; returns the status for the access log. Raises `Gone`."""
        head = request.head
        if head.method == "POST":
            return self._post(request, connection, client, extra)
        if head.method in ("GET", "HEAD"):
            return self._get(request, connection, extra)
        if head.method == "OPTIONS":
            connection.answer(204, (ALLOWED, *extra), b"")
            return 204
        problem = invalid(f"{head.method} is not supported here: use GET, HEAD, POST or OPTIONS", status=405)
        return self._refused(head.path, problem, connection, (ALLOWED, *extra))

    def problem(self, path: str, problem: Problem) -> Body:
        """The body that tells of `problem` in the words of the dialect that `path` belongs to."""
        if _short(path).startswith("/messages"):
            return anthropic_error(ERROR_TYPES.get(problem.status, "api_error"), problem.message)
        return error_body(problem.message, problem.kind, problem.code, problem.param)

    def _post(self, request: Request, connection: Connection, client: str, extra: Fields) -> int:
        path = _short(request.head.path)
        dialect = self._chat(path)
        log = self._service.log
        if dialect is not None:
            call = log.begin(path, client)
            try:
                serve_chat(self._service, dialect, request, connection, call, extra)
            except Gone:
                if call.took_s is None:
                    log.left(call)
                raise
            finally:
                if call.took_s is None:
                    log.end(call, "failed", 500, "an error inside the endpoint")
            return call.status
        if path == "/embeddings":
            return self._embeddings(request, connection, client, extra)
        if path == "/messages/count_tokens":
            return self._plain(request, connection, extra, import_module(".serve_anthropic", __package__).count_tokens)
        parts = path.split("/")
        if len(parts) == 4 and parts[1] == "accounts" and parts[3] in ("rest", "wake"):
            return self._hold(request, connection, extra, unquote(parts[2]), parts[3])
        return self._unknown(request, connection, extra)

    def _chat(self, path: str) -> Dialect | None:
        found = self._chats.get(path)
        if found is None and path in CHATS:
            module, name = CHATS[path]
            made: Dialect = getattr(import_module(f".{module}", __package__), name)(self._turns)
            found = self._chats[path] = made
        return found

    def _get(self, request: Request, connection: Connection, extra: Fields) -> int:
        path = request.head.path
        if path in ("/healthz", "/livez"):
            return self._json(connection, 200, {"status": "ok"}, extra)
        if path == "/readyz":
            ready, why = self._dashboard.ready()
            return self._json(
                connection, 200 if ready else 503, {"status": "ready" if ready else "not ready", "reason": why}, extra
            )
        short = _short(path)
        if short == "/models" or short.startswith("/models/"):
            return self._models(request, connection, extra, unquote(short[len("/models/") :]))
        shown: int | None = self._dashboard.answer(request, connection, extra)
        return self._unknown(request, connection, extra) if shown is None else shown

    def _models(self, request: Request, connection: Connection, extra: Fields, wanted: str) -> int:
        names = self._service.router.model_names()
        if "anthropic-version" in request.head.fields and not wanted:
            return self._json(connection, 200, anthropic_models(names), extra)
        if not wanted:
            return self._json(connection, 200, model_list(names, OWNER), extra)
        if wanted in names:
            return self._json(connection, 200, model_of(wanted, OWNER), extra)
        return self._refused("/models", problem_of(UnknownModelError(wanted, names), 0.0), connection, extra)

    def _embeddings(self, request: Request, connection: Connection, client: str, extra: Fields) -> int:
        service = self._service
        call = service.log.begin("/embeddings", client)
        try:
            body = parse_body(request.body)
            asked, packed = read_embeddings(body)
            call.model = asked.model
            max_wait, timeout = patience_of(request.head.fields, service.max_wait)
            with CallGuard(service, connection, call) as guard:
                response = service.router.embed(asked, timeout=timeout, max_wait=max_wait, cancel=guard.cancel)
        except CallCancelledError as exc:
            if not guard.gone:
                refuse(service, lambda problem: self.problem("", problem), connection, call, stopping_problem(), extra)
                return call.status
            service.log.left(call)
            raise Gone from exc
        except InferRouterError as exc:
            problem = problem_of(exc, service.clock.time())
            refuse(service, lambda found: self.problem("", found), connection, call, problem, extra)
            return call.status
        call.routing, call.usage = response.routing, response.usage
        service.log.end(call, "done", 200)
        dropped = unknown_keys(body, frozenset({"model", "input", "dimensions", "encoding_format"}))
        fields = routing_fields(response.routing, dropped)
        return self._json(connection, 200, write_embeddings(response, asked.model, packed), (*fields, *extra))

    def _hold(self, request: Request, connection: Connection, extra: Fields, account: str, verb: str) -> int:
        def work(body: Body) -> Body:
            seconds = body.get("seconds", 3600.0) if verb == "rest" else 0.0
            self._service.router.rest(account, seconds, "rested by hand")
            self._service.log.touch()
            return {"account": account, "resting": bool(seconds)}

        return self._plain(request, connection, extra, work)

    def _plain(self, request: Request, connection: Connection, extra: Fields, work: Callable[[Body], Body]) -> int:
        try:
            made = work(parse_body(request.body or b"{}"))
        except InferRouterError as exc:
            problem = problem_of(exc, self._service.clock.time())
            if problem.code == "configuration_error":  # an account that is not there
                problem = invalid(problem.message, status=404)
            return self._refused(request.head.path, problem, connection, extra)
        return self._json(connection, 200, made, extra)

    def _unknown(self, request: Request, connection: Connection, extra: Fields) -> int:
        path, method = request.head.path, request.head.method
        if path.startswith("/v1/v1/"):
            said = f"{path[:100]!r} begins with /v1 twice: the tool adds its own, so leave it out of the base URL"
        elif _known(path, POSTS if method in ("GET", "HEAD") else GETS):
            other = "POST" if method in ("GET", "HEAD") else "GET"
            problem = invalid(f"{path[:100]} takes {other}, not {method}", status=405)
            return self._refused(path, problem, connection, (("Allow", other), *extra))
        else:
            said = f"there is nothing at {path[:100]!r}; POST goes to {', '.join(POSTS)}; GET to {', '.join(GETS)}"
        return self._refused(path, Problem(404, "invalid_request_error", "unknown_url", said), connection, extra)

    def _refused(self, path: str, problem: Problem, connection: Connection, extra: Fields) -> int:
        connection.answer(problem.status, (JSON, *problem.fields, *extra), write_json(self.problem(path, problem)))
        return problem.status

    def _json(self, connection: Connection, status: int, body: Body, extra: Fields) -> int:
        connection.answer(status, (JSON, *extra), write_json(body))
        return status


def _short(path: str) -> str:
    """The path without its leading /v1."""
    return path[3:] if path.startswith("/v1/") and not path.startswith("/v1/v1/") else path


def _known(path: str, routes: tuple[str, ...]) -> bool:
    return _short(path) in {_short(route) for route in routes}
