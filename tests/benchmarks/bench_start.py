"""What a script pays before its first answer: importing the package, and a whole first call that is refused.

`python3 -m tests.benchmarks.bench_start [rounds]`; each figure is the median over fresh interpreters (`-I -S`) in turn, with
compiled modules at hand as they are after the first start.
"""

from __future__ import annotations

import compileall
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests import ir

PACKAGE = Path(str(ir.__file__)).parent
FIRST_CALL = """
import {name} as ir
accounts = [ir.AccountConfig("own", f"a{{i}}", auth=ir.Auth("sk-0123456789"), dialect="openai",
                             base_url=f"http://127.0.0.{{i + 1}}:9/v1")
            for i in range(3)]
with ir.Router(ir.Config(accounts=accounts, default_model="own/m")) as router:
    try:
        router.chat_completion(ir.ChatRequest("hi"))
    except ir.AllCandidatesFailedError as error:
        assert len(error.attempts) == 3, error
    else:
        raise SystemExit("somebody answered at port 9")
"""


def main(rounds: int) -> None:
    """Prints both figures, each beside its measure from the same run."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PACKAGE, Path(folder) / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(folder, quiet=1)
        scripts = {
            "nothing": "",
            "import": f"import {PACKAGE.name}",
            "libraries": "import urllib.request, ssl, json, dataclasses",
            "first call": FIRST_CALL.format(name=PACKAGE.name),
        }
        times: dict[str, list[float]] = {name: [] for name in scripts}
        for _ in range(rounds):
            for name, script in scripts.items():
                times[name].append(started(f"import sys; sys.path.insert(0, {folder!r})\n{script}"))
    nothing, imported, libraries, called = (statistics.median(column) for column in times.values())
    print(f"bare Python {nothing:.1f} ms; import {PACKAGE.name} +{imported - nothing:.1f} ms")
    ratio = statistics.median(a / b for a, b in zip(times["first call"], times["libraries"], strict=True))
    print(f"urllib.request, ssl, json, dataclasses {libraries:.1f} ms; import, Router, first call {called:.1f} ms: {ratio:.2f}x")


def started(script: str) -> float:
    """Milliseconds that an interpreter takes for `script`."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-S", "-c", script], check=True)
    return (time.perf_counter() - begin) * 1000


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
