"""Python code that comes with a model: what of it there is, so that a plan can show what would run."""

from __future__ import annotations

import hashlib
from pathlib import Path


def describe_code(folder: Path) -> str:
    """Return the names of the Python files in ``folder`` and a digest over them, in one line.

    The digest is the first 16 hexadecimal digits of SHA-256 over names and contents.
    """
    files = sorted(folder.glob("*.py"))
    if not files:
        return "none is in the folder; the hub's cache would be asked for what config.json names"
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return f"{', '.join(file.name for file in files)} (sha256 {digest.hexdigest()[:16]})"
