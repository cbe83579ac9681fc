"""What is to go wrong, when, and how often.

A request is known as ``SERVER METHOD PATH`` (``arm PUT /subscriptions/...``, ``blob GET /container/name``,
``identity POST /...``, ``vault GET /secrets/...``); a fault strikes those its pattern matches, until it is used up.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["status", "reset", "truncate", "flip", "stall", "lose", "call"]


@dataclass
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: ``status`` answers with ``status`` and does nothing; ``reset`` resets the connection after ``after``
            bytes of the body; ``truncate`` ends it there in order; ``flip`` changes one byte there; ``stall`` sends
            nothing for ``seconds``; ``lose`` does what was asked, and resets instead of answering; ``call`` calls
            ``action`` before the request is looked at (``late``: after it was done, before the answer,
            and with storage after ``after`` bytes of it), and with ``drop`` resets the connection instead of going on.
        match: which requests.
        times: how many more of them.
        fired: how many it has struck.
    """

    kind: Kind
    match: re.Pattern[str]
    times: int
    status: int = 503
    after: int = 0
    seconds: float = 0.0
    retry_after: str | None = None
    action: Callable[[], None] | None = None
    late: bool = False
    drop: bool = False
    fired: int = 0


class Faults:
    """The faults of one cloud; all its servers ask here."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._down_until = 0.0

    def arm(
        self,
        kind: Kind,
        match: str,
        *,
        times: int = 1,
        status: int = 503,
        after: int = 0,
        seconds: float = 0.0,
        retry_after: str | None = None,
        action: Callable[[], None] | None = None,
        late: bool = False,
        drop: bool = False,
    ) -> Fault:
        """Let a fault strike the next ``times`` requests that match."""
        fault = Fault(kind, re.compile(match), times, status, after, seconds, retry_after, action, late, drop)
        with self._lock:
            self._faults.append(fault)
        return fault

    def outage(self, seconds: float) -> None:
        """From now on and for ``seconds``, reset every connection to the service and its storage."""
        self._down_until = time.monotonic() + seconds

    @property
    def down(self) -> bool:
        """Whether there is an outage."""
        return time.monotonic() < self._down_until

    def take(self, request: str) -> Fault | None:
        """Return the fault that strikes ``request``, if one does, and use it once."""
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and fault.match.search(request):
                    fault.times -= 1
                    fault.fired += 1
                    return fault
        return None

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        with self._lock:
            self._faults.clear()
        self._down_until = 0.0
