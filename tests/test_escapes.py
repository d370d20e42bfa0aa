"""Words in other spellings: however a key is escaped, packed, cut or escaped again, it is found, and nothing else is."""

from __future__ import annotations

import base64
import html
import itertools
import json
import random
import time
import unittest
import urllib.parse
from collections.abc import Callable

from tests import part, rounds

secret = part("secret")
Secret, redact = secret.Secret, secret.redact

KEY = "sk-a+b/c=d&e\"f'g<h>\\i0123456789"


def every(template: Callable[[int], str]) -> Callable[[str], str]:
    """Each character escaped by `template`."""
    return lambda text: "".join(template(ord(char)) for char in text)


def some(template: Callable[[int], str], seed: int) -> Callable[[str], str]:
    """Some characters escaped by `template`."""

    def spell(text: str) -> str:
        rng = random.Random(seed)
        return "".join(template(ord(char)) if not char.isalnum() or rng.random() < 0.3 else char for char in text)

    return spell


def in_json(text: str) -> str:
    """The inside of a JSON string."""
    return json.dumps(text)[1:-1]


ONE_BY_ONE: dict[str, Callable[[int], str]] = {
    "JSON": lambda code: f"\\u{code:04x}",
    "JSON, capital": lambda code: f"\\u{code:04X}",
    "JavaScript": lambda code: f"\\x{code:02x}",
    "URL": lambda code: f"%{code:02x}",
    "URL, capital": lambda code: f"%{code:02X}",
    "entity": lambda code: f"&#{code};",
    "entity, zeros": lambda code: f"&#0{code};",
    "entity, hexadecimal": lambda code: f"&#x{code:x};",
    "entity, capital": lambda code: f"&#X{code:X};",
}
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    **{f"{name}, each": every(template) for name, template in ONE_BY_ONE.items()},
    **{f"{name}, some": some(template, 1) for name, template in ONE_BY_ONE.items()},
    "json": in_json,
    "json, slashes": lambda text: in_json(text).replace("/", "\\/"),
    "json in json": lambda text: in_json(in_json(text)),
    "json in json in json": lambda text: in_json(in_json(in_json(text))),
    "quote": lambda text: urllib.parse.quote(text, safe=""),
    "quote twice": lambda text: urllib.parse.quote(urllib.parse.quote(text, safe=""), safe=""),
    "html": html.escape,
    "html named": lambda text: html.escape(text).replace("+", "&plus;").replace("=", "&equals;").replace("/", "&sol;"),
    "html in json": lambda text: in_json(html.escape(text)),
    "repr": lambda text: repr(text)[1:-1],
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64, no padding": lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    "base64, for URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 in a URL": lambda text: urllib.parse.quote(base64.b64encode(text.encode()).decode(), safe=""),
}


class Finding(unittest.TestCase):
    def test_every_spelling(self) -> None:
        """A key in any spelling is masked as a whole, with what stands around it left as it is."""
        for name, spell in SPELLINGS.items():
            for before, after in (
                ("", ""),
                ("key: ", " is bad"),
                ('{"a": "', '"}'),
                ("\\n", "\\n"),
                ("% ", " &#"),
                ("\\\\ ", ""),
            ):
                with self.subTest(name, before=before):
                    text = f"{before}{spell(KEY)}{after}"
                    self.assertEqual(redact(text, [Secret(KEY)]), f"{before}***{after}")
                    self.assertTrue(Secret(KEY).shows_in(text))

    def test_packed_among_others(self) -> None:
        """A key within longer base64 is masked but for what its neighbours have a share in."""
        for before, after in itertools.product(("", "a", "ab", "abc", "user:"), ("", "z", "zz", "zzz")):
            text = base64.b64encode(f"{before}{KEY}{after}".encode()).decode()
            masked = redact(text, [Secret(KEY)])
            with self.subTest(before=before, after=after):
                self.assertIn("***", masked)
                self.assertLess(len(masked), len(text) - len(KEY))
                self.assertTrue(Secret(KEY).shows_in(text))

    def test_cut_anywhere(self) -> None:
        """A text that ends within a key, or within one of its escapes, loses what there is of the key."""
        for name, spell in SPELLINGS.items():
            whole = spell(KEY)
            shown = redact(whole[:-1], [Secret(KEY)], cut=True)
            for size in range(max(8, len(spell(KEY[:4]))), len(whole)):
                masked = redact(f"x {whole[:size]}", [Secret(KEY)], cut=True)
                with self.subTest(name, size=size):
                    self.assertTrue(masked.startswith("x ***"), masked)
            self.assertTrue(shown.startswith("***"), name)

    def test_what_is_not_the_key_stays(self) -> None:
        """Texts full of escapes that spell something else come back unchanged."""
        rng = random.Random(3)
        pieces = [
            "\\u0041",
            "%41",
            "&amp;",
            "&nosuch;",
            "\\\\",
            "\\",
            "%",
            "&#",
            "sk-a",
            "sk-a+b/c=d",
            "\\u00",
            "\\ud83d\\ude00",
            "abc",
            "&#1114112;",
        ]
        for _ in range(2000):
            text = "".join(rng.choices(pieces, k=rng.randrange(12)))
            self.assertEqual(redact(text, [Secret(KEY)]), text)

    def test_keys_that_look_like_escapes(self) -> None:
        """A key that holds what looks like an escape is found as it is, and escaped."""
        for key in ("abc%41def", "abc&amp;def", "abc\\u0041def", "%25%25%25%25", "&#43;&#43;", "abcd\\\\"):
            for spell in (str, in_json, lambda text: urllib.parse.quote(text, safe="")):
                with self.subTest(key, spelled=spell(key)):
                    self.assertEqual(redact(f"<{spell(key)}>", [Secret(key)]), "<***>")

    def test_it_takes_its_time(self) -> None:
        """Long texts made of escapes are searched in time that grows with their length."""
        length = rounds(200_000, 70_000)
        for piece in ("\\u0041", "%", "&", "\\", "&#x41;", "&amp;", "%25", '\\"'):
            began = time.perf_counter()
            redact(piece * (length // len(piece)), [Secret(KEY)], cut=True)
            self.assertLess(time.perf_counter() - began, 3.0 * length / 200_000, piece)


if __name__ == "__main__":
    unittest.main()
