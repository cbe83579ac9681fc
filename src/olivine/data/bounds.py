"""Running somebody's template within bounds of time and memory: a few loops in it are enough to take hours."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

TIME_S = 10.0
"""Seconds that one rendering may take; a long chat takes a few milliseconds."""
MEMORY = 2 * 2**30
"""Bytes that the process may grow by meanwhile."""


class TooLong(Exception):
    """The time is over."""


@contextlib.contextmanager
def bounded(seconds: float = TIME_S, memory: int = MEMORY) -> Iterator[None]:
    """Raise out of a block that takes too long or too much memory.

    Holds in the main thread of a POSIX system, which is where plans and workers render; elsewhere there are no bounds.

    Raises:
        TooLong: it took more than ``seconds``.
        MemoryError: it took more than ``memory`` bytes.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    import resource

    def stop(_: int, __: FrameType | None) -> None:
        raise TooLong(f"it took more than {seconds:g} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = _size() + memory
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if before[0] == resource.RLIM_INFINITY or before[0] > limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _size() -> int:
    """Return the size of this process's address space in bytes."""
    import psutil

    return int(psutil.Process().memory_info().vms)
