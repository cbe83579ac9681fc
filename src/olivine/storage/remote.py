"""What an address leads to: its files, each with a name below it and what its origin says of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from olivine.storage.transfer import Facts, RemoteFile
from olivine.store.digests import digest_json

MAGIC = re.compile(r"[*?\[]")
"""What makes a path a pattern."""


@dataclass(frozen=True)
class Entry:
    """One file of those that an address leads to.

    Attributes:
        name: relative, with ``/``; for an address of a single file its own name.
        file: to be fetched.
        facts: what the origin says of it.
    """

    name: str
    file: RemoteFile
    facts: Facts


def version_of(entries: Iterable[Entry]) -> str:
    """Return a digest over the names, sizes and versions of files: another one when one of them is changed."""
    return digest_json(sorted([each.name, each.facts.size, each.facts.version or ""] for each in entries))


def split_pattern(path: str) -> tuple[str, str]:
    """Return the folder before the first part of a path that is a pattern, and the rest; the rest is empty for none."""
    parts = path.split("/")
    for index, part in enumerate(parts):
        if MAGIC.search(part):
            return "/".join(parts[:index]), "/".join(parts[index:])
    return path, ""


def matching(pattern: str) -> re.Pattern[str]:
    """Return a pattern as a regular expression: ``*`` and ``?`` stay within a folder, ``**`` does not."""
    parts = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if pattern.startswith("**/", position):
            parts.append("(?:.*/)?")
            position += 3
        elif pattern.startswith("**", position):
            parts.append(".*")
            position += 2
        elif character == "[" and "]" in pattern[position + 2 :]:
            end = pattern.index("]", position + 2)
            inside = pattern[position + 1 : end]
            negated = inside.startswith("!")
            parts.append(f"[{'^' if negated else ''}{re.escape(inside[negated:]).replace(chr(92) + '-', '-')}]")
            position = end + 1
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(character, re.escape(character)))
            position += 1
    return re.compile("".join(parts))
