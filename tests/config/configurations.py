"""The configurations that tests run over: a set of our own, one of each kind and release, and any that lie near."""

from __future__ import annotations

import os
from pathlib import Path

OURS = Path(__file__).parent / "samples"
NEAR = Path(os.environ.get("OLIVINE_CONFIGS", Path(__file__).parents[3] / "shared" / "configs"))
"""A folder with configurations of Olive's own examples, if there is one."""


def ours() -> list[Path]:
    """Return our own configurations."""
    return sorted(OURS.rglob("*.json"))


def near() -> list[Path]:
    """Return the configurations in the folder near by; none if it is not there."""
    return sorted(NEAR.rglob("*.json")) if NEAR.is_dir() else []
