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
    if found is None:
        return None
    # Parsing all of the metadata as a mail, for one line of its head, takes longer than looking the distribution up.
    metadata = found.read_text("METADATA") or ""
    line = next((line for line in metadata.splitlines() if line.startswith("Version: ")), None)
    return found.version if line is None else line.removeprefix("Version: ").strip()
