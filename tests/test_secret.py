"""Secrets: every way out but `reveal()` is closed."""

from __future__ import annotations

import base64
import copy
import dataclasses
import json
import logging
import pickle
import traceback
import unittest
import urllib.parse

from tests import part

secret = part("secret")
Secret, redact = secret.Secret, secret.redact

KEY = "sk-canary/+=0123456789"


@dataclasses.dataclass(frozen=True)
class Holder:
    key: object


class Showing(unittest.TestCase):
    def test_no_way_of_printing_shows_it(self) -> None:
        """repr, str, format and the representation of what holds it show a mask."""
        made = Secret(KEY, "Bearer ")
        holder = Holder(made)
        shown = [
            repr(made),
            str(made),
            f"{made}",
            f"{made!r:>40}",
            f"{made:>30}",
            "%s" % made,  # noqa: UP031 - the old way is a way too
            repr(holder),
            str([made]),
            str(dataclasses.asdict(holder)),
        ]
        for text in shown:
            self.assertIn("***", text)
            self.assertNotIn("canary", text)
        self.assertEqual(repr(made), "Secret('***')")

    def test_a_traceback_with_local_variables_does_not_show_it(self) -> None:
        """A secret in a frame's locals is masked."""
        made = Secret(KEY)
        try:
            raise ValueError(made)
        except ValueError as exc:
            text = "".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format())
        self.assertIn("made = Secret('***')", text)

    def test_a_log_record_does_not_show_it(self) -> None:
        """A secret as a log argument is masked."""
        record = logging.LogRecord("x", logging.INFO, "f", 1, "key %s", (Secret(KEY),), None)
        self.assertEqual(record.getMessage(), "key ***")

    def test_it_has_no_dict_and_no_json(self) -> None:
        """vars() and json refuse it."""
        with self.assertRaises(TypeError):
            vars(Secret(KEY))
        with self.assertRaises(TypeError):
            json.dumps(Secret(KEY))

    def test_it_cannot_be_pickled(self) -> None:
        """Every pickle protocol is refused, alone and inside a value, with advice and without the key."""
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            for item in (Secret(KEY), [Holder(Secret(KEY))]):
                with self.assertRaises(TypeError) as caught:
                    pickle.dumps(item, protocol)
                self.assertNotIn("canary", str(caught.exception))
                self.assertIn("environment", str(caught.exception))

    def test_copies_are_the_same_object(self) -> None:
        """copy and deepcopy give the secret itself."""
        made = Secret(KEY)
        self.assertIs(copy.copy(made), made)
        self.assertIs(copy.deepcopy([made])[0], made)

    def test_an_empty_secret_says_so(self) -> None:
        """No key at all is visible as such, and false."""
        self.assertEqual((repr(Secret()), str(Secret()), bool(Secret())), ("Secret('')", "", False))
        self.assertTrue(Secret(KEY))


class Value(unittest.TestCase):
    def test_reveal_gives_prefix_and_value(self) -> None:
        """The plain value comes out of `reveal` alone, with its prefix."""
        self.assertEqual(Secret(KEY).reveal(), KEY)
        self.assertEqual(Secret(KEY).prefixed("Bearer ").reveal(), f"Bearer {KEY}")
        self.assertEqual(Secret(Secret(KEY)).reveal(), KEY)

    def test_equality_is_by_value(self) -> None:
        """A secret equals secrets and strings of its value, has their hash, and nothing else."""
        self.assertEqual(Secret(KEY), Secret(KEY))
        self.assertEqual(Secret(KEY), KEY)
        self.assertEqual(hash(Secret(KEY)), hash(Secret(KEY)))
        self.assertNotEqual(Secret(KEY), Secret(KEY, "Bearer "))
        self.assertNotEqual(Secret(KEY), "other")
        self.assertNotEqual(Secret("5"), 5)
        self.assertNotEqual(Secret("\udc80ab"), Secret("ab"))

    def test_only_printable_ascii_fits_a_header(self) -> None:
        """Blanks, line breaks, controls and what is not ASCII do not fit."""
        self.assertTrue(Secret(KEY).fits_header())
        self.assertTrue(Secret("!~").fits_header())
        for bad in ("a b", "a\n", "a\r\n b", "\x00a", "a\x7f", "schlüssel", "кey"):
            self.assertFalse(Secret(bad).fits_header(), ascii(bad))


class Redaction(unittest.TestCase):
    def test_every_occurrence_of_every_secret_goes(self) -> None:
        """Texts come back without any of the secrets, with or without their prefix."""
        text = f"Bearer {KEY} and {KEY}{KEY}, also other-key."
        clean = redact(text, [Secret(KEY, "Bearer "), Secret("other-key")])
        self.assertEqual(clean, "Bearer *** and ******, also ***.")

    def test_short_values_are_left_alone(self) -> None:
        """A value under four characters is not a key and masks nothing; four characters are masked."""
        self.assertEqual(redact("a b abc", [Secret(""), Secret("abc")]), "a b abc")
        self.assertEqual(redact("abcd", [Secret("abcd")]), "***")

    def test_what_is_not_secret_stays(self) -> None:
        """A text without the secret comes back unchanged."""
        self.assertEqual(redact("model sk-canary", [Secret(KEY)]), "model sk-canary")

    def test_every_spelling_goes(self) -> None:
        """A key is masked as it is, as JSON, a URL and base64 write it, and as Python shows a backslash."""
        key = 'sk-"quoted"/back\\slash+='
        spelled = [key, json.dumps(key)[1:-1], json.dumps(key)[1:-1].replace("/", "\\/"), urllib.parse.quote(key, safe="")]
        spelled += [repr(key)[1:-1], base64.b64encode(key.encode()).decode().rstrip("=")]
        for text in spelled:
            self.assertEqual(redact(f"a {text} b", [Secret(key)]), "a *** b")
            self.assertTrue(Secret(key).shows_in(f"a {text} b"))

    def test_a_text_cut_inside_the_key_loses_its_beginning(self) -> None:
        """With `cut` the beginning of a key at the very end is masked from four characters on; without it is left."""
        made = Secret(KEY)
        for size in range(1, len(KEY)):
            text = f"key {KEY[:size]}"
            self.assertEqual(made.erase_from(text, cut=True), "key ***" if size >= 4 else text, size)
            self.assertEqual(made.erase_from(text), text)
        self.assertEqual(redact(f"{KEY} and {KEY[:9]}", [made], cut=True), "*** and ***")
        self.assertEqual(made.erase_from(f"{KEY[:9]} goes on", cut=True), f"{KEY[:9]} goes on")
        self.assertEqual(made.erase_from("sk-c", cut=True), "***")

    def test_an_abridged_copy_shows(self) -> None:
        """`shows_in` tells the key and its first eight characters, not less, and no short value."""
        made = Secret(KEY)
        self.assertTrue(made.shows_in(f"x{KEY}x"))
        self.assertTrue(made.shows_in(f"{KEY[:8]}...6789"))
        self.assertFalse(made.shows_in(KEY[:7]))
        self.assertFalse(Secret("abc").shows_in("abc"))
        self.assertTrue(Secret("abcd").shows_in("abcd"))

    def test_a_value_that_no_url_can_hold_is_masked_all_the_same(self) -> None:
        """A lone surrogate in a value breaks nothing."""
        self.assertEqual(redact("a key\udc80x b", [Secret("key\udc80x")]), "a *** b")


if __name__ == "__main__":
    unittest.main()
