"""The JSON of requests and answers: what is read, what is refused, and the status that an error names."""

from __future__ import annotations

import unittest

from tests import part

wire_json = part("wire_json")
errors = part("errors")


class Vectors(unittest.TestCase):
    def test_numbers(self) -> None:
        """Whole numbers and fractions are read as they are."""
        self.assertEqual(wire_json.read_vector([1, 0.5, -2], "x"), (1.0, 0.5, -2.0))

    def test_not_a_vector(self) -> None:
        """What is not a list of finite numbers is malformed, and the error says which value it was."""
        for values in (None, [], {}, "1", [True], ["1"], [None], [1e400], [float("nan")], [10**400]):
            with self.assertRaisesRegex(errors.MalformedResponseError, "data.3. ", msg=values):
                wire_json.read_vector(values, "data[3]")


class Errors(unittest.TestCase):
    def test_the_status_an_error_names(self) -> None:
        """A status is a number from 400 to 599, or its three digits; anything else is not one."""
        for code, status in (
            (429, 429),
            ("503", 503),
            (399, 0),
            (600, 0),
            ("04290", 0),
            ("4290", 0),
            ("\u0664\u0662\u0669", 0),
            (True, 0),
        ):
            self.assertEqual(wire_json.embedded_status({"error": {"code": code}}, 0), status, code)
            self.assertEqual(wire_json.embedded_status([{"code": code}], 0), status, code)

    def test_an_answer_that_is_an_error(self) -> None:
        """An object with an error, or a list that begins with one, is an error; an empty error does not count."""
        for item, found in (
            ({"error": "x"}, True),
            ([{"error": {"a": 1}}], True),
            ({"error": None}, False),
            ([], False),
            ("x", False),
        ):
            self.assertEqual(wire_json.has_error(item), found, item)


if __name__ == "__main__":
    unittest.main()
