"""A batch: every row of a file into one record of another, resumed by running it again, whatever happened."""

from __future__ import annotations

import base64
import csv
import datetime
import errno
import io
import itertools
import json
import os
import threading
import time
import unittest
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

from tests import ir, part, places
from tests.fakes import NOON
from tests.jobs import JobCase, echo, mock_router

batch_input, batch_output, batch_merge = part("batch_input"), part("batch_output"), part("batch_merge")
ROWS = "id,text\n1,good\n2,bad\n3,fine\n"
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"type": "string", "enum": ["good", "bad"]}, "score": {"type": "integer"}},
    "required": ["mood"],
    "additionalProperties": False,
}


class Formats(JobCase):
    def test_openai_lines_out(self) -> None:
        """A record is OpenAI's batch line with the routing and the row beside it; it begins with its name."""
        self.run_job(self.file("in.csv", ROWS), prompt="Say: {text}")
        found = self.records()
        self.assertEqual(len({each["custom_id"] for each in found}), 3)
        body = found[0]["response"]["body"]
        self.assertEqual((found[0]["response"]["status_code"], found[0]["error"]), (200, None))
        self.assertEqual((body["object"], body["choices"][0]["message"]["content"]), ("chat.completion", "SAY: GOOD"))
        self.assertEqual(set(body["usage"]), {"prompt_tokens", "completion_tokens", "total_tokens"})
        self.assertEqual(found[0]["row"], {"id": "1", "text": "good"})
        self.assertEqual((found[0]["routing"]["account"], found[0]["routing"]["free"]), ("a0", True))

    def test_openai_lines_in(self) -> None:
        """A batch file made for OpenAI is served as it is: names, parameters, embeddings; a foreign url is its row's error."""
        chat = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 7, "user": "me"}
        lines = [
            {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": chat},
            {"custom_id": "b", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": ["x", "y"]}},
            {"custom_id": "c", "method": "POST", "url": "/v1/images", "body": {"prompt": "x"}},
        ]
        source = self.file("in.jsonl", "\n".join(map(json.dumps, lines)))
        router, provider = mock_router({"rpd": 100})
        with router:
            summary = self.job(source, workers=1).run(router)
        self.assertEqual((summary.done, summary.failed), (2, 1))
        self.assertEqual((provider.calls[0].body["max_tokens"], provider.calls[0].body["user"]), (7, "me"))
        found = {each["custom_id"]: each for each in self.records()}
        self.assertEqual(len(found["b"]["response"]["body"]["data"]), 2)
        self.assertRegex(found["c"]["error"]["message"], r"in\.jsonl:3: .*/v1/images")
        self.assertNotIn("row", found["a"])

    def test_tables_out(self) -> None:
        """A CSV has the input's columns, the answer, and what it took; line breaks and quotes survive."""
        source = self.file("in.csv", 'id,text,answer\n1,"two\nlines, ""quoted""",old\n')
        self.run_job(source, "out.csv", prompt="{text}")
        text = (self.folder / "out.csv").read_text("utf-8")
        (row,) = csv.DictReader(io.StringIO(text, newline=""))
        self.assertEqual(row["answer"], 'TWO\nLINES, "QUOTED"')
        self.assertEqual(
            (row["text"], row["input_answer"], row["account"], row["error"]), ('two\nlines, "quoted"', "old", "a0", "")
        )

    def test_flat_lines_out(self) -> None:
        """A flat record has the columns and the answer side by side."""
        self.run_job(self.file("in.csv", ROWS), prompt="{text}", shape="flat")
        self.assertEqual({key: self.records()[0][key] for key in ("id", "text", "answer", "model")}, {
            "id": "1", "text": "good", "answer": "GOOD", "model": "m",
        })  # fmt: skip

    def test_structured_answers(self) -> None:
        """An answer's properties become columns; one that breaks the schema is asked again, so often and no more."""
        source = self.file("in.csv", "text\na\nb\n")
        replies = ["not JSON", '{"mood": "so-so"}', '{"mood": "good", "score": 3}', '{"mood": 1}']
        summary, calls = self.run_job(
            source, "out.csv", prompt="{text}", schema=SCHEMA, replies=replies, default='{"mood": 1}', workers=1, tries=3
        )
        self.assertEqual((summary.done, summary.failed, calls), (1, 1, 6))
        first, second = csv.DictReader(io.StringIO((self.folder / "out.csv").read_text("utf-8"), newline=""))
        self.assertEqual((first["mood"], first["score"]), ("good", "3"))
        self.assertRegex(second["error"], r"answer\.mood is integer, not string")
        self.assertEqual(summary.errors[0][1], 1)

    def test_plain_rows(self) -> None:
        """Without a prompt a row is its own: a body, a column named prompt or text, a line, a JSON string."""
        lines = [{"prompt": "a"}, {"text": "b", "x": 1}, {"messages": [{"role": "user", "content": "c"}]}, "d", {"only": "e"}]
        self.run_job(self.file("in.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n"), workers=1)
        self.run_job(self.file("in.txt", "f\n\n  \ng"), "out2.jsonl", workers=1)
        said = [
            each["response"]["body"]["choices"][0]["message"]["content"] for each in self.records() + self.records("out2.jsonl")
        ]
        self.assertEqual(said, ["A", "B", "C", "D", "E", "F", "G"])

    def test_a_folder(self) -> None:
        """Each file is a row by its path: text in {text}, anything else as media."""
        (self.folder / "docs" / "sub").mkdir(parents=True)
        (self.folder / "docs" / ".hidden").write_text("no")
        (self.folder / "docs" / "sub" / "b.txt").write_text("bye")
        (self.folder / "docs" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff")
        config = {"accounts": [ir.AccountConfig("mock", "a", capabilities=["text", "image"])]}
        provider = ir.MockProvider("mock", models=["m"])
        with ir.Router(ir.Config(default_model="m", **config), [provider]) as router:
            self.job(self.folder / "docs", prompt="Tell of {name}: {text}", workers=1).run(router)
        self.assertEqual([each["custom_id"] for each in self.records()], ["a.png", "sub/b.txt"])
        first, second = (call.body["messages"][0]["content"] for call in provider.calls)
        self.assertEqual([each["type"] for each in first], ["text", "image_url"])
        self.assertEqual(second, "Tell of b.txt: bye")

    def test_media_columns(self) -> None:
        """A media column holds a file's path, from the input's folder on, or a URL; an empty cell is none."""
        self.file("cat.png", base64.b64decode("iVBORw0KGgo="))
        source = self.file("in.csv", "q,photo\nwhat?,cat.png\nand?,https://x.test/y.png\nno?,\ngone?,none.png\n")
        provider = ir.MockProvider("mock", models=["m"])
        accounts = [ir.AccountConfig("mock", "a", capabilities=["text", "image"])]
        with ir.Router(ir.Config(default_model="m", accounts=accounts), [provider]) as router:
            summary = self.job(source, prompt="{q}", media=["photo"], workers=1).run(router)
        self.assertEqual((summary.done, summary.failed), (3, 1))
        shown = [call.body["messages"][0]["content"] for call in provider.calls]
        self.assertEqual(shown[1][1]["image_url"]["url"], "https://x.test/y.png")
        self.assertEqual(shown[2], "no?")
        self.assertRegex(self.records()[-1]["error"]["message"], r"in\.csv:5: .*none\.png")


class Resuming(JobCase):
    def test_again_asks_nothing(self) -> None:
        """A finished job run again asks nobody and changes nothing; rows that were added are asked."""
        source = self.file("in.csv", ROWS)
        self.assertEqual(self.run_job(source, prompt="{text}")[1], 3)
        before = (self.folder / "out.jsonl").read_bytes()
        summary, calls = self.run_job(source, prompt="{text}")
        self.assertEqual((summary.done, summary.left, calls), (3, 0, 0))
        self.assertEqual((self.folder / "out.jsonl").read_bytes(), before)
        source.write_text("id,text\n0,new\n" + ROWS.partition("\n")[2])
        self.assertEqual(self.run_job(source, prompt="{text}")[1], 1)

    def test_torn_at_every_byte(self) -> None:
        """Cut anywhere in its last record, by a crash, an output is mended, and each row has exactly one record in the end."""
        source = self.file("in.csv", 'id,text\n1,good\n2,"b ""a""\nd"\n')
        for name in ("out.jsonl", "out.csv"):
            self.run_job(source, name, prompt="{text}", workers=1)
            whole = (self.folder / name).read_bytes()
            spans = list(batch_output.csv_spans(self.folder / name)) if name.endswith("csv") else None
            start = spans[-1][0] if spans else whole.rstrip(b"\n").rfind(b"\n") + 1
            router, provider = mock_router({"rpd": 100_000}, default=echo)
            with router:
                for size in places(len(whole), first=start):
                    (self.folder / name).write_bytes(whole[:size])
                    asked = len(provider.calls)
                    summary = self.job(source, name, prompt="{text}", workers=1).run(router)
                    self.assertEqual((summary.done, summary.mended), (2, start < size < len(whole)), size)
                    self.assertEqual(len(provider.calls) - asked, size < len(whole))
                    records = list(batch_output.records_of(self.folder / name, "csv" if spans else "openai"))
                    self.assertEqual(len({record.custom_id for record in records}), len(records) == 2 and 2)

    def test_torn_ends_are_no_records(self) -> None:
        """Whoever only looks at a torn output, to count what is left or to merge, takes its end for no record, wherever it was
        cut: it is left to do, and a merge is refused that names the file and what mends it."""
        source = self.file("in.csv", ROWS)
        self.run_job(source, prompt="{text}")
        path = self.folder / "out.jsonl"
        whole = path.read_bytes()
        start = whole.rstrip(b"\n").rfind(b"\n") + 1
        for size in places(len(whole) - 1, first=start + 1):
            path.write_bytes(whole[:size])
            self.assertEqual(self.job(source, prompt="{text}").rows(), (3, 1), size)
            with self.assertRaisesRegex(
                ir.BatchError, "out.jsonl' ends in the middle of a record.* run that job again, which repairs it"
            ):
                batch_merge.merge([path], self.folder / "all.jsonl")
        self.assertEqual(self.run_job(source, prompt="{text}")[1], 1)
        path.write_bytes(whole[: start + 9].rpartition(b"\n")[0][:5])  # not one whole record
        self.assertEqual(self.job(source, prompt="{text}").rows(), (3, 3))

    def test_what_a_crash_would_ask_twice(self) -> None:
        """However fast answers come, no more rows than there are workers are asked and not in the output; so few are asked twice
        after a kill at any moment. And where they come fast, one write has several."""
        source = self.file("in.txt", "".join(f"row {number}\n" for number in range(900)))
        for workers in (1, 3, 32):
            asked, most, writes = itertools.count(1), [0], itertools.count()
            output = self.folder / f"{workers}.jsonl"
            lines = open(output, "ab+")  # noqa: SIM115  as long as the job
            found, counting = [0], threading.Lock()

            def reply(body: Any, seen: Any = (asked, most, lines, found, counting)) -> str:
                asked, most, lines, found, counting = seen
                with counting:
                    number = next(asked)
                    found[0] += lines.read().count(b"\n")
                    most[0] = max(most[0], number - found[0])
                return "ok"

            write = batch_output.Output.write

            def counted(self: Any, records: bytes, writes: Any = writes, write: Any = write) -> None:
                next(writes)
                write(self, records)

            router, _ = mock_router({"rpd": 100_000}, clock=ir.SystemClock(), default=reply)
            with self.subTest(workers=workers), lines, router, mock.patch.object(batch_output.Output, "write", counted):
                summary = self.job(source, output.name, workers=workers).run(router)
                self.assertEqual((summary.done, len(self.records(output.name))), (900, 900))
                self.assertLessEqual(most[0], workers)
                if workers >= 8:
                    self.assertLess(next(writes), 900)

    def test_where_all_are_at_work_no_line_is_put_off(self) -> None:
        """Each of the workers has a row then, so that one line more that is not written would be one too many after a kill."""
        keeper = part("batch_keep").Keeper
        keep, spares = keeper.keep, Counter[int]()

        def noted(self: Any, served: Any, spare: int) -> None:
            spares[spare] += 1
            keep(self, served, spare)

        router, _ = mock_router({"rpd": 1000})  # on a clock that is not the machine's all are always at work
        with router, mock.patch.object(keeper, "keep", noted):
            self.job(self.file("in.txt", "".join(f"row {number}\n" for number in range(40))), workers=8).run(router)
        self.assertEqual(spares, {0: 40})

    def test_one_run_at_a_time(self) -> None:
        """A second run on the same output is refused while the first goes on, and names it."""
        source = self.file("in.csv", ROWS)
        router, _ = mock_router({"rpd": 100})
        caught: list[Any] = []

        def second(state: Any) -> None:
            if not caught:
                with self.assertRaisesRegex(ir.BatchError, f"another run .process {os.getpid()} on") as refused:
                    self.job(source, prompt="{text}").run(router)
                caught.append(refused.exception)

        with router:
            summary = self.job(source, prompt="{text}").run(router, second)
        self.assertEqual((summary.done, len(caught), len(self.records())), (3, 1, 3))

    def test_other_settings(self) -> None:
        """A changed prompt is refused with both shown; keep goes on the new way, restart puts the old file aside."""
        source = self.file("in.csv", ROWS)
        self.run_job(source, prompt="One: {text}")
        source.write_text(ROWS + "4,more\n")
        with self.assertRaisesRegex(ir.BatchError, r'prompt was "One: \{text\}", is "Two: \{text\}".*--changed restart'):
            self.run_job(source, prompt="Two: {text}")
        with self.assertRaisesRegex(ir.BatchError, "model was"):
            self.run_job(source, prompt="One: {text}", model="m")
        self.assertEqual(self.run_job(source, prompt="Two: {text}", on_change="keep")[1], 1)
        self.assertEqual(self.run_job(source, prompt="Three: {text}", on_change="restart")[1], 4)
        self.assertEqual(len(self.records("out.jsonl.before")), 4)
        self.assertEqual(self.run_job(source, prompt="Three: {text}")[1], 0)

    def test_failed_rows(self) -> None:
        """A failed row is done until --retry-failed asks it again; then its error's record is gone."""
        source = self.file("in.csv", ROWS)
        for name in ("out.jsonl", "out.csv"):
            picky = lambda body: 400 if "bad" in body["messages"][0]["content"] else "ok"  # noqa: E731  # short
            summary, _ = self.run_job(source, name, prompt="{text}", default=picky)
            self.assertEqual((summary.done, summary.failed, summary.left), (2, 1, 0))
            self.assertEqual(self.run_job(source, name, prompt="{text}")[1], 0)
            summary, calls = self.run_job(source, name, prompt="{text}", retry_failed=True)
            self.assertEqual((summary.done, summary.failed, calls), (3, 0, 1))
            shape = "csv" if name.endswith("csv") else "openai"
            found = list(batch_output.records_of(self.folder / name, shape))
            self.assertEqual((len(found), any(record.failed for record in found)), (3, False))

    def test_equal_rows(self) -> None:
        """Rows that say the same are asked once and each have a record, whatever their names, and after a crash in between."""
        rows = "".join(f'{{"custom_id": "c{at}", "text": "same"}}\n' for at in range(4))
        for name, text in (("named.jsonl", rows), ("lines.txt", "same\n" * 4)):
            source = self.file(name, text)
            out = f"out-{name}.jsonl"
            summary, calls = self.run_job(source, out)
            self.assertEqual((summary.done, summary.copied, calls), (4, 3, 1))
            found = self.records(out)
            self.assertEqual(len({each["custom_id"] for each in found}), 4)
            self.assertEqual({each["response"]["body"]["choices"][0]["message"]["content"] for each in found}, {"SAME"})
            (self.folder / out).write_text(json.dumps(found[0]) + "\n")
            summary, calls = self.run_job(source, out)
            self.assertEqual((summary.done, summary.copied, calls, len(self.records(out))), (4, 3, 0, 4))
            os.remove(self.folder / out)
            self.assertEqual(self.run_job(source, out, dedupe=False)[1], 4)

    def test_shards(self) -> None:
        """Shards share no row and leave none out; merged they stand in the input's order, each once."""
        source = self.file("in.txt", "".join(f"row {number % 50}\n" for number in range(60)))
        parts = [f"out.{place}.jsonl" for place in (1, 2, 3)]
        calls = sum(self.run_job(source, name, shard=(place, 3))[1] for place, name in enumerate(parts, 1))
        self.assertEqual(calls, 50)
        places = [str(self.folder / name) for name in parts]
        merged = batch_merge.merge([*places, places[0]], str(self.folder / "all.jsonl"), str(source))
        self.assertEqual((merged.rows, merged.failed, merged.missing), (60, 0, 0))
        self.assertGreater(merged.twice, 0)
        texts = [each["response"]["body"]["choices"][0]["message"]["content"] for each in self.records("all.jsonl")]
        self.assertEqual(texts, [f"ROW {number % 50}" for number in range(60)])
        self.assertEqual(self.run_job(source, "all.jsonl")[1], 0)

    def test_merging_prefers_success(self) -> None:
        """Of two records of a row the one that succeeded stays, and CSV parts keep one header."""
        source = self.file("in.csv", ROWS)
        self.run_job(source, "a.csv", prompt="{text}", default=400)
        self.run_job(source, "b.csv", prompt="{text}")
        merged = batch_merge.merge([str(self.folder / "a.csv"), str(self.folder / "b.csv")], str(self.folder / "c.csv"))
        self.assertEqual((merged.rows, merged.failed, merged.twice), (3, 0, 3))
        rows = list(csv.DictReader(io.StringIO((self.folder / "c.csv").read_text("utf-8"), newline="")))
        self.assertEqual(sorted(row["answer"] for row in rows), ["BAD", "FINE", "GOOD"])
        with self.assertRaisesRegex(ir.BatchError, "all CSV"):
            batch_merge.merge([str(self.folder / "a.csv")], str(self.folder / "c.jsonl"))


class Ending(JobCase):
    def test_spent_and_until(self) -> None:
        """Stopped for want of slots or by the clock it says when to come back, and the next run goes on."""
        source = self.file("in.txt", "".join(f"{number}\n" for number in range(20)))
        summary, calls = self.run_job(source, limits={"rpd": 8}, stop_when_spent=True)
        self.assertEqual((summary.stopped, summary.left, summary.retry_at, calls), ("spent", 12, NOON + 12 * 3600, 8))
        summary, calls = self.run_job(source, limits={"rpm": 5}, until=NOON + 70)
        self.assertEqual((summary.stopped, summary.left, calls), ("until", 2, 10))
        summary, _ = self.run_job(source, limits={"rpm": 5})
        self.assertEqual((summary.stopped, summary.left, len(self.records())), ("", 0, 20))

    def test_by_hand(self) -> None:
        """`stop` finishes what is in flight; what is in the output stays done."""
        source = self.file("in.txt", "".join(f"{number}\n" for number in range(50)))
        job = self.job(source, workers=2)
        stopping = lambda body: ("9" in echo(body) and job.stop()) or "ok"  # noqa: E731  # short
        router, provider = mock_router({"rpd": 100}, default=stopping)
        with router:
            summary = job.run(router)
        self.assertEqual(summary.stopped, "stopped")
        self.assertEqual(summary.done, len(self.records()))
        self.assertEqual(summary.done, len(provider.calls))
        self.assertEqual(self.run_job(source)[1], 50 - summary.done)

    def test_ctrl_c(self) -> None:
        """Without handlers of the program's own, Ctrl-C lets what is in flight be written, and is raised then."""
        source = self.file("in.txt", "".join(f"{number}\n" for number in range(50)))
        workers = part("map_workers").Workers
        plain, count = workers.next, [0]

        def interrupted(self: Any, tick: Any = None) -> Any:
            count[0] += 1
            if count[0] == 10:
                raise KeyboardInterrupt
            return plain(self, tick)

        router, provider = mock_router({"rpd": 100}, default=echo)
        one_by_one = mock.patch.multiple(workers, next=interrupted, ready=lambda self: None)
        with router, one_by_one, self.assertRaises(KeyboardInterrupt):
            self.job(source, workers=4).run(router)
        self.assertEqual(len(self.records()), len(provider.calls))
        self.assertLess(len(provider.calls), 50)
        self.assertEqual(self.run_job(source)[1], 50 - len(provider.calls))

    def test_ctrl_c_twice(self) -> None:
        """The second Ctrl-C waits for no provider; what answers later is not written, and the next run asks it again."""
        source = self.file("in.txt", "".join(f"{number}\n" for number in range(9)))
        workers, gate = part("map_workers").Workers, threading.Event()
        plain, jobs = workers.next, []

        def interrupted(self: Any, tick: Any = None) -> Any:
            jobs.append(self)
            while len(jobs) == 1 and self.in_flight < 2:
                pass
            if len(jobs) < 3:
                raise KeyboardInterrupt
            return plain(self, tick)

        router, _ = mock_router({"rpd": 100}, default=lambda body: gate.wait(20) and "late", clock=ir.SystemClock())
        began = time.monotonic()
        with router, mock.patch.object(workers, "next", interrupted), self.assertRaises(KeyboardInterrupt):
            self.job(source, workers=2).run(router)
        self.assertLess(time.monotonic() - began, 5)
        gate.set()
        for thread, _ in jobs[0]._threads:
            thread.join(5)
        self.assertEqual(self.records(), [])
        self.assertEqual(self.run_job(source)[1], 9)

    def test_max_spend(self) -> None:
        """No row begins that might go beyond the spending by more than what is in flight costs."""
        source = self.file("in.txt", "".join(f"{number}\n" for number in range(50)))
        account = ir.AccountConfig("mock", "a", paid_enabled=True, cost_per_input_token=0.01, cost_per_output_token=0.0)
        provider = ir.MockProvider("mock", default=ir.MockReply("x", usage=ir.Usage(10, 0, 10)), models=["m"])
        with ir.Router(ir.Config(default_model="m", accounts=[account], allow_paid=True), [provider]) as router:
            summary = self.job(source, workers=2, max_spend=1.0).run(router)
        self.assertEqual(summary.stopped, "max_spend")
        self.assertTrue(0.9 <= summary.cost <= 1.0 + 0.2, summary.cost)

    def test_what_hits_every_row(self) -> None:
        """An error that no row could be served with is raised, and the output stays as it was."""
        source = self.file("in.txt", "a\nb\n")
        with self.assertRaises(ir.UnknownModelError):
            self.run_job(source, model="typo")
        self.assertEqual((self.folder / "out.jsonl").read_bytes(), b"")
        self.assertEqual(self.run_job(source, on_change="keep")[1], 2)

    def test_progress(self) -> None:
        """A function gets the state as it goes, with an end foretold by capacity; tqdm is driven as it wants."""
        source = self.file("in.txt", "".join(f"{number}\n" for number in range(30)))
        router, _ = mock_router({"rpm": 5, "rpd": 20})
        states: list[Any] = []
        with router:
            self.job(source).run(router, states.append)
        self.assertTrue(all(late.done >= early.done for early, late in itertools.pairwise(states)))
        self.assertEqual((states[-1].done, states[-1].left, states[-1].ended, states[-1].free), (30, 0, True, 30))
        foretold = [state.eta for state in states if state.eta is not None]
        self.assertTrue(foretold)
        self.assertIn("mock/a0 m", {state.waiting_for for state in states})
        self.assertAlmostEqual(foretold[-1], states[-1].now, delta=120.0)

        class Tqdm:
            def __init__(self, total: int, initial: int, unit: str) -> None:
                self.n, self.total, self.closed = initial, total, False
                bars.append(self)

            def update(self, count: int) -> None:
                self.n += count

            def set_postfix_str(self, text: str) -> None:
                self.text = text

            def close(self) -> None:
                self.closed = True

        bars: list[Tqdm] = []
        router, _ = mock_router({"rpd": 1000})
        with router:
            self.job(source, "out2.jsonl").run(router, Tqdm)
            self.assertEqual((bars[0].n, bars[0].total, bars[0].closed), (30, 30, True))
            with self.assertRaisesRegex(ir.ConfigError, "progress"):
                self.job(source, "out3.jsonl").run(router, 7)


class WrongSettings(JobCase):
    def test_are_said_at_once(self) -> None:
        """A setting that cannot be is refused in words that name it, before a file is made."""
        source = self.file("in.txt", "a\n")
        wrong: dict[str, tuple[Any, ...]] = {
            "prompt": (3, b"x"),
            "system": (3,),
            "model": (None, 3),
            "schema": (3, ["a"]),
            "media": ("column", None),
            "kind": ("xml", None),
            "shape": ("xml", 3),
            "settings": ("max_tokens=3",),
            "workers": (0, "8", None),
            "tries": (0,),
            "timeout": (-1, "1"),
            "until": ("18:00", -1, datetime.datetime(1, 1, 1)),
            "stop_when_spent": (None, -1),
            "max_spend": (-1, "1", True, float("nan")),
            "dedupe": (None, 3),
            "retry_failed": ("yes",),
            "shard": (3, (1, 2, 3), (0, 2), (3, 2), ("1", "2"), "1/2", (True, 2)),
            "fsync": (1,),
            "on_change": ("keep it", None),
        }
        for name, values in wrong.items():
            for value in values:
                with self.subTest(name=name, value=value), self.assertRaisesRegex(ir.InferRouterError, name) as raised:
                    self.job(source, **{name: value})
                self.assertIsInstance(raised.exception, (ir.ConfigError, ir.InvalidRequestError))
        for path in (None, 3, b"in.txt"):
            with self.subTest(path=path), self.assertRaisesRegex(ir.ConfigError, "put"):
                part("batch").Batch(path, self.folder / "out.jsonl")
            with self.subTest(path=path), self.assertRaisesRegex(ir.ConfigError, "put"):
                part("batch").Batch(source, path)
        with self.assertRaisesRegex(ir.ConfigError, r"run takes an ir\.Router, not str"):
            self.job(source).run("router")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["in.txt"])


class BadInput(JobCase):
    def refused(self, pattern: str, source: Path, **settings: Any) -> None:
        with self.assertRaisesRegex(ir.InferRouterError, pattern):
            self.run_job(source, **settings)

    def test_of_rows(self) -> None:
        """A row that cannot be read has a record that names file and line; the others are served."""
        source = self.file("in.jsonl", b'{"text": "a"}\n{broken\n[1]\n{"text": "\xff"}\n{"x": 1, "y": 2}\n"b"\n')
        summary, calls = self.run_job(source, workers=1)
        self.assertEqual((summary.done, summary.failed, calls), (2, 4, 2))
        told = [each["error"]["message"] for each in self.records() if each["error"]]
        for message, pattern in zip(told, ("2: is not JSON", "3: .*list", "4: is not UTF-8", "5: .*which of x, y"), strict=True):
            self.assertRegex(message, rf"in\.jsonl:{pattern}")
        source = self.file("in.csv", b"a,b\n1,2\n1\n\xff,2\n1,2,3\n3,4\n")
        summary, _ = self.run_job(source, "out2.jsonl", prompt="{a}")
        self.assertEqual((summary.done, summary.failed), (2, 3))

    def test_a_huge_line(self) -> None:
        """A line beyond the bound is its row's error, and is not taken into memory."""
        source = self.file("in.txt", "a\n" + "x" * 300 + "\nb\n")
        with mock.patch.object(batch_input, "MAX_LINE", 100):
            summary, calls = self.run_job(source)
        self.assertEqual((summary.done, summary.failed, calls), (2, 1, 2))

    def test_of_files(self) -> None:
        """What nothing can be read from is said before anything is asked or written."""
        self.refused("does not exist", self.folder / "none.csv")
        self.refused("is empty", self.file("in.csv", ""))
        self.refused("no row to ask", self.file("in.txt", "\n\n"))
        self.refused("UTF-16", self.file("in.txt", "a\n".encode("utf-16")))
        self.refused("compressed", self.file("in.txt", b"\x1f\x8b\x08\x00"))
        self.refused("no column 'txt'; it has id, text", self.file("in.csv", ROWS), prompt="{txt}")
        self.refused("'id' twice", self.file("in.csv", "id,id\n1,2\n"), prompt="{id}")
        self.refused(
            "is also in line 1", self.file("in.jsonl", '{"custom_id": "a", "text": "x"}\n{"custom_id": "a", "text": "y"}')
        )
        self.refused("closing brace", self.file("in.txt", "a"), prompt="}")
        self.refused("not a JSON schema", self.file("in.txt", "a"), schema=self.file("s.json", "{}"))
        self.refused("cannot be opened|No such file", self.file("in.txt", "a"), output="none/out.jsonl")
        self.file("out.jsonl", "a poem\n")
        self.refused("line 1 is not a result", self.file("in.txt", "a"))

    def test_other_tables(self) -> None:
        """A byte order mark, semicolons and tabs are understood."""
        for number, text in enumerate(("\ufefftext;n\nhi;1\n", "text\tn\nhi\t1\n")):
            self.run_job(self.file(f"{number}.csv", text), f"{number}.jsonl", prompt="{text}{n}")
            self.assertEqual(self.records(f"{number}.jsonl")[0]["row"], {"text": "hi", "n": "1"})

    def test_a_quote_that_is_not_closed(self) -> None:
        """It makes one row of all that follows, which is an error with its line, not a question; a quote that is no quotation is
        taken as it stands."""
        source = self.file("in.csv", 'id,text\n1,good\n2,"never\n3,closed\n4,ever\n')
        summary, calls = self.run_job(source, prompt="{text}")
        self.assertEqual((summary.total, summary.done, summary.failed, calls), (2, 1, 1, 1))
        self.assertRegex(
            self.records()[1]["error"]["message"], r"in\.csv:3: a quote in it is not closed before the end of the file"
        )
        source = self.file("fine.csv", 'id,text\n1,"a\nb"\n2,a 5" pipe')
        summary, _ = self.run_job(source, "fine.jsonl", prompt="{text}")
        self.assertEqual((summary.done, summary.failed), (2, 0))

    def test_an_output_among_the_input(self) -> None:
        """What a job writes into the folder that it reads is no row of it, in this run and the next; and a file that comes while
        it runs is the next run's, and shifts no row."""
        folder = self.folder / "texts"
        folder.mkdir()
        for name in "bdf":
            (folder / f"{name}.txt").write_text(name)

        def reply(body: Any) -> str:
            (folder / "a.txt").write_text("a")
            return "ok"

        for done, asked in ((3, 3), (4, 1), (4, 0)):
            summary, calls = self.run_job(folder, "texts/out.jsonl", prompt="{text}", default=reply)
            self.assertEqual((summary.total, summary.done, calls), (done, done, asked))
        self.assertEqual(sorted(record["custom_id"] for record in self.records("texts/out.jsonl")), [f"{x}.txt" for x in "abdf"])

    @unittest.skipUnless(hasattr(os, "mkfifo"), "needs named pipes")
    def test_what_is_no_file(self) -> None:
        """A pipe or a device can be neither read twice nor gone on with, so it is refused before anything is read; a JSON array
        is told what it should be."""
        source = self.file("in.csv", ROWS)
        os.mkfifo(self.folder / "pipe.jsonl")
        with self.assertRaisesRegex(ir.ConfigError, "pipe.jsonl' is not a regular file, and a job reads its input more"):
            self.job(self.folder / "pipe.jsonl")
        job = self.job(source, "pipe.jsonl", prompt="{text}")
        with mock_router({"rpd": 5})[0] as router:
            for run in (job.rows, lambda: job.run(router)):
                with self.assertRaisesRegex(ir.BatchError, "pipe.jsonl' is not a regular file"):
                    run()
        self.assertFalse((self.folder / "pipe.jsonl.job.json").exists())
        with self.assertRaisesRegex(ir.ConfigError, "is one JSON array; write an object a line"):
            self.job(self.file("in.json", '\n [{"text": "a"}]'))

    def test_a_full_disk(self) -> None:
        """A write that fails halfway leaves whole records, says what to do, and the next run goes on."""
        source = self.file("in.txt", "".join(f"{number}\n" for number in range(9)))
        real, count = os.write, [0]

        def full(fd: int, data: bytes) -> int:
            count[0] += data.startswith(b'{"custom_id')
            if data.startswith(b'{"custom_id') and count[0] > 4:
                if count[0] == 5:
                    return real(fd, data[:10])
                raise OSError(errno.ENOSPC, "No space left on device")
            if count[0] > 4 and not data.startswith(b"{"):
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(fd, data)

        with mock.patch.object(os, "write", full), self.assertRaisesRegex(ir.BatchError, "the disk is full"):
            self.run_job(source, workers=1)
        self.assertEqual(len(self.records()), 4)
        self.assertEqual(self.run_job(source)[1], 5)

    def test_an_output_that_vanishes(self) -> None:
        """A file that is taken away under a run ends it with words, instead of writing into nowhere."""
        source = self.file("in.txt", "".join(f"{number}\n" for number in range(50)))

        def remove(body: Any) -> str:
            if "9" in echo(body):
                (self.folder / "out.jsonl").unlink(missing_ok=True)
            return "ok"

        with self.assertRaisesRegex(ir.BatchError, "removed or replaced"):
            self.run_job(source, workers=2, default=remove)


class Names(JobCase):
    def again(self, source: Path, name: str, **settings: Any) -> Any:
        """A run, and that a second one has nothing to do."""
        summary, calls = self.run_job(source, name, **settings)
        self.assertEqual(summary.left, 0)
        self.assertEqual(self.run_job(source, name, **settings)[1], 0)
        return calls

    def test_wherever_it_stands(self) -> None:
        """A custom_id may come last, hold escapes, half a character, bytes of another encoding, or look like a name made here."""
        lines = [
            b'{"text": "a", "custom_id": "last"}',
            b'{"custom_id": "quo\\"ted\\u00e9", "text": "b"}',
            '{"custom_id": "\u00e9", "text": "c"}'.encode(),
            b'{"custom_id": "half \\ud83d", "text": "d"}',
            b'{"custom_id": "latin \xe9", "text": "e"}',
            b'{"custom_id": "row-0123456789abcdeg", "text": "f"}',
            b'{"custom_id": "row-0123456789abcdef", "text": "g"}',
            b'{"custom_id": "row-0123456789abcdef-2", "text": "h"}',
            b'{"custom_id": 7, "text": "i"}',
            b'{"custom_id": broken',
        ]
        source = self.file("in.jsonl", b"\n".join(lines))
        for name in ("out.jsonl", "out.csv"):
            self.assertEqual(self.again(source, name, workers=1), 8)
            records = list(batch_output.records_of(self.folder / name, "csv" if name.endswith("csv") else "openai"))
            self.assertEqual(len({record.custom_id for record in records}), 10)
        for place in (1, 2):
            self.again(source, f"shard{place}.jsonl", shard=(place, 2))

    def test_in_tables(self) -> None:
        """A CSV's own custom_id column names its rows; equal rows are copied in every format."""
        source = self.file("in.csv", "text,custom_id\nsame,a\nsame,b\nother,c\n")
        for name, shape in (("out.csv", ""), ("flat.jsonl", "flat"), ("out.jsonl", "openai")):
            self.assertEqual(self.again(source, name, prompt="{text}", shape=shape), 2)
            records = batch_output.records_of(self.folder / name, "csv" if name.endswith("csv") else "openai")
            self.assertEqual(sorted(record.custom_id for record in records), ["a", "b", "c"])
        copied = next(each for each in self.records("out.jsonl") if each["custom_id"] == "b")
        self.assertEqual((copied["routing"]["copied_from"], copied["row"]["custom_id"]), ("a", "b"))

    def test_answers_that_are_no_unicode(self) -> None:
        """Half a character in an answer breaks no line: the output is UTF-8 all the same."""
        source = self.file("in.txt", "a\n")
        self.assertEqual(self.again(source, "out.jsonl", default=lambda body: "half \ud83d"), 1)
        self.assertEqual(self.records()[0]["response"]["body"]["choices"][0]["message"]["content"][:5], "half ")

    def test_other_lines_of_the_format(self) -> None:
        """Records that another program has written in the same format count as finished; blank lines do no harm."""
        source = self.file("in.jsonl", '{"custom_id": "a", "text": "x"}\n{"custom_id": "b", "text": "y"}\n')
        self.file("out.jsonl", '{"id": "1", "custom_id": "a", "response": {}, "error": null}\n\n')
        self.assertEqual(self.run_job(source)[1], 1)
        source = self.file("in.txt", "a\n")
        self.file("out.csv", "name,answer\n1,2\n")
        with self.assertRaisesRegex(ir.BatchError, "line 1 is not a result"):
            self.run_job(source, "out.csv")

    def test_files_of_a_folder_that_cannot_be_read(self) -> None:
        """A file that is gone, too large or unreadable is its row's error."""
        folder = self.folder / "docs"
        folder.mkdir()
        for name in ("a.txt", "b.txt", "c.txt"):
            (folder / name).write_text("text of " + name)
        source = batch_input.source(folder)
        rows = list(source.raw())
        (folder / "b.txt").unlink()
        with self.assertRaisesRegex(ir.InvalidRequestError, "b.txt: cannot be read"):
            source.values(rows[1])
        with mock.patch.object(batch_input, "MAX_FILE", 3), self.assertRaisesRegex(ir.InvalidRequestError, "larger than"):
            source.values(rows[0])

    def test_a_line_that_is_no_table(self) -> None:
        """A NUL or a broken quote in a CSV costs one row, and is named by its line."""
        source = self.file("in.csv", b"text\na\n\x00b\nc\n")
        summary, _ = self.run_job(source, prompt="{text}")
        self.assertEqual(summary.done + summary.failed, 3)


class Parts(unittest.TestCase):
    def test_templates(self) -> None:
        """Columns in braces, doubled braces, nothing of Python's format language."""
        template = part("batch_prompt").template
        cut = template("{{x}} {a} and {b c}{a}")
        self.assertEqual(cut.columns, ("a", "b c"))
        self.assertEqual(cut.filled({"a": 1, "b c": None}), "{x} 1 and 1")
        self.assertEqual(template("{a.b[0]!r:>9}").columns, ("a.b[0]!r:>9",))
        for wrong in ("{", "{}", "a}", "{ }"):
            with self.assertRaises(ir.ConfigError):
                template(wrong)
        with self.assertRaisesRegex(ir.InvalidRequestError, "no 'a'; it has z"):
            template("{a}").filled({"z": 1})

    def test_schemas(self) -> None:
        """Each keyword that structured answers use, and where an answer breaks it."""
        fault = part("batch_schema").schema_fault
        deep = {"$defs": {"n": {"type": "integer", "minimum": 1}}, "type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 3}
        cases: list[tuple[Any, Any, str | None]] = [
            ({"mood": "good"}, SCHEMA, None),
            ({"mood": "so"}, SCHEMA, 'answer.mood is "so", not one of'),
            ({}, SCHEMA, "answer lacks 'mood'"),
            ({"mood": "bad", "x": 1}, SCHEMA, "answer has 'x'"),
            ([1], SCHEMA, "answer is array, not object"),
            ([1, 2], deep, None),
            ([1, 0], deep, r"answer\[1\] is 0"),
            ([1, True], deep, r"answer\[1\] is boolean"),
            ([1, 2, 3, 4], deep, "has 4 items"),
            (1.0, {"type": ["integer", "null"]}, None),
            ("x", {"anyOf": [{"type": "null"}, {"type": "string", "minLength": 2}]}, "is string, not null"),
            (None, {"anyOf": [{"type": "null"}, {"const": 3}]}, None),
            (4, {"const": 3}, "is not 3"),
            ({"a": "b"}, {"additionalProperties": {"type": "integer"}}, r"answer\.a is string"),
        ]
        for value, schema, pattern in cases:
            found = fault(value, schema)
            self.assertRegex(found, pattern) if pattern else self.assertIsNone(found, value)


if __name__ == "__main__":
    unittest.main()
