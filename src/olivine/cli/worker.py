"""Run Steps for an engine. Not for people: it speaks JSON on standard input and output."""

from __future__ import annotations

import argparse
from typing import NoReturn


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """There are none."""


def run(arguments: argparse.Namespace) -> NoReturn:
    """Serve until told to stop."""
    from olivine.systems.worker import serve

    serve()
