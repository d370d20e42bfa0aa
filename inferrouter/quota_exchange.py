"""Speaks the protocol of the quota stores on servers: batches out, answers in, and what every answer tells of the server itself.

Strategy: a batch is one list of texts, led by the epoch that the ledger is believed to have. A server that has another one has
lost its counts (a failover to an empty replica, a restart without persistence) and does nothing; then all buckets are defined
anew, refused until the windows that were running have passed, unless the caller adopts an empty ledger. Every answer tells the
server's clock, for the skew. Must never know a client library, nor what an operation means.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from .errors import QuotaStoreError
from .quota_lanes import Operation
from .quota_raw import Stored

BETWEEN = "\x1f"
"""What stands between answers: no name or number has it, and one text costs a client less to read than many."""
SKEW_S = 2.0
"""Seconds by which a caller's clock may differ from the server's before the store warns."""
Ask = Callable[[Operation], str]
DefineAnew = Callable[[Iterable[str] | None, float | None, float, Ask], None]
"""Defines the buckets of these keys (None: all) again, refused until what was charged by then has passed (None: at once), as of
a time, with that way of asking."""


class Ledger:
    """What is known of the ledger on a server: its epoch, its clock, and what the operator should be told."""

    def __init__(self, server: str, adopt_empty: bool, define_anew: DefineAnew) -> None:
        self.server = server
        self.adopt_empty = adopt_empty
        self.skew_s = 0.0
        self.epoch = ""
        self.fresh_epoch = os.urandom(8).hex()
        self._created = 0.0
        self._clock = 0.0
        self._adopted = False
        self._define_anew = define_anew
        self._beginning = threading.Lock()
        self._warnings: dict[str, str] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the operator should know, in sentences."""
        return tuple(self._warnings.values())

    def warn(self, topic: str, sentence: str) -> None:
        """Keep a sentence for the operator, instead of an older one on that topic; "" forgets it."""
        if sentence:
            self._warnings[topic] = sentence
        else:
            self._warnings.pop(topic, None)

    def seen(self, header: Sequence[str], now: float) -> None:
        """Take notice of what an answer told: the server's clock, the epoch, when it began, and whether it was adopted."""
        clock, epoch, created, flag = header
        self._clock = float(clock)
        if not self.epoch:
            self.epoch, self._created, self._adopted = epoch, float(created), flag == "adopted"
        if now:
            self.skew_s = skew = now - self._clock
            side = "ahead of" if skew > 0 else "behind"
            advice = "let NTP set both, or limits are cut at the wrong moment"
            far = f"the clock passed in is {abs(skew):.1f} s {side} that of {self.server}: {advice}"
            self.warn("skew", far if abs(skew) > SKEW_S else "")

    def begin_anew(self, stale: str, once: Callable[[Sequence[Operation]], list[str]], now: float) -> None:
        """After the epoch `stale` was found to be over: take the new one, and define what is known again."""
        with self._beginning:
            if self.epoch != stale:
                return
            self.epoch, self.fresh_epoch = "", os.urandom(8).hex()
            try:
                once(())
                adopted = self.adopt_empty or self._adopted
                lost_at = None if adopted else now - max(0.0, self._clock - self._created)
                self._define_anew(None, lost_at, now, lambda operation: once((operation,))[0])
            except BaseException:
                self.epoch = stale
                raise
            then = "counting goes on from zero" if adopted else "each limit is refused until its window has passed"
            self.warn("emptied", f"{self.server} was found without its counts (begun anew {_moment(self._created)}): {then}")

    def forked(self) -> None:
        """In a forked child: no lock that a thread of the parent held."""
        self._beginning = threading.Lock()

    def tell_gone(self, count: int) -> None:
        """Buckets were deleted on the server, by an eviction or by somebody."""
        self.warn(
            "gone", f"{self.server} has lost {count} buckets that were in use; check its eviction policy and what deletes keys"
        )

    def check_lost(self, stored: Mapping[str, Stored], now: float) -> None:
        """Raises QuotaStoreError if one of the buckets lost its counts and their window still runs."""
        until = max([each.lost for each in stored.values()], default=0.0)
        if until > now and not self.adopt_empty:
            raise QuotaStoreError(
                f"{self.server} has lost its counts; calls are refused until {_moment(until)}, when what was used has passed: "
                "wait, or make a store with adopt_empty=True to go on from zero"
            )


class Exchange:
    """One carrier's side of the protocol. `call` sends names of entries and texts, and returns the answers, `BETWEEN` them."""

    def __init__(
        self, ledger: Ledger, call: Callable[[list[str], list[str]], str], close: Callable[[], None] = lambda: None
    ) -> None:
        self._ledger = ledger
        self._call = call
        self.close = close

    def send(self, batch: Sequence[Operation]) -> list[str]:
        """See `quota_lanes.Carrier`."""
        ledger = self._ledger
        now = max([operation.now for operation in batch], default=0.0)
        for _ in range(5):
            epoch = ledger.epoch
            try:
                answers = self._once(batch)
                break
            except _EmptiedError:
                ledger.begin_anew(epoch, self._once, now)
        else:
            raise QuotaStoreError(f"{ledger.server} keeps being emptied; find out what deletes its keys")
        for operation, answer in zip(batch, answers, strict=True):
            if answer[:1] == "n" and operation.then is not None:
                operation.then(lambda each: self._once((each,))[0])
        return answers

    def _once(self, batch: Sequence[Operation]) -> list[str]:
        ledger = self._ledger
        args = [ledger.epoch, ledger.fresh_epoch, "adopted" if ledger.adopt_empty else "fresh"]
        names: dict[str, None] = {}
        for operation in batch:
            names.update(dict.fromkeys(operation.names))
            args += (operation.verb, str(len(operation.args)))
            args += operation.args
        head, *answers = self._call(list(names), args).split(BETWEEN)
        word, *told = head.split(" ")
        if word != "ok":
            raise _EmptiedError
        ledger.seen(told, batch[-1].now if batch else 0.0)
        return answers


def server_error(server: str, exc: Exception, remedy: str) -> QuotaStoreError:
    """The error that names server, failure and remedy; what it was raised from comes along unless that holds a password."""
    said = str(exc).partition("\n")[0]
    kept = without_passwords(said)
    error = QuotaStoreError(f"{server} failed ({type(exc).__name__}: {kept[:200]}): {remedy}")
    if without_passwords(str(exc)) == str(exc):
        error.__cause__ = exc
    return error


def without_passwords(text: str) -> str:
    """`text` without what looks like the password of a URL or of a connection string."""
    return re.sub(r"://[^@/\s]*@", "://***@", re.sub(r"(?i)(password\s*=\s*)('[^']*'|\S+)", r"\1***", text))


class _EmptiedError(Exception):
    """The server's epoch is not the one it was."""


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
