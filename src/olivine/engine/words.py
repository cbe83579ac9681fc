"""How numbers are written for people."""

from __future__ import annotations

import math

from olivine.config.sizes import gigabytes
from olivine.config.sizes import size_in_words as size

__all__ = ["duration", "memory", "number", "size"]


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3 min 20 s``, ``1 h 05 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def memory(count: float) -> str:
    """Bytes of memory as plans say them: ``1.2 GB``; empty if unknown."""
    return gigabytes(count) if count else ""


def number(value: float) -> str:
    """A measured value with four significant digits, whole numbers whole; ``nan`` and ``inf`` as they are."""
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, int) or (value == int(value) and abs(value) >= 100):
        return f"{int(value):,}" if abs(value) >= 10_000 else f"{int(value)}"
    return f"{value:.4g}"
