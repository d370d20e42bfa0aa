"""Appends a job's results to a file in whole lines, and finds out from that file alone what is finished.

Strategy: the file is the state: one record a row, each written by one call, so that a crash leaves at most a torn end, which the
next run cuts off. Three formats: OpenAI's batch lines, flat JSONL, CSV. In all of them a record begins with its `custom_id`, so
a million are looked through without parsing. Must never know providers, prompts or how often a row was asked.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from .batch_input import bytes_of, key_of
from .batch_lines import answer_names, blocks, made_from, made_keys, own_hashes, record_names
from .batch_prompt import as_text
from .errors import BatchError
from .frozen import NamedTuple

FORMATS = ("openai", "flat", "csv")
ANSWER_COLUMNS = ("error", "model", "account", "prompt_tokens", "completion_tokens", "cost")


class Record(NamedTuple):
    """A finished row in the output. `start` and `end`: its bytes; `failed`: it holds an error."""

    custom_id: str
    start: int
    end: int
    failed: bool


class Outcome(NamedTuple):
    """How a row ended, for a table. `answer`: its text or, with a schema, its value; `columns`: the input's; `facts`: model,
    account, tokens, cost."""

    custom_id: str
    answer: Any
    error: Mapping[str, Any] | None
    columns: Mapping[str, Any]
    facts: Mapping[str, Any]


class Output:
    """The file of results at `path`. `shape`: a word of `FORMATS`; `columns`: the input's, for a CSV; `answers`: the columns of
    the answer. `fsync`: every record is on the disk before the next. `line` may be called by any thread, the rest by one at a
    time. Raises `BatchError`.
    """

    def __init__(self, path: Path, shape: str, columns: Sequence[str], answers: Sequence[str], fsync: bool) -> None:
        self.path = path
        self.shape = shape
        self._answers = list(answers)
        self._own = {"custom_id", *ANSWER_COLUMNS, *answers}
        self._columns = [name for name in columns if name != "custom_id"]
        self._fsync = fsync
        self._fd = -1
        self._inode = 0
        self._end = 0

    def open(self) -> bool:
        """Open the file, made if it is not there, and cut a torn end off; whether there was one. Raises `BatchError`."""
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
            found = os.fstat(self._fd)
            size, self._inode = found.st_size, found.st_ino
            self._end = self._whole_end(size)
            if self._end < size:
                os.ftruncate(self._fd, self._end)
            os.lseek(self._fd, self._end, os.SEEK_SET)
        except OSError as exc:
            raise BatchError(f"output {str(self.path)!r} cannot be opened: {exc.strerror}; name another with --out") from exc
        if self.shape == "csv" and self._end == 0:
            columns = map(self._column, self._columns)
            self.write(_csv_line(["custom_id", *columns, *self._answers, *ANSWER_COLUMNS]))
        return self._end < size

    def write(self, data: bytes) -> None:
        """Append whole records, all of them or, with a `BatchError` on a full disk and the like, none."""
        try:
            done = os.write(self._fd, data)
            while done < len(data):
                done += os.write(self._fd, data[done:])
            if self._fsync:
                os.fsync(self._fd)
            self._end += len(data)
        except OSError as exc:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._end)
                os.lseek(self._fd, self._end, os.SEEK_SET)
            what = "the disk is full" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else str(exc.strerror)
            raise BatchError(
                f"output {str(self.path)!r} cannot be written: {what}. All records in it are complete: "
                "fix that, then run the job again"
            ) from exc

    def check(self) -> None:
        """Raise `BatchError` if the file is gone or another one has its name, so that what is written is lost."""
        try:
            there = os.stat(self.path).st_ino == self._inode
        except OSError:
            there = False
        if not there:
            raise BatchError(
                f"output {str(self.path)!r} was removed or replaced while the job ran: put it back, or run the command again"
            )

    def copy(self, record: Record, custom_id: str) -> None:
        """Append what `record` says once more, under another name; it cost nothing more."""
        with open(self.path, "rb") as file:
            file.seek(record.start)
            data = file.read(record.end - record.start)
        if self.shape == "csv":
            cells = next(csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")))
            self.write(_csv_line([custom_id, *cells[1:-1], "0"]))
            return
        made = json.loads(data)
        if made.get("routing"):
            made["routing"] = {**made["routing"], "cost": 0.0, "copied_from": made["custom_id"]}
        elif "cost" in made:
            made["cost"] = 0.0
        if isinstance(made.get("row"), dict) and "custom_id" in made["row"]:
            made["row"]["custom_id"] = custom_id
        if "id" in made and self.shape == "openai":
            made["id"] = request_id_of(custom_id)
        made["custom_id"] = custom_id
        self.write(_json_line(made))

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._fd)
            os.close(self._fd)
            self._fd = -1

    def line(self, outcome: Outcome) -> bytes:
        """The record of `outcome` in a table, flat JSONL or CSV, its line break included."""
        if self.shape == "csv":
            return _csv_line(
                [
                    outcome.custom_id,
                    *(as_text(outcome.columns.get(name)) for name in self._columns),
                    *self._answer_cells(outcome),
                    str((outcome.error or {}).get("message", "")),
                    *(as_text(outcome.facts.get(name)) for name in ANSWER_COLUMNS[1:]),
                ]
            )
        made: dict[str, Any] = {"custom_id": outcome.custom_id, "error": outcome.error}
        made |= {self._column(name): value for name, value in outcome.columns.items() if name != "custom_id"}
        structured = isinstance(outcome.answer, Mapping) and self._answers != ["answer"]
        made |= dict(outcome.answer) if structured else {"answer": outcome.answer}
        return _json_line(made | dict(outcome.facts))

    def _column(self, name: str) -> str:
        """What an input's column is called in the output, where one of the answer's may have its name."""
        return f"input_{name}" if name in self._own else name

    def _answer_cells(self, outcome: Outcome) -> list[str]:
        if self._answers == ["answer"]:
            return [as_text(outcome.answer)]
        found = outcome.answer if isinstance(outcome.answer, Mapping) else {}
        return [as_text(found.get(name)) for name in self._answers]

    def _whole_end(self, size: int) -> int:
        """Where the last whole record ends."""
        if self.shape == "csv":
            return max((end for _, end, _ in csv_spans(self.path)), default=0)
        at = size
        with open(self.path, "rb") as file:
            while at > 0:
                begin = max(0, at - 65536)
                file.seek(begin)
                found = file.read(at - begin).rfind(b"\n")
                if found >= 0:
                    return begin + found + 1
                at = begin
        return 0


def line_records(path: Path) -> Iterator[Record]:
    """The records of a JSONL output. Raises `BatchError` for a line that is not one."""
    at = 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                start, at = at, at + len(line)
                if not line.endswith(b"\n"):
                    raise BatchError(
                        f"{str(path)!r} ends in the middle of a record, as its run was cut short: "
                        "run that job again, which repairs it"
                    )
                found = _HEAD.match(line)
                if found is not None:
                    yield Record(str(found[1], "utf-8", "surrogateescape"), start, at, found[2] is None)
                elif line.strip():
                    custom_id, failed = _parsed_head(line, path, number)
                    yield Record(custom_id, start, at, failed)
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def keys_of(path: Path, shape: str) -> tuple[array[int], array[int]]:
    """The keys of the records that succeeded, and of those that failed. Raises `BatchError` where it is not such a file."""
    fine, failed = array("Q"), array("Q")
    if shape == "csv":
        for record in csv_records(path):
            (failed if record.failed else fine).append(key_of(record.custom_id))
        return fine, failed
    number, ways = 1, [_made_keys, _answer_keys, _record_keys]
    try:
        with open(path, "rb") as file:
            for block in _whole_blocks(file):
                found = ways[0](block)
                while found is None and len(ways) > 1:  # what one block is not, those after it will hardly be
                    del ways[0]
                    found = ways[0](block)
                lines = sum(map(len, found)) if found else block.count(b"\n")
                for known, keys in zip((fine, failed), found or _line_keys(block, path, number), strict=True):
                    known.extend(keys)
                number += lines
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    return fine, failed


def _unreadable(path: Path, exc: OSError) -> BatchError:
    return BatchError(f"output {str(path)!r} cannot be read: {exc.strerror}")


def _whole_blocks(file: BinaryIO) -> Iterator[bytes]:
    """`blocks` without a torn end, which is not a record."""
    torn = bool(file.seek(0, os.SEEK_END)) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"
    file.seek(0)
    found = blocks(file)
    return (block for block, _ in pairwise(found)) if torn else found  # what follows the last line break is a block of its own


_Keys: TypeAlias = "tuple[array[int], array[int]]"  # of answers, and of errors


def _made_keys(block: bytes) -> _Keys | None:
    made = made_keys(block)
    return None if made is None else (made, array("Q"))


def _answer_keys(block: bytes) -> _Keys | None:
    names = answer_names(block)
    return None if names is None else (_keys(names), array("Q"))


def _record_keys(block: bytes) -> _Keys | None:
    names = record_names(block)
    return None if names is None else (_keys(names[0]), _keys(names[1]))


def _keys(names: list[bytes]) -> array[int]:
    """As `key_of` has them, of names without a backslash, most of them without making strings of them."""
    if b"\nrow-" not in b"\n".join([b"", *names]):
        return own_hashes(names)
    made = made_from(names)
    return array("Q", [key_of(str(name, "utf-8", "surrogateescape")) for name in names]) if made is None else made


def _line_keys(block: bytes, path: Path, number: int) -> _Keys:
    """The keys of the lines of `block`, the first of them the file's line `number`, some of them written in another way."""
    fine, failed = array("Q"), array("Q")
    for at, line in enumerate(block.split(b"\n"), number):
        found = _HEAD.match(line)
        if found is not None:
            custom_id, bad = str(found[1], "utf-8", "surrogateescape"), found[2] is None
        elif line.strip():
            custom_id, bad = _parsed_head(line, path, at)
        else:
            continue
        (failed if bad else fine).append(key_of(custom_id))
    return fine, failed


def csv_records(path: Path) -> Iterator[Record]:
    """The records of a CSV output, its header left out. Raises `BatchError` where it has not our columns."""
    try:
        header: list[str] | None = None
        for start, end, data in csv_spans(path):
            cells = next(csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")), [])
            if header is None:
                header = cells
                if not header or header[0] != "custom_id" or "error" not in header:
                    raise BatchError(_foreign(path, 1))
            elif cells:
                error_at = len(header) - len(ANSWER_COLUMNS)
                yield Record(cells[0], start, end, bool(len(cells) > error_at and cells[error_at]))
    except OSError as exc:
        raise _unreadable(path, exc) from exc


def csv_spans(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Beginning, end and bytes of each whole record of a CSV, its header included: a line break within quotes ends none."""
    start = at = quotes = 0
    held: list[bytes] = []
    with open(path, "rb") as file:
        for line in file:
            at += len(line)
            quotes += line.count(b'"')
            held.append(line)
            if quotes % 2 == 0 and line.endswith(b"\n"):
                yield start, at, b"".join(held)
                start = at
                held = []


def records_of(path: Path, shape: str) -> Iterator[Record]:
    """Every whole record in an output of `shape`, in the order they were written. Raises `BatchError` if it is not one."""
    return csv_records(path) if shape == "csv" else line_records(path)


def without_failed(path: Path, shape: str) -> int:
    """Leave only what succeeded, in one step that a crash cannot halve; returns how many records went. Raises `BatchError`."""
    beside = path.with_name(path.name + ".rewriting")
    gone = 0
    try:
        with open(path, "rb") as old, open(beside, "wb") as new:
            if shape == "csv":
                new.write(next((data for _, _, data in csv_spans(path)), b""))
            for record in records_of(path, shape):
                if record.failed:
                    gone += 1
                    continue
                old.seek(record.start)
                new.write(old.read(record.end - record.start))
            new.flush()
            os.fsync(new.fileno())
        os.replace(beside, path)
    except OSError as exc:
        raise BatchError(f"output {str(path)!r} cannot be rewritten: {exc.strerror}; it is as it was") from exc
    return gone


_HEAD = re.compile(rb'\{"custom_id": "([^"\\]*)", "error": (?:(null)|\{)')


def _parsed_head(line: bytes, path: Path, number: int) -> tuple[str, bool]:
    try:
        found = json.loads(line)
        return str(found["custom_id"]), bool(found.get("error"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise BatchError(_foreign(path, number)) from exc


def _foreign(path: Path, number: int) -> str:
    return f"output {str(path)!r}: line {number} is not a result of a batch job; name another file with --out"


def request_id_of(custom_id: str) -> str:
    """What a record of OpenAI's batches has for an `id`: the same for the same row."""
    return f"batch_req_{blake2b(bytes_of(custom_id), digest_size=8).hexdigest()}"


# Made once, as `json.dumps` makes one a record; what is encoded was JSON before, so that it holds no circles.
encoded = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
quoted: Callable[[str], str] = json.encoder.encode_basestring


def _json_line(made: Mapping[str, Any]) -> bytes:
    return line_of(encoded(made))


def line_of(text: str) -> bytes:
    """A record's line of its JSON."""
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half a character in an answer or a name: JSON can say it in an escape
        return json.dumps(json.loads(text)).encode() + b"\n"


def _csv_line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return bytes_of(text.getvalue())
