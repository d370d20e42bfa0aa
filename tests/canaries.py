"""Keys that must never be seen again, and the search for them in everything a call leaves behind.

`sweep` makes every public call meet every trouble with keys that the stand-in echoes wherever it can, and looks into
exceptions, tracebacks with locals, logs, meter events, states, pickles and the quota file.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import pickle
import tempfile
import traceback
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests import ir, part
from tests.fakes import EveryHook, FakeClock
from tests.faults import KEY_HEADERS, REDIRECTS, SILENT, TIME_LIMIT_S, TROUBLES, FaultServer, Script, provider, redirects
from tests.servers import ScriptedServer, answering, environment

Secret = part("secret").Secret

USABLE = {
    "plain": "CnrPlain7-4f1d0c2b9e8a7766554433221100",
    "with /+=": "Cnr/+=Odd8/zQ9+wE4==rT5/yU6+iO7=",
    "200 characters": "CnrLong9" + "aB3dE6gH" * 24,
}
REFUSED = {"line break": "CnrBreak-5a6b7c8d9e0f\n", "unicode": "CnrÜñï-5a6b7c8d9e0fключ"}
CANARIES = USABLE | REFUSED
HELLO = "Hello!"


@dataclass
class Evidence:
    """What was searched, and what was found."""

    looked: int = 0
    found: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        every = {form.lower(): f"{name}, {kind}" for name, key in CANARIES.items() for kind, form in forms(key)}
        # A form that holds another one is found with it.
        self._forms = {form: name for form, name in every.items() if not any(other in form for other in every if other != form)}

    def look(self, sink: str, shown: object) -> None:
        """Search `shown`, as text or bytes, or whatever its repr is."""
        self.looked += 1
        text = shown.decode("latin-1") if isinstance(shown, bytes) else shown if isinstance(shown, str) else repr(shown)
        lowered = text.lower()
        if lowered in self._seen:
            return
        self._seen.add(lowered)
        for form, name in self._forms.items():
            if form in lowered:
                at = lowered.index(form)
                self.found.append(f"{sink} shows the canary {name}: {text[max(at - 60, 0) : at + 20]!r}")

    def look_at(self, sink: str, value: object) -> None:
        """Search every way in which a value shows itself, and what is inside it."""
        self.look(f"{sink}: repr", repr(value))
        self.look(f"{sink}: str", str(value))
        self.look(f"{sink}: inside", "\n".join(inside(value)))
        try:
            self.look(f"{sink}: pickle", pickle.dumps(value))
        except (TypeError, AttributeError, pickle.PicklingError) as exc:
            self.look(f"{sink}: refused pickle", repr(exc))

    def look_at_error(self, sink: str, error: BaseException, shown: str) -> None:
        """Search an exception and everything behind it; `shown`: its traceback with locals."""
        self.look(f"{sink}: traceback", shown)
        for link in chain(error):
            self.look(f"{sink}: args", repr(link.args))
            self.look(f"{sink}: vars", repr(vars(link)))
            self.look_at(sink, link)


def forms(key: str) -> Iterator[tuple[str, str]]:
    """The ways in which a key, or enough of it, could be written."""
    raw = key.encode()
    yield "whole", key.strip()
    yield "first 8", key[:8]
    yield "base64", base64.b64encode(raw).decode().rstrip("=")[:-2]
    yield "URL", quote(key.strip(), safe="")
    yield "sha256", hashlib.sha256(raw).hexdigest()
    yield "escaped", ascii(key.strip())[1:-1]


PLAIN = frozenset((int, float, bool, type(None)))
"""What holds no text."""


def inside(value: object) -> list[str]:
    """Every text inside `value`: attributes, slots and items, shown in its repr or not. `Secret`s stay closed."""
    found: list[str] = []
    level = [value]
    for _ in range(7):
        below: list[object] = []
        for each in level:
            if isinstance(each, str):
                found.append(each)
            elif isinstance(each, (bytes, bytearray)):
                found.append(bytes(each).decode("latin-1"))
            elif type(each) not in PLAIN and not isinstance(each, (type, Secret)):
                _add_parts(each, below)
        level = below
    return found


def _add_parts(value: object, parts: list[object]) -> None:
    if isinstance(value, Mapping):
        parts += value
        parts += value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts += value
    parts += getattr(value, "__dict__", {}).values()
    kind: Any = type(value)
    parts += [getattr(value, name, None) for name in _slots(kind)]


@cache
def _slots(kind: Any) -> tuple[str, ...]:
    return tuple(name for each in kind.__mro__ for name in getattr(each, "__slots__", ()))


def chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and every exception behind it: causes, contexts, and those kept as attributes."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        link = todo.pop()
        if isinstance(link, BaseException) and id(link) not in seen:
            seen.add(id(link))
            todo += [link.__cause__, link.__context__, getattr(link, "cause", None)]
            todo += [attempt.error for attempt in getattr(link, "attempts", ())]
            yield link


def caught(call: Callable[[], object]) -> tuple[BaseException | None, str]:
    """What `call` raised, and its traceback with the locals of every frame; `assertRaises` would have cleared those."""
    try:
        call()
    except Exception as exc:
        return exc, "".join(traceback.TracebackException(type(exc), exc, exc.__traceback__, capture_locals=True).format())
    return None, ""


class Records(logging.Handler):
    """Keeps every log record of the process at DEBUG, in a `with` block."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)

    def __enter__(self) -> Records:
        root, ours = logging.getLogger(), logging.getLogger("inferrouter")
        self._levels = root.level, ours.level
        root.addHandler(self)
        root.setLevel(logging.DEBUG)
        ours.setLevel(logging.DEBUG)
        return self

    def __exit__(self, *exc: object) -> None:
        root, ours = logging.getLogger(), logging.getLogger("inferrouter")
        root.removeHandler(self)
        root.setLevel(self._levels[0])
        ours.setLevel(self._levels[1])


class EveryMeter(EveryHook):
    """Keeps the events, and writes them to the log."""

    def __init__(self) -> None:
        super().__init__()
        self._log = ir.LogMeter()

    def on_route(self, event: Any) -> None:
        super().on_route(event)
        self._log.on_route(event)

    def on_result(self, event: Any) -> None:
        super().on_result(event)
        self._log.on_result(event)

    def on_call(self, event: Any) -> None:
        super().heard(event)
        self._log.on_call(event)

    def on_hold(self, event: Any) -> None:
        super().heard(event)
        self._log.on_hold(event)


@dataclass
class Sweep:
    """What a sweep did. `foreign`, `successes`, `misplaced`: what must not be, in words."""

    evidence: Evidence = field(default_factory=Evidence)
    injected: int = 0
    classified: int = 0
    redirects: int = 0
    strangers: int = 0
    foreign: list[str] = field(default_factory=list)
    successes: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)


def sweep(turns: Iterable[tuple[str, str]] | None = None) -> Sweep:
    """Every trouble x public call for each of `turns`, a canary's name and a dialect (None: all there are), and a look at
    everything that is left."""
    done = Sweep()
    turns = [(name, dialect) for name in USABLE for dialect in KEY_HEADERS] if turns is None else turns
    with (
        environment(),
        tempfile.TemporaryDirectory() as folder,
        Records() as records,
        warnings.catch_warnings(record=True) as warned,
        ScriptedServer(answering(b"")) as first_unknown_field,
        FaultServer(first_unknown_field.url) as fault_server,
    ):
        warnings.simplefilter("always")
        for turn, (name, dialect) in enumerate(turns):
            _one_account(done, fault_server, dialect, USABLE[name], Path(folder) / f"{turn}.db")
        for record in records.kept:
            done.evidence.look("log message", record.getMessage())
            done.evidence.look_at("log record", vars(record))
        for warning in warned:
            done.evidence.look("warning", str(warning.message))
        done.strangers = first_unknown_field.connections
    return done


def scripts(elsewhere: str) -> dict[str, Script]:
    """Every trouble, redirects to `elsewhere` included."""
    return TROUBLES | {f"redirect {status}": redirects(status, elsewhere) for status in REDIRECTS}


def _one_account(done: Sweep, fault_server: FaultServer, dialect: str, key: str, path: Path) -> None:
    clock, meter, evidence = FakeClock(), EveryMeter(), done.evidence
    before = len(fault_server.requests)
    with router_over(dialect, fault_server.server.url, key, path, clock, meter) as router:
        for trouble, script in scripts(fault_server.elsewhere).items():
            fault_server.script = script
            silent = trouble in SILENT
            made = calls(router, dialect, TIME_LIMIT_S if silent else 5.0)
            with ThreadPoolExecutor(len(made) if silent else 1) as pool:  # who meets silence takes its whole time
                ends = dict(zip(made, pool.map(caught, made.values()), strict=True))
            for method, (error, shown) in ends.items():
                where = f"{dialect} {method}, {trouble}"
                done.injected += 1
                done.redirects += trouble.startswith("redirect")
                if error is None:
                    done.successes.append(where)
                elif not isinstance(error, ir.InferRouterError):
                    done.foreign.append(f"{where}: {error!r}")
                else:
                    done.classified += 1
                if error is not None:
                    evidence.look_at_error(where, error, shown)
            evidence.look_at(f"{dialect}, {trouble}: status", dict(router.status()))
            evidence.look_at(f"{dialect}, {trouble}: explain", router.explain(ir.ChatRequest(HELLO)))
            for event in meter.events:
                evidence.look_at(f"{dialect}, {trouble}: event", event)
            meter.events.clear()
            clock.advance(3 * 86_400)
        for file in path.parent.iterdir():
            evidence.look(f"the file {file.name}", file.read_bytes())
        for thing in (router, router.warnings, *objects_of(router)):
            evidence.look(f"{dialect}: repr of {type(thing).__name__}", repr(thing))
        done.misplaced += misplaced([request for _, request in fault_server.requests[before:]], key, KEY_HEADERS[dialect])


def objects_of(router: Any) -> Iterator[object]:
    """What a router holds, as far as it can be reached."""
    config = router._config
    yield from (config, *config.accounts, *(account.auth for account in config.accounts))
    yield from (router._ledger, router._runtime, router._transport, router._routes, *router._routes.bound_accounts)
    yield from router._routes.providers.values()


def misplaced(requests: list[bytes], key: str, header: str) -> list[str]:
    """The first lines of those of `requests` that hold `key` anywhere but once, in the header named `header`."""
    proper = f"\r\n{header}: ".encode()
    wrong = []
    for request in requests:
        head, _, body = request.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if key.encode() in line]
        right = len(lines) == 1 and (b"\r\n" + lines[0]).lower().startswith(proper) and request.count(key.encode()) == 1
        if not right or key.encode() in body:
            wrong.append(request.split(b"\r\n")[0].decode("latin-1"))
    return wrong


def router_over(dialect: str, url: str, key: str, path: Path, clock: Any, meter: Any, **account: Any) -> Any:
    """A router with one account at `url` and its counts in the file `path`; its breaker never opens."""
    one = ir.AccountConfig(dialect, "first", ir.Auth(key), daily_free=10**6, limits={"tpd": 10**9}, **account)
    quota = ir.QuotaConfig("sqlite", path)
    config = ir.Config([one], [ir.ModelMapping("m", [ir.ModelRef(dialect, "m")])], default_model="m", quota=quota)
    health = ir.HealthConfig(failure_threshold=10**6)
    return ir.Router(config, [provider(dialect, url)], clock=clock, meter=meter, health=health)


def calls(router: Any, dialect: str, timeout: float) -> dict[str, Callable[[], object]]:
    """The public calls that ask a provider, each bound to give up after `timeout` seconds."""

    def stream() -> None:
        with router.stream(ir.ChatRequest(HELLO), timeout=timeout) as opened:
            deque(opened, maxlen=0)  # keeps no chunk: what the model said is the caller's

    made: dict[str, Callable[[], object]] = {
        "chat": lambda: router.chat_completion(ir.ChatRequest(HELLO), timeout=timeout),
        "stream": stream,
    }
    if dialect != "anthropic":
        made["embed"] = lambda: router.embed(ir.EmbedRequest([HELLO], model="m"), timeout=timeout)
    return made
