"""Makes the page at `/`: one file of HTML with its style and script inside, that asks nobody but its own server.

Strategy: the markup is the frame, filled by the script from the stream of snapshots. The policy that goes with it allows exactly
this style and this script, by their hashes, and connections to the page's own origin, so that a text that came from a provider
can do nothing. Must never hold a fact about the router, so that it may be shown to whoever asks.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache

from .serve_page_script import SCRIPT
from .serve_page_style import STYLE

_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>inferrouter</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body{needs_token}>
<form class="card gate" id="gate" hidden>
  <h2>inferrouter</h2>
  <p id="gatesaid" role="status"></p>
  <input type="text" autocomplete="username" value="inferrouter" hidden aria-label="user">
  <label for="token">Token</label>
  <input id="token" type="password" autocomplete="current-password" required>
  <button class="main">Look</button>
</form>
<div id="inside">
<div class="top"><span class="name">inferrouter</span><span class="live" id="live" role="status">connecting</span></div>
<main>
  <h1 id="headline">Looking&hellip;</h1>
  <ul class="facts" id="facts"></ul>
  <p class="sr" id="said" role="status"></p>
  <section aria-labelledby="h-accounts">
    <h2 id="h-accounts">Accounts</h2>
    <div class="accounts" id="accounts"></div>
  </section>
  <section aria-labelledby="h-day" id="day" hidden>
    <h2 id="h-day">What the rest of the day carries, hour by hour</h2>
    <ol class="hours card" id="hours"></ol>
  </section>
  <section aria-labelledby="h-now">
    <h2 id="h-now">Now</h2>
    <p class="empty" id="idle">Nothing is under way.</p>
    <ul class="now" id="now"></ul>
  </section>
  <section aria-labelledby="h-calls">
    <h2 id="h-calls">Calls of the last hour</h2>
    <p class="empty" id="none">No call yet. Point a tool at this address with /v1 behind it, or try a prompt below.</p>
    <div class="table" id="table" hidden>
      <table>
        <thead><tr><th scope="col">Asked for</th><th scope="col">Answered by</th><th scope="col" class="num">Tokens</th>
          <th scope="col" class="num">Cost</th><th scope="col" class="num">Time</th><th scope="col">Why</th></tr></thead>
        <tbody id="calls"></tbody>
      </table>
    </div>
  </section>
  <section aria-labelledby="h-try">
    <h2 id="h-try">Try a prompt</h2>
    <form class="card try" id="form">
      <label class="sr" for="prompt">Prompt</label>
      <textarea id="prompt" required placeholder="Why is the sky blue?"></textarea>
      <div class="row">
        <label class="sr" for="models">Model</label>
        <select id="models"></select>
        <button class="main" id="send">Ask</button>
      </div>
      <div id="output" hidden aria-live="polite"><p id="served"></p><pre id="answer"></pre></div>
    </form>
  </section>
  <ul class="notes" id="notes"></ul>
  <p class="end">The same as JSON: <a href="/status.json">/status.json</a>; for Prometheus: <a href="/metrics">/metrics</a>.</p>
</main>
</div>
<script>{script}</script>
</body>
</html>
"""


def page(needs_token: bool) -> bytes:
    """The page. `needs_token`: it asks for one before it looks."""
    marked = ' data-token="1"' if needs_token else ""
    return _FRAME.format(style=STYLE, script=SCRIPT, needs_token=marked).encode()


@cache
def page_policy() -> str:
    """The Content-Security-Policy that goes with it."""
    parts = (
        "default-src 'none'",
        f"style-src '{_hash(STYLE)}'",
        f"script-src '{_hash(SCRIPT)}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return "; ".join(parts)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
