"""Nothing is left behind: after thousands of calls that went wrong there are no more sockets, files or threads than before."""

from __future__ import annotations

import gc
import tempfile
import unittest
from pathlib import Path

from tests import LONG, ir, rounds
from tests.cases import open_files, thread_count
from tests.fakes import FakeClock
from tests.faults import KEY_HEADERS, Asked, FaultServer, chunked, events, provider
from tests.loops import HELLO, SAID, cuts, mix, overshoot, router_of
from tests.servers import Peer, environment
from tests.test_transport_deadlines import GRACE_S


class Resources(unittest.TestCase):
    def test_random_troubles(self) -> None:
        """Hundreds of calls with a random mix of all troubles end as they should, and leave no file and no thread."""
        done = mix(rounds(500, 200))
        self.assertEqual(done.wrong, [])
        self.assertEqual((done.files, done.threads), (0, 0))
        self.assertGreater(done.troubles, 0.5 * done.calls)
        self.assertGreater(done.abandoned, done.calls / 40, "streams were dropped halfway")

    def test_many_routers(self) -> None:
        """Many routers, opened, used for a call and for a stream that is dropped, and closed, leave nothing."""
        self.enterContext(environment())
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        with FaultServer() as fault_server:
            self.use(router_of([provider("openai", fault_server.server.url)]))  # what loads once is loaded now
        gc.collect()
        before = open_files(), thread_count()
        with FaultServer() as fault_server:
            for number in range(rounds(50, 20)):
                dialect = list(KEY_HEADERS)[number % 3]
                if number % 2:
                    quota = ir.QuotaConfig("sqlite", folder / f"{number}.db")
                    account = ir.AccountConfig(dialect, "a", ir.Auth("sk-some-key"), base_url=fault_server.server.url)
                    config = ir.Config([account], quota=quota, default_model=f"{dialect}/m")
                    self.use(ir.Router(config, clock=FakeClock()))
                else:
                    self.use(router_of([provider(dialect, fault_server.server.url)]))
        gc.collect()
        self.assertEqual((open_files(), thread_count()), before)

    def use(self, router: object) -> None:
        with router as opened:  # type: ignore[attr-defined]  # a router, of whichever package is tested
            self.assertEqual(opened.chat_completion(HELLO).text, SAID)
            next(opened.stream(HELLO))

    def test_closed_though_kept(self) -> None:
        """A stream that is closed early has closed its socket, even while the program keeps the stream."""
        gone: list[bool] = []

        def script(peer: Peer, asked: Asked) -> bool:
            peer.send(chunked(*events(asked.dialect, "Hello ", ended=False), ended=False))
            gone.append(peer.gone())
            return False

        with environment(), FaultServer() as fault_server, router_of([provider("openai", fault_server.server.url)]) as router:
            fault_server.script = script
            stream = router.stream(HELLO)
            next(stream)
            stream.close()
            for thread in fault_server.server._threads[1:]:
                thread.join(5)
            self.assertEqual(gone, [True])
            self.assertEqual(stream.response.text, "Hello ")

    def test_an_open_router_keeps_few(self) -> None:
        """One open router keeps its idle connections and nothing else, however many calls it has made."""
        with environment(), FaultServer() as fault_server, router_of([provider("openai", fault_server.server.url)]) as router:
            router.chat_completion(HELLO)
            before = open_files(), thread_count()
            for _ in range(200):
                router.chat_completion(HELLO)
            self.assertEqual((open_files(), thread_count()), before)


class Bounds(unittest.TestCase):
    def test_cut_at_every_byte(self) -> None:
        """A stream that ends before its terminal marker is an error with what came of it; after the marker it is whole."""
        done = cuts()
        self.assertEqual(done.wrong, [])
        self.assertEqual(done.noticed, done.before)
        self.assertGreater(done.before, 1000 if LONG else 400)

    def test_slow_servers(self) -> None:
        """Against every slow server a call ends by its timeout, whole or streamed."""
        done = overshoot()
        self.assertEqual(done.wrong, [])
        self.assertLess(done.worst_s, GRACE_S)
        self.assertEqual(done.calls, 18)


if __name__ == "__main__":
    unittest.main()
