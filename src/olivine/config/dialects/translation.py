"""What a translation gathers: the new form, where each part came from, notes, and what could not be translated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from olivine.config.notes import Note
from olivine.config.parsing import KeyPath


@dataclass(frozen=True)
class Fault:
    """Something in the old form that is wrong or cannot be had; ``path`` is in the user's own terms."""

    what: str
    path: KeyPath
    why: str = ""
    remedy: str = ""


@dataclass
class Translated:
    """A configuration in its new form.

    Attributes:
        canonical: the values.
        origins: for canonical paths, the user's own, or what else made the value (see ``document.Origin``).
        notes: what was understood with a change.
        problems: what was not.
    """

    canonical: dict[str, Any]
    origins: Mapping[KeyPath, object] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    problems: list[Fault] = field(default_factory=list)
