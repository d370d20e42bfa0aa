"""A store on a server, named by a configuration: what is wrong with it, which library it takes, and that no password shows."""

from __future__ import annotations

import pickle
import sys
import tempfile
import types
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from tests import ir, part

config = part("config")
quota_url = part("quota_url")
secret = part("secret")

URL = "redis://user:hunter2@host.invalid:6390/3"


class FakeLibrary(types.ModuleType):
    """A client library of that name; `opened`: what was asked of it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.opened: list[tuple[str, dict[str, Any]]] = []
        self.backoff = types.SimpleNamespace(NoBackoff=lambda: None)
        self.retry = types.SimpleNamespace(Retry=lambda backoff, times: times)

    def from_url(self, url: str, **options: Any) -> Any:
        self.opened.append((url, options))
        if "bad" in url:
            raise ValueError(f"cannot parse {url}")
        return types.SimpleNamespace(evalsha=lambda: None, eval=lambda: None, close=lambda: None)

    def connect(self, *args: Any, **options: Any) -> Any:
        self.opened.append((*args, options))
        return "opened"


def installed(*names: str) -> Any:
    """Only these client libraries can be imported."""
    libraries = {name: FakeLibrary(name) for name in names}
    modules = dict(libraries)
    for name, library in libraries.items():
        modules.update({f"{name}.{sub}": getattr(library, sub) for sub in ("backoff", "retry")})
    every = ("redis", "valkey", "psycopg", "psycopg2", "pg8000", "pg8000.dbapi")
    return mock.patch.dict(sys.modules, {**dict.fromkeys(every), **modules}), libraries


class UrlTest(unittest.TestCase):
    def test_the_library_that_is_there(self) -> None:
        """redis-py or valkey-py, whichever is installed, gets the URL in its own spelling, with short timeouts and no retry."""
        for name, url, spelled in (
            ("redis", "valkeys://h/1", "rediss://h/1"),
            ("valkey", "redis://h/1", "valkey://h/1"),
            ("valkey", "unix:///run/x", "unix:///run/x"),
        ):
            patch, libraries = installed(name)
            with patch, quota_url.open_store("redis", secret.Secret(url), "p", False) as store:
                [(asked, options)] = libraries[name].opened
            self.assertEqual((asked, options["socket_timeout"], options["retry"]), (spelled, 2, 0))
            self.assertIn("Redis", repr(store))

    def test_postgres_drivers(self) -> None:
        """psycopg, psycopg2 or pg8000, whichever is installed; nothing is opened before it is needed."""
        url = secret.Secret("postgresql://us%40er:hun%20ter2@h:5433/db")
        for name in ("psycopg", "psycopg2", "pg8000.dbapi"):
            patch, libraries = installed(name)
            with patch:
                connect = quota_url._postgres_connect(url)
                self.assertEqual(libraries[name].opened, [])
                self.assertEqual(connect(), "opened")
                [(first, options)] = libraries[name].opened
            if name == "pg8000.dbapi":
                self.assertEqual(first, "us@er")
                self.assertEqual((options["password"], options["host"], options["port"]), ("hun ter2", "h", 5433))
                self.assertEqual(options["database"], "db")
            else:
                self.assertEqual((first, options["connect_timeout"]), (url.reveal(), 2))

    def test_what_to_install(self) -> None:
        """Without any client library the error names them."""
        patch, _ = installed()
        with patch:
            for kind, names in (("redis", "pip install redis.*valkey"), ("postgres", "pip install psycopg.*psycopg2, pg8000")):
                with self.assertRaisesRegex(ir.ConfigError, names):
                    quota_url.open_store(kind, secret.Secret(f"{kind}://x"), "p", False)

    def test_a_wrong_url(self) -> None:
        """A URL that the library cannot read is told without its text."""
        patch, _ = installed("redis")
        with patch, self.assertRaises(ir.ConfigError) as caught:
            quota_url.open_store("redis", secret.Secret("redis://u:hunter2@bad"), "p", False)
        self.assertNotIn("hunter2", str(caught.exception) + repr(caught.exception.__cause__))


class ConfigTest(unittest.TestCase):
    def test_problems(self) -> None:
        """A server without a URL, a URL that is not text, and a wrong prefix are told."""
        for fields, words in (
            ({"store": "redis"}, "quota.url: is needed with the store 'redis'"),
            ({"store": "postgres", "url": ""}, "postgresql://"),
            ({"store": "redis", "url": 5}, "quota.url: must be a string"),
            ({"store": "redis", "url": URL, "prefix": ""}, "quota.prefix"),
            ({"store": "redis", "url": URL, "adopt_empty": "yes"}, "quota.adopt_empty"),
            ({"store": "mongodb"}, "redis"),
        ):
            with self.assertRaises(ir.ConfigError, msg=str(fields)) as caught:
                ir.Config(quota=ir.QuotaConfig(**fields))
            self.assertIn(words, str(caught.exception))
            self.assertNotIn("hunter2", str(caught.exception))

    def test_every_store_that_can_be_named_is_opened(self) -> None:
        """Each is opened, or lacks its client library; one that nothing opens is refused, never kept in memory instead."""
        store_for = part("router_parts").store_for
        patch, _ = installed()
        for name in config.STORES:
            with self.subTest(name), patch, tempfile.TemporaryDirectory() as folder:
                where = {"path": Path(folder, "q.db")} if name == "sqlite" else {"url": "x://h"}
                try:
                    with store_for(ir.QuotaConfig(name, **where)) as store:
                        self.assertIs(isinstance(store, ir.MemoryQuotaStore), name == "memory")
                except ir.ConfigError as error:
                    self.assertIn("client library", str(error))
        with mock.patch.object(config, "STORES", (*config.STORES, "pebble")):
            named = [ir.Config(quota=ir.QuotaConfig("pebble", url=url)) for url in (None, "pebble://h")]
        for each in named:
            with self.assertRaisesRegex(ir.ConfigError, "quota.store: nothing opens the store 'pebble'"):
                ir.Router(each)

    def test_no_password_shows(self) -> None:
        """A URL's password is in no repr; the configuration cannot be pickled with it."""
        built = ir.Config(quota=ir.QuotaConfig("redis", url=URL))
        self.assertNotIn("hunter2", repr(built))
        with self.assertRaises(TypeError):
            pickle.dumps(built.quota)
        self.assertEqual(pickle.loads(pickle.dumps(ir.QuotaConfig())), ir.QuotaConfig())

    def test_from_the_environment(self) -> None:
        """`Router.from_env(store=url)` counts on that server, and any other text is a file's path."""
        quota_at = part("router_parts").quota_at
        self.assertEqual((quota_at(URL).store, quota_at(URL).url), ("redis", URL))
        self.assertEqual(quota_at("postgresql://u@h/d").store, "postgres")
        self.assertEqual((quota_at("x.db").store, quota_at("x.db").path), ("sqlite", "x.db"))
        self.assertEqual(quota_at("mysql://h/x").store, "sqlite")

    def test_from_a_file(self) -> None:
        """[quota] store and url in a file make the store; a password as plain text is warned of."""
        lines = (
            '[quota]\nstore = "redis"\nurl = "%s"\nprefix = "team"\n[[accounts]]\nprovider = "gemini"\nid = "a"\n'
            'auth.api_key = "${KEY}"\n'
        )
        patch, libraries = installed("redis")
        with tempfile.TemporaryDirectory() as folder, patch:
            for url, warned in (("${REDIS_URL}", False), (URL, True)):
                file = Path(folder) / "ir.toml"
                file.write_text(lines % url)
                file.chmod(0o644)
                built, warnings = part("config_file").load_config(file, env={"REDIS_URL": URL, "KEY": "sk-1"})
                self.assertEqual(built.quota.url, URL)
                self.assertEqual(any("plain text" in each for each in warnings), warned)
                with part("router_parts").store_for(built.quota) as store:
                    self.assertIsInstance(store, ir.RedisQuotaStore)
            self.assertEqual(libraries["redis"].opened[-1][0], URL)


if __name__ == "__main__":
    unittest.main()
