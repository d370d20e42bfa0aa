"""The page in a real browser: it renders, shows a call at once, rests and wakes an account, and asks nobody but its server."""

from __future__ import annotations

import os
import unittest
from pathlib import Path
from typing import Any

from tests import ir
from tests.browser import Browser, missing
from tests.serving import simulator

PRICED = {"max_daily_spend": 0.5, "cost_per_input_token": 1.5e-7, "cost_per_output_token": 6e-7}
LARGE = "meta-llama/llama-4-maverick-17b-128e-instruct:free"
TEXT = "return document.querySelector(arguments[0])?.textContent ?? ''"
CLICK = "document.querySelector(arguments[0]).click()"
WIDE = "return document.documentElement.scrollWidth > arguments[0]"
CONTRAST = """
const parse = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, at) => sum + v * [.2126, .7152, .0722][at], 0);
const back = node => { for (; node; node = node.parentElement) { const c = parse(getComputedStyle(node).backgroundColor);
  if (c.length < 4 || c[3] === 1) return c; } return [255, 255, 255]; };
const poor = [];
for (const node of document.querySelectorAll("h1,h2,h3,td,th,small,li,span,button,p,summary,a")) {
  if (!node.textContent.trim() || !node.offsetParent || node.querySelector("*")) continue;
  const [a, b] = [light(parse(getComputedStyle(node).color)), light(back(node))];
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5 && !node.closest("button.main, .badge")) poor.push(node.textContent.trim() + " " + ratio.toFixed(2));
}
return poor;
"""
UNNAMED = """
return [...document.querySelectorAll("button, input, select, textarea, [role=meter]")]
  .filter(node => node.offsetParent && !(node.textContent.trim() || node.labels?.length || node.getAttribute("aria-label")))
  .map(node => node.outerHTML.slice(0, 80));
"""


@unittest.skipIf(missing(), missing() or "a browser is here")
class BrowserTest(unittest.TestCase):
    browser: Any

    @classmethod
    def setUpClass(cls) -> None:
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.__exit__, None, None, None)

    def setUp(self) -> None:
        self.sim = self.enterContext(simulator.Simulator(chunk_words=1, chunk_delay_s=0.02))
        url, auth = self.sim.base_url, ir.Auth("sk-1")
        accounts = [
            ir.AccountConfig("sim", "gemini-free", base_url=url, auth=auth, daily_free=20, limits={"rpm": 3, "tpd": 100_000}),
            ir.AccountConfig("sim", "groq-free", base_url=url, auth=auth, limits={"rpm": 30, "rpd": 1000, "tpm": 6000}),
            ir.AccountConfig("sim", "local", base_url=url, auth=auth),
            ir.AccountConfig("sim", "openai-paid", base_url=url, auth=auth, paid_enabled=True, daily_free=0, **PRICED),
        ]
        aliases = [ir.ModelMapping("fast", [ir.ModelRef("sim", "small")]), ir.ModelMapping("best", [ir.ModelRef("sim", LARGE)])]
        config = ir.Config(models=aliases, default_model="fast", accounts=accounts, allow_paid=True)
        self.router = ir.Router(config, [ir.OpenAICompatProvider("sim", url)])
        self.addCleanup(self.router.close)
        self.browser.console(), self.browser.hosts()

    def serve(self, **settings: Any) -> Any:
        server = ir.serve(self.router, port=0, **settings)
        self.addCleanup(server.stop, 0)
        self.addCleanup(self.browser.open, "about:blank")
        return server

    def text(self, place: str) -> str:
        return str(self.browser.run(TEXT, place))

    def settled(self, allowed: str = "") -> None:
        """Nothing was said on the console, and nobody else was asked."""
        self.assertEqual([line for line in self.browser.console() if not allowed or allowed not in line], [])
        self.assertEqual(self.browser.hosts(), {"127.0.0.1"})

    def test_the_page(self) -> None:
        """It renders; a call appears within a second; an account is rested and woken; a prompt is tried; all without an error."""
        browser, server = self.browser, self.serve()
        browser.look()
        browser.open(server.url)
        browser.until(lambda: "free requests left today" in self.text("#headline"), "the headline")
        self.assertEqual(browser.run("return document.querySelectorAll('.card h3').length"), 4)
        self.router.rest("local", 3600, "a test")
        import json
        import urllib.request

        body = json.dumps({"model": "fast", "messages": [{"role": "user", "content": "hello"}]}).encode()
        request = urllib.request.Request(server.url + "/v1/chat/completions", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=5).close()
        took = browser.until(lambda: "fast" in self.text("#calls tr"), "the call is shown")
        self.assertLess(took, 1.0)
        browser.until(lambda: "rests" in self.text("article[aria-label='account local'] .badge"), "the account rests")

        browser.run(CLICK, "article[aria-label='account groq-free'] button")
        browser.until(lambda: self.router.status()["groq-free"].holds, "it is rested")
        browser.until(lambda: "Wake" in self.text("article[aria-label='account groq-free'] button"), "the button says so")
        browser.run(CLICK, "article[aria-label='account groq-free'] button")
        browser.until(lambda: not self.router.status()["groq-free"].holds, "it is woken")

        browser.run("document.querySelector('#prompt').value = arguments[0]", "What is the capital of France?")
        browser.run(CLICK, "#send")
        browser.until(lambda: "Paris" in self.text("#answer"), "the answer is there")
        self.assertIn("small", self.text("#served"))
        self.assertEqual(browser.run(UNNAMED), [])
        self.settled()

    def test_every_look(self) -> None:
        """Light, dark and on a phone: nothing is wider than the window, and every text can be read."""
        browser, server = self.browser, self.serve()
        for turn in range(7):
            self.router.chat_completion(ir.ChatRequest("hello", model="fast"))
            body = ir.ChatRequest("hello", model=("fast", "best", "nobody/x")[turn % 3])
            call = server.calls.begin("/chat/completions", "127.0.0.1")
            call.model = body.model
            try:
                found = self.router.explain(body)
                call.lined_up(found.candidates, found.rejections)
                call.routing = self.router.chat_completion(body).routing
                server.calls.end(call, "done", 200)
            except ir.InferRouterError as exc:
                server.calls.end(call, "failed", 404, str(exc))
        self.router.rest("groq-free", 5400, "RateLimitedError: asked to wait")
        waiting = server.calls.begin("/chat/completions", "127.0.0.1")
        waiting.model = "best"
        folder = Path(os.environ.get("INFERROUTER_PICTURES", "")) if os.environ.get("INFERROUTER_PICTURES") else None
        for name, dark, width in (("light", False, 1280), ("dark", True, 1280), ("phone", False, 390), ("phone-dark", True, 390)):
            with self.subTest(name):
                browser.look(dark=dark, width=width, height=1000 if width > 600 else 844)
                browser.open(server.url)
                browser.until(lambda: "free requests left" in self.text("#headline"), "the headline")
                browser.until(lambda: self.text("#calls tr"), "the calls")
                self.assertFalse(browser.run(WIDE, width))
                self.assertEqual(browser.run(CONTRAST), [])
                if folder is not None:
                    browser.picture(folder / f"{name}.png")
        server.calls.end(waiting, "left", 499)
        self.settled()

    def test_texts_of_providers_do_nothing(self) -> None:
        """An error that holds a script is shown as text."""
        browser, server = self.browser, self.serve()
        evil = "<img src=x onerror=document.title='taken'><script>document.title='taken'</script>"
        call = server.calls.begin("/chat/completions", "127.0.0.1")
        call.model = evil
        server.calls.end(call, "failed", 500, evil)
        self.router.rest("local", 600, evil)
        browser.look()
        browser.open(server.url)
        browser.until(lambda: evil in self.text("#calls tr"), "it is shown")
        browser.until(lambda: evil in self.text("article[aria-label='account local'] .holds"), "the reason is shown")
        self.assertEqual(browser.run("return document.title"), "inferrouter")
        self.settled()

    def test_the_token_is_asked_for(self) -> None:
        """With a token the page shows nothing until it is given, and keeps it in its tab alone."""
        browser, server = self.browser, self.serve(token="t0k3n-t0k3n")
        browser.look()
        browser.open(server.url)
        browser.until(lambda: "asks for its token" in self.text("#gatesaid"), "the question")
        browser.run("document.querySelector('#token').value = arguments[0]", "t0k3n-t0k3n")
        browser.run(CLICK, "#gate button")
        browser.until(lambda: "free requests left" in self.text("#headline"), "the headline")
        self.assertEqual(browser.run("return document.cookie + localStorage.length"), "0")
        browser.open("about:blank")
        browser.open(server.url + "/#token=t0k3n-t0k3n")
        browser.until(lambda: browser.run("return location.hash") == "", "the token leaves the address")
        self.settled()

    def test_it_comes_back(self) -> None:
        """When the endpoint goes away the page says so, and goes on when it is there again."""
        browser, server = self.browser, self.serve()
        browser.look()
        browser.open(server.url)
        browser.until(lambda: self.text("#live") == "live", "it is live")
        server.stop(0)
        browser.until(lambda: self.text("#live") == "not connected", "it says so")
        self.serve_again(server.port)
        browser.until(lambda: self.text("#live") == "live", "it is live again", 10)
        self.settled(allowed="net::ERR_")

    def serve_again(self, port: int) -> None:
        server = ir.serve(self.router, port=port)
        self.addCleanup(server.stop, 0)


if __name__ == "__main__":
    unittest.main()
