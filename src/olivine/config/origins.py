"""Where a value of the effective workflow comes from: the file, ``--set``, an old release's default, or ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from olivine.config import dialects
from olivine.config.dialects.document import FILLED
from olivine.config.parsing import KeyPath
from olivine.errors import Location

if TYPE_CHECKING:
    from olivine.config.loading import Loaded


class Kind(StrEnum):
    """Who gave a value."""

    FILE = "file"
    """It stands in the file, or was translated from what stands there."""
    OVERRIDE = "override"
    """``--set`` gave it."""
    DIALECT = "dialect default"
    """Nobody wrote it; it is what the release that the file was written for took."""
    DEFAULT = "default"
    """Nobody wrote it; it is what Olivine takes."""


@dataclass(frozen=True)
class ValueOrigin:
    """Where a value comes from.

    Attributes:
        kind: who gave it.
        location: its place in the user's file, for what stands there.
        text: the same for people (``line 12``).
    """

    kind: Kind
    location: Location | None
    text: str

    def __str__(self) -> str:
        return self.text


def origin_of(loaded: Loaded, path: KeyPath) -> ValueOrigin:
    """Return where the value at ``path`` in the canonical form comes from."""
    places = loaded.places
    if not _present(places.canonical, path):
        return ValueOrigin(Kind.DEFAULT, None, "default")
    old = loaded.dialect != dialects.CANONICAL
    if old and not written(loaded, path):
        return ValueOrigin(Kind.DIALECT, None, f"default of Olive {loaded.dialect}")
    location = places.locate(path)
    if location.file == "--set":
        return ValueOrigin(Kind.OVERRIDE, location, "--set")
    return ValueOrigin(Kind.FILE, location, f"line {location.line}" if location.line is not None else "given")


def written(loaded: Loaded, path: KeyPath) -> bool:
    """Return whether a value of the translated form stands in the user's file, itself or as part of something."""
    origins: Mapping[KeyPath, object] = loaded.places.origins
    found = next((origins[path[:length]] for length in range(len(path), 0, -1) if path[:length] in origins), FILLED)
    return found is not FILLED


def _present(value: Any, path: KeyPath) -> bool:
    """Return whether there is something at a path; parameters may still be gathered in ``params``."""
    for part in path:
        if isinstance(value, dict):
            inner = value.get("params")
            if part in value:
                value = value[part]
            elif isinstance(inner, dict) and part in inner:
                value = inner[part]
            else:
                return False
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return False
    return True
