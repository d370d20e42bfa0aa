"""What the wire withstands, counted over real sockets: `python3 -m tests.benchmarks.wire_trust` (`--full`: minutes).

Interim answers before good ones, refusals that cannot be read, streams whose finish reasons come early, late and twice, and
answers damaged at random. Each is held against an expectation of its own, and no exception may be foreign.
"""

from __future__ import annotations

import copy
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

from tests import ir, part
from tests.dialects import damaged, frames
from tests.fakes import FakeClock
from tests.faults import KEY_HEADERS, STATUSES, Asked, FaultServer, chunked, good, http, provider, vectors, whole
from tests.servers import Peer, environment
from tests.test_estimated_usage import stream_events
from tests.test_estimated_usage import whole as uncounted
from tests.test_stream_end import MAKERS

CODINGS = (
    "Content-Encoding: gzip",
    "Content-Encoding: br",
    "Content-Encoding: zstd",
    "Transfer-Encoding: gzip",
    "Content-Length: 7",
)
A_WHILE_S = 40 * 86_400  # longer than any hold


def main() -> int:
    """Prints a line for each promise; 1 if one of them is broken."""
    full = "--full" in sys.argv
    broken: list[str] = []
    with environment():
        for name, cases in (
            ("interim answers", interim(full)),
            ("refusals that cannot be read", unreadable(full)),
            ("finish reasons", finishes(4 if full else 3)),
        ):
            began, wrong = time.perf_counter(), Counter(cases)
            broken += [case for case in wrong if case]
            print(f"{name}: {sum(wrong.values())} calls, {sum(wrong.values()) - wrong['']} not as they should be, "
                  f"{time.perf_counter() - began:.1f} s")  # fmt: skip
        for place, count in (("in process", 200_000 if full else 20_000), ("over sockets", 4_000 if full else 400)):
            began = time.perf_counter()
            outcomes = Counter(decoded(count, 11) if place == "in process" else called(count, 12))
            foreign = [name for name in outcomes if name.startswith("foreign")]
            broken += foreign
            total, strange = sum(outcomes.values()), sum(outcomes[name] for name in foreign)
            print(f"fuzzed answers, {place}: {total}, {strange} foreign exceptions, {outcomes['answer']} read, "
                  f"{time.perf_counter() - began:.1f} s")  # fmt: skip
    print(*broken[:20], sep="\n", end="\n" if broken else "")
    return 1 if broken else 0


def interim(full: bool) -> Iterator[str]:
    """A good answer behind answers with every status from 100 to 199 that may precede one."""
    statuses = [status for status in range(100, 200) if status != 101] if full else [100, 102, 103, 150, 199]
    with FaultServer() as server:
        for dialect in KEY_HEADERS:
            with router(dialect, server) as made:
                for status, times, stream in product(statuses, (1, 2, 100), (False, True)):
                    head = b"HTTP/1.1 %d Early\r\nLink: </x>\r\nContent-Length: 5\r\n\r\n" % status

                    def script(peer: Peer, asked: Asked, heads: bytes = head * times) -> object:
                        return peer.send(heads) and good(peer, asked)

                    server.script = script
                    yield "" if outcome(made, stream) == "Hello there." else f"{dialect}: {times} x {status}, stream {stream}"


def unreadable(full: bool) -> Iterator[str]:
    """Refusals in codings that nobody asked for: the status and Retry-After count as without one."""
    statuses = STATUSES if full else (401, 429, 503)
    with FaultServer() as server:
        for dialect, status, coding, stream in product(KEY_HEADERS, statuses, CODINGS, (False, True)):
            found = []
            for header in ("X: y", coding):
                answer = http(b"\x1f\x8b\x08 x", status, "Retry-After: 60", header)
                server.script = lambda peer, asked, answer=answer: peer.send(answer)
                with router(dialect, server) as made:
                    error = outcome(made, stream, pause_s=0.0)
                    error = getattr(error, "attempts", [error])[0]
                    error = getattr(error, "error", error)
                    account = made.status()["a"]
                    holds = [round(hold.until - made.clock.time()) for hold in account.holds]
                    used = [limit.used for limit in account.limits]
                    found.append((type(error).__name__, error.status, error.retry_after, holds, used, account.breaker))
            yield "" if found[0] == found[1] else f"{dialect}: {status} with {coding}, stream {stream}: {found}"


def finishes(longest: int) -> Iterator[str]:
    """Streams of every short history: "w" is content, "." a finish reason, "W" both; ended by [DONE], well, or not at all."""
    with FaultServer() as server:
        for dialect, (make, stop) in MAKERS.items():
            with router(dialect, server) as made:
                for history in ("".join(each) for size in range(1, longest + 1) for each in product("w.W", repeat=size)):
                    items = [make("text " * (mark != "."), stop if mark != "w" else None) for mark in history]
                    for ending in ("done", "end", "cut"):
                        tail = [b"data: [DONE]\n\n"] * (ending == "done")
                        body = chunked(*(frames(item) for item in items), *tail, ended=ending != "cut")
                        server.script = lambda peer, asked, body=body: peer.send(body) and False
                        found, meant = outcome(made, True), "text " * (len(history) - history.count("."))
                        right = found == meant if is_whole(history, ending) else broke_off(found, meant)
                        yield "" if right else f"{dialect}: {history!r} {ending}: {found!r}"


def is_whole(history: str, ending: str) -> bool:
    """Whether such a stream holds a whole answer."""
    said = history.lstrip(".")  # a finish reason before any content says nothing
    if ending == "cut":
        return re.fullmatch(r"w*(?:w\.+|W\.*)", said) is not None
    return ending == "done" or not said or said[-1] != "w"


def broke_off(found: Any, text: str) -> bool:
    """Whether the error is the right one, and holds what came."""
    if text:
        return isinstance(found, ir.StreamInterruptedError) and found.partial.text == text
    return isinstance(found, ir.AllCandidatesFailedError)


def decoded(count: int, seed: int) -> Iterator[str]:
    """What comes of reading so many damaged bodies: whole answers, streams, vectors and refusals of every dialect."""
    rng = random.Random(seed)
    assembler = part("responses").Assembler
    for dialect, method, body in bodies(rng, count):
        named = provider(dialect, "https://api.test/v1")
        try:
            if method == "stream":
                decoder, answer = named.decoder("m"), assembler()
                cut = rng.randrange(1, len(body) + 1) if body else 0
                for chunk in (*decoder.feed(body[:cut]), *decoder.feed(body[cut:]), *decoder.end()):
                    answer.add(chunk)
                made = answer.response(ir.Routing("", "", ""), answer.usage or ir.Usage(), decoder.natives(), decoder.complete)
                shown = f"{made!r} {made.raw!r} {answer.produced}"
            elif method == "error":
                shown = str(named.error(rng.choice((200, 400, 401, 404, 429, 500)), {}, body, rng.choice((0.0, 1.7e9))))
            else:
                shown = repr(named.decode(body, "m") if method == "whole" else named.decode_embed(body, "m"))
            shown.encode()
            yield "answer"
        except ir.InferRouterError:
            yield "refused"
        except Exception as exc:
            yield f"foreign {type(exc).__name__} {dialect} {method}: {body[:300]!r}"


def called(count: int, seed: int) -> Iterator[str]:
    """The same through a router, whose accounts must be left as they were."""
    rng = random.Random(seed)
    with FaultServer() as server:
        routers = {dialect: router(dialect, server) for dialect in KEY_HEADERS}
        for dialect, method, body in bodies(rng, count):
            answer = http(body, rng.choice((400, 429, 500))) if method == "error" else http(body)
            if method == "stream":
                answer = chunked(body, ended=rng.random() < 0.7)
            server.script = lambda peer, asked, answer=answer: peer.send(answer) and False
            try:
                found = outcome(routers[dialect], method == "stream", method == "vectors")
            except Exception as exc:
                yield f"foreign {type(exc).__name__} {dialect} {method}: {body[:300]!r}"
                continue
            if routers[dialect].status()["a"].in_flight:
                yield f"foreign: left in flight by {dialect} {method}: {body[:300]!r}"
            yield "refused" if isinstance(found, ir.InferRouterError) else "answer"
        for made in routers.values():
            made.close()


def bodies(rng: random.Random, count: int) -> Iterator[tuple[str, str, bytes]]:
    """Bodies with values lost or changed, bytes changed, or an end that is missing, by dialect and method."""
    said = {"message": "x", "type": "a_type", "code": "a_code", "details": [{"reason": "R", "retryDelay": "4s"}]}
    shapes = list(product((False, True), repeat=3))
    answers = {dialect: [whole(dialect, "Hello"), *(uncounted(dialect, *shape) for shape in shapes)] for dialect in KEY_HEADERS}
    streams = {dialect: [stream_events(dialect, body) for body in answers[dialect][1:]] for dialect in KEY_HEADERS}
    for number in range(count):
        dialect, method = rng.choice(list(KEY_HEADERS)), rng.choice(("whole", "stream", "stream", "error", "vectors"))
        if method == "vectors" and dialect == "anthropic":
            method = "stream"
        if method == "stream":
            items = list(rng.choice(streams[dialect]))
            place = rng.randrange(len(items))
            items[place] = next(damaged(items[place], rng.randrange(1 << 30), 1))
            if rng.random() < 0.2:
                items.insert(rng.randrange(len(items)), copy.deepcopy(items[place]))
            body = frames(*items)
        else:
            item = rng.choice({"whole": answers[dialect], "error": [{"error": said}], "vectors": [vectors(dialect)]}[method])
            body = json.dumps(next(damaged(item, rng.randrange(1 << 30), 1))).encode()
        yield dialect, method, scratched(rng, body) if number % 3 == 0 else body


def scratched(rng: random.Random, body: bytes) -> bytes:
    """`body` with some bytes changed, and perhaps cut."""
    data = bytearray(body)
    for _ in range(rng.randrange(4)):
        if data:
            data[rng.randrange(len(data))] = rng.choice(b'\x00\n\r"\\{}[],:09eE-.\xff\xf0 u')
    return bytes(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.4 else data)


def outcome(made: Any, stream: bool, embed: bool = False, pause_s: float = A_WHILE_S) -> Any:
    """The text of an answer, or this library's error; afterwards the router's clock goes on until no hold is left."""
    try:
        if embed:
            return made.embed(ir.EmbedRequest(["x"])).embeddings
        if not stream:
            return made.chat_completion(ir.ChatRequest("hi")).text
        with made.stream(ir.ChatRequest("hi")) as opened:
            list(opened)
        return opened.response.text
    except ir.InferRouterError as exc:
        return exc
    finally:
        made.clock.advance(pause_s)


def router(dialect: str, server: FaultServer) -> Any:
    """A router over one account that no failure shuts."""
    account = ir.AccountConfig(dialect, "a", ir.Auth("sk-some-key"), limits={"rpd": 10**6})
    config = ir.Config([account], default_model=f"{dialect}/m", attempt_timeout=20)
    return ir.Router(
        config, [provider(dialect, server.server.url)], health=ir.HealthConfig(failure_threshold=10**9), clock=FakeClock()
    )


if __name__ == "__main__":
    sys.exit(main())
