"""Writing so that a kill, a full disk or a power cut leaves either the old or the new; and saying it when it fails."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from olivine.errors import StoreError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
_IN_THE_WAY = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP)
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES)

StrPath = str | os.PathLike[str]


@contextlib.contextmanager
def disk_errors(
    path: StrPath, *, needed: int | None = None, setting: str = "engine.cache_dir", verb: str = "written"
) -> Iterator[None]:
    """Turn an ``OSError`` of the block into a :class:`StoreError` that says which path, why, and what to do.

    Args:
        path: what the block works on; the error's own path is shown instead if it has one.
        needed: bytes that the block writes, if known.
        setting: the key of the configuration that moves it to another place.
        verb: what could not be done to the path.

    Raises:
        StoreError: in place of any ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise store_error(error, path, needed=needed, setting=setting, verb=verb) from error


def store_error(
    error: OSError,
    path: StrPath,
    *,
    needed: int | None = None,
    setting: str = "engine.cache_dir",
    verb: str = "written",
) -> StoreError:
    """Return the error to show for ``error``; see :func:`disk_errors`."""
    # Of two names the second is the one that was to be made: a copy's target, a link's, a renamed file's.
    named = error.filename if error.filename2 is None else error.filename2
    place = os.fspath(named) if isinstance(named, str | os.PathLike) else os.fspath(path)
    said = error.strerror or str(error)
    elsewhere = f"set {setting} to another place"
    if error.errno in DISK_FULL:
        free = free_bytes(path)
        parts = [said] if error.errno != errno.ENOSPC else []
        parts += [f"{needed} bytes are needed"] if needed is not None else []
        parts += [f"{free} bytes are free there"] if free is not None else []
        return StoreError(
            f"the disk is full: {place} could not be {verb}",
            why=", ".join(parts),
            remedy=f"make room (`olivine cache gc` removes what no run has used for long), or {elsewhere}",
        )
    if error.errno in _FORBIDDEN:
        return StoreError(
            f"{place} cannot be {verb}", why=said, remedy=f"give this user permission to write there, or {elsewhere}"
        )
    if error.errno in _IN_THE_WAY:
        return StoreError(f"{place} cannot be {verb}", why=said, remedy=f"move what is in the way, or {elsewhere}")
    return StoreError(f"{place} cannot be {verb}", why=said, remedy=f"check that path, or {elsewhere}")


def free_bytes(path: StrPath) -> int | None:
    """Return the bytes that are free where ``path`` is or would be, or ``None`` if that cannot be told."""
    place = os.path.abspath(path)
    while not os.path.exists(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    try:
        return shutil.disk_usage(place).free
    except OSError:
        return None


def sync_folder(path: StrPath) -> None:
    """Make the names in a folder survive a power cut. Windows cannot, and needs not, sync folders."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems do not know fsync on folders; the rename is still atomic there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def write_file(path: StrPath, content: bytes, *, sync: bool = True) -> None:
    """Write a new file and, with ``sync``, wait until it is on the disk."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())


def replace_file(path: StrPath, content: bytes, *, sync: bool = True) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Without ``sync`` a power cut may leave an empty file: only for what can be computed again.
    """
    temporary = f"{os.fspath(path)}.{secrets.token_hex(4)}.tmp"
    try:
        write_file(temporary, content, sync=sync)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    if sync:
        sync_folder(os.path.dirname(os.path.abspath(path)))


def copy_file(source: StrPath, target: StrPath) -> None:
    """Copy content to a new file, synced, writable as the user's umask says."""
    shutil.copyfile(source, target)
    with open(target, "rb+") as file:
        os.fsync(file.fileno())


def link_or_copy(source: StrPath, target: StrPath) -> bool:
    """Hard-link ``source`` as ``target`` if the file system can, else copy it. Return whether it is a link."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        copy_file(source, target)
        return False
    return True


def remove_tree(path: StrPath) -> None:
    """Remove a folder with read-only files in it. What cannot be removed stays, for the next collection."""

    def make_writable_and_retry(function: Callable[[str], Any], name: str, _: Any) -> None:
        # Windows refuses to delete read-only files; on POSIX the folder's permission counts.
        with contextlib.suppress(OSError):
            os.chmod(name, stat.S_IRWXU)
            function(name)

    shutil.rmtree(path, onerror=make_writable_and_retry)


def names_in(folder: StrPath) -> list[str]:
    """Return the names in a folder, none if it is not there or is no folder."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def tree_files(root: StrPath) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every file below ``root`` as (path relative to it with ``/``, its own stat, links not followed)."""
    pending = [(os.fspath(root), "")]
    while pending:
        folder, prefix = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, f"{prefix}{entry.name}/"))
                else:
                    yield prefix + entry.name, entry.stat(follow_symlinks=False)


def tree_size(root: StrPath) -> tuple[int, int]:
    """Return (bytes of all files below ``root``, bytes that removing it gives back: those with no other link)."""
    total = freed = 0
    # A folder that another process removes meanwhile counts as far as it was seen.
    with contextlib.suppress(FileNotFoundError):
        for _, status in tree_files(root):
            total += status.st_size
            freed += status.st_size if status.st_nlink <= 1 else 0
    return total, freed


def newest_change(root: StrPath) -> float:
    """Return the latest modification time (Unix seconds) of ``root`` and everything below it, 0 if it is gone."""
    latest = 0.0
    with contextlib.suppress(FileNotFoundError):
        latest = os.stat(root).st_mtime
        for _, status in tree_files(root):
            latest = max(latest, status.st_mtime)
    return latest


def bad_name(name: str) -> str:
    """Return why ``name`` is no plain relative path inside a folder, or an empty string if it is one."""
    if not name or "\0" in name:
        return "it is empty or holds a null byte"
    if name.startswith("/") or "\\" in name or (len(name) > 1 and name[1] == ":") or Path(name).is_absolute():
        return "it is absolute, or written for another system"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "it has an empty part, . or .. in it"
    return ""
