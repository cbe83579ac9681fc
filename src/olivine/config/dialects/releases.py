"""The dialects by name and age."""

from __future__ import annotations

import re

from olivine.errors import ConfigError

CANONICAL = "olivine-1"

OLIVE = ("0.2", "0.3", "0.4", "0.5", "0.5.1", "0.6", "0.6.2", "0.7", "0.8", "0.9", "0.10")
"""The dialects of Olive, oldest first; each is called after the first release that reads it."""

KNOWN = (*OLIVE, CANONICAL)

_BEGINS = {"0.9": (0, 9, 3)}
"""Dialects that begin later than their names say: what 0.9.0 to 0.9.2 read is what 0.8 read."""

_VERSION = re.compile(r"(?:olive-)?v?(\d{1,4}(?:\.\d{1,4}){1,3})")


def age(dialect: str) -> int:
    """Return the place of a dialect in the order of time."""
    return KNOWN.index(dialect)


def named(name: str) -> str:
    """Return the dialect that a name or a full version of Olive means (``0.6.1`` reads ``0.6``).

    Raises:
        ConfigError: there is none.
    """
    if name in KNOWN:
        return name
    match = _VERSION.fullmatch(name.strip().lower())
    if match is not None:
        asked = _numbers(match.group(1))
        found = [each for each in OLIVE if _BEGINS.get(each, _numbers(each)) <= asked]
        if found:
            return found[-1]
    raise ConfigError(f"there is no dialect {name!r}", remedy=f"the dialects are {', '.join(KNOWN)}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
