"""What is written down about jobs in the Store's folder, before they are submitted and when they have results.

Layout, below ``azureml`` in the Store::

    jobs/NAME/record.json   which Steps the job makes, where, and whether it was submitted
    jobs/NAME/job.yaml      the job itself, as it was submitted, with the folder `code` that goes with it
    steps/DIGEST.json       the job that makes a Step or has made it
    jobs/NAME/search.json   the answer of a job that has made a whole search

A record is there before its job is. So whoever comes later, after a kill at any moment, asks the workspace for a job
of that name: if there is none it was never submitted, else it is the one.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from olivine.store.disk import disk_errors, replace_file


@dataclass(frozen=True)
class JobRecord:
    """A job as it was written down.

    Attributes:
        name: in the workspace.
        workspace: subscription, resource group and name of the workspace.
        steps: digests of the Steps that it makes, in their order.
        names: their names in the configuration.
        compute: what it runs on.
        results: address of the folder that it writes.
        created: seconds since 1970.
    """

    name: str
    workspace: tuple[str, str, str]
    steps: tuple[str, ...]
    names: tuple[str, ...]
    compute: str
    results: str
    created: float

    def step_address(self, digest: str) -> str:
        """Return the address of the files that a Step has left."""
        return f"{self.results}steps/{digest}/files"


class Records:
    """The records of jobs below a Store's folder."""

    def __init__(self, store: Path) -> None:
        self.root = store / "azureml"

    def folder(self, name: str) -> Path:
        """Return the folder of a job."""
        return self.root / "jobs" / name

    def read(self, name: str) -> JobRecord | None:
        """Return what was written down of a job, or ``None``."""
        found = _read(self.folder(name) / "record.json")
        if found is None:
            return None
        return JobRecord(**found | {key: tuple(found[key]) for key in ("workspace", "steps", "names")})

    def of_step(self, digest: str) -> JobRecord | None:
        """Return the job that makes a Step, or has made it."""
        found = _read(self.root / "steps" / f"{digest}.json")
        return self.read(found["job"]) if found is not None else None

    def write(self, record: JobRecord) -> None:
        """Write a record down, durably: the job may be submitted after that.

        Raises:
            StoreError: the disk is full, or cannot be written.
        """
        _write(self.folder(record.name) / "record.json", asdict(record))
        for digest in record.steps:
            _write(self.root / "steps" / f"{digest}.json", {"job": record.name})

    def keep_search(self, record: JobRecord, answer: dict[str, Any]) -> None:
        """Keep the answer of a search, and which Steps its job has made.

        Raises:
            StoreError: the disk is full, or cannot be written.
        """
        self.write(replace(record, steps=tuple(answer["steps"])))
        _write(self.folder(record.name) / "search.json", answer)

    def search(self, name: str) -> dict[str, Any] | None:
        """Return the answer of a search, if its job is known to have made it."""
        return _read(self.folder(name) / "search.json")

    def forget_step(self, digest: str) -> None:
        """Forget which job makes a Step."""
        (self.root / "steps" / f"{digest}.json").unlink(missing_ok=True)


def now() -> float:
    """Return the time for a record."""
    return round(time.time(), 3)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, value: dict[str, Any]) -> None:
    with disk_errors(path.parent):
        os.makedirs(path.parent, exist_ok=True)
        replace_file(path, json.dumps(value, indent=1).encode() + b"\n")
