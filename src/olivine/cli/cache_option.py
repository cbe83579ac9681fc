"""The option that names the cache, the same for every verb that has it."""

from __future__ import annotations

import argparse

CACHE_DIR = ".olivine-cache"
"""The Store of a workflow that names none."""


def add_cache_argument(parser: argparse.ArgumentParser, said: str = "the cache, as engine.cache_dir names it") -> None:
    """Add ``--cache-dir``; ``said`` is what the verb has it for."""
    parser.add_argument(
        "--cache-dir", "--cache", default=CACHE_DIR, metavar="FOLDER", help=f"{said} (default: %(default)s)"
    )
