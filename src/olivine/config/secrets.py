"""Secrets do not belong in a configuration: it is copied into caches, outputs, reports and repositories."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from olivine.config.parsing import KeyPath
from olivine.redaction import TOKENS

_TELLING_KEY = re.compile(
    r"(^|_)(token|password|passwd|secret|api_?key|account_?key|connection_?string)$", re.IGNORECASE
)
_REFERENCE = re.compile(r"^\$\{?env:?|^\$\{")


def find_secrets(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the place of every value that looks like a secret. The value itself goes nowhere."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from find_secrets(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from find_secrets(item, (*path, index))
    elif isinstance(value, str):
        named = path[-2:] == ("hf_token", "secret")  # the name of a secret in a key vault
        telling = (
            not named and path and isinstance(path[-1], str) and _TELLING_KEY.search(path[-1]) and len(value) >= 12
        )
        if TOKENS.search(value) or (telling and not _REFERENCE.match(value) and " " not in value):
            yield path
