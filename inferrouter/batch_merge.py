"""Puts the outputs of shards, or of several runs, together into one file, in the input's order where the input is given.

Strategy: records are copied as they are, each row once; one that succeeded goes before one that failed. The new file takes its
place in one step. Must never read an answer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .batch_index import ELSEWHERE, Index
from .batch_input import key_of, source
from .batch_output import Record, csv_spans, records_of
from .errors import BatchError
from .frozen import NamedTuple


class Merged(NamedTuple):
    """What was put together: `rows`, of which `failed` are errors; `twice`: records left out; `missing`: the input's rows without
    a record."""

    rows: int
    failed: int
    twice: int
    missing: int


def merge(parts: Sequence[str], output: str, input_path: str = "") -> Merged:
    """Write `output` from `parts`. `input_path`: the job's input, whose order it then has. Raises `BatchError`, `ConfigError`."""
    shapes = {"csv" if Path(part).suffix.lower() == ".csv" else "jsonl" for part in (*parts, output)}
    if len(shapes) > 1:
        raise BatchError("parts and output must all be JSONL, or all CSV")
    shape = shapes.pop()
    best: dict[int, tuple[int, Record]] = {}
    twice = 0
    for number, part in enumerate(parts):
        for record in records_of(Path(part), shape):
            key = key_of(record.custom_id)
            twice += key in best
            if key not in best or (best[key][1].failed and not record.failed):
                best[key] = number, record
    missing = 0
    order = list(best)
    if input_path:
        index = Index(source(input_path), None, dedupe=False)
        keys = [key_of(custom_id) for _, custom_id, _ in index.rows(*range(ELSEWHERE))]
        missing = sum(key not in best for key in keys)
        known = set(keys)
        order = [key for key in keys if key in best] + [key for key in best if key not in known]
    _write(parts, Path(output), shape, [best[key] for key in order])
    return Merged(len(best), sum(record.failed for _, record in best.values()), twice, missing)


def _write(parts: Sequence[str], output: Path, shape: str, records: list[tuple[int, Record]]) -> None:
    beside = output.with_name(output.name + ".merging")
    files = []
    try:
        for part in parts:
            files.append(open(part, "rb"))  # noqa: SIM115  closed below, all together
        heads = [next((data for _, _, data in csv_spans(Path(part))), b"") if shape == "csv" else b"" for part in parts]
        if len(set(filter(None, heads))) > 1:
            raise BatchError("the parts have different columns: they were made by different jobs")
        with open(beside, "wb") as new:
            new.write(next(filter(None, heads), b""))
            for number, record in records:
                files[number].seek(record.start)
                new.write(files[number].read(record.end - record.start))
            new.flush()
            os.fsync(new.fileno())
        os.replace(beside, output)
    except OSError as exc:
        raise BatchError(f"{exc.filename or str(output)!r}: {exc.strerror}; nothing was changed") from exc
    finally:
        for file in files:
            file.close()
