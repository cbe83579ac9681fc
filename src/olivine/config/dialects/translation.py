"""What a translation gathers: the new form, where each part came from, notes, and what could not be translated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from olivine.config.notes import Note
from olivine.config.parsing import KeyPath
from olivine.config.wording import suggestion


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
        origins: for canonical paths, the user's own.
        notes: what was understood with a change.
        problems: what was not.
    """

    canonical: dict[str, Any]
    origins: dict[KeyPath, KeyPath] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    problems: list[Fault] = field(default_factory=list)

    def put(self, path: KeyPath, value: Any, origin: KeyPath | None = None) -> None:
        """Set a value of the canonical form, making the objects above it."""
        node: Any = self.canonical
        for part in path[:-1]:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        node[path[-1]] = value
        if origin is not None:
            self.origins[path] = origin

    def note(self, path: KeyPath, text: str) -> None:
        """Tell the user something about a key."""
        self.notes.append(Note(".".join(str(part) for part in path), text))

    def fault(self, path: KeyPath, what: str, why: str = "", remedy: str = "") -> None:
        """Record that a key cannot be translated."""
        self.problems.append(Fault(what, path, why, remedy))


class Old:
    """An object of the old form that is read key by key, so that what nobody asked for can be named at the end.

    Args:
        value: the object; anything else counts as empty and is recorded as a fault.
        path: its path.
        into: receives faults.
    """

    def __init__(self, value: Any, path: KeyPath, into: Translated) -> None:
        self.path = path
        self.into = into
        if value is not None and not isinstance(value, dict):
            into.fault(path, f"`{path[-1]}` must be an object")
        self._values: dict[str, Any] = dict(value) if isinstance(value, dict) else {}
        self._asked: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def at(self, key: str) -> KeyPath:
        """Return the path of a key."""
        return (*self.path, key)

    def take(self, key: str, default: Any = None) -> Any:
        """Return a value and count its key as read; ``null`` is as good as nothing."""
        self._asked.append(key)
        value = self._values.pop(key, None)
        return default if value is None else value

    def take_if(self, key: str) -> Iterator[tuple[Any, KeyPath]]:
        """Yield the value and its path if the key is there and not ``null``."""
        self._asked.append(key)
        value = self._values.pop(key, None)
        if value is not None:
            yield value, self.at(key)

    def child(self, key: str) -> Old:
        """Return the object below a key."""
        return Old(self.take(key), self.at(key), self.into)

    def ignore(self, key: str, why: str) -> None:
        """Count a key as read that has no effect here, and say why if it was given."""
        self._asked.append(key)
        if key in self._values:
            self._values.pop(key)
            self.into.note(self.at(key), f"has no effect: {why}")

    def merged_with(self, other: Old) -> Iterator[tuple[str, Any, KeyPath]]:
        """Yield all that is left of this and the other object; this one goes first."""
        for key, value in list(self._values.items()):
            yield key, value, self.at(key)
        for key, value in list(other._values.items()):
            if key not in self._values:
                yield key, value, other.at(key)

    def rest(self) -> dict[str, Any]:
        """Return what was not asked for, and count it as read."""
        left, self._values = self._values, {}
        return left

    def finish(self, what: str) -> None:
        """Record every key that nobody asked for as unknown."""
        for key in self._values:
            self.into.fault(self.at(key), f"`{key}` is not a key of {what}", remedy=suggestion(key, self._asked))
