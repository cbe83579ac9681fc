"""Where the rows of a data config come from (files, a folder that ``datasets`` saved, the hub), and which slice."""

from __future__ import annotations

import difflib
import glob
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from olivine.config.schema import DataConfig
from olivine.data.formats import FORMATS, SUFFIXES, format_of
from olivine.errors import DataError, Location, Problem

_SPLIT = re.compile(r"(?P<name>\w+(?:[.-]\w+)*)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_IN_FILES, _IN_NAME, _IN_SPLIT = (Location(path=key) for key in ("data_files", "data_name", "split"))
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Slice:
    """A split and which of its rows: ``train[10:70%]``.

    Attributes:
        name: the split.
        start: first row, or per cent; negative counts from the end; ``None`` is the beginning.
        stop: the row after the last, or per cent; ``None`` is the end.
        percent: whether ``start`` and ``stop`` are per cent of the rows, rounded to the nearest row.
    """

    name: str
    start: int | None = None
    stop: int | None = None
    percent: bool = False

    @property
    def needs_total(self) -> bool:
        """Whether the number of rows has to be known to say which rows are meant."""
        return self.percent or (self.start or 0) < 0 or (self.stop or 0) < 0

    @property
    def is_whole(self) -> bool:
        """Whether all rows are meant."""
        return self.start is None and self.stop is None

    def bounds(self, total: int) -> tuple[int, int]:
        """Return the first row and the row after the last, of ``total``."""
        start, stop = self.start, self.stop
        if self.percent:
            start = None if start is None else round(start * total / 100)
            stop = None if stop is None else round(stop * total / 100)
        chosen = range(*slice(start, stop).indices(total))
        return chosen.start, max(chosen.start, chosen.stop)


@dataclass(frozen=True)
class Source:
    """Where rows come from.

    Attributes:
        kind: ``files``, ``saved`` (a folder written by ``datasets``' ``save_to_disk``) or ``hub``.
        files: what is to be read, with the format of each; empty for the hub.
        notes: what the user may not expect.
    """

    kind: Literal["files", "saved", "hub"]
    files: tuple[tuple[Path, str], ...] = ()
    notes: tuple[str, ...] = ()


def parse_split(split: str) -> Slice:
    """Parse ``train``, ``train[:70%]``, ``train[10:200]``, ``train[-10%:]``.

    As in ``datasets``, a per cent sign on either bound makes both of them per cent.

    Raises:
        DataError: it is none of these.
    """
    match = _SPLIT.fullmatch(split.replace(" ", ""))
    if match is None:
        raise DataError(
            f"{split!r} is no split",
            where=_IN_SPLIT,
            remedy="write the split's name and, if you like, a slice: train[:70%], train[100:]",
        )
    bounds = (match["start"], match["stop"])
    percent = any(bound is not None and bound.endswith("%") for bound in bounds)
    start, stop = (None if bound is None else int(bound.rstrip("%")) for bound in bounds)
    if percent and any(bound is not None and abs(bound) > 100 for bound in (start, stop)):
        raise DataError(f"{split!r} asks for more than 100 %", where=_IN_SPLIT)
    return Slice(match["name"], start, stop, percent)


def find_source(config: DataConfig) -> Source:
    """Return where the rows of ``config`` are. Looks at names of files only; the network is not used.

    Raises:
        DataError: the files, the folder, or the split are not there, or their format cannot be told.
    """
    name = config.data_name
    if name is None or name in FORMATS:
        return _files(config)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _saved(folder, config)
    if folder.is_file():
        raise DataError(
            f"data_name is the file {name}, but it names a format, a saved data set, or a hub data set",
            remedy=f"put it into data_files: {name}",
        )
    if folder.is_absolute() or name.startswith((".", "~")) or not _HUB_ID.fullmatch(name):
        raise DataError(f"there is no folder {name}", where=_IN_NAME, remedy=_nearest_remedy(folder))
    close = difflib.get_close_matches(name.lower(), [*FORMATS, *(suffix[1:] for suffix in SUFFIXES)], 1, 0.6)
    if close and "/" not in name:
        known = close[0] if close[0] in FORMATS else SUFFIXES["." + close[0]]
        raise DataError(
            f"there is no format {name!r}; the formats are {', '.join(FORMATS)}",
            where=_IN_NAME,
            remedy=f"did you mean {known!r}? It may be left out: the suffix tells it",
        )
    return Source("hub")


def data_files(config: DataConfig) -> list[Path]:
    """Return the local files that ``config`` names, in the order given, those of a glob sorted.

    Empty for a saved data set's folder and for the hub.

    Raises:
        DataError: something that it names is not there; says the nearest existing name.
    """
    source = find_source(config)
    return [file for file, _ in source.files] if source.kind == "files" else []


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that ``name`` was likely meant to be."""
    by_folded = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), by_folded, 1, 0.6)
    return by_folded[close[0]] if close else None


def _files(config: DataConfig) -> Source:
    patterns = [config.data_files] if isinstance(config.data_files, str) else config.data_files
    if not patterns:
        raise DataError(
            "the data config names no data",
            remedy="set data_files (a path, a glob, or a list), or data_name (a saved data set's folder or a hub id)",
        )
    problems: list[Problem] = []
    found: dict[Path, str] = {}
    for pattern in patterns:
        matches = _match(pattern)
        if isinstance(matches, Problem):
            problems.append(matches)
            continue
        for file in matches:
            told = format_of(file)
            # data_name decides, as it may be right where a suffix is not (rows.txt that holds JSON Lines).
            format_name = config.data_name or told
            if format_name is None:
                problems.append(
                    Problem(
                        f"the format of {file} cannot be told from its name",
                        remedy=f"set data_name to one of {', '.join(FORMATS)}",
                    )
                )
            else:
                found[file] = format_name
    if problems:
        raise DataError(problems)
    split = parse_split(config.split)
    notes = []
    if split.name != "train":
        rows = "all rows of the files are used" if split.is_whole else "only its slice is applied to the files"
        notes.append(f"split {split.name!r}: files have no splits, so {rows}")
    for key in ("subset", "data_dir", "revision"):
        if getattr(config, key) is not None:
            notes.append(f"{key} is for data sets on the hub; it has no effect on files")
    return Source("files", tuple(found.items()), tuple(notes))


def _match(pattern: str) -> list[Path] | Problem:
    if "://" in pattern:
        return Problem(f"{pattern} is not on this machine", _IN_FILES, remedy="download it first")
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        suffix = next((file.suffix for file in sorted(path.iterdir()) if format_of(file)), ".jsonl")
        return Problem(
            f"{pattern} is a folder",
            _IN_FILES,
            remedy=f"name its files, e.g. {path / ('*' + suffix)}"
            + ("; a data set saved there goes into data_name" if _is_saved(path) else ""),
        )
    if _MAGIC.search(pattern):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        files = [match for match in matches if match.is_file()]
        return files or Problem(f"no file matches {pattern}", _IN_FILES, remedy=_nearest_remedy(path))
    return Problem(f"there is no file {pattern}", _IN_FILES, remedy=_nearest_remedy(path))


def _nearest_remedy(path: Path) -> str:
    """Say what is there instead of ``path``: the nearest name beside it, or how far the folders exist."""
    for folder in path.parents:
        if folder.is_dir():
            name = path.relative_to(folder).parts[0]
            try:
                close = nearest(name, os.listdir(folder))
            except OSError:
                close = None
            if close is not None and close != name:
                return f"did you mean {folder / close}?"
            if folder != path.parent:
                return f"there is no {name} in {folder.resolve()}"
            break
    return f"put it there or correct the path; it was looked for in {path.parent.resolve()}"


def _is_saved(folder: Path) -> bool:
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def _saved(folder: Path, config: DataConfig) -> Source:
    """Find the Arrow files of a data set saved by ``datasets``: ``state.json`` lists them, a folder for each split."""
    if not _is_saved(folder):
        raise DataError(
            f"{folder} is no data set that datasets' save_to_disk wrote",
            where=_IN_NAME,
            why="its state.json or dataset_dict.json is missing",
            remedy=f"name the files instead: data_files: {folder / '*.jsonl'}",
        )
    split = parse_split(config.split)
    notes = []
    try:
        if (folder / "dataset_dict.json").is_file():
            splits = json.loads((folder / "dataset_dict.json").read_text("utf-8"))["splits"]
            if split.name not in splits:
                close = nearest(split.name, splits)
                raise DataError(
                    f"{folder} has no split {split.name!r}; it has {', '.join(splits)}",
                    where=_IN_SPLIT,
                    remedy=f"did you mean {close!r}?" if close else "",
                )
            folder = folder / split.name
        elif split.name != "train":
            notes.append(f"split {split.name!r}: {folder} holds a single data set, so only a slice is applied to it")
        state = json.loads((folder / "state.json").read_text("utf-8"))
        files = [folder / entry["filename"] for entry in state["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the data set in {folder} is damaged: {error}", where=_IN_NAME, remedy="save it again"
        ) from error
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(f"the data set in {folder} is not whole: {missing[0].name} is missing", where=_IN_NAME)
    return Source("saved", tuple((file, "arrow") for file in files), tuple(notes))
