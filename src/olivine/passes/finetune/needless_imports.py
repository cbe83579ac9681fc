"""Keeping libraries from importing what a run has no use for: they import whatever is installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def taken_for_missing(package: str) -> Iterator[bool]:
    """Let whatever asks within this block believe that ``package`` is not installed.

    Yields:
        Whether it does so: what has been imported already is there, and stays.
    """
    if package in sys.modules:
        yield False
        return
    sys.modules[package] = None  # type: ignore[assignment]  # Python's own way to say "cannot be imported"
    try:
        yield True
    finally:
        del sys.modules[package]
