"""``${env:NAME}``: a text that stands in the environment and not in the configuration, such as a secret.

What is kept of the configuration (``workflow.yaml``, ``olivine config show``) has the reference; what runs has the
value, which is taken out of everything that is written (:mod:`olivine.redaction`).
"""

from __future__ import annotations

import os
import re
from typing import Any

from olivine.config.parsing import KeyPath
from olivine.redaction import remember

_REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_LOOKS_LIKE_A_PATH = re.compile(r"[/.~]|[A-Za-z]:[\\/]")


def has_references(value: Any) -> bool:
    """Return whether a text anywhere in ``value`` refers to the environment."""
    if isinstance(value, dict):
        return any(map(has_references, value.values()))
    if isinstance(value, list):
        return any(map(has_references, value))
    return isinstance(value, str) and _REFERENCE.search(value) is not None


def resolve_references(value: Any, path: KeyPath = ()) -> tuple[Any, list[tuple[KeyPath, str]]]:
    """Return ``value`` with every reference replaced, and the places of those whose variable is not set.

    A value that is no path is from now on taken out of everything that is shown or written.
    """
    if isinstance(value, dict):
        items = {key: resolve_references(item, (*path, str(key))) for key, item in value.items()}
        return {key: item for key, (item, _) in items.items()}, [each for _, more in items.values() for each in more]
    if isinstance(value, list):
        listed = [resolve_references(item, (*path, index)) for index, item in enumerate(value)]
        return [item for item, _ in listed], [each for _, more in listed for each in more]
    if not isinstance(value, str):
        return value, []
    missing = [(path, name) for name in _REFERENCE.findall(value) if name not in os.environ]

    def insert(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], "")
        if not _LOOKS_LIKE_A_PATH.match(found):
            remember(found, match[0])
        return found

    return _REFERENCE.sub(insert, value), missing
