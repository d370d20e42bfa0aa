"""The command `serve` as a process: it says where, answers, and stops when told."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import tempfile
import threading
import unittest
import urllib.request
from pathlib import Path
from typing import Any
from unittest import mock

from tests import LONG, part
from tests.commands import finish, run, start
from tests.fakes import threads
from tests.serving import HELLO, simulator

CONFIG = """
default_model = "fast"
[[models]]
alias = "fast"
models = [{{provider = "sim", model = "m"}}]
[[accounts]]
provider = "sim"
id = "a"
base_url = "{url}"
auth.api_key = "sk-1"
limits = {{rpd = 100}}
"""


class ServeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.sim = self.enterContext(simulator.Simulator(chunk_words=1, reply=lambda question: "word " * 30))
        self.config = self.folder / "c.toml"
        self.config.write_text(CONFIG.format(url=self.sim.base_url))
        self.config.chmod(0o600)

    def serve(self, *argv: str, **env: str) -> tuple[subprocess.Popen[str], str]:
        """A running `serve` and its address."""
        process = self.begun(*argv, **env)
        return process, self.address(process)

    def begun(self, *argv: str, **env: str) -> subprocess.Popen[str]:
        """A `serve` that is about to run."""
        state = {"XDG_STATE_HOME": str(self.folder), "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}
        process = start("serve", "--config", str(self.config), "--port", "0", *argv, **state, **env)
        self.addCleanup(self._end, process)
        return process

    def address(self, process: subprocess.Popen[str]) -> str:
        """Where `process` answers, once it does."""
        assert process.stdout is not None
        self.said = [process.stdout.readline() for _ in range(4)]
        self.assertTrue(self.said[0].startswith("serving at http://127.0.0.1:"), self.said)
        return self.said[0].split()[2]

    def stalled(self) -> threading.Event:
        """Lets the next stream pause after some words until the event is set."""
        go, server = threading.Event(), part("simulator_server")

        def waited(handler: Any, seconds: float) -> bool:
            while seconds and not go.wait(0.01) and not handler.server.stopping.is_set():
                pass
            return bool(handler.server.stopping.is_set())

        self.enterContext(mock.patch.object(server._Handler, "_waited", waited))
        self.sim.script([server.Fault("stall", after=4)])
        return go

    def told(self, process: subprocess.Popen[str], words: str) -> None:
        """Reads the process's stderr until a line says `words`."""
        assert process.stderr is not None
        while words not in (line := process.stderr.readline()):
            self.assertTrue(line, f"it ended without saying {words!r}")

    def _end(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.kill()
            finish(process)

    def ask(self, url: str, **more: Any) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": "Bearer t0k3n-t0k3n"}
        request = urllib.request.Request(url + "/v1/chat/completions", json.dumps({**HELLO, **more}).encode(), headers)
        return urllib.request.urlopen(request, timeout=10)

    def test_it_answers_and_stops(self) -> None:
        """It says what to set in a tool; SIGTERM lets a stream under way end, and its end is clean."""
        process, url = self.serve("--grace", "20", INFERROUTER_TOKEN="t0k3n-t0k3n")
        go = self.stalled()
        with self.ask(url, stream=True) as answer:
            begun = answer.readline()
            process.send_signal(signal.SIGTERM)
            self.told(process, "stopping")
            go.set()
            text = begun + answer.read()
        self.assertTrue(text.endswith(b"data: [DONE]\n\n"), text[-80:])
        ran = finish(process)
        self.assertEqual(ran.code, 0, ran.err)
        self.assertIn(f"  export OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY=$INFERROUTER_TOKEN\n", self.said)
        self.assertIn("127.0.0.1 POST /v1/chat/completions 200", ran.err)
        self.assertNotIn("t0k3n-t0k3n", str(self.said) + ran.err)

    def test_a_second_signal_stops_at_once(self) -> None:
        """The stream is cut, not ended."""
        process, url = self.serve("--grace", "60", "--quiet")
        self.stalled()
        with self.ask(url, stream=True) as answer:
            answer.readline()
            process.send_signal(signal.SIGINT)
            self.told(process, "stopping")
            process.send_signal(signal.SIGINT)
            with self.assertRaises((http.client.HTTPException, OSError)):
                answer.read()
        self.assertEqual(finish(process).code, 0)

    def test_several_over_one_ledger(self) -> None:
        """Endpoints, each a process, count in one file: of 60 calls at once exactly the limit's 40 are answered, and the next
        endpoint knows what those before it used."""
        self.config.write_text(CONFIG.format(url=self.sim.base_url).replace("rpd = 100", "rpd = 40"))
        processes = [self.begun("--quiet", "--max-wait", "0") for _ in range(3 if LONG else 2)]
        urls = [self.address(process) for process in processes]
        statuses: list[int] = []

        def work(number: int) -> None:
            for turn in range(10):
                url = urls[(number + turn) % len(urls)]
                connection = http.client.HTTPConnection(url.removeprefix("http://"))
                connection.request("POST", "/v1/chat/completions", json.dumps(HELLO), {"Content-Type": "application/json"})
                statuses.append(connection.getresponse().status)
                connection.close()

        with threads(6, work):
            pass
        self.assertEqual((statuses.count(200), statuses.count(429)), (40, 20))
        self.assertEqual(len(self.sim.log), 40)
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            self.assertEqual(finish(process).code, 0)
        _, url = self.serve("--quiet")
        with urllib.request.urlopen(url + "/status.json", timeout=5) as answer:
            found = json.load(answer)
        self.assertEqual(found["accounts"][0]["limits"][0]["used"], 40)

    def test_it_says_what_is_wrong(self) -> None:
        """A taken port, an open address without a token: one line, exit code 1."""
        env = {"XDG_STATE_HOME": str(self.folder), "HOME": str(self.folder)}
        import socket

        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            ran = run("serve", "--config", str(self.config), "--port", port, env=env)
        self.assertEqual((ran.code, ran.err.count("\n")), (1, 1))
        self.assertIn("is taken", ran.err)
        ran = run("serve", "--config", str(self.config), "--port", "0", "--host", "0.0.0.0", env=env)
        self.assertEqual(ran.code, 1)
        self.assertIn("--token", ran.err)


if __name__ == "__main__":
    unittest.main()
