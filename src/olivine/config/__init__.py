"""Configurations: the schema, strict loading, and the translation of older dialects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from olivine.config.loading import Loaded, load
    from olivine.config.notes import Note

__all__ = ["Loaded", "Note", "load"]

_WHERE = {"load": "olivine.config.loading", "Loaded": "olivine.config.loading", "Note": "olivine.config.notes"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'olivine.config' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
