"""A simulated day of `free` over the catalog's rows for keys of Gemini, Groq, OpenRouter and Cerebras: answers, and the most
there could be. `python3 -m tests.benchmarks.bench_pool_day [HOURS]`, about a minute for a whole day.
"""

from __future__ import annotations

import sys
import time

from tests.pool_day import most, play


def main(hours: float = 24.0) -> int:
    """Prints a line for each model, and the sum; 1 if less than 99 % were served."""
    began = time.perf_counter()
    found, best = play(hours * 3600), most(hours * 3600)
    took = time.perf_counter() - began
    for (provider, model), bound in best.items():
        mine = [count for (at, name), count in found.served.items() if at == provider and model in ("*", name)]
        print(f"{provider:11} {model:32} {sum(mine):7,} of {bound:7,}  {sum(mine) / bound:7.2%}")
    served, bound = found.served.total(), best.total()
    print(f"{hours:g} h: {served:,} of {bound:,} answers, {served / bound:.2%}; {found.refused} refused, {found.waits:,} waits")
    print(f"{took:.0f} s, {took / served * 1000:.2f} ms an answer, waits and refusals included")
    return 0 if served >= 0.99 * bound and not found.refused else 1


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:2])))
