"""Serves the router to other tools (`serve`): one address that speaks OpenAI's and Anthropic's formats, with a page to look at.

Strategy: builds a router and a `Serve` from the options, says what to set in a tool, and waits for a signal. The first SIGTERM or
Ctrl-C lets answers under way come to their end, the second one ends them. Signals only count up, since whatever they interrupt
may hold a lock. Must never show the token, nor know HTTP.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .cli_common import DONE, Console, add_config, add_paid, open_router
from .errors import ConfigError
from .meter_metrics import MetricsMeter
from .serve_endpoint import PORT, Serve

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

TOKEN_VARIABLE = "INFERROUTER_TOKEN"  # noqa: S105  # the variable's name
LOOK_S = 0.1
"""Seconds between two looks for a signal."""


def add_serve(parser: ArgumentParser) -> None:
    """What `serve` takes."""
    add_config(parser)
    add_paid(parser)
    parser.add_argument("--port", type=int, default=PORT, help=f"default {PORT}; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1; any other address needs a token")
    parser.add_argument("--token", metavar="T", help=f"what clients must send as their API key; better set ${TOKEN_VARIABLE}")
    parser.add_argument(
        "--allow-host", metavar="NAME", action="append", default=[], help="a name under which this server is known"
    )
    parser.add_argument("--allow-origin", metavar="URL", action="append", default=[], help="web pages of URL may ask here")
    parser.add_argument("--max-clients", type=int, default=256, metavar="N", help="connections at a time; more wait; default 256")
    parser.add_argument(
        "--max-bodies",
        type=int,
        default=256,
        metavar="MIB",
        help="MiB of request bodies held at a time; default 256, at least 32",
    )
    parser.add_argument(
        "--max-wait", type=float, metavar="S", help="seconds a request waits for a slot; default: max_wait, or 60"
    )
    parser.add_argument(
        "--grace", type=float, default=10.0, metavar="S", help="seconds for answers under way at a stop; default 10"
    )
    parser.add_argument("--quiet", action="store_true", help="no access log")
    parser.set_defaults(run=serve)


def serve(options: Namespace, console: Console) -> int:
    """Serve until a signal comes."""
    metrics = MetricsMeter()
    with open_router(options, meter=metrics, allow_paid=options.paid) as router:
        server = Serve(
            router,
            host=options.host,
            port=options.port,
            token=options.token or os.environ.get(TOKEN_VARIABLE),
            hosts=options.allow_host,
            origins=options.allow_origin,
            max_clients=options.max_clients,
            max_wait=options.max_wait,
            max_bodies=options.max_bodies << 20,
            grace=options.grace,
            metrics=metrics,
        )
        with _logging(options.quiet), _signals() as came:
            server.start()
            _introduce(server, console, bool(options.token or os.environ.get(TOKEN_VARIABLE)))
            for warning in router.warnings:
                console.err.line(f"  ! {warning}")
            _until(lambda: bool(came))
            console.err.line(f"stopping: answers under way have {server.grace:g} s; Ctrl-C again stops them now")
            stopping = threading.Thread(target=server.stop, name="inferrouter-stop")
            stopping.start()
            _until(lambda: len(came) > 1 or not stopping.is_alive())
            server.stop(0)
            stopping.join()
    return DONE


def _introduce(server: Serve, console: Console, token: bool) -> None:
    key = f"${TOKEN_VARIABLE}" if token else "any"
    console.out.line(f"serving at {server.url}  (Ctrl-C stops)")
    console.out.line(f"  export OPENAI_BASE_URL={server.url}/v1 OPENAI_API_KEY={key}")
    console.out.line(f"  export ANTHROPIC_BASE_URL={server.url} ANTHROPIC_AUTH_TOKEN={key}")
    console.out.line(f"  a page to look at: {server.url}/")
    if server.host not in ("127.0.0.1", "localhost", "::1"):
        console.err.line(f"  ! others can reach {server.host}: whoever has the token spends your quota", "yellow")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that came, as a list that grows. Raises `ConfigError` outside the main thread, where none can be caught."""
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError("serve: runs in a program's main thread; in another one use ir.serve(router)")
    came: list[int] = []
    known = [signal.SIGINT, signal.SIGTERM]
    before = [signal.signal(number, lambda caught, _: came.append(caught)) for number in known]
    try:
        yield came
    finally:
        for number, handler in zip(known, before, strict=True):
            signal.signal(number, handler)


def _until(done: Callable[[], bool]) -> None:
    pause = threading.Event()
    while not done():
        pause.wait(LOOK_S)


@contextmanager
def _logging(quiet: bool) -> Iterator[None]:
    """The access log on stderr, and errors of the endpoint, for a while."""
    logger = logging.getLogger("inferrouter.serve")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
