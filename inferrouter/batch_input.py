"""Reads the rows of a long job: JSONL, CSV, plain lines, or the files of a folder.

Strategy: a row is read twice: once as bytes, to be known by its `custom_id` or by a hash of what it holds, which is cheap enough
for a million finished rows; and once as columns, when it is asked. A row that cannot be read is a row with an error that names
file and line; what no row could be read without (no file, no header, a foreign encoding) ends the job before it begins.
Must never know prompts, providers or outputs.
"""

from __future__ import annotations

import csv
import json
import re
from array import array
from collections.abc import Iterable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

from .batch_lines import blocks, content_hashes, named_rows, own_hashes
from .errors import ConfigError, InvalidRequestError
from .frozen import NamedTuple, new_tuple

MAX_LINE = 64 * 1024 * 1024
"""Bytes; a longer line is a row with an error."""
MAX_FILE = 20 * 1024 * 1024
"""Bytes of a file in a folder."""
KINDS = ("jsonl", "csv", "txt", "folder")


class RawRow(NamedTuple):
    """A row before it is read. `line`: where it begins, from 1. `data`: its bytes, or its cells; None: `fault` says why."""

    line: int
    data: Any
    fault: str = ""


class RowName(NamedTuple):
    """How a row is known. `custom_id`: its own name, "" if it has none; `content`: a 64-bit hash of everything else."""

    custom_id: str
    content: int


class Source:
    """An input. `path`: of the file or folder; `columns`: what every row has, None where rows may differ. `lasting`: the contents
    of rows with names of their own are hashed alike in every process, which shards need and costs more.
    """

    columns: tuple[str, ...] | None
    lasting = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def raw(self) -> Iterator[RawRow]:
        """Every row that is not blank, in order. Raises `ConfigError` where the input cannot be read at all."""
        raise NotImplementedError

    def name(self, row: RawRow) -> RowName:
        """How a row is known."""
        raise NotImplementedError

    def scan(self) -> tuple[array[int], array[int]]:
        """For every row its key, see `key_of`, and its content. Raises as `raw` does."""
        keys, contents = array("Q"), array("Q")
        for row in self.raw():
            name = self.name(row)
            keys.append(key_of(name.custom_id) if name.custom_id else name.content)
            contents.append(name.content)
        return keys, contents

    def values(self, row: RawRow) -> dict[str, Any]:
        """The row's columns. Raises `InvalidRequestError` naming file and line."""
        raise NotImplementedError

    def place(self, row: RawRow) -> str:
        """Where the row stands, for a person."""
        return f"{self.path}:{row.line}"

    def _wrong(self, row: RawRow, what: str) -> InvalidRequestError:
        return InvalidRequestError(message=f"{self.place(row)}: {what}")


def source(path: str | Path, kind: str = "") -> Source:
    """The input at `path`. `kind`: jsonl, csv, txt or folder; "": by its name. Raises `ConfigError`."""
    place = Path(path)
    if kind and kind not in KINDS:
        raise ConfigError(f"input kind {kind!r} is not one of {', '.join(KINDS)}")
    if not place.exists():
        raise ConfigError(f"input {str(place)!r} does not exist; check the path")
    if place.is_dir():
        return Folder(place)
    if not place.is_file():
        raise ConfigError(
            f"input {str(place)!r} is not a regular file, and a job reads its input more than once; "
            "save its content to a file first"
        )
    suffix = place.suffix.lower()
    if suffix == ".json" and kind in ("", "jsonl"):
        _check_no_array(place)
    if kind == "csv" or (not kind and suffix in (".csv", ".tsv")):
        return Table(place)
    if kind == "txt" or (not kind and suffix not in (".jsonl", ".ndjson", ".json")):
        return Lines(place)
    return JsonLines(place)


def content_hash(data: bytes) -> int:
    """64 bits of `data`, the same on every machine."""
    return int.from_bytes(blake2b(data, digest_size=8).digest())


def name_of(name: RowName, times: int) -> str:
    """What a row is called in the output: its own name, else one made of what it holds, the `times`th row that says it."""
    return name.custom_id or f"row-{name.content:016x}{f'-{times}' if times > 1 else ''}"


def key_of(custom_id: str) -> int:
    """64 bits for a row by its name in the output: of a name that was made, what it was made of; else of this process alone."""
    if custom_id.startswith("row-") and custom_id[20:21] in ("", "-"):
        try:
            return numbered(int(custom_id[4:20], 16), int(custom_id[21:] or 1))
        except ValueError:
            pass  # a name that only looks like one
    return hash(bytes_of(custom_id)) & _MASK


def bytes_of(text: str) -> bytes:
    """`text` as it stands in a file, bytes that were not UTF-8 among them."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, from a JSON escape
        return text.encode("utf-8", "surrogatepass")


def numbered(content: int, times: int) -> int:
    """The key of the `times`th row that says the same."""
    return (content + (times - 1) * 0x9E3779B97F4A7C15) & _MASK


class Lines(Source):
    """A text: each line is a row with the column `text`."""

    columns: tuple[str, ...] | None = ("text",)

    def raw(self) -> Iterator[RawRow]:
        """See `Source`."""
        try:
            with open(self.path, "rb") as file:
                _begin(self.path, file)
                for number, line in enumerate(iter(partial(file.readline, MAX_LINE), b""), 1):
                    if len(line) == MAX_LINE and not line.endswith(b"\n"):
                        rest = b""
                        while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                            pass
                        yield RawRow(number, line[:1024], f"the line is longer than {MAX_LINE // 2**20} MiB")
                    elif data := line.strip():
                        yield new_tuple(RawRow, (number, data, ""))
        except OSError as exc:
            raise _unreadable(self.path, exc) from exc

    def scan(self) -> tuple[array[int], array[int]]:
        """See `Source`."""
        keys = array("Q")
        for block in self._blocks():
            keys.extend(content_hashes(_rows_in(block)))
        return keys, keys

    def _blocks(self) -> Iterator[bytes]:
        """The file in blocks of whole lines. Raises as `raw` does."""
        try:
            with open(self.path, "rb") as file:
                _begin(self.path, file)
                yield from blocks(file, MAX_LINE)
        except OSError as exc:
            raise _unreadable(self.path, exc) from exc

    def name(self, row: RawRow) -> RowName:
        """See `Source`."""
        return new_tuple(RowName, ("", content_hash(row.data)))

    def values(self, row: RawRow) -> dict[str, Any]:
        """See `Source`."""
        return {"text": self._text(row)}

    def _text(self, row: RawRow) -> str:
        _, data, fault = row
        if fault:
            raise self._wrong(row, fault)
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as exc:
            raise self._wrong(row, f"is not UTF-8 at byte {exc.start}; save the file as UTF-8") from exc


class JsonLines(Lines):
    """One JSON object a line, OpenAI's batch lines among them. A line that is a JSON string is a row with the column `text`."""

    columns = None

    def name(self, row: RawRow) -> RowName:
        """See `Source`. A `custom_id` is mostly the first key, which costs no parsing."""
        data: bytes = row.data
        first = _ID_FIRST.match(data)
        if first is not None:
            return RowName(str(first[1], "utf-8", "surrogateescape"), self._hash(data[first.end() :]))
        if b'"custom_id"' in data and not row.fault:
            try:
                found = json.loads(data)
                custom_id = found.pop("custom_id")
                if isinstance(custom_id, str) and custom_id:
                    return RowName(custom_id, self._hash(json.dumps(found, sort_keys=True).encode()))
            except (ValueError, AttributeError, KeyError, RecursionError):
                pass
        return RowName("", content_hash(data))

    def scan(self) -> tuple[array[int], array[int]]:
        """See `Source`."""
        keys, contents = array("Q"), array("Q")
        for block in self._blocks():
            if b'"custom_id"' not in block:
                hashes = content_hashes(_rows_in(block))
                keys.extend(hashes)
                contents.extend(hashes)
            elif not self.lasting and b'"row-' not in block and len(block) < MAX_LINE and (named := named_rows(block)):
                keys.extend(own_hashes(named[0]))
                contents.extend(own_hashes(named[1]))
            else:
                for data in _rows_in(block):
                    name = self.name(RawRow(0, data))
                    keys.append(key_of(name.custom_id) if name.custom_id else name.content)
                    contents.append(name.content)
        return keys, keys if keys == contents else contents

    def _hash(self, data: bytes) -> int:
        return content_hash(data) if self.lasting else hash(data) & _MASK

    def values(self, row: RawRow) -> dict[str, Any]:
        """See `Source`."""
        text = self._text(row)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise self._wrong(row, f"is not JSON ({exc})") from exc
        if isinstance(found, str):
            return {"text": found}
        if not isinstance(found, dict):
            raise self._wrong(row, f"is a JSON {type(found).__name__}, not an object")
        return found


class Table(Source):
    """A CSV with a header; the delimiter is what the header has most of: comma, semicolon or tab."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.columns = None
        self._id_at: int | None = None

    def raw(self) -> Iterator[RawRow]:
        """See `Source`."""
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
        try:
            with open(self.path, "rb") as file:
                _check_encoding(self.path, file.read(4))
            with open(self.path, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
                head = text.readline(MAX_LINE)
                text.seek(0)
                record: list[str] = []
                delimiter = max(",;\t", key=head.count)
                rows = csv.reader(_noted(text, record), delimiter=delimiter)
                try:
                    header = next(rows, [])
                except csv.Error as exc:
                    raise ConfigError(f"input {str(self.path)!r}: its header is not CSV ({exc})") from exc
                self._take_header(header)
                yield from self._rows(rows, record, delimiter)
        except OSError as exc:
            raise _unreadable(self.path, exc) from exc

    def name(self, row: RawRow) -> RowName:
        """See `Source`."""
        cells: list[str] = row.data
        custom_id = ""
        if self._id_at is not None and self._id_at < len(cells):
            custom_id = cells[self._id_at]
            cells = cells[: self._id_at] + cells[self._id_at + 1 :]
        return RowName(custom_id, content_hash("\x1f".join(cells).encode("utf-8", "surrogateescape")))

    def values(self, row: RawRow) -> dict[str, Any]:
        """See `Source`."""
        if row.fault:
            raise self._wrong(row, row.fault)
        columns = self.columns or ()
        if len(row.data) != len(columns):
            raise self._wrong(row, f"has {len(row.data)} cells and the header {len(columns)}; check its quotes and delimiters")
        if any("\udc80" <= letter <= "\udcff" for cell in row.data for letter in cell if letter > "\x7f"):
            raise self._wrong(row, "is not UTF-8; save the file as UTF-8")
        return dict(zip(columns, row.data, strict=True))

    def _take_header(self, header: list[str]) -> None:
        names = [name.strip() for name in header]
        if not any(names):
            raise ConfigError(f"input {str(self.path)!r} is empty: a CSV needs a header with the names of its columns")
        twice = [name for at, name in enumerate(names) if name in names[:at]]
        if twice:
            raise ConfigError(f"input {str(self.path)!r}: its header has {twice[0]!r} twice; rename one of them")
        self.columns = tuple(names)
        self._id_at = names.index("custom_id") if "custom_id" in names else None

    def _rows(self, rows: Any, record: list[str], delimiter: str) -> Iterator[RawRow]:
        """`record`: gets the lines that `rows` reads. A quote that is never closed makes one row of all that is left."""
        held: tuple[RawRow, str] | None = None
        while True:
            line = rows.line_num + 1
            record.clear()
            try:
                cells = next(rows, None)
            except csv.Error as exc:
                yield RawRow(line, [f"line {line}"], f"is not CSV ({exc})")
                continue
            if held is not None:
                yield held[0] if cells is not None else _closed(*held, delimiter)
            held = None
            if cells is None:
                return
            if cells:
                held = RawRow(line, cells), record[0] if len(record) == 1 else "".join(record)


class Folder(Source):
    """Files as rows, known by their path below the folder; columns `path`, `name`, and one of `text` and, for media, `file`.

    `output`: where the results go, which is not a row, nor is what stands beside it under longer names.
    """

    columns = ("path", "name", "text", "file")
    output: Path | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._names: list[str] | None = None

    def raw(self) -> Iterator[RawRow]:
        """See `Source`. Hidden files and folders are left out, and so is what came after `scan`."""
        if self._names is None:
            self._names = self._found()
        return (RawRow(0, name) for name in self._names)

    def scan(self) -> tuple[array[int], array[int]]:
        """See `Source`."""
        self._names = None
        return super().scan()

    def _found(self) -> list[str]:
        own = None if self.output is None else self.output.resolve()
        names = []
        try:
            for path in self.path.rglob("*"):
                inside = path.relative_to(self.path)
                if any(part.startswith(".") for part in inside.parts) or not path.is_file():
                    continue
                if own is None or not (path.name.startswith(own.name) and path.resolve().parent == own.parent):
                    names.append(path)
        except OSError as exc:
            raise _unreadable(self.path, exc) from exc
        return [path.relative_to(self.path).as_posix() for path in sorted(names)]

    def name(self, row: RawRow) -> RowName:
        """See `Source`."""
        return RowName(row.data, content_hash(row.data.encode("utf-8", "surrogateescape")))

    def values(self, row: RawRow) -> dict[str, Any]:
        """See `Source`."""
        path = self.path / row.data
        try:
            data = path.read_bytes() if path.stat().st_size <= MAX_FILE else None
        except OSError as exc:
            raise self._wrong(row, f"cannot be read: {exc.strerror}") from exc
        if data is None:
            raise self._wrong(row, f"is larger than {MAX_FILE // 2**20} MiB")
        values = {"path": row.data, "name": path.name, "text": "", "file": ""}
        try:
            return {**values, "text": data.removeprefix(_BOM).decode("utf-8")}
        except UnicodeDecodeError:
            return {**values, "file": row.data}

    def place(self, row: RawRow) -> str:
        """See `Source`."""
        return str(self.path / row.data)


_MASK = 2**64 - 1
_BOM = b"\xef\xbb\xbf"
_ID_FIRST = re.compile(rb'\{\s*"custom_id"\s*:\s*"([^"\\]+)"\s*,?\s*')


def _noted(lines: Iterable[str], record: list[str]) -> Iterator[str]:
    """The same lines, each noted in `record` as it is read."""
    for line in lines:
        record.append(line)
        yield line


def _closed(row: RawRow, record: str, delimiter: str) -> RawRow:
    """The last row of a table, or what is wrong with it if it ends within quotes."""
    try:
        list(csv.reader([record], delimiter=delimiter, strict=True))
    except csv.Error as exc:
        if "end of data" in str(exc):
            return RawRow(row.line, [f"line {row.line}"], "a quote in it is not closed before the end of the file")
    return row


def _unreadable(path: Path, exc: OSError) -> ConfigError:
    return ConfigError(f"input {str(path)!r} cannot be read: {exc.strerror}")


def _check_no_array(path: Path) -> None:
    """Refuse a file that is one JSON array, whose lines are not rows."""
    try:
        with open(path, "rb") as file:
            begin = file.read(4096).removeprefix(_BOM).lstrip()
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    if begin.startswith(b"["):
        raise ConfigError(
            f"input {str(path)!r} is one JSON array; write an object a line, as jq -c '.[]' does, and call it .jsonl"
        )


def _rows_in(block: bytes) -> list[bytes]:
    """The rows in some lines: what is blank is left out, and of a line that is too long there is its beginning."""
    lines = block.split(b"\n")
    if len(block) >= MAX_LINE:
        lines = [line[: min(1024, MAX_LINE)] if len(line) >= MAX_LINE else line.strip() for line in lines]
        return [line for line in lines if line]
    return list(filter(None, map(bytes.strip, lines)))


def _begin(path: Path, file: BinaryIO) -> None:
    """Look at how `file` begins, and go to where its first line does."""
    begin = file.read(4)
    _check_encoding(path, begin)
    file.seek(len(_BOM) if begin.startswith(_BOM) else 0)


def _check_encoding(path: Path, begin: bytes) -> None:
    if begin[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ConfigError(f"input {str(path)!r} is UTF-16; save it as UTF-8")
    if begin[:2] == b"\x1f\x8b" or begin[:4] == b"PK\x03\x04":
        raise ConfigError(f"input {str(path)!r} is compressed or a spreadsheet; unpack it, or save it as CSV")
