"""What happens during a run, as values: the terminal shows them, ``--json`` prints them, the run's log keeps them.

An event is one flat JSON object. ``event`` names its kind, ``time`` is Unix time in seconds, ``step`` the Step's name
in the configuration.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

EventSink = Callable[["Event"], None]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        event: kind: ``run-started``, ``note``, ``step-started``, ``step-cached``, ``step-waiting``, ``progress``,
            ``step-done``, ``step-failed``, ``published``, ``run-done``, ``run-failed``.
        step: name of the Step it belongs to, or empty.
        data: the rest; JSON.
        time: Unix time in seconds.
    """

    event: str
    step: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)

    def as_json(self) -> dict[str, Any]:
        """Return the event as one flat object."""
        head: dict[str, Any] = {"event": self.event, "time": round(self.time, 3)}
        if self.step:
            head["step"] = self.step
        return head | self.data
