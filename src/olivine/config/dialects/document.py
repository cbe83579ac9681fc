"""A configuration on its way through the chain: plain values of which every one remembers where the user wrote it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from olivine.config.dialects.translation import Fault
from olivine.config.notes import Note
from olivine.config.parsing import KeyPath


class Filled:
    """Marks a value that no user wrote: the default of an old release, written out."""


FILLED = Filled()

Origin = KeyPath | Filled | None
"""The user's path of a value; ``FILLED`` for an old default; ``None`` if a translation made it of several values."""


class Section(dict[str, Any]):
    """An object, and the origin of each of its keys.

    Attributes:
        origin: where the object itself stands in the user's file.
        origins: where the value of each key stands there.
    """

    def __init__(self, origin: Origin = None) -> None:
        super().__init__()
        self.origin = origin
        self.origins: dict[str, Origin] = {}

    def at(self, key: str) -> KeyPath:
        """Return the user's path of a key, or of the nearest object above it that the user wrote."""
        found = self.origins.get(key)
        if isinstance(found, tuple):
            return found
        return (*self.origin, key) if isinstance(self.origin, tuple) else (key,)

    def put(self, key: str, value: Any, origin: Origin = None) -> None:
        """Set a key to a value that stands at ``origin`` in the user's file."""
        self[key] = value
        self.origins[key] = origin

    def fill(self, key: str, value: Any) -> None:
        """Write out an old default, unless the user gave a value (``null`` counts as none given)."""
        if self.get(key) is None:
            self.put(key, value, FILLED)

    def take(self, key: str) -> tuple[Any, Origin]:
        """Remove a key and return its value and origin; ``(None, None)`` if it is not there."""
        return self.pop(key, None), self.origins.pop(key, None)

    def rename(self, old: str, new: str) -> None:
        """Give a key another name, in its place; a key already called ``new`` is not overwritten."""
        if old not in self or new in self:
            return
        items = [(new if key == old else key, value, self.origins.get(key)) for key, value in self.items()]
        self.clear()
        self.origins.clear()
        for key, value, origin in items:
            self.put(key, value, origin)

    def move(self, key: str, to: Section, new: str | None = None) -> None:
        """Move a key into another object, if it is here; what is there already stays."""
        if key in self:
            value, origin = self.take(key)
            if to.get(new or key) is None:
                to.put(new or key, value, origin)

    def section(self, key: str) -> Section:
        """Return the object below a key, making an empty one (not inserted) if there is none or it is no object."""
        found = self.get(key)
        return found if isinstance(found, Section) else Section(self.at(key))


class Entries(list[Any]):
    """A list, and the origin of each of its items."""

    def __init__(self, origin: Origin = None) -> None:
        super().__init__()
        self.origin = origin
        self.origins: list[Origin] = []

    def add(self, value: Any, origin: Origin = None) -> None:
        """Append an item."""
        self.append(value)
        self.origins.append(origin)


@dataclass
class Document:
    """What the chain works on, one break after the other.

    Attributes:
        root: the values as they are at this point of the chain.
        dialect: the dialect that the file is written in; a break asks it which old defaults apply.
        notes: what was understood with a change, or has no effect here and why.
        faults: what cannot be translated.
    """

    root: Section
    dialect: str
    notes: list[Note] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def note(self, path: KeyPath, text: str) -> None:
        """Tell the user something about a key of the file."""
        self.notes.append(Note(".".join(str(part) for part in path), text))

    def fault(self, path: KeyPath, what: str, why: str = "", remedy: str = "") -> None:
        """Record that a key of the file cannot be translated."""
        self.faults.append(Fault(what, path, why, remedy))

    def without_effect(self, section: Section, key: str, why: str) -> None:
        """Remove a key that is known but does nothing here, and say why."""
        if key in section:
            path = section.at(key)
            section.take(key)
            self.note(path, f"has no effect: {why}")

    def passes(self) -> Iterator[tuple[str, Section]]:
        """Yield every pass by name; of a list of alternatives, each."""
        for name, value in list(self.root.section("passes").items()):
            for each in value if isinstance(value, Entries) else [value]:
                if isinstance(each, Section):
                    yield name, each


Break = Callable[[Document], None]
"""One break of the format: rewrites a document of the form before it into the form after it, in place."""


def wrap(value: Any, origin: KeyPath = ()) -> Any:
    """Return plain values as sections and entries that know their place."""
    if isinstance(value, dict):
        section = Section(origin)
        for key, item in value.items():
            section.put(str(key), wrap(item, (*origin, str(key))), (*origin, str(key)))
        return section
    if isinstance(value, list):
        entries = Entries(origin)
        for index, item in enumerate(value):
            entries.add(wrap(item, (*origin, index)), (*origin, index))
        return entries
    return value


def unwrap(value: Any) -> Any:
    """Return sections and entries as plain dictionaries and lists."""
    if isinstance(value, dict):
        return {key: unwrap(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unwrap(item) for item in value]
    return value


def origins(value: Any, path: KeyPath = ()) -> dict[KeyPath, Origin]:
    """Return the origin of every value by its path now; for ``config show`` and for the lines in messages."""
    found: dict[KeyPath, Origin] = {}
    pairs: list[tuple[str | int, Any, Origin]] = []
    if isinstance(value, Section):
        pairs = [(key, item, value.origins.get(key)) for key, item in value.items()]
    elif isinstance(value, Entries):
        pairs = [
            (index, item, value.origins[index] if index < len(value.origins) else None)
            for index, item in enumerate(value)
        ]
    for key, item, origin in pairs:
        found[(*path, key)] = origin
        found |= origins(item, (*path, key))
    return found
