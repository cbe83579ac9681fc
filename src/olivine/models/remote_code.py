"""Python code that comes with a model: what of it there is, so that a plan can show what would run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def describe_code(folder: Path) -> str:
    """Return the names of the Python files in ``folder`` and a digest over them, in one line.

    The digest is the first 16 hexadecimal digits of SHA-256 over names and contents.
    """
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.py") if file.is_file()}
    if not files:
        return "none is in the folder, so what config.json names cannot be loaded"
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return f"{', '.join(sorted(files))} (sha256 {digest.hexdigest()[:16]})"


def code_elsewhere(config: Mapping[str, Any]) -> list[str]:
    """Return the classes that a ``config.json`` takes from other repositories (``org/name--module.Class``), sorted."""
    found: set[str] = set()
    waiting: list[Any] = [config.get("auto_map")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and "--" in value:
            found.add(value)
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return sorted(found)
