"""Long jobs for tests: a router over accounts at a mock provider, and files in a folder that goes away."""

from __future__ import annotations

import json
import tempfile
import unittest
from pathlib import Path
from typing import Any

from tests import ir, part
from tests.fakes import FakeClock


def mock_router(*limits: dict[str, float], replies: Any = (), default: Any = "yes", **parts: Any) -> tuple[Any, Any]:
    """A router over one account for each of `limits`, all at a mock provider, on a clock that moves when slept on."""
    provider = ir.MockProvider("mock", replies, default=default, models=["m"])
    accounts = [ir.AccountConfig("mock", f"a{at}", ir.Auth(f"sk-{at}"), limits=limit) for at, limit in enumerate(limits)]
    parts.setdefault("clock", FakeClock())
    config = ir.Config(accounts=accounts, default_model=parts.pop("model", "m"), **parts.pop("config", {}))
    return ir.Router(config, [provider], **parts), provider


def echo(body: Any) -> str:
    """A reply that says the last message's text in capitals."""
    text: str = body["messages"][-1]["content"]
    return text.upper()


class JobCase(unittest.TestCase):
    """Each test has `self.folder`."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def file(self, name: str, text: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def job(self, source: Path, output: str = "out.jsonl", **settings: Any) -> Any:
        return part("batch").Batch(source, self.folder / output, **settings)

    def records(self, output: str = "out.jsonl") -> list[dict[str, Any]]:
        """Every record of a JSONL output, strictly read."""
        return [json.loads(line) for line in (self.folder / output).read_text("utf-8").splitlines()]

    def run_job(self, source: Path, output: str = "out.jsonl", *, limits: Any = None, replies: Any = (), **settings: Any) -> Any:
        """Its summary, and how many calls it took. One worker unless it says more: then records are in the input's order."""
        settings.setdefault("workers", 1)
        default = settings.pop("default", echo)
        router, provider = mock_router(limits or {"rpd": 100_000}, default=default, replies=replies)
        with router:
            summary = self.job(source, output, **settings).run(router)
        return summary, len(provider.calls)
