"""A process that forks in the midst of calls: no child waits for what nobody has there, and none touches its parent's calls."""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import threading
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import ir, part, rounds
from tests.fakes import HELLO, account, alias_of, delta, make_router, sse
from tests.servers import Peer, ScriptedServer

health, quota_sqlite = part("health"), part("quota_sqlite")
WORDS = [f"word{number} " for number in range(40)]


def in_child(work: Callable[[], object], seconds: int = 20) -> int:
    """What a forked child that does `work` ends with: 0 if it returned; a child that hangs is killed."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def mock_router(**parts: Any) -> Any:
    return ir.Router(
        ir.Config(accounts=[account("mock", limits={"rpd": 10**9, "tpd": 10**12})], models=[alias_of("mock")]),
        [ir.MockProvider()],
        **parts,
    )


@unittest.skipUnless(hasattr(os, "fork"), "no fork here")
class AmongThreads(unittest.TestCase):
    def busy(self, work: Callable[[], object], count: int = 3) -> None:
        """Do `work` over and over in other threads until the test's end. They take turns often: a fork finds them anywhere, and
        does not wait for its turn for long."""
        stop = threading.Event()
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(0.0005)

        def go() -> None:
            while not stop.is_set():
                work()

        running = [threading.Thread(target=go, daemon=True) for _ in range(count)]
        for thread in running:
            thread.start()
        self.addCleanup(lambda: [thread.join(10) for thread in running] and None)
        self.addCleanup(stop.set)

    def file(self) -> Path:
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        return Path(folder.name, "quota.db")

    def test_calls_in_memory(self) -> None:
        """A child whose parent's threads are in calls is answered: neither store, breakers nor anything else keeps it waiting."""
        router = mock_router(meter=ir.MetricsMeter())
        unbounded = ir.ChatRequest("Hello!", model="chat")
        router.chat_completion(unbounded)
        self.busy(lambda: router.chat_completion(unbounded))
        self.assertEqual({in_child(lambda: router.chat_completion(unbounded)) for _ in range(rounds(12, 5))}, {0})

    def test_answers_are_learned_without_waiting(self) -> None:
        """Nothing that keeps how long answers were holds a lock over a fork."""
        router = mock_router()
        request = ir.ChatRequest("hi", model=HELLO.model)
        router.chat_completion(request)  # a fork amid the very first import of a module would be the interpreter's own matter
        self.busy(lambda: router.chat_completion(request))
        self.assertEqual({in_child(lambda: router.chat_completion(request), 5) for _ in range(rounds(25, 8))}, {0})

    def test_calls_over_a_file(self) -> None:
        """The same over a file."""
        with ir.SQLiteQuotaStore(self.file()) as store:
            router = mock_router(quota_store=store)
            router.chat_completion(HELLO)
            self.busy(lambda: router.chat_completion(HELLO))
            self.assertEqual({in_child(lambda: router.chat_completion(HELLO)) for _ in range(5)}, {0})
            self.doCleanups()

    def test_while_a_store_is_opened(self) -> None:
        """A child uses a store though another thread was opening another one."""
        folder = self.file().parent
        names = iter(range(10**6))
        store = quota_sqlite.SQLiteQuotaStore(folder / "a.db")
        self.addCleanup(store.close)
        self.busy(lambda: quota_sqlite.SQLiteQuotaStore(folder / f"{next(names)}.db").close(), 1)
        self.assertEqual({in_child(lambda: store.hold("a", 2.0, "", 1.0)) for _ in range(8)}, {0})

    def test_forks_at_the_same_time(self) -> None:
        """Threads that fork at the same time, with two stores open, wait for each other and not for ever."""
        stores = [quota_sqlite.SQLiteQuotaStore(self.file()) for _ in range(2)]
        for store in stores:
            self.addCleanup(store.close)
        ends: list[int] = []

        def go() -> None:
            for _ in range(3):
                ends.append(in_child(lambda: [store.hold("a", 2.0, "", 1.0) for store in stores]))

        running = [threading.Thread(target=go, daemon=True) for _ in range(4)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(60)
        self.assertEqual(ends, [0] * 12)


@unittest.skipUnless(hasattr(os, "fork"), "no fork here")
class CallsOfTheParent(unittest.TestCase):
    def test_none_is_under_way_in_the_child(self) -> None:
        """What the parent's threads had in flight is not in flight in the child, and a probe of theirs is not waited for."""
        made = health.Health(health.HealthConfig(failure_threshold=1))
        made.release(made.acquire("a", 0.0), health.Verdict.FAILURE, 0.0)
        probe, other = made.acquire("a", 31.0), made.acquire("b", 31.0)
        self.assertIsNone(made.acquire("a", 31.0))

        def child() -> None:
            assert made.peek("b", 31.0)[2] == 0
            assert made.acquire("a", 31.0) is not None
            made.release(probe, health.Verdict.FAILURE, 31.0)  # the parent's: nothing of it is this process's

        self.assertEqual(in_child(child), 0)
        self.assertEqual((made.peek("a", 31.0)[1:], made.peek("b", 31.0)[2]), ((1.0, 1), 1))
        self.assertIsNotNone(other)

    def test_settlements_are_the_parents(self) -> None:
        """A child makes none of the settlements that its parent has left over, of dropped streams and of a store that failed."""
        settled = Path(tempfile.mkstemp()[1])
        self.addCleanup(settled.unlink)

        class Store(ir.MemoryQuotaStore):  # type: ignore[misc, name-defined]  # the package is a value here
            broken = True

            def commit(self, *args: Any) -> bool:
                if self.broken:
                    raise OSError
                with settled.open("a") as out:
                    out.write(f"{os.getpid()}\n")
                return bool(super().commit(*args))

        store = Store()
        router = mock_router(quota_store=store)
        router.chat_completion(HELLO)
        stream = router.stream(HELLO)
        del stream
        gc.collect()
        store.broken = False
        self.assertEqual(in_child(lambda: router.chat_completion(HELLO)), 0)
        self.assertEqual(len(settled.read_text().split()), 1, "the child's own call alone")
        router.chat_completion(HELLO)
        self.assertEqual(settled.read_text().split()[1:], [str(os.getpid())] * 3)

    def test_a_child_that_ends_within_a_call(self) -> None:
        """A child that was forked in the midst of a call, and leaves it, settles nothing of it; its parent does."""
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        ends: list[int] = []

        class Forks:
            def on_route(self, event: object) -> None:
                pid = os.fork()
                if not pid:
                    raise SystemExit
                ends.append(os.waitpid(pid, 0)[1])

            def on_result(self, event: object) -> None:
                pass

        with ir.SQLiteQuotaStore(Path(folder.name, "quota.db")) as store:
            router = mock_router(quota_store=store, meter=Forks())
            try:
                answer = router.chat_completion(HELLO)
            except SystemExit:
                os._exit(0)
            self.assertEqual(ends, [0])
            self.assertEqual(router.status()["mock"].limits[1].used, answer.usage.total_tokens)


@unittest.skipUnless(hasattr(os, "fork"), "no fork here")
class StreamOfTheParent(unittest.TestCase):
    def talk(self, peer: Peer) -> None:
        """Streams all words, each at the parent's word, so that bytes are on their way while the child does its thing."""
        if peer.request() is not None:
            whole = sse(*[delta(word) for word in WORDS], delta("", "stop"), "[DONE]")
            half = len(whole) // 2
            peer.send(whole[:half])
            self.goes_on.wait(20)
            peer.send(whole[half:])

    def parent(self, child: Callable[[Any], object]) -> None:
        """Fork in the midst of a stream; the child does its thing; the parent then has every word, and settles by itself."""
        self.goes_on = threading.Event()
        with ScriptedServer(self.talk) as server, make_router({"a": server.url}) as router:
            with router.stream(HELLO) as stream:
                text = next(stream).text
                self.assertEqual(in_child(lambda: child(stream)), 0)
                state = router.status()["a"]
                self.assertEqual((state.in_flight, state.limits[1].used > 40), (1, True), "as reserved")
                self.goes_on.set()
                text += "".join(chunk.text for chunk in stream)
            self.assertEqual(text, "".join(WORDS))
            self.assertEqual(stream.response.finish_reason, "stop")
            self.assertEqual(router.status()["a"].in_flight, 0)

    def test_closed(self) -> None:
        """A child that closes the stream, as leaving its `with` does, neither reads from it nor settles it."""
        self.parent(lambda stream: stream.close())

    def test_iterated(self) -> None:
        """A child that iterates it gets what was read before the fork, and is told whose it is."""

        def child(stream: Any) -> None:
            try:
                for _ in stream:
                    pass
            except ir.InferRouterError as error:
                assert "belongs to the process that opened it" in str(error)
            else:
                raise AssertionError("no error")

        self.parent(child)

    def test_dropped(self) -> None:
        """A child in which it is garbage leaves it alone."""

        def child(stream: Any) -> None:
            try:
                stream._reply.read_some()
            except part("wire").WireFault:
                stream._reply.close()
            else:
                raise AssertionError("it was read")
            stream.__del__()
            stream._reply.__del__()
            gc.collect()

        self.parent(child)


if __name__ == "__main__":
    unittest.main()
