"""Locks between processes. The kernel releases them when their holder dies, however it dies."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from olivine.store.disk import disk_errors
from olivine.store.liveness import Owner, current_owner

if TYPE_CHECKING:
    from filelock import BaseFileLock

_POLL_S = 0.05
_HOLDER_SUFFIX = ".holder"


@contextlib.contextmanager
def locked(path: str, on_wait: Callable[[int | None], None] | None = None, *, setting: str) -> Iterator[None]:
    """Hold the lock file ``path``, waiting as long as another process (or thread) holds it. Ctrl-C ends the wait.

    Args:
        path: the lock file; its folder must exist.
        on_wait: called once, before waiting, with the holder's process id, or ``None`` if it is not of this machine.
        setting: the key of the configuration that moves the folder.

    Raises:
        StoreError: the lock file cannot be written.
    """
    lock = _file_lock(path)
    with disk_errors(path, setting=setting):
        free = _try(lock)
        if not free:
            # The holder writes its name just after it took the lock: give it that moment.
            time.sleep(_POLL_S)
            free = _try(lock)
    if not free:
        if on_wait is not None:
            on_wait(_holder(path))
        with disk_errors(path, setting=setting):
            lock.acquire(poll_interval=_POLL_S)
    with _held(lock, path):
        yield


@contextlib.contextmanager
def locked_if_free(path: str) -> Iterator[bool]:
    """Hold the lock file ``path`` if nobody else does; yield whether it is held. Also false if it cannot be written."""
    lock = _file_lock(path)
    try:
        free = _try(lock)
    except OSError:
        free = False
    if not free:
        yield False
        return
    with _held(lock, path):
        yield True


@contextlib.contextmanager
def _held(lock: BaseFileLock, path: str) -> Iterator[None]:
    try:
        # Only for the message of those who wait, so a full disk does not matter here.
        with contextlib.suppress(OSError), open(path + _HOLDER_SUFFIX, "w", encoding="ascii") as file:
            file.write(str(current_owner()))
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path + _HOLDER_SUFFIX)
        lock.release()


def _file_lock(path: str) -> BaseFileLock:
    import filelock

    # Not thread-local: a generator-based context manager may be left in another thread than it was entered in.
    return filelock.FileLock(path, thread_local=False)


def _try(lock: BaseFileLock) -> bool:
    import filelock

    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True


def _holder(path: str) -> int | None:
    try:
        with open(path + _HOLDER_SUFFIX, encoding="ascii") as file:
            owner = Owner.parse(file.read())
    except (OSError, ValueError):
        return None
    # What a killed holder left names nobody who is there.
    return owner.pid if owner is not None and owner.is_alive() else None
