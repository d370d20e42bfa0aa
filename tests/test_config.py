"""Accounts, aliases and the whole configuration as values, and what is said about wrong ones."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import traceback
import unittest
from typing import Any

from tests import part

config = part("config")
account_module = part("account")
errors = part("errors")
AccountConfig, Auth, Config = config.AccountConfig, account_module.Auth, config.Config
ModelMapping, ModelRef, QuotaConfig = config.ModelMapping, config.ModelRef, config.QuotaConfig

KEY = "sk-canary-0123456789"


def problems(**settings: Any) -> list[str]:
    """The problems of a configuration with these settings."""
    try:
        Config(**settings)
    except errors.ConfigError as exc:
        return list(exc.problems)
    return []


def account_problems(**settings: Any) -> list[str]:
    """The problems of a configuration with one account that has these settings."""
    return problems(accounts=[AccountConfig(**({"provider": "openai", "id": "a"} | settings))])


def warnings(*accounts: Any, direct: tuple[str, ...] = ("openai",), **settings: Any) -> tuple[str, ...]:
    found: tuple[str, ...] = Config(accounts=accounts, **settings).warnings(direct)
    return found


class Values(unittest.TestCase):
    def test_a_good_configuration_keeps_what_it_was_given(self) -> None:
        """The design page's example is accepted and can be read back."""
        made = Config(
            allow_paid=True,
            default_model="fast",
            models=[ModelMapping("fast", [ModelRef("gemini", "g-flash"), ModelRef("grok", "grok-3-fast")])],
            accounts=[
                AccountConfig(provider="gemini", id="g1", auth=Auth(api_key=KEY), daily_free=1500),
                AccountConfig("grok", "x1", Auth(KEY), daily_free=5_000_000, quota_unit="tokens"),
                AccountConfig(
                    provider="openai",
                    id="paid",
                    auth=Auth(KEY),
                    paid_enabled=True,
                    cost_per_input_token=1.5e-7,
                    cost_per_output_token=6e-7,
                    max_daily_spend=0.5,
                ),
            ],
        )
        self.assertEqual([account.id for account in made.accounts], ["g1", "x1", "paid"])
        self.assertEqual(made.models[0].models[1].model, "grok-3-fast")
        self.assertEqual(made.accounts[0].auth.api_key.reveal(), KEY)
        self.assertEqual(made.warnings(direct=["openai"]), ())

    def test_lists_become_tuples_and_dicts_become_frozen(self) -> None:
        """Nothing mutable is left inside, and what the caller changes later does not come in."""
        limits = {"rpm": 15}
        account = AccountConfig("openai", "a", limits=limits, model_limits={"m": limits}, capabilities={"m": ["text"]})
        limits["rpm"] = 99
        accounts = [account]
        made = Config(accounts=accounts)
        accounts.clear()
        self.assertEqual(made.accounts, (account,))
        self.assertEqual(account.limits, {"rpm": 15})
        self.assertEqual(account.model_limits, {"m": {"rpm": 15}})
        self.assertEqual(account.capabilities, {"m": ("text",)})
        with self.assertRaises(TypeError):
            account.limits["rpm"] = 1
        with self.assertRaises(dataclasses.FrozenInstanceError):
            account.id = "b"
        hash(made)

    def test_a_set_of_capabilities_has_one_order(self) -> None:
        """Two equal sets give equal accounts."""
        one = AccountConfig("openai", "a", capabilities=set(account_module.CAPABILITIES))
        self.assertEqual(one.capabilities, tuple(sorted(account_module.CAPABILITIES)))

    def test_mappings_can_be_written_as_json_and_pickled(self) -> None:
        """Limits survive json and pickle as plain data."""
        limits = AccountConfig("openai", "a", limits={"rpm": 15}).limits
        self.assertEqual(json.loads(json.dumps(limits)), {"rpm": 15})
        self.assertEqual(pickle.loads(pickle.dumps(limits)), limits)

    def test_replace_keeps_the_key(self) -> None:
        """dataclasses.replace of an account keeps its key."""
        account = dataclasses.replace(AccountConfig("openai", "a", Auth(KEY)), id="b")
        self.assertEqual(account.auth.api_key.reveal(), KEY)

    def test_a_key_never_shows(self) -> None:
        """No repr, no error text and no traceback with locals of this library's frames holds a key or a header's value."""
        account = AccountConfig("openai", "a", Auth(KEY), headers={"X-Key": KEY})
        self.assertNotIn(KEY, repr(Config(accounts=[account])))
        for wrong in (Auth(KEY + "\n"), Auth(KEY.encode()), KEY, {"api_key": KEY}, [KEY]):
            bad = AccountConfig("openai", "the-account", wrong)
            with self.subTest(type(wrong).__name__):
                try:  # assertRaises would clear the frames' locals
                    Config(accounts=[bad])
                    self.fail("was not refused")
                except errors.ConfigError as exc:
                    error = exc
                stack = traceback.TracebackException.from_exception(error, capture_locals=True).stack
                frames = [str(frame.locals) for frame in stack if not frame.filename.endswith("test_config.py")]
                self.assertTrue(frames)
                self.assertNotIn(KEY, repr(bad) + str(error) + repr(vars(error)) + "".join(frames))


class Problems(unittest.TestCase):
    def test_each_wrong_setting_of_an_account_is_named_with_its_path(self) -> None:
        """Every row is refused with exactly one problem, which begins with the row's path."""
        rows: list[tuple[str, dict[str, Any]]] = [
            ("provider", {"provider": ""}),
            ("provider", {"provider": 5}),
            ("provider", {"provider": "a/b"}),
            ("provider", {"provider": " a"}),
            ("id", {"id": ""}),
            ("id", {"id": None}),
            ("id", {"id": "a\nb"}),
            ("auth", {"auth": None}),
            ("auth", {"auth": "text"}),
            ("auth.api_key", {"auth": Auth(None)}),
            ("auth.api_key", {"auth": Auth(5)}),
            ("auth.api_key", {"auth": Auth("two words")}),
            ("auth.api_key", {"auth": Auth("kéy")}),
            ("base_url", {"base_url": "ftp://x"}),
            ("base_url", {"base_url": "http://example.com/v1"}),
            ("base_url", {"base_url": "https://user:pw@example.com"}),
            ("base_url", {"base_url": 5}),
            ("dialect", {"dialect": "opnai"}),
            ("dialect", {"dialect": ""}),
            ("daily_free", {"daily_free": True}),
            ("daily_free", {"daily_free": "1500"}),
            ("daily_free", {"daily_free": -1}),
            ("daily_free", {"daily_free": math.nan}),
            ("daily_free", {"daily_free": math.inf}),
            ("daily_free", {"daily_free": 1.5}),
            ("daily_free", {"daily_free": 10**400}),
            ("quota_unit", {"quota_unit": "request"}),
            ("quota_unit", {"quota_unit": None}),
            ("paid_enabled", {"paid_enabled": 1}),
            ("paid_enabled", {"paid_enabled": "yes"}),
            ("optional", {"optional": None}),
            ("allow_http", {"allow_http": "no"}),
            ("max_daily_spend", {"max_daily_spend": True}),
            ("cost_per_input_token", {"cost_per_input_token": -1e-7}),
            ("cost_per_output_token", {"cost_per_output_token": 10**400}),
            ("cost_per_output_token", {"cost_per_output_token": math.inf}),
            ("cost_per_cached_input_token", {"cost_per_cached_input_token": "0"}),
            ("cost_per_audio_input_token", {"cost_per_audio_input_token": math.nan}),
            ("cost_per_image_input_token", {"cost_per_image_input_token": False}),
            ("cost_per_video_input_token", {"cost_per_video_input_token": []}),
            ("limits", {"limits": 5}),
            ("limits", {"limits": None}),
            ("limits.rpmm", {"limits": {"rpmm": 5}}),
            ("limits.5", {"limits": {5: 5}}),
            ("limits.rpm", {"limits": {"rpm": True}}),
            ("limits.tpd", {"limits": {"tpd": -5}}),
            ("limits.tpd", {"limits": {"tpd": 0.5}}),
            ("model_limits", {"model_limits": []}),
            ('model_limits."m"', {"model_limits": {"m": 5}}),
            ('model_limits."m".rps', {"model_limits": {"m": {"rps": 5}}}),
            ('model_limits."".rpm', {"model_limits": {"": {"rpm": "5"}}}),
            ("quota_group", {"quota_group": ""}),
            ("reset", {"reset": "Mars/Olympus"}),
            ("reset", {"reset": None}),
            ("reset", {"reset": "../etc/passwd"}),
            ("attempt_timeout", {"attempt_timeout": 0}),
            ("attempt_timeout", {"attempt_timeout": math.inf}),
            ("capabilities", {"capabilities": "image"}),
            ("capabilities[1]", {"capabilities": ["text", "imge"]}),
            ('capabilities."m"', {"capabilities": {"m": "text"}}),
            ('capabilities."m"[0]', {"capabilities": {"m": [5]}}),
            ("headers", {"headers": []}),
            ("headers", {"headers": {"a b": "x"}}),
            ("headers.X", {"headers": {"X": "a\r\nb"}}),
            ("headers.X", {"headers": {"X": 5}}),
            ("headers.Content-Length", {"headers": {"Content-Length": "5"}}),
        ]
        for path, settings in rows:
            with self.subTest(path, settings=str(settings)[:60]):
                found = [p for p in account_problems(**settings) if not p.startswith('accounts[0].model_limits."":')]
                self.assertEqual([problem.partition(": ")[0] for problem in found], [f"accounts[0].{path}"])

    def test_each_wrong_setting_of_the_whole_is_named_with_its_path(self) -> None:
        """Every row is refused with exactly one problem, which begins with the row's path."""
        rows: list[tuple[str, dict[str, Any]]] = [
            ("accounts", {"accounts": "ab"}),
            ("accounts", {"accounts": None}),
            ("accounts[0]", {"accounts": [{"provider": "a", "id": "b"}]}),
            ("models", {"models": {"a": 1}}),
            ("models[0]", {"models": ["fast"]}),
            ("models[0].alias", {"models": [ModelMapping("", [ModelRef("a", "b")])]}),
            ("models[0].models", {"models": [ModelMapping("a", [])]}),
            ("models[0].models", {"models": [ModelMapping("a", "bc")]}),
            ("models[0].models[1]", {"models": [ModelMapping("a", [ModelRef("a", "b"), "a/b"])]}),
            ("models[0].models[1].provider", {"models": [ModelMapping("a", [ModelRef("a", "b"), ModelRef("", "b")])]}),
            ("models[0].models[0].model", {"models": [ModelMapping("a", [ModelRef("a", None)])]}),
            ("models[1].alias", {"models": [ModelMapping("a", [ModelRef("a", "b")])] * 2}),
            ("allow_paid", {"allow_paid": 1}),
            ("default_model", {"default_model": None}),
            ("policy", {"policy": "free-first"}),
            ("attempt_timeout", {"attempt_timeout": 0}),
            ("attempt_timeout", {"attempt_timeout": None}),
            ("attempt_timeout", {"attempt_timeout": True}),
            ("max_wait", {"max_wait": -1}),
            ("timeout", {"timeout": math.nan}),
            ("timeout", {"timeout": 1e30}),
            ("idle_timeout", {"idle_timeout": 0}),
            ("auth_errors", {"auth_errors": "ignore"}),
            ("quota", {"quota": "memory"}),
            ("quota.store", {"quota": QuotaConfig("mongodb")}),
            ("quota.path", {"quota": QuotaConfig("sqlite")}),
            ("quota.path", {"quota": QuotaConfig("sqlite", "")}),
            ("quota.path", {"quota": QuotaConfig("sqlite", 5)}),
            ("quota.on_store_error", {"quota": QuotaConfig(on_store_error="warn")}),
        ]
        for path, settings in rows:
            with self.subTest(path, settings=str(settings)[:60]):
                self.assertEqual([problem.partition(": ")[0] for problem in problems(**settings)], [path])

    def test_all_problems_come_in_one_error(self) -> None:
        """Faults of different accounts, aliases and settings are listed together."""
        found = problems(
            accounts=[AccountConfig("", "a", daily_free=True), AccountConfig("x", "b", limits={"rpn": 1})],
            models=[ModelMapping("a", [])],
            policy="x",
        )
        paths = [problem.partition(": ")[0] for problem in found]
        expected = [
            "accounts[0].provider",
            "accounts[0].daily_free",
            "accounts[1].limits.rpn",
            "models[0].models",
            "policy",
        ]
        self.assertEqual(paths, expected)

    def test_a_mapping_that_holds_itself_is_refused(self) -> None:
        """An endless mapping is a problem, not a RecursionError."""
        endless: dict[str, Any] = {}
        endless["rpm"] = endless
        self.assertEqual(len(account_problems(limits=endless)), 1)
        self.assertEqual(len(account_problems(model_limits={"m": endless})), 1)

    def test_the_nearest_known_word_is_offered(self) -> None:
        """A misspelt limit, unit, dialect or policy is answered with the right one."""
        for wrong, right in (
            (account_problems(limits={"rpmm": 1}), "'rpm'"),
            (account_problems(quota_unit="request"), "'requests'"),
            (account_problems(dialect="Gemini"), "'gemini'"),
            (problems(policy="freefirst"), "'free_first'"),
        ):
            self.assertIn(f"did you mean {right}", wrong[0])

    def test_two_accounts_cannot_have_one_id(self) -> None:
        """The second account of an id is refused and the first one is named, whatever their providers."""
        found = problems(accounts=[AccountConfig("a", "x"), AccountConfig("b", "y"), AccountConfig("c", "x")])
        self.assertEqual(found, ["accounts[2].id: 'x' is already the id of accounts[0]"])

    def test_accounts_of_one_group_declare_the_same_amounts(self) -> None:
        """Each setting that differs within a quota_group is named; equal ones and other groups are fine."""
        base: dict[str, Any] = {"quota_group": "g", "daily_free": 5, "limits": {"rpm": 5}}
        self.assertEqual(problems(accounts=[AccountConfig("a", "1", **base), AccountConfig("a", "2", **base)]), [])
        changes: list[dict[str, Any]] = [
            {"daily_free": 6},
            {"limits": {}},
            {"reset": "rolling"},
            {"max_daily_spend": 1.0},
        ]
        for change in changes:
            with self.subTest(change=change):
                two = AccountConfig("a", "2", **(base | change))
                (found,) = problems(accounts=[AccountConfig("a", "1", **base), two])
                self.assertTrue(found.startswith(f"accounts[1].{next(iter(change))}: "), found)
                other = dataclasses.replace(two, quota_group="h")
                self.assertEqual(problems(accounts=[AccountConfig("a", "1", **base), other]), [])

    def test_an_unusable_key_names_the_account(self) -> None:
        """The problem tells which account has it, by its id."""
        (found,) = account_problems(id="the-account", auth=Auth(KEY + " "))
        self.assertIn("'the-account'", found)
        self.assertNotIn(KEY, found)

    def test_what_is_legal_is_accepted(self) -> None:
        """Zero amounts, fractions of dollars, every limit key, a zone, rolling, plain http to this machine, no key."""
        rows: list[dict[str, Any]] = [
            {"daily_free": 0},
            {"daily_free": 0.25, "quota_unit": "dollars"},
            {"daily_free": 1500.0},
            {"limits": dict.fromkeys(part("limit_rows").LIMIT_KEYS, 0)},
            {"model_limits": {"*": {"rpm": 1}, "org/model:free": {"tpmonth": 5}}},
            {"reset": "rolling"},
            {"reset": "UTC"},
            {"base_url": "http://localhost:11434/v1"},
            {"base_url": "http://10.0.0.5/v1", "allow_http": True},
            {"headers": {"X-Title": "my own app"}},
            {"capabilities": ()},
            {"cost_per_input_token": 0},
        ]
        for settings in rows:
            with self.subTest(settings=settings):
                self.assertEqual(account_problems(**settings), [])

    def test_an_unknown_provider_needs_a_base_url(self) -> None:
        """An account of an unknown provider without base_url is a problem with the nearest name; with one it is none."""
        made = Config(accounts=[AccountConfig("gemni", "a"), AccountConfig("own", "b", base_url="https://x.example/v1")])
        (found,) = made.problems_with({"gemini", "openai"})
        self.assertTrue(found.startswith("accounts[0].provider: 'gemni'"), found)
        self.assertIn("did you mean 'gemini'", found)
        self.assertEqual(made.problems_with(["gemni"]), [])


class Collisions(unittest.TestCase):
    def test_names_that_would_share_counts(self) -> None:
        """An id that reads like a group, or like a model of another account or group, is refused; a bar alone is not."""
        rows: list[tuple[list[tuple[str, str | None]], str | None]] = [
            ([("group:g", None), ("b", "g")], "accounts[0].id"),
            ([("b", "g"), ("group:g", None)], "accounts[1].id"),
            ([("a", None), ("a|m", None)], "accounts[1].id"),
            ([("a|m", None), ("a", None)], "accounts[0].id"),
            ([("a|m|n", None), ("a|m", None)], "accounts[0].id"),
            ([("group:g|m", None), ("b", "g")], "accounts[0].id"),
            ([("a", "g"), ("b", "g|m")], "accounts[1].quota_group"),
            ([("group:h", None), ("b", "g")], None),
            ([("a|m", None), ("b", None)], None),
            ([("a", "g"), ("b", "g")], None),
        ]
        for accounts, path in rows:
            made = [AccountConfig("p", name, quota_group=group) for name, group in accounts]
            if path is None:
                Config(accounts=made)
                continue
            with self.assertRaises(errors.ConfigError, msg=accounts) as caught:
                Config(accounts=made)
            self.assertTrue(any(each.startswith(f"{path}: ") for each in caught.exception.problems), caught.exception)


class Warnings(unittest.TestCase):
    def test_each_surprise_is_told_once(self) -> None:
        """Every row gives exactly one warning, which begins with the row's path."""
        paid = {"paid_enabled": True, "cost_per_input_token": 1e-7}
        rows: list[tuple[str, dict[str, Any], bool]] = [
            ("max_daily_spend", {"max_daily_spend": 1.0, "daily_free": 5}, False),
            ("paid_enabled", {"paid_enabled": True}, True),
            ("paid_enabled", paid, False),
            ("daily_free", {"daily_free": 0}, False),
            ("daily_free", {"daily_free": 1, "quota_unit": "dollars"}, False),
            *[
                ("quota_unit", {"daily_free": 1, "quota_unit": name}, False)
                for name, unit in part("costs").UNITS.items()
                if unit.often_none
            ],
            ("cost_per_input_token", {"cost_per_output_token": 1e-7}, False),
            ("cost_per_input_token", paid | {"cost_per_input_token": 0.15}, True),
        ]
        for path, settings, allow_paid in rows:
            with self.subTest(path, settings=settings):
                (found,) = warnings(AccountConfig("openai", "a", **settings), allow_paid=allow_paid)
                self.assertTrue(found.startswith(f"accounts[0].{path}: "), found)

    def test_what_is_usual_gives_no_warning(self) -> None:
        """A free account, a priced paid one, and both in one give none."""
        paid = {"paid_enabled": True, "cost_per_input_token": 1e-7, "max_daily_spend": 0.5}
        free = AccountConfig("openai", "a", daily_free=5)
        self.assertEqual(warnings(free, AccountConfig("openai", "b", daily_free=5, **paid), allow_paid=True), ())
        self.assertEqual(warnings(AccountConfig("openai", "b", **paid), allow_paid=True), ())

    def test_one_key_that_counts_twice_is_told(self) -> None:
        """Two accounts with one key that count the same things apart are told; those of one group, or elsewhere, are not."""
        auth, rows = Auth("sk-same-key"), {"limits": {"rpm": 5}}
        for one, other in (
            ({"daily_free": 5}, {"daily_free": 9}),
            (rows, rows),
            ({"model_limits": {"m": {"rpd": 1}}}, {"model_limits": {"m": {"rpd": 1}}}),
        ):
            (found,) = warnings(AccountConfig("openai", "a", auth, **one), AccountConfig("openai", "b", auth, **other))
            self.assertIn("accounts[1].auth: holds the same key as accounts[0]", found)
            self.assertNotIn("sk-same", found)
        for one, other in (
            ({"daily_free": 5}, rows),
            ({**rows, "quota_group": "g"}, {**rows, "quota_group": "g"}),
            ({**rows, "base_url": "https://x.example/v1"}, rows),
            ({**rows, "auth": Auth("sk-other")}, rows),
            ({**rows, "auth": Auth()}, {**rows, "auth": Auth()}),
            ({"model_limits": {"m": {"rpd": 1}}}, {"model_limits": {"n": {"rpd": 1}}}),
        ):
            accounts = [AccountConfig("openai", name, **{"auth": auth, **each}) for name, each in (("a", one), ("b", other))]
            self.assertEqual(warnings(*accounts), (), (one, other))

    def test_a_step_without_an_account_is_told(self) -> None:
        """A step of an alias whose provider has no account gives a warning with its path, the other step none."""
        steps = ModelMapping("fast", [ModelRef("openai", "m"), ModelRef("opena", "m")])
        (found,) = warnings(AccountConfig("openai", "a"), models=[steps])
        self.assertTrue(found.startswith("models[0].models[1].provider: "), found)
        self.assertIn("did you mean 'openai'", found)

    def test_an_account_that_nothing_reaches_is_told(self) -> None:
        """An account is warned about unless an alias names its provider or the provider takes direct names."""
        account = AccountConfig("own", "a", base_url="https://x.example")
        (found,) = warnings(account)
        self.assertTrue(found.startswith("accounts[0].provider: "), found)
        self.assertEqual(warnings(account, direct=("own",)), ())
        self.assertEqual(warnings(account, models=[ModelMapping("m", [ModelRef("own", "m")])]), ())

    def test_a_path_that_is_not_used_is_told(self) -> None:
        """A path beside the memory store gives a warning."""
        (found,) = warnings(AccountConfig("p", "a"), direct=["p"], quota=QuotaConfig(path="x.db"))
        self.assertTrue(found.startswith("quota.path: "), found)

    def test_no_account_is_told(self) -> None:
        """A configuration without accounts can be made, and gives a warning."""
        (found,) = warnings()
        self.assertTrue(found.startswith("accounts: is empty"), found)


if __name__ == "__main__":
    unittest.main()
