"""The figures of long jobs: `python3 -m tests.benchmarks.bench_batch [kills shards resume memory overhead week]`.

Each section prints its figures beside what they are held against, and ends with a broken promise as an exception.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from tests import ir, part
from tests.commands import finish, start
from tests.fakes import NOON, FakeClock
from tests.quota_servers import RedisServer, has
from tests.servers import bench_server

simulator, batch, catalog = part("simulator"), part("batch"), part("catalog")
DAY = 86_400.0


SQLITE = 'store = "sqlite"\npath = "quota.sqlite"'


@contextlib.contextmanager
def six_accounts(rpm: int, latency_s: float) -> Iterator[tuple[Path, list[Any]]]:
    """A folder with a configuration over three stand-in providers with two accounts each, limited in minutes."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        limits = simulator.KeyLimits(rpm=rpm)
        providers = [
            stack.enter_context(simulator.Simulator(name=f"p{at}", keys=dict.fromkeys(keys(at), limits), latency_s=latency_s))
            for at in range(3)
        ]
        steps = ", ".join(f'{{ provider = "p{at}", model = "m" }}' for at in range(3))
        text = f'default_model = "fast"\n[quota]\n{SQLITE}\n[[models]]\nalias = "fast"\nmodels = [{steps}]\n'
        for at, provider in enumerate(providers):
            for key in keys(at):
                text += f'[[accounts]]\nprovider = "p{at}"\nid = "{key[3:]}"\nbase_url = "{provider.base_url}"\n'
                text += f'auth = {{ api_key = "{key}" }}\nlimits = {{ rpm = {rpm} }}\n'
        (folder / "router.toml").write_text(text, encoding="utf-8")
        (folder / "router.toml").chmod(0o600)
        yield folder, providers


def keys(at: int) -> list[str]:
    return [f"sk-p{at}a", f"sk-p{at}b"]


def served(providers: list[Any]) -> tuple[int, int]:
    """Requests that were answered, and refused for a limit, by the stand-ins' own count."""
    usage = [each for provider in providers for each in provider.usage()]
    return sum(each.requests for each in usage), sum(each.refused for each in usage)


def names_in(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text("utf-8").splitlines()]


def kills(rows: int = 1000, times: int = 20, workers: int = 8, rpm: int = 150) -> None:
    """A job of `rows` rows, killed at random moments."""
    with six_accounts(rpm, 0.05) as (folder, providers):
        (folder / "in.txt").write_text("".join(f"row {number}\n" for number in range(rows)))
        words = ["batch", "in.txt", "--out", "out.jsonl", "--workers", str(workers), "--config", "router.toml"]
        words = [str(folder / word) if word in ("in.txt", "out.jsonl", "router.toml") else word for word in words]
        chance = random.Random(1)
        began = time.monotonic()
        for _ in range(times):
            wanted = served(providers)[0] + chance.randint(10, rows // times)
            process = start(*words)
            while served(providers)[0] < wanted and process.poll() is None:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            finish(process)
        process = start(*words)
        process.communicate(timeout=600)
        asked, refused = served(providers)
        found = names_in(folder / "out.jsonl")
        took = time.monotonic() - began
    print(f"kills: {rows} rows, {times} times SIGKILL, {workers} workers, 6 accounts at {rpm} a minute: {took:.0f} s,")
    print(f"  exit {process.returncode}, {len(found)} records of {len(set(found))} rows, {refused} refused,", end=" ")
    print(f"{asked - rows} asked twice (<= {times * workers})")
    assert len(found) == len(set(found)) == rows and asked - rows <= times * workers and not refused


def shards(rows: int = 1000, count: int = 3, rpm: int = 150) -> None:
    """Shards at one time over one sqlite ledger, and over one Redis where its server and its client are installed."""
    with contextlib.ExitStack() as stack:
        stores = {"sqlite": ""}
        if shutil.which("redis-server") and has("redis"):
            server = RedisServer()
            stack.callback(server.close)
            server.start()
            stores["Redis"] = str(server.port)
        else:
            print("shards over Redis: redis-server or the redis client is not installed")
        for name, port in stores.items():
            folder, providers = stack.enter_context(six_accounts(rpm, 0.05))
            (folder / "in.txt").write_text("".join(f"row {number}\n" for number in range(rows)))
            began = time.monotonic()
            outs = [folder / f"out.{place}.jsonl" for place in range(1, count + 1)]
            words = [[str(folder / "router.toml"), str(folder / "in.txt"), str(out), str(at)] for at, out in enumerate(outs, 1)]
            runs = [subprocess.Popen([sys.executable, "-c", SHARD, *each, str(count), port]) for each in words]
            codes = [process.wait(900) for process in runs]
            took = time.monotonic() - began
            asked, refused = served(providers)
            ran = finish(start("merge", *map(str, outs), "--out", str(folder / "all.jsonl"), "--input", str(folder / "in.txt")))
            found = names_in(folder / "all.jsonl")
            print(
                f"shards over {name}: {count} processes, {rows} rows, 6 accounts at {rpm} a minute, {took:.0f} s: exits {codes},"
            )
            print(f"  {asked} asked, {refused} refused; merged: {ran.err.strip().rpartition(': ')[2]}")
            assert len(found) == len(set(found)) == rows == asked and not refused


SHARD = f"""
import sys
import {ir.__name__} as ir
config, source, out, place, count, port = sys.argv[1:]
store = None
if port:
    import redis
    from {ir.__name__}.quota_redis import RedisQuotaStore
    store = RedisQuotaStore(redis.Redis(port=int(port)))
with ir.Router.from_file(config, quota_store=store) as router:
    summary = ir.Batch(source, out, workers=4, shard=(int(place), int(count))).run(router)
sys.exit(summary.left or summary.failed)
"""


def resume(rows: int = 1_000_000) -> None:
    """How long a finished job takes to say so, and what memory it needs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finished(folder, rows)
        code = f"""
import resource, sys, time
begin = time.perf_counter()
import {ir.__name__} as ir
config = ir.Config(accounts=[ir.AccountConfig("mock", "a")], default_model="m")
summary = ir.Batch(sys.argv[1], sys.argv[2]).run(ir.Router(config, [ir.MockProvider("mock", models=["m"])]))
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(summary.done, summary.asked, time.perf_counter() - begin, time.process_time(), memory)
"""
        for kind in ("lines", "named"):
            took, busy = [], []
            for _ in range(3):
                words = [sys.executable, "-c", code, str(folder / f"{kind}.jsonl"), str(folder / f"{kind}.out.jsonl")]
                done, asked, seconds, processor, memory = subprocess.check_output(words, text=True).split()
                took.append(float(seconds))
                busy.append(float(processor))
            size = (folder / f"{kind}.out.jsonl").stat().st_size / 2**20
            print(
                f"resume of {int(done):,} finished rows ({kind}, {size:.0f} MiB), {asked} asked: {min(took):.2f} s at best,",
                end=" ",
            )
            print(
                f"{statistics.median(took):.2f} s median, {min(busy):.2f} s of processor (<= 4); {float(memory):.0f} MiB (<= 200)"
            )


def finished(folder: Path, rows: int) -> None:
    """Inputs of so many rows and their whole outputs."""
    content_hash = part("batch_input").content_hash
    message = {"role": "assistant", "content": "word " * 40}
    usage = {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}
    body = {"id": "x", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}
    response = {"status_code": 200, "request_id": "x", "body": body}
    routing = {"provider": "p", "account": "a", "model": "m", "free": True, "cost": 0.0}
    tail = json.dumps({"error": None, "id": "batch_req_0", "response": response, "routing": routing})[1:]
    with (
        open(folder / "lines.jsonl", "w") as lines,
        open(folder / "lines.out.jsonl", "w") as lines_out,
        open(folder / "named.jsonl", "w") as named,
        open(folder / "named.out.jsonl", "w") as named_out,
    ):
        for number in range(rows):
            row = f'{{"text": "row {number} of many, with some words in it"}}'
            lines.write(row + "\n")
            lines_out.write(f'{{"custom_id": "row-{content_hash(row.encode()):016x}", {tail}\n')
            named.write(f'{{"custom_id": "request-{number}", "text": "row {number} of many, with some words in it"}}\n')
            named_out.write(f'{{"custom_id": "request-{number}", {tail}\n')


def memory(rows: int = 1_000_000, ask: int = 60_000) -> None:
    """The memory of a job with so many rows, while the first of them are asked."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open(folder / "in.jsonl", "w") as lines:
            for number in range(rows):
                lines.write(f'{{"text": "row {number} of many, with some words in it"}}\n')
        asked = [0]
        points: list[tuple[int, float]] = []

        def reply(body: Any) -> str:
            asked[0] += 1
            if asked[0] % (ask // 6) == 0:
                points.append((asked[0], rss()))
            if asked[0] >= ask:
                job.stop()
            return "a word or two of an answer"

        provider = ir.MockProvider("mock", default=reply, models=["m"])
        provider.wire._calls = Forgetful()
        config = ir.Config(accounts=[ir.AccountConfig("mock", "a", limits={"rpm": 10**9})], default_model="m")
        job = batch.Batch(folder / "in.jsonl", folder / "out.jsonl", workers=32)
        with ir.Router(config, [provider]) as router:
            began = time.monotonic()
            summary = job.run(router)
            took = time.monotonic() - began
    shown = ", ".join(f"{at:,}: {size:.1f}" for at, size in points)
    print(f"memory of a job of {rows:,} rows, MiB after so many rows: {shown}; {summary.asked / took:,.0f} rows/s in process")
    assert points[-1][1] - points[0][1] < 10


class Forgetful(list[Any]):
    """A mock provider's list of calls that keeps none."""

    def append(self, item: Any) -> None:
        pass


def rss() -> float:
    """MiB in use now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def overhead(rows: int = 3000, workers: int = 32, rounds: int = 5) -> None:
    """A job beside a bare pool of threads over kept-alive `http.client` connections, to the same server: one that answers at
    once, and one that takes 20 ms, as the fastest models do."""
    for latency_s in (0.0, 0.02):
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            url = stack.enter_context(slow_server(latency_s) if latency_s else bench_server(False))
            (folder / "in.txt").write_text("".join(f"row {number} with some words\n" for number in range(rows)))
            took: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for at in range(rounds):
                for way, run in WAYS.items():
                    begin = (time.perf_counter(), time.process_time())
                    run(url, rows, workers, folder, at)
                    took[way].append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
        for way, seconds in took.items():
            bare = took["bare pool"]
            ratio = statistics.median(mine / base for (mine, _), (base, _) in zip(seconds, bare, strict=True))
            speed = rows / statistics.median(wall for wall, _ in seconds)
            cpu = statistics.median(cpu for _, cpu in seconds) / rows * 1e6
            print(
                f"overhead, answers in {latency_s * 1000:.0f} ms, {workers} workers: {way} {speed:,.0f} rows/s, {ratio:.2f} of",
                end=" ",
            )
            print(f"the bare pool's time, {cpu:.0f} us of processor a row")


@contextlib.contextmanager
def slow_server(latency_s: float) -> Iterator[str]:
    """A server in a process of its own that answers after so long."""
    code = f"""
import asyncio, sys
async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            size = int(head.lower().partition(b"content-length:")[2].split(b"\\r")[0])
            await reader.readexactly(size)
            await asyncio.sleep({latency_s})
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n")
            writer.write(b"Content-Length: %d\\r\\n\\r\\n" % len(BODY) + BODY)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
BODY = {json.dumps(ANSWER).encode()!r}
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print("http://127.0.0.1:%d" % server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


ANSWER = {
    "id": "x",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "an answer"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}


def bare_pool(url: str, rows: int, workers: int, folder: Path, at: int) -> None:
    work: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for number in range(rows):
        work.put(number)
    place = urlsplit(url)
    assert place.hostname is not None
    hostname = place.hostname

    headers = {"Content-Type": "application/json", "Authorization": "Bearer x"}

    def run() -> None:
        connection = http.client.HTTPConnection(hostname, place.port)
        while True:
            try:
                number = work.get_nowait()
            except queue.Empty:
                connection.close()
                return
            message = {"role": "user", "content": f"row {number} with some words"}
            connection.request("POST", "/v1/chat/completions", json.dumps({"model": "m", "messages": [message]}), headers)
            json.loads(connection.getresponse().read())

    threads = [threading.Thread(target=run) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def bench_router(url: str) -> Any:
    account = ir.AccountConfig(provider="bench", id="a", auth=ir.Auth("sk-0"), base_url=url + "/v1")
    return ir.Router(ir.Config(accounts=[account], default_model="bench/m"), [ir.OpenAICompatProvider("bench", url + "/v1")])


def pooled(url: str, rows: int, workers: int, folder: Path, at: int) -> None:
    """The router's own calls in a plain pool: what a job adds is what it takes beyond this."""
    work: queue.SimpleQueue[str] = queue.SimpleQueue()
    for number in range(rows):
        work.put(f"row {number} with some words")

    def run() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                router.chat_completion(ir.ChatRequest(work.get_nowait()))

    with bench_router(url) as router:
        threads = [threading.Thread(target=run) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def mapped(url: str, rows: int, workers: int, folder: Path, at: int) -> None:
    prompts = (f"row {number} with some words" for number in range(rows))
    with bench_router(url) as router:
        assert sum(result.ok for result in router.map(prompts, workers=workers, ordered=False)) == rows


def batched(url: str, rows: int, workers: int, folder: Path, at: int) -> None:
    with bench_router(url) as router:
        summary = batch.Batch(folder / "in.txt", folder / f"out.{at}.jsonl", workers=workers).run(router)
    assert not summary.left and not summary.failed


WAYS: dict[str, Callable[[str, int, int, Path, int], None]] = {
    "bare pool": bare_pool,
    "calls in a pool": pooled,
    "map": mapped,
    "batch": batched,
}

FLEET = {
    "gemini": (3, ["gemini-3.5-flash", "gemini-3.5-flash-lite"]),
    "groq": (3, ["openai/gpt-oss-20b"]),
}
"""Providers of the catalog with accounts and models."""


def week(rows: int = 20_000, days: int = 7) -> None:
    """A simulated week over accounts with the catalog's free limits: what is served beside the most that they allow."""
    accounts, steps, bounds = [], [], []
    for name, (count, models) in FLEET.items():
        preset = catalog.preset(name)
        known = {model: dict(preset.model_limits.get(model, preset.model_limits.get("*", {}))) for model in models}
        steps += [ir.ModelRef(name, model) for model in models]
        limits = {"limits": preset.limits, "model_limits": {model: known[model] for model in models}, "reset": preset.reset}
        print(f"  {count} x {name}: {limits}")
        for number in range(count):
            accounts.append(ir.AccountConfig(name, f"{name}-{number}", ir.Auth("k"), **limits))
            bounds.append((preset.reset, dict(preset.limits), [known[model] for model in models]))
    clock = FakeClock(NOON)
    served_at: Counter[int] = Counter()
    usage = ir.Usage(320, 80, 400)

    class Count:
        def on_route(self, event: Any) -> None: ...

        def on_result(self, event: Any) -> None:
            served_at[int((clock.now - NOON) // DAY)] += event.success

    reply = ir.MockReply("an answer", usage=usage)
    providers = [ir.MockProvider(name, default=reply, models=models) for name, (_, models) in FLEET.items()]
    for provider in providers:
        provider.wire._calls = Forgetful()
    config = ir.Config(accounts=accounts, default_model="all", models=[ir.ModelMapping("all", steps)])
    with tempfile.TemporaryDirectory() as name, ir.Router(config, providers, clock=clock, meter=Count()) as router:
        source = Path(name, "in.txt")
        with open(source, "w") as lines:
            for number in range(rows):
                lines.write(f"row {number} of a week, with some words that make it forty tokens or so in all\n")
        states: list[tuple[float, float | None]] = []

        def note(state: Any) -> None:
            states.append((state.now, state.eta))

        began = time.monotonic()
        with mock.patch.object(part("batch_progress"), "FORETELL_S", 1800.0):  # what it costs is nothing on this clock
            summary = batch.Batch(source, Path(name, "out.jsonl"), model="all", workers=8).run(router, note)
        took = time.monotonic() - began
    end = clock.now
    length = (end - NOON) / DAY
    print(f"week: {summary.done:,} rows over {len(accounts)} accounts in {length:.2f} simulated days, {took:.0f} s of real time")
    total = 0
    for day in range(min(days, int(length) + 1)):
        total += served_at[day]
        most = min(rows, int(sum(most_by(bound, day + 1, usage.total_tokens) for bound in bounds)))
        print(f"  by the end of day {day + 1}: {total:,} served, {most:,} the most that the limits allow ({total / most:.2%})")
    curve = [((now - NOON) / (end - NOON), (eta - end) / 3600) for now, eta in states if eta is not None and now < end]
    for share in (0.0, 0.1, 0.25, 0.5, 0.75, 0.9):
        after = next((error for at, error in curve if at >= share), None)
        if after is not None:
            print(f"  {share:.0%} of the time gone: the end was foretold {after:+.2f} h off")


def most_by(bound: tuple[str, dict[str, float], list[dict[str, float]]], days: int, tokens: int) -> float:
    """Rows that one account can carry within so many days from `NOON`, by plain division, whatever the library does.

    A calendar day's amount counts once for each calendar day that is touched; any other for each of its spans that pass.
    """
    reset, whole, models = bound
    spans = {"m": 1440.0 * days, "h": 24.0 * days, "d": float(days) if reset == "rolling" else days + 1.0, "month": 1.0}

    def most(limits: dict[str, float]) -> float:
        found = [amount * spans[key[2:]] / (1 if key[0] == "r" else tokens) for key, amount in limits.items()]
        return min(found, default=float("inf"))

    return min(most(whole), sum(map(most, models)) if models else float("inf"))


SECTIONS = {"kills": kills, "shards": shards, "resume": resume, "memory": memory, "overhead": overhead, "week": week}

if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    for chosen in sys.argv[1:] or SECTIONS:
        SECTIONS[chosen]()
