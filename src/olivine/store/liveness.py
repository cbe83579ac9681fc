"""Which processes are still there, so that what a killed one left can be told from what a live one is using.

An owner is a process with its start time (process ids are used again), the machine and its boot, and the namespace
the id belongs to (a container). Its text form is part of file names, so that there is no moment without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from olivine.store.disk import StrPath

UNKNOWN_FOR_S = 7 * 86400.0
"""A process of another machine or container cannot be asked: it counts as dead when it has touched nothing so long."""


@dataclass(frozen=True)
class Owner:
    """A process, as it can be recognised later.

    Attributes:
        pid: its id.
        started: its start time, in units of the system (only compared).
        machine: digest of the machine's name and id.
        boot: digest of the boot it belongs to.
        namespace: of process ids; empty where there are none.
    """

    pid: int
    started: int
    machine: str
    boot: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.pid}-{self.started}-{self.machine}-{self.boot}-{self.namespace}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """Read the text form, or return ``None``."""
        parts = text.split("-")
        if len(parts) != 5 or not parts[0].isdigit() or not parts[1].isdigit():
            return None
        return cls(int(parts[0]), int(parts[1]), parts[2], parts[3], parts[4])

    def is_alive(self) -> bool | None:
        """Return whether the process is there; ``None`` if it cannot be told from here."""
        here = current_owner()
        if self.machine != here.machine:
            return None
        if self.boot != here.boot:
            return False
        if self.namespace != here.namespace:
            return None
        return _start_time(self.pid) == self.started

    def is_gone(self, path: StrPath) -> bool:
        """Return whether what this process has at ``path`` may be removed."""
        alive = self.is_alive()
        if alive is not None:
            return not alive
        try:
            return time.time() - os.stat(path).st_mtime > UNKNOWN_FOR_S
        except FileNotFoundError:
            return False


_current: Owner | None = None


def current_owner() -> Owner:
    """Return this process (a forked child is another one)."""
    global _current
    if _current is None or _current.pid != os.getpid():
        machine, boot, namespace = _surroundings()
        _current = Owner(os.getpid(), _start_time(os.getpid()) or 0, machine, boot, namespace)
    return _current


def _surroundings() -> tuple[str, str, str]:
    name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
    machine = name + _text("/etc/machine-id")
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = "".join(character for character in os.readlink("/proc/self/ns/pid") if character.isdigit())
    return _short(machine), _short(_text("/proc/sys/kernel/random/boot_id")), namespace


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def _start_time(pid: int) -> int | None:
    """Return when a process started, or ``None`` if there is none (a zombie is none: it has released everything)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name, in brackets, may hold anything; what follows the last bracket is fixed: state is field 3.
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        if os.path.isdir("/proc/self"):
            return None
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 1000)
    except psutil.NoSuchProcess:
        return None


class Leases:
    """What live processes are using: one file per process, named for it, with a digest a line."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._mine: set[str] = set()
        self._owner: Owner | None = None

    def take(self, digest: str) -> None:
        """Note that this process uses an artifact, until it ends or calls :meth:`release`."""
        owner = current_owner()
        if self._owner is not None and self._owner != owner:
            self._mine.clear()  # forked: the parent's leases are the parent's
        if digest in self._mine:
            return
        # A Store that may only be read cannot be collected by this user either.
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, exist_ok=True)
            with open(os.path.join(self._folder, str(owner)), "a", encoding="ascii") as file:
                file.write(digest + "\n")
            if self._owner != owner:
                import atexit

                atexit.register(self.release)
            self._owner = owner
            self._mine.add(digest)

    def release(self) -> None:
        """Give up every lease of this process."""
        self._mine.clear()
        if self._owner is not None and self._owner.pid == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._folder, str(self._owner)))

    def held(self) -> set[str]:
        """Return every digest that a live process uses, this one included."""
        found: set[str] = set()
        for path in self._files():
            with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as file:
                found.update(line.strip() for line in file)
        return found

    def sweep(self) -> None:
        """Remove the leases of processes that are gone."""
        self._files()

    def _files(self) -> Iterable[str]:
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        live = []
        for name in names:
            path = os.path.join(self._folder, name)
            owner = Owner.parse(name)
            if owner is not None and owner.is_gone(path):
                with contextlib.suppress(OSError):
                    os.unlink(path)
            else:
                live.append(path)
        return live
