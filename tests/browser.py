"""A headless Chromium, driven by chromedriver over its own protocol (W3C WebDriver, and DevTools commands through it)."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *(
        "--disable-component-update",
        "--disable-sync",
        "--disable-default-apps",
        "--disable-extensions",
        "--disable-dev-shm-usage",
    ),
    *("--window-size=1280,1000", "--force-color-profile=srgb", "--hide-scrollbars"),
)


def missing() -> str:
    """Why no browser can be driven here, "" if one can."""
    if not os.environ.get("INFERROUTER_BROWSER"):
        return "runs from .ci/browser, which sees that there is a browser"
    return "" if shutil.which("chromedriver") else "chromedriver is not on the PATH"


class Browser:
    """One window, a context manager. Everything it asked the network for, and its console, are kept."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [str(shutil.which("chromedriver")), f"--port={self._port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.until(self._listens, "chromedriver listens", 20)
        options = {"args": [*FLAGS, f"--user-data-dir={self._folder.name}"]}
        logs = {"browser": "ALL", "performance": "ALL"}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs}
        made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{made['sessionId']}"

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._ask("DELETE", self._session)
        finally:
            self._process.terminate()
            self._process.wait(10)
            self._folder.cleanup()

    def open(self, url: str) -> None:
        self._ask("POST", self._session + "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """What the JavaScript `script` returns."""
        return self._ask("POST", self._session + "/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command: str, **facts: Any) -> Any:
        return self._ask("POST", self._session + "/goog/cdp/execute", {"cmd": command, "params": facts})

    def look(self, *, dark: bool = False, width: int = 1280, height: int = 1000) -> None:
        """The viewer's colours and the window's size."""
        self.devtools(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        )
        phone = width < 600
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone
        )

    def picture(self, file: Path) -> None:
        """The whole page as a PNG."""
        made = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(made["data"]))

    def console(self) -> list[str]:
        """What the page said or failed at since the last look."""
        return [entry["message"] for entry in self._ask("POST", self._session + "/se/log", {"type": "browser"})]

    def hosts(self) -> set[str]:
        """Whom the page asked since the last look."""
        found = set()
        for entry in self._ask("POST", self._session + "/se/log", {"type": "performance"}):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                url = urlsplit(event["params"]["request"]["url"])
                if url.scheme not in ("data", "about", "chrome"):
                    found.add(url.hostname or url.scheme)
        return found

    def until(self, true: Callable[[], Any], what: str, seconds: float = 5.0) -> float:
        """Wait until `true()`; the seconds it took. Raises AssertionError if it never is."""
        began = time.monotonic()
        while not true():
            if time.monotonic() - began > seconds:
                raise AssertionError(f"never happened: {what}")
            time.sleep(0.02)
        return time.monotonic() - began

    def _listens(self) -> bool:
        try:
            return bool(self._ask("GET", "/status")["ready"])
        except OSError:
            return False

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value and "stacktrace" in value:
            raise AssertionError(f"{path}: {value['message']}")
        return value
