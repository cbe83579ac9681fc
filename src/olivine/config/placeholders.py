"""Fields of a template that nobody has filled in: ``<place_holder>``, ``{USER_SCRIPT}``, ``${NAME}``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from olivine.config.parsing import KeyPath

_FIELD = re.compile(r"<{1,2}[A-Za-z][^<>]*>{1,2}|\{{1,2}[A-Za-z_]\w*\}{1,2}|\$\{[A-Za-z_]\w*\}")
_TEMPLATES = re.compile(r"(_template|_format)$")
"""Keys whose values are templates by their nature."""


def is_placeholder(value: Any) -> bool:
    """Return whether a value is a field that nobody has filled in, and nothing else."""
    return isinstance(value, str) and len(value) < 200 and _FIELD.fullmatch(value.strip()) is not None


def find_placeholders(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Yield every field that nobody has filled in, with its path; templates of prompts are none."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from find_placeholders(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from find_placeholders(item, (*path, index))
    elif is_placeholder(value) and not any(isinstance(part, str) and _TEMPLATES.search(part) for part in path):
        yield path, value
