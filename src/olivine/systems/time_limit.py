"""Stops a worker whose Step takes longer than the configuration allows, whatever it does meanwhile."""

from __future__ import annotations

import time

from olivine.systems.watch import Watch, stop

INTERVAL_S = 1.0


class TimeLimit(Watch):
    """While it is entered, counts the time, and kills a process and its children after ``limit``.

    It is for a Step that computes for ever, which :class:`olivine.systems.hang_watch.HangWatch` takes for one that is
    only slow. Time in which nobody looked (the machine slept, or was stopped) does not count.

    Attributes:
        limit: seconds.
        exceeded: whether they were killed.
    """

    def __init__(self, pid: int, limit: float) -> None:
        self.limit = limit
        self.exceeded = False
        super().__init__(pid)

    def _look(self) -> None:
        left, looked = self.limit, time.monotonic()
        while not self._over.wait(min(INTERVAL_S, left)):
            now = time.monotonic()
            left -= min(now - looked, 2 * INTERVAL_S)
            looked = now
            if left <= 0:
                self.exceeded = True
                stop(self._pid)
                return
