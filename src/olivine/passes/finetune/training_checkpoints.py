"""Checkpoints to resume training from: only those that were written whole count, and a mark says which these are.

A kill can leave a folder with half of its files, or files with half of their bytes. So the mark is written last, after
everything else has reached the disk; a folder without it is removed, never read.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

MARK = "complete.json"
_PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Saved:
    """A whole checkpoint.

    Attributes:
        path: its folder.
        step: optimiser steps done.
        tokens: tokens trained on so far.
        seconds: time spent training so far.
    """

    path: Path
    step: int
    tokens: int
    seconds: float


def newest(folder: Path) -> Saved | None:
    """Return the last whole checkpoint in ``folder``, and remove what a kill left half-written."""
    found = []
    for path in folder.glob(f"{_PREFIX}*"):
        try:
            mark = json.loads((path / MARK).read_text())
            found.append(Saved(path, mark["step"], mark["tokens"], mark["seconds"]))
        except (OSError, ValueError, KeyError):
            shutil.rmtree(path, ignore_errors=True)
    return max(found, key=lambda saved: saved.step, default=None)


def mark_complete(saved: Saved) -> None:
    """Write everything in the checkpoint through to the disk, and then its mark."""
    for file in saved.path.iterdir():
        _write_through(file)
    _write_through(saved.path)
    draft = saved.path / f"{MARK}.draft"
    draft.write_text(json.dumps({"step": saved.step, "tokens": saved.tokens, "seconds": saved.seconds}))
    _write_through(draft)
    draft.rename(saved.path / MARK)
    _write_through(saved.path)
    _write_through(saved.path.parent)


def remove_others(folder: Path, keep: Collection[Path]) -> None:
    """Remove all checkpoints in ``folder`` but ``keep``, marks first, so that no half-removed one is trusted."""
    for path in folder.glob(f"{_PREFIX}*"):
        if path not in keep:
            (path / MARK).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def _write_through(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and orders such writes itself
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
