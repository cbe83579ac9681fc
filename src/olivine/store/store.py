"""The Store: artifacts under the digest of the Step that made them.

Layout of its folder::

    store.json          version of this layout
    artifacts/ab/abcd…  what Steps made (see :mod:`olivine.store.artifact`)
    staging/            folders being filled or removed, each named for the process that does it
    checkpoints/        what a Step needs to go on after a kill, by digest
    shared/             what Steps with other parameters can use too: sensitivities of matrices
    locks/              who works on which digest
    leases/             which live process uses which artifacts
    digests/            digests of the user's files, so that they are not hashed again
    quarantine/         artifacts that were found damaged

An artifact appears by one rename of a synced folder, and goes by one rename. Nothing else has to be in any order, so a
kill at any moment leaves at most a folder in ``staging`` whose process is gone; the next one to stage removes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

from olivine.errors import StoreError
from olivine.store.artifact import (
    FILES,
    MANIFEST,
    USED,
    Artifact,
    Damaged,
    Manifest,
    check_files,
    file_status,
    read_manifest,
)
from olivine.store.collecting import CollectReport, collect
from olivine.store.digests import DigestCache, digest_file
from olivine.store.disk import (
    DISK_FULL,
    StrPath,
    disk_errors,
    names_in,
    remove_tree,
    replace_file,
    store_error,
    sync_folder,
    tree_files,
    write_file,
)
from olivine.store.layout import DIGEST, Layout
from olivine.store.liveness import Leases, Owner, current_owner
from olivine.store.locks import locked, locked_if_free
from olivine.store.staging import Staging

CONDEMNED = "condemned"
"""In an artifact's folder: who is about to remove it."""


class Store:
    """A folder of artifacts that any number of processes may use at once.

    Nothing is written until there is something to write. Digests are 8 to 64 hexadecimal digits in lower case.

    Args:
        root: the folder; it need not exist.

    Attributes:
        root: the folder, absolute.
        places: where things lie in it.
        warnings: what was found damaged and moved aside, one text each; whoever shows them empties the list.
    """

    def __init__(self, root: StrPath) -> None:
        self.places = Layout(root)
        self.root = Path(self.places.root)
        self.warnings: list[str] = []
        self._leases = Leases(self.places.at("leases"))
        self._digests = DigestCache(self.places.at("digests"))
        self._locked: set[str] = set()

    # Looking up -----------------------------------------------------------------------------------------------------

    def find(self, digest: str) -> Artifact | None:
        """Return the artifact of a Step, or ``None`` if there is none that can be used.

        Each file's size and time are compared with the manifest; content is read only where the time differs. An
        artifact that does not match is moved to ``quarantine/``, reported in :attr:`warnings`, and counts as absent.
        An artifact that was found is not collected while this process lives.

        Raises:
            StoreError: the Store was written by a newer Olivine, or may not be read.
        """
        folder = self.places.artifact(digest)
        if not os.path.lexists(folder):
            return None
        self.places.check()
        self._leases.take(digest)
        if self._condemned(folder):
            return None
        try:
            return self._checked(digest, folder)
        except Damaged as damage:
            if os.path.lexists(folder):
                self._set_aside(digest, folder, str(damage))
            return None

    def _checked(self, digest: str, folder: str) -> Artifact:
        """Return the artifact in ``folder`` after the quick check.

        Raises:
            Damaged: it does not match its manifest.
        """
        with disk_errors(folder, verb="read"):
            manifest = read_manifest(folder, digest)
            check_files(folder, manifest)
        return Artifact(digest, Path(folder, FILES), manifest)

    def _set_aside(self, digest: str, folder: str, damage: str) -> None:
        """Move a damaged artifact to the quarantine, unless another process is working on that digest anyway."""
        with contextlib.ExitStack() as stack:
            if digest not in self._locked:
                with contextlib.suppress(StoreError):
                    self.places.make("locks")
                if not stack.enter_context(locked_if_free(self.places.lock(digest))):
                    self.warnings.append(f"the artifact {digest} is damaged ({damage}) and is not used")
                    return
                try:  # another process may have put a good one here before the lock was taken
                    self._checked(digest, folder)
                    return
                except Damaged as still:
                    damage = str(still)
            target = os.path.join(self.places.at("quarantine"), f"{digest}-{secrets.token_hex(4)}")
            try:
                os.makedirs(self.places.at("quarantine"), exist_ok=True)
                os.rename(folder, target)
                os.utime(target)
            except FileNotFoundError:
                return
            except OSError as error:
                self.warnings.append(
                    f"the artifact {digest} is damaged ({damage}) and is not used; it could not be moved aside: "
                    f"{error.strerror}"
                )
                return
            self.warnings.append(
                f"the artifact {digest} is damaged ({damage}); it was moved to {target} and will be made again"
            )

    def artifacts(self) -> Iterator[Artifact]:
        """Yield every artifact with a sound manifest, in no order. Files are not looked at."""
        for digest in self.digests():
            folder = self.places.artifact(digest)
            try:
                with disk_errors(folder, verb="read"):
                    manifest = read_manifest(folder, digest)
            except Damaged:
                continue  # for `find` and `verify` to report; or it was collected just now
            yield Artifact(digest, Path(folder, FILES), manifest)

    def digests(self) -> list[str]:
        """Return the digests of all artifacts, damaged ones included, sorted."""
        self.places.check()
        found = []
        with disk_errors(self.places.at("artifacts"), verb="read"):
            for shard in names_in(self.places.at("artifacts")):
                found += [name for name in names_in(self.places.at("artifacts", shard)) if DIGEST.fullmatch(name)]
        return sorted(found)

    def last_used(self, digest: str) -> float:
        """Return when an artifact was last used (Unix seconds), 0 if there is none."""
        for name in (USED, MANIFEST, ""):
            with contextlib.suppress(OSError):
                return os.stat(os.path.join(self.places.artifact(digest), name)).st_mtime
        return 0.0

    def record_use(self, digests: Iterable[str]) -> None:
        """Note that artifacts were used now, for `ls` and for collecting the least recently used first."""
        for digest in digests:
            path = os.path.join(self.places.artifact(digest), USED)
            # Nothing depends on it but the order of collection: an absent artifact or a read-only Store is no error.
            with contextlib.suppress(OSError):
                try:
                    os.utime(path)
                except FileNotFoundError:
                    write_file(path, b"", sync=False)

    def verify(self, digest: str | None = None) -> list[str]:
        """Read every file of one artifact, or of all, and return what does not match, one text per fault.

        Raises:
            StoreError: the Store may not be read.
        """
        problems = []
        if digest is not None and not os.path.lexists(self.places.artifact(digest)):
            return [f"{digest}: there is no such artifact"]
        for each in [digest] if digest is not None else self.digests():
            folder = self.places.artifact(each)
            faults = self._faults(each, folder)
            if os.path.lexists(folder):  # else it was collected while it was read
                problems += [f"{each}: {fault}" for fault in faults]
        return problems

    def _faults(self, digest: str, folder: str) -> list[str]:
        faults: list[str] = []
        with disk_errors(folder, verb="read"):
            try:
                manifest = read_manifest(folder, digest)
            except Damaged as damage:
                return [str(damage)]
            if manifest.away:
                return []  # for who fetches them
            for entry in manifest.files:
                path = os.path.join(folder, FILES, entry.path)
                try:
                    file_status(path, entry)
                    if digest_file(path) != entry.sha256:
                        faults.append(f"the content of {entry.path} has changed")
                except Damaged as damage:
                    faults.append(str(damage))
                except FileNotFoundError:
                    faults.append(f"{entry.path} is missing")
            listed = {entry.path for entry in manifest.files}
            with contextlib.suppress(FileNotFoundError):
                faults += [
                    f"{name} is not in its manifest"
                    for name, _ in tree_files(os.path.join(folder, FILES))
                    if name not in listed
                ]
        return faults

    # Digests of the user's files ------------------------------------------------------------------------------------

    def digest_file(self, path: StrPath) -> str:
        """Return the SHA-256 of a file, 64 hexadecimal digits; its content is read only if it may have changed.

        Raises:
            StoreError: it cannot be read, or is being written to.
        """
        self._make_root_for_digests()
        return self._digests.digest_file(path)

    def digest_files(self, paths: Sequence[StrPath]) -> list[str]:
        """Return :meth:`digest_file` of each, several files at a time.

        Raises:
            StoreError: one cannot be read, or is being written to.
        """
        self._make_root_for_digests()
        return self._digests.digest_files(paths)

    def knows_digest(self, path: StrPath) -> bool:
        """Return whether a file's digest is known without reading its content: it was read before, and is as it was."""
        return self._digests.is_known(path)

    def digests_held(self) -> contextlib.AbstractContextManager[None]:
        """Keep digests of files that are read meanwhile to this process, until it ends without an error."""
        return self._digests.held()

    def digest_tree(self, folder: StrPath, patterns: Sequence[str] | None = None) -> str:
        """Return the digest of a folder as :func:`olivine.store.digest_tree` does, reading only what may have changed.

        Raises:
            StoreError: a file cannot be read, or is being written to.
        """
        self._make_root_for_digests()
        return self._digests.digest_tree(folder, patterns)

    def _make_root_for_digests(self) -> None:
        # Where nothing can be written, digests are only not kept.
        with contextlib.suppress(StoreError):
            self.places.make()

    # Making ---------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self, digest: str, on_wait: Callable[[int | None], None] | None = None) -> Iterator[None]:
        """Hold the right to make one artifact. Another process that wants it waits, and then finds it made.

        Args:
            digest: the Step's.
            on_wait: called once if it must wait, with the holder's process id, or ``None`` if that cannot be told.

        Raises:
            StoreError: the Store cannot be written.
        """
        path = self.places.lock(digest)
        self.places.make("locks")
        with locked(path, on_wait, setting="engine.cache_dir"):
            self._locked.add(digest)
            try:
                yield
            finally:
                self._locked.discard(digest)

    @contextlib.contextmanager
    def stage(self, digest: str) -> Iterator[Staging]:
        """Give a fresh folder to fill; it becomes the artifact by :meth:`Staging.commit`, or goes.

        Also removes what killed processes left.

        Raises:
            StoreError: the Store cannot be written, or the disk filled up while the folder was being filled.
        """
        self.places.artifact(digest)
        self.places.make("staging")
        self.sweep()
        folder = self.places.new_staging()
        with disk_errors(folder):
            os.makedirs(os.path.join(folder, FILES))
        try:
            yield Staging(digest, folder, self._appear)
        except OSError as error:
            inside = not isinstance(error.filename, str) or os.path.abspath(error.filename).startswith(folder)
            if error.errno in DISK_FULL and inside:
                raise store_error(error, folder) from error
            raise
        finally:
            if os.path.lexists(folder):
                remove_tree(folder)

    def checkpoint_dir(self, digest: str) -> Path:
        """Return the folder, made if need be, where a Step keeps what it needs to go on after a kill.

        It goes when the Step's result is committed.

        Raises:
            StoreError: the Store cannot be written.
        """
        self.places.artifact(digest)
        self.places.make(os.path.join("checkpoints", digest))
        return Path(self.places.at("checkpoints", digest))

    @property
    def shared_dir(self) -> Path:
        """The folder, made when something is put there, of what several Steps can use."""
        return Path(self.places.at("shared"))

    def _appear(self, folder: str, manifest: Manifest) -> Artifact:
        """Move a finished staging folder into its place; what the Step kept to go on after a kill is needed no more."""
        artifact = self._commit(folder, manifest)
        self.forget_checkpoint(manifest.digest)
        return artifact

    def forget_checkpoint(self, digest: str) -> None:
        """Remove what a Step kept to go on after a kill, if there is anything."""
        checkpoint = self.places.at("checkpoints", digest)
        if os.path.lexists(checkpoint):
            remove_tree(checkpoint)

    def _commit(self, folder: str, manifest: Manifest) -> Artifact:
        """Move a finished staging folder into its place, unless there is a good artifact by now."""
        digest = manifest.digest
        target = self.places.artifact(digest)
        shard = os.path.dirname(target)
        self._leases.take(digest)
        self.places.make("artifacts")
        if not os.path.isdir(shard):
            os.makedirs(shard, exist_ok=True)
            sync_folder(os.path.dirname(shard))
        attempts = 3
        while attempts:
            try:
                os.rename(folder, target)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EACCES):
                    raise
                if error.errno == errno.EACCES and not os.path.lexists(target):
                    raise
                present = self.find(digest)
                if present is not None and (manifest.away or not present.away):
                    return present
                if present is not None:
                    self._discard(target)  # its files were elsewhere, and have come now
                elif self._condemned(target):
                    time.sleep(0.01)  # it goes, or is spared, in a moment
                else:
                    attempts -= 1
            else:
                sync_folder(shard)
                return Artifact(digest, Path(target, FILES), manifest)
        raise StoreError(
            f"the artifact could not be put at {target}",
            why="something that is no sound artifact is there and cannot be moved aside",
            remedy="remove that folder",
        )

    def forget_away(self, digest: str) -> None:
        """Forget an artifact whose files are elsewhere; one with its files here stays. The caller holds its lock."""
        folder = self.places.artifact(digest)
        with contextlib.suppress(Damaged, FileNotFoundError):
            if read_manifest(folder, digest).away:
                self._discard(folder)

    def _discard(self, folder: str) -> None:
        """Remove an artifact at once, by one rename; whoever has found it has read its manifest already."""
        self.places.make("staging")
        aside = self.places.new_staging()
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, aside)
        remove_tree(aside)

    # Collecting -----------------------------------------------------------------------------------------------------

    def collect(
        self,
        keep: Collection[str] = (),
        *,
        older_than_s: float | None = None,
        max_bytes: int | None = None,
        dry_run: bool = False,
    ) -> CollectReport:
        """Remove leftovers, and artifacts that were not used for long. Nothing that a live process uses goes.

        With neither ``older_than_s`` nor ``max_bytes`` only leftovers go: folders of dead processes, checkpoints of
        Steps that are done or were not touched for two weeks, and what was quarantined a week ago.

        Args:
            keep: digests that stay in any case.
            older_than_s: artifacts (and logs of runs) not used for so many seconds go.
            max_bytes: the least recently used artifacts go until the rest is no larger.
            dry_run: only report.

        Raises:
            StoreError: the Store cannot be read or written.
        """
        self.places.check()
        with disk_errors(self.places.root):
            return collect(self, keep, older_than_s=older_than_s, max_bytes=max_bytes, dry_run=dry_run)

    def sweep(self, *, dry_run: bool = False) -> list[str]:
        """Remove the staging folders and leases of processes that are gone; return the folders."""
        self._leases.sweep()
        gone = []
        for name in names_in(self.places.at("staging")):
            path = self.places.at("staging", name)
            owner = Owner.parse(name.rpartition(".")[0])
            if owner is not None and owner.is_gone(path):
                gone.append(path)
                if not dry_run:
                    remove_tree(path)
        return gone

    def release(self) -> None:
        """Let artifacts that this process found be collected; otherwise they are kept while it lives."""
        self._leases.release()

    def remove(self, digest: str) -> bool:
        """Remove an artifact, unless a live process uses it. Return whether it is gone.

        It is condemned first and its leases looked at after that, while `find` takes a lease first and looks whether
        it is condemned after that: so at least one of the two sees the other, and who has found it can rely on it.
        """
        folder, aside = self.places.artifact(digest), self.places.new_staging()
        self.places.make("staging")
        with self.lock_if_free(digest) as free:
            if not free:
                return False
            sign = os.path.join(folder, CONDEMNED)
            try:
                replace_file(sign, str(current_owner()).encode(), sync=False)
                if digest in self._leases.held():
                    os.unlink(sign)
                    return False
                os.rename(folder, aside)
            except (FileNotFoundError, NotADirectoryError):
                return not os.path.lexists(folder)
        remove_tree(aside)
        return True

    def _condemned(self, folder: str) -> bool:
        """Whether a live process is about to remove the artifact in ``folder``."""
        sign = os.path.join(folder, CONDEMNED)
        try:
            with open(sign, encoding="ascii") as file:
                owner = Owner.parse(file.read())
        except (OSError, ValueError):
            return False
        return owner is not None and not owner.is_gone(sign)

    def in_use(self) -> set[str]:
        """Return the digests of artifacts that live processes use, this one included."""
        return self._leases.held()

    def lock_if_free(self, digest: str) -> contextlib.AbstractContextManager[bool]:
        """Hold a digest's lock if nobody does; the value says whether.

        Raises:
            StoreError: the Store cannot be written.
        """
        self.places.make("locks")
        return locked_if_free(self.places.lock(digest))
