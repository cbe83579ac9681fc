"""Peak resident memory of this process."""

from __future__ import annotations

import contextlib


def reset_peak_memory() -> None:
    """Make the kernel count this process's peak resident memory from now (Linux; elsewhere the peak is of its life)."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    found = peak_memory_of("self")
    if found:
        return found
    import psutil

    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def peak_memory_of(pid: int | str) -> int:
    """Return the peak resident memory of a process in bytes; 0 if it has ended, or the system does not say."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
