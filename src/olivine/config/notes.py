"""What the reading of a configuration has to tell that is no error."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """One thing that was understood with a change.

    Attributes:
        path: the key as the user wrote it.
        text: what was made of it.
        line: its line in the file, if known.
    """

    path: str
    text: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.path} (line {self.line})" if self.line is not None else self.path
        return f"{place}: {self.text}"
