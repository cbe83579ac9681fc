"""Putting a finished set of files into an output folder: whole, or recognisably unfinished, and never over the user's.

A folder that does not exist yet appears by one rename. In one that exists, ``status.json`` goes first and comes last,
so that a folder with a ``status.json`` is complete; a kill in between leaves a state that the next publishing
completes. ``.olivine-files.json`` lists what Olivine put there; everything else is the user's and is not touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from olivine.errors import Problem, StoreError
from olivine.store.disk import (
    DISK_FULL,
    bad_name,
    copy_file,
    disk_errors,
    link_or_copy,
    names_in,
    remove_tree,
    sync_folder,
    write_file,
)
from olivine.store.liveness import Owner, current_owner
from olivine.store.locks import locked

STATUS = "status.json"
RECORD = ".olivine-files.json"
_LOCK = ".olivine-lock"
_STAGING = ".olivine-staging"
_RESERVED = (RECORD, _LOCK, _STAGING)
_SETTING = "engine.output_dir"

LINK_ABOVE = 2**20
"""Files larger than this (bytes) are hard-linked if they are read-only. Smaller ones are copied: people edit them."""


def publish(files: Mapping[str, Path | bytes], output: Path, *, keep: Collection[str] = ()) -> list[str]:
    """Put ``files`` into the folder ``output``; what an earlier publishing put there and this one lacks is removed.

    Args:
        files: by relative name with ``/``: the file to take, or the content itself.
        output: the folder; made if it does not exist.
        keep: names that an earlier publishing put there and that stay although ``files`` lacks them.

    Returns:
        The names of the files that were written; those that were the same already are left alone.

    Raises:
        StoreError: a name leads out of the folder, a file of the user's is in the way, or the disk is full or
            read-only. Then nothing in ``output`` has changed, unless the disk failed in the middle of the renames; in
            that case ``status.json`` is not there, and publishing again completes it.
    """
    _check_names(files)
    # A link to a folder on a larger disk is a way to choose where it goes.
    target = os.path.realpath(output)
    needed = _copied_bytes(files)
    with disk_errors(target, needed=needed, setting=_SETTING):
        if not os.path.lexists(target) and _publish_new(files, target):
            return sorted(files)
        return _publish_into(files, target, keep)


def check_writable(output: Path) -> Problem | None:
    """Find out whether files could be put into ``output``, which need not exist, by making a folder and removing it.

    Returns:
        What is wrong, or ``None``.
    """
    place = os.path.realpath(output)
    while not os.path.lexists(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        return Problem(
            f"{output} cannot be a folder",
            why=f"{place} is a file",
            remedy="move that file away or choose another folder",
        )
    probe = os.path.join(place, f".olivine-{secrets.token_hex(4)}")
    try:
        os.mkdir(probe)
        os.rmdir(probe)
    except OSError as error:
        full = error.errno in DISK_FULL
        return Problem(
            f"nothing can be written to {output}",
            why=f"no folder can be made in {place}: {error.strerror}",
            remedy="make room there, or choose another folder"
            if full
            else "give this user permission to write there, or choose another folder",
        )
    return None


def _check_names(files: Mapping[str, Path | bytes]) -> None:
    folders = {"/".join(parts[:end]) for parts in (name.split("/") for name in files) for end in range(1, len(parts))}
    for name, source in files.items():
        fault = bad_name(name)
        if not fault and name.split("/")[0] in _RESERVED:
            fault = "Olivine needs that name itself"
        if not fault and name in folders:
            fault = "it is the name of a folder too"
        if fault:
            raise StoreError(f"{name!r} cannot be put into an output folder", why=fault)
        if not isinstance(source, bytes) and not os.path.isfile(source):
            raise StoreError(f"{source} cannot be published", why="there is no such file")


def _copied_bytes(files: Mapping[str, Path | bytes]) -> int:
    """Return how many bytes will be written, if large files can be linked."""
    sizes = (len(source) if isinstance(source, bytes) else os.stat(source).st_size for source in files.values())
    return sum(size for size in sizes if size <= LINK_ABOVE)


def _place(source: Path | bytes, target: str) -> None:
    """Make the new file ``target``, synced."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if isinstance(source, bytes):
        write_file(target, source)
        return
    status = os.stat(source)
    # A file that may be written could be changed under one name and so under the other.
    if status.st_size > LINK_ABOVE and not status.st_mode & 0o222:
        link_or_copy(os.path.realpath(source), target)
    else:
        copy_file(source, target)


def _fill(files: Mapping[str, Path | bytes], folder: str) -> None:
    for name, source in files.items():
        target = os.path.join(folder, name)
        size = len(source) if isinstance(source, bytes) else os.stat(source).st_size
        with disk_errors(target, needed=size, setting=_SETTING):
            _place(source, target)
    for place, _, _ in os.walk(folder):
        sync_folder(place)


def _write_record(names: Collection[str], staging: str, output: str) -> None:
    write_file(os.path.join(staging, RECORD), _record(names))
    _move(staging, output, RECORD)


def _record(names: Collection[str]) -> bytes:
    return (json.dumps({"files": sorted(names)}, indent=1, ensure_ascii=True) + "\n").encode()


# A folder that does not exist ----------------------------------------------------------------------------------------


def _publish_new(files: Mapping[str, Path | bytes], output: str) -> bool:
    """Build a folder beside ``output`` and rename it. Return false if somebody else made ``output`` meanwhile."""
    parent, name = os.path.split(output)
    os.makedirs(parent, exist_ok=True)
    prefix = f".{name}.olivine-"
    for each in names_in(parent):
        owner = Owner.parse(each.removeprefix(prefix).rpartition(".")[0]) if each.startswith(prefix) else None
        if owner is not None and owner.is_gone(os.path.join(parent, each)):
            remove_tree(os.path.join(parent, each))
    staging = os.path.join(parent, f"{prefix}{current_owner()}.{secrets.token_hex(4)}")
    try:
        os.mkdir(staging)
        _fill({**files, RECORD: _record(files)}, staging)
        if os.path.lexists(output):
            return False
        try:
            os.rename(staging, output)
        except OSError:
            if os.path.lexists(output):
                return False
            raise
        sync_folder(parent)
    finally:
        if os.path.lexists(staging):
            remove_tree(staging)
    return True


# A folder that exists ------------------------------------------------------------------------------------------------


def _publish_into(files: Mapping[str, Path | bytes], output: str, keep: Collection[str]) -> list[str]:
    if not os.path.isdir(output):
        raise StoreError(
            f"{output} is a file",
            why="the result is a folder",
            remedy=f"move it away, or set {_SETTING} to another folder",
        )
    with _folder_lock(output):
        staging = os.path.join(output, _STAGING)
        if os.path.lexists(staging):
            remove_tree(staging)  # under the lock: its maker was killed
        ours = _ours(output)
        _check_conflicts(files, output, ours)
        changed = {name: source for name, source in files.items() if not _same(source, os.path.join(output, name))}
        obsolete = ours - set(files) - set(keep)
        if not changed and not obsolete:
            return []
        try:
            os.mkdir(staging)
            _fill(changed, staging)
            # From here on, whatever happens, the next publishing knows which files it may replace.
            _write_record(ours | set(files), staging, output)
            with contextlib.suppress(FileNotFoundError):
                if STATUS in ours:
                    os.unlink(os.path.join(output, STATUS))
                    sync_folder(output)
            for name in sorted(obsolete):
                _remove(output, name)
            for name in sorted(set(changed) - {STATUS}):
                _move(staging, output, name)
            _write_record(set(files) | (ours & set(keep)), staging, output)
            if STATUS in files:
                if STATUS not in changed:
                    _place(files[STATUS], os.path.join(staging, STATUS))
                _move(staging, output, STATUS)
            sync_folder(output)
        finally:
            if os.path.lexists(staging):
                remove_tree(staging)
    return sorted(changed)


@contextlib.contextmanager
def _folder_lock(output: str) -> Iterator[None]:
    path = os.path.join(output, _LOCK)
    with locked(path, setting=_SETTING):
        try:
            yield
        finally:
            # Unlinked while held: whoever waits sees that it has no name any more, and opens a new one.
            with contextlib.suppress(OSError):
                os.unlink(path)


def _ours(output: str) -> set[str]:
    """Return the names that an earlier publishing put there."""
    try:
        with open(os.path.join(output, RECORD), "rb") as file:
            names = json.loads(file.read())["files"]
    except FileNotFoundError:
        return set()
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{os.path.join(output, RECORD)} cannot be read",
            why=f"it says which files in that folder are Olivine's ({error})",
            remedy=f"empty that folder, or set {_SETTING} to another one",
        ) from error
    return {name for name in names if isinstance(name, str) and not bad_name(name)}


def _check_conflicts(files: Mapping[str, Path | bytes], output: str, ours: set[str]) -> None:
    """Refuse to replace what Olivine did not put there."""
    foreign = []
    for name in files:
        parts = name.split("/")
        for end in range(1, len(parts)):
            folder = "/".join(parts[:end])
            path = os.path.join(output, folder)
            # A link that leads elsewhere is not followed; a file in the place of a folder is replaced only if ours.
            if (
                os.path.lexists(path)
                and not stat.S_ISDIR(os.lstat(path).st_mode)
                and not _is_our_file(path, folder, ours)
            ):
                foreign.append(path)
        path = os.path.join(output, name)
        if (
            os.path.lexists(path)
            and not _is_our_file(path, name, ours)
            and not _is_our_folder(path, name, output, ours)
        ):
            foreign.append(path)
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise StoreError(
            f"{', '.join(sorted(set(foreign))[:3])}{more} would be overwritten, and Olivine did not put it there",
            why="nothing was changed",
            remedy=f"move it away, or set {_SETTING} to another folder",
        )


def _is_our_file(path: str, name: str, ours: set[str]) -> bool:
    return name in ours and stat.S_ISREG(os.lstat(path).st_mode)


def _is_our_folder(path: str, name: str, output: str, ours: set[str]) -> bool:
    """Whether ``path`` is a folder with nothing but files of ours, all of which go: a file may take its place."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        return False
    for folder, folders, found in os.walk(path):
        if not folders and not found:
            return False
        if any(os.path.relpath(os.path.join(folder, each), output).replace(os.sep, "/") not in ours for each in found):
            return False
    return True


def _same(source: Path | bytes, target: str) -> bool:
    """Whether ``target`` holds what would be put there: the very file, or, for small ones, the same bytes."""
    try:
        there = os.lstat(target)
        if not stat.S_ISREG(there.st_mode):
            return False
        if not isinstance(source, bytes):
            given = os.stat(source)
            if (given.st_dev, given.st_ino) == (there.st_dev, there.st_ino):
                return not given.st_mode & 0o222
            if given.st_size != there.st_size or given.st_size > LINK_ABOVE:
                return False
            source = Path(source).read_bytes()
        return there.st_size == len(source) and Path(target).read_bytes() == source
    except (FileNotFoundError, NotADirectoryError):
        return False


def _move(staging: str, output: str, name: str) -> None:
    target = os.path.join(output, name)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.replace(os.path.join(staging, name), target)
    sync_folder(os.path.dirname(target))


def _remove(output: str, name: str) -> None:
    """Remove one of our files, and the folders that it leaves empty."""
    folder = output
    for part in name.split("/")[:-1]:
        folder = os.path.join(folder, part)
        if os.path.islink(folder):
            return  # the user put a link in the place of our folder: what it leads to is not ours
    path = os.path.join(output, name)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        os.unlink(path)
    parent = os.path.dirname(path)
    while len(parent) > len(output):
        try:
            os.rmdir(parent)
        except OSError:
            break  # not empty, or gone
        parent = os.path.dirname(parent)
