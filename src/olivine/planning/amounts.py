"""Amounts of bytes as people write and read them in configurations, plans and refusals."""

from __future__ import annotations

import re

from olivine.errors import ConfigError, Location

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", re.IGNORECASE)


def gigabytes(count: float) -> str:
    """Return bytes as people read them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def memory_limit(given: int | str | None, where: Location | None = None) -> int | None:
    """Return a size such as ``12GB`` or ``8GiB`` in bytes.

    Raises:
        ConfigError: it is none.
    """
    if given is None:
        return None
    match = _SIZE.fullmatch(str(given))
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"{given!r} is no size", where=where, remedy="write it like 12GB, 8GiB or 500MB")
    step = 1024 if match[3] else 1000
    return int(float(match[1]) * step ** ("KMGT".find(match[2].upper()) + 1 if match[2] else 0))
