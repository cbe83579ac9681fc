"""Stops a worker that takes more memory than it may, before the system stops whatever it likes."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

INTERVAL_S = 0.05


class MemoryWatch:
    """While it is entered, looks at the memory of a process and its children, and kills them above the limit.

    Counted is what no file backs: pages of a mapped checkpoint are given back when memory is short.

    Attributes:
        limit: bytes.
        exceeded: bytes that were taken when the limit was passed; 0 if it was not.
    """

    def __init__(self, pid: int, limit: int) -> None:
        self.limit = limit
        self.exceeded = 0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        import psutil

        while not self._over.wait(INTERVAL_S):
            with contextlib.suppress(psutil.Error):  # it has ended, or a child of it has just now
                worker = psutil.Process(self._pid)
                tree = [worker, *worker.children(recursive=True)]
                taken = 0
                for each in tree:
                    memory = each.memory_info()
                    taken += memory.rss - getattr(memory, "shared", 0)
                if taken > self.limit:
                    self.exceeded = taken
                    for each in reversed(tree):
                        each.kill()
                    return
