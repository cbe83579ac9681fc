"""Digests of values, files and folders, and the cache that spares hashing a large file that has not changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from olivine.errors import StoreError
from olivine.store.disk import StrPath, disk_errors, replace_file

RACY_NS = 2_000_000_000
"""A file that changed less than this before it was hashed may change again without its times showing it (some file
systems count in steps of two seconds), so its digest is not kept."""
_ATTEMPTS = 3


def digest_json(value: Any) -> str:
    """Return 32 hexadecimal digits of SHA-256 over the canonical JSON of ``value``.

    Canonical: keys sorted, no spaces, ASCII. Keys must be strings.

    Raises:
        ValueError: a number is not finite.
        TypeError: the value is not JSON.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def digest_file(path: StrPath) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits, read in blocks.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tree(folder: StrPath, patterns: Sequence[str] | None = None) -> str:
    """Return 32 hexadecimal digits over the relative paths and contents of the files in a folder.

    Names that begin with a dot (``.git``, ``.cache``) and ``__pycache__`` do not count; links count as what they lead
    to; times and permissions do not count.

    Args:
        folder: where to look, at any depth.
        patterns: count only files whose name or relative path matches one of them (``*.safetensors``).

    Raises:
        StoreError: a file cannot be read.
    """
    with disk_errors(folder, verb="read"):
        return _combined((name, digest_file(path)) for name, path in _walk(folder, patterns))


class DigestCache:
    """Digests of files by path, size, times and inode. One small file per folder, replaced whole.

    A lost update of two processes, or a damaged file, costs hashing again and nothing else.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._books: dict[str, dict[str, list[Any]]] = {}
        self._changed: set[str] = set()
        self._held = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep what is read meanwhile to this process until the end; after an error too: a thread may still read."""
        self._held = True
        yield
        self._held = False
        self._save()

    def digest_file(self, path: StrPath) -> str:
        """Return what :func:`digest_file` would; the content is read only if the file may have changed.

        Raises:
            StoreError: it cannot be read, or is being written to.
        """
        with disk_errors(path, verb="read"):
            digest = self._digest(os.path.abspath(path))
        self._save()
        return digest

    def digest_files(self, paths: Sequence[StrPath]) -> list[str]:
        """Return :meth:`digest_file` of each, several files at a time: SHA-256 is slower than a disk.

        Raises:
            StoreError: one cannot be read, or is being written to.
        """
        unread = [os.path.abspath(path) for path in paths if not self.is_known(path)]
        if len(unread) < 2:
            return [self.digest_file(path) for path in paths]
        from concurrent.futures import ThreadPoolExecutor

        from olivine.hardware.machine import this_machine

        def digest(path: str) -> str:
            with disk_errors(path, verb="read"):
                return self._digest(path)

        for path in unread:
            self._book(os.path.dirname(path))  # so that no two threads read the same one
        with ThreadPoolExecutor(this_machine().cores) as pool:
            read = dict(zip(unread, pool.map(digest, unread), strict=True))
        self._save()
        return [read.get(os.path.abspath(path)) or self.digest_file(path) for path in paths]

    def is_known(self, path: StrPath) -> bool:
        """Return whether :meth:`digest_file` would answer without reading the file's content."""
        path = os.path.abspath(path)
        folder, name = os.path.split(path)
        try:
            known = self._book(folder).get(name)
            return known is not None and known[:-1] == _identity(os.stat(path))
        except OSError:
            return False

    def digest_tree(self, folder: StrPath, patterns: Sequence[str] | None = None) -> str:
        """Return what :func:`digest_tree` would, reading only files that may have changed.

        Raises:
            StoreError: a file cannot be read, or is being written to.
        """
        with disk_errors(folder, verb="read"):
            digest = _combined((name, self._digest(path)) for name, path in _walk(os.path.abspath(folder), patterns))
        self._save()
        return digest

    def _digest(self, path: str) -> str:
        folder, name = os.path.split(path)
        book = self._book(folder)
        for _ in range(_ATTEMPTS):
            started = time.time_ns()
            before = os.stat(path)
            if not stat.S_ISREG(before.st_mode):
                raise StoreError(f"{path} is not a file", remedy="give a regular file")
            known = book.get(name)
            if known is not None and known[:-1] == _identity(before):
                return str(known[-1])
            digest = digest_file(path)
            if _identity(os.stat(path)) != _identity(before):
                continue
            if started - max(before.st_mtime_ns, before.st_ctime_ns) >= RACY_NS:
                book[name] = [*_identity(before), digest]
                self._changed.add(folder)
            return digest
        raise StoreError(
            f"{path} keeps changing while it is read",
            why="a result made from it could not be told from one made from other content",
            remedy="wait until whatever writes it is done",
        )

    def _book(self, folder: str) -> dict[str, list[Any]]:
        if folder not in self._books:
            self._books[folder] = self._load(folder)
        return self._books[folder]

    def _load(self, folder: str) -> dict[str, list[Any]]:
        try:
            with open(self._path(folder), "rb") as file:
                content = json.loads(file.read())
        except (OSError, ValueError):
            return {}  # absent, unreadable or cut off: everything is hashed again
        if not isinstance(content, dict) or content.get("folder") != folder:
            return {}
        files = content.get("files")
        if not isinstance(files, dict):
            return {}
        return {name: known for name, known in files.items() if isinstance(known, list) and len(known) == 6}

    def _save(self) -> None:
        if self._held:
            return
        for folder in sorted(self._changed):
            book = {name: known for name, known in self._books[folder].items() if os.path.exists(f"{folder}/{name}")}
            content = json.dumps({"folder": folder, "files": book}, separators=(",", ":")).encode()
            try:
                os.makedirs(self._folder, exist_ok=True)
                replace_file(self._path(folder), content, sync=False)
            except OSError:
                break  # a Store that cannot be written still answers; only the next look costs again
        self._changed.clear()

    def _path(self, folder: str) -> str:
        return os.path.join(self._folder, hashlib.sha256(os.fsencode(folder)).hexdigest()[:32] + ".json")


def state_of(path: StrPath) -> list[int]:
    """Return what changes when the content of a file does, and not with its permissions; it is not read.

    Raises:
        OSError: there is no such file.
    """
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev]


def _identity(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns, status.st_dev]


def _combined(digests: Iterator[tuple[str, str]]) -> str:
    return digest_json(sorted(digests))


def _walk(root: StrPath, patterns: Sequence[str] | None) -> Iterator[tuple[str, str]]:
    """Yield (relative path with ``/``, path) of the files that count, links followed, each folder once."""
    root = os.fspath(root)
    pending = [(root, "")]
    seen: set[tuple[int, int]] = set()
    while pending:
        folder, prefix = pending.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name == "__pycache__":
                    continue
                name = prefix + entry.name
                if entry.is_dir():
                    pending.append((entry.path, name + "/"))
                elif patterns is None or any(fnmatchcase(each, p) for p in patterns for each in (name, entry.name)):
                    yield name, entry.path
