"""A Store somewhere else, whose artifacts are taken over when the local one lacks them.

It is a Store's folder behind an address that fsspec knows: a file server, a bucket, a web server that shows files. An
artifact there counts only if its manifest matches the digest beside it, is that of the Step that was asked for, and
every file has the size and the SHA-256 that the manifest says; anything else is told and not used. Nothing is written
there unless the configuration says so, and what is there is then never replaced, unless it was found damaged.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from olivine.redaction import redact
from olivine.store.artifact import (
    FILES,
    MANIFEST,
    MANIFEST_DIGEST,
    Artifact,
    Damaged,
    Manifest,
    manifest_files,
    parse_manifest,
)

if TYPE_CHECKING:
    from olivine.store.store import Store

LARGEST_MANIFEST = 100_000_000
BLOCK = 8 * 2**20
"""Bytes."""


class Unreachable(Exception):
    """The shared Store does not answer; the text says how."""


class SharedStore:
    """A Store behind an address.

    Args:
        url: of a Store's folder: ``s3://bucket/olivine``, ``https://host/olivine``, ``/mnt/team/olivine``.
        writable: whether results made here are put there too.

    Attributes:
        warnings: what went wrong, one text each; whoever shows them empties the list. A Store that has not answered
            once is not asked again by this process.
    """

    def __init__(self, url: str, *, writable: bool = False) -> None:
        self.url = url
        self.writable = writable
        self.warnings: list[str] = []
        self._damaged: set[str] = set()
        self._gone = False

    def fetch(self, digest: str, store: Store) -> Artifact | None:
        """Copy an artifact into ``store``, whole and verified; return it, or ``None`` if it is not there to be used.

        The caller holds the digest's lock.

        Raises:
            StoreError: the local Store cannot be written.
        """
        if self._gone:
            return None
        try:
            manifest = self._manifest(digest)
            if manifest is None or manifest.away:
                return None
            with store.stage(digest) as staging:
                for entry in manifest.files:
                    target = staging.path / entry.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open(target, "wb") as file:
                        for block in self._blocks(self._at(digest, FILES, entry.path), entry.size):
                            file.write(block)
                    os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
                return staging.adopt(manifest)
        except Damaged as damage:
            self._damaged.add(digest)
            self.warnings.append(f"the artifact {digest} in {self._shown} is damaged ({damage}) and is not used")
        except Unreachable as error:
            self._give_up(error)
        return None

    def put(self, artifact: Artifact) -> bool:
        """Put an artifact there if that is allowed and there is no sound one. Return whether it was put."""
        if not self.writable or self._gone or artifact.away:
            return False
        digest = artifact.digest
        try:
            if digest not in self._damaged and self._read(self._at(digest, MANIFEST), LARGEST_MANIFEST) is not None:
                return False
            for entry in artifact.manifest.files:
                with open(artifact.path / entry.path, "rb") as source:
                    self._write(self._at(digest, FILES, entry.path), source)
            # The manifest last: until it is there, nobody takes the rest for an artifact.
            papers = manifest_files(artifact.manifest)
            for name in (MANIFEST_DIGEST, MANIFEST):
                self._write(self._at(digest, name), papers[name])
        except Unreachable as error:
            self._give_up(error)
            return False
        self._damaged.discard(digest)
        return True

    def _manifest(self, digest: str) -> Manifest | None:
        content = self._read(self._at(digest, MANIFEST), LARGEST_MANIFEST)
        if content is None:
            return None
        expected = self._read(self._at(digest, MANIFEST_DIGEST), 200)
        if expected is None:
            raise Damaged(f"{MANIFEST_DIGEST} is missing")
        return parse_manifest(content, expected[:64].decode("ascii", "replace"), digest)

    # What the address does not answer, whatever its library raises, ends up as Unreachable. ---------------------------

    def _file_system(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            return url_to_fs(self.url)  # type: ignore[no-any-return]
        except Exception as error:
            raise Unreachable(_told(error)) from error

    def _at(self, digest: str, *parts: str) -> str:
        return posixpath.join("artifacts", digest[:2], digest, *parts)

    def _read(self, name: str, largest: int) -> bytes | None:
        """Return the content of a small file, or ``None`` if it is not there."""
        system, root = self._file_system()
        try:
            with system.open(_beside(root, name), "rb", block_size=None) as file:
                content: bytes = file.read(largest + 1)
        except FileNotFoundError as error:
            if not _is_absent(error):
                raise Unreachable(_told(error.__cause__ or error)) from error
            return None
        except Exception as error:
            raise Unreachable(_told(error)) from error
        if len(content) > largest:
            raise Damaged(f"{posixpath.basename(name)} has more than {largest} bytes")
        return content

    def _blocks(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the content of a file, and no more than one byte beyond ``size``."""
        system, root = self._file_system()
        left = size + 1
        try:
            with system.open(_beside(root, name), "rb") as file:
                while left and (block := file.read(min(BLOCK, left))):
                    left -= len(block)
                    yield block
        except FileNotFoundError as error:
            if not _is_absent(error):
                raise Unreachable(_told(error.__cause__ or error)) from error
            raise Damaged(f"{posixpath.basename(name)} is missing") from error
        except GeneratorExit:
            raise
        except Exception as error:
            raise Unreachable(_told(error)) from error

    def _write(self, name: str, content: bytes | IO[bytes]) -> None:
        system, root = self._file_system()
        path = _beside(root, name)
        try:
            system.makedirs(posixpath.dirname(path), exist_ok=True)
            with system.open(path, "wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                    return
                while block := content.read(BLOCK):
                    file.write(block)
        except Exception as error:
            raise Unreachable(_told(error)) from error

    def _give_up(self, error: Unreachable) -> None:
        self._gone = True
        self.warnings.append(f"the shared cache {self._shown} does not answer and is left alone from here on: {error}")

    @property
    def _shown(self) -> str:
        return redact(self.url.partition("?")[0])


def _beside(root: str, name: str) -> str:
    """Return the path of a file of the Store; a query, such as a signature, stays at the end."""
    path, mark, query = root.partition("?") if root.startswith(("http://", "https://")) else (root, "", "")
    return posixpath.join(path, name) + mark + query


@cache
def shared_store(url: str, writable: bool) -> SharedStore:
    """Return the one :class:`SharedStore` of this process for an address: one that does not answer is asked once."""
    return SharedStore(url, writable=writable)


def _is_absent(error: FileNotFoundError) -> bool:
    """Return whether a file is not there: fsspec's http says so of whatever went wrong, and the cause is what did."""
    cause = error.__cause__
    return cause is None or isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in (404, 410)


def _told(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return redact(f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__)
