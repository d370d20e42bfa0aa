"""`router.map`: many requests, paced by the limits, with errors by row, and ended in good order."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import random
import tempfile
import threading
import time
import unittest
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from tests import ir, part
from tests.fakes import NOON, FakeClock, ListMeter
from tests.jobs import mock_router
from tests.quota_servers import wait_until

errors = part("map_errors")
HOUR = 3600.0


class Results(unittest.TestCase):
    def test_in_the_order_of_the_input(self) -> None:
        """Each result has its index, its request and its answer, in the input's order by default."""
        router, _ = mock_router({"rpd": 100}, default=lambda body: body["messages"][0]["content"].upper())
        with router:
            found = list(router.map(["a", "b", ir.ChatRequest("c", model="m"), [{"role": "user", "content": "d"}]]))
        self.assertEqual([result.index for result in found], [0, 1, 2, 3])
        self.assertEqual([result.response.text for result in found], ["A", "B", "C", "D"])
        self.assertEqual(found[0].request, ir.ChatRequest("a"))
        self.assertEqual([result.error for result in found], [None] * 4)
        self.assertEqual(found[1].item, "b")

    def test_as_they_come(self) -> None:
        """With ordered=False a slow first row holds nobody up."""
        gate = threading.Event()
        last = lambda body: gate.wait(10) and "slow" if body["messages"][0]["content"] == "0" else "fast"  # noqa: E731  # short
        router, _ = mock_router({"rpd": 100}, default=last)
        with router:
            order = []
            for result in router.map(map(str, range(4)), workers=2, ordered=False):
                order.append(result.index)
                if len(order) == 3:
                    gate.set()
        self.assertEqual(order[-1], 0)
        self.assertEqual(sorted(order), [0, 1, 2, 3])

    def test_read_as_needed(self) -> None:
        """An endless input is read no further than the window, and closing ends every thread."""
        router, _ = mock_router({"rpd": 100_000})
        read = itertools.count()
        before = threading.active_count()
        run = router.map((f"row {number}" for number in read), workers=4)
        self.assertEqual(threading.active_count(), before)
        with router, run:
            first = [next(run).index for _ in range(5)]
        self.assertEqual(first, [0, 1, 2, 3, 4])
        self.assertLessEqual(next(read), 5 + 16 + 4)
        self.assertEqual(threading.active_count(), before)
        self.assertEqual(list(run), [])

    def test_a_text(self) -> None:
        """A text's request is what `ChatRequest` makes of it, for a model that is a name."""
        request_of = part("map_serving").request_of
        for text, model in (("Hi", "m"), ("", "")):
            self.assertEqual(repr(request_of(text, model)), repr(ir.ChatRequest(text, model)))
        with self.assertRaises(ir.InvalidRequestError):
            request_of("Hi", 3)

    def test_dropping_it_stops_the_threads(self) -> None:
        """An iterator that nobody holds any more takes no further rows."""
        router, provider = mock_router({"rpd": 100_000})
        run = router.map(itertools.repeat("again"), workers=2)
        next(run)
        workers = run._workers
        del run
        workers.join()
        self.assertLess(len(provider.calls), 30)
        router.close()

    def test_an_input_that_breaks(self) -> None:
        """What the caller's own iterable raises comes out as it is, after the rows before it."""

        def rows() -> Any:
            yield "a"
            raise ZeroDivisionError

        router, _ = mock_router({"rpd": 100})
        with router, self.assertRaises(ZeroDivisionError):
            for result in router.map(rows(), workers=1):
                self.assertTrue(result.ok)

    def test_embeddings(self) -> None:
        """An `EmbedRequest` is served by `embed`."""
        router, _ = mock_router({"rpd": 100})
        with router:
            found = list(router.map([ir.EmbedRequest(["a", "b"])]))
        self.assertEqual(len(found[0].response.embeddings), 2)

    def test_wrong_settings(self) -> None:
        """A wrong setting is said at once, by its name, and before anything of the input is read."""
        router, _ = mock_router({"rpd": 100})
        read: list[int] = []
        wrong: list[dict[str, Any]] = [
            *({"workers": value} for value in (0, True, 257, 1.0, "8", None)),
            *({"tries": value} for value in (0, True, None, 10**9)),
            *({"until": value} for value in (-1, True, "18:00", float("nan"), datetime.datetime(1, 1, 1), 10**400)),
            *({"timeout": value} for value in ("1", -1, True, float("nan"))),
            *({"stop_when_spent": value} for value in (None, "yes", -1, float("nan"))),
            *({"ordered": value} for value in (3, None, "no")),
            *({"model": value} for value in (None, 3, ["m"])),
            {"worker": 8},
            {"stream": True},
        ]
        with router:
            for settings in wrong:
                with self.subTest(settings), self.assertRaisesRegex(ir.InvalidRequestError, next(iter(settings))):
                    router.map((read.append(at) for at in range(9)), **settings)
            for requests in ("one string", b"bytes", {"messages": []}, ir.ChatRequest("x"), 3, None):
                with self.subTest(requests), self.assertRaisesRegex(ir.InvalidRequestError, "map takes an iterable"):
                    router.map(requests)
            for arguments in ((), (["a"], 8)):
                with self.subTest(arguments), self.assertRaises(ir.InvalidRequestError):
                    router.map(*arguments)
            fine = router.map(["a"], until=datetime.datetime.max, stop_when_spent=float("inf"), timeout=float("inf"))
            self.assertEqual([result.ok for result in fine], [True])
        with self.assertRaisesRegex(ir.InferRouterError, "router is closed"):
            router.map(read.append(at) for at in range(9))
        self.assertEqual(read, [])


class Pacing(unittest.TestCase):
    def test_uses_every_slot_and_no_more(self) -> None:
        """Rows beyond a day's limits wait ; each day serves exactly what the limits allow, and nobody is refused."""
        meter, clock = ListMeter(), FakeClock()
        days: Counter[int] = Counter()
        note = lambda body: days.update([int((clock.now - NOON + 12 * HOUR) // (24 * HOUR))]) or "ok"  # noqa: E731  # short
        router, _ = mock_router({"rpm": 5, "rpd": 30}, {"rpd": 10}, clock=clock, meter=meter, default=note)
        with router:
            self.assertTrue(all(result.ok for result in router.map(f"row {number}" for number in range(100))))
        self.assertEqual(days, {0: 40, 1: 40, 2: 20})
        self.assertEqual(len(meter.routes), 100)

    def test_first_come_first_served(self) -> None:
        """Rows are served in the order they came, and a waiting row costs a look or two, however many wait."""
        looks = [0]

        class Counted(ir.MemoryQuotaStore):  # type: ignore[misc,name-defined]  # the package under test is found at run time
            def headroom(self, keys: Any, now: float) -> Any:
                looks[0] += 1
                return super().headroom(keys, now)

        asked: list[int] = []
        note = lambda body: asked.append(int(body["messages"][0]["content"])) or "ok"  # noqa: E731  # short
        router, _ = mock_router({"rpm": 5, "rpd": 100}, {"rpm": 3}, default=note, quota_store=Counted())
        with router:
            for _ in router.map(map(str, range(200)), workers=8):
                pass
        self.assertLessEqual(max(abs(place - number) for place, number in enumerate(asked)), 8)
        self.assertGreater(sum(place == number for place, number in enumerate(asked)), 150)
        self.assertLess(looks[0], 4 * 200)

    def test_who_came_first_goes_first(self) -> None:
        """A row that is refused once more stands before those that came later, also where they were refused before it."""
        clock, lock = FakeClock(), threading.RLock()
        pacer = part("map_pacing").Pacer(clock, lock, lambda: False, lambda at: False)
        pacer.awake = 2
        first, second = pacer.enter("m"), pacer.enter("m")
        order: list[int] = []

        def wait(turn: Any) -> None:
            pacer.wait(turn, NOON + 10, "a slot")
            order.append(turn.number)
            pacer.leave(turn)
            with lock:
                pacer.step_aside()

        late = threading.Thread(target=wait, args=(second,))
        late.start()
        while pacer.next_look() is None:
            pass
        early = threading.Thread(target=wait, args=(first,))
        early.start()
        for thread in (late, early):
            thread.join(10)
        self.assertEqual((order, clock.now), ([first.number, second.number], NOON + 10))

    def test_a_call_that_used_less(self) -> None:
        """What was reserved for a call and not used serves a row that waits, at once and not at the next reset."""
        clock = FakeClock()
        asked: list[float] = []

        def reply(body: Any) -> Any:
            asked.append(clock.now)
            while len(asked) == 1 and run._workers._pacer.next_look() is None:
                time.sleep(0.001)
            return ir.MockReply("ok", usage=ir.Usage(10, 10, 20))

        provider = ir.MockProvider("mock", default=reply, models=["m"])
        account = ir.AccountConfig("mock", "a", daily_free=1500, quota_unit="tokens")
        with ir.Router(ir.Config(accounts=[account], default_model="m"), [provider], clock=clock) as router:
            run = router.map([ir.ChatRequest("x", max_tokens=1000)] * 2, workers=2)
            self.assertEqual(sum(result.ok for result in run), 2)
        self.assertEqual(asked, [NOON, NOON])

    def test_two_models_wait_apart(self) -> None:
        """A model whose limit is spent holds up no row of another."""
        clock = FakeClock()
        asked: list[tuple[str, float]] = []
        note = lambda body: asked.append((body["model"], clock.now)) or "ok"  # noqa: E731  # short
        provider = ir.MockProvider("mock", default=note, models=["m", "n"])
        account = ir.AccountConfig("mock", "a", model_limits={"m": {"rpd": 1}, "n": {"rpd": 100}})
        with ir.Router(ir.Config(accounts=[account]), [provider], clock=clock) as router:
            rows = [ir.ChatRequest("x", model="m")] * 3 + [ir.ChatRequest("x", model="n")] * 20
            self.assertEqual(sum(result.ok for result in router.map(rows, workers=4, ordered=False)), 23)
        self.assertEqual([model for model, _ in asked[-2:]], ["m", "m"])
        self.assertEqual({moment for _, moment in asked[:-2]}, {NOON})

    def test_waiting_costs_no_try(self) -> None:
        """Rate limits and spent quotas are waited for, however often they come, with one try a row."""
        limited = [ir.RateLimitedError(retry_after=20), ir.QuotaExceededError(status=429)] * 5
        router, provider = mock_router({"rpd": 1000}, replies=limited)
        with router:
            found = list(router.map(["a", "b"], tries=1, workers=1))
        self.assertEqual([(result.ok, result.tries) for result in found], [(True, 1)] * 2)
        self.assertEqual(len(provider.calls), 12)

    def test_an_overload_costs_no_try(self) -> None:
        """A provider that says it is too busy is asked again until it is not, also before the first answer, with one try a row:
        whether it speaks of the model, of itself, or of limits by turns."""
        said = {"the model": "The model is overloaded.", "itself": "Overloaded, try later", "busy": "We are too busy"}
        for what, text in said.items():
            busy = ir.ProviderUnavailableError(status=503, message=text, scope="model" if what == "the model" else "account")
            replies = [busy, busy, ir.RateLimitedError(retry_after=20), *[busy] * 20]
            clock = FakeClock()
            router, provider = mock_router({"rpd": 1000}, replies=replies, clock=clock)
            with self.subTest(what), router:
                found = list(router.map(["a", "b", "c", "d"], tries=1, workers=2))
                self.assertEqual([(result.ok, result.tries) for result in found], [(True, 1)] * 4)
                self.assertEqual(len(provider.calls), 4 + len(replies))
                self.assertLess(clock.now, NOON + 2 * HOUR)

    def test_an_overload_without_end(self) -> None:
        """Who has been too busy for six hours, and never answered, ends the job with what was said, and no row has failed."""
        clock = FakeClock()
        router, provider = mock_router({"rpd": 100_000}, default=529, clock=clock)
        with router, self.assertRaisesRegex(ir.AllCandidatesFailedError, "529"):
            next(router.map(itertools.repeat("x")))
        self.assertTrue(NOON + 6 * HOUR < clock.now < NOON + 7 * HOUR)
        self.assertLess(len(provider.calls), 10_000)

    def test_order_wastes_nothing(self) -> None:
        """In order too, rows of all sizes use what calls give back, whoever was overtaken: none waits for the next day while
        there is room today."""
        for seed in range(3):
            sizes = random.Random(seed).choices((50, 1000, 3000, 6000), k=60)
            usage = ir.MockReply("ok", usage=ir.Usage(10, 10, 20))
            provider = ir.MockProvider("mock", default=lambda body, usage=usage: time.sleep(0.001) or usage, models=["m"])
            account = ir.AccountConfig("mock", "a", daily_free=6000 + 60 * 20 + 100, quota_unit="tokens")
            with ir.Router(ir.Config(accounts=[account], default_model="m"), [provider]) as router:
                run = router.map([ir.ChatRequest("x", max_tokens=size) for size in sizes], workers=8, until=time.time() + 60)
                self.assertEqual(([result.index for result in run], run.stopped), ([*range(60)], ""))

    def test_a_small_row_passes_one_that_waits_for_long(self) -> None:
        """A row that must wait for the next day keeps no smaller one from what is left of this day."""
        provider = ir.MockProvider("mock", default=ir.MockReply("ok", usage=ir.Usage(10, 10, 20)), models=["m"])
        account = ir.AccountConfig("mock", "a", daily_free=2000, quota_unit="tokens")
        clock = FakeClock()
        with ir.Router(ir.Config(accounts=[account], default_model="m"), [provider], clock=clock) as router:
            rows = [ir.ChatRequest("x", max_tokens=size) for size in (1900, 1900, *[50] * 40)]
            self.assertEqual(sum(result.ok for result in router.map(rows, workers=3)), 42)
        self.assertLess(clock.now, NOON + HOUR)

    def test_stop_when_spent(self) -> None:
        """It stops when no slot comes soon, tells when to come back, and serves what there is."""
        clock = FakeClock()
        router, _ = mock_router({"rpm": 2, "rpd": 6}, clock=clock)
        with router:
            run = router.map(itertools.repeat("x"), stop_when_spent=True)
            self.assertEqual(len(list(run)), 6)
        self.assertEqual((run.stopped, run.retry_at, run.done), ("spent", NOON + 12 * HOUR, 6))
        self.assertLess(clock.now, NOON + 180)

    def test_until(self) -> None:
        """No row begins after `until`, and no slot beyond it is waited for."""
        clock = FakeClock()
        router, _ = mock_router({"rpm": 2}, clock=clock)
        with router:
            run = router.map(itertools.repeat("x"), until=NOON + 300)
            served = len(list(run))
        self.assertEqual((run.stopped, served), ("until", 10))
        self.assertLessEqual(clock.now, NOON + 300)

    def test_the_machines_own_clock(self) -> None:
        """On real time a row that waits hours for its slot is sent home by `close` at once."""
        router, provider = mock_router({"rpd": 3}, clock=ir.SystemClock())
        with router:
            run = router.map(itertools.repeat("x"), workers=4, ordered=False)  # of four at once any three have the slots
            self.assertEqual([next(run).ok for _ in range(3)], [True] * 3)
            run.close()
        self.assertEqual(len(provider.calls), 3)
        self.assertEqual(run.stopped, "stopped")


class Crew(unittest.TestCase):
    """On the machine's own clock, as this is about threads that compute."""

    def test_all_work_where_answers_take_time(self) -> None:
        """Every worker has a call in flight soon, although the first answers have not come yet."""
        together = threading.Barrier(16)
        answered = threading.Event()

        def reply(body: Any) -> str:
            if not answered.is_set():
                together.wait(10)
                answered.set()
            return "ok"

        router, _ = mock_router({"rpd": 1000}, clock=ir.SystemClock(), default=reply)
        with router:
            self.assertEqual(sum(result.ok for result in router.map(["x"] * 100, workers=16)), 100)

    def test_all_work_again_when_answers_take_time_again(self) -> None:
        """A job whose first thousand answers came at once has all its workers in flight when they do not any more, also while
        nobody asks for a result."""
        together = threading.Barrier(16)
        count = itertools.count()

        def reply(body: Any) -> str:
            if 1000 <= next(count) < 1016:
                together.wait(10)
            return "ok"

        router, _ = mock_router({"rpd": 100_000}, clock=ir.SystemClock(), default=reply)
        with router, router.map(["x"] * 1100, workers=16, ordered=False) as run:
            found = [next(run).ok for _ in range(990)]
            self.assertTrue(count_reaches(count, 1016))
            self.assertEqual(sum(found) + sum(result.ok for result in run), 1100)

    def test_the_rule(self) -> None:
        """A few while they compute nearly all the time, more as soon as they wait, all in the end; and fewer again, which is put
        off where it was too few."""
        time_, computed = [0.0], [0.0]
        crew = part("map_crew").Crew(32, lambda: computed[0], lambda: time_[0])

        def looks(share: float) -> int:
            time_[0] += 0.03
            computed[0] += 0.03 * share
            crew.did(computed[0] - 0.03 * share)
            return crew.at_work  # type: ignore[no-any-return]  # the package under test is found at run time

        self.assertEqual((crew.at_work, crew.busy), (2, True))
        self.assertEqual([looks(0.9) for _ in range(3)], [2, 2, 2])
        self.assertEqual([looks(0.1) for _ in range(5)], [4, 8, 16, 32, 32])
        self.assertFalse(crew.busy)
        self.assertEqual([looks(0.7) for _ in range(3)], [32, 32, 32])
        self.assertEqual([looks(0.9) for _ in range(5)], [16, 8, 4, 2, 2])
        crew.more_hands()
        crew.more_hands()
        self.assertEqual((crew.at_work, crew.busy), (32, False))
        self.assertEqual([looks(0.9), looks(0.5)], [16, 32])
        self.assertEqual([looks(0.9) for _ in range(8)], [32] * 7 + [16])
        self.assertEqual(part("map_crew").Crew(8, None, time.monotonic).at_work, 8)

    def test_results_that_come_often(self) -> None:
        """Several are handed over at once where they come within moments, and one by one again where they do not."""
        mapping, map_workers, waiting = part("mapping"), part("map_workers"), part("waiting")
        router, _ = mock_router({"rpd": 1}, clock=ir.SystemClock())
        with router:
            settings = mapping.job_settings(8, None, 3, None, False)
            workers = map_workers.Workers(router, iter(()), lambda item: item, settings)
        found = []
        for seconds in (0.001, 0.001, 0.001, 0.001, 0.001, 0.003, 0.006, 0.006, 0.006, 0.006, 0.3):
            workers._clock = mock.Mock(monotonic=iter((7.0, 7.0 + seconds)).__next__)
            waiting.ring(workers._arrived)
            workers._await_enough()
            found.append(workers._enough)
        self.assertEqual(found, [2, 4, 8, 16, 16, 16, 8, 4, 2, 1, 1])

    def test_a_processor_that_others_want(self) -> None:
        """Twice as many are not kept where they compute no more, which is tried ever less often; where answers take time, or
        nothing comes, there are more at once."""
        time_, computed = [0.0], [0.0]
        crew = part("map_crew").Crew(32, lambda: computed[0], lambda: time_[0])

        def looks(*shares: float) -> list[int]:
            found = []
            for share in shares:
                time_[0] += 0.03
                computed[0] += 0.03 * share
                crew.did(computed[0] - 0.03 * share)
                found.append(crew.at_work)
            return found

        self.assertEqual(looks(*[0.4] * 11), [4, 2, 2, 2, 2, 2, 2, 2, 2, 4, 2])
        self.assertTrue(crew.busy)
        crew.more_hands()
        self.assertEqual((crew.at_work, crew.busy), (8, False))
        self.assertEqual(looks(0.4), [2])
        self.assertEqual(looks(0.1, 0.2, 0.4), [4, 8, 16])
        self.assertEqual(looks(0.7, 0.9), [16, 8])


def count_reaches(count: Any, most: int) -> bool:
    """Whether `count` comes so far within ten seconds; it is not moved by this."""
    end = time.monotonic() + 10
    while int(repr(count)[6:-1]) < most and time.monotonic() < end:
        time.sleep(0.002)
    return int(repr(count)[6:-1]) >= most


class Closing(unittest.TestCase):
    """On the machine's own clock, as this is about threads that sleep."""

    def gone(self, run: Any) -> None:
        """Every thread of `run` ends, of itself and soon."""
        for thread, _ in run._workers._threads:
            thread.join(2)
        self.assertFalse([thread for thread, _ in run._workers._threads if thread.is_alive()])

    def all_sleep(self, run: Any) -> None:
        """Wait until every thread of `run` sleeps for long."""
        quiet = 0
        while quiet < 20:
            time.sleep(0.002)
            quiet = quiet + 1 if run._workers._pacer.awake == 1 else 0  # this thread

    def test_a_router_that_closes(self) -> None:
        """Rows that wait hours for a slot end at once when their router closes: the job ends with its error, after what was
        answered, and its threads are gone."""
        router, provider = mock_router({"rpd": 3}, clock=ir.SystemClock())
        run = router.map(itertools.repeat("x"), workers=4, ordered=False)
        self.assertEqual([next(run).ok for _ in range(3)], [True] * 3)
        self.all_sleep(run)
        began = time.monotonic()
        router.close()
        with self.assertRaisesRegex(ir.InferRouterError, "router is closed"):
            next(run)
        self.assertLess(time.monotonic() - began, 1)
        self.gone(run)
        self.assertEqual((len(provider.calls), list(run)), (3, []))

    def test_a_router_that_closes_while_nobody_asks(self) -> None:
        """Threads without room for another result end when the router closes; the results are still given, then its error."""
        router, provider = mock_router({"rpd": 10_000}, clock=ir.SystemClock())
        run = router.map(itertools.repeat("x"), workers=4, ordered=False)
        next(run)
        self.all_sleep(run)
        router.close()
        self.gone(run)
        found = []
        with self.assertRaisesRegex(ir.InferRouterError, "router is closed"):
            found.extend(iter(lambda: next(run).ok, None))
        self.assertEqual(len(found) + 1, len(provider.calls))
        self.assertLessEqual(len(provider.calls), 17)

    def test_a_router_that_closes_while_the_input_blocks(self) -> None:
        """Whoever asks for a result is told, although the caller's own iterable keeps the thread that reads it."""
        with self.blocked() as (router, run, _):
            router.close()
            with self.assertRaisesRegex(ir.InferRouterError, "router is closed"):
                next(run)

    def test_an_input_that_blocks(self) -> None:
        """`close` does not wait for the caller's iterable, and what was in flight is settled when it returns."""
        answer = threading.Event()
        with self.blocked(lambda body: answer.wait(10) and "ok", take=0) as (router, run, provider):
            threading.Timer(0.05, answer.set).start()
            began = time.monotonic()
            run.close()
            self.assertLess(time.monotonic() - began, 1.0)
            self.assertEqual((len(provider.calls), run.stopped, list(run)), (2, "stopped", []))
            status = router.status()["a0"]
            self.assertEqual((status.limits[0].used, status.in_flight), (2, 0))

    def test_ctrl_c_while_the_input_blocks(self) -> None:
        """The first Ctrl-C ends the job although its input gives nothing more; nor does a second one wait for that."""
        for presses in (1, 2):
            with self.blocked() as (_, run, _):
                workers, left = run._workers, [presses]
                plain = workers.next

                def pressed(tick: Any = None, left: list[int] = left, plain: Any = plain) -> Any:
                    if left[0]:
                        left[0] -= 1
                        raise KeyboardInterrupt
                    return plain(tick)

                workers.next = pressed
                began = time.monotonic()
                with self.subTest(presses=presses), self.assertRaises(KeyboardInterrupt), run:
                    next(run)
                self.assertLess(time.monotonic() - began, 1.0)

    @contextlib.contextmanager
    def blocked(self, reply: Any = "ok", take: int = 2) -> Iterator[tuple[Any, Any, Any]]:
        """A router, its map of which `take` results were given, and its provider; the input gave two rows and then blocks."""
        reads, gate = threading.Event(), threading.Event()

        def rows() -> Iterator[str]:
            yield from ("a", "b")
            reads.set()
            gate.wait(20)
            yield "c"

        router, provider = mock_router({"rpd": 100}, clock=ir.SystemClock(), default=reply)
        run = router.map(rows(), workers=3)
        run._workers.begin()
        try:
            for _ in range(take):
                next(run)
            self.assertTrue(reads.wait(10))
            while len(provider.calls) < 2:
                time.sleep(0.001)
            with mock.patch.object(part("map_workers"), "LEFT_S", 0.03):  # seconds that an end waits for who reads the input
                yield router, run, provider
        finally:
            gate.set()
            self.gone(run)
            router.close()
        self.assertEqual(len(provider.calls), 2)  # what was read too late is not asked


class Errors(unittest.TestCase):
    def test_of_one_row(self) -> None:
        """A refused request and something that is no request are their rows' errors; the others are served."""
        refuse = lambda body: 400 if body["messages"][0]["content"] == "bad" else "ok"  # noqa: E731  # short
        router, _ = mock_router({"rpd": 100}, default=refuse)
        with router:
            found = list(router.map(["a", "bad", 7, "b"]))
        self.assertEqual([result.ok for result in found], [True, False, False, True])
        self.assertIsInstance(found[1].error, ir.InvalidRequestError)
        self.assertEqual((found[2].request, found[2].response, found[2].item), (None, None, 7))

    def test_a_row_too_large_for_every_limit(self) -> None:
        """A row that no limit can ever hold fails at once, and only that row."""
        router, _ = mock_router({"tpm": 2000})
        with router:
            found = list(router.map([ir.ChatRequest("x", max_tokens=size) for size in (100, 5000, 100)]))
        self.assertEqual([result.ok for result in found], [True, False, True])
        self.assertRegex(str(found[1].error), "more than the whole limit")

    def test_bounded_tries(self) -> None:
        """A provider that fails is asked again, so often and no more; then the row has the error."""
        router, provider = mock_router({"rpd": 1000}, replies=["first", 500, 500, "third", 500, 500, 500])
        with router:
            found = list(router.map(["a", "b", "c", "d"], workers=1, tries=3))
        self.assertEqual([result.ok for result in found], [True, True, False, True])
        self.assertEqual([result.tries for result in found], [1, 3, 3, 1])
        self.assertIsInstance(found[2].error, ir.AllCandidatesFailedError)
        self.assertEqual(len(provider.calls), 8)

    def test_a_provider_that_never_works(self) -> None:
        """The job fails some rows and then ends with the error, instead of failing them all or hanging."""
        clock = FakeClock()
        router, _ = mock_router({"rpd": 100_000}, default=500, clock=clock)
        found = []
        with router, self.assertRaises(ir.InferRouterError):
            for result in router.map(itertools.repeat("x")):
                found.append(result)
        self.assertTrue(found)
        self.assertFalse(any(result.ok for result in found))
        self.assertLess(len(found), 40)
        self.assertLess(clock.now, NOON + 20)

    def test_an_outage_is_waited_for(self) -> None:
        """Once there was an answer, an open breaker is waited for like a limit."""
        clock = FakeClock()
        reply = lambda body: 503 if NOON + 60 < clock.now < NOON + HOUR else "ok"  # noqa: E731  # short
        router, _ = mock_router({"rpm": 5}, default=reply, clock=clock)
        with router:
            found = list(router.map(["x"] * 40, tries=200))
        self.assertTrue(all(result.ok for result in found))
        self.assertGreaterEqual(clock.now, NOON + HOUR)

    def test_a_key_that_is_refused(self) -> None:
        """One refused key of two costs no row; when none works the job ends at once and says so."""
        router, _ = mock_router({"rpd": 100}, {"rpd": 100}, replies=[401])
        with router:
            self.assertTrue(all(result.ok for result in router.map(["a", "b", "c"])))
        router, provider = mock_router({"rpd": 100}, {"rpd": 100}, default=401)
        with router, self.assertRaisesRegex(ir.NoCandidatesError, "Authentication"):
            list(router.map(["a"] * 1000))
        self.assertLess(len(provider.calls), 20)

    def test_what_hits_every_row(self) -> None:
        """An unknown model, a model nobody has, accounts that may not be used: the job ends with it."""
        router, _ = mock_router({"rpd": 100}, model="")
        with router:
            with self.assertRaises(ir.UnknownModelError):
                list(router.map(["a"] * 10))
            with self.assertRaises(ir.UnknownModelError):
                list(router.map(["a"] * 10, model="typo"))
            found = list(router.map([ir.ChatRequest("a", model="typo"), ir.ChatRequest("b", model="m")]))
        self.assertEqual([result.ok for result in found], [False, True])
        router, _ = mock_router({"rpd": 100}, default=404)
        with router, self.assertRaises(ir.AllCandidatesFailedError):
            list(router.map(["a"] * 10, workers=1))
        provider = ir.MockProvider("mock", models=["m"])
        paid = ir.Config(accounts=[ir.AccountConfig("mock", "a", paid_enabled=True)], default_model="m")
        with ir.Router(paid, [provider]) as router, self.assertRaisesRegex(ir.NoCandidatesError, "allow_paid"):
            list(router.map(["a"] * 10))

    def test_nothing_that_can_ever_serve(self) -> None:
        """A limit of nothing ends the job with the first row, of whatever kind; a row that alone fits no limit does not, nor one
        that names a model of its own that nobody serves while others are served."""
        kinds: list[Any] = ["a", ir.ChatRequest("a", model="m"), ir.EmbedRequest(["a"], model="m"), ir.EmbedRequest(["a"])]
        for limits in ({"rpd": 0}, {"tpm": 0}, {"rpm": 0, "rpd": 5}):
            for row in kinds:
                router, provider = mock_router(limits)
                read: list[Any] = []
                with (
                    self.subTest(limits=limits, row=row),
                    router,
                    self.assertRaisesRegex(ir.NoCandidatesError, "whole limit of 0"),
                ):
                    list(router.map((read.append(row) or row for _ in range(1000)), workers=2))
                self.assertLess(len(read), 20)
                self.assertFalse(provider.calls)
        provider = ir.MockProvider("mock", models=["m", "n"])
        account = ir.AccountConfig("mock", "a", model_limits={"m": {"rpd": 100, "tpm": 2000}, "n": {"rpd": 0}})
        mixed = [ir.ChatRequest("x", model="n"), ir.ChatRequest("x" * 9000, model="m"), ir.ChatRequest("x", model="m")]
        with ir.Router(ir.Config(accounts=[account]), [provider], clock=FakeClock()) as router:
            self.assertEqual([result.ok for result in router.map(mixed * 20, workers=2)], [False, False, True] * 20)

    def test_a_store_that_fails(self) -> None:
        """A quota store that fails now and then is asked again; one that stays down ends the job."""

        class Flaky(ir.MemoryQuotaStore):  # type: ignore[misc,name-defined]  # the package under test is found at run time
            down = 3

            def reserve(self, wants: Any, now: float) -> Any:
                if self.down:
                    self.down -= 1
                    raise ir.QuotaStoreError("gone")
                return super().reserve(wants, now)

        store = Flaky()
        router, _ = mock_router({"rpd": 100}, quota_store=store)
        with router:
            self.assertTrue(all(result.ok for result in router.map(["a", "b"], workers=1)))
            store.down = 1000
            with self.assertRaises(ir.QuotaStoreError):
                list(router.map(["a", "b"], workers=1))

    def test_the_table(self) -> None:
        """What each kind of error means for a row."""
        limit = ir.Attempt("p", "a", "m", ir.RateLimitedError())
        fault = ir.Attempt("p", "a", "m", ir.ProviderUnavailableError(status=503))
        full = ir.Attempt("p", "a", "m", ir.ProviderUnavailableError(status=529))
        cases: list[tuple[Any, str]] = [
            (ir.NoCandidatesError((), 5.0), "wait"),
            (ir.NoCandidatesError(()), "probe"),
            (ir.AllCandidatesFailedError((limit,), 5.0), "wait"),
            (ir.AllCandidatesFailedError((limit,)), "try"),
            (ir.AllCandidatesFailedError((limit, fault), 5.0), "try"),
            (ir.AllCandidatesFailedError((limit, full), 5.0), "wait"),
            (ir.AllCandidatesFailedError((full,)), "busy"),
            (ir.AllCandidatesFailedError((full, fault)), "try"),
            (ir.ContextWindowError(), "row"),
            (ir.AuthenticationError(), "again"),
            (ir.MalformedResponseError(), "try"),
            (ir.QuotaStoreError("x"), "store"),
            (ir.ConfigError("x"), "job"),
            (ir.InferRouterError("a bug"), "row"),
            (part("errors").router_closed(), "job"),
        ]
        for error, meaning in cases:
            self.assertEqual(errors.judge(error, False, True).meaning.value, meaning, error)


class CutOff(unittest.TestCase):
    """An interrupt while the threads of a job are started."""

    def cut(self, at: int, after: bool) -> Any:
        """Makes the start of the thread `at` an interrupt, before or after it really starts."""
        start, count = threading.Thread.start, itertools.count()

        def cut_off(thread: threading.Thread) -> None:
            mine = next(count) if thread.name.startswith("inferrouter-map") else -1
            if mine != at or after:
                start(thread)
            if mine == at:
                raise KeyboardInterrupt

        return mock.patch.object(threading.Thread, "start", cut_off)

    def test_it_is_the_interrupt_that_comes_out(self) -> None:
        """A map and a batch end with the interrupt, whichever thread was being started, and no thread goes on; whoever iterates
        on is at the end."""
        before = threading.active_count()
        for at, after in itertools.product((0, 2, 3), (False, True)):
            with self.subTest(at=at, after=after), tempfile.TemporaryDirectory() as folder:
                router, _ = mock_router({"rpd": 1000})
                with self.cut(at, after), self.assertRaises(KeyboardInterrupt), router.map(["x"] * 9, workers=4) as run:
                    next(run)
                self.assertLessEqual(len(list(run)), 9)
                Path(folder, "in.txt").write_text("a\nb\n")
                job = part("batch").Batch(Path(folder, "in.txt"), Path(folder, "out.jsonl"), workers=4)
                with self.cut(at, after), self.assertRaises(KeyboardInterrupt):
                    job.run(router)
                self.assertEqual(job.run(router).done, 2)
                wait_until(lambda: threading.active_count() == before, "the end of the threads")
                router.close()


class Interrupts(unittest.TestCase):
    def test_ctrl_c_once(self) -> None:
        """The first Ctrl-C lets what is in flight finish and gives its results; then it is raised."""
        gate = threading.Event()
        router, provider = mock_router({"rpd": 100}, default=lambda body: gate.wait(10) and "ok")
        run = router.map(itertools.repeat("x"), workers=2, ordered=False)
        workers = run._workers
        plain = workers.next

        def interrupted() -> Any:
            while workers.in_flight < 2:
                pass
            workers.next = plain
            gate.set()
            raise KeyboardInterrupt

        workers.next = interrupted
        found = []
        with router, self.assertRaises(KeyboardInterrupt):
            for result in run:
                found.append(result)
        self.assertTrue(2 <= len(found) == len(provider.calls) <= 4)
        self.assertTrue(all(result.ok for result in found))

    def test_ctrl_c_twice(self) -> None:
        """The second is raised at once, whatever is in flight."""
        router, _ = mock_router({"rpd": 100})
        run = router.map(["x"])

        def interrupted() -> Any:
            raise KeyboardInterrupt

        run._workers.next = interrupted
        with router, self.assertRaises(KeyboardInterrupt):
            next(run)
        run.close()


if __name__ == "__main__":
    unittest.main()
