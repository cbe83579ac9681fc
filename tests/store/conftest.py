"""Stores in temporary folders, other processes that use them, and disks that are full or read-only."""

from __future__ import annotations

import os
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


def mount(*arguments: str) -> None:
    """Mount something, or skip the test where that is not permitted."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True) if os.name == "posix" else None
    if done is None or done.returncode != 0:
        pytest.skip("mounting is not permitted here")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "none", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Make a folder read-only, for root too, until the test ends."""
    mounted: list[Path] = []

    def make_read_only(folder: Path) -> None:
        mount("--bind", str(folder), str(folder))
        mounted.append(folder)
        mount("-o", "remount,bind,ro", str(folder))

    yield make_read_only
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
