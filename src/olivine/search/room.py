"""Memory for candidates that are made side by side."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from olivine.hardware.memory import free_memory_bytes

MARGIN = 1.2
"""A candidate may take so many times what was estimated, or what the largest so far took."""
LOOK_EVERY_S = 0.5


def taken_by_workers() -> int:
    """Return the bytes that the processes hold which this one has started."""
    import psutil

    taken = 0
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended just now
            taken += each.memory_info().rss
    return taken


class Room:
    """Lets a candidate in when there is memory for it beside those that are in, or nothing else runs.

    What was promised to the others counts from the moment they come in, though they take it only later.

    Args:
        limit: bytes that all of them may take together (``engine.max_memory``); ``None``: what is free.
        free: how many bytes are free now.
        taken: how many bytes those that are in hold already.
    """

    def __init__(
        self,
        limit: int | None = None,
        free: Callable[[], int] = free_memory_bytes,
        taken: Callable[[], int] = taken_by_workers,
    ) -> None:
        self._limit = limit
        self._free = free
        self._taken = taken
        self._changed = threading.Condition()
        self._largest = 0
        self._promised: list[int] = []

    def enter(self, estimate: int = 0, waits: Callable[[int], None] = lambda _: None) -> int:
        """Wait until there is room for a candidate of ``estimate`` bytes, or as large as the largest so far.

        Args:
            estimate: bytes.
            waits: called once with what it needs if it cannot come in at once.

        Returns:
            What it was promised, which :meth:`leave` gives back.
        """
        told = False
        with self._changed:
            while True:
                needed = int(MARGIN * max(estimate, self._largest))
                if not self._promised or self._fits(needed):
                    self._promised.append(needed)
                    return needed
                if not told:
                    told = True
                    waits(needed)
                self._changed.wait(LOOK_EVERY_S)

    def leave(self, promised: int) -> None:
        """Make room."""
        with self._changed:
            self._promised.remove(promised)
            self._changed.notify_all()

    def learn(self, peak: int) -> None:
        """Note the peak memory of a candidate."""
        with self._changed:
            self._largest = max(self._largest, peak)

    def _fits(self, needed: int) -> bool:
        promised = sum(self._promised)
        if self._limit is not None and promised + needed > self._limit:
            return False
        return needed <= self._free() - max(0, promised - self._taken())
