"""Notices a worker that hangs: one that says nothing, computes nothing, and reads and writes nothing."""

from __future__ import annotations

import contextlib
import time

from olivine.systems.watch import Watch, stop

INTERVAL_S = 5.0
IDLE_SHARE = 0.005
"""Of a core: less than this is what sleeping threads take to wake up and look."""


class HangWatch(Watch):
    """While it is entered, looks at a process and its children, and kills them when they have hung for ``limit``.

    A Step that is only slow is not disturbed, however long it says nothing. Time in which nobody looked (the machine
    slept, or was stopped) does not count.

    Attributes:
        limit: seconds.
        hung: whether they were killed.
    """

    def __init__(self, pid: int, limit: float) -> None:
        self.limit = limit
        self.hung = False
        super().__init__(pid)
        self._said = False

    def heard(self) -> None:
        """Note that the worker said something."""
        self._said = True

    def _look(self) -> None:
        interval = min(INTERVAL_S, self.limit / 4)
        before, looked, idle = self._activity(), time.monotonic(), 0.0
        while not self._over.wait(interval):
            now = time.monotonic()
            passed = min(now - looked, 2 * interval)
            looked = now
            activity = self._activity()
            if activity is None:
                return  # it has ended
            worked = before is None or (
                activity[0] - before[0] > IDLE_SHARE * passed or activity[0] < before[0] or activity[1] != before[1]
            )
            before = activity
            idle = 0.0 if worked or self._said else idle + passed
            self._said = False
            if idle >= self.limit:
                self.hung = True
                stop(self._pid)
                return

    def _activity(self) -> tuple[float, int] | None:
        """Return seconds of processor time and bytes read and written by the process tree; ``None`` if it is gone."""
        import psutil

        try:
            worker = psutil.Process(self._pid)
            if worker.status() == psutil.STATUS_ZOMBIE:
                return None
            tree = [worker, *worker.children(recursive=True)]
        except psutil.NoSuchProcess:
            return None
        seconds, moved = 0.0, 0
        for each in tree:
            with contextlib.suppress(psutil.Error):  # a child that has ended just now, or that may not be looked at
                times = each.cpu_times()
                seconds += times.user + times.system
                if hasattr(each, "io_counters"):  # not on macOS
                    counters = each.io_counters()
                    moved += getattr(counters, "read_chars", counters.read_bytes)
                    moved += getattr(counters, "write_chars", counters.write_bytes)
        return seconds, moved
