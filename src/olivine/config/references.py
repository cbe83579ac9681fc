"""``${env:NAME}`` and ``${keyvault:VAULT/SECRET}``: a text that stands elsewhere, such as a secret.

What is kept of the configuration (``workflow.yaml``, ``olivine config show``) has the reference; what runs has the
value, which is taken out of everything that is written (:mod:`olivine.redaction`). The environment is read with the
configuration; a key vault is asked when a plan or a run uses it (:mod:`olivine.storage.vault`).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olivine.config.parsing import KeyPath
from olivine.redaction import remember

_REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_IN_VAULT = re.compile(r"\$\{keyvault:(?P<vault>[^{}\s]+)/(?P<secret>[0-9A-Za-z-]+)\}")
_OPENING = "${keyvault:"
_LOOKS_LIKE_A_PATH = re.compile(r"[/.~]|[A-Za-z]:[\\/]")


def has_references(value: Any) -> bool:
    """Return whether a text anywhere in ``value`` refers to the environment."""
    if isinstance(value, dict):
        return any(map(has_references, value.values()))
    if isinstance(value, list):
        return any(map(has_references, value))
    return isinstance(value, str) and _REFERENCE.search(value) is not None


class References:
    """Puts values of the environment in place of references, and notes those that cannot or must not be.

    A value that is no path is from now on taken out of everything that is shown or written.

    Attributes:
        missing: places and names of variables that are not set.
        exposed: places and names of variables that would be sent where the configuration says: a part of an address.
            A whole address in a variable is the user's own; beside a host that somebody else wrote, a secret of this
            machine is what they are after.
    """

    def __init__(self) -> None:
        self.missing: list[tuple[KeyPath, str]] = []
        self.exposed: list[tuple[KeyPath, str]] = []

    def resolved(self, value: Any, path: KeyPath = ()) -> Any:
        """Return ``value`` with every reference replaced."""
        if isinstance(value, dict):
            return {key: self.resolved(item, (*path, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolved(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        names = _REFERENCE.findall(value)
        self.missing += [(path, name) for name in names if name not in os.environ]
        if "://" in _REFERENCE.sub("", value) or (path[:1] == ("tracking",) and path[1:] != ("mlflow",)):
            self.exposed += [(path, name) for name in names]
        return _REFERENCE.sub(_inserted, value)


def _inserted(match: re.Match[str]) -> str:
    found = os.environ.get(match[1], "")
    if not _is_path(found):
        remember(found, match[0])
    return found


def _is_path(text: str) -> bool:
    """Return whether a value is a path of this machine; a key in base64 may begin with a slash, too."""
    if not _LOOKS_LIKE_A_PATH.match(text):
        return False
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        path = Path(text).expanduser()
        return path.exists() or (path.parent.exists() and len(path.parts) > 2)
    return False


@dataclass(frozen=True)
class VaultReference:
    """A reference to a secret of a key vault.

    Attributes:
        text: as it stands in the configuration.
        vault: the vault's name, or its address.
        secret: the secret's name.
    """

    text: str
    vault: str
    secret: str

    def __str__(self) -> str:
        return self.text


def in_vault(text: str) -> bool:
    """Return whether a text refers to a key vault, rightly or wrongly."""
    return _OPENING in text


def vault_references(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, VaultReference]]:
    """Yield every reference to a key vault, with its path."""
    for place, text in _texts(value, path):
        for match in _IN_VAULT.finditer(text):
            yield place, VaultReference(match[0], match["vault"], match["secret"])


def broken_vault_references(value: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every text that begins to refer to a key vault and does not say which secret."""
    for place, text in _texts(value, path):
        if _OPENING in _IN_VAULT.sub("", text):
            yield place


def exposed_vault_references(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, VaultReference]]:
    """Yield the references whose values would be sent where the configuration says: see :class:`References`."""
    for place, text in _texts(value, path):
        if "://" in _IN_VAULT.sub("", text) or (place[:1] == ("tracking",) and place[1:] != ("mlflow",)):
            yield from vault_references(text, place)


def put_vault_values(value: Any, found: Mapping[str, str]) -> Any:
    """Return ``value`` with every reference replaced by what ``found`` has for its text."""
    if isinstance(value, dict):
        return {key: put_vault_values(item, found) for key, item in value.items()}
    if isinstance(value, list):
        return [put_vault_values(item, found) for item in value]
    return _IN_VAULT.sub(lambda match: found[match[0]], value) if isinstance(value, str) else value


def _texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield every text that may refer to a key vault, with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, str(key)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))
    elif isinstance(value, str) and in_vault(value):
        yield path, value
