"""Amounts of bytes as people write and read them, in configurations, plans, refusals and results."""

from __future__ import annotations

import re

from olivine.errors import ConfigError, Location

_UNITS = {letter: power for power, letter in enumerate(("", "K", "M", "G", "T"))}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?")


def size_in_words(count: float) -> str:
    """Return bytes as files are measured, in powers of ten: ``5.3 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def gigabytes(count: float) -> str:
    """Return bytes of memory or disk, of which nobody needs to know more than so: ``649 MB``, ``25.3 GB``."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def parse_size(text: str) -> int:
    """Read ``20GB`` (powers of ten) or ``20GiB`` (powers of two) as bytes.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip().upper())
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"{text!r} is no size; write it as 500MB, 20GB or 20GiB")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2]])


def memory_limit(given: int | str | None, where: Location | None = None) -> int | None:
    """Return a size above nothing, such as ``12GB`` or ``8GiB``, in bytes.

    Raises:
        ConfigError: it is none.
    """
    if given is None:
        return None
    try:
        found = parse_size(str(given))
    except ValueError:
        found = 0
    if found <= 0:
        raise ConfigError(f"{given!r} is no size", where=where, remedy="write it like 12GB, 8GiB or 500MB")
    return found
