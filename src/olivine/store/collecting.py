"""Collecting what the Store need not keep."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from olivine.store.disk import names_in, newest_change, remove_tree, tree_size

if TYPE_CHECKING:
    from olivine.store.store import Store

QUARANTINE_S = 7 * 86400.0
CHECKPOINT_S = 14 * 86400.0
LOCK_S = 86400.0
DIGESTS_S = 90 * 86400.0


@dataclass
class CollectReport:
    """What a collection removed, or would remove.

    Attributes:
        removed: digests of the artifacts that went.
        in_use: digests of artifacts that would have gone but are used by a live process.
        kept: number of artifacts that stay.
        kept_bytes: their size.
        freed_bytes: what the disk got back; a file that is also linked into an output folder gives nothing back.
        leftovers: other paths that went: folders of killed processes, checkpoints, quarantined artifacts, logs.
    """

    removed: list[str] = field(default_factory=list)
    in_use: list[str] = field(default_factory=list)
    kept: int = 0
    kept_bytes: int = 0
    freed_bytes: int = 0
    leftovers: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return asdict(self)


def collect(
    store: Store,
    keep: Collection[str],
    *,
    older_than_s: float | None,
    max_bytes: int | None,
    dry_run: bool,
) -> CollectReport:
    """See :meth:`olivine.store.Store.collect`."""
    report = CollectReport()
    _collect_staging(store, report, dry_run)
    _collect_quarantine(store, report, dry_run)
    _collect_checkpoints(store, report, dry_run)
    _collect_artifacts(store, report, keep, older_than_s, max_bytes, dry_run)
    if older_than_s is not None:
        _collect_runs(store, report, max(older_than_s, LOCK_S), dry_run)
    if not dry_run:
        _collect_small(store)
    return report


def _collect_staging(store: Store, report: CollectReport, dry_run: bool) -> None:
    sizes = {name: tree_size(store.root / "staging" / name)[1] for name in names_in(store.root / "staging")}
    for path in store.sweep(dry_run=dry_run):
        report.leftovers.append(path)
        report.freed_bytes += sizes.get(os.path.basename(path), 0)


def _collect_quarantine(store: Store, report: CollectReport, dry_run: bool) -> None:
    for name in names_in(store.root / "quarantine"):
        path = str(store.root / "quarantine" / name)
        with contextlib.suppress(FileNotFoundError):  # another collection took it
            if time.time() - os.stat(path).st_mtime > QUARANTINE_S:
                _remove(path, report, dry_run)


def _collect_checkpoints(store: Store, report: CollectReport, dry_run: bool) -> None:
    """Remove checkpoints whose Step is done, or that nobody came back for."""
    made = set(store.digests())
    for digest in names_in(store.root / "checkpoints"):
        path = str(store.root / "checkpoints" / digest)
        if digest not in made and time.time() - newest_change(path) < CHECKPOINT_S:
            continue
        with store.lock_if_free(digest) as free:
            if free:
                _remove(path, report, dry_run)


def _collect_artifacts(
    store: Store,
    report: CollectReport,
    keep: Collection[str],
    older_than_s: float | None,
    max_bytes: int | None,
    dry_run: bool,
) -> None:
    """Remove what was not used for long, then the least recently used until the rest is small enough."""
    digests = sorted(store.digests(), key=store.last_used)
    sizes = {digest: tree_size(store.places.artifact(digest)) for digest in digests}
    total = sum(size for size, _ in sizes.values())
    now = time.time()
    in_use = store.in_use()
    for digest in digests:
        too_old = older_than_s is not None and now - store.last_used(digest) > older_than_s
        too_much = max_bytes is not None and total > max_bytes
        size, freed = sizes[digest]
        if digest not in keep and (too_old or too_much):
            if digest not in in_use and (dry_run or store.remove(digest)):
                report.removed.append(digest)
                report.freed_bytes += freed
                total -= size
                continue
            report.in_use.append(digest)
        report.kept += 1
        report.kept_bytes += size


def _collect_runs(store: Store, report: CollectReport, older_than_s: float, dry_run: bool) -> None:
    """Remove logs of runs that nothing was written to for long."""
    for name in names_in(store.root / "runs"):
        path = str(store.root / "runs" / name)
        if time.time() - newest_change(path) > older_than_s:
            _remove(path, report, dry_run)


def _collect_small(store: Store) -> None:
    """Remove lock files, digests of files and unfinished writes that nothing needed for long. Too small to report."""
    now = time.time()
    for path in [*store.root.glob("*.tmp"), *store.root.glob("digests/*.tmp")]:
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > LOCK_S:
                path.unlink()
    for name in names_in(store.root / "locks"):
        path = store.root / "locks" / name
        if not name.endswith(".lock"):
            continue
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > LOCK_S:
                # Unlinked while held: whoever opened it before sees that it has no name any more, and opens a new one.
                with store.lock_if_free(name.removesuffix(".lock")) as free:
                    if free:
                        path.unlink()
    for path in store.root.glob("shared/*/*"):
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > (LOCK_S if path.suffix == ".tmp" else DIGESTS_S):
                path.unlink()
    for name in names_in(store.root / "digests"):
        path = store.root / "digests" / name
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > DIGESTS_S:
                path.unlink()


def _remove(path: str, report: CollectReport, dry_run: bool) -> None:
    report.freed_bytes += tree_size(path)[1]
    report.leftovers.append(path)
    if not dry_run:
        remove_tree(path)
