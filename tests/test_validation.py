"""What may stand in a base URL and in a header."""

from __future__ import annotations

import unittest

from tests import part

urls = part("validation")
secret = part("secret")

KEY = "sk-canary-0123456789"


GOOD = [
    "https://api.example.com/v1", "https://x_y.internal:8443", "https://10.0.0.1/", "https://[2001:db8::1]:8443/v1",
    "HTTPS://H/", "http://localhost:11434/v1", "http://LOCALHOST/", "http://127.0.0.1:8000", "http://127.9.9.9/",
    "http://[::1]:80/",
]  # fmt: skip

BAD = f"""
    api.example.com  ftp://h/  file:///x  data:,x  javascript:x  //h/  https:  https://  https:///x
    https://u:{KEY}@h/  https://{KEY}@h/  https://h/?key={KEY}  https://h/#{KEY}  https://hé/  https://h\\@e/
    https://h:0/  https://h:65536/  https://h:x/  https://h:/  https://h:+1/  https://a%62/
    https://[::1  https://[::1]x/  https://[x]/  https://[::1%25eth0]/  https://a..b/  https://-a/
""".split()
BAD += ["", f"https://{'a' * 64}/", f"https://{'a.' * 130}/"]
BAD += [f"https://h/{mark}{KEY}" for mark in (" ", "\t", "\n", "\r", "\0", "\x7f", "\u2028")]

ELSEWHERE = [
    "http://h.example/", "http://127.evil.example/", "http://localhost.evil.example/", "http://10.0.0.1/",
    "http://[2001:db8::1]/",
]  # fmt: skip


class BaseUrls(unittest.TestCase):
    def test_good(self) -> None:
        """https anywhere, and http to this machine, with a path and a port, are fine."""
        for url in GOOD:
            self.assertIsNone(urls.check_base_url(url), url)

    def test_bad(self) -> None:
        """Everything else is named as a problem, and the text never repeats what may be a key."""
        for url in BAD:
            problem = urls.check_base_url(url)
            self.assertIsNotNone(problem, url)
            self.assertNotIn(KEY, problem)

    def test_plain_http(self) -> None:
        """Plain http to another machine, also to one whose name only looks local, needs allow_http."""
        for url in ELSEWHERE:
            self.assertIn("http", urls.check_base_url(url), url)
            self.assertIsNone(urls.check_base_url(url, allow_http=True), url)

    def test_a_request_may_have_a_query(self) -> None:
        """The URL of a request may have a query, and no fragment."""
        self.assertIsNone(urls.check_url("https://h/x?alt=sse"))
        self.assertIsNotNone(urls.check_url("https://h/x?alt=sse#y"))


class Headers(unittest.TestCase):
    def test_values(self) -> None:
        """Printable ASCII passes, with spaces inside but not at the ends; the problem never repeats the value."""
        keys = secret.Secret(KEY), secret.Secret(KEY, "Bearer "), secret.Secret(""), secret.Secret(f"a={KEY}; b=c")
        for good in ("", "x", "application/json; charset=utf-8", *keys):
            self.assertIsNone(urls.check_header_value(good))
        for mark in ("\n", "\r", "\r\n x", "\n\tfold", "\0", "\x0b", "\x7f", "\x80", "é", "€", "\u0661"):
            for bad in (f"{KEY}{mark}", f"{mark}{KEY}", secret.Secret(f"{KEY}{mark}"), secret.Secret(f"a{mark}{KEY}")):
                problem = urls.check_header_value(bad)
                self.assertIsNotNone(problem, repr(mark))
                self.assertNotIn(KEY, problem)
        for bad in (f" {KEY}", f"{KEY} ", f"{KEY}\t", secret.Secret(f"{KEY} "), secret.Secret(f" {KEY}")):
            self.assertIsNotNone(urls.check_header_value(bad))

    def test_names(self) -> None:
        """A header name is a token."""
        self.assertIsNone(urls.check_header_name("x-goog-api-key"))
        for bad in ("", "a b", "a:", "a\n", "é", "a\r\nb"):
            self.assertIsNotNone(urls.check_header_name(bad))


if __name__ == "__main__":
    unittest.main()
