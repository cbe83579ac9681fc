"""One thing that was looked at, and how it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How something is."""

    OK = "ok"
    ABSENT = "absent"
    """It is not here, and nothing is wrong with that."""
    WARNING = "warning"
    """It works, or may; something about it will hurt."""
    PROBLEM = "problem"
    """What needs it fails."""


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        section: what it belongs to (``packages``).
        subject: what was looked at (``onnxruntime``).
        state: how it is.
        text: what was seen, without a final full stop.
        remedy: what to do, one line; empty if there is nothing to do.
    """

    section: str
    subject: str
    state: State
    text: str
    remedy: str = ""
