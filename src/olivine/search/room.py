"""Memory for candidates that are made side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable

from olivine.hardware.memory import free_memory_bytes

MARGIN = 1.2
"""A candidate may take so many times what was estimated, or what the largest so far took."""
LOOK_EVERY_S = 0.5


class Room:
    """Lets a candidate in when there is memory for it, or nothing else runs.

    Args:
        free: how many bytes are free now.
    """

    def __init__(self, free: Callable[[], int] = free_memory_bytes) -> None:
        self._free = free
        self._changed = threading.Condition()
        self._largest = 0
        self._inside = 0

    def enter(self, estimate: int = 0) -> None:
        """Wait until there is room for a candidate of ``estimate`` bytes, or as large as the largest so far."""
        with self._changed:
            while self._inside > 0 and self._free() <= MARGIN * max(estimate, self._largest):
                self._changed.wait(LOOK_EVERY_S)
            self._inside += 1

    def leave(self) -> None:
        """Make room."""
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def learn(self, peak: int) -> None:
        """Note the peak memory of a candidate."""
        with self._changed:
            self._largest = max(self._largest, peak)
