"""The closing figures of the wire, counted by the tests' own loops: `python3 -m tests.benchmarks.figures` (about a minute)."""

from __future__ import annotations

import sys

from tests.canaries import CANARIES, sweep
from tests.loops import cuts, mix, overshoot
from tests.test_transport_deadlines import GRACE_S

CALLS = 2000


def main() -> int:
    """Prints a line for each promise; 1 if one of them is broken."""
    swept, cut, slow, mixed = sweep(), cuts(), overshoot(), mix(CALLS)
    evidence = swept.evidence
    print(f"faults: {swept.injected} injected, {swept.classified} classified, {len(swept.successes)} returned as success")
    print(f"exceptions: {swept.injected} calls that failed, {len(swept.foreign)} foreign types escaped")
    print(f"secrets: {evidence.looked} places searched for {len(CANARIES)} canaries, {len(evidence.found)} found")
    print(f"keys: {len(swept.misplaced)} requests with a key anywhere but in its header")
    print(f"redirects: {swept.redirects} tried, {swept.strangers} followed")
    print(f"cuts: {cut.noticed} of {cut.before} detected, {cut.after} complete, {len(cut.wrong)} taken for the other")
    print(f"deadline: {slow.calls} calls to slow servers, worst overshoot {slow.worst_s * 1000:.0f} ms")
    print(f"leaks: files {mixed.files:+d}, threads {mixed.threads:+d} after {mixed.calls} calls, {mixed.troubles} with troubles")
    broken = [*swept.successes, *swept.foreign, *evidence.found, *swept.misplaced, *cut.wrong, *slow.wrong, *mixed.wrong]
    print(*broken[:20], sep="\n", end="")
    return 1 if broken or swept.strangers or mixed.files or mixed.threads or slow.worst_s > GRACE_S else 0


if __name__ == "__main__":
    sys.exit(main())
