"""Stores in temporary folders, and other processes that use them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from store_making import DIGEST, put_into

from olivine.store import Artifact, Store

Put = Callable[..., Artifact]
Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "cache")
    yield made
    made.release()


@pytest.fixture
def put(store: Store) -> Put:
    def put(digest: str = DIGEST, files: Mapping[str, bytes] | None = None, **manifest: object) -> Artifact:
        return put_into(store, digest, files, **manifest)

    return put


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a Python process that runs a script; whatever still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def spawn(script: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield spawn
    for process in started:
        process.kill()
        process.communicate()
