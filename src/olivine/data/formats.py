"""Rows out of one file: JSON, JSON Lines, CSV, plain text, Parquet, Arrow; the first four also gzipped.

A reader yields, in the order of the file, a :class:`Row` for every record and a :class:`~olivine.errors.Problem` for
every record that cannot be read. It never raises for what is *in* the file, so that all faults can be told at once.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from olivine.errors import Location, Problem, UnavailableError

FORMATS = ("json", "csv", "parquet", "text", "arrow")
"""What ``data_name`` may say about ``data_files``."""

SUFFIXES = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
    ".text": "text",
    ".arrow": "arrow",
}

_BATCH = 1024
"""Rows converted at a time from columnar files."""
_BOM = b"\xef\xbb\xbf"
_FIELD_LIMIT = 1 << 30
"""Longest CSV field, in characters; Python's own default of 131072 is shorter than many documents."""


@dataclass(frozen=True)
class Row:
    """One record.

    Attributes:
        values: by column.
        file: the file it is from, or the id of a hub data set.
        line: in text formats the 1-based line on which it begins, in columnar ones the 1-based number of the row.
    """

    values: dict[str, Any]
    file: str
    line: int

    @property
    def where(self) -> Location:
        """Its place, for error messages."""
        return Location(file=self.file, line=self.line)


@dataclass(frozen=True)
class Unreadable(Problem):
    """The rest of a file cannot be read: never skipped, as it is not known how many rows would be lost."""


@dataclass
class Meter:
    """How much of the files on disk has been read, in bytes; readers update it as they go.

    Attributes:
        bytes: in all files so far.
        within: in the present file, if its reader takes in more at a time than it has yielded.
    """

    bytes: int = 0
    within: int | None = None


def format_of(path: Path) -> str | None:
    """Return the format that the suffix of ``path`` tells, ``.gz`` apart; ``None`` if it tells none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return SUFFIXES.get(suffixes[-1]) if suffixes else None


def read_file(
    path: Path, format_name: str, *, meter: Meter | None = None, limit_bytes: int | None = None
) -> Iterator[Row | Problem]:
    """Yield the records of one file.

    Args:
        path: the file.
        format_name: one of :data:`FORMATS`.
        meter: told how many bytes on disk have been consumed.
        limit_bytes: a JSON array has to be in memory to be parsed; of one larger than this only the beginning is read.

    Raises:
        UnavailableError: a columnar file, and pyarrow is not installed.
    """
    meter = meter or Meter()
    before = meter.bytes
    try:
        if format_name in ("parquet", "arrow"):
            reader = _read_parquet if format_name == "parquet" else _read_arrow
            yield from reader(path)
        else:
            meter.within = None
            with path.open("rb") as raw:
                # The position in the compressed file is what compares with its size.
                unpacked: Any = gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw
                for record in _read_lines(path, format_name, unpacked, limit_bytes, meter):
                    meter.bytes = before + (raw.tell() if meter.within is None else meter.within)
                    yield record
    except (OSError, EOFError, zlib.error) as error:
        yield Unreadable(
            f"the file cannot be read: {_reason(error)}",
            Location(file=str(path)),
            remedy="check that it is complete and that you may read it",
        )
    meter.bytes = before + (path.stat().st_size if path.is_file() else 0)


def count_rows(path: Path, format_name: str) -> int:
    """Return how many records a file has, readable or not; Parquet files say so themselves."""
    if format_name == "parquet":
        pyarrow, parquet = _pyarrow(), _parquet()
        try:
            return int(parquet.read_metadata(path).num_rows)
        except (pyarrow.ArrowException, OSError):
            return 0
    return sum(1 for _ in read_file(path, format_name))


def read_table(table: Any, file: str, first: int) -> Iterator[Row]:
    """Yield the rows of a pyarrow table or record batch, numbered from ``first``."""
    for number, values in enumerate(table.to_pylist(), first):
        yield Row(values, file, number)


# Text formats ---------------------------------------------------------------------------------------------------------


def _read_lines(
    path: Path, format_name: str, raw: IO[bytes], limit_bytes: int | None, meter: Meter
) -> Iterator[Row | Problem]:
    if format_name == "csv":
        return _read_csv(path, raw)
    if format_name == "text":
        return _read_text(path, raw)
    return _read_json(path, raw, limit_bytes, meter)


def _read_text(path: Path, raw: IO[bytes]) -> Iterator[Row | Problem]:
    for number, line in _lines(raw):
        text = _decode(line, path, number)
        if isinstance(text, Problem):
            yield text
        elif text.strip():
            yield Row({"text": text}, str(path), number)


def _read_json(path: Path, raw: IO[bytes], limit_bytes: int | None, meter: Meter) -> Iterator[Row | Problem]:
    """Read one array of objects, or JSON Lines; which of them the first character tells, not the suffix."""
    lines = _lines(raw)
    for number, line in lines:
        if not line.strip():
            continue
        if line.lstrip()[:1] == b"[":
            head = b"\n" * (number - 1) + line + b"\n"
            rest = raw.read() if limit_bytes is None else raw.read(limit_bytes)
            truncated = limit_bytes is not None and len(rest) == limit_bytes and bool(raw.read(1))
            packed = path.suffix.lower() == ".gz"
            yield from _read_array(path, head + rest, truncated, None if packed else meter)
            return
        if line.strip() == b"{":
            yield Unreadable(
                "a JSON object is spread over several lines",
                Location(file=str(path), line=number),
                remedy="write each row on one line, or make the file one array: [{...}, {...}]",
            )
            return
        yield _json_line(path, number, line)
        break
    for number, line in lines:
        if line.strip():
            yield _json_line(path, number, line)


def _json_line(path: Path, number: int, line: bytes) -> Row | Problem:
    text = _decode(line, path, number)
    if isinstance(text, Problem):
        return text
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return Problem(f"broken JSON: {error.msg} at column {error.colno}", Location(file=str(path), line=number))
    except (ValueError, RecursionError) as error:
        return Problem(f"broken JSON: {_reason(error)}", Location(file=str(path), line=number))
    return _object(value, path, number)


def _object(value: Any, path: Path, number: int) -> Row | Problem:
    if isinstance(value, dict):
        return Row(value, str(path), number)
    where = Location(file=str(path), line=number)
    return Problem(f"a row has to be a JSON object, but this is {kind(value)}", where)


def _read_array(path: Path, content: bytes, truncated: bool, meter: Meter | None) -> Iterator[Row | Problem]:
    """Yield the elements of a JSON array one by one, each with the line it begins on."""
    try:
        text = content.removeprefix(_BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        if truncated and error.start >= len(content) - 4:
            text = content[: error.start].removeprefix(_BOM).decode("utf-8")
        else:
            fault = _not_utf8(error, path, content.count(b"\n", 0, error.start) + 1)
            yield Unreadable(fault.what, fault.where, "the rest of the array cannot be read", fault.remedy)
            return
    decoder = json.JSONDecoder()
    position = _skip_space(text, text.index("[") + 1)
    line, counted = 1, 0
    expects_element = True
    if text[position : position + 1] == "]":
        expects_element = False
    while expects_element:
        line, counted = line + text.count("\n", counted, position), position
        where = Location(file=str(path), line=line)
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            if not truncated:
                yield Unreadable(
                    f"broken JSON: {error.msg} at column {error.colno}",
                    Location(file=str(path), line=error.lineno),
                    "the rest of the array cannot be read",
                )
            return
        except (ValueError, RecursionError) as error:
            yield Unreadable(f"broken JSON: {_reason(error)}", where, "the rest of the array cannot be read")
            return
        if meter is not None:
            meter.within = len(content) * position // len(text)
        yield _object(value, path, line)
        position = _skip_space(text, position)
        follows = text[position : position + 1]
        if follows == ",":
            position = _skip_space(text, position + 1)
        elif follows == "]":
            expects_element = False
        else:
            if not truncated:
                found = f"{follows!r} instead" if follows else "the end of the file"
                line += text.count("\n", counted, position)
                yield Unreadable(
                    f"broken JSON: ',' or ']' has to follow an element of the array, but there is {found}",
                    Location(file=str(path), line=line),
                    "the rest of the array cannot be read",
                )
            return
    position = _skip_space(text, position + 1)
    if position < len(text):
        line += text.count("\n", counted, position)
        yield Unreadable("there is something after the end of the array", Location(file=str(path), line=line))


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _read_csv(path: Path, raw: IO[bytes]) -> Iterator[Row | Problem]:
    """Read rows under a header. Values are text as written; an empty cell is null: CSV has no other way to say so."""
    undecodable: list[tuple[int, Problem]] = []

    def decoded() -> Iterator[str]:
        for number, line in _lines(raw):
            text = _decode(line, path, number)
            if isinstance(text, Problem):
                undecodable.append((number, text))
                yield line.decode("utf-8", errors="replace") + "\n"
            else:
                yield text + "\n"

    csv.field_size_limit(_FIELD_LIMIT)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    reader = csv.reader(decoded(), delimiter="\t" if ".tsv" in suffixes[-2:] else ",", strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        where = Location(file=str(path), line=line)
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Problem(f"broken CSV: {error}", where)
            continue
        if undecodable:
            fault = undecodable[0][1]
            undecodable.clear()
            if header is None:
                yield Unreadable(fault.what, fault.where, "it is in the header", fault.remedy)
                return
            yield fault
            continue
        if not cells:
            continue
        if header is None:
            header = [name.strip() for name in cells]
            twice = sorted({name for name in header if header.count(name) > 1})
            if twice:
                yield Unreadable(f"the header names a column twice: {', '.join(map(repr, twice))}", where)
                return
            continue
        if len(cells) != len(header):
            yield Problem(
                f"the row has {len(cells)} fields, the header has {len(header)}",
                where,
                "a comma or a quotation mark in a field needs quotation marks around the field",
            )
            continue
        yield Row({name: cell or None for name, cell in zip(header, cells, strict=True)}, str(path), line)


def _lines(raw: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield lines, numbered from 1, without their ends and without a byte order mark."""
    for number, line in enumerate(raw, 1):
        if number == 1:
            line = line.removeprefix(_BOM)
        yield number, line.removesuffix(b"\n").removesuffix(b"\r")


def _decode(line: bytes, path: Path, number: int) -> str | Problem:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        return _not_utf8(error, path, number)


def _not_utf8(error: UnicodeDecodeError, path: Path, line: int) -> Problem:
    return Problem(
        f"the text is not valid UTF-8 (byte 0x{error.object[error.start]:02x})",
        Location(file=str(path), line=line),
        remedy="save the file as UTF-8",
    )


# Columnar formats -----------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> Iterator[Row | Problem]:
    pyarrow, parquet = _pyarrow(), _parquet()
    number = 1
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from read_table(batch, str(path), number)
                number += batch.num_rows
    except pyarrow.ArrowException as error:
        yield Unreadable(f"this is no sound Parquet file: {_reason(error)}", Location(file=str(path)))


def _read_arrow(path: Path) -> Iterator[Row | Problem]:
    """Read the stream format (what ``datasets`` saves) or the file format (Feather 2)."""
    pyarrow = _pyarrow()
    number = 1
    try:
        with pyarrow.memory_map(str(path)) as mapped:
            is_file = mapped.read(6) == b"ARROW1"
            mapped.seek(0)
            if is_file:
                reader = pyarrow.ipc.open_file(mapped)
                batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
            else:
                batches = iter(pyarrow.ipc.open_stream(mapped))
            for batch in batches:
                for start in range(0, batch.num_rows, _BATCH):
                    part = batch.slice(start, _BATCH)
                    yield from read_table(part, str(path), number)
                    number += part.num_rows
    except pyarrow.ArrowException as error:
        yield Unreadable(f"this is no sound Arrow file: {_reason(error)}", Location(file=str(path)))


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise UnavailableError(
            "reading Parquet and Arrow files needs pyarrow, which is not installed",
            remedy="`pip install 'olivine[finetune]'`, or use JSON Lines",
        ) from error
    return pyarrow


def _parquet() -> Any:
    _pyarrow()
    import pyarrow.parquet

    return pyarrow.parquet


# Words ----------------------------------------------------------------------------------------------------------------


def kind(value: Any) -> str:
    """Return what ``value`` is, in the words of data files."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, bool | int | float):
        return "a number" if not isinstance(value, bool) else "true or false"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, bytes):
        return "binary"
    return type(value).__name__


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]
