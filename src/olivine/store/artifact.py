"""An artifact and its manifest.

On disk an artifact is a folder::

    manifest.json     what it is: the Step, its files with sizes and digests, what was measured
    manifest.sha256   the digest of manifest.json, as `sha256sum --check` reads it
    files/            what the Step made, read-only
    used              an empty file whose time is that of the last use

Where a cloud made it and nobody here needed it yet, ``files/`` is empty, and the manifest says where they are
(``away``).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from olivine.store.digests import digest_file, digest_json
from olivine.store.disk import bad_name

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MANIFEST_DIGEST = "manifest.sha256"
FILES = "files"
USED = "used"


class Damaged(Exception):
    """An artifact does not match its manifest; the text says how. Never leaves the Store."""


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact.

    Attributes:
        path: relative to ``files/``, with ``/``.
        size: in bytes.
        sha256: of the content, 64 hexadecimal digits.
        mtime_ns: modification time; a file that still has it and its size is taken to be unchanged.
    """

    path: str
    size: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True)
class Manifest:
    """What an artifact is and where it comes from.

    Attributes:
        digest: of the Step that made it: its key.
        format: of the model in ``files/``, or ``metrics``.
        step: the Step as JSON.
        inputs: what went in, by name.
        files: sorted by path.
        created: Unix time in seconds.
        seconds: wall time of the Step.
        peak_memory_bytes: peak resident memory of the Step.
        metrics: numbers it reported.
        attributes: facts for later Steps and the model card.
        history: rows over time.
        olivine: the version that made it.
        schema_version: of this record.
        away: address of the folder with the files, where they are not here; empty if they are.
    """

    digest: str
    format: str
    step: Mapping[str, Any]
    inputs: Mapping[str, Any]
    files: tuple[FileEntry, ...]
    created: float
    seconds: float
    peak_memory_bytes: int
    metrics: Mapping[str, Any]
    attributes: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    olivine: str
    schema_version: int = SCHEMA_VERSION
    away: str = ""

    @cached_property
    def content_digest(self) -> str:
        """Digest over the paths and contents of the files: equal for equal results, whatever made them."""
        return digest_json([[entry.path, entry.sha256] for entry in self.files])

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    def as_json(self) -> dict[str, Any]:
        """Return the manifest as a JSON object."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["files"] = [[entry.path, entry.size, entry.sha256, entry.mtime_ns] for entry in self.files]
        if not self.away:
            del content["away"]
        return content

    @classmethod
    def from_json(cls, content: Any) -> Manifest:
        """Read what :meth:`as_json` gave.

        Raises:
            Damaged: it is something else.
        """
        try:
            if content["schema_version"] != SCHEMA_VERSION:
                raise Damaged(f"its manifest has schema version {content['schema_version']}, not {SCHEMA_VERSION}")
            files = tuple(FileEntry(*entry) for entry in content["files"])
            manifest = cls(**(content | {"files": files}))
        except (KeyError, TypeError) as error:
            raise Damaged(f"its manifest is not one: {error}") from error
        for entry in files:
            texts, numbers = (entry.path, entry.sha256), (entry.size, entry.mtime_ns)
            if not all(type(each) is str for each in texts) or not all(type(each) is int for each in numbers):
                raise Damaged("its manifest is not one: a file's entry holds something else")
            if entry.size < 0 or not 0 <= entry.mtime_ns < 2**63:
                raise Damaged(f"its manifest gives {entry.path} an impossible size or time")
            if bad_name(entry.path):
                raise Damaged(f"its manifest names a file outside of it: {entry.path}")
        return manifest


@dataclass(frozen=True)
class Artifact:
    """A result in the Store. Its files are read-only and must not be changed.

    Attributes:
        digest: of the Step that made it.
        path: the folder with the files.
        manifest: what is known of it.
    """

    digest: str
    path: Path
    manifest: Manifest

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self.manifest.size

    @property
    def away(self) -> str:
        """Address of the folder with the files, where they are not in the Store; empty if they are."""
        return self.manifest.away


def read_manifest(folder: str, digest: str) -> Manifest:
    """Read and check the manifest of the artifact in ``folder``.

    Raises:
        Damaged: it is absent, altered, or of another artifact.
        OSError: it cannot be read.
    """
    try:
        with open(os.path.join(folder, MANIFEST), "rb") as file:
            content = file.read()
        with open(os.path.join(folder, MANIFEST_DIGEST), "rb") as file:
            expected = file.read(200).decode("ascii", "replace")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"{os.path.basename(str(error.filename))} is missing") from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise Damaged(f"its manifest cannot be read: {error.strerror}") from error
        raise
    if expected[64:] != f"  {MANIFEST}\n":
        raise Damaged(f"{MANIFEST_DIGEST} was altered")
    return parse_manifest(content, expected[:64], digest)


def parse_manifest(content: bytes, expected: str, digest: str) -> Manifest:
    """Read ``manifest.json``.

    Args:
        content: of that file.
        expected: its SHA-256, as the file beside it says.
        digest: the Step whose artifact is wanted.

    Raises:
        Damaged: it is altered, no manifest, or of another artifact.
    """
    if hashlib.sha256(content).hexdigest() != expected:
        raise Damaged("its manifest does not match the digest beside it")
    try:
        manifest = Manifest.from_json(json.loads(content))
    except ValueError as error:
        raise Damaged(f"its manifest is not JSON: {error}") from error
    if manifest.digest != digest:
        raise Damaged(f"its manifest is that of {manifest.digest}")
    return manifest


def manifest_files(manifest: Manifest) -> dict[str, bytes]:
    """Return the two files that hold a manifest, by name."""
    content = (json.dumps(manifest.as_json(), indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
    return {MANIFEST: content, MANIFEST_DIGEST: f"{hashlib.sha256(content).hexdigest()}  {MANIFEST}\n".encode()}


def check_files(folder: str, manifest: Manifest) -> None:
    """Check that every file is there and unchanged, as far as its size and times tell; hash it if they differ.

    Of files that are elsewhere nothing is known here; whoever fetches them compares them with the manifest.
    The time of a file that turns out to be unchanged (a Store that was copied) is set back, so that it is hashed once.

    Raises:
        Damaged: with the first file that differs.
        OSError: a file cannot be read.
    """
    for entry in manifest.files if not manifest.away else ():
        path = f"{folder}/{FILES}/{entry.path}"
        status = file_status(path, entry)
        if status.st_mtime_ns == entry.mtime_ns:
            continue
        if digest_file(path) != entry.sha256:
            raise Damaged(f"the content of {entry.path} has changed")
        try:
            os.utime(path, ns=(status.st_atime_ns, entry.mtime_ns))
        except OSError:
            continue  # a Store that may only be read: it is hashed each time


def file_status(path: str, entry: FileEntry) -> os.stat_result:
    """Return the stat of a file of an artifact.

    Raises:
        Damaged: it is missing, not a file, or of another size.
    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Damaged(f"{entry.path} is missing") from error
    if not stat.S_ISREG(status.st_mode):
        raise Damaged(f"{entry.path} is not a file any more")
    if status.st_size != entry.size:
        raise Damaged(f"{entry.path} has {status.st_size} bytes instead of {entry.size}")
    return status
