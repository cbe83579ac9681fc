"""Looks at a worker's memory: says the most that it held, and stops it before the system stops whatever it likes."""

from __future__ import annotations

import contextlib

from olivine.hardware.peak import peak_memory_of
from olivine.systems.watch import Watch

INTERVAL_S = 0.05
"""Seconds between two looks where there is a limit."""
SELDOM_S = 0.25
"""And where there is none: the system itself keeps the peak, which is only read."""


class MemoryWatch(Watch):
    """While it is entered, looks at the memory of a process and its children, and kills them above the limit.

    Counted against the limit is what no file backs: pages of a mapped checkpoint are given back when memory is short.

    Attributes:
        limit: bytes; ``None``: it only looks.
        exceeded: bytes that were taken when the limit was passed; 0 if it was not.
        peak: the most that the process itself was seen to hold, mapped files included.
    """

    def __init__(self, pid: int, limit: int | None) -> None:
        self.limit = limit
        self.exceeded = 0
        self.peak = 0
        super().__init__(pid)

    def _look(self) -> None:
        while not self._over.wait(SELDOM_S if self.limit is None else INTERVAL_S):
            self.peak = max(self.peak, peak_memory_of(self._pid))
            if self.limit is not None and self._stopped(self.limit):
                return

    def _stopped(self, limit: int) -> bool:
        """Kill the process and its children if they take more than ``limit``; return whether they did."""
        import psutil

        with contextlib.suppress(psutil.Error):  # it has ended, or a child of it has just now
            worker = psutil.Process(self._pid)
            tree = [worker, *worker.children(recursive=True)]
            taken = 0
            for each in tree:
                memory = each.memory_info()
                taken += memory.rss - getattr(memory, "shared", 0)
            if taken > limit:
                self.exceeded = taken
                for each in reversed(tree):
                    each.kill()
                return True
        return False
