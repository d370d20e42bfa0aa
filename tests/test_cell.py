"""A value that is replaced in one step: nothing is lost between threads, in the midst of itself, or when it is cut off."""

from __future__ import annotations

import gc
import unittest
import weakref
from typing import Any

from tests import part
from tests.fakes import threads

Cell = part("cell").Cell


def add_one(cell: Any) -> None:
    while True:
        value, seen = cell.look()
        if cell.replace(seen, value + 1):
            return


class Replacing(unittest.TestCase):
    def test_threads(self) -> None:
        """Eight threads that add one five hundred times each have added four thousand."""
        cell = Cell(0)
        with threads(8, lambda number: [add_one(cell) for _ in range(500)] and None):
            pass
        self.assertEqual(cell.look()[0], 4000)

    def test_who_comes_second_changes_nothing(self) -> None:
        """Of two that have seen the same version the first replaces it; the other is told so, and sees the new one."""
        cell = Cell("a")
        _, one = cell.look()
        _, two = cell.look()
        self.assertTrue(cell.replace(one, "b"))
        self.assertFalse(cell.replace(two, "c"))
        self.assertFalse(cell.replace(one, "d"))
        self.assertEqual(cell.look()[0], "b")

    def test_cut_off(self) -> None:
        """Whatever step of a replacement is the last one, the cell has the old value or the new one, and goes on."""
        cell = Cell(1)
        _, seen = cell.look()
        seen[None] = part("cell").Version()  # all that an interrupt may have left undone comes after this
        seen[None].value = 2
        self.assertEqual(cell.look()[0], 2)
        add_one(cell)
        self.assertEqual(cell.look()[0], 3)

    def test_old_values_go(self) -> None:
        """A thread that stops in the middle of a look keeps none of the values that come after it alive."""

        class Value:
            pass

        first = Value()
        cell = Cell(first)
        _, stuck = cell.look()
        gone = []
        for _ in range(5):
            _, seen = cell.look()
            value = Value()
            gone.append(weakref.ref(value))
            cell.replace(seen, value)
        del value, _
        gc.collect()
        self.assertEqual([each() is None for each in gone], [True] * 4 + [False])
        self.assertTrue(stuck)


if __name__ == "__main__":
    unittest.main()
