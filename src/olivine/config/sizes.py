"""Sizes as people write them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def size_in_words(count: float) -> str:
    """Return bytes as files are measured, in powers of ten: ``5.3 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


def parse_size(text: str) -> int:
    """Read ``20GB`` (powers of ten) or ``20GiB`` (powers of two) as bytes.

    Raises:
        ValueError: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B|)", text.strip().upper())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is no size; write it as 500MB, 20GB or 20GiB")
    return int(float(match[1]) * _UNITS[match[2]])
