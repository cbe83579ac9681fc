"""Rows of a data config: reading them all, surveying them for a plan, and finding what is wrong with them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from olivine.config.schema import DataConfig
from olivine.data.formats import Meter, Row, Unreadable, count_rows, read_file, read_table
from olivine.data.sequences import check_config
from olivine.data.sources import Slice, Source, data_files, find_source, nearest, parse_split
from olivine.data.templates import problem_in, shape_of
from olivine.errors import DataError, Location, OlivineError, Problem

__all__ = ["Row", "RowSet", "Survey", "data_files", "find_problems", "iter_rows", "read_rows", "survey"]

SHOWN = 10
"""Bad rows that one error names; the others are counted."""
_FIRST = 5
"""Rows that a survey keeps."""
SKIP_REMEDY = "mend the data, or set on_bad_row: skip to leave such rows out"


@dataclass(frozen=True)
class RowSet:
    """Rows, read.

    Attributes:
        rows: in the order of the files.
        columns: all columns that occur, in the order in which they first do.
        files: the local files read.
        skipped: rows left out because of ``on_bad_row: skip``, each with what is wrong with it.
        notes: what the user may not expect.
    """

    rows: list[Row]
    columns: list[str]
    files: list[Path]
    skipped: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)


@dataclass(frozen=True)
class Survey:
    """What a plan says of data.

    Attributes:
        files: the local files.
        rows: rows that will be used, by split, ``max_rows`` and ``on_bad_row``; ``None`` for a hub data set, which is
            not looked at before the run.
        exact: whether ``rows`` was counted, not estimated from the part that was read.
        columns: columns that occur in what was read.
        problems: bad rows in what was read.
        first_rows: a few rows.
        notes: what the user may not expect.
    """

    files: tuple[Path, ...]
    rows: int | None
    exact: bool
    columns: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    first_rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()


def read_rows(config: DataConfig, *, columns: Collection[str] | None = None) -> RowSet:
    """Read the rows that ``config`` names.

    Args:
        config: files, split, ``max_rows``, and what to do with a bad row.
        columns: columns that have to be there and hold text; default: those the config makes its text from.

    Raises:
        DataError: files or columns are missing, there is no row, or (unless ``on_bad_row: skip``) some are bad.
        UnavailableError: a hub data set cannot be had, or a package is missing.
        ConfigError: a template cannot be read.
    """
    source = find_source(config)
    sift = _Sift(config, columns)
    rows = [row for row in map(sift, _records(config, source, sift)) if row is not None]
    bad = sift.bad_rows()
    problems = sift.absent_columns()
    if not problems:
        problems = _to_tell(bad, config) or ([] if rows else [_no_rows(config, source, bad)])
    if problems:
        raise DataError(problems)
    notes = list(source.notes)
    if bad:
        notes.append(_left_out(bad))
    return RowSet(rows, list(sift.columns), [file for file, _ in source.files], bad, notes)


def iter_rows(config: DataConfig, *, columns: Collection[str] | None = None) -> Iterator[Row]:
    """Yield the rows one by one, for data larger than memory. Bad rows raise, or are left out, as they come.

    Raises:
        DataError: as :func:`read_rows`, but for the first fault only.
    """
    source = find_source(config)
    sift = _Sift(config, columns)
    empty = True
    for record in _records(config, source, sift):
        row = sift(record)
        if row is not None:
            empty = False
            yield row
        elif faults := _to_tell(sift.bad_rows(all_columns=True), config):
            raise DataError(faults)
    if empty:
        raise DataError(sift.absent_columns() or [_no_rows(config, source, sift.bad_rows())])


def survey(config: DataConfig, limit_bytes: int = 64 << 20, *, columns: Collection[str] | None = None) -> Survey:
    """Look at the data without a heavy import and without the network.

    Files of up to ``limit_bytes`` together are read whole, of larger ones the beginning; then the number of rows is an
    estimate. Asking again for files that have not changed costs nothing. A used column that no row has is a problem,
    but does not make the rows fewer.

    Raises:
        DataError: files, folder or split are not there.
        UnavailableError: pyarrow is missing, or the hub is switched off and the data set is not on this machine.
    """
    source = find_source(config)
    if source.kind == "hub":
        from olivine.data.hub import check_hub

        check_hub(config)
        return Survey((), None, False, (), notes=(f"{config.data_name} is fetched from the hub when this is run",))
    state = tuple((str(file), status.st_size, status.st_mtime_ns) for file, status in _stats(source))
    used = None if columns is None else tuple(columns)
    if used is None:
        try:
            shape_of(config)
        except OlivineError:
            used = ()  # what is wrong with the config is for find_problems to say; its rows can still be counted
    return _survey(config.model_dump_json(), limit_bytes, used, state)


def find_problems(
    config: DataConfig,
    *,
    where: Location | None = None,
    columns: Collection[str] | None = None,
    limit_bytes: int = 64 << 20,
) -> list[Problem]:
    """Return everything that is known to be wrong with the config and its data before the run.

    Args:
        config: what to check.
        where: the place of the data config; keys are added to its path. A problem within a data file has the place in
            that file. Without it a problem with a key has only that key as its path.
        columns: see :func:`read_rows`.
        limit_bytes: see :func:`survey`.

    Raises:
        UnavailableError: as :func:`survey`.
    """
    problems = [problem for problem in check_config(config) if not (problem.where and problem.where.path == "split")]
    try:
        found = survey(config, limit_bytes, columns=columns)
    except DataError as error:
        problems += error.problems
    else:
        faults = _to_tell(list(found.problems), config)
        problems += faults
        if not faults and found.rows == 0:
            problems.append(_no_rows(config, find_source(config), list(found.problems)))
    return [_placed(problem, where) for problem in problems]


# Reading --------------------------------------------------------------------------------------------------------------


class _Sift:
    """Lets good rows through and keeps account of bad ones and of columns."""

    def __init__(self, config: DataConfig, columns: Collection[str] | None) -> None:
        shape = shape_of(config) if columns is None else None
        self.used = tuple(columns or ()) if shape is None else shape.columns
        self.chat = shape is not None and shape.chat
        self.template_key = _template_key(config) if columns is None else None
        self.columns: dict[str, None] = {}
        self.good = 0
        self.count = 0
        self.first: Row | None = None
        self._bad: list[tuple[Problem, str | None]] = []

    def __call__(self, record: Row | Problem) -> Row | None:
        self.count += 1
        if isinstance(record, Problem):
            self._bad.append((record, None))
            return None
        if not record.values.keys() <= self.columns.keys():
            self.columns.update(dict.fromkeys(record.values))
        self.first = self.first or record
        problem = problem_in(record, self.used, chat=self.chat)
        if problem is None:
            self.good += 1
            return record
        absent = next((column for column in self.used if column not in record.values), None)
        self._bad.append((problem, absent))
        return None

    def bad_rows(self, *, all_columns: bool = False) -> list[Problem]:
        """Return what is wrong with single rows. A column that no row has is not the fault of each of them."""
        return [problem for problem, absent in self._bad if absent is None or absent in self.columns or all_columns]

    def absent_columns(self) -> list[Problem]:
        """Return used columns that no row has."""
        if self.first is None:
            return []
        problems = []
        for column in self.used:
            if column in self.columns:
                continue
            meant = nearest(column, self.columns)
            listed = ", ".join(self.columns) or "none"
            problems.append(
                Problem(
                    f"there is no column {column!r} in {self.first.file}",
                    Location(path=self.template_key) if self.template_key else None,
                    f"its columns are: {listed}",
                    f"did you mean {meant!r}?"
                    if meant
                    else "correct the name, or name the columns to use in text_cols",
                )
            )
        return problems


def _records(
    config: DataConfig,
    source: Source,
    sift: _Sift,
    *,
    meter: Meter | None = None,
    limit_bytes: int | None = None,
) -> Iterator[Row | Problem]:
    """Yield the records of the slice, until ``sift`` has seen ``max_rows`` good ones.

    With ``limit_bytes`` they are those from the beginning, whatever the slice.
    """
    if source.kind == "hub":
        return _limited(_hub_records(config), config, sift)
    everything = itertools.chain.from_iterable(
        read_file(file, format_name, meter=meter, limit_bytes=limit_bytes) for file, format_name in source.files
    )
    if limit_bytes is not None:
        return everything
    return _limited(_sliced(everything, source, parse_split(config.split)), config, sift)


def _sliced(records: Iterator[Row | Problem], source: Source, chosen: Slice) -> Iterator[Row | Problem]:
    if chosen.is_whole:
        return records
    if chosen.needs_total:
        total = sum(count_rows(file, format_name) for file, format_name in source.files)
        return itertools.islice(records, *chosen.bounds(total))
    return itertools.islice(records, chosen.start, None if chosen.stop is None else max(chosen.stop, chosen.start or 0))


def _limited(records: Iterator[Row | Problem], config: DataConfig, sift: _Sift) -> Iterator[Row | Problem]:
    """End after ``max_rows`` rows that are good, so that what follows is neither read nor found fault with."""
    for record in records:
        yield record
        if config.max_rows is not None and sift.good >= config.max_rows:
            return


@lru_cache(maxsize=16)
def _survey(config_json: str, limit_bytes: int, columns: tuple[str, ...] | None, state: tuple[Any, ...]) -> Survey:
    """Survey local files; ``state`` (their sizes and times) is there to make the memory forget what has changed."""
    config = DataConfig.model_validate_json(config_json)
    source = find_source(config)
    files = tuple(file for file, _ in source.files)
    size = sum(entry[1] for entry in state)
    meter = Meter()
    whole = size <= limit_bytes
    sift = _Sift(config, columns)
    first: list[Row] = []
    ended = True
    for record in _records(config, source, sift, meter=meter, limit_bytes=None if whole else limit_bytes):
        row = sift(record)
        if row is not None and len(first) < _FIRST:
            first.append(row)
        if not whole and meter.bytes > limit_bytes:
            ended = False
            break
    bad = sift.bad_rows()
    problems = [*sift.absent_columns(), *bad]
    notes = list(source.notes)
    if bad and config.on_bad_row == "skip":
        notes.append(_left_out(bad))
    if not first and sift.first is not None:
        first.append(sift.first)
    rows, exact = min(sift.count - len(bad), config.max_rows or sift.count), True
    if not whole:
        rows, exact = _estimate(config, source, sift, meter, size, ended)
        notes.append(f"{size >> 20} MiB of data: only the first {limit_bytes >> 20} MiB were looked at")
    return Survey(files, rows, exact, tuple(sift.columns), tuple(problems), tuple(first), tuple(notes))


def _estimate(
    config: DataConfig, source: Source, sift: _Sift, meter: Meter, size: int, ended: bool
) -> tuple[int, bool]:
    """Return how many rows there will be, from the part that was read, and whether that is exact."""
    if all(format_name == "parquet" for _, format_name in source.files):
        total, exact = sum(count_rows(file, format_name) for file, format_name in source.files), not sift.bad_rows()
    else:
        exact = ended and meter.bytes >= size
        total = sift.count if exact else round(sift.count * size / max(meter.bytes, 1))
    start, stop = parse_split(config.split).bounds(total)
    share = len(sift.bad_rows()) / sift.count if sift.count else 0.0
    rows = round((stop - start) * (1 - share))
    if config.max_rows is not None and rows > config.max_rows:
        return config.max_rows, True
    return rows, exact


def _stats(source: Source) -> Iterator[tuple[Path, os.stat_result]]:
    for file, _ in source.files:
        try:
            yield file, file.stat()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error


# The hub --------------------------------------------------------------------------------------------------------------


def _hub_records(config: DataConfig) -> Iterator[Row | Problem]:
    """Yield the rows of a hub data set without decoding images or sound."""
    from olivine.data.hub import load_hub_data

    table = load_hub_data(config, config.split).dataset.with_format("arrow")
    number = 1
    for batch in table.iter(batch_size=1000):
        yield from read_table(batch, str(config.data_name), number)
        number += batch.num_rows


# Words ----------------------------------------------------------------------------------------------------------------


def _to_tell(bad: list[Problem], config: DataConfig) -> list[Problem]:
    """Return what has to be told of ``bad``: the first problems, and how many there are in all."""
    if config.on_bad_row == "skip":
        bad = [problem for problem in bad if not _is_row(problem)]
    if len(bad) == 1:
        only = bad[0]
        return [only if only.remedy or not _is_row(only) else replace(only, remedy=SKIP_REMEDY)]
    shown = bad[:SHOWN]
    if not any(map(_is_row, bad)):
        return shown
    rows = sum(map(_is_row, bad))
    count = f"{rows} bad rows in all" if len(bad) <= SHOWN else f"{rows} bad rows in all, the first {SHOWN} are named"
    return [
        *shown,
        Problem(count, Location(file=shown[-1].where.file) if shown[-1].where else None, remedy=SKIP_REMEDY),
    ]


def _is_row(problem: Problem) -> bool:
    """Whether the problem is that of one row, which may be skipped, and not of a file or a column."""
    return not isinstance(problem, Unreadable) and problem.where is not None and problem.where.line is not None


def _left_out(bad: list[Problem]) -> str:
    return f"{len(bad)} bad {'row' if len(bad) == 1 else 'rows'} left out (on_bad_row: skip), e.g. {bad[0]}"


def _no_rows(config: DataConfig, source: Source, bad: list[Problem]) -> Problem:
    where = ", ".join(str(file) for file, _ in source.files[:3]) or str(config.data_name)
    if bad:
        return Problem(f"no row is left: all {len(bad)} in {where} are bad", why=str(bad[0]))
    if not parse_split(config.split).is_whole:
        return Problem(f"the slice {config.split} holds no row of {where}", remedy="widen the slice")
    return Problem(f"the data set is empty: there is no row in {where}", remedy="check that it is the right file")


def _template_key(config: DataConfig) -> str | None:
    """Return the key to blame for a column that is not there."""
    if config.chat_template:
        return "message_col"
    if config.text_template is not None:
        return "text_template"
    if config.text_cols is not None:
        return "text_cols"
    return next((key for key in ("prompt_template", "prompt_col") if getattr(config, key) is not None), None)


def _placed(problem: Problem, where: Location | None) -> Problem:
    """Put a problem that is not in a data file at its key below ``where``."""
    if where is None or _is_row(problem) or (problem.where is not None and problem.where.file is not None):
        return problem
    key = problem.where.path if problem.where is not None else None
    path = ".".join(part for part in (where.path, key) if part) or None
    return replace(problem, where=replace(where, path=path))
