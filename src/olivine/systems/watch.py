"""What watches a worker has in common: a thread beside it, from entering to leaving."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Watch(ABC):
    """Looks at a process from a thread of its own while it is entered."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @abstractmethod
    def _look(self) -> None:
        """Look until ``_over`` is set."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()


def stop(pid: int) -> None:
    """Have a worker write into the log where it is, and kill it and its children."""
    import psutil

    with contextlib.suppress(psutil.Error):
        worker = psutil.Process(pid)
        tree = [worker, *worker.children(recursive=True)]
        if hasattr(signal, "SIGUSR1"):  # the worker has faulthandler listen to it
            worker.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
        for each in reversed(tree):
            each.kill()
