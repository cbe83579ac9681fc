"""Find the record of a run: in the run's folder, or in the report of an output folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from olivine.engine.record import RECORD, VERSION
from olivine.errors import ConfigError

REPORT = "report.html"
_EMBEDDED = re.compile(r'<script type="application/json" id="record">(.*?)</script>', re.DOTALL)


def read_record(path: Path, cache: Path | None = None) -> dict[str, Any]:
    """Return the record of a run.

    Args:
        path: an output folder, a run's folder, its name, a ``report.html`` or a ``record.json``.
        cache: the Store in whose ``runs`` a name is looked up.

    Raises:
        ConfigError: there is no record, or it is none that this release reads.
    """
    for place in (path, *([cache / "runs" / path] if cache is not None and not path.is_absolute() else [])):
        if place.is_file():
            return _checked(_read(place), place)
        for name in (RECORD, REPORT):
            if (place / name).is_file():
                return _checked(_read(place / name), place / name)
    raise ConfigError(
        f"there is no record of a run in {path}",
        why="no record.json and no report.html is there",
        remedy="give an output folder, or a folder in the cache's runs; a run that is made again writes both",
    )


def _read(file: Path) -> Any:
    try:
        content = file.read_text(encoding="utf-8")
        if file.suffix == ".html":
            found = _EMBEDDED.search(content)
            if found is None:
                raise ConfigError(
                    f"{file} is not a report of Olivine", remedy="give the report.html of an output folder"
                )
            content = found[1]
        return json.loads(content)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as a record: {error}") from None


def _checked(record: Any, file: Path) -> dict[str, Any]:
    if isinstance(record, list):
        raise ConfigError(f"{file} compares several runs", remedy="give the output folder of one")
    if not isinstance(record, dict) or record.get("record") != VERSION:
        written = record.get("olivine", "another") if isinstance(record, dict) else "another"
        raise ConfigError(
            f"{file} holds no record that this release reads",
            why=f"it was written by {written}",
            remedy="run the workflow again; what is in the cache is not made anew",
        )
    return record
