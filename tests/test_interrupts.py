"""KeyboardInterrupt, or a signal handler that uses the router, at any bytecode of a call: nothing stays in flight, no transaction
stays open, no probe is lost, nothing waits for itself, and the next call works.

`tests/benchmarks/bench_interrupts.py` does the same at a thousand points and more, with real signals too.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
import tempfile
import unittest
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from tests import LONG, ir, part
from tests.cases import WireCase, read
from tests.fakes import HELLO, FakeClock, account, alias_of, streamed, unary
from tests.interrupts import Stepper, steps_of, steps_within
from tests.servers import Peer, ScriptedServer

limits, quota = part("limits"), part("quota")
NOW = 1_800_000_000.0
POINTS = 40 if LONG else 16
"""How many points of each kind of call are tried here."""


def embed(router: Any) -> Any:
    return router.embed(ir.EmbedRequest(["a", "b"], model="chat"))


def stopped(router: Any) -> None:
    """A stream that its caller leaves after the first chunk."""
    with router.stream(HELLO) as stream:
        next(stream)


WHOLE = ("unary", "unbounded", "embed")
"""Calls that leave nothing with their caller: though all frames are kept, all is given back."""


def unbounded(router: Any) -> Any:
    """A call that does not say how long its answer may be."""
    return router.chat_completion(ir.ChatRequest("Hello!", model="chat"))


CALLS: dict[str, Callable[[Any], Any]] = {
    "unary": unary,
    "unbounded": unbounded,
    "stream": streamed,
    "stopped": stopped,
    "embed": embed,
}


def in_file(test: unittest.TestCase) -> Any:
    """A store in a file of its own, gone at the test's end."""
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    test.addCleanup(folder.cleanup)
    store = ir.SQLiteQuotaStore(Path(folder.name, "quota.db"), busy_timeout=0.2)
    test.addCleanup(store.close)
    return store


def locked(store: Any) -> bool:
    """Whether somebody holds the write lock of the store's file."""
    with closing(sqlite3.connect(store._file.path, timeout=0, isolation_level=None)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        db.execute("ROLLBACK")
    return False


class Fixture:
    """A router over one account whose provider answers `status` while that is not 200."""

    def __init__(self, **parts: Any) -> None:
        self.status = 200
        self.clock = FakeClock()
        self.provider = ir.MockProvider(default=lambda body: self.status if self.status != 200 else "one two three")
        config = ir.Config(accounts=[account("mock")], models=[alias_of("mock")])
        parts.setdefault("health", ir.HealthConfig(failure_threshold=1))
        self.router = ir.Router(config, [self.provider], clock=self.clock, **parts)

    def state(self) -> Any:
        return self.router.status()["mock"]

    def trip(self) -> None:
        """Open the breaker, and let its rest pass: the next call is the probe."""
        self.status = 503
        try:
            self.router.chat_completion(HELLO)
        except ir.InferRouterError:
            self.status = 200
        self.clock.advance(31)


def points(fixture: Fixture, name: str, call: Callable[[Any], Any], probe: bool = False, count: int = POINTS) -> list[int]:
    """Some steps of such a call, always the same ones."""
    call(fixture.router)
    if probe:
        fixture.trip()
    steps = steps_of(lambda: call(fixture.router))
    return sorted(random.Random(name).sample(range(1, steps + 1), count))


class AtAnyPoint(unittest.TestCase):
    def test_nothing_stays_in_flight(self) -> None:
        """Wherever a call is cut off, its settlement above all, none is under way afterwards, and the next is answered."""
        for name, call in CALLS.items():
            fixture = Fixture()
            anywhere = points(fixture, name, call, count=2 * POINTS)
            ends = steps_within(partial(call, fixture.router), "LiveAttempt._end")
            for at in (*anywhere, *random.Random(name).sample(ends, POINTS)):
                cut = Stepper(partial(call, fixture.router), at, keep=name in WHOLE)
                self.assertEqual(fixture.state().in_flight, 0, (name, cut.place))
                self.assertEqual(fixture.router.chat_completion(HELLO).text, "one two three", (name, cut.place))

    def test_before_anything_was_wanted(self) -> None:
        """Between the permit and the reservation the interrupt comes out, also of an account that bounds its calls at once."""
        config = ir.Config([ir.AccountConfig("mock", "a", limits={"parallel": 2})], default_model="mock/m")
        router = ir.Router(config, [ir.MockProvider("mock", ["hi"])])
        with router:
            with mock.patch.object(part("attempt"), "amounts_needed", side_effect=KeyboardInterrupt):
                self.assertRaises(KeyboardInterrupt, router.chat_completion, HELLO)
            self.assertEqual(router.status()["a"].in_flight, 0)
            self.assertEqual(router.chat_completion(ir.ChatRequest("hi")).text, "hi")

    def test_no_probe_is_lost(self) -> None:
        """Wherever the one call that a half-open breaker admits is cut off, the next one is admitted at once."""
        for name, call in CALLS.items():
            fixture = Fixture()
            for at in points(fixture, name, call, True):
                fixture.trip()
                cut = Stepper(partial(call, fixture.router), at, keep=name in WHOLE)
                self.assertEqual(fixture.state().in_flight, 0, (name, cut.place))
                self.assertEqual(fixture.router.chat_completion(HELLO).text, "one two three", (name, cut.place))

    def test_what_failed_is_settled_as_it_failed(self) -> None:
        """An interrupt in the midst of settling a refused call leaves nothing half settled: all is given back, or nothing."""
        fixture = Fixture(health=ir.HealthConfig(failure_threshold=10**6))

        def refused() -> None:
            fixture.status = 400
            try:
                fixture.router.chat_completion(HELLO)
            except ir.InvalidRequestError:
                return

        refused()
        steps = steps_of(refused)
        for at in sorted(random.Random(1).sample(range(steps // 2, steps + 1), POINTS)):
            before = fixture.state()
            cut = Stepper(refused, at)
            after = fixture.state()
            requests, tokens = (new.used - old.used for old, new in zip(before.limits[:2], after.limits[:2], strict=True))
            self.assertIn((requests, tokens > 0), {(0, False), (1, True)}, cut.place)
            self.assertEqual(after.in_flight, 0, cut.place)

    def test_no_transaction_stays_open(self) -> None:
        """Wherever a call over a file is cut off, though its traceback is kept, nobody is locked out, and the next call works."""
        for name in ("unary", "stopped"):
            store = in_file(self)
            fixture = Fixture(quota_store=store)
            for at in points(fixture, f"file {name}", CALLS[name]):
                cut = Stepper(partial(CALLS[name], fixture.router), at, keep=True)
                self.assertFalse(locked(store), (name, cut.place))
                self.assertEqual(fixture.router.chat_completion(HELLO).text, "one two three", (name, cut.place))
                cut.kept = None  # and with it a stream that was open
                self.assertEqual(fixture.state().in_flight, 0, (name, cut.place))

    def test_opening(self) -> None:
        """Wherever the opening of a file is cut off, the file can be opened and used."""
        path = in_file(self)._file.path
        opened = lambda: ir.SQLiteQuotaStore(path, busy_timeout=0.2).close()  # noqa: E731  one line, twice used
        made: list[sqlite3.Connection] = []
        real = sqlite3.connect

        def noted(*args: Any, **options: Any) -> sqlite3.Connection:
            made.append(real(*args, **options))
            return made[-1]

        for at in random.Random(5).sample(range(1, steps_of(opened) + 1), POINTS):
            with mock.patch.object(sqlite3, "connect", noted):
                cut = Stepper(opened, at)
            with ir.SQLiteQuotaStore(path, busy_timeout=0.2) as store:
                self.assertFalse(locked(store), cut.place)
            # Nobody has the store whose making was cut off, so nobody can close it: its connection would be told of as unclosed.
            while made:
                made.pop().close()


class OverConnections(WireCase):
    """The same below the router, where an answer comes from a server over a connection that is kept."""

    def test_no_answer_is_anothers(self) -> None:
        """Wherever a call is cut off, or another comes in between, each later answer is that of its own request."""
        # A socket that is cut off as it comes into being is closed as nobody keeps it, which Python tells.
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("ignore", ResourceWarning)
        for tls, pieces in itertools.product(("", "good"), (False, True)):
            with ScriptedServer(doubled, tls) as server:
                number = itertools.count()

                def call(server: ScriptedServer = server, number: Any = number, pieces: bool = pieces) -> None:
                    body = b"id-%d" % next(number)
                    with self.send(server.url, body) as reply:
                        self.assertEqual(read(reply, pieces), body * 2)

                call()
                for at in sorted(random.Random(4).sample(range(1, steps_of(call) + 1), 4 * POINTS)):
                    for then in (None, call):
                        cut = Stepper(call, at, then)
                        self.assertTrue(cut.ended or then is None, cut.place)
                        call()


def doubled(peer: Peer) -> None:
    """Answers each request with its own body, twice, in two chunks or with its length."""
    while (asked := peer.request()) is not None:
        body = asked.partition(b"\r\n\r\n")[2]
        if int(body[3:]) % 2:
            sent = b"Content-Length: %d\r\n\r\n%b" % (2 * len(body), 2 * body)
        else:
            sent = b"Transfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (2 * (b"%x\r\n%b\r\n" % (len(body), body)))
        peer.send(b"HTTP/1.1 200 OK\r\n" + sent)


class InTheMidst(unittest.TestCase):
    """What comes in between uses the same router, in the same thread: it cannot wait for what it interrupts."""

    def between(self, fixture: Fixture, name: str) -> None:
        """Such calls with another one in the midst of each: both are answered, and each is counted once."""
        call = CALLS[name]
        reached = 0
        for at in points(fixture, f"between {name}", call):
            done: list[str] = []
            before = fixture.state().limits[0].used

            def nested(done: list[str] = done) -> None:
                fixture.router.status()
                done.append(unbounded(fixture.router).text)

            cut = Stepper(partial(call, fixture.router), at, nested)
            reached += bool(done)
            self.assertEqual((cut.ended, bool(cut.place)), (True, bool(done)), (name, cut.place))
            state = fixture.state()
            self.assertEqual((state.limits[0].used - before, state.in_flight), (1 + len(done), 0), (name, cut.place))
        self.assertGreater(reached, POINTS // 4)

    def test_in_memory(self) -> None:
        """A call in the midst of a call, at any bytecode of it, over the store in memory and with a meter that counts."""
        for name in CALLS:
            self.between(Fixture(meter=ir.MetricsMeter()), name)

    def test_a_charge(self) -> None:
        """A charge in the midst of another, or of a settlement, at every bytecode of it: each counts once."""
        keys = ("one", "two")
        for settles in (False, True):
            store = ir.MemoryQuotaStore()
            store.define([quota.Bucket(key, limits.Limit(10**6, "tokens", "day")) for key in keys], NOW)

            def charge(amount: float, store: Any = store) -> Any:
                return store.reserve([(key, amount) for key in keys], NOW)

            at, ended, expected = 1, False, 0.0
            while not ended:
                taken = charge(8.0) if settles else None
                work = partial(store.commit, taken, NOW, [3.0, 3.0]) if settles else partial(charge, 3.0)
                cut = Stepper(work, at, partial(charge, 1.0))
                ended, at = not cut.place, at + 1
                expected += 3.0 + (not ended)
                self.assertEqual([each.used for each in store.headroom(keys, NOW)], [expected] * 2, cut.place)
            self.assertGreater(at, 100)

    def test_in_a_file(self) -> None:
        """The same over a file, in whose transaction it may come: that one is rolled back, and begun anew."""
        for name in ("unary", "stopped"):
            self.between(Fixture(quota_store=in_file(self)), name)

    def test_what_fails_after_it(self) -> None:
        """A use of a file that fails, with another one in the midst of it at any bytecode: the file is not left locked."""
        store = in_file(self)
        store.define([quota.Bucket("one", limits.Limit(10**6, "tokens", "day"))], NOW)

        def wrong(reservation: Any) -> None:
            with self.assertRaisesRegex(ir.QuotaStoreError, "give one for each"):
                store.commit(reservation, NOW, [1.0, 2.0])

        at, ended = 1, False
        while not ended:
            cut = Stepper(partial(wrong, store.reserve([("one", 1.0)], NOW)), at, partial(store.reserve, [("one", 1.0)], NOW))
            ended, at = not cut.place, at + 3
            self.assertFalse(locked(store), cut.place)
        self.assertGreater(at, 300)

    def test_closing(self) -> None:
        """A handler that closes the router: the call that it came into is answered, or is told that the router is closed."""
        for store in (None, in_file):
            ends: set[str] = set()
            for at in random.Random(3).sample(range(1, steps_of(partial(unary, Fixture().router)) + 1), POINTS // 2):
                fixture = Fixture(quota_store=store and store(self))

                def call(router: Any = fixture.router, ends: set[str] = ends) -> None:
                    try:
                        ends.add(unary(router).text)
                    except ir.InferRouterError as error:
                        ends.add(str(error))

                cut = Stepper(call, at, fixture.router.close)
                self.assertTrue(cut.ended, cut.place)
            self.assertLessEqual(ends, {"one two three", "this router is closed: make a new one"})


if __name__ == "__main__":
    unittest.main()
