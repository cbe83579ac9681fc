"""Which distributions are installed, from their metadata alone."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.metadata import distributions


@cache
def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or ``None``."""
    # Entries that do not exist (the zipped standard library) are left out: each look-up would try to open them again.
    path = [entry for entry in sys.path if os.path.isdir(entry or ".")]
    found = next(iter(distributions(name=distribution, path=path)), None)
    return None if found is None else found.version
