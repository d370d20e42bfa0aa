"""One at a time: whoever was cut off, forked or interrupted by work in its own midst keeps nobody out."""

from __future__ import annotations

import os
import threading
import time
import unittest
from typing import Any

from tests import part
from tests.fakes import threads

turn = part("turn")
Holder, Turn = turn.Holder, turn.Turn


def other_thread(work: Any) -> Any:
    """What `work` returns in a thread of its own."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(10)
    return found[0]


class Turns(unittest.TestCase):
    def test_one_at_a_time(self) -> None:
        """Eight threads take it two hundred times each, and never two of them have it."""
        made = Turn()
        inside: list[int] = []
        most = 0

        def work(number: int) -> None:
            nonlocal most
            for _ in range(200):
                holder = Holder()
                try:
                    self.assertTrue(made.take(holder, 30))
                    inside.append(number)
                    most = max(most, len(inside))
                    inside.pop()
                finally:
                    made.give(holder)

        with threads(8, work):
            pass
        self.assertEqual((most, len(made._queue)), (1, 0))

    def test_waiting_ends(self) -> None:
        """A turn that another thread keeps is waited for so long and no longer; without a wait not at all."""
        made, holder = Turn(), Holder()
        made.take(holder)
        self.assertFalse(other_thread(lambda: made.take(Holder())))
        began = time.monotonic()
        self.assertFalse(other_thread(lambda: made.take(Holder(), 0.05)))
        self.assertLess(time.monotonic() - began, 1.0)
        self.assertTrue(made.held_by(holder))
        made.give(holder)
        made.give(holder)
        self.assertTrue(other_thread(lambda: made.take(Holder())))

    def test_lost_with_its_holder(self) -> None:
        """A turn that was never given back is free once nobody has its holder any more."""
        made = Turn()
        self.assertTrue(other_thread(lambda: made.take(Holder())))
        self.assertTrue(made.take(Holder()))

    def test_in_the_midst(self) -> None:
        """Work of the same thread takes the turn over and cuts the other, which has lost it then and gives nothing back."""
        made, outer, inner = Turn(), Holder(), Holder()
        made.take(outer)
        self.assertTrue(made.take(inner))
        self.assertEqual((outer.cut, inner.cut, made.held_by(inner)), (True, False, True))
        made.give(outer)
        self.assertTrue(made.held_by(inner))
        made.give(inner)
        self.assertFalse(made.held_by(inner))

    def test_whoever_has_waited_long_is_next(self) -> None:
        """A turn is handed to the first of those who have waited for long, whoever else tries to take it."""
        now = 0.0
        made, holder = Turn(lambda: now), Holder()
        made.take(holder)
        had: list[bool] = []
        thread = threading.Thread(target=lambda: had.append(made.take(Holder(), 30)))
        thread.start()
        while not made._queue:
            time.sleep(0.001)
        waiting = made._queue[0].holder()
        now = turn.LONG_S * 2
        made.give(holder)
        self.assertTrue(made.held_by(waiting))
        thread.join(10)
        self.assertEqual(had, [True])

    @unittest.skipUnless(hasattr(os, "fork"), "no fork here")
    def test_void_in_a_child(self) -> None:
        """A child takes what a thread of its parent had, and is not kept waiting by those who waited there."""
        made, done = Turn(), threading.Event()
        keeps = threading.Thread(target=lambda: (made.take(mine := Holder()), done.wait(10), made.give(mine)))
        keeps.start()
        waits = threading.Thread(target=lambda: made.take(Holder(), 10))
        waits.start()
        while not made._queue:
            time.sleep(0.001)
        pid = os.fork()
        if pid == 0:
            mine = Holder()
            had = made.take(mine)
            made.give(mine)
            os._exit(0 if had and not made._queue else 1)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        done.set()
        keeps.join(10)
        waits.join(10)


if __name__ == "__main__":
    unittest.main()
