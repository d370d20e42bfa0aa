"""A plain HTTP client for the simulator's tests: no code of the library between the test and the wire."""

from __future__ import annotations

import http.client
import json
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Reply(NamedTuple):
    """Status, headers in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> list[str]:
        """The data line of each server-sent event."""
        lines = self.body.decode().splitlines()
        return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]

    @property
    def events(self) -> list[Any]:
        """The JSON of each server-sent event, the [DONE] marker left out."""
        return [json.loads(data) for data in self.data if data != "[DONE]"]


class Client:
    """One kept-alive connection to a simulator, a context manager."""

    def __init__(self, base_url: str, headers: dict[str, str]) -> None:
        url = urlsplit(base_url)
        self.root = url.path
        self.headers = headers
        self.connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=5)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> Reply:
        """POST `body` (JSON unless it is bytes); `headers` replaces the usual ones."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._ask("POST", path, payload, self.headers if headers is None else headers)

    def get(self, path: str) -> Reply:
        return self._ask("GET", path, None, self.headers)

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Reply:
        self.connection.request(method, self.root + path, body, headers)
        response = self.connection.getresponse()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
