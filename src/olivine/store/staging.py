"""A folder that becomes an artifact: filled, then sealed, then put into its place."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from olivine import __version__
from olivine.errors import StoreError
from olivine.redaction import redacted
from olivine.store.artifact import FILES, USED, Artifact, Damaged, FileEntry, Manifest, manifest_files
from olivine.store.digests import digest_file
from olivine.store.disk import copy_file, disk_errors, sync_folder, tree_files, write_file


class Staging:
    """A folder being filled.

    Args:
        digest: of the Step whose result it is to hold.
        folder: the folder, with a folder for the files in it.
        put: moves the finished folder into its place in the Store.

    Attributes:
        path: put the files here. It is on the Store's file system.
        digest: of the Step; it may be known only when the files are there.
    """

    def __init__(self, digest: str, folder: str, put: Callable[[str, Manifest], Artifact]) -> None:
        self.path = Path(folder, FILES)
        self.digest = digest
        self._folder = folder
        self._put = put

    def commit(
        self,
        *,
        format: str,
        step: Mapping[str, Any],
        inputs: Mapping[str, Any],
        metrics: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Any] | None = None,
        history: Sequence[Mapping[str, Any]] = (),
        seconds: float = 0.0,
        peak_memory: int = 0,
        away: str = "",
        files: Sequence[FileEntry] = (),
    ) -> Artifact:
        """Make what is in :attr:`path` the artifact, whole, and read-only.

        Files are synced before the folder is renamed into place, so that neither a kill nor a power cut can leave a
        part; the time that it takes is added to ``seconds``. If another process has committed the same digest
        meanwhile, its artifact is returned and this one goes.

        Args:
            away: address of the folder where ``files`` are, if they are not in :attr:`path`.

        Raises:
            StoreError: the disk is full, or there is something in the folder that is no file.
        """
        with disk_errors(self._folder):
            started = time.monotonic()
            sealed = tuple(files) if away else self._seal()
            manifest = Manifest(
                digest=self.digest,
                format=str(format),
                step=redacted(dict(step)),
                inputs=redacted(dict(inputs)),
                files=sealed,
                created=time.time(),
                seconds=seconds + time.monotonic() - started,
                peak_memory_bytes=peak_memory,
                metrics=redacted(dict(metrics or {})),
                attributes=redacted(dict(attributes or {})),
                history=redacted(tuple(history)),
                olivine=__version__,
                away=away,
            )
            return self._appear(manifest)

    def adopt(self, manifest: Manifest) -> Artifact:
        """Make what is in :attr:`path`, which ``manifest`` describes, the artifact: of another Store, or of an artifact
        whose files were away.

        Raises:
            Damaged: a file has not the size or the content that the manifest says, or is not in it, or is missing.
            StoreError: the disk is full.
        """
        with disk_errors(self._folder):
            sealed = self._seal()
            there = {entry.path: entry for entry in sealed}
            for entry in manifest.files:
                found = there.pop(entry.path, None)
                if found is None:
                    raise Damaged(f"{entry.path} is missing")
                if found.size != entry.size:
                    raise Damaged(f"{entry.path} has not the {entry.size} bytes that its manifest says")
                if found.sha256 != entry.sha256:
                    raise Damaged(f"the content of {entry.path} is not what its manifest says")
            if there:
                raise Damaged(f"{next(iter(there))} is not in its manifest")
            return self._appear(replace(manifest, files=sealed, away=""))

    def _appear(self, manifest: Manifest) -> Artifact:
        """Write the manifest beside the files, sealed before, and put the folder into its place."""
        for name, content in manifest_files(manifest).items():
            write_file(os.path.join(self._folder, name), content)
        write_file(os.path.join(self._folder, USED), b"", sync=False)
        sync_folder(self._folder)
        return self._put(self._folder, manifest)

    def _seal(self) -> tuple[FileEntry, ...]:
        """Digest, sync, and make read-only every file; return the entries sorted by path."""
        root = str(self.path)
        entries = []
        folders = {root}
        for name, status in sorted(tree_files(root)):
            path = os.path.join(root, name)
            status = self._own(path, name, status)
            with open(path, "rb+" if status.st_mode & stat.S_IWUSR else "rb") as file:
                os.fsync(file.fileno())
            digest = digest_file(path)
            os.chmod(path, 0o444)
            entries.append(FileEntry(name, status.st_size, digest, status.st_mtime_ns))
            folder = os.path.dirname(path)
            while len(folder) > len(root):
                folders.add(folder)
                folder = os.path.dirname(folder)
        for folder in folders:
            sync_folder(folder)
        return tuple(entries)

    @staticmethod
    def _own(path: str, name: str, status: os.stat_result) -> os.stat_result:
        """Make sure that a file belongs to the artifact alone, so that nothing outside can change it.

        A link to a file becomes a copy; so does a file that has another name elsewhere and may be written there.
        """
        linked = stat.S_ISLNK(status.st_mode)
        if linked and not os.path.isfile(path):
            raise StoreError(
                f"the Step left a link that leads to no file: {name}", why=f"it points to {os.readlink(path)}"
            )
        if not linked and not stat.S_ISREG(status.st_mode):
            raise StoreError(f"the Step left something that is no file: {name}")
        if linked or (status.st_nlink > 1 and status.st_mode & 0o222):
            copy_file(path, path + ".copy")
            shutil.copystat(path, path + ".copy")
            os.replace(path + ".copy", path)
        return os.stat(path)
