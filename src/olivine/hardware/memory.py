"""How much memory is free for a process here, a container's limit included."""

from __future__ import annotations

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux shows the limits of the group that this process is in (cgroup version 2)."""


def free_memory_bytes(cgroup: Path = CGROUP) -> int:
    """Return the bytes that can be taken without swapping: what the machine has free, or what is left of a limit."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is None or used is None:
        return free
    return max(0, min(free, limit - used + _reclaimable(cgroup / "memory.stat")))


def killed_for_memory(cgroup: Path = CGROUP) -> int:
    """Return how many processes of this group the system has killed for want of memory; 0 where it does not say."""
    try:
        lines = (cgroup / "memory.events").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _number(file: Path) -> int | None:
    """Return the number in a file; ``None`` if it is not there or says ``max``."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _reclaimable(file: Path) -> int:
    """Return the bytes of cached file pages, which count as used and are given back when memory is short."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
