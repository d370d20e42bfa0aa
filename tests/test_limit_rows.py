"""Limits in each of the ways they can be written, what is refused of it, and what it comes to in calls."""

from __future__ import annotations

import struct
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any

from tests import ir, part
from tests.fakes import FakeClock

limit_rows = part("limit_rows")
limits = part("limits")
HELLO = ir.ChatRequest("Hello!")


def rows(stated: Any, **options: Any) -> list[tuple[str, float, str, str]]:
    """Name, amount, unit and window of each limit that `stated` holds; it must be right."""
    assert [text for _, text in limit_rows.limit_problems("limits", stated) if text] == [], stated
    return [(row.name, row.amount, row.unit, row.window) for row in limit_rows.limit_rows(stated, **options)]


class Forms(unittest.TestCase):
    def test_what_is_meant(self) -> None:
        """Short keys, an amount with `per`, amounts by span, calls at once, and lists of them."""
        hours5, days7 = ("requests per 5h", 45, "requests", "5h"), ("requests per 7d", 200, "requests", "7d")
        for stated, expected in (
            ({}, []),
            ([], []),
            ({"rpm": 15, "tpd": 1000}, [("rpm", 15, "requests", "minute"), ("tpd", 1000, "tokens", "day")]),
            ({"rpweek": 9}, [("rpweek", 9, "requests", "week")]),
            ({"itpm": 9, "otpm": 3}, [("itpm", 9, "input_tokens", "minute"), ("otpm", 3, "output_tokens", "minute")]),
            ({"requests": 45, "per": "5h"}, [hours5]),
            ([{"requests": 45, "per": "5h"}, {"requests": 200, "per": "7d"}], [hours5, days7]),
            ({"requests": {"5h": 45, "7d": 200}}, [hours5, days7]),
            ({"requests": 15, "per": "minute"}, [("rpm", 15, "requests", "minute")]),
            ({"requests": 15, "per": "60s"}, [("rpm", 15, "requests", "minute")]),
            ({"requests": 15, "per": "24h"}, [("requests per 1d", 15, "requests", "1d")]),
            ({"requests": 15, "per": "1w"}, [("requests per 7d", 15, "requests", "7d")]),
            ({"inputs": 100, "per": "minute"}, [("inputs per minute", 100, "inputs", "minute")]),
            ({"audio_seconds": 7.5, "per": "hour"}, [("audio_seconds per hour", 7.5, "audio_seconds", "hour")]),
            ({"images": 5, "per": "day"}, [("ipd", 5, "images", "day")]),
            ({"parallel": 2}, [("parallel", 2, "parallel", "10m")]),
            ({"parallel": 2, "per": "hour"}, [("parallel", 2, "parallel", "hour")]),
            ([{"rpm": 5, "parallel": 2}], [("rpm", 5, "requests", "minute"), ("parallel", 2, "parallel", "10m")]),
            ({"tokens": 9, "per": "minute", "counts": "input"}, [("tpm", 9, "input_tokens", "minute")]),
            (
                {"requests": 5, "tokens": 9, "per": "90s"},
                [("requests per 90s", 5, "requests", "90s"), ("tokens per 90s", 9, "tokens", "90s")],
            ),
        ):
            self.assertEqual(rows(stated), expected, stated)
        self.assertEqual(rows({"tpm": 9, "tpd": 9}, tpm_counts="input")[0], ("tpm", 9, "input_tokens", "minute"))
        self.assertEqual(rows({"tpm": 9, "tpd": 9}, tpm_counts="input")[1][2], "tokens")

    def test_what_is_wrong(self) -> None:
        """Each fault is one problem with its path and what to write instead."""
        for stated, path, words in (
            (7, "limits", "a table such as {rpm = 15}"),
            ([7], "limits", "a list of these"),
            ({"rqm": 7}, "limits.rqm", "did you mean 'rpm'"),
            ({"request": 7, "per": "5h"}, "limits.request", "did you mean 'requests'"),
            ({"requests": 7, "pre": "5h"}, "limits.pre", "did you mean 'per'"),
            ({"requests": 7}, "limits.requests", 'per = "5h"'),
            ({"requests": 7, "per": "5 hours"}, "limits.requests", '"90s", "5h" or "7d"'),
            ({"requests": 7, "per": "0s"}, "limits.requests", '"90s"'),
            ({"requests": 7, "per": "400d"}, "limits.requests", '"90s"'),
            ({"requests": 7, "per": 5}, "limits.requests", '"90s"'),
            ({"requests": 7.5, "per": "5h"}, "limits.requests", "whole"),
            ({"requests": "7", "per": "5h"}, "limits.requests", "without quotes"),
            ({"requests": {"5x": 7}}, "limits.requests.5x", '"90s"'),
            ({"requests": {}}, "limits.requests", "names no window"),
            ({"parallel": {}}, "limits.parallel", "names no window"),
            ([{}], "limits[0]", "names no limit"),
            ([{"rpm": 5}, {}], "limits[1]", "names no limit"),
            ({"sk-live-0123456789abcdef": 7}, "limits.***", "unknown limit"),
            ({"rpm": 7, "per": "5h"}, "limits.rpm", "write requests"),
            ({"per": "5h"}, "limits", "names no limit"),
            ({"parallel": -1}, "limits.parallel", "negative"),
            ({"tokens": 7, "per": "5h", "counts": "out"}, "limits.counts", "total, input"),
            ({"rpm": 7, "leave": -1}, "limits.leave", "negative"),
            ([{"rpm": 7}, {"requests": 9, "per": "minute"}], "limits[1].requests", "the same limit as limits[0].rpm"),
        ):
            account = ir.AccountConfig("p", "a", limits=stated)
            with self.assertRaises(ir.ConfigError, msg=repr(stated)) as caught:
                ir.Config([account])
            found = [each for each in caught.exception.problems if "limits" in each]
            self.assertTrue(any(each.startswith(f"accounts[0].{path}: ") and words in each for each in found), (stated, found))

    def test_spans(self) -> None:
        """A window has one name however it is written; spans roll, and their length is what they say."""
        for written, name, seconds in (("1m", "minute", 60), ("90s", "90s", 90), ("120m", "2h", 7200), ("2w", "14d", 1_209_600)):
            limit = limits.Limit(5, "requests", written)
            self.assertEqual((limit.window, limit.span_s, limit.rolling), (name, seconds, True))
        self.assertEqual(str(limits.Limit(45, "requests", "5h")), "45 requests per 5h")
        self.assertEqual(str(limits.Limit(2, "parallel", "10m")), "2 calls at once")
        for wrong in ("5", "h", "5y", "", "-5h", "5 h", "\u0665h", 5):
            with self.assertRaises(ir.ConfigError, msg=repr(wrong)):
                limits.Limit(5, "requests", wrong)
        with self.assertRaises(ir.ConfigError):
            limits.Limit(5, "requests", "5h", rolling=False)

    def test_weeks(self) -> None:
        """A week is cut on Monday in its zone, or rolls."""
        for zone in ("UTC", "America/Los_Angeles"):
            begin, end = limits.window_bounds(1_788_955_200.0, "week", zone)  # a Wednesday
            self.assertEqual(end - begin, 7 * 86400)
            self.assertEqual(limits.window_bounds(end, "week", zone)[0], end)
        self.assertEqual(limits.window_bounds(1_788_955_200.0, "week")[0], 1_788_739_200.0)
        self.assertTrue(limits.Limit(5, "requests", "week", rolling=True).rolling)

    def test_what_is_left_to_others(self) -> None:
        """A share, or an amount; at least one unit may be used."""
        for amount, leave, whole, left in (
            (100, 0.2, True, 20),
            (15, 0.2, True, 3),
            (14, 0.2, True, 3),
            (100, 30, True, 30),
            (1, 0.5, True, 0),
            (3, 5, True, 2),
            (2.5, 0.2, False, 0.5),
            (100, None, True, 0),
            (100, True, True, 0),
            (100, -1, True, 0),
        ):
            self.assertEqual(limit_rows.left_to_others(amount, leave, whole), left, (amount, leave))

    def test_wrong_leave(self) -> None:
        """What cannot be left is refused with its path."""
        for leave, path in (
            (1.5, "leave"),
            (-0.1, "leave"),
            ("x", "leave"),
            ({"rpx": 5}, "leave.rpx"),
            ({"rpm": "5"}, "leave.rpm"),
        ):
            with self.assertRaises(ir.ConfigError) as caught:
                ir.Config([ir.AccountConfig("p", "a", limits={"rpm": 15}, leave=leave)])
            self.assertTrue(caught.exception.problems[0].startswith(f"accounts[0].{path}: "), caught.exception)


class Calls(unittest.TestCase):
    def router(self, reply: Any = None, *, clock: Any = None, provider: Any = None, store: Any = None, **settings: Any) -> Any:
        account = ir.AccountConfig("mock", "a", ir.Auth("k"), **settings)
        provider = provider or (ir.MockProvider() if reply is None else ir.MockProvider(default=reply))
        config = ir.Config([account], default_model="mock/x")
        router = ir.Router(config, [provider], clock=clock or FakeClock(), quota_store=store)
        self.addCleanup(router.close)
        return router

    def served(self, router: Any, tries: int, request: Any = HELLO) -> int:
        count = 0
        for _ in range(tries):
            try:
                router.chat_completion(request)
            except ir.NoCandidatesError:
                break
            count += 1
        return count

    def used(self, router: Any) -> dict[str, float]:
        return {limit.name: limit.used for limit in router.status()["a"].limits}

    def test_several_of_one_unit(self) -> None:
        """Five hours and a week side by side, as coding plans count: each holds, and each frees by itself."""
        clock = FakeClock()
        router = self.router(clock=clock, limits=[{"requests": 3, "per": "5h"}, {"requests": 5, "per": "7d"}])
        self.assertEqual(self.served(router, 9), 3)
        clock.sleep(5.2 * 3600)
        self.assertEqual(self.served(router, 9), 2)
        clock.sleep(5.2 * 3600)
        self.assertEqual(self.served(router, 9), 0)
        self.assertEqual(self.used(router), {"requests per 5h": 0, "requests per 7d": 5})
        clock.sleep(7.2 * 86400)
        self.assertEqual(self.served(router, 9), 3)

    def test_only_what_goes_in(self) -> None:
        """With tpm_counts = "input" an answer of any length leaves tpm alone; the catalog's row of Gemini says so."""
        usage = ir.Usage(10, 500, 510)
        for counts, used in (("input", 10), ("total", 510)):
            router = self.router(ir.MockReply("x", usage=usage), limits={"tpm": 2000}, tpm_counts=counts)
            self.assertEqual(self.served(router, 1), 1)
            self.assertEqual(self.used(router), {"tpm": used})
        self.assertEqual(part("catalog").PRESETS["gemini"].tpm_counts, "input")
        router = ir.Router.from_env(env={"GEMINI_API_KEY": "k" * 20})
        self.addCleanup(router.close)
        row = router._config.accounts[0].model_limit_rows("gemini-3.7-flash")
        self.assertIn(("tpm", "input_tokens"), [(each.name, each.unit) for each in row])

    def test_inputs_images_and_sound(self) -> None:
        """Texts to embed, pictures and seconds of sound are counted as they go in; other calls leave them alone."""
        wav = b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(12) + struct.pack("<I", 32_000) + bytes(12) + bytes(96_000)
        self.assertEqual(len(wav), 44 + 96_000)
        stated = [{"images": 3, "per": "day"}, {"audio_seconds": 10, "per": "hour"}, {"inputs": 5, "per": "minute"}]
        router = self.router(limits=stated, capabilities=["text", "image", "audio"])
        part_of = ir.Part
        media = ir.ChatRequest([ir.Message("user", [part_of.image(b"x", "image/png"), part_of.audio(wav, "audio/wav")])])
        self.assertEqual(self.served(router, 1), 1)
        self.assertEqual(self.used(router), {"ipd": 0, "audio_seconds per hour": 0, "inputs per minute": 0})
        self.assertEqual(self.served(router, 9, media), 3)
        self.assertEqual(self.used(router), {"ipd": 3, "audio_seconds per hour": 9, "inputs per minute": 0})
        router.embed(ir.EmbedRequest(inputs=["a", "b", "c"]))
        self.assertEqual(self.used(router)["inputs per minute"], 3)
        with self.assertRaises(ir.NoCandidatesError):
            router.embed(ir.EmbedRequest(inputs=["a", "b", "c"]))

    def test_room_for_the_owner(self) -> None:
        """A share of every limit, or an amount of one, stays unused, and status shows it."""
        router = self.router(limits={"rpd": 10}, leave=0.2)
        self.assertEqual(self.served(router, 20), 8)
        (limit,) = router.status()["a"].limits
        self.assertEqual((limit.amount, limit.leave), (8, 2))
        self.assertIn("2 left to others", str(router.status()))
        router = self.router(limits={"rpd": 10, "rpm": 9}, leave={"rpd": 4})
        self.assertEqual(self.served(router, 20), 6)
        router = self.router(limits=[{"rpd": 10, "leave": 0.5}, {"rpm": 9}], leave=0.1)
        self.assertEqual({each.name: each.amount for each in router.status()["a"].limits}, {"rpd": 5, "rpm": 8})
        router = self.router(daily_free=10, leave=0.3)
        self.assertEqual(self.served(router, 20), 7)
        self.assertEqual(router.status()["a"].limits[0].leave, 3)
        router = self.router(limits={"parallel": 2}, leave=0.5)
        self.assertEqual(router.status()["a"].limits[0].amount, 2)

    def test_calls_at_once(self) -> None:
        """Of eight threads two are under way at a time; each frees its place, whatever becomes of it."""
        running, most, gate = [0], [0], threading.Lock()

        def answer(body: Any) -> Any:
            with gate:
                running[0] += 1
                most[0] = max(most[0], running[0])
            threading.Event().wait(0.005)
            with gate:
                running[0] -= 1
                return ir.MockReply("x") if running[0] % 2 else ir.MockReply(status=429)

        store = ir.MemoryQuotaStore()
        router = self.router(provider=ir.MockProvider(default=answer), store=store, limits={"parallel": 2})
        outcomes = []

        def work() -> None:
            for _ in range(5):
                try:
                    router.chat_completion(HELLO)
                    outcomes.append("served")
                except ir.InferRouterError as exc:
                    outcomes.append(type(exc).__name__)
                    store.hold("a|x", 0, "", FakeClock().time())
                    store.hold("a", 0, "", FakeClock().time())

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(outcomes), 40)
        self.assertLessEqual(most[0], 2)
        self.assertEqual(self.used(router), {"parallel": 0})

    def test_a_place_is_freed_by_every_end(self) -> None:
        """An answer, a refusal, a lost answer, a stream that ends and one that is stopped give the place back."""
        replies = (ir.MockReply("x"), ir.MockReply(status=400), ir.MockReply(status=500), ir.MockReply(body="broken"))
        for reply in replies:
            router = self.router(reply, limits={"parallel": 1, "rpd": 9})
            try:
                router.chat_completion(HELLO)
            except ir.InferRouterError:
                pass
            self.assertEqual(self.used(router)["parallel"], 0, reply)
        router = self.router(limits={"parallel": 1})
        stream = router.stream(HELLO)
        next(iter(stream))
        self.assertEqual(self.used(router)["parallel"], 1)
        self.assertIn("parallel: 1 of 1 calls at once", str(router.status()))
        self.assertIsNone(router.status()["a"].limits[0].resets_at)
        with self.assertRaises(ir.NoCandidatesError) as caught:
            router.chat_completion(HELLO)
        self.assertIn("1 call at once, and all are under way", str(caught.exception))
        self.assertLessEqual(caught.exception.retry_at - FakeClock().time(), 1.0)
        stream.close()
        self.assertEqual(self.used(router)["parallel"], 0)
        self.assertEqual(self.served(router, 3), 3)

    def test_places_and_a_window_are_full(self) -> None:
        """Where all places are taken and a minute is spent, the minute's end is named: a place may be free at any moment."""
        clock = FakeClock()
        router = self.router(clock=clock, limits={"parallel": 1, "rpm": 1})
        with router.stream(HELLO) as stream:
            next(iter(stream))
            frees = clock.now + 60
            with self.assertRaises(ir.NoCandidatesError) as caught:
                router.chat_completion(HELLO)
            self.assertAlmostEqual(caught.exception.retry_at, frees, delta=1)
            (found,) = router.explain(HELLO).rejections
            self.assertAlmostEqual(found.retry_at, frees, delta=1)
            with self.assertRaises(ir.NoCandidatesError):
                router.chat_completion(HELLO, max_wait=30)
            self.assertEqual(clock.slept, [])
        self.assertTrue(router.chat_completion(HELLO, max_wait=90).text)
        self.assertEqual(len(clock.slept), 1)

    def test_a_crash_heals(self) -> None:
        """The place of a call whose process died is free again after ten minutes, or after what `per` says."""
        for stated, lease in (({"parallel": 1}, 600), ({"parallel": 1, "per": "60s"}, 60)):
            with tempfile.TemporaryDirectory() as folder:
                clock = FakeClock()
                path = Path(folder) / "quota.db"
                with ir.SQLiteQuotaStore(path) as store:
                    dying = self.router(clock=clock, store=store, limits=stated)
                    stream = dying.stream(HELLO)
                    next(iter(stream))
                    with ir.SQLiteQuotaStore(path) as other:
                        router = self.router(clock=clock, store=other, limits=stated)
                        clock.sleep(lease * 0.9)
                        self.assertEqual(self.served(router, 1), 0)
                        clock.sleep(lease * 0.15)
                        self.assertEqual(self.served(router, 3), 3)
                    stream.close()

    def test_in_a_file(self) -> None:
        """The same keys in TOML, with problems by their paths."""
        head = '[[accounts]]\nprovider = "groq"\nid = "a"\nauth.api_key = "${K}"\n'
        good = (
            'limits = [{ requests = 45, per = "5h" }, { requests = 225, per = "7d", leave = 25 }, { parallel = 2 }]\n'
            'leave = 0.2\ntpm_counts = "input"\nmax_daily_spend = "100 requests"\n'
            '[accounts.model_limits."m"]\nrequests = { "5h" = 4, week = 20 }\n'
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "c.toml"
            path.write_text(head + good)
            config, _ = part("config_file").load_config(path, env={"K": "k"})
            (account,) = config.accounts
            found = [(row.name, row.amount - row.leave) for row in account.limit_rows]
            self.assertEqual(found, [("requests per 5h", 36), ("requests per 7d", 200), ("parallel", 2)])
            self.assertEqual([row.name for row in account.model_limit_rows("m")], ["requests per 5h", "rpweek"])
            path.write_text(head + 'limits = [{ request = 45, per = "5h" }]\nleaves = 0.2\ntpm_counts = "in"\n')
            with self.assertRaises(ir.ConfigError) as caught:
                part("config_file").load_config(path, env={"K": "k"})
            text = "\n".join(caught.exception.problems)
            for words in (
                "accounts[0].limits[0].request: ",
                "did you mean 'requests'",
                "did you mean 'leave'",
                "accounts[0].tpm_counts: ",
            ):
                self.assertIn(words, text)


if __name__ == "__main__":
    unittest.main()
