"""How much memory is free for a process here, the limit of a container or of another control group included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux shows control groups."""
MEMBERSHIP = Path("/proc/self/cgroup")
"""Where it says which of them this process is in."""


@dataclass(frozen=True)
class _Names:
    """What the files and entries are called that say how much memory a group takes and may take."""

    limit: str
    used: str
    cached: str
    events: str


_SECOND = _Names("memory.max", "memory.current", "inactive_file ", "memory.events")
_FIRST = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ", "memory.oom_control")


def free_memory_bytes(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Return the bytes that can be taken without swapping: what the machine has free, or what is left of a limit."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for folder, names in _groups(cgroup, membership):
        limit, used = _number(folder / names.limit), _number(folder / names.used)
        if limit is not None and used is not None:
            # Cached file pages count as used, and are given back when memory is short.
            free = min(free, max(0, limit - used + _entry(folder / "memory.stat", names.cached)))
    return free


def memory_limit_bytes(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int | None:
    """Return the bytes that the processes of this group may take together, ``None`` if nothing limits them."""
    limits = (_number(folder / names.limit) for folder, names in _groups(cgroup, membership))
    # The first version has no word for "no limit", but a number beyond all memory.
    return min((each for each in limits if each is not None and each < 2**60), default=None)


def killed_for_memory(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Return how many processes of this group the system has killed for want of memory; 0 where it does not say."""
    # Those around it count what was killed elsewhere, too.
    innermost = next(_groups(cgroup, membership), None)
    return _entry(innermost[0] / innermost[1].events, "oom_kill ") if innermost is not None else 0


def _groups(cgroup: Path, membership: Path) -> Iterator[tuple[Path, _Names]]:
    """Yield the folders of the group that this process is in and of those around it, of either version.

    In a container the path that the process is told may be one that only the host knows; then the folder that is
    shown as the root is the container's own.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root, names = (cgroup / "memory", _FIRST) if controllers else (cgroup, _SECOND)
        inner = Path(path.lstrip("/"))
        for each in (inner, *inner.parents):
            if ".." not in each.parts and (root / each / names.used).is_file() | (root / each / names.events).is_file():
                yield root / each, names


def _number(file: Path) -> int | None:
    """Return the number in a file; ``None`` if it is not there or says ``max``."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _entry(file: Path, name: str) -> int:
    """Return the number after ``name`` in a file of such lines; 0 if it is not there."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(name))
